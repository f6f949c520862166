//! The JSON that the server says in its own name: welcome, replies, heartbeat. Compact, in the contract's key order.

use bytes::Bytes;
use serde::Serialize;

use crate::clock::Wall;
use crate::dialect::time;

pub const NOT_JSON: &str = "Invalid JSON format";

/// A value as JSON text. Serializing our own structs of texts and numbers into memory has no way to fail.
pub fn json<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).map(Bytes::from).unwrap_or_default()
}

/// A timestamp as this dialect writes them: UTC, which it does not say (V15).
pub fn stamp(at: Wall) -> String {
    time::naive_utc(at)
}

/// The first frame of every socket but a chat's (V14). `room` as the originals spelled it.
pub fn welcome(at: Wall, client_id: &str, room: Option<&str>) -> Bytes {
    #[derive(Serialize)]
    struct Welcome<'a> {
        r#type: &'static str,
        message: &'static str,
        timestamp: String,
        client_id: &'a str,
        room: Option<&'a str>,
    }
    let message = "Connected to ViMax WebSocket server";
    json(&Welcome { r#type: "info", message, timestamp: stamp(at), client_id, room })
}

/// Said about topics, and in answer to their sockets' pings (V7).
pub fn info(message: &str, at: Option<Wall>) -> Bytes {
    #[derive(Serialize)]
    struct Info<'a> {
        r#type: &'static str,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        timestamp: Option<String>,
    }
    json(&Info { r#type: "info", message, timestamp: at.map(stamp) })
}

pub fn error(message: &str) -> Bytes {
    #[derive(Serialize)]
    struct Error<'a> {
        r#type: &'static str,
        message: &'a str,
    }
    json(&Error { r#type: "error", message })
}

/// A chat's errors have another key.
pub fn chat_error(error: &str) -> Bytes {
    #[derive(Serialize)]
    struct Error<'a> {
        r#type: &'static str,
        error: &'a str,
    }
    json(&Error { r#type: "error", error })
}

/// A message of a topics socket that was not understood. The original added its library's words.
pub fn unprocessable(why: &'static str) -> Bytes {
    error(&format!("Error processing message: {why}"))
}

pub fn pong() -> Bytes {
    Bytes::from_static(br#"{"type":"pong"}"#)
}

pub fn heartbeat(now: Wall) -> Bytes {
    #[derive(Serialize)]
    struct Heartbeat {
        r#type: &'static str,
        timestamp: String,
    }
    json(&Heartbeat { r#type: "heartbeat", timestamp: stamp(now) })
}

pub fn control_response(action: &str, status: &'static str, message: &str) -> Bytes {
    #[derive(Serialize)]
    struct Response<'a> {
        r#type: &'static str,
        action: &'a str,
        status: &'static str,
        message: &'a str,
    }
    json(&Response { r#type: "control_response", action, status, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Wall = Wall(1_767_082_000_123_456);

    #[test]
    fn v14_v15_frames_byte_for_byte() {
        for (payload, expected) in [
            (
                welcome(AT, "workflow_pending_5cdedd9c", Some("workflow_pending")),
                r#"{"type":"info","message":"Connected to ViMax WebSocket server","timestamp":"2025-12-30T08:06:40.123456","client_id":"workflow_pending_5cdedd9c","room":"workflow_pending"}"#,
            ),
            (
                welcome(Wall(0), "ü\"", None),
                r#"{"type":"info","message":"Connected to ViMax WebSocket server","timestamp":"1970-01-01T00:00:00","client_id":"ü\"","room":null}"#,
            ),
            (info("pong", None), r#"{"type":"info","message":"pong"}"#),
            (info("x", Some(AT)), r#"{"type":"info","message":"x","timestamp":"2025-12-30T08:06:40.123456"}"#),
            (error(NOT_JSON), r#"{"type":"error","message":"Invalid JSON format"}"#),
            (chat_error("Thread not found: 7"), r#"{"type":"error","error":"Thread not found: 7"}"#),
            (unprocessable("x"), r#"{"type":"error","message":"Error processing message: x"}"#),
            (pong(), r#"{"type":"pong"}"#),
            (heartbeat(AT), r#"{"type":"heartbeat","timestamp":"2025-12-30T08:06:40.123456"}"#),
            (
                control_response("cancel", "success", "Workflow x cancelled"),
                r#"{"type":"control_response","action":"cancel","status":"success","message":"Workflow x cancelled"}"#,
            ),
        ] {
            assert_eq!(payload, expected);
        }
    }
}
