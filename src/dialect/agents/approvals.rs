//! Requests for a human's decision: made once, decided once. What sockets, REST, native clients, backends and the clock do
//! to them is the same few functions. (In progress.)

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::super::Asker;
use super::super::publish::Refusal;
use crate::clock::Wall;
use crate::ids::{OpId, Seq};
use crate::model::{Rows, RowsError, Transaction};

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

/// Makes the request and its event, or gives the one that this id already has (then nothing is written).
pub fn request(
    _wanted: &Wanted,
    _asker: &Asker,
    _rows: &mut dyn Transaction,
) -> Result<Result<Approval, Refusal>, RowsError> {
    Ok(Err(Refusal::NoSuchRoom))
}

pub fn find(_id: &str, _rows: &mut dyn Rows) -> Result<Option<Approval>, RowsError> {
    Ok(None)
}

/// Compare and set: of any number of deciders one wins. Appends the decision's event to the session and writes the
/// backend's task. `session`: only when the approval is of this session. `seen`: only when its digest is this.
pub fn decide(
    _id: &str,
    _session: Option<&str>,
    _verdict: &Verdict,
    _seen: Option<&str>,
    _asker: &Asker,
    _op: Option<&OpId>,
    _rows: &mut dyn Transaction,
) -> Result<Result<(Approval, Decision), Undecided>, RowsError> {
    Ok(Err(Undecided::NoSuch))
}

/// Everything about it that a client may see, as a JSON object.
pub fn describe(_approval: &Approval) -> Bytes {
    Bytes::new()
}
