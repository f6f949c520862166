//! Threat rows 40–66: what a client that was let in may send, what it may leave unsaid, and how it may leave.

use std::io::Write as _;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use flate2::{Compress, Compression};
use serde_json::{Value, json};

use super::support::{
    BINARY, CLOSE, COMPRESSED, DEADLINE, Frame, House, PING, PONG, SECRET, TEXT, Wire, bearer, close, deflate,
    deflated_by, frame, handshake, header, text, token,
};

const FIN: u8 = 0x80;
const KEY: [u8; 4] = [0; 4];

/// A house with one prompt, `d/p`, whose content is `x`.
fn house(config: &str) -> House {
    let house = House::open(config);
    house.create("d", "p", "x", "");
    house
}

fn update(content: &str) -> Vec<u8> {
    text(&json!({"action": "update", "content": content}).to_string())
}

fn assert_update_is(answer: &Value, success: bool) {
    assert_eq!((&answer["action"], &answer["success"]), (&json!("update_status"), &json!(success)), "{answer}");
}

/// Each stream, on the echo and on a prompt, ends with this code and this reason; others notice nothing.
fn assert_closes(rows: Vec<(&str, Vec<u8>, u16, &str)>) {
    let house = house("");
    let mut other = house.join("d/p", "");
    for (what, bytes, code, reason) in rows {
        for target in ["/v1/echo", "/ws/prompts/d/p"] {
            let mut wire = house.upgrade(target);
            if target != "/v1/echo" {
                assert_eq!(wire.json()["action"], "initial");
            }
            wire.send(&bytes);
            let told = wire.expect_close(&format!("{what} at {target}"), code);
            assert_eq!(told, reason, "{what} at {target}");
        }
    }
    other.assert_silent_and_alive("somebody else's fault");
    house.wait_for_metric("commitcast_connections", |open| open <= 2.0);
}

#[test]
fn row_40_a_clients_frames_are_masked() {
    assert_closes(vec![
        ("text", b"\x81\x02hi".to_vec(), 1002, "mask"),
        ("a ping", b"\x89\x00".to_vec(), 1002, "mask"),
        ("a close", b"\x88\x02\x03\xe8".to_vec(), 1002, "mask"),
    ]);
}

/// A compressed frame that nobody agreed on is a reserved bit; row 55 has those of whoever did agree.
#[test]
fn row_41_reserved_bits_and_opcodes_are_refused() {
    let mut rows: Vec<(&str, Vec<u8>, u16, &str)> = Vec::new();
    for bits in 1..8 {
        rows.push(("reserved bits on text", frame(TEXT | bits << 4, b"x"), 1002, "reserved_bits"));
    }
    rows.push(("reserved bits on a ping", frame(PING | 0x40, b""), 1002, "reserved_bits"));
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        rows.push(("a reserved opcode", frame(FIN | opcode, b""), 1002, "reserved_opcode"));
        rows.push(("one with bytes", frame(FIN | opcode, b"x"), 1002, "reserved_opcode"));
    }
    assert_closes(rows);
}

/// Nothing of the payload comes, so whoever answers has believed the length, not waited for it.
#[test]
fn rows_42_and_43_a_length_is_judged_before_its_payload() {
    let declared = |length: &[u8]| [&[TEXT][..], length].concat();
    let long = |length: u64| [&[0xff][..], &length.to_be_bytes()].concat();
    assert_closes(vec![
        ("the top bit", declared(&long(1 << 63)), 1002, "length_top_bit"),
        ("every bit", declared(&long(u64::MAX)), 1002, "length_top_bit"),
        ("2^63 - 1", declared(&long(i64::MAX as u64)), 1009, "message_too_big"),
        ("64 bits for a short one", declared(&long(65_535)), 1002, "length_not_minimal"),
        ("64 bits for nothing", declared(&long(0)), 1002, "length_not_minimal"),
        ("16 bits for a short one", declared(b"\xfe\x00\x7d"), 1002, "length_not_minimal"),
        ("beyond every limit", declared(&long(16 * 1024 * 1024 + 1)), 1009, "message_too_big"),
    ]);
    // A prompt's own limit, to the byte.
    let house = house("[limits]\nmessage = \"64KiB\"\n");
    let mut wire = house.join("d/p", "");
    wire.send([header(TEXT, 64 * 1024), KEY.to_vec(), vec![b'x'; 64 * 1024]].concat());
    assert_eq!(wire.json()["action"], "error", "64 KiB of nonsense are a message");
    wire.send(header(TEXT, 64 * 1024 + 1));
    assert_eq!(wire.expect_close("a byte more", 1009), "message_too_big");
}

