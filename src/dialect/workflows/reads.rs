//! Questions to one snapshot, and the frames that tell the newest of a room. Runs on a reader's thread.

use std::borrow::Cow;

use bytes::Bytes;

use super::census::Asked;
use super::metrics;
use super::object::{Object, quoted};
use super::paths::{Place, family};
use super::wire;
use crate::dialect::{Env, Failure, Reply, Start};
use crate::http::Response;
use crate::ids::{RoomName, Seq};
use crate::limits::PAGE_BYTES_MAX;
use crate::model::{Attached, Rows, RowsError, TaskKind};
use crate::ws;

/// Messages of a topic that a subscriber is shown first.
const HISTORY_MAX: u64 = 100;

#[derive(Clone, Debug, PartialEq)]
pub enum Read {
    /// After the join: a chat says nothing first.
    Chat { room: RoomName },
    /// After the join: what the subscriber is told, and how much of the past it is shown.
    Subscribe { room: RoomName, topic: Box<str> },
    /// `get_metrics`
    Metrics,
    /// Over HTTP, about every connection.
    Census(Asked),
}

pub fn read(read: &Read, rows: &mut dyn Rows, env: &Env) -> Result<Reply, RowsError> {
    match read {
        Read::Chat { room } => {
            let start = Start::live(room.clone(), head(room.as_str(), rows)?);
            Ok(Reply::Welcome { frame: Bytes::new(), starts: vec![start], stand: None })
        }
        Read::Subscribe { room, topic } => subscribe(room, topic, rows),
        Read::Metrics => Ok(match newest(&Place::Coordinator, rows, &env.attached)? {
            Some(payload) => Reply::Frame(ws::frame::text(&payload)),
            None => Reply::Silence,
        }),
        // Nothing can be said of the connections without them.
        Read::Census(_) => Ok(read_failed(read, Failure::Broken)),
    }
}

/// The store's words stay in the log; a client hears ours.
pub fn read_failed(read: &Read, failure: Failure) -> Reply {
    let reject = failure.reject();
    match read {
        Read::Chat { .. } => Reply::Reject(reject),
        Read::Subscribe { .. } | Read::Metrics => {
            Reply::Frame(ws::frame::text(&wire::error("the store could not be read; try again in a moment")))
        }
        Read::Census(_) => Reply::Response(Box::new(Response::reject(&reject))),
    }
}

/// The frame that stands for what was trimmed: the newest value, where one is kept. Framed.
pub fn snapshot(room: &RoomName, rows: &mut dyn Rows) -> Result<Option<Bytes>, RowsError> {
    if family(room.as_str()).is_none() {
        return Ok(None);
    }
    Ok(rows.state(room.as_str())?.map(|state| ws::frame::text(&state.body)))
}

pub fn head(room: &str, rows: &mut dyn Rows) -> Result<Seq, RowsError> {
    Ok(rows.room(room)?.map_or(Seq(0), |row| row.head))
}

