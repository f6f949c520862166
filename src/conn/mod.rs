//! The machine of one client: bytes and the time go in, steps and bytes come out. It owns no socket and reads no clock.
//!
//! ```text
//!            ┌────────── answered, keep-alive ──────────┐
//!            ▼                                          │
//!  accept ─▶ Head ──request──▶ Asked ──101──▶ Open ──close, fault──▶ Closing ──end of stream or deadline──▶ Dead
//!            └──refused, or Connection: close──────────────────────────▲
//! ```
//!
//! * *Head* collects one HTTP request. *Asked* waits for the store and reads nothing. *Open* is a WebSocket. *Closing* has
//!   said its last word: when that is written the sending side is shut, and what still comes in is thrown away until the
//!   peer ends the stream, because closing a socket with unread input makes the kernel send a reset that can overtake our
//!   last frame.
//! * What a client asks for while an earlier question of its own is out is *parked*: it stays in `tail` or `parked`, and the
//!   socket is not read. Replies therefore come in the order of the requests, nothing is dropped, and a full store costs
//!   memory nowhere.
//! * Poll interest ([`Connection::wants`]) and the next deadline ([`Connection::lapse`]) are computed from the state, never
//!   stored beside it.

mod outbox;
#[cfg(test)]
mod tests;

pub use outbox::{Outbox, Slices};

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::auth::rights::Rights;
use crate::auth::token::LEEWAY_SECONDS;
use crate::auth::{ApiKey, Credential, Principal, Proof};
use crate::clock::{MaybeMono, Mono, Wall};
use crate::dialect::{Intent, Name, Session, Write};
use crate::http::{self, Deflate, Head, Reason, Reject, Window};
use crate::limits::{
    BAD_MESSAGE_BURST, BAD_MESSAGES_PER_MINUTE, BODY_BYTES_MAX, CONTROL_BURST, CONTROL_FRAMES_PER_SECOND,
    HEAD_DRIBBLE_BYTES, HEAD_READS_MAX, INFLIGHT_BACKEND_MAX, INFLIGHT_WRITES_MAX, Limits, MESSAGE_BYTES_CEILING,
    RATE_BURST, RATE_PATIENCE,
};
use crate::meter::Meter;
use crate::ws::decoder::{Bounds, Decoder, Message};
use crate::ws::{self, Close, Inflater};

#[derive(Debug)]
pub struct Connection {
    phase: Phase,
    /// Bytes read and not yet used.
    tail: Box<[u8]>,
    pub outbox: Outbox,
    /// An intent that had to wait for answers or for room in the store's queue.
    parked: Option<Box<Intent>>,
    /// Questions out, not answered.
    inflight: u16,
    /// What may be asked beside them.
    asks: Asks,
    /// It is a WebSocket whose messages may be compressed, those to it with this window. (Here, where it costs no byte.)
    window: Option<Window>,
    /// What the books of its reactor hold of [`Connection::unfinished`]. (Here, where it costs no byte either.)
    weighed: u32,
    /// When the phase, or the request in it, began.
    since: Mono,
    /// When the peer was last heard.
    heard: Mono,
    /// When the ping without a pong was sent.
    pinged: MaybeMono,
    /// When the socket last took a byte, while it would not take them all.
    blocked: MaybeMono,
    /// When the oldest question out was asked.
    asked: Mono,
    /// Made with the first message of a metered connection: one at rest owns nothing.
    rate: Option<Box<Rate>>,
    /// What it was before it closed.
    last: Option<Box<(Session, Arc<str>)>>,
}

/// Two facts in one byte: as two of them they would cost a connection eight more.
#[derive(Clone, Copy, Debug, Default)]
struct Asks(u8);

impl Asks {
    /// The question out is a read: nothing else may go before it is answered.
    const EXCLUSIVE: u8 = 1;
    /// It is to go when it has its answers, and is not read any more: one that asks again with every answer would stay.
    const DISMISSED: u8 = 2;

    fn is(self, fact: u8) -> bool {
        self.0 & fact != 0
    }

    fn set(&mut self, fact: u8, holds: bool) {
        self.0 = if holds { self.0 | fact } else { self.0 & !fact };
    }
}

