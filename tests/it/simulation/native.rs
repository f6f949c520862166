//! A native client of the simulation: several rooms over one connection, and of each an unbroken run of events.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;

use super::Dice;
use super::net::Shared;
use super::ops::{Op, Ops};
use super::peer::Peer;
use super::{CHAT, FREE, PROMPT_ROOMS, ROOMS, SESSION, TICKETS, TRIMMED, WORKFLOW};

/// Where somebody stands in a room: its epoch and the last event that was shown.
pub type Place = (String, u64);

/// A request for a decision as a client was shown it: its id and its digest.
pub type Asked = (String, String);

/// What one connection was shown.
#[derive(Debug, Default)]
pub struct View {
    pub number: String,
    /// Index in `ROOMS`, seq, and the frame as it came.
    pub shown: Vec<(usize, u64, String)>,
    /// Index in `ROOMS`, the head it was taken at, the state.
    pub snapshots: Vec<(usize, u64, Value)>,
    pub members: BTreeMap<usize, Member>,
    pub resets: usize,
    pub ended: bool,
}

/// A room it is in.
#[derive(Clone, Debug)]
pub struct Member {
    pub epoch: String,
    /// The only event that it may be shown.
    pub next: u64,
    /// It was told that it cannot be given what it missed: the reset must come before anything else.
    must_reset: bool,
}

#[derive(Debug)]
pub struct Native {
    pub peer: Peer,
    pub view: View,
    greeted: bool,
    sent: usize,
    /// Joins under way, in the order in which they were sent.
    joining: BTreeMap<usize, VecDeque<Asking>>,
    /// How often it has asked to leave a room and was not told yet; a room counts again when it had come back in between.
    /// (Seed 2113097.)
    leaving: usize,
    rev: u64,
    /// What it asks for as soon as it is greeted.
    plan: Vec<(usize, Option<Place>, u64)>,
    /// Operations that it sent, and how many of the copies were not answered.
    pub asked: BTreeMap<String, usize>,
}

/// A join that was sent.
#[derive(Debug)]
struct Asking {
    since: Option<Place>,
    /// What the log had lost when it was sent.
    floor: u64,
}

impl Native {
    pub fn dial(wire: Shared, number: String) -> Native {
        let view = View { number, ..View::default() };
        let peer = Peer::dial(wire, "/v1/connect");
        Native {
            peer,
            view,
            greeted: false,
            sent: 0,
            joining: BTreeMap::new(),
            leaving: 0,
            rev: 0,
            plan: Vec::new(),
            asked: BTreeMap::new(),
        }
    }

    pub fn is_live(&self) -> bool {
        self.peer.is_open() && self.greeted
    }

    /// In a room, or about to be.
    pub fn is_anywhere(&self) -> bool {
        !self.view.members.is_empty() || !self.joining.is_empty()
    }

    // ---- what it asks for -----------------------------------------------------------------------------------------------

    /// To be asked for as soon as it is greeted. `floor`: what the room's log has lost.
    pub fn plan(&mut self, room: usize, since: Option<Place>, floor: u64) {
        self.plan.push((room, since, floor));
    }

    /// `places`: where it, or another before it, was when it went. `floor`: what the room's log has lost.
    pub fn join(&mut self, room: usize, places: &BTreeMap<usize, Place>, floor: u64, dice: &mut Dice) {
        let mut since = places.get(&room).filter(|_| dice.chance(70)).cloned();
        if dice.chance(8) {
            since = Some(match dice.below(2) {
                0 => ("00000000000000ff".to_owned(), 1),
                _ => (since.map_or(String::new(), |(epoch, _)| epoch), 1_000_000),
            });
        }
        self.join_at(room, since, floor);
    }

