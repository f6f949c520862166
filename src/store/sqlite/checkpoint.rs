//! The write-ahead log: moved into the database before it grows long, and an alarm when somebody keeps it long.

use super::tables::Tables;
use super::writer::SqliteStore;
use crate::limits;
use crate::model::RowsError;
use crate::store::seam::Store as _;

/// A page and its header in the log.
pub(super) const FRAME_BYTES: u64 = 4096 + 24;

impl SqliteStore {
    /// Moves the log into the database when there is enough of it, and starts it again at its front.
    pub(super) fn checkpoint(&mut self) -> Result<(), RowsError> {
        if self.tables.written - self.checkpointed < limits::WAL_LOOK_BYTES {
            return Ok(());
        }
        self.checkpointed = self.tables.written;
        let looked = self.tables.checkpoint("PRAGMA wal_checkpoint(NOOP)");
        if self.settle(looked)?.unsaved() < limits::WAL_CHECKPOINT_BYTES {
            return Ok(());
        }
        // Passive waits for nobody; where it leaves nothing over, the next commit starts the log again by itself unless
        // a reader stands in it.
        let passive = self.tables.checkpoint("PRAGMA wal_checkpoint(PASSIVE)");
        let mut log = self.settle(passive)?;
        // Also where something is left over: busy readers of our own take turns, so that one of them always began before the
        // last commit, and a log that waited for a moment without any would grow as long as they are busy. Nobody writes
        // while this waits, so whoever begins to read meanwhile is in nobody's way. A reader that does not end in time (one
        // outside) costs one such wait for each further stretch of log.
        if log.bytes() >= self.restart_from {
            let stretch = log.bytes() + limits::WAL_RESTART_BYTES;
            let restarted = self.restart(log.bytes() >= limits::WAL_ALARM_BYTES);
            log = self.settle(restarted)?;
            self.restart_from = if log.blocked { stretch } else { limits::WAL_RESTART_BYTES };
        }
        self.alarm(log);
        Ok(())
    }

    fn restart(&self, truncate: bool) -> rusqlite::Result<Log> {
        let conn = &self.tables.conn;
        conn.busy_timeout(limits::WAL_RESTART_WAIT)?;
        let restarted = self.tables.checkpoint(match truncate {
            true => "PRAGMA wal_checkpoint(TRUNCATE)",
            false => "PRAGMA wal_checkpoint(RESTART)",
        });
        conn.busy_timeout(limits::STORE_BUSY_WAIT)?;
        restarted
    }

    /// As `Tables::check`, outside a transaction: a full disk is acted on here, since nobody will roll back.
    fn settle<T>(&mut self, outcome: rusqlite::Result<T>) -> Result<T, RowsError> {
        let checked = self.tables.check(outcome);
        self.rollback();
        checked
    }

    fn alarm(&mut self, log: Log) {
        let alarmed = log.bytes() >= limits::WAL_ALARM_BYTES;
        if alarmed != self.alarmed {
            self.alarmed = alarmed;
            if alarmed {
                let mib = log.bytes() >> 20;
                log::error!("the write-ahead log has {mib} MiB: somebody outside reads the database without an end");
            } else {
                log::info!("the write-ahead log is short again");
            }
        }
    }
}

impl Tables {
    pub(super) fn checkpoint(&self, sql: &str) -> rusqlite::Result<Log> {
        self.conn.prepare_cached(sql)?.query_row([], |row| {
            let frames = |column| row.get::<_, i64>(column).map(|frames| u64::try_from(frames).unwrap_or(0));
            Ok(Log { frames: frames(1)?, saved: frames(2)?, blocked: row.get(0)? })
        })
    }
}

/// The state of the write-ahead log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Log {
    frames: u64,
    /// Those that the database file has as well.
    saved: u64,
    /// A reader was in the way of what was asked for.
    blocked: bool,
}

impl Log {
    fn bytes(self) -> u64 {
        self.frames * FRAME_BYTES
    }

    fn unsaved(self) -> u64 {
        self.frames.saturating_sub(self.saved) * FRAME_BYTES
    }
}
