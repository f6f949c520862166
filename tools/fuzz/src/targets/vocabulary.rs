//! The written protocol (`/asyncapi.json`) as a judge: what is said on a socket must be a message of its channel.

use std::sync::LazyLock;

use commitcast::dialect::{Frames, Name, Reply};
use serde_json::Value;

use crate::served;

/// The one that holds the server's own tests.
#[path = "../../../../src/protocol/judge.rs"]
mod judge;

/// A place where sockets are let in, and what they are told there.
#[derive(Debug)]
pub struct Channel {
    dialect: String,
    /// Such as `/ws/prompts/{prompt_id}`.
    address: String,
    messages: Vec<Message>,
}

#[derive(Debug)]
struct Message {
    name: String,
    payload: Value,
    is_plain: bool,
    /// What its payload says of itself, such as its type: whatever says otherwise is another message.
    marks: Vec<(String, Value)>,
}

static CHANNELS: LazyLock<Vec<Channel>> = LazyLock::new(|| {
    let document: Value = serde_json::from_slice(&commitcast::protocol::asyncapi()).expect("the document is JSON");
    let channels = document["channels"].as_object().expect("it has channels");
    channels.iter().map(|(id, channel)| written(id, channel, &document["components"]["messages"])).collect()
});

fn written(id: &str, channel: &Value, components: &Value) -> Channel {
    let names = channel["messages"].as_object().expect("a channel has messages").keys();
    let message = |name: &String| {
        let payload = components[name]["payload"].clone();
        let fields = payload["properties"].as_object().into_iter().flatten();
        Message {
            name: name.clone(),
            marks: fields.filter_map(|(field, schema)| Some((field.clone(), schema.get("const")?.clone()))).collect(),
            is_plain: components[name]["contentType"] == "text/plain",
            payload,
        }
    };
    Channel {
        dialect: id.split('.').next().unwrap_or_default().to_owned(),
        address: channel["address"].as_str().expect("a channel has an address").to_owned(),
        messages: names.filter(|name| name.contains(".server.")).map(message).collect(),
    }
}

/// The channels at a path, of which there are two on `/ws`.
pub fn at(path: &str) -> Vec<&'static Channel> {
    let found: Vec<&Channel> = CHANNELS.iter().filter(|channel| leads_to(&channel.address, path)).collect();
    assert!(!found.is_empty(), "no channel is written down at {path}");
    found
}

fn of(dialect: &str) -> Vec<&'static Channel> {
    CHANNELS.iter().filter(|channel| channel.dialect == dialect).collect()
}

/// A name in braces stands for the rest of a path: ids may hold slashes.
fn leads_to(address: &str, path: &str) -> bool {
    match address.split_once('{') {
        Some((front, _)) => path.len() > front.len() && path.starts_with(front),
        None => address == path,
    }
}

pub fn hear(channels: &[&Channel], payload: &[u8]) {
    let text = std::str::from_utf8(payload).expect("what is said is text");
    let value: Option<Value> = serde_json::from_str(text).ok();
    let mut whys = Vec::new();
    for message in channels.iter().flat_map(|channel| &channel.messages) {
        let value = if message.is_plain { Some(Value::from(text)) } else { value.clone() };
        let Some(value) = value.filter(|value| message.may_be(value)) else { continue };
        match judge::fits(&message.payload, &value, &Value::Null) {
            Ok(()) => return,
            Err(why) => whys.push(format!("{}: {why}", message.name)),
        }
    }
    if value.is_some_and(|value| channels.iter().any(|channel| channel.passes_on(&value))) {
        return;
    }
    let places: Vec<&str> = channels.iter().map(|channel| channel.address.as_str()).collect();
    panic!("no message at {places:?} is {text}\n{}", whys.join("\n"));
}

impl Message {
    fn may_be(&self, value: &Value) -> bool {
        self.marks.iter().all(|(field, mark)| value.get(field).is_none_or(|value| value == mark))
    }
}

impl Channel {
    /// What backends publish in the rooms of these is passed on as it came, and what it lacks is their affair: of that only
    /// that it is an object, for `agents` in its envelope.
    fn passes_on(&self, value: &Value) -> bool {
        match self.dialect.as_str() {
            "tickets" | "workflows" => value.is_object(),
            "agents" => value["type"].is_string() && value["data"].is_object() && value["timestamp"].is_string(),
            _ => false,
        }
    }
}

/// What a reply says on a socket.
pub fn hear_reply(channels: &[&Channel], reply: &Reply) {
    if let Reply::Frame(frames) | Reply::Welcome { frame: frames, .. } = reply {
        served::texts(frames).iter().for_each(|payload| hear(channels, payload.as_bytes()));
    }
}

/// An event or a signal, as each dialect shows it.
pub fn hear_frames(frames: &Frames) {
    for name in Name::ALL {
        let channels = of(name.as_str());
        served::texts(frames.of(name)).iter().for_each(|payload| hear(&channels, payload.as_bytes()));
    }
}

/// Something that a socket of a backend is given.
pub fn hear_task(frames: &[u8]) {
    let channels = of("backend");
    served::texts(frames).iter().for_each(|payload| hear(&channels, payload.as_bytes()));
}
