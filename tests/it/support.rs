//! What the tests share: a real server in this process, raw sockets with deadlines, masked frames, an independent client.

use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use commitcast::auth::rights::Rights;
use commitcast::auth::token::{Mint, mint};
use commitcast::clock::Clock;
use commitcast::config::{ConfigError, Flags, Settings};
use commitcast::server::Server;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use tempfile::TempDir;
use tungstenite::WebSocket;

/// No single wait of a test is longer; what takes this long on a loaded machine is stuck.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The key of RFC 6455's example, and what it is answered with.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The secret of the tests' servers in token mode.
pub const SECRET: &str = "a secret of thirty-two bytes or more";

/// What a server is built from: a configuration as it would stand in a file, a directory, and a free loopback port.
pub fn settings(config: &str, data: &Path, reactors: usize) -> Result<Settings, ConfigError> {
    let flags = Flags {
        config: Some("test.toml".into()),
        listen: vec!["127.0.0.1:0".to_owned()],
        data: Some(data.to_owned()),
        reactors: Some(reactors),
        ..Flags::default()
    };
    Settings::build(&flags, std::iter::empty(), |_| Ok(config.to_owned()))
}

/// A running server, its address and its store's directory. It ends with its owner.
#[derive(Debug)]
pub struct House {
    server: Option<Server>,
    settings: Settings,
    pub address: SocketAddr,
    /// Removed behind the server.
    data: TempDir,
}

impl House {
    /// Two reactors, so that what must cross from one to the other does.
    pub fn open(config: &str) -> House {
        House::with_reactors(config, 2)
    }

    pub fn with_reactors(config: &str, reactors: usize) -> House {
        let data = tempfile::tempdir().expect("a temporary directory");
        let settings = settings(config, &data.path().join("data"), reactors)
            .unwrap_or_else(|error| panic!("the configuration of this test is wrong: {error}\n{config}"));
        let server = Server::start(&settings).unwrap_or_else(|error| panic!("the server did not start: {error}"));
        let address = server.addresses[0];
        House { server: Some(server), settings, address, data }
    }

    /// Where its store is.
    pub fn data(&self) -> std::path::PathBuf {
        self.data.path().join("data")
    }

    /// What SIGHUP does, with this for the file.
    pub fn reload(&self, config: &str) {
        let new = settings(config, &self.data(), 1).unwrap_or_else(|error| panic!("{error}\n{config}"));
        let live = self.settings.reload(&new).unwrap_or_else(|error| panic!("{error}\n{config}"));
        self.server.as_ref().expect("it runs").reload(live);
    }

    pub fn dial(&self) -> Wire {
        Wire::dial(self.address)
    }

    /// One request on a connection of its own. `fields` are whole lines.
    pub fn ask(&self, method: &str, target: &str, fields: &str, body: &str) -> Reply {
        let mut wire = self.dial();
        wire.send(request(method, target, fields, body));
        wire.reply()
    }

    pub fn get(&self, target: &str) -> Reply {
        self.ask("GET", target, "", "")
    }

    /// Stores a prompt over REST. `fields` carry the credential, where one is needed.
    pub fn create(&self, directory: &str, name: &str, content: &str, fields: &str) {
        let body = serde_json::json!({"directory": directory, "name": name, "content": content}).to_string();
        let reply = self.ask("POST", "/api/prompts/", fields, &body);
        assert_eq!(reply.status, 201, "{directory}/{name} could not be created: {reply}");
    }

    /// What is stored, over REST.
    pub fn content(&self, id: &str) -> String {
        let reply = self.get(&format!("/api/prompts/{id}"));
        assert_eq!(reply.status, 200, "{id}: {reply}");
        reply.json()["content"].as_str().expect("a content").to_owned()
    }

    pub fn upgrade(&self, target: &str) -> Wire {
        Wire::upgrade(self.address, target, "")
    }

    /// A prompt's socket whose `initial` was read.
    pub fn join(&self, id: &str, fields: &str) -> Wire {
        let mut wire = Wire::upgrade(self.address, &format!("/ws/prompts/{id}"), fields);
        let initial = wire.json();
        assert_eq!(initial["action"], "initial", "{initial}");
        wire
    }

