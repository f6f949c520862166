//! Counts the instructions of the hot cases of `common/cases` under valgrind's callgrind, and holds them against
//! `budget.toml`.
//!
//! ```text
//!     cargo bench --bench instructions [-- WORD…]      the cases whose names hold one of the words, or all
//!                                      -- --renew      writes the budget anew from what is counted
//!                                      -- --profile CASE    where its instructions go, by function and by line
//! ```
//!
//! Each case runs in a process of its own under callgrind, n and 2n times, and `(I(2n) − I(n)) / n` is what one run costs:
//! start and set-up are the same in both and cancel out. Instructions of the kernel are not counted, and neither are cache
//! misses; a copy of 2 KiB or more is one `rep movsb`, of which each byte is counted. But a noisy neighbour does not change
//! the figure: two runs of one build differ only where a seed or a name is random (hash tables, databases: 1 to 3 %).
//!
//! Ends with 0 when every case is within its budget, 1 when one is over it, and 77 when there is no valgrind (NOT RUN).

#![allow(clippy::unwrap_used, reason = "a bench that cannot be set up has nothing to measure")]

mod common;
mod profile;

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use common::cases::{self, Case, Counted, Run};
use serde::Deserialize;

/// What a test ends with that cannot be run on this machine (the number automake gives that).
const NOT_RUN: u8 = 77;
/// What the budget allows over what was counted when it was made: other code in the same crate moves a few inlining
/// decisions.
const HEADROOM: f64 = 0.03;
/// A new budget is made from the largest of so many.
const RENEWING_COUNTS: usize = 3;
/// A budget that is so far above the figure guards nothing.
const SLACK: f64 = 0.10;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--run", name, runs, prepared] => return run(name, runs.parse().unwrap(), prepared.parse().unwrap()),
        ["--features"] => {
            println!("{}", features());
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    if !has_valgrind() {
        println!("NOT RUN: valgrind is missing: install it");
        return ExitCode::from(NOT_RUN);
    }
    match words.as_slice() {
        ["--profile", name] => show_profile(name),
        ["--renew"] => renew(),
        words => compare(words),
    }
}

// ---- the counted process ----------------------------------------------------------------------------------------------

/// Runs a case so often, with input prepared for `prepared` runs, and ends without tidying up.
fn run(name: &str, runs: u64, prepared: u64) -> ExitCode {
    let case = find(name);
    // Input that is used up is made for twice the runs in both processes, and the rest of it thrown away with the process.
    measured(&mut case.prepare(prepared), runs);
    std::process::exit(0)
}

/// What a profile begins with.
#[inline(never)]
fn measured(run: &mut Run, runs: u64) {
    for _ in 0..runs {
        black_box(&mut *run)();
    }
}

fn find(name: &str) -> &'static Case {
    cases::all().find(|case| case.name == name).unwrap_or_else(|| panic!("there is no case {name}"))
}

