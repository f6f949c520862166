//! `bench pingpong`: what one 64-byte message costs the server in CPU time, as a ratio to the floor.

use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use benches::process::{Server, cpu_nanos, pin, two_cores};
use benches::wire::{REPLY, REPLY_BYTES, REQUEST, REQUEST_BYTES, shake_hands};
use clap::Args;
use rustix::event::{Timespec, epoll};
use rustix::net::{RecvFlags, SendFlags, recv, send};

#[derive(Debug, Args)]
pub struct Options {
    /// The commitcast program [default: the one beside this program]
    #[arg(long)]
    program: Option<PathBuf>,
    /// Measure this running server instead; pin it yourself
    #[arg(long, requires = "port")]
    pid: Option<u32>,
    #[arg(long, requires = "pid")]
    port: Option<u16>,
    /// Path of the echo
    #[arg(long, default_value = "/v1/echo")]
    path: String,
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// Messages of one round on one server
    #[arg(long, default_value_t = 400_000)]
    messages: u64,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// End with 1 when the median ratio is above this
    #[arg(long)]
    max_ratio: Option<f64>,
}

/// Returns whether the ratio was within what was asked.
pub fn run(options: &Options) -> io::Result<bool> {
    let cores = two_cores()?;
    let server_core = cores.map(|(server, _)| server);
    let floor = Server::floor(server_core)?;
    let spawned = match options.pid {
        Some(_) => None,
        None => Some(Server::commitcast(options.program.as_deref(), 0, server_core)?),
    };
    match cores {
        Some((server, load)) => {
            pin(load)?;
            println!("servers on core {server}, load on core {load}");
        }
        None => println!("only one core: servers and load share it, and the ratio says little"),
    }
    let (pid, port) = match (&spawned, options.pid, options.port) {
        (Some(server), _, _) => (server.pid(), server.port),
        (None, Some(pid), Some(port)) => (pid, port),
        _ => return Err(io::Error::other("--pid and --port go together")),
    };
    let mut floor = Load::open("floor", floor.pid(), floor.port, None, options)?.keeping(floor);
    let mut server = Load::open("server", pid, port, Some(&options.path), options)?;
    let warm_up = options.messages / 10;
    floor.run(warm_up)?;
    server.run(warm_up)?;
    let mut ratios = Vec::new();
    for round in 0..options.rounds {
        // The order changes every round, so that neither always runs on the warmer machine.
        let (of_floor, of_server) = if round % 2 == 0 {
            let floor = floor.run(options.messages)?;
            (floor, server.run(options.messages)?)
        } else {
            let server = server.run(options.messages)?;
            (floor.run(options.messages)?, server)
        };
        let ratio = of_server.nanos_per_message / of_floor.nanos_per_message;
        println!("round {round}: ratio {ratio:.3}   {of_floor}   {of_server}");
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    let (Some(best), Some(median)) = (ratios.first(), ratios.get(ratios.len() / 2)) else {
        return Err(io::Error::other("no rounds were asked for"));
    };
    println!("CPU per message against the floor: median {median:.3}, best {best:.3} of {} rounds", ratios.len());
    Ok(options.max_ratio.is_none_or(|max| *median <= max))
}

/// What a round cost.
struct Cost {
    name: &'static str,
    nanos_per_message: f64,
    messages_per_second: f64,
    /// Share of the wall time that the server was on its core.
    busy: f64,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Cost { name, nanos_per_message, messages_per_second, busy } = self;
        write!(
            f,
            "{name} {nanos_per_message:.0} ns/message, {messages_per_second:.0} messages/s, {:.0} % busy",
            busy * 100.0
        )
    }
}

/// Connections to one server in a closed loop: each sends its next message when it has its answer.
struct Load {
    name: &'static str,
    pid: u32,
    epoll: OwnedFd,
    conns: Vec<Conn>,
    ready: Vec<epoll::Event>,
    _server: Option<Server>,
}

struct Conn {
    stream: TcpStream,
    /// Bytes of the answer that have come.
    received: usize,
}

/// Longer than any pause of a live server.
const STUCK: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

impl Load {
    /// `path` is `None` for the floor, which knows no handshake.
    fn open(name: &'static str, pid: u32, port: u16, path: Option<&str>, options: &Options) -> io::Result<Load> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut conns = Vec::with_capacity(options.connections);
        for index in 0..options.connections {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            if let Some(path) = path {
                shake_hands(&mut stream, path)?;
            }
            stream.set_nonblocking(true)?;
            let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
            epoll::add(&epoll, &stream, epoll::EventData::new_u64(index as u64), flags)?;
            conns.push(Conn { stream, received: 0 });
        }
        Ok(Load { name, pid, epoll, conns, ready: Vec::with_capacity(1024), _server: None })
    }

    /// Ends the server with the load.
    fn keeping(mut self, server: Server) -> Load {
        self._server = Some(server);
        self
    }

    fn run(&mut self, messages: u64) -> io::Result<Cost> {
        let cpu = cpu_nanos(self.pid)?;
        let begun = Instant::now();
        self.exchange(messages)?;
        let elapsed = begun.elapsed();
        let nanos = (cpu_nanos(self.pid)? - cpu) as f64;
        Ok(Cost {
            name: self.name,
            nanos_per_message: nanos / messages as f64,
            messages_per_second: messages as f64 / elapsed.as_secs_f64(),
            busy: nanos / elapsed.as_nanos() as f64,
        })
    }

    fn exchange(&mut self, messages: u64) -> io::Result<()> {
        let mut unsent = messages;
        let mut unanswered = messages;
        for conn in self.conns.iter().take(usize::try_from(messages).unwrap_or(usize::MAX)) {
            conn.ask()?;
            unsent -= 1;
        }
        while unanswered > 0 {
            self.ready.clear();
            epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.ready), Some(&STUCK))?;
            if self.ready.is_empty() {
                return Err(io::Error::other(format!("{}: {unanswered} answers are missing", self.name)));
            }
            for event in &self.ready {
                let Some(conn) = self.conns.get_mut(event.data.u64() as usize) else {
                    continue;
                };
                if !conn.hear()? {
                    continue;
                }
                unanswered -= 1;
                if unsent > 0 {
                    unsent -= 1;
                    conn.ask()?;
                }
            }
        }
        Ok(())
    }
}

impl Conn {
    fn ask(&self) -> io::Result<()> {
        // 70 bytes always fit the buffer of a server that has answered everything before.
        match send(&self.stream, &REQUEST, SendFlags::NOSIGNAL)? {
            REQUEST_BYTES => Ok(()),
            n => Err(io::Error::other(format!("only {n} bytes of a message were taken"))),
        }
    }

    /// True when the answer is complete. It must be the right one: a server that answers rubbish quickly is not fast.
    fn hear(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 256];
        let heard = match recv(&self.stream, &mut buffer, RecvFlags::empty()) {
            Ok((0, _)) => {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, "the server closed a connection"));
            }
            Ok((n, _)) => buffer.get(..n).unwrap_or_default(),
            Err(rustix::io::Errno::AGAIN) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if REPLY.get(self.received..self.received + heard.len()) != Some(heard) {
            return Err(io::Error::other(format!("not an echo: {heard:02x?}")));
        }
        self.received = (self.received + heard.len()) % REPLY_BYTES;
        Ok(self.received == 0)
    }
}
