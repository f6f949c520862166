//! Step 4: what is ready is read, decoded and acted on, within a budget; step 5: deadlines that have come.
//!
//! mio is edge-triggered. A read that filled less than the buffer has emptied the socket, and the next bytes are a new
//! edge; only when the peer has ended its side must the end itself still be read. Whatever is left unread for want of
//! budget, or because the client waits for an answer, is remembered in `Entry::unread`.

use std::io;
use std::time::Duration;

use super::Reactor;
use super::poller::{Poller, Transport, WAKE};
use crate::conn::{Lapse, Phase, Spent, Step};
use crate::dialect::{self, Intent, Name};
use crate::http::{Reason, Reject};
use crate::ids::ConnId;
use crate::limits::{READ_BUDGET_BYTES, SCRATCH_BYTES, TURN_BUDGET_BYTES};
use crate::mutant::Mutant;
use crate::panics;
use crate::ws::{self, Close, Inflater};

/// How soon a connection that waits for an answer is told to go again.
const DISMISS_AGAIN: Duration = Duration::from_millis(50);

impl<P: Poller> Reactor<P> {
    pub(super) fn serve_readiness(&mut self) {
        self.spent = 0;
        for id in std::mem::take(&mut self.carry) {
            if let Some(entry) = self.table.reach(id) {
                entry.carried = false;
            }
            self.serve(id);
        }
        let ready = std::mem::take(&mut self.ready);
        for event in &ready {
            if event.token == WAKE {
                continue;
            }
            let id = self.table.id_of(event.token);
            if event.writable
                && let Some(entry) = self.table.touch(id)
                && entry.conn.is_blocked()
            {
                entry.conn.unblock();
                self.owe(id);
            }
            if event.ended
                && let Some(entry) = self.table.touch(id)
            {
                entry.ended = true;
                if entry.takes && !entry.conn.is_open() {
                    // A poll whose client has gone: what it would be given would lie until its lease ran out.
                    self.hang_up(id, "the peer ended the stream");
                    continue;
                }
            }
            if event.readable || event.ended {
                self.serve(id);
            }
        }
        self.ready = ready;
    }

    /// Reads, as long as the turn's budget lasts. Who comes too late stands before those who were served, or they would be
    /// served again and again.
    fn serve(&mut self, id: ConnId) {
        if self.spent < TURN_BUDGET_BYTES {
            self.drive(id);
        } else if let Some(entry) = self.table.reach(id) {
            entry.unread = true;
            if entry.is_carried_anew() {
                self.carry.push(id);
            }
        }
    }

    /// So many bytes more were worked on for the connection that is being read.
    pub(super) fn work(&mut self, bytes: usize) {
        self.worked += bytes;
        self.spent += bytes;
    }

    /// Reads until the socket is empty, the budget is used or the client has to wait.
    fn drive(&mut self, id: ConnId) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut out = std::mem::take(&mut self.out);
        let mut budget = READ_BUDGET_BYTES;
        self.worked = 0;
        if self.table.peek(id).is_some_and(|entry| entry.conn.has_tail() && entry.conn.accepts(&self.live.limits)) {
            // What was read before comes before anything fresh.
            self.feed(id, &mut [], &mut out);
        }
        while let Some(entry) = self.table.reach(id) {
            let spent = budget == 0 || self.worked >= READ_BUDGET_BYTES || self.spent >= TURN_BUDGET_BYTES;
            if spent || !entry.conn.accepts(&self.live.limits) {
                entry.unread = true;
                break;
            }
            match entry.socket.read(&mut scratch) {
                Ok(0) => {
                    entry.unread = false;
                    self.end_of_stream(id);
                    break;
                }
                Ok(read) => {
                    entry.conn.heard(self.now.0);
                    self.counts.bytes_in += read as u64;
                    budget = budget.saturating_sub(read);
                    self.spent += read;
                    let emptied = read < scratch.len() && !entry.ended;
                    entry.unread = !emptied;
                    if let Some(fresh) = scratch.get_mut(..read) {
                        self.feed(id, fresh, &mut out);
                    }
                    if emptied {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    entry.unread = false;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    log::debug!("{id}: {error}");
                    self.hang_up(id, "the connection failed");
                    break;
                }
            }
        }
        self.scratch = scratch;
        if out.capacity() <= SCRATCH_BYTES {
            self.out = out;
        }
        if self.table.peek(id).is_some_and(|entry| !entry.is_quiet()) {
            // Most messages are answered on the spot and change nothing that would have to be settled.
            self.table.touch(id);
            // At once: in one turn thousands may have begun a message.
            self.weigh(id);
            self.shed();
        }
    }

