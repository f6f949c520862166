//! Joining and leaving rooms, and what rooms hear of their members: presence, signals, how far each has seen.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::poller::Poller;
use super::{Inbound, Reactor};
use crate::auth::rights::Verb;
use crate::auth::{self, Once, Shown};
use crate::clock::Mono;
use crate::dialect::{self, Asker, Change, Denial, Desk, Frames, Intent, Name, Session, Signal, Start, Write};
use crate::http::{Reason, Reject};
use crate::ids::{ConnId, RoomName, Seq};
use crate::mailbox::Full;
use crate::mutant::Mutant;
use crate::room::{MemberKey, RoomKey};
use crate::store::{Delivery, Job};
use crate::ws::{self, Close};

/// How often pages of the log in which nobody reads any more are forgotten. Not at once: clients that come back after a
/// restart come from the same place within seconds, and the log is read once for all of them.
pub(super) const PAGES_KEPT: Duration = Duration::from_secs(2);
/// Who comes and goes is told at most this often.
const PRESENCE_PAUSE: Duration = Duration::from_millis(100);
/// How far clients have seen a room is written down at most this often; what a killed server had not written down, they
/// are shown again.
const MARK_PAUSE: Duration = Duration::from_millis(100);
/// What no room of a client's can be called: the room of those who watch another room's presence.
const WATCHERS: &str = "presence ";

impl<P: Poller> Reactor<P> {
    // ---- in and out -----------------------------------------------------------------------------------------------------

    /// Adds a membership that is shown nothing before it is started.
    pub(super) fn join(&mut self, id: ConnId, room: &RoomName, session: &Session) {
        if !self.wiring.env.canary.is(Mutant::HistoryBeforeRegistering) {
            self.register(id, room, session);
        }
    }

    fn register(&mut self, id: ConnId, room: &RoomName, session: &Session) {
        let (index, bit) = (self.wiring.index, session.dialect().bit());
        let receipt = (self.hub.entered(room) & bit == 0)
            .then(|| self.wiring.directory.enter(room, index, self.hub.entered(room) | bit));
        let Some(membership) = self.hub.join(room, receipt, id, session.dialect(), session.hears_itself()) else {
            return;
        };
        if let Some(entry) = self.table.touch(id) {
            entry.memberships.add(membership);
        }
        self.count_members(membership.0);
    }

    pub(super) fn join_in_band(&mut self, id: ConnId, room: &RoomName) {
        if let Some(session) = self.table.peek(id).and_then(|entry| entry.conn.open()).map(|open| open.session.clone())
        {
            self.join(id, room, &session);
        }
    }

    /// It is in as many rooms as it may be, or this would be a room more than there may be; and it is not in it already.
    pub(super) fn is_full(&self, id: ConnId, room: &RoomName) -> bool {
        let Some(entry) = self.table.peek(id) else { return false };
        // Watching a room's presence is a membership of our making.
        let real = entry
            .memberships
            .as_slice()
            .iter()
            .filter(|(key, _)| self.hub.room(*key).is_some_and(|room| !is_watchers(room.name())));
        let is_one_too_many = self.hub.rooms().saturating_sub(self.table.len()) >= self.shares.rooms;
        let is_full = real.count() >= self.live.limits.rooms || is_one_too_many && self.hub.find(room).is_none();
        is_full && self.membership(id, room).is_none()
    }

    pub(super) fn is_member(&self, id: ConnId, room: &RoomName) -> bool {
        self.membership(id, room).is_some()
    }

    fn membership(&self, id: ConnId, room: &RoomName) -> Option<(RoomKey, MemberKey)> {
        let key = self.hub.find(room)?;
        self.table.peek(id)?.memberships.as_slice().iter().find(|(room, _)| *room == key).copied()
    }

    /// The answer to a join has come: its members are shown what follows.
    pub(super) fn start_all(&mut self, id: ConnId, starts: &[Start]) {
        for start in starts {
            self.register_late(id, &start.room);
            let Some((key, member)) = self.membership(id, &start.room) else { continue };
            let Some(room) = self.hub.room_mut(key) else { continue };
            room.start(member, start.after, start.head);
            self.appear(id, key);
        }
        self.owe(id);
    }

    /// One mutant enters the directory when it is too late.
    fn register_late(&mut self, id: ConnId, room: &RoomName) {
        if self.wiring.env.canary.is(Mutant::HistoryBeforeRegistering)
            && !self.is_member(id, room)
            && let Some(session) = self.table.peek(id).and_then(|it| it.conn.open()).map(|open| open.session.clone())
        {
            self.register(id, room, &session);
        }
    }

