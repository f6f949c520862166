//! The writer: drains a batch, runs it in one transaction, commits, and only then lets anything go.
//!
//! ```text
//! turn: admit ─▶ take_batch ─▶ begin ─▶ apply each ─▶ hand out ─▶ commit ──ok──▶ release: seal, frame, post, ring
//!         │          │            │busy                              │refused ──▶ every job: certainly not stored
//!         │          └────────────┘ (held, tried again)               └unknown ──▶ every job: unknown; nothing is
//!         └─ wishes for tasks ─▶ desk                                              written any more
//! ```
//!
//! A transaction without jobs is made when somebody waits for tasks and there may be some (desk.rs), or when it is not
//! known what is due next (due.rs).
//!
//! Redis makes the log durable and then writes the replies, as two adjacent calls; this file is those two calls.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::desk::{Desk, Handed, Plan};
use super::due::Alarm;
use super::queue::Queue;
use super::recorder::{Recorder, Seen};
use super::{Answer, CommitError, Committed, Delivery, Job, Pulse, Push, Retention, Store};
use crate::backlog::Backlog;
use crate::clock::{Clock, Mono, Wall};
use crate::dialect::{self, Applied, Asker, Change, Env, Failure, FileTask, First, Reply, Signal, Write};
use crate::directory::Directory;
#[cfg(feature = "canary")]
use crate::failpoints::{self, Site};
use crate::ids::{ConnId, RoomName};
use crate::limits::{BATCH_OPS_MAX, STORE_MAILBOX};
use crate::mailbox::{Inbox, Mailbox};
use crate::metrics::Metrics;
use crate::model::{Rows as _, RowsError, Transaction as _};
use crate::mutant::Mutant;

