//! Judges UTF-8 that arrives in pieces: a byte that no continuation can save is refused when it arrives.

/// The bytes so far begin no valid UTF-8 text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not UTF-8")]
pub struct BadUtf8;

/// What is still owed by a character whose first bytes have been seen.
///
/// The bytes themselves are not kept: the range of the next one says all that Unicode's Table 3-7 asks (only a
/// character's second byte depends on its first), so overlong forms, surrogates and values past U+10FFFF fail at their
/// second byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Checker {
    /// Bytes to come, at most three.
    owed: u8,
    /// The next of them lies in `low..=high`; meaningless while nothing is owed.
    low: u8,
    high: u8,
}

impl Checker {
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), BadUtf8> {
        let mut bytes = bytes;
        while self.owed > 0
            && let Some(&byte) = bytes.split_off_first()
        {
            self.follow(byte)?;
        }
        match simdutf8::compat::from_utf8(bytes) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_some() => Err(BadUtf8),
            Err(error) => self.begin(bytes.get(error.valid_up_to()..).unwrap_or_default()),
        }
    }

    /// The text ends here.
    pub fn finish(self) -> Result<(), BadUtf8> {
        if self.owed == 0 { Ok(()) } else { Err(BadUtf8) }
    }

    /// Takes the unfinished character a piece ends with.
    fn begin(&mut self, tail: &[u8]) -> Result<(), BadUtf8> {
        let Some((&first, rest)) = tail.split_first() else {
            return Ok(());
        };
        let (owed, low, high) = match first {
            0xc2..=0xdf => (1, 0x80, 0xbf),
            0xe0 => (2, 0xa0, 0xbf),
            0xed => (2, 0x80, 0x9f),
            0xe1..=0xef => (2, 0x80, 0xbf),
            0xf0 => (3, 0x90, 0xbf),
            0xf1..=0xf3 => (3, 0x80, 0xbf),
            0xf4 => (3, 0x80, 0x8f),
            _ => return Err(BadUtf8),
        };
        *self = Checker { owed, low, high };
        rest.iter().try_for_each(|&byte| self.follow(byte))
    }

    fn follow(&mut self, byte: u8) -> Result<(), BadUtf8> {
        if !(self.low..=self.high).contains(&byte) {
            return Err(BadUtf8);
        }
        *self = Checker { owed: self.owed.saturating_sub(1), low: 0x80, high: 0xbf };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    /// How many bytes are taken, one at a time, before one is refused; `None` when none is.
    fn refused_at(bytes: &[u8]) -> Option<usize> {
        let mut checker = Checker::default();
        bytes.iter().position(|byte| checker.feed(std::slice::from_ref(byte)).is_err())
    }

    #[test]
    fn a_bad_byte_is_refused_when_it_arrives() {
        for (bytes, expected) in [
            (&b"\xf4\x90"[..], Some(1)),
            (b"\xf4\x8f", None),
            (b"\xed\xa0", Some(1)),
            (b"\xed\x9f", None),
            (b"\xe0\x80", Some(1)),
            (b"\xe0\xa0", None),
            (b"\xf0\x8f", Some(1)),
            (b"\xf0\x90", None),
            (b"\xc0", Some(0)),
            (b"\xc1", Some(0)),
            (b"\x80", Some(0)),
            (b"\xbf", Some(0)),
            (b"\xf5", Some(0)),
            (b"\xfe", Some(0)),
            (b"\xff", Some(0)),
            (b"ab\xc3(", Some(3)),
            (b"\xe2\x82A", Some(2)),
            (b"\xf0\x9f\x98A", Some(3)),
            (b"\xf0\x9f\x98\x80\x80", Some(4)),
            ("κόσμε\u{ffff}\u{10ffff}\0".as_bytes(), None),
        ] {
            assert_eq!(refused_at(bytes), expected, "{bytes:x?}");
        }
    }

    /// All pairs that start outside ASCII, with a third and a fourth byte at the edges: a byte is refused exactly when
    /// std calls the sequence wrong rather than short, and `finish` agrees with std on what is complete.
    #[test]
    fn every_short_sequence_is_judged_as_std_judges_it() {
        let edges = [0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff];
        let mut sequences: Vec<Vec<u8>> = Vec::new();
        for first in 0x7f..=0xffu8 {
            sequences.push(vec![first]);
            for second in 0..=0xffu8 {
                sequences.push(vec![first, second]);
                for third in edges {
                    sequences.push(vec![first, second, third]);
                    sequences.extend(edges.map(|fourth| vec![first, second, third, fourth]));
                }
            }
        }
        for bytes in sequences {
            let (wrong, complete) = match std::str::from_utf8(&bytes) {
                Ok(_) => (false, true),
                Err(error) => (error.error_len().is_some(), false),
            };
            assert_eq!(refused_at(&bytes).is_some(), wrong, "{bytes:x?}");
            let mut checker = Checker::default();
            let fed = checker.feed(&bytes).and_then(|()| checker.finish());
            assert_eq!(fed.is_ok(), complete, "{bytes:x?}");
        }
    }

    proptest! {
        /// However the pieces fall, the verdict is that on the whole, at the piece that holds the bad byte.
        #[test]
        fn pieces_change_nothing(
            text in "\\PC{0,60}",
            edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            cuts in proptest::collection::vec(1usize..40, 1..20),
        ) {
            let mut bytes = text.into_bytes();
            for (at, byte) in edits {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            let mut checker = Checker::default();
            let mut end = 0;
            let mut sizes = cuts.iter().cycle();
            while end < bytes.len() {
                let start = end;
                end = (end + sizes.next().unwrap()).min(bytes.len());
                let fed = checker.feed(&bytes[start..end]);
                let wrong = matches!(std::str::from_utf8(&bytes[..end]), Err(error) if error.error_len().is_some());
                prop_assert_eq!(fed.is_err(), wrong);
                if wrong {
                    return Ok(());
                }
            }
            prop_assert_eq!(checker.finish().is_ok(), std::str::from_utf8(&bytes).is_ok());
        }
    }
}
