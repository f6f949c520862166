//! `commitcast`: arguments → command → exit code.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use commitcast::config::{ConfigError, Flags, Settings};
use commitcast::server;

mod commands;
mod serve;

/// A realtime room server: nobody is ever shown a change that is not already saved.
#[derive(Debug, Parser)]
#[command(name = "commitcast", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default).
    Serve(Serve),
    /// Check a configuration and print what it comes to, secrets hidden.
    CheckConfig(Serve),
    /// Make an HS256 token with the configured secret.
    Token(commands::TokenArguments),
    /// Say what a handshake would be answered, and why, without a server.
    Explain(commands::ExplainArguments),
    /// Take directories of Markdown prompts into the store, without serving.
    Import(commands::ImportArguments),
    /// Print the version.
    Version,
}

#[derive(Clone, Debug, Default, Args)]
struct Serve {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen: ADDR or ADDR=dialect,dialect; may be repeated.
    #[arg(long, value_name = "ADDR[=DIALECTS]")]
    listen: Vec<String>,
    /// Directory of the store.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Store URL (sqlite:DIR).
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Debug mode: no token needed; loopback listeners only.
    #[arg(long)]
    debug: bool,
    /// Reactor threads; the number of cores when absent.
    #[arg(long, value_name = "N")]
    reactors: Option<usize>,
    /// Log lines as `text` or `json`.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Log level or filter, such as `info` or `commitcast=debug`.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl Serve {
    fn settings(&self) -> Result<Settings, ExitCode> {
        self.build().map_err(|error| {
            eprintln!("{error}");
            ExitCode::from(EXIT_CONFIG)
        })
    }

    fn build(&self) -> Result<Settings, ConfigError> {
        let flags = Flags {
            config: self.config.clone(),
            listen: self.listen.clone(),
            data: self.data.clone(),
            store: self.store.clone(),
            debug: self.debug,
            reactors: self.reactors,
            log_format: self.log_format.clone(),
            log_level: self.log_level.clone(),
        };
        // `env::vars` panics on a variable that is not UTF-8, which may be anybody's.
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let read = |path: &Path| -> io::Result<String> { std::fs::read_to_string(path) };
        Settings::build(&flags, variables, read)
    }
}

/// The configuration is wrong.
const EXIT_CONFIG: u8 = 2;
/// It could not start.
const EXIT_START: u8 = 3;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.command {
        None => serve::serve(&arguments.serve),
        Some(Command::Serve(flags)) => serve::serve(&flags),
        Some(Command::CheckConfig(flags)) => match flags.settings() {
            Err(code) => code,
            Ok(settings) => {
                println!("{}", settings.describe());
                for note in &settings.notes {
                    eprintln!("note: {note}");
                }
                match server::budget(&settings) {
                    Ok(budget) => {
                        eprintln!("note: {budget}");
                        ExitCode::SUCCESS
                    }
                    Err(error) => {
                        eprintln!("{error}");
                        ExitCode::from(EXIT_CONFIG)
                    }
                }
            }
        },
        Some(Command::Token(arguments)) => commands::token(&arguments),
        Some(Command::Explain(arguments)) => commands::explain(&arguments),
        Some(Command::Import(arguments)) => commands::import(&arguments),
        Some(Command::Version) => {
            println!("commitcast {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
    }
}
