//! The whole way from texts to settings: every slip and what is said of it, which source wins, who may listen where.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::auth::Mode;
use crate::auth::rights::Verb;

/// More than 32 bytes, so that no note speaks of it.
const SECRET: &str = "canary-canary-canary-canary-canary";

fn build(file: &str, env: &[(&str, &str)], flags: &Flags) -> Result<Settings, ConfigError> {
    let flags = Flags { config: Some(PathBuf::from("c.toml")), ..flags.clone() };
    let env = env.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    Settings::build(&flags, env, |path| match path.to_str() {
        Some("c.toml") => Ok(file.to_owned()),
        Some("secret.txt") => Ok(format!("{SECRET}\n")),
        _ => Err(io::ErrorKind::NotFound.into()),
    })
}

fn from_file(file: &str) -> Result<Settings, ConfigError> {
    build(file, &[], &Flags::default())
}

fn from_env(env: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    build("", env, &Flags::default())
}

fn addresses(settings: &Settings) -> Vec<String> {
    let listeners = settings.listeners.iter();
    listeners.map(|listen| listen.address.to_string()).collect()
}

#[test]
fn without_a_word_it_is_a_debug_server_on_loopback() {
    let settings =
        Settings::build(&Flags::default(), std::iter::empty(), |_| Err(io::ErrorKind::NotFound.into())).unwrap();
    assert_eq!(addresses(&settings), ["127.0.0.1:8080"]);
    assert_eq!(settings.listeners[0].dialects, Name::ALL);
    assert_eq!(settings.store.path, Path::new("commitcast-data"));
    assert_eq!(settings.store.durability, Durability::Full);
    assert_eq!(settings.store.readers, 2);
    assert_eq!(settings.drain.window, Duration::from_secs(20));
    assert_eq!(settings.drain.timeout, Duration::from_secs(30));
    assert_eq!(settings.live.limits, Limits::default());
    assert_eq!(settings.live.deflate, DeflateSettings { enabled: false, threshold: 256, level: 1 });
    assert!(settings.live.trusted.is_empty());
    assert!((1..=crate::limits::REACTORS_MAX).contains(&settings.reactors));
    assert!(settings.notes.is_empty(), "{:?}", settings.notes);
    for name in Name::ALL {
        assert_eq!(settings.policy(name).mode, Mode::Debug);
        assert!(settings.origins(name).allows_all());
        assert_eq!(settings.refuse(name), Style::Http);
    }
}

/// DESIGN.md section 9.
const SAMPLE: &str = r#"
[[listen]]
address  = "127.0.0.1:8080"
dialects = ["documents", "workflows", "tickets", "agents", "native"]   # absent: all

[store]
path = "commitcast-data"            # or url = "postgres://..."
durability = "full"                 # or "normal"

[auth]
mode = "debug"                      # "token", "open"
hs256_secret = "canary-canary-canary-canary-canary"
api_keys = [{ name = "backend", key = "canary-key", rights = ["publish:*", "tasks:*"] }]
query_token = true
require_exp = false

[origins]
allow = ["http://localhost:5173", "https://*.example.com"]     # "*" allows all
absent = "allow"                    # "deny"

[refuse]
style = "http"                      # or "close"
[refuse.documents]
style = "close"

[proxy]
trusted = ["127.0.0.1/32", "::1/128"]
[documents]
directories = ["prompts"]
[agents]
auto_create_sessions = false        # debug mode only

[rooms]
keep = [{ room = "topic:*", events = 100 }, { room = "doc:*", span = "30d" }, { room = "*", events = 10000 }]
[limits]
message = "1MiB"
[drain]
window = "20s"
timeout = "30s"
"#;

#[test]
fn the_sample_of_the_design_is_understood() {
    let settings = from_file(SAMPLE).unwrap();
    let live = &settings.live;
    assert_eq!(live.refuse(Name::Documents), Style::Close);
    assert_eq!(live.refuse(Name::Native), Style::Http);
    assert_eq!(live.trusted.len(), 2);
    assert_eq!(settings.documents.directories, ["prompts"]);
    assert!(!settings.origins(Name::Native).allows_all());
    let policy = settings.policy(Name::Documents);
    assert_eq!(policy.api_keys.len(), 1);
    assert!(policy.query_token && !policy.keys.is_empty());
    let defaults = from_file("").unwrap();
    assert_eq!(live.retention, defaults.live.retention);
    assert_eq!(live.limits, defaults.live.limits);
    assert_eq!(settings.drain, defaults.drain);
}

