//! Questions, answered over one snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fault::Fault;
use super::rights;
use super::wire::{self, Facts, Waiting};
use crate::auth::ApiKey;
use crate::clock::Wall;
use crate::dialect::agents::{approvals, sessions};
use crate::dialect::{Asker, ConnView, Env, Failure, Reply};
use crate::http::Response;
use crate::ids::{RoomName, Seq};
use crate::limits::PAGE_BYTES_MAX;
use crate::model::{Rows, RowsError, Tasks};
use crate::ws;

/// Tasks of a kind that `status` counts; one more is "many".
const COUNT_MAX: usize = 100;
/// Rooms that are looked at for one page, of which a key may be shown few.
const ROOMS_LOOKED_AT: usize = 10_000;
const ROOMS_AT_ONCE: usize = 500;

#[derive(Clone, Debug, PartialEq)]
pub enum Read {
    Status {
        kinds: Tasks,
    },
    Session {
        id: String,
    },
    Approval {
        id: String,
    },
    Rooms {
        prefix: String,
        after: String,
        limit: usize,
        key: Arc<ApiKey>,
    },
    Events {
        room: RoomName,
        after: Seq,
        limit: usize,
    },
    /// Asked of every reactor: [`census`].
    Connections,
}

pub fn read(read: &Read, rows: &mut dyn Rows, env: &Env) -> Result<Reply, RowsError> {
    let response = match read {
        Read::Status { kinds } => return status(*kinds, rows, env),
        Read::Session { id } => session(id, rows)?,
        Read::Approval { id } => approval(id, rows)?,
        Read::Rooms { prefix, after, limit, key } => rooms(prefix, after, *limit, key, rows, env)?,
        Read::Events { room, after, limit } => events(room, *after, *limit, rows)?,
        Read::Connections => Response::reject(&Failure::Broken.reject()),
    };
    Ok(Reply::Response(Box::new(response)))
}

pub fn read_failed(read: &Read, failure: Failure) -> Reply {
    let reject = failure.reject();
    match read {
        Read::Status { .. } => {
            let fault = Fault::new(503, failure.reason().row().name, "the store did not answer");
            Reply::Frame(ws::frame::text(&wire::refused(&fault, &Facts::default(), None)))
        }
        _ => Reply::Response(Box::new(Response::reject(&reject))),
    }
}

pub fn census(read: &Read, views: &[ConnView]) -> Reply {
    match read {
        Read::Connections => Reply::Response(Box::new(wire::connections(views))),
        other => read_failed(other, Failure::Broken),
    }
}

fn status(kinds: Tasks, rows: &mut dyn Rows, env: &Env) -> Result<Reply, RowsError> {
    let mut waiting = BTreeMap::new();
    for kind in kinds.iter() {
        // At the end of time every unfinished task is ready, those that somebody holds too.
        let tasks = rows.ready_tasks(Tasks::only(kind), Wall(i64::MAX), COUNT_MAX)?;
        let held = tasks.iter().filter(|task| task.holder != 0).count();
        let taken = env.attached.has(kind);
        waiting.insert(kind.as_str(), Waiting { open: tasks.len(), held, taken });
    }
    Ok(Reply::Frame(ws::frame::text(&wire::status(&waiting, env.directory.rooms()))))
}

fn session(id: &str, rows: &mut dyn Rows) -> Result<Response, RowsError> {
    // A backend acts for all users, so no owner is held against it.
    let asker = Asker { actor: Arc::from(""), origin: 0, verified: false };
    Ok(match sessions::find(id, &asker, rows)? {
        Some(record) => wire::body(200, &Facts::of_session(&record)),
        None => wire::problem(&Fault::no_such_session(), &Facts::default()),
    })
}

fn approval(id: &str, rows: &mut dyn Rows) -> Result<Response, RowsError> {
    Ok(match approvals::find(id, rows)? {
        Some(approval) => Response::json(200, approvals::describe(&approval)),
        None => wire::problem(&Fault::no_such_approval(), &Facts::default()),
    })
}

fn rooms(
    prefix: &str,
    after: &str,
    limit: usize,
    key: &ApiKey,
    rows: &mut dyn Rows,
    env: &Env,
) -> Result<Response, RowsError> {
    let mut found = Vec::new();
    let mut after = after.to_owned();
    let mut looked_at = 0;
    let next = loop {
        let page = rows.rooms(prefix, &after, ROOMS_AT_ONCE)?;
        let is_last = page.len() < ROOMS_AT_ONCE;
        looked_at += page.len();
        for (room, row) in page {
            if found.len() == limit {
                return Ok(wire::rooms(&found, Some(&after)));
            }
            after = room.as_str().to_owned();
            if rights::may_read(key, room.as_str()) {
                let members = env.directory.count(&room);
                found.push((room, row, members));
            }
        }
        if is_last {
            break None;
        }
        if looked_at >= ROOMS_LOOKED_AT {
            break Some(after);
        }
    };
    Ok(wire::rooms(&found, next.as_deref()))
}

fn events(room: &RoomName, after: Seq, limit: usize, rows: &mut dyn Rows) -> Result<Response, RowsError> {
    let Some(row) = rows.room(room.as_str())? else {
        return Ok(wire::problem(&Fault::no_such_room(), &Facts::default()));
    };
    let events = rows.events(room.as_str(), after, limit, PAGE_BYTES_MAX)?;
    Ok(wire::events(room, row, &events))
}
