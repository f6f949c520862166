//! Threat rows 68–84 with real processes: no descriptors, no space, no right to write, signals, kills, secrets and logs.

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use super::support::{CLOSE, DEADLINE, Reply, TEXT, Wire, bearer, frame, handshake, request, text, token};

/// What a process has said, line by line, as it says it.
#[derive(Clone, Debug, Default)]
struct Lines(Arc<(Mutex<Said>, Condvar)>);

/// The lines so far, and whether they have ended.
type Said = (Vec<String>, bool);

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> Lines {
        let lines = Lines::default();
        let ours = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                ours.with(|(said, _)| said.push(line));
            }
            ours.with(|(_, ended)| *ended = true);
        });
        lines
    }

    fn with<T>(&self, look: impl FnOnce(&mut Said) -> T) -> T {
        let result = look(&mut self.0.0.lock().expect("no reader panics"));
        self.0.1.notify_all();
        result
    }

    /// The first line that has `part`, as soon as it is there.
    fn wait_for(&self, part: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        let mut state = self.0.0.lock().expect("no reader panics");
        loop {
            if let Some(line) = state.0.iter().find(|line| line.contains(part)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!state.1 && !left.is_zero(), "no line with {part:?} in\n{}", state.0.join("\n"));
            state = self.0.1.wait_timeout(state, left).expect("no reader panics").0;
        }
    }

    /// All of it, once the process has ended.
    fn all(&self) -> String {
        let deadline = Instant::now() + DEADLINE;
        let mut state = self.0.0.lock().expect("no reader panics");
        while !state.1 && Instant::now() < deadline {
            state = self.0.1.wait_timeout(state, Duration::from_millis(100)).expect("no reader panics").0;
        }
        state.0.join("\n")
    }

    fn count(&self, part: &str) -> usize {
        self.with(|(said, _)| said.iter().filter(|line| line.contains(part)).count())
    }
}

/// The real program in a directory of its own. It is killed with its owner.
#[derive(Debug)]
struct Process {
    child: Child,
    log: Lines,
    out: Lines,
    address: Option<SocketAddr>,
}

impl Process {
    /// `shell` runs before the program takes the shell's place; `ulimit -n 64;` for one.
    fn start(home: &Path, shell: &str, arguments: &[&str]) -> Process {
        let mut child = Command::new("bash")
            .args(["-c", &format!("{shell} exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_commitcast")])
            .args(arguments)
            .current_dir(home)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program can be started");
        let log = Lines::of(child.stderr.take().expect("piped"));
        let out = Lines::of(child.stdout.take().expect("piped"));
        Process { child, log, out, address: None }
    }

    /// Started, and listening on a free port.
    fn serve(home: &Path, shell: &str, arguments: &[&str]) -> Process {
        let usual = ["--listen", "127.0.0.1:0", "--data", "data", "--reactors", "2"];
        let mut process = Process::start(home, shell, &[&usual, arguments].concat());
        let deadline = Instant::now() + DEADLINE;
        let line = loop {
            if let Some(line) = process.out.with(|(said, _)| said.first().cloned()) {
                break line;
            }
            let ended = process.child.try_wait().expect("a child");
            let late = Instant::now() > deadline;
            assert!(ended.is_none() && !late, "it does not listen ({ended:?}):\n{}", process.log.all());
            thread::yield_now();
        };
        let address = line.split("http://").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
        process.address = Some(address.unwrap_or_else(|| panic!("no address in {line:?}")));
        process
    }

    fn address(&self) -> SocketAddr {
        self.address.expect("it listens")
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("kill can be run").success(), "{name} could not be sent");
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.log.with(|(said, _)| said.join("\n")));
            thread::park_timeout(Duration::from_millis(5));
        }
    }

    fn ask(&self, method: &str, target: &str, fields: &str, body: &str) -> Reply {
        let mut wire = Wire::dial(self.address());
        wire.send(request(method, target, fields, body));
        wire.reply()
    }

    fn create(&self, directory: &str, name: &str) {
        let body = json!({"directory": directory, "name": name, "content": "0"}).to_string();
        let reply = self.ask("POST", "/api/prompts/", "", &body);
        assert_eq!(reply.status, 201, "{reply}");
    }

    fn content(&self, id: &str) -> String {
        let reply = self.ask("GET", &format!("/api/prompts/{id}"), "", "");
        reply.json()["content"].as_str().unwrap_or_else(|| panic!("{id}: {reply}")).to_owned()
    }

    fn join(&self, id: &str) -> Wire {
        let mut wire = Wire::upgrade(self.address(), &format!("/ws/prompts/{id}"), "");
        assert_eq!(wire.json()["action"], "initial");
        wire
    }

    /// Processor time it has used, of all its threads.
    fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("a running process");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        // Fields 14 and 15 of proc(5), counted behind the name; Linux fixes the unit at a hundredth of a second.
        let ticks: u64 = fields[11..=12].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn home() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn update(content: &str) -> serde_json::Value {
    json!({"action": "update", "content": content})
}