#[test]
fn every_slip_is_told_with_its_line_and_what_was_meant() {
    for (file, expected) in [
        // Syntax.
        ("[auth]\nmode = ", "c.toml:2: "),
        ("[auth]\n\nmode = 'debug'\nmode = 'open'", "c.toml:4: duplicate key"),
        ("reactors = 99999999999999999999", "c.toml:1: this number is too large"),
        // Keys.
        ("[auth]\nmod = 'debug'", "c.toml:2: unknown key `mod` in [auth]; did you mean `mode`?"),
        ("\n[orgins]\nallow = []", "c.toml:2: unknown key `orgins`; did you mean `origins`?"),
        ("[deflate]\nenable = true", "c.toml:2: unknown key `enable` in [deflate]; did you mean `enabled`?"),
        ("[deflat]\nenabled = true", "c.toml:1: unknown key `deflat`; did you mean `deflate`?"),
        ("[deflate]\nthreshold = '17MiB'", "c.toml:2: `threshold` must be at most 16MiB, the longest message there is"),
        (
            "[deflate]\nlevel = 0",
            "c.toml:2: `level` must be between 1 (fast) and 9 (thorough); to send nothing compressed, set `enabled` to false",
        ),
        (
            "[deflate]\nenabled = false\nlevel = 10",
            "c.toml:3: `level` must be between 1 (fast) and 9 (thorough); to send nothing compressed, set `enabled` to false",
        ),
        ("[auth]\nzebra = 1", "c.toml:2: unknown key `zebra` in [auth]"),
        ("[auth.document]\nmode = 'open'", "c.toml:1: unknown key `document` in [auth]; did you mean `documents`?"),
        ("[auth.documents]\nmoed = 'open'", "c.toml:2: unknown key `moed` in [auth.documents]; did you mean `mode`?"),
        ("[auth.documents]\nhs256_secret = 'x'", "c.toml:2: unknown key `hs256_secret` in [auth.documents]"),
        (
            "[[listen]]\naddress = '127.0.0.1:1'\ndialect = []",
            "c.toml:3: unknown key `dialect` in [listen.0]; did you mean `dialects`?",
        ),
        ("[[listen]]\ndialects = ['native']", "c.toml:1: `listen` lacks `address`"),
        (
            "[rooms]\nkeep = [\n {room='a', events=1},\n {room='b', event=1}]",
            "c.toml:4: unknown key `event` in [rooms.keep.1]; did you mean `events`?",
        ),
        // Types.
        ("[store]\nreaders = 'two'", "c.toml:2: `readers` must be a whole number, not a string"),
        ("[store]\nreaders = -1", "c.toml:2: `readers` must not be negative"),
        ("[store]\nreaders = 1.5", "c.toml:2: `readers` must be a whole number, not a float"),
        ("[auth]\nquery_token = 'yes'", "c.toml:2: `query_token` must be a boolean, not a string"),
        ("[auth]\nhs256_secret = 12345", "c.toml:2: `hs256_secret` must be a string, not an integer"),
        ("[origins]\nallow = 'x'", "c.toml:2: `allow` must be a sequence, not a string"),
        ("[origins]\nallow = [\n'*',\n 5]", "c.toml:4: `allow` must be a string, not an integer"),
        ("auth = 5", "c.toml:1: `auth` must be a table: [auth], not an integer"),
        ("[drain]\nwindow = 2025-01-01", "c.toml:2: `window` must be a string, not something else"),
        // Choices.
        ("[auth]\nmode = 'tokn'", "c.toml:2: `mode` must be one of debug, token, open; did you mean `token`?"),
        ("[auth]\nmode = 7", "c.toml:2: `mode` must be one of debug, token, open"),
        ("[store]\ndurability = 'fast'", "c.toml:2: `durability` must be one of full, normal"),
        ("[refuse.native]\nstyle = 'htp'", "c.toml:2: `style` must be one of http, close; did you mean `http`?"),
        (
            "[[listen]]\naddress='127.0.0.1:1'\ndialects = ['docs']",
            "c.toml:3: `dialects` `docs` is not a dialect (documents, workflows, tickets, agents, native)",
        ),
        ("[[listen]]\naddress='127.0.0.1:1'\ndialects = ['documets']", "; did you mean `documents`?"),
        // Units.
        ("[drain]\nwindow = '20 parsecs'", "c.toml:2: `window` `20 parsecs` is not a span of time"),
        ("[limits]\nmessage = '1MB'", "c.toml:2: `message` `1MB` is not a size"),
        ("[limits]\nmessage = '17MiB'", "c.toml:2: `message` must be between 1KiB and 16MiB"),
        ("[limits]\nmessage = 1000", "c.toml:2: `message` must be between 1KiB and 16MiB"),
        ("[limits]\nfragments = 0", "c.toml:2: `fragments` must be between 1 and"),
        ("[limits]\nrooms = 0", "c.toml:2: `rooms` must be between 1 and 4096"),
        ("[limits]\nrooms = 4097", "c.toml:2: `rooms` must be between 1 and 4096"),
        ("[agents]\npong = 'yes'", "c.toml:2: `pong` must be a boolean, not a string"),
        ("[agents]\nauto_create = true", "c.toml:2: unknown key `auto_create` in [agents]"),
        ("[refuse.ticket]\nstyle = 'http'", "did you mean `tickets`?"),
        ("[origins.workflow]\nallow = []", "did you mean `workflows`?"),
        ("[auth.agent]\nmode = 'open'", "did you mean `agents`?"),
        ("[limits]\nbytes_per_second = '5GiB'", "c.toml:2: `bytes_per_second` must be between 0 and"),
        ("[limits]\nconnections = 99999999999", "c.toml:2: `connections` must be at most"),
        ("[limits]\nstall = '0s'", "c.toml:2: `stall` must be more than 0s"),
        ("[limits]\nping = '25h'", "c.toml:2: `ping` must be more than 0s and at most 24h"),
        ("[drain]\nwindow = '31s'", "c.toml:2: `window` is longer than"),
        ("[store]\nreaders = 0", "c.toml:2: `readers` must be between 1 and"),
        ("reactors = 65", "c.toml:1: `reactors` must be between 1 and 64"),
        ("reactors = 0", "c.toml:1: `reactors` must be between 1 and 64"),
        // Addresses and origins.
        ("[[listen]]\naddress='localhost:80'", "c.toml:2: `address` `localhost:80` is not an address"),
        (
            "[[listen]]\naddress='127.0.0.1:80'\n[[listen]]\naddress='127.0.0.1:80'",
            "c.toml:4: 127.0.0.1:80 is listened on twice",
        ),
        ("listen = []", "c.toml:1: `listen` is empty"),
        ("[[listen]]\naddress='127.0.0.1:80'\ndialects=[]", "c.toml:3: `dialects` is empty"),
        ("[origins]\nallow = [\n'https://a.example',\n'a.example']", "c.toml:4: origin \"a.example\""),
        ("[origins.native]\nallow = ['ftp']", "c.toml:2: origin \"ftp\""),
        ("[proxy]\ntrusted = ['10.0.0.0/33']", "c.toml:2: `trusted` `10.0.0.0/33` is not a network"),
        // The store.
        ("[store]\nurl = 'postgres://u:canary@h/d'", "c.toml:2: PostgreSQL is not in this version"),
        ("[store]\nurl = 'mysql://u:canary@h/d'", "c.toml:2: this is not a store's url"),
        ("[store]\npath = 'a'\nurl = 'sqlite:b'", "c.toml:3: `path` and `url` are both set"),
        ("[store]\npath = ''", "c.toml:2: the store's directory is empty"),
        // Keys and rights.
        (
            "[auth]\nhs256_secret = '(set)'",
            "c.toml:2: `hs256_secret` holds what is shown in a secret's place, not the secret",
        ),
        ("[auth]\nhs256_secret = ''", "c.toml:2: `hs256_secret`: the secret is empty"),
        ("[auth]\nkeys = [{ algorithm = 'none', path = 'secret.txt' }]", "c.toml:2: `none` is not an algorithm"),
        ("[auth]\nkeys = [{ algorithm = 'HS256', path = 'gone' }]", "c.toml:2: gone could not be read"),
        ("[auth]\nkeys = [{ algorithm = 'HS256' }]", "c.toml:2: this key needs `path` or `pem`"),
        ("[auth]\nkeys = [{ algorithm = 'RS256', pem = 'canary' }]", "c.toml:2: this key cannot be used"),
        (
            "[auth]\nkeys = [{ kid = 'a', algorithm = 'HS256', path = 'secret.txt', pem = 'canary' }]",
            "c.toml:2: `path` and `pem` are both set",
        ),
        ("[auth]\napi_keys = [{ name = 'a', key = '', rights = [] }]", "c.toml:2: API key `a` is empty"),
        ("[auth]\napi_keys = [{ name = '', key = 'canary', rights = [] }]", "c.toml:2: an API key needs a name"),
        (
            "[auth]\napi_keys = [{ name = 'a', key = 'canary', rights = ['write:x'] }]",
            "c.toml:2: `write:x` is not a right",
        ),
        (
            "[auth]\napi_keys = [{ name = 'a', key = 'canary', rights = ['tasks:exceute'] }]",
            "c.toml:2: `tasks:exceute` is not a right",
        ),
        (
            "[auth]\napi_keys = [\n{ name = 'a', key = '1', rights = [] },\n{ name = 'a', key = '2', rights = [] }]",
            "c.toml:4: two API keys are named `a`",
        ),
        (
            "[auth]\napi_keys = [\n{ name = 'a', key = '1', rights = [] },\n{ name = 'b', key = '1', rights = [] }]",
            "c.toml:4: API key `b` is another one's too",
        ),
        (
            "[auth]\napi_keys = ['canary']",
            "c.toml:2: `api_keys` must be a table with `name`, `key` and `rights`, not a string",
        ),
        ("[auth.default_rights]\n'doc:*' = ['raed']", "c.toml:1: `default_rights`: a verb is none of"),
        ("[auth]\nuser_header = 'X-User'", "c.toml:2: `user_header` is believed from trusted proxies only"),
        (
            "[auth]\nmode = 'open'\n[auth.native]\n\nuser_header = 'X-User'",
            "c.toml:5: `user_header` is believed from trusted proxies only",
        ),
        ("[auth]\ncookie = 'a b'", "c.toml:2: `cookie` must be a name of letters"),
        // Rooms and documents.
        ("[rooms]\nkeep = [{ room = 'a' }]", "c.toml:2: the rule for `a` needs `events` or `span`"),
        ("[rooms]\nkeep = [{ room = 'a*b', events = 1 }]", "c.toml:2: the rule for `a*b` has a `*` before its end"),
        ("[rooms]\nkeep = [{ room = '', events = 1 }]", "c.toml:2: the rule for `` names no room"),
        ("[rooms]\nkeep = [{ room = 'a', events = 0 }]", "c.toml:2: the rule for `a` would keep nothing"),
        (
            "[rooms]\nkeep = [\n{ room = '*', events = 1 },\n{ room = 'doc:*', events = 2 }]",
            "c.toml:4: the rule for `doc:*` is never reached: `*` stands before it",
        ),
        ("[documents]\ndirectories = ['a/../b']", "c.toml:2: directory `a/../b` holds `..`"),
        ("[documents]\ndirectories = ['./']", "c.toml:2: directory `./` names no directory"),
        ("[documents]\ndirectories = ['a',\n './a/']", "c.toml:3: directory `a` is there twice"),
        ("[log]\nlevel = 'loud'", "c.toml:2: `loud` is not a log level"),
        // The safety rule.
        (
            "[[listen]]\naddress = '0.0.0.0:80'",
            "c.toml:2: auth.mode is not set, and 0.0.0.0:80 is not a loopback address",
        ),
        ("[[listen]]\naddress = '0.0.0.0:80'\n[auth]\nmode = 'debug'", "c.toml:4: debug mode lets everybody in"),
        ("[auth]\nmode = 'token'", "c.toml:2: token mode has no key"),
        ("[auth.native]\nmode = 'token'", "c.toml:2: token mode has no key"),
    ] {
        let error = from_file(file).expect_err(file).to_string();
        assert!(error.contains(expected), "{file}\n  got: {error}\n  not: {expected}");
        assert!(!error.contains("canary"), "{error}");
    }
}

