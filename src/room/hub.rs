//! The rooms of one reactor by name, and which of them have something new this turn.

use std::collections::HashMap;

use slab::Slab;

use super::{Member, MemberKey, Room, UNSTARTED};
use crate::dialect::{Name, Signal};
use crate::directory::Receipt;
use crate::ids::{ConnId, RoomName};
use crate::limits::{
    HUB_RECENT_BYTES_MAX, HUB_WINDOW_BYTES_MAX, RECENT_BYTES_MAX, RECENT_EVENTS_MAX, SIGNAL_BYTES_MAX, WINDOWS_FEW,
    WINDOWS_MAX,
};
use crate::store::{Committed, Page};

/// Index of a room in its hub; valid while the room has a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RoomKey(pub u32);

#[derive(Debug, Default)]
pub struct Hub {
    rooms: Slab<Room>,
    by_name: HashMap<RoomName, RoomKey, foldhash::fast::RandomState>,
    /// Each once.
    dirty: Vec<RoomKey>,
    /// With signals to be handed out, each once.
    signalled: Vec<RoomKey>,
    /// With pages of the log, each once.
    paged: Vec<RoomKey>,
    recent_bytes: usize,
    window_bytes: usize,
    members: usize,
}

impl Hub {
    pub fn find(&self, name: &RoomName) -> Option<RoomKey> {
        self.by_name.get(name).copied()
    }

    pub fn room(&self, key: RoomKey) -> Option<&Room> {
        self.rooms.get(key.0 as usize)
    }

    pub fn room_mut(&mut self, key: RoomKey) -> Option<&mut Room> {
        self.rooms.get_mut(key.0 as usize)
    }

    /// Dialects already entered in the directory for a room: joining with another one needs a wider receipt.
    pub fn entered(&self, name: &RoomName) -> u8 {
        self.find(name).and_then(|key| self.room(key)).map_or(0, Room::dialects)
    }

    /// Adds a member that is shown nothing until `Room::start`. `receipt` is `None` when [`Hub::entered`] already covers
    /// the member's dialect.
    pub fn join(
        &mut self,
        name: &RoomName,
        receipt: Option<Receipt>,
        conn: ConnId,
        dialect: Name,
        hears_itself: bool,
    ) -> Option<(RoomKey, MemberKey)> {
        let key = match (self.find(name), receipt) {
            (Some(key), receipt) => {
                if let (Some(receipt), Some(room)) = (receipt, self.rooms.get_mut(key.0 as usize)) {
                    room.receipt = receipt;
                }
                key
            }
            (None, Some(receipt)) => {
                let key = RoomKey(self.rooms.insert(Room::new(receipt)) as u32);
                self.by_name.insert(name.clone(), key);
                key
            }
            (None, None) => return None,
        };
        let room = self.rooms.get_mut(key.0 as usize)?;
        let member = Member { conn, dialect, hears_itself, waiting: false, next: UNSTARTED };
        self.members += 1;
        Some((key, MemberKey(room.members.insert(member) as u32)))
    }

    /// Takes a member out. The last one takes the room with it: give the receipt back to the directory.
    pub fn leave(&mut self, key: RoomKey, member: MemberKey) -> Option<Receipt> {
        let room = self.rooms.get_mut(key.0 as usize)?;
        if room.members.try_remove(member.0 as usize).is_some() {
            self.members -= 1;
            room.waiting.retain(|waiting| *waiting != member);
        }
        if !room.is_empty() {
            return None;
        }
        let room = self.rooms.remove(key.0 as usize);
        self.recent_bytes -= room.recent_bytes;
        self.window_bytes -= room.window_bytes;
        self.by_name.remove(room.name());
        self.dirty.retain(|dirty| *dirty != key);
        self.signalled.retain(|signalled| *signalled != key);
        self.paged.retain(|paged| *paged != key);
        Some(room.receipt)
    }

    /// A committed event has come. For a room without members here it is nobody's business any more.
    pub fn accept(&mut self, event: Committed) {
        let Some(key) = self.find(event.room()) else { return };
        let Some(room) = self.rooms.get_mut(key.0 as usize) else { return };
        let before = room.recent_bytes;
        let clean = room.dirty_from.is_none();
        if room.accept(event) && clean {
            self.dirty.push(key);
        }
        self.recent_bytes = self.recent_bytes + room.recent_bytes - before;
    }

