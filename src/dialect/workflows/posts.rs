//! Publishing into the dialect's rooms, inside the writer's transaction: the event in its shape, the newest value that is
//! kept beside the log, and what else it changes.
//!
//! | event | changes too |
//! |---|---|
//! | `progress`, `agent_status`, `coordinator_metrics` in their rooms | the room's state |
//! | `agent_status` | the agent's card in `coordinator`: the monitor page listens to nothing else |
//! | progress, `complete`, `error` in `topic:episode.{id}.{stage}` | `progress` in `workflow:{id}`: the pages subscribe to no topic |
//! | `message` in `chat:{thread}` | a task for whoever answers chats |

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;

use super::object::{Object, quoted};
use super::paths::{self, COORDINATOR, Family};
use super::shapes::{is_stamped, shape};
use super::{metrics, wire};
use crate::clock::Wall;
use crate::dialect::Asker;
use crate::dialect::publish::{Outcome, Publish, Published, Refusal};
use crate::ids::{OpId, RoomName, Seq};
use crate::limits::ROOM_NAME_BYTES_MAX;
use crate::model::{Draft, RowsError, State, TaskKind, Transaction};

const PROGRESS: &str = "progress";
const AGENT_STATUS: &str = "agent_status";
const METRICS: &str = "coordinator_metrics";
/// What a page says in a chat. Its own kind, because a chat's socket is not shown it.
pub const CHAT_MESSAGE: &str = "message";

/// The type of a message that says none.
const UNTYPED: &str = "message";
/// Bytes of a type; a longer one is text that happens to stand under that key.
const KIND_BYTES_MAX: usize = 64;

const _: () = assert!(KIND_BYTES_MAX < ROOM_NAME_BYTES_MAX, "a kind is a word");

/// Publishing by a native client or a backend.
pub fn publish(
    publish: &Publish,
    asker: &Asker,
    op: Option<&OpId>,
    rows: &mut dyn Transaction,
) -> Result<Outcome, RowsError> {
    let Some((family, name)) = paths::family(publish.room.as_str()) else {
        return Ok(Err(Refusal::NoSuchRoom));
    };
    let Some(given) = Object::parse(&publish.data) else {
        return Ok(Err(Refusal::bad("bad_data", "data must be a JSON object of at most 32 levels")));
    };
    if family == Family::Chat && publish.kind == CHAT_MESSAGE && is_blank(&given) {
        return Ok(Err(Refusal::bad("bad_data", "a chat message needs a message")));
    }
    if let Some(expected) = publish.if_rev {
        if !is_kept(family, &publish.kind) {
            return Ok(Err(Refusal::bad("bad_if_rev", "an event of this type does not change the room's state")));
        }
        let state = rows.state(publish.room.as_str())?;
        let rev = state.as_ref().map_or(0, |state| state.rev);
        if rev != expected {
            return Ok(Err(Refusal::Conflict { rev, snapshot: state.map(|state| state.body) }));
        }
    }
    let names_agents = metrics::names_agents(&given);
    let mut message = shape(family, &name, &publish.kind, given, rows.at());
    let mut act = Act { asker, op, rows };
    if (family, &*publish.kind) == (Family::Coordinator, METRICS) && !names_agents {
        act.keep_agents(&mut message)?;
    }
    act.post(&publish.room, family, &name, &publish.kind, message).map(Ok)
}

/// A message for a topic as somebody outside made it (`POST …/publish/{topic}`): kept, and stamped if the originals' own
/// message of that type would be. None when it is no object.
pub fn publish_given(
    room: &RoomName,
    topic: &str,
    body: &[u8],
    asker: &Asker,
    rows: &mut dyn Transaction,
) -> Result<Option<Published>, RowsError> {
    let Some(mut message) = Object::parse(body) else { return Ok(None) };
    let kind = kind_of(&message);
    if is_stamped(Family::Topic, &kind) {
        message.set_if_absent("timestamp", quoted(&wire::stamp(rows.at())));
    }
    let mut act = Act { asker, op: None, rows };
    act.post(room, Family::Topic, topic, &kind, message).map(Some)
}

/// A message for everybody, byte for byte. None when it is no object.
pub fn broadcast(
    room: &RoomName,
    body: &Bytes,
    asker: &Asker,
    rows: &mut dyn Transaction,
) -> Result<Option<Seq>, RowsError> {
    let Some(message) = Object::parse(body) else { return Ok(None) };
    let draft = Draft { room: room.clone(), kind: kind_of(&message).into(), body: body.clone() };
    rows.append(draft, &asker.actor, None, asker.origin).map(Some)
}

