//! Dialects: translators between a wire vocabulary and rooms. A dialect does no I/O and knows no socket.
//!
//! ```text
//! path ──route──▶ Target ──open──▶ Opening ─┬─ Accept{session, greeting, join}
//!                                           └─ Ask(Read) ──read──▶ Reply::Found ─(join)─▶ Reply::Welcome
//! message ─▶ Session::on_text ─▶ Intent ─┬─ Reply / Ignore / Close      (answered on the spot)
//! request ─▶ endpoint ─────────▶ Intent ─┼─ Read  ──read──▶ Reply       (on a reader's thread, one snapshot)
//!                                        └─ Write ──apply──▶ Applied    (on the writer's thread, in the transaction;
//!                                                  │                     its reply is let go after the commit)
//!                                                  └─failed─▶ Reply     (the commit did not come about)
//! event ──encode──▶ frame                                               (once per event and dialect)
//! ```
//!
//! Adding a dialect is a new folder, a variant of [`Name`] and its arms in the functions below; the reactor and the store
//! never name one.

pub mod documents;

use bytes::Bytes;

use crate::auth::rights::{Rights, Verb};
use crate::clock::Wall;
use crate::http::{Head, Method, Reason, Reject, Response};
use crate::ids::{ConnId, OpId, Position, RoomName, Seq};
use crate::model::{Event, Rows, RowsError, Transaction};
use crate::ws;

/// The vocabularies. The discriminant indexes [`Frames`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Name {
    Documents = 0,
    Native = 1,
}

impl Name {
    pub const ALL: [Name; 2] = [Name::Documents, Name::Native];

    pub fn as_str(self) -> &'static str {
        match self {
            Name::Documents => "documents",
            Name::Native => "native",
        }
    }

    pub fn parse(text: &str) -> Option<Name> {
        Name::ALL.into_iter().find(|name| name.as_str() == text)
    }

    pub fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// What a dialect may know of the server it runs in. Built once from the configuration.
#[derive(Clone, Debug, Default)]
pub struct Env {
    pub documents: documents::Env,
}

/// One event or signal, framed once for each dialect that shows it; empty where a dialect does not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frames([Bytes; Name::ALL.len()]);

impl Frames {
    pub fn of(&self, name: Name) -> &Bytes {
        &self.0[name as usize]
    }

    pub fn set(&mut self, name: Name, frame: Bytes) {
        self.0[name as usize] = frame;
    }

    pub fn len_max(&self) -> usize {
        self.0.iter().map(Bytes::len).max().unwrap_or(0)
    }
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq)]
pub enum Route {
    Socket(Target),
    /// HTTP only; the dialect's `endpoint` answers, 404 and 405 included.
    Endpoint(Name),
}

/// Where a socket wants to go.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// `/v1/echo`: debug mode only.
    Echo,
    Documents(documents::Target),
}

impl Target {
    pub fn dialect(&self) -> Name {
        match self {
            Target::Echo => Name::Native,
            Target::Documents(_) => Name::Documents,
        }
    }
}

/// What is to be done before the 101.
#[derive(Debug)]
pub enum Opening {
    Accept { session: Session, greeting: Option<Bytes>, join: Option<RoomName> },
    Ask(Box<Read>),
    Refuse(Reject),
}

/// What a connection is in the middle of: the dialect's own state, a few bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Session {
    Echo,
    Documents(documents::Session),
}

/// What a client asks for, or what to tell it at once.
#[derive(Debug)]
pub enum Intent {
    Ignore,
    /// A text frame with this payload.
    Reply(Bytes),
    /// The same, to a message that made no sense: too many of those end the connection.
    Complain(Bytes),
    /// A text frame, then a close with code 1000.
    ReplyThenClose(Bytes),
    Respond(Box<Response>),
    Read(Box<Read>),
    Write(Box<Write>),
    /// Rescan the document directories, then answer.
    Reload,
    /// The peer closes with this code (1005: with none). It takes its turn like any other message, so that whoever sends
    /// an edit and a close in one packet is still told what became of the edit.
    Farewell {
        echo: Option<ws::Close>,
        code: u16,
    },
}

/// A question to one consistent snapshot.
#[derive(Clone, Debug, PartialEq)]
pub enum Read {
    Documents(documents::Read),
}

