//! The desk: who takes tasks, and who is given which. State and decisions; the worker asks it inside its transactions.
//!
//! ```text
//! take, poll, gone ──▶ seats ──plan──▶ leases in the open transaction ──commit──▶ settle ─▶ pushes and answers
//!                        ▲                          └──no commit──▶ nothing: the plan is dropped       │
//!                        └──────────────────────────────── tasks finished or postponed ◀───────────────┘
//! ```
//!
//! Who sits here is nobody's row: a seat is taken the moment its wish is heard, so that no failing disk can make a backend
//! wait for a `take` that was forgotten. What is handed out is the transaction's: planned in it, without a change here, and
//! entered here only once it is committed. So a task goes out with the commit that creates it, and a commit that did not
//! come about gave nobody anything.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use crate::clock::{Mono, Wall};
use crate::ids::ConnId;
use crate::limits::BATCH_BYTES_MAX;
use crate::model::{RowsError, Task, TaskId, TaskKind, Tasks, Transaction};

/// Tasks handed out by one transaction. Each may bring a megabyte, and whoever waits for the commit waits for them too;
/// the rest follows in the next one, at once.
const PLAN_TASKS_MAX: usize = 64;
/// Bytes of their bodies; passed by at most one task.
const PLAN_BYTES_MAX: usize = BATCH_BYTES_MAX;
/// A poll makes its kinds count as taken for so long behind its wait: between two polls a client is busy with what it was
/// given.
const POLL_PRESENCE: Duration = Duration::from_secs(60);
/// Until when a socket holds its task: as long as it lives. Its end releases, and so does the next start.
const AS_LONG_AS_IT_LIVES: Wall = Wall(i64::MAX / 2);

#[derive(Debug, Default)]
pub struct Desk {
    /// By connection, so that every run of the simulation asks them in the same order.
    seats: BTreeMap<ConnId, Seat>,
    /// Which socket has which task.
    held: HashMap<TaskId, ConnId, foldhash::fast::RandomState>,
    /// Sockets that have gone, until a commit has released what they held.
    leaving: BTreeSet<ConnId>,
    /// Until when somebody last polled for a kind, by its number.
    polled: [Option<Mono>; TaskKind::ALL.len()],
    /// Counts hand-outs, to tell who was given something longest ago.
    turns: u64,
    /// Something has changed that may let somebody be given a task that waits.
    stale: bool,
    /// When to look for tasks that have become ready by themselves.
    look_at: Mono,
}

#[derive(Clone, Debug)]
struct Seat {
    kinds: Tasks,
    /// How many it may hold at a time; of a poll, how many it takes.
    max: usize,
    held: usize,
    /// The hand-out it was last given; of a newcomer the last there was, for who comes again and again is no first.
    served: u64,
    wish: Wish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// A socket: from now on.
    Always,
    /// A request: once, for so long, and not after `until`.
    Once { lease: Duration, until: Mono },
}

/// What one transaction hands out. Of no consequence before it is committed.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// In the order in which they were dealt.
    leases: Vec<Lease>,
    /// Something was released for whoever is left.
    released: bool,
    /// It stopped at its bounds: there may be more to hand out.
    cut: bool,
}

#[derive(Debug, PartialEq)]
struct Lease {
    to: ConnId,
    task: Task,
}

impl Plan {
    /// The transaction need not be committed for its sake.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty() && !self.released
    }
}

/// What a plan that was committed gives to whom.
#[derive(Debug, Default, PartialEq)]
pub struct Handed {
    pub pushes: Vec<(ConnId, Task)>,
    pub answers: Vec<(ConnId, Vec<Task>)>,
}

impl Desk {
    // ---- who sits here ----------------------------------------------------------------------------------------------------

    /// A socket takes tasks from now on; said again, it replaces what was said. What it holds it holds.
    pub fn take(&mut self, conn: ConnId, kinds: Tasks, max: u16) {
        let (held, served) = self.seats.get(&conn).map_or((0, self.turns), |seat| (seat.held, seat.served));
        self.seats.insert(conn, Seat { kinds, max: max.into(), held, served, wish: Wish::Always });
        self.stale = true;
    }

