//! What moves without any task: a video in five stages, the agents that make it, their coordinator, a topic, a document.
//!
//! A round is one video from 0 to 1. Pure: the time goes in, what is to be done comes out. While nobody is connected it is
//! not asked, and goes on from where it was.

use std::time::Duration;

use serde_json::{Value, json};

use super::pace::Pace;

/// The workflow of the demo, and the one that every page of the video pipeline dials before it has an id.
pub const WORKFLOWS: [&str; 2] = ["demo", "pending"];
pub const STAGES: [&str; 5] = ["outline", "characters", "scenes", "storyboard", "video"];
pub const AGENTS: [&str; 2] = ["writer", "illustrator"];
pub const TOPIC: &str = "demo";
pub const DOCUMENT: &str = "demo/readme";

const STEPS_OF_A_STAGE: u32 = 4;
const STEP_MS: u32 = 1000;
const BETWEEN_ROUNDS_MS: u32 = 4000;

#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    Publish {
        room: String,
        kind: &'static str,
        data: Value,
    },
    /// As a user: give the agent a command, and make a ticket.
    Use {
        round: u32,
    },
    Say(String),
    RoundOver {
        round: u32,
    },
}

#[derive(Debug)]
pub struct Show {
    /// Tells this process's rounds from another's.
    name: String,
    pace: Pace,
    /// Whether it acts as the users too.
    is_used: bool,
    /// Counted from 1.
    round: u32,
    /// Of the round; counted from 0.
    step: u32,
    next: Duration,
}

impl Show {
    pub fn new(name: String, pace: Pace, is_used: bool, now: Duration) -> Show {
        Show { name, pace, is_used, round: 1, step: 0, next: now }
    }

    /// How this round is called in what is published.
    pub fn mark(name: &str, round: u32) -> String {
        format!("{name}-{round}")
    }

    pub fn due(&self) -> Duration {
        self.next
    }

    /// What is due. One step at a time, however late: what was missed is not made up for in a burst.
    pub fn turn(&mut self, now: Duration) -> Vec<Act> {
        if now < self.next {
            return Vec::new();
        }
        let mut acts = Vec::new();
        let (stage, within) = ((self.step / STEPS_OF_A_STAGE) as usize, self.step % STEPS_OF_A_STAGE);
        if self.step == 0 && self.is_used {
            acts.push(Act::Use { round: self.round });
        }
        if within == 0 {
            self.enter(stage, &mut acts);
        }
        self.advance(stage, within, &mut acts);
        self.step += 1;
        self.next = now + self.pace.pause(STEP_MS);
        if self.step == STEPS_OF_A_STAGE * STAGES.len() as u32 {
            self.end(&mut acts);
            self.next = now + self.pace.pause(BETWEEN_ROUNDS_MS);
        }
        acts
    }

    /// A stage begins: whoever is at work changes, and the coordinator counts.
    fn enter(&self, stage: usize, acts: &mut Vec<Act>) {
        let name = STAGES.get(stage).copied().unwrap_or_default();
        // The first three are written, the others drawn.
        let busy = usize::from(stage >= 3);
        acts.push(Act::Say(format!("workflow: round {}, {name}; {} is busy", self.round, AGENTS[busy])));
        acts.push(self.metrics(Some(busy), stage, name));
        for (index, agent) in AGENTS.into_iter().enumerate() {
            acts.push(self.agent(agent, index == busy, stage, name));
        }
        let data = json!({"status": "running", "message": format!("Making the {name}"), "details": self.details()});
        acts.push(publish(format!("topic:{TOPIC}"), "status", data));
        let content = format!(
            "# A video in five stages\n\nRound {} of {} makes the {name}.\n\nEverybody with this page open has just seen this edit.\n",
            self.round, self.name
        );
        acts.push(publish(format!("doc:{DOCUMENT}"), "update", json!({"content": content})));
    }

    fn advance(&self, stage: usize, within: u32, acts: &mut Vec<Act>) {
        let name = STAGES.get(stage).copied().unwrap_or_default();
        let all = STEPS_OF_A_STAGE * STAGES.len() as u32;
        let is_last = self.step + 1 == all;
        let progress = f64::from(self.step + 1) / f64::from(all);
        let part = (within + 1) * 100 / STEPS_OF_A_STAGE;
        for workflow in WORKFLOWS {
            let data = json!({"state": if is_last { "completed" } else { "running" }, "progress": progress, "stage": name,
                "message": format!("{name}: {part} %"), "details": self.details()});
            acts.push(publish(format!("workflow:{workflow}"), "progress", data));
        }
    }

    fn end(&mut self, acts: &mut Vec<Act>) {
        for agent in AGENTS {
            acts.push(self.agent(agent, false, STAGES.len(), ""));
        }
        acts.push(self.metrics(None, STAGES.len(), ""));
        let data = json!({"message": "The video is there", "result": self.details()});
        acts.push(publish(format!("topic:{TOPIC}"), "complete", data));
        acts.push(Act::Say(format!("workflow: round {} is complete", self.round)));
        acts.push(Act::RoundOver { round: self.round });
        self.round += 1;
        self.step = 0;
    }

