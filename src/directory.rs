//! Which reactors hold members of a room, which dialects those members speak, and where some rooms stand: the one shared
//! lock.
//!
//! A worker asks once per batch, after its commit; a reactor writes when somebody joins or leaves. The lock is held for look-ups, never across I/O or a post, and its guard never
//! leaves this file (STYLE.md I11).
//!
//! Joining is *directory first, history second*: an event committed before [`Directory::enter`] is in the history that is
//! read afterwards; one committed later is delivered. [`Receipt`] is the proof that the first step was taken.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::ids::{Epoch, RoomName, Seq};
use crate::limits::STANDS_MAX;

#[derive(Debug, Default)]
pub struct Directory {
    entries: Mutex<Entries>,
}

type ByRoom<T> = HashMap<RoomName, T, foldhash::fast::RandomState>;

#[derive(Debug, Default)]
struct Entries {
    rooms: ByRoom<Vec<Listener>>,
    /// Where rooms stand, as far as somebody has looked since they last moved: whoever comes back to one is welcomed without
    /// a look into the store. After a break of the network that is everybody at once.
    stands: ByRoom<Stand>,
    /// Commits whose rooms have moved here.
    commits: u64,
}

/// Where a room's log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stand {
    /// None for a room without an event.
    pub epoch: Option<Epoch>,
    pub head: Seq,
    /// Events up to and including this one were trimmed. It lags for as long as a trim is on its way from the store to
    /// here: whoever starts below the true one then is given a reset instead of events, as whoever was trimmed away while
    /// it was slow.
    pub floor: Seq,
    /// Of its state, when it has one.
    pub rev: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listener {
    reactor: u8,
    dialects: u8,
    members: usize,
}

/// Proof that a reactor stands in the directory for a room. Only [`Directory::enter`] makes one.
#[derive(Debug)]
pub struct Receipt {
    room: RoomName,
    dialects: u8,
}

impl Receipt {
    pub fn room(&self) -> &RoomName {
        &self.room
    }

    /// Union of `dialect::Name::bit` that is entered.
    pub fn dialects(&self) -> u8 {
        self.dialects
    }
}

/// Who is to hear of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Audience {
    /// One bit a reactor; `limits::REACTORS_MAX` is 64.
    pub reactors: u64,
    /// Union of `dialect::Name::bit`.
    pub dialects: u8,
}

impl Audience {
    pub fn is_empty(&self) -> bool {
        self.reactors == 0
    }

    pub fn reactors(&self) -> impl Iterator<Item = usize> + use<> {
        let mask = self.reactors;
        (0..64).filter(move |index| mask & (1 << index) != 0)
    }
}

impl Directory {
    /// Enters (or widens the entry of) `reactor` for `room`. The old receipt, if there was one, is superseded.
    pub fn enter(&self, room: &RoomName, reactor: u8, dialects: u8) -> Receipt {
        let rooms = &mut self.entries.lock().rooms;
        let listeners = rooms.entry(room.clone()).or_default();
        match listeners.iter_mut().find(|listener| listener.reactor == reactor) {
            Some(listener) => listener.dialects |= dialects,
            None => listeners.push(Listener { reactor, dialects, members: 0 }),
        }
        let dialects = listeners.iter().find(|listener| listener.reactor == reactor).map_or(0, |it| it.dialects);
        Receipt { room: room.clone(), dialects }
    }

    /// Gives the receipt back: no member is left there.
    pub fn leave(&self, receipt: Receipt, reactor: u8) {
        let rooms = &mut self.entries.lock().rooms;
        if let Some(listeners) = rooms.get_mut(&receipt.room) {
            listeners.retain(|listener| listener.reactor != reactor);
            if listeners.is_empty() {
                rooms.remove(&receipt.room);
            }
        }
    }

