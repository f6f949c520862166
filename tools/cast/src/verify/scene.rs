//! What all who play in one run share: the server, the history, the phase, and the rooms with their operations.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde_json::{Value, json};

use super::dice::Dice;
use super::history::{Connection, Ending, History, Speaks, locked};
use super::wire::{Door, Link};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Dialect {
    Native,
    Documents,
    Workflows,
    Tickets,
    Agents,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Operations, cuts and kills.
    Play,
    /// No new operation and no fault any more: what is open is sent again until it is answered.
    Finish,
    /// All is answered: whoever watches is to come to the head.
    Settle,
    Over,
}

const PHASES: [Phase; 4] = [Phase::Play, Phase::Finish, Phase::Settle, Phase::Over];

#[derive(Debug)]
pub struct Scene {
    pub history: History,
    pub door: Door,
    pub seed: u64,
    /// In every name that this run makes, so that it meets nobody else's.
    pub label: String,
    phase: AtomicU8,
    /// Pages that are in for good.
    attached: AtomicUsize,
    /// When the present phase is given up.
    deadline: Mutex<Option<Instant>>,
    /// The pause of a writer between two operations, at most.
    pub pace: Duration,
}

impl Scene {
    pub fn new(door: Door, seed: u64, label: String, pace: Duration) -> Scene {
        Scene {
            history: History::default(),
            door,
            seed,
            label,
            phase: AtomicU8::new(0),
            attached: AtomicUsize::new(0),
            deadline: Mutex::new(None),
            pace,
        }
    }

    pub fn phase(&self) -> Phase {
        PHASES.get(usize::from(self.phase.load(Ordering::SeqCst))).copied().unwrap_or(Phase::Over)
    }

    pub fn enter(&self, phase: Phase, patience: Duration) {
        *locked(&self.deadline) = Some(Instant::now() + patience);
        self.phase.store(phase as u8, Ordering::SeqCst);
    }

    pub fn is_late(&self) -> bool {
        locked(&self.deadline).is_some_and(|deadline| Instant::now() > deadline)
    }

    pub fn attach(&self) {
        self.attached.fetch_add(1, Ordering::SeqCst);
    }

    pub fn attached(&self) -> usize {
        self.attached.load(Ordering::SeqCst)
    }

    pub fn dice(&self, name: &str) -> Dice {
        Dice::of(self.seed, name)
    }

    /// The text that only the last event of each room bears.
    pub fn last_words(&self) -> String {
        format!("last-words-of-{}", self.label)
    }

    /// A connection, or none after a short rest when the server is away.
    pub fn visit(&self, name: &str, speaks: Speaks, room: &str, path: &str, dice: &mut Dice) -> Option<Link<'_>> {
        match Link::open(&self.history, &self.door, name, speaks, room, path) {
            Ok(link) => Some(link),
            Err(_) => {
                std::thread::sleep(Duration::from_millis(dice.between(5, 30)));
                None
            }
        }
    }

    /// Somebody who should have come to the end and could not even connect.
    pub fn never_settled(&self, name: &str, speaks: Speaks, room: &str) {
        self.history.keep(Connection {
            name: name.to_owned(),
            speaks,
            room: room.to_owned(),
            opened: self.history.tick(),
            frames: Vec::new(),
            ending: Ending::Behind,
        });
    }
}

/// A room that is played in.
#[derive(Debug)]
pub struct Place {
    pub dialect: Dialect,
    pub room: String,
    /// What the room is called in paths of its dialect.
    pub name: String,
}

impl Place {
    /// A durable event with a text that only it bears, as a native client publishes it.
    pub fn publish(&self, id: &str, mark: &str) -> Value {
        let (kind, data) = match self.dialect {
            Dialect::Native => ("message", json!({"mark": mark})),
            Dialect::Documents => ("update", json!({"content": mark})),
            Dialect::Workflows => ("progress", json!({"mark": mark, "progress": 0.5})),
            Dialect::Tickets => ("agent_message", json!({"mark": mark})),
            Dialect::Agents => ("execute", json!({"command": mark})),
        };
        json!({"op": "publish", "room": self.room, "id": id, "type": kind, "data": data})
    }

    /// The socket of its old pages, and how it speaks; none where there is none. `since` is for the vocabulary that has it.
    pub fn page(&self, client: &str, since: Option<u64>) -> Option<(Speaks, String)> {
        let name = &self.name;
        match self.dialect {
            Dialect::Native => None,
            Dialect::Documents => Some((Speaks::Document, format!("/ws/prompts/{name}"))),
            Dialect::Workflows => Some((Speaks::Workflow, format!("/ws/workflow/{name}?client_id={client}"))),
            Dialect::Tickets => {
                Some((Speaks::Tickets, since.map_or_else(|| "/ws".to_owned(), |since| format!("/ws?since={since}"))))
            }
            Dialect::Agents => Some((Speaks::Session, format!("/api/v1/ws?session_id={name}"))),
        }
    }
}

/// Operations under way, each with the copies that are still to be sent. Shared by connections, so that copies of one
/// operation go over several of them, and over several lives of the server.
#[derive(Debug, Default)]
pub struct Book(Mutex<BTreeMap<String, Entry>>);

#[derive(Debug)]
struct Entry {
    frame: Value,
    copies_left: u64,
    is_answered: bool,
}

impl Book {
    /// Notes a new operation, the first copy of which is sent now.
    pub fn open(&self, id: &str, frame: &Value, further_copies: u64) {
        let entry = Entry { frame: frame.clone(), copies_left: further_copies, is_answered: false };
        locked(&self.0).insert(id.to_owned(), entry);
    }

    /// One more copy of something that is to be sent again.
    pub fn again(&self, dice: &mut Dice) -> Option<(String, Value)> {
        let mut entries = locked(&self.0);
        let ids: Vec<String> = entries.iter().filter(|(_, it)| it.copies_left > 0).map(|(id, _)| id.clone()).collect();
        let id = dice.pick(&ids)?;
        let entry = entries.get_mut(id)?;
        entry.copies_left -= 1;
        let frame = entry.frame.clone();
        if entry.copies_left == 0 && entry.is_answered {
            entries.remove(id);
        }
        Some((id.clone(), frame))
    }

    pub fn answered(&self, id: &str) {
        let mut entries = locked(&self.0);
        let Some(entry) = entries.get_mut(id) else { return };
        entry.is_answered = true;
        if entry.copies_left == 0 {
            entries.remove(id);
        }
    }

    /// What was sent and not answered yet.
    pub fn unanswered(&self) -> Vec<(String, Value)> {
        let entries = locked(&self.0);
        entries.iter().filter(|(_, it)| !it.is_answered).map(|(id, it)| (id.clone(), it.frame.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_in_the_book_until_it_is_answered_and_all_its_copies_are_sent() {
        let (book, mut dice) = (Book::default(), Dice::new(1));
        book.open("a", &json!(1), 1);
        assert_eq!(book.unanswered().len(), 1);
        book.answered("a");
        assert!(book.unanswered().is_empty());
        assert_eq!(book.again(&mut dice), Some(("a".to_owned(), json!(1))));
        assert_eq!(book.again(&mut dice), None);
        book.open("b", &json!(2), 0);
        assert_eq!((book.again(&mut dice), book.unanswered().len()), (None, 1));
    }
}
