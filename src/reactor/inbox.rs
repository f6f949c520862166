//! Step 3: what other threads have posted: sockets, deliveries, orders.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::Reactor;
use super::membership::PAGES_KEPT;
use super::poller::Poller;
use crate::conn::Connection;
use crate::dialect::Signal;
use crate::http::{Reason, Reject};
use crate::ids::ConnId;
use crate::limits::{DRAIN_GRACE, INBOX_BUDGET};
use crate::room::Look;
use crate::store::{Delivery, Page};

#[derive(Debug)]
pub enum Inbound<S> {
    Socket {
        socket: S,
        peer: SocketAddr,
        listener: u8,
    },
    Store(Delivery),
    /// A client of another reactor wants a connection of this one closed.
    Evict {
        conn: ConnId,
        reason: String,
        to: ConnId,
    },
    /// Count one: who asks wants to know whether this thread moves.
    Probe(Arc<AtomicUsize>),
    Control(Control),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Answer what was asked, tell everybody to go within the window, end when the last one has gone.
    Drain { window: Duration },
    /// End now.
    Stop,
}

impl<S> From<Delivery> for Inbound<S> {
    fn from(delivery: Delivery) -> Inbound<S> {
        Inbound::Store(delivery)
    }
}

impl<P: Poller> Reactor<P> {
    pub(super) fn take_inbox(&mut self) {
        self.wiring.inbox.open();
        for _ in 0..INBOX_BUDGET {
            let Some(item) = self.wiring.inbox.take() else { break };
            match item {
                Inbound::Socket { socket, peer, listener } => self.welcome_socket(socket, peer, listener),
                Inbound::Store(delivery) => self.take_delivery(delivery),
                Inbound::Evict { conn, reason, to } => self.take_eviction(conn, reason, to),
                Inbound::Probe(answered) => {
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Inbound::Control(Control::Drain { window }) => self.begin_draining(window),
                Inbound::Control(Control::Stop) => self.stopped = true,
            }
        }
        // First what the reactor itself owes, or clients who wait would take every place there is.
        self.pay_owed();
        self.feed_the_starved();
    }

    fn welcome_socket(&mut self, socket: P::Socket, peer: SocketAddr, listener: u8) {
        let conn = Connection::new(self.now.0);
        let Some(id) = self.table.insert(socket, conn, peer.ip(), listener) else {
            log::error!("every slot of reactor {} is taken: {peer} was dropped", self.wiring.index);
            self.counts.ended += 1;
            return;
        };
        self.counts.accepted += 1;
        if self.draining {
            // It was accepted before the listener stopped; nobody else will tell it to go.
            self.leave_after(id, Duration::ZERO);
        }
    }

    fn take_delivery(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Batch { committed, signals, answers, pushes } => {
                // Answers first: a sender's status is queued before anybody is shown the event.
                for answer in answers {
                    self.take_answer(answer.to, answer.reply);
                }
                for event in committed {
                    self.hub.accept(event);
                }
                for signal in signals {
                    self.send_signal(signal);
                }
                for push in pushes {
                    // Whoever is gone by now said so to the store, which gives what it held to others.
                    if self.table.peek(push.to).is_some_and(|entry| entry.conn.is_open()) {
                        self.queue(push.to, push.frame);
                    }
                }
            }
            Delivery::Answer(answer) => self.take_answer(answer.to, answer.reply),
            Delivery::Page(page) => self.take_page(page),
            Delivery::Signal(signal) => self.send_signal(signal),
            Delivery::Census(to) => self.tell_census(&to),
            Delivery::Recheck => self.recheck_soon(),
            Delivery::Broken => self.abandon_ship(),
        }
    }

    /// A page for members that are behind: everybody who waited looks again.
    fn take_page(&mut self, page: Page) {
        let Some(key) = self.hub.find(page.room()) else { return };
        let (after, listeners, reset, failed) = (page.after(), page.listeners(), page.reset().cloned(), page.failed());
        let nothing = !failed && reset.is_none() && page.is_empty();
        let waiting = self.hub.accept_page(key, page);
        let Some(room) = self.hub.room_mut(key) else { return };
        let mut shown = Vec::new();
        let mut lost = Vec::new();
        for member in waiting {
            let Some((conn, dialect)) = room.member(member).map(|member| (member.conn, member.dialect)) else {
                continue;
            };
            // A page that was not framed for its dialect says nothing to it: it asks again.
            let framed = listeners & dialect.bit() != 0;
            match &reset {
                Some(reset) if framed && room.next_of(member).is_some_and(|next| next.0 <= after.0 + 1) => {
                    shown.push((conn, room.reset(member, reset.seq, &reset.frames)));
                }
                None if nothing
                    && framed
                    && room.next_of(member) == Some(after.next())
                    && matches!(room.look(member), Look::Missing) =>
                {
                    lost.push(conn)
                }
                _ => shown.push((conn, None)),
            }
        }
        if failed {
            // Asking again at once would only spin on a store in trouble: the client comes back, to a snapshot.
            for (conn, _) in shown {
                self.close_with(conn, crate::ws::Close::OVERLOADED);
            }
            return;
        }
        for (conn, frame) in shown {
            if let (Some(frame), Some(entry)) = (frame, self.table.touch(conn)) {
                entry.conn.outbox.push(self.packer.reply(frame, entry.conn.window()));
            }
            // At once: pages that come in the same turn must not push each other out before they were read in.
            self.pull(conn);
        }
        for conn in lost {
            // The log does not hold what it held: the client comes back and is given a snapshot.
            self.close_with(conn, crate::ws::Close::POSITION_LOST);
        }
        self.forget_at.get_or_insert(self.now.0.after(PAGES_KEPT));
        self.counts.lagging_reads += 1;
    }

    /// A volatile frame: at the end of the turn, with what else is said in its room, for whoever can take it then.
    pub(super) fn send_signal(&mut self, signal: Signal) {
        if let Some(full) = self.hub.signal(signal) {
            self.flush_signals(full);
        }
    }

    fn begin_draining(&mut self, window: Duration) {
        if std::mem::replace(&mut self.draining, true) {
            return;
        }
        // In the order of a hash, at even steps over the window: all of them at once would come back all at once, and in the
        // order of their slots those who came together would go together.
        let mut ids = self.table.ids();
        ids.sort_by_key(|id| id.pack().wrapping_mul(0x9e37_79b9_7f4a_7c15).swap_bytes());
        let step = window / u32::try_from(ids.len().max(1)).unwrap_or(u32::MAX);
        self.newcomers_until = self.now.0.after(DRAIN_GRACE);
        let leaving = ids.into_iter().enumerate().rev();
        let leaving = leaving.map(|(rank, id)| (self.now.0.after(step.saturating_mul(rank as u32)), id)).collect();
        self.leaving = leaving;
    }

    /// The store has failed for good. What its commit did is for the next process to find out.
    fn abandon_ship(&mut self) {
        self.wiring.status.store_broke();
        let reject = Reject::new(Reason::StoreBroken, "the store has failed");
        for id in self.table.ids() {
            let at_rest = self.table.peek(id).is_some_and(|entry| entry.conn.is_at_rest());
            match at_rest {
                true => self.hang_up(id, "the store has failed"),
                false => self.turn_away(id, &reject),
            }
        }
    }
}
