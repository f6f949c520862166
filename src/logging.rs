//! The log: one line a record on standard error, as text or as JSON.
//!
//! Whatever a peer sent may end up in a message, so in both formats a record is one line, whatever it holds: a forged
//! second line would be believed by whoever reads the log.

use std::fmt::Write as _;
use std::io::Write as _;
use std::str::FromStr;

use jiff::Timestamp;
use log::kv::{self, Key, Value, VisitSource, VisitValue};
use log::{LevelFilter, Record, SetLoggerError};
use serde_json::{Map, json};

use crate::clock::{Clock, Wall};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub format: Format,
    pub filter: Filter,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// Starts logging, once in a process.
pub fn init(settings: &Settings, clock: &Clock) -> Result<(), SetLoggerError> {
    let line = match settings.format {
        Format::Text => text_line,
        Format::Json => json_line,
    };
    let clock = clock.clone();
    let mut builder = env_logger::Builder::new();
    for directive in &settings.filter.directives {
        builder.filter(directive.target.as_deref(), directive.level);
    }
    builder.format(move |out, record| writeln!(out, "{}", line(record, clock.wall())));
    builder.try_init()
}

/// Which records are kept: `info`, or `warn,commitcast::store=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    directives: Vec<Directive>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Directive {
    /// `None`: every target without a directive of its own.
    target: Option<String>,
    level: LevelFilter,
}

/// A filter that was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a log level: write off, error, warn, info, debug or trace, or a list such as \"warn,commitcast::store=debug\""
)]
pub struct FilterError(String);

impl Default for Filter {
    fn default() -> Filter {
        let level = LevelFilter::Info;
        Filter { directives: vec![Directive { target: None, level }] }
    }
}

impl Filter {
    /// Reads it ourselves: the library prints a warning about what it does not understand and goes on without it.
    pub fn parse(text: &str) -> Result<Filter, FilterError> {
        let directives = text.split(',').map(str::trim).map(|part| {
            let (target, level) = match part.split_once('=') {
                Some((target, level)) => (Some(target.trim()), level.trim()),
                None => (None, part),
            };
            let level = LevelFilter::from_str(level).ok();
            match (target, level) {
                (Some(""), _) | (_, None) => Err(FilterError(part.to_owned())),
                (target, Some(level)) => Ok(Directive { target: target.map(str::to_owned), level }),
            }
        });
        Ok(Filter { directives: directives.collect::<Result<_, _>>()? })
    }
}

impl std::fmt::Display for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, directive) in self.directives.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            if let Some(target) = &directive.target {
                write!(f, "{target}=")?;
            }
            f.write_str(&directive.level.as_str().to_lowercase())?;
        }
        Ok(())
    }
}

/// `2025-01-02T03:04:05.678901Z INFO commitcast::server: listening address=127.0.0.1:8080`
fn text_line(record: &Record<'_>, at: Wall) -> String {
    let mut line = format!("{} {:<5} {}: ", time(at), record.level(), record.target());
    push_escaped(&mut line, &record.args().to_string());
    let mut pairs = Pairs::default();
    // Our own visitor never fails; a source that does has shown what it could.
    let _ = record.key_values().visit(&mut pairs);
    for (key, value) in pairs.0 {
        line.push(' ');
        push_escaped(&mut line, &key);
        line.push('=');
        match value {
            serde_json::Value::String(text) if is_bare(&text) => line.push_str(&text),
            // JSON's quoting leaves no control character but DEL and C1, which the escaping below takes.
            value => push_escaped(&mut line, &value.to_string()),
        }
    }
    line
}

/// `{"time":…,"level":"info","target":…,"message":…,"fields":{…}}`; pairs have a table of their own, so that none can
/// pass for the time or the level.
fn json_line(record: &Record<'_>, at: Wall) -> String {
    let mut pairs = Pairs::default();
    let _ = record.key_values().visit(&mut pairs);
    let mut line = json!({
        "time": time(at),
        "level": record.level().as_str().to_lowercase(),
        "target": record.target(),
        "message": record.args().to_string(),
    });
    if !pairs.0.is_empty() {
        line["fields"] = serde_json::Value::Object(pairs.0);
    }
    line.to_string()
}

/// RFC 3339 in UTC, always with microseconds, so that lines sort as text.
fn time(at: Wall) -> String {
    match Timestamp::from_microsecond(at.0) {
        Ok(time) => format!("{time:.6}"),
        Err(_) => at.0.to_string(),
    }
}

fn push_escaped(line: &mut String, text: &str) {
    for char in text.chars() {
        if char.is_control() || matches!(char, '\u{2028}' | '\u{2029}') {
            let _ = write!(line, "{}", char.escape_default());
        } else {
            line.push(char);
        }
    }
}

