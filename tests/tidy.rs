//! Holds the facts of the architecture that no type can hold: who may import whom, where a crate is at home, what a folder's
//! page is, and that the README says what the code says. Taste and lengths are not its business.
//!
//! Every complaint names the place and what to do instead. It reads the source as text, with comments, literals and tests
//! blanked out, so that a word in prose is never mistaken for code.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use commitcast::config::{Flags, Settings};
use commitcast::http::Reason;
use commitcast::metrics::Metrics;
use commitcast::ws::close;

// ---- who may know whom ----------------------------------------------------------------------------------------------

/// `src/lib.rs` declares the modules in the order of their dependencies; each may import those above it.
#[test]
fn imports_go_one_way() {
    let order = declared_modules();
    let mut wrong = Vec::new();
    for source in library() {
        let Some(own) = order.iter().position(|module| *module == source.module()) else {
            continue; // lib.rs itself, and the program's own files; `every_file_belongs_to_a_module` asks for the rest.
        };
        for (line, other) in source.imports() {
            match order.iter().position(|module| *module == other) {
                Some(theirs) if theirs > own => wrong.push(format!(
                    "{}:{line}: `{}` imports `{other}`, which src/lib.rs declares below it: move what both need into a module \
                     above them, or hand it in as a parameter",
                    source.path, order[own]
                )),
                _ => {}
            }
        }
    }
    complain(&wrong);
}

#[test]
fn every_file_belongs_to_a_module() {
    let order = declared_modules();
    let program = ["src/lib.rs", "src/main.rs", "src/commands.rs", "src/serve.rs"];
    let wrong: Vec<String> = library()
        .iter()
        .filter(|source| !program.contains(&source.path.as_str()) && !order.contains(&source.module()))
        .map(|source| {
            format!(
                "{}: src/lib.rs declares no module `{}`: declare it, or delete the file",
                source.path,
                source.module()
            )
        })
        .collect();
    complain(&wrong);
}

/// (who, whom it never mentions, why and what instead)
const STRANGERS: &[(&str, &str, &str)] = &[
    ("room/", "crate::conn", "a room knows handles, not connections: the reactor joins the two"),
    ("conn/", "crate::room", "a connection knows no room: the reactor joins the two"),
    ("dialect/", "crate::store", "a dialect asks `model::Rows`, whoever implements it"),
    ("dialect/", "crate::conn", "a dialect knows no socket: it answers with an `Intent`"),
    ("reactor/", "documents", "a new dialect must not touch the loop: go through `dialect`'s functions"),
    ("conn/", "documents", "a new dialect must not touch the connection: go through `dialect::Session`"),
    ("room/", "documents", "a new dialect must not touch rooms: go through `dialect::Frames`"),
    ("store/", "documents::", "a new dialect must not touch the store: go through `dialect::apply`"),
    ("http/", "documents", "HTTP serves every dialect"),
    ("ws/", "documents", "WebSocket framing serves every dialect"),
    ("auth/", "documents", "identity serves every dialect: what differs is in its `Policy`"),
    ("admission.rs", "documents", "the door serves every dialect: go through `dialect::route`"),
];

#[test]
fn strangers_stay_strangers() {
    let mut wrong = Vec::new();
    for (who, whom, why) in STRANGERS {
        let theirs: Vec<&Source> = library().iter().filter(|source| source.is_at(who)).collect();
        assert!(!theirs.is_empty(), "tests/tidy.rs speaks of src/{who}, which is gone: mend STRANGERS");
        for source in theirs {
            for line in source.lines_with(whom) {
                wrong.push(format!("{}:{line}: mentions `{whom}`: {why}", source.path));
            }
        }
    }
    complain(&wrong);
}

/// The folders that are tested without a socket, a clock or a file, because they have none.
const PURE: &[&str] = &[
    "limits.rs",
    "ids.rs",
    "http/",
    "ws/",
    "auth/",
    "model/",
    "dialect/",
    "protocol/",
    "admission.rs",
    "conn/",
    "room/",
];

const IMPURE: &[(&str, &str)] = &[
    ("std::fs", "hand the text in"),
    ("File::", "hand the text in"),
    ("TcpStream", "take and give bytes"),
    ("TcpListener", "take and give bytes"),
    ("std::thread", "the composition root (server.rs) starts threads"),
    ("thread::", "the composition root (server.rs) starts threads"),
    ("std::env", "the configuration reads the environment"),
    ("getrandom::", "the store and the composition root roll dice: hand the number in"),
];

#[test]
fn the_pure_parts_touch_nothing() {
    let mut wrong = Vec::new();
    for folder in PURE {
        for source in library().iter().filter(|source| source.is_at(folder)) {
            for (call, instead) in IMPURE {
                for line in source.lines_with(call) {
                    wrong.push(format!("{}:{line}: `{call}` in a pure part: {instead}", source.path));
                }
            }
        }
    }
    complain(&wrong);
}

// ---- one home per crate ---------------------------------------------------------------------------------------------

