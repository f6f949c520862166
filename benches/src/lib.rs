//! Measurements of a real server process: what a message costs it, what a connection at rest costs it.
//!
//! ```text
//!        core 0                          core 1
//!  ┌───────────────┐   loopback    ┌──────────────┐
//!  │ floor         │◀─────────────▶│              │   floor: one recv, one send, nothing else
//!  ├───────────────┤               │ bench        │
//!  │ commitcast    │◀─────────────▶│              │
//!  └───────────────┘               └──────────────┘
//! ```
//!
//! A figure of one machine means nothing on another, so a cost is told as a ratio to [the floor](../floor/index.html),
//! measured in the same run, in turns. The server's CPU time is the kernel's own account of it (`schedstat`), so what the
//! load generator costs is not in it.
//!
//! Never here: anything of the server's own code. A generator that shares the decoder it measures shares its mistakes.

pub mod process;
pub mod wire;
