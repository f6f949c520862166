//! Accepts connections and deals them out to the reactors in turn; knows what to do when descriptors run out.
//!
//! mio is edge-triggered: after `EMFILE` nobody tells us again of the connections that still wait, even when descriptors
//! are free (measured: 34 waiting, 0 accepted). So accepting pauses and a timer tries again. And because a client that
//! waits in the backlog hangs without a word, one descriptor is held in reserve: it is given up to accept one connection,
//! refuse it with a 503 and take the descriptor back.

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::http::{Reason, Reject, Response, reply};
use crate::limits::{
    ACCEPT_RETRY_MAX, ACCEPT_RETRY_MIN, BACKLOG, RECEIVE_BUFFER_BYTES, SEGMENT_BYTES_MAX, SEND_BUFFER_BYTES,
    USER_TIMEOUT,
};
use crate::mailbox::Mailbox;
use crate::metrics::Metrics;
use crate::reactor::Inbound;

/// Connections accepted from one listener before the others have their turn.
const ACCEPT_BURST: usize = 256;
/// Rest after somebody was accepted. Where thousands connect, those of a quarter of a millisecond are then accepted and handed
/// over together, with one wake of a thread instead of one each (PERF.md); somebody who comes alone waits for nothing.
const ACCEPT_REST: Duration = Duration::from_micros(250);
/// How soon a stop is noticed.
const STOP_CHECK: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub struct Listener {
    poll: Poll,
    sockets: Vec<TcpListener>,
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

/// Binds one address, with the options every listener has. What is set here every accepted socket has from its first moment,
/// and setting it again for each would be three calls a connection.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Before the handshake, which is when it is agreed on; accepted sockets have it from here.
    socket.set_tcp_mss(SEGMENT_BYTES_MAX)?;
    // Small frames go out at once; a client that never reads pins 117 KiB of the kernel's memory and not 3.9 MiB.
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
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
                    self.pause = None;
                    if self.dealt.saturating_sub(self.metrics.ended.get()) >= self.connections_max {
                        self.metrics.rejected(Reason::TooManyConnections.row().name);
                        refuse(stream);
                        continue;
                    }
                    self.deal(stream, peer, index);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
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

    use super::*;

    #[test]
    fn a_segment_of_the_loopback_is_a_part_of_the_send_buffer() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let agreed = SockRef::from(&client).tcp_mss().unwrap();
        assert!(agreed <= SEGMENT_BYTES_MAX, "{agreed}");
    }

    #[test]
    fn an_accepted_socket_has_its_options_from_the_listener() {
        let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = socket.local_addr().unwrap();
        let (metrics, stop) = (Arc::default(), Arc::default());
        let listener = Listener::new(vec![socket], Vec::new(), 1, Duration::from_secs(60), metrics, stop).unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        let (accepted, _) = listener.sockets[0].accept().unwrap();
        let options = SockRef::from(&accepted);
        assert!(options.tcp_nodelay().unwrap());
        assert_eq!(options.send_buffer_size().unwrap(), 2 * SEND_BUFFER_BYTES, "Linux doubles it");
        assert_eq!(options.recv_buffer_size().unwrap(), 2 * RECEIVE_BUFFER_BYTES);
        assert_eq!(options.tcp_user_timeout().unwrap(), Some(Duration::from_secs(120)));
    }
}
