//! The world of one run: who is there, what they do, what they are told, and whose turn it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use commitcast::clock::{Clock, Mono, Wall};
use commitcast::config::Live;
use commitcast::metrics::{CloseLabel, Metrics};
use commitcast::model::Event;
use commitcast::mutant::Canary;
use commitcast::reactor::{Flow, Inbound};
use commitcast::store::memory::{Faults, MemoryStore};
use commitcast::store::worker::Turn;

use super::Dice;
use super::backend::{Backend, Office};
use super::client::{Answer, Client, Op, View};
use super::native::{self, Native, Place};
use super::net::{self, Shared, SimSocket, Trace, lock};
use super::ops::Ops;
use super::pages::{self, Notes, Page, Script};
use super::peer::Peer;
use super::process::{Process, start};
use super::{CASTS, CLIENTS, Cast, PROMPTS, REACTORS, ROOMS, SESSION, TOPIC, TRIMMED, WORKFLOW};

pub struct World {
    pub dice: Dice,
    pub cast: Cast,
    pub clock: Clock,
    pub live: Arc<Live>,
    pub disk: Faults,
    pub boot: u64,
    pub process: Process,
    pub clients: Vec<Client>,
    pub natives: Vec<Native>,
    pub backends: Vec<Backend>,
    pub pages: Vec<Page>,
    pub scripts: Vec<Script>,
    /// Of documents clients.
    pub edits: BTreeMap<String, Op>,
    /// Of native clients and backends.
    pub ops: Ops,
    pub office: Office,
    pub notes: Notes,
    /// Where native clients were when they went, by room.
    pub places: BTreeMap<usize, Place>,
    pub views: Vec<View>,
    pub native_views: Vec<native::View>,
    pub page_views: Vec<pages::View>,
    /// Contents that more than one documents client may have sent.
    pub resent: BTreeSet<String>,
    /// What was ever seen of the log that is trimmed.
    pub archive: BTreeMap<u64, Event>,
    pub dialled: usize,
    pub acted: usize,
    /// The latest that the wall clock ever said.
    pub latest: i64,
    pub faults: bool,
    pub canary: Canary,
    pub trace: Trace,
    /// The first places that native clients left behind, by room: far behind by now.
    pub old_places: BTreeMap<usize, Place>,
    /// Pages of clients that may come back, until the server has noticed that they are gone.
    pub ghosts: Vec<Page>,
    /// Operations that were not answered when a draining server told their sender to go, and the sender.
    pub left_alone: Vec<(String, String)>,
    pub tally: Tally,
}

/// What happened in a run, to see that it is not always the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub storms: usize,
    pub drains: usize,
    pub stalls: usize,
    pub pauses: usize,
    pub floods: usize,
    /// Closed because they read too slowly.
    pub slow: usize,
    /// Told to come back elsewhere, by a server that ends.
    pub restarted: usize,
    /// Resets that native clients were given.
    pub resets: usize,
    /// Pages of events that were read from the log for those behind.
    pub pages_read: u64,
}

impl Tally {
    /// What one process counted itself.
    pub fn note(&mut self, metrics: &Metrics) {
        self.pages_read += metrics.lagging_reads.get();
        self.slow += metrics.closes.get_or_create(&CloseLabel { code: 4008 }).get() as usize;
    }
}

impl World {
    pub fn new(seed: u64, live: &Arc<Live>, canary: Canary) -> World {
        let clock = Clock::manual(Mono(1), Wall(1_700_000_000_000_000));
        let store = MemoryStore::new(1, seed);
        let disk = store.faults();
        disk.mutate(canary);
        let process = start(store, 1, &clock, live, canary);
        let mut dice = Dice(seed);
        World {
            cast: CASTS[dice.below(CASTS.len())],
            dice,
            latest: clock.wall().0,
            clock,
            live: live.clone(),
            disk,
            boot: 1,
            process,
            clients: Vec::new(),
            natives: Vec::new(),
            backends: Vec::new(),
            pages: Vec::new(),
            scripts: Vec::new(),
            edits: BTreeMap::new(),
            ops: Ops::default(),
            office: Office::default(),
            notes: Notes::default(),
            places: BTreeMap::new(),
            views: Vec::new(),
            native_views: Vec::new(),
            page_views: Vec::new(),
            resent: BTreeSet::new(),
            archive: BTreeMap::new(),
            dialled: 0,
            acted: 0,
            faults: true,
            canary,
            trace: Trace::default(),
            old_places: BTreeMap::new(),
            ghosts: Vec::new(),
            left_alone: Vec::new(),
            tally: Tally::default(),
        }
    }

