//! HTTP: method, path and body become one question or one change.
//!
//! ```text
//! POST publish  batch                          GET  tasks        POST tasks/{id}/done|fail|renew
//! POST sessions   GET sessions/{id}            POST approvals    GET  approvals/{id}   POST approvals/{id}/decide
//! GET  rooms      GET rooms/{room}/events      GET  connections  POST connections/{id}/close
//! GET  POST revocations                        DELETE revocations/{id}
//! ```

use std::sync::Arc;
use std::time::Duration;

use super::answers::{Asked, Via};
use super::fault::Fault;
use super::message::{self, Message};
use super::reads::Read;
use super::wire::{self, Facts};
use super::writes::{Change, Decide, What};
use super::{Held, Publishing, batch, desk_room, revocations, rights};
use crate::auth::ApiKey;
use crate::dialect::agents::sessions;
use crate::dialect::{self, Desk, Intent, Write};
use crate::http::{Head, Method, Response, decode_path, query_param};
use crate::ids::{ConnId, OpId, RoomName, Seq};
use crate::limits::PAGE_EVENTS_MAX;
use crate::model::TaskId;

const WAIT_SECONDS_MAX: u64 = 60;
const PAGE_DEFAULT: u64 = 100;
const _: () = assert!(PAGE_EVENTS_MAX == 500, "a refusal below names the bound");

pub fn endpoint(head: &Head<'_>, body: &[u8], key: &Arc<ApiKey>) -> Intent {
    match Endpoint::at(head.path) {
        Ok(Some(endpoint)) if endpoint.methods().contains(&head.method) => {
            Request { head, body, key }.act(endpoint).unwrap_or_else(|fault| refuse(&fault))
        }
        Ok(Some(endpoint)) => not_allowed(head.method, endpoint.allow()),
        Ok(None) => refuse(&Fault::unknown_path()),
        Err(fault) => refuse(&fault),
    }
}

/// Is there anything at this path? Malformed ids are: their endpoint says what is wrong with them.
pub fn has(path: &str) -> bool {
    !matches!(Endpoint::at(path), Ok(None))
}

#[derive(Clone, Debug, PartialEq)]
enum Endpoint {
    Publish,
    Batch,
    Tasks,
    /// None: an id that we cannot have given.
    Task(Option<TaskId>, Step),
    NewSession,
    Session(String),
    NewApproval,
    Approval(String),
    Decide(String),
    Rooms,
    Events(String),
    Connections,
    Close(String),
    Revocations,
    Revocation(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Done,
    Fail,
    Renew,
}

impl Endpoint {
    fn at(path: &str) -> Result<Option<Endpoint>, Fault> {
        let rest = path.strip_prefix("/v1/").unwrap_or_default();
        // A room's name may hold slashes, so it is whatever stands between the two ends.
        if let Some(room) = rest.strip_prefix("rooms/").and_then(|rest| rest.strip_suffix("/events")) {
            return Ok(Some(Endpoint::Events(decoded(room)?)));
        }
        let mut parts = rest.split('/');
        let parts = (parts.next().unwrap_or_default(), parts.next(), parts.next(), parts.next());
        Ok(Some(match parts {
            ("publish", None, None, None) => Endpoint::Publish,
            ("batch", None, None, None) => Endpoint::Batch,
            ("tasks", None, None, None) => Endpoint::Tasks,
            ("tasks", Some(id), Some("done"), None) => Endpoint::Task(message::task_id(id), Step::Done),
            ("tasks", Some(id), Some("fail"), None) => Endpoint::Task(message::task_id(id), Step::Fail),
            ("tasks", Some(id), Some("renew"), None) => Endpoint::Task(message::task_id(id), Step::Renew),
            ("sessions", None, None, None) => Endpoint::NewSession,
            ("sessions", Some(id), None, None) => Endpoint::Session(message::canonical_session(&decoded(id)?)),
            ("approvals", None, None, None) => Endpoint::NewApproval,
            ("approvals", Some(id), None, None) => Endpoint::Approval(message::canonical_session(&decoded(id)?)),
            ("approvals", Some(id), Some("decide"), None) => {
                Endpoint::Decide(message::canonical_session(&decoded(id)?))
            }
            ("rooms", None, None, None) => Endpoint::Rooms,
            ("connections", None, None, None) => Endpoint::Connections,
            ("connections", Some(id), Some("close"), None) => Endpoint::Close(decoded(id)?),
            ("revocations", None, None, None) => Endpoint::Revocations,
            ("revocations", Some(id), None, None) => Endpoint::Revocation(decoded(id)?),
            _ => return Ok(None),
        }))
    }

