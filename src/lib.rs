//! commitcast: a realtime room server. Clients join rooms over plain WebSockets, and nobody is ever shown a change that is
//! not already saved.
//!
//! ```text
//!         listener thread            reactor 0 … n-1  (one per core)             store writer, readers
//!       ┌────────────────┐ sockets  ┌─────────────────────────────────┐  Job   ┌──────────────────────────┐
//!  TCP ─▶ accept, choose ├─────────▶│ poll │ inbox │ conns │ rooms    ├───────▶│ batch → transaction →    │
//!       └────────────────┘          │ read → parse → decode → submit  │        │ commit → seal → encode   │
//!                                   │ deliver → members → outbox →    │◀───────┤ once → post              │
//!  clients ◀───── writev ───────────│ write                           │Delivery└───────┬──────────────────┘
//!                                   └─────────────────────────────────┘                │ FileTask
//!                                                                              ┌───────▼──────────────────┐
//!                                                                              │ scribe: Markdown files   │
//!                                                                              └──────────────────────────┘
//! ```
//!
//! Data flows one way round: socket → parse → room → store → commit → broadcast → socket. Nothing in the ring calls
//! backwards; the only way back is a message in a mailbox.
//!
//! # Code map
//!
//! The modules below are declared in the order of their dependencies: each may import only those above it
//! (`tests/tidy.rs` holds that).
//!
//! # Invariants, including what must stay absent
//!
//! * A connection is touched by one thread from accept to close; between threads travels its `ConnId`, and a stale one
//!   reaches nobody (`reactor/table.rs`).
//! * Nobody sees a durable event before its commit: only `store/` can build a `Committed`, and rooms accept nothing else.
//! * Seqs are allocated by the committing transaction: dense, rising, rolled back with it.
//! * A member is shown each seq once, in order, or an explicit reset (`room/`).
//! * Every queue, buffer, loop and wait is bounded (`limits.rs`). Full towards the store: that client is not read. Behind
//!   in a room: the client is a cursor, not a queue. A reactor never blocks; nothing is dropped silently.
//! * `http`, `ws`, `auth`, `dialect`, `conn` and `room` open no file, read no clock, spawn nothing and roll no dice.
//! * There is one shared lock on a message's way, the directory (who listens where, and where rooms stand), held for a look-up.
//! * Whatever a peer sends yields a value or an error, never a panic. There is no `unsafe`. Where that is not so after all,
//!   a panic in what touches one connection alone closes that one, and any other ends the process (`panics.rs`).

#![forbid(unsafe_code)]

pub mod limits;

pub mod ids;

pub mod clock;

pub mod mutant;

pub mod panics;

#[cfg(feature = "canary")]
pub mod failpoints;

pub mod meter;

pub mod backlog;

pub mod logging;

pub mod metrics;

pub mod mailbox;

pub mod directory;

pub mod presence;

pub mod http;

pub mod ws;

pub mod auth;

pub mod guests;

pub mod model;

pub mod dialect;

pub mod protocol;

pub mod store;

pub mod config;

pub mod admission;

pub mod service;

pub mod conn;

pub mod room;

pub mod files;

pub mod reactor;

pub mod process;

pub mod listener;

pub mod budget;

pub mod server;
