//! The writer: drains a batch, runs it in one transaction, commits, and only then lets anything go.
//!
//! ```text
//! turn: admit ─▶ take_batch ─▶ begin ─▶ apply each ─▶ commit ──ok──▶ release: seal, frame, post, ring
//!                    │            │busy                 │refused ──▶ every job: certainly not stored
//!                    └────────────┘ (held, tried again)  └unknown ──▶ every job: unknown; nothing is written any more
//! ```
//!
//! Redis makes the log durable and then writes the replies, as two adjacent calls; this file is those two calls.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::queue::Queue;
use super::{Answer, CommitError, Committed, Delivery, Job, Pulse, Push, Retention, Store};
use crate::backlog::Backlog;
use crate::clock::{Clock, Mono, Wall};
use crate::dialect::{self, Applied, Env, Failure, FileTask, First, Signal};
use crate::directory::Directory;
use crate::ids::{OpId, RoomName, Seq};
use crate::limits::{BATCH_OPS_MAX, STORE_MAILBOX};
use crate::mailbox::{Inbox, Mailbox};
use crate::metrics::Metrics;
use crate::model::{
    Document, Draft, Event, FileMark, Record, RoomRow, Rows, RowsError, Shelf, State, Task, TaskId, TaskKind, Tasks,
    Transaction,
};

/// How long a batch is tried again while somebody else holds the database, before its jobs are refused as busy. Less than
/// `limits.answer`, or the reactors would give up on the answer and close sockets over what is certain.
const BUSY_PATIENCE: Duration = Duration::from_secs(3);
const BUSY_PAUSE: Duration = Duration::from_millis(5);
/// Housekeeping happens at the latest this long after the last write.
const IDLE_TIDY: Duration = Duration::from_millis(500);

/// What a worker needs beside its store.
#[derive(Debug)]
pub struct Wiring<I> {
    pub inbox: Inbox<Job>,
    pub reactors: Vec<Mailbox<I>>,
    /// Where Markdown files are written back; a full queue is made good by its owner's own comparison.
    pub files: Option<Mailbox<FileTask>>,
    pub directory: Arc<Directory>,
    pub env: Arc<Env>,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub pulse: Arc<Pulse>,
    pub backlog: Arc<Backlog>,
    pub retention: Arc<ArcSwap<Retention>>,
}

#[derive(Debug)]
pub struct Worker<S, I> {
    store: S,
    wiring: Wiring<I>,
    queue: Queue,
    /// A batch that met a busy database, and since when.
    held: Option<(Vec<Job>, Mono)>,
    broken: bool,
    /// The reactors know that it is broken.
    told: bool,
    #[cfg(feature = "canary")]
    canary: bool,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Idle,
    Worked,
    /// The database was busy: the batch is held for the next turn.
    Busy,
    /// Nothing can be written any more.
    Broken,
}

impl<S: Store, I: From<Delivery> + Send> Worker<S, I> {
    pub fn new(store: S, wiring: Wiring<I>) -> Worker<S, I> {
        Worker {
            store,
            wiring,
            queue: Queue::default(),
            held: None,
            broken: false,
            told: false,
            #[cfg(feature = "canary")]
            canary: false,
        }
    }

    /// Breaks the commit gate on purpose: frames are posted before the commit. The simulation must notice.
    #[cfg(feature = "canary")]
    pub fn break_the_commit_gate(&mut self) {
        self.canary = true;
    }

    /// Works until every sender is gone or the store has broken; in both cases every job taken was answered.
    pub fn run(mut self) -> Ending {
        loop {
            match self.turn() {
                Turn::Worked => {}
                Turn::Busy => std::thread::sleep(BUSY_PAUSE),
                Turn::Idle => match self.wiring.inbox.wait(IDLE_TIDY) {
                    Ok(Some(job)) => self.queue.push(job),
                    Ok(None) => self.tidy(),
                    Err(_) => {
                        self.tidy();
                        return Ending::Drained;
                    }
                },
                Turn::Broken => {
                    // The reactors still need their answers: refuse until they have gone.
                    while let Ok(job) = self.wiring.inbox.wait(IDLE_TIDY) {
                        if let Some(job) = job {
                            self.fail(vec![job], Failure::Broken);
                        }
                    }
                    return Ending::Broken;
                }
            }
        }
    }

