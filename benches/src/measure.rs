//! A measurement: warm-up, the measured window with the server observed, and a window of its own for system calls.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::engine::schedule::Schedule;
use crate::engine::window::{Span, Waiting, window};
use crate::engine::{Clock, Crowd, Player};
use crate::figures::Figures;
use crate::observe::{Calls, Used, rss_bytes};
use crate::servers::Server;

/// The server that is measured.
#[derive(Clone, Debug)]
pub struct Subject {
    pub name: String,
    pub address: SocketAddr,
    /// On this machine; without it nothing is known of its CPU.
    pub pid: Option<u32>,
    /// Further lines of every upgrade, each with its line end.
    pub headers: String,
    /// Where temporary files may lie.
    pub home: PathBuf,
}

impl Subject {
    pub fn of(name: &str, server: &Server) -> Subject {
        Subject {
            name: name.to_owned(),
            address: server.address(),
            pid: Some(server.pid()),
            headers: String::new(),
            home: server.home.clone(),
        }
    }

    pub fn used(&self) -> io::Result<Option<Used>> {
        self.pid.map(Used::of).transpose()
    }
}

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub warm_up: Duration,
    pub measured: Duration,
    /// The window for system calls; none where they are not counted.
    pub calls: Option<Duration>,
    pub waiting: Waiting,
}

impl Plan {
    pub fn full() -> Plan {
        let [warm_up, measured, calls] = [400, 1000, 300].map(Duration::from_millis);
        Plan { warm_up, measured, calls: Some(calls), waiting: Waiting::Spins }
    }

    pub fn quick() -> Plan {
        let [warm_up, measured, calls] = [150, 300, 100].map(Duration::from_millis);
        Plan { warm_up, measured, calls: Some(calls), waiting: Waiting::Spins }
    }

    pub fn without_calls(self) -> Plan {
        Plan { calls: None, ..self }
    }

    pub fn sleeping(self) -> Plan {
        Plan { waiting: Waiting::Sleeps, ..self }
    }
}

/// A generator that is busier than this was the bottleneck, unless the server was as well.
const BUSY: f64 = 0.97;

/// Lets the player speak and says what it cost. `units` is how much came of a window; the player keeps the state of the
/// measured one's end until `read` has looked at it.
pub fn measure<P: Player>(
    subject: &Subject,
    plan: &Plan,
    crowd: &mut Crowd,
    player: &mut P,
    unit: &'static str,
    units: impl Fn(&P) -> u64,
    read: impl FnOnce(&P, &mut Figures),
) -> io::Result<Figures> {
    let clock = Clock::start();
    window(crowd, player, &clock, plan.warm_up, plan.waiting)?;
    let before = subject.used()?;
    let span = window(crowd, player, &clock, plan.measured, plan.waiting)?;
    let after = subject.used()?;
    let mut figures = figures(subject, unit, units(player), span, before, after)?;
    figures.warning = busy(&figures).or(figures.warning.take());
    read(player, &mut figures);
    figures.calls = count_calls(subject, plan, |length| {
        window(crowd, player, &clock, length, plan.waiting)?;
        Ok(units(player))
    })?;
    Ok(figures)
}

/// System calls per unit in a window of their own; `load` says how many units it came to. `None` where nobody can count.
pub fn count_calls(
    subject: &Subject,
    plan: &Plan,
    load: impl FnOnce(Duration) -> io::Result<u64>,
) -> io::Result<Option<f64>> {
    let (Some(length), Some(pid)) = (plan.calls, subject.pid) else { return Ok(None) };
    let Some(mut calls) = Calls::attach(pid, &subject.home) else { return Ok(None) };
    calls.begin()?;
    let units = load(length)?;
    Ok(Some(calls.end()? as f64 / units.max(1) as f64))
}

/// What was observed around a window, as figures.
pub fn figures(
    subject: &Subject,
    unit: &'static str,
    units: u64,
    span: Span,
    before: Option<Used>,
    after: Option<Used>,
) -> io::Result<Figures> {
    let mut figures = Figures {
        server: subject.name.clone(),
        unit,
        units,
        seconds: span.nanos as f64 / 1e9,
        generator_busy: span.generator as f64 / span.nanos.max(1) as f64,
        rss_bytes: subject.pid.map(rss_bytes).transpose()?,
        ..Figures::default()
    };
    if let (Some(before), Some(after)) = (before, after) {
        let usage = after.since(&before);
        let per_unit = |count: u64| Some(count as f64 / units.max(1) as f64);
        figures.cpu_nanos = per_unit(usage.cpu_nanos);
        figures.voluntary = per_unit(usage.voluntary);
        figures.involuntary = per_unit(usage.involuntary);
        figures.server_busy = Some(usage.cpu_nanos as f64 / span.nanos.max(1) as f64);
        figures.server_waited = Some(usage.waited_nanos as f64 / span.nanos.max(1) as f64);
        figures.warning = shared(&figures);
        let writer = after.cpu_of("writer", &before);
        if writer > 0 {
            figures.extra.insert("writer_nanos", writer as f64 / units.max(1) as f64);
        }
    }
    Ok(figures)
}

/// More than this share of a window without a core that it was ready for, and somebody else was on it.
const SHARED: f64 = 0.25;

/// Another program on the server's core costs it its caches, and a closed loop its pace.
fn shared(figures: &Figures) -> Option<String> {
    let waited = figures.server_waited.filter(|waited| *waited > SHARED)?;
    Some(format!(
        "the server was ready and had no core for {:.0} % of the window: another program, or its own other threads, were \
         on it",
        waited * 100.0
    ))
}

/// In a closed loop the slower side sets the pace. Whichever it is, CPU per unit is what it is; throughput is not.
pub fn busy(figures: &Figures) -> Option<String> {
    let server = figures.server_busy?;
    (figures.generator_busy > BUSY && server < BUSY).then(|| {
        "the generator was the bottleneck: throughput is its own, and latency is partly; CPU per unit still holds"
            .to_owned()
    })
}

/// In an open loop a generator behind its schedule measures itself.
pub fn behind(schedule: Option<&Schedule>) -> Option<String> {
    let schedule = schedule?;
    (schedule.late * 1000 > schedule.sent()).then(|| {
        format!(
            "the generator was behind its schedule for {} of {} messages, at most {:.1} ms: latencies are partly its own",
            schedule.late,
            schedule.sent(),
            schedule.behind as f64 / 1e6
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_busy_generator_is_reported() {
        let figures =
            |generator_busy, server| Figures { generator_busy, server_busy: Some(server), ..Figures::default() };
        assert!(busy(&figures(0.99, 0.5)).unwrap().contains("CPU per unit still holds"));
        assert_eq!((busy(&figures(0.9, 0.5)), busy(&figures(0.99, 0.99))), (None, None));
        let waited = |share| shared(&Figures { server_waited: Some(share), ..Figures::default() });
        assert!(waited(0.3).unwrap().contains("30 %") && waited(0.1).is_none());
        let mut schedule = Schedule::new(0, 1000.0);
        schedule.take(0);
        assert_eq!((behind(Some(&schedule)), behind(None)), (None, None));
        schedule.take(9_000_000);
        assert!(behind(Some(&schedule)).unwrap().contains("1 of 2"));
    }
}
