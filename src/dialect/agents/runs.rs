//! Runs of a command: begun once, ended once, and in between the tool calls that are open.
//!
//! A record holds what the life cycle needs and no more, since it is written anew with each tool call: of the command only
//! what a listing shows. Whoever carries it out is given all of it, with the task.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Number;
use serde_json::value::RawValue;

use super::super::json::Object;
use super::super::{Asker, time};
use super::{append, approvals, sessions, wire};
use crate::ids::{OpId, Seq};
use crate::model::{Record, Rows, RowsError, Shelf, TaskKind, Transaction};

pub const RUNNING: &str = "running";
pub const COMPLETED: &str = "completed";
pub const FAILED: &str = "failed";
pub const CANCELLED: &str = "cancelled";

/// Bytes of a command that its record holds.
const COMMAND_SHOWN: usize = 4 * 1024;
/// Calls of one run that are open at the same time, and bytes of a call's id: they bound the record.
pub const CALLS_MAX: usize = 256;
pub const CALL_ID_BYTES_MAX: usize = 128;
/// Runs ended in one go when their session is deleted, before the next are looked for.
const PAGE: usize = 256;

/// What somebody wants to have run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Order {
    pub command: String,
    /// A JSON array of objects as text.
    pub plan: Option<String>,
    pub budget_limit_usd: Option<Number>,
}

/// A run that goes on.
#[derive(Debug)]
pub struct Run {
    pub record: Record,
    pub progress: Progress,
}

/// What its record's body holds.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Progress {
    pub command: String,
    /// Ids of the calls that have no result yet.
    pub calls: Vec<String>,
    /// Calls without an id that have no result yet.
    pub nameless: usize,
}

/// What an execution id leads to.
#[derive(Debug)]
pub enum Found {
    Running(Run),
    /// In this state it ended.
    Over(String),
    None,
}

/// Begins a run: its record, the event `thinking`, the task. The session is there and the asker may use it.
pub fn begin(
    session: &Record,
    order: &Order,
    asker: &Asker,
    op: Option<&OpId>,
    rows: &mut dyn Transaction,
) -> Result<(String, Seq), RowsError> {
    #[derive(Serialize)]
    struct Thinking<'a> {
        session_id: &'a str,
        command: &'a str,
        timestamp: String,
        execution_id: &'a str,
    }
    #[derive(Serialize)]
    struct Task<'a> {
        execution_id: &'a str,
        session_id: &'a str,
        command: &'a str,
        plan: Option<&'a RawValue>,
        user_id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        budget_limit_usd: Option<&'a Number>,
    }
    let id = sessions::uuid_at(rows.at(), rows.random());
    let at = rows.at();
    let thinking = Thinking {
        session_id: &session.id,
        command: &order.command,
        timestamp: time::naive_utc_seconds(at),
        execution_id: &id,
    };
    let seq = append(&session.id, "thinking", wire::json(&thinking), asker, op, rows)?;
    let shown = order.command.floor_char_boundary(COMMAND_SHOWN);
    let progress =
        Progress { command: order.command.get(..shown).unwrap_or_default().to_owned(), ..Progress::default() };
    rows.put_record(&Record {
        shelf: Shelf::Execution,
        id: id.clone(),
        parent: session.id.clone(),
        state: RUNNING.to_owned(),
        due: None,
        created_at: at,
        updated_at: at,
        body: wire::json(&progress).into(),
    })?;
    let task = Task {
        execution_id: &id,
        session_id: &session.id,
        command: &order.command,
        plan: order.plan.as_deref().and_then(|plan| serde_json::from_str(plan).ok()),
        user_id: &asker.actor,
        budget_limit_usd: order.budget_limit_usd.as_ref(),
    };
    rows.put_task(TaskKind::Execute, &sessions::room_of(&session.id), Bytes::from(wire::json(&task)))?;
    sessions::touch(session, rows)?;
    Ok((id, seq))
}

