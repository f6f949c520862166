//! The composition root: the only file that knows every part. Makes the mailboxes, starts the threads, ends them in order.
//!
//! Start: store (lock, barrier) → Markdown files taken in → readers, scribe, writer → reactors → listener → listening.
//! End: listener → reactors drained → scribe → writer drained → readers. Each step waits for the one before, so every
//! operation that was taken on is answered while there is still somebody to carry the answer. A hand-over to another process
//! is the same end, only short: until it is over nobody is served.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use mio::net::TcpStream;

use crate::auth::Mode;
use crate::backlog::Backlog;
use crate::budget::{Budget, TooLarge};
use crate::clock::Clock;
use crate::config::{Durability, Live, Settings};
use crate::dialect::{self, Env, FileTask, Name, documents};
use crate::directory::Directory;
use crate::files::{self, Scribe};
use crate::guests::Guests;
use crate::limits::{
    COMMIT_HANG, DESCRIPTORS_RESERVED, FILES_MAILBOX, HANDOVER_CLOSE, HANDOVER_DRAIN, REACTOR_MAILBOX, STORE_MAILBOX,
};
use crate::listener::{Doors, Listener};
use crate::mailbox::{self, Mailbox};
use crate::metrics::Metrics;
use crate::model::RowsError;
use crate::mutant::Canary;
use crate::panics::EXIT_FAULT;
use crate::presence::Presence;
use crate::reactor::poller::MioPoller;
use crate::reactor::{self, Control, Inbound, Reactor};
use crate::service::Status;
use crate::store::reader::Reader;
use crate::store::worker::{self, Ending, Worker};
use crate::store::{Delivery, Pulse, Retention, Store as _, sqlite};

