//! REST requests: method and path and body become one question or one change.
//!
//! ```text
//! POST   /  expand  rename  reload                              (POST without the last slash: 307)
//! GET    all  search_suggestions  directories/all  check_exists/{id}  {id}/referenced_by  {id}
//! PUT DELETE  {id}
//! any    fragments/{rest} → 307 /api/prompts/{rest}
//! ```
//!
//! A fixed name comes before an id for its own method only: GET `expand` is a prompt called so. Fixed names are matched
//! as sent, so that an id in their way is reached by escaping it (`fragments%2Fx`).

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::paths::{self, CHECK, REST};
use super::reads::{Ask, Read};
use super::views::{self, Fault, Step};
use super::writes::{Asked, Change, Generation, Metadata};
use super::{Env, wire};
use crate::dialect::{self, Intent, Write};
use crate::http::query_param;
use crate::http::{Head, Method, Response};
use crate::limits::{PROMPT_ID_BYTES_MAX, ROOM_NAME_BYTES_MAX};

/// Bytes of a new prompt's name: a file system's 255 less the suffix and a temporary file's decoration.
const NAME_BYTES_MAX: usize = 200;
/// Bytes of a new prompt's id, so that its room can be joined by name.
pub const NEW_ID_BYTES_MAX: usize = ROOM_NAME_BYTES_MAX - "doc:".len();

const _: () = assert!(NAME_BYTES_MAX < NEW_ID_BYTES_MAX && NEW_ID_BYTES_MAX < PROMPT_ID_BYTES_MAX);

pub fn endpoint(head: &Head<'_>, body: &[u8], peer: &str, env: &Env) -> Intent {
    let outcome = match head.path {
        CHECK => check(head, peer),
        REST => match head.method {
            Method::Post => Ok(redirect(head, format!("{REST}/"))),
            _ => Ok(not_allowed(head, "POST")),
        },
        path => match path.strip_prefix(REST).and_then(|rest| rest.strip_prefix('/')) {
            Some(rest) => prompts(head, rest, body, env),
            None => Ok(respond(views::detail(404, "Not Found"))),
        },
    };
    outcome.unwrap_or_else(respond)
}

/// True for a POST that changes nothing.
pub fn only_asks(path: &str) -> bool {
    path.strip_prefix(REST) == Some("/expand")
}

/// The reply once the directories were read again.
pub fn reloaded(count: usize) -> Response {
    #[derive(Serialize)]
    struct Reloaded {
        message: String,
        count: usize,
    }
    Response::json(200, wire::json(&Reloaded { message: format!("Reloaded {count} prompts"), count }))
}

/// The error is a finished response.
fn prompts(head: &Head<'_>, rest: &str, body: &[u8], env: &Env) -> Result<Intent, Response> {
    if let Some(rest) = rest.strip_prefix("fragments/") {
        return Ok(redirect(head, format!("{REST}/{rest}")));
    }
    match (head.method, rest) {
        (Method::Post, "") => create(&Body::parse(body)?, env),
        (_, "") => Ok(not_allowed(head, "POST")),
        (Method::Post, "expand") => expand(&Body::parse(body)?),
        (Method::Post, "rename") => rename(&Body::parse(body)?, env),
        (Method::Post, "reload") => Ok(Intent::Reload),
        (Method::Post, "fragments") => Ok(redirect(head, format!("{REST}/"))),
        (Method::Get | Method::Head, _) => get(head, rest),
        (Method::Put, _) => update(&id(rest)?, &Body::parse(body)?),
        (Method::Delete, _) => {
            let id = id(rest)?;
            Ok(write(&id.clone(), Change::Delete { id, asked: Asked::Rest(Generation::Path) }))
        }
        (_, "expand" | "rename" | "reload" | "fragments") => Ok(not_allowed(head, "DELETE, GET, HEAD, POST, PUT")),
        _ => Ok(not_allowed(head, "DELETE, GET, HEAD, PUT")),
    }
}