/// How much a WebSocket has used of what it may.
#[derive(Debug, Default)]
struct Rate {
    messages: Meter,
    bytes: Meter,
    control: Meter,
    nonsense: Meter,
    /// It is over its rate: not read before this.
    slowed_until: Option<Mono>,
    /// Since when it has been over its rate again and again.
    over_since: Option<Mono>,
}

#[derive(Debug)]
pub enum Phase {
    Head { reads: u32, body: bool, first: bool },
    Asked(Box<Asked>),
    Open(Open),
    Closing { shut: bool },
    Dead,
}

/// A WebSocket.
#[derive(Debug)]
pub struct Open {
    decoder: Decoder,
    pub session: Session,
    pub actor: Arc<str>,
    pub rights: Arc<Rights>,
    /// A credential had to show who it is.
    pub verified: bool,
    /// What of the credential can be asked about again; when it runs out, too, behind the one pointer that a connection at
    /// rest has room for.
    pub proof: Option<Arc<Proof>>,
    /// When the message under way began.
    begun: MaybeMono,
    /// Rates are held against it.
    metered: bool,
    /// When it was last told that the server lives, in the dialects that say so.
    beaten: Mono,
    /// It was told that its credential runs out, or never is.
    warned: bool,
    /// Its user is by a credential, not by default.
    named: bool,
    /// Silence for this long ends it, in milliseconds; 0 for a connection that holds no leases.
    lease: u32,
}

/// An HTTP request that is with the store, and how its answer is to be framed.
#[derive(Debug)]
pub struct Asked {
    pub framing: Framing,
    pub actor: Arc<str>,
    pub verified: bool,
    pub handshake: Option<Handshake>,
    /// Of a backend's request.
    pub key: Option<Arc<ApiKey>>,
    /// How much longer than usual the answer may take: a poll waits for what it asks.
    pub patience: Duration,
    /// The writes whose results are streamed, still to be carried out.
    pub stream: Option<Box<Stream>>,
}

/// A request of many writes, answered piece by piece.
#[derive(Debug)]
pub struct Stream {
    pub left: VecDeque<Write>,
    /// Bytes that they came to at first.
    pub weight: usize,
    /// The response's head is out.
    pub begun: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Framing {
    pub keep_alive: bool,
    pub head_only: bool,
    /// The page's origin, allowed: CORS headers go with the answer.
    pub origin: Option<String>,
}

/// A valid upgrade, held until the dialect has opened its room.
#[derive(Clone, Debug)]
pub struct Handshake {
    pub accept: [u8; 28],
    pub protocol: Option<String>,
    pub deflate: Option<Deflate>,
    pub principal: Principal,
    /// Whose rules it was let in by.
    pub dialect: Name,
    /// Set when the dialect has found the room: what the socket becomes with the welcome.
    pub session: Option<Session>,
    /// Refuse by accepting and closing with a code, because browsers cannot read a refused handshake.
    pub close_style: bool,
    /// Rates are held against it: everybody but a loopback client in debug mode.
    pub metered: bool,
    /// What the log line says.
    pub target: String,
}

/// What a step is charged as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    Message,
    /// A piece of a message whose end has not come.
    Part,
    /// A message without sense.
    Nonsense,
    /// A ping or pong.
    Control,
}

/// What one call of [`Connection::next`] found.
#[derive(Debug)]
pub enum Step<'a> {
    /// Everything was used; more must be read.
    More,
    /// Something was dealt with on the spot; go on.
    Handled(Spent),
    Request {
        head: Box<Head<'a>>,
        body: &'a [u8],
    },
    /// A request whose body is still to come, told once: nobody is to send a megabyte to a door that is closed to him, nor
    /// make us hold it (PROMISES.md I7).
    Announced {
        head: Box<Head<'a>>,
    },
    Reject(Reject),
    Intent(Intent),
    /// The peer broke the protocol: close with this.
    Fault(Close),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wants {
    pub read: bool,
    pub write: bool,
}

/// The most that a connection owns besides itself, less the texts in it.
pub const BESIDE_BYTES: usize = size_of::<Rate>() + size_of::<Asked>() + size_of::<(Session, Arc<str>)>();

