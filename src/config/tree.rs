//! What was written and where: one tree of keys for the file, the environment and the command line alike.
//!
//! The tree exists so that a value keeps its place (a line, a variable, a flag) until the last check that may complain
//! about it, and so that a later source overrides an earlier one key by key, before anything is given a type.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problem};

#[derive(Clone, Debug)]
pub struct Node {
    pub place: Place,
    pub value: Value,
}

#[derive(Clone)]
pub enum Value {
    Text(String),
    /// A variable's or flag's text: it becomes what its key asks for, be it a number, a boolean or a list.
    Plain(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Datetime,
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
}

impl Node {
    pub fn new(place: Place, value: Value) -> Node {
        Node { place, value }
    }

    pub fn empty() -> Node {
        Node::new(Place::Default, Value::Table(BTreeMap::new()))
    }

    /// Reads a TOML document.
    pub fn from_toml(path: &Path, text: &str) -> Result<Node, Problem> {
        let lines = Lines::new(path, text);
        let document = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            Problem::new(lines.place(at), error.message())
        })?;
        let place = lines.place(0);
        Ok(Node::new(place, lines.table(document.get_ref())?))
    }

    /// What is written at a path such as `listen.0.address`.
    pub fn find(&self, path: &str) -> Option<&Node> {
        let mut node = self;
        for step in path.split('.') {
            node = match &node.value {
                Value::Table(entries) => entries.get(step)?,
                Value::List(items) => items.get(step.parse::<usize>().ok()?)?,
                _ => return None,
            };
        }
        Some(node)
    }

    /// Where the value at a path was written; for one that is missing, where the table around it was.
    pub fn place(&self, path: &str) -> Place {
        let mut path = path;
        loop {
            if let Some(node) = self.find(path) {
                return node.place.clone();
            }
            match path.rsplit_once('.') {
                Some((parent, _)) => path = parent,
                None => return Place::Default,
            }
        }
    }

    /// Takes the value at a path out of the tree.
    pub fn remove(&mut self, path: &[String]) -> Option<Node> {
        let (last, parents) = path.split_last()?;
        let mut node = self;
        for step in parents {
            node = match &mut node.value {
                Value::Table(entries) => entries.get_mut(step)?,
                Value::List(items) => items.get_mut(step.parse::<usize>().ok()?)?,
                _ => return None,
            };
        }
        match &mut node.value {
            Value::Table(entries) => entries.remove(last),
            Value::List(items) => {
                let index = last.parse::<usize>().ok()?;
                (index < items.len()).then(|| items.remove(index))
            }
            _ => None,
        }
    }

    /// Puts a value at a path, making the tables on the way. What stands in the way is replaced: it came earlier.
    pub fn insert(&mut self, path: &[&str], node: Node) {
        let Some((first, rest)) = path.split_first() else {
            *self = node;
            return;
        };
        if !matches!(self.value, Value::Table(_)) {
            *self = Node::new(node.place.clone(), Value::Table(BTreeMap::new()));
        }
        if let Value::Table(entries) = &mut self.value {
            let place = node.place.clone();
            entries
                .entry((*first).to_owned())
                .or_insert_with(|| Node::new(place, Value::Table(BTreeMap::new())))
                .insert(rest, node);
        }
    }

    /// Lays a later source over this one: tables join, everything else is replaced.
    pub fn overlay(&mut self, later: Node) {
        match (&mut self.value, later.value) {
            (Value::Table(entries), Value::Table(over)) => {
                for (key, node) in over {
                    match entries.get_mut(&key) {
                        Some(entry) => entry.overlay(node),
                        None => {
                            entries.insert(key, node);
                        }
                    }
                }
            }
            (_, value) => *self = Node::new(later.place, value),
        }
    }
}

/// Kinds, not contents: the tree holds secrets.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(_) | Value::Plain(_) => f.write_str("text"),
            Value::Integer(_) => f.write_str("integer"),
            Value::Float(_) => f.write_str("float"),
            Value::Boolean(_) => f.write_str("boolean"),
            Value::Datetime => f.write_str("datetime"),
            Value::List(items) => items.fmt(f),
            Value::Table(entries) => entries.fmt(f),
        }
    }
}

