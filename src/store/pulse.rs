//! Whether a commit hangs: the writer notes when one begins, whoever watches compares (threat row 81).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Mono;

#[derive(Debug, Default)]
pub struct Pulse {
    /// When the present transaction began, in nanoseconds plus one; 0 between transactions.
    since: AtomicU64,
}

impl Pulse {
    pub fn begin(&self, now: Mono) {
        self.since.store(now.0.saturating_add(1), Ordering::Relaxed);
    }

    pub fn end(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    /// How long the present transaction has taken.
    pub fn age(&self, now: Mono) -> Duration {
        match self.since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => now.since(Mono(since - 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_transaction_under_way_ages() {
        let pulse = Pulse::default();
        assert_eq!(pulse.age(Mono(9)), Duration::ZERO);
        pulse.begin(Mono(0));
        assert_eq!(pulse.age(Mono(9)), Duration::from_nanos(9));
        pulse.end();
        assert_eq!(pulse.age(Mono(99)), Duration::ZERO);
    }
}
