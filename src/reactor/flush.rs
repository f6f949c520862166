//! Step 6: what there is to say is written, each socket once.
//!
//! Two ways. A room with something new and a member right before it: all such members are sent the very same bytes, the
//! turn's events in one piece, with one call each, straight from the shared buffer; so are the turn's signals. Everybody
//! else (replies waiting, its own event in the run, behind, another dialect's gap) is pulled for: outbox first, then the
//! events from its cursors.
//!
//! Clients that take compressed messages are sent their form of the same frames (packer.rs), whichever way. What is left of
//! a frame that a socket took half of waits in the outbox as it is, so it goes on in the form in which it began.

use std::io;

use bytes::Bytes;

use super::Reactor;
use super::packer::Packer;
use super::poller::{Poller, Transport};
use crate::conn::Slices;
use crate::dialect::{Name, Signal};
use crate::http::Window;
use crate::ids::ConnId;
use crate::limits::{WRITE_BUDGET_BYTES, WRITE_SLICES_MAX};
use crate::mutant::Mutant;
use crate::room::{Look, MemberKey, RoomKey};
use crate::store::{Committed, Question};

/// The turn's events of one room for one dialect, in one piece.
#[derive(Debug)]
struct Run {
    dialect: Name,
    /// For clients with this window.
    window: Option<Window>,
    bytes: Bytes,
    /// Each event's frame, empty where it shows none.
    frames: Vec<Bytes>,
}

impl Run {
    /// `None` when an event was not framed for this dialect: its members must read the log.
    fn of(dialect: Name, events: &[&Committed]) -> Option<Run> {
        let framed = events.iter().all(|event| event.listeners() & dialect.bit() != 0);
        let frames = events.iter().map(|event| event.frames().of(dialect).clone()).collect();
        framed.then(|| Run::new(dialect, None, frames))
    }

    /// The same for clients with this window.
    fn packed(&self, window: Window, packer: &mut Packer) -> Run {
        let frames = self.frames.iter().map(|frame| packer.form(frame, Some(window))).collect();
        Run::new(self.dialect, Some(window), frames)
    }

    fn new(dialect: Name, window: Option<Window>, frames: Vec<Bytes>) -> Run {
        let bytes = match frames.as_slice() {
            [only] => only.clone(),
            several => several.concat().into(),
        };
        Run { dialect, window, bytes, frames }
    }

