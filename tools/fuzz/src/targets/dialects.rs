//! Messages of each dialect, several on one socket, in any state of its session: each becomes an intent and each intent
//! is carried out. Whatever is answered, and whatever others are shown of it, is a message that stands in the written
//! protocol, so always JSON in the dialect's own vocabulary; and nothing panics.

use super::stage::{SESSION, Stage};
use crate::input::Input;

/// Where a socket enters: path, query, and whether its credential was good.
type Door = (&'static str, Option<&'static str>, bool);

pub fn documents(data: &[u8]) {
    let doors: &[Door] = &[
        ("/ws/prompts/text", None, true),
        ("/api/prompts/ws/d/text", None, true),
        ("/api/ws/test", None, true),
        ("/api/debug/ws/test", None, true),
    ];
    converse(data, doors);
}

pub fn workflows(data: &[u8]) {
    let doors: &[Door] = &[
        ("/ws/workflow/text", None, true),
        ("/ws/workflow/text", Some("client_id=page-1"), true),
        ("/ws/agent/text", None, true),
        ("/ws/coordinator", None, true),
        ("/api/v1/ws/connect", None, true),
        ("/api/v1/chat/ws/text", None, true),
    ];
    converse(data, doors);
}

pub fn tickets(data: &[u8]) {
    let doors: &[Door] = &[("/ws", None, true), ("/ws", Some("since=0"), true), ("/ws/logs", None, true)];
    converse(data, doors);
}

pub fn agents(data: &[u8]) {
    const QUERY: &str = "session_id=0af0bd5c-0000-4000-8000-00000000000a";
    assert!(QUERY.ends_with(SESSION));
    let doors: &[Door] = &[("/api/v1/ws", Some(QUERY), true), ("/ws", Some(QUERY), true)];
    converse(data, doors);
}

pub fn native(data: &[u8]) {
    converse(data, &[("/v1/connect", None, true), ("/v1/connect", None, false)]);
}

pub fn backend(data: &[u8]) {
    converse(data, &[("/v1/backend", None, true)]);
}

/// The messages stand between line feeds, which JSON never needs; one that begins with U+0001 is a binary frame.
fn converse(data: &[u8], doors: &[Door]) {
    let mut input = Input::new(data);
    let choice = input.byte();
    let mut stage = Stage::new(choice & 0x80 == 0, choice & 0x40 != 0);
    let (path, query, authenticated) = doors[usize::from(choice & 0x3f) % doors.len()];
    let (mut session, channels) = stage.enter(path, query, authenticated);
    for said in input.rest().split(|byte| *byte == b'\n') {
        let (said, binary) = said.strip_prefix(&[1]).map_or((said, false), |rest| (rest, true));
        if !stage.converse(&mut session, &channels, said, binary) {
            break;
        }
    }
    stage.hear_all();
}