/// (crate, its homes below src/, what everybody else uses instead); no homes: it is at home everywhere.
const HOMES: &[(&str, &[&str], &str)] = &[
    ("arc_swap", &["server", "reactor", "store/worker"], "take the `Arc<Live>` of this turn"),
    ("base64", &["http"], "http::upgrade, so that the handshake is one folder"),
    ("bytes", &[], ""),
    ("clap", &["main", "commands"], "take the settings; arguments end in main.rs"),
    ("command_fds", &["process/handover"], "Successor::start; nothing else starts a process"),
    ("crossbeam_channel", &["mailbox"], "mailbox::channel, so that every queue is bounded and wakes its reader"),
    ("env_logger", &["logging"], "the `log` macros"),
    ("flate2", &["ws"], "ws::deflate, where what is inflated has its bounds"),
    (
        "foldhash",
        &["auth/revoked", "directory", "guests", "reactor/packer", "room", "store"],
        "a BTreeMap, or say here why a peer cannot choose the keys",
    ),
    ("form_urlencoded", &["auth", "http"], "http::query_param"),
    ("getrandom", &["store/sqlite"], "a number handed in, so that a simulation can repeat it"),
    ("httparse", &["http"], "http::head, the strict layer over it"),
    ("humantime", &["config", "commands"], "a Duration; only what people write is parsed"),
    ("ipnet", &["auth", "config"], "auth::peer"),
    ("jiff", &["dialect", "logging", "service"], "clock::Wall; only what people read is a date"),
    ("jsonwebtoken", &["auth/token"], "auth::token, where its unsafe defaults are put right"),
    ("listenfd", &["process/inherit"], "Inherited::take, once and before any thread"),
    ("log", &[], ""),
    ("mio", &["reactor", "listener", "mailbox", "server"], "bytes and ids, so that it is testable without a socket"),
    (
        "parking_lot",
        &["auth/revoked", "directory", "guests"],
        "a message in a mailbox: the directory is the one lock on a message's way",
    ),
    ("percent_encoding", &["http"], "http::decode_path"),
    ("prometheus_client", &["metrics"], "a counter of metrics::Metrics"),
    ("rusqlite", &["store/sqlite"], "store::Store or model::Rows: a backend is one home"),
    ("sd_notify", &["process/manager"], "a word of process::manager"),
    ("serde", &["auth/token", "config", "dialect", "http"], "a type of our own; JSON's shape never leaks inward"),
    (
        "serde_json",
        &["auth/token", "dialect", "http", "logging", "protocol"],
        "a type of our own; JSON's shape never leaks inward",
    ),
    (
        "sha1",
        &["http", "files", "dialect/agents/approvals"],
        "http::upgrade for the handshake, files::digest_of for a file",
    ),
    ("signal_hook", &["serve"], "Server::stop; signals end in serve.rs"),
    ("simdutf8", &["ws"], "ws::utf8"),
    ("slab", &["reactor/table", "room"], "ConnId or a room's handle: a bare index never travels"),
    ("socket2", &["listener", "process/inherit"], "listener::Doors"),
    ("thiserror", &[], ""),
    ("toml", &["config"], "config::Settings"),
    ("tungstenite", &["ws"], "ws::frame and ws::close; the whole crate is for tests and tools, as an independent peer"),
];

#[test]
fn every_crate_has_one_home() {
    let mut wrong = Vec::new();
    for (name, homes, instead) in HOMES.iter().filter(|(_, homes, _)| !homes.is_empty()) {
        let users = library().iter().map(|source| (source, source.lines_with_crate(name)));
        let users: Vec<(&Source, Vec<usize>)> = users.filter(|(_, lines)| !lines.is_empty()).collect();
        let at_home = |source: &Source| homes.iter().any(|home| source.is_in(home));
        for (source, lines) in users.iter().filter(|(source, _)| !at_home(source)) {
            for line in lines {
                let homes = homes.join(", ");
                wrong.push(format!("{}:{line}: `{name}` is at home in {homes}: here use {instead}", source.path));
            }
        }
        for home in homes.iter().filter(|home| !users.iter().any(|(source, _)| source.is_in(home))) {
            wrong.push(format!("src/{home} no longer uses `{name}`: take it out of HOMES in tests/tidy.rs"));
        }
    }
    complain(&wrong);
}

/// A new dependency is a decision about where it lives.
#[test]
fn every_dependency_has_a_row_and_a_user() {
    let manifest = read("Cargo.toml");
    let dependencies: BTreeSet<String> = section(&manifest, "[dependencies]")
        .lines()
        .filter_map(|line| line.split_once('=').map(|(name, _)| name.trim().replace('-', "_")))
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .collect();
    assert!(dependencies.len() > 10, "Cargo.toml was not understood: {dependencies:?}");
    let rows: BTreeSet<String> = HOMES.iter().map(|(name, ..)| (*name).to_owned()).collect();
    let mut wrong: Vec<String> = dependencies
        .difference(&rows)
        .map(|name| format!("Cargo.toml: `{name}` has no home: give it a row in HOMES of tests/tidy.rs"))
        .collect();
    wrong.extend(
        rows.difference(&dependencies)
            .map(|name| format!("tests/tidy.rs: `{name}` is no dependency any more: drop its row")),
    );
    let sources = library();
    for name in &dependencies {
        if sources.iter().all(|source| source.lines_with_crate(name).is_empty()) {
            wrong.push(format!("Cargo.toml: nobody uses `{name}`: drop it"));
        }
    }
    complain(&wrong);
}