    /// One batch at most. Never waits.
    pub fn turn(&mut self) -> Turn {
        self.admit();
        if self.broken {
            return self.refuse_the_rest();
        }
        let (batch, since) = match self.held.take() {
            Some(held) => held,
            None => (self.queue.take_batch(), self.wiring.clock.mono()),
        };
        if batch.is_empty() {
            return Turn::Idle;
        }
        match self.transact(batch, since) {
            Turn::Broken => self.refuse_the_rest(),
            turn => turn,
        }
    }

    /// Whoever waits is answered before the reactors are told to close everybody, also when nobody waits: it may have been
    /// the housekeeping that failed.
    fn refuse_the_rest(&mut self) -> Turn {
        let refused = self.queue.drain();
        self.fail(refused, Failure::Broken);
        if !std::mem::replace(&mut self.told, true) {
            for mailbox in &mut self.wiring.reactors {
                mailbox.post_or_wait(I::from(Delivery::Broken));
                mailbox.ring();
            }
        }
        Turn::Broken
    }

    fn admit(&mut self) {
        while self.queue.len() < STORE_MAILBOX {
            let Some(job) = self.wiring.inbox.take() else { break };
            self.queue.push(job);
        }
    }

    fn transact(&mut self, batch: Vec<Job>, since: Mono) -> Turn {
        let started = self.wiring.clock.mono();
        self.wiring.pulse.begin(started);
        let turn = self.transact_since(batch, since, started);
        self.wiring.pulse.end();
        turn
    }

    fn transact_since(&mut self, batch: Vec<Job>, since: Mono, started: Mono) -> Turn {
        let at = self.wiring.clock.wall();
        let outcome = match self.carry_out(&batch, at) {
            Ok(done) => {
                #[cfg(feature = "canary")]
                if self.canary {
                    self.post_committed(&done.appended);
                }
                let committed = self.store.commit();
                self.wiring.pulse.end();
                committed.map(|()| done)
            }
            Err(error) => Err(CommitError::Refused(error)),
        };
        match outcome {
            Ok(done) => {
                self.wiring.metrics.batch_operations.observe(batch.len() as f64);
                self.wiring.metrics.operations.inc_by(batch.len() as u64);
                let took = self.wiring.clock.mono().since(started);
                self.wiring.metrics.commit_seconds.observe(took.as_secs_f64());
                self.release(batch, done);
                self.tidy();
                Turn::Worked
            }
            Err(CommitError::Refused(error)) => {
                self.store.rollback();
                self.refused(batch, since, error)
            }
            Err(CommitError::Unknown(why)) => {
                log::error!(
                    "the outcome of a commit of {} operations is unknown: {why}; nothing more is written",
                    batch.len()
                );
                self.break_down();
                self.fail(batch, Failure::Unknown);
                Turn::Broken
            }
        }
    }

    /// Runs every job's code in one open transaction.
    fn carry_out(&mut self, batch: &[Job], at: Wall) -> Result<Done, RowsError> {
        self.store.begin(at)?;
        let mut done = Done { applied: Vec::with_capacity(batch.len()), appended: Vec::with_capacity(batch.len()) };
        for job in batch {
            let mut recorder = Recorder { rows: self.store.rows(), appended: &mut done.appended };
            done.applied.push(carry_out_one(job, &mut recorder, &self.wiring.env)?);
        }
        Ok(done)
    }

    /// After the commit, and nowhere else: what the batch has to say goes out.
    fn release(&mut self, batch: Vec<Job>, done: Done) {
        let mut out = self.outgoing();
        self.seal(&done.appended, &mut out);
        let mut files = Vec::new();
        let mut signals = Vec::new();
        for (job, applied) in batch.into_iter().zip(done.applied) {
            self.wiring.backlog.release(job.charged);
            if let Some(to) = job.to
                && let Some(delivery) = out.get_mut(usize::from(to.reactor))
            {
                delivery.answers.push(Answer { to, reply: applied.reply });
            }
            signals.extend(applied.signals);
            files.extend(applied.files);
        }
        self.signal(signals, &mut out);
        self.post(out);
        if let Some(mailbox) = &mut self.wiring.files {
            for task in files {
                // A full queue loses nothing: the writer compares revisions on its own (files/).
                let _ = mailbox.post(task);
            }
            mailbox.ring();
        }
    }

