//! Upgrades: connect, upgrade, wait for whatever the server says first, cut; again and again, some at once.

use std::io;
use std::time::Duration;

use crate::engine::Clock;
use crate::engine::dial::{Dialer, cut};
use crate::engine::window::{Latencies, Span, latencies, own_cpu};
use crate::figures::{Figures, Percentiles};
use crate::measure::{Plan, Subject, busy, count_calls, figures};
use crate::servers::ANYWHERE;
use crate::vocabulary::Vocabulary;

/// Handshakes under way at once.
const AT_ONCE: usize = 64;
/// The server has the last ones' ends still to see.
const AFTERMATH: Duration = Duration::from_millis(10);

pub fn run(subject: &Subject, vocabulary: &dyn Vocabulary, plan: &Plan) -> io::Result<Figures> {
    let mut dialer = Dialer::new(subject.address, vocabulary);
    dialer.headers = subject.headers.clone();
    dialer.at_once = AT_ONCE;
    upgrades(&dialer, plan.warm_up)?;
    let before = subject.used()?;
    let (count, times, span) = upgrades(&dialer, plan.measured)?;
    std::thread::sleep(AFTERMATH);
    let mut figures = figures(subject, "upgrade", count, span, before, subject.used()?)?;
    figures.latency = Percentiles::of(&times);
    figures.warning = busy(&figures).or(figures.warning.take());
    figures.calls = count_calls(subject, plan, |length| {
        let (count, ..) = upgrades(&dialer, length)?;
        std::thread::sleep(AFTERMATH);
        Ok(count)
    })?;
    Ok(figures)
}

fn upgrades(dialer: &Dialer<'_>, length: Duration) -> io::Result<(u64, Latencies, Span)> {
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
