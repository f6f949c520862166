//! `cast probe`: one connection, what it says, and a verdict that a script can act on.
//!
//! One thread owns the socket. Where somebody types, a second one reads the terminal and hands lines over; the socket is
//! then read in short waits, because blocking on both at once needs an event loop and nobody types within 50 ms.

use std::io::{self, BufRead};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tungstenite::handshake::client::Request;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message};

use crate::connect::{self, Failure, Outcome, Socket, is_timeout, reach, shake_hands};
use crate::expect::Expectation;
use crate::report::{Report, Style, Way};
use crate::target::{Address, Kind};

const EXAMPLES: &str = "\
Examples:
  cast probe prompt readme
  cast probe prompt readme --send '{\"action\":\"expand\",\"content\":\"[[intro]]\"}' --expect '{\"action\":\"expanded\"}'
  cast probe path /api/ws/test --send hello --expect '{\"received\":\"hello\",\"counter\":1}'
  cast probe session 6f9619ff-8b86-d011-b42d-00cf4fc964ff --token \"$TOKEN\" --token-in query
  cast probe prompt readme --interactive

Exit codes:
  0  all went as asked
  1  an expectation was not met in time
  2  bad usage
  3  the server refused the handshake (status, X-WS-Reject, detail and hint are printed)
  4  the server cannot be reached
  5  the server closed the connection before the probe was done";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// What NAME is the name of; may be left out when --url has the path
    #[arg(requires = "name")]
    kind: Option<Kind>,
    /// Id, name or path of what to connect to
    name: Option<String>,

    /// Server, with or without a path: ws://host:port[/path]; instead of --host and --port
    #[arg(long, conflicts_with_all = ["host", "port"])]
    url: Option<String>,
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    #[arg(long, default_value_t = 8080)]
    port: u16,

    /// Send this text frame once connected; repeatable, sent in order, need not be JSON
    #[arg(long, value_name = "TEXT")]
    send: Vec<String>,
    /// Send each line typed (or piped in) as a text frame
    #[arg(long, short)]
    interactive: bool,

    /// Wait for a frame that contains this text or, for a JSON object or array, says at least that; repeatable, in order
    #[arg(long, value_name = "TEXT|JSON")]
    expect: Vec<String>,
    /// Wait for the server to close with this code
    #[arg(long, value_name = "CODE")]
    expect_close: Option<u16>,
    /// Wait for this many frames
    #[arg(long, value_name = "N", default_value_t = 0)]
    count: usize,
    /// How long to wait for what is expected; with nothing expected, how long a silence ends the probe
    #[arg(long, default_value = "5s", value_parser = wait)]
    timeout: Duration,
    /// Go on until interrupted, however silent it is
    #[arg(long, short, conflicts_with_all = ["expect", "expect_close", "count"])]
    follow: bool,

    /// Say to come from this page
    #[arg(long)]
    origin: Option<String>,
    /// Show this token
    #[arg(long)]
    token: Option<String>,
    /// Where to show it
    #[arg(long, value_enum, default_value = "header", requires = "token")]
    token_in: TokenIn,
    /// The cookie for --token-in cookie
    #[arg(long, default_value = "token")]
    cookie_name: String,
    /// Send this header too; repeatable
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,

    /// Print one JSON object a line
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Print nothing but failures
    #[arg(long, short)]
    quiet: bool,
}