/// What a newcomer is told of the room's newest value, as the originals did when a coordinator was there: when something
/// is known, or somebody is there who would know.
pub fn newest(place: &Place, rows: &mut dyn Rows, attached: &Attached) -> Result<Option<Bytes>, RowsError> {
    let Some(room) = place.room() else { return Ok(None) };
    let state = rows.state(room.as_str())?;
    let known = state.as_ref().and_then(|state| Object::parse(&state.body));
    let is_run = attached.has(TaskKind::Control);
    Ok(match (place, known) {
        (Place::Workflow(id), Some(progress)) => Some(status(id, &status_of(id, &progress))),
        (Place::Workflow(id), None) if is_run => Some(status(
            id,
            &Object::of([("state", r#""pending""#.into()), ("message", r#""Workflow not started yet""#.into())]),
        )),
        (Place::Agent(name), Some(status)) => Some(agent_status(name, &status)),
        (Place::Coordinator, Some(mut metrics)) => {
            // Of a pushed frame; the one on connect never had it.
            metrics.remove("timestamp");
            Some(metrics.bytes())
        }
        (Place::Coordinator, None) if is_run => {
            let mut nothing = Object::of([("type", r#""coordinator_metrics""#.into())]).spread(metrics::zero());
            metrics::nest(&mut nothing);
            Some(nothing.bytes())
        }
        _ => None,
    })
}

fn status(id: &str, status: &Object<'_>) -> Bytes {
    let frame = Object::of([
        ("type", Cow::Borrowed(r#""status""#)),
        ("workflow_id", quoted(id).into()),
        ("status", status.write().into()),
    ]);
    frame.bytes()
}

/// The coordinator's status of a workflow, out of its newest progress: what the publisher said in it or in its details.
fn status_of<'p>(id: &str, progress: &'p Object<'_>) -> Object<'p> {
    let details = progress.get("details").and_then(|text| Object::parse(text.as_bytes())).unwrap_or_default();
    let value = |key: &str, default: &'static str| -> Cow<'p, str> {
        match (progress.get(key), details.get(key)) {
            (Some(value), _) => Cow::Borrowed(value),
            (None, Some(value)) => Cow::Owned(value.to_owned()),
            (None, None) => Cow::Borrowed(default),
        }
    };
    Object::of([
        ("workflow_id", quoted(id).into()),
        ("state", value("state", r#""running""#)),
        ("progress", value("progress", "0.0")),
        ("started_at", value("started_at", "null")),
        ("completed_at", value("completed_at", "null")),
        ("duration", value("duration", "null")),
        ("task_states", value("task_states", "{}")),
        ("completed_tasks", value("completed_tasks", "0")),
        ("failed_tasks", value("failed_tasks", "0")),
        ("errors", value("errors", "[]")),
    ])
}

/// Here `status` is an object; in a pushed frame it is the word.
fn agent_status(name: &str, newest: &Object<'_>) -> Bytes {
    let value = |key: &str, default: &'static str| newest.get(key).unwrap_or(default);
    let status = Object::of([
        ("name", Cow::Owned(quoted(name))),
        ("status", value("status", r#""idle""#).into()),
        ("registered_at", value("registered_at", "null").into()),
        ("metrics", value("metrics", "{}").into()),
    ]);
    let frame = Object::of([
        ("type", Cow::Borrowed(r#""agent_status""#)),
        ("agent_name", quoted(name).into()),
        ("status", status.write().into()),
    ]);
    frame.bytes()
}

/// The past follows the words through the room, in its order: nothing live can come between or twice.
fn subscribe(room: &RoomName, topic: &str, rows: &mut dyn Rows) -> Result<Reply, RowsError> {
    let (head, floor) = rows.room(room.as_str())?.map_or((Seq(0), Seq(0)), |row| (row.head, row.floor));
    let after = Seq(head.0.saturating_sub(HISTORY_MAX).max(floor.0).min(head.0));
    let mut frames = ws::frame::text(&wire::info(&format!("Subscribed to topic: {topic}"), None)).to_vec();
    let count = head.0 - after.0;
    if count > 0 {
        // As of the newest of them: a snapshot has no other time.
        let newest = rows.events(room.as_str(), Seq(head.0 - 1), 1, PAGE_BYTES_MAX)?;
        let text = format!("Sending {count} historical messages for topic: {topic}");
        frames.extend_from_slice(&ws::frame::text(&wire::info(&text, newest.first().map(|event| event.at))));
    }
    Ok(Reply::Welcome { frame: frames.into(), starts: vec![Start { room: room.clone(), after, head }], stand: None })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::dialect::fake::Fake;
    use crate::model::{Draft, State, Tasks, Transaction};

    fn fake(room: &str, events: usize) -> Fake {
        let mut fake = Fake::with(&[]);
        for n in 1..=events {
            let draft = Draft { room: RoomName::new(room), kind: "x".into(), body: format!("{{\"n\":{n}}}").into() };
            fake.append(draft, &"a".into(), None, 0).unwrap();
        }
        fake
    }

    fn env(kinds: Tasks) -> Env {
        let env = Env::default();
        env.attached.set(kinds);
        env
    }

    fn told(room: &str, body: &'static str, place: &Place, kinds: Tasks) -> Option<String> {
        let mut fake = Fake::with(&[]);
        if !body.is_empty() {
            let state = State { rev: 1, seq: Seq(1), body: Bytes::from_static(body.as_bytes()) };
            fake.states.insert(room.to_owned(), state);
        }
        let payload = newest(place, &mut fake, &env(kinds).attached).unwrap();
        payload.map(|payload| String::from_utf8(payload.to_vec()).unwrap())
    }

    #[test]
    fn v9_v10_second_frames_are_told_when_something_is_known_or_somebody_would_know() {
        let (none, run) = (Tasks::default(), Tasks::only(TaskKind::Control));
        let (workflow, agent) = (Place::Workflow("x1".into()), Place::Agent("writer".into()));
        for (room, state, place, kinds, expected) in [
            ("", "", &workflow, none, None),
            (
                "",
                "",
                &workflow,
                run,
                Some(
                    r#"{"type":"status","workflow_id":"x1","status":{"state":"pending","message":"Workflow not started yet"}}"#,
                ),
            ),
            (
                "workflow:x1",
                r#"{"type":"progress","state":"failed","progress":0.5,"details":{"errors":["e"],"state":"no"},"started_at":"S"}"#,
                &workflow,
                none,
                Some(
                    r#"{"type":"status","workflow_id":"x1","status":{"workflow_id":"x1","state":"failed","progress":0.5,"started_at":"S","completed_at":null,"duration":null,"task_states":{},"completed_tasks":0,"failed_tasks":0,"errors":["e"]}}"#,
                ),
            ),
            ("", "", &agent, run, None),
            (
                "agent:writer",
                r#"{"type":"agent_status","status":"busy","metrics":{"a":1},"registered_at":"R"}"#,
                &agent,
                none,
                Some(
                    r#"{"type":"agent_status","agent_name":"writer","status":{"name":"writer","status":"busy","registered_at":"R","metrics":{"a":1}}}"#,
                ),
            ),
            ("", "", &Place::Coordinator, none, None),
            (
                "",
                "",
                &Place::Coordinator,
                run,
                Some(
                    r#"{"type":"coordinator_metrics","total_messages":0,"total_workflows":0,"registered_agents":0,"healthy_agents":0,"active_workflows":0,"queue_size":0,"dead_letters":0,"metrics":{"total_agents":0,"active_workflows":0,"completed_workflows":0,"failed_workflows":0,"agents":[]}}"#,
                ),
            ),
            (
                "coordinator",
                r#"{"type":"coordinator_metrics","timestamp":"T","queue_size":1,"metrics":{}}"#,
                &Place::Coordinator,
                none,
                Some(r#"{"type":"coordinator_metrics","queue_size":1,"metrics":{}}"#),
            ),
            ("", "", &Place::Topics, run, None),
            ("", "", &Place::Chat("t".into()), run, None),
        ] {
            assert_eq!(told(room, state, place, kinds).as_deref(), expected, "{place:?}");
        }
    }

    #[test]
    fn v10_metrics_are_asked_for_in_vain_without_a_coordinator() {
        let mut fake = Fake::with(&[]);
        assert_eq!(read(&Read::Metrics, &mut fake, &Env::default()), Ok(Reply::Silence));
        let env = env(Tasks::only(TaskKind::Control));
        assert!(matches!(read(&Read::Metrics, &mut fake, &env), Ok(Reply::Frame(_))));
    }

    fn subscription(fake: &mut Fake) -> (Vec<String>, Start) {
        let room = RoomName::new("topic:t");
        let question = Read::Subscribe { room, topic: "t".into() };
        let Ok(Reply::Welcome { frame, mut starts, .. }) = read(&question, fake, &Env::default()) else { panic!() };
        (super::super::tests::payloads(&frame), starts.remove(0))
    }

    #[test]
    fn a_subscriber_is_shown_the_last_hundred_by_the_room() {
        let subscribed = r#"{"type":"info","message":"Subscribed to topic: t"}"#.to_owned();
        let sending = |n: u64| {
            format!(
                r#"{{"type":"info","message":"Sending {n} historical messages for topic: t","timestamp":"2025-05-13T01:59:00.123456"}}"#
            )
        };
        for (events, after) in [(0, 0), (1, 0), (100, 0), (101, 1), (250, 150)] {
            let (told, start) = subscription(&mut fake("topic:t", events));
            let mut expected = vec![subscribed.clone()];
            if events > 0 {
                expected.push(sending(events as u64 - after));
            }
            assert_eq!(told, expected);
            assert_eq!(start, Start { room: RoomName::new("topic:t"), after: Seq(after), head: Seq(events as u64) });
        }
    }

    #[test]
    fn a_chat_begins_in_silence_with_what_comes() {
        let question = Read::Chat { room: RoomName::new("chat:t") };
        let reply = read(&question, &mut fake("chat:t", 3), &Env::default()).unwrap();
        let starts = vec![Start::live(RoomName::new("chat:t"), Seq(3))];
        assert_eq!(reply, Reply::Welcome { frame: Bytes::new(), starts, stand: None });
    }

    #[test]
    fn what_was_trimmed_is_stood_for_by_the_newest_value() {
        let mut fake = fake("workflow:x", 1);
        let room = RoomName::new("workflow:x");
        assert_eq!(snapshot(&room, &mut fake), Ok(None));
        let state = State { rev: 1, seq: Seq(1), body: Bytes::from_static(br#"{"type":"progress"}"#) };
        fake.states.insert("workflow:x".to_owned(), state.clone());
        fake.states.insert("doc:x".to_owned(), state);
        assert_eq!(snapshot(&room, &mut fake), Ok(Some(ws::frame::text(br#"{"type":"progress"}"#))));
        assert_eq!(snapshot(&RoomName::new("doc:x"), &mut fake), Ok(None), "another dialect's");
    }

    #[test]
    fn failures_are_told_in_fixed_words() {
        let room = RoomName::new("topic:t");
        let said = Reply::Frame(ws::frame::text(
            br#"{"type":"error","message":"the store could not be read; try again in a moment"}"#,
        ));
        assert_eq!(read_failed(&Read::Subscribe { room: room.clone(), topic: "t".into() }, Failure::Busy), said);
        assert_eq!(read_failed(&Read::Metrics, Failure::Busy), said);
        assert!(matches!(read_failed(&Read::Chat { room }, Failure::Busy), Reply::Reject(_)));
        assert!(matches!(read_failed(&Read::Census(Asked::Stats), Failure::Busy), Reply::Response(_)));
    }
}
