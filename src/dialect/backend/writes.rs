//! Changes, carried out in the writer's open transaction.
//!
//! The fence is held here: whoever lost a task to another holder can neither finish it nor publish on its behalf, because
//! the comparison stands in the transaction of the write itself.

use std::sync::Arc;
use std::time::Duration;

use super::Held;
use super::answers::{Asked, Way};
use super::fault::Fault;
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
            What::Session(_) | What::Approval(_) | What::Decide(_) => 8 * REST,
            What::Done(_) | What::Fail { .. } | What::Renew { .. } | What::Refused(_) => REST,
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
                Some(fault) => Ok(Applied::only(change.asked.ill(&fault, task_of(held.as_ref())))),
                None => carry_out_publish(publish, &change.asked, write, &asker, rows, env),
            };
        }
        What::Done(held) => done(held, change, rows)?,
        What::Fail { held, retry } => fail(held, *retry, change, rows)?,
        What::Renew { held, lease } => renew(held, *lease, change, rows)?,
        What::Session(new) => make_session(new, &change.asked, &asker, rows)?,
        What::Approval(wanted) => want(wanted, &change.asked, &asker, rows)?,
        What::Decide(decision) => decide(decision, &change.asked, asker, rows)?,
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
        What::Session(_) | What::Approval(_) | What::Decide(_) | What::Refused(_) => None,
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
