//! The seeded simulation: the real reactors, connections, rooms, documents dialect, worker and reader, on a scripted
//! network, a manual clock and a store that fails. One seed is one run; a failure prints the seed that replays it.
//!
//! Held against the log at the end of each run (PROMISES.md): G1 nobody was shown what is not in it; G2 what was
//! acknowledged is in it, at the seq that was said; G3 what was refused is not; G4 each connection was shown a contiguous
//! run of it, in order, without its own edits; G5 an operation is in it at most once, however often it was sent; G6 a
//! connection begins where its snapshot ends; L5 after the faults have healed everybody is at the head.

mod client;
mod net;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use commitcast::backlog::Backlog;
use commitcast::clock::{Clock, Mono, Wall};
use commitcast::config::{Flags, Settings};
use commitcast::dialect::{Env, Name, documents};
use commitcast::directory::Directory;
use commitcast::files;
use commitcast::guests::Guests;
use commitcast::mailbox::{self, Mailbox};
use commitcast::metrics::Metrics;
use commitcast::presence::Presence;
use commitcast::reactor::{self, Inbound, Reactor};
use commitcast::service::Status;
use commitcast::store::memory::{Faults, MemorySnapshots, MemoryStore, Outcome};
use commitcast::store::reader::Reader;
use commitcast::store::worker::{self, Turn, Worker};
use commitcast::store::{Pulse, Retention};

use self::client::{Answer, Client, Op, View};
use self::net::{Dice, SimPoller, SimSocket, lock};

const PROMPTS: usize = 3;
const REACTORS: usize = 2;
const STEPS: usize = 260;

type Post = Inbound<SimSocket>;

/// One life of the process.
struct Process {
    reactors: Vec<Reactor<SimPoller>>,
    sockets: Vec<Mailbox<Post>>,
    worker: Worker<MemoryStore, Post>,
    readers: Vec<Reader<MemorySnapshots, Post>>,
}

struct World {
    dice: Dice,
    clock: Clock,
    live: Arc<commitcast::config::Live>,
    disk: Faults,
    boot: u64,
    process: Process,
    clients: Vec<Client>,
    ops: BTreeMap<String, Op>,
    views: Vec<View>,
    /// Contents that more than one connection may have sent.
    resent: BTreeSet<String>,
    dialled: usize,
    faults: bool,
    canary: bool,
}

fn live() -> Arc<commitcast::config::Live> {
    let flags = Flags { listen: vec!["127.0.0.1:0".to_owned()], debug: true, ..Flags::default() };
    Settings::build(&flags, std::iter::empty(), |_| Err(std::io::ErrorKind::NotFound.into())).unwrap().live()
}