/// Turns byte offsets of one file into places.
struct Lines {
    path: Arc<str>,
    /// Offset of each line's first byte.
    starts: Vec<usize>,
}

impl Lines {
    fn new(path: &Path, text: &str) -> Lines {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Lines {
            path: Arc::from(path.display().to_string()),
            starts: std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect(),
        }
    }

    fn place(&self, at: usize) -> Place {
        Place::File { path: Arc::clone(&self.path), line: self.starts.partition_point(|start| *start <= at) }
    }

    fn table(&self, table: &DeTable<'_>) -> Result<Value, Problem> {
        let mut entries = BTreeMap::new();
        for (key, value) in table {
            // The key's line, not the value's: that is the line to look at when a value spans several.
            let place = self.place(key.span().start);
            let value = self.value(&place, value.get_ref())?;
            entries.insert(key.get_ref().to_string(), Node::new(place, value));
        }
        Ok(Value::Table(entries))
    }

    fn item(&self, item: &Spanned<DeValue<'_>>) -> Result<Node, Problem> {
        let place = self.place(item.span().start);
        let value = self.value(&place, item.get_ref())?;
        Ok(Node::new(place, value))
    }

    fn value(&self, place: &Place, value: &DeValue<'_>) -> Result<Value, Problem> {
        Ok(match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map(Value::Integer)
                .map_err(|_| Problem::new(place.clone(), "this number is too large"))?,
            DeValue::Float(number) => number
                .as_str()
                .parse()
                .map(Value::Float)
                .map_err(|_| Problem::new(place.clone(), "this number is not a number"))?,
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Datetime(_) => Value::Datetime,
            DeValue::Array(items) => Value::List(items.iter().map(|item| self.item(item)).collect::<Result<_, _>>()?),
            DeValue::Table(table) => self.table(table)?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn tree(text: &str) -> Node {
        Node::from_toml(Path::new("c.toml"), text).unwrap()
    }

    #[test]
    fn every_value_knows_its_line() {
        let tree = tree(
            "reactors = 2\n\n[[listen]]\naddress = 'a'\n[[listen]]\ndialects = [\n 'x',\n 'y',\n]\n[auth]\nkeys = [\n  { kid = 'k',\n    path = 'p' },\n]\n[auth.documents]\nmode = 'open'\nlimits.'odd' = 1\n",
        );
        for (path, line) in [
            ("reactors", 1),
            ("listen.0", 3),
            ("listen.0.address", 4),
            ("listen.1", 5),
            ("listen.1.dialects", 6),
            ("listen.1.dialects.1", 8),
            ("listen.1.address", 5),
            ("auth", 10),
            ("auth.keys.0", 12),
            ("auth.keys.0.path", 13),
            ("auth.documents.mode", 16),
            ("auth.documents.limits.odd", 17),
        ] {
            let expected = Place::File { path: Arc::from("c.toml"), line };
            assert_eq!(tree.place(path), expected, "{path}");
        }
        assert_eq!(tree.place("nowhere"), Place::Default);
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        for (text, line) in [("a = 1\nb = \n", 2), ("a = 1\n\na = 2\n", 3), ("[x\n", 1)] {
            let problem = Node::from_toml(Path::new("c.toml"), text).unwrap_err();
            assert_eq!(problem.place, Place::File { path: Arc::from("c.toml"), line }, "{text:?}");
        }
    }

    #[test]
    fn a_later_source_wins_key_by_key() {
        let mut base = tree("[a]\nx = 1\ny = 2\nlist = [1, 2]\n");
        base.overlay(tree("[a]\nx = 7\nlist = [3]\n"));
        let integer = |path| match base.find(path).map(|node| &node.value) {
            Some(Value::Integer(number)) => Some(*number),
            _ => None,
        };
        assert_eq!(integer("a.x"), Some(7));
        assert_eq!(integer("a.y"), Some(2));
        assert_eq!(integer("a.list.0"), Some(3));
        assert_eq!(integer("a.list.1"), None);
    }

    #[test]
    fn printing_the_tree_shows_no_secret() {
        let tree = tree("[auth]\nhs256_secret = 'canary'\nkeys = ['canary']");
        assert!(!format!("{tree:?}").contains("canary"));
    }
}