    fn join_at(&mut self, room: usize, since: Option<Place>, floor: u64) {
        let name = ROOMS[room];
        self.peer.say(&match &since {
            None => format!(r#"{{"op":"join","room":"{name}"}}"#),
            Some((epoch, seq)) => {
                format!(r#"{{"op":"join","room":"{name}","since":{{"epoch":"{epoch}","seq":{seq}}}}}"#)
            }
        });
        self.joining.entry(room).or_default().push_back(Asking { since, floor });
    }

    pub fn leave_room(&mut self, room: usize) {
        self.peer.say(&format!(r#"{{"op":"leave","room":"{}"}}"#, ROOMS[room]));
        self.leaving += 1;
    }

    /// Something without consequences for the log, to be in the way.
    pub fn chat(&mut self, room: usize, dice: &mut Dice) {
        let name = ROOMS[room];
        // Who asks while a join is under way may be refused like the join, and could not tell the two apart.
        let is_moving = !self.joining.is_empty() || self.leaving > 0;
        let is_member = self.view.members.contains_key(&room) && !is_moving;
        self.peer.say(&match dice.below(3) {
            0 if is_member => format!(r#"{{"op":"presence","room":"{name}"}}"#),
            1 if is_member => format!(r#"{{"op":"signal","room":"{name}","data":{{"typing":true}}}}"#),
            _ => r#"{"op":"ping"}"#.to_owned(),
        });
    }

    pub fn publish(&mut self, room: usize, dice: &mut Dice, ops: &mut Ops) {
        let (id, name) = (self.next_id(), ROOMS[room]);
        let guess = if dice.chance(80) { self.rev } else { self.rev + 1 };
        let if_rev = if name == FREE && dice.chance(30) { format!(r#","if_rev":{guess}"#) } else { String::new() };
        let (kind, data) = match name {
            // The newest run there is.
            SESSION if dice.chance(15) => ("cancel", "{}".to_owned()),
            SESSION => ("execute", format!(r#"{{"command":"{id}"}}"#)),
            CHAT if dice.chance(15) => ("message", format!(r#"{{"message":"{id}"}}"#)),
            WORKFLOW if dice.chance(30) => ("progress", format!(r#"{{"note":"{id}"}}"#)),
            TICKETS => ("user_response", format!(r#"{{"session_id":"{id}","response":"{id}"}}"#)),
            doc if PROMPT_ROOMS.contains(&doc) => ("update", format!(r#"{{"content":"{id}"}}"#)),
            _ => ("note", format!(r#"{{"note":"{id}"}}"#)),
        };
        let text = format!(r#"{{"op":"publish","room":"{name}","id":"{id}","type":"{kind}","data":{data}{if_rev}}}"#);
        self.send_first(id, Op::new(name, text), ops);
    }

    pub fn decide(&mut self, (approval, digest): &Asked, dice: &mut Dice, ops: &mut Ops) {
        let id = self.next_id();
        let (decision, verdict, more) = [
            ("approved", "approve", ""),
            ("rejected", "reject", r#","reason":"no""#),
            ("edited", "edit", r#","edited_args":{"n":0}"#),
            ("cancelled", "cancel", ""),
        ][dice.below(4)];
        // Who has seen something else cannot decide it, whatever comes of the others.
        let (seen, decision) = if dice.chance(90) { (digest.as_str(), decision) } else { ("another", "nothing") };
        let text = format!(
            r#"{{"op":"decide","room":"{SESSION}","id":"{id}","approval":"{approval}","decision":"{verdict}","seen":"{seen}"{more}}}"#
        );
        let decides = Some((approval.clone(), decision));
        self.send_first(id, Op { decides, ..Op::new(SESSION, text) }, ops);
    }

    fn next_id(&mut self) -> String {
        self.sent += 1;
        format!("{}-{}", self.view.number, self.sent)
    }

    fn send_first(&mut self, id: String, op: Op, ops: &mut Ops) {
        self.say(&id, &op);
        ops.sent(id, op);
    }

    /// Also again, and also what somebody else has sent before.
    pub fn say(&mut self, id: &str, op: &Op) {
        self.peer.say(&op.text);
        *self.asked.entry(id.to_owned()).or_default() += 1;
    }

    // ---- what it is told ------------------------------------------------------------------------------------------------

    pub fn read(&mut self, most: usize, ops: &mut Ops, asked: &mut Vec<Asked>) -> Result<(), String> {
        for text in self.peer.read(most)? {
            self.note(text, ops, asked).map_err(|error| format!("{error} (to {})", self.view.number))?;
        }
        Ok(())
    }

    fn note(&mut self, text: Vec<u8>, ops: &mut Ops, asked: &mut Vec<Asked>) -> Result<(), String> {
        let frame: Value = serde_json::from_slice(&text).map_err(|error| format!("not JSON: {error}"))?;
        let room = frame["room"].as_str().and_then(|room| ROOMS.iter().position(|known| *known == room));
        match (frame["op"].as_str().unwrap_or_default(), room) {
            ("hello", _) => {
                self.greeted = true;
                for (room, since, floor) in std::mem::take(&mut self.plan) {
                    self.join_at(room, since, floor);
                }
            }
            ("joined", Some(room)) => self.joined(room, &frame)?,
            ("reset", Some(room)) => self.reset(room, &frame)?,
            ("left", Some(room)) => {
                self.view.members.remove(&room);
                self.leaving = self.leaving.saturating_sub(1);
            }
            ("event", Some(room)) => {
                let seq = frame["seq"].as_u64().unwrap_or_default();
                match self.view.members.get_mut(&room) {
                    Some(member) if member.next == seq && !member.must_reset => member.next += 1,
                    other => return Err(format!("G4/G6: {} shows {seq} to {other:?}", ROOMS[room])),
                }
                if frame["type"] == "approval_required" {
                    asked.push(asked_by(&frame["data"]));
                }
                let text = String::from_utf8(text).map_err(|error| error.to_string())?;
                self.view.shown.push((room, seq, text));
            }
            // A join that came to nothing; what was before it is over, too.
            ("refused", Some(room)) if frame["id"].is_null() && self.joining.contains_key(&room) => {
                self.next_join(room)?;
                self.view.members.remove(&room);
            }
            ("ok" | "refused" | "conflict" | "unknown", _) if frame["id"].is_string() => {
                self.rev = frame["rev"].as_u64().unwrap_or(self.rev);
                self.heard(frame["id"].as_str().unwrap_or_default());
                ops.answered(&frame)?;
            }
            ("pong" | "bye" | "presence" | "signal", _) => {}
            _ => return Err(format!("unexpected: {frame}")),
        }
        Ok(())
    }

    fn heard(&mut self, id: &str) {
        if let Some(copies) = self.asked.get_mut(id) {
            *copies -= 1;
            if *copies == 0 {
                self.asked.remove(id);
            }
        }
    }

    fn joined(&mut self, room: usize, frame: &Value) -> Result<(), String> {
        let Asking { since, floor } = self.next_join(room)?;
        let epoch = frame["epoch"].as_str().ok_or("no epoch")?.to_owned();
        let head = frame["head"].as_u64().ok_or("no head")?;
        let recovered = frame["recovered"] == true;
        if ROOMS[room] == FREE {
            self.rev = frame["rev"].as_u64().unwrap_or(0);
        }
        let next = match &since {
            // Who was there before the first event knows no epoch and stands in the first history.
            Some((known, seq)) => {
                let is_there = (*known == epoch || known.is_empty()) && *seq <= head;
                if recovered != is_there && (recovered || ROOMS[room] != TRIMMED) {
                    return Err(format!("G6: joined since {known} {seq}: {frame}"));
                }
                if recovered && *seq < floor {
                    return Err(format!(
                        "G6: what came up to {floor} was gone, and who stood at {seq} is told: {frame}"
                    ));
                }
                if recovered { seq + 1 } else { head + 1 }
            }
            None if recovered => return Err(format!("G6: recovered from nothing: {frame}")),
            None => head + 1,
        };
        let must_reset = since.is_some() && !recovered;
        self.view.members.insert(room, Member { epoch, next, must_reset });
        self.keep_snapshot(room, head, frame);
        Ok(())
    }

    /// Either it follows a join that could not be made good, or the log was trimmed under a slow member.
    fn reset(&mut self, room: usize, frame: &Value) -> Result<(), String> {
        let seq = frame["seq"].as_u64().ok_or("no seq")?;
        self.view.resets += 1;
        match self.view.members.get_mut(&room) {
            Some(member) if member.must_reset || (ROOMS[room] == TRIMMED && member.next <= seq) => {
                member.next = seq + 1;
                member.must_reset = false;
            }
            other => return Err(format!("G6: a reset without a reason to {other:?}: {frame}")),
        }
        self.keep_snapshot(room, seq, frame);
        Ok(())
    }

    fn keep_snapshot(&mut self, room: usize, head: u64, frame: &Value) {
        if let Some(snapshot) = frame.get("snapshot") {
            self.view.snapshots.push((room, head, snapshot.clone()));
        }
    }

    fn next_join(&mut self, room: usize) -> Result<Asking, String> {
        let joins = self.joining.get_mut(&room).ok_or(format!("joined {} unasked", ROOMS[room]))?;
        let asking = joins.pop_front().ok_or("joined unasked")?;
        if joins.is_empty() {
            self.joining.remove(&room);
        }
        Ok(asking)
    }
}

impl Member {
    pub fn place(&self) -> Option<Place> {
        (!self.must_reset).then(|| (self.epoch.clone(), self.next - 1))
    }
}

/// From an event's data, or from a page's frame.
pub fn asked_by(data: &Value) -> Asked {
    let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
    (text("request_id"), text("digest"))
}
