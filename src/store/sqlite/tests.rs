//! The SQLite backend on real files: what a crash leaves, a full disk, a cut log, and the same answers as the memory store.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, OpenOptions};
use std::io::{self, Seek as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use rusqlite::{Connection, ffi};
use tempfile::TempDir;

use super::ballast::BALLAST;
use super::columns::{SEQ_BITS, SEQ_MAX, place, read_tags, write_tags};
use super::error::{blame, blame_io, failure, rows_error};
use super::startup::{DATABASE, SCHEMAS, refuse_old_library};
use super::*;
use crate::clock::Wall;
use crate::ids::{OpId, RoomName, Seq};
use crate::limits;
use crate::limits::{TASK_SPAN, TRIM_TASKS};
use crate::model::{Draft, FileMark, Record, Rows, RowsError, Shelf, State, TaskId, TaskKind, Tasks, Transaction};
use crate::store::behaviour::{self, append, document, operation, record, task, write};
use crate::store::memory::MemoryStore;
use crate::store::seam::{CommitError, Keep, Retention, Snapshots, Store};

fn fresh() -> (TempDir, Opened) {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path(), Durability::Full).unwrap();
    (dir, opened)
}

/// The files as a dead process leaves them: without the shared memory, without the lock.
fn crash_image(dir: &TempDir) -> TempDir {
    let image = TempDir::new().unwrap();
    for name in [DATABASE, &format!("{DATABASE}-wal")] {
        fs::copy(dir.path().join(name), image.path().join(name)).unwrap();
    }
    image
}

fn meta(dir: &TempDir, key: &str) -> i64 {
    let conn = Connection::open(dir.path().join(DATABASE)).unwrap();
    conn.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).unwrap()
}

#[test]
fn behaves_as_a_store() {
    for (name, case) in behaviour::CASES {
        eprintln!("{name}");
        let (_dir, mut opened) = fresh();
        case(&mut opened.store, &mut opened.readers.open().unwrap());
    }
}

#[test]
fn a_second_process_is_told_who_holds_the_directory() {
    let (dir, opened) = fresh();
    let error = open(dir.path(), Durability::Full).unwrap_err();
    assert!(matches!(&error, OpenError::Locked { pid, .. } if *pid == std::process::id().to_string()), "{error}");
    let message = error.to_string();
    assert!(message.contains(dir.path().to_str().unwrap()) && message.contains(&std::process::id().to_string()));
    drop(opened);
    open(dir.path(), Durability::Full).unwrap();
}

#[test]
fn a_new_directory_is_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = TempDir::new().unwrap();
    let deep = dir.path().join("a/b");
    let _opened = open(&deep, Durability::Normal).unwrap();
    assert_eq!(fs::metadata(&deep).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn the_barrier_is_a_commit_of_every_start() {
    let (dir, opened) = fresh();
    assert_eq!((meta(&dir, "boots"), meta(&dir, "clean")), (1, 0));
    drop(opened);
    assert_eq!(meta(&dir, "clean"), 1);
    let first = open(dir.path(), Durability::Normal).unwrap();
    assert_eq!((meta(&dir, "boots"), meta(&dir, "clean")), (2, 0));
    assert_ne!(first.boot, 0);
}

#[test]
fn the_operators_choice_of_durability_comes_after_the_barrier() {
    for (durability, expected) in [(Durability::Full, 2), (Durability::Normal, 1)] {
        let dir = TempDir::new().unwrap();
        let opened = open(dir.path(), durability).unwrap();
        let conn = &opened.store.tables.conn;
        let number = |pragma: &str| conn.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(number("synchronous"), expected);
        assert_eq!((number("wal_autocheckpoint"), number("mmap_size"), number("cell_size_check")), (0, 0, 1));
    }
}

#[test]
fn a_killed_process_leaves_all_commits_and_nothing_else() {
    let (dir, mut opened) = fresh();
    write(&mut opened.store, 1, |tx| append(tx, "r", "kept"));
    opened.store.begin(Wall(2)).unwrap();
    append(opened.store.rows(), "r", "lost");
    let image = crash_image(&dir);

    let mut again = open(image.path(), Durability::Full).unwrap();
    let mut snapshots = again.readers.open().unwrap();
    snapshots.begin().unwrap();
    let events = snapshots.rows().events("r", Seq(0), 10, usize::MAX).unwrap();
    assert_eq!(events.iter().map(|event| &event.body[..]).collect::<Vec<_>>(), [b"kept"]);
    snapshots.end();
    assert_eq!(write(&mut again.store, 3, |tx| append(tx, "r", "next")), Seq(2));
}

#[test]
fn a_handle_that_was_never_dropped_does_not_hinder_the_next() {
    let (dir, mut opened) = fresh();
    write(&mut opened.store, 1, |tx| append(tx, "r", "kept"));
    // The kernel does this for a dead process.
    opened.store.lock.unlock().unwrap();
    std::mem::forget(opened);
    let mut again = open(dir.path(), Durability::Full).unwrap();
    assert_eq!(meta(&dir, "boots"), 2);
    assert_eq!(write(&mut again.store, 2, |tx| append(tx, "r", "next")), Seq(2));
}

#[test]
fn an_origin_means_something_to_the_run_that_wrote_it_only() {
    let (dir, mut opened) = fresh();
    let ours = 0x0300_0011_0000_0009;
    write(&mut opened.store, 1, |tx| {
        behaviour::append_from(tx, "r", ours);
        behaviour::append_from(tx, "r", 0)
    });
    let origins = |opened: &Opened| {
        let mut snapshots = opened.readers.open().unwrap();
        snapshots.begin().unwrap();
        let events = snapshots.rows().events("r", Seq(0), 10, usize::MAX).unwrap();
        events.iter().map(|event| event.origin).collect::<Vec<_>>()
    };
    assert_eq!(origins(&opened), [ours, 0]);
    drop(opened);
    let later = origins(&open(dir.path(), Durability::Full).unwrap());
    assert!(later[0] != ours && later[0] != 0 && later[1] == 0, "{later:x?}");
}

#[test]
fn what_is_no_store_is_not_opened() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "text").unwrap();
    assert!(matches!(open(&file, Durability::Full), Err(OpenError::NotADirectory { .. })));
    assert!(matches!(open(&file.join("below"), Durability::Full), Err(OpenError::NotADirectory { .. })));

    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join(DATABASE), "no database at all, and long enough to be asked".repeat(20)).unwrap();
    assert!(matches!(open(dir.path(), Durability::Full), Err(OpenError::Corrupt { .. })));

    let dir = TempDir::new().unwrap();
    Connection::open(dir.path().join(DATABASE)).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    assert!(matches!(open(dir.path(), Durability::Full), Err(OpenError::Foreign { .. })));

    let (dir, opened) = fresh();
    drop(opened);
    let conn = Connection::open(dir.path().join(DATABASE)).unwrap();
    conn.execute_batch("UPDATE meta SET value = 3 WHERE key = 'schema'").unwrap();
    let error = open(dir.path(), Durability::Full).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 3, .. }));
    assert!(error.to_string().contains("written by a newer commitcast (schema 3, this one knows 2)"), "{error}");
    for number in [0, -1] {
        conn.execute("UPDATE meta SET value = ?1 WHERE key = 'schema'", [number]).unwrap();
        assert!(matches!(open(dir.path(), Durability::Full), Err(OpenError::Foreign { .. })));
    }
}

