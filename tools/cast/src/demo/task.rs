//! A task as it comes over the wire, and the names that are derived from it.
//!
//! Delivery is at least once, so everything that is done for a task has a name that comes out the same the second time.

use serde_json::Value;

/// All that a server knows; asked for as far as the key allows them.
pub const KINDS: [&str; 8] = ["execute", "cancel", "decision", "control", "ticket", "webhook", "response", "chat"];

#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    pub id: String,
    pub kind: String,
    pub room: String,
    pub attempt: u64,
    pub fence: u64,
    pub data: Value,
}

impl Task {
    pub fn read(frame: &Value) -> Option<Task> {
        let text = |name: &str| frame.get(name)?.as_str().map(str::to_owned);
        Some(Task {
            id: text("task")?,
            kind: text("kind")?,
            room: text("room")?,
            attempt: frame.get("attempt").and_then(Value::as_u64).unwrap_or(1),
            fence: frame.get("fence")?.as_u64()?,
            data: frame.get("data").cloned().unwrap_or_default(),
        })
    }

    /// A field that is a text; empty for anything else.
    pub fn text(&self, name: &str) -> &str {
        self.data.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// The id of its publish number `step`: the same for whoever is given the task again.
    pub fn publish_id(&self, step: usize) -> String {
        format!("demo:{}:{step}", self.id)
    }

    /// The run that it is about.
    pub fn run(&self) -> Option<&str> {
        Some(self.text("execution_id")).filter(|run| !run.is_empty())
    }
}

/// A UUID that follows from a text (RFC 9562 version 8: made in a way of one's own), so that asking again for an approval
/// is not asking for another. FNV-1a, of 128 bits: nobody gains anything by a collision that he makes himself.
pub fn uuid_of(text: &str) -> String {
    const START: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let hash = text.bytes().fold(START, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    let bits = hash & !(0xf << 76) & !(0b11 << 62) | (0x8 << 76) | (0b10 << 62);
    let [a, b, c, d] = [bits >> 96, bits >> 80 & 0xffff, bits >> 64 & 0xffff, bits >> 48 & 0xffff];
    format!("{a:08x}-{b:04x}-{c:04x}-{d:04x}-{:012x}", bits & 0xffff_ffff_ffff)
}

/// As much of a text as a line on a screen takes.
pub fn short(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn a_derived_uuid_is_one_and_always_the_same() {
        let id = uuid_of("approval of 6f9619ff-8b86-d011-b42d-00cf4fc964ff");
        assert_eq!(id, uuid_of("approval of 6f9619ff-8b86-d011-b42d-00cf4fc964ff"));
        assert_ne!(id, uuid_of("approval of 6f9619ff-8b86-d011-b42d-00cf4fc964fe"));
        let lengths: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(id.as_bytes()[14], b'8');
        assert!(matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
        // FNV-1a of nothing is its start.
        assert_eq!(uuid_of(""), "6c62272e-07bb-8142-a2b8-21756295c58d");
    }

    #[test]
    fn a_task_is_read_and_nothing_else_is() {
        let frame = json!({"op": "task", "task": "7", "kind": "chat", "room": "chat:t", "attempt": 2, "fence": 9,
            "at": "2025-05-13T01:59:00Z", "data": {"message": "hi", "execution_id": ""}});
        let task = Task::read(&frame).unwrap();
        assert_eq!((task.attempt, task.fence, task.text("message"), task.text("none")), (2, 9, "hi", ""));
        assert_eq!((task.run(), &*task.publish_id(3)), (None, "demo:7:3"));
        for frame in [json!({}), json!([]), json!({"task": 7, "kind": "chat", "room": "r", "fence": 1})] {
            assert_eq!(Task::read(&frame), None);
        }
    }

    #[test]
    fn long_texts_are_cut_between_letters() {
        assert_eq!(short("ü"), "ü");
        assert_eq!(short(&"ü".repeat(81)), format!("{}…", "ü".repeat(80)));
    }
}