// ---- what is not called, and what is called instead ------------------------------------------------------------------

/// (what, where it may be, what to use instead), in `src/` without its tests.
const CALLS: &[(&str, &[&str], &str)] = &[
    ("Instant::now", &["clock"], "Clock::mono, so that the simulation can move time"),
    ("SystemTime::now", &["clock"], "Clock::wall, so that the simulation can move time"),
    ("Timestamp::now", &["clock"], "Clock::wall, so that the simulation can move time"),
    ("Zoned::now", &["clock"], "Clock::wall, so that the simulation can move time"),
    ("println!", &["main", "commands", "serve"], "the `log` macros; standard output belongs to the commands"),
    ("eprintln!", &["main", "commands", "serve"], "the `log` macros"),
    ("print!", &["main", "commands", "serve"], "the `log` macros"),
    ("process::exit", &["server", "panics"], "return an ExitCode from main"),
    ("catch_unwind", &["panics"], "panics::contain and panics::alone, for what touches one connection alone"),
    ("panic!", &["store/memory", "failpoints"], "an error of this module's own enum; a peer's bytes never panic"),
    ("unwrap_unchecked", &[], "a match"),
    ("static mut", &[], "a field of the thread that owns it"),
    // A panic hook knows nothing but its thread.
    ("thread_local!", &["panics"], "a field of the thread that owns it"),
];

/// Nowhere at all, tests and tools included.
const LEFTOVERS: &[(&str, &str)] = &[
    ("unsafe", "safe code: the crate forbids the other kind"),
    ("dbg!", "a log line, or nothing"),
    ("todo!", "the code, or a refusal that says what is missing"),
    ("unimplemented!", "the code, or a refusal that says what is missing"),
];

#[test]
fn calls_have_their_place() {
    let mut wrong = Vec::new();
    for source in library() {
        for (call, homes, instead) in CALLS {
            if homes.iter().any(|home| source.is_in(home)) {
                continue;
            }
            for line in source.lines_with(call) {
                wrong.push(format!("{}:{line}: `{call}`: use {instead}", source.path));
            }
        }
    }
    complain(&wrong);
}

#[test]
fn nothing_is_left_over() {
    let mut wrong = Vec::new();
    let sources = rust_files();
    for source in &sources {
        let code = blank(&source.text);
        for (word, instead) in LEFTOVERS {
            for line in lines_with(&code, word) {
                wrong.push(format!("{}:{line}: `{word}`: use {instead}", source.path));
            }
        }
    }
    if !read("src/lib.rs").contains("#![forbid(unsafe_code)]") {
        wrong.push("src/lib.rs: say #![forbid(unsafe_code)]".to_owned());
    }
    complain(&wrong);
}

// ---- pages ----------------------------------------------------------------------------------------------------------

/// Every folder of code opens with a page, and every file says in its first line what it is for.
#[test]
fn every_folder_has_a_page_and_every_file_a_first_line() {
    let mut wrong = Vec::new();
    let files = files();
    for path in &files {
        let text = read(path);
        let lines: Vec<&str> = text.lines().collect();
        let first = *lines.first().unwrap_or(&"");
        let second = *lines.get(1).unwrap_or(&"");
        let says = |line: &str, mark: &str| line.strip_prefix(mark).is_some_and(|rest| rest.trim().len() >= 10);
        let is_script = first.starts_with("#!") && !first.starts_with("#![");
        let (good, mark) = match extension(path) {
            "rs" => (says(first, "//! "), "//! "),
            "sql" => (says(first, "-- "), "-- "),
            "js" | "mjs" => (says(if is_script { second } else { first }, "// "), "// "),
            "py" => {
                let line = if is_script { second } else { first };
                (says(line, "\"\"\"") || says(line, "# "), "\"\"\"")
            }
            "sh" | "" if is_script => (says(second, "# ") || says(second, "\"\"\""), "# "),
            _ => continue,
        };
        if !good {
            wrong.push(format!("{path}: its first line should say what it is for, behind `{mark}`"));
        }
    }
    let folders: BTreeSet<&str> = files
        .iter()
        .filter(|path| extension(path) == "rs")
        .filter_map(|path| path.rsplit_once('/'))
        .map(|(folder, _)| folder)
        .collect();
    // These two hold programs, each with a page of its own.
    for folder in folders.into_iter().filter(|folder| !["tests", "benches"].contains(folder)) {
        let pages = ["mod.rs", "lib.rs", "main.rs"].map(|page| format!("{folder}/{page}"));
        if !pages.iter().any(|page| files.contains(page)) {
            wrong.push(format!("{folder}/: give it a mod.rs whose first lines are its page"));
        }
    }
    complain(&wrong);
}

