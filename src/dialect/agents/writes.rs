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
            Change::Enter { .. } => None,
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
    Ok(Reply::Welcome { frame, starts: vec![Start::live(room, head)], stand: None })
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::super::testing::{
        AT, FIRST, ROOM, S, SECOND, apply, apply_as, asker, execute, publish, rows, running, said, user,
    };
    use super::*;
    use crate::dialect::fake::Fake;
    use serde_json::json;

    const STAMP: &str = r#""timestamp": "2025-12-25T00:05:37.123456"}"#;

    fn enter(id: &str, given: &str, create: bool, rows: &mut Fake) -> String {
        apply(&Change::Enter { id: id.into(), given: given.into(), create }, rows)
    }

    fn decided(request: &str, verdict: Verdict, asked: Asked, rows: &mut Fake) -> String {
        apply(&Change::Decide { request: request.into(), verdict, asked }, rows)
    }

    fn socket() -> Asked {
        Asked::Socket { session: S.into() }
    }

    fn over_rest() -> Asked {
        Asked::Rest { session: None }
    }

    /// A run that waits for the decision of [`SECOND`].
    fn waiting() -> Fake {
        let mut rows = running();
        publish("approval_required", r#"{"tool_name":"pay"}"#, &mut rows).unwrap();
        rows
    }

    #[test]
    fn y13_y14_the_welcome_says_the_id_as_it_was_given() {
        let given = S.to_uppercase();
        let mut rows = running();
        publish("thinking", "{}", &mut rows).unwrap();
        assert_eq!(
            enter(S, &given, false, &mut rows),
            format!(
                r#"{{"type": "connected", "data": {{"session_id": "{given}", "user_id": "ann"}}, {STAMP} [Start {{ room: {ROOM}, after: Seq(1), head: Seq(1) }}]"#
            )
        );
        assert_eq!(enter("test", "test", false, &mut rows), "reject unknown_session Invalid session");
        let made = enter("test", "test", true, &mut rows);
        assert!(
            made.starts_with(r#"{"type": "connected", "data": {"session_id": "test", "user_id": "ann"}, "#),
            "{made}"
        );
        assert!(made.ends_with("[Start { room: session:test, after: Seq(1), head: Seq(1) }]"), "{made}");
        enter("test", "test", true, &mut rows);
        assert_eq!(rows.told("session:test").len(), 1, "made once");
        apply(&Change::Delete { id: "test".into() }, &mut rows);
        assert_eq!(enter("test", "test", true, &mut rows), "reject unknown_session Invalid session");
    }

    #[test]
    fn an_execute_is_answered_by_its_event() {
        let mut rows = rows();
        let order = Order { command: "pay".into(), plan: Some(r#"[{"b":1,"a":2}]"#.into()), budget_limit_usd: None };
        assert_eq!(apply(&Change::Execute { order, asked: socket() }, &mut rows), "Silence");
        let thinking = format!(
            r#"thinking {{"session_id":"{S}","command":"pay","timestamp":"2025-12-25T00:05:37","execution_id":"{FIRST}"}}"#
        );
        assert_eq!(rows.told(ROOM), [thinking]);
        let task = format!(
            r#"execute {{"execution_id":"{FIRST}","session_id":"{S}","command":"pay","plan":[{{"b":1,"a":2}}],"user_id":"ann"}}"#
        );
        assert_eq!(rows.given(), [task]);
        apply(&Change::Delete { id: S.into() }, &mut rows);
        let gone = format!(
            r#"{{"type": "error", "data": {{"message": "404: Session not found", "session_id": "{S}"}}, {STAMP}"#
        );
        assert_eq!(execute("again", &mut rows), gone);
    }

    #[test]
    fn y9_errors_of_decisions_are_the_texts_that_clients_know() {
        let mut rows = waiting();
        let none = "0af0bd5c-0000-4000-8000-0000000000ff";
        let error = |message: &str, request: &str, more: &str| {
            format!(
                r#"{{"type": "error", "data": {{"message": "{message}", "request_id": "{request}"{more}}}, {STAMP}"#
            )
        };
        let already = "404: Approval request not found or already processed";
        let edit = || Verdict::Edit { args: json!({}) };
        assert_eq!(decided(none, Verdict::Approve, socket(), &mut rows), error(already, none, ""));
        assert_eq!(decided(none, Verdict::Reject { reason: None }, socket(), &mut rows), error(already, none, ""));
        assert_eq!(decided(none, edit(), socket(), &mut rows), error("404: Approval request not found", none, ""));
        let elsewhere = Asked::Socket { session: "other".into() };
        assert_eq!(decided(SECOND, Verdict::Approve, elsewhere, &mut rows), error(already, SECOND, ""));
        assert_eq!(decided(SECOND, edit(), socket(), &mut rows), "Silence");
        let first = r#", "decision": "edited", "decided_by": "ann", "decided_at": "2025-12-25T00:05:37.123456Z""#;
        for verdict in [Verdict::Approve, Verdict::Reject { reason: None }, edit()] {
            assert_eq!(decided(SECOND, verdict, socket(), &mut rows), error(already, SECOND, first));
        }
        assert_eq!(rows.told(ROOM).len(), 2);
    }

    #[test]
    fn y6_cancel_is_always_answered_and_stops_what_runs() {
        let cancel = |execution: &str, rows: &mut Fake| {
            apply(&Change::Cancel { session: S.into(), execution: execution.into() }, rows)
        };
        let reply = |execution: &str| {
            format!(
                r#"{{"type": "cancelled", "data": {{"execution_id": "{execution}", "session_id": "{S}", "message": "Cancellation request received"}}, {STAMP}"#
            )
        };
        let mut rows = waiting();
        rows.tasks.clear();
        let unknown = "0AF0BD5C-0000-4000-8000-0000000000FF";
        assert_eq!(cancel(unknown, &mut rows), reply(unknown));
        assert_eq!((rows.told(ROOM).len(), rows.tasks.len()), (1, 0));
        assert_eq!(cancel(FIRST, &mut rows), reply(FIRST));
        let error = format!(
            r#"error {{"message":"Execution cancelled","session_id":"{S}","execution_id":"{FIRST}","error_type":"cancelled"}}"#
        );
        assert_eq!(rows.told(ROOM)[2], error);
        let given = rows.given();
        assert!(given[0].starts_with("decision ") && given[0].contains(r#""decision":"cancelled""#), "{given:?}");
        assert_eq!(given[1], format!(r#"cancel {{"execution_id":"{FIRST}","session_id":"{S}","by":"ann"}}"#));
        assert_eq!(cancel(FIRST, &mut rows), reply(FIRST));
        assert_eq!((rows.told(ROOM).len(), rows.tasks.len()), (3, 2), "cancelled once");
    }

    #[test]
    fn rest_decides_the_same_rows() {
        for (verdict, reply, kind) in [
            (
                Verdict::Approve,
                r#""decision":"approved","message":"Request approved. Agent execution will resume.""#,
                "approved",
            ),
            (
                Verdict::Reject { reason: None },
                r#""decision":"rejected","message":"Request rejected. Reason: No reason provided""#,
                "rejected",
            ),
            (
                Verdict::Reject { reason: Some("no".into()) },
                r#""decision":"rejected","message":"Request rejected. Reason: no""#,
                "rejected",
            ),
            (
                Verdict::Edit { args: json!({"a": 1}) },
                r#""decision":"edited","message":"Request edited and approved. Agent will resume with modified arguments.""#,
                "edit_approved",
            ),
        ] {
            let mut rows = waiting();
            let expected = format!(r#"200 {{"request_id":"{SECOND}",{reply}}}"#);
            assert_eq!(decided(SECOND, verdict, over_rest(), &mut rows), expected);
            assert!(rows.told(ROOM)[1].starts_with(kind), "the sockets see it");
        }
        let mut rows = waiting();
        decided(SECOND, Verdict::Approve, socket(), &mut rows);
        assert_eq!(
            decided(SECOND, Verdict::Reject { reason: None }, over_rest(), &mut rows),
            r#"400 {"error":"400: Approval request already processed","detail":"Approval request already processed","decision":"approved","decided_by":"ann","decided_at":"2025-12-25T00:05:37.123456Z"}"#
        );
        assert_eq!(
            decided(FIRST, Verdict::Approve, over_rest(), &mut rows),
            r#"404 {"error":"404: Approval request not found","detail":"Approval request not found"}"#
        );
    }

    #[test]
    fn rest_makes_uses_and_deletes_sessions() {
        let mut rows = Fake { at: AT, ..Fake::default() };
        let order = |command: &str| Order { command: command.into(), ..Order::default() };
        let limited = Order { budget_limit_usd: serde_json::from_str("2.5").unwrap(), ..order("pay") };
        assert_eq!(
            apply_as(&Change::Execute { order: limited, asked: over_rest() }, &user("ann"), &mut rows),
            format!(
                r#"200 {{"session_id":"{FIRST}","status":"queued","result":{{}},"total_cost_usd":0.0,"execution_id":"{SECOND}"}}"#
            )
        );
        assert!(
            rows.given()[0].ends_with(r#""plan":null,"user_id":"ann","budget_limit_usd":2.5}"#),
            "{:?}",
            rows.given()
        );
        let again = Change::Execute { order: order("x"), asked: Asked::Rest { session: Some(FIRST.into()) } };
        let missing = r#"404 {"error":"404: Session not found","detail":"Session not found"}"#;
        assert_eq!(apply_as(&again, &user("bob"), &mut rows), missing);
        assert!(apply_as(&again, &user("ann"), &mut rows).starts_with("200 "));
        let new = New { id: Some(S.into()), wallet_address: Some("0x1".into()), ..New::default() };
        assert_eq!(
            apply_as(&Change::Create { new: new.clone() }, &user("ann"), &mut rows),
            format!(
                r#"201 {{"id":"{S}","user_id":"ann","wallet_address":"0x1","config":null,"created_at":"2025-12-25T00:05:37.123456","last_active":"2025-12-25T00:05:37.123456","status":"active"}}"#
            )
        );
        assert_eq!(apply_as(&Change::Create { new }, &user("bob"), &mut rows), missing);
        let delete = Change::Delete { id: S.into() };
        assert_eq!(apply_as(&delete, &user("bob"), &mut rows), missing);
        assert_eq!(
            apply_as(&delete, &user("ann"), &mut rows),
            format!(r#"200 {{"message":"Session deleted successfully","session_id":"{S}"}}"#)
        );
        assert_eq!(apply_as(&delete, &user("ann"), &mut rows), missing);
    }

    #[test]
    fn g3_only_what_is_certain_is_called_refused() {
        let frame = r#"{"type": "error", "data": {"message": "writing is not granted; nothing was saved"}}"#;
        let change = |asked| Change::Execute { order: Order::default(), asked };
        for (change, failure, expected) in [
            (change(socket()), Failure::Unknown, "close unknown"),
            (change(socket()), Failure::Forbidden, frame),
            (
                Change::Enter { id: S.into(), given: S.into(), create: false },
                Failure::Busy,
                "reject store_busy the store is behind; nothing was saved",
            ),
        ] {
            assert_eq!(said(&failed(&change, failure)), expected);
        }
        for change in [change(over_rest()), Change::Delete { id: S.into() }] {
            assert!(said(&failed(&change, Failure::Unknown)).starts_with("504 "));
        }
    }

    #[test]
    fn rights_and_weights() {
        let order = Order { command: "x".repeat(1000), ..Order::default() };
        for (change, verb, weight) in [
            (Change::Enter { id: S.into(), given: S.into(), create: true }, None, 64),
            (Change::Execute { order, asked: socket() }, Some(Verb::Write), 1064),
            (Change::Decide { request: S.into(), verdict: Verdict::Approve, asked: socket() }, Some(Verb::Approve), 64),
            (Change::Cancel { session: S.into(), execution: S.into() }, Some(Verb::Write), 64),
            (Change::Create { new: New::default() }, Some(Verb::Write), 64),
            (Change::Delete { id: S.into() }, Some(Verb::Write), 64),
        ] {
            assert_eq!((change.verb(), change.weight()), (verb, weight), "{change:?}");
        }
        assert_eq!(asker("x").origin, 0);
    }
}
