//! The bench: what a message, an update, a connection cost a real server process, side by side with its peers.
//!
//! ```text
//!        core 0                          core 1
//!  ┌───────────────┐   loopback    ┌──────────────┐
//!  │ commitcast    │◀─────────────▶│              │
//!  ├───────────────┤               │ one thread,  │   floor: one recv, one send, nothing else
//!  │ floor         │◀─────────────▶│ one epoll    │   peers: tools/peers, one small program each
//!  ├───────────────┤               │ set          │
//!  │ a peer …      │◀─────────────▶│              │
//!  └───────────────┘               └──────────────┘
//! ```

pub mod book;
pub mod cells;
pub mod engine;
pub mod figures;
pub mod floor;
pub mod measure;
pub mod observe;
pub mod picture;
pub mod report;
pub mod servers;
pub mod suite;
pub mod targets;
pub mod vocabulary;
pub mod wire;
pub mod workloads;
