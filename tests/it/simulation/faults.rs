//! What goes wrong: the store, the clock, the network all at once, a thread that sleeps, a process that ends well or badly.

use std::sync::atomic::Ordering;
use std::time::Duration;

use commitcast::clock::Clock;
use commitcast::model::RowsError;
use commitcast::reactor::{Control, Flow, Inbound};
use commitcast::store::memory::Outcome;
use commitcast::store::worker::Turn;

use super::net::lock;
use super::process::start;
use super::world::World;
use super::{CHAT, REACTORS, ROOMS, SESSION};

/// More than a room keeps for those behind, so that they read the log (`limits::RECENT_EVENTS_MAX`).
const FLOOD: usize = 70;
/// Rounds in which a draining server has ended, at 25 ms each: the window, the slowest client's last deadlines, and the time
/// after which nobody is waited for.
const DRAIN_ROUNDS: usize = 4000;
/// After which nobody is waited for: `drain.timeout`.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Of a mailbox with 512 places, which nobody may fill while its reader sleeps: there is one thread here.
const MAILBOX_FULL: usize = 300;

impl World {
    // ---- the store --------------------------------------------------------------------------------------------------------

    pub fn fault(&mut self) {
        if self.dice.chance(60) {
            return;
        }
        let broken = || RowsError::Broken("input/output error".to_owned());
        match self.dice.below(20) {
            0..=3 => self.disk.next_commit(Outcome::Busy),
            4..=5 => self.disk.next_commit(Outcome::Full),
            6..=7 => self.disk.next_commit(Outcome::LostAnswer { stored: self.dice.chance(50) }),
            8 => self.disk.next_commit(Outcome::Broken),
            9..=11 => self.disk.busy_begins(1 + self.dice.below(3) as u32),
            12..=14 => self.disk.next_write(self.dice.below(8) as u32, RowsError::Full),
            15 => self.disk.next_write(self.dice.below(8) as u32, broken()),
            16..=17 => self.disk.next_snapshot(RowsError::Busy),
            18 => self.disk.next_snapshot(broken()),
            _ => {
                let error = [RowsError::Busy, RowsError::Full, broken()][self.dice.below(3)].clone();
                self.disk.next_tidy(error);
            }
        }
    }

    // ---- all at once ------------------------------------------------------------------------------------------------------

    pub fn disaster(&mut self) -> Result<(), String> {
        match self.dice.below(16) {
            0 | 1 => self.crash()?,
            2 | 3 => self.step_the_wall_clock(),
            4 | 5 => self.storms()?,
            6 => self.drain()?,
            7 => self.stall()?,
            8 => self.pause()?,
            9..=12 => self.flood(),
            // The whole process is stopped for a while, with work queued everywhere.
            13 => self.clock.advance(Duration::from_millis(self.dice.roll() % 40_000)),
            _ => {}
        }
        Ok(())
    }

    /// A break of the network, or two with some seconds between them, in which what was remembered of rooms may have
    /// become old.
    fn storms(&mut self) -> Result<(), String> {
        self.storm();
        if self.dice.chance(70) {
            return Ok(());
        }
        for round in 0..24 {
            self.turn_reactor()?;
            self.turn_reader();
            self.read_some()?;
            self.collect();
            if round >= 16 {
                self.act();
                self.turn_worker()?;
                self.clock.advance(Duration::from_secs(1));
            }
        }
        self.storm();
        Ok(())
    }

    /// Everybody is cut off in one moment. In the next, native clients are back, where they were or far behind.
    fn storm(&mut self) {
        self.tally.storms += 1;
        let natives = std::mem::take(&mut self.natives);
        for native in &natives {
            self.remember(native);
        }
        self.natives = natives;
        let mut dice = self.dice.clone();
        for peer in self.peers().filter(|peer| peer.is_open()) {
            peer.leave(&mut dice);
        }
        self.dice = dice;
        for _ in 0..3 + self.dice.below(6) {
            let mut joins = Vec::new();
            for _ in 0..=self.dice.below(2) {
                let room = self.cast.rooms[self.dice.below(self.cast.rooms.len())];
                let places = if self.dice.chance(40) { &self.old_places } else { &self.places };
                joins.push((room, places.get(&room).cloned(), self.floor(room)));
            }
            let native = self.dial_native();
            joins.into_iter().for_each(|(room, since, floor)| native.plan(room, since, floor));
        }
    }

    /// More events in one room than it keeps in memory.
    fn flood(&mut self) {
        let from = self.dice.below(self.natives.len());
        let count = FLOOD + self.dice.below(FLOOD);
        let is_fit = |room: &usize| ![SESSION, CHAT].contains(&ROOMS[*room]);
        for step in 0..self.natives.len() {
            let place = (from + step) % self.natives.len();
            let native = &mut self.natives[place];
            let room = native.view.members.keys().copied().find(is_fit).filter(|_| native.is_live());
            let Some(room) = room else { continue };
            self.tally.floods += 1;
            for _ in 0..count {
                native.publish(room, &mut self.dice, &mut self.ops);
            }
            return;
        }
    }

    // ---- threads that sleep -----------------------------------------------------------------------------------------------

