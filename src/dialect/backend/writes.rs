//! Changes, carried out in the writer's open transaction.
//!
//! The fence is held here: whoever lost a task to another holder can neither finish it nor publish on its behalf, because
//! the comparison stands in the transaction of the write itself.

use std::sync::Arc;
use std::time::Duration;

use super::Held;
use super::answers::{Asked, Way};
use super::fault::Fault;
use super::revocations::{self, Wanted as Revoke};
use super::rights;
use super::wire::{Decided, Facts};
use crate::auth::ApiKey;
use crate::clock::Wall;
use crate::dialect::agents::approvals::{self, Undecided, Verdict, Wanted};
use crate::dialect::agents::sessions;
use crate::dialect::publish::{self, Publish, Refusal};
use crate::dialect::{Applied, Asker, Env, Failure, First, Reply, Write};
use crate::ids::{Epoch, FNV_START, fnv};
use crate::model::{RowsError, Shelf, Task, Tasks, Transaction};
use crate::mutant::Mutant;

/// How long a task rests after its first failure; doubled with each attempt.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// A task's kind is known only here, so its right is asked for here.
    pub key: Arc<ApiKey>,
    pub asked: Asked,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// `held`: only while this is how the task is held.
    Publish {
        publish: Publish,
        held: Option<Held>,
    },
    Done(Held),
    /// `retry`: when it may be tried again.
    Fail {
        held: Held,
        retry: Option<Duration>,
    },
    Renew {
        held: Held,
        lease: Duration,
    },
    Session(Box<sessions::New>),
    Approval(Box<Wanted>),
    Decide(Box<Decide>),
    Revoke(Box<Revoke>),
    /// The revocation with this id no longer holds.
    Restore(String),
    /// A line of a batch that made no sense; a write, so that the answers keep the order of the lines.
    Refused(Fault),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Decide {
    pub approval: String,
    pub verdict: Verdict,
    pub seen: Option<String>,
    /// Whom the backend decides for.
    pub by: Option<String>,
}

