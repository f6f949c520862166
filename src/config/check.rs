//! From what was written to [`Settings`]: every rule about a value, and about values together.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::problem::{ConfigError, Problem};
use super::raw::{self, Raw};
use super::tree::Node;
use super::units::{Size, Span, Whole};
use super::{DeflateSettings, DocumentsSettings, Drain, Listen, Live, Settings, StoreSettings, identity};
use crate::auth::Mode;
use crate::dialect::{Name, agents};
use crate::limits::{self, Limits};
use crate::logging;
use crate::store::seam::{Keep, Retention};

const ADDRESS_DEFAULT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 8080);
const DATA_DEFAULT: &str = "commitcast-data";
/// Reading threads: one to answer while the other is busy with a long page.
const READERS_DEFAULT: u64 = 2;
/// Beyond one reader per core there is nothing to gain, and each holds a connection's page cache.
const READERS_MAX: u64 = limits::REACTORS_MAX as u64;
/// Bytes of the smallest message limit; the longest fixed answers and an operation's envelope fit it.
const MESSAGE_BYTES_MIN: u64 = 1024;
/// Longest of any time limit. Nothing that waits a day is a protection, and a slip of the unit is found.
const SPAN_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of the largest budget: no machine has more, and sums of such numbers do not overflow.
const MEMORY_MAX: u64 = 1 << 50;
const DRAIN_WINDOW_DEFAULT: Duration = Duration::from_secs(20);
const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// Builds the settings, or says everything that is wrong with them.
pub fn check(raw: Raw, tree: &Node, read_file: &dyn Fn(&Path) -> io::Result<String>) -> Result<Settings, ConfigError> {
    let mut report = Report::new(tree);
    let listeners = listeners(&raw.keys, &mut report);
    let identity = identity::check(&raw, &listeners, read_file, &mut report);
    let store = store(&raw.keys.store, &mut report);
    let documents = documents(&raw.keys.documents, &mut report);
    let agents = agents(&raw.keys.agents, &listeners, identity.as_ref(), &mut report);
    let drain = drain(&raw.keys.drain, &mut report);
    let log = log(&raw.keys.log, &mut report);
    let reactors = reactors(raw.keys.reactors, &mut report);
    let retention = retention(&raw.keys.rooms, &mut report);
    let limits = limits(&raw.keys.limits, &mut report);
    let deflate = deflate(&raw.keys.deflate, &mut report);
    let style = raw.keys.refuse.style.unwrap_or_default();
    let refuse = Name::ALL.map(|name| {
        let own = raw.refuse.get(&name).and_then(|refuse| refuse.style);
        own.unwrap_or(style)
    });
    let Some(identity) = identity.filter(|_| report.problems.is_empty()) else {
        return Err(ConfigError::new(report.problems));
    };
    let live = Live {
        policies: identity.policies,
        origins: identity.origins,
        refuse,
        trusted: identity.trusted,
        retention,
        limits,
        deflate,
    };
    let live = Arc::new(live);
    Ok(Settings { listeners, store, documents, agents, drain, log, reactors, live, notes: report.notes, raw })
}

/// Gathers what is wrong and what is worth a word, with the places of the keys it is about.
pub struct Report<'a> {
    tree: &'a Node,
    pub problems: Vec<Problem>,
    pub notes: Vec<String>,
}

impl Report<'_> {
    fn new(tree: &Node) -> Report<'_> {
        Report { tree, problems: Vec::new(), notes: Vec::new() }
    }

    /// `path` is that of the key, such as `rooms.keep.0.room`.
    pub fn wrong(&mut self, path: &str, message: impl Into<String>) {
        let place = self.tree.place(path);
        self.problems.push(Problem::new(place, message));
    }

    pub fn note(&mut self, message: impl Into<String>) {
        self.notes.push(message.into());
    }
}

fn listeners(keys: &raw::Keys, report: &mut Report<'_>) -> Vec<Listen> {
    let Some(written) = &keys.listen else {
        return vec![Listen { address: SocketAddr::from(ADDRESS_DEFAULT), dialects: Name::ALL.to_vec() }];
    };
    if written.is_empty() {
        report.wrong("listen", "`listen` is empty: give at least one address, or leave it out");
    }
    let mut listeners: Vec<Listen> = Vec::new();
    for (index, listen) in written.iter().enumerate() {
        let address = listen.address.0;
        // Port 0 is a new port each time.
        if address.port() != 0 && listeners.iter().any(|other| other.address == address) {
            report.wrong(&format!("listen.{index}.address"), format!("{address} is listened on twice"));
        }
        let mut dialects: Vec<Name> = match &listen.dialects {
            Some(dialects) => dialects.iter().map(|dialect| dialect.0).collect(),
            None => Name::ALL.to_vec(),
        };
        dialects.sort_unstable();
        dialects.dedup();
        if dialects.is_empty() {
            report.wrong(
                &format!("listen.{index}.dialects"),
                "`dialects` is empty: name at least one, or leave it out to serve all",
            );
        }
        listeners.push(Listen { address, dialects });
    }
    listeners
}

