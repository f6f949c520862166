//! NATS over WebSocket: its own text protocol, of which frames are only pieces.

use std::io;

use super::{Aside, Native, Role, Seat, Stream, Vocabulary, room_name, wrong};
use crate::engine::pattern::Pattern;
use crate::wire::{BINARY, Stamped, masked};

#[derive(Clone, Copy, Debug)]
pub struct Nats;

/// What a publisher's payload is: the same data as in the JSON vocabularies, without a server that parses it.
fn payload() -> String {
    Native::data()
}

impl Vocabulary for Nats {
    fn stream(&self) -> Stream {
        Stream::Nats
    }

    fn path(&self, _: Seat) -> String {
        "/".to_owned()
    }

    fn opening(&self, seat: Seat) -> Vec<u8> {
        let connect = "CONNECT {\"verbose\":false,\"pedantic\":false,\"tls_required\":false,\"lang\":\"bench\",\"version\":\"1\"}\r\n";
        let subscribe = match seat.role {
            Role::Publisher => String::new(),
            Role::Member => format!("SUB {} 1\r\n", room_name(seat.room)),
        };
        masked(BINARY, format!("{connect}{subscribe}PING\r\n").as_bytes())
    }

    fn awaits(&self) -> bool {
        true
    }

    fn is_open(&self, message: &[u8]) -> io::Result<bool> {
        match message {
            b"PONG" => Ok(true),
            _ if message.starts_with(b"-ERR") => Err(wrong("PONG", message)),
            _ => Ok(false),
        }
    }

    fn aside(&self, message: &[u8]) -> Aside {
        match message {
            b"PING" => Aside::Reply(masked(BINARY, b"PONG\r\n")),
            _ if message.starts_with(b"INFO ") => Aside::Ignore,
            _ => Aside::Foreign,
        }
    }

    fn exchange(&self) -> io::Result<(Vec<u8>, usize)> {
        Ok((masked(BINARY, b"PING\r\n"), 1))
    }

    fn answer(&self, _: usize, message: &[u8]) -> io::Result<Pattern> {
        if message == b"PONG" { Ok(Pattern::exactly(message)) } else { Err(wrong("PONG", message)) }
    }

    fn saying(&self, room: usize) -> io::Result<Stamped> {
        let payload = payload();
        Ok(Stamped::new(BINARY, &format!("PUB {} {}\r\n{payload}\r\n", room_name(room), payload.len())))
    }

    fn heard(&self, room: usize, message: &[u8]) -> io::Result<Pattern> {
        let expected = format!("MSG {} 1 {}\r\n", room_name(room), payload().len());
        let body = message.strip_prefix(expected.as_bytes());
        let digits = body.and_then(|body| body.get(body.len().checked_sub(11)?..body.len() - 1));
        let digits = digits.filter(|digits| crate::wire::serial(digits).is_some());
        digits.and_then(|digits| Pattern::around(message, digits)).ok_or_else(|| wrong(&expected, message))
    }
}

/// The length of the first message in a stretch of the protocol, its line end included, and what of it is shown: for `MSG`
/// the line and the payload, otherwise the line.
pub fn first_message(bytes: &[u8]) -> io::Result<Option<(usize, usize)>> {
    let Some(line) = bytes.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
    let head = bytes.get(..line).unwrap_or_default();
    if !head.starts_with(b"MSG ") {
        return Ok(Some((line + 2, line)));
    }
    let length = head.rsplit(|byte| *byte == b' ').next().and_then(|length| std::str::from_utf8(length).ok());
    let length: usize = length.and_then(|length| length.parse().ok()).ok_or_else(|| wrong("a length", head))?;
    let end = line + 2 + length;
    Ok((bytes.len() >= end + 2).then_some((end + 2, end)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::engine::pattern::Match;
    use crate::wire::SERIAL_PLACE;

    #[test]
    fn messages_are_cut_out_of_the_stream() {
        for (bytes, expected) in [
            ("", None),
            ("PON", None),
            ("PONG\r\nPING\r\n", Some((6, 4))),
            ("MSG a 1 3\r\nab", None),
            ("MSG a 1 3\r\nabc\r", None),
            ("MSG a 1 3\r\nabc\r\n", Some((16, 14))),
        ] {
            assert_eq!(first_message(bytes.as_bytes()).unwrap(), expected, "{bytes}");
        }
        assert!(first_message(b"MSG a 1 x\r\n").is_err());
    }

    #[test]
    fn a_message_has_the_publishers_serial() {
        let length = payload().len();
        let message = |n: &str| format!("MSG room-00004 1 {length}\r\n{}", payload().replace(SERIAL_PLACE, n));
        let pattern = Nats.heard(4, message("1000000003").as_bytes()).unwrap();
        assert_eq!(pattern.read(message("1000000004").as_bytes()), Match::Serial(1_000_000_004));
        assert!(Nats.heard(5, message("1000000003").as_bytes()).is_err());
        assert!(
            Nats.is_open(b"-ERR 'no'").is_err() && !Nats.is_open(b"INFO {}").unwrap() && Nats.is_open(b"PONG").unwrap()
        );
    }
}
