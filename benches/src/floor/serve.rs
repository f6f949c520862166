//! The bare epoll programs: recv and send, recv and one send per member.
//!
//! Edge-triggered with one `recv` per edge, which is safe because a read that fills the buffer is followed by another, and
//! cheaper than level-triggered, which polls every socket once more.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send, sockopt};

use super::{Echo, Fan};
use crate::wire::{ACCEPTED, MASK, SERIAL_DIGITS, SERIAL_PLACE};

/// Payloads of both modes are shorter, so a frame's header is two bytes, or four.
const PAYLOAD_MAX: usize = 4096;
const BUFFER_BYTES: usize = 64 * 1024;

struct Conn {
    fd: OwnedFd,
    stage: Stage,
    /// Bytes of the message that is not complete yet.
    received: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Upgrading,
    Open { room: usize, publisher: bool },
}

/// What a mode does with the bytes of an open connection.
trait Mode {
    /// A connection was upgraded; `fd` is its number.
    fn open(&mut self, _room: usize, _publisher: bool, _fd: usize) {}

    /// False when the connection is over.
    fn hear(&mut self, conn: usize, bytes: &[u8], conns: &mut [Option<Conn>]) -> bool;
}

pub fn echo(options: &Echo) -> io::Result<()> {
    let answer = frame(options.answer.as_bytes())?;
    serve(
        options.port,
        Answering { message: options.message_bytes.max(1), answer, answered: 0, lie_after: options.lie_after },
    )
}

pub fn fan(options: &Fan) -> io::Result<()> {
    let frame = frame(options.frame.as_bytes())?;
    let place = SERIAL_PLACE.as_bytes();
    let at = frame.windows(SERIAL_DIGITS).rposition(|window| window == place);
    let at = at.ok_or_else(|| io::Error::other("the frame has no place for a serial"))?;
    let head = if options.message_bytes - 6 < 126 { 6 } else { 8 };
    serve(
        options.port,
        Fanning {
            message: options.message_bytes,
            read_at: options.serial_at,
            phase: options.serial_at - head,
            frame,
            at,
            rooms: Vec::new(),
            digits: [0; SERIAL_DIGITS],
        },
    )
}

struct Answering {
    message: usize,
    answer: Vec<u8>,
    answered: u64,
    lie_after: Option<u64>,
}

impl Mode for Answering {
    fn hear(&mut self, conn: usize, bytes: &[u8], conns: &mut [Option<Conn>]) -> bool {
        let Some(Some(conn)) = conns.get_mut(conn) else { return false };
        conn.received += bytes.len();
        while conn.received >= self.message {
            conn.received -= self.message;
            self.answered += 1;
            if self.lie_after == Some(self.answered)
                && let Some(last) = self.answer.last_mut()
            {
                *last ^= 1;
            }
            // An answer always fits the buffer of a client that reads.
            if send(&conn.fd, &self.answer, SendFlags::NOSIGNAL) != Ok(self.answer.len()) {
                return false;
            }
        }
        true
    }
}

struct Fanning {
    message: usize,
    /// Where the serial stands in a message on the wire, and how the mask lies over it.
    read_at: usize,
    phase: usize,
    frame: Vec<u8>,
    /// Where it goes in the frame.
    at: usize,
    /// File descriptors of the members.
    rooms: Vec<Vec<usize>>,
    digits: [u8; SERIAL_DIGITS],
}

impl Mode for Fanning {
    fn open(&mut self, room: usize, publisher: bool, fd: usize) {
        if self.rooms.len() <= room {
            self.rooms.resize(room + 1, Vec::new());
        }
        if !publisher {
            self.rooms[room].push(fd);
        }
    }

    fn hear(&mut self, index: usize, bytes: &[u8], conns: &mut [Option<Conn>]) -> bool {
        let Some(Some(conn)) = conns.get_mut(index) else { return false };
        let Stage::Open { room, publisher: true } = conn.stage else { return true };
        let before = conn.received;
        conn.received = (before + bytes.len()) % self.message;
        for (offset, byte) in bytes.iter().enumerate() {
            let place = (before + offset) % self.message;
            if let Some(digit) = place.checked_sub(self.read_at).filter(|digit| *digit < SERIAL_DIGITS) {
                self.digits[digit] = byte ^ MASK[(self.phase + digit) % 4];
            }
            if place + 1 == self.message {
                self.frame[self.at..self.at + SERIAL_DIGITS].copy_from_slice(&self.digits);
                for member in &self.rooms[room] {
                    if let Some(Some(member)) = conns.get(*member) {
                        // A member that does not read misses it, which its generator reports.
                        let _ = send(&member.fd, &self.frame, SendFlags::NOSIGNAL);
                    }
                }
            }
        }
        true
    }
}

