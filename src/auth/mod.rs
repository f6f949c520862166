//! Who is asking, and what may they do: a request's head and a policy go in, a principal or a refusal comes out.
//!
//! ```text
//! peer, X-Forwarded-For ─▶ peer::client_address ─▶ whom the limits count, whether the peer is a proxy of ours
//! Origin lines ──────────▶ origin::Origins::check ─▶ a page we know, no page, or Reject
//! Head ─▶ Shown::of ─▶ authenticate ─▶ token::KeyRing::verify ─▶ Principal { user, rights, … } or Reject
//!              └─────▶ backend ──────▶ ApiKey or Reject
//! Principal.rights.allows(room, verb)          at the join and again for each message
//! Principal.proof ─▶ recheck                   again whenever something was revoked, or keys have changed
//! target ─▶ redact::redact_target ─▶ the log
//! ```
//!
//! The upgrade asks in this order: origin, then token, so that a foreign page learns nothing about its visitor's cookie.
//! [`Shown::has_only_cookie`] tells the origin check what it needs to know of the credential.
//!
//! Everything here is pure; the time is handed in. Never here: a socket, a clock, a room's members, a log line, and no
//! secret in any error, `Debug` or refusal.

pub mod origin;
pub mod peer;
pub mod redact;
pub mod revoked;
pub mod rights;
pub mod token;

use std::borrow::Cow;
use std::fmt;
use std::hint::black_box;
use std::sync::{Arc, LazyLock};

use crate::auth::revoked::Revocations;
use crate::auth::rights::Rights;
use crate::auth::token::{KeyIdentity, KeyRing, TokenError};
use crate::clock::Wall;
use crate::http::{Head, Reason, Reject};

/// The user of debug mode, known to the clients of the applications that had no other.
pub const DEBUG_USER: &str = "test-user-123";
/// The user of open mode.
pub const ANONYMOUS_USER: &str = "anonymous";

/// What marks the one offered subprotocol that is a token.
const BEARER_PROTOCOL: &str = "bearer.";

/// How much a token matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Loopback only: a good token names its user, everybody else is the debug user; all rights.
    Debug,
    /// No good token, no entrance; rights are the token's.
    Token,
    /// A good token names its user, everybody else is anonymous; all rights.
    Open,
}

/// Which claim of a token names its user. A token needs `sub` in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserClaim {
    #[default]
    Sub,
    /// For clients whose tokens have an account's name in `sub` and the user in `user_id`.
    UserId,
    /// For clients of both kinds in the same rooms: the same token must name the same user to a page and natively, or one
    /// token would be two users, each with the other's sessions in reach.
    UserIdOrSub,
}

/// The rules of one dialect. The default lets nobody in.
#[derive(Clone, Debug)]
pub struct Policy {
    pub mode: Mode,
    pub keys: KeyRing,
    pub user_claim: UserClaim,
    pub api_keys: Vec<Arc<ApiKey>>,
    /// Whether `?token=` is believed.
    pub query_token: bool,
    /// The cookie that holds a token.
    pub cookie: Option<String>,
    /// The rights of a token that has no claim `rooms`, and of a user whom the proxy names.
    pub default_rights: Arc<Rights>,
    /// The header in which a trusted proxy names the user.
    pub user_header: Option<String>,
    pub debug_user: Arc<str>,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            mode: Mode::Token,
            keys: KeyRing::default(),
            user_claim: UserClaim::default(),
            api_keys: Vec::new(),
            query_token: false,
            cookie: None,
            default_rights: Arc::default(),
            user_header: None,
            debug_user: Arc::from(DEBUG_USER),
        }
    }
}

/// The credential of an application's own code (DESIGN.md section 8).
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub name: String,
    pub key: String,
    /// `publish:<room pattern>`, `read:<room pattern>`, `tasks:<kind>`, `sessions`, `approvals`, `connections`,
    /// `revocations`, or `*`.
    pub rights: Vec<String>,
}

impl ApiKey {
    /// `right` as it is asked for: `publish:doc:readme`, `tasks:execute`, `sessions`.
    pub fn allows(&self, right: &str) -> bool {
        self.rights.iter().any(|pattern| rights::fits(pattern, right))
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("name", &self.name).field("rights", &self.rights).finish_non_exhaustive()
    }
}

/// Who a connection or request speaks for. Actor fields of events come from here, never from a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub user: Arc<str>,
    pub rights: Arc<Rights>,
    /// None where nothing was shown that could lose its worth before it expires.
    pub proof: Option<Arc<Proof>>,
    pub via: Credential,
}

/// What is kept of a credential for as long as it lets somebody in: enough to ask again whether it is believed. Not the
/// token itself, of which a core file would then hold one for each connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Seconds since 1970, as the token says it. The token is believed `token::LEEWAY_SECONDS` longer.
    pub expires_at: Option<i64>,
    pub jti: Option<Arc<str>>,
    /// What the token calls its user besides: of `sub` and `user_id` the one that this dialect does not go by.
    pub other_name: Option<Arc<str>>,
    /// Seconds since 1970. Of a proxy's word, when it was given: who logs in anew there may come in anew here.
    pub issued_at: Option<i64>,
    /// Whose signature it bears; none for a proxy's word.
    pub key: Option<Arc<KeyIdentity>>,
    /// Rights of its own; without them the configuration's default holds.
    pub rooms: Option<Arc<Rights>>,
}

