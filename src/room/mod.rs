//! The rooms of one reactor: who is in them, and what each member is to be shown next.
//!
//! A member is a cursor. It has no queue: it has `next`, the seq it must be shown next, and whoever has a writable socket
//! for it pulls frames from there. So a member far behind costs what a member at the head costs, nothing is copied per
//! member, nothing is dropped for a slow one, and one idempotent rule serves live delivery, catching up and resuming:
//!
//! ```text
//!             windows (pages read for laggards)              recent (delivered live)
//!   log: … ─────[ 41 … 90 ]──────────────────────────────────[ 260 … 300 ]  head = 300
//!                    ▲ next = 57: pull from the window                   ▲ next = 301: at the head
//!                             ▲ next = 120: nowhere here, ask the store for the page after 119
//! ```
//!
//! Invariants: a member sees each seq once, in order, with no hole (`next` only ever moves to the following event or to a
//! reset's position); `recent` and every window are contiguous runs; nothing is here that is not [`Committed`].
//!
//! Pure: no socket, no clock, no store. The reactor joins rooms and connections; they never see each other.

mod hub;
#[cfg(test)]
mod tests;

pub use hub::{Hub, RoomKey};

use std::collections::VecDeque;

use slab::Slab;

use crate::dialect::{Frames, Name, Signal};
use crate::directory::Receipt;
use crate::ids::{ConnId, RoomName, Seq};
use crate::limits::PAGE_EVENTS_MAX;
use crate::store::{Committed, Page};

/// Index of a member in its room; valid until it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemberKey(pub u32);

#[derive(Debug)]
pub struct Member {
    pub conn: ConnId,
    pub dialect: Name,
    /// Shown its own events too.
    pub hears_itself: bool,
    waiting: bool,
    /// `UNSTARTED` until the member's snapshot has come: it is shown nothing yet. (An `Option` would take eight bytes more
    /// of every membership.)
    next: Seq,
}

const UNSTARTED: Seq = Seq(u64::MAX);

impl Member {
    /// What it must be shown next; `None` before its snapshot has come.
    pub fn next(&self) -> Option<Seq> {
        (self.next != UNSTARTED).then_some(self.next)
    }
}

/// What there is for a member now.
#[derive(Debug)]
pub enum Look<'a> {
    /// Nothing: it is at the head, or has not started.
    Current,
    /// The event at its cursor. `frame` is empty when the member is not to be shown it.
    Event { frame: &'a bytes::Bytes },
    /// Not in memory: read the log.
    Missing,
}

#[derive(Debug)]
pub struct Room {
    receipt: Receipt,
    members: Slab<Member>,
    /// A contiguous run that ends at `end`.
    recent: VecDeque<Committed>,
    recent_bytes: usize,
    /// The newest event delivered here; every later one will be, in order.
    end: Seq,
    /// Contiguous runs read for members behind, oldest first.
    windows: VecDeque<Window>,
    window_bytes: usize,
    /// Pages under way: the seq they start after, and the dialects they are framed for.
    asked: Vec<(Seq, u8)>,
    waiting: Vec<MemberKey>,
    /// The first event of this turn, when there is one.
    dirty_from: Option<Seq>,
    /// No member has brought the head yet: `end` is at most what was delivered.
    fresh: bool,
    marks: Marks,
    /// What was said this turn that is not state.
    signals: Vec<Signal>,
    signal_bytes: usize,
}

/// A page of the log. Its bounds stand beside it, so that looking through many touches none of the events.
#[derive(Debug)]
struct Window {
    first: Seq,
    events: Vec<Committed>,
}

impl Window {
    fn get(&self, seq: Seq) -> Option<&Committed> {
        self.events.get(usize::try_from(seq.0.checked_sub(self.first.0)?).ok()?)
    }

    fn weight(&self) -> usize {
        self.events.iter().map(Committed::weight).sum()
    }
}

/// Whether it is written down how far the members have seen the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marks {
    None,
    Kept,
    /// They have seen more since it was last written down.
    Owed,
}

impl Room {
    fn new(receipt: Receipt) -> Room {
        Room {
            receipt,
            members: Slab::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            end: Seq(0),
            windows: VecDeque::new(),
            window_bytes: 0,
            asked: Vec::new(),
            waiting: Vec::new(),
            dirty_from: None,
            fresh: true,
            marks: Marks::None,
            signals: Vec::new(),
            signal_bytes: 0,
        }
    }

    pub fn name(&self) -> &RoomName {
        self.receipt.room()
    }

    /// Union of the members' dialects as the directory knows it.
    pub fn dialects(&self) -> u8 {
        self.receipt.dialects()
    }

    pub fn members(&self) -> impl Iterator<Item = (MemberKey, &Member)> {
        self.members.iter().map(|(key, member)| (MemberKey(key as u32), member))
    }