const LISTENER: u64 = u64::MAX;

fn serve(port: u16, mut mode: impl Mode) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    // As long a queue as any server here has; the standard library's own is short.
    rustix::net::listen(&listener, 4096)?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    // By file descriptor.
    let mut conns: Vec<Option<Conn>> = Vec::new();
    let mut ready = Vec::with_capacity(1024);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        ready.clear();
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut ready), None::<&Timespec>)?;
        for event in &ready {
            match event.data.u64() {
                LISTENER => accept(&listener, &epoll, &mut conns)?,
                index => {
                    if !read(index as usize, &mut conns, &mut buffer, &mut mode) {
                        conns[index as usize] = None;
                    }
                }
            }
        }
    }
}

fn accept(listener: &TcpListener, epoll: &OwnedFd, conns: &mut Vec<Option<Conn>>) -> io::Result<()> {
    loop {
        let fd = match accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok(fd) => fd,
            Err(Errno::AGAIN) => return Ok(()),
            Err(Errno::CONNABORTED | Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        sockopt::set_tcp_nodelay(&fd, true)?;
        let index = fd.as_raw_fd() as usize;
        epoll::add(epoll, &fd, epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN | epoll::EventFlags::ET)?;
        if conns.len() <= index {
            conns.resize_with(index + 1, || None);
        }
        conns[index] = Some(Conn { fd, stage: Stage::Upgrading, received: 0 });
    }
}

/// False when the connection is over.
fn read(index: usize, conns: &mut [Option<Conn>], buffer: &mut [u8], mode: &mut impl Mode) -> bool {
    loop {
        let Some(Some(conn)) = conns.get_mut(index) else { return true };
        let read = match recv(&conn.fd, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) => return false,
            Ok((read, _)) => read,
            Err(Errno::AGAIN) => return true,
            Err(_) => return false,
        };
        let bytes = &buffer[..read];
        let goes_on = match conn.stage {
            Stage::Open { .. } => mode.hear(index, bytes, conns),
            // On loopback a request of one segment comes in one piece.
            Stage::Upgrading if bytes.ends_with(b"\r\n\r\n") => {
                let (room, publisher) = seat(bytes);
                conn.stage = Stage::Open { room, publisher };
                mode.open(room, publisher, index);
                send(&conn.fd, ACCEPTED, SendFlags::NOSIGNAL) == Ok(ACCEPTED.len())
            }
            Stage::Upgrading => false,
        };
        if !goes_on || read < buffer.len() {
            return goes_on;
        }
    }
}

/// The room and the role in `GET /ROOM/ROLE`; another path is a member of the first room.
fn seat(request: &[u8]) -> (usize, bool) {
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut parts = line.trim_start_matches("GET /").split(['/', ' ']);
    let room = parts.next().and_then(|room| room.parse().ok()).unwrap_or(0);
    (room, parts.next() == Some("publisher"))
}

fn frame(payload: &[u8]) -> io::Result<Vec<u8>> {
    let head = match payload.len() {
        short @ 0..=125 => vec![0x81, short as u8],
        middle @ 126..=PAYLOAD_MAX => vec![0x81, 126, (middle >> 8) as u8, middle as u8],
        long => return Err(io::Error::other(format!("a payload of {long} bytes"))),
    };
    Ok([&head, payload].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_seat() {
        assert_eq!(seat(b"GET /12/publisher HTTP/1.1\r\nHost: x\r\n\r\n"), (12, true));
        assert_eq!(seat(b"GET /3/member HTTP/1.1\r\n\r\n"), (3, false));
        assert_eq!(seat(b"GET /ws HTTP/1.1\r\n\r\n"), (0, false));
    }
}
