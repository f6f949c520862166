//! What a request, a message or an answer leads to. The only place that joins connections, rooms, dialects and the store.

use bytes::Bytes;

use super::Reactor;
use super::poller::Poller;
use crate::admission::{self, Admitted, Door, Refused, Socket};
use crate::auth;
use crate::auth::redact::redact_target;
use crate::auth::rights::Verb;
use crate::conn::{Asked, Framing, Handshake, Phase};
use crate::dialect::{self, Asker, Entrance, Failure, FileTask, Intent, Opening, Query, Read, Reply, Session, Write};
use crate::http::{Head, Method, Reason, Reject, Response, cors, reply};
use crate::ids::{ConnId, RoomName};
use crate::limits::{EARLY_BYTES_MAX, REFUSAL_LINES_BURST, REFUSAL_LINES_PER_SECOND};
use crate::mailbox::{Full, Mailbox};
use crate::store::{Job, Question};
use crate::ws::{self, Close};

impl<P: Poller> Reactor<P> {
    // ---- requests -------------------------------------------------------------------------------------------------------

    /// A complete HTTP request. `early` bytes were sent behind it without waiting.
    pub(super) fn take_request(&mut self, id: ConnId, head: &Head<'_>, body: &[u8], early: usize) {
        let refusing = self.refusing_newcomers();
        let Some(entry) = self.table.touch(id) else { return };
        let (peer, listener) = (entry.peer, usize::from(entry.listener));
        let dialects = self.wiring.listeners.get(listener).map_or(&[][..], Vec::as_slice);
        let door = Door {
            live: &self.live,
            dialects,
            peer,
            now: self.now.1,
            refusing,
            guests: Some((&self.wiring.guests, self.now.0)),
        };
        let decision = admission::decide(head, &door);
        let framing = Framing {
            // The body behind an upgrade is never read, so what follows an upgrade that was answered otherwise is not taken
            // for a request (threat rows 13 and 14).
            keep_alive: head.keep_alive && refusing.is_none() && !head.wants_upgrade(),
            head_only: head.method == Method::Head,
            origin: decision.origin,
        };
        entry.client = decision.client;
        let target = redact_target(head.target);
        match decision.outcome {
            Ok(Admitted::Socket(_)) if early > EARLY_BYTES_MAX => {
                let reject = Reject::new(Reason::EarlyData, format!("{early} bytes came behind the handshake"));
                self.refuse_request(id, &target, &reject.into(), framing);
            }
            Ok(Admitted::Socket(socket)) => match self.seat(id, &socket) {
                Ok(()) => self.open_socket(id, *socket, framing, &target),
                Err(reject) => {
                    let accept = socket.close_style.then_some(socket.accept);
                    let refused = Refused { reject, accept, protocol: socket.protocol };
                    self.refuse_request(id, &target, &refused, framing);
                }
            },
            Ok(Admitted::Service(service)) => {
                let response = self.wiring.status.answer(service, self.now);
                self.respond(id, &response, framing);
            }
            Ok(Admitted::Preflight) => {
                let response = cors::preflight(head, framing.origin.as_deref().unwrap_or_default());
                // The preflight's own headers are all it needs.
                self.respond(id, &response, Framing { origin: None, ..framing });
            }
            Ok(Admitted::Backend(key)) => {
                let actor = key.name.as_str().into();
                entry.conn.ask(Asked { framing, actor, verified: true, handshake: None }, self.now.0);
                let intent = dialect::backend::endpoint(head, body, &key);
                self.take_on(id, intent, &mut Vec::new());
            }
            Ok(Admitted::Endpoint(name, actor, verified)) => {
                entry.conn.ask(Asked { framing, actor, verified, handshake: None }, self.now.0);
                let intent = dialect::endpoint(name, head, body, &decision.client.to_string(), &self.wiring.env);
                self.take_on(id, intent, &mut Vec::new());
            }
            Err(refused) => self.refuse_request(id, &target, &refused, framing),
        }
    }

