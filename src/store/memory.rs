//! The store as the simulation needs it: tables in memory, and a script of the faults that a disk has.
//!
//! A commit is the only step that changes the committed tables; before it, a transaction is a thin overlay over them. A
//! snapshot shares the tables, and only a commit that meets a live snapshot copies them.
//!
//! Never here: a clock, a random number, a thread.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash as _, Hasher as _};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::seam::{CommitError, Keep, Retention, Snapshots, Store};
use super::sqlite::{before, due};
use crate::clock::Wall;
use crate::ids::{Epoch, OpId, RoomName, Seq};
use crate::limits::{MARKS_MAX, TASK_SPAN};
use crate::limits::{OPERATION_SPAN, OPERATIONS_KEPT, TRIM_EVERY};
use crate::model::{
    Document, Draft, Event, FileMark, Record, RoomRow, Rows, RowsError, Shelf, State, Task, TaskId, TaskKind, Tasks,
    Transaction,
};
use crate::mutant::{Canary, Mutant};
use bytes::Bytes;

/// How the next commit ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    Busy,
    Full,
    /// Certain not to be stored, and nothing is written on this handle any more.
    Broken,
    /// The caller is told `Unknown`, and the handle latches. What was `stored` is seen by nobody before `recover` or
    /// `reopen`: so does a write-ahead log whose fsync failed.
    LostAnswer {
        stored: bool,
    },
}

/// The disk, as the test holds it: scripts its faults and reads what is on it.
#[derive(Clone, Debug)]
pub struct Faults(Arc<Mutex<Disk>>);

impl Faults {
    /// Adds to the script of commits; past its end they succeed.
    pub fn next_commit(&self, outcome: Outcome) {
        self.disk().script.push_back(outcome);
    }

    /// The next `times` calls of `begin` find the store busy.
    pub fn busy_begins(&self, times: u32) {
        self.disk().busy_begins = times;
    }

    /// In one of the next transactions the write after `count` others ends with `error`; what was written before is for the
    /// rollback.
    pub fn next_write(&self, count: u32, error: RowsError) {
        self.disk().writes.push_back((count, error));
    }

    /// The next snapshot that a reader wants to take ends with `error`.
    pub fn next_snapshot(&self, error: RowsError) {
        self.disk().snapshots.push_back(error);
    }

    /// The next housekeeping ends with `error`.
    pub fn next_tidy(&self, error: RowsError) {
        self.disk().tidies.push_back(error);
    }

    /// Makes this disk the part of a mutant that is the store's.
    pub fn mutate(&self, canary: Canary) {
        self.disk().canary = canary;
    }

    /// How often somebody wanted to write on a handle whose last commit had an unknown outcome.
    pub fn writes_after_unknown(&self) -> usize {
        self.disk().after_unknown
    }

    /// Ends a latch: the lost transaction, if it was stored, comes to light.
    pub fn recover(&self) {
        let mut disk = self.disk();
        disk.latched = false;
        if let Some(lost) = disk.lost.take() {
            lost.apply(Arc::make_mut(&mut disk.tables));
        }
    }

    /// What was scripted is forgotten.
    pub fn calm(&self) {
        let mut disk = self.disk();
        disk.script.clear();
        disk.writes.clear();
        disk.snapshots.clear();
        disk.tidies.clear();
        disk.busy_begins = 0;
    }

    /// A new process after a crash of the old one, whose handles are dead from now on. What was scripted is forgotten.
    pub fn reopen(&self, boot: u64) -> MemoryStore {
        self.recover();
        self.calm();
        let mut disk = self.disk();
        disk.run += 1;
        disk.boot = boot;
        Arc::make_mut(&mut disk.tables).forget_sockets();
        let run = disk.run;
        drop(disk);
        MemoryStore { disk: self.clone(), run, open: None, trimmed_at: None }
    }

    /// The committed events that retention left.
    pub fn log(&self, room: &str) -> Vec<Event> {
        let disk = self.disk();
        let stored = disk.tables.rooms.get(room).into_iter().flat_map(|room| &room.events);
        stored.map(|stored| stored.seen_by(disk.boot)).collect()
    }

    /// As [`Faults::log`], what comes after this seq.
    pub fn log_after(&self, room: &str, seq: u64) -> Vec<Event> {
        let disk = self.disk();
        let stored = disk.tables.rooms.get(room).into_iter().flat_map(|room| room.events.iter().rev());
        let mut events: Vec<Event> =
            stored.take_while(|stored| stored.event.seq.0 > seq).map(|stored| stored.seen_by(disk.boot)).collect();
        events.reverse();
        events
    }

    /// Is an event of this operation among the committed ones?
    pub fn holds(&self, room: &str, op: &str) -> bool {
        let disk = self.disk();
        let is_it = |stored: &Stored| stored.event.op.as_ref().is_some_and(|known| &*known.0 == op);
        disk.tables.rooms.get(room).is_some_and(|room| room.events.iter().any(is_it))
    }

    /// Where the room stands.
    pub fn room(&self, room: &str) -> Option<RoomRow> {
        self.disk().tables.rooms.get(room).map(|room| room.row)
    }

