//! A mixed day: all dialects at once at modest rates, latency told apart by dialect.

use std::io;
use std::time::Duration;

use super::rooms::Size;
use super::{agents, crowd};
use crate::engine::exchange::Exchange;
use crate::engine::rooms::{Next, Rooms};
use crate::engine::schedule::Pace;
use crate::engine::window::{Span, drain, own_cpu};
use crate::engine::{Clock, Crowd, Nanos, Player};
use crate::figures::{Figures, Percentiles};
use crate::measure::{Plan, Subject, figures};
use crate::servers::{ANYWHERE, Server, publishing};
use crate::vocabulary::{Documents, Native, Says, Tickets, Vocabulary};

/// Rates are of messages a second over all connections or rooms of a dialect.
const TICKETS: (usize, f64) = (100, 2_000.0);
const PAGES: (usize, f64) = (50, 500.0);
const SIGNALS: (Size, f64) = (Size { rooms: 20, members: 10 }, 200.0);
const EVENTS: (Size, f64) = (Size { rooms: 10, members: 5 }, 100.0);
const UPDATES: (Size, f64) = (Size { rooms: 50, members: 1 }, 200.0);

/// Documents must be there already: [`Server::create_documents`].
pub fn run(server: &Server, subject: &Subject, plan: &Plan) -> io::Result<Figures> {
    let session = "00000000-0000-4000-8000-000000000001";
    agents::new_session(server.port, session)?;
    let workflow = Says {
        path: "/ws/workflow/bench".to_owned(),
        greets: true,
        ask: r#"{"type":"ping"}"#,
        answer: r#"{"type":"pong"}"#,
    };
    let agent = Says {
        path: format!("/api/v1/ws?session_id={session}"),
        greets: true,
        ask: r#"{"type":"ping","data":{}}"#,
        answer: r#"{"type": "pong", "data": {}, "timestamp": "#,
    };
    let signals = Native::signals();
    let events = Native { first_room: SIGNALS.0.rooms, ..publishing() };
    let pinging = |name, vocabulary, (connections, rate)| Part::pings(name, subject, vocabulary, connections, rate);
    let speaking = |name, vocabulary, (size, rate), next| Part::rooms(name, subject, vocabulary, size, rate, next);
    let mut day = [
        pinging(["tickets_p50_micros", "tickets_p99_micros"], &Tickets as &dyn Vocabulary, TICKETS)?,
        pinging(["workflows_p50_micros", "workflows_p99_micros"], &workflow, PAGES)?,
        pinging(["agents_p50_micros", "agents_p99_micros"], &agent, PAGES)?,
        speaking(["signals_p50_micros", "signals_p99_micros"], &signals as &dyn Vocabulary, SIGNALS, Next::Heard)?,
        speaking(["events_p50_micros", "events_p99_micros"], &events, EVENTS, Next::Both)?,
        speaking(["documents_p50_micros", "documents_p99_micros"], &Documents, UPDATES, Next::Both)?,
    ];
    let clock = Clock::start();
    together(&mut day, &clock, plan.warm_up)?;
    let before = subject.used()?;
    let span = together(&mut day, &clock, plan.measured * 2)?;
    let units = day.iter().map(|part| part.player.done()).sum();
    let mut figures = figures(subject, "message", units, span, before, subject.used()?)?;
    for part in &day {
        if let Some(latency) = part.player.latency() {
            figures.extra.insert(part.names[0], latency.p50 as f64 / 1e3);
            figures.extra.insert(part.names[1], latency.p99 as f64 / 1e3);
        }
    }
    Ok(figures)
}

/// One dialect of the day.
struct Part<'v> {
    /// Of its median and its 99th percentile.
    names: [&'static str; 2],
    crowd: Crowd,
    player: Speaker<'v>,
}

enum Speaker<'v> {
    Pings(Exchange<'v>),
    Rooms(Rooms<'v>),
}

impl<'v> Part<'v> {
    fn pings(
        names: [&'static str; 2],
        subject: &Subject,
        vocabulary: &'v dyn Vocabulary,
        connections: usize,
        rate: f64,
    ) -> io::Result<Part<'v>> {
        let crowd = crowd(subject, vocabulary, &vec![ANYWHERE; connections])?;
        let player = Exchange::new(vocabulary, connections, Pace::Open { rate })?;
        Ok(Part { names, crowd, player: Speaker::Pings(player) })
    }

    fn rooms(
        names: [&'static str; 2],
        subject: &Subject,
        vocabulary: &'v dyn Vocabulary,
        size: Size,
        rate: f64,
        next: Next,
    ) -> io::Result<Part<'v>> {
        let seats = size.seats();
        let crowd = crowd(subject, vocabulary, &seats)?;
        let player = Rooms::new(vocabulary, seats, Pace::Open { rate }, next)?;
        Ok(Part { names, crowd, player: Speaker::Rooms(player) })
    }

    fn turn(&mut self, clock: &Clock) -> io::Result<()> {
        let Part { crowd, player, .. } = self;
        match player {
            Speaker::Pings(player) => turn(crowd, player, clock),
            Speaker::Rooms(player) => turn(crowd, player, clock),
        }
    }

    fn begin(&mut self, clock: &Clock) -> io::Result<()> {
        match &mut self.player {
            Speaker::Pings(player) => player.begin(clock, self.crowd.links()),
            Speaker::Rooms(player) => player.begin(clock, self.crowd.links()),
        }
    }

    fn end(&mut self, clock: &Clock) -> io::Result<()> {
        let Part { crowd, player, .. } = self;
        match player {
            Speaker::Pings(player) => finish(crowd, player, clock),
            Speaker::Rooms(player) => finish(crowd, player, clock),
        }
    }
}

impl Speaker<'_> {
    fn done(&self) -> u64 {
        match self {
            Speaker::Pings(player) => player.done,
            Speaker::Rooms(player) => player.done,
        }
    }

    fn latency(&self) -> Option<Percentiles> {
        Percentiles::of(match self {
            Speaker::Pings(player) => &player.latencies,
            Speaker::Rooms(player) => &player.latencies,
        })
    }
}

/// Everybody speaks at their own rate, in one thread.
fn together(day: &mut [Part<'_>], clock: &Clock, length: Duration) -> io::Result<Span> {
    let (begun, cpu) = (clock.now(), own_cpu());
    let end = begun + length.as_nanos() as Nanos;
    day.iter_mut().try_for_each(|part| part.begin(clock))?;
    while clock.now() < end {
        day.iter_mut().try_for_each(|part| part.turn(clock))?;
    }
    day.iter_mut().try_for_each(|part| part.end(clock))?;
    Ok(Span { nanos: clock.now() - begun, generator: own_cpu() - cpu })
}

fn turn(crowd: &mut Crowd, player: &mut impl Player, clock: &Clock) -> io::Result<()> {
    player.due(clock.now(), crowd.links())?;
    crowd.turn(Duration::ZERO, clock, player).map(|_| ())
}

fn finish(crowd: &mut Crowd, player: &mut impl Player, clock: &Clock) -> io::Result<()> {
    player.stop();
    drain(crowd, player, clock)
}
