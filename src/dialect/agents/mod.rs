//! The `agents` dialect: human-in-the-loop agent sessions' sockets and their REST API, over rooms `session:{id}`.
//!
//! ```text
//! socket    paths ─▶ Target ─▶ reads (resolve) ─▶ Session ─▶ wire::Message ─▶ Change ─▶ writes ─┬─▶ runs ──────┬─▶ events,
//! REST      rest: method and path ─▶ Read or Change ────────▶ reads or writes ─▶ views          ├─▶ approvals ─┤   tasks
//! backends  guard: what may be published into a session ────────────────────────────────────────┴─▶ sessions ──┘
//! ```
//!
//! | file | decides |
//! |---|---|
//! | paths | which path means what |
//! | session | what one socket asks for, message by message |
//! | wire | the JSON of the sockets, both ways |
//! | rest, views | the JSON of the REST API: requests; replies |
//! | reads | questions to one snapshot |
//! | writes | changes inside the writer's transaction, and their replies |
//! | sessions | who may use which session |
//! | runs | a command's run, from its beginning to its one end |
//! | approvals | requests for a human's decision, decided once |
//! | guard | which event may follow which |
//!
//! The server runs no agent. A command becomes a run, an event and a task in one transaction, and whatever a backend makes
//! of it comes back through `guard`. An event's body is the `data` of the original's envelope.
//!
//! Never here: a token, a clock, a second copy of a session's state.

pub mod approvals;
mod guard;
mod paths;
mod reads;
mod rest;
mod runs;
mod session;
pub mod sessions;
#[cfg(test)]
mod testing;
mod views;
mod wire;
mod writes;

pub use guard::publish;
pub use paths::{Target, route};
pub use reads::{Read, read, read_failed};
pub use session::{Session, open};
pub use writes::{Asked, Change, failed};

use bytes::Bytes;

use super::{Applied, Asker, Env as ServerEnv, Intent, Write};
use crate::auth::rights::Verb;
use crate::http::Head;
use crate::ids::{OpId, RoomName, Seq};
use crate::model::{Draft, Event, RowsError, Transaction};
use crate::mutant::Canary;

/// What the dialect knows of the server's configuration.
#[derive(Clone, Debug, Default)]
pub struct Env {
    /// An unknown session is made when somebody connects to it; in debug mode only.
    pub auto_create_sessions: bool,
    /// Answer `ping` with a `pong` instead of an error (CONTRACT.md Y10).
    pub pong: bool,
}

pub fn endpoint(head: &Head<'_>, body: &[u8], _env: &Env) -> Intent {
    rest::endpoint(head, body)
}

pub fn endpoint_needs(head: &Head<'_>, by_method: Verb) -> (&'static str, Verb) {
    rest::needs(head, by_method)
}

pub fn apply(
    change: &Change,
    _write: &Write,
    asker: &Asker,
    rows: &mut dyn Transaction,
    _env: &ServerEnv,
) -> Result<Applied, RowsError> {
    writes::apply(change, asker, rows)
}

/// Something of the dialect's was due: approvals whose time is up are decided `expired`.
pub fn due(rows: &mut dyn Transaction, canary: Canary) -> Result<(), RowsError> {
    approvals::due(rows, canary)
}

/// Is this a room of the dialect's?
pub fn owns(room: &str) -> bool {
    sessions::id_of_room(room).is_some()
}

/// The payload that an agents socket is shown for an event. `session_created` is no type of theirs.
pub fn encode(room: &RoomName, event: &Event) -> Option<Vec<u8>> {
    let data = std::str::from_utf8(&event.body).ok()?;
    let is_shown = owns(room.as_str()) && event.kind != "session_created";
    is_shown.then(|| wire::envelope(&event.kind, data, Some(event.at)))
}

/// Appends an event to a session's room.
fn append(
    session: &str,
    kind: &'static str,
    body: String,
    asker: &Asker,
    op: Option<&OpId>,
    rows: &mut dyn Transaction,
) -> Result<Seq, RowsError> {
    let draft = Draft { room: sessions::room_of(session), kind: kind.into(), body: Bytes::from(body) };
    rows.append(draft, &asker.actor, op, asker.origin)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::clock::Wall;

    #[test]
    fn events_are_shown_in_the_original_s_envelope() {
        let shown = |room: &str, kind: &'static str, body: &'static str| {
            let event = Event {
                seq: Seq(1),
                kind: kind.into(),
                actor: "a".into(),
                op: None,
                origin: 0,
                body: Bytes::from_static(body.as_bytes()),
                at: Wall(1_766_621_137_000_000),
            };
            encode(&RoomName::new(room), &event).map(|payload| String::from_utf8(payload).unwrap())
        };
        assert_eq!(
            shown("session:a", "complete", r#"{"result":{"text":"fertig 😀","a":[1,2]},"success":true}"#).as_deref(),
            Some(
                r#"{"type": "complete", "data": {"result": {"text": "fertig \ud83d\ude00", "a": [1, 2]}, "success": true}, "timestamp": "2025-12-25T00:05:37"}"#
            )
        );
        assert_eq!(shown("session:a", "session_created", "{}"), None, "no type of the contract's");
        assert_eq!(shown("tickets", "complete", "{}"), None, "another dialect's room");
        assert!(owns("session:x") && !owns("session") && !owns("doc:session:x"));
    }
}