/// The run that an event is about: the one it names, or the session's newest.
pub fn of_event(data: &Object<'_>, session: &str, rows: &mut dyn Rows) -> Result<Found, RowsError> {
    if data.given("execution_id").is_none() {
        let newest = newest(session, 1, rows)?.into_iter().next();
        return Ok(newest.map_or(Found::None, |record| Found::Running(Run::of(record))));
    }
    match data.text("execution_id") {
        Some(id) => find(&id, session, rows),
        None => Ok(Found::None),
    }
}

/// A run of this session.
pub fn find(id: &str, session: &str, rows: &mut dyn Rows) -> Result<Found, RowsError> {
    let Some(id) = sessions::canonical(id) else { return Ok(Found::None) };
    let record = rows.record(Shelf::Execution, &id)?.filter(|record| record.parent == session);
    Ok(match record {
        Some(record) if record.state == RUNNING => Found::Running(Run::of(record)),
        Some(record) => Found::Over(record.state),
        None => Found::None,
    })
}

/// The runs that go on in a session, at most `count`, the newest last.
pub fn newest(session: &str, count: usize, rows: &mut dyn Rows) -> Result<Vec<Record>, RowsError> {
    let all = rows.count_records(Shelf::Execution, Some(session), Some(RUNNING))?;
    match all {
        0 => Ok(Vec::new()),
        _ => rows.records(Shelf::Execution, Some(session), Some(RUNNING), all.saturating_sub(count), count),
    }
}

pub fn command_of(run: &Record) -> String {
    progress_of(run).command
}

fn progress_of(run: &Record) -> Progress {
    // Ours, so it is what we wrote.
    serde_json::from_slice(&run.body).unwrap_or_default()
}

impl Run {
    fn of(record: Record) -> Run {
        Run { progress: progress_of(&record), record }
    }

    /// Stores what became of it.
    pub fn put(self, state: &str, rows: &mut dyn Transaction) -> Result<(), RowsError> {
        let body = wire::json(&self.progress).into();
        rows.put_record(&Record { state: state.to_owned(), updated_at: rows.at(), body, ..self.record })
    }

    /// Stops it: what waits for a decision in it is cancelled, the room hears that it is over, whoever carries it out is
    /// told to stop. The seq is of the event that says so, and bears the id: what it entails may stand before it.
    pub fn cancel(self, asker: &Asker, op: Option<&OpId>, rows: &mut dyn Transaction) -> Result<Seq, RowsError> {
        let (id, session) = (self.record.id.clone(), self.record.parent.clone());
        approvals::cancel_all(&session, Some(&id), asker, rows)?;
        let stopped = wire::Error {
            session_id: Some(&session),
            execution_id: Some(&id),
            error_type: Some("cancelled"),
            ..wire::Error::of("Execution cancelled")
        };
        let seq = append(&session, "error", wire::json(&stopped), asker, op, rows)?;
        self.stop(asker, rows)?;
        Ok(seq)
    }

    fn stop(self, asker: &Asker, rows: &mut dyn Transaction) -> Result<(), RowsError> {
        #[derive(Serialize)]
        struct Task<'a> {
            execution_id: &'a str,
            session_id: &'a str,
            by: &'a str,
        }
        let Record { id, parent, .. } = &self.record;
        let task = wire::json(&Task { execution_id: id, session_id: parent, by: &asker.actor });
        rows.put_task(TaskKind::Cancel, &sessions::room_of(parent), Bytes::from(task))?;
        self.put(CANCELLED, rows)
    }
}

/// Stops every run of a session without an event for each: the session's end is one.
pub fn end_all(session: &str, asker: &Asker, rows: &mut dyn Transaction) -> Result<(), RowsError> {
    loop {
        let running = rows.records(Shelf::Execution, Some(session), Some(RUNNING), 0, PAGE)?;
        if running.is_empty() {
            return Ok(());
        }
        for record in running {
            Run::of(record).stop(asker, rows)?;
        }
    }
}
