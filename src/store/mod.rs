//! The store: the only authority on what happened, and the only maker of what a room's members may be shown.
//!
//! ```text
//!  reactors ──Job──▶ worker: queue per room ─▶ batch (round-robin over rooms) ─▶ transaction ─▶ commit ─┐
//!      ▲                                                                                                 │
//!      └──────────── Delivery { committed, signals, answers, pushes } ◀── encode once per dialect ◀──────┘
//!
//!  backends' wishes ─▶ desk: leases tasks in the transaction ─▶ commit ─▶ pushes
//!
//!  reactors ─Question─▶ readers: one snapshot ─▶ Delivery::{Answer, Page}
//! ```
//!
//! Invariants: nothing of a batch leaves the worker before its commit returned ([`Committed`] has no constructor outside
//! this folder, and a room's member takes nothing else); a room always goes to the same worker; seqs are allocated by the
//! committing transaction; after a commit with unknown outcome nothing more is written and every later job is told so.
//!
//! Never here: a socket, a vocabulary (a dialect's code is called, not known).

#[cfg(test)]
mod behaviour;
pub(crate) mod committed;
mod desk;
mod due;
pub mod memory;
mod pulse;
mod queue;
pub mod reader;
mod recorder;
pub mod seam;
pub mod sqlite;
pub mod worker;

pub use committed::{Committed, Page, Reset};
pub use pulse::Pulse;
pub use seam::{CommitError, Keep, Retention, Snapshots, Store};

use std::sync::Arc;

use crate::auth::rights::Rights;
use bytes::Bytes;

use crate::dialect::{Asker, ConnView, Read, Reply, Signal, Write};
use crate::ids::{ConnId, RoomName, Seq};
use crate::mailbox::Sender;

/// A write under way to its worker.
#[derive(Debug)]
pub struct Job {
    /// Whom the answer is for; none for the server's own writes.
    pub to: Option<ConnId>,
    pub asker: Asker,
    pub write: Box<Write>,
    /// What it took of the [`crate::backlog::Backlog`]; given back with its answer.
    pub charged: usize,
}

/// A read under way to a reader.
#[derive(Debug)]
pub enum Question {
    Ask {
        to: ConnId,
        asker: Asker,
        read: Box<Read>,
        /// Documents outside of these are not there; none where the door has judged (HTTP).
        rights: Option<Arc<Rights>>,
    },
    /// As `Ask`, about every connection of the process: the reactors are asked first.
    Census { to: ConnId, read: Box<Read> },
    /// The events of `room` after `after`, for members behind on `reactor`.
    Page { reactor: u8, room: RoomName, after: Seq, listeners: u8 },
}

/// What a worker or reader sends to a reactor.
#[derive(Debug)]
pub enum Delivery {
    /// Everything one commit has for this reactor, in commit order.
    Batch {
        committed: Vec<Committed>,
        signals: Vec<Signal>,
        answers: Vec<Answer>,
        pushes: Vec<Push>,
    },
    Answer(Answer),
    /// Something that is not state, from a client of another reactor.
    Signal(Signal),
    /// Say who is connected; a reactor sends its list.
    Census(Sender<Vec<ConnView>>),
    Page(Page),
    /// Something was revoked, or keys have changed: everybody's credential is to be looked at again.
    Recheck,
    /// The store has failed for good: close everybody, the process is about to end.
    Broken,
}

/// Frames for a connection that answer nothing it asked: tasks.
#[derive(Debug)]
pub struct Push {
    pub to: ConnId,
    pub frame: Bytes,
}

#[derive(Debug)]
pub struct Answer {
    pub to: ConnId,
    pub reply: Reply,
}