fn start(
    mut store: MemoryStore,
    boot: u64,
    clock: &Clock,
    live: &Arc<commitcast::config::Live>,
    canary: bool,
) -> Process {
    let env = Arc::new(Env::default());
    if boot == 1 {
        let prompts = (0..PROMPTS).map(|number| documents::Import {
            directory: "d".to_owned(),
            name: format!("p{number}"),
            content: format!("born.p{number}"),
            description: None,
            tags: Vec::new(),
            created_at: None,
            updated_at: None,
            digest: [0; 20],
        });
        files::load(&mut store, prompts.collect(), &env, clock.wall()).unwrap();
    }
    let directory = Arc::new(Directory::default());
    let metrics = Arc::new(Metrics::default());
    let pulse = Arc::new(Pulse::default());
    let backlog = Arc::new(Backlog::new(1 << 28));
    let status = Arc::new(Status::new(metrics.clone(), pulse.clone(), "full", "debug"));
    let (jobs, jobs_inbox) = mailbox::channel(64);
    let (questions, questions_inbox) = mailbox::channel(64);
    let (sockets, inboxes): (Vec<_>, Vec<_>) = (0..REACTORS).map(|_| mailbox::channel::<Post>(4096)).unzip();
    let readers =
        (0..2).map(|_| Reader::new(store.snapshots(), questions_inbox.clone(), sockets.clone(), env.clone())).collect();
    let worker = Worker::new(
        store,
        worker::Wiring {
            inbox: jobs_inbox,
            reactors: sockets.clone(),
            files: None,
            directory: directory.clone(),
            env: env.clone(),
            clock: clock.clone(),
            metrics,
            pulse,
            backlog: backlog.clone(),
            retention: Arc::new(ArcSwap::from_pointee(Retention::default())),
        },
    );
    #[cfg(feature = "canary")]
    let worker = {
        let mut worker = worker;
        if canary {
            worker.break_the_commit_gate();
        }
        worker
    };
    #[cfg(not(feature = "canary"))]
    assert!(!canary, "the gate can be broken in a canary build only");
    let presence = Arc::new(Presence::default());
    let reactors = inboxes
        .into_iter()
        .enumerate()
        .map(|(index, inbox)| {
            Reactor::new(
                SimPoller::new(boot * 1000 + index as u64),
                reactor::Wiring {
                    index: index as u8,
                    inbox,
                    writers: vec![jobs.clone()],
                    readers: questions.clone(),
                    files: None,
                    backlog: backlog.clone(),
                    responses: backlog.clone(),
                    directory: directory.clone(),
                    presence: presence.clone(),
                    peers: sockets.clone(),
                    guests: Arc::new(Guests::default()),
                    env: env.clone(),
                    clock: clock.clone(),
                    status: status.clone(),
                    live: Arc::new(ArcSwap::new(live.clone())),
                    listeners: vec![Name::ALL.to_vec()],
                },
            )
        })
        .collect();
    Process { reactors, sockets, worker, readers }
}

impl World {
    fn new(seed: u64, live: &Arc<commitcast::config::Live>, canary: bool) -> World {
        let clock = Clock::manual(Mono(1), Wall(1_700_000_000_000_000));
        let store = MemoryStore::new(1, seed);
        let disk = store.faults();
        let process = start(store, 1, &clock, live, canary);
        World {
            dice: Dice(seed),
            clock,
            live: live.clone(),
            disk,
            boot: 1,
            process,
            clients: Vec::new(),
            ops: BTreeMap::new(),
            views: Vec::new(),
            resent: BTreeSet::new(),
            dialled: 0,
            faults: true,
            canary,
        }
    }

    fn step(&mut self) -> Result<(), String> {
        match self.dice.below(100) {
            0..=5 if self.clients.len() < 8 => self.dial(),
            6..=17 => self.edit(),
            18..=19 => self.resend(),
            20..=21 => self.disturb(),
            22..=41 => self.read()?,
            42..=43 => self.vanish(),
            44..=47 if self.faults => self.fault(),
            48..=67 => self.turn_reactor()?,
            68..=80 => self.turn_worker()?,
            81..=90 => {
                let reader = self.dice.below(self.process.readers.len());
                self.process.readers[reader].turn();
            }
            91..=97 => {
                let millis = self.dice.below(40) as u64;
                self.clock.advance(Duration::from_millis(millis));
            }
            98 => self.clock.advance(Duration::from_secs(self.dice.roll() % 7)),
            _ => {
                if self.dice.chance(20) {
                    self.crash()?;
                }
            }
        }
        self.collect()
    }

    fn dial(&mut self) {
        self.dialled += 1;
        let seed = self.dice.roll();
        let wire = net::wire(seed);
        if self.dice.chance(30) {
            lock(&wire).window = 200 + self.dice.below(400);
        }
        let prompt = self.dice.below(PROMPTS);
        self.clients.push(Client::dial(wire.clone(), format!("c{}", self.dialled), prompt));
        let reactor = self.dice.below(REACTORS);
        let socket = Inbound::Socket { socket: SimSocket(wire), peer: "127.0.0.1:9".parse().unwrap(), listener: 0 };
        self.process.sockets[reactor].post(socket).unwrap();
    }

    fn some_client(&mut self) -> Option<&mut Client> {
        let place = self.dice.below(self.clients.len());
        self.clients.get_mut(place)
    }