/// A write asked for by a client, a program over HTTP, or the server's own directory reader.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// The room whose order this write takes its place in; decides the worker.
    pub room: RoomName,
    /// The client's own name for it.
    pub op: Option<OpId>,
    pub change: Change,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Documents(documents::Change),
}

impl Write {
    /// About how many bytes it brings to a transaction.
    pub fn weight(&self) -> usize {
        match &self.change {
            Change::Documents(change) => change.weight(),
        }
    }
}

/// What a reader or writer sends back. Built off the reactor, so that a long encoding stalls nobody.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Nothing to say.
    Silence,
    /// Framed bytes for a socket.
    Frame(Bytes),
    Response(Box<Response>),
    /// The room exists: join it, then ask `welcome`.
    Found {
        room: RoomName,
        session: Session,
        welcome: Box<Read>,
    },
    /// The first frame (framed), true at `position`.
    Welcome {
        frame: Bytes,
        position: Position,
    },
    /// Not to be opened.
    Reject(Reject),
    /// Say nothing that could be a lie; close with this reason's code.
    Close(Reject),
}

/// A write that was carried out in the transaction. All of it is let go only after the commit.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    pub reply: Reply,
    pub signals: Vec<Signal>,
    /// Documents whose Markdown file is to be brought up to date.
    pub files: Vec<FileTask>,
}

impl Applied {
    pub fn only(reply: Reply) -> Applied {
        Applied { reply, signals: Vec::new(), files: Vec::new() }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum FileTask {
    /// The document changed: write its newest committed state.
    Write { id: String },
    /// It is gone: remove the file it had.
    Remove { id: String },
    /// Read the directories again, then answer this connection.
    Reload { to: ConnId },
    /// Finish what is pending, once, and end.
    Stop,
}

/// A frame that is not state: it has no seq, is not stored, and may be dropped for a slow client.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    pub room: RoomName,
    pub frames: Frames,
}

/// Why a write got no commit, in the words a dialect needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Certain not to be stored; later it may work.
    Busy,
    /// Certain not to be stored: no space.
    Full,
    /// Certain not to be stored: the store stopped before it began.
    Broken,
    /// Nobody knows. Never to be told as a refusal.
    Unknown,
    /// Certain not to be stored: the credential does not grant it.
    Forbidden,
}

impl Failure {
    pub fn reason(self) -> Reason {
        match self {
            Failure::Busy => Reason::StoreBusy,
            Failure::Full => Reason::StoreFull,
            Failure::Broken => Reason::StoreBroken,
            Failure::Unknown => Reason::OutcomeUnknown,
            Failure::Forbidden => Reason::Forbidden,
        }
    }

    pub fn reject(self) -> Reject {
        let detail = match self {
            Failure::Busy => "the store is behind; nothing was saved",
            Failure::Full => "no space left; nothing was saved",
            Failure::Broken => "the store has stopped; nothing was saved",
            Failure::Unknown => "the store did not say whether this was saved",
            Failure::Forbidden => "writing is not granted; nothing was saved",
        };
        Reject::new(self.reason(), detail)
    }
}

/// Who asks: taken from the credential and the connection, never from a payload.
#[derive(Clone, Debug, PartialEq)]
pub struct Asker {
    pub actor: std::sync::Arc<str>,
    /// `ConnId::pack`; 0 for the server itself.
    pub origin: u64,
}

/// The dialect table: which target a path means. `path` is as sent (still percent-encoded), without the query.
pub fn route(path: &str) -> Result<Option<Route>, Reject> {
    if path == "/v1/echo" {
        return Ok(Some(Route::Socket(Target::Echo)));
    }
    documents::route(path)
}

/// Answers a plain HTTP request on a path that [`route`] knows.
pub fn endpoint(name: Name, head: &Head<'_>, body: &[u8], peer: &str, env: &Env) -> Intent {
    match name {
        Name::Documents => documents::endpoint(head, body, peer, &env.documents),
        Name::Native => {
            Intent::Respond(Box::new(Response::reject(&Reject::new(Reason::UnknownPath, "no such endpoint"))))
        }
    }
}

/// The pattern of all rooms that a dialect's endpoints may touch.
pub fn all_rooms(name: Name) -> &'static str {
    match name {
        Name::Documents => "doc:*",
        Name::Native => "*",
    }
}

/// What a request asks to do with those rooms. A POST may be a question whose text does not fit into a target.
pub fn verb(name: Name, head: &Head<'_>) -> Verb {
    match (head.method, name) {
        (Method::Get | Method::Head, _) => Verb::Read,
        (Method::Post, Name::Documents) if documents::only_asks(head.path) => Verb::Read,
        _ => Verb::Write,
    }
}

