//! What a person and a script are told at the end: each promise, how often it was checked, where it was broken.

use std::fmt::Write as _;
use std::io::Write as _;

use super::judge::{Rule, Tally};

/// Violations of one promise that are printed; the transcript has what they come from.
const SHOWN_MAX: usize = 5;
const WIDTH_MAX: usize = 400;

#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub rounds: u32,
    /// Of these, with SIGTERM.
    pub stops: u32,
    pub connections: usize,
    pub cuts: usize,
    pub frames: u64,
    pub events: u64,
    pub operations: usize,
    pub copies: usize,
    pub slowest_start: std::time::Duration,
}

/// A line on standard output. Whoever stops reading it does not stop the run: a server of our own must not outlive it.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

pub fn table(tally: &Tally) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{:<16} {:<66} {:>9} {:>10}", "rule", "promise", "checked", "violations");
    for rule in Rule::ALL {
        let (name, promise) = rule.names();
        let (checked, violations) = tally.0.get(&rule).map_or((0, 0), |(checked, found)| (*checked, found.len()));
        let checked = if checked == 0 { "-".to_owned() } else { checked.to_string() };
        let _ = writeln!(out, "{name:<16} {promise:<66} {checked:>9} {violations:>10}");
    }
    for (rule, (_, violations)) in &tally.0 {
        for violation in violations.iter().take(SHOWN_MAX) {
            let shown: String = crate::report::printable(violation).chars().take(WIDTH_MAX).collect();
            let _ = writeln!(out, "violation {}: {shown}", rule.names().0);
        }
        if violations.len() > SHOWN_MAX {
            let _ = writeln!(out, "violation {}: … and {} more", rule.names().0, violations.len() - SHOWN_MAX);
        }
    }
    out
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Totals { rounds, stops, connections, cuts, frames, events, operations, copies, .. } = self;
        if *rounds > 0 {
            let slowest = self.slowest_start.as_secs_f64();
            write!(
                f,
                "{rounds} rounds ({} SIGKILL, {stops} SIGTERM), restart within {slowest:.2} s, ",
                rounds - stops
            )?;
        }
        write!(
            f,
            "{connections} connections ({cuts} cut), {operations} operations in {copies} copies, {events} events, {frames} frames"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_that_was_not_checked_is_not_said_to_be_kept() {
        let mut tally = Tally::default();
        tally.check(Rule::Hole, true, String::new);
        tally.check(Rule::Hole, false, || "client-1 \u{1b}[2J missed 2".to_owned());
        let table = table(&tally);
        let line = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        assert!(line("hole").ends_with("2          1"), "{table}");
        assert!(line("phantom").contains(" - "), "{table}");
        assert_eq!(line("violation"), "violation hole: client-1 \\u{1b}[2J missed 2");
    }
}