    /// Every committed room, by name.
    pub fn rooms(&self) -> Vec<(RoomName, RoomRow)> {
        self.disk().tables.rooms.iter().map(|(name, room)| (name.clone(), room.row)).collect()
    }

    /// A test that panicked elsewhere leaves plain values; there is nothing half done to fear.
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub struct MemoryStore {
    disk: Faults,
    run: u64,
    open: Option<View>,
    trimmed_at: Option<Wall>,
}

impl MemoryStore {
    /// An empty disk; `seed` decides the epochs of its rooms and what `random` draws.
    pub fn new(boot: u64, seed: u64) -> MemoryStore {
        let disk = Disk {
            tables: Arc::default(),
            seed,
            drawn: Arc::default(),
            boot,
            run: 0,
            latched: false,
            lost: None,
            script: VecDeque::new(),
            writes: VecDeque::new(),
            snapshots: VecDeque::new(),
            tidies: VecDeque::new(),
            busy_begins: 0,
            after_unknown: 0,
            canary: Canary::default(),
            heads: Arc::default(),
        };
        MemoryStore { disk: Faults(Arc::new(Mutex::new(disk))), run: 0, open: None, trimmed_at: None }
    }

    pub fn faults(&self) -> Faults {
        self.disk.clone()
    }

    pub fn snapshots(&self) -> MemorySnapshots {
        MemorySnapshots { disk: self.disk.clone(), run: self.run, open: None }
    }

    pub fn reopen(&self, boot: u64) -> MemoryStore {
        self.disk.reopen(boot)
    }

    pub fn log(&self, room: &str) -> Vec<Event> {
        self.disk.log(room)
    }
}

impl Store for MemoryStore {
    fn begin(&mut self, at: Wall) -> Result<(), RowsError> {
        assert!(self.open.is_none(), "begin() inside a transaction");
        let mut disk = self.disk.disk();
        disk.usable(self.run)?;
        if disk.busy_begins > 0 {
            disk.busy_begins -= 1;
            return Err(RowsError::Busy);
        }
        let fault = disk.writes.pop_front();
        self.open = Some(View { fault, ..disk.view(at) });
        Ok(())
    }

    fn rows(&mut self) -> &mut dyn Transaction {
        match &mut self.open {
            Some(view) => view,
            None => panic!("rows() outside a transaction"),
        }
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        // Our share of the committed tables goes here, so that they are changed in place.
        let Some(View { pending, .. }) = self.open.take() else { panic!("commit() outside a transaction") };
        let mut disk = self.disk.disk();
        disk.usable(self.run)?;
        match disk.script.pop_front().unwrap_or(Outcome::Ok) {
            Outcome::Ok => {
                pending.apply(Arc::make_mut(&mut disk.tables));
                Ok(())
            }
            Outcome::Busy => Err(CommitError::Refused(RowsError::Busy)),
            Outcome::Full => Err(CommitError::Refused(RowsError::Full)),
            Outcome::Broken => {
                disk.latched = true;
                Err(CommitError::Refused(RowsError::Broken("the disk is gone".to_owned())))
            }
            Outcome::LostAnswer { stored } => {
                disk.latched = true;
                disk.lost = stored.then_some(pending);
                Err(CommitError::Unknown("the answer was lost".to_owned()))
            }
        }
    }

    fn rollback(&mut self) {
        self.open = None;
    }

    fn tidy(&mut self, now: Wall, retention: &Retention, trimmed: &mut Vec<RoomName>) -> Result<(), RowsError> {
        assert!(self.open.is_none(), "tidy() inside a transaction");
        let mut disk = self.disk.disk();
        disk.usable(self.run)?;
        if let Some(error) = disk.tidies.pop_front() {
            disk.latched = matches!(error, RowsError::Broken(_));
            return Err(error);
        }
        if due(self.trimmed_at, now, TRIM_EVERY) {
            self.trimmed_at = Some(now);
            Arc::make_mut(&mut disk.tables).trim(now, retention, trimmed);
        }
        Ok(())
    }
}

#[derive(Debug)]
pub struct MemorySnapshots {
    disk: Faults,
    run: u64,
    open: Option<View>,
}

impl Snapshots for MemorySnapshots {
    fn begin(&mut self) -> Result<(), RowsError> {
        assert!(self.open.is_none(), "begin() inside a snapshot");
        let mut disk = self.disk.disk();
        disk.alive(self.run)?;
        if let Some(error) = disk.snapshots.pop_front() {
            return Err(error);
        }
        self.open = Some(disk.view(Wall(0)));
        Ok(())
    }

    fn rows(&mut self) -> &mut dyn Rows {
        match &mut self.open {
            Some(view) => view,
            None => panic!("rows() outside a snapshot"),
        }
    }