    /// A membership for a room's signals: of its log it is shown nothing.
    pub(super) fn start_for_signals(&mut self, id: ConnId, room: &RoomName) {
        let Some((key, member)) = self.membership(id, room) else { return };
        if let Some(room) = self.hub.room_mut(key) {
            let end = room.end();
            room.start(member, end, end);
        }
    }

    fn appear(&mut self, id: ConnId, key: RoomKey) {
        let Some(open) = self.table.peek(id).and_then(|entry| entry.conn.open()) else { return };
        let Some(room) = self.hub.room_mut(key) else { return };
        if dialect::keeps_marks(room.name()) && open.session.seen_as().is_some() {
            room.keep_marks();
        }
        if open.session.is_present() {
            self.wiring.presence.enter(room.name(), &open.actor);
            self.tell_presence();
        }
    }

    /// Leaves a room, if it is in it.
    pub(super) fn leave(&mut self, id: ConnId, room: &RoomName) {
        let Some((key, member)) = self.membership(id, room) else { return };
        if let Some(entry) = self.table.touch(id) {
            entry.memberships.remove(key);
        }
        self.depart(id, key, member);
        let watchers = watchers_of(room);
        if self.membership(id, &watchers).is_some() {
            self.leave(id, &watchers);
        }
    }

    /// Undoes joins whose question was not answered with a welcome.
    pub(super) fn leave_unstarted(&mut self, id: ConnId) {
        let Some(entry) = self.table.peek(id) else { return };
        let joining =
            |(key, member): &&(RoomKey, MemberKey)| self.hub.room(*key).is_some_and(|room| room.is_joining(*member));
        let unstarted: Vec<(RoomKey, MemberKey)> =
            entry.memberships.as_slice().iter().filter(joining).copied().collect();
        for (key, member) in unstarted {
            if let Some(entry) = self.table.touch(id) {
                entry.memberships.remove(key);
            }
            self.depart(id, key, member);
        }
    }

    /// What a room loses with a member. The membership is already taken from the connection.
    pub(super) fn depart(&mut self, id: ConnId, key: RoomKey, member: MemberKey) {
        let who = self.table.peek(id).and_then(|entry| entry.conn.identity());
        if let Some((session, actor)) = who
            && let Some(room) = self.hub.room(key)
            && let Some(next) = room.next_of(member)
        {
            let name = room.name().clone();
            if let Some(watched) = name.as_str().strip_prefix(WATCHERS) {
                self.wiring.presence.unwatch(&RoomName::new(watched));
            } else if session.is_present() {
                self.wiring.presence.leave(&name, &actor);
                self.tell_presence();
            }
            if dialect::keeps_marks(&name)
                && let Some(client) = session.seen_as()
            {
                let seen = vec![(client, Seq(next.0.saturating_sub(1)))];
                self.owed.push_back(dialect::seen(&name, seen));
            }
        }
        match self.hub.leave(key, member) {
            Some(receipt) => self.wiring.directory.leave(receipt, self.wiring.index),
            None => self.count_members(key),
        }
    }

    fn count_members(&self, key: RoomKey) {
        if let Some(room) = self.hub.room(key) {
            self.wiring.directory.set_members(room.name(), self.wiring.index, room.len());
        }
    }

    // ---- presence -------------------------------------------------------------------------------------------------------

    /// Who is there now, and from now on who comes and goes.
    pub(super) fn watch(&mut self, id: ConnId, room: &RoomName) {
        let watchers = watchers_of(room);
        // Asking again is leaving and coming back.
        self.leave(id, &watchers);
        self.join_in_band(id, &watchers);
        self.start_for_signals(id, &watchers);
        let here = self.wiring.presence.watch(room);
        self.queue(id, dialect::presence(room, &here, &[]));
    }

    fn tell_presence(&mut self) {
        self.presence_at.get_or_insert(self.now.0.after(PRESENCE_PAUSE));
    }

