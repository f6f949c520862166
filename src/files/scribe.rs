//! The thread that brings Markdown files up to date with what is committed.
//!
//! A task names a document; what is written is its newest committed state, so ten edits waiting are one write. A write
//! that fails is reported and tried again with a growing pause. A task that was lost with a crash, or did not fit the
//! queue, is found by comparing every document's revision with its file's mark.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{LOAD_BATCH, digest_of, path_of, scan, server};
use crate::clock::{Clock, Mono};
use crate::dialect::documents::{self, markdown};
use crate::dialect::{Change, FileTask, Write};
use crate::ids::{ConnId, RoomName};
use crate::mailbox::{Inbox, Mailbox};
use crate::metrics::Metrics;
use crate::model::{Document, FileMark, RowsError};
use crate::store::{Job, Snapshots};

const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Whose turn a reload takes in the writer's queue; its events are the prompts' own.
const RELOAD_ROOM: &str = "reload";
/// How often revisions and marks are compared.
const COMPARE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Wiring {
    pub inbox: Inbox<FileTask>,
    pub writers: Vec<Mailbox<Job>>,
    pub roots: Vec<String>,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
}

#[derive(Debug)]
pub struct Scribe<R> {
    store: R,
    wiring: Wiring,
    /// Documents whose file is behind, by id, and when to try.
    pending: BTreeMap<String, Try>,
    /// What we wrote ourselves, until its mark is committed and read back.
    written: HashMap<String, [u8; 20]>,
    compared: Option<Mono>,
}

#[derive(Clone, Copy, Debug)]
struct Try {
    at: Mono,
    pause: Duration,
}

/// What a document's file should become.
enum Due {
    Write(Box<Document>, Option<FileMark>),
    Remove(FileMark),
    Nothing,
}

impl<R: Snapshots> Scribe<R> {
    pub fn new(store: R, wiring: Wiring) -> Scribe<R> {
        Scribe { store, wiring, pending: BTreeMap::new(), written: HashMap::new(), compared: None }
    }

    /// Writes until told to stop, or until nobody is left who could tell.
    pub fn run(mut self) {
        loop {
            self.compare_if_due();
            self.work_off(false);
            match self.wiring.inbox.wait(self.patience()) {
                Ok(Some(FileTask::Stop)) | Err(_) => break,
                Ok(Some(task)) => self.take(task),
                Ok(None) => {}
            }
            while let Some(task) = self.wiring.inbox.take() {
                if task == FileTask::Stop {
                    self.work_off(true);
                    return;
                }
                self.take(task);
            }
        }
        self.work_off(true);
    }

    fn take(&mut self, task: FileTask) {
        match task {
            FileTask::Write { id } | FileTask::Remove { id } => self.pend(id),
            FileTask::Reload { to } => self.reload(to),
            FileTask::Stop => {}
        }
    }

    fn pend(&mut self, id: String) {
        let now = self.wiring.clock.mono();
        self.pending.entry(id).or_insert(Try { at: now, pause: RETRY_MIN });
    }

    fn patience(&self) -> Duration {
        let now = self.wiring.clock.mono();
        let next = self.pending.values().map(|next| next.at.since(now)).min();
        next.unwrap_or(COMPARE).min(COMPARE)
    }

    /// Tries what is due; at the end, everything once more.
    fn work_off(&mut self, everything: bool) {
        let now = self.wiring.clock.mono();
        let due: Vec<String> =
            self.pending.iter().filter(|(_, next)| everything || next.at <= now).map(|(id, _)| id.clone()).collect();
        for id in due {
            match self.bring_up_to_date(&id) {
                Ok(()) => {
                    self.pending.remove(&id);
                }
                Err(error) => self.failed(&id, &error, now),
            }
        }
        self.wiring.metrics.file_writes_pending.set(self.pending.len() as i64);
        for writer in &mut self.wiring.writers {
            writer.ring();
        }
    }

    fn failed(&mut self, id: &str, error: &io::Error, now: Mono) {
        self.wiring.metrics.file_write_failures.inc();
        if let Some(next) = self.pending.get_mut(id) {
            log::error!(
                "{} could not be written back: {error}. The edit is saved in the store; trying again in {:?}",
                path_of(id).display(),
                next.pause
            );
            next.at = now.after(next.pause);
            next.pause = (next.pause * 2).min(RETRY_MAX);
        }
    }

    fn bring_up_to_date(&mut self, id: &str) -> io::Result<()> {
        match self.due(id)? {
            Due::Nothing => Ok(()),
            Due::Remove(mark) => {
                let path = path_of(id);
                let there = read_if_there(&path)?;
                self.save_outside_edit(id, &path, there, mark.digest, Some(&mark))?;
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                self.written.remove(id);
                self.mark(id, documents::Change::Removed { id: id.to_owned() });
                Ok(())
            }
            Due::Write(document, mark) => {
                let path = path_of(id);
                let there = read_if_there(&path)?;
                // Front matter that is not ours stays as its owner wrote it.
                let others = there.as_deref().map(String::from_utf8_lossy).map(|text| markdown::parse(&text).others);
                let text = markdown::render_with(&document, &others.unwrap_or_default());
                let digest = digest_of(text.as_bytes());
                self.save_outside_edit(id, &path, there, digest, mark.as_ref())?;
                replace(&path, text.as_bytes())?;
                self.wiring.metrics.file_writes.inc();
                self.written.insert(id.to_owned(), digest);
                self.mark(
                    id,
                    documents::Change::Synced {
                        id: id.to_owned(),
                        digest,
                        rev: document.rev,
                        updated_at: document.updated_at,
                    },
                );
                Ok(())
            }
        }
    }

