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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::super::testing::{S, said};
    use super::*;
    use crate::dialect::Reply;
    use crate::http::head;
    use proptest::prelude::*;

    fn asked(line: &str, body: &[u8]) -> Intent {
        let text = format!("{line} HTTP/1.1\r\nHost: example.org:8000\r\n\r\n");
        let (head, _) = head::parse(text.as_bytes()).unwrap().unwrap();
        endpoint(&head, body)
    }

    /// One line for an intent.
    fn told(line: &str, body: &str) -> String {
        match asked(line, body.as_bytes()) {
            Intent::Respond(response) => said(&Reply::Response(response)),
            Intent::Read(read) => format!("{read:?}").replace("Agents(", "").replace(')', ""),
            Intent::Write(write) => {
                format!("{} {:?}", write.room, write.change).replace("Agents(", "").replace(')', "")
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn each_endpoint_asks_for_its_own() {
        let p = |rest: &str| format!("/api/v1/{rest}");
        let rest_none = "asked: Rest { session: None } }";
        for (method, path, body, expected) in [
            ("GET", p("approvals/pending"), "", "Pending { session: None }".to_owned()),
            ("GET", p("approvals/pending?session_id=x%20y"), "", "Pending { session: Some(\"x y\" }".into()),
            ("GET", p(&format!("approvals/{}", S.to_uppercase())), "", format!("Approval {{ id: \"{S}\" }}")),
            (
                "POST",
                p(&format!("approvals/{S}/approve")),
                "ignored",
                format!("session: Decide {{ request: \"{S}\", verdict: Approve, {rest_none}"),
            ),
            (
                "POST",
                p(&format!("approvals/{S}/reject")),
                "",
                format!("session: Decide {{ request: \"{S}\", verdict: Reject {{ reason: None }}, {rest_none}"),
            ),
            (
                "POST",
                p(&format!("approvals/{S}/reject")),
                r#"{"reason":"no","x":1}"#,
                format!("session: Decide {{ request: \"{S}\", verdict: Reject {{ reason: Some(\"no\" }}, {rest_none}"),
            ),
            (
                "POST",
                p(&format!("approvals/{S}/edit")),
                r#"{"edited_args":{}}"#,
                format!("session: Decide {{ request: \"{S}\", verdict: Edit {{ args: Object {{}} }}, {rest_none}"),
            ),
            (
                "POST",
                p("agent/execute"),
                r#"{"command":"pay"}"#,
                format!(
                    "session: Execute {{ order: Order {{ command: \"pay\", plan: None, budget_limit_usd: None }}, {rest_none}"
                ),
            ),
            (
                "POST",
                p("agent/execute"),
                &format!(r#"{{"command":"pay","session_id":"{}","budget_limit_usd":5}}"#, S.to_uppercase()),
                format!(
                    "session:{S} Execute {{ order: Order {{ command: \"pay\", plan: None, budget_limit_usd: Some(Number(5 }}, asked: Rest {{ session: Some(\"{S}\" }} }}"
                ),
            ),
            ("GET", p("agent/sessions"), "", "Sessions { offset: 0, limit: 100 }".into()),
            ("GET", p("agent/sessions?offset=5&limit=1000"), "", "Sessions { offset: 5, limit: 1000 }".into()),
            (
                "POST",
                p("agent/sessions"),
                "",
                "session: Create { new: New { id: None, owner: None, wallet_address: None, config: None } }".into(),
            ),
            ("GET", p("agent/sessions/test"), "", "Session { id: \"test\" }".into()),
            ("DELETE", p(&format!("agent/sessions/{S}")), "", format!("session:{S} Delete {{ id: \"{S}\" }}")),
        ] {
            assert_eq!(told(&format!("{method} {path}"), body), expected, "{method} {path} {body}");
        }
    }

    #[test]
    fn bad_requests_are_told_in_the_framework_s_shape() {
        let p = |rest: &str| format!("/api/v1/{rest}");
        let body = |field: &str, msg: &str, kind: &str| {
            let place = if field.is_empty() { String::new() } else { format!(r#","{field}""#) };
            format!(r#"422 {{"detail":[{{"loc":["body"{place}],"msg":"{msg}","type":"{kind}"}}]}}"#)
        };
        let no_session = r#"404 {"error":"404: Session not found","detail":"Session not found"}"#;
        let edit = p(&format!("approvals/{S}/edit"));
        let deep = format!(r#"{{"edited_args":{{"a":{}{}}}}}"#, "[".repeat(40), "]".repeat(40));
        for (method, path, sent, expected) in [
            ("POST", edit.clone(), "", body("", "Field required", "missing")),
            ("POST", edit.clone(), "{", body("", "JSON decode error", "json_invalid")),
            ("POST", edit.clone(), &deep, body("", "JSON decode error", "json_invalid")),
            ("POST", edit.clone(), "{}", body("edited_args", "Field required", "missing")),
            ("POST", edit.clone(), r#"{"edited_args":[]}"#, body("edited_args", "Input should be a valid dictionary", "dict_type")),
            (
                "POST",
                p(&format!("approvals/{S}/reject")),
                r#"{"reason":1}"#,
                body("reason", "Input should be a valid string", "string_type"),
            ),
            ("POST", p("agent/execute"), "{}", body("command", "Field required", "missing")),
            (
                "POST",
                p("agent/execute"),
                r#"{"command":"x","budget_limit_usd":"5"}"#,
                body("budget_limit_usd", "Input should be a valid number", "float_type"),
            ),
            ("POST", p("agent/execute"), r#"{"command":"x","session_id":"a b"}"#, no_session.into()),
            ("POST", p("agent/sessions"), r#"{"id":"test"}"#, body("id", "Input should be a valid UUID", "uuid_parsing")),
            (
                "GET",
                p("approvals/x"),
                "",
                r#"422 {"detail":[{"loc":["path","request_id"],"msg":"Input should be a valid UUID","type":"uuid_parsing"}]}"#
                    .into(),
            ),
            (
                "GET",
                p("agent/sessions?limit=1001"),
                "",
                r#"422 {"detail":[{"loc":["query","limit"],"msg":"Input should be a whole number within its bounds","type":"int_parsing"}]}"#
                    .into(),
            ),
            ("GET", p("agent/sessions/a%20b"), "", no_session.into()),
            ("GET", p("approvals/"), "", r#"404 {"detail":"Not Found"}"#.into()),
            ("POST", p(&format!("approvals/{S}/undo")), "", r#"404 {"detail":"Not Found"}"#.into()),
            ("GET", p("agent/execute"), "", r#"405 {"detail":"Method Not Allowed"}"#.into()),
            ("PUT", edit, "", r#"405 {"detail":"Method Not Allowed"}"#.into()),
            ("POST", p("approvals/pending"), "", r#"405 {"detail":"Method Not Allowed"}"#.into()),
            ("PATCH", p(&format!("agent/sessions/{S}")), "", r#"405 {"detail":"Method Not Allowed"}"#.into()),
            ("OPTIONS", p("agent/sessions"), "", "204 ".into()),
        ] {
            assert_eq!(told(&format!("{method} {path}"), sent), expected, "{method} {path} {sent}");
        }
    }

    #[test]
    fn deciding_needs_the_right_to_approve() {
        for (line, expected) in [
            ("POST /api/v1/approvals/x/approve", Verb::Approve),
            ("GET /api/v1/approvals/pending", Verb::Read),
            ("POST /api/v1/agent/execute", Verb::Write),
            ("DELETE /api/v1/agent/sessions/x", Verb::Write),
        ] {
            let text = format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n");
            let (head, _) = head::parse(text.as_bytes()).unwrap().unwrap();
            let by_method = if head.method == Method::Get { Verb::Read } else { Verb::Write };
            assert_eq!(needs(&head, by_method), ("session:*", expected), "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_request_makes_it_panic(rest in "[a-z/%0-9-]{0,40}", body in ".{0,40}", method in 0..4usize) {
            let method = ["GET", "POST", "DELETE", "PUT"][method];
            for root in ["/api/v1/approvals/", "/api/v1/agent/sessions/", "/api/v1/agent/"] {
                let text = format!("{method} {root}{rest} HTTP/1.1\r\nHost: a\r\n\r\n");
                if let Ok(Some((head, _))) = head::parse(text.as_bytes()) {
                    let _ = endpoint(&head, body.as_bytes());
                }
            }
        }
    }
}
