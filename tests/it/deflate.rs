//! permessage-deflate over real sockets: who is sent which form, and that every client reads the same. zlib judges.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::support::{BINARY, COMPRESSED, Frame, House, PING, PONG, TEXT, Wire, deflate, frame, handshake, text};

const ON: &str = "[deflate]\nenabled = true\n[limits]\nmessages_per_second = 0\nbytes_per_second = 0\n";
/// What browsers and most programs offer, and what one that is short of memory does.
const BROWSER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
const MODEST: &str =
    "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12; client_max_window_bits=12\r\n";
const AGREED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// A socket that has agreed with the server.
fn connect(house: &House, target: &str, offer: &str) -> Wire {
    let mut wire = house.dial();
    wire.send(handshake(target, offer));
    let reply = wire.expect_101();
    let answer = reply.header("sec-websocket-extensions").unwrap_or_else(|| panic!("not agreed: {reply}"));
    assert!(answer.starts_with(AGREED), "{answer}");
    wire
}

fn join(house: &House, offer: &str) -> Wire {
    let mut wire = match offer {
        "" => house.upgrade("/ws/prompts/d/p"),
        offer => connect(house, "/ws/prompts/d/p", offer),
    };
    assert_eq!(message(&mut wire)["action"], "initial");
    wire
}

fn message(wire: &mut Wire) -> Value {
    let frame = wire.frame().inflated(15);
    assert_eq!(frame.first, TEXT, "a text was expected: {frame:?}");
    serde_json::from_slice(&frame.payload).unwrap_or_else(|error| panic!("{error}: {frame:?}"))
}

fn update(content: &str) -> Vec<u8> {
    text(&json!({"action": "update", "content": content}).to_string())
}

/// Text of the kind that rooms are full of.
fn prose(length: usize) -> String {
    let mut text = String::new();
    for line in 0.. {
        if text.len() >= length {
            break;
        }
        text += &format!("line {line}: the quick brown fox jumps over the lazy dog; ");
    }
    text.truncate(length);
    text
}

/// Text that loses little when it is compressed.
fn ciphers(length: usize, seed: usize) -> String {
    let mut state = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b' ' + 2 + (state >> 32) as u8 % 90)
    };
    (0..length).map(|_| next()).filter(|char| *char != '\\').collect()
}

#[test]
fn it_is_off_unless_it_is_switched_on_and_needs_an_offer() {
    let off = House::open("");
    let on = House::open(ON);
    for (house, offer, expected) in [
        (&off, BROWSER, None),
        (&on, "", None),
        (&on, "Sec-WebSocket-Extensions: permessage-bzip2\r\n", None),
        (&on, BROWSER, Some(AGREED.to_owned())),
        (&on, MODEST, Some(format!("{AGREED}; server_max_window_bits=12"))),
        (
            &on,
            "Sec-WebSocket-Extensions: foo, permessage-deflate; bar\r\nsec-websocket-extensions: permessage-deflate\r\n",
            Some(AGREED.to_owned()),
        ),
    ] {
        let mut wire = house.dial();
        wire.send(handshake("/v1/echo", offer));
        let reply = wire.expect_101();
        assert_eq!(reply.header("sec-websocket-extensions"), expected.as_deref(), "{offer}");
        let said = prose(2000);
        wire.send(text(&said));
        let answer = wire.frame();
        assert_eq!(answer.first & COMPRESSED != 0, expected.is_some(), "{offer}");
        assert_eq!(answer.inflated(12).payload, said.as_bytes());
    }
}

#[test]
fn what_is_short_or_does_not_gain_goes_as_it_is_and_control_frames_always() {
    let house = House::open(&ON.replace("enabled = true", "enabled = true\nthreshold = 100"));
    let mut wire = connect(&house, "/v1/echo", BROWSER);
    for (first, payload, compressed) in [
        (TEXT, "x".repeat(99).into_bytes(), false),
        (TEXT, "x".repeat(100).into_bytes(), true),
        (BINARY, vec![0; 16_000], true),
        (TEXT, prose(100_000).into_bytes(), true),
        (BINARY, ciphers(120, 1).into_bytes(), false),
        (TEXT, Vec::new(), false),
    ] {
        // Whichever form it came in.
        for sent in [frame(first, &payload), frame(first | COMPRESSED, &deflate(&payload))] {
            wire.send(sent);
            let answer = wire.frame();
            let expected = if compressed { first | COMPRESSED } else { first };
            assert_eq!(answer.first, expected, "{} bytes", payload.len());
            assert_eq!(answer.inflated(15), Frame { first, payload: payload.clone() });
        }
    }
    wire.send(frame(PING, &[b'x'; 125]));
    assert_eq!(wire.frame(), Frame { first: PONG, payload: vec![b'x'; 125] });
}

