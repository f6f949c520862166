//! The seeded simulation: the real reactors, connections, rooms, dialects, worker, desk and readers, on a scripted
//! network, a manual clock and a store that fails. One seed is one run; a failure prints the seed that replays it.
//!
//! ```text
//! SIM_SEEDS=n     how many seeds (default: a few hundred)         SIM_SEED=n      the first of them
//! SIM_SECONDS=n   as many as are begun in so much time            SIM_THREADS=n   side by side (default: one a core)
//! SIM_MUTANT=name a core that is broken so, `DrainForgets` for one (feature `canary`)
//! cargo test -p commitcast --features canary --test it simulation:: -- --nocapture
//! ```
//!
//! ```text
//! client    documents: edits a prompt                native   several rooms, leaves and resumes, decides
//! pages     agents, tickets, workflows, scripts      backend  takes tasks, asks for decisions, dies
//! peer      one end of a connection, on net: streams that split, stall, lie and break
//! process   one life of the server        world  who is there, and whose turn it is
//! faults    store, clock, storms, sleep, crash, drain        ending  all heals, somebody is away, all go
//! verdict   all they were told, held against the log         mutants  cores that are broken on purpose
//! ```
//!
//! Held against the log at the end of each run (PROMISES.md): G1 nobody was shown what is not in it; G2 what was
//! acknowledged is in it, at the seq that was said; G3 what was refused is not; G4 each connection was shown a contiguous
//! run of it, in order; G5 an operation is in it at most once, however often it was sent; G6 a connection begins where its
//! snapshot ends, resumes where it stood, or is told to start afresh; G7 an approval is decided once and everybody is told
//! the same, whoever has to act on it is given it, and no two are given one task under one fence; G11 nothing is written
//! after a commit whose outcome nobody knows; L5 after the faults have healed everybody is at the head, everything that was
//! due has happened, every operation is answered, and every task is done; L6 a drain ends, and whoever was told to go was
//! answered before; and when all have gone, nothing is left of them (I2).

mod backend;
mod client;
mod ending;
mod faults;
mod mutants;
mod native;
mod net;
mod ops;
mod pages;
mod peer;
mod process;
mod sweep;
mod verdict;
mod world;

use std::sync::Arc;

use commitcast::config::Live;
use commitcast::mutant::Canary;

use self::backend::EXPIRES_SECONDS_MAX;
use self::process::live;
use self::sweep::{Plan, sweep};
use self::world::{Tally, World};
use super::dice;
pub use super::dice::Dice;

const PROMPTS: usize = 3;
const PROMPT_ROOMS: [&str; PROMPTS] = ["doc:d/p0", "doc:d/p1", "doc:d/p2"];
const SESSION_ID: &str = "00000000-0000-4000-9000-000000000001";
const SESSION: &str = "session:00000000-0000-4000-9000-000000000001";
const TICKETS: &str = "tickets";
/// Nobody's room.
const FREE: &str = "free";
/// Another one, of which only the newest events are kept.
const TRIMMED: &str = "trimmed";
const TRIMMED_KEEPS: u64 = 20;
const WORKFLOW: &str = "workflow:w";
const TOPIC: &str = "topic:t";
const CHAT: &str = "chat:c";
/// Clients of workflows that have a name for themselves, and come back under it.
const CLIENTS: [&str; 2] = ["k0", "k1"];
/// Every room that native clients join.
const ROOMS: [&str; 10] =
    [PROMPT_ROOMS[0], PROMPT_ROOMS[1], PROMPT_ROOMS[2], FREE, TRIMMED, SESSION, TICKETS, WORKFLOW, TOPIC, CHAT];
const REACTORS: usize = 2;
/// Rounds without anything new after which time is let pass, a second a round; and after which a run is at its end.
const QUIET: u64 = 4;
const QUIET_AT_LAST: u64 = 14;

