//! A JSON object as its publisher wrote it: members in their order, values as text that is passed on and not rebuilt.
//!
//! The originals built their messages as Python dicts and spread the publisher's fields last; a map that sorts its keys
//! would show every page another object than the contract's. Of a member that is there twice the last one counts, here as
//! for everybody who reads what is passed on.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::dialect::json::DEPTH_MAX;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object<'t>(Vec<(Cow<'t, str>, Cow<'t, str>)>);

impl<'t> Object<'t> {
    /// None for what is no object of at most [`DEPTH_MAX`] levels.
    pub fn parse(text: &'t [u8]) -> Option<Object<'t>> {
        let text = std::str::from_utf8(text).ok()?;
        if depth(text) > DEPTH_MAX {
            return None;
        }
        let mut json = serde_json::Deserializer::from_str(text);
        let object = json.deserialize_map(Members).ok()?;
        json.end().ok()?;
        Some(object)
    }

    pub fn of(members: impl IntoIterator<Item = (&'static str, Cow<'t, str>)>) -> Object<'t> {
        Object(members.into_iter().map(|(key, value)| (Cow::Borrowed(key), value)).collect())
    }

    /// A member's value as JSON text.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find(|(known, _)| known == key).map(|(_, value)| &**value)
    }

    /// A member's value when it is a string.
    pub fn text(&self, key: &str) -> Option<String> {
        serde_json::from_str(self.get(key)?).ok()
    }

    /// A member's value when it is a number: its text.
    pub fn number(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|value| value.starts_with(|first: char| first == '-' || first.is_ascii_digit()))
    }

    /// In its old place, or at the end.
    pub fn set(&mut self, key: &'static str, value: impl Into<Cow<'t, str>>) {
        match self.0.iter_mut().rev().find(|(known, _)| known == key) {
            Some((_, old)) => *old = value.into(),
            None => self.0.push((Cow::Borrowed(key), value.into())),
        }
    }

    /// At the end, unless it is there.
    pub fn set_if_absent(&mut self, key: &'static str, value: impl Into<Cow<'t, str>>) {
        if self.get(key).is_none() {
            self.0.push((Cow::Borrowed(key), value.into()));
        }
    }

    pub fn remove(&mut self, key: &str) {
        self.0.retain(|(known, _)| known != key);
    }

    /// Python's `{**self, **other}`. Looks among its own members only, of which there are a few: a publisher's thousands
    /// must not be compared with each other.
    pub fn spread(mut self, other: Object<'t>) -> Object<'t> {
        let own = self.0.len();
        for (key, value) in other.0 {
            match self.0.iter_mut().take(own).find(|(known, _)| *known == key) {
                Some((_, old)) => *old = value,
                None => self.0.push((key, value)),
            }
        }
        self
    }

    pub fn into_owned(self) -> Object<'static> {
        let own = |text: Cow<'t, str>| Cow::Owned(text.into_owned());
        Object(self.0.into_iter().map(|(key, value)| (own(key), own(value))).collect())
    }

    /// The object as JSON text without spaces.
    pub fn write(&self) -> String {
        let mut out = String::from("{");
        for (at, (key, value)) in self.0.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            out.push_str(&quoted(key));
            out.push(':');
            compact(value, &mut out);
        }
        out.push('}');
        out
    }

    pub fn bytes(&self) -> Bytes {
        Bytes::from(self.write())
    }
}

/// A text as a JSON string.
pub fn quoted(text: &str) -> String {
    // A string has no way not to be written.
    serde_json::to_string(text).unwrap_or_default()
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, &'de RawValue>()? {
            members.push((Cow::Owned(key), Cow::Borrowed(value.get())));
        }
        Ok(Object(members))
    }
}

/// Levels of nesting. Counted on the text, before anything is built: a raw value is read without a bound on its depth, and
/// whoever is shown it may have none either.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    outside_strings(text, |byte| {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    });
    deepest
}