/// One line of a conversation: a message, whether it is compressed, and where its payload is cut into fragments.
#[derive(Clone, Debug)]
struct Line {
    first: u8,
    payload: Vec<u8>,
    compressed: bool,
    cuts: Vec<prop::sample::Index>,
}

fn line() -> impl Strategy<Value = Line> {
    let payload = prop_oneof![
        "\\PC{0,200}".prop_map(|text| (TEXT, text.into_bytes())),
        (0usize..40_000).prop_map(|length| (TEXT, prose(length).into_bytes())),
        (0usize..3000, any::<usize>()).prop_map(|(length, seed)| (TEXT, ciphers(length, seed >> 8).into_bytes())),
        prop::collection::vec(any::<u8>(), 0..3000).prop_map(|bytes| (BINARY, bytes)),
        (any::<u8>(), 0usize..64_000).prop_map(|(byte, length)| (BINARY, vec![byte; length])),
    ];
    (payload, any::<bool>(), prop::collection::vec(any::<prop::sample::Index>(), 0..4))
        .prop_map(|((first, payload), compressed, cuts)| Line { first, payload, compressed, cuts })
}

fn written(line: &Line) -> Vec<u8> {
    let (bit, payload) = match line.compressed {
        true => (COMPRESSED, deflate(&line.payload)),
        false => (0, line.payload.clone()),
    };
    let mut ends: Vec<usize> = line.cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
    ends.sort_unstable();
    ends.push(payload.len());
    let (mut out, mut start) = (Vec::new(), 0);
    for (index, end) in ends.iter().enumerate() {
        let opcode = if index == 0 { line.first & 15 | bit } else { 0 };
        let fin = if index + 1 == ends.len() { 0x80 } else { 0 };
        out.extend(frame(opcode | fin, &payload[start..*end]));
        start = *end;
    }
    out
}

