//! When messages are meant to be sent in an open loop, and how far behind the generator fell.

use super::Nanos;

/// How a player speaks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// So many messages under way on each connection or in each room: the next goes out when one has come back.
    Closed { window: usize },
    /// So many messages a second over all connections or rooms, come back or not.
    Open { rate: f64 },
}

/// Evenly spaced times at a fixed rate. They are computed from the start and not from one to the next, so that being late
/// once moves nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    start: Nanos,
    rate: f64,
    next: u64,
    /// The longest that a message was sent behind its time.
    pub behind: Nanos,
    /// Messages sent more than [`LATE`] behind their time.
    pub late: u64,
}

/// Later than this the generator, not the server, would be what is measured.
pub const LATE: Nanos = 1_000_000;

impl Schedule {
    pub fn new(start: Nanos, rate: f64) -> Schedule {
        Schedule { start, rate, next: 0, behind: 0, late: 0 }
    }

    /// When the message with this number is meant to be sent.
    pub fn intended(&self, number: u64) -> Nanos {
        self.start + (number as f64 * 1e9 / self.rate) as Nanos
    }

    /// The next message whose time has come: its number and when it was meant to be sent.
    pub fn take(&mut self, now: Nanos) -> Option<(u64, Nanos)> {
        let (number, intended) = (self.next, self.intended(self.next));
        let behind = now.checked_sub(intended)?;
        self.next += 1;
        self.behind = self.behind.max(behind);
        self.late += u64::from(behind > LATE);
        Some((number, intended))
    }

    pub fn next_at(&self) -> Nanos {
        self.intended(self.next)
    }

    pub fn sent(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_moves_no_later_message() {
        let mut schedule = Schedule::new(1_000, 1_000_000.0);
        assert_eq!(schedule.take(999), None);
        assert_eq!(schedule.take(1_000), Some((0, 1_000)));
        assert_eq!((schedule.take(1_999), schedule.next_at()), (None, 2_000));
        assert_eq!(schedule.take(2_003_001), Some((1, 2_000)));
        assert_eq!(schedule.take(2_003_001), Some((2, 3_000)));
        assert_eq!((schedule.behind, schedule.late, schedule.sent()), (2_001_001, 2, 3));
        let odd = Schedule::new(0, 3.0);
        assert_eq!(odd.intended(3_000_000), 1_000_000_000_000_000);
    }
}
