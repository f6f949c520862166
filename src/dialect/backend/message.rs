//! What backends send, read once: a message of the socket, a request's body and a line of a batch have the same fields.
//!
//! Each field is kept as its JSON text until somebody asks for it, so that a message is never refused over a field that
//! its `op` does not read, and `data` reaches the log with its members in the order in which they were written.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::fault::Fault;
use super::revocations;
use super::rights;
use super::{Held, Publishing};
use crate::auth::ApiKey;
use crate::auth::token::{JTI_BYTES_MAX, TIME_MAX, USER_CHARS_MAX, is_token_id, is_user_name};
use crate::dialect::agents::approvals::{Verdict, Wanted};
use crate::dialect::agents::sessions;
use crate::dialect::json::{self, DEPTH_MAX};
use crate::dialect::publish::Publish;
use crate::ids::{OpId, RoomName};
use crate::limits::{OP_ID_BYTES_MAX, ROOM_NAME_BYTES_MAX};
use crate::model::{TaskId, TaskKind, Tasks};

/// Bytes of an event's type.
const TYPE_BYTES_MAX: usize = 64;
/// Bytes of the name of whoever a backend decides for.
const BY_BYTES_MAX: usize = 128;
/// Tasks that are held at a time.
pub const TASKS_MAX: u64 = 1000;
const LEASE_MS: (u64, u64) = (1_000, 3_600_000);
const LEASE_MS_DEFAULT: u64 = 30_000;
const RETRY_MS_MAX: u64 = 24 * 60 * 60 * 1000;
const EXPIRES_IN_SECONDS_MAX: f64 = 366.0 * 24.0 * 60.0 * 60.0;

const _: () = assert!(OP_ID_BYTES_MAX == 64, "a refusal below names the bound");
const _: () = assert!(JTI_BYTES_MAX == 256 && USER_CHARS_MAX == 256, "refusals below name the bounds");

type Field<'t> = Option<&'t RawValue>;

/// The fields that any op or endpoint reads; others are let be. Null is as good as absent, but for `data`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Message<'t> {
    #[serde(borrow)]
    op: Field<'t>,
    id: Field<'t>,
    room: Field<'t>,
    #[serde(rename = "type")]
    kind: Field<'t>,
    #[serde(deserialize_with = "even_null")]
    data: Field<'t>,
    if_rev: Field<'t>,
    task: Field<'t>,
    fence: Field<'t>,
    kinds: Field<'t>,
    max: Field<'t>,
    lease_ms: Field<'t>,
    retry_ms: Field<'t>,
    session: Field<'t>,
    user_id: Field<'t>,
    wallet_address: Field<'t>,
    config: Field<'t>,
    tool_name: Field<'t>,
    tool_args: Field<'t>,
    reason: Field<'t>,
    amount: Field<'t>,
    currency: Field<'t>,
    estimated_cost: Field<'t>,
    execution_id: Field<'t>,
    expires_in: Field<'t>,
    decision: Field<'t>,
    edited_args: Field<'t>,
    seen: Field<'t>,
    by: Field<'t>,
    jti: Field<'t>,
    user: Field<'t>,
    before: Field<'t>,
    until: Field<'t>,
}

