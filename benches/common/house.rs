//! One reactor with the wiring that the server gives it, a reader and a writer over the store in memory, all driven turn by
//! turn in this thread. Nothing is random: the clock is set by hand, the network is a script.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use commitcast::backlog::Backlog;
use commitcast::clock::{Clock, Mono, Wall};
use commitcast::config::{Flags, Live, Settings};
use commitcast::dialect::{Env, Name, documents};
use commitcast::directory::Directory;
use commitcast::files;
use commitcast::mailbox::{self, Inbox, Mailbox};
use commitcast::reactor::{self, Inbound, Reactor};
use commitcast::service::Status;
use commitcast::store::memory::{MemorySnapshots, MemoryStore};
use commitcast::store::reader::Reader;
use commitcast::store::worker::{self, Turn, Worker};
use commitcast::store::{Delivery, Retention};

use super::script::{Edges, Script, Socket, Wire};
use super::texts;

/// What the clock moves on with each turn: about what a turn of a hundred messages takes.
const TURN: Duration = Duration::from_micros(150);
/// How many turns a connection may take until nothing more happens.
const SETTLING_TURNS_MAX: usize = 100_000;

pub struct House {
    reactor: Reactor<Script>,
    inbound: Mailbox<Inbound<Socket>>,
    reader: Reader<MemorySnapshots, Delivery>,
    worker: Worker<MemoryStore, Delivery>,
    /// What reader and worker have for the reactor.
    deliveries: Inbox<Delivery>,
    pub edges: Rc<Edges>,
    clock: Clock,
}

impl House {
    pub fn new() -> House {
        let clock = Clock::manual(Mono(1), Wall(1_700_000_000_000_000));
        let directory = Arc::new(Directory::default());
        let env = Arc::new(Env { directory: directory.clone(), ..Env::default() });
        let mut store = MemoryStore::new(1, 1);
        files::load(&mut store, vec![document()], &env, clock.wall()).unwrap();
        let backlog = Arc::new(Backlog::new(1 << 28));
        let status = Arc::new(Status::new(Arc::default(), Arc::default(), "full", "debug"));
        let (jobs, jobs_inbox) = mailbox::channel(4096);
        let (questions, questions_inbox) = mailbox::channel(4096);
        let (to_reactor, deliveries) = mailbox::channel(4096);
        let (inbound, inbox) = mailbox::channel(4096);
        let edges = Rc::new(Edges::default());
        let reader = Reader::new(store.snapshots(), questions_inbox, vec![to_reactor.clone()], env.clone());
        let worker = Worker::new(
            store,
            worker::Wiring {
                inbox: jobs_inbox,
                reactors: vec![to_reactor],
                files: None,
                directory: directory.clone(),
                env: env.clone(),
                clock: clock.clone(),
                metrics: status.metrics.clone(),
                pulse: status.pulse.clone(),
                backlog: backlog.clone(),
                retention: Arc::new(ArcSwap::from_pointee(Retention::default())),
            },
        );
        let reactor = Reactor::new(
            Script(edges.clone()),
            reactor::Wiring {
                index: 0,
                inbox,
                writers: vec![jobs],
                readers: questions,
                files: None,
                backlog: backlog.clone(),
                responses: backlog,
                directory,
                presence: Arc::default(),
                peers: vec![inbound.clone()],
                guests: Arc::default(),
                env,
                clock: clock.clone(),
                status,
                live: Arc::new(ArcSwap::new(live())),
                listeners: vec![Name::ALL.to_vec()],
            },
        );
        House { reactor, inbound, reader, worker, deliveries, edges, clock }
    }

    /// So many sockets on one path, and what each says when it is let in.
    pub fn dial(&mut self, path: &str, count: usize, first_words: &[&str]) -> Vec<Rc<Wire>> {
        let request = texts::leak(texts::upgrade(path).into_bytes());
        let mut wires = Vec::with_capacity(count);
        for _ in 0..count {
            let wire = Wire::listening();
            wire.send_unregistered(request);
            let peer = "127.0.0.1:9".parse().unwrap();
            let socket = Inbound::Socket { socket: Socket(wire.clone()), peer, listener: 0 };
            assert!(self.inbound.post(socket).is_ok(), "so many sockets do not fit the reactor's mailbox");
            wires.push(wire);
        }
        self.settle();
        for wire in &wires {
            let heard = wire.hear();
            assert!(heard.starts_with(b"HTTP/1.1 101"), "{path}: {}", String::from_utf8_lossy(&heard));
        }
        for word in first_words {
            let frame = texts::leak(texts::text_frame(word));
            for wire in &wires {
                self.edges.send(wire, frame);
            }
            self.settle();
            assert!(wires.iter().all(|wire| !wire.hear().is_empty()), "{path}: no answer to {word}");
        }
        for wire in &wires {
            wire.stop_listening();
        }
        wires
    }

    /// One turn of the reactor.
    pub fn turn(&mut self) {
        self.clock.advance(TURN);
        self.reactor.turn().unwrap();
    }

    /// Until reader and worker have nothing more to say.
    pub fn settle(&mut self) {
        for _ in 0..SETTLING_TURNS_MAX {
            self.turn();
            // Fewer than fit their mailbox, whose reader is this very thread.
            let read = (0..1024).take_while(|_| self.reader.turn()).count();
            let wrote = self.worker.turn() == Turn::Worked;
            let mut delivered = 0;
            while let Some(delivery) = self.deliveries.take() {
                self.deliver(delivery);
                delivered += 1;
            }
            if read + delivered == 0 && !wrote && self.edges.is_empty() {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// Posts what a reader or worker has for the reactor.
    pub fn deliver(&mut self, delivery: Delivery) {
        assert!(self.inbound.post(Inbound::Store(delivery)).is_ok(), "the reactor's mailbox is full");
    }
}

fn live() -> Arc<Live> {
    let flags = Flags { listen: vec!["127.0.0.1:0".to_owned()], debug: true, ..Flags::default() };
    Settings::build(&flags, std::iter::empty(), |_| Err(std::io::ErrorKind::NotFound.into())).unwrap().live()
}

fn document() -> documents::Import {
    documents::Import {
        directory: "d".to_owned(),
        name: "p".to_owned(),
        content: texts::prose(256),
        description: None,
        tags: Vec::new(),
        created_at: None,
        updated_at: None,
        digest: [0; 20],
    }
}
