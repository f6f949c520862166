//! Golden transcripts: what is said on the wire, byte for byte. A new behaviour is a new file in `golden/`, not new code.
//!
//! A transcript is played against a server of its own, line by line:
//!
//! ```text
//! # a comment
//! = toml <one line of configuration>            before anything else; several make one text
//! = file one.md "text of the file"              a Markdown file below $ROOT, there before the server starts
//! = connect A /ws/prompts/one                   a client; its first frame is the next `A<`
//! = refused /ws/prompts/none                    a handshake that must fail; the next lines are the answer
//! = http PUT /api/prompts/one {"content":"x"}   the next lines are the answer
//! < 200 {"id":"one"}                            status and body
//! < header X-WS-Reject: unknown_prompt          a header of that answer
//! = publish topic:t note {"a":1}                a backend's event: room, type, data (its key: `toml` [BACKEND])
//! = stop                                        ends the server, with everything written
//! = holds one.md "text of the file"             after the stop (absent: `= gone one.md`)
//! A> {"action":"update","content":"x"}          a text frame        A>binary 00ff   A>ping text   A>close 1000 bye
//! A< {"action":"update_status",…}               the next frame      A<binary 00ff   A<pong text   A<close 1000 bye
//! A<silence                                     nothing was sent that no line has named (on a prompt's socket)
//! ```
//!
//! In expected text, `$T` is an aware UTC timestamp, `$Z` one with `Z`, `$L` a naive local one, in exactly the form of the
//! originals (microseconds, dropped when they are zero) and of this minute; `$T(a)` must be the same wherever it stands.
//! `$N` is a naive UTC one; `$H` eight hex digits, `$U` a UUID, both in lower case: ids that the server makes.
//! `$S` is a naive UTC one in whole seconds, `$E` an epoch, `$D` a digest. What a client or a request says may hold `$U(a)`
//! and the like: the text that it stood for before. `$C` is a connection's id, and `$V` the server's version.
//! `$ROOT` is the directory of the files and `$NAME` its last part, in everything; `$HOST` the address.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use tungstenite::Message;
use tungstenite::protocol::CloseFrame;

use crate::stage::{self, Answer, Client, Heard, House};

/// One test a file, so that each says by its name what broke; `every_transcript_is_played` sees to it that none is forgotten.
macro_rules! transcripts {
    ($($name:ident),+ $(,)?) => {
        const PLAYED: &[&str] = &[$(stringify!($name)),+];
        $(
            #[test]
            fn $name() {
                play(stringify!($name), include_str!(concat!("golden/", stringify!($name), ".txt")));
            }
        )+
    };
}

transcripts![
    agents_auto,
    agents_connect,
    agents_decisions,
    agents_guard,
    agents_malformed,
    agents_rest,
    agents_run,
    agents_sessions,
    backend_http,
    backend_socket,
    debug_sockets,
    echo,
    expand,
    files,
    get_details,
    initial,
    life_cycle_on_sockets,
    malformed,
    named_operations,
    native_auth,
    native_documents,
    native_nonsense,
    native_resume,
    native_rooms,
    refusals,
    rest_create,
    rest_delete,
    rest_expand,
    rest_read,
    rest_rename,
    rest_update,
    silence,
    tickets_events,
    tickets_http,
    tickets_logs,
    tickets_sockets,
    update,
    update_metadata,
    websocket_check,
    workflows_chat,
    workflows_http,
    workflows_pages,
    workflows_pushed,
    workflows_topics,
    workflows_welcome,
];

#[test]
fn every_transcript_is_played() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden");
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    found.sort();
    assert_eq!(found, PLAYED, "files in golden/ on the left, names in transcripts![] on the right");
}

