//! Operations and their answers, held against the log.

use super::super::facts::{Answer, Facts, Op};
use super::super::log::{Log, Logs};
use super::{Rule, Tally};

pub fn judge(facts: &Facts, logs: &Logs, tally: &mut Tally) {
    for (room, log) in logs {
        let stored = log.by_key();
        for (key, seqs) in &stored {
            tally.check(Rule::Once, seqs.len() == 1, || format!("{key} is in {room} as {seqs:?}"));
        }
        let ops = facts.ops.range((room.clone(), String::new())..).take_while(|((of, _), _)| of == room);
        for ((_, key), op) in ops {
            let seqs = stored.get(key).map(Vec::as_slice).unwrap_or_default();
            one(&Place { room, key, log, seqs }, op, tally);
        }
    }
}

struct Place<'l> {
    room: &'l str,
    key: &'l str,
    log: &'l Log,
    seqs: &'l [u64],
}

fn one(place: &Place<'_>, op: &Op, tally: &mut Tally) {
    let Place { room, key, seqs, .. } = place;
    if op.sent.is_none() {
        tally.check(Rule::Torn, seqs.is_empty(), || format!("{key} was never sent whole; {room} has it at {seqs:?}"));
        return;
    }
    let mut refusals = 0;
    let mut first: Option<(Option<u64>, &str)> = None;
    for (_, answer) in &op.answers {
        match answer {
            Answer::Ok { seq, rest } => {
                saved(place, *seq, tally);
                let (told, same) = *first.get_or_insert((*seq, rest));
                tally.check(Rule::OneAnswer, told == *seq && same == rest, || {
                    format!("a copy of {key} in {room} was told {told:?} {same}, another {seq:?} {rest}")
                });
            }
            // Of a server that is full or behind the refusal is about the copy, not about the operation.
            Answer::Refused { code } if matches!(code.as_str(), "overloaded" | "store_full" | "store_broken") => {}
            Answer::Refused { code } => {
                refusals += 1;
                // Whoever lost a task speaks under another fence than his successor, and a run that is over takes nothing.
                let is_late = op.is_bare;
                tally.check(Rule::OneAnswer, is_late || first.is_none(), || {
                    format!("a copy of {key} in {room} was refused ({code}) after another had been told {first:?}")
                });
            }
            Answer::Unknown => {}
        }
    }
    if refusals > 0 {
        let is_stored = !seqs.is_empty() && refusals == op.copies;
        tally.check(Rule::FalseRefusal, !is_stored, || format!("{key} was refused; {room} has it at {seqs:?}"));
    }
    if !op.is_bare {
        let is_answered = op.answers.iter().any(|(_, answer)| *answer != Answer::Unknown);
        tally.check(Rule::Liveness, is_answered, || {
            format!("none of {} copies of {key} in {room} was answered", op.copies)
        });
    }
}

fn saved(place: &Place<'_>, seq: Option<u64>, tally: &mut Tally) {
    let Place { room, key, log, seqs } = place;
    if seq.is_some_and(|seq| seq <= log.floor) {
        return;
    }
    tally.check(Rule::LostAck, !seqs.is_empty(), || {
        format!("{key} was acknowledged ({seq:?}) and is not in the log of {room}")
    });
    if let (Some(seq), Some(stored)) = (seq, seqs.first()) {
        tally.check(Rule::AckSeq, seq == *stored, || {
            format!("{key} of {room} was acknowledged as {seq} and stands at {stored}")
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::history::{Speaks, Way};
    use super::super::fabricated::*;
    use super::*;

    #[test]
    fn answers_and_the_log() {
        for (what, frames, stored, rules) in [
            ("saved", vec![publish("a"), ok("a", 1)], vec!["a"], vec![]),
            ("not answered, then saved", vec![publish("a"), publish("a"), ok("a", 1)], vec!["a"], vec![]),
            ("refused", vec![publish("a"), refused("a")], vec!["z"], vec![]),
            ("lost", vec![publish("a"), ok("a", 1)], vec!["z"], vec![Rule::LostAck]),
            ("another seq", vec![publish("a"), ok("a", 2)], vec!["a", "z"], vec![Rule::AckSeq]),
            ("refused and stored", vec![publish("a"), refused("a")], vec!["a"], vec![Rule::FalseRefusal]),
            ("stored twice", vec![publish("a"), ok("a", 1)], vec!["a", "a"], vec![Rule::Once]),
            (
                "two answers",
                vec![publish("a"), publish("a"), ok("a", 1), ok("a", 2)],
                vec!["a", "z"],
                vec![Rule::AckSeq, Rule::OneAnswer],
            ),
            (
                "saved and refused",
                vec![publish("a"), publish("a"), ok("a", 1), refused("a")],
                vec!["a"],
                vec![Rule::OneAnswer],
            ),
            ("never answered", vec![publish("a")], vec!["a"], vec![Rule::Liveness]),
        ] {
            assert_eq!(broken(&[native(0, &frames)], &log(&stored)), rules, "{what}");
        }
    }

    #[test]
    fn half_a_frame_is_nothing() {
        let (_, half) = publish("a");
        assert_eq!(broken(&[native(0, &[(Way::Torn, half.clone())])], &log(&["a"])), [Rule::Torn]);
        assert_eq!(broken(&[native(0, &[(Way::Torn, half)])], &log(&["z"])), []);
    }

    #[test]
    fn an_answer_without_an_id_is_held_against_what_only_it_says() {
        let sent = (1, Way::Out, json!({"type": "user_response", "session_id": "s", "response": "r"}));
        let ack = (2, Way::In, json!({"type": "ack", "session_id": "s", "status": "received"}));
        let page = connection(Speaks::Tickets, "tickets", 0, &[sent, ack]);
        let stored = |session: &str| {
            log_of(
                "tickets",
                &[json!({"seq": 1, "type": "user_response", "by": "me", "at": "now",
                "data": {"type": "user_response", "session_id": session, "response": "r"}})],
            )
        };
        assert_eq!(broken(std::slice::from_ref(&page), &stored("s")), []);
        assert_eq!(broken(&[page], &stored("other")), [Rule::LostAck]);
    }
}