/// How long somebody else may hold the database until batches that meet it are refused as busy instead of tried again. Counted
/// over all batches: what waits behind the first one has waited as long as it has. Less than `limits.answer`, or the reactors
/// would give up on the answer and close sockets over what is certain.
const BUSY_PATIENCE: Duration = Duration::from_secs(3);
const BUSY_PAUSE: Duration = Duration::from_millis(5);
/// Housekeeping happens at the latest this long after the last write, and so does the look for tasks that have become
/// ready by themselves.
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
    /// A batch that met a busy database.
    held: Option<Vec<Job>>,
    /// Since when somebody else has held the database.
    busy: Option<Mono>,
    desk: Desk,
    alarm: Alarm,
    /// Jobs are carried out one by one, because together they found no space: tasks are handed out afterwards.
    alone: bool,
    broken: bool,
    /// The reactors know that it is broken.
    told: bool,
    /// Of the mutant that swaps deliveries: what the next ones are to overtake, by reactor.
    overtaken: Vec<(usize, Vec<Committed>)>,
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
            busy: None,
            desk: Desk::default(),
            alarm: Alarm::default(),
            alone: false,
            broken: false,
            told: false,
            overtaken: Vec::new(),
        }
    }

    /// Works until every sender is gone or the store has broken; in both cases every job taken was answered.
    pub fn run(mut self) -> Ending {
        loop {
            match self.turn() {
                Turn::Worked => {}
                Turn::Busy => std::thread::sleep(BUSY_PAUSE),
                Turn::Idle => match self.wiring.inbox.wait(self.patience()) {
                    Ok(Some(job)) => self.hear(job),
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

    /// How long there is nothing to do, if nobody asks for anything.
    fn patience(&self) -> Duration {
        let (now, wall) = (self.wiring.clock.mono(), self.wiring.clock.wall());
        let desk = self.desk.next().map(|next| next.since(now));
        desk.into_iter().chain(self.alarm.wait(now, wall)).fold(IDLE_TIDY, Duration::min)
    }

    /// One batch at most. Never waits.
    pub fn turn(&mut self) -> Turn {
        self.admit();
        if self.broken {
            return self.refuse_the_rest();
        }
        let now = self.wiring.clock.mono();
        self.wiring.env.attached.set(self.desk.present(now));
        if self.alarm.ring(now, self.wiring.clock.wall()) {
            self.queue.push(due());
        }
        let batch = self.held.take().unwrap_or_else(|| self.queue.take_batch());
        let turn = if batch.is_empty() && self.alarm.is_known() && !self.desk.wants(now) {
            Turn::Idle
        } else {
            self.transact(batch)
        };
        match turn {
            Turn::Broken => self.refuse_the_rest(),
            turn => {
                let late = self.desk.expire(now);
                self.answer(late, |_| Reply::Response(Box::new(dialect::tasks(&[]))));
                turn
            }
        }
    }

    /// Whoever waits is answered before the reactors are told to close everybody, also when nobody waits: it may have been
    /// the housekeeping that failed.
    fn refuse_the_rest(&mut self) -> Turn {
        let refused = self.queue.drain();
        self.fail(refused, Failure::Broken);
        let waiting = self.desk.close();
        self.answer(waiting, |_| Reply::Reject(Failure::Broken.reject()));
        if !std::mem::replace(&mut self.told, true) {
            for mailbox in &mut self.wiring.reactors {
                mailbox.post_or_wait(I::from(Delivery::Broken));
                mailbox.ring();
            }
        }
        Turn::Broken
    }

    fn admit(&mut self) {
        // Wishes for tasks do not stay in the queue, and a flood of them must not keep the batches from their turn.
        for _ in self.queue.len()..STORE_MAILBOX {
            let Some(job) = self.wiring.inbox.take() else { break };
            self.hear(job);
        }
    }

    /// Takes a job in. A wish for tasks is no write: it is heard at once and in the order in which the reactor said it, so
    /// that the end of a socket never comes before what it asked for. In the queue, rooms take turns.
    fn hear(&mut self, job: Job) {
        match (&job.write.change, job.to) {
            (Change::Desk(_), _) if self.broken => self.queue.push(job),
            (Change::Desk(wish), to) => {
                let now = self.wiring.clock.mono();
                let silent = match (wish, to) {
                    (dialect::Desk::Take { kinds, max, .. }, Some(conn)) => {
                        self.desk.take(conn, *kinds, *max);
                        to
                    }
                    // Its answer comes when there is a task, or when its wait is over.
                    (dialect::Desk::Poll { kinds, max, lease, wait }, Some(conn)) => {
                        self.desk.poll(conn, *kinds, *max, *lease, now.after(*wait));
                        None
                    }
                    (dialect::Desk::Gone { conn }, _) => {
                        self.desk.gone(*conn);
                        to
                    }
                    (dialect::Desk::Take { .. } | dialect::Desk::Poll { .. }, None) => None,
                };
                self.wiring.backlog.release(job.charged);
                self.answer(silent, |_| Reply::Silence);
            }
            _ => self.queue.push(job),
        }
    }

    /// Answers that wait for no commit.
    fn answer(&mut self, whom: impl IntoIterator<Item = ConnId>, reply: impl Fn(ConnId) -> Reply) {
        let mut out = self.outgoing();
        for to in whom {
            answer_to(&mut out, to, reply(to));
        }
        self.post(out);
    }

    fn transact(&mut self, batch: Vec<Job>) -> Turn {
        if self.broken {
            // The housekeeping behind the last transaction failed: nothing is written any more, not even begun (G11).
            self.fail(batch, Failure::Broken);
            return Turn::Broken;
        }
        let started = self.wiring.clock.mono();
        self.wiring.pulse.begin(started);
        let turn = self.transact_at(batch, started);
        self.wiring.pulse.end();
        turn
    }

    fn transact_at(&mut self, mut batch: Vec<Job>, started: Mono) -> Turn {
        let at = self.wiring.clock.wall();
        let mut done = Done { applied: Vec::with_capacity(batch.len()), ..Done::default() };
        let outcome = match self.carry_out(&batch, at, started, &mut done) {
            Ok(()) if batch.is_empty() && done.plan.as_ref().is_none_or(Plan::is_empty) => {
                // It only looked.
                self.store.rollback();
                self.busy = None;
                self.settle(&mut done, started);
                return Turn::Idle;
            }
            Ok(()) => {
                self.leak(&mut batch, &mut done);
                let committed = self.store.commit();
                #[cfg(feature = "canary")]
                failpoints::pass(Site::Committed);
                self.wiring.pulse.end();
                committed
            }
            Err(error) => Err(CommitError::Refused(error)),
        };
        match outcome {
            Ok(()) => {
                self.busy = None;
                if !batch.is_empty() {
                    let operations: usize = batch.iter().map(|job| job.write.operations()).sum();
                    self.wiring.metrics.batch_operations.observe(operations as f64);
                    self.wiring.metrics.operations.inc_by(operations as u64);
                }
                let now = self.wiring.clock.mono();
                self.wiring.metrics.commit_seconds.observe(now.since(started).as_secs_f64());
                let handed = self.settle(&mut done, now);
                self.release(batch, done, handed);
                self.tidy();
                Turn::Worked
            }
            Err(CommitError::Refused(error)) => {
                self.store.rollback();
                self.refused(batch, error, done.looked)
            }
            Err(CommitError::Unknown(why)) => {
                log::error!(
                    "the outcome of a commit of {} operations is unknown: {why}; nothing more is written",
                    batch.len()
                );
                if self.is(Mutant::WritesAfterUnknown) {
                    self.fail(batch, Failure::Unknown);
                    return Turn::Worked;
                }
                self.break_down();
                let failure = if self.is(Mutant::UnknownIsRefused) { Failure::Full } else { Failure::Unknown };
                self.fail(batch, failure);
                Turn::Broken
            }
        }
    }

    /// Runs every job's code in one open transaction, hands out the tasks that are ready then, and asks what is due next.
    fn carry_out(&mut self, batch: &[Job], at: Wall, now: Mono, done: &mut Done) -> Result<(), RowsError> {
        self.store.begin(at)?;
        for job in batch {
            let mut recorder = Recorder { rows: self.store.rows(), seen: &mut done.seen };
            done.applied.push(carry_out_job(job, &mut recorder, &self.wiring.env)?);
            #[cfg(feature = "canary")]
            failpoints::pass(Site::Uncommitted);
        }
        if !self.alone && (done.seen.tasks || self.desk.wants(now)) {
            done.looked = true;
            done.plan = Some(self.desk.plan(&done.seen.freed, self.store.rows())?);
        }
        if done.seen.records || !self.alarm.is_known() {
            done.next_due = Some(self.store.rows().next_due()?);
        }
        Ok(())
    }

    /// What the transaction did is so: the desk and the alarm take it over.
    fn settle(&mut self, done: &mut Done, now: Mono) -> Handed {
        if let Some(next) = done.next_due {
            self.alarm.set(next);
        }
        match done.plan.take() {
            Some(plan) => self.desk.settle(&done.seen.freed, plan, now.after(IDLE_TIDY)),
            None if done.seen.tasks => {
                self.desk.touched(&done.seen.freed);
                Handed::default()
            }
            None => Handed::default(),
        }
    }

    /// After the commit, and nowhere else: what the batch has to say goes out.
    fn release(&mut self, batch: Vec<Job>, done: Done, handed: Handed) {
        let mut out = self.outgoing();
        self.seal(&done.seen, &mut out);
        let mut files = Vec::new();
        let mut signals = Vec::new();
        let mut ruled = false;
        for (job, applied) in batch.into_iter().zip(done.applied) {
            self.wiring.backlog.release(job.charged);
            if let Some(to) = job.to {
                answer_to(&mut out, to, applied.reply);
            }
            signals.extend(applied.signals);
            files.extend(applied.files);
            // Before its answer is posted, or whoever is told that a token is revoked could still see it let in.
            for ruling in applied.rulings {
                self.wiring.env.revoked.apply(ruling);
                ruled = true;
            }
        }
        self.signal(signals, &mut out);
        for (to, task) in handed.pushes {
            if self.is(Mutant::FenceGivenTwice)
                && let Some(delivery) = out.get_mut(usize::from(to.reactor))
            {
                delivery.pushes.push(Push { to, frame: dialect::task(&task) });
            }
            if let Some(delivery) = out.get_mut(usize::from(to.reactor)) {
                delivery.pushes.push(Push { to, frame: dialect::task(&task) });
            }
        }
        for (to, tasks) in handed.answers {
            answer_to(&mut out, to, Reply::Response(Box::new(dialect::tasks(&tasks))));
        }
        self.post(out);
        if ruled {
            for mailbox in &mut self.wiring.reactors {
                mailbox.post_or_wait(I::from(Delivery::Recheck));
                mailbox.ring();
            }
        }
        if let Some(mailbox) = &mut self.wiring.files {
            for task in files {
                // A full queue loses nothing: the writer compares revisions on its own (files/).
                let _ = mailbox.post(task);
            }
            mailbox.ring();
        }
    }

    fn seal(&self, seen: &Seen, out: &mut [Outgoing]) {
        let moved = seen.appended.iter().map(|(room, _)| room);
        let audiences = self.wiring.directory.committed(moved, seen.states.iter());
        for ((room, event), audience) in seen.appended.iter().zip(audiences) {
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

    fn is(&self, mutant: Mutant) -> bool {
        self.wiring.env.canary.is(mutant)
    }

    /// What two mutants say before the commit.
    fn leak(&mut self, batch: &mut [Job], done: &mut Done) {
        let mut out = self.outgoing();
        if self.is(Mutant::BroadcastBeforeCommit) {
            self.seal(&done.seen, &mut out);
        }
        if self.is(Mutant::AckBeforeCommit) {
            for (job, applied) in batch.iter_mut().zip(&mut done.applied) {
                if let Some(to) = job.to.take() {
                    answer_to(&mut out, to, std::mem::replace(&mut applied.reply, Reply::Silence));
                }
            }
        }
        self.post(out);
    }

    /// What one mutant holds back comes behind what the next commit says.
    fn overtake(&mut self, out: &mut [Outgoing]) {
        let held: Vec<_> = (out.iter_mut().enumerate())
            .filter(|(place, _)| !self.overtaken.iter().any(|(held, _)| held == place))
            .map(|(place, delivery)| (place, std::mem::take(&mut delivery.committed)))
            .filter(|(_, events)| !events.is_empty())
            .collect();
        for (place, events) in std::mem::replace(&mut self.overtaken, held) {
            if let Some(delivery) = out.get_mut(place) {
                delivery.committed.extend(events);
            }
        }
    }

    fn outgoing(&self) -> Vec<Outgoing> {
        self.wiring.reactors.iter().map(|_| Outgoing::default()).collect()
    }

    fn post(&mut self, mut out: Vec<Outgoing>) {
        if self.is(Mutant::DeliveriesSwapped) {
            self.overtake(&mut out);
        }
        for (mailbox, delivery) in self.wiring.reactors.iter_mut().zip(out) {
            let Outgoing { committed, signals, answers, pushes } = delivery;
            if committed.is_empty() && signals.is_empty() && answers.is_empty() && pushes.is_empty() {
                continue;
            }
            mailbox.post_or_wait(I::from(Delivery::Batch { committed, signals, answers, pushes }));
            mailbox.ring();
        }
    }

    /// `looked`: tasks were to be handed out in the same transaction.
    fn refused(&mut self, batch: Vec<Job>, error: RowsError, looked: bool) -> Turn {
        let now = self.wiring.clock.mono();
        if error != RowsError::Busy {
            self.busy = None;
        }
        match error {
            // Only the desk or the alarm wanted something.
            RowsError::Busy if batch.is_empty() => Turn::Busy,
            RowsError::Full if batch.is_empty() => {
                self.desk.rest(now.after(IDLE_TIDY));
                self.tidy();
                Turn::Idle
            }
            RowsError::Busy if now.since(*self.busy.get_or_insert(now)) < BUSY_PATIENCE => {
                self.held = Some(batch);
                Turn::Busy
            }
            RowsError::Busy => {
                self.fail(batch, Failure::Busy);
                Turn::Worked
            }
            // Alone it may fit; or it was a task handed out beside it that did not.
            RowsError::Full if batch.len() > 1 || looked => {
                self.alone = true;
                let turn = self.one_by_one(batch);
                self.alone = false;
                turn
            }
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
    fn one_by_one(&mut self, batch: Vec<Job>) -> Turn {
        let mut jobs = batch.into_iter();
        while let Some(job) = jobs.next() {
            match self.transact(vec![job]) {
                Turn::Worked | Turn::Idle => {}
                Turn::Busy => {
                    if let Some(held) = &mut self.held {
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
            if let Some(to) = job.to {
                answer_to(&mut out, to, dialect::failed(&job.write, failure));
            }
        }
        self.post(out);
    }

    fn tidy(&mut self) {
        if self.broken {
            return;
        }
        let retention = self.wiring.retention.load();
        let mut trimmed = Vec::new();
        let tidied = self.store.tidy(self.wiring.clock.wall(), &retention, &mut trimmed);
        if !trimmed.is_empty() && !self.is(Mutant::StandOutlivesTrim) {
            // Whoever comes back to an event that is gone must be told so, and not by what was remembered of the room.
            self.wiring.directory.committed([].into_iter(), trimmed.iter());
        }
        match tidied {
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
#[derive(Debug, Default)]
struct Done {
    applied: Vec<Applied>,
    seen: Seen,
    /// Tasks were looked for, though it may not have come to a plan.
    looked: bool,
    plan: Option<Plan>,
    /// What is due next, where it was asked.
    next_due: Option<Option<Wall>>,
}

#[derive(Debug, Default)]
struct Outgoing {
    committed: Vec<Committed>,
    signals: Vec<Signal>,
    answers: Vec<Answer>,
    pushes: Vec<Push>,
}

/// For a request whose answer comes later, by itself, nothing is said.
fn answer_to(out: &mut [Outgoing], to: ConnId, reply: Reply) {
    if reply != Reply::Later
        && let Some(delivery) = out.get_mut(usize::from(to.reactor))
    {
        delivery.answers.push(Answer { to, reply });
    }
}

/// The writer's own job when something is due.
fn due() -> Job {
    Job {
        to: None,
        asker: Asker { actor: Arc::from("server"), origin: 0, verified: false },
        write: Box::new(Write { room: RoomName::new("due"), op: None, change: Change::Due }),
        charged: 0,
    }
}

fn carry_out_job(job: &Job, rows: &mut Recorder<'_>, env: &Env) -> Result<Applied, RowsError> {
    let Change::Batch(writes) = &job.write.change else { return carry_out_one(&job.write, &job.asker, rows, env) };
    let mut all = Applied::only(Reply::Silence);
    let mut replies = Vec::with_capacity(writes.len());
    for write in writes {
        let one = carry_out_one(write, &job.asker, rows, env)?;
        replies.push(one.reply);
        all.signals.extend(one.signals);
        all.files.extend(one.files);
        all.rulings.extend(one.rulings);
    }
    all.reply = dialect::lines(replies.into_iter());
    Ok(all)
}

fn carry_out_one(write: &Write, asker: &Asker, rows: &mut Recorder<'_>, env: &Env) -> Result<Applied, RowsError> {
    let Some(op) = &write.op else {
        return dialect::apply(write, asker, rows, env);
    };
    let known = rows.operation(write.room.as_str(), &asker.actor, op)?;
    if let Some((seq, answer)) = known.filter(|_| !env.canary.is(Mutant::NoDeduplication)) {
        let is_in_flight = || rows.seen.appended.iter().any(|(_, event)| event.op.as_ref() == Some(op));
        if env.canary.is(Mutant::DuplicateInFlightDropped) && is_in_flight() {
            return Ok(Applied::only(Reply::Later));
        }
        // Two tabs that number their edits alike are one user to us: the second one's edit is not the first one's.
        return Ok(Applied::only(match first(&answer) {
            Some((at, print, note)) if print == dialect::fingerprint(write) => {
                dialect::repeated(write, First { seq, at, note })
            }
            _ => dialect::id_taken(write),
        }));
    }
    let before = rows.seen.appended.len();
    let applied = dialect::apply(write, asker, rows, env)?;
    // A refused operation appended nothing; its id stays free, so that the corrected resend is not taken for a repeat.
    // Of several events the one that bears the id is the one that was asked for; what it entailed may stand before it.
    let mut own = None;
    for (_, event) in rows.seen.appended.iter().skip(before).filter(|(room, _)| *room == write.room) {
        if event.op.as_ref() == Some(op) {
            own = Some(event.seq);
            break;
        }
        own = own.or(Some(event.seq));
    }
    if let Some(seq) = own {
        let answer = format!("{} {:016x} {}", rows.at().0, dialect::fingerprint(write), applied.note);
        rows.put_operation(&write.room, &asker.actor, op, seq, &answer)?;
    }
    Ok(applied)
}

/// A recorded answer: `at fingerprint note`. Before schema 2 there was no note.
fn first(answer: &str) -> Option<(Wall, u64, &str)> {
    let (at, rest) = answer.split_once(' ')?;
    let (print, note) = rest.split_once(' ').unwrap_or((rest, ""));
    Some((Wall(at.parse().ok()?), u64::from_str_radix(print, 16).ok()?, note))
}

const _: () = assert!(BATCH_OPS_MAX <= STORE_MAILBOX);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox;
    use crate::model::{TaskKind, Tasks};
    use crate::store::memory::MemoryStore;

    #[test]
    fn an_idle_writer_sleeps_until_the_nearest_deadline() {
        let (_jobs, inbox) = mailbox::channel(1);
        let clock = Clock::manual(Mono(1), Wall(1));
        let wiring = Wiring::<Delivery> {
            inbox,
            reactors: Vec::new(),
            files: None,
            directory: Arc::default(),
            env: Arc::default(),
            clock: clock.clone(),
            metrics: Arc::default(),
            pulse: Arc::default(),
            backlog: Arc::new(Backlog::new(1)),
            retention: Arc::default(),
        };
        let mut worker = Worker::new(MemoryStore::new(1, 1), wiring);
        assert_eq!((worker.turn(), worker.patience()), (Turn::Idle, IDLE_TIDY));
        worker.alarm.set(Some(Wall(300_001)));
        assert_eq!(worker.patience(), Duration::from_millis(300));
        let to = ConnId { reactor: 0, slot: 1, generation: 1 };
        let until = clock.mono().after(Duration::from_millis(200));
        worker.desk.poll(to, Tasks::only(TaskKind::Chat), 1, IDLE_TIDY, until);
        assert_eq!((worker.turn(), worker.patience()), (Turn::Idle, Duration::from_millis(200)));
        clock.advance(Duration::from_millis(200));
        assert_eq!((worker.turn(), worker.patience()), (Turn::Idle, Duration::from_millis(100)));
        worker.alarm.set(None);
        worker.desk.take(to, Tasks::only(TaskKind::Chat), 1);
        assert_eq!((worker.turn(), worker.patience()), (Turn::Idle, IDLE_TIDY));
        clock.advance(Duration::from_millis(400));
        assert_eq!(worker.patience(), Duration::from_millis(100), "tasks may become ready by themselves");
    }
}
