//! Who is connected: the stats and the look-up of one client, in the originals' shapes; and the ids that clients without
//! one are told.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::paths::{Family, Place, family, spelled};
use super::session::Session;
use super::{wire, writes};
use crate::dialect::{self, ConnView, Reply};
use crate::http::Response;
use crate::ids::{FNV_START, RoomName, fnv};
use crate::model::{Rows, RowsError};

/// Workflows whose waiting messages are counted; each costs a look-up, and anybody may ask.
const BUFFERS_COUNTED_MAX: usize = 1000;

#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// `/api/v1/ws/stats`
    Stats,
    /// `/ws/stats`
    AllStats,
    /// `/ws/client/{id}`
    Client(String),
}

pub fn answer(asked: &Asked, views: &[ConnView], rows: &mut dyn Rows) -> Result<Reply, RowsError> {
    let sockets: Vec<(&ConnView, &Session)> = views.iter().filter_map(socket).collect();
    let response = match asked {
        Asked::Stats => Response::json(200, wire::json(&stats(&sockets))),
        Asked::AllStats => {
            let all = AllStats { websocket: stats(&sockets), broadcaster: broadcaster(&sockets, rows)? };
            Response::json(200, wire::json(&all))
        }
        Asked::Client(id) => match sockets.iter().find(|(view, session)| told(view, session) == *id) {
            Some((view, session)) => Response::json(200, wire::json(&client(id, view, session))),
            None => Response::json(404, &br#"{"detail":"Client not found"}"#[..]),
        },
    };
    Ok(Reply::Response(Box::new(response)))
}

/// What a client without an id is called: `workflow_{id}_{8 hex}` and so on, a whole UUID where it subscribes to topics.
pub fn minted(place: &Place, number: u128) -> String {
    let short = number as u32;
    match place {
        Place::Workflow(id) => format!("workflow_{id}_{short:08x}"),
        Place::Agent(name) => format!("agent_{name}_{short:08x}"),
        Place::Coordinator => format!("coordinator_{short:08x}"),
        Place::Chat(thread) => format!("chat_{thread}_{short:08x}"),
        Place::Topics => uuid(number),
    }
}

/// The number of the id that this connection is told. Made from the connection's own, so that a look-up by that id finds
/// it although nobody wrote it down. It is a name, not a secret: nothing is granted to whoever guesses it.
pub fn number(origin: u64) -> u128 {
    let bytes = origin.to_be_bytes();
    let high = fnv(FNV_START, &bytes);
    u128::from(high) << 64 | u128::from(fnv(high, &bytes))
}

/// Version 4, variant 1.
fn uuid(number: u128) -> String {
    let number = number & !(0xf << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        number >> 96,
        number >> 80 & 0xffff,
        number >> 64 & 0xffff,
        number >> 48 & 0xffff,
        number & 0xffff_ffff_ffff
    )
}

/// The sockets that the originals' manager knew: a chat's it did not.
fn socket(view: &ConnView) -> Option<(&ConnView, &Session)> {
    match &view.session {
        dialect::Session::Workflows(session) if !matches!(session.place, Place::Chat(_)) => Some((view, session)),
        _ => None,
    }
}

fn told(view: &ConnView, session: &Session) -> String {
    match &session.client {
        Some(client) => client.to_string(),
        None => minted(&session.place, number(view.id.pack())),
    }
}

#[derive(Serialize)]
struct Stats {
    total_connections: usize,
    total_rooms: usize,
    total_subscriptions: usize,
    rooms: Vec<String>,
    room_client_count: BTreeMap<String, usize>,
    topics: Vec<String>,
    topic_subscriber_count: BTreeMap<String, usize>,
}

#[derive(Serialize)]
struct AllStats {
    websocket: Stats,
    broadcaster: Broadcaster,
}

#[derive(Serialize)]
struct Broadcaster {
    workflow_subscriptions: usize,
    agent_subscriptions: usize,
    total_agent_rooms: usize,
    buffered_rooms: usize,
    total_buffered_messages: u64,
    workflows: BTreeSet<String>,
    agents: BTreeSet<String>,
}

fn stats(sockets: &[(&ConnView, &Session)]) -> Stats {
    let (mut rooms, mut topics) = (BTreeMap::new(), BTreeMap::new());
    for room in sockets.iter().flat_map(|(view, _)| &view.rooms) {
        if let Some(name) = spelled(room.as_str()) {
            *rooms.entry(name).or_default() += 1;
        } else if let Some(name) = topic(room) {
            *topics.entry(name).or_default() += 1;
        }
    }
    Stats {
        total_connections: sockets.len(),
        total_rooms: rooms.len(),
        total_subscriptions: topics.values().sum(),
        rooms: rooms.keys().cloned().collect(),
        room_client_count: rooms,
        topics: topics.keys().cloned().collect(),
        topic_subscriber_count: topics,
    }
}

fn topic(room: &RoomName) -> Option<String> {
    match family(room.as_str()) {
        Some((Family::Topic, name)) => Some(name.into_owned()),
        _ => None,
    }
}

fn broadcaster(sockets: &[(&ConnView, &Session)], rows: &mut dyn Rows) -> Result<Broadcaster, RowsError> {
    let (mut workflows, mut agents) = (BTreeSet::new(), BTreeSet::new());
    for (_, session) in sockets {
        match &session.place {
            Place::Workflow(id) => workflows.insert(id.to_string()),
            Place::Agent(name) => agents.insert(name.to_string()),
            _ => false,
        };
    }
    let (buffered_rooms, total_buffered_messages) = buffered(rows)?;
    Ok(Broadcaster {
        workflow_subscriptions: workflows.len(),
        agent_subscriptions: agents.len(),
        total_agent_rooms: agents.len(),
        buffered_rooms,
        total_buffered_messages,
        workflows,
        agents,
    })
}

/// Rooms with messages that nobody has seen, and how many those are.
fn buffered(rows: &mut dyn Rows) -> Result<(usize, u64), RowsError> {
    let (mut waiting_rooms, mut messages) = (0, 0);
    for (room, row) in rows.rooms("workflow:", "", BUFFERS_COUNTED_MAX)? {
        let seen = writes::mark(&room, "", rows)?.unwrap_or_default();
        let waiting = row.head.0.saturating_sub(seen.0.max(row.floor.0)).min(writes::WAITING_MAX);
        waiting_rooms += usize::from(waiting > 0);
        messages += waiting;
    }
    Ok((waiting_rooms, messages))
}

#[derive(Serialize)]
struct Client<'a> {
    client_id: &'a str,
    connected: bool,
    rooms: Vec<String>,
    subscriptions: Vec<String>,
    metadata: Metadata<'a>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    workflow_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_name: Option<&'a str>,
    connected_at: String,
}

