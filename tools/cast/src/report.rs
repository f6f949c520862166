//! What a probe prints: for people, for programs (`--json`), or nothing.

use std::time::Instant;

use serde_json::{Value, json};

/// Which way a frame went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    In,
    Out,
}

/// Prints lines with the time since the connection began.
#[derive(Debug)]
pub struct Report {
    style: Style,
    begun: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Text,
    Json,
    Quiet,
}

impl Report {
    pub fn new(style: Style) -> Report {
        Report { style, begun: Instant::now() }
    }

    pub fn connected(&self, url: &str, status: u16, subprotocol: Option<&str>) {
        let chosen = subprotocol.map(|name| format!(", subprotocol {name}")).unwrap_or_default();
        self.line(
            '=',
            &format!("connected to {url} ({status}{chosen})"),
            || json!({"kind": "connected", "url": url, "status": status, "subprotocol": subprotocol}),
        );
    }

    pub fn text(&self, way: Way, text: &str) {
        self.line(sign(way), text, || json!({"kind": "text", "dir": sign(way).to_string(), "text": text}));
    }

    pub fn binary(&self, way: Way, bytes: &[u8]) {
        let hex: String = bytes.iter().take(32).map(|byte| format!("{byte:02x}")).collect();
        let more = if bytes.len() > 32 { "…" } else { "" };
        self.line(
            sign(way),
            &format!("binary, {} bytes: {hex}{more}", bytes.len()),
            || json!({"kind": "binary", "dir": sign(way).to_string(), "bytes": bytes.len(), "hex": hex}),
        );
    }

    pub fn closed(&self, way: Way, code: Option<u16>, reason: &str) {
        let shown = code.map_or("without a code".to_owned(), |code| code.to_string());
        self.line(
            sign(way),
            &format!("close {shown} {reason}"),
            || json!({"kind": "close", "dir": sign(way).to_string(), "code": code, "reason": reason}),
        );
    }

    pub fn met(&self, expectation: &str) {
        self.line('=', &format!("as expected: {expectation}"), || json!({"kind": "met", "expected": expectation}));
    }

    /// What went wrong: to stderr even when quiet, since a script's log needs it.
    pub fn failed(&self, what: &str, details: Value) {
        match self.style {
            Style::Json => {
                let mut line = json!({"kind": "failed", "ms": self.ms(), "what": what});
                if let (Some(line), Value::Object(details)) = (line.as_object_mut(), details) {
                    line.extend(details);
                }
                put(&line.to_string());
            }
            Style::Text | Style::Quiet => eprintln!("cast: {what}"),
        }
    }

    fn line(&self, sign: char, text: &str, object: impl FnOnce() -> Value) {
        match self.style {
            Style::Text => put(&format!("{:>10.1} ms {sign} {}", self.ms(), printable(text))),
            Style::Json => {
                let mut object = object();
                if let Some(object) = object.as_object_mut() {
                    object.insert("ms".to_owned(), json!(self.ms()));
                }
                put(&object.to_string());
            }
            Style::Quiet => {}
        }
    }

    /// To a tenth, which is what a terminal's own jitter allows.
    fn ms(&self) -> f64 {
        (self.begun.elapsed().as_secs_f64() * 10_000.0).round() / 10.0
    }
}

/// A line on standard output. Whoever reads it through `head` ends us quietly.
fn put(line: &str) {
    use std::io::Write as _;
    if writeln!(std::io::stdout(), "{line}").is_err() {
        std::process::exit(0);
    }
}

fn sign(way: Way) -> char {
    match way {
        Way::In => '<',
        Way::Out => '>',
    }
}

/// A server may send terminal escapes; they are shown, not obeyed.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && c != '\t' { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_shown_and_other_text_is_left_alone() {
        for (text, shown) in
            [("a\u{1b}[2Jb", "a\\u{1b}[2Jb"), ("one\ntwo", "one\\ntwo"), ("grün\t→", "grün\t→"), ("", "")]
        {
            assert_eq!(printable(text), shown);
        }
    }
}
