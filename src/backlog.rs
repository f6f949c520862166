//! How many bytes wait in a kind of queue, over all clients: operations for the store, responses for slow readers.
//!
//! Queues are bounded by count or for each client, and both an operation and a response may be megabytes: 64 clients with 64
//! updates each under way were measured at 4 GiB.

use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
pub struct Backlog {
    bytes: AtomicUsize,
    bound: usize,
}

impl Backlog {
    pub fn new(bound: usize) -> Backlog {
        Backlog { bytes: AtomicUsize::new(0), bound }
    }

    /// Takes room. One alone always fits, however large.
    pub fn admit(&self, weight: usize) -> bool {
        let before = self.bytes.fetch_add(weight, Ordering::Relaxed);
        let fits = before == 0 || before + weight <= self.bound;
        if !fits {
            self.release(weight);
        }
        fits
    }

    /// It waits no longer.
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
        let backlog = Backlog::new(10);
        assert!(backlog.admit(9));
        assert!(backlog.admit(1));
        assert!(!backlog.admit(1));
        assert_eq!(backlog.bytes(), 10, "what was refused takes no room");
        backlog.release(10);
        assert!(backlog.admit(20));
    }
}
