//! Publishing and deciding, carried out in the writer's open transaction, and the one answer that each gets.

use super::wire::{self, About};
use crate::auth::rights::Verb;
use crate::dialect::agents::approvals::{self, Approval, Decision, Undecided, Verdict};
use crate::dialect::agents::sessions;
use crate::dialect::publish::{self, Outcome, Publish, Published, Refusal};
use crate::dialect::{Applied, Asker, Env, Failure, First, Reply, Write};
use crate::ids::{FNV_START, fnv};
use crate::model::{RowsError, Transaction};
use crate::mutant::Mutant;
use crate::ws;

#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Publish(Publish),
    /// `seen`: the digest that the decider was shown.
    Decide {
        approval: String,
        verdict: Verdict,
        seen: String,
    },
}

impl Change {
    pub fn verb(&self) -> Option<Verb> {
        Some(match self {
            Change::Publish(_) => Verb::Write,
            Change::Decide { .. } => Verb::Approve,
        })
    }

    /// About how many bytes it brings to a transaction.
    pub fn weight(&self) -> usize {
        match self {
            Change::Publish(publish) => 64 + publish.data.len(),
            Change::Decide { approval, verdict, seen } => {
                let verdict = match verdict {
                    Verdict::Edit { args } => args.to_string().len(),
                    Verdict::Reject { reason } => reason.as_ref().map_or(0, String::len),
                    Verdict::Approve | Verdict::Cancel | Verdict::Expire => 0,
                };
                64 + approval.len() + seen.len() + verdict
            }
        }
    }
}

pub fn apply(
    change: &Change,
    write: &Write,
    asker: &Asker,
    rows: &mut dyn Transaction,
    env: &Env,
) -> Result<Applied, RowsError> {
    let about = about(write);
    Ok(match change {
        Change::Publish(publish) => published(publish::publish(publish, asker, write.op.as_ref(), rows, env)?, about),
        Change::Decide { approval, verdict, seen } => {
            let decision = decide(approval, verdict, seen, write, asker, rows)?;
            if matches!(decision, Err(Undecided::Already(_))) && env.canary.is(Mutant::SecondDecision) {
                return Ok(decided(approvals::decide_again(approval, verdict, asker, write.op.as_ref(), rows)?, about));
            }
            decided(decision, about)
        }
    })
}

fn decide(
    approval: &str,
    verdict: &Verdict,
    seen: &str,
    write: &Write,
    asker: &Asker,
    rows: &mut dyn Transaction,
) -> Result<Result<(Approval, Decision), Undecided>, RowsError> {
    // Approvals live in sessions. Without one the right that was shown, for this room, would be worth nothing.
    let Some(session) = sessions::id_of_room(write.room.as_str()) else { return Ok(Err(Undecided::NoSuch)) };
    approvals::decide(approval, Some(session), verdict, Some(seen), asker, write.op.as_ref(), rows)
}

fn published(outcome: Outcome, about: About<'_>) -> Applied {
    match outcome {
        Ok(Published { seq, rev, signals, files }) => Applied {
            signals,
            files,
            note: rev.map(|rev| rev.to_string()).unwrap_or_default(),
            ..Applied::only(frame(&wire::ok(about, seq, rev, false)))
        },
        Err(Refusal::NoSuchRoom) => refused(about, "no_such_room", "no such room, or not yours"),
        Err(Refusal::Conflict { rev, snapshot }) => {
            Applied::only(frame(&wire::conflict(about, rev, snapshot.as_deref())))
        }
        Err(Refusal::Bad { code, detail }) => refused(about, code, &detail),
    }
}

fn decided(outcome: Result<(Approval, Decision), Undecided>, about: About<'_>) -> Applied {
    match outcome {
        Ok((_, decision)) => Applied::only(frame(&wire::ok(about, decision.seq, None, false))),
        Err(Undecided::NoSuch) => refused(about, "no_such_approval", "no such approval in this room, or not yours"),
        Err(Undecided::Already(first)) => Applied::only(frame(&wire::already_decided(about, &first))),
        Err(Undecided::Stale(approval)) => Applied::only(frame(&wire::stale(about, &approvals::describe(&approval)))),
    }
}

/// The first answer again; the note is the revision, where there was one.
pub fn repeated(_change: &Change, write: &Write, first: First<'_>) -> Reply {
    frame(&wire::ok(about(write), first.seq, first.note.parse().ok(), true))
}