/// A socket takes a timeout of zero for none at all.
fn wait(written: &str) -> Result<Duration, String> {
    match humantime::parse_duration(written) {
        Ok(wait) if wait.is_zero() => Err("must be longer than nothing".to_owned()),
        other => other.map_err(|error| error.to_string()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TokenIn {
    /// Authorization: Bearer
    Header,
    /// Sec-WebSocket-Protocol: bearer.TOKEN
    Protocol,
    /// ?token=
    Query,
    /// A cookie
    Cookie,
}

pub fn run(options: &Options) -> Outcome {
    let style = match (options.json, options.quiet) {
        (true, _) => Style::Json,
        (_, true) => Style::Quiet,
        _ => Style::Text,
    };
    let report = Report::new(style);
    match probe(options, &report) {
        Ok(()) => Outcome::Ok,
        Err(failure) => {
            report.failed(&failure.what, failure.details);
            failure.outcome
        }
    }
}

fn probe(options: &Options, report: &Report) -> Result<(), Failure> {
    let address = address(options).map_err(|what| Failure::new(Outcome::Usage, what))?;
    let request = request(options, &address).map_err(|what| Failure::new(Outcome::Usage, what))?;
    let stream = reach(&address, options.timeout)?;
    let (socket, response) = shake_hands(request, stream)?;
    let chosen = response.headers().get("sec-websocket-protocol").and_then(|value| value.to_str().ok());
    // Neither the query nor the subprotocol is shown where it holds the token: transcripts get pasted into tickets.
    let url = if options.token_in == TokenIn::Query { url_without_query(&address) } else { address.url() };
    let chosen = chosen.filter(|_| options.token_in != TokenIn::Protocol);
    report.connected(&url, response.status().as_u16(), chosen);
    Conversation::new(options, report, socket).hold()
}

fn address(options: &Options) -> Result<Address, String> {
    let mut address = match &options.url {
        Some(url) => Address::parse(url)?,
        None => Address { host: options.host.clone(), port: options.port, path: String::new() },
    };
    if let (Some(kind), Some(name)) = (options.kind, &options.name) {
        address.path = kind.path(name);
    } else if options.url.is_none() {
        return Err("say what to connect to, such as `prompt readme` or `path /v1/echo`".to_owned());
    }
    Ok(match (&options.token, options.token_in) {
        (Some(token), TokenIn::Query) => address.with_query("token", token),
        _ => address,
    })
}

fn url_without_query(address: &Address) -> String {
    let url = address.url();
    url.split('?').next().unwrap_or_default().to_owned()
}

fn request(options: &Options, address: &Address) -> Result<Request, String> {
    let mut headers: Vec<(&str, String)> = Vec::new();
    if let Some(origin) = &options.origin {
        headers.push(("Origin", origin.clone()));
    }
    if let Some(token) = &options.token {
        match options.token_in {
            TokenIn::Header => headers.push(("Authorization", format!("Bearer {token}"))),
            TokenIn::Protocol => headers.push(("Sec-WebSocket-Protocol", format!("bearer.{token}"))),
            TokenIn::Cookie => headers.push(("Cookie", format!("{}={token}", options.cookie_name))),
            TokenIn::Query => {}
        }
    }
    for header in &options.header {
        let (name, value) = header.split_once(':').ok_or_else(|| format!("{header:?} is not NAME: VALUE"))?;
        headers.push((name.trim(), value.trim().to_owned()));
    }
    connect::request(address, &headers)
}

/// An open socket and what is still to happen on it.
struct Conversation<'a> {
    options: &'a Options,
    report: &'a Report,
    socket: Socket,
    expected: std::vec::IntoIter<Expectation>,
    /// The expectation that is waited for.
    next: Option<Expectation>,
    frames: usize,
    /// Lines from the terminal, until it ends.
    typed: Option<Receiver<String>>,
    /// The last time something happened that was waited for.
    since: Instant,
}

/// How long the socket is read before the terminal is looked at again.
const TYPING_WAIT: Duration = Duration::from_millis(50);

impl<'a> Conversation<'a> {
    fn new(options: &'a Options, report: &'a Report, socket: Socket) -> Conversation<'a> {
        let expected: Vec<Expectation> = options.expect.iter().map(|written| Expectation::parse(written)).collect();
        let mut expected = expected.into_iter();
        Conversation {
            options,
            report,
            socket,
            next: expected.next(),
            expected,
            frames: 0,
            typed: options.interactive.then(read_terminal),
            since: Instant::now(),
        }
    }

    fn hold(mut self) -> Result<(), Failure> {
        for text in &self.options.send {
            self.send(text)?;
        }
        loop {
            if self.is_done() {
                self.leave();
                return Ok(());
            }
            self.send_typed()?;
            let Some(wait) = self.wait() else {
                let failure = self.waits_for_something().then(|| self.not_met());
                self.leave();
                return failure.map_or(Ok(()), Err);
            };
            self.socket.get_ref().set_read_timeout(Some(wait)).map_err(broken)?;
            match self.socket.read() {
                Ok(message) => self.hear(message)?,
                Err(Error::Io(error)) if is_timeout(&error) => {}
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                    return Err(closed("the server closed the connection"));
                }
                Err(error) => return Err(closed(&format!("the connection broke: {error}"))),
            }
            if self.socket.can_read() {
                continue;
            }
            // The close frame has been heard: answer it, then say what it means for us.
            let _ = self.socket.flush();
            return match self.options.expect_close {
                Some(_) if self.next.is_none() && self.frames >= self.options.count => Ok(()),
                Some(_) => Err(self.not_met()),
                None => Err(closed("the server closed the connection")),
            };
        }
    }

    fn send(&mut self, text: &str) -> Result<(), Failure> {
        self.report.text(Way::Out, text);
        self.socket.send(Message::text(text)).map_err(|error| closed(&format!("cannot send: {error}")))
    }

    fn send_typed(&mut self) -> Result<(), Failure> {
        while let Some(typed) = &self.typed {
            match typed.try_recv() {
                Ok(line) => {
                    self.since = Instant::now();
                    self.send(&line)?;
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.typed = None;
                    self.since = Instant::now();
                }
            }
        }
        Ok(())
    }

    fn hear(&mut self, message: Message) -> Result<(), Failure> {
        match &message {
            Message::Text(text) => {
                self.report.text(Way::In, text);
                self.count_frame(Some(text));
            }
            Message::Binary(bytes) => {
                self.report.binary(Way::In, bytes);
                self.count_frame(None);
            }
            Message::Close(frame) => {
                let code = frame.as_ref().map(|frame| u16::from(frame.code));
                self.report.closed(Way::In, code, frame.as_ref().map_or("", |frame| frame.reason.as_str()));
                if self.options.expect_close.is_some_and(|wanted| code != Some(wanted)) {
                    return Err(closed("the server closed with another code than the expected one"));
                }
            }
            // tungstenite answers pings itself; neither is a frame anybody counts.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
        Ok(())
    }

    fn count_frame(&mut self, text: Option<&str>) {
        self.frames += 1;
        if !self.waits_for_something() || self.frames <= self.options.count {
            self.since = Instant::now();
        }
        if let (Some(expectation), Some(text)) = (&self.next, text)
            && expectation.is_met_by(text)
        {
            self.report.met(&expectation.to_string());
            self.next = self.expected.next();
            self.since = Instant::now();
        }
    }

    fn waits_for_something(&self) -> bool {
        self.next.is_some() || self.frames < self.options.count || self.options.expect_close.is_some()
    }

    fn asked_for_something(&self) -> bool {
        !self.options.expect.is_empty() || self.options.count > 0
    }

    /// Nothing is left to wait for, and something was.
    fn is_done(&self) -> bool {
        self.asked_for_something() && !self.waits_for_something() && self.typed.is_none()
    }

    /// How long the next read may take; `None` when the time is over.
    fn wait(&self) -> Option<Duration> {
        let endless = self.options.follow || (self.typed.is_some() && !self.waits_for_something());
        let left = if endless { TYPING_WAIT } else { self.options.timeout.checked_sub(self.since.elapsed())? };
        let wait = if self.typed.is_some() { left.min(TYPING_WAIT) } else { left };
        // A timeout of zero would mean none at all.
        (wait > Duration::ZERO).then_some(wait)
    }

    fn leave(&mut self) {
        let frame = tungstenite::protocol::CloseFrame { code: CloseCode::Normal, reason: "".into() };
        self.report.closed(Way::Out, Some(1000), "");
        // The verdict stands; a server that is already gone changes nothing about it.
        let _ = self.socket.close(Some(frame));
        let _ = self.socket.get_ref().set_read_timeout(Some(Duration::from_secs(1)));
        while self.socket.read().is_ok() {}
    }

    fn not_met(&self) -> Failure {
        let waited = humantime::format_duration(self.options.timeout);
        let (what, missing) = match (&self.next, self.options.expect_close) {
            (Some(next), _) => (format!("not heard within {waited}: {next}"), json!(next.to_string())),
            (None, _) if self.frames < self.options.count => {
                (format!("only {} of {} frames within {waited}", self.frames, self.options.count), json!("frames"))
            }
            (None, Some(code)) => (format!("no close with {code} within {waited}"), json!(code)),
            (None, None) => (format!("not done within {waited}"), Value::Null),
        };
        let details = json!({"exit": Outcome::NotMet as u8, "missing": missing, "frames": self.frames});
        Failure { outcome: Outcome::NotMet, what, details }
    }
}

fn closed(what: &str) -> Failure {
    Failure::new(Outcome::Closed, what)
}

fn broken(error: io::Error) -> Failure {
    closed(&format!("the connection broke: {error}"))
}

/// Reads lines on a thread of its own; it ends with the process, since a blocked read of a terminal cannot be called off.
fn read_terminal() -> Receiver<String> {
    // One line ahead is enough: a piped file waits for the socket.
    let (lines, typed) = sync_channel(1);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    typed
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(line: &str) -> Options {
        Line::try_parse_from(["probe"].into_iter().chain(line.split_whitespace())).unwrap().options
    }

    #[test]
    fn a_command_line_becomes_an_address() {
        for (line, url) in [
            ("prompt readme", "ws://127.0.0.1:8080/ws/prompts/readme"),
            ("path /v1/echo --host ::1 --port 9", "ws://[::1]:9/v1/echo"),
            ("--url ws://h:1/v1/echo", "ws://h:1/v1/echo"),
            ("prompt a/b --url ws://h:1", "ws://h:1/ws/prompts/a/b"),
            ("session s --token t/k --token-in query", "ws://127.0.0.1:8080/api/v1/ws?session_id=s&token=t%2Fk"),
            ("prompt p --token t", "ws://127.0.0.1:8080/ws/prompts/p"),
        ] {
            assert_eq!(address(&options(line)).unwrap().url(), url, "{line}");
        }
        assert!(address(&options("--port 9")).is_err());
    }

    #[test]
    fn a_token_is_shown_where_it_was_asked_for() {
        for (how, name, value) in [
            ("", "authorization", "Bearer t"),
            ("--token-in protocol", "sec-websocket-protocol", "bearer.t"),
            ("--token-in cookie --cookie-name access", "cookie", "access=t"),
            ("--origin http://a.example", "origin", "http://a.example"),
            ("--header X-API-Key:k", "x-api-key", "k"),
        ] {
            let options = options(&format!("prompt p --token t {how}"));
            let request = request(&options, &address(&options).unwrap()).unwrap();
            assert_eq!(request.headers().get(name).unwrap(), value);
        }
        let bad = options("prompt p --header nonsense");
        assert!(request(&bad, &address(&bad).unwrap()).is_err());
    }
}
