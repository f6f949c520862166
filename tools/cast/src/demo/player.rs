//! The backend's state: which tasks it has, how far each is played, and what is to be sent next. Pure: frames and the time
//! go in, frames and lines come out.
//!
//! ```text
//! task ─▶ Pausing ─▶ Asked ──ok──▶ Pausing … ─▶ Ending ──ok──▶ gone
//!            ▲         │ unknown, overloaded     ▲
//!            └─────────┘ (the same id again)     │ refused: the run is over, nothing more can be said
//!            Listening (for an answer) ─▶ Pausing
//! ```
//!
//! Each step waits for its answer, so that a task is called done only when everything it is for is stored. Whatever breaks
//! in between, the task comes again and is played from its first step; what was stored is then answered as a duplicate.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::pace::Pace;
use super::script::{self, Beat, Step};
use super::task::{Task, short};

/// Tasks that are held at a time.
pub const TASKS_MAX: usize = 32;
/// Before something is sent again whose outcome nobody knows.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often a task is given back that was refused for a reason of its own, before it is given up.
const ATTEMPTS_MAX: u64 = 3;

#[derive(Debug)]
pub struct Player {
    pace: Pace,
    playing: Vec<Playing>,
    /// Sessions that were answered before their ticket listened. Forgotten with their ticket.
    answered: HashSet<String>,
    /// The session that the demo itself gives commands to.
    own_session: String,
    /// Its run that waits for a decision, and until when at most.
    undecided: Option<(String, Duration)>,
    frames: Vec<String>,
    lines: Vec<String>,
}

#[derive(Debug)]
struct Playing {
    task: Task,
    beats: Vec<Beat>,
    /// Which beat is next, or waits for its answer.
    at: usize,
    stage: Stage,
}

