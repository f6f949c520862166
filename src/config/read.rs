//! Gives the tree its types: a serde reader whose errors know the place they happened at.
//!
//! A reader of our own instead of the `toml` crate's, because three sources feed it (only one of which is TOML),
//! because an error must name a variable as well as a line, and because all slips are to be told at once: a value that
//! does not fit is reported, taken out, and the reading repeated without it.

use std::fmt::Display;

use serde::de::value::{SeqDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Expected, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::env::PREFIX;
use super::problem::{Place, Problem};
use super::suggest::nearest;
use super::tree::{Node, Value};

/// Reads `T` from the node at `path` (which only tells messages where they are). Values that do not fit are reported
/// and left out; `also_known` are keys that the table at `path` may hold besides those of `T`.
pub fn read<T: DeserializeOwned + Default>(
    node: &mut Node,
    path: &str,
    also_known: &dyn Fn(&str) -> Vec<&'static str>,
    problems: &mut Vec<Problem>,
) -> T {
    loop {
        let mut fault = match T::deserialize(&*node) {
            Ok(value) => return value,
            Err(fault) => fault,
        };
        fault.path.reverse();
        let place = fault.place.clone().unwrap_or_else(|| node.place.clone());
        problems.push(fault.wrong.problem(place, path, &fault.path, also_known));
        // Each round leaves the tree smaller, so this ends; a fault of the root itself leaves nothing to try.
        if node.remove(&fault.path).is_none() {
            return T::default();
        }
    }
}

/// An error under way from the value to the root, gathering its path.
#[derive(Debug)]
pub struct Fault {
    place: Option<Place>,
    /// From the value outwards.
    path: Vec<String>,
    wrong: Wrong,
}

#[derive(Debug)]
enum Wrong {
    UnknownKey { key: String, known: &'static [&'static str] },
    Value(String),
}

impl Wrong {
    fn problem(
        self,
        place: Place,
        base: &str,
        path: &[String],
        also_known: &dyn Fn(&str) -> Vec<&'static str>,
    ) -> Problem {
        let (key, known) = match self {
            Wrong::Value(message) => {
                let subject = path
                    .iter()
                    .rfind(|step| step.parse::<usize>().is_err())
                    .map(|key| format!("`{key}` "))
                    .unwrap_or_default();
                return Problem::new(place, format!("{subject}{message}"));
            }
            Wrong::UnknownKey { key, known } => (key, known),
        };
        let parents: Vec<&str> = Some(base)
            .into_iter()
            .filter(|base| !base.is_empty())
            .chain(path.iter().rev().skip(1).rev().map(String::as_str))
            .collect();
        let table = parents.join(".");
        let candidates = || known.iter().copied().chain(also_known(&table));
        if let Place::Variable(name) = &place {
            let message = unknown_variable(name, parents.len(), &key, candidates());
            return Problem::new(place, message);
        }
        let mut message = match table.as_str() {
            "" => format!("unknown key `{key}`"),
            table => format!("unknown key `{key}` in [{table}]"),
        };
        if let Some(meant) = nearest(&key, candidates()) {
            message.push_str(&format!("; did you mean `{meant}`?"));
        }
        Problem::new(place, message)
    }
}

/// `depth` is which of the name's parts is the unknown `key`.
fn unknown_variable(name: &str, depth: usize, key: &str, known: impl Iterator<Item = &'static str>) -> String {
    let known: Vec<&str> = known.collect();
    // AUTH_MODE for AUTH__MODE: the one slip that no edit distance over single keys finds.
    let split = key
        .match_indices('_')
        .map(|(at, _)| (&key[..at], &key[at + 1..]))
        .find(|(table, rest)| known.contains(table) && !rest.is_empty());
    let meant = match (nearest(key, known.iter().copied()), split) {
        (Some(meant), _) => meant.to_owned(),
        (None, Some((table, rest))) => format!("{table}__{rest}"),
        (None, None) => return "unknown variable".to_owned(),
    };
    let written = name.strip_prefix(PREFIX).unwrap_or(name);
    let mut parts: Vec<String> = written.split("__").map(str::to_owned).collect();
    if let Some(part) = parts.get_mut(depth) {
        *part = meant.to_uppercase();
    }
    format!("unknown variable; did you mean `{PREFIX}{}`?", parts.join("__"))
}

