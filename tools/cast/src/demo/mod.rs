//! `cast demo`: a backend that plays, so that a newcomer sees every dialect move, and with `--once` a proof that they do.
//!
//! ```text
//! backend  the connection ─┬─ player   the tasks it was given ── script  what each kind is played as
//!                          └─ show     what moves by itself
//! users    with --once: the pages' sockets, what they ask for, and whether they saw what they should
//! ```
//!
//! `player`, `script` and `show` are pure; `backend` and `users` each own sockets and a thread. Ctrl-C ends the process as
//! it is: what the demo holds goes back to the server with its connection.

mod backend;
mod pace;
mod pages;
mod player;
mod script;
mod show;
mod task;
mod users;

use std::sync::mpsc::channel;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::Value;
use tungstenite::http::HeaderValue;

use self::backend::{Backend, Director, Order};
use self::pace::Pace;
use crate::connect::{Failure, Outcome};
use crate::http::Answer;
use crate::target::Address;

const EXAMPLES: &str = "\
Examples:
  commitcast                      a server on 127.0.0.1:8080
  cast demo                       everything moves; open the printed sockets with `cast probe`, or the pages
  cast demo --once                plays the users too, and ends with 0 when each of them saw what it should

Exit codes:
  0  all rounds were played (--rounds), everything was seen (--once)
  1  a client did not see what it should (--once)
  2  bad usage
  3  the server refused: the API key, or a user without a token
  4  the server cannot be reached (--once; otherwise it is tried again)
  5  the server closed the connection (--once; otherwise it is tried again)";

/// Without users to wait for, a round is played in seconds.
const SPEED_ONCE: u16 = 10;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// The server
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The API key; a server in debug mode without keys takes any backend
    #[arg(long)]
    key: Option<String>,
    /// The token of the users whom the demo plays, where the server wants one
    #[arg(long)]
    token: Option<String>,
    /// Play one round, the users too, and say whether each of them saw what it should
    #[arg(long, conflicts_with = "rounds")]
    once: bool,
    /// End after this many rounds; a round is one video
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// How fast to play; 1 is a pleasure to watch (with --once: 10)
    #[arg(long, value_name = "FACTOR", value_parser = Pace::parse)]
    speed: Option<Pace>,
    /// Print nothing but failures
    #[arg(long, short)]
    quiet: bool,
}

/// The options, checked, and what is decided once.
#[derive(Debug)]
pub struct Plan {
    server: Address,
    /// For people.
    url: String,
    key: Option<String>,
    token: Option<String>,
    rounds: Option<u32>,
    pace: Pace,
    is_quiet: bool,
    /// Tells what this process publishes from what another demo does.
    name: String,
    /// The session whose agent is played without anybody asking.
    session: String,
    /// For a connection, a handshake, an answer over HTTP.
    timeout: Duration,
}

pub fn run(options: &Options) -> Outcome {
    let result = match Plan::of(options) {
        Ok(plan) if options.once => once(&plan),
        Ok(plan) => Backend::new(&plan, None).run(),
        Err(what) => Err(Failure::new(Outcome::Usage, what)),
    };
    match result {
        Ok(()) => Outcome::Ok,
        Err(failure) => {
            eprintln!("cast: {}", failure.what);
            failure.outcome
        }
    }
}

/// The users' thread is this one: its verdict is the command's, unless the backend fell first, which explains it.
fn once(plan: &Plan) -> Result<(), Failure> {
    let ((orders, taken), (ready, is_ready)) = (channel(), channel());
    std::thread::scope(|scope| {
        let backend = scope.spawn(|| Backend::new(plan, Some(Director { orders: taken, ready })).run());
        let seen = users::play(plan, &orders, &is_ready);
        // It is gone already if it cannot be told.
        let _ = orders.send(Order::Stop);
        match backend.join() {
            Ok(Ok(())) => seen,
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure::new(Outcome::Closed, "the backend's thread fell over")),
        }
    })
}

impl Plan {
    fn of(options: &Options) -> Result<Plan, String> {
        let server = Address::parse(&options.url)?;
        if server.path != "/" {
            return Err(format!("--url names the server and no path: {} has one", options.url));
        }
        for (flag, value) in [("--key", &options.key), ("--token", &options.token)] {
            // An empty one is a variable that was not set, and would be refused with a reason that hides it.
            if value.as_ref().is_some_and(|value| value.is_empty() || HeaderValue::from_str(value).is_err()) {
                return Err(format!("{flag} is empty, or holds what cannot stand in a header"));
            }
        }
        let name = name();
        let session = if options.once { format!("session of demo {name}") } else { "session of the demo".to_owned() };
        let usual = if options.once { Pace::times(SPEED_ONCE) } else { Pace::times(1) };
        Ok(Plan {
            url: format!("http://{}", server.authority()),
            server,
            key: options.key.clone(),
            token: options.token.clone(),
            rounds: options.rounds,
            pace: options.speed.unwrap_or(usual),
            is_quiet: options.quiet,
            name,
            session: task::uuid_of(&session),
            timeout: Duration::from_secs(5),
        })
    }

    fn at(&self, path: &str) -> Address {
        Address { path: path.to_owned(), ..self.server.clone() }
    }

    fn key_header(&self) -> Vec<(&'static str, String)> {
        self.key.iter().map(|key| ("X-API-Key", key.clone())).collect()
    }

    fn token_header(&self) -> Vec<(&'static str, String)> {
        self.token.iter().map(|token| ("Authorization", format!("Bearer {token}"))).collect()
    }

    /// What to do about a refusal of a user.
    fn token_hint(&self, answer: &Answer) -> &'static str {
        // A 403 may be about anything, such as a directory in which nobody may make prompts.
        let about_rights = answer.status == 401 || answer.body["code"] == "forbidden";
        match (answer.status, &self.token) {
            _ if !about_rights => "",
            (401 | 403, None) => " (the server wants users to show a token: give one with --token)",
            (401 | 403, Some(_)) => " (the server does not take this --token, or it does not grant enough)",
            _ => "",
        }
    }

    /// Where to look.
    fn places(&self) -> Vec<String> {
        let path = |path: String| format!("  see it with: cast probe --follow --url {}{path}", self.url);
        vec![
            path(format!("/ws/prompts/{}", show::DOCUMENT)),
            path(format!("/ws/workflow/{}", show::WORKFLOWS[0])),
            path("/ws/coordinator".to_owned()),
            path("/ws".to_owned()),
            path(format!("/api/v1/ws?session_id={}", self.session)),
        ]
    }
}

/// Prints a line, terminal escapes shown and not obeyed: some of what is printed was said by strangers.
fn say(plan: &Plan, line: &str) {
    if !plan.is_quiet {
        println!("{}", crate::report::printable(line));
    }
}

/// The time and the process: enough to tell two demos apart, and nobody has to guess it.
fn name() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:x}{:x}", since.as_millis(), std::process::id())
}

/// A field that is a text; empty for anything else.
fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}