/// Not the peer's silence is what ends it: pings are answered all the while.
#[test]
fn row_44_a_message_that_never_ends_is_cut_off_in_time() {
    let house = house("[limits]\nmessage_time = \"1s\"\n");
    for (what, begun) in [
        ("a frame", [header(TEXT, 1000), KEY.to_vec(), b"front".to_vec()].concat()),
        ("half a header", vec![TEXT, 0xfe]),
        ("a fragment", frame(1, b"front")),
        ("fragments without an end", [frame(1, b"front"), frame(0, b"middle")].concat()),
    ] {
        let mut wire = house.join("d/p", "");
        let began = Instant::now();
        wire.send(begun);
        assert_eq!(wire.expect_close(what, 1008), "message_timeout", "{what}");
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(5), "{what}: {took:?}");
    }
}

#[test]
fn row_45_control_frames_are_short_and_whole() {
    let mut rows = Vec::new();
    for control in [PING, PONG, CLOSE] {
        rows.push(("126 bytes", frame(control, &[b'x'; 126]), 1002, "control_too_long"));
        rows.push(("70,000 bytes declared", header(control, 70_000), 1002, "control_too_long"));
        rows.push(("a fragment", frame(control & 0x0f, b""), 1002, "control_fragmented"));
    }
    assert_closes(rows);
    let house = House::open("");
    let mut wire = house.upgrade("/v1/echo");
    wire.send(frame(PING, &[b'x'; 125]));
    assert_eq!(wire.frame(), Frame { first: PONG, payload: vec![b'x'; 125] });
}

#[test]
fn rows_46_and_47_fragments_are_counted_empty_ones_too() {
    let house = house("[limits]\nfragments = 256\nmessages_per_second = 0\n");
    let fragments = |count: usize, each: &[u8], last: u8| -> Vec<u8> {
        let middle = frame(0, each);
        [frame(1, each), middle.repeat(count - 2), frame(last, each)].concat()
    };
    for each in [&b""[..], b" "] {
        let mut wire = house.join("d/p", "");
        wire.send(fragments(256, each, FIN));
        assert_eq!(wire.json()["action"], "error", "256 fragments of nothing are a message that is not JSON");
        wire.send(fragments(257, each, FIN));
        assert_eq!(wire.expect_close("a fragment more", 1009), "too_many_fragments");
        let mut wire = house.join("d/p", "");
        wire.send(fragments(256, each, 0));
        wire.assert_silent_and_alive("a ping between fragments counts for nothing");
        wire.send(frame(0, each));
        assert_eq!(wire.expect_close("one that never ends", 1009), "too_many_fragments");
    }
    // The echo takes any number. In proportion to the bytes: a second copy of all for each would not end in time.
    let mut wire = house.upgrade("/v1/echo");
    let count = 200_000;
    let mut stream = wire.stream.try_clone().expect("a second handle");
    let sender = std::thread::spawn(move || stream.write_all(&fragments(count, b"y", FIN)));
    let echoed = wire.frame();
    sender.join().expect("the sender lives").expect("sent");
    assert!(echoed.first == TEXT && echoed.payload == vec![b'y'; count], "{} bytes came back", echoed.payload.len());
}

#[test]
fn row_48_fragments_together_have_the_limit_of_a_message() {
    let house = house("[limits]\nmessage = \"10KiB\"\n");
    let piece = vec![b'x'; 5 * 1024];
    let mut wire = house.join("d/p", "");
    wire.send([frame(1, &piece), frame(FIN, &piece)].concat());
    assert_eq!(wire.json()["action"], "error");
    wire.send([frame(1, &piece), frame(0, &piece), header(FIN, 1)].concat());
    assert_eq!(wire.expect_close("a byte more", 1009), "message_too_big");
}

#[test]
fn row_49_messages_do_not_interleave() {
    assert_closes(vec![
        ("text in text", [frame(1, b"a"), text("b")].concat(), 1002, "interleaved_message"),
        ("binary in text", [frame(1, b"a"), frame(BINARY, b"b")].concat(), 1002, "interleaved_message"),
        ("a second beginning", [frame(1, b"a"), frame(1, b"b")].concat(), 1002, "interleaved_message"),
        ("a continuation of nothing", frame(FIN, b"a"), 1002, "continuation_without_start"),
        ("one that goes on", frame(0, b"a"), 1002, "continuation_without_start"),
    ]);
}

