//! What one turn of a reactor may take on (PROMISES.md I3), by a scripted network: no thread, no time, no store.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use commitcast::backlog::Backlog;
use commitcast::clock::{Clock, Mono, Wall};
use commitcast::config::{Flags, Settings};
use commitcast::conn::Wants;
use commitcast::dialect::Name;
use commitcast::limits::{READ_BUDGET_BYTES, TURN_BUDGET_BYTES};
use commitcast::mailbox::{self, Mailbox};
use commitcast::metrics::Metrics;
use commitcast::reactor::poller::{Poller, Ready, Transport};
use commitcast::reactor::{self, Inbound, Reactor};
use commitcast::service::Status;

use crate::support::{frame, handshake};

const BINARY: u8 = 0x82;
const MIB: usize = 1 << 20;

/// Both ends of one client's connection.
#[derive(Debug, Default)]
struct Pipe {
    input: Vec<u8>,
    read: usize,
    /// What is read once is read again.
    is_endless: bool,
    /// Something has come that nobody was told of.
    edge: bool,
    written: usize,
}

#[derive(Clone, Debug, Default)]
struct Socket(Rc<RefCell<Pipe>>);

impl Socket {
    fn send(&self, bytes: &[u8]) {
        let mut pipe = self.0.borrow_mut();
        pipe.input.extend_from_slice(bytes);
        pipe.edge = true;
    }

    fn send_without_end(&self, bytes: &[u8]) {
        let mut pipe = self.0.borrow_mut();
        (pipe.input, pipe.read, pipe.is_endless, pipe.edge) = (bytes.to_vec(), 0, true, true);
    }

    /// Bytes that the server wrote since the last call.
    fn heard(&self) -> usize {
        std::mem::take(&mut self.0.borrow_mut().written)
    }
}

impl Transport for Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut pipe = self.0.borrow_mut();
        let mut length = 0;
        while length < into.len() {
            if pipe.is_endless && pipe.read == pipe.input.len() {
                pipe.read = 0;
            }
            let piece = (into.len() - length).min(pipe.input.len() - pipe.read);
            if piece == 0 {
                break;
            }
            into[length..length + piece].copy_from_slice(&pipe.input[pipe.read..pipe.read + piece]);
            pipe.read += piece;
            length += piece;
        }
        if length == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(length) }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().written += bytes.len();
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        slices.iter().map(|slice| self.write(slice)).sum()
    }

    fn shut(&mut self) {}
}

/// Tells of every edge once.
#[derive(Debug, Default)]
struct Script(Vec<(u64, Socket)>);

impl Poller for Script {
    type Socket = Socket;

    fn wait(&mut self, _: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        for (token, socket) in &self.0 {
            if std::mem::take(&mut socket.0.borrow_mut().edge) {
                ready.push(Ready { token: *token, readable: true, writable: false, ended: false });
            }
        }
        Ok(())
    }

    fn arm(&mut self, socket: &mut Socket, token: u64, was: Option<Wants>, _: Option<Wants>) -> io::Result<()> {
        if was.is_none() {
            socket.0.borrow_mut().edge = true;
            self.0.push((token, socket.clone()));
        }
        Ok(())
    }
}

/// A reactor that nobody answers: its clients talk to the echo.
struct Stage {
    reactor: Reactor<Script>,
    inbound: Mailbox<Inbound<Socket>>,
    metrics: Arc<Metrics>,
}

impl Stage {
    fn new() -> Stage {
        let clock = Clock::manual(Mono(1), Wall(1));
        let settings = Settings::build(&Flags::default(), std::iter::empty(), |_| Err(io::ErrorKind::NotFound.into()));
        let (inbound, inbox) = mailbox::channel(64);
        let (jobs, _) = mailbox::channel(1);
        let (questions, _) = mailbox::channel(1);
        let metrics = Arc::new(Metrics::default());
        let wiring = reactor::Wiring {
            index: 0,
            inbox,
            writers: vec![jobs],
            readers: questions,
            files: None,
            backlog: Arc::new(Backlog::new(MIB)),
            responses: Arc::new(Backlog::new(MIB)),
            directory: Arc::default(),
            presence: Arc::default(),
            peers: vec![inbound.clone()],
            guests: Arc::default(),
            env: Arc::default(),
            clock,
            status: Arc::new(Status::new(metrics.clone(), Arc::default(), "full", "debug")),
            live: Arc::new(ArcSwap::new(settings.unwrap().live())),
            listeners: vec![Name::ALL.to_vec()],
        };
        Stage { reactor: Reactor::new(Script::default(), wiring), inbound, metrics }
    }

    fn turn(&mut self) {
        self.reactor.turn().unwrap();
        self.reactor.check_invariants();
    }

    fn echoes(&mut self, count: usize) -> Vec<Socket> {
        let sockets: Vec<Socket> = (0..count).map(|_| Socket::default()).collect();
        for socket in &sockets {
            let peer = ([127, 0, 0, 1], 9).into();
            self.inbound.post(Inbound::Socket { socket: socket.clone(), peer, listener: 0 }).unwrap();
            socket.send(handshake("/v1/echo", "").as_bytes());
        }
        (0..4).for_each(|_| self.turn());
        assert!(sockets.iter().all(|socket| socket.heard() > 100), "everybody is let in");
        sockets
    }
}

/// Regression, row 58: twenty clients whose messages of fifty thousand keys ended in one turn kept it for 200 ms.
#[test]
fn large_messages_that_end_at_once_are_taken_one_a_turn() {
    const CLIENTS: usize = 8;
    let mut stage = Stage::new();
    let sockets = stage.echoes(CLIENTS);
    let message = frame(BINARY, &[7; MIB]);
    for socket in &sockets {
        socket.send(&message[..message.len() - 1]);
    }
    (0..CLIENTS * MIB / READ_BUDGET_BYTES + 8).for_each(|_| stage.turn());
    let before = stage.metrics.messages_in.get();
    for socket in &sockets {
        socket.send(&message[message.len() - 1..]);
    }
    for turn in 1..=CLIENTS {
        stage.turn();
        assert_eq!(stage.metrics.messages_in.get() - before, turn as u64, "one in turn {turn}");
    }
    assert!(sockets.iter().all(|socket| socket.heard() > MIB), "everybody has his echo");
}

#[test]
fn whoever_comes_too_late_for_a_turn_is_first_in_the_next() {
    let mut stage = Stage::new();
    let floods = stage.echoes(6);
    let polite = stage.echoes(3);
    for flood in &floods {
        flood.send_without_end(&frame(BINARY, &[7; 1000]));
    }
    for socket in &polite {
        socket.send(&frame(BINARY, b"one"));
    }
    // What a flood says is worked on twice, read and echoed: that is a turn's budget for one of them.
    (0..=floods.len() + 1).for_each(|_| stage.turn());
    assert!(polite.iter().all(|socket| socket.heard() > 0), "nobody waits for more than one round");
    floods.iter().for_each(|flood| assert!(flood.heard() > 0));
    let turns = 12 * floods.len();
    (0..turns).for_each(|_| stage.turn());
    let shares: Vec<usize> = floods.iter().map(Socket::heard).collect();
    let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
    assert!(most - least <= 3 * READ_BUDGET_BYTES && *least > 0, "{shares:?}");
    assert!(shares.iter().sum::<usize>() <= (turns + 1) * 2 * TURN_BUDGET_BYTES, "{shares:?} in {turns} turns");
}
