//! Faults that are built into the core on purpose, one at a time, to see that the simulation notices each (PROMISES.md
//! 4.2). Only with the feature `canary`; without it a [`Canary`] is nothing, and the compiler answers every question to it.

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Events go out before their commit.
    BroadcastBeforeCommit,
    /// Answers go out before the commit.
    AckBeforeCommit,
    /// A commit of unknown outcome is answered like one that certainly failed.
    UnknownIsRefused,
    /// After a commit of unknown outcome the writer goes on.
    WritesAfterUnknown,
    /// An operation that is stored is carried out again when it is sent again.
    NoDeduplication,
    /// A resend that meets its original in the same batch is not answered.
    DuplicateInFlightDropped,
    /// Seqs are not given back with a rollback.
    SeqOutsideTransaction,
    /// Who resumes is not shown the first event that it missed.
    ResumeSkipsOne,
    /// Who resumes is shown the last event again that it has seen.
    ResumeRepeatsOne,
    /// Who resumes in another epoch is believed.
    WrongEpochAccepted,
    /// Who resumes below the floor is given what is left, as if it were all.
    PartialFill,
    /// Where a room stands is remembered although it was trimmed.
    StandOutlivesTrim,
    /// The history is read first, and the directory entered afterwards.
    HistoryBeforeRegistering,
    /// What is not in memory is not read from the log either.
    GapDelivered,
    /// A turn's events are not kept for those whose sockets take nothing.
    SlowReaderLosesMiddle,
    /// A turn's events go out in the wrong order.
    EventsSwapped,
    /// Draining does not wait for the answers that are under way.
    DrainForgets,
    /// A decision is taken although there is one.
    SecondDecision,
    /// What has expired is armed again.
    ExpiresTwice,
    /// A task goes out twice under one fence.
    FenceGivenTwice,
    /// Who has lost a task may still publish in its name.
    StaleFenceAccepted,
    /// How far an absent client has seen a room is not written down.
    MarksForgotten,
    /// Not a fault: what two commits deliver is handed on in the wrong order, which members must put right by themselves.
    DeliveriesSwapped,
}

/// The mutant that this core is, if it is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Canary {
    #[cfg(feature = "canary")]
    mutant: Option<Mutant>,
}

impl Canary {
    #[cfg(feature = "canary")]
    pub fn of(mutant: Mutant) -> Canary {
        Canary { mutant: Some(mutant) }
    }

    /// Is the core broken in this way? Never without the feature.
    #[inline]
    pub fn is(self, mutant: Mutant) -> bool {
        #[cfg(feature = "canary")]
        return self.mutant == Some(mutant);
        #[cfg(not(feature = "canary"))]
        {
            let _ = mutant;
            false
        }
    }
}
