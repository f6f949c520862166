//! The configuration: from what was written to what may be trusted, in one fallible step.
//!
//! ```text
//! defaults ◀─ file (TOML) ◀─ environment ◀─ flags          later sources win, key by key
//!                  │
//!            tree (values with their places) ─▶ raw (typed, all optional) ─▶ Settings (checked and built)
//! ```
//!
//! Everything behind [`Settings`] trusts it: no address, pattern or number is looked at twice. What a running server can
//! exchange on SIGHUP is [`Live`]; the rest needs a restart, and [`Settings::needs_restart`] says which keys those are.
//!
//! Never here: a socket, a thread, a clock. Files are read through a function that the caller hands in, so that every
//! test is a table of texts.

mod check;
mod env;
mod identity;
mod problem;
mod raw;
mod read;
mod safety;
mod show;
mod suggest;
#[cfg(test)]
mod tests;
mod tree;
mod units;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

pub use check::normal_directory;
pub use problem::{ConfigError, Place, Problem};
pub use raw::{Durability, Style};

use crate::auth::origin::Origins;
use crate::auth::{Mode, Policy};
use crate::dialect::{Name, agents};
use crate::limits::Limits;
use crate::logging;
use crate::store::seam::Retention;
use tree::Node;

/// What the command line says; absent fields say nothing.
#[derive(Clone, Default)]
pub struct Flags {
    pub config: Option<PathBuf>,
    /// Each `ADDR` or `ADDR=dialect,dialect`.
    pub listen: Vec<String>,
    /// The directory of the database.
    pub data: Option<PathBuf>,
    /// A store's URL.
    pub store: Option<String>,
    pub debug: bool,
    pub reactors: Option<usize>,
    pub log_format: Option<String>,
    pub log_level: Option<String>,
}

impl fmt::Debug for Flags {
    /// Without the store's URL, which may carry a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flags")
            .field("config", &self.config)
            .field("listen", &self.listen)
            .field("data", &self.data)
            .field("debug", &self.debug)
            .field("reactors", &self.reactors)
            .field("log_format", &self.log_format)
            .field("log_level", &self.log_level)
            .finish_non_exhaustive()
    }
}

/// The configuration of one process, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// At least one.
    pub listeners: Vec<Listen>,
    pub store: StoreSettings,
    pub documents: DocumentsSettings,
    pub agents: agents::Env,
    pub drain: Drain,
    pub log: logging::Settings,
    /// 1 to [`crate::limits::REACTORS_MAX`].
    pub reactors: usize,
    pub live: Arc<Live>,
    /// What the operator should hear at start: allowed, but perhaps not meant.
    pub notes: Vec<String>,
    /// For [`Settings::describe`].
    raw: raw::Raw,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub address: SocketAddr,
    /// Which dialects it serves; at least one, none twice.
    pub dialects: Vec<Name>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// The directory that holds the database.
    pub path: PathBuf,
    pub durability: Durability,
    /// Threads that answer reads, each with a connection of its own.
    pub readers: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DocumentsSettings {
    /// Directories of Markdown files as documents' ids begin with them: no `./` before, no `/` behind.
    pub directories: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Over which clients are told to go, so that they do not all come back in one second.
    pub window: Duration,
    /// After which nothing is waited for any more; not before `window` is over.
    pub timeout: Duration,
}

/// permessage-deflate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeflateSettings {
    /// It is agreed to when a client offers it. Connections that have agreed keep it.
    pub enabled: bool,
    /// Bytes from which on a message is compressed.
    pub threshold: usize,
    /// zlib's, 1 to 9.
    pub level: u8,
}

impl Default for DeflateSettings {
    fn default() -> DeflateSettings {
        DeflateSettings { enabled: false, threshold: 256, level: 1 }
    }
}

/// What SIGHUP may exchange under a running server.
#[derive(Clone, Debug)]
pub struct Live {
    /// Indexed by [`Name`], as are the next two.
    policies: [Arc<Policy>; Name::ALL.len()],
    origins: [Arc<Origins>; Name::ALL.len()],
    refuse: [Style; Name::ALL.len()],
    /// Proxies whose word about their clients is believed.
    pub trusted: Vec<IpNet>,
    pub retention: Retention,
    pub limits: Limits,
    pub deflate: DeflateSettings,
}

impl Live {
    pub fn policy(&self, name: Name) -> &Arc<Policy> {
        &self.policies[name as usize]
    }

    pub fn origins(&self, name: Name) -> &Arc<Origins> {
        &self.origins[name as usize]
    }

