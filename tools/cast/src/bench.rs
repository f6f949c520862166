//! `cast bench`: load on any server that speaks one of the vocabularies, with the engine of the crate `benches`.
//!
//! The generator takes one core; give the server others. With `--pid`, on the same machine, the server's CPU and memory
//! are told as well. See the first page of `benches` for what the figures mean.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use benches::engine::rooms::Next;
use benches::engine::schedule::Pace;
use benches::figures::Figures;
use benches::measure::{Plan, Subject};
use benches::vocabulary::{Centrifugo, Documents, Echo, Native, Nats, Placed, Tickets, Vocabulary};
use benches::workloads::rooms::{Size, Unit};
use benches::workloads::{connect, pings, rooms};
use benches::{servers, suite};
use clap::{Args, ValueEnum};

use crate::connect::Outcome;
use crate::target::Address;

const EXAMPLES: &str = "\
Examples:
  cast bench ping --url ws://127.0.0.1:8080
  cast bench ping --url ws://127.0.0.1:8080/v1/echo --says echo --rate 20000
  cast bench pipeline --url ws://127.0.0.1:8080 --window 16
  cast bench fanout --url ws://127.0.0.1:8080 --rooms 1 --connections 1000 --window 64
  cast bench fanout --url ws://127.0.0.1:4223 --says nats
  cast bench updates --url ws://127.0.0.1:8080 --rooms 100
  cast bench connect --url ws://127.0.0.1:8080 --token \"$TOKEN\" --pid \"$(pidof commitcast)\"

updates: the prompts bench-00000, bench-00001 … must be there, or be made by whoever opens them.
The server counts rates of clients that are not on its own machine: set limits.messages_per_second = 0 before.

Exit codes:
  0  measured
  1  an answer was wrong or missing, or the server did not read
  2  bad usage
  3  the server refused the upgrade
  4  the server cannot be reached
  5  the server closed a connection";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// What to measure
    #[arg(value_enum)]
    workload: Workload,
    /// Server, with or without a path: ws://host:port[/path]
    #[arg(long)]
    url: String,
    /// What the server speaks [default: what the workload is made for]
    #[arg(long, value_enum)]
    says: Option<Says>,
    /// Connections; for fanout and updates, members of all rooms together
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// Rooms of fanout and updates
    #[arg(long, default_value_t = 1)]
    rooms: usize,
    /// Messages in flight on each connection or in each room [default: 1; pipeline: 16]
    #[arg(long)]
    window: Option<usize>,
    /// Messages a second in all, sent whether or not the answers come; latency counts from when each was meant to be sent
    #[arg(long, conflicts_with = "window")]
    rate: Option<f64>,
    /// Length of the measured window
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Show this token in every upgrade
    #[arg(long)]
    token: Option<String>,
    /// The server's process, when it is on this machine: its CPU, memory and system calls are told as well
    #[arg(long)]
    pid: Option<u32>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// Ask and be answered, on every connection
    Ping,
    /// The same with several in flight
    Pipeline,
    /// A publisher in each room, and members who all hear it
    Fanout,
    /// Document updates, confirmed when they are stored
    Updates,
    /// Connect, upgrade, cut; again and again
    Connect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Says {
    /// {"type":"ping"} on /ws
    Tickets,
    /// 64 bytes there and back; /v1/echo unless the URL has a path
    Echo,
    /// Signals of the native protocol, on /v1/connect
    Native,
    /// Stored events of the native protocol
    Durable,
    /// The prompts' dialect
    Documents,
    Nats,
    Centrifugo,
}

pub fn run(options: &Options) -> Outcome {
    let (address, path) = match reach(&options.url) {
        Ok(reached) => reached,
        Err(Problem::Usage(why)) => {
            eprintln!("cast: {why}");
            return Outcome::Usage;
        }
        Err(Problem::Unreachable(why)) => {
            eprintln!("cast: {why}");
            return Outcome::Unreachable;
        }
    };
    match measured(options, address, path) {
        Ok(figures) => {
            print(options, &figures);
            Outcome::Ok
        }
        Err(error) => {
            eprintln!("cast: {error}");
            outcome(error.kind())
        }
    }
}

/// The engine's errors by who is at fault, as exit codes.
fn outcome(kind: io::ErrorKind) -> Outcome {
    match kind {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::TimedOut => Outcome::Unreachable,
        io::ErrorKind::PermissionDenied => Outcome::Refused,
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
            Outcome::Closed
        }
        _ => Outcome::NotMet,
    }
}

fn print(options: &Options, figures: &Figures) {
    match serde_json::to_string(figures) {
        Ok(json) if options.json => println!("{json}"),
        _ => println!("{figures}"),
    }
}

enum Problem {
    Usage(String),
    Unreachable(String),
}

