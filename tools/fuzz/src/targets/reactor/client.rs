//! One client of the script: what it can say, and what it was told.

use std::sync::LazyLock;
use std::time::Duration;

use commitcast::auth::rights::Rights;
use commitcast::auth::token::{Mint, mint};
use flate2::{Decompress, FlushDecompress};

use self::net::{Shared, lock};
use super::house::{KEY, SECRET};
use crate::dice;
use crate::served;
use crate::targets::stage::{NOW, SESSION};
use crate::targets::vocabulary::{self, Channel};

/// The simulation's.
#[path = "../../../../../tests/it/simulation/net.rs"]
#[allow(dead_code, reason = "the simulation uses more of it")]
pub mod net;

/// Where to go, and whether it is a socket.
pub const DOORS: [&str; 20] = [
    "/v1/connect",
    "/v1/backend",
    "/ws/prompts/p0",
    "/v1/connect",
    "/api/v1/ws?session_id=0af0bd5c-0000-4000-8000-00000000000a",
    "/ws/workflow/w?client_id=page",
    "/ws",
    "/ws/logs?since=0",
    "/api/v1/ws/connect",
    "/api/v1/chat/ws/t",
    "/ws/coordinator",
    "/v1/echo",
    "/ws/prompts/none",
    "/api/ws/test",
    "/nowhere",
    // Plain requests.
    "GET /health",
    "GET /metrics",
    "POST /api/prompts/",
    "GET /v1/tasks?kinds=execute&max=2&wait=3",
    "POST /v1/publish",
];

/// What clients say of all dialects: any of them may be said anywhere.
const PHRASES: [&str; 40] = [
    r#"{"op":"join","room":"free"}"#,
    r#"{"op":"publish","room":"free","id":"a1","data":{"n":1}}"#,
    r#"{"op":"publish","room":"free","id":"a2","data":"a longer text, a longer text, a longer text, a longer text"}"#,
    r#"{"op":"signal","room":"free","data":{"typing":true}}"#,
    r#"{"op":"presence","room":"free"}"#,
    r#"{"op":"leave","room":"free"}"#,
    r#"{"op":"join","room":"doc:d/p0"}"#,
    r#"{"op":"publish","room":"doc:d/p0","id":"b1","type":"update","data":{"content":"by native"}}"#,
    r#"{"op":"join","room":"free","since":{"epoch":"0000000000000000","seq":0}}"#,
    r#"{"op":"publish","room":"free","id":"c1","data":1,"if_rev":1}"#,
    r#"{"op":"ping"}"#,
    r#"{"op":"auth","token":"none"}"#,
    r#"{"op":"join","room":"session:0af0bd5c-0000-4000-8000-00000000000a"}"#,
    r#"{"op":"take","kinds":["execute","chat","control","decision"],"max":3,"lease_ms":2000}"#,
    r#"{"op":"take","kinds":[],"max":1}"#,
    r#"{"op":"done","task":"1","fence":1}"#,
    r#"{"op":"fail","task":"1","fence":1,"retry_ms":10}"#,
    r#"{"op":"session","id":"0af0bd5c-0000-4000-8000-00000000000a","user_id":"ann"}"#,
    r#"{"op":"publish","room":"session:0af0bd5c-0000-4000-8000-00000000000a","type":"execute","data":{"command":"pay"}}"#,
    r#"{"op":"approval","session":"0af0bd5c-0000-4000-8000-00000000000a","tool_name":"pay","tool_args":{},"reason":"r","expires_in":2}"#,
    r#"{"op":"publish","room":"topic:text","type":"progress","data":{"percentage":0.5}}"#,
    r#"{"op":"publish","room":"workflow:w","type":"progress","data":{"progress":0.5}}"#,
    r#"{"op":"publish","room":"tickets","type":"ticket_created","data":{"ticket_id":"t","ticket_name":"N","session_id":"s"}}"#,
    r#"{"op":"status"}"#,
    r#"{"action":"update","content":"an edit"}"#,
    r#"{"action":"update","id":"e1","content":"an edit with a name, an edit with a name, an edit with a name"}"#,
    r#"{"action":"expand","content":"[[p0]] [[p1]]"}"#,
    r#"{"action":"get_details"}"#,
    r#"{"action":"update_metadata","description":"d","tags":["x"]}"#,
    r#"{"type":"ping"}"#,
    r#"{"type":"execute","data":{"command":"pay"}}"#,
    r#"{"type":"cancel","data":{"execution_id":"0af0bd5c-0000-4000-8000-00000000000b"}}"#,
    r#"{"type":"control","action":"pause"}"#,
    r#"{"type":"get_metrics"}"#,
    r#"{"action":"subscribe","topic":"text"}"#,
    r#"{"action":"unsubscribe","topic":"text"}"#,
    r#"{"message":"hello","temperature":0.1}"#,
    r#"{"type":"user_response","session_id":"s","response":"yes"}"#,
    r#"{"op":"publish","room":"chat:t","type":"chunk","data":{"content":"c"}}"#,
    "no JSON",
];

