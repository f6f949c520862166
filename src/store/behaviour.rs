//! What every backend must do, as cases that are run against each of them on an empty store.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::seam::{Keep, Retention, Snapshots, Store};
use crate::clock::Wall;
use crate::ids::{Epoch, OpId, RoomName, Seq};
use crate::limits::TRIM_EVERY;
use crate::limits::{MARKS_MAX, TASK_SPAN};
use crate::model::{
    Document, Draft, Event, FileMark, Record, Rows, Shelf, State, Task, TaskId, TaskKind, Tasks, Transaction,
};

pub type Case = fn(&mut dyn Store, &mut dyn Snapshots);

pub const CASES: &[(&str, Case)] = &[
    ("seqs are dense", seqs_are_dense),
    ("a rollback leaves nothing", a_rollback_leaves_nothing),
    ("an epoch stays", an_epoch_stays),
    ("what is stored comes back exactly", what_is_stored_comes_back_exactly),
    ("names may hold anything", names_may_hold_anything),
    ("a page has bounds", a_page_has_bounds),
    ("documents are found by their names", documents_are_found_by_their_names),
    ("file marks come and go", file_marks_come_and_go),
    ("an operation is answered once", an_operation_is_answered_once),
    ("a snapshot stands still", a_snapshot_stands_still),
    ("retention trims from the front", retention_trims_from_the_front),
    ("retention is looked at now and then", retention_is_looked_at_now_and_then),
    ("a room has its newest state", a_room_has_its_newest_state),
    ("rooms are listed by their names", rooms_are_listed_by_their_names),
    ("records keep their places", records_keep_their_places),
    ("records are found by parent and state", records_are_found_by_parent_and_state),
    ("the most overdue record comes first", the_most_overdue_record_comes_first),
    ("the oldest marks go first", the_oldest_marks_go_first),
    ("a random number does not come again", a_random_number_does_not_come_again),
    ("ready tasks come by their ids", ready_tasks_come_by_their_ids),
    ("a fence rises over all tasks", a_fence_rises_over_all_tasks),
    ("a finished task stays finished", a_finished_task_stays_finished),
    ("what a holder had comes back", what_a_holder_had_comes_back),
];

/// Runs `work` in a transaction of its own.
pub fn write<T>(store: &mut dyn Store, at: i64, work: impl FnOnce(&mut dyn Transaction) -> T) -> T {
    store.begin(Wall(at)).unwrap();
    let done = work(store.rows());
    store.commit().unwrap();
    done
}

pub fn read<T>(snapshots: &mut dyn Snapshots, ask: impl FnOnce(&mut dyn Rows) -> T) -> T {
    snapshots.begin().unwrap();
    let answer = ask(snapshots.rows());
    snapshots.end();
    answer
}

pub fn append(tx: &mut dyn Transaction, room: &str, body: &str) -> Seq {
    let draft =
        Draft { room: RoomName::new(room), kind: "update".into(), body: Bytes::copy_from_slice(body.as_bytes()) };
    tx.append(draft, &Arc::from("ann"), None, 0).unwrap()
}

pub fn append_from(tx: &mut dyn Transaction, room: &str, origin: u64) {
    let draft = Draft { room: RoomName::new(room), kind: "update".into(), body: Bytes::new() };
    tx.append(draft, &Arc::from("ann"), None, origin).unwrap();
}

pub fn operation(tx: &mut dyn Transaction, room: &str, op: &str) {
    tx.put_operation(&RoomName::new(room), "ann", &op_id(op), Seq(1), "{}").unwrap();
}

pub fn document(directory: &str, name: &str) -> Document {
    Document {
        id: Document::id_of(directory, name),
        directory: directory.to_owned(),
        name: name.to_owned(),
        rev: 1,
        ..Document::default()
    }
}

pub fn record(shelf: Shelf, id: &str, parent: &str, state: &str) -> Record {
    Record {
        shelf,
        id: id.to_owned(),
        parent: parent.to_owned(),
        state: state.to_owned(),
        due: None,
        created_at: Wall(1),
        updated_at: Wall(1),
        body: Bytes::from_static(b"{}"),
    }
}

pub fn task(tx: &mut dyn Transaction, kind: TaskKind, body: &str) -> TaskId {
    tx.put_task(kind, &RoomName::new("r"), Bytes::copy_from_slice(body.as_bytes())).unwrap()
}

pub fn every_kind() -> Tasks {
    TaskKind::ALL.into_iter().collect()
}

fn op_id(op: &str) -> OpId {
    OpId(Arc::from(op))
}

fn bodies(rows: &mut dyn Rows, room: &str) -> Vec<(u64, String)> {
    let events = rows.events(room, Seq(0), 1000, usize::MAX).unwrap();
    events.iter().map(|event| (event.seq.0, String::from_utf8(event.body.to_vec()).unwrap())).collect()
}

fn numbered(bodies: &[&str]) -> Vec<(u64, String)> {
    (1..).zip(bodies.iter().map(|body| (*body).to_owned())).collect()
}

