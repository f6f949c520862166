//! The load generator: one thread, one epoll set, no allocation per message.
//!
//! ```text
//! window: prime ─▶ turn, turn, turn … ─▶ stop ─▶ drain        (window.rs)
//! turn:   epoll_wait ─▶ for each ready link: recv into the one buffer
//!                        ─▶ walk the frames ─▶ Player::hear each
//!                        ─▶ Player::refill: everything owed goes out in one send
//! ```
//!
//! A [`Player`] knows what an answer is and what to say next; a [`Crowd`] knows sockets and frames. Reads are
//! edge-triggered and go on until the kernel has nothing more. A window begins and ends with nothing in flight, so what
//! the server used meanwhile belongs to exactly the messages that were counted.

pub mod dial;
pub mod exchange;
pub mod pattern;
pub mod rooms;
pub mod schedule;
pub mod window;

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::vocabulary::{Stream, nats_message};
use crate::wire::{self, first_frame};

/// Nanoseconds since the clock was made.
pub type Nanos = u64;

#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    pub fn now(&self) -> Nanos {
        self.0.elapsed().as_nanos() as Nanos
    }
}

/// Who plays: decides what a message means and what is said next.
pub trait Player {
    /// A whole message came on this link.
    fn hear(&mut self, link: usize, message: &[u8], now: Nanos, links: &[OwnedFd]) -> io::Result<()>;

    /// Everything that one read brought was heard: what is owed goes out now, in one send per link.
    fn refill(&mut self, clock: &Clock, links: &[OwnedFd]) -> io::Result<()>;

    /// Says what was due by `now`; when the next is due. `None`: nothing is due by the clock.
    fn due(&mut self, now: Nanos, links: &[OwnedFd]) -> io::Result<Option<Nanos>>;

    /// Starts to say something: in a closed loop the first messages, in an open one the schedule.
    fn begin(&mut self, clock: &Clock, links: &[OwnedFd]) -> io::Result<()>;

    /// Says nothing new from now on.
    fn stop(&mut self);

    /// Answers still to come.
    fn missing(&self) -> u64;
}

/// What every connection shares: the bytes of one read. Larger than a server's burst to one member, so that a burst is one
/// read.
const BUFFER_BYTES: usize = 256 * 1024;
const READY_MAX: usize = 1024;

/// Connections that have been upgraded, and what of each was read and not used yet.
pub struct Crowd {
    epoll: OwnedFd,
    links: Vec<OwnedFd>,
    /// Of each link, the beginning of a frame whose rest has not come.
    rests: Vec<Vec<u8>>,
    /// Of each link, the beginning of a message whose rest has not come; only where messages are not frames.
    halves: Vec<Vec<u8>>,
    stream: Stream,
    /// Links of which something was read before they came here: no edge will tell of it.
    unheard: Vec<usize>,
    buffer: Vec<u8>,
    ready: Vec<epoll::Event>,
}

impl Crowd {
    /// Of connections and what was read behind their opening.
    pub fn new(stream: Stream, opened: Vec<(OwnedFd, Vec<u8>)>) -> io::Result<Crowd> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let (links, rests): (Vec<_>, Vec<_>) = opened.into_iter().unzip();
        for (index, link) in links.iter().enumerate() {
            epoll::add(&epoll, link, epoll::EventData::new_u64(index as u64), EDGES)?;
        }
        let halves = vec![Vec::new(); links.len()];
        let unheard = (0..links.len()).filter(|index| !rests[*index].is_empty()).collect();
        let (buffer, ready) = (vec![0; BUFFER_BYTES], Vec::with_capacity(READY_MAX));
        Ok(Crowd { epoll, links, rests, halves, stream, unheard, buffer, ready })
    }

    pub fn links(&self) -> &[OwnedFd] {
        &self.links
    }

    /// Waits at most this long and lets the player hear what has come; whether anything has.
    pub fn turn(&mut self, wait: Duration, clock: &Clock, player: &mut impl Player) -> io::Result<bool> {
        while let Some(index) = self.unheard.pop() {
            self.read(index, clock, player)?;
            player.refill(clock, &self.links)?;
        }
        self.ready.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.ready), Some(&timespec(wait))) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        for place in 0..self.ready.len() {
            let index = self.ready[place].data.u64() as usize;
            self.read(index, clock, player)?;
            player.refill(clock, &self.links)?;
        }
        Ok(!self.ready.is_empty())
    }

    fn read(&mut self, index: usize, clock: &Clock, player: &mut impl Player) -> io::Result<()> {
        let Crowd { links, rests, halves, stream, buffer, .. } = self;
        let (link, rest, half) = (&links[index], &mut rests[index], &mut halves[index]);
        loop {
            let kept = rest.len();
            buffer[..kept].copy_from_slice(rest);
            let (filled, is_all) = match recv(link, &mut buffer[kept..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(gone()),
                Ok((read, _)) => (kept + read, kept + read < BUFFER_BYTES),
                Err(Errno::AGAIN) if kept == 0 => return Ok(()),
                Err(Errno::AGAIN) => (kept, true),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            rest.clear();
            let now = clock.now();
            let mut at = 0;
            while let Some(frame) = first_frame(&buffer[at..filled])? {
                match frame.opcode {
                    0..=2 => {
                        each_message(*stream, frame.fin, frame.payload, half, |message| {
                            player.hear(index, message, now, links)
                        })?;
                    }
                    wire::PING => say(link, &wire::pong(frame.payload))?,
                    wire::CLOSE => return Err(wire::closed(frame.payload)),
                    _ => {}
                }
                at += frame.len;
            }
            if at == 0 && filled == BUFFER_BYTES {
                return Err(io::Error::other(format!("a frame of more than {BUFFER_BYTES} bytes")));
            }
            rest.extend_from_slice(&buffer[at..filled]);
            if is_all {
                return Ok(());
            }
        }
    }
}

/// A hang-up comes as an event too, so that a read that took all there was may stop without asking the kernel once more.
const EDGES: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::ET).union(epoll::EventFlags::RDHUP);

