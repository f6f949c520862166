//! One question, one answer: the tickets dialect's ping, the echo, and any other pair of texts.

use std::io;

use serde_json::Value;

use super::{Seat, Vocabulary, filler, wrong};
use crate::engine::pattern::Pattern;
use crate::wire::text;

/// `{"type":"ping"}` → `{"type":"pong"}` on `/ws`: what commitcast's tickets dialect and all JSON peers speak.
#[derive(Clone, Copy, Debug)]
pub struct Tickets;

impl Vocabulary for Tickets {
    fn path(&self, _: Seat) -> String {
        "/ws".to_owned()
    }

    fn exchange(&self) -> io::Result<(Vec<u8>, usize)> {
        Ok((text(Tickets::PING), 1))
    }

    fn answer(&self, _: usize, message: &[u8]) -> io::Result<Pattern> {
        same_json(message, Tickets::PONG)
    }
}

impl Tickets {
    pub const PING: &str = r#"{"type":"ping"}"#;
    pub const PONG: &str = r#"{"type":"pong"}"#;
}

/// 64 bytes there and back; the path may be another server's.
#[derive(Clone, Debug)]
pub struct Echo {
    pub path: String,
}

impl Echo {
    pub fn payload() -> String {
        filler(64)
    }
}

impl Vocabulary for Echo {
    fn path(&self, _: Seat) -> String {
        self.path.clone()
    }

    fn exchange(&self) -> io::Result<(Vec<u8>, usize)> {
        Ok((text(&Echo::payload()), 1))
    }

    fn answer(&self, _: usize, message: &[u8]) -> io::Result<Pattern> {
        match message == Echo::payload().as_bytes() {
            true => Ok(Pattern::exactly(message)),
            false => Err(wrong(&Echo::payload(), message)),
        }
    }
}

/// Any one text and how its answer begins, on a socket that may greet first.
#[derive(Clone, Debug)]
pub struct Says {
    pub path: String,
    pub greets: bool,
    pub ask: &'static str,
    /// The whole answer, or all of it that does not change with time.
    pub answer: &'static str,
}

impl Vocabulary for Says {
    fn path(&self, _: Seat) -> String {
        self.path.clone()
    }

    fn awaits(&self) -> bool {
        self.greets
    }

    fn exchange(&self) -> io::Result<(Vec<u8>, usize)> {
        Ok((text(self.ask), 1))
    }

    fn answer(&self, _: usize, message: &[u8]) -> io::Result<Pattern> {
        match message.starts_with(self.answer.as_bytes()) {
            true => Ok(Pattern::begins(self.answer.as_bytes())),
            false => Err(wrong(self.answer, message)),
        }
    }
}

fn same_json(message: &[u8], expected: &str) -> io::Result<Pattern> {
    let value = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
    let same = value(message).is_some_and(|message| Some(message) == value(expected.as_bytes()));
    if same { Ok(Pattern::exactly(message)) } else { Err(wrong(expected, message)) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::engine::pattern::Match;

    #[test]
    fn spaces_are_the_servers_business_and_rubbish_is_not() {
        let pattern = Tickets.answer(0, br#"{"type": "pong"}"#).unwrap();
        assert_eq!(pattern.read(br#"{"type": "pong"}"#), Match::Plain);
        assert_eq!(pattern.read(br#"{"type":"pong"}"#), Match::No, "a server keeps to one spelling");
        for rubbish in [&br#"{"type":"pung"}"#[..], br#"{"type":"pong","x":1}"#, b"pong", b""] {
            assert!(Tickets.answer(0, rubbish).is_err());
        }
        let echo = Echo { path: "/".to_owned() };
        assert_eq!(Echo::payload().len(), 64);
        assert!(echo.answer(0, Echo::payload().as_bytes()).is_ok() && echo.answer(0, b"x").is_err());
    }
}