/// A file as the first schema's program left it: some events, an operation, and unclean if it was killed.
fn of_schema_1(killed: bool) -> TempDir {
    let dir = TempDir::new().unwrap();
    let conn = Connection::open(dir.path().join(DATABASE)).unwrap();
    conn.pragma_update(None, "journal_mode", "WAL").unwrap();
    conn.execute_batch(SCHEMAS[0]).unwrap();
    conn.execute_batch(
        "INSERT INTO room VALUES (1, 'r', 5, 2, 1, 1);
         INSERT INTO event VALUES ((1 << 37) | 2, 'update', 'ann', NULL, 0, 7, x'6b657074');
         INSERT INTO operation VALUES (1, 1, 'ann', 'o', 0, 2, 7, x'7b7d');
         UPDATE meta SET value = 3 WHERE key = 'boots'",
    )
    .unwrap();
    conn.execute("UPDATE meta SET value = ?1 WHERE key = 'clean'", [i64::from(!killed)]).unwrap();
    dir
}

fn schema_of(dir: &TempDir) -> Vec<(String, Option<String>)> {
    let conn = Connection::open(dir.path().join(DATABASE)).unwrap();
    let mut statement = conn.prepare("SELECT name, sql FROM sqlite_schema ORDER BY name").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_file_of_schema_1_is_raised_and_loses_nothing() {
    let (new, _opened) = fresh();
    for killed in [false, true] {
        let dir = of_schema_1(killed);
        let mut opened = open(dir.path(), Durability::Full).unwrap();
        assert_eq!((meta(&dir, "schema"), meta(&dir, "boots"), meta(&dir, "fence")), (2, 4, 0));
        assert_eq!(schema_of(&dir), schema_of(&new));
        write(&mut opened.store, 8, |tx| {
            let events = tx.events("r", Seq(0), 10, usize::MAX).unwrap();
            assert_eq!((events.len(), events[0].seq, &events[0].body[..]), (1, Seq(2), &b"kept"[..]));
            assert_eq!(tx.operation("r", "ann", &OpId(Arc::from("o"))).unwrap(), Some((Seq(2), "{}".to_owned())));
            assert_eq!(append(tx, "r", "next"), Seq(3));
            tx.put_record(&record(Shelf::Job, "j", "", "")).unwrap();
            task(tx, TaskKind::Chat, "{}");
        });
        drop(opened);
        let mut again = open(dir.path(), Durability::Full).unwrap();
        assert_eq!(again.store.tables.task(TaskId(1)).unwrap().unwrap().body, "{}", "raised once");
    }
}

#[test]
fn a_file_that_cannot_be_raised_stays_as_it_was() {
    let dir = of_schema_1(false);
    let conn = Connection::open(dir.path().join(DATABASE)).unwrap();
    conn.execute_batch("CREATE TABLE task (theirs)").unwrap();
    let before = schema_of(&dir);
    assert!(open(dir.path(), Durability::Full).is_err());
    assert_eq!((meta(&dir, "schema"), schema_of(&dir)), (1, before));
    conn.execute_batch("DROP TABLE task").unwrap();
    open(dir.path(), Durability::Full).unwrap();
}

/// The texts that are handed to SQLite, wherever they stand in this folder.
fn statements() -> Vec<&'static str> {
    let sources = [
        include_str!("readers.rs"),
        include_str!("records.rs"),
        include_str!("retention.rs"),
        include_str!("tables.rs"),
        include_str!("tasks.rs"),
        include_str!("writer.rs"),
    ];
    let literals = sources.into_iter().flat_map(|source| source.split('"').skip(1).step_by(2));
    let verbs = ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "REPLACE "];
    literals.filter(|literal| verbs.iter().any(|verb| literal.starts_with(verb))).collect()
}

