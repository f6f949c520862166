//! The seam between the workers and a database: one writer with transactions, many readers with snapshots.
//!
//! A backend is one file that implements both. It knows rows; what a write means is a dialect's business, and when its
//! outcome is told to anybody is the worker's.

use std::time::Duration;

use crate::clock::Wall;
use crate::ids::RoomName;
use crate::model::{Rows, RowsError, Transaction};

/// The one writer of a shard.
pub trait Store: Send {
    /// Opens a transaction; every row of it carries `at`.
    fn begin(&mut self, at: Wall) -> Result<(), RowsError>;

    /// The open transaction. Only between `begin` and `commit` or `rollback`.
    fn rows(&mut self) -> &mut dyn Transaction;

    /// Makes the transaction durable. After `Ok` it survives the loss of power (with full durability).
    fn commit(&mut self) -> Result<(), CommitError>;

    /// Forgets the open transaction; without one, does nothing.
    fn rollback(&mut self);

    /// Housekeeping between batches: checkpoints, retention. Bounded work a call. Rooms whose log begins later than before
    /// are added to `trimmed`, also when something else fails.
    fn tidy(&mut self, now: Wall, retention: &Retention, trimmed: &mut Vec<RoomName>) -> Result<(), RowsError>;
}

/// One reader: a connection of its own, short snapshots.
pub trait Snapshots: Send {
    fn begin(&mut self) -> Result<(), RowsError>;

    /// The open snapshot. Only between `begin` and `end`.
    fn rows(&mut self) -> &mut dyn Rows;

    fn end(&mut self);
}

/// How a commit failed to come about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Certain: nothing of the transaction is stored.
    #[error("not committed: {0}")]
    Refused(#[from] RowsError),
    /// It may or may not be stored (an fsync failed, an answer was lost). Nothing more may be written.
    #[error("outcome of the commit unknown: {0}")]
    Unknown(String),
}

/// What is kept of rooms' logs; the first rule whose pattern fits holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Retention {
    pub rules: Vec<Keep>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Keep {
    /// A room's name; a `*` at the end stands for any rest.
    pub pattern: String,
    /// Keep at most this many events.
    pub events: Option<u64>,
    /// Keep events at most this old.
    pub span: Option<Duration>,
}

impl Keep {
    pub fn fits(&self, room: &str) -> bool {
        match self.pattern.strip_suffix('*') {
            Some(prefix) => room.starts_with(prefix),
            None => room == self.pattern,
        }
    }
}

impl Retention {
    pub fn rule(&self, room: &str) -> Option<&Keep> {
        self.rules.iter().find(|keep| keep.fits(room))
    }
}
