//! Dialects: translators between a wire vocabulary and rooms. A dialect does no I/O and knows no socket.
//!
//! ```text
//! path ──route──▶ Target ──open──▶ Opening ─┬─ Accept{session, greeting, join}
//!                                           ├─ Enter(Entrance) ─(join rooms)─▶ ask ─▶ Reply::Welcome
//!                                           └─ Ask(Read) ──read──▶ Reply::Found(Entrance) ─┘
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

pub mod agents;
pub mod backend;
pub mod documents;
#[cfg(test)]
pub mod fake;
pub mod json;
pub mod native;
pub mod publish;
pub mod sound;
pub mod tickets;
pub mod time;
pub mod workflows;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::auth::ApiKey;
use crate::auth::revoked::{Revocations, Ruling};
use crate::auth::rights::{Rights, Verb};
use crate::clock::Wall;
use crate::directory::{Directory, Stand};
use crate::http::{Head, Method, Reason, Reject, Response};
use crate::ids::{ConnId, OpId, RoomName, Seq};
use crate::model::{Attached, Event, Rows, RowsError, Task, Tasks, Transaction};
use crate::mutant::Canary;
use crate::ws;

/// The vocabularies. The discriminant indexes [`Frames`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Name {
    Documents = 0,
    Workflows = 1,
    Tickets = 2,
    Agents = 3,
    /// New applications, and backends.
    Native = 4,
}

impl Name {
    pub const ALL: [Name; 5] = [Name::Documents, Name::Workflows, Name::Tickets, Name::Agents, Name::Native];

    pub fn as_str(self) -> &'static str {
        match self {
            Name::Documents => "documents",
            Name::Workflows => "workflows",
            Name::Tickets => "tickets",
            Name::Agents => "agents",
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
    pub agents: agents::Env,
    /// How many members a room has, over all reactors: for truthful counts.
    pub directory: Arc<Directory>,
    /// Which kinds of task somebody takes now.
    pub attached: Arc<Attached>,
    /// What is wrong with this server on purpose: nothing, outside of tests.
    pub canary: Canary,
    /// Which tokens are not believed any more.
    pub revoked: Arc<Revocations>,
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
    /// HTTP of the backend protocol, judged by its API key; [`backend::endpoint`] answers.
    Backend,
}

/// Where a socket wants to go.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// `/v1/echo`: debug mode only.
    Echo,
    Documents(documents::Target),
    Workflows(workflows::Target),
    Tickets(tickets::Target),
    Agents(agents::Target),
    /// `/v1/connect`. May come without a credential and show it in its first message.
    Native,
    /// `/v1/backend`: judged by its API key.
    Backend,
}

impl Target {
    pub fn dialect(&self) -> Name {
        match self {
            Target::Echo | Target::Native | Target::Backend => Name::Native,
            Target::Documents(_) => Name::Documents,
            Target::Workflows(_) => Name::Workflows,
            Target::Tickets(_) => Name::Tickets,
            Target::Agents(_) => Name::Agents,
        }
    }
}

/// What is to be done before the 101.
#[derive(Debug)]
pub enum Opening {
    /// Nothing is to be asked. `join`: a room whose signals it hears, and of whose log it is shown nothing.
    Accept {
        session: Session,
        greeting: Option<Bytes>,
        join: Option<RoomName>,
    },
    Enter(Box<Entrance>),
    Ask(Box<Read>),
    Refuse(Reject),
}

/// Rooms to join, and the question that is asked when they are joined; its answer is [`Reply::Welcome`]. The first room is
/// what the socket is for; the others are joined where the credential grants them.
#[derive(Clone, Debug, PartialEq)]
pub struct Entrance {
    pub session: Session,
    pub rooms: Vec<RoomName>,
    pub ask: Query,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    Read(Box<Read>),
    Write(Box<Write>),
}

/// What a connection is in the middle of: the dialect's own state, a few bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Session {
    Echo,
    Documents(documents::Session),
    Workflows(workflows::Session),
    Tickets(tickets::Session),
    Agents(agents::Session),
    Native(native::Session),
    Backend(backend::Session),
}

