//! A rate limit in one number: the time by which everything charged so far would be paid off at the allowed rate.
//!
//! (The generic cell rate algorithm.) Against the usual bucket of tokens: nothing to refill, so nothing to do for a
//! connection that rests, and eight bytes each.

use std::time::Duration;

use crate::clock::Mono;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meter(Mono);

impl Meter {
    /// Charges `units` at `rate` a second. `Err` when more than `burst` of time is owed: not before that instant is there
    /// credit again. A rate of 0 is unlimited.
    pub fn charge(&mut self, now: Mono, units: u64, rate: f64, burst: Duration) -> Result<(), Mono> {
        if rate <= 0.0 {
            return Ok(());
        }
        let cost = Duration::from_secs_f64(units as f64 / rate);
        self.0 = self.0.max(now).after(cost);
        let owed = self.0.since(now);
        if owed <= burst { Ok(()) } else { Err(now.after(owed - burst)) }
    }

    /// Nothing is owed: whoever keeps one for a stranger may forget it.
    pub fn is_settled(&self, now: Mono) -> bool {
        self.0 <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_burst_is_exact_and_credit_comes_back_at_the_rate() {
        let mut meter = Meter::default();
        let now = Mono(5_000_000_000);
        // 10 a second, bursts of 20.
        for message in 0..20 {
            assert_eq!(meter.charge(now, 1, 10.0, Duration::from_secs(2)), Ok(()), "message {message}");
        }
        let over = meter.charge(now, 1, 10.0, Duration::from_secs(2));
        assert_eq!(over, Err(now.after(Duration::from_millis(100))));
        let later = now.after(Duration::from_millis(200));
        assert_eq!(meter.charge(later, 1, 10.0, Duration::from_secs(2)), Ok(()));
        assert!(meter.charge(later, 1, 10.0, Duration::from_secs(2)).is_err());
        assert!(!meter.is_settled(later) && meter.is_settled(later.after(Duration::from_secs(3))));
    }

    #[test]
    fn a_rate_of_nothing_is_no_limit() {
        assert_eq!(Meter::default().charge(Mono(0), u64::MAX, 0.0, Duration::ZERO), Ok(()));
    }
}
