//! `cargo bench --bench macro`: every server in turn, round after round, and the table of targets.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::book::Book;
use crate::cells::{Fleet, PEERS, TWINS, WORKLOADS, Workload, workload};
use crate::compare;
use crate::floor::{self, Floor};
use crate::measure::Plan;
use crate::picture;
use crate::report;
use crate::servers::{Cores, Programs, pin};
use crate::targets::{TARGETS, Target};

#[derive(Debug, Parser)]
#[command(
    name = "macro",
    about = "Measures commitcast beside the floor and its peers, and prints the table of targets.",
    after_help = "Without workloads: what the table needs. With them: these alone, each figure in full.\n\
                  CPU per unit holds also where the generator was the bottleneck; throughput does not."
)]
struct Arguments {
    /// Workloads to run instead of the table; `list` names them
    workloads: Vec<String>,
    /// Lines of the table, such as T1,T3 [default: all]
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Interleaved rounds, of which the best counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Peers to measure, parted by commas; `none` for none [default: all that are ready]
    #[arg(long, value_delimiter = ',')]
    peers: Option<Vec<String>>,
    /// Where the peers' `provide` and `run` are [default: tools/peers of the repository]
    #[arg(long)]
    tools: Option<PathBuf>,
    /// Take the peers as they are, without preparing them first
    #[arg(long)]
    as_they_are: bool,
    /// Another build of commitcast: measured in turn with this one, and each line of the table stands for both
    #[arg(long, value_name = "PROGRAM", conflicts_with_all = ["workloads", "record"])]
    against: Option<PathBuf>,
    /// Short windows: to see that everything works
    #[arg(long)]
    quick: bool,
    /// Write the table, the raw figures and the pictures here
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = "benches/pictures")]
    record: Option<PathBuf>,
    /// End with 1 when a target is not met; with --against, when a line is more than 3 % worse
    #[arg(long)]
    strict: bool,
    /// What cargo passes to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// The bench's `main`; `root` is the repository, `commitcast` the program of the same build.
