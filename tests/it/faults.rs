//! PROMISES.md I5 with the real program, built with failpoints: a panic that meets one connection alone closes that one
//! (1011, counted), the fourth within five seconds or any other ends the process, and nothing that was told is lost.

use serde_json::{Value, json};

use crate::stage::{self, Client, Heard, Process};

/// Of a fault of the program's own.
const EXIT_FAULT: Option<i32> = Some(70);
const ROOM: &str = "notes";
/// Whatever a client says must not be in the log, also when it is what was read in the moment of a panic.
const SECRET: &str = "canary-of-a-client";

fn start() -> Process {
    // One reactor: everybody shares it with whoever panics.
    Process::start("reactors = 1\n", &[])
}

fn connect(process: &Process) -> Client {
    let mut client = stage::connect(process.address, "/v1/connect");
    assert_eq!(client.json()["op"], "hello");
    client
}

/// A member of the room, and the head it was told.
fn member(process: &Process) -> (Client, u64) {
    let mut client = connect(process);
    client.say(json!({"op": "join", "room": ROOM}).to_string());
    let joined = client.json();
    assert_eq!(joined["op"], "joined", "{joined}");
    (client, joined["head"].as_u64().unwrap())
}

fn publish(client: &mut Client, id: &str) {
    let publish = json!({"op": "publish", "room": ROOM, "id": id, "type": "note", "data": {"id": id, "text": SECRET}});
    client.say(publish.to_string());
}

/// The next frame of this kind; a member's own event may stand before its `ok`.
fn next(client: &mut Client, op: &str) -> Value {
    loop {
        let value = client.json();
        match value["op"].as_str() {
            Some(said) if said == op => return value,
            Some("event" | "ok") => {}
            _ => panic!("{op} was expected, not {value}"),
        }
    }
}

fn stored(client: &mut Client, id: &str) -> u64 {
    publish(client, id);
    let ok = next(client, "ok");
    assert_eq!(ok["id"], id, "{ok}");
    ok["seq"].as_u64().unwrap()
}

fn arm(client: &mut Client, site: &str) {
    client.say(json!({"op": "panic", "type": site, "data": SECRET}).to_string());
}

/// For a site that the arming itself does not pass: what is done next passes it.
fn until_armed(client: &mut Client) {
    client.say(json!({"op": "ping"}).to_string());
    assert_eq!(client.json(), json!({"op": "pong"}));
}

/// The code it is closed with; `None` for a socket that ends without.
fn close_of(client: &mut Client) -> Option<u16> {
    loop {
        match client.hear() {
            Heard::Text(_) => {}
            Heard::Close(code, _) => return Some(code),
            Heard::End(_) => return None,
            other => panic!("{other:?}"),
        }
    }
}

/// Everything up to the end of the socket; whether a close frame stood before it depends on where the process ended.
fn until_the_end(client: &mut Client) -> Vec<Value> {
    let mut heard = Vec::new();
    loop {
        match client.hear() {
            Heard::Text(text) => heard.push(serde_json::from_str(&text).unwrap()),
            Heard::End(_) => return heard,
            other => panic!("{other:?} after {heard:?}"),
        }
    }
}

fn log_of_rooms(process: &Process) -> Vec<(u64, String)> {
    let answer = stage::http(process.address, "GET", &format!("/v1/rooms/{ROOM}/events?after=0&limit=500"), "");
    let events = answer.json()["events"].as_array().unwrap_or_else(|| panic!("{answer:?}")).clone();
    events
        .iter()
        .map(|event| (event["seq"].as_u64().unwrap(), event["data"]["id"].as_str().unwrap().to_owned()))
        .collect()
}

fn panics_counted(process: &Process) -> u64 {
    let metrics = stage::http(process.address, "GET", "/metrics", "").body;
    let line = metrics.lines().find_map(|line| line.strip_prefix("commitcast_handler_panics_total "));
    line.unwrap_or_else(|| panic!("{metrics}")).parse().unwrap()
}

/// The line that tells of a panic: where it was, what to do, and nothing of the client.
fn assert_told(process: &mut Process, parts: &[&str]) {
    let line = process.wait_for("panicked at src/failpoints.rs");
    for part in parts.iter().chain(&["ERROR", "a failpoint was passed", "report this line"]) {
        assert!(line.contains(part), "{part:?} is not in {line}");
    }
    assert!(!process.said().iter().any(|line| line.contains(SECRET)), "a client's words are in the log");
}

#[test]
fn a_panic_in_one_connections_handler_closes_only_that_connection() {
    let mut process = start();
    let (mut neighbour, head) = member(&process);
    assert_eq!(head, 0);
    let (mut writer, _) = member(&process);
    for round in 1..=3 {
        let (mut unlucky, _) = member(&process);
        publish(&mut unlucky, &format!("unlucky-{round}"));
        arm(&mut unlucky, "handler");
        // What was asked before is stored, whether its answer came before the close or is asked for again.
        assert_eq!(close_of(&mut unlucky), Some(1011));
        assert_told(&mut process, &["only its connection is closed"]);
        stored(&mut writer, &format!("writer-{round}"));
        assert_eq!(panics_counted(&process), round);
    }
    // The others were shown everything, in order.
    let log = log_of_rooms(&process);
    let names = (1..=3).flat_map(|round| [format!("unlucky-{round}"), format!("writer-{round}")]);
    assert_eq!(log, (1..).zip(names).collect::<Vec<_>>());
    for (seq, id) in &log {
        let event = next(&mut neighbour, "event");
        assert_eq!((event["seq"].as_u64(), event["data"]["id"].as_str()), (Some(*seq), Some(&**id)), "{event}");
    }
    // The unlucky one's counterpart comes back and has its first answer.
    let (mut back, head) = member(&process);
    assert_eq!(head, 6);
    publish(&mut back, "unlucky-1");
    let again = next(&mut back, "ok");
    assert_eq!((&again["seq"], &again["dup"]), (&json!(1), &json!(true)), "{again}");
    process.signal("TERM");
    // Both said goodbye by the drain; nobody waits for them.
    drop((neighbour, writer, back));
    assert_eq!(process.exit_code(), Some(0), "a server that outlived panics ends in order");
}