    /// One sample of `/metrics`, 0 when it is not there: a counter with labels appears with its first count.
    pub fn metric(&self, sample: &str) -> f64 {
        let reply = self.get("/metrics");
        let text = reply.text();
        let value = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap_or_else(|_| panic!("{sample} is no number: {value}")))
    }

    /// Asks until the sample is what it should be: counts are published once a turn.
    pub fn wait_for_metric(&self, sample: &str, wanted: impl Fn(f64) -> bool) -> f64 {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let value = self.metric(sample);
            if wanted(value) {
                return value;
            }
            assert!(Instant::now() < deadline, "{sample} stays at {value}:\n{}", self.get("/metrics").text());
            std::thread::yield_now();
        }
    }

    /// Returns when a server with ONE reactor has read everything sent before. The connection made here is accepted,
    /// dealt out and registered behind all earlier ones, and what became readable first is reported first.
    pub fn barrier(&self) {
        let reply = self.get("/healthz");
        assert_eq!(reply.status, 200, "{reply}");
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            // A test that failed does not wait for its clients to be polite.
            server.stop(Duration::ZERO, Duration::ZERO, || true);
        }
    }
}

/// A request head and body; Host and Content-Length are added.
pub fn request(method: &str, target: &str, fields: &str, body: &str) -> String {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{fields}");
    if !body.is_empty() {
        let _ = write!(text, "Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    }
    text + "\r\n" + body
}

/// The four fields without which an upgrade is none.
pub fn upgrade_fields() -> String {
    format!("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n")
}

/// A correct handshake with further whole lines.
pub fn handshake(target: &str, fields: &str) -> String {
    request("GET", target, &(upgrade_fields() + fields), "")
}

/// An HS256 token of the tests' secret, good for an hour.
pub fn token(user: &str, rooms: &[(&str, &[&str])]) -> String {
    let rights = Rights::parse(rooms.iter().map(|(pattern, verbs)| (*pattern, verbs.iter().copied())))
        .expect("rights of a test are well-formed");
    let wanted = Mint { sub: user, ttl: Some(Duration::from_secs(3600)), rooms: Some(&rights), ..Mint::default() };
    mint(SECRET.as_bytes(), &wanted, Clock::system().wall()).expect("a token is made")
}

pub fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// An HTTP response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.head, String::from_utf8_lossy(&self.body))
    }
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub fn reason(&self) -> &str {
        self.header("x-ws-reject").unwrap_or("")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in the body of {self}"))
    }

    /// A refusal says the same thing in every place in which it says it.
    pub fn assert_refused(&self, what: &str, status: u16, reason: &str) {
        assert_eq!((self.status, self.reason()), (status, reason), "{what} was answered {self}");
        assert_eq!(self.header("x-websocket-reject-reason"), Some(reason), "{what}: {self}");
        let problem = self.json();
        assert_eq!((&problem["status"], &problem["code"]), (&status.into(), &reason.into()), "{what}: {self}");
        for told in ["detail", "hint"] {
            assert!(problem[told].as_str().is_some_and(|text| !text.is_empty()), "{what} has no {told}: {self}");
        }
    }

    pub fn says_close(&self) -> bool {
        let options = self.header("connection").unwrap_or("");
        options.split(',').any(|option| option.trim().eq_ignore_ascii_case("close"))
    }
}

/// A frame as the server sent it.
#[derive(Debug, PartialEq)]
pub struct Frame {
    pub first: u8,
    pub payload: Vec<u8>,
}

/// The bit of a first byte that begins a compressed message.
pub const COMPRESSED: u8 = 0x40;
pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;

impl Frame {
    /// Code and reason of a close frame; 1005 stands for a frame without a code, as browsers show it.
    pub fn closing(&self) -> Option<(u16, String)> {
        if self.first != CLOSE {
            return None;
        }
        let code = self.payload.first_chunk::<2>().map_or(1005, |code| u16::from_be_bytes(*code));
        Some((code, String::from_utf8_lossy(self.payload.get(2..).unwrap_or_default()).into_owned()))
    }