// ---- the repository -------------------------------------------------------------------------------------------------

const TOP: &[&str] =
    &["Cargo.toml", "Cargo.lock", "LICENSE", "PERF.md", "README.md", "benches", "src", "tests", "tools"];

#[test]
fn the_top_level_holds_what_belongs_there() {
    let ignored: Vec<String> = read(".gitignore")
        .lines()
        .map(|line| line.trim_matches('/').to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    let entries: BTreeSet<String> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.') && !ignored.contains(name))
        .collect();
    let mut wrong: Vec<String> = entries
        .iter()
        .filter(|name| !TOP.contains(&name.as_str()))
        .map(|name| {
            format!(
                "{name}: the top level holds {} and dot-files: put it below tools/, or into .gitignore",
                TOP.join(", ")
            )
        })
        .collect();
    wrong.extend(
        TOP.iter().filter(|name| !entries.contains(**name)).map(|name| format!("{name} is missing at the top level")),
    );
    complain(&wrong);
}

/// Another machine has other directories and other mirrors; what names them works on one machine only.
#[test]
fn no_file_names_a_machine() {
    // Put together here, so that this file does not name them either.
    let slash = "/";
    let paths = ["work", "root", "home", "Users", "tmp/h-"].map(|name| format!("{slash}{name}"));
    let dot = ".";
    let hosts =
        [("registry", "npm"), ("py", "pi"), ("static", "crates"), ("index", "crates"), ("mirror", ""), ("nexus", "")]
            .map(|(host, rest)| match host {
                "py" => format!("{host}{rest}{dot}"),
                _ => format!("{host}{dot}{rest}"),
            });
    let keys = ["replace-with", "index-url", "find-links", "--registry"];
    let mut wrong = Vec::new();
    for path in files() {
        let text = read(&path);
        if path == "Cargo.lock" {
            let usual = format!("source = \"registry+https://github.com/rust-lang/crates{dot}io-index\"");
            for (index, line) in
                text.lines().enumerate().filter(|(_, line)| line.starts_with("source = ") && *line != usual.as_str())
            {
                wrong.push(format!(
                    "{path}:{}: {line}: take packages from the usual registry, so that everybody can",
                    index + 1
                ));
            }
            continue;
        }
        if path == "tests/tidy.rs" {
            continue;
        }
        for (index, line) in text.lines().enumerate() {
            let is_path = |name: &String| {
                line.match_indices(name.as_str()).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    let after = line[at + name.len()..].chars().next();
                    let own = before.is_none_or(|char| !char.is_alphanumeric() && !"_-.:/)}*>]$~".contains(char));
                    own && (name.ends_with('-') || after == Some('/'))
                })
            };
            if let Some(name) = paths.iter().find(|name| is_path(name)) {
                wrong.push(format!(
                    "{path}:{}: names {name} of one machine: use a relative path or a temporary directory",
                    index + 1
                ));
            }
            let found = hosts.iter().map(String::as_str).chain(keys).find(|host| line.contains(host));
            if let Some(host) = found {
                wrong.push(format!("{path}:{}: `{host}`: leave where packages come from to whoever builds", index + 1));
            }
        }
    }
    complain(&wrong);
}

// ---- metrics --------------------------------------------------------------------------------------------------------

/// What `/metrics` shows once each family has a member.
fn exposition() -> String {
    let metrics = Metrics::default();
    metrics.rejected("x");
    metrics.closed(1000);
    metrics.shed("outboxes");
    metrics.operation_refused("x");
    metrics.text()
}

/// (exported name without a suffix, kind).
fn exported_metrics() -> Vec<(String, String)> {
    let text = exposition();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .map(|line| {
            let (name, kind) = line.split_once(' ').unwrap_or_else(|| panic!("`{line}` has no kind"));
            (name.to_owned(), kind.to_owned())
        })
        .collect()
}

#[test]
fn metric_names_are_unique_and_prefixed() {
    let exported = exported_metrics();
    assert!(exported.len() > 10, "the exposition was not understood: {exported:?}");
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (name, kind) in &exported {
        if !seen.insert(name) {
            wrong.push(format!("src/metrics.rs: `{name}` is registered twice: give the second a name of its own"));
        }
        let plain = name.strip_prefix("commitcast_").is_some_and(|rest| {
            !rest.is_empty()
                && rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        });
        if !plain {
            wrong.push(format!("src/metrics.rs: `{name}`: metrics are named commitcast_ and lower-case words"));
        }
        if kind == "counter" && name.ends_with("_total") {
            wrong.push(format!("src/metrics.rs: `{name}`: the exposition adds _total itself"));
        }
    }
    for line in exposition().lines().filter(|line| line.starts_with("# HELP ") && line.ends_with("..")) {
        wrong.push(format!("src/metrics.rs: `{line}`: the exposition adds the full stop itself: drop it in the table"));
    }
    let registered = read("src/metrics.rs").matches("registry.register(").count();
    if registered != exported.len() {
        wrong.push(format!(
            "src/metrics.rs registers {registered} metrics and {} were exported: give the new family a member in exported_metrics",
            exported.len()
        ));
    }
    complain(&wrong);
}