    /// A request takes tasks once, until `until` at the latest.
    pub fn poll(&mut self, conn: ConnId, kinds: Tasks, max: u16, lease: Duration, until: Mono) {
        for (kind, last) in TaskKind::ALL.into_iter().zip(&mut self.polled) {
            if kinds.has(kind) {
                *last = (*last).max(Some(until));
            }
        }
        let seat = Seat { kinds, max: max.into(), held: 0, served: self.turns, wish: Wish::Once { lease, until } };
        self.seats.insert(conn, seat);
        self.stale = true;
    }

    /// The connection is gone. Known by its seat: the connections that took nothing cost nothing here.
    pub fn gone(&mut self, conn: ConnId) {
        if let Some(Seat { wish: Wish::Always, .. }) = self.seats.remove(&conn) {
            self.held.retain(|_, holder| *holder != conn);
            self.leaving.insert(conn);
        }
    }

    /// The requests whose wait is over: they are given nothing.
    pub fn expire(&mut self, now: Mono) -> Vec<ConnId> {
        self.end_polls(|until| until <= now)
    }

    /// Every request that waits, when nothing will be handed out any more.
    pub fn close(&mut self) -> Vec<ConnId> {
        self.end_polls(|_| true)
    }

    fn end_polls(&mut self, ends: impl Fn(Mono) -> bool) -> Vec<ConnId> {
        let ended = self.seats.extract_if(.., |_, seat| matches!(seat.wish, Wish::Once { until, .. } if ends(until)));
        ended.map(|(conn, _)| conn).collect()
    }

    /// The kinds that somebody takes now.
    pub fn present(&self, now: Mono) -> Tasks {
        let seated = self.seats.values().filter(|seat| seat.max > 0).map(|seat| seat.kinds);
        let polled = TaskKind::ALL.into_iter().zip(&self.polled);
        let lately = polled.filter(|(_, last)| last.is_some_and(|last| now.since(last) < POLL_PRESENCE));
        seated.chain(lately.map(|(kind, _)| Tasks::only(kind))).fold(Tasks::default(), Tasks::or)
    }

    // ---- when to look -----------------------------------------------------------------------------------------------------

    /// Is a transaction worth its while for the desk's own sake?
    pub fn wants(&self, now: Mono) -> bool {
        !self.leaving.is_empty() || ((self.stale || self.look_at <= now) && self.has_room())
    }

    /// When something has to be done here at the latest, if nothing else happens before.
    pub fn next(&self) -> Option<Mono> {
        let polls = self.seats.values().filter_map(|seat| match seat.wish {
            Wish::Once { until, .. } => Some(until),
            Wish::Always => None,
        });
        polls.chain(self.has_room().then_some(self.look_at)).min()
    }

    fn has_room(&self) -> bool {
        self.seats.values().any(|seat| seat.held < seat.max)
    }

    /// Whatever it was that was looked for: the next look is at `at`, unless something changes before.
    pub fn rest(&mut self, at: Mono) {
        self.stale = false;
        self.look_at = at;
    }

    // ---- handing out ------------------------------------------------------------------------------------------------------

    /// Hands out in the open transaction what is ready; `freed` are tasks that it finished or postponed. Changes nothing
    /// here, so that the transaction may fail.
    pub fn plan(&self, freed: &BTreeSet<TaskId>, rows: &mut dyn Transaction) -> Result<Plan, RowsError> {
        let mut plan = Plan::default();
        for conn in &self.leaving {
            plan.released |= !rows.release_tasks(Some(conn.pack()))?.is_empty();
        }
        let mut hungry = self.hungry(freed);
        let mut piles = piles(&hungry, rows)?;
        let mut given = BTreeSet::new();
        let mut bytes = 0;
        // One each in turn, or whoever is first and has a large window would leave nothing to the others.
        while plan.leases.len() < PLAN_TASKS_MAX
            && bytes < PLAN_BYTES_MAX
            && let Some(mut next) = hungry.pop_front()
        {
            let Some(id) = next_of(&mut piles, next.kinds, &given) else { continue };
            given.insert(id);
            let (holder, until) = next.terms(rows.at());
            if let Some(task) = rows.lease_task(id, holder, until)? {
                bytes += task.body.len();
                plan.leases.push(Lease { to: next.conn, task });
                next.room -= 1;
            }
            if next.room > 0 {
                hungry.push_back(next);
            }
        }
        plan.cut = !hungry.is_empty();
        Ok(plan)
    }