pub fn open(target: &Target) -> Opening {
    match target {
        Target::Echo => Opening::Accept { session: Session::Echo, greeting: None, join: None },
        Target::Documents(target) => documents::open(target),
    }
}

impl Session {
    pub fn dialect(&self) -> Name {
        match self {
            Session::Echo => Name::Native,
            Session::Documents(_) => Name::Documents,
        }
    }

    /// True when the member who caused an event is shown it too.
    pub fn hears_itself(&self) -> bool {
        match self {
            Session::Echo => true,
            Session::Documents(_) => false,
        }
    }

    pub fn on_text(&mut self, text: &str, now: Wall) -> Intent {
        match self {
            Session::Echo => Intent::Reply(Bytes::copy_from_slice(text.as_bytes())),
            Session::Documents(session) => session.on_text(text, now),
        }
    }

    pub fn on_binary(&mut self, bytes: &[u8], now: Wall) -> Intent {
        match self {
            Session::Echo => Intent::Ignore,
            Session::Documents(session) => session.on_binary(bytes, now),
        }
    }
}

/// Runs on a reader's thread over one snapshot.
pub fn read(read: &Read, rows: &mut dyn Rows, env: &Env, rights: Option<&Rights>) -> Result<Reply, RowsError> {
    match read {
        Read::Documents(read) => documents::read(read, rows, &env.documents, rights),
    }
}

/// The reply to a read that could not be made.
pub fn read_failed(read: &Read, failure: Failure) -> Reply {
    match read {
        Read::Documents(read) => documents::read_failed(read, failure),
    }
}

/// Runs on the writer's thread inside the transaction. Must find every reason to refuse before its first write: a
/// refusal is a reply, and the transaction it stands in commits.
pub fn apply(write: &Write, asker: &Asker, rows: &mut dyn Transaction, env: &Env) -> Result<Applied, RowsError> {
    match &write.change {
        Change::Documents(change) => documents::apply(change, write, asker, rows, &env.documents),
    }
}

/// The reply to a write whose operation id was stored before: the first answer again.
pub fn repeated(write: &Write, seq: Seq, answer: &str) -> Reply {
    match &write.change {
        Change::Documents(change) => documents::repeated(change, write, seq, answer),
    }
}

/// What tells a write from another one that was given the same operation id.
pub fn fingerprint(write: &Write) -> u64 {
    match &write.change {
        Change::Documents(change) => documents::fingerprint(change),
    }
}

/// The reply to a write whose operation id stands for another one.
pub fn id_taken(write: &Write) -> Reply {
    match &write.change {
        Change::Documents(change) => documents::id_taken(change),
    }
}

/// The reply to a write that got no commit. A write with an operation id may be the resend of one that was stored, and
/// where the store was never asked nobody can tell: then the honest answer is "unknown" (found by simulation: a resend
/// refused as busy while its original stood in the log). `Full` is certain, because the id was looked up before.
pub fn failed(write: &Write, failure: Failure) -> Reply {
    let failure = match failure {
        Failure::Busy | Failure::Broken if write.op.is_some() => Failure::Unknown,
        other => other,
    };
    match &write.change {
        Change::Documents(change) => documents::failed(change, failure),
    }
}

/// The answer to a reload where no directory is configured.
pub fn nothing_to_reload() -> Response {
    documents::reloaded(0)
}

/// Frames an event for the dialects in `listeners` (a union of [`Name::bit`]).
pub fn encode(room: &RoomName, event: &Event, listeners: u8) -> Frames {
    let mut frames = Frames::default();
    if listeners & Name::Documents.bit() != 0
        && let Some(payload) = documents::encode(room, event)
    {
        frames.set(Name::Documents, ws::frame::text(&payload));
    }
    frames
}

/// What a member of a dialect is told when the log no longer holds what it missed: `None` when a fresh snapshot needs no
/// word of its own.
pub fn snapshot(name: Name, room: &RoomName, rows: &mut dyn Rows) -> Result<Frames, RowsError> {
    let mut frames = Frames::default();
    if name == Name::Documents
        && let Some(payload) = documents::snapshot(room, rows)?
    {
        frames.set(Name::Documents, payload);
    }
    Ok(frames)
}