    fn methods(&self) -> &'static [Method] {
        match self {
            // Hands something out, which a HEAD would drop.
            Endpoint::Tasks => &[Method::Get],
            Endpoint::Revocations => &[Method::Get, Method::Head, Method::Post],
            Endpoint::Revocation(_) => &[Method::Delete],
            Endpoint::Session(_)
            | Endpoint::Approval(_)
            | Endpoint::Rooms
            | Endpoint::Events(_)
            | Endpoint::Connections => &[Method::Get, Method::Head],
            Endpoint::Publish
            | Endpoint::Batch
            | Endpoint::Task(..)
            | Endpoint::NewSession
            | Endpoint::NewApproval
            | Endpoint::Decide(_)
            | Endpoint::Close(_) => &[Method::Post],
        }
    }

    fn allow(&self) -> &'static str {
        match self.methods() {
            [Method::Post] => "POST",
            [Method::Get] => "GET",
            [Method::Delete] => "DELETE",
            [_, _, Method::Post] => "GET, HEAD, POST",
            _ => "GET, HEAD",
        }
    }
}

struct Request<'r, 'b> {
    head: &'r Head<'b>,
    body: &'r [u8],
    key: &'r Arc<ApiKey>,
}

impl Request<'_, '_> {
    fn act(&self, endpoint: Endpoint) -> Result<Intent, Fault> {
        match endpoint {
            Endpoint::Publish => self.publish(),
            Endpoint::Batch => batch::endpoint(self.body, self.key),
            Endpoint::Tasks => self.poll(),
            Endpoint::Task(id, step) => self.task(id, step),
            Endpoint::NewSession => {
                rights::sessions(self.key)?;
                let new = self.message()?.new_session()?;
                let room = sessions::room_of(new.id.as_deref().unwrap_or_default());
                Ok(self.write(room, What::Session(Box::new(new))))
            }
            Endpoint::Session(id) => {
                rights::sessions(self.key)?;
                Ok(ask(Read::Session { id }))
            }
            Endpoint::NewApproval => {
                rights::approvals(self.key)?;
                let wanted = self.message()?.wanted()?;
                Ok(self.write(sessions::room_of(&wanted.session), What::Approval(Box::new(wanted))))
            }
            Endpoint::Approval(id) => {
                rights::approvals(self.key)?;
                Ok(ask(Read::Approval { id }))
            }
            Endpoint::Decide(approval) => self.decide(approval),
            Endpoint::Rooms => self.rooms(),
            Endpoint::Events(room) => self.events(&room),
            Endpoint::Connections => {
                rights::connections(self.key)?;
                Ok(Intent::Census(Box::new(dialect::Read::Backend(Read::Connections))))
            }
            Endpoint::Close(id) => self.close(&id),
            Endpoint::Revocations => {
                rights::revocations(self.key)?;
                match self.head.method {
                    Method::Post => {
                        let wanted = self.message()?.revocation()?;
                        Ok(self.write(revocations::room(), What::Revoke(Box::new(wanted))))
                    }
                    _ => self.revocations(),
                }
            }
            Endpoint::Revocation(id) => {
                rights::revocations(self.key)?;
                Ok(self.write(revocations::room(), What::Restore(id)))
            }
        }
    }

    fn publish(&self) -> Result<Intent, Fault> {
        let Publishing { publish, op, held } = self.message()?.publishing(self.key)?;
        let op = match (self.idempotency_key()?, op) {
            (Some(header), Some(field)) if header != field => {
                return Err(Fault::new(400, "bad_id", "Idempotency-Key and id are not the same"));
            }
            (header, field) => header.or(field),
        };
        let asked = Asked { via: Via::Http, id: op.as_ref().map(|op| op.0.clone()) };
        let room = publish.room.clone();
        let change = Change { key: self.key.clone(), asked, what: What::Publish { publish, held } };
        Ok(Intent::Write(Box::new(Write { room, op, change: dialect::Change::Backend(change) })))
    }

