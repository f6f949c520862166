//! Who is in which room, and what those who watch a room have not been told yet: one registry for all reactors.
//!
//! A user is in a room as long as one connection of theirs is (two tabs are one user). Changes are gathered between two
//! [`Presence::take_changes`]; somebody who came and went in between was never there. Watchers are shown the same
//! changes but start at different moments, so for each user who moved it is kept what views of them are about: the
//! change is told when somebody's view needs it. A view is a set, so being told again what one knows changes nothing.
//!
//! The lock is held for a look-up and for posting changes (which never waits), and its guard never leaves this file.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ids::RoomName;

/// The room, who came and who left, each in the alphabet's order.
pub type Change = (RoomName, Vec<Arc<str>>, Vec<Arc<str>>);

#[derive(Debug, Default)]
pub struct Presence {
    registry: Mutex<Registry>,
}

/// Trees, because names of rooms and users are chosen by peers.
#[derive(Debug, Default)]
struct Registry {
    rooms: BTreeMap<RoomName, Room>,
    /// Users who moved, in rooms that are watched, since the changes were last taken.
    moved: BTreeMap<RoomName, BTreeMap<Arc<str>, Views>>,
}

#[derive(Debug, Default)]
struct Room {
    /// Each user's connections; never 0.
    users: BTreeMap<Arc<str>, usize>,
    watchers: usize,
}

/// What the watchers of a room believe of one user.
#[derive(Clone, Copy, Debug, Default)]
struct Views {
    /// Somebody believes them to be in the room.
    inside: bool,
    /// Somebody believes them not to be.
    outside: bool,
}

impl Views {
    fn add(&mut self, is_inside: bool) {
        match is_inside {
            true => self.inside = true,
            false => self.outside = true,
        }
    }
}

impl Presence {
    /// One more connection of this user is in the room.
    pub fn enter(&self, room: &RoomName, user: &Arc<str>) {
        let mut registry = self.lock();
        let entry = registry.rooms.entry(room.clone()).or_default();
        let connections = entry.users.entry(user.clone()).or_default();
        *connections += 1;
        if *connections == 1 && entry.watchers > 0 {
            registry.moved(room, user, false);
        }
    }

    /// One connection of this user, which [`enter`](Presence::enter)ed, is not in the room any more.
    pub fn leave(&self, room: &RoomName, user: &Arc<str>) {
        let mut registry = self.lock();
        let Some(entry) = registry.rooms.get_mut(room) else { return };
        let Entry::Occupied(mut connections) = entry.users.entry(user.clone()) else { return };
        *connections.get_mut() -= 1;
        if *connections.get() > 0 {
            return;
        }
        connections.remove();
        if entry.watchers > 0 {
            registry.moved(room, user, true);
        }
        registry.forget(room);
    }

    /// Everybody who is there now. One watcher more: each call is paired with one of [`unwatch`](Presence::unwatch).
    pub fn watch(&self, room: &RoomName) -> Vec<Arc<str>> {
        let mut registry = self.lock();
        let Registry { rooms, moved } = &mut *registry;
        let entry = rooms.entry(room.clone()).or_default();
        entry.watchers += 1;
        // The newcomer sees what is; what the others still believe of those who moved may differ.
        for (user, views) in moved.get_mut(room).into_iter().flatten() {
            views.add(entry.users.contains_key(user));
        }
        entry.users.keys().cloned().collect()
    }

    /// One watcher less.
    pub fn unwatch(&self, room: &RoomName) {
        let mut registry = self.lock();
        let Some(entry) = registry.rooms.get_mut(room) else { return };
        entry.watchers = entry.watchers.saturating_sub(1);
        if entry.watchers == 0 {
            registry.moved.remove(room);
        }
        registry.forget(room);
    }

    /// What the watchers are to be told, since it was last asked. The work is that of the users who moved.
    pub fn take_changes(&self) -> Vec<Change> {
        self.lock().take_changes()
    }