/// What a page said in a chat: an event, so that the thread is whole, and a task for whoever answers.
pub fn say_in_chat(
    room: &RoomName,
    thread: &str,
    message: &str,
    temperature: f64,
    asker: &Asker,
    rows: &mut dyn Transaction,
) -> Result<Published, RowsError> {
    let temperature = serde_json::to_string(&temperature).unwrap_or_default();
    let message = Object::of([
        ("type", Cow::Owned(quoted(CHAT_MESSAGE))),
        ("message", quoted(message).into()),
        ("temperature", temperature.into()),
    ]);
    let mut act = Act { asker, op: None, rows };
    act.post(room, Family::Chat, thread, CHAT_MESSAGE, message)
}

struct Act<'a> {
    asker: &'a Asker,
    /// Of the event that was asked for; what follows from it has none.
    op: Option<&'a OpId>,
    rows: &'a mut dyn Transaction,
}

impl Act<'_> {
    fn post(
        &mut self,
        room: &RoomName,
        family: Family,
        name: &str,
        kind: &str,
        message: Object<'_>,
    ) -> Result<Published, RowsError> {
        let before = self.rows.state(room.as_str())?;
        let known = before.as_ref().and_then(|state| Object::parse(&state.body)).unwrap_or_default();
        let seq = self.append(room, kind, message.bytes())?;
        let rev = match is_kept(family, kind) {
            true => Some(self.keep(room, seq, before.as_ref().map_or(0, |state| state.rev), &message, &known)?),
            false => None,
        };
        match (family, kind) {
            (Family::Agent, AGENT_STATUS) => self.show_card(name, &message)?,
            (Family::Topic, _) => self.bridge(name, kind, &message)?,
            (Family::Chat, CHAT_MESSAGE) => self.ask_backend(room, name, &message)?,
            _ => {}
        }
        Ok(Published { rev, ..Published::at(seq) })
    }

    /// `op` goes with the first event.
    fn append(&mut self, room: &RoomName, kind: &str, body: Bytes) -> Result<Seq, RowsError> {
        let draft = Draft { room: room.clone(), kind: kind.to_owned().into(), body };
        self.rows.append(draft, &self.asker.actor, self.op.take(), self.asker.origin)
    }

    /// The newest message becomes the room's state, with what only the one before it knew.
    fn keep(
        &mut self,
        room: &RoomName,
        seq: Seq,
        rev: u64,
        message: &Object<'_>,
        before: &Object<'_>,
    ) -> Result<u64, RowsError> {
        let mut state = message.clone();
        for (key, value) in remembered(message, before) {
            state.set_if_absent(key, value);
        }
        let rev = rev + 1;
        self.rows.put_state(room, &State { rev, seq, body: state.bytes() })?;
        Ok(rev)
    }

    /// A program that counts workflows need not know the agents: those that spoke for themselves stay on the page.
    fn keep_agents(&mut self, message: &mut Object<'_>) -> Result<(), RowsError> {
        let before = self.rows.state(COORDINATOR)?;
        let known = before.as_ref().and_then(|state| Object::parse(&state.body)).unwrap_or_default();
        if let Some(agents) = metrics::agents_of(&known) {
            metrics::show_agents(message, &agents);
        }
        Ok(())
    }

    fn show_card(&mut self, agent: &str, status: &Object<'_>) -> Result<(), RowsError> {
        let room = RoomName::new(COORDINATOR);
        let before = self.rows.state(COORDINATOR)?;
        let known = before.as_ref().and_then(|state| Object::parse(&state.body));
        let at = self.rows.at();
        let mut message =
            known.unwrap_or_else(|| shape(Family::Coordinator, COORDINATOR, METRICS, Object::default(), at));
        message.set("timestamp", quoted(&wire::stamp(at)));
        let agents = metrics::agents_of(&message).unwrap_or_default();
        metrics::show_agents(&mut message, &metrics::with_agent(&agents, agent, status));
        let body = message.bytes();
        let seq = self.append(&room, METRICS, body.clone())?;
        let rev = before.map_or(0, |state| state.rev) + 1;
        self.rows.put_state(&room, &State { rev, seq, body })
    }

    fn bridge(&mut self, topic: &str, kind: &str, message: &Object<'_>) -> Result<(), RowsError> {
        let Some((id, stage)) = episode_of(topic) else { return Ok(()) };
        let Some(room) = paths::room_of(Family::Workflow, id) else { return Ok(()) };
        let before = self.rows.state(room.as_str())?;
        let known = before.as_ref().and_then(|state| Object::parse(&state.body)).unwrap_or_default();
        let at = self.rows.at();
        let Some(progress) = progress_of(id, stage, kind, message, &known, at) else { return Ok(()) };
        let seq = self.append(&room, PROGRESS, progress.bytes())?;
        self.keep(&room, seq, before.as_ref().map_or(0, |state| state.rev), &progress, &known)?;
        Ok(())
    }

    fn ask_backend(&mut self, room: &RoomName, thread: &str, message: &Object<'_>) -> Result<(), RowsError> {
        #[derive(Serialize)]
        struct Task<'a> {
            thread_id: &'a str,
            message: String,
            temperature: f64,
        }
        let temperature = message
            .number("temperature")
            .and_then(|number| number.parse().ok())
            .filter(|number: &f64| number.is_finite());
        let task = Task {
            thread_id: thread,
            message: message.text("message").unwrap_or_default(),
            temperature: temperature.unwrap_or(super::session::TEMPERATURE),
        };
        self.rows.put_task(TaskKind::Chat, room, wire::json(&task))?;
        Ok(())
    }
}

