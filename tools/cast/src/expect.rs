//! What a script expects to hear, and whether a frame is that.

use serde_json::Value;

/// One expectation. JSON objects and arrays are matched by structure, everything else by text.
#[derive(Clone, Debug, PartialEq)]
pub enum Expectation {
    /// The frame contains this text.
    Text(String),
    /// The frame is JSON and says at least this.
    Json(Value),
}

impl Expectation {
    /// A bare `5` or `true` is text: a script that looks for a number in a greeting means the digits.
    pub fn parse(written: &str) -> Expectation {
        match serde_json::from_str(written) {
            Ok(value @ (Value::Object(_) | Value::Array(_))) => Expectation::Json(value),
            _ => Expectation::Text(written.to_owned()),
        }
    }

    pub fn is_met_by(&self, frame: &str) -> bool {
        match self {
            Expectation::Text(text) => frame.contains(text.as_str()),
            Expectation::Json(wanted) => serde_json::from_str(frame).is_ok_and(|said| is_subset(wanted, &said)),
        }
    }
}

impl std::fmt::Display for Expectation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Expectation::Text(text) => f.write_str(text),
            Expectation::Json(value) => write!(f, "{value}"),
        }
    }
}

/// Objects may say more than is wanted; arrays must be as long as wanted, since a position means something in them.
fn is_subset(wanted: &Value, said: &Value) -> bool {
    match (wanted, said) {
        (Value::Object(wanted), Value::Object(said)) => {
            wanted.iter().all(|(key, value)| said.get(key).is_some_and(|said| is_subset(value, said)))
        }
        (Value::Array(wanted), Value::Array(said)) => {
            wanted.len() == said.len() && wanted.iter().zip(said).all(|(wanted, said)| is_subset(wanted, said))
        }
        _ => wanted == said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations_and_frames() {
        for (expectation, frame, met) in [
            ("hello", "say hello", true),
            ("hello", "say good bye", false),
            ("5", r#"{"n":15}"#, true),
            (r#"{"action":"initial"}"#, r#"{"action":"initial","content":"x"}"#, true),
            (r#"{"action":"initial"}"#, r#"{"action":"update"}"#, false),
            (r#"{"action":"initial"}"#, r#"not json {"action":"initial"}"#, false),
            (r#"{"a":{"b":1}}"#, r#"{"a":{"b":1,"c":2},"d":3}"#, true),
            (r#"{"a":{"b":1}}"#, r#"{"a":{"c":2}}"#, false),
            (r#"{"a":null}"#, r#"{"a":null}"#, true),
            (r#"{"a":null}"#, r#"{}"#, false),
            (r#"{"t":["x"]}"#, r#"{"t":["x"]}"#, true),
            (r#"{"t":["x"]}"#, r#"{"t":["x","y"]}"#, false),
            (r#"[{"a":1}]"#, r#"[{"a":1,"b":2}]"#, true),
            (r#"{"n":1}"#, r#"{"n":"1"}"#, false),
            (r#"{}"#, r#"{"anything":1}"#, true),
            (r#"{}"#, r#"[]"#, false),
            (r#"{"broken":"#, r#"x{"broken":x"#, true),
        ] {
            assert_eq!(Expectation::parse(expectation).is_met_by(frame), met, "{expectation} of {frame}");
        }
    }
}