    /// Everybody with room, whoever was given something longest ago first.
    fn hungry(&self, freed: &BTreeSet<TaskId>) -> VecDeque<Hungry> {
        let mut back: HashMap<ConnId, usize> = HashMap::new();
        for holder in freed.iter().filter_map(|id| self.held.get(id)) {
            *back.entry(*holder).or_default() += 1;
        }
        let room = |conn: &ConnId, seat: &Seat| {
            let held = seat.held.saturating_sub(back.get(conn).copied().unwrap_or(0));
            seat.max.saturating_sub(held)
        };
        let mut hungry: Vec<(u64, Hungry)> = (self.seats.iter())
            .map(|(conn, seat)| {
                (seat.served, Hungry { conn: *conn, kinds: seat.kinds, room: room(conn, seat), wish: seat.wish })
            })
            .filter(|(_, hungry)| hungry.room > 0)
            .collect();
        hungry.sort_by_key(|(served, _)| *served);
        hungry.into_iter().map(|(_, hungry)| hungry).collect()
    }

    /// The transaction is committed: what it freed and handed out is so.
    pub fn settle(&mut self, freed: &BTreeSet<TaskId>, plan: Plan, next_look: Mono) -> Handed {
        self.free(freed);
        self.leaving.clear();
        self.rest(next_look);
        self.stale = plan.cut;
        let mut handed = Handed::default();
        let mut polls: BTreeMap<ConnId, Vec<Task>> = BTreeMap::new();
        for Lease { to, task } in plan.leases {
            let Some(seat) = self.seats.get_mut(&to) else { continue };
            match seat.wish {
                Wish::Always => {
                    self.turns += 1;
                    seat.served = self.turns;
                    seat.held += 1;
                    self.held.insert(task.id, to);
                    handed.pushes.push((to, task));
                }
                Wish::Once { .. } => polls.entry(to).or_default().push(task),
            }
        }
        for (conn, tasks) in polls {
            self.seats.remove(&conn);
            handed.answers.push((conn, tasks));
        }
        handed
    }

    /// A transaction without a plan is committed: what it did to tasks is looked at by the next one.
    pub fn touched(&mut self, freed: &BTreeSet<TaskId>) {
        self.free(freed);
        self.stale = true;
    }

    fn free(&mut self, freed: &BTreeSet<TaskId>) {
        for holder in freed.iter().filter_map(|id| self.held.remove(id)) {
            if let Some(seat) = self.seats.get_mut(&holder) {
                seat.held = seat.held.saturating_sub(1);
            }
        }
    }
}

/// A seat with room, while a plan is made.
#[derive(Debug)]
struct Hungry {
    conn: ConnId,
    kinds: Tasks,
    room: usize,
    wish: Wish,
}

impl Hungry {
    /// Who is written down as the holder, and until when.
    fn terms(&self, at: Wall) -> (u64, Wall) {
        match self.wish {
            Wish::Always => (self.conn.pack(), AS_LONG_AS_IT_LIVES),
            Wish::Once { lease, .. } => {
                let lease = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX);
                (0, Wall(at.0.saturating_add(lease).min(AS_LONG_AS_IT_LIVES.0)))
            }
        }
    }
}

/// What is ready for one set of kinds, oldest first. Bodies are not kept: `lease_task` brings its own.
#[derive(Debug)]
struct Pile {
    kinds: Tasks,
    ready: VecDeque<TaskId>,
}

/// One question for each set of kinds that somebody wants. A pile is asked for as many as everybody who may draw from it, or
/// draw the same tasks from another one, can take: nobody leaves empty while something is ready for it.
fn piles(hungry: &VecDeque<Hungry>, rows: &mut dyn Transaction) -> Result<Vec<Pile>, RowsError> {
    let mut piles: Vec<Pile> = Vec::new();
    for Hungry { kinds, .. } in hungry {
        if kinds.is_empty() || piles.iter().any(|pile| pile.kinds == *kinds) {
            continue;
        }
        let rivals = hungry.iter().filter(|other| !other.kinds.and(*kinds).is_empty());
        let count = rivals.fold(0_usize, |count, rival| count.saturating_add(rival.room)).min(PLAN_TASKS_MAX);
        let at = rows.at();
        let ready = rows.ready_tasks(*kinds, at, count)?.into_iter().map(|task| task.id).collect();
        piles.push(Pile { kinds: *kinds, ready });
    }
    Ok(piles)
}