impl Change {
    /// About how many bytes it brings to a transaction.
    pub fn weight(&self) -> usize {
        const REST: usize = 128;
        match &self.what {
            What::Publish { publish, .. } => REST + publish.data.len(),
            // Their values were one message; what they take up as values is about as much.
            What::Session(_) | What::Approval(_) | What::Decide(_) | What::Revoke(_) => 8 * REST,
            What::Done(_) | What::Fail { .. } | What::Renew { .. } | What::Restore(_) | What::Refused(_) => REST,
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
    // Owners of sessions are held against users. A backend is nobody's user: it acts for all of them, and what it may do
    // its key has said.
    let asker = Asker { verified: false, ..asker.clone() };
    let reply = match &change.what {
        What::Publish { publish, held } => {
            return match refuse_holder(held.as_ref(), &change.key, rows)? {
                Some(fault) if !env.canary.is(Mutant::StaleFenceAccepted) => {
                    Ok(Applied::only(change.asked.ill(&fault, task_of(held.as_ref()))))
                }
                _ => carry_out_publish(publish, &change.asked, write, &asker, rows, env),
            };
        }
        What::Done(held) => done(held, change, rows)?,
        What::Fail { held, retry } => fail(held, *retry, change, rows)?,
        What::Renew { held, lease } => renew(held, *lease, change, rows)?,
        What::Session(new) => make_session(new, &change.asked, &asker, rows)?,
        What::Approval(wanted) => want(wanted, &change.asked, &asker, rows)?,
        What::Decide(decision) => decide(decision, &change.asked, asker, rows)?,
        What::Revoke(wanted) => return revocations::revoke(wanted, &change.asked, &asker, rows, env),
        What::Restore(id) => return revocations::restore(id, &change.asked, rows),
        What::Refused(fault) => change.asked.ill(fault, Facts::default()),
    };
    Ok(Applied::only(reply))
}

/// The first answer again; its note is the epoch and, where there is one, the revision.
pub fn repeated(change: &Change, write: &Write, first: First<'_>) -> Reply {
    let (epoch, rev) = first.note.split_once(' ').unwrap_or((first.note, ""));
    let facts = Facts {
        room: Some(write.room.as_str()),
        epoch: Some(epoch),
        seq: Some(first.seq.0),
        rev: rev.parse().ok(),
        ..Facts::default()
    };
    change.asked.well(Way::Replayed, facts)
}

/// Of a publish, since nothing else carries an operation's id. Without the fence: a task that was handed out again is
/// worked on again, and the publish of its second holder is the first one's.
pub fn fingerprint(change: &Change) -> u64 {
    let What::Publish { publish, .. } = &change.what else { return FNV_START };
    // Lengths before the parts, so that no two publishes run together to the same bytes.
    let part = |hash, bytes: &[u8]| fnv(fnv(hash, &bytes.len().to_le_bytes()), bytes);
    let hash = part(part(part(FNV_START, publish.room.as_str().as_bytes()), publish.kind.as_bytes()), &publish.data);
    match publish.if_rev {
        Some(rev) => fnv(hash, &rev.to_le_bytes()),
        None => hash,
    }
}

pub fn id_taken(change: &Change) -> Reply {
    change.asked.ill(&Fault::id_taken(), Facts::default())
}

pub fn failed(change: &Change, failure: Failure) -> Reply {
    let held = match &change.what {
        What::Done(held) | What::Fail { held, .. } | What::Renew { held, .. } => Some(held),
        What::Publish { held, .. } => held.as_ref(),
        What::Session(_) | What::Approval(_) | What::Decide(_) => None,
        What::Revoke(_) | What::Restore(_) | What::Refused(_) => None,
    };
    change.asked.failed(failure, task_of(held))
}

// ---- publishing -------------------------------------------------------------------------------------------------------

fn carry_out_publish(
    publish: &Publish,
    asked: &Asked,
    write: &Write,
    asker: &Asker,
    rows: &mut dyn Transaction,
    env: &Env,
) -> Result<Applied, RowsError> {
    let published = match publish::publish(publish, asker, write.op.as_ref(), rows, env)? {
        Ok(published) => published,
        Err(refusal) => return Ok(Applied::only(asked.refused(&refusal))),
    };
    let room = publish.room.as_str();
    let epoch = rows.room(room)?.map_or(Epoch::default(), |row| row.epoch).to_string();
    let note = match published.rev {
        Some(rev) => format!("{epoch} {rev}"),
        None => epoch.clone(),
    };
    let facts = Facts {
        room: Some(room),
        epoch: Some(&epoch),
        seq: Some(published.seq.0),
        rev: published.rev,
        ..Facts::default()
    };
    let reply = asked.well(Way::Made, facts);
    Ok(Applied { signals: published.signals, files: published.files, ..Applied::noted(reply, note) })
}

// ---- tasks ------------------------------------------------------------------------------------------------------------

/// A finished task's last holder is still its last holder: what it says late is not another's to say.
fn refuse_holder(held: Option<&Held>, key: &ApiKey, rows: &mut dyn Transaction) -> Result<Option<Fault>, RowsError> {
    match held {
        None => Ok(None),
        Some(held) => Ok(standing(held, key, rows)?.err()),
    }
}

/// The task, if this is its last hand-out.
fn standing(held: &Held, key: &ApiKey, rows: &mut dyn Transaction) -> Result<Result<Task, Fault>, RowsError> {
    let Some(task) = rows.task(held.task)? else { return Ok(Err(Fault::unknown_task())) };
    // Ids and fences can be counted up to: a key learns nothing of kinds that are not its own.
    if rights::tasks(key, Tasks::only(task.kind)).is_err() {
        return Ok(Err(Fault::unknown_task()));
    }
    // The fence of a task that was never handed out is 0, which is nobody's.
    let is_last = task.attempt > 0 && task.fence == held.fence;
    Ok(if is_last { Ok(task) } else { Err(Fault::stale_fence()) })
}

/// Said again, it is as good as said once.
fn done(held: &Held, change: &Change, rows: &mut dyn Transaction) -> Result<Reply, RowsError> {
    let task = match standing(held, &change.key, rows)? {
        Ok(task) => task,
        Err(fault) => return Ok(change.asked.ill(&fault, task_of(Some(held)))),
    };
    if !task.done {
        rows.finish_task(task.id)?;
    }
    Ok(change.asked.well(Way::Found, task_of(Some(held))))
}

fn fail(held: &Held, retry: Option<Duration>, change: &Change, rows: &mut dyn Transaction) -> Result<Reply, RowsError> {
    let task = match unfinished(held, &change.key, rows)? {
        Ok(task) => task,
        Err(fault) => return Ok(change.asked.ill(&fault, task_of(Some(held)))),
    };
    let rest = retry.unwrap_or_else(|| rest_after(task.attempt));
    rows.postpone_task(task.id, later(rows.at(), rest))?;
    Ok(change.asked.well(Way::Found, task_of(Some(held))))
}

/// A socket's lease lasts as long as the socket; only what was handed out over HTTP has an end to move.
fn renew(held: &Held, lease: Duration, change: &Change, rows: &mut dyn Transaction) -> Result<Reply, RowsError> {
    let task = match unfinished(held, &change.key, rows)? {
        Ok(task) => task,
        Err(fault) => return Ok(change.asked.ill(&fault, task_of(Some(held)))),
    };
    if task.holder == 0 {
        rows.postpone_task(task.id, later(rows.at(), lease))?;
    }
    Ok(change.asked.well(Way::Found, task_of(Some(held))))
}

fn unfinished(held: &Held, key: &ApiKey, rows: &mut dyn Transaction) -> Result<Result<Task, Fault>, RowsError> {
    Ok(match standing(held, key, rows)? {
        Ok(task) if task.done => Err(Fault::stale_fence()),
        other => other,
    })
}

/// 1, 2, 4 … up to 60 seconds.
fn rest_after(attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(16);
    RETRY_FIRST.saturating_mul(1 << doublings).min(RETRY_MAX)
}

fn later(at: Wall, wait: Duration) -> Wall {
    Wall(at.0.saturating_add(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX)))
}

fn task_of(held: Option<&Held>) -> Facts<'static> {
    Facts { task: held.map(|held| held.task.0.to_string()), ..Facts::default() }
}

