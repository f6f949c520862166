//! What a client's message says: one JSON object, its fields read as its `op` asks for, each in its bounds.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::dialect::agents::approvals::Verdict;
use crate::dialect::json;
use crate::dialect::sound::is_sound;
use crate::ids::{OpId, RoomName, Seq};
use crate::limits::{OP_ID_BYTES_MAX, ROOM_NAME_BYTES_MAX};

/// Bytes of an event's type.
const KIND_BYTES_MAX: usize = 64;
/// Bytes of an epoch as a client may hold one: longer than any of ours.
const EPOCH_BYTES_MAX: usize = 64;
/// Of a publish that names none.
const KIND_DEFAULT: &str = "message";

/// Why a message is not carried out, in words for its sender.
#[derive(Clone, Debug, PartialEq)]
pub struct Wrong {
    /// Of the operation it was meant to be, when that can be told.
    pub id: Option<Arc<str>>,
    pub code: &'static str,
    pub detail: &'static str,
    /// It made no sense: too many of those end the connection. A name outside its bounds or an unknown `op` may come from
    /// a newer client.
    pub is_nonsense: bool,
}

/// Where the client says it stands in a room.
#[derive(Clone, Debug, PartialEq)]
pub struct Since {
    /// As it was told; empty before the room's first event. Compared, never read: its form is the server's business.
    pub epoch: Box<str>,
    pub seq: Seq,
}

/// The fields that any operation reads, still unread: so that what is wrong with one can be told with the message's id.
#[derive(Debug, Deserialize)]
pub struct Message<'t> {
    #[serde(borrow, default)]
    op: Option<&'t RawValue>,
    #[serde(borrow, default)]
    token: Option<&'t RawValue>,
    #[serde(borrow, default)]
    room: Option<&'t RawValue>,
    #[serde(borrow, default)]
    since: Option<&'t RawValue>,
    #[serde(borrow, default)]
    id: Option<&'t RawValue>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'t RawValue>,
    /// Here `null` is a value like any other.
    #[serde(borrow, default, deserialize_with = "given")]
    data: Option<&'t RawValue>,
    #[serde(borrow, default)]
    if_rev: Option<&'t RawValue>,
    #[serde(borrow, default)]
    approval: Option<&'t RawValue>,
    #[serde(borrow, default)]
    decision: Option<&'t RawValue>,
    #[serde(borrow, default)]
    edited_args: Option<&'t RawValue>,
    #[serde(borrow, default)]
    reason: Option<&'t RawValue>,
    #[serde(borrow, default)]
    seen: Option<&'t RawValue>,
}

fn given<'de: 't, 't, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'t RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads the message's outside.
pub fn parse(text: &str) -> Result<Message<'_>, Wrong> {
    const NO_MESSAGE: &str = "a message is a JSON object of at most 32 levels, each key once";
    let wrong = || Wrong { id: None, code: "bad_message", detail: NO_MESSAGE, is_nonsense: true };
    // A list would be taken for the fields in their order.
    if !text.trim_start().starts_with('{') || !is_sound(text) {
        return Err(wrong());
    }
    serde_json::from_str(text).map_err(|_| wrong())
}

