//! The program `floor`: the bare programs that servers are compared with, one mode at a time.

use std::process::ExitCode;

use benches::floor::{self, Floor};
use clap::Parser;

#[derive(Debug, Parser)]
#[command(version, about = "The least a program must do for the same work, to compare servers with.")]
struct Arguments {
    #[command(subcommand)]
    floor: Floor,
}

fn main() -> ExitCode {
    match floor::run(&Arguments::parse().floor) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {error}");
            ExitCode::FAILURE
        }
    }
}