fn store(written: &raw::Store, report: &mut Report<'_>) -> StoreSettings {
    let path = match (&written.path, &written.url) {
        (Some(_), Some(_)) => {
            report.wrong("store.url", "`path` and `url` are both set: keep one of them");
            None
        }
        (Some(path), None) => Some(("store.path", path.as_str())),
        (None, Some(url)) => match store_directory(&url.0) {
            Ok(path) => Some(("store.url", path)),
            Err(message) => {
                report.wrong("store.url", message);
                None
            }
        },
        (None, None) => None,
    };
    if let Some((key, "")) = path {
        report.wrong(key, "the store's directory is empty");
    }
    let readers = written.readers.map_or(READERS_DEFAULT, |readers| readers.0);
    if !(1..=READERS_MAX).contains(&readers) {
        report.wrong("store.readers", format!("`readers` must be between 1 and {READERS_MAX}"));
    }
    StoreSettings {
        path: PathBuf::from(path.map_or(DATA_DEFAULT, |(_, path)| path)),
        durability: written.durability.unwrap_or_default(),
        readers: readers as usize,
    }
}

/// The directory a store's URL names. Messages never repeat the URL: it may carry a password.
fn store_directory(url: &str) -> Result<&str, &'static str> {
    match url.split_once(':') {
        Some(("sqlite", path)) => Ok(path.strip_prefix("//").unwrap_or(path)),
        Some(("postgres" | "postgresql", _)) => {
            Err("PostgreSQL is not in this version: use `path`, or a url such as \"sqlite:commitcast-data\"")
        }
        _ => Err("this is not a store's url: use \"sqlite:\" and a directory, such as \"sqlite:commitcast-data\""),
    }
}

fn documents(written: &raw::Documents, report: &mut Report<'_>) -> DocumentsSettings {
    let mut directories: Vec<String> = Vec::new();
    for (index, directory) in written.directories.iter().flatten().enumerate() {
        let path = format!("documents.directories.{index}");
        match normal_directory(directory) {
            Ok(directory) if directories.contains(&directory) => {
                report.wrong(&path, format!("directory `{directory}` is there twice"));
            }
            Ok(directory) => directories.push(directory),
            Err(why) => report.wrong(&path, format!("directory `{directory}` {why}")),
        }
    }
    DocumentsSettings { directories }
}

/// The directory as documents' ids begin with it. An id that reads `prompts/readme` must come from one spelling only.
pub fn normal_directory(written: &str) -> Result<String, &'static str> {
    if written.chars().any(char::is_control) {
        return Err("holds a control character");
    }
    if written.split('/').any(|part| part == "..") {
        return Err("holds `..`, which no document's id may: name the directory from where the server is started");
    }
    let absolute = if written.starts_with('/') { "/" } else { "" };
    let parts = written.split('/').filter(|part| !part.is_empty() && *part != ".");
    let normal = parts.collect::<Vec<_>>().join("/");
    if normal.is_empty() {
        return Err("names no directory of its own: documents are in a directory with a name");
    }
    Ok(format!("{absolute}{normal}"))
}

/// Sessions out of nothing are for development, where nobody's session is anybody's secret.
fn agents(
    written: &raw::Agents,
    listeners: &[Listen],
    identity: Option<&identity::Identity>,
    report: &mut Report<'_>,
) -> agents::Env {
    let auto_create_sessions = written.auto_create_sessions.unwrap_or(false);
    let served = listeners.iter().any(|listen| listen.dialects.contains(&Name::Agents));
    // Without an identity the mode was complained of already.
    let mode = identity.map(|identity| identity.policies[Name::Agents as usize].mode);
    if auto_create_sessions && served && mode.is_some_and(|mode| mode != Mode::Debug) {
        report.wrong(
            "agents.auto_create_sessions",
            "`auto_create_sessions` makes a session for whoever names one, which is for debug mode only: set it to false, \
             or auth.agents.mode to \"debug\"",
        );
    }
    agents::Env { auto_create_sessions, pong: written.pong.unwrap_or(false) }
}

