//! The one writer: a transaction from begin to commit, and the clean stop.

use std::fs::File;

use super::ballast::Ballast;
use super::retention::{Trim, due};
use super::tables::Tables;
use crate::clock::Wall;
use crate::ids::RoomName;
use crate::limits;
use crate::model::{RowsError, Transaction};
use crate::store::seam::{CommitError, Retention, Store};

/// The one writer. Dropping it is the clean stop.
#[derive(Debug)]
pub struct SqliteStore {
    pub(super) tables: Tables,
    open: bool,
    ballast: Ballast,
    /// `tables.written` at the last look at the log's size.
    pub(super) checkpointed: u64,
    /// Bytes of log at which it is worth waiting for readers, see `checkpoint.rs`.
    pub(super) restart_from: u64,
    pub(super) alarmed: bool,
    pub(super) trim: Trim,
    /// Last, so that the connection is closed before another process may open one.
    #[cfg_attr(not(test), expect(dead_code, reason = "held for life"))]
    pub(super) lock: File,
}

impl SqliteStore {
    pub(super) fn new(tables: Tables, ballast: Ballast, lock: File) -> SqliteStore {
        SqliteStore {
            tables,
            open: false,
            ballast,
            checkpointed: 0,
            restart_from: limits::WAL_RESTART_BYTES,
            alarmed: false,
            trim: Trim::default(),
            lock,
        }
    }
}

impl Store for SqliteStore {
    fn begin(&mut self, at: Wall) -> Result<(), RowsError> {
        assert!(!self.open, "begin() inside a transaction");
        self.tables.usable()?;
        // Immediate, because a transaction that reads first and writes later is refused at once when somebody wrote in
        // between, whatever the busy timeout says.
        let begun = self.tables.run("BEGIN IMMEDIATE");
        self.tables.check(begun)?;
        self.tables.at = at;
        self.open = true;
        Ok(())
    }

    fn rows(&mut self) -> &mut dyn Transaction {
        assert!(self.open, "rows() outside a transaction");
        &mut self.tables
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        assert!(self.open, "commit() outside a transaction");
        if let Err(broken) = self.tables.usable() {
            self.rollback();
            return Err(CommitError::Refused(broken));
        }
        let committed = self.tables.write_heads().and_then(|()| self.tables.run("COMMIT"));
        match self.tables.check(committed) {
            Ok(()) => {
                self.open = false;
                self.trim.note_grown(&self.tables);
                self.tables.heads.clear();
                Ok(())
            }
            Err(RowsError::Broken(why)) => {
                self.rollback();
                Err(CommitError::Unknown(why))
            }
            // Certain: a full disk stops the log before its commit frame, a busy database before the log.
            Err(refused @ (RowsError::Busy | RowsError::Full)) => {
                self.rollback();
                Err(CommitError::Refused(refused))
            }
        }
    }

    fn rollback(&mut self) {
        self.open = false;
        self.tables.heads.clear();
        if !self.tables.conn.is_autocommit() {
            let rolled_back = self.tables.run("ROLLBACK");
            // A transaction that cannot be left would swallow the next one's writes.
            if let Err(error) = rolled_back {
                self.tables.broken.get_or_insert(format!("rollback: {error}"));
            }
        }
        if std::mem::take(&mut self.tables.full) && self.ballast.release() {
            self.trim.more = true;
        }
    }

    fn tidy(&mut self, now: Wall, retention: &Retention, trimmed: &mut Vec<RoomName>) -> Result<(), RowsError> {
        assert!(!self.open, "tidy() inside a transaction");
        self.tables.usable()?;
        let checkpointed = self.checkpoint();
        if !self.trim.more && !due(self.trim.at, now, limits::TRIM_EVERY) {
            return checkpointed;
        }
        self.trim.at = Some(now);
        let removed = self.trim(now, retention, trimmed);
        if !self.ballast.held && due(self.ballast.looked_at, now, limits::BALLAST_RETRY) {
            // Not at the first look: that one follows the release.
            if self.ballast.looked_at.replace(now).is_some() {
                self.ballast.hold();
            }
        }
        checkpointed.and(removed)
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        if std::thread::panicking() || self.tables.broken.is_some() {
            return;
        }
        self.rollback();
        let closed = self
            .tables
            .run("UPDATE meta SET value = 1 WHERE key = 'clean'")
            .and_then(|()| self.tables.checkpoint("PRAGMA wal_checkpoint(TRUNCATE)"));
        if let Err(error) = closed {
            log::warn!("the store was not closed cleanly, the next start checks it: {error}");
        }
    }
}
