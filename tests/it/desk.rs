//! Tasks, batches and what is due, through the writer over a store that fails: nobody is given what is not committed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use commitcast::auth::ApiKey;
use commitcast::backlog::Backlog;
use commitcast::clock::{Clock, Mono, Wall};
use commitcast::dialect::{self, Asker, Change, Desk, Env, Intent, Name, Reply, Write, backend, documents, tickets};
use commitcast::directory::Directory;
use commitcast::ids::{ConnId, OpId, RoomName};
use commitcast::mailbox::{self, Inbox, Mailbox};
use commitcast::metrics::Metrics;
use commitcast::model::{Record, RowsError, Shelf, Task, TaskId, TaskKind, Tasks, Transaction};
use commitcast::store::memory::{Faults, MemorySnapshots, MemoryStore, Outcome};
use commitcast::store::worker::{Turn, Wiring, Worker};
use commitcast::store::{CommitError, Delivery, Job, Retention, Snapshots, Store};

const LEASE: Duration = Duration::from_secs(30);
const WAIT: Duration = Duration::from_secs(2);

fn conn(slot: u32) -> ConnId {
    ConnId { reactor: 0, slot, generation: 1 }
}

/// What somebody else's code does in the next transaction, before the jobs.
type Step = Box<dyn FnOnce(&mut dyn Transaction) + Send>;

/// The memory store, with a hand in its transactions, and a count of them.
struct Stirred {
    store: MemoryStore,
    script: Arc<Mutex<Script>>,
}

#[derive(Default)]
struct Script {
    steps: VecDeque<Step>,
    begins: usize,
    commits: usize,
}

impl Store for Stirred {
    fn begin(&mut self, at: Wall) -> Result<(), RowsError> {
        self.store.begin(at)?;
        let mut script = self.script.lock().unwrap();
        script.begins += 1;
        if let Some(step) = script.steps.pop_front() {
            step(self.store.rows());
        }
        Ok(())
    }

    fn rows(&mut self) -> &mut dyn Transaction {
        self.store.rows()
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        self.script.lock().unwrap().commits += 1;
        self.store.commit()
    }

    fn rollback(&mut self) {
        self.store.rollback();
    }

    fn tidy(&mut self, now: Wall, retention: &Retention, trimmed: &mut Vec<RoomName>) -> Result<(), RowsError> {
        self.store.tidy(now, retention, trimmed)
    }
}

struct Stage {
    worker: Worker<Stirred, Delivery>,
    jobs: Mailbox<Job>,
    heard: Inbox<Delivery>,
    disk: Faults,
    rows: MemorySnapshots,
    script: Arc<Mutex<Script>>,
    clock: Clock,
    env: Arc<Env>,
    metrics: Arc<Metrics>,
    backlog: Arc<Backlog>,
}

/// What the reactor has heard.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    shown: usize,
    pushed: Vec<u32>,
    answers: Vec<(u32, String)>,
    broken: bool,
}

impl Stage {
    /// A store with one document and this many tasks.
    fn new(tasks: usize) -> Stage {
        Stage::with(move |rows| put(rows, tasks))
    }

    fn with(before: impl FnOnce(&mut dyn Transaction)) -> Stage {
        let mut store = MemoryStore::new(1, 1);
        let env = Arc::new(Env::default());
        let import = documents::Import {
            directory: "d".to_owned(),
            name: "a".to_owned(),
            content: "born".to_owned(),
            description: None,
            tags: Vec::new(),
            created_at: None,
            updated_at: None,
            digest: [0; 20],
        };
        let room = documents::room_of("d/a");
        let write =
            Write { room: room.clone(), op: None, change: Change::Documents(documents::Change::Import(import)) };
        store.begin(Wall(1)).unwrap();
        dialect::apply(&write, &asker(0), store.rows(), &env).unwrap();
        before(store.rows());
        store.commit().unwrap();
        let (disk, rows, script) = (store.faults(), store.snapshots(), Arc::<Mutex<Script>>::default());
        let (jobs, inbox) = mailbox::channel(64);
        let (reactor, heard) = mailbox::channel(64);
        let clock = Clock::manual(Mono(1), Wall(1));
        let directory = Arc::new(Directory::default());
        let _receipt = directory.enter(&room, 0, Name::Documents.bit());
        let (metrics, backlog) = (Arc::<Metrics>::default(), Arc::new(Backlog::new(1 << 28)));
        let wiring = Wiring {
            inbox,
            reactors: vec![reactor],
            files: None,
            directory,
            env: env.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            pulse: Arc::default(),
            backlog: backlog.clone(),
            retention: Arc::new(ArcSwap::from_pointee(Retention::default())),
        };
        let worker = Worker::new(Stirred { store, script: script.clone() }, wiring);
        Stage { worker, jobs, heard, disk, rows, script, clock, env, metrics, backlog }
    }

