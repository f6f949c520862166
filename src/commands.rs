//! The commands that do not serve: make a token, explain a refusal, import Markdown.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use commitcast::admission::{self, Admitted, Door};
use commitcast::auth::rights::Rights;
use commitcast::auth::token::{Mint, mint};
use commitcast::clock::Clock;
use commitcast::config::{Durability, normal_directory};
use commitcast::dialect::{Env, Name, documents};
use commitcast::files;
use commitcast::http::head;
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
    /// A further header as `Name: value`; may be repeated.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The client's address as the server would see it.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    peer: IpAddr,
    /// An ordinary GET and not a WebSocket handshake.
    #[arg(long)]
    http: bool,
}

/// Replays the door's decision. Whether a prompt exists only the store knows; everything before that is decided here.
pub fn explain(arguments: &ExplainArguments) -> ExitCode {
    let settings = match arguments.serve.settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let text = request(arguments);
    let live = settings.live();
    // Of several listeners one that serves the path: which one is asked, the command line does not say.
    let served: Vec<Name> = settings.listeners.iter().flat_map(|listen| listen.dialects.iter().copied()).collect();
    let door = Door {
        live: &live,
        dialects: &served,
        peer: SocketAddr::new(arguments.peer, 0),
        now: Clock::system().wall(),
        refusing: None,
        guests: None,
    };
    let parsed = match head::parse(text.as_bytes()) {
        Ok(Some((parsed, _))) => parsed,
        Ok(None) => return complain(EXIT_CONFIG, "the request is not complete"),
        Err(reject) => return refused(&reject),
    };
    let decision = admission::decide(&parsed, &door);
    println!("client   {}", decision.client);
    let shown = arguments.origin.as_deref();
    println!("origin   {}", decision.origin.as_deref().or(shown).unwrap_or("(none)"));
    match decision.outcome {
        Ok(Admitted::Socket(socket)) => {
            println!("accepted 101, dialect {}, target {:?}", socket.target.dialect().as_str(), socket.target);
            println!("user     {} (by {:?})", socket.principal.user, socket.principal.via);
            for (pattern, verbs) in socket.principal.rights.grants() {
                let verbs: Vec<&str> = verbs.map(|verb| verb.as_str()).collect();
                println!("right    {pattern}: {}", verbs.join(", "));
            }
            ExitCode::SUCCESS
        }
        Ok(other) => {
            println!("accepted {other:?}");
            ExitCode::SUCCESS
        }
        Err(refusal) => refused(&refusal.reject),
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