fn seqs_are_dense(store: &mut dyn Store, snapshots: &mut dyn Snapshots) {
    let first = write(store, 1, |tx| [append(tx, "a", "1"), append(tx, "b", "1"), append(tx, "a", "2")]);
    assert_eq!(first, [Seq(1), Seq(1), Seq(2)]);
    write(store, 2, |tx| {
        assert_eq!(append(tx, "a", "3"), Seq(3));
        assert_eq!(tx.room("a").unwrap().unwrap().head, Seq(3), "a transaction sees itself");
        assert_eq!(bodies(tx, "a"), numbered(&["1", "2", "3"]));
        assert_eq!(tx.at(), Wall(2));
    });
    read(snapshots, |rows| {
        let row = rows.room("a").unwrap().unwrap();
        assert_eq!((row.head, row.floor), (Seq(3), Seq(0)));
        assert_eq!(bodies(rows, "a"), numbered(&["1", "2", "3"]));
        assert_eq!(bodies(rows, "b"), numbered(&["1"]));
        assert_eq!(rows.room("c").unwrap(), None);
        assert_eq!(bodies(rows, "c"), []);
    });
}

fn a_rollback_leaves_nothing(store: &mut dyn Store, snapshots: &mut dyn Snapshots) {
    store.begin(Wall(1)).unwrap();
    let tx = store.rows();
    append(tx, "a", "lost");
    tx.put_document(&document("d", "n")).unwrap();
    tx.put_file_mark(&FileMark { document: "d/n".into(), digest: [1; 20], rev: 1 }).unwrap();
    operation(tx, "a", "o");
    tx.put_state(&RoomName::new("a"), &State { rev: 1, seq: Seq(1), body: Bytes::new() }).unwrap();
    tx.put_record(&Record { due: Some(Wall(1)), ..record(Shelf::Job, "j", "", "") }).unwrap();
    let id = task(tx, TaskKind::Chat, "lost");
    tx.lease_task(id, 0, Wall(0)).unwrap();
    store.rollback();
    store.rollback();
    read(snapshots, |rows| {
        assert_eq!(rows.room("a").unwrap(), None);
        assert_eq!(bodies(rows, "a"), []);
        assert_eq!(rows.document("d/n").unwrap(), None);
        assert_eq!(rows.documents_named("n").unwrap(), [] as [&str; 0]);
        assert_eq!(rows.file_mark("d/n").unwrap(), None);
        assert_eq!(rows.operation("a", "ann", &op_id("o")).unwrap(), None);
        assert_eq!(rows.state("a").unwrap(), None);
        assert_eq!(rows.rooms("", "", 10).unwrap(), []);
        assert_eq!(rows.record(Shelf::Job, "j").unwrap(), None);
        assert_eq!(rows.next_due().unwrap(), None);
        assert_eq!(rows.task(id).unwrap(), None);
        assert_eq!(rows.ready_tasks(every_kind(), Wall(9), 10).unwrap(), []);
    });
    assert_eq!(write(store, 2, |tx| append(tx, "a", "kept")), Seq(1));
    assert_eq!(read(snapshots, |rows| bodies(rows, "a")), numbered(&["kept"]));
}

fn an_epoch_stays(store: &mut dyn Store, snapshots: &mut dyn Snapshots) {
    let epoch = |rows: &mut dyn Rows, room| rows.room(room).unwrap().unwrap().epoch;
    let made = write(store, 1, |tx| {
        append(tx, "a", "1");
        append(tx, "b", "1");
        (epoch(tx, "a"), epoch(tx, "b"))
    });
    assert!(made.0 != Epoch(0) && made.1 != Epoch(0) && made.0 != made.1);
    write(store, 2, |tx| append(tx, "a", "2"));
    assert_eq!(read(snapshots, |rows| (epoch(rows, "a"), epoch(rows, "b"))), made);
}

fn what_is_stored_comes_back_exactly(store: &mut dyn Store, snapshots: &mut dyn Snapshots) {
    let mebibyte = "\u{1f600}\0x".repeat(1024 * 1024 / 6 + 1);
    let texts = ["", "\0", "a\0b", "\u{1f600}\u{fffd}", "'\"\\\r\n", mebibyte.as_str()];
    for (n, text) in texts.into_iter().enumerate() {
        let at = -1 + n as i64;
        let op = (n % 2 == 0).then(|| op_id("op"));
        let origin = if n % 2 == 0 { 0x3f00_0001_ffff_ffff } else { 0 };
        let document = Document {
            content: text.to_owned(),
            description: (n > 0).then(|| text.to_owned()),
            tags: vec![text.to_owned(), String::new(), "7:x".to_owned()],
            created_at: Wall(-5),
            updated_at: Wall(i64::MAX),
            rev: 1 << 40,
            ..document("d", &n.to_string())
        };
        write(store, at, |tx| {
            let draft = Draft { room: RoomName::new("r"), kind: "kind".into(), body: Bytes::from(text.to_owned()) };
            tx.append(draft, &Arc::from("ann \u{1f600}"), op.as_ref(), origin).unwrap();
            tx.put_document(&document).unwrap();
        });
        read(snapshots, |rows| {
            let events = rows.events("r", Seq(n as u64), 10, usize::MAX).unwrap();
            let expected = Event {
                seq: Seq(n as u64 + 1),
                kind: "kind".into(),
                actor: Arc::from("ann \u{1f600}"),
                op,
                origin,
                body: Bytes::from(text.to_owned()),
                at: Wall(at),
            };
            assert!(events == [expected], "event {n}");
            assert!(rows.document(&document.id).unwrap() == Some(document), "document {n}");
        });
    }
}

