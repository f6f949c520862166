//! When the writer is to see what has become due (`model::Record::due`): the next moment, as the last commit left it.
//!
//! Wall time decides, and it may jump: what is due is judged by the rows, in the transaction, so that ringing too often is
//! only a waste and never a second decision. Against the waste there is a pause.

use std::time::Duration;

use crate::clock::{Mono, Wall};

/// Between two calls about the same moment: what is due and stays due (a full disk, a dialect that leaves it so) must not
/// keep the writer spinning.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub struct Alarm {
    /// Whether `at` is what the rows say: not before the first look at them, and not once it has rung.
    known: bool,
    at: Option<Wall>,
    /// The moment it last rang for.
    rung: Option<Wall>,
    not_before: Mono,
}

impl Alarm {
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// What the rows say after a commit.
    pub fn set(&mut self, next: Option<Wall>) {
        self.known = true;
        self.at = next;
        if next != self.rung {
            // It came on: a thousand things that are due are dealt with one batch after the other.
            self.rung = None;
            self.not_before = Mono(0);
        }
    }

    /// True when something is due. Then the rows are to be asked again.
    pub fn ring(&mut self, now: Mono, wall: Wall) -> bool {
        let due = self.known && now >= self.not_before && self.at.is_some_and(|at| at <= wall);
        if due {
            self.known = false;
            self.rung = self.at;
            self.not_before = now.after(PAUSE);
        }
        due
    }

    /// How long nothing will be due, as the clocks stand.
    pub fn wait(&self, now: Mono, wall: Wall) -> Option<Duration> {
        let micros = self.at.filter(|_| self.known)?.0.saturating_sub(wall.0);
        let by_wall = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
        Some(by_wall.max(self.not_before.since(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn it_rings_once_for_a_moment_and_not_before_the_rows_were_asked() {
        let mut alarm = Alarm::default();
        assert!(!alarm.is_known() && !alarm.ring(Mono(0), Wall(100)), "nobody has looked yet");
        alarm.set(Some(Wall(100)));
        assert!(!alarm.ring(Mono(0), Wall(99)));
        assert_eq!(alarm.wait(Mono(0), Wall(40)), Some(Duration::from_micros(60)));
        assert!(alarm.ring(Mono(0), Wall(100)));
        assert!(!alarm.ring(Mono(0), Wall(100)) && !alarm.is_known());
        assert_eq!(alarm.wait(Mono(0), Wall(100)), None);
        alarm.set(None);
        assert!(!alarm.ring(Mono(u64::MAX), Wall(i64::MAX)));
    }

    #[test]
    fn what_stays_due_rings_at_its_leisure_and_what_comes_next_at_once() {
        let mut alarm = Alarm::default();
        alarm.set(Some(Wall(100)));
        assert!(alarm.ring(Mono(MS), Wall(100)));
        alarm.set(Some(Wall(100)));
        assert!(!alarm.ring(Mono(2 * MS), Wall(100)));
        assert_eq!(alarm.wait(Mono(2 * MS), Wall(100)), Some(Duration::from_millis(499)));
        assert!(alarm.ring(Mono(501 * MS), Wall(100)));
        alarm.set(Some(Wall(101)));
        assert!(alarm.ring(Mono(502 * MS), Wall(101)), "the next one is another matter");
    }

    #[test]
    fn l9_a_clock_that_jumps_back_only_delays() {
        let mut alarm = Alarm::default();
        alarm.set(Some(Wall(100)));
        assert!(!alarm.ring(Mono(MS), Wall(-1_000_000)));
        assert_eq!(alarm.wait(Mono(MS), Wall(i64::MIN)), Some(Duration::from_micros(i64::MAX as u64)));
        assert!(alarm.ring(Mono(MS), Wall(i64::MAX)));
    }
}
