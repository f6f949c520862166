//! Requests over HTTP: method, path and body become one question or one change, or a refusal in FastAPI's words.

use serde::de::IgnoredAny;
use serde_json::Value;

use super::faults::{self, Fault, Step};
use super::paths::{self, Endpoint};
use super::reads::{LISTED_MAX, Read};
use super::writes::Change;
use super::{TICKETS, ledger};
use crate::auth::rights::Verb;
use crate::dialect::json::Object;
use crate::dialect::{self, Intent, Write, json};
use crate::http::{Head, Method, Response, decode_path, query_param};
use crate::ids::RoomName;

/// Tickets of a listing that names no number.
const LISTED: usize = 100;

pub fn endpoint(head: &Head<'_>, body: &[u8]) -> Intent {
    answer(head, body).unwrap_or_else(|response| Intent::Respond(Box::new(response)))
}

pub fn endpoint_needs(_head: &Head<'_>, by_method: Verb) -> (&'static str, Verb) {
    (TICKETS, by_method)
}

/// The error is a finished response.
fn answer(head: &Head<'_>, body: &[u8]) -> Result<Intent, Response> {
    let Some(endpoint) = paths::endpoint(head.path) else {
        return Err(match paths::without_slash(head.path) {
            Some(path) => redirect(path, head.query),
            None => faults::detail(404, "Not Found"),
        });
    };
    let allow = match endpoint {
        Endpoint::Create | Endpoint::Webhook | Endpoint::Status(_) => "POST",
        _ => "GET",
    };
    match (head.method, allow) {
        (Method::Post, "POST") | (Method::Get | Method::Head, "GET") => {}
        _ => return Err(faults::detail(405, "Method Not Allowed").with_header("Allow", allow)),
    }
    let parameter = |name| query_param(head.query, name).map(|value| value.into_owned());
    let number = |name| parameter(name).and_then(|value| value.parse::<usize>().ok());
    match endpoint {
        Endpoint::Create => with_object(head, body, create),
        Endpoint::Webhook => with_object(head, body, webhook),
        Endpoint::Status(id) => status(decoded(id)?, parameter("status")),
        Endpoint::Job(id) => Ok(ask(Read::Job { id: decoded(id)? })),
        Endpoint::Tickets => {
            let count = number("limit").unwrap_or(LISTED).min(LISTED_MAX);
            Ok(ask(Read::Tickets { state: parameter("status"), skip: number("skip").unwrap_or(0), count }))
        }
        Endpoint::Stats => Ok(ask(Read::Stats)),
        Endpoint::Conversation(id) => Ok(ask(Read::Conversation { ticket: decoded(id)? })),
    }
}

fn create(body: &Body<'_>) -> Result<Intent, Response> {
    let mut faults = Vec::new();
    let name = body.required("ticket_name", &mut faults);
    let description = body.optional("description", &mut faults);
    match name {
        Some(name) if faults.is_empty() => Ok(write(Change::Create { name, description })),
        _ => Err(faults::unprocessable(&faults)),
    }
}

fn webhook(body: &Body<'_>) -> Result<Intent, Response> {
    let mut faults = Vec::new();
    let page_id = body.required("page_id", &mut faults);
    let database_id = body.required("database_id", &mut faults);
    let event_type = body.required("event_type", &mut faults);
    match (page_id, database_id, event_type) {
        (Some(page_id), Some(database_id), Some(event_type)) => {
            Ok(write(Change::Webhook { page_id, database_id, event_type }))
        }
        _ => Err(faults::unprocessable(&faults)),
    }
}

fn status(ticket: String, status: Option<String>) -> Result<Intent, Response> {
    let place = || vec![Step::Name("query"), Step::Name("status")];
    match status {
        None => Err(faults::unprocessable(&[Fault::missing(place(), None)])),
        Some(status) if status.len() > ledger::STATUS_BYTES_MAX => Err(faults::too_long(place(), &status)),
        Some(status) => Ok(write(Change::Status { ticket, status })),
    }
}

