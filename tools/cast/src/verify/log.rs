//! A room's log as the server gives it over HTTP, and what each vocabulary makes of its events.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::history::Speaks;
use super::wire::Door;

const PAGE: u64 = 500;

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub seq: u64,
    pub kind: String,
    pub id: Option<String>,
    pub data: Value,
    /// All of it that every native client is shown, in one spelling.
    pub whole: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    pub epoch: String,
    pub head: u64,
    /// Events up to this one are no longer kept.
    pub floor: u64,
    pub events: Vec<Event>,
}

/// By room.
pub type Logs = BTreeMap<String, Log>;

impl Event {
    pub fn read(frame: &Value) -> Option<Event> {
        let whole = json!({"type": frame.get("type")?, "by": frame.get("by")?, "at": frame.get("at")?,
            "id": frame.get("id"), "data": frame.get("data")?});
        Some(Event {
            seq: frame.get("seq")?.as_u64()?,
            kind: frame.get("type")?.as_str()?.to_owned(),
            id: frame.get("id").and_then(Value::as_str).map(str::to_owned),
            data: frame.get("data")?.clone(),
            whole: whole.to_string(),
        })
    }

    /// By what its operation is recognised: its id, or the text that only one operation bears.
    pub fn key(&self) -> Option<String> {
        if self.id.is_some() {
            return self.id.clone();
        }
        match self.kind.as_str() {
            "user_response" => Some(key_of_response(text(&self.data, "session_id"))),
            "thinking" => self.data.get("command").map(|_| key_of_command(text(&self.data, "command"))),
            "approval_required" => Some(text(&self.data, "request_id").to_owned()),
            _ => None,
        }
    }

    /// The decision that it tells, and of which approval.
    pub fn decision(&self) -> Option<(&str, &str)> {
        matches!(self.kind.as_str(), "approved" | "rejected" | "edit_approved")
            .then(|| (text(&self.data, "request_id"), text(&self.data, "decision")))
    }

    /// What a page of this vocabulary is shown of it, in one spelling; none where it is not.
    pub fn page(&self, speaks: Speaks) -> Option<String> {
        match speaks {
            Speaks::Document => (self.kind == "update").then(|| text(&self.data, "content").to_owned()),
            Speaks::Workflow => Some(self.data.to_string()),
            Speaks::Tickets => (!matches!(self.kind.as_str(), "user_response" | "job")).then(|| self.data.to_string()),
            Speaks::Session => {
                (self.kind != "session_created").then(|| json!({"type": self.kind, "data": self.data}).to_string())
            }
            Speaks::Native | Speaks::Backend | Speaks::Http => None,
        }
    }
}

impl Log {
    pub fn at(&self, seq: u64) -> Option<&Event> {
        self.events.binary_search_by_key(&seq, |event| event.seq).ok().and_then(|place| self.events.get(place))
    }

    /// The seqs under which each operation is stored.
    pub fn by_key(&self) -> BTreeMap<String, Vec<u64>> {
        let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for event in &self.events {
            if let Some(key) = event.key() {
                found.entry(key).or_default().push(event.seq);
            }
        }
        found
    }
}

pub fn key_of_response(session: &str) -> String {
    format!("response:{session}")
}

pub fn key_of_command(command: &str) -> String {
    format!("execute:{command}")
}

/// A member that is a text; empty where it is not.
pub fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The whole log. A room that nobody ever wrote into has an empty one.
pub fn read(door: &Door, room: &str) -> Result<Log, String> {
    let mut log = Log::default();
    loop {
        let after = log.events.last().map_or(0, |event| event.seq);
        let path = format!("/v1/rooms/{room}/events?after={after}&limit={PAGE}");
        let answer = door.ask("GET", &path, None, true).map_err(|failure| failure.what)?;
        if answer.status == 404 {
            return Ok(log);
        }
        let page = answer.body.get("events").and_then(Value::as_array).filter(|_| answer.is_well());
        let page = page.ok_or_else(|| format!("GET {path}: {}", answer.reason()))?;
        log.epoch = text(&answer.body, "epoch").to_owned();
        log.head = answer.body.get("head").and_then(Value::as_u64).unwrap_or(0);
        log.floor = answer.body.get("floor").and_then(Value::as_u64).unwrap_or(0);
        for event in page {
            log.events.push(Event::read(event).ok_or_else(|| format!("{room}: not an event: {event}"))?);
        }
        // A page is bounded in bytes too: that it is short says nothing, the head does.
        if page.is_empty() || log.events.last().is_some_and(|event| event.seq >= log.head) {
            return Ok(log);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_known_by_its_id_or_by_what_only_it_says() {
        for (kind, id, data, key) in [
            ("update", Some("u1"), json!({"content": "c"}), Some("u1")),
            ("user_response", None, json!({"session_id": "s"}), Some("response:s")),
            ("thinking", None, json!({"command": "c"}), Some("execute:c")),
            ("thinking", None, json!({"text": "hm"}), None),
            ("approval_required", None, json!({"request_id": "r"}), Some("r")),
            ("complete", None, json!({}), None),
        ] {
            let frame = json!({"seq": 1, "type": kind, "by": "me", "at": "now", "id": id, "data": data});
            assert_eq!(Event::read(&frame).and_then(|event| event.key()).as_deref(), key, "{kind}");
        }
        assert_eq!(Event::read(&json!({"seq": 1, "type": "x"})), None);
    }
}