fn drain(written: &raw::Drain, report: &mut Report<'_>) -> Drain {
    let span = |written: Option<Span>, default| written.map_or(default, |span| span.0);
    let timeout = span(written.timeout, DRAIN_TIMEOUT_DEFAULT);
    // A shorter timeout alone is meant to hold, window or not.
    let window = span(written.window, DRAIN_WINDOW_DEFAULT.min(timeout));
    if window > timeout {
        report.wrong("drain.window", "`window` is longer than `drain.timeout`, after which nobody is waited for");
    }
    for (key, span) in [("drain.window", window), ("drain.timeout", timeout)] {
        if span > SPAN_MAX {
            report.wrong(key, "must be at most 24h");
        }
    }
    Drain { window, timeout }
}

fn log(written: &raw::Log, report: &mut Report<'_>) -> logging::Settings {
    let filter = match &written.level {
        Some(level) => logging::Filter::parse(level).unwrap_or_else(|error| {
            report.wrong("log.level", error.to_string());
            logging::Filter::default()
        }),
        None => logging::Filter::default(),
    };
    let format = match written.format {
        Some(raw::Format::Json) => logging::Format::Json,
        Some(raw::Format::Text) | None => logging::Format::Text,
    };
    logging::Settings { format, filter }
}

fn reactors(written: Option<Whole>, report: &mut Report<'_>) -> usize {
    let max = limits::REACTORS_MAX;
    match written {
        Some(Whole(reactors)) if (1..=max as u64).contains(&reactors) => reactors as usize,
        Some(_) => {
            report.wrong("reactors", format!("`reactors` must be between 1 and {max}"));
            1
        }
        None => std::thread::available_parallelism().map_or(1, |cores| cores.get().min(max)),
    }
}

fn retention(written: &raw::Rooms, report: &mut Report<'_>) -> Retention {
    let Some(written) = &written.keep else {
        return retention_default();
    };
    let mut rules: Vec<Keep> = Vec::new();
    for (index, keep) in written.iter().enumerate() {
        let path = format!("rooms.keep.{index}");
        let rule = Keep {
            pattern: keep.room.clone(),
            events: keep.events.map(|events| events.0),
            span: keep.span.map(|span| span.0),
        };
        if let Some(why) = rule_fault(&rule) {
            report.wrong(&path, format!("the rule for `{}` {why}", rule.pattern));
        }
        // What fits the pattern's own fixed part fits it whole: both end in at most one star.
        let fixed = rule.pattern.trim_end_matches('*');
        let whole = rule.pattern.ends_with('*');
        let covers = |earlier: &&Keep| earlier.fits(fixed) && (!whole || earlier.pattern.ends_with('*'));
        if let Some(earlier) = rules.iter().find(covers) {
            report.wrong(
                &path,
                format!("the rule for `{}` is never reached: `{}` stands before it", rule.pattern, earlier.pattern),
            );
        }
        rules.push(rule);
    }
    Retention { rules }
}

/// DESIGN's own: topics are for the moment, documents have their state apart from their edits.
fn retention_default() -> Retention {
    let keep = |pattern: &str, events, span| Keep { pattern: pattern.to_owned(), events, span };
    let month = Duration::from_secs(30 * 24 * 60 * 60);
    Retention {
        rules: vec![keep("topic:*", Some(100), None), keep("doc:*", None, Some(month)), keep("*", Some(10_000), None)],
    }
}

fn rule_fault(rule: &Keep) -> Option<&'static str> {
    let fixed = rule.pattern.strip_suffix('*').unwrap_or(&rule.pattern);
    if rule.pattern.is_empty() {
        Some("names no room")
    } else if rule.pattern.len() > limits::ROOM_NAME_BYTES_MAX {
        Some("is longer than a room's name may be")
    } else if fixed.contains('*') {
        Some("has a `*` before its end")
    } else if rule.events.is_none() && rule.span.is_none() {
        Some("needs `events` or `span`")
    } else if rule.events == Some(0) || rule.span == Some(Duration::ZERO) {
        Some("would keep nothing")
    } else {
        None
    }
}

fn deflate(written: &raw::Deflate, report: &mut Report<'_>) -> DeflateSettings {
    let default = DeflateSettings::default();
    let threshold = written.threshold.map_or(default.threshold as u64, |size| size.0);
    if threshold > limits::MESSAGE_BYTES_CEILING as u64 {
        let most = Size(limits::MESSAGE_BYTES_CEILING as u64);
        report.wrong("deflate.threshold", format!("`threshold` must be at most {most}, the longest message there is"));
    }
    let level = written.level.map_or(u64::from(default.level), |level| level.0);
    if !(1..=9).contains(&level) {
        report.wrong(
            "deflate.level",
            "`level` must be between 1 (fast) and 9 (thorough); to send nothing compressed, set `enabled` to false",
        );
    }
    DeflateSettings {
        enabled: written.enabled.unwrap_or(default.enabled),
        threshold: threshold as usize,
        level: level as u8,
    }
}