#[test]
fn row_50_text_is_utf_8_to_the_byte() {
    let rest_owed = |bytes: &[u8]| [header(TEXT, 1000), KEY.to_vec(), bytes.to_vec()].concat();
    assert_closes(vec![
        ("a lone continuation", frame(TEXT, b"\x80"), 1007, "utf8"),
        ("an overlong slash", frame(TEXT, b"\xc0\xaf"), 1007, "utf8"),
        ("a surrogate", frame(TEXT, b"\xed\xa0\x80"), 1007, "utf8"),
        ("beyond Unicode", frame(TEXT, b"\xf4\x90\x80\x80"), 1007, "utf8"),
        ("cut off by the end", frame(TEXT, b"\xe2\x82"), 1007, "utf8"),
        ("over two fragments", [frame(1, b"\xe2"), frame(FIN, b"\x28\xa1")].concat(), 1007, "utf8"),
        ("cut off by the last fragment", [frame(1, b"a\xe2"), frame(FIN, b"\x82")].concat(), 1007, "utf8"),
        ("as early as the bad byte", rest_owed(b"ab\xff"), 1007, "utf8"),
        ("early, in an open fragment", frame(1, b"ab\xff"), 1007, "utf8"),
        ("in a close's reason", frame(CLOSE, b"\x03\xe8\xff"), 1007, "utf8"),
        ("in a close's reason, cut off", frame(CLOSE, b"\x03\xe8\xe2\x82"), 1007, "utf8"),
    ]);
    // Cut between any two bytes of a character, by fragments and by reads, it is the same text.
    let house = House::with_reactors("", 1);
    let message = "κόσμε €𝄞";
    let mut wire = house.upgrade("/v1/echo");
    for cut in 1..message.len() {
        let (front, back) = message.as_bytes().split_at(cut);
        wire.send([frame(1, front), frame(FIN, back)].concat());
        assert_eq!(wire.frame().payload, message.as_bytes(), "fragments cut at {cut}");
    }
    let whole = text(message);
    for cut in 1..whole.len() {
        wire.send(&whole[..cut]);
        house.barrier();
        wire.send(&whole[cut..]);
        assert_eq!(wire.frame().payload, message.as_bytes(), "reads cut at {cut}");
    }
}

#[test]
fn row_51_a_close_says_what_may_be_said() {
    let mut rows = vec![("one byte", frame(CLOSE, b"\x03"), 1002, "close_payload")];
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65_535] {
        rows.push(("a code nobody may send", close(code, ""), 1002, "close_code"));
    }
    assert_closes(rows);
    let house = House::open("");
    for (code, reason) in [(1000, ""), (1001, "bye"), (1011, "é"), (3000, ""), (4999, "x")] {
        let mut wire = house.upgrade("/v1/echo");
        wire.send(close(code, reason));
        assert_eq!(wire.expect_close("answered in kind", code), reason);
    }
    let mut wire = house.upgrade("/v1/echo");
    wire.send(frame(CLOSE, b""));
    assert_eq!(wire.expect_close("an empty one", 1005), "");
}

#[test]
fn row_52_nothing_behind_a_close_is_heard_and_the_socket_ends() {
    let house = house("[limits]\nclose = \"1s\"\n");
    let mut wire = house.join("d/p", "");
    wire.send([close(1000, ""), update("behind the close"), frame(PING, b"x")].concat());
    wire.expect_close("data behind a close", 1000);
    assert_eq!(house.content("d/p"), "x", "an update behind the close frame was carried out");

    // We close; the peer never answers, and goes on sending.
    let mut wire = house.join("d/p", "");
    wire.send(frame(0x83, b""));
    assert_eq!(wire.frame().closing().expect("a close").0, 1002);
    let began = Instant::now();
    while wire.try_send(update("from the deaf")).is_ok() {
        assert!(began.elapsed() < Duration::from_secs(5), "the socket was not ended");
        // The server's own end of the stream is there; its socket goes when the time for an answer is over.
        let _ = wire.hears_end_within(Duration::from_millis(20));
    }
    house.wait_for_metric("commitcast_connections", |open| open <= 1.0);
    assert_eq!(house.content("d/p"), "x");
}

/// A script that edits and leaves sends both in one packet; it used to be sent away before the commit had answered.
#[test]
fn an_edit_in_one_packet_with_a_close_is_still_answered() {
    let house = house("");
    for round in 0..50 {
        let mut wire = house.join("d/p", "");
        let content = format!("last words {round}");
        wire.send([update(&content), close(1000, "bye")].concat());
        assert_update_is(&wire.json(), true);
        assert_eq!(wire.expect_close("the echo behind the answer", 1000), "bye");
        assert_eq!(house.content("d/p"), content);
    }
}

#[test]
fn row_54_pongs_nobody_asked_for_are_ignored() {
    let house = House::open("");
    let mut wire = house.upgrade("/v1/echo");
    wire.send([frame(PONG, b"x"), frame(PONG, b""), frame(PONG, &[0; 125])].concat());
    wire.assert_silent_and_alive("pongs");
}

