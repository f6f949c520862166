//! Operations without an id: each is sent once, because nothing would tell a second copy from a second operation.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::dice::Dice;
use super::super::history::Speaks;
use super::super::log::text;
use super::super::scene::{Phase, Place, Scene};
use super::super::wire::{CUTS, Cut, Gone, Link};

const CUT_ONE_IN: u64 = 60;
const ANSWER: Duration = Duration::from_secs(6);

#[derive(Debug)]
pub struct Speaker<'s> {
    pub scene: &'s Scene,
    pub place: &'s Place,
    pub name: String,
    pub dice: Dice,
    pub made: u64,
}

impl Speaker<'_> {
    pub fn run(mut self) {
        let scene = self.scene;
        while scene.phase() == Phase::Play {
            let Some((speaks, path)) = self.place.page(&self.name, None) else { return };
            let Some(mut link) = scene.visit(&self.name, speaks, &self.place.room, &path, &mut self.dice) else {
                continue;
            };
            if let Ok(true) = self.converse(&mut link, speaks) {
                let how = self.dice.pick(&CUTS).copied().unwrap_or(Cut::Reset);
                let (_, torn) = self.next(speaks);
                link.cut(how, &torn, &mut self.dice);
            }
        }
    }

    /// True when the connection is to be cut.
    fn converse(&mut self, link: &mut Link<'_>, speaks: Speaks) -> Result<bool, Gone> {
        while self.scene.phase() == Phase::Play {
            let (mark, frame) = self.next(speaks);
            link.say(&frame)?;
            if self.dice.one_in(CUT_ONE_IN) {
                return Ok(true);
            }
            let asked = Instant::now();
            while asked.elapsed() < ANSWER {
                if link.hear(Duration::from_millis(50))?.is_some_and(|frame| is_answer(&frame, &mark)) {
                    break;
                }
            }
            let rest = Instant::now() + Duration::from_millis(self.dice.between(5, 60));
            while Instant::now() < rest {
                link.hear(rest.saturating_duration_since(Instant::now()))?;
            }
        }
        Ok(false)
    }

    fn next(&mut self, speaks: Speaks) -> (String, Value) {
        self.made += 1;
        let mark = format!("{}-{}", self.name, self.made);
        let frame = match speaks {
            Speaks::Session => json!({"type": "execute", "data": {"command": mark}}),
            _ => json!({"type": "user_response", "session_id": mark, "response": format!("answer of {mark}")}),
        };
        (mark, frame)
    }
}

fn is_answer(frame: &Value, mark: &str) -> bool {
    let said = |value: &Value, name: &str| text(value, name) == mark;
    match text(frame, "type") {
        "ack" => said(frame, "session_id"),
        "thinking" => frame.get("data").is_some_and(|data| said(data, "command")),
        _ => false,
    }
}
