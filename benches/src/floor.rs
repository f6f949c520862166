//! The floor: the least a single-threaded program must do to answer 64 bytes over TCP.
//!
//! One `epoll_wait` for what is ready, one `recv` and one `send` per message. It knows no protocol: it counts the bytes of
//! a message it was told the size of and sends a reply that was made at compile time. Edge-triggered, which is safe with
//! one `recv` per edge because the load has at most one message under way per connection, and cheaper than
//! level-triggered, which polls every socket once more.

use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::fd::OwnedFd;

use benches::wire::{REPLY, REQUEST_BYTES};
use rustix::event::{Timespec, epoll};
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send, sockopt};

const LISTENER: u64 = u64::MAX;

struct Conn {
    fd: OwnedFd,
    /// Bytes of the message that is not complete yet.
    received: usize,
}

fn main() -> io::Result<()> {
    let port: u16 = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(0);
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    println!("listening on {}", listener.local_addr()?);
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    let mut conns: Vec<Option<Conn>> = Vec::new();
    let mut ready = Vec::with_capacity(1024);
    loop {
        ready.clear();
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut ready), None::<&Timespec>)?;
        for event in &ready {
            let token = event.data.u64();
            if token == LISTENER {
                let fd = accept_with(&listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
                sockopt::set_tcp_nodelay(&fd, true)?;
                let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
                epoll::add(&epoll, &fd, epoll::EventData::new_u64(conns.len() as u64), flags)?;
                conns.push(Some(Conn { fd, received: 0 }));
            } else if let Some(slot) = conns.get_mut(token as usize)
                && slot.as_mut().is_some_and(|conn| !serve(conn))
            {
                *slot = None;
            }
        }
    }
}

/// False when the connection is over.
fn serve(conn: &mut Conn) -> bool {
    let mut buffer = [0; 4096];
    match recv(&conn.fd, &mut buffer, RecvFlags::empty()) {
        Ok((0, _)) => return false,
        Ok((n, _)) => conn.received += n,
        Err(error) => return io::Error::from(error).kind() == ErrorKind::WouldBlock,
    }
    while conn.received >= REQUEST_BYTES {
        conn.received -= REQUEST_BYTES;
        // 66 bytes always fit the buffer of a client that waits for them.
        if send(&conn.fd, &REPLY, SendFlags::NOSIGNAL) != Ok(REPLY.len()) {
            return false;
        }
    }
    true
}
