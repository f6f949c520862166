//! JSON as the dialects share it: reading with a bound on depth, and the two spellings that are written.

use serde_json::Value;

/// Levels of nesting in a message (PROMISES.md threat row 58). serde_json's own bound is 128, which is a stack that no
/// message of ours has a use for.
pub const DEPTH_MAX: usize = 32;

/// Reads a text that must be JSON of at most [`DEPTH_MAX`] levels.
pub fn parse(text: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(text).ok()?;
    (depth(&value) <= DEPTH_MAX).then_some(value)
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 1,
    }
}
