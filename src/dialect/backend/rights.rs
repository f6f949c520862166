//! What a key may do, asked for by name. Asked again for every message and request; the answer is a refusal or nothing.

use super::fault::Fault;
use crate::auth::ApiKey;
use crate::model::{TaskKind, Tasks};

pub fn publish(key: &ApiKey, room: &str) -> Result<(), Fault> {
    grant(key.allows(&format!("publish:{room}")), "this key may not publish in this room")
}

pub fn read(key: &ApiKey, room: &str) -> Result<(), Fault> {
    grant(may_read(key, room), "this key may not read this room")
}

pub fn may_read(key: &ApiKey, room: &str) -> bool {
    key.allows(&format!("read:{room}"))
}

/// Lists leave out what may not be read; a key that may read nothing is told so.
pub fn read_some(key: &ApiKey) -> Result<(), Fault> {
    grant(has_some(key, "read:"), "this key may not read rooms")
}

pub fn sessions(key: &ApiKey) -> Result<(), Fault> {
    grant(key.allows("sessions"), "this key may not use sessions")
}

pub fn approvals(key: &ApiKey) -> Result<(), Fault> {
    grant(key.allows("approvals"), "this key may not use approvals")
}

pub fn connections(key: &ApiKey) -> Result<(), Fault> {
    grant(key.allows("connections"), "this key may not use connections")
}

pub fn revocations(key: &ApiKey) -> Result<(), Fault> {
    grant(key.allows("revocations"), "this key may not use revocations")
}

pub fn tasks(key: &ApiKey, kinds: Tasks) -> Result<(), Fault> {
    grant(kinds.and(kinds_of(key)) == kinds, "this key may not take tasks of this kind")
}

/// Which task it is about is known only to the store; there each task's own kind is asked for.
pub fn some_tasks(key: &ApiKey) -> Result<(), Fault> {
    grant(!kinds_of(key).is_empty(), "this key may not take tasks")
}

/// The kinds of task that it may take.
pub fn kinds_of(key: &ApiKey) -> Tasks {
    TaskKind::ALL.into_iter().filter(|kind| key.allows(&format!("tasks:{}", kind.as_str()))).collect()
}

fn grant(allowed: bool, detail: &'static str) -> Result<(), Fault> {
    if allowed { Ok(()) } else { Err(Fault::forbidden(detail)) }
}

/// True when some right that starts with `start` may be granted by one of the patterns.
fn has_some(key: &ApiKey, start: &str) -> bool {
    key.rights.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(prefix) => prefix.starts_with(start) || start.starts_with(prefix),
        None => pattern.starts_with(start),
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::key;
    use super::*;

    /// What a key with one right may do: publish in `doc:a`, read it, read anything, take `execute`, take anything, use
    /// sessions, approvals, connections, revocations.
    fn granted(right: &str) -> [bool; 9] {
        let key = key(&[right]);
        [
            publish(&key, "doc:a").is_ok(),
            read(&key, "doc:a").is_ok(),
            read_some(&key).is_ok(),
            tasks(&key, Tasks::only(TaskKind::Execute)).is_ok(),
            some_tasks(&key).is_ok(),
            sessions(&key).is_ok(),
            approvals(&key).is_ok(),
            connections(&key).is_ok(),
            revocations(&key).is_ok(),
        ]
    }

    #[test]
    fn a_right_grants_itself_and_nothing_else() {
        let marks = |marks: &str| -> Vec<bool> { marks.chars().map(|mark| mark == 'x').collect() };
        for (right, expected) in [
            ("*", "xxxxxxxxx"),
            ("", "........."),
            ("publish:*", "x........"),
            ("publish:doc:*", "x........"),
            ("publish:doc:a", "x........"),
            ("publish:doc:b", "........."),
            ("publish", "........."),
            ("read:*", ".xx......"),
            ("read:doc:a", ".xx......"),
            ("read:doc:b", "..x......"),
            ("read", "........."),
            ("r*", ".xx.....x"),
            ("tasks:*", "...xx...."),
            ("tasks:execute", "...xx...."),
            ("tasks:chat", "....x...."),
            ("tasks:dance", "........."),
            ("sessions", ".....x..."),
            ("approvals", "......x.."),
            ("connections", ".......x."),
            ("revocations", "........x"),
            ("SESSIONS", "........."),
        ] {
            assert_eq!(granted(right).to_vec(), marks(expected), "{right}");
        }
    }

    #[test]
    fn every_kind_that_is_asked_for_must_be_granted() {
        let key = key(&["tasks:execute", "tasks:cancel"]);
        let kinds = Tasks::only(TaskKind::Execute).with(TaskKind::Cancel);
        assert_eq!(kinds_of(&key), kinds);
        assert!(tasks(&key, kinds).is_ok() && tasks(&key, Tasks::default()).is_ok());
        assert_eq!(tasks(&key, kinds.with(TaskKind::Chat)).map_err(|fault| fault.status), Err(403));
    }
}
