//! The whole run: stages one after the other, the kills, the verdict, and what is kept as evidence.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::dice::Dice;
use super::facts;
use super::history::{Connection, Ending, write_transcript};
use super::judge::{Rule, Tally, judge};
use super::log::{self, Logs};
use super::options::Options;
use super::report::{Totals, say, table};
use super::scene::Scene;
use super::server::{START_MAX, Server, program};
use super::stage::{Stage, play};
use super::wire::Door;
use crate::target::Address;

/// Every stage is judged as a whole; a log that grew over all rounds would make the last ones mostly judging.
const ROUNDS_ON_ONE_STORE: u32 = 20;
/// Of kills, one in so many is a SIGTERM.
const STOP_ONE_IN: u64 = 8;
/// How long everybody plays before a kill, in milliseconds.
const LIFE: (u64, u64) = (60, 600);
const ROUNDS_A_LINE: u32 = 5;
/// Against a deployment: writers leave room for others, and stay below every rate that is counted.
const GENTLE: Duration = Duration::from_millis(40);
const BRISK: Duration = Duration::from_millis(8);
const DEPLOYMENT_SECONDS: u32 = 20;

/// The number of violations.
pub fn run(options: &Options) -> Result<usize, String> {
    let seed = options.seed.unwrap_or_else(|| now().as_nanos() as u64 & 0xffff_ffff);
    say(&format!("seed {seed}"));
    let mut campaign = Campaign {
        options,
        seed,
        begun: Instant::now(),
        tally: Tally::default(),
        totals: Totals::default(),
        unchecked: Vec::new(),
        kept: None,
    };
    match &options.url {
        Some(url) => campaign.visit(url)?,
        None => campaign.own()?,
    }
    Ok(campaign.conclude())
}

struct Campaign<'o> {
    options: &'o Options,
    seed: u64,
    begun: Instant,
    tally: Tally,
    totals: Totals,
    unchecked: Vec<String>,
    /// Where the evidence is.
    kept: Option<PathBuf>,
}

