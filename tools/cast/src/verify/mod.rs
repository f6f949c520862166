//! `cast verify`: plays clients of every dialect against a server that it kills, restarts and cuts off, and decides from
//! what was recorded and from the log alone whether the promises were kept.
//!
//! ```text
//! options ─▶ campaign ─▶ server    a child process: kill, restart            (not with --no-kill)
//!                   │
//!                   ├─▶ actors ─▶ wire ─▶ history     every frame, by connection, in order
//!                   │
//!                   └─▶ log (HTTP) ──┐
//!                       history ─ facts ─▶ judge ─▶ report
//! ```
//!
//! It is a black box's checker: nothing here knows the server but from the wire. `facts`, `judge` and `report` are pure.

mod actors;
mod campaign;
mod dice;
mod facts;
mod history;
mod judge;
mod log;
mod options;
mod report;
mod scene;
mod server;
mod stage;
mod wire;

pub use options::Options;

use crate::connect::Outcome;

pub fn run(options: &Options) -> Outcome {
    match campaign::run(options) {
        Ok(0) => Outcome::Ok,
        Ok(_) => Outcome::NotMet,
        Err(why) => {
            eprintln!("cast: {why}");
            Outcome::Usage
        }
    }
}
