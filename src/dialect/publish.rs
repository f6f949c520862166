//! Publishing into any room, whoever asks: the room's name says which dialect owns it, and its owner says what an event
//! there must look like and what else it changes. So an old page and a new client of one room see the same events.
//!
//! | room | owner |
//! |---|---|
//! | `doc:…` | documents: `update`, `update_metadata`, `create` and `delete` change the document |
//! | `workflow:…`, `agent:…`, `coordinator`, `topic:…`, `chat:…`, `compilation:…`, `segment:…`, `segments`, `workflows` | workflows |
//! | `tickets`, `logs` | tickets |
//! | `session:…` | agents: the life cycle of a run is held |
//! | any other | nobody: an event is what its publisher says; `if_rev` writes replace the room's state |

use std::borrow::Cow;

use bytes::Bytes;

use super::{Asker, Env, FileTask, Signal};
use crate::ids::{OpId, RoomName, Seq};
use crate::model::{Draft, RowsError, State, Transaction};

#[derive(Clone, Debug, PartialEq)]
pub struct Publish {
    pub room: RoomName,
    /// The event's type.
    pub kind: String,
    /// A JSON value as text; an object wherever a dialect owns the room.
    pub data: Bytes,
    /// Write only when the room's revision is still this; 0 for a room that has none yet.
    pub if_rev: Option<u64>,
}

/// `signals` and `files` belong into the `Applied` of whoever published: like its reply, they are let go after the commit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Published {
    /// Of the event that was published, in the room that was named; what it entails may stand before it.
    pub seq: Seq,
    pub rev: Option<u64>,
    pub signals: Vec<Signal>,
    /// Documents whose Markdown file is to be brought up to date.
    pub files: Vec<FileTask>,
}

impl Published {
    /// An event and nothing besides.
    pub fn at(seq: Seq) -> Published {
        Published { seq, ..Published::default() }
    }
}

/// Why nothing was published. Certain: nothing was written.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// There is none, or it is another's: the two look alike.
    NoSuchRoom,
    /// The revision is another one.
    Conflict { rev: u64, snapshot: Option<Bytes> },
    /// A fixed word, and a sentence for the publisher.
    Bad { code: &'static str, detail: Cow<'static, str> },
}

impl Refusal {
    pub fn bad(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::Bad { code, detail: detail.into() }
    }
}

pub type Outcome = Result<Published, Refusal>;

/// Runs in the writer's transaction; a refusal has written nothing.
pub fn publish(
    publish: &Publish,
    asker: &Asker,
    op: Option<&OpId>,
    rows: &mut dyn Transaction,
    env: &Env,
) -> Result<Outcome, RowsError> {
    let room = publish.room.as_str();
    if super::documents::owns(room) {
        super::documents::publish(publish, asker, op, rows, env)
    } else if super::workflows::owns(room) {
        super::workflows::publish(publish, asker, op, rows, env)
    } else if super::tickets::owns(room) {
        super::tickets::publish(publish, asker, op, rows, env)
    } else if super::agents::owns(room) {
        super::agents::publish(publish, asker, op, rows, env)
    } else {
        of_nobody(publish, asker, op, rows)
    }
}

fn of_nobody(
    publish: &Publish,
    asker: &Asker,
    op: Option<&OpId>,
    rows: &mut dyn Transaction,
) -> Result<Outcome, RowsError> {
    let state = match publish.if_rev {
        None => None,
        Some(expected) => {
            let state = rows.state(publish.room.as_str())?;
            let rev = state.as_ref().map_or(0, |state| state.rev);
            if rev != expected {
                return Ok(Err(Refusal::Conflict { rev, snapshot: state.map(|state| state.body) }));
            }
            Some(rev + 1)
        }
    };
    let draft = Draft { room: publish.room.clone(), kind: publish.kind.clone().into(), body: publish.data.clone() };
    let seq = rows.append(draft, &asker.actor, op, asker.origin)?;
    if let Some(rev) = state {
        rows.put_state(&publish.room, &State { rev, seq, body: publish.data.clone() })?;
    }
    Ok(Ok(Published { rev: state, ..Published::at(seq) }))
}
