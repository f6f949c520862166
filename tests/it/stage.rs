//! What tests of the documents' vocabulary share: a server with Markdown files that can be stopped and started again, a
//! client that is not our code (`support.rs` speaks raw bytes), and the program as a process.
//!
//! Every wait is for a frame, a line or an end, and has a deadline; nothing sleeps.

use std::fmt::Debug;
use std::io::{BufRead as _, BufReader, ErrorKind, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use commitcast::server::{End, Server};
use serde_json::Value;
use tempfile::TempDir;
use tungstenite::client::IntoClientRequest as _;
use tungstenite::protocol::CloseFrame;
use tungstenite::{HandshakeError, Message, WebSocket};

use crate::support::{self, DEADLINE, is_timeout};

/// A server on a free loopback port, with a data directory of its own that goes with it.
#[derive(Debug)]
pub struct House {
    server: Option<Server>,
    pub address: SocketAddr,
    /// Where its Markdown files are, when it has any.
    pub files: Option<TempDir>,
    data: Option<TempDir>,
}

/// Serves on so many reactors. With one, what one client is told stands in a known order to what another is.
pub fn serve(reactors: usize, toml: &str) -> House {
    House::start(reactors, toml, tempfile::tempdir().unwrap(), None)
}

/// As [`serve`], with Markdown files: `(path below the root, text)`. Their documents' directories start with
/// [`House::root`].
pub fn serve_files(reactors: usize, toml: &str, files: &[(&str, &str)]) -> House {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    House::start(reactors, toml, tempfile::tempdir().unwrap(), Some(root))
}

/// What a server that was stopped has left, for the next one or for a look.
#[derive(Debug)]
pub struct Remains {
    pub end: End,
    data: TempDir,
    files: Option<TempDir>,
}

impl Remains {
    /// The Markdown root.
    pub fn files(&self) -> &Path {
        self.files.as_ref().expect("this house has no files").path()
    }

    /// A new server on the same store and files.
    pub fn serve(self) -> House {
        House::start(1, "", self.data, self.files)
    }
}

impl House {
    fn start(reactors: usize, toml: &str, data: TempDir, files: Option<TempDir>) -> House {
        let root = files.as_ref().map(|files| format!("\n[documents]\ndirectories = [{:?}]\n", files.path()));
        let toml = toml.to_owned() + &root.unwrap_or_default();
        let settings =
            support::settings(&toml, data.path(), reactors).unwrap_or_else(|error| panic!("{error}\nin\n{toml}"));
        let server = Server::start(&settings).unwrap_or_else(|error| panic!("the server did not start: {error}"));
        House { address: server.addresses[0], server: Some(server), files, data: Some(data) }
    }

    /// The Markdown root as ids spell it.
    pub fn root(&self) -> String {
        let files = self.files.as_ref().expect("this house has no files");
        files.path().to_str().unwrap().to_owned()
    }

    pub fn connect(&self, path: &str) -> Client {
        connect(self.address, path)
    }

    pub fn http(&self, method: &str, path: &str, body: &str) -> Answer {
        http(self.address, method, path, body)
    }

    /// Creates a document by REST, with a directory that is only a label.
    pub fn create(&self, id: &str, content: &str) {
        create(self.address, id, content);
    }

    /// Ends at once, clients or not, but with everything that was taken on answered and every file written.
    pub fn stop(mut self) -> Remains {
        let server = self.server.take().unwrap();
        let end = server.stop(Duration::ZERO, DEADLINE, || false);
        Remains { end, data: self.data.take().unwrap(), files: self.files.take() }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            // The test is over, and its clients need not be polite.
            server.stop(Duration::ZERO, Duration::ZERO, || true);
        }
    }
}

pub fn create(address: SocketAddr, id: &str, content: &str) {
    let (directory, name) = id.rsplit_once('/').unwrap_or(("", id));
    let body = serde_json::json!({ "name": name, "directory": directory, "content": content }).to_string();
    let answer = http(address, "POST", "/api/prompts/", &body);
    assert_eq!(answer.status, 201, "creating {id}: {answer:?}");
}

// ---- sockets --------------------------------------------------------------------------------------------------------

/// A WebSocket, by an implementation that is not ours.
#[derive(Debug)]
pub struct Client {
    name: String,
    socket: WebSocket<TcpStream>,
}

/// One thing that a client was sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Pong(Vec<u8>),
    /// Code (0 for none) and reason.
    Close(u16, String),
    /// The stream ended without a close frame.
    End(String),
}

pub fn connect(address: SocketAddr, path: &str) -> Client {
    dial(address, path, &[]).unwrap_or_else(|refused| panic!("{path} was refused: {refused:?}"))
}

