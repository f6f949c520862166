//! Changes, carried out in the writer's open transaction, and their replies.
//!
//! How far a client has seen a workflow's room is a record on [`Shelf::Mark`], one for each client id and one for anybody:
//! what stands behind both marks has been seen by nobody. So messages for a page that is away wait for it (V8), across
//! restarts too, and are shown once.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::paths::{EVERYBODY, Family, Place, family};
use super::{census, posts, reads, wire};
use crate::auth::rights::Verb;
use crate::dialect::{Applied, Asker, Env, Failure, Reply, Start, Write};
use crate::http::{Reason, Reject, Response};
use crate::ids::{RoomName, Seq};
use crate::model::{Record, RowsError, Shelf, TaskKind, Transaction};
use crate::mutant::Mutant;
use crate::ws;

/// Messages that wait for whoever is away.
pub const WAITING_MAX: u64 = 50;
/// Client ids that a room remembers; past it the longest known is forgotten, and is shown what nobody has seen. Ids are
/// the clients' own, so a page that makes a new one at every visit would fill the store.
const MARKS_MAX: usize = 1000;
/// States of a mark.
const OF_ANYBODY: &str = "anybody";
const OF_A_CLIENT: &str = "client";

#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A socket is let in: its welcome, and from where it is shown its rooms.
    Enter {
        place: Place,
        client: Option<Arc<str>>,
    },
    /// How far clients have seen the room of the write: (client id, or empty for one without; seq).
    Seen {
        seen: Vec<(Arc<str>, Seq)>,
    },
    Control {
        id: Arc<str>,
        /// As the reply names it.
        action: String,
        client: Option<Arc<str>>,
    },
    Chat {
        message: String,
        temperature: f64,
    },
    /// Over HTTP: an object for everybody.
    Broadcast {
        body: Bytes,
    },
    /// Over HTTP: an object for a topic, whose room is the write's.
    Publish {
        topic: String,
        body: Bytes,
    },
}

impl Change {
    pub fn verb(&self) -> Option<Verb> {
        match self {
            Change::Enter { .. } => Some(Verb::Read),
            Change::Seen { .. } => None,
            Change::Control { .. } | Change::Chat { .. } | Change::Broadcast { .. } | Change::Publish { .. } => {
                Some(Verb::Write)
            }
        }
    }

    /// About how many bytes it brings to a transaction.
    pub fn weight(&self) -> usize {
        match self {
            Change::Enter { .. } | Change::Control { .. } => 64,
            Change::Seen { seen } => 64 * seen.len().max(1),
            Change::Chat { message, .. } => 64 + 2 * message.len(),
            Change::Broadcast { body } | Change::Publish { body, .. } => body.len(),
        }
    }
}

pub fn apply(
    change: &Change,
    write: &Write,
    asker: &Asker,
    rows: &mut dyn Transaction,
    env: &Env,
) -> Result<Applied, RowsError> {
    let room = &write.room;
    let reply = match change {
        Change::Enter { place, client } => enter(place, client.as_deref(), asker, rows, env)?,
        Change::Seen { .. } if env.canary.is(Mutant::MarksForgotten) => Reply::Silence,
        Change::Seen { seen } => {
            note(room, seen, rows)?;
            Reply::Silence
        }
        Change::Control { id, action, client } => frame(control(room, id, action, client.as_deref(), rows, env)?),
        Change::Chat { message, temperature } => {
            if let Some((Family::Chat, thread)) = family(room.as_str()) {
                posts::say_in_chat(room, &thread, message, *temperature, asker, rows)?;
            }
            Reply::Silence
        }
        Change::Broadcast { body } => match posts::broadcast(room, body, asker, rows)? {
            Some(_) => respond(&Sent { message: "Broadcast sent", recipients: env.directory.count(room) }),
            None => not_an_object(),
        },
        Change::Publish { topic, body } => match posts::publish_given(room, topic, body, asker, rows)? {
            Some(_) => {
                let subscribers = env.directory.count(room);
                respond(&Published { message: "Message published", topic, subscribers })
            }
            None => not_an_object(),
        },
    };
    Ok(Applied::only(reply))
}

