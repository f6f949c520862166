//! The documents against the code: what a schema allows, the dialects take; what the dialects say, a schema allows; what
//! stands in their sources as a verb, a type or a path, stands in a table.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::judge::fits;
use super::samples::{UUID, samples};
use super::table::{Channel, Endpoint, Place, names_in};
use crate::auth::ApiKey;
use crate::clock::Wall;
use crate::dialect::agents::sessions;
use crate::dialect::fake::Fake;
use crate::dialect::publish::Publish;
use crate::dialect::{
    self, Asker, Env, Failure, First, Frames, Hello, Intent, Name, Opening, Query, Reply, Route, Session, Signal,
    Target, Write,
};
use crate::http::{Response, head};
use crate::ids::{ConnId, RoomName, Seq};
use crate::model::{Task, TaskKind, Transaction};

/// Where one message, or one request, meets the code.
struct Stage {
    rows: Fake,
    env: Env,
    document: Value,
    /// What was said besides, and is stored nowhere.
    signals: Vec<Signal>,
}

impl Stage {
    /// A prompt, a session with a run and a request in it, and a workflow that has begun.
    fn new() -> Stage {
        let mut rows = Fake::with(&["text"]);
        for id in [UUID, "text"] {
            let new = sessions::New { id: Some(id.to_owned()), ..sessions::New::default() };
            sessions::create(&new, &asker(), &mut rows).unwrap().unwrap();
        }
        let env = Env::default();
        env.attached.set(TaskKind::ALL.into_iter().collect());
        let mut stage = Stage { rows, env, document: super::openapi::document(), signals: Vec::new() };
        stage.publish("workflow:text", "progress", r#"{"progress":0.5}"#).unwrap();
        stage.publish(&format!("session:{UUID}"), "execute", r#"{"command":"pay"}"#).unwrap();
        stage
    }

    fn publish(&mut self, room: &str, kind: &str, data: &str) -> dialect::publish::Outcome {
        let data = Bytes::copy_from_slice(data.as_bytes());
        let publish = Publish { room: RoomName::new(room), kind: kind.to_owned(), data, if_rev: None };
        dialect::publish::publish(&publish, &asker(), None, &mut self.rows, &self.env).unwrap()
    }

    fn query(&mut self, query: &Query) -> Reply {
        match query {
            Query::Read(read) => dialect::read(read, &asker(), &mut self.rows, &self.env, None).unwrap(),
            Query::Write(write) => self.write(write),
        }
    }

    fn write(&mut self, write: &Write) -> Reply {
        let applied = dialect::apply(write, &asker(), &mut self.rows, &self.env).unwrap();
        self.signals.extend(applied.signals);
        applied.reply
    }

    /// Hands out every task.
    fn lease(&mut self) -> Vec<Task> {
        for id in self.rows.tasks.iter().map(|task| task.id).collect::<Vec<_>>() {
            self.rows.lease_task(id, 9, Wall(i64::MAX)).unwrap();
        }
        self.rows.tasks.clone()
    }

    /// A socket at this address, and what it is told first.
    fn enter(&mut self, channel: &Channel, address: &'static str) -> (Session, Vec<String>) {
        let query = channel.query.iter().any(|one| one.required).then(|| format!("session_id={UUID}"));
        let routed = dialect::route(&filled(address), query.as_deref(), &Name::ALL).unwrap();
        let Some(Route::Socket(target)) = routed else { panic!("{address} is no socket: {routed:?}") };
        match dialect::open(&target, Some(&key()), true) {
            Opening::Accept { session, greeting, .. } => {
                (session, greeting.into_iter().map(|greeting| text(&greeting)).collect())
            }
            Opening::Enter(entrance) => {
                let told = payloads(&self.query(&entrance.ask));
                (entrance.session, told)
            }
            Opening::Ask(read) => match dialect::read(&read, &asker(), &mut self.rows, &self.env, None).unwrap() {
                Reply::Found(entrance) => {
                    let told = payloads(&self.query(&entrance.ask));
                    (entrance.session, told)
                }
                other => panic!("{address}: {other:?}"),
            },
            Opening::Refuse(reject) => panic!("{address}: {reject:?}"),
        }
    }
}

fn asker() -> Asker {
    Asker { actor: "ann".into(), origin: 9, verified: false }
}

fn key() -> Arc<ApiKey> {
    Arc::new(ApiKey { name: "worker".to_owned(), key: "secret".to_owned(), rights: vec!["*".to_owned()] })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A path with something for each of its names.
fn filled(path: &'static str) -> String {
    names_in(path).fold(path.to_owned(), |path, name| {
        let value = match name {
            "request_id" | "approval" | "session" | "session_id" => UUID,
            "task" => "1",
            "connection" => "c0.4.1",
            _ => "text",
        };
        path.replace(&format!("{{{name}}}"), value)
    })
}

/// What a reply says on a socket.
fn payloads(reply: &Reply) -> Vec<String> {
    match reply {
        Reply::Frame(frames) | Reply::Welcome { frame: frames, .. } => unframed(frames),
        _ => Vec::new(),
    }
}

/// The payloads of a run of text frames.
fn unframed(mut frames: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    while let [0x81, length, rest @ ..] = frames {
        let (length, rest) = match length {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            127 => (u64::from_be_bytes(rest[..8].try_into().unwrap()) as usize, &rest[8..]),
            length => (usize::from(*length), rest),
        };
        found.push(text(&rest[..length]));
        frames = &rest[length..];
    }
    assert!(frames.is_empty());
    found
}

/// A refusal in any dialect's words.
fn is_refusal(payload: &str) -> bool {
    let value: Value = serde_json::from_str(payload).unwrap_or_default();
    value["action"] == "error" || value["type"] == "error" || value["op"] == "refused" || value["success"] == false
}

/// Was the message carried on as what it says?
fn is_understood(intent: &Intent, stage: &mut Stage) -> bool {
    match intent {
        Intent::Ignore | Intent::Complain(_) | Intent::ReplyThenClose(_) | Intent::Close(_) => false,
        Intent::Reply(payload) => !is_refusal(&text(payload)),
        Intent::Write(write) if write.room.as_str().starts_with("workflow:") => {
            payloads(&stage.write(write)).iter().all(|payload| !is_refusal(payload))
        }
        _ => true,
    }
}

// ---- what clients say ---------------------------------------------------------------------------------------------------

#[test]
fn what_a_client_may_say_is_understood_and_nothing_less() {
    for channel in super::channels() {
        for address in channel.addresses.iter().copied() {
            let mut stage = Stage::new();
            let (session, _) = stage.enter(&channel, address);
            for message in channel.messages.iter().filter(|message| message.name.contains(".client.")) {
                // Refused on purpose, as its summary says.
                if message.name == "agents.client.ping" || message.is_plain {
                    continue;
                }
                let mut say = |value: &Value| {
                    let intent = session.clone().on_text(&value.to_string(), Wall(0));
                    (is_understood(&intent, &mut stage), intent)
                };
                for sample in samples(&message.payload, &Value::Null) {
                    let (understood, intent) = say(&sample);
                    assert!(understood, "{address} {}: {sample} led to {intent:?}", message.name);
                }
                let least = samples(&message.payload, &Value::Null).swap_remove(0);
                for name in least.as_object().unwrap().keys() {
                    let mut less = least.clone();
                    less.as_object_mut().unwrap().remove(name);
                    let (understood, intent) = say(&less);
                    assert!(!understood, "{address} {} needs no {name}: {intent:?}", message.name);
                }
            }
        }
    }
}

// ---- what the server says -----------------------------------------------------------------------------------------------

/// Holds what is said against the tables, and remembers what was never said.
struct Ear {
    channels: Vec<Channel>,
    heard: BTreeSet<&'static str>,
}

impl Ear {
    fn new() -> Ear {
        Ear { channels: super::channels(), heard: BTreeSet::new() }
    }

    /// `of`: the start of the names of the channels that it is said on.
    fn hear(&mut self, of: &str, payload: &str) {
        let channels = self.channels.iter().filter(|channel| channel.name.starts_with(of));
        let messages = channels.flat_map(|channel| &channel.messages).filter(|one| one.name.contains(".server."));
        let mut whys = Vec::new();
        let mut fitting = BTreeSet::new();
        for message in messages {
            let value = match message.is_plain {
                true => Ok(payload.into()),
                false => serde_json::from_str(payload),
            };
            match value.map(|value: Value| fits(&message.payload, &value, &Value::Null)) {
                Ok(Ok(())) => {
                    fitting.insert(message.name);
                }
                Ok(Err(why)) => whys.push(format!("{}: {why}", message.name)),
                Err(_) => {}
            }
        }
        assert!(!fitting.is_empty(), "no message of {of} is {payload}\n{}", whys.join("\n"));
        self.heard.extend(fitting);
    }

    fn hear_reply(&mut self, of: &str, reply: &Reply) {
        for payload in payloads(reply) {
            self.hear(of, &payload);
        }
    }

    /// Every event of every room as each dialect shows it, every signal, every task.
    fn hear_all(&mut self, stage: &mut Stage) {
        for (room, events) in &stage.rows.log {
            for event in events {
                self.hear_frames(&dialect::encode(&RoomName::new(room), event, u8::MAX));
            }
        }
        for signal in &stage.signals {
            self.hear_frames(&signal.frames);
        }
        for task in stage.lease() {
            for payload in unframed(&dialect::task(&task)) {
                self.hear("backend.", &payload);
            }
        }
    }

    fn hear_frames(&mut self, frames: &Frames) {
        for name in Name::ALL {
            for payload in unframed(frames.of(name)) {
                self.hear(&format!("{}.", name.as_str()), &payload);
            }
        }
    }
}

const FAILURES: [Failure; 5] = [Failure::Busy, Failure::Full, Failure::Broken, Failure::Unknown, Failure::Forbidden];

/// Said by the reactor or in a state that is not played here; each is held by the tests of its own dialect, byte for byte.
const NOT_PLAYED: [&str; 3] = ["native.server.refused.stale", "native.server.reset", "backend.server.conflict"];

#[test]
fn what_the_server_says_is_written_down() {
    let mut ear = Ear::new();
    for channel in super::channels() {
        for address in channel.addresses.iter().copied() {
            converse(&channel, address, &mut ear);
        }
    }
    hear_of_the_sockets(&mut ear);
    hear_of_publications(&mut ear);
    let written: BTreeSet<&str> =
        ear.channels.iter().flat_map(|channel| &channel.messages).map(|one| one.name).collect();
    let unheard: Vec<&str> = written
        .into_iter()
        .filter(|name| name.contains(".server.") && !ear.heard.contains(name) && !NOT_PLAYED.contains(name))
        .collect();
    assert!(unheard.is_empty(), "written down, and never said: {unheard:?}");
}

/// Everything that a client may say there, and some nonsense; and what it is told.
fn converse(channel: &Channel, address: &'static str, ear: &mut Ear) {
    let mut stage = Stage::new();
    let (session, told) = stage.enter(channel, address);
    for payload in told {
        ear.hear(channel.name, &payload);
    }
    let nonsense = ["no JSON", "[]", "{}", r#"{"type":"x","data":{}}"#].map(str::to_owned);
    let sense = channel.messages.iter().filter(|one| one.name.contains(".client."));
    let sense = sense.flat_map(|one| samples(&one.payload, &Value::Null)).map(|value| value.to_string());
    for said in sense.chain(nonsense) {
        match session.clone().on_text(&said, Wall(1_747_101_540_123_456)) {
            Intent::Reply(payload) | Intent::Complain(payload) | Intent::ReplyThenClose(payload)
                if !payload.is_empty() =>
            {
                ear.hear(channel.name, &text(&payload));
            }
            Intent::Read(read) => {
                let reply = stage.query(&Query::Read(read.clone()));
                ear.hear_reply(channel.name, &reply);
                for failure in FAILURES {
                    ear.hear_reply(channel.name, &dialect::read_failed(&read, failure));
                }
            }
            Intent::Join(joining) => {
                let reply = stage.query(&Query::Read(Box::new(joining.ask.clone())));
                ear.hear_reply(channel.name, &reply);
                let intent = Intent::Join(joining);
                // A tickets socket joins again the room that it is in, which nobody denies it.
                let whys = [dialect::Denial::Forbidden, dialect::Denial::TooManyRooms];
                for why in whys.into_iter().filter(|_| session.dialect() != Name::Tickets) {
                    ear.hear(channel.name, &text(&session.denied(&intent, why)));
                }
            }
            Intent::Leave { reply, .. } => ear.hear(channel.name, &text(&reply)),
            Intent::Write(write) => {
                let reply = stage.write(&write);
                ear.hear_reply(channel.name, &reply);
                for failure in FAILURES {
                    ear.hear_reply(channel.name, &dialect::failed(&write, failure));
                }
                let first = First { seq: Seq(1), at: Wall(0), note: "0000000000000007 1" };
                ear.hear_reply(channel.name, &dialect::repeated(&write, first));
                ear.hear_reply(channel.name, &dialect::id_taken(&write));
            }
            _ => {}
        }
    }
    ear.hear_all(&mut stage);
}

/// What no message asks for.
fn hear_of_the_sockets(ear: &mut Ear) {
    let hello = |expires_in| Hello {
        conn: ConnId { reactor: 0, slot: 4, generation: 1 },
        user: "ann",
        durability: "full",
        ping: Duration::from_secs(25),
        expires_in,
    };
    let room = RoomName::new("r:1");
    for channel in super::channels() {
        let address = channel.addresses[0];
        let (session, _) = Stage::new().enter(&channel, address);
        for told in [
            session.hello(&hello(None)),
            session.hello(&hello(Some(Duration::from_secs(1)))),
            session.expiring(Duration::from_secs(60)),
            session.bye(1012, Duration::from_millis(7)),
            session.beat_every().map(|_| session.beat(Wall(0))),
        ] {
            if let (Some(payload), false) = (told, address == "/v1/echo") {
                ear.hear(channel.name, &text(&payload));
            }
        }
    }
    let conn = hello(None).conn;
    let signal = dialect::signal(&room, "ann", b"{\"typing\":true}", conn);
    for payload in unframed(signal.frames.of(Name::Native)) {
        ear.hear("native.", &payload);
    }
    for payload in unframed(&dialect::presence(&room, &["ann".into()], &[])) {
        ear.hear("native.", &payload);
    }
    ear.hear("native.echo", "text");
}

/// What backends publish in every room, as its members see it.
fn hear_of_publications(ear: &mut Ear) {
    let mut stage = Stage::new();
    let session = format!("session:{UUID}");
    let t = r#""ticket_id":"t","ticket_name":"N","session_id":"s""#;
    let ticket = format!("{{{t}}}");
    let tool = format!(r#"{{{t},"tool_name":"Bash","content":"c"}}"#);
    let mut published = vec![
        ("workflow:text", "progress", "{}"),
        ("workflow:text", "error", "{}"),
        ("workflow:text", "status", "{}"),
        ("workflow:text", "warning", "{}"),
        ("workflow:text", "complete", "{}"),
        ("workflow:text", "anything", "{}"),
        ("agent:text", "agent_status", r#"{"status":"busy"}"#),
        ("agent:text", "error", "{}"),
        ("coordinator", "coordinator_metrics", "{}"),
        ("coordinator", "error", "{}"),
        ("topic:text", "progress", r#"{"percentage":0.5}"#),
        ("topic:text", "status", "{}"),
        ("topic:text", "error", "{}"),
        ("topic:text", "warning", "{}"),
        ("topic:text", "complete", "{}"),
        ("topic:text", "anything", "{}"),
        ("chat:text", "chunk", "{}"),
        ("chat:text", "done", "{}"),
        ("chat:text", "error", r#"{"error":"no"}"#),
        ("tickets", "ticket_created", &ticket),
        ("tickets", "agent_started", &ticket),
        ("tickets", "agent_message", &tool),
        ("tickets", "tool_execution", &tool),
        ("tickets", "agent_question", &tool),
        ("tickets", "tool_call", &tool),
        ("tickets", "agent_complete", r#"{"job_id":"j","ticket_id":"t","status":"error"}"#),
        ("tickets", "agent_error", r#"{"job_id":"j","error":"boom"}"#),
        ("tickets", "anything", "{}"),
        ("logs", "status_change", r#"{"ticket_id":"t","status":"done"}"#),
        ("doc:text", "update", r#"{"content":"x"}"#),
        ("doc:text", "update_metadata", r#"{"tags":["x"]}"#),
        ("doc:new", "create", "{}"),
        ("r:1", "anything", "[1]"),
    ];
    published.extend(
        [
            ("thinking", "{}"),
            ("tool_call", r#"{"tool_name":"x","tool_id":"1"}"#),
            ("tool_result", r#"{"tool_id":"1","success":true}"#),
            ("subagent_start", "{}"),
            ("subagent_end", "{}"),
            ("error", r#"{"message":"again","terminal":false}"#),
            ("approval_required", r#"{"tool_name":"pay","request_id":"0af0bd5c-0000-4000-8000-00000000000b"}"#),
            ("approval_required", r#"{"tool_name":"pay","request_id":"0af0bd5c-0000-4000-8000-00000000000c"}"#),
            ("approval_required", r#"{"tool_name":"pay","request_id":"0af0bd5c-0000-4000-8000-00000000000d"}"#),
        ]
        .map(|(kind, data)| (&*session, kind, data)),
    );
    for (room, kind, data) in published {
        if let Err(refusal) = stage.publish(room, kind, data) {
            panic!("{room} {kind}: {refusal:?}");
        }
    }
    decide_over_native(&mut stage, ear);
    stage.publish(&session, "complete", "{}").unwrap();
    stage.publish(&session, "execute", r#"{"command":"pay"}"#).unwrap();
    stage.publish(&session, "cancel", "{}").unwrap();
    let created = json!({"ticket_name": "N"}).to_string();
    let webhook = json!({"page_id": "p", "database_id": "d", "event_type": "e"}).to_string();
    for (line, body) in [
        ("POST /tickets/create", &*created),
        ("POST /webhook/notion", &*webhook),
        ("POST /api/prompts/", r#"{"name":"made"}"#),
        ("PUT /api/prompts/made", r#"{"content":"x"}"#),
        ("DELETE /api/prompts/made", ""),
    ] {
        requested(line, body, &mut stage).unwrap();
    }
    ear.hear_all(&mut stage);
    finish_over_the_socket(&mut stage, ear);
    // Who comes now is told the newest.
    stage.env.agents = dialect::agents::Env { pong: true, ..dialect::agents::Env::default() };
    for channel in super::channels() {
        let (mut session, told) = stage.enter(&channel, channel.addresses[0]);
        told.iter().for_each(|payload| ear.hear(channel.name, payload));
        if let Intent::Reply(payload) = session.on_text(r#"{"type":"ping","data":{}}"#, Wall(0)) {
            ear.hear(channel.name, &text(&payload));
        }
    }
}

/// One task is done, as a backend says it.
fn finish_over_the_socket(stage: &mut Stage, ear: &mut Ear) {
    let Opening::Accept { mut session, .. } = dialect::open(&Target::Backend, Some(&key()), true) else { panic!() };
    let task = stage.lease().swap_remove(0);
    let said = json!({"op": "done", "task": task.id.0.to_string(), "fence": task.fence});
    let Intent::Write(write) = session.on_text(&said.to_string(), Wall(0)) else { panic!("{said}") };
    let reply = stage.write(&write);
    ear.hear_reply("backend.", &reply);
}

/// Three requests, each decided in its way, and one of them twice.
fn decide_over_native(stage: &mut Stage, ear: &mut Ear) {
    let Opening::Accept { mut session, .. } = dialect::open(&Target::Native, None, true) else { panic!() };
    let approvals: Vec<Value> = stage
        .rows
        .log
        .values()
        .flatten()
        .filter(|event| event.kind == "approval_required")
        .map(|event| serde_json::from_slice(&event.body).unwrap())
        .collect();
    for (index, decision) in [(0, "approve"), (1, "reject"), (2, "edit"), (2, "cancel")] {
        let (approval, seen) = (&approvals[index]["request_id"], &approvals[index]["digest"]);
        let said = json!({
            "op": "decide", "room": format!("session:{UUID}"), "id": decision, "approval": approval, "seen": seen,
            "decision": decision, "edited_args": {"n": 1},
        });
        let Intent::Write(write) = session.on_text(&said.to_string(), Wall(0)) else { panic!("{said}") };
        let reply = stage.write(&write);
        ear.hear_reply("native.", &reply);
    }
    let stale = json!({"op": "publish", "room": "r:1", "id": "c", "data": 1, "if_rev": 9});
    let Intent::Write(write) = session.on_text(&stale.to_string(), Wall(0)) else { panic!("{stale}") };
    let reply = stage.write(&write);
    ear.hear_reply("native.", &reply);
}

// ---- HTTP ---------------------------------------------------------------------------------------------------------------

fn asked(line: &str, body: &str, stage: &Stage) -> Intent {
    let text = format!("{line} HTTP/1.1\r\nHost: example.org\r\nContent-Type: application/json\r\n\r\n");
    let (head, _) = head::parse(text.as_bytes()).unwrap().unwrap();
    match dialect::route(head.path, head.query, &Name::ALL).unwrap() {
        Some(Route::Endpoint(name)) => dialect::endpoint(name, &head, body.as_bytes(), "127.0.0.1", &stage.env),
        Some(Route::Backend) => dialect::backend::endpoint(&head, body.as_bytes(), &key()),
        other => panic!("{line} is no endpoint: {other:?}"),
    }
}

/// None where the answer is not the dialect's: a stream, a reload, a close, a wait for tasks.
fn requested(line: &str, body: &str, stage: &mut Stage) -> Option<Response> {
    let reply = match asked(line, body, stage) {
        Intent::Respond(response) => return Some(*response),
        Intent::Read(read) => stage.query(&Query::Read(read)),
        Intent::Census(read) => dialect::census(&read, &[], &mut stage.rows, &stage.env).unwrap(),
        Intent::Write(write) => stage.write(&write),
        _ => return None,
    };
    match reply {
        Reply::Response(response) => Some(*response),
        _ => None,
    }
}

fn each_endpoint(mut then: impl FnMut(&Endpoint)) {
    // The server's own are held by admission's tests.
    for (_, endpoints) in super::endpoints().into_iter().filter(|(tag, _)| *tag != "service") {
        endpoints.iter().for_each(&mut then);
    }
}

/// With what it cannot do without.
fn line_of(endpoint: &Endpoint) -> String {
    let needed = endpoint.parameters.iter().find(|one| one.required && one.place == Place::Query);
    let query = needed.map(|one| format!("?{}=text", one.name)).unwrap_or_default();
    format!("{} {}{query}", endpoint.method.to_uppercase(), filled(endpoint.path))
}

fn bodies(endpoint: &Endpoint, stage: &Stage) -> Vec<Value> {
    endpoint.body.as_ref().map_or(Vec::new(), |body| samples(&body.schema, &stage.document))
}

#[test]
fn every_answer_is_written_down() {
    each_endpoint(|endpoint| {
        let mut stage = Stage::new();
        let mut all: Vec<String> = bodies(endpoint, &stage).iter().map(Value::to_string).collect();
        all.extend(["", "[]", "{", "{}"].map(str::to_owned));
        for body in all {
            let line = line_of(endpoint);
            let Some(response) = requested(&line, &body, &mut stage) else { continue };
            let answer = endpoint.answers.iter().find(|answer| answer.status == response.status);
            let Some(answer) = answer else {
                let problem: Value = serde_json::from_slice(&response.body).unwrap();
                let schema = &stage.document["components"]["schemas"]["Problem"];
                let told = fits(schema, &problem, &stage.document);
                assert!(told.is_ok(), "{line} {body}: {} is not written down: {told:?}", response.status);
                continue;
            };
            match &answer.content {
                None => assert!(response.body.is_empty(), "{line} {body}"),
                Some((media, schema)) => {
                    assert_eq!(response.content_type, *media, "{line} {body}");
                    let value: Value = match response.body.is_empty() {
                        true => continue,
                        false => serde_json::from_slice(&response.body).unwrap(),
                    };
                    let told = fits(schema, &value, &stage.document);
                    assert!(told.is_ok(), "{line} {body}: {} {told:?}", response.status);
                }
            }
        }
    });
}

#[test]
fn what_a_request_may_say_is_understood_and_nothing_less() {
    each_endpoint(|endpoint| {
        let stage = Stage::new();
        let line = line_of(endpoint);
        let refused = |body: &Value| match asked(&line, &body.to_string(), &stage) {
            Intent::Respond(response) if response.status >= 400 => Some(text(&response.body)),
            _ => None,
        };
        for body in bodies(endpoint, &stage) {
            assert_eq!(refused(&body), None, "{line} {body}");
        }
        let Some(body) = endpoint.body.as_ref().filter(|body| body.media == super::table::JSON) else { return };
        let resolved = match body.schema.get("$ref") {
            Some(_) => &stage.document["components"]["schemas"]["Publish"],
            None => &body.schema,
        };
        let alternatives = match resolved.get("anyOf") {
            Some(schemas) => schemas.as_array().unwrap().clone(),
            None => vec![resolved.clone()],
        };
        for schema in alternatives {
            let least = samples(&schema, &stage.document).swap_remove(0);
            for name in least.as_object().unwrap().keys() {
                let mut less = least.clone();
                less.as_object_mut().unwrap().remove(name);
                assert!(refused(&less).is_some(), "{line} needs no {name}");
            }
        }
    });
}

#[test]
fn numbers_in_a_query_have_the_bounds_that_are_written_down() {
    let mut counted = 0;
    each_endpoint(|endpoint| {
        for parameter in endpoint.parameters.iter().filter(|one| one.place == Place::Query) {
            let (Some(least), Some(most)) =
                (parameter.schema["minimum"].as_u64(), parameter.schema["maximum"].as_u64())
            else {
                continue;
            };
            let stage = Stage::new();
            let is_taken = |number: u64| {
                let line = format!("{}?{}={number}", line_of(endpoint), parameter.name);
                !matches!(asked(&line, "", &stage), Intent::Respond(response) if response.status >= 400)
            };
            let taken = (is_taken(least), is_taken(most), is_taken(most + 1));
            assert_eq!(taken, (true, true, false), "{} {}", endpoint.path, parameter.name);
            assert!(least == 0 || !is_taken(least - 1), "{} {}", endpoint.path, parameter.name);
            counted += 1;
        }
    });
    assert!(counted >= 6, "{counted}");
}

/// The other direction: a method that the code takes is a method that is written down.
#[test]
fn every_method_is_written_down() {
    let mut all: Vec<(&'static str, &'static str)> = Vec::new();
    each_endpoint(|endpoint| all.push((endpoint.path, endpoint.method)));
    for (path, _) in &all {
        let line = format!("OPTIONS {}", filled(path));
        let Intent::Respond(response) = asked(&line, "", &Stage::new()) else { continue };
        let Some((_, allow)) = response.headers.iter().find(|(name, _)| name == "Allow") else {
            assert_eq!(response.status, 307, "{line} says nothing of its methods");
            continue;
        };
        let allowed: BTreeSet<String> =
            allow.split(", ").filter(|method| *method != "HEAD").map(str::to_lowercase).collect();
        let written: BTreeSet<String> = all
            .iter()
            .filter(|(template, _)| leads(template, &filled(path)))
            .map(|(_, method)| (*method).to_owned())
            .collect();
        assert_eq!(allowed, written, "{line}: what is allowed, and what is written down");
    }
}

/// A name in braces is whatever stands there; slashes too, where its description says so.
fn leads(template: &str, path: &str) -> bool {
    match template.split_once('{') {
        None => template == path,
        Some((before, rest)) => {
            let (name, after) = rest.split_once('}').unwrap();
            let spans = super::table::about(name).0.contains("slashes");
            let fits = |inner: &str| !inner.is_empty() && (spans || !inner.contains('/'));
            path.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)).is_some_and(fits)
        }
    }
}

// ---- the sources ----------------------------------------------------------------------------------------------------------

macro_rules! source {
    ($path:literal) => {
        ($path, include_str!(concat!("../dialect/", $path)))
    };
}

/// The code, without its tests and its comments.
fn code(source: &'static str) -> impl Iterator<Item = &'static str> {
    let code = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    code.lines().map(str::trim).filter(|line| !line.starts_with("//"))
}

/// The texts in quotes that a line holds.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('"').skip(1).step_by(2)
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// What a dialect's messages of one side call themselves and their alternatives.
fn words_of(dialect: &str, side: &str) -> BTreeSet<String> {
    fn collect(schema: &Value, words: &mut BTreeSet<String>) {
        match schema {
            Value::Object(fields) => {
                words.extend(fields.get("const").and_then(Value::as_str).map(str::to_owned));
                for word in fields.get("enum").and_then(Value::as_array).into_iter().flatten() {
                    words.extend(word.as_str().map(str::to_owned));
                }
                // Not what is excluded.
                fields.iter().filter(|(name, _)| *name != "not").for_each(|(_, value)| collect(value, words));
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, words)),
            _ => {}
        }
    }
    let mut words = BTreeSet::new();
    for message in super::channels().iter().flat_map(|channel| &channel.messages) {
        if message.name.starts_with(dialect) && message.name.contains(side) {
            collect(&message.payload, &mut words);
        }
    }
    words
}

#[test]
fn every_verb_in_the_sources_is_written_down() {
    let mut found = 0;
    for (dialect, (path, source)) in [
        ("documents.", source!("documents/session.rs")),
        ("workflows.", source!("workflows/session.rs")),
        ("tickets.", source!("tickets/session.rs")),
        ("agents.", source!("agents/wire.rs")),
        ("native.", source!("native/session.rs")),
        ("native.", source!("native/message.rs")),
        ("backend.", source!("backend/session.rs")),
    ] {
        let known = words_of(dialect, ".client.");
        for line in code(source) {
            let Some((pattern, _)) = line.split_once("=>") else { continue };
            // The failpoints' own word is in no build that serves anybody.
            for word in quoted(pattern).filter(|word| is_word(word) && *word != "panic") {
                assert!(known.contains(word), "src/dialect/{path} knows `{word}`, which no message of {dialect} is");
                found += 1;
            }
        }
    }
    assert!(found > 30, "only {found} were found");
}

/// Types of rooms that no socket of their dialect joins; members of those rooms are native.
const ROOMS_WITHOUT_A_SOCKET: [&str; 2] = ["compilation_progress", "segment_progress"];

#[test]
fn every_type_in_the_sources_is_written_down() {
    const MARKS: [&str; 8] = [
        "action: \"",
        "r#type: \"",
        "op: \"",
        "Object::of(\"",
        "said_of(\"",
        "said(\"",
        "envelope(\"",
        "append(id, \"",
    ];
    let mut found = 0;
    for (dialect, (path, source)) in [
        ("documents.", source!("documents/wire.rs")),
        ("documents.", source!("documents/writes.rs")),
        ("workflows.", source!("workflows/wire.rs")),
        ("tickets.", source!("tickets/wire.rs")),
        ("agents.", source!("agents/wire.rs")),
        ("agents.", source!("agents/writes.rs")),
        ("native.", source!("native/wire.rs")),
        ("backend.", source!("backend/wire.rs")),
        ("backend.", source!("backend/answers.rs")),
    ] {
        let known = words_of(dialect, ".server.");
        for line in code(source) {
            for mark in MARKS {
                for rest in line.split(mark).skip(1) {
                    let word = rest.split('"').next().unwrap_or_default();
                    if is_word(word) {
                        assert!(
                            known.contains(word),
                            "src/dialect/{path} says `{word}`, which no message of {dialect} is"
                        );
                        found += 1;
                    }
                }
            }
        }
    }
    let known = words_of("workflows.", ".server.");
    let (path, source) = source!("workflows/shapes.rs");
    for line in code(source).filter(|line| line.contains("Family::")) {
        let Some((pattern, _)) = line.split_once("=>") else { continue };
        for word in quoted(pattern).filter(|word| is_word(word) && !ROOMS_WITHOUT_A_SOCKET.contains(word)) {
            assert!(known.contains(word), "src/dialect/{path} shapes `{word}`, which no message is");
            found += 1;
        }
    }
    let known = words_of("agents.", ".server.");
    let (path, source) = source!("agents/guard.rs");
    for line in code(source).filter(|line| line.starts_with("(\"") && line.contains("&[\"")) {
        let word = quoted(line).next().unwrap_or_default();
        assert!(known.contains(word), "src/dialect/{path} lets `{word}` pass, which no message is");
        found += 1;
    }
    assert!(found > 45, "only {found} were found");
}

#[test]
fn every_path_in_the_sources_is_written_down() {
    let mut written: Vec<&'static str> = super::channels().into_iter().flat_map(|channel| channel.addresses).collect();
    let endpoints = super::endpoints();
    written.extend(endpoints.iter().flat_map(|(_, endpoints)| endpoints).map(|endpoint| endpoint.path));
    let mut found = 0;
    let admission = ("../admission.rs", include_str!("../admission.rs"));
    for (path, source) in [
        ("mod.rs", include_str!("../dialect/mod.rs")),
        admission,
        source!("documents/paths.rs"),
        source!("documents/rest.rs"),
        source!("workflows/paths.rs"),
        source!("tickets/paths.rs"),
        source!("agents/paths.rs"),
        source!("agents/rest.rs"),
        source!("backend/rest.rs"),
    ] {
        for line in code(source) {
            // A whole path anywhere; a part of one where paths are taken apart.
            let (pattern, _) = line.split_once("=>").unwrap_or((if line.contains("strip_") { line } else { "" }, ""));
            let parts: Vec<&str> = quoted(pattern).filter(|_| path.ends_with("rest.rs")).collect();
            for part in quoted(line) {
                let is_path = part.starts_with('/') && !part.contains('{');
                let letters = |part: &str| part.bytes().all(|byte| byte.is_ascii_lowercase() || b"_/".contains(&byte));
                if part.len() > 1 && (is_path || (parts.contains(&part) && letters(part))) {
                    let known = written.iter().any(|path| path.contains(part));
                    assert!(known, "src/dialect/{path} knows `{part}`, which is part of no path that is written down");
                    found += 1;
                }
            }
        }
    }
    assert!(found > 50, "only {found} were found");
}

#[test]
fn the_documents_are_made_and_whole() {
    for (bytes, version) in [(super::openapi(), "openapi"), (super::asyncapi(), "asyncapi")] {
        let document: Value = serde_json::from_slice(&bytes).unwrap();
        assert!(document[version].as_str().unwrap().starts_with('3'));
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        check_references(&document, &document);
    }
    let names: Vec<&str> =
        super::channels().iter().flat_map(|channel| &channel.messages).map(|message| message.name).collect();
    for name in names {
        let parts: Vec<&str> = name.split('.').collect();
        assert!(matches!(parts[..], [_, "client" | "server", _] | [_, "client" | "server", _, _]), "{name}");
    }
}

/// One name, one message: two of a name would be one in the document.
#[test]
fn a_name_stands_for_one_shape() {
    let mut known: Vec<(&str, Value)> = Vec::new();
    for message in super::channels().into_iter().flat_map(|channel| channel.messages) {
        match known.iter().find(|(name, _)| *name == message.name) {
            Some((name, payload)) => assert_eq!(*payload, message.payload, "{name}"),
            None => known.push((message.name, message.payload)),
        }
    }
}

fn check_references(value: &Value, document: &Value) {
    match value {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
            }
            fields.values().for_each(|value| check_references(value, document));
        }
        Value::Array(items) => items.iter().for_each(|item| check_references(item, document)),
        _ => {}
    }
}
