//! An agent's run: pages ask for runs at a fixed rate, a backend on the same machine answers each with its first event; how
//! long that takes, counted from when the page was *meant* to ask.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::crowd;
use crate::engine::schedule::Schedule;
use crate::engine::window::{Latencies, Span, latencies, own_cpu};
use crate::engine::{Clock, Crowd, Nanos, Player, say};
use crate::figures::{Figures, Percentiles};
use crate::measure::{Plan, Subject, behind, figures};
use crate::servers::{ANYWHERE, Server, post};
use crate::vocabulary::{Role, Seat, Vocabulary};
use crate::wire::{FIRST_SERIAL, SERIAL_PLACE, Stamped, TEXT, text};

/// How long the last runs may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// `pages`, each in a session of its own, ask for `rate` runs a second together.
pub fn run(server: &Server, subject: &Subject, pages: usize, rate: f64, plan: &Plan) -> io::Result<Figures> {
    for page in 0..pages {
        new_session(server.port, &session(page))?;
    }
    let backend = crowd(subject, &Backend, &[ANYWHERE])?;
    let seats: Vec<Seat> = (0..pages).map(|room| Seat { room, role: Role::Member }).collect();
    let mut stage = Stage { backend, worker: Worker::default(), pages: crowd(subject, &Page, &seats)? };
    let clock = Clock::start();
    stage.play(&clock, plan.warm_up, rate)?;
    let before = subject.used()?;
    let (asking, span) = stage.play(&clock, plan.measured * 2, rate)?;
    let mut figures = figures(subject, "run", asking.done, span, before, subject.used()?)?;
    figures.latency = Percentiles::of(&asking.latencies);
    figures.warning = behind(Some(&asking.schedule));
    Ok(figures)
}