    fn edit(&mut self) {
        let burst = 1 + if self.dice.chance(20) { self.dice.below(90) } else { 0 };
        let Some(client) = self.some_client() else { return };
        if !client.is_live() {
            return;
        }
        let ops: Vec<Op> = (0..burst).map(|_| client.edit()).collect();
        self.ops.extend(ops.into_iter().map(|op| (op.id.clone(), op)));
    }

    /// An operation without an answer is sent again, from any connection to the same prompt: it must stay one.
    fn resend(&mut self) {
        let open: Vec<Op> = self.ops.values().filter(|op| op.answer.is_none()).cloned().collect();
        let Some(op) = open.get(self.dice.below(open.len())).cloned() else { return };
        if let Some(client) = self.clients.iter_mut().find(|client| client.is_live() && client.view.prompt == op.prompt)
        {
            client.view.resent.push(op.content.clone());
            self.resent.insert(op.content.clone());
            client.send(&op);
            if let Some(op) = self.ops.get_mut(&op.id) {
                op.copies += 1;
            }
        }
    }

    fn disturb(&mut self) {
        let what = self.dice.below(4);
        let Some(client) = self.some_client() else { return };
        if client.is_live() {
            client.say(match what {
                0 => "{not json",
                1 => "{\"action\":\"expand\",\"content\":\"[[p0]] [[p1]]\"}",
                2 => "{\"action\":\"invalid_action\"}",
                _ => "{\"action\":\"update\"}",
            });
        }
    }

    fn read(&mut self) -> Result<(), String> {
        let most = [1, 7, 60, 300, 100_000][self.dice.below(5)];
        let place = self.dice.below(self.clients.len());
        if let Some(client) = self.clients.get_mut(place) {
            let mut answers = Vec::new();
            let read = client.read(most, &mut answers);
            self.answered(answers);
            read?;
        }
        Ok(())
    }

    fn answered(&mut self, answers: Vec<(String, Answer)>) {
        for (id, answer) in answers {
            if let Some(op) = self.ops.get_mut(&id) {
                op.refusals += usize::from(answer == Answer::Refused);
                // A refusal of a resend says nothing of the original that is still under way, and a success is for ever.
                match (&op.answer, &answer) {
                    (Some(Answer::Saved { seq: first }), Answer::Saved { seq }) => assert_eq!(first, seq, "{id}"),
                    (Some(Answer::Saved { .. }), Answer::Refused) => {}
                    _ => op.answer = Some(answer),
                }
            }
        }
    }

    fn vanish(&mut self) {
        let place = self.dice.below(self.clients.len());
        if place < self.clients.len() && self.dice.chance(40) {
            let mut dice = self.dice.clone();
            self.clients[place].leave(&mut dice);
            self.dice = dice;
        }
    }

    fn fault(&mut self) {
        let outcome = match self.dice.below(8) {
            0..=2 => Outcome::Busy,
            3..=4 => Outcome::Full,
            5 => Outcome::LostAnswer { stored: true },
            6 => Outcome::LostAnswer { stored: false },
            _ => {
                self.disk.busy_begins(1 + self.dice.below(3) as u32);
                return;
            }
        };
        if self.dice.chance(35) {
            self.disk.next_commit(outcome);
        }
    }

    fn turn_reactor(&mut self) -> Result<(), String> {
        let place = self.dice.below(REACTORS);
        let reactor = &mut self.process.reactors[place];
        reactor.turn().map_err(|error| error.to_string())?;
        #[cfg(debug_assertions)]
        reactor.check_invariants();
        Ok(())
    }

    fn turn_worker(&mut self) -> Result<(), String> {
        if self.process.worker.turn() == Turn::Broken && self.dice.chance(50) {
            // The supervisor starts it again.
            self.crash()?;
        }
        Ok(())
    }

    /// SIGKILL between two steps, and a new start on what was durable.
    fn crash(&mut self) -> Result<(), String> {
        for client in &mut self.clients {
            lock(&client.wire).server_gone = true;
        }
        // What the kernel already holds for a client still arrives.
        self.drain_clients()?;
        for mut client in std::mem::take(&mut self.clients) {
            client.view.ended = true;
            self.views.push(client.view);
        }
        self.boot += 1;
        let store = self.disk.reopen(self.boot);
        self.process = start(store, self.boot, &self.clock, &self.live, self.canary);
        Ok(())
    }