/// Fixed words for what certainly was not stored; for what nobody knows, a close and no word that could be a lie (G3).
pub fn failed(change: &Change, failure: Failure) -> Reply {
    let reject = failure.reject();
    match (change, failure) {
        (Change::Enter { .. }, _) => Reply::Reject(reject),
        (Change::Seen { .. }, _) => Reply::Silence,
        (Change::Control { .. } | Change::Chat { .. }, Failure::Unknown) => Reply::Close(reject),
        (Change::Control { .. }, _) => frame(wire::error(&format!("Control action failed: {}", reject.detail))),
        (Change::Chat { .. }, _) => frame(wire::chat_error(&reject.detail)),
        (Change::Broadcast { .. } | Change::Publish { .. }, _) => Reply::Response(Box::new(Response::reject(&reject))),
    }
}

#[derive(Serialize)]
struct Sent {
    message: &'static str,
    recipients: usize,
}

#[derive(Serialize)]
struct Published<'a> {
    message: &'static str,
    topic: &'a str,
    subscribers: usize,
}

fn frame(payload: Bytes) -> Reply {
    Reply::Frame(ws::frame::text(&payload))
}

fn respond<T: Serialize>(value: &T) -> Reply {
    Reply::Response(Box::new(Response::json(200, wire::json(value))))
}

/// The endpoint has looked already (rest.rs).
fn not_an_object() -> Reply {
    Reply::Response(Box::new(Response::reject(&Reject::new(Reason::Syntax, "the body is no JSON object"))))
}

fn enter(
    place: &Place,
    client: Option<&str>,
    asker: &Asker,
    rows: &mut dyn Transaction,
    env: &Env,
) -> Result<Reply, RowsError> {
    let room = place.room();
    let told = match client {
        Some(client) => client.to_owned(),
        None => census::minted(place, if asker.origin == 0 { rows.random() } else { census::number(asker.origin) }),
    };
    let spelled = room.as_ref().and_then(|room| super::paths::spelled(room.as_str()));
    let mut frames = ws::frame::text(&wire::welcome(rows.at(), &told, spelled.as_deref())).to_vec();
    if let Some(payload) = reads::newest(place, rows, &env.attached)? {
        frames.extend_from_slice(&ws::frame::text(&payload));
    }
    let mut starts = Vec::with_capacity(2);
    match (place, room) {
        (Place::Workflow(_), Some(room)) => starts.push(resume(room, client, rows)?),
        // The newest value was just told, and a chat begins with what is said in it.
        (_, Some(room)) => {
            let head = reads::head(room.as_str(), rows)?;
            starts.push(Start::live(room, head));
        }
        (_, None) => {}
    }
    starts.push(Start::live(RoomName::new(EVERYBODY), reads::head(EVERYBODY, rows)?));
    Ok(Reply::Welcome { frame: frames.into(), starts, stand: None })
}

/// A client comes back to where it was. One without an id takes what nobody has seen, in this transaction: of two that come
/// at once the second finds it taken.
fn resume(room: RoomName, client: Option<&str>, rows: &mut dyn Transaction) -> Result<Start, RowsError> {
    let (head, floor) = rows.room(room.as_str())?.map_or((Seq(0), Seq(0)), |row| (row.head, row.floor));
    let own = match client {
        Some(client) => mark(&room, client, rows)?,
        None => None,
    };
    let seen = match own {
        Some(seq) => seq,
        None => mark(&room, "", rows)?.unwrap_or_default(),
    };
    let oldest = head.0.saturating_sub(WAITING_MAX).max(floor.0);
    let after = Seq(seen.0.max(oldest).min(head.0));
    match client {
        None if seen < head => put_mark(&room, "", head, rows)?,
        // From now on it is known where it stands. Else a server that is killed before it has written down how far this
        // client has seen would take it for a stranger, and keep from it what others have seen meanwhile.
        Some(client) if own.is_none() => {
            make_way(&room, rows)?;
            put_mark(&room, client, after, rows)?;
        }
        _ => {}
    }
    Ok(Start { room, after, head })
}

