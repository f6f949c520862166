//! A client of the simulation: dials a prompt, edits it, and writes down all it is shown.

use super::net::Shared;
use super::peer::Peer;

/// What a client asked for and has no certain answer to, or has.
#[derive(Clone, Debug)]
pub struct Op {
    pub id: String,
    pub content: String,
    pub prompt: usize,
    pub answer: Option<Answer>,
    /// How often it was sent, and how often it was refused: one copy's refusal says nothing of another's.
    pub copies: usize,
    pub refusals: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Saved { seq: u64 },
    Refused,
}

/// What one connection was shown, in order.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub prompt: usize,
    /// Its own edits' contents start with this.
    pub mark: String,
    /// Contents of others' operations that it sent again.
    pub resent: Vec<String>,
    pub initial: Option<String>,
    pub updates: Vec<String>,
    pub ended: bool,
}

#[derive(Debug)]
pub struct Client {
    pub peer: Peer,
    pub view: View,
    sent: usize,
    number: String,
}

impl Client {
    pub fn dial(wire: Shared, number: String, prompt: usize) -> Client {
        let peer = Peer::dial(wire, &format!("/ws/prompts/d/p{prompt}"));
        let mark = format!("{number}.");
        Client { peer, view: View { prompt, mark, ..View::default() }, sent: 0, number }
    }

    pub fn is_live(&self) -> bool {
        self.peer.is_open() && self.view.initial.is_some()
    }

    pub fn edit(&mut self) -> Op {
        self.sent += 1;
        let content = format!("{}{}", self.view.mark, self.sent);
        let op = Op {
            id: format!("{}-{}", self.number, self.sent),
            content,
            prompt: self.view.prompt,
            answer: None,
            copies: 1,
            refusals: 0,
        };
        self.send(&op);
        op
    }

    /// Also again, for an operation without an answer: same id, same content.
    pub fn send(&mut self, op: &Op) {
        let text = format!("{{\"action\":\"update\",\"id\":\"{}\",\"content\":\"{}\"}}", op.id, op.content);
        self.peer.say(&text);
    }

    /// Reads some bytes and notes what they say. `answers` is told each `update_status`: (id, answer).
    pub fn read(&mut self, most: usize, answers: &mut Vec<(String, Answer)>) -> Result<(), String> {
        for text in self.peer.read(most)? {
            self.note(&text, answers)?;
        }
        Ok(())
    }

    fn note(&mut self, payload: &[u8], answers: &mut Vec<(String, Answer)>) -> Result<(), String> {
        let value: serde_json::Value = serde_json::from_slice(payload).map_err(|error| format!("not JSON: {error}"))?;
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        match value["action"].as_str() {
            Some("initial") if self.view.initial.is_none() => self.view.initial = Some(text("content")),
            Some("update") if self.view.initial.is_some() => self.view.updates.push(text("content")),
            Some("update_status") => {
                let answer = match value["success"].as_bool() {
                    Some(true) => Answer::Saved { seq: value["seq"].as_u64().ok_or("a status without its seq")? },
                    _ => Answer::Refused,
                };
                answers.push((text("id"), answer));
            }
            Some("expanded" | "error") => {}
            other => return Err(format!("unexpected {other:?}: {value}")),
        }
        Ok(())
    }
}