const DEFLATE: &str = "[deflate]\nenabled = true\n";
const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

/// A socket on a prompt, or the echo, that may send what is compressed.
fn agreed(house: &House, target: &str) -> Wire {
    let mut wire = Wire::upgrade(house.address, target, OFFER);
    if target != "/v1/echo" {
        assert_eq!(wire.json()["action"], "initial");
    }
    wire
}

/// What is too much when it is inflated ends the connection, at the first byte too many and not when all of it is there.
/// (Before the handshake was answered there is nothing to inflate: it is agreed on with the 101.)
#[test]
fn row_55_a_compression_bomb_goes_off_nowhere() {
    let house = house(&format!("{DEFLATE}[limits]\nmessage = '256KiB'\n"));
    let mut other = house.join("d/p", "");
    let zeros = |length: usize| deflate(&vec![b'0'; length]);
    let compressed = |payload: &[u8]| frame(TEXT | COMPRESSED, payload);
    let large = zeros(64 << 20);
    let (front, back) = large.split_at(large.len() / 2);
    let good = deflate(b"{\"action\":\"get_details\"}");
    for (what, bytes, code, reason) in [
        ("64 MiB of one character", compressed(&zeros(64 << 20)[..60_000]), 1009, "message_too_big"),
        ("65 KiB of it", compressed(&zeros(65 << 10)), 1009, "deflate_ratio"),
        (
            "in fragments",
            [frame(1 | COMPRESSED, &zeros(80 << 10)[..20]), frame(FIN, &zeros(80 << 10)[20..])].concat(),
            1009,
            "deflate_ratio",
        ),
        (
            "in halves",
            [frame(1 | COMPRESSED, &front[..30_000]), frame(FIN, &back[..30_000])].concat(),
            1009,
            "message_too_big",
        ),
        (
            "a byte over the limit of a message",
            compressed(&deflate(text_of(256 * 1024 + 1).as_bytes())),
            1009,
            "message_too_big",
        ),
        ("too long as it is", header(TEXT | COMPRESSED, 300 << 10), 1009, "message_too_big"),
        ("no deflate", compressed(b"nonsense"), 1007, "deflate"),
        ("cut off", compressed(&good[..good.len() - 3]), 1007, "deflate"),
        ("no UTF-8", compressed(&deflate(b"ab\xff")), 1007, "utf8"),
        (
            "the bit on a later fragment",
            [frame(1 | COMPRESSED, b""), frame(FIN | COMPRESSED, b"")].concat(),
            1002,
            "reserved_bits",
        ),
        ("the bit on a ping", frame(PING | COMPRESSED, b""), 1002, "reserved_bits"),
        ("another bit", frame(TEXT | 0x20, b""), 1002, "reserved_bits"),
    ] {
        let mut wire = agreed(&house, "/ws/prompts/d/p");
        wire.send(bytes);
        assert_eq!(wire.expect_close(what, code), reason, "{what}");
    }
    // The echo takes 16 MiB, but not out of nothing.
    let mut wire = agreed(&house, "/v1/echo");
    wire.send(compressed(&zeros(16 << 20)));
    assert_eq!(wire.expect_close("16 MiB", 1009), "deflate_ratio");
    // What a message may be, it may be compressed: repeating itself as it likes as long as it is short, or to the very limit.
    let mut wire = agreed(&house, "/ws/prompts/d/p");
    for said in ["-".repeat(64 << 10), text_of(256 << 10)] {
        wire.send(compressed(&deflate(said.as_bytes())));
        let answer = wire.frame().inflated(15);
        assert!(String::from_utf8_lossy(&answer.payload).contains("\"error\""), "nonsense, but a message: {answer:?}");
    }
    other.assert_silent_and_alive("somebody else's bombs");
}

/// Text of so many bytes that cannot be compressed to less than a twenty-fifth.
fn text_of(length: usize) -> String {
    let numbers: String = (0..length / 4).map(|number| format!("{} ", number * 7919 % 10_007)).collect();
    numbers[..length].to_owned()
}

