//! Many seeds, on all cores: which are run, what they came to, and what is said of it.

use std::ops::AddAssign;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use commitcast::mutant::Canary;

use super::process::live;
use super::{Run, run};

/// Which seeds are run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub first: u64,
    pub count: u64,
    /// After which no seed is begun.
    pub time: Option<Duration>,
    pub threads: usize,
}

impl Plan {
    pub fn from_environment(count: u64) -> Plan {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let time = number("SIM_SECONDS").map(Duration::from_secs);
        let unlimited = if time.is_some() { u64::MAX / 2 } else { count };
        Plan {
            first: number("SIM_SEED").unwrap_or(1),
            count: number("SIM_SEEDS").unwrap_or(unlimited),
            time,
            threads: number("SIM_THREADS").map_or_else(cores, |threads| threads as usize),
        }
    }

    /// The first so many seeds, whatever is asked for.
    #[cfg(feature = "canary")]
    pub fn of(count: u64) -> Plan {
        Plan { first: 1, count, time: None, threads: cores() }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get())
}

/// What all runs of a plan came to.
#[derive(Debug, Default)]
pub struct Outcome {
    pub seeds: u64,
    pub total: Run,
    /// The first seed that broke a promise, and how.
    pub failure: Option<(u64, String)>,
    pub took: Duration,
}

/// Runs seeds in their order until all are done or one has failed; those before it are done by then.
pub fn sweep(plan: &Plan, canary: Canary) -> Outcome {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let begun = Instant::now();
    let outcome = Mutex::new(Outcome::default());
    let work = || {
        let live = live();
        let mut own = Outcome::default();
        while !stop.load(Ordering::Relaxed) && plan.time.is_none_or(|time| begun.elapsed() < time) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= plan.count {
                break;
            }
            let seed = plan.first + number;
            // A panic in the core is a failed seed.
            let result = catch_unwind(AssertUnwindSafe(|| run(seed, &live, canary)));
            own.seeds += 1;
            match result.unwrap_or_else(|panic| Err(format!("panic: {}", text_of(&*panic)))) {
                Ok(run) => own.total += run,
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    own.failure = Some((seed, error));
                    break;
                }
            }
        }
        let mut all = outcome.lock().unwrap();
        all.seeds += own.seeds;
        all.total += own.total;
        all.failure = match (all.failure.take(), own.failure) {
            (Some(one), Some(other)) => Some(if one.0 < other.0 { one } else { other }),
            (one, other) => one.or(other),
        };
    };
    std::thread::scope(|scope| {
        for _ in 0..plan.threads {
            scope.spawn(work);
        }
    });
    let outcome = outcome.into_inner().unwrap();
    Outcome { took: begun.elapsed(), ..outcome }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

impl Outcome {
    pub fn print(&self, plan: &Plan) {
        let Outcome { seeds, total, took, failure } = self;
        let tally = total.tally;
        println!(
            "{seeds} seeds from {}, {} events ({} shown to native clients), {} connections, {} processes, {} tasks, \
             {} decisions, {:.0} seeds/s on {} threads, {} violations",
            plan.first,
            total.events,
            total.native,
            total.connections,
            total.boots,
            total.tasks,
            total.decisions,
            *seeds as f64 / took.as_secs_f64(),
            plan.threads,
            u8::from(failure.is_some()),
        );
        println!(
            "behaviour: simulation {} storms, {} drains ({} told 1012), {} stalls, {} pauses, {} floods, {} told 4008, \
             {} resets, {} pages read back; traces sum to {:016x}",
            tally.storms,
            tally.drains,
            tally.restarted,
            tally.stalls,
            tally.pauses,
            tally.floods,
            tally.slow,
            tally.resets,
            tally.pages_read,
            total.trace,
        );
    }

    pub fn expect_no_violation(&self) {
        if let Some((seed, error)) = &self.failure {
            panic!(
                "seed {seed}: {error}\nreplay with SIM_SEED={seed} SIM_SEEDS=1 cargo test -p commitcast --features canary \
                 --test it simulation::no_seed_breaks_a_promise -- --nocapture"
            );
        }
    }

    /// A few seeds may be quiet ones.
    pub fn expect_something_happened(&self) {
        let Outcome { seeds, total, .. } = self;
        let tally = total.tally;
        let is_busy = |what: usize, each: u64, of: u64| what as u64 * of > seeds * each;
        let goes = is_busy(total.events, 10, 1) && is_busy(total.boots, 1, 1) && is_busy(total.native, 5, 1);
        let works = is_busy(total.tasks, 1, 1) && is_busy(total.decisions, 1, 10);
        let breaks = [tally.storms, tally.drains, tally.stalls, tally.pauses, tally.floods];
        let is_rough = breaks.into_iter().all(|times| is_busy(times, 1, 20));
        let is_slow = is_busy(tally.pages_read as usize, 1, 4) && is_busy(tally.restarted, 1, 20) && tally.slow > 0;
        assert!(*seeds <= 200 || (goes && works && is_rough && is_slow), "the runs must do something: {total:?}");
    }
}

impl AddAssign for Run {
    fn add_assign(&mut self, other: Run) {
        self.events += other.events;
        self.connections += other.connections;
        self.boots += other.boots;
        self.tasks += other.tasks;
        self.decisions += other.decisions;
        self.native += other.native;
        self.trace = self.trace.wrapping_add(other.trace);
        let (tally, more) = (&mut self.tally, other.tally);
        tally.storms += more.storms;
        tally.drains += more.drains;
        tally.stalls += more.stalls;
        tally.pauses += more.pauses;
        tally.floods += more.floods;
        tally.slow += more.slow;
        tally.restarted += more.restarted;
        tally.resets += more.resets;
        tally.pages_read += more.pages_read;
    }
}
