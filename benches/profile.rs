//! A callgrind file summed up: what each function costs with all that it calls, per unit, and what each line of `src/` does.
//!
//! `callgrind_annotate` splits a function by the files its inlined code comes from and gives totals of the process; here a
//! function is one row and the figures are those of the table of cases. Inlined code is counted for the function it was
//! inlined into, and at its own line.

use std::collections::HashMap;
use std::fmt::Write as _;

/// Rows below this share of the whole are left out.
const SHARE_MIN: f64 = 0.004;

#[derive(Default)]
struct Function {
    own: u64,
    /// Its own and that of all it calls, itself again excepted.
    all: u64,
}

#[derive(Default)]
struct Sums {
    functions: HashMap<String, Function>,
    /// By file and line, calls made there included.
    lines: HashMap<(String, u64), u64>,
    total: u64,
}

/// The text of the report; `units` is what all of it is divided by.
pub fn report(callgrind: &str, units: f64) -> String {
    let sums = Sums::of(callgrind);
    let mut out = format!("{:.1} instructions\n\n   with calls         own  function\n", sums.total as f64 / units);
    let least = (sums.total as f64 * SHARE_MIN) as u64;
    // What has it all only stands around it: `main` and the like.
    let is_shown = |it: &Function| it.all >= least && it.all < sums.total;
    let mut functions: Vec<_> = sums.functions.iter().filter(|(_, it)| is_shown(it)).collect();
    functions.sort_by_key(|(name, it)| (std::cmp::Reverse(it.all), (*name).clone()));
    for (name, it) in functions {
        let (all, own) = (it.all as f64 / units, it.own as f64 / units);
        let _ = writeln!(out, "{all:>13.1} {own:>11.1}  {name}");
    }
    out.push_str("\n   with calls  line\n");
    let is_ours = |file: &str| file.starts_with("src/");
    let mut lines: Vec<_> = sums.lines.iter().filter(|((file, _), cost)| is_ours(file) && **cost >= least).collect();
    lines.sort_by_key(|(place, cost)| (std::cmp::Reverse(**cost), (*place).clone()));
    for ((file, line), cost) in lines {
        let _ = writeln!(out, "{:>13.1}  {file}:{line}", *cost as f64 / units);
    }
    out
}

impl Sums {
    /// The format: <https://valgrind.org/docs/manual/cl-format.html>. One event, one position a line.
    fn of(callgrind: &str) -> Sums {
        let mut sums = Sums::default();
        // A name is written out once, and then only its number.
        let (mut functions, mut files) = (HashMap::new(), HashMap::new());
        let (mut function, mut callee, mut file) = (String::new(), String::new(), String::new());
        let (mut line, mut is_call) = (0, false);
        for text in callgrind.lines() {
            if let Some((key, value)) = text.split_once('=') {
                match key {
                    "fn" => function = named(value, &mut functions),
                    "cfn" => callee = named(value, &mut functions),
                    "fl" | "fi" | "fe" => file = short(&named(value, &mut files)),
                    "cfi" | "cfl" => drop(named(value, &mut files)),
                    "calls" => is_call = true,
                    _ => {}
                }
                continue;
            }
            let Some((position, cost)) = text.split_once(' ') else { continue };
            let (Some(at), Ok(cost)) = (place(position, line), cost.parse::<u64>()) else { continue };
            line = at;
            *sums.lines.entry((file.clone(), line)).or_default() += cost;
            let it = sums.functions.entry(function.clone()).or_default();
            if std::mem::take(&mut is_call) {
                it.all += if callee == function { 0 } else { cost };
            } else {
                it.own += cost;
                it.all += cost;
                sums.total += cost;
            }
        }
        sums
    }
}

/// `(12) name`, or `(12)` for the name with this number.
fn named(value: &str, known: &mut HashMap<String, String>) -> String {
    match value.split_once(' ') {
        Some((number, name)) if number.starts_with('(') => {
            known.insert(number.to_owned(), name.to_owned());
            name.to_owned()
        }
        _ => known.get(value).cloned().unwrap_or_else(|| value.to_owned()),
    }
}

/// A line's number, absolute or as a step from the one before.
fn place(position: &str, before: u64) -> Option<u64> {
    match position.split_at_checked(1)? {
        ("*", "") => Some(before),
        ("+", step) => before.checked_add(step.parse().ok()?),
        ("-", step) => before.checked_sub(step.parse().ok()?),
        _ => position.parse().ok(),
    }
}

/// From where the project is.
fn short(file: &str) -> String {
    file.strip_prefix(concat!(env!("CARGO_MANIFEST_DIR"), "/")).unwrap_or(file).to_owned()
}