#[test]
fn a_panic_in_a_request_is_answered_with_500() {
    let mut process = start();
    let (mut neighbour, _) = member(&process);
    arm(&mut neighbour, "request");
    until_armed(&mut neighbour);
    let answer = stage::http(process.address, "GET", "/api/prompts/all", "");
    assert_eq!((answer.status, answer.header("connection")), (500, Some("close")), "{answer:?}");
    assert_eq!(answer.json()["code"], "internal", "{answer:?}");
    assert_told(&mut process, &["only its connection is closed"]);
    assert_eq!(stage::http(process.address, "GET", "/api/prompts/all", "").status, 200);
    assert_eq!(stored(&mut neighbour, "after"), 1);
    assert_eq!(panics_counted(&process), 1);
}

#[test]
fn the_fourth_panic_within_five_seconds_ends_the_process() {
    let mut process = start();
    let (mut writer, _) = member(&process);
    assert_eq!(stored(&mut writer, "before"), 1);
    for number in 1..=4 {
        let mut unlucky = connect(&process);
        arm(&mut unlucky, "handler");
        match close_of(&mut unlucky) {
            Some(1011) => {}
            // The fourth takes everybody along; its close frame may not have left.
            None if number == 4 => {}
            other => panic!("panic {number}: {other:?}"),
        }
    }
    process.wait_for("more than 3 handlers panicked within 5s; the process ends");
    assert_eq!(process.exit_code(), EXIT_FAULT);
    until_the_end(&mut writer);
    process.restart();
    assert_eq!(log_of_rooms(&process), [(1, "before".to_owned())]);
}

/// `site` panics outside a connection's own code when `trigger` is done. What was acknowledged is there after the
/// restart; what was not is there or not as `is_stored` says, and a resend is answered either way.
fn ends_the_process(site: &str, thread: &str, trigger: impl FnOnce(&Process, &mut Client), is_stored: bool) {
    let mut process = start();
    let (mut observer, _) = member(&process);
    let (mut writer, _) = member(&process);
    for number in 1..=5 {
        assert_eq!(stored(&mut writer, &format!("told-{number}")), number);
    }
    let mut armed_by = connect(&process);
    arm(&mut armed_by, site);
    if site != "reactor" {
        until_armed(&mut armed_by);
    }
    trigger(&process, &mut writer);
    assert_told(&mut process, &[&format!("the {thread}"), " thread panicked", "the process ends", "Start it again"]);
    assert_eq!(process.exit_code(), EXIT_FAULT, "{site}");
    // Nobody was shown or told anything of what was under way.
    let told = until_the_end(&mut writer);
    assert!(told.iter().all(|frame| frame["op"] == "event" && frame["seq"].as_u64() <= Some(5)), "{told:?}");
    let shown = until_the_end(&mut observer);
    let seqs: Vec<u64> = shown.iter().filter_map(|frame| frame["seq"].as_u64()).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5], "{shown:?}");

    process.restart();
    let mut expected: Vec<(u64, String)> = (1..=5).map(|number| (number, format!("told-{number}"))).collect();
    if is_stored {
        expected.push((6, "under-way".to_owned()));
    }
    assert_eq!(log_of_rooms(&process), expected, "{site}");
    let (mut back, _) = member(&process);
    publish(&mut back, "under-way");
    let ok = next(&mut back, "ok");
    assert_eq!((&ok["seq"], ok["dup"] == true), (&json!(6), is_stored), "{ok}");
}

#[test]
fn a_panic_in_shared_reactor_code_ends_the_process() {
    ends_the_process("reactor", "reactor-0", |_, _| {}, false);
}

#[test]
fn a_panicking_writer_ends_the_process_and_nothing_acknowledged_is_lost() {
    ends_the_process("uncommitted", "writer", |_, writer| publish(writer, "under-way"), false);
}

#[test]
fn a_writer_that_panics_behind_its_commit_has_told_nobody_and_lost_nothing() {
    ends_the_process("committed", "writer", |_, writer| publish(writer, "under-way"), true);
}

#[test]
fn a_panicking_reader_ends_the_process() {
    let ask = |_: &Process, writer: &mut Client| writer.say(json!({"op": "join", "room": "other"}).to_string());
    ends_the_process("reader", "reader-", ask, false);
}

#[test]
fn a_panicking_listener_ends_the_process() {
    let dial = |process: &Process, _: &mut Client| drop(std::net::TcpStream::connect(process.address));
    ends_the_process("listener", "listener", dial, false);
}
