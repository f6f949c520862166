//! Questions to one snapshot, and their answers: where a socket starts, a job's state, the dashboard's views.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::Serialize;

use super::{LOGS, TICKETS, faults, ledger, wire};
use crate::dialect::json::{Object, quoted};
use crate::dialect::{Env, Failure, Reply, Start, time};
use crate::directory::{Directory, Stand};
use crate::http::Response;
use crate::ids::{RoomName, Seq};
use crate::limits::{PAGE_BYTES_MAX, PAGE_EVENTS_MAX};
use crate::model::{Record, Rows, RowsError, Shelf};
use crate::ws;

/// Tickets of one listing, and the bytes after which it ends early.
pub const LISTED_MAX: usize = 500;
const LISTED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Tickets read at a time: a description may be a megabyte.
const LISTED_CHUNK: usize = 16;
/// How far back a conversation is looked for, in events and in bytes of them.
const CONVERSATION_EVENTS_MAX: u64 = 10_000;
const CONVERSATION_BYTES_MAX: usize = 16 * 1024 * 1024;

#[derive(Clone, Debug, PartialEq)]
pub enum Read {
    /// From where a socket is shown its room; `since` only when it asked for what it missed.
    Start {
        room: RoomName,
        since: Option<Seq>,
    },
    Job {
        id: String,
    },
    Tickets {
        state: Option<String>,
        skip: usize,
        count: usize,
    },
    Stats,
    Conversation {
        ticket: String,
    },
}

pub fn read(read: &Read, rows: &mut dyn Rows, env: &Env) -> Result<Reply, RowsError> {
    let response = match read {
        Read::Start { room, since } => return start(room, *since, rows),
        Read::Job { id } => job(id, &ledger::job_state(id, rows)?),
        Read::Tickets { state, skip, count } => tickets(state.as_deref(), *skip, *count, rows)?,
        Read::Stats => stats(rows, env)?,
        Read::Conversation { ticket } => conversation(ticket, rows)?,
    };
    Ok(Reply::Response(Box::new(response)))
}

/// A socket that could not be told where it starts is closed, not left in a room of which it hears nothing.
pub fn read_failed(read: &Read, failure: Failure) -> Reply {
    let reject = failure.reject();
    match read {
        Read::Start { .. } => Reply::Close(reject),
        _ => Reply::Response(Box::new(Response::reject(&reject))),
    }
}

/// Nothing is said to who asked for nothing (B1). What the log no longer holds cannot be replayed: then `after` is later
/// than what was asked for.
fn start(room: &RoomName, since: Option<Seq>, rows: &mut dyn Rows) -> Result<Reply, RowsError> {
    let row = rows.room(room.as_str())?;
    let (floor, head) = row.map_or((Seq(0), Seq(0)), |row| (row.floor, row.head));
    let stand = Some(Stand { epoch: row.map(|row| row.epoch), head, floor, rev: None });
    let Some(since) = since else {
        return Ok(Reply::Welcome { frame: Bytes::new(), starts: vec![Start::live(room.clone(), head)], stand });
    };
    let after = since.max(floor).min(head);
    let frame = ws::frame::text(&wire::resumed(after.0, head.0));
    Ok(Reply::Welcome { frame, starts: vec![Start { room: room.clone(), after, head }], stand })
}

/// Where a socket that asked for nothing starts, when it is known where its room stands.
pub fn welcome_back(read: &Read, directory: &Directory) -> Option<Reply> {
    let Read::Start { room, since: None } = read else { return None };
    let starts = vec![Start::live(room.clone(), directory.stand(room)?.head)];
    Some(Reply::Welcome { frame: Bytes::new(), starts, stand: None })
}

fn job(job_id: &str, status: &str) -> Response {
    #[derive(Serialize)]
    struct Job<'a> {
        job_id: &'a str,
        status: &'a str,
    }
    Response::json(200, wire::written(&Job { job_id, status }))
}

fn tickets(state: Option<&str>, skip: usize, count: usize, rows: &mut dyn Rows) -> Result<Response, RowsError> {
    let total = rows.count_records(Shelf::Ticket, None, state)?;
    let mut out = b"{\"tickets\":[".to_vec();
    let mut listed = 0;
    while listed < count.min(LISTED_MAX) && out.len() < LISTED_BYTES_MAX {
        let wanted = LISTED_CHUNK.min(count.min(LISTED_MAX) - listed);
        let records = rows.records(Shelf::Ticket, None, state, skip.saturating_add(listed), wanted)?;
        for record in &records {
            if listed > 0 {
                out.push(b',');
            }
            put_ticket(&mut out, record);
            listed += 1;
        }
        if records.len() < wanted {
            break;
        }
    }
    out.extend_from_slice(format!("],\"total\":{total}}}").as_bytes());
    Ok(Response::json(200, out))
}