    fn tell_changes(&mut self) {
        let (directory, peers) = (&self.wiring.directory, &mut self.wiring.peers);
        let all = self.wiring.presence.tell_changes(|(room, joined, left)| {
            let watchers = watchers_of(room);
            let mut frames = Frames::default();
            frames.set(Name::Native, dialect::presence(room, joined, left));
            let audience = directory.audiences([&watchers].into_iter());
            // By mailbox to ourselves too, or we would overtake what another reactor has told us.
            audience.iter().flat_map(|audience| audience.reactors()).all(|reactor| match peers.get_mut(reactor) {
                Some(peer) => {
                    let signal = Signal { room: watchers.clone(), frames: frames.clone(), from: None };
                    peer.post(Inbound::Store(Delivery::Signal(signal))).is_ok()
                }
                None => true,
            })
        });
        if !all {
            self.tell_presence();
        }
    }

    // ---- signals --------------------------------------------------------------------------------------------------------

    /// A client says something that is not state.
    pub(super) fn say(&mut self, id: ConnId, room: &RoomName, data: &Bytes) {
        let Some(open) = self.table.peek(id).and_then(|entry| entry.conn.open()) else { return };
        let signal = dialect::signal(room, &open.actor, data, id);
        self.broadcast(signal);
    }

    /// To every reactor that has members of the room. A full mailbox drops it: it is not state.
    fn broadcast(&mut self, signal: Signal) {
        let audience = self.wiring.directory.audiences([&signal.room].into_iter());
        let reactors: Vec<usize> = audience.iter().flat_map(|audience| audience.reactors()).collect();
        for reactor in reactors {
            if reactor == usize::from(self.wiring.index) {
                self.send_signal(signal.clone());
            } else if let Some(peer) = self.wiring.peers.get_mut(reactor)
                && let Err(Full(_)) = peer.post(Inbound::Store(Delivery::Signal(signal.clone())))
            {
                self.counts.signals_dropped += 1;
            }
        }
    }

    // ---- how far each has seen ------------------------------------------------------------------------------------------

    /// Something was shown in a room whose clients' positions are written down.
    pub(super) fn mark_soon(&mut self, key: RoomKey) {
        if let Some(room) = self.hub.room_mut(key)
            && room.wants_marking()
        {
            self.to_mark.push(room.name().clone());
            self.mark_at.get_or_insert(self.now.0.after(MARK_PAUSE));
        }
    }

    /// Before somebody asks what nobody has seen: what is known here stands before his question in the store's queue.
    pub(super) fn mark_now(&mut self) {
        if self.mark_at.take().is_some() {
            self.mark();
        }
        self.pay_owed();
    }

    fn mark(&mut self) {
        for name in std::mem::take(&mut self.to_mark) {
            let Some(room) = self.hub.find(&name).and_then(|key| self.hub.room_mut(key)) else { continue };
            room.marked();
            let mut seen: Vec<(Arc<str>, Seq)> = Vec::new();
            for (_, member) in room.members() {
                let Some(next) = member.next() else { continue };
                let session =
                    self.table.peek(member.conn).and_then(|entry| entry.conn.open()).map(|open| &open.session);
                if let Some(client) = session.and_then(Session::seen_as) {
                    seen.push((client, Seq(next.0.saturating_sub(1))));
                }
            }
            // Of several sockets of one client the one furthest on counts.
            seen.sort_unstable_by(|(a, at), (b, bt)| (a, bt).cmp(&(b, at)));
            seen.dedup_by(|(a, _), (b, _)| a == b);
            if !seen.is_empty() {
                self.owed.push_back(dialect::seen(&name, seen));
            }
        }
    }

    // ---- what the reactor itself owes -------------------------------------------------------------------------------------

    /// Presence, marks, pages and the store's knowledge of who is gone: at their time, and as far as the store takes them.
    pub(super) fn meet_dues(&mut self) {
        let now = self.now.0;
        let due = |at: &Option<Mono>| at.is_some_and(|at| at <= now);
        if due(&self.presence_at) {
            self.presence_at = None;
            self.tell_changes();
        }
        self.recheck();
        if due(&self.forget_at) {
            self.forget_at = self.hub.forget_pages().then(|| now.after(PAGES_KEPT));
        }
        if due(&self.mark_at) {
            // Nothing is added to what the store has not even taken; the rooms stay to be marked.
            self.mark_at = (!self.owed.is_empty()).then(|| now.after(MARK_PAUSE));
            if self.mark_at.is_none() {
                self.mark();
            }
        }
    }

    /// Writes of the reactor's own go out as far as the store takes them; they are few and none may be lost.
    pub(super) fn pay_owed(&mut self) {
        let shards = self.wiring.writers.len();
        while let Some(write) = self.owed.pop_front() {
            let Some(writer) = self.wiring.writers.get_mut(write.room.shard(shards)) else {
                log::error!("no writer for {}: {:?} is lost", write.room, write.change);
                return;
            };
            let asker = Asker { actor: "server".into(), origin: 0, verified: false };
            if let Err(Full(job)) = writer.post(Job { to: None, asker, write: Box::new(write), charged: 0 }) {
                self.owed.push_front(*job.write);
                return;
            }
        }
    }

