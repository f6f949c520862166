//! Changes, carried out in the writer's open transaction: rows, events, and the reply in the shape of whoever asked.
//!
//! Every reason to refuse is found before the first row is written, since a refusal's transaction commits too. Nothing
//! here is seen by anybody before that commit (P1, P2): what goes out is handed back in [`Applied`].
//!
//! A Markdown file is a copy. Its mark says which bytes we last saw or wrote and which revision they hold, so that an
//! outside edit, an unfinished write-back and an unfinished removal can be told apart ([`Act::import`]).

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::rest::NEW_ID_BYTES_MAX;
use super::views::{self, Prompt};
use super::{DEBUG_ROOM, Env, lookup, paths, wire};
use crate::clock::Wall;
use crate::dialect::{Applied, Asker, Failure, FileTask, First, Frames, Name, Reply, Signal, Write};
use crate::http::Response;
use crate::ids::{FNV_START, OpId, RoomName, Seq, fnv};
use crate::limits::{PAGE_BYTES_MAX, PAGE_EVENTS_MAX};
use crate::model::{Document, Draft, FileMark, RowsError, Transaction};
use crate::ws;

#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Create {
        directory: String,
        name: String,
        content: String,
        description: Option<String>,
        tags: Vec<String>,
        /// What was done to the name before, for the one who wrote it.
        sanitized: Option<String>,
        asked: Asked,
    },
    /// `id` is canonical from a socket, any spelling over REST.
    Update {
        id: String,
        content: Option<String>,
        metadata: Option<Metadata>,
        asked: Asked,
    },
    Delete {
        id: String,
        asked: Asked,
    },
    /// May change the text on the way, as the newer editor does.
    Rename {
        id: String,
        /// None: where it is.
        directory: Option<String>,
        name: String,
        content: Option<String>,
        metadata: Option<Metadata>,
        asked: Asked,
    },
    /// A file was read that does not hold what its mark says.
    Import(Import),
    /// Files were read again, for a client who waits to hear how many there are; the last part's answer is the whole's.
    Reload {
        files: Vec<Import>,
        total: usize,
    },
    /// A file was written: it holds this revision.
    Synced {
        id: String,
        digest: [u8; 20],
        rev: u64,
        /// Of that revision: a prompt made anew under this id counts from 1 again.
        updated_at: Wall,
    },
    /// A file was removed after its document was.
    Removed {
        id: String,
    },
}

#[cfg(test)]
impl Change {
    /// A change for tests elsewhere that care only for its way.
    pub fn probe() -> Change {
        Change::Removed { id: "probe".to_owned() }
    }
}

impl Change {
    /// About how many bytes it brings to a transaction.
    pub fn weight(&self) -> usize {
        match self {
            Change::Create { content, .. } => content.len(),
            Change::Update { content, .. } | Change::Rename { content, .. } => content.as_ref().map_or(64, String::len),
            Change::Import(file) => file.content.len(),
            Change::Reload { files, .. } => files.iter().map(|file| file.content.len()).sum(),
            Change::Delete { .. } | Change::Synced { .. } | Change::Removed { .. } => 64,
        }
    }
}

/// What is to change besides the content; None leaves a field alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    pub description: Option<String>,
    pub tags: Option<Vec<String>>,
}

/// A Markdown file as read, see [`super::markdown::parse`].
#[derive(Clone, Debug, PartialEq)]
pub struct Import {
    pub directory: String,
    pub name: String,
    pub content: String,
    pub description: Option<String>,
    pub tags: Vec<String>,
    /// The file's times, for a document that is new here.
    pub created_at: Option<Wall>,
    pub updated_at: Option<Wall>,
    /// SHA-1 of the file's bytes.
    pub digest: [u8; 20],
}

/// Who waits for the reply, and so its shape.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// An `update_status`; with the operation's id when the client gave one.
    Socket {
        op: Option<OpId>,
    },
    Rest(Generation),
    Nobody,
}

/// Which revision of the originals' REST API a request speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// Ids are paths; requests carry a `name`.
    Path,
    /// Ids are file stems; requests carry the `id`.
    Stem,
}

pub fn apply(
    change: &Change,
    write: &Write,
    asker: &Asker,
    rows: &mut dyn Transaction,
    env: &Env,
) -> Result<Applied, RowsError> {
    let at = rows.at();
    let mut act = Act { rows, asker, op: write.op.as_ref(), env, at, signals: Vec::new(), files: Vec::new() };
    let reply = match change {
        Change::Create { directory, name, content, description, tags, sanitized, asked } => {
            let document = Document {
                id: Document::id_of(directory, name),
                directory: directory.clone(),
                name: name.clone(),
                content: content.clone(),
                description: description.clone(),
                tags: tags.clone(),
                created_at: at,
                updated_at: at,
                rev: 1,
            };
            act.create(document, sanitized.as_deref(), asked)?
        }
        Change::Update { id, content, metadata, asked } => {
            act.update(id, content.as_deref(), metadata.as_ref(), asked)?
        }
        Change::Delete { id, asked } => act.delete(id, asked)?,
        Change::Rename { id, directory, name, content, metadata, asked } => {
            act.rename(id, directory.as_deref(), name, content.as_deref(), metadata.as_ref(), asked)?
        }
        Change::Import(import) => act.import(import)?,
        Change::Reload { files, total } => {
            for import in files {
                act.import(import)?;
            }
            Reply::Response(Box::new(super::reloaded(*total)))
        }
        Change::Synced { id, digest, rev, updated_at } => {
            let document = act.rows.document(id)?;
            let is_same = document.is_none_or(|document| document.rev != *rev || document.updated_at == *updated_at);
            let rev = if is_same { *rev } else { 0 };
            act.rows.put_file_mark(&FileMark { document: id.clone(), digest: *digest, rev })?;
            Reply::Silence
        }
        Change::Removed { id } => {
            if act.rows.document(id)?.is_none() {
                act.rows.delete_file_mark(id)?;
            }
            Reply::Silence
        }
    };
    Ok(Applied { signals: act.signals, files: act.files, ..Applied::only(reply) })
}

