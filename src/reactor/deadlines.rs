//! When to look at a connection again: a wheel of coarse ticks, entered lazily.
//!
//! A connection's deadline is derived from its state (`Connection::lapse`) and moves with every message, mostly further
//! away. So the wheel holds at most a few entries a connection and none is ever cancelled: an entry that surfaces is
//! compared with what the connection is armed for, and then with its present deadline. 128 ms are fine enough for
//! deadlines of seconds.

use std::time::Duration;

use crate::clock::Mono;
use crate::ids::ConnId;

/// Nanoseconds; 32 bits of ticks last 17 years.
const TICK: u64 = 128_000_000;
/// 131 s: beyond the longest default deadline; a later one surfaces early and is entered again.
const BUCKETS: usize = 1024;

#[derive(Debug)]
pub struct Deadlines {
    buckets: Vec<Vec<(ConnId, u32)>>,
    /// One bit a bucket: something is in it.
    occupied: [u64; BUCKETS / 64],
    /// The next tick to be looked at.
    tick: u32,
    len: usize,
}

impl Default for Deadlines {
    fn default() -> Deadlines {
        Deadlines { buckets: vec![Vec::new(); BUCKETS], occupied: [0; BUCKETS / 64], tick: 1, len: 0 }
    }
}

impl Deadlines {
    /// The tick by which `at` has passed, never in the past.
    pub fn tick_of(&self, at: Mono) -> u32 {
        u32::try_from(at.0.div_ceil(TICK)).unwrap_or(u32::MAX).clamp(self.tick, self.tick + BUCKETS as u32 - 1)
    }

    pub fn enter(&mut self, id: ConnId, tick: u32) {
        let bucket = tick as usize % BUCKETS;
        if let Some(entries) = self.buckets.get_mut(bucket) {
            entries.push((id, tick));
            self.occupied[bucket / 64] |= 1 << (bucket % 64);
            self.len += 1;
        }
    }

    /// Gives out the entries whose tick has come.
    pub fn due(&mut self, now: Mono, into: &mut Vec<(ConnId, u32)>) {
        let last = u32::try_from(now.0 / TICK).unwrap_or(u32::MAX - BUCKETS as u32);
        if self.len == 0 {
            self.tick = self.tick.max(last + 1);
            return;
        }
        while self.tick <= last && self.len > 0 {
            let bucket = self.tick as usize % BUCKETS;
            if self.occupied[bucket / 64] & (1 << (bucket % 64)) != 0 {
                self.occupied[bucket / 64] &= !(1 << (bucket % 64));
                if let Some(entries) = self.buckets.get_mut(bucket) {
                    self.len -= entries.len();
                    into.append(entries);
                    *entries = Vec::new();
                }
            }
            self.tick += 1;
        }
        self.tick = self.tick.max(last + 1);
    }

    /// How long until an entry may be due.
    pub fn patience(&self, now: Mono) -> Option<Duration> {
        if self.len == 0 {
            return None;
        }
        // Word by word from the next tick's own bit, once round: this is asked before every wait.
        let (from, words) = (self.tick as usize % BUCKETS, self.occupied.len());
        let ahead = (0..=words).find_map(|step| {
            let at = from / 64 + step;
            let mut word = self.occupied.get(at % words).copied()?;
            if step == 0 {
                word &= u64::MAX << (from % 64);
            }
            (word != 0).then(|| (at * 64 + word.trailing_zeros() as usize - from) as u32)
        })?;
        Some(Mono(u64::from(self.tick + ahead) * TICK).since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(slot: u32) -> ConnId {
        ConnId { reactor: 0, slot, generation: 1 }
    }

    #[test]
    fn nothing_is_due_early_and_nothing_is_forgotten() {
        let mut wheel = Deadlines::default();
        let mut due = Vec::new();
        for (slot, seconds) in [(1, 1u64), (2, 2), (3, 100), (4, 1000)] {
            let tick = wheel.tick_of(Mono(seconds * 1_000_000_000));
            wheel.enter(id(slot), tick);
        }
        for millis in (0..132_000).step_by(100) {
            let now = Mono(millis * 1_000_000);
            wheel.due(now, &mut due);
            let slots: Vec<u32> = due.iter().map(|(id, _)| id.slot).collect();
            assert_eq!(slots.contains(&1), millis >= 1024, "at {millis} ms");
            assert_eq!(slots.contains(&2), millis >= 2048, "at {millis} ms");
        }
        assert!(due.len() == 4, "the far one surfaces within the wheel's horizon: {due:?}");
        assert_eq!(wheel.patience(Mono(0)), None);
    }

    #[test]
    fn the_wait_ends_with_the_nearest_entry() {
        let mut wheel = Deadlines::default();
        wheel.due(Mono(5_000_000_000), &mut Vec::new());
        let tick = wheel.tick_of(Mono(6_000_000_000));
        wheel.enter(id(1), tick);
        let patience = wheel.patience(Mono(5_000_000_000));
        assert!(
            patience.is_some_and(|wait| wait >= Duration::from_millis(1000) && wait < Duration::from_millis(1200)),
            "{patience:?}"
        );
    }

    proptest! {
        #[test]
        fn the_nearest_bucket_is_found_wherever_it_lies(now in 0u64..5000, ahead in 1u64..1024, further in 1u64..1024) {
            let mut wheel = Deadlines::default();
            wheel.due(Mono(now * TICK), &mut Vec::new());
            for tick in [now + ahead, now + further] {
                let at = wheel.tick_of(Mono(tick * TICK));
                wheel.enter(id(1), at);
            }
            let nearest = Mono((now + ahead.min(further)) * TICK);
            prop_assert_eq!(wheel.patience(Mono(now * TICK)), Some(nearest.since(Mono(now * TICK))));
        }
    }
}
