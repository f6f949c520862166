//! From recorded frames to what they say: operations and their answers, runs of events, resumes, decisions, tasks.
//!
//! Knows the vocabularies and judges nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::history::{Connection, Ending, Speaks, Tick, Way};
use super::log::{Event, key_of_command, key_of_response, text};

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Saved. `rest`: what must be the same in each copy's answer.
    Ok {
        seq: Option<u64>,
        rest: String,
    },
    Refused {
        code: String,
    },
    Unknown,
}

#[derive(Clone, Debug, Default)]
pub struct Op {
    pub copies: usize,
    /// Sent whole for the first time; none where only parts of it ever went out.
    pub sent: Option<Tick>,
    pub answers: Vec<(Tick, Answer)>,
    /// The approval that it decides, and how.
    pub decides: Option<(String, String)>,
    /// Sent once and not to be sent again, so that no answer may be owed for ever.
    pub is_bare: bool,
}

/// Where a run begins.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    /// Behind this seq.
    After(u64),
    /// Behind the event that made this state.
    State(String),
    /// Somewhere in the log, but not behind what was sent after it was greeted.
    Live(Tick),
}

/// What one connection was shown of one room, between joining and leaving.
#[derive(Clone, Debug)]
pub struct Run {
    pub name: String,
    pub room: String,
    pub speaks: Speaks,
    pub start: Start,
    /// Each event's seq, where the vocabulary bears one, and its body.
    pub shown: Vec<(Option<u64>, String)>,
    /// Keys of operations that this connection sent.
    pub own: BTreeSet<String>,
}

/// A join that gave a position, or that was given one.
#[derive(Clone, Debug)]
pub struct Join {
    pub name: String,
    pub room: String,
    pub asked: Tick,
    pub since: Option<(String, u64)>,
    pub epoch: String,
    pub head: u64,
    pub recovered: bool,
    /// The position in the reset that followed, if one did: none where it has none.
    pub reset: Option<Option<u64>>,
    /// Events came: a connection that was cut right behind the join says nothing about a reset.
    pub was_shown: bool,
}

/// Somebody was told how an approval was decided.
#[derive(Clone, Debug)]
pub struct Told {
    pub name: String,
    pub approval: String,
    pub decision: String,
    pub seq: Option<u64>,
}

/// A task as it was handed out.
#[derive(Clone, Debug)]
pub struct Handed {
    pub tick: Tick,
    pub task: String,
    pub fence: u64,
    pub attempt: u64,
    /// The approval whose decision is to be carried out.
    pub approval: Option<String>,
}

/// A publish in a task's name that was taken, and was no repetition.
#[derive(Clone, Debug)]
pub struct Fenced {
    pub sent: Tick,
    pub task: String,
    pub fence: u64,
    pub id: String,
}

/// What a page was greeted with.
#[derive(Clone, Debug)]
pub struct Greeting {
    pub name: String,
    pub room: String,
    pub opened: Tick,
    pub content: String,
}

#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// By room and key.
    pub ops: BTreeMap<(String, String), Op>,
    pub runs: Vec<Run>,
    pub joins: Vec<Join>,
    pub told: Vec<Told>,
    pub handed: Vec<Handed>,
    pub fenced: Vec<Fenced>,
    pub greetings: Vec<Greeting>,
    /// Observers that came to the end, and the names of those that did not.
    pub settled: usize,
    pub behind: Vec<String>,
    /// Frames that are no JSON object.
    pub garbled: Vec<String>,
}

pub fn read(connections: &[Connection]) -> Facts {
    let mut facts = Facts::default();
    for connection in connections {
        match connection.ending {
            Ending::Settled => facts.settled += 1,
            Ending::Behind => facts.behind.push(connection.name.clone()),
            _ => {}
        }
        Reader::new(connection, &mut facts).read();
    }
    facts
}

/// Reads one connection.
struct Reader<'c, 'f> {
    connection: &'c Connection,
    facts: &'f mut Facts,
    /// Rooms of the operations that were sent here, by id.
    asked: BTreeMap<String, String>,
    /// Joins that were not answered yet, by room.
    joining: BTreeMap<String, (Tick, Option<(String, u64)>)>,
    /// The run of each room that is open, as places in `facts.runs`.
    runs: BTreeMap<String, usize>,
    own: BTreeSet<String>,
    /// Fences of publishes under way, by id.
    fences: BTreeMap<String, (Tick, String, u64)>,
}

