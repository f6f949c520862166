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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::super::testing::{asker, key, text, told};
    use super::*;
    use crate::dialect::fake::Fake;
    use crate::dialect::{Change, Env, Failure, Reply, apply, failed, lines};

    fn stream(body: &[u8], rights: &[&str]) -> Vec<Write> {
        match endpoint(body, &key(rights)).unwrap() {
            Intent::Stream(writes) => writes.into(),
            other => panic!("{}", told(other)),
        }
    }

    /// What the writer makes of a batch: each line for itself.
    fn carried_out(write: &Write, rows: &mut Fake) -> String {
        let Change::Batch(writes) = &write.change else { panic!("{write:?}") };
        let replies = writes.iter().map(|write| apply(write, &asker(), rows, &Env::default()).unwrap().reply);
        match lines(replies.collect::<Vec<_>>().into_iter()) {
            Reply::Lines(lines) => text(&lines),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_line_has_its_result_in_its_place() {
        let body = [
            r#"{"room":"game:1","type":"move","data":{"x":1},"id":"a"}"#,
            "",
            "nonsense\r",
            r#"{"room":"secret","type":"move","data":{},"id":"b"}"#,
            r#"{"room":"game:1","type":"move","data":{},"if_rev":7}"#,
            r#" {"room":"game:1","type":"move","data":{"x":2}} "#,
        ]
        .join("\n");
        let writes = stream(body.as_bytes(), &["publish:game:*"]);
        assert_eq!(writes.len(), 1);
        let mut rows = Fake::default();
        assert_eq!(
            carried_out(&writes[0], &mut rows),
            [
                r#"{"line":1,"room":"game:1","epoch":"0000000000000007","seq":1,"id":"a"}"#,
                r#"{"line":3,"error":{"code":"bad_message","detail":"a message is a JSON object of at most 32 levels"}}"#,
                r#"{"line":4,"id":"b","error":{"code":"forbidden","detail":"this key may not publish in this room"}}"#,
                r#"{"line":5,"rev":0,"error":{"code":"conflict","detail":"the revision is another one"}}"#,
                r#"{"line":6,"room":"game:1","epoch":"0000000000000007","seq":2}"#,
                "",
            ]
            .join("\n")
        );
        assert_eq!(rows.told("game:1"), [r#"move {"x":1}"#, r#"move {"x":2}"#]);
    }

    #[test]
    fn a_line_that_is_not_utf_8_spoils_only_itself() {
        let writes = stream(b"\xff\n{\"room\":\"r\",\"type\":\"t\",\"data\":1}", &["*"]);
        let answer = carried_out(&writes[0], &mut Fake::default());
        assert!(answer.starts_with(r#"{"line":1,"error":{"code":"bad_message","detail":"the line is not UTF-8"}}"#));
        assert!(answer.contains(r#"{"line":2,"room":"r""#), "{answer}");
    }

    #[test]
    fn many_lines_are_several_transactions() {
        let body = format!("{SHORTEST}\n").repeat(600);
        let sizes: Vec<usize> = stream(body.as_bytes(), &["*"])
            .iter()
            .map(|write| match &write.change {
                Change::Batch(writes) => writes.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(sizes, [256, 256, 88]);
    }

    #[test]
    fn the_bounds_of_a_batch() {
        let full = format!("{SHORTEST}\n").repeat(BODY_BYTES_MAX / (SHORTEST.len() + 1));
        assert!(endpoint(full.as_bytes(), &key(&["*"])).is_ok(), "a body of good lines is never too many");
        let fault = endpoint(&b"1\n".repeat(LINES_MAX + 1), &key(&["*"])).unwrap_err();
        assert_eq!((fault.status, fault.code), (413, "too_many_lines"));
        assert_eq!(told(endpoint(b"\n \r\n", &key(&["*"])).unwrap()), "200 x-ndjson");
    }

    #[test]
    fn g3_a_batch_whose_commit_failed_says_of_each_line_what_is_known() {
        let body = format!("{SHORTEST}\n{}", r#"{"room":"r","type":"t","data":1,"id":"x"}"#);
        let writes = stream(body.as_bytes(), &["*"]);
        let Reply::Lines(answer) = failed(&writes[0], Failure::Busy) else { panic!("lines are answered with lines") };
        assert_eq!(
            text(&answer),
            [
                r#"{"line":1,"error":{"code":"overloaded","detail":"the store is behind; nothing was saved"}}"#,
                // It may be the resend of one that was stored.
                r#"{"line":2,"id":"x","error":{"code":"unknown","detail":"the store did not say whether this was saved"}}"#,
                "",
            ]
            .join("\n")
        );
    }

    /// The id of a line behind the one for which there was no space was never looked up.
    #[test]
    fn g3_a_batch_without_space_refuses_no_line_that_may_be_stored() {
        let body = format!("{SHORTEST}\n{}", r#"{"room":"r","type":"t","data":1,"id":"x"}"#);
        let writes = stream(body.as_bytes(), &["*"]);
        let Reply::Lines(answer) = failed(&writes[0], Failure::Full) else { panic!("lines are answered with lines") };
        let answer = text(&answer);
        let codes: Vec<&str> =
            answer.lines().filter_map(|line| line.split("\"code\":\"").nth(1)?.split('"').next()).collect();
        assert_eq!(codes, ["store_full", "unknown"], "{answer}");
    }

    #[test]
    fn a_take_that_the_store_never_heard_of_is_not_kept_silent() {
        let desk = crate::dialect::Desk::Take { kinds: Default::default(), max: 1, lease: Default::default() };
        let write = Write { room: place(), op: None, change: Change::Desk(desk) };
        assert!(matches!(failed(&write, Failure::Busy), Reply::Close(_)));
    }
}
