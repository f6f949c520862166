//! The connections of one reactor, and the one door to them.
//!
//! Whoever wants to change a connection asks [`Table::touch`], which notes that it was touched; at the end of the turn the
//! reactor settles exactly those: interest, deadline, death. So nobody can change a connection and forget to re-arm it.
//!
//! A slot is freed only there, at the end of the turn, and a generation tells its tenants apart: a stale id, from a slow
//! store or a late event, finds nobody.

use std::net::IpAddr;

use slab::Slab;

use crate::conn::{Connection, Wants};
use crate::guests::Place;
use crate::ids::ConnId;
use crate::limits::SLOTS_MAX;
use crate::room::{MemberKey, RoomKey};

#[derive(Debug)]
pub struct Entry<T> {
    pub socket: T,
    pub conn: Connection,
    pub peer: IpAddr,
    /// Who it is for, as far as trusted proxies say; the peer itself before its first request.
    pub client: IpAddr,
    /// Index of the listener it came in by.
    pub listener: u8,
    /// What the poller was last told.
    pub registered: Option<Wants>,
    /// The tick it stands in the deadlines' wheel for; 0 for none.
    pub armed: u32,
    pub memberships: Memberships,
    /// The kernel may hold bytes of which we were told and which we have not read: the edge will not come again.
    pub unread: bool,
    /// It stands in the list of those that are read without being told of.
    pub carried: bool,
    /// The peer has ended its side: a short read no longer means that nothing is left.
    pub ended: bool,
    /// It takes tasks: the store must hear of its end.
    pub takes: bool,
    /// Its place among the connections of its address.
    pub guest: Option<Place>,
    /// What its response takes of the budget for all, until it is written.
    pub response_bytes: u32,
    /// What the books hold of the bytes that wait for this one, those of HTTP responses apart.
    pub gauged: u32,
    /// It stands in the list of those that have something to be written.
    pub unflushed: bool,
    generation: u32,
    touched: bool,
}

impl<T> Entry<T> {
    /// Nothing about it is to be settled: its interest is what the poller knows, and no deadline is nearer than the one it
    /// is armed for.
    pub fn is_quiet(&self) -> bool {
        self.armed != 0
            && self.registered.is_some()
            && !self.unread
            && !self.ended
            && self.gauged == 0
            && self.conn.is_quiet()
    }

    /// It is to be read in the next turn although nobody will tell us of it, and does not stand in that list yet.
    pub fn is_carried_anew(&mut self) -> bool {
        !std::mem::replace(&mut self.carried, true)
    }
}

/// The rooms a connection is in: mostly none or one, which then needs no allocation.
#[derive(Debug, Default)]
pub enum Memberships {
    #[default]
    None,
    One((RoomKey, MemberKey)),
    Many(Box<ManyRooms>),
}

/// Behind one pointer, which is all that a connection in one room has room for.
#[derive(Debug)]
pub struct ManyRooms(Vec<(RoomKey, MemberKey)>);

impl Memberships {
    pub fn add(&mut self, membership: (RoomKey, MemberKey)) {
        *self = match std::mem::take(self) {
            Memberships::None => Memberships::One(membership),
            Memberships::One(first) => Memberships::Many(Box::new(ManyRooms(vec![first, membership]))),
            Memberships::Many(mut all) => {
                all.0.push(membership);
                Memberships::Many(all)
            }
        };
    }

    pub fn remove(&mut self, room: RoomKey) {
        *self = match std::mem::take(self) {
            Memberships::None => Memberships::None,
            Memberships::One((key, _)) if key == room => Memberships::None,
            Memberships::One(other) => Memberships::One(other),
            Memberships::Many(mut all) => {
                all.0.retain(|(key, _)| *key != room);
                Memberships::Many(all)
            }
        };
    }

    pub fn as_slice(&self) -> &[(RoomKey, MemberKey)] {
        match self {
            Memberships::None => &[],
            Memberships::One(one) => std::slice::from_ref(one),
            Memberships::Many(all) => &all.0,
        }
    }
}

#[derive(Debug)]
pub struct Table<T> {
    reactor: u8,
    entries: Slab<Entry<T>>,
    generation: u32,
    touched: Vec<ConnId>,
}

