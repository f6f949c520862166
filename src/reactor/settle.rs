//! Step 7: everybody who was touched is settled: rooms left, the sending side shut, the slot freed, interest and deadline
//! renewed. Nothing leaves the table anywhere else, so that no id dies in the middle of a turn.

use super::Reactor;
use super::poller::{Poller, Transport};
use super::table::{Memberships, Table};
use crate::ids::ConnId;

impl<P: Poller> Reactor<P> {
    pub(super) fn settle(&mut self) {
        loop {
            let mut touched = Vec::new();
            self.table.take_touched(&mut touched);
            for id in touched {
                self.settle_one(id);
            }
            // Whoever was closed for what he held is settled too, or nobody would before something else happens.
            if !self.shed() {
                break;
            }
        }
    }

    fn settle_one(&mut self, id: ConnId) {
        let Some(entry) = self.table.reach(id) else { return };
        if entry.conn.must_shut(self.now.0) {
            entry.socket.shut();
        }
        if entry.ended && entry.conn.is_closing() && entry.conn.outbox.is_empty() {
            entry.conn.die();
        }
        let memberships = match entry.conn.is_closing() {
            true => std::mem::take(&mut entry.memberships),
            false => Memberships::None,
        };
        if entry.conn.outbox.is_empty() {
            self.wiring.responses.release(std::mem::take(&mut entry.response_bytes) as usize);
        }
        let gone = entry.conn.is_closing() && std::mem::take(&mut entry.takes);
        self.weigh(id);
        for (room, member) in memberships.as_slice() {
            self.depart(id, *room, *member);
        }
        if gone {
            self.gone(id);
        }
        let Some(entry) = self.table.reach(id) else { return };
        if entry.conn.is_dead() {
            self.bury(id);
            return;
        }
        let wants = entry.conn.wants();
        if entry.registered != Some(wants) {
            let was = entry.registered.replace(wants);
            if let Err(error) = self.poller.arm(&mut entry.socket, Table::<P::Socket>::token(id), was, Some(wants)) {
                log::warn!("{id}: the poller refused it: {error}");
                entry.conn.die();
                self.bury(id);
                return;
            }
        }
        if entry.unread && entry.conn.accepts(&self.live.limits) && entry.is_carried_anew() {
            self.carry.push(id);
        }
        if let Some(at) = entry.conn.look_again(self.now, &self.live.limits) {
            let tick = self.deadlines.tick_of(at);
            if entry.armed == 0 || tick < entry.armed {
                entry.armed = tick;
                self.deadlines.enter(id, tick);
            }
        }
    }

    fn bury(&mut self, id: ConnId) {
        let memberships = self.table.reach(id).map(|entry| std::mem::take(&mut entry.memberships)).unwrap_or_default();
        for (room, member) in memberships.as_slice() {
            self.depart(id, *room, *member);
        }
        self.weigh(id);
        let Some(mut entry) = self.table.remove(id) else { return };
        self.counts.ended += 1;
        if entry.takes {
            self.gone(id);
        }
        self.wiring.responses.release(entry.response_bytes as usize);
        if let Some(place) = entry.guest.take() {
            self.wiring.guests.leave(place, entry.client);
        }
        let was = entry.registered;
        if let Err(error) = self.poller.arm(&mut entry.socket, Table::<P::Socket>::token(id), was, None) {
            log::debug!("{id}: {error}");
        }
    }
}