    pub fn step(&mut self) -> Result<(), String> {
        match self.dice.below(100) {
            0..=4 if self.connections() < 9 => self.dial(),
            5..=21 => self.act(),
            22..=23 => self.resend(),
            24 => self.disturb(),
            25..=47 => self.read_some()?,
            48 => self.vanish(),
            49..=51 if self.faults => self.fault(),
            52..=72 => self.turn_reactor()?,
            73..=84 => self.turn_worker()?,
            85..=92 => self.turn_reader(),
            93..=96 => {
                let millis = self.dice.below(40) as u64;
                self.clock.advance(Duration::from_millis(millis));
            }
            97 | 98 if self.dice.chance(40) => self.clock.advance(Duration::from_secs(self.dice.roll() % 7)),
            _ => self.disaster()?,
        }
        self.collect();
        Ok(())
    }

    // ---- who comes and what they do -------------------------------------------------------------------------------------

    pub fn connections(&self) -> usize {
        self.clients.len() + self.natives.len() + self.backends.len() + self.pages.len() + self.scripts.len()
    }

    pub fn dial(&mut self) {
        let [documents, natives, backends, pages] = self.cast.newcomers;
        let who = self.dice.below(10);
        if who < documents {
            self.dial_document();
        } else if who < documents + natives {
            self.dial_native();
        } else if who < documents + natives + backends {
            let backend = Backend::dial(self.connect());
            self.backends.push(backend);
        } else if who < documents + natives + backends + pages {
            let room = self.cast.pages[self.dice.below(self.cast.pages.len())];
            let client = if room == WORKFLOW { self.client_that_is_away() } else { None };
            let page = Page::dial(self.connect(), room, client);
            self.pages.push(page);
        } else {
            let script = Script::dial(self.connect());
            self.scripts.push(script);
        }
    }

    pub fn dial_native(&mut self) -> &mut Native {
        let mut native = Native::dial(self.connect(), format!("n{}", self.dialled));
        native.peer.is_lazy = self.faults && self.dice.chance(20);
        if native.peer.is_lazy {
            lock(&native.peer.wire).window = 300 + self.dice.below(3000);
        }
        self.natives.push(native);
        self.natives.last_mut().expect("one is there")
    }

