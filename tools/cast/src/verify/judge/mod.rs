//! The verdict: what clients were told, held against the log. Pure functions, a few for each promise.

mod decisions;
mod operations;
mod order;
mod resume;

use std::collections::BTreeMap;

use super::facts::Facts;
use super::log::Logs;

/// What is promised. The order is that of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    Phantom,
    Changed,
    LostAck,
    AckSeq,
    FalseRefusal,
    Torn,
    Dense,
    Hole,
    Duplicate,
    Reorder,
    Once,
    OneAnswer,
    Resume,
    Reset,
    Stale,
    OneDecision,
    DecisionTold,
    Fence,
    Restart,
    SecondProcess,
    Liveness,
}

impl Rule {
    pub const ALL: [Rule; 21] = [
        Rule::Phantom,
        Rule::Changed,
        Rule::LostAck,
        Rule::AckSeq,
        Rule::FalseRefusal,
        Rule::Torn,
        Rule::Dense,
        Rule::Hole,
        Rule::Duplicate,
        Rule::Reorder,
        Rule::Once,
        Rule::OneAnswer,
        Rule::Resume,
        Rule::Reset,
        Rule::Stale,
        Rule::OneDecision,
        Rule::DecisionTold,
        Rule::Fence,
        Rule::Restart,
        Rule::SecondProcess,
        Rule::Liveness,
    ];

    /// A name for scripts, and the promise in a sentence.
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Rule::Phantom => ("phantom", "what anybody was shown is in the log"),
            Rule::Changed => ("changed", "and stands there as it was shown"),
            Rule::LostAck => ("lost-ack", "what was acknowledged is in the log"),
            Rule::AckSeq => ("ack-seq", "under the number that was told"),
            Rule::FalseRefusal => ("false-refusal", "what was refused is not in the log"),
            Rule::Torn => ("torn", "half a frame is nothing"),
            Rule::Dense => ("dense", "a room's events are numbered 1, 2, 3 …"),
            Rule::Hole => ("hole", "nobody misses an event between two that he was shown"),
            Rule::Duplicate => ("duplicate", "nobody is shown an event twice"),
            Rule::Reorder => ("reorder", "everybody is shown the same order"),
            Rule::Once => ("once", "an operation is stored once, however often it was sent"),
            Rule::OneAnswer => ("one-answer", "each copy of it gets the same answer"),
            Rule::Resume => ("resume", "a returning client gets exactly what it missed"),
            Rule::Reset => ("reset", "or a reset that says where it stands now"),
            Rule::Stale => ("stale", "a greeting holds all that was acknowledged before"),
            Rule::OneDecision => ("one-decision", "an approval is decided once, after it was asked for"),
            Rule::DecisionTold => ("decision-told", "everybody is told that one decision"),
            Rule::Fence => ("fence", "it is handed out under rising fences, and a lost task stays lost"),
            Rule::Restart => ("restart", "killed, the server is ready again within 2 s"),
            Rule::SecondProcess => ("second-process", "a second process on the same data is refused"),
            Rule::Liveness => ("liveness", "in the end all is answered, and everybody is at the head"),
        }
    }
}

/// How often each promise was checked, and where it was broken.
#[derive(Clone, Debug, Default)]
pub struct Tally(pub BTreeMap<Rule, (u64, Vec<String>)>);

impl Tally {
    pub fn check(&mut self, rule: Rule, is_kept: bool, what: impl FnOnce() -> String) {
        let (checked, violations) = self.0.entry(rule).or_default();
        *checked += 1;
        if !is_kept {
            violations.push(what());
        }
    }

    pub fn add(&mut self, other: Tally) {
        for (rule, (checked, violations)) in other.0 {
            let entry = self.0.entry(rule).or_default();
            entry.0 += checked;
            entry.1.extend(violations);
        }
    }

    pub fn violations(&self) -> usize {
        self.0.values().map(|(_, violations)| violations.len()).sum()
    }
}

pub fn judge(facts: &Facts, logs: &Logs) -> Tally {
    let mut tally = Tally::default();
    order::judge(facts, logs, &mut tally);
    operations::judge(facts, logs, &mut tally);
    resume::judge(facts, logs, &mut tally);
    decisions::judge(facts, logs, &mut tally);
    for garbled in &facts.garbled {
        tally.check(Rule::Phantom, false, || garbled.clone());
    }
    for name in &facts.behind {
        tally.check(Rule::Liveness, false, || format!("{name} was not shown the last event"));
    }
    tally.0.entry(Rule::Liveness).or_default().0 += facts.settled as u64;
    tally
}

#[cfg(test)]
pub mod fabricated {
    //! Histories and logs made by hand, for the rules' tests.
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::super::facts;
    use super::super::history::{Connection, Ending, Frame, Speaks, Way};
    use super::super::log::{Event, Log, Logs};
    use super::{Rule, Tally, judge};

    pub const ROOM: &str = "verify:n0";

