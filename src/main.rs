//! `commitcast`: arguments → settings → server → wait for a signal → exit code.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use commitcast::auth::Mode;
use commitcast::clock::Clock;
use commitcast::config::{ConfigError, Flags, Settings};
use commitcast::dialect::Name;
use commitcast::server::{self, End, Server, StartError};
use commitcast::{logging, panics};

mod commands;

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
/// The store failed while serving; a supervisor should start it again.
const EXIT_STORE: u8 = 4;
/// Clients were cut off because the time to drain was over.
const EXIT_TIMEOUT: u8 = 5;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.command {
        None => serve(&arguments.serve),
        Some(Command::Serve(flags)) => serve(&flags),
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

fn serve(flags: &Serve) -> ExitCode {
    let settings = match flags.settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    if let Err(error) = logging::init(&settings.log, &Clock::system()) {
        eprintln!("the log could not be set up: {error}");
    }
    panics::end_the_process();
    let signals = match Signals::catch() {
        Ok(signals) => signals,
        Err(error) => {
            log::error!("signals could not be caught: {error}");
            return ExitCode::from(EXIT_START);
        }
    };
    for note in &settings.notes {
        log::warn!("{note}");
    }
    let server = match Server::start(&settings) {
        Ok(server) => server,
        Err(StartError::Memory(error)) => {
            log::error!("{error}");
            return ExitCode::from(EXIT_CONFIG);
        }
        Err(error) => {
            log::error!("could not start: {error}");
            return ExitCode::from(EXIT_START);
        }
    };
    for (address, listen) in server.addresses.iter().zip(&settings.listeners) {
        let names: Vec<&str> = listen.dialects.iter().map(|name| name.as_str()).collect();
        println!(
            "listening on http://{address} ({}), mode {}, durability {}, store {}",
            names.join(", "),
            modes(&settings, &listen.dialects),
            settings.store.durability.as_str(),
            settings.store.path.display()
        );
        log::info!(address = address.to_string().as_str(), dialects = names.join(",").as_str(); "startup complete, listening");
    }
    println!("memory: {}", server.budget);
    warn_of_open_doors(&settings);
    wait(flags, &settings, &server, &signals);
    let hurried = || signals.terminations() > 1;
    server.refuse_newcomers();
    log::info!("shutting down: clients are told to go over {:?}", settings.drain.window);
    match server.stop(settings.drain.window, settings.drain.timeout, hurried) {
        End::Drained => {
            log::info!("shut down");
            ExitCode::SUCCESS
        }
        End::TimedOut => {
            log::warn!("shut down before every client had gone");
            ExitCode::from(EXIT_TIMEOUT)
        }
        End::StoreBroken => {
            log::error!("ended because the store failed; the next start recovers it");
            ExitCode::from(EXIT_STORE)
        }
    }
}

/// Without tokens the page's origin is all that stands between a developer's prompts and any page he visits. The originals
/// let every page in and their clients count on it (CONTRACT.md 5.5), so it is the default, and said aloud.
fn warn_of_open_doors(settings: &Settings) {
    let served = |name: &Name| settings.listeners.iter().any(|listen| listen.dialects.contains(name));
    let open = |name: &Name| settings.policy(*name).mode != Mode::Token && settings.origins(*name).allows_all();
    if Name::ALL.iter().any(|name| served(name) && open(name)) {
        log::info!("every web page may connect without a token: list the pages that should in origins.allow");
    }
}

/// The mode of all, or of each where they differ.
fn modes(settings: &Settings, dialects: &[Name]) -> String {
    let mode = |name: &Name| match settings.policy(*name).mode {
        Mode::Debug => "debug",
        Mode::Token => "token",
        Mode::Open => "open",
    };
    match dialects {
        [first, rest @ ..] if rest.iter().all(|name| mode(name) == mode(first)) => mode(first).to_owned(),
        several => several.iter().map(|name| format!("{}={}", name.as_str(), mode(name))).collect::<Vec<_>>().join(" "),
    }
}

/// Until a termination signal or a broken store; SIGHUP rereads the configuration meanwhile.
fn wait(flags: &Serve, settings: &Settings, server: &Server, signals: &Signals) {
    let mut reloads = 0;
    while signals.terminations() == 0 && !server.store_is_broken() {
        std::thread::sleep(Duration::from_millis(50));
        if server.commit_hangs() {
            log::error!("a commit hangs: the process ends so that a new one can find out what became of it");
            std::process::abort();
        }
        let asked = signals.reloads();
        if asked == reloads {
            continue;
        }
        reloads = asked;
        match flags.build().map_err(|error| error.to_string()).and_then(|new| {
            let live = settings.reload(&new).map_err(|error| error.to_string())?;
            Ok((live, settings.needs_restart(&new)))
        }) {
            Ok((live, restart)) => {
                server.reload(live);
                log::info!("the configuration was read again");
                for key in restart {
                    log::warn!("{key} has changed and needs a restart");
                }
            }
            Err(error) => log::error!("the configuration was not changed: {error}"),
        }
    }
}

/// Counts signals; handlers may do little more.
struct Signals {
    terminations: Arc<AtomicUsize>,
    reloads: Arc<AtomicUsize>,
}

impl Signals {
    fn catch() -> io::Result<Signals> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let terminations = Arc::new(AtomicUsize::new(0));
        let reloads = Arc::new(AtomicUsize::new(0));
        let mut caught = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let counters = (terminations.clone(), reloads.clone());
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in caught.forever() {
                let counter = if signal == SIGHUP { &counters.1 } else { &counters.0 };
                counter.fetch_add(1, Ordering::SeqCst);
            }
        })?;
        Ok(Signals { terminations, reloads })
    }

    fn terminations(&self) -> usize {
        self.terminations.load(Ordering::SeqCst)
    }

    fn reloads(&self) -> usize {
        self.reloads.load(Ordering::SeqCst)
    }
}
