//! Changes, carried out in the writer's open transaction: records, events, tasks, and the reply in the shape of whoever
//! asked.
//!
//! What succeeds is not answered on a socket: its event is shown to everybody, the asker too. What fails is told to the
//! asker alone. Every reason to refuse is found before the first row is written.

use crate::auth::rights::Verb;
use crate::dialect::{Applied, Asker, Failure, Reply, Start};
use crate::http::Response;
use crate::ids::Seq;
use crate::model::{RowsError, Transaction};
use crate::ws;

use super::approvals::{self, Decision, Undecided, Verdict};
use super::runs::{self, Found, Order};
use super::sessions::{self, New};
use super::{reads, views, wire};
use crate::dialect::time;

/// Ids here are canonical, unless it says otherwise.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The first frame of a socket, and in debug mode its session, when there is none.
    Enter {
        id: String,
        /// As the client spelled it (Y13).
        given: String,
        create: bool,
    },
    /// A frame that needs nothing but the time.
    Say {
        kind: &'static str,
        /// A JSON object as text.
        data: String,
    },
    Execute {
        order: Order,
        asked: Asked,
    },
    Decide {
        request: String,
        verdict: Verdict,
        asked: Asked,
    },
    Cancel {
        session: String,
        /// As sent.
        execution: String,
    },
    /// Over REST.
    Create {
        new: New,
    },
    /// Over REST.
    Delete {
        id: String,
    },
}

/// Who waits for the reply, and so its shape.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// A socket of this session.
    Socket { session: String },
    /// A request about this session, as far as it names one.
    Rest { session: Option<String> },
}

impl Change {
    pub fn verb(&self) -> Option<Verb> {
        match self {
            Change::Enter { .. } | Change::Say { .. } => None,
            Change::Decide { .. } => Some(Verb::Approve),
            Change::Execute { .. } | Change::Cancel { .. } | Change::Create { .. } | Change::Delete { .. } => {
                Some(Verb::Write)
            }
        }
    }

    /// About how many bytes it brings to a transaction.
    pub fn weight(&self) -> usize {
        const LEAST: usize = 64;
        match self {
            Change::Execute { order, .. } => LEAST + order.command.len() + order.plan.as_ref().map_or(0, String::len),
            Change::Say { data, .. } => LEAST + data.len(),
            // Of an edit's arguments nobody counts the bytes: a frame's bound is theirs.
            Change::Decide { verdict: Verdict::Edit { args }, .. } => LEAST + args.to_string().len(),
            Change::Create { new } => LEAST + new.config.as_ref().map_or(0, |config| config.to_string().len()),
            Change::Enter { .. } | Change::Decide { .. } | Change::Cancel { .. } | Change::Delete { .. } => LEAST,
        }
    }
}

pub fn apply(change: &Change, asker: &Asker, rows: &mut dyn Transaction) -> Result<Applied, RowsError> {
    let reply = match change {
        Change::Enter { id, given, create } => enter(id, given, *create, asker, rows)?,
        Change::Say { kind, data } => frame(wire::envelope(kind, data, Some(rows.at()))),
        Change::Execute { order, asked } => execute(order, asked, asker, rows)?,
        Change::Decide { request, verdict, asked } => decide(request, verdict, asked, asker, rows)?,
        Change::Cancel { session, execution } => cancel(session, execution, asker, rows)?,
        Change::Create { new } => {
            respond(match sessions::create(&New { owner: New::of(asker).owner, ..new.clone() }, asker, rows)? {
                Ok(session) => views::session(201, &session),
                Err(_) => views::no_session(),
            })
        }
        Change::Delete { id } => respond(match sessions::delete(id, asker, rows)? {
            true => views::deleted(id),
            false => views::no_session(),
        }),
    };
    Ok(Applied::only(reply))
}

/// Fixed words for what certainly was not stored; for what nobody knows, a close and no word that could be a lie (G3).
pub fn failed(change: &Change, failure: Failure) -> Reply {
    let reject = failure.reject();
    match (change, failure) {
        (Change::Enter { .. }, _) => Reply::Reject(reject),
        (
            Change::Execute { asked: Asked::Rest { .. }, .. }
            | Change::Decide { asked: Asked::Rest { .. }, .. }
            | Change::Create { .. }
            | Change::Delete { .. },
            _,
        ) => respond(Response::reject(&reject)),
        // It was to store nothing: nothing is unknown.
        (Change::Say { .. }, Failure::Unknown) => Reply::Silence,
        (_, Failure::Unknown) => Reply::Close(reject),
        (_, Failure::Busy | Failure::Full | Failure::Broken | Failure::Forbidden) => {
            frame(wire::envelope("error", &wire::json(&wire::Error::of(&reject.detail)), None))
        }
    }
}

