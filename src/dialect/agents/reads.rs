//! Questions to one snapshot, and their answers. Runs on a reader's thread.

use std::sync::Arc;

use super::session::Session;
use super::writes::Change;
use super::{approvals, sessions, views};
use crate::auth::rights::{Rights, Verb};
use crate::dialect::{self, Asker, Entrance, Env, Failure, Query, Reply, Write};
use crate::http::{Reason, Reject, Response};
use crate::model::{Rows, RowsError};

/// Requests shown in one listing.
const PENDING_SHOWN: usize = 1000;

#[derive(Clone, Debug, PartialEq)]
pub enum Read {
    /// Before the 101: which session does the query's text name?
    Resolve {
        text: String,
    },
    /// Over REST; `session` as given.
    Pending {
        session: Option<String>,
    },
    /// `id` is canonical.
    Approval {
        id: String,
    },
    Sessions {
        offset: usize,
        limit: usize,
    },
    /// As given.
    Session {
        id: String,
    },
}

pub fn read(
    read: &Read,
    asker: &Asker,
    rows: &mut dyn Rows,
    env: &Env,
    rights: Option<&Rights>,
) -> Result<Reply, RowsError> {
    let response = match read {
        Read::Resolve { text } => return resolve(text, asker, rows, env, rights),
        Read::Pending { session } => pending(session.as_deref(), asker, rows)?,
        Read::Approval { id } => match approvals::find_for(id, asker, rows)? {
            Some(approval) => views::approval(&approval),
            None => views::no_approval(),
        },
        Read::Sessions { offset, limit } => {
            let (page, total) = sessions::list(*offset, *limit, asker, rows)?;
            views::sessions(&page, total, *offset, *limit)
        }
        Read::Session { id } => match found(id, asker, rows)? {
            Some(session) => views::session(200, &session),
            None => views::no_session(),
        },
    };
    Ok(Reply::Response(Box::new(response)))
}

pub fn read_failed(read: &Read, failure: Failure) -> Reply {
    match read {
        Read::Resolve { .. } => Reply::Reject(failure.reject()),
        _ => Reply::Response(Box::new(Response::reject(&failure.reject()))),
    }
}

/// "No such session", "another user's" and "not granted" look alike.
fn resolve(
    text: &str,
    asker: &Asker,
    rows: &mut dyn Rows,
    env: &Env,
    rights: Option<&Rights>,
) -> Result<Reply, RowsError> {
    let may_create = env.agents.auto_create_sessions && !asker.verified;
    let id = match sessions::canonical(text) {
        Some(id) => id,
        None => match sessions::key(text).filter(|_| may_create) {
            Some(name) => name,
            None => return Ok(Reply::Reject(Reject::new(Reason::BadSession, "Invalid session ID format"))),
        },
    };
    let room = sessions::room_of(&id);
    let is_granted = rights.is_none_or(|rights| rights.allows(room.as_str(), Verb::Read));
    let is_there = sessions::find(&id, asker, rows)?.is_some();
    if !is_granted || !(is_there || may_create) {
        return Ok(Reply::Reject(unknown()));
    }
    // A write also for a session that is there: the welcome bears the time, and may be late for a session that is not.
    let enter = Change::Enter { id: id.clone(), given: text.to_owned(), create: may_create };
    let session = Session { id: Arc::from(id), pong: env.agents.pong };
    Ok(Reply::Found(Box::new(Entrance {
        session: dialect::Session::Agents(session),
        rooms: vec![room.clone()],
        ask: Query::Write(Box::new(Write { room, op: None, change: dialect::Change::Agents(enter) })),
    })))
}

pub fn unknown() -> Reject {
    Reject::new(Reason::UnknownSession, "Invalid session")
}

fn pending(session: Option<&str>, asker: &Asker, rows: &mut dyn Rows) -> Result<Response, RowsError> {
    let (requests, total) = match session.map(sessions::key) {
        None => approvals::pending_for(None, PENDING_SHOWN, asker, rows)?,
        Some(Some(id)) => approvals::pending_for(Some(&id), PENDING_SHOWN, asker, rows)?,
        Some(None) => (Vec::new(), 0),
    };
    Ok(views::approvals(&requests, total))
}

fn found(text: &str, asker: &Asker, rows: &mut dyn Rows) -> Result<Option<crate::model::Record>, RowsError> {
    match sessions::key(text) {
        Some(id) => sessions::find(&id, asker, rows),
        None => Ok(None),
    }
}
