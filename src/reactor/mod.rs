//! A reactor: one thread, one poller, its connections and their rooms. A turn is eight steps, and [`Reactor::turn`] reads
//! like the list of them.
//!
//! ```text
//! 1 wait ─▶ 2 now ─▶ 3 inbox ─▶ 4 readiness ─▶ 5 deadlines ─▶ 6 flush ─▶ 7 settle ─▶ 8 ring ─┐
//!    ▲                                                                                        │
//!    └────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A connection is touched by one thread from accept to close. Nothing here blocks but step 1. Every list a turn works
//! through is bounded; what a turn leaves undone is remembered and makes the next wait zero.
//!
//! `poller.rs` is the seam: production is mio, the simulation scripts readiness, streams, time and the store.

mod answers;
mod census;
mod credentials;
mod deadlines;
mod flush;
mod inbox;
mod intents;
mod membership;
mod outgoing;
mod packer;
pub mod poller;
mod readiness;
mod requests;
mod settle;
mod shares;
mod table;

pub use inbox::{Control, Inbound};

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mio::net::TcpStream;

use self::deadlines::Deadlines;
use self::packer::Packer;
use self::poller::{Poller, Ready};
use self::table::Table;
use crate::backlog::Backlog;
use crate::clock::{Clock, Mono, Wall};
use crate::config::Live;
use crate::conn::BESIDE_BYTES;
use crate::dialect::{Env, FileTask, Name, Write};
use crate::directory::Directory;
use crate::guests::Guests;
use crate::ids::{ConnId, RoomName};
use crate::limits::{SCRATCH_BYTES, Shares};
use crate::mailbox::{Inbox, Mailbox};
use crate::meter::Meter;
use crate::metrics::Counts;
use crate::presence::Presence;
use crate::room::Hub;
use crate::service::Status;
use crate::store::{Job, Question};
use crate::ws::Inflater;

/// How often a client whose operation found the store's queue full is tried again.
const STARVED_PAUSE: Duration = Duration::from_millis(1);

/// What a reactor needs from the rest of the house.
#[derive(Debug)]
pub struct Wiring<S> {
    pub index: u8,
    pub inbox: Inbox<Inbound<S>>,
    /// One a shard.
    pub writers: Vec<Mailbox<Job>>,
    pub readers: Mailbox<Question>,
    pub files: Option<Mailbox<FileTask>>,
    pub backlog: Arc<Backlog>,
    /// HTTP responses that wait for slow readers.
    pub responses: Arc<Backlog>,
    pub directory: Arc<Directory>,
    pub presence: Arc<Presence>,
    /// All reactors, this one too, in the order of their indices.
    pub peers: Vec<Mailbox<Inbound<S>>>,
    pub guests: Arc<Guests>,
    pub env: Arc<Env>,
    pub clock: Clock,
    pub status: Arc<Status>,
    pub live: Arc<ArcSwap<Live>>,
    /// What each listener serves.
    pub listeners: Vec<Vec<Name>>,
}

/// The most memory of ours that a connection takes, less the texts in it. The table doubles when it is full, and its old
/// half is there for as long as that takes; of deadlines there are a few, entered lazily.
pub const CONNECTION_BYTES: usize =
    3 * size_of::<table::Entry<TcpStream>>() + BESIDE_BYTES + 2 * DEADLINES * size_of::<(ConnId, u32)>();
/// What another thread posts at once.
pub const INBOUND_BYTES: usize = size_of::<Inbound<TcpStream>>();
/// A connection's own, and the shorter ones that were overtaken and surface in vain.
const DEADLINES: usize = 8;

#[derive(Debug)]
pub struct Reactor<P: Poller> {
    poller: P,
    wiring: Wiring<P::Socket>,
    table: Table<P::Socket>,
    hub: Hub,
    deadlines: Deadlines,
    live: Arc<Live>,
    /// Its part of what all connections may hold together. As of its start: what it is part of was judged then.
    shares: Shares,
    now: (Mono, Wall),
    scratch: Box<[u8]>,
    /// The replies to one read, before they are written: one buffer for all, as with `scratch`.
    out: Vec<u8>,
    /// One for all connections, as all of them begin anew with each message.
    inflater: Inflater,
    packer: Packer,
    /// Bytes that one connection's reading came to besides what was read: messages gathered and inflated, answers.
    worked: usize,
    /// The same of all connections in this turn, and what was read (`limits::TURN_BUDGET_BYTES`).
    spent: usize,
    ready: Vec<Ready>,
    /// Connections with unread bytes that nobody will tell us of again.
    carry: Vec<ConnId>,
    /// Connections with something to be written, each once ([`Reactor::owe`]).
    unflushed: Vec<ConnId>,
    /// The memory of the list that is being worked through.
    spare: Vec<ConnId>,
    /// Connections whose operation found the store's queue full.
    starved: Vec<ConnId>,
    /// Connections that got an answer this turn, and may go on when its events are out.
    answered: Vec<ConnId>,
    /// Writes of the reactor's own that the store has not taken yet.
    owed: VecDeque<Write>,
    /// Rooms in which something was shown whose clients' positions are to be written down, and when.
    to_mark: Vec<RoomName>,
    mark_at: Option<Mono>,
    /// When to tell who came and who left.
    presence_at: Option<Mono>,
    /// When to look at everybody's credential again, not before when, and who is left of the look that is under way.
    recheck_at: Option<Mono>,
    recheck_rest: Mono,
    to_recheck: Vec<ConnId>,
    /// When to forget the pages in which nobody reads any more.
    forget_at: Option<Mono>,
    /// When draining: who is told to go, and when; the next one last.
    leaving: Vec<(Mono, ConnId)>,
    draining: bool,
    /// When draining: until when somebody may still ask who has just connected.
    newcomers_until: Mono,
    stopped: bool,
    refusal_lines: Meter,
    counts: Counts,
    published: Counts,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    On,
    /// Drained, or told to stop.
    End,
}

