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

    pub fn key(&self) -> &Arc<ApiKey> {
        &self.key
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::super::testing::{key, text, told};
    use super::*;
    use crate::ids::ConnId;
    use std::time::Duration;

    fn say(rights: &[&str], message: &str) -> String {
        told(Session::new(key(rights)).on_text(message))
    }

    #[test]
    fn a_transcript_of_every_message() {
        for (message, expected) in [
            (r#"{"op":"ping"}"#, r#"{"op":"pong"}"#),
            (
                r#"{"op":"take","kinds":["execute"],"max":10,"lease_ms":5000}"#,
                "tasks None Desk(Take { kinds: Tasks(1), max: 10, lease: 5s })",
            ),
            (r#"{"op":"take"}"#, "tasks None Desk(Take { kinds: Tasks(255), max: 1, lease: 30s })"),
            (r#"{"op":"take","kinds":[]}"#, "tasks None Desk(Take { kinds: Tasks(0), max: 1, lease: 30s })"),
            (
                r#"{"op":"done","task":"17","fence":5,"result":{"any":1}}"#,
                "tasks None Done(Held { task: TaskId(17), fence: 5 })",
            ),
            (
                r#"{"op":"fail","task":"17","fence":5}"#,
                "tasks None Fail { held: Held { task: TaskId(17), fence: 5 }, retry: None }",
            ),
            (
                r#"{"op":"fail","task":"17","fence":5,"retry_ms":250}"#,
                "tasks None Fail { held: Held { task: TaskId(17), fence: 5 }, retry: Some(250ms) }",
            ),
            (
                r#"{"op":"publish","room":"workflow:7","type":"progress","data":{"a":1},"id":"p1"}"#,
                r#"workflow:7 Some("p1") Publish { publish: Publish { room: workflow:7, kind: "progress", data: b"{\"a\":1}", if_rev: None }, held: None }"#,
            ),
            (
                r#"{"op":"publish","room":"x","type":"t","data":{},"if_rev":0,"task":"17","fence":5}"#,
                r#"x None Publish { publish: Publish { room: x, kind: "t", data: b"{}", if_rev: Some(0) }, held: Some(Held { task: TaskId(17), fence: 5 }) }"#,
            ),
            (
                r#"{"op":"session","user_id":"u"}"#,
                r#"session: None Session(New { id: None, owner: Some("u"), wallet_address: None, config: None })"#,
            ),
            (
                r#"{"op":"approval","session":"test","tool_name":"pay","tool_args":{"n":1}}"#,
                r#"session:test None Approval(Wanted { session: "test", id: None, execution_id: None, tool_name: "pay", tool_args: Object {"n": Number(1)}, reason: None, amount: None, currency: None, estimated_cost: None, expires_in: None })"#,
            ),
            (r#"{"op":"status"}"#, "Backend(Status { kinds: Tasks(255) })"),
            (
                r#"{"op":"dance","id":"d","task":"9"}"#,
                r#"{"op":"refused","task":"9","id":"d","code":"unknown_op","detail":"there is no such op"}"#,
            ),
            (
                r#"{"op":"done","task":"seven","fence":5}"#,
                r#"{"op":"refused","task":"seven","code":"unknown_task","detail":"there is no such task"}"#,
            ),
            (
                r#"{"op":"done","task":"17"}"#,
                r#"complain {"op":"refused","task":"17","code":"bad_message","detail":"fence must be a whole number"}"#,
            ),
            (
                r#"{"op":"publish","room":"a b","type":"t","data":{},"id":"x"}"#,
                r#"{"op":"refused","id":"x","code":"bad_room","detail":"a room is 1 to 256 of A-Z a-z 0-9 _ . : / -"}"#,
            ),
            (
                r#"{"id":"x"}"#,
                r#"complain {"op":"refused","id":"x","code":"bad_message","detail":"op must be a string"}"#,
            ),
            (
                "nonsense",
                r#"complain {"op":"refused","code":"bad_message","detail":"a message is a JSON object of at most 32 levels"}"#,
            ),
        ] {
            assert_eq!(say(&["*"], message), expected, "{message}");
        }
    }

    #[test]
    fn each_op_needs_its_right() {
        let publish = r#"{"op":"publish","room":"doc:a","type":"t","data":{},"id":"x"}"#;
        for (message, right, detail) in [
            (publish, "publish:doc:*", "this key may not publish in this room"),
            (r#"{"op":"take","kinds":["chat"]}"#, "tasks:chat", "this key may not take tasks of this kind"),
            (r#"{"op":"take"}"#, "tasks:chat", "this key may not take tasks"),
            (r#"{"op":"done","task":"1","fence":1}"#, "tasks:chat", "this key may not take tasks"),
            (r#"{"op":"fail","task":"1","fence":1}"#, "tasks:chat", "this key may not take tasks"),
            (r#"{"op":"session"}"#, "sessions", "this key may not use sessions"),
            (r#"{"op":"approval","session":"s","tool_name":"t"}"#, "approvals", "this key may not use approvals"),
        ] {
            let refused = say(&["publish:topic:*", "read:*", "connections"], message);
            let expected = format!(r#""code":"forbidden","detail":"{detail}"}}"#);
            assert!(refused.starts_with(r#"{"op":"refused""#) && refused.ends_with(&expected), "{refused}");
            assert!(!say(&[right], message).contains("refused"), "{message} with {right}");
        }
        assert_eq!(say(&["tasks:execute"], r#"{"op":"status"}"#), "Backend(Status { kinds: Tasks(1) })");
    }

    #[test]
    fn hello_names_the_key_and_what_it_may_take() {
        let hello = Hello {
            conn: ConnId { reactor: 0, slot: 4, generation: 1 },
            user: "worker",
            durability: "full",
            ping: Duration::from_secs(20),
            expires_in: None,
        };
        let session = Session::new(key(&["tasks:execute", "tasks:chat"]));
        assert_eq!(
            text(&session.hello(&hello).unwrap()),
            format!(
                r#"{{"op":"hello","conn":"c0.4.1","name":"worker","kinds":["execute","chat"],"durability":"full","ping_ms":20000,"version":"{}"}}"#,
                env!("CARGO_PKG_VERSION")
            )
        );
    }
}
