//! Changes, carried out in the writer's open transaction: records, events, tasks, and the reply that waits for the commit.
//!
//! A record, its event and its task stand or fall together: no ticket without a task, no task for a ticket that was never
//! announced. So the `ack` and the 200 say that a backend will hear of it, whatever breaks afterwards.

use bytes::Bytes;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::{LOGS, TICKETS, ledger, reads, wire};
use crate::auth::rights::Verb;
use crate::clock::Wall;
use crate::dialect::{Applied, Asker, Env, Failure, Reply, Write, json, time};
use crate::http::Response;
use crate::ids::{OpId, RoomName, Seq};
use crate::model::{Draft, Record, RowsError, Shelf, TaskKind, Transaction};
use crate::ws;

/// How often a job's number is drawn before the last one is taken: 32 bits are short enough to meet again in a long life.
const DRAWS_MAX: usize = 16;
/// Bytes of a session's id, which is a key of the mailbox.
pub const SESSION_ID_BYTES_MAX: usize = 1024;

#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A user's answer to a session; both are JSON texts.
    Respond {
        session_id: String,
        response: String,
    },
    Create {
        name: String,
        description: Option<String>,
    },
    Webhook {
        page_id: String,
        database_id: String,
        event_type: String,
    },
    Status {
        ticket: String,
        status: String,
    },
}

impl Change {
    pub fn verb(&self) -> Option<Verb> {
        Some(Verb::Write)
    }

    /// About how many bytes it brings to a transaction: record, event and task each hold it.
    pub fn weight(&self) -> usize {
        let bytes = match self {
            Change::Respond { session_id, response } => session_id.len() + response.len(),
            Change::Create { name, description } => name.len() + description.as_ref().map_or(0, String::len),
            Change::Webhook { page_id, database_id, event_type } => {
                page_id.len() + database_id.len() + event_type.len()
            }
            Change::Status { ticket, status } => ticket.len() + status.len(),
        };
        64 + 3 * bytes
    }
}

pub fn apply(
    change: &Change,
    write: &Write,
    asker: &Asker,
    rows: &mut dyn Transaction,
    env: &Env,
) -> Result<Applied, RowsError> {
    let op = write.op.as_ref();
    let reply = match change {
        Change::Respond { session_id, response } => {
            respond(session_id, response, asker, op, rows)?;
            Reply::Frame(ws::frame::text(&wire::ack(session_id)))
        }
        Change::Create { name, description } => create(name, description.as_deref(), asker, op, rows, env)?,
        Change::Webhook { page_id, database_id, event_type } => webhook(page_id, database_id, event_type, rows, env)?,
        Change::Status { ticket, status } => set_status(ticket, status, asker, op, rows)?,
    };
    Ok(Applied::only(reply))
}

/// Fixed words for what certainly was not stored; for what nobody knows, a close and no word that could be a lie (G3).
pub fn failed(change: &Change, failure: Failure) -> Reply {
    let reject = failure.reject();
    match (change, failure) {
        (Change::Respond { .. }, Failure::Unknown) => Reply::Close(reject),
        (Change::Respond { .. }, _) => Reply::Frame(ws::frame::text(&wire::error(&reject.detail))),
        _ => Reply::Response(Box::new(Response::reject(&reject))),
    }
}

/// One answer a session, the last one counts (B7). It waits in the mailbox, and a task brings it to whoever takes those.
pub fn respond(
    session_id: &str,
    response: &str,
    asker: &Asker,
    op: Option<&OpId>,
    rows: &mut dyn Transaction,
) -> Result<Seq, RowsError> {
    let (session_id, response) = (json::compact(session_id), json::compact(response));
    let answer = wire::answered(&session_id, &response, &asker.actor);
    let mut body = format!("{{\"type\":\"{}\",", wire::USER_RESPONSE).into_bytes();
    body.extend_from_slice(answer.get(1..).unwrap_or_default());
    let seq = append(TICKETS, wire::USER_RESPONSE, body.into(), asker, op, rows)?;
    let at = rows.at();
    rows.put_record(&Record {
        shelf: Shelf::Response,
        id: wire::text_of(&session_id),
        parent: String::new(),
        state: "waiting".to_owned(),
        due: None,
        created_at: at,
        updated_at: at,
        body: answer.clone(),
    })?;
    rows.put_task(TaskKind::Response, &RoomName::new(TICKETS), answer)?;
    Ok(seq)
}