    /// One that has no page now, or none.
    fn client_that_is_away(&mut self) -> Option<&'static str> {
        let client = CLIENTS[self.dice.below(CLIENTS.len())];
        let is_here = |page: &Page| page.view.client == Some(client);
        (!self.pages.iter().chain(&self.ghosts).any(is_here)).then_some(client)
    }

    pub fn dial_document(&mut self) {
        let wire = self.connect();
        let prompt = self.dice.below(PROMPTS);
        self.clients.push(Client::dial(wire, format!("c{}", self.dialled), prompt));
    }

    pub fn connect(&mut self) -> Shared {
        self.dialled += 1;
        let seed = self.dice.roll();
        let wire = net::wire(seed, self.trace.clone());
        if self.dice.chance(30) {
            lock(&wire).window = 200 + self.dice.below(400);
        }
        let reactor = self.dice.below(REACTORS);
        let socket =
            Inbound::Socket { socket: SimSocket(wire.clone()), peer: "127.0.0.1:9".parse().unwrap(), listener: 0 };
        self.process.sockets[reactor].post(socket).unwrap();
        wire
    }

    /// One of all connections does what its kind does.
    pub fn act(&mut self) {
        if !self.notes.asked.is_empty() && self.dice.chance(30) {
            return self.race();
        }
        self.acted += 1;
        let mut place = self.place_of(Peer::is_open);
        if place < self.clients.len() {
            return self.edit(place);
        }
        place -= self.clients.len();
        if place < self.natives.len() {
            return self.act_native(place);
        }
        place -= self.natives.len();
        if let Some(backend) = self.backends.get_mut(place) {
            for _ in 0..=self.dice.below(6) {
                if backend.is_live() {
                    backend.work(&mut self.dice, &mut self.office, &mut self.ops);
                }
            }
            return;
        }
        place -= self.backends.len();
        if let Some(page) = self.pages.get_mut(place) {
            if page.is_live() {
                page.act(self.acted, &self.notes.runs, &mut self.dice);
            }
            return;
        }
        place -= self.pages.len();
        if let Some(script) = self.scripts.get_mut(place)
            && script.is_idle()
        {
            match self.cast.pages.contains(&TOPIC) {
                true => script.publish(self.acted, &mut self.notes),
                false => script.make_ticket(self.acted, &mut self.notes),
            }
        }
    }

    pub fn edit(&mut self, place: usize) {
        let burst = 1 + if self.dice.chance(20) { self.dice.below(90) } else { 0 };
        let Some(client) = self.clients.get_mut(place) else { return };
        if !client.is_live() {
            return;
        }
        let ops: Vec<Op> = (0..burst).map(|_| client.edit()).collect();
        self.edits.extend(ops.into_iter().map(|op| (op.id.clone(), op)));
    }

    /// What the room's log has lost.
    pub fn floor(&self, room: usize) -> u64 {
        if ROOMS[room] == TRIMMED { self.disk.room(TRIMMED).map_or(0, |row| row.floor.0) } else { 0 }
    }

    pub fn act_native(&mut self, place: usize) {
        let floor = self.floor(ROOMS.iter().position(|room| *room == TRIMMED).unwrap_or(0));
        let floor_of = |room: usize| if ROOMS[room] == TRIMMED { floor } else { 0 };
        let Some(native) = self.natives.get_mut(place).filter(|native| native.is_live()) else { return };
        let is_new = !native.is_anywhere();
        let mut room = self.cast.rooms[self.dice.below(self.cast.rooms.len())];
        match self.dice.below(20) {
            // Whoever comes joins, one room or several.
            0..=5 | 10.. if is_new || self.dice.chance(20) => {
                for _ in 0..=self.dice.below(4) {
                    if let Some(place) = native.view.members.get(&room).and_then(native::Member::place) {
                        self.places.insert(room, place);
                    }
                    native.join(room, &self.places, floor_of(room), &mut self.dice);
                    room = self.cast.rooms[self.dice.below(self.cast.rooms.len())];
                }
            }
            6 => native.leave_room(room),
            7 => native.chat(room, &mut self.dice),
            _ => {
                let burst = if self.dice.chance(10) { self.dice.below(40) } else { self.dice.below(3) };
                for _ in 0..=burst {
                    native.publish(room, &mut self.dice, &mut self.ops);
                }
            }
        }
    }

    /// Several decide the same approval at the same time.
    pub fn race(&mut self) {
        let newest = self.notes.asked.len().saturating_sub(4);
        let asked = self.notes.asked[newest + self.dice.below(self.notes.asked.len() - newest)].clone();
        for native in &mut self.natives {
            if native.is_live() && self.dice.chance(60) {
                native.decide(&asked, &mut self.dice, &mut self.ops);
            }
        }
        for page in &mut self.pages {
            if page.is_live() && page.view.room == SESSION && self.dice.chance(60) {
                page.decide(&asked, &mut self.dice);
            }
        }
        for script in &mut self.scripts {
            if script.is_idle() && self.dice.chance(60) {
                script.decide(&asked, &mut self.dice);
            }
        }
    }

    /// An operation without an answer is sent again, from any connection that may: it must stay one.
    pub fn resend(&mut self) {
        self.resend_edit();
        let place = self.dice.below(self.ops.open.len());
        let Some(id) = self.ops.open.iter().nth(place).cloned() else { return };
        let Some(op) = self.ops.all.get_mut(&id) else { return };
        // A backend's is of another actor, so only backends can say it again.
        let from_backend = id.starts_with('b');
        let backend = self.backends.iter_mut().find(|backend| from_backend && backend.is_live());
        let native = self.natives.iter_mut().rfind(|native| !from_backend && native.is_live());
        match (backend, native) {
            (Some(backend), _) => backend.peer.say(&op.text),
            (None, Some(native)) => native.say(&id, op),
            (None, None) => return,
        }
        op.copies += 1;
        op.late += usize::from(self.disk.holds(op.room, &id));
    }

    pub fn resend_edit(&mut self) {
        let open: Vec<&Op> = self.edits.values().filter(|op| op.answer.is_none()).collect();
        let Some(op) = open.get(self.dice.below(open.len())).map(|op| (*op).clone()) else { return };
        if let Some(client) = self.clients.iter_mut().find(|client| client.is_live() && client.view.prompt == op.prompt)
        {
            client.view.resent.push(op.content.clone());
            self.resent.insert(op.content.clone());
            client.send(&op);
            if let Some(op) = self.edits.get_mut(&op.id) {
                op.copies += 1;
            }
        }
    }

    pub fn disturb(&mut self) {
        let what = self.dice.below(4);
        let place = self.dice.below(self.clients.len());
        let Some(client) = self.clients.get_mut(place) else { return };
        if client.is_live() {
            client.peer.say(match what {
                0 => "{not json",
                1 => "{\"action\":\"expand\",\"content\":\"[[p0]] [[p1]]\"}",
                2 => "{\"action\":\"invalid_action\"}",
                _ => "{\"action\":\"update\"}",
            });
        }
    }

    pub fn vanish(&mut self) {
        let place = self.dice.below(self.connections());
        if self.dice.chance(40) {
            let mut dice = self.dice.clone();
            if let Some(peer) = self.peers().nth(place) {
                peer.leave(&mut dice);
            }
            self.dice = dice;
        }
    }

    pub fn peers(&mut self) -> impl Iterator<Item = &mut Peer> {
        let clients = self.clients.iter_mut().map(|client| &mut client.peer);
        let natives = self.natives.iter_mut().map(|native| &mut native.peer);
        let backends = self.backends.iter_mut().map(|backend| &mut backend.peer);
        let pages = self.pages.iter_mut().map(|page| &mut page.peer);
        let scripts = self.scripts.iter_mut().map(|script| &mut script.peer);
        clients.chain(natives).chain(backends).chain(pages).chain(scripts)
    }

    // ---- what they are told ---------------------------------------------------------------------------------------------

    /// One of those who have something to read, mostly.
    pub fn read_some(&mut self) -> Result<(), String> {
        let place = self.place_of(|peer| !lock(&peer.wire).to_client.is_empty());
        if self.faults && self.peers().nth(place).is_some_and(|peer| peer.is_lazy) && !self.dice.chance(6) {
            return Ok(());
        }
        let most = [1, 7, 60, 300, 100_000, 100_000][self.dice.below(6)];
        self.read(place, most)
    }

    /// A connection of this kind, if there is one, or any.
    pub fn place_of(&mut self, fits: impl Fn(&Peer) -> bool) -> usize {
        let from = self.dice.below(self.connections());
        let fit: Vec<bool> = self.peers().map(|peer| fits(peer)).collect();
        (0..fit.len()).map(|step| (from + step) % fit.len()).find(|place| fit[*place]).unwrap_or(from)
    }

    /// The connection in this place reads some bytes.
    pub fn read(&mut self, mut place: usize, most: usize) -> Result<(), String> {
        if let Some(client) = self.clients.get_mut(place) {
            let mut answers = Vec::new();
            let read = client.read(most, &mut answers);
            self.answered(answers);
            return read;
        }
        place -= self.clients.len();
        if let Some(native) = self.natives.get_mut(place) {
            return native.read(most, &mut self.ops, &mut self.notes.asked);
        }
        place -= self.natives.len();
        if let Some(backend) = self.backends.get_mut(place) {
            return backend.read(most, &mut self.dice, &mut self.office, &mut self.ops);
        }
        place -= self.backends.len();
        if let Some(page) = self.pages.get_mut(place) {
            let was_out = !page.is_in();
            page.read(most, &mut self.notes)?;
            if was_out && page.is_in() {
                // What comes from now on must be shown, for it was let in before.
                page.view.from = Some(self.disk.log(page.view.room).len());
            }
            return Ok(());
        }
        place -= self.pages.len();
        match self.scripts.get_mut(place) {
            Some(script) => script.read(most, &mut self.notes),
            None => Ok(()),
        }
    }

    pub fn answered(&mut self, answers: Vec<(String, Answer)>) {
        for (id, answer) in answers {
            if let Some(op) = self.edits.get_mut(&id) {
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

    /// Where it is, for whoever comes after it.
    pub fn remember(&mut self, native: &Native) {
        for (room, place) in native.view.members.iter().filter_map(|(room, member)| Some((*room, member.place()?))) {
            self.old_places.entry(room).or_insert_with(|| place.clone());
            self.places.insert(room, place);
        }
    }

    /// What the kernel took for a client before the server noticed that it was gone counts as shown.
    pub fn lay_ghosts(&mut self) {
        for mut page in self.ghosts.extract_if(.., |page| lock(&page.peer.wire).server_gone) {
            // What cannot be read any more is not a page's affair.
            let is_cut = page.read(usize::MAX, &mut self.notes).is_err() || page.peer.is_cut();
            self.page_views.push(pages::View { ended: true, is_cut, ..page.view });
        }
    }

    pub fn drain_clients(&mut self) -> Result<(), String> {
        (0..self.connections()).try_for_each(|place| self.read(place, usize::MAX))
    }

    /// Connections that have ended are kept as what they were shown.
    pub fn collect(&mut self) {
        for client in take_gone(&mut self.clients, |client| &client.peer) {
            self.views.push(View { ended: true, ..client.view });
        }
        for native in take_gone(&mut self.natives, |native| &native.peer) {
            match &native.peer.close {
                Some((1012, reason)) if reason.starts_with("restart ") => {
                    self.tally.restarted += 1;
                    self.left_alone.extend(native.asked.keys().map(|id| (id.clone(), native.view.number.clone())));
                }
                _ => {}
            }
            self.remember(&native);
            self.native_views.push(native::View { ended: true, ..native.view });
        }
        for mut backend in take_gone(&mut self.backends, |backend| &backend.peer) {
            backend.bury(&mut self.office);
        }
        for page in take_gone(&mut self.pages, |page| &page.peer) {
            match page.view.client {
                Some(_) => self.ghosts.push(page),
                None => self.page_views.push(pages::View { ended: true, ..page.view }),
            }
        }
        self.lay_ghosts();
        take_gone(&mut self.scripts, |script| &script.peer);
    }

    // ---- turns ----------------------------------------------------------------------------------------------------------

    pub fn turn_reactor(&mut self) -> Result<(), String> {
        let place = self.dice.below(REACTORS);
        self.turn_of(place).map(drop)
    }

    pub fn turn_of(&mut self, place: usize) -> Result<Flow, String> {
        let reactor = &mut self.process.reactors[place];
        let flow = reactor.turn().map_err(|error| error.to_string())?;
        #[cfg(debug_assertions)]
        reactor.check_invariants();
        Ok(flow)
    }

    pub fn turn_reader(&mut self) {
        let reader = self.dice.below(self.process.readers.len());
        self.process.readers[reader].turn();
    }

    pub fn turn_worker(&mut self) -> Result<(), String> {
        let turn = self.process.worker.turn();
        if turn == Turn::Worked {
            self.keep_the_trimmed();
        }
        if turn == Turn::Broken && self.dice.chance(50) {
            // The supervisor starts it again.
            self.crash()?;
        }
        Ok(())
    }

    /// What one batch wrote and trimmed is lost to us, too.
    pub fn keep_the_trimmed(&mut self) {
        if self.cast.rooms.iter().any(|room| ROOMS[*room] == TRIMMED) {
            let seen = self.archive.keys().next_back().copied().unwrap_or(0);
            self.archive.extend(self.disk.log_after(TRIMMED, seen).into_iter().map(|event| (event.seq.0, event)));
        }
    }
}

/// The connections that are over, out of those that are there.
pub fn take_gone<T>(all: &mut Vec<T>, peer: impl Fn(&T) -> &Peer) -> Vec<T> {
    if all.iter().all(|one| !peer(one).ended) {
        return Vec::new();
    }
    let gone: Vec<T> = all.extract_if(.., |one| peer(one).is_gone()).collect();
    for one in &gone {
        lock(&peer(one).wire).client_leaves(false);
    }
    gone
}
