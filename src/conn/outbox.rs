//! What one connection still has to be sent: replies, control frames, and the rest of a frame that a socket took half of.
//!
//! Events of rooms are never queued here (room/mod.rs: a member is a cursor), so this is bounded by what the client itself
//! asked for, and a client over the bound is not read until it has taken its answers.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

use crate::limits::WRITE_SLICES_MAX;

/// One pointer for a connection that is never behind, which is most of them most of the time.
#[derive(Debug, Default)]
pub struct Outbox(Option<Box<Backlog>>);

/// Never empty.
#[derive(Debug, Default)]
struct Backlog {
    queue: VecDeque<Bytes>,
    /// Bytes of the first entry that are sent: `< queue[0].len()`.
    sent: usize,
    /// Unsent bytes of all entries.
    bytes: usize,
}

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |backlog| backlog.bytes)
    }

    /// Bytes of memory that wait here. A frame of which a part was sent is held whole.
    pub fn held(&self) -> usize {
        self.0.as_ref().map_or(0, |backlog| backlog.bytes + backlog.sent)
    }

    /// What is left of a frame of which `sent` bytes went out, behind nothing.
    pub fn push_rest(&mut self, frame: Bytes, sent: usize) {
        debug_assert!(self.is_empty(), "half a frame goes on before anything else");
        if sent < frame.len() {
            let bytes = frame.len() - sent;
            self.0 = Some(Box::new(Backlog { queue: VecDeque::from([frame]), sent, bytes }));
        }
    }

    pub fn push(&mut self, frame: Bytes) {
        if !frame.is_empty() {
            let backlog = self.0.get_or_insert_default();
            backlog.bytes += frame.len();
            backlog.queue.push_back(frame);
        }
    }

    /// Adds what is unsent to `slices`, as far as they go.
    pub fn gather<'a>(&'a self, slices: &mut Slices<'a>) {
        let Some(backlog) = &self.0 else { return };
        let mut skip = backlog.sent;
        for frame in &backlog.queue {
            if slices.is_full() {
                break;
            }
            slices.push(frame.get(skip..).unwrap_or_default());
            skip = 0;
        }
    }

    /// `written` bytes went out; returns how many of them were not from here.
    pub fn advance(&mut self, written: usize) -> usize {
        let Some(backlog) = &mut self.0 else { return written };
        let mut left = written;
        while let Some(front) = backlog.queue.front() {
            let unsent = front.len() - backlog.sent;
            if left < unsent {
                backlog.sent += left;
                backlog.bytes -= left;
                return 0;
            }
            left -= unsent;
            backlog.bytes -= unsent;
            backlog.sent = 0;
            backlog.queue.pop_front();
        }
        // A connection at rest owns nothing.
        self.0 = None;
        left
    }

    pub fn clear(&mut self) {
        *self = Outbox::default();
    }

    #[cfg(any(test, debug_assertions))]
    pub fn check_invariants(&self) {
        let Some(backlog) = &self.0 else { return };
        let total: usize = backlog.queue.iter().map(Bytes::len).sum();
        assert_eq!(backlog.bytes, total - backlog.sent);
        assert!(backlog.queue.front().is_some_and(|front| backlog.sent < front.len()));
    }
}

/// What one vectored write is to take, gathered without an allocation.
#[derive(Debug)]
pub struct Slices<'a> {
    slices: [IoSlice<'a>; WRITE_SLICES_MAX],
    len: usize,
    bytes: usize,
}

impl Default for Slices<'_> {
    fn default() -> Self {
        Slices { slices: [IoSlice::new(&[]); WRITE_SLICES_MAX], len: 0, bytes: 0 }
    }
}

impl<'a> Slices<'a> {
    /// Nothing is added when it is full: ask [`Slices::is_full`] before.
    pub fn push(&mut self, bytes: &'a [u8]) {
        if let Some(slot) = self.slices.get_mut(self.len)
            && !bytes.is_empty()
        {
            *slot = IoSlice::new(bytes);
            self.len += 1;
            self.bytes += bytes.len();
        }
    }

    pub fn is_full(&self) -> bool {
        self.len == WRITE_SLICES_MAX
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Of all slices.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn as_slice(&self) -> &[IoSlice<'a>] {
        self.slices.get(..self.len).unwrap_or_default()
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
                let mut slices = Slices::default();
                outbox.gather(&mut slices);
                let flat: Vec<u8> = slices.as_slice().iter().flat_map(|slice| slice.to_vec()).collect();
                prop_assert_eq!(flat.len(), slices.bytes());
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
    fn half_a_frame_is_held_whole() {
        let mut outbox = Outbox::default();
        outbox.push_rest(Bytes::from_static(b"abcdef"), 4);
        assert_eq!((outbox.bytes(), outbox.held()), (2, 6));
        outbox.push(Bytes::from_static(b"gh"));
        outbox.check_invariants();
        let mut slices = Slices::default();
        outbox.gather(&mut slices);
        let flat: Vec<u8> = slices.as_slice().iter().flat_map(|slice| slice.to_vec()).collect();
        assert_eq!(flat, b"efgh");
        assert_eq!((outbox.advance(2), outbox.held()), (0, 2));
    }

    #[test]
    fn bytes_beyond_the_outbox_are_given_back() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"abc"));
        assert_eq!(outbox.advance(5), 2);
        assert!(outbox.is_empty());
    }
}