#[test]
fn several_slips_are_told_at_once_in_the_order_of_the_file() {
    let file =
        "[store]\nreaders = 'x'\n[auth]\nmod = 1\nmode = 'opn'\n[auth.native]\ncooky = 'c'\n[drain]\nwindow = 'w'\n";
    let error = from_file(file).unwrap_err();
    let lines: Vec<usize> = error
        .problems
        .iter()
        .filter_map(|problem| match &problem.place {
            Place::File { line, .. } => Some(*line),
            _ => None,
        })
        .collect();
    assert_eq!(lines, [2, 4, 5, 7, 9]);
    let file = "[limits]\nstall = '0s'\nmessage = 1\n[drain]\nwindow = '1h'\n";
    assert_eq!(from_file(file).unwrap_err().problems.len(), 3);
}

#[test]
fn a_file_that_cannot_be_read_says_which() {
    let flags = Flags { config: Some(PathBuf::from("gone.toml")), ..Flags::default() };
    let error = Settings::build(&flags, std::iter::empty(), |_| Err(io::ErrorKind::NotFound.into()));
    let error = error.unwrap_err().to_string();
    assert!(error.starts_with("--config: gone.toml could not be read"), "{error}");
}

#[test]
fn variables_and_flags_are_told_by_name() {
    for (env, expected) in [
        (
            ("COMMITCAST_AUTH__MOD", "x"),
            "COMMITCAST_AUTH__MOD: unknown variable; did you mean `COMMITCAST_AUTH__MODE`?",
        ),
        (("COMMITCAST_ATUH__MODE", "x"), "did you mean `COMMITCAST_AUTH__MODE`?"),
        (("COMMITCAST_AUTH_MODE", "x"), "did you mean `COMMITCAST_AUTH__MODE`?"),
        (("COMMITCAST_REFUSE__DOCUMENT__STYLE", "x"), "did you mean `COMMITCAST_REFUSE__DOCUMENTS__STYLE`?"),
        (("COMMITCAST_ZEBRA", "x"), "COMMITCAST_ZEBRA: unknown variable"),
        (("COMMITCAST_AUTH__", "x"), "COMMITCAST_AUTH__: unknown variable"),
        (("COMMITCAST_", "x"), "COMMITCAST_: unknown variable"),
        (("COMMITCAST_AUTH__MODE", "tokn"), "COMMITCAST_AUTH__MODE: `mode` must be one of"),
        (("COMMITCAST_AUTH__MODE", "token"), "COMMITCAST_AUTH__MODE: token mode has no key"),
        (("COMMITCAST_STORE__READERS", "many"), "COMMITCAST_STORE__READERS: `readers` must be a whole number"),
        (("COMMITCAST_AUTH__QUERY_TOKEN", "yes"), "must be true or false"),
        (("COMMITCAST_STORE", "postgres://canary"), "COMMITCAST_STORE: `store` must be a table: [store], not a string"),
        (("COMMITCAST_LISTEN", "localhost:1"), "COMMITCAST_LISTEN: `address` `localhost:1` is not an address"),
        (("COMMITCAST_LISTEN", ""), "COMMITCAST_LISTEN: `listen` is empty"),
        (("COMMITCAST_LISTEN", "0.0.0.0:1"), "COMMITCAST_LISTEN: auth.mode is not set"),
        (("COMMITCAST_LOG", "loud"), "COMMITCAST_LOG: `loud` is not a log level"),
    ] {
        let error = from_env(&[env]).expect_err(env.0).to_string();
        assert!(error.contains(expected), "{env:?}\n  got: {error}");
        assert!(!error.contains("canary"), "{error}");
    }
    for (flags, expected) in [
        (Flags { listen: vec!["x".to_owned()], ..Flags::default() }, "--listen: `address` `x` is not an address"),
        (
            Flags { listen: vec!["127.0.0.1:1=doc".to_owned()], ..Flags::default() },
            "--listen: `dialects` `doc` is not a dialect",
        ),
        (
            Flags { store: Some("postgres://canary".to_owned()), ..Flags::default() },
            "--store: PostgreSQL is not in this version",
        ),
        (Flags { reactors: Some(0), ..Flags::default() }, "--reactors: `reactors` must be between"),
        (
            Flags { log_format: Some("xml".to_owned()), ..Flags::default() },
            "--log-format: `format` must be one of text, json",
        ),
        (
            Flags { listen: vec!["0.0.0.0:1".to_owned()], debug: true, ..Flags::default() },
            "--debug: debug mode lets everybody in",
        ),
    ] {
        let error = build("", &[], &flags).unwrap_err().to_string();
        assert!(error.contains(expected), "got: {error}\nnot: {expected}");
        assert!(!error.contains("canary"), "{error}");
    }
}