    fn ask(&mut self, slot: u32, change: Change) {
        let write = Box::new(Write { room: RoomName::new("tasks"), op: None, change });
        self.post(slot, write);
    }

    fn post(&mut self, slot: u32, write: Box<Write>) {
        let charged = write.weight();
        assert!(self.backlog.admit(charged));
        self.jobs.post(Job { to: Some(conn(slot)), asker: asker(slot), write, charged }).unwrap();
    }

    fn take(&mut self, slot: u32, max: u16) {
        self.ask(slot, Change::Desk(Desk::Take { kinds: Tasks::only(TaskKind::Execute), max, lease: LEASE }));
    }

    fn poll(&mut self, slot: u32, max: u16, wait: Duration) {
        self.ask(slot, Change::Desk(Desk::Poll { kinds: Tasks::only(TaskKind::Execute), max, lease: LEASE, wait }));
    }

    fn gone(&mut self, slot: u32) {
        let write = Box::new(Write {
            room: RoomName::new("elsewhere"),
            op: None,
            change: Change::Desk(Desk::Gone { conn: conn(slot) }),
        });
        self.jobs.post(Job { to: None, asker: asker(0), write, charged: 0 }).unwrap();
    }

    /// A message of a backend's socket.
    fn say(&mut self, slot: u32, message: &str) {
        let key = ApiKey { name: "worker".to_owned(), key: "k".repeat(32), rights: vec!["tasks:*".to_owned()] };
        let mut session = backend::Session::new(Arc::new(key));
        let Intent::Write(write) = session.on_text(message) else { panic!("{message} is no write") };
        self.post(slot, write);
    }

    fn ticket(&mut self) {
        let create = tickets::Change::Create { name: "t".to_owned(), description: None };
        let write = Write { room: RoomName::new("tickets"), op: None, change: Change::Tickets(create) };
        self.post(7, Box::new(write));
    }

    /// What one turn tells a backend, in the order in which it is told, without the frames' heads.
    fn told(&mut self, slot: u32) -> Vec<String> {
        let text = |frame: &[u8]| {
            let text = String::from_utf8_lossy(frame).into_owned();
            text.find('{').map_or(text.clone(), |start| text[start..].to_owned())
        };
        let mut told = Vec::new();
        while let Some(delivery) = self.heard.take() {
            let Delivery::Batch { answers, pushes, .. } = delivery else { continue };
            let answers = answers.into_iter().filter(|answer| answer.to.slot == slot);
            told.extend(answers.filter_map(|answer| match answer.reply {
                Reply::Frame(frame) => Some(text(&frame)),
                _ => None,
            }));
            told.extend(pushes.into_iter().filter(|push| push.to.slot == slot).map(|push| text(&push.frame)));
        }
        told
    }

    fn edit(&mut self, content: &str) {
        self.post(7, Box::new(edit("d/a", content, None)));
    }

    fn next(&mut self, step: impl FnOnce(&mut dyn Transaction) + Send + 'static) {
        self.script.lock().unwrap().steps.push_back(Box::new(step));
    }

    /// (transactions begun, commits asked for) so far.
    fn count(&self) -> (usize, usize) {
        let script = self.script.lock().unwrap();
        (script.begins, script.commits)
    }

    fn heard(&mut self) -> Heard {
        let mut all = Heard::default();
        while let Some(delivery) = self.heard.take() {
            match delivery {
                Delivery::Batch { committed, answers, pushes, .. } => {
                    all.shown += committed.len();
                    all.pushed.extend(pushes.into_iter().map(|push| push.to.slot));
                    all.answers.extend(answers.into_iter().map(|answer| (answer.to.slot, said(&answer.reply))));
                }
                Delivery::Broken => all.broken = true,
                _ => {}
            }
        }
        all
    }