    fn drain_clients(&mut self) -> Result<(), String> {
        let mut answers = Vec::new();
        let read = self.clients.iter_mut().try_for_each(|client| client.read(usize::MAX, &mut answers));
        self.answered(answers);
        read
    }

    /// Connections that have ended are kept as what they were shown.
    fn collect(&mut self) -> Result<(), String> {
        let mut place = 0;
        while place < self.clients.len() {
            let client = &self.clients[place];
            let wire = lock(&client.wire);
            let gone = client.view.ended && (wire.client_gone || wire.server_gone || client.refused);
            drop(wire);
            if gone {
                let mut client = self.clients.swap_remove(place);
                lock(&client.wire).client_leaves(false);
                client.view.ended = true;
                self.views.push(client.view);
            } else {
                place += 1;
            }
        }
        Ok(())
    }

    /// No more faults: everything that is under way comes to its end.
    fn heal(&mut self) -> Result<(), String> {
        self.faults = false;
        if self.process.worker.turn() == Turn::Broken {
            self.crash()?;
        }
        for client in &mut self.clients {
            lock(&client.wire).calm();
        }
        let mut quiet = 0;
        for _ in 0..4000 {
            let before = self.pulse();
            for place in 0..REACTORS {
                self.process.reactors[place].turn().map_err(|error| error.to_string())?;
            }
            if self.process.worker.turn() == Turn::Broken {
                self.crash()?;
            }
            for reader in &mut self.process.readers {
                while reader.turn() {}
            }
            self.drain_clients()?;
            self.clock.advance(Duration::from_millis(1));
            quiet = if self.pulse() == before { quiet + 1 } else { 0 };
            if quiet > 20 {
                return Ok(());
            }
        }
        Err("it does not come to rest".to_owned())
    }

    fn pulse(&self) -> (usize, usize) {
        let shown = self.clients.iter().map(|client| client.view.updates.len()).sum();
        (shown, self.ops.values().filter(|op| op.answer.is_some()).count())
    }

    fn verdict(mut self) -> Result<Run, String> {
        let live: Vec<View> = self.clients.drain(..).map(|client| client.view).collect();
        let mut events = 0;
        for prompt in 0..PROMPTS {
            let log = self.disk.log(&format!("doc:d/p{prompt}"));
            events += log.len();
            let mut contents = Vec::new();
            let mut counted: BTreeMap<String, u64> = BTreeMap::new();
            for (place, event) in log.iter().enumerate() {
                if event.seq.0 != place as u64 + 1 {
                    return Err(format!("G4: p{prompt} has seq {} in place {}", event.seq.0, place + 1));
                }
                let body: serde_json::Value = serde_json::from_slice(&event.body).map_err(|error| error.to_string())?;
                let content = body["content"].as_str().unwrap_or_default().to_owned();
                if let Some(first) = counted.insert(content.clone(), event.seq.0) {
                    return Err(format!("G5: {content} is in p{prompt} at {first} and at {}", event.seq.0));
                }
                contents.push(content);
            }
            for op in self.ops.values().filter(|op| op.prompt == prompt) {
                match (&op.answer, counted.get(&op.content)) {
                    (Some(Answer::Saved { seq }), stored) if stored != Some(seq) => {
                        return Err(format!(
                            "G2: {} was acknowledged at {seq}; the log has it at {stored:?}",
                            op.content
                        ));
                    }
                    (Some(Answer::Refused), Some(seq)) if op.refusals == op.copies => {
                        return Err(format!("G3: {} was refused; the log has it at {seq}", op.content));
                    }
                    _ => {}
                }
            }
            let at_rest = live.iter().filter(|view| !view.ended);
            for (view, must_be_at_head) in
                self.views.iter().map(|view| (view, false)).chain(at_rest.map(|view| (view, true)))
            {
                if view.prompt == prompt {
                    check_view(view, &self.resent, &contents, &counted, must_be_at_head)?;
                }
            }
        }
        Ok(Run { events, connections: self.dialled, boots: self.boot as usize })
    }
}

