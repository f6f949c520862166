//! What SQLite and the file system report, as whose fault it is and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ffi;

use super::startup::SCHEMA;
use crate::model::RowsError;

/// Why a data directory could not be opened: whose fault, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "{dir} is in use by process {pid}: one data directory serves one process; stop that one or choose another directory",
        dir = .dir.display()
    )]
    Locked { dir: PathBuf, pid: String },
    #[error("{dir} is not a directory: choose a path that is one, or that does not exist yet", dir = .dir.display())]
    NotADirectory { dir: PathBuf },
    #[error(
        "no right to write in {path} ({detail}): give it to this user, or choose another directory",
        path = .path.display()
    )]
    NoAccess { path: PathBuf, detail: String },
    #[error("no space left for {path}: free some on that disk and start again", path = .path.display())]
    Full { path: PathBuf },
    #[error(
        "{path} is held by another program, such as a sqlite3 shell or a backup: end it and start again",
        path = .path.display()
    )]
    Busy { path: PathBuf },
    #[error(
        "{path} is damaged ({detail}): keep a copy of the directory, then restore a backup or run `sqlite3 … .recover`",
        path = .path.display()
    )]
    Corrupt { path: PathBuf, detail: String },
    #[error("{path} holds tables of another program: choose another directory", path = .path.display())]
    Foreign { path: PathBuf },
    #[error(
        "{path} was written by a newer commitcast (schema {found}, this one knows {SCHEMA}): run that version",
        path = .path.display()
    )]
    Newer { path: PathBuf, found: i64 },
    #[error("SQLite {found} may corrupt its log (fixed in 3.51.3): build with the bundled library")]
    OldLibrary { found: String },
    #[error("{path} cannot be used ({detail}): it must lie on a local disk in working order", path = .path.display())]
    Failed { path: PathBuf, detail: String },
}

pub(super) fn failure(code: i32, detail: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(detail.to_owned()))
}

/// The result code without its extension, or 0 for an error of our own reading.
fn primary_code(error: &rusqlite::Error) -> i32 {
    error.sqlite_error().map_or(0, |error| error.extended_code & 0xff)
}

/// With the extended code: "disk I/O error" alone does not say whether a read, a write or an fsync failed.
fn describe(error: &rusqlite::Error) -> String {
    match error.sqlite_extended_error_code() {
        Some(code) => format!("{error}, SQLite code {code}"),
        None => error.to_string(),
    }
}

/// Whatever is neither busy nor full is broken: a code we did not think of must not be retried.
pub(super) fn rows_error(error: &rusqlite::Error) -> RowsError {
    match primary_code(error) {
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_PROTOCOL => RowsError::Busy,
        ffi::SQLITE_FULL => RowsError::Full,
        _ => RowsError::Broken(describe(error)),
    }
}

pub(super) fn blame(path: &Path, error: &rusqlite::Error) -> OpenError {
    let (path, detail) = (path.to_owned(), describe(error));
    match primary_code(error) {
        // The log's index could not grow: the one I/O error here that names the want of space.
        _ if error.sqlite_extended_error_code() == Some(ffi::SQLITE_IOERR_SHMSIZE) => OpenError::Full { path },
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_PROTOCOL => OpenError::Busy { path },
        ffi::SQLITE_FULL => OpenError::Full { path },
        ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB => OpenError::Corrupt { path, detail },
        ffi::SQLITE_READONLY | ffi::SQLITE_PERM | ffi::SQLITE_AUTH | ffi::SQLITE_CANTOPEN => {
            OpenError::NoAccess { path, detail }
        }
        _ => OpenError::Failed { path, detail },
    }
}

pub(super) fn blame_io(path: &Path, error: &io::Error) -> OpenError {
    let (path, detail) = (path.to_owned(), error.to_string());
    match error.kind() {
        io::ErrorKind::NotADirectory => OpenError::NotADirectory { dir: path },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => OpenError::NoAccess { path, detail },
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => OpenError::Full { path },
        _ => OpenError::Failed { path, detail },
    }
}