fn get(head: &Head<'_>, rest: &str) -> Result<Intent, Response> {
    let parameter = |name| query_param(head.query, name).map(Cow::into_owned);
    let read = match rest {
        "all" => Ask::All,
        "directories/all" => Ask::Directories,
        "search_suggestions" => {
            Ask::Search { query: parameter("query").unwrap_or_default(), exclude: parameter("exclude") }
        }
        _ => {
            if let Some(rest) = rest.strip_prefix("check_exists/") {
                Ask::Exists { text: id(rest)? }
            } else if let Some(rest) = rest.strip_suffix("/referenced_by") {
                Ask::ReferencedBy { text: id(rest)? }
            } else {
                Ask::One { text: id(rest)?, directory: parameter("directory") }
            }
        }
    };
    Ok(ask(read))
}

fn create(body: &Body, env: &Env) -> Result<Intent, Response> {
    let mut faults = Vec::new();
    let (name, old_id) = (body.text("name", &mut faults), body.text("id", &mut faults));
    let directory = body.text("directory", &mut faults);
    let content = body.text("content", &mut faults).unwrap_or_default();
    let description = body.text("description", &mut faults);
    let tags = body.texts("tags", &mut faults).unwrap_or_default();
    let (field, generation, written, directory) = match (name, old_id) {
        (Some(name), _) => ("name", Generation::Path, name, directory),
        // The older generation's id may hold its directory already.
        (None, Some(id)) => match id.rsplit_once('/') {
            Some((directory, name)) => ("id", Generation::Stem, name.to_owned(), Some(directory.to_owned())),
            None => ("id", Generation::Stem, id, directory),
        },
        (None, None) => {
            faults.push(required("name"));
            return Err(views::unprocessable(&faults));
        }
    };
    let (name, sanitized) = new_name(&written, field, &mut faults);
    if !faults.is_empty() {
        return Err(views::unprocessable(&faults));
    }
    let directory = match directory.filter(|directory| !directory.trim().is_empty()) {
        Some(directory) => directory,
        None => env.default_directory().to_owned(),
    };
    let directory = admitted(&directory, env)?;
    let id = new_id(&directory, &name, field)?;
    let asked = Asked::Rest(generation);
    Ok(write(&id, Change::Create { directory, name, content, description, tags, sanitized, asked }))
}

fn update(id: &str, body: &Body) -> Result<Intent, Response> {
    let mut faults = Vec::new();
    let (content, metadata) = state(body, &mut faults);
    if !faults.is_empty() {
        return Err(views::unprocessable(&faults));
    }
    let asked = Asked::Rest(Generation::Path);
    Ok(write(id, Change::Update { id: id.to_owned(), content, metadata, asked }))
}

/// The newer generation sends `old_id` and `new_name`, the older one `old_id` and `new_id`.
fn rename(body: &Body, env: &Env) -> Result<Intent, Response> {
    let mut faults = Vec::new();
    let id = body.text("old_id", &mut faults);
    let (new_name, new_id_text) = (body.text("new_name", &mut faults), body.text("new_id", &mut faults));
    let (content, metadata) = state(body, &mut faults);
    if id.is_none() && faults.is_empty() {
        faults.push(required("old_id"));
    }
    let (field, generation, written, directory) = match (new_name, new_id_text) {
        (Some(name), _) => ("new_name", Generation::Path, name, None),
        (None, Some(id)) => match id.rsplit_once('/') {
            Some((directory, name)) => ("new_id", Generation::Stem, name.to_owned(), Some(directory.to_owned())),
            None => ("new_id", Generation::Stem, id, None),
        },
        (None, None) => {
            faults.push(required("new_name"));
            return Err(views::unprocessable(&faults));
        }
    };
    let (name, _) = self::new_name(&written, field, &mut faults);
    let (Some(id), true) = (id, faults.is_empty()) else {
        return Err(views::unprocessable(&faults));
    };
    let directory = match directory {
        Some(directory) => Some(admitted(&directory, env)?),
        None => None,
    };
    new_id(directory.as_deref().unwrap_or_default(), &name, field)?;
    let asked = Asked::Rest(generation);
    Ok(write(&id.clone(), Change::Rename { id, directory, name, content, metadata, asked }))
}

