//! What the micro benches and the instruction counts share: one table of cases, and what they need to be set up.
//!
//! ```text
//! cases    what is measured: each prepares its input, then does the same thing again and again
//! house    a reactor with its real wiring, a reader and a writer, driven turn by turn in this thread
//! writer   a store's worker that is given jobs and asked what it has for the reactor
//! script   the network beneath: streams that are memory, readiness that is a list
//! talk     sessions of each dialect, and what their clients say most
//! texts    requests and frames as bytes
//! ```
//!
//! Everything that is measured is the library's own code. What a case costs besides, a copy of its input and the script's
//! few instructions, is a case of its own (`script/…`, `copy/…`), so that it can be subtracted.

pub mod cases;
mod house;
mod script;
mod talk;
mod texts;
mod writer;