/// Cuts a frame's payload into messages.
fn each_message(
    stream: Stream,
    fin: bool,
    payload: &[u8],
    half: &mut Vec<u8>,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    match stream {
        Stream::Frames | Stream::Lines if !fin => {
            Err(io::Error::other("a message in several frames, which this generator does not put together"))
        }
        Stream::Frames => each(payload),
        Stream::Lines => payload.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).try_for_each(each),
        Stream::Nats if half.is_empty() => {
            let used = each_nats_message(payload, &mut each)?;
            half.extend_from_slice(&payload[used..]);
            Ok(())
        }
        Stream::Nats => {
            half.extend_from_slice(payload);
            let used = each_nats_message(half, &mut each)?;
            half.drain(..used);
            Ok(())
        }
    }
}

fn each_nats_message(bytes: &[u8], each: &mut impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<usize> {
    let mut at = 0;
    while let Some((len, shown)) = nats_message(&bytes[at..])? {
        each(&bytes[at..at + shown])?;
        at += len;
    }
    Ok(at)
}

/// Hands bytes to the kernel. They always fit the buffer of a server that reads; one that does not is an error, because
/// its figures would be the generator's patience.
pub fn say(link: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    match send(link, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Ok(sent) if sent == bytes.len() => Ok(()),
        Ok(sent) => Err(io::Error::other(format!("the server took {sent} of {} bytes and reads no more", bytes.len()))),
        Err(Errno::AGAIN) => Err(io::Error::other("the server does not read what it is sent")),
        Err(error) => Err(error.into()),
    }
}

impl std::fmt::Debug for Crowd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crowd").field("links", &self.links.len()).finish_non_exhaustive()
    }
}

/// Ends connections with a reset, which leaves no port behind that nobody may use for a minute.
impl Drop for Crowd {
    fn drop(&mut self) {
        for link in &self.links {
            // One that is gone already needs no reset.
            let _ = rustix::net::sockopt::set_socket_linger(link, Some(Duration::ZERO));
        }
    }
}

pub fn gone() -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, "the server closed a connection without a close frame")
}

pub fn timespec(wait: Duration) -> Timespec {
    Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() }
}

/// Something was said that fits nothing.
fn foreign(link: usize, message: &[u8]) -> io::Error {
    let message = String::from_utf8_lossy(&message[..message.len().min(400)]).into_owned();
    io::Error::other(format!("a wrong answer on connection {link}: {message}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn messages(stream: Stream, payloads: &[&str]) -> Vec<String> {
        let (mut half, mut heard) = (Vec::new(), Vec::new());
        for payload in payloads {
            each_message(stream, true, payload.as_bytes(), &mut half, |message| {
                heard.push(String::from_utf8(message.to_vec()).unwrap());
                Ok(())
            })
            .unwrap();
        }
        heard
    }

    #[test]
    fn messages_are_cut_out_of_frames() {
        assert_eq!(messages(Stream::Frames, &["a\nb", ""]), ["a\nb", ""]);
        assert_eq!(messages(Stream::Lines, &["a\nb\n", "\nc"]), ["a", "b", "c"]);
        let pieces = ["MSG r 1 3\r", "\nab", "c\r\nPING\r\nPO", "NG\r\n"];
        assert_eq!(messages(Stream::Nats, &pieces), ["MSG r 1 3\r\nabc", "PING", "PONG"]);
        assert!(each_message(Stream::Frames, false, b"", &mut Vec::new(), |_| Ok(())).is_err());
    }
}
