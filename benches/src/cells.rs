//! What can be measured: each workload with the servers that can do its work, and how one of them is run.

use std::collections::BTreeMap;
use std::io;

use crate::engine::rooms::Next;
use crate::engine::schedule::Pace;
use crate::figures::Figures;
use crate::measure::{Plan, Subject};
use crate::servers::{Absent, Build, Cores, Ping, Programs, Server, Setup, floor_figures, publishing, token};
use crate::vocabulary::{Bare, Centrifugo, Churn, Documents, Echo, Native, Nats, Tickets, Vocabulary};
use crate::workloads::rooms::{Size, Unit};
use crate::workloads::{agents, connect, idle, mixed, pings, resume, rooms, storm};

const STORM_CLIENTS: usize = 15_000;

pub const COMMITCAST: &str = "commitcast";
/// The same with two reactors on two cores.
pub const COMMITCAST_2: &str = "commitcast-2";
/// Another build of it, which this one is compared with, on one reactor and on two.
pub const EARLIER: &str = "earlier";
pub const EARLIER_2: &str = "earlier-2";
/// The builds that are compared: who is measured, and which server it is when it is the other build.
pub const TWINS: &[(&str, &str)] = &[(COMMITCAST, EARLIER), (COMMITCAST_2, EARLIER_2)];
pub const FLOOR: &str = "floor";
pub const PEERS: &[&str] = &["bun", "node-ws", "fastapi", "tokio-tungstenite", "fastwebsockets", "nats", "centrifugo"];

/// A workload by its name, and who can do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    pub name: &'static str,
    pub about: &'static str,
    pub servers: &'static [&'static str],
    /// Measured in the first round only, because it hardly differs between rounds and takes long.
    pub once: bool,
}

impl Workload {
    const fn new(name: &'static str, about: &'static str, servers: &'static [&'static str]) -> Workload {
        Workload { name, about, servers, once: false }
    }

    const fn once(self) -> Workload {
        Workload { once: true, ..self }
    }
}

const JSON: &[&str] = &[COMMITCAST, FLOOR, "bun", "node-ws", "fastapi", "tokio-tungstenite", "fastwebsockets"];
const ROOMS: &[&str] =
    &[COMMITCAST, FLOOR, "bun", "node-ws", "fastapi", "tokio-tungstenite", "fastwebsockets", "nats", "centrifugo"];
const WITH_FLOOR: &[&str] = &[COMMITCAST, FLOOR];
const BOTH: &[&str] = &[COMMITCAST, COMMITCAST_2];
const ALONE: &[&str] = &[COMMITCAST];

pub const WORKLOADS: &[Workload] = &[
    Workload::new("ping", "JSON ping and pong, 100 connections, one in flight on each", JSON),
    Workload::new("ping-1", "the same on one connection: a round trip", WITH_FLOOR),
    Workload::new("ping-15000", "the same on 15,000 connections", WITH_FLOOR),
    Workload::new("ping-open", "the same at half of the saturating rate", WITH_FLOOR),
    Workload::new("pipeline", "the same, 16 in flight on each of 100 connections", JSON),
    Workload::new("echo", "64 bytes there and back on /v1/echo", WITH_FLOOR),
    Workload::new("fanout", "a signal to 1,000 members, one in flight", ROOMS),
    Workload::new("fanout-10", "the same to 10 members", WITH_FLOOR),
    Workload::new("fanout-100", "the same to 100 members", WITH_FLOOR),
    Workload::new("fanout-10000", "the same to 10,000 members", WITH_FLOOR),
    Workload::new("fanout-64", "signals to 1,000 members, 64 in flight", ROOMS),
    Workload::new("rooms", "200 rooms of 5 members, one signal in flight in each", ROOMS),
    Workload::new("rooms-64", "the same, 64 in flight in each", ROOMS),
    Workload::new("durable", "a stored event to 1,000 members, one in flight", ALONE),
    Workload::new(
        "updates",
        "confirmed document updates, 100 rooms of 2, 256 bytes",
        &[COMMITCAST, "fastapi", "bun", "node-ws"],
    ),
    Workload::new(
        "update-1",
        "one such update at a time, until the other member has it",
        &[COMMITCAST, "fastapi", "bun", "node-ws"],
    ),
    Workload::new("churn", "join and leave, 100 connections", ALONE),
    Workload::new(
        "upgrade",
        "upgrades without a token",
        &[COMMITCAST, FLOOR, "bun", "node-ws", "fastapi", "tokio-tungstenite", "fastwebsockets"],
    ),
    Workload::new("upgrade-token", "upgrades with an HS256 token", ALONE),
    Workload::new("resume", "10,000 events to each of 100 clients of a room", ALONE),
    Workload::new("storm", "15,000 clients of 150 rooms cut and coming back at head", WITH_FLOOR),
    Workload::new("idle-documents", "memory of 18,000 connections to 500 documents", ALONE).once(),
    Workload::new("idle-native", "memory of 18,000 native connections in 500 rooms", ALONE).once(),
    Workload::new("mixed", "all dialects at once, at modest rates", ALONE),
    Workload::new("agents", "2,000 runs a second of 50 pages, a backend's first event", ALONE),
    Workload::new("cores-ping", "pings at a quarter of the saturating rate, on one reactor and on two", BOTH),
    Workload::new("cores-rooms", "200 rooms of 5 members, 4,000 signals a second, likewise", BOTH),
    Workload::new("disk", "fdatasync of one block", &[FLOOR]),
    Workload::new("rows", "a bare SQLite loop in batches of the size of `updates`", &[FLOOR]),
];