    fn seal(&self, appended: &[(RoomName, Event)], out: &mut [Outgoing]) {
        let audiences = self.wiring.directory.audiences(appended.iter().map(|(room, _)| room));
        for ((room, event), audience) in appended.iter().zip(audiences) {
            if audience.is_empty() {
                continue;
            }
            let committed = Committed::seal(room, event, audience.dialects);
            for reactor in audience.reactors() {
                if let Some(delivery) = out.get_mut(reactor) {
                    delivery.committed.push(committed.clone());
                }
            }
        }
    }

    fn signal(&self, signals: Vec<Signal>, out: &mut [Outgoing]) {
        if signals.is_empty() {
            return;
        }
        let audiences = self.wiring.directory.audiences(signals.iter().map(|signal| &signal.room));
        for (signal, audience) in signals.into_iter().zip(audiences) {
            for reactor in audience.reactors() {
                if let Some(delivery) = out.get_mut(reactor) {
                    delivery.signals.push(signal.clone());
                }
            }
        }
    }

    #[cfg(feature = "canary")]
    fn post_committed(&mut self, appended: &[(RoomName, Event)]) {
        let mut out = self.outgoing();
        self.seal(appended, &mut out);
        self.post(out);
    }

    fn outgoing(&self) -> Vec<Outgoing> {
        self.wiring.reactors.iter().map(|_| Outgoing::default()).collect()
    }

    fn post(&mut self, out: Vec<Outgoing>) {
        for (mailbox, delivery) in self.wiring.reactors.iter_mut().zip(out) {
            let Outgoing { committed, signals, answers, pushes } = delivery;
            if committed.is_empty() && signals.is_empty() && answers.is_empty() && pushes.is_empty() {
                continue;
            }
            mailbox.post_or_wait(I::from(Delivery::Batch { committed, signals, answers, pushes }));
            mailbox.ring();
        }
    }

    fn refused(&mut self, batch: Vec<Job>, since: Mono, error: RowsError) -> Turn {
        match error {
            RowsError::Busy if self.wiring.clock.mono().since(since) < BUSY_PATIENCE => {
                self.held = Some((batch, since));
                Turn::Busy
            }
            RowsError::Busy => {
                self.fail(batch, Failure::Busy);
                Turn::Worked
            }
            RowsError::Full if batch.len() > 1 => self.one_by_one(batch, since),
            RowsError::Full => {
                log::error!("the store is full: an operation was refused");
                self.fail(batch, Failure::Full);
                self.tidy();
                Turn::Worked
            }
            RowsError::Broken(why) => {
                log::error!("the store failed: {why}; nothing more is written");
                self.break_down();
                self.fail(batch, Failure::Broken);
                Turn::Broken
            }
        }
    }

    /// There was no space for the whole batch. For some of it there may be, and a resend of what is stored needs none: each
    /// is told its own truth. Refusing them all would call a stored operation refused.
    fn one_by_one(&mut self, batch: Vec<Job>, since: Mono) -> Turn {
        let mut jobs = batch.into_iter();
        while let Some(job) = jobs.next() {
            match self.transact(vec![job], since) {
                Turn::Worked | Turn::Idle => {}
                Turn::Busy => {
                    if let Some((held, _)) = &mut self.held {
                        held.extend(jobs);
                    }
                    return Turn::Busy;
                }
                Turn::Broken => {
                    self.fail(jobs.collect(), Failure::Broken);
                    return Turn::Broken;
                }
            }
        }
        Turn::Worked
    }

    fn break_down(&mut self) {
        if !std::mem::replace(&mut self.broken, true) {
            self.wiring.metrics.store_fatal.inc();
        }
    }

    fn fail(&mut self, batch: Vec<Job>, failure: Failure) {
        if batch.is_empty() {
            return;
        }
        let mut out = self.outgoing();
        for job in batch {
            self.wiring.backlog.release(job.charged);
            self.wiring.metrics.operation_refused(failure.reason().row().name);
            if let Some(to) = job.to
                && let Some(delivery) = out.get_mut(usize::from(to.reactor))
            {
                delivery.answers.push(Answer { to, reply: dialect::failed(&job.write, failure) });
            }
        }
        self.post(out);
    }