    /// As it was meant, by a client that has never read another message and remembers no more than this window.
    pub fn inflated(self, window_bits: u8) -> Frame {
        if self.first & COMPRESSED == 0 {
            return self;
        }
        let mut zlib = Decompress::new_with_window_bits(false, window_bits);
        let mut payload = Vec::with_capacity((self.payload.len() * 1040 + 64).min(1 << 21));
        let whole = [&self.payload[..], b"\0\0\xff\xff"].concat();
        zlib.decompress_vec(&whole, &mut payload, FlushDecompress::Sync).expect("what the server compressed is sound");
        assert_eq!(zlib.total_in(), whole.len() as u64);
        Frame { first: self.first & !COMPRESSED, payload }
    }
}

/// A message as a client compresses it.
pub fn deflate(payload: &[u8]) -> Vec<u8> {
    deflated_by(&mut Compress::new(Compression::default(), false), payload)
}

/// The same by a client that goes on where its last message ended.
pub fn deflated_by(zlib: &mut Compress, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + payload.len() / 8 + 64);
    zlib.compress_vec(payload, &mut out, FlushCompress::Sync).expect("zlib compresses anything");
    out.truncate(out.len() - 4);
    out
}

/// A client's frame: any first byte, masked, the shortest length.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = header(first, payload.len());
    let key = [0x37, 0xfa, 0x21, 0x3d];
    out.extend_from_slice(&key);
    out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