/// A ticket's stored object with what changes behind it.
fn put_ticket(out: &mut Vec<u8>, record: &Record) {
    #[derive(Serialize)]
    struct Changing<'a> {
        status: &'a str,
        created_at: String,
        updated_at: String,
    }
    let changing = wire::written(&Changing {
        status: &record.state,
        created_at: time::utc(record.created_at),
        updated_at: time::utc(record.updated_at),
    });
    let stored = record.body.strip_suffix(b"}").filter(|stored| stored.len() > 1);
    match (stored, changing.strip_prefix(b"{")) {
        (Some(stored), Some(changing)) => {
            out.extend_from_slice(stored);
            out.push(b',');
            out.extend_from_slice(changing);
        }
        _ => out.extend_from_slice(&changing),
    }
}

/// `clients` is who sits there now, not who ever did (B4).
fn stats(rows: &mut dyn Rows, env: &Env) -> Result<Response, RowsError> {
    #[derive(Serialize)]
    struct Stats {
        total: usize,
        pending: usize,
        running: usize,
        completed: usize,
        error: usize,
        other: usize,
        clients: usize,
        log_clients: usize,
    }
    let mut count = |state| rows.count_records(Shelf::Ticket, None, state);
    let total = count(None)?;
    let (pending, running) = (count(Some(ledger::PENDING))?, count(Some(ledger::RUNNING))?);
    let (completed, error) = (count(Some(ledger::COMPLETED))?, count(Some(ledger::ERROR))?);
    Ok(Response::json(
        200,
        wire::written(&Stats {
            total,
            pending,
            running,
            completed,
            error,
            other: total.saturating_sub(pending + running + completed + error),
            clients: env.directory.count(&RoomName::new(TICKETS)),
            log_clients: env.directory.count(&RoomName::new(LOGS)),
        }),
    ))
}

/// What was said about a ticket: the events that name it, and those of the sessions that such an event named.
fn conversation(ticket: &str, rows: &mut dyn Rows) -> Result<Response, RowsError> {
    let (floor, head) = rows.room(TICKETS)?.map_or((Seq(0), Seq(0)), |row| (row.floor, row.head));
    let mut after = floor.max(Seq(head.0.saturating_sub(CONVERSATION_EVENTS_MAX)));
    let mut sessions = BTreeSet::new();
    let mut messages: Vec<u8> = Vec::new();
    let mut looked_at = 0;
    let mut truncated = after > Seq(0);
    while after < head {
        let events = rows.events(TICKETS, after, PAGE_EVENTS_MAX, PAGE_BYTES_MAX)?;
        let Some(last) = events.last() else { break };
        after = last.seq;
        for event in &events {
            looked_at += event.body.len();
            if !belongs(ticket, &event.body, &mut sessions) {
                continue;
            }
            if !messages.is_empty() {
                messages.push(b',');
            }
            messages.extend_from_slice(&event.body);
        }
        if looked_at > CONVERSATION_BYTES_MAX {
            truncated |= after < head;
            break;
        }
    }
    if messages.is_empty() && rows.record(Shelf::Ticket, ticket)?.is_none() {
        return Ok(no_such_ticket());
    }
    let mut out = format!("{{\"ticket_id\":{},\"messages\":[", quoted(ticket)).into_bytes();
    out.extend_from_slice(&messages);
    out.extend_from_slice(format!("],\"truncated\":{truncated}}}").as_bytes());
    Ok(Response::json(200, out))
}

fn belongs(ticket: &str, body: &[u8], sessions: &mut BTreeSet<String>) -> bool {
    let Some(fields) = std::str::from_utf8(body).ok().and_then(Object::parse) else {
        return false;
    };
    let session = wire::truthy(&fields, "session_id").map(wire::text_of);
    match fields.get("ticket_id").map(wire::text_of) {
        Some(id) if id == ticket => {
            sessions.extend(session);
            true
        }
        Some(_) => false,
        None => session.is_some_and(|session| sessions.contains(&session)),
    }
}