pub fn workload(name: &str) -> Option<&'static Workload> {
    WORKLOADS.iter().find(|workload| workload.name == name)
}

/// Servers to measure, on cores of their own.
#[derive(Debug)]
pub struct Fleet {
    programs: Programs,
    cores: Option<Cores>,
    /// Peers stay for the whole run: a just-in-time compiler is given the time to do its work.
    peers: BTreeMap<&'static str, Result<Server, String>>,
}

/// A measurement, or why there is none.
pub type Outcome = Result<Figures, String>;

/// What is known so far, best values over rounds.
pub trait Known {
    /// The best rate of a workload on a server.
    fn per_second(&self, workload: &str, server: &str) -> Option<f64>;
    /// The latest value that only this workload has.
    fn extra(&self, workload: &str, server: &str, name: &str) -> Option<f64>;
}

impl Fleet {
    pub fn new(programs: Programs, cores: Option<Cores>) -> Fleet {
        Fleet { programs, cores, peers: BTreeMap::new() }
    }

    /// Says before it is asked that a peer is not to be measured.
    pub fn leave_out(&mut self, peer: &'static str, why: &str) {
        self.peers.insert(peer, Err(why.to_owned()));
    }

    fn core(&self) -> Option<usize> {
        self.cores.map(|cores| cores.server)
    }

    fn setup(&self, build: Build, reactors: usize) -> Setup {
        let cores = match (self.cores, reactors) {
            (None, _) => Vec::new(),
            (Some(cores), 2) => vec![cores.server, cores.load],
            (Some(cores), _) => vec![cores.server],
        };
        Setup { build, reactors, cores, secret: None }
    }

    /// Runs one workload on one server.
    pub fn measure(&mut self, workload: &Workload, server: &'static str, plan: &Plan, known: &impl Known) -> Outcome {
        let outcome = match server {
            COMMITCAST => self.measure_commitcast(workload.name, &self.setup(Build::This, 1), plan, known),
            COMMITCAST_2 => self.measure_commitcast(workload.name, &self.setup(Build::This, 2), plan, known),
            EARLIER => self.measure_commitcast(workload.name, &self.setup(Build::Earlier, 1), plan, known),
            EARLIER_2 => self.measure_commitcast(workload.name, &self.setup(Build::Earlier, 2), plan, known),
            FLOOR => self.measure_floor(workload.name, plan, known),
            peer => match self.peer(peer) {
                Ok(subject) => run(&subject, workload.name, peer, plan, known),
                Err(why) => return Err(why),
            },
        };
        let mut figures = outcome.map_err(|error| format!("failed: {error}"))?;
        workload.name.clone_into(&mut figures.workload);
        server.clone_into(&mut figures.server);
        Ok(figures)
    }

