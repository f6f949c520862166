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
        let first = match end {
            Some(_) => approvals::cancel_all(&self.session.id, Some(&run.record.id), self.asker, self.rows)?,
            None => None,
        };
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
        Ok(Ok(Published::at(first.unwrap_or(seq))))
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
