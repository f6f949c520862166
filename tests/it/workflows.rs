//! Each row of the workflows dialect's keep-or-fix table (V1 … V15), over real sockets and HTTP and by its name.
//!
//! Also what the tests of whatever backends feed share: a server that a backend has the key to, started again on what it
//! left behind.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use commitcast::backlog::Backlog;
use commitcast::clock::{Clock, Mono, Wall};
use commitcast::config::{Flags, Settings};
use commitcast::dialect::{Env, Name};
use commitcast::directory::Directory;
use commitcast::guests::Guests;
use commitcast::listener::{Doors, Listener};
use commitcast::mailbox::{self, Mailbox};
use commitcast::metrics::Metrics;
use commitcast::reactor::poller::MioPoller;
use commitcast::reactor::{self, Control, Inbound, Reactor};
use commitcast::server::Server;
use commitcast::service::Status;
use commitcast::store::memory::MemoryStore;
use commitcast::store::reader::Reader;
use commitcast::store::worker::{self, Worker};
use commitcast::store::{Pulse, Retention};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use mio::net::TcpStream;
use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::Message;

use crate::stage::{self, Answer, Client, Heard, Process};
use crate::support::{self, DEADLINE, Wire};

/// The backend's key, with every right.
pub const BACKEND: &str =
    "[auth]\napi_keys = [{ name = \"backend\", key = \"a-key-for-the-tests-backend\", rights = [\"*\"] }]\n";
const KEY: &str = "Bearer a-key-for-the-tests-backend";

/// A server on a free loopback port that can be started again on its store. With one reactor, what one client is told
/// stands in a known order to what another is.
#[derive(Debug)]
pub struct Backed {
    server: Option<Server>,
    pub address: SocketAddr,
    data: Option<TempDir>,
}

impl Backed {
    pub fn serve() -> Backed {
        Backed::on(tempfile::tempdir().unwrap(), 1)
    }

    /// On whatever store is there.
    pub fn on(data: TempDir, reactors: usize) -> Backed {
        let settings = support::settings(BACKEND, &data.path().join("store"), reactors).unwrap();
        let server = Server::start(&settings).unwrap_or_else(|error| panic!("the server did not start: {error}"));
        Backed { address: server.addresses[0], server: Some(server), data: Some(data) }
    }

    pub fn connect(&self, path: &str) -> Client {
        stage::connect(self.address, path)
    }

    /// Ends it, clients or not, with everything that was taken on answered, and starts another one on its store.
    pub fn again(mut self) -> Backed {
        self.server.take().unwrap().stop(Duration::ZERO, DEADLINE, || false);
        Backed::on(self.data.take().unwrap(), 1)
    }
}

impl Drop for Backed {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            // The test is over, and its clients need not be polite.
            server.stop(Duration::ZERO, Duration::ZERO, || true);
        }
    }
}

/// A request with the backend's key.
pub fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> Answer {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: {KEY}\r\nConnection: close\r\n");
    stage::raw(address, &format!("{head}{length}\r\n{body}"))
}

