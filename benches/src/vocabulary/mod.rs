//! What is said to a server and how its answers are recognised; the engine itself knows frames only.
//!
//! The engine asks a vocabulary before the measuring starts (paths, messages) and at the first answer of each kind. From
//! that answer on it compares bytes ([`Pattern`]), so nothing here is on the path of a measured message.

mod centrifugo;
mod documents;
mod json;
mod native;
mod nats;
mod pings;

use std::fmt::Debug;
use std::io;

pub use centrifugo::Centrifugo;
pub use documents::Documents;
pub use native::{Bare, Churn, Native, Resume};
pub use nats::{Nats, first_message as nats_message};
pub use pings::{Echo, Says, Tickets};

use crate::engine::pattern::Pattern;
use crate::wire::Stamped;

/// Where a connection sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    pub room: usize,
    pub role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Publisher,
    Member,
}

/// How messages lie in frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// One message a frame.
    Frames,
    /// Several messages a frame, parted by line ends.
    Lines,
    /// The NATS protocol: frames are only pieces of it.
    Nats,
}

/// What a message is that is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aside {
    /// Nothing that this vocabulary knows: an error.
    Foreign,
    Ignore,
    /// The server looks whether we are there; this frame says so.
    Reply(Vec<u8>),
}

pub trait Vocabulary: Debug {
    fn stream(&self) -> Stream {
        Stream::Frames
    }

    /// Path and query of the upgrade.
    fn path(&self, seat: Seat) -> String;

    /// Frames to be sent behind the upgrade.
    fn opening(&self, _seat: Seat) -> Vec<u8> {
        Vec::new()
    }

    /// Does the connection have to hear something before it sits?
    fn awaits(&self) -> bool {
        false
    }

    /// Is this what it has to hear? An error when the server says no.
    fn is_open(&self, _message: &[u8]) -> io::Result<bool> {
        Ok(true)
    }

    /// Asked of a message that no pattern fits.
    fn aside(&self, _message: &[u8]) -> Aside {
        Aside::Foreign
    }

    /// One exchange: the frames of the request, and how many answers they have.
    fn exchange(&self) -> io::Result<(Vec<u8>, usize)> {
        Err(cannot(self, "exchanges"))
    }

    /// What the first answer in this place means; an error when it is the wrong one.
    fn answer(&self, _place: usize, _message: &[u8]) -> io::Result<Pattern> {
        Err(cannot(self, "exchanges"))
    }

    /// The message with a serial that a publisher has the members of its room hear.
    fn saying(&self, _room: usize) -> io::Result<Stamped> {
        Err(cannot(self, "rooms"))
    }

    /// What the first message to a member of this room means.
    fn heard(&self, _room: usize, _message: &[u8]) -> io::Result<Pattern> {
        Err(cannot(self, "rooms"))
    }

    /// Is a publisher told that its message was taken?
    fn confirms(&self) -> bool {
        false
    }

    /// What its first confirmation means.
    fn confirmation(&self, _message: &[u8]) -> io::Result<Pattern> {
        Err(cannot(self, "confirmations"))
    }
}

/// A vocabulary at another path than its own.
#[derive(Debug)]
pub struct Placed {
    pub path: String,
    pub vocabulary: Box<dyn Vocabulary>,
}

impl Vocabulary for Placed {
    fn path(&self, _: Seat) -> String {
        self.path.clone()
    }

    fn stream(&self) -> Stream {
        self.vocabulary.stream()
    }

    fn opening(&self, seat: Seat) -> Vec<u8> {
        self.vocabulary.opening(seat)
    }

    fn awaits(&self) -> bool {
        self.vocabulary.awaits()
    }

    fn is_open(&self, message: &[u8]) -> io::Result<bool> {
        self.vocabulary.is_open(message)
    }

    fn aside(&self, message: &[u8]) -> Aside {
        self.vocabulary.aside(message)
    }

    fn exchange(&self) -> io::Result<(Vec<u8>, usize)> {
        self.vocabulary.exchange()
    }

    fn answer(&self, place: usize, message: &[u8]) -> io::Result<Pattern> {
        self.vocabulary.answer(place, message)
    }

    fn saying(&self, room: usize) -> io::Result<Stamped> {
        self.vocabulary.saying(room)
    }

    fn heard(&self, room: usize, message: &[u8]) -> io::Result<Pattern> {
        self.vocabulary.heard(room, message)
    }

    fn confirms(&self) -> bool {
        self.vocabulary.confirms()
    }

    fn confirmation(&self, message: &[u8]) -> io::Result<Pattern> {
        self.vocabulary.confirmation(message)
    }
}

/// The name of a room, of the same length for all of them.
pub fn room_name(room: usize) -> String {
    format!("room-{room:05}")
}

/// The text in a message to a room: with the names around it, a message of about 150 bytes.
const TEXT_BYTES: usize = 64;

fn filler(bytes: usize) -> String {
    "the quick brown fox jumps over the lazy dog, again and again; ".chars().cycle().take(bytes).collect()
}

fn cannot(vocabulary: &(impl Debug + ?Sized), what: &str) -> io::Error {
    io::Error::other(format!("{vocabulary:?} knows no {what}"))
}

fn wrong(expected: &str, message: &[u8]) -> io::Error {
    let message = String::from_utf8_lossy(message.get(..message.len().min(400)).unwrap_or_default()).into_owned();
    io::Error::other(format!("a wrong answer: expected {expected}, got {message}"))
}