/// The first answer again. The recorded answer is the transaction's time in microseconds.
pub fn repeated(change: &Change, _write: &Write, first: First<'_>) -> Reply {
    match asked(change) {
        Asked::Socket { op } => Reply::Frame(ws::frame::text(&wire::saved(first.at, op.as_ref(), first.seq, true))),
        // REST requests carry no operation id, so none of them is ever repeated.
        Asked::Rest(_) | Asked::Nobody => Reply::Silence,
    }
}

/// Of what only a socket's edit can be: REST requests carry no operation id.
pub fn fingerprint(change: &Change) -> u64 {
    let text = |start, text: Option<&str>| match text {
        Some(text) => fnv(fnv(start, b"+"), text.as_bytes()),
        None => fnv(start, b"-"),
    };
    match change {
        Change::Update { id, content, metadata, .. } => {
            let metadata = metadata.as_ref();
            let start = text(text(FNV_START, Some(id)), content.as_deref());
            let described = text(start, metadata.and_then(|metadata| metadata.description.as_deref()));
            let tags = metadata.and_then(|metadata| metadata.tags.as_ref());
            tags.into_iter().flatten().fold(text(described, tags.map(|_| "tags")), |hash, tag| text(hash, Some(tag)))
        }
        _ => FNV_START,
    }
}

pub fn id_taken(change: &Change) -> Reply {
    asked(change).refused(409, "this id was given to another edit; nothing was saved")
}

/// Fixed words for what certainly was not stored; for what nobody knows, a close and no word that could be a lie (G3).
pub fn failed(change: &Change, failure: Failure) -> Reply {
    let reject = failure.reject();
    match (asked(change), failure) {
        (Asked::Socket { .. }, Failure::Unknown) => Reply::Close(reject),
        (Asked::Socket { op }, Failure::Busy | Failure::Full | Failure::Broken | Failure::Forbidden) => {
            Reply::Frame(ws::frame::text(&wire::not_saved(&reject.detail, op.as_ref())))
        }
        (Asked::Rest(_), _) => Reply::Response(Box::new(Response::reject(&reject))),
        (Asked::Nobody, _) => Reply::Silence,
    }
}

fn asked(change: &Change) -> &Asked {
    match change {
        Change::Create { asked, .. }
        | Change::Update { asked, .. }
        | Change::Delete { asked, .. }
        | Change::Rename { asked, .. } => asked,
        Change::Reload { .. } => &Asked::Rest(Generation::Path),
        Change::Import(_) | Change::Synced { .. } | Change::Removed { .. } => &Asked::Nobody,
    }
}

impl Asked {
    fn refused(&self, status: u16, why: &str) -> Reply {
        match self {
            Asked::Socket { op } => Reply::Frame(ws::frame::text(&wire::not_saved(why, op.as_ref()))),
            Asked::Rest(_) => Reply::Response(Box::new(views::detail(status, why))),
            Asked::Nobody => Reply::Silence,
        }
    }

    fn stored(&self, at: Wall, seq: Seq, response: impl FnOnce(Generation) -> Response) -> Reply {
        match self {
            Asked::Socket { op } => Reply::Frame(ws::frame::text(&wire::saved(at, op.as_ref(), seq, false))),
            Asked::Rest(generation) => Reply::Response(Box::new(response(*generation))),
            Asked::Nobody => Reply::Silence,
        }
    }
}

/// One change under way.
struct Act<'a> {
    rows: &'a mut dyn Transaction,
    asker: &'a Asker,
    op: Option<&'a OpId>,
    env: &'a Env,
    at: Wall,
    signals: Vec<Signal>,
    files: Vec<FileTask>,
}

