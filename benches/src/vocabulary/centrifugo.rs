//! Centrifugo's JSON protocol: commands with ids, replies and pushes, several of them in a frame.

use std::io;

use serde_json::Value;

use super::json::digits;
use super::{Aside, Native, Role, Seat, Stream, Vocabulary, room_name, wrong};
use crate::engine::pattern::Pattern;
use crate::wire::{SERIAL_PLACE, Stamped, TEXT, text};

#[derive(Clone, Copy, Debug)]
pub struct Centrifugo;

/// The id of the last command of the opening.
const LAST: u64 = 2;

impl Vocabulary for Centrifugo {
    fn stream(&self) -> Stream {
        Stream::Lines
    }

    fn path(&self, _: Seat) -> String {
        "/connection/websocket".to_owned()
    }

    fn opening(&self, seat: Seat) -> Vec<u8> {
        let connect = |id: u64| format!(r#"{{"id":{id},"connect":{{}}}}"#);
        match seat.role {
            Role::Publisher => text(&connect(LAST)),
            Role::Member => {
                let room = room_name(seat.room);
                let subscribe = format!(r#"{{"id":{LAST},"subscribe":{{"channel":"{room}"}}}}"#);
                text(&format!("{}\n{subscribe}", connect(1)))
            }
        }
    }

    fn awaits(&self) -> bool {
        true
    }

    fn is_open(&self, message: &[u8]) -> io::Result<bool> {
        let value: Value = serde_json::from_slice(message).map_err(|_| wrong("JSON", message))?;
        if value.get("error").is_some() {
            return Err(wrong("a reply without an error", message));
        }
        Ok(value.get("id").and_then(Value::as_u64) == Some(LAST))
    }

    fn aside(&self, message: &[u8]) -> Aside {
        if message == b"{}" { Aside::Reply(text("{}")) } else { Aside::Foreign }
    }

    fn saying(&self, room: usize) -> io::Result<Stamped> {
        let (room, data) = (room_name(room), Native::data());
        let publish = format!(r#"{{"id":{SERIAL_PLACE},"publish":{{"channel":"{room}","data":{data}}}}}"#);
        Ok(Stamped::new(TEXT, &publish))
    }

    fn heard(&self, room: usize, message: &[u8]) -> io::Result<Pattern> {
        let value: Value = serde_json::from_slice(message).map_err(|_| wrong("JSON", message))?;
        let channel = value.pointer("/push/channel").and_then(Value::as_str);
        if channel != Some(&room_name(room)) {
            return Err(wrong("a push of the room", message));
        }
        let digits = digits(value.pointer("/push/pub/data/n"), message)?;
        let offset = value.pointer("/push/pub/offset").is_some();
        match offset {
            true => Err(wrong("a channel without history, whose offsets cannot be compared byte by byte", message)),
            false => Pattern::around(message, &digits).ok_or_else(|| wrong("a serial", message)),
        }
    }

    fn confirms(&self) -> bool {
        true
    }

    fn confirmation(&self, message: &[u8]) -> io::Result<Pattern> {
        let value: Value = serde_json::from_slice(message).map_err(|_| wrong("JSON", message))?;
        let digits = digits(value.get("id"), message)?;
        match value.get("publish") {
            Some(_) => Pattern::around(message, &digits).ok_or_else(|| wrong("a serial", message)),
            None => Err(wrong("the reply to a publish", message)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::engine::pattern::Match;

    #[test]
    fn replies_and_pushes_are_told_apart() {
        assert!(!Centrifugo.is_open(br#"{"id":1,"connect":{"client":"x"}}"#).unwrap());
        assert!(Centrifugo.is_open(br#"{"id":2,"subscribe":{}}"#).unwrap());
        assert!(Centrifugo.is_open(br#"{"id":2,"error":{"code":103}}"#).is_err());
        let reply = Centrifugo.confirmation(br#"{"id":1000000000,"publish":{}}"#).unwrap();
        assert_eq!(reply.read(br#"{"id":1000000001,"publish":{}}"#), Match::Serial(1_000_000_001));
        let push = br#"{"push":{"channel":"room-00001","pub":{"data":{"n":1000000000}}}}"#;
        assert!(Centrifugo.heard(1, push).is_ok() && Centrifugo.heard(2, push).is_err());
        assert_eq!(Centrifugo.aside(b"{}"), Aside::Reply(text("{}")));
    }
}
