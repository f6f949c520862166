//! What both Rust peers do with a message: find its kind, keep the rooms, write the reply.
//!
//! A member of a room is the sending end of its connection's queue, as in tokio-tungstenite's own chat example; a signal is
//! serialized once and its bytes, which are counted references, are put into each member's queue. The mutex is never contended:
//! each peer has one thread, and `tokio::spawn` is lighter than a `LocalSet` would be.
//!
//! JSON is serde_json's: fields are borrowed from the message where they have no escapes, and a signal's `data` is checked as
//! JSON and passed on as it stands.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::mpsc::UnboundedSender;

/// At most so many queued messages are taken at once.
pub const BATCH: usize = 256;

/// For whoever connects all at once; the kernel caps it at net.core.somaxconn.
pub const BACKLOG: u32 = 4096;

pub type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// What a path serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Rooms,
    /// Documents are for the durable peers; this one answers that it has none.
    Prompt,
}

pub fn route(path: &str) -> Option<Service> {
    match path {
        "/ws" | "/v1/connect" => Some(Service::Rooms),
        _ => path.starts_with("/ws/prompts/").then_some(Service::Prompt),
    }
}

/// The port that the command line names.
pub fn port() -> Result<u16, Box<dyn std::error::Error + Send + Sync>> {
    let port = std::env::args().nth(1).ok_or("say which port: PROGRAM PORT")?;
    Ok(port.parse().map_err(|error| format!("the port `{port}` is not one: {error}"))?)
}

/// The queues of the members of each room; `T` is a message's text in the shape that the WebSocket library shares.
#[derive(Debug)]
pub struct Rooms<T> {
    members: Mutex<HashMap<String, HashMap<u64, UnboundedSender<T>>>>,
    clients: AtomicU64,
}

impl<T> Default for Rooms<T> {
    fn default() -> Self {
        Self { members: Mutex::default(), clients: AtomicU64::default() }
    }
}

impl<T> Rooms<T> {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, HashMap<u64, UnboundedSender<T>>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection: it leaves its rooms when it is dropped.
#[derive(Debug)]
pub struct Client<T> {
    id: u64,
    service: Service,
    rooms: Arc<Rooms<T>>,
    queue: UnboundedSender<T>,
    joined: Vec<String>,
}

impl<T: Clone + From<String>> Client<T> {
    pub fn new(service: Service, rooms: &Arc<Rooms<T>>, queue: UnboundedSender<T>) -> Self {
        let id = rooms.clients.fetch_add(1, Ordering::Relaxed);
        Self { id, service, rooms: Arc::clone(rooms), queue, joined: Vec::new() }
    }

    /// What it is sent before it says anything.
    pub fn greeting(&self) -> Result<Option<T>, serde_json::Error> {
        match self.service {
            Service::Rooms => Ok(None),
            Service::Prompt => {
                let updated_at = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
                encode(&Initial { action: "initial", content: "", updated_at }).map(Some)
            }
        }
    }

    /// The reply to the sender, if there is one; others hear of it through their queues.
    pub fn on_text(&mut self, text: &str) -> Result<Option<T>, serde_json::Error> {
        let message: Incoming = serde_json::from_str(text)?;
        if self.service == Service::Prompt {
            return encode(&NoDocuments::default()).map(Some);
        }
        match (&*message.kind, &*message.op) {
            ("ping", _) => encode(&Pong { kind: Some("pong"), op: None }).map(Some),
            (_, "ping") => encode(&Pong { kind: None, op: Some("pong") }).map(Some),
            (_, "join") => self.join(&message.room).map(Some),
            (_, "signal") => self.signal(&message).map(|()| None),
            _ => Ok(None),
        }
    }

    fn join(&mut self, room: &str) -> Result<T, serde_json::Error> {
        self.rooms.lock().entry(room.to_owned()).or_default().insert(self.id, self.queue.clone());
        self.joined.push(room.to_owned());
        encode(&Joined { op: "joined", room, epoch: "", head: 0, recovered: false })
    }

    fn signal(&self, message: &Incoming) -> Result<(), serde_json::Error> {
        let text: T = encode(&Signal { op: "signal", room: &message.room, by: "bench", data: message.data })?;
        let rooms = self.rooms.lock();
        let members = rooms.get(&*message.room).into_iter().flatten();
        for (_, queue) in members.filter(|(id, _)| **id != self.id) {
            // A queue whose connection has just ended is taken out by that connection.
            let _ = queue.send(text.clone());
        }
        Ok(())
    }
}

impl<T> Drop for Client<T> {
    fn drop(&mut self) {
        let mut rooms = self.rooms.lock();
        for room in &self.joined {
            let is_empty = rooms.get_mut(room).is_some_and(|members| {
                members.remove(&self.id);
                members.is_empty()
            });
            if is_empty {
                rooms.remove(room);
            }
        }
    }
}

fn encode<T: From<String>>(message: &impl Serialize) -> Result<T, serde_json::Error> {
    serde_json::to_string(message).map(T::from)
}

/// Every field that some message has; the kind decides which of them count.
#[derive(Debug, Deserialize)]
struct Incoming<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    op: Cow<'a, str>,
    #[serde(borrow, default)]
    room: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Pong {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    op: Option<&'static str>,
}

#[derive(Serialize)]
struct Joined<'a> {
    op: &'static str,
    room: &'a str,
    epoch: &'static str,
    head: u64,
    recovered: bool,
}

#[derive(Serialize)]
struct Signal<'a> {
    op: &'static str,
    room: &'a str,
    by: &'static str,
    data: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Initial {
    action: &'static str,
    content: &'static str,
    updated_at: String,
}

#[derive(Serialize)]
struct NoDocuments {
    action: &'static str,
    success: bool,
    error: &'static str,
}

impl Default for NoDocuments {
    fn default() -> Self {
        Self { action: "update_status", success: false, error: "this peer keeps no documents" }
    }
}