impl Act<'_> {
    fn create(&mut self, document: Document, sanitized: Option<&str>, asked: &Asked) -> Result<Reply, RowsError> {
        if lookup::exact(self.rows, &document.id)?.is_some() {
            return Ok(asked.refused(400, &taken(&document.id)));
        }
        let seq = self.begin(&document)?;
        self.write_back(&document);
        Ok(asked.stored(self.at, seq, |generation| {
            let status = match generation {
                Generation::Path => 201,
                Generation::Stem => 200,
            };
            let prompt = Prompt { sanitized_message: sanitized, ..Prompt::with_directory_name(&document) };
            Response::json(status, wire::json(&prompt))
        }))
    }

    /// Never brings a deleted document back (P13).
    fn update(
        &mut self,
        id: &str,
        content: Option<&str>,
        metadata: Option<&Metadata>,
        asked: &Asked,
    ) -> Result<Reply, RowsError> {
        let Some(mut document) = self.find(id, asked)? else {
            return Ok(asked.refused(404, &views::missing(id)));
        };
        let seq = self.edit(&mut document, content, metadata)?;
        if seq.is_some() {
            self.write_back(&document);
        }
        Ok(asked.stored(self.at, seq.unwrap_or_default(), |_| prompt_response(&document)))
    }

    fn delete(&mut self, id: &str, asked: &Asked) -> Result<Reply, RowsError> {
        let Some(document) = self.find(id, asked)? else {
            return Ok(asked.refused(404, &views::missing(id)));
        };
        let seq = self.end(&document, None)?;
        Ok(asked.stored(self.at, seq, |_| deleted_response(&document.id)))
    }

    fn rename(
        &mut self,
        id: &str,
        directory: Option<&str>,
        name: &str,
        content: Option<&str>,
        metadata: Option<&Metadata>,
        asked: &Asked,
    ) -> Result<Reply, RowsError> {
        let Some(old) = self.find(id, asked)? else {
            return Ok(asked.refused(404, &views::missing(id)));
        };
        let directory = directory.unwrap_or(&old.directory);
        let mut new = Document {
            id: Document::id_of(directory, name),
            directory: directory.to_owned(),
            name: name.to_owned(),
            ..old.clone()
        };
        if new.id.len() > NEW_ID_BYTES_MAX && new.id != old.id {
            return Ok(asked.refused(422, "directory and name are too long; nothing was saved"));
        }
        if new.id == old.id {
            let mut same = old;
            let seq = self.edit(&mut same, content, metadata)?;
            if seq.is_some() {
                self.write_back(&same);
            }
            return Ok(asked.stored(self.at, seq.unwrap_or_default(), |generation| match generation {
                Generation::Path => prompt_response(&same),
                Generation::Stem => renamed_response(&same.id, &same.id),
            }));
        }
        if lookup::exact(self.rows, &new.id)?.is_some() {
            return Ok(asked.refused(409, &taken(&new.id)));
        }
        set(&mut new, content, metadata);
        new.updated_at = self.at;
        new.rev = 1;
        let seq = self.end(&old, Some(&new.id))?;
        self.begin(&new)?;
        self.write_back(&new);
        Ok(asked.stored(self.at, seq, |generation| match generation {
            Generation::Path => prompt_response(&new),
            Generation::Stem => renamed_response(&old.id, &new.id),
        }))
    }

    /// What a file says against what the store says. The store is the authority; a file is believed only where it must
    /// have been edited by somebody else since we last had it in hand.
    fn import(&mut self, import: &Import) -> Result<Reply, RowsError> {
        let id = Document::id_of(&import.directory, &import.name);
        let document = self.rows.document(&id)?;
        let mark = self.rows.file_mark(&id)?;
        let ours = mark.as_ref().is_some_and(|mark| mark.digest == import.digest);
        match document {
            // Deleted here, and we stopped before the file was removed: else the file would bring it back (P13).
            None if ours => self.files.push(FileTask::Remove { id }),
            // The same, and we stopped before the last write-back was noted: a text of ours under a mark that is behind.
            None if mark.is_some() && self.was_logged(&id, &import.content)? => {
                self.rows.put_file_mark(&FileMark { document: id.clone(), digest: import.digest, rev: 0 })?;
                self.files.push(FileTask::Remove { id });
            }
            None => {
                let document = imported(import, id, self.at);
                self.begin(&document)?;
                self.mark(&document, import)?;
            }
            Some(document) if ours => {
                if mark.as_ref().is_some_and(|mark| mark.rev != document.rev) {
                    self.write_back(&document);
                }
            }
            Some(document) if says_the_same(import, &document) => self.mark(&document, import)?,
            // Written back, and we stopped before that was noted: an older state of ours, not an edit.
            Some(document)
                if mark.as_ref().is_none_or(|mark| mark.rev != document.rev)
                    && self.was_content(&document, &import.content)? =>
            {
                // Noted as seen, so that nobody waits for it or keeps a copy, unless its metadata could be an edit.
                if differences(import, &document).1.is_none() {
                    self.rows.put_file_mark(&FileMark {
                        document: document.id.clone(),
                        digest: import.digest,
                        rev: 0,
                    })?;
                }
                self.write_back(&document);
            }
            Some(mut document) => {
                let (content, metadata) = differences(import, &document);
                self.edit(&mut document, content, metadata.as_ref())?;
                document.description = import.description.clone().filter(|text| !text.is_empty());
                self.rows.put_document(&document)?;
                self.mark(&document, import)?;
            }
        }
        Ok(Reply::Silence)
    }

    fn find(&mut self, id: &str, asked: &Asked) -> Result<Option<Document>, RowsError> {
        match asked {
            Asked::Rest(_) => lookup::find(self.rows, id),
            Asked::Socket { .. } | Asked::Nobody => self.rows.document(id),
        }
    }

    /// A document's first row and event. A mark left over from an earlier document of this id vouches for no revision
    /// of the new one.
    fn begin(&mut self, document: &Document) -> Result<Seq, RowsError> {
        if let Some(mark) = self.rows.file_mark(&document.id)? {
            self.rows.put_file_mark(&FileMark { rev: 0, ..mark })?;
        }
        self.rows.put_document(document)?;
        let seq = self.append(&document.id, "created", wire::created_body(document))?;
        self.announce("prompt_created", &document.id);
        Ok(seq)
    }

    /// The next revision; None when nothing was asked for. Both events, when there are two, stand next to each other
    /// (G8), and tell what was asked for rather than what became of it (P10).
    fn edit(
        &mut self,
        document: &mut Document,
        content: Option<&str>,
        metadata: Option<&Metadata>,
    ) -> Result<Option<Seq>, RowsError> {
        if content.is_none() && metadata.is_none() {
            return Ok(None);
        }
        set(document, content, metadata);
        document.updated_at = self.at;
        document.rev += 1;
        self.rows.put_document(document)?;
        let mut first = None;
        if let Some(content) = content {
            first = Some(self.append(&document.id, "update", wire::update_body(content))?);
        }
        if let Some(Metadata { description, tags }) = metadata {
            let body = wire::metadata_body(description.as_deref(), tags.as_deref());
            let seq = self.append(&document.id, "update_metadata", body)?;
            first = first.or(Some(seq));
        }
        self.announce("prompt_updated", &document.id);
        Ok(first)
    }

    /// A document's last event. Its file's mark stays until the file is gone, see [`Act::import`].
    fn end(&mut self, document: &Document, renamed_to: Option<&str>) -> Result<Seq, RowsError> {
        self.rows.delete_document(&document.id)?;
        let seq = self.append(&document.id, "deleted", wire::deleted_body(renamed_to))?;
        self.announce("prompt_deleted", &document.id);
        if self.env.has_files_in(&document.directory) {
            self.files.push(FileTask::Remove { id: document.id.clone() });
        }
        Ok(seq)
    }

    fn append(&mut self, id: &str, kind: &'static str, body: Bytes) -> Result<Seq, RowsError> {
        let draft = Draft { room: paths::room_of(id), kind: Cow::Borrowed(kind), body };
        self.rows.append(draft, &self.asker.actor, self.op, self.asker.origin)
    }

    fn announce(&mut self, kind: &'static str, id: &str) {
        let mut frames = Frames::default();
        frames.set(Name::Documents, ws::frame::text(&wire::announcement(kind, id, self.at)));
        self.signals.push(Signal { room: RoomName::new(DEBUG_ROOM), frames, from: None });
    }

    fn write_back(&mut self, document: &Document) {
        if self.env.has_files_in(&document.directory) {
            self.files.push(FileTask::Write { id: document.id.clone() });
        }
    }

    fn mark(&mut self, document: &Document, import: &Import) -> Result<(), RowsError> {
        let mark = FileMark { document: document.id.clone(), digest: import.digest, rev: document.rev };
        self.rows.put_file_mark(&mark)
    }

    /// Is this the content of now or of one of the last events, as far as a file can tell?
    fn was_content(&mut self, document: &Document, content: &str) -> Result<bool, RowsError> {
        if document.content.trim() == content.trim() {
            return Ok(true);
        }
        self.was_logged(&document.id, content)
    }

    fn was_logged(&mut self, id: &str, content: &str) -> Result<bool, RowsError> {
        let room = paths::room_of(id);
        let Some(row) = self.rows.room(room.as_str())? else {
            return Ok(false);
        };
        let mut after = row.floor.max(Seq(row.head.0.saturating_sub(PAGE_EVENTS_MAX as u64)));
        loop {
            let events = self.rows.events(room.as_str(), after, PAGE_EVENTS_MAX, PAGE_BYTES_MAX)?;
            let Some(last) = events.last() else {
                return Ok(false);
            };
            after = last.seq;
            if events.iter().any(|event| content_of(&event.body).is_some_and(|was| was.trim() == content.trim())) {
                return Ok(true);
            }
        }
    }
}