#[test]
fn row_56_bad_deflate_windows_are_declined_and_the_connection_goes_on() {
    let house = house(DEFLATE);
    for parameters in [
        "server_max_window_bits=8",
        "server_max_window_bits=16",
        "server_max_window_bits=99999999999999999999",
        "server_max_window_bits",
        "server_max_window_bits=\"",
        "server_max_window_bits=015",
        "client_max_window_bits=7",
        "client_max_window_bits=16",
        "client_max_window_bits=-9",
        "server_max_window_bits=10; server_max_window_bits=10",
        "client_no_context_takeover; client_no_context_takeover",
        "server_no_context_takeover=1",
        "window=10",
    ] {
        let offer = format!("Sec-WebSocket-Extensions: permessage-deflate; {parameters}\r\n");
        let mut wire = house.dial();
        wire.send(handshake("/v1/echo", &offer));
        assert_eq!(wire.expect_101().header("sec-websocket-extensions"), None, "{parameters}");
        let said = "x".repeat(1000);
        wire.send(text(&said));
        assert_eq!(wire.frame(), Frame { first: TEXT, payload: said.into_bytes() }, "{parameters}");
        wire.send(frame(TEXT | COMPRESSED, &deflate(b"x")));
        assert_eq!(wire.expect_close(parameters, 1002), "reserved_bits");
        // The next offer is another matter.
        let mut wire = house.dial();
        wire.send(handshake("/v1/echo", &format!("{offer}{OFFER}")));
        assert!(wire.expect_101().header("sec-websocket-extensions").is_some(), "{parameters}");
    }
}

/// Neither side keeps anything of a message for the next: a client that does is refused, and ours can be read each for itself.
#[test]
fn row_57_no_compression_context_is_kept() {
    let house = house(DEFLATE);
    let said = text_of(2000);
    let mut wire = agreed(&house, "/v1/echo");
    let mut first = None;
    for _ in 0..3 {
        wire.send(text(&said));
        let answer = wire.frame();
        // The very same bytes: nothing of it refers to the one before.
        assert_eq!(&answer.payload, first.get_or_insert_with(|| answer.payload.clone()));
        assert_eq!(answer.inflated(15).payload, said.as_bytes());
    }
    let mut zlib = Compress::new(Compression::default(), false);
    wire.send(frame(TEXT | COMPRESSED, &deflated_by(&mut zlib, said.as_bytes())));
    assert_eq!(wire.frame().inflated(15).payload, said.as_bytes());
    wire.send(frame(TEXT | COMPRESSED, &deflated_by(&mut zlib, said.as_bytes())));
    assert_eq!(wire.expect_close("a message that goes on from the one before", 1007), "deflate");
}

