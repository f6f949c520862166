//! What may be written: the configuration's keys, their types and nothing of what they mean.
//!
//! Every field is optional, because a default is not something that was written. Settings that differ by dialect
//! (`[auth.documents]`) are not fields of these structs: their names are the dialects' own, so they are read apart.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::read::read;
use super::tree::Node;
use super::units::{Address, Dialect, Network, Size, Span, Whole, Words};
use crate::dialect::Name;

/// Reads the whole tree. The tables of dialects leave it first.
pub fn read_all(tree: &Node, problems: &mut Vec<Problem>) -> Raw {
    let mut tree = tree.clone();
    let auth = of_dialects(&mut tree, "auth", problems);
    let origins = of_dialects(&mut tree, "origins", problems);
    let refuse = of_dialects(&mut tree, "refuse", problems);
    let names = |table: &str| match table {
        "auth" | "origins" | "refuse" => Name::ALL.map(Name::as_str).to_vec(),
        _ => Vec::new(),
    };
    let keys = read(&mut tree, "", &names, problems);
    Raw { keys, auth, origins, refuse }
}

fn of_dialects<T: serde::de::DeserializeOwned + Default>(
    tree: &mut Node,
    table: &str,
    problems: &mut Vec<Problem>,
) -> BTreeMap<Name, T> {
    Name::ALL
        .into_iter()
        .filter_map(|name| {
            let mut node = tree.remove(&[table.to_owned(), name.as_str().to_owned()])?;
            let path = format!("{table}.{}", name.as_str());
            Some((name, read(&mut node, &path, &|_| Vec::new(), problems)))
        })
        .collect()
}

/// Everything that was written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Raw {
    pub keys: Keys,
    pub auth: BTreeMap<Name, DialectAuth>,
    pub origins: BTreeMap<Name, Origins>,
    pub refuse: BTreeMap<Name, Refuse>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keys {
    pub reactors: Option<Whole>,
    pub listen: Option<Vec<Listen>>,
    pub store: Store,
    pub auth: Auth,
    pub origins: Origins,
    pub refuse: Refuse,
    pub proxy: Proxy,
    pub documents: Documents,
    pub agents: Agents,
    pub rooms: Rooms,
    pub limits: Limits,
    pub deflate: Deflate,
    pub drain: Drain,
    pub log: Log,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table with `address` (and `dialects`)")]
pub struct Listen {
    pub address: Address,
    /// Absent: all.
    pub dialects: Option<Vec<Dialect>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table: [store]")]
pub struct Store {
    /// The directory that holds the database.
    pub path: Option<String>,
    /// A URL may carry a password.
    pub url: Option<Secret>,
    pub durability: Option<Durability>,
    pub readers: Option<Whole>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// A commit survives the loss of power.
    #[default]
    Full,
    /// A commit survives the end of the process; the last ones may fall to a loss of power.
    Normal,
}

impl Durability {
    pub fn as_str(self) -> &'static str {
        match self {
            Durability::Full => "full",
            Durability::Normal => "normal",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table: [auth]")]
pub struct Auth {
    pub mode: Option<Mode>,
    pub hs256_secret: Option<Secret>,
    pub keys: Option<Vec<Key>>,
    pub api_keys: Option<Vec<ApiKey>>,
    pub query_token: Option<bool>,
    pub cookie: Option<String>,
    pub require_exp: Option<bool>,
    pub audience: Option<Words>,
    pub issuer: Option<Words>,
    pub default_rights: Option<BTreeMap<String, Vec<String>>>,
    pub user_header: Option<String>,
}

/// `[auth.<dialect>]`: what differs by the clients of a dialect. Keys do not: they belong to whoever signs tokens.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct DialectAuth {
    pub mode: Option<Mode>,
    pub query_token: Option<bool>,
    pub cookie: Option<String>,
    pub default_rights: Option<BTreeMap<String, Vec<String>>>,
    pub user_header: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Debug,
    Token,
    Open,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table with `algorithm`, `path` or `pem`, and `kid`")]
pub struct Key {
    /// May be absent when there is one key only.
    pub kid: Option<String>,
    pub algorithm: String,
    pub path: Option<String>,
    pub pem: Option<Secret>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table with `name`, `key` and `rights`")]
pub struct ApiKey {
    pub name: String,
    pub key: Secret,
    pub rights: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table: [origins]")]
pub struct Origins {
    pub allow: Option<Vec<String>>,
    pub absent: Option<Absent>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Absent {
    #[default]
    Allow,
    Deny,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table: [refuse]")]
pub struct Refuse {
    pub style: Option<Style>,
}

/// How a refused handshake is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Style {
    /// With the status of the reason.
    #[default]
    Http,
    /// Accepted, then closed with the reason's code: the one way in which a page's script learns why.
    Close,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table: [proxy]")]
pub struct Proxy {
    pub trusted: Option<Vec<Network>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table: [documents]")]
pub struct Documents {
    pub directories: Option<Vec<String>>,
}

/// The fields of [`crate::dialect::agents::Env`], which says what they mean.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table: [agents]")]
pub struct Agents {
    pub auto_create_sessions: Option<bool>,
    pub pong: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table: [rooms]")]
pub struct Rooms {
    pub keep: Option<Vec<Keep>>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table with `room` and `events` or `span`")]
pub struct Keep {
    pub room: String,
    pub events: Option<Whole>,
    pub span: Option<Span>,
}

/// The fields of [`crate::limits::Limits`], which says what they mean.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table: [limits]")]
pub struct Limits {
    pub message: Option<Size>,
    pub fragments: Option<Whole>,
    pub outbox: Option<Size>,
    pub rooms: Option<Whole>,
    pub handshake: Option<Span>,
    pub ping: Option<Span>,
    pub pong: Option<Span>,
    pub stall: Option<Span>,
    pub close: Option<Span>,
    pub keep_alive: Option<Span>,
    pub message_time: Option<Span>,
    pub answer: Option<Span>,
    pub connections: Option<Whole>,
    pub messages_per_second: Option<Whole>,
    pub bytes_per_second: Option<Size>,
    pub address_connections: Option<Whole>,
    pub address_handshakes_per_second: Option<Whole>,
    pub address_requests_per_second: Option<Whole>,
    pub memory: Option<Size>,
}

/// The fields of [`super::DeflateSettings`], which says what they mean.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table: [deflate]")]
pub struct Deflate {
    pub enabled: Option<bool>,
    pub threshold: Option<Size>,
    pub level: Option<Whole>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table: [drain]")]
pub struct Drain {
    pub window: Option<Span>,
    pub timeout: Option<Span>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table: [log]")]
pub struct Log {
    pub format: Option<Format>,
    pub level: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Text,
    Json,
}

/// Text that is shown to nobody, neither by `Debug` nor by `check-config`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

/// What stands in a secret's place.
pub const SECRET_SHOWN: &str = "(set)";

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SECRET_SHOWN)
    }
}

impl<'de> Deserialize<'de> for Secret {
    /// Refuses [`SECRET_SHOWN`]: a description that is taken for a configuration must not give the server a secret that
    /// everybody can read here.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == SECRET_SHOWN {
            let message = "holds what is shown in a secret's place, not the secret";
            return Err(serde::de::Error::custom(message));
        }
        Ok(Secret(text))
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(SECRET_SHOWN)
    }
}