/// A body for a plain request.
const BODY: &str = r#"{"name":"new","content":"c","room":"free","type":"note","data":1,"id":"h1"}"#;

static TOKEN: LazyLock<String> = LazyLock::new(|| {
    let all = Rights::all();
    let ttl = Some(Duration::from_secs(40));
    mint(SECRET.as_bytes(), &Mint { sub: "ada", ttl, rooms: Some(&all), ..Mint::default() }, NOW).expect("a token")
});

#[derive(Debug)]
pub struct Client {
    pub wire: Shared,
    channels: Vec<&'static Channel>,
    is_echo: bool,
    /// It has sent what is none of our making, so what it is answered is known to be HTTP only as long as no HEAD is in
    /// it.
    sent: Vec<u8>,
    heard: Vec<u8>,
    /// It went, or the process ended: what it was told may end anywhere.
    cut: bool,
}

impl Client {
    pub fn dial(door: usize, choice: u8, seed: u64) -> Client {
        let wire = net::wire(seed ^ u64::from(choice) << 8, net::Trace::default());
        if choice & 1 != 0 {
            lock(&wire).window = 200 + usize::from(choice);
        }
        let mut client =
            Client { wire, channels: Vec::new(), is_echo: false, sent: Vec::new(), heard: Vec::new(), cut: false };
        let token = match choice >> 1 & 3 {
            0 => String::new(),
            1 => format!("Authorization: Bearer {}\r\n", *TOKEN),
            2 => format!("X-API-Key: {KEY}\r\n"),
            _ => "Authorization: Bearer none\r\n".to_owned(),
        };
        let deflate = if choice & 8 == 0 { "" } else { "Sec-WebSocket-Extensions: permessage-deflate\r\n" };
        let door = DOORS[door];
        let request = match door.split_once(' ') {
            Some((method, path)) => format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\n{token}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{BODY}",
                BODY.len()
            ),
            None => {
                client.is_echo = door.ends_with("echo");
                let path = door.split('?').next().unwrap_or(door);
                client.channels = if path == "/nowhere" { Vec::new() } else { vocabulary::at(path) };
                format!(
                    "GET {door} HTTP/1.1\r\nHost: x\r\n{token}{deflate}Upgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                )
            }
        };
        // Some say nothing, and some not everything, before they are heard of again.
        let length = if choice & 0x70 == 0x70 { usize::from(choice) } else { request.len() };
        client.send(&request.as_bytes()[..length.min(request.len())]);
        client
    }

    pub fn send(&mut self, bytes: &[u8]) {
        if !self.cut {
            self.sent.extend_from_slice(bytes);
            lock(&self.wire).client_sends(bytes);
        }
    }

