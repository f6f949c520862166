//! The JSON of the sockets: what clients send, read once with borrowed texts; what they are sent, field by field.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::expand::Expansion;
use super::views::Dependency;
use crate::clock::Wall;
use crate::dialect::time;
use crate::ids::{OpId, Seq};
use crate::model::Document;

/// Levels of nesting in a message (PROMISES.md threat row 58). Ours have two.
const DEPTH_MAX: u8 = 32;

/// The fields of a message that any action reads. Of a repeated key the last one counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message<'t> {
    pub action: Field<'t>,
    pub content: Field<'t>,
    pub description: Field<'t>,
    pub tags: Field<'t>,
    pub id: Field<'t>,
}

/// One value, as far as this dialect tells values apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Field<'t> {
    /// Not there, or null: no original tells the two apart.
    #[default]
    Absent,
    Text(Cow<'t, str>),
    Texts(Vec<String>),
    Other,
}

/// Reads one message; the error is a sentence for its sender.
pub fn parse(text: &str) -> Result<Message<'_>, &'static str> {
    let mut json = serde_json::Deserializer::from_str(text);
    let message = json.deserialize_any(MessageVisitor).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => "a message is a JSON object of at most 32 levels",
        _ => "the message is not JSON",
    })?;
    json.end().map_err(|_| "the message is not JSON")?;
    Ok(message)
}

struct MessageVisitor;

impl<'de> Visitor<'de> for MessageVisitor {
    type Value = Message<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Message<'de>, A::Error> {
        let mut message = Message::default();
        while let Some(key) = map.next_key_seed(Value(DEPTH_MAX))? {
            let value = map.next_value_seed(Value(DEPTH_MAX - 1))?;
            let Field::Text(key) = key else { continue };
            match &*key {
                "action" => message.action = value,
                "content" => message.content = value,
                "description" => message.description = value,
                "tags" => message.tags = value,
                "id" => message.id = value,
                _ => {}
            }
        }
        Ok(message)
    }
}

/// Reads any value; the number is how many levels it may still open. serde_json's own bound is 128, which is a stack
/// that a message of ours has no use for.
struct Value(u8);

impl<'de> DeserializeSeed<'de> for Value {
    type Value = Field<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Field<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value {
    type Value = Field<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Field<'de>, E> {
        Ok(Field::Absent)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Field<'de>, E> {
        Ok(Field::Other)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Field<'de>, E> {
        Ok(Field::Other)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Field<'de>, E> {
        Ok(Field::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Field<'de>, E> {
        Ok(Field::Other)
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Field<'de>, E> {
        Ok(Field::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Field<'de>, E> {
        Ok(Field::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Field<'de>, A::Error> {
        let inner = self.0.checked_sub(1).ok_or_else(|| A::Error::custom("too deep"))?;
        let mut texts = Some(Vec::new());
        while let Some(item) = list.next_element_seed(Value(inner))? {
            match (item, &mut texts) {
                (Field::Text(text), Some(texts)) => texts.push(text.into_owned()),
                _ => texts = None,
            }
        }
        Ok(texts.map_or(Field::Other, Field::Texts))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field<'de>, A::Error> {
        let inner = self.0.checked_sub(1).ok_or_else(|| A::Error::custom("too deep"))?;
        while map.next_key_seed(Value(inner))?.is_some() {
            map.next_value_seed(Value(inner))?;
        }
        Ok(Field::Other)
    }
}

/// A value as JSON text. Serializing our own structs of texts and numbers into memory has no way to fail.
pub fn json<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).map(Bytes::from).unwrap_or_default()
}

/// An event's frame: its stored body with the action in front and the time behind. Not parsed: what was stored is what
/// is shown. `None` when the body is no object.
pub fn event(action: &str, body: &[u8], at: Wall) -> Option<Vec<u8>> {
    let fields = body.trim_ascii().strip_prefix(b"{")?.strip_suffix(b"}")?.trim_ascii();
    let mut out = Vec::with_capacity(fields.len() + 96);
    out.extend_from_slice(b"{\"action\":\"");
    out.extend_from_slice(action.as_bytes());
    out.extend_from_slice(b"\",");
    if !fields.is_empty() {
        out.extend_from_slice(fields);
        out.push(b',');
    }
    out.extend_from_slice(b"\"timestamp\":\"");
    out.extend_from_slice(time::utc(at).as_bytes());
    out.extend_from_slice(b"\"}");
    Some(out)
}

/// Body of an `update` event.
pub fn update_body(content: &str) -> Bytes {
    #[derive(Serialize)]
    struct Body<'a> {
        content: &'a str,
    }
    json(&Body { content })
}

