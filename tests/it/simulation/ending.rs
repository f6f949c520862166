//! How a run ends: the faults heal and everybody comes to the head; somebody is away for a while and comes back; then
//! everybody goes and nothing is left of them.

use std::time::Duration;

use commitcast::ids::RoomName;
use commitcast::model::TaskKind;
use commitcast::store::worker::Turn;

use super::backend::Backend;
use super::net::lock;
use super::pages::Page;
use super::process::Process;
use super::verdict::{WAITING_MAX, encoded_log};
use super::world::World;
use super::{QUIET, QUIET_AT_LAST, REACTORS, ROOMS, WORKFLOW};

/// Rounds after which whatever was asked for has come about.
const SETTLED: usize = 8;

impl World {
    /// No more faults: everything that is under way comes to its end.
    pub fn heal(&mut self) -> Result<(), String> {
        self.faults = false;
        self.disk.calm();
        if self.process.worker.turn() == Turn::Broken {
            self.crash()?;
        }
        // Whatever has a time was given one of a few seconds.
        // (And the clock may have come further since it was last set: seeds 142357 and 152797.)
        self.set_wall(self.latest.max(self.clock.wall().0) + 120_000_000);
        let mut quiet = 0;
        for _ in 0..4000 {
            if !self.backends.iter().any(|backend| backend.is_tireless) {
                let backend = Backend::tireless(self.connect());
                self.backends.push(backend);
            }
            let (before, boot) = (self.pulse(), self.boot);
            let open: Vec<bool> = self.peers().map(|peer| peer.is_open()).collect();
            self.round()?;
            // What looks around by itself does so now and then only; and what was asked for in the last moment is due in
            // `EXPIRES_SECONDS_MAX`.
            self.clock.advance(if quiet > QUIET { Duration::from_secs(1) } else { Duration::from_millis(1) });
            if quiet > QUIET && boot == self.boot {
                let closed = self.peers().zip(open).find_map(|(peer, open)| peer.close.clone().filter(|_| open));
                if let Some((code, reason)) = closed {
                    return Err(format!("L1: all is well, and somebody is told {code}: {reason}"));
                }
            }
            quiet = if self.pulse() == before { quiet + 1 } else { 0 };
            if quiet > QUIET_AT_LAST {
                return self.everybody_was_answered();
            }
        }
        Err("L5: it does not come to rest".to_owned())
    }

    fn everybody_was_answered(&mut self) -> Result<(), String> {
        let open = self.natives.iter().filter(|native| native.is_live());
        match open.flat_map(|native| native.asked.keys().map(|id| (id, &native.view.number))).next() {
            Some((id, who)) => Err(format!("L5: {who} was never answered {id}")),
            None => Ok(()),
        }
    }

    /// Everybody has a turn, and reads what there is.
    fn round(&mut self) -> Result<(), String> {
        for peer in self.peers() {
            lock(&peer.wire).calm();
        }
        for place in 0..REACTORS {
            self.process.reactors[place].turn().map_err(|error| error.to_string())?;
        }
        match self.process.worker.turn() {
            Turn::Broken => self.crash()?,
            Turn::Worked => self.keep_the_trimmed(),
            _ => {}
        }
        for reader in &mut self.process.readers {
            while reader.turn() {}
        }
        self.drain_clients()?;
        for backend in &mut self.backends {
            backend.finish_all();
        }
        Ok(())
    }

    fn pulse(&self) -> (usize, usize, usize, usize) {
        let shown: usize = self.clients.iter().map(|client| client.view.updates.len()).sum();
        let shown_natives: usize = self.natives.iter().map(|native| native.view.shown.len()).sum();
        let shown_pages: usize = self.pages.iter().map(|page| page.view.shown.len()).sum();
        let answered = self.edits.values().filter(|op| op.answer.is_some()).count();
        (shown + shown_natives + shown_pages, answered, self.ops.open.len(), self.office.ledger.pulse())
    }

    // ---- somebody is away -------------------------------------------------------------------------------------------------

    /// A client of a workflow's comes, goes, and comes back: it is shown what it missed, once and in order, and of very much
    /// the newest.
    pub fn leave_and_return(&mut self) -> Result<(), String> {
        if !self.cast.pages.contains(&WORKFLOW) {
            return Ok(());
        }
        self.say_in_the_workflow(2)?;
        self.visit(None)?;
        for missed in [0, 3, WAITING_MAX + 10] {
            self.say_in_the_workflow(missed)?;
            self.visit(Some(missed.min(WAITING_MAX)))?;
        }
        Ok(())
    }

    fn say_in_the_workflow(&mut self, count: usize) -> Result<(), String> {
        let room = ROOMS.iter().position(|room| *room == WORKFLOW).ok_or("no such room")?;
        self.dial_native();
        self.settle()?;
        let Some(native) = self.natives.last_mut() else { return Ok(()) };
        for _ in 0..count {
            native.publish(room, &mut self.dice, &mut self.ops);
        }
        self.settle()
    }

    fn settle(&mut self) -> Result<(), String> {
        for _ in 0..SETTLED {
            self.round()?;
            self.clock.advance(Duration::from_millis(60));
        }
        self.collect();
        Ok(())
    }

    /// `expected`: how many of the newest events it must be shown; none where it was never there.
    fn visit(&mut self, expected: Option<usize>) -> Result<(), String> {
        let page = Page::dial(self.connect(), WORKFLOW, Some("wanderer"));
        self.pages.push(page);
        self.settle()?;
        let Some(page) = self.pages.last_mut().filter(|page| page.is_in()) else {
            return Err("L5: a page of a workflow is not let in".to_owned());
        };
        let log = encoded_log(WORKFLOW, &self.disk.log(WORKFLOW));
        let shown = &page.view.shown;
        let is_right = expected.is_none_or(|count| shown.len() == count && log.ends_with(shown));
        if !is_right {
            let count = shown.len();
            return Err(format!("G6: a client was away, is shown {count}, and missed {expected:?}: {shown:?}"));
        }
        page.peer.leave(&mut self.dice);
        self.collect();
        self.settle()
    }

    // ---- everybody goes ---------------------------------------------------------------------------------------------------

    /// Everybody goes: nothing may be left of them, in no registry and in no account.
    pub fn empty(&mut self) -> Result<(), String> {
        for peer in self.peers() {
            lock(&peer.wire).client_leaves(false);
        }
        for _ in 0..8 {
            for place in 0..REACTORS {
                self.process.reactors[place].turn().map_err(|error| error.to_string())?;
            }
            for reader in &mut self.process.readers {
                while reader.turn() {}
            }
            self.process.worker.turn();
            self.clock.advance(Duration::from_secs(1));
        }
        self.lay_ghosts();
        let Process { env, presence, backlog, .. } = &self.process;
        let left = env.directory.rooms();
        if left != 0 {
            return Err(format!("I2: everybody has gone, and {left} rooms have members"));
        }
        for room in ROOMS {
            let here = presence.watch(&RoomName::new(room));
            if !here.is_empty() {
                return Err(format!("I2: everybody has gone, and {here:?} are in {room}"));
            }
        }
        if let Some(kind) = TaskKind::ALL.into_iter().find(|kind| env.attached.has(*kind)) {
            return Err(format!("I2: everybody has gone, and somebody takes {}", kind.as_str()));
        }
        match backlog.bytes() {
            0 => Ok(()),
            bytes => Err(format!("I2: everybody has gone, and {bytes} bytes wait")),
        }
    }
}