// ---- the README says what the code says -----------------------------------------------------------------------------

#[test]
fn the_readme_lists_the_metrics() {
    let expected: Vec<Vec<String>> = exported_metrics()
        .into_iter()
        .map(|(name, kind)| {
            let suffix = if kind == "counter" { "_total" } else { "" };
            vec![format!("`{name}{suffix}`"), kind]
        })
        .collect();
    let written: Vec<Vec<String>> = table("Metrics").into_iter().map(|row| row[..2].to_vec()).collect();
    same_rows("Metrics", "src/metrics.rs", &written, &expected);
}

#[test]
fn the_readme_lists_the_close_codes() {
    let expected: Vec<Vec<String>> =
        close::TABLE.iter().map(|(code, meaning)| vec![code.to_string(), (*meaning).to_owned()]).collect();
    same_rows("Close codes", "ws::close::TABLE", &table("Close codes"), &expected);
}

#[test]
fn the_readme_lists_the_refusals() {
    let expected: Vec<Vec<String>> = Reason::ALL
        .iter()
        .map(|reason| {
            let row = reason.row();
            vec![row.status.to_string(), format!("`{}`", row.name), row.close.to_string(), row.hint.replace('|', "\\|")]
        })
        .collect();
    same_rows("Refusals", "http::Reason::ALL", &table("Refusals"), &expected);
}

/// The first TOML block is the reference: as it stands it changes nothing, and with every `#key` switched on it is valid.
#[test]
fn the_readme_configuration_is_what_the_server_does_anyway() {
    let blocks = toml_blocks();
    let reference = blocks.first().expect("README.md has no ```toml block");
    let written =
        build(reference).unwrap_or_else(|error| panic!("README.md's first configuration is refused: {error}"));
    let default = build("").unwrap_or_else(|error| panic!("an empty configuration is refused: {error}"));
    // `[auth]` is shown as it was written; what it comes to is in the tables of the dialects.
    let effective = |settings: Settings| {
        let shown = settings.describe();
        let written = format!("[auth]{}", section(&shown, "[auth]"));
        shown.replace(&written, "")
    };
    let (written, default) = (effective(written), effective(default));
    let differing: Vec<String> = written
        .lines()
        .filter(|line| !default.lines().any(|other| other == *line))
        .map(|line| {
            format!(
                "README.md's first configuration says `{line}`, which is no default: mend it, or write it as `#key = …`"
            )
        })
        .collect();
    complain(&differing);
    assert_eq!(written, default, "README.md's first configuration is to be the defaults");
}

#[test]
fn the_readme_configurations_are_valid() {
    let mut wrong = Vec::new();
    for (index, block) in toml_blocks().iter().enumerate() {
        for (text, what) in [(block.clone(), "as it stands"), (switched_on(block), "with every `#key` switched on")] {
            if let Err(error) = build(&text) {
                wrong.push(format!("README.md: configuration {} {what} is refused: {error}", index + 1));
            }
        }
    }
    complain(&wrong);
}

#[test]
fn the_readme_names_every_configuration_key() {
    let known = known_keys();
    assert!(known.len() > 30, "src/config/raw.rs was not understood: {known:?}");
    let blocks = toml_blocks();
    let reference = blocks.first().expect("README.md has no ```toml block");
    let written = written_keys(reference);
    let mut wrong: Vec<String> = known
        .difference(&written)
        .map(|key| {
            format!("README.md's first configuration does not show `{key}`: add it, as `#key = …` if it has no default")
        })
        .collect();
    wrong.extend(
        written.difference(&known).map(|key| format!("README.md's first configuration shows `{key}`, which is no key")),
    );
    complain(&wrong);
}

// ---- how the README is read -----------------------------------------------------------------------------------------

/// The rows of the first table below a heading.
fn table(heading: &str) -> Vec<Vec<String>> {
    let readme = read("README.md");
    let below = readme
        .lines()
        .skip_while(|line| line.trim_start_matches('#').trim() != heading || !line.starts_with('#'))
        .skip(1)
        .take_while(|line| !line.starts_with('#'))
        .skip_while(|line| !line.starts_with('|'));
    let rows: Vec<Vec<String>> = below
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            line.trim_matches('|')
                .replace("\\|", "\u{0}")
                .split('|')
                .map(|cell| cell.trim().replace('\u{0}', "\\|"))
                .collect()
        })
        .collect();
    assert!(!rows.is_empty(), "README.md has no table below a heading `{heading}`");
    rows
}

fn same_rows(heading: &str, source: &str, written: &[Vec<String>], expected: &[Vec<String>]) {
    let line = |row: &Vec<String>| format!("| {} |", row.join(" | "));
    let missing: Vec<String> = expected.iter().filter(|row| !written.contains(row)).map(line).collect();
    let stray: Vec<String> = written.iter().filter(|row| !expected.contains(row)).map(line).collect();
    assert!(
        missing.is_empty() && stray.is_empty(),
        "README.md, `{heading}` is not what {source} says.\nAdd:\n{}\nTake out:\n{}\n",
        missing.join("\n"),
        stray.join("\n")
    );
    assert!(
        written.iter().eq(expected),
        "README.md, `{heading}` has the rows of {source} in another order, or one of them twice"
    );
}