/// The judge is judged: what it must not let pass.
#[test]
fn a_transcript_that_does_not_hold_fails() {
    let now = Timestamp::now();
    let utc = now.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S.123456+00:00").to_string();
    let local = now.to_zoned(TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S.123456").to_string();
    let whole = now.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S").to_string();
    for (expected, actual, holds) in [
        ("{\"a\":1}", "{\"a\":1}".to_owned(), true),
        ("{\"a\":1}", "{\"a\": 1}".to_owned(), false),
        ("{\"a\":1}", "{\"a\":1}x".to_owned(), false),
        ("\"$T\"", format!("\"{utc}\""), true),
        ("\"$T\"", format!("\"{whole}+00:00\""), true),
        ("\"$T\"", format!("\"{whole}.000000+00:00\""), false),
        ("\"$T\"", format!("\"{whole}.123+00:00\""), false),
        ("\"$T\"", format!("\"{whole}.123456Z\""), false),
        ("\"$Z\"", format!("\"{whole}.123456Z\""), true),
        ("\"$T\"", format!("\"{whole}\""), false),
        ("\"$L\"", format!("\"{local}\""), true),
        ("\"$L\"", format!("\"{utc}\""), false),
        ("\"$T\"", "\"2001-05-13T01:59:00.123456+00:00\"".to_owned(), false),
        ("\"$N\"", format!("\"{whole}.123456\""), true),
        ("\"$N\"", format!("\"{whole}.123456Z\""), false),
        ("\"$S\"", format!("\"{whole}\""), true),
        ("\"$S\"", format!("\"{whole}.123456\""), false),
        ("$E $D", format!("{} {}", "0a".repeat(8), "0b".repeat(20)), true),
        ("$E", "0a".repeat(20), false),
        ("$D", "0a".repeat(8), false),
        ("\"x_$H\"", "\"x_0012abcd\"".to_owned(), true),
        ("\"x_$H\"", "\"x_0012abc\"".to_owned(), false),
        ("\"x_$H\"", "\"x_0012ABCD\"".to_owned(), false),
        ("\"x_$H\"", "\"x_00000000\"".to_owned(), false),
        ("\"$U\"", "\"0f0e-1\"".to_owned(), false),
        ("\"$U\"", "\"00000001-0002-4003-8004-000000000005\"".to_owned(), true),
        ("\"$C\"", "\"c0.1.2\"".to_owned(), true),
        ("\"$C\"", "\"c0.1\"".to_owned(), false),
        ("\"$C\"", "\"c0.01.2\"".to_owned(), false),
        ("\"$C\"", "\"0.1.2\"".to_owned(), false),
        ("$T(a) $T(a)", format!("{utc} {utc}"), true),
        ("$T(a) $T(a)", format!("{whole}.000001+00:00 {whole}.000002+00:00"), false),
    ] {
        let mut bound = BTreeMap::new();
        let verdict = matches(expected, &actual, &mut bound);
        assert_eq!(verdict.is_ok(), holds, "{expected} against {actual}: {verdict:?}");
    }
}

fn play(name: &str, text: &str) {
    let mut play = Play { name, line: 0, bound: BTreeMap::new(), clients: BTreeMap::new(), answer: None, judged: true };
    let lines: Vec<(usize, &str)> = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim_end()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let mut toml = String::new();
    let mut files: Vec<(&str, String)> = Vec::new();
    for (number, line) in &lines {
        play.line = *number;
        if let Some(rest) = line.strip_prefix("= toml ") {
            toml.push_str(rest);
            toml.push('\n');
        } else if let Some(rest) = line.strip_prefix("= file ") {
            files.push(play.path_and_text(rest));
        }
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let house = if files.is_empty() { stage::serve(1, &toml) } else { stage::serve_files(1, &toml, &files) };
    let root = house.files.as_ref().map(|_| house.root()).unwrap_or_default();
    let host = house.address.to_string();
    let mut house = Some(house);
    let mut kept = None;
    for (number, line) in lines {
        play.line = number;
        let line = line.replace("$V", env!("CARGO_PKG_VERSION"));
        let line =
            line.replace("$ROOT", &root).replace("$NAME", root.rsplit('/').next().unwrap()).replace("$HOST", &host);
        if line.starts_with("= toml ") || line.starts_with("= file ") {
            continue;
        }
        match (line.strip_prefix("= "), &house) {
            (Some("stop"), Some(_)) => {
                kept = house.take().map(House::stop);
            }
            (Some(order), Some(house)) => play.order(order, house),
            (Some(order), None) => play.order_after(order, kept.as_ref().expect("stopped").files()),
            (None, _) => play.frame_or_answer(&line),
        }
    }
    play.all_judged();
    // Whatever a socket was sent and no line has named is a difference too.
    for (client, mut socket) in std::mem::take(&mut play.clients) {
        socket.send(Message::Ping(b"the end"[..].into()));
        let heard = socket.hear();
        if !matches!(&heard, Heard::Pong(payload) if payload == b"the end") {
            play.fail(format!("{client} was sent what no line names: {heard:?}"));
        }
    }
    if let Some(house) = house {
        house.stop();
    }
}

struct Play<'a> {
    name: &'a str,
    line: usize,
    bound: BTreeMap<String, String>,
    clients: BTreeMap<String, Client>,
    /// Of the last request.
    answer: Option<Answer>,
    /// A line has said what it should be.
    judged: bool,
}

impl Play<'_> {
    fn fail(&self, why: String) -> ! {
        panic!("golden/{}.txt, line {}: {why}", self.name, self.line)
    }

    fn path_and_text<'t>(&self, rest: &'t str) -> (&'t str, String) {
        let Some((path, text)) = rest.split_once(' ') else { self.fail("a path and a JSON string".to_owned()) };
        let text = serde_json::from_str(text).unwrap_or_else(|error| self.fail(format!("a JSON string: {error}")));
        (path, text)
    }

    fn order(&mut self, order: &str, house: &House) {
        self.all_judged();
        let order = &self.filled(order);
        let words: Vec<&str> = order.splitn(4, ' ').collect();
        match words[..] {
            ["connect", client, path] => {
                self.clients.insert(client.to_owned(), house.connect(path));
            }
            ["refused", path] => match stage::dial(house.address, path, &[]) {
                Ok(_) => self.fail(format!("{path} was let in")),
                Err(answer) => self.judge_next(answer),
            },
            ["publish", room, kind, data] => {
                let answer = crate::workflows::publish(house.address, room, kind, data);
                if answer.status != 201 {
                    self.fail(format!("it was not published: {answer:?}"));
                }
            }
            ["http", method, path] => self.judge_next(house.http(method, path, "")),
            ["http", method, path, body] => self.judge_next(house.http(method, path, body)),
            _ => self.fail(format!("no such order: {order}")),
        }
    }

    fn order_after(&mut self, order: &str, root: &Path) {
        if let Some(rest) = order.strip_prefix("holds ") {
            let (path, text) = self.path_and_text(rest);
            let found = std::fs::read_to_string(root.join(path));
            match found {
                Ok(found) if found == text => {}
                other => self.fail(format!("{path} should hold {text:?}, it is {other:?}")),
            }
        } else if let Some(path) = order.strip_prefix("gone ") {
            if root.join(path).exists() {
                self.fail(format!("{path} is there"));
            }
        } else {
            self.fail(format!("after the stop: no such order: {order}"));
        }
    }

    fn frame_or_answer(&mut self, line: &str) {
        if let Some(header) = line.strip_prefix("< header ") {
            let Some((name, expected)) = header.split_once(": ") else { self.fail("name: value".to_owned()) };
            let found = self.answer.as_ref().and_then(|answer| answer.header(&name.to_ascii_lowercase()));
            if found != Some(expected) {
                self.fail(format!("header {name} should be {expected}, it is {found:?} in {:?}", self.answer));
            }
        } else if let Some(expected) = line.strip_prefix("< ") {
            let Some(answer) = &self.answer else { self.fail("there is no answer to judge".to_owned()) };
            let actual = format!("{} {}", answer.status, answer.body);
            self.judge(expected, actual.trim_end());
            self.judged = true;
        } else {
            let (client, rest) = line.split_at(line.find(['<', '>']).unwrap_or_else(|| self.fail("what?".to_owned())));
            let mut socket = match self.clients.remove(client) {
                Some(socket) => socket,
                None => self.fail(format!("nobody is called {client}")),
            };
            let (says, what) = rest.split_at(1);
            let over = if says == ">" { self.say(&mut socket, what) } else { self.hear(&mut socket, what) };
            if !over {
                self.clients.insert(client.to_owned(), socket);
            }
        }
    }
    fn judge_next(&mut self, answer: Answer) {
        self.answer = Some(answer);
        self.judged = false;
    }

    fn all_judged(&self) {
        if !self.judged {
            self.fail(format!("the answer before was judged by nobody: {:?}", self.answer));
        }
    }

    /// With what a mark has stood for, wherever it stands again.
    fn filled(&self, text: &str) -> String {
        let marks = MARKS.iter().flat_map(|mark| self.bound.iter().map(move |(name, value)| (mark, name, value)));
        marks.fold(text.to_owned(), |text, (mark, name, value)| text.replace(&format!("{mark}({name})"), value))
    }

    /// Returns whether the client is done.
    fn say(&self, socket: &mut Client, what: &str) -> bool {
        let what = &*self.filled(what);
        match what.split_once(' ').unwrap_or((what, "")) {
            ("", text) => socket.say(text),
            ("binary", hex) => socket.send(Message::binary(self.bytes(hex))),
            ("ping", text) => socket.send(Message::Ping(text.as_bytes().to_vec().into())),
            ("close", rest) => {
                let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
                let code: Option<u16> = code.parse().ok();
                let frame = code.map(|code| CloseFrame { code: code.into(), reason: reason.into() });
                socket.send(Message::Close(frame));
            }
            (other, _) => self.fail(format!("nobody can say {other}")),
        }
        false
    }

    fn hear(&mut self, socket: &mut Client, what: &str) -> bool {
        if what == "silence" {
            socket.expect_silence();
            return false;
        }
        let heard = socket.hear();
        match (what.split_once(' ').unwrap_or((what, "")), heard) {
            (("", expected), Heard::Text(text)) => self.judge(expected, &text),
            (("binary", hex), Heard::Binary(bytes)) if bytes == self.bytes(hex) => {}
            (("pong", text), Heard::Pong(payload)) if payload == text.as_bytes() => {}
            (("close", expected), Heard::Close(code, reason)) => {
                // How long to wait differs from one client to the next, which is what it is for.
                let reason = reason.split(" retry_after_ms=").next().unwrap_or_default();
                self.judge(expected, format!("{code} {reason}").trim_end());
                return true;
            }
            (_, heard) => self.fail(format!("expected `{what}`, heard {heard:?}")),
        }
        false
    }

    fn bytes(&self, hex: &str) -> Vec<u8> {
        let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
        bytes.unwrap_or_else(|| self.fail(format!("{hex} are no bytes")))
    }

    fn judge(&mut self, expected: &str, actual: &str) {
        if let Err(why) = matches(expected, actual, &mut self.bound) {
            panic!("golden/{}.txt, line {}: {why}\n  expected {expected}\n  was      {actual}", self.name, self.line);
        }
    }
}

