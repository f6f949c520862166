//! Two builds of commitcast in one run: every condition of the table for both, and how far one is worse.
//!
//! A figure recorded on another day says little on a machine that others use too. Here both builds were measured in turn,
//! beside the same floor and the same peers.
//!
//! *Worse* is what is worse both in the best round of each build and in the middle of the rounds, each of which compares two
//! measurements a few seconds apart. Either alone is not enough: one lucky round decides the first (a tail of latencies is
//! mostly the machine's own), and a neighbour who comes in the middle of a pair the second.

use std::fmt::Write as _;

use crate::book::Book;
use crate::targets::{Claim, Target, figure};

/// What two runs of the same program differ by at best: more than this is worse.
const TOLERANCE: f64 = 1.03;

/// One condition of one line, for both builds.
#[derive(Clone, Debug)]
pub struct Compared {
    pub id: &'static str,
    pub this: Claim,
    pub earlier: Claim,
    /// The middle one of the rounds' own comparisons.
    middle: Option<f64>,
}

impl Compared {
    fn times_worse(&self) -> Option<f64> {
        self.this.times_worse_than(&self.earlier)
    }

    fn is_worse(&self) -> bool {
        let is_more = |times: Option<f64>| times.is_some_and(|times| times > TOLERANCE);
        is_more(self.times_worse()) && is_more(self.middle)
    }
}

pub fn compare(targets: &[&Target], book: &Book) -> Vec<Compared> {
    let rounds: Vec<Vec<Pair>> = (0..book.rounds()).map(|round| pairs(targets, &book.round(round))).collect();
    let pairs = pairs(targets, book).into_iter().enumerate();
    pairs
        .map(|(index, (id, this, earlier))| {
            let times = rounds.iter().filter_map(|round| round.get(index));
            let middle = median(times.filter_map(|(_, this, earlier)| this.times_worse_than(earlier)).collect());
            Compared { id, this, earlier, middle }
        })
        .collect()
}

/// A line's name and the same condition of it for this build and for the earlier one.
type Pair = (&'static str, Claim, Claim);

fn pairs(targets: &[&Target], book: &Book) -> Vec<Pair> {
    let before = book.of_the_earlier_build();
    let both = |target: &&Target| {
        let (this, earlier) = ((target.judge)(book).claims, (target.judge)(&before).claims);
        let id = target.id;
        this.into_iter().zip(earlier).map(move |(this, earlier)| (id, this, earlier))
    };
    targets.iter().flat_map(both).collect()
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().saturating_sub(1) / 2)?, values.get(values.len() / 2)?);
    Some((low + high) / 2.0)
}

/// How many conditions are worse than they were.
pub fn worse(compared: &[Compared]) -> usize {
    compared.iter().filter(|one| one.is_worse()).count()
}

pub fn text(compared: &[Compared]) -> String {
    let mut text = String::new();
    for one in compared {
        let shown = |claim: &Claim| claim.found.as_ref().map_or_else(|_| "not measured".to_owned(), |it| figure(*it));
        let percent = |times: f64| format!("{:+.1} %", (times - 1.0) * 100.0);
        let change = one.times_worse().zip(one.middle).map_or_else(String::new, |(best, middle)| {
            let verdict = if one.is_worse() { "WORSE" } else { "" };
            format!("best {:>8}, middle {:>8} {verdict}", percent(best), percent(middle))
        });
        let (this, earlier) = (shown(&one.this), shown(&one.earlier));
        let line = format!("{:<4} {:<50} earlier {earlier:>12}  this {this:>12}  {change}", one.id, one.this.text);
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let measured = compared.iter().filter(|one| one.times_worse().is_some()).count();
    let percent = (TOLERANCE - 1.0) * 100.0;
    let _ =
        writeln!(text, "{measured} conditions measured on both, {} more than {percent:.0} % worse", worse(compared));
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::cells::{COMMITCAST, EARLIER, FLOOR};
    use crate::figures::{Figures, cost};
    use crate::targets::TARGETS;

    fn compared(id: &str, workload: &str, this: f64, earlier: f64) -> Vec<Compared> {
        let figures =
            vec![cost(workload, COMMITCAST, this), cost(workload, EARLIER, earlier), cost(workload, FLOOR, 10.0)];
        let targets: Vec<&Target> = TARGETS.iter().filter(|target| target.id == id).collect();
        compare(&targets, &Book { figures, ..Book::default() })
    }

    #[test]
    fn more_is_worse_where_less_is_wanted() {
        assert_eq!(worse(&compared("T1", "ping", 10.4, 10.0)), 1);
        assert_eq!(worse(&compared("T1", "ping", 10.2, 10.0)), 0);
        assert_eq!(worse(&compared("T1", "ping", 5.0, 10.0)), 0);
    }

    #[test]
    fn one_lucky_round_makes_nothing_worse() {
        let round = |round, server: &str, cpu| Figures { round, ..cost("ping", server, cpu) };
        let rounds = [(5.0, 9.0), (9.0, 4.0), (5.0, 9.0)];
        let both = |(number, (this, earlier)): (usize, &(f64, f64))| {
            [round(number, COMMITCAST, *this), round(number, EARLIER, *earlier), round(number, FLOOR, 10.0)]
        };
        let figures = rounds.iter().enumerate().flat_map(both).collect();
        let targets: Vec<&Target> = TARGETS.iter().filter(|target| target.id == "T1").collect();
        let compared = compare(&targets, &Book { figures, ..Book::default() });
        let first = compared.first().unwrap();
        assert!(first.times_worse() > Some(1.2) && first.middle < Some(0.6), "{first:?}");
        assert_eq!(worse(&compared), 0);
        assert_eq!((median(vec![]), median(vec![3.0, 1.0]), median(vec![3.0, 1.0, 9.0])), (None, Some(2.0), Some(3.0)));
    }

    #[test]
    fn less_is_worse_where_more_is_wanted() {
        // Events per second of CPU.
        assert_eq!(worse(&compared("T12", "resume", 10.4, 10.0)), 1);
        assert_eq!(worse(&compared("T12", "resume", 5.0, 10.0)), 0);
    }

    #[test]
    fn what_was_not_measured_is_said_and_is_not_worse() {
        let shown = text(&compared("T1", "ping", 10.4, 10.0));
        assert_eq!(shown.matches("not measured").count(), 4, "{shown}");
        assert!(shown.contains("best   +4.0 %, middle   +4.0 % WORSE\n"), "{shown}");
        assert!(shown.ends_with("1 conditions measured on both, 1 more than 3 % worse\n"), "{shown}");
    }
}
