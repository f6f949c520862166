//! Is a text JSON that any reader takes? A message's `data` is handed on unread, so what is wrong with it must be found here.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::dialect::json::DEPTH_MAX;

/// JSON of at most [`DEPTH_MAX`] levels, whose numbers and escapes mean something (PROMISES.md threat row 58). Skipping a
/// value, as `RawValue` does, would let half a surrogate pair and `1e999` through to readers who choke on them.
pub fn is_sound(text: &str) -> bool {
    let mut json = serde_json::Deserializer::from_str(text);
    Sound { levels: DEPTH_MAX }.deserialize(&mut json).is_ok() && json.end().is_ok()
}

/// Reads any value and keeps nothing of it.
struct Sound {
    /// How many it may still open.
    levels: usize,
}

impl Sound {
    fn inner<E: Error>(&self) -> Result<usize, E> {
        self.levels.checked_sub(1).ok_or_else(|| E::custom("too deep"))
    }
}

impl<'de> DeserializeSeed<'de> for Sound {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Sound {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let levels = self.inner()?;
        while list.next_element_seed(Sound { levels })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let levels = self.inner()?;
        while map.next_key_seed(Sound { levels })?.is_some() {
            map.next_value_seed(Sound { levels })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_58_what_some_reader_would_choke_on_is_not_sound() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let objects = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        for text in [
            "",
            "{",
            "{}x",
            "{\"a\":1,}",
            "'a'",
            "NaN",
            "01",
            "1e999",
            "{\"a\":[-1e999]}",
            "\"\\ud800\"",
            "{\"\\udc00\":1}",
            "\"\\x\"",
            "\"a\nb\"",
            &deep(DEPTH_MAX + 1),
            &objects(DEPTH_MAX + 1),
            &"[".repeat(1_000_000),
        ] {
            assert!(!is_sound(text), "{}", text.get(..20).unwrap_or(text));
        }
        for text in [
            "null",
            " {\"a\" : [1, -2, 3.5, true, null, \"\\ud83d\\ude00 \\u0000\"] }\n",
            "123456789012345678901234567890",
            &deep(DEPTH_MAX),
            &objects(DEPTH_MAX),
        ] {
            assert!(is_sound(text), "{text}");
        }
    }
}
