//! What a request leads to: an answer, a refusal, or the opening of a socket.

use super::Reactor;
use super::poller::Poller;
use crate::admission::{self, Admitted, Decision, Door, Refused, Service, Socket};
use crate::auth;
use crate::auth::redact::redact_target;
use crate::auth::rights::Verb;
use crate::conn::{Asked, Framing, Handshake};
use crate::dialect::{self, Entrance, Intent, Opening, Query};
#[cfg(feature = "canary")]
use crate::failpoints::{self, Site};
use crate::http::{Head, Method, Reason, Reject, Response, cors};
use crate::ids::ConnId;
use crate::limits::EARLY_BYTES_MAX;
use crate::panics;
use crate::ws;

impl<P: Poller> Reactor<P> {
    /// A complete HTTP request. `early` bytes were sent behind it without waiting.
    pub(super) fn take_request(&mut self, id: ConnId, head: &Head<'_>, body: &[u8], early: usize) {
        let refusing = self.refusing_newcomers();
        let Some(decision) = self.decide(id, head, refusing) else { return };
        let Some(entry) = self.table.touch(id) else { return };
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
                if service == Service::Metrics {
                    self.read_gauges();
                }
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
                let asked = Asked::request(framing, actor, true);
                entry.conn.ask(Asked { key: Some(key.clone()), ..asked }, self.now.0);
                self.take_endpoint(id, || dialect::backend::endpoint(head, body, &key));
            }
            // (That it was verified is that the mode is `token`.)
            Ok(Admitted::Endpoint(_, _, true))
                if !decision.client.is_loopback()
                    && !self.wiring.guests.may_ask(decision.client, &self.live.limits, self.now.0) =>
            {
                let reject = Reject::new(Reason::TooManyRequests, "too many requests a second from this address");
                self.refuse_request(id, &target, &reject.into(), framing);
            }
            Ok(Admitted::Endpoint(name, actor, verified)) => {
                entry.conn.ask(Asked::request(framing, actor, verified), self.now.0);
                let env = self.wiring.env.clone();
                self.take_endpoint(id, || dialect::endpoint(name, head, body, &decision.client.to_string(), &env));
            }
            Err(refused) => self.refuse_request(id, &target, &refused, framing),
        }
    }

    /// Reads a request as its dialect does.
    fn take_endpoint(&mut self, id: ConnId, read: impl FnOnce() -> Intent) {
        let read = || {
            #[cfg(feature = "canary")]
            failpoints::pass(Site::Request);
            read()
        };
        match panics::contain(|| panics::alone(read)) {
            Some(intent) => self.take_on(id, intent, &mut Vec::new()),
            None => self.outlive_panic(id),
        }
    }

    /// What the door says to this head.
    fn decide(&self, id: ConnId, head: &Head<'_>, refusing: Option<Reason>) -> Option<Decision> {
        let entry = self.table.peek(id)?;
        let dialects = self.wiring.listeners.get(usize::from(entry.listener)).map_or(&[][..], Vec::as_slice);
        let door = Door {
            live: &self.live,
            dialects,
            peer: entry.peer,
            now: self.now.1,
            refusing,
            guests: Some((&self.wiring.guests, self.now.0)),
            revoked: &self.wiring.env.revoked,
        };
        Some(admission::decide(head, &door))
    }

    /// A request whose body is still on its way: may it come? Refused, the connection is at its end.
    pub(super) fn hear_of_body(&mut self, id: ConnId, head: &Head<'_>) -> bool {
        let Some(decision) = self.decide(id, head, self.refusing_newcomers()) else { return false };
        let Err(refused) = decision.outcome else { return true };
        let framing = Framing { keep_alive: false, head_only: head.method == Method::Head, origin: decision.origin };
        if let Some(entry) = self.table.touch(id) {
            entry.client = decision.client;
        }
        self.refuse_request(id, &redact_target(head.target), &refused, framing);
        false
    }

    /// Takes a place among the connections of its address, where addresses have accounts.
    fn seat(&mut self, id: ConnId, socket: &Socket) -> Result<(), Reject> {
        let Some(entry) = self.table.touch(id) else { return Ok(()) };
        if socket.is_guest {
            entry.guest = Some(self.wiring.guests.enter(entry.client, &self.live.limits, self.now.0)?);
        }
        Ok(())
    }

    /// What nobody counts along the way, because only who reads the metrics wants to know.
    fn read_gauges(&self) {
        let metrics = &self.wiring.status.metrics;
        metrics.operation_bytes.set(self.wiring.backlog.bytes() as i64);
        metrics.response_bytes.set(self.wiring.responses.bytes() as i64);
        metrics.address_places.set(self.wiring.guests.open() as i64);
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
        match (status.store_is_broken(), status.is_draining()) {
            (true, _) => Some(Reason::StoreBroken),
            (false, true) => Some(Reason::Draining),
            (false, false) => None,
        }
    }

    fn open_socket(&mut self, id: ConnId, socket: Socket, framing: Framing, target: &str) {
        let opening = dialect::open(&socket.target, socket.key.as_ref(), !socket.nobody);
        let handshake = Handshake {
            accept: socket.accept,
            protocol: socket.protocol,
            deflate: socket.deflate,
            principal: socket.principal,
            dialect: socket.target.dialect(),
            session: None,
            close_style: socket.close_style,
            metered: socket.metered,
            target: target.to_owned(),
        };
        let Some(entry) = self.table.touch(id) else { return };
        let rights = handshake.principal.rights.clone();
        let asked = Asked::request(framing, handshake.principal.user.clone(), socket.verified);
        entry.conn.ask(Asked { handshake: Some(handshake), ..asked }, self.now.0);
        match opening {
            Opening::Accept { join: Some(room), .. } if !rights.allows(room.as_str(), Verb::Read) => {
                self.turn_away(id, &Reject::new(Reason::Forbidden, "reading this room is not granted"));
            }
            Opening::Accept { session, greeting, join } => {
                if let Some(room) = join {
                    self.join(id, &room, &session);
                    self.start_for_signals(id, &room);
                }
                let greeting = greeting.map(|payload| ws::frame::text(&payload)).unwrap_or_default();
                self.accept(id, session, greeting);
                // Frames that came with the handshake. (Where something was asked first, they follow its answer.)
                self.resume(id);
            }
            Opening::Enter(entrance) => self.enter(id, *entrance),
            Opening::Ask(read) => self.take_on(id, Intent::Read(read), &mut Vec::new()),
            Opening::Refuse(reject) => self.turn_away(id, &reject),
        }
    }

    /// Directory first, history second: the rooms are joined before the snapshot is asked for, so that what is committed in
    /// between is delivered and what was committed before is in the snapshot.
    pub(super) fn enter(&mut self, id: ConnId, entrance: Entrance) {
        let Entrance { session, rooms, ask } = entrance;
        if rooms.iter().any(dialect::keeps_marks) {
            self.mark_now();
        }
        let Some(entry) = self.table.touch(id) else { return };
        let Some(handshake) = entry.conn.asked_of_mut().and_then(|asked| asked.handshake.as_mut()) else { return };
        let rights = handshake.principal.rights.clone();
        if !rooms.first().is_none_or(|room| rights.allows(room.as_str(), Verb::Read)) {
            self.turn_away(id, &Reject::new(Reason::Forbidden, "reading this room is not granted"));
            return;
        }
        handshake.session = Some(session.clone());
        for room in rooms.iter().filter(|room| rights.allows(room.as_str(), Verb::Read)) {
            self.join(id, room, &session);
        }
        match ask {
            Query::Read(read) => match dialect::welcome_back(&read, &self.wiring.directory) {
                Some(welcome) => {
                    self.answer_handshake(id, welcome);
                    // Frames that came with the handshake. (Where something was asked first, they follow its answer.)
                    self.resume(id);
                }
                None => self.take_on(id, Intent::Read(read), &mut Vec::new()),
            },
            Query::Write(write) => self.take_on(id, Intent::Write(write), &mut Vec::new()),
        }
    }
}