    fn due(&mut self, id: &str) -> io::Result<Due> {
        self.over_snapshot(|rows| {
            let mark = rows.file_mark(id)?;
            Ok(match (rows.document(id)?, mark) {
                (Some(document), Some(mark)) if mark.rev == document.rev => Due::Nothing,
                (Some(document), mark) => Due::Write(Box::new(document), mark),
                (None, Some(mark)) => Due::Remove(mark),
                (None, None) => Due::Nothing,
            })
        })
    }

    /// The file is about to be replaced. If somebody else has changed it since we last saw it, his text is kept beside it.
    fn save_outside_edit(
        &self,
        id: &str,
        path: &Path,
        there: Option<Vec<u8>>,
        ours: [u8; 20],
        mark: Option<&FileMark>,
    ) -> io::Result<()> {
        let Some(there) = there else { return Ok(()) };
        let digest = digest_of(&there);
        let known =
            digest == ours || mark.is_some_and(|mark| mark.digest == digest) || self.written.get(id) == Some(&digest);
        if known {
            return Ok(());
        }
        let aside = path.with_extension(format!("md.outside-{}", self.wiring.clock.wall().0));
        log::warn!(
            "{} was edited outside while it was open here: that text is kept as {}",
            path.display(),
            aside.display()
        );
        replace(&aside, &there)
    }

    /// Tells the store what the file holds now. A mark that does not fit the queue is made good by the next comparison.
    fn mark(&mut self, id: &str, change: documents::Change) {
        let write = Write { room: documents::room_of(id), op: None, change: Change::Documents(change) };
        self.submit(write, None);
    }

    fn submit(&mut self, write: Write, to: Option<ConnId>) {
        let shards = self.wiring.writers.len();
        if let Some(writer) = self.wiring.writers.get_mut(write.room.shard(shards)) {
            writer.post_or_wait(Job { to, asker: server(), write: Box::new(write), charged: 0 });
        }
    }

    /// Reads the directories again; the writer answers once that is committed.
    fn reload(&mut self, to: ConnId) {
        let scan = scan(&self.wiring.roots);
        for skipped in &scan.skipped {
            log::warn!("passed over: {skipped}");
        }
        // In parts, so that other rooms' commits come in between; one after the other, since they share a turn.
        let total = scan.files.len();
        let mut files = scan.files.into_iter();
        loop {
            let part: Vec<_> = files.by_ref().take(LOAD_BATCH).collect();
            let last = part.len() < LOAD_BATCH;
            let change = Change::Documents(documents::Change::Reload { files: part, total });
            self.submit(Write { room: RoomName::new(RELOAD_ROOM), op: None, change }, last.then_some(to));
            if last {
                break;
            }
        }
        self.compared = None;
    }

    /// Finds documents whose file is behind although no task says so.
    fn compare_if_due(&mut self) {
        let now = self.wiring.clock.mono();
        if self.wiring.roots.is_empty() || self.compared.is_some_and(|at| now.since(at) < COMPARE) {
            return;
        }
        self.compared = Some(now);
        let roots = self.wiring.roots.clone();
        let behind = self.over_snapshot(|rows| {
            let mut revisions = Vec::new();
            rows.each_document(&mut |document| {
                if roots.iter().any(|root| documents::is_within(root, &document.directory)) {
                    revisions.push((document.id, document.rev));
                }
                true
            })?;
            let mut marks: BTreeMap<String, u64> = BTreeMap::new();
            rows.each_file_mark(&mut |mark| {
                marks.insert(mark.document, mark.rev);
                true
            })?;
            let mut behind: Vec<String> =
                revisions.into_iter().filter(|(id, rev)| marks.remove(id) != Some(*rev)).map(|(id, _)| id).collect();
            // A file that is known, of a document that is gone: a removal that was cut off.
            for id in marks.into_keys() {
                let directory = id.rsplit_once('/').map_or("", |(directory, _)| directory);
                let ours = roots.iter().any(|root| documents::is_within(root, directory));
                if ours && rows.document(&id)?.is_none() {
                    behind.push(id);
                }
            }
            Ok(behind)
        });
        match behind {
            Ok(behind) => behind.into_iter().for_each(|id| self.pend(id)),
            Err(error) => log::warn!("files and documents could not be compared: {error}"),
        }
    }

    fn over_snapshot<T>(
        &mut self,
        ask: impl FnOnce(&mut dyn crate::model::Rows) -> Result<T, RowsError>,
    ) -> io::Result<T> {
        self.store.begin().map_err(io::Error::other)?;
        let answer = ask(self.store.rows());
        self.store.end();
        answer.map_err(io::Error::other)
    }
}

fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts the whole file there or leaves the old one: a reader, or a crash, never finds half of it.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    // Of a fixed length: a prompt's name may use up all that a file's name may have.
    let temporary = directory.join(format!(".commitcast-{}.tmp", std::process::id()));
    let written = write_through(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The half-written file is of no use to anybody; if it cannot be removed, the error below says why.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    File::open(directory)?.sync_all()
}

fn write_through(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
