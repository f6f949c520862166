//! Upgrades: connect, upgrade, wait for whatever the server says first, cut; again and again, some at once.

use std::io;
use std::time::Duration;

use crate::engine::Clock;
use crate::engine::dial::{Dialer, cut};
use crate::engine::window::{Span, latencies, own_cpu};
use crate::figures::{Figures, Percentiles};
use crate::measure::{Plan, Subject, figures};
use crate::observe::Calls;
use crate::servers::ANYWHERE;
use crate::vocabulary::Vocabulary;

/// Handshakes under way at once.
const AT_ONCE: usize = 64;

pub fn run(subject: &Subject, vocabulary: &dyn Vocabulary, plan: &Plan) -> io::Result<Figures> {
    let mut dialer = Dialer::new(subject.address, vocabulary);
    dialer.headers = subject.headers.clone();
    dialer.at_once = AT_ONCE;
    upgrades(&dialer, plan.warm_up)?;
    let before = subject.used()?;
    let (count, times, span) = upgrades(&dialer, plan.measured)?;
    // The server has the last ones' ends still to see.
    std::thread::sleep(Duration::from_millis(10));
    let mut figures = figures(subject, "upgrade", count, span, before, subject.used()?)?;
    figures.latency = Percentiles::of(&times);
    if let (Some(length), Some(pid)) = (plan.calls, subject.pid)
        && let Some(mut calls) = Calls::attach(pid, &subject.home)
    {
        calls.begin()?;
        let (count, ..) = upgrades(&dialer, length)?;
        std::thread::sleep(Duration::from_millis(10));
        figures.calls = Some(calls.end()? as f64 / count.max(1) as f64);
    }
    Ok(figures)
}

fn upgrades(dialer: &Dialer<'_>, length: Duration) -> io::Result<(u64, crate::engine::window::Latencies, Span)> {
    let clock = Clock::start();
    let cpu = own_cpu();
    let mut times = latencies()?;
    let mut failed = Ok(());
    let seat = |_| (clock.now() < length.as_nanos() as u64).then_some(ANYWHERE);
    dialer.run(&clock, seat, |_, (link, _), took| {
        times.saturating_record(took);
        if let Err(error) = cut(link) {
            failed = Err(error);
        }
    })?;
    failed?;
    Ok((times.len(), times, Span { nanos: clock.now(), generator: own_cpu().saturating_sub(cpu) }))
}