    fn end(&mut self) {
        self.open = None;
    }
}

#[derive(Debug)]
struct Disk {
    tables: Arc<Tables>,
    seed: u64,
    /// Random numbers drawn so far. Beside the tables, because a number must not come again after a rollback either.
    drawn: Arc<AtomicU64>,
    boot: u64,
    /// Counts the processes; a handle of an earlier one is dead.
    run: u64,
    latched: bool,
    /// A transaction that is stored and that nobody can see yet.
    lost: Option<Pending>,
    script: VecDeque<Outcome>,
    /// Transactions to come: after how many writes they end, and how.
    writes: VecDeque<(u32, RowsError)>,
    snapshots: VecDeque<RowsError>,
    tidies: VecDeque<RowsError>,
    busy_begins: u32,
    after_unknown: usize,
    canary: Canary,
    /// Of the mutant that allocates seqs outside of the transaction: the last one of each room.
    heads: Arc<Mutex<BTreeMap<RoomName, Seq>>>,
}

impl Disk {
    fn alive(&self, run: u64) -> Result<(), RowsError> {
        if run == self.run { Ok(()) } else { Err(RowsError::Broken("this process is dead".to_owned())) }
    }

    fn usable(&mut self, run: u64) -> Result<(), RowsError> {
        self.alive(run)?;
        if self.latched {
            self.after_unknown += 1;
            return Err(RowsError::Broken("an answer was lost".to_owned()));
        }
        Ok(())
    }

