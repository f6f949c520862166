//! What each connection was shown, held against the log: nothing invented or changed, a run without a hole, each event
//! once, in the log's order.

use std::collections::{BTreeMap, BTreeSet};

use super::super::facts::{Facts, Run, Start};
use super::super::history::{Speaks, Tick};
use super::super::log::{Log, Logs};
use super::{Rule, Tally};

pub fn judge(facts: &Facts, logs: &Logs, tally: &mut Tally) {
    for (room, log) in logs {
        dense(room, log, tally);
    }
    let sent = first_sent(facts, logs);
    let mut pages = Pages::default();
    for run in &facts.runs {
        let Some(log) = logs.get(&run.room) else { continue };
        match run.speaks {
            Speaks::Native | Speaks::Backend => native_run(run, log, tally),
            _ => page_run(run, log, pages.of(run, log), sent.get(&run.room), tally),
        }
    }
}

/// Nothing is missing in the log itself.
fn dense(room: &str, log: &Log, tally: &mut Tally) {
    let mut expected = log.floor + 1;
    for event in &log.events {
        let seq = event.seq;
        tally.check(Rule::Dense, seq == expected, || format!("{room}: {seq} stands where {expected} should"));
        expected = seq + 1;
    }
    tally.check(Rule::Dense, expected == log.head + 1, || format!("{room}: ends before {expected}, head {}", log.head));
}

/// One event that a run may show, and whether it must.
#[derive(Clone, Copy, Debug)]
struct Slot {
    seq: u64,
    must: bool,
}

fn native_run(run: &Run, log: &Log, tally: &mut Tally) {
    let mut shown = Vec::new();
    for (seq, body) in &run.shown {
        let Some(seq) = seq else { continue };
        if *seq <= log.floor {
            continue;
        }
        let stored = log.at(*seq);
        tally.check(Rule::Phantom, stored.is_some(), || {
            format!("{} was shown {seq} of {}, which is not in the log: {body}", run.name, run.room)
        });
        let Some(stored) = stored else { continue };
        tally.check(Rule::Changed, stored.whole == *body, || {
            format!("{} was shown {seq} of {} as {body}; the log has {}", run.name, run.room, stored.whole)
        });
        shown.push(*seq);
    }
    let Start::After(after) = run.start else { return };
    let slots: Vec<Slot> = log.events.iter().map(|event| Slot { seq: event.seq, must: true }).collect();
    walk(run, after.max(log.floor), &slots, &shown, tally);
}

/// The log as pages of one vocabulary see it: made once for each room, not for each connection.
#[derive(Debug, Default)]
struct Pages(BTreeMap<(String, u8), View>);

#[derive(Debug, Default)]
struct View {
    /// Each frame's seq.
    frames: BTreeMap<String, u64>,
    seqs: Vec<u64>,
}

impl Pages {
    fn of(&mut self, run: &Run, log: &Log) -> &View {
        self.0.entry((run.room.clone(), run.speaks as u8)).or_insert_with(|| {
            let shown = log.events.iter().filter_map(|event| Some((event.page(run.speaks)?, event.seq)));
            let frames: BTreeMap<String, u64> = shown.collect();
            let seqs = log.events.iter().filter(|event| event.page(run.speaks).is_some()).map(|event| event.seq);
            View { frames, seqs: seqs.collect() }
        })
    }
}