impl Fault {
    fn new(wrong: Wrong) -> Fault {
        Fault { place: None, path: Vec::new(), wrong }
    }

    fn inside(mut self, step: String, node: &Node) -> Fault {
        self.place.get_or_insert_with(|| node.place.clone());
        self.path.push(step);
        self
    }
}

impl std::error::Error for Fault {}

impl Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.wrong {
            Wrong::UnknownKey { key, .. } => write!(f, "unknown key `{key}`"),
            Wrong::Value(message) => f.write_str(message),
        }
    }
}

impl serde::de::Error for Fault {
    fn custom<T: Display>(message: T) -> Fault {
        Fault::new(Wrong::Value(message.to_string()))
    }

    /// Names the kind of what was found and not the thing itself: it may be a secret in the wrong place.
    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Fault {
        let found = match found {
            Unexpected::Bool(_) => "a boolean",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) => "an integer",
            Unexpected::Float(_) => "a float",
            Unexpected::Str(_) => "a string",
            Unexpected::Seq => "a list",
            Unexpected::Map => "a table",
            _ => "something else",
        };
        Fault::custom(format_args!("must be {expected}, not {found}"))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Fault {
        Fault::custom(format_args!("must be {expected}"))
    }

    fn missing_field(field: &'static str) -> Fault {
        Fault::custom(format_args!("lacks `{field}`"))
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Fault {
        Fault::new(Wrong::UnknownKey { key: field.to_owned(), known })
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Fault {
        let meant = match nearest(variant, known.iter().copied()) {
            Some(meant) => format!("; did you mean `{meant}`?"),
            None => String::new(),
        };
        Fault::custom(format_args!("must be one of {}{meant}", known.join(", ")))
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Text(text) | Value::Plain(text) => visitor.visit_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(value) => visitor.visit_bool(*value),
            Value::Datetime => Err(serde::de::Error::invalid_type(Unexpected::Other("datetime"), &visitor)),
            Value::List(items) => visitor.visit_seq(Items { items, index: 0 }),
            Value::Table(entries) => visitor.visit_map(Entries { entries: entries.iter(), value: None }),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Plain(text) => match text.as_str() {
                "true" | "1" => visitor.visit_bool(true),
                "false" | "0" => visitor.visit_bool(false),
                _ => Err(serde::de::Error::custom("must be true or false")),
            },
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Plain(text) => match text.parse() {
                Ok(number) => visitor.visit_u64(number),
                Err(_) => Err(serde::de::Error::custom("must be a whole number")),
            },
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Plain(text) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                visitor.visit_seq(SeqDeserializer::new(items))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Text(text) | Value::Plain(text) => visitor.visit_enum(StrDeserializer::new(text)),
            _ => Err(serde::de::Error::unknown_variant("", variants)),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct tuple tuple_struct map struct identifier ignored_any
    }
}

struct Items<'de> {
    items: &'de [Node],
    index: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(item) = self.items.get(self.index) else {
            return Ok(None);
        };
        let index = self.index;
        self.index += 1;
        seed.deserialize(item).map(Some).map_err(|fault| fault.inside(index.to_string(), item))
    }
}

struct Entries<'de> {
    entries: std::collections::btree_map::Iter<'de, String, Node>,
    value: Option<(&'de String, &'de Node)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((key, node)) = self.entries.next() else {
            return Ok(None);
        };
        self.value = Some((key, node));
        seed.deserialize(StrDeserializer::new(key)).map(Some).map_err(|fault: Fault| fault.inside(key.clone(), node))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        match self.value.take() {
            Some((key, node)) => seed.deserialize(node).map_err(|fault| fault.inside(key.clone(), node)),
            None => Err(serde::de::Error::custom("has no value")),
        }
    }
}
