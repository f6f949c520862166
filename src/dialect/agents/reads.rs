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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::super::testing::{FIRST, S, SECOND, asker, publish, rows, running, said, user};
    use super::*;
    use crate::dialect::fake::Fake;

    fn env(auto_create_sessions: bool) -> Env {
        Env { agents: super::super::Env { auto_create_sessions, pong: false }, ..Env::default() }
    }

    fn asked(question: &Read, rows: &mut Fake) -> String {
        said(&read(question, &asker("ann"), rows, &env(false), None).unwrap())
    }

    #[test]
    fn y3_y4_y14_who_is_let_in() {
        let mut rows = rows();
        rows.records[0].parent = "ann".into();
        let upper = S.to_uppercase();
        let bad = "reject session Invalid session ID format";
        let unknown = "reject unknown_session Invalid session";
        for (text, who, auto, expected) in [
            (S, asker("ann"), false, "enter"),
            (&upper, user("ann"), false, "enter"),
            (S, user("bob"), false, unknown),
            (S, asker("bob"), false, "enter"),
            (FIRST, asker("ann"), false, unknown),
            (FIRST, asker("ann"), true, "enter"),
            (FIRST, user("ann"), true, unknown),
            ("test", asker("ann"), false, bad),
            ("test", asker("ann"), true, "enter"),
            ("test", user("ann"), true, bad),
            ("a b", asker("ann"), true, bad),
            ("a/../b", asker("ann"), true, bad),
        ] {
            let reply = read(&Read::Resolve { text: text.into() }, &who, &mut rows, &env(auto), None).unwrap();
            let got = match &reply {
                Reply::Found(_) => "enter".to_owned(),
                other => said(other),
            };
            assert_eq!(got, expected, "{text} {who:?} {auto}");
        }
        let reply = read(&Read::Resolve { text: upper.clone() }, &asker("ann"), &mut rows, &env(false), None).unwrap();
        let Reply::Found(entrance) = reply else { panic!("{reply:?}") };
        assert_eq!(entrance.rooms, [sessions::room_of(S)]);
        let Query::Write(write) = entrance.ask else { panic!("a welcome bears the time") };
        let enter = Change::Enter { id: S.into(), given: upper, create: false };
        assert_eq!(write.change, dialect::Change::Agents(enter));
    }

    #[test]
    fn what_may_not_be_read_is_not_there() {
        let mut rows = rows();
        let mut resolved = |pattern: &str| {
            let rights = Rights::parse([(pattern, ["read"])]).unwrap();
            let question = Read::Resolve { text: S.into() };
            said(&read(&question, &asker("ann"), &mut rows, &env(true), Some(&rights)).unwrap())
        };
        assert_eq!(resolved("session:x*"), "reject unknown_session Invalid session");
        assert!(resolved("session:*").starts_with("Found"));
    }

    #[test]
    fn listings_are_in_the_original_s_shape() {
        let mut rows = running();
        publish("approval_required", r#"{"tool_name":"pay","tool_args":{"a":1}}"#, &mut rows).unwrap();
        let item = format!(
            r#"{{"id":"{SECOND}","session_id":"{S}","tool_name":"pay","tool_args":{{"a":1}},"decision":"pending","edited_args":null,"created_at":"2025-12-25T00:05:37.123456","decision_made_at":null}}"#
        );
        let listing = format!(r#"200 {{"requests":[{item}],"total":1}}"#);
        assert_eq!(asked(&Read::Pending { session: None }, &mut rows), listing);
        assert_eq!(asked(&Read::Pending { session: Some(S.to_uppercase()) }, &mut rows), listing);
        let empty = r#"200 {"requests":[],"total":0}"#;
        assert_eq!(asked(&Read::Pending { session: Some(FIRST.into()) }, &mut rows), empty);
        assert_eq!(asked(&Read::Pending { session: Some("?".into()) }, &mut rows), empty);
        assert_eq!(asked(&Read::Approval { id: SECOND.into() }, &mut rows), format!("200 {item}"));
        assert_eq!(
            asked(&Read::Approval { id: FIRST.into() }, &mut rows),
            r#"404 {"error":"404: Approval request not found","detail":"Approval request not found"}"#
        );
        let session = format!(
            r#"{{"id":"{S}","user_id":"maker","wallet_address":null,"config":null,"created_at":"2025-12-25T00:05:37.123456","last_active":"2025-12-25T00:05:37.123456","status":"active"}}"#
        );
        assert_eq!(
            asked(&Read::Sessions { offset: 0, limit: 10 }, &mut rows),
            format!(r#"200 {{"sessions":[{session}],"total":1,"offset":0,"limit":10}}"#)
        );
        assert_eq!(
            asked(&Read::Sessions { offset: 1, limit: 10 }, &mut rows),
            r#"200 {"sessions":[],"total":1,"offset":1,"limit":10}"#
        );
        assert_eq!(asked(&Read::Session { id: S.into() }, &mut rows), format!("200 {session}"));
        assert_eq!(
            asked(&Read::Session { id: "test".into() }, &mut rows),
            r#"404 {"error":"404: Session not found","detail":"Session not found"}"#
        );
    }

    #[test]
    fn an_answer_that_cannot_be_had_is_not_invented() {
        let resolve = Read::Resolve { text: S.into() };
        assert!(said(&read_failed(&resolve, Failure::Busy)).starts_with("reject store_busy"));
        assert!(said(&read_failed(&Read::Pending { session: None }, Failure::Busy)).starts_with("503 "));
    }
}
