//! Threat rows 1–20: what a stranger may send before a connection is anything, and how each is turned away.
//!
//! Every refusal is judged whole: the status, the reason in both headers and the body, `Connection: close`, an orderly end
//! of the stream, and not one byte behind it.

use std::time::{Duration, Instant};

use super::support::{
    ACCEPT, BINARY, CLOSE, DEADLINE, House, KEY, TEXT, Wire, close, frame, handshake, header, peer, request, text,
    upgrade_fields,
};

/// What a request is answered with: the status, and for a refusal its reason.
struct Row {
    what: &'static str,
    bytes: Vec<u8>,
    status: u16,
    reason: &'static str,
}

fn row(what: &'static str, bytes: impl Into<Vec<u8>>, status: u16, reason: &'static str) -> Row {
    Row { what, bytes: bytes.into(), status, reason }
}

/// A correct handshake with one thing changed.
fn but(from: &str, to: &str) -> Vec<u8> {
    let good = handshake("/v1/echo", "");
    assert!(good.contains(from), "{from} is not in the handshake, so the row would test nothing");
    good.replacen(from, to, 1).into_bytes()
}

fn with(fields: &str) -> Vec<u8> {
    handshake("/v1/echo", fields).into_bytes()
}

/// The answer to a handshake that was made right or wrong in one place.
fn assert_answered(wire: &mut Wire, row: &Row) {
    let reply = wire.try_reply().unwrap_or_else(|error| panic!("{} was not answered: {error}", row.what));
    if row.reason.is_empty() {
        assert_eq!(reply.status, row.status, "{}: {reply}", row.what);
    } else {
        reply.assert_refused(row.what, row.status, row.reason);
        assert!(reply.says_close(), "{}: no Connection: close in {reply}", row.what);
    }
    if row.status == 101 {
        assert_eq!(reply.header("sec-websocket-accept"), Some(ACCEPT), "{}: {reply}", row.what);
        wire.assert_silent_and_alive(row.what);
    } else {
        let rest = wire.rest().unwrap_or_else(|error| panic!("{}: the stream did not end in order: {error}", row.what));
        assert!(rest.is_empty(), "{}: bytes behind the refusal: {}", row.what, String::from_utf8_lossy(&rest));
    }
}

fn assert_rows(rows: &[Row]) {
    let house = House::open("");
    for row in rows {
        let mut wire = house.dial();
        wire.send(&row.bytes);
        assert_answered(&mut wire, row);
    }
}

/// A head of exactly this many bytes, in lines of less than 4 KiB.
fn head_of(bytes: usize) -> Vec<u8> {
    let mut head = handshake("/v1/echo", "");
    head.truncate(head.len() - 2);
    let mut left = bytes - head.len() - 2;
    while left > 0 {
        // A last line shorter than a whole header would be no header.
        let line = if left > 4000 { (left - 100).min(3000) } else { left };
        head += &format!("x: {}\r\n", "y".repeat(line - "x: \r\n".len()));
        left -= line;
    }
    head += "\r\n";
    assert_eq!(head.len(), bytes);
    head.into_bytes()
}

fn fields(count: usize) -> Vec<u8> {
    // Host and the four of the handshake count as well.
    with(&"x: y\r\n".repeat(count - 5))
}

#[test]
fn row_1_a_head_a_line_and_a_target_have_bounds() {
    let line = |bytes: usize| with(&format!("x: {}\r\n", "y".repeat(bytes - 3)));
    let target = |bytes: usize| handshake(&format!("/v1/echo?{}", "q".repeat(bytes - 9)), "");
    assert_rows(&[
        row("a head of 8 KiB", head_of(8192), 101, ""),
        row("a head of 8 KiB and a byte", head_of(8193), 431, "head_too_big"),
        row("a head without an end", head_of(9000)[..8500].to_vec(), 431, "head_too_big"),
        row("a line of 4 KiB", line(4096), 101, ""),
        row("a line of 4 KiB and a byte", line(4097), 431, "head_too_big"),
        row("a target of 2 KiB", target(2048), 101, ""),
        row("a target of 2 KiB and a byte", target(2049), 414, "target_too_long"),
        row("a target without an end", format!("GET /{}", "a".repeat(3000)), 414, "target_too_long"),
    ]);
}

#[test]
fn row_2_header_lines_are_counted_repeated_names_too() {
    assert_rows(&[row("64 lines", fields(64), 101, ""), row("65 lines", fields(65), 431, "headers")]);
}