#[test]
fn row_58_bad_messages_are_answered_and_change_nothing() {
    let house = house("");
    let mut watcher = house.join("d/p", "");
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let deep = |depth: usize| format!(r#"{{"action":"update","content":"x","extra":{}}}"#, nested(depth));
    let keys: String = (0..100_000).map(|key| format!("\"{key}\":0,")).collect();
    for (what, message) in [
        ("nothing", String::new()),
        ("no JSON", "nonsense".to_owned()),
        ("a list", "[]".to_owned()),
        ("a number", "1e999".to_owned()),
        ("null", "null".to_owned()),
        ("half an object", "{\"action\":".to_owned()),
        ("two objects", "{}{}".to_owned()),
        ("a lone surrogate", r#"{"action":"update","content":"\ud800"}"#.to_owned()),
        ("33 levels", deep(32)),
        ("100,000 levels", deep(100_000)),
        ("a bare control character", "{\"action\":\"update\",\"content\":\"\u{1}\"}".to_owned()),
    ] {
        // A connection each: how many a single one may send is another row's.
        let mut wire = house.join("d/p", "");
        wire.send(text(&message));
        let answer = wire.json();
        assert_eq!(answer["action"], "error", "{what}: {answer}");
        assert!(answer["message"].as_str().is_some_and(|why| !why.is_empty()), "{what}: {answer}");
        wire.assert_silent_and_alive(what);
    }
    for (what, message) in [
        ("content a number", r#"{"action":"update","content":123}"#),
        ("content a list", r#"{"action":"update","content":["x"]}"#),
        ("tags that are none", r#"{"action":"update_metadata","tags":[1]}"#),
        ("an id that is none", r#"{"action":"update","content":"y","id":{}}"#),
    ] {
        let mut wire = house.join("d/p", "");
        wire.send(text(message));
        assert_update_is(&wire.json(), false);
        wire.assert_silent_and_alive(what);
    }
    let mut wire = house.join("d/p", "");
    wire.send(frame(BINARY, b"{\"action\":\"update\",\"content\":\"binary\"}"));
    assert_eq!(wire.json()["action"], "error", "a binary frame");
    wire.send([text("{}"), text(r#"{"action":"own"}"#), text(r#"{"action":"update"}"#)].concat());
    wire.assert_silent_and_alive("what the contract meets with silence");
    assert_eq!(house.content("d/p"), "x");
    watcher.assert_silent_and_alive("a bad message was shown to somebody");

    // Odd and allowed.
    for (what, message, content) in [
        ("many keys", format!("{{{keys}\"action\":\"update\",\"content\":\"many\"}}"), "many"),
        (
            "big numbers",
            r#"{"action":"update","content":"big","x":1e400,"y":99999999999999999999999}"#.to_owned(),
            "big",
        ),
        ("31 levels beside", deep(31).replace("\"x\"", "\"deep\""), "deep"),
        ("a repeated key", r#"{"action":"update","content":"first","content":"last"}"#.to_owned(), "last"),
        ("U+0000", r#"{"action":"update","content":"a\u0000b"}"#.to_owned(), "a\0b"),
    ] {
        let mut wire = house.join("d/p", "");
        wire.send(text(&message));
        let answer = wire.json();
        assert!(answer["success"] == true || answer["action"] == "error", "{what}: {answer}");
        if answer["success"] == true {
            assert_eq!(watcher.json()["content"], content, "{what}");
            assert_eq!(house.content("d/p"), content, "{what}");
        } else {
            assert_eq!(what, "big numbers", "{answer}");
        }
    }
}

/// What a path may name. A refusal is an answer; and none of these reaches the store.
#[test]
fn row_61_ids_have_bounds() {
    let house = house("");
    let knock = |id: &str| {
        let mut wire = house.dial();
        wire.send(handshake(&format!("/ws/prompts/{id}"), ""));
        let reply = wire.reply();
        assert_eq!(wire.rest().expect("an orderly end"), b"", "{id}");
        reply
    };
    let (kilobytes, megabyte) = ("a".repeat(10_000), "a".repeat(1_000_000));
    for (what, id, status, reason) in [
        ("empty", "", 400, "bad_prompt_id"),
        ("only separators", "///", 400, "bad_prompt_id"),
        ("dots", "../secret", 400, "target"),
        ("escaped dots", "%2e%2e/secret", 400, "target"),
        ("dots in the middle", "d/../p", 400, "target"),
        ("an escaped separator and dots", "d%2F..%2Fp", 400, "target"),
        ("U+0000", "a%00b", 400, "bad_prompt_id"),
        ("a line break", "a%0d%0ab", 400, "bad_prompt_id"),
        ("an escape sequence", "a%1b[31m", 400, "bad_prompt_id"),
        ("DEL", "a%7f", 400, "bad_prompt_id"),
        ("C1", "a%c2%85", 400, "bad_prompt_id"),
        ("not UTF-8", "a%ff", 400, "bad_prompt_id"),
        ("a slash in two bytes", "a%c0%af", 400, "bad_prompt_id"),
        ("1,025 bytes", &"a".repeat(1025), 400, "bad_prompt_id"),
        ("1,024 bytes", &"a".repeat(1024), 403, "unknown_prompt"),
        ("escaped twice", "%252e%252e%252fsecret", 403, "unknown_prompt"),
        ("a percent sign", "100%", 403, "unknown_prompt"),
        ("10 kB", &kilobytes, 414, "target_too_long"),
    ] {
        knock(id).assert_refused(what, status, reason);
    }
    let mut wire = house.dial();
    // The server may stop reading, and end, before all of it is out.
    let _ = wire.try_send(handshake(&format!("/ws/prompts/{megabyte}"), ""));
    wire.reply().assert_refused("1 MB", 414, "target_too_long");

    for (what, directory, name) in [
        ("dots", "..", "x"),
        ("dots inside", "d/../..", "x"),
        ("dots as a name", "d", ".."),
        ("a control character", "d\u{1}", "x"),
        ("a control character in the name", "d", "a\u{0}b"),
        ("10 kB", "d", &*kilobytes),
        ("an empty name", "d", ""),
    ] {
        let body = json!({"directory": directory, "name": name, "content": "evil"}).to_string();
        let reply = house.ask("POST", "/api/prompts/", "", &body);
        assert!((400..=422).contains(&reply.status), "{what}: {reply}");
    }
    let all = house.get("/api/prompts/all");
    assert_eq!(all.json().as_array().map(Vec::len), Some(1), "one of them was stored: {all}");
}

/// A directory outside the configured roots holds no documents, however it is spelled.
#[test]
fn row_61_a_directory_outside_the_roots_is_refused() {
    let files = tempfile::tempdir().expect("a temporary directory");
    let root = format!("{}/prompts", files.path().display());
    let house = House::open(&format!("[documents]\ndirectories = [\"{root}\"]\n"));
    let outside = format!("{}/other", files.path().display());
    for directory in
        [&*outside, "/etc", "etc", &format!("{root}/../other"), &format!("{root}x"), &format!("{root}/.git")]
    {
        for body in [json!({"directory": directory, "name": "x"}), json!({"id": format!("{directory}/x")})] {
            let reply = house.ask("POST", "/api/prompts/", "", &body.to_string());
            assert!((400..=422).contains(&reply.status), "{body}: {reply}");
        }
    }
    house.create(&root, "inside", "x", "");
    let rename = json!({"old_id": format!("{root}/inside"), "new_id": format!("{outside}/x")}).to_string();
    let reply = house.ask("POST", "/api/prompts/rename", "", &rename);
    assert!((400..=422).contains(&reply.status), "{reply}");
    assert!(!std::path::Path::new(&outside).exists(), "something was written outside the root");
}

#[test]
fn row_62_content_is_opaque() {
    let house = house("");
    let content = "<script>alert(1)</script>\u{2028}]]>\"'${7*7}{{7*7}}\\\u{0}\u{7f}\r\n\u{fffd}[[x";
    let mut writer = house.join("d/p", "");
    let mut reader = house.join("d/p", "");
    writer.send(update(content));
    assert_update_is(&writer.json(), true);
    assert_eq!(reader.json()["content"], content);
    let reply = house.get("/api/prompts/d/p");
    assert_eq!(reply.json()["content"], content);
    for target in ["/api/prompts/d/p", "/api/prompts/all", "/api/prompts/%3Cscript%3E"] {
        let reply = house.get(target);
        let kind = reply.header("content-type").unwrap_or("");
        let safe = kind.contains("json") || !reply.text().contains("<script>");
        assert!(safe, "{target} would run as a page ({kind}): {reply}");
    }
}

/// The same id is the same operation, for its own subject only.
#[test]
fn row_63_a_replayed_operation_happens_once() {
    let house = House::open(&format!("[auth]\nmode = \"token\"\nhs256_secret = \"{SECRET}\"\n"));
    let user = |name: &str| bearer(&token(name, &[("doc:*", &["read", "write"])]));
    house.create("d", "p", "x", &user("ann"));
    let mut watcher = house.join("d/p", &user("ann"));
    let send = |wire: &mut Wire, content: &str| {
        wire.send_json(&json!({"action": "update", "content": content, "id": "op-1"}));
        wire.json()
    };
    let mut bob = house.join("d/p", &user("bob"));
    let first = send(&mut bob, "one");
    assert_update_is(&first, true);
    assert_eq!(watcher.json()["content"], "one");
    let mut again = house.join("d/p", &user("bob"));
    let second = send(&mut again, "one");
    assert_update_is(&second, true);
    assert_eq!((&second["dup"], &second["seq"]), (&json!(true), &first["seq"]), "the first answer again: {second}");
    assert_eq!(second["timestamp"], first["timestamp"]);
    // Another edit under an id that was used is neither a repeat nor a new one.
    assert_update_is(&send(&mut again, "other words under the same id"), false);
    watcher.assert_silent_and_alive("a replay was shown");
    assert_eq!(house.ask("GET", "/api/prompts/d/p", &user("ann"), "").json()["content"], "one");

    let mut eve = house.join("d/p", &user("eve"));
    let stolen = send(&mut eve, "two");
    assert_update_is(&stolen, true);
    assert!(stolen["dup"].is_null() && stolen["seq"] != first["seq"], "another subject's id is another one: {stolen}");
    assert_eq!(watcher.json()["content"], "two");
}

/// S8: however they leave, their slots are freed and every gauge is back where it was.
#[test]
fn row_64_early_leavers_leave_nothing_behind() {
    let house = house("");
    let mut other = house.join("d/p", "");
    let good = handshake("/ws/prompts/d/p", "");
    let half = [header(TEXT, 1000), KEY.to_vec(), b"front".to_vec()].concat();
    let rounds = 400;
    let before = house.metric("commitcast_accepted_total");
    for round in 0..rounds {
        let mut wire = house.dial();
        match round % 10 {
            0 => {}
            1 => wire.send(&good[..good.len() / 2]),
            // Gone while the store is asked.
            2 => wire.send(&good),
            3 => {
                wire.send(&good);
                wire.end_sending();
            }
            4 => wire.send([good.as_bytes(), &half].concat()),
            5 => wire.send([good.as_bytes(), &update(&format!("by {round}"))].concat()),
            6 => {
                wire.send(&good);
                wire.expect_101();
                wire.send(&half);
            }
            7 => {
                wire.send(&good);
                wire.expect_101();
                wire.send(&half);
                wire.end_sending();
            }
            8 => {
                wire.send(&good);
                wire.expect_101();
                // Unread bytes make the kernel send a reset instead of an end.
                wire.send(frame(PING, b"x").repeat(15));
            }
            _ => {
                wire.send("GET /api/prompts/all HTTP/1.1\r\nHost: test\r\n\r\n".repeat(3));
                let _ = wire.stream.shutdown(Shutdown::Both);
            }
        }
    }
    // Who waits in the backlog is counted nowhere yet.
    house.wait_for_metric("commitcast_accepted_total", |accepted| accepted >= before + f64::from(rounds));
    // The watcher and whoever asks.
    house.wait_for_metric("commitcast_connections", |open| open == 2.0);
    assert_eq!(house.metric("commitcast_members"), 1.0);
    assert_eq!(house.metric("commitcast_rooms"), 1.0);
    assert_eq!(house.metric("commitcast_outbox_bytes"), 0.0);
    // An update of one who has left may still be under way, and is shown like any other.
    let mut writer = house.join("d/p", "");
    writer.send(update("last"));
    let mut answer = writer.json();
    while answer["action"] == "update" {
        answer = writer.json();
    }
    assert_update_is(&answer, true);
    while other.json()["content"] != "last" {}
    assert_eq!(house.content("d/p"), "last");
}

/// Its own kernel's buffers and ours are full, and it takes nothing: it is let go with 4008, and nobody else waits for it.
#[test]
fn row_65_a_client_that_never_reads_is_let_go() {
    let house = house("[limits]\nstall = \"1s\"\nmessages_per_second = 0\nbytes_per_second = 0\n");
    let mut deaf = house.upgrade("/v1/echo");
    deaf.stream.set_write_timeout(Some(Duration::from_secs(5))).expect("a socket's option");
    let piece = frame(BINARY, &[7; 64 * 1024]);
    let began = Instant::now();
    // As long as the server reads; then our write is stuck until the connection is gone.
    let end = loop {
        if let Err(error) = deaf.try_send(&piece) {
            break error;
        }
        assert!(began.elapsed() < DEADLINE, "the server reads without end what it cannot answer");
    };
    house.wait_for_metric("commitcast_ws_close_total{code=\"4008\"}", |count| count == 1.0);
    house.wait_for_metric("commitcast_connections", |open| open == 1.0);
    assert_eq!(house.metric("commitcast_outbox_bytes"), 0.0, "after {end}");
}

/// The same in a room: the others get everything, in order, while one of them reads nothing.
#[test]
fn row_65_a_deaf_member_holds_up_nobody() {
    let house = house("[limits]\nstall = \"1s\"\nmessages_per_second = 0\nbytes_per_second = 0\n");
    let deaf = house.join("d/p", "");
    let mut other = house.join("d/p", "");
    let mut writer = house.join("d/p", "");
    let began = Instant::now();
    let mut number = 0;
    while house.metric("commitcast_ws_close_total{code=\"4008\"}") == 0.0 {
        assert!(began.elapsed() < DEADLINE, "{number} updates of 64 KiB, and the deaf one is still there");
        for _ in 0..20 {
            number += 1;
            writer.send(update(&format!("{number} {}", "x".repeat(64 * 1024))));
            assert_update_is(&writer.json(), true);
            let seen = other.json();
            let content = seen["content"].as_str().expect("a content");
            assert_eq!(content.split(' ').next(), Some(&*number.to_string()), "out of order");
        }
    }
    drop(deaf);
    other.assert_silent_and_alive("it was told more than there was");
}

#[test]
fn row_66_a_peer_that_answers_no_ping_is_gone() {
    let house = house("[limits]\nping = \"300ms\"\npong = \"1s\"\n");
    let mut gone = house.join("d/p", "");
    let ping = gone.frame();
    assert_eq!(ping.first, PING, "{ping:?}");
    assert_eq!(gone.expect_close("no pong", 4000), "no_pong");

    // Whoever answers stays, longer than both together.
    let mut there = house.join("d/p", "");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        let ping = there.frame();
        assert_eq!(ping.first, PING, "{ping:?}");
        there.send(frame(PONG, &ping.payload));
    }
    there.assert_silent_and_alive("it answered every ping");
}

/// The pong itself is nothing that a turn settles: the next ping must come all the same, before the pong would have been
/// late. A proxy ends what is silent for longer than it expects pings.
#[test]
fn row_85_pings_come_as_often_as_they_are_set_to() {
    let house = house("[limits]\nping = \"300ms\"\npong = \"60s\"\n");
    let mut wire = house.join("d/p", "");
    for count in 1..=4 {
        let ping = wire.frame();
        assert_eq!(ping.first, PING, "ping {count}: {ping:?}");
        wire.send(frame(PONG, &ping.payload));
    }
}
