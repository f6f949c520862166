//! `bench idle`: what a connection that has joined a room costs the server in memory while nothing happens.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use benches::process::{Server, rss_bytes};
use benches::wire::{first_frame, pong, shake_hands, skip_frame};
use clap::Args;
use rustix::event::{Timespec, epoll};

#[derive(Debug, Args)]
pub struct Options {
    /// The commitcast program [default: the one beside this program]
    #[arg(long)]
    program: Option<PathBuf>,
    /// Half of them are there when the first measure is taken
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Rooms that they are spread over
    #[arg(long, default_value_t = 500)]
    prompts: usize,
    /// Seconds of rest before a measure
    #[arg(long, default_value_t = 3)]
    rest: u64,
    /// End with 1 when a connection costs more bytes than this
    #[arg(long)]
    max_bytes: Option<f64>,
}

/// Returns whether the cost was within what was asked.
pub fn run(options: &Options) -> io::Result<bool> {
    let prompts = options.prompts.max(1);
    let server = Server::commitcast(options.program.as_deref(), prompts, None)?;
    let rest = Duration::from_secs(options.rest);
    let mut crowd = Crowd::new(server.port, prompts)?;
    crowd.rest(rest)?;
    let empty = rss_bytes(server.pid())?;
    let half = options.connections / 2;
    crowd.grow_to(half)?;
    crowd.rest(rest)?;
    let at_half = rss_bytes(server.pid())?;
    crowd.grow_to(options.connections)?;
    crowd.rest(rest)?;
    let at_all = rss_bytes(server.pid())?;
    let slope = (at_all as f64 - at_half as f64) / (options.connections - half).max(1) as f64;
    let from_empty = (at_all as f64 - empty as f64) / options.connections.max(1) as f64;
    println!(
        "resident: {} KiB with none, {} KiB with {half}, {} KiB with {} connections in {prompts} rooms",
        empty >> 10,
        at_half >> 10,
        at_all >> 10,
        options.connections
    );
    println!(
        "{slope:.0} bytes per connection between {half} and {}, {from_empty:.0} from the first one",
        options.connections
    );
    Ok(options.max_bytes.is_none_or(|max| slope <= max))
}

/// Members that say nothing but pong.
struct Crowd {
    port: u16,
    prompts: usize,
    epoll: OwnedFd,
    members: Vec<TcpStream>,
    ready: Vec<epoll::Event>,
}

/// How many join before the others' pings are looked after.
const BATCH: usize = 250;

impl Crowd {
    fn new(port: u16, prompts: usize) -> io::Result<Crowd> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Crowd { port, prompts, epoll, members: Vec::new(), ready: Vec::with_capacity(1024) })
    }

    fn grow_to(&mut self, members: usize) -> io::Result<()> {
        while self.members.len() < members {
            self.join()?;
            if self.members.len().is_multiple_of(BATCH) {
                self.look_after(Duration::ZERO)?;
            }
        }
        Ok(())
    }

    fn join(&mut self) -> io::Result<()> {
        let index = self.members.len();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut rest = shake_hands(&mut stream, &format!("/ws/prompts/idle-{}", index % self.prompts))?;
        // The greeting: its arrival is what says that the room was joined.
        skip_frame(&mut stream, &mut rest)?;
        stream.set_nonblocking(true)?;
        epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
        self.members.push(stream);
        Ok(())
    }

    fn rest(&mut self, time: Duration) -> io::Result<()> {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            self.look_after(left)?;
        }
        Ok(())
    }

    /// Answers pings, which the server sends whether or not anything is measured.
    fn look_after(&mut self, wait: Duration) -> io::Result<()> {
        self.ready.clear();
        let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.ready), Some(&wait))?;
        for event in &self.ready {
            if let Some(member) = self.members.get_mut(event.data.u64() as usize) {
                answer(member)?;
            }
        }
        Ok(())
    }
}

fn answer(member: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    let heard = match member.read(&mut buffer) {
        Ok(0) => {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "the server closed a member"));
        }
        Ok(n) => buffer.get(..n).unwrap_or_default(),
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut rest = heard;
    // A control frame that came in two pieces would be lost here; on loopback it comes in one.
    while let Some(frame) = first_frame(rest) {
        match frame.opcode {
            8 => {
                return Err(io::Error::other(format!("the server closed a member: {:02x?}", frame.payload)));
            }
            9 => member.write_all(&pong(frame.payload))?,
            _ => {}
        }
        rest = rest.get(frame.len..).unwrap_or_default();
    }
    Ok(())
}
