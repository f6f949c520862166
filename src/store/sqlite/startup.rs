//! What `open` does before a row is read or written: the directory, the lock, the connection, the schema, the barrier.
//!
//! Each step finds somebody to blame (`OpenError`) or leaves the directory fit for the next one.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, ffi};

use super::columns::text;
use super::error::{OpenError, blame, blame_io, failure};
use crate::limits;

pub(super) const DATABASE: &str = "commitcast.sqlite";
const LOCK: &str = "lock";

/// 3.7.0 to 3.51.2 can corrupt a WAL database that has two connections (the WAL-reset race).
const LIBRARY_MIN: i32 = 3_051_003;
/// Each makes its schema out of the one before it, the first out of nothing: a new file and an old one end up the same.
pub(super) const SCHEMAS: [&str; 2] = [include_str!("schema.sql"), include_str!("schema_2.sql")];
pub(super) const SCHEMA: usize = SCHEMAS.len();
/// More than the statements of this folder.
const STATEMENTS: usize = 80;

pub(super) fn refuse_old_library(number: i32, name: &str) -> Result<(), OpenError> {
    if number < LIBRARY_MIN { Err(OpenError::OldLibrary { found: name.to_owned() }) } else { Ok(()) }
}

/// The directory's own name is synced too: a database whose directory is gone after the loss of power lost every ack.
pub(super) fn make_directory(dir: &Path) -> Result<(), OpenError> {
    let existed = dir.is_dir();
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => OpenError::NotADirectory { dir: dir.to_owned() },
        _ => blame_io(dir, &error),
    })?;
    if !existed {
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(|error| blame_io(dir, &error))?;
    }
    Ok(())
}

/// The kernel drops the lock with the process, so a stale file locks nobody out, and the file is never removed: removing
/// it would let two processes hold locks on two files of one name.
pub(super) fn take_lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join(LOCK);
    let blame = |error: &io::Error| blame_io(&path, error);
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| blame(&error))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // What is written there is for people only; whatever it is, the lock is held.
            let _ = lock.take(20).read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "(unknown)" } else { pid.trim() };
            return Err(OpenError::Locked { dir: dir.to_owned(), pid: pid.to_owned() });
        }
        Err(TryLockError::Error(error)) => return Err(blame(&error)),
    }
    lock.set_len(0)
        .and_then(|()| lock.rewind())
        .and_then(|()| writeln!(lock, "{}", std::process::id()))
        .map_err(|error| blame(&error))?;
    Ok(lock)
}

pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(limits::STORE_BUSY_WAIT)?;
    enter_wal(&conn)?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.pragma_update(None, "journal_size_limit", limits::WAL_RESTART_BYTES as i64)?;
    // Negative: KiB; a positive number would be pages.
    conn.pragma_update(None, "cache_size", -((limits::STORE_CACHE_BYTES / 1024) as i64))?;
    // A handle that latched after an I/O error writes nothing more, not even when it is closed. A clean stop moves the log
    // itself (see Drop).
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    harden(&conn)?;
    Ok(conn)
}

/// Read to the end: SQLite names the new mode first and commits the change after, and a change that then fails leaves the
/// database in its old mode without another word.
fn enter_wal(conn: &Connection) -> rusqlite::Result<()> {
    let mut statement = conn.prepare("PRAGMA journal_mode = WAL")?;
    let mut rows = statement.query([])?;
    let mut mode = String::new();
    while let Some(row) = rows.next()? {
        mode = text(row, 0)?;
    }
    if mode == "wal" {
        Ok(())
    } else {
        Err(failure(ffi::SQLITE_IOERR, "this file system has no shared memory for a write-ahead log"))
    }
}

pub(super) fn harden(conn: &Connection) -> rusqlite::Result<()> {
    // A mapped page can be overwritten by a stray store of any code in the process, and then be checkpointed.
    conn.pragma_update(None, "mmap_size", 0)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastStop {
    Clean,
    Unclean,
}

/// What was found in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// 0 in an empty one.
    pub(super) schema: usize,
    pub(super) last_stop: LastStop,
}

/// Makes sure that a database with tables is ours and of a schema we know.
pub(super) fn find_schema(conn: &Connection, path: &Path) -> Result<Found, OpenError> {
    let blame = |error: rusqlite::Error| blame(path, &error);
    let tables = |name: &str| {
        let sql = "SELECT count(*) FROM sqlite_schema WHERE ?1 = '' OR name = ?1";
        conn.query_row(sql, [name], |row| row.get::<_, i64>(0)).map_err(blame)
    };
    if tables("")? == 0 {
        return Ok(Found { schema: 0, last_stop: LastStop::Clean });
    }
    if tables("meta")? == 0 {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    let meta = |key: &str| {
        let sql = "SELECT value FROM meta WHERE key = ?1";
        conn.query_row(sql, [key], |row| row.get::<_, i64>(0)).optional().map_err(blame)
    };
    let found = meta("schema")?.unwrap_or(0);
    let schema = match usize::try_from(found) {
        Ok(schema @ 1..=SCHEMA) => schema,
        Ok(_) if found > 0 => return Err(OpenError::Newer { path: path.to_owned(), found }),
        _ => return Err(OpenError::Foreign { path: path.to_owned() }),
    };
    let last_stop = if meta("clean")? == Some(1) { LastStop::Clean } else { LastStop::Unclean };
    Ok(Found { schema, last_stop })
}

/// In one transaction: whoever is killed meanwhile leaves the old schema, which the next start finds.
pub(super) fn raise_schema(conn: &Connection, from: usize) -> rusqlite::Result<()> {
    let steps = SCHEMAS.get(from..).unwrap_or_default();
    if steps.is_empty() {
        return Ok(());
    }
    conn.execute_batch(&format!("BEGIN IMMEDIATE;{}COMMIT;", steps.concat()))
}

pub(super) fn quick_check(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    let verdict = conn
        .query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
        .map_err(|error| blame(path, &error))?;
    if verdict == "ok" { Ok(()) } else { Err(OpenError::Corrupt { path: path.to_owned(), detail: verdict }) }
}

/// Under synchronous=FULL, whatever the operator chose: the promise is about rows that an earlier process wrote.
///
/// With it goes what no process inherits: no socket of the last one lives, so what they held is ready, since ever,
/// whatever this process's clock says.
pub(super) fn cross_barrier(conn: &Connection) -> rusqlite::Result<()> {
    let sql = "BEGIN IMMEDIATE; UPDATE meta SET value = value + 1 WHERE key = 'boots';
               UPDATE meta SET value = 0 WHERE key = 'clean';
               UPDATE task SET holder = 0, ready_at = 0 WHERE holder <> 0; COMMIT;";
    conn.execute_batch(sql)
}