/// A deadline that is named by what its passing means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lapse {
    /// No complete request in time.
    Handshake,
    /// Nothing asked on a kept-alive connection.
    Idle,
    /// The store has not answered.
    Answer,
    /// Silence: ask whether the peer is there.
    Ping,
    /// It is not.
    Pong,
    /// It takes none of the bytes that wait for it.
    Stall,
    /// A message was begun and not finished.
    Message,
    /// The credential has run out, or soon will.
    Credential,
    /// No credential was shown in time.
    Unauthenticated,
    /// Time for the dialect's heartbeat.
    Beat,
    /// The close was not answered.
    Close,
    /// It may be read again.
    Slowed,
}

/// A token is compared with the wall clock at least this often, so that a stepped clock is noticed.
const CREDENTIAL_CHECK: Duration = Duration::from_secs(5);
/// A client that can refresh its token in band is told so this long before the token runs out.
const EXPIRY_WARNING: Duration = Duration::from_secs(60);

impl Asked {
    pub fn request(framing: Framing, actor: Arc<str>, verified: bool) -> Asked {
        Asked { framing, actor, verified, handshake: None, key: None, patience: Duration::ZERO, stream: None }
    }
}

impl Connection {
    pub fn new(now: Mono) -> Connection {
        Connection {
            phase: Phase::Head { reads: 0, body: false, first: true },
            tail: Box::default(),
            outbox: Outbox::default(),
            parked: None,
            inflight: 0,
            asks: Asks::default(),
            window: None,
            weighed: 0,
            since: now,
            heard: now,
            pinged: MaybeMono::NONE,
            blocked: MaybeMono::NONE,
            asked: now,
            rate: None,
            last: None,
        }
    }

    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    pub fn open(&self) -> Option<&Open> {
        match &self.phase {
            Phase::Open(open) => Some(open),
            _ => None,
        }
    }

    /// How far back compressed messages to it may refer; `None` where they are not compressed.
    pub fn window(&self) -> Option<Window> {
        self.window
    }

    /// An HTTP connection on which nothing was asked.
    pub fn is_at_rest(&self) -> bool {
        matches!(self.phase, Phase::Head { .. }) && self.tail.is_empty()
    }

    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    pub fn is_dead(&self) -> bool {
        matches!(self.phase, Phase::Dead)
    }