/// What stands for a text that the server makes.
const MARKS: [&str; 10] = ["$T", "$Z", "$L", "$N", "$S", "$H", "$U", "$E", "$D", "$C"];

/// Is `actual` what `expected` says, byte for byte but for the placeholders?
fn matches(expected: &str, actual: &str, bound: &mut BTreeMap<String, String>) -> Result<(), String> {
    let (mut expected, mut actual) = (expected, actual);
    while let Some(at) = MARKS.iter().filter_map(|mark| expected.find(mark)).min() {
        let (before, rest) = expected.split_at(at);
        actual = actual.strip_prefix(before).ok_or_else(|| format!("differs in or after `{before}`"))?;
        let (kind, rest) = rest.split_at(2);
        let stamp = actual.split_at(actual.find(['"', ' ']).unwrap_or(actual.len())).0;
        match kind {
            "$H" | "$U" | "$E" | "$D" | "$C" => check_id(kind, stamp)?,
            _ => check_stamp(kind, stamp)?,
        }
        actual = &actual[stamp.len()..];
        expected = rest;
        if let Some((name, rest)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            let first = bound.entry(name.to_owned()).or_insert_with(|| stamp.to_owned());
            if first != stamp {
                return Err(format!("{kind}({name}) was {first} and is {stamp}"));
            }
            expected = rest;
        }
    }
    if expected == actual { Ok(()) } else { Err(format!("differs in or after `{expected}`")) }
}