    fn task(&mut self, id: u64) -> Task {
        self.rows.begin().unwrap();
        let task = self.rows.rows().task(TaskId(id)).unwrap().unwrap();
        self.rows.end();
        task
    }

    /// (slot of its holder, attempt) of the first tasks.
    fn held(&mut self, tasks: u64) -> Vec<(u32, u32)> {
        let held = |task: Task| (ConnId::unpack(task.holder).slot, task.attempt);
        (1..=tasks).map(|id| held(self.task(id))).collect()
    }
}

fn asker(slot: u32) -> Asker {
    Asker { actor: "ada".into(), origin: if slot == 0 { 0 } else { conn(slot).pack() }, verified: false }
}

fn edit(id: &str, content: &str, op: Option<&str>) -> Write {
    let op = op.map(|op| OpId(op.into()));
    Write {
        room: documents::room_of(id),
        op: op.clone(),
        change: Change::Documents(documents::Change::Update {
            id: id.to_owned(),
            content: Some(content.to_owned()),
            metadata: None,
            asked: documents::Asked::Socket { op },
        }),
    }
}

fn put(rows: &mut dyn Transaction, tasks: usize) {
    for _ in 0..tasks {
        rows.put_task(TaskKind::Execute, &RoomName::new("session:a"), bytes::Bytes::from_static(b"{}")).unwrap();
    }
}