impl<'c, 'f> Reader<'c, 'f> {
    fn new(connection: &'c Connection, facts: &'f mut Facts) -> Reader<'c, 'f> {
        Reader {
            connection,
            facts,
            asked: BTreeMap::new(),
            joining: BTreeMap::new(),
            runs: BTreeMap::new(),
            own: BTreeSet::new(),
            fences: BTreeMap::new(),
        }
    }

    fn read(mut self) {
        for frame in &self.connection.frames {
            let Ok(said @ Value::Object(_)) = serde_json::from_str(&frame.text) else {
                self.facts.garbled.push(format!("{} was sent {}", self.connection.name, frame.text));
                continue;
            };
            match frame.way {
                Way::Out => self.sent(frame.tick, &said),
                Way::Torn => self.torn(&said),
                Way::In => self.heard(frame.tick, &said),
            }
        }
        for place in self.runs.into_values() {
            if let Some(run) = self.facts.runs.get_mut(place) {
                run.own.clone_from(&self.own);
            }
        }
    }

    // ---- what went out --------------------------------------------------------------------------------------------------

    fn sent(&mut self, tick: Tick, said: &Value) {
        match self.connection.speaks {
            Speaks::Http => {}
            Speaks::Native | Speaks::Backend => self.sent_natively(tick, said),
            Speaks::Document | Speaks::Workflow | Speaks::Tickets | Speaks::Session => {
                if let Some((room, key)) = self.operation(said) {
                    let is_bare = self.connection.speaks != Speaks::Document;
                    self.note_op(tick, room, key, None, is_bare);
                }
            }
        }
    }

    fn sent_natively(&mut self, tick: Tick, said: &Value) {
        match text(said, "op") {
            "join" => {
                let since = said.get("since").map(|since| (text(since, "epoch").to_owned(), number(since, "seq")));
                self.joining.insert(text(said, "room").to_owned(), (tick, since));
            }
            "publish" | "decide" | "approval" => {
                let Some((room, key)) = self.operation(said) else { return };
                if let (Some(task), Some(fence)) = (said.get("task"), said.get("fence").and_then(Value::as_u64)) {
                    let task = task.as_str().unwrap_or_default().to_owned();
                    self.fences.insert(key.clone(), (tick, task, fence));
                }
                let decides = (text(said, "op") == "decide")
                    .then(|| (text(said, "approval").to_owned(), decided(text(said, "decision")).to_owned()));
                // Whoever lost a task has no business to insist: its successor carries it out.
                let is_bare = self.connection.speaks == Speaks::Backend;
                self.note_op(tick, room, key, decides, is_bare);
            }
            _ => {}
        }
    }

    /// The room and the key of the operation that a frame asks for.
    fn operation(&self, said: &Value) -> Option<(String, String)> {
        let room = self.connection.room.clone();
        match (self.connection.speaks, text(said, "op"), text(said, "type")) {
            (_, "approval", _) => Some((format!("session:{}", text(said, "session")), text(said, "id").to_owned())),
            (_, "publish" | "decide", _) => Some((text(said, "room").to_owned(), text(said, "id").to_owned())),
            (Speaks::Document, ..) => said.get("id").map(|id| (room, id.as_str().unwrap_or_default().to_owned())),
            (Speaks::Tickets, _, "user_response") => Some((room, key_of_response(text(said, "session_id")))),
            (Speaks::Session, _, "execute") => {
                let command = said.get("data").map(|data| text(data, "command")).unwrap_or_default();
                Some((room, key_of_command(command)))
            }
            _ => None,
        }
    }

    fn note_op(&mut self, tick: Tick, room: String, key: String, decides: Option<(String, String)>, is_bare: bool) {
        self.asked.insert(key.clone(), room.clone());
        self.own.insert(key.clone());
        let op = self.facts.ops.entry((room, key)).or_default();
        op.copies += 1;
        op.sent = Some(op.sent.map_or(tick, |first| first.min(tick)));
        op.decides = decides;
        op.is_bare = is_bare;
    }

    fn torn(&mut self, said: &Value) {
        if let Some(place) = self.operation(said) {
            self.facts.ops.entry(place).or_default();
        }
    }

    // ---- what came in ---------------------------------------------------------------------------------------------------

    fn heard(&mut self, tick: Tick, said: &Value) {
        match self.connection.speaks {
            Speaks::Http => self.heard_http(said),
            Speaks::Native | Speaks::Backend => self.heard_natively(tick, said),
            Speaks::Document => self.heard_document(tick, said),
            Speaks::Workflow => self.heard_workflow(tick, said),
            Speaks::Tickets => self.heard_tickets(tick, said),
            Speaks::Session => self.heard_session(tick, said),
        }
    }

