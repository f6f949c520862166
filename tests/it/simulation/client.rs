//! A client of the simulation: dials a prompt, edits it, and writes down all it is shown.

use super::net::{Dice, Shared, lock};

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
    pub wire: Shared,
    pub view: View,
    upgraded: bool,
    buffer: Vec<u8>,
    sent: usize,
    number: String,
    pub refused: bool,
}

impl Client {
    pub fn dial(wire: Shared, number: String, prompt: usize) -> Client {
        let request = format!(
            "GET /ws/prompts/d/p{prompt} HTTP/1.1\r\nHost: s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        lock(&wire).client_sends(request.as_bytes());
        let mark = format!("{number}.");
        Client {
            wire,
            view: View { prompt, mark, ..View::default() },
            upgraded: false,
            buffer: Vec::new(),
            sent: 0,
            number,
            refused: false,
        }
    }

    pub fn is_live(&self) -> bool {
        self.upgraded && self.view.initial.is_some() && !self.view.ended
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
        self.frame(0x81, text.as_bytes());
    }

    pub fn say(&mut self, text: &str) {
        self.frame(0x81, text.as_bytes());
    }

    fn frame(&mut self, first: u8, payload: &[u8]) {
        let mut frame = vec![first];
        match payload.len() {
            short @ 0..=125 => frame.push(0x80 | short as u8),
            long => {
                frame.push(0x80 | 126);
                frame.extend((long as u16).to_be_bytes());
            }
        }
        let key = [7, 77, 177, 17];
        frame.extend(key);
        frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        lock(&self.wire).client_sends(&frame);
    }

    /// Reads some bytes and notes what they say. `answers` is told each `update_status`: (id, answer).
    pub fn read(&mut self, most: usize, answers: &mut Vec<(String, Answer)>) -> Result<(), String> {
        let bytes = lock(&self.wire).client_reads(most);
        self.buffer.extend(bytes);
        if !self.upgraded {
            let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(()) };
            let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
            if !head.starts_with("HTTP/1.1 101") {
                // Refused because the store is broken, full or busy, or because we dawdled; never as an unknown prompt.
                self.refused = true;
                self.view.ended = true;
                return if ["50", "408"].iter().any(|code| head[9..].starts_with(code)) {
                    Ok(())
                } else {
                    Err(format!("handshake: {head}"))
                };
            }
            self.upgraded = true;
            self.buffer.drain(..end + 4);
        }
        while let Some((opcode, payload)) = self.take_frame() {
            match opcode {
                1 => self.note(&payload, answers)?,
                8 => self.view.ended = true,
                9 => self.frame(0x8a, &payload),
                other => return Err(format!("opcode {other}")),
            }
        }
        let wire = lock(&self.wire);
        if wire.server_gone && wire.to_client.is_empty() {
            self.view.ended = true;
        }
        Ok(())
    }

    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (header, len) = match self.buffer.get(1)? {
            126 => (4, usize::from(u16::from_be_bytes([*self.buffer.get(2)?, *self.buffer.get(3)?]))),
            127 => panic!("no frame is that long here"),
            short => (2, usize::from(*short)),
        };
        if self.buffer.len() < header + len {
            return None;
        }
        let frame: Vec<u8> = self.buffer.drain(..header + len).collect();
        Some((frame[0] & 15, frame[header..].to_vec()))
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

    pub fn leave(&mut self, dice: &mut Dice) {
        lock(&self.wire).client_leaves(dice.chance(50));
        self.view.ended = true;
    }
}