/// Only a workflow's messages wait for anybody.
fn note(room: &RoomName, seen: &[(Arc<str>, Seq)], rows: &mut dyn Transaction) -> Result<(), RowsError> {
    if !matches!(family(room.as_str()), Some((Family::Workflow, _))) {
        return Ok(());
    }
    for (client, seq) in seen.iter().filter(|(client, _)| !client.is_empty()) {
        match mark(room, client, rows)? {
            Some(known) if known == *seq => {}
            Some(_) => put_mark(room, client, *seq, rows)?,
            None => {
                make_way(room, rows)?;
                put_mark(room, client, *seq, rows)?;
            }
        }
    }
    if let Some(furthest) = seen.iter().map(|(_, seq)| *seq).max()
        && mark(room, "", rows)?.unwrap_or_default() < furthest
    {
        put_mark(room, "", furthest, rows)?;
    }
    Ok(())
}

fn make_way(room: &RoomName, rows: &mut dyn Transaction) -> Result<(), RowsError> {
    if rows.count_records(Shelf::Mark, Some(room.as_str()), Some(OF_A_CLIENT))? < MARKS_MAX {
        return Ok(());
    }
    for oldest in rows.records(Shelf::Mark, Some(room.as_str()), Some(OF_A_CLIENT), 0, 1)? {
        rows.delete_record(Shelf::Mark, &oldest.id)?;
    }
    Ok(())
}

#[derive(Serialize, Deserialize)]
struct Mark {
    seq: u64,
}

/// `client` is empty for anybody. No room's name holds a line feed, so no two pairs make one id.
fn mark_id(room: &RoomName, client: &str) -> String {
    format!("{room}\n{client}")
}

pub(super) fn mark(
    room: &RoomName,
    client: &str,
    rows: &mut (impl crate::model::Rows + ?Sized),
) -> Result<Option<Seq>, RowsError> {
    let record = rows.record(Shelf::Mark, &mark_id(room, client))?;
    Ok(record.and_then(|record| serde_json::from_slice::<Mark>(&record.body).ok()).map(|mark| Seq(mark.seq)))
}

fn put_mark(room: &RoomName, client: &str, seq: Seq, rows: &mut dyn Transaction) -> Result<(), RowsError> {
    let at = rows.at();
    rows.put_record(&Record {
        shelf: Shelf::Mark,
        id: mark_id(room, client),
        parent: room.as_str().to_owned(),
        state: if client.is_empty() { OF_ANYBODY } else { OF_A_CLIENT }.to_owned(),
        due: None,
        created_at: at,
        updated_at: at,
        body: wire::json(&Mark { seq: seq.0 }),
    })
}