/// What showed who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    None,
    Bearer,
    /// The offered subprotocol with this index is the token. It must not be chosen while another one is on offer; offered
    /// alone it must, since browsers drop a connection that chose none of theirs.
    Protocol(usize),
    Cookie,
    Query,
    /// The proxy's word.
    Header,
}

/// A value that may come once. The second one is kept as a fact, because which of two a server believes must not be luck.
#[derive(Clone, PartialEq, Eq)]
pub enum Once<T> {
    Absent,
    One(T),
    Several,
}

/// Everything a request shows about who it is, still unbelieved.
pub struct Shown<'a> {
    pub authorization: Once<&'a str>,
    pub protocols: Vec<&'a str>,
    /// The value of the policy's cookie.
    pub cookie: Once<&'a str>,
    pub query_token: Once<Cow<'a, str>>,
    pub api_key: Once<&'a str>,
    /// The value of the policy's user header.
    pub user_header: Once<&'a str>,
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Once<T> {
    /// The value is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Once::Absent => "Absent",
            Once::One(_) => "One",
            Once::Several => "Several",
        })
    }
}

impl<'a> Shown<'a> {
    pub fn of(head: &'a Head<'_>, policy: &Policy) -> Shown<'a> {
        let cookie = |name: &str| Once::of(head.header_all("cookie").flat_map(|line| cookies(line, name)));
        let user_header = |name: &str| Once::of(head.header_all(name));
        Shown {
            authorization: Once::of(head.header_all("authorization")),
            protocols: head.header_all("sec-websocket-protocol").flat_map(list).collect(),
            cookie: policy.cookie.as_deref().map_or(Once::Absent, cookie),
            query_token: Once::of(query_tokens(head.query.unwrap_or_default())),
            api_key: Once::of(head.header_all("x-api-key")),
            user_header: policy.user_header.as_deref().map_or(Once::Absent, user_header),
        }
    }

    /// No credential of any kind was shown.
    pub fn is_empty(&self) -> bool {
        let absent = self.authorization == Once::Absent && self.cookie == Once::Absent;
        let silent = self.query_token == Once::Absent && self.user_header == Once::Absent;
        absent && silent && self.api_key == Once::Absent && tokens_of(&self.protocols).next().is_none()
    }

    /// True when a cookie is what would be believed: then the page must be known (threat row 25).
    pub fn has_only_cookie(&self) -> bool {
        let bearer = matches!(bearer(&self.authorization), Ok(Some(_)) | Err(_));
        self.cookie != Once::Absent && !bearer && tokens_of(&self.protocols).next().is_none()
    }
}

impl<T> Once<T> {
    fn of(mut values: impl Iterator<Item = T>) -> Once<T> {
        match (values.next(), values.next()) {
            (None, _) => Once::Absent,
            (Some(value), None) => Once::One(value),
            (Some(_), Some(_)) => Once::Several,
        }
    }
}

impl From<TokenError> for Reject {
    fn from(error: TokenError) -> Reject {
        let reason = match error {
            TokenError::Expired => Reason::TokenExpired,
            _ => Reason::Token,
        };
        Reject::new(reason, error.to_string())
    }
}

/// Decides who a request speaks for. `peer_is_trusted_proxy`: see [`peer::is_trusted`].
pub fn authenticate(
    policy: &Policy,
    shown: &Shown<'_>,
    peer_is_trusted_proxy: bool,
    now: Wall,
    revoked: &Revocations,
) -> Result<Principal, Reject> {
    let identified = identify(policy, shown, peer_is_trusted_proxy, now).and_then(|principal| {
        let proof = principal.proof.as_deref();
        match proof.is_some_and(|proof| revoked.holds(&principal.user, proof)) {
            true => Err(was_revoked()),
            false => Ok(principal),
        }
    });
    match policy.mode {
        Mode::Token => identified,
        Mode::Debug => Ok(with_all_rights(identified, || policy.debug_user.clone())),
        Mode::Open => Ok(with_all_rights(identified, || ANONYMOUS.clone())),
    }
}

/// Asks again about somebody who was let in as `user`: is what he showed still believed, and with which rights? `Err`: he
/// would not be let in with it now.
pub fn recheck(
    policy: &Policy,
    user: &str,
    proof: Option<&Proof>,
    revoked: &Revocations,
) -> Result<Arc<Rights>, Reject> {
    let believed = match proof {
        Some(proof) if revoked.holds(user, proof) => return Err(was_revoked()),
        Some(Proof { key: Some(key), .. }) => policy.keys.has(key),
        Some(Proof { key: None, .. }) => policy.user_header.is_some(),
        None => policy.mode != Mode::Token,
    };
    match (believed, policy.mode) {
        (false, _) => {
            Err(reject("the credential is not believed any more: its key was taken away, or the mode changed"))
        }
        (true, Mode::Token) => Ok(proof.and_then(|proof| proof.rooms.clone()).unwrap_or(policy.default_rights.clone())),
        (true, Mode::Debug | Mode::Open) => Ok(ALL_RIGHTS.clone()),
    }
}

