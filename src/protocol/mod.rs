//! The written protocol: an OpenAPI 3.1 description of every endpoint and an AsyncAPI 3.0 description of every socket and
//! message, made from one table for each dialect and served by the server that they describe.
//!
//! ```text
//! documents  workflows  tickets  agents  native  backend  service     tables: channels with messages, endpoints with answers
//!       └────────┴─────────┴───────┴────────┴──────┴───────┴─▶ openapi ─▶ /openapi.json
//!                                                           └─▶ asyncapi ▶ /asyncapi.json
//! ```
//!
//! Tables and not annotations beside the code: a description that is derived from the code agrees with any mistake in it.
//! That the two agree is what the tests are for (tests.rs): every example that a schema allows is given to the dialects,
//! every answer of theirs is held against the schemas, and every verb and path in their sources must stand in a table.

mod agents;
mod asyncapi;
mod backend;
mod documents;
#[cfg(test)]
mod judge;
mod native;
mod openapi;
#[cfg(test)]
mod samples;
mod schema;
mod service;
mod table;
#[cfg(test)]
mod tests;
mod tickets;
mod workflows;

use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::Value;

use table::{Channel, Endpoint};

/// `GET /openapi.json`
pub fn openapi() -> Bytes {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| written(&openapi::document()));
    DOCUMENT.clone()
}

/// `GET /asyncapi.json`
pub fn asyncapi() -> Bytes {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| written(&asyncapi::document()));
    DOCUMENT.clone()
}

/// Made once, at the first request: a few milliseconds that most servers never spend.
fn written(document: &Value) -> Bytes {
    // A value has no way not to be written.
    serde_json::to_vec(document).map(Bytes::from).unwrap_or_default()
}

fn channels() -> Vec<Channel> {
    [
        documents::channels(),
        workflows::channels(),
        tickets::channels(),
        agents::channels(),
        native::channels(),
        backend::channels(),
    ]
    .concat()
}

/// By tag.
fn endpoints() -> Vec<(&'static str, Vec<Endpoint>)> {
    vec![
        ("documents", documents::endpoints()),
        ("workflows", workflows::endpoints()),
        ("tickets", tickets::endpoints()),
        ("agents", agents::endpoints()),
        ("backend", backend::endpoints()),
        ("service", service::endpoints()),
    ]
}

const TAGS: [(&str, &str); 7] = [
    ("documents", "The prompt and fragment editor."),
    ("workflows", "The video pipeline's progress pages."),
    ("tickets", "The agent supervision hub."),
    ("agents", "Human-in-the-loop agent sessions."),
    ("native", "New applications: any room, with resume, presence, compare-and-set and decisions."),
    ("backend", "The application's own programs: they publish, and they are given tasks."),
    ("service", "The server itself."),
];