pub fn main(root: &Path, commitcast: &Path) -> ExitCode {
    // The suite is its own floor, so that it finds it wherever cargo puts benches.
    if std::env::args().nth(1).as_deref() == Some("floor") {
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

fn run(root: &Path, commitcast: &Path, arguments: &Arguments) -> io::Result<ExitCode> {
    if arguments.workloads.iter().any(|name| name == "list") {
        for Workload { name, about, servers, .. } in WORKLOADS {
            println!("{name:<15} {about} ({})", servers.join(", "));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let targets = targets(&arguments.only)?;
    let cells = match arguments.workloads.is_empty() {
        true => needed(&targets),
        false => named(&arguments.workloads)?,
    };
    if let Some(program) = arguments.against.as_ref().filter(|program| !program.is_file()) {
        return Err(io::Error::other(format!("--against: there is no program {}: build it first", program.display())));
    }
    let cells = if arguments.against.is_some() { with_twins(&cells) } else { cells };
    let begun = Instant::now();
    let mut fleet = fleet(root, commitcast, arguments, &cells)?;
    let mut log = Log::open()?;
    let book = rounds(&mut fleet, &cells, arguments, &mut log)?;
    if !arguments.workloads.is_empty() {
        println!("every round as JSON: {}", log.path.display());
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.against.is_some() {
        let compared = compare::compare(&targets, &book);
        println!("\n{}every round as JSON: {}", compare::text(&compared), log.path.display());
        return Ok(ExitCode::from(u8::from(arguments.strict && compare::worse(&compared) > 0)));
    }
    println!("\n{}", report::text(&targets, &book));
    let (met, unmet, unmeasured) = report::count(&targets, &book);
    let seconds = begun.elapsed().as_secs();
    println!(
        "{met} met, {unmet} NOT MET, {unmeasured} not measured; {seconds} s; every round as JSON: {}",
        log.path.display()
    );
    for (server, why) in absent(&book) {
        println!("{server} {why}");
    }
    let doubtful = book.figures.iter().filter(|figures| figures.warning.is_some()).count();
    if doubtful > 0 {
        let all = book.figures.len();
        println!(
            "{doubtful} of {all} measurements carry a warning: a machine with nothing else to do gives better figures"
        );
    }
    if let Some(folder) = &arguments.record {
        record(&root.join(folder), &targets, &book, arguments)?;
    }
    Ok(ExitCode::from(u8::from(arguments.strict && unmet > 0)))
}

/// What is to be measured: a workload and one who does it.
type Cell = (&'static Workload, &'static str);

fn targets(only: &[String]) -> io::Result<Vec<&'static Target>> {
    let unknown = only.iter().find(|id| TARGETS.iter().all(|target| target.id != *id));
    match unknown {
        Some(id) => Err(io::Error::other(format!("no target {id}; there are T1 to T{}", TARGETS.len()))),
        None => Ok(TARGETS.iter().filter(|target| only.is_empty() || only.iter().any(|id| id == target.id)).collect()),
    }
}

/// Each workload once, its servers one after the other, in the order of [`WORKLOADS`]: what a later one wants to know of an
/// earlier one stands before it.
fn needed(targets: &[&'static Target]) -> Vec<Cell> {
    let wanted = |workload: &str, server: &str| {
        let needs = targets.iter().flat_map(|target| target.needs);
        needs.into_iter().any(|(name, servers)| *name == workload && servers.contains(&server))
    };
    let all = WORKLOADS.iter().flat_map(|workload| workload.servers.iter().map(move |server| (workload, *server)));
    all.filter(|(workload, server)| wanted(workload.name, server)).collect()
}

fn named(names: &[String]) -> io::Result<Vec<Cell>> {
    let mut cells = Vec::new();
    for name in names {
        let Some(workload) = workload(name) else {
            let all: Vec<&str> = WORKLOADS.iter().map(|workload| workload.name).collect();
            return Err(io::Error::other(format!("no workload {name}; there are: {}", all.join(", "))));
        };
        cells.extend(workload.servers.iter().map(|server| (workload, *server)));
    }
    Ok(cells)
}

/// The other build beside each of ours.
fn with_twins(cells: &[Cell]) -> Vec<Cell> {
    let twin = |server: &str| TWINS.iter().find(|(this, _)| *this == server).map(|(_, earlier)| *earlier);
    let both =
        |(workload, server): &Cell| [Some((*workload, *server)), twin(server).map(|earlier| (*workload, earlier))];
    cells.iter().flat_map(both).flatten().collect()
}

/// Prepares the peers, takes the cores, says where everything runs.
fn fleet(root: &Path, commitcast: &Path, arguments: &Arguments, cells: &[Cell]) -> io::Result<Fleet> {
    raise_descriptor_limit()?;
    let peers = arguments.tools.clone().unwrap_or_else(|| root.join("tools/peers"));
    let is_chosen = |peer: &str| arguments.peers.as_ref().is_none_or(|peers| peers.iter().any(|wanted| wanted == peer));
    if let Some(unknown) =
        arguments.peers.iter().flatten().find(|wanted| *wanted != "none" && !PEERS.contains(&wanted.as_str()))
    {
        return Err(io::Error::other(format!("no peer {unknown}; there are: {}", PEERS.join(", "))));
    }
    let used = |peer: &&&str| is_chosen(peer) && cells.iter().any(|(_, server)| *server == **peer);
    let chosen: Vec<&str> = PEERS.iter().filter(used).copied().collect();
    if !arguments.as_they_are && !chosen.is_empty() {
        provide(&peers, &chosen);
    }
    let programs = Programs {
        floor: (std::env::current_exe()?, vec!["floor".to_owned()]),
        commitcast: commitcast.to_owned(),
        earlier: arguments.against.clone(),
        peers: Some(peers),
    };
    let cores = Cores::two()?;
    match cores {
        Some(cores) => {
            println!("servers on core {}, generator on core {}", cores.server, cores.load);
            pin(&[cores.load])?;
        }
        None => println!("only one core: servers and generator share it, and every ratio says little"),
    }
    let mut fleet = Fleet::new(programs, cores);
    for peer in PEERS.iter().filter(|peer| !is_chosen(peer)) {
        fleet.leave_out(peer, "NOT RUN: left out by --peers");
    }
    Ok(fleet)
}

/// What cannot be prepared is reported where it is missing.
fn provide(peers: &Path, chosen: &[&str]) {
    let provide = peers.join("provide");
    if provide.exists() {
        println!("preparing {} …", chosen.join(", "));
        if let Err(error) = Command::new(&provide).args(chosen).stdin(Stdio::null()).status() {
            println!("{}: {error}", provide.display());
        }
    }
}

fn rounds(fleet: &mut Fleet, cells: &[Cell], arguments: &Arguments, log: &mut Log) -> io::Result<Book> {
    let plan = if arguments.quick { Plan::quick() } else { Plan::full() };
    let mut book = Book::default();
    for round in 0..arguments.rounds.max(1) {
        println!("--- round {}", round + 1);
        // Of two builds each is the first in every other round: what the one before leaves behind falls to both.
        let is_turned = arguments.against.is_some() && round % 2 == 1;
        let order: Vec<&Cell> = if is_turned { cells.iter().rev().collect() } else { cells.iter().collect() };
        for (workload, server) in order {
            if round > 0 && workload.once {
                continue;
            }
            let plan = if round == 0 { plan } else { plan.without_calls() };
            match fleet.measure(workload, server, &plan, &book) {
                Ok(mut figures) => {
                    figures.round = round;
                    println!("{figures}");
                    log.write(&figures)?;
                    book.figures.push(figures);
                }
                Err(why) => {
                    if round == 0 {
                        println!("{:<14} {server:<17} {why}", workload.name);
                    }
                    book.missing.insert((workload.name.to_owned(), (*server).to_owned()), why);
                }
            }
        }
    }
    Ok(book)
}

/// Each server that did none of its work, once, and why.
fn absent(book: &Book) -> BTreeMap<&str, &str> {
    let missing = book.missing.iter().map(|((_, server), why)| (server.as_str(), why.as_str()));
    missing.filter(|(server, _)| book.figures.iter().all(|figures| figures.server != *server)).collect()
}

/// Every measurement as a line of JSON.
struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Beside the build, as `macro.jsonl`.
    fn open() -> io::Result<Log> {
        let program = std::env::current_exe()?;
        let folder = program.ancestors().nth(3).unwrap_or(Path::new("."));
        let path = folder.join("macro.jsonl");
        Ok(Log { file: File::create(&path)?, path })
    }

    fn write(&mut self, figures: &crate::figures::Figures) -> io::Result<()> {
        writeln!(self.file, "{}", serde_json::to_string(figures)?)
    }
}

fn record(folder: &Path, targets: &[&Target], book: &Book, arguments: &Arguments) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let length = if arguments.quick { "short windows, " } else { "" };
    let about = format!("Best of {} interleaved rounds, {length}{}.", arguments.rounds, machine());
    fs::write(folder.join("table.md"), report::markdown(targets, book, &about))?;
    fs::write(folder.join("figures.json"), serde_json::to_string_pretty(&book.figures)?)?;
    let drawn = picture::draw(book, folder)?;
    println!("recorded in {}: table.md, figures.json, {}", folder.display(), drawn.join(", "));
    Ok(())
}

/// What a reader elsewhere wants to know of this machine.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |(_, it)| it);
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let version = read("/proc/sys/kernel/osrelease");
    format!("{cores} cores of {model}, Linux {}", version.trim())
}

/// Connections are descriptors.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::cells::{COMMITCAST, EARLIER, FLOOR};

    #[test]
    fn a_cell_is_measured_once_and_after_what_it_needs() {
        let all = needed(&targets(&[]).unwrap());
        for (index, cell) in all.iter().enumerate() {
            let same = |other: &&Cell| other.0.name == cell.0.name && other.1 == cell.1;
            assert_eq!(all.iter().skip(index + 1).find(same), None);
        }
        let place = |name| all.iter().position(|(workload, _)| workload.name == name).unwrap();
        assert!(
            place("ping") < place("ping-open")
                && place("updates") < place("rows")
                && place("ping") < place("cores-ping")
        );
        assert!(targets(&["T16".to_owned()]).is_err() && named(&["nothing".to_owned()]).is_err());
        let one = needed(&targets(&["T5".to_owned()]).unwrap());
        let names: Vec<&str> = one.iter().map(|(workload, _)| workload.name).collect();
        assert_eq!(names, ["fanout", "fanout", "durable"]);
        let servers: Vec<&str> = with_twins(&one).iter().map(|(_, server)| *server).collect();
        assert_eq!(servers, [COMMITCAST, EARLIER, FLOOR, COMMITCAST, EARLIER]);
    }
}
