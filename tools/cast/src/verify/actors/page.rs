//! An old page: it begins anew with each connection. In a session it may decide what it is asked.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::dice::Dice;
use super::super::history::{Ending, Speaks};
use super::super::log::text;
use super::super::scene::{Phase, Place, Scene};
use super::super::wire::{CUTS, Cut, Gone, Link};
use super::{asked_for, edited, is_last, verdict};

const CUT_ONE_IN: u64 = 150;
const TURN: Duration = Duration::from_millis(25);

#[derive(Debug)]
pub struct Page<'s> {
    pub scene: &'s Scene,
    pub place: &'s Place,
    pub name: String,
    pub dice: Dice,
    pub decides: bool,
    /// What `resumed` said last, for the vocabulary that has it.
    pub head: u64,
    pub is_attached: bool,
}

enum Next {
    Cut,
    Settled,
    Late,
}

impl Page<'_> {
    pub fn run(mut self) {
        let scene = self.scene;
        let Some((speaks, _)) = self.place.page(&self.name, None) else { return };
        loop {
            if scene.is_late() {
                return scene.never_settled(&self.name, speaks, &self.place.room);
            }
            let Some((_, path)) = self.place.page(&self.name, Some(self.head)) else { return };
            let Some(mut link) = scene.visit(&self.name, speaks, &self.place.room, &path, &mut self.dice) else {
                continue;
            };
            match self.converse(&mut link, speaks) {
                Ok(Next::Settled) => return link.end(Ending::Settled),
                Ok(Next::Late) => return link.end(Ending::Behind),
                Ok(Next::Cut) => {
                    let how = self.dice.pick(&CUTS).copied().unwrap_or(Cut::Reset);
                    link.cut(how, &json!({"type": "ping"}), &mut self.dice);
                }
                Err(Gone) => {}
            }
        }
    }

    fn converse(&mut self, link: &mut Link<'_>, speaks: Speaks) -> Result<Next, Gone> {
        let mut is_greeted = false;
        loop {
            if let Some(frame) = link.hear(TURN)? {
                is_greeted = true;
                if is_last(&frame, &self.scene.last_words()) {
                    return Ok(Next::Settled);
                }
                if text(&frame, "type") == "resumed" {
                    self.head = frame.get("head").and_then(Value::as_u64).unwrap_or(0);
                }
                if self.decides && speaks == Speaks::Session && text(&frame, "type") == "approval_required" {
                    let decision = self.decision(frame.get("data").unwrap_or(&Value::Null));
                    link.say(&decision)?;
                }
            }
            let phase = self.scene.phase();
            if is_greeted && phase >= Phase::Finish && !std::mem::replace(&mut self.is_attached, true) {
                self.scene.attach();
            }
            if phase == Phase::Play && self.dice.one_in(CUT_ONE_IN) {
                return Ok(Next::Cut);
            }
            if self.scene.is_late() || phase == Phase::Over {
                return Ok(Next::Late);
            }
        }
    }

    fn decision(&mut self, data: &Value) -> Value {
        let (approval, _) = asked_for(data);
        let verdict = verdict(&mut self.dice);
        match verdict {
            "edit" => json!({"type": verdict, "data": {"request_id": approval, "edited_args": edited()}}),
            _ => json!({"type": verdict, "data": {"request_id": approval}}),
        }
    }
}