    pub fn event(seq: u64, id: &str) -> Value {
        json!({"op": "event", "room": ROOM, "seq": seq, "type": "message", "by": "me", "at": "now", "id": id,
            "data": {"of": id}})
    }

    pub fn log_of(room: &str, events: &[Value]) -> Logs {
        let events: Vec<Event> = events.iter().map(|event| Event::read(event).unwrap()).collect();
        let head = events.last().map_or(0, |event| event.seq);
        [(room.to_owned(), Log { epoch: "e".to_owned(), head, floor: 0, events })].into()
    }

    /// Events 1, 2, 3 … of the operations a, b, c …
    pub fn log(ids: &[&str]) -> Logs {
        let events: Vec<Value> = ids.iter().zip(1..).map(|(id, seq)| event(seq, id)).collect();
        log_of(ROOM, &events)
    }

    pub fn connection(speaks: Speaks, room: &str, opened: u64, frames: &[(u64, Way, Value)]) -> Connection {
        let frames = frames.iter();
        let frames = frames.map(|(tick, way, said)| Frame { tick: *tick, way: *way, text: said.to_string() });
        let name = format!("client-{opened}");
        let frames = frames.collect();
        Connection { name, speaks, room: room.to_owned(), opened, frames, ending: Ending::Left }
    }

    /// A native connection whose frames come one after the other, from this tick on.
    pub fn native(opened: u64, frames: &[(Way, Value)]) -> Connection {
        let ticked: Vec<(u64, Way, Value)> =
            frames.iter().zip(opened + 1..).map(|((way, said), tick)| (tick, *way, said.clone())).collect();
        connection(Speaks::Native, "", opened, &ticked)
    }

    pub fn joined(head: u64) -> [(Way, Value); 2] {
        [
            (Way::Out, json!({"op": "join", "room": ROOM})),
            (Way::In, json!({"op": "joined", "room": ROOM, "epoch": "e", "head": head, "recovered": false})),
        ]
    }

    /// Somebody who joined at this head and was then shown this.
    pub fn observer(head: u64, shown: &[Value]) -> Connection {
        let shown = shown.iter().map(|event| (Way::In, event.clone()));
        native(0, &joined(head).into_iter().chain(shown).collect::<Vec<_>>())
    }

    pub fn publish(id: &str) -> (Way, Value) {
        (Way::Out, json!({"op": "publish", "room": ROOM, "id": id, "data": {"of": id}}))
    }

    pub fn ok(id: &str, seq: u64) -> (Way, Value) {
        (Way::In, json!({"op": "ok", "room": ROOM, "id": id, "seq": seq}))
    }

    pub fn refused(id: &str) -> (Way, Value) {
        (Way::In, json!({"op": "refused", "room": ROOM, "id": id, "code": "forbidden"}))
    }

    /// The rules that were broken.
    pub fn broken(connections: &[Connection], logs: &Logs) -> Vec<Rule> {
        broken_in(&judge(&facts::read(connections), logs))
    }

    pub fn broken_in(tally: &Tally) -> Vec<Rule> {
        tally.0.iter().filter(|(_, (_, violations))| !violations.is_empty()).map(|(rule, _)| *rule).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::{Ending, Frame, Way};
    use super::fabricated::*;
    use super::*;

    #[test]
    fn a_sound_history_breaks_nothing_and_is_counted() {
        let mut watching = observer(0, &[event(1, "a"), event(2, "b")]);
        watching.ending = Ending::Settled;
        let writing = native(100, &[publish("a"), ok("a", 1), publish("b"), publish("b"), ok("b", 2), ok("b", 2)]);
        let tally = judge(&super::super::facts::read(&[watching, writing]), &log(&["a", "b"]));
        assert_eq!(broken_in(&tally), []);
        for rule in [Rule::Phantom, Rule::Hole, Rule::LostAck, Rule::Once, Rule::OneAnswer, Rule::Dense, Rule::Liveness]
        {
            assert!(tally.0.get(&rule).is_some_and(|(checked, _)| *checked > 0), "{rule:?} was not checked");
        }
    }

    #[test]
    fn whoever_is_not_at_the_head_in_the_end_is_seen() {
        let mut late = observer(0, &[]);
        late.ending = Ending::Behind;
        assert_eq!(broken(&[late], &log(&["a"])), [Rule::Liveness]);
    }

    #[test]
    fn a_frame_that_is_no_json_is_seen() {
        let mut watching = observer(0, &[event(1, "a")]);
        watching.frames.push(Frame { tick: 9, way: Way::In, text: "{\"op\":".to_owned() });
        assert_eq!(broken(&[watching], &log(&["a"])), [Rule::Phantom]);
    }

    #[test]
    fn every_rule_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<&str> = Rule::ALL.into_iter().map(|rule| rule.names().0).collect();
        assert_eq!(names.len(), Rule::ALL.len());
    }
}