    /// A connection that takes tasks is gone: what it held is for others.
    pub(super) fn gone(&mut self, id: ConnId) {
        let change = Change::Desk(Desk::Gone { conn: id });
        self.owed.push_back(Write { room: RoomName::new("tasks"), op: None, change });
    }

    // ---- credentials in band ----------------------------------------------------------------------------------------------

    /// The first credential of a native client, or a fresh one. Rights may become narrower at once, and never another
    /// user's.
    pub(super) fn authenticate(&mut self, id: ConnId, token: &str) {
        let Some(entry) = self.table.touch(id) else { return };
        let bearer = format!("Bearer {token}");
        let shown = Shown {
            authorization: Once::One(&bearer),
            protocols: Vec::new(),
            cookie: Once::Absent,
            query_token: Once::Absent,
            api_key: Once::Absent,
            user_header: Once::Absent,
        };
        let client = entry.client;
        // Asked before the token is looked at, as at the door (guests.rs).
        if entry.guest.is_some() && self.wiring.guests.is_barred(client, self.now.0) {
            let reject = Reject::new(Reason::TooManyRequests, "too many wrong tokens from this address");
            self.log_refusal(id, client, "auth", &reject);
            self.close_with(id, Close::refusing(&reject));
            return;
        }
        let policy = self.live.policy(Name::Native);
        let principal = match auth::authenticate(policy, &shown, false, self.now.1, &self.wiring.env.revoked) {
            Ok(principal) => principal,
            Err(reject) => {
                if auth::is_guess(&reject) && !client.is_loopback() {
                    self.wiring.guests.failed(client, self.now.0);
                }
                self.log_refusal(id, client, "auth", &reject);
                self.close_with(id, Close::refusing(&reject));
                return;
            }
        };
        let before = entry.conn.open().map(|open| open.actor.clone());
        if !entry.conn.authenticate(&principal) {
            self.close_with(id, Close::TOKEN_EXPIRED.because("the token is another user's"));
            return;
        }
        self.rename(id, before);
        self.greet(id);
        self.leave_forbidden(id);
    }

    /// Somebody who was there by default is there by name now.
    fn rename(&mut self, id: ConnId, before: Option<Arc<str>>) {
        let Some(entry) = self.table.peek(id) else { return };
        let (Some(open), Some(before)) = (entry.conn.open(), before) else { return };
        if open.actor == before || !open.session.is_present() {
            return;
        }
        for (key, member) in entry.memberships.as_slice() {
            let Some(room) = self.hub.room(*key).filter(|room| !is_watchers(room.name())) else { continue };
            if !room.is_joining(*member) {
                self.wiring.presence.leave(room.name(), &before);
                self.wiring.presence.enter(room.name(), &open.actor);
            }
        }
        self.tell_presence();
    }

    /// Rooms that its credential no longer grants are left, and it is said.
    pub(super) fn leave_forbidden(&mut self, id: ConnId) {
        let Some(entry) = self.table.peek(id) else { return };
        let Some(open) = entry.conn.open() else { return };
        let rooms: Vec<RoomName> = entry
            .memberships
            .as_slice()
            .iter()
            .filter_map(|(key, _)| self.hub.room(*key))
            .map(|room| room.name().clone())
            .filter(|room| match room.as_str().strip_prefix(WATCHERS) {
                Some(watched) => !open.rights.allows(watched, Verb::Presence),
                None => !open.rights.allows(room.as_str(), Verb::Read),
            })
            .collect();
        let session = open.session.clone();
        for room in rooms {
            self.leave(id, &room);
            let named = RoomName::new(room.as_str().strip_prefix(WATCHERS).unwrap_or(room.as_str()));
            let left = Intent::Leave { room: named, reply: Bytes::new() };
            self.queue(id, ws::frame::text(&session.denied(&left, Denial::Forbidden)));
        }
    }
}

/// Is this the room of those who watch another one's presence?
pub(super) fn is_watchers(room: &RoomName) -> bool {
    room.as_str().starts_with(WATCHERS)
}

fn watchers_of(room: &RoomName) -> RoomName {
    RoomName::new(&format!("{WATCHERS}{room}"))
}