    fn tidy(&mut self) {
        if self.broken {
            return;
        }
        let retention = self.wiring.retention.load();
        match self.store.tidy(self.wiring.clock.wall(), &retention) {
            Ok(()) | Err(RowsError::Busy | RowsError::Full) => {}
            Err(RowsError::Broken(why)) => {
                log::error!("the store failed while tidying: {why}; nothing more is written");
                self.break_down();
            }
        }
    }
}

/// Why a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Drained,
    Broken,
}

/// A batch carried out but not yet committed: still nobody's business.
#[derive(Debug)]
struct Done {
    applied: Vec<Applied>,
    appended: Vec<(RoomName, Event)>,
}

#[derive(Debug, Default)]
struct Outgoing {
    committed: Vec<Committed>,
    signals: Vec<Signal>,
    answers: Vec<Answer>,
    pushes: Vec<Push>,
}

fn carry_out_one(job: &Job, rows: &mut Recorder<'_>, env: &Env) -> Result<Applied, RowsError> {
    let write = &*job.write;
    let Some(op) = &write.op else {
        return dialect::apply(write, &job.asker, rows, env);
    };
    if let Some((seq, answer)) = rows.operation(write.room.as_str(), &job.asker.actor, op)? {
        // Two tabs that number their edits alike are one user to us: the second one's edit is not the first one's.
        return Ok(Applied::only(match first(&answer) {
            Some((at, print, note)) if print == dialect::fingerprint(write) => {
                dialect::repeated(write, First { seq, at, note })
            }
            _ => dialect::id_taken(write),
        }));
    }
    let before = rows.appended.len();
    let applied = dialect::apply(write, &job.asker, rows, env)?;
    // A refused operation appended nothing; its id stays free, so that the corrected resend is not taken for a repeat.
    let own = rows.appended.iter().skip(before).find(|(room, _)| *room == write.room).map(|(_, event)| event.seq);
    if let Some(seq) = own {
        let answer = format!("{} {:016x} {}", rows.at().0, dialect::fingerprint(write), applied.note);
        rows.put_operation(&write.room, &job.asker.actor, op, seq, &answer)?;
    }
    Ok(applied)
}

/// A recorded answer: `at fingerprint note`. Before schema 2 there was no note.
fn first(answer: &str) -> Option<(Wall, u64, &str)> {
    let (at, rest) = answer.split_once(' ')?;
    let (print, note) = rest.split_once(' ').unwrap_or((rest, ""));
    Some((Wall(at.parse().ok()?), u64::from_str_radix(print, 16).ok()?, note))
}

/// Passes everything to the open transaction and remembers what was appended, in order.
struct Recorder<'a> {
    rows: &'a mut dyn Transaction,
    appended: &'a mut Vec<(RoomName, Event)>,
}

impl Rows for Recorder<'_> {
    fn room(&mut self, room: &str) -> Result<Option<RoomRow>, RowsError> {
        self.rows.room(room)
    }

    fn events(&mut self, room: &str, after: Seq, count: usize, bytes: usize) -> Result<Vec<Event>, RowsError> {
        self.rows.events(room, after, count, bytes)
    }

    fn document(&mut self, id: &str) -> Result<Option<Document>, RowsError> {
        self.rows.document(id)
    }

    fn documents_named(&mut self, name: &str) -> Result<Vec<String>, RowsError> {
        self.rows.documents_named(name)
    }

    fn documents_with_unique_id(&mut self, unique_id: &str) -> Result<Vec<String>, RowsError> {
        self.rows.documents_with_unique_id(unique_id)
    }

    fn each_document(&mut self, each: &mut dyn FnMut(Document) -> bool) -> Result<(), RowsError> {
        self.rows.each_document(each)
    }

    fn file_mark(&mut self, document: &str) -> Result<Option<FileMark>, RowsError> {
        self.rows.file_mark(document)
    }

    fn each_file_mark(&mut self, each: &mut dyn FnMut(FileMark) -> bool) -> Result<(), RowsError> {
        self.rows.each_file_mark(each)
    }

    fn operation(&mut self, room: &str, actor: &str, op: &OpId) -> Result<Option<(Seq, String)>, RowsError> {
        self.rows.operation(room, actor, op)
    }

    fn state(&mut self, room: &str) -> Result<Option<State>, RowsError> {
        self.rows.state(room)
    }

    fn rooms(&mut self, prefix: &str, after: &str, count: usize) -> Result<Vec<(RoomName, RoomRow)>, RowsError> {
        self.rows.rooms(prefix, after, count)
    }

    fn record(&mut self, shelf: Shelf, id: &str) -> Result<Option<Record>, RowsError> {
        self.rows.record(shelf, id)
    }

    fn records(
        &mut self,
        shelf: Shelf,
        parent: Option<&str>,
        state: Option<&str>,
        skip: usize,
        count: usize,
    ) -> Result<Vec<Record>, RowsError> {
        self.rows.records(shelf, parent, state, skip, count)
    }

    fn count_records(&mut self, shelf: Shelf, parent: Option<&str>, state: Option<&str>) -> Result<usize, RowsError> {
        self.rows.count_records(shelf, parent, state)
    }

    fn due(&mut self, by: Wall, count: usize) -> Result<Vec<Record>, RowsError> {
        self.rows.due(by, count)
    }

    fn next_due(&mut self) -> Result<Option<Wall>, RowsError> {
        self.rows.next_due()
    }

    fn task(&mut self, id: TaskId) -> Result<Option<Task>, RowsError> {
        self.rows.task(id)
    }

    fn ready_tasks(&mut self, kinds: Tasks, now: Wall, count: usize) -> Result<Vec<Task>, RowsError> {
        self.rows.ready_tasks(kinds, now, count)
    }
}