/// Is the newest of these kept beside the log?
fn is_kept(family: Family, kind: &str) -> bool {
    matches!(
        (family, kind),
        (Family::Workflow, PROGRESS) | (Family::Agent, AGENT_STATUS) | (Family::Coordinator, METRICS)
    )
}

fn is_blank(message: &Object<'_>) -> bool {
    message.text("message").is_none_or(|text| text.is_empty())
}

fn kind_of(message: &Object<'_>) -> String {
    let said = message.text("type").filter(|kind| (1..=KIND_BYTES_MAX).contains(&kind.len()));
    said.unwrap_or_else(|| UNTYPED.to_owned())
}

/// What the frames on connect show and the newest message alone does not hold: since when it runs, until when it ran,
/// since when an agent is known.
fn remembered(message: &Object<'_>, before: &Object<'_>) -> Vec<(&'static str, String)> {
    let now = message.get("timestamp").unwrap_or("null");
    let known = |key| before.get(key).unwrap_or(now).to_owned();
    match message.text("type").as_deref() {
        Some(PROGRESS) => {
            let began = if is_over(before) { now.to_owned() } else { known("started_at") };
            let ended = if is_over(message) { now } else { "null" };
            vec![("started_at", began), ("completed_at", ended.to_owned())]
        }
        Some(AGENT_STATUS) => vec![("registered_at", known("registered_at"))],
        _ => Vec::new(),
    }
}

fn is_over(progress: &Object<'_>) -> bool {
    matches!(progress.text("state").as_deref(), Some("completed" | "failed" | "cancelled"))
}

/// `episode.{id}.{stage}`. What is said of one scene or character (`episode.{id}.scene.{scene}`) is not the workflow's
/// progress: a finished scene would finish the film.
fn episode_of(topic: &str) -> Option<(&str, &str)> {
    let (id, stage) = topic.strip_prefix("episode.")?.split_once('.')?;
    (!id.is_empty() && !stage.is_empty() && !stage.contains('.')).then_some((id, stage))
}

