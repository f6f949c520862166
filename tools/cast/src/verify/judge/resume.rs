//! Where clients came in again: exactly behind what they had, or at a reset that says where.

use std::collections::BTreeMap;

use super::super::facts::{Answer, Facts, Join};
use super::super::history::Tick;
use super::super::log::{Log, Logs};
use super::{Rule, Tally};

pub fn judge(facts: &Facts, logs: &Logs, tally: &mut Tally) {
    let acknowledged = acknowledged(facts);
    for join in &facts.joins {
        let Some(log) = logs.get(&join.room) else { continue };
        one(join, log, tally);
        let owed = acknowledged.get(&join.room).and_then(|told| before(told, join.asked));
        tally.check(Rule::Stale, owed.is_none_or(|owed| join.head >= owed), || {
            format!("{} joined {} at {} after {owed:?} had been acknowledged", join.name, join.room, join.head)
        });
    }
    for greeting in &facts.greetings {
        let Some(log) = logs.get(&greeting.room) else { continue };
        let owed = acknowledged.get(&greeting.room).and_then(|told| before(told, greeting.opened));
        let shows = |event: &&super::super::log::Event| {
            event.data.get("content").and_then(|content| content.as_str()) == Some(greeting.content.as_str())
        };
        // What is not in the log at all is the rule of phantoms' business.
        let Some(at) = log.events.iter().rev().find(shows) else { continue };
        tally.check(Rule::Stale, owed.is_none_or(|owed| at.seq >= owed), || {
            format!(
                "{} was greeted with {} of {} after {owed:?} had been acknowledged",
                greeting.name, at.seq, greeting.room
            )
        });
    }
}

fn one(join: &Join, log: &Log, tally: &mut Tally) {
    // A room that nobody has written into has no history yet, and so no epoch.
    let is_known = join.epoch.is_empty() || join.epoch == log.epoch;
    tally.check(Rule::Resume, is_known, || {
        format!("{} found the epoch {} in {}; it is {}", join.name, join.epoch, join.room, log.epoch)
    });
    let Some((epoch, seq)) = &join.since else { return };
    let told = || format!("{} came back to {} with {seq} of {epoch:?}, head {}", join.name, join.room, join.head);
    let fits = (epoch.is_empty() || *epoch == log.epoch) && *seq <= join.head;
    if !fits {
        tally
            .check(Rule::Resume, !join.recovered, || format!("{}: that is no place in its log, and was taken", told()));
    } else if *seq >= log.floor {
        tally.check(Rule::Resume, join.recovered, || format!("{}: all it missed is kept, and it was reset", told()));
    }
    if !join.recovered && (join.reset.is_some() || join.was_shown) {
        tally.check(Rule::Reset, join.reset.flatten().is_some(), || {
            format!("{}: neither resumed nor told where it stands: {:?}", told(), join.reset)
        });
    }
}

/// By room: when an operation was acknowledged, and the highest seq that had been until then.
fn acknowledged(facts: &Facts) -> BTreeMap<String, Vec<(Tick, u64)>> {
    let mut by_room: BTreeMap<String, Vec<(Tick, u64)>> = BTreeMap::new();
    for ((room, _), op) in &facts.ops {
        for (tick, answer) in &op.answers {
            if let Answer::Ok { seq: Some(seq), .. } = answer {
                by_room.entry(room.clone()).or_default().push((*tick, *seq));
            }
        }
    }
    for told in by_room.values_mut() {
        told.sort_unstable();
        let mut most = 0;
        for (_, seq) in told {
            most = most.max(*seq);
            *seq = most;
        }
    }
    by_room
}

fn before(told: &[(Tick, u64)], tick: Tick) -> Option<u64> {
    told.get(..told.partition_point(|(at, _)| *at < tick))?.last().map(|(_, seq)| *seq)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::super::history::{Connection, Speaks, Way};
    use super::super::fabricated::*;
    use super::*;

    /// Comes back with `since`, is told `recovered`, and then hears this.
    fn back(epoch: &str, seq: u64, recovered: bool, then: &[Value]) -> Connection {
        let mut frames = vec![
            (Way::Out, json!({"op": "join", "room": ROOM, "since": {"epoch": epoch, "seq": seq}})),
            (Way::In, json!({"op": "joined", "room": ROOM, "epoch": "e", "head": 3, "recovered": recovered})),
        ];
        frames.extend(then.iter().map(|said| (Way::In, said.clone())));
        native(0, &frames)
    }

    #[test]
    fn coming_back() {
        let log = log(&["a", "b", "c", "d"]);
        let (b, c) = (event(2, "b"), event(3, "c"));
        let reset = json!({"op": "reset", "room": ROOM, "reason": "epoch", "epoch": "e", "seq": 3});
        let without_seq = json!({"op": "reset", "room": ROOM, "reason": "epoch", "epoch": "e"});
        for (what, connection, rule) in [
            ("exactly what was missed", back("e", 1, true, &[b.clone(), c.clone()]), None),
            ("nothing was missed", back("e", 3, true, &[]), None),
            ("another history", back("x", 1, false, std::slice::from_ref(&reset)), None),
            ("beyond the end", back("e", 9, false, std::slice::from_ref(&reset)), None),
            ("a gap", back("e", 1, true, std::slice::from_ref(&c)), Some(Rule::Hole)),
            ("what it had", back("e", 2, true, &[b, c]), Some(Rule::Duplicate)),
            ("another history, taken", back("x", 3, true, &[]), Some(Rule::Resume)),
            ("reset without need", back("e", 1, false, std::slice::from_ref(&reset)), Some(Rule::Resume)),
            ("no reset", back("x", 3, false, &[event(4, "d")]), Some(Rule::Reset)),
            ("cut off before the reset", back("x", 1, false, &[]), None),
            ("a reset without a position", back("x", 1, false, &[without_seq]), Some(Rule::Reset)),
        ] {
            assert_eq!(broken(&[connection], &log), Vec::from_iter(rule), "{what}");
        }
    }

    #[test]
    fn whoever_comes_in_later_finds_what_was_acknowledged() {
        let log = log(&["a", "b"]);
        let writer = native(0, &[publish("a"), ok("a", 1), publish("b"), ok("b", 2)]);
        assert_eq!(broken(&[writer.clone(), native(10, &joined(2))], &log), []);
        assert_eq!(broken(&[writer, native(10, &joined(1))], &log), [Rule::Stale]);
    }

    #[test]
    fn a_page_is_greeted_with_what_was_acknowledged() {
        let edit = |seq: u64, id: &str| json!({"seq": seq, "type": "update", "by": "me", "at": "now", "id": id, "data": {"content": id}});
        let log = log_of("doc:d", &[edit(1, "a"), edit(2, "b")]);
        let sent = (1, Way::Out, json!({"action": "update", "content": "b", "id": "b"}));
        let status = (2, Way::In, json!({"action": "update_status", "success": true, "id": "b", "seq": 2}));
        let writer = connection(Speaks::Document, "doc:d", 0, &[sent, status]);
        let page = |content: &str| {
            connection(Speaks::Document, "doc:d", 5, &[(6, Way::In, json!({"action": "initial", "content": content}))])
        };
        assert_eq!(broken(&[writer.clone(), page("b")], &log), []);
        assert_eq!(broken(&[writer, page("a")], &log), [Rule::Stale]);
    }
}
