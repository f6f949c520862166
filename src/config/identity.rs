//! Who may come in: modes, keys, rights and origins, checked together and built for each dialect.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;

use super::Listen;
use super::check::Report;
use super::raw::{self, Raw};
use super::safety::{self, Unsafe};
use crate::auth::origin::{Absent, Origins};
use crate::auth::rights::{Rights, fits};
use crate::auth::token::{Algorithm, KeyRing, Rules};
use crate::auth::{ApiKey, Mode, Policy, UserClaim};
use crate::dialect::Name;
use crate::limits::ROOM_NAME_BYTES_MAX;
use crate::model::TaskKind;

/// Bytes below which a secret can be found by trying (RFC 7518 3.2: as many as the hash has).
const SECRET_BYTES_ADVISED: usize = 32;
/// Bytes of a key's name in logs and of a header's or cookie's name.
const NAME_BYTES_MAX: usize = 128;

#[derive(Debug)]
pub struct Identity {
    pub policies: [Arc<Policy>; Name::ALL.len()],
    pub origins: [Arc<Origins>; Name::ALL.len()],
    pub trusted: Vec<IpNet>,
}

/// `None` when something is wrong that leaves nothing to build; it has been reported.
pub fn check(
    raw: &Raw,
    listeners: &[Listen],
    read_file: &dyn Fn(&Path) -> io::Result<String>,
    report: &mut Report<'_>,
) -> Option<Identity> {
    let before = report.problems.len();
    let trusted = raw.keys.proxy.trusted.iter().flatten();
    let trusted: Vec<IpNet> = trusted.map(|network| network.0).collect();
    let modes = modes(raw, listeners, report);
    // A mode that was refused has another in its place, which nobody wrote and nobody should be told off for.
    let modes_are_sound = report.problems.len() == before;
    let keys = key_ring(&raw.keys.auth, read_file, report);
    let api_keys = api_keys(&raw.keys.auth, report);
    // Their door is the native dialect's.
    let backends_come = !api_keys.is_empty() && listeners.iter().any(|listen| listen.dialects.contains(&Name::Native));
    let mut policies = Vec::new();
    let mut origins = Vec::new();
    for (name, mode) in Name::ALL.into_iter().zip(modes) {
        let served = listeners.iter().any(|listen| listen.dialects.contains(&name));
        let policy = policy(raw, name, mode, &keys, &api_keys, report);
        if modes_are_sound {
            check_credentials(raw, name, &policy, served, backends_come, report);
        }
        if name == Name::Native && served {
            note_open_backends(&policy, report);
        }
        if let Some(own) = self::origins(raw, name, &policy, served, report) {
            origins.push(Arc::new(own));
        }
        policies.push(Arc::new(policy));
    }
    if report.problems.len() > before {
        return None;
    }
    Some(Identity { policies: policies.try_into().ok()?, origins: origins.try_into().ok()?, trusted })
}

fn modes(raw: &Raw, listeners: &[Listen], report: &mut Report<'_>) -> [Mode; Name::ALL.len()] {
    let exposed = safety::exposed(listeners);
    let address = exposed.map(|listen| listen.address.to_string()).unwrap_or_default();
    let index = listeners.iter().position(|listen| Some(listen) == exposed);
    let listen = format!("listen.{}.address", index.unwrap_or_default());
    Name::ALL.map(|name| {
        let (written, mode_key) = written_mode(raw, name);
        let served = listeners.iter().any(|listen| listen.dialects.contains(&name));
        let fault = match safety::mode(written, served, exposed.is_some()) {
            Ok(mode) => return mode,
            Err(fault) => fault,
        };
        match fault {
            Unsafe::NotWritten => report.wrong(
                &listen,
                format!(
                    "auth.mode is not set, and {address} is not a loopback address: set auth.mode to \"token\" \
                     (with auth.hs256_secret or auth.keys), or to \"open\" to let everybody in, or listen on 127.0.0.1"
                ),
            ),
            Unsafe::DebugExposed => report.wrong(
                &mode_key,
                format!(
                    "debug mode lets everybody in, and {address} is not a loopback address: set `mode` to \"token\", \
                     or to \"open\" if everybody is meant to come in, or listen on 127.0.0.1"
                ),
            ),
        }
        Mode::Token
    })
}

