//! Resume of a long history: clients join one room from its beginning, all at once, and are shown all of it.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::{crowd, history};
use crate::engine::pattern::{Match, Pattern};
use crate::engine::window::{Span, latencies, own_cpu};
use crate::engine::{Clock, Nanos, Player};
use crate::figures::{Figures, Percentiles};
use crate::measure::{Subject, figures};
use crate::servers::Server;
use crate::vocabulary::{Resume, Role, Seat, Vocabulary};
use crate::wire::FIRST_SERIAL;

/// How long all of them may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn run(server: &Server, subject: &Subject, events: usize, clients: usize) -> io::Result<Figures> {
    let standings = history::write(server, 1, events)?;
    let from_the_start: Vec<(String, u64)> = standings.into_iter().map(|(epoch, _)| (epoch, 0)).collect();
    let vocabulary = Resume { since: from_the_start };
    let seats = vec![Seat { room: 0, role: Role::Member }; clients];
    let reads = server.metric(READS)?;
    let (clock, cpu, before) = (Clock::start(), own_cpu(), subject.used()?);
    let mut crowd = crowd(subject, &vocabulary, &seats)?;
    let mut catcher = Catcher::new(&vocabulary, clients, events as u64);
    let mut times = latencies()?;
    while catcher.missing() > 0 {
        if clock.now() > PATIENCE.as_nanos() as Nanos {
            return Err(io::Error::other(format!("{} events are missing after {PATIENCE:?}", catcher.missing())));
        }
        crowd.turn(Duration::from_secs(1), &clock, &mut catcher)?;
    }
    for done in &catcher.done {
        times.saturating_record(*done);
    }
    let span = Span { nanos: clock.now(), generator: own_cpu() - cpu };
    let mut figures = figures(subject, "event", (clients * events) as u64, span, before, subject.used()?)?;
    figures.latency = Percentiles::of(&times);
    if let (Some(before), Some(after)) = (reads, server.metric(READS)?) {
        figures.extra.insert("store_reads", after - before);
    }
    Ok(figures)
}

/// The server's own count of reads of its store.
pub const READS: &str = "commitcast_store_reads_total";

/// Hears every event once, in order, on every link.
struct Catcher<'v> {
    vocabulary: &'v dyn Vocabulary,
    pattern: Option<Pattern>,
    expected: Vec<u64>,
    events: u64,
    left: u64,
    /// When each link had everything.
    done: Vec<Nanos>,
}

impl<'v> Catcher<'v> {
    fn new(vocabulary: &'v dyn Vocabulary, links: usize, events: u64) -> Catcher<'v> {
        let left = links as u64 * events;
        Catcher { vocabulary, pattern: None, expected: vec![FIRST_SERIAL; links], events, left, done: Vec::new() }
    }
}

impl Player for Catcher<'_> {
    fn hear(&mut self, link: usize, message: &[u8], now: Nanos, _: &[OwnedFd]) -> io::Result<()> {
        let pattern = match &self.pattern {
            Some(pattern) => pattern,
            None => self.pattern.insert(self.vocabulary.heard(0, message)?),
        };
        let expected = &mut self.expected[link];
        if pattern.read(message) != Match::Serial(*expected) {
            let heard = String::from_utf8_lossy(message).into_owned();
            return Err(io::Error::other(format!("connection {link} was to hear event {expected} and heard {heard}")));
        }
        *expected += 1;
        self.left -= 1;
        if *expected == FIRST_SERIAL + self.events {
            self.done.push(now);
        }
        Ok(())
    }

    fn refill(&mut self, _: &Clock, _: &[OwnedFd]) -> io::Result<()> {
        Ok(())
    }

    fn due(&mut self, _: Nanos, _: &[OwnedFd]) -> io::Result<Option<Nanos>> {
        Ok(None)
    }

    fn begin(&mut self, _: &Clock, _: &[OwnedFd]) -> io::Result<()> {
        Ok(())
    }

    fn stop(&mut self) {}

    fn missing(&self) -> u64 {
        self.left
    }
}