/// Who takes part in a run: a few vocabularies at a time meet more often than all of them would.
#[derive(Clone, Copy, Debug)]
struct Cast {
    /// A decision takes many: somebody commands, a backend comes, asks, and is answered.
    steps: usize,
    /// Of ten newcomers, how many are documents clients, native clients, backends, pages; the rest are scripts.
    newcomers: [usize; 4],
    /// Indices in `ROOMS`.
    rooms: &'static [usize],
    /// Rooms with pages.
    pages: &'static [&'static str],
}

const CASTS: [Cast; 6] = [
    Cast { steps: 190, newcomers: [6, 4, 0, 0], rooms: &[0, 1, 2, 3], pages: &[] },
    Cast { steps: 180, newcomers: [0, 7, 1, 1], rooms: &[3, 4, 4, 6], pages: &[TICKETS] },
    Cast { steps: 320, newcomers: [0, 4, 3, 2], rooms: &[5, 5, 5, 3], pages: &[SESSION] },
    Cast { steps: 260, newcomers: [0, 3, 4, 2], rooms: &[5, 5, 6, 3], pages: &[SESSION, TICKETS] },
    Cast { steps: 190, newcomers: [3, 3, 2, 1], rooms: &[0, 1, 3, 4, 5, 6], pages: &[SESSION, TICKETS] },
    Cast { steps: 200, newcomers: [0, 4, 1, 4], rooms: &[7, 7, 8, 9, 3], pages: &[WORKFLOW, WORKFLOW, TOPIC, CHAT] },
];

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    events: usize,
    connections: usize,
    boots: usize,
    /// Handed to a backend at least once.
    tasks: usize,
    decisions: usize,
    /// Events shown to native clients.
    native: usize,
    tally: Tally,
    /// Of all that was said, in both directions.
    trace: u64,
}

/// An error names the promise first.
fn run(seed: u64, live: &Arc<Live>, canary: Canary) -> Result<Run, String> {
    let world = World::new(seed, live, canary);
    let trace = world.trace.clone();
    play(world).map_err(|error| format!("{error}\nits trace: {:016x}", trace.value()))
}

fn play(mut world: World) -> Result<Run, String> {
    for _ in 0..world.cast.steps {
        world.step()?;
    }
    // Joins that race with the last writes: afterwards no event comes that would give away a hole.
    for _ in 0..4 {
        world.dial();
        world.act();
        for _ in 0..12 {
            world.turn_reactor()?;
            world.read_some()?;
            if world.dice.chance(50) {
                world.turn_worker()?;
            }
            world.turn_reader();
        }
    }
    world.heal()?;
    world.leave_and_return()?;
    world.empty()?;
    world.verdict()
}

#[test]
fn no_seed_breaks_a_promise() {
    let plan = Plan::from_environment(500);
    let outcome = sweep(&plan, mutants::asked_for());
    outcome.print(&plan);
    outcome.expect_no_violation();
    outcome.expect_something_happened();
}

/// Who was behind in two rooms and left the one whose page of the log was on its way was not shown the other one's, until
/// something new happened in it (L5): pages were asked for one after the other.
#[test]
fn who_leaves_one_of_two_rooms_it_is_behind_in_catches_up_in_the_other() {
    let live = live();
    for seed in [2_498_371, 2_561_600] {
        let run = run(seed, &live, Canary::default());
        assert!(run.is_ok(), "seed {seed}: {run:?}");
    }
}

/// Nothing in the core decides by chance, by time or by the place of something in memory: else a seed that fails could
/// not be replayed.
#[test]
fn equal_seeds_leave_equal_traces() {
    let traces = || -> Vec<u64> {
        let live = live();
        (1..=24).map(|seed| run(seed, &live, Canary::default()).map_or(0, |run| run.trace)).collect()
    };
    let (one, other) = std::thread::scope(|scope| {
        let other = scope.spawn(traces);
        (traces(), other.join().expect("no panic"))
    });
    assert_eq!(one, other, "on two threads");
    assert_eq!(one, traces(), "twice on one thread");
    assert!(one.windows(2).all(|pair| pair[0] != pair[1]), "a trace tells seeds apart: {one:?}");
}

const _: () = assert!(QUIET_AT_LAST - QUIET > EXPIRES_SECONDS_MAX as u64, "whatever has a deadline has met it");