/// What decides which code the libraries choose, as the counted process sees it.
fn features() -> String {
    #[cfg(target_arch = "x86_64")]
    let found = [
        ("avx2", std::is_x86_feature_detected!("avx2")),
        ("avx512f", std::is_x86_feature_detected!("avx512f")),
        ("bmi2", std::is_x86_feature_detected!("bmi2")),
        ("sha", std::is_x86_feature_detected!("sha")),
        ("sse4.2", std::is_x86_feature_detected!("sse4.2")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let found: [(&str, bool); 0] = [];
    let found: Vec<&str> = found.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name).collect();
    format!("{} {}", env::consts::ARCH, found.join(" "))
}

// ---- counting ---------------------------------------------------------------------------------------------------------

fn has_valgrind() -> bool {
    let asked = Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

fn scratch() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("instructions");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Instructions per unit.
fn count(case: &Case) -> f64 {
    let runs = runs_of(case);
    let (once, twice) = (total(case, runs), total(case, 2 * runs));
    twice.saturating_sub(once) as f64 / (runs * case.units) as f64
}

fn runs_of(case: &Case) -> u64 {
    match case.counted {
        Counted::Runs(runs) => runs,
        Counted::OnlyTimed => panic!("{} is only timed", case.name),
    }
}

/// Instructions of a whole process.
fn total(case: &Case, runs: u64) -> u64 {
    let out = scratch().join(format!("{}.{runs}", case.name.replace('/', "-")));
    callgrind(case, runs, &out, &[]);
    let text = fs::read_to_string(&out).unwrap();
    let totals = text.lines().find_map(|line| line.strip_prefix("totals: "));
    totals.and_then(|totals| totals.parse().ok()).unwrap_or_else(|| panic!("{}: no totals", out.display()))
}

fn callgrind(case: &Case, runs: u64, out: &Path, more: &[&str]) {
    // It leaves its databases behind.
    let data = scratch().join("data");
    fs::create_dir_all(&data).unwrap();
    let done = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .args(more)
        .arg(env::current_exe().unwrap())
        .args(["--run", case.name, &runs.to_string(), &(2 * runs_of(case)).to_string()])
        // What a process is given lies on its stack, and decides where the rest lies.
        .env_clear()
        .env("TMPDIR", &data)
        .output()
        .unwrap();
    fs::remove_dir_all(&data).unwrap();
    assert!(done.status.success(), "{}: {}", case.name, String::from_utf8_lossy(&done.stderr));
}

fn show_profile(name: &str) -> ExitCode {
    let case = find(name);
    let out = scratch().join(format!("{}.profile", name.replace('/', "-")));
    callgrind(case, runs_of(case), &out, &["--collect-atstart=no", "--toggle-collect=*measured*"]);
    println!("{name}: {}", out.display());
    let text = fs::read_to_string(&out).unwrap();
    print!("{}", profile::report(&text, (runs_of(case) * case.units) as f64));
    ExitCode::SUCCESS
}

// ---- the budget -------------------------------------------------------------------------------------------------------

#[derive(Debug, Deserialize)]
struct Budget {
    rustc: String,
    machine: String,
    instructions: BTreeMap<String, f64>,
}

fn budget_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches").join("budget.toml")
}

fn rustc() -> String {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Command::new(rustc).arg("--version").output();
    said.map_or_else(|_| "unknown".to_owned(), |said| String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

/// The features that a counted process sees: fewer than the machine has.
fn machine() -> String {
    let said = Command::new("valgrind")
        .args(["--tool=none", "--quiet"])
        .arg(env::current_exe().unwrap())
        .arg("--features")
        .output()
        .unwrap();
    String::from_utf8_lossy(&said.stdout).trim().to_owned()
}

fn counted() -> impl Iterator<Item = &'static Case> {
    cases::all().filter(|case| case.counted != Counted::OnlyTimed)
}

fn compare(words: &[&str]) -> ExitCode {
    let text = fs::read_to_string(budget_path()).unwrap_or_default();
    let budget = match toml::from_str::<Budget>(&text) {
        Ok(budget) => budget,
        Err(error) => {
            eprintln!("benches/budget.toml: {error}; `-- --renew` writes it anew");
            return ExitCode::FAILURE;
        }
    };
    let (rustc, machine) = (rustc(), machine());
    let is_ours = budget.rustc == rustc && budget.machine == machine;
    println!("{:<28} {:>14} {:>14}  within", "case", "instructions", "budget");
    let (mut over, mut slack) = (Vec::new(), Vec::new());
    for case in counted().filter(|case| words.is_empty() || words.iter().any(|word| case.name.contains(word))) {
        let figure = count(case);
        let Some(allowed) = budget.instructions.get(case.name).copied() else {
            println!("{:<28} {figure:>14.1} {:>14}  no budget", case.name, "-");
            over.push(case.name);
            continue;
        };
        let verdict = if figure > allowed { "NO" } else { "yes" };
        println!("{:<28} {figure:>14.1} {allowed:>14.1}  {verdict}", case.name);
        if figure > allowed {
            over.push(case.name);
        } else if figure < allowed * (1.0 - SLACK) {
            slack.push(case.name);
        }
    }
    if !slack.is_empty() {
        println!("more than a tenth under budget, lower it with `-- --renew`: {}", slack.join(", "));
    }
    if over.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("over budget: {}", over.join(", "));
    if is_ours {
        return ExitCode::FAILURE;
    }
    println!("which fails nothing here: the budget is of another compiler or machine");
    println!("    budget: {}, {}\n    here:   {rustc}, {machine}", budget.rustc, budget.machine);
    ExitCode::SUCCESS
}

fn renew() -> ExitCode {
    let mut text = HEAD.to_owned();
    writeln!(text, "rustc = {:?}\nmachine = {:?}\n\n[instructions]", rustc(), machine()).unwrap();
    for case in counted() {
        // Where hash tables have random seeds, by chance this figure may be a good one.
        let figure = (0..RENEWING_COUNTS).map(|_| count(case)).fold(0.0, f64::max);
        let allowed = figure * (1.0 + HEADROOM);
        // Of a small figure the tenths count.
        let allowed = if allowed < 1000.0 { format!("{allowed:.1}") } else { format!("{allowed:.0}.0") };
        println!("{:<28} {figure:>14.1} {allowed:>14}", case.name);
        writeln!(text, "{:?} = {allowed}", case.name).unwrap();
    }
    fs::write(budget_path(), text).unwrap();
    ExitCode::SUCCESS
}

const HEAD: &str = "\
# How many instructions of user code each case of benches/common/cases may take, for one message, delivery, upgrade …
# The largest of three counts, and three per cent.
#
# Renew it when a figure has fallen, or has risen for a reason that the commit names:
#     cargo bench --bench instructions -- --renew
#
# The figures are of one compiler, and of the processor features that valgrind shows (it hides some, such as SHA and AVX-512).
# With another compiler or machine than these they are compared and reported, and nothing fails.
";