fn limits(written: &raw::Limits, report: &mut Report<'_>) -> Limits {
    let default = Limits::default();
    let mut bounds = Bounds { report };
    Limits {
        message: bounds.size(
            "message",
            written.message,
            default.message,
            MESSAGE_BYTES_MIN,
            limits::MESSAGE_BYTES_CEILING as u64,
        ),
        fragments: bounds.number("fragments", written.fragments, default.fragments, 1),
        outbox: bounds.size("outbox", written.outbox, default.outbox, MESSAGE_BYTES_MIN, u64::from(u32::MAX)),
        rooms: bounds.rooms(written.rooms, default.rooms),
        handshake: bounds.span("handshake", written.handshake, default.handshake),
        ping: bounds.span("ping", written.ping, default.ping),
        pong: bounds.span("pong", written.pong, default.pong),
        stall: bounds.span("stall", written.stall, default.stall),
        close: bounds.span("close", written.close, default.close),
        keep_alive: bounds.span("keep_alive", written.keep_alive, default.keep_alive),
        message_time: bounds.span("message_time", written.message_time, default.message_time),
        answer: bounds.span("answer", written.answer, default.answer),
        connections: bounds.count("connections", written.connections, default.connections),
        messages_per_second: bounds.number(
            "messages_per_second",
            written.messages_per_second,
            default.messages_per_second,
            0,
        ),
        bytes_per_second: bounds.number(
            "bytes_per_second",
            written.bytes_per_second.map(|size| Whole(size.0)),
            default.bytes_per_second,
            0,
        ),
        address_connections: bounds.count(
            "address_connections",
            written.address_connections,
            default.address_connections,
        ),
        address_handshakes_per_second: bounds.number(
            "address_handshakes_per_second",
            written.address_handshakes_per_second,
            default.address_handshakes_per_second,
            0,
        ),
        address_requests_per_second: bounds.number(
            "address_requests_per_second",
            written.address_requests_per_second,
            default.address_requests_per_second,
            0,
        ),
        memory: bounds.size("memory", written.memory, default.memory, 0, MEMORY_MAX),
    }
}

/// Holds each limit to its range.
struct Bounds<'a, 'b> {
    report: &'a mut Report<'b>,
}

impl Bounds<'_, '_> {
    fn size(&mut self, key: &str, written: Option<Size>, default: usize, min: u64, max: u64) -> usize {
        let Some(Size(bytes)) = written else {
            return default;
        };
        if !(min..=max).contains(&bytes) {
            self.wrong(key, format!("between {} and {}", Size(min), Size(max)));
        }
        usize::try_from(bytes).unwrap_or(default)
    }

    fn number(&mut self, key: &str, written: Option<Whole>, default: u32, min: u32) -> u32 {
        match written.map(|whole| u32::try_from(whole.0)) {
            None => default,
            Some(Ok(number)) if number >= min => number,
            Some(_) => {
                self.wrong(key, format!("between {min} and {}", u32::MAX));
                default
            }
        }
    }

    fn count(&mut self, key: &str, written: Option<Whole>, default: usize) -> usize {
        let max = limits::SLOTS_MAX * limits::REACTORS_MAX;
        match written {
            None => default,
            Some(Whole(count)) if count <= max as u64 => count as usize,
            Some(_) => {
                self.wrong(key, format!("at most {max}"));
                default
            }
        }
    }

    fn rooms(&mut self, written: Option<Whole>, default: usize) -> usize {
        match written {
            None => default,
            Some(Whole(rooms)) if (1..=limits::ROOMS_CEILING as u64).contains(&rooms) => rooms as usize,
            Some(_) => {
                self.wrong("rooms", format!("between 1 and {}", limits::ROOMS_CEILING));
                default
            }
        }
    }

    fn span(&mut self, key: &str, written: Option<Span>, default: Duration) -> Duration {
        let span = written.map_or(default, |span| span.0);
        if span.is_zero() || span > SPAN_MAX {
            self.wrong(key, "more than 0s and at most 24h".to_owned());
        }
        span
    }

    fn wrong(&mut self, key: &str, range: String) {
        self.report.wrong(&format!("limits.{key}"), format!("`{key}` must be {range}"));
    }
}
