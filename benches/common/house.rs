//! One reactor with the wiring that the server gives it, a reader and a writer over the store in memory, all driven turn by
//! turn in this thread. Nothing is random: the clock is set by hand, the network is a script.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use commitcast::clock::{Clock, Mono, Wall};
use commitcast::config::{Flags, Live, Settings};
use commitcast::dialect::{Env, Name, documents as dialect};
use commitcast::directory::Directory;
use commitcast::files;
use commitcast::ids::ConnId;
use commitcast::mailbox::{self, Inbox, Mailbox};
use commitcast::reactor::{self, Inbound, Reactor};
use commitcast::service::Status;
use commitcast::store::Delivery;
use commitcast::store::memory::{MemorySnapshots, MemoryStore};
use commitcast::store::reader::Reader;

use super::script::{Edges, Script, Socket, Wire};
use super::texts;
use super::writer::Writer;

/// What the wall clock says at the start, in microseconds.
pub const NOW: i64 = 1_700_000_000_000_000;
/// What tokens are signed with.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// How many documents there are.
pub const DOCUMENTS: usize = 128;

/// What the clock moves on with each turn: about what a turn of a hundred messages takes.
const TURN: Duration = Duration::from_micros(150);
/// After so many turns something goes round in circles.
const SETTLING_TURNS_MAX: usize = 100_000;

pub struct House {
    reactor: Reactor<Script>,
    inbound: Mailbox<Inbound<Socket>>,
    reader: Reader<MemorySnapshots, Delivery>,
    /// What the reader has for the reactor.
    answers: Inbox<Delivery>,
    pub writer: Writer<MemoryStore>,
    pub edges: Rc<Edges>,
    clock: Clock,
    dialled: u32,
}

impl House {
    pub fn new() -> House {
        let clock = Clock::manual(Mono(1), Wall(NOW));
        let directory = Arc::new(Directory::default());
        let env = Arc::new(Env { directory: directory.clone(), ..Env::default() });
        let mut store = MemoryStore::new(1, 1);
        files::load(&mut store, documents(), &env, clock.wall()).unwrap();
        let (questions, questions_inbox) = mailbox::channel(4096);
        let (to_reactor, answers) = mailbox::channel(4096);
        let (inbound, inbox) = mailbox::channel(4096);
        let edges = Rc::new(Edges::default());
        let reader = Reader::new(store.snapshots(), questions_inbox, vec![to_reactor], env.clone());
        let writer = Writer::new(store, env.clone(), directory.clone(), clock.clone());
        let reactor = Reactor::new(
            Script(edges.clone()),
            reactor::Wiring {
                index: 0,
                inbox,
                writers: vec![writer.jobs.clone()],
                readers: questions,
                files: None,
                backlog: writer.backlog.clone(),
                responses: writer.backlog.clone(),
                directory,
                presence: Arc::default(),
                peers: vec![inbound.clone()],
                guests: Arc::default(),
                env,
                clock: clock.clone(),
                status: Arc::new(Status::new(Arc::default(), Arc::default(), "full", "debug")),
                live: Arc::new(ArcSwap::new(live())),
                listeners: vec![Name::ALL.to_vec()],
            },
        );
        House { reactor, inbound, reader, answers, writer, edges, clock, dialled: 0 }
    }

    /// The connection that is dialled next, as long as none has gone.
    pub fn next_id(&self) -> ConnId {
        ConnId { reactor: 0, slot: self.dialled, generation: self.dialled + 1 }
    }

    /// So many sockets on one path, and what each says when it is let in.
    pub fn dial(&mut self, path: &str, count: usize, first_words: &[&str]) -> Vec<Rc<Wire>> {
        let request = texts::leak(texts::upgrade(path).into_bytes());
        let wires: Vec<Rc<Wire>> = (0..count).map(|_| Wire::listening()).collect();
        for wire in &wires {
            wire.send_unregistered(request);
            self.welcome(wire);
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

    /// Posts a socket to the reactor, as the listener does.
    pub fn welcome(&mut self, wire: &Rc<Wire>) {
        let peer = ([127, 0, 0, 1], 9).into();
        let socket = Inbound::Socket { socket: Socket(wire.clone()), peer, listener: 0 };
        assert!(self.inbound.post(socket).is_ok(), "so many sockets do not fit the reactor's mailbox");
        self.dialled += 1;
    }

    /// One turn of the reactor.
    pub fn turn(&mut self) {
        self.clock.advance(TURN);
        self.reactor.turn().unwrap();
    }

    /// Until nobody has anything more to say.
    fn settle(&mut self) {
        for _ in 0..SETTLING_TURNS_MAX {
            self.turn();
            // Fewer than fit their mailbox, whose reader is this very thread.
            let read = (0..1024).take_while(|_| self.reader.turn()).count();
            let wrote = self.writer.turn();
            let mut delivered = 0;
            while let Some(delivery) = self.answers.take().or_else(|| self.writer.told()) {
                self.deliver(delivery);
                delivered += 1;
            }
            if read + delivered == 0 && !wrote && self.edges.is_empty() {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// Posts to the reactor what a reader or the writer has for it.
    pub fn deliver(&mut self, delivery: Delivery) {
        assert!(self.inbound.post(Inbound::Store(delivery)).is_ok(), "the reactor's mailbox is full");
    }
}

fn live() -> Arc<Live> {
    let flags = Flags {
        config: Some("bench.toml".into()),
        listen: vec!["127.0.0.1:0".to_owned()],
        debug: true,
        ..Flags::default()
    };
    let file = |_: &Path| Ok(format!("[auth]\nhs256_secret = {SECRET:?}\n"));
    Settings::build(&flags, std::iter::empty(), file).unwrap().live()
}

/// Documents `d/p0`, `d/p1` …
pub fn documents() -> Vec<dialect::Import> {
    let document = |number| dialect::Import {
        directory: "d".to_owned(),
        name: format!("p{number}"),
        content: texts::prose(256),
        description: None,
        tags: Vec::new(),
        created_at: None,
        updated_at: None,
        digest: [0; 20],
    };
    (0..DOCUMENTS).map(document).collect()
}