/// The presence of `content` tells the generations apart.
fn expand(body: &Body) -> Result<Intent, Response> {
    let mut faults = Vec::new();
    let content = body.text("content", &mut faults);
    let prompt = body.text("prompt_id", &mut faults);
    let directory = body.text("directory", &mut faults);
    if content.is_none() && prompt.is_none() && faults.is_empty() {
        faults.push(required("prompt_id"));
    }
    if !faults.is_empty() {
        return Err(views::unprocessable(&faults));
    }
    Ok(ask(Ask::Expand { prompt, content, directory }))
}

/// Clients ask this when a socket fails. What they sent comes back to them, but never a credential: a page that a
/// script got into must not learn the cookie that scripts may not read.
fn check(head: &Head<'_>, peer: &str) -> Result<Intent, Response> {
    const HIDDEN: [&str; 5] = ["authorization", "proxy-authorization", "cookie", "x-api-key", "sec-websocket-protocol"];
    #[derive(Serialize)]
    struct Check<'a> {
        server_supports_websocket: bool,
        server_version: &'static str,
        client_headers: BTreeMap<String, Cow<'a, str>>,
        client_appears_to_support_websocket: bool,
        cors_mode: &'a str,
        remote_addr: &'a str,
        base_url: String,
    }
    if !matches!(head.method, Method::Get | Method::Head) {
        return Ok(not_allowed(head, "GET, HEAD"));
    }
    let mut client_headers: BTreeMap<String, Cow<'_, str>> = BTreeMap::new();
    for (name, value) in head.headers() {
        let name = name.to_ascii_lowercase();
        let value = if HIDDEN.contains(&name.as_str()) { "(hidden)" } else { value };
        match client_headers.get_mut(&name) {
            Some(first) => *first = Cow::Owned(format!("{first}, {value}")),
            None => {
                client_headers.insert(name, Cow::Borrowed(value));
            }
        }
    }
    let upgrade = head.header("upgrade").unwrap_or_default();
    let check = Check {
        server_supports_websocket: true,
        server_version: "FastAPI/0.95+",
        client_headers,
        client_appears_to_support_websocket: upgrade.eq_ignore_ascii_case("websocket"),
        cors_mode: head.header("sec-fetch-mode").unwrap_or_default(),
        remote_addr: address(peer),
        base_url: format!("http://{}/", head.header("host").unwrap_or_default()),
    };
    Ok(respond(Response::json(200, wire::json(&check))))
}

/// The peer without its port.
fn address(peer: &str) -> &str {
    if peer.parse::<std::net::SocketAddr>().is_err() {
        return peer;
    }
    let address = peer.rsplit_once(':').map_or(peer, |(address, _)| address);
    address.trim_start_matches('[').trim_end_matches(']')
}

fn id(raw: &str) -> Result<String, Response> {
    paths::decode_id(raw).map_err(|reject| Response::reject(&reject))
}

/// The content and the metadata that a body asks for, if any.
fn state(body: &Body, faults: &mut Vec<Fault>) -> (Option<String>, Option<Metadata>) {
    let content = body.text("content", faults);
    let (description, tags) = (body.text("description", faults), body.texts("tags", faults));
    let metadata = (description.is_some() || tags.is_some()).then_some(Metadata { description, tags });
    (content, metadata)
}

/// A name that is safe as a file's and as a path's segment; spaces become `_`, and the client is told.
fn new_name(written: &str, field: &'static str, faults: &mut Vec<Fault>) -> (String, Option<String>) {
    let name = written.replace(' ', "_");
    let wrong = match name.len() {
        0 => Some("is empty"),
        length if length > NAME_BYTES_MAX => Some("is longer than 200 bytes"),
        _ if name.contains('/') => Some("holds a slash"),
        _ if name.starts_with('.') => Some("starts with a dot"),
        _ if name.chars().any(char::is_control) => Some("holds a control character"),
        _ => None,
    };
    if let Some(wrong) = wrong {
        faults.push(fault(vec![Step::Name(field)], format!("Value error, the name {wrong}"), "value_error"));
    }
    let sanitized = (name != written).then(|| format!("Spaces were replaced: '{written}' became '{name}'"));
    (name, sanitized)
}

fn new_id(directory: &str, name: &str, field: &'static str) -> Result<String, Response> {
    let id = crate::model::Document::id_of(directory, name);
    if id.len() > NEW_ID_BYTES_MAX {
        let message = format!("Value error, directory and name are longer than {NEW_ID_BYTES_MAX} bytes");
        return Err(views::unprocessable(&[fault(vec![Step::Name(field)], message, "value_error")]));
    }
    Ok(id)
}

