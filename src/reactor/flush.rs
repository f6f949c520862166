//! Step 6: what there is to say is written, each socket once.
//!
//! Two ways. A room with something new and a member right before it: all such members are sent the very same bytes, the
//! turn's events in one piece, with one call each, straight from the shared buffer. Everybody else (replies waiting, its
//! own event in the run, behind, another dialect's gap) is pulled for: outbox first, then the events from its cursors.

use std::io::{self, IoSlice};

use bytes::Bytes;

use super::Reactor;
use super::poller::{Poller, Transport};
use crate::dialect::Name;
use crate::ids::ConnId;
use crate::limits::{WRITE_BUDGET_BYTES, WRITE_SLICES_MAX};
use crate::room::{Look, MemberKey, RoomKey};
use crate::store::{Committed, Question};

/// The turn's events of one room for one dialect, in one piece.
#[derive(Debug)]
struct Run {
    dialect: Name,
    bytes: Bytes,
    /// Each event's frame, empty where it shows none.
    frames: Vec<Bytes>,
}

impl Run {
    /// `None` when an event was not framed for this dialect: its members must read the log.
    fn of(dialect: Name, events: &[&Committed]) -> Option<Run> {
        let framed = events.iter().all(|event| event.listeners() & dialect.bit() != 0);
        let frames: Vec<Bytes> = events.iter().map(|event| event.frames().of(dialect).clone()).collect();
        let bytes = match frames.as_slice() {
            [only] => only.clone(),
            several => several.concat().into(),
        };
        framed.then_some(Run { dialect, bytes, frames })
    }

    /// How many events are out after `written` bytes, and what is left of the one that is half out.
    fn progress(&self, written: usize) -> (u64, Option<Bytes>) {
        let mut left = written;
        for (shown, frame) in self.frames.iter().enumerate() {
            if left < frame.len() {
                let half = (left > 0).then(|| frame.slice(left..));
                return (shown as u64 + u64::from(half.is_some()), half);
            }
            left -= frame.len();
        }
        (self.frames.len() as u64, None)
    }
}

/// What a member is served with on the short way.
struct Served {
    member: MemberKey,
    events: u64,
}

impl<P: Poller> Reactor<P> {
    pub(super) fn flush(&mut self) {
        let dirty = self.hub.take_dirty();
        for key in &dirty {
            self.flush_room(*key);
        }
        for id in std::mem::take(&mut self.unflushed) {
            self.pull(id);
        }
        for id in std::mem::take(&mut self.answered) {
            self.resume(id);
        }
        // Behind the pulls: else whoever wrote in a long turn would read its other events back from the log.
        for key in dirty {
            self.hub.served(key);
            self.mark_soon(key);
        }
    }

