//! The engine against real servers: a commitcast that answers well, and a floor that lies.
//!
//! The commitcast program is that of the environment variable `COMMITCAST`, or is built: a measurement of nothing would be
//! worse than none.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use benches::engine::rooms::Next;
use benches::engine::schedule::Pace;
use benches::engine::window::Waiting;
use benches::figures::Figures;
use benches::measure::{Plan, Subject};
use benches::servers::{Ping, Programs, Server, Setup, publishing, token};
use benches::vocabulary::{Bare, Churn, Documents, Native, Tickets, Vocabulary};
use benches::workloads::rooms::{Size, Unit};
use benches::workloads::{connect, mixed, pings, resume, rooms, storm};

const ONE: Pace = Pace::Closed { window: 1 };

fn plan() -> Plan {
    let (warm_up, measured) = (Duration::from_millis(50), Duration::from_millis(150));
    Plan { warm_up, measured, calls: None, waiting: Waiting::Sleeps }
}

fn programs() -> &'static Programs {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    PROGRAMS.get_or_init(|| Programs {
        floor: (PathBuf::from(env!("CARGO_BIN_EXE_floor")), Vec::new()),
        commitcast: commitcast(),
        earlier: None,
        peers: None,
    })
}

/// Beside the floor's own program, as cargo puts all of one build; made there if nobody has yet. (Made again it would take
/// other features, under the tests of a build that breaks it on purpose.)
fn commitcast() -> PathBuf {
    if let Some(program) = std::env::var_os("COMMITCAST") {
        return PathBuf::from(program);
    }
    let folder = Path::new(env!("CARGO_BIN_EXE_floor")).parent().unwrap();
    if folder.join("commitcast").is_file() {
        return folder.join("commitcast");
    }
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "commitcast", "--bin", "commitcast"]);
    build.arg("--target-dir").arg(folder.parent().unwrap());
    if folder.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success(), "commitcast was not built");
    folder.join("commitcast")
}

fn commitcast_server(setup: &Setup) -> Server {
    Server::commitcast(programs(), setup).unwrap()
}

fn is_whole(figures: &Figures) {
    let latency = figures.latency.unwrap();
    assert!(figures.units > 0 && figures.cpu_nanos.unwrap() > 0.0, "{figures}");
    assert!(0 < latency.p50 && latency.p50 <= latency.p99 && latency.p99 <= latency.max, "{figures}");
    assert!(figures.rss_bytes.unwrap() > 0 && figures.generator_busy > 0.0, "{figures}");
}

#[test]
fn a_real_server_is_measured() {
    let server = commitcast_server(&Setup::default());
    server.create_documents(5).unwrap();
    let subject = Subject::of("commitcast", &server);
    let plan = plan();
    is_whole(&pings::run(&subject, &Tickets, 10, ONE, &plan).unwrap());
    is_whole(&pings::run(&subject, &Tickets, 10, Pace::Closed { window: 16 }, &plan).unwrap());
    is_whole(&pings::run(&subject, &Churn, 10, ONE, &plan).unwrap());
    let paced = pings::run(&subject, &Tickets, 10, Pace::Open { rate: 2_000.0 }, &plan).unwrap();
    is_whole(&paced);
    assert!((250..=301).contains(&paced.units), "{} messages in 150 ms at 2,000 a second", paced.units);

    let size = Size { rooms: 3, members: 10 };
    let window = Pace::Closed { window: 64 };
    let fan = |vocabulary: &dyn Vocabulary, pace, next| {
        let figures = rooms::run(&subject, vocabulary, size, pace, next, Unit::Delivery, &plan).unwrap();
        is_whole(&figures);
        assert_eq!(figures.units % 10, 0, "every message to every member");
    };
    fan(&Native::signals(), ONE, Next::Heard);
    fan(&Native::signals(), window, Next::Heard);
    fan(&publishing(), ONE, Next::Both);

    let size = Size { rooms: 5, members: 1 };
    let updates = rooms::run(&subject, &Documents, size, ONE, Next::Confirmed, Unit::Update, &plan).unwrap();
    is_whole(&updates);
    assert!(updates.extra("confirmed_p50_micros").unwrap() > 0.0 && updates.extra("writer_nanos").unwrap() > 0.0);
    is_whole(&connect::run(&subject, &Tickets, &plan).unwrap());
    assert!(server.metric("commitcast_commit_batch_operations_count").unwrap().unwrap() > 0.0);
}

