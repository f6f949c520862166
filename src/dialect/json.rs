//! JSON as the dialects share it: reading with a bound on depth, objects whose members keep their order, and the two
//! spellings that are written.
//!
//! Compact and raw UTF-8 is the rule; `spaced` is what Python's `json.dumps` writes by default (`, ` and `: ` between,
//! ASCII only), for the clients of the one original that sent that (CONTRACT.md 0.3). Both are transcribed from text to
//! text: `serde_json::Value` sorts the members of an object, and their order is part of the contract.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::sound::is_sound;

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

/// A text as a JSON string.
pub fn quoted(text: &str) -> String {
    // A string has no way not to be written.
    serde_json::to_string(text).unwrap_or_default()
}

// ---- objects that keep their order ----------------------------------------------------------------------------------

/// A JSON object as its sender wrote it: members in their order, values as text that is passed on and not rebuilt. Of a
/// member that is there twice the last one counts, here as for everybody who reads what is passed on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object<'t>(Vec<(Cow<'t, str>, Cow<'t, str>)>);

impl<'t> Object<'t> {
    /// None for what is no JSON object of at most [`DEPTH_MAX`] levels.
    pub fn parse(text: &'t str) -> Option<Object<'t>> {
        // What is too short to open and close that many needs no counting: nearly every message.
        if text.len() > 2 * DEPTH_MAX && levels(text) > DEPTH_MAX {
            return None;
        }
        let mut json = serde_json::Deserializer::from_str(text);
        let object = json.deserialize_map(Members).ok()?;
        json.end().ok()?;
        Some(object)
    }

    /// As [`Object::parse`], and whatever is in it means something to every reader (sound.rs).
    pub fn parse_sound(text: &'t str) -> Option<Object<'t>> {
        Object::parse(text).filter(|object| object.0.iter().all(|(_, value)| is_sound_value(value)))
    }

    /// A member's value as JSON text.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find(|(known, _)| known == key).map(|(_, value)| &**value)
    }

    /// As [`Object::get`], and null counts as absent.
    pub fn given(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|value| *value != "null")
    }

    /// A member's value when it is a string.
    pub fn text(&self, key: &str) -> Option<String> {
        self.word(key).map(Cow::into_owned)
    }

    /// As [`Object::text`], borrowed where it can be: to be looked at, not kept.
    pub fn word(&self, key: &str) -> Option<Cow<'_, str>> {
        let value = self.get(key)?;
        match plain_string(value) {
            Some(text) => Some(Cow::Borrowed(text)),
            None => serde_json::from_str(value).ok().map(Cow::Owned),
        }
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

    /// These members first and in this order, the others behind them as they were.
    pub fn arrange(&mut self, order: &[&str]) {
        self.0.sort_by_key(|(key, _)| order.iter().position(|wanted| wanted == key).unwrap_or(order.len()));
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
            put_compact(&mut out, value);
        }
        out.push('}');
        out
    }

    pub fn bytes(&self) -> Bytes {
        Bytes::from(self.write())
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some(key) = map.next_key_seed(Key)? {
            let value: &'de RawValue = map.next_value()?;
            members.push((key, Cow::Borrowed(value.get())));
        }
        Ok(Object(members))
    }
}

/// A key, borrowed when it stands in the text as it is meant.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E>(self, key: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

/// The text of a string value that is written as it is meant. `value` is JSON that was read before.
fn plain_string(value: &str) -> Option<&str> {
    let inner = value.strip_prefix('"')?.strip_suffix('"')?;
    (!inner.as_bytes().contains(&b'\\')).then_some(inner)
}

/// Is a member's value, which was skimmed, JSON that any reader takes?
fn is_sound_value(value: &str) -> bool {
    // Only escapes and numbers can be wrong in a value that was skimmed, and in most there are none.
    plain_string(value).is_some() || matches!(value, "null" | "true" | "false") || is_sound(value)
}