/// Random messages in both forms, cut into fragments and into packets anywhere: each comes back as it was meant, in order.
#[test]
fn whatever_is_said_in_whichever_form_is_heard() {
    let house = House::open(ON);
    let script = (prop::collection::vec(line(), 1..8), prop::collection::vec(1usize..20_000, 1..6), any::<bool>());
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() });
    let result = runner.run(&script, |(lines, pieces, browser)| {
        let (offer, window_bits) = if browser { (BROWSER, 15) } else { (MODEST, 12) };
        let mut wire = connect(&house, "/v1/echo", offer);
        let stream: Vec<u8> = lines.iter().flat_map(written).collect();
        let mut rest = stream.as_slice();
        for size in pieces.iter().cycle() {
            let (piece, behind) = rest.split_at((*size).min(rest.len()));
            wire.send(piece);
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        for Line { first, payload, .. } in lines {
            prop_assert_eq!(wire.frame().inflated(window_bits), Frame { first, payload });
        }
        wire.assert_silent_and_alive("nothing else is on its way");
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

/// Every cut of a compressed message in two reads, and in two fragments.
#[test]
fn a_compressed_message_may_be_cut_anywhere() {
    let house = House::with_reactors(ON, 1);
    let mut wire = connect(&house, "/v1/echo", BROWSER);
    let said = "κόσμε, κόσμε, κόσμε €𝄞 κόσμε";
    let payload = deflate(said.as_bytes());
    for cut in 0..=payload.len() {
        let (front, back) = payload.split_at(cut);
        wire.send([frame(1 | COMPRESSED, front), frame(PING, b"p"), frame(0x80, back)].concat());
        assert_eq!(wire.frame().first, PONG);
        assert_eq!(wire.frame().inflated(15).payload, said.as_bytes(), "fragments cut at {cut}");
    }
    let whole = frame(TEXT | COMPRESSED, &payload);
    for cut in 1..whole.len() {
        wire.send(&whole[..cut]);
        house.barrier();
        wire.send(&whole[cut..]);
        assert_eq!(wire.frame().inflated(15).payload, said.as_bytes(), "reads cut at {cut}");
    }
}

/// One event, one compression, however many are shown it; and those who did not offer are shown it as ever.
#[test]
fn a_rooms_message_is_compressed_once_for_all() {
    const OF_EACH: usize = 20;
    let house = House::with_reactors(ON, 1);
    house.create("d", "p", "x", "");
    let mut writer = house.join("d/p", "");
    let mut members: Vec<(&str, Wire)> = Vec::new();
    for _ in 0..OF_EACH {
        for offer in ["", BROWSER, MODEST] {
            members.push((offer, join(&house, offer)));
        }
    }
    // Long enough for a full window, and not; and what no window helps.
    for (content, compressions) in [(prose(1000), 1.0), (prose(20_000), 2.0), ("x".to_owned(), 0.0)] {
        let before = house.metric("commitcast_deflated_total");
        writer.send(update(&content));
        assert_eq!(message(&mut writer)["success"], true);
        for (offer, wire) in &mut members {
            let shown = wire.frame();
            let window_bits = if *offer == MODEST { 12 } else { 15 };
            assert_eq!(shown.first & COMPRESSED != 0, !offer.is_empty() && compressions > 0.0, "{offer}");
            let shown: Value = serde_json::from_slice(&shown.inflated(window_bits).payload).expect("JSON");
            assert_eq!(shown["content"], content, "{offer}");
        }
        house.wait_for_metric("commitcast_deflated_total", |count| count == before + compressions);
    }
}

/// Signals, answers and the catching up from the log are compressed too; the log's once for all who read it.
#[test]
fn natively_whoever_resumes_together_shares_what_was_compressed() {
    const RESUMING: usize = 10;
    const EVENTS: usize = 30;
    let house = House::with_reactors(&format!("{ON}[rooms]\nkeep = [{{ room = '*', events = 1000 }}]\n"), 1);
    let mut writer = connect(&house, "/v1/connect", "Sec-WebSocket-Extensions: permessage-deflate\r\n");
    let say = |wire: &mut Wire, said: Value| wire.send(frame(TEXT | COMPRESSED, &deflate(said.to_string().as_bytes())));
    assert_eq!(message(&mut writer)["op"], "hello");
    let data = |number: usize| json!({"number": number, "text": prose(1000)});
    for number in 0..EVENTS {
        say(&mut writer, json!({"op": "publish", "room": "r", "id": number.to_string(), "data": data(number)}));
        assert_eq!(message(&mut writer)["op"], "ok");
    }
    // Nobody is in the room, so none of it was compressed for anybody.
    assert_eq!(house.metric("commitcast_deflated_total"), 0.0);
    let mut resuming: Vec<Wire> = (0..RESUMING).map(|_| connect(&house, "/v1/connect", BROWSER)).collect();
    for wire in &mut resuming {
        assert_eq!(message(wire)["op"], "hello");
        say(wire, json!({"op": "join", "room": "r"}));
        let joined = message(wire);
        let epoch = joined["epoch"].as_str().expect("an epoch").to_owned();
        assert_eq!(joined["head"], EVENTS);
        say(wire, json!({"op": "leave", "room": "r"}));
        assert_eq!(message(wire)["op"], "left");
        say(wire, json!({"op": "join", "room": "r", "since": {"epoch": epoch, "seq": 0}}));
    }
    for wire in &mut resuming {
        assert_eq!(message(wire)["recovered"], true);
        for number in 0..EVENTS {
            let shown = wire.frame();
            assert!(shown.first & COMPRESSED != 0, "event {number}");
            let event: Value = serde_json::from_slice(&shown.inflated(15).payload).expect("JSON");
            assert_eq!((&event["seq"], &event["data"]), (&json!(number + 1), &data(number)));
        }
    }
    // Each page that was read is compressed once; how many pages there were is how the joins met.
    let compressed = house.metric("commitcast_deflated_total");
    assert!(compressed >= EVENTS as f64, "{compressed}");
    let pages = house.metric("commitcast_lagging_reads_total");
    assert!(compressed <= EVENTS as f64 * pages, "{compressed} compressions of {pages} pages");
    let before = house.wait_for_metric("commitcast_deflated_total", |count| count == compressed);
    let signal = json!({"text": prose(3000)});
    let (first, others) = resuming.split_first_mut().expect("they are several");
    say(first, json!({"op": "signal", "room": "r", "data": signal}));
    for wire in others {
        let shown = wire.frame();
        assert!(shown.first & COMPRESSED != 0);
        let shown: Value = serde_json::from_slice(&shown.inflated(15).payload).expect("JSON");
        assert_eq!((&shown["op"], &shown["data"]), (&json!("signal"), &signal));
    }
    house.wait_for_metric("commitcast_deflated_total", |count| count == before + 1.0);
}

/// Members that take little at a time: frames are cut off in the middle all the while, on the short way and on the long one,
/// and go on in the form in which they began.
#[test]
fn a_frame_that_was_cut_off_goes_on_in_its_form() {
    const UPDATES: usize = 60;
    let house = House::open(ON);
    house.create("d", "p", "x", "");
    let mut writer = house.join("d/p", "");
    let mut members: Vec<Wire> = [BROWSER, "", MODEST, BROWSER].map(|offer| join(&house, offer)).into();
    let contents: Vec<String> = (0..UPDATES)
        .map(|number| match number % 3 {
            0 => format!("{number} {}", ciphers(60_000, number)),
            1 => format!("{number} {}", prose(30_000)),
            _ => format!("{number}"),
        })
        .collect();
    for content in &contents {
        writer.send(update(content));
        assert_eq!(message(&mut writer)["success"], true);
    }
    for (index, wire) in members.iter_mut().enumerate() {
        for content in &contents {
            let shown = message(wire);
            assert!(shown["content"] == *content, "member {index}: {:.80}", shown.to_string());
        }
        wire.assert_silent_and_alive("each once");
    }
}

/// A thousand times as much as came is inflated over many turns, others are served meanwhile, and nothing of it is lost
/// although the socket says no more.
#[test]
fn much_in_little_is_read_a_bit_at_a_time() {
    const MESSAGES: usize = 1500;
    let house = House::with_reactors(ON, 1);
    let mut other = house.upgrade("/v1/echo");
    let mut wire = connect(&house, "/v1/connect", BROWSER);
    assert_eq!(message(&mut wire)["op"], "hello");
    // An answer to each would have it wait for us to read; these are answered with few bytes, by what is wrong with them.
    let said = format!("{{\"op\":\"{}\"}}", "x".repeat(16_000));
    let one = frame(TEXT | COMPRESSED, &deflate(said.as_bytes()));
    let all = one.repeat(MESSAGES);
    assert!(all.len() < 150_000, "{}", all.len());
    wire.send(&all);
    let began = Instant::now();
    other.assert_silent_and_alive("somebody else's flood");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    for _ in 0..MESSAGES {
        assert_eq!(message(&mut wire)["code"], "unknown_op");
    }
    wire.assert_silent_and_alive("one answer each");
    let inflated = house.metric("commitcast_inflated_bytes_total");
    assert_eq!(inflated, (said.len() * MESSAGES) as f64);
}

/// Rates are held against what a message comes to, not against what was sent of it.
#[test]
fn a_rate_counts_what_was_inflated() {
    let secret = crate::support::SECRET;
    let house = House::open(&format!(
        "[auth]\nmode = 'token'\nhs256_secret = '{secret}'\n[deflate]\nenabled = true\n[limits]\nbytes_per_second = '50KiB'\n"
    ));
    let token = crate::support::token("ann", &[("*", &["read", "write", "signal"])]);
    let mut wire = connect(&house, "/v1/connect", &format!("{BROWSER}{}", crate::support::bearer(&token)));
    assert_eq!(message(&mut wire)["op"], "hello");
    // 100 KiB are free, and what passes them is paid for at 50 KiB a second.
    let said = format!("{{\"op\":\"ping\",\"more\":\"{}\"}}", " ".repeat(16_000));
    let began = Instant::now();
    wire.send(frame(TEXT | COMPRESSED, &deflate(said.as_bytes())).repeat(10));
    for _ in 0..10 {
        assert_eq!(message(&mut wire)["op"], "pong");
    }
    assert!(began.elapsed() > Duration::from_millis(500), "{:?}", began.elapsed());
}
