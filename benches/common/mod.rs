//! What the micro benches and the instruction counts share: one table of cases, and what they need to be set up.
//!
//! ```text
//! cases    what is measured: each prepares its input, then does the same thing again and again
//! house    a reactor with its real wiring, a reader and a writer, driven turn by turn in this thread
//! script   the network beneath it: streams that are memory, readiness that is a list
//! texts    what clients send
//! ```
//!
//! Everything is the library's own code. What a case measures besides (a copy of the input, the script's own few
//! instructions) is a case of its own, so that it can be subtracted.

pub mod cases;
mod house;
mod script;
mod texts;