    /// The draft standard writes the key as a quoted string; most clients send it bare.
    fn idempotency_key(&self) -> Result<Option<OpId>, Fault> {
        const NAME: &str = "idempotency-key";
        if self.head.header(NAME).is_none() {
            return Ok(None);
        }
        let Some(value) = self.head.header_once(NAME) else {
            return Err(Fault::new(400, "bad_id", "Idempotency-Key is there twice"));
        };
        let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        message::op_id(quoted.unwrap_or(value)).map(Some)
    }

    fn poll(&self) -> Result<Intent, Fault> {
        let names = query_param(self.head.query, "kinds");
        let names = names.as_deref().map(|names| names.split(',').map(str::trim).filter(|name| !name.is_empty()));
        let kinds = message::kinds(names, self.key)?;
        let max = message::max(self.number("max", message::MAX_WRONG)?)?;
        let lease = message::lease(self.number("lease_ms", message::LEASE_WRONG)?)?;
        let wait = self.bounded("wait", (0, 0, WAIT_SECONDS_MAX), "wait must be a whole number from 0 to 60")?;
        let desk = Desk::Poll { kinds, max, lease, wait: Duration::from_secs(wait) };
        Ok(Intent::Write(Box::new(Write { room: desk_room(), op: None, change: dialect::Change::Desk(desk) })))
    }

    fn task(&self, id: Option<TaskId>, step: Step) -> Result<Intent, Fault> {
        rights::some_tasks(self.key)?;
        let message = self.message()?;
        let fence = message.fence()?;
        let held = Held { task: id.ok_or_else(Fault::unknown_task)?, fence };
        let what = match step {
            Step::Done => What::Done(held),
            Step::Fail => What::Fail { held, retry: message.retry()? },
            Step::Renew => What::Renew { held, lease: message.lease()? },
        };
        Ok(self.write(desk_room(), what))
    }

    fn decide(&self, approval: String) -> Result<Intent, Fault> {
        rights::approvals(self.key)?;
        let message = self.message()?;
        // Only its place in the queue: which session it is of, the store knows.
        let room = RoomName::new(&format!("approval:{approval}"));
        let decide = Decide { approval, verdict: message.verdict()?, seen: message.seen()?, by: message.by()? };
        Ok(self.write(room, What::Decide(Box::new(decide))))
    }

    fn rooms(&self) -> Result<Intent, Fault> {
        rights::read_some(self.key)?;
        let text = |name| query_param(self.head.query, name).unwrap_or_default().into_owned();
        let (prefix, after, limit) = (text("prefix"), text("after"), self.limit()?);
        Ok(ask(Read::Rooms { prefix, after, limit, key: self.key.clone() }))
    }

    fn events(&self, room: &str) -> Result<Intent, Fault> {
        rights::read(self.key, room)?;
        let after = self.number("after", "after must be a whole number")?.unwrap_or_default();
        // Stores count with a sign; a number beyond that is beyond every log.
        let after = Seq(after.min(i64::MAX as u64));
        Ok(ask(Read::Events { room: RoomName::new(room), after, limit: self.limit()? }))
    }

    fn revocations(&self) -> Result<Intent, Fault> {
        let text = |name| query_param(self.head.query, name).map(|value| value.into_owned());
        let about = match (text("jti"), text("user")) {
            (None, None) => None,
            (jti, user) => Some(message::about(jti, user)?),
        };
        let skip = self.number("skip", "skip must be a whole number")?.unwrap_or_default();
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        Ok(ask(Read::Revocations { about, skip, limit: self.limit()? }))
    }

    fn close(&self, id: &str) -> Result<Intent, Fault> {
        rights::connections(self.key)?;
        let message = match self.body.trim_ascii() {
            b"" => Message::default(),
            _ => self.message()?,
        };
        let conn = conn_id(id).ok_or_else(no_such_connection)?;
        let reason = message.close_reason()?.unwrap_or_else(|| "closed by a backend".to_owned());
        Ok(Intent::Evict { conn, reason })
    }