/// What a client asks for, or what to tell it at once.
#[derive(Debug)]
pub enum Intent {
    Ignore,
    /// A text frame with this payload.
    Reply(Bytes),
    /// The same, to a message that made no sense: too many of those end the connection.
    Complain(Bytes),
    /// A text frame (none when the payload is empty), then a close with code 1000.
    ReplyThenClose(Bytes),
    /// A close with this reason's code.
    Close(Reject),
    Respond(Box<Response>),
    Read(Box<Read>),
    Write(Box<Write>),
    /// Join a room, then ask; [`Reply::Welcome`] starts the membership, any other answer undoes it. Joining a room again
    /// starts afresh.
    Join(Box<Joining>),
    /// Leave a room (or none) and say this.
    Leave {
        room: RoomName,
        reply: Bytes,
    },
    /// Something that is not state, to the other members of a room: see [`signal`]. `data` is a JSON value as text.
    Signal {
        room: RoomName,
        data: Bytes,
    },
    /// Who is in this room, and who comes and goes from now on: see [`presence`].
    Presence {
        room: RoomName,
    },
    /// The first credential, or a fresh one.
    Authenticate {
        token: String,
    },
    /// A question about every connection of the process: answered by [`census`].
    Census(Box<Read>),
    /// Close a connection (code 4403 and this reason), then answer [`evicted`].
    Evict {
        conn: ConnId,
        reason: String,
    },
    /// Writes carried out one after the other, whose [`Reply::Lines`] are streamed as one NDJSON response.
    Stream(VecDeque<Write>),
    /// Rescan the document directories, then answer.
    Reload,
    /// The peer closes with this code (1005: with none). It takes its turn like any other message, so that whoever sends
    /// an edit and a close in one packet is still told what became of the edit.
    Farewell {
        echo: Option<ws::Close>,
        code: u16,
    },
}

impl Intent {
    /// The room that it touches, and the right that it needs there. `None`: its own dialect has judged it.
    pub fn needs(&self) -> Option<(&RoomName, Verb)> {
        match self {
            Intent::Write(write) => Some((&write.room, write.change.verb()?)),
            Intent::Join(joining) => Some((&joining.room, Verb::Read)),
            Intent::Signal { room, .. } => Some((room, Verb::Signal)),
            Intent::Presence { room } => Some((room, Verb::Presence)),
            _ => None,
        }
    }

    /// Bytes of a client's text that it holds, for as long as it has to wait.
    pub fn weight(&self) -> usize {
        match self {
            Intent::Write(write) => write.weight(),
            Intent::Stream(writes) => weight_of(writes),
            Intent::Reply(text) | Intent::Complain(text) | Intent::ReplyThenClose(text) => text.len(),
            Intent::Leave { reply, .. } => reply.len(),
            Intent::Signal { data, .. } => data.len(),
            Intent::Authenticate { token } => token.len(),
            Intent::Respond(response) => response.body.len(),
            // Names, which are short.
            Intent::Ignore | Intent::Close(_) | Intent::Read(_) | Intent::Join(_) | Intent::Presence { .. } => 0,
            Intent::Census(_) | Intent::Evict { .. } | Intent::Reload | Intent::Farewell { .. } => 0,
        }
    }
}

/// Bytes of writes in a row: many small ones come to more than the text that they were read from.
pub fn weight_of(writes: &VecDeque<Write>) -> usize {
    writes.iter().map(|write| write.weight() + size_of::<Write>()).sum()
}

#[derive(Clone, Debug, PartialEq)]
pub struct Joining {
    pub room: RoomName,
    pub ask: Read,
}

/// A question to one consistent snapshot.
#[derive(Clone, Debug, PartialEq)]
pub enum Read {
    Documents(documents::Read),
    Workflows(workflows::Read),
    Tickets(tickets::Read),
    Agents(agents::Read),
    Native(native::Read),
    Backend(backend::Read),
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
    Workflows(workflows::Change),
    Tickets(tickets::Change),
    Agents(agents::Change),
    Native(native::Change),
    Backend(backend::Change),
    /// Several writes of one request, each for itself: what is refused of them does not undo the others. Their replies are
    /// [`Reply::Frame`]s, here unframed lines, and become one [`Reply::Lines`].
    Batch(Vec<Write>),
    /// Something was due (`model::Record::due`). The writer's own.
    Due,
    /// Not a change of rows: a backend's wish to be given tasks. Dealt with by the store.
    Desk(Desk),
}

