//! Requests for a human's decision: made once, decided once. What sockets, REST, native clients, backends and the clock do
//! to them is the same few functions.
//!
//! ```text
//! request ─▶ pending ─┬─ approve ─▶ approved    event `approved`
//!                     ├─ edit ────▶ edited      event `edit_approved`
//!                     ├─ reject ──▶ rejected    event `rejected`
//!                     ├─ cancel ──▶ cancelled   event `rejected`, decision `cancelled`
//!                     └─ time ────▶ expired     event `rejected`, decision `expired`
//! ```
//!
//! One row, compared and set by the one writer: the first decision stands, whoever comes later is told it (G7). Cancelled
//! and expired are told as `rejected` because the set of types is closed: a page of the original's stops at one that it
//! does not know. Each decision is a task for whoever waits for it, written in the same transaction.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha1::{Digest, Sha1};

use super::super::publish::Refusal;
use super::super::{Asker, time};
use super::{append, runs, sessions, wire};
use crate::clock::Wall;
use crate::ids::{OpId, Seq};
use crate::model::{Record, Rows, RowsError, Shelf, TaskKind, Transaction};
use crate::mutant::{Canary, Mutant};

const PENDING: &str = "pending";
/// Of one session at a time: what a join shows and what the end of a run has to cancel is bounded by it.
pub const PENDING_MAX: usize = 256;
/// Decided by the clock in one go; what is left is due at once.
const DUE_MAX: usize = 256;
/// For what was decided and is yet to be announced: due whatever the time, also if the clock is set back.
const AT_ONCE: Wall = Wall(0);

/// What a backend wants decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The session's canonical id.
    pub session: String,
    /// The backend's own UUID for it, so that asking again after a crash is not asking twice; made when absent.
    pub id: Option<String>,
    pub execution_id: Option<String>,
    pub tool_name: String,
    /// An object.
    pub tool_args: Value,
    pub reason: Option<String>,
    pub amount: Option<String>,
    pub currency: Option<String>,
    pub estimated_cost: Option<Value>,
    /// From now; without one it waits for ever.
    pub expires_in: Option<Duration>,
}

/// An approval as everybody sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Approval {
    pub id: String,
    pub session: String,
    pub execution_id: Option<String>,
    pub tool_name: String,
    pub tool_args: Value,
    pub reason: Option<String>,
    pub amount: Option<String>,
    pub currency: Option<String>,
    /// Of exactly what is to be approved; `decide` may demand that the decider has seen it.
    pub digest: String,
    pub created_at: Wall,
    pub expires_at: Option<Wall>,
    /// The event that asked.
    pub seq: Seq,
    pub decided: Option<Decision>,
}

/// What was decided, by whom, when; `seq` is of its event.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// `approved`, `rejected`, `edited`, `expired`, `cancelled`.
    pub decision: String,
    pub by: String,
    pub at: Wall,
    /// 0 for one that is yet to be announced: whoever decides after the deadline is told so at once, the room in a moment.
    pub seq: Seq,
    pub edited_args: Option<Value>,
    pub reason: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Approve,
    Reject {
        reason: Option<String>,
    },
    /// An object.
    Edit {
        args: Value,
    },
    Cancel,
    Expire,
}

/// Why nothing was decided.
#[derive(Clone, Debug, PartialEq)]
pub enum Undecided {
    /// There is none, or it is of a session that is another's.
    NoSuch,
    Already(Decision),
    /// The decider has seen something else than what is to be decided.
    Stale(Box<Approval>),
}

impl Verdict {
    /// The one value that is stored, whoever decided by whichever way (Y8).
    fn decision(&self) -> &'static str {
        match self {
            Verdict::Approve => "approved",
            Verdict::Reject { .. } => "rejected",
            Verdict::Edit { .. } => "edited",
            Verdict::Cancel => "cancelled",
            Verdict::Expire => "expired",
        }
    }

    fn on(&self, at: Wall, by: &str) -> Decision {
        let (edited_args, reason) = match self {
            Verdict::Edit { args } => (Some(args.clone()), None),
            Verdict::Reject { reason } => (None, reason.clone()),
            Verdict::Approve | Verdict::Cancel | Verdict::Expire => (None, None),
        };
        Decision { decision: self.decision().to_owned(), by: by.to_owned(), at, seq: Seq(0), edited_args, reason }
    }
}

// ---- asking -----------------------------------------------------------------------------------------------------------

/// Makes the request and its event, or gives the one that this id already has (then nothing is written).
pub fn request(
    wanted: &Wanted,
    asker: &Asker,
    rows: &mut dyn Transaction,
) -> Result<Result<Approval, Refusal>, RowsError> {
    request_as(wanted, asker, None, rows)
}