fn admitted(directory: &str, env: &Env) -> Result<String, Response> {
    match paths::clean_directory(directory) {
        Some(clean) if env.admits(&clean) => Ok(clean),
        _ => Err(views::detail(400, &format!("Directory '{directory}' is not one of the configured roots"))),
    }
}

/// The room of the text as given decides only the place in the queue; events go to the canonical one.
fn write(text: &str, change: Change) -> Intent {
    let change = dialect::Change::Documents(change);
    Intent::Write(Box::new(Write { room: paths::room_of(text), op: None, change }))
}

fn ask(ask: Ask) -> Intent {
    Intent::Read(Box::new(dialect::Read::Documents(Read::Rest(ask))))
}

fn respond(response: Response) -> Intent {
    Intent::Respond(Box::new(response))
}

/// 307, so that method and body go along. The path is the request's own and has been through the head's strict parser;
/// it starts with ours, so it cannot lead to another host.
fn redirect(head: &Head<'_>, path: String) -> Intent {
    let location = match head.query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    respond(Response::empty(307).with_header("Location", location))
}

/// OPTIONS is answered with what there is; anything else learns it with the refusal.
fn not_allowed(head: &Head<'_>, allow: &str) -> Intent {
    if head.method == Method::Options {
        return respond(Response::empty(204).with_header("Allow", allow));
    }
    respond(views::detail(405, "Method Not Allowed").with_header("Allow", allow))
}

/// A request's body: a JSON object whose unknown fields are let be.
struct Body(Map<String, Value>);

impl Body {
    fn parse(bytes: &[u8]) -> Result<Body, Response> {
        let wrong = |message: &'static str, kind| Err(views::unprocessable(&[fault(Vec::new(), message, kind)]));
        if bytes.trim_ascii().is_empty() {
            return wrong("Field required", "missing");
        }
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(fields)) => Ok(Body(fields)),
            Ok(_) => {
                wrong("Input should be a valid dictionary or object to extract fields from", "model_attributes_type")
            }
            Err(_) => wrong("JSON decode error", "json_invalid"),
        }
    }

    /// None when it is absent or null.
    fn text(&self, name: &'static str, faults: &mut Vec<Fault>) -> Option<String> {
        match self.0.get(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(_) => {
                faults.push(fault(vec![Step::Name(name)], "Input should be a valid string", "string_type"));
                None
            }
        }
    }

    fn texts(&self, name: &'static str, faults: &mut Vec<Fault>) -> Option<Vec<String>> {
        let items = match self.0.get(name) {
            None | Some(Value::Null) => return None,
            Some(Value::Array(items)) => items,
            Some(_) => {
                faults.push(fault(vec![Step::Name(name)], "Input should be a valid list", "list_type"));
                return None;
            }
        };
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match item {
                Value::String(text) => texts.push(text.clone()),
                _ => {
                    let place = vec![Step::Name(name), Step::Index(index)];
                    faults.push(fault(place, "Input should be a valid string", "string_type"));
                    // One is enough: a megabyte of numbers would make a reply of many.
                    return None;
                }
            }
        }
        Some(texts)
    }
}

fn required(name: &'static str) -> Fault {
    fault(vec![Step::Name(name)], "Field required", "missing")
}

