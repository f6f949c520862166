//! What other threads want of this reactor's connections: the list of them, and one closed.

use super::membership::is_watchers;
use super::poller::Poller;
use super::{Inbound, Reactor};
use crate::conn::Phase;
use crate::dialect::{self, ConnView, Failure, Reply};
use crate::http::{Reason, Reject, Response};
use crate::ids::ConnId;
use crate::mailbox::{Full, Sender};
use crate::store::{Answer, Delivery};
use crate::ws::Close;

impl<P: Poller> Reactor<P> {
    /// Everybody who is open here. A reader waits for the list; one that gave up is not there any more.
    pub(super) fn tell_census(&self, to: &Sender<Vec<ConnView>>) {
        let _ = to.try_send(self.table.ids().into_iter().filter_map(|id| self.view(id)).collect());
    }

    fn view(&self, id: ConnId) -> Option<ConnView> {
        let entry = self.table.peek(id)?;
        let Phase::Open(open) = entry.conn.phase() else { return None };
        let rooms = entry.memberships.as_slice().iter().filter_map(|(key, _)| self.hub.room(*key));
        let age = i64::try_from(entry.conn.age(self.now.0).as_micros()).unwrap_or(i64::MAX);
        Some(ConnView {
            id,
            session: open.session.clone(),
            user: open.actor.clone(),
            client: entry.client,
            connected_at: crate::clock::Wall(self.now.1.0.saturating_sub(age)),
            rooms: rooms.map(|room| room.name().clone()).filter(|room| !is_watchers(room)).collect(),
        })
    }

    /// Somebody wants `conn` closed, here or on another reactor.
    pub(super) fn evict(&mut self, id: ConnId, conn: ConnId, reason: String) {
        if conn.reactor == self.wiring.index {
            let found = self.close_evicted(conn, reason);
            self.answer_request(id, &dialect::evicted(found));
            return;
        }
        let posted = match self.wiring.peers.get_mut(usize::from(conn.reactor)) {
            None => {
                self.answer_request(id, &dialect::evicted(false));
                return;
            }
            Some(peer) => peer.post(Inbound::Evict { conn, reason, to: id }),
        };
        let Some(entry) = self.table.touch(id) else { return };
        match posted {
            Ok(()) => entry.conn.asked(true, self.now.0),
            Err(Full(_)) => self.answer_request(id, &Response::reject(&Failure::Busy.reject())),
        }
    }

    /// The same, asked for by another reactor's client.
    pub(super) fn take_eviction(&mut self, conn: ConnId, reason: String, to: ConnId) {
        let found = self.close_evicted(conn, reason);
        let reply = Reply::Response(Box::new(dialect::evicted(found)));
        if let Some(peer) = self.wiring.peers.get_mut(usize::from(to.reactor)) {
            // Full: the asker is told that nobody answered in time, which is true.
            let _ = peer.post(Inbound::Store(Delivery::Answer(Answer { to, reply })));
        }
    }

    fn close_evicted(&mut self, conn: ConnId, reason: String) -> bool {
        let open = self.table.peek(conn).is_some_and(|entry| entry.conn.is_open());
        if open {
            self.close_with(conn, Close::refusing(&Reject::new(Reason::Evicted, reason)));
        }
        open
    }
}