/// The same of a backend: is its key still there, with the same secret and the same rights? One whose rights have changed
/// comes in anew: what it was told it may take, and the tasks that it holds, are of the old ones.
pub fn recheck_key(policy: &Policy, key: &ApiKey) -> Result<(), Reject> {
    let everybody_comes = policy.mode != Mode::Token && policy.api_keys.is_empty() && key.key.is_empty();
    match everybody_comes || policy.api_keys.iter().any(|known| **known == *key) {
        true => Ok(()),
        false => Err(reject("the API key was changed or taken away")),
    }
}

fn was_revoked() -> Reject {
    Reject::new(Reason::Revoked, "the token was revoked")
}

/// Whom a backend's connection speaks for. What it may do is its key's matter, not the rooms'.
pub fn principal_of(key: &ApiKey) -> Principal {
    let rights = Arc::new(Rights::all());
    Principal { user: Arc::from(key.name.as_str()), rights, proof: None, via: Credential::Bearer }
}

/// Somebody who has shown nothing yet, and may do nothing.
pub fn nobody() -> Principal {
    let rights = Arc::default();
    Principal { user: ANONYMOUS.clone(), rights, proof: None, via: Credential::None }
}

/// Decides which of the application's own programs is asking: `X-API-Key`, or the key as a bearer token.
///
/// Where no key is configured, debug and open mode have one backend with all rights.
pub fn backend(policy: &Policy, shown: &Shown<'_>) -> Result<Arc<ApiKey>, Reject> {
    if policy.mode != Mode::Token && policy.api_keys.is_empty() {
        let rights = vec!["*".to_owned()];
        return Ok(Arc::new(ApiKey { name: "backend".to_owned(), key: String::new(), rights }));
    }
    let key = match &shown.api_key {
        Once::One(key) => Some(*key),
        Once::Several => return Err(reject("there is more than one X-API-Key header")),
        Once::Absent => bearer(&shown.authorization)?,
    };
    let key = key.ok_or_else(|| reject(NO_KEY))?;
    // Every key is compared, so that time does not tell which one came close. An empty one is a hole in the
    // configuration, not a key.
    let known = |found: Option<Arc<ApiKey>>, api_key: &Arc<ApiKey>| {
        let same = equal_in_constant_time(api_key.key.as_bytes(), key.as_bytes());
        if same && !api_key.key.is_empty() { Some(api_key.clone()) } else { found }
    };
    policy.api_keys.iter().fold(None, known).ok_or_else(|| reject("the API key is unknown"))
}

static ANONYMOUS: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(ANONYMOUS_USER));
/// Shared, because in debug and open mode every connection holds it.
static ALL_RIGHTS: LazyLock<Arc<Rights>> = LazyLock::new(|| Arc::new(Rights::all()));

fn with_all_rights(identified: Result<Principal, Reject>, otherwise: impl FnOnce() -> Arc<str>) -> Principal {
    let rights = ALL_RIGHTS.clone();
    match identified {
        Ok(principal) => Principal { rights, ..principal },
        Err(_) => Principal { user: otherwise(), rights, proof: None, via: Credential::None },
    }
}

fn identify(policy: &Policy, shown: &Shown<'_>, peer_is_trusted_proxy: bool, now: Wall) -> Result<Principal, Reject> {
    if let Some((token, via)) = shown_token(policy, shown)? {
        let claims = policy.keys.verify(token, now)?;
        let (user, other) = match (policy.user_claim, claims.user_id) {
            (UserClaim::Sub, other) => (claims.sub, other),
            (UserClaim::UserId | UserClaim::UserIdOrSub, Some(user_id)) => (user_id, Some(claims.sub)),
            // Not `sub` in its place: the two may name different people.
            (UserClaim::UserId, None) => return Err(reject(NO_USER_ID)),
            (UserClaim::UserIdOrSub, None) => (claims.sub, None),
        };
        let rooms = claims.rooms.map(Arc::new);
        let rights = rooms.clone().unwrap_or_else(|| policy.default_rights.clone());
        let proof = Proof {
            expires_at: claims.exp,
            jti: claims.jti,
            other_name: other.filter(|other| *other != user),
            issued_at: claims.iat,
            key: Some(claims.key),
            rooms,
        };
        return Ok(Principal { user, rights, proof: Some(Arc::new(proof)), via });
    }
    if !peer_is_trusted_proxy {
        return Err(reject(NO_TOKEN));
    }
    let user = match shown.user_header {
        Once::One(user) if token::is_user_name(user) => Arc::from(user),
        Once::One(_) => return Err(reject("the user header holds no valid name")),
        Once::Several => return Err(reject("there is more than one user header")),
        Once::Absent => return Err(reject(NO_TOKEN)),
    };
    let proof = Proof { issued_at: Some(now.unix_seconds()), ..Proof::default() };
    let (rights, proof) = (policy.default_rights.clone(), Some(Arc::new(proof)));
    Ok(Principal { user, rights, proof, via: Credential::Header })
}

