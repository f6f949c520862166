//! Accepts connections and deals them out to the reactors in turn; knows what to do when descriptors run out.
//!
//! mio is edge-triggered: after `EMFILE` nobody tells us again of the connections that still wait, even when descriptors
//! are free (measured: 34 waiting, 0 accepted). So accepting pauses and a timer tries again. And because a client that
//! waits in the backlog hangs without a word, one descriptor is held in reserve: it is given up to accept one connection,
//! refuse it with a 503 and take the descriptor back.
//!
//! How many are accepted in a second is not capped (PROMISES.md row 70 has 500). Whoever waits in the backlog costs the kernel
//! what he costs anyway and cannot tell the cap from an outage, and what follows his handshake is bounded where it arises: a
//! mailbox, the budget of a turn, one reading of the log for all who come from the same place. At 500 a second ten thousand
//! who come back after a restart would wait for 20 s, and without the cap they are back in half of that
//! (`restart_drill.py storm`).

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

#[cfg(feature = "canary")]
use crate::failpoints::{self, Site};
use crate::http::{Reason, Reject, Response, reply};
use crate::limits::{
    ACCEPT_RETRY_MAX, ACCEPT_RETRY_MIN, BACKLOG, RECEIVE_BUFFER_BYTES, SEGMENT_BYTES_MAX, SEND_BUFFER_BYTES,
    USER_TIMEOUT,
};
use crate::mailbox::Mailbox;
use crate::metrics::Metrics;
use crate::process::inherit::{self, InheritError};
use crate::reactor::Inbound;

/// Connections accepted from one listener before the others have their turn.
const ACCEPT_BURST: usize = 256;
/// Rest after somebody was accepted. Where thousands connect, those of a quarter of a millisecond are then accepted and handed
/// over together, with one wake of a thread instead of one each (PERF.md); somebody who comes alone waits for nothing.
const ACCEPT_REST: Duration = Duration::from_micros(250);
/// How soon a stop is noticed.
const STOP_CHECK: Duration = Duration::from_millis(100);

/// The listening sockets of this process, in the order of the configured listeners. They stay open behind a [`Listener`]
/// that has ended, for the next process or the next start: whoever connects meanwhile waits. When they are dropped too, he
/// is refused.
#[derive(Debug)]
pub struct Doors {
    addresses: Vec<SocketAddr>,
    sockets: Vec<Option<std::net::TcpListener>>,
}

impl Doors {
    pub fn new(addresses: Vec<SocketAddr>) -> Doors {
        let sockets = addresses.iter().map(|_| None).collect();
        Doors { addresses, sockets }
    }

    /// With sockets that were opened before this process. One that nothing is configured for is an error, as whoever
    /// connects there would wait for ever, unless they come from a predecessor: there it means that the configuration no
    /// longer listens on that address. The addresses given up are returned.
    pub fn inherit(
        addresses: Vec<SocketAddr>,
        inherited: Vec<std::net::TcpListener>,
        from_predecessor: bool,
    ) -> Result<(Doors, Vec<SocketAddr>), InheritError> {
        let unusable = |error| InheritError::Descriptor { place: 0, error };
        let (sockets, left) = inherit::assign(inherited, &addresses).map_err(unusable)?;
        if let Some(stray) = left.first().filter(|_| !from_predecessor) {
            let named: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
            return Err(InheritError::Stray { stray: *stray, named: named.join(", ") });
        }
        for socket in sockets.iter().flatten() {
            equip_listening(SockRef::from(socket)).map_err(unusable)?;
        }
        Ok((Doors { addresses, sockets }, left))
    }

    /// Opens what is not open, and gives a hold of each. The error names the address.
    pub fn open(&mut self) -> Result<Vec<TcpListener>, (SocketAddr, io::Error)> {
        let mut open = Vec::with_capacity(self.addresses.len());
        for (address, socket) in self.addresses.iter().zip(&mut self.sockets) {
            let opened = match socket.take() {
                Some(opened) => Ok(opened),
                None => bind(*address),
            };
            let hold =
                opened.and_then(|opened| socket.insert(opened).try_clone()).map_err(|error| (*address, error))?;
            open.push(TcpListener::from_std(hold));
        }
        Ok(open)
    }

    /// A hold of each that is open, for a successor.
    pub fn holds(&self) -> io::Result<Vec<std::net::TcpListener>> {
        self.sockets.iter().flatten().map(std::net::TcpListener::try_clone).collect()
    }
}

#[derive(Debug)]
pub struct Listener {
    poll: Poll,
    sockets: Vec<TcpListener>,
    /// Those that waited in the kernel before a socket was ours may lack what accepted sockets have from it.
    unequipped: Vec<bool>,
    reactors: Vec<Mailbox<Inbound<TcpStream>>>,
    /// How many connections the reactors were dealt.
    dealt: u64,
    reserve: Option<File>,
    /// How long the present pause is; none when accepting.
    pause: Option<Duration>,
    /// Connections dealt and not over may not pass this. They are counted here, where one is made: the gauge of the open ones
    /// lags by a turn of a reactor, in which a burst of connects went to twice the limit.
    connections_max: u64,
    metrics: Arc<Metrics>,
    stop: Arc<AtomicBool>,
}

