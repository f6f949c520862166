//! What a membership and a door owe to whoever comes in an unusual order: bytes before the welcome, guesses in band.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{DEADLINE, House, SECRET, Wire, bearer, handshake, text, token};

/// Token mode; `more` are further sections.
fn token_mode(more: &str) -> String {
    format!("[auth]\nmode = 'token'\nhs256_secret = '{SECRET}'\n{more}")
}

/// A page that writes behind its handshake without waiting, and may only read, is told so and is in the room all the
/// same: the refusal is no answer to its join.
#[test]
fn who_is_refused_a_write_that_came_with_the_handshake_is_still_shown_the_room() {
    let house = House::with_reactors(&token_mode(""), 1);
    let writer = bearer(&token("ann", &[("doc:*", &["read", "write"])]));
    let reader = bearer(&token("bob", &[("doc:*", &["read"])]));
    house.create("", "readme", "born", &writer);

    let update = |content: &str| text(&json!({"action": "update", "content": content}).to_string());
    let mut early = house.dial();
    early.send([handshake("/ws/prompts/readme", &reader).into_bytes(), update("not allowed")].concat());
    early.expect_101();
    assert_eq!(early.json()["action"], "initial");
    let refused = early.json();
    assert_ne!(refused["success"], true, "{refused}");

    let mut other = house.join("readme", &writer);
    other.send(update("shown"));
    assert_eq!(other.json()["success"], true);
    assert!(early.hears_within(DEADLINE / 4), "the page is in no room: it was never shown the edit");
    let shown = early.json();
    assert_eq!(shown["content"], "shown", "{shown}");
}

/// Threat row 39: the first message of a native socket is a door like the other one.
#[test]
fn row_39_tokens_guessed_in_band_bar_the_address_in_band_too() {
    let house = House::with_reactors(
        &token_mode(
            "[proxy]\ntrusted = ['127.0.0.0/8']\n\
             [limits]\naddress_connections = 0\naddress_handshakes_per_second = 0\n",
        ),
        1,
    );
    let stranger = "X-Forwarded-For: 192.0.2.7\r\n";
    let dial = || {
        let mut wire = house.dial();
        wire.send(handshake("/v1/connect", stranger));
        let status = wire.reply().status;
        (wire, status)
    };
    // Connected before the bar: its guess does not count any more either.
    let (mut waiting, status) = dial();
    assert_eq!(status, 101);
    let guess = |wire: &mut Wire| wire.send(text(&json!({"op": "auth", "token": "a.b.c"}).to_string()));
    let mut answered = Vec::new();
    for _ in 0..12 {
        let (mut wire, status) = dial();
        answered.push(status);
        if status == 101 {
            guess(&mut wire);
            wire.rest().unwrap();
        }
    }
    assert!(answered.starts_with(&[101; 10]), "ten failures a minute are nobody's guessing: {answered:?}");
    assert_eq!(dial().1, 429, "after {answered:?}");
    let good = token("ann", &[("*", &["read"])]);
    waiting.send(text(&json!({"op": "auth", "token": good}).to_string()));
    let told = waiting.json();
    assert_ne!(told["op"], "hello", "a barred address found out that its token is good: {told}");
}

/// A response in pieces that cannot be finished ends short of its last piece; no other response stands in it.
#[test]
fn a_batch_that_is_given_up_in_the_middle_is_broken_off() {
    let data = tempfile::tempdir().unwrap();
    let settings = crate::support::settings("[limits]\nanswer = '1s'\n", data.path(), 1).unwrap();
    let server = commitcast::server::Server::start(&settings).unwrap();
    let mut wire = Wire::dial(server.addresses[0]);
    let body = "{\"room\":\"r\",\"type\":\"t\",\"data\":1}\n".repeat(20_000);
    wire.send(crate::support::request("POST", "/v1/batch", "Connection: close\r\n", &body));
    let head = wire.try_reply().unwrap();
    assert_eq!(head.status, 200);
    let file = std::fs::read_dir(data.path()).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        let head = std::fs::read(&path).unwrap_or_default();
        head.starts_with(b"SQLite format 3").then_some(path)
    });
    let lock = rusqlite::Connection::open(file.expect("a database")).unwrap();
    // The writer lets go of it between two commits, for less than whoever sleeps in between would notice.
    lock.busy_timeout(Duration::ZERO).unwrap();
    let deadline = Instant::now() + DEADLINE;
    while let Err(error) = lock.execute_batch("BEGIN IMMEDIATE") {
        assert!(Instant::now() < deadline, "the database could not be locked: {error}");
    }
    let rest = String::from_utf8(wire.rest().unwrap()).unwrap();
    lock.execute_batch("ROLLBACK").unwrap();
    server.stop(Duration::ZERO, Duration::ZERO, || true);
    assert!(!rest.ends_with("0\r\n\r\n"), "all of it was written: the lock came too late");
    let tail: String = rest.chars().rev().take(300).collect::<Vec<_>>().into_iter().rev().collect();
    assert!(!rest.contains("HTTP/1.1"), "a response within a response: …{tail}");
}