/// A topic's message as the pages of the workflow understand it; none when it says nothing of progress.
fn progress_of<'m>(
    id: &str,
    stage: &str,
    kind: &str,
    message: &'m Object<'_>,
    known: &'m Object<'_>,
    at: Wall,
) -> Option<Object<'m>> {
    let (state, progress) = match (kind, message.number("percentage")) {
        ("complete", _) => ("completed", "1.0"),
        ("error", _) => ("failed", known.number("progress").unwrap_or("0.0")),
        (_, Some(percentage)) => ("running", percentage),
        _ => return None,
    };
    let given = Object::of([
        ("state", Cow::Owned(quoted(state))),
        ("progress", progress.into()),
        ("stage", quoted(stage).into()),
        ("message", message.get("message").unwrap_or("null").into()),
        ("details", message.get("details").unwrap_or("{}").into()),
    ]);
    Some(shape(Family::Workflow, id, PROGRESS, given, at))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::super::tests::asker;
    use super::*;
    use crate::dialect::fake::Fake;

    const NOW: &str = "2025-05-13T01:59:00.123456";

    fn say(fake: &mut Fake, room: &str, kind: &str, data: &'static str, if_rev: Option<u64>) -> Outcome {
        let data = Bytes::from_static(data.as_bytes());
        let wanted = Publish { room: RoomName::new(room), kind: kind.to_owned(), data, if_rev };
        publish(&wanted, &asker(), Some(&OpId("op".into())), fake).unwrap()
    }

    fn state(fake: &Fake, room: &str) -> String {
        fake.states.get(room).map(|state| String::from_utf8(state.body.to_vec()).unwrap()).unwrap_or_default()
    }

    #[test]
    fn v8_progress_is_logged_whether_or_not_anybody_is_there_and_the_newest_is_kept() {
        let mut fake = Fake::with(&[]);
        let first = say(&mut fake, "workflow:w", "progress", r#"{"progress":0.5}"#, None);
        assert_eq!(first, Ok(Published { rev: Some(1), ..Published::at(Seq(1)) }));
        let shown = |state: &str, progress: &str| {
            format!(
                r#"{{"type":"progress","workflow_id":"w","timestamp":"{NOW}","state":"{state}","progress":{progress},"stage":null,"message":null,"details":{{}}"#
            )
        };
        assert_eq!(fake.told("workflow:w"), [format!("progress {}}}", shown("running", "0.5"))]);
        let kept = |began: &str, ended: &str| format!(r#","started_at":"{began}","completed_at":{ended}}}"#);
        assert_eq!(state(&fake, "workflow:w"), shown("running", "0.5") + &kept(NOW, "null"));
        let began = NOW;
        fake.at = Wall(1_747_101_541_000_000);
        let second = say(&mut fake, "workflow:w", "progress", r#"{"state":"completed","progress":1.0}"#, Some(1));
        assert_eq!(second, Ok(Published { rev: Some(2), ..Published::at(Seq(2)) }));
        let later = "2025-05-13T01:59:01";
        let expected = shown("completed", "1.0").replace(NOW, later) + &kept(began, &format!("\"{later}\""));
        assert_eq!(state(&fake, "workflow:w"), expected);
        say(&mut fake, "workflow:w", "progress", "{}", None).unwrap();
        assert!(state(&fake, "workflow:w").ends_with(&kept(later, "null")), "it runs again");
        assert_eq!(fake.log["workflow:w"][0].op, Some(OpId("op".into())));
    }

    #[test]
    fn what_cannot_be_published_is_refused_before_anything_is_written() {
        let mut fake = Fake::with(&[]);
        let code = |outcome: Outcome| match outcome {
            Err(Refusal::Bad { code, .. }) => code,
            other => panic!("{other:?}"),
        };
        assert_eq!(say(&mut fake, "doc:x", "progress", "{}", None), Err(Refusal::NoSuchRoom));
        for data in ["[]", "1", "", "{"] {
            assert_eq!(code(say(&mut fake, "workflow:x", "progress", data, None)), "bad_data");
        }
        assert_eq!(code(say(&mut fake, "chat:x", "message", r#"{"message":""}"#, None)), "bad_data");
        assert_eq!(code(say(&mut fake, "workflow:x", "note", "{}", Some(0))), "bad_if_rev");
        let conflict = Refusal::Conflict { rev: 0, snapshot: None };
        assert_eq!(say(&mut fake, "workflow:x", "progress", "{}", Some(3)), Err(conflict));
        assert!(fake.log.is_empty() && fake.states.is_empty() && fake.tasks.is_empty());
    }

    #[test]
    fn v9_v11_an_agent_s_change_is_shown_to_the_monitor() {
        let mut fake = Fake::with(&[]);
        say(&mut fake, "agent:w", "agent_status", r#"{"status":"busy"}"#, None).unwrap();
        let kept = state(&fake, "agent:w");
        assert!(kept.ends_with(&format!(r#""metrics":{{}},"registered_at":"{NOW}"}}"#)), "{kept}");
        let [first] = &fake.told("coordinator")[..] else { panic!() };
        for part in [
            r#"coordinator_metrics {"type":"coordinator_metrics","timestamp":"2025-05-13T01:59:00.123456","total_messages":0,"#,
            r#""metrics":{"total_agents":1,"active_workflows":0,"#,
            r#""agents":[{"id":"w","name":"w","status":"busy","metrics":{"tasks_completed":0,"#,
            r#""lastUpdate":"2025-05-13T01:59:00.123456","capabilities":[]}]}}"#,
        ] {
            assert!(first.contains(part), "{part} in {first}");
        }
        say(&mut fake, "coordinator", "coordinator_metrics", r#"{"active_workflows":3}"#, None).unwrap();
        let both = state(&fake, "coordinator");
        assert!(both.contains(r#""active_workflows":3,"queue_size":0"#) && both.contains(r#""name":"w""#), "{both}");
        say(&mut fake, "coordinator", "coordinator_metrics", r#"{"agents":[]}"#, None).unwrap();
        assert!(state(&fake, "coordinator").ends_with(r#""agents":[]}}"#), "it says that there is none");
        assert_eq!(fake.states["coordinator"].rev, 3);
        assert_eq!(fake.log["coordinator"][0].op, None, "the operation's id goes with its own event");
    }

    #[test]
    fn v13_topics_of_an_episode_move_its_workflow() {
        let moved = |topic: &str, kind: &str, data: &'static str| {
            let mut fake = Fake::with(&[]);
            say(&mut fake, &format!("topic:{topic}"), kind, data, None).unwrap();
            let told: Vec<String> = fake.log.keys().filter(|room| room.starts_with("workflow:")).cloned().collect();
            let event = told.first().map(|room| fake.told(room)[0].replace(NOW, "T"));
            event.map(|event| format!("{} {event}", told[0]))
        };
        let progress = |state: &str, progress: &str, message: &str, details: &str| {
            Some(format!(
                r#"workflow:7 progress {{"type":"progress","workflow_id":"7","timestamp":"T","state":"{state}","progress":{progress},"stage":"outline","message":{message},"details":{details}}}"#
            ))
        };
        let topic = "episode.7.outline";
        for (topic, kind, data, expected) in [
            (topic, "progress", r#"{"percentage":0.5,"message":"m"}"#, progress("running", "0.5", r#""m""#, "{}")),
            (topic, "note", r#"{"percentage":0.5}"#, progress("running", "0.5", "null", "{}")),
            (topic, "complete", r#"{"message":"done"}"#, progress("completed", "1.0", r#""done""#, "{}")),
            (
                topic,
                "error",
                r#"{"message":"no","details":{"a":1}}"#,
                progress("failed", "0.0", r#""no""#, r#"{"a":1}"#),
            ),
            (topic, "status", r#"{"status":"s"}"#, None),
            (topic, "progress", r#"{"percentage":"half"}"#, None),
            ("episode.7.scene.2", "complete", "{}", None),
            ("episode.7.", "complete", "{}", None),
            ("episode..x", "complete", "{}", None),
            ("episode/7", "complete", "{}", None),
            ("t", "progress", r#"{"percentage":0.5}"#, None),
        ] {
            assert_eq!(moved(topic, kind, data), expected, "{topic} {kind}");
        }
    }

    #[test]
    fn a_failed_stage_keeps_how_far_the_workflow_was() {
        let mut fake = Fake::with(&[]);
        say(&mut fake, "topic:episode.7.video", "progress", r#"{"percentage":0.75}"#, None).unwrap();
        say(&mut fake, "topic:episode.7.video", "error", "{}", None).unwrap();
        let kept = state(&fake, "workflow:7");
        assert!(kept.contains(r#""state":"failed","progress":0.75,"stage":"video""#), "{kept}");
        assert_eq!(fake.states["workflow:7"].rev, 2);
    }

    #[test]
    fn whoever_says_something_in_a_chat_asks_the_backend() {
        let mut fake = Fake::with(&[]);
        say(&mut fake, "chat:t", "message", r#"{"message":"m"}"#, None).unwrap();
        say(&mut fake, "chat:t", "chunk", r#"{"content":"c"}"#, None).unwrap();
        assert_eq!(fake.given(), [r#"chat {"thread_id":"t","message":"m","temperature":0.7}"#]);
        assert_eq!(
            fake.told("chat:t"),
            [r#"message {"type":"message","message":"m"}"#, r#"chunk {"type":"chunk","content":"c"}"#]
        );
    }
}