#[test]
fn no_statement_sorts_or_looks_at_every_row_for_some_of_them() {
    let (_dir, opened) = fresh();
    let conn = &opened.store.tables.conn;
    let all = statements();
    assert!(all.len() > 40, "{}", all.len());
    for sql in all {
        let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let details: Vec<String> =
            statement.raw_query().mapped(|row| row.get::<_, String>(3)).collect::<Result<_, _>>().unwrap();
        for detail in &details {
            assert!(!detail.contains("TEMP B-TREE"), "{sql}: {detail}");
            let partial = ["record_mark", "task_held"].iter().any(|index| detail.contains(index));
            assert!(!detail.starts_with("SCAN") || !sql.contains("WHERE") || partial, "{sql}: {detail}");
        }
        if sql.contains("ready_at <= ?2") {
            assert_eq!(details, ["SEARCH task USING COVERING INDEX task_open (kind=?)"]);
        }
    }
}

/// SQLite looks at the value of a parameter where a plan could profit (`LIMIT ?`, a column of a partial index), and then
/// prepares the statement again whenever one is bound: a seventh of the writer's time went there. `LIMIT ? + 0` is not
/// looked at.
#[test]
fn no_statement_is_prepared_twice() {
    let (_dir, mut opened) = fresh();
    opened.store.begin(Wall(1)).unwrap();
    let conn = &opened.store.tables.conn;
    for sql in statements().into_iter().filter(|sql| sql.starts_with("SELECT")) {
        let mut statement = conn.prepare(sql).unwrap();
        for value in 1..=3 {
            for parameter in 1..=statement.parameter_count() {
                statement.raw_bind_parameter(parameter, value + parameter as i64).unwrap();
            }
            let mut rows = statement.raw_query();
            while rows.next().unwrap().is_some() {}
        }
        assert_eq!(statement.get_status(rusqlite::StatementStatus::RePrepare), 0, "{sql}");
    }
    opened.store.rollback();
}

#[test]
fn a_killed_process_holds_no_task_and_its_fence_does_not_come_again() {
    let (dir, mut opened) = fresh();
    let far = Wall(i64::MAX / 2);
    let (put, fence) = write(&mut opened.store, 100, |tx| {
        let put = [(); 4].map(|()| task(tx, TaskKind::Chat, "x"));
        tx.lease_task(put[0], 5, far).unwrap();
        tx.lease_task(put[1], 0, Wall(110)).unwrap();
        tx.lease_task(put[2], 6, far).unwrap();
        tx.finish_task(put[2]).unwrap();
        (put, tx.lease_task(put[3], u64::MAX, far).unwrap().unwrap().fence)
    });
    opened.store.begin(Wall(101)).unwrap();
    let lost = task(opened.store.rows(), TaskKind::Chat, "lost");
    opened.store.rows().lease_task(lost, 7, far).unwrap();
    let image = crash_image(&dir);

    let mut again = open(image.path(), Durability::Full).unwrap();
    // The clock was set back meanwhile.
    write(&mut again.store, 3, |tx| {
        let ready = tx.ready_tasks(behaviour::every_kind(), Wall(3), 9).unwrap();
        let seen: Vec<_> = ready.iter().map(|task| (task.id, task.attempt, task.holder)).collect();
        assert_eq!(seen, [(put[0], 1, 0), (put[3], 1, 0)], "a poll's lease goes on");
        assert!(tx.task(put[2]).unwrap().unwrap().done);
        assert!(tx.lease_task(put[0], 5, far).unwrap().unwrap().fence > fence);
        assert_eq!(tx.task(lost).unwrap(), None);
    });
}