    fn peer(&mut self, name: &'static str) -> Result<Subject, String> {
        let core = self.core();
        let server = self.peers.entry(name).or_insert_with(|| {
            Server::peer(&self.programs, name, core).map_err(|absent| match absent {
                Absent::NotRun(why) => format!("NOT RUN: {why}"),
                Absent::Failed(error) => format!("failed to start: {error}"),
            })
        });
        match server {
            Ok(server) => Ok(Subject::of(name, server)),
            Err(why) => Err(why.clone()),
        }
    }

    fn measure_commitcast(
        &self,
        workload: &str,
        setup: &Setup,
        plan: &Plan,
        known: &impl Known,
    ) -> io::Result<Figures> {
        match workload {
            "upgrade-token" => {
                const SECRET: &str = "a secret of the bench, known to nobody else";
                let setup = Setup { secret: Some(SECRET.to_owned()), ..setup.clone() };
                let server = Server::commitcast(&self.programs, &setup)?;
                let mut subject = Subject::of(COMMITCAST, &server);
                subject.headers = format!("Authorization: Bearer {}\r\n", token(&self.programs, SECRET)?);
                connect::run(&subject, &Tickets, plan)
            }
            "updates" | "update-1" => {
                let server = Server::commitcast(&self.programs, setup)?;
                server.create_documents(100)?;
                let batches = |server: &Server| -> io::Result<(f64, f64)> {
                    let metric = |name| Ok::<f64, io::Error>(server.metric(name)?.unwrap_or(0.0));
                    Ok((
                        metric("commitcast_commit_batch_operations_sum")?,
                        metric("commitcast_commit_batch_operations_count")?,
                    ))
                };
                let before = batches(&server)?;
                let mut figures = run(&Subject::of(COMMITCAST, &server), workload, COMMITCAST, plan, known)?;
                let after = batches(&server)?;
                figures.extra.insert("batch", (after.0 - before.0) / (after.1 - before.1).max(1.0));
                Ok(figures)
            }
            _ => {
                let server = Server::commitcast(&self.programs, setup)?;
                let subject = Subject::of(COMMITCAST, &server);
                match workload {
                    "resume" => resume::run(&server, &subject, 10_000, 100),
                    "storm" => storm::run(&server, &subject, STORM_CLIENTS, 150),
                    "idle-documents" => {
                        server.create_documents(500)?;
                        idle::run(&subject, &Documents, 5_000, 18_000, 500)
                    }
                    "mixed" => {
                        server.create_documents(50)?;
                        mixed::run(&server, &subject, plan)
                    }
                    "agents" => agents::run(&server, &subject, 50, 2_000.0, plan),
                    _ => run(&subject, workload, COMMITCAST, plan, known),
                }
            }
        }
    }

    fn measure_floor(&self, workload: &str, plan: &Plan, known: &impl Known) -> io::Result<Figures> {
        let (programs, core) = (&self.programs, self.core());
        let values = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
            floor_figures(programs, core, &arguments)
        };
        let server = match workload {
            "disk" => return Ok(alone("write", &values(&["disk"])?)),
            "rows" => {
                let batch = known.extra("updates", COMMITCAST, "batch").unwrap_or(50.0).round().max(1.0);
                let seconds = plan.measured.as_secs_f64();
                return Ok(alone(
                    "update",
                    &values(&["rows", "--batch", &format!("{batch}"), "--seconds", &format!("{seconds}")])?,
                ));
            }
            "echo" => Server::floor_echo(programs, core, Ping::Echo, None)?,
            name if name.starts_with("fanout") || name.starts_with("rooms") => Server::floor_fan(programs, core)?,
            _ => Server::floor_echo(programs, core, Ping::Tickets, None)?,
        };
        let subject = Subject::of(FLOOR, &server);
        match workload {
            "storm" => storm::bare(&subject, STORM_CLIENTS),
            _ => run(&subject, workload, FLOOR, plan, known),
        }
    }
}

