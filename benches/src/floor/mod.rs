//! The floor: the least a single-threaded program must do for the same work, and what the disk and SQLite can do at most.
//!
//! | mode | what it does |
//! |---|---|
//! | `echo` | one `recv`, one `send` per message of a known size; the upgrade is answered with a fixed 101 |
//! | `fan` | one `recv` per message of a publisher, one `send` per member of its room |
//! | `disk` | `fdatasync` of one block, over a preallocated file and appended |
//! | `rows` | a bare SQLite loop that commits what a document's update stores, in batches |
//!
//! It knows no protocol: it counts the bytes of messages it was told the size of, and sends replies that were made before.
//! Accepting and upgrading alone is measured with `echo`, which is asked nothing more.

mod disk;
mod rows;
mod serve;

use std::io;
use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Clone, Debug, Subcommand)]
pub enum Floor {
    /// Answers each message with the same bytes
    Echo(Echo),
    /// Sends each publisher's message to the members of its room
    Fan(Fan),
    /// Times fdatasync
    Disk(Disk),
    /// Commits rows in batches
    Rows(Rows),
}

#[derive(Clone, Debug, Args)]
pub struct Echo {
    #[arg(long)]
    pub port: u16,
    /// Size of a message on the wire
    #[arg(long)]
    pub message_bytes: usize,
    /// The payload of the answer
    #[arg(long)]
    pub answer: String,
    /// After so many answers, one whose last byte is wrong: to see that a generator notices
    #[arg(long)]
    pub lie_after: Option<u64>,
}

#[derive(Clone, Debug, Args)]
pub struct Fan {
    #[arg(long)]
    pub port: u16,
    /// Size of a publisher's message on the wire
    #[arg(long)]
    pub message_bytes: usize,
    /// Where in it the serial stands
    #[arg(long)]
    pub serial_at: usize,
    /// The payload for each member, with a place for the serial
    #[arg(long)]
    pub frame: String,
}

#[derive(Clone, Debug, Args)]
pub struct Disk {
    #[arg(long)]
    pub directory: PathBuf,
    #[arg(long, default_value_t = 300)]
    pub writes: usize,
}

#[derive(Clone, Debug, Args)]
pub struct Rows {
    #[arg(long)]
    pub directory: PathBuf,
    /// Updates in one commit
    #[arg(long)]
    pub batch: usize,
    #[arg(long, default_value_t = 100)]
    pub rooms: usize,
    #[arg(long, default_value_t = 1.0)]
    pub seconds: f64,
}

/// Servers serve until they are ended; the others print `name value` lines and end.
pub fn run(floor: &Floor) -> io::Result<()> {
    match floor {
        Floor::Echo(options) => serve::echo(options),
        Floor::Fan(options) => serve::fan(options),
        Floor::Disk(options) => disk::run(options),
        Floor::Rows(options) => rows::run(options),
    }
}