/// The mode that holds for a dialect, and the key it was written at.
fn written_mode(raw: &Raw, name: Name) -> (Option<raw::Mode>, String) {
    match raw.auth.get(&name).and_then(|auth| auth.mode) {
        Some(mode) => (Some(mode), key(name, true, "mode")),
        None => (raw.keys.auth.mode, key(name, false, "mode")),
    }
}

fn key_ring(written: &raw::Auth, read_file: &dyn Fn(&Path) -> io::Result<String>, report: &mut Report<'_>) -> KeyRing {
    let words = |words: &Option<super::units::Words>| match words {
        Some(words) => words.0.clone(),
        None => Vec::new(),
    };
    let mut ring = KeyRing::new(Rules {
        require_exp: written.require_exp.unwrap_or(false),
        audience: words(&written.audience),
        issuer: words(&written.issuer),
    });
    if let Some(secret) = &written.hs256_secret {
        if let Err(error) = ring.add(None, Algorithm::Hs256, secret.0.as_bytes()) {
            report.wrong("auth.hs256_secret", format!("`hs256_secret`: {error}"));
        } else if secret.0.len() < SECRET_BYTES_ADVISED {
            report.note(format!(
                "auth.hs256_secret has fewer than {SECRET_BYTES_ADVISED} bytes: whoever has one token can try to guess it"
            ));
        }
    }
    for (index, key) in written.keys.iter().flatten().enumerate() {
        let path = format!("auth.keys.{index}");
        let Some(algorithm) = Algorithm::parse(&key.algorithm) else {
            let known = Algorithm::ALL.map(Algorithm::as_str).join(", ");
            report.wrong(&format!("{path}.algorithm"), format!("`{}` is not an algorithm ({known})", key.algorithm));
            continue;
        };
        let material = match key_material(key, read_file) {
            Ok(material) => material,
            Err(message) => {
                report.wrong(&path, message);
                continue;
            }
        };
        if let Err(error) = ring.add(key.kid.as_deref(), algorithm, material.as_bytes()) {
            report.wrong(&path, format!("this key cannot be used: {error}"));
        }
    }
    ring
}

fn key_material(key: &raw::Key, read_file: &dyn Fn(&Path) -> io::Result<String>) -> Result<String, String> {
    match (&key.path, &key.pem) {
        (None, Some(pem)) => Ok(pem.0.clone()),
        (Some(path), None) => match read_file(Path::new(path)) {
            // An editor ends the file with a newline that is no part of a secret; PEM does not mind.
            Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) => Err(format!("{path} could not be read: {error}")),
        },
        (Some(_), Some(_)) => Err("`path` and `pem` are both set: keep one of them".to_owned()),
        (None, None) => Err("this key needs `path` or `pem`".to_owned()),
    }
}

fn api_keys(written: &raw::Auth, report: &mut Report<'_>) -> Vec<Arc<ApiKey>> {
    let mut keys: Vec<ApiKey> = Vec::new();
    for (index, key) in written.api_keys.iter().flatten().enumerate() {
        let path = format!("auth.api_keys.{index}");
        if key.name.is_empty() || key.name.len() > NAME_BYTES_MAX || key.name.chars().any(char::is_control) {
            report.wrong(&path, "an API key needs a name, of at most 128 bytes: logs and events show it");
        }
        if keys.iter().any(|other| other.name == key.name) {
            report.wrong(&path, format!("two API keys are named `{}`", key.name));
        }
        if key.key.0.is_empty() {
            report.wrong(&path, format!("API key `{}` is empty", key.name));
        }
        if keys.iter().any(|other| other.key == key.key.0) {
            report.wrong(&path, format!("API key `{}` is another one's too", key.name));
        }
        let kinds = TaskKind::ALL.map(TaskKind::as_str).join(", ");
        for right in key.rights.iter().filter(|right| !is_backend_right(right)) {
            report.wrong(
                &format!("{path}.rights"),
                format!(
                    "`{right}` is not a right (publish:<rooms>, read:<rooms>, tasks:<kind>, sessions, approvals, \
                     connections, revocations, *; kinds of tasks: {kinds})"
                ),
            );
        }
        keys.push(ApiKey { name: key.name.clone(), key: key.key.0.clone(), rights: key.rights.clone() });
    }
    keys.into_iter().map(Arc::new).collect()
}

