//! The environment and the command line as sources: each becomes a tree like the file's.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Flags;
use super::problem::{Place, Problem};
use super::tree::{Node, Value};
use crate::dialect::Name;

/// What our variables begin with.
pub const PREFIX: &str = "COMMITCAST_";

/// The log filter: a source of its own (`[log] level`), named as such variables are everywhere.
const LOG: &str = "COMMITCAST_LOG";

/// `COMMITCAST_AUTH__MODE` is the key `auth.mode`.
pub fn from_env(variables: impl Iterator<Item = (String, String)>, problems: &mut Vec<Problem>) -> Node {
    // Sorted, because the order of an environment is nobody's intention and decides nothing here.
    let ours: BTreeMap<String, String> =
        variables.filter(|(name, value)| name.starts_with(PREFIX) && !is_kubernetes(name, value)).collect();
    let mut tree = Node::empty();
    for (name, value) in ours {
        let place = Place::Variable(Arc::from(name.as_str()));
        if name == LOG {
            tree.insert(&["log", "level"], Node::new(place, Value::Plain(value)));
            continue;
        }
        let key = name.strip_prefix(PREFIX).unwrap_or_default().to_lowercase();
        let path: Vec<&str> = key.split("__").collect();
        if path.iter().any(|step| step.is_empty()) {
            problems.push(Problem::new(place, "unknown variable"));
            continue;
        }
        let node = match path.as_slice() {
            ["listen"] => listen_list(&place, &value),
            _ => Node::new(place, Value::Plain(value)),
        };
        tree.insert(&path, node);
    }
    tree
}

/// A Kubernetes service named `commitcast` puts its addresses into every pod of the namespace, ours included. They are
/// not meant for us, and must not keep the server from starting.
fn is_kubernetes(name: &str, value: &str) -> bool {
    let rest = name.strip_prefix(PREFIX).unwrap_or(name);
    rest == "SERVICE_HOST"
        || rest == "SERVICE_PORT"
        || rest.starts_with("SERVICE_PORT_")
        || rest.starts_with("PORT_")
        || (rest == "PORT" && value.contains("://"))
}

pub fn from_flags(flags: &Flags, problems: &mut Vec<Problem>) -> Node {
    let mut tree = Node::empty();
    if !flags.listen.is_empty() {
        let place = Place::Flag("--listen");
        let items = flags.listen.iter().map(|text| listen_item(&place, text));
        let list = Value::List(items.collect());
        tree.insert(&["listen"], Node::new(place.clone(), list));
    }
    let data = flags.data.as_ref().and_then(|data| {
        let text = data.to_str().map(str::to_owned);
        if text.is_none() {
            let message = "this path is not UTF-8";
            problems.push(Problem::new(Place::Flag("--data"), message));
        }
        text
    });
    let scalars = [
        ("--data", ["store", "path"], data),
        ("--store", ["store", "url"], flags.store.clone()),
        ("--log-format", ["log", "format"], flags.log_format.clone()),
        ("--log-level", ["log", "level"], flags.log_level.clone()),
    ];
    for (flag, path, text) in scalars {
        if let Some(text) = text {
            tree.insert(&path, Node::new(Place::Flag(flag), Value::Plain(text)));
        }
    }
    if let Some(reactors) = flags.reactors {
        let node = Node::new(Place::Flag("--reactors"), Value::Plain(reactors.to_string()));
        tree.insert(&["reactors"], node);
    }
    if flags.debug {
        // Of every dialect, whatever the file says of one of them: that is what the flag is for.
        let debug = || Node::new(Place::Flag("--debug"), Value::Plain("debug".to_owned()));
        tree.insert(&["auth", "mode"], debug());
        for name in Name::ALL {
            tree.insert(&["auth", name.as_str(), "mode"], debug());
        }
    }
    tree
}

/// `ADDR,ADDR=dialect,dialect,ADDR`: an address has a colon and a dialect has none, so the comma can part both.
fn listen_list(place: &Place, text: &str) -> Node {
    let mut items: Vec<String> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match items.last_mut() {
            Some(item) if item.contains('=') && !part.contains(':') => {
                item.push(',');
                item.push_str(part);
            }
            _ => items.push(part.to_owned()),
        }
    }
    let items = items.iter().map(|item| listen_item(place, item)).collect();
    Node::new(place.clone(), Value::List(items))
}

/// `ADDR` or `ADDR=dialect,dialect`.
fn listen_item(place: &Place, text: &str) -> Node {
    let mut item = Node::new(place.clone(), Value::Table(BTreeMap::new()));
    let (address, dialects) = match text.split_once('=') {
        Some((address, dialects)) => (address, Some(dialects)),
        None => (text, None),
    };
    let plain = |text: &str| Node::new(place.clone(), Value::Plain(text.trim().to_owned()));
    item.insert(&["address"], plain(address));
    if let Some(dialects) = dialects {
        item.insert(&["dialects"], plain(dialects));
    }
    item
}