/// Binds one address, with the options every listener has.
fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    equip_listening(SockRef::from(&socket))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What is set here every accepted socket has from its first moment, and setting it again for each would be three calls a
/// connection.
fn equip_listening(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    // Before the handshake, which is when it is agreed on; accepted sockets have it from here.
    socket.set_tcp_mss(SEGMENT_BYTES_MAX)?;
    equip(&socket)
}

/// Small frames go out at once; a client that never reads pins 117 KiB of the kernel's memory and not 3.9 MiB.
fn equip(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)
}

impl Listener {
    pub fn new(
        sockets: Vec<TcpListener>,
        reactors: Vec<Mailbox<Inbound<TcpStream>>>,
        connections_max: usize,
        stall: Duration,
        metrics: Arc<Metrics>,
        stop: Arc<AtomicBool>,
    ) -> io::Result<Listener> {
        let poll = Poll::new()?;
        let mut listener = Listener {
            poll,
            unequipped: vec![true; sockets.len()],
            sockets,
            reactors,
            dealt: 0,
            reserve: reserve(),
            pause: None,
            connections_max: connections_max as u64,
            metrics,
            stop,
        };
        // A reader that merely stands still is for `limits.stall` to judge, so never before that.
        let user_timeout = USER_TIMEOUT.max(stall * 2);
        for (index, socket) in listener.sockets.iter_mut().enumerate() {
            SockRef::from(&*socket).set_tcp_user_timeout(Some(user_timeout))?;
            listener.poll.registry().register(socket, Token(index), Interest::READABLE)?;
        }
        Ok(listener)
    }

    /// Accepts until told to stop.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(64);
        // Listeners that may have somebody waiting: an edge is told once.
        let mut waiting: Vec<bool> = vec![true; self.sockets.len()];
        while !self.stop.load(Ordering::Acquire) {
            let before = self.dealt;
            for (index, flag) in waiting.iter_mut().enumerate() {
                if *flag {
                    *flag = self.accept_burst(index);
                }
            }
            for reactor in &mut self.reactors {
                reactor.ring();
            }
            if self.dealt != before {
                std::thread::sleep(ACCEPT_REST);
            }
            let patience = match self.pause {
                Some(pause) => pause,
                None if waiting.contains(&true) => Duration::ZERO,
                None => STOP_CHECK,
            };
            if let Err(error) = self.poll.poll(&mut events, Some(patience))
                && error.kind() != io::ErrorKind::Interrupted
            {
                return Err(error);
            }
            for event in &events {
                if let Some(flag) = waiting.get_mut(event.token().0) {
                    *flag = true;
                }
            }
        }
        Ok(())
    }

    /// Returns whether somebody may still be waiting.
    fn accept_burst(&mut self, index: usize) -> bool {
        for _ in 0..ACCEPT_BURST {
            let Some(socket) = self.sockets.get(index) else { return false };
            match socket.accept() {
                Ok((stream, peer)) => {
                    #[cfg(feature = "canary")]
                    failpoints::pass(Site::Listener);
                    self.pause = None;
                    if self.unequipped.get(index) == Some(&true)
                        && let Err(error) = equip(&SockRef::from(&stream))
                    {
                        log::debug!("accept: {error}");
                        continue;
                    }
                    if self.dealt.saturating_sub(self.metrics.ended.get()) >= self.connections_max {
                        self.metrics.rejected(Reason::TooManyConnections.row().name);
                        refuse(stream);
                        continue;
                    }
                    self.deal(stream, peer, index);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Some(unequipped) = self.unequipped.get_mut(index) {
                        *unequipped = false;
                    }
                    return false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_exhaustion(&error) => {
                    self.pause(&error, index);
                    return true;
                }
                // The client has gone already, or a network error of its own: nobody else's business.
                Err(error) => log::debug!("accept: {error}"),
            }
        }
        true
    }

    fn deal(&mut self, socket: TcpStream, peer: SocketAddr, listener: usize) {
        let reactor = (self.dealt % self.reactors.len().max(1) as u64) as usize;
        self.dealt += 1;
        if let Some(mailbox) = self.reactors.get_mut(reactor) {
            mailbox.post_or_wait(Inbound::Socket { socket, peer, listener: listener as u8 });
        }
    }

    fn pause(&mut self, error: &io::Error, index: usize) {
        let pause = self.pause.map_or(ACCEPT_RETRY_MIN, |pause| (pause * 2).min(ACCEPT_RETRY_MAX));
        if self.pause.is_none() {
            log::warn!(
                "no descriptor is left ({error}): accepting pauses; raise the limit (ulimit -n) or limits.connections"
            );
            self.metrics.accept_pauses.inc();
        }
        self.pause = Some(pause);
        self.refuse_one_from_the_reserve(index);
    }

    /// Whoever waits is told instead of left to hang.
    fn refuse_one_from_the_reserve(&mut self, index: usize) {
        drop(self.reserve.take());
        if let Some(socket) = self.sockets.get(index)
            && let Ok((stream, _)) = socket.accept()
        {
            self.metrics.rejected(Reason::TooManyConnections.row().name);
            refuse(stream);
        }
        self.reserve = reserve();
    }
}