/// What the store's desk, which hands out tasks, is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Desk {
    /// A socket takes up to `max` tasks of these kinds at a time, from now on; said again, it replaces what was said.
    Take { kinds: Tasks, max: u16, lease: Duration },
    /// A request takes up to `max` tasks, once: answered when there is one, or with none after `wait`.
    Poll { kinds: Tasks, max: u16, lease: Duration, wait: Duration },
    /// The connection is gone, and with it what it held.
    Gone { conn: ConnId },
}

impl Change {
    /// The right that it needs in its room; none where the dialect has judged, or nobody is to be judged.
    pub fn verb(&self) -> Option<Verb> {
        match self {
            Change::Documents(_) => Some(Verb::Write),
            Change::Workflows(change) => change.verb(),
            Change::Tickets(change) => change.verb(),
            Change::Agents(change) => change.verb(),
            Change::Native(change) => change.verb(),
            Change::Backend(_) | Change::Batch(_) | Change::Due | Change::Desk(_) => None,
        }
    }
}

impl Write {
    /// How many operations it is.
    pub fn operations(&self) -> usize {
        match &self.change {
            Change::Batch(writes) => writes.len(),
            _ => 1,
        }
    }

    /// About how many bytes it brings to a transaction.
    pub fn weight(&self) -> usize {
        match &self.change {
            Change::Documents(change) => change.weight(),
            Change::Workflows(change) => change.weight(),
            Change::Tickets(change) => change.weight(),
            Change::Agents(change) => change.weight(),
            Change::Native(change) => change.weight(),
            Change::Backend(change) => change.weight(),
            Change::Batch(writes) => writes.iter().map(Write::weight).sum(),
            Change::Due | Change::Desk(_) => 64,
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
    /// It exists: join it and ask.
    Found(Box<Entrance>),
    /// What is said first (framed, may be several frames or none), and from where each joined room is shown.
    Welcome {
        frame: Bytes,
        starts: Vec<Start>,
        /// Where the one joined room was found to stand, when all that a later joiner is told is in that.
        stand: Option<Stand>,
    },
    /// A piece of an NDJSON response.
    Lines(Bytes),
    /// The answer comes later, by itself (a poll for tasks).
    Later,
    /// Not to be opened.
    Reject(Reject),
    /// Say nothing that could be a lie; close with this reason's code.
    Close(Reject),
}

/// Where a member starts: it is shown what comes after `after`, from the log up to `head` and live from there.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    pub room: RoomName,
    pub after: Seq,
    pub head: Seq,
}

impl Start {
    /// Shown only what is new.
    pub fn live(room: RoomName, head: Seq) -> Start {
        Start { room, after: head, head }
    }
}

/// A write that was carried out in the transaction. All of it is let go only after the commit.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    pub reply: Reply,
    pub signals: Vec<Signal>,
    /// Documents whose Markdown file is to be brought up to date.
    pub files: Vec<FileTask>,
    /// What is revoked from now on, or is no longer.
    pub rulings: Vec<Ruling>,
    /// What [`repeated`] needs to give this answer again.
    pub note: String,
}

impl Applied {
    pub fn only(reply: Reply) -> Applied {
        Applied { reply, signals: Vec::new(), files: Vec::new(), rulings: Vec::new(), note: String::new() }
    }

    pub fn noted(reply: Reply, note: String) -> Applied {
        Applied { note, ..Applied::only(reply) }
    }
}

/// The first answer to an operation, as it was stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct First<'a> {
    /// Of its event in the room of the write.
    pub seq: Seq,
    pub at: Wall,
    /// [`Applied::note`].
    pub note: &'a str,
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
    /// Who says it, and is not told.
    pub from: Option<ConnId>,
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
    pub actor: Arc<str>,
    /// `ConnId::pack`; 0 for the server itself, and over HTTP.
    pub origin: u64,
    /// The actor was shown by a credential that had to be good (token mode), so that owners can be told from others.
    pub verified: bool,
}

/// One connection as a [`census`] sees it.
#[derive(Clone, Debug)]
pub struct ConnView {
    pub id: ConnId,
    pub session: Session,
    pub user: Arc<str>,
    pub client: IpAddr,
    pub connected_at: Wall,
    pub rooms: Vec<RoomName>,
}

/// What a newcomer is told of the server.
#[derive(Clone, Debug)]
pub struct Hello<'a> {
    pub conn: ConnId,
    pub user: &'a str,
    pub durability: &'static str,
    pub ping: Duration,
    /// How long its credential is worth something.
    pub expires_in: Option<Duration>,
}