/// Body of an `update_metadata` event: what was asked for, null for what was left alone (P10).
pub fn metadata_body(description: Option<&str>, tags: Option<&[String]>) -> Bytes {
    #[derive(Serialize)]
    struct Body<'a> {
        description: Option<&'a str>,
        tags: Option<&'a [String]>,
    }
    json(&Body { description, tags })
}

/// Body of a `created` event: the whole state.
pub fn created_body(document: &Document) -> Bytes {
    #[derive(Serialize)]
    struct Body<'a> {
        content: &'a str,
        description: Option<&'a str>,
        tags: &'a [String],
    }
    json(&Body { content: &document.content, description: document.description.as_deref(), tags: &document.tags })
}

/// Body of a `deleted` event.
pub fn deleted_body(renamed_to: Option<&str>) -> Bytes {
    #[derive(Serialize)]
    struct Body<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        renamed_to: Option<&'a str>,
    }
    json(&Body { renamed_to })
}

/// The first frame. `prompt_type` is the older generation's word for `is_composite`; clients ignore what they do not
/// know.
pub fn initial(document: &Document) -> Bytes {
    #[derive(Serialize)]
    struct Initial<'a> {
        action: &'static str,
        content: &'a str,
        description: Option<&'a str>,
        tags: &'a [String],
        is_composite: bool,
        prompt_type: &'static str,
        updated_at: String,
    }
    json(&Initial {
        action: "initial",
        content: &document.content,
        description: document.description.as_deref(),
        tags: &document.tags,
        is_composite: is_composite(&document.content),
        prompt_type: prompt_type(&document.content),
        updated_at: time::utc(document.updated_at),
    })
}

fn is_composite(content: &str) -> bool {
    content.contains("[[") && content.contains("]]")
}

fn prompt_type(content: &str) -> &'static str {
    if is_composite(content) { "composite" } else { "standard" }
}

#[derive(Default, Serialize)]
struct Status<'a> {
    action: &'static str,
    success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dup: Option<bool>,
}

/// The answer to a write that is stored. Exactly the originals' three fields unless the client named its operation.
pub fn saved(at: Wall, op: Option<&OpId>, seq: Seq, repeated: bool) -> Bytes {
    json(&Status {
        action: "update_status",
        success: true,
        timestamp: Some(time::utc(at)),
        id: op.map(|op| &*op.0),
        seq: op.map(|_| seq.0),
        dup: (op.is_some() && repeated).then_some(true),
        ..Status::default()
    })
}

/// The answer to a write that is certainly not stored.
pub fn not_saved(why: &str, op: Option<&OpId>) -> Bytes {
    json(&Status { action: "update_status", error: Some(why), id: op.map(|op| &*op.0), ..Status::default() })
}

pub fn error(message: &str) -> Bytes {
    #[derive(Serialize)]
    struct Failed<'a> {
        action: &'static str,
        message: &'a str,
    }
    json(&Failed { action: "error", message })
}

pub fn expanded(content: &str, expansion: &Expansion) -> Bytes {
    #[derive(Serialize)]
    struct Expanded<'a> {
        action: &'static str,
        content: &'a str,
        expanded: &'a str,
        dependencies: Vec<&'a String>,
        warnings: &'a [String],
    }
    json(&Expanded {
        action: "expanded",
        content,
        expanded: &expansion.text,
        dependencies: expansion.dependencies.iter().collect(),
        warnings: &expansion.warnings,
    })
}

