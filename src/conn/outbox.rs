//! What one connection still has to be sent: replies, control frames, and the rest of a frame that a socket took half of.
//!
//! Events of rooms are never queued here (room/mod.rs: a member is a cursor), so this is bounded by what the client itself
//! asked for, and a client over the bound is not read until it has taken its answers.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

#[derive(Debug, Default)]
pub struct Outbox {
    queue: VecDeque<Bytes>,
    /// Bytes of the first entry that are sent: `< queue[0].len()`.
    sent: usize,
    /// Unsent bytes of all entries.
    bytes: usize,
}

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn push(&mut self, frame: Bytes) {
        if !frame.is_empty() {
            self.bytes += frame.len();
            self.queue.push_back(frame);
        }
    }

    /// Adds what is unsent to `slices`, up to `most` of them.
    pub fn gather<'a>(&'a self, slices: &mut Vec<IoSlice<'a>>, most: usize) {
        let mut skip = self.sent;
        for frame in self.queue.iter().take(most) {
            slices.push(IoSlice::new(frame.get(skip..).unwrap_or_default()));
            skip = 0;
        }
    }

    /// `written` bytes went out; returns how many of them were not from here.
    pub fn advance(&mut self, written: usize) -> usize {
        let mut left = written;
        while let Some(front) = self.queue.front() {
            let unsent = front.len() - self.sent;
            if left < unsent {
                self.sent += left;
                self.bytes -= left;
                return 0;
            }
            left -= unsent;
            self.bytes -= unsent;
            self.sent = 0;
            self.queue.pop_front();
        }
        if self.queue.is_empty() && self.queue.capacity() > 0 {
            // A connection at rest owns nothing; one that is never behind allocates nothing.
            self.queue = VecDeque::new();
        }
        left
    }

    pub fn clear(&mut self) {
        *self = Outbox::default();
    }

    #[cfg(any(test, debug_assertions))]
    pub fn check_invariants(&self) {
        let total: usize = self.queue.iter().map(Bytes::len).sum();
        assert_eq!(self.bytes, total - self.sent);
        assert!(self.queue.front().map_or(self.sent == 0, |front| self.sent < front.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_pushed_comes_out_once_in_order(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..20),
                                                  bites in prop::collection::vec(1usize..30, 1..200)) {
            let mut outbox = Outbox::default();
            let mut sent = Vec::new();
            for frame in &frames {
                outbox.push(Bytes::copy_from_slice(frame));
                outbox.check_invariants();
            }
            for bite in bites {
                let mut slices = Vec::new();
                outbox.gather(&mut slices, 3);
                let flat: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
                let taken = flat.len().min(bite);
                sent.extend_from_slice(&flat[..taken]);
                prop_assert_eq!(outbox.advance(taken), 0);
                outbox.check_invariants();
            }
            let all: Vec<u8> = frames.concat();
            prop_assert_eq!(&sent[..], &all[..sent.len()]);
            prop_assert_eq!(outbox.bytes(), all.len() - sent.len());
        }
    }

    #[test]
    fn bytes_beyond_the_outbox_are_given_back() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"abc"));
        assert_eq!(outbox.advance(5), 2);
        assert!(outbox.is_empty());
    }
}
