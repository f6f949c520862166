//! A reconnect storm: everybody is cut at once, everybody comes back at once, nobody has missed anything.

use std::io;

use super::history;
use super::resume::READS;
use crate::engine::dial::{Dialer, Opened, cut};
use crate::engine::window::{Latencies, Span, latencies, own_cpu};
use crate::engine::{Clock, Nanos};
use crate::figures::{Figures, Percentiles};
use crate::measure::{Subject, figures};
use crate::servers::{ANYWHERE, Server};
use crate::vocabulary::{Native, Resume, Role, Seat, Tickets, Vocabulary};

/// Handshakes under way at once, as many as no queue of connections is too short for.
const AT_ONCE: usize = 1_000;
/// Events in each room before anybody comes.
const EVENTS: usize = 20;

/// Clients of rooms with a history, who know its head when they come back.
pub fn run(server: &Server, subject: &Subject, clients: usize, rooms: usize) -> io::Result<Figures> {
    let standings = history::write(server, rooms, EVENTS)?;
    let seats: Vec<Seat> = (0..clients).map(|client| Seat { room: client % rooms, role: Role::Member }).collect();
    let there = dial(subject, &Native::signals(), &seats)?.0;
    let reads = server.metric(READS)?;
    let mut figures = come_back(subject, there, &Resume { since: standings }, &seats)?;
    if let (Some(before), Some(after)) = (reads, server.metric(READS)?) {
        figures.extra.insert("store_reads", after - before);
    }
    Ok(figures)
}

/// The same for whoever is upgraded and nothing more: what accepting so many takes.
pub fn bare(subject: &Subject, clients: usize) -> io::Result<Figures> {
    let seats = vec![ANYWHERE; clients];
    let there = dial(subject, &Tickets, &seats)?.0;
    come_back(subject, there, &Tickets, &seats)
}

fn come_back(
    subject: &Subject,
    there: Vec<Opened>,
    vocabulary: &dyn Vocabulary,
    seats: &[Seat],
) -> io::Result<Figures> {
    let before = subject.used()?;
    for (link, _) in there {
        cut(link)?;
    }
    let cpu = own_cpu();
    let (back, times, took) = dial(subject, vocabulary, seats)?;
    let span = Span { nanos: took, generator: own_cpu() - cpu };
    let mut figures = figures(subject, "client", back.len() as u64, span, before, subject.used()?)?;
    figures.latency = Percentiles::of(&times);
    for (link, _) in back {
        cut(link)?;
    }
    Ok(figures)
}

fn dial(subject: &Subject, vocabulary: &dyn Vocabulary, seats: &[Seat]) -> io::Result<(Vec<Opened>, Latencies, Nanos)> {
    let mut dialer = Dialer::new(subject.address, vocabulary);
    dialer.at_once = AT_ONCE;
    let clock = Clock::start();
    let mut times = latencies()?;
    let mut links = Vec::with_capacity(seats.len());
    dialer.run(
        &clock,
        |number| seats.get(number).copied(),
        |_, opened, took| {
            times.saturating_record(took);
            links.push(opened);
        },
    )?;
    Ok((links, times, clock.now()))
}