fn compact(value: &str, out: &mut String) {
    let mut from = 0;
    let mut strings = Strings::default();
    for (at, byte) in value.bytes().enumerate() {
        if !strings.covers(byte) && byte.is_ascii_whitespace() {
            // A space is a character of its own, so both ends of the piece are between characters.
            out.push_str(value.get(from..at).unwrap_or_default());
            from = at + 1;
        }
    }
    out.push_str(value.get(from..).unwrap_or_default());
}

fn outside_strings(text: &str, mut each: impl FnMut(u8)) {
    let mut strings = Strings::default();
    for byte in text.bytes() {
        if !strings.covers(byte) {
            each(byte);
        }
    }
}

/// Tells what stands in a string from what does not, byte by byte.
#[derive(Default)]
struct Strings {
    inside: bool,
    escaped: bool,
}

impl Strings {
    /// Does the next byte belong to a string, its quotes included?
    fn covers(&mut self, byte: u8) -> bool {
        if !self.inside {
            self.inside = byte == b'"';
            return self.inside;
        }
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.inside = false,
            _ => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Option<String> {
        Object::parse(text.as_bytes()).map(|object| object.write())
    }

    #[test]
    fn an_object_keeps_its_order_and_loses_its_spaces() {
        for (text, expected) in [
            ("{}", Some("{}")),
            (" { \"b\" : 1 , \"a\":[ 1, {\"x\": \"y \\\" z\"} ] }\n", Some(r#"{"b":1,"a":[1,{"x":"y \" z"}]}"#)),
            ("{\"ü\":\"\\u00fc \\\\\", \"n\": -1.50e3}", Some("{\"ü\":\"\\u00fc \\\\\",\"n\":-1.50e3}")),
            ("[]", None),
            ("null", None),
            ("", None),
            ("{} x", None),
            ("{\"a\":}", None),
        ] {
            assert_eq!(parsed(text).as_deref(), expected, "{text}");
        }
        assert!(Object::parse(b"{\"a\":\"\xff\"}").is_none());
    }

    #[test]
    fn depth_is_bounded_before_anything_is_built() {
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(Object::parse(nested(DEPTH_MAX).as_bytes()).is_some());
        assert!(Object::parse(nested(DEPTH_MAX + 1).as_bytes()).is_none());
        assert!(Object::parse("[".repeat(1 << 20).as_bytes()).is_none());
        assert!(Object::parse(format!("{{\"a\":\"{}\"}}", "[".repeat(100)).as_bytes()).is_some(), "in a string");
    }

    #[test]
    fn the_publisher_s_fields_win_in_the_default_s_place() {
        let own =
            Object::of([("type", r#""progress""#.into()), ("state", r#""running""#.into()), ("stage", "null".into())]);
        let given = Object::parse(br#"{"x":1,"stage":"a","state":"failed","x":2}"#).unwrap();
        let mut both = own.spread(given);
        assert_eq!(both.write(), r#"{"type":"progress","state":"failed","stage":"a","x":1,"x":2}"#);
        assert_eq!(both.get("x"), Some("2"), "the last one counts");
        both.set("stage", "null");
        both.set_if_absent("state", "0");
        both.set_if_absent("end", "0");
        both.remove("x");
        assert_eq!(both.write(), r#"{"type":"progress","state":"failed","stage":null,"end":0}"#);
        assert_eq!(both.text("state").as_deref(), Some("failed"));
        assert_eq!((both.text("end"), both.number("end"), both.number("state")), (None, Some("0"), None));
    }

    proptest! {
        #[test]
        fn what_is_passed_on_means_what_was_said(text in r#"\{("[a-c ]{0,2}" ?: ?("[^"\\\x00-\x1f]{0,5}"|[1-9]{1,3}|\[ ?\]|null), ?){0,4}"z": ?\{ \}\}"#) {
            let said: serde_json::Value = serde_json::from_str(&text).unwrap();
            let passed: serde_json::Value = serde_json::from_str(&parsed(&text).unwrap()).unwrap();
            prop_assert_eq!(said, passed);
        }

        #[test]
        fn no_text_makes_it_panic(text in r#"[\{\}\[\]":,\\ a1é]{0,40}"#) {
            let _ = parsed(&text);
        }
    }
}
