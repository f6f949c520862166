//! The native protocol, `/v1/connect`. (In progress.)

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Applied, Asker, Denial, Env, Failure, First, Hello, Intent, Reply, Write};
use crate::auth::rights::{Rights, Verb};
use crate::http::{Reason, Reject};
use crate::ids::RoomName;
use crate::model::{Event, Rows, RowsError, Transaction};

#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    authenticated: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Read;

#[derive(Clone, Debug, PartialEq)]
pub struct Change;

impl Change {
    pub fn verb(&self) -> Option<Verb> {
        None
    }

    pub fn weight(&self) -> usize {
        64
    }
}

impl Session {
    pub fn new(authenticated: bool) -> Session {
        Session { authenticated }
    }

    pub fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    pub fn authenticated(&mut self) {
        self.authenticated = true;
    }

    pub fn on_text(&mut self, _text: &str) -> Intent {
        Intent::Ignore
    }

    /// `hello`, once it is known who it is.
    pub fn hello(&self, _hello: &Hello<'_>) -> Option<Bytes> {
        None
    }
}

/// Binary frames are refused with 1003.
pub fn on_binary() -> Intent {
    Intent::Close(Reject::new(Reason::Syntax, "this socket takes text frames only"))
}

pub fn denied(_intent: &Intent, _why: Denial) -> Bytes {
    Bytes::new()
}

pub fn expiring(_left: Duration) -> Bytes {
    Bytes::new()
}

pub fn bye(_code: u16, _retry_after: Duration) -> Bytes {
    Bytes::new()
}

pub fn signal(_room: &RoomName, _by: &str, _data: &[u8]) -> Vec<u8> {
    Vec::new()
}

pub fn presence(_room: &RoomName, _joined: &[Arc<str>], _left: &[Arc<str>]) -> Vec<u8> {
    Vec::new()
}

pub fn read(
    _read: &Read,
    _asker: &Asker,
    _rows: &mut dyn Rows,
    _env: &Env,
    _rights: Option<&Rights>,
) -> Result<Reply, RowsError> {
    Ok(Reply::Silence)
}

pub fn read_failed(_read: &Read, failure: Failure) -> Reply {
    Reply::Reject(failure.reject())
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

/// Any event of any room.
pub fn encode(_room: &RoomName, _event: &Event) -> Option<Vec<u8>> {
    None
}

/// `reset`, framed.
pub fn snapshot(_room: &RoomName, _rows: &mut dyn Rows) -> Result<Option<Bytes>, RowsError> {
    Ok(None)
}
