//! One process after another: sockets from outside, a hand-over, a successor that fails, what the service manager hears.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt as _, FdMapping};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::stage::{self, Client, Heard, Process, signal, started};
use crate::support::DEADLINE;

const PROGRAM: &str = env!("CARGO_BIN_EXE_commitcast");

/// Puts the descriptors where `LISTEN_FDS` says that they are.
fn offer(command: &mut Command, descriptors: Vec<OwnedFd>, names: &str) {
    command.env("LISTEN_FDS", descriptors.len().to_string()).env("LISTEN_FDNAMES", names);
    let places = descriptors.into_iter().zip(3..);
    let mappings = places.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }).collect();
    command.fd_mappings(mappings).unwrap();
}

fn listener() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn program_at(path: &Path, toml: &str) -> (Command, TempDir) {
    let data = tempfile::tempdir().unwrap();
    (Process::command(path, &data, toml), data)
}

fn program(toml: &str) -> (Command, TempDir) {
    program_at(PROGRAM.as_ref(), toml)
}

/// A link to the program that a test can turn to something else.
struct Link {
    path: PathBuf,
    _home: TempDir,
}

impl Link {
    fn to_the_program() -> Link {
        let home = tempfile::tempdir().unwrap();
        let link = Link { path: home.path().join("commitcast"), _home: home };
        symlink(PROGRAM, &link.path).unwrap();
        link
    }

    fn turn_to(&self, target: impl AsRef<Path>) {
        fs::remove_file(&self.path).unwrap();
        symlink(target, &self.path).unwrap();
    }
}

fn start_at(link: &Link, toml: &str) -> Process {
    let (mut command, data) = program_at(&link.path, toml);
    command.args(["--listen", "127.0.0.1:0"]);
    let mut process = Process::launch(command, data);
    process.listens();
    process
}

// ---- sockets from outside -----------------------------------------------------------------------------------------------

#[test]
fn an_inherited_socket_is_served_and_whoever_came_first_has_waited() {
    let (socket, address) = listener();
    let early = TcpStream::connect(address).unwrap();
    let (mut command, data) = program("");
    command.args(["--listen", &address.to_string()]);
    offer(&mut command, vec![socket.into()], "web");
    let mut process = Process::launch(command, data);
    process.listens();
    assert_eq!(process.address, address);
    for stream in [early, TcpStream::connect(address).unwrap()] {
        let mut client = stage::dial_over(stream, "/v1/echo", &[]).unwrap();
        client.say("hello");
        assert_eq!(client.text(), "hello");
    }
    process.signal("TERM");
    assert_eq!(process.exit_code(), Some(0));
}

#[test]
fn a_socket_that_no_listener_names_is_an_error_that_says_both() {
    let (socket, address) = listener();
    let (mut command, data) = program("");
    command.args(["--listen", "127.0.0.3:0"]);
    offer(&mut command, vec![socket.into()], "web");
    let mut process = Process::launch(command, data);
    let line = process.wait_for("could not start");
    assert!(line.contains(&address.to_string()) && line.contains("127.0.0.3:0"), "{line}");
    assert_eq!(process.exit_code(), Some(3));
}

#[test]
fn a_connection_instead_of_a_socket_is_an_error_that_names_the_unit_s_setting() {
    let (socket, address) = listener();
    let connection = TcpStream::connect(address).unwrap();
    let (mut command, data) = program("");
    command.args(["--listen", "127.0.0.1:0"]);
    offer(&mut command, vec![connection.into()], "web");
    let mut process = Process::launch(command, data);
    process.wait_for("Accept=no");
    assert_eq!(process.exit_code(), Some(3));
    drop(socket);
}

#[test]
fn sockets_are_taken_only_by_the_process_that_they_are_for() {
    for (pid, ours) in [("$$", true), ("1", false)] {
        let (socket, address) = listener();
        let (mut named, data) = program("");
        named.args(["--listen", "127.0.0.1:0"]);
        // The pid stays with the exec, and nobody knows it before.
        let mut command = Command::new("sh");
        command.args(["-c", &format!("LISTEN_PID={pid} exec \"$0\" \"$@\"")]).arg(named.get_program());
        command.args(named.get_args());
        offer(&mut command, vec![socket.into()], "web");
        let mut process = Process::launch(command, data);
        process.listens();
        assert_eq!(process.address == address, ours, "LISTEN_PID={pid}");
    }
}