/// First byte and length with the mask bit; the key is missing.
pub fn header(first: u8, length: usize) -> Vec<u8> {
    let mut out = vec![first];
    match length {
        0..=125 => out.push(0x80 | length as u8),
        126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out
}

pub fn text(payload: &str) -> Vec<u8> {
    frame(TEXT, payload.as_bytes())
}

pub fn close(code: u16, reason: &str) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// A raw socket: every wait has a deadline, and what it waited for is in the message when it fails.
#[derive(Debug)]
pub struct Wire {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    pub fn dial(address: SocketAddr) -> Wire {
        Wire::try_dial(address).unwrap_or_else(|error| panic!("{address} could not be dialled: {error}"))
    }

    pub fn try_dial(address: SocketAddr) -> io::Result<Wire> {
        let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Wire { stream, buffer: Vec::new() })
    }

    /// A WebSocket; its 101 was read and is right.
    pub fn upgrade(address: SocketAddr, target: &str, fields: &str) -> Wire {
        let mut wire = Wire::dial(address);
        wire.send(handshake(target, fields));
        wire.expect_101();
        wire
    }

    pub fn expect_101(&mut self) -> Reply {
        let reply = self.reply();
        assert_eq!(reply.status, 101, "{reply}");
        assert_eq!(reply.header("sec-websocket-accept"), Some(ACCEPT), "{reply}");
        reply
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap_or_else(|error| panic!("could not be sent: {error}"));
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    pub fn send_json(&mut self, message: &serde_json::Value) {
        self.send(text(&message.to_string()));
    }

    pub fn end_sending(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).expect("an open socket");
    }

    /// The next response. A refusal's body is read too.
    pub fn reply(&mut self) -> Reply {
        self.try_reply().unwrap_or_else(|error| panic!("no response: {error}; so far {}", self.shown()))
    }

    pub fn try_reply(&mut self) -> io::Result<Reply> {
        let end = self.find(b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&self.take(end)).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status line: {head:?}")))?;
        let mut reply = Reply { status, head, body: Vec::new() };
        let length = reply.header("content-length").map_or(0, |length| length.parse().expect("a length"));
        self.hold(length)?;
        reply.body = self.take(length);
        Ok(reply)
    }

    pub fn frame(&mut self) -> Frame {
        self.try_frame().unwrap_or_else(|error| panic!("no frame: {error}; so far {}", self.shown()))
    }

    pub fn try_frame(&mut self) -> io::Result<Frame> {
        self.hold(2)?;
        let (first, short) = (self.buffer[0], self.buffer[1]);
        assert_eq!(short & 0x80, 0, "a server masks nothing");
        let start = match short {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        self.hold(start)?;
        let length = match short {
            126 | 127 => self.buffer[2..start].iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
            short => usize::from(short),
        };
        self.hold(start + length)?;
        let payload = self.take(start + length).split_off(start);
        Ok(Frame { first, payload })
    }

    /// The next frame is a text message of JSON.
    pub fn json(&mut self) -> serde_json::Value {
        let frame = self.frame();
        assert_eq!(frame.first, TEXT, "a text frame was expected: {frame:?}");
        serde_json::from_slice(&frame.payload).unwrap_or_else(|error| panic!("{error}: {frame:?}"))
    }

    /// The next frame closes with this code, and the stream ends behind it.
    pub fn expect_close(&mut self, what: &str, code: u16) -> String {
        let frame = self.frame();
        let Some((found, reason)) = frame.closing() else { panic!("{what}: {code} was expected, not {frame:?}") };
        assert_eq!(found, code, "{what}: closed with reason {reason:?}");
        let rest = self.rest().unwrap_or_else(|error| panic!("{what}: behind the close frame: {error}"));
        assert!(rest.is_empty(), "{what}: bytes behind the close frame: {rest:?}");
        reason
    }

    /// Everything up to the orderly end of the stream. A reset is an error: it can overtake what was said last.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + DEADLINE;
        while self.more(deadline)? > 0 {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Waits a moment for a byte: false when none came. The one way in which a test lets time pass.
    pub fn hears_within(&mut self, moment: Duration) -> bool {
        if !self.buffer.is_empty() {
            return true;
        }
        match self.more(Instant::now() + moment) {
            Ok(_) => true,
            Err(error) if is_timeout(&error) => false,
            Err(error) => panic!("the connection failed: {error}"),
        }
    }

    /// Like [`Wire::hears_within`], for a stream whose end is expected: a failed connection has ended too.
    pub fn hears_end_within(&mut self, moment: Duration) -> bool {
        match self.more(Instant::now() + moment) {
            Ok(read) => read == 0,
            Err(error) => !is_timeout(&error),
        }
    }

    /// Like [`Wire::hears_within`]; the end of the stream, or its failure, counts as something heard.
    pub fn hears_end_or_bytes_within(&mut self, moment: Duration) -> bool {
        !self.buffer.is_empty() || !self.more(Instant::now() + moment).is_err_and(|error| is_timeout(&error))
    }

    /// Told to go for a restart, whatever was under way before.
    pub fn expect_restart(&mut self) {
        let frame = self.frame();
        let code = frame.closing().map(|(code, _)| code);
        assert_eq!(code, Some(1012), "{frame:?}");
    }

    /// The connection is alive and nothing waits in it: what is sent now is the next thing answered.
    pub fn assert_silent_and_alive(&mut self, what: &str) {
        self.send(frame(PING, b"still there?"));
        let frame = self.frame();
        assert_eq!((frame.first, &*frame.payload), (PONG, &b"still there?"[..]), "{what}");
    }

    fn find(&mut self, what: &[u8]) -> io::Result<usize> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(at) = self.buffer.windows(what.len()).position(|window| window == what) {
                return Ok(at);
            }
            if self.more(deadline)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn hold(&mut self, length: usize) -> io::Result<()> {
        let deadline = Instant::now() + DEADLINE;
        while self.buffer.len() < length {
            if self.more(deadline)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        self.buffer.drain(..length).collect()
    }

    fn more(&mut self, deadline: Instant) -> io::Result<usize> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left))?;
        let mut piece = [0; 16 * 1024];
        // A read with a time limit is not begun again by itself after a stop signal (signal(7)).
        let read = loop {
            match self.stream.read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.buffer.extend_from_slice(&piece[..read]);
        Ok(read)
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }
}

pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// An independent client: tungstenite's own handshake, masks and checks judge ours.
pub fn peer(address: SocketAddr, target: &str) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, DEADLINE).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket's option");
    let (socket, response) =
        tungstenite::client(format!("ws://{address}{target}"), stream).expect("tungstenite accepts the handshake");
    assert_eq!(response.status(), 101);
    socket
}
