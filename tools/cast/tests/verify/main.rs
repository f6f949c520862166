//! `cast verify` against a real server, honest and lied about: an honest one passes, and of each lie the right rule is named.
//!
//! The liar sits between the clients and the server and tampers with the frames of one WebSocket conversation. What the
//! log says over HTTP it passes on as it is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod liar;

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use liar::Lie;

/// The server is another package's program: built by whoever tests the workspace, and now where it is not there. (Built
/// again it would take other features, under the tests of a build that breaks it on purpose.)
fn server() -> &'static PathBuf {
    static SERVER: OnceLock<PathBuf> = OnceLock::new();
    SERVER.get_or_init(|| {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_cast")).with_file_name("commitcast");
        if program.is_file() {
            return program;
        }
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "commitcast", "--bin", "commitcast"]);
        if program.parent().is_some_and(|folder| folder.ends_with("release")) {
            build.arg("--release");
        }
        assert!(build.current_dir("../..").status().unwrap().success(), "the server was not built");
        assert!(program.is_file(), "{}", program.display());
        program
    })
}

fn verify(arguments: &[&str]) -> Output {
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let mut verify = Command::new(env!("CARGO_BIN_EXE_cast"));
    verify.arg("verify").args(["--seed", "11", "--keep", scratch.to_str().unwrap()]).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A server without a verifier of its own, on a port of its own, in a directory that goes with it.
struct House {
    child: Child,
    address: SocketAddr,
    home: PathBuf,
}

impl House {
    fn open(name: &str) -> House {
        let home = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(&home).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = File::create(home.join("log")).unwrap();
        let child = Command::new(server())
            .args(["serve", "--listen", &address.to_string(), "--data", "data"])
            .current_dir(&home)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let house = House { child, address, home };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "{}", house.log());
            std::thread::yield_now();
        }
        house
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.home);
    }
}

#[test]
fn a_server_that_keeps_its_promises_passes_three_kills() {
    let output = verify(&["--rounds", "3", "--rooms", "1", "--server", server().to_str().unwrap()]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for rule in
        ["phantom", "lost-ack", "once", "hole", "resume", "one-decision", "restart", "second-process", "liveness"]
    {
        let line = said.lines().find(|line| line.starts_with(rule)).unwrap_or_else(|| panic!("{rule}: {said}"));
        assert!(!line.contains(" - "), "{rule} was not checked: {said}");
    }
    assert!(said.contains("3 rounds") && said.ends_with("0 violations, seed 11\n"), "{said}");
}

#[test]
fn a_server_that_is_not_there_is_no_violation() {
    let output = verify(&["--server", "/no/such/server"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    // Nobody listens on port 1.
    let output = verify(&["--url", "ws://127.0.0.1:1", "--no-kill"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}

/// Against a house that runs already, through whoever tells this lie.
fn through(lie: Option<Lie>) -> Output {
    let house = House::open(&format!("{lie:?}"));
    let proxy = liar::between(house.address, lie);
    let url = format!("ws://{proxy}");
    verify(&["--url", &url, "--no-kill", "--seconds", "1", "--rooms", "1"])
}

fn caught(lie: Lie, rule: &str) {
    let output = through(Some(lie));
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{lie:?}: {said}");
    assert!(said.contains(&format!("violation {rule}: ")), "{lie:?}: {said}");
    let kept = said.lines().find_map(|line| line.strip_prefix("kept: ")).unwrap_or_else(|| panic!("{said}"));
    assert!(fs::read_to_string(format!("{kept}/transcript.jsonl")).unwrap().lines().count() > 10, "{kept}");
    fs::remove_dir_all(kept).unwrap();
}

#[test]
fn an_honest_proxy_changes_nothing() {
    let output = through(None);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[test]
fn an_event_that_is_dropped_is_a_hole() {
    caught(Lie::Drop, "hole");
}

#[test]
fn an_event_that_is_sent_twice_is_a_duplicate() {
    caught(Lie::Duplicate, "duplicate");
}

#[test]
fn two_events_that_change_places_are_a_reorder() {
    caught(Lie::Reorder, "reorder");
}

#[test]
fn an_event_that_nobody_sent_is_a_phantom() {
    caught(Lie::Invent, "phantom");
}

#[test]
fn an_event_with_another_text_is_changed() {
    caught(Lie::Change, "changed");
}

#[test]
fn an_acknowledgement_of_what_was_never_passed_on_is_a_lost_one() {
    caught(Lie::Swallow, "lost-ack");
}

#[test]
fn an_acknowledgement_with_another_number_is_seen() {
    caught(Lie::Renumber, "ack-seq");
}
