//! A backend of the simulation: takes tasks, works on them more or less well, and dies now and then.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Dice;
use super::net::Shared;
use super::ops::{Op, Ops};
use super::peer::Peer;
use super::{FREE, SESSION, SESSION_ID};

/// Everything that was ever handed out, to whomever.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By fence: the task.
    fences: BTreeMap<u64, u64>,
    pub tasks: BTreeMap<u64, Known>,
    /// What a task is about, and which task that is: one for each thing that was to be done.
    pub subjects: BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
pub struct Known {
    subject: String,
    data: Value,
    /// Fences by attempt.
    attempts: BTreeMap<u64, u64>,
    /// It was said and heard to be done under this fence.
    done: Option<u64>,
}

impl Ledger {
    fn handed(&mut self, frame: &Value) -> Result<(u64, u64), String> {
        let number = |name: &str| frame[name].as_u64().ok_or(format!("no {name}: {frame}"));
        let task: u64 = frame["task"].as_str().and_then(|task| task.parse().ok()).ok_or("no task")?;
        let (fence, attempt) = (number("fence")?, number("attempt")?);
        if let Some(first) = self.fences.insert(fence, task) {
            return Err(format!("G7: fence {fence} was given with task {first} before: {frame}"));
        }
        let subject = subject(frame)?;
        if let Some(first) = self.subjects.insert(subject.clone(), task).filter(|first| *first != task) {
            return Err(format!("G7: {subject} is task {first} and task {task}"));
        }
        let known = self.tasks.entry(task).or_default();
        if known.attempts.is_empty() {
            known.subject = subject;
            known.data = frame["data"].clone();
        } else if known.subject != subject || known.data != frame["data"] {
            return Err(format!("G7: task {task} was another one: {} {}, now {frame}", known.subject, known.data));
        }
        if known.attempts.insert(attempt, fence).is_some() {
            return Err(format!("G7: attempt {attempt} of task {task} was made twice: {frame}"));
        }
        let before = known.attempts.range(..attempt).next_back().map(|(_, fence)| *fence);
        let after = known.attempts.range(attempt + 1..).next().map(|(_, fence)| *fence);
        if before.is_some_and(|before| before >= fence) || after.is_some_and(|after| after <= fence) {
            return Err(format!("G7: the fences of task {task} do not rise: {:?}", known.attempts));
        }
        known.check_done(task)?;
        Ok((task, fence))
    }

    /// Rises whenever something was handed out.
    pub fn pulse(&self) -> usize {
        self.fences.len()
    }

    fn done(&mut self, task: u64, fence: u64) -> Result<(), String> {
        let known = self.tasks.entry(task).or_default();
        known.done = Some(known.done.map_or(fence, |done| done.min(fence)));
        known.check_done(task)
    }
}

impl Known {
    /// What is done is not handed out again, and nobody but the last holder can have done it.
    fn check_done(&self, task: u64) -> Result<(), String> {
        let last = self.attempts.values().max();
        match (self.done, last) {
            (Some(done), Some(last)) if *last > done => {
                Err(format!("G7: task {task} is done under fence {done} and was handed out under {last}"))
            }
            _ => Ok(()),
        }
    }

    pub fn decision(&self) -> Option<(&str, &str, u64)> {
        let text = |name: &str| self.data[name].as_str();
        let is_one = self.subject.starts_with("decision ");
        is_one.then_some((text("request_id")?, text("decision")?, self.data["seq"].as_u64()?))
    }
}

fn subject(frame: &Value) -> Result<String, String> {
    let kind = frame["kind"].as_str().unwrap_or_default();
    let field = match kind {
        "execute" | "cancel" => "execution_id",
        "decision" => "request_id",
        "ticket" => "ticket_id",
        "response" => "response",
        "chat" => "message",
        other => return Err(format!("nobody asked for {other}: {frame}")),
    };
    match frame["data"][field].as_str() {
        Some(name) => Ok(format!("{kind} {name}")),
        None => Err(format!("no {field}: {frame}")),
    }
}

/// The longest that a request for a decision waits, where it does not wait for ever.
pub const EXPIRES_SECONDS_MAX: usize = 8;

/// A request for a decision, as it was sent.
#[derive(Clone, Debug)]
pub struct Request {
    pub text: String,
    pub copies: usize,
    pub refusals: usize,
    pub seq: Option<u64>,
}

/// What all backends share: one application.
#[derive(Debug, Default)]
pub struct Office {
    pub ledger: Ledger,
    /// By the approval's id.
    pub requests: BTreeMap<String, Request>,
    /// Hand-outs of backends that are dead by now: (task, fence).
    pub old: Vec<(u64, u64)>,
    published: usize,
}

