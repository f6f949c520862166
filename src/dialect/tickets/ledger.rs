//! The records of tickets and jobs, and what the events of a run make of them.
//!
//! A record's `state` is what was last heard of it, in the backend's own word; a job's parent is its ticket. What a
//! backend says of a job that is unknown here is kept too: it may have begun elsewhere.

use bytes::Bytes;
use serde::Serialize;

use super::wire;
use crate::dialect::json::Object;
use crate::model::{Record, Rows, RowsError, Shelf, Transaction};

/// Bytes of a ticket's or job's id that came from outside.
const ID_BYTES_MAX: usize = 256;
/// Bytes of a state.
pub const STATUS_BYTES_MAX: usize = 64;

pub const PENDING: &str = "pending";
pub const RUNNING: &str = "running";
pub const COMPLETED: &str = "completed";
pub const ERROR: &str = "error";

/// A job's state, `running` as long as nobody has said otherwise (B10).
pub fn job_state(id: &str, rows: &mut dyn Rows) -> Result<String, RowsError> {
    Ok(rows.record(Shelf::Job, id)?.map_or_else(|| RUNNING.to_owned(), |job| job.state))
}

pub fn put_job(id: &str, ticket: &str, state: &str, rows: &mut dyn Transaction) -> Result<(), RowsError> {
    let known = rows.record(Shelf::Job, id)?;
    put(Shelf::Job, id, ticket, state, Bytes::from_static(b"{}"), known, rows)
}

pub fn put_ticket(
    id: &str,
    name: &str,
    description: Option<&str>,
    job: Option<&str>,
    rows: &mut dyn Transaction,
) -> Result<(), RowsError> {
    #[derive(Serialize)]
    struct Ticket<'a> {
        ticket_id: &'a str,
        ticket_name: &'a str,
        description: Option<&'a str>,
        job_id: Option<&'a str>,
    }
    let body = wire::written(&Ticket { ticket_id: id, ticket_name: name, description, job_id: job });
    put(Shelf::Ticket, id, "", PENDING, body, None, rows)
}

/// False when there is no such ticket.
pub fn move_ticket(id: &str, state: &str, rows: &mut dyn Transaction) -> Result<bool, RowsError> {
    let Some(ticket) = rows.record(Shelf::Ticket, id)? else {
        return Ok(false);
    };
    let updated_at = rows.at();
    rows.put_record(&Record { state: state.to_owned(), updated_at, ..ticket })?;
    Ok(true)
}

/// What a published event says of a ticket or a job. Words that are no strings, or too long to be names, say nothing.
pub fn heed(kind: &str, fields: &Object<'_>, rows: &mut dyn Transaction) -> Result<(), RowsError> {
    let (job, ticket) = (name(fields, "job_id"), name(fields, "ticket_id"));
    let status = status(fields);
    match kind {
        wire::JOB => match (job, status) {
            (Some(job), Some(status)) => put_job(&job, &ticket.unwrap_or_default(), &status, rows),
            _ => Ok(()),
        },
        "agent_complete" => ended(job, ticket, &status.unwrap_or_else(|| COMPLETED.to_owned()), rows),
        "agent_error" => ended(job, ticket, ERROR, rows),
        "agent_started" => moved(ticket, Some(RUNNING.to_owned()), rows),
        wire::STATUS_CHANGE => moved(ticket, status, rows),
        // A ticket that a backend made.
        wire::TICKET_CREATED => match ticket {
            Some(id) if rows.record(Shelf::Ticket, &id)?.is_none() => {
                let (named, described) = (fields.text("ticket_name"), fields.text("description"));
                put_ticket(&id, &named.unwrap_or_default(), described.as_deref(), job.as_deref(), rows)
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

pub fn name(fields: &Object<'_>, field: &str) -> Option<String> {
    fields.text(field).filter(|id| (1..=ID_BYTES_MAX).contains(&id.len()))
}

pub fn status(fields: &Object<'_>) -> Option<String> {
    fields.text("status").filter(|status| (1..=STATUS_BYTES_MAX).contains(&status.len()))
}

/// A run is over; its ticket is the one that was named, or the job's own (`agent_error` names none).
fn ended(
    job: Option<String>,
    ticket: Option<String>,
    state: &str,
    rows: &mut dyn Transaction,
) -> Result<(), RowsError> {
    let mut ticket = ticket;
    if let Some(job) = job {
        let known = rows.record(Shelf::Job, &job)?;
        ticket = ticket.or_else(|| known.as_ref().map(|job| job.parent.clone()));
        let parent = ticket.clone().unwrap_or_default();
        put(Shelf::Job, &job, &parent, state, Bytes::from_static(b"{}"), known, rows)?;
    }
    moved(ticket, Some(state.to_owned()), rows)
}

fn moved(ticket: Option<String>, state: Option<String>, rows: &mut dyn Transaction) -> Result<(), RowsError> {
    if let (Some(ticket), Some(state)) = (ticket, state) {
        move_ticket(&ticket, &state, rows)?;
    }
    Ok(())
}

/// `known`: what it replaces, whose birth it keeps, and its parent when it has one.
fn put(
    shelf: Shelf,
    id: &str,
    parent: &str,
    state: &str,
    body: Bytes,
    known: Option<Record>,
    rows: &mut dyn Transaction,
) -> Result<(), RowsError> {
    let at = rows.at();
    let (created_at, parent) = match known {
        Some(record) if !record.parent.is_empty() => (record.created_at, record.parent),
        Some(record) => (record.created_at, parent.to_owned()),
        None => (at, parent.to_owned()),
    };
    rows.put_record(&Record {
        shelf,
        id: id.to_owned(),
        parent,
        state: state.to_owned(),
        due: None,
        created_at,
        updated_at: at,
        body,
    })
}