fn names_may_hold_anything(store: &mut dyn Store, snapshots: &mut dyn Snapshots) {
    let names = ["", "\0", "a", "a\0", "a\0b", "a\0c", "\u{e9}", "\u{1f600}"];
    write(store, 1, |tx| {
        for name in names {
            append(tx, name, name);
            tx.put_operation(&RoomName::new(name), name, &op_id(name), Seq(1), name).unwrap();
            tx.put_document(&document("", name)).unwrap();
        }
    });
    read(snapshots, |rows| {
        let mut ids = Vec::new();
        rows.each_document(&mut |document| {
            ids.push(document.id);
            true
        })
        .unwrap();
        assert_eq!(ids, names, "by ascending bytes");
        for name in names {
            assert_eq!(bodies(rows, name), numbered(&[name]));
            let answer = rows.operation(name, name, &op_id(name)).unwrap();
            assert_eq!(answer, Some((Seq(1), name.to_owned())));
            assert_eq!(rows.documents_named(name).unwrap(), [name]);
        }
    });
}

fn a_page_has_bounds(store: &mut dyn Store, snapshots: &mut dyn Snapshots) {
    write(store, 1, |tx| {
        for _ in 0..5 {
            append(tx, "r", "0123456789");
            append(tx, "s", "of another room");
        }
    });
    read(snapshots, |rows| {
        for (after, count, bytes, expected) in [
            (0, 10, 1000, vec![1, 2, 3, 4, 5]),
            (0, 2, 1000, vec![1, 2]),
            (0, 0, 1000, vec![]),
            (1, 10, 30, vec![2, 3, 4]),
            (1, 10, 29, vec![2, 3]),
            (1, 10, 0, vec![2]),
            (4, usize::MAX, usize::MAX, vec![5]),
            (5, 10, 1000, vec![]),
            (6, 10, 1000, vec![]),
            (1 << 37, 10, 1000, vec![]),
            (u64::MAX, 10, 1000, vec![]),
        ] {
            let events = rows.events("r", Seq(after), count, bytes).unwrap();
            let seqs: Vec<u64> = events.iter().map(|event| event.seq.0).collect();
            assert_eq!(seqs, expected, "after {after}, {count} events, {bytes} bytes");
        }
    });
}

fn documents_are_found_by_their_names(store: &mut dyn Store, snapshots: &mut dyn Snapshots) {
    let all = [("z", "n"), ("a", "n"), ("x/y/m", "n"), ("q/y/m", "n"), ("a", "other"), ("", "n")];
    write(store, 1, |tx| all.iter().for_each(|(dir, name)| tx.put_document(&document(dir, name)).unwrap()));
    read(snapshots, |rows| {
        assert_eq!(rows.documents_named("n").unwrap(), ["a/n", "n", "q/y/m/n", "x/y/m/n", "z/n"]);
        assert_eq!(rows.documents_with_unique_id("y_m_n").unwrap(), ["q/y/m/n", "x/y/m/n"]);
        let mut first = Vec::new();
        rows.each_document(&mut |document| {
            first.push(document.id);
            first.len() < 2
        })
        .unwrap();
        assert_eq!(first, ["a/n", "a/other"], "stops when told");
    });
    write(store, 2, |tx| {
        tx.delete_document("z/n").unwrap();
        tx.delete_document("never there").unwrap();
        // The same id under another split into directory and name.
        tx.put_document(&Document { id: "a/n".into(), ..document("", "a/n") }).unwrap();
        tx.put_document(&Document { content: "new".into(), rev: 2, ..document("q/y/m", "n") }).unwrap();
        assert_eq!(tx.documents_named("n").unwrap(), ["n", "q/y/m/n", "x/y/m/n"], "a transaction sees itself");
    });
    read(snapshots, |rows| {
        assert_eq!(rows.documents_named("n").unwrap(), ["n", "q/y/m/n", "x/y/m/n"]);
        assert_eq!(rows.documents_named("a/n").unwrap(), ["a/n"]);
        assert_eq!(rows.documents_with_unique_id("a_n").unwrap(), [] as [&str; 0]);
        let edited = rows.document("q/y/m/n").unwrap().unwrap();
        assert_eq!((edited.content.as_str(), edited.rev), ("new", 2));
    });
}

