//! The backend protocol: `/v1/backend`, and the same over HTTP (DESIGN.md section 8).
//!
//! ```text
//! socket   session ─┐ message ─▶ Change ─▶ writes ─┐
//! request  rest ────┤    │                         ├─▶ answers ─▶ wire: a frame, a response, a line
//! batch    batch ───┘    └─────▶ Read ───▶ reads ──┘
//! ```
//!
//! Every message and request is held against the rights of its key (`rights`). Tasks are handed out by the store's desk;
//! here is only what they look like and what may be said of them.

mod answers;
mod batch;
mod fault;
mod message;
mod reads;
mod rest;
mod revocations;
mod rights;
mod session;
#[cfg(test)]
mod testing;
mod wire;
mod writes;

use std::sync::Arc;

use super::publish::Publish;
use super::{Applied, Asker, ConnView, Env, Failure, First, Intent, Reply, Write};
use crate::auth::ApiKey;
use crate::auth::revoked::Ruling;
use crate::http::{Head, Response};
use crate::ids::{OpId, RoomName};
use crate::model::{Rows, RowsError, Task, TaskId, Transaction};

pub use reads::Read;
pub use revocations::Wanted as Revoke;
pub use session::Session;
pub use writes::{Change, Decide, What};

/// A task as one of its holders names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub task: TaskId,
    pub fence: u64,
}

/// A publish as it was read.
#[derive(Clone, Debug, PartialEq)]
struct Publishing {
    publish: Publish,
    op: Option<OpId>,
    held: Option<Held>,
}

/// Whatever is said of tasks takes its turn with the desk that hands them out.
fn desk_room() -> RoomName {
    RoomName::new("tasks")
}

/// Is there an endpoint at this path?
pub fn has(path: &str) -> bool {
    rest::has(path)
}

/// Answers a request to `/v1/…` that shows this key.
pub fn endpoint(head: &Head<'_>, body: &[u8], key: &Arc<ApiKey>) -> Intent {
    rest::endpoint(head, body, key)
}

pub fn read(read: &Read, rows: &mut dyn Rows, env: &Env) -> Result<Reply, RowsError> {
    reads::read(read, rows, env)
}

pub fn read_failed(read: &Read, failure: Failure) -> Reply {
    reads::read_failed(read, failure)
}

pub fn census(read: &Read, views: &[ConnView], _rows: &mut dyn Rows, _env: &Env) -> Result<Reply, RowsError> {
    Ok(reads::census(read, views))
}

pub fn apply(
    change: &Change,
    write: &Write,
    asker: &Asker,
    rows: &mut dyn Transaction,
    env: &Env,
) -> Result<Applied, RowsError> {
    writes::apply(change, write, asker, rows, env)
}

pub fn repeated(change: &Change, write: &Write, first: First<'_>) -> Reply {
    writes::repeated(change, write, first)
}

pub fn fingerprint(change: &Change) -> u64 {
    writes::fingerprint(change)
}

pub fn id_taken(change: &Change, _write: &Write) -> Reply {
    writes::id_taken(change)
}

pub fn failed(change: &Change, _write: &Write, failure: Failure) -> Reply {
    writes::failed(change, failure)
}

/// Something of the protocol's was due: revocations that nobody needs any more are removed.
pub fn due(rows: &mut dyn Transaction) -> Result<Vec<Ruling>, RowsError> {
    revocations::due(rows)
}

/// What is revoked, out of the store into `env`.
pub fn remember_revocations(rows: &mut dyn Rows, env: &Env) -> Result<usize, RowsError> {
    revocations::remember(rows, env)
}

/// A task as a socket is given it: a payload.
pub fn task(task: &Task) -> Vec<u8> {
    wire::task(task)
}

/// The answer to a poll.
pub fn tasks(tasks: &[Task]) -> Response {
    wire::tasks(tasks)
}

/// The answer to `POST /v1/connections/{id}/close`.
pub fn evicted(found: bool) -> Response {
    rest::evicted(found)
}