fn reserve() -> Option<File> {
    File::open("/dev/null").ok()
}

fn refuse(mut stream: TcpStream) {
    let reject = Reject::new(Reason::TooManyConnections, "no connection is left");
    let mut out = Vec::new();
    reply::encode(&Response::reject(&reject), &mut out, reply::Framing::default());
    // Best effort: the socket is new and its buffer empty, so a short write means that the client has gone.
    let _ = stream.write(&out);
}

/// `EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`: it will pass, and trying at once only burns the processor.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(24 | 23 | 105 | 12))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::mailbox;

    const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    const LOOPBACK_2: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), 0);

    #[test]
    fn a_segment_of_the_loopback_is_a_part_of_the_send_buffer() {
        let listener = bind(LOOPBACK).unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let agreed = SockRef::from(&client).tcp_mss().unwrap();
        assert!(agreed <= SEGMENT_BYTES_MAX, "{agreed}");
    }

    fn options(socket: SockRef<'_>) -> (bool, usize, Option<Duration>) {
        let user_timeout = socket.tcp_user_timeout().unwrap();
        (socket.tcp_nodelay().unwrap(), socket.send_buffer_size().unwrap(), user_timeout)
    }

    fn listener(sockets: Vec<TcpListener>, reactors: Vec<Mailbox<Inbound<TcpStream>>>) -> Listener {
        let (metrics, stop) = (Arc::default(), Arc::default());
        Listener::new(sockets, reactors, 10, Duration::from_secs(60), metrics, stop).unwrap()
    }

    /// Linux doubles the send buffer.
    const EXPECTED: (bool, usize, Option<Duration>) = (true, 2 * SEND_BUFFER_BYTES, Some(Duration::from_secs(120)));

    #[test]
    fn an_accepted_socket_has_its_options_from_the_listener() {
        let mut doors = Doors::new(vec![LOOPBACK]);
        let listener = listener(doors.open().unwrap(), Vec::new());
        let _client = std::net::TcpStream::connect(listener.sockets[0].local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.sockets[0].accept().unwrap();
        assert_eq!(options(SockRef::from(&accepted)), EXPECTED);
    }

    #[test]
    fn an_inherited_listener_is_equipped_and_so_is_who_waited_there_before() {
        let inherited = std::net::TcpListener::bind(LOOPBACK).unwrap();
        let address = inherited.local_addr().unwrap();
        let _early = std::net::TcpStream::connect(address).unwrap();
        let (mut doors, left) = Doors::inherit(vec![address], vec![inherited], false).unwrap();
        assert_eq!(left, []);
        let (reactor, inbox) = mailbox::channel(4);
        let mut listener = listener(doors.open().unwrap(), vec![reactor]);
        let _late = std::net::TcpStream::connect(address).unwrap();
        assert!(!listener.accept_burst(0), "both were waiting");
        let mut accepted = 0;
        while let Some(Inbound::Socket { socket, .. }) = inbox.take() {
            let (nodelay, buffer, _) = options(SockRef::from(&socket));
            assert_eq!((nodelay, buffer), (EXPECTED.0, EXPECTED.1), "socket {accepted}");
            accepted += 1;
        }
        assert_eq!(accepted, 2);
        assert_eq!(listener.unequipped, [false], "from now on they have it from the listener");
    }

    #[test]
    fn doors_stay_open_behind_a_listener_and_are_given_up_with_the_configuration() {
        let mut doors = Doors::new(vec![LOOPBACK]);
        let first = doors.open().unwrap();
        let address = first[0].local_addr().unwrap();
        drop(first);
        std::net::TcpStream::connect(address).expect("whoever comes meanwhile waits");
        assert_eq!(doors.open().unwrap()[0].local_addr().unwrap(), address, "the same socket again");

        let stray = Doors::inherit(vec![LOOPBACK_2], doors.holds().unwrap(), false).unwrap_err().to_string();
        assert!(stray.contains(&address.to_string()) && stray.contains("127.0.0.2:0"), "{stray}");
        let (_, left) = Doors::inherit(vec![LOOPBACK_2], doors.holds().unwrap(), true).unwrap();
        assert_eq!(left, [address], "a predecessor's listener that is no longer configured");
        drop(doors);
        assert!(std::net::TcpStream::connect(address).is_err(), "nobody is there any more");
    }
}
