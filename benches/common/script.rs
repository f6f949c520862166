//! The network beneath the reactor, as cheap as it can be: a read copies what was laid out for it, a write counts.
//!
//! Its functions are not inlined, so that a profile shows what is the script's.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::time::Duration;

use commitcast::conn::Wants;
use commitcast::reactor::poller::{Poller, Ready, Transport};

/// One connection, seen from both ends.
#[derive(Debug, Default)]
pub struct Wire {
    to_server: Cell<&'static [u8]>,
    token: Cell<u64>,
    taken: Cell<usize>,
    /// The client ends the stream behind what it has sent.
    ended: Cell<bool>,
    /// While it is set up, what was written is kept.
    heard: RefCell<Option<Vec<u8>>>,
}

impl Wire {
    /// What is written to it is only counted.
    pub fn silent() -> Rc<Wire> {
        Rc::default()
    }

    pub fn listening() -> Rc<Wire> {
        Rc::new(Wire { heard: RefCell::new(Some(Vec::new())), ..Wire::default() })
    }

    /// Before the reactor has seen it: it is told of these bytes when it registers it.
    pub fn send_unregistered(&self, bytes: &'static [u8]) {
        self.ended.set(false);
        self.to_server.set(bytes);
    }

    /// What was written since the last call.
    pub fn hear(&self) -> Vec<u8> {
        self.heard.borrow_mut().replace(Vec::new()).unwrap_or_default()
    }

    /// From now on what is written is only counted.
    pub fn stop_listening(&self) {
        self.heard.replace(None);
    }

    /// Bytes written to it so far.
    pub fn taken(&self) -> usize {
        self.taken.get()
    }
}

#[derive(Debug)]
pub struct Socket(pub Rc<Wire>);

impl Transport for Socket {
    #[inline(never)]
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.0.to_server.take();
        if bytes.is_empty() {
            if self.0.ended.get() {
                return Ok(0);
            }
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = bytes.len().min(into.len());
        into[..taken].copy_from_slice(&bytes[..taken]);
        self.0.to_server.set(&bytes[taken..]);
        Ok(taken)
    }

    #[inline(never)]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.taken.set(self.0.taken.get() + bytes.len());
        if let Some(heard) = &mut *self.0.heard.borrow_mut() {
            heard.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    #[inline(never)]
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut written = 0;
        for slice in slices {
            written += self.write(slice)?;
        }
        Ok(written)
    }

    fn shut(&mut self) {}
}

/// The sockets that the next wait tells of, in the order in which they were given something.
#[derive(Debug, Default)]
pub struct Edges(RefCell<Vec<u64>>);

impl Edges {
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    #[inline(never)]
    pub fn send(&self, wire: &Wire, bytes: &'static [u8]) {
        wire.to_server.set(bytes);
        self.0.borrow_mut().push(wire.token.get());
    }

    /// The client goes.
    pub fn end(&self, wire: &Wire) {
        wire.ended.set(true);
        self.0.borrow_mut().push(wire.token.get());
    }
}

#[derive(Debug)]
pub struct Script(pub Rc<Edges>);

impl Poller for Script {
    type Socket = Socket;

    #[inline(never)]
    fn wait(&mut self, _patience: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        let mut told = self.0.0.borrow_mut();
        ready.extend(told.drain(..).map(|token| Ready { token, readable: true, writable: false, ended: false }));
        Ok(())
    }

    fn arm(&mut self, socket: &mut Socket, token: u64, was: Option<Wants>, _wants: Option<Wants>) -> io::Result<()> {
        socket.0.token.set(token);
        if was.is_none() && !socket.0.to_server.get().is_empty() {
            // What was sent before it was registered.
            self.0.0.borrow_mut().push(token);
        }
        Ok(())
    }
}
