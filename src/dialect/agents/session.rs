//! What one socket asks for: each message becomes one intent. A few bytes of state, no I/O.
//!
//! Any number of sockets may be in a session: each hears all of its events (Y5).

use std::sync::Arc;

use super::approvals::Verdict;
use super::paths::Target;
use super::reads::Read;
use super::runs::Order;
use super::sessions;
use super::wire::{self, Message};
use super::writes::{Asked, Change};
use crate::dialect::{self, Intent, Opening, Write};
use crate::http::{Reason, Reject};

/// One socket of this dialect.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Canonical.
    pub id: Arc<str>,
    /// A `ping` is answered, not refused.
    pub pong: bool,
}

/// The session must be found before the 101.
pub fn open(target: &Target) -> Opening {
    match &target.session_id {
        Some(text) => Opening::Ask(Box::new(dialect::Read::Agents(Read::Resolve { text: text.clone() }))),
        None => Opening::Refuse(Reject::new(Reason::BadSession, "the query parameter session_id is missing")),
    }
}

impl Session {
    pub fn on_text(&mut self, text: &str) -> Intent {
        let session = || self.id.to_string();
        let decide = |request, verdict| {
            let asked = Asked::Socket { session: session() };
            self.write(Change::Decide { request, verdict, asked })
        };
        match wire::parse(text) {
            Ok(Message::Execute { command, plan }) => {
                let order = Order { command, plan, budget_limit_usd: None };
                self.write(Change::Execute { order, asked: Asked::Socket { session: session() } })
            }
            Ok(Message::Approve { request }) => decide(request, Verdict::Approve),
            Ok(Message::Reject { request, reason }) => decide(request, Verdict::Reject { reason }),
            Ok(Message::Edit { request, args }) => decide(request, Verdict::Edit { args }),
            Ok(Message::Cancel { execution }) => self.write(Change::Cancel { session: session(), execution }),
            // Its clients take any frame for an answer, and one of their scripts stops at a type that it does not know (Y10).
            Ok(Message::Other { kind }) if self.pong && kind == "ping" => self.say("pong", "{}".to_owned()),
            Ok(Message::Other { kind }) => self.complain(&format!("Unknown message type: {kind}")),
            Err(why) => self.complain(why),
        }
    }

    /// The original sent a Python repr, `'text'`.
    pub fn on_binary(&mut self) -> Intent {
        self.complain("Invalid message: this socket takes text frames only")
    }

    fn complain(&self, why: &str) -> Intent {
        self.say("error", wire::json(&wire::Error::of(why)))
    }

    /// By way of the writer, which knows the time: every frame of this dialect bears one.
    fn say(&self, kind: &'static str, data: String) -> Intent {
        self.write(Change::Say { kind, data })
    }

    fn write(&self, change: Change) -> Intent {
        let room = sessions::room_of(&self.id);
        Intent::Write(Box::new(Write { room, op: None, change: dialect::Change::Agents(change) }))
    }
}
