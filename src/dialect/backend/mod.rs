//! The backend protocol: `/v1/backend`, and the same over HTTP. (In progress.)

use std::sync::Arc;

use bytes::Bytes;

use super::{Applied, Asker, ConnView, Env, Failure, First, Hello, Intent, Reply, Write};
use crate::auth::ApiKey;
use crate::http::{Head, Reason, Reject, Response};
use crate::model::{Rows, RowsError, Task, Transaction};

#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    key: Arc<ApiKey>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Read;

#[derive(Clone, Debug, PartialEq)]
pub struct Change;

impl Change {
    pub fn weight(&self) -> usize {
        64
    }
}

/// Answers a request to `/v1/…` that shows this key.
pub fn endpoint(_head: &Head<'_>, _body: &[u8], _key: &Arc<ApiKey>) -> Intent {
    Intent::Respond(Box::new(Response::reject(&Reject::new(Reason::UnknownPath, "no such endpoint"))))
}

impl Session {
    pub fn new(key: Arc<ApiKey>) -> Session {
        Session { key }
    }

    pub fn on_text(&mut self, _text: &str) -> Intent {
        let _ = &self.key;
        Intent::Ignore
    }

    pub fn hello(&self, _hello: &Hello<'_>) -> Option<Bytes> {
        None
    }
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

pub fn repeated(_change: &Change, _write: &Write, _first: First<'_>) -> Reply {
    Reply::Silence
}

pub fn fingerprint(_change: &Change) -> u64 {
    0
}

pub fn id_taken(_change: &Change, _write: &Write) -> Reply {
    Reply::Silence
}

pub fn failed(_change: &Change, _write: &Write, failure: Failure) -> Reply {
    Reply::Reject(failure.reject())
}

/// A task as a socket is given it: a payload.
pub fn task(_task: &Task) -> Vec<u8> {
    Vec::new()
}

/// The answer to a poll.
pub fn tasks(_tasks: &[Task]) -> Response {
    Response::json(200, "{\"tasks\":[]}")
}

/// The answer to `POST /v1/connections/{id}/close`.
pub fn evicted(_found: bool) -> Response {
    Response::empty(204)
}