/// Figures that are nothing but values.
fn alone(unit: &'static str, values: &[(String, f64)]) -> Figures {
    const NAMES: &[&str] = &[
        "over_p50_nanos",
        "over_p99_nanos",
        "append_p50_nanos",
        "append_p99_nanos",
        "updates_per_second",
        "cpu_nanos_per_update",
        "batch",
    ];
    let extra = NAMES
        .iter()
        .filter_map(|name| values.iter().find(|(found, _)| found == name).map(|(_, value)| (*name, *value)));
    Figures { unit, extra: extra.collect(), ..Figures::default() }
}

/// The workloads that need nothing but a server's address.
fn run(subject: &Subject, workload: &str, server: &str, plan: &Plan, known: &impl Known) -> io::Result<Figures> {
    let one = Pace::Closed { window: 1 };
    let ping = |connections, pace, plan: &Plan| match server {
        "nats" => pings::run(subject, &Nats, connections, pace, plan),
        _ => pings::run(subject, &Tickets, connections, pace, plan),
    };
    let fan = |rooms, members, window| {
        let vocabulary: Box<dyn Vocabulary> = match server {
            FLOOR => Box::new(Bare),
            "nats" => Box::new(Nats),
            "centrifugo" => Box::new(Centrifugo),
            _ => Box::new(Native::signals()),
        };
        let size = Size { rooms, members };
        rooms::run(subject, &*vocabulary, size, Pace::Closed { window }, Next::Heard, Unit::Delivery, plan)
    };
    match workload {
        "ping" => ping(100, one, plan),
        "ping-1" => ping(1, one, plan),
        "ping-15000" => ping(15_000, one, plan),
        "ping-open" => {
            let rate = known.per_second("ping", COMMITCAST).unwrap_or(40_000.0) / 2.0;
            let mut figures = ping(100, Pace::Open { rate }, plan)?;
            figures.extra.insert("rate", rate);
            Ok(figures)
        }
        "pipeline" => ping(100, Pace::Closed { window: 16 }, plan),
        "echo" => {
            let echo = Echo { path: "/v1/echo".to_owned() };
            pings::run(subject, &echo, 100, one, plan)
        }
        "fanout" => fan(1, 1_000, 1),
        "fanout-10" => fan(1, 10, 1),
        "fanout-100" => fan(1, 100, 1),
        "fanout-10000" => fan(1, 10_000, 1),
        "fanout-64" => fan(1, 1_000, 64),
        "rooms" => fan(200, 5, 1),
        "rooms-64" => fan(200, 5, 64),
        "durable" => {
            let size = Size { rooms: 1, members: 1_000 };
            rooms::run(subject, &publishing(), size, one, Next::Both, Unit::Delivery, plan)
        }
        "updates" => {
            let size = Size { rooms: 100, members: 1 };
            rooms::run(subject, &Documents, size, one, Next::Confirmed, Unit::Update, plan)
        }
        "update-1" => {
            let size = Size { rooms: 1, members: 1 };
            rooms::run(subject, &Documents, size, one, Next::Both, Unit::Update, plan)
        }
        "idle-native" => idle::run(subject, &Native::signals(), 5_000, 18_000, 500),
        "cores-ping" => {
            let rate = known.per_second("ping", COMMITCAST).unwrap_or(80_000.0) / 4.0;
            ping(100, Pace::Open { rate }, &plan.sleeping())
        }
        "cores-rooms" => {
            let (size, pace) = (Size { rooms: 200, members: 5 }, Pace::Open { rate: 4_000.0 });
            let plan = plan.sleeping();
            rooms::run(subject, &Native::signals(), size, pace, Next::Heard, Unit::Delivery, &plan)
        }
        "churn" => pings::run(subject, &Churn, 100, one, plan),
        "upgrade" => connect::run(subject, &Tickets, plan),
        other => Err(io::Error::other(format!("{server} cannot do {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_have_names_of_their_own_and_known_servers() {
        for (index, workload) in WORKLOADS.iter().enumerate() {
            assert!(WORKLOADS.iter().skip(index + 1).all(|other| other.name != workload.name), "{}", workload.name);
            let known = |server: &&str| PEERS.contains(server) || [COMMITCAST, COMMITCAST_2, FLOOR].contains(server);
            assert!(workload.servers.iter().all(known), "{}", workload.name);
        }
    }
}