    pub fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. } | Phase::Dead)
    }

    // ---- what comes in ------------------------------------------------------------------------------------------------

    /// May the next step be taken? If not, bytes wait in the tail and in the kernel.
    pub fn accepts(&self, limits: &Limits) -> bool {
        let free = self.parked.is_none()
            && !self.asks.is(Asks::DISMISSED)
            && self.outbox.bytes() <= limits.outbox
            && self.slowed_until().is_none();
        match self.phase {
            Phase::Head { .. } => free,
            Phase::Open(_) => free && !self.asks.is(Asks::EXCLUSIVE) && self.inflight < self.inflight_max(),
            Phase::Closing { .. } => true,
            Phase::Asked(_) | Phase::Dead => false,
        }
    }

    /// It takes on nothing more.
    pub fn dismiss(&mut self) {
        self.asks.set(Asks::DISMISSED, true);
    }

    /// A WebSocket that owes nothing and is owed nothing: of all its deadlines only that of its silence runs, and what it
    /// says only moves that one away.
    pub fn is_quiet(&self) -> bool {
        let Phase::Open(open) = &self.phase else { return false };
        let waits = self.waits() || self.blocked.is_some() || !self.tail.is_empty() || !self.outbox.is_empty();
        !waits && !open.begun.is_some() && self.weighed == 0 && self.slowed_until().is_none()
    }

    /// Bytes of memory that it makes us hold by what it has begun: input not used yet, a message in pieces, an operation that
    /// waits.
    fn unfinished(&self) -> usize {
        let begun = match &self.phase {
            Phase::Open(open) => open.decoder.buffered(),
            Phase::Asked(asked) => asked.stream.as_ref().map_or(0, |stream| stream.weight),
            Phase::Head { .. } | Phase::Closing { .. } | Phase::Dead => 0,
        };
        self.tail.len() + self.parked.as_ref().map_or(0, |intent| intent.weight()) + begun
    }

    /// Bytes of a message of which a part has come.
    pub fn gathered(&self) -> usize {
        self.open().map_or(0, |open| open.decoder.buffered())
    }

    /// Brings [`Connection::weighed`] up to date and returns by how much it changed.
    pub fn weigh(&mut self) -> i64 {
        let now = u32::try_from(self.unfinished()).unwrap_or(u32::MAX);
        i64::from(now) - i64::from(std::mem::replace(&mut self.weighed, now))
    }

    /// What it was found to hold when it was last weighed.
    pub fn weighed(&self) -> u32 {
        self.weighed
    }

    /// Bytes that were read before and not used: they come before anything fresh.
    pub fn take_tail(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.tail).into_vec()
    }

    pub fn has_tail(&self) -> bool {
        !self.tail.is_empty()
    }

    pub fn keep_tail(&mut self, bytes: Vec<u8>) {
        if !self.is_closing() {
            self.tail = bytes.into_boxed_slice();
        }
    }

    pub fn heard(&mut self, now: Mono) {
        self.heard = now;
        if let Phase::Head { reads, first, .. } = &mut self.phase {
            // A later request begins with its first byte, not with the answer to the one before.
            if *reads == 0 && !*first {
                self.since = now;
            }
            *reads += 1;
        }
    }

    /// Takes one step through `input`, whose used bytes are counted in the result. Replies that need nobody go to `out`.
    pub fn next<'a>(
        &mut self,
        input: &'a mut [u8],
        limits: &Limits,
        now: (Mono, Wall),
        inflater: &mut Inflater,
        out: &mut Vec<u8>,
    ) -> (usize, Step<'a>) {
        match &mut self.phase {
            Phase::Head { reads, body, .. } => next_request(input, *reads, body),
            Phase::Open(open) => {
                let (message, fragments) = match open.session {
                    // A conformance suite sends what it likes (DESIGN.md section 1).
                    Session::Echo => (MESSAGE_BYTES_CEILING, u32::MAX),
                    _ => (limits.message, limits.fragments),
                };
                let bounds = Bounds { message, fragments, deflate: self.window.is_some() };
                let (used, step) = open.next(input, bounds, now, inflater, out);
                if matches!(step, Step::Handled(_) | Step::Intent(_) | Step::More) {
                    self.pinged = MaybeMono::NONE;
                }
                (used, step)
            }
            Phase::Closing { .. } | Phase::Dead | Phase::Asked(_) => (input.len(), Step::More),
        }
    }

    // ---- rates -----------------------------------------------------------------------------------------------------------

    /// Charges what a step used. A client over its rate is not refused and loses nothing: it is not read until it has
    /// credit again, so its own socket fills up and holds it back. One that stays over for long is closed.
    pub fn charge(&mut self, spent: Spent, bytes: usize, limits: &Limits, now: Mono) -> Result<(), Close> {
        if !self.open().is_some_and(|open| open.metered) {
            return Ok(());
        }
        let rate = self.rate.get_or_insert_default();
        if rate.messages.is_settled(now) && rate.bytes.is_settled(now) {
            rate.over_since = None;
        }
        let paid = match spent {
            Spent::Control => {
                let kept = rate.control.charge(now, 1, CONTROL_FRAMES_PER_SECOND, CONTROL_BURST);
                return kept.map_err(|_| Close::POLICY.because("control_flood"));
            }
            Spent::Nonsense => {
                let kept = rate.nonsense.charge(now, 1, BAD_MESSAGES_PER_MINUTE / 60.0, BAD_MESSAGE_BURST);
                kept.map_err(|_| Close::POLICY.because("bad_messages"))?;
                rate.messages.charge(now, 1, f64::from(limits.messages_per_second), RATE_BURST)
            }
            Spent::Part => Ok(()),
            Spent::Message => rate.messages.charge(now, 1, f64::from(limits.messages_per_second), RATE_BURST),
        };
        let paid = paid.and(rate.bytes.charge(now, bytes as u64, f64::from(limits.bytes_per_second), RATE_BURST));
        let Err(until) = paid else { return Ok(()) };
        rate.slowed_until = Some(until);
        let since = *rate.over_since.get_or_insert(now);
        if now.since(since) > RATE_PATIENCE { Err(Close::RATE) } else { Ok(()) }
    }

    /// It has credit again.
    pub fn speed_up(&mut self) {
        if let Some(rate) = &mut self.rate {
            rate.slowed_until = None;
        }
    }

    fn slowed_until(&self) -> Option<Mono> {
        self.rate.as_ref().and_then(|rate| rate.slowed_until)
    }

    // ---- questions and answers ----------------------------------------------------------------------------------------

    /// A reply that needs nobody may go out now, without overtaking an answer.
    pub fn may_reply(&self) -> bool {
        self.inflight == 0
    }

    pub fn may_write(&self) -> bool {
        !self.asks.is(Asks::EXCLUSIVE) && self.inflight < self.inflight_max()
    }

    fn inflight_max(&self) -> u16 {
        match &self.phase {
            Phase::Open(open) if open.lease > 0 => INFLIGHT_BACKEND_MAX,
            _ => INFLIGHT_WRITES_MAX,
        }
    }

    pub fn asked(&mut self, exclusive: bool, now: Mono) {
        if self.inflight == 0 {
            self.asked = now;
        }
        self.inflight += 1;
        self.asks.set(Asks::EXCLUSIVE, exclusive);
    }

    /// One question was answered.
    pub fn answered(&mut self, now: Mono) {
        self.inflight = self.inflight.saturating_sub(1);
        self.asked = now;
        if self.inflight == 0 {
            self.asks.set(Asks::EXCLUSIVE, false);
        }
        self.heard = self.heard.max(now);
    }

    pub fn waits(&self) -> bool {
        self.inflight > 0 || self.parked.is_some()
    }

    pub fn park(&mut self, intent: Intent, now: Mono) {
        debug_assert!(self.parked.is_none(), "one intent is parked at a time");
        if self.inflight == 0 {
            self.asked = now;
        }
        self.parked = Some(Box::new(intent));
    }

    pub fn unpark(&mut self) -> Option<Intent> {
        self.parked.take().map(|intent| *intent)
    }

    // ---- changes of phase ---------------------------------------------------------------------------------------------

    /// A request is being dealt with.
    pub fn ask(&mut self, asked: Asked, now: Mono) {
        self.since = now;
        self.asked = now;
        self.phase = Phase::Asked(Box::new(asked));
    }

    pub fn asked_of_mut(&mut self) -> Option<&mut Asked> {
        match &mut self.phase {
            Phase::Asked(asked) => Some(asked),
            _ => None,
        }
    }

    pub fn asked_of(&self) -> Option<&Asked> {
        match &self.phase {
            Phase::Asked(asked) => Some(asked),
            _ => None,
        }
    }

    /// The 101 is on its way.
    pub fn upgrade(&mut self, session: Session, principal: &Principal, verified: bool, metered: bool, now: Mono) {
        self.since = now;
        self.heard = now;
        let warned = session.expiring(Duration::ZERO).is_none();
        self.phase = Phase::Open(Open {
            decoder: Decoder::default(),
            session,
            actor: principal.user.clone(),
            verified,
            rights: principal.rights.clone(),
            proof: principal.proof.clone(),
            begun: MaybeMono::NONE,
            metered,
            beaten: now,
            warned,
            named: principal.via != Credential::None,
            lease: 0,
        });
    }

    /// The handshake agreed on compressing messages.
    pub fn compress(&mut self, window: Window) {
        self.window = Some(window);
    }

    /// The response is on its way; another request may follow.
    pub fn again(&mut self, now: Mono) {
        self.since = now;
        self.phase = Phase::Head { reads: 0, body: false, first: false };
    }

    /// The last word is on its way.
    pub fn close(&mut self, now: Mono) {
        if !self.is_closing() {
            self.since = now;
            self.remember();
            self.phase = Phase::Closing { shut: false };
            self.tail = Box::default();
            self.parked = None;
        }
    }

    /// Its rooms are left only at the end of the turn, and must know who left.
    fn remember(&mut self) {
        if let Phase::Open(open) = &self.phase {
            self.last = Some(Box::new((open.session.clone(), open.actor.clone())));
        }
    }

    /// What it is, or was until it closed: its session and its user.
    pub fn identity(&self) -> Option<(Session, Arc<str>)> {
        match &self.phase {
            Phase::Open(open) => Some((open.session.clone(), open.actor.clone())),
            _ => self.last.as_deref().cloned(),
        }
    }

    /// Everything is written: is it time to shut the sending side? Says so once.
    pub fn must_shut(&mut self, now: Mono) -> bool {
        match &mut self.phase {
            Phase::Closing { shut } if !*shut && self.outbox.is_empty() => {
                *shut = true;
                self.since = now;
                true
            }
            _ => false,
        }
    }

    pub fn die(&mut self) {
        self.remember();
        self.phase = Phase::Dead;
        self.blocked = MaybeMono::NONE;
        self.tail = Box::default();
        self.parked = None;
        self.outbox.clear();
    }

    // ---- the socket's side --------------------------------------------------------------------------------------------

    /// The socket took some bytes and would not take more.
    pub fn block(&mut self, progressed: bool, now: Mono) {
        if progressed || !self.blocked.is_some() {
            self.blocked = now.into();
            // Whoever still takes his last answer is neither idle nor late with his own close.
            if matches!(self.phase, Phase::Closing { shut: false } | Phase::Head { first: false, reads: 0, .. }) {
                self.since = now;
            }
        }
    }

    pub fn unblock(&mut self) {
        self.blocked = MaybeMono::NONE;
    }

    pub fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    pub fn pinged(&mut self, now: Mono) {
        self.pinged = now.into();
    }

    /// What to wait for, derived from the state.
    pub fn wants(&self) -> Wants {
        // Reading is not switched off while a client waits: the table remembers that its bytes are unread, and two calls
        // to the kernel per question would buy nothing. TCP's window stops a client that goes on sending.
        Wants { read: !self.is_dead(), write: self.blocked.is_some() }
    }

    /// The nearest deadline and what its passing means; a peer that cannot be heard now is not blamed for its silence.
    pub fn lapse(&self, now: (Mono, Wall), limits: &Limits) -> Option<(Mono, Lapse)> {
        let stall = self.blocked.get().map(|since| (since.after(limits.stall), Lapse::Stall));
        let nearest = match &self.phase {
            Phase::Dead => None,
            // The answer to our last word is waited for from when it is written. Until then it is the stall that counts: a
            // large response to a slow reader takes as long as he goes on reading.
            Phase::Closing { shut: false } if !self.outbox.is_empty() => {
                Some((self.since.after(limits.stall), Lapse::Stall))
            }
            Phase::Closing { .. } => Some((self.since.after(limits.close), Lapse::Close)),
            Phase::Asked(asked) => Some((self.asked.after(limits.answer + asked.patience), Lapse::Answer)),
            Phase::Head { body: true, .. } => Some((self.since.after(limits.message_time), Lapse::Handshake)),
            Phase::Head { first: false, reads: 0, .. } => Some((self.since.after(limits.keep_alive), Lapse::Idle)),
            Phase::Head { .. } => Some((self.since.after(limits.handshake), Lapse::Handshake)),
            Phase::Open(open) => {
                let slowed = self.slowed_until().map(|until| (until, Lapse::Slowed));
                let unheard = self.blocked.is_some() || slowed.is_some() || (self.waits() && !self.accepts(limits));
                let (ping, pong) = open.patience(limits);
                let alive = if unheard {
                    None
                } else if let Some(pinged) = self.pinged.get() {
                    Some((pinged.after(pong), Lapse::Pong))
                } else {
                    Some((self.heard.after(ping), Lapse::Ping))
                };
                let beat = open.session.beat_every().map(|every| (open.beaten.after(every), Lapse::Beat));
                let unknown = !open.session.is_authenticated();
                let identity = unknown.then(|| (self.since.after(limits.handshake), Lapse::Unauthenticated));
                let answer = self.waits().then(|| (self.asked.after(limits.answer), Lapse::Answer));
                let message = open.begun.get().map(|begun| (begun.after(limits.message_time), Lapse::Message));
                let credential = open.expires().map(|expires| {
                    let left = Duration::from_secs(expires.saturating_sub(now.1.unix_seconds()).max(0) as u64);
                    let next = if open.warned { left } else { left.saturating_sub(EXPIRY_WARNING) };
                    (now.0.after(next.min(CREDENTIAL_CHECK)), Lapse::Credential)
                });
                let all = [alive, answer, message, credential, slowed, beat, identity];
                all.into_iter().flatten().min_by_key(|(at, _)| *at)
            }
        };
        [nearest, stall].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// When its deadlines are to be looked at: at the nearest, or where a nearer one may be by then. Nobody settles for a
    /// pong ([`Connection::is_quiet`]), and after it the next ping is due, with pings more frequent than a pong may take
    /// before everything that was due when it was asked for.
    pub fn look_again(&self, now: (Mono, Wall), limits: &Limits) -> Option<Mono> {
        let (at, _) = self.lapse(now, limits)?;
        let Phase::Open(open) = &self.phase else { return Some(at) };
        let next = self.pinged.get().map(|pinged| pinged.after(open.patience(limits).0));
        Some(next.filter(|next| *next > now.0).map_or(at, |next| at.min(next)))
    }

    /// The heartbeat that is due now.
    pub fn beat(&mut self, now: (Mono, Wall)) -> Option<Bytes> {
        let Phase::Open(open) = &mut self.phase else { return None };
        open.beaten = now.0;
        Some(open.session.beat(now.1))
    }

    /// The one word of warning before the credential runs out, when it is time for it.
    pub fn warn(&mut self, wall: Wall) -> Option<Bytes> {
        let Phase::Open(open) = &mut self.phase else { return None };
        let left = Duration::from_secs(open.expires()?.saturating_sub(wall.unix_seconds()).max(0) as u64);
        if open.warned || left > EXPIRY_WARNING {
            return None;
        }
        open.warned = true;
        open.session.expiring(left)
    }

    /// A credential that was shown in band holds from now on. Refused (`false`) when it is somebody else's: what the
    /// connection did until now, it did as one user.
    pub fn authenticate(&mut self, principal: &Principal) -> bool {
        let Phase::Open(open) = &mut self.phase else { return false };
        if open.named && open.actor != principal.user {
            return false;
        }
        open.named |= principal.via != Credential::None;
        open.actor = principal.user.clone();
        open.rights = principal.rights.clone();
        open.proof = principal.proof.clone();
        open.warned = open.session.expiring(Duration::ZERO).is_none();
        open.session.authenticated();
        true
    }

    /// Its credential grants something else from now on; says whether it does.
    pub fn regrant(&mut self, rights: Arc<Rights>) -> bool {
        let Phase::Open(open) = &mut self.phase else { return false };
        let differ = *open.rights != *rights;
        if differ {
            open.rights = rights;
        }
        differ
    }

    /// From now on it holds leases: its silence must be noticed within this time.
    pub fn lease(&mut self, lease: Duration) {
        if let Phase::Open(open) = &mut self.phase {
            open.lease = u32::try_from(lease.as_millis()).unwrap_or(u32::MAX);
        }
    }

    /// How long it has been what it is.
    pub fn age(&self, now: Mono) -> Duration {
        now.since(self.since)
    }

    /// The credential is worth nothing any more.
    pub fn has_expired(&self, wall: Wall) -> bool {
        self.open().and_then(Open::expires).is_some_and(|expires| expires <= wall.unix_seconds())
    }

    #[cfg(any(test, debug_assertions))]
    pub fn check_invariants(&self) {
        self.outbox.check_invariants();
        assert!(!self.asks.is(Asks::EXCLUSIVE) || self.inflight == 1);
        assert!(self.inflight <= INFLIGHT_BACKEND_MAX);
        if matches!(self.phase, Phase::Dead) {
            assert!(self.tail.is_empty() && self.parked.is_none() && self.outbox.is_empty());
        }
    }
}

