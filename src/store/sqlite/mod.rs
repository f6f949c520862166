//! The SQLite backend: one writer connection, any number of read-only ones, one directory held under a lock for life.
//!
//! ```text
//! open: directory ─▶ lock ─▶ pragmas ─▶ find schema ─▶ quick_check (unclean stop) ─▶ raise it ─▶ BARRIER ─▶ Opened
//!                                                                    one committed, synced write ┘
//!
//! writer ──┬─▶ tables, records, tasks ─▶ columns    every row in SQL, and how a value lies in its column
//! readers ─┘
//! writer ────▶ checkpoint, retention, ballast       what is tidied between two batches
//! ```
//!
//! The barrier is why `readers` comes out of `open` and cannot be made otherwise: a row recovered from a log that was
//! never synced looks like any other row, and vanishes with the next loss of power. A synced commit syncs the whole log
//! before it, so after the barrier nothing readable can vanish.
//!
//! A failed write of the log is never called "not saved": after a failed fsync the row is invisible, and there again
//! after a restart. So the handle latches, every later `begin` is `Broken`, and the next process finds out.
//!
//! Never here: what a row means, a clock.

mod ballast;
mod checkpoint;
mod columns;
mod error;
mod readers;
mod records;
mod retention;
mod startup;
mod tables;
mod tasks;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};

pub use error::OpenError;
pub use readers::{Readers, SqliteSnapshots};
pub(super) use retention::{before, due};
pub use writer::SqliteStore;

use ballast::Ballast;
use columns::OriginKey;
use error::blame;
use startup::{DATABASE, LastStop};
use tables::Tables;

/// What a commit survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The loss of power.
    Full,
    /// The loss of the process; the loss of power may take the last commits.
    Normal,
}

/// An open data directory, behind the barrier.
#[derive(Debug)]
pub struct Opened {
    pub store: SqliteStore,
    pub readers: Readers,
    /// Random; names this run of the process.
    pub boot: u64,
    /// The database file.
    pub path: PathBuf,
}

pub fn open(dir: &Path, durability: Durability) -> Result<Opened, OpenError> {
    startup::refuse_old_library(rusqlite::version_number(), rusqlite::version())?;
    startup::make_directory(dir)?;
    let lock = startup::take_lock(dir)?;
    let path = dir.join(DATABASE);
    let key = OriginKey::random().map_err(|detail| OpenError::Failed { path: path.clone(), detail })?;

    let conn = startup::connect(&path).map_err(|error| blame(&path, &error))?;
    let found = startup::find_schema(&conn, &path)?;
    if found.last_stop == LastStop::Unclean {
        log::warn!("{} was not closed: checking it", path.display());
        startup::quick_check(&conn, &path)?;
    }
    startup::raise_schema(&conn, found.schema).map_err(|error| blame(&path, &error))?;
    startup::cross_barrier(&conn).map_err(|error| blame(&path, &error))?;
    if durability == Durability::Normal {
        conn.pragma_update(None, "synchronous", "NORMAL").map_err(|error| blame(&path, &error))?;
    }

    let store = SqliteStore::new(Tables::new(conn, key), Ballast::held_in(dir), lock);
    Ok(Opened { store, readers: Readers::new(path.clone(), key), boot: key.0, path })
}