/// Everything that makes it this operation and no other; the parts' lengths stand before them, so that no two lists of
/// parts are one text.
pub fn fingerprint(change: &Change) -> u64 {
    let parts = |parts: &[&[u8]]| {
        parts.iter().fold(FNV_START, |hash, part| fnv(fnv(hash, &(part.len() as u64).to_be_bytes()), part))
    };
    match change {
        Change::Publish(Publish { room, kind, data, if_rev }) => {
            let rev = if_rev.map(|rev| rev.to_be_bytes());
            let rev = rev.as_ref().map_or(&[][..], |rev| &rev[..]);
            parts(&[b"publish", room.as_str().as_bytes(), kind.as_bytes(), data, rev])
        }
        Change::Decide { approval, verdict, seen } => {
            let (decision, rest) = match verdict {
                Verdict::Approve => ("approve", String::new()),
                Verdict::Reject { reason: None } => ("reject", String::new()),
                Verdict::Reject { reason: Some(reason) } => ("reject with a reason", reason.clone()),
                Verdict::Edit { args } => ("edit", args.to_string()),
                Verdict::Cancel => ("cancel", String::new()),
                Verdict::Expire => ("expire", String::new()),
            };
            parts(&[b"decide", approval.as_bytes(), decision.as_bytes(), rest.as_bytes(), seen.as_bytes()])
        }
    }
}

pub fn id_taken(_change: &Change, write: &Write) -> Reply {
    frame(&wire::refused(about(write), "id_taken", "this id was given to another operation; nothing was saved"))
}

/// What is certain is refused; what nobody knows is called unknown, and never a refusal (PROMISES.md G3).
pub fn failed(_change: &Change, write: &Write, failure: Failure) -> Reply {
    let about = about(write);
    let detail = failure.reject().detail;
    frame(&match failure {
        Failure::Unknown => wire::unknown(about),
        Failure::Busy => wire::overloaded(about, &detail),
        Failure::Full => wire::refused(about, "store_full", &detail),
        Failure::Broken => wire::refused(about, "store_broken", &detail),
        Failure::Forbidden => wire::refused(about, "forbidden", "no such room, or not yours"),
    })
}

fn about(write: &Write) -> About<'_> {
    About { id: write.op.as_ref().map(|op| &*op.0), room: Some(write.room.as_str()) }
}

fn refused(about: About<'_>, code: &str, detail: &str) -> Applied {
    Applied::only(frame(&wire::refused(about, code, detail)))
}