/// One HTTP request out of `input`, when it is all there.
fn next_request<'a>(input: &'a mut [u8], reads: u32, body_begun: &mut bool) -> (usize, Step<'a>) {
    let input: &'a [u8] = input;
    match http::head::parse(input) {
        Err(reject) => (input.len(), Step::Reject(reject)),
        Ok(None) if reads > HEAD_READS_MAX && input.len() < reads as usize * HEAD_DRIBBLE_BYTES => {
            let detail = format!("{reads} reads brought {} bytes of an unfinished head", input.len());
            (input.len(), Step::Reject(Reject::new(Reason::Dribble, detail)))
        }
        Ok(None) => (0, Step::More),
        Ok(Some((head, used))) => {
            let declared = if head.wants_upgrade() { 0 } else { head.content_length.unwrap_or(0) };
            if declared > BODY_BYTES_MAX as u64 {
                let detail = format!("a body of {declared} bytes; the limit is {BODY_BYTES_MAX}");
                return (input.len(), Step::Reject(Reject::new(Reason::BodyTooBig, detail)));
            }
            let end = used + declared as usize;
            match input.get(used..end) {
                Some(body) => {
                    *body_begun = false;
                    (end, Step::Request { head: Box::new(head), body })
                }
                None if *body_begun => (0, Step::More),
                None => {
                    *body_begun = true;
                    (0, Step::Announced { head: Box::new(head) })
                }
            }
        }
    }
}

