//! How an answer is recognised: the first is read as what it means, every later one compared with it byte by byte.
//!
//! A server may write its JSON as it likes, with or without spaces. So the vocabulary reads the first answer and makes a
//! pattern of it, and from then on the check costs two comparisons: a server that answers rubbish quickly is an error, and
//! the generator still parses no JSON under load.

use crate::wire::{SERIAL_DIGITS, serial};

/// What every answer of one kind has in common with the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    head: Vec<u8>,
    tail: Vec<u8>,
    place: Place,
    /// Of the whole message, where all have the same.
    length: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// There is no serial.
    Nowhere,
    BehindHead,
    BeforeTail,
}

/// What a message was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    No,
    Plain,
    Serial(u64),
}

impl Pattern {
    /// These very bytes.
    pub fn exactly(message: &[u8]) -> Pattern {
        Pattern { head: message.to_vec(), tail: Vec::new(), place: Place::Nowhere, length: Some(message.len()) }
    }

    /// Begins like this, whatever follows.
    pub fn begins(head: &[u8]) -> Pattern {
        Pattern { head: head.to_vec(), tail: Vec::new(), place: Place::Nowhere, length: None }
    }

    /// All of `message` but its last serial, which stands there as these digits.
    pub fn around(message: &[u8], digits: &[u8]) -> Option<Pattern> {
        let (head, tail) = split(message, digits)?;
        let length = Some(message.len());
        Some(Pattern { head: head.to_vec(), tail: tail.to_vec(), place: Place::BehindHead, length })
    }

    /// Everything up to the first serial; what follows may change, its length too.
    pub fn up_to(message: &[u8], digits: &[u8]) -> Option<Pattern> {
        let at = message.windows(digits.len()).position(|window| window == digits)?;
        let head = message.get(..at)?.to_vec();
        Some(Pattern { head, tail: Vec::new(), place: Place::BehindHead, length: None })
    }

    /// `head`, anything, then the last serial and what follows it.
    pub fn from_serial(message: &[u8], head: &[u8], digits: &[u8]) -> Option<Pattern> {
        let (_, tail) = split(message, digits)?;
        message.starts_with(head).then(|| Pattern {
            head: head.to_vec(),
            tail: tail.to_vec(),
            place: Place::BeforeTail,
            length: None,
        })
    }

    pub fn read(&self, message: &[u8]) -> Match {
        if self.length.is_some_and(|length| length != message.len())
            || !message.starts_with(&self.head)
            || !message.ends_with(&self.tail)
        {
            return Match::No;
        }
        let at = match self.place {
            Place::Nowhere => return Match::Plain,
            Place::BehindHead => self.head.len(),
            Place::BeforeTail => match message.len().checked_sub(self.tail.len() + SERIAL_DIGITS) {
                Some(at) => at,
                None => return Match::No,
            },
        };
        message.get(at..at + SERIAL_DIGITS).and_then(serial).map_or(Match::No, Match::Serial)
    }
}

/// What stands before and behind the last place of `digits`.
fn split<'m>(message: &'m [u8], digits: &[u8]) -> Option<(&'m [u8], &'m [u8])> {
    let at = message.windows(digits.len()).rposition(|window| window == digits)?;
    Some((message.get(..at)?, message.get(at + digits.len()..)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn answers_are_told_from_others() {
        let plain = Pattern::exactly(b"{\"type\":\"pong\"}");
        let signal = Pattern::around(b"{1000000005,\"n\":1000000000}", b"1000000000").unwrap();
        let update = Pattern::up_to(b"{\"c\":\"x1000000000\",\"at\":\"1\"}", b"1000000000").unwrap();
        let event =
            Pattern::from_serial(b"{\"op\":\"event\",\"seq\":9,\"n\":1000000000}", b"{\"op\":\"event\"", b"1000000000");
        let event = event.unwrap();
        for (pattern, message, expected) in [
            (&plain, "{\"type\":\"pong\"}", Match::Plain),
            (&plain, "{\"type\":\"pung\"}", Match::No),
            (&plain, "{\"type\":\"pong\"} ", Match::No),
            (&signal, "{1000000005,\"n\":1000000007}", Match::Serial(1_000_000_007)),
            (&signal, "{1000000006,\"n\":1000000007}", Match::No),
            (&signal, "{1000000005,\"n\":100000000x}", Match::No),
            (&update, "{\"c\":\"x1000000001\",\"at\":\"12\"}", Match::Serial(1_000_000_001)),
            (&update, "{\"c\":\"y1000000001\",\"at\":\"1\"}", Match::No),
            (&event, "{\"op\":\"event\",\"seq\":10,\"n\":1000000002}", Match::Serial(1_000_000_002)),
            (&event, "{\"op\":\"event\",\"seq\":10,\"m\":1000000002 }", Match::No),
            (&event, "1000000002}", Match::No),
            (&Pattern::begins(b"ok"), "ok, 1", Match::Plain),
        ] {
            assert_eq!(pattern.read(message.as_bytes()), expected, "{message}");
        }
        assert_eq!(Pattern::around(b"nothing", b"1000000000"), None);
    }
}
