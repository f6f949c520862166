//! Questions, answered over one snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fault::Fault;
use super::revocations::{self, About};
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
    /// All, or the one about this.
    Revocations {
        about: Option<About>,
        skip: usize,
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
        Read::Revocations { about, skip, limit } => revocations::list(about.as_ref(), *skip, *limit, rows)?,
        Read::Connections => Response::reject(&Failure::Broken.reject()),
    };
    Ok(Reply::Response(Box::new(response)))
}

pub fn read_failed(read: &Read, failure: Failure) -> Reply {
    let reject = failure.reject();
    match read {
        Read::Status { .. } => {
            // Nothing was asked to be saved, so "unknown" would say nothing: it may simply be asked again.
            let fault = Fault::new(503, "overloaded", "the store did not answer");
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::super::testing::{key, put_task, said, with_task};
    use super::*;
    use crate::dialect::fake::Fake;
    use crate::ids::{ConnId, OpId};
    use crate::model::{Draft, TaskKind, Transaction};
    use bytes::Bytes;

    fn asked(read: Read, rows: &mut Fake, env: &Env) -> String {
        said(&super::read(&read, rows, env).unwrap())
    }

    fn append(rows: &mut Fake, room: &str, op: Option<&str>, body: &'static str) {
        let draft = Draft { room: RoomName::new(room), kind: "move".into(), body: Bytes::from_static(body.as_bytes()) };
        rows.append(draft, &Arc::from("ann"), op.map(|op| OpId(op.into())).as_ref(), 0).unwrap();
    }

    #[test]
    fn events_are_paged() {
        let mut rows = Fake { at: Wall(1_747_101_540_000_000), ..Fake::default() };
        append(&mut rows, "game:1", Some("a"), r#"{"x":1}"#);
        append(&mut rows, "game:1", None, r#"{"x":2}"#);
        append(&mut rows, "game:1", None, "stored by mistake");
        let page = |after, limit| Read::Events { room: RoomName::new("game:1"), after: Seq(after), limit };
        let head = r#"200 {"room":"game:1","epoch":"0000000000000007","head":3,"floor":0,"events":["#;
        let first = r#"{"seq":1,"type":"move","by":"ann","at":"2025-05-13T01:59:00Z","id":"a","data":{"x":1}}"#;
        let second = r#"{"seq":2,"type":"move","by":"ann","at":"2025-05-13T01:59:00Z","data":{"x":2}}"#;
        let third = r#"{"seq":3,"type":"move","by":"ann","at":"2025-05-13T01:59:00Z","data":null}"#;
        let env = Env::default();
        assert_eq!(asked(page(0, 2), &mut rows, &env), format!("{head}{first},{second}]}}"));
        assert_eq!(asked(page(1, 1), &mut rows, &env), format!("{head}{second}]}}"));
        assert_eq!(asked(page(2, 9), &mut rows, &env), format!("{head}{third}]}}"), "what is stored breaks no answer");
        assert_eq!(asked(page(9, 9), &mut rows, &env), format!("{head}]}}"));
        assert_eq!(
            asked(Read::Events { room: RoomName::new("game:2"), after: Seq(0), limit: 9 }, &mut rows, &env),
            r#"404 problem+json {"type":"about:blank","title":"Not Found","status":404,"detail":"there is no such room","code":"no_such_room"}"#
        );
    }

    #[test]
    fn rooms_are_paged_and_those_that_may_not_be_read_are_not_there() {
        let mut rows = Fake::default();
        for room in ["doc:a", "game:1", "game:2", "game:3", "secret:1"] {
            append(&mut rows, room, None, "{}");
        }
        let env = Env::default();
        let room = RoomName::new("game:2");
        let _receipt = env.directory.enter(&room, 0, 1);
        env.directory.set_members(&room, 0, 4);
        let mut page = |prefix: &str, after: &str, limit| {
            let (prefix, after) = (prefix.to_owned(), after.to_owned());
            let key = key(&["read:game:*", "read:doc:*"]);
            asked(Read::Rooms { prefix, after, limit, key }, &mut rows, &env)
        };
        let view = |room: &str, members| {
            format!(r#"{{"room":"{room}","epoch":"0000000000000007","head":1,"floor":0,"members":{members}}}"#)
        };
        let (first, second, third) = (view("game:1", 0), view("game:2", 4), view("game:3", 0));
        assert_eq!(page("", "", 2), format!(r#"200 {{"rooms":[{},{first}],"next":"game:1"}}"#, view("doc:a", 0)));
        assert_eq!(page("", "game:1", 2), format!(r#"200 {{"rooms":[{second},{third}],"next":"game:3"}}"#));
        assert_eq!(page("", "game:3", 2), r#"200 {"rooms":[]}"#);
        assert_eq!(page("game:", "", 9), format!(r#"200 {{"rooms":[{first},{second},{third}]}}"#));
        assert_eq!(page("secret:", "", 9), r#"200 {"rooms":[]}"#);
    }

    #[test]
    fn many_rooms_of_others_do_not_hide_ones_own() {
        let mut rows = Fake::default();
        for number in 0..ROOMS_LOOKED_AT + 1 {
            append(&mut rows, &format!("a:{number:06}"), None, "{}");
        }
        append(&mut rows, "b:1", None, "{}");
        let page =
            |after: &str| Read::Rooms { prefix: "".into(), after: after.into(), limit: 9, key: key(&["read:b:*"]) };
        let env = Env::default();
        assert_eq!(asked(page(""), &mut rows, &env), r#"200 {"rooms":[],"next":"a:009999"}"#);
        assert!(asked(page("a:009999"), &mut rows, &env).starts_with(r#"200 {"rooms":[{"room":"b:1","#));
    }

    #[test]
    fn status_counts_what_waits_and_what_is_held() {
        let mut rows = with_task(TaskKind::Execute);
        put_task(&mut rows, TaskKind::Execute);
        rows.lease_task(crate::model::TaskId(2), 77, Wall(i64::MAX / 2)).unwrap();
        put_task(&mut rows, TaskKind::Execute);
        rows.finish_task(crate::model::TaskId(3)).unwrap();
        let env = Env::default();
        env.attached.set(Tasks::only(TaskKind::Execute));
        let kinds = Tasks::only(TaskKind::Execute).with(TaskKind::Chat);
        assert_eq!(
            asked(Read::Status { kinds }, &mut rows, &env),
            r#"{"op":"status","tasks":{"chat":{"open":0,"held":0,"taken":false},"execute":{"open":2,"held":1,"taken":true}},"rooms":0}"#
        );
    }

    #[test]
    fn connections_are_shown_by_what_they_are() {
        let view = |slot, session, user: &str, rooms: &[&str]| ConnView {
            id: ConnId { reactor: 1, slot, generation: 9 },
            session,
            user: user.into(),
            client: "192.0.2.7".parse().unwrap(),
            connected_at: Wall(1_747_101_540_000_000),
            rooms: rooms.iter().map(|room| RoomName::new(room)).collect(),
        };
        use crate::dialect::Session;
        let backend = Session::Backend(super::super::Session::new(key(&["*"])));
        let views = [view(3, Session::Echo, "ann", &["doc:a", "debug"]), view(4, backend, "worker", &[])];
        assert_eq!(
            said(&census(&Read::Connections, &views)),
            concat!(
                r#"200 {"connections":[{"id":"c1.3.9","dialect":"native","user":"ann","client":"192.0.2.7","#,
                r#""connected_at":"2025-05-13T01:59:00Z","rooms":["doc:a","debug"]},"#,
                r#"{"id":"c1.4.9","dialect":"backend","user":"worker","client":"192.0.2.7","#,
                r#""connected_at":"2025-05-13T01:59:00Z","rooms":[]}]}"#
            )
        );
    }

    #[test]
    fn a_read_that_failed_is_told_in_its_shape() {
        let status = Read::Status { kinds: Tasks::default() };
        assert_eq!(
            said(&read_failed(&status, Failure::Busy)),
            r#"{"op":"refused","code":"overloaded","detail":"the store did not answer"}"#
        );
        let answer = said(&read_failed(&Read::Connections, Failure::Busy));
        assert!(answer.starts_with("503 problem+json ") && answer.contains("Retry-After: 1"), "{answer}");
    }

    #[test]
    fn sessions_and_approvals_are_shown() {
        use crate::dialect::Asker;
        const S: &str = "0af0bd5c-0000-4000-8000-00000000000a";
        let mut rows = Fake::default();
        let owner = Asker { actor: "ann".into(), origin: 0, verified: true };
        let new = sessions::New { id: Some(S.into()), owner: Some("ann".into()), ..Default::default() };
        sessions::create(&new, &owner, &mut rows).unwrap().unwrap();
        let env = Env::default();
        assert_eq!(
            asked(Read::Session { id: S.to_owned() }, &mut rows, &env),
            format!(r#"200 {{"session":"{S}","user_id":"ann","created_at":"1970-01-01T00:00:00Z","state":"active"}}"#)
        );
        assert!(asked(Read::Session { id: "x".to_owned() }, &mut rows, &env).starts_with("404 problem+json "));
        assert!(asked(Read::Approval { id: "x".to_owned() }, &mut rows, &env).starts_with("404 problem+json "));
        let wanted = approvals::Wanted {
            session: S.to_owned(),
            id: None,
            execution_id: None,
            tool_name: "pay".to_owned(),
            tool_args: serde_json::json!({}),
            reason: None,
            amount: None,
            currency: None,
            estimated_cost: None,
            expires_in: None,
        };
        let approval = approvals::request(&wanted, &owner, &mut rows).unwrap().unwrap();
        let shown = asked(Read::Approval { id: approval.id.clone() }, &mut rows, &env);
        assert!(shown.starts_with("200 {") && shown.contains(&approval.id), "{shown}");
    }
}