/// A body that is an object: its fields, and its text to show in complaints.
struct Body<'t> {
    text: &'t str,
    object: Object<'t>,
}

impl Body<'_> {
    fn required<'a>(&'a self, name: &'static str, faults: &mut Vec<Fault<'a>>) -> Option<String> {
        match self.object.get(name) {
            None => {
                faults.push(Fault::missing(place(name), Some(self.text)));
                None
            }
            Some(value) => string(value, name, faults),
        }
    }

    fn optional<'a>(&'a self, name: &'static str, faults: &mut Vec<Fault<'a>>) -> Option<String> {
        let value = self.object.given(name)?;
        string(value, name, faults)
    }
}

fn string<'t>(value: &'t str, name: &'static str, faults: &mut Vec<Fault<'t>>) -> Option<String> {
    let text = serde_json::from_str(value).ok();
    if text.is_none() {
        faults.push(Fault::string_type(place(name), value));
    }
    text
}

fn place(name: &'static str) -> Vec<Step> {
    vec![Step::Name("body"), Step::Name(name)]
}

/// Reads the body as FastAPI does: as JSON when the content type says so or says nothing, otherwise as one string, which is
/// no object. So a page of another origin cannot make a ticket with a form, which browsers send without asking.
fn with_object(
    head: &Head<'_>,
    body: &[u8],
    then: impl FnOnce(&Body<'_>) -> Result<Intent, Response>,
) -> Result<Intent, Response> {
    let unreadable = || faults::detail(400, "There was an error parsing the body");
    let missing = || faults::unprocessable(&[Fault::missing(vec![Step::Name("body")], None)]);
    if body.is_empty() {
        return Err(missing());
    }
    let is_json = head.header("content-type").is_none_or(says_json);
    let text = if is_json {
        let text = std::str::from_utf8(body).map_err(|_| unreadable())?;
        match json::parse(text) {
            Some(Value::Null) => return Err(missing()),
            Some(_) => json::compact(text),
            None => return Err(fault_position(text).map_or_else(unreadable, faults::json_invalid)),
        }
    } else {
        json::quoted(&String::from_utf8_lossy(body))
    };
    match Object::parse(&text) {
        Some(object) => then(&Body { text: &text, object }),
        None => Err(faults::unprocessable(&[Fault::no_object(&text)])),
    }
}

fn says_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let subtype = essence.strip_prefix("application/");
    subtype.is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

/// The index of the character where a text stops being JSON. `None`: it is JSON, but more of it than we take.
fn fault_position(text: &str) -> Option<usize> {
    let error = serde_json::from_str::<IgnoredAny>(text).err()?;
    if error.is_eof() {
        return Some(text.chars().count());
    }
    let before: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let offset = before + error.column().saturating_sub(1);
    Some(text.char_indices().take_while(|(at, _)| *at < offset).count())
}

fn decoded(id: &str) -> Result<String, Response> {
    decode_path(id).map_err(|reject| Response::reject(&reject))
}

/// The path is one of ours, and so cannot lead to another host.
fn redirect(path: &str, query: Option<&str>) -> Response {
    let location = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    Response::empty(307).with_header("Location", location)
}

fn ask(read: Read) -> Intent {
    Intent::Read(Box::new(dialect::Read::Tickets(read)))
}

fn write(change: Change) -> Intent {
    let change = dialect::Change::Tickets(change);
    Intent::Write(Box::new(Write { room: RoomName::new(TICKETS), op: None, change }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::http::head;
    use proptest::prelude::*;

    fn asked(line: &str, headers: &str, body: &[u8]) -> String {
        let text = format!("{line} HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
        let (head, _) = head::parse(text.as_bytes()).unwrap().unwrap();
        match endpoint(&head, body) {
            Intent::Respond(response) => {
                let headers: String =
                    response.headers.iter().map(|(name, value)| format!("{name}: {value} ")).collect();
                format!("{} {headers}{}", response.status, String::from_utf8_lossy(&response.body))
            }
            Intent::Read(read) => format!("{read:?}"),
            Intent::Write(write) => format!("{} {:?}", write.room, write.change),
            other => format!("{other:?}"),
        }
    }

    fn posted(path: &str, body: &str) -> String {
        asked(&format!("POST {path}"), "Content-Type: application/json\r\n", body.as_bytes())
    }

    #[test]
    fn requests_become_questions_and_changes() {
        for (line, body, expected) in [
            (
                "POST /tickets/create",
                r#"{"ticket_name":"N"}"#,
                r#"tickets Tickets(Create { name: "N", description: None })"#,
            ),
            (
                "POST /tickets/create",
                r#"{"description":"D","ticket_name":"","more":[]}"#,
                r#"tickets Tickets(Create { name: "", description: Some("D") })"#,
            ),
            (
                "POST /tickets/create",
                r#"{"ticket_name":"N","description":null}"#,
                r#"tickets Tickets(Create { name: "N", description: None })"#,
            ),
            (
                "POST /webhook/notion",
                r#"{"page_id":"p","database_id":"d","event_type":"e"}"#,
                r#"tickets Tickets(Webhook { page_id: "p", database_id: "d", event_type: "e" })"#,
            ),
            (
                "POST /api/tickets/a%20b/status?status=in+work",
                "",
                r#"tickets Tickets(Status { ticket: "a b", status: "in work" })"#,
            ),
            ("GET /jobs/job-123", "", r#"Tickets(Job { id: "job-123" })"#),
            ("HEAD /jobs/job-123", "", r#"Tickets(Job { id: "job-123" })"#),
            ("GET /api/tickets", "", "Tickets(Tickets { state: None, skip: 0, count: 100 })"),
            (
                "GET /api/tickets?status=pending&skip=5&limit=9999",
                "",
                r#"Tickets(Tickets { state: Some("pending"), skip: 5, count: 500 })"#,
            ),
            ("GET /api/stats", "", "Tickets(Stats)"),
            ("GET /api/tickets/t/conversation", "", r#"Tickets(Conversation { ticket: "t" })"#),
        ] {
            assert_eq!(asked(line, "", body.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn wrong_methods_and_last_slashes_are_answered_as_fastapi_does() {
        let not_allowed = |allow: &str| format!(r#"405 Allow: {allow} {{"detail":"Method Not Allowed"}}"#);
        for (line, expected) in [
            ("GET /tickets/create", not_allowed("POST")),
            ("OPTIONS /tickets/create", not_allowed("POST")),
            ("DELETE /webhook/notion", not_allowed("POST")),
            ("GET /api/tickets/t/status", not_allowed("POST")),
            ("POST /jobs/j", not_allowed("GET")),
            ("PUT /api/tickets", not_allowed("GET")),
            ("POST /tickets/create/?a=b", "307 Location: /tickets/create?a=b ".to_owned()),
            ("GET /jobs/j/", "307 Location: /jobs/j ".to_owned()),
            ("GET /nowhere", r#"404 {"detail":"Not Found"}"#.to_owned()),
        ] {
            assert_eq!(asked(line, "", b""), expected, "{line}");
        }
    }

    #[test]
    fn a_422_lists_everything_that_is_wrong_with_what_was_sent() {
        let missing = |field: &str, input: &str| {
            format!(r#"{{"type":"missing","loc":["body","{field}"],"msg":"Field required","input":{input}}}"#)
        };
        let no_string = |field: &str, input: &str| {
            format!(
                r#"{{"type":"string_type","loc":["body","{field}"],"msg":"Input should be a valid string","input":{input}}}"#
            )
        };
        let no_object = |input: &str| {
            format!(
                r#"{{"type":"model_attributes_type","loc":["body"],"msg":"Input should be a valid dictionary or object to extract fields from","input":{input}}}"#
            )
        };
        let no_body = r#"{"type":"missing","loc":["body"],"msg":"Field required","input":null}"#.to_owned();
        let invalid = |at: usize| {
            format!(
                r#"{{"type":"json_invalid","loc":["body",{at}],"msg":"JSON decode error","input":{{}},"ctx":{{"error":"Expecting value"}}}}"#
            )
        };
        for (path, body, expected) in [
            ("/tickets/create", "{}", missing("ticket_name", "{}")),
            (
                "/tickets/create",
                "{ \"description\" : 5,\n\"z\":[1, \"a b\"] }",
                [missing("ticket_name", r#"{"description":5,"z":[1,"a b"]}"#), no_string("description", "5")].join(","),
            ),
            ("/tickets/create", r#"{"ticket_name":null}"#, no_string("ticket_name", "null")),
            ("/tickets/create", r#"{"ticket_name":{"b":1,"a":2}}"#, no_string("ticket_name", r#"{"b":1,"a":2}"#)),
            (
                "/webhook/notion",
                r#"{"page_id":1}"#,
                [
                    no_string("page_id", "1"),
                    missing("database_id", r#"{"page_id":1}"#),
                    missing("event_type", r#"{"page_id":1}"#),
                ]
                .join(","),
            ),
            ("/tickets/create", "", no_body.clone()),
            ("/tickets/create", "null", no_body),
            ("/tickets/create", "[1, 2]", no_object("[1,2]")),
            ("/tickets/create", "\"x\"", no_object("\"x\"")),
            ("/tickets/create", "{bad", invalid(1)),
            ("/tickets/create", "{", invalid(1)),
            ("/tickets/create", "{\"é\":1,\n}", invalid(8)),
            ("/tickets/create", "{} x", invalid(3)),
        ] {
            assert_eq!(posted(path, body), format!(r#"422 {{"detail":[{expected}]}}"#), "{body}");
        }
        let status =
            r#"422 {"detail":[{"type":"missing","loc":["query","status"],"msg":"Field required","input":null}]}"#;
        assert_eq!(posted("/api/tickets/t/status", ""), status);
        let long = posted(&format!("/api/tickets/t/status?status={}", "s".repeat(65)), "");
        assert!(long.starts_with(r#"422 {"detail":[{"type":"string_too_long","loc":["query","status"],"#), "{long}");
        assert!(long.ends_with(r#""ctx":{"max_length":64}}]}"#), "{long}");
    }

    #[test]
    fn b9_a_form_of_another_origin_makes_no_ticket() {
        let body = br#"{"ticket_name":"N"}"#;
        for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "json"] {
            let answer = asked("POST /tickets/create", &format!("Content-Type: {content_type}\r\n"), body);
            assert!(
                answer.starts_with(r#"422 {"detail":[{"type":"model_attributes_type","loc":["body"],"#),
                "{answer}"
            );
            assert!(answer.ends_with(r#""input":"{\"ticket_name\":\"N\"}"}]}"#), "{answer}");
        }
        for content_type in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"] {
            let answer = asked("POST /tickets/create", &format!("Content-Type: {content_type}\r\n"), body);
            assert!(answer.starts_with("tickets Tickets(Create"), "{answer}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_a_400() {
        let unreadable = r#"400 {"detail":"There was an error parsing the body"}"#;
        let deep = format!(r#"{{"ticket_name":{}{}}}"#, "[".repeat(40), "]".repeat(40));
        for body in [&b"{\"ticket_name\":\"\xff\"}"[..], deep.as_bytes(), br#"{"ticket_name":"\ud800"}"#] {
            assert_eq!(asked("POST /tickets/create", "", body), unreadable);
        }
    }

    #[test]
    fn one_right_covers_every_endpoint() {
        let (head, _) = head::parse(b"GET /api/stats HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().unwrap();
        assert_eq!(endpoint_needs(&head, Verb::Read), ("tickets", Verb::Read));
    }

    proptest! {
        #[test]
        fn no_body_makes_an_endpoint_panic(body in prop::collection::vec(any::<u8>(), 0..60), text in "[\\[\\]{}\",:a1\\\\ \nu]{0,40}") {
            asked("POST /tickets/create", "", &body);
            asked("POST /webhook/notion", "", text.as_bytes());
        }
    }
}
