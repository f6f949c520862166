//! The micro benches: the time that each case of `common/cases.rs` takes, by criterion.
//!
//!     cargo bench --bench micro [-- FILTER]          `-- --test` runs each case once
//!
//! For comparing two commits on one machine that is quiet; `instructions.rs` counts where it is not.

#![allow(clippy::unwrap_used, reason = "a bench that cannot be set up has nothing to measure")]

mod common;

use std::time::{Duration, Instant};

use common::cases::CASES;
use criterion::{Criterion, Throughput};

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for case in CASES {
        let mut group = criterion.benchmark_group(case.name);
        group.throughput(Throughput::Elements(case.units));
        group.bench_function("run", |bencher| {
            bencher.iter_custom(|runs| {
                let mut run = (case.prepare)(runs);
                let begun = Instant::now();
                for _ in 0..runs {
                    run();
                }
                begun.elapsed()
            });
        });
        group.finish();
    }
    criterion.final_summary();
}