fn is_backend_right(right: &str) -> bool {
    match right.split_once(':') {
        Some(("publish" | "read", rooms)) => {
            let fixed = rooms.strip_suffix('*').unwrap_or(rooms);
            !rooms.is_empty() && rooms.len() <= ROOM_NAME_BYTES_MAX && !fixed.contains('*')
        }
        // A slip here would be a backend that waits for ever.
        Some(("tasks", kinds)) => TaskKind::ALL.into_iter().any(|kind| fits(kinds, kind.as_str())),
        Some(_) => false,
        None => matches!(right, "sessions" | "approvals" | "connections" | "revocations" | "*"),
    }
}

fn policy(
    raw: &Raw,
    name: Name,
    mode: Mode,
    keys: &KeyRing,
    api_keys: &[Arc<ApiKey>],
    report: &mut Report<'_>,
) -> Policy {
    let shared = &raw.keys.auth;
    let own = raw.auth.get(&name).cloned().unwrap_or_default();
    let rights_key = key(name, own.default_rights.is_some(), "default_rights");
    let grants = own.default_rights.as_ref();
    let grants = grants.or(shared.default_rights.as_ref());
    let default_rights = match grants.map(rights) {
        None => Rights::default(),
        Some(Ok(rights)) => rights,
        Some(Err(why)) => {
            report.wrong(&rights_key, format!("`default_rights`: {why}"));
            Rights::default()
        }
    };
    let cookie_key = key(name, own.cookie.is_some(), "cookie");
    let cookie = own.cookie.or_else(|| shared.cookie.clone());
    let header_key = user_header_key(raw, name);
    let user_header = own.user_header.or_else(|| shared.user_header.clone());
    for (key, written) in [(cookie_key, &cookie), (header_key, &user_header)] {
        if written.as_deref().is_some_and(|name| !is_token(name)) {
            let shown = key.rsplit('.').next().unwrap_or_default();
            report.wrong(&key, format!("`{shown}` must be a name of letters, digits and -_ as HTTP writes one"));
        }
    }
    Policy {
        mode,
        keys: keys.clone(),
        user_claim: user_claim(name),
        api_keys: api_keys.to_vec(),
        query_token: own.query_token.or(shared.query_token).unwrap_or(true),
        cookie,
        default_rights: Arc::new(default_rights),
        // Names of headers know no case, but whoever looks one up may.
        user_header: user_header.map(|name| name.to_ascii_lowercase()),
        ..Policy::default()
    }
}

/// The dialect of the agents' sessions keeps the user apart from the account (CONTRACT.md 4.2).
fn user_claim(name: Name) -> UserClaim {
    match name {
        Name::Agents => UserClaim::UserId,
        Name::Native => UserClaim::UserIdOrSub,
        Name::Documents | Name::Workflows | Name::Tickets => UserClaim::Sub,
    }
}

fn rights(written: &BTreeMap<String, Vec<String>>) -> Result<Rights, crate::auth::rights::RightsError> {
    Rights::parse(written.iter().map(|(pattern, verbs)| (pattern.as_str(), verbs.iter().map(String::as_str))))
}

/// Where a key of `[auth]` was written: in the dialect's own table or in everybody's.
fn key(name: Name, own: bool, key: &str) -> String {
    match own {
        true => format!("auth.{}.{key}", name.as_str()),
        false => format!("auth.{key}"),
    }
}

fn user_header_key(raw: &Raw, name: Name) -> String {
    let own = raw.auth.get(&name);
    let own = own.is_some_and(|own| own.user_header.is_some());
    key(name, own, "user_header")
}

/// The characters of RFC 9110's `token`, of which names of headers and cookies are made.
fn is_token(name: &str) -> bool {
    let is_char = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(is_char)
}