/// The first place that holds a token decides, whether that token is good or not: a bad one that fell through to the next
/// place would let a page's own header be outvoted by its visitor's cookie.
fn shown_token<'s>(policy: &Policy, shown: &'s Shown<'_>) -> Result<Option<(&'s str, Credential)>, Reject> {
    if let Some(token) = bearer(&shown.authorization)? {
        return Ok(Some((token, Credential::Bearer)));
    }
    match Once::of(tokens_of(&shown.protocols)) {
        Once::One((index, token)) => return Ok(Some((token, Credential::Protocol(index)))),
        Once::Several => return Err(reject("there is more than one bearer subprotocol")),
        Once::Absent => {}
    }
    match shown.cookie {
        Once::One(token) => return Ok(Some((token, Credential::Cookie))),
        // A neighbouring subdomain can plant a second cookie of the same name, and may choose which comes first.
        Once::Several => {
            return Err(reject("there is more than one cookie with the token's name"));
        }
        Once::Absent => {}
    }
    match &shown.query_token {
        Once::Absent => Ok(None),
        _ if !policy.query_token => Err(Reject::new(Reason::TokenInQuery, "a token was shown in the query")),
        Once::One(token) => Ok(Some((token, Credential::Query))),
        Once::Several => Err(reject("there is more than one token in the query")),
    }
}

/// The token of `Authorization: Bearer …`. Another scheme is the proxy's affair (basic authentication in front).
fn bearer<'s>(authorization: &Once<&'s str>) -> Result<Option<&'s str>, Reject> {
    match authorization {
        Once::Absent => Ok(None),
        Once::Several => Err(reject("there is more than one Authorization header")),
        Once::One(line) => {
            let (scheme, token) = line.split_once(' ').unwrap_or((line, ""));
            Ok(scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' ')))
        }
    }
}

fn tokens_of<'s>(protocols: &'s [&str]) -> impl Iterator<Item = (usize, &'s str)> {
    let numbered = protocols.iter().enumerate();
    numbered.filter_map(|(index, protocol)| Some((index, protocol.strip_prefix(BEARER_PROTOCOL)?)))
}

fn list(line: &str) -> impl Iterator<Item = &str> {
    line.split(',').map(|element| element.trim_matches([' ', '\t'])).filter(|element| !element.is_empty())
}

/// The values of the cookies called `name`; an empty one is what logging out left behind.
fn cookies<'a>(line: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    line.split(';').filter_map(move |pair| {
        let (key, value) = pair.split_once('=')?;
        let value = value.trim_matches([' ', '\t']);
        (key.trim_matches([' ', '\t']) == name && !value.is_empty()).then_some(value)
    })
}

/// The values of `token`; an empty one is a client that has none.
fn query_tokens(query: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let pairs = form_urlencoded::parse(query.as_bytes());
    pairs.filter(|(key, value)| key == "token" && !value.is_empty()).map(|(_, value)| value)
}

/// Takes as long for a near miss as for a far one. The length shows, which of a random key is no secret.
fn equal_in_constant_time(known: &[u8], shown: &[u8]) -> bool {
    if known.len() != shown.len() {
        return false;
    }
    let differences = known.iter().zip(shown).fold(0, |differences, (a, b)| black_box(differences | (a ^ b)));
    black_box(differences) == 0
}

/// Was a credential shown, and a wrong one? Whoever shows none guesses nothing: a page whose user has logged out asks
/// again every two seconds, and must not have its whole office barred. Nor does whoever shows a token that we signed.
pub fn is_guess(reject: &Reject) -> bool {
    reject.reason == Reason::Token && ![NO_TOKEN, NO_KEY, NO_USER_ID].contains(&&*reject.detail)
}

const NO_TOKEN: &str = "no token was shown";
const NO_KEY: &str = "no API key was shown";
const NO_USER_ID: &str = "the token's claim user_id is missing or is no name";