#[test]
fn later_sources_win_key_by_key() {
    let file = "reactors = 1\n[[listen]]\naddress='127.0.0.1:1'\n[store]\npath='file'\nreaders=3\n[log]\nlevel='warn'\n[auth.native]\nmode='open'\n[origins]\nallow=['https://a.example']";
    let env = [
        ("COMMITCAST_LISTEN", "127.0.0.1:2=documents,native, 127.0.0.1:3=native,[::1]:4"),
        ("COMMITCAST_STORE__PATH", "env"),
        ("COMMITCAST_ORIGINS__ALLOW", "https://b.example, https://c.example"),
        ("COMMITCAST_AUTH__QUERY_TOKEN", "false"),
        ("COMMITCAST_LIMITS__MESSAGE", "2MiB"),
        ("COMMITCAST_AUTH__NATIVE__COOKIE", "sid"),
        ("COMMITCAST_LOG", "debug"),
        ("PATH", "/bin"),
    ];
    let settings = build(file, &env, &Flags::default()).unwrap();
    assert_eq!(addresses(&settings), ["127.0.0.1:2", "127.0.0.1:3", "[::1]:4"]);
    assert_eq!(settings.listeners[1].dialects, [Name::Native]);
    assert_eq!(settings.listeners[2].dialects, Name::ALL);
    assert_eq!(settings.store.path, Path::new("env"));
    assert_eq!(settings.store.readers, 3);
    assert_eq!(settings.reactors, 1);
    assert_eq!(settings.live.limits.message, 2 << 20);
    assert_eq!(settings.log.filter.to_string(), "debug");
    assert_eq!(settings.policy(Name::Native).mode, Mode::Open);
    assert_eq!(settings.policy(Name::Native).cookie.as_deref(), Some("sid"));
    assert_eq!(settings.policy(Name::Documents).cookie, None);
    assert!(!settings.policy(Name::Documents).query_token);
    let origins = settings.origins(Name::Documents);
    for (origin, allowed) in [("https://a.example", false), ("https://c.example", true)] {
        let checked = origins.check(std::iter::once(origin), false);
        assert_eq!(checked.is_ok(), allowed, "{origin}");
    }

    let flags = Flags {
        listen: vec!["127.0.0.1:9=native".to_owned()],
        data: Some(PathBuf::from("flag")),
        debug: true,
        reactors: Some(2),
        log_format: Some("json".to_owned()),
        log_level: Some("error".to_owned()),
        ..Flags::default()
    };
    let settings = build(file, &env, &flags).unwrap();
    assert_eq!(addresses(&settings), ["127.0.0.1:9"]);
    assert_eq!(settings.store.path, Path::new("flag"));
    assert_eq!(settings.policy(Name::Native).mode, Mode::Debug);
    assert_eq!(settings.reactors, 2);
    assert_eq!(settings.log.format, logging::Format::Json);
    assert_eq!(settings.log.filter.to_string(), "error");
}