/// Waits for a fact of the outside world, such as a file.
fn until(what: &str, fact: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !fact() {
        assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}");
        thread::park_timeout(Duration::from_millis(10));
    }
}

// ---- 75: two processes -------------------------------------------------------------------------------------------------

#[test]
fn row_75_one_data_directory_serves_one_process() {
    let home = home();
    let first = Process::serve(home.path(), "", &[]);
    let mut second = Process::start(home.path(), "", &["--listen", "127.0.0.1:0", "--data", "data"]);
    let status = second.wait();
    assert_eq!(status.code(), Some(3), "{status}");
    let said = second.log.all();
    let pid = first.child.id().to_string();
    assert!(said.contains("in use") && said.contains(&pid), "it does not say who holds it ({pid}):\n{said}");
    assert_eq!(second.out.all(), "", "it said that it listens");
    assert_eq!(first.ask("GET", "/readyz", "", "").status, 200, "the first is not disturbed");
    // The lock goes with its process, however that ends.
    first.signal("KILL");
    drop(first);
    Process::serve(home.path(), "", &[]);
}

#[test]
fn a_taken_address_is_said_and_is_no_start() {
    let home = home();
    let first = Process::serve(home.path(), "", &[]);
    let address = first.address().to_string();
    let mut second = Process::start(home.path(), "", &["--listen", &address, "--data", "other"]);
    assert_eq!(second.wait().code(), Some(3));
    let said = second.log.all();
    assert!(said.contains(&address), "{said}");
}

// ---- 68: descriptors ---------------------------------------------------------------------------------------------------

/// Dials `count` clients at once; some are served, others refused, others left waiting.
fn crowd(process: &Process, count: usize) -> Vec<Wire> {
    let mut crowd: Vec<Wire> = (0..count).map(|_| Wire::dial(process.address())).collect();
    for wire in &mut crowd {
        // One that was refused already may be gone.
        let _ = wire.try_send(handshake("/v1/echo", ""));
    }
    crowd
}

fn assert_echoes(wire: &mut Wire, message: &str) {
    wire.send(text(message));
    let frame = wire.frame();
    assert_eq!((frame.first, frame.payload), (TEXT, message.as_bytes().to_vec()));
}

/// More clients than descriptors: who is in is not disturbed, nothing spins, and when some leave others come in.
fn descriptors_run_out(shell: &str) {
    let home = home();
    let mut process = Process::serve(home.path(), shell, &[]);
    let mut guests: Vec<Wire> = (0..4).map(|_| Wire::upgrade(process.address(), "/v1/echo", "")).collect();
    let began = Instant::now();
    let mut crowd = crowd(&process, 200);
    // Those who are answered at once, one way or the other.
    let (mut inside, mut refused, mut waiting) = (Vec::new(), 0, Vec::new());
    for mut wire in crowd.drain(..) {
        if !wire.hears_end_or_bytes_within(Duration::from_millis(20)) {
            waiting.push(wire);
            continue;
        }
        match wire.try_reply() {
            Ok(reply) if reply.status == 101 => inside.push(wire),
            Ok(reply) => {
                reply.assert_refused("one too many", 503, "too_many_connections");
                refused += 1;
            }
            Err(_) => refused += 1,
        }
    }
    let told = format!("{} inside, {refused} refused, {} waiting", inside.len(), waiting.len());
    assert!(refused + waiting.len() > 0, "nothing ran out: {told}");
    for (number, guest) in guests.iter_mut().chain(&mut inside).enumerate() {
        assert_echoes(guest, &format!("guest {number} of {told}"));
    }
    // An exhausted accept must not spin. A second of it, with everybody quiet.
    let used = process.processor_time();
    let quiet = guests[0].hears_within(Duration::from_secs(1));
    assert!(!quiet, "nobody said anything");
    let used = process.processor_time() - used;
    assert!(used <= Duration::from_millis(200), "{used:?} of processor time in an idle second: {told}");
    // Descriptors free: accepting resumes within the longest pause.
    drop(inside);
    drop(waiting);
    let freed = Instant::now();
    loop {
        let mut wire = Wire::dial(process.address());
        let _ = wire.try_send(handshake("/v1/echo", ""));
        if wire.try_reply().is_ok_and(|reply| reply.status == 101) {
            assert_echoes(&mut wire, "late");
            break;
        }
        assert!(freed.elapsed() < Duration::from_secs(5), "accepting does not resume: {told}");
    }
    for guest in &mut guests {
        assert_echoes(guest, "still here");
    }
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    process.signal("TERM");
    drop(guests);
    assert_eq!(process.wait().code(), Some(0), "{}", process.log.all());
}