// ---- sessions and approvals ---------------------------------------------------------------------------------------------

fn make_session(
    new: &sessions::New,
    asked: &Asked,
    asker: &Asker,
    rows: &mut dyn Transaction,
) -> Result<Reply, RowsError> {
    let was_there = match &new.id {
        Some(id) => rows.record(Shelf::Session, id)?.is_some(),
        None => false,
    };
    Ok(match sessions::create(new, asker, rows)? {
        Ok(record) => asked.well(way(was_there), Facts::of_session(&record)),
        Err(refusal) => asked.ill(&of_a_session(&refusal), Facts::default()),
    })
}

fn want(wanted: &Wanted, asked: &Asked, asker: &Asker, rows: &mut dyn Transaction) -> Result<Reply, RowsError> {
    let was_there = match &wanted.id {
        Some(id) => approvals::find(id, rows)?.is_some(),
        None => false,
    };
    Ok(match approvals::request(wanted, asker, rows)? {
        Ok(approval) => asked.well(way(was_there), Facts::of_approval(&approval)),
        Err(refusal) => asked.ill(&of_a_session(&refusal), Facts::default()),
    })
}

fn decide(decide: &Decide, asked: &Asked, asker: Asker, rows: &mut dyn Transaction) -> Result<Reply, RowsError> {
    // The key's name stays in front of whomever it speaks for: a payload must not be able to sign as a user.
    let actor = match &decide.by {
        Some(by) => Arc::from(format!("{}/{by}", asker.actor)),
        None => asker.actor.clone(),
    };
    let asker = Asker { actor, ..asker };
    let Decide { approval, verdict, seen, .. } = decide;
    Ok(match approvals::decide(approval, None, verdict, seen.as_deref(), &asker, None, rows)? {
        Ok((approval, decision)) => {
            let facts = Facts {
                state: Some(&decision.decision),
                decision: Some(Decided::of(&decision)),
                ..Facts::of_approval(&approval)
            };
            asked.well(Way::Found, facts)
        }
        Err(Undecided::NoSuch) => asked.ill(&Fault::no_such_approval(), Facts::default()),
        Err(Undecided::Already(decision)) => {
            let facts = Facts { decision: Some(Decided::of(&decision)), ..Facts::default() };
            asked.ill(&Fault::already_decided(), facts)
        }
        Err(Undecided::Stale(approval)) => asked.ill(&Fault::stale(), Facts::of_approval(&approval)),
    })
}

