//! REST requests: method and path and body become one question or one change.
//!
//! ```text
//! POST    /api/v1/agent/execute
//! GET     /api/v1/agent/sessions   POST (ours: makes one)      GET DELETE  /api/v1/agent/sessions/{id}
//! GET     /api/v1/approvals/pending   /api/v1/approvals/{id}
//! POST    /api/v1/approvals/{id}/approve  reject  edit
//! ```
//!
//! A decision here is the same as on a socket, and the sockets of its session see it (4.5).

use serde_json::{Map, Value};

use super::approvals::Verdict;
use super::paths::{APPROVALS, EXECUTE, SESSIONS};
use super::reads::Read;
use super::runs::Order;
use super::sessions::{self, New};
use super::views::{self, Fault};
use super::writes::{Asked, Change};
use crate::auth::rights::Verb;
use crate::dialect::{self, Intent, Write, json};
use crate::http::{Head, Method, Response, decode_path, query_param};
use crate::ids::RoomName;

/// Sessions of a page when the request does not say, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;

pub fn endpoint(head: &Head<'_>, body: &[u8]) -> Intent {
    let outcome = match head.path {
        EXECUTE => match head.method {
            Method::Post => execute(body),
            _ => Err(not_allowed(head, "POST")),
        },
        SESSIONS => match head.method {
            Method::Get | Method::Head => list(head),
            Method::Post => create(body),
            _ => Err(not_allowed(head, "GET, HEAD, POST")),
        },
        path => match below(path, SESSIONS) {
            Some(id) => session(head, id),
            None => match below(path, APPROVALS) {
                Some(rest) => approval(head, rest, body),
                None => Err(views::detail(404, "Not Found")),
            },
        },
    };
    outcome.unwrap_or_else(|response| Intent::Respond(Box::new(response)))
}

pub fn needs(head: &Head<'_>, by_method: Verb) -> (&'static str, Verb) {
    let decides = head.method == Method::Post && below(head.path, APPROVALS).is_some();
    ("session:*", if decides { Verb::Approve } else { by_method })
}

fn below<'p>(path: &'p str, root: &str) -> Option<&'p str> {
    path.strip_prefix(root)?.strip_prefix('/').filter(|rest| !rest.is_empty())
}

/// The error is a finished response.
fn execute(body: &[u8]) -> Result<Intent, Response> {
    let body = Body::parse(body)?;
    let command = body.text("command")?.ok_or_else(|| Body::missing("command"))?;
    let session = match body.text("session_id")? {
        None => None,
        Some(text) => Some(sessions::key(&text).ok_or_else(views::no_session)?),
    };
    let budget_limit_usd = match body.0.get("budget_limit_usd") {
        None | Some(Value::Null) => None,
        Some(Value::Number(limit)) => Some(limit.clone()),
        Some(_) => return Err(Body::wrong("budget_limit_usd", "Input should be a valid number", "float_type")),
    };
    let order = Order { command, plan: None, budget_limit_usd };
    let room = session.as_deref().map_or_else(anywhere, sessions::room_of);
    Ok(write(room, Change::Execute { order, asked: Asked::Rest { session } }))
}

fn list(head: &Head<'_>) -> Result<Intent, Response> {
    let offset = number(head, "offset", 0, usize::MAX)?;
    let limit = number(head, "limit", PAGE, PAGE_MAX)?;
    Ok(ask(Read::Sessions { offset, limit }))
}

