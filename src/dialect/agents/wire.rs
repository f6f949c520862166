//! The JSON of the sockets: what clients send, read once; what they are sent, in the contract's spelling.
//!
//! Inside, everything is compact: an event's body, a record, a task. Only what goes to an agents socket is written as the
//! original wrote it, with spaces and escapes, and only here.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::json::{self, Object};
use super::super::time;
use super::sessions;
use crate::clock::Wall;

/// Bytes of an unknown type that its sender is told again.
const TYPE_SHOWN: usize = 64;

/// What a client says.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// `plan`: a JSON array of objects as text.
    Execute {
        command: String,
        plan: Option<String>,
    },
    Approve {
        request: String,
    },
    Reject {
        request: String,
        reason: Option<String>,
    },
    Edit {
        request: String,
        args: Value,
    },
    /// As sent, since it is sent back.
    Cancel {
        execution: String,
    },
    /// As much of its type as is worth repeating.
    Other {
        kind: String,
    },
}

/// Reads one message; the error is a sentence for its sender. The original sent its validator's whole report (Y9).
pub fn parse(text: &str) -> Result<Message, &'static str> {
    const ENVELOPE: &str = "Invalid message: type and data are required";
    let Some(message) = Object::parse(text) else {
        return Err(match serde_json::from_str::<&RawValue>(text) {
            Ok(_) if json::levels(text) > json::DEPTH_MAX => "Invalid message: more than 32 levels",
            Ok(_) => ENVELOPE,
            Err(_) => "Invalid JSON format",
        });
    };
    let (Some(_), Some(data)) = (message.given("type"), message.given("data")) else { return Err(ENVELOPE) };
    let kind = message.word("type").ok_or("Invalid message: type must be a string")?;
    let data = Object::parse(data).ok_or("Invalid message: data must be an object")?;
    match &*kind {
        "execute" => execute(&data),
        "approve" => Ok(Message::Approve { request: request(&data)? }),
        "reject" => Ok(Message::Reject { request: request(&data)?, reason: data.text("reason") }),
        "edit" => {
            let args = data.given("edited_args").ok_or("Invalid message: data.edited_args must be an object")?;
            let args = json::parse(args).filter(Value::is_object);
            Ok(Message::Edit {
                request: request(&data)?,
                args: args.ok_or("Invalid message: data.edited_args must be an object")?,
            })
        }
        "cancel" => {
            let execution = data.text("execution_id").filter(|id| sessions::canonical(id).is_some());
            Ok(Message::Cancel { execution: execution.ok_or("Invalid message: data.execution_id must be a UUID")? })
        }
        other => {
            let shown = other.get(..other.floor_char_boundary(TYPE_SHOWN)).unwrap_or_default();
            Ok(Message::Other { kind: shown.to_owned() })
        }
    }
}

