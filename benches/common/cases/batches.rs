//! The writer over SQLite: jobs in, one transaction, framed events and answers out.
//!
//! `full` waits for the disk at each commit, and is timed only; `normal` shows the code without the disk.

use std::sync::Arc;

use commitcast::clock::{Clock, Mono, Wall};
use commitcast::dialect::{Env, Name};
use commitcast::directory::Directory;
use commitcast::files;
use commitcast::store::sqlite::{self, Durability};

use super::{Case, Run, case, timed};
use crate::common::house::{DOCUMENTS, NOW, documents};
use crate::common::talk;
use crate::common::writer::Writer;

pub const CASES: &[Case] = &[
    case("batch/1_normal", 1, 50, || batch(1, Durability::Normal)),
    case("batch/16_normal", 16, 20, || batch(16, Durability::Normal)),
    case("batch/128_normal", 128, 5, || batch(128, Durability::Normal)),
    timed("batch/1_full", 1, || batch(1, Durability::Full)),
    timed("batch/16_full", 16, || batch(16, Durability::Full)),
    timed("batch/128_full", 128, || batch(128, Durability::Full)),
];

const _: () = assert!(DOCUMENTS >= 128, "each edit of a batch is of a document of its own");

/// So many edits of 256 bytes, each of another document in whose room somebody listens, in one transaction.
fn batch(size: usize, durability: Durability) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let directory = Arc::new(Directory::default());
    let env = Arc::new(Env { directory: directory.clone(), ..Env::default() });
    let clock = Clock::manual(Mono(1), Wall(NOW));
    let mut store = sqlite::open(folder.path(), durability).unwrap().store;
    files::load(&mut store, documents(), &env, clock.wall()).unwrap();
    for number in 0..size {
        let _receipt = directory.enter(&talk::document_room(number), 0, Name::Documents.bit());
    }
    let mut writer = Writer::new(store, env, directory, clock);
    let texts: Vec<String> = (0..size).map(talk::update).collect();
    let mut run = move || {
        let _kept = &folder;
        let jobs = texts.iter().enumerate().map(|(number, text)| {
            let conn = commitcast::ids::ConnId { reactor: 0, slot: number as u32, generation: 1 };
            talk::job(Name::Documents, text, number, Some(conn))
        });
        writer.commit(jobs.collect())
    };
    let told = run();
    assert_eq!(told.len(), 1, "one commit is one delivery");
    Box::new(move || {
        run();
    })
}