impl Message<'_> {
    pub fn op(&self) -> Result<Cow<'_, str>, Wrong> {
        self.op.and_then(text).ok_or_else(|| self.nonsense("op must be a string"))
    }

    pub fn token(&self) -> Result<String, Wrong> {
        let token = self.token.and_then(text).ok_or_else(|| self.nonsense("token must be a string"))?;
        Ok(token.into_owned())
    }

    pub fn room(&self) -> Result<RoomName, Wrong> {
        let room = self.room.and_then(text).ok_or_else(|| self.nonsense("room must be a string"))?;
        if !is_name(&room, b"_.:/-", ROOM_NAME_BYTES_MAX) {
            return Err(self.refused("bad_room", "a room's name is 1 to 256 of A-Z a-z 0-9 _ . : / -"));
        }
        Ok(RoomName::new(&room))
    }

    pub fn since(&self) -> Result<Option<Since>, Wrong> {
        #[derive(Deserialize)]
        struct Place<'t> {
            #[serde(borrow)]
            epoch: Cow<'t, str>,
            seq: u64,
        }
        let Some(since) = self.since else { return Ok(None) };
        let place: Option<Place<'_>> =
            since.get().starts_with('{').then(|| serde_json::from_str(since.get()).ok()).flatten();
        match place {
            Some(Place { epoch, seq }) if epoch.len() <= EPOCH_BYTES_MAX => {
                Ok(Some(Since { epoch: Box::from(&*epoch), seq: Seq(seq) }))
            }
            _ => Err(self.nonsense("since must be {\"epoch\": a string, \"seq\": a number}")),
        }
    }

    /// The operation's name. Without one a resend could not be told from a second operation.
    pub fn id(&self) -> Result<OpId, Wrong> {
        match self.name() {
            Some(id) => Ok(OpId(id)),
            None => Err(self.refused("bad_id", "id must be a string of 1 to 64 bytes")),
        }
    }

    pub fn kind(&self) -> Result<String, Wrong> {
        let Some(kind) = self.kind else { return Ok(KIND_DEFAULT.to_owned()) };
        match text(kind) {
            Some(kind) if is_name(&kind, b"_.:-", KIND_BYTES_MAX) => Ok(kind.into_owned()),
            Some(_) => Err(self.refused("bad_type", "a type is 1 to 64 of A-Z a-z 0-9 _ . : -")),
            None => Err(self.nonsense("type must be a string")),
        }
    }

    /// As it was sent, byte for byte.
    pub fn data(&self) -> Result<Bytes, Wrong> {
        let data = self.data.ok_or_else(|| self.nonsense("data is missing"))?;
        Ok(Bytes::copy_from_slice(data.get().as_bytes()))
    }

    pub fn if_rev(&self) -> Result<Option<u64>, Wrong> {
        let Some(rev) = self.if_rev else { return Ok(None) };
        let rev = serde_json::from_str(rev.get()).map_err(|_| self.nonsense("if_rev must be a whole number"))?;
        Ok(Some(rev))
    }

    pub fn approval(&self) -> Result<String, Wrong> {
        let approval = self.approval.and_then(text).ok_or_else(|| self.nonsense("approval must be a string"))?;
        Ok(approval.into_owned())
    }

    /// The digest of what the decider was shown. Mandatory: who has not seen it cannot decide it.
    pub fn seen(&self) -> Result<String, Wrong> {
        let seen = self.seen.and_then(text);
        let seen = seen.ok_or_else(|| self.nonsense("seen must be the digest of what is decided"))?;
        Ok(seen.into_owned())
    }

    pub fn verdict(&self) -> Result<Verdict, Wrong> {
        let decision = self.decision.and_then(text);
        match decision.as_deref() {
            Some("approve") => Ok(Verdict::Approve),
            Some("reject") => Ok(Verdict::Reject { reason: self.reason()? }),
            Some("edit") => {
                let args = self.edited_args.and_then(|args| json::parse(args.get())).filter(|args| args.is_object());
                let args = args.ok_or_else(|| self.nonsense("edited_args must be an object"))?;
                Ok(Verdict::Edit { args })
            }
            Some("cancel") => Ok(Verdict::Cancel),
            _ => Err(self.nonsense("decision must be approve, reject, edit or cancel")),
        }
    }

    fn reason(&self) -> Result<Option<String>, Wrong> {
        let Some(reason) = self.reason else { return Ok(None) };
        match text(reason) {
            Some(reason) => Ok(Some(reason.into_owned())),
            None => Err(self.nonsense("reason must be a string")),
        }
    }

    pub fn refused(&self, code: &'static str, detail: &'static str) -> Wrong {
        Wrong { id: self.name(), code, detail, is_nonsense: false }
    }

    fn nonsense(&self, detail: &'static str) -> Wrong {
        Wrong { id: self.name(), code: "bad_message", detail, is_nonsense: true }
    }

    fn name(&self) -> Option<Arc<str>> {
        let id = self.id.and_then(text)?;
        (1..=OP_ID_BYTES_MAX).contains(&id.len()).then(|| Arc::from(&*id))
    }
}

fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'t>(#[serde(borrow)] Cow<'t, str>);
    serde_json::from_str(value.get()).ok().map(|Text(text)| text)
}

fn is_name(text: &str, marks: &[u8], max: usize) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || marks.contains(&byte);
    (1..=max).contains(&text.len()) && text.bytes().all(fits)
}

const _: () = assert!(OP_ID_BYTES_MAX == 64 && ROOM_NAME_BYTES_MAX == 256 && json::DEPTH_MAX == 32, "named above");
