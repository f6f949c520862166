//! What was said and heard, by connection and in order: all that the judge is given besides the log.
//!
//! Every frame bears a tick of one counter. A frame that goes out gets its tick before it is written, one that comes in
//! after it was read: of two ticks the smaller one certainly happened first, and that is all the judge ever concludes.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

pub type Tick = u64;

/// The vocabulary of a connection, and with it how its frames are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Native,
    Backend,
    Document,
    Workflow,
    Tickets,
    Session,
    /// One request and its answer.
    Http,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    In,
    Out,
    /// Only the beginning of it went out, and never will the rest.
    Torn,
}

#[derive(Clone, Debug)]
pub struct Frame {
    pub tick: Tick,
    pub way: Way,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// We ended it, in the middle of whatever was on its way.
    Cut,
    /// The server or the network did.
    Gone(String),
    /// It was shown the last event that there is.
    Settled,
    /// It waited for the last event until its deadline.
    Behind,
    /// It had nothing more to do.
    Left,
}

/// One connection from its first byte to its last.
#[derive(Clone, Debug)]
pub struct Connection {
    pub name: String,
    pub speaks: Speaks,
    /// The room that its path is of; empty where its messages name rooms.
    pub room: String,
    pub opened: Tick,
    pub frames: Vec<Frame>,
    pub ending: Ending,
}

#[derive(Debug, Default)]
pub struct History {
    clock: AtomicU64,
    connections: Mutex<Vec<Connection>>,
}

impl History {
    pub fn tick(&self) -> Tick {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// How many ticks there were: about as many as frames.
    pub fn now(&self) -> Tick {
        self.clock.load(Ordering::SeqCst)
    }

    pub fn keep(&self, connection: Connection) {
        locked(&self.connections).push(connection);
    }

    pub fn take(&self) -> Vec<Connection> {
        std::mem::take(&mut locked(&self.connections))
    }
}

/// A thread that panicked has left its part of the history behind whole: what it pushed stays true.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The whole history as lines of JSON, for whoever wants to see what the judge saw.
pub fn write_transcript(connections: &[Connection], out: &mut impl Write) -> io::Result<()> {
    for (number, connection) in connections.iter().enumerate() {
        let head = json!({"connection": number, "name": connection.name, "room": connection.room,
            "speaks": format!("{:?}", connection.speaks), "opened": connection.opened,
            "ending": format!("{:?}", connection.ending)});
        writeln!(out, "{head}")?;
        for frame in &connection.frames {
            let said: Value = serde_json::from_str(&frame.text).unwrap_or_else(|_| json!(frame.text));
            let way = format!("{:?}", frame.way);
            writeln!(out, "{}", json!({"connection": number, "tick": frame.tick, "way": way, "frame": said}))?;
        }
    }
    Ok(())
}