    /// The disk hangs for longer than anybody waits for an answer. Then it goes on.
    fn stall(&mut self) -> Result<(), String> {
        self.tally.stalls += 1;
        for _ in 0..20 + self.dice.below(20) {
            self.act();
            self.resend();
            self.turn_reactor()?;
            self.read_some()?;
            self.turn_reader();
            let millis = self.dice.roll() % 700;
            self.clock.advance(Duration::from_millis(millis));
            self.collect();
        }
        Ok(())
    }

    /// One reactor sleeps; the others go on.
    fn pause(&mut self) -> Result<(), String> {
        self.tally.pauses += 1;
        let victim = self.dice.below(REACTORS);
        for _ in 0..20 + self.dice.below(20) {
            if self.process.sockets[victim].len() > MAILBOX_FULL {
                break;
            }
            self.act();
            for other in (0..REACTORS).filter(|place| *place != victim) {
                self.turn_of(other)?;
            }
            self.turn_worker()?;
            self.turn_reader();
            self.read_some()?;
            let millis = self.dice.roll() % 500;
            self.clock.advance(Duration::from_millis(millis));
            self.collect();
        }
        Ok(())
    }

    // ---- the clock --------------------------------------------------------------------------------------------------------

    /// L9: somebody sets the machine's clock.
    pub fn step_the_wall_clock(&mut self) {
        const DAY: i64 = 24 * 60 * 60 * 1_000_000;
        self.latest = self.latest.max(self.clock.wall().0);
        let steps = [-DAY, -5_000_000, 5_000_000, DAY];
        let step = steps[self.dice.below(4)];
        self.set_wall(self.clock.wall().0 + step);
    }

    pub fn set_wall(&mut self, micros: i64) {
        if let Clock::Manual(time) = &self.clock {
            time.1.store(micros as u64, Ordering::Relaxed);
        }
        self.latest = self.latest.max(micros);
    }

    // ---- the process ------------------------------------------------------------------------------------------------------

    /// SIGKILL between two steps, and a new start on what was durable.
    pub fn crash(&mut self) -> Result<(), String> {
        self.end_of_process()?;
        self.restart();
        Ok(())
    }

    /// SIGTERM in the middle of everything (L6): nobody new comes, whoever is there is answered and told to go, the writer
    /// empties its queue, and the next process starts on the same disk.
    fn drain(&mut self) -> Result<(), String> {
        self.tally.drains += 1;
        let window = Duration::from_millis(self.dice.roll() % 3000);
        self.process.status.drain();
        for mailbox in &mut self.process.sockets {
            mailbox.post_or_wait(Inbound::Control(Control::Drain { window }));
        }
        let boot = self.boot;
        let deadline = self.clock.mono().after(DRAIN_TIMEOUT);
        let mut is_stopped = false;
        let mut ended = [false; REACTORS];
        for _ in 0..DRAIN_ROUNDS {
            if self.dice.chance(20) {
                self.act();
            }
            for (place, ended) in ended.iter_mut().enumerate() {
                *ended = *ended || self.turn_of(place)? == Flow::End;
            }
            // Whoever reads a little now and then is left alone for as long as he does. Only for such a one is a server ended
            // before it has said everything; whoever is owed nothing must be gone by himself. (Seed 2081919.)
            let is_late = !is_stopped && self.clock.mono() >= deadline;
            if is_late && self.peers().any(|peer| !lock(&peer.wire).to_client.is_empty()) {
                is_stopped = true;
                for mailbox in &mut self.process.sockets {
                    mailbox.post_or_wait(Inbound::Control(Control::Stop));
                }
            }
            if self.dice.chance(70) {
                self.turn_worker()?;
            }
            if self.boot != boot {
                // The store broke, and the supervisor was faster.
                return Ok(());
            }
            self.turn_reader();
            self.read_some()?;
            self.collect();
            let millis = self.dice.roll() % 50;
            self.clock.advance(Duration::from_millis(millis));
            if ended == [true; REACTORS] {
                break;
            }
        }
        if ended != [true; REACTORS] {
            return Err(format!("L6: the server does not end: {ended:?}"));
        }
        loop {
            match self.process.worker.turn() {
                Turn::Worked => self.keep_the_trimmed(),
                Turn::Busy => self.clock.advance(Duration::from_millis(5)),
                Turn::Idle | Turn::Broken => break,
            }
        }
        self.end_of_process()?;
        self.restart();
        Ok(())
    }

    fn end_of_process(&mut self) -> Result<(), String> {
        self.tally.note(&self.process.status.metrics);
        let wires: Vec<_> = self.peers().map(|peer| peer.wire.clone()).collect();
        for wire in wires.iter().chain(self.ghosts.iter().map(|page| &page.peer.wire)) {
            lock(wire).server_gone = true;
        }
        // What the kernel already holds for a client still arrives.
        self.drain_clients()?;
        for peer in self.peers() {
            peer.ended = true;
        }
        self.collect();
        Ok(())
    }

    fn restart(&mut self) {
        self.boot += 1;
        let store = self.disk.reopen(self.boot);
        self.process = start(store, self.boot, &self.clock, &self.live, self.canary);
        self.keep_the_trimmed();
    }
}