#[test]
fn finished_tasks_are_trimmed_a_page_a_call_and_open_ones_are_passed_by() {
    let (_dir, mut opened) = fresh();
    write(&mut opened.store, 1, |tx| {
        for n in 0..2 * TRIM_TASKS + 10 {
            let id = task(tx, TaskKind::Chat, "x");
            if n % 2 == 1 {
                tx.finish_task(id).unwrap();
            }
        }
    });
    let late = Wall(2 * TASK_SPAN.as_micros() as i64);
    let mut left = || {
        opened.store.tidy(late, &Retention::default(), &mut Vec::new()).unwrap();
        let sql = "SELECT count(*) FROM task";
        let count: i64 = opened.store.tables.conn.query_row(sql, [], |row| row.get(0)).unwrap();
        count as usize - (TRIM_TASKS + 5)
    };
    assert_eq!([left(), left(), left()], [TRIM_TASKS / 2 + 5, 5, 0]);
}

#[test]
fn a_damaged_page_is_found_after_an_unclean_stop() {
    let (dir, mut opened) = fresh();
    write(&mut opened.store, 1, |tx| {
        for _ in 0..200 {
            append(tx, "r", &"body".repeat(100));
        }
    });
    drop(opened);
    let path = dir.path().join(DATABASE);
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("UPDATE meta SET value = 0 WHERE key = 'clean'").unwrap();
    let page: u32 =
        conn.query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'event'", [], |row| row.get(0)).unwrap();
    drop(conn);
    let mut file = OpenOptions::new().write(true).open(&path).unwrap();
    file.seek(io::SeekFrom::Start(u64::from(page - 1) * 4096)).unwrap();
    file.write_all(&[0xa5; 4096]).unwrap();
    let error = open(dir.path(), Durability::Full).unwrap_err();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
}

#[test]
fn an_error_says_whose_fault_it_is() {
    let path = Path::new("data");
    for (number, refused) in [(3_051_002, true), (3_051_003, false), (rusqlite::version_number(), false)] {
        assert_eq!(refuse_old_library(number, "").is_err(), refused, "{number}");
    }
    for (code, words) in [
        (ffi::SQLITE_BUSY, "held by another program"),
        (ffi::SQLITE_FULL, "no space left"),
        (ffi::SQLITE_IOERR_SHMSIZE, "no space left"),
        (ffi::SQLITE_NOTADB, "damaged"),
        (ffi::SQLITE_CORRUPT, "damaged"),
        (ffi::SQLITE_READONLY, "no right to write"),
        (ffi::SQLITE_READONLY_DIRECTORY, "no right to write"),
        (ffi::SQLITE_CANTOPEN, "no right to write"),
        (ffi::SQLITE_IOERR_READ, "cannot be used"),
    ] {
        let message = blame(path, &failure(code, "")).to_string();
        assert!(message.contains(words), "{code}: {message}");
    }
    for (kind, words) in [
        (io::ErrorKind::PermissionDenied, "no right to write"),
        (io::ErrorKind::ReadOnlyFilesystem, "no right to write"),
        (io::ErrorKind::StorageFull, "no space left"),
        (io::ErrorKind::NotADirectory, "not a directory"),
        (io::ErrorKind::TimedOut, "cannot be used"),
    ] {
        let message = blame_io(path, &io::Error::from(kind)).to_string();
        assert!(message.contains(words), "{kind}: {message}");
    }
    for (code, expected) in [
        (ffi::SQLITE_BUSY, Some(RowsError::Busy)),
        (ffi::SQLITE_BUSY_SNAPSHOT, Some(RowsError::Busy)),
        (ffi::SQLITE_LOCKED, Some(RowsError::Busy)),
        (ffi::SQLITE_FULL, Some(RowsError::Full)),
        (ffi::SQLITE_IOERR, None),
        (ffi::SQLITE_IOERR_FSYNC, None),
        (ffi::SQLITE_CORRUPT, None),
        (ffi::SQLITE_NOTADB, None),
        (ffi::SQLITE_READONLY, None),
        (ffi::SQLITE_NOMEM, None),
        (ffi::SQLITE_CONSTRAINT, None),
    ] {
        let error = rows_error(&failure(code, ""));
        match expected {
            Some(expected) => assert_eq!(error, expected, "{code}"),
            None => assert!(matches!(error, RowsError::Broken(_)), "{code}: {error}"),
        }
    }
}