fn execute(data: &Object<'_>) -> Result<Message, &'static str> {
    let command = data.text("command").ok_or("Invalid message: data.command must be a string")?;
    let plan = match data.given("plan") {
        None => None,
        Some(plan) => Some(objects(plan).ok_or("Invalid message: data.plan must be a list of objects")?),
    };
    Ok(Message::Execute { command, plan })
}

/// A JSON array of objects, compact; none for anything else.
pub fn objects(text: &str) -> Option<String> {
    let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    items.iter().all(|item| item.get().starts_with('{')).then(|| json::compact(text))
}

fn request(data: &Object<'_>) -> Result<String, &'static str> {
    let id = data.text("request_id").and_then(|id| sessions::canonical(&id));
    id.ok_or("Invalid message: data.request_id must be a UUID")
}

/// The data of an error: what its origin knows (CONTRACT.md 4.4), then what the deciders of something decided are told.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Error<'a> {
    pub message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<String>,
}

impl<'a> Error<'a> {
    pub fn of(message: &'a str) -> Error<'a> {
        Error { message, ..Error::default() }
    }
}

/// A value as compact text.
pub fn json(value: &impl Serialize) -> String {
    // Structs of strings and numbers have no way not to be written.
    serde_json::to_string(value).unwrap_or_default()
}

/// `{"type": …, "data": …, "timestamp": …}`; `data` is JSON text in any spelling. Without a time, where there is no clock
/// to ask, the timestamp is left out: none is better than a false one.
pub fn envelope(kind: &str, data: &str, at: Option<Wall>) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + data.len() / 4 + 96);
    out.extend_from_slice(b"{\"type\": ");
    json::put_spaced(&mut out, &json::quoted(kind));
    out.extend_from_slice(b", \"data\": ");
    json::put_spaced(&mut out, data);
    if let Some(at) = at {
        out.extend_from_slice(b", \"timestamp\": \"");
        out.extend_from_slice(time::naive_utc(at).as_bytes());
        out.push(b'"');
    }
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use proptest::prelude::*;

    const ID: &str = "0af0bd5c-0000-4000-8000-00000000000a";

    #[test]
    fn messages_are_read_as_the_original_read_them() {
        let id = || ID.to_owned();
        for (text, expected) in [
            (r#"{"type":"execute","data":{"command":"pay"}}"#, Message::Execute { command: "pay".into(), plan: None }),
            (
                r#"{"data": {"plan": [{"b": 1, "a": "x y"}, {}], "command": "", "x": 1}, "type": "execute", "y": 2}"#,
                Message::Execute { command: String::new(), plan: Some(r#"[{"b":1,"a":"x y"},{}]"#.into()) },
            ),
            (
                r#"{"type":"execute","data":{"command":"pay","plan":null}}"#,
                Message::Execute { command: "pay".into(), plan: None },
            ),
            (
                r#"{"type":"approve","data":{"request_id":"0AF0BD5C-0000-4000-8000-00000000000A"}}"#,
                Message::Approve { request: id() },
            ),
            (
                r#"{"type":"reject","data":{"request_id":"0af0bd5c00004000800000000000000a"}}"#,
                Message::Reject { request: id(), reason: None },
            ),
            (
                r#"{"type":"edit","data":{"request_id":"0af0bd5c-0000-4000-8000-00000000000a","edited_args":{"n":1}}}"#,
                Message::Edit { request: id(), args: serde_json::json!({"n": 1}) },
            ),
            (
                r#"{"type":"cancel","data":{"execution_id":"0AF0BD5C-0000-4000-8000-00000000000A"}}"#,
                Message::Cancel { execution: ID.to_uppercase() },
            ),
            (r#"{"type":"ping","data":{}}"#, Message::Other { kind: "ping".into() }),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        let long = format!(r#"{{"type":"{}","data":{{}}}}"#, "é".repeat(100));
        assert_eq!(parse(&long), Ok(Message::Other { kind: "é".repeat(32) }));
    }

    #[test]
    fn y9_errors_are_short_fixed_texts() {
        let required = "Invalid message: type and data are required";
        for (text, expected) in [
            ("", "Invalid JSON format"),
            ("ping", "Invalid JSON format"),
            ("{\"type\":", "Invalid JSON format"),
            ("{} {}", "Invalid JSON format"),
            ("[]", required),
            ("\"x\"", required),
            ("{}", required),
            (r#"{"type":"ping"}"#, required),
            (r#"{"data":{}}"#, required),
            (r#"{"type":null,"data":{}}"#, required),
            (r#"{"type":1,"data":{}}"#, "Invalid message: type must be a string"),
            (r#"{"type":"execute","data":[]}"#, "Invalid message: data must be an object"),
            (r#"{"type":"execute","data":{}}"#, "Invalid message: data.command must be a string"),
            (r#"{"type":"execute","data":{"command":1}}"#, "Invalid message: data.command must be a string"),
            (
                r#"{"type":"execute","data":{"command":"x","plan":{}}}"#,
                "Invalid message: data.plan must be a list of objects",
            ),
            (
                r#"{"type":"execute","data":{"command":"x","plan":[{},1]}}"#,
                "Invalid message: data.plan must be a list of objects",
            ),
            (r#"{"type":"approve","data":{"request_id":"x"}}"#, "Invalid message: data.request_id must be a UUID"),
            (r#"{"type":"reject","data":{}}"#, "Invalid message: data.request_id must be a UUID"),
            (
                r#"{"type":"edit","data":{"request_id":"0af0bd5c-0000-4000-8000-00000000000a"}}"#,
                "Invalid message: data.edited_args must be an object",
            ),
            (
                r#"{"type":"edit","data":{"request_id":"0af0bd5c-0000-4000-8000-00000000000a","edited_args":[]}}"#,
                "Invalid message: data.edited_args must be an object",
            ),
            (r#"{"type":"cancel","data":{"execution_id":7}}"#, "Invalid message: data.execution_id must be a UUID"),
        ] {
            assert_eq!(parse(text), Err(expected), "{text}");
        }
        let deep = format!(r#"{{"type":"execute","data":{{"command":{}}}}}"#, "[".repeat(40) + &"]".repeat(40));
        assert_eq!(parse(&deep), Err("Invalid message: more than 32 levels"));
    }

    #[test]
    fn the_envelope_is_spaced_and_ascii() {
        let at = Wall(1_766_621_137_123_456);
        let text = |kind, data, at| String::from_utf8(envelope(kind, data, at)).unwrap();
        assert_eq!(
            text("thinking", r#"{"command":"zahl 5 €, bitte: \"ja\"","n":[1,2]}"#, Some(at)),
            "{\"type\": \"thinking\", \"data\": {\"command\": \"zahl 5 \\u20ac, bitte: \\\"ja\\\"\", \"n\": [1, 2]}, \
             \"timestamp\": \"2025-12-25T00:05:37.123456\"}"
        );
        assert_eq!(text("error", r#"{"message":"x"}"#, None), r#"{"type": "error", "data": {"message": "x"}}"#);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,60}", kind in ".{0,80}", value in r#"[\{\}\[\]":,\\ a1é]{0,20}"#) {
            let _ = parse(&text);
            let _ = parse(&format!(r#"{{"type":{},"data":{{"request_id":{value}}}}}"#, json::quoted(&kind)));
            for kind in ["execute", "approve", "reject", "edit", "cancel"] {
                let _ = parse(&format!(r#"{{"type":"{kind}","data":{value}}}"#));
            }
        }
    }
}
