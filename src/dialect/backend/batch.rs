//! `POST /v1/batch`: a publish on each line in, a result on each line out, in their order and each for itself.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Publishing;
use super::answers::{Asked, Via};
use super::fault::Fault;
use super::message::Message;
use super::writes::{Change, What};
use crate::auth::ApiKey;
use crate::dialect::{self, Intent, Write};
use crate::http::Response;
use crate::ids::RoomName;
use crate::limits::BODY_BYTES_MAX;

/// Lines that are written in one transaction and answered together.
const LINES_AT_ONCE: usize = 256;
/// Any more of them could only be nonsense, of which each would cost an answer longer than itself.
const LINES_MAX: usize = 32 * 1024;
const SHORTEST: &str = r#"{"room":"r","type":"t","data":1}"#;

const _: () = assert!(BODY_BYTES_MAX / (SHORTEST.len() + 1) <= LINES_MAX, "a body of good lines is never too many");

pub fn endpoint(body: &[u8], key: &Arc<ApiKey>) -> Result<Intent, Fault> {
    let lines: Vec<(usize, &[u8])> = body
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .zip(1..)
        .filter(|(line, _)| !line.is_empty())
        .map(|(line, number)| (number, line))
        .collect();
    if lines.len() > LINES_MAX {
        return Err(Fault::new(413, "too_many_lines", "a batch is at most 32768 lines"));
    }
    let writes: VecDeque<Write> = lines.chunks(LINES_AT_ONCE).map(|lines| together(lines, key)).collect();
    Ok(match writes.is_empty() {
        true => Intent::Respond(Box::new(nothing())),
        false => Intent::Stream(writes),
    })
}

/// No line in, no line out.
fn nothing() -> Response {
    Response { status: 200, content_type: "application/x-ndjson", headers: Vec::new(), body: Default::default() }
}

fn together(lines: &[(usize, &[u8])], key: &Arc<ApiKey>) -> Write {
    let writes = lines.iter().map(|(number, line)| write(*number, line, key)).collect();
    Write { room: place(), op: None, change: dialect::Change::Batch(writes) }
}

fn write(number: usize, line: &[u8], key: &Arc<ApiKey>) -> Write {
    let (id, publishing) = read(line, key);
    let (room, op, what) = match publishing {
        Ok(Publishing { publish, op, held }) => (publish.room.clone(), op, What::Publish { publish, held }),
        Err(fault) => (place(), None, What::Refused(fault)),
    };
    let change = Change { key: key.clone(), asked: Asked { via: Via::Line(number), id }, what };
    Write { room, op, change: dialect::Change::Backend(change) }
}

fn read(line: &[u8], key: &ApiKey) -> (Option<Arc<str>>, Result<Publishing, Fault>) {
    let message = match std::str::from_utf8(line) {
        Ok(line) => Message::parse(line),
        Err(_) => Err(Fault::nonsense("the line is not UTF-8")),
    };
    match message {
        Ok(message) => (message.id_to_echo(), message.publishing(key)),
        Err(fault) => (None, Err(fault)),
    }
}

/// A batch has many rooms; this one is only its place in the queue.
fn place() -> RoomName {
    RoomName::new("batch")
}
