//! Rooms of the native protocol: signals, stored events, joining and leaving, coming back; and the floor's imitation.

use std::io;

use super::json::{digits, object};
use super::{Role, Seat, TEXT_BYTES, Vocabulary, filler, room_name, wrong};
use crate::engine::pattern::Pattern;
use crate::wire::{SERIAL_PLACE, Stamped, TEXT, text};

/// Everybody joins a room; its publisher signals, or publishes what is stored.
#[derive(Clone, Debug)]
pub struct Native {
    pub durable: bool,
    /// Makes operation ids this run's own: a resent one would be answered without being stored.
    pub run: u64,
    /// The number of its first room: two of these can go about in one server.
    pub first_room: usize,
    pub path: String,
}

impl Native {
    pub fn signals() -> Native {
        Native { durable: false, run: 0, first_room: 0, path: "/v1/connect".to_owned() }
    }

    /// What everybody says, with a place for its serial.
    pub fn data() -> String {
        format!(r#"{{"text":"{}","n":{SERIAL_PLACE}}}"#, filler(TEXT_BYTES))
    }

    pub fn publishes(run: u64) -> Native {
        Native { durable: true, run, first_room: 0, path: "/v1/connect".to_owned() }
    }
}

impl Vocabulary for Native {
    fn path(&self, _: Seat) -> String {
        self.path.clone()
    }

