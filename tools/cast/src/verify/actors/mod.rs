//! Who plays: each in a thread of its own with one connection at a time, and dice of its own.
//!
//! ```text
//! writer    operations with ids, each 1 to 5 times, over whatever connection is there   (native, documents)
//! speaker   operations without ids, each once                                           (tickets, agents)
//! observer  a native member that resumes                                                (every room)
//! page      an old page, which begins anew each time; in a session it may decide        (all but native)
//! backend   takes tasks, asks for approvals, carries decisions out                      (agents, tickets)
//! ```

pub mod backend;
pub mod observer;
pub mod page;
pub mod speaker;
pub mod writer;

use serde_json::{Value, json};

use super::dice::Dice;
use super::log::text;

/// What a decider decides.
pub fn verdict(dice: &mut Dice) -> &'static str {
    dice.pick(&["approve", "reject", "edit"]).copied().unwrap_or("approve")
}

pub fn edited() -> Value {
    json!({"amount": 1})
}

/// The last frame of all, in whatever vocabulary.
pub fn is_last(frame: &Value, last_words: &str) -> bool {
    match frame {
        Value::String(said) => said.contains(last_words),
        Value::Object(members) => members.values().any(|member| is_last(member, last_words)),
        _ => false,
    }
}

/// The approval that a frame of a session's room asks for: its id and its digest.
pub fn asked_for(data: &Value) -> (String, String) {
    (text(data, "request_id").to_owned(), text(data, "digest").to_owned())
}
