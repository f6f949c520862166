//! What the store's answers lead to, and what is said when there is none.

use super::Reactor;
use super::poller::Poller;
use crate::conn::{Framing, Phase};
use crate::dialect::{self, Failure, Intent, Reply};
use crate::http::{Reason, Reject, Response, cors, reply};
use crate::ids::ConnId;
use crate::ws::Close;

impl<P: Poller> Reactor<P> {
    /// The store has answered a question of this connection, if it is still there.
    pub(super) fn take_answer(&mut self, id: ConnId, reply: Reply) {
        let Some(entry) = self.table.touch(id) else { return };
        if matches!(entry.conn.phase(), Phase::Asked(_)) {
            // A poll is over. (A socket that is closing by now still owes the store the word of its end.)
            entry.takes = false;
        }
        entry.conn.answered(self.now.0);
        match entry.conn.phase() {
            Phase::Open(_) => self.answer_socket(id, reply),
            Phase::Asked(asked) if asked.handshake.is_some() => self.answer_handshake(id, reply),
            Phase::Asked(_) => self.answer_endpoint(id, reply),
            // The client gave up waiting, or left: its question was carried out all the same.
            Phase::Head { .. } | Phase::Closing { .. } | Phase::Dead => {}
        }
        // It goes on when the events that came with the answer are out: what it is told next answers a later message.
        self.answered.push(id);
    }

    pub(super) fn answer_socket(&mut self, id: ConnId, reply: Reply) {
        if !matches!(reply, Reply::Welcome { .. }) {
            // A join that came to nothing.
            self.leave_unstarted(id);
        }
        match reply {
            Reply::Silence | Reply::Later => {}
            Reply::Frame(frame) => self.queue(id, frame),
            Reply::Welcome { frame, starts, .. } => {
                self.queue(id, frame);
                self.start_all(id, &starts);
            }
            Reply::Reject(reject) | Reply::Close(reject) => self.close_with(id, Close::refusing(&reject)),
            other => {
                log::error!("{id}: an answer that no socket can be given: {other:?}");
                self.close_with(id, Close::INTERNAL);
            }
        }
    }

    fn answer_endpoint(&mut self, id: ConnId, reply: Reply) {
        match reply {
            Reply::Response(response) => self.answer_request(id, &response),
            Reply::Lines(lines) => self.take_lines(id, &lines),
            Reply::Reject(reject) | Reply::Close(reject) => self.answer_request(id, &Response::reject(&reject)),
            other => {
                log::error!("{id}: an answer that no request can be given: {other:?}");
                self.answer_request(id, &Response::reject(&Reject::new(Reason::Internal, "a wrong kind of answer")));
            }
        }
    }

    pub(super) fn answer_handshake(&mut self, id: ConnId, reply: Reply) {
        match reply {
            Reply::Found(entrance) => self.enter(id, *entrance),
            Reply::Welcome { frame, starts, .. } => {
                let Some(entry) = self.table.touch(id) else { return };
                let session = entry.conn.asked_of_mut().and_then(|asked| asked.handshake.as_mut()?.session.take());
                match session {
                    Some(session) => {
                        self.accept(id, session, frame);
                        self.start_all(id, &starts);
                    }
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

    /// Results of a stream of writes: they go out, and the next ones are carried out.
    pub(super) fn take_lines(&mut self, id: ConnId, lines: &[u8]) {
        let Some(entry) = self.table.touch(id) else { return };
        let Some(asked) = entry.conn.asked_of_mut() else { return };
        let framing = asked.framing.clone();
        let Some(stream) = asked.stream.as_mut() else { return };
        let mut out = Vec::with_capacity(lines.len() + 512);
        if !std::mem::replace(&mut stream.begun, true) {
            stream_head(&framing, &mut out);
        }
        reply::chunk(&mut out, lines);
        let next = stream.left.pop_front();
        if next.is_none() {
            reply::last_chunk(&mut out);
        }
        self.queue(id, out.into());
        match next {
            Some(write) => self.submit(id, Box::new(write)),
            None => self.end_request(id, framing.keep_alive),
        }
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
        if let Some(entry) = self.table.touch(id)
            && !entry.conn.is_open()
        {
            // A poll that the desk never heard of.
            entry.takes = false;
        }
        match self.table.peek(id).map(|entry| entry.conn.is_open()) {
            Some(true) => self.answer_socket(id, reply),
            Some(false) => match reply {
                Reply::Response(response) => self.answer_request(id, &response),
                Reply::Lines(lines) => self.take_lines(id, &lines),
                _ => self.turn_away(id, &Failure::Busy.reject()),
            },
            None => {}
        }
        self.resume(id);
    }
}

/// The head of a response whose length nobody knows yet.
fn stream_head(framing: &Framing, out: &mut Vec<u8>) {
    let mut response = Response::json(200, "");
    response.content_type = "application/x-ndjson";
    if let Some(origin) = &framing.origin {
        response.headers.extend(cors::headers(origin));
    }
    let framing = reply::Framing { head_only: framing.head_only, keep_alive: framing.keep_alive, date: None };
    reply::chunked_head(&response, out, framing);
}
