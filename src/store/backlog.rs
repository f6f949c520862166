//! How many bytes of operations wait for the store, over all queues.
//!
//! Queues are bounded by count, and an operation may bring a megabyte: 64 clients with 64 updates each under way were
//! measured at 4 GiB. Past the bound a client's operation is parked with it and its socket is not read.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits::STORE_BYTES_MAX;

#[derive(Debug, Default)]
pub struct Backlog {
    bytes: AtomicUsize,
}

impl Backlog {
    /// Takes room for an operation. One alone always fits, however large.
    pub fn admit(&self, weight: usize) -> bool {
        let before = self.bytes.fetch_add(weight, Ordering::Relaxed);
        let fits = before == 0 || before + weight <= STORE_BYTES_MAX;
        if !fits {
            self.release(weight);
        }
        fits
    }

    /// The operation was answered.
    pub fn release(&self, weight: usize) {
        self.bytes.fetch_sub(weight, Ordering::Relaxed);
    }

    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_exact_and_one_always_fits() {
        let backlog = Backlog::default();
        assert!(backlog.admit(STORE_BYTES_MAX - 1));
        assert!(backlog.admit(1));
        assert!(!backlog.admit(1));
        assert_eq!(backlog.bytes(), STORE_BYTES_MAX, "what was refused takes no room");
        backlog.release(STORE_BYTES_MAX);
        assert!(backlog.admit(2 * STORE_BYTES_MAX));
    }
}