fn toml_blocks() -> Vec<String> {
    let readme = read("README.md");
    readme
        .split("\n```toml\n")
        .skip(1)
        .map(|rest| format!("{}\n", rest.split("\n```").next().unwrap_or_default()))
        .collect()
}

/// `#key = …` and `#[table]` are settings that are off; `# words` are words.
fn setting(line: &str) -> Option<&str> {
    line.strip_prefix('#').filter(|rest| rest.starts_with(|char: char| char.is_ascii_lowercase() || char == '['))
}

/// With every setting on, but those that stand in another one's place.
fn switched_on(block: &str) -> String {
    let lines = block.lines().filter(|line| !line.contains("# instead of "));
    lines.fold(String::new(), |on, line| on + setting(line).unwrap_or(line) + "\n")
}

/// Made for this test and used for nothing else.
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEKwTZ4UCHz3ooRSiWR7O03RPGrxCH
BHlWZMgdOl92S81l5WTt/R5Yh3k24eDNIGn9ULM3BorFdMvvDe6H0FJymQ==
-----END PUBLIC KEY-----
";

fn build(toml: &str) -> Result<Settings, String> {
    let config = Path::new("commitcast.toml");
    let flags = Flags { config: Some(config.to_owned()), ..Flags::default() };
    let read = |path: &Path| match path {
        path if path == config => Ok(toml.to_owned()),
        path if path.extension().is_some_and(|extension| extension == "pem") => Ok(PUBLIC_KEY.to_owned()),
        path => Err(io::Error::other(format!("tests/tidy.rs has no {}", path.display()))),
    };
    Settings::build(&flags, std::iter::empty(), read).map_err(|error| error.to_string())
}

/// The keys that `config/raw.rs` takes, from its structs, nested ones dotted.
fn known_keys() -> BTreeSet<String> {
    let raw = blank_comments(&read("src/config/raw.rs"));
    let mut structs: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for part in raw.split("pub struct ").skip(1) {
        let Some((name, rest)) = part.split_once(" {") else { continue };
        if name.contains(|char: char| !char.is_alphanumeric()) {
            continue;
        }
        let fields = rest.split("\n}").next().unwrap_or_default().lines();
        let fields = fields.filter_map(|line| line.trim().strip_prefix("pub ")?.trim_end_matches(',').split_once(": "));
        structs.insert(name.to_owned(), fields.map(|(field, kind)| (field.to_owned(), kind.to_owned())).collect());
    }
    let mut keys = BTreeSet::new();
    collect_keys(&structs, "Keys", "", &mut keys);
    keys
}

fn collect_keys(
    structs: &BTreeMap<String, Vec<(String, String)>>,
    of: &str,
    prefix: &str,
    keys: &mut BTreeSet<String>,
) {
    for (field, kind) in &structs[of] {
        let path = format!("{prefix}{field}");
        let inner =
            structs.keys().find(|name| kind.split(|char: char| !char.is_alphanumeric()).any(|word| word == *name));
        match inner {
            Some(inner) => collect_keys(structs, inner, &format!("{path}."), keys),
            None => {
                keys.insert(path);
            }
        }
    }
}

/// The keys of a TOML text of ours: tables, `key = value`, and one level of inline tables. Those of single dialects
/// (`[auth.documents]`) are the same keys again.
fn written_keys(toml: &str) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let mut prefix = String::new();
    for line in toml.lines().map(|line| setting(line).unwrap_or(line)) {
        let line = line.split("  #").next().unwrap_or_default().trim();
        if line.starts_with('[') && line.ends_with(']') {
            prefix = format!("{}.", line.trim_matches(['[', ']']));
        } else if let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            let inner: Vec<&str> = value
                .split(['{', ','])
                .filter_map(|part| part.split_once(" = ").map(|(inner, _)| inner.trim()))
                .filter(|inner| inner.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
                .collect();
            if inner.is_empty() {
                keys.insert(format!("{prefix}{key}"));
            }
            keys.extend(inner.into_iter().map(|inner| format!("{prefix}{key}.{inner}")));
        }
    }
    keys
}

// ---- the source as text ---------------------------------------------------------------------------------------------

/// A file of the library: its code without comments, literals and tests.
struct Source {
    /// From the repository's root, with `/`.
    path: String,
    text: String,
    code: String,
}

impl Source {
    fn below_src(&self) -> &str {
        self.path.strip_prefix("src/").unwrap_or(&self.path)
    }

    /// The top-level module it belongs to.
    fn module(&self) -> String {
        let first = self.below_src().split('/').next().unwrap_or_default();
        first.trim_end_matches(".rs").to_owned()
    }

    /// `http/` or `ids.rs`, as it stands.
    fn is_at(&self, place: &str) -> bool {
        if place.ends_with('/') { self.below_src().starts_with(place) } else { self.below_src() == place }
    }

