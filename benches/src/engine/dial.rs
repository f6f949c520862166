//! Opening connections: many handshakes under way at once, each followed by whatever its vocabulary says first.
//!
//! ```text
//! connect ─▶ send the request ─▶ head of the answer ─▶ send the opening ─▶ what it waits for ─▶ open
//! ```
//!
//! `connect` blocks, which on loopback it does not: the kernel answers its own SYN before it returns.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_linger, set_socket_timeout, set_tcp_nodelay};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, connect, recv, socket_with};

use super::{Clock, EDGES, Nanos, each_message, gone, say, timespec};
use crate::vocabulary::{Seat, Vocabulary};
use crate::wire::{self, behind_head, first_frame, handshake};

/// Handshakes under way at once: fewer than any server's queue of connections that wait to be accepted.
pub const AT_ONCE: usize = 200;
/// How long nothing may happen before the rest is given up.
const PATIENCE: Duration = Duration::from_secs(15);
/// Connections from one address of the loopback network, well below the number of ports it may use.
const PER_ADDRESS: usize = 10_000;

/// Whom to dial, and what to say.
#[derive(Debug)]
pub struct Dialer<'v> {
    pub address: SocketAddr,
    pub vocabulary: &'v dyn Vocabulary,
    /// Further lines of the request, each with its line end.
    pub headers: String,
    pub at_once: usize,
}

/// A connection that is open, and what was read behind its opening.
pub type Opened = (OwnedFd, Vec<u8>);

impl<'v> Dialer<'v> {
    pub fn new(address: SocketAddr, vocabulary: &'v dyn Vocabulary) -> Dialer<'v> {
        Dialer { address, vocabulary, headers: String::new(), at_once: AT_ONCE }
    }

    /// Opens a connection for each seat, in order.
    pub fn open(&self, seats: &[Seat]) -> io::Result<Vec<Opened>> {
        let clock = Clock::start();
        let mut opened: Vec<Option<Opened>> = (0..seats.len()).map(|_| None).collect();
        self.run(&clock, |number| seats.get(number).copied(), |number, link, _| opened[number] = Some(link))?;
        Ok(opened.into_iter().flatten().collect())
    }

    /// Dials until `next` has no seat more; `done` gets each connection and how long it took.
    pub fn run(
        &self,
        clock: &Clock,
        mut next: impl FnMut(usize) -> Option<Seat>,
        mut done: impl FnMut(usize, Opened, Nanos),
    ) -> io::Result<()> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut dials: Vec<Option<Dial>> = (0..self.at_once).map(|_| None).collect();
        let mut free: Vec<usize> = (0..self.at_once).rev().collect();
        let mut number = 0;
        let mut ready = Vec::with_capacity(self.at_once);
        let mut buffer = vec![0; 64 * 1024];
        let host = self.address.to_string();
        loop {
            while let Some(slot) = free.pop() {
                let Some(seat) = next(number) else {
                    free.push(slot);
                    break;
                };
                let begun = clock.now();
                let link = self.connect(number)?;
                say(&link, &handshake(&host, &self.vocabulary.path(seat), &self.headers))?;
                epoll::add(&epoll, &link, epoll::EventData::new_u64(slot as u64), EDGES)?;
                let read = Vec::new();
                dials[slot] = Some(Dial { number, seat, link, begun, upgraded: false, read, half: Vec::new() });
                number += 1;
            }
            if free.len() == self.at_once {
                return Ok(());
            }
            ready.clear();
            match epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut ready), Some(&timespec(PATIENCE))) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if ready.is_empty() {
                let waiting = self.at_once - free.len();
                return Err(io::Error::other(format!("{waiting} handshakes were not answered in {PATIENCE:?}")));
            }
            for event in &ready {
                let slot = event.data.u64() as usize;
                let Some(dial) = dials[slot].as_mut() else { continue };
                if dial.hear(self.vocabulary, &mut buffer)?
                    && let Some(dial) = dials[slot].take()
                {
                    epoll::delete(&epoll, &dial.link)?;
                    free.push(slot);
                    done(dial.number, (dial.link, dial.read), clock.now().saturating_sub(dial.begun));
                }
            }
        }
    }

    fn connect(&self, number: usize) -> io::Result<OwnedFd> {
        let family = if self.address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let link = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        set_tcp_nodelay(&link, true)?;
        set_socket_timeout(&link, Timeout::Send, Some(PATIENCE))?;
        if let IpAddr::V4(address) = self.address.ip()
            && address.is_loopback()
            && number >= PER_ADDRESS
        {
            let own = Ipv4Addr::new(127, 0, 0, (2 + number / PER_ADDRESS % 200) as u8);
            bind(&link, &SocketAddr::from((own, 0)))?;
        }
        connect(&link, &self.address).map_err(|error| {
            io::Error::new(io::Error::from(error).kind(), format!("connection {number} to {}: {error}", self.address))
        })?;
        Ok(link)
    }
}

/// Ends a connection with a reset, which leaves no port behind that nobody may use for a minute.
pub fn cut(link: OwnedFd) -> io::Result<()> {
    Ok(set_socket_linger(&link, Some(Duration::ZERO))?)
}

#[derive(Debug)]
struct Dial {
    number: usize,
    seat: Seat,
    link: OwnedFd,
    begun: Nanos,
    upgraded: bool,
    /// What was read and not used yet.
    read: Vec<u8>,
    half: Vec<u8>,
}

impl Dial {
    /// Whether the connection is open.
    fn hear(&mut self, vocabulary: &dyn Vocabulary, buffer: &mut [u8]) -> io::Result<bool> {
        loop {
            match recv(&self.link, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(gone()),
                Ok((read, _)) => self.read.extend_from_slice(&buffer[..read]),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
            if self.is_open(vocabulary)? {
                return Ok(true);
            }
        }
    }

    fn is_open(&mut self, vocabulary: &dyn Vocabulary) -> io::Result<bool> {
        if !self.upgraded {
            let Some(head) = behind_head(&self.read)? else { return Ok(false) };
            self.read.drain(..head);
            self.upgraded = true;
            let opening = vocabulary.opening(self.seat);
            if !opening.is_empty() {
                say(&self.link, &opening)?;
            }
        }
        if !vocabulary.awaits() {
            return Ok(true);
        }
        let mut open = false;
        let mut used = 0;
        while let Some(frame) = first_frame(&self.read[used..])? {
            used += frame.len;
            match frame.opcode {
                wire::CLOSE => return Err(wire::closed(frame.payload)),
                wire::PING => say(&self.link, &wire::pong(frame.payload))?,
                0..=2 => each_message(vocabulary.stream(), frame.fin, frame.payload, &mut self.half, |message| {
                    open = open || vocabulary.is_open(message)?;
                    Ok(())
                })?,
                _ => {}
            }
            if open {
                break;
            }
        }
        self.read.drain(..used);
        Ok(open)
    }
}