pub fn no_such_ticket() -> Response {
    faults::detail(404, "Ticket not found")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::dialect::fake::Fake;
    use crate::model::{Draft, Transaction};

    fn asked(rows: &mut Fake, read: Read) -> (u16, String) {
        let Reply::Response(response) = super::read(&read, rows, &Env::default()).unwrap() else { panic!("{read:?}") };
        (response.status, String::from_utf8(response.body.to_vec()).unwrap())
    }

    fn say(rows: &mut Fake, body: &str) {
        let room = RoomName::new(TICKETS);
        let draft = Draft { room, kind: "x".into(), body: Bytes::copy_from_slice(body.as_bytes()) };
        rows.append(draft, &"ann".into(), None, 0).unwrap();
    }

    #[test]
    fn b1_a_socket_starts_in_silence_and_replays_only_when_asked() {
        let mut rows = Fake::with(&[]);
        let room = RoomName::new(TICKETS);
        let start = |rows: &mut Fake, since: Option<u64>| {
            let read = Read::Start { room: room.clone(), since: since.map(Seq) };
            let Reply::Welcome { frame, starts, .. } = super::read(&read, rows, &Env::default()).unwrap() else {
                panic!()
            };
            let frame = String::from_utf8(frame.iter().skip(2).copied().collect()).unwrap();
            (frame, starts[0].after.0, starts[0].head.0)
        };
        assert_eq!(start(&mut rows, None), (String::new(), 0, 0), "a room that nobody wrote in");
        for _ in 0..3 {
            say(&mut rows, "{}");
        }
        assert_eq!(start(&mut rows, None), (String::new(), 3, 3));
        for (since, after) in [(0, 0), (2, 2), (3, 3), (u64::MAX, 3)] {
            let frame = format!(r#"{{"type":"resumed","after":{after},"head":3}}"#);
            assert_eq!(start(&mut rows, Some(since)), (frame, after, 3), "{since}");
        }
    }

    #[test]
    fn b10_a_job_that_nobody_speaks_of_is_running() {
        let mut rows = Fake::with(&[]);
        let job = |rows: &mut Fake, id: &str| asked(rows, Read::Job { id: id.to_owned() });
        let running = (200, r#"{"job_id":"job-\"1","status":"running"}"#.to_owned());
        assert_eq!(job(&mut rows, "job-\"1"), running);
        ledger::put_job("j", "", "completed", &mut rows).unwrap();
        assert_eq!(job(&mut rows, "j"), (200, r#"{"job_id":"j","status":"completed"}"#.to_owned()));
    }

    #[test]
    fn tickets_are_listed_in_their_order_and_counted() {
        let mut rows = Fake::with(&[]);
        for number in 0..40 {
            ledger::put_ticket(&format!("t{number}"), "N", None, None, &mut rows).unwrap();
        }
        ledger::move_ticket("t7", "odd", &mut rows).unwrap();
        let list = |rows: &mut Fake, state: Option<&str>, skip, count| {
            asked(rows, Read::Tickets { state: state.map(str::to_owned), skip, count }).1
        };
        let stamps =
            r#""created_at":"2025-05-13T01:59:00.123456+00:00","updated_at":"2025-05-13T01:59:00.123456+00:00"}"#;
        let one =
            format!(r#"{{"ticket_id":"t7","ticket_name":"N","description":null,"job_id":null,"status":"odd",{stamps}"#);
        assert_eq!(list(&mut rows, Some("odd"), 0, 10), format!(r#"{{"tickets":[{one}],"total":1}}"#));
        assert_eq!(list(&mut rows, None, 7, 1), format!(r#"{{"tickets":[{one}],"total":40}}"#));
        assert_eq!(list(&mut rows, None, 0, 0), r#"{"tickets":[],"total":40}"#);
        assert_eq!(list(&mut rows, None, usize::MAX, 5), r#"{"tickets":[],"total":40}"#);
        let all: serde_json::Value = serde_json::from_str(&list(&mut rows, None, 1, LISTED_MAX)).unwrap();
        let ids: Vec<&str> =
            all["tickets"].as_array().unwrap().iter().map(|one| one["ticket_id"].as_str().unwrap()).collect();
        assert_eq!((ids.len(), ids[0], ids[38]), (39, "t1", "t39"));
        let stats =
            r#"{"total":40,"pending":39,"running":0,"completed":0,"error":0,"other":1,"clients":0,"log_clients":0}"#;
        assert_eq!(asked(&mut rows, Read::Stats), (200, stats.to_owned()));
    }

    #[test]
    fn a_conversation_is_what_named_the_ticket_or_its_sessions() {
        let mut rows = Fake::with(&[]);
        let theirs = [
            r#"{"type":"agent_started","ticket_id":"t","session_id":"s"}"#,
            r#"{"type":"tool_call","session_id":"s"}"#,
            r#"{"type":"user_response","session_id":"s","response":"yes"}"#,
        ];
        for body in [
            r#"{"type":"tool_call","session_id":"s"}"#,
            theirs[0],
            r#"{"type":"agent_started","ticket_id":"other","session_id":"s"}"#,
            theirs[1],
            r#"{"type":"tool_call","session_id":"z"}"#,
            theirs[2],
            r#"{"type":"agent_error","job_id":"t"}"#,
        ] {
            say(&mut rows, body);
        }
        let conversation = |rows: &mut Fake, id: &str| asked(rows, Read::Conversation { ticket: id.to_owned() });
        let expected = format!(r#"{{"ticket_id":"t","messages":[{}],"truncated":false}}"#, theirs.join(","));
        assert_eq!(conversation(&mut rows, "t"), (200, expected));
        assert_eq!(conversation(&mut rows, "none"), (404, r#"{"detail":"Ticket not found"}"#.to_owned()));
        ledger::put_ticket("quiet", "N", None, None, &mut rows).unwrap();
        let empty = r#"{"ticket_id":"quiet","messages":[],"truncated":false}"#;
        assert_eq!(conversation(&mut rows, "quiet"), (200, empty.to_owned()));
    }

    #[test]
    fn a_socket_without_a_start_is_closed_and_a_request_is_told() {
        let start = Read::Start { room: RoomName::new(TICKETS), since: None };
        assert_eq!(read_failed(&start, Failure::Busy), Reply::Close(Failure::Busy.reject()));
        let Reply::Response(response) = read_failed(&Read::Stats, Failure::Busy) else { panic!() };
        assert_eq!(response.status, 503);
    }
}
