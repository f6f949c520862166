//! What may be published into a session: events of a run, in an order that makes sense.
//!
//! | type | |
//! |---|---|
//! | `execute`, `cancel` | as a client's message: begins a run, ends one |
//! | `approval_required` | a request for a decision (approvals) |
//! | `thinking`, `tool_call`, `tool_result`, `subagent_start`, `subagent_end` | in a run that goes on |
//! | `complete`, `error` | ends it; an `error` with `"terminal": false` does not |
//! | any other | refused: the decisions' events are the server's own, and pages know no further types |
//!
//! Refused at the publisher, with a reason, rather than shown to everybody: nothing comes after a run's end, no result
//! without its call. Times, the session's id and the run's are filled in, and the contract's members come in its order.

use std::time::Duration;

use super::super::json::{Object, quoted};
use super::super::publish::{Outcome, Publish, Published, Refusal};
use super::super::{Asker, Env, time};
use super::runs::{self, Found, Run};
use super::{approvals, sessions, wire};
use crate::ids::OpId;
use crate::model::{Record, RowsError, Transaction};

/// Publishes a run's event: refused when it does not fit the life cycle.
pub fn publish(
    publish: &Publish,
    asker: &Asker,
    op: Option<&OpId>,
    rows: &mut dyn Transaction,
    _env: &Env,
) -> Result<Outcome, RowsError> {
    let Some(id) = sessions::id_of_room(publish.room.as_str()) else { return Ok(Err(Refusal::NoSuchRoom)) };
    let Some(session) = sessions::find(id, asker, rows)? else { return Ok(Err(Refusal::NoSuchRoom)) };
    if publish.if_rev.is_some() {
        return Ok(Err(Refusal::bad("no_revision", "a session has no revision to compare")));
    }
    let data = std::str::from_utf8(&publish.data).ok().and_then(Object::parse);
    let Some(data) = data else { return Ok(Err(bad_data("data must be an object of at most 32 levels"))) };
    let act = Act { session: &session, asker, op, rows };
    match &*publish.kind {
        "execute" => act.execute(&data),
        "cancel" => act.cancel(&data),
        "approval_required" => act.ask(&data),
        kind => match KINDS.iter().find(|(known, _)| *known == kind) {
            Some((kind, order)) => act.event(kind, order, data),
            None => Ok(Err(Refusal::bad("bad_type", "no such event may be published into a session"))),
        },
    }
}

/// The run has ended, in this state.
pub fn over(state: &str) -> Refusal {
    Refusal::bad("execution_over", format!("the run is over: {state}"))
}

pub fn no_run() -> Refusal {
    Refusal::bad("no_execution", "no such run goes on in this session")
}

fn bad_data(why: &'static str) -> Refusal {
    Refusal::bad("bad_data", why)
}

/// The events of a run, and the order of their members.
const KINDS: [(&str, &[&str]); 7] = [
    ("thinking", &["session_id", "command", "timestamp", "step", "total_steps", "thought_process"]),
    ("tool_call", &["session_id", "tool_name", "tool_args", "timestamp", "tool_id"]),
    ("tool_result", &["session_id", "tool_id", "result", "success", "error"]),
    ("complete", &["session_id", "execution_id", "result", "success", "total_cost", "duration_ms", "tool_calls"]),
    ("error", &["message", "session_id", "execution_id", "timestamp", "request_id", "error_type", "details"]),
    ("subagent_start", &["session_id", "subagent_id", "subagent_type", "task", "parent_agent"]),
    ("subagent_end", &["session_id", "subagent_id", "result", "success", "duration_ms", "error"]),
];

/// One publication under way.
struct Act<'a> {
    session: &'a Record,
    asker: &'a Asker,
    op: Option<&'a OpId>,
    rows: &'a mut dyn Transaction,
}