fn file_marks_come_and_go(store: &mut dyn Store, snapshots: &mut dyn Snapshots) {
    let mark = |rev| FileMark { document: "d/n".into(), digest: [rev as u8; 20], rev };
    for rev in [1, 2] {
        write(store, 1, |tx| tx.put_file_mark(&mark(rev)).unwrap());
        assert_eq!(read(snapshots, |rows| rows.file_mark("d/n").unwrap()), Some(mark(rev)));
    }
    write(store, 2, |tx| {
        tx.delete_file_mark("d/n").unwrap();
        assert_eq!(tx.file_mark("d/n").unwrap(), None);
    });
    assert_eq!(read(snapshots, |rows| rows.file_mark("d/n").unwrap()), None);
}

fn an_operation_is_answered_once(store: &mut dyn Store, snapshots: &mut dyn Snapshots) {
    let op = op_id("o");
    let answer = |rows: &mut dyn Rows, room, actor| rows.operation(room, actor, &op_id("o")).unwrap();
    let first = Some((Seq(1), "{\"a\":\"\0\"}".to_owned()));
    write(store, 1, |tx| {
        let seq = append(tx, "r", "x");
        tx.put_operation(&RoomName::new("r"), "ann", &op, seq, "{\"a\":\"\0\"}").unwrap();
        tx.put_operation(&RoomName::new("new"), "ann", &op, Seq(0), "no event").unwrap();
        assert_eq!(answer(tx, "r", "ann"), first, "a transaction sees itself");
    });
    write(store, 2, |tx| tx.put_operation(&RoomName::new("r"), "ann", &op, Seq(9), "second").unwrap());
    read(snapshots, |rows| {
        assert_eq!(answer(rows, "r", "ann"), first, "the first answer stands");
        assert_eq!(answer(rows, "r", "bob"), None);
        assert_eq!(answer(rows, "s", "ann"), None);
        assert_eq!(answer(rows, "new", "ann"), Some((Seq(0), "no event".to_owned())));
        assert_eq!(rows.room("new").unwrap().unwrap().head, Seq(0));
    });
}

fn a_snapshot_stands_still(store: &mut dyn Store, snapshots: &mut dyn Snapshots) {
    write(store, 1, |tx| append(tx, "r", "1"));
    snapshots.begin().unwrap();
    write(store, 2, |tx| {
        append(tx, "r", "2");
        tx.put_document(&document("d", "n")).unwrap();
    });
    assert_eq!(snapshots.rows().room("r").unwrap().unwrap().head, Seq(1));
    assert_eq!(bodies(snapshots.rows(), "r"), numbered(&["1"]));
    assert_eq!(snapshots.rows().document("d/n").unwrap(), None);
    snapshots.end();
    snapshots.end();

    store.begin(Wall(3)).unwrap();
    append(store.rows(), "r", "not committed");
    assert_eq!(read(snapshots, |rows| bodies(rows, "r")), numbered(&["1", "2"]));
    store.commit().unwrap();
    assert_eq!(read(snapshots, |rows| bodies(rows, "r")), numbered(&["1", "2", "not committed"]));
}

fn keep(pattern: &str, events: Option<u64>, span: Option<Duration>) -> Keep {
    Keep { pattern: pattern.to_owned(), events, span }
}

fn retention_trims_from_the_front(store: &mut dyn Store, snapshots: &mut dyn Snapshots) {
    for at in 1..=10 {
        write(store, at, |tx| {
            for room in ["count", "span", "both", "free", "gone"] {
                append(tx, room, "x");
            }
        });
    }
    let span = Some(Duration::from_micros(4));
    let rules = vec![
        keep("count", Some(3), None),
        keep("span", None, span),
        keep("bo*", Some(8), span),
        keep("gone", Some(0), None),
    ];
    let mut trimmed = Vec::new();
    store.tidy(Wall(12), &Retention { rules }, &mut trimmed).unwrap();
    trimmed.sort();
    assert_eq!(trimmed, ["both", "count", "gone", "span"].map(RoomName::new));
    for (room, floor) in [("count", 7), ("span", 7), ("both", 7), ("free", 0), ("gone", 10)] {
        read(snapshots, |rows| {
            let row = rows.room(room).unwrap().unwrap();
            assert_eq!((row.floor, row.head), (Seq(floor), Seq(10)), "{room}");
            let seqs: Vec<u64> = bodies(rows, room).iter().map(|(seq, _)| *seq).collect();
            assert_eq!(seqs, (floor + 1..=10).collect::<Vec<_>>(), "{room}");
            assert_eq!(rows.events(room, Seq(9), 10, 1000).unwrap().len(), usize::from(floor < 10), "{room}");
        });
    }
    assert_eq!(write(store, 13, |tx| append(tx, "gone", "y")), Seq(11));
    assert_eq!(read(snapshots, |rows| bodies(rows, "gone")), [(11, "y".to_owned())]);
}

fn retention_is_looked_at_now_and_then(store: &mut dyn Store, snapshots: &mut dyn Snapshots) {
    let retention = Retention { rules: vec![keep("*", Some(1), None)] };
    let mut floor_after = |at: i64| {
        write(store, at, |tx| append(tx, "r", "x"));
        store.tidy(Wall(at), &retention, &mut Vec::new()).unwrap();
        read(snapshots, |rows| rows.room("r").unwrap().unwrap().floor.0)
    };
    assert_eq!([floor_after(0), floor_after(1), floor_after(2)], [0, 0, 0]);
    assert_eq!(floor_after(TRIM_EVERY.as_micros() as i64), 3);
}

