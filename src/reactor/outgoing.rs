//! What goes out besides events: the 101, responses, refusals, closes.

use std::time::Duration;

use bytes::Bytes;
use log::Level;

use super::Reactor;
use super::poller::Poller;
use crate::conn::{Asked, Framing, Phase};
use crate::dialect::{Hello, Name, Session};
use crate::http::{Reason, Reject, Response, cors, reply};
use crate::ids::ConnId;
use crate::limits::{REFUSAL_LINES_BURST, REFUSAL_LINES_PER_SECOND};
use crate::ws::{self, Close};

impl<P: Poller> Reactor<P> {
    pub(super) fn queue(&mut self, id: ConnId, frame: Bytes) {
        self.work(frame.len());
        if let Some(entry) = self.table.touch(id) {
            entry.conn.outbox.push(self.packer.reply(frame, entry.conn.window()));
            self.owe(id);
        }
    }

    pub(super) fn accept(&mut self, id: ConnId, session: Session, greeting: Bytes) {
        let Some(entry) = self.table.touch(id) else { return };
        let Some(Asked { handshake: Some(handshake), .. }) = entry.conn.asked_of() else { return };
        let mut head = Vec::with_capacity(256);
        reply::switching(&mut head, &handshake.accept, handshake.protocol.as_deref(), handshake.deflate);
        let deflate = handshake.deflate;
        let principal = handshake.principal.clone();
        // Not at `info`: where many come and go, two lines each were a quarter of what a connection costs (PERF.md).
        if log::log_enabled!(Level::Debug) {
            log::debug!(
                conn = id.to_string().as_str(), client = entry.client.to_string().as_str(),
                target = handshake.target.as_str(), user = &*principal.user, status = 101;
                "accepted"
            );
        }
        let metered = handshake.metered;
        self.counts.agents_sockets += u64::from(session.dialect() == Name::Agents);
        let verified = entry.conn.asked_of().is_some_and(|asked| asked.verified);
        let mut session = session;
        for (room, _) in entry.memberships.as_slice() {
            // The members of a room then hold its name once, not once each.
            if let Some(room) = self.hub.room(*room) {
                session.share_name(room.name());
            }
        }
        entry.conn.upgrade(session, &principal, verified, metered, self.now.0);
        if let Some(deflate) = deflate {
            entry.conn.compress(deflate.window);
        }
        entry.conn.outbox.push(head.into());
        self.queue(id, greeting);
        self.greet(id);
        if self.draining {
            self.leave_after(id, Duration::ZERO);
        }
    }

    /// Answers the request in hand, in its own framing.
    pub(super) fn answer_request(&mut self, id: ConnId, response: &Response) {
        let framing = self.table.peek(id).and_then(|entry| entry.conn.asked_of()).map(|asked| asked.framing.clone());
        self.respond(id, response, framing.unwrap_or_default());
    }

    pub(super) fn respond(&mut self, id: ConnId, response: &Response, framing: Framing) {
        let Some(entry) = self.table.touch(id) else { return };
        let weight = response.body.len();
        let refusal;
        let response = if self.wiring.responses.admit(weight) {
            entry.response_bytes = entry.response_bytes.saturating_add(u32::try_from(weight).unwrap_or(u32::MAX));
            response
        } else {
            let reject = Reject::new(Reason::StoreBusy, "too many responses wait for slow readers");
            refusal = Response::reject(&reject);
            &refusal
        };
        // Said before it is done: a request that meets the end of a kept connection is lost without an answer.
        let keep_alive = framing.keep_alive && !self.draining;
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
        reply::encode(response, &mut out, reply::Framing { head_only: framing.head_only, keep_alive, date: None });
        self.queue(id, out.into());
        self.end_request(id, keep_alive);
    }

    /// Its response is on its way.
    pub(super) fn end_request(&mut self, id: ConnId, keep_alive: bool) {
        let Some(entry) = self.table.touch(id) else { return };
        if keep_alive {
            entry.conn.again(self.now.0);
        } else {
            entry.conn.close(self.now.0);
        }
    }

