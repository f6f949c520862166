//! The integration binary: everything that needs a socket, a thread or the whole core.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod simulation;