    /// Takes a place among the connections of its address, where addresses have accounts.
    fn seat(&mut self, id: ConnId, socket: &Socket) -> Result<(), Reject> {
        let Some(entry) = self.table.touch(id) else { return Ok(()) };
        if socket.is_guest {
            entry.guest = Some(self.wiring.guests.enter(entry.client, &self.live.limits, self.now.0)?);
        }
        Ok(())
    }

    fn refuse_request(&mut self, id: ConnId, target: &str, refused: &Refused, framing: Framing) {
        let Some(entry) = self.table.peek(id) else { return };
        let client = entry.client;
        if auth::is_guess(&refused.reject) && !client.is_loopback() {
            self.wiring.guests.failed(client, self.now.0);
        }
        self.log_refusal(id, client, target, &refused.reject);
        match refused.accept {
            Some(accept) => self.accept_and_close(id, &accept, refused.protocol.as_deref(), &refused.reject),
            None => self.respond(id, &Response::reject(&refused.reject), framing),
        }
    }

    fn refusing_newcomers(&self) -> Option<Reason> {
        let status = &self.wiring.status;
        match (status.store_is_broken(), self.draining || status.is_draining()) {
            (true, _) => Some(Reason::StoreBroken),
            (false, true) => Some(Reason::Draining),
            (false, false) => None,
        }
    }

    fn open_socket(&mut self, id: ConnId, socket: Socket, framing: Framing, target: &str) {
        let handshake = Handshake {
            accept: socket.accept,
            protocol: socket.protocol,
            principal: socket.principal,
            session: None,
            close_style: socket.close_style,
            metered: socket.metered,
            target: target.to_owned(),
        };
        let Some(entry) = self.table.touch(id) else { return };
        let actor = handshake.principal.user.clone();
        let rights = handshake.principal.rights.clone();
        let verified = socket.verified;
        entry.conn.ask(Asked { framing, actor, verified, handshake: Some(handshake) }, self.now.0);
        match dialect::open(&socket.target, socket.key.as_ref(), !socket.nobody) {
            Opening::Accept { join: Some(room), .. } if !rights.allows(room.as_str(), Verb::Read) => {
                self.turn_away(id, &Reject::new(Reason::Forbidden, "reading this room is not granted"));
            }
            Opening::Accept { session, greeting, join } => {
                let membership = join.map(|room| self.join(id, &room, &session));
                let greeting = greeting.map(|payload| ws::frame::text(&payload)).unwrap_or_default();
                if let Some(Some((room, member))) = membership
                    && let Some(room) = self.hub.room_mut(room)
                {
                    let seq = room.end();
                    room.start(member, seq);
                }
                self.accept(id, session, greeting);
            }
            Opening::Enter(_) => {}
            Opening::Ask(read) => self.take_on(id, Intent::Read(read), &mut Vec::new()),
            Opening::Refuse(reject) => self.turn_away(id, &reject),
        }
    }

    // ---- intents --------------------------------------------------------------------------------------------------------

    /// Does what a client asks for, or parks it when it has to wait.
    pub(super) fn take_on(&mut self, id: ConnId, intent: Intent, out: &mut Vec<u8>) {
        let Some(entry) = self.table.touch(id) else { return };
        match intent {
            Intent::Ignore => {}
            Intent::Reply(payload) | Intent::Complain(payload) if entry.conn.may_reply() => {
                ws::frame::put_text(out, &payload)
            }
            Intent::ReplyThenClose(payload) if entry.conn.may_reply() => {
                ws::frame::put_text(out, &payload);
                self.emit(id, out);
                self.close_with(id, Close::DONE);
            }
            Intent::Farewell { echo, code } if entry.conn.may_reply() => {
                ws::frame::put_close(out, echo.as_ref());
                self.emit(id, out);
                self.note_close(id, code, "by the peer");
            }
            Intent::Respond(response) => self.answer_request(id, &response),
            Intent::Read(read) if entry.conn.may_reply() => self.ask(id, read),
            Intent::Write(write) if entry.conn.may_write() => {
                // What was said before stands before whatever becomes of this.
                self.emit(id, out);
                self.submit(id, write);
            }
            Intent::Reload => self.reload(id),
            waiting => entry.conn.park(waiting, self.now.0),
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
            Ok(()) => entry.conn.asked(true, self.now.0),
            Err(Full(Question::Ask { read, .. })) => {
                entry.conn.park(Intent::Read(read), self.now.0);
                self.starved.push(id);
            }
            Err(Full(Question::Page { .. } | Question::Census { .. })) => {}
        }
    }

