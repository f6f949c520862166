//! What backends are sent, field by field.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::fault::{Fault, title};
use crate::dialect::agents::approvals;
use crate::dialect::{ConnView, Hello, Session, time};
use crate::http::Response;
use crate::ids::{RoomName, Seq};
use crate::model::{Event, Record, RoomRow, Task, Tasks};

/// Everything that an answer may state. A socket's reply, an HTTP body and a line of a batch each wrap the same.
#[derive(Debug, Default, Serialize)]
pub struct Facts<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revocation: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rev: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dup: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decided<'a>>,
}

#[derive(Debug, Serialize)]
pub struct Decided<'a> {
    decision: &'a str,
    by: &'a str,
    at: String,
    seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    edited_args: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl<'a> Decided<'a> {
    pub fn of(decision: &'a approvals::Decision) -> Decided<'a> {
        Decided {
            decision: &decision.decision,
            by: &decision.by,
            at: time::zulu(decision.at),
            seq: decision.seq.0,
            edited_args: decision.edited_args.as_ref(),
            reason: decision.reason.as_deref(),
        }
    }
}

impl<'a> Facts<'a> {
    pub fn of_session(record: &'a Record) -> Facts<'a> {
        Facts {
            session: Some(&record.id),
            user_id: Some(record.parent.as_str()).filter(|owner| !owner.is_empty()),
            created_at: Some(time::zulu(record.created_at)),
            state: Some(&record.state),
            ..Facts::default()
        }
    }

    pub fn of_approval(approval: &'a approvals::Approval) -> Facts<'a> {
        let decided = approval.decided.as_ref();
        Facts {
            session: Some(&approval.session),
            request_id: Some(&approval.id),
            seq: Some(approval.seq.0),
            digest: Some(&approval.digest),
            state: Some(decided.map_or("pending", |decision| &decision.decision)),
            decision: decided.map(Decided::of),
            ..Facts::default()
        }
    }
}

// ---- the socket -------------------------------------------------------------------------------------------------------

pub fn hello(hello: &Hello<'_>, name: &str, kinds: Tasks) -> Bytes {
    #[derive(Serialize)]
    struct Frame<'a> {
        op: &'static str,
        conn: String,
        name: &'a str,
        kinds: Vec<&'static str>,
        durability: &'static str,
        ping_ms: u128,
        version: &'static str,
    }
    json(&Frame {
        op: "hello",
        conn: hello.conn.to_string(),
        name,
        kinds: kinds.iter().map(|kind| kind.as_str()).collect(),
        durability: hello.durability,
        ping_ms: hello.ping.as_millis(),
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// `{"op": …}` and the facts.
pub fn said(op: &'static str, facts: &Facts<'_>) -> Bytes {
    #[derive(Serialize)]
    struct Frame<'a> {
        op: &'static str,
        #[serde(flatten)]
        facts: &'a Facts<'a>,
    }
    json(&Frame { op, facts })
}

pub fn refused(fault: &Fault, facts: &Facts<'_>, retry_after_ms: Option<u32>) -> Bytes {
    #[derive(Serialize)]
    struct Frame<'a> {
        op: &'static str,
        #[serde(flatten)]
        facts: &'a Facts<'a>,
        code: &'static str,
        detail: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u32>,
    }
    json(&Frame { op: "refused", facts, code: fault.code, detail: &fault.detail, retry_after_ms })
}

pub fn pong() -> Bytes {
    Bytes::from_static(b"{\"op\":\"pong\"}")
}

/// How many tasks of a kind are not finished, how many of those a socket has, and whether somebody takes the kind now.
#[derive(Debug, Serialize)]
pub struct Waiting {
    pub open: usize,
    pub held: usize,
    pub taken: bool,
}

pub fn status(tasks: &BTreeMap<&'static str, Waiting>, rooms: usize) -> Bytes {
    #[derive(Serialize)]
    struct Frame<'a> {
        op: &'static str,
        tasks: &'a BTreeMap<&'static str, Waiting>,
        rooms: usize,
    }
    json(&Frame { op: "status", tasks, rooms })
}

// ---- tasks ------------------------------------------------------------------------------------------------------------

#[derive(Serialize)]
struct TaskView<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    op: Option<&'static str>,
    task: String,
    kind: &'static str,
    room: &'a str,
    attempt: u32,
    fence: u64,
    at: String,
    data: &'a RawValue,
}

impl<'a> TaskView<'a> {
    fn of(task: &'a Task, op: Option<&'static str>) -> TaskView<'a> {
        TaskView {
            op,
            task: task.id.0.to_string(),
            kind: task.kind.as_str(),
            room: task.room.as_str(),
            attempt: task.attempt,
            fence: task.fence,
            at: time::zulu(task.created_at),
            data: raw(&task.body),
        }
    }
}

