//! The run without libFuzzer: the committed corpus, then seeded mutations of it. Nothing but the seed decides what is
//! tried.

use std::fs;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::dice::Dice;
use crate::mutate::{mutate, words};
use crate::targets::{TARGETS, Target};

const SEED: u64 = 1;

/// Each target with the corpus and its share of mutations. `FUZZ_SEED` chooses other mutations, `FUZZ_TIMES` more of
/// them.
pub fn short_run() -> ExitCode {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (seed, times) = (number("FUZZ_SEED").unwrap_or(SEED), number("FUZZ_TIMES").unwrap_or(1));
    println!("seed {seed}");
    let (mut passed, mut failed) = (0, 0);
    for target in &TARGETS {
        let begun = Instant::now();
        match drive(target, seed, u64::from(target.short_runs) * times) {
            Ok(count) => {
                passed += 1;
                println!("behaviour: {}: {count} executions, {}", target.name, said(begun.elapsed()));
            }
            Err(why) => {
                failed += 1;
                println!("{}: {why}", target.name);
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn said(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}

/// How many executions there were, or which input failed.
fn drive(target: &Target, seed: u64, mutations: u64) -> Result<u64, String> {
    let folder = corpus_of(target.name);
    let corpus = files_in(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    if corpus.is_empty() {
        return Err(format!("{} is empty", folder.display()));
    }
    let (paths, inputs): (Vec<PathBuf>, Vec<Vec<u8>>) = corpus.into_iter().unzip();
    for (path, input) in paths.iter().zip(&inputs) {
        run(target, input).map_err(|_| format!("failed at {}", path.display()))?;
    }
    let words = words(&inputs);
    let mut dice = Dice(seed);
    for number in 0..mutations {
        let input = mutate(&inputs, &words, target.len_max, &mut dice);
        run(target, &input).map_err(|_| kept(target, &input, seed, number))?;
    }
    Ok(inputs.len() as u64 + mutations)
}

fn run(target: &Target, input: &[u8]) -> Result<(), ()> {
    panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|_| ())
}

/// Keeps an input that failed, and says how to try it again.
fn kept(target: &Target, input: &[u8], seed: u64, number: u64) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/fuzz/failed");
    let path = folder.join(format!("{}-{seed}-{number}", target.name));
    let again = format!("tools/fuzz/run --replay {} {}", target.name, path.display());
    match fs::create_dir_all(&folder).and_then(|()| fs::write(&path, input)) {
        Ok(()) => format!("failed at mutation {number} of seed {seed}; replay with: {again}"),
        Err(error) => {
            format!("failed at mutation {number} of seed {seed}; {} could not be written: {error}", path.display())
        }
    }
}

/// One input by name of its file, as the drivers would run it.
pub fn replay(name: &str, paths: &[String]) -> Result<(), String> {
    let target = find(name)?;
    for path in paths {
        let input = fs::read(path).map_err(|error| format!("{path}: {error}"))?;
        println!("{name}: {path}, {} bytes", input.len());
        (target.run)(&input);
    }
    Ok(())
}

pub fn find(name: &str) -> Result<&'static Target, String> {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    TARGETS.iter().find(|target| target.name == name).ok_or_else(|| format!("no target {name}; there are {names:?}"))
}

fn corpus_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name)
}

/// By name, so that the order is the same everywhere.
fn files_in(folder: &Path) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut paths =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort_unstable();
    paths.into_iter().map(|path| fs::read(&path).map(|bytes| (path, bytes))).collect()
}
