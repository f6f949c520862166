//! The tables as an AsyncAPI 3.0 document. It is the server's: what clients say it receives, what it says it sends.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::TAGS;
use super::schema::put;
use super::table::{Channel, Guard, Message, Parameter, about, names_in};
use crate::limits::{Limits, MESSAGE_BYTES_CEILING};

pub fn document() -> Value {
    let all = super::channels();
    let (mut channels, mut operations, mut messages) = (Map::new(), Map::new(), Map::new());
    for channel in &all {
        for (index, address) in channel.addresses.iter().copied().enumerate() {
            let id = if index == 0 { channel.name.to_owned() } else { format!("{}.{}", channel.name, index + 1) };
            channels.insert(id.clone(), written(channel, address));
            for (action, side) in [("receive", ".client."), ("send", ".server.")] {
                operations.insert(format!("{id}.{action}"), operation(channel, &id, action, side));
            }
        }
        messages.extend(channel.messages.iter().map(|message| (message.name.to_owned(), of_message(message))));
    }
    json!({
        "asyncapi": "3.0.0",
        "id": "urn:commitcast",
        "info": {
            "title": "commitcast",
            "version": env!("CARGO_PKG_VERSION"),
            "description": description(),
            "license": {"name": "Apache-2.0"},
            "tags": TAGS.map(|(name, about)| json!({"name": name, "description": about})),
        },
        "defaultContentType": "application/json",
        "servers": {"here": {
            "host": "{address}",
            "protocol": "ws",
            "description": "This server; `wss` behind a proxy that speaks TLS.",
            "variables": {"address": {"default": "127.0.0.1:8080", "description": "Where it listens."}},
        }},
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "securitySchemes": security_schemes()},
    })
}

fn description() -> String {
    let limits = Limits::default();
    format!(
        "Every socket and message, in text frames. `{{dialect}}.client.*` is what clients say, `{{dialect}}.server.*` what they \
         are told; of a message that is shown for an event, nothing is sent before the event is saved. A listener may serve \
         some of the dialects only. HTTP is described in `/openapi.json`.\n\nLimits, as they are without a configuration: {} bytes a message (at most {} can be \
         set), {} rooms a native connection, {} messages a second and connection with bursts of twice that, JSON of at most {} \
         levels. A ping comes after {} seconds of silence, and its pong is waited for {} seconds.\n\nCloses: 1000 done, 1001 \
         going away, 1002 protocol, 1003 no binary frames here, 1007 not UTF-8, 1008 policy, 1009 too big, 1011 internal, 1012 \
         restarting, 1013 overloaded, 4000 no pong, 4004 unknown prompt, 4008 stalled, 4029 too many messages, 4401 credential \
         missing, expired or revoked, 4403 not granted or evicted, 4404 unknown path. Refused handshakes say why in `X-WS-Reject` and \
         in a problem document; where the configuration says so, they are accepted and closed with the code instead.",
        limits.message,
        MESSAGE_BYTES_CEILING,
        limits.rooms,
        limits.messages_per_second,
        crate::dialect::json::DEPTH_MAX,
        limits.ping.as_secs(),
        limits.pong.as_secs(),
    )
}

fn written(channel: &Channel, address: &'static str) -> Value {
    let messages: Map<String, Value> = channel
        .messages
        .iter()
        .map(|message| (message.name.to_owned(), json!({"$ref": format!("#/components/messages/{}", message.name)})))
        .collect();
    let dialect = channel.name.split('.').next().unwrap_or_default();
    let mut written = json!({
        "address": address,
        "summary": channel.summary,
        "messages": messages,
        "servers": [{"$ref": "#/servers/here"}],
        "tags": [{"name": dialect}],
        "bindings": {"ws": binding(&channel.query)},
    });
    let parameters: Map<String, Value> =
        names_in(address).map(|name| (name.to_owned(), json!({"description": about(name).0}))).collect();
    if !parameters.is_empty() {
        put(&mut written, "parameters", Value::Object(parameters));
    }
    written
}

fn binding(query: &[Parameter]) -> Value {
    let mut binding = json!({"method": "GET", "bindingVersion": "0.1.0"});
    if !query.is_empty() {
        let properties: BTreeMap<&str, Value> = query
            .iter()
            .map(|parameter| {
                let mut schema = parameter.schema.clone();
                put(&mut schema, "description", parameter.summary.into());
                (parameter.name, schema)
            })
            .collect();
        let required: Vec<&str> =
            query.iter().filter(|parameter| parameter.required).map(|parameter| parameter.name).collect();
        put(&mut binding, "query", json!({"type": "object", "properties": properties, "required": required}));
    }
    binding
}

fn operation(channel: &Channel, id: &str, action: &str, side: &str) -> Value {
    let messages: Vec<Value> = channel
        .messages
        .iter()
        .filter(|message| message.name.contains(side))
        .map(|message| json!({"$ref": format!("#/channels/{id}/messages/{}", message.name)}))
        .collect();
    let mut operation = json!({
        "action": action,
        "channel": {"$ref": format!("#/channels/{id}")},
        "messages": messages,
    });
    let security: Vec<Value> = security(channel.guard)
        .iter()
        .map(|name| json!({"$ref": format!("#/components/securitySchemes/{name}")}))
        .collect();
    if !security.is_empty() {
        put(&mut operation, "security", Value::Array(security));
    }
    operation
}

fn of_message(message: &Message) -> Value {
    json!({
        "name": message.name,
        "title": message.name.rsplit('.').next().unwrap_or_default(),
        "summary": message.summary,
        "contentType": if message.is_plain { "text/plain" } else { "application/json" },
        "payload": message.payload,
    })
}

fn security(guard: Guard) -> &'static [&'static str] {
    match guard {
        Guard::Everybody => &[],
        Guard::User | Guard::Native => &["token", "subprotocol", "query_token"],
        Guard::Backend => &["key", "key_header"],
    }
}

fn security_schemes() -> Value {
    json!({
        "token": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "A user's token. Needed in token mode; a configured cookie will do as well, and on `/v1/connect` the \
                            message `auth`.",
        },
        "subprotocol": {
            "type": "httpApiKey",
            "in": "header",
            "name": "Sec-WebSocket-Protocol",
            "description": "`bearer.<token>` among the offered subprotocols: browsers can set no other header.",
        },
        "query_token": {
            "type": "httpApiKey",
            "in": "query",
            "name": "token",
            "description": "The same, unless the configuration forbids it.",
        },
        "key": {"type": "http", "scheme": "bearer", "description": "A backend's API key."},
        "key_header": {"type": "httpApiKey", "in": "header", "name": "X-API-Key", "description": "The same."},
    })
}
