//! The micro benches: the time that each case of `common/cases` takes, by criterion.
//!
//! ```text
//!     cargo bench --bench micro [-- WORD]        the cases whose names hold the word, or all
//!                               -- --test        each once
//! ```
//!
//! For comparing two commits on one machine that is quiet; `instructions.rs` counts where it is not.

#![allow(clippy::unwrap_used, reason = "a bench that cannot be set up has nothing to measure")]

#[expect(dead_code, reason = "how often a case is to be counted is for instructions.rs")]
mod common;

use std::time::{Duration, Instant};

use common::cases::{self, Case, Prepare};
use criterion::{Criterion, Throughput};

/// Input that is used up is prepared for so many runs at a time.
const RUNS_PREPARED_MAX: u64 = 64;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for case in cases::all() {
        let (group, name) = case.name.split_once('/').unwrap_or(("", case.name));
        let mut group = criterion.benchmark_group(group);
        group.throughput(Throughput::Elements(case.units));
        group.bench_function(name, |bencher| bencher.iter_custom(|runs| time(case, runs)));
        group.finish();
    }
    criterion.final_summary();
}

fn time(case: &Case, runs: u64) -> Duration {
    let most = match case.prepare {
        Prepare::Endless(_) => u64::MAX,
        Prepare::For(_) => RUNS_PREPARED_MAX,
    };
    let mut left = runs;
    let mut took = Duration::ZERO;
    while left > 0 {
        let now = left.min(most);
        left -= now;
        let mut run = case.prepare(now);
        let begun = Instant::now();
        for _ in 0..now {
            run();
        }
        took += begun.elapsed();
    }
    took
}
