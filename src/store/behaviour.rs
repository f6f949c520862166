//! What every backend must do, as cases that are run against each of them on an empty store.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::seam::{Keep, Retention, Snapshots, Store};
use crate::clock::Wall;
use crate::ids::{Epoch, OpId, RoomName, Seq};
use crate::limits::TRIM_EVERY;
use crate::model::{Document, Draft, Event, FileMark, Rows, Transaction};

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
    store.rollback();
    store.rollback();
    read(snapshots, |rows| {
        assert_eq!(rows.room("a").unwrap(), None);
        assert_eq!(bodies(rows, "a"), []);
        assert_eq!(rows.document("d/n").unwrap(), None);
        assert_eq!(rows.documents_named("n").unwrap(), [] as [&str; 0]);
        assert_eq!(rows.file_mark("d/n").unwrap(), None);
        assert_eq!(rows.operation("a", "ann", &op_id("o")).unwrap(), None);
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
    store.tidy(Wall(12), &Retention { rules }).unwrap();
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
        store.tidy(Wall(at), &retention).unwrap();
        read(snapshots, |rows| rows.room("r").unwrap().unwrap().floor.0)
    };
    assert_eq!([floor_after(0), floor_after(1), floor_after(2)], [0, 0, 0]);
    assert_eq!(floor_after(TRIM_EVERY.as_micros() as i64), 3);
}
