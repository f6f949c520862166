//! HTTP requests: method and path and body become one question or one change.

use bytes::Bytes;
use serde::Serialize;

use super::census::Asked;
use super::object::Object;
use super::paths::{ALL_STATS, BROADCAST, EVERYBODY, Family, STATS, client_of, room_of, topic_of};
use super::reads::Read;
use super::wire;
use super::writes::Change;
use crate::auth::rights::Verb;
use crate::dialect::{self, Intent, Write};
use crate::http::{Head, Method, Response};
use crate::ids::RoomName;

pub fn endpoint(head: &Head<'_>, body: &[u8]) -> Intent {
    match head.path {
        STATS => ask(head, Asked::Stats),
        ALL_STATS => ask(head, Asked::AllStats),
        BROADCAST => write(head, body, |body| (Some(RoomName::new(EVERYBODY)), Change::Broadcast { body })),
        path => match (client_of(path), topic_of(path)) {
            (Some(client), _) => ask(head, Asked::Client(client)),
            (_, Some(topic)) => {
                write(head, body, |body| (room_of(Family::Topic, &topic), Change::Publish { topic, body }))
            }
            (None, None) => respond(detail(404, "Not Found")),
        },
    }
}

/// Whoever may write a topic may also move the workflow that an `episode.{id}.{stage}` topic speaks of: that is what such a
/// topic is for.
pub fn endpoint_needs(head: &Head<'_>, by_method: Verb) -> (&'static str, Verb) {
    match head.path {
        BROADCAST => (EVERYBODY, by_method),
        path if topic_of(path).is_some() => ("topic:*", by_method),
        _ => ("*", by_method),
    }
}

fn ask(head: &Head<'_>, asked: Asked) -> Intent {
    match head.method {
        Method::Get | Method::Head => Intent::Census(Box::new(dialect::Read::Workflows(Read::Census(asked)))),
        _ => not_allowed(head, "GET, HEAD"),
    }
}

fn write(head: &Head<'_>, body: &[u8], change: impl FnOnce(Bytes) -> (Option<RoomName>, Change)) -> Intent {
    if head.method != Method::Post {
        return not_allowed(head, "POST");
    }
    let body = body.trim_ascii();
    if let Err(fault) = check(body) {
        return respond(unprocessable("body", fault));
    }
    match change(Bytes::copy_from_slice(body)) {
        (Some(room), change) => {
            Intent::Write(Box::new(Write { room, op: None, change: dialect::Change::Workflows(change) }))
        }
        (None, _) => respond(unprocessable("path", ("The topic's name is too long", "string_too_long"))),
    }
}

/// What is wrong with a body, in FastAPI's words: (message, type).
fn check(body: &[u8]) -> Result<(), (&'static str, &'static str)> {
    if body.is_empty() {
        return Err(("Field required", "missing"));
    }
    if Object::parse(body).is_some() {
        return Ok(());
    }
    Err(match serde_json::from_slice::<serde::de::IgnoredAny>(body) {
        Ok(_) if body.starts_with(b"{") => ("JSON is nested too deeply", "json_invalid"),
        Ok(_) => ("Input should be a valid dictionary", "dict_type"),
        Err(_) => ("JSON decode error", "json_invalid"),
    })
}

