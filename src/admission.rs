//! The door: what a request's head leads to, and if to nothing, why. One pure decision, which `commitcast explain` replays.
//!
//! The order is the order of blame: a malformed upgrade is told so before its Origin is judged, an Origin before a token,
//! because whoever debugs a refusal should mend the outermost fault first. An unknown path comes before all of it: it is a
//! 404, never a 403 (three of the five documents this server answers are about an unexplained 403).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::auth::revoked::Revocations;
use crate::auth::{self, ApiKey, Mode, Principal, Shown, peer};
use crate::clock::{Mono, Wall};
use crate::config::{Live, Style};
use crate::dialect::{self, Name, Route, Target};
use crate::guests::Guests;
use crate::http::{Deflate, Head, Method, Reason, Reject, cors, extensions, upgrade};

/// Where a request came in.
#[derive(Clone, Copy, Debug)]
pub struct Door<'a> {
    pub live: &'a Live,
    /// What the listener serves.
    pub dialects: &'a [Name],
    pub peer: IpAddr,
    pub now: Wall,
    /// Nobody is let in any more, for this reason.
    pub refusing: Option<Reason>,
    /// The addresses that guess tokens, and the time by which they are barred; none offline.
    pub guests: Option<(&'a Guests, Mono)>,
    /// The tokens that are not believed any more; offline nobody knows them.
    pub revoked: &'a Revocations,
}

/// The server's own endpoints. Where an answer differs by what the listener serves, it says what that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Root(Served),
    Health(Served),
    Live,
    Ready,
    Metrics,
    /// The written protocol: of HTTP, and of sockets.
    OpenApi,
    AsyncApi,
    /// The agents' counters under the names of the application it stands in for.
    AgentsMetrics,
}

/// What a listener serves: a union of [`Name::bit`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Served(u8);

impl fmt::Debug for Served {
    /// By name: `commitcast explain` shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl Served {
    pub fn of(dialects: &[Name]) -> Served {
        Served(dialects.iter().fold(0, |bits, name| bits | name.bit()))
    }

    pub fn has(self, name: Name) -> bool {
        self.0 & name.bit() != 0
    }

    pub fn names(self) -> impl Iterator<Item = Name> {
        Name::ALL.into_iter().filter(move |name| self.has(*name))
    }

    /// The dialect that it is restricted to.
    pub fn only(self) -> Option<Name> {
        self.names().next().filter(|name| self.0 == name.bit())
    }
}