fn a_room_has_its_newest_state(store: &mut dyn Store, snapshots: &mut dyn Snapshots) {
    let room = RoomName::new("r");
    let state = |rev: u64, body: &'static str| State { rev, seq: Seq(rev), body: Bytes::from_static(body.as_bytes()) };
    for (rev, body) in [(1, "\0"), (2, ""), (1 << 40, "{}")] {
        write(store, 1, |tx| {
            append(tx, "r", "x");
            tx.put_state(&room, &state(rev, body)).unwrap();
            assert_eq!(tx.state("r").unwrap(), Some(state(rev, body)), "a transaction sees itself");
        });
        assert_eq!(read(snapshots, |rows| rows.state("r").unwrap()), Some(state(rev, body)));
    }
    store.tidy(Wall(2), &Retention { rules: vec![keep("*", Some(0), None)] }, &mut Vec::new()).unwrap();
    read(snapshots, |rows| {
        assert_eq!(bodies(rows, "r"), []);
        assert_eq!(rows.state("r").unwrap(), Some(state(1 << 40, "{}")), "is there for the trimmed log");
        assert_eq!(rows.state("s").unwrap(), None);
    });
}

fn rooms_are_listed_by_their_names(store: &mut dyn Store, snapshots: &mut dyn Snapshots) {
    let names = ["a", "b", "b\0", "b:", "b:\0", "b:1", "b:10", "b:%", "b:_", "b;", "c", "\u{e9}", "\u{1f600}"];
    write(store, 1, |tx| names.iter().for_each(|name| _ = append(tx, name, "")));
    let mut sorted = names;
    sorted.sort_unstable();
    let listed = |rows: &mut dyn Rows, prefix: &str, after: &str, count: usize| {
        let rooms = rows.rooms(prefix, after, count).unwrap();
        rooms.into_iter().map(|(name, _)| name.as_str().to_owned()).collect::<Vec<_>>()
    };
    read(snapshots, |rows| {
        assert_eq!(listed(rows, "", "", 100), sorted);
        assert_eq!(listed(rows, "", "", 2), sorted[..2]);
        assert_eq!(listed(rows, "b:", "", 100), ["b:", "b:\0", "b:%", "b:1", "b:10", "b:_"]);
        assert_eq!(listed(rows, "b:", "b:1", 2), ["b:10", "b:_"]);
        assert_eq!(listed(rows, "b:", "b:5", 100), ["b:_"], "after a name that nobody has");
        assert_eq!(listed(rows, "b:", "c", 100), [] as [&str; 0]);
        assert_eq!(listed(rows, "b:", "b:", 0), [] as [&str; 0]);
        assert_eq!(listed(rows, "none", "", usize::MAX), [] as [&str; 0]);
    });
    write(store, 2, |tx| {
        append(tx, "b:1", "");
        append(tx, "b:11", "");
        let rooms = tx.rooms("b:1", "", 100).unwrap();
        let heads: Vec<(&str, u64)> = rooms.iter().map(|(name, row)| (name.as_str(), row.head.0)).collect();
        assert_eq!(heads, [("b:1", 2), ("b:10", 1), ("b:11", 1)], "a transaction sees itself");
        assert_eq!(tx.rooms("b:1", "b:1", 1).unwrap()[0].1.epoch, tx.room("b:10").unwrap().unwrap().epoch);
    });
}

fn ids(records: Vec<Record>) -> Vec<String> {
    records.into_iter().map(|record| record.id).collect()
}

fn records_keep_their_places(store: &mut dyn Store, snapshots: &mut dyn Snapshots) {
    let first = Record {
        due: Some(Wall(-7)),
        created_at: Wall(-5),
        updated_at: Wall(i64::MAX),
        body: Bytes::from_static(b"a\0\xff"),
        ..record(Shelf::Ticket, "\0z", "p\0", "\u{1f600}")
    };
    write(store, 1, |tx| {
        tx.put_record(&first).unwrap();
        tx.put_record(&record(Shelf::Ticket, "", "", "")).unwrap();
        tx.put_record(&record(Shelf::Job, "\0z", "another shelf", "")).unwrap();
    });
    assert_eq!(read(snapshots, |rows| rows.record(Shelf::Ticket, "\0z").unwrap()), Some(first.clone()));
    let again = [
        Record { body: Bytes::from_static(b"2"), due: None, ..first.clone() },
        Record { state: "closed".into(), ..first.clone() },
        Record { parent: "other".into(), ..first.clone() },
    ];
    for changed in again {
        write(store, 2, |tx| {
            tx.put_record(&changed).unwrap();
            assert_eq!(tx.record(Shelf::Ticket, "\0z").unwrap(), Some(changed.clone()));
            assert_eq!(ids(tx.records(Shelf::Ticket, None, None, 0, 9).unwrap()), ["\0z", ""]);
        });
        assert_eq!(read(snapshots, |rows| rows.record(Shelf::Ticket, "\0z").unwrap()), Some(changed));
    }
    write(store, 3, |tx| {
        tx.delete_record(Shelf::Ticket, "\0z").unwrap();
        tx.delete_record(Shelf::Ticket, "never there").unwrap();
        assert_eq!(tx.record(Shelf::Ticket, "\0z").unwrap(), None);
        tx.put_record(&first).unwrap();
    });
    read(snapshots, |rows| {
        assert_eq!(ids(rows.records(Shelf::Ticket, None, None, 0, 9).unwrap()), ["", "\0z"], "new, so at the end");
        assert_eq!(rows.count_records(Shelf::Job, None, None).unwrap(), 1);
        assert_eq!(rows.record(Shelf::Session, "").unwrap(), None);
    });
}