    /// As [`take_changes`](Presence::take_changes), posting each change while nobody else can post a later one: two reactors
    /// that told one after the other what they took would otherwise be heard in the other order. `post` must not wait; a
    /// change that it could not post (`false`) stays to be told. Says whether all were posted.
    pub fn tell_changes(&self, mut post: impl FnMut(&Change) -> bool) -> bool {
        let mut registry = self.lock();
        let mut all = true;
        for change in registry.take_changes() {
            if post(&change) {
                continue;
            }
            all = false;
            let (room, joined, left) = change;
            let users = registry.moved.entry(room).or_default();
            for user in joined.into_iter().chain(left) {
                // Some may have heard of it, some not.
                users.insert(user, Views { inside: true, outside: true });
            }
        }
        all
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        // Nothing here panics halfway through a change, so a poisoned lock guards whole rows.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    fn take_changes(&mut self) -> Vec<Change> {
        let moved = std::mem::take(&mut self.moved);
        let changes = moved.into_iter().filter_map(|(room, users)| {
            let present = self.rooms.get(&room).map(|entry| &entry.users);
            let (mut joined, mut left) = (Vec::new(), Vec::new());
            for (user, views) in users {
                match present.is_some_and(|users| users.contains_key(&user)) {
                    true if views.outside => joined.push(user),
                    false if views.inside => left.push(user),
                    _ => {}
                }
            }
            (!joined.is_empty() || !left.is_empty()).then_some((room, joined, left))
        });
        changes.collect()
    }

    /// `was_inside`: what everybody who watches believed until now.
    fn moved(&mut self, room: &RoomName, user: &Arc<str>, was_inside: bool) {
        let users = self.moved.entry(room.clone()).or_default();
        users.entry(user.clone()).or_insert(Views { inside: was_inside, outside: !was_inside });
    }

