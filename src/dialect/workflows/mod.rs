//! The `workflows` dialect. (In progress.)

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::publish::{Outcome, Publish, Refusal};
use super::{Applied, Asker, ConnView, Denial, Env, Failure, Intent, Opening, Reply, Route, Write};
use crate::auth::rights::Verb;
use crate::clock::Wall;
use crate::http::{Head, Reason, Reject, Response};
use crate::ids::{OpId, RoomName, Seq};
use crate::model::{Event, Rows, RowsError, Transaction};

#[derive(Clone, Debug, PartialEq)]
pub struct Target;

#[derive(Clone, Debug, PartialEq)]
pub struct Session;

#[derive(Clone, Debug, PartialEq)]
pub struct Read;

#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// How far clients have seen the room of the write: (client id, or empty for one without; seq).
    Seen { seen: Vec<(Arc<str>, Seq)> },
}

impl Change {
    pub fn verb(&self) -> Option<Verb> {
        None
    }

    pub fn weight(&self) -> usize {
        64
    }
}

pub fn route(_path: &str, _query: Option<&str>) -> Result<Option<Route>, Reject> {
    Ok(None)
}

pub fn endpoint(_head: &Head<'_>, _body: &[u8]) -> Intent {
    Intent::Respond(Box::new(Response::reject(&Reject::new(Reason::UnknownPath, "no such endpoint"))))
}

pub fn endpoint_needs(_head: &Head<'_>, by_method: Verb) -> (&'static str, Verb) {
    ("*", by_method)
}

pub fn open(_target: &Target) -> Opening {
    Opening::Refuse(Reject::new(Reason::UnknownPath, "no such endpoint"))
}

impl Session {
    pub fn on_text(&mut self, _text: &str) -> Intent {
        Intent::Ignore
    }

    pub fn on_binary(&mut self) -> Intent {
        Intent::Ignore
    }

    pub fn denied(&self, _intent: &Intent, _why: Denial) -> Bytes {
        Bytes::new()
    }

    pub fn beat_every(&self) -> Option<Duration> {
        None
    }

    /// As whom it has seen what it was shown; empty for a client without an id of its own; none where nothing is kept.
    pub fn seen_as(&self) -> Option<Arc<str>> {
        None
    }
}

pub fn heartbeat(_now: Wall) -> Bytes {
    Bytes::new()
}

/// Is this a room of the dialect's?
pub fn owns(_room: &str) -> bool {
    false
}

pub fn publish(
    _publish: &Publish,
    _asker: &Asker,
    _op: Option<&OpId>,
    _rows: &mut dyn Transaction,
    _env: &Env,
) -> Result<Outcome, RowsError> {
    Ok(Err(Refusal::NoSuchRoom))
}

pub fn read(_read: &Read, _rows: &mut dyn Rows, _env: &Env) -> Result<Reply, RowsError> {
    Ok(Reply::Silence)
}

pub fn read_failed(_read: &Read, failure: Failure) -> Reply {
    Reply::Reject(failure.reject())
}

pub fn census(_read: &Read, _views: &[ConnView], _rows: &mut dyn Rows, _env: &Env) -> Result<Reply, RowsError> {
    Ok(Reply::Silence)
}

pub fn apply(
    _change: &Change,
    _write: &Write,
    _asker: &Asker,
    _rows: &mut dyn Transaction,
    _env: &Env,
) -> Result<Applied, RowsError> {
    Ok(Applied::only(Reply::Silence))
}

pub fn failed(_change: &Change, failure: Failure) -> Reply {
    Reply::Reject(failure.reject())
}

/// The payload that a workflows socket is shown for an event.
pub fn encode(_room: &RoomName, _event: &Event) -> Option<Vec<u8>> {
    None
}

/// The frame that stands for what was trimmed.
pub fn snapshot(_room: &RoomName, _rows: &mut dyn Rows) -> Result<Option<Bytes>, RowsError> {
    Ok(None)
}