fn create(
    name: &str,
    description: Option<&str>,
    asker: &Asker,
    op: Option<&OpId>,
    rows: &mut dyn Transaction,
    env: &Env,
) -> Result<Reply, RowsError> {
    #[derive(Serialize)]
    struct Task<'a> {
        ticket_id: &'a str,
        ticket_name: &'a str,
        description: Option<&'a str>,
        job_id: &'a str,
        clients: usize,
    }
    #[derive(Serialize)]
    struct Created<'a> {
        ticket_id: &'a str,
        ticket_name: &'a str,
        job_id: &'a str,
        status: &'static str,
    }
    let (ticket_id, job_id) = (uuid(rows.random()), new_job(rows)?);
    ledger::put_ticket(&ticket_id, name, description, Some(&job_id), rows)?;
    ledger::put_job(&job_id, &ticket_id, ledger::RUNNING, rows)?;
    let event = wire::ticket_created(&ticket_id, name, &time::utc(rows.at()));
    append(TICKETS, wire::TICKET_CREATED, event, asker, op, rows)?;
    let room = RoomName::new(TICKETS);
    let task = Task {
        ticket_id: &ticket_id,
        ticket_name: name,
        description,
        job_id: &job_id,
        clients: env.directory.count(&room),
    };
    rows.put_task(TaskKind::Ticket, &room, wire::written(&task))?;
    Ok(answer(&Created { ticket_id: &ticket_id, ticket_name: name, job_id: &job_id, status: "queued" }))
}

/// The page is the ticket. Nobody is told: Notion's users know.
fn webhook(
    page_id: &str,
    database_id: &str,
    event_type: &str,
    rows: &mut dyn Transaction,
    env: &Env,
) -> Result<Reply, RowsError> {
    #[derive(Serialize)]
    struct Task<'a> {
        page_id: &'a str,
        database_id: &'a str,
        event_type: &'a str,
        job_id: &'a str,
        clients: usize,
    }
    #[derive(Serialize)]
    struct Queued<'a> {
        job_id: &'a str,
        status: &'static str,
        ticket_id: &'a str,
    }
    let job_id = new_job(rows)?;
    ledger::put_job(&job_id, page_id, ledger::RUNNING, rows)?;
    let room = RoomName::new(TICKETS);
    let task = Task { page_id, database_id, event_type, job_id: &job_id, clients: env.directory.count(&room) };
    rows.put_task(TaskKind::Webhook, &room, wire::written(&task))?;
    Ok(answer(&Queued { job_id: &job_id, status: "queued", ticket_id: page_id }))
}

fn set_status(
    ticket: &str,
    status: &str,
    asker: &Asker,
    op: Option<&OpId>,
    rows: &mut dyn Transaction,
) -> Result<Reply, RowsError> {
    #[derive(Serialize)]
    struct Set<'a> {
        success: bool,
        ticket_id: &'a str,
        status: &'a str,
    }
    if !ledger::move_ticket(ticket, status, rows)? {
        return Ok(Reply::Response(Box::new(reads::no_such_ticket())));
    }
    let event = wire::status_change(ticket, status, &local(rows.at()));
    append(LOGS, wire::STATUS_CHANGE, event, asker, op, rows)?;
    Ok(answer(&Set { success: true, ticket_id: ticket, status }))
}

/// The dashboard's own spelling: its machine's wall, without saying where that hangs.
pub fn local(at: Wall) -> String {
    time::naive(at, &TimeZone::system())
}

pub fn append(
    room: &str,
    kind: &str,
    body: Bytes,
    asker: &Asker,
    op: Option<&OpId>,
    rows: &mut dyn Transaction,
) -> Result<Seq, RowsError> {
    let draft = Draft { room: RoomName::new(room), kind: kind.to_owned().into(), body };
    rows.append(draft, &asker.actor, op, asker.origin)
}

fn answer<T: Serialize>(body: &T) -> Reply {
    Reply::Response(Box::new(Response::json(200, wire::written(body))))
}

fn new_job(rows: &mut dyn Transaction) -> Result<String, RowsError> {
    let mut id = String::new();
    for _ in 0..DRAWS_MAX {
        id = format!("job-{:08x}", rows.random() as u32);
        if rows.record(Shelf::Job, &id)?.is_none() {
            break;
        }
    }
    Ok(id)
}

