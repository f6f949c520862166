//! Where one message, or one request, meets the dialects: rows in memory with something in them, a clock that stands
//! still, and what becomes of an intent when the reactor, a reader and the worker have carried it out.

use std::sync::{Arc, LazyLock};

use commitcast::auth::ApiKey;
use commitcast::clock::Wall;
use commitcast::dialect::{
    self, Asker, Denial, Env, Failure, First, Hello, Intent, Name, Opening, Query, Read, Reply, Route, Session, Signal,
    Write, agents, documents,
};
use commitcast::files;
use commitcast::http::Response;
use commitcast::ids::{ConnId, RoomName, Seq};
use commitcast::model::{Task, TaskKind, Tasks};
use commitcast::store::memory::{MemorySnapshots, MemoryStore};
use commitcast::store::{Snapshots as _, Store as _};

use super::vocabulary::{self, Channel};

pub const NOW: Wall = Wall(1_747_101_540_123_456);
pub const SESSION: &str = "0af0bd5c-0000-4000-8000-00000000000a";
const FAILURES: [Failure; 5] = [Failure::Busy, Failure::Full, Failure::Broken, Failure::Unknown, Failure::Forbidden];
const HELLO: ConnId = ConnId { reactor: 0, slot: 4, generation: 1 };

/// What a backend has said before anybody comes: a session with a run and two requests in it, a workflow that has
/// begun, and a room of nobody's.
const BEFORE: [&str; 8] = [
    r#"{"op":"session","id":"0af0bd5c-0000-4000-8000-00000000000a","user_id":"ann"}"#,
    r#"{"op":"publish","room":"session:0af0bd5c-0000-4000-8000-00000000000a","type":"execute","data":{"command":"pay"}}"#,
    r#"{"op":"approval","session":"0af0bd5c-0000-4000-8000-00000000000a","tool_name":"pay","tool_args":{"to":"bob"},"reason":"r"}"#,
    r#"{"op":"approval","session":"0af0bd5c-0000-4000-8000-00000000000a","tool_name":"buy","tool_args":{},"reason":"r"}"#,
    r#"{"op":"publish","room":"workflow:text","type":"progress","data":{"progress":0.5}}"#,
    r#"{"op":"publish","room":"topic:text","type":"progress","data":{"percentage":0.5}}"#,
    r#"{"op":"publish","room":"tickets","type":"ticket_created","data":{"ticket_id":"t","ticket_name":"N","session_id":"s"}}"#,
    r#"{"op":"publish","room":"r:1","type":"note","id":"first","data":[1]}"#,
];

#[derive(Debug)]
pub struct Stage {
    store: MemoryStore,
    snapshots: MemorySnapshots,
    pub env: Env,
    /// Ids of requests for a decision, and their digests.
    approvals: Vec<(String, String)>,
}

pub fn key() -> Arc<ApiKey> {
    static KEY: LazyLock<Arc<ApiKey>> = LazyLock::new(|| {
        Arc::new(ApiKey { name: "worker".to_owned(), key: "secret".to_owned(), rights: vec!["*".to_owned()] })
    });
    KEY.clone()
}

pub fn prompt(name: &str) -> documents::Import {
    documents::Import {
        directory: "d".to_owned(),
        name: name.to_owned(),
        content: format!("text of {name}, which includes [[p0]]"),
        description: None,
        tags: vec!["a".to_owned()],
        created_at: None,
        updated_at: None,
        digest: [0; 20],
    }
}

fn asker() -> Asker {
    Asker { actor: "ann".into(), origin: 9, verified: false }
}

impl Stage {
    /// With `attached`, somebody takes every kind of task.
    pub fn new(attached: bool, pong: bool) -> Stage {
        let agents = agents::Env { pong, auto_create_sessions: pong };
        let env = Env { agents, ..Env::default() };
        if attached {
            env.attached.set(every_kind());
        }
        let mut store = MemoryStore::new(1, 1);
        files::load(&mut store, vec![prompt("p0"), prompt("text")], &env, NOW).expect("the store works");
        let snapshots = store.snapshots();
        let mut stage = Stage { store, snapshots, env, approvals: Vec::new() };
        let mut backend = stage.backend();
        for said in BEFORE {
            let Intent::Write(write) = backend.on_text(said, NOW) else { panic!("{said} is no write") };
            stage.write(&write);
        }
        for event in stage.store.log(&format!("session:{SESSION}")) {
            let body: serde_json::Value = serde_json::from_slice(&event.body).expect("a body is JSON");
            if let (Some(id), Some(digest)) = (body["request_id"].as_str(), body["digest"].as_str()) {
                stage.approvals.push((id.to_owned(), digest.to_owned()));
            }
        }
        assert_eq!(stage.approvals.len(), 2, "two requests wait for a decision");
        stage
    }

    fn backend(&self) -> Session {
        match dialect::open(&dialect::Target::Backend, Some(&key()), true) {
            Opening::Accept { session, .. } => session,
            other => panic!("{other:?}"),
        }
    }

