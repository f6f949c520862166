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
/// How often an answer is passed on, and when, that came here although another demo's ticket waits for it.
const PASSED_ON_MAX: u64 = 10;
const PASS_ON_AFTER: Duration = Duration::from_millis(300);

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
    /// The server decides when it comes again.
    GiveBack,
    /// It comes again at once, to another if there is one.
    PassOn,
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
        let is_elsewhere = task.kind == "response" && ticket.is_none() && script::is_session(task.text("session_id"));
        let end = if is_elsewhere && task.attempt < PASSED_ON_MAX { End::PassOn } else { End::Done };
        if beats.is_empty() && end == End::Done {
            self.lines.push(passed_over(&task));
        } else if end == End::Done && task.attempt > 1 {
            self.lines.push(format!("{} {} came again (attempt {})", task.kind, task.id, task.attempt));
        }
        let mut playing = Playing { task, beats, at: 0, stage: Stage::Pausing { until: now } };
        playing.wait(now);
        if playing.beats.is_empty() {
            self.frames.push(playing.end(end));
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
        let (id, fence) = (&self.task.id, self.task.fence);
        let frame = match end {
            End::Done => json!({"op": "done", "task": id, "fence": fence}),
            End::GiveBack => json!({"op": "fail", "task": id, "fence": fence}),
            End::PassOn => {
                json!({"op": "fail", "task": id, "fence": fence, "retry_ms": PASS_ON_AFTER.as_millis() as u64})
            }
        };
        frame.to_string()
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    /// A player and the server's side of it, with a clock that jumps to whatever is due.
    struct House {
        player: Player,
        now: Duration,
        fence: u64,
    }

    impl House {
        fn new() -> House {
            let player = Player::new("s".into(), Pace::times(1));
            House { player, now: Duration::ZERO, fence: 0 }
        }

        fn give(&mut self, id: &str, kind: &str, attempt: u64, data: Value) {
            self.fence += 1;
            let room = if kind == "ticket" || kind == "response" { "tickets" } else { "session:s" };
            let frame = json!({"op": "task", "task": id, "kind": kind, "room": room, "attempt": attempt,
                "fence": self.fence, "data": data});
            assert!(self.player.hear(&frame, self.now));
        }

        fn sent(&mut self) -> Vec<Value> {
            let frames = self.player.take_frames();
            frames.iter().map(|frame| serde_json::from_str(frame).unwrap()).collect()
        }

        /// What is sent next; none when nothing is due any more.
        fn next(&mut self) -> Option<Value> {
            loop {
                let sent = self.sent();
                assert!(sent.len() <= 1, "one thing at a time: {sent:?}");
                if let Some(frame) = sent.into_iter().next() {
                    return Some(frame);
                }
                self.now = self.now.max(self.player.due()?);
                self.player.turn(self.now);
            }
        }

        fn answer(&mut self, answer: Value) {
            assert!(self.player.hear(&answer, self.now), "{answer}");
        }

        /// Says ok to a frame.
        fn ok(&mut self, frame: &Value) {
            self.answer(match (text(frame, "op"), text(frame, "id")) {
                ("approval", id) => json!({"op": "ok", "id": id, "state": "pending", "session": "s"}),
                (_, "") => json!({"op": "ok", "task": frame["task"]}),
                (_, id) => json!({"op": "ok", "id": id, "room": frame["room"], "seq": 1}),
            });
        }

        /// Answers everything with ok until nothing is due; what was sent, in short.
        fn play(&mut self) -> Vec<String> {
            let mut told = Vec::new();
            while let Some(frame) = self.next() {
                told.push(short(&frame));
                self.ok(&frame);
            }
            told
        }
    }

    fn text<'v>(value: &'v Value, name: &str) -> &'v str {
        value[name].as_str().unwrap_or_default()
    }

    fn short(frame: &Value) -> String {
        let kind = text(frame, "type");
        let name = if text(frame, "op") == "approval" { "" } else { text(frame, "id") };
        format!("{} {kind}{name}", text(frame, "op")).trim_end().to_owned()
    }

    fn run() -> Value {
        json!({"execution_id": "e", "session_id": "s", "command": "c"})
    }

    fn ticket() -> Value {
        json!({"ticket_id": "t", "ticket_name": "N", "job_id": "j"})
    }

    const EXECUTE: [&str; 5] =
        ["publish thinkingdemo:7:0", "publish tool_calldemo:7:1", "publish tool_resultdemo:7:2", "approval", "done"];

    #[test]
    fn a_task_is_done_when_everything_it_is_for_is_stored() {
        let mut house = House::new();
        house.give("7", "execute", 1, run());
        let first = house.next().unwrap();
        assert_eq!((text(&first, "room"), text(&first, "task"), &first["fence"]), ("session:s", "7", &json!(1)));
        assert_eq!((house.player.due(), house.sent()), (None, Vec::new()), "nothing more before its answer");
        house.ok(&first);
        assert_eq!(house.play(), EXECUTE[1..]);
        assert!(house.player.is_idle());
    }

    #[test]
    fn what_comes_again_is_said_again_with_the_same_names() {
        let mut house = House::new();
        house.give("7", "execute", 1, run());
        let first = house.next().unwrap();
        house.ok(&first);
        house.next().unwrap();
        house.player.forget();
        assert!(house.player.is_idle() && house.sent().is_empty());
        house.give("7", "execute", 2, run());
        let again = house.next().unwrap();
        assert_eq!((&again["id"], &again["data"], &again["fence"]), (&first["id"], &first["data"], &json!(2)));
        house.ok(&again);
        assert_eq!(house.play(), EXECUTE[1..]);

        let ids: Vec<String> = [1, 2]
            .into_iter()
            .map(|attempt| {
                house.give("8", "execute", attempt, run());
                for _ in 0..3 {
                    let frame = house.next().unwrap();
                    house.ok(&frame);
                }
                let asked = house.next().unwrap();
                text(&asked, "id").to_owned()
            })
            .collect();
        assert_eq!(ids[0], ids[1], "one run asks once");
    }

    #[test]
    fn a_task_that_we_still_have_is_begun_anew_with_its_new_fence() {
        let mut house = House::new();
        house.give("7", "execute", 1, run());
        house.next().unwrap();
        house.give("7", "execute", 2, run());
        assert_eq!(house.next().unwrap()["fence"], 2);
        assert_eq!(house.player.playing.len(), 1);
    }

    #[test]
    fn what_nobody_knows_is_asked_again_under_the_same_name() {
        for answer in [
            json!({"op": "unknown", "id": "demo:7:0"}),
            json!({"op": "refused", "id": "demo:7:0", "task": "7", "code": "overloaded", "retry_after_ms": 250}),
        ] {
            let mut house = House::new();
            house.give("7", "execute", 1, run());
            let first = house.next().unwrap();
            house.answer(answer);
            let before = house.now;
            assert_eq!(house.next().unwrap(), first);
            assert!(house.now > before);
        }
        let mut house = House::new();
        house.give("7", "cancel", 1, run());
        let done = house.next().unwrap();
        house.answer(json!({"op": "unknown", "task": "7"}));
        assert_eq!(house.next().unwrap(), done);
        house.ok(&done);
        assert!(house.player.is_idle());
    }

    #[test]
    fn a_refusal_ends_a_task_each_in_its_way() {
        for (code, attempt, then) in [
            ("execution_over", 1, Some("done")),
            ("no_execution", 1, Some("done")),
            ("no_such_room", 1, Some("done")),
            ("stale_fence", 1, None),
            ("unknown_task", 1, None),
            ("forbidden", 1, Some("fail")),
            ("bad_data", 2, Some("fail")),
            ("bad_data", 3, Some("done")),
        ] {
            let mut house = House::new();
            house.give("7", "execute", attempt, run());
            house.next().unwrap();
            let refused = json!({"op": "refused", "id": "demo:7:0", "task": "7", "code": code, "detail": "d"});
            house.answer(refused);
            assert_eq!(house.play(), then.as_slice(), "{code}");
            assert!(house.player.is_idle() && !house.player.take_lines().is_empty(), "{code}");
        }
    }

    #[test]
    fn a_cancelled_run_is_played_no_further() {
        // Between two steps, and while one waits for its answer.
        for is_asked in [false, true] {
            let mut house = House::new();
            house.give("7", "execute", 1, run());
            let first = is_asked.then(|| house.next().unwrap());
            house.give("9", "execute", 1, json!({"execution_id": "other"}));
            house.give("8", "cancel", 1, json!({"execution_id": "e"}));
            let mut sent = house.sent();
            if let Some(first) = first {
                house.ok(&first);
                sent.extend(house.sent());
            }
            let mut ended: Vec<&str> =
                sent.iter().filter(|frame| text(frame, "op") == "done").map(|frame| text(frame, "task")).collect();
            ended.sort_unstable();
            assert_eq!(ended, ["7", "8"], "{is_asked}");
            assert!(house.player.playing.iter().any(|playing| playing.task.id == "9" && playing.at == 0));
        }
    }

    #[test]
    fn a_ticket_waits_for_its_answer_but_not_for_ever() {
        let question = |house: &mut House| {
            house.give("7", "ticket", 1, ticket());
            for _ in 0..4 {
                let frame = house.next().unwrap();
                house.ok(&frame);
            }
            // From the pause before it into listening.
            house.player.turn(house.now);
            assert!(matches!(house.player.playing[0].stage, Stage::Listening { .. }));
        };
        let end = ["publish agent_completedemo:7:5", "done"];

        let mut house = House::new();
        question(&mut house);
        let listened = house.now;
        assert_eq!(house.play(), end);
        assert!(house.now >= listened + Duration::from_secs(15));

        let mut house = House::new();
        question(&mut house);
        let listened = house.now;
        house.give("8", "response", 1, json!({"session_id": "demo-j", "response": "r", "by": "ann"}));
        assert_eq!(house.play(), ["publish agent_messagedemo:8:0", "done", end[0], end[1]]);
        assert!(house.now < listened + Duration::from_secs(15));

        // Answered before it asked: by somebody who has seen the question of an earlier attempt.
        let mut house = House::new();
        house.give("7", "ticket", 2, ticket());
        house.give("8", "response", 1, json!({"session_id": "demo-j", "response": "r"}));
        let told = house.play();
        assert_eq!(told.last().map(String::as_str), Some("done"));
        assert!(told.contains(&end[0].to_owned()) && house.now < Duration::from_secs(5));
        assert!(house.player.answered.is_empty(), "forgotten with its ticket");
    }

    #[test]
    fn an_answer_for_another_demo_s_ticket_is_passed_on() {
        for (session, attempt, op) in
            [("demo-j", 1, "fail"), ("demo-j", PASSED_ON_MAX, "done"), ("somebody-else-s", 1, "done")]
        {
            let mut house = House::new();
            house.give("8", "response", attempt, json!({"session_id": session, "response": "r"}));
            assert_eq!(house.play(), [op], "{session} {attempt}");
            assert!(house.player.is_idle());
        }
    }

    #[test]
    fn the_demo_s_own_run_waits_for_people() {
        let mut house = House::new();
        house.give("7", "execute", 1, run());
        assert!(!house.player.is_undecided(house.now));
        house.play();
        assert!(house.player.is_undecided(house.now));
        assert!(!house.player.is_undecided(house.now + script::DECIDE_WITHIN));
        house.give("8", "decision", 1, json!({"execution_id": "x", "decision": "approved"}));
        assert!(house.player.is_undecided(house.now));
        house.give("9", "decision", 1, json!({"execution_id": "e", "decision": "approved"}));
        assert!(!house.player.is_undecided(house.now));
    }

    #[test]
    fn what_is_not_about_a_task_is_left_to_others() {
        let mut house = House::new();
        house.give("7", "execute", 1, run());
        house.next().unwrap();
        for frame in [
            json!({"op": "ok", "id": "show:x:1"}),
            json!({"op": "ok", "task": "9"}),
            json!({"op": "ok", "task": "7"}),
            json!({"op": "hello"}),
            json!([]),
            json!(null),
        ] {
            assert!(!house.player.hear(&frame, house.now), "{frame}");
        }
    }
}