fn even_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Field<'de>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl<'t> Message<'t> {
    pub fn parse(text: &'t str) -> Result<Message<'t>, Fault> {
        // Told apart here, because a derived reader takes a list for the fields in their order.
        if !text.trim_start().starts_with('{') || json::levels(text) > DEPTH_MAX {
            return Err(Fault::nonsense("a message is a JSON object of at most 32 levels"));
        }
        serde_json::from_str(text).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => Fault::nonsense("a field is there twice"),
            _ => Fault::nonsense("the message is not JSON"),
        })
    }

    pub fn op(&self) -> Result<String, Fault> {
        required(self.op, "op must be a string")
    }

    /// What a refusal repeats, when it is fit to be repeated.
    pub fn id_to_echo(&self) -> Option<Arc<str>> {
        self.op_id().ok().flatten().map(|op| op.0)
    }

    /// The same of the task: an id that we cannot have given is somebody's mistake, and he wants to find it.
    pub fn task_to_echo(&self) -> Option<String> {
        match serde_json::from_str(self.task?.get()) {
            Ok(Value::String(task)) if task.len() <= OP_ID_BYTES_MAX => Some(task),
            Ok(Value::Number(task)) => Some(task.to_string()),
            _ => None,
        }
    }

    // ---- tasks ----------------------------------------------------------------------------------------------------------

    /// Absent: every kind that the key may take.
    pub fn kinds(&self, key: &ApiKey) -> Result<Tasks, Fault> {
        let names: Option<Vec<String>> = optional(self.kinds, "kinds must be a list of strings")?;
        kinds(names.as_ref().map(|names| names.iter().map(String::as_str)), key)
    }

    pub fn max(&self) -> Result<u16, Fault> {
        max(optional(self.max, MAX_WRONG)?)
    }

    pub fn lease(&self) -> Result<Duration, Fault> {
        lease(optional(self.lease_ms, LEASE_WRONG)?)
    }

    /// How long a failed task is to rest; absent: the store decides by its attempts.
    pub fn retry(&self) -> Result<Option<Duration>, Fault> {
        const WRONG: &str = "retry_ms must be a whole number from 0 to 86400000";
        match optional::<u64>(self.retry_ms, WRONG)? {
            Some(retry) if retry > RETRY_MS_MAX => Err(Fault::nonsense(WRONG)),
            retry => Ok(retry.map(Duration::from_millis)),
        }
    }

    pub fn held(&self) -> Result<Held, Fault> {
        let task = self.task.ok_or_else(|| Fault::nonsense("task must be a string of digits"))?;
        // A number is what somebody's typed client makes of our digits.
        let task = task_id(task.get().trim_matches('"'));
        let fence = self.fence()?;
        Ok(Held { task: task.ok_or_else(Fault::unknown_task)?, fence })
    }

    pub fn fence(&self) -> Result<u64, Fault> {
        required(self.fence, "fence must be a whole number")
    }

    // ---- publishing -----------------------------------------------------------------------------------------------------

    pub fn publishing(&self, key: &ApiKey) -> Result<Publishing, Fault> {
        let room: String = required(self.room, "room must be a string")?;
        let kind: String = required(self.kind, "type must be a string")?;
        let data = self.data.ok_or_else(|| Fault::nonsense("data is missing"))?;
        let if_rev = optional(self.if_rev, "if_rev must be a whole number")?;
        let op = self.op_id()?;
        if !is_room(&room) {
            return Err(Fault::new(400, "bad_room", "a room is 1 to 256 of A-Z a-z 0-9 _ . : / -"));
        }
        if kind.is_empty() || kind.len() > TYPE_BYTES_MAX || !kind.bytes().all(|byte| byte != b'/' && is_plain(byte)) {
            return Err(Fault::new(400, "bad_type", "a type is 1 to 64 of A-Z a-z 0-9 _ . : -"));
        }
        rights::publish(key, &room)?;
        let held = match (self.task, self.fence) {
            (None, None) => None,
            // One without the other would look like a guard and be none.
            _ => Some(self.held()?),
        };
        // Half a surrogate pair and 1e999 get through a reader that skips values, and choke those who read them later.
        if json::parse(data.get()).is_none() {
            return Err(Fault::nonsense("data must be JSON of at most 31 levels that every reader takes"));
        }
        let data = Bytes::from(json::compact(data.get()));
        Ok(Publishing { publish: Publish { room: RoomName::new(&room), kind, data, if_rev }, op, held })
    }

    pub fn op_id(&self) -> Result<Option<OpId>, Fault> {
        let wrong = || Fault::new(400, "bad_id", "id must be a string of 1 to 64 bytes");
        let Some(id) = self.id else { return Ok(None) };
        op_id(&serde_json::from_str::<String>(id.get()).map_err(|_| wrong())?).map(Some)
    }

    // ---- sessions and approvals -----------------------------------------------------------------------------------------

    pub fn new_session(&self) -> Result<sessions::New, Fault> {
        let config: Option<Value> = optional(self.config, "config must be an object")?;
        Ok(sessions::New {
            id: self.uuid()?,
            owner: optional(self.user_id, "user_id must be a string")?,
            wallet_address: optional(self.wallet_address, "wallet_address must be a string")?,
            config: object(config, "config must be an object")?,
        })
    }

    pub fn wanted(&self) -> Result<Wanted, Fault> {
        let session: String = required(self.session, "session must be a string")?;
        let tool_args: Option<Value> = optional(self.tool_args, "tool_args must be an object")?;
        let amount: Option<Value> = optional(self.amount, "amount must be a string or a number")?;
        Ok(Wanted {
            session: canonical_session(&session),
            id: self.uuid()?,
            execution_id: optional(self.execution_id, "execution_id must be a string")?,
            tool_name: required(self.tool_name, "tool_name must be a string")?,
            tool_args: object(tool_args, "tool_args must be an object")?
                .unwrap_or_else(|| Value::Object(Default::default())),
            reason: optional(self.reason, "reason must be a string")?,
            amount: match amount {
                None => None,
                Some(Value::String(amount)) => Some(amount),
                Some(Value::Number(amount)) => Some(amount.to_string()),
                Some(_) => return Err(Fault::nonsense("amount must be a string or a number")),
            },
            currency: optional(self.currency, "currency must be a string")?,
            estimated_cost: optional(self.estimated_cost, "estimated_cost must be a JSON value")?,
            expires_in: self.expires_in()?,
        })
    }

    pub fn verdict(&self) -> Result<Verdict, Fault> {
        let decision: String = required(self.decision, "decision must be a string")?;
        let edited: Option<Value> = optional(self.edited_args, "edited_args must be an object")?;
        match decision.as_str() {
            "approve" => Ok(Verdict::Approve),
            "reject" => Ok(Verdict::Reject { reason: optional(self.reason, "reason must be a string")? }),
            "edit" => match object(edited, "edited_args must be an object")? {
                Some(args) => Ok(Verdict::Edit { args }),
                None => Err(Fault::nonsense("an edit needs edited_args")),
            },
            "cancel" => Ok(Verdict::Cancel),
            _ => Err(Fault::nonsense("decision must be approve, reject, edit or cancel")),
        }
    }

    pub fn seen(&self) -> Result<Option<String>, Fault> {
        optional(self.seen, "seen must be a string")
    }

    /// Whom it decides for.
    pub fn by(&self) -> Result<Option<String>, Fault> {
        const WRONG: &str = "by must be a string of 1 to 128 bytes without control characters";
        match optional::<String>(self.by, WRONG)? {
            Some(by) if by.is_empty() || by.len() > BY_BYTES_MAX || by.chars().any(char::is_control) => {
                Err(Fault::nonsense(WRONG))
            }
            by => Ok(by),
        }
    }

    // ---- revocations ----------------------------------------------------------------------------------------------------

    pub fn revocation(&self) -> Result<revocations::Wanted, Fault> {
        let jti = optional(self.jti, JTI_WRONG)?;
        let user = optional(self.user, USER_WRONG)?;
        let before = unix_seconds(self.before, "before must be unix seconds: a whole number from 0 to 253402300799")?;
        let until = unix_seconds(self.until, "until must be unix seconds: a whole number from 0 to 253402300799")?;
        if jti.is_some() && before.is_some() {
            return Err(Fault::nonsense("before is about a user's tokens: a token is revoked whenever it was issued"));
        }
        Ok(revocations::Wanted { about: about(jti, user)?, before, until })
    }

    // ---- connections ----------------------------------------------------------------------------------------------------

    /// Of a close, where a frame has room for 123 bytes.
    pub fn close_reason(&self) -> Result<Option<String>, Fault> {
        const WRONG: &str = "reason must be a string of at most 100 bytes without control characters";
        match optional::<String>(self.reason, WRONG)? {
            Some(reason) if reason.len() > 100 || reason.chars().any(char::is_control) => Err(Fault::nonsense(WRONG)),
            reason => Ok(reason.filter(|reason| !reason.is_empty())),
        }
    }

    fn uuid(&self) -> Result<Option<String>, Fault> {
        let wrong = || Fault::new(400, "bad_id", "id must be a UUID");
        let Some(id) = self.id else { return Ok(None) };
        let id: String = serde_json::from_str(id.get()).map_err(|_| wrong())?;
        sessions::canonical(&id).map(Some).ok_or_else(wrong)
    }

    fn expires_in(&self) -> Result<Option<Duration>, Fault> {
        const WRONG: &str = "expires_in must be seconds, above 0 and at most 31622400";
        match optional::<f64>(self.expires_in, WRONG)? {
            None => Ok(None),
            Some(seconds) if seconds > 0.0 && seconds <= EXPIRES_IN_SECONDS_MAX => {
                Duration::try_from_secs_f64(seconds).map(Some).map_err(|_| Fault::nonsense(WRONG))
            }
            Some(_) => Err(Fault::nonsense(WRONG)),
        }
    }
}

