//! The seam to the kernel: readiness and byte streams. Production is mio; the simulation scripts both.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::conn::Wants;
use crate::limits::READY_MAX;

/// The token of the reactor's own mailbox.
pub const WAKE: u64 = u64::MAX;

/// A byte stream that never blocks.
pub trait Transport {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize>;
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Ends the sending side.
    fn shut(&mut self);
}

/// Edge-triggered readiness. Events may be false, and are told once: whoever does not read until the stream would block
/// must remember it himself. Changing the interest tells again what is ready, so a connection that was not read for a
/// while loses nothing.
pub trait Poller {
    type Socket: Transport;

    fn wait(&mut self, patience: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()>;

    /// Changes what is told of a socket; `None` is a socket not registered, before its first turn or after its last.
    fn arm(
        &mut self,
        socket: &mut Self::Socket,
        token: u64,
        was: Option<Wants>,
        wants: Option<Wants>,
    ) -> io::Result<()>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    pub token: u64,
    pub readable: bool,
    pub writable: bool,
    /// The peer has ended its side, or the socket is in error: a short read does not mean that nothing is left.
    pub ended: bool,
}

#[derive(Debug)]
pub struct MioPoller {
    poll: Poll,
    events: Events,
}

impl MioPoller {
    pub fn new() -> io::Result<MioPoller> {
        Ok(MioPoller { poll: Poll::new()?, events: Events::with_capacity(READY_MAX) })
    }

    /// The waker of this poller's mailbox.
    pub fn waker(&self) -> io::Result<mio::Waker> {
        mio::Waker::new(self.poll.registry(), Token(WAKE as usize))
    }
}

impl Poller for MioPoller {
    type Socket = TcpStream;

    fn wait(&mut self, patience: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, patience) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        ready.extend(self.events.iter().map(|event| Ready {
            token: event.token().0 as u64,
            readable: event.is_readable(),
            writable: event.is_writable(),
            ended: event.is_read_closed() || event.is_write_closed() || event.is_error(),
        }));
        Ok(())
    }

    fn arm(&mut self, socket: &mut TcpStream, token: u64, was: Option<Wants>, wants: Option<Wants>) -> io::Result<()> {
        let interest = wants.and_then(|wants| match (wants.read, wants.write) {
            (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, false) => Some(Interest::READABLE),
            (false, true) => Some(Interest::WRITABLE),
            (false, false) => None,
        });
        let token = Token(token as usize);
        let registered = was.is_some_and(|was| was.read || was.write);
        if wants.is_none() {
            // It is about to be closed, and closing takes it out of the poller (epoll(7)): a call less a connection.
            return Ok(());
        }
        match (registered, interest) {
            (false, Some(interest)) => self.poll.registry().register(socket, token, interest),
            (true, Some(interest)) => self.poll.registry().reregister(socket, token, interest),
            (true, None) => self.poll.registry().deregister(socket),
            (false, None) => Ok(()),
        }
    }
}

impl Transport for TcpStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        Read::read(self, into)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Write::write(self, bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Write::write_vectored(self, slices)
    }

    fn shut(&mut self) {
        // An error means that the peer is gone already, which the next read says as well.
        let _ = self.shutdown(Shutdown::Write);
    }
}