/// Why the server could not start: each says whose fault it is.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Memory(#[from] TooLarge),
    #[error("the store: {0}")]
    Store(#[from] sqlite::OpenError),
    #[error("reading what is revoked: {0}")]
    Revoked(#[from] RowsError),
    #[error("reading the document directories: {0}")]
    Load(#[from] files::LoadError),
    #[error("cannot listen on {address}: {error}. Is another program listening there?")]
    Bind { address: SocketAddr, error: io::Error },
    #[error("the system refused: {0}")]
    System(#[from] io::Error),
}

impl StartError {
    /// Another process has the store, perhaps for a moment only.
    pub fn is_locked(&self) -> bool {
        matches!(self, StartError::Store(sqlite::OpenError::Locked { .. }))
    }
}

/// How the server came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Everything that was asked was answered.
    Drained,
    /// The time to drain was over.
    TimedOut,
    /// The store failed: recovery at the next start settles what happened.
    StoreBroken,
}

#[derive(Debug)]
pub struct Server {
    pub addresses: Vec<SocketAddr>,
    pub budget: Budget,
    clock: Clock,
    status: Arc<Status>,
    live: Arc<ArcSwap<Live>>,
    retention: Arc<ArcSwap<Retention>>,
    stop_listening: Arc<AtomicBool>,
    mailboxes: Vec<Mailbox<Inbound<TcpStream>>>,
    files: Option<Mailbox<FileTask>>,
    listener: JoinHandle<()>,
    reactors: Vec<JoinHandle<()>>,
    scribe: Option<JoinHandle<()>>,
    writer: JoinHandle<Ending>,
    readers: Vec<JoinHandle<()>>,
}

impl Server {
    /// Opens what the settings name, for the server alone: when it ends, nobody listens.
    pub fn start(settings: &Settings) -> Result<Server, StartError> {
        let addresses = settings.listeners.iter().map(|listen| listen.address).collect();
        Server::start_behind(settings, &mut Doors::new(addresses))
    }

    /// Starts behind the doors of the settings' listeners. Those that are shut are opened when the store is: until there is
    /// somebody to serve them, clients are better refused, so that they turn to another server.
    pub fn start_behind(settings: &Settings, doors: &mut Doors) -> Result<Server, StartError> {
        let clock = Clock::system();
        let live = settings.live();
        let durability = match settings.store.durability {
            Durability::Full => sqlite::Durability::Full,
            Durability::Normal => sqlite::Durability::Normal,
        };
        let metrics = Arc::new(Metrics::default());
        let pulse = Arc::new(Pulse::default());
        let budget = budget(settings)?;
        metrics.memory_bound.set(i64::try_from(budget.bytes()).unwrap_or(i64::MAX));
        let shares = live.limits.shares();
        let backlog = Arc::new(Backlog::new(shares.operations));
        let responses = Arc::new(Backlog::new(shares.responses));
        let status = Arc::new(Status::new(
            metrics.clone(),
            pulse.clone(),
            match durability {
                sqlite::Durability::Full => "full",
                sqlite::Durability::Normal => "normal",
            },
            environment(&live),
        ));
        let directory = Arc::new(Directory::default());
        let env = Arc::new(Env {
            documents: documents::Env { roots: settings.documents.directories.clone() },
            agents: settings.agents.clone(),
            directory: directory.clone(),
            attached: Arc::default(),
            canary: Canary::default(),
            revoked: Arc::default(),
        });
        let sqlite::Opened { mut store, readers: factory, .. } = sqlite::open(&settings.store.path, durability)?;

        store.begin(clock.wall())?;
        let revoked = dialect::remember_revocations(store.rows(), &env);
        store.rollback();
        revoked?;

        let scan = files::scan(&settings.documents.directories);
        for skipped in &scan.skipped {
            log::warn!("passed over: {skipped}");
        }
        let count = files::load(&mut store, scan.files, &env, clock.wall())?;
        if !settings.documents.directories.is_empty() {
            log::info!("{count} Markdown files read from {}", settings.documents.directories.join(", "));
        }

        let presence = Arc::new(Presence::default());
        let guests = Arc::new(Guests::default());
        let shared_live = Arc::new(ArcSwap::new(live.clone()));
        let retention = Arc::new(ArcSwap::from_pointee(live.retention.clone()));
        let (jobs, jobs_inbox) = mailbox::channel(STORE_MAILBOX);
        let (questions, questions_inbox) = mailbox::channel(STORE_MAILBOX);
        let (files_mailbox, files_inbox) = match settings.documents.directories.is_empty() {
            true => (None, None),
            false => {
                let (mailbox, inbox) = mailbox::channel(FILES_MAILBOX);
                (Some(mailbox), Some(inbox))
            }
        };

        let mut mailboxes = Vec::new();
        let mut houses = Vec::new();
        for _ in 0..settings.reactors {
            let poller = MioPoller::new()?;
            let (mailbox, inbox) = mailbox::with_waker(REACTOR_MAILBOX, poller.waker()?);
            mailboxes.push(mailbox);
            houses.push((poller, inbox));
        }

        let sockets = doors.open().map_err(|(address, error)| StartError::Bind { address, error })?;
        let addresses = sockets.iter().map(mio::net::TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;

        let reader_threads = (0..settings.store.readers)
            .map(|index| {
                let reader = Reader::new(factory.open()?, questions_inbox.clone(), mailboxes.clone(), env.clone());
                Ok(spawn(format!("reader-{index}"), move || reader.run())?)
            })
            .collect::<Result<Vec<_>, StartError>>()?;
        let scribe = match files_inbox {
            None => None,
            Some(inbox) => {
                let scribe = Scribe::new(
                    factory.open()?,
                    files::ScribeWiring {
                        inbox,
                        writers: vec![jobs.clone()],
                        roots: settings.documents.directories.clone(),
                        clock: clock.clone(),
                        metrics: metrics.clone(),
                    },
                );
                Some(spawn("scribe".to_owned(), move || scribe.run())?)
            }
        };
        let worker = Worker::new(
            store,
            worker::Wiring {
                inbox: jobs_inbox,
                reactors: mailboxes.clone(),
                files: files_mailbox.clone(),
                directory: directory.clone(),
                env: env.clone(),
                clock: clock.clone(),
                metrics: metrics.clone(),
                pulse,
                backlog: backlog.clone(),
                retention: retention.clone(),
            },
        );
        let writer = spawn("writer".to_owned(), move || worker.run())?;

        let mut reactor_threads = Vec::new();
        for (index, (poller, inbox)) in houses.into_iter().enumerate() {
            let reactor = Reactor::new(
                poller,
                reactor::Wiring {
                    index: index as u8,
                    inbox,
                    writers: vec![jobs.clone()],
                    readers: questions.clone(),
                    files: files_mailbox.clone(),
                    backlog: backlog.clone(),
                    responses: responses.clone(),
                    directory: directory.clone(),
                    presence: presence.clone(),
                    peers: mailboxes.clone(),
                    guests: guests.clone(),
                    env: env.clone(),
                    clock: clock.clone(),
                    status: status.clone(),
                    live: shared_live.clone(),
                    listeners: settings.listeners.iter().map(|listen| listen.dialects.clone()).collect(),
                },
            );
            reactor_threads.push(spawn(format!("reactor-{index}"), move || {
                if let Err(error) = reactor.run() {
                    // Without its poller a reactor is nothing, and its clients come back to a new process.
                    log::error!("reactor {index}: {error}");
                    std::process::exit(EXIT_FAULT);
                }
            })?);
        }

        let stop_listening = Arc::new(AtomicBool::new(false));
        let connections = connections_max(live.limits.connections);
        if connections < live.limits.connections {
            log::warn!(
                "limits.connections = {}, but the descriptor limit allows {connections}",
                live.limits.connections
            );
        }
        let listener = Listener::new(
            sockets,
            mailboxes.clone(),
            connections,
            live.limits.stall,
            metrics.clone(),
            stop_listening.clone(),
        )?;
        let listener = spawn("listener".to_owned(), move || {
            if let Err(error) = listener.run() {
                // Without its poller a listener is deaf, and a process that nobody reaches helps nobody.
                log::error!("the listener's poller failed: {error}");
                std::process::exit(EXIT_FAULT);
            }
        })?;

        Ok(Server {
            addresses,
            budget,
            clock,
            status,
            live: shared_live,
            retention,
            stop_listening,
            mailboxes,
            files: files_mailbox,
            listener,
            reactors: reactor_threads,
            scribe,
            writer,
            readers: reader_threads,
        })
    }

    /// Exchanges what a running server can exchange.
    pub fn reload(&self, live: Arc<Live>) {
        self.retention.store(Arc::new(live.retention.clone()));
        self.live.store(live);
        // Keys may have changed; and a reactor without anything to do would not look for hours.
        for mut mailbox in self.mailboxes.iter().cloned() {
            mailbox.post_or_wait(Inbound::Store(Delivery::Recheck));
            mailbox.ring();
        }
    }

    /// A commit has been under way for so long that nothing will come of it: clients are better off with a new process,
    /// which will find out what it did.
    pub fn commit_hangs(&self) -> bool {
        self.commits_slower_than(COMMIT_HANG)
    }

    pub fn store_is_broken(&self) -> bool {
        self.status.store_is_broken()
    }

    /// What it goes by now, for the next [`Server::reload`].
    pub fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// Asks every reactor for a sign of life.
    pub fn probe(&mut self) -> Probe {
        let answered = Arc::new(AtomicUsize::new(0));
        for mailbox in &mut self.mailboxes {
            // Where the mailbox is full, its reader does not move.
            let _ = mailbox.post(Inbound::Probe(answered.clone()));
            mailbox.ring();
        }
        Probe { answered, asked: self.mailboxes.len() }
    }

    /// A commit has been under way for longer than this.
    pub fn commits_slower_than(&self, patience: Duration) -> bool {
        self.status.pulse.age(self.clock.mono()) > patience
    }

    /// Readiness turns red and nothing new is taken on; those who are there stay.
    pub fn refuse_newcomers(&self) {
        self.status.drain();
    }

    /// Ends in order. `hurry` is asked again and again whether to stop waiting for clients.
    pub fn stop(self, window: Duration, timeout: Duration, hurry: impl Fn() -> bool) -> End {
        self.refuse_newcomers();
        self.end(window, timeout, hurry)
    }

    /// Ends for another process to go on: everybody is told to go at once, and comes back to that one. Spread over a window
    /// they would find nobody, as the store is in one hand or in the other. Readiness stays green, and who was let in at the
    /// last moment is served before he is told: to a proxy nothing has happened.
    pub fn hand_over(self, hurry: impl Fn() -> bool) -> End {
        let mut live = Live::clone(&self.live.load());
        live.limits.close = live.limits.close.min(HANDOVER_CLOSE);
        self.live.store(Arc::new(live));
        self.end(Duration::ZERO, HANDOVER_DRAIN, hurry)
    }

    fn end(mut self, window: Duration, timeout: Duration, hurry: impl Fn() -> bool) -> End {
        let deadline = self.clock.mono().after(timeout);
        self.stop_listening.store(true, Ordering::Release);
        join(self.listener, "listener");
        for mailbox in &mut self.mailboxes {
            mailbox.post_or_wait(Inbound::Control(Control::Drain { window }));
            mailbox.ring();
        }
        let mut timed_out = false;
        while self.reactors.iter().any(|reactor| !reactor.is_finished()) {
            if hurry() || self.clock.mono() >= deadline {
                timed_out = !hurry();
                for mailbox in &mut self.mailboxes {
                    mailbox.post_or_wait(Inbound::Control(Control::Stop));
                    mailbox.ring();
                }
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        for reactor in self.reactors {
            join(reactor, "reactor");
        }
        if let Some(files) = &mut self.files {
            files.post_or_wait(FileTask::Stop);
        }
        if let Some(scribe) = self.scribe {
            join(scribe, "scribe");
        }
        let broken = match self.writer.join() {
            Ok(Ending::Drained) => self.status.store_is_broken(),
            Ok(Ending::Broken) => true,
            Err(_) => {
                log::error!("the writer panicked");
                true
            }
        };
        drop(self.mailboxes);
        for reader in self.readers {
            join(reader, "reader");
        }
        match (broken, timed_out) {
            (true, _) => End::StoreBroken,
            (false, true) => End::TimedOut,
            (false, false) => End::Drained,
        }
    }
}

/// A question whether all reactors move.
#[derive(Debug)]
pub struct Probe {
    answered: Arc<AtomicUsize>,
    asked: usize,
}

impl Probe {
    pub fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed) >= self.asked
    }
}

fn spawn<T: Send + 'static>(name: String, work: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    thread::Builder::new().name(name).spawn(work)
}

fn join(thread: JoinHandle<()>, name: &str) {
    if thread.join().is_err() {
        log::error!("the {name} thread panicked");
    }
}

fn environment(live: &Live) -> &'static str {
    let modes: Vec<Mode> = Name::ALL.into_iter().map(|name| live.policy(name).mode).collect();
    if modes.contains(&Mode::Debug) {
        "debug"
    } else if modes.contains(&Mode::Open) {
        "open"
    } else {
        "production"
    }
}

/// What a server of these settings may come to need, if there is so much.
pub fn budget(settings: &Settings) -> Result<Budget, TooLarge> {
    Budget::of(settings, connections_max(settings.live.limits.connections)).check(settings)
}

/// What the configuration asks for, or what the descriptor limit allows.
fn connections_max(asked: usize) -> usize {
    // Of a small limit a share: refusing everybody would be a strange way to be careful.
    let limit = descriptor_limit();
    let allowed = (limit - DESCRIPTORS_RESERVED.min(limit / 4)) as usize;
    match asked {
        0 => allowed,
        asked => asked.min(allowed),
    }
}

/// The soft limit on open files, from the kernel's own table; without one, a modest guess.
fn descriptor_limit() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok())
        .unwrap_or(1024)
}