    fn message(&self) -> Result<Message<'_>, Fault> {
        let text = std::str::from_utf8(self.body).map_err(|_| Fault::nonsense("the body is not UTF-8"))?;
        Message::parse(text)
    }

    fn limit(&self) -> Result<usize, Fault> {
        let bounds = (1, PAGE_DEFAULT, PAGE_EVENTS_MAX as u64);
        Ok(self.bounded("limit", bounds, "limit must be a whole number from 1 to 500")? as usize)
    }

    /// `bounds`: least, default, most.
    fn bounded(&self, name: &str, bounds: (u64, u64, u64), wrong: &'static str) -> Result<u64, Fault> {
        let (least, default, most) = bounds;
        let number = self.number(name, wrong)?.unwrap_or(default);
        if (least..=most).contains(&number) { Ok(number) } else { Err(Fault::nonsense(wrong)) }
    }

    fn number(&self, name: &str, wrong: &'static str) -> Result<Option<u64>, Fault> {
        match query_param(self.head.query, name) {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| Fault::nonsense(wrong)),
        }
    }

    fn write(&self, room: RoomName, what: What) -> Intent {
        let change = Change { key: self.key.clone(), asked: Asked { via: Via::Http, id: None }, what };
        Intent::Write(Box::new(Write { room, op: None, change: dialect::Change::Backend(change) }))
    }
}

/// The answer to `POST /v1/connections/{id}/close`.
pub fn evicted(found: bool) -> Response {
    match found {
        true => Response::json(200, "{\"closed\":true}"),
        false => wire::problem(&no_such_connection(), &Facts::default()),
    }
}

fn no_such_connection() -> Fault {
    Fault::new(404, "no_such_connection", "there is no such connection")
}

/// As it is shown: `c0.4.1`. One spelling for each, so that it is compared with what was written.
fn conn_id(text: &str) -> Option<ConnId> {
    let mut parts = text.strip_prefix('c')?.splitn(3, '.');
    let reactor = parts.next()?.parse().ok()?;
    let slot = parts.next()?.parse().ok()?;
    let generation = parts.next()?.parse().ok()?;
    let id = ConnId { reactor, slot, generation };
    (ConnId::unpack(id.pack()) == id && id.to_string() == text).then_some(id)
}

fn decoded(part: &str) -> Result<String, Fault> {
    decode_path(part).map_err(|reject| Fault::new(400, reject.row().name, reject.detail))
}

fn ask(read: Read) -> Intent {
    Intent::Read(Box::new(dialect::Read::Backend(read)))
}

fn refuse(fault: &Fault) -> Intent {
    Intent::Respond(Box::new(wire::problem(fault, &Facts::default())))
}