fn way(was_there: bool) -> Way {
    if was_there { Way::Found } else { Way::Made }
}

fn of_a_session(refusal: &Refusal) -> Fault {
    match refusal {
        Refusal::NoSuchRoom => Fault::no_such_session(),
        other => Fault::from(other),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::super::answers::Via;
    use super::super::testing::{asker, key, said, with_task};
    use super::*;
    use crate::dialect;
    use crate::dialect::fake::Fake;
    use crate::ids::{OpId, RoomName, Seq};
    use crate::model::{TaskId, TaskKind};
    use bytes::Bytes;

    const VIAS: [Via; 3] = [Via::Socket, Via::Http, Via::Line(4)];

    fn write(via: Via, id: Option<&str>, rights: &[&str], what: What) -> Write {
        let room = match &what {
            What::Publish { publish, .. } => publish.room.clone(),
            _ => RoomName::new("tasks"),
        };
        let asked = Asked { via, id: id.map(Arc::from) };
        let op = id.map(|id| OpId(id.into()));
        Write { room, op, change: dialect::Change::Backend(Change { key: key(rights), asked, what }) }
    }

    fn carried_out(write: &Write, rows: &mut Fake) -> Applied {
        dialect::apply(write, &asker(), rows, &Env::default()).unwrap()
    }

    fn publish(data: &'static str, if_rev: Option<u64>, held: Option<Held>) -> What {
        let data = Bytes::from_static(data.as_bytes());
        What::Publish { publish: Publish { room: RoomName::new("game:1"), kind: "move".into(), data, if_rev }, held }
    }

    fn held(fence: u64) -> Held {
        Held { task: TaskId(1), fence }
    }

    fn desk(what: What, rows: &mut Fake) -> String {
        said(&carried_out(&write(Via::Socket, None, &["*"], what), rows).reply)
    }

    #[test]
    fn a_publish_is_answered_in_three_shapes() {
        let expected = [
            r#"{"op":"ok","room":"game:1","epoch":"0000000000000007","seq":1,"id":"p"}"#,
            r#"201 {"room":"game:1","epoch":"0000000000000007","seq":1,"id":"p"}"#,
            "{\"line\":4,\"room\":\"game:1\",\"epoch\":\"0000000000000007\",\"seq\":1,\"id\":\"p\"}\n",
        ];
        for (via, expected) in VIAS.into_iter().zip(expected) {
            let mut rows = Fake::default();
            let applied = carried_out(&write(via, Some("p"), &["*"], publish("{}", None, None)), &mut rows);
            assert_eq!(said(&applied.reply), expected);
            assert_eq!(applied.note, "0000000000000007");
            assert_eq!(rows.told("game:1"), ["move {}"]);
            let event = &rows.log["game:1"][0];
            assert_eq!((&*event.actor, event.origin), ("worker", 9));
        }
    }

    #[test]
    fn g5_a_repeated_publish_gets_its_first_answer() {
        let expected = [
            r#"{"op":"ok","room":"game:1","epoch":"0000000000000007","seq":3,"id":"p","rev":5,"dup":true}"#,
            r#"201 Idempotent-Replayed: true {"room":"game:1","epoch":"0000000000000007","seq":3,"id":"p","rev":5}"#,
            "{\"line\":4,\"room\":\"game:1\",\"epoch\":\"0000000000000007\",\"seq\":3,\"id\":\"p\",\"rev\":5,\"dup\":true}\n",
        ];
        for (via, expected) in VIAS.into_iter().zip(expected) {
            let first = First { seq: Seq(3), at: Wall(0), note: "0000000000000007 5" };
            let write = write(via, Some("p"), &["*"], publish("{}", None, None));
            assert_eq!(said(&dialect::repeated(&write, first)), expected);
        }
        // What is noted is what is repeated.
        let mut rows = Fake::default();
        let write = write(Via::Http, Some("p"), &["*"], publish("{}", Some(0), None));
        let applied = carried_out(&write, &mut rows);
        let first = First { seq: Seq(1), at: Wall(0), note: &applied.note };
        let again = said(&dialect::repeated(&write, first));
        assert_eq!(again.replace(" Idempotent-Replayed: true", ""), said(&applied.reply));
        assert!(again.ends_with(r#""rev":1}"#), "{again}");
    }

    #[test]
    fn g5_an_id_stands_for_one_publish() {
        let print = |what: What| dialect::fingerprint(&write(Via::Socket, Some("p"), &["*"], what));
        let first = print(publish("{}", None, None));
        // Handed out again: the second holder's publish is the first one's.
        assert_eq!(first, print(publish("{}", None, Some(held(9)))));
        assert_ne!(first, print(publish("{ }", None, None)));
        assert_ne!(first, print(publish("{}", Some(0), None)));
        let expected = [
            r#"{"op":"refused","id":"p","code":"id_taken","detail":"this id was given to another publish; nothing was saved"}"#,
            r#"422 problem+json {"type":"about:blank","title":"Unprocessable Content","status":422,"detail":"this id was given to another publish; nothing was saved","code":"id_taken"}"#,
            "{\"line\":4,\"id\":\"p\",\"error\":{\"code\":\"id_taken\",\"detail\":\"this id was given to another publish; nothing was saved\"}}\n",
        ];
        for (via, expected) in VIAS.into_iter().zip(expected) {
            assert_eq!(said(&dialect::id_taken(&write(via, Some("p"), &["*"], publish("{}", None, None)))), expected);
        }
    }

    #[test]
    fn g6_a_conflict_shows_what_is_there() {
        let mut rows = Fake::default();
        carried_out(&write(Via::Http, None, &["*"], publish(r#"{"v":1}"#, Some(0), None)), &mut rows);
        let expected = [
            r#"{"op":"conflict","id":"p","rev":1,"snapshot":{"v":1}}"#,
            r#"409 problem+json {"type":"about:blank","title":"Conflict","status":409,"detail":"the revision is another one","code":"conflict","rev":1,"snapshot":{"v":1}}"#,
            "{\"line\":4,\"id\":\"p\",\"rev\":1,\"error\":{\"code\":\"conflict\",\"detail\":\"the revision is another one\"}}\n",
        ];
        for (via, expected) in VIAS.into_iter().zip(expected) {
            let applied = carried_out(&write(via, Some("p"), &["*"], publish(r#"{"v":2}"#, Some(0), None)), &mut rows);
            assert_eq!(said(&applied.reply), expected);
        }
        assert_eq!(rows.told("game:1").len(), 1, "nothing was published");
    }

    #[test]
    fn g7_a_deposed_backend_publishes_nothing() {
        let mut rows = with_task(TaskKind::Execute);
        rows.lease_task(TaskId(1), 0, Wall(i64::MAX / 2)).unwrap();
        let mut say = |fence| {
            let write = write(Via::Socket, Some("p"), &["*"], publish("{}", None, Some(held(fence))));
            said(&carried_out(&write, &mut rows).reply)
        };
        assert_eq!(
            say(1),
            r#"{"op":"refused","task":"1","id":"p","code":"stale_fence","detail":"the task is no longer held with this fence"}"#
        );
        assert!(say(2).starts_with(r#"{"op":"ok""#));
        assert_eq!(rows.told("game:1").len(), 1);
    }

    #[test]
    fn g7_only_the_last_holder_ends_a_task() {
        let mut rows = with_task(TaskKind::Execute);
        let stale =
            r#"{"op":"refused","task":"1","code":"stale_fence","detail":"the task is no longer held with this fence"}"#;
        let unknown = r#"{"op":"refused","task":"2","code":"unknown_task","detail":"there is no such task"}"#;
        rows.lease_task(TaskId(1), 0, Wall(i64::MAX / 2)).unwrap();
        for fence in [0, 1, 3, u64::MAX] {
            assert_eq!(desk(What::Done(held(fence)), &mut rows), stale, "{fence}");
            assert_eq!(desk(What::Fail { held: held(fence), retry: None }, &mut rows), stale, "{fence}");
        }
        assert_eq!(desk(What::Done(Held { task: TaskId(2), fence: 2 }), &mut rows), unknown);
        assert!(!rows.tasks[0].done);
        let ok = r#"{"op":"ok","task":"1"}"#;
        assert_eq!(desk(What::Done(held(2)), &mut rows), ok);
        assert!(rows.tasks[0].done);
        assert_eq!(desk(What::Done(held(2)), &mut rows), ok, "said again");
        assert_eq!(desk(What::Done(held(1)), &mut rows), stale, "of an older holder");
        assert_eq!(desk(What::Fail { held: held(2), retry: None }, &mut rows), stale, "it is finished");
        assert_eq!(desk(What::Renew { held: held(2), lease: RETRY_MAX }, &mut rows), stale, "it is finished");
        assert!(rows.tasks[0].done);
    }

    #[test]
    fn a_task_that_nobody_was_given_is_nobody_s_to_end() {
        let mut rows = Fake::default();
        rows.put_task(TaskKind::Execute, &RoomName::new("session:7"), Bytes::from_static(b"{}")).unwrap();
        assert!(desk(What::Done(held(0)), &mut rows).contains("stale_fence"));
        assert!(!rows.tasks[0].done);
    }

    #[test]
    fn tasks_of_kinds_that_are_not_granted_are_not_there() {
        let mut rows = with_task(TaskKind::Execute);
        for what in [
            What::Done(held(1)),
            What::Fail { held: held(1), retry: None },
            What::Renew { held: held(1), lease: RETRY_MAX },
            publish("{}", None, Some(held(1))),
        ] {
            let write = write(Via::Socket, None, &["tasks:chat", "publish:*"], what);
            assert!(said(&carried_out(&write, &mut rows).reply).contains("unknown_task"), "{write:?}");
        }
        assert!(!rows.tasks[0].done && rows.log.is_empty());
    }

    #[test]
    fn a_failed_task_rests_longer_each_time() {
        for (attempt, seconds) in [(0, 1), (1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (u32::MAX, 60)] {
            assert_eq!(rest_after(attempt), Duration::from_secs(seconds), "{attempt}");
        }
        let mut rows = with_task(TaskKind::Execute);
        let at = rows.at.0;
        desk(What::Fail { held: held(1), retry: None }, &mut rows);
        assert_eq!(rows.tasks[0].ready_at, Wall(at + 1_000_000));
        desk(What::Fail { held: held(1), retry: Some(Duration::ZERO) }, &mut rows);
        assert_eq!(rows.tasks[0].ready_at, Wall(at));
        assert_eq!(later(Wall(i64::MAX), RETRY_MAX), Wall(i64::MAX));
    }

    #[test]
    fn a_lease_is_renewed_unless_a_socket_has_it() {
        let mut rows = with_task(TaskKind::Execute);
        let at = rows.at.0;
        let renew = || What::Renew { held: held(1), lease: Duration::from_secs(5) };
        let answer = carried_out(&write(Via::Http, None, &["*"], renew()), &mut rows).reply;
        assert_eq!(said(&answer), r#"200 {"task":"1"}"#);
        assert_eq!(rows.tasks[0].ready_at, Wall(at + 5_000_000));
        rows.tasks[0].holder = 9;
        rows.tasks[0].ready_at = Wall(i64::MAX / 2);
        desk(renew(), &mut rows);
        assert_eq!((rows.tasks[0].holder, rows.tasks[0].ready_at), (9, Wall(i64::MAX / 2)));
    }

    #[test]
    fn a_stale_fence_over_http_is_a_409() {
        let mut rows = with_task(TaskKind::Execute);
        let answer = carried_out(&write(Via::Http, None, &["*"], What::Done(held(7))), &mut rows).reply;
        assert_eq!(
            said(&answer),
            r#"409 problem+json {"type":"about:blank","title":"Conflict","status":409,"detail":"the task is no longer held with this fence","code":"stale_fence","task":"1"}"#
        );
    }

    #[test]
    fn g3_what_is_not_known_is_never_told_as_a_refusal() {
        let done = |via| write(via, None, &["*"], What::Done(held(1)));
        let publish = |via| write(via, Some("p"), &["*"], publish("{}", None, None));
        assert_eq!(said(&dialect::failed(&done(Via::Socket), Failure::Unknown)), r#"{"op":"unknown","task":"1"}"#);
        assert_eq!(said(&dialect::failed(&publish(Via::Socket), Failure::Unknown)), r#"{"op":"unknown","id":"p"}"#);
        // With an id it may be the resend of one that was stored.
        assert_eq!(said(&dialect::failed(&publish(Via::Socket), Failure::Busy)), r#"{"op":"unknown","id":"p"}"#);
        for (failure, expected) in [
            (
                Failure::Busy,
                r#"{"op":"refused","task":"1","code":"overloaded","detail":"the store is behind; nothing was saved","retry_after_ms":1000}"#,
            ),
            (
                Failure::Full,
                r#"{"op":"refused","task":"1","code":"store_full","detail":"no space left; nothing was saved"}"#,
            ),
            (
                Failure::Broken,
                r#"{"op":"refused","task":"1","code":"store_broken","detail":"the store has stopped; nothing was saved"}"#,
            ),
        ] {
            assert_eq!(said(&dialect::failed(&done(Via::Socket), failure)), expected);
        }
        for (failure, status, code) in [
            (Failure::Busy, "503", "store_busy"),
            (Failure::Full, "507", "store_full"),
            (Failure::Broken, "503", "store_broken"),
            (Failure::Unknown, "504", "unknown"),
        ] {
            let answer = said(&dialect::failed(&done(Via::Http), failure));
            assert!(answer.starts_with(&format!("{status} problem+json ")), "{answer}");
            assert!(answer.contains(&format!(r#""code":"{code}""#)), "{answer}");
            assert_eq!(answer.contains("Retry-After: 1"), status == "503", "{answer}");
        }
    }

    #[test]
    fn what_a_write_brings_is_about_its_data() {
        let weight = |what| write(Via::Socket, None, &["*"], what).weight();
        assert_eq!(weight(What::Done(held(1))), 128);
        assert_eq!(weight(publish("{\"a\":1}", None, None)), 128 + 7);
    }

    // ---- sessions and approvals -----------------------------------------------------------------------------------------

    const S: &str = "0af0bd5c-0000-4000-8000-00000000000a";
    const A: &str = "0af0bd5c-0000-4000-8000-0000000000aa";

    fn session(owner: &str) -> What {
        What::Session(Box::new(sessions::New { id: Some(S.into()), owner: Some(owner.into()), ..Default::default() }))
    }

    fn approval(tool: &str) -> What {
        let text = format!(r#"{{"session":"{S}","id":"{A}","tool_name":"{tool}","tool_args":{{"n":1}}}}"#);
        What::Approval(Box::new(super::super::message::Message::parse(&text).unwrap().wanted().unwrap()))
    }

    fn decision(verdict: Verdict, seen: Option<&str>, by: Option<&str>) -> What {
        let (approval, seen, by) = (A.to_owned(), seen.map(str::to_owned), by.map(str::to_owned));
        What::Decide(Box::new(Decide { approval, verdict, seen, by }))
    }

    fn over_http(what: What, rows: &mut Fake) -> String {
        said(&carried_out(&write(Via::Http, None, &["*"], what), rows).reply)
    }

    #[test]
    fn a_session_is_made_once() {
        let mut rows = Fake::default();
        let body =
            format!(r#"{{"session":"{S}","user_id":"ann","created_at":"1970-01-01T00:00:00Z","state":"active"}}"#);
        assert_eq!(over_http(session("ann"), &mut rows), format!("201 {body}"));
        assert_eq!(over_http(session("ann"), &mut rows), format!("200 {body}"));
        assert!(over_http(session("bob"), &mut rows).starts_with("404 problem+json "), "it is another's");
        let answer = carried_out(&write(Via::Socket, None, &["*"], session("ann")), &mut rows).reply;
        assert!(said(&answer).starts_with(&format!(r#"{{"op":"ok","session":"{S}","#)));
    }

    #[test]
    fn an_approval_is_asked_for_once_and_no_owner_is_held_against_a_backend() {
        let mut rows = Fake::default();
        assert!(over_http(approval("pay"), &mut rows).contains(r#""code":"no_such_session""#));
        over_http(session("ann"), &mut rows);
        let first = over_http(approval("pay"), &mut rows);
        let start = format!(r#"201 {{"session":"{S}","request_id":"{A}","seq":2,"digest":""#);
        assert!(first.starts_with(&start) && first.ends_with(r#"","state":"pending"}"#), "{first}");
        assert_eq!(over_http(approval("pay"), &mut rows), first.replacen("201", "200", 1));
        assert!(over_http(approval("steal"), &mut rows).starts_with("422 problem+json "), "the id is of another");
        assert_eq!(rows.log[&format!("session:{S}")].len(), 2, "created, and asked for once");
    }

    #[test]
    fn g7_a_backend_decides_once_and_in_its_own_name() {
        let mut rows = Fake { at: Wall(0), ..Fake::default() };
        assert!(over_http(decision(Verdict::Approve, None, None), &mut rows).contains(r#""code":"no_such_approval""#));
        over_http(session("ann"), &mut rows);
        over_http(approval("pay"), &mut rows);
        let stale = over_http(decision(Verdict::Approve, Some("something else"), None), &mut rows);
        assert!(stale.starts_with("409 problem+json ") && stale.contains(r#""code":"stale","session""#), "{stale}");
        let made = over_http(decision(Verdict::Approve, None, Some("ann")), &mut rows);
        let decided = r#""decision":{"decision":"approved","by":"worker/ann","at":"1970-01-01T00:00:00Z","seq":3}"#;
        assert!(made.starts_with("200 ") && made.ends_with(&format!(r#""state":"approved",{decided}}}"#)), "{made}");
        let late = over_http(decision(Verdict::Cancel, None, None), &mut rows);
        assert_eq!(
            late,
            format!(
                r#"409 problem+json {{"type":"about:blank","title":"Conflict","status":409,"detail":"this approval was decided before","code":"already_decided",{decided}}}"#
            )
        );
        // Asked again after a crash, the backend hears what became of it.
        assert!(over_http(approval("pay"), &mut rows).contains(decided));
        assert_eq!(rows.given().len(), 1, "one decision, one task");
    }
}
