//! Everybody's credential is looked at again, because something was revoked or the configuration's keys have changed.
//!
//! A walk over all connections, a slice a turn: the message that asks for it comes with each revocation, and the walk is
//! made once for all that came meanwhile. Nobody slips through: whoever comes in after the change was judged by it at the
//! door, and whoever came before is in the table when the walk begins, also one whose handshake still waits for the store.
//!
//! Not looked at again: the page's origin, `aud`, `iss` and `exp` rules. They are the door's (a page that is taken off
//! `origins.allow` holds sockets of users whose tokens are still good), and would have to be kept for each connection.

use std::sync::Arc;
use std::time::Duration;

use super::Reactor;
use super::poller::Poller;
use crate::auth;
use crate::auth::rights::{Rights, Verb};
use crate::conn::Phase;
use crate::dialect::Name;
use crate::http::{Reason, Reject};
use crate::ids::ConnId;
use crate::limits::RECHECKS_PER_TURN;
use crate::ws::Close;

/// Between two walks, so that a thousand revocations a second are not a thousand walks. Whoever is revoked is to be gone
/// within five seconds (PROMISES.md S4).
const RECHECK_PAUSE: Duration = Duration::from_millis(250);

impl<P: Poller> Reactor<P> {
    pub(super) fn recheck_soon(&mut self) {
        // The word of new settings may overtake the settings that this turn began with.
        self.take_settings();
        self.recheck_at.get_or_insert(self.now.0.max(self.recheck_rest));
    }

    /// A slice of the walk under way, or the first one of the next.
    pub(super) fn recheck(&mut self) {
        if self.to_recheck.is_empty() && self.recheck_at.is_some_and(|at| at <= self.now.0) {
            self.to_recheck = self.table.ids();
            self.recheck_at = None;
            self.recheck_rest = self.now.0.after(RECHECK_PAUSE);
        }
        let left = self.to_recheck.len().saturating_sub(RECHECKS_PER_TURN);
        for id in self.to_recheck.split_off(left) {
            self.recheck_one(id);
        }
    }

    fn recheck_one(&mut self, id: ConnId) {
        let Some(entry) = self.table.peek(id) else { return };
        let revoked = &self.wiring.env.revoked;
        match entry.conn.phase() {
            Phase::Open(open) => {
                let policy = self.live.policy(open.session.dialect());
                if let Some(key) = open.session.key() {
                    if let Err(reject) = auth::recheck_key(policy, key) {
                        self.dismiss_unbelieved(id, &reject);
                    }
                } else if open.session.is_authenticated() {
                    match auth::recheck(policy, &open.actor, open.proof.as_deref(), revoked) {
                        Ok(rights) => self.regrant(id, rights),
                        Err(reject) => self.dismiss_unbelieved(id, &reject),
                    }
                }
            }
            Phase::Asked(asked) => {
                let checked = match (&asked.handshake, &asked.key) {
                    (Some(handshake), _) => {
                        let (policy, principal) = (self.live.policy(handshake.dialect), &handshake.principal);
                        auth::recheck(policy, &principal.user, principal.proof.as_deref(), revoked).map(|_| ())
                    }
                    // What else was asked is answered in a moment; a poll may wait for a minute, and be given a task then.
                    (None, Some(key)) if entry.takes => auth::recheck_key(self.live.policy(Name::Native), key),
                    (None, _) => Ok(()),
                };
                if let Err(reject) = checked {
                    self.refuse_asked(id, &reject);
                }
            }
            Phase::Head { .. } | Phase::Closing { .. } | Phase::Dead => {}
        }
    }

    fn dismiss_unbelieved(&mut self, id: ConnId, reject: &Reject) {
        self.close_with(id, Close::new(reject.row().close, reject.row().name));
    }

    fn refuse_asked(&mut self, id: ConnId, reject: &Reject) {
        let Some(entry) = self.table.touch(id) else { return };
        if std::mem::take(&mut entry.takes) {
            entry.conn.answered(self.now.0);
            self.gone(id);
        }
        self.turn_away(id, reject);
    }

    /// The configuration's default rights may have changed, or the mode. A native client leaves what it may no longer read
    /// and is told so; the others' sockets are for one room, and end with it.
    fn regrant(&mut self, id: ConnId, rights: Arc<Rights>) {
        let Some(entry) = self.table.touch(id) else { return };
        if !entry.conn.regrant(rights) {
            return;
        }
        let Some(open) = entry.conn.open() else { return };
        if open.session.dialect() == Name::Native {
            self.leave_forbidden(id);
            return;
        }
        let rooms = entry.memberships.as_slice().iter().filter_map(|(key, _)| self.hub.room(*key));
        if rooms.into_iter().any(|room| !open.rights.allows(room.name().as_str(), Verb::Read)) {
            let reject = Reject::new(Reason::Forbidden, "reading this room is not granted any more");
            self.close_with(id, Close::refusing(&reject));
        }
    }
}