// ---- the hand-over ------------------------------------------------------------------------------------------------------

/// A native client that goes on where it was.
struct Follower {
    client: Client,
    epoch: String,
    seq: u64,
}

impl Follower {
    fn join(address: SocketAddr, since: Option<(&str, u64)>) -> Follower {
        let mut client = stage::connect(address, "/v1/connect");
        assert_eq!(client.json()["op"], "hello");
        let since = since.map(|(epoch, seq)| json!({"epoch": epoch, "seq": seq}));
        client.say(json!({"op": "join", "room": "game:1", "since": since}).to_string());
        let joined = client.json();
        assert_eq!((&joined["op"], &joined["room"]), (&json!("joined"), &json!("game:1")), "{joined}");
        let seq = match &since {
            Some(since) => {
                assert_eq!(joined["recovered"], true, "{joined}");
                since["seq"].as_u64().unwrap()
            }
            None => joined["head"].as_u64().unwrap(),
        };
        Follower { client, epoch: joined["epoch"].as_str().unwrap_or_default().to_owned(), seq }
    }

    fn again(&self, address: SocketAddr) -> Follower {
        Follower::join(address, Some((&self.epoch, self.seq)))
    }

    fn publish(&mut self, id: &str) {
        self.client.say(json!({"op": "publish", "room": "game:1", "id": id, "data": id}).to_string());
    }

    /// The next event or answer; events come in their order.
    fn hear(&mut self) -> Option<Value> {
        match self.client.hear() {
            Heard::Text(text) => {
                let frame: Value = serde_json::from_str(&text).unwrap();
                if frame["op"] == "event" {
                    assert_eq!(frame["seq"].as_u64(), Some(self.seq + 1), "{frame}");
                    self.seq += 1;
                }
                Some(frame)
            }
            Heard::Close(code, reason) => {
                assert_eq!(code, 1012, "{reason}");
                assert!(reason.starts_with("restart retry_after_ms="), "{reason}");
                None
            }
            other => panic!("{other:?}"),
        }
    }

    fn hear_until(&mut self, data: &str) {
        while self.hear().expect("it goes on")["data"] != data {}
    }
}

/// Connects again and again until told to stop, and counts; nothing may be refused, reset or cut off before its answer.
fn connect_until(address: SocketAddr, stop: &AtomicBool) -> usize {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut client = stage::connect(address, "/v1/connect");
        assert_eq!(client.json()["op"], "hello");
        count += 1;
    }
    count
}

#[test]
fn a_hand_over_refuses_nobody_and_everybody_goes_on_where_he_was() {
    let mut process = Process::start("", &[]);
    let address = process.address;
    let mut follower = Follower::join(address, None);
    follower.publish("first");
    follower.hear_until("first");
    follower.epoch = Follower::join(address, None).epoch;
    let stop = AtomicBool::new(false);
    let mut serving = process.id();
    std::thread::scope(|scope| {
        let connecting: Vec<_> = (0..2).map(|_| scope.spawn(|| connect_until(address, &stop))).collect();
        // The panic of a thread is the test's, and ends the others.
        let rounds = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..3 {
                assert!(signal(serving, "USR2"));
                let line = process.wait_for(" is started as process ");
                let successor = started(&line).unwrap();
                let mut last = 0;
                while let Some(frame) = follower.hear() {
                    last = frame["retry_after_ms"].as_u64().unwrap_or(last);
                }
                assert!((250..4250).contains(&last), "no `bye` came: {last}");
                process.wait_for(&format!("handed over to process {successor}"));
                follower = follower.again(address);
                let word = format!("round {round}");
                follower.publish(&word);
                follower.hear_until(&word);
                serving = successor;
            }
        }));
        stop.store(true, Ordering::Relaxed);
        for thread in connecting {
            let connected = thread.join().expect("a connection failed");
            assert!(connected > 0);
        }
        rounds.unwrap();
    });
    assert_eq!(process.own_exit_code(), Some(0));
    signal(serving, "TERM");
    process.wait_for("shut down");
}