    /// Goes on with what was read before: an answer has come, and the client may be heard again.
    pub(super) fn resume(&mut self, id: ConnId) {
        let Some(entry) = self.table.touch(id) else { return };
        if let Some(intent) = entry.conn.unpark() {
            let mut out = Vec::new();
            self.take_on(id, intent, &mut out);
            self.emit(id, &mut out);
        }
        let Some(entry) = self.table.touch(id) else { return };
        self.worked = 0;
        if entry.conn.has_tail() && entry.conn.accepts(&self.live.limits) {
            self.feed(id, &mut [], &mut Vec::new());
        }
        // What the kernel still holds is carried over when the turn settles, once however many answers came.
    }

    /// Takes steps through what is unused and what is fresh, and writes the replies in one piece.
    fn feed(&mut self, id: ConnId, fresh: &mut [u8], out: &mut Vec<u8>) {
        let Some(entry) = self.table.reach(id) else { return };
        if !entry.conn.has_tail() {
            let used = self.contained_steps(id, fresh, out);
            if let (Some(rest), Some(entry)) = (fresh.get(used..), self.table.reach(id))
                && !rest.is_empty()
            {
                entry.conn.keep_tail(rest.to_vec());
            }
        } else {
            let mut tail = entry.conn.take_tail();
            tail.extend_from_slice(fresh);
            let used = self.contained_steps(id, &mut tail, out);
            if used < tail.len()
                && let Some(entry) = self.table.reach(id)
            {
                tail.drain(..used);
                entry.conn.keep_tail(tail);
            }
        }
        self.emit(id, out);
    }

    /// The steps of one read. Where the connection's own code panics, whole replies and a half one lie in `out`, and a half
    /// message in the inflater: neither is used again.
    fn contained_steps(&mut self, id: ConnId, input: &mut [u8], out: &mut Vec<u8>) -> usize {
        if let Some(used) = panics::contain(|| self.steps(id, input, out)) {
            return used;
        }
        out.clear();
        self.inflater = Inflater::default();
        self.outlive_panic(id);
        input.len()
    }

    fn steps(&mut self, id: ConnId, input: &mut [u8], out: &mut Vec<u8>) -> usize {
        let mut used = 0;
        let mut gathered = self.table.reach(id).map_or(0, |entry| entry.conn.gathered());
        while used < input.len() {
            let Some(entry) = self.table.reach(id) else { return input.len() };
            if entry.conn.is_closing() {
                return input.len();
            }
            if !entry.conn.accepts(&self.live.limits)
                || self.worked >= READ_BUDGET_BYTES
                || self.spent >= TURN_BUDGET_BYTES
            {
                // Whole requests may stay in the tail, and what makes room for them (the outbox drained) is no event of
                // the socket: settling puts the connection on the carry-over list as soon as it accepts again.
                entry.unread = true;
                break;
            }
            let Some(rest) = input.get_mut(used..) else { break };
            let rest_len = rest.len();
            let (step_used, step) =
                panics::alone(|| entry.conn.next(rest, &self.live.limits, self.now, &mut self.inflater, out));
            used += step_used;
            // A message is charged as what it comes to.
            let inflated = self.inflater.take_inflated();
            self.worked += inflated;
            self.spent += inflated;
            self.counts.inflated_bytes += inflated as u64;
            let cost = step_used + inflated;
            if !matches!(step, Step::More) {
                // A message that came in pieces is worked on whole when its last one has come.
                let whole = std::mem::take(&mut gathered);
                self.worked += whole;
                self.spent += whole;
            }
            match step {
                Step::More => {
                    // A message in pieces is paid for as it comes; its last piece is charged with it.
                    let charged = entry.conn.charge(Spent::Part, cost, &self.live.limits, self.now.0);
                    self.enforce(id, charged, out);
                    break;
                }
                Step::Handled(spent) => {
                    self.counts.messages_in += 1;
                    let charged = entry.conn.charge(spent, cost, &self.live.limits, self.now.0);
                    self.enforce(id, charged, out);
                }
                Step::Intent(intent) => {
                    self.counts.messages_in += 1;
                    let is_agents = entry.conn.open().is_some_and(|open| open.session.dialect() == Name::Agents);
                    self.counts.agents_in += u64::from(is_agents);
                    let spent = if matches!(intent, Intent::Complain(_)) { Spent::Nonsense } else { Spent::Message };
                    let charged = entry.conn.charge(spent, cost, &self.live.limits, self.now.0);
                    self.take_on(id, intent, out);
                    self.enforce(id, charged, out);
                }
                Step::Announced { head } => {
                    // Nothing is used yet; a refusal ends the connection, and what is left is thrown away above.
                    if self.hear_of_body(id, &head) {
                        break;
                    }
                }
                Step::Request { head, body } => {
                    let early = rest_len - step_used;
                    self.work(body.len());
                    self.take_request(id, &head, body, early);
                }
                Step::Reject(reject) => self.turn_away(id, &reject),
                Step::Fault(close) => {
                    self.emit(id, out);
                    self.close_with(id, close);
                }
            }
        }
        used
    }

