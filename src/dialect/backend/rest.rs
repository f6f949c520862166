//! HTTP: method, path and body become one question or one change.
//!
//! ```text
//! POST publish  batch                          GET  tasks        POST tasks/{id}/done|fail|renew
//! POST sessions   GET sessions/{id}            POST approvals    GET  approvals/{id}   POST approvals/{id}/decide
//! GET  rooms      GET rooms/{room}/events      GET  connections  POST connections/{id}/close
//! ```

use std::sync::Arc;
use std::time::Duration;

use super::answers::{Asked, Via};
use super::fault::Fault;
use super::message::{self, Message};
use super::reads::Read;
use super::wire::{self, Facts};
use super::writes::{Change, Decide, What};
use super::{Held, Publishing, batch, desk_room, rights};
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

/// Is there anything at this path? Malformed ids are: their endpoint says what is wrong with them.
pub fn has(path: &str) -> bool {
    !matches!(Endpoint::at(path), Ok(None))
}

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
            _ => return Ok(None),
        }))
    }

    fn methods(&self) -> &'static [Method] {
        match self {
            // Hands something out, which a HEAD would drop.
            Endpoint::Tasks => &[Method::Get],
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
