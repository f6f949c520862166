//! Two builds of commitcast in one run: every condition of the table for both, and how far one is worse.
//!
//! A figure recorded on another day says little on a machine that others use too. Here both builds were measured in turn,
//! beside the same floor and the same peers.

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
}

impl Compared {
    fn times_worse(&self) -> Option<f64> {
        self.this.times_worse_than(&self.earlier)
    }

    fn is_worse(&self) -> bool {
        self.times_worse().is_some_and(|times| times > TOLERANCE)
    }
}

pub fn compare(targets: &[&Target], book: &Book) -> Vec<Compared> {
    let before = book.of_the_earlier_build();
    let both = |target: &&Target| {
        let (this, earlier) = ((target.judge)(book).claims, (target.judge)(&before).claims);
        let id = target.id;
        this.into_iter().zip(earlier).map(move |(this, earlier)| Compared { id, this, earlier })
    };
    targets.iter().flat_map(both).collect()
}

/// How many conditions are worse than they were.
pub fn worse(compared: &[Compared]) -> usize {
    compared.iter().filter(|one| one.is_worse()).count()
}

pub fn text(compared: &[Compared]) -> String {
    let mut text = String::new();
    for one in compared {
        let shown = |claim: &Claim| claim.found.as_ref().map_or_else(|_| "not measured".to_owned(), |it| figure(*it));
        let change = one.times_worse().map_or_else(String::new, |times| {
            let verdict = if one.is_worse() { "WORSE" } else { "" };
            format!("{:+.1} % {verdict}", (times - 1.0) * 100.0)
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
    use super::*;
    use crate::cells::{COMMITCAST, EARLIER, FLOOR};
    use crate::figures::Figures;
    use crate::targets::TARGETS;

    fn cost(workload: &str, server: &str, cpu: f64) -> Figures {
        Figures {
            workload: workload.to_owned(),
            server: server.to_owned(),
            cpu_nanos: Some(cpu),
            units: 1,
            seconds: 1.0,
            ..Figures::default()
        }
    }

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
    fn less_is_worse_where_more_is_wanted() {
        // Events per second of CPU.
        assert_eq!(worse(&compared("T12", "resume", 10.4, 10.0)), 1);
        assert_eq!(worse(&compared("T12", "resume", 5.0, 10.0)), 0);
    }

    #[test]
    fn what_was_not_measured_is_said_and_is_not_worse() {
        let shown = text(&compared("T1", "ping", 10.4, 10.0));
        assert_eq!(shown.matches("not measured").count(), 4, "{shown}");
        assert!(shown.contains("+4.0 % WORSE\n"), "{shown}");
        assert!(shown.ends_with("1 conditions measured on both, 1 more than 3 % worse\n"), "{shown}");
    }
}
