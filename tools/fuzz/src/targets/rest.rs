//! Requests of the dialects' HTTP sides: any path, query and body, with every method. Whatever is answered is one
//! response, which a client reads back as it was meant (no text of the peer's ends a line of its head), with a body
//! that is what its type says.

use commitcast::dialect::{self, Name, Route};
use commitcast::http::reply::{Framing, encode};
use commitcast::http::{Reject, Response, head};

use super::stage::{Stage, key};
use crate::input::Input;
use crate::served;

/// The input: a choice, a request line without its version, further header lines, an empty line, the body.
pub fn rest(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.byte();
    let mut stage = Stage::new(choice & 1 == 0, choice & 2 != 0);
    let text = stage.filled(&String::from_utf8_lossy(input.rest()));
    let (top, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    let (line, fields) = top.split_once('\n').unwrap_or((top, ""));
    let fields: String = fields.lines().map(|field| format!("{field}\r\n")).collect();
    let bytes = format!("{line} HTTP/1.1\r\nHost: example.org\r\nContent-Type: application/json\r\n{fields}\r\n");
    let head = match head::parse(bytes.as_bytes()) {
        Ok(Some((head, _))) => head,
        Ok(None) => return,
        Err(reject) => return judge(&Response::reject(&reject), false),
    };
    let outcome = match dialect::route(head.path, head.query, &Name::ALL) {
        Err(reject) => Err(reject),
        Ok(None) => return,
        Ok(Some(Route::Socket(target))) => return open(&mut stage, &target),
        Ok(Some(Route::Endpoint(name))) => {
            let (pattern, _) = dialect::endpoint_needs(name, &head);
            assert!(!pattern.is_empty());
            Ok(dialect::endpoint(name, &head, body.as_bytes(), "127.0.0.1", &stage.env))
        }
        Ok(Some(Route::Backend)) => Ok(dialect::backend::endpoint(&head, body.as_bytes(), &key())),
    };
    let response =
        outcome.map_or_else(|reject: Reject| Some(Response::reject(&reject)), |intent| stage.request(intent));
    if let Some(response) = response {
        judge(&response, head.method == commitcast::http::Method::Head);
    }
    stage.hear_all();
}

/// A socket at a path of the input's making: it is let in, or the reason why not is a response.
fn open(stage: &mut Stage, target: &dialect::Target) {
    match dialect::open(target, Some(&key()), true) {
        dialect::Opening::Refuse(reject) => judge(&Response::reject(&reject), false),
        dialect::Opening::Ask(read) => {
            if let dialect::Reply::Reject(reject) = stage.read(&read) {
                judge(&Response::reject(&reject), false);
            }
        }
        dialect::Opening::Enter(entrance) => match &entrance.ask {
            dialect::Query::Read(read) => drop(stage.read(read)),
            dialect::Query::Write(write) => drop(stage.write(write)),
        },
        dialect::Opening::Accept { .. } => {}
    }
}

fn judge(response: &Response, head_only: bool) {
    let mut bytes = Vec::new();
    encode(response, &mut bytes, Framing { head_only: false, keep_alive: true, date: None });
    let read = served::response(&bytes).expect("a response is whole");
    assert_eq!(read.used, bytes.len(), "something stands behind the response");
    assert_eq!(read.status, response.status);
    if read.field("content-length").is_some() {
        assert_eq!(read.body, response.body);
    }
    if read.field("content-type").is_some_and(|media| media.contains("json")) && !read.body.is_empty() {
        assert!(serde_json::from_slice::<serde_json::Value>(&read.body).is_ok(), "{:?}", response.body);
    }
    if head_only {
        let mut head = Vec::new();
        encode(response, &mut head, Framing { head_only: true, keep_alive: true, date: None });
        assert!(bytes.starts_with(&head) && bytes.len() - head.len() == read.body.len());
    }
}
