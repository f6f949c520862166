//! What the tests of this dialect share: rows with a session, people who ask, and replies as text.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::runs::Order;
use super::sessions::{self, New};
use super::writes::{Asked, Change};
use crate::clock::Wall;
use crate::dialect::fake::Fake;
use crate::dialect::publish::{Outcome, Publish};
use crate::dialect::{Asker, Env, Reply};
use crate::ids::RoomName;
use crate::model::RowsError;
use bytes::Bytes;

/// The session of most tests.
pub const S: &str = "0af0bd5c-0000-4000-8000-00000000000a";
pub const ROOM: &str = "session:0af0bd5c-0000-4000-8000-00000000000a";
/// What the fake's dice make of their first throw and of their second.
pub const FIRST: &str = "019b52d3-48e3-7000-8000-000000000001";
pub const SECOND: &str = "019b52d3-48e3-7000-8000-000000000002";
/// 2025-12-25T00:05:37.123456
pub const AT: Wall = Wall(1_766_621_137_123_456);

pub fn asker(actor: &str) -> Asker {
    Asker { actor: actor.into(), origin: 0, verified: false }
}

/// A user whose token had to be good.
pub fn user(actor: &str) -> Asker {
    Asker { verified: true, ..asker(actor) }
}

/// Rows with the session [`S`], whose log is empty again.
pub fn rows() -> Fake {
    let mut rows = Fake { at: AT, ..Fake::default() };
    sessions::create(&New { id: Some(S.into()), ..New::default() }, &asker("maker"), &mut rows).unwrap().unwrap();
    rows.log.clear();
    rows
}

/// The same with a run, [`FIRST`]; the log and the tasks are empty again.
pub fn running() -> Fake {
    let mut rows = rows();
    execute("pay", &mut rows);
    rows.log.clear();
    rows.tasks.clear();
    rows
}

pub fn execute(command: &str, rows: &mut Fake) -> String {
    let order = Order { command: command.into(), ..Order::default() };
    apply(&Change::Execute { order, asked: Asked::Socket { session: S.into() } }, rows)
}

pub fn apply(change: &Change, rows: &mut Fake) -> String {
    apply_as(change, &asker("ann"), rows)
}

pub fn apply_as(change: &Change, asker: &Asker, rows: &mut Fake) -> String {
    said(&super::writes::apply(change, asker, rows).unwrap().reply)
}

pub fn publish(kind: &str, data: &str, rows: &mut Fake) -> Outcome {
    try_publish(ROOM, kind, data, &asker("worker"), rows).unwrap()
}

pub fn try_publish(room: &str, kind: &str, data: &str, asker: &Asker, rows: &mut Fake) -> Result<Outcome, RowsError> {
    let data = Bytes::copy_from_slice(data.as_bytes());
    let publish = Publish { room: RoomName::new(room), kind: kind.into(), data, if_rev: None };
    super::publish(&publish, asker, None, rows, &Env::default())
}

/// A reply in one line: a frame's payload, a response's status and body.
pub fn said(reply: &Reply) -> String {
    match reply {
        Reply::Frame(frame) => payload(frame),
        Reply::Welcome { frame, starts, .. } => format!("{} {starts:?}", payload(frame)),
        Reply::Response(response) => format!("{} {}", response.status, String::from_utf8_lossy(&response.body)),
        Reply::Reject(reject) => format!("reject {} {}", reject.row().name, reject.detail),
        Reply::Close(reject) => format!("close {}", reject.row().name),
        other => format!("{other:?}"),
    }
}

/// Of one unmasked text frame.
fn payload(frame: &[u8]) -> String {
    let start = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    String::from_utf8(frame[start..].to_vec()).unwrap()
}