#[derive(Clone, Debug)]
struct Held {
    task: u64,
    fence: u64,
    is_run: bool,
    /// `done` or `fail` was said, and not answered.
    ending: Option<&'static str>,
}

#[derive(Debug)]
pub struct Backend {
    pub peer: Peer,
    greeted: bool,
    pub is_tireless: bool,
    held: Vec<Held>,
    /// Said to be done in the name of somebody who went before, and not answered: (task, fence).
    inherited: Vec<(u64, u64)>,
}

impl Backend {
    pub fn dial(wire: Shared) -> Backend {
        let peer = Peer::dial(wire, "/v1/backend");
        Backend { peer, greeted: false, is_tireless: false, held: Vec::new(), inherited: Vec::new() }
    }

    /// Takes whatever there is.
    pub fn tireless(wire: Shared) -> Backend {
        Backend { is_tireless: true, ..Backend::dial(wire) }
    }

    pub fn is_live(&self) -> bool {
        self.peer.is_open() && self.greeted
    }

    fn take(&mut self, dice: &mut Dice) {
        if self.is_tireless {
            return self.peer.say(r#"{"op":"take","max":20}"#);
        }
        let kinds = ["", r#","kinds":["execute","decision"]"#, r#","kinds":["ticket","response","cancel"]"#];
        let kinds = kinds[dice.below(4).saturating_sub(1)];
        let (max, lease) = (1 + dice.below(4), [1000, 5000, 30_000][dice.below(3)]);
        self.peer.say(&format!(r#"{{"op":"take","max":{max},"lease_ms":{lease}{kinds}}}"#));
    }

    /// Some work on one of its tasks.
    pub fn work(&mut self, dice: &mut Dice, office: &mut Office, ops: &mut Ops) {
        if dice.chance(10) {
            return self.haunt(dice, office, ops);
        }
        let idle: Vec<usize> = (0..self.held.len()).filter(|place| self.held[*place].ending.is_none()).collect();
        if idle.is_empty() {
            return;
        }
        let place = idle[dice.below(idle.len())];
        let Held { task, fence, is_run, .. } = self.held[place];
        match dice.below(10) {
            0 => {
                let retry = dice.below(2000);
                self.held[place].ending = Some("fail");
                self.peer.say(&format!(r#"{{"op":"fail","task":"{task}","fence":{fence},"retry_ms":{retry}}}"#));
            }
            1..=5 if is_run => self.ask(dice, office),
            3..=7 => self.publish(task, fence, is_run, dice, office, ops),
            _ => self.finish(place),
        }
    }

    fn finish(&mut self, place: usize) {
        let Held { task, fence, .. } = self.held[place];
        self.held[place].ending = Some("done");
        self.peer.say(&format!(r#"{{"op":"done","task":"{task}","fence":{fence}}}"#));
    }

    pub fn finish_all(&mut self) {
        for place in 0..self.held.len() {
            if self.held[place].ending.is_none() {
                self.finish(place);
            }
        }
    }

    /// Says of a task that a dead backend had what that one might have said: only the last holder may be believed.
    fn haunt(&mut self, dice: &mut Dice, office: &mut Office, ops: &mut Ops) {
        if office.old.is_empty() {
            return;
        }
        let (task, fence) = office.old[dice.below(office.old.len())];
        // An answer names the task only, so there must be one question about it at a time.
        let asked = self.held.iter().any(|held| held.task == task);
        if dice.chance(50) || asked || self.inherited.iter().any(|(other, _)| *other == task) {
            return self.publish(task, fence, false, dice, office, ops);
        }
        self.inherited.push((task, fence));
        self.peer.say(&format!(r#"{{"op":"done","task":"{task}","fence":{fence}}}"#));
    }

    /// In the name of a task, where the fence is the guard.
    fn publish(&mut self, task: u64, fence: u64, is_run: bool, dice: &mut Dice, office: &mut Office, ops: &mut Ops) {
        office.published += 1;
        let id = format!("b-{}", office.published);
        let (room, kind, data) = match dice.below(4) {
            0 if is_run => (SESSION, "tool_call", format!(r#"{{"tool_name":"{id}"}}"#)),
            1 if is_run => (SESSION, "complete", r#"{"success":true}"#.to_owned()),
            _ => (FREE, "note", format!(r#"{{"note":"{id}","task":{task},"fence":{fence}}}"#)),
        };
        let text = format!(
            r#"{{"op":"publish","room":"{room}","id":"{id}","type":"{kind}","data":{data},"task":"{task}","fence":{fence}}}"#
        );
        self.peer.say(&text);
        ops.sent(id, Op::new(room, text));
    }

    /// A human is to decide. Under an id of its own, so that asking again after a crash is not asking twice.
    fn ask(&mut self, dice: &mut Dice, office: &mut Office) {
        if !office.requests.is_empty() && dice.chance(25) {
            let place = dice.below(office.requests.len());
            if let Some(request) = office.requests.values_mut().nth(place) {
                request.copies += 1;
                self.peer.say(&request.text);
            }
            return;
        }
        let number = office.requests.len();
        let id = format!("00000000-0000-4000-8000-{number:012x}");
        let expires = match dice.below(5) {
            0 | 1 => String::new(),
            2 => r#","expires_in":0.02"#.to_owned(),
            _ => format!(r#","expires_in":{}"#, 1 + dice.below(EXPIRES_SECONDS_MAX)),
        };
        let text = format!(
            r#"{{"op":"approval","session":"{SESSION_ID}","id":"{id}","tool_name":"pay","tool_args":{{"n":{number}}}{expires}}}"#
        );
        self.peer.say(&text);
        office.requests.insert(id, Request { text, copies: 1, refusals: 0, seq: None });
    }

    pub fn read(&mut self, most: usize, dice: &mut Dice, office: &mut Office, ops: &mut Ops) -> Result<(), String> {
        for text in self.peer.read(most)? {
            let frame: Value = serde_json::from_slice(&text).map_err(|error| format!("not JSON: {error}"))?;
            self.note(&frame, dice, office, ops)?;
        }
        Ok(())
    }

    fn note(&mut self, frame: &Value, dice: &mut Dice, office: &mut Office, ops: &mut Ops) -> Result<(), String> {
        let op = frame["op"].as_str().unwrap_or_default();
        let id = frame["id"].as_str().unwrap_or_default();
        match op {
            "hello" => {
                self.greeted = true;
                self.take(dice);
            }
            "task" => {
                let (task, fence) = office.ledger.handed(frame)?;
                self.held.push(Held { task, fence, is_run: frame["kind"] == "execute", ending: None });
            }
            "pong" | "bye" => {}
            "ok" | "refused" | "unknown" if office.requests.contains_key(id) => {
                let Some(request) = office.requests.get_mut(id) else { return Ok(()) };
                match (op, frame["seq"].as_u64()) {
                    ("ok", Some(seq)) if request.seq.is_none_or(|first| first == seq) => request.seq = Some(seq),
                    ("ok", seq) => return Err(format!("G5: {id} was asked at {:?}, now {seq:?}", request.seq)),
                    ("refused", _) => request.refusals += 1,
                    _ => {}
                }
            }
            "ok" | "refused" | "unknown" | "conflict" if ops.all.contains_key(id) => ops.answered(frame)?,
            "ok" | "refused" | "unknown" => self.settled(op, frame, office)?,
            other => return Err(format!("unexpected {other}: {frame}")),
        }
        Ok(())
    }

    /// What became of a `done` or a `fail`.
    fn settled(&mut self, op: &str, frame: &Value, office: &mut Office) -> Result<(), String> {
        let task: u64 = frame["task"].as_str().and_then(|task| task.parse().ok()).ok_or(format!("what? {frame}"))?;
        if let Some(place) = self.inherited.iter().position(|(other, _)| *other == task) {
            let (_, fence) = self.inherited.swap_remove(place);
            return if op == "ok" { office.ledger.done(task, fence) } else { Ok(()) };
        }
        let Some(place) = self.held.iter().position(|held| held.task == task && held.ending.is_some()) else {
            return Err(format!("an answer to nothing: {frame}"));
        };
        match (op, frame["code"].as_str()) {
            ("ok", _) => {
                let held = self.held.swap_remove(place);
                if held.ending == Some("done") {
                    office.ledger.done(task, held.fence)?;
                }
            }
            // As long as the socket lives the task is its own.
            (_, Some("stale_fence" | "unknown_task")) => {
                return Err(format!("G7: {:?} is refused to its holder: {frame}", self.held[place]));
            }
            // Busy, full, or nobody knows: to be said again.
            _ => self.held[place].ending = None,
        }
        Ok(())
    }

    /// What it had is somebody else's from now on.
    pub fn bury(&mut self, office: &mut Office) {
        office.old.extend(self.held.drain(..).map(|held| (held.task, held.fence)));
    }
}