fn set(document: &mut Document, content: Option<&str>, metadata: Option<&Metadata>) {
    if let Some(content) = content {
        document.content = content.to_owned();
    }
    if let Some(Metadata { description, tags }) = metadata {
        if let Some(description) = description {
            document.description = Some(description.clone());
        }
        if let Some(tags) = tags {
            document.tags = tags.clone();
        }
    }
}

fn imported(import: &Import, id: String, at: Wall) -> Document {
    let created_at = import.created_at.unwrap_or(at);
    Document {
        id,
        directory: import.directory.clone(),
        name: import.name.clone(),
        content: import.content.clone(),
        description: import.description.clone(),
        tags: import.tags.clone(),
        created_at,
        updated_at: import.updated_at.unwrap_or(created_at),
        rev: 1,
    }
}

/// A file cannot tell outer blank space in the content, nor an empty description from none; neither is an edit.
fn says_the_same(import: &Import, document: &Document) -> bool {
    let (content, metadata) = differences(import, document);
    content.is_none() && metadata.is_none()
}

fn differences<'i>(import: &'i Import, document: &Document) -> (Option<&'i str>, Option<Metadata>) {
    let content = (import.content.trim() != document.content.trim()).then_some(&*import.content);
    let description = import.description.as_deref().unwrap_or_default();
    let described = description != document.description.as_deref().unwrap_or_default();
    let tagged = import.tags != document.tags;
    let metadata = (described || tagged).then(|| Metadata {
        description: described.then(|| description.to_owned()),
        tags: tagged.then(|| import.tags.clone()),
    });
    (content, metadata)
}