fn number(head: &Head<'_>, name: &'static str, default: usize, max: usize) -> Result<usize, Response> {
    match query_param(head.query, name) {
        None => Ok(default),
        Some(text) => text.parse().ok().filter(|number| *number <= max).ok_or_else(|| {
            let msg = "Input should be a whole number within its bounds";
            views::unprocessable(Fault { loc: vec!["query", name], msg, r#type: "int_parsing" })
        }),
    }
}

fn create(body: &[u8]) -> Result<Intent, Response> {
    let body = if body.trim_ascii().is_empty() { Body(Map::new()) } else { Body::parse(body)? };
    let id = match body.text("id")? {
        None => None,
        Some(text) => {
            let id = sessions::canonical(&text);
            Some(id.ok_or_else(|| Body::wrong("id", "Input should be a valid UUID", "uuid_parsing"))?)
        }
    };
    let room = id.as_deref().map_or_else(anywhere, sessions::room_of);
    let new = New { id, owner: None, wallet_address: body.text("wallet_address")?, config: body.object("config")? };
    Ok(write(room, Change::Create { new }))
}

fn session(head: &Head<'_>, raw: &str) -> Result<Intent, Response> {
    let id = decode_path(raw).ok().and_then(|text| sessions::key(&text)).ok_or_else(views::no_session);
    match head.method {
        Method::Get | Method::Head => Ok(ask(Read::Session { id: id? })),
        Method::Delete => {
            let id = id?;
            Ok(write(sessions::room_of(&id), Change::Delete { id }))
        }
        _ => Err(not_allowed(head, "DELETE, GET, HEAD")),
    }
}

fn approval(head: &Head<'_>, rest: &str, body: &[u8]) -> Result<Intent, Response> {
    let (raw, action) = rest.split_once('/').map_or((rest, None), |(raw, action)| (raw, Some(action)));
    let reads = matches!(head.method, Method::Get | Method::Head);
    let verdict = match (action, raw) {
        (None, "pending") if reads => {
            let session = query_param(head.query, "session_id").map(|id| id.into_owned());
            return Ok(ask(Read::Pending { session }));
        }
        (None, _) if reads => return Ok(ask(Read::Approval { id: uuid(raw)? })),
        (None, _) => return Err(not_allowed(head, "GET, HEAD")),
        (Some("approve" | "reject" | "edit"), _) if head.method != Method::Post => {
            return Err(not_allowed(head, "POST"));
        }
        (Some("approve"), _) => Verdict::Approve,
        // Without a body it is without a reason.
        (Some("reject"), _) if body.trim_ascii().is_empty() => Verdict::Reject { reason: None },
        (Some("reject"), _) => Verdict::Reject { reason: Body::parse(body)?.text("reason")? },
        (Some("edit"), _) => {
            let args = Body::parse(body)?.object("edited_args")?;
            Verdict::Edit { args: args.ok_or_else(|| Body::missing("edited_args"))? }
        }
        (Some(_), _) => return Err(views::detail(404, "Not Found")),
    };
    let asked = Asked::Rest { session: None };
    Ok(write(anywhere(), Change::Decide { request: uuid(raw)?, verdict, asked }))
}

fn uuid(raw: &str) -> Result<String, Response> {
    decode_path(raw).ok().and_then(|text| sessions::canonical(&text)).ok_or_else(|| {
        let msg = "Input should be a valid UUID";
        views::unprocessable(Fault { loc: vec!["path", "request_id"], msg, r#type: "uuid_parsing" })
    })
}

/// The place in the queue of a request that does not know its session. Events go to the right room all the same.
fn anywhere() -> RoomName {
    sessions::room_of("")
}

fn write(room: RoomName, change: Change) -> Intent {
    Intent::Write(Box::new(Write { room, op: None, change: dialect::Change::Agents(change) }))
}

fn ask(read: Read) -> Intent {
    Intent::Read(Box::new(dialect::Read::Agents(read)))
}

/// OPTIONS is answered with what there is; anything else learns it with the refusal.
fn not_allowed(head: &Head<'_>, allow: &str) -> Response {
    let response = match head.method {
        Method::Options => Response::empty(204),
        _ => views::detail(405, "Method Not Allowed"),
    };
    response.with_header("Allow", allow)
}

/// A request's body: a JSON object whose unknown fields are let be.
struct Body(Map<String, Value>);

impl Body {
    fn parse(bytes: &[u8]) -> Result<Body, Response> {
        let wrong = |msg, r#type| Err(views::unprocessable(Fault { loc: vec!["body"], msg, r#type }));
        if bytes.trim_ascii().is_empty() {
            return wrong("Field required", "missing");
        }
        match std::str::from_utf8(bytes).ok().and_then(json::parse) {
            Some(Value::Object(fields)) => Ok(Body(fields)),
            Some(_) => {
                wrong("Input should be a valid dictionary or object to extract fields from", "model_attributes_type")
            }
            None => wrong("JSON decode error", "json_invalid"),
        }
    }

    /// None when it is absent or null.
    fn text(&self, name: &'static str) -> Result<Option<String>, Response> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(Body::wrong(name, "Input should be a valid string", "string_type")),
        }
    }

    fn object(&self, name: &'static str) -> Result<Option<Value>, Response> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(object @ Value::Object(_)) => Ok(Some(object.clone())),
            Some(_) => Err(Body::wrong(name, "Input should be a valid dictionary", "dict_type")),
        }
    }

    fn missing(name: &'static str) -> Response {
        Body::wrong(name, "Field required", "missing")
    }

    fn wrong(name: &'static str, msg: &'static str, r#type: &'static str) -> Response {
        views::unprocessable(Fault { loc: vec!["body", name], msg, r#type })
    }
}