    fn submit(&mut self, id: ConnId, write: Box<Write>) {
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
        let origin = if entry.conn.is_open() { id.pack() } else { 0 };
        let shards = self.wiring.writers.len();
        let Some(writer) = self.wiring.writers.get_mut(write.room.shard(shards)) else { return };
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
            self.unflushed.push(id);
        }
    }

    // ---- answers --------------------------------------------------------------------------------------------------------

    /// The store has answered a question of this connection, if it is still there.
    pub(super) fn take_answer(&mut self, id: ConnId, reply: Reply) {
        let Some(entry) = self.table.touch(id) else { return };
        entry.conn.answered(self.now.0);
        match entry.conn.phase() {
            Phase::Open(_) => self.answer_socket(id, reply),
            Phase::Asked(asked) if asked.handshake.is_some() => self.answer_handshake(id, reply),
            Phase::Asked(_) => self.answer_endpoint(id, reply),
            // The client gave up waiting, or left: its question was carried out all the same.
            Phase::Head { .. } | Phase::Closing { .. } | Phase::Dead => {}
        }
        self.resume(id);
    }

    fn answer_socket(&mut self, id: ConnId, reply: Reply) {
        match reply {
            Reply::Silence => {}
            Reply::Frame(frame) => self.queue(id, frame),
            Reply::Close(reject) => self.close_with(id, Close::refusing(&reject)),
            other => {
                log::error!("{id}: an answer that no socket can be given: {other:?}");
                self.close_with(id, Close::INTERNAL);
            }
        }
    }

    fn answer_endpoint(&mut self, id: ConnId, reply: Reply) {
        match reply {
            Reply::Response(response) => self.answer_request(id, &response),
            Reply::Reject(reject) | Reply::Close(reject) => self.answer_request(id, &Response::reject(&reject)),
            other => {
                log::error!("{id}: an answer that no request can be given: {other:?}");
                self.answer_request(id, &Response::reject(&Reject::new(Reason::Internal, "a wrong kind of answer")));
            }
        }
    }

    /// Directory first, history second: the room is joined before its snapshot is asked for, so that what is committed in
    /// between is delivered and what was committed before is in the snapshot.
    fn answer_handshake(&mut self, id: ConnId, reply: Reply) {
        match reply {
            Reply::Found(entrance) => {
                let Entrance { session, rooms, ask } = *entrance;
                let (Some(room), Query::Read(welcome)) = (rooms.first().cloned(), ask) else { return };
                let Some(entry) = self.table.touch(id) else { return };
                let Some(handshake) = entry.conn.asked_of_mut().and_then(|asked| asked.handshake.as_mut()) else {
                    return;
                };
                if !handshake.principal.rights.allows(room.as_str(), Verb::Read) {
                    self.turn_away(id, &Reject::new(Reason::Forbidden, "reading this room is not granted"));
                    return;
                }
                handshake.session = Some(session.clone());
                self.join(id, &room, &session);
                self.take_on(id, Intent::Read(welcome), &mut Vec::new());
            }
            Reply::Welcome { frame, starts } => {
                let Some(entry) = self.table.touch(id) else { return };
                let session = entry.conn.asked_of_mut().and_then(|asked| asked.handshake.as_mut()?.session.take());
                if let Some((room, member)) = entry.memberships.as_slice().first().copied()
                    && let Some(room) = self.hub.room_mut(room)
                {
                    room.start(member, starts.first().map_or(crate::ids::Seq(0), |start| start.after));
                }
                match session {
                    Some(session) => self.accept(id, session, frame),
                    None => self.turn_away(id, &Reject::new(Reason::Internal, "a welcome without a room")),
                }
            }
            Reply::Reject(reject) | Reply::Close(reject) => self.turn_away(id, &reject),
            other => {
                log::error!("{id}: an answer that no handshake can be given: {other:?}");
                self.turn_away(id, &Reject::new(Reason::Internal, "a wrong kind of answer"));
            }
        }
    }

    fn join(
        &mut self,
        id: ConnId,
        room: &RoomName,
        session: &Session,
    ) -> Option<(crate::room::RoomKey, crate::room::MemberKey)> {
        let bit = session.dialect().bit();
        let receipt = (self.hub.entered(room) & bit == 0)
            .then(|| self.wiring.directory.enter(room, self.wiring.index, self.hub.entered(room) | bit));
        let membership = self.hub.join(room, receipt, id, session.dialect(), session.hears_itself())?;
        self.table.touch(id)?.memberships.add(membership);
        Some(membership)
    }

    /// The store has been silent for too long. What was never handed over is refused, which is certain; a write that was
    /// may still come true, so nothing is said of it and the socket is closed.
    pub(super) fn give_up_waiting(&mut self, id: ConnId) {
        let Some(entry) = self.table.touch(id) else { return };
        if entry.conn.may_reply()
            && let Some(intent) = entry.conn.unpark()
        {
            match intent {
                Intent::Write(write) => self.refuse_unasked(id, dialect::failed(&write, Failure::Busy)),
                Intent::Read(read) => self.refuse_unasked(id, dialect::read_failed(&read, Failure::Busy)),
                other => entry.conn.park(other, self.now.0),
            }
            return;
        }
        let reject = Reject::new(Reason::OutcomeUnknown, "the store has not answered in time");
        match entry.conn.phase() {
            Phase::Open(_) => self.close_with(id, Close::refusing(&reject)),
            _ => self.turn_away(id, &reject),
        }
    }

    fn refuse_unasked(&mut self, id: ConnId, reply: Reply) {
        match self.table.peek(id).map(|entry| entry.conn.is_open()) {
            Some(true) => self.answer_socket(id, reply),
            Some(false) => match reply {
                Reply::Response(response) => self.answer_request(id, &response),
                _ => self.turn_away(id, &Failure::Busy.reject()),
            },
            None => {}
        }
        self.resume(id);
    }

    // ---- what goes out --------------------------------------------------------------------------------------------------

    pub(super) fn queue(&mut self, id: ConnId, frame: Bytes) {
        if let Some(entry) = self.table.touch(id) {
            entry.conn.outbox.push(frame);
            self.unflushed.push(id);
        }
    }

    fn accept(&mut self, id: ConnId, session: Session, greeting: Bytes) {
        let Some(entry) = self.table.touch(id) else { return };
        let Some(Asked { handshake: Some(handshake), .. }) = entry.conn.asked_of() else { return };
        let mut head = Vec::with_capacity(256);
        reply::switching(&mut head, &handshake.accept, handshake.protocol.as_deref());
        let principal = handshake.principal.clone();
        log::info!(
            conn = id.to_string().as_str(), client = entry.client.to_string().as_str(),
            target = handshake.target.as_str(), user = &*principal.user, status = 101;
            "accepted"
        );
        let metered = handshake.metered;
        let verified = entry.conn.asked_of().is_some_and(|asked| asked.verified);
        entry.conn.upgrade(session, &principal, verified, metered, self.now.0);
        entry.conn.outbox.push(head.into());
        entry.conn.outbox.push(greeting);
        self.unflushed.push(id);
        if self.draining {
            self.leaving.push((self.now.0, id));
        }
        // Frames that came with the handshake.
        self.resume(id);
    }

    /// Answers the request in hand, in its own framing.
    fn answer_request(&mut self, id: ConnId, response: &Response) {
        let framing = self.table.peek(id).and_then(|entry| entry.conn.asked_of()).map(|asked| asked.framing.clone());
        self.respond(id, response, framing.unwrap_or_default());
    }

    fn respond(&mut self, id: ConnId, response: &Response, framing: Framing) {
        let Some(entry) = self.table.touch(id) else { return };
        let weight = response.body.len();
        let refusal;
        let response = if self.wiring.responses.admit(weight) {
            entry.response_bytes += weight;
            response
        } else {
            let reject = Reject::new(Reason::StoreBusy, "too many responses wait for slow readers");
            refusal = Response::reject(&reject);
            &refusal
        };
        let mut out = Vec::with_capacity(response.body.len() + 512);
        let with_cors;
        let response = match &framing.origin {
            Some(origin) => {
                let mut copy = response.clone();
                copy.headers.extend(cors::headers(origin));
                with_cors = copy;
                &with_cors
            }
            None => response,
        };
        reply::encode(
            response,
            &mut out,
            reply::Framing { head_only: framing.head_only, keep_alive: framing.keep_alive, date: None },
        );
        self.queue(id, out.into());
        let Some(entry) = self.table.touch(id) else { return };
        if framing.keep_alive {
            entry.conn.again(self.now.0);
        } else {
            entry.conn.close(self.now.0);
        }
    }

    /// Refuses whatever the connection is in the middle of.
    pub(super) fn turn_away(&mut self, id: ConnId, reject: &Reject) {
        let Some(entry) = self.table.touch(id) else { return };
        match entry.conn.phase() {
            Phase::Open(_) => self.close_with(id, Close::refusing(reject)),
            Phase::Asked(asked) => {
                let framing = Framing { keep_alive: false, ..asked.framing.clone() };
                let handshake = asked.handshake.clone();
                // As the door found it: the peer may be a proxy of ours.
                let client = entry.client;
                match handshake {
                    Some(handshake) => {
                        self.log_refusal(id, client, &handshake.target, reject);
                        if handshake.close_style {
                            self.accept_and_close(id, &handshake.accept, handshake.protocol.as_deref(), reject);
                        } else {
                            self.respond(id, &Response::reject(reject), framing);
                        }
                    }
                    None => self.respond(id, &Response::reject(reject), framing),
                }
            }
            Phase::Head { .. } => {
                let peer = entry.peer.ip();
                self.log_refusal(id, peer, "-", reject);
                self.respond(id, &Response::reject(reject), Framing::default());
            }
            Phase::Closing { .. } | Phase::Dead => {}
        }
    }

    /// Browsers cannot read a refused handshake, so it is accepted and closed with the documented code.
    fn accept_and_close(&mut self, id: ConnId, accept: &[u8], protocol: Option<&str>, reject: &Reject) {
        let mut out = Vec::with_capacity(256);
        reply::switching(&mut out, accept, protocol);
        let close = Close::refusing(reject);
        ws::frame::put_close(&mut out, Some(&close));
        self.queue(id, out.into());
        // Only our own codes are counted: a peer may choose among thousands.
        self.wiring.status.metrics.closed(close.code);
        self.note_close(id, close.code, &close.reason);
    }

    pub(super) fn close_with(&mut self, id: ConnId, close: Close) {
        let Some(entry) = self.table.touch(id) else { return };
        if !entry.conn.is_open() {
            return;
        }
        let mut out = Vec::new();
        ws::frame::put_close(&mut out, Some(&close));
        self.queue(id, out.into());
        // Only our own codes are counted: a peer may choose among thousands.
        self.wiring.status.metrics.closed(close.code);
        self.note_close(id, close.code, &close.reason);
    }

    /// The close frame is on its way, ours or the answer to the peer's.
    pub(super) fn note_close(&mut self, id: ConnId, code: u16, reason: &str) {
        let Some(entry) = self.table.touch(id) else { return };
        log::info!(
            conn = id.to_string().as_str(), client = entry.client.to_string().as_str(), code = code, reason = reason;
            "closed"
        );
        entry.conn.close(self.now.0);
    }

    fn log_refusal(&mut self, id: ConnId, client: std::net::IpAddr, target: &str, reject: &Reject) {
        let row = reject.row();
        self.wiring.status.metrics.rejected(row.name);
        if self.refusal_lines.charge(self.now.0, 1, REFUSAL_LINES_PER_SECOND, REFUSAL_LINES_BURST).is_err() {
            return;
        }
        log::info!(
            conn = id.to_string().as_str(), client = client.to_string().as_str(), target = target,
            status = row.status, reason = row.name, detail = reject.detail.as_ref();
            "refused"
        );
    }
}