    /// The audiences of many rooms in their order, under one hold of the lock.
    pub fn audiences<'a>(&self, rooms: impl Iterator<Item = &'a RoomName>) -> Vec<Audience> {
        let entries = self.entries.lock();
        rooms.map(|room| entries.audience(room)).collect()
    }

    /// To be called by a writer after each commit, before anybody is told of it, also of one that trimmed rooms: `changed`
    /// rooms no longer stand where they stood. Returns the audiences of `moved` in their order.
    pub fn committed<'a>(
        &self,
        moved: impl Iterator<Item = &'a RoomName>,
        changed: impl Iterator<Item = &'a RoomName>,
    ) -> Vec<Audience> {
        let mut entries = self.entries.lock();
        entries.commits += 1;
        if !entries.stands.is_empty() {
            for room in changed {
                entries.stands.remove(room);
            }
        }
        moved
            .map(|room| {
                entries.stands.remove(room);
                entries.audience(room)
            })
            .collect()
    }

    /// To be asked before a snapshot is taken whose findings are to be remembered.
    pub fn commits(&self) -> u64 {
        self.entries.lock().commits
    }

    /// A snapshot taken when there were `commits` found the room there. Believed only if none has come since: a commit that
    /// the snapshot lacks either is counted by now, or is yet to be, and then takes the room's stand away.
    pub fn remember(&self, room: &RoomName, stand: Stand, commits: u64) {
        let mut entries = self.entries.lock();
        if entries.commits == commits {
            if entries.stands.len() >= STANDS_MAX {
                entries.stands.clear();
            }
            entries.stands.insert(room.clone(), stand);
        }
    }

    /// Where the room stands, when that is known. For a member that was entered before: what is committed later than this
    /// stand is delivered to it.
    pub fn stand(&self, room: &RoomName) -> Option<Stand> {
        self.entries.lock().stands.get(room).copied()
    }

    /// How many members the room has on this reactor, from now on. Without an entry nothing is kept.
    pub fn set_members(&self, room: &RoomName, reactor: u8, members: usize) {
        let rooms = &mut self.entries.lock().rooms;
        let listeners = rooms.get_mut(room).map(Vec::as_mut_slice).unwrap_or_default();
        if let Some(listener) = listeners.iter_mut().find(|listener| listener.reactor == reactor) {
            listener.members = members;
        }
    }

    /// The members of a room, over all reactors.
    pub fn count(&self, room: &RoomName) -> usize {
        self.entries
            .lock()
            .rooms
            .get(room)
            .map_or(0, |listeners| listeners.iter().map(|listener| listener.members).sum())
    }

    pub fn rooms(&self) -> usize {
        self.entries.lock().rooms.len()
    }
}

impl Entries {
    fn audience(&self, room: &RoomName) -> Audience {
        let listeners = self.rooms.get(room).map_or(&[][..], Vec::as_slice);
        listeners.iter().fold(Audience::default(), |audience, listener| Audience {
            reactors: audience.reactors | 1 << (listener.reactor & 63),
            dialects: audience.dialects | listener.dialects,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_known_from_its_first_to_its_last_reactor() {
        let directory = Directory::default();
        let room = RoomName::new("doc:a");
        let first = directory.enter(&room, 0, 1);
        let second = directory.enter(&room, 5, 2);
        assert_eq!(
            directory.audiences([&room, &RoomName::new("doc:b")].into_iter()),
            [Audience { reactors: 0b10_0001, dialects: 3 }, Audience::default()]
        );
        directory.leave(first, 0);
        assert_eq!(directory.audiences([&room].into_iter()), [Audience { reactors: 0b10_0000, dialects: 2 }]);
        directory.leave(second, 5);
        assert_eq!(directory.rooms(), 0);
    }

    #[test]
    fn members_are_counted_over_all_reactors() {
        let directory = Directory::default();
        let room = RoomName::new("tickets");
        directory.set_members(&room, 0, 9);
        assert_eq!(directory.count(&room), 0, "nobody entered it");
        let first = directory.enter(&room, 0, 1);
        let second = directory.enter(&room, 1, 1);
        directory.set_members(&room, 0, 2);
        directory.set_members(&room, 1, 3);
        assert_eq!(directory.count(&room), 5);
        directory.leave(first, 0);
        assert_eq!(directory.count(&room), 3);
        directory.leave(second, 1);
        assert_eq!(directory.count(&room), 0);
    }

    #[test]
    fn entering_again_widens_the_dialects() {
        let directory = Directory::default();
        let room = RoomName::new("doc:a");
        let first = directory.enter(&room, 1, 1);
        assert_eq!(first.dialects(), 1);
        assert_eq!(directory.enter(&room, 1, 2).dialects(), 3);
        assert_eq!(directory.audiences([&room].into_iter())[0].reactors().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn a_stand_is_believed_until_its_room_moves_and_only_if_nothing_moved_while_it_was_looked_up() {
        let directory = Directory::default();
        let (a, b) = (RoomName::new("a"), RoomName::new("b"));
        let stand = |head| Stand { epoch: Some(Epoch(7)), head: Seq(head), floor: Seq(0), rev: None };
        let before = directory.commits();
        directory.remember(&a, stand(3), before);
        directory.remember(&b, stand(5), before);
        assert_eq!((directory.stand(&a), directory.stand(&b)), (Some(stand(3)), Some(stand(5))));
        directory.committed([&a].into_iter(), [].into_iter());
        assert_eq!((directory.stand(&a), directory.stand(&b)), (None, Some(stand(5))), "it moved");
        directory.remember(&a, stand(3), before);
        assert_eq!(directory.stand(&a), None, "the snapshot may be older than the commit");
        directory.committed([].into_iter(), [&b].into_iter());
        assert_eq!(directory.stand(&b), None, "its state changed");
    }
}