impl Act<'_> {
    fn execute(self, data: &Object<'_>) -> Result<Outcome, RowsError> {
        let Some(command) = data.text("command") else { return Ok(Err(bad_data("command must be a string"))) };
        let plan = match data.given("plan").map(wire::objects) {
            Some(None) => return Ok(Err(bad_data("plan must be a list of objects"))),
            plan => plan.flatten(),
        };
        let order = runs::Order { command, plan, budget_limit_usd: None };
        let (_, seq) = runs::begin(self.session, &order, self.asker, self.op, self.rows)?;
        Ok(Ok(Published::at(seq)))
    }

    fn cancel(self, data: &Object<'_>) -> Result<Outcome, RowsError> {
        match runs::of_event(data, &self.session.id, self.rows)? {
            Found::Running(run) => Ok(Ok(Published::at(run.cancel(self.asker, self.op, self.rows)?))),
            Found::Over(state) => Ok(Err(over(&state))),
            Found::None => Ok(Err(no_run())),
        }
    }

    fn ask(self, data: &Object<'_>) -> Result<Outcome, RowsError> {
        // A run of this session, and one that goes on: a request without one comes by another way (approvals).
        let id = match runs::of_event(data, &self.session.id, self.rows)? {
            Found::Running(run) => run.record.id,
            Found::Over(state) => return Ok(Err(over(&state))),
            Found::None => return Ok(Err(no_run())),
        };
        let wanted = match wanted(&self.session.id, id, data) {
            Ok(wanted) => wanted,
            Err(why) => return Ok(Err(bad_data(why))),
        };
        let asked = approvals::request_as(&wanted, self.asker, self.op, self.rows)?;
        Ok(asked.map(|approval| Published::at(approval.seq)))
    }

    fn event(self, kind: &'static str, order: &[&str], mut data: Object<'_>) -> Result<Outcome, RowsError> {
        let mut run = match runs::of_event(&data, &self.session.id, self.rows)? {
            Found::Running(run) => run,
            Found::Over(state) => return Ok(Err(over(&state))),
            Found::None => return Ok(Err(no_run())),
        };
        if let Err(refusal) = follow(&mut run, kind, &data) {
            return Ok(Err(refusal));
        }
        let end = end(kind, &data);
        if end.is_some() {
            approvals::cancel_all(&self.session.id, Some(&run.record.id), self.asker, self.rows)?;
        }
        let stamp = || quoted(&time::naive_utc_seconds(self.rows.at()));
        match kind {
            "thinking" => {
                data.set_if_absent("command", quoted(&run.progress.command));
                data.set_if_absent("timestamp", stamp());
            }
            "tool_call" => {
                data.set_if_absent("tool_args", "{}");
                data.set_if_absent("timestamp", stamp());
            }
            "complete" => data.set_if_absent("success", "true"),
            _ => {}
        }
        data.set("session_id", quoted(&self.session.id));
        data.set("execution_id", quoted(&run.record.id));
        data.arrange(order);
        let seq = super::append(&self.session.id, kind, data.write(), self.asker, self.op, self.rows)?;
        run.put(end.unwrap_or(runs::RUNNING), self.rows)?;
        Ok(Ok(Published::at(seq)))
    }
}