/// OPTIONS is answered with what there is; anything else learns it with the refusal.
fn not_allowed(method: Method, allow: &'static str) -> Intent {
    let response = match method {
        Method::Options => Response::empty(204),
        _ => wire::problem(&Fault::new(405, "method", "this endpoint does not take this method"), &Facts::default()),
    };
    Intent::Respond(Box::new(response.with_header("Allow", allow)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::super::testing::{key, response, told};
    use super::*;
    use crate::http::head;
    use proptest::prelude::*;

    fn send(rights: &[&str], request: &str, body: &str) -> String {
        let (line, headers) = request.split_once('\n').unwrap_or((request, ""));
        let headers: String = headers.lines().map(|header| format!("{header}\r\n")).collect();
        let text = format!("{line} HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        let (head, _) = head::parse(text.as_bytes()).unwrap().unwrap();
        told(endpoint(&head, body.as_bytes(), &key(rights)))
    }

    const PUBLISH: &str = r#"{"room":"r","type":"t","data":{}}"#;

    #[test]
    fn a_table_of_every_endpoint() {
        let held = "Held { task: TaskId(17), fence: 5 }";
        for (request, body, expected) in [
            (
                "POST /v1/publish",
                PUBLISH,
                r#"r None Publish { publish: Publish { room: r, kind: "t", data: b"{}", if_rev: None }, held: None }"#,
            ),
            ("GET /v1/tasks", "", "tasks None Desk(Poll { kinds: Tasks(255), max: 1, lease: 30s, wait: 0ns })"),
            (
                "GET /v1/tasks?kinds=execute,%20cancel&max=20&wait=60&lease_ms=1000",
                "",
                "tasks None Desk(Poll { kinds: Tasks(3), max: 20, lease: 1s, wait: 60s })",
            ),
            ("POST /v1/tasks/17/done", r#"{"fence":5}"#, &format!("tasks None Done({held})")),
            (
                "POST /v1/tasks/17/fail",
                r#"{"fence":5,"retry_ms":0}"#,
                &format!("tasks None Fail {{ held: {held}, retry: Some(0ns) }}"),
            ),
            ("POST /v1/tasks/17/renew", r#"{"fence":5}"#, &format!("tasks None Renew {{ held: {held}, lease: 30s }}")),
            (
                "POST /v1/sessions",
                r#"{"user_id":"u","config":{"a":1}}"#,
                r#"session: None Session(New { id: None, owner: Some("u"), wallet_address: None, config: Some(Object {"a": Number(1)}) })"#,
            ),
            ("GET /v1/sessions/t%20est", "", r#"Backend(Session { id: "t est" })"#),
            (
                "POST /v1/approvals",
                r#"{"session":"test","tool_name":"pay"}"#,
                r#"session:test None Approval(Wanted { session: "test", id: None, execution_id: None, tool_name: "pay", tool_args: Object {}, reason: None, amount: None, currency: None, estimated_cost: None, expires_in: None })"#,
            ),
            ("GET /v1/approvals/a1", "", r#"Backend(Approval { id: "a1" })"#),
            (
                "POST /v1/approvals/a1/decide",
                r#"{"decision":"reject","reason":"no","by":"ann","seen":"d"}"#,
                r#"approval:a1 None Decide(Decide { approval: "a1", verdict: Reject { reason: Some("no") }, seen: Some("d"), by: Some("ann") })"#,
            ),
            (
                "GET /v1/rooms?prefix=doc:&after=doc%3Aa&limit=500",
                "",
                r#"Backend(Rooms { prefix: "doc:", after: "doc:a", limit: 500, key: ApiKey { name: "worker", rights: ["*"], .. } })"#,
            ),
            (
                "GET /v1/rooms/doc:a/b%20c/events?after=7&limit=2",
                "",
                "Backend(Events { room: doc:a/b c, after: Seq(7), limit: 2 })",
            ),
            (
                "GET /v1/rooms/r/events?after=18446744073709551615",
                "",
                "Backend(Events { room: r, after: Seq(9223372036854775807), limit: 100 })",
            ),
            ("GET /v1/connections", "", "census Backend(Connections)"),
            ("POST /v1/connections/c0.4.1/close", "", r#"Evict { conn: c0.4.1, reason: "closed by a backend" }"#),
            (
                "POST /v1/connections/c0.4.1/close",
                r#"{"reason":"too loud"}"#,
                r#"Evict { conn: c0.4.1, reason: "too loud" }"#,
            ),
        ] {
            assert_eq!(send(&["*"], request, body), expected, "{request} {body}");
        }
    }

    fn problem(status: u16, title: &str, detail: &str, code: &str) -> String {
        format!(
            r#"{status} problem+json {{"type":"about:blank","title":"{title}","status":{status},"detail":"{detail}","code":"{code}"}}"#
        )
    }

    #[test]
    fn refusals_are_problem_documents() {
        let bad = |detail: &str| problem(400, "Bad Request", detail, "bad_message");
        for (request, body, expected) in [
            ("POST /v1/publish", "", bad("a message is a JSON object of at most 32 levels")),
            ("POST /v1/publish", "{", bad("the message is not JSON")),
            ("POST /v1/publish", r#"{"room":"r"}"#, bad("type must be a string")),
            ("POST /v1/tasks/17/done", "{}", bad("fence must be a whole number")),
            (
                "POST /v1/tasks/x/done",
                r#"{"fence":5}"#,
                problem(404, "Not Found", "there is no such task", "unknown_task"),
            ),
            ("GET /v1/tasks?wait=61", "", bad("wait must be a whole number from 0 to 60")),
            ("GET /v1/tasks?wait=x", "", bad("wait must be a whole number from 0 to 60")),
            ("GET /v1/tasks?max=0", "", bad("max must be a whole number from 1 to 1000")),
            ("GET /v1/tasks?lease_ms=1", "", bad("lease_ms must be a whole number from 1000 to 3600000")),
            ("GET /v1/rooms?limit=501", "", bad("limit must be a whole number from 1 to 500")),
            ("GET /v1/rooms/r/events?after=-1", "", bad("after must be a whole number")),
            ("POST /v1/sessions", r#"{"id":"seven"}"#, problem(400, "Bad Request", "id must be a UUID", "bad_id")),
            (
                "POST /v1/connections/c00.4.1/close",
                "",
                problem(404, "Not Found", "there is no such connection", "no_such_connection"),
            ),
            ("POST /v1/revocations", "{}", bad("jti or user must say what is revoked")),
            (
                "POST /v1/revocations",
                r#"{"jti":"t","user":"ann"}"#,
                bad("jti and user are both there: a revocation is about one of them"),
            ),
            ("POST /v1/revocations", r#"{"jti":""}"#, bad("jti must be a string of 1 to 256 bytes")),
            (
                "POST /v1/revocations",
                r#"{"user":"a\nb"}"#,
                bad("user must be a string of 1 to 256 characters without control characters"),
            ),
            (
                "POST /v1/revocations",
                r#"{"jti":"t","before":7}"#,
                bad("before is about a user's tokens: a token is revoked whenever it was issued"),
            ),
            (
                "POST /v1/revocations",
                r#"{"user":"ann","before":-1}"#,
                bad("before must be unix seconds: a whole number from 0 to 253402300799"),
            ),
            (
                "POST /v1/revocations",
                r#"{"user":"ann","until":1.5}"#,
                bad("until must be unix seconds: a whole number from 0 to 253402300799"),
            ),
            ("GET /v1/revocations?jti=", "", bad("jti must be a string of 1 to 256 bytes")),
            ("GET /v1/sessions/%ff", "", problem(400, "Bad Request", "the decoded path is not UTF-8", "target")),
        ] {
            assert_eq!(send(&["*"], request, body), expected, "{request} {body}");
        }
        let unknown = problem(404, "Not Found", "there is no such endpoint", "unknown_path");
        for path in [
            "/v1/",
            "/v1/publish/",
            "/v1/tasks/17",
            "/v1/tasks/17/done/x",
            "/v1/tasks/17/undo",
            "/v1/rooms/r",
            "/v1/rooms/events/",
            "/v1/approvals/a/decide/b",
            "/v1/sessions/a/b",
            "/v1/connections/c0.4.1",
            "/v1/x",
        ] {
            assert_eq!(send(&["*"], &format!("GET {path}"), ""), unknown, "{path}");
        }
    }

    #[test]
    fn another_method_is_told_which_one_it_would_be() {
        for (path, allow) in [
            ("/v1/publish", "POST"),
            ("/v1/batch", "POST"),
            ("/v1/tasks/1/done", "POST"),
            ("/v1/sessions", "POST"),
            ("/v1/approvals/a/decide", "POST"),
            ("/v1/connections/c0.4.1/close", "POST"),
            // A HEAD would take tasks and tell nobody of them.
            ("/v1/tasks", "GET"),
            ("/v1/rooms", "GET, HEAD"),
            ("/v1/rooms/r/events", "GET, HEAD"),
            ("/v1/connections", "GET, HEAD"),
            ("/v1/revocations", "GET, HEAD, POST"),
            ("/v1/revocations/a", "DELETE"),
            ("/v1/sessions/a", "GET, HEAD"),
            ("/v1/approvals/a", "GET, HEAD"),
        ] {
            for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "BREW"] {
                let answer = send(&["*"], &format!("{method} {path}"), "{}");
                let refused = answer.starts_with(&format!("405 problem+json Allow: {allow} {{"));
                assert_eq!(refused, !allow.contains(method), "{method} {path} {answer}");
            }
            assert_eq!(send(&["*"], &format!("OPTIONS {path}"), ""), format!("204 Allow: {allow}"));
        }
    }

    #[test]
    fn each_endpoint_needs_its_right() {
        for (request, body, right) in [
            ("POST /v1/publish", PUBLISH, "publish:r"),
            ("GET /v1/tasks", "", "tasks:chat"),
            ("GET /v1/tasks?kinds=chat", "", "tasks:chat"),
            ("POST /v1/tasks/17/done", r#"{"fence":5}"#, "tasks:chat"),
            ("POST /v1/tasks/17/fail", r#"{"fence":5}"#, "tasks:chat"),
            ("POST /v1/tasks/17/renew", r#"{"fence":5}"#, "tasks:chat"),
            ("POST /v1/sessions", "{}", "sessions"),
            ("GET /v1/sessions/a", "", "sessions"),
            ("POST /v1/approvals", r#"{"session":"s","tool_name":"t"}"#, "approvals"),
            ("GET /v1/approvals/a", "", "approvals"),
            ("POST /v1/approvals/a/decide", r#"{"decision":"approve"}"#, "approvals"),
            ("GET /v1/rooms", "", "read:x"),
            ("GET /v1/rooms/r/events", "", "read:r"),
            ("GET /v1/connections", "", "connections"),
            ("POST /v1/connections/c0.4.1/close", "", "connections"),
            ("POST /v1/revocations", r#"{"jti":"t"}"#, "revocations"),
            ("GET /v1/revocations", "", "revocations"),
            ("DELETE /v1/revocations/a", "", "revocations"),
        ] {
            assert!(!send(&[right], request, body).contains("problem"), "{request} with {right}");
            let all = ["publish:r", "tasks:chat", "sessions", "approvals", "read:r", "connections", "revocations"];
            let others: Vec<&str> =
                all.into_iter().filter(|other| other.split(':').next() != right.split(':').next()).collect();
            let refused = send(&others, request, body);
            assert!(refused.starts_with("403 problem+json "), "{request} without {right}: {refused}");
        }
    }

    #[test]
    fn g5_the_idempotency_key_is_the_id() {
        let publish = |headers: &str, body: &str| send(&["*"], &format!("POST /v1/publish\n{headers}"), body);
        let with_id = r#"{"room":"r","type":"t","data":{},"id":"k-1"}"#;
        for (headers, body) in [
            ("Idempotency-Key: k-1", PUBLISH),
            ("idempotency-key: \"k-1\"", PUBLISH),
            ("Idempotency-Key: k-1", with_id),
            ("X: y", with_id),
        ] {
            let told = publish(headers, body);
            assert!(told.starts_with(r#"r Some("k-1") Publish"#), "{headers} {told}");
        }
        let long = format!("Idempotency-Key: {}", "k".repeat(65));
        for (headers, body, detail) in [
            ("Idempotency-Key: k-2", with_id, "Idempotency-Key and id are not the same"),
            ("Idempotency-Key: a\nIdempotency-Key: a", PUBLISH, "Idempotency-Key is there twice"),
            ("Idempotency-Key: \"\"", PUBLISH, "id must be a string of 1 to 64 bytes"),
            (&long, PUBLISH, "id must be a string of 1 to 64 bytes"),
        ] {
            assert_eq!(publish(headers, body), problem(400, "Bad Request", detail, "bad_id"), "{headers}");
        }
    }

    #[test]
    fn a_connection_has_one_spelling() {
        let id = ConnId { reactor: 255, slot: (1 << 24) - 1, generation: u32::MAX };
        assert_eq!(conn_id(&id.to_string()), Some(id));
        for text in ["", "c", "c0.4", "0.4.1", "c0.4.1.2", "c256.4.1", "c0.16777216.1", "c0.+4.1", "c0.04.1", "c 0.4.1"]
        {
            assert_eq!(conn_id(text), None, "{text}");
        }
    }

    #[test]
    fn whoever_has_a_connection_closed_hears_of_it() {
        assert_eq!(response(&evicted(true)), r#"200 {"closed":true}"#);
        let unknown = problem(404, "Not Found", "there is no such connection", "no_such_connection");
        assert_eq!(response(&evicted(false)), unknown);
    }

    proptest! {
        #[test]
        fn no_request_makes_an_endpoint_panic(
            path in "[a-z0-9/:%.]{0,30}",
            query in "[a-z_=&%0-9-]{0,30}",
            body in ".{0,60}",
        ) {
            for start in ["", "tasks/", "rooms/", "connections/", "approvals/", "sessions/", "revocations/"] {
                for method in ["GET", "POST", "DELETE"] {
                    let text = format!("{method} /v1/{start}{path}?{query} HTTP/1.1\r\nHost: a\r\n\r\n");
                    if let Ok(Some((head, _))) = head::parse(text.as_bytes()) {
                        let _ = endpoint(&head, body.as_bytes(), &key(&["*"]));
                    }
                }
            }
        }
    }
}