const JTI_WRONG: &str = "jti must be a string of 1 to 256 bytes";
const USER_WRONG: &str = "user must be a string of 1 to 256 characters without control characters";

/// What a revocation is about: one of the two.
pub fn about(jti: Option<String>, user: Option<String>) -> Result<revocations::About, Fault> {
    match (jti, user) {
        (Some(jti), None) if is_token_id(&jti) => Ok(revocations::About::Token(jti)),
        (None, Some(user)) if is_user_name(&user) => Ok(revocations::About::User(user)),
        (Some(_), None) => Err(Fault::nonsense(JTI_WRONG)),
        (None, Some(_)) => Err(Fault::nonsense(USER_WRONG)),
        (Some(_), Some(_)) => Err(Fault::nonsense("jti and user are both there: a revocation is about one of them")),
        (None, None) => Err(Fault::nonsense("jti or user must say what is revoked")),
    }
}

fn unix_seconds(field: Field<'_>, wrong: &'static str) -> Result<Option<i64>, Fault> {
    match optional::<i64>(field, wrong)? {
        Some(seconds) if !(0..=TIME_MAX).contains(&seconds) => Err(Fault::nonsense(wrong)),
        seconds => Ok(seconds),
    }
}

/// A session as an id in a path or field names it. One that was made in debug mode may have any name, so what is no UUID
/// is looked for as it is.
pub fn canonical_session(text: &str) -> String {
    sessions::canonical(text).unwrap_or_else(|| text.to_owned())
}