fn records_are_found_by_parent_and_state(store: &mut dyn Store, snapshots: &mut dyn Snapshots) {
    write(store, 1, |tx| {
        for (n, (parent, state)) in
            [("s", "open"), ("t", "open"), ("s", "done"), ("s", "open"), ("", "open")].into_iter().enumerate()
        {
            tx.put_record(&record(Shelf::Approval, &n.to_string(), parent, state)).unwrap();
            tx.put_record(&record(Shelf::Execution, &n.to_string(), parent, state)).unwrap();
        }
    });
    let find = |rows: &mut dyn Rows, parent, state, expected: &[&str]| {
        assert_eq!(ids(rows.records(Shelf::Approval, parent, state, 0, 9).unwrap()), expected, "{parent:?} {state:?}");
        assert_eq!(rows.count_records(Shelf::Approval, parent, state).unwrap(), expected.len(), "{parent:?} {state:?}");
    };
    read(snapshots, |rows| {
        find(rows, None, None, &["0", "1", "2", "3", "4"]);
        find(rows, Some("s"), None, &["0", "2", "3"]);
        find(rows, None, Some("open"), &["0", "1", "3", "4"]);
        find(rows, Some("s"), Some("open"), &["0", "3"]);
        find(rows, Some(""), None, &["4"]);
        find(rows, Some("S"), Some("open"), &[]);
        for (skip, count, expected) in [(0, 2, &["0", "1"][..]), (1, 2, &["1", "3"]), (3, 9, &["4"]), (4, 9, &[])] {
            assert_eq!(ids(rows.records(Shelf::Approval, None, Some("open"), skip, count).unwrap()), expected);
        }
        assert_eq!(rows.records(Shelf::Approval, None, None, usize::MAX, usize::MAX).unwrap(), []);
        assert_eq!(rows.records(Shelf::Approval, None, None, 0, 0).unwrap(), []);
    });
    write(store, 2, |tx| {
        tx.put_record(&record(Shelf::Approval, "0", "s", "done")).unwrap();
        find(tx, Some("s"), Some("open"), &["3"]);
        find(tx, Some("s"), Some("done"), &["0", "2"]);
    });
}

fn the_most_overdue_record_comes_first(store: &mut dyn Store, snapshots: &mut dyn Snapshots) {
    assert_eq!(read(snapshots, |rows| rows.next_due().unwrap()), None);
    let due = |shelf, id: &str, due: Option<i64>| Record { due: due.map(Wall), ..record(shelf, id, "", "") };
    write(store, 1, |tx| {
        tx.put_record(&due(Shelf::Approval, "late", Some(30))).unwrap();
        tx.put_record(&due(Shelf::Session, "never", None)).unwrap();
        tx.put_record(&due(Shelf::Session, "second", Some(20))).unwrap();
        tx.put_record(&due(Shelf::Approval, "third", Some(20))).unwrap();
        tx.put_record(&due(Shelf::Response, "first", Some(-10))).unwrap();
    });
    let find = |rows: &mut dyn Rows, by: i64, count: usize| ids(rows.due(Wall(by), count).unwrap());
    read(snapshots, |rows| {
        assert_eq!(rows.next_due().unwrap(), Some(Wall(-10)));
        assert_eq!(find(rows, -11, 9), [] as [&str; 0]);
        assert_eq!(find(rows, 20, 9), ["first", "second", "third"]);
        assert_eq!(find(rows, i64::MAX, usize::MAX), ["first", "second", "third", "late"]);
        assert_eq!(find(rows, 30, 2), ["first", "second"]);
    });
    write(store, 2, |tx| {
        tx.put_record(&due(Shelf::Response, "first", None)).unwrap();
        tx.delete_record(Shelf::Session, "second").unwrap();
        assert_eq!(tx.next_due().unwrap(), Some(Wall(20)));
        assert_eq!(find(tx, 30, 9), ["third", "late"], "a transaction sees itself");
    });
}

