//! Sessions of each dialect, and what their clients say most.

use std::sync::Arc;

use commitcast::clock::Wall;
use commitcast::dialect::agents::{self, sessions};
use commitcast::dialect::{self, Asker, Env, Intent, Name, Opening, Route, Session, documents, native, workflows};
use commitcast::files;
use commitcast::ids::{ConnId, RoomName};
use commitcast::model::Event;
use commitcast::store::memory::MemoryStore;
use commitcast::store::{Job, Store as _};

use super::house::{self, NOW};
use super::texts;

pub const PING: &str = r#"{"type":"ping"}"#;
pub const RESPONSE: &str =
    r#"{"type":"user_response","session_id":"s-1234","response":"Yes, go ahead with the second."}"#;
pub const EXECUTE: &str =
    r#"{"type":"execute","data":{"command":"Summarise the last ten tickets and open one for what is left"}}"#;
pub const JOIN: &str = r#"{"op":"join","room":"free"}"#;
pub const SIGNAL: &str = r#"{"op":"signal","room":"free","data":{"typing":true,"at":1700000000}}"#;
pub const PROGRESS: &str =
    r#"{"state":"running","progress":0.25,"stage":"outline","message":"Two of eight scenes are drawn"}"#;
pub const MESSAGE: &str =
    r#"{"session_id":"s1","ticket_id":"t1","content":"Which of the two?","turn":3,"message_type":"question"}"#;
pub const WORKFLOW: &str = "workflow:wf9";

const AGENTS_SESSION: &str = "00000000-0000-4000-9000-000000000001";

/// An edit of a document of 256 bytes, as its page sends it.
pub fn update(number: usize) -> String {
    let content = texts::prose(256 - 4);
    format!(r#"{{"action":"update","content":"{number:04}{content}"}}"#)
}

/// What a backend says of work under way; native, with the id that makes it idempotent.
pub fn publish(room: &str, kind: &str, data: &str) -> String {
    format!(r#"{{"op":"publish","room":"{room}","id":"5f0c-17","type":"{kind}","data":{data}}}"#)
}

pub fn document_id(number: usize) -> String {
    format!("d/p{number}")
}

pub fn document_room(number: usize) -> RoomName {
    documents::room_of(&document_id(number))
}

/// What a socket of this dialect is in the middle of; of `documents`, one of this document.
pub fn session(name: Name, number: usize) -> Session {
    match name {
        Name::Documents => Session::Documents(documents::Session::Prompt { room: document_room(number) }),
        Name::Workflows => Session::Workflows(workflows::Session {
            place: workflows::Place::Workflow("wf9".into()),
            client: Some("page-1".into()),
        }),
        Name::Agents => Session::Agents(agents::Session { id: AGENTS_SESSION.into(), pong: false }),
        Name::Native => Session::Native(native::Session::new(true)),
        Name::Tickets => {
            let Ok(Some(Route::Socket(target))) = dialect::route("/ws", None, &Name::ALL) else {
                panic!("/ws is the tickets' socket")
            };
            let Opening::Enter(entrance) = dialect::open(&target, None, true) else { panic!("it is entered at once") };
            entrance.session
        }
    }
}

/// What becomes of `text` on its way to the store.
pub fn job(name: Name, text: &str, number: usize, conn: Option<ConnId>) -> Job {
    let Intent::Write(write) = session(name, number).on_text(text, Wall(NOW)) else { panic!("{text} is no write") };
    let asker = Asker { actor: Arc::from("ada"), origin: conn.map_or(0, ConnId::pack), verified: false };
    let charged = write.weight();
    Job { to: conn, asker, write, charged }
}

/// The event that `text` stores.
pub fn stored(name: Name, text: &str) -> (RoomName, Event) {
    let env = Arc::new(Env::default());
    let mut store = MemoryStore::new(1, 1);
    files::load(&mut store, house::documents(), &env, Wall(NOW)).unwrap();
    let job = job(name, text, 0, None);
    store.begin(Wall(NOW)).unwrap();
    let new = sessions::New { id: Some(AGENTS_SESSION.to_owned()), ..sessions::New::default() };
    sessions::create(&new, &job.asker, store.rows()).unwrap().unwrap();
    dialect::apply(&job.write, &job.asker, store.rows(), &env).unwrap();
    store.commit().unwrap();
    let room = job.write.room.clone();
    let event = store.log(room.as_str()).pop().unwrap_or_else(|| panic!("{text} stores nothing"));
    (room, event)
}