fn unprocessable(place: &'static str, (msg, kind): (&'static str, &'static str)) -> Response {
    #[derive(Serialize)]
    struct Fault {
        loc: [&'static str; 1],
        msg: &'static str,
        r#type: &'static str,
    }
    #[derive(Serialize)]
    struct Faults {
        detail: [Fault; 1],
    }
    Response::json(422, wire::json(&Faults { detail: [Fault { loc: [place], msg, r#type: kind }] }))
}

fn detail(status: u16, detail: &'static str) -> Response {
    #[derive(Serialize)]
    struct Detail {
        detail: &'static str,
    }
    Response::json(status, wire::json(&Detail { detail }))
}

fn not_allowed(head: &Head<'_>, allow: &'static str) -> Intent {
    if head.method == Method::Options {
        return respond(Response::empty(204).with_header("Allow", allow));
    }
    respond(detail(405, "Method Not Allowed").with_header("Allow", allow))
}

fn respond(response: Response) -> Intent {
    Intent::Respond(Box::new(response))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::http::head;

    fn with_head<T>(line: &str, then: impl FnOnce(&Head<'_>) -> T) -> T {
        let text = format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n");
        let (head, _) = head::parse(text.as_bytes()).unwrap().unwrap();
        then(&head)
    }

    /// One line for an intent.
    fn told(line: &str, body: &str) -> String {
        match with_head(line, |head| endpoint(head, body.as_bytes())) {
            Intent::Respond(response) => {
                let headers: Vec<String> =
                    response.headers.iter().map(|(name, value)| format!("{name}: {value} ")).collect();
                format!("{} {}{}", response.status, headers.concat(), String::from_utf8_lossy(&response.body))
            }
            Intent::Census(read) => format!("{read:?}"),
            Intent::Write(write) => format!("{} {:?}", write.room, write.change),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn each_method_and_path_has_its_meaning() {
        let refused = |allow| format!(r#"405 Allow: {allow} {{"detail":"Method Not Allowed"}}"#);
        let fault =
            |msg: &str, kind: &str| format!(r#"422 {{"detail":[{{"loc":["body"],"msg":"{msg}","type":"{kind}"}}]}}"#);
        let publish = |room: &str, topic: &str| {
            format!(r#"{room} Workflows(Publish {{ topic: "{topic}", body: b"{{\"a\":1}}" }})"#)
        };
        let bomb = format!("{{\"a\":{}{}}}", "[".repeat(60), "]".repeat(60));
        for (line, body, expected) in [
            ("GET /api/v1/ws/stats", "", "Workflows(Census(Stats))".to_owned()),
            ("HEAD /ws/stats?x=1", "", "Workflows(Census(AllStats))".to_owned()),
            ("GET /ws/client/a%20b", "", r#"Workflows(Census(Client("a b")))"#.to_owned()),
            (
                "POST /api/v1/ws/broadcast",
                " {\"a\" : 1}\n",
                r#"workflows Workflows(Broadcast { body: b"{\"a\" : 1}" })"#.to_owned(),
            ),
            ("POST /api/v1/ws/publish/ep1", "{\"a\":1}", publish("topic:ep1", "ep1")),
            ("POST /api/v1/ws/publish/episode/7", "{\"a\":1}", publish("topic:episode/7", "episode/7")),
            ("POST /api/v1/ws/publish/episode%2F7", "{\"a\":1}", publish("topic:episode/7", "episode/7")),
            ("POST /api/v1/ws/publish/a%20b", "{\"a\":1}", publish("topic:::a:20b", "a b")),
            ("POST /api/v1/ws/stats", "", refused("GET, HEAD")),
            ("DELETE /ws/client/x", "", refused("GET, HEAD")),
            ("GET /api/v1/ws/broadcast", "", refused("POST")),
            ("GET /api/v1/ws/publish/t", "", refused("POST")),
            ("OPTIONS /api/v1/ws/publish/t", "", "204 Allow: POST ".to_owned()),
            ("POST /api/v1/ws/broadcast", "", fault("Field required", "missing")),
            ("POST /api/v1/ws/broadcast", "{", fault("JSON decode error", "json_invalid")),
            ("POST /api/v1/ws/publish/t", "[]", fault("Input should be a valid dictionary", "dict_type")),
            ("POST /api/v1/ws/publish/t", "null", fault("Input should be a valid dictionary", "dict_type")),
            ("POST /api/v1/ws/publish/t", &bomb, fault("JSON is nested too deeply", "json_invalid")),
            ("GET /api/v1/ws/other", "", r#"404 {"detail":"Not Found"}"#.to_owned()),
        ] {
            assert_eq!(told(line, body), expected, "{line} {body}");
        }
        let long = format!("POST /api/v1/ws/publish/{}", "t".repeat(300));
        assert!(told(&long, "{}").starts_with(r#"422 {"detail":[{"loc":["path"]"#));
    }

    #[test]
    fn v12_each_endpoint_needs_its_right() {
        for (line, expected) in [
            ("POST /api/v1/ws/broadcast", ("workflows", Verb::Write)),
            ("POST /api/v1/ws/publish/t", ("topic:*", Verb::Write)),
            ("GET /ws/stats", ("*", Verb::Read)),
            ("GET /ws/client/x", ("*", Verb::Read)),
        ] {
            let by_method = if line.starts_with("POST") { Verb::Write } else { Verb::Read };
            assert_eq!(with_head(line, |head| endpoint_needs(head, by_method)), expected, "{line}");
        }
    }
}