#[test]
fn somebody_else_who_holds_the_database_makes_it_busy_for_a_while_only() {
    let (dir, mut opened) = fresh();
    let other = Connection::open(dir.path().join(DATABASE)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(opened.store.begin(Wall(1)), Err(RowsError::Busy));
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(write(&mut opened.store, 1, |tx| append(tx, "r", "x")), Seq(1));
}

#[test]
fn a_full_disk_refuses_with_certainty_and_releases_the_ballast() {
    let (dir, mut opened) = fresh();
    let ballast = dir.path().join(BALLAST);
    assert_eq!(fs::metadata(&ballast).unwrap().len(), limits::BALLAST_BYTES);
    write(&mut opened.store, 1, |tx| append(tx, "r", "x"));

    let limit = |store: &SqliteStore, pages: i64| {
        store.tables.conn.pragma_update(None, "max_page_count", pages).unwrap();
    };
    limit(&opened.store, 1);
    opened.store.begin(Wall(2)).unwrap();
    let draft = Draft { room: RoomName::new("r"), kind: "update".into(), body: Bytes::from(vec![0; 100_000]) };
    let refused = opened.store.rows().append(draft, &Arc::from("a"), None, 0);
    assert_eq!(refused, Err(RowsError::Full));
    opened.store.rollback();
    assert!(!ballast.exists());

    limit(&opened.store, 1_000_000);
    assert_eq!(write(&mut opened.store, 3, |tx| append(tx, "r", "y")), Seq(2));
    let retention = Retention::default();
    opened.store.tidy(Wall(4), &retention, &mut Vec::new()).unwrap();
    assert!(!ballast.exists(), "taken again at once");
    opened.store.tidy(Wall(4 + 31_000_000), &retention, &mut Vec::new()).unwrap();
    assert_eq!(fs::metadata(&ballast).unwrap().len(), limits::BALLAST_BYTES);
}

/// A log that was cut off under our feet cannot be read back: the nearest to a dying disk that a test can have.
fn cut_the_log(dir: &TempDir, store: &SqliteStore) {
    store.tables.conn.execute_batch("PRAGMA shrink_memory").unwrap();
    let wal = dir.path().join(format!("{DATABASE}-wal"));
    OpenOptions::new().write(true).open(wal).unwrap().set_len(0).unwrap();
}

#[test]
fn an_io_error_at_the_commit_is_unknown_and_the_last_thing_that_happens() {
    let (dir, mut opened) = fresh();
    write(&mut opened.store, 1, |tx| append(tx, "r", "x"));
    opened.store.begin(Wall(2)).unwrap();
    append(opened.store.rows(), "r", "y");
    cut_the_log(&dir, &opened.store);
    let outcome = opened.store.commit();
    assert!(matches!(outcome, Err(CommitError::Unknown(_))), "{outcome:?}");
    assert!(matches!(opened.store.begin(Wall(3)), Err(RowsError::Broken(_))));
    assert!(matches!(opened.store.tidy(Wall(3), &Retention::default(), &mut Vec::new()), Err(RowsError::Broken(_))));
}

#[test]
fn a_latched_handle_writes_nothing_when_it_is_closed() {
    let (dir, mut opened) = fresh();
    write(&mut opened.store, 1, |tx| append(tx, "r", "x"));
    opened.store.tables.broken = Some("the test says so".to_owned());
    let files = || [DATABASE, &format!("{DATABASE}-wal")].map(|name| fs::read(dir.path().join(name)).unwrap());
    let left = files();
    drop(opened);
    assert!(files() == left);
    assert_eq!(meta(&dir, "clean"), 0);
}

#[test]
fn an_io_error_before_the_commit_is_a_certain_refusal_and_latches_too() {
    let (dir, mut opened) = fresh();
    write(&mut opened.store, 1, |tx| append(tx, "r", "x"));
    opened.store.begin(Wall(2)).unwrap();
    cut_the_log(&dir, &opened.store);
    assert!(matches!(opened.store.rows().room("r"), Err(RowsError::Broken(_))));
    let outcome = opened.store.commit();
    assert!(matches!(outcome, Err(CommitError::Refused(RowsError::Broken(_)))), "{outcome:?}");
    assert!(matches!(opened.store.begin(Wall(3)), Err(RowsError::Broken(_))));
}

#[test]
fn checkpoints_keep_the_log_short_and_a_standing_reader_loses_nothing() {
    let (dir, mut opened) = fresh();
    let wal = dir.path().join(format!("{DATABASE}-wal"));
    let length = || fs::metadata(&wal).unwrap().len();
    let body = "x".repeat(512 * 1024);
    let fill = |store: &mut SqliteStore| {
        for at in 0..48 {
            write(store, at, |tx| append(tx, "r", &body));
            store.tidy(Wall(at), &Retention::default(), &mut Vec::new()).unwrap();
        }
    };
    fill(&mut opened.store);
    assert!(length() < 2 * limits::WAL_CHECKPOINT_BYTES, "{}", length());

    let mut reader = opened.readers.open().unwrap();
    reader.begin().unwrap();
    fill(&mut opened.store);
    assert!(length() > limits::WAL_RESTART_BYTES, "{}", length());
    assert_eq!(reader.rows().room("r").unwrap().unwrap().head, Seq(48));
    reader.end();
    fill(&mut opened.store);
    assert!(length() <= limits::WAL_RESTART_BYTES + 2 * limits::WAL_CHECKPOINT_BYTES, "{}", length());
    reader.begin().unwrap();
    assert_eq!(reader.rows().events("r", Seq(0), 1000, usize::MAX).unwrap().len(), 144);
}

#[test]
fn readers_that_are_always_busy_do_not_let_the_log_grow_as_long_as_they_are() {
    let (dir, mut opened) = fresh();
    let wal = dir.path().join(format!("{DATABASE}-wal"));
    let body = "x".repeat(512 * 1024);
    write(&mut opened.store, 0, |tx| {
        for _ in 0..16 {
            append(tx, "long", &body);
        }
    });
    let done = std::sync::atomic::AtomicBool::new(false);
    let (to_two, from_one) = std::sync::mpsc::sync_channel(1);
    let (to_one, from_two) = std::sync::mpsc::sync_channel(1);
    let longest = std::thread::scope(|scope| {
        for (begun, other_has_begun) in [(to_two, from_two), (to_one, from_one)] {
            let (mut reader, done) = (opened.readers.open().unwrap(), &done);
            scope.spawn(move || {
                // Neither ends before the other has begun: there is always one that began before the last commit.
                while !done.load(std::sync::atomic::Ordering::SeqCst) {
                    reader.begin().unwrap();
                    let _ = begun.send(());
                    reader.rows().events("long", Seq(0), 1000, usize::MAX).unwrap();
                    let _ = other_has_begun.recv();
                    reader.end();
                }
            });
        }
        let mut longest = 0;
        for at in 1..=192 {
            write(&mut opened.store, at, |tx| append(tx, "r", &body));
            opened.store.tidy(Wall(at), &Retention::default(), &mut Vec::new()).unwrap();
            longest = longest.max(fs::metadata(&wal).unwrap().len());
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        longest
    });
    // On a busy machine a reader may be away for longer than a restart waits, twice.
    assert!(longest <= 4 * limits::WAL_RESTART_BYTES, "{longest}");
}

#[test]
fn trimming_is_bounded_a_call_and_goes_on_without_waiting() {
    let (_dir, mut opened) = fresh();
    let events = limits::TRIM_EVENTS + 100;
    write(&mut opened.store, 1, |tx| {
        for _ in 0..events {
            append(tx, "r", "x");
        }
    });
    let keep = Keep { pattern: "*".into(), events: Some(10), span: None };
    let retention = Retention { rules: vec![keep] };
    let floor = |opened: &mut Opened| {
        opened.store.tidy(Wall(2), &retention, &mut Vec::new()).unwrap();
        opened.store.tables.room("r").unwrap().unwrap().floor
    };
    assert_eq!(floor(&mut opened), Seq(limits::TRIM_EVENTS));
    assert_eq!(floor(&mut opened), Seq(events - 10));
}

#[test]
fn an_operation_goes_when_it_is_old_and_many_came_after_it() {
    let (_dir, mut opened) = fresh();
    let day = limits::OPERATION_SPAN.as_micros() as i64;
    write(&mut opened.store, 1, |tx| operation(tx, "r", "old"));
    let count = |store: &mut SqliteStore, now: i64| {
        store.tidy(Wall(now), &Retention::default(), &mut Vec::new()).unwrap();
        store.tables.conn.query_row("SELECT count(*) FROM operation", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!(count(&mut opened.store, 2 * day), 1, "among the newest");
    let many = "UPDATE room SET operations = operations + 99999";
    opened.store.tables.conn.execute(many, []).unwrap();
    write(&mut opened.store, 2 * day, |tx| operation(tx, "r", "new"));
    assert_eq!(count(&mut opened.store, day), 2, "not a day old");
    assert_eq!(count(&mut opened.store, 3 * day), 1);
}

#[test]
fn places_hold_their_bounds() {
    assert_eq!(place(1, 1).unwrap(), (1 << SEQ_BITS) | 1);
    assert!(place((1 << (64 - SEQ_BITS)) - 1, SEQ_MAX).is_ok());
    for (room, seq) in [(1 << (64 - SEQ_BITS), 1), (-1, 1), (1, SEQ_MAX + 1)] {
        assert_eq!(rows_error(&place(room, seq).unwrap_err()), RowsError::Full, "{room} {seq}");
    }
}

#[test]
fn an_interval_survives_a_clock_that_is_set_back() {
    let every = Duration::from_micros(10);
    for (last, now, expected) in
        [(None, 0, true), (Some(5), 14, false), (Some(5), 15, true), (Some(5), 4, true), (Some(5), 5, false)]
    {
        assert_eq!(due(last.map(Wall), Wall(now), every), expected, "{last:?} {now}");
    }
}

/// One step of a transaction, drawn from few names so that steps meet.
#[derive(Clone, Debug)]
enum Step {
    Append(u8, Vec<u8>),
    Put(u8, u8, String),
    Delete(u8, u8),
    Mark(u8, u64),
    Unmark(u8),
    Operation(u8, u8, String),
    State(u8, u64, Vec<u8>),
    Record(Record),
    Unrecord(Shelf, u8),
    Task(TaskKind, u8, Vec<u8>),
    /// The task, counted round those there are; the holder; the hours until it is ready again.
    Lease(u64, u64, i64),
    Postpone(u64, i64),
    Finish(u64),
    Release(Option<u64>),
}

const HOUR: i64 = 3_600_000_000;

fn shelf() -> impl Strategy<Value = Shelf> {
    prop_oneof![Just(Shelf::Approval), Just(Shelf::Mark)]
}

fn a_record() -> impl Strategy<Value = Record> {
    let few = || 0..3_u8;
    let due = proptest::option::of((0..40_i64).prop_map(|hours| Wall(hours * HOUR)));
    let body = proptest::collection::vec(any::<u8>(), 0..9);
    (shelf(), few(), few(), few(), due, any::<i64>(), body).prop_map(|(shelf, id, parent, state, due, at, body)| {
        Record {
            due,
            updated_at: Wall(at),
            body: body.into(),
            ..record(shelf, &id.to_string(), &parent.to_string(), &state.to_string())
        }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let few = 0..3_u8;
    prop_oneof![
        (few.clone(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(room, body)| Step::Append(room, body)),
        (few.clone(), few.clone(), any::<String>()).prop_map(|(dir, name, text)| Step::Put(dir, name, text)),
        (few.clone(), few.clone()).prop_map(|(dir, name)| Step::Delete(dir, name)),
        (few.clone(), any::<u32>()).prop_map(|(document, rev)| Step::Mark(document, rev.into())),
        few.clone().prop_map(Step::Unmark),
        (few.clone(), few.clone(), any::<String>()).prop_map(|(room, op, answer)| Step::Operation(room, op, answer)),
        (few.clone(), any::<u32>(), proptest::collection::vec(any::<u8>(), 0..9))
            .prop_map(|(room, rev, body)| Step::State(room, rev.into(), body)),
        a_record().prop_map(Step::Record),
        (shelf(), few.clone()).prop_map(|(shelf, id)| Step::Unrecord(shelf, id)),
        (proptest::sample::select(&TaskKind::ALL[..3]), few, proptest::collection::vec(any::<u8>(), 0..9))
            .prop_map(|(kind, room, body)| Step::Task(kind, room, body)),
        (0..12_u64, 0..3_u64, 0..40_i64).prop_map(|(id, holder, hours)| Step::Lease(id, holder, hours)),
        (0..12_u64, 0..40_i64).prop_map(|(id, hours)| Step::Postpone(id, hours)),
        (0..12_u64).prop_map(Step::Finish),
        proptest::option::of(0..3_u64).prop_map(Step::Release),
    ]
}

/// What the step was told.
fn take(tx: &mut dyn Transaction, step: &Step) -> String {
    let mut told = String::new();
    let id = |dir: u8, name: u8| format!("d{dir}/n{name}");
    match step {
        Step::Append(room, body) => {
            let (room, body) = (RoomName::new(&room.to_string()), Bytes::copy_from_slice(body));
            let draft = Draft { room, kind: "update".into(), body };
            tx.append(draft, &Arc::from("a"), None, 0).unwrap();
        }
        Step::Put(dir, name, text) => {
            let mut document = document(&format!("d{dir}"), &format!("n{name}"));
            document.tags = text.split('a').map(str::to_owned).collect();
            document.content = text.clone();
            tx.put_document(&document).unwrap();
        }
        Step::Delete(dir, name) => tx.delete_document(&id(*dir, *name)).unwrap(),
        Step::Mark(document, rev) => {
            let mark = FileMark { document: document.to_string(), digest: [*document; 20], rev: *rev };
            tx.put_file_mark(&mark).unwrap();
        }
        Step::Unmark(document) => tx.delete_file_mark(&document.to_string()).unwrap(),
        Step::Operation(room, op, answer) => {
            let op = OpId(Arc::from(op.to_string()));
            tx.put_operation(&RoomName::new(&room.to_string()), "a", &op, Seq(1), answer).unwrap();
        }
        Step::State(room, rev, body) => {
            let state = State { rev: *rev, seq: Seq(*rev), body: Bytes::copy_from_slice(body) };
            tx.put_state(&RoomName::new(&room.to_string()), &state).unwrap();
        }
        Step::Record(record) => tx.put_record(record).unwrap(),
        Step::Unrecord(shelf, id) => tx.delete_record(*shelf, &id.to_string()).unwrap(),
        Step::Task(kind, room, body) => {
            let room = RoomName::new(&room.to_string());
            told = format!("{:?}", tx.put_task(*kind, &room, Bytes::copy_from_slice(body)).unwrap());
        }
        Step::Lease(id, holder, hours) => {
            told = format!("{:?}", tx.lease_task(TaskId(*id), *holder, Wall(hours * HOUR)).unwrap());
        }
        Step::Postpone(id, hours) => tx.postpone_task(TaskId(*id), Wall(hours * HOUR)).unwrap(),
        Step::Finish(id) => tx.finish_task(TaskId(*id)).unwrap(),
        Step::Release(holder) => told = format!("{:?}", tx.release_tasks(*holder).unwrap()),
    }
    told
}

/// Everything that can be asked, except epochs, which are drawn.
fn all(rows: &mut dyn Rows) -> String {
    let mut seen = Vec::new();
    rows.each_document(&mut |document| {
        seen.push(format!("{document:?}"));
        true
    })
    .unwrap();
    for n in 0..3_u8 {
        let name = n.to_string();
        let room = rows.room(&name).unwrap().map(|room| (room.head, room.floor));
        seen.push(format!("{room:?} {:?}", rows.events(&name, Seq(0), 1000, usize::MAX).unwrap()));
        seen.push(format!("{:?}", rows.documents_named(&format!("n{n}")).unwrap()));
        seen.push(format!("{:?}", rows.documents_with_unique_id(&format!("d{n}_n{n}")).unwrap()));
        seen.push(format!("{:?} {:?}", rows.document(&format!("d{n}/n{n}")).unwrap(), rows.file_mark(&name).unwrap()));
        for op in 0..3_u8 {
            seen.push(format!("{:?}", rows.operation(&name, "a", &OpId(Arc::from(op.to_string()))).unwrap()));
        }
    }
    for shelf in [Shelf::Approval, Shelf::Mark] {
        for (parent, state) in [(None, None), (Some("1"), None), (None, Some("1")), (Some("1"), Some("1"))] {
            let all = rows.records(shelf, parent, state, 0, usize::MAX).unwrap();
            assert_eq!(rows.count_records(shelf, parent, state).unwrap(), all.len());
            assert_eq!(
                rows.records(shelf, parent, state, 1, 2).unwrap(),
                all.iter().skip(1).take(2).cloned().collect::<Vec<_>>()
            );
            seen.push(format!("{all:?}"));
        }
        seen.push(format!("{:?}", rows.record(shelf, "1").unwrap()));
    }
    seen.push(format!("{:?} {:?}", rows.next_due().unwrap(), rows.due(Wall(20 * HOUR), 4).unwrap()));
    let rooms = rows.rooms("", "", 100).unwrap();
    for (name, row) in &rooms {
        seen.push(format!("{name} {:?} {:?} {:?}", row.head, row.floor, rows.state(name.as_str()).unwrap()));
        assert_eq!(rows.room(name.as_str()).unwrap(), Some(*row));
    }
    seen.push(format!("{:?}", rows.rooms("1", "0", 1).unwrap().first().map(|(name, _)| name.clone())));
    seen.extend((0..100).filter_map(|id| rows.task(TaskId(id)).unwrap()).map(|task| format!("{task:?}")));
    for kinds in [behaviour::every_kind(), Tasks::only(TaskKind::Execute)] {
        seen.push(format!("{:?}", rows.ready_tasks(kinds, Wall(20 * HOUR), 3).unwrap()));
    }
    seen.join("\n")
}

/// What comes after a batch of steps.
#[derive(Clone, Copy, Debug)]
enum End {
    Commit,
    Rollback,
    /// A commit, and then a new process.
    Restart,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The simulation is worth as much as its store resembles the real one.
    #[test]
    fn both_backends_are_one_store(
        batches in proptest::collection::vec((
            proptest::collection::vec(step(), 1..16),
            prop_oneof![5 => Just(End::Commit), 2 => Just(End::Rollback), 1 => Just(End::Restart)],
        ), 1..10)
    ) {
        let (dir, mut opened) = fresh();
        let mut memory = MemoryStore::new(1, 1);
        let mut readers = (opened.readers.open().unwrap(), memory.snapshots());
        let retention = Retention { rules: vec![Keep { pattern: "1*".into(), events: Some(2), span: None }] };
        for (batch, (steps, end)) in batches.iter().enumerate() {
            let at = Wall(batch as i64 * 9 * HOUR);
            let mut seen = Vec::new();
            for store in [&mut opened.store as &mut dyn Store, &mut memory] {
                store.begin(at).unwrap();
                let told: Vec<String> = steps.iter().map(|step| take(store.rows(), step)).collect();
                seen.push(format!("{told:?}\n{}", all(store.rows())));
                if matches!(end, End::Rollback) { store.rollback() } else { store.commit().unwrap() }
                store.tidy(at, &retention, &mut Vec::new()).unwrap();
            }
            if matches!(end, End::Restart) {
                drop(readers);
                drop(opened);
                opened = open(dir.path(), Durability::Full).unwrap();
                memory = memory.reopen(2 + batch as u64);
                readers = (opened.readers.open().unwrap(), memory.snapshots());
            }
            for reader in [&mut readers.0 as &mut dyn Snapshots, &mut readers.1] {
                reader.begin().unwrap();
                seen.push(all(reader.rows()));
                reader.end();
            }
            prop_assert_eq!(&seen[0], &seen[1]);
            prop_assert_eq!(&seen[2], &seen[3]);
        }
    }
}

proptest! {
    #[test]
    fn tags_survive_whatever_they_hold(tags in proptest::collection::vec(any::<String>(), 0..6)) {
        prop_assert_eq!(read_tags(&String::from_utf8(write_tags(&tags)).unwrap()), Some(tags));
    }

    #[test]
    fn no_column_of_tags_brings_us_down(text in "[0-9]{0,3}:?.{0,8}") {
        if let Some(tags) = read_tags(&text) {
            prop_assert!(tags.iter().map(String::len).sum::<usize>() <= text.len());
        }
    }
}