/// The server's address, and the path where the URL names one.
fn reach(url: &str) -> Result<(SocketAddr, Option<String>), Problem> {
    let address = Address::parse(url).map_err(Problem::Usage)?;
    let found = (address.host.as_str(), address.port).to_socket_addrs();
    let found = found.map_err(|error| Problem::Unreachable(format!("{}: {error}", address.host)))?.next();
    let found = found.ok_or_else(|| Problem::Unreachable(format!("{} has no address", address.host)))?;
    Ok((found, (address.path != "/").then_some(address.path)))
}

fn measured(options: &Options, address: SocketAddr, path: Option<String>) -> io::Result<Figures> {
    suite::raise_descriptor_limit()?;
    let vocabulary = vocabulary(options, path)?;
    let subject = Subject {
        name: address.to_string(),
        address,
        pid: options.pid,
        headers: options.token.as_ref().map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n")),
        home: std::env::temp_dir(),
    };
    let plan = Plan { measured: Duration::from_secs_f64(options.seconds.clamp(0.1, 3_600.0)), ..Plan::full() };
    let pace = match (options.rate, options.window) {
        (Some(rate), _) if rate > 0.0 => Pace::Open { rate },
        (Some(_), _) => return Err(io::Error::other("--rate must be above 0")),
        (None, window) => Pace::Closed { window: window.unwrap_or(options.workload.window()).max(1) },
    };
    let rooms = options.rooms.max(1);
    let members = (options.connections / rooms).max(1);
    let mut figures = match options.workload {
        Workload::Ping | Workload::Pipeline => {
            pings::run(&subject, &*vocabulary, options.connections.max(1), pace, &plan)?
        }
        Workload::Fanout => {
            let next = if vocabulary.confirms() { Next::Both } else { Next::Heard };
            rooms::run(&subject, &*vocabulary, Size { rooms, members }, pace, next, Unit::Delivery, &plan)?
        }
        Workload::Updates => {
            rooms::run(&subject, &*vocabulary, Size { rooms, members }, pace, Next::Confirmed, Unit::Update, &plan)?
        }
        Workload::Connect => connect::run(&subject, &*vocabulary, &plan)?,
    };
    figures.workload = options.workload.to_possible_value().map_or_else(String::new, |name| name.get_name().to_owned());
    Ok(figures)
}

impl Workload {
    fn window(self) -> usize {
        match self {
            Workload::Pipeline => 16,
            _ => 1,
        }
    }
}

/// How the server is spoken to, at the path of the URL where it has one.
fn vocabulary(options: &Options, path: Option<String>) -> io::Result<Box<dyn Vocabulary>> {
    let says = options.says.unwrap_or(match options.workload {
        Workload::Ping | Workload::Pipeline | Workload::Connect => Says::Tickets,
        Workload::Fanout => Says::Native,
        Workload::Updates => Says::Documents,
    });
    let vocabulary: Box<dyn Vocabulary> = match says {
        Says::Tickets => Box::new(Tickets),
        Says::Echo => Box::new(Echo { path: "/v1/echo".to_owned() }),
        Says::Native => Box::new(Native::signals()),
        Says::Durable => Box::new(servers::publishing()),
        Says::Documents => Box::new(Documents),
        Says::Nats => Box::new(Nats),
        Says::Centrifugo => Box::new(Centrifugo),
    };
    match (path, says) {
        (None, _) => Ok(vocabulary),
        (Some(_), Says::Documents) => {
            Err(io::Error::other("documents live at paths of their own: leave the path out of the URL"))
        }
        (Some(path), _) => Ok(Box::new(Placed { path, vocabulary })),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Arguments {
        #[command(flatten)]
        options: Options,
    }

    fn parsed(line: &str) -> Options {
        Arguments::try_parse_from(line.split(' ')).unwrap().options
    }

    #[test]
    fn a_url_may_name_a_path() {
        let (address, path) = reach("ws://127.0.0.1:7/x?y=1").unwrap_or_else(|_| panic!("not reached"));
        assert_eq!((address.port(), path.as_deref()), (7, Some("/x?y=1")));
        assert!(matches!(reach("ws://127.0.0.1:7"), Ok((_, None))));
        assert!(matches!(reach("127.0.0.1:7"), Err(Problem::Usage(_))));
        let seat = servers::ANYWHERE;
        let options = parsed("bench ping --url ws://x");
        assert_eq!(vocabulary(&options, None).unwrap().path(seat), "/ws");
        assert_eq!(vocabulary(&options, Some("/other".to_owned())).unwrap().path(seat), "/other");
        assert!(vocabulary(&parsed("bench updates --url ws://x"), Some("/other".to_owned())).is_err());
        assert!(Arguments::try_parse_from("bench ping --url ws://x --rate 5 --window 2".split(' ')).is_err());
    }

    #[test]
    fn nobody_there_is_told_apart_from_a_wrong_answer() {
        // Nobody listens on port 1.
        assert_eq!(run(&parsed("bench ping --url ws://127.0.0.1:1 --connections 1")), Outcome::Unreachable);
        assert_eq!(run(&parsed("bench ping --url wss://127.0.0.1:1")), Outcome::Usage);
    }
}