pub fn details(document: &Document, dependencies: &[Dependency], warnings: &[String]) -> Bytes {
    #[derive(Serialize)]
    struct Details<'a> {
        action: &'static str,
        id: &'a str,
        name: &'a str,
        directory: &'a str,
        content: &'a str,
        description: Option<&'a str>,
        tags: &'a [String],
        is_composite: bool,
        prompt_type: &'static str,
        created_at: String,
        updated_at: String,
        unique_id: String,
        dependencies: &'a [Dependency],
        warnings: &'a [String],
    }
    json(&Details {
        action: "details",
        id: &document.id,
        name: &document.name,
        directory: &document.directory,
        content: &document.content,
        description: document.description.as_deref(),
        tags: &document.tags,
        is_composite: is_composite(&document.content),
        prompt_type: prompt_type(&document.content),
        created_at: time::utc(document.created_at),
        updated_at: time::utc(document.updated_at),
        unique_id: Document::unique_id(&document.directory, &document.name),
        dependencies,
        warnings,
    })
}

/// The debug socket's answer: naive local time, as the original's.
pub fn echo(received: &str, counter: u64, timestamp: &str) -> Bytes {
    #[derive(Serialize)]
    struct Echo<'a> {
        received: &'a str,
        counter: u64,
        timestamp: &'a str,
        message: &'static str,
    }
    json(&Echo { received, counter, timestamp, message: "WebSocket echo test" })
}