fn the_oldest_marks_go_first(store: &mut dyn Store, snapshots: &mut dyn Snapshots) {
    let mark = |n: usize, at: i64| Record { updated_at: Wall(at), ..record(Shelf::Mark, &n.to_string(), "r", "") };
    write(store, 1, |tx| {
        for n in 0..MARKS_MAX + 40 {
            tx.put_record(&mark(n, n as i64)).unwrap();
            tx.put_record(&record(Shelf::Job, &n.to_string(), "r", "")).unwrap();
        }
        tx.put_record(&mark(0, 1_000_000)).unwrap();
    });
    for at in 1..9 {
        store.tidy(Wall(at * TRIM_EVERY.as_micros() as i64), &Retention::default(), &mut Vec::new()).unwrap();
    }
    read(snapshots, |rows| {
        let marks = ids(rows.records(Shelf::Mark, None, None, 0, usize::MAX).unwrap());
        let expected: Vec<String> = (0..1).chain(41..MARKS_MAX + 40).map(|n| n.to_string()).collect();
        assert_eq!(marks, expected, "the first was seen again");
        assert_eq!(rows.count_records(Shelf::Job, None, None).unwrap(), MARKS_MAX + 40);
    });
}

fn a_random_number_does_not_come_again(store: &mut dyn Store, _: &mut dyn Snapshots) {
    let mut drawn = Vec::new();
    for commit in [true, false, true] {
        store.begin(Wall(1)).unwrap();
        drawn.extend((0..100).map(|_| store.rows().random()));
        if commit { store.commit().unwrap() } else { store.rollback() }
    }
    let halves = |number: &u128| [*number as u64, (*number >> 64) as u64];
    let mut halves: Vec<u64> = drawn.iter().flat_map(halves).collect();
    halves.sort_unstable();
    halves.dedup();
    assert_eq!(halves.len(), 600);
}

fn numbers(tasks: Vec<Task>) -> Vec<u64> {
    tasks.into_iter().map(|task| task.id.0).collect()
}

fn ready_tasks_come_by_their_ids(store: &mut dyn Store, snapshots: &mut dyn Snapshots) {
    let kinds = [TaskKind::Execute, TaskKind::Chat, TaskKind::Execute, TaskKind::Cancel, TaskKind::Chat];
    let put = write(store, 10, |tx| kinds.map(|kind| task(tx, kind, "{\"a\":\"\0\"}").0));
    assert!(put.is_sorted() && put[0] > 0, "{put:?}");
    let [execute, chat, second, cancel, late] = put;
    let some = Tasks::only(TaskKind::Execute).with(TaskKind::Chat);
    let ready = |rows: &mut dyn Rows, kinds, now, count| numbers(rows.ready_tasks(kinds, Wall(now), count).unwrap());
    read(snapshots, |rows| {
        assert_eq!(ready(rows, every_kind(), 10, 9), put);
        assert_eq!(ready(rows, every_kind(), 9, 9), [] as [u64; 0], "not yet");
        assert_eq!(ready(rows, some, 10, 3), [execute, chat, second]);
        assert_eq!(ready(rows, Tasks::default(), 10, 9), [] as [u64; 0]);
        assert_eq!(ready(rows, some, 10, 0), [] as [u64; 0]);
        assert_eq!(ready(rows, Tasks::only(TaskKind::Cancel), i64::MAX, usize::MAX), [cancel]);
        let expected = Task {
            id: TaskId(chat),
            kind: TaskKind::Chat,
            room: RoomName::new("r"),
            body: Bytes::from_static(b"{\"a\":\"\0\"}"),
            created_at: Wall(10),
            attempt: 0,
            fence: 0,
            holder: 0,
            ready_at: Wall(10),
            done: false,
        };
        assert_eq!(rows.task(TaskId(chat)).unwrap(), Some(expected));
        for nobody in [0, u64::MAX, late + 1] {
            assert_eq!(rows.task(TaskId(nobody)).unwrap(), None);
        }
    });
    write(store, 11, |tx| {
        tx.lease_task(TaskId(execute), 5, Wall(20)).unwrap();
        tx.postpone_task(TaskId(chat), Wall(30)).unwrap();
        tx.postpone_task(TaskId(late + 1), Wall(30)).unwrap();
        tx.finish_task(TaskId(second)).unwrap();
        let new = task(tx, TaskKind::Webhook, "").0;
        assert!(new > late);
        assert_eq!(ready(tx, every_kind(), 19, 9), [cancel, late, new], "a transaction sees itself");
    });
    read(snapshots, |rows| {
        assert_eq!(ready(rows, some, 19, 9), [late]);
        assert_eq!(ready(rows, some, 20, 9), [execute, late], "the lease ran out");
        assert_eq!(ready(rows, some, 30, 2), [execute, chat]);
    });
}