/// The dialect table: which target a path means. `path` is as sent (still percent-encoded), without the query. `served`:
/// what the listener serves, for the paths that two dialects have.
pub fn route(path: &str, query: Option<&str>, served: &[Name]) -> Result<Option<Route>, Reject> {
    match path {
        "/v1/echo" => return Ok(Some(Route::Socket(Target::Echo))),
        "/v1/connect" => return Ok(Some(Route::Socket(Target::Native))),
        "/v1/backend" => return Ok(Some(Route::Socket(Target::Backend))),
        path if backend::has(path) => return Ok(Some(Route::Backend)),
        "/ws" => {
            let for_agents =
                crate::http::query_param(query, "session_id").is_some() || !served.contains(&Name::Tickets);
            return if for_agents && served.contains(&Name::Agents) {
                agents::route(path, query)
            } else {
                tickets::route(path, query)
            };
        }
        _ => {}
    }
    for route in [documents_route, workflows::route, tickets::route, agents::route] {
        if let Some(found) = route(path, query)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn documents_route(path: &str, _query: Option<&str>) -> Result<Option<Route>, Reject> {
    documents::route(path)
}

/// Answers a plain HTTP request on a path that [`route`] knows.
pub fn endpoint(name: Name, head: &Head<'_>, body: &[u8], peer: &str, env: &Env) -> Intent {
    match name {
        Name::Documents => documents::endpoint(head, body, peer, &env.documents),
        Name::Workflows => workflows::endpoint(head, body),
        Name::Tickets => tickets::endpoint(head, body),
        Name::Agents => agents::endpoint(head, body, &env.agents),
        Name::Native => {
            Intent::Respond(Box::new(Response::reject(&Reject::new(Reason::UnknownPath, "no such endpoint"))))
        }
    }
}

/// The right that a plain HTTP request needs: the pattern of all rooms that it may touch, and the verb.
pub fn endpoint_needs(name: Name, head: &Head<'_>) -> (&'static str, Verb) {
    let by_method = match head.method {
        Method::Get | Method::Head => Verb::Read,
        _ => Verb::Write,
    };
    match name {
        // A POST may be a question whose text does not fit into a target.
        Name::Documents if head.method == Method::Post && documents::only_asks(head.path) => ("doc:*", Verb::Read),
        Name::Documents => ("doc:*", by_method),
        Name::Workflows => workflows::endpoint_needs(head, by_method),
        Name::Tickets => tickets::endpoint_needs(head, by_method),
        Name::Agents => agents::endpoint_needs(head, by_method),
        Name::Native => ("*", by_method),
    }
}

/// `key`: of a backend's socket.
pub fn open(target: &Target, key: Option<&Arc<ApiKey>>, authenticated: bool) -> Opening {
    match target {
        Target::Echo => Opening::Accept { session: Session::Echo, greeting: None, join: None },
        Target::Documents(target) => documents::open(target),
        Target::Workflows(target) => workflows::open(target),
        Target::Tickets(target) => tickets::open(target),
        Target::Agents(target) => agents::open(target),
        Target::Native => {
            let session = Session::Native(native::Session::new(authenticated));
            Opening::Accept { session, greeting: None, join: None }
        }
        Target::Backend => match key {
            Some(key) => {
                let session = Session::Backend(backend::Session::new(key.clone()));
                Opening::Accept { session, greeting: None, join: None }
            }
            None => Opening::Refuse(Reject::new(Reason::Token, "no API key was shown")),
        },
    }
}

impl Session {
    pub fn dialect(&self) -> Name {
        match self {
            Session::Echo | Session::Native(_) | Session::Backend(_) => Name::Native,
            Session::Documents(_) => Name::Documents,
            Session::Workflows(_) => Name::Workflows,
            Session::Tickets(_) => Name::Tickets,
            Session::Agents(_) => Name::Agents,
        }
    }

    /// Takes `room`'s own copy of its name, if that is the room it speaks of.
    pub fn share_name(&mut self, room: &RoomName) {
        let held = match self {
            Session::Documents(documents::Session::Prompt { room }) => room,
            Session::Tickets(session) => session.room_mut(),
            _ => return,
        };
        if held == room {
            *held = room.clone();
        }
    }

    /// True when the member who caused an event is shown it too.
    pub fn hears_itself(&self) -> bool {
        !matches!(self, Session::Documents(_))
    }

    pub fn on_text(&mut self, text: &str, now: Wall) -> Intent {
        match self {
            Session::Echo => Intent::Reply(Bytes::copy_from_slice(text.as_bytes())),
            Session::Documents(session) => session.on_text(text, now),
            Session::Workflows(session) => session.on_text(text),
            Session::Tickets(session) => session.on_text(text),
            Session::Agents(session) => session.on_text(text, now),
            Session::Native(session) => session.on_text(text),
            Session::Backend(session) => session.on_text(text),
        }
    }

    pub fn on_binary(&mut self, bytes: &[u8], now: Wall) -> Intent {
        match self {
            Session::Echo => Intent::Ignore,
            Session::Documents(session) => session.on_binary(bytes, now),
            Session::Workflows(session) => session.on_binary(),
            Session::Tickets(session) => session.on_binary(),
            Session::Agents(session) => session.on_binary(now),
            Session::Native(_) | Session::Backend(_) => native::on_binary(),
        }
    }

    /// What the connection is told before anything else; again after a fresh credential.
    pub fn hello(&self, hello: &Hello<'_>) -> Option<Bytes> {
        match self {
            Session::Native(session) => session.hello(hello),
            Session::Backend(session) => session.hello(hello),
            _ => None,
        }
    }

    /// Of a backend's socket.
    pub fn key(&self) -> Option<&Arc<ApiKey>> {
        match self {
            Session::Backend(session) => Some(session.key()),
            _ => None,
        }
    }

    /// The credential was good, or was from the start: `false` for a native client that has yet to show one.
    pub fn is_authenticated(&self) -> bool {
        match self {
            Session::Native(session) => session.is_authenticated(),
            _ => true,
        }
    }

    pub fn authenticated(&mut self) {
        if let Session::Native(session) = self {
            session.authenticated();
        }
    }

    /// What the sender of an intent without the right it [`needs`](Intent::needs) is told, or whom the room is one too
    /// many; a write is told by [`failed`] instead.
    pub fn denied(&self, intent: &Intent, why: Denial) -> Bytes {
        match self {
            Session::Workflows(session) => session.denied(intent, why),
            Session::Tickets(_) => tickets::denied(),
            _ => native::denied(intent, why),
        }
    }

    /// The payload said every so often, on top of protocol pings.
    pub fn beat_every(&self) -> Option<Duration> {
        match self {
            Session::Workflows(session) => session.beat_every(),
            _ => None,
        }
    }

    pub fn beat(&self, now: Wall) -> Bytes {
        match self {
            Session::Workflows(_) => workflows::heartbeat(now),
            _ => Bytes::new(),
        }
    }

    /// The payload that announces the end of its credential.
    pub fn expiring(&self, left: Duration) -> Option<Bytes> {
        matches!(self, Session::Native(_)).then(|| native::expiring(left))
    }

    /// The payload said before a close of ours.
    pub fn bye(&self, code: u16, retry_after: Duration) -> Option<Bytes> {
        matches!(self, Session::Native(_) | Session::Backend(_)).then(|| native::bye(code, retry_after))
    }

    /// As whom it has seen what it was shown, where that is written down: empty for a client without an id of its own.
    pub fn seen_as(&self) -> Option<Arc<str>> {
        match self {
            Session::Workflows(session) => session.seen_as(),
            _ => None,
        }
    }

    /// Its memberships count as presence.
    pub fn is_present(&self) -> bool {
        matches!(self, Session::Native(_))
    }
}

/// Why an intent that is no write is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    Forbidden,
    /// It is in as many rooms as it may be.
    TooManyRooms,
}

/// Runs on a reader's thread over one snapshot. `rights`: what is outside of these is not there; none where the door has
/// judged (HTTP).
pub fn read(
    read: &Read,
    asker: &Asker,
    rows: &mut dyn Rows,
    env: &Env,
    rights: Option<&Rights>,
) -> Result<Reply, RowsError> {
    match read {
        Read::Documents(read) => documents::read(read, rows, &env.documents, rights),
        Read::Workflows(read) => workflows::read(read, rows, env),
        Read::Tickets(read) => tickets::read(read, rows, env),
        Read::Agents(read) => agents::read(read, asker, rows, env, rights),
        Read::Native(read) => native::read(read, asker, rows, env, rights),
        Read::Backend(read) => backend::read(read, rows, env),
    }
}

/// The answer to a read that asks for nothing but a place in a room whose stand is known, without a look into the store. The
/// asker is entered in the directory already, and may read the room.
pub fn welcome_back(read: &Read, directory: &Directory) -> Option<Reply> {
    match read {
        Read::Native(read) => native::welcome_back(read, directory),
        Read::Tickets(read) => tickets::welcome_back(read, directory),
        _ => None,
    }
}

/// The reply to a read that could not be made.
pub fn read_failed(read: &Read, failure: Failure) -> Reply {
    match read {
        Read::Documents(read) => documents::read_failed(read, failure),
        Read::Workflows(read) => workflows::read_failed(read, failure),
        Read::Tickets(read) => tickets::read_failed(read, failure),
        Read::Agents(read) => agents::read_failed(read, failure),
        Read::Native(read) => native::read_failed(read, failure),
        Read::Backend(read) => backend::read_failed(read, failure),
    }
}

/// Answers a question about every connection; as [`read`], with what the reactors said of theirs.
pub fn census(read: &Read, views: &[ConnView], rows: &mut dyn Rows, env: &Env) -> Result<Reply, RowsError> {
    match read {
        Read::Workflows(read) => workflows::census(read, views, rows, env),
        Read::Backend(read) => backend::census(read, views, rows, env),
        other => Ok(read_failed(other, Failure::Broken)),
    }
}

/// Runs on the writer's thread inside the transaction. Must find every reason to refuse before its first write: a
/// refusal is a reply, and the transaction it stands in commits.
pub fn apply(write: &Write, asker: &Asker, rows: &mut dyn Transaction, env: &Env) -> Result<Applied, RowsError> {
    match &write.change {
        Change::Documents(change) => documents::apply(change, write, asker, rows, &env.documents),
        Change::Workflows(change) => workflows::apply(change, write, asker, rows, env),
        Change::Tickets(change) => tickets::apply(change, write, asker, rows, env),
        Change::Agents(change) => agents::apply(change, write, asker, rows, env),
        Change::Native(change) => native::apply(change, write, asker, rows, env),
        Change::Backend(change) => backend::apply(change, write, asker, rows, env),
        Change::Due => {
            agents::due(rows, env.canary)?;
            let rulings = backend::due(rows)?;
            Ok(Applied { rulings, ..Applied::only(Reply::Silence) })
        }
        // The store's own (store/worker.rs).
        Change::Batch(_) | Change::Desk(_) => Ok(Applied::only(Reply::Silence)),
    }
}

/// The reply to a write whose operation id was stored before: the first answer again.
pub fn repeated(write: &Write, first: First<'_>) -> Reply {
    match &write.change {
        Change::Documents(change) => documents::repeated(change, write, first),
        Change::Native(change) => native::repeated(change, write, first),
        Change::Backend(change) => backend::repeated(change, write, first),
        Change::Workflows(_) | Change::Tickets(_) | Change::Agents(_) => Reply::Silence,
        Change::Batch(_) | Change::Due | Change::Desk(_) => Reply::Silence,
    }
}

/// What tells a write from another one that was given the same operation id.
pub fn fingerprint(write: &Write) -> u64 {
    match &write.change {
        Change::Documents(change) => documents::fingerprint(change),
        Change::Native(change) => native::fingerprint(change),
        Change::Backend(change) => backend::fingerprint(change),
        Change::Workflows(_) | Change::Tickets(_) | Change::Agents(_) => 0,
        Change::Batch(_) | Change::Due | Change::Desk(_) => 0,
    }
}

/// The reply to a write whose operation id stands for another one.
pub fn id_taken(write: &Write) -> Reply {
    match &write.change {
        Change::Documents(change) => documents::id_taken(change),
        Change::Native(change) => native::id_taken(change, write),
        Change::Backend(change) => backend::id_taken(change, write),
        Change::Workflows(_) | Change::Tickets(_) | Change::Agents(_) => Reply::Silence,
        Change::Batch(_) | Change::Due | Change::Desk(_) => Reply::Silence,
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
        Change::Workflows(change) => workflows::failed(change, failure),
        Change::Tickets(change) => tickets::failed(change, failure),
        Change::Agents(change) => agents::failed(change, failure),
        Change::Native(change) => native::failed(change, write, failure),
        Change::Backend(change) => backend::failed(change, write, failure),
        // Lines behind the one that found no space were never looked up, and one before it may be the resend of one that
        // is stored.
        Change::Batch(writes) => lines(writes.iter().map(|write| match failure {
            Failure::Full if write.op.is_some() => failed(write, Failure::Unknown),
            _ => failed(write, failure),
        })),
        Change::Desk(Desk::Poll { .. }) => Reply::Response(Box::new(Response::reject(&failure.reject()))),
        // It has no answer that could say so: a backend that believes to be taking tasks would wait for ever.
        Change::Desk(Desk::Take { .. }) => Reply::Close(failure.reject()),
        Change::Due | Change::Desk(_) => Reply::Silence,
    }
}

/// The replies to the writes of a batch, in their order, as one.
pub fn lines(replies: impl Iterator<Item = Reply>) -> Reply {
    let mut lines = Vec::new();
    for reply in replies {
        if let Reply::Frame(line) = reply {
            lines.extend_from_slice(&line);
        }
    }
    Reply::Lines(lines.into())
}

/// A task for a socket that takes tasks, framed.
pub fn task(task: &Task) -> Bytes {
    ws::frame::text(&backend::task(task))
}

/// The answer to a poll for tasks.
pub fn tasks(tasks: &[Task]) -> Response {
    backend::tasks(tasks)
}

/// The answer to whoever had a connection closed.
pub fn evicted(found: bool) -> Response {
    backend::evicted(found)
}

/// Something volatile that `by` says to a room over this connection.
pub fn signal(room: &RoomName, by: &str, data: &[u8], from: ConnId) -> Signal {
    let mut frames = Frames::default();
    frames.set(Name::Native, ws::frame::text(&native::signal(room, by, data)));
    Signal { room: room.clone(), frames, from: Some(from) }
}

/// Who came and who left, for those who asked for a room's presence; framed.
pub fn presence(room: &RoomName, joined: &[Arc<str>], left: &[Arc<str>]) -> Bytes {
    ws::frame::text(&native::presence(room, joined, left))
}

/// What was revoked before this start, into `env`. Before the first handshake.
pub fn remember_revocations(rows: &mut dyn Rows, env: &Env) -> Result<usize, RowsError> {
    backend::remember_revocations(rows, env)
}

/// Is it written down how far the clients of this room have seen it?
pub fn keeps_marks(room: &RoomName) -> bool {
    room.as_str().starts_with("workflow:")
}

/// Writes down how far the clients of a room have seen it (`Session::seen_as`).
pub fn seen(room: &RoomName, seen: Vec<(Arc<str>, Seq)>) -> Write {
    Write { room: room.clone(), op: None, change: Change::Workflows(workflows::Change::Seen { seen }) }
}

/// The answer to a reload where no directory is configured.
pub fn nothing_to_reload() -> Response {
    documents::reloaded(0)
}

/// Frames an event for the dialects in `listeners` (a union of [`Name::bit`]).
pub fn encode(room: &RoomName, event: &Event, listeners: u8) -> Frames {
    let mut frames = Frames::default();
    for name in Name::ALL.into_iter().filter(|name| listeners & name.bit() != 0) {
        let payload = match name {
            Name::Documents => documents::encode(room, event),
            Name::Workflows => workflows::encode(room, event),
            Name::Tickets => tickets::encode(room, event),
            Name::Agents => agents::encode(room, event),
            Name::Native => native::encode(room, event),
        };
        if let Some(payload) = payload {
            frames.set(name, ws::frame::text(&payload));
        }
    }
    frames
}

/// What a member of a dialect is told when the log no longer holds what it missed, framed; empty when a fresh start needs
/// no word of its own.
pub fn snapshot(name: Name, room: &RoomName, rows: &mut dyn Rows) -> Result<Frames, RowsError> {
    let payload = match name {
        Name::Documents => documents::snapshot(room, rows)?,
        Name::Workflows => workflows::snapshot(room, rows)?,
        Name::Tickets => None,
        Name::Agents => None,
        Name::Native => native::snapshot(room, rows)?,
    };
    let mut frames = Frames::default();
    if let Some(frame) = payload {
        frames.set(name, frame);
    }
    Ok(frames)
}