impl Open {
    /// After how much silence a ping is sent, and how long its pong may take. Somebody who holds leases is pinged so often
    /// that his end is noticed, and what he held given to others, within the time of his lease.
    fn patience(&self, limits: &Limits) -> (Duration, Duration) {
        if self.lease == 0 {
            return (limits.ping, limits.pong);
        }
        let third = Duration::from_millis(u64::from(self.lease)) / 3;
        (limits.ping.min(third), limits.pong.min(2 * third))
    }

    /// Unix seconds after which the credential is worth nothing. Believed as long as at the door, or a token let in within
    /// its leeway would be closed at once.
    fn expires(&self) -> Option<i64> {
        self.proof.as_ref()?.expires_at.map(|at| at.saturating_add(LEEWAY_SECONDS))
    }

    /// How long the credential is worth something.
    pub fn expires_in(&self, wall: Wall) -> Option<Duration> {
        let left = self.expires()?.saturating_sub(LEEWAY_SECONDS).saturating_sub(wall.unix_seconds());
        Some(Duration::from_secs(left.max(0) as u64))
    }

    fn next<'a>(
        &mut self,
        input: &'a mut [u8],
        bounds: Bounds,
        now: (Mono, Wall),
        inflater: &mut Inflater,
        out: &mut Vec<u8>,
    ) -> (usize, Step<'a>) {
        let step = match self.decoder.next(input, bounds) {
            Ok(step) => step,
            Err(fault) => return (0, Step::Fault(fault.close())),
        };
        let used = step.consumed;
        let message = match step.message {
            Some(Message::Deflated(kind, payload)) => match inflater.message(kind, payload, bounds.message) {
                Ok(message) => Some(message),
                Err(fault) => return (0, Step::Fault(fault.close())),
            },
            message => message,
        };
        let found = match message {
            None => Step::More,
            Some(Message::Text(text)) => match &mut self.session {
                Session::Echo => {
                    ws::frame::put_text(out, text.as_bytes());
                    Step::Handled(Spent::Message)
                }
                session => Step::Intent(session.on_text(text, now.1)),
            },
            Some(Message::Binary(bytes)) => match &mut self.session {
                Session::Echo => {
                    ws::frame::put_binary(out, bytes);
                    Step::Handled(Spent::Message)
                }
                session => Step::Intent(session.on_binary(bytes, now.1)),
            },
            Some(Message::Ping(payload)) => {
                ws::frame::put_pong(out, payload);
                Step::Handled(Spent::Control)
            }
            Some(Message::Pong(_)) => Step::Handled(Spent::Control),
            Some(Message::Close(close)) => {
                let code = close.map_or(1005, |(code, _)| code.into());
                Step::Intent(Intent::Farewell { echo: Close::echo(close), code })
            }
            // It has just been inflated.
            Some(Message::Deflated(..)) => Step::Fault(Close::INTERNAL),
        };
        inflater.release();
        // Or a connection at rest would keep the buffer of its last message.
        self.decoder.release();
        self.begun = match (self.decoder.mid_message(), self.begun.is_some()) {
            (true, true) => self.begun,
            (true, false) => now.0.into(),
            (false, _) => MaybeMono::NONE,
        };
        (used, found)
    }
}
