//! Cores that are broken on purpose: the suite must notice each, by the promise that is broken. One that survives shows what
//! the checkers or the traffic do not reach.

use commitcast::mutant::Canary;
#[cfg(feature = "canary")]
use commitcast::mutant::Mutant::{self, *};

#[cfg(feature = "canary")]
use super::sweep::{Plan, sweep};

/// The one named in the environment; mostly none.
pub fn asked_for() -> Canary {
    let Ok(name) = std::env::var("SIM_MUTANT") else { return Canary::default() };
    #[cfg(feature = "canary")]
    if let Some((mutant, _)) = LETHAL.iter().find(|(mutant, _)| format!("{mutant:?}") == name) {
        return Canary::of(*mutant);
    }
    panic!("there is no mutant {name} in this build");
}

/// Each with the promises by which it may be noticed.
#[cfg(feature = "canary")]
const LETHAL: &[(Mutant, &[&str])] = &[
    (BroadcastBeforeCommit, &["G1"]),
    (AckBeforeCommit, &["G2", "G7"]),
    (UnknownIsRefused, &["G3"]),
    (WritesAfterUnknown, &["G11"]),
    (NoDeduplication, &["G5"]),
    (DuplicateInFlightDropped, &["L1", "L5"]),
    (SeqOutsideTransaction, &["G4"]),
    (ResumeSkipsOne, &["G4", "G6"]),
    (ResumeRepeatsOne, &["G4", "G6"]),
    (WrongEpochAccepted, &["G6"]),
    (PartialFill, &["G4", "G6"]),
    (StandOutlivesTrim, &["G6"]),
    (HistoryBeforeRegistering, &["G4", "G6", "L5"]),
    (GapDelivered, &["G4", "G6", "L5"]),
    (SlowReaderLosesMiddle, &["G4", "G6"]),
    (EventsSwapped, &["G4", "G6"]),
    (DrainForgets, &["L6"]),
    (SecondDecision, &["G7"]),
    (ExpiresTwice, &["G7"]),
    (FenceGivenTwice, &["G7"]),
    (StaleFenceAccepted, &["G7"]),
    (MarksForgotten, &["G6"]),
];
#[cfg(feature = "canary")]
const SEEDS_MAX: u64 = 20_000;

#[cfg(feature = "canary")]
#[test]
fn every_mutant_is_killed() {
    let mut survivors = Vec::new();
    for (mutant, promises) in LETHAL {
        let outcome = sweep(&Plan::of(SEEDS_MAX), Canary::of(*mutant));
        let Some((seed, error)) = outcome.failure else {
            survivors.push(format!("{mutant:?} survives {SEEDS_MAX} seeds"));
            continue;
        };
        let rule = error.split(':').next().unwrap_or_default();
        println!("behaviour: mutant {mutant:?} killed at seed {seed} by {rule} in {:.1} s", outcome.took.as_secs_f64());
        if !rule.split('/').any(|rule| promises.contains(&rule)) {
            survivors.push(format!("{mutant:?} is killed at seed {seed}, but not by {promises:?}: {error}"));
        }
    }
    assert!(survivors.is_empty(), "{survivors:#?}");
}

/// Members put right by themselves what comes to them in a wrong order (G10: whatever brings an event is only a hint).
#[cfg(feature = "canary")]
#[test]
fn deliveries_in_the_wrong_order_are_put_right() {
    let outcome = sweep(&Plan::of(300), Canary::of(DeliveriesSwapped));
    assert_eq!(outcome.failure, None);
}
