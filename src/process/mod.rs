//! Where this process comes from and what comes after it: the sockets it was started with, its successor, the service
//! manager that watches both.
//!
//! ```text
//! service manager ──LISTEN_FDS──▶ inherit ─▶ Doors ─▶ listener
//! predecessor ──LISTEN_FDS, wire──▶ inherit ─▶ handover::Predecessor
//! handover::Successor ──LISTEN_FDS, wire──▶ the next process
//! manager ──READY=1, WATCHDOG=1, MAINPID=…──▶ service manager
//! ```
//!
//! A listening socket is passed on and never bound a second time: of the connections that wait at a second one
//! (`SO_REUSEPORT`) when it is closed, 155 of 200 were reset; of those that wait at an inherited one, none.
//!
//! Never here: what is served.

pub mod handover;
pub mod inherit;
pub mod manager;