#[test]
fn row_68_a_small_descriptor_limit_serves_as_many_as_it_can() {
    descriptors_run_out("ulimit -n 64;");
}

/// The count of connections cannot know what else holds descriptors; here half of them are taken before the start, so
/// that `accept` itself fails.
#[test]
fn row_68_accepting_survives_descriptors_that_others_took() {
    descriptors_run_out("ulimit -n 160; for n in {20..89}; do eval \"exec $n</dev/null\"; done;");
}

// ---- 72: space, and files that cannot be written -----------------------------------------------------------------------

/// An edit whose file cannot be written is saved, said to be saved, reported, tried again, and written when it can be.
/// A file stands where the directory was: no user may write below that, root included.
#[test]
fn a_read_only_directory_loses_no_edit() {
    let home = home();
    let directory = home.path().join("prompts/sub");
    fs::create_dir_all(&directory).expect("a directory");
    fs::write(directory.join("p.md"), "old").expect("a file");
    fs::write(home.path().join("c.toml"), "[documents]\ndirectories = [\"prompts\"]\n").expect("a file");
    let mut process = Process::serve(home.path(), "", &["--config", "c.toml"]);
    let mut writer = process.join("prompts/sub/p");
    let mut reader = process.join("prompts/sub/p");
    fs::rename(&directory, home.path().join("aside")).expect("moved");
    fs::write(&directory, "in the way").expect("a file");

    writer.send_json(&update("new"));
    assert_eq!(writer.json()["success"], true, "the store has it");
    assert_eq!(reader.json()["content"], "new");
    assert_eq!(process.content("prompts/sub/p"), "new");
    let line = process.log.wait_for("could not be written back");
    assert!(line.contains("prompts/sub/p.md") && line.contains("ERROR"), "{line}");
    let metrics = process.ask("GET", "/metrics", "", "").text();
    assert!(metrics.lines().any(|line| line == "commitcast_file_writes_pending 1"), "{metrics}");
    until("a second try", || process.log.count("could not be written back") >= 2);

    fs::remove_file(&directory).expect("removed");
    fs::rename(home.path().join("aside"), &directory).expect("moved back");
    let file = directory.join("p.md");
    until("the file is written", || fs::read_to_string(&file).is_ok_and(|text| text.trim_end() == "new"));

    // The same over a stop: an edit that never reached its file is brought there by the next process.
    fs::remove_dir_all(&directory).expect("removed");
    fs::write(&directory, "in the way").expect("a file");
    writer.send_json(&update("newer"));
    assert_eq!(writer.json()["success"], true);
    until("a third report", || process.log.count("could not be written back") >= 3);
    process.signal("KILL");
    process.wait();
    fs::remove_file(&directory).expect("removed");
    fs::create_dir_all(&directory).expect("a directory");
    let again = Process::serve(home.path(), "", &["--config", "c.toml"]);
    assert_eq!(again.content("prompts/sub/p"), "newer");
    until("the file is written after the restart", || {
        fs::read_to_string(&file).is_ok_and(|text| text.trim_end() == "newer")
    });
}