#[test]
fn a_later_path_replaces_an_earlier_url_and_the_other_way_round() {
    let with_flags = |file, data: Option<&str>, store: Option<&str>| {
        let flags = Flags { data: data.map(PathBuf::from), store: store.map(str::to_owned), ..Flags::default() };
        build(file, &[], &flags).map(|settings| settings.store.path)
    };
    let url = "[store]\nurl = 'sqlite:a'";
    let path = "[store]\npath = 'a'";
    assert_eq!(with_flags(url, Some("b"), None), Ok(PathBuf::from("b")));
    assert_eq!(with_flags(path, None, Some("sqlite:b")), Ok(PathBuf::from("b")));
    assert_eq!(with_flags("", None, Some("sqlite:///b/c")), Ok(PathBuf::from("/b/c")));
    assert!(with_flags("", Some("a"), Some("sqlite:b")).is_err());
}

#[test]
fn what_kubernetes_says_of_a_service_of_our_name_is_not_for_us() {
    let settings = from_env(&[
        ("COMMITCAST_SERVICE_HOST", "10.0.0.1"),
        ("COMMITCAST_SERVICE_PORT", "8080"),
        ("COMMITCAST_SERVICE_PORT_HTTP", "8080"),
        ("COMMITCAST_PORT", "tcp://10.0.0.1:8080"),
        ("COMMITCAST_PORT_8080_TCP_ADDR", "10.0.0.1"),
    ]);
    assert_eq!(addresses(&settings.unwrap()), ["127.0.0.1:8080"]);
    assert!(from_env(&[("COMMITCAST_PORT", "8080")]).is_err());
}