    /// Puts ids in that the input cannot guess: `@s` the session's, `@a` and `@b` the requests', `@c` and `@d` their
    /// digests.
    pub fn filled(&self, text: &str) -> String {
        if !text.contains('@') {
            return text.to_owned();
        }
        let [(a, c), (b, d)] = &self.approvals[..] else { return text.to_owned() };
        [("@s", SESSION), ("@a", a), ("@b", b), ("@c", c), ("@d", d)]
            .iter()
            .fold(text.to_owned(), |text, (mark, value)| text.replace(mark, value))
    }

    pub fn read(&mut self, read: &Read) -> Reply {
        self.snapshots.begin().expect("the store works");
        let reply = dialect::read(read, &asker(), self.snapshots.rows(), &self.env, None).expect("the store works");
        self.snapshots.end();
        reply
    }

    /// As the worker does it: a resend gets the first answer, and what is told to others is heard.
    pub fn write(&mut self, write: &Write) -> Reply {
        self.store.begin(NOW).expect("the store works");
        let applied = dialect::apply(write, &asker(), self.store.rows(), &self.env).expect("the store works");
        self.store.commit().expect("the store works");
        for Signal { frames, .. } in &applied.signals {
            vocabulary::hear_frames(frames);
        }
        applied.reply
    }

    pub fn census(&mut self, read: &Read) -> Reply {
        self.snapshots.begin().expect("the store works");
        let views = [dialect::ConnView {
            id: HELLO,
            session: self.backend(),
            user: "ann".into(),
            client: [127, 0, 0, 1].into(),
            connected_at: NOW,
            rooms: vec![RoomName::new("r:1")],
        }];
        let reply = dialect::census(read, &views, self.snapshots.rows(), &self.env).expect("the store works");
        self.snapshots.end();
        reply
    }

    fn ask(&mut self, query: &Query) -> Reply {
        match query {
            Query::Read(read) => self.read(read),
            Query::Write(write) => self.write(write),
        }
    }

    /// A socket at this address, which was told what newcomers are told.
    pub fn enter(&mut self, path: &str, query: Option<&str>, authenticated: bool) -> (Session, Vec<&'static Channel>) {
        let channels = vocabulary::at(path);
        let Ok(Some(Route::Socket(target))) = dialect::route(path, query, &Name::ALL) else {
            panic!("{path} is no socket")
        };
        let mut entrance = match dialect::open(&target, Some(&key()), authenticated) {
            Opening::Accept { session, greeting, .. } => {
                if let Some(greeting) = greeting {
                    vocabulary::hear(&channels, &greeting);
                }
                return (session, channels);
            }
            Opening::Enter(entrance) => entrance,
            Opening::Ask(read) => match self.read(&read) {
                Reply::Found(entrance) => entrance,
                other => panic!("{path}: {other:?}"),
            },
            Opening::Refuse(reject) => panic!("{path}: {reject:?}"),
        };
        let reply = self.ask(&entrance.ask);
        vocabulary::hear_reply(&channels, &reply);
        entrance.session.share_name(&RoomName::new("doc:d/text"));
        (entrance.session, channels)
    }