impl Campaign<'_> {
    // ---- a server of our own -----------------------------------------------------------------------------------------

    fn own(&mut self) -> Result<(), String> {
        let mut stage = 0;
        while self.totals.rounds < self.options.rounds && !self.is_time_up() && self.tally.violations() == 0 {
            let home = self.home(stage);
            let went = self.own_stage(stage, &home);
            if self.tally.violations() > 0 {
                self.kept = Some(home);
            } else {
                let _ = fs::remove_dir_all(&home);
            }
            went?;
            stage += 1;
        }
        Ok(())
    }

    fn own_stage(&mut self, number: u32, home: &Path) -> Result<(), String> {
        let mut server =
            Server::new(program(self.options.server.as_deref()), home.to_owned(), self.options.durability)?;
        server.start()?;
        if number == 0 {
            let second = server.try_second();
            self.tally.check(Rule::SecondProcess, second.is_ok(), || second.err().unwrap_or_default());
        }
        let scene = self.scene(server.address(), format!("{:x}-{number}", self.seed), BRISK);
        let stage = Stage::build(&scene, self.options);
        if let Some(why) = stage.unchecked.first() {
            return Err(why.clone());
        }
        let options = self.options;
        let played = play(&scene, &stage, options, || self.kills(&mut server, &scene, number));
        match played {
            Ok(tally) => self.tally.add(tally),
            // The server is gone for good: that is in the tally, and nothing is left that could be asked.
            Err(_) => return self.write_transcript(home, &scene.history.take()),
        }
        self.settle_accounts(&scene, &stage, home)?;
        let ended = server.kill();
        self.tally.check(Rule::Restart, ended.is_ok(), || ended.err().unwrap_or_default());
        Ok(())
    }

    /// Rounds of life and death, until this store has had its share of them.
    fn kills(&mut self, server: &mut Server, scene: &Scene, stage: u32) -> Result<(), String> {
        let mut dice = scene.dice(&format!("kills of stage {stage}"));
        let last = self.totals.rounds.saturating_add(ROUNDS_ON_ONE_STORE).min(self.options.rounds);
        while self.totals.rounds < last && !self.is_time_up() {
            pause(&mut dice);
            let by_order = dice.one_in(STOP_ONE_IN);
            let ended = if by_order { server.stop() } else { server.kill() };
            self.tally.check(Rule::Restart, ended.is_ok(), || ended.err().unwrap_or_default());
            let started = server.start();
            let in_time = started.as_ref().is_ok_and(|took| *took < START_MAX);
            self.tally.check(Rule::Restart, in_time, || match &started {
                Ok(took) => format!("restarted within {took:?}"),
                Err(why) => why.clone(),
            });
            self.totals.rounds += 1;
            self.totals.stops += u32::from(by_order);
            self.totals.slowest_start = self.totals.slowest_start.max(started?);
            if self.totals.rounds.is_multiple_of(ROUNDS_A_LINE) {
                say(&format!(
                    "{:>6.1} s  round {}/{}  {} frames",
                    self.begun.elapsed().as_secs_f64(),
                    self.totals.rounds,
                    self.options.rounds,
                    self.totals.frames + scene.history.now()
                ));
            }
        }
        pause(&mut dice);
        Ok(())
    }

    // ---- somebody else's ---------------------------------------------------------------------------------------------

    fn visit(&mut self, url: &str) -> Result<(), String> {
        let address = Address::parse(url)?;
        // The moment is in it too: a seed that is played again must not meet the operations of its first time.
        let scene = self.scene(address, format!("{:x}-{:x}", self.seed, now().as_millis() as u64), GENTLE);
        let stage = Stage::build(&scene, self.options);
        self.unchecked.extend(stage.unchecked.iter().cloned());
        if stage.places.is_empty() {
            return Err(format!("nothing could be checked: {}", self.unchecked.join("; ")));
        }
        let seconds = u64::from(self.options.seconds.unwrap_or(DEPLOYMENT_SECONDS));
        let played = play(&scene, &stage, self.options, || {
            thread::sleep(Duration::from_secs(seconds));
            Ok(())
        })?;
        self.tally.add(played);
        self.unchecked.push("kills, restarts and a second process: --no-kill".to_owned());
        let home = self.home(0);
        let settled = self.settle_accounts(&scene, &stage, &home);
        stage.strike(&scene);
        if self.tally.violations() > 0 {
            self.kept = Some(home);
        }
        settled
    }

    // ---- both ----------------------------------------------------------------------------------------------------------

    fn scene(&self, server: Address, label: String, pace: Duration) -> Scene {
        let door = Door { server, token: self.options.token.clone(), api_key: self.options.api_key.clone() };
        Scene::new(door, self.seed, label, pace)
    }

    /// Reads the logs and judges. The evidence is written where something is wrong.
    fn settle_accounts(&mut self, scene: &Scene, stage: &Stage, home: &Path) -> Result<(), String> {
        let mut logs = Logs::new();
        for place in &stage.places {
            match log::read(&scene.door, &place.room) {
                Ok(log) => drop(logs.insert(place.room.clone(), log)),
                Err(why) => self.unchecked.push(format!("{}: its log cannot be read: {why}", place.room)),
            }
        }
        if logs.is_empty() {
            return Err(format!("without a log nothing can be judged: {}", self.unchecked.join("; ")));
        }
        for (room, log) in logs.iter().filter(|(_, log)| log.floor > 0) {
            self.unchecked.push(format!("{room}: what stood up to {} is no longer kept", log.floor));
        }
        let frames = scene.history.now();
        let connections = scene.history.take();
        let facts = facts::read(&connections);
        self.tally.add(judge(&facts, &logs));
        self.totals.frames += frames;
        self.totals.connections += connections.len();
        self.totals.cuts += connections.iter().filter(|connection| connection.ending == Ending::Cut).count();
        self.totals.events += logs.values().map(|log| log.events.len() as u64).sum::<u64>();
        self.totals.operations += facts.ops.len();
        self.totals.copies += facts.ops.values().map(|op| op.copies).sum::<usize>();
        if self.tally.violations() > 0 {
            self.write_transcript(home, &connections)?;
        }
        Ok(())
    }

    fn write_transcript(&self, home: &Path, connections: &[Connection]) -> Result<(), String> {
        let path = home.join("transcript.jsonl");
        let written = fs::create_dir_all(home)
            .and_then(|()| File::create(&path))
            .and_then(|file| write_transcript(connections, &mut BufWriter::new(file)));
        written.map_err(|error| format!("{}: {error}", path.display()))
    }

    fn home(&self, stage: u32) -> PathBuf {
        let base = self.options.keep.clone().unwrap_or_else(std::env::temp_dir);
        // The server is started with its home as working directory, and must find it from there.
        let base = std::path::absolute(&base).unwrap_or(base);
        base.join(format!("cast-verify-{}-{:x}-{stage}", std::process::id(), self.seed))
    }

    fn is_time_up(&self) -> bool {
        self.options.seconds.is_some_and(|seconds| self.begun.elapsed() >= Duration::from_secs(u64::from(seconds)))
    }

    fn conclude(self) -> usize {
        let violations = self.tally.violations();
        say(&format!("\n{}", table(&self.tally)));
        for what in &self.unchecked {
            say(&format!("not checked: {what}"));
        }
        say(&format!("{} in {:.1} s", self.totals, self.begun.elapsed().as_secs_f64()));
        if let Some(kept) = &self.kept {
            say(&format!("kept: {}", kept.display()));
        }
        say(&format!("again: {}", self.options.again(self.seed)));
        say(&format!("{violations} violations, seed {}", self.seed));
        violations
    }
}

fn pause(dice: &mut Dice) {
    let (shortest, longest) = LIFE;
    thread::sleep(Duration::from_millis(dice.between(shortest, longest)));
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