    fn answered(&mut self, tick: Tick, key: &str, answer: Answer) {
        let Some(room) = self.asked.get(key) else { return };
        if let Some(op) = self.facts.ops.get_mut(&(room.clone(), key.to_owned())) {
            op.answers.push((tick, answer));
        }
    }

    fn heard_natively(&mut self, tick: Tick, said: &Value) {
        let (room, id) = (text(said, "room"), text(said, "id"));
        match text(said, "op") {
            "event" => match Event::read(said) {
                Some(event) => self.show(room, Some(event.seq), event.whole.clone(), &event),
                None => self.facts.garbled.push(format!("{} was shown {said}", self.connection.name)),
            },
            "joined" => self.joined(said),
            "reset" => self.reset(said),
            "left" => {
                self.runs.remove(room);
            }
            "ok" if !id.is_empty() => {
                let is_new = said.get("dup").is_none();
                if let Some((sent, task, fence)) = self.fences.remove(id).filter(|_| is_new) {
                    self.facts.fenced.push(Fenced { sent, task, fence, id: id.to_owned() });
                }
                let rest = format!("{:?}", said.get("rev"));
                self.answered(tick, id, Answer::Ok { seq: said.get("seq").and_then(Value::as_u64), rest });
            }
            "refused" => self.refused(tick, said),
            "unknown" => self.answered(tick, id, Answer::Unknown),
            "task" => self.handed(tick, said),
            _ => {}
        }
    }

    fn refused(&mut self, tick: Tick, said: &Value) {
        let id = text(said, "id");
        let op = self.asked.get(id).and_then(|room| self.facts.ops.get(&(room.clone(), id.to_owned())));
        if let (Some((approval, _)), Some(decision)) = (op.and_then(|op| op.decides.clone()), said.get("decision")) {
            let decision = decision.as_str().unwrap_or_default();
            self.tell(&approval, decision, said.get("seq").and_then(Value::as_u64));
        }
        self.answered(tick, id, Answer::Refused { code: text(said, "code").to_owned() });
    }

    fn joined(&mut self, said: &Value) {
        let room = text(said, "room").to_owned();
        let Some((asked, since)) = self.joining.remove(&room) else { return };
        let head = number(said, "head");
        let recovered = said.get("recovered").and_then(Value::as_bool).unwrap_or(false);
        let after = match &since {
            Some((_, seq)) if recovered => *seq,
            _ => head,
        };
        self.begin(&room, Start::After(after));
        let (name, epoch) = (self.connection.name.clone(), text(said, "epoch").to_owned());
        self.facts.joins.push(Join { name, room, asked, since, epoch, head, recovered, reset: None, was_shown: false });
    }

    fn reset(&mut self, said: &Value) {
        let room = text(said, "room");
        let seq = said.get("seq").and_then(Value::as_u64);
        let of_here = |join: &&mut Join| join.room == room && join.name == self.connection.name;
        if let Some(join) = self.facts.joins.iter_mut().rev().find(of_here) {
            join.reset = Some(seq);
        }
        if let Some(seq) = seq {
            self.begin(room, Start::After(seq));
        }
    }

    fn handed(&mut self, tick: Tick, said: &Value) {
        let data = said.get("data").cloned().unwrap_or_default();
        let approval = (text(said, "kind") == "decision").then(|| text(&data, "request_id").to_owned());
        if let Some(approval) = &approval {
            self.tell(approval, text(&data, "decision"), data.get("seq").and_then(Value::as_u64));
        }
        let task = text(said, "task").to_owned();
        let (fence, attempt) = (number(said, "fence"), number(said, "attempt"));
        self.facts.handed.push(Handed { tick, task, fence, attempt, approval });
    }

    fn heard_document(&mut self, tick: Tick, said: &Value) {
        let room = self.connection.room.clone();
        let content = text(said, "content");
        match text(said, "action") {
            "initial" => {
                let (name, opened) = (self.connection.name.clone(), self.connection.opened);
                self.begin(&room, Start::State(content.to_owned()));
                self.facts.greetings.push(Greeting { name, room, opened, content: content.to_owned() });
            }
            "update" => self.show_page(&room, content.to_owned()),
            "update_status" => {
                let id = text(said, "id");
                let answer = match (said.get("success").and_then(Value::as_bool), text(said, "code")) {
                    (Some(true), _) => Answer::Ok {
                        seq: said.get("seq").and_then(Value::as_u64),
                        rest: text(said, "timestamp").to_owned(),
                    },
                    (_, "unknown") => Answer::Unknown,
                    (_, code) => Answer::Refused { code: code.to_owned() },
                };
                self.answered(tick, id, answer);
            }
            _ => {}
        }
    }