fn reject(detail: &'static str) -> Reject {
    Reject::new(Reason::Token, detail)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::auth::revoked::{Ruling, Subject};
    use crate::auth::rights::Verb;
    use crate::auth::token::{Algorithm, Mint, mint};
    use std::time::Duration;

    const NOW: Wall = Wall(1_700_000_000_000_000);
    const SECRET: &[u8] = b"a secret of thirty-two bytes or more";

    fn token_for(user: &str) -> String {
        mint(SECRET, &Mint { sub: user, ttl: Some(Duration::from_secs(60)), ..Mint::default() }, NOW).unwrap()
    }

    fn expired() -> String {
        let long_ago = Wall(NOW.0 - 3_600_000_000);
        mint(SECRET, &Mint { sub: "late", ttl: Some(Duration::from_secs(60)), ..Mint::default() }, long_ago).unwrap()
    }

    fn policy(mode: Mode) -> Policy {
        let mut keys = KeyRing::default();
        keys.add(None, Algorithm::Hs256, SECRET).unwrap();
        let default_rights = Rights::parse([("doc:*", ["read"])]).unwrap();
        Policy { mode, keys, query_token: true, default_rights: Arc::new(default_rights), ..Policy::default() }
    }

    fn nothing() -> Shown<'static> {
        Shown {
            authorization: Once::Absent,
            protocols: Vec::new(),
            cookie: Once::Absent,
            query_token: Once::Absent,
            api_key: Once::Absent,
            user_header: Once::Absent,
        }
    }

    fn refusal(policy: &Policy, shown: &Shown<'_>, trusted: bool) -> Reason {
        authenticate(policy, shown, trusted, NOW, &Revocations::default()).unwrap_err().reason
    }

    #[test]
    fn sources_are_asked_in_order() {
        let policy = policy(Mode::Token);
        let tokens: Vec<String> = ["bearer", "protocol", "cookie", "query"].map(token_for).to_vec();
        let line = format!("bEaReR  {}", tokens[0]);
        let protocol = format!("bearer.{}", tokens[1]);
        let mut shown = Shown {
            authorization: Once::One(&line),
            protocols: vec!["commitcast.v1", &protocol],
            cookie: Once::One(&tokens[2]),
            query_token: Once::One(Cow::Borrowed(&tokens[3])),
            user_header: Once::One("header"),
            ..nothing()
        };
        let expect = |shown: &Shown<'_>, user: &str, via: Credential| {
            let principal = authenticate(&policy, shown, true, NOW, &Revocations::default()).unwrap();
            assert_eq!((&*principal.user, principal.via), (user, via));
            assert!(principal.rights.allows("doc:a", Verb::Read) && !principal.rights.allows("doc:a", Verb::Write));
            let expires_at = principal.proof.unwrap().expires_at;
            assert_eq!(expires_at, (via != Credential::Header).then_some(1_700_000_060));
        };
        expect(&shown, "bearer", Credential::Bearer);
        // Another scheme belongs to the proxy in front.
        shown.authorization = Once::One("Basic YTpi");
        expect(&shown, "protocol", Credential::Protocol(1));
        shown.protocols.pop();
        expect(&shown, "cookie", Credential::Cookie);
        shown.cookie = Once::Absent;
        expect(&shown, "query", Credential::Query);
        shown.query_token = Once::Absent;
        expect(&shown, "header", Credential::Header);
        assert_eq!(refusal(&policy, &shown, false), Reason::Token);
    }

    #[test]
    fn a_bad_token_is_not_rescued_by_a_good_one_behind_it() {
        let policy = policy(Mode::Token);
        let good = token_for("alice");
        for line in ["Bearer", "Bearer ", "Bearer x", "bearer a.b.c"] {
            let shown = Shown {
                authorization: Once::One(line),
                cookie: Once::One(&good),
                user_header: Once::One("alice"),
                ..nothing()
            };
            assert_eq!(refusal(&policy, &shown, true), Reason::Token, "{line}");
        }
    }

    #[test]
    fn what_comes_twice_is_refused() {
        let policy = policy(Mode::Token);
        let protocol = format!("bearer.{}", token_for("alice"));
        for shown in [
            Shown { authorization: Once::Several, ..nothing() },
            Shown { protocols: vec![&protocol, &protocol], ..nothing() },
            Shown { cookie: Once::Several, ..nothing() },
            Shown { query_token: Once::Several, ..nothing() },
            Shown { user_header: Once::Several, ..nothing() },
        ] {
            let reject = authenticate(&policy, &shown, true, NOW, &Revocations::default()).unwrap_err();
            assert_eq!(reject.reason, Reason::Token);
            assert!(reject.detail.contains("more than one"), "{}", reject.detail);
        }
    }

    #[test]
    fn token_mode_says_what_was_wrong() {
        let mut policy = policy(Mode::Token);
        let expired = expired();
        let late = Shown { cookie: Once::One(&expired), ..nothing() };
        assert_eq!(refusal(&policy, &nothing(), true), Reason::Token);
        assert_eq!(refusal(&policy, &late, false), Reason::TokenExpired);
        let bad_name = Shown { user_header: Once::One("a\u{7f}"), ..nothing() };
        assert_eq!(refusal(&policy, &bad_name, true), Reason::Token);
        policy.query_token = false;
        let good = token_for("alice");
        let in_query = || Shown { query_token: Once::One(Cow::Borrowed(&good)), ..nothing() };
        assert_eq!(refusal(&policy, &in_query(), false), Reason::TokenInQuery);
        let line = format!("Bearer {good}");
        let both = Shown { authorization: Once::One(&line), ..in_query() };
        assert_eq!(&*authenticate(&policy, &both, false, NOW, &Revocations::default()).unwrap().user, "alice");
    }

    #[test]
    fn debug_and_open_let_everybody_in_and_a_good_token_names_its_user() {
        let good = token_for("alice");
        let expired = expired();
        for (mode, fallback) in [(Mode::Debug, "test-user-123"), (Mode::Open, "anonymous")] {
            let mut policy = policy(mode);
            policy.query_token = false;
            for (shown, user, via) in [
                (nothing(), fallback, Credential::None),
                (Shown { cookie: Once::One(&good), ..nothing() }, "alice", Credential::Cookie),
                (Shown { cookie: Once::One(&expired), ..nothing() }, fallback, Credential::None),
                (Shown { cookie: Once::One("junk"), ..nothing() }, fallback, Credential::None),
                (Shown { authorization: Once::Several, ..nothing() }, fallback, Credential::None),
                (Shown { query_token: Once::One(Cow::Borrowed(&good)), ..nothing() }, fallback, Credential::None),
                (Shown { user_header: Once::One("bob"), ..nothing() }, "bob", Credential::Header),
            ] {
                let principal = authenticate(&policy, &shown, true, NOW, &Revocations::default()).unwrap();
                assert_eq!((&*principal.user, principal.via), (user, via), "{mode:?}");
                assert!(Verb::ALL.into_iter().all(|verb| principal.rights.allows("any", verb)));
            }
        }
    }

    #[test]
    fn the_default_policy_lets_nobody_in() {
        let good = token_for("alice");
        let shown = Shown { cookie: Once::One(&good), ..nothing() };
        assert_eq!(refusal(&Policy::default(), &shown, true), Reason::Token);
        assert!(!Policy::default().default_rights.allows("doc:a", Verb::Read));
        assert!(backend(&Policy::default(), &Shown { api_key: Once::One(""), ..nothing() }).is_err());
    }

    #[test]
    fn a_tokens_own_rights_replace_the_default_ones() {
        let rooms = Rights::parse([("logs", ["signal"])]).unwrap();
        let token = mint(SECRET, &Mint { sub: "a", rooms: Some(&rooms), ..Mint::default() }, NOW).unwrap();
        let shown = Shown { cookie: Once::One(&token), ..nothing() };
        let principal = authenticate(&policy(Mode::Token), &shown, false, NOW, &Revocations::default()).unwrap();
        assert_eq!(*principal.rights, rooms);
    }

    #[test]
    fn whoever_shows_no_token_guesses_none() {
        let policy = policy(Mode::Token);
        let refused =
            |shown: &Shown<'_>| authenticate(&policy, shown, false, NOW, &Revocations::default()).unwrap_err();
        assert!(!is_guess(&refused(&nothing())));
        assert!(is_guess(&refused(&Shown { authorization: Once::One("Bearer x"), ..nothing() })));
        assert!(!is_guess(&backend(&policy, &nothing()).unwrap_err()));
        assert!(is_guess(&backend(&policy, &Shown { api_key: Once::One("x"), ..nothing() }).unwrap_err()));
        let late = format!("Bearer {}", expired());
        assert!(!is_guess(&refused(&Shown { authorization: Once::One(&late), ..nothing() })), "it was good once");
    }

    /// CONTRACT.md 4.2: what the agents' clients show, and as whom they come in, in production and in debug mode.
    #[test]
    fn y2_the_token_matrix_of_the_agents() {
        use jsonwebtoken::{Algorithm as Library, EncodingKey, Header, encode};
        let at = NOW.unix_seconds();
        let signed = |claims: serde_json::Value, secret: &[u8]| {
            encode(&Header::new(Library::HS256), &claims, &EncodingKey::from_secret(secret)).unwrap()
        };
        let token = |claims| signed(claims, SECRET);
        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJhIiwidXNlcl9pZCI6InUtMSJ9.";
        let missing = "the token's claim user_id is missing or is no name";
        for (what, shown, expected) in [
            ("nothing", None, Err("no token was shown")),
            ("valid", Some(token(json(r#"{"sub":"a","user_id":"u-1","exp":1700000060}"#))), Ok("u-1")),
            ("no exp", Some(token(json(r#"{"sub":"a","user_id":"u-1"}"#))), Ok("u-1")),
            ("garbage", Some("test-token-123".to_owned()), Err("the token is not a signed JWT")),
            ("no sub", Some(token(json(r#"{"user_id":"u-1"}"#))), Err("a claim of the token is missing")),
            ("no user_id", Some(token(json(r#"{"sub":"a"}"#))), Err(missing)),
            ("a numeric user_id", Some(token(json(r#"{"sub":"a","user_id":7}"#))), Err(missing)),
            ("an empty user_id", Some(token(json(r#"{"sub":"a","user_id":""}"#))), Err(missing)),
            (
                "expired",
                Some(token(serde_json::json!({"sub": "a", "user_id": "u-1", "exp": at - 60}))),
                Err("the token has expired"),
            ),
            (
                "not valid yet",
                Some(token(serde_json::json!({"sub": "a", "user_id": "u-1", "nbf": at + 60}))),
                Err("the token is not valid yet"),
            ),
            (
                "another secret",
                Some(signed(json(r#"{"sub":"a","user_id":"u-1"}"#), b"another secret of thirty-two bytes")),
                Err("the token's signature does not fit"),
            ),
            ("alg none", Some(unsigned.to_owned()), Err("the token is not a signed JWT")),
        ] {
            let query_token = shown.map_or(Once::Absent, |token| Once::One(Cow::Owned(token)));
            let shown = Shown { query_token, ..nothing() };
            let production = Policy { user_claim: UserClaim::UserId, ..policy(Mode::Token) };
            match (authenticate(&production, &shown, false, NOW, &Revocations::default()), expected) {
                (Ok(principal), Ok(user)) => assert_eq!(&*principal.user, user, "{what}"),
                (Err(reject), Err(detail)) => {
                    assert!(reject.detail.starts_with(detail), "{what}: {}", reject.detail);
                    assert_eq!(reject.row().status, 401, "{what}");
                }
                (found, _) => panic!("{what}: {found:?}"),
            }
            // In debug mode a bad token is no token.
            let debug = Policy { user_claim: UserClaim::UserId, ..policy(Mode::Debug) };
            let principal = authenticate(&debug, &shown, false, NOW, &Revocations::default()).unwrap();
            assert_eq!(&*principal.user, expected.unwrap_or(DEBUG_USER), "{what}");
        }
    }

    #[test]
    fn another_dialects_claim_is_nobodys_business() {
        let minted = token_for("ann");
        let shown = Shown { cookie: Once::One(&minted), ..nothing() };
        for user_claim in [UserClaim::Sub, UserClaim::UserId, UserClaim::UserIdOrSub] {
            let policy = Policy { user_claim, ..policy(Mode::Token) };
            assert_eq!(
                &*authenticate(&policy, &shown, false, NOW, &Revocations::default()).unwrap().user,
                "ann",
                "one token for all"
            );
        }
        // Signed by us: no guess, however often it comes.
        assert!(!is_guess(&reject(NO_USER_ID)));
    }

    #[test]
    fn without_keys_debug_and_open_mode_have_one_backend() {
        for (mode, name) in [(Mode::Debug, Some("backend")), (Mode::Open, Some("backend")), (Mode::Token, None)] {
            let found = backend(&policy(mode), &nothing()).ok();
            assert_eq!(found.as_ref().map(|key| key.name.as_str()), name, "{mode:?}");
            assert!(found.is_none_or(|key| key.allows("publish:doc:a") && key.allows("tasks:execute")));
            // With a key configured it has to be shown in every mode.
            let mut keyed = policy(mode);
            keyed.api_keys.push(Arc::new(ApiKey { name: "n".into(), key: "k".into(), rights: Vec::new() }));
            assert!(backend(&keyed, &nothing()).is_err(), "{mode:?}");
            assert!(backend(&keyed, &Shown { api_key: Once::One("k"), ..nothing() }).is_ok(), "{mode:?}");
        }
    }

    #[test]
    fn api_keys() {
        let key = |name: &str, key: &str, rights: &[&str]| {
            let rights = rights.iter().map(|right| right.to_string()).collect();
            Arc::new(ApiKey { name: name.to_string(), key: key.to_string(), rights })
        };
        let policy = Policy {
            api_keys: vec![
                key("writer", "k-1", &["publish:doc:*", "sessions"]),
                key("hole", "", &["*"]),
                key("root", "k-2", &["*"]),
            ],
            ..Policy::default()
        };
        for (api_key, authorization, expected) in [
            (Once::One("k-1"), Once::Absent, Some("writer")),
            (Once::One("k-2"), Once::Absent, Some("root")),
            (Once::Absent, Once::One("Bearer k-2"), Some("root")),
            (Once::One("k-1"), Once::One("Bearer k-2"), Some("writer")),
            (Once::One("k-3"), Once::One("Bearer k-2"), None),
            (Once::One("k-11"), Once::Absent, None),
            (Once::One("k-"), Once::Absent, None),
            (Once::One(""), Once::Absent, None),
            (Once::Absent, Once::One("Bearer"), None),
            (Once::Absent, Once::One("Basic k-2"), None),
            (Once::Several, Once::Absent, None),
            (Once::Absent, Once::Several, None),
            (Once::Absent, Once::Absent, None),
        ] {
            let shown = Shown { api_key, authorization, ..nothing() };
            let found = backend(&policy, &shown).ok().map(|key| key.name.clone());
            assert_eq!(found.as_deref(), expected, "{:?}", shown.api_key);
        }
        for (right, expected) in [
            ("publish:doc:readme", true),
            ("publish:logs", false),
            ("read:doc:readme", false),
            ("sessions", true),
            ("sessions:x", false),
            ("approvals", false),
        ] {
            assert_eq!(policy.api_keys[0].allows(right), expected, "{right}");
            assert!(policy.api_keys[2].allows(right));
        }
    }

    #[test]
    fn s4_whoever_was_let_in_is_asked_about_again() {
        let line = format!("Bearer {}", token_for("alice"));
        let revoked = Revocations::default();
        let rules = |mode| Policy { user_header: Some("x-user".into()), ..policy(mode) };
        let proven = |shown: &Shown<'_>| authenticate(&rules(Mode::Token), shown, true, NOW, &revoked).unwrap().proof;
        let token = proven(&Shown { authorization: Once::One(&line), ..nothing() });
        let header = proven(&Shown { user_header: Once::One("alice"), ..nothing() });
        let mut other_keys = rules(Mode::Token);
        other_keys.keys = KeyRing::default();
        other_keys.keys.add(None, Algorithm::Hs256, b"another").unwrap();
        let writes = Arc::new(Rights::parse([("doc:*", ["write"])]).unwrap());
        let other_rights = Policy { default_rights: writes, ..rules(Mode::Token) };
        // May it write now, by its token, by the proxy's word, by nothing?
        let ask = |policy: &Policy| {
            [&token, &header, &None].map(|proof| {
                let rights = recheck(policy, "alice", proof.as_deref(), &revoked);
                rights.map(|rights| rights.allows("doc:a", Verb::Write)).map_err(|reject| reject.reason)
            })
        };
        let gone = Err(Reason::Token);
        for (what, policy, expected) in [
            ("nothing has changed", rules(Mode::Token), [Ok(false), Ok(false), gone]),
            ("debug mode", rules(Mode::Debug), [Ok(true), Ok(true), Ok(true)]),
            ("open mode", rules(Mode::Open), [Ok(true), Ok(true), Ok(true)]),
            ("other keys", other_keys, [gone, Ok(false), gone]),
            ("no user header", policy(Mode::Token), [Ok(false), gone, gone]),
            ("other default rights", other_rights, [Ok(true), Ok(true), gone]),
        ] {
            assert_eq!(ask(&policy), expected, "{what}");
        }
        revoked.apply(Ruling::Revoked(Subject::User("alice".into(), NOW.unix_seconds() + 1)));
        let was_revoked = Err(Reason::Revoked);
        assert_eq!(ask(&rules(Mode::Token)), [was_revoked, was_revoked, gone]);
        assert_eq!(ask(&rules(Mode::Open)), [was_revoked, was_revoked, Ok(true)]);
        let shown = Shown { authorization: Once::One(&line), ..nothing() };
        let at_the_door = authenticate(&rules(Mode::Token), &shown, true, NOW, &revoked);
        assert_eq!(at_the_door.unwrap_err().reason, Reason::Revoked);
    }

    #[test]
    fn s4_a_key_is_good_as_long_as_all_of_it_is() {
        let key = |name: &str, key: &str, right: &str| {
            Arc::new(ApiKey { name: name.to_owned(), key: key.to_owned(), rights: vec![right.to_owned()] })
        };
        let with = |mode, api_keys| Policy { api_keys, ..policy(mode) };
        let held = key("n", "k", "sessions");
        let everybody = backend(&with(Mode::Open, Vec::new()), &nothing()).unwrap();
        for (keys, expected) in [
            (vec![key("other", "o", "*"), held.clone()], true),
            (vec![key("n", "k2", "sessions")], false),
            (vec![key("n", "k", "*")], false),
            (vec![key("m", "k", "sessions")], false),
            (Vec::new(), false),
        ] {
            for mode in [Mode::Token, Mode::Open] {
                let policy = with(mode, keys.clone());
                assert_eq!(recheck_key(&policy, &held).is_ok(), expected, "{mode:?} {keys:?}");
                // Whom nobody asked for a key comes in as long as nobody is asked for one.
                let stays = mode == Mode::Open && keys.is_empty();
                assert_eq!(recheck_key(&policy, &everybody).is_ok(), stays, "{mode:?} {keys:?}");
            }
        }
    }

    #[test]
    fn cookies_lists_and_queries_are_taken_apart() {
        for (line, expected) in [
            ("a=1; session=tok; b=2", &["tok"][..]),
            ("session=tok", &["tok"]),
            ("session = tok ;", &["tok"]),
            ("session=a=b==", &["a=b=="]),
            ("session=a; session=b", &["a", "b"]),
            ("Session=tok", &[]),
            ("xsession=tok; session2=tok", &[]),
            ("session=", &[]),
            ("session", &[]),
            ("", &[]),
        ] {
            assert_eq!(cookies(line, "session").collect::<Vec<_>>(), expected, "{line}");
        }
        for (query, expected) in [
            ("token=a.b.c", &["a.b.c"][..]),
            ("x=1&token=a%2Eb", &["a.b"]),
            ("%74oken=a", &["a"]),
            ("token=a&token=b", &["a", "b"]),
            ("token=&x=1", &[]),
            ("tokens=a&TOKEN=b", &[]),
            ("", &[]),
        ] {
            assert_eq!(query_tokens(query).collect::<Vec<_>>(), expected, "{query}");
        }
        assert_eq!(list(" a ,, b,\tc").collect::<Vec<_>>(), ["a", "b", "c"]);
    }

    #[test]
    fn a_cookie_is_the_credential_only_where_nothing_comes_before_it() {
        let only = |authorization, protocols: Vec<&'static str>, cookie| {
            Shown { authorization, protocols, cookie, ..nothing() }.has_only_cookie()
        };
        for (authorization, protocols, cookie, expected) in [
            (Once::Absent, vec![], Once::One("t"), true),
            (Once::Absent, vec!["v1"], Once::One("t"), true),
            (Once::One("Basic x"), vec![], Once::One("t"), true),
            (Once::Absent, vec![], Once::Several, true),
            (Once::One("Bearer t"), vec![], Once::One("t"), false),
            (Once::Absent, vec!["bearer.t"], Once::One("t"), false),
            (Once::Absent, vec![], Once::Absent, false),
        ] {
            assert_eq!(only(authorization, protocols.clone(), cookie), expected, "{protocols:?}");
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let canary = "canary";
        let shown = Shown {
            authorization: Once::One("Bearer canary"),
            protocols: vec!["bearer.canary"],
            cookie: Once::One(canary),
            query_token: Once::One(Cow::Borrowed(canary)),
            api_key: Once::One(canary),
            user_header: Once::Absent,
        };
        let mut policy = policy(Mode::Token);
        policy.api_keys.push(Arc::new(ApiKey {
            name: "n".to_string(),
            key: "canary2".to_string(),
            rights: Vec::new(),
        }));
        let denied = authenticate(&policy, &shown, false, NOW, &Revocations::default()).unwrap_err();
        let unknown = backend(&policy, &shown).unwrap_err();
        let text = format!("{shown:?} {:?} {policy:?} {denied:?} {unknown:?}", shown.cookie);
        assert!(!text.contains(canary), "{text}");
    }
}
