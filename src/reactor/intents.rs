//! What a client asks for, one intent at a time: done on the spot, handed to the store, or parked until it may be.

use std::collections::VecDeque;

use log::Level;

use super::Reactor;
use super::poller::Poller;
use crate::conn::{Phase, Stream};
use crate::dialect::{self, Asker, Change, Denial, Desk, Failure, FileTask, Intent, Joining, Read, Write};
#[cfg(feature = "canary")]
use crate::failpoints::{self, Site};
use crate::http::Response;
use crate::ids::ConnId;
use crate::mailbox::{Full, Mailbox};
use crate::store::{Job, Question};
use crate::ws::{self, Close};

impl<P: Poller> Reactor<P> {
    /// Does what a client asks for, or parks it when it has to wait.
    pub(super) fn take_on(&mut self, id: ConnId, intent: Intent, out: &mut Vec<u8>) {
        if let Intent::Reply(payload) | Intent::Complain(payload) = &intent
            && self.table.peek(id).is_some_and(|entry| entry.conn.may_reply())
        {
            // Touches no room and leaves the connection as it is: nothing to be judged, nothing to be settled.
            return ws::frame::put_text(out, payload);
        }
        #[cfg(feature = "canary")]
        failpoints::pass(Site::Reactor);
        let intent = self.judge(id, intent);
        let Some(entry) = self.table.touch(id) else { return };
        match intent {
            Intent::Ignore => {}
            Intent::Reply(payload) if entry.conn.may_reply() => ws::frame::put_text(out, &payload),
            Intent::ReplyThenClose(payload) if entry.conn.may_reply() => {
                if !payload.is_empty() {
                    ws::frame::put_text(out, &payload);
                }
                self.emit(id, out);
                self.close_with(id, Close::DONE);
            }
            Intent::Close(reject) if entry.conn.may_reply() => {
                self.emit(id, out);
                self.close_with(id, Close::refusing(&reject));
            }
            Intent::Farewell { echo, code } if entry.conn.may_reply() => {
                ws::frame::put_close(out, echo.as_ref());
                self.emit(id, out);
                self.note_close(id, Level::Debug, code, "by the peer");
            }
            Intent::Respond(response) => self.answer_request(id, &response),
            Intent::Read(read) if entry.conn.may_reply() => self.ask(id, read),
            Intent::Join(joining) if entry.conn.may_reply() => {
                let Joining { room, ask } = *joining;
                self.emit(id, out);
                self.leave(id, &room);
                self.join_in_band(id, &room);
                match dialect::welcome_back(&ask, &self.wiring.directory) {
                    Some(welcome) => self.answer_socket(id, welcome),
                    None => self.ask(id, Box::new(ask)),
                }
            }
            Intent::Leave { room, reply } if entry.conn.may_reply() => {
                ws::frame::put_text(out, &reply);
                self.leave(id, &room);
            }
            Intent::Signal { room, data } if entry.conn.may_reply() => self.say(id, &room, &data),
            Intent::Presence { room } if entry.conn.may_reply() => {
                self.emit(id, out);
                self.watch(id, &room);
            }
            Intent::Authenticate { token } if entry.conn.may_reply() => {
                self.emit(id, out);
                self.authenticate(id, &token);
            }
            Intent::Census(read) if entry.conn.may_reply() => self.take_census(id, read),
            Intent::Evict { conn, reason } => self.evict(id, conn, reason),
            Intent::Stream(writes) => self.stream(id, writes),
            Intent::Write(write) if entry.conn.may_write() => {
                // What was said before stands before whatever becomes of this.
                self.emit(id, out);
                self.submit(id, write);
            }
            Intent::Reload => self.reload(id),
            waiting => entry.conn.park(waiting, self.now.0),
        }
    }

    /// The one gate for everything that touches a room: default deny, message by message. Writes are judged when they are
    /// submitted, where their refusal has to wait its turn.
    fn judge(&self, id: ConnId, intent: Intent) -> Intent {
        let Some(open) = self.table.peek(id).and_then(|entry| entry.conn.open()) else { return intent };
        match intent.needs() {
            _ if matches!(intent, Intent::Write(_)) => intent,
            Some((room, verb)) if !open.rights.allows(room.as_str(), verb) => {
                Intent::Reply(open.session.denied(&intent, Denial::Forbidden))
            }
            // Rights are patterns; what a room's owner allows besides is judged when it is joined.
            Some((room, _)) if matches!(intent, Intent::Signal { .. } | Intent::Presence { .. }) => {
                match self.is_member(id, room) {
                    true => intent,
                    false => Intent::Reply(open.session.denied(&intent, Denial::Forbidden)),
                }
            }
            Some((room, _)) if self.is_full(id, room) => {
                Intent::Reply(open.session.denied(&intent, Denial::TooManyRooms))
            }
            _ => intent,
        }
    }

