//! What all connections of a reactor hold together: the books, and who is closed when they show too much.
//!
//! Each connection has bounds of its own (`limits.outbox`, `limits.message`), but ten thousand times a megabyte is not bounded
//! by anything that a machine has (PROMISES.md I2). So each reactor has a share of the process's, and keeps books of its
//! own: no other thread looks at them, and no lock stands on the way of a byte. A connection is weighed where it is settled,
//! and right after it was read from when something was left over.
//!
//! *Who is closed.* Those that hold most, because nobody else's end frees as much, and never the last one that holds
//! anything: one reply or message, as long as it may be, fits whatever the share. For replies the code is 4008, as for
//! everybody who does not take what he asked for. For messages begun it is 1013: none of these clients has broken a rule, so
//! 1009 would be wrong (the message is not too big, and the client would not send it again), and they are to come back when
//! there is room.
//!
//! *Rejected:* to stop reading everybody instead. Then those who would finish their message cannot, and sixty-four of whoever
//! never does stop the reactor for as long as they like.

use super::Reactor;
use super::poller::Poller;
use crate::conn::Phase;
use crate::http::{Reason, Reject};
use crate::ids::ConnId;
use crate::limits::SHARE_FREED;
use crate::ws::Close;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Outboxes,
    Unfinished,
}

impl<P: Poller> Reactor<P> {
    /// Brings the books up to what this connection holds now.
    pub(super) fn weigh(&mut self, id: ConnId) {
        let Some(entry) = self.table.reach(id) else { return };
        // Responses have a share of their own, in which room was taken when they were made.
        let waiting = entry.conn.outbox.held().saturating_sub(entry.response_bytes as usize);
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        self.counts.outbox_bytes += i64::from(waiting) - i64::from(std::mem::replace(&mut entry.gauged, waiting));
        self.counts.unfinished_bytes += entry.conn.weigh();
    }

    /// Closes those who hold most while all together hold more than they may. Says whether anybody was.
    pub(super) fn shed(&mut self) -> bool {
        let outboxes = self.is_over(Kind::Outboxes) && self.shed_kind(Kind::Outboxes);
        let unfinished = self.is_over(Kind::Unfinished) && self.shed_kind(Kind::Unfinished);
        outboxes || unfinished
    }

    /// What is held of this kind, and what may be.
    fn books(&self, kind: Kind) -> (usize, usize) {
        let (held, share) = match kind {
            Kind::Outboxes => (self.counts.outbox_bytes, self.shares.outboxes),
            Kind::Unfinished => (self.counts.unfinished_bytes, self.shares.unfinished),
        };
        (usize::try_from(held).unwrap_or(0), share)
    }

    fn is_over(&self, kind: Kind) -> bool {
        let (held, share) = self.books(kind);
        held > share
    }

    fn shed_kind(&mut self, kind: Kind) -> bool {
        if kind == Kind::Outboxes {
            self.hand_out();
            if !self.is_over(kind) {
                return false;
            }
        }
        let share = self.books(kind).1;
        let enough = share - share / SHARE_FREED;
        let holders = self.table.heaviest(|entry| match kind {
            Kind::Outboxes => entry.gauged,
            Kind::Unfinished => entry.conn.weighed(),
        });
        let others = holders.len().saturating_sub(1);
        let mut closed = 0;
        for (_, id) in holders.into_iter().take(others) {
            if self.books(kind).0 <= enough {
                break;
            }
            match kind {
                Kind::Outboxes => self.close_slow(id),
                Kind::Unfinished => self.close_unfinished(id),
            }
            self.weigh(id);
            closed += 1;
        }
        if closed > 0 {
            log::warn!("{closed} connections were closed: all together held more than {share} bytes of {kind:?}");
        }
        closed > 0
    }

    /// What was queued this turn and not offered to its socket yet is nobody's backlog.
    fn hand_out(&mut self) {
        let owed = self.unflushed.clone();
        self.pull_unflushed();
        for id in owed {
            self.weigh(id);
        }
    }

    fn close_slow(&mut self, id: ConnId) {
        self.wiring.status.metrics.shed("outboxes");
        self.close_with(id, Close::TOO_SLOW);
        self.hang_up(id, "it takes too little of what waits for it");
    }

    fn close_unfinished(&mut self, id: ConnId) {
        self.wiring.status.metrics.shed("unfinished");
        match self.table.peek(id).map(|entry| entry.conn.phase()) {
            Some(Phase::Open(_)) => self.close_with(id, Close::OVERLOADED),
            Some(_) => {
                self.turn_away(id, &Reject::new(Reason::Overloaded, "too many requests are begun and not finished"))
            }
            None => {}
        }
    }
}