    fn heard_workflow(&mut self, tick: Tick, said: &Value) {
        let room = self.connection.room.clone();
        match text(said, "type") {
            "info" => self.begin(&room, Start::Live(tick)),
            "progress" => self.show_page(&room, said.to_string()),
            _ => {}
        }
    }

    fn heard_tickets(&mut self, tick: Tick, said: &Value) {
        let room = self.connection.room.clone();
        match text(said, "type") {
            "resumed" => self.begin(&room, Start::After(number(said, "after"))),
            "ack" => {
                let key = key_of_response(text(said, "session_id"));
                self.answered(tick, &key, Answer::Ok { seq: None, rest: String::new() });
            }
            "pong" | "error" => {}
            // Who did not ask for what is past is told nothing first: where it came in nobody can say.
            _ if !self.runs.contains_key(&room) => {
                self.begin(&room, Start::Live(Tick::MAX));
                self.show_page(&room, said.to_string());
            }
            _ => self.show_page(&room, said.to_string()),
        }
    }

    fn heard_session(&mut self, tick: Tick, said: &Value) {
        let room = self.connection.room.clone();
        let data = said.get("data").cloned().unwrap_or_default();
        match text(said, "type") {
            "connected" => self.begin(&room, Start::Live(tick)),
            "error" => {
                if data.get("decision").is_some() {
                    self.tell(text(&data, "request_id"), text(&data, "decision"), None);
                }
            }
            kind => {
                if matches!(kind, "approved" | "rejected" | "edit_approved") {
                    self.tell(text(&data, "request_id"), text(&data, "decision"), None);
                }
                self.show_page(&room, json!({"type": kind, "data": data}).to_string());
            }
        }
    }

    /// A decision over REST, in the agents' vocabulary.
    fn heard_http(&mut self, said: &Value) {
        let body = said.get("body").cloned().unwrap_or_default();
        if body.get("decision").is_some() {
            let asked = self.connection.frames.first().map(|frame| frame.text.as_str()).unwrap_or_default();
            let asked: Value = serde_json::from_str(asked).unwrap_or_default();
            let approval = text(&asked, "path").rsplit('/').nth(1).unwrap_or_default().to_owned();
            self.tell(&approval, text(&body, "decision"), None);
        }
    }

    // ---- what both come to ----------------------------------------------------------------------------------------------

    fn tell(&mut self, approval: &str, decision: &str, seq: Option<u64>) {
        let (name, approval) = (self.connection.name.clone(), approval.to_owned());
        self.facts.told.push(Told { name, approval, decision: decision.to_owned(), seq });
    }

    fn begin(&mut self, room: &str, start: Start) {
        let place = self.facts.runs.len();
        self.facts.runs.push(Run {
            name: self.connection.name.clone(),
            room: room.to_owned(),
            speaks: self.connection.speaks,
            start,
            shown: Vec::new(),
            own: BTreeSet::new(),
        });
        self.runs.insert(room.to_owned(), place);
    }

    fn show(&mut self, room: &str, seq: Option<u64>, body: String, event: &Event) {
        if let Some((approval, decision)) = event.decision() {
            self.tell(approval, decision, Some(event.seq));
        }
        let name = &self.connection.name;
        if let Some(join) = self.facts.joins.iter_mut().rev().find(|join| join.room == room && join.name == *name) {
            join.was_shown = true;
        }
        let run = self.runs.get(room).and_then(|place| self.facts.runs.get_mut(*place));
        match run {
            Some(run) => run.shown.push((seq, body)),
            None => self.facts.garbled.push(format!("{} is not in {room} and was shown {body}", self.connection.name)),
        }
    }

    fn show_page(&mut self, room: &str, body: String) {
        match self.runs.get(room).and_then(|place| self.facts.runs.get_mut(*place)) {
            Some(run) => run.shown.push((None, body)),
            None => self.facts.garbled.push(format!("{} was not greeted and was shown {body}", self.connection.name)),
        }
    }
}

/// What a verb makes of an approval.
pub fn decided(verb: &str) -> &str {
    match verb {
        "approve" => "approved",
        "reject" => "rejected",
        "edit" => "edited",
        "cancel" => "cancelled",
        other => other,
    }
}

fn number(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or(0)
}
