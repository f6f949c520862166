//! The commands that do not serve: make a token, explain a refusal, import Markdown.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use commitcast::admission::{self, Admitted, Decision, Door, Socket};
use commitcast::auth::ApiKey;
use commitcast::auth::revoked::Revocations;
use commitcast::auth::rights::Rights;
use commitcast::auth::token::{Mint, mint};
use commitcast::clock::Clock;
use commitcast::config::{Durability, Listen, normal_directory};
use commitcast::dialect::{self, Env, Opening, documents};
use commitcast::files;
use commitcast::http::{Reason, head};
use commitcast::store::sqlite;

use crate::{EXIT_CONFIG, EXIT_START, Serve};

/// What was asked was refused.
const EXIT_REFUSED: u8 = 1;

#[derive(Debug, Args)]
pub struct TokenArguments {
    #[command(flatten)]
    serve: Serve,
    /// The user the token names.
    #[arg(long, value_name = "NAME")]
    user: String,
    /// How long it is good for.
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// A grant as `PATTERN=verb,verb`, such as `doc:*=read,write`; may be repeated. None: the server's default rights.
    #[arg(long = "room", value_name = "PATTERN=VERBS")]
    rooms: Vec<String>,
    /// The claim `jti`, by which this token can be revoked alone.
    #[arg(long)]
    id: Option<String>,
    /// The claim `aud`, where the server asks for one.
    #[arg(long)]
    audience: Option<String>,
    /// The claim `iss`, where the server asks for one.
    #[arg(long)]
    issuer: Option<String>,
}

pub fn token(arguments: &TokenArguments) -> ExitCode {
    let settings = match arguments.serve.settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let Some(secret) = settings.hs256_secret() else {
        return complain(EXIT_CONFIG, "no secret to sign with: set auth.hs256_secret (COMMITCAST_AUTH__HS256_SECRET)");
    };
    let grants: Vec<(&str, Vec<&str>)> = arguments
        .rooms
        .iter()
        .map(|grant| match grant.rsplit_once('=') {
            Some((pattern, verbs)) => (pattern, verbs.split(',').collect()),
            None => (grant.as_str(), vec!["read", "write"]),
        })
        .collect();
    let rooms = match Rights::parse(grants) {
        Ok(rights) => rights,
        Err(error) => return complain(EXIT_CONFIG, &format!("--room: {error}")),
    };
    let wanted = Mint {
        sub: &arguments.user,
        ttl: Some(arguments.ttl),
        rooms: (!arguments.rooms.is_empty()).then_some(&rooms),
        kid: None,
        jti: arguments.id.as_deref(),
        audience: arguments.audience.as_deref(),
        issuer: arguments.issuer.as_deref(),
    };
    match mint(secret.as_bytes(), &wanted, Clock::system().wall()) {
        Ok(token) => {
            println!("{token}");
            ExitCode::SUCCESS
        }
        Err(error) => complain(EXIT_CONFIG, &error.to_string()),
    }
}

#[derive(Debug, Args)]
pub struct ExplainArguments {
    #[command(flatten)]
    serve: Serve,
    /// The path with its query, as the client asks for it.
    #[arg(long, value_name = "TARGET")]
    path: String,
    /// The page's origin; none for a program.
    #[arg(long)]
    origin: Option<String>,
    /// A token, shown as `Authorization: Bearer`.
    #[arg(long)]
    token: Option<String>,
    /// A further header as `Name: value`, such as `X-API-Key: …`; may be repeated.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The client's address as the server would see it.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    peer: IpAddr,
    /// An ordinary GET and not a WebSocket handshake.
    #[arg(long)]
    http: bool,
}

/// Replays the door's decision. Whether a prompt or a session exists only the store knows; everything before that is
/// decided here.
pub fn explain(arguments: &ExplainArguments) -> ExitCode {
    let settings = match arguments.serve.settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let text = request(arguments);
    let parsed = match head::parse(text.as_bytes()) {
        Ok(Some((parsed, _))) => parsed,
        Ok(None) => return complain(EXIT_CONFIG, "the request is not complete"),
        Err(reject) => return refused(&reject),
    };
    let live = settings.live();
    let now = Clock::system().wall();
    let decide = |listen: &Listen| {
        let peer = arguments.peer;
        let (dialects, revoked) = (&listen.dialects, &Revocations::default());
        let door = Door { live: &live, dialects, peer, now, refusing: None, guests: None, revoked };
        admission::decide(&parsed, &door)
    };
    // Which listener is asked the command line does not say: the first one that knows the path.
    let knows = |decision: &Decision| !matches!(&decision.outcome, Err(refused) if refused.reject.reason == Reason::UnknownPath);
    let decisions: Vec<(&Listen, Decision)> =
        settings.listeners.iter().map(|listen| (listen, decide(listen))).collect();
    let chosen = decisions.iter().find(|(_, decision)| knows(decision)).or(decisions.first());
    let Some((listen, decision)) = chosen else {
        return complain(EXIT_CONFIG, "nothing is listened on");
    };
    let names: Vec<&str> = listen.dialects.iter().map(|name| name.as_str()).collect();
    println!("listener {} ({})", listen.address, names.join(", "));
    println!("client   {}", decision.client);
    let shown = arguments.origin.as_deref();
    println!("origin   {}", decision.origin.as_deref().or(shown).unwrap_or("(none)"));
    match &decision.outcome {
        Ok(admitted) => accepted(admitted),
        Err(refusal) => refused(&refusal.reject),
    }
}