fn said(reply: &Reply) -> String {
    match reply {
        Reply::Silence => String::new(),
        Reply::Frame(bytes) | Reply::Lines(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Reply::Response(response) => response.status.to_string(),
        Reply::Reject(reject) | Reply::Close(reject) => reject.row().name.to_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_task_goes_out_with_the_commit_that_creates_it() {
    let mut stage = Stage::new(0);
    stage.take(1, 1);
    assert_eq!(stage.worker.turn(), Turn::Idle, "nothing is there");
    assert_eq!(stage.heard().answers, [(1, String::new())], "the wish itself is answered");
    assert_eq!(stage.count(), (1, 0));

    stage.clock.advance(Duration::from_millis(500));
    stage.next(|rows| put(rows, 2));
    stage.edit("one");
    assert_eq!(stage.worker.turn(), Turn::Worked);
    assert_eq!(stage.count(), (2, 1), "one transaction for the edit and the hand-out");
    let heard = stage.heard();
    assert_eq!((heard.shown, heard.pushed), (1, vec![1]));
    assert_eq!(stage.held(2), [(1, 1), (0, 0)], "the window is one");
    assert_eq!(stage.backlog.bytes(), 0);
    assert_eq!(stage.worker.turn(), Turn::Idle);
    stage.clock.advance(Duration::from_secs(9));
    assert_eq!(stage.worker.turn(), Turn::Idle);
    assert_eq!(stage.count(), (2, 1), "nobody has room: nothing is looked for");
}

#[test]
fn a_message_its_task_and_the_hand_out_are_one_commit() {
    let mut stage = Stage::new(0);
    stage.say(1, r#"{"op":"take","kinds":["ticket"],"max":1}"#);
    assert_eq!(stage.worker.turn(), Turn::Idle);
    stage.ticket();
    stage.ticket();
    assert_eq!(stage.worker.turn(), Turn::Worked);
    assert_eq!(stage.count().1, 1);
    assert_eq!(stage.disk.log("tickets").len(), 2);
    let [task] = <[_; 1]>::try_from(stage.told(1)).unwrap();
    assert!(
        task.starts_with(r#"{"op":"task","task":"1","kind":"ticket","room":"tickets","attempt":1,"fence":1,"#),
        "{task}"
    );

    // Done with the one, it is given the next, in the commit that finishes the first; and behind its answer.
    stage.say(1, r#"{"op":"done","task":"1","fence":1}"#);
    assert_eq!(stage.worker.turn(), Turn::Worked);
    assert_eq!(stage.count().1, 2);
    let told = stage.told(1);
    assert!(told[0].starts_with(r#"{"op":"ok""#) && told[1].contains(r#""task":"2","kind":"ticket""#), "{told:?}");
    stage.say(1, r#"{"op":"done","task":"1","fence":1}"#);
    stage.ticket();
    stage.worker.turn();
    assert_eq!(stage.told(1).len(), 1, "said again it makes no more room");

    // A task that failed is nobody's while it rests.
    stage.say(1, r#"{"op":"fail","task":"2","fence":2,"retry_ms":1000}"#);
    stage.worker.turn();
    assert!(stage.told(1)[1].contains(r#""task":"3""#));
    stage.say(2, r#"{"op":"take","kinds":["ticket"],"max":1}"#);
    stage.worker.turn();
    assert!(stage.told(2).is_empty());
    stage.clock.advance(Duration::from_secs(1));
    stage.worker.turn();
    let again = stage.told(2);
    assert!(again[0].contains(r#""task":"2","kind":"ticket","room":"tickets","attempt":2,"fence":4"#), "{again:?}");
}

/// G7: applied at most once, because the first holder's fence is worth nothing any more.
#[test]
fn g7_who_lost_its_task_can_no_longer_finish_it() {
    let mut stage = Stage::new(0);
    stage.say(1, r#"{"op":"take","kinds":["ticket"],"max":1}"#);
    stage.say(2, r#"{"op":"take","kinds":["ticket"],"max":1}"#);
    stage.ticket();
    stage.worker.turn();
    assert_eq!(stage.told(1).len(), 1);
    stage.gone(1);
    stage.worker.turn();
    let again = stage.told(2);
    assert!(again[0].contains(r#""task":"1","kind":"ticket","room":"tickets","attempt":2,"fence":2"#), "{again:?}");
    stage.say(3, r#"{"op":"done","task":"1","fence":1}"#);
    stage.worker.turn();
    let late = stage.told(3);
    assert!(late[0].contains("stale_fence"), "{late:?}");
    stage.say(2, r#"{"op":"done","task":"1","fence":2}"#);
    stage.worker.turn();
    assert!(stage.told(2)[0].starts_with(r#"{"op":"ok""#));
}

/// A backend that says `done` and leaves has said it: nobody is given what it finished.
#[test]
fn what_is_finished_in_the_turn_of_the_end_stays_finished() {
    let mut stage = Stage::new(0);
    stage.say(1, r#"{"op":"take","kinds":["ticket"],"max":1}"#);
    stage.ticket();
    stage.worker.turn();
    stage.say(2, r#"{"op":"take","kinds":["ticket"],"max":1}"#);
    stage.worker.turn();
    stage.say(1, r#"{"op":"done","task":"1","fence":1}"#);
    stage.gone(1);
    stage.worker.turn();
    assert!(stage.told(2).is_empty());
    assert!(stage.task(1).done);
}

#[test]
fn while_somebody_waits_the_store_is_asked_twice_a_second() {
    let mut stage = Stage::new(0);
    stage.take(1, 1);
    for _ in 0..100 {
        assert_eq!(stage.worker.turn(), Turn::Idle);
        stage.clock.advance(Duration::from_millis(50));
    }
    assert_eq!(stage.count(), (10, 0));
    // What becomes ready by itself is found by the look.
    stage.next(|rows| put(rows, 1));
    assert_eq!(stage.worker.turn(), Turn::Worked);
    assert_eq!((stage.count(), stage.heard().pushed), ((11, 1), vec![1]));
}

#[test]
fn who_goes_leaves_its_tasks_to_the_others_at_once() {
    let mut stage = Stage::new(2);
    stage.take(1, 2);
    assert_eq!(stage.worker.turn(), Turn::Worked);
    stage.take(2, 2);
    stage.worker.turn();
    let fences = [stage.task(1).fence, stage.task(2).fence];
    stage.heard();
    // A room of its own, and behind an edit: its place in the queue is not asked.
    stage.edit("one");
    stage.gone(1);
    assert_eq!(stage.worker.turn(), Turn::Worked);
    assert_eq!(stage.heard().pushed, [2, 2]);
    assert_eq!(stage.held(2), [(2, 2), (2, 2)]);
    assert!(stage.task(1).fence > fences[1] && stage.task(2).fence > fences[1]);
    // With nobody left, what is released waits.
    stage.gone(2);
    assert_eq!(stage.worker.turn(), Turn::Worked);
    assert_eq!(stage.held(2), [(0, 2), (0, 2)]);
    assert!(stage.task(1).ready_at <= stage.clock.wall());
}

#[test]
fn a_wish_and_the_end_of_its_socket_in_one_turn_leave_nobody_at_the_desk() {
    let mut stage = Stage::new(1);
    stage.take(1, 1);
    stage.gone(1);
    stage.edit("one");
    assert_eq!(stage.worker.turn(), Turn::Worked);
    assert!(stage.heard().pushed.is_empty());
    assert_eq!(stage.held(1), [(0, 0)]);
}

#[test]
fn a_poll_waits_is_given_what_comes_and_is_otherwise_told_of_nothing() {
    let mut stage = Stage::new(0);
    stage.poll(1, 5, WAIT);
    assert_eq!(stage.worker.turn(), Turn::Idle);
    assert_eq!(stage.heard(), Heard::default(), "no answer yet");
    assert_eq!(stage.backlog.bytes(), 0);
    stage.clock.advance(WAIT - Duration::from_millis(1));
    stage.worker.turn();
    assert_eq!(stage.heard(), Heard::default());
    stage.clock.advance(Duration::from_millis(1));
    stage.worker.turn();
    let answers = std::iter::from_fn(|| stage.heard.take()).find_map(|delivery| match delivery {
        Delivery::Batch { answers, .. } => Some(answers),
        _ => None,
    });
    let [answer] = <[_; 1]>::try_from(answers.unwrap()).unwrap();
    let Reply::Response(response) = answer.reply else { panic!("{:?}", answer.reply) };
    assert_eq!((answer.to, response.body.as_ref()), (conn(1), br#"{"tasks":[]}"#.as_slice()));

    stage.poll(2, 5, WAIT);
    stage.worker.turn();
    stage.clock.advance(Duration::from_millis(500));
    stage.next(|rows| put(rows, 3));
    assert_eq!(stage.worker.turn(), Turn::Worked);
    assert_eq!(stage.heard().answers, [(2, "200".to_owned())]);
    assert_eq!(stage.held(3), [(0, 1), (0, 1), (0, 1)]);
    assert_eq!(stage.task(3).ready_at, Wall(stage.clock.wall().0 + LEASE.as_micros() as i64));
    stage.clock.advance(WAIT);
    stage.worker.turn();
    assert_eq!(stage.heard(), Heard::default(), "one answer");
}

#[test]
fn a_poll_that_will_not_wait_is_answered_in_the_same_turn() {
    let mut stage = Stage::new(1);
    stage.poll(1, 1, Duration::ZERO);
    assert_eq!(stage.worker.turn(), Turn::Worked);
    stage.poll(2, 1, Duration::ZERO);
    assert_eq!(stage.worker.turn(), Turn::Idle);
    assert_eq!(stage.heard().answers, [(1, "200".to_owned()), (2, "200".to_owned())]);
    assert_eq!(stage.held(1), [(0, 1)]);
}

#[test]
fn what_a_poll_took_and_did_not_finish_goes_to_another() {
    let mut stage = Stage::new(1);
    stage.poll(1, 1, WAIT);
    stage.worker.turn();
    let fence = stage.task(1).fence;
    stage.take(2, 1);
    assert_eq!(stage.worker.turn(), Turn::Idle);
    stage.clock.advance(LEASE - Duration::from_millis(1));
    assert_eq!(stage.worker.turn(), Turn::Idle);
    stage.clock.advance(Duration::from_millis(500));
    assert_eq!(stage.worker.turn(), Turn::Worked);
    assert_eq!(stage.heard().pushed, [2]);
    assert_eq!(stage.held(1), [(2, 2)]);
    assert!(stage.task(1).fence > fence);
}

#[test]
fn a_commit_that_is_refused_gave_nobody_anything() {
    let mut stage = Stage::new(1);
    stage.disk.next_commit(Outcome::Busy);
    stage.take(1, 1);
    stage.edit("one");
    assert_eq!(stage.worker.turn(), Turn::Busy);
    assert_eq!(stage.heard().answers, [(1, String::new())]);
    assert_eq!(stage.held(1), [(0, 0)]);
    assert_eq!(stage.worker.turn(), Turn::Worked, "the wish is not forgotten");
    assert_eq!(stage.heard().pushed, [1]);
    assert_eq!(stage.held(1), [(1, 1)], "and given once");

    // The same when only the desk wanted something.
    let mut stage = Stage::new(1);
    stage.disk.next_commit(Outcome::Busy);
    stage.take(1, 1);
    assert_eq!(stage.worker.turn(), Turn::Busy);
    assert_eq!((stage.heard().pushed, stage.held(1)), (vec![], vec![(0, 0)]));
    assert_eq!(stage.worker.turn(), Turn::Worked);
    assert_eq!(stage.heard().pushed, [1]);
}

#[test]
fn an_unknown_outcome_lets_no_task_go_and_tells_whoever_waits() {
    for stored in [false, true] {
        let mut stage = Stage::new(1);
        stage.disk.next_commit(Outcome::LostAnswer { stored });
        stage.take(1, 1);
        stage.poll(2, 1, WAIT);
        stage.edit("one");
        assert_eq!(stage.worker.turn(), Turn::Broken);
        let heard = stage.heard();
        assert!(heard.broken && heard.pushed.is_empty() && heard.shown == 0, "{heard:?}");
        assert_eq!(heard.answers[1..], [(7, "unknown".to_owned()), (2, "store_broken".to_owned())]);
        stage.poll(3, 1, WAIT);
        stage.worker.turn();
        let heard = stage.heard();
        assert_eq!(heard.answers.len(), 1, "{heard:?}");
    }
}

/// A resend of what is stored needs no space. It must not be told "full" because of a task handed out beside it.
#[test]
fn a_full_store_refuses_nobody_for_the_sake_of_a_task() {
    let mut stage = Stage::new(1);
    stage.disk.next_commit(Outcome::Full);
    stage.take(1, 1);
    stage.edit("one");
    assert_eq!(stage.worker.turn(), Turn::Worked);
    let heard = stage.heard();
    assert!(heard.answers[1].1.contains("\"success\":true") && heard.pushed.is_empty(), "{heard:?}");
    assert_eq!(stage.worker.turn(), Turn::Worked, "it is handed out afterwards");
    assert_eq!(stage.heard().pushed, [1]);

    // A desk that finds no space tries again at its leisure.
    let mut stage = Stage::new(1);
    stage.disk.next_commit(Outcome::Full);
    stage.take(1, 1);
    assert_eq!(stage.worker.turn(), Turn::Idle);
    assert_eq!(stage.worker.turn(), Turn::Idle);
    assert_eq!((stage.count().1, stage.held(1)), (1, vec![(0, 0)]));
    stage.clock.advance(Duration::from_millis(500));
    assert_eq!(stage.worker.turn(), Turn::Worked);
    assert_eq!(stage.heard().pushed, [1]);
}

#[test]
fn v10_it_is_known_who_takes_what() {
    let mut stage = Stage::new(0);
    let has = |stage: &Stage| stage.env.attached.has(TaskKind::Execute);
    stage.worker.turn();
    assert!(!has(&stage));
    stage.take(1, 1);
    stage.worker.turn();
    assert!(has(&stage) && !stage.env.attached.has(TaskKind::Control));
    stage.gone(1);
    stage.worker.turn();
    assert!(!has(&stage));
    stage.poll(2, 1, Duration::ZERO);
    stage.worker.turn();
    stage.clock.advance(Duration::from_secs(59));
    stage.worker.turn();
    assert!(has(&stage), "it may be at work on what it was given");
    stage.clock.advance(Duration::from_secs(1));
    stage.worker.turn();
    assert!(!has(&stage));
}

#[test]
fn every_write_of_a_batch_stands_for_itself() {
    let mut stage = Stage::new(0);
    stage.post(7, Box::new(edit("d/a", "one", Some("first"))));
    stage.worker.turn();
    stage.heard();
    let writes = vec![
        edit("d/a", "two", Some("second")),
        edit("d/nowhere", "three", None),
        edit("d/a", "one", Some("first")),
        edit("d/a", "two", Some("second")),
        edit("d/a", "other", Some("second")),
        edit("d/a", "four", None),
    ];
    stage.ask(7, Change::Batch(writes));
    assert_eq!(stage.worker.turn(), Turn::Worked);
    let heard = stage.heard();
    assert_eq!(heard.shown, 2, "{heard:?}");
    let [(7, lines)] = heard.answers.as_slice() else { panic!("{heard:?}") };
    let wanted = [
        "\"success\":true",
        "\"success\":false",
        "\"dup\":true",
        "\"dup\":true",
        "given to another edit",
        "\"success\":true",
    ];
    let mut rest = lines.as_str();
    for word in wanted {
        let Some((_, after)) = rest.split_once(word) else { panic!("{word} is missing in {lines}") };
        rest = after;
    }
    assert_eq!(stage.backlog.bytes(), 0);
    assert_eq!(stage.disk.log("doc:d/a").len(), 4, "its birth and three edits");
}

#[test]
fn a_batch_that_is_not_committed_is_answered_for_each() {
    let mut stage = Stage::new(0);
    stage.disk.next_commit(Outcome::Full);
    stage.ask(7, Change::Batch(vec![edit("d/a", "one", None), edit("d/a", "two", None)]));
    assert_eq!(stage.worker.turn(), Turn::Worked);
    let heard = stage.heard();
    assert_eq!((heard.shown, heard.answers[0].1.matches("\"success\":false").count()), (0, 2), "{heard:?}");
}

fn due(at: i64) -> impl FnOnce(&mut dyn Transaction) {
    move |rows| {
        let record = Record {
            shelf: Shelf::Job,
            id: "a".to_owned(),
            parent: String::new(),
            state: String::new(),
            due: Some(Wall(at)),
            created_at: Wall(1),
            updated_at: Wall(1),
            body: bytes::Bytes::from_static(b"{}"),
        };
        rows.put_record(&record).unwrap();
    }
}

/// L9: the deadline is in the rows, so a start finds it again.
#[test]
fn what_is_due_is_dealt_with_once() {
    let mut stage = Stage::with(due(5_000_000));
    assert_eq!(stage.worker.turn(), Turn::Idle);
    assert_eq!(stage.count(), (1, 0), "the first turn asks");
    stage.clock.advance(Duration::from_micros(4_999_998));
    assert_eq!(stage.worker.turn(), Turn::Idle);
    assert_eq!(stage.count(), (1, 0), "and no other one has to");
    stage.clock.advance(Duration::from_micros(1));
    stage.next(|rows| rows.delete_record(Shelf::Job, "a").unwrap());
    assert_eq!(stage.worker.turn(), Turn::Worked);
    assert_eq!(stage.metrics.operations.get(), 1);
    stage.clock.advance(Duration::from_secs(100));
    assert_eq!(stage.worker.turn(), Turn::Idle);
    assert_eq!(stage.count(), (2, 1));
    assert_eq!(stage.heard(), Heard::default());
}

#[test]
fn what_stays_due_does_not_keep_the_writer_spinning() {
    let mut stage = Stage::with(due(1));
    assert_eq!(stage.worker.turn(), Turn::Idle, "now it is known");
    // Full, busy for too long, or left as it was: each time it is tried again a little later.
    for outcome in [Outcome::Full, Outcome::Ok, Outcome::Ok] {
        stage.disk.next_commit(outcome);
        assert_eq!(stage.worker.turn(), Turn::Worked);
        for _ in 0..10 {
            assert_eq!(stage.worker.turn(), Turn::Idle);
        }
        stage.clock.advance(Duration::from_millis(500));
    }
    assert_eq!(stage.count().1, 3);
}

#[test]
fn a_busy_store_delays_what_is_due_and_doubles_nothing() {
    let mut stage = Stage::with(due(1));
    stage.disk.busy_begins(3);
    assert_eq!(stage.worker.turn(), Turn::Busy);
    assert_eq!(stage.worker.turn(), Turn::Busy);
    assert_eq!(stage.worker.turn(), Turn::Busy);
    assert_eq!(stage.worker.turn(), Turn::Idle);
    stage.disk.next_commit(Outcome::Busy);
    stage.next(|_| {});
    stage.next(|rows| rows.delete_record(Shelf::Job, "a").unwrap());
    assert_eq!(stage.worker.turn(), Turn::Busy);
    stage.clock.advance(Duration::from_secs(1));
    assert_eq!(stage.worker.turn(), Turn::Worked);
    stage.clock.advance(Duration::from_secs(1));
    assert_eq!(stage.worker.turn(), Turn::Idle);
    assert_eq!(stage.metrics.operations.get(), 1);
}