fn content_of(body: &[u8]) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        content: Option<Cow<'a, str>>,
    }
    serde_json::from_slice::<Body<'_>>(body).ok()?.content
}

fn taken(id: &str) -> String {
    format!("Prompt with ID '{id}' already exists.")
}

fn prompt_response(document: &Document) -> Response {
    Response::json(200, wire::json(&Prompt::with_directory_name(document)))
}

/// Both generations' fields: a DELETE does not say which it is.
fn deleted_response(id: &str) -> Response {
    #[derive(Serialize)]
    struct Deleted<'a> {
        message: String,
        success: bool,
        id: &'a str,
    }
    let message = format!("Prompt '{id}' deleted successfully");
    Response::json(200, wire::json(&Deleted { message, success: true, id }))
}

fn renamed_response(old_id: &str, new_id: &str) -> Response {
    #[derive(Serialize)]
    struct Renamed<'a> {
        success: bool,
        old_id: &'a str,
        new_id: &'a str,
        message: String,
    }
    let message = format!("Prompt '{old_id}' renamed to '{new_id}'");
    Response::json(200, wire::json(&Renamed { success: true, old_id, new_id, message }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::dialect;
    use crate::dialect::fake::Fake;
    use serde_json::{Value, json};

    const STAMP: &str = "2025-05-13T01:59:00.123456+00:00";

    fn roots() -> Env {
        Env { roots: vec!["d".to_owned()] }
    }

    fn carry_out(rows: &mut Fake, change: Change) -> Applied {
        let op = match asked(&change) {
            Asked::Socket { op } => op.clone(),
            _ => None,
        };
        let write = Write { room: RoomName::new("any"), op, change: dialect::Change::Documents(change.clone()) };
        apply(&change, &write, &Asker { actor: "ann".into(), origin: 9, verified: false }, rows, &roots()).unwrap()
    }

    fn update(id: &str, content: Option<&str>, metadata: Option<Metadata>, asked: Asked) -> Change {
        Change::Update { id: id.into(), content: content.map(str::to_owned), metadata, asked }
    }

    fn socket() -> Asked {
        Asked::Socket { op: None }
    }

    fn path() -> Asked {
        Asked::Rest(Generation::Path)
    }

    fn create(directory: &str, name: &str, asked: Asked) -> Change {
        Change::Create {
            directory: directory.into(),
            name: name.into(),
            content: "C".into(),
            description: None,
            tags: vec!["t".into()],
            sanitized: None,
            asked,
        }
    }

    fn file(content: &str, digest: u8) -> Import {
        Import {
            directory: "d".into(),
            name: "a".into(),
            content: content.into(),
            description: None,
            tags: Vec::new(),
            created_at: Some(Wall(1)),
            updated_at: Some(Wall(2)),
            digest: [digest; 20],
        }
    }

    fn framed(payload: &str) -> Reply {
        Reply::Frame(ws::frame::text(payload.as_bytes()))
    }

    fn response(applied: &Applied) -> (u16, Value) {
        let Reply::Response(response) = &applied.reply else { panic!("{:?}", applied.reply) };
        (response.status, serde_json::from_slice(&response.body).unwrap())
    }

    /// Type and id of each announcement.
    fn announced(applied: &Applied) -> Vec<String> {
        let word = |signal: &Signal| {
            assert_eq!(signal.room.as_str(), "debug");
            let frame = signal.frames.of(Name::Documents);
            let from = frame.windows(2).position(|pair| pair == b"{\"").unwrap();
            let value: Value = serde_json::from_slice(&frame[from..]).unwrap();
            assert_eq!(value["timestamp"], STAMP);
            format!("{} {}", value["type"].as_str().unwrap(), value["id"].as_str().unwrap())
        };
        applied.signals.iter().map(word).collect()
    }

    #[test]
    fn a_socket_s_update_is_a_row_an_event_a_status_an_announcement_and_a_file() {
        let mut rows = Fake::with(&["d/a"]);
        let applied = carry_out(&mut rows, update("d/a", Some("new"), None, socket()));
        assert_eq!(
            applied.reply,
            framed(&format!(r#"{{"action":"update_status","success":true,"timestamp":"{STAMP}"}}"#))
        );
        assert_eq!(rows.told("doc:d/a"), [r#"update {"content":"new"}"#]);
        let event = &rows.log["doc:d/a"][0];
        assert_eq!((&*event.actor, event.origin, &event.op), ("ann", 9, &None));
        let document = &rows.documents["d/a"];
        assert_eq!((&*document.content, document.rev, document.updated_at), ("new", 2, rows.at));
        assert_eq!(announced(&applied), ["prompt_updated d/a"]);
        assert_eq!(applied.files, [FileTask::Write { id: "d/a".into() }]);
    }

    #[test]
    fn an_empty_string_is_a_real_update_and_a_named_one_is_told_its_number() {
        let mut rows = Fake::with(&["d/a"]);
        let op = OpId("op1".into());
        carry_out(&mut rows, update("d/a", Some("x"), None, socket()));
        let change = update("d/a", Some(""), None, Asked::Socket { op: Some(op.clone()) });
        let applied = carry_out(&mut rows, change.clone());
        let status = |dup| {
            framed(&format!(
                r#"{{"action":"update_status","success":true,"timestamp":"{STAMP}","id":"op1","seq":2{dup}}}"#
            ))
        };
        assert_eq!(applied.reply, status(""));
        assert_eq!(rows.documents["d/a"].content, "");
        assert_eq!(rows.log["doc:d/a"][1].op, Some(op.clone()));
        let write =
            Write { room: RoomName::new("doc:d/a"), op: Some(op), change: dialect::Change::Documents(change.clone()) };
        assert_eq!(repeated(&change, &write, First { seq: Seq(2), at: rows.at, note: "" }), status(r#","dup":true"#));
    }

    #[test]
    fn p10_metadata_events_carry_what_was_asked_for() {
        let mut rows = Fake::with(&["d/a"]);
        for (metadata, expected) in [
            (
                Metadata { description: Some("D".into()), tags: None },
                r#"update_metadata {"description":"D","tags":null}"#,
            ),
            (
                Metadata { description: None, tags: Some(vec!["x".into()]) },
                r#"update_metadata {"description":null,"tags":["x"]}"#,
            ),
            (Metadata::default(), r#"update_metadata {"description":null,"tags":null}"#),
        ] {
            carry_out(&mut rows, update("d/a", None, Some(metadata), socket()));
            assert_eq!(rows.told("doc:d/a").pop().unwrap(), expected);
        }
        let document = &rows.documents["d/a"];
        assert_eq!(
            (document.description.as_deref(), &*document.tags, document.rev),
            (Some("D"), &["x".to_owned()][..], 4)
        );
    }

    #[test]
    fn p13_a_late_update_does_not_bring_a_deleted_prompt_back() {
        let mut rows = Fake::with(&["d/a"]);
        let applied = carry_out(&mut rows, Change::Delete { id: "d/a".into(), asked: path() });
        let body = json!({"message": "Prompt 'd/a' deleted successfully", "success": true, "id": "d/a"});
        assert_eq!(response(&applied), (200, body));
        assert_eq!(announced(&applied), ["prompt_deleted d/a"]);
        assert_eq!(applied.files, [FileTask::Remove { id: "d/a".into() }]);

        let before = rows.told("doc:d/a");
        assert_eq!(before, ["deleted {}"]);
        let applied = carry_out(&mut rows, update("d/a", Some("late"), None, socket()));
        let status = r#"{"action":"update_status","success":false,"error":"Prompt 'd/a' not found"}"#;
        assert_eq!(applied, Applied::only(framed(status)));
        let gone = (404, json!({"detail": "Prompt 'd/a' not found"}));
        assert_eq!(response(&carry_out(&mut rows, update("d/a", Some("late"), None, path()))), gone);
        assert_eq!(response(&carry_out(&mut rows, Change::Delete { id: "d/a".into(), asked: path() })), gone);
        assert_eq!(rows.told("doc:d/a"), before);
        assert!(rows.documents.is_empty());

        let applied = carry_out(&mut rows, create("d", "a", path()));
        assert_eq!(announced(&applied), ["prompt_created d/a"]);
        assert_eq!(rows.told("doc:d/a").len(), 2, "the same room goes on");
    }

    #[test]
    fn a_socket_s_update_names_its_document_exactly() {
        let mut rows = Fake::with(&["d/a"]);
        let applied = carry_out(&mut rows, update("a", Some("x"), None, socket()));
        let status = r#"{"action":"update_status","success":false,"error":"Prompt 'a' not found"}"#;
        assert_eq!(applied.reply, framed(status));
    }

    #[test]
    fn a_put_reaches_the_canonical_room_with_contiguous_events() {
        let mut rows = Fake::with(&["d/a"]);
        let metadata = Metadata { description: Some("D".into()), tags: None };
        let applied = carry_out(&mut rows, update("a", Some("new"), Some(metadata), path()));
        let (status, value) = response(&applied);
        assert_eq!((status, &value["id"], &value["directory_name"]), (200, &json!("d/a"), &json!("d")));
        assert_eq!(value["updated_at"], "2025-05-13T01:59:00.123456Z");
        assert_eq!(
            rows.told("doc:d/a"),
            [r#"update {"content":"new"}"#, r#"update_metadata {"description":"D","tags":null}"#]
        );
        assert_eq!(rows.documents["d/a"].rev, 2, "one change");
        let applied = carry_out(&mut rows, update("a", None, None, path()));
        assert_eq!((response(&applied).0, applied.files, applied.signals), (200, vec![], vec![]));
        assert_eq!(rows.documents["d/a"].rev, 2, "nothing asked, nothing changed");
    }

    #[test]
    fn creating_answers_each_generation_and_refuses_a_taken_id() {
        let mut rows = Fake::with(&["/abs/a"]);
        let (status, value) = response(&carry_out(&mut rows, create("d", "new", path())));
        assert_eq!((status, &value["id"], &value["tags"]), (201, &json!("d/new"), &json!(["t"])));
        assert_eq!(rows.told("doc:d/new"), [r#"created {"content":"C","description":null,"tags":["t"]}"#]);
        let stem = create("d", "other", Asked::Rest(Generation::Stem));
        assert_eq!(response(&carry_out(&mut rows, stem)).0, 200);
        for (directory, name, id) in [("d", "new", "d/new"), ("abs", "a", "abs/a")] {
            let taken = json!({"detail": format!("Prompt with ID '{id}' already exists.")});
            let applied = carry_out(&mut rows, create(directory, name, path()));
            assert_eq!(response(&applied), (400, taken));
            assert_eq!((applied.signals, applied.files), (vec![], vec![]));
        }
        let applied = carry_out(&mut rows, create("elsewhere", "x", path()));
        assert_eq!(applied.files, [], "no file outside the roots");
    }

    #[test]
    fn renaming_tells_both_rooms() {
        let rename = |id: &str, directory: Option<&str>, name: &str, asked| Change::Rename {
            id: id.into(),
            directory: directory.map(str::to_owned),
            name: name.into(),
            content: None,
            metadata: None,
            asked,
        };
        let mut rows = Fake::with(&["d/a", "d/taken"]);
        let applied = carry_out(&mut rows, rename("a", None, "b", path()));
        let (status, value) = response(&applied);
        assert_eq!((status, &value["id"], &value["content"]), (200, &json!("d/b"), &json!("text of d/a")));
        assert_eq!(rows.told("doc:d/a"), [r#"deleted {"renamed_to":"d/b"}"#]);
        assert_eq!(rows.told("doc:d/b"), [r#"created {"content":"text of d/a","description":null,"tags":[]}"#]);
        assert_eq!(announced(&applied), ["prompt_deleted d/a", "prompt_created d/b"]);
        assert_eq!(rows.documents["d/b"].created_at, Wall(1_700_000_000_000_000));
        assert_eq!(applied.files, [FileTask::Remove { id: "d/a".into() }, FileTask::Write { id: "d/b".into() }]);

        let stem = rename("d/b", Some("x"), "c", Asked::Rest(Generation::Stem));
        let applied = carry_out(&mut rows, stem);
        let message = "Prompt 'd/b' renamed to 'x/c'";
        assert_eq!(
            response(&applied),
            (200, json!({"success": true, "old_id": "d/b", "new_id": "x/c", "message": message}))
        );
        let applied = carry_out(&mut rows, rename("d/taken", Some("x"), "c", path()));
        assert_eq!(response(&applied), (409, json!({"detail": "Prompt with ID 'x/c' already exists."})));
        assert_eq!(response(&carry_out(&mut rows, rename("none", None, "c", path()))).0, 404);
        let applied = carry_out(&mut rows, rename("x/c", None, "c", path()));
        assert_eq!((response(&applied).0, applied.signals), (200, vec![]));
        let (status, value) = response(&carry_out(&mut rows, rename("x/c", None, "c", Asked::Rest(Generation::Stem))));
        assert_eq!((status, &value["success"], &value["new_id"]), (200, &json!(true), &json!("x/c")));
    }

    #[test]
    fn a_prompt_is_not_renamed_to_an_id_that_could_not_be_created() {
        let deep = format!("{}/a", "d".repeat(NEW_ID_BYTES_MAX - 2));
        let mut rows = Fake::with(&[&deep]);
        let change = Change::Rename {
            id: deep.clone(),
            directory: None,
            name: "bb".to_owned(),
            content: None,
            metadata: None,
            asked: path(),
        };
        let applied = carry_out(&mut rows, change);
        assert_eq!((response(&applied).0, applied.signals, rows.documents.contains_key(&deep)), (422, vec![], true));
    }

    #[test]
    fn a_new_file_becomes_a_document_and_an_edited_one_an_edit() {
        let mut rows = Fake::with(&[]);
        let applied = carry_out(&mut rows, Change::Import(file("one", 1)));
        assert_eq!((applied.reply.clone(), applied.files.clone()), (Reply::Silence, vec![]));
        assert_eq!(announced(&applied), ["prompt_created d/a"]);
        let document = &rows.documents["d/a"];
        assert_eq!((&*document.content, document.created_at, document.updated_at), ("one", Wall(1), Wall(2)));
        assert_eq!(rows.marks["d/a"], FileMark { document: "d/a".into(), digest: [1; 20], rev: 1 });

        let edited = Import { description: Some("D".into()), ..file("two", 2) };
        carry_out(&mut rows, Change::Import(edited));
        assert_eq!(rows.documents["d/a"].description.as_deref(), Some("D"));
        let expected = [r#"update {"content":"two"}"#, r#"update_metadata {"description":"D","tags":null}"#];
        assert_eq!(rows.told("doc:d/a")[1..], expected);
        assert_eq!(rows.marks["d/a"].rev, 2);

        carry_out(&mut rows, Change::Import(file("two", 3)));
        assert_eq!(rows.documents["d/a"].description, None);
        assert_eq!(rows.told("doc:d/a")[3], r#"update_metadata {"description":"","tags":null}"#);

        let applied = carry_out(&mut rows, Change::Import(file("  two\n", 4)));
        assert_eq!(applied, Applied::only(Reply::Silence), "blank space is no edit");
        assert_eq!(rows.marks["d/a"], FileMark { document: "d/a".into(), digest: [4; 20], rev: 3 });
    }

    #[test]
    fn an_unfinished_write_back_is_finished_and_never_taken_for_an_edit() {
        let mut rows = Fake::with(&[]);
        carry_out(&mut rows, Change::Import(file("one", 1)));
        for content in ["two", "three"] {
            carry_out(&mut rows, update("d/a", Some(content), None, socket()));
        }
        let document = rows.documents["d/a"].clone();
        // Stopped before the first write-back; stopped after one whose mark was not committed.
        for import in [file("one", 1), file("two", 7), Import { tags: vec!["t".into()], ..file("three", 8) }] {
            let applied = carry_out(&mut rows, Change::Import(import));
            assert_eq!(applied.files, [FileTask::Write { id: "d/a".into() }]);
            assert_eq!(rows.documents["d/a"], document);
        }
        assert_eq!(rows.marks["d/a"], FileMark { document: "d/a".into(), digest: [7; 20], rev: 0 });
        let synced = Change::Synced { id: "d/a".into(), digest: [9; 20], rev: 3, updated_at: document.updated_at };
        assert_eq!(carry_out(&mut rows, synced), Applied::only(Reply::Silence));
        assert_eq!(carry_out(&mut rows, Change::Import(file("three", 9))), Applied::only(Reply::Silence));
        // In step again: now an old text is somebody's choice, such as a checkout.
        carry_out(&mut rows, Change::Import(file("two", 7)));
        assert_eq!(rows.documents["d/a"].content, "two");
    }

    #[test]
    fn p13_an_unfinished_removal_is_finished_and_brings_nothing_back() {
        let mut rows = Fake::with(&[]);
        carry_out(&mut rows, Change::Import(file("one", 1)));
        carry_out(&mut rows, Change::Delete { id: "d/a".into(), asked: path() });
        let applied = carry_out(&mut rows, Change::Import(file("one", 1)));
        assert_eq!((applied.files, rows.documents.len()), (vec![FileTask::Remove { id: "d/a".into() }], 0));
        assert_eq!(carry_out(&mut rows, Change::Removed { id: "d/a".into() }), Applied::only(Reply::Silence));
        assert!(rows.marks.is_empty());
        carry_out(&mut rows, Change::Import(file("one", 1)));
        assert_eq!(rows.documents.len(), 1, "the same text, put there anew");
        carry_out(&mut rows, Change::Removed { id: "d/a".into() });
        assert_eq!(rows.marks.len(), 1, "a removal that comes late takes no mark of the new document");
    }

    #[test]
    fn a_mark_of_an_earlier_document_vouches_for_nothing() {
        let mut rows = Fake::with(&[]);
        carry_out(&mut rows, Change::Import(file("old", 1)));
        carry_out(&mut rows, Change::Delete { id: "d/a".into(), asked: path() });
        carry_out(&mut rows, create("d", "a", path()));
        let applied = carry_out(&mut rows, Change::Import(file("old", 1)));
        assert_eq!(applied.files, [FileTask::Write { id: "d/a".into() }]);
        assert_eq!(rows.documents["d/a"].content, "C");
    }

    #[test]
    fn g3_what_nobody_knows_is_never_called_a_refusal() {
        let op = Some(OpId("o".into()));
        let change = |asked| update("d/a", Some("x"), None, asked);
        for failure in [Failure::Busy, Failure::Full, Failure::Broken, Failure::Forbidden] {
            let reject = failure.reject();
            let status =
                format!(r#"{{"action":"update_status","success":false,"error":"{}","id":"o"}}"#, reject.detail);
            assert_eq!(failed(&change(Asked::Socket { op: op.clone() }), failure), framed(&status));
        }
        let unknown = Failure::Unknown.reject();
        assert_eq!(failed(&change(Asked::Socket { op }), Failure::Unknown), Reply::Close(unknown));
        for (failure, status) in [(Failure::Busy, 503), (Failure::Full, 507), (Failure::Unknown, 504)] {
            let Reply::Response(response) = failed(&change(path()), failure) else { panic!() };
            assert_eq!(response.status, status);
        }
        assert_eq!(failed(&Change::Import(file("x", 1)), Failure::Unknown), Reply::Silence);
    }
}