#[test]
fn nobody_listens_beyond_loopback_without_saying_who_may_come_in() {
    let token = format!("mode = 'token'\nhs256_secret = '{SECRET}'");
    let each = Name::ALL.map(|name| format!("{}.mode = 'open'\n", name.as_str())).concat();
    for (listen, auth, starts) in [
        ("127.0.0.1:1", "", true),
        ("127.0.0.1:1", "mode = 'debug'", true),
        ("127.0.0.1:1", "mode = 'open'", true),
        ("127.0.0.1:1", &token, true),
        ("[::1]:1,127.0.0.1:1", "", true),
        ("0.0.0.0:1", "", false),
        ("0.0.0.0:1", "mode = 'debug'", false),
        ("0.0.0.0:1", "mode = 'open'", true),
        ("0.0.0.0:1", &token, true),
        ("0.0.0.0:1", "mode = 'token'", false),
        ("[::]:1", "", false),
        ("127.0.0.1:1,10.0.0.1:1", "", false),
        // A secret alone is not a mode.
        ("0.0.0.0:1", "hs256_secret = 'canary'", false),
        // One dialect's mode is not another's.
        ("0.0.0.0:1", "documents.mode = 'open'", false),
        ("0.0.0.0:1", "documents.mode = 'open'\nnative.mode = 'open'", false),
        ("0.0.0.0:1", &each, true),
        ("0.0.0.0:1=documents,native", "documents.mode = 'open'\nnative.mode = 'open'", true),
        ("0.0.0.0:1=documents", "documents.mode = 'open'", true),
        ("0.0.0.0:1=documents", "native.mode = 'open'", false),
        ("0.0.0.0:1", "mode = 'open'\nnative.mode = 'debug'", false),
        ("0.0.0.0:1=documents,127.0.0.1:2=native", "documents.mode = 'open'", false),
        ("0.0.0.0:1=documents,127.0.0.1:2=native", "documents.mode = 'open'\nnative.mode = 'debug'", false),
    ] {
        let file = format!("[auth]\n{auth}\n");
        let built = build(&file, &[("COMMITCAST_LISTEN", listen)], &Flags::default());
        assert_eq!(built.is_ok(), starts, "{listen} {auth} {built:?}");
    }
    // The flag is no way round it.
    let debug = Flags { debug: true, ..Flags::default() };
    let env = [("COMMITCAST_LISTEN", "0.0.0.0:1")];
    assert!(build("[auth]\nmode = 'open'", &env, &debug).is_err());
}

#[test]
fn a_reload_cannot_open_what_is_listened_on() {
    let open = from_file("[[listen]]\naddress='0.0.0.0:1'\n[auth]\nmode='open'").unwrap();
    let debug = from_file("[auth]\nmode='debug'").unwrap();
    assert!(open.reload(&debug).is_err());
    assert!(debug.reload(&open).is_ok());
    assert!(open.reload(&open).is_ok());
}

#[test]
fn sessions_out_of_nothing_are_for_debug_mode() {
    let made = "[agents]\nauto_create_sessions = true\npong = true\n";
    let debug = from_file(made).unwrap();
    assert!(debug.agents.auto_create_sessions && debug.agents.pong);
    let off = from_file("").unwrap();
    assert!(!off.agents.auto_create_sessions && !off.agents.pong);
    let secret = format!("hs256_secret = '{SECRET}'");
    for (auth, served, starts) in [
        ("[auth]\nmode = 'open'\n".to_owned(), "", false),
        (format!("[auth]\nmode = 'token'\n{secret}\n"), "", false),
        ("[auth.agents]\nmode = 'open'\n".to_owned(), "", false),
        ("[auth.documents]\nmode = 'open'\n".to_owned(), "", true),
        (format!("[auth]\nmode = 'token'\n{secret}\nagents.mode = 'debug'\n"), "", true),
        // Nobody can come for one.
        ("[auth]\nmode = 'open'\n".to_owned(), "=documents", true),
    ] {
        let listen = format!("127.0.0.1:1{served}");
        let built = build(&format!("{made}{auth}"), &[("COMMITCAST_LISTEN", &listen)], &Flags::default());
        assert_eq!(built.is_ok(), starts, "{auth}{served} {built:?}");
        if let Err(error) = built {
            let error = error.to_string();
            assert!(error.starts_with("c.toml:2: `auto_create_sessions` makes a session for whoever"), "{error}");
        }
    }
    // What is in effect until a restart keeps its mode until then.
    let open = from_file("[auth]\nmode = 'open'").unwrap();
    assert!(debug.reload(&open).is_err());
    assert!(off.reload(&open).is_ok());
    assert!(debug.reload(&off).is_ok());
}