pub fn task(task: &Task) -> Vec<u8> {
    serde_json::to_vec(&TaskView::of(task, Some("task"))).unwrap_or_default()
}

pub fn tasks(tasks: &[Task]) -> Response {
    #[derive(Serialize)]
    struct Body<'a> {
        tasks: Vec<TaskView<'a>>,
    }
    let tasks = tasks.iter().map(|task| TaskView::of(task, None)).collect();
    // A GET that hands something out: an answer kept by a cache would give one task to two.
    Response::json(200, json(&Body { tasks })).with_header("Cache-Control", "no-store")
}

// ---- HTTP -------------------------------------------------------------------------------------------------------------

pub fn body(status: u16, facts: &Facts<'_>) -> Response {
    Response::json(status, json(facts))
}

/// RFC 9457.
pub fn problem(fault: &Fault, facts: &Facts<'_>) -> Response {
    #[derive(Serialize)]
    struct Problem<'a> {
        #[serde(rename = "type")]
        kind: &'static str,
        title: &'static str,
        status: u16,
        detail: &'a str,
        code: &'static str,
        #[serde(flatten)]
        facts: &'a Facts<'a>,
    }
    let problem = Problem {
        kind: "about:blank",
        title: title(fault.status),
        status: fault.status,
        detail: &fault.detail,
        code: fault.code,
        facts,
    };
    let body = json(&problem);
    Response { status: fault.status, content_type: "application/problem+json", headers: Vec::new(), body }
}

pub fn events(room: &RoomName, row: RoomRow, events: &[Event]) -> Response {
    #[derive(Serialize)]
    struct View<'a> {
        seq: u64,
        #[serde(rename = "type")]
        kind: &'a str,
        by: &'a str,
        at: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
        data: &'a RawValue,
    }
    #[derive(Serialize)]
    struct Body<'a> {
        room: &'a str,
        epoch: String,
        head: u64,
        /// What is up to there is gone: whoever asked for it has missed it.
        floor: u64,
        events: Vec<View<'a>>,
    }
    let RoomRow { epoch, head: Seq(head), floor: Seq(floor) } = row;
    let events = events
        .iter()
        .map(|event| View {
            seq: event.seq.0,
            kind: &event.kind,
            by: &event.actor,
            at: time::zulu(event.at),
            id: event.op.as_ref().map(|op| &*op.0),
            data: raw(&event.body),
        })
        .collect();
    Response::json(200, json(&Body { room: room.as_str(), epoch: epoch.to_string(), head, floor, events }))
}

/// `next`: there are more after this name.
pub fn rooms(rooms: &[(RoomName, RoomRow, usize)], next: Option<&str>) -> Response {
    #[derive(Serialize)]
    struct View<'a> {
        room: &'a str,
        epoch: String,
        head: u64,
        floor: u64,
        members: usize,
    }
    #[derive(Serialize)]
    struct Body<'a> {
        rooms: Vec<View<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<&'a str>,
    }
    let rooms = rooms
        .iter()
        .map(|(room, row, members)| View {
            room: room.as_str(),
            epoch: row.epoch.to_string(),
            head: row.head.0,
            floor: row.floor.0,
            members: *members,
        })
        .collect();
    Response::json(200, json(&Body { rooms, next }))
}

pub fn revocations(views: &[Facts<'_>]) -> Response {
    #[derive(Serialize)]
    struct Body<'a> {
        revocations: &'a [Facts<'a>],
    }
    Response::json(200, json(&Body { revocations: views }))
}

pub fn connections(views: &[ConnView]) -> Response {
    #[derive(Serialize)]
    struct View<'a> {
        id: String,
        dialect: &'static str,
        user: &'a str,
        client: String,
        connected_at: String,
        rooms: Vec<&'a str>,
    }
    #[derive(Serialize)]
    struct Body<'a> {
        connections: Vec<View<'a>>,
    }
    let connections = views
        .iter()
        .map(|view| View {
            id: view.id.to_string(),
            dialect: match view.session {
                Session::Backend(_) => "backend",
                _ => view.session.dialect().as_str(),
            },
            user: &view.user,
            client: view.client.to_string(),
            connected_at: time::zulu(view.connected_at),
            rooms: view.rooms.iter().map(RoomName::as_str).collect(),
        })
        .collect();
    Response::json(200, json(&Body { connections }))
}

