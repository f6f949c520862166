//! A backend that takes tasks: asks for an approval for each run, and says what came of each decision. Cut off, it insists
//! on what it held, under the fence that it had.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::dice::Dice;
use super::super::history::Speaks;
use super::super::log::text;
use super::super::scene::{Phase, Scene};
use super::super::wire::{CUTS, Cut, Gone, Link};

const CUT_ONE_IN: u64 = 80;
const TASKS_MAX: u64 = 10;
const TURN: Duration = Duration::from_millis(25);

#[derive(Debug)]
pub struct Backend<'s> {
    pub scene: &'s Scene,
    pub name: String,
    pub dice: Dice,
    /// What it asked for in a task's name and has no answer to, by id: the frame, and the task.
    pub asked: BTreeMap<String, (Value, Value)>,
}

impl Backend<'_> {
    pub fn run(mut self) {
        let scene = self.scene;
        while scene.phase() != Phase::Over {
            let visit = scene.visit(&self.name, Speaks::Backend, "", "/v1/backend", &mut self.dice);
            let Some(mut link) = visit else { continue };
            if let Ok(true) = self.converse(&mut link) {
                let how = self.dice.pick(&CUTS).copied().unwrap_or(Cut::Reset);
                link.cut(how, &json!({"op": "ping"}), &mut self.dice);
            }
        }
    }

    /// True when the connection is to be cut.
    fn converse(&mut self, link: &mut Link<'_>) -> Result<bool, Gone> {
        let take = json!({"op": "take", "kinds": ["execute", "decision", "ticket", "response"], "max": TASKS_MAX});
        link.say(&take)?;
        // The tasks went to somebody else when the connection ended, or will: what it says now, it says too late.
        for (frame, _) in std::mem::take(&mut self.asked).into_values() {
            if self.dice.one_in(2) {
                link.say(&frame)?;
            }
        }
        while self.scene.phase() != Phase::Over {
            if let Some(frame) = link.hear(TURN)? {
                for answer in self.hear(&frame) {
                    link.say(&answer)?;
                }
            }
            if self.scene.phase() == Phase::Play && self.dice.one_in(CUT_ONE_IN) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn hear(&mut self, frame: &Value) -> Vec<Value> {
        match text(frame, "op") {
            "task" => self.begin(frame),
            // Whatever the answer: this attempt is over.
            "ok" | "refused" => self.asked.remove(text(frame, "id")).map(|(_, task)| done(&task)).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    fn begin(&mut self, task: &Value) -> Vec<Value> {
        let data = task.get("data").unwrap_or(&Value::Null);
        let (session, run) = (text(data, "session_id"), text(data, "execution_id"));
        let (id, frame) = match text(task, "kind") {
            // An approval's id is a UUID of the asker's choice; one for each run makes the run's a good one.
            "execute" if !text(data, "command").contains(&self.scene.last_words()) => (
                run.to_owned(),
                json!({"op": "approval", "session": session, "execution_id": run, "id": run, "tool_name": "pay",
                    "tool_args": {"for": text(data, "command")}}),
            ),
            "decision" => {
                let id = format!("done-{}", text(data, "request_id"));
                let result = json!({"decision": text(data, "decision")});
                let frame = json!({"op": "publish", "room": task.get("room"), "type": "complete", "id": id,
                    "data": {"execution_id": run, "result": result}, "task": task.get("task"), "fence": task.get("fence")});
                (id, frame)
            }
            _ => return vec![done(task)],
        };
        self.asked.insert(id, (frame.clone(), task.clone()));
        vec![frame]
    }
}

fn done(task: &Value) -> Value {
    json!({"op": "done", "task": task.get("task"), "fence": task.get("fence")})
}
