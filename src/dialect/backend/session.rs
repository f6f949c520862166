//! The socket: one message in, one intent out.
//!
//! ```text
//! take                 ─▶ the desk, which answers with tasks
//! done  fail           ─▶ ok / refused {task}
//! publish              ─▶ ok {room,epoch,seq,id?,rev?} / refused / conflict / unknown
//! session  approval    ─▶ ok / refused
//! status               ─▶ status          ping ─▶ pong
//! ```

use std::sync::Arc;

use bytes::Bytes;

use super::answers::{Asked, Via};
use super::fault::Fault;
use super::message::Message;
use super::reads::Read;
use super::wire::{self, Facts};
use super::writes::{Change, What};
use super::{Publishing, desk_room, rights};
use crate::auth::ApiKey;
use crate::dialect::agents::sessions;
use crate::dialect::{self, Desk, Hello, Intent, Write};

#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    key: Arc<ApiKey>,
}

impl Session {
    pub fn new(key: Arc<ApiKey>) -> Session {
        Session { key }
    }

    pub fn hello(&self, hello: &Hello<'_>) -> Option<Bytes> {
        Some(wire::hello(hello, &self.key.name, rights::kinds_of(&self.key)))
    }

    pub fn on_text(&mut self, text: &str) -> Intent {
        let message = match Message::parse(text) {
            Ok(message) => message,
            Err(fault) => return refuse(&fault, None, None),
        };
        self.act(&message).unwrap_or_else(|fault| refuse(&fault, message.id_to_echo(), message.task_to_echo()))
    }

    fn act(&self, message: &Message<'_>) -> Result<Intent, Fault> {
        match message.op()?.as_str() {
            "take" => self.take(message),
            "done" => {
                rights::some_tasks(&self.key)?;
                Ok(self.ask_desk(What::Done(message.held()?)))
            }
            "fail" => {
                rights::some_tasks(&self.key)?;
                Ok(self.ask_desk(What::Fail { held: message.held()?, retry: message.retry()? }))
            }
            "publish" => {
                let Publishing { publish, op, held } = message.publishing(&self.key)?;
                let asked = Asked { via: Via::Socket, id: op.as_ref().map(|op| op.0.clone()) };
                let room = publish.room.clone();
                let change = Change { key: self.key.clone(), asked, what: What::Publish { publish, held } };
                Ok(Intent::Write(Box::new(Write { room, op, change: dialect::Change::Backend(change) })))
            }
            "session" => {
                rights::sessions(&self.key)?;
                let new = message.new_session()?;
                let room = sessions::room_of(new.id.as_deref().unwrap_or_default());
                Ok(self.write(room, message.id_to_echo(), What::Session(Box::new(new))))
            }
            "approval" => {
                rights::approvals(&self.key)?;
                let wanted = message.wanted()?;
                let room = sessions::room_of(&wanted.session);
                Ok(self.write(room, message.id_to_echo(), What::Approval(Box::new(wanted))))
            }
            "status" => {
                let kinds = rights::kinds_of(&self.key);
                Ok(Intent::Read(Box::new(dialect::Read::Backend(Read::Status { kinds }))))
            }
            "ping" => Ok(Intent::Reply(wire::pong())),
            _ => Err(Fault::new(400, "unknown_op", "there is no such op")),
        }
    }

    /// No kinds at all: nothing more is taken, so that a backend can finish what it has and go.
    fn take(&self, message: &Message<'_>) -> Result<Intent, Fault> {
        let (kinds, max, lease) = (message.kinds(&self.key)?, message.max()?, message.lease()?);
        let change = dialect::Change::Desk(Desk::Take { kinds, max, lease });
        Ok(Intent::Write(Box::new(Write { room: desk_room(), op: None, change })))
    }

    fn ask_desk(&self, what: What) -> Intent {
        self.write(desk_room(), None, what)
    }

    fn write(&self, room: crate::ids::RoomName, id: Option<Arc<str>>, what: What) -> Intent {
        let change = Change { key: self.key.clone(), asked: Asked { via: Via::Socket, id }, what };
        Intent::Write(Box::new(Write { room, op: None, change: dialect::Change::Backend(change) }))
    }
}

fn refuse(fault: &Fault, id: Option<Arc<str>>, task: Option<String>) -> Intent {
    let payload = wire::refused(fault, &Facts { id: id.as_deref(), task, ..Facts::default() }, None);
    if fault.is_nonsense() { Intent::Complain(payload) } else { Intent::Reply(payload) }
}