    fn flush_room(&mut self, key: RoomKey) {
        let Some(room) = self.hub.room_mut(key) else { return };
        let Some((from, fresh)) = room.fresh() else { return };
        let fresh: Vec<&Committed> = fresh.collect();
        let origins: Vec<ConnId> = fresh.iter().filter_map(|event| event.origin()).collect();
        let runs: Vec<Run> = Name::ALL
            .into_iter()
            .filter(|name| room.dialects() & name.bit() != 0)
            .filter_map(|name| Run::of(name, &fresh))
            .collect();
        let mut served = Vec::new();
        for (member_key, member) in room.members() {
            let run = runs.iter().find(|run| run.dialect == member.dialect);
            let own = !member.hears_itself && origins.contains(&member.conn);
            let (Some(run), false, true) = (run, own, member.next() == Some(from)) else {
                self.unflushed.push(member.conn);
                continue;
            };
            let Some(entry) = self.table.reach(member.conn) else { continue };
            if entry.conn.is_blocked() || !entry.conn.is_open() {
                continue;
            }
            if !entry.conn.outbox.is_empty() {
                self.unflushed.push(member.conn);
                continue;
            }
            if run.bytes.is_empty() {
                served.push(Served { member: member_key, events: run.frames.len() as u64 });
                continue;
            }
            let written = match entry.socket.write(&run.bytes) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(_) => {
                    // Whoever pulls for it next meets the error again and ends it properly.
                    self.unflushed.push(member.conn);
                    continue;
                }
            };
            self.counts.bytes_out += written as u64;
            let (events, half) = run.progress(written);
            self.counts.messages_out += events;
            self.counts.agents_out += if run.dialect == Name::Agents { events } else { 0 };
            served.push(Served { member: member_key, events });
            if written < run.bytes.len()
                && let Some(entry) = self.table.touch(member.conn)
            {
                if let Some(half) = half {
                    entry.conn.outbox.push(half);
                }
                entry.conn.block(written > 0, self.now.0);
            }
        }
        for Served { member, events } in served {
            room.advance(member, events);
        }
    }

    /// Writes what one connection has waiting and what its cursors find, as far as its socket and its budget go.
    pub(super) fn pull(&mut self, id: ConnId) {
        let mut budget = WRITE_BUDGET_BYTES;
        loop {
            match self.pull_once(id, &mut budget) {
                Pulled::More if budget > 0 => {}
                Pulled::More => {
                    self.unflushed.push(id);
                    return;
                }
                Pulled::Done => return,
                Pulled::Failed => return self.hang_up(id, "the connection failed"),
            }
        }
    }

    /// One vectored write.
    fn pull_once(&mut self, id: ConnId, budget: &mut usize) -> Pulled {
        let Some(entry) = self.table.touch(id) else { return Pulled::Done };
        if entry.conn.is_blocked() || entry.conn.is_dead() {
            return Pulled::Done;
        }
        let mut slices: Vec<IoSlice<'_>> = Vec::new();
        entry.conn.outbox.gather(&mut slices, WRITE_SLICES_MAX);
        let mut bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        // What the slices behind the outbox's are: (room, member, frame).
        let mut pulled: Vec<(RoomKey, MemberKey, &Bytes)> = Vec::new();
        let mut missing = None;
        let mut caught_up = None;
        let rooms = if entry.conn.is_open() { entry.memberships.as_slice() } else { &[] };
        for (room_key, member) in rooms {
            let Some(room) = self.hub.room(*room_key) else { continue };
            let mut ahead = 0;
            while slices.len() < WRITE_SLICES_MAX && bytes < *budget {
                match room.look_ahead(*member, ahead) {
                    Look::Current => {
                        caught_up = room.has_pages().then_some(*room_key).or(caught_up);
                        break;
                    }
                    Look::Missing => {
                        if ahead == 0 {
                            missing = Some((*room_key, *member));
                        }
                        break;
                    }
                    Look::Event { frame } => {
                        if !frame.is_empty() {
                            slices.push(IoSlice::new(frame));
                            bytes += frame.len();
                        }
                        pulled.push((*room_key, *member, frame));
                        ahead += 1;
                    }
                }
            }
        }
        let written = if slices.is_empty() {
            0
        } else {
            match entry.socket.write_vectored(&slices) {
                Ok(0) => return Pulled::Failed,
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    drop(slices);
                    entry.conn.block(false, self.now.0);
                    return Pulled::Done;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Pulled::More,
                Err(_) => return Pulled::Failed,
            }
        };
        drop(slices);
        let had_replies = !entry.conn.outbox.is_empty();
        let mut left = entry.conn.outbox.advance(written);
        self.counts.messages_out += u64::from(had_replies);
        let is_agents = entry.conn.open().is_some_and(|open| open.session.dialect() == Name::Agents);
        self.counts.agents_out += u64::from(had_replies && is_agents);
        let mut advanced: Vec<(RoomKey, MemberKey)> = Vec::with_capacity(pulled.len());
        let mut half = None;
        for (room, member, frame) in &pulled {
            if left < frame.len() {
                if left > 0 {
                    half = Some(frame.slice(left..));
                    advanced.push((*room, *member));
                }
                break;
            }
            left -= frame.len();
            advanced.push((*room, *member));
        }
        let nothing_to_do = pulled.is_empty() && bytes == 0;
        drop(pulled);
        if let Some(half) = half {
            entry.conn.outbox.push(half);
        }
        self.counts.bytes_out += written as u64;
        self.counts.messages_out += advanced.len() as u64;
        self.counts.agents_out += if is_agents { advanced.len() as u64 } else { 0 };
        if written < bytes {
            entry.conn.block(written > 0, self.now.0);
        }
        *budget = budget.saturating_sub(written.max(1));
        for (room, member) in advanced {
            if let Some(room) = self.hub.room_mut(room) {
                room.advance(member, 1);
            }
        }
        if let Some(room) = caught_up.and_then(|key| self.hub.room_mut(key)) {
            room.forget_pages();
        }
        if let Some((room, member)) = missing {
            self.ask_page(id, room, member);
        }
        if nothing_to_do || written < bytes { Pulled::Done } else { Pulled::More }
    }

    /// The member's next event is not in memory: the log has it. One page at a time and room serves all who wait.
    fn ask_page(&mut self, id: ConnId, room_key: RoomKey, member: MemberKey) {
        let index = self.wiring.index;
        let Some(room) = self.hub.room_mut(room_key) else { return };
        if room.is_waiting(member) && !room.is_stranded() {
            return;
        }
        let Some(after) = room.ask(member) else { return };
        let question = Question::Page { reactor: index, room: room.name().clone(), after, listeners: room.dialects() };
        if self.wiring.readers.post(question).is_err() {
            room.unask(after);
            // The readers are behind: look again next turn.
            self.starved.push(id);
        }
    }
}

enum Pulled {
    /// All of it went out; there may be more.
    More,
    Done,
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_counts_whole_and_half_frames() {
        let frames: Vec<Bytes> = ["abc", "", "de"].iter().map(|text| Bytes::from_static(text.as_bytes())).collect();
        let run = Run { dialect: Name::Documents, bytes: frames.concat().into(), frames };
        for (written, events, half) in
            [(0, 0, None), (1, 1, Some("bc")), (2, 1, Some("c")), (3, 2, None), (4, 3, Some("e")), (5, 3, None)]
        {
            let (shown, rest) = run.progress(written);
            assert_eq!((shown, rest.as_deref()), (events, half.map(str::as_bytes)), "after {written} bytes");
        }
    }
}
