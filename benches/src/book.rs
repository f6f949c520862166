//! The figures of all rounds, and the best of each; what could not be measured, and why.

use std::collections::BTreeMap;

use crate::cells::{Known, TWINS, workload};
use crate::figures::Figures;

#[derive(Clone, Debug, Default)]
pub struct Book {
    pub figures: Vec<Figures>,
    /// By workload and server.
    pub missing: BTreeMap<(String, String), String>,
}

/// A figure, or why there is none.
pub type Found = Result<f64, String>;

impl Book {
    fn of<'b>(&'b self, workload: &'b str, server: &'b str) -> impl Iterator<Item = &'b Figures> {
        self.figures.iter().filter(move |figures| figures.workload == workload && figures.server == server)
    }

    /// The least CPU per unit of all rounds, in nanoseconds.
    pub fn cpu(&self, workload: &str, server: &str) -> Found {
        self.best(workload, server, |figures| figures.cpu_nanos, f64::min)
    }

    pub fn rate(&self, workload: &str, server: &str) -> Found {
        self.best(workload, server, |figures| Some(figures.per_second()), f64::max)
    }

    /// The shortest time that all of the work took, in nanoseconds.
    pub fn time(&self, workload: &str, server: &str) -> Found {
        self.best(workload, server, |figures| Some(figures.seconds * 1e9), f64::min)
    }

    pub fn calls(&self, workload: &str, server: &str) -> Found {
        let found = self.best(workload, server, |figures| figures.calls, f64::min);
        found.map_err(|why| if self.has(workload, server) { "perf may not count here".to_owned() } else { why })
    }

    pub fn p50(&self, workload: &str, server: &str) -> Found {
        self.best(workload, server, |figures| Some(figures.latency?.p50 as f64), f64::min)
    }

    pub fn p999(&self, workload: &str, server: &str) -> Found {
        self.best(workload, server, |figures| Some(figures.latency?.p999 as f64), f64::min)
    }

    /// The least of a value that only this workload has.
    pub fn least(&self, workload: &str, server: &str, name: &str) -> Found {
        let found = self.best(workload, server, |figures| figures.extra(name), f64::min);
        found.map_err(|why| if self.has(workload, server) { format!("the server does not tell {name}") } else { why })
    }

    /// The same run as the other build sees it: its figures in the place of ours.
    pub fn of_the_earlier_build(&self) -> Book {
        let is_others = |figures: &&Figures| TWINS.iter().all(|(this, _)| figures.server != *this);
        let mut figures: Vec<Figures> = self.figures.iter().filter(is_others).cloned().collect();
        for figures in &mut figures {
            if let Some((this, _)) = TWINS.iter().find(|(_, earlier)| figures.server == *earlier) {
                (*this).clone_into(&mut figures.server);
            }
        }
        Book { figures, missing: self.missing.clone() }
    }

    pub fn rounds(&self) -> usize {
        self.figures.iter().map(|figures| figures.round + 1).max().unwrap_or(0)
    }

    /// One round alone, with what was measured in the first one only.
    pub fn round(&self, round: usize) -> Book {
        let is_once = |figures: &Figures| workload(&figures.workload).is_some_and(|workload| workload.once);
        let figures = self.figures.iter().filter(|figures| figures.round == round || is_once(figures));
        Book { figures: figures.cloned().collect(), missing: self.missing.clone() }
    }

    fn has(&self, workload: &str, server: &str) -> bool {
        self.of(workload, server).next().is_some()
    }

    fn best(
        &self,
        workload: &str,
        server: &str,
        value: impl Fn(&Figures) -> Option<f64>,
        better: impl Fn(f64, f64) -> f64,
    ) -> Found {
        self.of(workload, server).filter_map(value).reduce(better).ok_or_else(|| {
            let why = self.missing.get(&(workload.to_owned(), server.to_owned()));
            why.map_or_else(|| format!("{workload} was not run on {server}"), |why| format!("{server}: {why}"))
        })
    }
}

impl Known for Book {
    fn per_second(&self, workload: &str, server: &str) -> Option<f64> {
        self.rate(workload, server).ok()
    }

    fn extra(&self, workload: &str, server: &str, name: &str) -> Option<f64> {
        self.of(workload, server).filter_map(|figures| figures.extra(name)).last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(server: &str, cpu: f64, units: u64) -> Figures {
        Figures {
            workload: "ping".to_owned(),
            server: server.to_owned(),
            cpu_nanos: Some(cpu),
            units,
            seconds: 1.0,
            ..Figures::default()
        }
    }

    #[test]
    fn the_best_of_the_rounds_counts() {
        let mut book = Book { figures: vec![figures("a", 5.0, 10), figures("a", 3.0, 7)], ..Book::default() };
        book.missing.insert(("ping".to_owned(), "b".to_owned()), "NOT RUN: x".to_owned());
        assert_eq!((book.cpu("ping", "a"), book.rate("ping", "a")), (Ok(3.0), Ok(10.0)));
        assert_eq!(book.cpu("ping", "b"), Err("b: NOT RUN: x".to_owned()));
        assert_eq!(book.cpu("pong", "a"), Err("pong was not run on a".to_owned()));
        assert_eq!(book.calls("ping", "a"), Err("perf may not count here".to_owned()));
    }

    #[test]
    fn the_other_build_takes_the_place_of_this_one() {
        let figures = vec![figures("commitcast", 5.0, 1), figures("earlier", 4.0, 1), figures("floor", 3.0, 1)];
        let earlier = Book { figures, ..Book::default() }.of_the_earlier_build();
        assert_eq!((earlier.cpu("ping", "commitcast"), earlier.cpu("ping", "floor")), (Ok(4.0), Ok(3.0)));
        assert_eq!(earlier.figures.len(), 2);
    }
}