/// In which state an event ends its run.
fn end(kind: &str, data: &Object<'_>) -> Option<&'static str> {
    match kind {
        "complete" if data.get("success") == Some("false") => Some(runs::FAILED),
        "complete" => Some(runs::COMPLETED),
        "error" if data.get("terminal") != Some("false") => Some(runs::FAILED),
        _ => None,
    }
}

/// Checks an event against what went before, and notes it.
fn follow(run: &mut Run, kind: &str, data: &Object<'_>) -> Result<(), Refusal> {
    let is_flag = |name| matches!(data.given(name), None | Some("true" | "false"));
    let is_text = |name| data.given(name).is_some_and(|value| value.starts_with('"'));
    match kind {
        "tool_call" if !is_text("tool_name") => Err(bad_data("tool_name must be a string")),
        "tool_call" => open(run, call_id(data)?),
        "tool_result" if !is_flag("success") => Err(bad_data("success must be true or false")),
        "tool_result" => close(run, call_id(data)?),
        "complete" if !is_flag("success") => Err(bad_data("success must be true or false")),
        "error" if !is_text("message") => Err(bad_data("message must be a string")),
        _ => Ok(()),
    }
}

fn call_id(data: &Object<'_>) -> Result<Option<String>, Refusal> {
    if data.given("tool_id").is_none() {
        return Ok(None);
    }
    let id = data.text("tool_id").filter(|id| id.len() <= runs::CALL_ID_BYTES_MAX);
    id.map(Some).ok_or(bad_data("tool_id must be a string of at most 128 bytes"))
}

/// A call that is announced once more, by a backend that was given its task again, is one call.
fn open(run: &mut Run, id: Option<String>) -> Result<(), Refusal> {
    let progress = &mut run.progress;
    match id {
        Some(id) if progress.calls.contains(&id) => return Ok(()),
        _ if progress.calls.len() + progress.nameless >= runs::CALLS_MAX => {
            return Err(Refusal::bad("too_many_calls", "this run has as many open calls as it may have"));
        }
        Some(id) => progress.calls.push(id),
        None => progress.nameless += 1,
    }
    Ok(())
}

/// A result without an id answers any open call, and one with an id also a call that had none: the original's calls bore
/// none, its results did.
fn close(run: &mut Run, id: Option<String>) -> Result<(), Refusal> {
    let progress = &mut run.progress;
    let named = match &id {
        Some(id) => progress.calls.iter().position(|call| call == id),
        None if progress.nameless == 0 && !progress.calls.is_empty() => Some(0),
        None => None,
    };
    match named {
        Some(at) => {
            progress.calls.remove(at);
        }
        None if progress.nameless > 0 => progress.nameless -= 1,
        None => return Err(Refusal::bad("no_tool_call", "no such tool call is open in this run")),
    }
    Ok(())
}

/// A published `approval_required` as the request that it is.
fn wanted(session: &str, execution_id: String, data: &Object<'_>) -> Result<approvals::Wanted, &'static str> {
    let text = |name: &str, why| match data.given(name) {
        None => Ok(None),
        Some(_) => data.text(name).map(Some).ok_or(why),
    };
    let value = |name: &str| data.given(name).and_then(super::super::json::parse);
    Ok(approvals::Wanted {
        session: session.to_owned(),
        id: text("request_id", "request_id must be a string")?,
        execution_id: Some(execution_id),
        tool_name: data.text("tool_name").ok_or("tool_name must be a string")?,
        tool_args: value("tool_args").unwrap_or_else(|| serde_json::json!({})),
        reason: text("reason", "reason must be a string")?,
        amount: match data.given("amount") {
            // The contract has it as a string; a number is one without its quotes.
            Some(number) if !number.starts_with(['"', '{', '[', 't', 'f']) => Some(number.to_owned()),
            _ => text("amount", "amount must be a string or a number")?,
        },
        currency: text("currency", "currency must be a string")?,
        estimated_cost: value("estimated_cost"),
        expires_in: match data.given("expires_in") {
            None => None,
            Some(seconds) => Some(span(seconds).ok_or("expires_in must be seconds, above 0 and at most a year")?),
        },
    })
}

fn span(seconds: &str) -> Option<Duration> {
    const YEAR: f64 = 366.0 * 86_400.0;
    let seconds: f64 = serde_json::from_str(seconds).ok()?;
    if seconds > 0.0 && seconds <= YEAR { Duration::try_from_secs_f64(seconds).ok() } else { None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::super::testing::{
        AT, FIRST, ROOM, S, SECOND, asker, execute, publish, rows, running, try_publish, user,
    };
    use super::*;
    use crate::clock::Wall;
    use crate::dialect::fake::Fake;
    use crate::model::{Rows, Shelf};
    use proptest::prelude::*;

    fn refusal(kind: &str, data: &str, rows: &mut Fake) -> String {
        match publish(kind, data, rows) {
            Ok(_) => "ok".to_owned(),
            Err(Refusal::Bad { code, .. }) => code.to_owned(),
            Err(other) => format!("{other:?}"),
        }
    }

    #[test]
    fn events_come_in_the_contract_s_order_and_complete() {
        for (kind, data, expected) in [
            (
                "thinking",
                r#"{"x": 1, "step": 2, "session_id": "forged"}"#,
                r#"{"session_id":"S","command":"pay","timestamp":"2025-12-25T00:05:37","step":2,"x":1,"execution_id":"E"}"#,
            ),
            (
                "tool_call",
                r#"{"tool_id": "c1", "tool_args": {"z": 1, "a": "ü b"}, "tool_name": "pay"}"#,
                r#"{"session_id":"S","tool_name":"pay","tool_args":{"z":1,"a":"ü b"},"timestamp":"2025-12-25T00:05:37","tool_id":"c1","execution_id":"E"}"#,
            ),
            (
                "tool_result",
                r#"{"success": true, "result": [1, 2], "tool_id": "c1"}"#,
                r#"{"session_id":"S","tool_id":"c1","result":[1,2],"success":true,"execution_id":"E"}"#,
            ),
            (
                "subagent_start",
                r#"{"parent_agent":"p","task":"t","subagent_type":"y","subagent_id":"i"}"#,
                r#"{"session_id":"S","subagent_id":"i","subagent_type":"y","task":"t","parent_agent":"p","execution_id":"E"}"#,
            ),
            (
                "subagent_end",
                r#"{"error":null,"duration_ms":3,"success":true,"result":{},"subagent_id":"i"}"#,
                r#"{"session_id":"S","subagent_id":"i","result":{},"success":true,"duration_ms":3,"error":null,"execution_id":"E"}"#,
            ),
            (
                "error",
                r#"{"terminal":false,"message":"retrying","details":{}}"#,
                r#"{"message":"retrying","session_id":"S","execution_id":"E","details":{},"terminal":false}"#,
            ),
            (
                "complete",
                r#"{"tool_calls":1,"duration_ms":7,"total_cost":"0.0 USD","result":{"a":1}}"#,
                r#"{"session_id":"S","execution_id":"E","result":{"a":1},"success":true,"total_cost":"0.0 USD","duration_ms":7,"tool_calls":1}"#,
            ),
        ] {
            let mut rows = running();
            if kind == "tool_result" {
                publish("tool_call", r#"{"tool_name":"pay","tool_id":"c1"}"#, &mut rows).unwrap();
            }
            publish(kind, data, &mut rows).unwrap();
            let expected = expected.replace("\"S\"", &quoted(S)).replace("\"E\"", &quoted(FIRST));
            assert_eq!(rows.told(ROOM).last().unwrap(), &format!("{kind} {expected}"));
        }
    }

    #[test]
    fn nothing_comes_after_the_end_and_no_result_without_its_call() {
        let failed = r#"{"success":false}"#;
        for (end, data, state) in [
            ("complete", "{}", "completed"),
            ("complete", failed, "failed"),
            ("error", r#"{"message":"x"}"#, "failed"),
            ("cancel", "{}", "cancelled"),
        ] {
            let mut rows = running();
            assert_eq!(refusal("thinking", "{}", &mut rows), "ok");
            assert_eq!(refusal(end, data, &mut rows), "ok");
            assert_eq!(rows.record(Shelf::Execution, FIRST).unwrap().unwrap().state, state);
            let before = rows.told(ROOM);
            for kind in ["thinking", "tool_call", "complete", "error", "cancel", "approval_required"] {
                let data = format!(r#"{{"execution_id":"{FIRST}","tool_name":"x","message":"x"}}"#);
                assert_eq!(refusal(kind, &data, &mut rows), "execution_over", "{kind} after {end}");
                let unnamed = r#"{"tool_name":"x","message":"x"}"#;
                assert_eq!(refusal(kind, unnamed, &mut rows), "no_execution", "{kind} after {end}");
            }
            assert_eq!(rows.told(ROOM), before);
        }
        let mut rows = running();
        let call = |id: &str| format!(r#"{{"tool_name":"x","tool_id":"{id}"}}"#);
        let result = |id: &str| format!(r#"{{"tool_id":"{id}"}}"#);
        for (kind, data, expected) in [
            ("tool_result", result("a"), "no_tool_call"),
            ("tool_result", "{}".to_owned(), "no_tool_call"),
            ("tool_call", call("a"), "ok"),
            ("tool_call", call("a"), "ok"),
            ("tool_call", call("b"), "ok"),
            ("tool_result", result("c"), "no_tool_call"),
            ("tool_result", result("b"), "ok"),
            ("tool_result", result("b"), "no_tool_call"),
            ("tool_result", "{}".to_owned(), "ok"),
            ("tool_result", result("a"), "no_tool_call"),
            ("tool_call", r#"{"tool_name":"x"}"#.to_owned(), "ok"),
            ("tool_call", r#"{"tool_name":"x","tool_id":null}"#.to_owned(), "ok"),
            ("tool_result", result("z"), "ok"),
            ("tool_result", "{}".to_owned(), "ok"),
            ("tool_result", "{}".to_owned(), "no_tool_call"),
            ("complete", "{}".to_owned(), "ok"),
        ] {
            assert_eq!(refusal(kind, &data, &mut rows), expected, "{kind} {data}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_leaves_nothing() {
        let mut rows = running();
        let long = format!(r#"{{"tool_name":"x","tool_id":"{}"}}"#, "i".repeat(129));
        let records = rows.records.clone();
        for (kind, data, expected) in [
            ("connected", "{}", "bad_type"),
            ("approved", "{}", "bad_type"),
            ("rejected", "{}", "bad_type"),
            ("edit_approved", "{}", "bad_type"),
            ("cancelled", "{}", "bad_type"),
            ("session_created", "{}", "bad_type"),
            ("pong", "{}", "bad_type"),
            ("Thinking", "{}", "bad_type"),
            ("thinking", "[]", "bad_data"),
            ("thinking", "{", "bad_data"),
            ("thinking", r#"{"execution_id":7}"#, "no_execution"),
            ("thinking", r#"{"execution_id":"x"}"#, "no_execution"),
            ("thinking", r#"{"execution_id":"019b52d3-48e3-7000-8000-0000000000ff"}"#, "no_execution"),
            ("tool_call", "{}", "bad_data"),
            ("tool_call", r#"{"tool_name":1}"#, "bad_data"),
            ("tool_call", r#"{"tool_name":"x","tool_id":1}"#, "bad_data"),
            ("tool_call", &long, "bad_data"),
            ("tool_result", r#"{"success":"yes"}"#, "bad_data"),
            ("complete", r#"{"success":1}"#, "bad_data"),
            ("error", "{}", "bad_data"),
            ("execute", "{}", "bad_data"),
            ("execute", r#"{"command":"x","plan":[1]}"#, "bad_data"),
            ("approval_required", "{}", "bad_data"),
            ("approval_required", r#"{"tool_name":"x","tool_args":[]}"#, "bad_data"),
            ("approval_required", r#"{"tool_name":"x","amount":[]}"#, "bad_data"),
            ("approval_required", r#"{"tool_name":"x","expires_in":-1}"#, "bad_data"),
            ("approval_required", r#"{"tool_name":"x","request_id":"x"}"#, "bad_id"),
        ] {
            assert_eq!(refusal(kind, data, &mut rows), expected, "{kind} {data}");
        }
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(40), "]".repeat(40));
        assert_eq!(refusal("thinking", &deep, &mut rows), "bad_data");
        let with_rev = Publish {
            room: sessions::room_of(S),
            kind: "thinking".into(),
            data: bytes::Bytes::from_static(b"{}"),
            if_rev: Some(0),
        };
        let outcome = super::publish(&with_rev, &asker("x"), None, &mut rows, &Env::default()).unwrap();
        assert_eq!(outcome, Err(Refusal::bad("no_revision", "a session has no revision to compare")));
        for room in ["session:unknown", "session:", &format!("session:{}", S.to_uppercase())] {
            let outcome = try_publish(room, "thinking", "{}", &asker("x"), &mut rows).unwrap();
            assert_eq!(outcome, Err(Refusal::NoSuchRoom), "{room}");
        }
        assert_eq!((rows.told(ROOM), rows.given(), rows.records), (Vec::new(), Vec::new(), records));
    }

    #[test]
    fn another_user_s_session_looks_like_none() {
        let mut rows = running();
        rows.records.iter_mut().filter(|record| record.shelf == Shelf::Session).for_each(|it| it.parent = "ann".into());
        let mut by = |who: &Asker| try_publish(ROOM, "thinking", "{}", who, &mut rows).unwrap();
        assert_eq!(by(&user("bob")), Err(Refusal::NoSuchRoom));
        assert!(by(&user("ann")).is_ok() && by(&asker("worker")).is_ok());
    }

    #[test]
    fn a_run_without_a_name_is_the_newest() {
        let mut rows = running();
        execute("second", &mut rows);
        publish("thinking", "{}", &mut rows).unwrap();
        assert!(
            rows.told(ROOM).last().unwrap().contains(&format!(
                r#""command":"second","timestamp":"2025-12-25T00:05:37","execution_id":"{SECOND}""#
            ))
        );
        publish("complete", "{}", &mut rows).unwrap();
        publish("complete", "{}", &mut rows).unwrap();
        assert!(rows.told(ROOM).last().unwrap().contains(FIRST));
        assert_eq!(refusal("complete", "{}", &mut rows), "no_execution");
    }

    #[test]
    fn y6_an_end_cancels_what_waits_for_a_decision_in_it() {
        for (kind, data) in [("complete", "{}"), ("error", r#"{"message":"x"}"#), ("cancel", "{}")] {
            let mut rows = running();
            publish("approval_required", r#"{"tool_name":"pay"}"#, &mut rows).unwrap();
            let published = publish(kind, data, &mut rows).unwrap();
            let told = rows.told(ROOM);
            assert_eq!(told.len(), 3, "{told:?}");
            assert_eq!(
                told[1],
                format!(r#"rejected {{"request_id":"{SECOND}","decision":"cancelled","edited_args":null}}"#)
            );
            assert!(told[2].starts_with(if kind == "complete" { "complete" } else { "error" }), "the end is the last");
            assert_eq!(published.seq.0, 3, "of the event that was published, as a resend is told");
        }
    }

    #[test]
    fn a_native_client_begins_and_ends_runs_like_an_old_page() {
        let mut rows = rows();
        publish("execute", r#"{"command": "pay", "plan": [ {"a": 1} ]}"#, &mut rows).unwrap();
        let thinking = format!(
            r#"thinking {{"session_id":"{S}","command":"pay","timestamp":"2025-12-25T00:05:37","execution_id":"{FIRST}"}}"#
        );
        assert_eq!(rows.told(ROOM), [thinking]);
        let task = format!(
            r#"execute {{"execution_id":"{FIRST}","session_id":"{S}","command":"pay","plan":[{{"a":1}}],"user_id":"worker"}}"#
        );
        assert_eq!(rows.given(), [task]);
        publish("cancel", &format!(r#"{{"execution_id":"{FIRST}"}}"#), &mut rows).unwrap();
        assert_eq!(rows.told(ROOM).len(), 2);
        let task = format!(r#"cancel {{"execution_id":"{FIRST}","session_id":"{S}","by":"worker"}}"#);
        assert_eq!(rows.given()[1], task);
    }

    #[test]
    fn a_published_request_is_a_request() {
        let mut rows = running();
        let id = "0AF0BD5C-0000-4000-8000-0000000000AA";
        let data = format!(
            r#"{{"request_id":"{id}","tool_name":"pay","tool_args":{{"to":"x"}},"reason":"r","amount":"5.00","currency":"USD","estimated_cost":null,"expires_in":0.5}}"#
        );
        let first = publish("approval_required", &data, &mut rows).unwrap();
        let again = publish("approval_required", &data, &mut rows).unwrap();
        assert_eq!(
            (first.seq, again.seq, rows.told(ROOM).len()),
            (first.seq, first.seq, 1),
            "asked again is asked once"
        );
        let record = rows.record(Shelf::Approval, &id.to_lowercase()).unwrap().unwrap();
        assert_eq!(record.due, Some(Wall(AT.0 + 500_000)));
        assert_eq!(refusal("approval_required", &data.replace("5.00", "6.00"), &mut rows), "id_taken");
    }

    #[test]
    fn open_calls_are_bounded() {
        let mut rows = running();
        for call in 0..runs::CALLS_MAX {
            publish("tool_call", &format!(r#"{{"tool_name":"x","tool_id":"{call}"}}"#), &mut rows).unwrap();
        }
        assert_eq!(refusal("tool_call", r#"{"tool_name":"x","tool_id":"more"}"#, &mut rows), "too_many_calls");
        assert_eq!(refusal("tool_call", r#"{"tool_name":"x","tool_id":"0"}"#, &mut rows), "ok");
        publish("tool_result", "{}", &mut rows).unwrap();
        assert_eq!(refusal("tool_call", r#"{"tool_name":"x"}"#, &mut rows), "ok");
    }

    proptest! {
        /// Whatever is published, the log reads like runs: begun once, ended at most once, nothing behind the end, and
        /// never more results than calls.
        #[test]
        fn the_log_reads_like_runs(steps in prop::collection::vec((0..8usize, prop::option::of(0..4u8)), 0..60)) {
            let mut rows = rows();
            let kinds =
                ["execute", "thinking", "tool_call", "tool_result", "complete", "error", "cancel", "approval_required"];
            for (kind, run) in steps {
                let run = run.map(|run| format!(r#""execution_id":"019b52d3-48e3-7000-8000-00000000000{run}","#));
                let data = format!(
                    r#"{{{}"command":"c","tool_name":"t","message":"m"}}"#, run.unwrap_or_default());
                let before = rows.told(ROOM).len();
                if publish(kinds[kind], &data, &mut rows).is_err() {
                    prop_assert_eq!(rows.told(ROOM).len(), before, "a refusal writes nothing");
                }
            }
            let mut over = std::collections::BTreeSet::new();
            let mut open = std::collections::BTreeMap::new();
            for event in rows.log.get(ROOM).into_iter().flatten() {
                let data: serde_json::Value = serde_json::from_slice(&event.body).unwrap();
                let Some(run) = data["execution_id"].as_str() else { continue };
                prop_assert!(!over.contains(run), "{} after the end", event.kind);
                let calls = open.entry(run.to_owned()).or_insert(0);
                match &*event.kind {
                    "tool_call" => *calls += 1,
                    "tool_result" => *calls -= 1,
                    "complete" | "error" => {
                        over.insert(run.to_owned());
                    }
                    _ => {}
                }
                prop_assert!(*calls >= 0);
            }
        }

        #[test]
        fn no_data_makes_it_panic(kind in 0..7usize, data in r#"[\{\}\[\]":,\\ a1é]{0,30}"#) {
            let mut rows = running();
            let _ = publish(KINDS[kind].0, &data, &mut rows);
            let _ = publish("approval_required", &format!(r#"{{"tool_name":"x","tool_args":{data}}}"#), &mut rows);
        }
    }
}