    /// A room without users and watchers leaves nothing behind.
    fn forget(&mut self, room: &RoomName) {
        if self.rooms.get(room).is_some_and(|entry| entry.users.is_empty() && entry.watchers == 0) {
            self.rooms.remove(room);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn user(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    /// Changes as text, to compare by.
    fn taken(presence: &Presence) -> Vec<String> {
        let say = |(room, joined, left): Change| format!("{room} +{} -{}", joined.join(","), left.join(","));
        presence.take_changes().into_iter().map(say).collect()
    }

    fn is_empty(presence: &Presence) -> bool {
        let registry = presence.lock();
        registry.rooms.is_empty() && registry.moved.is_empty()
    }

    #[test]
    fn a_user_with_two_tabs_is_one_user() {
        let (presence, room) = (Presence::default(), RoomName::new("doc:a"));
        presence.enter(&room, &user("ann"));
        assert_eq!(presence.watch(&room), [user("ann")]);
        presence.enter(&room, &user("ann"));
        presence.enter(&room, &user("bob"));
        assert_eq!(taken(&presence), ["doc:a +bob -"]);
        presence.leave(&room, &user("ann"));
        assert_eq!(taken(&presence), [""; 0]);
        presence.leave(&room, &user("ann"));
        assert_eq!(taken(&presence), ["doc:a + -ann"]);
    }

    #[test]
    fn who_came_and_went_between_two_looks_was_never_there() {
        let (presence, room) = (Presence::default(), RoomName::new("doc:a"));
        presence.enter(&room, &user("ann"));
        presence.watch(&room);
        presence.enter(&room, &user("bob"));
        presence.leave(&room, &user("bob"));
        presence.leave(&room, &user("ann"));
        presence.enter(&room, &user("ann"));
        assert_eq!(taken(&presence), [""; 0]);
    }

    /// The second watcher was shown somebody of whom the first one never heard.
    #[test]
    fn a_watcher_who_comes_in_between_is_told_what_its_own_view_needs() {
        let (presence, room) = (Presence::default(), RoomName::new("doc:a"));
        presence.watch(&room);
        presence.enter(&room, &user("ann"));
        assert_eq!(presence.watch(&room), [user("ann")]);
        presence.leave(&room, &user("ann"));
        assert_eq!(taken(&presence), ["doc:a + -ann"]);
    }

    #[test]
    fn nobody_is_told_of_a_room_that_nobody_watches_and_nothing_is_left_of_it() {
        let (presence, room) = (Presence::default(), RoomName::new("doc:a"));
        presence.enter(&room, &user("ann"));
        presence.leave(&room, &user("zoe"));
        presence.leave(&RoomName::new("doc:b"), &user("ann"));
        presence.unwatch(&RoomName::new("doc:b"));
        assert_eq!(taken(&presence), [""; 0]);
        presence.watch(&room);
        presence.watch(&room);
        presence.leave(&room, &user("ann"));
        presence.unwatch(&room);
        assert_eq!(taken(&presence), ["doc:a + -ann"], "somebody still watches");
        presence.enter(&room, &user("ann"));
        presence.unwatch(&room);
        assert_eq!(taken(&presence), [""; 0]);
        presence.leave(&room, &user("ann"));
        assert!(is_empty(&presence));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Enter(u8, u8),
        Leave(u8, u8),
        Watch(u8),
        Unwatch(u8),
        Take,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..2u8, 0..3u8).prop_map(|(room, user)| Step::Enter(room, user)),
            4 => (0..2u8, 0..3u8).prop_map(|(room, user)| Step::Leave(room, user)),
            2 => (0..2u8).prop_map(Step::Watch),
            1 => (0..2u8).prop_map(Step::Unwatch),
            2 => Just(Step::Take),
        ]
    }

    /// Every watcher's own view, folded from what it is told.
    #[derive(Default)]
    struct Naive {
        inside: Vec<(u8, u8)>,
        views: Vec<(u8, BTreeSet<Arc<str>>)>,
    }

    impl Naive {
        fn truth(&self, room: u8) -> BTreeSet<Arc<str>> {
            self.inside.iter().filter(|(one, _)| *one == room).map(|(_, name)| user(&name.to_string())).collect()
        }

        fn fold(&mut self, changes: &[Change]) {
            for (room, joined, left) in changes {
                for (_, view) in self.views.iter_mut().filter(|(one, _)| one.to_string() == room.as_str()) {
                    view.extend(joined.iter().cloned());
                    view.retain(|user| !left.contains(user));
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]
        #[test]
        fn every_watchers_view_is_the_truth_after_each_look(
            steps in proptest::collection::vec(step(), 0..40),
        ) {
            let (presence, mut naive) = (Presence::default(), Naive::default());
            let name = |room: u8| RoomName::new(&room.to_string());
            for step in steps {
                match step {
                    Step::Enter(room, who) => {
                        presence.enter(&name(room), &user(&who.to_string()));
                        naive.inside.push((room, who));
                    }
                    Step::Leave(room, who) => {
                        presence.leave(&name(room), &user(&who.to_string()));
                        if let Some(at) = naive.inside.iter().position(|one| *one == (room, who)) {
                            naive.inside.remove(at);
                        }
                    }
                    Step::Watch(room) => {
                        let view: BTreeSet<Arc<str>> = presence.watch(&name(room)).into_iter().collect();
                        prop_assert_eq!(&view, &naive.truth(room));
                        naive.views.push((room, view));
                    }
                    Step::Unwatch(room) => {
                        presence.unwatch(&name(room));
                        if let Some(at) = naive.views.iter().position(|(one, _)| *one == room) {
                            naive.views.remove(at);
                        }
                    }
                    Step::Take => {
                        let changes = presence.take_changes();
                        for (room, joined, left) in &changes {
                            prop_assert!(!joined.is_empty() || !left.is_empty());
                            prop_assert!(naive.views.iter().any(|(one, _)| one.to_string() == room.as_str()));
                            prop_assert!(joined.iter().all(|user| !left.contains(user)));
                        }
                        naive.fold(&changes);
                        for (room, view) in &naive.views {
                            prop_assert_eq!(view, &naive.truth(*room));
                        }
                        prop_assert!(presence.take_changes().is_empty(), "taken twice");
                    }
                }
            }
            for (room, who) in std::mem::take(&mut naive.inside) {
                presence.leave(&name(room), &user(&who.to_string()));
            }
            for (room, _) in &naive.views {
                presence.unwatch(&name(*room));
            }
            prop_assert!(is_empty(&presence));
        }
    }

    #[test]
    fn a_change_that_could_not_be_posted_stays_to_be_told() {
        let presence = Presence::default();
        let (room, ann) = (RoomName::new("a"), Arc::from("ann"));
        presence.watch(&room);
        presence.enter(&room, &ann);
        assert!(!presence.tell_changes(|_| false));
        let mut told = Vec::new();
        assert!(presence.tell_changes(|change| {
            told.push(change.clone());
            true
        }));
        assert_eq!(told, [(room, vec![ann], vec![])]);
        assert!(presence.tell_changes(|_| panic!("nothing is left to be told")));
    }
}