/// A mode that asks for something nobody can have is a slip, and it is better heard of before the first user calls.
fn check_credentials(
    raw: &Raw,
    name: Name,
    policy: &Policy,
    served: bool,
    backends_come: bool,
    report: &mut Report<'_>,
) {
    let trusts_a_proxy = raw.keys.proxy.trusted.iter().flatten().next().is_some();
    if policy.user_header.is_some() && !trusts_a_proxy {
        report.wrong(
            &user_header_key(raw, name),
            "`user_header` is believed from trusted proxies only: name them in proxy.trusted",
        );
    }
    let nothing = policy.keys.is_empty() && policy.user_header.is_none();
    if !served || policy.mode != Mode::Token || !nothing {
        return;
    }
    if backends_come {
        report.note(format!(
            "{}: token mode with auth.api_keys alone lets backends in and no client: for those set auth.hs256_secret or \
             auth.keys",
            name.as_str()
        ));
    } else {
        let (_, mode_key) = written_mode(raw, name);
        report.wrong(
            &mode_key,
            "token mode has no key to check tokens with: set auth.hs256_secret or auth.keys \
             (or auth.user_header with proxy.trusted, or auth.api_keys for backends alone)",
        );
    }
}

/// Without a key everybody is a backend: which is what debug mode is for, and in open mode perhaps not what was meant.
fn note_open_backends(policy: &Policy, report: &mut Report<'_>) {
    if policy.mode == Mode::Open && policy.api_keys.is_empty() {
        report.note(
            "open mode without auth.api_keys lets everybody be a backend: take the tasks, publish into every room, close \
             connections",
        );
    }
}

/// Which pages may connect.
fn origins(raw: &Raw, name: Name, policy: &Policy, served: bool, report: &mut Report<'_>) -> Option<Origins> {
    let (written, absent) = written_origins(raw, name);
    let tokens = served && policy.mode == Mode::Token;
    if tokens && written.is_none() {
        report.note(format!(
            "{}: token mode without origins.allow lets no web page in (programs, which send no Origin, it does): list \
             the pages' origins there",
            name.as_str()
        ));
    }
    let allow = written.unwrap_or_else(|| allow_default(policy.mode));
    let absent = match absent {
        raw::Absent::Allow => Absent::Allow,
        raw::Absent::Deny => Absent::Deny,
    };
    match Origins::parse(&allow, absent) {
        Ok(origins) => {
            if tokens && policy.cookie.is_some() && origins.allows_all() {
                report.note(format!(
                    "{}: auth.cookie together with origins.allow = [\"*\"] lets every page on the web act for its visitor",
                    name.as_str()
                ));
            }
            Some(origins)
        }
        Err(error) => {
            let own = raw.origins.get(&name).is_some_and(|own| own.allow.is_some());
            let list = match own {
                true => format!("origins.{}.allow", name.as_str()),
                false => "origins.allow".to_owned(),
            };
            let index = allow.iter().position(|entry| *entry == error.entry);
            let path = format!("{list}.{}", index.unwrap_or_default());
            report.wrong(&path, error.to_string());
            None
        }
    }
}

/// The dialect's own word on origins, and otherwise everybody's.
pub fn written_origins(raw: &Raw, name: Name) -> (Option<Vec<String>>, raw::Absent) {
    let shared = &raw.keys.origins;
    let own = raw.origins.get(&name).cloned().unwrap_or_default();
    let allow = own.allow.or_else(|| shared.allow.clone());
    (allow, own.absent.or(shared.absent).unwrap_or_default())
}

/// With nothing written: every page where no credential is asked for, because the pages of the applications we stand in
/// for come from many development servers; none in token mode, because a page that may connect there acts for its
/// visitor, so somebody has to have named it. Not "the page's own host": behind a proxy the Host header is the proxy's
/// word, and a rule that holds only without one would surprise exactly in production.
pub fn allow_default(mode: Mode) -> Vec<String> {
    match mode {
        Mode::Debug | Mode::Open => vec!["*".to_owned()],
        Mode::Token => Vec::new(),
    }
}
