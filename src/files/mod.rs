//! Documents as Markdown files: read at start and on demand, written back after each commit.
//!
//! ```text
//!  start, reload:  directory ─read─▶ Import ─▶ transaction (a dialect decides: new here, edited outside, or ours to finish)
//!  after commit:   worker ─FileTask─▶ scribe ─read newest─▶ render ─▶ temporary file, fsync, rename, fsync of the directory
//!                                       ▲ │failed: reported, tried again      └─▶ Job Synced (the mark)
//!                                       └─┘
//! ```
//!
//! The store stays the authority. A failing write-back never undoes an edit, and a file that somebody edited under our
//! hands is kept beside ours under another name before it is overwritten: nothing is lost on either side.

mod scan;
mod scribe;

pub use scan::{Scan, scan};
pub use scribe::{Scribe, Wiring as ScribeWiring};

use std::path::PathBuf;
use std::sync::Arc;

use sha1::{Digest, Sha1};

use crate::clock::Wall;
use crate::dialect::{self, Asker, Change, Env, Write, documents};
use crate::model::RowsError;
use crate::store::{CommitError, Store};

/// Where a document's file is: ids are paths.
pub fn path_of(id: &str) -> PathBuf {
    PathBuf::from(format!("{id}.md"))
}

pub fn digest_of(bytes: &[u8]) -> [u8; 20] {
    Sha1::digest(bytes).into()
}

/// The server itself, as the actor of what it reads and writes on its own.
pub fn server() -> Asker {
    Asker { actor: Arc::from("server"), origin: 0, verified: false }
}

pub fn import(file: documents::Import) -> Write {
    let id = crate::model::Document::id_of(&file.directory, &file.name);
    Write { room: documents::room_of(&id), op: None, change: Change::Documents(documents::Change::Import(file)) }
}

/// Files in one transaction when reading at start.
const LOAD_BATCH: usize = 256;

/// Why the directories could not be taken in.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Rows(#[from] RowsError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Takes the files in before anybody is served. Returns how many there were.
pub fn load(store: &mut dyn Store, files: Vec<documents::Import>, env: &Env, at: Wall) -> Result<usize, LoadError> {
    let count = files.len();
    let mut files = files.into_iter();
    loop {
        let batch: Vec<Write> = files.by_ref().take(LOAD_BATCH).map(import).collect();
        if batch.is_empty() {
            return Ok(count);
        }
        store.begin(at)?;
        for write in &batch {
            if let Err(error) = dialect::apply(write, &server(), store.rows(), env) {
                store.rollback();
                return Err(error.into());
            }
        }
        store.commit()?;
    }
}
