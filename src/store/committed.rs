//! The proof that an event is durable. Only `store/` can construct it, and a room's members accept nothing else, so a
//! broadcast before the commit does not compile.

use crate::dialect::Frames;
use crate::ids::{ConnId, Epoch, RoomName, Seq};
use crate::model::Event;

/// One event that is saved, framed for the dialects in `listeners`.
#[derive(Clone, Debug)]
pub struct Committed {
    room: RoomName,
    seq: Seq,
    origin: Option<ConnId>,
    listeners: u8,
    frames: Frames,
}

impl Committed {
    /// To be called after the commit, or on a row read from a snapshot; nowhere else.
    pub(in crate::store) fn seal(room: &RoomName, event: &Event, listeners: u8) -> Committed {
        Committed {
            room: room.clone(),
            seq: event.seq,
            origin: (event.origin != 0).then(|| ConnId::unpack(event.origin)),
            listeners,
            frames: crate::dialect::encode(room, event, listeners),
        }
    }

    pub fn room(&self) -> &RoomName {
        &self.room
    }

    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// The connection that asked for it, when it is one of this process.
    pub fn origin(&self) -> Option<ConnId> {
        self.origin
    }

    /// The dialects it was framed for; a member of another one must read it from the store instead.
    pub fn listeners(&self) -> u8 {
        self.listeners
    }

    pub fn frames(&self) -> &Frames {
        &self.frames
    }

    /// What it costs to keep.
    pub fn weight(&self) -> usize {
        std::mem::size_of::<Committed>() + self.frames.len_max()
    }
}

/// A contiguous run of a room's log: the events after `after`, or a fresh start where the log no longer reaches back.
#[derive(Debug)]
pub struct Page {
    pub(in crate::store) room: RoomName,
    pub(in crate::store) after: Seq,
    /// The dialects it was framed for.
    pub(in crate::store) listeners: u8,
    pub(in crate::store) events: Vec<Committed>,
    pub(in crate::store) reset: Option<Reset>,
    pub(in crate::store) failed: bool,
}

/// What was missed is trimmed: the current state instead, true at `seq`.
#[derive(Clone, Debug)]
pub struct Reset {
    pub epoch: Epoch,
    pub seq: Seq,
    pub frames: Frames,
}

impl Page {
    pub fn room(&self) -> &RoomName {
        &self.room
    }

    pub fn after(&self) -> Seq {
        self.after
    }

    pub fn listeners(&self) -> u8 {
        self.listeners
    }

    pub fn reset(&self) -> Option<&Reset> {
        self.reset.as_ref()
    }

    /// The store could not be read; ask again.
    pub fn failed(&self) -> bool {
        self.failed
    }

    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub fn into_events(self) -> Vec<Committed> {
        self.events
    }
}

/// For the tests of whoever accepts committed events: a store that has them all, and framed them for everybody.
#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::clock::Wall;
    use crate::dialect::Name;

    pub fn event(room: &RoomName, seq: u64, origin: Option<ConnId>) -> Committed {
        let event = Event {
            seq: Seq(seq),
            kind: "update".into(),
            actor: "a".into(),
            op: None,
            origin: origin.map_or(0, ConnId::pack),
            body: format!("{{\"content\":\"{seq}\"}}").into(),
            at: Wall(0),
        };
        Committed::seal(room, &event, Name::Documents.bit())
    }

    pub fn page(room: &RoomName, after: u64, seqs: std::ops::RangeInclusive<u64>) -> Page {
        let events = seqs.map(|seq| event(room, seq, None)).collect();
        Page {
            room: room.clone(),
            after: Seq(after),
            listeners: Name::Documents.bit(),
            events,
            reset: None,
            failed: false,
        }
    }
}
