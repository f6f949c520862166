//! The read-only connections: each sees the database as it stood when its snapshot began.

use std::path::PathBuf;

use rusqlite::{Connection, OpenFlags};

use super::columns::OriginKey;
use super::error::{OpenError, blame, rows_error};
use super::startup::harden;
use super::tables::Tables;
use crate::limits;
use crate::model::{Rows, RowsError};
use crate::store::seam::Snapshots;

/// Opens snapshots of the store it came with.
#[derive(Clone, Debug)]
pub struct Readers {
    path: PathBuf,
    key: OriginKey,
}

impl Readers {
    pub(super) fn new(path: PathBuf, key: OriginKey) -> Readers {
        Readers { path, key }
    }

    pub fn open(&self) -> Result<SqliteSnapshots, OpenError> {
        let conn = self.connect().map_err(|error| blame(&self.path, &error))?;
        Ok(SqliteSnapshots { tables: Tables::new(conn, self.key), open: false })
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&self.path, flags)?;
        conn.busy_timeout(limits::STORE_BUSY_WAIT)?;
        harden(&conn)?;
        Ok(conn)
    }
}

#[derive(Debug)]
pub struct SqliteSnapshots {
    tables: Tables,
    open: bool,
}

impl Snapshots for SqliteSnapshots {
    fn begin(&mut self) -> Result<(), RowsError> {
        assert!(!self.open, "begin() inside a snapshot");
        self.end();
        // BEGIN alone takes no snapshot; the first read does, and it must not be later than our caller thinks.
        let begun = self.tables.run("BEGIN").and_then(|()| {
            self.tables.conn.prepare_cached("SELECT value FROM meta WHERE key = 'boots'")?.query_row([], |_| Ok(()))
        });
        match begun {
            Ok(()) => {
                self.open = true;
                Ok(())
            }
            Err(error) => {
                self.end();
                Err(rows_error(&error))
            }
        }
    }

    fn rows(&mut self) -> &mut dyn Rows {
        assert!(self.open, "rows() outside a snapshot");
        &mut self.tables
    }

    fn end(&mut self) {
        self.open = false;
        if !self.tables.conn.is_autocommit()
            && let Err(error) = self.tables.run("ROLLBACK")
        {
            log::warn!("a snapshot did not end: {error}");
        }
    }
}