// ---- batches ------------------------------------------------------------------------------------------------------------

pub fn line(line: usize, facts: &Facts<'_>) -> Bytes {
    #[derive(Serialize)]
    struct Line<'a> {
        line: usize,
        #[serde(flatten)]
        facts: &'a Facts<'a>,
    }
    with_newline(&Line { line, facts })
}

pub fn bad_line(line: usize, fault: &Fault, facts: &Facts<'_>) -> Bytes {
    #[derive(Serialize)]
    struct Line<'a> {
        line: usize,
        #[serde(flatten)]
        facts: &'a Facts<'a>,
        error: Error<'a>,
    }
    #[derive(Serialize)]
    struct Error<'a> {
        code: &'static str,
        detail: &'a str,
    }
    with_newline(&Line { line, facts, error: Error { code: fault.code, detail: &fault.detail } })
}

fn with_newline(value: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

/// Strings, numbers and checked JSON always serialise; there is no failure to report.
fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// Stored JSON inside of ours. It was checked when it came; checked again, so that nothing stored can break a frame.
pub fn raw(json: &[u8]) -> &RawValue {
    serde_json::from_slice(json).unwrap_or(RawValue::NULL)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::super::testing::{response, text, with_task};
    use super::*;
    use crate::model::TaskKind;

    #[test]
    fn a_task_as_a_socket_and_a_poll_are_given_it() {
        let mut rows = with_task(TaskKind::Execute);
        let one = std::mem::take(&mut rows.tasks);
        let rest = concat!(
            r#""task":"1","kind":"execute","room":"session:7","attempt":1,"fence":1,"#,
            r#""at":"2025-05-13T01:59:00.123456Z","data":{"command":"pay"}}"#
        );
        assert_eq!(text(&task(&one[0])), format!(r#"{{"op":"task",{rest}"#));
        assert_eq!(response(&tasks(&one)), format!(r#"200 Cache-Control: no-store {{"tasks":[{{{rest}]}}"#));
        assert_eq!(response(&tasks(&[])), r#"200 Cache-Control: no-store {"tasks":[]}"#);
    }

    #[test]
    fn a_session_without_an_owner_names_none() {
        let mut record = Record {
            shelf: crate::model::Shelf::Session,
            id: "s".to_owned(),
            parent: String::new(),
            state: "active".to_owned(),
            due: None,
            created_at: crate::clock::Wall(0),
            updated_at: crate::clock::Wall(0),
            body: Bytes::from_static(b"{}"),
        };
        let shown = |record: &Record| text(&json(&Facts::of_session(record)));
        assert_eq!(shown(&record), r#"{"session":"s","created_at":"1970-01-01T00:00:00Z","state":"active"}"#);
        record.parent = "ann".to_owned();
        assert!(shown(&record).contains(r#""user_id":"ann""#));
    }

    #[test]
    fn an_approval_says_what_became_of_it() {
        let mut approval = approvals::Approval {
            id: "a".to_owned(),
            session: "s".to_owned(),
            execution_id: None,
            tool_name: "pay".to_owned(),
            tool_args: Value::Null,
            reason: None,
            amount: None,
            currency: None,
            digest: "d".to_owned(),
            created_at: crate::clock::Wall(0),
            expires_at: None,
            seq: Seq(4),
            decided: None,
        };
        let shown = |approval: &approvals::Approval| text(&said("ok", &Facts::of_approval(approval)));
        assert_eq!(
            shown(&approval),
            r#"{"op":"ok","session":"s","request_id":"a","seq":4,"digest":"d","state":"pending"}"#
        );
        approval.decided = Some(approvals::Decision {
            decision: "edited".to_owned(),
            by: "ann".to_owned(),
            at: crate::clock::Wall(0),
            seq: Seq(5),
            edited_args: Some(serde_json::json!({"n": 1})),
            reason: None,
        });
        assert_eq!(
            shown(&approval),
            concat!(
                r#"{"op":"ok","session":"s","request_id":"a","seq":4,"digest":"d","state":"edited","decision":"#,
                r#"{"decision":"edited","by":"ann","at":"1970-01-01T00:00:00Z","seq":5,"edited_args":{"n":1}}}"#
            )
        );
    }
}