/// As [`request`], with the publisher's own name for it.
pub fn request_as(
    wanted: &Wanted,
    asker: &Asker,
    op: Option<&OpId>,
    rows: &mut dyn Transaction,
) -> Result<Result<Approval, Refusal>, RowsError> {
    let Some(session) = sessions::find(&wanted.session, asker, rows)? else {
        return Ok(Err(Refusal::NoSuchRoom));
    };
    let id = match wanted.id.as_deref().map(sessions::canonical) {
        None => sessions::uuid_at(rows.at(), rows.random()),
        Some(Some(id)) => id,
        Some(None) => return Ok(Err(Refusal::bad("bad_id", "an approval's id is a UUID"))),
    };
    let digest = digest(wanted);
    if let Some(known) = rows.record(Shelf::Approval, &id)? {
        let known = Stored::of(known).approval();
        // The same id for something else would have a human approve one thing and the backend do another.
        return Ok(match known.digest == digest {
            true => Ok(known),
            false => Err(Refusal::bad("id_taken", "this id is of another request")),
        });
    }
    if !wanted.tool_args.is_object() {
        return Ok(Err(Refusal::bad("bad_data", "tool_args must be an object")));
    }
    let execution_id = match run_of(wanted, rows)? {
        Ok(run) => run,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if rows.count_records(Shelf::Approval, Some(&session.id), Some(PENDING))? >= PENDING_MAX {
        return Ok(Err(Refusal::bad("too_many_pending", "this session has as many undecided requests as it may have")));
    }
    let at = rows.at();
    let record = Record {
        shelf: Shelf::Approval,
        id,
        parent: session.id,
        state: PENDING.to_owned(),
        due: wanted.expires_in.map(|span| after(at, span)),
        created_at: at,
        updated_at: at,
        body: Bytes::new(),
    };
    let facts = Facts {
        execution_id,
        tool_name: wanted.tool_name.clone(),
        tool_args: wanted.tool_args.clone(),
        reason: wanted.reason.clone(),
        amount: wanted.amount.clone(),
        currency: wanted.currency.clone(),
        estimated_cost: wanted.estimated_cost.clone(),
        digest,
        expires_at: record.due.map(|due| due.0),
        seq: 0,
        decided: None,
    };
    let mut stored = Stored { record, facts };
    let asked = stored.asked();
    stored.facts.seq = append(&stored.record.parent, "approval_required", asked, asker, op, rows)?.0;
    stored.put(rows)?;
    Ok(Ok(stored.approval()))
}

/// The run it belongs to: the one it names, which must still go on, or the session's newest, or none.
fn run_of(wanted: &Wanted, rows: &mut dyn Transaction) -> Result<Result<Option<String>, Refusal>, RowsError> {
    let Some(id) = &wanted.execution_id else {
        let newest = runs::newest(&wanted.session, 1, rows)?;
        return Ok(Ok(newest.into_iter().next().map(|run| run.id)));
    };
    Ok(match runs::find(id, &wanted.session, rows)? {
        runs::Found::Running(run) => Ok(Some(run.record.id)),
        runs::Found::Over(state) => Err(super::guard::over(&state)),
        runs::Found::None => Err(super::guard::no_run()),
    })
}

/// What a decision is about, in one number. Whoever sends it back has seen this tool, these arguments and this amount.
///
/// SHA-1, which the server has for the handshake: only the server makes digests, of rows that never change, so what would
/// have to be found is a second text to a given digest, not a pair of one's own choice.
fn digest(wanted: &Wanted) -> String {
    // A `Value` sorts its members, so that one object has one text.
    let parts = (&wanted.session, &wanted.tool_name, &wanted.tool_args, &wanted.amount, &wanted.currency);
    Sha1::digest(wire::json(&parts)).iter().fold(String::with_capacity(40), |mut hex, byte| {
        // A String takes what it is given.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn after(at: Wall, span: Duration) -> Wall {
    Wall(at.0.saturating_add(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
}

// ---- deciding ---------------------------------------------------------------------------------------------------------

pub fn find(id: &str, rows: &mut dyn Rows) -> Result<Option<Approval>, RowsError> {
    Ok(stored(id, rows)?.map(|stored| stored.approval()))
}

/// As [`find`], when its session is there and the asker may use it.
pub fn find_for(id: &str, asker: &Asker, rows: &mut dyn Rows) -> Result<Option<Approval>, RowsError> {
    let Some(approval) = find(id, rows)? else { return Ok(None) };
    Ok(sessions::find(&approval.session, asker, rows)?.map(|_| approval))
}

/// Compare and set: of any number of deciders one wins. Appends the decision's event to the session and writes the
/// backend's task. `session`: only when the approval is of this session. `seen`: only when its digest is this.
pub fn decide(
    id: &str,
    session: Option<&str>,
    verdict: &Verdict,
    seen: Option<&str>,
    asker: &Asker,
    op: Option<&OpId>,
    rows: &mut dyn Transaction,
) -> Result<Result<(Approval, Decision), Undecided>, RowsError> {
    let Some(mut stored) = stored(id, rows)? else { return Ok(Err(Undecided::NoSuch)) };
    let is_there = session.is_none_or(|session| session == stored.record.parent);
    if !is_there || sessions::find(&stored.record.parent, asker, rows)?.is_none() {
        return Ok(Err(Undecided::NoSuch));
    }
    if let Some(first) = &stored.facts.decided {
        return Ok(Err(Undecided::Already(first.decision())));
    }
    let at = rows.at();
    if stored.record.due.is_some_and(|due| due <= at) && *verdict != Verdict::Expire {
        // Too late, although the clock's own decision is still to come. It is taken here and now, so that nobody who
        // comes later, or after the clock was set back, is told otherwise. But it is announced by the clock's job: with
        // an event of its own this refusal would look like an operation that was carried out.
        let expired = Verdict::Expire.on(at, &server().actor);
        stored.facts.decided = Some(Settled::of(&expired));
        stored.record = Record { state: expired.decision.clone(), due: Some(AT_ONCE), updated_at: at, ..stored.record };
        stored.put(rows)?;
        return Ok(Err(Undecided::Already(expired)));
    }
    if seen.is_some_and(|seen| seen != stored.facts.digest) {
        return Ok(Err(Undecided::Stale(Box::new(stored.approval()))));
    }
    let decision = announce(&mut stored, verdict.on(at, &asker.actor), asker, op, rows)?;
    Ok(Ok((stored.approval(), decision)))
}

/// As one mutant decides: whatever was decided before.
pub fn decide_again(
    id: &str,
    verdict: &Verdict,
    asker: &Asker,
    op: Option<&OpId>,
    rows: &mut dyn Transaction,
) -> Result<Result<(Approval, Decision), Undecided>, RowsError> {
    let Some(mut stored) = stored(id, rows)? else { return Ok(Err(Undecided::NoSuch)) };
    let decision = announce(&mut stored, verdict.on(rows.at(), &asker.actor), asker, op, rows)?;
    Ok(Ok((stored.approval(), decision)))
}

/// Cancels what is undecided in a session, or in one run of it.
pub fn cancel_all(
    session: &str,
    run: Option<&str>,
    asker: &Asker,
    rows: &mut dyn Transaction,
) -> Result<(), RowsError> {
    for mut stored in pending(session, rows)? {
        if run.is_some() && stored.facts.execution_id.as_deref() != run {
            continue;
        }
        let cancelled = Verdict::Cancel.on(rows.at(), &asker.actor);
        announce(&mut stored, cancelled, asker, None, rows)?;
    }
    Ok(())
}

/// Decides what waited until its time was up, and announces what was found to be too late before.
pub fn due(rows: &mut dyn Transaction, canary: Canary) -> Result<(), RowsError> {
    let at = rows.at();
    for record in rows.due(at, DUE_MAX)?.into_iter().filter(|record| record.shelf == Shelf::Approval) {
        let mut stored = Stored::of(record);
        let decision = match &stored.facts.decided {
            Some(late) => late.decision(),
            None => Verdict::Expire.on(at, &server().actor),
        };
        announce(&mut stored, decision, &server(), None, rows)?;
        if canary.is(Mutant::ExpiresTwice) {
            stored.record.due = Some(after(at, Duration::from_secs(60)));
            stored.put(rows)?;
        }
    }
    Ok(())
}

/// Stores the decision, tells the room, and gives the task to whoever waits for it.
fn announce(
    stored: &mut Stored,
    decision: Decision,
    asker: &Asker,
    op: Option<&OpId>,
    rows: &mut dyn Transaction,
) -> Result<Decision, RowsError> {
    #[derive(Serialize)]
    struct Event<'a> {
        request_id: &'a str,
        decision: &'a str,
        edited_args: Option<&'a Value>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
    }
    #[derive(Serialize)]
    struct Task<'a> {
        request_id: &'a str,
        execution_id: Option<&'a str>,
        session_id: &'a str,
        decision: &'a str,
        tool_name: &'a str,
        tool_args: &'a Value,
        edited_args: Option<&'a Value>,
        reason: Option<&'a str>,
        by: &'a str,
        seq: u64,
    }
    let Stored { record, facts } = stored;
    let event = Event {
        request_id: &record.id,
        decision: &decision.decision,
        edited_args: decision.edited_args.as_ref(),
        reason: decision.reason.as_deref(),
    };
    let kind = match &*decision.decision {
        "approved" => "approved",
        "edited" => "edit_approved",
        _ => "rejected",
    };
    let seq = append(&record.parent, kind, wire::json(&event), asker, op, rows)?;
    let task = Task {
        request_id: &record.id,
        execution_id: facts.execution_id.as_deref(),
        session_id: &record.parent,
        decision: &decision.decision,
        tool_name: &facts.tool_name,
        tool_args: &facts.tool_args,
        edited_args: decision.edited_args.as_ref(),
        reason: decision.reason.as_deref(),
        by: &decision.by,
        seq: seq.0,
    };
    rows.put_task(TaskKind::Decision, &sessions::room_of(&record.parent), Bytes::from(wire::json(&task)))?;
    let decision = Decision { seq, ..decision };
    record.state = decision.decision.clone();
    record.due = None;
    record.updated_at = rows.at();
    facts.decided = Some(Settled::of(&decision));
    stored.put(rows)?;
    Ok(decision)
}

/// As whom the clock decides.
fn server() -> Asker {
    Asker { actor: Arc::from("server"), origin: 0, verified: false }
}

// ---- as it is stored, and as it is shown ------------------------------------------------------------------------------

/// The undecided ones of a session, the oldest first.
pub fn pending(session: &str, rows: &mut dyn Rows) -> Result<Vec<Stored>, RowsError> {
    let records = rows.records(Shelf::Approval, Some(session), Some(PENDING), 0, PENDING_MAX)?;
    Ok(records.into_iter().map(Stored::of).collect())
}

/// The undecided ones of all sessions that the asker may use, or of one of them: at most `shown`, the oldest first, and
/// how many there are.
pub fn pending_for(
    session: Option<&str>,
    shown: usize,
    asker: &Asker,
    rows: &mut dyn Rows,
) -> Result<(Vec<Approval>, usize), RowsError> {
    let (mut some, mut total, mut skip) = (Vec::new(), 0, 0);
    loop {
        let records = rows.records(Shelf::Approval, session, Some(PENDING), skip, PENDING_MAX)?;
        skip += records.len();
        let is_last = records.len() < PENDING_MAX;
        for record in records {
            if sessions::find(&record.parent, asker, rows)?.is_none() {
                continue;
            }
            total += 1;
            if some.len() < shown {
                some.push(Stored::of(record).approval());
            }
        }
        if is_last {
            return Ok((some, total));
        }
    }
}

fn stored(id: &str, rows: &mut dyn Rows) -> Result<Option<Stored>, RowsError> {
    let Some(id) = sessions::canonical(id) else { return Ok(None) };
    Ok(rows.record(Shelf::Approval, &id)?.map(Stored::of))
}

/// An approval with everything that its record holds.
#[derive(Debug)]
pub struct Stored {
    record: Record,
    facts: Facts,
}

#[derive(Debug, Default, Deserialize, Serialize)]
struct Facts {
    execution_id: Option<String>,
    tool_name: String,
    tool_args: Value,
    reason: Option<String>,
    amount: Option<String>,
    currency: Option<String>,
    estimated_cost: Option<Value>,
    digest: String,
    /// Microseconds; the record's `due` ends with the decision, this stays.
    expires_at: Option<i64>,
    seq: u64,
    decided: Option<Settled>,
}

/// A [`Decision`] as it is stored.
#[derive(Debug, Deserialize, Serialize)]
struct Settled {
    decision: String,
    by: String,
    at: i64,
    seq: u64,
    edited_args: Option<Value>,
    reason: Option<String>,
}

impl Settled {
    fn of(decision: &Decision) -> Settled {
        let Decision { decision, by, at, seq, edited_args, reason } = decision.clone();
        Settled { decision, by, at: at.0, seq: seq.0, edited_args, reason }
    }

    fn decision(&self) -> Decision {
        Decision {
            decision: self.decision.clone(),
            by: self.by.clone(),
            at: Wall(self.at),
            seq: Seq(self.seq),
            edited_args: self.edited_args.clone(),
            reason: self.reason.clone(),
        }
    }
}

impl Stored {
    fn of(record: Record) -> Stored {
        // Ours, so it is what we wrote.
        let facts = serde_json::from_slice(&record.body).unwrap_or_default();
        Stored { record, facts }
    }

    fn put(&self, rows: &mut dyn Transaction) -> Result<(), RowsError> {
        rows.put_record(&Record { body: wire::json(&self.facts).into(), ..self.record.clone() })
    }

    fn approval(&self) -> Approval {
        let Stored { record, facts } = self;
        Approval {
            id: record.id.clone(),
            session: record.parent.clone(),
            execution_id: facts.execution_id.clone(),
            tool_name: facts.tool_name.clone(),
            tool_args: facts.tool_args.clone(),
            reason: facts.reason.clone(),
            amount: facts.amount.clone(),
            currency: facts.currency.clone(),
            digest: facts.digest.clone(),
            created_at: record.created_at,
            expires_at: facts.expires_at.map(Wall),
            seq: Seq(facts.seq),
            decided: facts.decided.as_ref().map(Settled::decision),
        }
    }

    /// The data of `approval_required`: the contract's members in its order, then ours.
    fn asked(&self) -> String {
        #[derive(Serialize)]
        struct Asked<'a> {
            session_id: &'a str,
            execution_id: Option<&'a str>,
            request_id: &'a str,
            tool_name: &'a str,
            tool_args: &'a Value,
            reason: Option<&'a str>,
            amount: Option<&'a str>,
            currency: Option<&'a str>,
            estimated_cost: Option<&'a Value>,
            digest: &'a str,
            expires_at: Option<String>,
        }
        let Stored { record, facts } = self;
        wire::json(&Asked {
            session_id: &record.parent,
            execution_id: facts.execution_id.as_deref(),
            request_id: &record.id,
            tool_name: &facts.tool_name,
            tool_args: &facts.tool_args,
            reason: facts.reason.as_deref(),
            amount: facts.amount.as_deref(),
            currency: facts.currency.as_deref(),
            estimated_cost: facts.estimated_cost.as_ref(),
            digest: &facts.digest,
            expires_at: facts.expires_at.map(|at| time::zulu(Wall(at))),
        })
    }

    /// For whoever joins the session's room.
    pub fn view(&self) -> View<'_> {
        let Stored { record, facts } = self;
        View {
            request_id: &record.id,
            session_id: &record.parent,
            execution_id: facts.execution_id.as_deref(),
            tool_name: &facts.tool_name,
            tool_args: &facts.tool_args,
            reason: facts.reason.as_deref(),
            amount: facts.amount.as_deref(),
            currency: facts.currency.as_deref(),
            digest: &facts.digest,
            created_at: time::zulu(record.created_at),
            expires_at: facts.expires_at.map(|at| time::zulu(Wall(at))),
            seq: facts.seq,
            decision: PENDING,
            decided_by: None,
            decided_at: None,
        }
    }
}

/// What a native client may see of an approval.
#[derive(Debug, Serialize)]
pub struct View<'a> {
    request_id: &'a str,
    session_id: &'a str,
    execution_id: Option<&'a str>,
    tool_name: &'a str,
    tool_args: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<&'a str>,
    digest: &'a str,
    created_at: String,
    expires_at: Option<String>,
    seq: u64,
    decision: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_at: Option<String>,
}

