//! The bench: what a message, an update, a connection cost a real server process, side by side with its peers.
//!
//! ```text
//!        core 0                          core 1
//!  ┌───────────────┐   loopback    ┌──────────────┐
//!  │ commitcast    │◀─────────────▶│              │
//!  ├───────────────┤               │ one thread,  │   floor: the least a program can do for the same work (floor/)
//!  │ floor         │◀─────────────▶│ one epoll    │   peers: tools/peers, one small program each
//!  ├───────────────┤               │ set          │
//!  │ a peer …      │◀─────────────▶│              │
//!  └───────────────┘               └──────────────┘
//! ```
//!
//! `cargo bench --bench macro` prints the table of targets, `-- list` the workloads; `cast bench` puts the same load on any
//! server.
//!
//! # Method
//!
//! - **Ratios within one run.** A figure of one machine means nothing on another, so every target is a ratio to something
//!   measured in the same run. All servers are measured in turn within each round; of each the best round counts, since
//!   what disturbs a measurement only ever makes it worse. Every round is in the log.
//! - **CPU is the kernel's account** of the server's threads (`schedstat`) over a window that begins and ends with nothing
//!   in flight, divided by what was delivered meanwhile. What the generator costs is not in it, and it holds also where the
//!   generator was the slower side. Throughput does not hold then, and the figures say so.
//! - **Closed loop**: so many messages in flight, the next when one has come back. Latency counts from the send.
//!   **Open loop**: a fixed rate, come what may; latency counts from when a message was *meant* to be sent, so a server that
//!   stalls cannot hide it (no coordinated omission). A generator behind its schedule reports itself.
//! - **The generator never sleeps** while it has a core of its own: a server that sends to a sleeping receiver pays for
//!   waking it, so a slower server would be charged for its own slowness a second time.
//! - **Every answer is checked.** The first of each kind is read as JSON and must mean the right thing; every later one is
//!   compared byte for byte, serial numbers included: lost, repeated and reordered messages are errors, as is a close.
//! - **Warm-up** before each window; system calls are counted by `perf` in a window of their own, because counting them
//!   costs the server something; latencies are HDR histograms to three digits.
//!
//! # What is measured, and what is not
//!
//! Loopback, one machine: the kernel's TCP path is in every figure, a network card is in none. No TLS: commitcast is served
//! behind a proxy. Memory is what the process holds, not what the kernel holds for its sockets. Peers do the same work in
//! the way their own documentation recommends for speed; `nats` and `centrifugo` do related work in protocols of their own
//! and are in the table for orientation.
//!
//! # How to check the generator itself
//!
//! - Run it against the floor (`-- ping --peers none`): what the floor costs beside a bare `recv` and `send` is the
//!   generator's doing.
//! - `perf stat -e raw_syscalls:sys_enter` on the floor must count what the floor's source says: two calls a message and a
//!   share of one `epoll_wait`. The column `calls` does that.
//! - A floor that lies (`floor echo --lie-after 1000`) must be caught: `tests/engine` does that.
//! - Each line says how busy the generator was, and how long the server was ready without getting its core; above a
//!   quarter of the window somebody else was on it, and the line carries a warning.
//!
//! # Code map
//!
//! [`wire`] frames and serials · [`engine`] sockets, windows, players · [`vocabulary`] what is said and what it means ·
//! [`servers`] processes on their cores · [`observe`] what they used · [`measure`] one measurement · [`workloads`] who sits
//! where · [`cells`] workloads by server · [`book`] all rounds · [`targets`] the table · [`report`], [`picture`] for people ·
//! [`compare`] two builds · [`suite`] the program.
//!
//! Never here: anything of the server's own code. A generator that shares the decoder it measures shares its mistakes.

pub mod book;
pub mod cells;
pub mod compare;
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