pub fn new_session(port: u16, session: &str) -> io::Result<()> {
    let answer = post(port, "/v1/sessions", &format!(r#"{{"id":"{session}"}}"#))?;
    match answer.starts_with("HTTP/1.1 201") {
        true => Ok(()),
        false => Err(io::Error::other(format!("no session was made: {answer}"))),
    }
}

fn session(page: usize) -> String {
    format!("00000000-0000-4000-8000-{page:012}")
}

/// The backend and its pages, both in one thread.
struct Stage {
    backend: Crowd,
    worker: Worker,
    pages: Crowd,
}

impl Stage {
    /// Runs are asked for during `length`; returns when the last one has its event.
    fn play(&mut self, clock: &Clock, length: Duration, rate: f64) -> io::Result<(Asking, Span)> {
        let (begun, cpu) = (clock.now(), own_cpu());
        let end = begun + length.as_nanos() as Nanos;
        let mut asking = Asking::new(clock.now(), rate)?;
        while clock.now() < end || asking.missing() > 0 {
            let now = clock.now();
            asking.due(now.min(end), self.pages.links())?;
            if now >= end {
                asking.stop();
            }
            if now > end + PATIENCE.as_nanos() as Nanos {
                return Err(io::Error::other(format!("{} runs have had no event", asking.missing())));
            }
            self.backend.turn(Duration::ZERO, clock, &mut self.worker)?;
            self.pages.turn(Duration::ZERO, clock, &mut asking)?;
        }
        Ok((asking, Span { nanos: clock.now() - begun, generator: own_cpu() - cpu }))
    }
}

// ---- the backend ------------------------------------------------------------------------------------------------------

#[derive(Debug)]
struct Backend;

impl Vocabulary for Backend {
    fn path(&self, _: Seat) -> String {
        "/v1/backend".to_owned()
    }

    fn opening(&self, _: Seat) -> Vec<u8> {
        text(r#"{"op":"take","kinds":["execute"],"max":1000}"#)
    }
}

/// Takes every run and plays it in one breath: a tool call, its end, done.
#[derive(Debug, Default)]
struct Worker {
    out: Vec<u8>,
}

impl Player for Worker {
    fn hear(&mut self, _: usize, message: &[u8], _: Nanos, _: &[OwnedFd]) -> io::Result<()> {
        play(&String::from_utf8_lossy(message), &mut self.out)
    }

    fn refill(&mut self, _: &Clock, links: &[OwnedFd]) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let said = links.first().map_or(Ok(()), |link| say(link, &self.out));
        self.out.clear();
        said
    }

    fn due(&mut self, _: Nanos, _: &[OwnedFd]) -> io::Result<Option<Nanos>> {
        Ok(None)
    }

    fn begin(&mut self, _: &Clock, _: &[OwnedFd]) -> io::Result<()> {
        Ok(())
    }

    fn stop(&mut self) {}

    fn missing(&self) -> u64 {
        0
    }
}

fn play(message: &str, out: &mut Vec<u8>) -> io::Result<()> {
    if message.contains(r#""op":"refused""#) {
        return Err(io::Error::other(format!("the backend was refused: {message}")));
    }
    if !message.starts_with(r#"{"op":"task""#) {
        return Ok(());
    }
    let field = |name: &str| after(message, &format!("\"{name}\":\"")).and_then(|rest| rest.split('"').next());
    let number = |name: &str| {
        after(message, &format!("\"{name}\":")).and_then(|rest| rest.split([',', '}']).next()).unwrap_or_default()
    };
    let (Some(task), Some(room), Some(run), Some(command)) =
        (field("task"), field("room"), field("execution_id"), field("command"))
    else {
        return Err(io::Error::other(format!("a task that is none: {message}")));
    };
    let publish = |kind: &str, data: &str| {
        format!(r#"{{"op":"publish","room":"{room}","type":"{kind}","data":{{"execution_id":"{run}",{data}}}}}"#)
    };
    let call = publish("tool_call", &format!(r#""tool_name":"{command}","tool_args":{{}}"#));
    let end =
        publish("complete", r#""result":"done","success":true,"total_cost":"0.0 USD","duration_ms":1,"tool_calls":1"#);
    let done = format!(r#"{{"op":"done","task":"{task}","fence":{}}}"#, number("fence"));
    for message in [call, end, done] {
        out.extend(text(&message));
    }
    Ok(())
}

fn after<'t>(text: &'t str, mark: &str) -> Option<&'t str> {
    text.get(text.find(mark)? + mark.len()..)
}

// ---- the pages --------------------------------------------------------------------------------------------------------

#[derive(Debug)]
struct Page;

impl Vocabulary for Page {
    fn path(&self, seat: Seat) -> String {
        format!("/api/v1/ws?session_id={}", session(seat.room))
    }

    fn awaits(&self) -> bool {
        true
    }
}

/// Asks for runs by schedule, each with its number as the command; hears for the call of a tool of that name.
struct Asking {
    asks: Stamped,
    schedule: Schedule,
    stopped: bool,
    done: u64,
    latencies: Latencies,
    out: Vec<u8>,
}

const CALL: &str = r#"{"type": "tool_call""#;

impl Asking {
    fn new(start: Nanos, rate: f64) -> io::Result<Asking> {
        let asks = Stamped::new(TEXT, &format!(r#"{{"type":"execute","data":{{"command":"n{SERIAL_PLACE}"}}}}"#));
        let schedule = Schedule::new(start, rate);
        Ok(Asking { asks, schedule, stopped: false, done: 0, latencies: latencies()?, out: Vec::new() })
    }
}

impl Player for Asking {
    /// The other events of a run are nobody's business here.
    fn hear(&mut self, _: usize, message: &[u8], now: Nanos, _: &[OwnedFd]) -> io::Result<()> {
        let Some(serial) = run_of_call(message) else { return Ok(()) };
        self.done += 1;
        self.latencies.saturating_record(now.saturating_sub(self.schedule.intended(serial - FIRST_SERIAL)));
        Ok(())
    }

    fn refill(&mut self, _: &Clock, _: &[OwnedFd]) -> io::Result<()> {
        Ok(())
    }

    fn due(&mut self, now: Nanos, links: &[OwnedFd]) -> io::Result<Option<Nanos>> {
        while !self.stopped
            && let Some((number, _)) = self.schedule.take(now)
        {
            self.out.clear();
            self.asks.put(FIRST_SERIAL + number, &mut self.out);
            say(&links[(number % links.len() as u64) as usize], &self.out)?;
        }
        Ok(Some(self.schedule.next_at()))
    }

    fn begin(&mut self, _: &Clock, _: &[OwnedFd]) -> io::Result<()> {
        Ok(())
    }

    fn stop(&mut self) {
        self.stopped = true;
    }

    fn missing(&self) -> u64 {
        self.schedule.sent() - self.done
    }
}

fn run_of_call(message: &[u8]) -> Option<u64> {
    let message = std::str::from_utf8(message).ok().filter(|message| message.starts_with(CALL))?;
    let serial = after(message, r#""tool_name": "n"#)?.split('"').next()?.parse().ok()?;
    (serial >= FIRST_SERIAL).then_some(serial)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_task_is_played_and_its_event_is_found_again() {
        let mut out = Vec::new();
        let task = r#"{"op":"task","task":"7","kind":"execute","room":"session:a","attempt":1,"fence":9,"data":{"execution_id":"e","command":"n1000000041"}}"#;
        play(task, &mut out).unwrap();
        let call = text(
            r#"{"op":"publish","room":"session:a","type":"tool_call","data":{"execution_id":"e","tool_name":"n1000000041","tool_args":{}}}"#,
        );
        assert!(out.starts_with(&call));
        assert!(out.ends_with(&text(r#"{"op":"done","task":"7","fence":9}"#)));
        assert!(play(r#"{"op":"refused","code":"x"}"#, &mut out).is_err());
        for (message, expected) in [
            (r#"{"type": "tool_call", "data": {"session_id": "a", "tool_name": "n1000000041"}}"#, Some(1_000_000_041)),
            (r#"{"type": "tool_call", "data": {"tool_name": "n41"}}"#, None),
            (r#"{"type": "thinking", "data": {"tool_name": "n1000000041"}}"#, None),
        ] {
            assert_eq!(run_of_call(message.as_bytes()), expected, "{message}");
        }
    }
}