fn client<'a>(id: &'a str, view: &ConnView, session: &'a Session) -> Client<'a> {
    let (r#type, workflow_id, agent_name) = match &session.place {
        Place::Workflow(id) => ("workflow", Some(&**id), None),
        Place::Agent(name) => ("agent", None, Some(&**name)),
        Place::Coordinator => ("coordinator", None, None),
        Place::Topics => ("topics", None, None),
        Place::Chat(_) => ("chat", None, None),
    };
    Client {
        client_id: id,
        connected: true,
        rooms: view.rooms.iter().filter_map(|room| spelled(room.as_str())).collect(),
        subscriptions: view.rooms.iter().filter_map(topic).collect(),
        metadata: Metadata { r#type, workflow_id, agent_name, connected_at: wire::stamp(view.connected_at) },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::super::tests::said;
    use super::*;
    use crate::clock::Wall;
    use crate::dialect::fake::Fake;
    use crate::ids::ConnId;
    use crate::model::{Draft, Transaction};

    fn view(slot: u32, place: Place, client: Option<&str>, rooms: &[&str]) -> ConnView {
        let session = dialect::Session::Workflows(Session { place, client: client.map(Into::into) });
        ConnView {
            id: ConnId { reactor: 0, slot, generation: 1 },
            session,
            user: "u".into(),
            client: [127, 0, 0, 1].into(),
            connected_at: Wall(1_767_082_000_123_456),
            rooms: rooms.iter().map(|room| RoomName::new(room)).collect(),
        }
    }

    fn views() -> Vec<ConnView> {
        let echo = ConnView { session: dialect::Session::Echo, ..view(9, Place::Topics, Some("echo"), &[]) };
        vec![
            view(1, Place::Workflow("x".into()), Some("c1"), &["workflow:x", "workflows"]),
            view(2, Place::Workflow("x".into()), None, &["workflow:x", "workflows"]),
            view(3, Place::Agent("a b".into()), Some("c3"), &["agent:::a:20b", "workflows"]),
            view(4, Place::Topics, Some("c4"), &["workflows", "topic:t", "topic:u"]),
            view(5, Place::Chat("t".into()), None, &["chat:t"]),
            echo,
        ]
    }

    fn answered(asked: Asked, views: &[ConnView], fake: &mut Fake) -> String {
        said(answer(&asked, views, fake).unwrap())
    }

    #[test]
    fn stats_byte_for_byte() {
        let mut fake = Fake::with(&[]);
        let empty = r#"{"total_connections":0,"total_rooms":0,"total_subscriptions":0,"rooms":[],"room_client_count":{},"topics":[],"topic_subscriber_count":{}}"#;
        assert_eq!(answered(Asked::Stats, &[], &mut fake), format!("200 {empty}"));
        let full = r#"{"total_connections":4,"total_rooms":2,"total_subscriptions":2,"rooms":["agent_a b","workflow_x"],"room_client_count":{"agent_a b":1,"workflow_x":2},"topics":["t","u"],"topic_subscriber_count":{"t":1,"u":1}}"#;
        assert_eq!(answered(Asked::Stats, &views(), &mut fake), format!("200 {full}"));
        for (room, events) in [("workflow:x", 3), ("workflow:y", 70), ("topic:t", 5)] {
            for _ in 0..events {
                let draft = Draft { room: RoomName::new(room), kind: "k".into(), body: "{}".into() };
                fake.append(draft, &"a".into(), None, 0).unwrap();
            }
        }
        let broadcaster = r#"{"workflow_subscriptions":1,"agent_subscriptions":1,"total_agent_rooms":1,"buffered_rooms":2,"total_buffered_messages":53,"workflows":["x"],"agents":["a b"]}"#;
        assert_eq!(
            answered(Asked::AllStats, &views(), &mut fake),
            format!(r#"200 {{"websocket":{full},"broadcaster":{broadcaster}}}"#)
        );
    }

    #[test]
    fn a_client_is_found_by_the_id_it_was_told() {
        let mut fake = Fake::with(&[]);
        let mut found = |id: &str| answered(Asked::Client(id.to_owned()), &views(), &mut fake);
        assert_eq!(
            found("c1"),
            r#"200 {"client_id":"c1","connected":true,"rooms":["workflow_x"],"subscriptions":[],"metadata":{"type":"workflow","workflow_id":"x","connected_at":"2025-12-30T08:06:40.123456"}}"#
        );
        assert_eq!(
            found("c3"),
            r#"200 {"client_id":"c3","connected":true,"rooms":["agent_a b"],"subscriptions":[],"metadata":{"type":"agent","agent_name":"a b","connected_at":"2025-12-30T08:06:40.123456"}}"#
        );
        assert!(found("c4").contains(r#""rooms":[],"subscriptions":["t","u"],"metadata":{"type":"topics","#));
        let origin = ConnId { reactor: 0, slot: 2, generation: 1 }.pack();
        let told = minted(&Place::Workflow("x".into()), number(origin));
        assert!(found(&told).contains(r#""connected":true"#), "{told}");
        for id in ["c2", "echo", ""] {
            assert_eq!(found(id), r#"404 {"detail":"Client not found"}"#, "{id}");
        }
    }

    #[test]
    fn ids_are_shaped_as_the_originals() {
        let number = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;
        assert_eq!(minted(&Place::Workflow("pending".into()), number), "workflow_pending_89abcdef");
        assert_eq!(minted(&Place::Agent("a".into()), 1), "agent_a_00000001");
        assert_eq!(minted(&Place::Coordinator, u128::MAX), "coordinator_ffffffff");
        assert_eq!(minted(&Place::Topics, number), "01234567-89ab-4def-8123-456789abcdef");
        assert_eq!(minted(&Place::Topics, u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(minted(&Place::Topics, 0), "00000000-0000-4000-8000-000000000000");
    }
}