fn a_fence_rises_over_all_tasks(store: &mut dyn Store, snapshots: &mut dyn Snapshots) {
    let [one, two] = write(store, 1, |tx| [task(tx, TaskKind::Chat, "1"), task(tx, TaskKind::Ticket, "2")]);
    let holder = 0x3f00_0001_ffff_ffff;
    let mut last = 0;
    for (attempt, id) in [(1, one), (1, two), (2, one), (3, one), (2, two)] {
        let leased = write(store, 2, |tx| {
            assert_eq!(tx.lease_task(TaskId(99), holder, Wall(3)).unwrap(), None);
            tx.lease_task(id, holder, Wall(i64::MAX / 2)).unwrap().unwrap()
        });
        assert!(leased.fence > last, "{leased:?}");
        last = leased.fence;
        assert_eq!((leased.attempt, leased.holder, leased.ready_at), (attempt, holder, Wall(i64::MAX / 2)));
        assert_eq!(leased.body, if id == one { "1" } else { "2" });
        assert_eq!(read(snapshots, |rows| rows.task(id).unwrap()), Some(leased));
    }
    let postponed = write(store, 3, |tx| {
        tx.postpone_task(one, Wall(-4)).unwrap();
        tx.task(one).unwrap().unwrap()
    });
    assert_eq!((postponed.holder, postponed.ready_at, postponed.attempt), (0, Wall(-4), 3));
    assert!(postponed.fence > 0, "the last holder is still told from those before it");
}

fn a_finished_task_stays_finished(store: &mut dyn Store, snapshots: &mut dyn Snapshots) {
    let [id, open] = write(store, 1, |tx| [task(tx, TaskKind::Chat, "body"), task(tx, TaskKind::Chat, "open")]);
    write(store, 2, |tx| {
        tx.lease_task(id, 7, Wall(9)).unwrap();
        tx.finish_task(id).unwrap();
    });
    let done = read(snapshots, |rows| rows.task(id).unwrap()).unwrap();
    assert_eq!((done.done, done.holder, done.attempt, done.body.len()), (true, 0, 1, 0));
    assert!(done.fence > 0, "so that a repeated `done` is told from a stale one");
    let span = TASK_SPAN.as_micros() as i64;
    write(store, span, |tx| {
        assert_eq!(tx.lease_task(id, 7, Wall(9)).unwrap(), None);
        tx.postpone_task(id, Wall(0)).unwrap();
        tx.finish_task(id).unwrap();
        tx.finish_task(TaskId(99)).unwrap();
        assert_eq!(tx.release_tasks(Some(7)).unwrap(), Tasks::default());
        assert_eq!(tx.task(id).unwrap(), Some(done.clone()));
        assert_eq!(numbers(tx.ready_tasks(every_kind(), Wall(i64::MAX), 9).unwrap()), [open.0]);
    });
    store.tidy(Wall(span + 2), &Retention::default(), &mut Vec::new()).unwrap();
    assert_eq!(read(snapshots, |rows| rows.task(id).unwrap()), Some(done), "for a day since the first time");
    let later = span + 2 + TRIM_EVERY.as_micros() as i64;
    store.tidy(Wall(later), &Retention::default(), &mut Vec::new()).unwrap();
    read(snapshots, |rows| {
        assert_eq!(rows.task(id).unwrap(), None);
        assert_eq!(numbers(rows.ready_tasks(every_kind(), Wall(1), 9).unwrap()), [open.0], "for ever");
    });
    write(store, 2 * span, |tx| tx.finish_task(open).unwrap());
    store.tidy(Wall(4 * span), &Retention::default(), &mut Vec::new()).unwrap();
    assert!(write(store, 5, |tx| task(tx, TaskKind::Chat, "")) > open, "an id does not come again");
}

fn what_a_holder_had_comes_back(store: &mut dyn Store, snapshots: &mut dyn Snapshots) {
    let far = Wall(i64::MAX / 2);
    let kinds = [TaskKind::Chat, TaskKind::Cancel, TaskKind::Ticket, TaskKind::Execute, TaskKind::Control];
    let put = write(store, 1, |tx| {
        let put = kinds.map(|kind| task(tx, kind, ""));
        for (id, holder) in put.into_iter().zip([5, 5, u64::MAX, 0]) {
            tx.lease_task(id, holder, far).unwrap();
        }
        tx.finish_task(put[0]).unwrap();
        put
    });
    let ready = |rows: &mut dyn Rows| numbers(rows.ready_tasks(every_kind(), Wall(7), 9).unwrap());
    write(store, 7, |tx| {
        for nobody in [6, 0] {
            assert_eq!(tx.release_tasks(Some(nobody)).unwrap(), Tasks::default());
        }
        assert_eq!(tx.release_tasks(Some(5)).unwrap(), Tasks::only(TaskKind::Cancel), "the other one was done");
        assert_eq!(ready(tx), [put[1].0, put[4].0]);
    });
    let freed = read(snapshots, |rows| rows.task(put[1]).unwrap().unwrap());
    assert_eq!((freed.holder, freed.ready_at, freed.attempt), (0, Wall(7), 1));
    write(store, 7, |tx| {
        assert_eq!(tx.release_tasks(None).unwrap(), Tasks::only(TaskKind::Ticket));
        assert_eq!(tx.release_tasks(None).unwrap(), Tasks::default());
    });
    assert_eq!(read(snapshots, ready), [put[1].0, put[2].0, put[4].0], "an HTTP client's lease is nobody's socket's");
}