impl<P: Poller> Reactor<P> {
    pub fn new(poller: P, wiring: Wiring<P::Socket>) -> Reactor<P> {
        let live = wiring.live.load_full();
        let now = (wiring.clock.mono(), wiring.clock.wall());
        let packer = Packer::new(&live.deflate);
        let shares = live.limits.shares().part(wiring.peers.len());
        Reactor {
            poller,
            table: Table::new(wiring.index),
            wiring,
            hub: Hub::default(),
            deadlines: Deadlines::default(),
            shares,
            live,
            now,
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            out: Vec::new(),
            inflater: Inflater::default(),
            packer,
            worked: 0,
            spent: 0,
            ready: Vec::new(),
            carry: Vec::new(),
            unflushed: Vec::new(),
            spare: Vec::new(),
            starved: Vec::new(),
            answered: Vec::new(),
            owed: VecDeque::new(),
            to_mark: Vec::new(),
            mark_at: None,
            presence_at: None,
            recheck_at: None,
            recheck_rest: Mono(0),
            to_recheck: Vec::new(),
            forget_at: None,
            leaving: Vec::new(),
            draining: false,
            newcomers_until: Mono(0),
            stopped: false,
            refusal_lines: Meter::default(),
            counts: Counts::default(),
            published: Counts::default(),
        }
    }

    pub fn run(mut self) -> io::Result<()> {
        while self.turn()? == Flow::On {}
        Ok(())
    }

    pub fn turn(&mut self) -> io::Result<Flow> {
        self.wait()?;
        self.read_the_clock();
        self.take_inbox();
        self.serve_readiness();
        self.meet_deadlines();
        self.flush();
        self.settle();
        self.pay_owed();
        self.ring();
        let drained = self.draining && self.table.is_empty() && self.owed.is_empty();
        Ok(if self.stopped || drained { Flow::End } else { Flow::On })
    }

    /// Step 1: until something is ready, something is posted, or a deadline comes; not at all when work was carried over.
    fn wait(&mut self) -> io::Result<()> {
        let patience = self.patience();
        self.ready.clear();
        self.poller.wait(patience, &mut self.ready)
    }

    fn patience(&self) -> Option<Duration> {
        let busy = !self.carry.is_empty() || !self.unflushed.is_empty() || !self.wiring.inbox.is_empty();
        if busy || !self.to_recheck.is_empty() {
            return Some(Duration::ZERO);
        }
        let starved = (!self.starved.is_empty() || !self.owed.is_empty()).then_some(STARVED_PAUSE);
        let dues = [self.presence_at, self.mark_at, self.recheck_at, self.forget_at]
            .into_iter()
            .flatten()
            .min()
            .map(|at| at.since(self.now.0));
        let leaving = self.leaving.last().map(|(at, _)| at.since(self.now.0));
        [starved, leaving, dues, self.deadlines.patience(self.now.0)].into_iter().flatten().min()
    }

    /// Step 2: once per turn; everything in the turn happens at this time.
    fn read_the_clock(&mut self) {
        self.now = (self.wiring.clock.mono(), self.wiring.clock.wall());
        self.take_settings();
    }

    fn take_settings(&mut self) {
        let live = self.wiring.live.load();
        if !Arc::ptr_eq(&live, &self.live) {
            self.live = arc_swap::Guard::into_inner(live);
            self.packer.tune(&self.live.deflate);
        }
    }

    /// Step 8: one wake per thread we posted to, and our counts.
    fn ring(&mut self) {
        for writer in &mut self.wiring.writers {
            writer.ring();
        }
        self.wiring.readers.ring();
        for peer in &mut self.wiring.peers {
            peer.ring();
        }
        if let Some(files) = &mut self.wiring.files {
            files.ring();
        }
        self.counts.deflated += self.packer.take_deflated();
        self.counts.rooms = self.hub.rooms() as i64;
        self.counts.members = self.hub.members() as i64;
        self.counts.connections = self.table.len() as i64;
        self.counts.publish(&mut self.published, &self.wiring.status.metrics);
        let took = self.wiring.clock.mono().since(self.now.0);
        self.wiring.status.metrics.loop_lag.observe(took.as_secs_f64());
    }

    /// For the simulation, after every turn.
    #[cfg(any(test, debug_assertions))]
    pub fn check_invariants(&self) {
        self.hub.check_invariants();
        let mut memberships = 0;
        let (mut outboxes, mut unfinished) = (0, 0);
        self.table.each(|entry| {
            entry.conn.check_invariants();
            memberships += entry.memberships.as_slice().len();
            outboxes += i64::from(entry.gauged);
            unfinished += i64::from(entry.conn.weighed());
        });
        assert_eq!((outboxes, unfinished), (self.counts.outbox_bytes, self.counts.unfinished_bytes), "the books");
        assert_eq!(memberships, self.hub.members(), "every membership has its connection");
    }
}