    /// How many events are out after `written` bytes, and the one that is half out with how much of it is.
    fn progress(&self, written: usize) -> (u64, Option<(Bytes, usize)>) {
        let mut left = written;
        for (shown, frame) in self.frames.iter().enumerate() {
            if left < frame.len() {
                let half = (left > 0).then(|| (frame.clone(), left));
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
    /// There is something to be written to this connection; it is pulled for when the turn is flushed.
    pub(super) fn owe(&mut self, id: ConnId) {
        if let Some(entry) = self.table.reach(id)
            && !std::mem::replace(&mut entry.unflushed, true)
        {
            self.unflushed.push(id);
        }
    }

    pub(super) fn flush(&mut self) {
        for key in self.hub.take_signalled() {
            self.flush_signals(key);
        }
        let dirty = self.hub.take_dirty();
        for key in &dirty {
            self.flush_room(*key);
        }
        self.pull_unflushed();
        for id in std::mem::take(&mut self.answered) {
            self.resume(id);
        }
        // Behind the pulls: else whoever wrote in a long turn would read its other events back from the log.
        for key in dirty {
            self.hub.served(key);
            self.mark_soon(key);
        }
    }

    /// Everybody to whom something is owed is given it, as far as the socket takes it.
    pub(super) fn pull_unflushed(&mut self) {
        let mut unflushed = std::mem::replace(&mut self.unflushed, std::mem::take(&mut self.spare));
        for id in &unflushed {
            if let Some(entry) = self.table.reach(*id) {
                entry.unflushed = false;
            }
            self.pull(*id);
        }
        unflushed.clear();
        self.spare = unflushed;
    }

    fn flush_room(&mut self, key: RoomKey) {
        let canary = self.wiring.env.canary;
        let Some(room) = self.hub.room_mut(key) else { return };
        let Some((from, fresh)) = room.fresh() else { return };
        let mut fresh: Vec<&Committed> = fresh.collect();
        if canary.is(Mutant::EventsSwapped) {
            fresh.reverse();
        }
        let origins: Vec<ConnId> = fresh.iter().filter_map(|event| event.origin()).collect();
        let mut runs: Vec<Run> = Name::ALL
            .into_iter()
            .filter(|name| room.dialects() & name.bit() != 0)
            .filter_map(|name| Run::of(name, &fresh))
            .collect();
        let mut served = Vec::with_capacity(room.len());
        let mut behind = Vec::new();
        for (member_key, member) in room.members() {
            let place = runs.iter().position(|run| run.dialect == member.dialect);
            let own = !member.hears_itself && origins.contains(&member.conn);
            let (Some(place), false, true) = (place, own, member.next() == Some(from)) else {
                behind.push(member.conn);
                continue;
            };
            let Some(entry) = self.table.reach(member.conn) else { continue };
            if entry.conn.is_blocked() || !entry.conn.is_open() {
                if canary.is(Mutant::SlowReaderLosesMiddle) {
                    served.push(Served { member: member_key, events: fresh.len() as u64 });
                }
                continue;
            }
            if !entry.conn.outbox.is_empty() {
                behind.push(member.conn);
                continue;
            }
            let Some(run) = in_form(&mut runs, place, entry.conn.window(), &mut self.packer) else { continue };
            if run.bytes.is_empty() {
                served.push(Served { member: member_key, events: run.frames.len() as u64 });
                continue;
            }
            let Ok(written) = write_some(&mut entry.socket, &run.bytes) else {
                // Whoever pulls for it next meets the error again and ends it properly.
                behind.push(member.conn);
                continue;
            };
            self.counts.bytes_out += written as u64;
            let (events, half) = run.progress(written);
            self.counts.messages_out += events;
            self.counts.agents_out += if run.dialect == Name::Agents { events } else { 0 };
            served.push(Served { member: member_key, events });
            if written < run.bytes.len()
                && let Some(entry) = self.table.touch(member.conn)
            {
                if let Some((frame, sent)) = half {
                    entry.conn.outbox.push_rest(frame, sent);
                }
                entry.conn.block(written > 0, self.now.0);
            }
        }
        for Served { member, events } in served {
            room.advance(member, events);
        }
        for id in behind {
            self.owe(id);
        }
    }

    /// What was said in a room that is not state, in one piece and with one write a member. Dropped, and counted, for whoever
    /// takes nothing now.
    pub(super) fn flush_signals(&mut self, key: RoomKey) {
        let Some(room) = self.hub.room_mut(key) else { return };
        let signals = room.take_signals();
        if signals.is_empty() {
            return;
        }
        let speakers: Vec<ConnId> = signals.iter().filter_map(|signal| signal.from).collect();
        let runs: [Bytes; Name::ALL.len()] = Name::ALL.map(|name| said(&signals, name, None, |frame| frame.clone()));
        let mut packed: Vec<(Name, Window, Bytes)> = Vec::new();
        let mut queued = Vec::new();
        for (_, member) in room.members() {
            let Some(entry) = self.table.reach(member.conn) else { continue };
            let window = entry.conn.window();
            let own;
            let run = match (speakers.contains(&member.conn), window) {
                (true, window) => {
                    own = said(&signals, member.dialect, Some(member.conn), |frame| self.packer.form(frame, window));
                    &own
                }
                (false, None) => &runs[member.dialect as usize],
                (false, Some(wanted)) => {
                    let same =
                        |(dialect, window, _): &(Name, Window, _)| (*dialect, *window) == (member.dialect, wanted);
                    let place = packed.iter().position(same).unwrap_or_else(|| {
                        let run = said(&signals, member.dialect, None, |frame| self.packer.form(frame, window));
                        packed.push((member.dialect, wanted, run));
                        packed.len() - 1
                    });
                    &packed[place].2
                }
            };
            if run.is_empty() || !entry.conn.is_open() {
                continue;
            }
            if entry.conn.is_blocked() {
                self.counts.signals_dropped += signals.len() as u64;
                continue;
            }
            let written = match entry.conn.outbox.is_empty() {
                // Whoever pulls for it next meets an error again and ends it properly.
                true => write_some(&mut entry.socket, run).unwrap_or(0),
                false => 0,
            };
            self.counts.bytes_out += written as u64;
            self.counts.messages_out += if written > 0 { signals.len() as u64 } else { 0 };
            if written < run.len()
                && let Some(entry) = self.table.touch(member.conn)
            {
                entry.conn.outbox.push(run.slice(written..));
                queued.push(member.conn);
            }
        }
        for id in queued {
            self.owe(id);
        }
    }

    /// Writes what one connection has waiting and what its cursors find, as far as its socket and its budget go.
    pub(super) fn pull(&mut self, id: ConnId) {
        let mut budget = WRITE_BUDGET_BYTES;
        loop {
            match self.pull_once(id, &mut budget) {
                Pulled::More if budget > 0 => {}
                Pulled::More => return self.owe(id),
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
        // What is pulled, for a client that takes it compressed. It is held to the budget by what there was to compress.
        let window = entry.conn.window();
        let mut packed: Vec<Bytes> = Vec::new();
        let mut to_pack = 0;
        // On the stack: most pulls are for one answer or one event.
        let mut slices = Slices::default();
        entry.conn.outbox.gather(&mut slices);
        // What the slices behind the outbox's are: (room, member, frame).
        let mut pulled: Vec<(RoomKey, MemberKey, &Bytes)> = Vec::new();
        // Of every room, and not of one at a time: who leaves a room is not told of its page, which the others would wait for.
        let mut missing: Vec<(RoomKey, MemberKey)> = Vec::new();
        let mut caught_up = None;
        let mut bounded = slices.is_full();
        let rooms = if entry.conn.is_open() { entry.memberships.as_slice() } else { &[] };
        for (room_key, member) in rooms {
            let Some(room) = self.hub.room(*room_key) else { continue };
            let mut ahead = 0;
            loop {
                let is_full = slices.is_full() || slices.len() + packed.len() >= WRITE_SLICES_MAX;
                if is_full || slices.bytes() + to_pack >= *budget {
                    bounded = true;
                    break;
                }
                match room.look_ahead(*member, ahead) {
                    Look::Current => {
                        caught_up = room.has_pages().then_some(*room_key).or(caught_up);
                        break;
                    }
                    Look::Missing => {
                        if ahead == 0 {
                            missing.push((*room_key, *member));
                        } else {
                            // It is asked for when what stands before it is out.
                            bounded = true;
                        }
                        break;
                    }
                    Look::Event { frame } => {
                        match window {
                            None => slices.push(frame),
                            Some(_) => {
                                packed.push(self.packer.form(frame, window));
                                to_pack += frame.len();
                            }
                        }
                        pulled.push((*room_key, *member, frame));
                        ahead += 1;
                    }
                }
            }
        }
        packed.iter().for_each(|frame| slices.push(frame));
        let bytes = slices.bytes();
        let written = match slices.as_slice() {
            [] => Ok(0),
            [only] => entry.socket.write(only),
            several => entry.socket.write_vectored(several),
        };
        let written = match written {
            Ok(0) if bytes > 0 => return Pulled::Failed,
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                entry.conn.block(false, self.now.0);
                return Pulled::Done;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Pulled::More,
            Err(_) => return Pulled::Failed,
        };
        let had_replies = !entry.conn.outbox.is_empty();
        let mut left = entry.conn.outbox.advance(written);
        self.counts.messages_out += u64::from(had_replies);
        let is_agents = entry.conn.open().is_some_and(|open| open.session.dialect() == Name::Agents);
        self.counts.agents_out += u64::from(had_replies && is_agents);
        let mut advanced: Vec<(RoomKey, MemberKey)> = Vec::with_capacity(pulled.len());
        let mut half = None;
        for (place, (room, member, plain)) in pulled.iter().enumerate() {
            let frame = packed.get(place).unwrap_or(plain);
            if left < frame.len() {
                if left > 0 {
                    half = Some((frame.clone(), left));
                    advanced.push((*room, *member));
                }
                break;
            }
            left -= frame.len();
            advanced.push((*room, *member));
        }
        drop(pulled);
        if let Some((frame, sent)) = half {
            entry.conn.outbox.push_rest(frame, sent);
        }
        self.counts.bytes_out += written as u64;
        self.counts.messages_out += advanced.len() as u64;
        self.counts.agents_out += if is_agents { advanced.len() as u64 } else { 0 };
        if written < bytes {
            entry.conn.block(written > 0, self.now.0);
        }
        *budget = budget.saturating_sub(written.max(to_pack).max(1));
        for (room, member) in advanced {
            if let Some(room) = self.hub.room_mut(room) {
                room.advance(member, 1);
            }
        }
        if let Some(key) = caught_up {
            self.hub.caught_up(key);
        }
        for (room, member) in missing {
            if self.wiring.env.canary.is(Mutant::GapDelivered) {
                self.hub.room_mut(room).into_iter().for_each(|room| room.skip(member));
                return Pulled::More;
            }
            self.ask_page(id, room, member);
        }
        if written == bytes && bounded { Pulled::More } else { Pulled::Done }
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
        match self.wiring.readers.post(question) {
            Ok(()) => self.counts.store_reads += 1,
            Err(_) => {
                room.unask(after);
                // The readers are behind: look again next turn.
                self.starved.push(id);
            }
        }
    }
}

/// The frames of a turn's signals for one dialect, in a client's form of them, less what `except` itself has said.
fn said(signals: &[Signal], dialect: Name, except: Option<ConnId>, mut form: impl FnMut(&Bytes) -> Bytes) -> Bytes {
    let heard = |signal: &&Signal| except.is_none() || signal.from != except;
    let mut frames = signals.iter().filter(heard).map(|signal| form(signal.frames.of(dialect)));
    let Some(first) = frames.next() else { return Bytes::new() };
    match frames.next() {
        None => first,
        Some(second) => {
            let mut run = Vec::with_capacity(signals.len() * (first.len() + 16));
            run.extend_from_slice(&first);
            run.extend_from_slice(&second);
            frames.for_each(|frame| run.extend_from_slice(&frame));
            run.into()
        }
    }
}

/// The run for this window, made from the plain one at `place` for the first who asks.
fn in_form<'r>(runs: &'r mut Vec<Run>, place: usize, window: Option<Window>, packer: &mut Packer) -> Option<&'r Run> {
    let (Some(window), Some(plain)) = (window, runs.get(place)) else { return runs.get(place) };
    let wanted = (plain.dialect, Some(window));
    let place = runs.iter().position(|run| (run.dialect, run.window) == wanted);
    if place.is_none() {
        let packed = plain.packed(window, packer);
        runs.push(packed);
    }
    runs.get(place.unwrap_or(runs.len() - 1))
}

/// As much as the socket takes now.
fn write_some<S: Transport>(socket: &mut S, bytes: &[u8]) -> io::Result<usize> {
    match socket.write(bytes) {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
        written => written,
    }
}

enum Pulled {
    /// All of it went out, and there was more than one write takes.
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
        let run = Run { dialect: Name::Documents, window: None, bytes: frames.concat().into(), frames };
        for (written, events, half) in
            [(0, 0, None), (1, 1, Some("bc")), (2, 1, Some("c")), (3, 2, None), (4, 3, Some("e")), (5, 3, None)]
        {
            let (shown, rest) = run.progress(written);
            let rest = rest.as_ref().map(|(frame, sent)| &frame[*sent..]);
            assert_eq!((shown, rest), (events, half.map(str::as_bytes)), "after {written} bytes");
        }
    }
}