    /// A masked frame.
    pub fn say(&mut self, first: u8, payload: &[u8]) {
        const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
        let mut frame = vec![first];
        match payload.len() {
            short @ ..126 => frame.push(0x80 | short as u8),
            middle => {
                frame.push(0x80 | 126);
                frame.extend((middle as u16).to_be_bytes());
            }
        }
        frame.extend(KEY);
        frame.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
        self.send(&frame);
    }

    pub fn say_phrase(&mut self, which: usize) {
        self.say(0x81, PHRASES[which % PHRASES.len()].as_bytes());
    }

    pub fn read(&mut self, most: usize) {
        let heard = lock(&self.wire).client_reads(most);
        self.heard.extend(heard);
    }

    /// How many bytes there were.
    pub fn read_all(&mut self) -> usize {
        let before = self.heard.len();
        self.read(usize::MAX);
        self.heard.len() - before
    }

    pub fn leave(&mut self, reset: bool) {
        self.cut = true;
        lock(&self.wire).client_leaves(reset);
    }

    /// The process has ended: what the kernel had taken still arrives.
    pub fn crash(&mut self) {
        self.read_all();
        self.leave(false);
    }

    /// What it was told is well formed. `given_up`: it may have been left in the middle of something.
    pub fn judge(&self, given_up: bool) {
        if self.sent.windows(5).any(|five| five == b"HEAD ") {
            // Which of the answers have no body only whoever sent it knows.
            return;
        }
        let mut rest = &self.heard[..];
        while !rest.is_empty() {
            let Some(response) = served::response(rest) else { return self.must_be_cut(rest, given_up) };
            rest = &rest[response.used..];
            if response.status == 101 {
                let deflate = response.field("sec-websocket-extensions").is_some();
                return self.judge_frames(rest, deflate, given_up);
            }
        }
    }

    fn must_be_cut(&self, rest: &[u8], given_up: bool) {
        let is_given_up = given_up && lock(&self.wire).server_gone;
        assert!(self.cut || is_given_up, "the stream ends in the middle of {:?}", String::from_utf8_lossy(rest));
    }

    fn judge_frames(&self, mut rest: &[u8], deflate: bool, given_up: bool) {
        let mut closed = false;
        while !rest.is_empty() {
            assert!(!closed, "something is said behind a close");
            let Some((first, payload, used)) = served::frame(rest) else { return self.must_be_cut(rest, given_up) };
            rest = &rest[used..];
            match first {
                0x81 => self.judge_text(payload),
                0xc1 if deflate => self.judge_text(&inflated(payload)),
                0x82 if self.is_echo => {}
                0xc2 if self.is_echo && deflate => drop(inflated(payload)),
                0x88 => {
                    closed = true;
                    assert!(payload.len() != 1 && payload.len() <= 125);
                    if let Some((code, reason)) = payload.split_first_chunk::<2>() {
                        let code = u16::from_be_bytes(*code);
                        assert!(commitcast::ws::close::may_be_received(code), "a close with {code}");
                        assert!(std::str::from_utf8(reason).is_ok(), "a reason of ours is text");
                    }
                }
                0x89 | 0x8a => assert!(payload.len() <= 125),
                other => panic!("a frame of ours begins with {other:#x}"),
            }
        }
    }

    fn judge_text(&self, payload: &[u8]) {
        assert!(std::str::from_utf8(payload).is_ok(), "a text of ours is UTF-8");
        if !self.is_echo {
            vocabulary::hear(&self.channels, payload);
        }
    }
}

fn inflated(payload: &[u8]) -> Vec<u8> {
    let whole = [payload, &[0, 0, 0xff, 0xff]].concat();
    let mut out = Vec::with_capacity(1 << 20);
    let result = Decompress::new(false).decompress_vec(&whole, &mut out, FlushDecompress::Sync);
    assert!(result.is_ok() && out.len() < out.capacity(), "what we compress can be inflated");
    out
}

const _: () = assert!(SESSION.len() == 36, "the phrases name the session");