/// What the debug sockets hear of a change; `kind` is `prompt_created`, `prompt_updated` or `prompt_deleted`.
pub fn announcement(kind: &'static str, id: &str, at: Wall) -> Bytes {
    #[derive(Serialize)]
    struct Announcement<'a> {
        r#type: &'static str,
        id: &'a str,
        timestamp: String,
    }
    json(&Announcement { r#type: kind, id, timestamp: time::utc(at) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use proptest::prelude::*;

    fn text(text: &str) -> Field<'_> {
        Field::Text(Cow::Borrowed(text))
    }

    #[test]
    fn values_are_told_apart_as_far_as_it_matters() {
        for (json, content, tags) in [
            (r#"{}"#, Field::Absent, Field::Absent),
            (r#"{"content":null,"tags":null}"#, Field::Absent, Field::Absent),
            (r#"{"content":"","tags":[]}"#, text(""), Field::Texts(vec![])),
            (r#"{"content":"a\nb","tags":["x","y"]}"#, text("a\nb"), Field::Texts(vec!["x".into(), "y".into()])),
            (r#"{"content":123,"tags":["x",1]}"#, Field::Other, Field::Other),
            (r#"{"content":1.5,"tags":[null]}"#, Field::Other, Field::Other),
            (r#"{"content":true,"tags":{"a":1}}"#, Field::Other, Field::Other),
            (r#"{"content":-1,"tags":"x"}"#, Field::Other, text("x")),
            (r#"{"content":{},"tags":[["x"]]}"#, Field::Other, Field::Other),
            (r#"{"content":"a","content":"b"}"#, text("b"), Field::Absent),
            (r#" {"x":[1,{"y":[]}],"\u0063ontent":"z"} "#, text("z"), Field::Absent),
        ] {
            let message = parse(json).unwrap();
            assert_eq!((message.content, message.tags), (content, tags), "{json}");
        }
    }

    #[test]
    fn p6_what_is_no_message_gets_a_sentence() {
        let bomb = format!("{{\"x\":{}{}}}", "[".repeat(40), "]".repeat(40));
        let objects = format!("{{\"x\":{}1{}}}", "{\"a\":".repeat(40), "}".repeat(40));
        let endless = "[".repeat(1_000_000);
        for json in [
            "",
            "hello",
            "[]",
            "[{}]",
            "\"x\"",
            "1",
            "null",
            "true",
            "{",
            "{}x",
            "{\"a\":1,}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":1e999}",
            &bomb,
            &objects,
            &endless,
        ] {
            assert!(parse(json).is_err(), "{}", json.get(..20).unwrap_or(json));
        }
        let fine = format!("{{\"x\":{}{}}}", "[".repeat(31), "]".repeat(31));
        assert!(parse(&fine).is_ok());
    }

    #[test]
    fn an_unescaped_text_is_borrowed() {
        let message = parse(r#"{"content":"plain"}"#).unwrap();
        assert!(matches!(message.content, Field::Text(Cow::Borrowed("plain"))));
    }

    #[test]
    fn frames_hold_their_fields_in_the_originals_order() {
        let op = OpId("op-1".into());
        let at = Wall(1_747_101_540_000_000);
        let mut document = Document {
            id: "a/b".into(),
            directory: "a".into(),
            name: "b".into(),
            content: "[[x]] ü\u{0}".into(),
            tags: vec!["t".into()],
            created_at: at,
            updated_at: at,
            ..Document::default()
        };
        let composite = r#"{"action":"initial","content":"[[x]] ü\u0000","description":null,"tags":["t"],"is_composite":true,"prompt_type":"composite","updated_at":"2025-05-13T01:59:00+00:00"}"#;
        assert_eq!(initial(&document), composite);
        document.content = "x".into();
        document.description = Some("D".into());
        for (payload, expected) in [
            (
                initial(&document),
                r#"{"action":"initial","content":"x","description":"D","tags":["t"],"is_composite":false,"prompt_type":"standard","updated_at":"2025-05-13T01:59:00+00:00"}"#,
            ),
            (
                saved(at, None, Seq(4), true),
                r#"{"action":"update_status","success":true,"timestamp":"2025-05-13T01:59:00+00:00"}"#,
            ),
            (
                saved(at, Some(&op), Seq(4), false),
                r#"{"action":"update_status","success":true,"timestamp":"2025-05-13T01:59:00+00:00","id":"op-1","seq":4}"#,
            ),
            (
                saved(at, Some(&op), Seq(4), true),
                r#"{"action":"update_status","success":true,"timestamp":"2025-05-13T01:59:00+00:00","id":"op-1","seq":4,"dup":true}"#,
            ),
            (not_saved("no", None), r#"{"action":"update_status","success":false,"error":"no"}"#),
            (not_saved("no", Some(&op)), r#"{"action":"update_status","success":false,"error":"no","id":"op-1"}"#),
            (error("no"), r#"{"action":"error","message":"no"}"#),
            (
                echo("hi", 1, "2025-05-13T01:59:00"),
                r#"{"received":"hi","counter":1,"timestamp":"2025-05-13T01:59:00","message":"WebSocket echo test"}"#,
            ),
            (
                announcement("prompt_created", "a/b", at),
                r#"{"type":"prompt_created","id":"a/b","timestamp":"2025-05-13T01:59:00+00:00"}"#,
            ),
            (update_body("\u{0}\""), r#"{"content":"\u0000\""}"#),
            (metadata_body(None, Some(&["x".into()])), r#"{"description":null,"tags":["x"]}"#),
            (created_body(&document), r#"{"content":"x","description":"D","tags":["t"]}"#),
            (deleted_body(None), "{}"),
            (deleted_body(Some("n")), r#"{"renamed_to":"n"}"#),
        ] {
            assert_eq!(payload, expected);
        }
    }

    proptest! {
        #[test]
        fn whatever_text_arrives_is_a_value(text in ".{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn a_spliced_event_is_json_with_the_content_as_stored(content in any::<String>()) {
            let payload = event("update", &update_body(&content), Wall(0)).unwrap();
            let value: serde_json::Value = serde_json::from_slice(&payload).unwrap();
            prop_assert_eq!(value["content"].as_str(), Some(&*content));
        }
    }
}