/// A request let in.
#[derive(Clone, Debug, PartialEq)]
pub enum Admitted {
    Service(Service),
    /// The page may ask; nothing is done yet.
    Preflight,
    /// For this user; `true` when a credential had to show who it is.
    Endpoint(Name, Arc<str>, bool),
    /// For the backend with this key.
    Backend(Arc<ApiKey>),
    Socket(Box<Socket>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Socket {
    pub target: Target,
    pub principal: Principal,
    /// A credential had to show who it is.
    pub verified: bool,
    /// Nobody yet: it is to show its credential in its first message.
    pub nobody: bool,
    /// Of a backend.
    pub key: Option<Arc<ApiKey>>,
    pub accept: [u8; 28],
    /// The subprotocol to choose.
    pub protocol: Option<String>,
    /// What to agree to of compressing messages.
    pub deflate: Option<Deflate>,
    pub close_style: bool,
    /// Rates are held against it: everybody but a loopback client in debug mode.
    pub metered: bool,
    /// Its address has an account: a stranger's, in token mode.
    pub is_guest: bool,
}

/// A decision, with what its log line and its reply need.
#[derive(Clone, Debug)]
pub struct Decision {
    pub client: IpAddr,
    /// The page's origin, when it is allowed: CORS headers go with every reply, refusals included.
    pub origin: Option<String>,
    pub outcome: Result<Admitted, Refused>,
}

#[derive(Clone, Debug)]
pub struct Refused {
    pub reject: Reject,
    /// The handshake itself is sound, and the dialect refuses by accepting and closing: this is the accept value.
    pub accept: Option<[u8; 28]>,
    /// The subprotocol to choose with it.
    pub protocol: Option<String>,
}

impl From<Reject> for Refused {
    fn from(reject: Reject) -> Refused {
        Refused { reject, accept: None, protocol: None }
    }
}

pub fn decide(head: &Head<'_>, door: &Door<'_>) -> Decision {
    let client = peer::client_address(door.peer, head.header_all("x-forwarded-for"), &door.live.trusted);
    let mut origin = None;
    let outcome = judge(head, door, client, &mut origin);
    Decision { client, origin, outcome }
}

fn judge(head: &Head<'_>, door: &Door<'_>, client: IpAddr, origin: &mut Option<String>) -> Result<Admitted, Refused> {
    if let Some(service) = service(head, door) {
        return match head.method {
            Method::Get | Method::Head => Ok(Admitted::Service(service)),
            _ => Err(Reject::new(Reason::Method, "this endpoint answers GET").into()),
        };
    }
    let route = dialect::route(head.path, head.query, door.dialects).map_err(|reject| misnamed(head, door, reject))?;
    let served = |name: Name| door.dialects.contains(&name);
    match route {
        Some(Route::Socket(target)) if served(target.dialect()) && debug_if_needed(&target, door) => {
            socket(head, door, client, target, origin).map(|socket| Admitted::Socket(Box::new(socket)))
        }
        Some(Route::Endpoint(name)) if served(name) => endpoint(head, door, client, name, origin),
        Some(Route::Backend) if served(Name::Native) => backend(head, door, client, origin),
        _ => Err(Reject::new(Reason::UnknownPath, format!("nothing is served at {}", shown_path(head.path))).into()),
    }
}

/// An id that cannot be one is refused in the style of its dialect, as one that is unknown.
fn misnamed(head: &Head<'_>, door: &Door<'_>, reject: Reject) -> Refused {
    let name = match reject.reason {
        Reason::BadPromptId => Some(Name::Documents),
        Reason::BadSession => Some(Name::Agents),
        _ => None,
    };
    let closes = name.is_some_and(|name| door.dialects.contains(&name) && door.live.refuse(name) == Style::Close);
    let sound = if closes { upgrade::check(head).ok() } else { None };
    let protocol = sound.as_ref().and_then(|upgrade| chosen_protocol(&upgrade.protocols));
    let accept = sound.map(|upgrade| upgrade.accept);
    Refused { reject, accept, protocol }
}

fn service(head: &Head<'_>, door: &Door<'_>) -> Option<Service> {
    let served = Served::of(door.dialects);
    match head.path {
        // A socket that somebody dials there is one at an unknown path.
        "/" if !head.wants_upgrade() => Some(Service::Root(served)),
        "/api/v1/metrics" if served.has(Name::Agents) => Some(Service::AgentsMetrics),
        "/health" => Some(Service::Health(served)),
        "/healthz" => Some(Service::Live),
        "/readyz" => Some(Service::Ready),
        "/metrics" => Some(Service::Metrics),
        "/openapi.json" => Some(Service::OpenApi),
        "/asyncapi.json" => Some(Service::AsyncApi),
        _ => None,
    }
}

/// The echo exists for conformance suites and measuring, not for the public.
fn debug_if_needed(target: &Target, door: &Door<'_>) -> bool {
    !matches!(target, Target::Echo) || door.live.policy(Name::Native).mode == Mode::Debug
}

fn socket(
    head: &Head<'_>,
    door: &Door<'_>,
    client: IpAddr,
    target: Target,
    origin: &mut Option<String>,
) -> Result<Socket, Refused> {
    let upgrade = upgrade::check(head)?;
    let name = target.dialect();
    let close_style = door.live.refuse(name) == Style::Close;
    let protocol = chosen_protocol(&upgrade.protocols);
    let in_style = |reject: Reject| Refused {
        reject,
        accept: close_style.then_some(upgrade.accept),
        protocol: protocol.clone().filter(|_| close_style),
    };
    if let Some(reason) = door.refusing {
        return Err(in_style(Reject::new(reason, "the server is shutting down")));
    }
    let mode = door.live.policy(name).mode;
    let (principal, key, nobody) = if target == Target::Backend {
        let key = identify_backend(head, door, client, origin).map_err(in_style)?;
        (auth::principal_of(&key), Some(key), false)
    } else if target == Target::Native && shows_nothing(head, door) {
        // It may show its token in its first message, as browsers can show one nowhere else; until then it has no right.
        judge_origin(head, door, name, false, origin).map_err(in_style)?;
        bar_guessers(door, mode, client).map_err(in_style)?;
        (auth::nobody(), None, true)
    } else {
        (identify(head, door, client, name, origin).map_err(in_style)?, None, false)
    };
    Ok(Socket {
        target,
        principal,
        verified: mode == Mode::Token,
        nobody,
        key,
        accept: upgrade.accept,
        protocol,
        deflate: offered_deflate(head, door),
        close_style,
        metered: mode != Mode::Debug || !client.is_loopback(),
        is_guest: is_guest(mode, client),
    })
}

fn offered_deflate(head: &Head<'_>, door: &Door<'_>) -> Option<Deflate> {
    if !door.live.deflate.enabled {
        return None;
    }
    extensions::agree(head.header_all("sec-websocket-extensions"))
}

/// A browser drops a connection on which none of its offered subprotocols was chosen, and then shows no close code either;
/// the originals never chose one. So where one carries a token, good or bad, one is chosen: the first of the others, so that
/// the token is not sent back, or else the token's own.
fn chosen_protocol(offered: &[&str]) -> Option<String> {
    let carries_a_token = |protocol: &&&str| protocol.starts_with("bearer.");
    let token = offered.iter().find(carries_a_token)?;
    Some((*offered.iter().find(|protocol| !carries_a_token(protocol)).unwrap_or(token)).to_owned())
}

fn endpoint(
    head: &Head<'_>,
    door: &Door<'_>,
    client: IpAddr,
    name: Name,
    origin: &mut Option<String>,
) -> Result<Admitted, Refused> {
    if head.wants_upgrade() {
        // Our own endpoints never become sockets; the answer is the plain one (threat row 14).
        log::debug!("an upgrade was asked of the endpoint {}", shown_path(head.path));
    }
    if cors::is_preflight(head) {
        judge_origin(head, door, name, false, origin)?;
        return Ok(Admitted::Preflight);
    }
    if let Some(reason) = door.refusing {
        return Err(Reject::new(reason, "the server is shutting down").into());
    }
    let principal = identify(head, door, client, name, origin)?;
    let (rooms, verb) = dialect::endpoint_needs(name, head);
    // A request names a prompt by any of its spellings, and which room that is only the store knows. So over HTTP the
    // right must cover all of them; sockets are judged by their canonical room.
    if !principal.rights.allows(rooms, verb) {
        let detail = format!("{} on {rooms} is not granted", verb.as_str());
        return Err(Reject::new(Reason::Forbidden, detail).into());
    }
    let verified = door.live.policy(name).mode == Mode::Token;
    Ok(Admitted::Endpoint(name, principal.user, verified))
}

/// A request of the backend protocol. What its key may do is judged request by request.
fn backend(head: &Head<'_>, door: &Door<'_>, client: IpAddr, origin: &mut Option<String>) -> Result<Admitted, Refused> {
    if cors::is_preflight(head) {
        judge_origin(head, door, Name::Native, false, origin)?;
        return Ok(Admitted::Preflight);
    }
    if let Some(reason) = door.refusing {
        return Err(Reject::new(reason, "the server is shutting down").into());
    }
    Ok(Admitted::Backend(identify_backend(head, door, client, origin)?))
}

/// In debug and open mode without any key configured, everybody on the listener is the backend. A program sends no Origin,
/// and `origins.absent = "deny"` is about clients: where that is set, backends come in nevertheless. A page's is judged.
fn identify_backend(
    head: &Head<'_>,
    door: &Door<'_>,
    client: IpAddr,
    origin: &mut Option<String>,
) -> Result<Arc<ApiKey>, Reject> {
    let policy = door.live.policy(Name::Native);
    if head.header_all("origin").next().is_some() {
        judge_origin(head, door, Name::Native, false, origin)?;
    } else if head.header_all("sec-fetch-site").any(|site| matches!(site, "cross-site" | "same-site")) {
        // An image in a stranger's page asks without an Origin, and where nobody needs a key it would lease every task.
        return Err(Reject::new(Reason::Origin, "another site's page asks without saying which it is"));
    }
    bar_guessers(door, policy.mode, client)?;
    auth::backend(policy, &Shown::of(head, policy))
}

/// Token mode, and no credential of any kind on a native socket.
fn shows_nothing(head: &Head<'_>, door: &Door<'_>) -> bool {
    let policy = door.live.policy(Name::Native);
    policy.mode == Mode::Token && Shown::of(head, policy).is_empty()
}

fn judge_origin(
    head: &Head<'_>,
    door: &Door<'_>,
    name: Name,
    only_cookie: bool,
    origin: &mut Option<String>,
) -> Result<(), Reject> {
    let allowed = door.live.origins(name).check(head.header_all("origin"), only_cookie)?;
    *origin = allowed.map(|origin| origin.as_str().to_owned());
    Ok(())
}

fn bar_guessers(door: &Door<'_>, mode: Mode, client: IpAddr) -> Result<(), Reject> {
    let barred = |(guests, now): (&Guests, Mono)| guests.is_barred(client, now);
    if is_guest(mode, client) && door.guests.is_some_and(barred) {
        return Err(Reject::new(Reason::TooManyRequests, "too many wrong tokens from this address"));
    }
    Ok(())
}

/// Whose address has an account (guests.rs).
fn is_guest(mode: Mode, client: IpAddr) -> bool {
    mode == Mode::Token && !client.is_loopback()
}

/// Origin first, then the credential.
fn identify(
    head: &Head<'_>,
    door: &Door<'_>,
    client: IpAddr,
    name: Name,
    origin: &mut Option<String>,
) -> Result<Principal, Reject> {
    let policy = door.live.policy(name);
    let shown = Shown::of(head, policy);
    judge_origin(head, door, name, shown.has_only_cookie(), origin)?;
    bar_guessers(door, policy.mode, client)?;
    let by_proxy = peer::is_trusted(door.peer, &door.live.trusted);
    auth::authenticate(policy, &shown, by_proxy, door.now, door.revoked)
}

/// A path for a human's eyes: bounded, and free of what a terminal would act on.
fn shown_path(path: &str) -> String {
    path.chars().filter(|letter| !letter.is_control()).take(120).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::config::{Flags, Settings};
    use crate::http::head;

    const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    const TOKEN_MODE: &str = "[auth]\nmode = 'token'\nhs256_secret = '0123456789abcdef0123456789abcdef'\n\
                              [origins]\nallow = ['https://app.example.com']\n";

    /// The decision in a word: what was let in, or the reason and, in close style, a `+`.
    fn decide_on(config: &str, request: &str, refusing: Option<Reason>) -> String {
        let all = Name::ALL.map(Name::as_str).join(",");
        decide_for(&all, config, request, refusing)
    }

    /// The same at a listener of some dialects.
    fn decide_for(dialects: &str, config: &str, request: &str, refusing: Option<Reason>) -> String {
        let listen = vec![format!("127.0.0.1:0={dialects}")];
        let flags = Flags { config: Some("c".into()), listen, ..Flags::default() };
        let settings = Settings::build(&flags, std::iter::empty(), |_| Ok(config.to_owned())).unwrap();
        let live = settings.live();
        let door = Door {
            live: &live,
            dialects: &settings.listeners[0].dialects,
            peer: "127.0.0.1".parse().unwrap(),
            now: Wall(1_700_000_000_000_000),
            refusing,
            guests: None,
            revoked: &Revocations::default(),
        };
        let text = format!("{request}\r\n");
        let parsed = match head::parse(text.as_bytes()) {
            Ok(Some((parsed, _))) => parsed,
            other => panic!("{request}: {other:?}"),
        };
        match decide(&parsed, &door).outcome {
            Ok(Admitted::Socket(socket)) => {
                let key = socket.key.map_or(String::new(), |key| format!(" with key {}", key.name));
                let nobody = if socket.nobody { ", to be shown" } else { "" };
                format!("socket {:?} as {}{key}{nobody}", socket.target.dialect(), socket.principal.user)
            }
            Ok(Admitted::Service(service)) => format!("{service:?}").split('(').next().unwrap_or_default().to_owned(),
            Ok(Admitted::Backend(key)) => format!("backend {}", key.name),
            Ok(Admitted::Endpoint(name, user, _)) => format!("endpoint {name:?} as {user}"),
            Ok(other) => format!("{other:?}"),
            Err(refused) => format!("{}{}", refused.reject.row().name, if refused.accept.is_some() { "+" } else { "" }),
        }
    }

    fn get(path: &str, fields: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}")
    }

    #[test]
    fn a_strangers_image_is_no_backend() {
        let ask = |more: &str| {
            let request = format!("GET /v1/tasks?max=1000 HTTP/1.1\r\nHost: h\r\n{more}\r\n");
            decide_on("", &request, None)
        };
        for (site, is_let_in) in [("cross-site", false), ("same-site", false), ("none", true), ("same-origin", true)] {
            let decided = ask(&format!("Sec-Fetch-Site: {site}\r\n"));
            assert_eq!(decided.starts_with("backend"), is_let_in, "{site}: {decided}");
        }
        // A page that says who it is is judged by its origin.
        assert!(ask("Sec-Fetch-Site: cross-site\r\nOrigin: http://localhost:5173\r\n").starts_with("backend"));
    }

    #[test]
    fn the_outermost_fault_is_told_first() {
        let foreign = format!("{UPGRADE}Origin: https://evil.example\r\nAuthorization: Bearer wrong\r\n");
        let known = format!("{UPGRADE}Origin: https://app.example.com\r\nAuthorization: Bearer wrong\r\n");
        let broken = foreign.replace("Version: 13", "Version: 8");
        for (request, expected) in [
            (get("/nowhere", &broken), "unknown_path"),
            (get("/ws/prompts/a%00b", &broken), "bad_prompt_id"),
            (get("/ws/prompts/p", &broken), "version"),
            (get("/ws/prompts/p", &foreign), "origin"),
            (get("/ws/prompts/p", &known), "token"),
            (get("/ws/prompts/p", UPGRADE), "token"),
            (get("/ws/prompts/p", ""), "not_an_upgrade"),
            (get("/api/prompts/all", "Origin: https://evil.example\r\n"), "origin"),
            (get("/api/prompts/all", ""), "token"),
        ] {
            assert_eq!(decide_on(TOKEN_MODE, &request, None), expected, "{request}");
        }
    }

    #[test]
    fn each_mode_lets_in_whom_it_says() {
        let prompt = get("/ws/prompts/p", UPGRADE);
        assert_eq!(decide_on("", &prompt, None), "socket Documents as test-user-123");
        assert_eq!(decide_on("[auth]\nmode = 'open'\n", &prompt, None), "socket Documents as anonymous");
        assert_eq!(decide_on("", &get("/api/prompts/all", ""), None), "endpoint Documents as test-user-123");
        assert_eq!(decide_on("", &get("/v1/echo", UPGRADE), None), "socket Native as test-user-123");
        assert_eq!(decide_on("[auth]\nmode = 'open'\n", &get("/v1/echo", UPGRADE), None), "unknown_path");
    }

    #[test]
    fn the_servers_own_endpoints_ask_for_nothing_and_are_never_sockets() {
        for (path, service) in [
            ("/health", "Health"),
            ("/healthz", "Live"),
            ("/readyz", "Ready"),
            ("/metrics", "Metrics"),
            ("/openapi.json", "OpenApi"),
            ("/asyncapi.json", "AsyncApi"),
            ("/api/v1/metrics", "AgentsMetrics"),
        ] {
            assert_eq!(decide_on(TOKEN_MODE, &get(path, UPGRADE), Some(Reason::Draining)), service);
            let post = format!("POST {path} HTTP/1.1\r\nHost: a\r\n");
            assert_eq!(decide_on("", &post, None), "method");
        }
    }

    #[test]
    fn the_bare_address_is_a_page_and_no_socket() {
        assert_eq!(decide_on(TOKEN_MODE, &get("/", ""), None), "Root");
        assert_eq!(decide_on("", &get("/", UPGRADE), None), "unknown_path");
    }

    #[test]
    fn a_listener_knows_what_it_serves() {
        for (dialects, only) in [
            (&[][..], None),
            (&[Name::Agents], Some(Name::Agents)),
            (&[Name::Documents], Some(Name::Documents)),
            (&[Name::Documents, Name::Agents], None),
            (&Name::ALL, None),
        ] {
            let served = Served::of(dialects);
            assert_eq!(served.only(), only, "{dialects:?}");
            assert_eq!(served.names().collect::<Vec<_>>(), dialects);
        }
        // The agents' metrics are the agents': elsewhere the path is nobody's.
        assert_eq!(decide_for("documents", "", &get("/api/v1/metrics", ""), None), "unknown_path");
        assert_eq!(decide_for("agents", "", &get("/api/v1/metrics", ""), None), "AgentsMetrics");
    }

    const KEYS: &str = "[auth]\nmode = 'token'\n\
                        api_keys = [{ name = 'worker', key = 'a key that nobody guesses', rights = ['tasks:*'] }]\n";
    const KEY: &str = "X-API-Key: a key that nobody guesses\r\n";

    #[test]
    fn a_backend_comes_in_with_its_key() {
        let bearer = KEY.replace("X-API-Key:", "Authorization: Bearer");
        let wrong = KEY.replace("nobody", "somebody");
        let socket = |fields: &str| get("/v1/backend", &format!("{UPGRADE}{fields}"));
        let take = |fields: &str| get("/v1/tasks?kinds=execute", fields);
        for (config, request, expected) in [
            // Without keys the one backend of debug and open mode is everybody.
            ("", socket(""), "socket Native as backend with key backend"),
            ("", take(""), "backend backend"),
            ("[auth]\nmode = 'open'\n", take(&wrong), "backend backend"),
            (KEYS, socket(KEY), "socket Native as worker with key worker"),
            (KEYS, socket(&bearer), "socket Native as worker with key worker"),
            (KEYS, take(KEY), "backend worker"),
            (KEYS, take(&bearer), "backend worker"),
            (KEYS, socket(""), "token"),
            (KEYS, socket(&wrong), "token"),
            (KEYS, take(""), "token"),
            (KEYS, take(&format!("{KEY}{KEY}")), "token"),
            (KEYS, get("/v1/backend", KEY), "not_an_upgrade"),
            // A user's token is no key.
            (TOKEN_MODE, take("Authorization: Bearer x\r\n"), "token"),
        ] {
            assert_eq!(decide_on(config, &request, None), expected, "{config}{request}");
        }
        assert_eq!(decide_on(KEYS, &take(KEY), Some(Reason::Draining)), "draining");
        let close = format!("{KEYS}[refuse.native]\nstyle = 'close'\n");
        assert_eq!(decide_on(&close, &socket(""), None), "token+");
        assert_eq!(decide_on(&close, &take(""), None), "token", "HTTP has no close codes");
        // The keys are the native dialect's: elsewhere the paths are nobody's.
        for request in [socket(KEY), take(KEY)] {
            assert_eq!(decide_for("documents", "", &request, None), "unknown_path");
        }
    }

    #[test]
    fn a_backend_needs_no_origin_and_a_page_that_would_be_one_needs_a_good_one() {
        let strict = format!("{KEYS}[origins]\nallow = ['https://app.example.com']\nabsent = 'deny'\n");
        for (fields, expected) in [
            (KEY.to_owned(), "backend worker"),
            (format!("{KEY}Origin: https://app.example.com\r\n"), "backend worker"),
            (format!("{KEY}Origin: https://evil.example\r\n"), "origin"),
            (format!("{KEY}Origin: null\r\n"), "origin"),
        ] {
            assert_eq!(decide_on(&strict, &get("/v1/tasks", &fields), None), expected, "{fields}");
            let socket = decide_on(&strict, &get("/v1/backend", &format!("{UPGRADE}{fields}")), None);
            assert_eq!(socket.starts_with("socket"), expected.starts_with("backend"), "{fields}: {socket}");
        }
        // Of clients the setting holds as before.
        let connect = |fields: &str| decide_on(&strict, &get("/v1/connect", &format!("{UPGRADE}{fields}")), None);
        assert_eq!(connect(""), "origin");
        assert_eq!(connect("Origin: https://app.example.com\r\n"), "socket Native as anonymous, to be shown");
        let asking = |origin: &str| {
            let fields = format!("Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\n");
            decide_on(&strict, &format!("OPTIONS /v1/publish HTTP/1.1\r\nHost: a\r\n{fields}"), None)
        };
        assert_eq!(asking("https://app.example.com"), "Preflight");
        assert_eq!(asking("https://evil.example"), "origin");
    }

    #[test]
    fn a_native_client_may_show_its_token_later_and_a_wrong_one_at_once_is_refused() {
        let connect = |fields: &str| get("/v1/connect", &format!("{UPGRADE}{fields}"));
        for (config, fields, expected) in [
            (TOKEN_MODE, "", "socket Native as anonymous, to be shown"),
            (TOKEN_MODE, "Origin: https://app.example.com\r\n", "socket Native as anonymous, to be shown"),
            (TOKEN_MODE, "Sec-WebSocket-Protocol: app.v1\r\n", "socket Native as anonymous, to be shown"),
            (TOKEN_MODE, "Origin: https://evil.example\r\n", "origin"),
            (TOKEN_MODE, "Authorization: Bearer x\r\n", "token"),
            (TOKEN_MODE, "Authorization: Bearer\r\n", "token"),
            (TOKEN_MODE, "X-API-Key: x\r\n", "token"),
            (TOKEN_MODE, "Sec-WebSocket-Protocol: bearer.x\r\n", "token"),
            ("", "", "socket Native as test-user-123"),
            ("[auth]\nmode = 'open'\n", "", "socket Native as anonymous"),
        ] {
            assert_eq!(decide_on(config, &connect(fields), None), expected, "{config}{fields}");
        }
        // Of the other dialects nobody comes in without.
        assert_eq!(decide_on(TOKEN_MODE, &get("/ws/prompts/p", UPGRADE), None), "token");
    }

    #[test]
    fn whoever_is_to_show_a_token_has_no_right_yet() {
        let nobody = auth::nobody();
        assert!(crate::auth::rights::Verb::ALL.into_iter().all(|verb| !nobody.rights.allows("debug", verb)));
    }

    #[test]
    fn a_subprotocol_is_chosen_where_one_carries_the_token() {
        for (offered, chosen) in [
            (&[][..], None),
            (&["app.v1"], None),
            (&["bearer.x"], Some("bearer.x")),
            (&["app.v1", "bearer.x"], Some("app.v1")),
            (&["bearer.x", "app.v1"], Some("app.v1")),
        ] {
            assert_eq!(chosen_protocol(offered).as_deref(), chosen, "{offered:?}");
        }
    }

    #[test]
    fn a_preflight_is_judged_by_its_origin_alone() {
        let asking = |origin: &str| {
            format!(
                "OPTIONS /api/prompts/p HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: PUT\r\n"
            )
        };
        assert_eq!(decide_on(TOKEN_MODE, &asking("https://app.example.com"), None), "Preflight");
        assert_eq!(decide_on(TOKEN_MODE, &asking("https://evil.example"), None), "origin");
    }

    #[test]
    fn newcomers_are_refused_in_the_style_of_their_dialect() {
        let prompt = get("/ws/prompts/p", UPGRADE);
        assert_eq!(decide_on("", &prompt, Some(Reason::Draining)), "draining");
        let close = "[refuse.documents]\nstyle = 'close'\n";
        assert_eq!(decide_on(close, &prompt, Some(Reason::StoreBroken)), "store_broken+");
        let broken = get("/ws/prompts/p", &UPGRADE.replace("Version: 13", "Version: 8"));
        assert_eq!(decide_on(close, &broken, None), "version", "what is no handshake cannot be accepted");
    }
}
