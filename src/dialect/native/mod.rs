//! The native protocol, `/v1/connect`: JSON text frames that carry their name under `op`, over rooms of every kind.
//!
//! ```text
//! message ─▶ message (fields, op) ─▶ Session ─┬─▶ Intent        auth, leave, signal, presence, ping
//!                                                    ├─▶ Read::Join ─▶ joins ─▶ wire: joined, reset
//!                                                    └─▶ Change ─────▶ writes ─▶ publish, approvals ─▶ wire: ok, refused, …
//! event ─▶ wire::event, for every room
//! ```
//!
//! | file | decides |
//! |---|---|
//! | message | what a message says: names, ids and values in their bounds |
//! | session | what one socket asks for |
//! | joins | from where a member is shown a room, and the room's state |
//! | writes | publishing and deciding inside the writer's transaction, and their replies |
//! | wire | every frame that is sent |
//!
//! What a publisher sends under `data` is kept and shown byte for byte. What an event in a room means is the business of
//! the room's owner (`dialect::publish`); here is no vocabulary but the protocol's own.

mod joins;
mod message;
mod session;
mod wire;
mod writes;

pub use joins::{Read, read, read_failed, snapshot, welcome_back};
pub use session::{Session, denied, on_binary};
pub use wire::{bye, expiring, presence, signal};
pub use writes::{Change, apply, failed, fingerprint, id_taken, repeated};

use crate::ids::RoomName;
use crate::model::Event;

/// Any event of any room.
pub fn encode(room: &RoomName, event: &Event) -> Option<Vec<u8>> {
    Some(wire::event(room, event))
}