fn fault(place: Vec<Step>, message: impl Into<Cow<'static, str>>, kind: &'static str) -> Fault {
    let loc = std::iter::once(Step::Name("body")).chain(place).collect();
    Fault { loc, msg: message.into(), r#type: kind }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::http::head;
    use proptest::prelude::*;
    use serde_json::json;

    fn asked(line: &str, body: &[u8], env: &Env) -> Intent {
        let text = format!("{line} HTTP/1.1\r\nHost: example.org:8081\r\nCookie: secret\r\nX-A: 1\r\nx-a: 2\r\n\r\n");
        let (head, _) = head::parse(text.as_bytes()).unwrap().unwrap();
        endpoint(&head, body, "127.0.0.1:5555", env)
    }

    /// One line for an intent.
    fn told(line: &str, body: &str) -> String {
        match asked(line, body.as_bytes(), &Env::default()) {
            Intent::Respond(response) => {
                let headers: Vec<String> =
                    response.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
                format!("{} {} {}", response.status, headers.join(";"), String::from_utf8_lossy(&response.body))
            }
            Intent::Read(read) => format!("{read:?}").replace("Documents(Rest(", "").replace("))", ""),
            Intent::Write(write) => format!("{} {:?}", write.room, write.change).replace("Documents(", ""),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn an_expansion_is_a_question_although_it_is_a_post() {
        for (path, expected) in [
            ("/api/prompts/expand", true),
            ("/api/prompts/expand/x", false),
            ("/api/prompts/", false),
            ("/api/prompts/rename", false),
            ("/api/prompts/reload", false),
        ] {
            assert_eq!(only_asks(path), expected, "{path}");
        }
    }

    #[test]
    fn each_method_and_path_has_its_meaning() {
        for (line, body, expected) in [
            ("GET /api/prompts/all", "", "All"),
            ("HEAD /api/prompts/all", "", "All"),
            ("GET /api/prompts/a/x/foo", "", r#"One { text: "a/x/foo", directory: None }"#),
            ("GET /api/prompts/a%2Fb?directory=d%2Fe", "", r#"One { text: "a/b", directory: Some("d/e") }"#),
            ("GET /api/prompts/expand", "", r#"One { text: "expand", directory: None }"#),
            ("GET /api/prompts/fragments", "", r#"One { text: "fragments", directory: None }"#),
            ("GET /api/prompts/fragments%2Fx", "", r#"One { text: "fragments/x", directory: None }"#),
            ("GET /api/prompts/a/b/referenced_by", "", r#"ReferencedBy { text: "a/b" }"#),
            ("GET /api/prompts/check_exists/a/b", "", r#"Exists { text: "a/b" }"#),
            ("GET /api/prompts/directories/all", "", "Directories"),
            (
                "GET /api/prompts/search_suggestions?query=a+b&exclude=c",
                "",
                r#"Search { query: "a b", exclude: Some("c") }"#,
            ),
            ("GET /api/prompts/search_suggestions", "", r#"Search { query: "", exclude: None }"#),
            ("POST /api/prompts/reload", "", "Reload"),
            (
                "POST /api/prompts/expand",
                r#"{"content":"x"}"#,
                r#"Expand { prompt: None, content: Some("x"), directory: None }"#,
            ),
            (
                "POST /api/prompts/expand",
                r#"{"prompt_id":"p","directory":"d"}"#,
                r#"Expand { prompt: Some("p"), content: None, directory: Some("d") }"#,
            ),
            (
                "PUT /api/prompts/a/b",
                r#"{"content":"","description":null,"other":1}"#,
                r#"doc:a/b Update { id: "a/b", content: Some(""), metadata: None, asked: Rest(Path) })"#,
            ),
            (
                "PUT /api/prompts/all",
                r#"{"tags":[]}"#,
                r#"doc:all Update { id: "all", content: None, metadata: Some(Metadata { description: None, tags: Some([]) }), asked: Rest(Path) })"#,
            ),
            ("DELETE /api/prompts/a/b", "", r#"doc:a/b Delete { id: "a/b", asked: Rest(Path) })"#),
            (
                "POST /api/prompts/",
                r#"{"name":"my prompt","directory":"d//e/","tags":["t"]}"#,
                r#"doc:d/e/my_prompt Create { directory: "d/e", name: "my_prompt", content: "", description: None, tags: ["t"], sanitized: Some("Spaces were replaced: 'my prompt' became 'my_prompt'"), asked: Rest(Path) })"#,
            ),
            (
                "POST /api/prompts/",
                r#"{"id":"d/old","content":"c","description":"D"}"#,
                r#"doc:d/old Create { directory: "d", name: "old", content: "c", description: Some("D"), tags: [], sanitized: None, asked: Rest(Stem) })"#,
            ),
            (
                "POST /api/prompts/rename",
                r#"{"old_id":"d/a","new_name":"b c"}"#,
                r#"doc:d/a Rename { id: "d/a", directory: None, name: "b_c", content: None, metadata: None, asked: Rest(Path) })"#,
            ),
            (
                "POST /api/prompts/rename",
                r#"{"old_id":"a","new_id":"x/b"}"#,
                r#"doc:a Rename { id: "a", directory: Some("x"), name: "b", content: None, metadata: None, asked: Rest(Stem) })"#,
            ),
        ] {
            assert_eq!(told(line, body), expected, "{line}");
        }
    }

    #[test]
    fn redirects_and_refused_methods() {
        let refused = |allow| format!(r#"405 Allow: {allow} {{"detail":"Method Not Allowed"}}"#);
        for (line, expected) in [
            ("POST /api/prompts", "307 Location: /api/prompts/ ".to_owned()),
            ("POST /api/prompts?x=1", "307 Location: /api/prompts/?x=1 ".to_owned()),
            ("GET /api/prompts/fragments/a/b?x=1", "307 Location: /api/prompts/a/b?x=1 ".to_owned()),
            ("PUT /api/prompts/fragments/a%20b", "307 Location: /api/prompts/a%20b ".to_owned()),
            ("DELETE /api/prompts/fragments//evil.example", "307 Location: /api/prompts//evil.example ".to_owned()),
            ("POST /api/prompts/fragments/", "307 Location: /api/prompts/ ".to_owned()),
            ("POST /api/prompts/fragments", "307 Location: /api/prompts/ ".to_owned()),
            ("GET /api/prompts", refused("POST")),
            ("DELETE /api/prompts/", refused("POST")),
            ("POST /api/prompts/a/b", refused("DELETE, GET, HEAD, PUT")),
            ("PATCH /api/prompts/expand", refused("DELETE, GET, HEAD, POST, PUT")),
            ("POST /api/debug/websocket-check", refused("GET, HEAD")),
            ("OPTIONS /api/prompts/a", "204 Allow: DELETE, GET, HEAD, PUT ".to_owned()),
        ] {
            assert_eq!(told(line, "{}"), expected, "{line}");
        }
        assert!(told("GET /api/prompts//", "").starts_with("400 "));
        assert!(told("GET /api/prompts/a%00", "").starts_with("400 "));
    }

    #[test]
    fn bodies_are_refused_with_the_place_and_the_reason() {
        let fault = |loc: &str, msg: &str, kind: &str| {
            format!(r#"422  {{"detail":[{{"loc":[{loc}],"msg":"{msg}","type":"{kind}"}}]}}"#)
        };
        let value = |loc: &str, why: &str| fault(loc, &format!("Value error, the name {why}"), "value_error");
        let long = format!(r#"{{"name":"{}"}}"#, "n".repeat(201));
        let deep = format!(r#"{{"name":"{}","directory":"{}"}}"#, "n".repeat(200), "d".repeat(60));
        let bomb = "[".repeat(100_000);
        for (line, body, expected) in [
            ("POST /api/prompts/", "", fault(r#""body""#, "Field required", "missing")),
            ("PUT /api/prompts/a", "{", fault(r#""body""#, "JSON decode error", "json_invalid")),
            ("PUT /api/prompts/a", &bomb, fault(r#""body""#, "JSON decode error", "json_invalid")),
            (
                "PUT /api/prompts/a",
                "[]",
                fault(
                    r#""body""#,
                    "Input should be a valid dictionary or object to extract fields from",
                    "model_attributes_type",
                ),
            ),
            (
                "PUT /api/prompts/a",
                r#"{"content":1}"#,
                fault(r#""body","content""#, "Input should be a valid string", "string_type"),
            ),
            (
                "PUT /api/prompts/a",
                r#"{"tags":"x"}"#,
                fault(r#""body","tags""#, "Input should be a valid list", "list_type"),
            ),
            (
                "PUT /api/prompts/a",
                r#"{"tags":["x",1,2]}"#,
                fault(r#""body","tags",1"#, "Input should be a valid string", "string_type"),
            ),
            ("POST /api/prompts/", "{}", fault(r#""body","name""#, "Field required", "missing")),
            ("POST /api/prompts/expand", "{}", fault(r#""body","prompt_id""#, "Field required", "missing")),
            (
                "POST /api/prompts/rename",
                r#"{"old_id":"a"}"#,
                fault(r#""body","new_name""#, "Field required", "missing"),
            ),
            ("POST /api/prompts/rename", r#"{"new_id":"a"}"#, fault(r#""body","old_id""#, "Field required", "missing")),
            ("POST /api/prompts/", r#"{"name":""}"#, value(r#""body","name""#, "is empty")),
            ("POST /api/prompts/", r#"{"name":"a/b"}"#, value(r#""body","name""#, "holds a slash")),
            ("POST /api/prompts/", r#"{"name":"../b"}"#, value(r#""body","name""#, "holds a slash")),
            ("POST /api/prompts/", r#"{"name":".."}"#, value(r#""body","name""#, "starts with a dot")),
            ("POST /api/prompts/", r#"{"id":".x"}"#, value(r#""body","id""#, "starts with a dot")),
            ("POST /api/prompts/", r#"{"name":"a\u0000"}"#, value(r#""body","name""#, "holds a control character")),
            ("POST /api/prompts/", &long, value(r#""body","name""#, "is longer than 200 bytes")),
            (
                "POST /api/prompts/",
                &deep,
                fault(r#""body","name""#, "Value error, directory and name are longer than 252 bytes", "value_error"),
            ),
        ] {
            assert_eq!(told(line, body), expected, "{line} {body}");
        }
    }

    #[test]
    fn p17_a_directory_outside_the_roots_is_refused() {
        let env = Env { roots: vec!["prompts".to_owned()] };
        for (directory, admitted) in [
            (r#""prompts""#, true),
            (r#""prompts//sub""#, true),
            (r#""""#, true),
            ("null", true),
            (r#""/etc""#, false),
            (r#""prompts/../etc""#, false),
            (r#""prompts/.git""#, false),
            (r#""other""#, false),
        ] {
            let body = format!(r#"{{"name":"x","directory":{directory}}}"#);
            match asked("POST /api/prompts/", body.as_bytes(), &env) {
                Intent::Write(_) => assert!(admitted, "{directory}"),
                Intent::Respond(response) => {
                    assert!(!admitted, "{directory}");
                    assert_eq!(response.status, 400);
                    let value: Value = serde_json::from_slice(&response.body).unwrap();
                    let text: String = serde_json::from_str(directory).unwrap();
                    assert_eq!(
                        value,
                        json!({"detail": format!("Directory '{text}' is not one of the configured roots")})
                    );
                }
                other => panic!("{other:?}"),
            }
        }
        let outside = br#"{"old_id":"prompts/a","new_id":"other/b"}"#;
        let Intent::Respond(response) = asked("POST /api/prompts/rename", outside, &env) else { panic!() };
        assert_eq!(response.status, 400);
    }

    #[test]
    fn the_check_shows_what_was_sent_but_no_secret() {
        let Intent::Respond(response) = asked("GET /api/debug/websocket-check", b"", &Env::default()) else { panic!() };
        let value: Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(
            value,
            json!({
                "server_supports_websocket": true, "server_version": "FastAPI/0.95+",
                "client_headers": {"host": "example.org:8081", "cookie": "(hidden)", "x-a": "1, 2"},
                "client_appears_to_support_websocket": false, "cors_mode": "", "remote_addr": "127.0.0.1",
                "base_url": "http://example.org:8081/",
            })
        );
        for (peer, expected) in [("[::1]:80", "::1"), ("10.0.0.1", "10.0.0.1"), ("::1", "::1"), ("", "")] {
            assert_eq!(address(peer), expected);
        }
        assert_eq!(reloaded(3).body, r#"{"message":"Reloaded 3 prompts","count":3}"#);
    }

    proptest! {
        #[test]
        fn no_request_makes_an_endpoint_panic(
            method in "GET|POST|PUT|DELETE|PATCH",
            path in "/api/prompts(/[a-z%2F]{0,12}|/expand|/rename|/)?",
            body in "(\\{\"(name|id|old_id|new_id|content|tags)\":(\"[a-z/ .]{0,9}\"|1|null|\\[\"a\"\\])(,\"tags\":\\[1\\])?\\})|.{0,20}",
        ) {
            let _ = told(&format!("{method} {path}"), &body);
        }
    }
}