    /// `http` or `store/sqlite`: the file of that name or anything in the folder of that name.
    fn is_in(&self, home: &str) -> bool {
        self.below_src().strip_prefix(home).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    }

    fn lines_with(&self, what: &str) -> Vec<usize> {
        lines_with(&self.code, what)
    }

    /// Where the crate is named: at the head of a path, or imported whole.
    fn lines_with_crate(&self, name: &str) -> Vec<usize> {
        let heads = [format!("{name}::"), format!("use {name};"), format!("use {name} as")];
        let mut lines: Vec<usize> = heads.iter().flat_map(|head| lines_with(&self.code, head)).collect();
        lines.sort_unstable();
        lines
    }

    /// The crate's modules that this file names, each with its line: `crate::x`, `crate::{x, y}`, and `super::…::x` as far
    /// up as the root.
    fn imports(&self) -> Vec<(usize, String)> {
        let depth = self.below_src().trim_end_matches(".rs").trim_end_matches("/mod").split('/').count();
        let from_root = ["crate::".to_owned(), "super::".repeat(depth)];
        let mut imports = Vec::new();
        for head in &from_root {
            for (at, _) in self.code.match_indices(head.as_str()) {
                let whole = !self.code[..at].ends_with(|char: char| is_word(char) || char == ':');
                let line = self.code[..at].matches('\n').count() + 1;
                if whole {
                    let names = names_behind(&self.code[at + head.len()..]);
                    imports.extend(names.into_iter().map(|name| (line, name)));
                }
            }
        }
        imports
    }
}

/// The first names of `x::y`, `{a::b, c::{d, e}}` or `x`.
fn names_behind(code: &str) -> Vec<String> {
    let name = |text: &str| text.trim_start().chars().take_while(|char| is_word(*char)).collect::<String>();
    let Some(list) = code.strip_prefix('{') else {
        return vec![name(code)];
    };
    let mut names = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, char) in list.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(name(&list[start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(name(&list[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The lines on which `what` stands as a whole: no word continues before it, nor behind it if it ends in a letter.
fn lines_with(code: &str, what: &str) -> Vec<usize> {
    let starts_word = what.starts_with(is_word);
    let ends_word = what.ends_with(is_word);
    code.match_indices(what)
        .filter(|(at, _)| {
            let before = code[..*at].chars().next_back();
            let behind = code[at + what.len()..].chars().next();
            let goes_on = (starts_word && before.is_some_and(is_word)) || (ends_word && behind.is_some_and(is_word));
            // `crate::bytes::x` is a module of ours, not the crate.
            let is_inside_path = what.ends_with("::") && code[..*at].ends_with("::");
            !goes_on && !is_inside_path
        })
        .map(|(at, _)| code[..at].matches('\n').count() + 1)
        .collect()
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

fn declared_modules() -> Vec<String> {
    let lib = blank(&read("src/lib.rs"));
    let modules: Vec<String> = lib
        .lines()
        .filter_map(|line| {
            line.trim().trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned)
        })
        .collect();
    assert!(modules.len() > 10, "src/lib.rs was not understood: {modules:?}");
    modules
}

/// Every file of `src/` that is not a test.
fn library() -> &'static [Source] {
    static LIBRARY: LazyLock<Vec<Source>> = LazyLock::new(|| {
        let all: Vec<Source> = rust_files().into_iter().filter(|source| source.path.starts_with("src/")).collect();
        let tests: BTreeSet<String> = all.iter().flat_map(test_files).collect();
        all.into_iter().filter(|source| !tests.contains(&source.path)).collect()
    });
    &LIBRARY
}

/// The files that `source` declares for tests alone: `#[cfg(test)] mod x;`.
fn test_files(source: &Source) -> Vec<String> {
    let folder = source.path.trim_end_matches(".rs").trim_end_matches("/mod").trim_end_matches("/lib").to_owned();
    let code = blank(&source.text);
    let behind = code.split("#[cfg(test)]").skip(1);
    behind
        .filter_map(|rest| {
            rest.trim_start()
                .trim_start_matches("pub ")
                .strip_prefix("mod ")?
                .split_once(['{', ';'])
                .map(|it| (it, rest))
        })
        .filter(|((name, _), rest)| rest.find(';') < rest.find('{').or(Some(usize::MAX)) && !name.contains(' '))
        .map(|((name, _), _)| format!("{folder}/{name}.rs"))
        .collect()
}

fn rust_files() -> Vec<Source> {
    let sources: Vec<Source> = files()
        .into_iter()
        .filter(|path| extension(path) == "rs")
        .map(|path| {
            let text = read(&path);
            let code = without_tests(&blank(&text));
            Source { path, text, code }
        })
        .collect();
    assert!(sources.len() > 50, "only {} files were found below {}", sources.len(), root().display());
    sources
}

/// Every text file of the repository but what .gitignore names, as paths from its root.
fn files() -> Vec<String> {
    let ignored: Vec<String> = read(".gitignore").lines().map(|line| line.trim_matches('/').to_owned()).collect();
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let is_ignored = |pattern: &String| match pattern.strip_prefix('*') {
                Some(suffix) => name.ends_with(suffix),
                None => *pattern == name,
            };
            if name == ".git" || ignored.iter().any(is_ignored) {
                continue;
            }
            let path = folder.join(&name);
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if fs::read_to_string(root().join(&path)).is_ok() {
                found.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    found.sort_unstable();
    found
}

fn extension(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()).map_or("", |(_, extension)| extension)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path} could not be read: {error}"))
}

fn section<'t>(toml: &'t str, heading: &str) -> &'t str {
    let below = toml.split_once(heading).map_or("", |(_, below)| below);
    below.split("\n[").next().unwrap_or_default()
}

fn complain(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

// ---- blanking -------------------------------------------------------------------------------------------------------

/// The code with comments and the insides of literals as blanks; lines stay where they are.
fn blank(text: &str) -> String {
    blank_kinds(text, true)
}

fn blank_comments(text: &str) -> String {
    blank_kinds(text, false)
}

fn blank_kinds(text: &str, literals: bool) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        let comment = comment_len(rest);
        let literal = if code.ends_with(is_word) { 0 } else { literal_len(rest) };
        let length = comment.max(literal);
        if length == 0 {
            code.push(char);
            rest = &rest[char.len_utf8()..];
            continue;
        }
        let (part, behind) = rest.split_at(length);
        if literal > 0 && !literals {
            code.push_str(part);
        } else {
            code.extend(part.chars().map(|char| if char == '\n' { '\n' } else { ' ' }));
        }
        rest = behind;
    }
    code
}

fn comment_len(rest: &str) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if !rest.starts_with("/*") {
        return 0;
    }
    rest.find("*/").map_or(rest.len(), |at| at + 2)
}