/// A page bears no seqs, but what it is shown says by itself which event it is.
fn page_run(run: &Run, log: &Log, view: &View, sent: Option<&Vec<(Tick, u64)>>, tally: &mut Tally) {
    let mut shown = Vec::new();
    for (_, body) in &run.shown {
        let seq = view.frames.get(body);
        tally.check(Rule::Phantom, seq.is_some() || log.floor > 0, || {
            format!("{} was shown what is not in the log of {}: {body}", run.name, run.room)
        });
        shown.extend(seq.copied());
    }
    let after = match &run.start {
        Start::After(after) => *after,
        Start::State(content) => {
            let made = |kind: &str| matches!(kind, "update" | "created");
            let of = log.events.iter().rev();
            let mut of = of.filter(|event| made(&event.kind) && event.data.get("content").is_some());
            let found = of.find(|event| event.data.get("content").and_then(|it| it.as_str()) == Some(content.as_str()));
            tally.check(Rule::Phantom, found.is_some() || log.floor > 0, || {
                format!("{} was greeted with what is not in the log of {}: {content}", run.name, run.room)
            });
            let Some(found) = found else { return };
            found.seq
        }
        Start::Live(greeted) => {
            let Some(first) = shown.first() else { return };
            // Whatever was sent only after the greeting had come is behind the place where the page came in.
            let owed = sent.and_then(|sent| earliest_after(sent, *greeted)).filter(|owed| view.seqs.contains(owed));
            tally.check(Rule::Hole, owed.is_none_or(|owed| *first <= owed), || {
                format!("{} was in {} before {owed:?} was sent, and began at {first}", run.name, run.room)
            });
            first - 1
        }
    };
    let own: BTreeSet<u64> = match run.speaks {
        // Nobody is shown its own edit. Whose edit it was that two connections sent, only the server knows.
        Speaks::Document => log
            .events
            .iter()
            .filter(|event| event.id.as_ref().is_some_and(|id| run.own.contains(id)))
            .map(|event| event.seq)
            .collect(),
        _ => BTreeSet::new(),
    };
    let slots: Vec<Slot> = view.seqs.iter().map(|seq| Slot { seq: *seq, must: !own.contains(seq) }).collect();
    walk(run, after.max(log.floor), &slots, &shown, tally);
}

/// Holds what was shown, as seqs, against what there is behind `after`.
fn walk(run: &Run, after: u64, slots: &[Slot], shown: &[u64], tally: &mut Tally) {
    let later: BTreeSet<u64> = shown.iter().copied().collect();
    let mut next = slots.partition_point(|slot| slot.seq <= after);
    let mut seen = BTreeSet::new();
    for seq in shown {
        let (name, room) = (&run.name, &run.room);
        let is_first = seen.insert(*seq);
        tally.check(Rule::Duplicate, is_first && *seq > after, || {
            format!("{name} stood behind {after} of {room} and was shown {seq} again")
        });
        if !is_first || *seq <= after {
            continue;
        }
        let place = slots.partition_point(|slot| slot.seq < *seq);
        tally.check(Rule::Reorder, place >= next, || format!("{name} was shown {seq} of {room} after a later one"));
        let missed = slots.get(next..place).unwrap_or_default().iter();
        // What comes later after all is out of order, not missing.
        let missed: Vec<u64> =
            missed.filter(|slot| slot.must && !later.contains(&slot.seq)).map(|slot| slot.seq).collect();
        tally.check(Rule::Hole, missed.is_empty(), || format!("{name} was shown {seq} of {room} and never {missed:?}"));
        next = next.max(place + 1);
    }
}

/// By room: when each stored operation was first sent, and its seq; with the smallest seq of all that were sent later.
fn first_sent(facts: &Facts, logs: &Logs) -> BTreeMap<String, Vec<(Tick, u64)>> {
    let mut by_room: BTreeMap<String, Vec<(Tick, u64)>> = BTreeMap::new();
    for (room, log) in logs {
        let stored = log.by_key();
        let ops = facts.ops.range((room.clone(), String::new())..).take_while(|((of, _), _)| of == room);
        let mut sent: Vec<(Tick, u64)> =
            ops.filter_map(|((_, key), op)| Some((op.sent?, *stored.get(key)?.first()?))).collect();
        sent.sort_unstable();
        let mut least = u64::MAX;
        for (_, seq) in sent.iter_mut().rev() {
            least = least.min(*seq);
            *seq = least;
        }
        by_room.insert(room.clone(), sent);
    }
    by_room
}

