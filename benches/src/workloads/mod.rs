//! The workloads: who sits where, what is said, what is counted. Each runs against any server that knows its vocabulary.

pub mod agents;
pub mod connect;
pub mod history;
pub mod idle;
pub mod mixed;
pub mod pings;
pub mod resume;
pub mod rooms;
pub mod storm;

use std::io;

use crate::engine::Crowd;
use crate::engine::dial::Dialer;
use crate::measure::Subject;
use crate::vocabulary::{Seat, Vocabulary};

/// Opens a connection for each seat.
pub fn crowd(subject: &Subject, vocabulary: &dyn Vocabulary, seats: &[Seat]) -> io::Result<Crowd> {
    let mut dialer = Dialer::new(subject.address, vocabulary);
    dialer.headers = subject.headers.clone();
    Crowd::new(vocabulary.stream(), dialer.open(seats)?)
}