    fn ask(&mut self, id: ConnId, read: Box<Read>) {
        let Some(entry) = self.table.touch(id) else { return };
        let (actor, verified, rights) = match entry.conn.phase() {
            Phase::Open(open) => (open.actor.clone(), open.verified, Some(open.rights.clone())),
            Phase::Asked(asked) => {
                // What may not be read is not there, for the handshake too: ids cannot be enumerated (threat row 34).
                let rights = asked.handshake.as_ref().map(|handshake| handshake.principal.rights.clone());
                (asked.actor.clone(), asked.verified, rights)
            }
            Phase::Head { .. } | Phase::Closing { .. } | Phase::Dead => return,
        };
        let asker = Asker { actor, origin: id.pack(), verified };
        let asked = self.wiring.readers.post(Question::Ask { to: id, asker, read, rights });
        match asked {
            Ok(()) => {
                entry.conn.asked(true, self.now.0);
                self.counts.store_reads += 1;
            }
            Err(Full(Question::Ask { read, .. })) => {
                entry.conn.park(Intent::Read(read), self.now.0);
                self.starved.push(id);
            }
            Err(Full(_)) => {}
        }
    }

    pub(super) fn submit(&mut self, id: ConnId, write: Box<Write>) {
        let Some(entry) = self.table.touch(id) else { return };
        let (actor, verified, granted) = match entry.conn.phase() {
            Phase::Open(open) => {
                let granted = write.change.verb().is_none_or(|verb| open.rights.allows(write.room.as_str(), verb));
                (open.actor.clone(), open.verified, granted)
            }
            // Over HTTP the right was judged at the door (admission.rs).
            Phase::Asked(asked) => (asked.actor.clone(), asked.verified, true),
            Phase::Head { .. } | Phase::Closing { .. } | Phase::Dead => return,
        };
        if !granted {
            match entry.conn.may_reply() {
                true => self.answer_socket(id, dialect::failed(&write, Failure::Forbidden)),
                false => entry.conn.park(Intent::Write(write), self.now.0),
            }
            return;
        }
        // A request over HTTP is no member of any room; a handshake's write speaks of the socket that it will be.
        let is_socket = entry.conn.is_open() || entry.conn.asked_of().is_some_and(|asked| asked.handshake.is_some());
        let origin = if is_socket { id.pack() } else { 0 };
        let shards = self.wiring.writers.len();
        let Some(writer) = self.wiring.writers.get_mut(write.room.shard(shards)) else { return };
        match &write.change {
            Change::Desk(Desk::Take { lease, .. }) => {
                entry.conn.lease(*lease);
                entry.takes = true;
            }
            Change::Desk(Desk::Poll { wait, .. }) if entry.ended && !wait.is_zero() => {
                // Its client ended the stream behind the request: nobody waits, and what it would be given would lie until
                // its lease ran out.
                self.hang_up(id, "the peer ended the stream");
                return;
            }
            Change::Desk(Desk::Poll { wait, .. }) => {
                if let Some(asked) = entry.conn.asked_of_mut() {
                    asked.patience = *wait;
                }
                entry.takes = true;
            }
            _ => {}
        }
        let charged = write.weight();
        if !self.wiring.backlog.admit(charged) {
            entry.conn.park(Intent::Write(write), self.now.0);
            self.starved.push(id);
            return;
        }
        match writer.post(Job { to: Some(id), asker: Asker { actor, origin, verified }, write, charged }) {
            Ok(()) => entry.conn.asked(false, self.now.0),
            Err(Full(job)) => {
                self.wiring.backlog.release(charged);
                entry.conn.park(Intent::Write(job.write), self.now.0);
                self.starved.push(id);
            }
        }
    }

    fn take_census(&mut self, id: ConnId, read: Box<Read>) {
        let Some(entry) = self.table.touch(id) else { return };
        match self.wiring.readers.post(Question::Census { to: id, read }) {
            Ok(()) => {
                entry.conn.asked(true, self.now.0);
                self.counts.store_reads += 1;
            }
            Err(Full(_)) => self.answer_request(id, &Response::reject(&Failure::Busy.reject())),
        }
    }

    /// Many writes in one request, one job after the other: what is answered is never far ahead of what is written out.
    fn stream(&mut self, id: ConnId, mut writes: VecDeque<Write>) {
        let Some(entry) = self.table.touch(id) else { return };
        let first = writes.pop_front();
        if let Some(asked) = entry.conn.asked_of_mut() {
            let weight = dialect::weight_of(&writes);
            asked.stream = Some(Box::new(Stream { left: writes, weight, begun: false }));
        }
        match first {
            Some(write) => self.submit(id, Box::new(write)),
            None => self.take_lines(id, &[]),
        }
    }

    fn reload(&mut self, id: ConnId) {
        let posted = self.wiring.files.as_mut().map(|files| files.post(FileTask::Reload { to: id }));
        let Some(entry) = self.table.touch(id) else { return };
        match posted {
            Some(Ok(())) => entry.conn.asked(true, self.now.0),
            Some(Err(_)) => self.answer_request(id, &Response::reject(&Failure::Busy.reject())),
            None => self.answer_request(id, &dialect::nothing_to_reload()),
        }
    }

    /// Clients whose operation found the queue full, now that it may have room.
    pub(super) fn feed_the_starved(&mut self) {
        let writers = self.wiring.writers.iter().all(Mailbox::has_room);
        if self.starved.is_empty() || !(writers || self.wiring.readers.has_room()) {
            return;
        }
        let mut starved = std::mem::take(&mut self.starved);
        // Each answer and each event that comes meanwhile enters it once more.
        starved.sort_unstable();
        starved.dedup();
        for id in starved {
            self.resume(id);
            // Or it was a page of the log that could not be asked for.
            self.owe(id);
        }
    }
}
