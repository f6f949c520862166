//! Operations with ids, pipelined, each sent one to five times over different connections.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::dice::Dice;
use super::super::history::{Ending, Speaks};
use super::super::log::text;
use super::super::scene::{Book, Phase, Place, Scene};
use super::super::wire::{CUTS, Cut, Gone, Link};

/// Operations of one connection that wait for their answer.
const WINDOWS: [usize; 4] = [1, 1, 4, 16];
const COPIES_MAX: u64 = 5;
/// One turn in so many ends with a cut.
const CUT_ONE_IN: u64 = 150;
/// An answer that is not there by then is asked for over another connection.
const ANSWER: Duration = Duration::from_secs(6);
const TURN: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub struct Writer<'s> {
    pub scene: &'s Scene,
    pub place: &'s Place,
    /// Shared with whoever writes into the same room in the same vocabulary.
    pub book: &'s Book,
    pub speaks: Speaks,
    pub name: String,
    pub dice: Dice,
    pub made: u64,
}

impl Writer<'_> {
    pub fn run(mut self) {
        let scene = self.scene;
        while !self.is_done() {
            let path = match self.speaks {
                Speaks::Document => self.place.page(&self.name, None).map_or_else(String::new, |(_, path)| path),
                _ => "/v1/connect".to_owned(),
            };
            let room = if self.speaks == Speaks::Document { self.place.room.as_str() } else { "" };
            let Some(mut link) = scene.visit(&self.name, self.speaks, room, &path, &mut self.dice) else { continue };
            if let Ok(true) = self.converse(&mut link) {
                let how = self.dice.pick(&CUTS).copied().unwrap_or(Cut::Reset);
                let torn = self.frame(&format!("{}-torn-{}", self.name, scene.history.tick()));
                link.cut(how, &torn, &mut self.dice);
            }
        }
    }

    fn is_done(&self) -> bool {
        match self.scene.phase() {
            Phase::Play => false,
            Phase::Finish => self.scene.is_late() || self.book.unanswered().is_empty(),
            Phase::Settle | Phase::Over => true,
        }
    }

    /// True when the connection is to be cut.
    fn converse(&mut self, link: &mut Link<'_>) -> Result<bool, Gone> {
        if self.speaks == Speaks::Native && self.dice.one_in(2) {
            link.say(&json!({"op": "join", "room": self.place.room}))?;
        }
        let window = self.dice.pick(&WINDOWS).copied().unwrap_or(1);
        // Copies of one operation may be under way more than once.
        let mut waiting: BTreeMap<String, usize> = BTreeMap::new();
        let mut since = Instant::now();
        while !self.is_done() {
            while waiting.values().sum::<usize>() < window {
                let Some((id, frame)) = self.next(&waiting) else { break };
                link.say(&frame)?;
                *waiting.entry(id).or_default() += 1;
            }
            if let Some(frame) = link.hear(TURN)?
                && let Some(id) = self.answered(&frame)
            {
                since = Instant::now();
                match waiting.get_mut(&id) {
                    Some(copies) if *copies > 1 => *copies -= 1,
                    _ => drop(waiting.remove(&id)),
                }
            }
            if self.scene.phase() == Phase::Play {
                if self.dice.one_in(CUT_ONE_IN) {
                    return Ok(true);
                }
                self.rest();
            }
            if !waiting.is_empty() && since.elapsed() > ANSWER {
                break;
            }
        }
        link.end(Ending::Left);
        Ok(false)
    }

    fn rest(&mut self) {
        let most = self.scene.pace.as_micros() as u64;
        if most > 0 {
            std::thread::sleep(Duration::from_micros(self.dice.below(most)));
        }
    }

    /// What is sent next: something again, or something new.
    fn next(&mut self, waiting: &BTreeMap<String, usize>) -> Option<(String, Value)> {
        if self.scene.phase() != Phase::Play {
            return self.book.unanswered().into_iter().find(|(id, _)| !waiting.contains_key(id));
        }
        if self.dice.one_in(2)
            && let Some(again) = self.book.again(&mut self.dice)
        {
            return Some(again);
        }
        self.made += 1;
        let id = format!("{}-{}", self.name, self.made);
        let frame = self.frame(&id);
        let copies = if self.dice.one_in(2) { self.dice.below(COPIES_MAX) } else { 0 };
        self.book.open(&id, &frame, copies);
        Some((id, frame))
    }

    fn frame(&mut self, id: &str) -> Value {
        let padding = "x".repeat(self.dice.below(200) as usize);
        let mark = format!("{id} {padding}");
        match self.speaks {
            Speaks::Document => json!({"action": "update", "content": mark, "id": id}),
            _ => self.place.publish(id, &mark),
        }
    }

    /// The operation that a frame answers. An `unknown` answers nothing: it is sent again.
    fn answered(&self, frame: &Value) -> Option<String> {
        let id = text(frame, "id");
        let is_answer = match self.speaks {
            Speaks::Document => text(frame, "action") == "update_status",
            _ => matches!(text(frame, "op"), "ok" | "refused" | "conflict" | "unknown"),
        };
        if !is_answer || id.is_empty() {
            return None;
        }
        if text(frame, "op") != "unknown" && text(frame, "code") != "unknown" {
            self.book.answered(id);
        }
        Some(id.to_owned())
    }
}