fn frame(payload: &[u8]) -> Reply {
    Reply::Frame(ws::frame::text(payload))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::clock::Wall;
    use crate::dialect;
    use crate::dialect::fake::Fake;
    use crate::ids::{OpId, RoomName, Seq};

    const AT: Wall = Wall(1_747_101_540_123_456);

    fn asker() -> Asker {
        Asker { actor: "ann".into(), origin: 7, verified: true }
    }

    fn publish(room: &str, data: &'static str, if_rev: Option<u64>) -> Change {
        let data = Bytes::from_static(data.as_bytes());
        Change::Publish(Publish { room: RoomName::new(room), kind: "note".to_owned(), data, if_rev })
    }

    fn write(room: &str, change: &Change) -> Write {
        let change = dialect::Change::Native(change.clone());
        Write { room: RoomName::new(room), op: Some(OpId("op-1".into())), change }
    }

    fn said(reply: &Reply) -> String {
        let Reply::Frame(bytes) = reply else { panic!("{reply:?} is no frame") };
        let from = bytes.iter().position(|byte| *byte == b'{').unwrap();
        let payload = &bytes[from..];
        assert_eq!(ws::frame::text(payload), bytes, "one frame");
        String::from_utf8(payload.to_vec()).unwrap()
    }

    fn carried_out(rows: &mut Fake, room: &str, change: &Change) -> Applied {
        apply(change, &write(room, change), &asker(), rows, &Env::default()).unwrap()
    }

    #[test]
    fn a_publish_is_an_event_as_sent_and_its_ok_says_which() {
        let mut rows = Fake { at: AT, ..Fake::default() };
        let change = publish("game:1", "{ \"b\" : 1.10, \"a\":2}", None);
        let applied = carried_out(&mut rows, "game:1", &change);
        assert_eq!(said(&applied.reply), r#"{"op":"ok","id":"op-1","room":"game:1","seq":1}"#);
        assert_eq!(applied.note, "");
        assert_eq!(rows.told("game:1"), ["note { \"b\" : 1.10, \"a\":2}"]);
        let event = &rows.log["game:1"][0];
        assert_eq!((&*event.actor, event.origin, event.op.as_ref()), ("ann", 7, Some(&OpId("op-1".into()))));
    }

    #[test]
    fn g5_a_repeat_is_told_the_first_answer_and_that_it_is_one() {
        let mut rows = Fake { at: AT, ..Fake::default() };
        let change = publish("game:1", "{}", Some(0));
        let applied = carried_out(&mut rows, "game:1", &change);
        assert_eq!(said(&applied.reply), r#"{"op":"ok","id":"op-1","room":"game:1","seq":1,"rev":1}"#);
        let first = First { seq: Seq(1), at: AT, note: &applied.note };
        assert_eq!(
            said(&repeated(&change, &write("game:1", &change), first)),
            r#"{"op":"ok","id":"op-1","room":"game:1","seq":1,"rev":1,"dup":true}"#
        );
        let first = First { seq: Seq(4), at: AT, note: "" };
        assert_eq!(
            said(&repeated(&change, &write("game:1", &change), first)),
            r#"{"op":"ok","id":"op-1","room":"game:1","seq":4,"dup":true}"#
        );
    }

    #[test]
    fn if_rev_writes_only_over_the_revision_it_names() {
        let mut rows = Fake { at: AT, ..Fake::default() };
        let early = carried_out(&mut rows, "game:1", &publish("game:1", "{}", Some(3)));
        assert_eq!(said(&early.reply), r#"{"op":"conflict","id":"op-1","room":"game:1","rev":0,"snapshot":null}"#);
        carried_out(&mut rows, "game:1", &publish("game:1", r#"{"n":1}"#, Some(0)));
        let late = carried_out(&mut rows, "game:1", &publish("game:1", r#"{"n":2}"#, Some(0)));
        assert_eq!(said(&late.reply), r#"{"op":"conflict","id":"op-1","room":"game:1","rev":1,"snapshot":{"n":1}}"#);
        assert_eq!(rows.told("game:1").len(), 1, "a refusal writes nothing");
    }

    #[test]
    fn every_outcome_of_a_publish_has_its_words() {
        let about = About { id: Some("7"), room: Some("doc:a") };
        for (outcome, expected) in [
            (
                Err(Refusal::NoSuchRoom),
                r#"{"op":"refused","id":"7","code":"no_such_room","detail":"no such room, or not yours","room":"doc:a"}"#,
            ),
            (
                Err(Refusal::bad("bad_type", "a \"sentence\"")),
                r#"{"op":"refused","id":"7","code":"bad_type","detail":"a \"sentence\"","room":"doc:a"}"#,
            ),
            (
                Err(Refusal::Conflict { rev: 2, snapshot: Some(Bytes::from_static(b"[1]")) }),
                r#"{"op":"conflict","id":"7","room":"doc:a","rev":2,"snapshot":[1]}"#,
            ),
            (Ok(Published::at(Seq(3))), r#"{"op":"ok","id":"7","room":"doc:a","seq":3}"#),
        ] {
            assert_eq!(said(&published(outcome, about).reply), expected);
        }
    }

    #[test]
    fn what_a_publish_causes_beside_its_event_is_handed_on() {
        let task = dialect::FileTask::Write { id: "a".to_owned() };
        let outcome = Published { rev: Some(9), files: vec![task.clone()], ..Published::at(Seq(1)) };
        let applied = published(Ok(outcome), About { id: None, room: None });
        assert_eq!((applied.files, applied.note.as_str()), (vec![task], "9"));
    }

    #[test]
    fn g7_a_late_decider_is_told_who_decided_when_and_what() {
        let decision = Decision {
            decision: "approved".to_owned(),
            by: "bob".to_owned(),
            at: AT,
            seq: Seq(12),
            edited_args: None,
            reason: None,
        };
        let approval = Approval {
            id: "a1".to_owned(),
            session: "s1".to_owned(),
            execution_id: None,
            tool_name: "t".to_owned(),
            tool_args: json!({}),
            reason: None,
            amount: Some("5.00".to_owned()),
            currency: Some("USD".to_owned()),
            digest: "d".to_owned(),
            created_at: AT,
            expires_at: None,
            seq: Seq(11),
            decided: None,
        };
        let about = About { id: Some("7"), room: Some("session:s1") };
        for (outcome, expected) in [
            (Ok((approval.clone(), decision.clone())), r#"{"op":"ok","id":"7","room":"session:s1","seq":12}"#.to_owned()),
            (
                Err(Undecided::NoSuch),
                r#"{"op":"refused","id":"7","code":"no_such_approval","detail":"no such approval in this room, or not yours","room":"session:s1"}"#.to_owned(),
            ),
            (
                Err(Undecided::Already(decision)),
                r#"{"op":"refused","id":"7","code":"already_decided","detail":"it was decided before","room":"session:s1","by":"bob","at":"2025-05-13T01:59:00.123456Z","decision":"approved","seq":12}"#.to_owned(),
            ),
            (
                Err(Undecided::Stale(Box::new(approval.clone()))),
                format!(
                    r#"{{"op":"refused","id":"7","code":"stale","detail":"it is not what you have seen: look at it again","room":"session:s1","approval":{}}}"#,
                    match String::from_utf8(approvals::describe(&approval).to_vec()).unwrap() {
                        empty if empty.is_empty() => "null".to_owned(),
                        described => described,
                    }
                ),
            ),
        ] {
            assert_eq!(said(&decided(outcome, about).reply), expected);
        }
    }

    #[test]
    fn nothing_is_decided_outside_of_a_session() {
        let mut rows = Fake { at: AT, ..Fake::default() };
        let change = Change::Decide { approval: "a1".to_owned(), verdict: Verdict::Approve, seen: "d".to_owned() };
        assert!(said(&carried_out(&mut rows, "doc:a", &change).reply).contains("no_such_approval"));
        assert_eq!(change.verb(), Some(Verb::Approve));
        assert_eq!(publish("a", "{}", None).verb(), Some(Verb::Write));
    }

    #[test]
    fn g3_only_what_is_certain_is_refused() {
        let change = publish("doc:a", "{}", None);
        let write = write("doc:a", &change);
        for (failure, expected) in [
            (Failure::Unknown, r#"{"op":"unknown","id":"op-1","room":"doc:a"}"#),
            (
                Failure::Busy,
                r#"{"op":"refused","id":"op-1","code":"overloaded","detail":"the store is behind; nothing was saved","room":"doc:a","retry_after_ms":1000}"#,
            ),
            (
                Failure::Full,
                r#"{"op":"refused","id":"op-1","code":"store_full","detail":"no space left; nothing was saved","room":"doc:a"}"#,
            ),
            (
                Failure::Broken,
                r#"{"op":"refused","id":"op-1","code":"store_broken","detail":"the store has stopped; nothing was saved","room":"doc:a"}"#,
            ),
            (
                Failure::Forbidden,
                r#"{"op":"refused","id":"op-1","code":"forbidden","detail":"no such room, or not yours","room":"doc:a"}"#,
            ),
        ] {
            assert_eq!(said(&failed(&change, &write, failure)), expected);
        }
        assert_eq!(
            said(&id_taken(&change, &write)),
            r#"{"op":"refused","id":"op-1","code":"id_taken","detail":"this id was given to another operation; nothing was saved","room":"doc:a"}"#
        );
    }

    #[test]
    fn g5_two_operations_differ_in_their_fingerprints() {
        let decide = |approval: &str, verdict, seen: &str| Change::Decide {
            approval: approval.to_owned(),
            verdict,
            seen: seen.to_owned(),
        };
        let kind = |kind: &str, data: &'static [u8]| {
            let data = Bytes::from_static(data);
            Change::Publish(Publish { room: RoomName::new("r"), kind: kind.to_owned(), data, if_rev: None })
        };
        let changes = [
            publish("r", "{}", None),
            publish("r", "{}", Some(0)),
            publish("r", "{}", Some(1)),
            publish("r", "[]", None),
            publish("q", "{}", None),
            kind("a", b"12"),
            kind("a1", b"2"),
            decide("x", Verdict::Approve, "d"),
            decide("x", Verdict::Cancel, "d"),
            decide("x", Verdict::Reject { reason: None }, "d"),
            decide("x", Verdict::Reject { reason: Some(String::new()) }, "d"),
            decide("x", Verdict::Reject { reason: Some("r".to_owned()) }, "d"),
            decide("x", Verdict::Edit { args: json!({"a": 1}) }, "d"),
            decide("x", Verdict::Edit { args: json!({"a": 2}) }, "d"),
            decide("y", Verdict::Approve, "d"),
            decide("x", Verdict::Approve, "e"),
        ];
        let prints: std::collections::BTreeSet<u64> = changes.iter().map(fingerprint).collect();
        assert_eq!(prints.len(), changes.len());
        assert_eq!(fingerprint(&changes[0]), fingerprint(&changes[0].clone()));
    }

    #[test]
    fn a_write_weighs_what_it_carries() {
        let args = json!({"text": "x".repeat(1000)});
        let edit = Change::Decide { approval: String::new(), verdict: Verdict::Edit { args }, seen: String::new() };
        assert!(edit.weight() > 1000 && publish("a", "{}", None).weight() == 66);
        let reason = Some("x".repeat(1000));
        let reject =
            Change::Decide { approval: String::new(), verdict: Verdict::Reject { reason }, seen: String::new() };
        assert!(reject.weight() > 1000);
    }
}