pub fn op_id(text: &str) -> Result<OpId, Fault> {
    match text.len() {
        1..=OP_ID_BYTES_MAX => Ok(OpId(Arc::from(text))),
        _ => Err(Fault::new(400, "bad_id", "id must be a string of 1 to 64 bytes")),
    }
}

/// None for what cannot be one of ours.
pub fn task_id(text: &str) -> Option<TaskId> {
    let is_ours = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_ours { text.parse().ok().map(TaskId) } else { None }
}

/// None: every kind that the key may take.
pub fn kinds<'n>(names: Option<impl Iterator<Item = &'n str>>, key: &ApiKey) -> Result<Tasks, Fault> {
    let Some(names) = names else {
        rights::some_tasks(key)?;
        return Ok(rights::kinds_of(key));
    };
    let mut kinds = Tasks::default();
    for name in names {
        let kind = TaskKind::parse(name)
            .ok_or_else(|| Fault::new(400, "bad_kind", "a kind of task is one that `hello` or the manual names"))?;
        kinds = kinds.with(kind);
    }
    rights::tasks(key, kinds)?;
    Ok(kinds)
}

pub const MAX_WRONG: &str = "max must be a whole number from 1 to 1000";
pub const LEASE_WRONG: &str = "lease_ms must be a whole number from 1000 to 3600000";

