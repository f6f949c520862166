//! The JSON of the sockets and of the rooms' events: read once with borrowed values, written field by field.
//!
//! Values that are nobody's business here (a session's id may be a number or an object) are carried as the text they came
//! in: what is sent back is what was sent.

use bytes::Bytes;
use serde::Serialize;

use crate::dialect::json::{self, Object, quoted};

pub const USER_RESPONSE: &str = "user_response";
pub const JOB: &str = "job";
pub const TICKET_CREATED: &str = "ticket_created";
pub const STATUS_CHANGE: &str = "status_change";

/// Reads a text that must be an object of at most `json::DEPTH_MAX` levels. Values are passed on as text, so they must mean
/// something: half a surrogate in one would break whoever parses the event.
pub fn parse(text: &str) -> Option<Object<'_>> {
    Object::parse_sound(text)
}

/// A field's value when Python would take it for true.
pub fn truthy<'o>(object: &'o Object<'_>, name: &str) -> Option<&'o str> {
    object.get(name).filter(|value| is_truthy(value))
}

fn is_truthy(value: &str) -> bool {
    match value.as_bytes().first() {
        Some(b'n' | b'f') | None => false,
        Some(b't') => true,
        Some(b'"') => value.len() > 2,
        Some(b'[' | b'{') => value.get(1..value.len() - 1).is_some_and(|inner| !inner.trim().is_empty()),
        Some(_) => value.parse::<f64>().is_ok_and(|number| number != 0.0),
    }
}

/// A string's text; of anything else, its JSON: as a key.
pub fn text_of(value: &str) -> String {
    serde_json::from_str(value).unwrap_or_else(|_| json::compact(value))
}

/// A value as JSON text. Serializing our own structs of texts and numbers into memory has no way to fail.
pub fn written<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).map(Bytes::from).unwrap_or_default()
}

// ---- what sockets are told ------------------------------------------------------------------------------------------

pub fn pong() -> Bytes {
    Bytes::from_static(br#"{"type":"pong"}"#)
}

pub fn ack(session_id: &str) -> Bytes {
    Bytes::from(format!(r#"{{"type":"ack","session_id":{session_id},"status":"received"}}"#))
}

/// The page ignores types that it does not know.
pub fn error(message: &str) -> Bytes {
    #[derive(Serialize)]
    struct Failed<'a> {
        r#type: &'static str,
        message: &'a str,
    }
    written(&Failed { r#type: "error", message })
}

/// Said before what was missed, and only to who asked for it: what comes is everything after `after`, and whoever asks
/// again from `head` misses nothing.
pub fn resumed(after: u64, head: u64) -> Bytes {
    #[derive(Serialize)]
    struct Resumed {
        r#type: &'static str,
        after: u64,
        head: u64,
    }
    written(&Resumed { r#type: "resumed", after, head })
}

// ---- events and tasks -----------------------------------------------------------------------------------------------

/// What a socket is shown of a stored body, which has its type in front; one that has not, is given it.
pub fn shown(kind: &str, body: &[u8]) -> Option<Vec<u8>> {
    if body.starts_with(b"{\"type\":") && body.ends_with(b"}") {
        return Some(body.to_vec());
    }
    let fields = body.trim_ascii().strip_prefix(b"{")?.strip_suffix(b"}")?.trim_ascii();
    let mut out = format!("{{\"type\":{}", quoted(kind)).into_bytes();
    if !fields.is_empty() {
        out.push(b',');
        out.extend_from_slice(fields);
    }
    out.push(b'}');
    Some(out)
}

/// A publisher's object as the body of its event: the type in front, everything else as it is, and behind it the time
/// where the type has one and the publisher gave none.
pub fn passed_on(kind: &str, mut object: Object<'_>, stamp: Option<String>) -> Bytes {
    object.set("type", quoted(kind));
    object.arrange(&["type"]);
    if let Some(stamp) = stamp {
        object.set_if_absent("timestamp", quoted(&stamp));
    }
    object.bytes()
}

pub fn ticket_created(ticket_id: &str, ticket_name: &str, timestamp: &str) -> Bytes {
    #[derive(Serialize)]
    struct Created<'a> {
        r#type: &'static str,
        ticket_id: &'a str,
        ticket_name: &'a str,
        timestamp: &'a str,
    }
    written(&Created { r#type: TICKET_CREATED, ticket_id, ticket_name, timestamp })
}

pub fn status_change(ticket_id: &str, status: &str, timestamp: &str) -> Bytes {
    #[derive(Serialize)]
    struct Changed<'a> {
        r#type: &'static str,
        ticket_id: &'a str,
        status: &'a str,
        timestamp: &'a str,
    }
    written(&Changed { r#type: STATUS_CHANGE, ticket_id, status, timestamp })
}

/// An answer as the mailbox and a backend have it. The two values are JSON texts.
pub fn answered(session_id: &str, response: &str, by: &str) -> Bytes {
    Bytes::from(format!(r#"{{"session_id":{session_id},"response":{response},"by":{}}}"#, quoted(by)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn b2_truth_is_python_s() {
        for (value, expected) in [
            ("null", false),
            ("false", false),
            ("0", false),
            ("-0", false),
            ("0.0", false),
            ("0e9", false),
            (r#""""#, false),
            ("[]", false),
            ("{ }", false),
            ("[ ]", false),
            ("true", true),
            ("1", true),
            ("-0.5", true),
            (r#"" ""#, true),
            (r#""0""#, true),
            ("[0]", true),
            (r#"{"a":null}"#, true),
        ] {
            let text = format!(r#"{{"x": {value} }}"#);
            assert_eq!(truthy(&parse(&text).unwrap(), "x").is_some(), expected, "{value}");
        }
        assert!(truthy(&parse("{}").unwrap(), "x").is_none());
    }

    #[test]
    fn an_object_is_read_with_its_last_word_on_each_name() {
        let fields = parse(r#"{"type":"a","x":{"y": [1]},"type":"b","n":5}"#).unwrap();
        assert_eq!((fields.text("type").as_deref(), fields.text("n")), (Some("b"), None));
        assert_eq!(fields.get("x"), Some(r#"{"y": [1]}"#));
        let deep = |levels: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
        assert!(parse(&deep(json::DEPTH_MAX - 1)).is_some() && parse(&deep(json::DEPTH_MAX)).is_none());
        for text in ["", "[]", "\"x\"", "1", "null", "{", r#"{"a":"\ud800"}"#, r#"{"a":1e999}"#, "{} {}"] {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_publisher_s_object_keeps_its_order_and_gets_a_type_and_a_time() {
        let fields = parse(r#"{"content":"é","type":"x","turn":0}"#).unwrap();
        let body = passed_on("x", fields.clone(), Some("T".into()));
        assert_eq!(body, r#"{"type":"x","content":"é","turn":0,"timestamp":"T"}"#);
        assert_eq!(passed_on("x", fields, None), r#"{"type":"x","content":"é","turn":0}"#);
        let fields = parse(r#"{"timestamp":null}"#).unwrap();
        assert_eq!(passed_on("a\"b", fields, Some("T".into())), r#"{"type":"a\"b","timestamp":null}"#);
    }
}