#[test]
fn operations_under_way_are_answered_before_the_store_changes_hands_or_are_not_in_it() {
    let mut process = Process::start("", &[]);
    let mut writer = Follower::join(process.address, None);
    let mut sent = 0;
    let mut publish = |writer: &mut Follower| {
        sent += 1;
        writer.publish(&format!("op {sent}"));
    };
    (0..16).for_each(|_| publish(&mut writer));
    process.signal("USR2");
    let mut answered = std::collections::BTreeSet::new();
    while let Some(frame) = writer.hear() {
        if frame["op"] == "ok" {
            answered.insert(frame["id"].as_str().unwrap().to_owned());
            publish(&mut writer);
        }
    }
    process.wait_for("handed over to process");
    let mut again = Follower::join(process.address, None);
    for number in 1..=sent {
        let id = format!("op {number}");
        again.publish(&id);
        let answer = loop {
            let frame = again.hear().unwrap();
            if frame["id"] == *id && frame["op"] != "event" {
                break frame;
            }
        };
        assert_eq!(answer["op"], "ok", "{answer}");
        assert_eq!(answer["dup"] == true, answered.contains(&id), "{id} was stored and not answered, or the reverse");
    }
}

#[test]
fn a_successor_that_fails_changes_nothing() {
    let link = Link::to_the_program();
    let mut process = start_at(&link, "");
    let mut client = stage::connect(process.address, "/v1/echo");
    let mut still_served = |process: &mut Process, why: &str| {
        process.signal("USR2");
        let line = process.wait_for("no hand-over");
        assert!(line.contains(why), "{line}");
        client.say(why);
        assert_eq!(client.text(), why);
    };
    fs::write(process.config(), "[orgins]\n").unwrap();
    still_served(&mut process, "ended before it was ready: exit status: 2");
    fs::write(process.config(), "").unwrap();
    link.turn_to("/bin/false");
    still_served(&mut process, "ended before it was ready: exit status: 1");
    link.turn_to("/nowhere/commitcast");
    still_served(&mut process, "could not be started: No such file");

    // And when it is mended, it goes on.
    link.turn_to(PROGRAM);
    process.signal("USR2");
    process.wait_for("handed over to process");
    assert_eq!(process.own_exit_code(), Some(0));
}

#[test]
fn a_successor_that_fails_with_the_store_in_its_hand_gives_it_back() {
    let (taken, elsewhere) = listener();
    let (mut command, data) = program("[[listen]]\naddress = \"127.0.0.1:0\"\n");
    command.env("COMMITCAST_DRAIN__WINDOW", "0s");
    let mut process = Process::launch(command, data);
    process.listens();
    let before = process.address;
    let mut follower = Follower::join(before, None);
    follower.publish("before");
    follower.hear_until("before");
    // It finds out that it cannot listen there when it has the store.
    let config = format!("[[listen]]\naddress = \"127.0.0.1:0\"\n[[listen]]\naddress = \"{elsewhere}\"\n");
    fs::write(process.config(), config).unwrap();
    process.signal("USR2");
    process.wait_for("the hand-over failed, serving again");
    process.listens();
    assert_eq!(process.address, before, "the same socket");
    let mut again = Follower::join(before, None);
    assert_eq!(again.seq, 1);
    again.publish("after");
    again.hear_until("after");
    drop(taken);
    process.signal("TERM");
    assert_eq!(process.exit_code(), Some(0));
}