    /// The connection's own code has panicked, and nobody else's: it alone is closed, or its request answered with 500.
    pub(super) fn outlive_panic(&mut self, id: ConnId) {
        self.wiring.status.metrics.handler_panics.inc();
        self.turn_away(id, &Reject::new(Reason::Internal, "the code that served this connection failed"));
        self.wiring.status.panics.note(self.now.0);
    }

    /// A client that floods is told so, behind what it was answered.
    fn enforce(&mut self, id: ConnId, charged: Result<(), Close>, out: &mut Vec<u8>) {
        if let Err(close) = charged {
            self.emit(id, out);
            self.close_with(id, close);
        }
    }

    /// Writes at once what was just said, when nothing stands before it; the rest is queued.
    pub(super) fn emit(&mut self, id: ConnId, out: &mut Vec<u8>) {
        if out.is_empty() {
            return;
        }
        self.work(out.len());
        if let Some(entry) = self.table.reach(id) {
            if let Some(packed) = entry.conn.window().and_then(|window| self.packer.pack(out, window)) {
                *out = packed;
            }
            let mut written = 0;
            if entry.conn.outbox.is_empty() && !entry.conn.is_blocked() {
                match entry.socket.write(out) {
                    Ok(sent) => written = sent,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        log::debug!("{id}: {error}");
                        out.clear();
                        self.hang_up(id, "the connection failed");
                        return;
                    }
                }
                self.counts.bytes_out += written as u64;
                self.counts.messages_out += 1;
                let is_agents = entry.conn.open().is_some_and(|open| open.session.dialect() == Name::Agents);
                self.counts.agents_out += u64::from(is_agents);
            }
            if let Some(rest) = out.get(written..)
                && !rest.is_empty()
            {
                entry.conn.outbox.push(bytes::Bytes::copy_from_slice(rest));
                self.table.touch(id);
                self.owe(id);
            }
        }
        out.clear();
    }

    /// The peer sends no more. A program that ended its side after its request is still given the answer; a WebSocket
    /// without a close frame is broken off.
    fn end_of_stream(&mut self, id: ConnId) {
        let Some(entry) = self.table.touch(id) else { return };
        entry.ended = true;
        if entry.conn.is_open() || entry.conn.outbox.is_empty() {
            self.hang_up(id, "the peer ended the stream");
        } else {
            entry.conn.close(self.now.0);
        }
    }

    /// Nobody is there any more.
    pub(super) fn hang_up(&mut self, id: ConnId, why: &str) {
        let Some(entry) = self.table.touch(id) else { return };
        match entry.conn.phase() {
            Phase::Open(_) => {
                if log::log_enabled!(log::Level::Debug) {
                    log::debug!(conn = id.to_string().as_str(), client = entry.client.to_string().as_str(); "closed without a close frame: {why}");
                }
            }
            Phase::Dead | Phase::Closing { .. } | Phase::Head { .. } | Phase::Asked(_) => log::debug!("{id}: {why}"),
        }
        entry.conn.die();
    }

    pub(super) fn meet_deadlines(&mut self) {
        let mut due = Vec::new();
        self.deadlines.due(self.now.0, &mut due);
        for (id, tick) in due {
            let Some(entry) = self.table.touch(id) else { continue };
            if entry.armed != tick {
                continue;
            }
            entry.armed = 0;
            if let Some((at, lapse)) = entry.conn.lapse(self.now, &self.live.limits)
                && at <= self.now.0
            {
                self.lapse(id, lapse);
            }
        }
        self.meet_dues();
        while let Some((at, id)) = self.leaving.last().copied()
            && at <= self.now.0
        {
            self.leaving.pop();
            self.dismiss(id);
        }
    }

    fn lapse(&mut self, id: ConnId, lapse: Lapse) {
        let Some(entry) = self.table.touch(id) else { return };
        match lapse {
            Lapse::Idle | Lapse::Close => self.hang_up(id, "a deadline has passed"),
            Lapse::Handshake if !entry.conn.has_tail() => self.hang_up(id, "it asked nothing"),
            Lapse::Handshake => {
                self.turn_away(id, &Reject::new(Reason::HandshakeTimeout, "the request was not complete in time"));
            }
            Lapse::Answer => self.give_up_waiting(id),
            Lapse::Ping => {
                let mut out = Vec::new();
                ws::frame::put_ping(&mut out, b"");
                entry.conn.pinged(self.now.0);
                self.emit(id, &mut out);
            }
            Lapse::Pong => self.close_with(id, Close::NO_PONG),
            Lapse::Stall => {
                self.close_with(id, Close::TOO_SLOW);
                self.hang_up(id, "it took no bytes in time");
            }
            Lapse::Slowed => {
                entry.conn.speed_up();
                self.resume(id);
            }
            Lapse::Message => self.close_with(id, Close::MESSAGE_TIMEOUT),
            Lapse::Credential => {
                if entry.conn.has_expired(self.now.1) {
                    self.close_with(id, Close::TOKEN_EXPIRED);
                } else if let Some(warning) = entry.conn.warn(self.now.1) {
                    self.queue(id, ws::frame::text(&warning));
                }
            }
            Lapse::Unauthenticated => {
                let reject = Reject::new(Reason::AuthTimeout, "no credential was shown in time");
                self.close_with(id, Close::refusing(&reject));
            }
            Lapse::Beat => {
                // Not to one whose socket takes nothing: it is not state.
                if let Some(beat) = entry.conn.beat(self.now)
                    && !entry.conn.is_blocked()
                {
                    self.queue(id, ws::frame::text(&beat));
                }
            }
        }
    }

    /// Draining: this connection's turn to go has come. One that still waits for an answer goes when it has it.
    pub(super) fn dismiss(&mut self, id: ConnId) {
        let Some(entry) = self.table.touch(id) else { return };
        if entry.takes && matches!(entry.conn.phase(), Phase::Asked(_)) {
            // A poll may wait longer than we do: it goes home with nothing, and what is on its way to it, its lease brings
            // back.
            entry.takes = false;
            entry.conn.answered(self.now.0);
            self.gone(id);
            self.answer_request(id, &dialect::tasks(&[]));
            return;
        }
        let is_new = matches!(entry.conn.phase(), Phase::Head { first: true, .. }) && self.now.0 < self.newcomers_until;
        if is_new {
            return self.leave_after(id, DISMISS_AGAIN);
        }
        let is_asking = entry.conn.waits() || matches!(entry.conn.phase(), Phase::Asked(_));
        if is_asking && !self.wiring.env.canary.is(Mutant::DrainForgets) {
            entry.conn.dismiss();
            return self.leave_after(id, DISMISS_AGAIN);
        }
        if entry.conn.is_open() {
            self.close_with(id, Close::RESTART);
        } else {
            // Not broken off: the answer to what it asked last may still be on its way.
            entry.conn.close(self.now.0);
        }
    }

    /// Its turn to go comes then.
    pub(super) fn leave_after(&mut self, id: ConnId, pause: Duration) {
        let at = self.now.0.after(pause);
        let place = self.leaving.partition_point(|(other, _)| *other > at);
        self.leaving.insert(place, (at, id));
    }
}
