//! The JSON of the REST replies, members in the order of the original's models; errors in its two shapes.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

use super::approvals::{Approval, Decision};
use super::{sessions, wire};
use crate::dialect::time;
use crate::http::Response;
use crate::model::Record;

pub fn approvals(requests: &[Approval], total: usize) -> Response {
    #[derive(Serialize)]
    struct Pending<'a> {
        requests: Vec<Item<'a>>,
        total: usize,
    }
    json(200, &Pending { requests: requests.iter().map(Item::of).collect(), total })
}

pub fn approval(approval: &Approval) -> Response {
    json(200, &Item::of(approval))
}

#[derive(Serialize)]
struct Item<'a> {
    id: &'a str,
    session_id: &'a str,
    tool_name: &'a str,
    tool_args: &'a Value,
    decision: &'a str,
    edited_args: Option<&'a Value>,
    created_at: String,
    decision_made_at: Option<String>,
}

impl<'a> Item<'a> {
    fn of(approval: &'a Approval) -> Item<'a> {
        let decided = approval.decided.as_ref();
        Item {
            id: &approval.id,
            session_id: &approval.session,
            tool_name: &approval.tool_name,
            tool_args: &approval.tool_args,
            decision: decided.map_or("pending", |decision| &decision.decision),
            edited_args: decided.and_then(|decision| decision.edited_args.as_ref()),
            created_at: time::naive_utc(approval.created_at),
            decision_made_at: decided.map(|decision| time::naive_utc(decision.at)),
        }
    }
}

pub fn decided(request: &str, decision: &Decision) -> Response {
    #[derive(Serialize)]
    struct Decided<'a> {
        request_id: &'a str,
        decision: &'a str,
        message: String,
    }
    let message = match &*decision.decision {
        "approved" => "Request approved. Agent execution will resume.".to_owned(),
        "edited" => "Request edited and approved. Agent will resume with modified arguments.".to_owned(),
        _ => format!("Request rejected. Reason: {}", decision.reason.as_deref().unwrap_or("No reason provided")),
    };
    json(200, &Decided { request_id: request, decision: &decision.decision, message })
}

/// Late and duplicate deciders are told who decided, when and what.
pub fn already(first: &Decision) -> Response {
    #[derive(Serialize)]
    struct Already<'a> {
        error: &'a str,
        detail: &'a str,
        decision: &'a str,
        decided_by: &'a str,
        decided_at: String,
    }
    json(
        400,
        &Already {
            error: "400: Approval request already processed",
            detail: "Approval request already processed",
            decision: &first.decision,
            decided_by: &first.by,
            decided_at: time::zulu(first.at),
        },
    )
}

/// The original ran the command while its client waited, and said `completed` or `failed`. Here a backend runs it, and the
/// session's room hears of it: what is true when the request is answered is that it was stored.
pub fn queued(session_id: &str, execution_id: &str) -> Response {
    #[derive(Serialize)]
    struct Queued<'a> {
        session_id: &'a str,
        status: &'a str,
        result: Map<String, Value>,
        total_cost_usd: f64,
        execution_id: &'a str,
    }
    json(200, &Queued { session_id, status: "queued", result: Map::new(), total_cost_usd: 0.0, execution_id })
}

pub fn sessions(page: &[Record], total: usize, offset: usize, limit: usize) -> Response {
    #[derive(Serialize)]
    struct Listing {
        sessions: Vec<Session>,
        total: usize,
        offset: usize,
        limit: usize,
    }
    json(200, &Listing { sessions: page.iter().map(Session::of).collect(), total, offset, limit })
}

pub fn session(status: u16, session: &Record) -> Response {
    json(status, &Session::of(session))
}

#[derive(Serialize)]
struct Session {
    id: String,
    user_id: String,
    wallet_address: Option<String>,
    config: Option<Value>,
    created_at: String,
    last_active: String,
    status: String,
}

impl Session {
    fn of(session: &Record) -> Session {
        let sessions::Facts { user_id, wallet_address, config } = sessions::Facts::of(session);
        Session {
            id: session.id.clone(),
            user_id,
            wallet_address,
            config,
            created_at: time::naive_utc(session.created_at),
            last_active: time::naive_utc(session.updated_at),
            status: session.state.clone(),
        }
    }
}

pub fn deleted(session_id: &str) -> Response {
    #[derive(Serialize)]
    struct Deleted<'a> {
        message: &'a str,
        session_id: &'a str,
    }
    json(200, &Deleted { message: "Session deleted successfully", session_id })
}

pub fn no_approval() -> Response {
    missing("Approval request not found")
}

pub fn no_session() -> Response {
    missing("Session not found")
}

/// As the original's routes raised it.
fn missing(detail: &str) -> Response {
    #[derive(Serialize)]
    struct Missing<'a> {
        error: String,
        detail: &'a str,
    }
    json(404, &Missing { error: format!("404: {detail}"), detail })
}

/// As its framework spelled what no route took.
pub fn detail(status: u16, detail: &str) -> Response {
    #[derive(Serialize)]
    struct Detail<'a> {
        detail: &'a str,
    }
    json(status, &Detail { detail })
}

/// What is wrong with one place in a request, as FastAPI's validation spells it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fault {
    pub loc: Vec<&'static str>,
    pub msg: &'static str,
    pub r#type: &'static str,
}

pub fn unprocessable(fault: Fault) -> Response {
    #[derive(Serialize)]
    struct Faults {
        detail: [Fault; 1],
    }
    json(422, &Faults { detail: [fault] })
}

fn json(status: u16, body: &impl Serialize) -> Response {
    Response::json(status, Bytes::from(wire::json(body)))
}