/// The task is the durable trace; what became of it the backend publishes as progress. With no backend the page hears what
/// it always heard (V10).
fn control(
    room: &RoomName,
    id: &str,
    action: &str,
    client: Option<&str>,
    rows: &mut dyn Transaction,
    env: &Env,
) -> Result<Bytes, RowsError> {
    #[derive(Serialize)]
    struct Task<'a> {
        workflow_id: &'a str,
        action: &'a str,
        client_id: Option<&'a str>,
    }
    if !env.attached.has(TaskKind::Control) {
        return Ok(wire::error("Coordinator not available"));
    }
    let reply = match action {
        "cancel" if reads::head(room.as_str(), rows)? == Seq(0) => {
            return Ok(wire::error(&format!("Control action failed: Workflow '{id}' not found")));
        }
        "cancel" => wire::control_response(action, "success", &format!("Workflow {id} cancelled")),
        "pause" => wire::control_response(action, "not_implemented", "Pause functionality not yet implemented"),
        "resume" => wire::control_response(action, "not_implemented", "Resume functionality not yet implemented"),
        _ => return Ok(wire::error(&format!("Unknown action: {action}"))),
    };
    rows.put_task(TaskKind::Control, room, wire::json(&Task { workflow_id: id, action, client_id: client }))?;
    Ok(reply)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::super::tests::{asker, payloads, said};
    use super::*;
    use crate::dialect;
    use crate::dialect::fake::Fake;
    use crate::model::{Draft, Rows, Tasks};

    fn carry_out(room: &str, change: Change, fake: &mut Fake, env: &Env) -> Reply {
        let write = Write { room: RoomName::new(room), op: None, change: dialect::Change::Workflows(change.clone()) };
        apply(&change, &write, &asker(), fake, env).unwrap().reply
    }

    fn add(fake: &mut Fake, room: &str, events: usize) {
        for _ in 0..events {
            let draft = Draft { room: RoomName::new(room), kind: "x".into(), body: Bytes::from_static(b"{}") };
            fake.append(draft, &"a".into(), None, 0).unwrap();
        }
    }

    fn come(fake: &mut Fake, place: &Place, client: Option<&str>) -> (Vec<String>, Vec<(String, u64, u64)>) {
        let room = place.room().unwrap_or(RoomName::new(EVERYBODY));
        let change = Change::Enter { place: place.clone(), client: client.map(Arc::from) };
        let Reply::Welcome { frame, starts, .. } = carry_out(room.as_str(), change, fake, &Env::default()) else {
            panic!()
        };
        let starts = starts.into_iter().map(|start| (start.room.to_string(), start.after.0, start.head.0)).collect();
        (payloads(&frame), starts)
    }

    /// From where a page of workflow `w` is shown its room.
    fn after(fake: &mut Fake, client: Option<&str>) -> u64 {
        come(fake, &Place::Workflow("w".into()), client).1[0].1
    }

    fn seen(fake: &mut Fake, room: &str, seen: &[(&str, u64)]) {
        let seen = seen.iter().map(|(client, seq)| (Arc::from(*client), Seq(*seq))).collect();
        assert_eq!(carry_out(room, Change::Seen { seen }, fake, &Env::default()), Reply::Silence);
    }

    #[test]
    fn v2_v14_everybody_is_welcomed_first() {
        let mut fake = Fake::with(&[]);
        add(&mut fake, EVERYBODY, 4);
        add(&mut fake, "agent:b", 2);
        let welcome = |id: &str, room: &str| {
            format!(
                r#"{{"type":"info","message":"Connected to ViMax WebSocket server","timestamp":"2025-05-13T01:59:00.123456","client_id":"{id}","room":{room}}}"#
            )
        };
        for (place, client, id, room, starts) in [
            (
                Place::Workflow("pending".into()),
                None,
                "workflow_pending_00000001",
                r#""workflow_pending""#,
                vec![("workflow:pending", 0, 0), ("workflows", 4, 4)],
            ),
            (
                Place::Workflow("a b".into()),
                Some("me\"x"),
                r#"me\"x"#,
                r#""workflow_a b""#,
                vec![("workflow:::a:20b", 0, 0), ("workflows", 4, 4)],
            ),
            (
                Place::Agent("b".into()),
                None,
                "agent_b_00000002",
                r#""agent_b""#,
                vec![("agent:b", 2, 2), ("workflows", 4, 4)],
            ),
            (
                Place::Coordinator,
                None,
                "coordinator_00000003",
                r#""coordinator_metrics""#,
                vec![("coordinator", 0, 0), ("workflows", 4, 4)],
            ),
            (Place::Topics, None, "00000000-0000-4000-8000-000000000004", "null", vec![("workflows", 4, 4)]),
        ] {
            let (told, from) = come(&mut fake, &place, client);
            assert_eq!(told, [welcome(id, room)]);
            let expected: Vec<_> =
                starts.into_iter().map(|(room, after, head)| (room.to_owned(), after, head)).collect();
            assert_eq!(from, expected);
        }
    }

    #[test]
    fn v8_the_first_page_gets_up_to_fifty_that_nobody_had() {
        for (events, expected) in [(0, 0), (7, 0), (50, 0), (51, 1), (200, 150)] {
            let mut fake = Fake::with(&[]);
            add(&mut fake, "workflow:w", events);
            assert_eq!(after(&mut fake, None), expected, "{events}");
        }
    }

    #[test]
    fn v8_of_two_pages_that_come_together_one_gets_what_waited() {
        let mut fake = Fake::with(&[]);
        add(&mut fake, "workflow:w", 9);
        assert_eq!(after(&mut fake, None), 0);
        assert_eq!(after(&mut fake, None), 9);
        assert_eq!(after(&mut fake, Some("new")), 9, "a new id gets what nobody had, too");
        add(&mut fake, "workflow:w", 2);
        assert_eq!(after(&mut fake, Some("new")), 9);
        assert_eq!(after(&mut fake, Some("other")), 9, "and takes it from nobody");
        assert_eq!(after(&mut fake, None), 9);
    }

    #[test]
    fn v8_a_returning_client_goes_on_where_it_was() {
        let mut fake = Fake::with(&[]);
        add(&mut fake, "workflow:w", 10);
        seen(&mut fake, "workflow:w", &[("c", 4), ("", 9)]);
        assert_eq!(after(&mut fake, Some("c")), 4);
        assert_eq!(after(&mut fake, Some("c")), 4, "coming is not seeing");
        assert_eq!(after(&mut fake, Some("d")), 9);
        add(&mut fake, "workflow:w", 50);
        assert_eq!(after(&mut fake, Some("c")), 10, "fifty wait, no more");
        seen(&mut fake, "workflow:w", &[("c", 60)]);
        assert_eq!(after(&mut fake, Some("c")), 60);
        assert_eq!(after(&mut fake, None), 60, "what one has had is not waiting for anybody");
        seen(&mut fake, "workflow:w", &[("c", 58), ("", 3)]);
        assert_eq!(after(&mut fake, Some("c")), 58, "a client's own is what was last said of it");
        assert_eq!(after(&mut fake, None), 60, "anybody's only rises");
    }

    /// The simulation's seed 5865 of 28 November: the server was killed before it had written down what the client had
    /// seen, and what others saw meanwhile was kept from it.
    #[test]
    fn v8_a_client_whose_server_was_killed_is_no_stranger() {
        let mut fake = Fake::with(&[]);
        add(&mut fake, "workflow:w", 2);
        assert_eq!(after(&mut fake, Some("c")), 0);
        add(&mut fake, "workflow:w", 17);
        seen(&mut fake, "workflow:w", &[("d", 19)]);
        assert_eq!(after(&mut fake, Some("c")), 0, "again rather than never");
        assert_eq!(after(&mut fake, Some("e")), 19, "a stranger");
    }

    #[test]
    fn v8_marks_are_kept_for_workflows_and_for_so_many_clients() {
        let mut fake = Fake::with(&[]);
        for room in ["workflows", "coordinator", "agent:a", "topic:t"] {
            seen(&mut fake, room, &[("c", 4)]);
        }
        assert!(fake.records.is_empty());
        for n in 0..=MARKS_MAX {
            seen(&mut fake, "workflow:w", &[(&format!("c{n}"), 1)]);
        }
        assert_eq!(fake.records.len(), MARKS_MAX + 1, "one is anybody's");
        let room = RoomName::new("workflow:w");
        assert_eq!(mark(&room, "c0", &mut fake), Ok(None));
        assert_eq!(mark(&room, "c1", &mut fake), Ok(Some(Seq(1))));
        assert_eq!(mark(&room, "", &mut fake), Ok(Some(Seq(1))));
        let record = fake.record(Shelf::Mark, "workflow:w\nc1").unwrap().unwrap();
        assert_eq!((&*record.parent, &*record.state, &*record.body), ("workflow:w", "client", &br#"{"seq":1}"#[..]));
    }

    #[test]
    fn v10_control_with_and_without_a_backend() {
        let mut fake = Fake::with(&[]);
        let env = Env::default();
        let ask = |fake: &mut Fake, action: &str, env: &Env| {
            let change = Change::Control { id: "x".into(), action: action.to_owned(), client: Some("c".into()) };
            said(carry_out("workflow:x", change, fake, env))
        };
        let absent = r#"{"type":"error","message":"Coordinator not available"}"#;
        for action in ["cancel", "pause", "zz"] {
            assert_eq!(ask(&mut fake, action, &env), absent);
        }
        env.attached.set(Tasks::only(TaskKind::Control));
        let unknown = r#"{"type":"error","message":"Control action failed: Workflow 'x' not found"}"#;
        assert_eq!(ask(&mut fake, "cancel", &env), unknown);
        assert!(fake.tasks.is_empty());
        add(&mut fake, "workflow:x", 1);
        for (action, expected) in [
            (
                "cancel",
                r#"{"type":"control_response","action":"cancel","status":"success","message":"Workflow x cancelled"}"#,
            ),
            (
                "pause",
                r#"{"type":"control_response","action":"pause","status":"not_implemented","message":"Pause functionality not yet implemented"}"#,
            ),
            (
                "resume",
                r#"{"type":"control_response","action":"resume","status":"not_implemented","message":"Resume functionality not yet implemented"}"#,
            ),
            ("zz", r#"{"type":"error","message":"Unknown action: zz"}"#),
            ("None", r#"{"type":"error","message":"Unknown action: None"}"#),
        ] {
            assert_eq!(ask(&mut fake, action, &env), expected);
        }
        let task = |action| format!(r#"control {{"workflow_id":"x","action":"{action}","client_id":"c"}}"#);
        assert_eq!(fake.given(), [task("cancel"), task("pause"), task("resume")]);
        assert_eq!(fake.told("workflow:x").len(), 1, "the page's log tells progress only");
    }

    #[test]
    fn a_chat_message_is_an_event_and_a_task() {
        let mut fake = Fake::with(&[]);
        let change = Change::Chat { message: "hé\n".to_owned(), temperature: 0.7 };
        assert_eq!(carry_out("chat:a:b", change, &mut fake, &Env::default()), Reply::Silence);
        assert_eq!(fake.told("chat:a:b"), [r#"message {"type":"message","message":"hé\n","temperature":0.7}"#]);
        assert_eq!(fake.given(), [r#"chat {"thread_id":"a:b","message":"hé\n","temperature":0.7}"#]);
    }

    #[test]
    fn v12_what_comes_over_http_is_passed_on_as_it_is() {
        let mut fake = Fake::with(&[]);
        let env = Env::default();
        let body = Bytes::from_static(br#"{ "a": 1,"type" : "news" }"#);
        let reply = carry_out(EVERYBODY, Change::Broadcast { body }, &mut fake, &env);
        assert_eq!(said(reply), r#"200 {"message":"Broadcast sent","recipients":0}"#);
        assert_eq!(fake.told(EVERYBODY), [r#"news { "a": 1,"type" : "news" }"#]);
        for body in [r#"{"b":1, "a":[ 2 ]}"#, r#"{"type":"progress","percentage":1}"#, r#"{"type":7}"#] {
            let body = Bytes::from_static(body.as_bytes());
            let reply = carry_out("topic:e/7", Change::Publish { topic: "e/7".to_owned(), body }, &mut fake, &env);
            assert_eq!(said(reply), r#"200 {"message":"Message published","topic":"e/7","subscribers":0}"#);
        }
        assert_eq!(
            fake.told("topic:e/7"),
            [
                r#"message {"b":1,"a":[2]}"#,
                r#"progress {"type":"progress","percentage":1,"timestamp":"2025-05-13T01:59:00.123456"}"#,
                r#"message {"type":7}"#
            ]
        );
    }

    #[test]
    fn failures_are_told_in_the_shape_of_whoever_asked() {
        let control = Change::Control { id: "x".into(), action: "cancel".to_owned(), client: None };
        let chat = Change::Chat { message: "m".to_owned(), temperature: 1.0 };
        assert_eq!(
            said(failed(&control, Failure::Busy)),
            r#"{"type":"error","message":"Control action failed: the store is behind; nothing was saved"}"#
        );
        assert_eq!(
            said(failed(&chat, Failure::Full)),
            r#"{"type":"error","error":"no space left; nothing was saved"}"#
        );
        for change in [control, chat] {
            assert!(matches!(failed(&change, Failure::Unknown), Reply::Close(_)), "nothing that could be a lie");
        }
        let enter = Change::Enter { place: Place::Coordinator, client: None };
        assert!(matches!(failed(&enter, Failure::Busy), Reply::Reject(_)));
        assert_eq!(failed(&Change::Seen { seen: Vec::new() }, Failure::Busy), Reply::Silence);
        let publish = Change::Publish { topic: "t".to_owned(), body: Bytes::new() };
        assert!(matches!(failed(&publish, Failure::Busy), Reply::Response(_)));
    }
}