#[test]
fn a_signal_to_end_ends_the_successor_too() {
    let link = Link::to_the_program();
    let mut process = start_at(&link, "");
    let script = link.path.with_file_name("sleeps");
    fs::write(&script, "#!/bin/sh\nexec sleep 600\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    link.turn_to(&script);
    process.signal("USR2");
    let successor = started(&process.wait_for(" is started as process ")).unwrap();
    process.signal("TERM");
    assert_eq!(process.own_exit_code(), Some(0));
    assert!(!signal(successor, "0"), "it is left behind");
}

#[test]
fn a_successor_serves_when_its_predecessor_is_killed() {
    let mut process = Process::start("", &[]);
    process.signal("USR2");
    process.wait_for(" is started as process ");
    process.signal("KILL");
    process.listens();
    let mut client = stage::connect(process.address, "/v1/echo");
    client.say("here");
    assert_eq!(client.text(), "here");
}

/// The test as predecessor.
fn succeed_us() -> (Process, UnixStream, SocketAddr) {
    let (socket, address) = listener();
    let (wire, theirs) = UnixStream::pair().unwrap();
    wire.set_read_timeout(Some(DEADLINE)).unwrap();
    let (mut command, data) = program("");
    command.args(["--listen", &address.to_string()]);
    offer(&mut command, vec![socket.into(), theirs.into()], "listener:commitcast-handover");
    (Process::launch(command, data), wire, address)
}

fn word(wire: &mut UnixStream) -> char {
    let mut word = [0];
    wire.read_exact(&mut word).unwrap();
    word[0].into()
}

#[test]
fn a_successor_opens_the_store_only_when_it_is_told() {
    let (mut process, mut wire, address) = succeed_us();
    assert_eq!(word(&mut wire), 'r');
    assert!(!process.data.path().join("store").exists(), "it has opened the store");
    wire.write_all(b"g").unwrap();
    assert_eq!(word(&mut wire), 's');
    process.listens();
    assert_eq!(process.address, address);
}

#[test]
fn a_signal_during_the_start_ends_it_well() {
    let (mut process, mut wire, _) = succeed_us();
    assert_eq!(word(&mut wire), 'r');
    process.signal("TERM");
    assert_eq!(process.exit_code(), Some(0));
    assert!(!process.said().iter().any(|line| line.contains("listening")), "it has served: {:?}", process.said());
}

// ---- the service manager ------------------------------------------------------------------------------------------------

/// A socket such as the service manager's, and what it was told and not yet asked for.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    _home: TempDir,
}

impl Manager {
    fn new() -> Manager {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Manager { socket, path, _home: home }
    }

    /// The next message that holds the line; those before it that say something else than that it is alive.
    fn wait_for(&self, line: &str) -> Vec<String> {
        let deadline = Instant::now() + DEADLINE;
        let mut others = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(left)).unwrap();
            let mut bytes = [0; 1024];
            let length =
                self.socket.recv(&mut bytes).unwrap_or_else(|error| panic!("never `{line}` ({error}): {others:?}"));
            let message = String::from_utf8(bytes[..length].to_vec()).unwrap();
            let found = message.lines().any(|each| each == line);
            if found || message != "WATCHDOG=1\n" {
                others.push(message);
            }
            if found {
                return others;
            }
        }
    }
}

#[test]
fn the_service_manager_hears_of_everything() {
    let manager = Manager::new();
    let (mut named, data) = program("");
    named.args(["--listen", "127.0.0.1:0"]);
    // WATCHDOG_PID is the first process's; its successor must not take it for a reason to be silent.
    let mut command = Command::new("sh");
    command.args(["-c", "WATCHDOG_PID=$$ exec \"$0\" \"$@\""]).arg(named.get_program()).args(named.get_args());
    command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "400000");
    let mut process = Process::launch(command, data);
    assert_eq!(manager.wait_for("READY=1"), ["READY=1\nSTATUS=serving\n"], "ready is the first word");
    process.listens();
    assert!(TcpStream::connect(process.address).is_ok());
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }

    process.signal("HUP");
    let reloading = manager.wait_for("RELOADING=1");
    let message = reloading.last().unwrap();
    let since = message.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let age = uptime - since.parse::<f64>().unwrap() / 1e6;
    assert!((-1.0..DEADLINE.as_secs_f64()).contains(&age), "{message} at {uptime}");
    manager.wait_for("READY=1");

    process.signal("USR2");
    let successor = started(&process.wait_for(" is started as process ")).unwrap();
    let words = manager.wait_for(&format!("MAINPID={successor}"));
    assert!(words.iter().any(|word| word == "STATUS=handing over\n"), "{words:?}");
    assert_eq!(process.own_exit_code(), Some(0), "it goes when it is no longer the service");
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }
    signal(successor, "TERM");
    manager.wait_for("STOPPING=1");
}