/// Not the time between two bytes counts but the time since the first: one byte a moment never restarts it.
#[test]
fn row_3_a_slow_head_is_cut_off_in_time() {
    let house = House::open("[limits]\nhandshake = \"1s\"\n");
    let began = Instant::now();
    let mut wire = house.dial();
    let mut head = with("").into_iter();
    while !wire.hears_within(Duration::from_millis(40)) {
        wire.send([head.next().expect("the head is longer than the time allowed")]);
        assert!(began.elapsed() < DEADLINE, "nobody cut it off");
    }
    let reply = wire.reply();
    reply.assert_refused("a slow head", 408, "handshake_timeout");
    assert!(began.elapsed() >= Duration::from_millis(900), "too early: {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(5), "too late: {:?}", began.elapsed());
    assert_eq!(wire.rest().expect("an orderly end"), b"");

    let mut silent = house.dial();
    assert_eq!(silent.rest().expect("an orderly end for one that says nothing"), b"");
}

#[test]
fn row_4_a_head_in_too_many_pieces_is_refused() {
    let house = House::with_reactors("", 1);
    let mut wire = house.dial();
    let head = with("");
    let mut sent = 0;
    for byte in &head {
        wire.send([*byte]);
        house.barrier();
        sent += 1;
        if sent > 64 {
            break;
        }
    }
    wire.reply().assert_refused("65 pieces of one byte", 400, "dribble");
    assert_eq!(wire.rest().expect("an orderly end"), b"");

    // As many pieces as are allowed.
    let mut wire = house.dial();
    let (pieces, last) = head.split_at(63);
    for byte in pieces {
        wire.send([*byte]);
        house.barrier();
    }
    wire.send(last);
    wire.expect_101();
}

#[test]
fn row_5_empty_lines_before_a_request_are_few() {
    let behind = |lines: &str| [lines.as_bytes(), &with("")].concat();
    assert_rows(&[
        row("two", behind("\r\n\r\n"), 101, ""),
        row("three", behind("\r\n\r\n\r\n"), 400, "syntax"),
        row("endless", "\r\n".repeat(3000), 400, "syntax"),
        row("bare line feeds", behind("\n\n"), 400, "syntax"),
    ]);
}

#[test]
fn row_6_what_parsers_disagree_on_is_refused() {
    assert_rows(&[
        row("a bare LF", but("\r\nUpgrade", "\nUpgrade"), 400, "syntax"),
        row("LF and LF at the end", but(&format!("{KEY}\r\n\r\n"), &format!("{KEY}\n\n")), 400, "syntax"),
        row("a bare CR", with("x: a\rb\r\n"), 400, "syntax"),
        row("a NUL", with("x: a\0b\r\n"), 400, "syntax"),
        row("a folded line", with("x: a\r\n b\r\n"), 400, "syntax"),
        row("a space before the colon", with("x : a\r\n"), 400, "syntax"),
        row("an empty name", with(": a\r\n"), 400, "syntax"),
        row("no colon", with("x\r\n"), 400, "syntax"),
        row("a control character in a value", with("x: \u{1}\r\n"), 400, "syntax"),
        row("a byte beyond ASCII in a value", with("x: é\r\n"), 400, "syntax"),
        row("a byte beyond ASCII in a name", with("é: x\r\n"), 400, "syntax"),
        row("two spaces", but("GET /", "GET  /"), 400, "syntax"),
        row("a tab", but("GET /", "GET\t/"), 400, "syntax"),
        row("something behind the version", but("HTTP/1.1\r", "HTTP/1.1 x\r"), 400, "syntax"),
        row("no version", but(" HTTP/1.1", ""), 400, "syntax"),
    ]);
}

#[test]
fn row_7_there_is_one_host() {
    assert_rows(&[
        row("none", but("Host: test\r\n", ""), 400, "host"),
        row("empty", but("Host: test", "Host: "), 400, "host"),
        row("two", with("Host: other\r\n"), 400, "host"),
        row("twice the same", with("host: test\r\n"), 400, "host"),
        row("a path", but("Host: test", "Host: test/admin"), 400, "host"),
        row("a user", but("Host: test", "Host: a@test"), 400, "host"),
        row("a space", but("Host: test", "Host: te st"), 400, "host"),
        row("a list", but("Host: test", "Host: test, other"), 400, "host"),
        row("a port that is none", but("Host: test", "Host: test:http"), 400, "host"),
        row("a name and a port", but("Host: test", "Host: test:8080"), 101, ""),
        row("an address", but("Host: test", "Host: [::1]:80"), 101, ""),
    ]);
}

#[test]
fn row_8_an_upgrade_has_no_body() {
    let smuggled = "GET /health HTTP/1.1\r\nHost: test\r\n\r\n";
    let length = |field: &str| [with(field), smuggled.as_bytes().to_vec()].concat();
    assert_rows(&[
        row("Content-Length", length(&format!("Content-Length: {}\r\n", smuggled.len())), 400, "body"),
        row("Transfer-Encoding", length("Transfer-Encoding: chunked\r\n"), 400, "body"),
        row("both", length("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), 400, "body"),
        row("an odd Transfer-Encoding", length("Transfer-Encoding: xchunked\r\n"), 400, "body"),
        row("two lengths", length("Content-Length: 0\r\nContent-Length: 39\r\n"), 400, "syntax"),
        row("a signed length", length("Content-Length: +0\r\n"), 400, "syntax"),
        row("a length of nothing", with("Content-Length: 0\r\n"), 101, ""),
    ]);
}

/// The table says 400 for an upgrade that names something else; 426 says the same and what to do (RFC 9110, 15.5.22).
#[test]
fn row_9_only_get_over_http_1_1_becomes_a_websocket() {
    let method = |method: &str| but("GET ", &format!("{method} "));
    assert_rows(&[
        row("POST", method("POST"), 405, "method"),
        row("PUT", method("PUT"), 405, "method"),
        row("PATCH", method("PATCH"), 405, "method"),
        row("get", method("get"), 405, "method"),
        row("CONNECT", but("GET /v1/echo", "CONNECT test:80"), 400, "target"),
        row("CONNECT with a path", method("CONNECT"), 405, "method"),
        row("HTTP/1.0", but("HTTP/1.1", "HTTP/1.0"), 505, "http_version"),
        row("HTTP/2.0", but("HTTP/1.1", "HTTP/2.0"), 505, "http_version"),
        row("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "http_version"),
        row(
            "h2c",
            but("Upgrade: websocket\r\nConnection: Upgrade", "Upgrade: h2c\r\nConnection: Upgrade, close"),
            426,
            "not_an_upgrade",
        ),
    ]);
}

#[test]
fn row_10_another_version_is_told_ours_and_nothing_behind_it_is_read() {
    let house = House::open("");
    for version in ["8", "0", "14", "013", "13, 8", ""] {
        let mut wire = house.dial();
        let field = format!("Sec-WebSocket-Version: {version}");
        wire.send([but("Sec-WebSocket-Version: 13", &field), with("")].concat());
        let reply = wire.reply();
        reply.assert_refused(&field, 426, "version");
        assert_eq!(reply.header("sec-websocket-version"), Some("13"), "{reply}");
        assert!(reply.says_close(), "{reply}");
        let rest = wire.rest().expect("an orderly end");
        assert!(rest.is_empty(), "the second request was answered: {}", String::from_utf8_lossy(&rest));
    }
}

#[test]
fn row_11_the_key_is_sixteen_bytes_once() {
    let line = format!("Sec-WebSocket-Key: {KEY}\r\n");
    let key = |key: &str| but(&line, &format!("Sec-WebSocket-Key: {key}\r\n"));
    assert_rows(&[
        row("missing", but(&line, ""), 400, "key"),
        row("empty", key(""), 400, "key"),
        row("15 bytes", key("AAAAAAAAAAAAAAAAAAAA"), 400, "key"),
        row("17 bytes", key("AAAAAAAAAAAAAAAAAAAAAAA="), 400, "key"),
        row("not base64", key("!!!!!!!!!!!!!!!!!!!!!!=="), 400, "key"),
        row("without padding", key("dGhlIHNhbXBsZSBub25jZQ"), 400, "key"),
        row("repeated", with(&line), 400, "key"),
    ]);
}

/// The table says 400 where the token is absent; see row 9 for 426.
#[test]
fn row_12_upgrade_and_connection_are_lists_of_tokens() {
    let upgrade = |value: &str| but("Upgrade: websocket", &format!("Upgrade: {value}"));
    let connection = |value: &str| but("Connection: Upgrade", &format!("Connection: {value}"));
    assert_rows(&[
        row("mixed case", upgrade("WebSocket"), 101, ""),
        row("a list", upgrade("websocket, foo"), 101, ""),
        row("a list, ours last", upgrade("foo , WEBSOCKET"), 101, ""),
        row("over two lines", but("Upgrade: websocket", "Upgrade: foo\r\nupgrade: websocket"), 101, ""),
        row("a connection list", connection("keep-alive,uPgRaDe"), 101, ""),
        row(
            "part of a word",
            but("Upgrade: websocket\r\nConnection: Upgrade", "Upgrade: websockets\r\nConnection: close"),
            426,
            "not_an_upgrade",
        ),
        // Without it this is an ordinary request, whose connection lives on unless it asks for the end.
        row("no Upgrade", but("Upgrade: websocket\r\nConnection: Upgrade", "Connection: close"), 426, "not_an_upgrade"),
        row("no Connection", but("Connection: Upgrade\r\n", ""), 426, "not_an_upgrade"),
        row("another connection option", connection("close"), 426, "not_an_upgrade"),
    ]);
}

/// A proxy that took our refusal for a tunnel would carry a second request past its own rules.
#[test]
fn row_13_nothing_behind_a_refused_upgrade_is_a_request() {
    let house = House::open("");
    let second = "POST /api/prompts/ HTTP/1.1\r\nHost: test\r\nContent-Length: 30\r\n\r\n{\"name\":\"x\",\"directory\":\"evil\"}";
    for (what, first, status) in [
        ("an unknown path", handshake("/nowhere", ""), 404),
        ("an unknown prompt", handshake("/ws/prompts/nowhere", ""), 403),
        ("a bad version", handshake("/v1/echo", "").replace("n: 13", "n: 7"), 426),
        ("a bad origin", handshake("/v1/echo", "Origin: a\r\nOrigin: b\r\n"), 403),
    ] {
        let mut wire = house.dial();
        wire.send(first + second);
        let reply = wire.reply();
        assert_eq!(reply.status, status, "{what}: {reply}");
        assert!(reply.says_close(), "{what}: {reply}");
        let rest = wire.rest().expect("an orderly end");
        assert!(rest.is_empty(), "behind {what}: {}", String::from_utf8_lossy(&rest));
    }
    let all = house.get("/api/prompts/all");
    assert_eq!(all.json().as_array().map(Vec::len), Some(0), "a smuggled request was carried out: {all}");
}

/// A plain endpoint asked with `Upgrade` answers plainly; and a body that came with it is no second request, although an
/// upgrade has none (a proxy in front has counted those bytes as the first request's).
#[test]
fn row_14_a_plain_endpoint_never_becomes_a_tunnel() {
    let house = House::open("");
    for target in ["/health", "/healthz", "/readyz", "/metrics", "/api/prompts/all"] {
        let mut wire = house.dial();
        wire.send(handshake(target, ""));
        let reply = wire.reply();
        assert_eq!(reply.status, 200, "{target}: {reply}");
        assert!(reply.header("sec-websocket-accept").is_none(), "{target}: {reply}");
    }
    let smuggled = "GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    for target in ["/health", "/readyz", "/api/prompts/all"] {
        let mut wire = house.dial();
        let fields = format!("{}Content-Length: {}\r\n", upgrade_fields(), smuggled.len());
        // The third request asks for the end of the connection, so that the answers can be counted.
        let end = "GET /healthz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        wire.send(request("GET", target, &fields, "") + smuggled + end);
        let answers = String::from_utf8_lossy(&wire.rest().expect("an orderly end")).into_owned();
        assert!(!answers.contains("commitcast_connections"), "{target}: the body was answered as a request");
    }
}

#[test]
fn row_15_frames_that_come_with_the_handshake_wait_for_it() {
    let house = House::open("");
    let mut wire = house.dial();
    wire.send([with(""), text("early"), frame(BINARY, b"bird")].concat());
    wire.expect_101();
    assert_eq!(wire.frame().payload, b"early");
    assert_eq!(wire.frame().payload, b"bird");

    // As many bytes as are allowed, and one more.
    for (bytes, status) in [(4096, 101), (4097, 400)] {
        let payload = vec![b'x'; bytes - header(BINARY, 4000).len() - 4];
        let early = frame(BINARY, &payload);
        assert_eq!(early.len(), bytes);
        let mut wire = house.dial();
        wire.send([with(""), early].concat());
        let reply = wire.reply();
        assert_eq!(reply.status, status, "{bytes} early bytes: {reply}");
        if status == 101 {
            assert_eq!(wire.frame().payload, payload);
        } else {
            reply.assert_refused("early bytes", 400, "early_data");
            assert_eq!(wire.rest().expect("an orderly end"), b"");
        }
    }

    // Not authorised: they are never looked at, though the first would be a protocol error.
    let mut wire = house.dial();
    wire.send([handshake("/ws/prompts/nowhere", ""), "\u{1}\u{2}".to_owned()].concat());
    wire.reply().assert_refused("frames to an unknown prompt", 403, "unknown_prompt");
    assert_eq!(wire.rest().expect("an orderly end"), b"");
}

#[test]
fn row_16_a_target_is_a_path_and_means_one_thing() {
    let target = |target: &str| handshake(target, "");
    let bytes = |bytes: &[u8]| [b"GET /v1/", bytes, &but("GET /v1/echo", "")[..]].concat();
    assert_rows(&[
        row("absolute", target("http://test/v1/echo"), 400, "target"),
        row("an asterisk", target("*"), 400, "target"),
        row("a fragment", target("/v1/echo#x"), 400, "target"),
        row("beyond ASCII", bytes("é".as_bytes()), 400, "target"),
        row("a byte of control", bytes(b"\x01"), 400, "target"),
        row("dots", target("/v1/../v1/echo"), 400, "target"),
        row("a dot", target("/v1/./echo"), 400, "target"),
        row("escaped dots", target("/x/%2e%2e/v1/echo"), 400, "target"),
        row("half-escaped dots", target("/x/.%2E/v1/echo"), 400, "target"),
        row("dots between escaped slashes", target("/x%2f..%2fv1/echo"), 400, "target"),
        row("two slashes", target("//v1/echo"), 404, "unknown_path"),
        row("two slashes inside", target("/v1//echo"), 404, "unknown_path"),
        row("a slash behind", target("/v1/echo/"), 404, "unknown_path"),
        row("an escaped letter", target("/v1/%65cho"), 404, "unknown_path"),
        row("a parameter", target("/v1/echo;x"), 404, "unknown_path"),
        row("another case", target("/v1/Echo"), 404, "unknown_path"),
        row("a query", target("/v1/echo?a=/../b"), 101, ""),
    ]);
}

#[test]
fn row_17_offers_we_do_not_know_are_ignored() {
    let house = House::open("");
    let offers = |name: &str, count: usize| format!("{name}: {}\r\n", vec!["a"; count].join(","));
    for (what, fields) in [
        ("an extension", "Sec-WebSocket-Extensions: x-nothing; a=1; b=\"2\"\r\n".to_owned()),
        // Row 55: no compression unless it is switched on, so no bomb.
        ("deflate", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n".to_owned()),
        // Row 56.
        ("bad windows", "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99\r\n".to_owned()),
        ("a subprotocol", "Sec-WebSocket-Protocol: graphql-ws, mqtt\r\n".to_owned()),
        ("2,000 extensions", offers("Sec-WebSocket-Extensions", 2000)),
        ("2,000 subprotocols", offers("Sec-WebSocket-Protocol", 2000)),
    ] {
        let mut wire = house.dial();
        wire.send(handshake("/v1/echo", &fields));
        let reply = wire.expect_101();
        assert_eq!(reply.header("sec-websocket-extensions"), None, "{what}: {reply}");
        assert_eq!(reply.header("sec-websocket-protocol"), None, "{what}: {reply}");
        wire.assert_silent_and_alive(what);
    }
    let mut wire = house.dial();
    wire.send(handshake("/v1/echo", &offers("Sec-WebSocket-Extensions", 10_000)));
    wire.reply().assert_refused("10,000 offers", 431, "head_too_big");
}

/// S11: an unknown path is 404 and never 403, says so in the counter too, and knows nothing of credentials.
#[test]
fn row_18_an_unknown_path_is_404() {
    let house = House::open("");
    let paths =
        ["/", "/mqtt", "/leafnode", "/wss", "/ws/", "/ws/readme", "/socket.io/", "/v1/connect2", "/ws/prompt/x"];
    for path in paths {
        let mut wire = house.dial();
        wire.send(handshake(path, "Origin: null\r\nAuthorization: Bearer x\r\n"));
        wire.reply().assert_refused(path, 404, "unknown_path");
        assert_eq!(wire.rest().expect("an orderly end"), b"", "{path}");
    }
    let refused = house.metric("commitcast_ws_reject_total{reason=\"unknown_path\"}");
    assert_eq!(refused, paths.len() as f64, "each refusal is counted once");
}

#[test]
fn row_19_no_expectation_is_met() {
    let house = House::open("");
    assert_rows(&[
        row("100-continue", with("Expect: 100-continue\r\n"), 417, "expectation"),
        row("anything", with("Expect: x\r\n"), 417, "expectation"),
    ]);
    let mut wire = house.dial();
    wire.send(request("POST", "/api/prompts/", "Expect: 100-continue\r\n", "{}"));
    wire.reply().assert_refused("a body that waits for leave", 417, "expectation");
}

/// Answered after at most 64 bytes, long before the handshake's time is over.
#[test]
fn row_20_what_is_not_http_is_turned_away_at_once() {
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    let noise = |seed: u64| -> Vec<u8> {
        let step = |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        std::iter::successors(Some(seed), step).map(|state| (state >> 33) as u8 | 0x80).take(64).collect()
    };
    let mut rows = vec![
        row("a TLS ClientHello", tls, 400, "syntax"),
        row("ssh", "SSH-2.0-OpenSSH_9.2\r\n", 405, "method"),
        row("64 NULs", vec![0; 64], 400, "syntax"),
    ];
    rows.extend((1..50).map(|seed| row("noise", noise(seed), 400, "syntax")));
    assert_rows(&rows);
}

/// S1: a verdict does not depend on where the network cuts the bytes.
#[test]
fn representative_heads_are_judged_the_same_when_cut_at_every_byte() {
    let house = House::with_reactors("", 1);
    for row in [
        row("a good handshake", [with("x: \t y\r\n"), text("hi")].concat(), 101, ""),
        row("empty lines before it", [b"\r\n\r\n", &with("")[..]].concat(), 101, ""),
        row("a folded line", with("x: a\r\n b\r\n"), 400, "syntax"),
        row("two hosts", with("Host: b\r\n"), 400, "host"),
        row("a body", [with("Content-Length: 5\r\n"), b"GET /".to_vec()].concat(), 400, "body"),
        row("a bad version", but("n: 13", "n: 12"), 426, "version"),
        row("HTTP/1.0", but("HTTP/1.1", "HTTP/1.0"), 505, "http_version"),
        row("dots", but("/v1/echo", "/a/%2e./echo"), 400, "target"),
        row("an unknown path", but("/v1/echo", "/nowhere"), 404, "unknown_path"),
    ] {
        for cut in 1..row.bytes.len() {
            let (front, back) = row.bytes.split_at(cut);
            let mut wire = house.dial();
            wire.send(front);
            house.barrier();
            // A refusal may have come already; then the rest is thrown away unread, or meets a closed socket.
            let _ = wire.try_send(back);
            let reply = wire.reply();
            let seen = (reply.status, reply.reason());
            assert_eq!(seen, (row.status, row.reason), "{} cut at {cut}: {reply}", row.what);
            if row.status == 101 {
                wire.send(close(1000, ""));
                let mut frames = vec![wire.frame()];
                while frames.last().is_some_and(|frame| frame.first != CLOSE) {
                    frames.push(wire.frame());
                }
                let texts = frames.iter().filter(|frame| frame.first == TEXT).count();
                let early = row.bytes.ends_with(&text("hi"));
                assert_eq!(texts, usize::from(early), "{} cut at {cut}: {frames:?}", row.what);
            }
        }
    }
}

/// Somebody who did not write this server agrees that it speaks WebSocket.
#[test]
fn an_independent_client_is_served() {
    let house = House::open("");
    let mut socket = peer(house.address, "/v1/echo");
    for message in [tungstenite::Message::text("hé"), tungstenite::Message::binary(vec![0, 255])] {
        socket.send(message.clone()).expect("sent");
        assert_eq!(socket.read().expect("answered"), message);
    }
    socket.send(tungstenite::Message::Ping(vec![1].into())).expect("sent");
    assert_eq!(socket.read().expect("answered"), tungstenite::Message::Pong(vec![1].into()));
    socket.close(None).expect("closed");
    let end = loop {
        match socket.read() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(end, tungstenite::Error::ConnectionClosed), "the close handshake was not completed: {end}");
}