    fn agent(&self, name: &str, is_busy: bool, stage: usize, task: &str) -> Act {
        let data = json!({"status": status(is_busy), "currentTask": is_busy.then_some(task),
            "capabilities": capabilities(name), "metrics": self.counts(stage), "details": self.details()});
        publish(format!("agent:{name}"), "agent_status", data)
    }

    /// `busy`: which agent is at work.
    fn metrics(&self, busy: Option<usize>, stage: usize, task: &str) -> Act {
        let cards: Vec<Value> = AGENTS
            .into_iter()
            .enumerate()
            .map(|(index, name)| {
                let is_busy = busy == Some(index);
                json!({"id": name, "name": name, "status": status(is_busy), "capabilities": capabilities(name),
                    "currentTask": is_busy.then_some(task), "metrics": self.counts(stage)})
            })
            .collect();
        let active = if busy.is_some() { WORKFLOWS.len() } else { 0 };
        let videos = self.round - u32::from(busy.is_some());
        let data = json!({
            "total_messages": self.round * 100 + self.step, "total_workflows": WORKFLOWS.len(),
            "registered_agents": AGENTS.len(), "healthy_agents": AGENTS.len(), "active_workflows": active,
            "queue_size": STAGES.len() - stage, "dead_letters": 0, "completed_workflows": videos, "failed_workflows": 0,
            "metrics": {"agents": cards}, "details": self.details(),
        });
        publish("coordinator".to_owned(), "coordinator_metrics", data)
    }

    fn counts(&self, stage: usize) -> Value {
        let done = (self.round - 1) * STAGES.len() as u32 + stage as u32;
        json!({"tasks_completed": done, "tasks_failed": 0, "avg_response_time": 0.8, "uptime": 99.9})
    }

    fn details(&self) -> Value {
        json!({"round": Show::mark(&self.name, self.round)})
    }
}

fn publish(room: String, kind: &'static str, data: Value) -> Act {
    Act::Publish { room, kind, data }
}

fn status(is_busy: bool) -> &'static str {
    if is_busy { "busy" } else { "idle" }
}

fn capabilities(agent: &str) -> Value {
    match agent {
        "writer" => json!(["outline", "characters", "scenes"]),
        _ => json!(["storyboard", "video"]),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn round(show: &mut Show) -> Vec<Act> {
        let mut acts = Vec::new();
        while !matches!(acts.last(), Some(Act::RoundOver { .. })) {
            acts.extend(show.turn(show.due()));
        }
        acts
    }

    fn data_of<'a>(acts: &'a [Act], wanted: &str) -> Vec<&'a Value> {
        let published = acts.iter().filter_map(|act| match act {
            Act::Publish { room, data, .. } if room == wanted => Some(data),
            _ => None,
        });
        published.collect()
    }

    #[test]
    fn a_round_goes_through_the_stages_from_0_to_1() {
        let mut show = Show::new("x".into(), Pace::times(1), false, Duration::ZERO);
        for number in [1, 2] {
            let acts = round(&mut show);
            for workflow in ["workflow:demo", "workflow:pending"] {
                let progress = data_of(&acts, workflow);
                let rises = progress.windows(2).all(|pair| pair[0]["progress"].as_f64() < pair[1]["progress"].as_f64());
                let mut stages: Vec<&str> = progress.iter().filter_map(|data| data["stage"].as_str()).collect();
                stages.dedup();
                assert!(rises && progress[0]["progress"].as_f64() > Some(0.0));
                assert_eq!(stages, STAGES);
                let last = progress.last().unwrap();
                assert_eq!((&last["progress"], &last["state"]), (&json!(1.0), &json!("completed")));
                assert_eq!(last["details"]["round"], format!("x-{number}"));
            }
            assert_eq!(data_of(&acts, "doc:demo/readme").len(), STAGES.len());
            assert!(
                data_of(&acts, "coordinator")
                    .iter()
                    .all(|data| data["metrics"]["agents"].as_array().unwrap().len() == 2)
            );
            assert_eq!(data_of(&acts, "agent:writer").last().unwrap()["status"], "idle");
        }
    }

    #[test]
    fn it_waits_for_its_time_and_makes_nothing_up() {
        let mut show = Show::new("x".into(), Pace::times(2), true, Duration::from_secs(5));
        assert_eq!(show.turn(Duration::from_secs(4)), []);
        assert_eq!(show.turn(Duration::from_secs(60)).first(), Some(&Act::Use { round: 1 }));
        assert_eq!(show.due(), Duration::from_millis(60_500));
        assert_eq!(show.turn(Duration::from_secs(60)), []);
    }
}
