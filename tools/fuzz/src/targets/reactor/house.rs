//! One life of the process: a reactor with the wiring that the server gives it, a reader and a worker, driven turn by
//! turn.

use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use commitcast::backlog::Backlog;
use commitcast::clock::{Clock, Mono};
use commitcast::config::{Flags, Live, Settings};
use commitcast::dialect::{Env, Name};
use commitcast::directory::Directory;
use commitcast::files;
use commitcast::guests::Guests;
use commitcast::limits::{RESPONSE_BYTES_MAX, STORE_BYTES_MAX};
use commitcast::mailbox::{self, Mailbox};
use commitcast::model::TaskKind;
use commitcast::reactor::{self, Inbound, Reactor};
use commitcast::service::Status;
use commitcast::store::memory::{Faults, MemorySnapshots, MemoryStore, Outcome};
use commitcast::store::reader::Reader;
use commitcast::store::worker::{self, Turn, Worker};
use commitcast::store::{Keep, Retention};

use super::client::Client;
use super::client::net::{SimPoller, SimSocket, lock};
use crate::targets::stage::{NOW, prompt};

/// What tokens are signed with, and an API key.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";
pub const KEY: &str = "the key of a backend";
/// Rounds without a word after which everybody is at rest.
const QUIET: usize = 4;
/// A commit that was scripted to fail is tried again, so no script goes on for ever.
const ROUNDS_MAX: usize = 2000;

type Post = Inbound<SimSocket>;

pub struct House {
    life: Life,
    live: Arc<Live>,
    clock: Clock,
    disk: Faults,
    boot: u64,
    waited: Duration,
}

struct Life {
    reactor: Reactor<SimPoller>,
    sockets: Mailbox<Post>,
    reader: Reader<MemorySnapshots, Post>,
    worker: Worker<MemoryStore, Post>,
    backlog: Arc<Backlog>,
    responses: Arc<Backlog>,
    directory: Arc<Directory>,
    guests: Arc<Guests>,
    env: Arc<Env>,
}

/// Debug mode, and token mode with small bounds.
static LIVES: LazyLock<[Arc<Live>; 2]> = LazyLock::new(|| {
    let both = format!(
        "[auth]\nhs256_secret = {SECRET:?}\napi_keys = [{{ name = \"worker\", key = {KEY:?}, rights = [\"*\"] }}]\n\
         [deflate]\nenabled = true\nthreshold = \"60B\"\n"
    );
    let strict = "[limits]\nmessage = \"2KiB\"\noutbox = \"64KiB\"\nrooms = 3\nmessages_per_second = 50\n[origins]\nallow = []\n";
    [(true, both.clone()), (false, both.replacen("[auth]", "[auth]\nmode = \"token\"", 1) + strict)].map(
        |(debug, text)| {
            let flags = Flags {
                config: Some("fuzz.toml".into()),
                listen: vec!["127.0.0.1:0".to_owned()],
                debug,
                ..Flags::default()
            };
            match Settings::build(&flags, std::iter::empty(), |_| Ok(text.clone())) {
                Ok(settings) => settings.live(),
                Err(error) => panic!("{error}\n{text}"),
            }
        },
    )
});

impl House {
    pub fn new(strict: bool) -> House {
        let clock = Clock::manual(Mono(1), NOW);
        let mut store = MemoryStore::new(1, 1);
        let prompts = ["p0", "p1", "text"].map(prompt).to_vec();
        files::load(&mut store, prompts, &Env::default(), NOW).expect("the store works");
        let disk = store.faults();
        let live = LIVES[usize::from(strict)].clone();
        House { life: Life::start(store, 1, &clock, &live), live, clock, disk, boot: 1, waited: Duration::ZERO }
    }

    /// A new process after the old one has ended.
    pub fn restart(&mut self) {
        self.boot += 1;
        self.life = Life::start(self.disk.reopen(self.boot), self.boot, &self.clock, &self.live);
    }

    pub fn welcome(&mut self, client: &Client) {
        let peer = ([127, 0, 0, 1], 9).into();
        let socket = Inbound::Socket { socket: SimSocket(client.wire.clone()), peer, listener: 0 };
        assert!(self.life.sockets.post(socket).is_ok(), "so few sockets fit the mailbox");
    }

    pub fn turn(&mut self) {
        self.life.reactor.turn().expect("the scripted poller never fails");
        #[cfg(debug_assertions)]
        self.life.reactor.check_invariants();
        assert!(self.life.backlog.bytes() <= STORE_BYTES_MAX && self.life.responses.bytes() <= RESPONSE_BYTES_MAX);
    }

    /// False when nothing can be written any more.
    pub fn write(&mut self) -> bool {
        self.life.worker.turn() != Turn::Broken
    }

    pub fn read(&mut self) {
        while self.life.reader.turn() {}
    }

    pub fn all(&mut self) -> bool {
        for _ in 0..3 {
            self.turn();
            self.read();
            if !self.write() {
                return false;
            }
        }
        true
    }

