//! Threat rows 39, 53, 54, 58, 59, 67: what one connection, and one address, may ask in a time.

use crate::support::{House, Reply, SECRET, bearer, frame, handshake, text, token};

/// Open mode, so that rates hold on loopback; ten messages a second, so that few are a flood.
const METERED: &str = "[auth]\nmode = 'open'\n[limits]\nmessages_per_second = 10\n";

/// A proxy on loopback names the client, who is then a stranger.
fn strangers() -> String {
    format!(
        "[auth]\nmode = 'token'\nhs256_secret = '{SECRET}'\n[proxy]\ntrusted = ['127.0.0.0/8']\n\
         [limits]\naddress_connections = 3\naddress_handshakes_per_second = 0\n"
    )
}

fn from(address: &str, token: &str) -> String {
    format!("X-Forwarded-For: {address}\r\n{}", bearer(token))
}

fn refused(house: &House, target: &str, fields: &str) -> Reply {
    let mut wire = house.dial();
    wire.send(handshake(target, fields));
    wire.reply()
}

#[test]
fn row_59_a_flood_of_messages_is_slowed_down_and_loses_nothing() {
    let house = House::open(METERED);
    house.create("", "flooded", "born", "");
    let mut wire = house.join("flooded", "");
    let begun = std::time::Instant::now();
    // The burst is twenty; ten more take a second at the allowed rate.
    for number in 0..30 {
        wire.send(text(&format!("{{\"action\":\"update\",\"content\":\"{number}\"}}")));
    }
    for number in 0..30 {
        let status = wire.json();
        assert_eq!(status["success"], true, "update {number}: {status}");
    }
    // Only ever too early, never too late: a slow machine cannot make this fail.
    assert!(begun.elapsed().as_millis() >= 900, "30 messages were taken in {:?}", begun.elapsed());
    assert_eq!(house.content("flooded"), "29");
}

#[test]
fn row_59_without_a_limit_nobody_is_slowed_down() {
    let house = House::open("[auth]\nmode = 'open'\n[limits]\nmessages_per_second = 0\nbytes_per_second = 0\n");
    house.create("", "free", "born", "");
    let mut wire = house.join("free", "");
    for number in 0..600 {
        wire.send(text(&format!("{{\"action\":\"update\",\"content\":\"{number}\"}}")));
    }
    for _ in 0..600 {
        assert_eq!(wire.json()["success"], true);
    }
}

#[test]
fn rows_53_and_54_a_flood_of_pings_ends_the_connection() {
    let house = House::open(METERED);
    house.create("", "pinged", "born", "");
    for opcode in [0x89, 0x8a] {
        let mut wire = house.join("pinged", "");
        let flood: Vec<u8> = (0..150).flat_map(|_| frame(opcode, b"x")).collect();
        wire.send(flood);
        let close = std::iter::repeat_with(|| wire.frame()).find_map(|frame| frame.closing());
        assert_eq!(close, Some((1008, "control_flood".to_owned())));
    }
    let mut wire = house.join("pinged", "");
    let some: Vec<u8> = (0..90).flat_map(|_| frame(0x89, b"x")).collect();
    wire.send(some);
    for _ in 0..90 {
        assert_eq!(wire.frame().first & 15, 10, "every ping within the bound has its pong");
    }
}

#[test]
fn row_58_much_nonsense_ends_the_connection_and_a_little_does_not() {
    let house = House::open("[auth]\nmode = 'open'\n");
    house.create("", "odd", "born", "");
    let mut wire = house.join("odd", "");
    for _ in 0..10 {
        wire.send(text("{not json"));
        assert_eq!(wire.json()["action"], "error");
    }
    wire.assert_silent_and_alive("ten are borne");
    wire.send(text("{not json"));
    assert_eq!(wire.json()["action"], "error");
    assert_eq!(wire.expect_close("the eleventh within a minute", 1008), "bad_messages");
}

#[test]
fn in_debug_mode_on_loopback_nobody_is_metered() {
    let house = House::open("[limits]\nmessages_per_second = 1\n");
    house.create("", "mine", "born", "");
    let mut wire = house.join("mine", "");
    for _ in 0..50 {
        wire.send(text("{not json"));
        assert_eq!(wire.json()["action"], "error");
    }
    wire.send((0..200).flat_map(|_| frame(0x89, b"")).collect::<Vec<u8>>());
    for _ in 0..200 {
        assert_eq!(wire.frame().first & 15, 10);
    }
}

#[test]
fn row_67_an_address_may_have_so_many_connections_and_no_more() {
    let house = House::open(&strangers());
    let ada = token("ada", &[("doc:*", &["read", "write"])]);
    house.create("", "one", "born", &bearer(&ada));
    let mut held: Vec<_> = (0..3).map(|_| house.join("one", &from("192.0.2.1", &ada))).collect();
    let fourth = refused(&house, "/ws/prompts/one", &from("192.0.2.1", &ada));
    fourth.assert_refused("the fourth", 429, "too_many_requests");
    let _other = house.join("one", &from("192.0.2.2", &ada));
    let spoofed = refused(&house, "/ws/prompts/one", &from("198.51.100.7, 192.0.2.1", &ada));
    spoofed.assert_refused("what the client itself wrote in front counts for nothing", 429, "too_many_requests");
    // The place comes back when its connection ends, however it ends.
    drop(held.pop());
    house.wait_for_metric("commitcast_connections", |open| open <= 4.0);
    let _again = house.join("one", &from("192.0.2.1", &ada));
}

#[test]
fn row_39_guessing_tokens_bars_the_address() {
    let house = House::open(&strangers());
    let ada = token("ada", &[("doc:*", &["read", "write"])]);
    house.create("", "one", "born", &bearer(&ada));
    for _ in 0..11 {
        refused(&house, "/ws/prompts/one", &from("192.0.2.9", "guess.guess.guess"))
            .assert_refused("a guess", 401, "token");
    }
    let barred = refused(&house, "/ws/prompts/one", &from("192.0.2.9", &ada));
    barred.assert_refused("even with a good token", 429, "too_many_requests");
    let _elsewhere = house.join("one", &from("192.0.2.10", &ada));
}