/// The welcome, and where the room is shown from: one transaction, so that an event is either before or after it.
fn enter(id: &str, given: &str, create: bool, asker: &Asker, rows: &mut dyn Transaction) -> Result<Reply, RowsError> {
    #[derive(serde::Serialize)]
    struct Connected<'a> {
        session_id: &'a str,
        user_id: &'a str,
    }
    let is_there = sessions::find(id, asker, rows)?.is_some();
    if !is_there && !create {
        return Ok(Reply::Reject(reads::unknown()));
    }
    if !is_there && sessions::create(&New { id: Some(id.to_owned()), ..New::default() }, asker, rows)?.is_err() {
        // It was deleted, and does not come back.
        return Ok(Reply::Reject(reads::unknown()));
    }
    let room = sessions::room_of(id);
    let head = rows.room(room.as_str())?.map_or(Seq(0), |row| row.head);
    let connected = wire::json(&Connected { session_id: given, user_id: &asker.actor });
    let frame = ws::frame::text(&wire::envelope("connected", &connected, Some(rows.at())));
    Ok(Reply::Welcome { frame, starts: vec![Start::live(room, head)] })
}

fn execute(order: &Order, asked: &Asked, asker: &Asker, rows: &mut dyn Transaction) -> Result<Reply, RowsError> {
    let session = match asked {
        Asked::Socket { session } | Asked::Rest { session: Some(session) } => sessions::find(session, asker, rows)?,
        // In token mode it belongs to whoever made it.
        Asked::Rest { session: None } => sessions::create(&New::of(asker), asker, rows)?.ok(),
    };
    let Some(session) = session else {
        return Ok(match asked {
            Asked::Socket { session } => {
                let gone = wire::Error { session_id: Some(session), ..wire::Error::of("404: Session not found") };
                error(&gone, rows)
            }
            Asked::Rest { .. } => respond(views::no_session()),
        });
    };
    let (execution, _) = runs::begin(&session, order, asker, None, rows)?;
    Ok(match asked {
        Asked::Socket { .. } => Reply::Silence,
        Asked::Rest { .. } => respond(views::queued(&session.id, &execution)),
    })
}

fn decide(
    request: &str,
    verdict: &Verdict,
    asked: &Asked,
    asker: &Asker,
    rows: &mut dyn Transaction,
) -> Result<Reply, RowsError> {
    // A socket decides for the session that its rights were checked for, and for no other.
    let session = match asked {
        Asked::Socket { session } => Some(session.as_str()),
        Asked::Rest { session } => session.as_deref(),
    };
    let outcome = approvals::decide(request, session, verdict, None, asker, None, rows)?;
    Ok(match (asked, outcome) {
        (Asked::Socket { .. }, Ok(_)) => Reply::Silence,
        (Asked::Socket { .. }, Err(Undecided::Already(first))) => refused(request, ALREADY, Some(&first), rows),
        (Asked::Socket { .. }, Err(Undecided::NoSuch | Undecided::Stale(_))) => {
            let message = if matches!(verdict, Verdict::Edit { .. }) { MISSING } else { ALREADY };
            refused(request, message, None, rows)
        }
        (Asked::Rest { .. }, Ok((_, decision))) => respond(views::decided(request, &decision)),
        (Asked::Rest { .. }, Err(Undecided::Already(first))) => respond(views::already(&first)),
        (Asked::Rest { .. }, Err(Undecided::NoSuch | Undecided::Stale(_))) => respond(views::no_approval()),
    })
}

const MISSING: &str = "404: Approval request not found";
const ALREADY: &str = "404: Approval request not found or already processed";

fn refused(request: &str, message: &str, first: Option<&Decision>, rows: &dyn Transaction) -> Reply {
    let refusal = wire::Error {
        request_id: Some(request),
        decision: first.map(|first| &*first.decision),
        decided_by: first.map(|first| &*first.by),
        decided_at: first.map(|first| time::zulu(first.at)),
        ..wire::Error::of(message)
    };
    error(&refusal, rows)
}

/// Always the same answer, whether or not anything ran (Y6): what really was stopped, the room hears as an event.
fn cancel(session: &str, execution: &str, asker: &Asker, rows: &mut dyn Transaction) -> Result<Reply, RowsError> {
    #[derive(serde::Serialize)]
    struct Cancelled<'a> {
        execution_id: &'a str,
        session_id: &'a str,
        message: &'a str,
    }
    if sessions::find(session, asker, rows)?.is_some()
        && let Found::Running(run) = runs::find(execution, session, rows)?
    {
        run.cancel(asker, None, rows)?;
    }
    let reply = Cancelled { execution_id: execution, session_id: session, message: "Cancellation request received" };
    Ok(frame(wire::envelope("cancelled", &wire::json(&reply), Some(rows.at()))))
}

fn error(error: &wire::Error<'_>, rows: &dyn Transaction) -> Reply {
    frame(wire::envelope("error", &wire::json(error), Some(rows.at())))
}

fn frame(payload: Vec<u8>) -> Reply {
    Reply::Frame(ws::frame::text(&payload))
}

fn respond(response: Response) -> Reply {
    Reply::Response(Box::new(response))
}
