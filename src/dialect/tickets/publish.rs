//! Events from native clients and backends: every type passes through, and some mean something here.

use super::writes::SESSION_ID_BYTES_MAX;
use super::{TICKETS, ledger, wire, writes};
use crate::dialect::publish::{Outcome, Publish, Published, Refusal};
use crate::dialect::{Asker, Env, time};
use crate::ids::OpId;
use crate::model::{RowsError, Transaction};

/// The types that have a time, which is added when it is missing. `agent_complete` and `agent_error` have none, and what
/// nobody knows is let be.
const STAMPED: &[&str] =
    &[wire::TICKET_CREATED, "agent_started", "agent_message", "tool_execution", "agent_question", "tool_call"];

pub fn publish(
    publish: &Publish,
    asker: &Asker,
    op: Option<&OpId>,
    rows: &mut dyn Transaction,
    _env: &Env,
) -> Result<Outcome, RowsError> {
    if publish.if_rev.is_some() {
        return Ok(Err(Refusal::bad("no_revision", "this room has no revision")));
    }
    let text = std::str::from_utf8(&publish.data).unwrap_or_default();
    let Some(object) = wire::parse(text) else {
        return Ok(Err(Refusal::bad("bad_data", "data must be a JSON object of at most 32 levels")));
    };
    if object.get("type").is_some() && object.text("type").as_deref() != Some(&*publish.kind) {
        return Ok(Err(Refusal::bad("bad_data", "data names another type")));
    }
    let is_tickets = publish.room.as_str() == TICKETS;
    match &*publish.kind {
        wire::USER_RESPONSE if is_tickets => {
            let (Some(session_id), Some(response)) =
                (wire::truthy(&object, "session_id"), wire::truthy(&object, "response"))
            else {
                return Ok(Err(Refusal::bad("bad_data", "session_id and response must not be empty")));
            };
            if session_id.len() > SESSION_ID_BYTES_MAX {
                return Ok(Err(Refusal::bad("bad_data", "session_id is longer than 1024 bytes")));
            }
            let seq = writes::respond(session_id, response, asker, op, rows)?;
            return Ok(Ok(Published::at(seq)));
        }
        wire::JOB if is_tickets && (ledger::name(&object, "job_id").is_none() || ledger::status(&object).is_none()) => {
            return Ok(Err(Refusal::bad("bad_data", "job_id and status must be strings that are not empty")));
        }
        _ => {}
    }
    let stamp = match &*publish.kind {
        wire::STATUS_CHANGE => Some(writes::local(rows.at())),
        kind if STAMPED.contains(&kind) => Some(time::utc(rows.at())),
        _ => None,
    };
    ledger::heed(&publish.kind, &object, rows)?;
    let body = wire::passed_on(&publish.kind, object, stamp);
    let seq = writes::append(publish.room.as_str(), &publish.kind, body, asker, op, rows)?;
    Ok(Ok(Published::at(seq)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::dialect::fake::Fake;
    use crate::ids::{RoomName, Seq};
    use crate::model::{Rows, Shelf};
    use bytes::Bytes;

    fn publish_to(rows: &mut Fake, room: &str, kind: &str, data: &str) -> Outcome {
        let asker = Asker { actor: "ann".into(), origin: 0, verified: false };
        let data = Bytes::copy_from_slice(data.as_bytes());
        let wanted = Publish { room: RoomName::new(room), kind: kind.to_owned(), data, if_rev: None };
        publish(&wanted, &asker, None, rows, &Env::default()).unwrap()
    }

    fn state(rows: &mut Fake, shelf: Shelf, id: &str) -> Option<String> {
        rows.record(shelf, id).unwrap().map(|record| record.state)
    }

    #[test]
    fn every_type_passes_through_with_its_time() {
        let mut rows = Fake::with(&[]);
        let t = r#""timestamp":"2025-05-13T01:59:00.123456+00:00"}"#;
        for (kind, data, expected) in [
            ("ticket_created", r#"{"ticket_id":"t","ticket_name":"N"}"#, format!(r#"{{"type":"ticket_created","ticket_id":"t","ticket_name":"N",{t}"#)),
            (
                "agent_started",
                r#"{"ticket_id":"t","ticket_name":"N","session_id":"s"}"#,
                format!(r#"{{"type":"agent_started","ticket_id":"t","ticket_name":"N","session_id":"s",{t}"#),
            ),
            (
                "agent_message",
                r#"{"session_id":"s","ticket_id":"t","content":"é?","timestamp":"mine","turn":0,"message_type":"question"}"#,
                r#"{"type":"agent_message","session_id":"s","ticket_id":"t","content":"é?","timestamp":"mine","turn":0,"message_type":"question"}"#.to_owned(),
            ),
            (
                "tool_execution",
                r#"{ "tool_input": {"command": "ls"}, "tool_output": "a\n[stderr]\nb" }"#,
                format!(r#"{{"type":"tool_execution","tool_input":{{"command":"ls"}},"tool_output":"a\n[stderr]\nb",{t}"#),
            ),
            ("agent_question", r#"{"content":"c"}"#, format!(r#"{{"type":"agent_question","content":"c",{t}"#)),
            ("tool_call", r#"{"output_type":"terminal"}"#, format!(r#"{{"type":"tool_call","output_type":"terminal",{t}"#)),
            (
                "agent_complete",
                r#"{"job_id":"j","ticket_id":"t","status":"error"}"#,
                r#"{"type":"agent_complete","job_id":"j","ticket_id":"t","status":"error"}"#.to_owned(),
            ),
            ("agent_error", r#"{"job_id":"j","error":"<x>"}"#, r#"{"type":"agent_error","job_id":"j","error":"<x>"}"#.to_owned()),
            ("anything", r#"{"b":1,"a":{},"type":"anything"}"#, r#"{"type":"anything","b":1,"a":{}}"#.to_owned()),
        ] {
            for room in ["tickets", "logs"] {
                let seq = publish_to(&mut rows, room, kind, data).unwrap().seq;
                assert_eq!(rows.log[room].last().unwrap().seq, seq);
                assert_eq!(rows.told(room).pop().unwrap(), format!("{kind} {expected}"));
            }
        }
        publish_to(&mut rows, "logs", "status_change", r#"{"ticket_id":"t","status":"done"}"#).unwrap();
        let local = writes::local(rows.at);
        let expected = format!(r#"{{"type":"status_change","ticket_id":"t","status":"done","timestamp":"{local}"}}"#);
        assert_eq!(rows.told("logs").pop().unwrap(), format!("status_change {expected}"));
    }

    #[test]
    fn b10_b11_jobs_and_tickets_follow_what_backends_say() {
        let mut rows = Fake::with(&[]);
        let mut say = |kind: &str, data: &str| {
            publish_to(&mut rows, "tickets", kind, data).unwrap();
            let job = state(&mut rows, Shelf::Job, "j").unwrap_or_default();
            format!("{job} {}", state(&mut rows, Shelf::Ticket, "t").unwrap_or_default())
        };
        assert_eq!(say("ticket_created", r#"{"ticket_id":"t","ticket_name":"N"}"#), " pending");
        assert_eq!(say("job", r#"{"job_id":"j","status":"claimed","ticket_id":"t"}"#), "claimed pending");
        assert_eq!(say("agent_started", r#"{"ticket_id":"t"}"#), "claimed running");
        assert_eq!(say("agent_error", r#"{"job_id":"j","error":"x"}"#), "error error", "by the job's own ticket");
        assert_eq!(
            say("agent_complete", r#"{"job_id":"j","ticket_id":"t","status":"completed"}"#),
            "completed completed"
        );
        assert_eq!(say("ticket_created", r#"{"ticket_id":"t","ticket_name":"again"}"#), "completed completed");
        assert_eq!(say("status_change", r#"{"ticket_id":"t","status":"reviewed"}"#), "completed reviewed");
        assert_eq!(say("agent_complete", r#"{"job_id":7,"ticket_id":{},"status":[]}"#), "completed reviewed");
        assert_eq!(rows.records.len(), 2);
    }

    #[test]
    fn an_answer_by_another_way_is_the_same_answer() {
        let mut rows = Fake::with(&[]);
        publish_to(&mut rows, "tickets", "user_response", r#"{"session_id": 7, "response": {"a": 1}}"#).unwrap();
        let answer = r#"{"session_id":7,"response":{"a":1},"by":"ann"}"#;
        assert_eq!(rows.given(), [format!("response {answer}")]);
        assert_eq!((&*rows.records[0].id, &rows.records[0].body[..]), ("7", answer.as_bytes()));
    }

    #[test]
    fn refusals_have_written_nothing() {
        let mut rows = Fake::with(&[]);
        let long = format!(r#"{{"session_id":"{}","response":"r"}}"#, "s".repeat(1023));
        for (kind, data, why) in [
            ("x", "[]", "data must be a JSON object of at most 32 levels"),
            ("x", "nonsense", "data must be a JSON object of at most 32 levels"),
            ("x", r#"{"type":"y"}"#, "data names another type"),
            ("x", r#"{"type":null}"#, "data names another type"),
            ("user_response", r#"{"session_id":"s","response":""}"#, "session_id and response must not be empty"),
            ("user_response", &long, "session_id is longer than 1024 bytes"),
            ("job", r#"{"job_id":"j"}"#, "job_id and status must be strings that are not empty"),
            ("job", r#"{"job_id":"","status":"x"}"#, "job_id and status must be strings that are not empty"),
        ] {
            assert_eq!(
                publish_to(&mut rows, "tickets", kind, data),
                Err(Refusal::bad("bad_data", why)),
                "{kind} {data}"
            );
        }
        let room = RoomName::new("tickets");
        let wanted = Publish { room, kind: "x".to_owned(), data: Bytes::from_static(b"{}"), if_rev: Some(0) };
        let asker = Asker { actor: "ann".into(), origin: 0, verified: false };
        let refused = publish(&wanted, &asker, None, &mut rows, &Env::default()).unwrap();
        assert_eq!(refused, Err(Refusal::bad("no_revision", "this room has no revision")));
        assert!(rows.log.is_empty() && rows.records.is_empty() && rows.tasks.is_empty());
        assert_eq!(
            publish_to(&mut rows, "logs", "user_response", "{}").unwrap().seq,
            Seq(1),
            "an event like any other"
        );
    }
}