#[test]
fn whoever_comes_back_is_shown_what_was_missed() {
    let server = commitcast_server(&Setup::default());
    let resumed = resume::run(&server, &Subject::of("commitcast", &server), 600, 7).unwrap();
    assert_eq!(resumed.units, 4_200);
    drop(server);
    let server = commitcast_server(&Setup::default());
    let storm = storm::run(&server, &Subject::of("commitcast", &server), 300, 10).unwrap();
    assert_eq!(storm.units, 300);
}

#[test]
fn all_dialects_share_a_day() {
    let server = commitcast_server(&Setup::default());
    server.create_documents(50).unwrap();
    let day = mixed::run(&server, &Subject::of("commitcast", &server), &plan()).unwrap();
    let dialects = ["tickets", "workflows", "agents", "signals", "events", "documents"];
    for dialect in dialects {
        let medians = day.extra.iter().find(|(name, _)| name.starts_with(dialect) && name.contains("p50"));
        assert!(medians.is_some_and(|(_, value)| *value > 0.0), "{dialect} in {day}");
    }
}

#[test]
fn a_token_opens_the_door_and_its_absence_does_not() {
    let secret = "a secret for a test of the bench, long enough".to_owned();
    let server = commitcast_server(&Setup { secret: Some(secret.clone()), ..Setup::default() });
    let mut subject = Subject::of("commitcast", &server);
    let refused = connect::run(&subject, &Tickets, &plan()).unwrap_err();
    assert!(refused.to_string().contains("refused: HTTP/1.1 401"), "{refused}");
    subject.headers = format!("Authorization: Bearer {}\r\n", token(programs(), &secret).unwrap());
    is_whole(&connect::run(&subject, &Tickets, &plan()).unwrap());
}

#[test]
fn the_floor_is_driven_by_the_same_generator() {
    let server = Server::floor_echo(programs(), None, Ping::Tickets, None).unwrap();
    let subject = Subject::of("floor", &server);
    is_whole(&pings::run(&subject, &Tickets, 10, Pace::Closed { window: 4 }, &plan()).unwrap());
    assert_eq!(storm::bare(&subject, 300).unwrap().units, 300);
    let server = Server::floor_fan(programs(), None).unwrap();
    let subject = Subject::of("floor", &server);
    let size = Size { rooms: 3, members: 10 };
    let window = Pace::Closed { window: 8 };
    is_whole(&rooms::run(&subject, &Bare, size, window, Next::Heard, Unit::Delivery, &plan()).unwrap());
}

/// A server that answers rubbish quickly is not fast: one wrong byte among thousands is an error.
#[test]
fn one_wrong_byte_is_an_error() {
    for lie_after in [1, 1_000] {
        let server = Server::floor_echo(programs(), None, Ping::Tickets, Some(lie_after)).unwrap();
        let lied = pings::run(&Subject::of("floor", &server), &Tickets, 10, ONE, &plan()).unwrap_err();
        assert!(lied.to_string().contains("a wrong answer"), "after {lie_after}: {lied}");
    }
}

#[test]
fn a_server_that_is_gone_is_an_error() {
    let server = Server::floor_echo(programs(), None, Ping::Tickets, None).unwrap();
    let subject = Subject::of("floor", &server);
    drop(server);
    assert!(pings::run(&subject, &Tickets, 1, ONE, &plan()).is_err());
}