/// Levels of nesting, counted on the text before anything is built: a raw value is read without a bound on its depth, and
/// whoever is shown it may have none either.
pub fn levels(text: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let mut strings = Strings::default();
    for byte in text.bytes() {
        match byte {
            _ if strings.covers(byte) => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// A JSON text without the spaces between its tokens.
pub fn compact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    put_compact(&mut out, text);
    out
}

fn put_compact(out: &mut String, text: &str) {
    let mut from = 0;
    let mut strings = Strings::default();
    for (at, byte) in text.bytes().enumerate() {
        if !strings.covers(byte) && byte.is_ascii_whitespace() {
            // A space is a character of its own, so both ends of the piece are between characters.
            out.push_str(text.get(from..at).unwrap_or_default());
            from = at + 1;
        }
    }
    out.push_str(text.get(from..).unwrap_or_default());
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

// ---- as Python writes it --------------------------------------------------------------------------------------------

/// A value in Python's spelling; its objects' members come sorted.
pub fn spaced(value: &Value) -> Vec<u8> {
    spaced_text(&value.to_string())
}

/// A JSON text in Python's spelling, its members in the order in which they stand. Numbers stay as they are written: no
/// reader tells `1e16` from Python's `1e+16`.
pub fn spaced_text(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 4);
    put_spaced(&mut out, text);
    out
}

pub fn put_spaced(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        match next {
            '"' => put_ascii_string(out, &mut rest),
            ',' => out.extend_from_slice(b", "),
            ':' => out.extend_from_slice(b": "),
            ' ' | '\t' | '\n' | '\r' => {}
            token => put_ascii(out, token),
        }
    }
}

/// The rest of a string whose opening quote was taken, with its closing quote.
fn put_ascii_string(out: &mut Vec<u8>, rest: &mut std::str::Chars<'_>) {
    out.push(b'"');
    while let Some(next) = rest.next() {
        match next {
            '"' => break,
            '\\' => match rest.next() {
                Some('u') => put_unit(out, hex4(rest)),
                Some(short @ ('b' | 'f' | 'n' | 'r' | 't')) => out.extend_from_slice(&[b'\\', short as u8]),
                Some(itself) => put_ascii(out, itself),
                None => {}
            },
            plain => put_ascii(out, plain),
        }
    }
    out.push(b'"');
}

fn hex4(rest: &mut std::str::Chars<'_>) -> u16 {
    let digits = rest.by_ref().take(4);
    digits.fold(0, |unit, digit| unit << 4 | digit.to_digit(16).unwrap_or(0) as u16)
}

/// A UTF-16 unit from an escape. Half of a pair is passed on as half a pair: the other half is the next escape, or there is
/// none, and then the sender's mistake stays the sender's.
fn put_unit(out: &mut Vec<u8>, unit: u16) {
    match u8::try_from(unit) {
        Ok(byte) if byte.is_ascii() => put_ascii(out, char::from(byte)),
        _ => put_escape(out, unit),
    }
}

fn put_ascii(out: &mut Vec<u8>, plain: char) {
    match plain {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        '\u{8}' => out.extend_from_slice(b"\\b"),
        '\u{c}' => out.extend_from_slice(b"\\f"),
        ' '..='~' => out.push(plain as u8),
        _ => plain.encode_utf16(&mut [0; 2]).iter().for_each(|unit| put_escape(out, *unit)),
    }
}

fn put_escape(out: &mut Vec<u8>, unit: u16) {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    out.extend_from_slice(b"\\u");
    let digit = |shift: u16| HEX[usize::from(unit >> shift & 0xf)];
    out.extend([12, 8, 4, 0].map(digit));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use proptest::prelude::*;

    fn spelled(text: &str) -> String {
        String::from_utf8(spaced_text(text)).unwrap()
    }

    #[test]
    fn spaced_is_what_python_writes() {
        for (text, expected) in [
            ("{}", "{}"),
            ("[]", "[]"),
            (r#"{"b":1,"a":[true,false,null,-1.5,"x"]}"#, r#"{"b": 1, "a": [true, false, null, -1.5, "x"]}"#),
            (" { \"a\" :\t1 ,\r\n\"b\": {} }", r#"{"a": 1, "b": {}}"#),
            (r#""a,b:c \" \\ [1,2]""#, r#""a,b:c \" \\ [1,2]""#),
            ("\"grüße 😀 \u{7f}\u{2028}\"", r#""gr\u00fc\u00dfe \ud83d\ude00 \u007f\u2028""#),
            (
                r#""\/ \b\f\n\r\t \u0041 \u000A \u001F \u00FC \uD83D\uDE00""#,
                r#""/ \b\f\n\r\t A \n \u001f \u00fc \ud83d\ude00""#,
            ),
            (r#""\ud800 half""#, r#""\ud800 half""#),
            (r#"{"ü":"\u0022\u005c"}"#, r#"{"\u00fc": "\"\\"}"#),
        ] {
            assert_eq!(spelled(text), expected, "{text}");
        }
        let value: Value = serde_json::from_str(r#"{"b":[1,"ü"],"a":2.0}"#).unwrap();
        assert_eq!(spaced(&value), br#"{"a": 2.0, "b": [1, "\u00fc"]}"#);
    }

    fn parsed(text: &str) -> Option<String> {
        Object::parse(text).map(|object| object.write())
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
    }

    #[test]
    fn depth_is_bounded_before_anything_is_built() {
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(Object::parse(&nested(DEPTH_MAX)).is_some());
        assert!(Object::parse(&nested(DEPTH_MAX + 1)).is_none());
        assert!(Object::parse(&"[".repeat(1 << 20)).is_none());
        assert!(Object::parse(&format!("{{\"a\":\"{}\"}}", "[".repeat(100))).is_some(), "in a string");
    }

    #[test]
    fn members_are_found_set_and_arranged() {
        let mut object = Object::parse(r#"{"x":1,"b":"two","n":null,"x":2,"a":3}"#).unwrap();
        assert_eq!((object.get("x"), object.get("y"), object.get("n")), (Some("2"), None, Some("null")));
        assert_eq!((object.given("n"), object.given("a")), (None, Some("3")));
        assert_eq!((object.text("b").as_deref(), object.text("a")), (Some("two"), None));
        object.set("n", "0");
        object.set_if_absent("a", "9");
        object.set_if_absent("z", "26");
        object.arrange(&["a", "nobody", "n"]);
        assert_eq!(object.write(), r#"{"a":3,"n":0,"x":1,"b":"two","x":2,"z":26}"#);
    }

    proptest! {
        #[test]
        fn what_is_spelled_otherwise_means_the_same(text in any::<String>(), number in any::<i64>()) {
            let value = serde_json::json!({"text": text, "list": [text, number, null], "": {"a": true}});
            let spaced = spelled(&value.to_string());
            prop_assert!(spaced.is_ascii());
            prop_assert_eq!(&serde_json::from_str::<Value>(&spaced).unwrap(), &value);
            prop_assert_eq!(spelled(&spaced), spaced.clone(), "twice is once");
            let object = Object::parse(&spaced).unwrap().write();
            prop_assert_eq!(serde_json::from_str::<Value>(&object).unwrap(), value);
            prop_assert_eq!(compact(&spaced), object);
        }

        #[test]
        fn no_text_makes_it_panic(text in r#"[\{\}\[\]":,\\u 1dé😀]{0,40}"#) {
            let _ = parsed(&text);
            let _ = spaced_text(&text);
            let _ = compact(&text);
        }
    }
}