    fn view(&self, at: Wall) -> View {
        let pending = Pending { counters: self.tables.counters, ..Pending::default() };
        View {
            base: self.tables.clone(),
            pending,
            seed: self.seed,
            drawn: self.drawn.clone(),
            boot: self.boot,
            at,
            fault: None,
            outside: self.canary.is(Mutant::SeqOutsideTransaction).then(|| self.heads.clone()),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Tables {
    rooms: BTreeMap<RoomName, Room>,
    documents: BTreeMap<String, Document>,
    marks: BTreeMap<String, FileMark>,
    operations: BTreeMap<OperationKey, Operation>,
    states: BTreeMap<RoomName, State>,
    records: BTreeMap<RecordKey, Placed>,
    tasks: BTreeMap<TaskId, Kept>,
    counters: Counters,
}

type OperationKey = (RoomName, String, OpId);
type RecordKey = (Shelf, String);

/// The last numbers given.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    place: u64,
    task: u64,
    fence: u64,
}

/// A record and its place in the order of first putting.
#[derive(Clone, Debug)]
struct Placed {
    place: u64,
    record: Record,
}

#[derive(Clone, Debug)]
struct Kept {
    task: Task,
    done_at: Option<Wall>,
}

impl Kept {
    fn ready(&self, kinds: Tasks, now: Wall) -> bool {
        self.done_at.is_none() && kinds.has(self.task.kind) && self.task.ready_at <= now
    }

    fn held_by(&self, holder: Option<u64>) -> bool {
        self.done_at.is_none() && self.task.holder != 0 && holder.is_none_or(|holder| self.task.holder == holder)
    }
}

#[derive(Clone, Debug)]
struct Room {
    row: RoomRow,
    /// Ever recorded in this room.
    operations: u64,
    /// Seqs `floor + 1 ..= head`; in an overlay only the new ones.
    events: VecDeque<Stored>,
}

#[derive(Clone, Debug)]
struct Stored {
    /// The run whose connections `event.origin` numbers.
    boot: u64,
    event: Event,
}

impl Stored {
    fn seen_by(&self, boot: u64) -> Event {
        let origin = if self.boot == boot { self.event.origin } else { 0 };
        Event { origin, ..self.event.clone() }
    }
}

#[derive(Clone, Debug)]
struct Operation {
    number: u64,
    seq: Seq,
    at: Wall,
    answer: String,
}

impl Tables {
    fn trim(&mut self, now: Wall, retention: &Retention, trimmed: &mut Vec<RoomName>) {
        for (name, room) in &mut self.rooms {
            let Some(keep) = retention.rule(name.as_str()) else { continue };
            let floor = room.row.floor;
            room.trim(now, keep);
            if room.row.floor != floor {
                trimmed.push(name.clone());
            }
        }
        let (cutoff, rooms) = (before(now, OPERATION_SPAN), &self.rooms);
        self.operations.retain(|(room, ..), operation| {
            let newer = rooms.get(room).map_or(0, |room| room.operations.saturating_sub(operation.number));
            operation.at.0 >= cutoff || newer < OPERATIONS_KEPT
        });
        let cutoff = before(now, TASK_SPAN);
        self.tasks.retain(|_, kept| kept.done_at.is_none_or(|done_at| done_at.0 >= cutoff));
        self.trim_marks();
    }

    fn trim_marks(&mut self) {
        let marks = self.records.values().filter(|placed| placed.record.shelf == Shelf::Mark);
        let mut marks: Vec<_> =
            marks.map(|mark| (mark.record.updated_at, mark.place, mark.record.id.clone())).collect();
        marks.sort();
        let surplus = marks.len().saturating_sub(MARKS_MAX);
        for (.., id) in marks.into_iter().take(surplus) {
            self.records.remove(&(Shelf::Mark, id));
        }
    }

    /// No socket of the last process lives. Ready since ever: whatever this process's clock says, that is past.
    fn forget_sockets(&mut self) {
        for kept in self.tasks.values_mut().filter(|kept| kept.held_by(None)) {
            kept.task.holder = 0;
            kept.task.ready_at = Wall(0);
        }
    }
}

impl Room {
    fn trim(&mut self, now: Wall, keep: &Keep) {
        let by_count = keep.events.map_or(0, |events| self.row.head.0.saturating_sub(events));
        let cutoff = keep.span.map_or(i64::MIN, |span| before(now, span));
        while let Some(oldest) = self.events.front()
            && (oldest.event.seq.0 <= by_count || oldest.event.at.0 < cutoff)
        {
            self.row.floor = oldest.event.seq;
            self.events.pop_front();
        }
    }
}

/// What an open transaction has written; `None` is a row it deleted.
#[derive(Debug, Default)]
struct Pending {
    rooms: BTreeMap<RoomName, Room>,
    documents: BTreeMap<String, Option<Document>>,
    marks: BTreeMap<String, Option<FileMark>>,
    operations: BTreeMap<OperationKey, Operation>,
    states: BTreeMap<RoomName, State>,
    records: BTreeMap<RecordKey, Option<Placed>>,
    tasks: BTreeMap<TaskId, Kept>,
    counters: Counters,
}

impl Pending {
    fn apply(self, tables: &mut Tables) {
        for (name, mut new) in self.rooms {
            let room = tables.rooms.entry(name).or_insert_with(|| Room { events: VecDeque::new(), ..new.clone() });
            room.row = new.row;
            room.operations = new.operations;
            room.events.append(&mut new.events);
        }
        overlay(&mut tables.documents, self.documents);
        overlay(&mut tables.marks, self.marks);
        tables.operations.extend(self.operations);
        tables.states.extend(self.states);
        overlay(&mut tables.records, self.records);
        tables.tasks.extend(self.tasks);
        tables.counters = self.counters;
    }
}

fn overlay<K: Ord, T>(rows: &mut BTreeMap<K, T>, pending: BTreeMap<K, Option<T>>) {
    for (key, row) in pending {
        match row {
            Some(row) => rows.insert(key, row),
            None => rows.remove(&key),
        };
    }
}

/// Committed tables at one moment, and a transaction's writes over them (none in a snapshot).
#[derive(Debug)]
struct View {
    base: Arc<Tables>,
    pending: Pending,
    seed: u64,
    drawn: Arc<AtomicU64>,
    boot: u64,
    at: Wall,
    /// After how many writes this transaction ends, and how.
    fault: Option<(u32, RowsError)>,
    outside: Option<Arc<Mutex<BTreeMap<RoomName, Seq>>>>,
}

impl View {
    /// To be asked before each write.
    fn strike(&mut self) -> Result<(), RowsError> {
        match &mut self.fault {
            Some((0, error)) => Err(error.clone()),
            Some((left, _)) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn next_seq(&mut self, room: &RoomName) -> Seq {
        let next = self.enter_room(room).row.head.next();
        let Some(heads) = &self.outside else { return next };
        let mut heads = heads.lock().unwrap_or_else(PoisonError::into_inner);
        let head = heads.entry(room.clone()).or_default();
        *head = head.next().max(next);
        *head
    }

    fn ids(&self, wanted: impl Fn(&Document) -> bool) -> Vec<String> {
        self.documents().filter(|document| wanted(document)).map(|document| document.id.clone()).collect()
    }

    /// By ascending id.
    fn documents(&self) -> impl Iterator<Item = &Document> {
        let mut rows: BTreeMap<&String, &Document> = self.base.documents.iter().collect();
        for (id, document) in &self.pending.documents {
            match document {
                Some(document) => rows.insert(id, document),
                None => rows.remove(id),
            };
        }
        rows.into_values()
    }

    fn placed(&self, key: &RecordKey) -> Option<&Placed> {
        match self.pending.records.get(key) {
            Some(placed) => placed.as_ref(),
            None => self.base.records.get(key),
        }
    }

    /// In the order in which they were first put.
    fn records_that(&self, fit: impl Fn(&Record) -> bool) -> Vec<&Record> {
        let base = self.base.records.iter().filter(|(key, _)| !self.pending.records.contains_key(*key));
        let placed = base.map(|(_, placed)| placed).chain(self.pending.records.values().flatten());
        let mut placed: Vec<&Placed> = placed.filter(|placed| fit(&placed.record)).collect();
        placed.sort_unstable_by_key(|placed| placed.place);
        placed.into_iter().map(|placed| &placed.record).collect()
    }

    /// By ascending id.
    fn tasks_that(&self, fit: impl Fn(&Kept) -> bool) -> Vec<&Task> {
        let base = self.base.tasks.iter().filter(|(id, _)| !self.pending.tasks.contains_key(id));
        let kept = base.map(|(_, kept)| kept).chain(self.pending.tasks.values());
        let mut tasks: Vec<&Task> = kept.filter(|kept| fit(kept)).map(|kept| &kept.task).collect();
        tasks.sort_unstable_by_key(|task| task.id);
        tasks
    }

    fn kept(&self, id: TaskId) -> Option<&Kept> {
        self.pending.tasks.get(&id).or_else(|| self.base.tasks.get(&id))
    }

    /// An unfinished task, to be changed in this transaction.
    fn edit_task(&mut self, id: TaskId) -> Option<&mut Kept> {
        let kept = self.kept(id).filter(|kept| kept.done_at.is_none())?.clone();
        Some(self.pending.tasks.entry(id).insert_entry(kept).into_mut())
    }

    /// The room in this transaction; one that nobody wrote to yet is made.
    fn enter_room(&mut self, name: &RoomName) -> &mut Room {
        let View { base, pending, seed, .. } = self;
        pending.rooms.entry(name.clone()).or_insert_with(|| match base.rooms.get(name) {
            Some(room) => Room { row: room.row, operations: room.operations, events: VecDeque::new() },
            None => {
                let row = RoomRow { epoch: epoch(*seed, name), head: Seq(0), floor: Seq(0) };
                Room { row, operations: 0, events: VecDeque::new() }
            }
        })
    }
}

/// `self.base.rooms` or the pending ones, from where the names asked for begin.
fn rooms_from<'r>(
    rooms: &'r BTreeMap<RoomName, Room>,
    prefix: &'r str,
    after: &str,
) -> impl Iterator<Item = (&'r RoomName, &'r Room)> {
    let start = if after < prefix { Bound::Included(prefix) } else { Bound::Excluded(after) };
    rooms.range::<str, _>((start, Bound::Unbounded)).take_while(move |(name, _)| name.as_str().starts_with(prefix))
}

/// The `number`th random number of a seed.
fn draw(seed: u64, number: u64) -> u128 {
    let half = |half: u8| {
        let mut hasher = DefaultHasher::new();
        (seed, number, half).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

fn epoch(seed: u64, room: &RoomName) -> Epoch {
    let mut hasher = DefaultHasher::new();
    (seed, room).hash(&mut hasher);
    Epoch(hasher.finish().max(1))
}

impl Rows for View {
    fn room(&mut self, room: &str) -> Result<Option<RoomRow>, RowsError> {
        Ok(self.pending.rooms.get(room).or_else(|| self.base.rooms.get(room)).map(|room| room.row))
    }

    fn events(&mut self, room: &str, after: Seq, count: usize, bytes: usize) -> Result<Vec<Event>, RowsError> {
        let base = self.base.rooms.get(room);
        let floor = base.map_or(0, |room| room.row.floor.0);
        let skip = usize::try_from(after.0.saturating_sub(floor)).unwrap_or(usize::MAX);
        let rooms = base.into_iter().chain(self.pending.rooms.get(room));
        let mut total = 0_usize;
        let mut events = Vec::new();
        for stored in rooms.flat_map(|room| &room.events).skip(skip).take(count) {
            total = total.saturating_add(stored.event.body.len());
            if total > bytes && !events.is_empty() {
                break;
            }
            events.push(stored.seen_by(self.boot));
        }
        Ok(events)
    }

    fn document(&mut self, id: &str) -> Result<Option<Document>, RowsError> {
        Ok(match self.pending.documents.get(id) {
            Some(document) => document.clone(),
            None => self.base.documents.get(id).cloned(),
        })
    }

    fn documents_named(&mut self, name: &str) -> Result<Vec<String>, RowsError> {
        Ok(self.ids(|document| document.name == name))
    }

    fn documents_with_unique_id(&mut self, unique_id: &str) -> Result<Vec<String>, RowsError> {
        Ok(self.ids(|document| Document::unique_id(&document.directory, &document.name) == unique_id))
    }

    fn each_document(&mut self, each: &mut dyn FnMut(Document) -> bool) -> Result<(), RowsError> {
        for document in self.documents() {
            if !each(document.clone()) {
                break;
            }
        }
        Ok(())
    }

    fn file_mark(&mut self, document: &str) -> Result<Option<FileMark>, RowsError> {
        Ok(match self.pending.marks.get(document) {
            Some(mark) => mark.clone(),
            None => self.base.marks.get(document).cloned(),
        })
    }

    fn each_file_mark(&mut self, each: &mut dyn FnMut(FileMark) -> bool) -> Result<(), RowsError> {
        let mut marks = self.base.marks.clone();
        overlay(&mut marks, self.pending.marks.clone());
        for mark in marks.into_values() {
            if !each(mark) {
                break;
            }
        }
        Ok(())
    }

    fn operation(&mut self, room: &str, actor: &str, op: &OpId) -> Result<Option<(Seq, String)>, RowsError> {
        let key = (RoomName::new(room), actor.to_owned(), op.clone());
        let found = self.pending.operations.get(&key).or_else(|| self.base.operations.get(&key));
        Ok(found.map(|operation| (operation.seq, operation.answer.clone())))
    }

    fn state(&mut self, room: &str) -> Result<Option<State>, RowsError> {
        Ok(self.pending.states.get(room).or_else(|| self.base.states.get(room)).cloned())
    }

    fn rooms(&mut self, prefix: &str, after: &str, count: usize) -> Result<Vec<(RoomName, RoomRow)>, RowsError> {
        let mut rooms: BTreeMap<&RoomName, RoomRow> = BTreeMap::new();
        for named in [&self.base.rooms, &self.pending.rooms] {
            rooms.extend(rooms_from(named, prefix, after).take(count).map(|(name, room)| (name, room.row)));
        }
        Ok(rooms.into_iter().take(count).map(|(name, row)| (name.clone(), row)).collect())
    }

    fn record(&mut self, shelf: Shelf, id: &str) -> Result<Option<Record>, RowsError> {
        Ok(self.placed(&(shelf, id.to_owned())).map(|placed| placed.record.clone()))
    }

    fn records(
        &mut self,
        shelf: Shelf,
        parent: Option<&str>,
        state: Option<&str>,
        skip: usize,
        count: usize,
    ) -> Result<Vec<Record>, RowsError> {
        let records = self.records_that(|record| fits(record, shelf, parent, state));
        Ok(records.into_iter().skip(skip).take(count).cloned().collect())
    }

    fn count_records(&mut self, shelf: Shelf, parent: Option<&str>, state: Option<&str>) -> Result<usize, RowsError> {
        Ok(self.records_that(|record| fits(record, shelf, parent, state)).len())
    }

    fn due(&mut self, by: Wall, count: usize) -> Result<Vec<Record>, RowsError> {
        let mut due = self.records_that(|record| record.due.is_some_and(|due| due <= by));
        due.sort_by_key(|record| record.due);
        Ok(due.into_iter().take(count).cloned().collect())
    }

    fn next_due(&mut self) -> Result<Option<Wall>, RowsError> {
        Ok(self.records_that(|record| record.due.is_some()).iter().filter_map(|record| record.due).min())
    }

    fn task(&mut self, id: TaskId) -> Result<Option<Task>, RowsError> {
        Ok(self.kept(id).map(|kept| kept.task.clone()))
    }

    fn ready_tasks(&mut self, kinds: Tasks, now: Wall, count: usize) -> Result<Vec<Task>, RowsError> {
        let ready = self.tasks_that(|kept| kept.ready(kinds, now));
        Ok(ready.into_iter().take(count).cloned().collect())
    }
}

impl Transaction for View {
    fn at(&self) -> Wall {
        self.at
    }

    fn append(&mut self, draft: Draft, actor: &Arc<str>, op: Option<&OpId>, origin: u64) -> Result<Seq, RowsError> {
        self.strike()?;
        let (boot, at) = (self.boot, self.at);
        let seq = self.next_seq(&draft.room);
        let room = self.enter_room(&draft.room);
        room.row.head = seq;
        let (actor, op) = (actor.clone(), op.cloned());
        let event = Event { seq, kind: draft.kind, actor, op, origin, body: draft.body, at };
        room.events.push_back(Stored { boot, event });
        Ok(seq)
    }

    fn put_document(&mut self, document: &Document) -> Result<(), RowsError> {
        self.strike()?;
        self.pending.documents.insert(document.id.clone(), Some(document.clone()));
        Ok(())
    }

    fn delete_document(&mut self, id: &str) -> Result<(), RowsError> {
        self.strike()?;
        self.pending.documents.insert(id.to_owned(), None);
        Ok(())
    }

    fn put_file_mark(&mut self, mark: &FileMark) -> Result<(), RowsError> {
        self.strike()?;
        self.pending.marks.insert(mark.document.clone(), Some(mark.clone()));
        Ok(())
    }

    fn delete_file_mark(&mut self, document: &str) -> Result<(), RowsError> {
        self.strike()?;
        self.pending.marks.insert(document.to_owned(), None);
        Ok(())
    }

    /// The first answer stands, as in the other backends.
    fn put_operation(
        &mut self,
        room: &RoomName,
        actor: &str,
        op: &OpId,
        seq: Seq,
        answer: &str,
    ) -> Result<(), RowsError> {
        self.strike()?;
        if self.operation(room.as_str(), actor, op)?.is_some() {
            return Ok(());
        }
        let at = self.at;
        let entered = self.enter_room(room);
        let number = entered.operations;
        entered.operations += 1;
        let operation = Operation { number, seq, at, answer: answer.to_owned() };
        self.pending.operations.insert((room.clone(), actor.to_owned(), op.clone()), operation);
        Ok(())
    }

    fn random(&mut self) -> u128 {
        draw(self.seed, self.drawn.fetch_add(1, Ordering::Relaxed))
    }

    fn put_state(&mut self, room: &RoomName, state: &State) -> Result<(), RowsError> {
        self.strike()?;
        self.enter_room(room);
        self.pending.states.insert(room.clone(), state.clone());
        Ok(())
    }

    fn put_record(&mut self, record: &Record) -> Result<(), RowsError> {
        self.strike()?;
        let key = (record.shelf, record.id.clone());
        let place = match self.placed(&key) {
            Some(placed) => placed.place,
            None => {
                self.pending.counters.place += 1;
                self.pending.counters.place
            }
        };
        self.pending.records.insert(key, Some(Placed { place, record: record.clone() }));
        Ok(())
    }

    fn delete_record(&mut self, shelf: Shelf, id: &str) -> Result<(), RowsError> {
        self.strike()?;
        self.pending.records.insert((shelf, id.to_owned()), None);
        Ok(())
    }

    fn put_task(&mut self, kind: TaskKind, room: &RoomName, body: Bytes) -> Result<TaskId, RowsError> {
        self.strike()?;
        self.pending.counters.task += 1;
        let id = TaskId(self.pending.counters.task);
        let (at, room) = (self.at, room.clone());
        let task =
            Task { id, kind, room, body, created_at: at, attempt: 0, fence: 0, holder: 0, ready_at: at, done: false };
        self.pending.tasks.insert(id, Kept { task, done_at: None });
        Ok(id)
    }

    fn lease_task(&mut self, id: TaskId, holder: u64, until: Wall) -> Result<Option<Task>, RowsError> {
        self.strike()?;
        let fence = self.pending.counters.fence + 1;
        let Some(Kept { task, .. }) = self.edit_task(id) else { return Ok(None) };
        task.attempt = task.attempt.saturating_add(1);
        task.fence = fence;
        task.holder = holder;
        task.ready_at = until;
        let task = task.clone();
        self.pending.counters.fence = fence;
        Ok(Some(task))
    }

    fn postpone_task(&mut self, id: TaskId, ready_at: Wall) -> Result<(), RowsError> {
        self.strike()?;
        if let Some(Kept { task, .. }) = self.edit_task(id) {
            task.holder = 0;
            task.ready_at = ready_at;
        }
        Ok(())
    }

    fn finish_task(&mut self, id: TaskId) -> Result<(), RowsError> {
        self.strike()?;
        let at = self.at;
        if let Some(Kept { task, done_at }) = self.edit_task(id) {
            task.done = true;
            task.holder = 0;
            task.body = Bytes::new();
            *done_at = Some(at);
        }
        Ok(())
    }

    fn release_tasks(&mut self, holder: Option<u64>) -> Result<Tasks, RowsError> {
        self.strike()?;
        let held: Vec<(TaskId, TaskKind)> =
            self.tasks_that(|kept| kept.held_by(holder)).iter().map(|task| (task.id, task.kind)).collect();
        for (id, _) in &held {
            self.postpone_task(*id, self.at)?;
        }
        Ok(held.into_iter().map(|(_, kind)| kind).collect())
    }
}

fn fits(record: &Record, shelf: Shelf, parent: Option<&str>, state: Option<&str>) -> bool {
    record.shelf == shelf
        && parent.is_none_or(|parent| record.parent == parent)
        && state.is_none_or(|state| record.state == state)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::store::behaviour::{CASES, append, append_from, operation, read, write};

    #[test]
    fn behaves_as_a_store() {
        for (name, case) in CASES {
            eprintln!("{name}");
            let mut store = MemoryStore::new(1, 7);
            let mut snapshots = store.snapshots();
            case(&mut store, &mut snapshots);
        }
    }

    #[test]
    fn a_refused_commit_leaves_nothing_and_the_next_one_succeeds() {
        let mut store = MemoryStore::new(1, 7);
        for (outcome, error) in [(Outcome::Busy, RowsError::Busy), (Outcome::Full, RowsError::Full)] {
            store.faults().next_commit(outcome);
            store.begin(Wall(1)).unwrap();
            append(store.rows(), "r", "x");
            assert_eq!(store.commit(), Err(CommitError::Refused(error)));
            assert_eq!(store.log("r"), []);
        }
        assert_eq!(write(&mut store, 2, |tx| append(tx, "r", "y")), Seq(1));
    }

    #[test]
    fn a_script_is_followed_in_order() {
        let mut store = MemoryStore::new(1, 7);
        store.faults().next_commit(Outcome::Ok);
        store.faults().next_commit(Outcome::Busy);
        write(&mut store, 1, |tx| append(tx, "r", "x"));
        store.begin(Wall(1)).unwrap();
        assert_eq!(store.commit(), Err(CommitError::Refused(RowsError::Busy)));
    }

    #[test]
    fn a_lost_answer_latches_and_comes_to_light_later() {
        for stored in [true, false] {
            let mut store = MemoryStore::new(1, 7);
            let (faults, mut snapshots) = (store.faults(), store.snapshots());
            faults.next_commit(Outcome::LostAnswer { stored });
            store.begin(Wall(1)).unwrap();
            append(store.rows(), "r", "x");
            assert!(matches!(store.commit(), Err(CommitError::Unknown(_))));
            assert!(matches!(store.begin(Wall(2)), Err(RowsError::Broken(_))));
            assert!(matches!(store.tidy(Wall(2), &Retention::default(), &mut Vec::new()), Err(RowsError::Broken(_))));
            assert_eq!(read(&mut snapshots, |rows| rows.room("r").unwrap()), None, "invisible until then");
            faults.recover();
            assert_eq!(store.log("r").len(), usize::from(stored));
            assert_eq!(write(&mut store, 3, |tx| append(tx, "r", "y")), Seq(1 + u64::from(stored)));
        }
    }

    #[test]
    fn a_write_that_fails_leaves_its_transaction_to_the_rollback() {
        let mut store = MemoryStore::new(1, 7);
        store.faults().next_write(1, RowsError::Full);
        store.begin(Wall(1)).unwrap();
        append(store.rows(), "r", "x");
        let draft = Draft { room: RoomName::new("r"), kind: "x".into(), body: Bytes::new() };
        assert_eq!(store.rows().append(draft, &"a".into(), None, 0), Err(RowsError::Full));
        store.rollback();
        assert_eq!(store.log("r"), []);
        assert_eq!(write(&mut store, 2, |tx| append(tx, "r", "y")), Seq(1), "the next one is whole");
    }

    #[test]
    fn readers_and_housekeeping_fail_once_when_they_are_told_to() {
        let mut store = MemoryStore::new(1, 7);
        let (faults, mut snapshots) = (store.faults(), store.snapshots());
        faults.next_snapshot(RowsError::Busy);
        assert_eq!(snapshots.begin(), Err(RowsError::Busy));
        assert_eq!(snapshots.begin(), Ok(()));
        faults.next_tidy(RowsError::Full);
        let mut tidy = || store.tidy(Wall(1), &Retention::default(), &mut Vec::new());
        assert_eq!((tidy(), tidy()), (Err(RowsError::Full), Ok(())));
    }

    #[test]
    fn who_writes_on_after_a_commit_that_broke_is_counted() {
        let mut store = MemoryStore::new(1, 7);
        store.faults().next_commit(Outcome::Broken);
        store.begin(Wall(1)).unwrap();
        append(store.rows(), "r", "x");
        assert!(matches!(store.commit(), Err(CommitError::Refused(RowsError::Broken(_)))));
        assert_eq!(store.faults().writes_after_unknown(), 0);
        assert!(store.begin(Wall(2)).is_err());
        assert_eq!((store.faults().writes_after_unknown(), store.log("r")), (1, Vec::new()));
    }

    #[test]
    fn a_busy_begin_passes() {
        let mut store = MemoryStore::new(1, 7);
        store.faults().busy_begins(2);
        assert_eq!(store.begin(Wall(1)), Err(RowsError::Busy));
        assert_eq!(store.begin(Wall(1)), Err(RowsError::Busy));
        assert_eq!(store.begin(Wall(1)), Ok(()));
    }

    #[test]
    fn a_new_process_finds_what_was_committed_and_the_old_one_is_dead() {
        let mut old = MemoryStore::new(1, 7);
        let mut old_snapshots = old.snapshots();
        write(&mut old, 1, |tx| append_from(tx, "r", 42));
        assert_eq!(old.log("r")[0].origin, 42);
        let rooms = old.faults().rooms();
        old.faults().next_commit(Outcome::LostAnswer { stored: true });
        old.begin(Wall(2)).unwrap();
        append(old.rows(), "r", "found");
        assert!(old.commit().is_err());

        let mut new = old.reopen(2);
        assert!(matches!(old.begin(Wall(3)), Err(RowsError::Broken(_))));
        assert!(matches!(old_snapshots.begin(), Err(RowsError::Broken(_))));
        let log = new.log("r");
        assert_eq!(log.iter().map(|event| (event.seq.0, event.origin)).collect::<Vec<_>>(), [(1, 0), (2, 0)]);
        assert_eq!(new.faults().rooms()[0].1.epoch, rooms[0].1.epoch);
        assert_eq!(write(&mut new, 4, |tx| append(tx, "r", "z")), Seq(3));
    }

    #[test]
    fn a_transaction_of_a_dead_process_is_not_committed() {
        let mut old = MemoryStore::new(1, 7);
        old.begin(Wall(1)).unwrap();
        append(old.rows(), "r", "x");
        let new = old.reopen(2);
        assert!(matches!(old.commit(), Err(CommitError::Refused(RowsError::Broken(_)))));
        assert_eq!(new.log("r"), []);
    }

    #[test]
    fn the_seed_decides_the_epochs() {
        let epochs = |seed| {
            let mut store = MemoryStore::new(1, seed);
            write(&mut store, 1, |tx| {
                append(tx, "a", "");
                append(tx, "b", "");
            });
            store.faults().rooms()
        };
        assert_eq!(epochs(7), epochs(7));
        assert_ne!(epochs(7), epochs(8));
    }

    #[test]
    fn an_operation_goes_when_it_is_old_and_many_came_after_it() {
        let mut store = MemoryStore::new(1, 7);
        let day = OPERATION_SPAN.as_micros() as i64;
        write(&mut store, 1, |tx| operation(tx, "r", "old"));
        let count = |store: &mut MemoryStore, now: i64| {
            store.tidy(Wall(now), &Retention::default(), &mut Vec::new()).unwrap();
            store.disk.disk().tables.operations.len()
        };
        assert_eq!(count(&mut store, 2 * day), 1, "among the newest");
        for room in Arc::make_mut(&mut store.disk.disk().tables).rooms.values_mut() {
            room.operations += OPERATIONS_KEPT - 1;
        }
        write(&mut store, 2 * day, |tx| operation(tx, "r", "new"));
        assert_eq!(count(&mut store, day), 2, "not a day old");
        assert_eq!(count(&mut store, 3 * day), 1);
    }
}