/// The oldest task of these kinds that is not given yet.
fn next_of(piles: &mut [Pile], kinds: Tasks, given: &BTreeSet<TaskId>) -> Option<TaskId> {
    let pile = piles.iter_mut().find(|pile| pile.kinds == kinds)?;
    std::iter::from_fn(|| pile.ready.pop_front()).find(|id| !given.contains(id))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use bytes::Bytes;

    use super::*;
    use crate::dialect::fake::Fake;
    use crate::ids::RoomName;

    const SECOND: Duration = Duration::from_secs(1);
    const SOON: Mono = Mono(500_000_000);

    fn conn(slot: u32) -> ConnId {
        ConnId { reactor: 0, slot, generation: 1 }
    }

    fn only(kind: TaskKind) -> Tasks {
        Tasks::only(kind)
    }

    /// A desk and the rows it hands out from; each step is one transaction that commits.
    #[derive(Default)]
    struct Scene {
        desk: Desk,
        rows: Fake,
    }

    impl Scene {
        fn put(&mut self, kind: TaskKind, count: usize) {
            for _ in 0..count {
                self.rows.put_task(kind, &RoomName::new("session:a"), Bytes::from_static(b"{}")).unwrap();
            }
        }

        fn commit(&mut self, freed: &[u64]) -> Handed {
            let freed: BTreeSet<TaskId> = freed.iter().copied().map(TaskId).collect();
            let plan = self.desk.plan(&freed, &mut self.rows).unwrap();
            self.desk.settle(&freed, plan, SOON)
        }

        fn finish(&mut self, id: u64) -> Handed {
            self.rows.finish_task(TaskId(id)).unwrap();
            self.commit(&[id])
        }

        fn poll(&mut self, slot: u32, max: u16) {
            let kinds = only(TaskKind::Execute);
            self.desk.poll(conn(slot), kinds, max, 30 * SECOND, Mono(0).after(SECOND));
        }
    }

    /// (slot, task) of every push.
    fn pushed(handed: &Handed) -> Vec<(u32, u64)> {
        handed.pushes.iter().map(|(conn, task)| (conn.slot, task.id.0)).collect()
    }

    #[test]
    fn a_window_is_respected_and_what_is_done_makes_room_for_the_next() {
        let mut scene = Scene::default();
        scene.put(TaskKind::Execute, 5);
        scene.desk.take(conn(1), only(TaskKind::Execute), 2);
        assert!(scene.desk.wants(Mono(0)));
        let handed = scene.commit(&[]);
        assert_eq!(pushed(&handed), [(1, 1), (1, 2)]);
        let (_, task) = &handed.pushes[0];
        assert_eq!((task.attempt, task.fence, task.holder), (1, 1, conn(1).pack()));
        assert!(task.ready_at.0 > i64::MAX / 4, "as long as the socket lives");
        assert!(!scene.desk.wants(Mono(u64::MAX)), "no room, nothing to look for");
        assert_eq!(scene.desk.next(), None);

        assert_eq!(pushed(&scene.finish(1)), [(1, 3)], "in the transaction that finishes one");
        assert_eq!(pushed(&scene.commit(&[1])), [], "a second `done` of the same task frees nothing");
        scene.rows.postpone_task(TaskId(2), Wall(99)).unwrap();
        assert_eq!(pushed(&scene.commit(&[2])), [(1, 4)], "a postponed one is nobody's");
    }

    #[test]
    fn take_said_again_replaces_and_keeps_what_is_held() {
        let mut scene = Scene::default();
        scene.put(TaskKind::Execute, 4);
        scene.put(TaskKind::Chat, 1);
        scene.desk.take(conn(1), only(TaskKind::Execute), 2);
        scene.commit(&[]);
        scene.desk.take(conn(1), only(TaskKind::Execute), 2);
        assert_eq!(pushed(&scene.commit(&[])), [], "it holds two already");
        scene.desk.take(conn(1), only(TaskKind::Chat), 3);
        assert_eq!(pushed(&scene.commit(&[])), [(1, 5)]);
        assert_eq!(scene.desk.present(Mono(0)), only(TaskKind::Chat));
        scene.desk.take(conn(1), only(TaskKind::Execute), 0);
        assert_eq!(pushed(&scene.finish(1)), [], "it takes nothing any more");
        assert!(scene.desk.present(Mono(0)).is_empty());
    }

    #[test]
    fn takers_take_turns() {
        let mut scene = Scene::default();
        for slot in [1, 2, 3] {
            scene.desk.take(conn(slot), only(TaskKind::Execute), 10);
        }
        scene.put(TaskKind::Execute, 5);
        assert_eq!(pushed(&scene.commit(&[])), [(1, 1), (2, 2), (3, 3), (1, 4), (2, 5)]);
        scene.put(TaskKind::Execute, 1);
        assert_eq!(pushed(&scene.commit(&[])), [(3, 6)], "whoever was given something longest ago");
        scene.poll(4, 1);
        scene.put(TaskKind::Execute, 1);
        assert_eq!(pushed(&scene.commit(&[])), [(1, 7)], "a newcomer is behind those who wait");
        scene.put(TaskKind::Execute, 3);
        let handed = scene.commit(&[]);
        assert_eq!(
            (pushed(&handed), handed.answers[0].0),
            (vec![(2, 8), (3, 9)], conn(4)),
            "and before those served since"
        );
    }

    #[test]
    fn nobody_leaves_empty_while_something_is_ready_for_it() {
        let mut scene = Scene::default();
        scene.put(TaskKind::Execute, 10);
        scene.put(TaskKind::Chat, 2);
        scene.desk.take(conn(1), only(TaskKind::Execute), 4);
        scene.desk.take(conn(2), only(TaskKind::Execute).with(TaskKind::Chat), 1);
        scene.desk.take(conn(3), only(TaskKind::Chat), 9);
        scene.desk.take(conn(4), only(TaskKind::Ticket), 9);
        scene.desk.take(conn(5), Tasks::default(), 9);
        let handed = scene.commit(&[]);
        assert_eq!(pushed(&handed), [(1, 1), (2, 2), (3, 11), (1, 3), (3, 12), (1, 4), (1, 5)]);
    }

    #[test]
    fn who_goes_leaves_its_tasks_to_the_others_under_a_higher_fence() {
        let mut scene = Scene::default();
        scene.put(TaskKind::Execute, 2);
        scene.desk.take(conn(1), only(TaskKind::Execute), 2);
        scene.commit(&[]);
        scene.desk.take(conn(2), only(TaskKind::Execute), 1);
        scene.commit(&[]);
        scene.desk.gone(conn(1));
        assert!(scene.desk.held.values().all(|holder| *holder != conn(1)));
        assert!(scene.desk.wants(Mono(0)), "also while nobody has room");
        let handed = scene.commit(&[]);
        assert_eq!(pushed(&handed), [(2, 1)]);
        assert_eq!((handed.pushes[0].1.fence, handed.pushes[0].1.attempt), (3, 2));
        assert!(!scene.desk.wants(Mono(0)));
        assert_eq!(pushed(&scene.finish(1)), [(2, 2)], "it waits for room");
        // A connection that took nothing is no matter for a transaction.
        scene.desk.gone(conn(9));
        assert!(!scene.desk.wants(Mono(0)));
    }

    #[test]
    fn a_plan_without_a_commit_changes_nothing() {
        let mut scene = Scene::default();
        scene.put(TaskKind::Execute, 3);
        scene.desk.take(conn(1), only(TaskKind::Execute), 2);
        scene.poll(2, 1);
        let plan = scene.desk.plan(&BTreeSet::new(), &mut scene.rows).unwrap();
        assert!(!plan.is_empty());
        drop(plan);
        // The rows forget it too.
        scene.rows.tasks.clear();
        scene.put(TaskKind::Execute, 3);
        let handed = scene.commit(&[]);
        assert_eq!(pushed(&handed), [(1, 1), (1, 3)]);
        assert_eq!(handed.answers.len(), 1);
    }

    #[test]
    fn a_poll_takes_once_and_leases_for_a_time() {
        let mut scene = Scene::default();
        scene.poll(1, 2);
        assert_eq!(scene.commit(&[]), Handed::default(), "it waits");
        scene.put(TaskKind::Execute, 3);
        let handed = scene.commit(&[]);
        let (to, tasks) = &handed.answers[0];
        assert_eq!((*to, tasks.len()), (conn(1), 2));
        assert!(tasks.iter().all(|task| task.holder == 0 && task.ready_at == Wall(30_000_000)));
        assert_eq!(scene.commit(&[]), Handed::default(), "the third is nobody's yet");
        assert_eq!(scene.desk.expire(Mono(u64::MAX)), []);

        scene.rows.at = Wall(30_000_000);
        scene.poll(3, 5);
        let handed = scene.commit(&[]);
        let again: Vec<_> = handed.answers[0].1.iter().map(|task| (task.id.0, task.attempt, task.fence)).collect();
        assert_eq!(again, [(1, 2, 3), (2, 2, 4), (3, 1, 5)], "its lease ran out");
    }

    #[test]
    fn a_poll_ends_when_its_wait_is_over_or_its_connection_is_gone() {
        let mut scene = Scene::default();
        scene.poll(1, 1);
        scene.poll(2, 1);
        scene.commit(&[]);
        assert_eq!(scene.desk.next(), Some(SOON), "tasks may become ready by themselves");
        scene.desk.rest(Mono(u64::MAX));
        assert_eq!(scene.desk.next(), Some(Mono(0).after(SECOND)));
        scene.desk.gone(conn(2));
        assert!(!scene.desk.wants(Mono(0)), "a poll holds nothing that its end would release");
        assert_eq!(scene.desk.expire(Mono(999_999_999)), []);
        assert_eq!(scene.desk.expire(Mono(1_000_000_000)), [conn(1)]);
        scene.put(TaskKind::Execute, 1);
        assert_eq!(scene.commit(&[]), Handed::default());
        scene.poll(4, 1);
        assert_eq!(scene.desk.close(), [conn(4)]);
    }

    #[test]
    fn a_kind_counts_as_taken_for_a_while_after_a_poll() {
        let mut scene = Scene::default();
        assert!(scene.desk.present(Mono(0)).is_empty());
        scene.poll(1, 1);
        scene.desk.expire(Mono(u64::MAX));
        assert_eq!(scene.desk.present(Mono(0).after(60 * SECOND)), only(TaskKind::Execute));
        assert!(scene.desk.present(Mono(0).after(61 * SECOND)).is_empty());
        scene.desk.take(conn(2), only(TaskKind::Chat), 1);
        assert_eq!(scene.desk.present(Mono(u64::MAX)), only(TaskKind::Chat));
        scene.desk.gone(conn(2));
        assert!(scene.desk.present(Mono(u64::MAX)).is_empty());
    }

    #[test]
    fn a_look_that_found_nothing_is_the_last_for_a_while() {
        let mut scene = Scene::default();
        scene.desk.take(conn(1), only(TaskKind::Execute), 1);
        assert!(scene.desk.wants(Mono(0)));
        let plan = scene.desk.plan(&BTreeSet::new(), &mut scene.rows).unwrap();
        assert!(plan.is_empty());
        scene.desk.settle(&BTreeSet::new(), plan, SOON);
        assert!(!scene.desk.wants(Mono(SOON.0 - 1)));
        assert!(scene.desk.wants(SOON));
        scene.desk.rest(Mono(u64::MAX));
        scene.desk.touched(&BTreeSet::new());
        assert!(scene.desk.wants(Mono(0)), "a transaction that did not look put something");
    }

    #[test]
    fn a_transaction_hands_out_so_much_and_the_next_one_the_rest() {
        let mut scene = Scene::default();
        scene.put(TaskKind::Execute, PLAN_TASKS_MAX + 3);
        scene.desk.take(conn(1), only(TaskKind::Execute), u16::MAX);
        assert_eq!(scene.commit(&[]).pushes.len(), PLAN_TASKS_MAX);
        assert!(scene.desk.wants(Mono(0)), "at once");
        assert_eq!(scene.commit(&[]).pushes.len(), 3);
        assert!(!scene.desk.wants(Mono(0)));

        let body = Bytes::from(vec![b' '; PLAN_BYTES_MAX / 2]);
        for _ in 0..3 {
            scene.rows.put_task(TaskKind::Execute, &RoomName::new("r"), body.clone()).unwrap();
        }
        assert_eq!(scene.commit(&[]).pushes.len(), 2);
        assert_eq!(scene.commit(&[]).pushes.len(), 1);
    }

    /// A poll waits for up to a minute: counted from when it was said, its presence would be over with its answer.
    #[test]
    fn who_polled_is_present_for_a_while_after_its_answer() {
        let mut scene = Scene::default();
        let at = |seconds| Mono(0).after(seconds * SECOND);
        scene.desk.poll(conn(1), only(TaskKind::Execute), 1, SECOND, at(60));
        assert_eq!(scene.desk.expire(at(60)), [conn(1)]);
        assert_eq!(scene.desk.present(at(61)), only(TaskKind::Execute), "it is about to poll again");
        assert!(scene.desk.present(at(121)).is_empty());
    }
}