    pub fn member(&self, key: MemberKey) -> Option<&Member> {
        self.members.get(key.0 as usize)
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// The member is shown what comes after `after`; the log reached to `head` when it was asked.
    ///
    /// In a room that was just entered in the directory, nothing up to `head` will be delivered by itself, so a member that
    /// starts further back must look into the log at once. In any other room `end` is right as it is: what lies between it
    /// and `head` is on its way.
    pub fn start(&mut self, key: MemberKey, after: Seq, head: Seq) {
        if std::mem::take(&mut self.fresh) {
            self.end = self.end.max(head);
        }
        if let Some(member) = self.members.get_mut(key.0 as usize) {
            member.next = after.next();
        }
    }

    /// From now on it is written down how far members have seen it.
    pub fn keep_marks(&mut self) {
        if self.marks == Marks::None {
            self.marks = Marks::Kept;
        }
    }

    /// Something was shown: says once, until [`Room::marked`], that this is to be written down.
    pub fn wants_marking(&mut self) -> bool {
        let first = self.marks == Marks::Kept;
        if first {
            self.marks = Marks::Owed;
        }
        first
    }

    pub fn marked(&mut self) {
        if self.marks == Marks::Owed {
            self.marks = Marks::Kept;
        }
    }

    /// It was joined, and its question is not answered yet.
    pub fn is_joining(&self, key: MemberKey) -> bool {
        self.members.get(key.0 as usize).is_some_and(|member| member.next == UNSTARTED)
    }

    /// Takes one live event. Older than what was delivered: dropped. Behind a hole: whoever needs what lies in the hole
    /// reads the log. Returns whether it was new.
    fn accept(&mut self, event: Committed) -> bool {
        let seq = event.seq();
        if seq <= self.end {
            return false;
        }
        if self.fresh {
            // Nobody has started, and it may be the word of an audience that was taken before the room was left and
            // entered again: what lies between it and the first snapshot may never be delivered.
            self.end = seq;
            return false;
        }
        if seq != self.end.next() {
            self.recent.clear();
            self.recent_bytes = 0;
            // What the turn brought before the hole is gone with it: whoever needs it reads the log.
            self.dirty_from = None;
        }
        self.end = seq;
        self.recent_bytes += event.weight();
        self.recent.push_back(event);
        self.dirty_from.get_or_insert(seq);
        true
    }

    /// Takes a page, to keep at most `most`, and gives back the members that waited for one.
    fn accept_page(&mut self, page: Page, most: usize) -> Vec<MemberKey> {
        let answered = (page.after(), page.listeners());
        if let Some(place) = self.asked.iter().position(|asked| *asked == answered) {
            self.asked.swap_remove(place);
        }
        let events = page.into_events();
        if let Some(first) = events.first().map(Committed::seq) {
            while self.windows.len() >= most
                && let Some(oldest) = self.windows.pop_front()
            {
                self.window_bytes -= oldest.weight();
            }
            let window = Window { first, events };
            self.window_bytes += window.weight();
            self.windows.push_back(window);
        }
        let waiting = std::mem::take(&mut self.waiting);
        for key in &waiting {
            if let Some(member) = self.members.get_mut(key.0 as usize) {
                member.waiting = false;
            }
        }
        waiting
    }

    /// Moves a member to just behind a reset's snapshot. `None` when the reset is older than what the member has seen.
    pub fn reset(&mut self, key: MemberKey, seq: Seq, frames: &Frames) -> Option<bytes::Bytes> {
        let member = self.members.get_mut(key.0 as usize)?;
        member.next().filter(|next| *next <= seq)?;
        member.next = seq.next();
        Some(frames.of(member.dialect).clone())
    }

    pub fn look(&self, key: MemberKey) -> Look<'_> {
        let Some(member) = self.members.get(key.0 as usize) else { return Look::Current };
        let Some(next) = member.next() else { return Look::Current };
        self.look_at(member, next)
    }