/// Bytes of the text or character literal that `rest` starts with; 0 for anything else, lifetimes included.
fn literal_len(rest: &str) -> usize {
    let body = rest.trim_start_matches(['b', 'c']);
    let prefix = rest.len() - body.len();
    if prefix > 1 {
        return 0;
    }
    if let Some(raw) = body.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if !raw[hashes..].starts_with('"') {
            return 0;
        }
        let end = format!("\"{}", "#".repeat(hashes));
        let start = prefix + 1 + hashes + 1;
        return rest[start..].find(&end).map_or(rest.len(), |at| start + at + end.len());
    }
    let quote = match body.chars().next() {
        Some(quote @ ('"' | '\'')) => quote,
        _ => return 0,
    };
    let mut chars = body.char_indices().skip(1);
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => {
                chars.next();
            }
            _ if char == quote => return prefix + at + 1,
            // A character's quote closes at once; otherwise it was a lifetime's.
            _ if quote == '\'' && !body[at + char.len_utf8()..].starts_with('\'') && !body[1..].starts_with('\\') => {
                return 0;
            }
            _ => {}
        }
    }
    rest.len()
}

/// `blanked` without the items under `#[cfg(test)]`.
fn without_tests(blanked: &str) -> String {
    let mark = "#[cfg(test)]";
    let mut code = String::with_capacity(blanked.len());
    let mut rest = blanked;
    while let Some(at) = rest.find(mark) {
        code.push_str(&rest[..at]);
        let length = mark.len() + item_len(&rest[at + mark.len()..]);
        let (item, behind) = rest[at..].split_at(length);
        code.extend(item.chars().map(|char| if char == '\n' { '\n' } else { ' ' }));
        rest = behind;
    }
    code.push_str(rest);
    code
}

/// Up to the `;` or the closing brace of the item that `blanked` starts with.
fn item_len(blanked: &str) -> usize {
    let mut depth = 0;
    for (at, char) in blanked.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    blanked.len()
}

#[test]
fn blanking_knows_code_from_prose() {
    for (text, expected) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b\nc */ d", "a     \n     d"),
        ("f(\"x // y\") g", "f(        ) g"),
        (r#"f(r"x\") g"#, "f(     ) g"),
        ("f(r#\"a \" b\"#) g", "f(          ) g"),
        ("f(b\"x\\\"y\") g", "f(       ) g"),
        ("f('\\'', 'x', \"'\") g", "f(    ,    ,    ) g"),
        ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
        ("for b in bytes { r }", "for b in bytes { r }"),
    ] {
        assert_eq!(blank(text), expected, "{text}");
    }
    let code = "a\n#[cfg(test)]\nmod tests {\n    { x }\n}\nb\n#[cfg(test)]\nmod fake;\nc";
    let left: Vec<String> = without_tests(code).split_whitespace().map(str::to_owned).collect();
    assert_eq!(left, ["a", "b", "c"]);
    assert_eq!(names_behind("{a::b, c::{d, e}, f};"), ["a", "c", "f"]);
    assert_eq!(names_behind("{self}"), ["self"]);
    assert_eq!(lines_with("x\nmy_bytes::f\nbytes::g\ncrate::bytes::h", "bytes::"), [3]);
}
