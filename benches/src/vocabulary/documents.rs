//! The documents dialect: a room is a prompt, an update is confirmed to its sender when it is stored.

use std::io;

use super::json::{last_digits, object};
use super::{Seat, Vocabulary, filler, wrong};
use crate::engine::pattern::Pattern;
use crate::wire::{SERIAL_DIGITS, SERIAL_PLACE, Stamped, TEXT};

const CONTENT_BYTES: usize = 256;

#[derive(Clone, Debug)]
pub struct Documents;

impl Documents {
    /// The prompt that is a room.
    pub fn prompt(room: usize) -> String {
        format!("bench-{room:05}")
    }

    fn content() -> String {
        filler(CONTENT_BYTES - SERIAL_DIGITS)
    }
}

impl Vocabulary for Documents {
    fn path(&self, seat: Seat) -> String {
        format!("/ws/prompts/{}", Documents::prompt(seat.room))
    }

    fn awaits(&self) -> bool {
        true
    }

    fn is_open(&self, message: &[u8]) -> io::Result<bool> {
        object(message, &[("action", "initial")]).map(|_| true)
    }

    fn saying(&self, _: usize) -> io::Result<Stamped> {
        let content = Documents::content();
        Ok(Stamped::new(TEXT, &format!(r#"{{"action":"update","content":"{content}{SERIAL_PLACE}"}}"#)))
    }

    fn heard(&self, _: usize, message: &[u8]) -> io::Result<Pattern> {
        let value = object(message, &[("action", "update")])?;
        let digits = last_digits(value.get("content"), message)?;
        let content = [Documents::content().as_bytes(), &digits].concat();
        if value.get("content").and_then(|content| content.as_str()).map(str::as_bytes) != Some(&content) {
            return Err(wrong("the content that was sent", message));
        }
        Pattern::up_to(message, &digits).ok_or_else(|| wrong("a serial", message))
    }

    fn confirms(&self) -> bool {
        true
    }

    fn confirmation(&self, message: &[u8]) -> io::Result<Pattern> {
        let value = object(message, &[("action", "update_status")])?;
        let time = value.get("timestamp").and_then(|time| time.as_str()).unwrap_or_default();
        let at = message.windows(time.len().max(1)).position(|window| window == time.as_bytes());
        match (value.get("success").and_then(|success| success.as_bool()), at) {
            (Some(true), Some(at)) => Ok(Pattern::begins(message.get(..at).unwrap_or_default())),
            _ => Err(wrong("success with a timestamp", message)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::engine::pattern::Match;

    #[test]
    fn an_update_is_heard_and_confirmed() {
        let update = |n: u64, at: &str| {
            format!(r#"{{"action":"update","content":"{}{n}","timestamp":"{at}"}}"#, Documents::content())
        };
        let pattern = Documents.heard(0, update(1_000_000_000, "2026").as_bytes()).unwrap();
        assert_eq!(pattern.read(update(1_000_000_001, "20261").as_bytes()), Match::Serial(1_000_000_001));
        assert!(Documents.heard(0, br#"{"action":"update","content":"x1000000000","timestamp":"t"}"#).is_err());
        let status =
            Documents.confirmation(br#"{"action":"update_status","success":true,"timestamp":"2026"}"#).unwrap();
        let again = br#"{"action":"update_status","success":true,"timestamp":"2027.5"}"#;
        assert_eq!(status.read(again), Match::Plain);
        let failed = br#"{"action":"update_status","success":false,"timestamp":"2027.5"}"#;
        assert_eq!(status.read(failed), Match::No);
        assert!(Documents.confirmation(failed).is_err());
        assert_eq!(Documents.saying(0).unwrap().len() - 8, r#"{"action":"update","content":""}"#.len() + 256);
    }
}
