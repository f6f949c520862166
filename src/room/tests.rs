//! The delivery rule, held against a model: whatever arrives in whatever order, a member is shown each event once, in
//! order, without a hole.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::*;
use crate::directory::Directory;
use crate::store::committed::tests::{event, page};

const CONN: ConnId = ConnId { reactor: 0, slot: 1, generation: 1 };

/// A hub with one room, one member, and the text of every frame it was shown.
struct Stage {
    hub: Hub,
    key: RoomKey,
    member: MemberKey,
    name: RoomName,
    shown: Vec<u64>,
    asked: Vec<Seq>,
}

impl Stage {
    fn new(snapshot_at: u64) -> Stage {
        let name = RoomName::new("doc:a");
        let directory = Directory::default();
        let mut hub = Hub::default();
        let receipt = directory.enter(&name, 0, Name::Documents.bit());
        let (key, member) = hub.join(&name, Some(receipt), CONN, Name::Documents, false).unwrap();
        hub.room_mut(key).unwrap().start(member, Seq(snapshot_at), Seq(snapshot_at));
        Stage { hub, key, member, name, shown: Vec::new(), asked: Vec::new() }
    }

    fn deliver(&mut self, seq: u64) {
        self.hub.accept(event(&self.name, seq, None));
    }

    /// Shows the member up to `most` events, as a socket with that much room would.
    fn pull(&mut self, most: usize) {
        for _ in 0..most {
            let room = self.hub.room_mut(self.key).unwrap();
            match room.look(self.member) {
                Look::Current => return,
                Look::Missing => {
                    self.asked.extend(room.ask(self.member));
                    return;
                }
                Look::Event { frame } => {
                    let text = String::from_utf8_lossy(frame).into_owned();
                    let content = text.split("\"content\":\"").nth(1).unwrap().split('"').next().unwrap();
                    self.shown.push(content.parse().unwrap());
                    room.advance(self.member, 1);
                }
            }
        }
    }

    /// The store answers the oldest question with the log's next events.
    fn answer(&mut self, head: u64, count: u64) {
        if self.asked.is_empty() {
            return;
        }
        let after = self.asked.remove(0).0;
        let last = head.min(after + count.max(1));
        self.hub.accept_page(self.key, page(&self.name, after, after + 1..=last));
    }

    fn serve(&mut self) {
        for key in self.hub.take_dirty() {
            self.hub.served(key);
        }
        self.hub.check_invariants();
    }
}

#[derive(Clone, Debug)]
enum Act {
    /// The next `n` events happen and are delivered, or are lost on the way (`false`: another path must find them).
    Happen(u64, bool),
    /// An old event is delivered again.
    Repeat(u64),
    Pull(usize),
    Answer(u64),
    EndOfTurn,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (1u64..40, prop::bool::weighted(0.85)).prop_map(|(count, delivered)| Act::Happen(count, delivered)),
        1 => (1u64..50).prop_map(Act::Repeat),
        4 => (0usize..60).prop_map(Act::Pull),
        3 => (1u64..70).prop_map(Act::Answer),
        3 => Just(Act::EndOfTurn),
    ]
}

proptest! {
    #[test]
    fn a_member_is_shown_each_event_once_in_order(start in 0u64..5, acts in prop::collection::vec(act(), 1..120)) {
        let mut stage = Stage::new(start);
        let mut head = start;
        for act in acts {
            match act {
                Act::Happen(count, delivered) => {
                    for _ in 0..count {
                        head += 1;
                        if delivered {
                            stage.deliver(head);
                        }
                    }
                }
                Act::Repeat(back) => {
                    let old = head.saturating_sub(back);
                    // Only what was delivered can be delivered again.
                    if old > 0 && Seq(old) <= stage.hub.room(stage.key).unwrap().end() {
                        stage.deliver(old);
                    }
                }
                Act::Pull(most) => stage.pull(most),
                Act::Answer(count) => stage.answer(head, count),
                Act::EndOfTurn => stage.serve(),
            }
            let expected: Vec<u64> = (start + 1..).take(stage.shown.len()).collect();
            prop_assert_eq!(&stage.shown, &expected);
        }
        // In the end one more event is delivered, as it always is, and everything is found.
        head += 1;
        stage.deliver(head);
        for _ in 0..2000 {
            if stage.shown.len() as u64 == head - start {
                break;
            }
            stage.pull(1000);
            stage.answer(head, 50);
            stage.serve();
        }
        let expected: Vec<u64> = (start + 1..=head).collect();
        prop_assert_eq!(stage.shown, expected);
    }
}

#[test]
fn nobody_is_shown_anything_before_his_snapshot() {
    let mut stage = Stage::new(0);
    let directory = Directory::default();
    let receipt = directory.enter(&stage.name, 0, Name::Documents.bit());
    let (_, late) = stage.hub.join(&stage.name.clone(), Some(receipt), CONN, Name::Documents, false).unwrap();
    stage.deliver(1);
    stage.deliver(2);
    let room = stage.hub.room_mut(stage.key).unwrap();
    assert!(matches!(room.look(late), Look::Current));
    room.start(late, Seq(1), Seq(1));
    assert!(matches!(room.look(late), Look::Event { .. }), "what came since the snapshot was kept for it");
    assert_eq!(room.next_of(late), Some(Seq(2)));
}

