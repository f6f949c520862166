//! A native member of a room that comes back where it stood, and now and then where it cannot have stood. In a session it
//! may decide, natively or over REST.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::dice::Dice;
use super::super::history::{Ending, Speaks};
use super::super::log::text;
use super::super::scene::{Book, Phase, Place, Scene};
use super::super::wire::{CUTS, Cut, Gone, Link, ask};
use super::{asked_for, edited, is_last, verdict};

const CUT_ONE_IN: u64 = 120;
const TURN: Duration = Duration::from_millis(25);

/// How it decides what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decides {
    Never,
    Natively,
    OverRest,
}

#[derive(Debug)]
pub struct Observer<'s> {
    pub scene: &'s Scene,
    pub place: &'s Place,
    pub name: String,
    pub dice: Dice,
    pub decides: Decides,
    /// Decisions under way.
    pub book: Book,
    /// Approvals that it has had its say on.
    pub decided: BTreeSet<String>,
    /// Where it stands: epoch and seq.
    pub since: Option<(String, u64)>,
}

/// What becomes of a connection.
enum Next {
    Cut,
    /// It was shown the last event, over a connection on which it had resumed.
    Settled,
    Late,
}

impl Observer<'_> {
    pub fn run(mut self) {
        let scene = self.scene;
        // From then on it only has to come to the head.
        let mut has_returned = false;
        loop {
            if scene.is_late() {
                return scene.never_settled(&self.name, Speaks::Native, &self.place.room);
            }
            let Some(mut link) = scene.visit(&self.name, Speaks::Native, "", "/v1/connect", &mut self.dice) else {
                continue;
            };
            let begun = scene.phase();
            if begun >= Phase::Settle {
                has_returned = true;
            }
            match self.converse(&mut link, begun, has_returned) {
                Ok(Next::Settled) => return link.end(Ending::Settled),
                Ok(Next::Late) => return link.end(Ending::Behind),
                Ok(Next::Cut) => {
                    has_returned = has_returned || scene.phase() >= Phase::Settle;
                    let how = self.dice.pick(&CUTS).copied().unwrap_or(Cut::Reset);
                    link.cut(how, &json!({"op": "ping"}), &mut self.dice);
                }
                Err(Gone) => {}
            }
        }
    }

    fn converse(&mut self, link: &mut Link<'_>, begun: Phase, has_returned: bool) -> Result<Next, Gone> {
        link.say(&self.join(begun))?;
        let mut is_at_the_end = false;
        loop {
            if let Some(frame) = link.hear(TURN)? {
                if is_last(&frame, &self.scene.last_words()) && text(&frame, "op") == "event" {
                    if !has_returned {
                        // Shown where it stood all along, it still has to come back: from the place before.
                        return Ok(Next::Cut);
                    }
                    is_at_the_end = true;
                } else {
                    self.hear(&frame);
                }
            }
            // What it decided on the way it waits for.
            if is_at_the_end && self.book.unanswered().is_empty() {
                return Ok(Next::Settled);
            }
            if let Some(decision) = self.decision() {
                link.say(&decision)?;
            }
            let phase = self.scene.phase();
            // Each change of the phase is met over a new connection.
            if phase > begun && !has_returned {
                return Ok(Next::Cut);
            }
            if phase == Phase::Play && self.dice.one_in(CUT_ONE_IN) {
                return Ok(Next::Cut);
            }
            if self.scene.is_late() || phase == Phase::Over {
                return Ok(Next::Late);
            }
        }
    }

    fn join(&mut self, phase: Phase) -> Value {
        let room = &self.place.room;
        let Some((epoch, seq)) = &self.since else { return json!({"op": "join", "room": room}) };
        let since = match phase {
            // Whoever decides sees again all that was ever asked.
            Phase::Finish if self.decides != Decides::Never => json!({"epoch": epoch, "seq": 0}),
            Phase::Play => match self.dice.below(12) {
                0 => return json!({"op": "join", "room": room}),
                1 => json!({"epoch": "0123456789abcdef", "seq": seq}),
                2 => json!({"epoch": epoch, "seq": seq + 1_000_000}),
                _ => json!({"epoch": epoch, "seq": seq}),
            },
            _ => json!({"epoch": epoch, "seq": seq}),
        };
        json!({"op": "join", "room": room, "since": since})
    }

    fn hear(&mut self, frame: &Value) {
        let number = |name: &str| frame.get(name).and_then(Value::as_u64);
        let epoch = text(frame, "epoch").to_owned();
        match text(frame, "op") {
            "joined" => {
                let is_resumed = frame.get("recovered").and_then(Value::as_bool) == Some(true);
                let stood = self.since.as_ref().map_or(0, |(_, seq)| *seq);
                self.since = Some((epoch, if is_resumed { stood } else { number("head").unwrap_or(0) }));
            }
            "reset" => self.since = Some((epoch, number("seq").unwrap_or(0))),
            "event" => {
                if let (Some((_, stood)), Some(seq)) = (&mut self.since, number("seq")) {
                    *stood = (*stood).max(seq);
                }
                if text(frame, "type") == "approval_required" {
                    self.decide(frame.get("data").unwrap_or(&Value::Null));
                }
            }
            "ok" | "refused" => self.book.answered(text(frame, "id")),
            _ => {}
        }
    }

    fn decide(&mut self, data: &Value) {
        let (approval, digest) = asked_for(data);
        if self.decides == Decides::Never || !self.decided.insert(approval.clone()) {
            return;
        }
        let verdict = verdict(&mut self.dice);
        if self.decides == Decides::OverRest {
            let body = if verdict == "edit" { json!({"edited_args": edited()}) } else { json!({}) };
            let path = format!("/api/v1/approvals/{approval}/{verdict}");
            ask(&self.scene.history, &self.scene.door, &self.name, "POST", &path, &body);
            return;
        }
        // Of a room's members one decides natively.
        let id = format!("decide-{approval}");
        let mut decide = json!({"op": "decide", "room": self.place.room, "id": id, "approval": approval,
            "decision": verdict, "seen": digest});
        if verdict == "edit"
            && let Some(decide) = decide.as_object_mut()
        {
            decide.insert("edited_args".to_owned(), edited());
        }
        // Each copy goes out at a turn of its own.
        self.book.open(&id, &decide, self.dice.between(1, 5));
    }

    /// A decision that is to be sent now, for the first time or again.
    fn decision(&mut self) -> Option<Value> {
        let phase = self.scene.phase();
        let again = self.book.again(&mut self.dice);
        let again = again.or_else(|| (phase > Phase::Play).then(|| self.book.unanswered().into_iter().next())?);
        again.map(|(_, frame)| frame)
    }
}