    /// One message, or one binary frame, and everything that it leads to. False when it ended the connection.
    pub fn converse(
        &mut self,
        session: &mut Session,
        channels: &[&'static Channel],
        said: &[u8],
        binary: bool,
    ) -> bool {
        let intent = if binary {
            session.on_binary(said, NOW)
        } else {
            session.on_text(&self.filled(&String::from_utf8_lossy(said)), NOW)
        };
        let _ = intent.needs();
        match intent {
            Intent::Ignore | Intent::Farewell { .. } => {}
            Intent::Reply(payload) | Intent::Complain(payload) => vocabulary::hear(channels, &payload),
            Intent::ReplyThenClose(payload) => {
                if !payload.is_empty() {
                    vocabulary::hear(channels, &payload);
                }
                return false;
            }
            Intent::Close(reject) => {
                assert!((1000..5000).contains(&reject.row().close), "{reject:?}");
                return false;
            }
            Intent::Read(read) => {
                vocabulary::hear_reply(channels, &self.read(&read));
                for failure in FAILURES {
                    vocabulary::hear_reply(channels, &dialect::read_failed(&read, failure));
                }
            }
            Intent::Write(write) => self.try_write(channels, &write),
            Intent::Join(joining) => {
                let reply = self.read(&joining.ask);
                assert!(matches!(reply, Reply::Welcome { .. } | Reply::Frame(_)), "a join is answered: {reply:?}");
                vocabulary::hear_reply(channels, &reply);
                if let Some(reply) = dialect::welcome_back(&joining.ask, &self.env.directory) {
                    vocabulary::hear_reply(channels, &reply);
                }
                if session.dialect() != Name::Tickets {
                    let intent = Intent::Join(joining);
                    for why in [Denial::Forbidden, Denial::TooManyRooms] {
                        vocabulary::hear(channels, &session.denied(&intent, why));
                    }
                }
            }
            Intent::Leave { reply, .. } => vocabulary::hear(channels, &reply),
            Intent::Signal { room, data } => {
                vocabulary::hear_frames(&dialect::signal(&room, "ann", &data, HELLO).frames)
            }
            Intent::Presence { room } => {
                let ann: Arc<str> = "ann".into();
                let framed = dialect::presence(&room, &[ann], &[]);
                crate::served::texts(&framed).iter().for_each(|text| vocabulary::hear(channels, text.as_bytes()));
            }
            Intent::Authenticate { .. } => {
                session.authenticated();
                let ping = std::time::Duration::from_secs(25);
                let hello = Hello { conn: HELLO, user: "ann", durability: "full", ping, expires_in: None };
                session.hello(&hello).iter().for_each(|payload| vocabulary::hear(channels, payload));
            }
            Intent::Census(_) | Intent::Respond(_) | Intent::Evict { .. } | Intent::Stream(_) | Intent::Reload => {
                panic!("a message on a socket led to {intent:?}")
            }
        }
        true
    }

    /// Every answer that a write may get.
    fn try_write(&mut self, channels: &[&'static Channel], write: &Write) {
        assert!(write.operations() > 0);
        let _ = write.weight();
        let _ = dialect::fingerprint(write);
        vocabulary::hear_reply(channels, &self.write(write));
        for failure in FAILURES {
            vocabulary::hear_reply(channels, &dialect::failed(write, failure));
        }
        let first = First { seq: Seq(1), at: NOW, note: "0000000000000007 1" };
        vocabulary::hear_reply(channels, &dialect::repeated(write, first));
        vocabulary::hear_reply(channels, &dialect::id_taken(write));
    }

    /// What an endpoint answers; `None` where that is the reactor's.
    pub fn request(&mut self, intent: Intent) -> Option<Response> {
        let reply = match intent {
            Intent::Respond(response) => return Some(*response),
            Intent::Read(read) => {
                for failure in FAILURES {
                    let _ = dialect::read_failed(&read, failure);
                }
                self.read(&read)
            }
            Intent::Census(read) => self.census(&read),
            Intent::Write(write) => {
                for failure in FAILURES {
                    let _ = dialect::failed(&write, failure);
                }
                let _ = (dialect::fingerprint(&write), dialect::id_taken(&write), write.weight());
                self.write(&write)
            }
            Intent::Stream(writes) => {
                for write in writes {
                    let _ = dialect::failed(&write, Failure::Busy);
                    assert!(write.operations() > 0);
                    if let dialect::Change::Batch(each) = &write.change {
                        for reply in each.iter().map(|write| self.write(write)).collect::<Vec<_>>() {
                            let Reply::Frame(line) = reply else { panic!("a line of a batch is a frame: {reply:?}") };
                            assert!(serde_json::from_slice::<serde_json::Value>(&line).is_ok(), "{line:?}");
                        }
                    }
                }
                return None;
            }
            Intent::Reload => return Some(dialect::nothing_to_reload()),
            Intent::Evict { .. } => return Some(dialect::evicted(true)),
            other => panic!("a request led to {other:?}"),
        };
        match reply {
            Reply::Response(response) => Some(*response),
            Reply::Reject(reject) | Reply::Close(reject) => Some(Response::reject(&reject)),
            Reply::Silence | Reply::Later => None,
            other => panic!("a request was answered with {other:?}"),
        }
    }

    /// Every event that there is as each dialect shows it, what a newcomer is told instead, and every task.
    pub fn hear_all(&mut self) {
        for (room, _) in self.store.faults().rooms() {
            for event in self.store.log(room.as_str()) {
                assert!(serde_json::from_slice::<serde_json::Value>(&event.body).is_ok(), "{room}: {event:?}");
                vocabulary::hear_frames(&dialect::encode(&room, &event, u8::MAX));
            }
            self.snapshots.begin().expect("the store works");
            for name in Name::ALL {
                let frames = dialect::snapshot(name, &room, self.snapshots.rows()).expect("the store works");
                vocabulary::hear_frames(&frames);
            }
            self.snapshots.end();
        }
        for task in self.lease() {
            vocabulary::hear_task(&dialect::task(&task));
            let _ = dialect::tasks(&[task]);
        }
    }

    /// Every task, as it is handed out.
    fn lease(&mut self) -> Vec<Task> {
        self.store.begin(NOW).expect("the store works");
        let rows = self.store.rows();
        let ready = rows.ready_tasks(every_kind(), Wall(i64::MAX), 1000).expect("the store works");
        let lease = |task: &Task| rows.lease_task(task.id, 9, Wall(i64::MAX)).expect("the store works");
        let leased = ready.iter().filter_map(lease).collect();
        self.store.commit().expect("the store works");
        leased
    }
}

fn every_kind() -> Tasks {
    TaskKind::ALL.into_iter().collect()
}
