//! The pages of the applications that had no seqs, agents and tickets: what they are shown must be a run of the log all
//! the same. So must what the pages of workflows are shown, where a client that was away is shown what it missed. And the
//! scripts beside them, which post.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Dice;
use super::native::{Asked, asked_by};
use super::net::Shared;
use super::peer::Peer;
use super::{CHAT, SESSION_ID, TICKETS, TOPIC, WORKFLOW};

/// What one page was shown, in order, frame by frame as it came.
#[derive(Debug, Default)]
pub struct View {
    pub room: &'static str,
    pub shown: Vec<String>,
    /// How many events there were for sure before it was let in.
    pub from: Option<usize>,
    pub ended: bool,
    /// The client's own name for itself, where it has one.
    pub client: Option<&'static str>,
    /// It ended in the middle of a frame.
    pub is_cut: bool,
}

#[derive(Debug)]
pub struct Page {
    pub peer: Peer,
    pub view: View,
    /// A topic is asked for, and may be refused.
    is_subscribed: bool,
    has_asked: bool,
}

impl Page {
    pub fn dial(wire: Shared, room: &'static str, client: Option<&'static str>) -> Page {
        let path = match (room, client) {
            (TICKETS, _) => "/ws".to_owned(),
            (WORKFLOW, Some(client)) => format!("/ws/workflow/w?client_id={client}"),
            (WORKFLOW, None) => "/ws/workflow/w".to_owned(),
            (TOPIC, _) => "/api/v1/ws/connect".to_owned(),
            (CHAT, _) => "/api/v1/chat/ws/c".to_owned(),
            _ => format!("/api/v1/ws?session_id={SESSION_ID}&token=t"),
        };
        let view = View { room, client, ..View::default() };
        Page { peer: Peer::dial(wire, &path), view, is_subscribed: room != TOPIC, has_asked: false }
    }

    /// What comes from now on must be shown to it.
    pub fn is_in(&self) -> bool {
        self.peer.is_open() && self.is_subscribed
    }

    pub fn is_live(&self) -> bool {
        self.peer.is_open()
    }