fn earliest_after(sent: &[(Tick, u64)], tick: Tick) -> Option<u64> {
    sent.get(sent.partition_point(|(at, _)| *at <= tick)).map(|(_, seq)| *seq)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::super::history::Way;
    use super::super::fabricated::*;
    use super::*;

    #[test]
    fn what_native_clients_are_shown() {
        let three = log(&["a", "b", "c"]);
        let (a, b, c) = (event(1, "a"), event(2, "b"), event(3, "c"));
        let changed = json!({"op": "event", "room": ROOM, "seq": 2, "type": "message", "by": "me", "at": "now", "id": "b",
            "data": {"of": "somebody else"}});
        for (what, head, shown, rule) in [
            ("all", 0, vec![a.clone(), b.clone(), c.clone()], None),
            ("the end", 2, vec![c.clone()], None),
            ("cut off early", 0, vec![a.clone()], None),
            ("invented", 0, vec![a.clone(), b.clone(), c.clone(), event(4, "d")], Some(Rule::Phantom)),
            ("changed", 0, vec![a.clone(), changed, c.clone()], Some(Rule::Changed)),
            ("a hole", 0, vec![a.clone(), c.clone()], Some(Rule::Hole)),
            ("a hole at the beginning", 0, vec![b.clone()], Some(Rule::Hole)),
            ("twice", 0, vec![a.clone(), b.clone(), b.clone(), c.clone()], Some(Rule::Duplicate)),
            ("what it had", 2, vec![b.clone(), c.clone()], Some(Rule::Duplicate)),
            ("another order", 0, vec![b, a, c], Some(Rule::Reorder)),
        ] {
            assert_eq!(broken(&[observer(head, &shown)], &three), Vec::from_iter(rule), "{what}");
        }
    }

    #[test]
    fn a_log_with_a_hole() {
        assert_eq!(broken(&[], &log_of(ROOM, &[event(1, "a"), event(3, "c")])), [Rule::Dense]);
        assert_eq!(broken(&[], &log_of(ROOM, &[event(2, "a")])), [Rule::Dense]);
    }

    fn edit(seq: u64, id: &str) -> Value {
        json!({"seq": seq, "type": "update", "by": "me", "at": "now", "id": id, "data": {"content": id}})
    }

    /// A page of a document: what it is greeted with, what it sends, what it is shown.
    fn page(greeting: &str, sent: &[&str], shown: &[&str]) -> super::super::super::history::Connection {
        let mut frames = vec![(1, Way::In, json!({"action": "initial", "content": greeting}))];
        frames.extend(sent.iter().map(|id| (2, Way::Out, json!({"action": "update", "content": id, "id": id}))));
        frames.extend(shown.iter().map(|content| (3, Way::In, json!({"action": "update", "content": content}))));
        connection(Speaks::Document, "doc:d", 0, &frames)
    }

    #[test]
    fn what_pages_of_a_document_are_shown() {
        let log = log_of("doc:d", &[edit(1, "a"), edit(2, "b"), edit(3, "c")]);
        for (what, page, rule) in [
            ("all but its own", page("a", &["b"], &["c"]), None),
            ("its own, which another had sent before", page("a", &["b"], &["b", "c"]), None),
            ("invented", page("a", &[], &["b", "x"]), Some(Rule::Phantom)),
            ("greeted with what is not stored", page("x", &[], &[]), Some(Rule::Phantom)),
            ("a hole", page("a", &[], &["c"]), Some(Rule::Hole)),
            ("twice", page("a", &[], &["b", "b"]), Some(Rule::Duplicate)),
            ("what it was greeted with", page("b", &[], &["b", "c"]), Some(Rule::Duplicate)),
            ("another order", page("a", &[], &["c", "b"]), Some(Rule::Reorder)),
        ] {
            let broken: Vec<Rule> = broken(&[page], &log).into_iter().filter(|rule| *rule != Rule::Liveness).collect();
            assert_eq!(broken, Vec::from_iter(rule), "{what}");
        }
    }

    #[test]
    fn a_live_page_misses_nothing_that_was_sent_after_its_greeting() {
        let progress = |seq: u64, id: &str| {
            json!({"seq": seq, "type": "progress", "by": "me", "at": "now", "id": id,
                "data": {"type": "progress", "mark": id}})
        };
        let log = log_of("workflow:w", &[progress(1, "a"), progress(2, "b")]);
        let sent = |tick, id: &str| {
            (tick, Way::Out, json!({"op": "publish", "room": "workflow:w", "id": id, "type": "progress", "data": {}}))
        };
        let ok = |tick, id: &str, seq| (tick, Way::In, json!({"op": "ok", "room": "workflow:w", "id": id, "seq": seq}));
        let frames = [sent(10, "a"), ok(11, "a", 1), sent(12, "b"), ok(13, "b", 2)];
        let writer = connection(Speaks::Native, "", 9, &frames);
        let page = |greeted: u64| {
            let greeting = (greeted, Way::In, json!({"type": "info", "message": "connected"}));
            let shown = (20, Way::In, json!({"type": "progress", "mark": "b"}));
            connection(Speaks::Workflow, "workflow:w", 0, &[greeting, shown])
        };
        assert_eq!(broken(&[writer.clone(), page(11)], &log), [], "it came in between the two");
        assert_eq!(broken(&[writer, page(5)], &log), [Rule::Hole], "it was there before both");
    }
}
