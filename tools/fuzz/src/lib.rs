//! Arbitrary input for everything that reads what strangers send (PROMISES.md S10): no sequence of bytes panics,
//! aborts, or is taken for what it is not. A library of targets, and two ways to drive them.
//!
//! ```text
//! corpus/TARGET/…  ─▶ driver   replays them, then seeded mutations of them: every check, in seconds, no further build
//!        ▲     └────▶ libFuzzer (tools/fuzz/run)   steered by what is covered: minutes to nights
//!        └───────────────────┘ tools/fuzz/run --minimise
//! ```
//!
//! A target that fails panics: that is all its driver sees of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a target says that a property does not hold"
)]

/// The tests'.
#[path = "../../../tests/it/dice.rs"]
pub mod dice;
pub mod driver;
mod input;
mod mutate;
mod served;
pub mod targets;