    /// Only members may signal; a publisher of stored events needs no seat, and hears its events only if it takes one.
    fn opening(&self, seat: Seat) -> Vec<u8> {
        match (self.durable, seat.role) {
            (true, Role::Publisher) => text(r#"{"op":"ping"}"#),
            _ => join(self.first_room + seat.room),
        }
    }

    fn awaits(&self) -> bool {
        true
    }

    fn is_open(&self, message: &[u8]) -> io::Result<bool> {
        is_answer(message, &["joined", "pong"])
    }

    fn saying(&self, room: usize) -> io::Result<Stamped> {
        let (room_name, run, data) = (room_name(self.first_room + room), self.run, Native::data());
        Ok(Stamped::new(
            TEXT,
            &match self.durable {
                true => format!(
                    r#"{{"op":"publish","room":"{room_name}","id":"{run:x}-{room}-{SERIAL_PLACE}","data":{data}}}"#
                ),
                false => format!(r#"{{"op":"signal","room":"{room_name}","data":{data}}}"#),
            },
        ))
    }

    fn heard(&self, room: usize, message: &[u8]) -> io::Result<Pattern> {
        let name = room_name(self.first_room + room);
        let op = if self.durable { "event" } else { "signal" };
        let value = object(message, &[("op", op), ("room", &name)])?;
        let data = value.get("data");
        if data.and_then(|data| data.get("text")).and_then(|text| text.as_str()) != Some(&filler(TEXT_BYTES)) {
            return Err(wrong("the text that was sent", message));
        }
        let digits = digits(data.and_then(|data| data.get("n")), message)?;
        let pattern = match self.durable {
            // The seq and the time differ from one event to the next; the op and the room at the front do not.
            true => {
                let front = message.windows(name.len()).position(|window| window == name.as_bytes());
                let head = front.and_then(|at| message.get(..at + name.len())).unwrap_or_default();
                Pattern::from_serial(message, head, &digits)
            }
            false => Pattern::around(message, &digits),
        };
        pattern.ok_or_else(|| wrong("a serial", message))
    }

    fn confirms(&self) -> bool {
        self.durable
    }

    fn confirmation(&self, message: &[u8]) -> io::Result<Pattern> {
        let value = object(message, &[("op", "ok")])?;
        let digits = super::json::last_digits(value.get("id"), message)?;
        if value.get("dup").is_some() {
            return Err(wrong("an event that is new", message));
        }
        Pattern::up_to(message, &digits).ok_or_else(|| wrong("a serial", message))
    }
}

/// The floor's rooms: who a connection is says its path, and joining costs nothing.
#[derive(Clone, Copy, Debug)]
pub struct Bare;

impl Bare {
    /// What the floor sends each member, with the serial of what it was sent.
    pub fn frame() -> String {
        format!(r#"{{"op":"signal","room":"{}","by":"bench","data":{}}}"#, room_name(0), Native::data())
    }
}

impl Vocabulary for Bare {
    fn path(&self, seat: Seat) -> String {
        let role = match seat.role {
            Role::Publisher => "publisher",
            Role::Member => "member",
        };
        format!("/{}/{role}", seat.room)
    }

    fn saying(&self, _: usize) -> io::Result<Stamped> {
        Native::signals().saying(0)
    }

    fn heard(&self, _: usize, message: &[u8]) -> io::Result<Pattern> {
        Native::signals().heard(0, message)
    }
}

/// In and out of a room, again and again.
#[derive(Clone, Copy, Debug)]
pub struct Churn;

impl Vocabulary for Churn {
    fn path(&self, _: Seat) -> String {
        Native::signals().path
    }

    fn opening(&self, _: Seat) -> Vec<u8> {
        text(r#"{"op":"ping"}"#)
    }

    fn awaits(&self) -> bool {
        true
    }

    fn is_open(&self, message: &[u8]) -> io::Result<bool> {
        is_answer(message, &["pong"])
    }

    fn exchange(&self) -> io::Result<(Vec<u8>, usize)> {
        let leave = text(&format!(r#"{{"op":"leave","room":"{}"}}"#, room_name(0)));
        Ok(([join(0), leave].concat(), 2))
    }

    fn answer(&self, place: usize, message: &[u8]) -> io::Result<Pattern> {
        let op = if place == 0 { "joined" } else { "left" };
        object(message, &[("op", op), ("room", &room_name(0))])?;
        Ok(Pattern::exactly(message))
    }
}

/// Joins its room from a place in its history.
#[derive(Clone, Debug)]
pub struct Resume {
    /// Of each room.
    pub since: Vec<(String, u64)>,
}

impl Vocabulary for Resume {
    fn path(&self, _: Seat) -> String {
        Native::signals().path
    }

    fn opening(&self, seat: Seat) -> Vec<u8> {
        let (epoch, seq) = self.since.get(seat.room).cloned().unwrap_or_default();
        let room = room_name(seat.room);
        text(&format!(r#"{{"op":"join","room":"{room}","since":{{"epoch":"{epoch}","seq":{seq}}}}}"#))
    }

    fn awaits(&self) -> bool {
        true
    }

    fn is_open(&self, message: &[u8]) -> io::Result<bool> {
        Ok(is_answer(message, &["joined"])? && {
            let value = object(message, &[("op", "joined")])?;
            match value.get("recovered").and_then(|recovered| recovered.as_bool()) {
                Some(true) => true,
                _ => return Err(wrong("recovered", message)),
            }
        })
    }

    fn heard(&self, room: usize, message: &[u8]) -> io::Result<Pattern> {
        Native::publishes(0).heard(room, message)
    }
}

fn join(room: usize) -> Vec<u8> {
    text(&format!(r#"{{"op":"join","room":"{}"}}"#, room_name(room)))
}

/// The greeting comes before the answer, and a refusal instead of it.
fn is_answer(message: &[u8], ops: &[&str]) -> io::Result<bool> {
    let value: serde_json::Value = serde_json::from_slice(message).map_err(|_| wrong("JSON", message))?;
    match value.get("op").and_then(|op| op.as_str()) {
        Some("hello") => Ok(false),
        Some(op) if ops.contains(&op) => Ok(true),
        _ => Err(wrong(&ops.join(" or "), message)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::engine::pattern::Match;

    #[test]
    fn the_floors_frame_is_a_signal() {
        let pattern = Bare.heard(3, Bare::frame().as_bytes()).unwrap();
        let later = Bare::frame().replace(SERIAL_PLACE, "1000000017");
        assert_eq!(pattern.read(later.as_bytes()), Match::Serial(1_000_000_017));
        assert!(Bare.heard(0, Bare::frame().replace("fox", "cat").as_bytes()).is_err());
    }

    #[test]
    fn events_differ_in_seq_and_time_only() {
        let native = Native::publishes(7);
        let event = |seq: u64, at: &str, n: u64| {
            format!(
                r#"{{"op":"event","room":"room-00002","seq":{seq},"type":"message","by":"u","at":"{at}","id":"7-2-{n}","data":{{"text":"{}","n":{n}}}}}"#,
                filler(TEXT_BYTES)
            )
        };
        let pattern = native.heard(2, event(1, "2026Z", 1_000_000_000).as_bytes()).unwrap();
        assert_eq!(pattern.read(event(12, "20260Z", 1_000_000_011).as_bytes()), Match::Serial(1_000_000_011));
        assert_eq!(pattern.read(event(12, "x", 1).as_bytes()), Match::No);
        assert!(native.heard(1, event(1, "x", 1_000_000_000).as_bytes()).is_err(), "another room's");
        let ok = native.confirmation(br#"{"op":"ok","id":"7-2-1000000000","room":"room-00002","seq":1}"#).unwrap();
        let next = br#"{"op":"ok","id":"7-2-1000000001","room":"room-00002","seq":22}"#;
        assert_eq!(ok.read(next), Match::Serial(1_000_000_001));
        assert!(native.confirmation(br#"{"op":"refused","id":"7-2-1000000000"}"#).is_err());
        assert!(native.confirmation(br#"{"op":"ok","id":"7-2-1000000000","dup":true}"#).is_err());
    }

    #[test]
    fn joining_waits_for_its_answer() {
        let native = Native::signals();
        assert!(!native.is_open(br#"{"op":"hello","conn":"1"}"#).unwrap());
        assert!(native.is_open(br#"{"op": "joined", "room": "x"}"#).unwrap());
        assert!(native.is_open(br#"{"op":"refused","code":"forbidden"}"#).is_err());
        let resume = Resume { since: vec![("e".to_owned(), 3)] };
        assert!(resume.is_open(br#"{"op":"joined","recovered":false}"#).is_err());
        assert!(resume.is_open(br#"{"op":"joined","recovered":true}"#).unwrap());
    }
}