    /// Tells a client who it is and what it may expect, in the dialects that say so.
    pub(super) fn greet(&mut self, id: ConnId) {
        let Some(open) = self.table.peek(id).and_then(|entry| entry.conn.open()) else { return };
        let hello = open.session.hello(&Hello {
            conn: id,
            user: &open.actor,
            durability: self.wiring.status.durability,
            ping: self.live.limits.ping,
            expires_in: open.expires_in(self.now.1),
        });
        if let Some(hello) = hello {
            self.queue(id, ws::frame::text(&hello));
        }
    }

    /// Refuses whatever the connection is in the middle of.
    pub(super) fn turn_away(&mut self, id: ConnId, reject: &Reject) {
        let Some(entry) = self.table.touch(id) else { return };
        match entry.conn.phase() {
            Phase::Open(_) => self.close_with(id, Close::refusing(reject)),
            // In the middle of a response: it ends short of its last piece, which says so.
            Phase::Asked(asked) if asked.stream.as_ref().is_some_and(|stream| stream.begun) => {
                entry.conn.close(self.now.0);
            }
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
                let peer = entry.peer;
                self.log_refusal(id, peer, "-", reject);
                self.respond(id, &Response::reject(reject), Framing::default());
            }
            Phase::Closing { .. } | Phase::Dead => {}
        }
    }

    /// Browsers cannot read a refused handshake, so it is accepted and closed with the documented code.
    pub(super) fn accept_and_close(&mut self, id: ConnId, accept: &[u8], protocol: Option<&str>, reject: &Reject) {
        let mut out = Vec::with_capacity(256);
        reply::switching(&mut out, accept, protocol, None);
        let close = Close::refusing(reject);
        ws::frame::put_close(&mut out, Some(&close));
        self.queue(id, out.into());
        // Only our own codes are counted: a peer may choose among thousands.
        self.wiring.status.metrics.closed(close.code);
        self.note_close(id, Level::Info, close.code, &close.reason);
    }

    pub(super) fn close_with(&mut self, id: ConnId, close: Close) {
        let Some(entry) = self.table.touch(id) else { return };
        if !entry.conn.is_open() {
            return;
        }
        let mut out = Vec::new();
        let pause = retry_after(id, close.code);
        let bye = entry.conn.open().and_then(|open| open.session.bye(close.code, pause));
        // Whose vocabulary has no word for it finds it in the reason.
        let close =
            if close == Close::RESTART || close == Close::OVERLOADED { close.come_back_in(pause) } else { close };
        if let Some(bye) = bye {
            ws::frame::put_text(&mut out, &bye);
        }
        ws::frame::put_close(&mut out, Some(&close));
        self.queue(id, out.into());
        // Only our own codes are counted: a peer may choose among thousands.
        self.wiring.status.metrics.closed(close.code);
        // A drain closes everybody, and says so once.
        let routine = close.code == Close::RESTART.code || close.code == Close::DONE.code;
        self.note_close(id, if routine { Level::Debug } else { Level::Info }, close.code, &close.reason);
    }

    /// The close frame is on its way, ours or the answer to the peer's.
    pub(super) fn note_close(&mut self, id: ConnId, level: Level, code: u16, reason: &str) {
        let Some(entry) = self.table.touch(id) else { return };
        if log::log_enabled!(level) {
            log::log!(
                level,
                conn = id.to_string().as_str(), client = entry.client.to_string().as_str(), code = code, reason = reason;
                "closed"
            );
        }
        entry.conn.close(self.now.0);
    }

    pub(super) fn log_refusal(&mut self, id: ConnId, client: std::net::IpAddr, target: &str, reject: &Reject) {
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

/// When to come back: spread over clients, so that those who are told to go together do not come back together. Zero where
/// coming back soon is not what would help.
fn retry_after(id: ConnId, code: u16) -> Duration {
    const FROM: u64 = 250;
    const OVER: u64 = 4000;
    let spread = id.pack().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    match code {
        1012 | 1013 | 4008 | 4029 => Duration::from_millis(FROM + spread % OVER),
        _ => Duration::ZERO,
    }
}