    pub fn refuse(&self, name: Name) -> Style {
        self.refuse[name as usize]
    }
}

impl Settings {
    /// Reads all sources. `read_file` reads the configuration and the keys it names.
    pub fn build(
        flags: &Flags,
        env: impl Iterator<Item = (String, String)>,
        read_file: impl Fn(&Path) -> io::Result<String>,
    ) -> Result<Settings, ConfigError> {
        let mut problems = Vec::new();
        let mut tree = match &flags.config {
            Some(path) => read_config(path, &read_file).map_err(|it| ConfigError::new(vec![it]))?,
            None => Node::empty(),
        };
        let env = env::from_env(env, &mut problems);
        let flags = env::from_flags(flags, &mut problems);
        for later in [env, flags] {
            forget_other_store(&mut tree, &later);
            tree.overlay(later);
        }
        let raw = raw::read_all(&tree, &mut problems);
        if !problems.is_empty() {
            // What depends on several keys is not checked while one of them could not be read: the complaint would be
            // about our own guess.
            return Err(ConfigError::new(problems));
        }
        check::check(raw, &tree, &read_file)
    }

    /// The secret that `commitcast token` signs with.
    pub fn hs256_secret(&self) -> Option<&str> {
        self.raw.keys.auth.hs256_secret.as_ref().map(|secret| secret.0.as_str())
    }

    /// The part that SIGHUP may exchange.
    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live)
    }

    /// The part of `new` to put in place of ours, unless that would open what we listen on: its modes were judged by its
    /// own listeners, and those it does not get without a restart. Nor may it leave debug mode while sessions are made out
    /// of nothing, which goes on until a restart.
    pub fn reload(&self, new: &Settings) -> Result<Arc<Live>, ConfigError> {
        let mode = |name| new.live.policy(name).mode;
        let refused = |message| Err(ConfigError::new(vec![Problem::new(Place::Default, message)]));
        if let Some(listen) = safety::debug_exposed(&self.listeners, mode) {
            return refused(format!(
                "debug mode was asked for while {} is listened on, which is not a loopback address: restart, or keep the mode",
                listen.address
            ));
        }
        if self.agents.auto_create_sessions && mode(Name::Agents) != Mode::Debug {
            return refused(
                "agents.auto_create_sessions is in effect and for debug mode only: restart, or keep the mode"
                    .to_owned(),
            );
        }
        Ok(new.live())
    }

    /// The keys by which `new` differs from us and which only a restart can bring about.
    pub fn needs_restart(&self, new: &Settings) -> Vec<&'static str> {
        [
            ("listen", self.listeners != new.listeners),
            ("store.path", self.store.path != new.store.path),
            ("store.durability", self.store.durability != new.store.durability),
            ("store.readers", self.store.readers != new.store.readers),
            ("documents.directories", self.documents != new.documents),
            ("agents", of_agents(&self.agents) != of_agents(&new.agents)),
            ("drain", self.drain != new.drain),
            ("log", self.log != new.log),
            ("reactors", self.reactors != new.reactors),
            ("limits.memory", self.live.limits.memory != new.live.limits.memory),
        ]
        .into_iter()
        .filter(|(_, differs)| *differs)
        .map(|(key, _)| key)
        .collect()
    }

    /// The effective configuration as TOML, secrets as `(set)`.
    pub fn describe(&self) -> String {
        show::describe(self)
    }

    pub fn policy(&self, name: Name) -> &Arc<Policy> {
        self.live.policy(name)
    }

    pub fn origins(&self, name: Name) -> &Arc<Origins> {
        self.live.origins(name)
    }

    pub fn refuse(&self, name: Name) -> Style {
        self.live.refuse(name)
    }
}

/// The dialect's settings do not compare themselves: it has no use for that.
fn of_agents(env: &agents::Env) -> (bool, bool) {
    (env.auto_create_sessions, env.pong)
}

fn read_config(path: &Path, read_file: &impl Fn(&Path) -> io::Result<String>) -> Result<Node, Problem> {
    let text = read_file(path).map_err(|error| {
        let message = format!("{} could not be read: {error}", path.display());
        Problem::new(Place::Flag("--config"), message)
    })?;
    Node::from_toml(path, &text)
}

/// `--data` replaces a `store.url` of the file, although the keys differ: they are two ways to say the same.
fn forget_other_store(tree: &mut Node, later: &Node) {
    if later.find("store.path").is_some() || later.find("store.url").is_some() {
        for key in ["path", "url"] {
            tree.remove(&["store".to_owned(), key.to_owned()]);
        }
    }
}