#[test]
fn api_keys_alone_are_enough_for_backends() {
    let keys =
        "[auth]\nmode = 'token'\napi_keys = [{ name = 'w', key = 'canary', rights = ['tasks:*', 'publish:doc:*'] }]\n";
    let listening = |at: &str| build(keys, &[("COMMITCAST_LISTEN", at)], &Flags::default());
    let settings = listening("127.0.0.1:1=native").unwrap();
    assert_eq!(settings.policy(Name::Native).api_keys.len(), 1);
    let alone = |settings: &Settings| {
        settings.notes.iter().filter(|note| note.contains("auth.api_keys alone lets backends in")).count()
    };
    assert_eq!(alone(&settings), 1, "{:?}", settings.notes);
    assert_eq!(alone(&listening("127.0.0.1:1").unwrap()), Name::ALL.len());
    // Where backends do not come in either, nobody does.
    let error = listening("127.0.0.1:1=documents").unwrap_err().to_string();
    assert!(error.contains("token mode has no key to check tokens with"), "{error}");
    let both = format!("{keys}hs256_secret = '{SECRET}'\n");
    assert_eq!(alone(&from_file(&both).unwrap()), 0);
}

#[test]
fn a_door_without_keys_is_spoken_of_where_anybody_may_knock() {
    let everybody = |file: &str| {
        let settings = from_file(file).unwrap();
        settings.notes.iter().filter(|note| note.contains("lets everybody be a backend")).count()
    };
    let key = "api_keys = [{ name = 'w', key = 'canary', rights = ['*'] }]\n";
    assert_eq!(everybody(""), 0);
    assert_eq!(everybody("[auth]\nmode = 'open'\n"), 1);
    assert_eq!(everybody(&format!("[auth]\nmode = 'open'\n{key}")), 0);
    assert_eq!(everybody("[[listen]]\naddress = '127.0.0.1:1'\ndialects = ['documents']\n[auth]\nmode = 'open'\n"), 0);
}

#[test]
fn each_dialect_has_tables_of_its_own() {
    let file: String = Name::ALL
        .map(|name| {
            let name = name.as_str();
            format!("[auth.{name}]\ncookie = 'c-{name}'\n[origins.{name}]\nallow = ['https://{name}.example']\n[refuse.{name}]\nstyle = 'close'\n")
        })
        .concat();
    let settings = from_file(&file).unwrap();
    for name in Name::ALL {
        assert_eq!(settings.policy(name).cookie, Some(format!("c-{}", name.as_str())));
        assert_eq!(settings.refuse(name), Style::Close);
        for other in Name::ALL {
            let origin = format!("https://{}.example", other.as_str());
            let allowed = settings.origins(name).check(std::iter::once(origin.as_str()), false).is_ok();
            assert_eq!(allowed, name == other, "{name:?} {origin}");
        }
    }
    let again = from_file(&settings.describe()).unwrap();
    assert_eq!(again.describe(), settings.describe());
}

#[test]
fn what_needs_a_restart_is_named() {
    let base = from_file("reactors = 1").unwrap();
    for (file, expected) in [
        ("reactors = 1", &[][..]),
        (
            "reactors = 1\n[limits]\nping='9s'\n[origins]\nallow=[]\n[auth]\nmode='open'\n[rooms]\nkeep=[]\n[refuse]\nstyle='close'\n[proxy]\ntrusted=['::1']\n[deflate]\nenabled=true\nlevel=6",
            &[],
        ),
        ("reactors = 2\n[[listen]]\naddress='127.0.0.1:1'", &["listen", "reactors"]),
        (
            "reactors = 1\n[store]\npath='p'\nreaders=3\ndurability='normal'",
            &["store.path", "store.durability", "store.readers"],
        ),
        (
            "reactors = 1\n[documents]\ndirectories=['d']\n[agents]\npong=true\n[drain]\nwindow='1s'\n[log]\nlevel='warn'",
            &["documents.directories", "agents", "drain", "log"],
        ),
    ] {
        assert_eq!(base.needs_restart(&from_file(file).unwrap()), expected, "{file}");
    }
}

