//! Each dialect's hot messages, read; and what it shows of an event that is committed, written.

use std::hint::black_box;

use commitcast::clock::Wall;
use commitcast::dialect::{self, Intent, Name};

use super::{Case, Run, case};
use crate::common::house::NOW;
use crate::common::talk;

pub const CASES: &[Case] = &[
    case("decode/tickets_ping", 1, 500, || decode(Name::Tickets, talk::PING)),
    case("decode/tickets_response", 1, 500, || decode(Name::Tickets, talk::RESPONSE)),
    case("decode/workflows_ping", 1, 500, || decode(Name::Workflows, talk::PING)),
    case("decode/agents_execute", 1, 500, || decode(Name::Agents, talk::EXECUTE)),
    case("decode/documents_update", 1, 500, || decode(Name::Documents, &talk::update(0))),
    case("decode/native_ping", 1, 500, || decode(Name::Native, r#"{"op":"ping"}"#)),
    case("decode/native_signal", 1, 500, || decode(Name::Native, talk::SIGNAL)),
    case("decode/native_publish", 1, 500, || decode(Name::Native, &talk::publish("free", "note", talk::PROGRESS))),
    case("encode/tickets_message", 1, 500, || {
        encode(Name::Tickets, Name::Native, &talk::publish("tickets", "agent_message", talk::MESSAGE))
    }),
    case("encode/workflows_progress", 1, 500, || {
        encode(Name::Workflows, Name::Native, &talk::publish(talk::WORKFLOW, "progress", talk::PROGRESS))
    }),
    case("encode/agents_execute", 1, 500, || encode(Name::Agents, Name::Agents, talk::EXECUTE)),
    case("encode/documents_update", 1, 500, || encode(Name::Documents, Name::Documents, &talk::update(0))),
    case("encode/native_note", 1, 500, || {
        encode(Name::Native, Name::Native, &talk::publish("free", "note", talk::PROGRESS))
    }),
];

fn decode(name: Name, text: &str) -> Run {
    let mut session = talk::session(name, 0);
    let text = text.to_owned();
    let intent = session.on_text(&text, Wall(NOW));
    assert!(!matches!(intent, Intent::Ignore | Intent::Complain(_)), "{}: {text}: {intent:?}", name.as_str());
    Box::new(move || {
        black_box(session.on_text(black_box(&text), Wall(NOW)));
    })
}

/// The event that `text`, said to `asked`, has stored, framed for `shown`.
fn encode(shown: Name, asked: Name, text: &str) -> Run {
    let (room, event) = talk::stored(asked, text);
    let frames = dialect::encode(&room, &event, shown.bit());
    assert!(!frames.of(shown).is_empty(), "{}: nothing is shown of {event:?}", shown.as_str());
    Box::new(move || {
        black_box(dialect::encode(black_box(&room), black_box(&event), shown.bit()));
    })
}
