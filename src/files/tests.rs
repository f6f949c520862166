//! The scribe over real files: whatever a crash cut off is made good, and nobody's text is lost.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::dialect::{self, Env};
use crate::store::Store;
use crate::store::memory::MemoryStore;

fn apply(store: &mut MemoryStore, env: &Env, change: documents::Change) {
    store.begin(crate::clock::Wall(1)).unwrap();
    let write = Write { room: RoomName::new("doc:x"), op: None, change: Change::Documents(change) };
    dialect::apply(&write, &server(), store.rows(), env).unwrap();
    store.commit().unwrap();
}

/// Runs a scribe until it has nothing to do, and carries out what it tells the store.
fn scribe(store: &mut MemoryStore, env: &Env, root: &str, tasks: Vec<FileTask>) {
    let (mut files, inbox) = crate::mailbox::channel(16);
    let (jobs, told) = crate::mailbox::channel(16);
    for task in tasks {
        files.post(task).unwrap();
    }
    files.post(FileTask::Stop).unwrap();
    let wiring = Wiring {
        inbox,
        writers: vec![jobs],
        roots: vec![root.to_owned()],
        clock: Clock::system(),
        metrics: Arc::default(),
    };
    Scribe::new(store.snapshots(), wiring).run();
    while let Some(job) = told.take() {
        store.begin(crate::clock::Wall(1)).unwrap();
        dialect::apply(&job.write, &server(), store.rows(), env).unwrap();
        store.commit().unwrap();
    }
}

fn house() -> (tempfile::TempDir, String, Env, MemoryStore) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("prompts").to_str().unwrap().to_owned();
    fs::create_dir_all(&root).unwrap();
    fs::write(format!("{root}/a.md"), "first").unwrap();
    let env = Env { documents: documents::Env { roots: vec![root.clone()] }, ..Env::default() };
    let mut store = MemoryStore::new(1, 1);
    crate::files::load(&mut store, scan(std::slice::from_ref(&root)).files, &env, crate::clock::Wall(1)).unwrap();
    (folder, root, env, store)
}

fn delete(root: &str) -> documents::Change {
    documents::Change::Delete { id: format!("{root}/a"), asked: documents::Asked::Nobody }
}

#[test]
fn a_removal_that_a_crash_cut_off_is_made_good_at_the_next_start() {
    let (_folder, root, env, mut store) = house();
    apply(&mut store, &env, delete(&root));
    // Killed here, before the scribe's turn. The next start:
    crate::files::load(&mut store, scan(std::slice::from_ref(&root)).files, &env, crate::clock::Wall(2)).unwrap();
    scribe(&mut store, &env, &root, vec![]);
    assert!(!Path::new(&format!("{root}/a.md")).exists(), "the deleted prompt's file is still there");
}

#[test]
fn an_outside_edit_survives_the_removal_of_its_prompt() {
    let (_folder, root, env, mut store) = house();
    fs::write(format!("{root}/a.md"), "somebody's own words").unwrap();
    apply(&mut store, &env, delete(&root));
    scribe(&mut store, &env, &root, vec![FileTask::Remove { id: format!("{root}/a") }]);
    let kept: Vec<String> =
        fs::read_dir(&root).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
    assert_eq!(kept, ["somebody's own words"], "what is left of the text");
}

#[test]
fn a_late_mark_of_a_former_prompt_does_not_vouch_for_its_successor() {
    let (_folder, root, env, mut store) = house();
    let id = format!("{root}/b");
    let create = |content: &str| documents::Change::Create {
        directory: root.clone(),
        name: "b".into(),
        content: content.into(),
        description: None,
        tags: vec![],
        sanitized: None,
        asked: documents::Asked::Nobody,
    };
    apply(&mut store, &env, create("old words"));
    // The scribe writes the file; before its mark is committed the prompt is deleted and made anew.
    let (mut files, inbox) = crate::mailbox::channel(16);
    let (jobs, told) = crate::mailbox::channel(16);
    files.post(FileTask::Write { id: id.clone() }).unwrap();
    files.post(FileTask::Stop).unwrap();
    Scribe::new(
        store.snapshots(),
        Wiring {
            inbox,
            writers: vec![jobs],
            roots: vec![root.clone()],
            clock: Clock::system(),
            metrics: Arc::default(),
        },
    )
    .run();
    store.begin(crate::clock::Wall(2)).unwrap();
    for change in [documents::Change::Delete { id: id.clone(), asked: documents::Asked::Nobody }, create("new words")] {
        let write = Write { room: RoomName::new("doc:x"), op: None, change: Change::Documents(change) };
        dialect::apply(&write, &server(), store.rows(), &env).unwrap();
    }
    store.commit().unwrap();
    while let Some(job) = told.take() {
        store.begin(crate::clock::Wall(3)).unwrap();
        dialect::apply(&job.write, &server(), store.rows(), &env).unwrap();
        store.commit().unwrap();
    }
    scribe(&mut store, &env, &root, vec![FileTask::Remove { id: id.clone() }, FileTask::Write { id: id.clone() }]);
    assert_eq!(fs::read_to_string(format!("{root}/b.md")).unwrap(), "new words");
}

#[test]
fn a_deleted_prompt_does_not_come_back_when_the_crash_came_before_the_mark() {
    let (_folder, root, env, mut store) = house();
    let id = format!("{root}/a");
    apply(
        &mut store,
        &env,
        documents::Change::Update {
            id: id.clone(),
            content: Some("second".into()),
            metadata: None,
            asked: documents::Asked::Nobody,
        },
    );
    // The scribe wrote the file, the prompt was deleted meanwhile, and the process was killed before mark or removal.
    fs::write(format!("{root}/a.md"), "second").unwrap();
    apply(&mut store, &env, delete(&root));
    crate::files::load(&mut store, scan(std::slice::from_ref(&root)).files, &env, crate::clock::Wall(9)).unwrap();
    store.begin(crate::clock::Wall(10)).unwrap();
    let back = store.rows().document(&id).unwrap();
    store.rollback();
    assert_eq!(back, None, "P13: it is back");
}