impl Transaction for Recorder<'_> {
    fn at(&self) -> Wall {
        self.rows.at()
    }

    fn append(&mut self, draft: Draft, actor: &Arc<str>, op: Option<&OpId>, origin: u64) -> Result<Seq, RowsError> {
        let seq = self.rows.append(draft.clone(), actor, op, origin)?;
        let event = Event {
            seq,
            kind: draft.kind,
            actor: actor.clone(),
            op: op.cloned(),
            origin,
            body: draft.body,
            at: self.rows.at(),
        };
        self.appended.push((draft.room, event));
        Ok(seq)
    }

    fn put_document(&mut self, document: &Document) -> Result<(), RowsError> {
        self.rows.put_document(document)
    }

    fn delete_document(&mut self, id: &str) -> Result<(), RowsError> {
        self.rows.delete_document(id)
    }

    fn put_file_mark(&mut self, mark: &FileMark) -> Result<(), RowsError> {
        self.rows.put_file_mark(mark)
    }

    fn delete_file_mark(&mut self, document: &str) -> Result<(), RowsError> {
        self.rows.delete_file_mark(document)
    }

    fn put_operation(
        &mut self,
        room: &RoomName,
        actor: &str,
        op: &OpId,
        seq: Seq,
        answer: &str,
    ) -> Result<(), RowsError> {
        self.rows.put_operation(room, actor, op, seq, answer)
    }

    fn random(&mut self) -> u128 {
        self.rows.random()
    }

    fn put_state(&mut self, room: &RoomName, state: &State) -> Result<(), RowsError> {
        self.rows.put_state(room, state)
    }

    fn put_record(&mut self, record: &Record) -> Result<(), RowsError> {
        self.rows.put_record(record)
    }

    fn delete_record(&mut self, shelf: Shelf, id: &str) -> Result<(), RowsError> {
        self.rows.delete_record(shelf, id)
    }

    fn put_task(&mut self, kind: TaskKind, room: &RoomName, body: Bytes) -> Result<TaskId, RowsError> {
        self.rows.put_task(kind, room, body)
    }

    fn lease_task(&mut self, id: TaskId, holder: u64, until: Wall) -> Result<Option<Task>, RowsError> {
        self.rows.lease_task(id, holder, until)
    }

    fn postpone_task(&mut self, id: TaskId, ready_at: Wall) -> Result<(), RowsError> {
        self.rows.postpone_task(id, ready_at)
    }

    fn finish_task(&mut self, id: TaskId) -> Result<(), RowsError> {
        self.rows.finish_task(id)
    }

    fn release_tasks(&mut self, holder: Option<u64>) -> Result<Tasks, RowsError> {
        self.rows.release_tasks(holder)
    }
}

const _: () = assert!(BATCH_OPS_MAX <= STORE_MAILBOX);