/// Everything about it that a client may see, as a JSON object.
pub fn describe(approval: &Approval) -> Bytes {
    let decided = approval.decided.as_ref();
    Bytes::from(wire::json(&View {
        request_id: &approval.id,
        session_id: &approval.session,
        execution_id: approval.execution_id.as_deref(),
        tool_name: &approval.tool_name,
        tool_args: &approval.tool_args,
        reason: approval.reason.as_deref(),
        amount: approval.amount.as_deref(),
        currency: approval.currency.as_deref(),
        digest: &approval.digest,
        created_at: time::zulu(approval.created_at),
        expires_at: approval.expires_at.map(time::zulu),
        seq: approval.seq.0,
        decision: decided.map_or(PENDING, |decision| &decision.decision),
        decided_by: decided.map(|decision| &*decision.by),
        decided_at: decided.map(|decision| time::zulu(decision.at)),
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::super::testing::{AT, FIRST, ROOM, S, SECOND, asker, rows, running, user};
    use super::*;
    use crate::dialect::fake::Fake;
    use proptest::prelude::*;
    use serde_json::json;

    const ID: &str = "0af0bd5c-0000-4000-8000-0000000000aa";

    fn wanted() -> Wanted {
        Wanted {
            session: S.into(),
            id: Some(ID.into()),
            execution_id: None,
            tool_name: "pay".into(),
            tool_args: json!({"to": "x", "amount": 5}),
            reason: Some("above the limit".into()),
            amount: Some("5.00".into()),
            currency: Some("USD".into()),
            estimated_cost: Some(json!({"total": 1})),
            expires_in: Some(Duration::from_secs(60)),
        }
    }

    /// A running run whose request [`ID`] waits.
    fn waiting() -> Fake {
        let mut rows = running();
        request(&wanted(), &asker("worker"), &mut rows).unwrap().unwrap();
        rows
    }

    fn by(actor: &str, verdict: Verdict, rows: &mut Fake) -> Result<Decision, Undecided> {
        decide(ID, None, &verdict, None, &asker(actor), None, rows).unwrap().map(|(_, decision)| decision)
    }

    #[test]
    fn a_request_is_an_event_with_a_digest() {
        let mut rows = running();
        let made = request(&wanted(), &asker("worker"), &mut rows).unwrap().unwrap();
        assert_eq!((made.seq, made.execution_id.as_deref(), made.decided.clone()), (Seq(1), Some(FIRST), None));
        let text = format!(r#"["{S}","pay",{{"amount":5,"to":"x"}},"5.00","USD"]"#);
        let digest: String = Sha1::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(made.digest, digest);
        let expected = format!(
            r#"approval_required {{"session_id":"{S}","execution_id":"{FIRST}","request_id":"{ID}","tool_name":"pay","tool_args":{{"amount":5,"to":"x"}},"reason":"above the limit","amount":"5.00","currency":"USD","estimated_cost":{{"total":1}},"digest":"{digest}","expires_at":"2025-12-25T00:06:37.123456Z"}}"#
        );
        assert_eq!(rows.told(ROOM), [expected]);
        assert_eq!(find(ID, &mut rows).unwrap().as_ref(), Some(&made));
        assert_eq!(find(&ID.to_uppercase(), &mut rows).unwrap(), Some(made));
        assert!(rows.tasks.is_empty());
    }

    #[test]
    fn what_the_digest_covers_changes_it() {
        let digest_of = |change: fn(&mut Wanted)| {
            let mut wanted = wanted();
            change(&mut wanted);
            digest(&wanted)
        };
        let plain = digest(&wanted());
        assert_eq!(digest_of(|wanted| wanted.reason = None), plain);
        let others = [
            digest_of(|wanted| wanted.session = "other".into()),
            digest_of(|wanted| wanted.tool_name = "payx".into()),
            digest_of(|wanted| wanted.tool_args = json!({"to": "y", "amount": 5})),
            digest_of(|wanted| wanted.amount = Some("5.0".into())),
            digest_of(|wanted| wanted.amount = None),
            digest_of(|wanted| wanted.currency = Some("EUR".into())),
        ];
        let all: std::collections::BTreeSet<&String> = others.iter().chain([&plain]).collect();
        assert_eq!(all.len(), 7);
    }

    #[test]
    fn asking_again_is_not_asking_twice() {
        let mut rows = waiting();
        let again = request(&wanted(), &asker("worker"), &mut rows).unwrap().unwrap();
        assert_eq!((again.seq, rows.told(ROOM).len()), (Seq(1), 1));
        by("ann", Verdict::Approve, &mut rows).unwrap();
        let decided = request(&wanted(), &asker("worker"), &mut rows).unwrap().unwrap().decided.unwrap();
        assert_eq!((decided.decision.as_str(), decided.by.as_str()), ("approved", "ann"));
        let other = Wanted { amount: Some("500.00".into()), ..wanted() };
        let outcome = request(&other, &asker("worker"), &mut rows).unwrap();
        assert_eq!(outcome, Err(Refusal::bad("id_taken", "this id is of another request")));
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        let code = |wanted: Wanted, who: Asker, rows: &mut Fake| match request(&wanted, &who, rows).unwrap() {
            Ok(_) => "ok",
            Err(Refusal::NoSuchRoom) => "no_such_room",
            Err(Refusal::Bad { code, .. }) => code,
            Err(_) => "conflict",
        };
        let mut rows = running();
        let id = |id: &str| Some(id.to_owned());
        for (wanted, expected) in [
            (Wanted { session: "none".into(), ..wanted() }, "no_such_room"),
            (Wanted { id: id("x"), ..wanted() }, "bad_id"),
            (Wanted { tool_args: json!([]), ..wanted() }, "bad_data"),
            (Wanted { execution_id: id("x"), ..wanted() }, "no_execution"),
            (Wanted { execution_id: id(SECOND), ..wanted() }, "no_execution"),
        ] {
            assert_eq!(code(wanted, asker("worker"), &mut rows), expected);
        }
        super::super::testing::publish("complete", "{}", &mut rows).unwrap();
        let named = Wanted { execution_id: id(FIRST), ..wanted() };
        assert_eq!(code(named, asker("worker"), &mut rows), "execution_over");
        assert_eq!(rows.told(ROOM).len(), 1);
        for _ in 0..PENDING_MAX {
            assert_eq!(code(Wanted { id: None, ..wanted() }, asker("worker"), &mut rows), "ok", "without a run");
        }
        assert_eq!(code(Wanted { id: None, ..wanted() }, asker("worker"), &mut rows), "too_many_pending");
    }

    #[test]
    fn y7_y8_each_decision_is_an_event_a_task_and_one_value() {
        let reason = Some("too much".to_owned());
        for (verdict, kind, decision, edited, why) in [
            (Verdict::Approve, "approved", "approved", "null", "null"),
            (Verdict::Reject { reason: None }, "rejected", "rejected", "null", "null"),
            (Verdict::Reject { reason }, "rejected", "rejected", "null", r#""too much""#),
            (Verdict::Edit { args: json!({"to": "y"}) }, "edit_approved", "edited", r#"{"to":"y"}"#, "null"),
            (Verdict::Cancel, "rejected", "cancelled", "null", "null"),
            (Verdict::Expire, "rejected", "expired", "null", "null"),
        ] {
            let mut rows = waiting();
            let decided = by("ann", verdict, &mut rows).unwrap();
            assert_eq!((decided.decision.as_str(), decided.by.as_str(), decided.seq), (decision, "ann", Seq(2)));
            let shown = if why == "null" { String::new() } else { format!(r#","reason":{why}"#) };
            let event =
                format!(r#"{kind} {{"request_id":"{ID}","decision":"{decision}","edited_args":{edited}{shown}}}"#);
            assert_eq!(rows.told(ROOM)[1], event);
            let task = format!(
                r#"decision {{"request_id":"{ID}","execution_id":"{FIRST}","session_id":"{S}","decision":"{decision}","tool_name":"pay","tool_args":{{"amount":5,"to":"x"}},"edited_args":{edited},"reason":{why},"by":"ann","seq":2}}"#
            );
            assert_eq!(rows.given(), [task]);
            let record = rows.record(Shelf::Approval, ID).unwrap().unwrap();
            assert_eq!((record.state.as_str(), record.due), (decision, None));
            assert_eq!(find(ID, &mut rows).unwrap().unwrap().decided, Some(decided));
        }
    }

    #[test]
    fn only_who_may_and_what_is_there_and_what_was_seen_is_decided() {
        let mut rows = waiting();
        let digest = find(ID, &mut rows).unwrap().unwrap().digest;
        rows.records.iter_mut().filter(|record| record.shelf == Shelf::Session).for_each(|it| it.parent = "ann".into());
        let mut tried = |id: &str, session: Option<&str>, seen: Option<&str>, who: Asker| match decide(
            id,
            session,
            &Verdict::Approve,
            seen,
            &who,
            None,
            &mut rows,
        )
        .unwrap()
        {
            Ok(_) => "ok",
            Err(Undecided::NoSuch) => "none",
            Err(Undecided::Already(_)) => "already",
            Err(Undecided::Stale(_)) => "stale",
        };
        for (id, session, seen, who, expected) in [
            (SECOND, None, None, asker("ann"), "none"),
            ("x", None, None, asker("ann"), "none"),
            (ID, Some("other"), None, asker("ann"), "none"),
            (ID, Some(S), None, user("bob"), "none"),
            (ID, Some(S), Some("0"), asker("ann"), "stale"),
            (ID, Some(S), Some(""), asker("ann"), "stale"),
            (ID, Some(S), Some(&*digest), user("ann"), "ok"),
            (ID, Some(S), Some("0"), asker("bob"), "already"),
            (ID, Some(S), None, user("bob"), "none"),
        ] {
            assert_eq!(tried(id, session, seen, who.clone()), expected, "{id} {session:?} {seen:?} {who:?}");
        }
        assert_eq!(rows.tasks.len(), 1);
    }

    #[test]
    fn g7_the_clock_decides_once() {
        let mut rows = waiting();
        due(&mut rows, Canary::default()).unwrap();
        assert_eq!(rows.told(ROOM).len(), 1, "not yet");
        rows.at = Wall(AT.0 + 60_000_000);
        due(&mut rows, Canary::default()).unwrap();
        due(&mut rows, Canary::default()).unwrap();
        let expired = format!(r#"rejected {{"request_id":"{ID}","decision":"expired","edited_args":null}}"#);
        assert_eq!(rows.told(ROOM)[1..], [expired]);
        assert_eq!((rows.log[ROOM][1].actor.as_ref(), rows.tasks.len()), ("server", 1));
        let Err(Undecided::Already(first)) = by("ann", Verdict::Approve, &mut rows) else { panic!("decided twice") };
        assert_eq!((first.decision.as_str(), first.by.as_str(), first.seq), ("expired", "server", Seq(2)));
        assert_eq!(rows.next_due().unwrap(), None);
    }

    #[test]
    fn l9_too_late_is_too_late_also_when_the_clock_is_set_back() {
        let mut rows = waiting();
        rows.at = Wall(AT.0 + 60_000_000);
        let Err(Undecided::Already(first)) = by("ann", Verdict::Approve, &mut rows) else {
            panic!("after the deadline")
        };
        assert_eq!((first.decision.as_str(), first.by.as_str()), ("expired", "server"));
        assert_eq!((rows.told(ROOM).len(), rows.tasks.len()), (1, 0), "a refusal is no operation");
        rows.at = AT;
        assert_eq!(by("bob", Verdict::Approve, &mut rows), Err(Undecided::Already(first)));
        due(&mut rows, Canary::default()).unwrap();
        due(&mut rows, Canary::default()).unwrap();
        assert_eq!((rows.told(ROOM).len(), rows.tasks.len()), (2, 1), "announced once");
        let decided = find(ID, &mut rows).unwrap().unwrap().decided.unwrap();
        assert_eq!((decided.decision.as_str(), decided.seq), ("expired", Seq(2)));
    }

    #[test]
    fn others_things_that_are_due_are_let_be() {
        let mut rows = rows();
        let mut record = rows.records[0].clone();
        record.due = Some(Wall(1));
        rows.put_record(&record).unwrap();
        due(&mut rows, Canary::default()).unwrap();
        assert_eq!(rows.records, [record]);
    }

    #[test]
    fn a_listing_holds_what_the_asker_may_decide() {
        let mut rows = waiting();
        request(&Wanted { id: Some(SECOND.into()), ..wanted() }, &asker("worker"), &mut rows).unwrap().unwrap();
        let mut listed = |session, shown, who: Asker| {
            let (some, total) = pending_for(session, shown, &who, &mut rows).unwrap();
            (some.into_iter().map(|approval| approval.id).collect::<Vec<_>>(), total)
        };
        assert_eq!(listed(None, 9, asker("ann")), (vec![ID.into(), SECOND.into()], 2));
        assert_eq!(listed(Some(S), 1, asker("ann")), (vec![ID.into()], 2));
        assert_eq!(listed(Some("other"), 9, asker("ann")), (vec![], 0));
        rows.records.iter_mut().filter(|record| record.shelf == Shelf::Session).for_each(|it| it.parent = "ann".into());
        assert_eq!(pending_for(None, 9, &user("bob"), &mut rows).unwrap().1, 0);
        assert_eq!(pending_for(None, 9, &user("ann"), &mut rows).unwrap().1, 2);
        by("ann", Verdict::Approve, &mut rows).unwrap();
        assert_eq!(pending_for(None, 9, &asker("ann"), &mut rows).unwrap().1, 1);
    }

    #[test]
    fn a_description_says_who_when_and_what() {
        let mut rows = waiting();
        let said =
            |rows: &mut Fake| serde_json::from_slice::<Value>(&describe(&find(ID, rows).unwrap().unwrap())).unwrap();
        let before = said(&mut rows);
        assert_eq!((&before["decision"], &before["decided_by"]), (&json!("pending"), &Value::Null));
        assert_eq!(before["tool_args"], json!({"to": "x", "amount": 5}));
        by("ann", Verdict::Approve, &mut rows).unwrap();
        let after = said(&mut rows);
        assert_eq!((&after["decision"], &after["decided_by"]), (&json!("approved"), &json!("ann")));
        assert_eq!(after["decided_at"], "2025-12-25T00:05:37.123456Z");
    }

    proptest! {
        /// Any number of deciders, the clock among them and jumping both ways: one decision, one event, one task; and
        /// whoever was told of a decision was told of that one.
        #[test]
        fn g7_exactly_one_wins(steps in prop::collection::vec((0..7u8, -90..90i64), 1..30)) {
            let mut rows = waiting();
            let mut told: Vec<String> = Vec::new();
            for (step, seconds) in steps {
                rows.at = Wall(rows.at.0 + seconds * 1_000_000);
                let verdict = match step {
                    0 => Verdict::Approve,
                    1 => Verdict::Reject { reason: None },
                    2 => Verdict::Edit { args: json!({}) },
                    3 => Verdict::Cancel,
                    4 => {
                        due(&mut rows, Canary::default()).unwrap();
                        continue;
                    }
                    5 => {
                        super::super::testing::publish("complete", "{}", &mut rows).ok();
                        continue;
                    }
                    _ => {
                        request(&wanted(), &asker("worker"), &mut rows).unwrap().ok();
                        continue;
                    }
                };
                match by("someone", verdict, &mut rows) {
                    Ok(decision) | Err(Undecided::Already(decision)) => told.push(decision.decision),
                    Err(other) => prop_assert!(false, "{:?}", other),
                }
            }
            rows.at = Wall(AT.0 + 3_600_000_000);
            due(&mut rows, Canary::default()).unwrap();
            let decided = find(ID, &mut rows).unwrap().unwrap().decided.unwrap();
            prop_assert!(told.iter().all(|word| *word == decided.decision), "{:?} {:?}", told, decided);
            let events = rows.log[ROOM].iter().filter(|event| {
                matches!(&*event.kind, "approved" | "rejected" | "edit_approved")
            });
            prop_assert_eq!(events.count(), 1);
            prop_assert_eq!(rows.tasks.iter().filter(|task| task.kind == TaskKind::Decision).count(), 1);
            prop_assert_eq!(rows.next_due().unwrap(), None);
        }
    }
}