/// Version 4, variant 1 (RFC 9562).
fn uuid(random: u128) -> String {
    let bits = random & !(0xf << 76) & !(0b11 << 62) | (0x4 << 76) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    let (a, rest) = hex.split_at(8);
    let (b, rest) = rest.split_at(4);
    let (c, rest) = rest.split_at(4);
    let (d, e) = rest.split_at(4);
    format!("{a}-{b}-{c}-{d}-{e}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::dialect::fake::Fake;
    use crate::dialect::{self};
    use crate::model::Rows;

    fn carry_out(rows: &mut Fake, change: Change, env: &Env) -> Applied {
        let write = Write { room: RoomName::new(TICKETS), op: None, change: dialect::Change::Tickets(change.clone()) };
        let asker = Asker { actor: "a\"nn".into(), origin: 9, verified: false };
        apply(&change, &write, &asker, rows, env).unwrap()
    }

    fn respond_with(session_id: &str, response: &str) -> Change {
        Change::Respond { session_id: session_id.to_owned(), response: response.to_owned() }
    }

    fn framed(payload: &str) -> Reply {
        Reply::Frame(ws::frame::text(payload.as_bytes()))
    }

    fn said(applied: &Applied) -> (u16, String) {
        let Reply::Response(response) = &applied.reply else { panic!("{:?}", applied.reply) };
        (response.status, String::from_utf8(response.body.to_vec()).unwrap())
    }

    /// Members of `tickets`: two on one reactor, one on another.
    fn env() -> Env {
        let env = Env::default();
        let room = RoomName::new(TICKETS);
        for (reactor, members) in [(0, 2), (1, 1)] {
            env.directory.enter(&room, reactor, 4);
            env.directory.set_members(&room, reactor, members);
        }
        env
    }

    #[test]
    fn b8_an_answer_is_stored_announced_and_given_out_before_its_ack() {
        let mut rows = Fake::with(&[]);
        let applied = carry_out(&mut rows, respond_with(r#""s 1""#, r#""yes""#), &Env::default());
        assert_eq!(applied, Applied::only(framed(r#"{"type":"ack","session_id":"s 1","status":"received"}"#)));
        let answer = r#""session_id":"s 1","response":"yes","by":"a\"nn"}"#;
        assert_eq!(rows.told("tickets"), [format!(r#"user_response {{"type":"user_response",{answer}"#)]);
        assert_eq!(rows.given(), [format!("response {{{answer}")]);
        let record = rows.record(Shelf::Response, "s 1").unwrap().unwrap();
        assert_eq!(record.body, format!("{{{answer}"));
        let event = &rows.log["tickets"][0];
        assert_eq!((&*event.actor, event.origin, &event.body[..1]), ("a\"nn", 9, &b"{"[..]));
    }

    #[test]
    fn b7_the_last_answer_wins_and_each_says_by_whom() {
        let mut rows = Fake::with(&[]);
        for response in ["1", r#"{"a": "b c"}"#] {
            carry_out(&mut rows, respond_with("7", response), &Env::default());
        }
        assert_eq!(rows.records.len(), 1);
        assert_eq!(rows.records[0].body, r#"{"session_id":7,"response":{"a":"b c"},"by":"a\"nn"}"#);
        assert_eq!(rows.tasks.len(), 2, "each is given out");
    }

    #[test]
    fn an_ack_echoes_the_session_s_id_byte_for_byte() {
        let mut rows = Fake::with(&[]);
        for id in [r#""\u00e9""#, "7.0", r#"{"b": 1, "a": [ ]}"#, "true", "1e3", "12345678901234567890123"] {
            let applied = carry_out(&mut rows, respond_with(id, "1"), &Env::default());
            let ack = format!(r#"{{"type":"ack","session_id":{id},"status":"received"}}"#);
            assert_eq!(applied.reply, framed(&ack));
        }
    }

    #[test]
    fn b4_a_ticket_is_a_row_a_job_an_event_and_a_task_with_a_truthful_count() {
        let mut rows = Fake::with(&[]);
        let create = Change::Create { name: "N \"q\"".to_owned(), description: Some("D".to_owned()) };
        let (status, body) = said(&carry_out(&mut rows, create, &env()));
        let id = "00000000-0000-4000-8000-000000000001";
        let reply = r#""ticket_name":"N \"q\"","job_id":"job-00000002","status":"queued"}"#;
        assert_eq!((status, body), (200, format!(r#"{{"ticket_id":"{id}",{reply}"#)));
        let event = r#""ticket_name":"N \"q\"","timestamp":"2025-05-13T01:59:00.123456+00:00"}"#;
        assert_eq!(
            rows.told("tickets"),
            [format!(r#"ticket_created {{"type":"ticket_created","ticket_id":"{id}",{event}"#)]
        );
        let task = r#""ticket_name":"N \"q\"","description":"D","job_id":"job-00000002","clients":3}"#;
        assert_eq!(rows.given(), [format!(r#"ticket {{"ticket_id":"{id}",{task}"#)]);
        let ticket = rows.record(Shelf::Ticket, id).unwrap().unwrap();
        assert_eq!(ticket.state, "pending");
        let job = rows.record(Shelf::Job, "job-00000002").unwrap().unwrap();
        assert_eq!((&*job.parent, &*job.state), (id, "running"));
    }

    #[test]
    fn a_webhook_is_a_job_and_a_task_and_announces_nothing() {
        let mut rows = Fake::with(&[]);
        let webhook =
            Change::Webhook { page_id: "p".to_owned(), database_id: "d".to_owned(), event_type: "e".to_owned() };
        let applied = carry_out(&mut rows, webhook, &Env::default());
        let body = r#"{"job_id":"job-00000001","status":"queued","ticket_id":"p"}"#;
        assert_eq!(said(&applied), (200, body.to_owned()));
        let task = r#"webhook {"page_id":"p","database_id":"d","event_type":"e","job_id":"job-00000001","clients":0}"#;
        assert_eq!(rows.given(), [task]);
        assert!(rows.log.is_empty());
    }

    #[test]
    fn a_job_s_number_is_drawn_until_it_is_new() {
        let mut rows = Fake::with(&[]);
        for taken in ["job-00000001", "job-00000002"] {
            ledger::put_job(taken, "", "running", &mut rows).unwrap();
        }
        assert_eq!(new_job(&mut rows).unwrap(), "job-00000003");
    }

    #[test]
    fn a_status_is_told_on_the_logs_socket() {
        let mut rows = Fake::with(&[]);
        let status = |ticket: &str| Change::Status { ticket: ticket.to_owned(), status: "done".to_owned() };
        let missing = (404, r#"{"detail":"Ticket not found"}"#.to_owned());
        assert_eq!(said(&carry_out(&mut rows, status("t"), &Env::default())), missing);
        assert!(rows.log.is_empty());
        ledger::put_ticket("t", "N", None, None, &mut rows).unwrap();
        let set = (200, r#"{"success":true,"ticket_id":"t","status":"done"}"#.to_owned());
        assert_eq!(said(&carry_out(&mut rows, status("t"), &Env::default())), set);
        let event = format!(
            r#"status_change {{"type":"status_change","ticket_id":"t","status":"done","timestamp":"{}"}}"#,
            local(rows.at)
        );
        assert_eq!(rows.told("logs"), [event]);
        assert_eq!(rows.record(Shelf::Ticket, "t").unwrap().unwrap().state, "done");
    }

    #[test]
    fn a_ticket_s_id_is_a_random_uuid() {
        assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef), "01234567-89ab-4def-8123-456789abcdef");
    }

    #[test]
    fn g3_what_nobody_knows_is_never_called_a_refusal() {
        let answer = respond_with("1", "1");
        for failure in [Failure::Busy, Failure::Full, Failure::Broken, Failure::Forbidden] {
            let error = format!(r#"{{"type":"error","message":"{}"}}"#, failure.reject().detail);
            assert_eq!(failed(&answer, failure), framed(&error));
        }
        assert_eq!(failed(&answer, Failure::Unknown), Reply::Close(Failure::Unknown.reject()));
        let create = Change::Create { name: "N".to_owned(), description: None };
        for (failure, status) in [(Failure::Busy, 503), (Failure::Full, 507), (Failure::Unknown, 504)] {
            let Reply::Response(response) = failed(&create, failure) else { panic!() };
            assert_eq!(response.status, status);
        }
    }
}
