//! `cast`: the client side of commitcast, for terminals and scripts.
//!
//! Blocking sockets and, where somebody types, one thread more: a client of one connection has no use for an event loop.
//! It knows the server only from the wire, so that it can judge any server that speaks the same contract.

mod expect;
mod probe;
mod report;
mod target;

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
}

fn main() -> ExitCode {
    // clap ends the process itself with 2 for bad usage and 0 for --help.
    let Command::Probe(options) = Arguments::parse().command;
    ExitCode::from(probe::run(&options) as u8)
}