fn check_view(
    view: &View,
    resent: &BTreeSet<String>,
    contents: &[String],
    counted: &BTreeMap<String, u64>,
    must_be_at_head: bool,
) -> Result<(), String> {
    let Some(initial) = &view.initial else { return Ok(()) };
    let Some(from) = counted.get(initial) else {
        return Err(format!("G1: {} began with {initial}, which is not in the log", view.mark));
    };
    let mut shown = view.updates.iter().peekable();
    for content in contents.iter().skip(*from as usize) {
        // Nobody is shown its own edit. Whose edit an operation is that two connections sent, only the server knows.
        let own = content.starts_with(&view.mark);
        let maybe = resent.contains(content) && (own || view.resent.contains(content));
        if (own && !maybe) || (maybe && shown.peek() != Some(&content)) {
            continue;
        }
        match shown.next() {
            Some(next) if next == content => {}
            None if !must_be_at_head => return Ok(()),
            None => return Err(format!("L5: {} was not shown {content} and what follows", view.mark)),
            Some(next) if !counted.contains_key(next) => {
                return Err(format!("G1: {} was shown {next}, which is not in the log", view.mark));
            }
            Some(next) => {
                return Err(format!("G4/G6: {} began at {from} and was shown {next} instead of {content}", view.mark));
            }
        }
    }
    match shown.next() {
        None => Ok(()),
        Some(next) if counted.contains_key(next) => {
            Err(format!("G4: {} was shown {next} twice or too late", view.mark))
        }
        Some(next) => Err(format!("G1: {} was shown {next}, which is not in the log", view.mark)),
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Run {
    events: usize,
    connections: usize,
    boots: usize,
}

fn run(seed: u64, live: &Arc<commitcast::config::Live>, canary: bool) -> Result<Run, String> {
    let mut world = World::new(seed, live, canary);
    for _ in 0..STEPS {
        world.step()?;
    }
    // Joins that race with the last writes: afterwards no event comes that would give away a hole.
    for _ in 0..4 {
        world.dial();
        world.edit();
        for _ in 0..12 {
            world.turn_reactor()?;
            world.read()?;
            if world.dice.chance(50) {
                world.turn_worker()?;
            }
            let reader = world.dice.below(2);
            world.process.readers[reader].turn();
        }
    }
    world.heal()?;
    world.verdict()
}

fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("SIM_SEED").unwrap_or(1);
    first..first + number("SIM_SEEDS").unwrap_or(default)
}

/// `SIM_SEEDS=10000 cargo test --release --test it simulation` runs more; `SIM_SEED=n SIM_SEEDS=1` replays one.
#[test]
fn no_seed_breaks_a_promise() {
    let live = live();
    let mut total = Run::default();
    let range = seeds(500);
    let count = range.end - range.start;
    let begun = std::time::Instant::now();
    for seed in range {
        let run = run(seed, &live, false)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}\nreplay with SIM_SEED={seed} SIM_SEEDS=1"));
        total.events += run.events;
        total.connections += run.connections;
        total.boots += run.boots;
    }
    println!(
        "{count} seeds, {} events, {} connections, {} processes, {:.0} seeds/s, 0 violations",
        total.events,
        total.connections,
        total.boots,
        count as f64 / begun.elapsed().as_secs_f64()
    );
    // One seed may be a quiet one.
    let quiet = count > 10;
    assert!(
        !quiet || total.events as u64 > count * 10 && total.boots as u64 > count,
        "the runs must do something: {total:?}"
    );
}

#[cfg(feature = "canary")]
#[test]
fn a_broken_commit_gate_is_noticed() {
    let live = live();
    let caught = (1..=1000).find_map(|seed| run(seed, &live, true).err().map(|error| (seed, error)));
    let (seed, error) = caught.expect("1,000 seeds did not notice that frames go out before the commit");
    println!("caught at seed {seed}: {error}");
}
