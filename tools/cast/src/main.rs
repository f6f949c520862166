//! `cast`: the client side of commitcast, for terminals and scripts.
//!
//! Blocking sockets and, where somebody types, one thread more: a client of one connection has no use for an event loop.
//! Only `bench` has one, that of the crate `benches`.
//! It knows the server only from the wire, so that it can judge any server that speaks the same contract.

mod bench;
mod connect;
mod demo;
mod expect;
mod http;
mod probe;
mod report;
mod target;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cast", version, about = "Talk to a commitcast server from a terminal or a script.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Connect to one socket, print what it says, say something, check the answers.
    Probe(Box<probe::Options>),
    /// Put load on a server and measure it.
    Bench(Box<bench::Options>),
    /// Play a backend, so that every dialect moves: an agent, a workflow, a coordinator, tickets, a document.
    Demo(Box<demo::Options>),
    /// Check the server's promises: kill it, cut it off, send again, and compare what was told with what is stored.
    Verify(Box<verify::Options>),
}

fn main() -> ExitCode {
    // clap ends the process itself with 2 for bad usage and 0 for --help.
    let outcome = match Arguments::parse().command {
        Command::Probe(options) => probe::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Verify(options) => verify::run(&options),
    };
    ExitCode::from(outcome as u8)
}
