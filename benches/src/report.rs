//! The table for people: as text on the terminal, as Markdown in a file.

use std::fmt::Write as _;

use crate::book::Book;
use crate::targets::{Target, Verdict};

/// One target per paragraph: a table this wide is no table on a terminal.
pub fn text(targets: &[&Target], book: &Book) -> String {
    let mut text = String::new();
    for target in targets {
        let judged = (target.judge)(book);
        let _ = writeln!(text, "{:<4} {}", target.id, target.what);
        for (name, value) in [
            ("commitcast", &judged.commitcast),
            ("floor", &judged.floor),
            ("peers", &judged.peers),
            ("ratio", &judged.ratios()),
        ] {
            if !value.is_empty() {
                let _ = writeln!(text, "     {name:<10} {value}");
            }
        }
        let _ = writeln!(text, "     {}{}", judged.verdict_text(), disturbed(target, book));
    }
    text
}

/// How much of what a line stands on carries a warning; nothing where nothing does.
fn disturbed(target: &Target, book: &Book) -> String {
    let needed = |workload: &str, server: &str| {
        target.needs.iter().any(|(name, servers)| *name == workload && servers.contains(&server))
    };
    let figures: Vec<_> = book.figures.iter().filter(|figures| needed(&figures.workload, &figures.server)).collect();
    match figures.iter().filter(|figures| figures.warning.is_some()).count() {
        0 => String::new(),
        warned => format!("   ({warned} of {} measurements carry a warning)", figures.len()),
    }
}

pub fn markdown(targets: &[&Target], book: &Book, about: &str) -> String {
    let mut text = format!(
        "{about}\n\n| # | workload | commitcast | floor | peers | ratio (target) | |\n|---|---|---|---|---|---|---|\n"
    );
    for target in targets {
        let judged = (target.judge)(book);
        let cells = [
            target.id.to_owned(),
            target.what.to_owned(),
            judged.commitcast.clone(),
            judged.floor.clone(),
            judged.peers.clone(),
            judged.ratios(),
            judged.verdict_text(),
        ];
        let _ = writeln!(text, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
    }
    text
}

/// How many lines are met, not met, not measured.
pub fn count(targets: &[&Target], book: &Book) -> (usize, usize, usize) {
    let verdicts: Vec<Verdict> = targets.iter().map(|target| (target.judge)(book).verdict()).collect();
    let of = |wanted: &dyn Fn(&Verdict) -> bool| verdicts.iter().filter(|verdict| wanted(verdict)).count();
    let met = of(&|verdict| *verdict == Verdict::Met);
    let unmet = of(&|verdict| *verdict == Verdict::NotMet);
    (met, unmet, verdicts.len() - met - unmet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::TARGETS;

    #[test]
    fn what_was_not_measured_is_said_in_every_line() {
        let targets: Vec<&Target> = TARGETS.iter().collect();
        let book = Book::default();
        assert_eq!(count(&targets, &book), (0, 0, 15));
        assert_eq!(text(&targets, &book).matches("not measured: ").count(), 15);
        let table = markdown(&targets, &book, "x");
        let lines: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(lines.len(), 17);
        assert!(lines.iter().all(|line| line.replace("\\|", "").matches('|').count() == 8), "{table}");
    }
}
