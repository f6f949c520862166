//! `bench`: drives a real server process and prints what it costs.

mod agents;
mod idle;
mod pingpong;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(version, about = "Measures a real commitcast server, as ratios against a bare epoll program.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// CPU time per 64-byte message on /v1/echo, against the floor
    Pingpong(pingpong::Options),
    /// From a page's execute to the first event of a backend, under load
    Agents(agents::Options),
    /// Memory per connection that has joined a room and rests
    Idle(idle::Options),
}

fn main() -> ExitCode {
    let measured = match Arguments::parse().command {
        Command::Pingpong(options) => pingpong::run(&options),
        Command::Agents(options) => agents::run(&options),
        Command::Idle(options) => idle::run(&options),
    };
    match measured {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::from(2)
        }
    }
}
