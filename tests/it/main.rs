//! The integration binary: everything that needs a socket, a thread or the whole core.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod agents;
mod backends;
mod bounds;
mod core;
mod deflate;
mod desk;
mod dice;
mod documents;
mod environment;
#[cfg(feature = "canary")]
mod faults;
mod golden;
mod native;
mod rates;
mod restart;
mod resume;
mod revocation;
mod rooms;
mod shutdown;
mod simulation;
mod stage;
mod support;
mod threats_frames;
mod threats_http;
mod threats_identity;
mod tickets;
mod turns;
mod worker;
mod workflows;