impl<T> Table<T> {
    pub fn new(reactor: u8) -> Table<T> {
        Table { reactor, entries: Slab::new(), generation: 0, touched: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// `None` when every slot is taken.
    pub fn insert(&mut self, socket: T, conn: Connection, peer: IpAddr, listener: u8) -> Option<ConnId> {
        let vacant = self.entries.vacant_entry();
        let slot = vacant.key();
        if slot >= SLOTS_MAX {
            return None;
        }
        self.generation = self.generation.wrapping_add(1);
        let id = ConnId { reactor: self.reactor, slot: slot as u32, generation: self.generation };
        vacant.insert(Entry {
            socket,
            conn,
            peer,
            client: peer,
            listener,
            registered: None,
            armed: 0,
            memberships: Memberships::None,
            unread: false,
            carried: false,
            ended: false,
            takes: false,
            guest: None,
            response_bytes: 0,
            gauged: 0,
            unflushed: false,
            generation: self.generation,
            touched: true,
        });
        self.touched.push(id);
        Some(id)
    }

    /// The door. A stale id finds nobody.
    pub fn touch(&mut self, id: ConnId) -> Option<&mut Entry<T>> {
        let entry = self.entries.get_mut(id.slot as usize).filter(|entry| entry.generation == id.generation)?;
        if !entry.touched {
            entry.touched = true;
            self.touched.push(id);
        }
        Some(entry)
    }

    /// For what leaves interest, nearest deadline and life as they are: a whole write to an open socket, a message that is
    /// answered on the spot. Whoever finds that it did not ([`Entry::is_quiet`]) goes through [`Table::touch`] as well.
    pub fn reach(&mut self, id: ConnId) -> Option<&mut Entry<T>> {
        self.entries.get_mut(id.slot as usize).filter(|entry| entry.generation == id.generation)
    }

    /// A look that changes nothing.
    pub fn peek(&self, id: ConnId) -> Option<&Entry<T>> {
        self.entries.get(id.slot as usize).filter(|entry| entry.generation == id.generation)
    }

    /// Everybody touched since the last call, each once.
    pub fn take_touched(&mut self, into: &mut Vec<ConnId>) {
        into.append(&mut self.touched);
        for id in into.iter() {
            if let Some(entry) = self.entries.get_mut(id.slot as usize) {
                entry.touched = false;
            }
        }
    }

    /// Only from the end of the turn.
    pub fn remove(&mut self, id: ConnId) -> Option<Entry<T>> {
        self.peek(id)?;
        Some(self.entries.remove(id.slot as usize))
    }

    pub fn ids(&self) -> Vec<ConnId> {
        self.entries
            .iter()
            .map(|(slot, entry)| ConnId { reactor: self.reactor, slot: slot as u32, generation: entry.generation })
            .collect()
    }

    /// Whoever weighs something, the heaviest first.
    pub fn heaviest(&self, weight: impl Fn(&Entry<T>) -> u32) -> Vec<(u32, ConnId)> {
        let id = |slot: usize, entry: &Entry<T>| ConnId {
            reactor: self.reactor,
            slot: slot as u32,
            generation: entry.generation,
        };
        let weighed = self.entries.iter().map(|(slot, entry)| (weight(entry), id(slot, entry)));
        let mut holders: Vec<(u32, ConnId)> = weighed.filter(|(weight, _)| *weight > 0).collect();
        holders.sort_unstable_by(|one, other| other.cmp(one));
        holders
    }

    /// Packs what the poller hands back with an event.
    pub fn token(id: ConnId) -> u64 {
        u64::from(id.generation) << 32 | u64::from(id.slot)
    }

    pub fn id_of(&self, token: u64) -> ConnId {
        ConnId { reactor: self.reactor, slot: token as u32, generation: (token >> 32) as u32 }
    }

    #[cfg(any(test, debug_assertions))]
    pub fn each(&self, mut look: impl FnMut(&Entry<T>)) {
        for (_, entry) in &self.entries {
            look(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::clock::Mono;

    #[test]
    fn a_stale_id_finds_nobody_although_its_slot_is_taken_again() {
        let mut table: Table<()> = Table::new(0);
        let peer: IpAddr = "127.0.0.1".parse().unwrap();
        let first = table.insert((), Connection::new(Mono(0)), peer, 0).unwrap();
        assert!(table.touch(first).is_some());
        table.remove(first).unwrap();
        let second = table.insert((), Connection::new(Mono(0)), peer, 0).unwrap();
        assert_eq!(first.slot, second.slot);
        assert!(table.touch(first).is_none());
        assert!(table.remove(first).is_none());
        assert_eq!(table.id_of(Table::<()>::token(second)), second);
    }

    /// Ten thousand of them rest in a process: whoever adds a field should see what it costs.
    #[test]
    fn an_entry_stays_small() {
        let beside = size_of::<Entry<()>>() - size_of::<Connection>() - size_of::<Memberships>();
        assert!(beside <= 64, "{beside} bytes beside the connection");
    }

    #[test]
    fn touched_connections_are_told_once() {
        let mut table: Table<()> = Table::new(0);
        let peer: IpAddr = "127.0.0.1".parse().unwrap();
        let id = table.insert((), Connection::new(Mono(0)), peer, 0).unwrap();
        table.touch(id);
        table.touch(id);
        let mut touched = Vec::new();
        table.take_touched(&mut touched);
        assert_eq!(touched, [id]);
        touched.clear();
        table.take_touched(&mut touched);
        assert!(touched.is_empty());
    }
}
