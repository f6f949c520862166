//! What the tests of this folder share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use bytes::Bytes;

use crate::auth::ApiKey;
use crate::clock::Wall;
use crate::dialect::fake::Fake;
use crate::dialect::{Asker, Intent, Reply};
use crate::http::Response;
use crate::model::{TaskKind, Transaction};

pub fn key(rights: &[&str]) -> Arc<ApiKey> {
    let rights = rights.iter().map(|right| (*right).to_owned()).collect();
    Arc::new(ApiKey { name: "worker".to_owned(), key: "secret".to_owned(), rights })
}

pub fn asker() -> Asker {
    Asker { actor: "worker".into(), origin: 9, verified: true }
}

/// Rows with one task in them, handed out once: its id is 1, its fence 1.
pub fn with_task(kind: TaskKind) -> Fake {
    let mut rows = Fake { at: Wall(1_747_101_540_123_456), ..Fake::default() };
    put_task(&mut rows, kind);
    rows
}

/// Puts a task and hands it out, to nobody's socket.
pub fn put_task(rows: &mut Fake, kind: TaskKind) {
    let room = crate::ids::RoomName::new("session:7");
    let id = rows.put_task(kind, &room, Bytes::from_static(b"{\"command\":\"pay\"}")).unwrap();
    rows.lease_task(id, 0, Wall(i64::MAX / 2)).unwrap();
}

/// The payload of one small or middling text frame.
pub fn unframed(frame: &[u8]) -> String {
    assert_eq!(frame[0], 0x81, "a text frame");
    let from = if frame[1] == 126 { 4 } else { 2 };
    String::from_utf8(frame[from..].to_vec()).unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// `201 {"room":…}`, with the headers before the body and the content type unless it is JSON.
pub fn response(response: &Response) -> String {
    let mut said = response.status.to_string();
    if !matches!(response.content_type, "application/json" | "") {
        said = format!("{said} {}", response.content_type.trim_start_matches("application/"));
    }
    for (name, value) in &response.headers {
        said = format!("{said} {name}: {value}");
    }
    format!("{said} {}", text(&response.body)).trim_end().to_owned()
}

/// What a reply says, whatever its way.
pub fn said(reply: &Reply) -> String {
    match reply {
        Reply::Frame(frame) if frame.first() == Some(&0x81) => unframed(frame),
        Reply::Frame(line) => text(line),
        Reply::Response(answer) => response(answer),
        other => format!("{other:?}"),
    }
}

/// One line for an intent, to compare transcripts by.
pub fn told(intent: Intent) -> String {
    match intent {
        Intent::Reply(payload) => text(&payload),
        Intent::Complain(payload) => format!("complain {}", text(&payload)),
        Intent::Respond(answer) => response(&answer),
        Intent::Read(read) => format!("{read:?}"),
        Intent::Census(read) => format!("census {read:?}"),
        Intent::Write(write) => match write.change {
            crate::dialect::Change::Backend(change) => {
                format!("{} {:?} {:?}", write.room, write.op.map(|op| op.0.to_string()), change.what)
            }
            change => format!("{} {:?} {change:?}", write.room, write.op),
        },
        other => format!("{other:?}"),
    }
}