/// The refusal is the HTTP answer.
pub fn dial(address: SocketAddr, path: &str, headers: &[(&'static str, &str)]) -> Result<Client, Answer> {
    dial_over(TcpStream::connect(address).unwrap(), path, headers)
}

pub fn dial_over(stream: TcpStream, path: &str, headers: &[(&'static str, &str)]) -> Result<Client, Answer> {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut request = format!("ws://{}{path}", stream.peer_addr().unwrap()).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    match tungstenite::client(request, stream) {
        Ok((socket, _)) => Ok(Client { name: path.to_owned(), socket }),
        Err(HandshakeError::Failure(tungstenite::Error::Http(response))) => {
            let (head, body) = response.into_parts();
            let header = |(name, value): (&_, &tungstenite::http::HeaderValue)| {
                (ToString::to_string(name), value.to_str().unwrap_or_default().to_owned())
            };
            Err(Answer {
                status: head.status.as_u16(),
                headers: head.headers.iter().map(header).collect(),
                body: String::from_utf8(body.unwrap_or_default()).unwrap(),
            })
        }
        Err(error) => panic!("{path}: {error}"),
    }
}

impl Client {
    pub fn say(&mut self, text: impl Into<String>) {
        self.send(Message::text(text.into()));
    }

    pub fn send(&mut self, message: Message) {
        self.socket.send(message).unwrap_or_else(|error| panic!("{}: sending: {error}", self.name));
    }

    pub fn update(&mut self, content: &str) {
        self.say(serde_json::json!({ "action": "update", "content": content }).to_string());
    }

    /// The next thing that is not a ping (those are answered underneath).
    pub fn hear(&mut self) -> Heard {
        loop {
            return match self.socket.read() {
                Ok(Message::Text(text)) => Heard::Text(text.to_string()),
                Ok(Message::Binary(bytes)) => Heard::Binary(bytes.to_vec()),
                Ok(Message::Pong(payload)) => Heard::Pong(payload.to_vec()),
                Ok(Message::Close(frame)) => match frame {
                    Some(CloseFrame { code, reason }) => Heard::Close(code.into(), reason.to_string()),
                    None => Heard::Close(0, String::new()),
                },
                Ok(Message::Ping(_) | Message::Frame(_)) => continue,
                // A read with a deadline is not taken up again by itself when the process was stopped meanwhile.
                Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::Interrupted => continue,
                Err(tungstenite::Error::Io(error)) if is_timeout(&error) => {
                    panic!("{}: nothing came within {DEADLINE:?}", self.name)
                }
                Err(error) => Heard::End(error.to_string()),
            };
        }
    }

    pub fn text(&mut self) -> String {
        match self.hear() {
            Heard::Text(text) => text,
            other => panic!("{}: expected a text frame, got {other:?}", self.name),
        }
    }

    pub fn json(&mut self) -> Value {
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error} in {text}", self.name))
    }

    /// The next frame, which must be of this action.
    pub fn expect(&mut self, action: &str) -> Value {
        let value = self.json();
        assert_eq!(value["action"], action, "{}: {value}", self.name);
        value
    }

    /// Nothing was said that has not been read. Replies come in the order of requests and pass the same mailbox as a
    /// room's events, so what we ask now is answered behind everything that was on its way to us.
    pub fn expect_silence(&mut self) {
        self.say(r#"{"action":"expand","content":"is there anything?"}"#);
        let text = self.text();
        assert!(
            text.starts_with(r#"{"action":"expanded","content":"is there anything?""#),
            "{}: expected silence, got {text}",
            self.name
        );
    }

    pub fn expect_close(&mut self) -> (u16, String) {
        match self.hear() {
            Heard::Close(code, reason) => (code, reason),
            other => panic!("{}: expected a close, got {other:?}", self.name),
        }
    }

    /// Closes, and waits until the server has let go.
    pub fn leave(mut self) {
        self.socket.close(None).unwrap();
        while !matches!(self.hear(), Heard::End(_)) {}
    }
}

// ---- HTTP -----------------------------------------------------------------------------------------------------------

#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(each, _)| each == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

pub fn http(address: SocketAddr, method: &str, path: &str, body: &str) -> Answer {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    raw(address, &format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{length}\r\n{body}"))
}

/// Sends these very bytes and reads until the server ends the stream.
pub fn raw(address: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap_or_else(|error| panic!("{error} after {bytes:?} for {request:?}"));
    parse(&bytes)
}

pub fn parse(bytes: &[u8]) -> Answer {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer in {text:?}"));
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(": "));
    Answer {
        status: status.unwrap_or_else(|| panic!("no status in {head:?}")),
        headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect(),
        body: body.to_owned(),
    }
}

// ---- waiting --------------------------------------------------------------------------------------------------------

/// Runs the parts of a test side by side; the first panic is the test's.
pub fn side_by_side<T: Send + Debug>(parts: Vec<Box<dyn FnOnce() -> T + Send + '_>>) -> Vec<T> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = parts.into_iter().map(|part| scope.spawn(part)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

// ---- a process ------------------------------------------------------------------------------------------------------

/// The program itself, for what only a process has: signals, an environment, an exit code.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pub address: SocketAddr,
    log: Receiver<String>,
    /// What it has said so far, for the message of a test that fails.
    said: Vec<String>,
    pub data: TempDir,
}

impl Process {
    /// Serves `toml`, written to [`Process::config`], and waits until it listens.
    pub fn start(toml: &str, variables: &[(&str, &str)]) -> Process {
        Process::start_in(tempfile::tempdir().unwrap(), toml, variables)
    }

    /// On what another one has left.
    pub fn start_in(data: TempDir, toml: &str, variables: &[(&str, &str)]) -> Process {
        let mut command = Process::command(env!("CARGO_BIN_EXE_commitcast").as_ref(), &data, toml);
        command.args(["--listen", "127.0.0.1:0"]).envs(variables.iter().copied());
        let mut process = Process::launch(command, data);
        process.listens();
        process
    }

    /// A new process in the place of one that has ended, with the same configuration and store.
    #[cfg(feature = "canary")]
    pub fn restart(&mut self) {
        assert!(self.child.try_wait().unwrap().is_some(), "the old one is still there");
        let toml = std::fs::read_to_string(self.config()).unwrap();
        let data = std::mem::replace(&mut self.data, tempfile::tempdir().unwrap());
        *self = Process::start_in(data, &toml, &[]);
    }

    /// What a test may add to before it is launched. It names no listener.
    pub fn command(program: &Path, data: &TempDir, toml: &str) -> Command {
        let config = data.path().join("commitcast.toml");
        std::fs::write(&config, toml).unwrap();
        let mut command = Command::new(program);
        command.args(["--log-level", "info"]).arg("--config").arg(&config);
        command.arg("--data").arg(data.path().join("store"));
        command
    }

    pub fn launch(mut command: Command, data: TempDir) -> Process {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // What it holds for the child, the child has.
        drop(command);
        let (sender, log) = mpsc::channel();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        for stream in [Box::new(out) as Box<dyn Read + Send>, Box::new(err)] {
            let sender = sender.clone();
            // Ends with the process's side of the pipe.
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Process { child, address: nowhere, log, said: Vec::new(), data }
    }

    /// Waits until it says so; the address is where.
    pub fn listens(&mut self) {
        let line = self.wait_for("listening on http://");
        let address = line.split_once("http://").and_then(|(_, rest)| rest.split(' ').next());
        self.address = address.unwrap().parse().unwrap();
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said until it was last waited for.
    pub fn said(&self) -> &[String] {
        &self.said
    }

    pub fn config(&self) -> PathBuf {
        self.data.path().join("commitcast.toml")
    }

    /// The next line that holds `text`.
    pub fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(why) => panic!("it never said `{text}` ({why}), but:\n{}", self.said.join("\n")),
            }
        }
    }

    /// Killed, as the power goes: what it leaves.
    pub fn kill(mut self) -> TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::replace(&mut self.data, tempfile::tempdir().unwrap())
    }

    /// By the system's own program, since nothing here may call the kernel directly.
    pub fn signal(&self, name: &str) {
        assert!(signal(self.child.id(), name), "kill -{name}");
    }

    /// Its exit code, when others it has started go on writing to its pipes.
    pub fn own_exit_code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.said.join("\n"));
            std::thread::yield_now();
        }
    }

    /// Its exit code, once its end of the pipes is closed.
    pub fn exit_code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().unwrap().code(),
                Err(RecvTimeoutError::Timeout) => panic!("it does not end:\n{}", self.said.join("\n")),
            }
        }
    }
}

/// Whether there is such a process. By the system's own program, since nothing here may call the kernel directly.
pub fn signal(process: u32, name: &str) -> bool {
    let kill = Command::new("kill").arg(format!("-{name}")).arg(process.to_string()).stderr(Stdio::null()).status();
    kill.unwrap().success()
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already in a test that went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Whoever was to take over goes too, however far the test came.
        self.said.extend(self.log.try_iter());
        for process in self.said.iter().filter_map(|line| started(line)) {
            signal(process, "KILL");
        }
    }
}

/// The successor that a log line speaks of.
pub fn started(line: &str) -> Option<u32> {
    let (_, rest) = line.split_once(" is started as process ")?;
    rest.split(|char: char| !char.is_ascii_digit()).next()?.parse().ok()
}