    /// As [`Room::look`], for the cursor `ahead` events further on.
    pub fn look_ahead(&self, key: MemberKey, ahead: u64) -> Look<'_> {
        let Some(member) = self.members.get(key.0 as usize) else { return Look::Current };
        let Some(next) = member.next() else { return Look::Current };
        self.look_at(member, Seq(next.0 + ahead))
    }

    fn look_at(&self, member: &Member, next: Seq) -> Look<'_> {
        if next > self.end {
            return Look::Current;
        }
        match self.find(next, member.dialect) {
            Some(event) if !member.hears_itself && event.origin() == Some(member.conn) => {
                Look::Event { frame: &NOTHING }
            }
            Some(event) => Look::Event { frame: event.frames().of(member.dialect) },
            None => Look::Missing,
        }
    }

    /// The event framed for `dialect`: the same event may be here twice, first without that frame.
    fn find(&self, seq: Seq, dialect: Name) -> Option<&Committed> {
        let framed = |event: &&Committed| event.listeners() & dialect.bit() != 0;
        let recent = || {
            let first = self.recent.front()?.seq();
            self.recent.get(usize::try_from(seq.0.checked_sub(first.0)?).ok()?)
        };
        recent().filter(framed).or_else(|| self.windows.iter().filter_map(|window| window.get(seq)).find(framed))
    }

    /// The member was shown `events` more events.
    pub fn advance(&mut self, key: MemberKey, events: u64) {
        if let Some(member) = self.members.get_mut(key.0 as usize)
            && member.next != UNSTARTED
        {
            member.next.0 += events;
        }
    }

    /// As one mutant does it: the member goes on with what is in memory.
    pub fn skip(&mut self, key: MemberKey) {
        let next = self.recent.front().map_or(self.end.next(), Committed::seq);
        if let Some(member) = self.members.get_mut(key.0 as usize) {
            member.next = next;
        }
    }

    /// Marks the member as waiting for the log. Returns the seq to read after when no page under way will bring it in the
    /// member's words.
    pub fn ask(&mut self, key: MemberKey) -> Option<Seq> {
        let dialects = self.dialects();
        let member = self.members.get_mut(key.0 as usize)?;
        let after = Seq(member.next()?.0.saturating_sub(1));
        let bit = member.dialect.bit();
        if !std::mem::replace(&mut member.waiting, true) {
            self.waiting.push(key);
        }
        let covered = |(asked, listeners): &(Seq, u8)| {
            listeners & bit != 0 && *asked <= after && after.0 < asked.0 + PAGE_EVENTS_MAX as u64
        };
        if self.asked.iter().any(covered) {
            return None;
        }
        self.asked.push((after, dialects));
        Some(after)
    }

    /// The page could not be asked for: the question is open again.
    pub fn unask(&mut self, after: Seq) {
        self.asked.retain(|(asked, _)| *asked != after);
    }

    pub fn is_waiting(&self, key: MemberKey) -> bool {
        self.members.get(key.0 as usize).is_some_and(|member| member.waiting)
    }

    /// Members wait for a page although none is under way: the question could not be posted.
    pub fn is_stranded(&self) -> bool {
        self.asked.is_empty() && !self.waiting.is_empty()
    }

    /// The events of this turn, for members that stand right before them: `(from, events)`.
    pub fn fresh(&self) -> Option<(Seq, impl Iterator<Item = &Committed>)> {
        let from = self.dirty_from?;
        let first = self.recent.front()?.seq();
        let skip = usize::try_from(from.0.checked_sub(first.0)?).ok()?;
        Some((from, self.recent.iter().skip(skip)))
    }

    /// What was said and not yet handed out, in its order.
    pub fn take_signals(&mut self) -> Vec<Signal> {
        self.signal_bytes = 0;
        std::mem::take(&mut self.signals)
    }

    pub fn next_of(&self, key: MemberKey) -> Option<Seq> {
        self.members.get(key.0 as usize)?.next()
    }

    pub fn end(&self) -> Seq {
        self.end
    }

    /// What the room holds for others than its own members' turn is bounded here, after everybody was served.
    fn trim(&mut self, events: usize, bytes: usize) {
        while self.recent.len() > events || self.recent_bytes > bytes {
            match self.recent.pop_front() {
                Some(event) => self.recent_bytes -= event.weight(),
                None => break,
            }
        }
        if self.recent.is_empty() {
            self.recent = VecDeque::new();
        }
    }

    /// Pages are kept as long as somebody reads in them. Looking costs a walk over the members; forgetting them each turn
    /// would have a member that is far behind read every page of the log several times over.
    fn forget_pages(&mut self) {
        if !self.windows.is_empty() && self.asked.is_empty() && !self.anybody_is_behind() {
            self.windows = VecDeque::new();
            self.window_bytes = 0;
        }
    }

    pub fn has_pages(&self) -> bool {
        !self.windows.is_empty()
    }

    fn anybody_is_behind(&self) -> bool {
        let reach = self.recent.front().map_or(self.end.next(), Committed::seq);
        self.members.iter().any(|(_, member)| member.next().is_some_and(|next| next < reach))
    }

    #[cfg(any(test, debug_assertions))]
    pub fn check_invariants(&self) {
        let dense = |seqs: Vec<u64>| assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "a hole: {seqs:?}");
        dense(self.recent.iter().map(|event| event.seq().0).collect());
        for window in &self.windows {
            assert_eq!(window.events.first().map(Committed::seq), Some(window.first));
            dense(window.events.iter().map(|event| event.seq().0).collect());
        }
        assert_eq!(self.window_bytes, self.windows.iter().map(Window::weight).sum::<usize>());
        assert!(self.recent.back().is_none_or(|last| last.seq() == self.end));
        assert_eq!(self.recent_bytes, self.recent.iter().map(Committed::weight).sum::<usize>());
        for key in &self.waiting {
            assert!(self.members.get(key.0 as usize).is_none_or(|member| member.waiting));
        }
    }
}

static NOTHING: bytes::Bytes = bytes::Bytes::new();