#[test]
fn a_member_does_not_hear_itself_unless_its_dialect_says_so() {
    let mut stage = Stage::new(0);
    stage.hub.accept(event(&stage.name, 1, Some(CONN)));
    let room = stage.hub.room(stage.key).unwrap();
    assert!(matches!(room.look(stage.member), Look::Event { frame } if frame.is_empty()));
    let other = ConnId { generation: 2, ..CONN };
    stage.hub.accept(event(&stage.name, 2, Some(other)));
    let room = stage.hub.room_mut(stage.key).unwrap();
    room.advance(stage.member, 1);
    assert!(
        matches!(room.look(stage.member), Look::Event { frame } if !frame.is_empty()),
        "a later tenant of its slot"
    );
}

#[test]
fn one_page_serves_all_who_wait_for_it() {
    let mut stage = Stage::new(0);
    let directory = Directory::default();
    let receipt = directory.enter(&stage.name, 0, Name::Documents.bit());
    let (_, second) = stage.hub.join(&stage.name.clone(), Some(receipt), CONN, Name::Documents, false).unwrap();
    stage.deliver(100);
    let room = stage.hub.room_mut(stage.key).unwrap();
    room.start(second, Seq(10), Seq(10));
    assert_eq!(room.ask(stage.member), Some(Seq(0)));
    assert_eq!(room.ask(second), None, "the page under way reaches that far");
    assert_eq!(room.ask(stage.member), None, "asked once");
    let woken = stage.hub.accept_page(stage.key, page(&stage.name, 0, 1..=99));
    assert_eq!(woken, [stage.member, second]);
    let room = stage.hub.room(stage.key).unwrap();
    assert!(matches!(room.look(second), Look::Event { .. }));
}

#[test]
fn a_page_also_serves_whoever_comes_from_the_same_place_a_moment_later() {
    let mut stage = Stage::new(0);
    stage.deliver(100);
    stage.serve();
    stage.pull(1);
    assert_eq!(stage.asked, [Seq(0)]);
    stage.answer(100, 100);
    stage.pull(100);
    assert_eq!(stage.shown.len(), 100);
    stage.hub.caught_up(stage.key);
    stage.deliver(101);
    stage.serve();
    stage.pull(1);

    let late = ConnId { slot: 2, ..CONN };
    let (key, member) = stage.hub.join(&stage.name, None, late, Name::Documents, false).unwrap();
    let room = stage.hub.room_mut(key).unwrap();
    room.start(member, Seq(40), Seq(101));
    assert!(matches!(room.look(member), Look::Event { .. }), "the log is read again");
    assert!(stage.hub.forget_pages(), "somebody reads in them");
    stage.hub.room_mut(key).unwrap().advance(member, 61);
    assert!(!stage.hub.forget_pages(), "nobody reads in them");
    assert!(!stage.hub.room(key).unwrap().has_pages());
    stage.hub.check_invariants();
}

#[test]
fn the_last_member_takes_the_room_and_its_receipt_with_it() {
    let mut stage = Stage::new(0);
    stage.deliver(1);
    let receipt = stage.hub.leave(stage.key, stage.member).expect("the directory wants its receipt back");
    assert_eq!(receipt.room(), &stage.name);
    assert_eq!((stage.hub.rooms(), stage.hub.members()), (0, 0));
    assert!(stage.hub.take_dirty().is_empty());
    stage.deliver(2);
    stage.hub.check_invariants();
}

/// An event of an audience that was taken before the room was left and entered again: it comes before the snapshot, and
/// what was committed in between never does.
#[test]
fn what_was_delivered_before_the_start_hides_nothing_that_was_not() {
    let name = RoomName::new("doc:a");
    let directory = Directory::default();
    let mut hub = Hub::default();
    let receipt = directory.enter(&name, 0, Name::Documents.bit());
    let (key, member) = hub.join(&name, Some(receipt), CONN, Name::Documents, false).unwrap();
    let mut stage = Stage { hub, key, member, name, shown: Vec::new(), asked: Vec::new() };
    stage.deliver(10);
    stage.hub.room_mut(key).unwrap().start(member, Seq(5), Seq(11));
    for _ in 0..10 {
        stage.pull(100);
        stage.answer(11, 100);
    }
    assert_eq!(stage.shown, [6, 7, 8, 9, 10, 11], "the log reached to 11 when it was asked");
    stage.hub.check_invariants();
    stage.deliver(12);
    assert_eq!(stage.hub.room(key).unwrap().fresh().map(|(from, _)| from), Some(Seq(12)));
    stage.pull(100);
    assert_eq!(stage.shown.last(), Some(&12));
}

/// A turn in which a hole shows: everybody is looked at, or nobody would read what lies in it before the next event.
#[test]
fn a_hole_within_a_turn_is_a_turn_like_any_other() {
    let mut stage = Stage::new(9);
    stage.deliver(10);
    stage.deliver(12);
    assert!(stage.hub.room(stage.key).unwrap().fresh().is_some(), "the members are passed over");
}