/// A backend's event; the answer comes when it is stored.
pub fn publish(address: SocketAddr, room: &str, kind: &str, data: &str) -> Answer {
    ask(address, "POST", "/v1/publish", &format!(r#"{{"room":"{room}","type":"{kind}","data":{data}}}"#))
}

// ---- a page's socket ----------------------------------------------------------------------------------------------------

const PONG: &str = r#"{"type":"pong"}"#;

/// A socket whose welcome was read.
fn enter(address: SocketAddr, path: &str) -> Client {
    let mut client = stage::connect(address, path);
    let welcome = client.json();
    let told = (&welcome["type"], &welcome["message"]);
    assert_eq!(told, (&json!("info"), &json!("Connected to ViMax WebSocket server")), "{path}: {welcome}");
    client
}

/// A socket of workflow `w`, of this client or (empty) of nobody in particular.
fn page(address: SocketAddr, client: &str) -> Client {
    match client {
        "" => enter(address, "/ws/workflow/w"),
        id => enter(address, &format!("/ws/workflow/w?client_id={id}")),
    }
}

/// A subscriber whose confirmation was read.
fn subscriber(address: SocketAddr, topic: &str) -> Client {
    let mut client = enter(address, "/api/v1/ws/connect");
    client.say(json!({"action": "subscribe", "topic": topic}).to_string());
    assert_eq!(client.text(), format!(r#"{{"type":"info","message":"Subscribed to topic: {topic}"}}"#));
    client
}

/// Nothing stands before the pong.
fn pongs(client: &mut Client) {
    client.say(r#"{"type":"ping"}"#);
    assert_eq!(client.text(), PONG);
}

/// Stores messages `numbers` in workflow `w`.
fn say(address: SocketAddr, numbers: RangeInclusive<u64>) {
    for number in numbers {
        say_one(address, number);
    }
}

fn say_one(address: SocketAddr, number: u64) {
    let answer = publish(address, "workflow:w", "note", &format!("{{\"n\":{number}}}"));
    assert_eq!(answer.status, 201, "{number}: {answer:?}");
}

/// The numbers of the next messages, up to this one.
fn hear_until(client: &mut Client, last: u64) -> Vec<u64> {
    let mut heard = Vec::new();
    while heard.last() != Some(&last) {
        let message = client.json();
        let number = message["n"].as_u64();
        heard.push(number.unwrap_or_else(|| panic!("{heard:?}, then {message}")));
    }
    heard
}

fn numbers(numbers: RangeInclusive<u64>) -> Vec<u64> {
    numbers.collect()
}

/// Says 41, 42, … until both are here, and some more.
fn wait_for_all(here: &AtomicUsize, mut say: impl FnMut(u64)) -> Vec<u64> {
    let mut said = Vec::new();
    while here.load(Ordering::Relaxed) < 2 || said.len() < 40 {
        let n = 41 + said.len() as u64;
        assert!(n < 5000, "they do not come");
        say(n);
        said.push(n);
    }
    said
}

/// Asks until the answer is what it should be: a count follows the end of a connection, which nobody announces.
pub fn wait_for<T: Debug>(mut ask: impl FnMut() -> T, wanted: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let found = ask();
        if wanted(&found) {
            return found;
        }
        assert!(Instant::now() < deadline, "it stays at {found:?}");
        std::thread::yield_now();
    }
}

fn connections(address: SocketAddr) -> u64 {
    stage::http(address, "GET", "/api/v1/ws/stats", "").json()["total_connections"].as_u64().unwrap()
}

/// A backend on its socket, which takes tasks of these kinds.
fn backend(address: SocketAddr, kinds: &[&str]) -> Client {
    let mut client = stage::dial(address, "/v1/backend", &[("Authorization", KEY)]).unwrap();
    assert_eq!(client.json()["op"], "hello");
    client.say(json!({"op": "take", "kinds": kinds, "max": 10}).to_string());
    // The desk has heard of it when it says that somebody takes them.
    let kind = kinds[0];
    wait_for(
        || {
            client.say(r#"{"op":"status"}"#);
            client.json()
        },
        |status| status["tasks"][kind]["taken"] == true,
    );
    client
}

// ---- V1, V2, V14: coming in ---------------------------------------------------------------------------------------------

#[test]
fn v1_every_path_of_the_contract_is_served() {
    let server = Backed::serve();
    for (path, room) in [
        ("/ws/workflow/x", json!("workflow_x")),
        ("/ws/agent/x", json!("agent_x")),
        ("/ws/coordinator", json!("coordinator_metrics")),
        ("/api/v1/ws/connect", Value::Null),
    ] {
        let welcome = server.connect(path).json();
        assert_eq!(welcome["room"], room, "{path}: {welcome}");
        let keys: Vec<&String> = welcome.as_object().unwrap().keys().collect();
        assert_eq!(keys.len(), 5, "{welcome}");
    }
    let mut chat = server.connect("/api/v1/chat/ws/x");
    chat.send(Message::Ping(b"1"[..].into()));
    assert_eq!(chat.hear(), Heard::Pong(b"1".to_vec()));
}

#[test]
fn v2_pending_is_an_id_like_any_other_and_bears_many_idle_pages() {
    let server = Backed::serve();
    let mut pages: Vec<Client> = (0..100).map(|_| enter(server.address, "/ws/workflow/pending")).collect();
    let stats = stage::http(server.address, "GET", "/api/v1/ws/stats", "").json();
    assert_eq!(stats["room_client_count"], json!({"workflow_pending": 100}));
    assert_eq!(publish(server.address, "workflow:pending", "note", r#"{"n":1}"#).status, 201);
    for page in &mut pages {
        assert_eq!(hear_until(page, 1), [1]);
    }
}

#[test]
fn v14_the_welcome_comes_before_the_reply_to_an_early_ping_and_before_what_waited() {
    let server = Backed::serve();
    say(server.address, 1..=3);
    for (path, ping, pong) in [
        ("/ws/workflow/w", r#"{"type":"ping"}"#, PONG),
        ("/ws/agent/a", r#"{"type":"ping"}"#, PONG),
        ("/ws/coordinator", r#"{"type":"ping"}"#, PONG),
        ("/api/v1/ws/connect", r#"{"action":"ping"}"#, r#"{"type":"info","message":"pong"}"#),
    ] {
        let mut wire = Wire::dial(server.address);
        // In the packet of the handshake: nothing can be earlier.
        wire.send([support::handshake(path, "").into_bytes(), support::text(ping)].concat());
        wire.expect_101();
        let first = wire.json();
        assert_eq!(first["message"], "Connected to ViMax WebSocket server", "{path}: {first}");
        let expected: Value = serde_json::from_str(pong).unwrap();
        let heard: Vec<Value> = (0..if path == "/ws/workflow/w" { 4 } else { 1 }).map(|_| wire.json()).collect();
        assert_eq!(heard.iter().filter(|message| **message == expected).count(), 1, "{path}: {heard:?}");
    }
}

// ---- V3: a client id twice ----------------------------------------------------------------------------------------------

#[test]
fn v3_two_sockets_of_one_client_id_are_two_and_outlive_each_other() {
    let server = Backed::serve();
    for first_to_go in [0, 1] {
        let mut both = vec![page(server.address, "twin"), page(server.address, "twin")];
        for socket in &mut both {
            pongs(socket);
        }
        let n = 1 + first_to_go as u64 * 10;
        say(server.address, n..=n);
        for socket in &mut both {
            assert_eq!(hear_until(socket, n), [n], "each is shown it, once");
        }
        both.remove(first_to_go).leave();
        let mut left = both.pop().unwrap();
        pongs(&mut left);
        say(server.address, n + 1..=n + 1);
        assert_eq!(hear_until(&mut left, n + 1), [n + 1]);
        let client = stage::http(server.address, "GET", "/ws/client/twin", "");
        assert_eq!((client.status, &client.json()["rooms"]), (200, &json!(["workflow_w"])), "{client:?}");
        left.leave();
        wait_for(|| stage::http(server.address, "GET", "/ws/client/twin", "").status, |status| *status == 404);
    }
}

// ---- V4 … V7: nonsense --------------------------------------------------------------------------------------------------

#[test]
fn v4_nonsense_makes_no_zombie() {
    let server = Backed::serve();
    for (path, room) in
        [("/ws/workflow/w", "workflow:w"), ("/ws/agent/a", "agent:a"), ("/ws/coordinator", "coordinator")]
    {
        let mut client = enter(server.address, path);
        for nonsense in [Message::text("[]"), Message::text("7"), Message::text("null"), Message::binary(&b"\xff"[..])]
        {
            client.send(nonsense);
            assert_eq!(client.text(), r#"{"type":"error","message":"Invalid JSON format"}"#, "{path}");
        }
        pongs(&mut client);
        assert_eq!(publish(server.address, room, "note", r#"{"n":1}"#).status, 201);
        assert_eq!(hear_until(&mut client, 1), [1], "{path}: it is still in its room");
    }
}

#[test]
fn v5_agents_and_the_coordinator_ignore_what_is_not_json() {
    let server = Backed::serve();
    for path in ["/ws/agent/a", "/ws/coordinator"] {
        let mut client = enter(server.address, path);
        for nonsense in ["", "x", "{", r#"{"type":"ping"}}"#, "{'type':'ping'}"] {
            client.say(nonsense);
        }
        pongs(&mut client);
    }
    let mut page = page(server.address, "");
    page.say("{'type':'ping'}");
    assert_eq!(page.text(), r#"{"type":"error","message":"Invalid JSON format"}"#, "a workflow says so");
}

#[test]
fn v6_unknown_types_are_silence_on_the_pages_and_an_error_on_topics() {
    let server = Backed::serve();
    let unknown = r#"{"type":"subscribe","target":"workflow","id":"w","action":"nonsense"}"#;
    for path in ["/ws/workflow/w", "/ws/agent/a", "/ws/coordinator"] {
        let mut client = enter(server.address, path);
        client.say(unknown);
        client.say("{}");
        pongs(&mut client);
    }
    let mut topics = enter(server.address, "/api/v1/ws/connect");
    topics.say(unknown);
    assert_eq!(topics.text(), r#"{"type":"error","message":"Unknown action: nonsense"}"#);
}

#[test]
fn v7_topics_answer_a_ping_with_an_info() {
    let server = Backed::serve();
    let mut topics = enter(server.address, "/api/v1/ws/connect");
    topics.say(r#"{"action":"ping","type":"ping"}"#);
    assert_eq!(topics.text(), r#"{"type":"info","message":"pong"}"#);
}

// ---- V8: what waits for absent clients ----------------------------------------------------------------------------------

#[test]
fn v8_a_returning_client_gets_what_it_missed_once_and_in_order_and_then_what_is_new() {
    let server = Backed::serve();
    let mut client = page(server.address, "c");
    say(server.address, 1..=2);
    assert_eq!(hear_until(&mut client, 2), [1, 2]);
    client.leave();
    say(server.address, 3..=5);
    let mut client = page(server.address, "c");
    say(server.address, 6..=6);
    assert_eq!(hear_until(&mut client, 6), [3, 4, 5, 6]);
    client.leave();
    let mut client = page(server.address, "c");
    say(server.address, 7..=7);
    assert_eq!(hear_until(&mut client, 7), [7], "nothing twice");
}

/// A reload: the old connection ends and the new one comes within the same millisecond, on another core.
#[test]
fn v8_a_client_that_comes_back_at_once_is_shown_nothing_twice_and_misses_nothing() {
    let server = Backed::on(tempfile::tempdir().unwrap(), 2);
    let mut client = page(server.address, "c");
    for n in 1..=30 {
        say(server.address, n..=n);
        assert_eq!(hear_until(&mut client, n), [n]);
        if n % 2 == 0 {
            client.leave();
        } else {
            drop(client);
        }
        client = page(server.address, "c");
    }
}

#[test]
fn v8_of_sixty_that_were_missed_the_last_fifty_wait() {
    for id in ["c", ""] {
        let server = Backed::serve();
        let mut client = page(server.address, id);
        say(server.address, 1..=1);
        assert_eq!(hear_until(&mut client, 1), [1]);
        client.leave();
        say(server.address, 2..=61);
        assert_eq!(hear_until(&mut page(server.address, id), 61), numbers(12..=61), "client {id:?}");
    }
}

#[test]
fn v8_what_waits_survives_a_restart_and_is_shown_once() {
    let server = Backed::serve();
    let mut client = page(server.address, "c");
    say(server.address, 1..=2);
    assert_eq!(hear_until(&mut client, 2), [1, 2]);
    client.leave();
    say(server.address, 3..=4);
    let server = server.again();
    let mut anybody = page(server.address, "");
    say(server.address, 5..=5);
    assert_eq!(hear_until(&mut anybody, 5), [3, 4, 5], "nobody had had 3 and 4");
    let mut client = page(server.address, "c");
    say(server.address, 6..=6);
    assert_eq!(hear_until(&mut client, 6), [3, 4, 5, 6], "and c has not, whoever else has");
    assert_eq!(hear_until(&mut anybody, 6), [6]);
    let server = server.again();
    let (mut client, mut anybody) = (page(server.address, "c"), page(server.address, ""));
    say(server.address, 7..=7);
    assert_eq!(hear_until(&mut client, 7), [7], "both were there when 6 was said");
    assert_eq!(hear_until(&mut anybody, 7), [7]);
}

#[test]
fn v8_a_client_without_an_id_gets_what_nobody_has_had() {
    let server = Backed::serve();
    say(server.address, 1..=3);
    let mut first = page(server.address, "");
    assert_eq!(hear_until(&mut first, 3), [1, 2, 3]);
    first.leave();
    let mut second = page(server.address, "");
    say(server.address, 4..=4);
    assert_eq!(hear_until(&mut second, 4), [4], "it was had");
    second.leave();
    say(server.address, 5..=5);
    let mut known = page(server.address, "known");
    assert_eq!(hear_until(&mut known, 5), [5]);
    known.leave();
    let mut third = page(server.address, "");
    say(server.address, 6..=6);
    assert_eq!(hear_until(&mut third, 6), [6], "somebody with an id had 5");
}

/// The one before is still there, and what it was shown was not yet written down.
#[test]
fn v8_what_a_page_has_just_been_shown_live_nobody_else_waits_for() {
    let server = Backed::serve();
    for there in ["", "known"] {
        let mut there = page(server.address, there);
        say(server.address, 1..=3);
        hear_until(&mut there, 3);
        let mut new = page(server.address, "");
        say(server.address, 4..=4);
        assert_eq!(hear_until(&mut new, 4), [4], "1, 2 and 3 somebody has had");
        hear_until(&mut there, 4);
        there.leave();
        new.leave();
    }
}

#[test]
fn v8_of_two_pages_that_race_one_gets_what_waited() {
    let server = Backed::on(tempfile::tempdir().unwrap(), 2);
    for round in 0..10 {
        let from = 1 + round * 10;
        say(server.address, from..=from + 4);
        let come = || page(server.address, "");
        let mut pages = stage::side_by_side::<Client>(vec![Box::new(come), Box::new(come)]);
        say(server.address, from + 5..=from + 5);
        let mut heard: Vec<Vec<u64>> = pages.iter_mut().map(|page| hear_until(page, from + 5)).collect();
        heard.sort();
        assert_eq!(heard, [numbers(from..=from + 5), vec![from + 5]], "round {round}");
        for page in pages {
            page.leave();
        }
        wait_for(|| connections(server.address), |count| *count == 0);
    }
}

#[test]
fn v8_what_waited_and_what_is_live_come_in_one_order() {
    let server = Backed::on(tempfile::tempdir().unwrap(), 2);
    let address = server.address;
    let mut client = page(address, "c");
    say(address, 1..=1);
    assert_eq!(hear_until(&mut client, 1), [1]);
    client.leave();
    say(address, 2..=40);
    // Somebody speaks all the while that they come.
    let here = AtomicUsize::new(0);
    let come = |id| {
        let mut client = page(address, id);
        here.fetch_add(1, Ordering::Relaxed);
        let mut heard = hear_until(&mut client, u64::MAX);
        heard.pop();
        heard
    };
    let mut heard = stage::side_by_side::<Vec<u64>>(vec![
        Box::new(|| {
            let said = wait_for_all(&here, |n| say_one(address, n));
            say_one(address, u64::MAX);
            said
        }),
        Box::new(|| come("c")),
        Box::new(|| come("")),
    ]);
    let last = heard.remove(0).pop().unwrap();
    for (id, heard) in ["c", ""].iter().zip(heard) {
        let first = heard[0];
        assert_eq!(heard, numbers(first..=last), "client {id:?}: contiguous and in order, nothing twice");
        assert!(first == 2 || (*id).is_empty() || heard.len() >= 50, "client {id:?} begins with {first} of {last}");
    }
}

#[test]
fn v8_a_killed_server_repeats_at_most_what_it_had_not_written_down_and_loses_nothing() {
    let mut process = Process::start(BACKEND, &[]);
    let mut client = page(process.address, "c");
    say(process.address, 1..=3);
    assert_eq!(hear_until(&mut client, 3), [1, 2, 3]);
    client.leave();
    // The next to come is answered behind what the one before left.
    page(process.address, "other").leave();
    say(process.address, 4..=5);
    let mut client = page(process.address, "c");
    assert_eq!(hear_until(&mut client, 5), [4, 5]);
    process.signal("KILL");
    assert_eq!(process.exit_code(), None, "killed");
    let data = tempfile::tempdir().unwrap();
    std::fs::rename(process.data.path().join("store"), data.path().join("store")).unwrap();
    let server = Backed::on(data, 1);
    say(server.address, 6..=6);
    let mut client = page(server.address, "c");
    let heard = hear_until(&mut client, 6);
    assert!([6, 5, 4].contains(&heard[0]), "1 to 3 were written down when it left: {heard:?}");
    assert_eq!(heard, numbers(heard[0]..=6), "nothing is missing");
}

#[test]
fn v8_a_topic_shows_its_last_hundred_in_order_while_it_goes_on() {
    let server = Backed::on(tempfile::tempdir().unwrap(), 2);
    let address = server.address;
    let speak = |range: RangeInclusive<u64>| {
        for n in range {
            let answer = stage::http(address, "POST", "/api/v1/ws/publish/t", &format!("{{\"n\":{n}}}"));
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    };
    speak(1..=130);
    let mut heard = stage::side_by_side::<Vec<u64>>(vec![
        Box::new(|| {
            speak(131..=200);
            Vec::new()
        }),
        Box::new(|| {
            let mut client = subscriber(address, "t");
            let told = client.json();
            assert_eq!(told["message"], "Sending 100 historical messages for topic: t", "{told}");
            hear_until(&mut client, 200)
        }),
    ]);
    let heard = heard.pop().unwrap();
    assert!(heard[0] >= 31, "a hundred, not more: {}", heard[0]);
    assert!(heard.len() >= 100, "{}", heard.len());
    assert_eq!(heard, numbers(heard[0]..=200), "contiguous and in order, nothing twice");
    drop(subscriber(address, "other"));
    let server = server.again();
    let mut late = subscriber(server.address, "t");
    assert_eq!(late.json()["message"], "Sending 100 historical messages for topic: t");
    assert_eq!(hear_until(&mut late, 200), numbers(101..=200), "after a restart, too");
}

// ---- V9 … V11: metrics, control, agents ---------------------------------------------------------------------------------

#[test]
fn v9_the_monitor_gets_metrics_flat_and_nested_and_whole_cards() {
    let server = Backed::serve();
    let mut monitor = enter(server.address, "/ws/coordinator");
    let mut agent = enter(server.address, "/ws/agent/writer");
    let flat = r#"{"total_workflows":7,"active_workflows":2,"completed_workflows":4,"failed_workflows":1,"registered_agents":1}"#;
    publish(server.address, "coordinator", "coordinator_metrics", flat);
    let told = monitor.json();
    assert_eq!(told["type"], "coordinator_metrics");
    assert_eq!(
        (&told["total_workflows"], &told["active_workflows"], &told["queue_size"]),
        (&json!(7), &json!(2), &json!(0))
    );
    let nested = json!({"total_agents": 1, "active_workflows": 2, "completed_workflows": 4, "failed_workflows": 1, "agents": []});
    assert_eq!(told["metrics"], nested);
    // Each change of an agent is a fresh frame on the monitor, which listens to nothing else.
    for (status, done) in [("busy", 1), ("idle", 2)] {
        let said = json!({"status": status, "metrics": {"tasks_completed": done}, "currentTask": "t"}).to_string();
        publish(server.address, "agent:writer", "agent_status", &said);
        assert_eq!(agent.json()["status"], status);
        let told = monitor.json();
        let cards = told["metrics"]["agents"].as_array().unwrap();
        assert_eq!(cards.len(), 1, "{told}");
        let card = &cards[0];
        assert_eq!(
            (&card["name"], &card["status"], &card["currentTask"]),
            (&json!("writer"), &json!(status), &json!("t"))
        );
        assert!(card["capabilities"].is_array() && card["lastUpdate"].is_string(), "{card}");
        let metrics = json!({"tasks_completed": done, "tasks_failed": 0, "avg_response_time": 0, "uptime": 0});
        assert_eq!(card["metrics"], metrics);
        assert_eq!(told["metrics"]["active_workflows"], 2, "what the coordinator said stays: {told}");
    }
    // Who comes, and who asks, is told the newest.
    let mut second = enter(server.address, "/ws/coordinator");
    let first = second.json();
    second.say(r#"{"type":"get_metrics"}"#);
    let asked = second.json();
    assert_eq!(first, asked);
    assert_eq!(first["metrics"]["agents"][0]["status"], "idle");
}

#[test]
fn v10_control_is_refused_without_a_backend_and_reaches_one_that_is_there() {
    let server = Backed::serve();
    let mut page = page(server.address, "c");
    let mut control = |action: &str| {
        page.say(json!({"type": "control", "action": action}).to_string());
        page.text()
    };
    let absent = r#"{"type":"error","message":"Coordinator not available"}"#;
    for action in ["cancel", "pause", "resume", "zz"] {
        assert_eq!(control(action), absent);
    }
    let mut backend = backend(server.address, &["control"]);
    let unknown = r#"{"type":"error","message":"Control action failed: Workflow 'w' not found"}"#;
    assert_eq!(control("cancel"), unknown, "nobody has ever spoken of it");
    for (action, expected) in [
        (
            "pause",
            r#"{"type":"control_response","action":"pause","status":"not_implemented","message":"Pause functionality not yet implemented"}"#,
        ),
        (
            "resume",
            r#"{"type":"control_response","action":"resume","status":"not_implemented","message":"Resume functionality not yet implemented"}"#,
        ),
        ("zz", r#"{"type":"error","message":"Unknown action: zz"}"#),
    ] {
        assert_eq!(control(action), expected);
    }
    let answer = publish(server.address, "workflow:w", "progress", r#"{"progress":0.1}"#);
    assert_eq!(answer.status, 201);
    page.say(r#"{"type":"control","action":"cancel"}"#);
    assert_eq!(page.json()["type"], "progress");
    let expected =
        r#"{"type":"control_response","action":"cancel","status":"success","message":"Workflow w cancelled"}"#;
    assert_eq!(page.text(), expected);
    let actions: Vec<Value> = (0..3)
        .map(|_| {
            let task = backend.json();
            assert_eq!(
                (&task["op"], &task["kind"], &task["room"]),
                (&json!("task"), &json!("control"), &json!("workflow:w"))
            );
            assert_eq!(task["data"]["workflow_id"], "w", "{task}");
            task["data"]["action"].clone()
        })
        .collect();
    assert_eq!(actions, ["pause", "resume", "cancel"], "in the order in which they were said");
    // Gone again, and the page is told as before.
    backend.leave();
    wait_for(
        || {
            page.say(r#"{"type":"control","action":"pause"}"#);
            page.text()
        },
        |reply| reply == absent,
    );
}

#[test]
fn v10_with_a_backend_there_a_page_is_told_the_state_after_its_welcome() {
    let server = Backed::serve();
    let backend = backend(server.address, &["control"]);
    let mut new = page(server.address, "");
    let pending =
        r#"{"type":"status","workflow_id":"w","status":{"state":"pending","message":"Workflow not started yet"}}"#;
    assert_eq!(new.text(), pending);
    let mut agent = enter(server.address, "/ws/agent/nobody");
    pongs(&mut agent);
    let mut monitor = enter(server.address, "/ws/coordinator");
    let zero = monitor.text();
    let flat = r#"{"type":"coordinator_metrics","total_messages":0,"total_workflows":0,"registered_agents":0,"healthy_agents":0,"active_workflows":0,"queue_size":0,"dead_letters":0,"#;
    assert!(zero.starts_with(flat), "{zero}");
    publish(server.address, "workflow:w", "progress", r#"{"progress":0.2,"state":"running"}"#);
    publish(server.address, "topic:episode.w.video", "progress", r#"{"percentage":0.5}"#);
    assert_eq!((&new.json()["progress"], &new.json()["progress"]), (&json!(0.2), &json!(0.5)));
    new.leave();
    let mut back = page(server.address, "");
    let status = back.json();
    assert_eq!((&status["type"], &status["workflow_id"]), (&json!("status"), &json!("w")));
    let keys: BTreeSet<&str> = status["status"].as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "workflow_id",
        "state",
        "progress",
        "started_at",
        "completed_at",
        "duration",
        "task_states",
        "completed_tasks",
        "failed_tasks",
        "errors",
    ];
    assert_eq!(keys, BTreeSet::from(expected), "{status}");
    assert_eq!((&status["status"]["state"], &status["status"]["progress"]), (&json!("running"), &json!(0.5)));
    backend.leave();
}

#[test]
fn v11_an_agent_that_reports_its_metrics_stalls_nobody() {
    let server = Backed::serve();
    let mut watchers: Vec<Client> = (0..3).map(|_| enter(server.address, "/ws/agent/writer")).collect();
    for n in 0..20 {
        let said = json!({"status": "busy", "metrics": {"tasks_completed": n}}).to_string();
        assert_eq!(publish(server.address, "agent:writer", "agent_status", &said).status, 201);
    }
    for watcher in &mut watchers {
        // The newest counts, and those before may be left out.
        let last = wait_for(|| watcher.json(), |told| told["metrics"]["tasks_completed"] == 19);
        assert_eq!((&last["type"], &last["status"]), (&json!("agent_status"), &json!("busy")), "here a word: {last}");
        pongs(watcher);
    }
    let mut late = enter(server.address, "/ws/agent/writer");
    let told = late.json();
    assert_eq!((&told["type"], &told["agent_name"]), (&json!("agent_status"), &json!("writer")));
    let status = &told["status"];
    assert_eq!((&status["name"], &status["status"]), (&json!("writer"), &json!("busy")), "here an object: {told}");
    assert!(status["registered_at"].is_string() && status["metrics"]["tasks_completed"] == 19, "{told}");
}

#[test]
fn v9_a_card_that_the_coordinator_s_program_names_is_whole_too() {
    let server = Backed::serve();
    let mut monitor = enter(server.address, "/ws/coordinator");
    publish(server.address, "coordinator", "coordinator_metrics", r#"{"agents":[{"name":"w"}]}"#);
    let told = monitor.json();
    let card = &told["metrics"]["agents"][0];
    assert_eq!((&card["name"], &card["status"], &card["capabilities"]), (&json!("w"), &json!("idle"), &json!([])));
    assert_eq!(card["lastUpdate"], told["timestamp"], "the page makes a date of it: {told}");
}

// ---- V12, V13: who publishes --------------------------------------------------------------------------------------------

#[test]
fn v12_broadcast_and_publish_are_open_on_loopback_and_need_a_token_in_token_mode() {
    let server = Backed::serve();
    for path in ["/api/v1/ws/broadcast", "/api/v1/ws/publish/t"] {
        assert_eq!(stage::http(server.address, "POST", path, r#"{"a":1}"#).status, 200, "{path}");
    }
    let house = support::House::open(&format!("[auth]\nmode = \"token\"\nhs256_secret = \"{}\"\n", support::SECRET));
    let may = support::token("ann", &[("workflows", &["write"]), ("topic:*", &["write"])]);
    let may_not = support::token("bob", &[("workflows", &["read"]), ("topic:*", &["read"])]);
    for path in ["/api/v1/ws/broadcast", "/api/v1/ws/publish/t"] {
        assert_eq!(house.ask("POST", path, "", r#"{"a":1}"#).status, 401, "{path}: nobody");
        assert_eq!(house.ask("POST", path, &support::bearer(&may_not), r#"{"a":1}"#).status, 403, "{path}: a reader");
        assert_eq!(house.ask("POST", path, &support::bearer(&may), r#"{"a":1}"#).status, 200, "{path}: a writer");
    }
    assert_eq!(house.get("/ws/stats").status, 401);
}

#[test]
fn v12_a_broadcast_reaches_every_page_byte_for_byte() {
    let server = Backed::on(tempfile::tempdir().unwrap(), 2);
    let mut all: Vec<Client> = ["/ws/workflow/a", "/ws/workflow/b?client_id=x", "/ws/agent/a", "/ws/coordinator"]
        .into_iter()
        .map(|path| enter(server.address, path))
        .collect();
    all.push(subscriber(server.address, "t"));
    let body = "{ \"z\" :1,\t\"a\": [1.50, 1e3, \"\\u00e9é\"], \"z\":2 }";
    let answer = stage::http(server.address, "POST", "/api/v1/ws/broadcast", body);
    assert_eq!((answer.status, &*answer.body), (200, r#"{"message":"Broadcast sent","recipients":5}"#));
    for client in &mut all {
        assert_eq!(client.text(), body);
    }
}

#[test]
fn v13_whoever_publishes_reaches_the_same_rooms_in_one_order() {
    let server = Backed::serve();
    let address = server.address;
    let mut listeners = [subscriber(address, "episode/7"), subscriber(address, "episode/7")];
    let mut program = backend(address, &["control"]);
    let paths = ["/api/v1/ws/publish/episode/7", "/api/v1/ws/publish/episode%2F7"];
    for n in 0..12 {
        let body = format!("{{\"type\":\"note\",\"n\":{n}}}");
        match n % 3 {
            2 => {
                program.say(format!(
                    r#"{{"op":"publish","id":"p{n}","room":"topic:episode/7","type":"note","data":{body}}}"#
                ));
                assert_eq!(program.json()["op"], "ok");
            }
            by => {
                let answer = stage::http(address, "POST", paths[by], &body);
                let expected = r#"{"message":"Message published","topic":"episode/7","subscribers":2}"#;
                assert_eq!((answer.status, &*answer.body), (200, expected), "a slash is part of the topic");
            }
        }
    }
    for listener in &mut listeners {
        assert_eq!(hear_until(listener, 11), numbers(0..=11));
    }
}

#[test]
fn v13_a_stage_of_an_episode_is_progress_of_its_workflow() {
    let server = Backed::serve();
    let address = server.address;
    let mut page = enter(address, "/ws/workflow/7");
    let mut topic = subscriber(address, "episode.7.outline");
    let post = |topic: &str, body: &str| {
        let answer = stage::http(address, "POST", &format!("/api/v1/ws/publish/{topic}"), body);
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    post("episode.7.outline", r#"{"type":"progress","percentage":0.4,"message":"m","details":{"a":1}}"#);
    let told = page.json();
    let expected = json!({
        "type": "progress", "workflow_id": "7", "timestamp": told["timestamp"], "state": "running", "progress": 0.4,
        "stage": "outline", "message": "m", "details": {"a": 1}
    });
    assert_eq!(told, expected);
    assert_eq!(topic.json()["percentage"], 0.4, "the topic's own subscribers have it as it was said");
    // By a backend, too; a stage's error is the workflow's, and what is said of one scene is not.
    publish(address, "topic:episode.7.scene.3", "complete", r#"{"message":"a scene"}"#);
    publish(address, "topic:episode.8.video", "progress", r#"{"percentage":0.9}"#);
    publish(address, "topic:other", "progress", r#"{"percentage":0.9}"#);
    publish(address, "topic:episode.7.video", "error", r#"{"message":"no"}"#);
    let told = page.json();
    assert_eq!((&told["state"], &told["stage"], &told["message"]), (&json!("failed"), &json!("video"), &json!("no")));
    publish(address, "topic:episode.7.video", "complete", r#"{"message":"done"}"#);
    let told = page.json();
    assert_eq!((&told["state"], &told["progress"]), (&json!("completed"), &json!(1.0)));
    // A page that was away finds it waiting.
    page.leave();
    post("episode.7.video", r#"{"type":"progress","percentage":0.7}"#);
    let mut page = enter(address, "/ws/workflow/7");
    let told = wait_for(|| page.json(), |told| told["type"] == "progress");
    assert_eq!((&told["progress"], &told["stage"]), (&json!(0.7), &json!("video")));
}

#[test]
fn v13_rooms_that_no_page_joins_have_their_shapes() {
    let server = Backed::serve();
    for (room, kind, given, expected) in [
        (
            "compilation:j1",
            "compilation_progress",
            r#"{"status":"running","progress":50,"message":"m"}"#,
            json!({"type": "compilation_progress", "job_id": "j1", "status": "running", "progress": 50, "message": "m"}),
        ),
        (
            "segment:s1",
            "segment_progress",
            r#"{"status":"done","progress":100,"message":"m"}"#,
            json!({"type": "segment_progress", "segment_id": "s1", "status": "done", "progress": 100, "message": "m"}),
        ),
        (
            "segments",
            "segment_progress",
            r#"{"segment_id":"s2","status":"done"}"#,
            json!({"type": "segment_progress", "segment_id": "s2", "status": "done", "progress": 0, "message": ""}),
        ),
    ] {
        assert_eq!(publish(server.address, room, kind, given).status, 201);
        let page = ask(server.address, "GET", &format!("/v1/rooms/{room}/events?after=0&limit=10"), "").json();
        let mut data = page["events"][0]["data"].clone();
        let stamp = data.as_object_mut().unwrap().remove("timestamp");
        assert!(stamp.is_some_and(|stamp| stamp.is_string()), "{page}");
        assert_eq!(data, expected);
    }
}

#[test]
fn v13_a_page_s_chat_message_is_a_task_and_the_answer_comes_back() {
    let server = Backed::serve();
    let mut program = backend(server.address, &["chat"]);
    let mut chat = server.connect("/api/v1/chat/ws/t1");
    for ignored in [r#"{"message":""}"#, r#"{"temperature":1}"#] {
        chat.say(ignored);
    }
    chat.say(r#"{"message":"hé","temperature":0.3}"#);
    let task = program.json();
    let given = (&task["kind"], &task["data"]["thread_id"], &task["data"]["message"], &task["data"]["temperature"]);
    assert_eq!(given, (&json!("chat"), &json!("t1"), &json!("hé"), &json!(0.3)), "{task}");
    for (n, (kind, data)) in
        [("chunk", r#"{"content":"a"}"#), ("chunk", r#"{"content":"b"}"#), ("done", "{}")].iter().enumerate()
    {
        program.say(format!(r#"{{"op":"publish","id":"{n}","room":"chat:t1","type":"{kind}","data":{data}}}"#));
        assert_eq!(program.json()["op"], "ok");
    }
    let heard: Vec<String> = (0..3).map(|_| chat.text()).collect();
    assert_eq!(heard, [r#"{"type":"chunk","content":"a"}"#, r#"{"type":"chunk","content":"b"}"#, r#"{"type":"done"}"#]);
}

// ---- V15: times ---------------------------------------------------------------------------------------------------------

#[test]
fn v15_times_are_utc_and_do_not_say_so() {
    let server = Backed::serve();
    let before = Timestamp::now();
    let mut page = server.connect("/ws/workflow/w");
    let welcome = page.json();
    publish(server.address, "workflow:w", "progress", "{}");
    let progress = page.json();
    for message in [welcome, progress] {
        let stamp = message["timestamp"].as_str().unwrap();
        assert!(!stamp.ends_with('Z') && !stamp.contains('+'), "{stamp}");
        let at = stamp.parse::<DateTime>().unwrap().to_zoned(TimeZone::UTC).unwrap().timestamp();
        // The form has microseconds, the clock more.
        let age = at.duration_since(before);
        assert!(age.as_secs_f64() > -0.001 && age.as_secs() < 60, "{stamp}, asked at {before}");
    }
}

// ---- counts, listeners --------------------------------------------------------------------------------------------------

#[test]
fn v3_v4_stats_are_true_after_nonsense_and_cut_connections() {
    let server = Backed::on(tempfile::tempdir().unwrap(), 2);
    let mut all: Vec<Client> = (0..10).map(|_| page(server.address, "same")).collect();
    for client in &mut all {
        client.send(Message::binary(&b"\0"[..]));
        assert_eq!(client.json()["type"], "error");
    }
    assert_eq!(connections(server.address), 10);
    // Cut, without a close frame.
    all.truncate(4);
    wait_for(|| connections(server.address), |count| *count == 4);
    let stats = stage::http(server.address, "GET", "/api/v1/ws/stats", "").json();
    assert_eq!(stats["room_client_count"], json!({"workflow_w": 4}));
    let broadcast = stage::http(server.address, "POST", "/api/v1/ws/broadcast", r#"{"type":"x"}"#);
    assert_eq!(broadcast.json()["recipients"], 4);
    drop(all);
    wait_for(|| connections(server.address), |count| *count == 0);
    let stats = stage::http(server.address, "GET", "/api/v1/ws/stats", "").json();
    assert_eq!((&stats["total_rooms"], &stats["rooms"]), (&json!(0), &json!([])));
}

#[test]
fn a_listener_of_workflows_alone_serves_nothing_else() {
    let listener = Listening::to("workflows");
    for path in
        ["/ws", "/ws/logs", "/ws/prompts/x", "/api/v1/ws?session_id=x", "/v1/connect", "/v1/backend", "/api/ws/test"]
    {
        let refused = stage::dial(listener.address, path, &[]).expect_err(path);
        assert_eq!((refused.status, refused.header("x-ws-reject")), (404, Some("unknown_path")), "{path}: {refused:?}");
    }
    for (method, path) in
        [("POST", "/tickets/create"), ("GET", "/api/prompts/all"), ("GET", "/jobs/x"), ("POST", "/v1/publish")]
    {
        assert_eq!(stage::http(listener.address, method, path, "").status, 404, "{path}");
    }
    let health = stage::http(listener.address, "GET", "/health", "");
    let body = health.json();
    let stamp = body["timestamp"].as_str().unwrap();
    let expected = format!(r#"{{"status":"healthy","version":"3.0.0","timestamp":"{stamp}","database":"connected"}}"#);
    assert_eq!((health.status, health.body), (200, expected.clone()));
    assert!(stamp.parse::<DateTime>().is_ok() && !stamp.ends_with('Z'), "naive: {stamp}");
    pongs(&mut enter(listener.address, "/ws/workflow/x"));
}

/// A server whose one listener serves one dialect.
pub struct Listening {
    server: Option<Server>,
    pub address: SocketAddr,
    _data: TempDir,
}

impl Listening {
    pub fn to(dialect: &str) -> Listening {
        let data = tempfile::tempdir().unwrap();
        let flags = Flags {
            listen: vec![format!("127.0.0.1:0={dialect}")],
            data: Some(data.path().join("store")),
            reactors: Some(1),
            ..Flags::default()
        };
        let settings =
            Settings::build(&flags, std::iter::empty(), |_| Err(std::io::ErrorKind::NotFound.into())).unwrap();
        let server = Server::start(&settings).unwrap_or_else(|error| panic!("the server did not start: {error}"));
        Listening { address: server.addresses[0], server: Some(server), _data: data }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop(Duration::ZERO, Duration::ZERO, || true);
        }
    }
}

// ---- heartbeats ---------------------------------------------------------------------------------------------------------

/// Thirty seconds are long: here the time of the server is the test's.
#[test]
fn a_heartbeat_comes_every_thirty_seconds_to_everybody_but_chats() {
    /// Never so long that somebody is taken for dead, and no divisor of thirty: the server looks at its watch in ticks.
    const STEP: Duration = Duration::from_millis(5100);
    let house = Timed::serve();
    let paths = ["/ws/workflow/w", "/ws/agent/a", "/ws/coordinator", "/api/v1/ws/connect"];
    let mut all: Vec<Client> = paths.iter().map(|path| enter(house.address, path)).collect();
    let mut chat = stage::connect(house.address, "/api/v1/chat/ws/t");
    let look = |all: &mut Vec<Client>, chat: &mut Client| {
        house.clock.advance(STEP);
        // Whoever is spoken to looks at its watch.
        let mut told = Vec::new();
        for client in all.iter_mut().chain([chat]) {
            client.send(Message::Ping(b"now"[..].into()));
            let mut before = Vec::new();
            loop {
                match client.hear() {
                    Heard::Pong(_) => break,
                    Heard::Text(text) => before.push(text),
                    other => panic!("{other:?}"),
                }
            }
            told.push(before);
        }
        told
    };
    let beats = |told: &[Vec<String>]| told.iter().map(Vec::len).collect::<Vec<usize>>();
    let mut heard = Vec::new();
    let mut total = [0; 5];
    for step in 1..=19 {
        let told = look(&mut all, &mut chat);
        for (sum, more) in total.iter_mut().zip(beats(&told)) {
            *sum += more;
        }
        heard.extend(told.into_iter().flatten());
        if step <= 5 {
            assert_eq!(total, [0; 5], "none before its time, after {:?}", STEP * step);
        }
    }
    // After 97 seconds.
    assert_eq!(total, [3, 3, 3, 3, 0], "{heard:?}");
    for text in heard {
        let value: Value = serde_json::from_str(&text).unwrap();
        let stamp = value["timestamp"].as_str().unwrap();
        assert_eq!(text, format!(r#"{{"type":"heartbeat","timestamp":"{stamp}"}}"#));
        assert!(stamp.parse::<DateTime>().is_ok() && !stamp.ends_with('Z'), "{stamp}");
    }
}

/// A server of one reactor on real sockets, whose clock stands until it is moved on.
struct Timed {
    address: SocketAddr,
    clock: Clock,
    stop: Arc<AtomicBool>,
    reactors: Vec<Mailbox<Inbound<TcpStream>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Timed {
    fn serve() -> Timed {
        let flags = Flags { listen: vec!["127.0.0.1:0".to_owned()], debug: true, ..Flags::default() };
        let nothing = |_: &_| Err(std::io::ErrorKind::NotFound.into());
        let settings = Settings::build(&flags, std::iter::empty(), nothing).unwrap();
        let env = Arc::new(Env::default());
        let clock = Clock::manual(Mono(1), Wall(1_767_082_000_123_456));
        let store = MemoryStore::new(1, 7);
        let (directory, metrics, pulse): (Arc<Directory>, Arc<Metrics>, Arc<Pulse>) = Default::default();
        let backlog = Arc::new(Backlog::new(1 << 28));
        let (jobs, jobs_inbox) = mailbox::channel(64);
        let (questions, questions_inbox) = mailbox::channel(64);
        let poller = MioPoller::new().unwrap();
        let (mailbox, inbox) = mailbox::with_waker(1024, poller.waker().unwrap());
        let reactors = vec![mailbox];
        let reader = Reader::new(store.snapshots(), questions_inbox, reactors.clone(), env.clone());
        let wiring = worker::Wiring {
            inbox: jobs_inbox,
            reactors: reactors.clone(),
            files: None,
            directory: directory.clone(),
            env: env.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            pulse: pulse.clone(),
            backlog: backlog.clone(),
            retention: Arc::new(ArcSwap::from_pointee(Retention::default())),
        };
        let worker = Worker::new(store, wiring);
        let wiring = reactor::Wiring {
            index: 0,
            inbox,
            writers: vec![jobs],
            readers: questions,
            files: None,
            directory,
            presence: Arc::default(),
            peers: reactors.clone(),
            backlog: backlog.clone(),
            responses: backlog,
            guests: Arc::new(Guests::default()),
            env,
            clock: clock.clone(),
            status: Arc::new(Status::new(metrics.clone(), pulse, "full", "debug")),
            live: Arc::new(ArcSwap::new(settings.live())),
            listeners: vec![Name::ALL.to_vec()],
        };
        let reactor = Reactor::new(poller, wiring);
        let socket = Doors::new(vec!["127.0.0.1:0".parse().unwrap()]).open().unwrap().remove(0);
        let address = socket.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let ten = Duration::from_secs(10);
        let listener = Listener::new(vec![socket], reactors.clone(), 1000, ten, metrics, stop.clone()).unwrap();
        let threads = vec![
            std::thread::spawn(move || listener.run().unwrap()),
            std::thread::spawn(move || reactor.run().unwrap()),
            std::thread::spawn(move || reader.run()),
            std::thread::spawn(move || {
                worker.run();
            }),
        ];
        Timed { address, clock, stop, reactors, threads }
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for reactor in &mut self.reactors {
            reactor.post_or_wait(Inbound::Control(Control::Stop));
            reactor.ring();
        }
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a thread of the house panicked");
        }
    }
}