#[test]
fn token_mode_lets_no_page_in_that_nobody_named() {
    let file = format!("[auth]\nnative.mode = 'token'\ndocuments.mode = 'open'\nhs256_secret = '{SECRET}'\n");
    let settings = from_file(&file).unwrap();
    let page = || std::iter::once("https://a.example");
    assert!(settings.origins(Name::Documents).check(page(), false).is_ok());
    assert!(settings.origins(Name::Native).check(page(), false).is_err());
    assert!(settings.origins(Name::Native).check(std::iter::empty(), false).is_ok());
    assert!(settings.notes.iter().any(|note| note.starts_with("native: ")), "{:?}", settings.notes);
    let named = from_file(&format!("{file}[origins.native]\nallow = ['https://a.example']\nabsent = 'deny'")).unwrap();
    assert!(named.origins(Name::Native).check(page(), false).is_ok());
    assert!(named.origins(Name::Native).check(std::iter::empty(), false).is_err());
    assert!(named.notes.is_empty(), "{:?}", named.notes);
}

#[test]
fn keys_and_rights_reach_the_policy() {
    let file = "[auth]\nmode='token'\nkeys=[{kid='a', algorithm='HS256', path='secret.txt'},{kid='b', algorithm='HS512', path='secret.txt'}]\naudience='us'\nissuer=['x','y']\nuser_header='X-User'\n[auth.default_rights]\n'doc:*'=['read']\n[auth.native.default_rights]\n'doc:*'=['read','write']\n[proxy]\ntrusted=['10.0.0.0/8']\n[origins]\nallow=[]";
    let settings = from_file(file).unwrap();
    let policy = settings.policy(Name::Documents);
    assert!(!policy.keys.is_empty());
    assert_eq!(policy.user_header.as_deref(), Some("x-user"));
    assert!(policy.default_rights.allows("doc:a", Verb::Read));
    assert!(!policy.default_rights.allows("doc:a", Verb::Write));
    assert!(settings.policy(Name::Native).default_rights.allows("doc:a", Verb::Write));
}

#[test]
fn a_key_file_ends_where_its_secret_ends() {
    use crate::auth::token::{Mint, mint};
    use crate::clock::Wall;
    let file = "[auth]\nkeys=[{algorithm='HS256', path='secret.txt'}]";
    let now = Wall(1_700_000_000_000_000);
    let token = mint(SECRET.as_bytes(), &Mint { sub: "alice", ..Mint::default() }, now).unwrap();
    let settings = from_file(file).unwrap();
    assert!(settings.policy(Name::Native).keys.verify(&token, now).is_ok());
}

#[test]
fn the_description_is_a_configuration_that_means_the_same() {
    let file = "reactors = 3\n[[listen]]\naddress='127.0.0.1:7'\ndialects=['native']\n[store]\nurl='sqlite:x'\ndurability='normal'\n[documents]\ndirectories=['./prompts//sub/']\n[auth]\nmode='open'\ncookie='sid'\n[auth.native]\nquery_token=false\n[auth.documents.default_rights]\n'doc:*'=['read']\n[refuse.native]\nstyle='close'\n[rooms]\nkeep=[{room='a', span='1h 30m'}]\n[agents]\npong=true\n[limits]\nmessage='64KiB'\nconnections=7\nrooms=9\n[deflate]\nenabled=true\nthreshold=1000\nlevel=9\n[log]\nlevel='warn,commitcast::store=debug'\nformat='json'\n[proxy]\ntrusted=['10.1.2.3/8']";
    let settings = from_file(file).unwrap();
    assert_eq!(settings.documents.directories, ["prompts/sub"]);
    let text = settings.describe();
    let again = from_file(&text).unwrap_or_else(|error| panic!("{text}\n{error}"));
    assert_eq!(again.needs_restart(&settings), [""; 0], "{text}");
    assert_eq!(again.live.limits, settings.live.limits);
    assert_eq!(settings.live.deflate, DeflateSettings { enabled: true, threshold: 1000, level: 9 });
    assert_eq!(again.live.deflate, settings.live.deflate);
    assert_eq!(again.live.retention, settings.live.retention);
    assert_eq!(again.live.trusted, settings.live.trusted);
    for name in Name::ALL {
        assert_eq!(again.refuse(name), settings.refuse(name));
        assert_eq!(again.origins(name), settings.origins(name));
        assert_eq!(again.policy(name).mode, settings.policy(name).mode);
        assert_eq!(again.policy(name).cookie, settings.policy(name).cookie);
        assert_eq!(again.policy(name).query_token, settings.policy(name).query_token);
        assert_eq!(again.policy(name).default_rights, settings.policy(name).default_rights);
    }
    assert_eq!(again.describe(), text);
}

#[test]
fn secrets_are_never_shown() {
    let file = SAMPLE.replace("[auth]\n", "[auth]\nkeys = []\n");
    let settings = from_file(&file).unwrap();
    for text in [settings.describe(), format!("{settings:?}"), format!("{:?}", settings.raw)] {
        assert!(!text.contains("canary"), "{text}");
        assert!(text.contains("(set)"), "{text}");
    }
    let flags = Flags { store: Some("sqlite:canary".to_owned()), ..Flags::default() };
    assert!(!format!("{flags:?}").contains("canary"));
}
