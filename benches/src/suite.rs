//! `cargo bench --bench macro`: every server in turn, round after round, and the table of targets.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cells::{Fleet, Known, PEERS, WORKLOADS, workload};
use crate::figures::Figures;
use crate::floor::{self, Floor};
use crate::measure::Plan;
use crate::servers::{Cores, Programs, pin};

#[derive(Debug, Parser)]
#[command(name = "macro", about = "Measures commitcast beside the floor and its peers.")]
struct Arguments {
    /// Workloads to run instead of the table; `list` names them
    workloads: Vec<String>,
    /// Interleaved rounds, of which the best counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Peers to measure, parted by commas; `none` for none [default: all that are ready]
    #[arg(long, value_delimiter = ',')]
    peers: Option<Vec<String>>,
    /// Where the peers' `run` and `provide` are [default: tools/peers of the repository]
    #[arg(long)]
    tools: Option<PathBuf>,
    /// Short windows: to see that everything works
    #[arg(long)]
    quick: bool,
    /// What cargo passes to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// Figures of all rounds.
#[derive(Debug, Default)]
pub struct Book {
    pub figures: Vec<Figures>,
}

impl Known for Book {
    fn per_second(&self, workload: &str, server: &str) -> Option<f64> {
        let of = self.figures.iter().filter(|figures| figures.workload == workload && figures.server == server);
        of.map(Figures::per_second).reduce(f64::max)
    }

    fn extra(&self, workload: &str, server: &str, name: &str) -> Option<f64> {
        let of = self.figures.iter().filter(|figures| figures.workload == workload && figures.server == server);
        of.filter_map(|figures| figures.extra(name)).next_back()
    }
}

/// The bench's `main`; `root` is the repository, `commitcast` the program of the same build.
pub fn main(root: &Path, commitcast: &str) -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    // The suite is its own floor, so that it finds it wherever cargo puts benches.
    if arguments.next().as_deref() == Some("floor") {
        return floor_main();
    }
    match run(root, commitcast, &Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("macro: {error}");
            ExitCode::from(2)
        }
    }
}

#[derive(Debug, Parser)]
struct FloorArguments {
    #[command(subcommand)]
    floor: Floor,
}

fn floor_main() -> ExitCode {
    let arguments = FloorArguments::parse_from(std::env::args().skip(1));
    match floor::run(&arguments.floor) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(root: &Path, commitcast: &str, arguments: &Arguments) -> io::Result<ExitCode> {
    raise_descriptor_limit()?;
    let programs = Programs {
        floor: (std::env::current_exe()?, vec!["floor".to_owned()]),
        commitcast: PathBuf::from(commitcast),
        peers: Some(arguments.tools.clone().unwrap_or_else(|| root.join("tools/peers"))),
    };
    let cores = Cores::two()?;
    let mut fleet = Fleet::new(programs, cores);
    for peer in PEERS {
        if arguments.peers.as_ref().is_some_and(|peers| !peers.iter().any(|wanted| wanted == peer)) {
            fleet.leave_out(peer, "NOT RUN: left out by --peers");
        }
    }
    if let Some(cores) = cores {
        pin(&[cores.load])?;
    }
    let plan = if arguments.quick { Plan::quick() } else { Plan::full() };
    let mut book = Book::default();
    for round in 0..arguments.rounds {
        for name in &arguments.workloads {
            let Some(workload) = workload(name) else {
                let names: Vec<&str> = WORKLOADS.iter().map(|workload| workload.name).collect();
                return Err(io::Error::other(format!("no workload {name}; there are: {}", names.join(", "))));
            };
            for server in workload.servers {
                let plan = if round == 0 { plan } else { plan.without_calls() };
                match fleet.measure(workload, server, &plan, &book) {
                    Ok(mut figures) => {
                        figures.round = round;
                        println!("{figures}");
                        book.figures.push(figures);
                    }
                    Err(why) if round == 0 => println!("{name:<12} {server:<17} {why}"),
                    Err(_) => {}
                }
            }
        }
    }
    let _ = Command::new("true");
    Ok(ExitCode::SUCCESS)
}

/// Connections are descriptors.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}