    /// Between a millisecond and a minute and a half, or a step of the wall clock.
    pub fn wait(&mut self, how: u8) {
        let by = u64::from(how & 0x1f);
        match how >> 5 {
            0..=3 => self.advance(Duration::from_millis(1 + by)),
            4 | 5 => self.advance(Duration::from_secs(1 + by / 2)),
            6 => self.advance(Duration::from_secs(3 * by)),
            _ => {
                if let Clock::Manual(time) = &self.clock {
                    let hours = by as i64 - 16;
                    time.1.store((self.clock.wall().0 + hours * 3_600_000_000) as u64, Ordering::Relaxed);
                }
            }
        }
    }

    fn advance(&mut self, by: Duration) {
        self.waited += by;
        self.clock.advance(by);
    }

    /// So much time has gone by that a client may have been given up for not reading, in the middle of what it was
    /// told.
    pub fn may_give_up(&self) -> bool {
        self.waited >= self.live.limits.stall
    }

    pub fn fault(&mut self, which: u8) {
        match which % 5 {
            0 => self.disk.busy_begins(1 + u32::from(which >> 5)),
            1 => self.disk.next_commit(Outcome::Busy),
            2 => self.disk.next_commit(Outcome::Full),
            stored => self.disk.next_commit(Outcome::LostAnswer { stored: stored == 3 }),
        }
    }

    /// Nothing goes wrong from now on that was not scripted before.
    pub fn heal(&mut self) {
        self.disk.busy_begins(0);
    }

    /// Everybody reads, until nobody is told anything more. False when the store gave up on the way.
    pub fn rest(&mut self, clients: &mut [Client]) -> bool {
        let mut quiet = 0;
        for _ in 0..ROUNDS_MAX {
            clients.iter().for_each(|client| lock(&client.wire).calm());
            if !self.all() {
                return false;
            }
            let told = clients.iter_mut().map(Client::read_all).sum::<usize>();
            self.clock.advance(Duration::from_millis(if quiet == 0 { 1 } else { 200 }));
            quiet = if told == 0 { quiet + 1 } else { 0 };
            if quiet > QUIET {
                return true;
            }
        }
        panic!("it does not come to rest");
    }

    /// Everybody goes, and nothing is left of them.
    pub fn empty(&mut self, clients: &mut [Client]) {
        clients.iter_mut().for_each(|client| client.leave(false));
        for round in 0..26 {
            if !self.all() {
                return;
            }
            // Whoever has asked for tasks over HTTP is believed to come again for a minute.
            self.clock.advance(Duration::from_secs(if round < 24 { 1 } else { 61 }));
        }
        let life = &self.life;
        for client in clients.iter() {
            assert!(lock(&client.wire).server_gone, "a client has gone, and its socket is still there");
        }
        assert_eq!(life.directory.rooms(), 0, "everybody has gone, and rooms have members");
        assert_eq!(life.guests.open(), 0, "everybody has gone, and connections are counted");
        let taken: Vec<&str> =
            TaskKind::ALL.into_iter().filter(|kind| life.env.attached.has(*kind)).map(TaskKind::as_str).collect();
        assert!(taken.is_empty(), "everybody has gone, and somebody takes {taken:?}");
        assert_eq!((life.backlog.bytes(), life.responses.bytes()), (0, 0), "everybody has gone, and bytes wait");
    }
}

impl Life {
    fn start(store: MemoryStore, boot: u64, clock: &Clock, live: &Arc<Live>) -> Life {
        let directory = Arc::new(Directory::default());
        let env = Arc::new(Env { directory: directory.clone(), ..Env::default() });
        let status = Arc::new(Status::new(Arc::default(), Arc::default(), "full", "debug"));
        let backlog = Arc::new(Backlog::new(STORE_BYTES_MAX));
        let responses = Arc::new(Backlog::new(RESPONSE_BYTES_MAX));
        let guests = Arc::new(Guests::default());
        // Small enough to be full now and then.
        let (jobs, jobs_inbox) = mailbox::channel(8);
        let (questions, questions_inbox) = mailbox::channel(8);
        let (sockets, inbox) = mailbox::channel::<Post>(512);
        let reader = Reader::new(store.snapshots(), questions_inbox, vec![sockets.clone()], env.clone());
        let keep = Keep { pattern: "topic:*".to_owned(), events: Some(3), span: None };
        let worker = Worker::new(
            store,
            worker::Wiring {
                inbox: jobs_inbox,
                reactors: vec![sockets.clone()],
                files: None,
                directory: directory.clone(),
                env: env.clone(),
                clock: clock.clone(),
                metrics: status.metrics.clone(),
                pulse: status.pulse.clone(),
                backlog: backlog.clone(),
                retention: Arc::new(ArcSwap::from_pointee(Retention { rules: vec![keep] })),
            },
        );
        let reactor = Reactor::new(
            SimPoller::new(boot),
            reactor::Wiring {
                index: 0,
                inbox,
                writers: vec![jobs],
                readers: questions,
                files: None,
                backlog: backlog.clone(),
                responses: responses.clone(),
                directory: directory.clone(),
                presence: Arc::default(),
                peers: vec![sockets.clone()],
                guests: guests.clone(),
                env: env.clone(),
                clock: clock.clone(),
                status,
                live: Arc::new(ArcSwap::new(live.clone())),
                listeners: vec![Name::ALL.to_vec()],
            },
        );
        Life { reactor, sockets, reader, worker, backlog, responses, directory, guests, env }
    }
}
