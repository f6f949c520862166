//! Between threads and to the members: mailbox, directory, room, outbox.

use std::collections::VecDeque;
use std::hint::black_box;

use bytes::Bytes;
use commitcast::conn::{Outbox, Slices};
use commitcast::dialect::Name;
use commitcast::directory::Directory;
use commitcast::ids::{ConnId, RoomName, Seq};
use commitcast::mailbox;
use commitcast::room::{Hub, Look, MemberKey};
use commitcast::store::{Committed, Delivery};

use super::{Case, Run, case, consuming, timed};
use crate::common::house::House;
use crate::common::{talk, texts};

/// Members of a room.
const MEMBERS: usize = 1000;
/// Rooms of a directory, and those that a run is about: many, for what one costs depends on where its hash falls.
const ROOMS: usize = 1000;
const ASKED: usize = 500;

pub const CASES: &[Case] = &[
    case("mailbox/post_take", 1, 1000, || post_take()),
    timed("mailbox/ring", 1, || ring()),
    case("directory/enter_leave", ASKED as u64, 10, || enter_leave()),
    case("directory/audiences", ASKED as u64, 20, || audiences()),
    consuming("room/accept_advance", MEMBERS as u64, 20, accept_advance),
    case("outbox/push_gather_advance", 4, 500, || outbox(4)),
];

fn post_take() -> Run {
    let (mut mailbox, inbox) = mailbox::channel::<[u64; 8]>(1024);
    Box::new(move || {
        assert!(mailbox.post(black_box([7; 8])).is_ok());
        black_box(inbox.take());
    })
}

/// A wake that is needed: the reader has looked in since the last one.
fn ring() -> Run {
    let poll = mio::Poll::new().unwrap();
    let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
    let (mut mailbox, inbox) = mailbox::with_waker::<u64>(1024, waker);
    Box::new(move || {
        let _open = &poll;
        assert!(mailbox.post(black_box(7)).is_ok());
        mailbox.ring();
        inbox.open();
        black_box(inbox.take());
    })
}

fn directory() -> (Directory, Vec<RoomName>) {
    let directory = Directory::default();
    let rooms: Vec<RoomName> = (0..ROOMS).map(|number| RoomName::new(&format!("doc:prompts/p{number}"))).collect();
    for room in &rooms {
        let _receipt = directory.enter(room, 0, Name::Documents.bit());
    }
    (directory, rooms)
}

/// Rooms that gain their first member here, and lose it.
fn enter_leave() -> Run {
    let (directory, _) = directory();
    let rooms: Vec<RoomName> = (0..ASKED).map(|number| RoomName::new(&format!("doc:drafts/d{number}"))).collect();
    Box::new(move || {
        for room in black_box(&rooms) {
            let receipt = directory.enter(room, 0, Name::Documents.bit());
            directory.leave(receipt, 0);
        }
    })
}

/// Who is to hear of a batch.
fn audiences() -> Run {
    let (directory, rooms) = directory();
    Box::new(move || {
        black_box(directory.audiences(black_box(&rooms).iter().step_by(ROOMS / ASKED).take(ASKED)));
    })
}

/// A committed event comes, and each member is shown it.
fn accept_advance(runs: u64) -> Run {
    let mut house = House::new();
    // Somebody listens, or nothing would be framed.
    house.dial("/ws/prompts/d/p0", 1, &[]);
    let update = talk::update(0);
    let mut events: VecDeque<Committed> = (0..=runs)
        .flat_map(|_| house.writer.commit(vec![talk::job(Name::Documents, &update, 0, None)]))
        .flat_map(|delivery| match delivery {
            Delivery::Batch { committed, .. } => committed,
            other => panic!("a commit brings a batch: {other:?}"),
        })
        .collect();
    let room = events[0].room().clone();
    let before = Seq(events[0].seq().0 - 1);
    let directory = Directory::default();
    let mut hub = Hub::default();
    let mut members: Vec<MemberKey> = Vec::new();
    for slot in 0..MEMBERS as u32 {
        let receipt = members.is_empty().then(|| directory.enter(&room, 0, Name::Documents.bit()));
        let conn = ConnId { reactor: 0, slot, generation: 1 };
        let (key, member) = hub.join(&room, receipt, conn, Name::Documents, false).unwrap();
        hub.room_mut(key).unwrap().start(member, before, before);
        members.push(member);
    }
    let key = hub.find(&room).unwrap();
    Box::new(move || {
        let Some(event) = events.pop_front() else { panic!("more runs than were prepared") };
        hub.accept(event);
        let room = hub.room_mut(key).unwrap();
        for member in &members {
            let Look::Event { frame } = room.look(*member) else { panic!("a member does not see the event") };
            black_box(frame);
            room.advance(*member, 1);
        }
        let dirty = hub.take_dirty();
        assert_eq!(dirty, [key]);
        hub.served(key);
    })
}

/// So many replies are queued and leave in one write.
fn outbox(replies: usize) -> Run {
    let reply = Bytes::from(texts::text_frame(talk::PING));
    let mut outbox = Outbox::default();
    Box::new(move || {
        for _ in 0..replies {
            outbox.push(black_box(&reply).clone());
        }
        let mut slices = Slices::default();
        outbox.gather(&mut slices);
        let bytes = slices.bytes();
        black_box(slices.as_slice());
        assert_eq!(outbox.advance(bytes), 0);
    })
}