/// An id that the server makes: its exact form, and not all of it zero.
fn check_id(kind: &str, id: &str) -> Result<(), String> {
    if kind == "$C" {
        let parts: Vec<&str> = id.strip_prefix('c').unwrap_or_default().split('.').collect();
        let is_number = |part: &&str| part.parse::<u32>().is_ok_and(|number| number.to_string() == **part);
        let holds = parts.len() == 3 && parts.iter().all(is_number);
        return if holds { Ok(()) } else { Err(format!("`{id}` is no {kind}")) };
    }
    let groups: &[usize] = match kind {
        "$U" => &[8, 4, 4, 4, 12],
        "$E" => &[16],
        "$D" => &[40],
        _ => &[8],
    };
    let parts: Vec<&str> = id.split('-').collect();
    let is_hex = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let fits = parts.iter().map(|part| part.len()).eq(groups.iter().copied()) && parts.iter().all(is_hex);
    if fits && id.bytes().any(|byte| (b'1'..=b'f').contains(&byte)) {
        Ok(())
    } else {
        Err(format!("`{id}` is no {kind}"))
    }
}

/// One of the timestamps of the originals: its exact form, and a time that is now.
fn check_stamp(kind: &str, stamp: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("`{stamp}` is no {kind}: {why}"));
    let suffix = match kind {
        "$T" => "+00:00",
        "$Z" => "Z",
        _ => "",
    };
    let Some(civil) = stamp.strip_suffix(suffix) else { return wrong("its end") };
    let fraction = civil.split_once('.').map(|(_, fraction)| fraction);
    if fraction.is_some_and(|fraction| fraction.len() != 6 || fraction == "000000") {
        return wrong("its fraction");
    }
    if kind == "$S" && fraction.is_some() {
        return wrong("it is in whole seconds");
    }
    if civil.len() != if fraction.is_some() { 26 } else { 19 } || civil.get(10..11) != Some("T") {
        return wrong("its length");
    }
    let Ok(at) = civil.parse::<DateTime>() else { return wrong("not a time") };
    let zone = if kind == "$L" { TimeZone::system() } else { TimeZone::UTC };
    let Ok(at) = at.to_zoned(zone) else { return wrong("not a time here") };
    if at.timestamp().duration_since(Timestamp::now()).abs() > jiff::SignedDuration::from_secs(60) {
        return wrong("not of this minute");
    }
    Ok(())
}