/// A small disk of our own; unmounted with its owner.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: PathBuf, size: &str) -> Option<Disk> {
        fs::create_dir_all(&path).expect("a directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(&path)
            .stderr(Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(Disk(path))
    }

    /// Takes all that is left.
    fn fill(&self) {
        let mut filler = fs::OpenOptions::new().create(true).append(true).open(self.0.join("filler")).expect("a file");
        for size in [64 * 1024, 4096, 1] {
            while filler.write_all(&vec![7; size]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).expect("there was a filler");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn row_72_a_full_disk_refuses_and_recovers() {
    let home = home();
    let Some(disk) = Disk::mount(home.path().join("data"), "40m") else {
        // Not a pass, and whoever runs the tests must see it: the harness holds back what `println!` says, not this.
        let _ = writeln!(std::io::stderr(), "NOT RUN: row 72, a full disk (mounting a tmpfs needs root)");
        return;
    };
    let mut process = Process::serve(home.path(), "", &[]);
    process.create("d", "p");
    let mut writer = process.join("d/p");
    let mut reader = process.join("d/p");
    let mut stored = vec!["0".to_owned()];
    let mut refused = Vec::new();
    let mut number = 0;
    for cycle in 0..3 {
        // The first refusal gives the ballast free; it is filled too, until the answer is no again.
        let mut refusals = 0;
        while refusals < 3 {
            disk.fill();
            number += 1;
            assert!(number < 2000, "a full disk refuses nothing");
            let content = format!("{cycle}.{number} {}", "x".repeat(50_000));
            writer.send_json(&update(&content));
            let answer = writer.json();
            assert_eq!(answer["action"], "update_status", "{answer}");
            if answer["success"] == true {
                stored.push(content);
            } else {
                assert!(answer["error"].as_str().is_some_and(|why| why.contains("space")), "{answer}");
                refusals += 1;
                refused.push(content);
            }
        }
        // Reading goes on, and who was there stays.
        assert_eq!(process.content("d/p"), *stored.last().expect("the first content"));
        assert_eq!(process.ask("GET", "/healthz", "", "").status, 200);
        disk.free();
        let freed = Instant::now();
        loop {
            number += 1;
            let content = format!("{cycle}.{number} again");
            writer.send_json(&update(&content));
            if writer.json()["success"] == true {
                stored.push(content);
                break;
            }
            assert!(freed.elapsed() < Duration::from_secs(5), "there is space again, and nothing is stored");
        }
    }
    // The other one was shown what is stored, all of it, in order, and nothing that was refused.
    for content in &stored[1..] {
        let seen = reader.json();
        assert!(seen["content"] == **content, "{} was expected, not {}", &content[..8], &seen.to_string()[..60]);
    }
    reader.assert_silent_and_alive("a refused edit was shown");
    assert!(refused.len() >= 9);
    process.signal("TERM");
    drop((writer, reader));
    assert_eq!(process.wait().code(), Some(0), "{}", process.log.all());
    let again = Process::serve(home.path(), "", &[]);
    assert_eq!(again.content("d/p"), *stored.last().expect("stored"));
    drop(again);
}

// ---- listeners ---------------------------------------------------------------------------------------------------------

/// CONTRACT.md 5.1: the paths that several applications have are each one's own on a listener of its own.
#[test]
fn a_listener_of_one_dialect_answers_as_its_application_did() {
    let home = home();
    let names = ["workflows", "tickets", "agents", "documents"];
    let listens = names.map(|name| format!("127.0.0.1:0={name}"));
    let arguments: Vec<&str> = listens.iter().flat_map(|listen| ["--listen", listen.as_str()]).collect();
    let process = Process::serve(home.path(), "", &arguments);
    let get = |name: &str, target: &str| {
        let line = process.out.wait_for(&format!("({name})"));
        let address = line.split("http://").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
        let mut wire = Wire::dial(address.unwrap_or_else(|| panic!("no address in {line:?}")));
        wire.send(request("GET", target, "", ""));
        wire.reply()
    };
    assert_eq!(get("tickets", "/health").text(), r#"{"status":"ok","service":"agent-sdk-webhook-server"}"#);
    let agents = r#"{"status":"healthy","version":"0.1.0","environment":"development"}"#;
    assert_eq!(get("agents", "/health").text(), agents);
    let workflows = get("workflows", "/health");
    let stamp = workflows.json()["timestamp"].as_str().expect("a timestamp").to_owned();
    let expected = format!(r#"{{"status":"healthy","version":"3.0.0","timestamp":"{stamp}","database":"connected"}}"#);
    assert_eq!(workflows.text(), expected);
    assert!(!stamp.contains(['Z', '+']), "{stamp} is not a naive time");
    assert_eq!(get("documents", "/health").json()["service"], "commitcast");
    assert_eq!(get("agents", "/").json()["name"], "Paygent");
    assert_eq!(get("tickets", "/").json()["note"], "Frontend not found");
    assert_eq!(get("documents", "/").json()["dialects"], json!(["documents"]));
    assert!(get("agents", "/api/v1/metrics").text().contains("\npaygent_websocket_connections_total "));
    assert_eq!(get("workflows", "/api/v1/metrics").status, 404);
    // And on the one that serves all of them, all of it.
    assert_eq!(process.ask("GET", "/health", "", "").json()["environment"], "debug");
    assert_eq!(process.ask("GET", "/", "", "").json()["backend"], "/v1/backend");
}

#[test]
fn a_refusal_is_replayed_without_a_server() {
    let home = home();
    let config = "[[listen]]\naddress = \"127.0.0.1:1\"\ndialects = [\"workflows\"]\n\
                  [[listen]]\naddress = \"127.0.0.1:2\"\ndialects = [\"tickets\", \"native\"]\n\
                  [auth]\nmode = \"token\"\nhs256_secret = \"at least thirty-two bytes of a secret\"\n\
                  api_keys = [{ name = \"worker\", key = \"canary4711\", rights = [\"tasks:ticket\"] }]\n";
    fs::write(home.path().join("c.toml"), config).expect("a configuration");
    for (arguments, code, expected) in [
        (&["--path", "/ws/workflow/pending?client_id=a"][..], 1, &["127.0.0.1:1 (workflows)", "401 token"][..]),
        (&["--path", "/ws"], 1, &["127.0.0.1:2 (tickets, native)", "401 token"]),
        (&["--path", "/ws/prompts/p"], 1, &["404 unknown_path"]),
        (&["--path", "/v1/connect"], 0, &["127.0.0.1:2", "accepted 101, dialect native", "nobody yet"]),
        (&["--path", "/v1/connect", "--token", "x"], 1, &["401 token"]),
        (&["--path", "/v1/backend"], 1, &["401 token", "no API key was shown", "X-API-Key"]),
        (
            &["--path", "/v1/backend", "--header", "X-API-Key: canary4711"],
            0,
            &["accepted 101", "backend  worker", "tasks:ticket"],
        ),
        (
            &["--path", "/v1/tasks?kinds=ticket", "--http", "--token", "canary4711"],
            0,
            &["request of the backend protocol", "backend  worker"],
        ),
        (&["--path", "/health", "--http"], 0, &["127.0.0.1:1", "Health([Workflows])"]),
    ] {
        let mut process = Process::start(home.path(), "", &[&["explain", "--config", "c.toml"], arguments].concat());
        let status = process.wait();
        let said = process.out.all();
        assert_eq!(status.code(), Some(code), "{arguments:?}\n{said}{}", process.log.all());
        for part in expected {
            assert!(said.contains(part), "{arguments:?} does not say {part:?}:\n{said}");
        }
        assert!(!said.contains("canary4711"), "{said}");
    }
}

// ---- configuration -----------------------------------------------------------------------------------------------------

#[test]
fn a_broken_configuration_is_refused_by_line() {
    let home = home();
    for (what, config, expected) in [
        ("no TOML", "[store\npath = 1\n", &["c.toml", "1"][..]),
        ("an unknown key", "[store]\npth = \"x\"\n", &["c.toml:2", "pth", "path"]),
        ("an unknown table", "\n\n[lmits]\nmessage = \"1MiB\"\n", &["c.toml", "lmits", "limits"]),
        ("a wrong type", "reactors = \"two\"\n", &["c.toml:1", "reactors"]),
        ("a wrong unit", "[limits]\nping = \"5 parsecs\"\n", &["c.toml:2", "ping"]),
        ("a bad origin", "[origins]\nallow = [\"https://*example.com\"]\n", &["c.toml:2", "origin"]),
        ("token mode without a key", "[auth]\nmode = \"token\"\n", &["c.toml:2", "hs256_secret"]),
        (
            "a missing key file",
            "[auth]\nmode = \"token\"\nkeys = [{ algorithm = \"RS256\", path = \"no.pem\" }]\n",
            &["no.pem"],
        ),
        ("bytes that are no text", "\u{0}\u{1}", &["c.toml"]),
    ] {
        fs::write(home.path().join("c.toml"), config).expect("a file");
        for command in
            [&["serve", "--config", "c.toml"][..], &["--config", "c.toml"], &["check-config", "--config", "c.toml"]]
        {
            let mut process = Process::start(home.path(), "", command);
            let status = process.wait();
            let said = process.log.all();
            assert_eq!(status.code(), Some(2), "{what}: {status}\n{said}");
            for part in expected {
                assert!(said.contains(part), "{what}: no {part:?} in {said}");
            }
            assert!(!said.contains("panicked"), "{what}: {said}");
        }
    }
    let mut missing = Process::start(home.path(), "", &["--config", "nowhere.toml"]);
    assert_eq!(missing.wait().code(), Some(2));
    assert!(missing.log.all().contains("nowhere.toml"), "{}", missing.log.all());
    assert!(!home.path().join("commitcast-data").exists(), "a store was made for a configuration that is refused");
}

/// A faulty file changes nothing under a running server, and is reported.
#[test]
fn a_broken_configuration_does_not_reach_a_running_server() {
    let home = home();
    let file = home.path().join("c.toml");
    fs::write(&file, "[origins]\nallow = [\"https://a.example\"]\n").expect("a file");
    let process = Process::serve(home.path(), "", &["--config", "c.toml"]);
    let from = |origin: &str| {
        process.ask("GET", "/v1/echo", &format!("Origin: {origin}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), "").status
    };
    assert_eq!((from("https://a.example"), from("https://b.example")), (101, 403));
    fs::write(&file, "[origins]\nallow = [\"https://b.example\"\n").expect("a file");
    process.signal("HUP");
    process.log.wait_for("the configuration was not changed");
    assert_eq!((from("https://a.example"), from("https://b.example")), (101, 403));
    fs::write(&file, "[origins]\nallow = [\"https://b.example\"]\n").expect("a file");
    process.signal("HUP");
    process.log.wait_for("the configuration was read again");
    assert_eq!((from("https://a.example"), from("https://b.example")), (403, 101));
}

/// A store that is no store is named, left as it is, and not started on.
#[test]
fn a_damaged_store_is_refused_and_left_alone() {
    let home = home();
    let data = home.path().join("data");
    for (what, bytes) in
        [("text", b"this is no database, but it is long enough to look at".repeat(200)), ("zeros", vec![1; 8192])]
    {
        let _ = fs::remove_dir_all(&data);
        fs::create_dir_all(&data).expect("a directory");
        let file = data.join("commitcast.sqlite");
        fs::write(&file, &bytes).expect("a file");
        let mut process = Process::start(home.path(), "", &["--listen", "127.0.0.1:0", "--data", "data"]);
        let status = process.wait();
        let said = process.log.all();
        assert_eq!(status.code(), Some(3), "{what}: {status}\n{said}");
        assert!(said.contains("commitcast.sqlite"), "{what}: {said}");
        assert_eq!(fs::read(&file).expect("still there"), bytes, "{what}: it was overwritten");
    }
    let _ = fs::remove_dir_all(&data);
    fs::write(&data, "a file").expect("a file");
    let mut process = Process::start(home.path(), "", &["--listen", "127.0.0.1:0", "--data", "data"]);
    assert_eq!(process.wait().code(), Some(3));
    assert!(process.log.all().contains("not a directory"), "{}", process.log.all());
}

// ---- 77, 84: signals and kills -----------------------------------------------------------------------------------------

/// What one writer knows when its socket has ended.
#[derive(Debug)]
struct Account {
    id: String,
    sent: u64,
    acknowledged: u64,
    close: Option<(u16, String)>,
}

/// Writes 1, 2, 3 … to its prompt, `ahead` at a time, until its socket ends.
fn write_until_the_end(mut wire: Wire, id: String, ahead: u64) -> Account {
    let mut account = Account { id, sent: 0, acknowledged: 0, close: None };
    loop {
        while account.sent < account.acknowledged + ahead {
            let next = account.sent + 1;
            if wire.try_send(text(&update(&next.to_string()).to_string())).is_err() {
                break;
            }
            account.sent = next;
        }
        match wire.try_frame() {
            Ok(frame) if frame.first == TEXT => {
                let answer: serde_json::Value = serde_json::from_slice(&frame.payload).expect("JSON");
                assert_eq!(answer["success"], true, "{account:?}: {answer}");
                account.acknowledged += 1;
            }
            Ok(frame) if frame.first == CLOSE => {
                account.close = frame.closing();
                let _ = wire.try_send(super::support::frame(CLOSE, &frame.payload));
                return account;
            }
            Ok(frame) => panic!("{account:?}: {frame:?}"),
            Err(_) => return account,
        }
    }
}

/// Eight writers at work, each with its own prompt; what happens to the process in the middle is `end`.
fn under_load(home: &Path, arguments: &[&str], end: impl FnOnce(&mut Process)) -> Vec<Account> {
    let mut process = Process::serve(home, "", arguments);
    let writers: Vec<_> = (0..8)
        .map(|number| {
            let id = format!("d/p{number}");
            if process.ask("GET", &format!("/api/prompts/{id}"), "", "").status == 404 {
                process.create("d", &format!("p{number}"));
            }
            let wire = process.join(&id);
            thread::spawn(move || write_until_the_end(wire, id, 1 + number % 4))
        })
        .collect();
    let busy = || {
        let metrics = process.ask("GET", "/metrics", "", "").text();
        let done =
            metrics.lines().find_map(|line| line.strip_prefix("commitcast_operations_total ")?.parse::<u64>().ok());
        done.is_some_and(|done| done > 200)
    };
    until("the writers are at work", busy);
    end(&mut process);
    writers.into_iter().map(|writer| writer.join().expect("a writer's own checks hold")).collect()
}

/// What was acknowledged is there; what is there was sent. A later edit may be stored without its answer having come.
fn assert_kept(home: &Path, accounts: &[Account]) {
    let process = Process::serve(home, "", &[]);
    for account in accounts {
        let found: u64 = process.content(&account.id).parse().expect("a number");
        assert!(found >= account.acknowledged, "an acknowledged edit is lost: {found} is stored, {account:?}");
        assert!(found <= account.sent, "{found} is stored and was never sent: {account:?}");
    }
}

#[test]
fn row_84_a_termination_answers_everything_and_closes_with_1012() {
    let home = home();
    fs::write(
        home.path().join("c.toml"),
        "[drain]\nwindow = \"500ms\"\ntimeout = \"10s\"\n[limits]\nmessages_per_second = 0\n",
    )
    .expect("a file");
    let mut status = None;
    let accounts = under_load(home.path(), &["--config", "c.toml"], |process| {
        process.signal("TERM");
        status = Some(process.wait());
        let said = process.log.all();
        assert!(said.contains("shut down"), "{said}");
    });
    assert_eq!(status.and_then(|status| status.code()), Some(0));
    for account in &accounts {
        assert_eq!(account.close.as_ref().map(|close| close.0), Some(1012), "{account:?}");
    }
    assert_kept(home.path(), &accounts);
}

/// Readiness turns red and nobody new comes in, while who is in is told to go one by one.
#[test]
fn row_84_a_draining_server_says_so() {
    let home = home();
    fs::write(home.path().join("c.toml"), "[drain]\nwindow = \"2s\"\ntimeout = \"10s\"\n").expect("a file");
    let mut process = Process::serve(home.path(), "", &["--config", "c.toml"]);
    process.create("d", "p");
    let clients: Vec<Wire> = (0..20).map(|_| process.join("d/p")).collect();
    // A connection from before: the listener is closed first.
    let mut probe = Wire::dial(process.address());
    probe.send(request("GET", "/readyz", "", ""));
    assert_eq!(probe.reply().status, 200);
    process.signal("TERM");
    process.log.wait_for("shutting down");
    let began = Instant::now();
    let clients: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            thread::spawn(move || {
                client.expect_restart();
                began.elapsed()
            })
        })
        .collect();
    let mut gone: Vec<Duration> = clients.into_iter().map(|client| client.join().expect("told with 1012")).collect();
    gone.sort_unstable();
    // Twenty over two seconds: a fixed spread, so both halves have some.
    let half = gone.iter().filter(|at| **at < Duration::from_secs(1)).count();
    assert!((3..=17).contains(&half), "the going is not spread over the window: {gone:?}");
    assert!(gone.last().is_some_and(|last| *last < Duration::from_secs(4)), "{gone:?}");
    drop(probe);
    assert_eq!(process.wait().code(), Some(0), "{}", process.log.all());
}

/// A storm of signals ends it once, at once, and in order; also while it starts.
#[test]
fn row_84_a_storm_of_terminations_is_one() {
    let home = home();
    fs::write(home.path().join("c.toml"), "[limits]\nmessages_per_second = 0\n").expect("a file");
    let accounts = under_load(home.path(), &["--config", "c.toml"], |process| {
        let began = Instant::now();
        for _ in 0..5 {
            process.signal("TERM");
        }
        assert_eq!(process.wait().code(), Some(0), "{}", process.log.all());
        assert!(began.elapsed() < Duration::from_secs(10), "a second signal means now: {:?}", began.elapsed());
    });
    assert_kept(home.path(), &accounts);
    for _ in 0..5 {
        let mut process = Process::start(home.path(), "", &["--listen", "127.0.0.1:0", "--data", "data"]);
        process.signal("TERM");
        process.wait();
        assert!(!process.log.all().contains("panicked"), "{}", process.log.all());
    }
    assert_kept(home.path(), &accounts);
}

#[test]
fn row_77_a_kill_takes_nothing_that_was_acknowledged() {
    let home = home();
    fs::write(home.path().join("c.toml"), "[limits]\nmessages_per_second = 0\n").expect("a file");
    for _ in 0..3 {
        let accounts = under_load(home.path(), &["--config", "c.toml"], |process| {
            process.signal("KILL");
            process.wait();
        });
        assert_kept(home.path(), &accounts);
        // The next round begins its counting again.
        let process = Process::serve(home.path(), "", &[]);
        for account in &accounts {
            let reply = process.ask("PUT", &format!("/api/prompts/{}", account.id), "", "{\"content\":\"0\"}");
            assert_eq!(reply.status, 200, "{reply}");
        }
    }
}

// ---- S6: secrets -------------------------------------------------------------------------------------------------------

/// Everything a client can say that may be a secret, at the most talkative level, in both formats.
#[test]
fn s6_no_secret_reaches_the_log() {
    const SECRET: &str = super::support::SECRET;
    let config = format!(
        "[auth]\nmode = \"token\"\nhs256_secret = \"{SECRET}\"\ncookie = \"session\"\n\
         api_keys = [{{ name = \"backend\", key = \"canary-api-key-canary\", rights = [\"*\"] }}]\n\
         [origins]\nallow = [\"https://a.example\"]\n[limits]\nmessage = \"64KiB\"\n"
    );
    for format in ["text", "json"] {
        let home = home();
        fs::write(home.path().join("c.toml"), &config).expect("a file");
        let mut process =
            Process::serve(home.path(), "", &["--config", "c.toml", "--log-level", "trace", "--log-format", format]);
        let good = token("ann", &[("*", &["read", "write"])]);
        let body = json!({"directory": "d", "name": "p", "content": "canary-content"}).to_string();
        assert_eq!(process.ask("POST", "/api/prompts/", &bearer(&good), &body).status, 201);
        let canary = "canary-bad-canary";
        let shown = |token: &str| {
            [
                (String::new(), format!("Authorization: Bearer {token}\r\n")),
                (String::new(), format!("Authorization: Basic {token}\r\n")),
                (String::new(), format!("Sec-WebSocket-Protocol: bearer.{token}\r\n")),
                (String::new(), format!("Sec-WebSocket-Protocol: v1, bearer.{token}\r\n")),
                (String::new(), format!("Origin: https://a.example\r\nCookie: a=b; session={token}\r\n")),
                (String::new(), format!("Origin: https://evil.example\r\nCookie: session={token}\r\n")),
                (String::new(), format!("X-API-Key: {token}\r\n")),
                (format!("?token={token}"), String::new()),
                (format!("?a=1&%74oken={token}&b=2"), String::new()),
                (format!("?access_token={token}"), String::new()),
                (format!("?token={token}&token={token}"), String::new()),
            ]
        };
        for (query, fields) in shown(&good).into_iter().chain(shown(canary)).chain(shown("canary-api-key-canary")) {
            for target in ["/ws/prompts/d/p", "/ws/prompts/nowhere", "/nowhere", "/api/prompts/all", "/health"] {
                let target = format!("{target}{query}");
                for request in [handshake(&target, &fields), request("GET", &target, &fields, "")] {
                    let mut wire = Wire::dial(process.address());
                    wire.send(request);
                    if wire.reply().status == 101 {
                        assert_eq!(wire.json()["action"], "initial");
                        wire.send(text(&format!(
                            "{{\"action\":\"update\",\"token\":\"{canary}\",\"content\":\"canary-content\"}}"
                        )));
                        assert_eq!(wire.json()["success"], true);
                        wire.send([text(canary), frame(CLOSE, format!("\u{3}\u{7f}{canary}").as_bytes())].concat());
                        let _ = wire.rest();
                    }
                }
            }
        }
        // Malformed: heads, and frames that hold what should have been a token.
        for head in [
            format!("{canary}\r\n\r\n"),
            format!("GET {canary} HTTP/1.1\r\nHost: a\r\n\r\n"),
            format!("GET /ws/prompts/..?token={canary} HTTP/1.1\r\nHost: a\r\n\r\n"),
            format!("GET /#{canary} HTTP/1.1\r\nHost: a\r\n\r\n"),
            format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization : Bearer {canary}\r\n\r\n"),
            format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {canary}\0\r\n\r\n"),
            format!("GET / HTTP/1.1\r\nHost: {canary}@a\r\n\r\n"),
            format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: session={canary}\r\nExpect: {canary}\r\n\r\n"),
            format!("POST /api/prompts/?token={canary} HTTP/1.1\r\nHost: a\r\nContent-Length: {canary}\r\n\r\n"),
        ] {
            let mut wire = Wire::dial(process.address());
            wire.send(head);
            wire.reply();
        }
        process.signal("TERM");
        process.signal("TERM");
        process.wait();
        let log = process.log.all();
        assert!(log.lines().count() > 100, "the log was not at work:\n{log}");
        let signature = good.rsplit('.').next().expect("a signature");
        for secret in ["canary", signature, &good[..40], SECRET] {
            let line = log.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "{secret} is in the log ({format}): {line:?}");
        }
        assert!(!process.out.all().contains("canary"), "{}", process.out.all());
    }
}