pub fn max(max: Option<u64>) -> Result<u16, Fault> {
    match max.unwrap_or(1) {
        max @ 1..=TASKS_MAX => Ok(max as u16),
        _ => Err(Fault::nonsense(MAX_WRONG)),
    }
}

pub fn lease(milliseconds: Option<u64>) -> Result<Duration, Fault> {
    let milliseconds = milliseconds.unwrap_or(LEASE_MS_DEFAULT);
    if (LEASE_MS.0..=LEASE_MS.1).contains(&milliseconds) {
        Ok(Duration::from_millis(milliseconds))
    } else {
        Err(Fault::nonsense(LEASE_WRONG))
    }
}

fn optional<'t, T: Deserialize<'t>>(field: Field<'t>, wrong: &'static str) -> Result<Option<T>, Fault> {
    match field {
        None => Ok(None),
        Some(raw) => serde_json::from_str(raw.get()).map(Some).map_err(|_| Fault::nonsense(wrong)),
    }
}

fn required<'t, T: Deserialize<'t>>(field: Field<'t>, wrong: &'static str) -> Result<T, Fault> {
    optional(field, wrong)?.ok_or_else(|| Fault::nonsense(wrong))
}

fn object(value: Option<Value>, wrong: &'static str) -> Result<Option<Value>, Fault> {
    match value {
        Some(value) if !value.is_object() => Err(Fault::nonsense(wrong)),
        value => Ok(value),
    }
}