    pub fn act(&mut self, mark: usize, runs: &[String], dice: &mut Dice) {
        self.peer.say(&match self.view.room {
            TICKETS if dice.chance(70) => {
                format!(r#"{{"type":"user_response","session_id":"p{mark}","response":"p{mark}"}}"#)
            }
            TICKETS | WORKFLOW => r#"{"type":"ping"}"#.to_owned(),
            TOPIC => r#"{"action":"ping"}"#.to_owned(),
            CHAT => format!(r#"{{"message":"p{mark}"}}"#),
            _ if !runs.is_empty() && dice.chance(20) => {
                let run = &runs[dice.below(runs.len())];
                format!(r#"{{"type":"cancel","data":{{"execution_id":"{run}"}}}}"#)
            }
            _ => format!(r#"{{"type":"execute","data":{{"command":"p{mark}"}}}}"#),
        });
    }

    pub fn decide(&mut self, (approval, _): &Asked, dice: &mut Dice) {
        let (kind, more) =
            [("approve", ""), ("reject", r#","reason":"no""#), ("edit", r#","edited_args":{"n":1}"#)][dice.below(3)];
        self.peer.say(&format!(r#"{{"type":"{kind}","data":{{"request_id":"{approval}"{more}}}}}"#));
    }

    pub fn read(&mut self, most: usize, notes: &mut Notes) -> Result<(), String> {
        for text in self.peer.read(most)? {
            self.note(text, notes)?;
        }
        Ok(())
    }

    fn note(&mut self, text: Vec<u8>, notes: &mut Notes) -> Result<(), String> {
        let frame: Value = serde_json::from_slice(&text).map_err(|error| format!("not JSON: {error}"))?;
        let kind = frame["type"].as_str().unwrap_or_default();
        let data = &frame["data"];
        if self.view.room == TOPIC && !std::mem::replace(&mut self.has_asked, true) {
            self.peer.say(r#"{"action":"subscribe","topic":"t"}"#);
        }
        self.is_subscribed |= is_info(&frame, "Subscribed");
        let is_reply = match self.view.room {
            // Whatever is published there bears a note.
            WORKFLOW | TOPIC | CHAT => frame["note"].is_null(),
            TICKETS => matches!(kind, "pong" | "ack" | "error" | "resumed"),
            _ => match kind {
                "connected" | "cancelled" => true,
                // Replies that were given without the store bear no time, those that the store gave begin with a status.
                "error" => {
                    data["message"].as_str().is_some_and(|text| text.starts_with("404")) || frame["timestamp"].is_null()
                }
                _ => false,
            },
        };
        if let (true, Some(approval), Some(decision)) =
            (is_reply, data["request_id"].as_str(), data["decision"].as_str())
        {
            notes.overheard.push((approval.to_owned(), decision.to_owned(), None));
        }
        if kind == "ack" {
            notes.acks.push(frame["session_id"].as_str().unwrap_or_default().to_owned());
        }
        if is_reply {
            return Ok(());
        }
        match kind {
            "approval_required" => notes.asked.push(asked_by(data)),
            "thinking" => notes.runs.extend(data["execution_id"].as_str().map(str::to_owned)),
            _ => {}
        }
        self.view.shown.push(String::from_utf8(text).map_err(|error| error.to_string())?);
        Ok(())
    }
}

fn is_info(frame: &Value, word: &str) -> bool {
    frame["type"] == "info" && frame["message"].as_str().is_some_and(|text| text.starts_with(word))
}

/// What pages and scripts learn.
#[derive(Debug, Default)]
pub struct Notes {
    pub asked: Vec<Asked>,
    pub runs: Vec<String>,
    /// As `Ops::overheard`.
    pub overheard: Vec<(String, String, Option<u64>)>,
    /// Answers in the mailbox that were acknowledged.
    pub acks: Vec<String>,
    /// Tickets that were posted, by name, each once.
    pub tickets: BTreeMap<String, Post>,
    /// Notes that were published over HTTP.
    pub published: BTreeMap<String, Post>,
    /// Approvals that were decided over HTTP, and how.
    pub decided: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Post {
    Sent,
    Made { id: String },
    Refused,
}

/// A script that posts, one request after the other over one connection.
#[derive(Debug)]
pub struct Script {
    pub peer: Peer,
    waiting: Option<Question>,
}

#[derive(Debug)]
enum Question {
    Ticket(String),
    Decision(String),
    /// Something for a topic.
    Note(String),
}

impl Script {
    pub fn dial(wire: Shared) -> Script {
        Script { peer: Peer::plain(wire), waiting: None }
    }

    pub fn is_idle(&self) -> bool {
        !self.peer.ended && self.waiting.is_none()
    }

    pub fn make_ticket(&mut self, mark: usize, notes: &mut Notes) {
        let name = format!("t{mark}");
        self.peer.post("/tickets/create", &format!(r#"{{"ticket_name":"{name}"}}"#));
        notes.tickets.insert(name.clone(), Post::Sent);
        self.waiting = Some(Question::Ticket(name));
    }

    pub fn publish(&mut self, mark: usize, notes: &mut Notes) {
        let note = format!("s{mark}");
        self.peer.post("/api/v1/ws/publish/t", &format!(r#"{{"type":"note","note":"{note}"}}"#));
        notes.published.insert(note.clone(), Post::Sent);
        self.waiting = Some(Question::Note(note));
    }

    pub fn decide(&mut self, (approval, _): &Asked, dice: &mut Dice) {
        let (action, body) = [("approve", ""), ("reject", r#"{"reason":"no"}"#)][dice.below(2)];
        self.peer.post(&format!("/api/v1/approvals/{approval}/{action}"), body);
        self.waiting = Some(Question::Decision(approval.clone()));
    }

    pub fn read(&mut self, most: usize, notes: &mut Notes) -> Result<(), String> {
        let Some((status, body)) = self.peer.read_response(most)? else { return Ok(()) };
        let body: Value = serde_json::from_slice(&body).map_err(|error| format!("not JSON: {error}"))?;
        let text = |name: &str| body[name].as_str().map(str::to_owned);
        let question = match self.waiting.take() {
            Some(question) => question,
            // It dawdled: the server has closed an idle connection.
            None if status == 408 => return Ok(()),
            None => return Err(format!("an answer to nothing: {status} {body}")),
        };
        match (question, status) {
            (Question::Ticket(name), 200) => {
                let id = text("ticket_id").ok_or(format!("no ticket: {body}"))?;
                notes.tickets.insert(name, Post::Made { id });
            }
            (Question::Ticket(name), 503 | 507) => {
                notes.tickets.insert(name, Post::Refused);
            }
            (Question::Note(note), 200) => {
                notes.published.insert(note, Post::Made { id: String::new() });
            }
            (Question::Note(note), 503 | 507) => {
                notes.published.insert(note, Post::Refused);
            }
            (Question::Decision(approval), 200) => {
                notes.decided.push((approval, text("decision").ok_or(format!("no decision: {body}"))?));
            }
            (Question::Decision(approval), 400) => {
                notes.overheard.push((approval, text("decision").ok_or(format!("no decision: {body}"))?, None));
            }
            // Nobody knows; or it was refused.
            (_, 504 | 408) | (Question::Decision(_), 503 | 507) => {}
            (question, _) => return Err(format!("{question:?} is answered {status} {body}")),
        }
        Ok(())
    }
}