    /// Something that is not state was said in a room. Returns the room when what it holds is to be handed out before more is
    /// added.
    pub fn signal(&mut self, signal: Signal) -> Option<RoomKey> {
        let key = self.find(&signal.room)?;
        let room = self.rooms.get_mut(key.0 as usize)?;
        if room.signals.is_empty() {
            self.signalled.push(key);
        }
        room.signal_bytes += signal.frames.len_max();
        room.signals.push(signal);
        (room.signal_bytes > SIGNAL_BYTES_MAX).then_some(key)
    }

    /// The rooms with signals; [`Room::take_signals`] has them.
    pub fn take_signalled(&mut self) -> Vec<RoomKey> {
        std::mem::take(&mut self.signalled)
    }

    /// The rooms with something new; they must be given back to [`Hub::served`].
    pub fn take_dirty(&mut self) -> Vec<RoomKey> {
        std::mem::take(&mut self.dirty)
    }

    /// Takes a page of a room's log and gives back the members that waited for one.
    pub fn accept_page(&mut self, key: RoomKey, page: Page) -> Vec<MemberKey> {
        let most = if self.window_bytes > HUB_WINDOW_BYTES_MAX { WINDOWS_FEW } else { WINDOWS_MAX };
        let Some(room) = self.rooms.get_mut(key.0 as usize) else { return Vec::new() };
        let (before, first) = (room.window_bytes, !room.has_pages());
        let waiting = room.accept_page(page, most);
        if first && room.has_pages() {
            self.paged.push(key);
        }
        self.window_bytes = self.window_bytes + room.window_bytes - before;
        waiting
    }

    /// To be called when a member has caught up. Its room's pages are kept a while for others who come from the same place,
    /// as after a restart everybody does; not where pages take too much.
    pub fn caught_up(&mut self, key: RoomKey) {
        if self.window_bytes > HUB_WINDOW_BYTES_MAX && !self.forget_pages_of(key) {
            self.paged.retain(|paged| *paged != key);
        }
    }

    /// Forgets the pages in which nobody reads. Returns whether there are others.
    pub fn forget_pages(&mut self) -> bool {
        for key in std::mem::take(&mut self.paged) {
            if self.forget_pages_of(key) {
                self.paged.push(key);
            }
        }
        !self.paged.is_empty()
    }

    /// Returns whether the room still has some.
    fn forget_pages_of(&mut self, key: RoomKey) -> bool {
        let Some(room) = self.rooms.get_mut(key.0 as usize) else { return false };
        let before = room.window_bytes;
        room.forget_pages();
        self.window_bytes = self.window_bytes + room.window_bytes - before;
        room.has_pages()
    }

    /// Every member with a writable socket was shown this turn's events: keep only what others may still want soon.
    pub fn served(&mut self, key: RoomKey) {
        let Some(room) = self.rooms.get_mut(key.0 as usize) else { return };
        let before = room.recent_bytes;
        room.dirty_from = None;
        if self.recent_bytes > HUB_RECENT_BYTES_MAX {
            room.trim(0, 0);
        } else {
            room.trim(RECENT_EVENTS_MAX, RECENT_BYTES_MAX);
        }
        self.recent_bytes = self.recent_bytes + room.recent_bytes - before;
        if room.has_pages() {
            self.caught_up(key);
        }
    }

    pub fn rooms(&self) -> usize {
        self.rooms.len()
    }

    pub fn members(&self) -> usize {
        self.members
    }

    #[cfg(any(test, debug_assertions))]
    pub fn check_invariants(&self) {
        assert_eq!(self.rooms.len(), self.by_name.len());
        assert_eq!(self.recent_bytes, self.rooms.iter().map(|(_, room)| room.recent_bytes).sum::<usize>());
        assert_eq!(self.window_bytes, self.rooms.iter().map(|(_, room)| room.window_bytes).sum::<usize>());
        assert_eq!(self.members, self.rooms.iter().map(|(_, room)| room.len()).sum::<usize>());
        for (key, room) in &self.rooms {
            room.check_invariants();
            let listed = self.paged.iter().filter(|paged| paged.0 as usize == key).count();
            assert_eq!(listed, usize::from(room.has_pages()), "each room with pages is listed once");
        }
    }
}