fn is_room(name: &str) -> bool {
    (1..=ROOM_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain)
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'/' | b'-')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::super::testing::key;
    use super::*;
    use proptest::prelude::*;

    fn publishing(text: &str) -> Result<Publishing, Fault> {
        Message::parse(text)?.publishing(&key(&["*"]))
    }

    #[test]
    fn what_cannot_be_read_is_nonsense() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(32), "]".repeat(32));
        let object = "a message is a JSON object of at most 32 levels";
        for (text, detail) in [
            ("", object),
            ("nonsense", object),
            ("[1]", object),
            ("7", object),
            (r#"["publish","id"]"#, object),
            (&deep, object),
            ("{", "the message is not JSON"),
            ("{} {}", "the message is not JSON"),
            (r#"{"op":"a","op":"b"}"#, "a field is there twice"),
            (r#"{"op":nul}"#, "the message is not JSON"),
        ] {
            assert_eq!(Message::parse(text).map(|_| ()), Err(Fault::nonsense(detail)), "{text}");
        }
        assert!(Message::parse(" {\"anything\": [1, {\"else\": null}]} ").is_ok());
    }

    #[test]
    fn a_publish_is_read_with_its_data_s_members_in_order() {
        let read = publishing(
            r#"{"data":{"z": 1, "a": "x y"},"type":"progress","room":"workflow:7","id":"op-1","if_rev":3,"more":1}"#,
        )
        .unwrap();
        assert_eq!(read.publish.data, r#"{"z":1,"a":"x y"}"#);
        assert_eq!((read.publish.room.as_str(), read.publish.kind.as_str()), ("workflow:7", "progress"));
        assert_eq!((read.publish.if_rev, read.op), (Some(3), Some(OpId("op-1".into()))));
        assert_eq!(read.held, None);
        let read = publishing(r#"{"room":"a","type":"b","data":null,"task":17,"fence":5,"id":null}"#).unwrap();
        assert_eq!((&read.publish.data[..], read.op), (&b"null"[..], None));
        assert_eq!(read.held, Some(Held { task: TaskId(17), fence: 5 }));
    }

    #[test]
    fn row_58_a_publish_that_some_reader_would_choke_on_is_refused() {
        let room = format!(r#"{{"room":"{}","type":"t","data":{{}}}}"#, "r".repeat(257));
        let kind = format!(r#"{{"room":"r","type":"{}","data":{{}}}}"#, "t".repeat(65));
        let id = format!(r#"{{"room":"r","type":"t","data":{{}},"id":"{}"}}"#, "i".repeat(65));
        for (text, code) in [
            (r#"{"type":"t","data":{}}"#, "bad_message"),
            (r#"{"room":7,"type":"t","data":{}}"#, "bad_message"),
            (r#"{"room":"r","data":{}}"#, "bad_message"),
            (r#"{"room":"r","type":"t"}"#, "bad_message"),
            (r#"{"room":"r","type":"t","data":{},"if_rev":-1}"#, "bad_message"),
            (r#"{"room":"r","type":"t","data":{},"if_rev":"3"}"#, "bad_message"),
            (r#"{"room":"r","type":"t","data":[1e999]}"#, "bad_message"),
            (r#"{"room":"r","type":"t","data":"\ud800"}"#, "bad_message"),
            (r#"{"room":"r","type":"t","data":{},"task":"17"}"#, "bad_message"),
            (r#"{"room":"r","type":"t","data":{},"fence":5}"#, "bad_message"),
            (r#"{"room":"r","type":"t","data":{},"task":"x","fence":5}"#, "unknown_task"),
            (r#"{"room":"","type":"t","data":{}}"#, "bad_room"),
            (r#"{"room":"a b","type":"t","data":{}}"#, "bad_room"),
            (r#"{"room":"\u00e4","type":"t","data":{}}"#, "bad_room"),
            (&room, "bad_room"),
            (r#"{"room":"r","type":"","data":{}}"#, "bad_type"),
            (r#"{"room":"r","type":"a/b","data":{}}"#, "bad_type"),
            (&kind, "bad_type"),
            (r#"{"room":"r","type":"t","data":{},"id":""}"#, "bad_id"),
            (r#"{"room":"r","type":"t","data":{},"id":7}"#, "bad_id"),
            (&id, "bad_id"),
        ] {
            assert_eq!(publishing(text).unwrap_err().code, code, "{text}");
        }
    }

    #[test]
    fn wishes_for_tasks_have_bounds_and_defaults() {
        let take = |text: &str| {
            let message = Message::parse(text).unwrap();
            Ok::<_, Fault>((message.kinds(&key(&["tasks:c*"]))?, message.max()?, message.lease()?))
        };
        let (kinds, max, lease) = take("{}").unwrap();
        let expected: Tasks = [TaskKind::Cancel, TaskKind::Control, TaskKind::Chat].into_iter().collect();
        assert_eq!((kinds, max, lease), (expected, 1, Duration::from_secs(30)));
        let (kinds, max, lease) = take(r#"{"kinds":["chat"],"max":1000,"lease_ms":3600000}"#).unwrap();
        assert_eq!((kinds, max, lease), (Tasks::only(TaskKind::Chat), 1000, Duration::from_secs(3600)));
        assert!(take(r#"{"kinds":[]}"#).unwrap().0.is_empty(), "nothing more, thank you");
        for (text, code) in [
            (r#"{"kinds":"chat"}"#, "bad_message"),
            (r#"{"kinds":["dance"]}"#, "bad_kind"),
            (r#"{"kinds":["chat","execute"]}"#, "forbidden"),
            (r#"{"max":0}"#, "bad_message"),
            (r#"{"max":1001}"#, "bad_message"),
            (r#"{"max":1.5}"#, "bad_message"),
            (r#"{"lease_ms":999}"#, "bad_message"),
            (r#"{"lease_ms":3600001}"#, "bad_message"),
        ] {
            assert_eq!(take(text).unwrap_err().code, code, "{text}");
        }
    }

    #[test]
    fn a_verdict_is_one_of_four() {
        let verdict = |text: &str| Message::parse(text).unwrap().verdict();
        assert_eq!(verdict(r#"{"decision":"approve"}"#), Ok(Verdict::Approve));
        assert_eq!(verdict(r#"{"decision":"cancel"}"#), Ok(Verdict::Cancel));
        let reason = Some("too dear".to_owned());
        assert_eq!(verdict(r#"{"decision":"reject","reason":"too dear"}"#), Ok(Verdict::Reject { reason }));
        let args = serde_json::json!({"amount": 1});
        assert_eq!(verdict(r#"{"decision":"edit","edited_args":{"amount":1}}"#), Ok(Verdict::Edit { args }));
        for text in [
            "{}",
            r#"{"decision":"approved"}"#,
            r#"{"decision":"edit"}"#,
            r#"{"decision":"edit","edited_args":[1]}"#,
            r#"{"decision":"reject","reason":7}"#,
        ] {
            assert!(verdict(text).unwrap_err().is_nonsense(), "{text}");
        }
    }

    #[test]
    fn an_approval_is_read() {
        let wanted = |text: &str| Message::parse(text).unwrap().wanted();
        let read = wanted(
            r#"{"session":"test","tool_name":"pay","tool_args":{"to":"x"},"amount":12.50,"currency":"USD",
                "estimated_cost":"0.1","reason":"r","execution_id":"e","expires_in":1.5}"#,
        )
        .unwrap();
        assert_eq!((read.session.as_str(), read.tool_name.as_str()), ("test", "pay"));
        assert_eq!((read.amount.as_deref(), read.expires_in), (Some("12.5"), Some(Duration::from_millis(1500))));
        assert_eq!(wanted(r#"{"session":"s","tool_name":"t"}"#).unwrap().tool_args, serde_json::json!({}));
        for text in [
            r#"{"tool_name":"t"}"#,
            r#"{"session":"s"}"#,
            r#"{"session":"s","tool_name":"t","tool_args":[]}"#,
            r#"{"session":"s","tool_name":"t","amount":{}}"#,
            r#"{"session":"s","tool_name":"t","expires_in":0}"#,
            r#"{"session":"s","tool_name":"t","expires_in":-1}"#,
            r#"{"session":"s","tool_name":"t","expires_in":31622401}"#,
            r#"{"session":"s","tool_name":"t","id":"seven"}"#,
        ] {
            assert!(wanted(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_refusal_repeats_only_what_is_fit_to_be_repeated() {
        let echo = |text: &str| {
            let message = Message::parse(text).unwrap();
            (message.id_to_echo().map(|id| id.to_string()), message.task_to_echo())
        };
        assert_eq!(echo(r#"{"id":"a","task":"17"}"#), (Some("a".to_owned()), Some("17".to_owned())));
        assert_eq!(echo(r#"{"id":7,"task":17}"#), (None, Some("17".to_owned())));
        let long = "x".repeat(65);
        assert_eq!(echo(&format!(r#"{{"id":"{long}","task":"{long}"}}"#)), (None, None));
    }

    #[test]
    fn a_task_s_id_is_digits() {
        for (text, id) in [("17", Some(17)), ("0", Some(0)), ("", None), ("+1", None), ("-1", None), ("1 ", None)] {
            assert_eq!(task_id(text), id.map(TaskId), "{text}");
        }
        assert_eq!(task_id("18446744073709551616"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,200}", value in "[\\[\\]{}\":,0-9a-z\\\\ -]{0,40}") {
            let all = key(&["*"]);
            for text in [text, format!("{{\"op\":\"publish\",\"room\":\"r\",\"type\":\"t\",\"data\":{value}}}")] {
                let Ok(message) = Message::parse(&text) else { continue };
                let _ = (message.op(), message.publishing(&all), message.held(), message.wanted(), message.verdict());
                let _ = (message.id_to_echo(), message.task_to_echo(), message.new_session(), message.by());
            }
        }
    }
}