#[derive(Clone, Debug, PartialEq)]
enum Stage {
    Pausing {
        until: Duration,
    },
    Asked {
        id: String,
    },
    Listening {
        until: Duration,
    },
    /// `done` or `fail` was sent; `again`: and is to be sent once more.
    Ending {
        end: End,
        again: Option<Duration>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    GiveBack,
}

impl Player {
    pub fn new(own_session: String, pace: Pace) -> Player {
        Player {
            pace,
            playing: Vec::new(),
            answered: HashSet::new(),
            own_session,
            undecided: None,
            frames: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// The connection is gone and with it every lease: all of it comes again.
    pub fn forget(&mut self) {
        self.playing.clear();
        self.answered.clear();
        self.frames.clear();
    }

    pub fn is_idle(&self) -> bool {
        self.playing.is_empty()
    }

    /// Does a run of the demo's own session wait for a decision? Its decision may go to another backend, so this is
    /// believed only as long as the decision itself is waited for.
    pub fn is_undecided(&self, now: Duration) -> bool {
        self.undecided.as_ref().is_some_and(|(_, until)| now < *until)
    }

    fn decided(&mut self, run: &str) {
        self.undecided = self.undecided.take().filter(|(waiting, _)| waiting != run);
    }

    /// What is to be sent since last time.
    pub fn take_frames(&mut self) -> Vec<String> {
        std::mem::take(&mut self.frames)
    }

    /// What is to be printed since last time.
    pub fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    /// When [`turn`](Player::turn) has something to do.
    pub fn due(&self) -> Option<Duration> {
        let due = |playing: &Playing| match playing.stage {
            Stage::Pausing { until } | Stage::Listening { until } => Some(until),
            Stage::Ending { again, .. } => again,
            Stage::Asked { .. } => None,
        };
        self.playing.iter().filter_map(due).min()
    }

    pub fn turn(&mut self, now: Duration) {
        for playing in &mut self.playing {
            match &playing.stage {
                Stage::Pausing { until } if *until <= now => self.frames.extend(playing.play(now, &self.answered)),
                Stage::Listening { until } if *until <= now => {
                    self.lines.push("ticket: nobody answered, goes on".to_owned());
                    playing.advance(now);
                }
                Stage::Ending { end, again: Some(again) } if *again <= now => self.frames.push(playing.end(*end)),
                _ => {}
            }
        }
    }

    /// A frame from the server. True when it was about a task.
    pub fn hear(&mut self, frame: &Value, now: Duration) -> bool {
        let op = frame.get("op").and_then(Value::as_str).unwrap_or_default();
        if op == "task" {
            match Task::read(frame) {
                Some(task) => self.begin(task, now),
                None => self.lines.push("a task came that cannot be read".to_owned()),
            }
            return true;
        }
        let text = |name: &str| frame.get(name).and_then(Value::as_str);
        let asked = |playing: &Playing| matches!(&playing.stage, Stage::Asked { id } if text("id") == Some(id));
        if let Some(at) = self.playing.iter().position(asked) {
            self.answer(at, op, frame, now);
            return true;
        }
        let ending = |playing: &Playing| {
            matches!(playing.stage, Stage::Ending { .. })
                && text("task") == Some(&playing.task.id)
                && text("id").is_none()
        };
        if let Some(at) = self.playing.iter().position(ending) {
            self.ended(at, op, frame, now);
            return true;
        }
        false
    }

    fn begin(&mut self, task: Task, now: Duration) {
        // Given again although we have it: our lease ran out, and only the new fence counts.
        self.playing.retain(|playing| playing.task.id != task.id);
        match &*task.kind {
            "cancel" => self.stop(&task),
            "decision" => self.decided(task.text("execution_id")),
            _ => {}
        }
        let ticket = self.answered_ticket(&task, now);
        let beats = script::of(&task, ticket.as_deref(), self.pace);
        if beats.is_empty() {
            self.lines.push(passed_over(&task));
        } else if task.attempt > 1 {
            self.lines.push(format!("{} {} came again (attempt {})", task.kind, task.id, task.attempt));
        }
        let mut playing = Playing { task, beats, at: 0, stage: Stage::Pausing { until: now } };
        playing.wait(now);
        if playing.beats.is_empty() {
            self.frames.push(playing.end(End::Done));
        }
        self.playing.push(playing);
    }

    /// A run is called off: what is played for it goes no further.
    fn stop(&mut self, cancel: &Task) {
        let Some(run) = cancel.run() else { return };
        self.decided(run);
        for playing in self.playing.iter_mut().filter(|playing| playing.task.run() == Some(run)) {
            match playing.stage {
                // Its answer is still to come, and then there is nothing left to play.
                Stage::Asked { .. } => playing.beats.truncate(playing.at + 1),
                Stage::Pausing { .. } | Stage::Listening { .. } => self.frames.push(playing.end(End::Done)),
                Stage::Ending { .. } => {}
            }
        }
    }

    /// An answer wakes the ticket that it is for, or waits until that listens.
    fn answered_ticket(&mut self, task: &Task, now: Duration) -> Option<String> {
        if task.kind != "response" {
            return None;
        }
        let session = task.text("session_id");
        let is_of = |playing: &&mut Playing| {
            matches!(&*playing.task.kind, "ticket" | "webhook") && script::session_of(&playing.task) == session
        };
        let playing = self.playing.iter_mut().find(is_of)?;
        match playing.stage {
            Stage::Listening { .. } => playing.advance(now),
            _ => {
                self.answered.insert(session.to_owned());
            }
        }
        let name = if playing.task.kind == "ticket" { "ticket_id" } else { "page_id" };
        Some(playing.task.text(name).to_owned())
    }

    /// A step's answer.
    fn answer(&mut self, at: usize, op: &str, frame: &Value, now: Duration) {
        let Some(playing) = self.playing.get_mut(at) else { return };
        let code = frame.get("code").and_then(Value::as_str).unwrap_or_default();
        let detail = frame.get("detail").and_then(Value::as_str).unwrap_or_default();
        match (op, code) {
            ("ok", _) => {
                let beat = playing.beats.get(playing.at);
                if let Some(beat) = beat.filter(|beat| !beat.line.is_empty()) {
                    let again = if frame.get("dup").is_some() { " (it was said before)" } else { "" };
                    self.lines.push(format!("{}{again}", beat.line));
                }
                let is_request = beat.is_some_and(|beat| matches!(beat.step, Step::Ask(_)));
                let is_pending = frame.get("state").and_then(Value::as_str) == Some("pending");
                let is_own = playing.task.text("session_id") == self.own_session;
                if let (true, true, true, Some(run)) = (is_request, is_pending, is_own, playing.task.run()) {
                    self.undecided = Some((run.to_owned(), now + script::DECIDE_WITHIN));
                }
                playing.advance(now);
            }
            // Nobody knows, or not now: the same id again settles it.
            ("unknown", _) | ("refused", "overloaded") => {
                let wait = frame.get("retry_after_ms").and_then(Value::as_u64).map(Duration::from_millis);
                playing.stage = Stage::Pausing { until: now + wait.unwrap_or(AGAIN_AFTER) };
            }
            // It has another holder by now, who goes on with it.
            ("refused", "stale_fence" | "unknown_task") => {
                self.lines.push(format!("{} {}: somebody else has it", playing.task.kind, playing.task.id));
                self.drop_at(at);
                return;
            }
            ("refused", "execution_over" | "no_execution" | "no_such_room" | "no_such_session") => {
                self.lines.push(format!("{} {}: {detail}", playing.task.kind, playing.task.id));
                self.frames.push(playing.end(End::Done));
                return;
            }
            _ => {
                let end = if playing.task.attempt < ATTEMPTS_MAX { End::GiveBack } else { End::Done };
                let then = if end == End::GiveBack { "given back" } else { "given up" };
                self.lines
                    .push(format!("{} {}: refused ({code}: {detail}), {then}", playing.task.kind, playing.task.id));
                self.frames.push(playing.end(end));
                return;
            }
        }
        if playing.at >= playing.beats.len() {
            self.frames.push(playing.end(End::Done));
        }
    }

    /// The answer to `done` or `fail`.
    fn ended(&mut self, at: usize, op: &str, frame: &Value, now: Duration) {
        let Some(playing) = self.playing.get_mut(at) else { return };
        let code = frame.get("code").and_then(Value::as_str).unwrap_or_default();
        match (op, code, &mut playing.stage) {
            ("unknown", _, Stage::Ending { again, .. }) | ("refused", "overloaded", Stage::Ending { again, .. }) => {
                *again = Some(now + AGAIN_AFTER);
            }
            _ => self.drop_at(at),
        }
    }

    fn drop_at(&mut self, at: usize) {
        let gone = self.playing.swap_remove(at);
        if matches!(&*gone.task.kind, "ticket" | "webhook") {
            self.answered.remove(&script::session_of(&gone.task));
        }
    }
}

impl Playing {
    /// Sends the beat that is due.
    fn play(&mut self, now: Duration, answered: &HashSet<String>) -> Option<String> {
        let Some(beat) = self.beats.get(self.at) else { return Some(self.end(End::Done)) };
        let (id, frame) = match &beat.step {
            Step::Publish { kind, data } => {
                let id = self.task.publish_id(self.at);
                let frame = json!({"op": "publish", "room": self.task.room, "id": id, "type": kind, "data": data,
                    "task": self.task.id, "fence": self.task.fence});
                (id, frame)
            }
            Step::Ask(frame) => (frame.get("id").and_then(Value::as_str).unwrap_or_default().to_owned(), frame.clone()),
            Step::Listen { session, .. } if answered.contains(session) => {
                self.advance(now);
                return None;
            }
            Step::Listen { at_most, .. } => {
                self.stage = Stage::Listening { until: now + *at_most };
                return None;
            }
        };
        self.stage = Stage::Asked { id };
        Some(frame.to_string())
    }

    fn advance(&mut self, now: Duration) {
        self.at += 1;
        self.wait(now);
    }

    fn wait(&mut self, now: Duration) {
        let pause = self.beats.get(self.at).map_or(Duration::ZERO, |beat| beat.pause);
        self.stage = Stage::Pausing { until: now + pause };
    }

    fn end(&mut self, end: End) -> String {
        self.stage = Stage::Ending { end, again: None };
        let op = match end {
            End::Done => "done",
            End::GiveBack => "fail",
        };
        json!({"op": op, "task": self.task.id, "fence": self.task.fence}).to_string()
    }
}

/// What is said of a task for which there is nothing to publish.
fn passed_over(task: &Task) -> String {
    match &*task.kind {
        "cancel" => format!("agent: run {} is cancelled, stops", short(task.text("execution_id"))),
        "decision" => {
            format!("agent: {} is {}, nothing to do", short(task.text("tool_name")), short(task.text("decision")))
        }
        "response" => "ticket: an answer came to nobody's question".to_owned(),
        "control" => {
            format!("workflow: {} of {} is not played", short(task.text("action")), short(task.text("workflow_id")))
        }
        kind => format!("{kind} {}: nothing to play", task.id),
    }
}
