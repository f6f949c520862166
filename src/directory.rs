//! Which reactors hold members of a room, and which dialects those members speak: the one shared lock.
//!
//! A worker asks once per batch, after its commit; a reactor writes when somebody joins or leaves. The lock is held for look-ups, never across I/O or a post, and its guard never
//! leaves this file (STYLE.md I11).
//!
//! Joining is *directory first, history second*: an event committed before [`Directory::enter`] is in the history that is
//! read afterwards; one committed later is delivered. [`Receipt`] is the proof that the first step was taken.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::ids::RoomName;

#[derive(Debug, Default)]
pub struct Directory {
    rooms: Mutex<HashMap<RoomName, Vec<Listener>, foldhash::fast::RandomState>>,
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
        let mut rooms = self.rooms.lock();
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
        let mut rooms = self.rooms.lock();
        if let Some(listeners) = rooms.get_mut(&receipt.room) {
            listeners.retain(|listener| listener.reactor != reactor);
            if listeners.is_empty() {
                rooms.remove(&receipt.room);
            }
        }
    }

    /// The audiences of many rooms in their order, under one hold of the lock.
    pub fn audiences<'a>(&self, rooms: impl Iterator<Item = &'a RoomName>) -> Vec<Audience> {
        let entries = self.rooms.lock();
        rooms
            .map(|room| {
                entries.get(room).map_or_else(Audience::default, |listeners| {
                    listeners.iter().fold(Audience::default(), |audience, listener| Audience {
                        reactors: audience.reactors | 1 << (listener.reactor & 63),
                        dialects: audience.dialects | listener.dialects,
                    })
                })
            })
            .collect()
    }

    /// How many members the room has on this reactor, from now on. Without an entry nothing is kept.
    pub fn set_members(&self, room: &RoomName, reactor: u8, members: usize) {
        let mut rooms = self.rooms.lock();
        let listeners = rooms.get_mut(room).map(Vec::as_mut_slice).unwrap_or_default();
        if let Some(listener) = listeners.iter_mut().find(|listener| listener.reactor == reactor) {
            listener.members = members;
        }
    }

    /// The members of a room, over all reactors.
    pub fn count(&self, room: &RoomName) -> usize {
        self.rooms.lock().get(room).map_or(0, |listeners| listeners.iter().map(|listener| listener.members).sum())
    }

    pub fn rooms(&self) -> usize {
        self.rooms.lock().len()
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
}