fn accepted(admitted: &Admitted) -> ExitCode {
    match admitted {
        Admitted::Socket(socket) => return accepted_socket(socket),
        Admitted::Backend(key) => {
            println!("accepted as a request of the backend protocol");
            show_key(key);
        }
        Admitted::Endpoint(name, user, _) => {
            println!("accepted as a request, dialect {}", name.as_str());
            println!("user     {user}");
        }
        Admitted::Service(service) => println!("accepted by the server's own {service:?}"),
        Admitted::Preflight => println!("accepted as a preflight"),
    }
    ExitCode::SUCCESS
}

/// The door lets it in; its dialect may still see from the target alone that there is nothing to open.
fn accepted_socket(socket: &Socket) -> ExitCode {
    if let Opening::Refuse(reject) = dialect::open(&socket.target, socket.key.as_ref(), !socket.nobody) {
        return refused(&reject);
    }
    println!("accepted 101, dialect {}, target {:?}", socket.target.dialect().as_str(), socket.target);
    if let Some(deflate) = socket.deflate {
        println!("extension {}", deflate.answer());
    }
    match &socket.key {
        Some(key) => show_key(key),
        None if socket.nobody => println!("user     nobody yet: it is to show its token in its first message"),
        None => {
            println!("user     {} (by {:?})", socket.principal.user, socket.principal.via);
            for (pattern, verbs) in socket.principal.rights.grants() {
                let verbs: Vec<&str> = verbs.map(|verb| verb.as_str()).collect();
                println!("right    {pattern}: {}", verbs.join(", "));
            }
        }
    }
    ExitCode::SUCCESS
}

fn show_key(key: &ApiKey) {
    println!("backend  {}", key.name);
    for right in &key.rights {
        println!("right    {right}");
    }
}

fn request(arguments: &ExplainArguments) -> String {
    let mut text = format!("GET {} HTTP/1.1\r\nHost: localhost\r\n", arguments.path);
    if !arguments.http {
        text.push_str("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n");
        text.push_str("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n");
    }
    if let Some(origin) = &arguments.origin {
        let _ = write!(text, "Origin: {origin}\r\n");
    }
    if let Some(token) = &arguments.token {
        let _ = write!(text, "Authorization: Bearer {token}\r\n");
    }
    for header in &arguments.headers {
        let _ = write!(text, "{header}\r\n");
    }
    text.push_str("\r\n");
    text
}

fn refused(reject: &commitcast::http::Reject) -> ExitCode {
    let row = reject.row();
    println!("refused  {} {} (close style: {})", row.status, row.name, row.close);
    println!("detail   {}", reject.detail);
    println!("hint     {}", row.hint);
    ExitCode::from(EXIT_REFUSED)
}

#[derive(Debug, Args)]
pub struct ImportArguments {
    #[command(flatten)]
    serve: Serve,
    /// Directories of Markdown prompts; ids begin with the directory as it is written here.
    #[arg(required = true, value_name = "DIR")]
    directories: Vec<String>,
}

pub fn import(arguments: &ImportArguments) -> ExitCode {
    let settings = match arguments.serve.settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let durability = match settings.store.durability {
        Durability::Full => sqlite::Durability::Full,
        Durability::Normal => sqlite::Durability::Normal,
    };
    let mut roots = Vec::new();
    for text in &arguments.directories {
        // As strict as the configuration: an id that begins with `./` or `../` could be asked for by nobody.
        match normal_directory(text) {
            Ok(root) if roots.contains(&root) => {}
            Ok(root) => roots.push(root),
            Err(why) => return complain(EXIT_CONFIG, &format!("directory `{text}` {why}")),
        }
    }
    if let Some(missing) = roots.iter().find(|root| !PathBuf::from(root).is_dir()) {
        return complain(EXIT_START, &format!("{missing} is not a directory"));
    }
    let mut opened = match sqlite::open(&settings.store.path, durability) {
        Ok(opened) => opened,
        Err(error) => return complain(EXIT_START, &error.to_string()),
    };
    let scan = files::scan(&roots);
    for skipped in &scan.skipped {
        eprintln!("passed over: {skipped}");
    }
    let env = Env { documents: documents::Env { roots }, ..Env::default() };
    let passed_over = scan.skipped.len();
    match files::load(&mut opened.store, scan.files, &env, Clock::system().wall()) {
        Ok(count) => {
            println!("{count} files imported into {}, {passed_over} passed over", settings.store.path.display());
            if passed_over == 0 { ExitCode::SUCCESS } else { ExitCode::from(EXIT_REFUSED) }
        }
        Err(error) => complain(EXIT_START, &error.to_string()),
    }
}

fn complain(code: u8, message: &str) -> ExitCode {
    eprintln!("commitcast: {message}");
    ExitCode::from(code)
}