/// True for text that needs no quotes to be told from what is around it.
fn is_bare(text: &str) -> bool {
    let needs_quotes = |char: char| char.is_whitespace() || char.is_control() || matches!(char, '"' | '=');
    !text.is_empty() && !text.contains(needs_quotes)
}

/// A record's pairs as JSON values.
#[derive(Default)]
struct Pairs(Map<String, serde_json::Value>);

impl<'kvs> VisitSource<'kvs> for Pairs {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let mut json = Json(serde_json::Value::Null);
        value.visit(&mut json)?;
        self.0.insert(key.to_string(), json.0);
        Ok(())
    }
}

struct Json(serde_json::Value);

impl<'v> VisitValue<'v> for Json {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), kv::Error> {
        self.0 = json!(value.to_string());
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), kv::Error> {
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        self.0 = json!(value);
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
        self.0 = json!(value);
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        // JSON has no infinity; `json!` would make it null and lose what was said.
        self.0 = if value.is_finite() { json!(value) } else { json!(value.to_string()) };
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), kv::Error> {
        self.0 = json!(value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use log::Level;

    use super::*;

    const AT: Wall = Wall(1_735_787_045_678_901);

    fn with_record<T>(message: &str, pairs: &[(&str, Value<'_>)], line: impl Fn(&Record<'_>) -> T) -> T {
        line(
            &Record::builder()
                .args(format_args!("{message}"))
                .level(Level::Info)
                .target("commitcast::server")
                .key_values(&pairs)
                .build(),
        )
    }

    fn text(message: &str, pairs: &[(&str, Value<'_>)]) -> String {
        with_record(message, pairs, |record| text_line(record, AT))
    }

    fn json(message: &str, pairs: &[(&str, Value<'_>)]) -> serde_json::Value {
        let line = with_record(message, pairs, |record| json_line(record, AT));
        assert!(!line.contains(char::is_control), "{line}");
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn a_record_is_one_line_of_text() {
        let start = "2025-01-02T03:04:05.678901Z INFO  commitcast::server: ";
        for (message, pairs, expected) in [
            ("listening", vec![], "listening"),
            (
                "listening",
                vec![("port", Value::from(8080_u64)), ("tls", Value::from(false))],
                "listening port=8080 tls=false",
            ),
            (
                "a\n2025 ERROR forged\r\u{1b}[31m\u{2028}\u{85}",
                vec![],
                "a\\n2025 ERROR forged\\r\\u{1b}[31m\\u{2028}\\u{85}",
            ),
            ("x", vec![("path", Value::from("/ws/a"))], "x path=/ws/a"),
            ("x", vec![("who", Value::from("a b=c\n"))], "x who=\"a b=c\\n\""),
            ("x", vec![("who", Value::from("\u{7f}"))], "x who=\"\\u{7f}\""),
            ("x", vec![("who", Value::from(""))], "x who=\"\""),
            ("x", vec![("ke\ny", Value::from(1_u64))], "x ke\\ny=1"),
        ] {
            assert_eq!(text(message, &pairs), format!("{start}{expected}"));
        }
    }

    #[test]
    fn a_record_is_one_line_of_json() {
        let line = json("a \"quoted\"\nline", &[]);
        assert_eq!(
            line,
            json!({"time": "2025-01-02T03:04:05.678901Z", "level": "info", "target": "commitcast::server", "message": "a \"quoted\"\nline"})
        );
        let line = json(
            "x",
            &[
                ("time", Value::from("forged")),
                ("count", Value::from(-3_i64)),
                ("share", Value::from(0.5)),
                ("endless", Value::from(f64::INFINITY)),
                ("error", Value::from_debug(&Some("e"))),
            ],
        );
        assert_eq!(line["time"], "2025-01-02T03:04:05.678901Z");
        assert_eq!(
            line["fields"],
            json!({"time": "forged", "count": -3, "share": 0.5, "endless": "inf", "error": "Some(\"e\")"})
        );
    }

    #[test]
    fn times_have_one_width() {
        for (at, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (1_500_000, "1970-01-01T00:00:01.500000Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (i64::MAX, "9223372036854775807"),
        ] {
            assert_eq!(time(Wall(at)), expected);
        }
    }

    #[test]
    fn filters_are_read_and_shown() {
        for (text, shown) in
            [("info", "info"), ("OFF", "off"), (" warn , commitcast::store = Debug ", "warn,commitcast::store=debug")]
        {
            assert_eq!(Filter::parse(text).unwrap().to_string(), shown);
        }
        assert_eq!(Filter::default().to_string(), "info");
        for text in ["", "loud", "commitcast", "=info", "a=", "info,", "a=b=info"] {
            assert!(Filter::parse(text).is_err(), "{text}");
        }
    }
}
