//! A measured stretch of load: begins and ends with nothing in flight, so that costs and messages belong together.

use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

use super::{Clock, Crowd, Nanos, Player};

/// Nanoseconds, to three digits.
pub type Latencies = Histogram<u64>;

/// A minute is longer than any deadline here.
pub fn latencies() -> io::Result<Latencies> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(|error| io::Error::other(error.to_string()))
}

/// How long the last answers may take when nothing new is said.
const DRAIN: Duration = Duration::from_secs(10);

/// How the generator waits for the next answer, or for the time of the next message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Never sleeps. Whoever sends to a sleeping receiver pays for waking it, with an interrupt to another core: a server that
    /// leaves the generator idle for a moment would be charged for that at its next send, and one that keeps it busy would
    /// not. And a message would be late by what waking up takes.
    Spins,
    /// For when the server needs the core as well.
    Sleeps,
}

/// A window's own measures; what the server used is `observe`'s business.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Span {
    /// From the first message to the last answer.
    pub nanos: Nanos,
    /// Of that, time in which the generator had something to do.
    pub generator: Nanos,
}

/// Lets the player speak for so long and waits for every answer.
pub fn window(
    crowd: &mut Crowd,
    player: &mut impl Player,
    clock: &Clock,
    length: Duration,
    waiting: Waiting,
) -> io::Result<Span> {
    let (begun, cpu) = (clock.now(), own_cpu());
    let mut idle = 0;
    let end = begun + length.as_nanos() as Nanos;
    player.begin(clock, crowd.links())?;
    loop {
        // What was meant to be sent before the end is sent, however late it is; what was not, never.
        let now = clock.now();
        let due = player.due(now.min(end), crowd.links())?.unwrap_or(end).min(end);
        if now >= end {
            break;
        }
        let asked = own_cpu();
        if !crowd.turn(wait(due.saturating_sub(now), waiting), clock, player)? {
            idle += own_cpu().saturating_sub(asked);
        }
    }
    player.stop();
    drain(crowd, player, clock)?;
    Ok(Span { nanos: clock.now() - begun, generator: own_cpu().saturating_sub(cpu + idle) })
}

pub fn drain(crowd: &mut Crowd, player: &mut impl Player, clock: &Clock) -> io::Result<()> {
    let deadline = clock.now() + DRAIN.as_nanos() as Nanos;
    while player.missing() > 0 {
        if clock.now() > deadline {
            return Err(io::Error::other(format!("{} answers are missing after {DRAIN:?}", player.missing())));
        }
        crowd.turn(Duration::from_millis(100), clock, player)?;
    }
    Ok(())
}

/// How long to wait for the sockets when the next message is due in so long.
fn wait(left: Nanos, waiting: Waiting) -> Duration {
    match waiting {
        Waiting::Sleeps => Duration::from_nanos(left),
        Waiting::Spins => Duration::ZERO,
    }
}

/// CPU time of this thread so far.
pub fn own_cpu() -> Nanos {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as Nanos * 1_000_000_000 + time.tv_nsec as Nanos
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generator_with_a_core_of_its_own_never_sleeps() {
        assert_eq!(wait(5_000_000, Waiting::Spins), Duration::ZERO);
        assert_eq!(wait(5_000_000, Waiting::Sleeps), Duration::from_millis(5));
    }
}
