//! The agents' vocabulary over real sockets and HTTP: who is let in, who decides, what a backend may say, what survives.
//!
//! Its messages byte for byte are the transcripts `golden/agents_*.txt`; here is what needs several askers at a time, a
//! token, a restart or a clock. Rows Y1–Y14 of the contract's table each have the test that bears their name.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use arc_swap::ArcSwap;
use commitcast::backlog::Backlog;
use commitcast::clock::Clock;
use commitcast::config::{Flags, Settings};
use commitcast::dialect::{self, Asker, Env, Intent, Reply, Write, agents, backend};
use commitcast::directory::Directory;
use commitcast::ids::ConnId;
use commitcast::mailbox::{self, Inbox, Mailbox};
use commitcast::metrics::Metrics;
use commitcast::server::Server;
use commitcast::store::memory::{Faults, MemoryStore};
use commitcast::store::worker::{Wiring, Worker};
use commitcast::store::{Delivery, Job, Retention};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tungstenite::Message;

use crate::stage::{self, Answer, Client, Heard, House, dial, raw, serve, side_by_side};
use crate::support::{self, SECRET, token};

const S: &str = "0af0bd5c-0000-4000-8000-00000000000a";
const USER: &str = "test-user-123";
const ALL: &[&str] = &["read", "write", "approve"];
const GONE: &str = "404: Approval request not found or already processed";

// ---- what the tests share ---------------------------------------------------------------------------------------------

fn room() -> String {
    format!("session:{S}")
}

/// The id of the n-th request.
fn request(n: u32) -> String {
    format!("0af0bd5c-0000-4000-9000-{n:012x}")
}

/// Debug mode, and the session.
fn house() -> House {
    let house = serve(1, "");
    made(&house, S);
    house
}

fn made(house: &House, session: &str) {
    let answer = house.http("POST", "/v1/sessions", &json!({"id": session}).to_string());
    assert_eq!(answer.status, 201, "{answer:?}");
}

const KEY: &str = "a key of the tests that is long enough";

fn token_mode(more: &str) -> String {
    format!(
        "[auth]\nmode = 'token'\nhs256_secret = '{SECRET}'\n\
         api_keys = [{{ name = 'worker', key = '{KEY}', rights = ['*'] }}]\n{more}\n"
    )
}

/// A socket of a session, whose `connected` was read.
fn page(house: &House, session: &str) -> Client {
    greeted(house.connect(&format!("/api/v1/ws/?session_id={session}")))
}

fn page_of(house: &House, token: &str) -> Client {
    greeted(house.connect(&format!("/api/v1/ws/?session_id={S}&token={token}")))
}

fn greeted(mut client: Client) -> Client {
    hear(&mut client, "connected");
    client
}

fn say(client: &mut Client, kind: &str, data: Value) {
    client.say(json!({"type": kind, "data": data}).to_string());
}

/// The data of the next frame, which must be of this type.
fn hear(client: &mut Client, kind: &str) -> Value {
    let mut frame = client.json();
    assert_eq!(frame["type"], kind, "{frame}");
    frame["data"].take()
}

/// Says it, and hears what all are told of it.
fn ask(client: &mut Client, kind: &str, data: Value, told: &str) -> Value {
    say(client, kind, data);
    hear(client, told)
}

fn execute(client: &mut Client, command: &str) -> String {
    let thinking = ask(client, "execute", json!({"command": command, "plan": null}), "thinking");
    assert_eq!(thinking["command"], command);
    thinking["execution_id"].as_str().unwrap().to_owned()
}

/// Nothing else was sent: on one reactor, what was answered elsewhere before is queued before the pong.
fn quiet(client: &mut Client, what: &str) {
    client.send(Message::Ping(b"?"[..].into()));
    assert_eq!(client.hear(), Heard::Pong(b"?".to_vec()), "{what}");
}

/// The application's own code, on `/v1/backend`.
struct Worked {
    client: Client,
    given: VecDeque<Value>,
}

impl Worked {
    fn on(house: &House, kinds: &[&str]) -> Worked {
        let mut client = dial(house.address, "/v1/backend", &[("x-api-key", KEY)]).unwrap();
        assert_eq!(client.json()["op"], "hello");
        client.say(json!({"op": "take", "kinds": kinds, "max": 1000}).to_string());
        Worked { client, given: VecDeque::new() }
    }

    fn ask(&mut self, message: Value) -> Value {
        self.client.say(message.to_string());
        loop {
            let frame = self.client.json();
            if frame["op"] != "task" {
                return frame;
            }
            self.given.push_back(frame);
        }
    }

    fn task(&mut self, kind: &str) -> Value {
        let task = self.given.pop_front().unwrap_or_else(|| self.client.json());
        assert_eq!((&task["op"], &task["kind"]), (&json!("task"), &json!(kind)), "{task}");
        task
    }

    fn done(&mut self, task: &Value) {
        let answer = self.ask(json!({"op": "done", "task": task["task"], "fence": task["fence"]}));
        assert_eq!(answer["op"], "ok", "{answer}");
    }

    fn publish(&mut self, kind: &str, data: Value) -> Value {
        self.ask(json!({"op": "publish", "room": room(), "type": kind, "data": data}))
    }

    /// Asks for a decision; gives the answer.
    fn want(&mut self, n: u32, more: Value) -> Value {
        let mut message = json!({"op": "approval", "session": S, "id": request(n), "tool_name": "pay"});
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = self.ask(message);
        assert_eq!((&answer["op"], &answer["state"]), (&json!("ok"), &json!("pending")), "{answer}");
        answer
    }
}

/// A native client in the session's room; what is there is read. Gives the room's state too.
fn native(house: &House, headers: &[(&'static str, &str)]) -> (Client, Value) {
    let mut client = dial(house.address, "/v1/connect", headers).unwrap();
    assert_eq!(client.json()["op"], "hello");
    client.say(json!({"op": "join", "room": room()}).to_string());
    let joined = client.json();
    (client, joined)
}

fn open_tasks(house: &House, kind: &str) -> Vec<Value> {
    let answer = house.http("GET", &format!("/v1/tasks?kinds={kind}&max=1000"), "");
    answer.json()["tasks"].as_array().unwrap().clone()
}

/// (type, data) of the session's log behind its birth.
fn log(house: &House) -> Vec<(String, Value)> {
    let answer = house.http("GET", &format!("/v1/rooms/{}/events?after=1&limit=500", room()), "").json();
    let events = answer["events"].as_array().unwrap_or_else(|| panic!("{answer}")).clone();
    events.into_iter().map(|event| (event["type"].as_str().unwrap().to_owned(), event["data"].clone())).collect()
}

fn with_token(house: &House, method: &str, path: &str, token: &str, body: &str) -> Answer {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
    raw(house.address, &format!("{head}Authorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n{body}"))
}

/// The reason of a refused handshake, with its status.
fn refused(address: SocketAddr, path: &str, headers: &[(&'static str, &str)]) -> (u16, String) {
    match dial(address, path, headers) {
        Ok(_) => panic!("{path} was let in"),
        Err(answer) => {
            let reason = answer.header("x-ws-reject").unwrap_or("").to_owned();
            assert_eq!(answer.json()["code"], reason, "{answer:?}");
            (answer.status, reason)
        }
    }
}

fn signed(claims: Value, secret: &str) -> String {
    encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

fn seconds() -> i64 {
    Clock::system().wall().unix_seconds()
}

/// The tokens of 4.2, with whether the original let them in.
fn tokens() -> Vec<(&'static str, String, bool)> {
    let rooms = json!({"session:*": ALL});
    let good = json!({"sub": "1", "user_id": "ann", "exp": seconds() + 600, "rooms": rooms});
    let with = |claim: &str, value: Value| {
        let mut claims = good.clone();
        claims[claim] = value;
        signed(claims, SECRET)
    };
    let without = |claim: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(claim);
        signed(claims, SECRET)
    };
    let unsigned = {
        let whole = signed(good.clone(), SECRET);
        let claims = whole.split('.').nth(1).unwrap();
        // {"alg":"none","typ":"JWT"}
        format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{claims}.")
    };
    vec![
        ("valid", signed(good.clone(), SECRET), true),
        ("no exp", without("exp"), true),
        ("garbage", "test-token-123".to_owned(), false),
        ("three parts of garbage", "a.b.c".to_owned(), false),
        ("no sub", without("sub"), false),
        ("no user_id", without("user_id"), false),
        ("numeric user_id", with("user_id", json!(7)), false),
        ("expired", with("exp", json!(seconds() - 60)), false),
        ("not yet", with("nbf", json!(seconds() + 600)), false),
        ("wrong secret", signed(good.clone(), "another secret of thirty-two bytes"), false),
        ("alg none", unsigned, false),
    ]
}

// ---- the table of the contract ------------------------------------------------------------------------------------------

#[test]
fn y1_every_spelling_of_the_path_is_served() {
    let house = house();
    for path in ["/api/v1/ws/", "/api/v1/ws", "/api/v1/ws/ws", "/ws"] {
        for query in [format!("session_id={S}"), format!("token=x&session_id={S}&x=1")] {
            let mut client = house.connect(&format!("{path}?{query}"));
            assert_eq!(hear(&mut client, "connected"), json!({"session_id": S, "user_id": USER}), "{path}?{query}");
        }
    }
    // Without a session it is the tickets' socket.
    house.connect("/ws").leave();
}

#[test]
fn y2_in_debug_mode_a_bad_token_is_no_token_and_nowhere_else() {
    let debug = serve(1, &format!("[auth]\nhs256_secret = '{SECRET}'"));
    made(&debug, S);
    let strict = serve(1, &token_mode(""));
    session_of(&strict, Some("ann"));
    for (what, token, good) in tokens() {
        let path = format!("/api/v1/ws/?session_id={S}&token={token}");
        let mut client = debug.connect(&path);
        let user = hear(&mut client, "connected")["user_id"].clone();
        assert_eq!(user, if good { "ann" } else { USER }, "{what}");
        if !good {
            let (status, reason) = refused(strict.address, &path, &[]);
            assert_eq!(status, 401, "{what}");
            assert!(matches!(&*reason, "token" | "token_expired"), "{what}: {reason}");
        }
    }
}

/// Makes the session by way of the backend in token mode.
fn session_of(house: &House, user: Option<&str>) {
    let mut worker = Worked::on(house, &[]);
    let made = worker.ask(json!({"op": "session", "id": S, "user_id": user}));
    assert_eq!(made["op"], "ok", "{made}");
}

#[test]
fn the_token_matrix_of_the_original() {
    let house = serve(1, &token_mode(""));
    session_of(&house, Some("ann"));
    for (what, token, good) in tokens() {
        let path = format!("/api/v1/ws/?session_id={S}&token={token}");
        match good {
            true => {
                let mut client = house.connect(&path);
                let connected = hear(&mut client, "connected");
                assert_eq!(connected, json!({"session_id": S, "user_id": "ann"}), "{what}");
            }
            false => assert_eq!(refused(house.address, &path, &[]).0, 401, "{what}"),
        }
    }
    let bare = format!("/api/v1/ws/?session_id={S}");
    assert_eq!(refused(house.address, &bare, &[]), (401, "token".to_owned()), "none");
    assert_eq!(refused(house.address, &format!("{bare}&token="), &[]), (401, "token".to_owned()), "an empty one");
    // A good one is not asked for a session before it is asked for itself.
    let bad = format!("/api/v1/ws/?session_id={}&token=x", request(1));
    assert_eq!(refused(house.address, &bad, &[]), (401, "token".to_owned()));
}

#[test]
fn y3_a_refusal_is_a_status_with_a_reason_or_a_close_with_a_code() {
    let close = token_mode("[refuse.agents]\nstyle = 'close'");
    for (style, house) in [("http", serve(1, &token_mode(""))), ("close", serve(1, &close))] {
        session_of(&house, Some("ann"));
        let token = token("ann", &[("session:*", ALL)]);
        let expired = signed(json!({"sub": "1", "user_id": "ann", "exp": seconds() - 60}), SECRET);
        for (what, query, status, reason, code, told) in [
            ("no token", format!("session_id={S}"), 401, "token", 4401, "no token was shown"),
            ("a bad token", format!("session_id={S}&token=x"), 401, "token", 4401, "the token is not a signed JWT"),
            (
                "an expired token",
                format!("session_id={S}&token={expired}"),
                401,
                "token_expired",
                4401,
                "the token has expired",
            ),
            ("no session", format!("token={token}"), 403, "session", 1008, "the query parameter session_id is missing"),
            ("no UUID", format!("session_id=test&token={token}"), 403, "session", 1008, "Invalid session ID format"),
            (
                "unknown",
                format!("session_id={}&token={token}", request(1)),
                403,
                "unknown_session",
                1008,
                "Invalid session",
            ),
        ] {
            for path in ["/api/v1/ws/", "/api/v1/ws", "/ws"] {
                // Without a session it is another dialect's, with its own style.
                if path == "/ws" && what == "no session" {
                    continue;
                }
                let target = format!("{path}?{query}");
                if style == "http" {
                    assert_eq!(refused(house.address, &target, &[]), (status, reason.to_owned()), "{what}");
                } else {
                    let closed = house.connect(&target).expect_close();
                    assert_eq!(closed, (code, told.to_owned()), "{what}");
                }
            }
        }
    }
}

#[test]
fn y4_another_user_s_session_looks_like_none() {
    let house = serve(1, &token_mode(""));
    session_of(&house, Some("ann"));
    let mut worker = Worked::on(&house, &["execute", "decision", "cancel"]);
    let asked = worker.want(1, json!({}));
    let (ann, bob) = (token("ann", &[("session:*", ALL)]), token("bob", &[("session:*", ALL)]));
    let unknown = request(9);

    // The socket.
    let path = |session: &str, token: &str| format!("/api/v1/ws/?session_id={session}&token={token}");
    let theirs = dial(house.address, &path(S, &bob), &[]).unwrap_err();
    let nobodys = dial(house.address, &path(&unknown, &bob), &[]).unwrap_err();
    assert_eq!((theirs.status, &theirs.body), (403, &nobodys.body));
    let mut page = page_of(&house, &ann);

    // Native.
    let bearer = format!("Bearer {bob}");
    let (mut stranger, joined) = native(&house, &[("authorization", &bearer)]);
    assert_eq!((&joined["op"], &joined["code"]), (&json!("refused"), &json!("no_such_room")), "{joined}");
    let decide = json!({"op": "decide", "room": room(), "id": "1", "approval": request(1), "decision": "approve",
        "seen": asked["digest"]});
    let publish = json!({"op": "publish", "room": room(), "id": "2", "type": "execute", "data": {"command": "x"}});
    for (message, code) in [(decide, "no_such_approval"), (publish, "no_such_room")] {
        stranger.say(message.to_string());
        let answer = stranger.json();
        assert_eq!((&answer["op"], &answer["code"]), (&json!("refused"), &json!(code)), "{answer}");
    }

    // REST: for each request, what bob is told of ann's session is what he is told of none.
    let approval = |id: &str, verb: &str| format!("/api/v1/approvals/{id}{verb}");
    for (method, ours, none, body) in [
        ("GET", format!("/api/v1/agent/sessions/{S}"), format!("/api/v1/agent/sessions/{unknown}"), ""),
        ("DELETE", format!("/api/v1/agent/sessions/{S}"), format!("/api/v1/agent/sessions/{unknown}"), ""),
        ("GET", approval(&request(1), ""), approval(&unknown, ""), ""),
        ("POST", approval(&request(1), "/approve"), approval(&unknown, "/approve"), ""),
        ("POST", approval(&request(1), "/reject"), approval(&unknown, "/reject"), "{}"),
        ("POST", approval(&request(1), "/edit"), approval(&unknown, "/edit"), r#"{"edited_args":{}}"#),
        (
            "GET",
            format!("/api/v1/approvals/pending?session_id={S}"),
            format!("/api/v1/approvals/pending?session_id={unknown}"),
            "",
        ),
    ] {
        let theirs = with_token(&house, method, &ours, &bob, body);
        let nobodys = with_token(&house, method, &none, &bob, body);
        assert_eq!((theirs.status, &theirs.body), (nobodys.status, &nobodys.body), "{method} {ours}");
    }
    let execute = |session: &str| format!(r#"{{"command":"x","session_id":"{session}"}}"#);
    let theirs = with_token(&house, "POST", "/api/v1/agent/execute", &bob, &execute(S));
    assert_eq!(theirs.status, 404, "{theirs:?}");
    for path in ["/api/v1/agent/sessions", "/api/v1/approvals/pending"] {
        let theirs = with_token(&house, "GET", path, &bob, "").json();
        assert_eq!((&theirs["total"], theirs.to_string().contains(S)), (&json!(0), false), "{theirs}");
        let own = with_token(&house, "GET", path, &ann, "").json();
        assert_eq!((&own["total"], own.to_string().contains(S)), (&json!(1), true), "{own}");
    }

    // Nothing of it happened, and its owner goes on.
    hear_nothing_and_approve(&mut page, &mut worker);

    // A session that bob makes is his.
    let made = with_token(&house, "POST", "/api/v1/agent/execute", &bob, r#"{"command":"x"}"#).json();
    let his = made["session_id"].as_str().unwrap();
    let (status, reason) = refused(house.address, &path(his, &ann), &[]);
    assert_eq!((status, &*reason), (403, "unknown_session"));

    // In debug mode nobody is told from anybody else.
    let debug = serve(1, &format!("[auth]\nhs256_secret = '{SECRET}'"));
    let made = debug.http("POST", "/v1/sessions", &json!({"id": S, "user_id": "ann"}).to_string());
    assert_eq!(made.status, 201);
    let mut client = debug.connect(&path(S, &bob));
    assert_eq!(hear(&mut client, "connected")["user_id"], "bob");
}

fn hear_nothing_and_approve(page: &mut Client, worker: &mut Worked) {
    quiet(page, "a stranger's attempts");
    ask(page, "approve", json!({"request_id": request(1)}), "approved");
    let task = worker.task("decision");
    assert_eq!((&task["data"]["by"], &task["data"]["decision"]), (&json!("ann"), &json!("approved")));
}

/// One token names one user, whichever protocol it is shown to: the account that it also names (`sub`) owns no session.
#[test]
fn y4_a_token_names_the_same_user_on_a_page_and_natively() {
    let house = serve(1, &token_mode(""));
    session_of(&house, Some("ann"));
    for (sub, user_id, expected) in [("1", "ann", "joined"), ("ann", "bob", "refused"), ("ann", "ann", "joined")] {
        let claims = json!({"sub": sub, "user_id": user_id, "exp": seconds() + 600, "rooms": {"session:*": ALL}});
        let token = signed(claims, SECRET);
        let page = dial(house.address, &format!("/api/v1/ws/?session_id={S}&token={token}"), &[]);
        assert_eq!(page.is_ok(), expected == "joined", "the page of sub {sub}, user_id {user_id}");
        let bearer = format!("Bearer {token}");
        let (_, answer) = native(&house, &[("authorization", &bearer)]);
        assert_eq!(answer["op"], expected, "the native client of sub {sub}, user_id {user_id}: {answer}");
    }
}

/// And a session without an owner is anybody's who has the right, verb by verb.
#[test]
fn y4_rights_are_checked_by_message() {
    let house = serve(1, &token_mode(""));
    session_of(&house, None);
    let mut worker = Worked::on(&house, &[]);
    worker.want(1, json!({}));
    let forbidden = "writing is not granted; nothing was saved";
    let mut reader = page_of(&house, &token("ann", &[("session:*", &["read"])]));
    for (kind, data) in [
        ("execute", json!({"command": "x"})),
        ("approve", json!({"request_id": request(1)})),
        ("edit", json!({"request_id": request(1), "edited_args": {}})),
        ("cancel", json!({"execution_id": request(1)})),
    ] {
        let told = ask(&mut reader, kind, data, "error");
        assert_eq!(told["message"], forbidden, "{kind}");
    }
    let mut writer = page_of(&house, &token("bob", &[("session:*", &["read", "write"])]));
    execute(&mut writer, "x");
    hear(&mut reader, "thinking");
    assert_eq!(ask(&mut writer, "approve", json!({"request_id": request(1)}), "error")["message"], forbidden);
    let mut approver = page_of(&house, &token("eve", &[("session:*", &["read", "approve"])]));
    assert_eq!(ask(&mut approver, "execute", json!({"command": "x"}), "error")["message"], forbidden);
    ask(&mut approver, "approve", json!({"request_id": request(1)}), "approved");
    hear(&mut reader, "approved");
    // What may not be read is not there.
    let blind = format!("/api/v1/ws/?session_id={S}&token={}", token("eve", &[("session:*", &["write", "approve"])]));
    assert_eq!(refused(house.address, &blind, &[]), (403, "unknown_session".to_owned()));
    // Over REST too.
    let reader = token("ann", &[("session:*", &["read"])]);
    let path = format!("/api/v1/approvals/{}/approve", request(1));
    assert_eq!(with_token(&house, "POST", &path, &reader, "").status, 403);
}

#[test]
fn y5_all_sockets_of_a_session_hear_all_of_it_and_none_takes_another_s_place() {
    let house = serve(2, "");
    made(&house, S);
    let mut worker = Worked::on(&house, &[]);
    let mut first = page(&house, S);
    let mut others: Vec<Client> = (0..5).map(|_| page(&house, &S.to_uppercase())).collect();
    let run = execute(&mut first, "pay");
    let publish = |worker: &mut Worked, kind: &str, n: u32| {
        let data = json!({"execution_id": run, "tool_name": "t", "tool_id": n.to_string(), "result": n});
        assert_eq!(worker.publish(kind, data)["op"], "ok");
    };
    for n in 0..20 {
        publish(&mut worker, "tool_call", n);
        publish(&mut worker, "tool_result", n);
    }
    hear_all(&mut first, 40);
    // The first goes; the others are no orphans, and can be answered.
    first.leave();
    for n in 20..40 {
        publish(&mut worker, "tool_call", n);
        publish(&mut worker, "tool_result", n);
    }
    let heard: Vec<Vec<String>> = others
        .iter_mut()
        .map(|client| {
            hear(client, "thinking");
            hear_all(client, 80)
        })
        .collect();
    assert!(heard.iter().all(|one| *one == heard[0]), "all hear one order, to the byte");
    let expected: Vec<String> = (0..40).flat_map(|n| [format!("tool_call {n}"), format!("tool_result {n}")]).collect();
    let said: Vec<String> = heard[0].iter().map(|text| brief(text)).collect();
    assert_eq!(said, expected, "each once");
    assert_eq!(ask(&mut others[3], "ping", json!({}), "error")["message"], "Unknown message type: ping");
    for (at, client) in others.iter_mut().enumerate() {
        quiet(client, &format!("a reply is for its asker, not for {at}"));
    }
}

fn hear_all(client: &mut Client, count: usize) -> Vec<String> {
    (0..count).map(|_| client.text()).collect()
}

/// Type and call of an event.
fn brief(text: &str) -> String {
    let frame: Value = serde_json::from_str(text).unwrap();
    format!("{} {}", frame["type"].as_str().unwrap(), frame["data"]["tool_id"].as_str().unwrap_or("-"))
}

#[test]
fn y6_a_cancel_is_read_during_the_run_and_ends_it() {
    let house = house();
    let mut worker = Worked::on(&house, &["execute", "cancel", "decision"]);
    let (mut page, mut other) = (page(&house, S), page(&house, S));
    let run = execute(&mut page, "pay");
    let task = worker.task("execute");
    assert_eq!(task["data"]["execution_id"], run);
    hear(&mut other, "thinking");
    // The backend holds the run; the socket is read all the same.
    let cancelled = ask(&mut page, "cancel", json!({"execution_id": run}), "cancelled");
    let expected = json!({"execution_id": run, "session_id": S, "message": "Cancellation request received"});
    assert_eq!(cancelled, expected);
    for client in [&mut page, &mut other] {
        let ended = hear(client, "error");
        assert_eq!((&ended["error_type"], &ended["execution_id"]), (&json!("cancelled"), &json!(run)));
    }
    let told = worker.task("cancel");
    assert_eq!((&told["data"]["execution_id"], &told["data"]["by"]), (&json!(run), &json!(USER)));
    // What the backend says too late is nobody's to see.
    for (kind, data) in [
        ("thinking", json!({"execution_id": run})),
        ("tool_call", json!({"execution_id": run, "tool_name": "t"})),
        ("complete", json!({"execution_id": run})),
        ("approval_required", json!({"execution_id": run, "tool_name": "t"})),
    ] {
        let refused = worker.publish(kind, data);
        assert_eq!((&refused["op"], &refused["code"]), (&json!("refused"), &json!("execution_over")), "{refused}");
    }
    worker.done(&task);
    worker.done(&told);
    // Always the same answer; once is enough for the backend and for the room.
    ask(&mut page, "cancel", json!({"execution_id": run}), "cancelled");
    ask(&mut page, "cancel", json!({"execution_id": request(1)}), "cancelled");
    quiet(&mut other, "a second cancel");
    assert_eq!(open_tasks(&house, "cancel"), [] as [Value; 0]);
    execute(&mut page, "again");
}

#[test]
fn y7_a_decision_goes_to_the_backend_and_the_run_goes_on() {
    let house = house();
    let mut worker = Worked::on(&house, &["execute", "decision"]);
    let (mut page, mut other) = (page(&house, S), page(&house, S));
    let run = execute(&mut page, "pay");
    hear(&mut other, "thinking");
    let task = worker.task("execute");
    worker.want(1, json!({"execution_id": run, "tool_args": {"to": "x"}}));
    worker.done(&task);
    for client in [&mut page, &mut other] {
        let asked = hear(client, "approval_required");
        assert_eq!((&asked["request_id"], &asked["execution_id"]), (&json!(request(1)), &json!(run)));
    }
    // The one who did not begin it decides.
    say(&mut other, "approve", json!({"request_id": request(1)}));
    for client in [&mut page, &mut other] {
        let expected = json!({"request_id": request(1), "decision": "approved", "edited_args": null});
        assert_eq!(hear(client, "approved"), expected);
    }
    let decision = worker.task("decision");
    let data = &decision["data"];
    assert_eq!((&data["request_id"], &data["execution_id"]), (&json!(request(1)), &json!(run)));
    assert_eq!((&data["tool_args"], &data["decision"]), (&json!({"to": "x"}), &json!("approved")));
    let said = worker.ask(json!({"op": "publish", "room": room(), "type": "complete", "data": {"execution_id": run},
        "task": decision["task"], "fence": decision["fence"]}));
    assert_eq!(said["op"], "ok", "{said}");
    for client in [&mut page, &mut other] {
        assert_eq!(hear(client, "complete")["success"], true);
    }
}

#[test]
fn y8_an_edit_is_stored_as_edited_whoever_made_it() {
    let house = house();
    let mut worker = Worked::on(&house, &["decision"]);
    let mut page = page(&house, S);
    let (mut native, joined) = native(&house, &[]);
    assert_eq!(joined["op"], "joined", "{joined}");
    for (n, way) in [(1, "socket"), (2, "rest"), (3, "native"), (4, "backend")] {
        let asked = worker.want(n, json!({"tool_args": {"n": 1}}));
        hear(&mut page, "approval_required");
        let args = json!({"n": 2, "by": way});
        match way {
            "socket" => say(&mut page, "edit", json!({"request_id": request(n), "edited_args": args})),
            "rest" => {
                let path = format!("/api/v1/approvals/{}/edit", request(n));
                let answer = house.http("POST", &path, &json!({"edited_args": args}).to_string());
                assert_eq!((answer.status, &answer.json()["decision"]), (200, &json!("edited")));
            }
            "native" => {
                let decide = json!({"op": "decide", "room": room(), "id": "d", "approval": request(n),
                    "decision": "edit", "edited_args": args, "seen": asked["digest"]});
                native.say(decide.to_string());
            }
            _ => {
                let path = format!("/v1/approvals/{}/decide", request(n));
                let answer = house.http("POST", &path, &json!({"decision": "edit", "edited_args": args}).to_string());
                assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("edited")), "{answer:?}");
            }
        }
        let expected = json!({"request_id": request(n), "decision": "edited", "edited_args": args});
        assert_eq!(hear(&mut page, "edit_approved"), expected, "{way}");
        let stored = house.http("GET", &format!("/api/v1/approvals/{}", request(n)), "").json();
        assert_eq!((&stored["decision"], &stored["edited_args"]), (&json!("edited"), &args), "{way}");
        let task = worker.task("decision");
        assert_eq!((&task["data"]["decision"], &task["data"]["edited_args"]), (&json!("edited"), &args), "{way}");
    }
}

#[test]
fn y9_errors_are_short_and_nobody_else_s_words() {
    let house = house();
    let mut page = page(&house, S);
    let id = request(1);
    let inputs = [
        "",
        "nonsense",
        "{",
        "null",
        "[[[[]]]]",
        r#"{"type":null,"data":null}"#,
        r#"{"type":"approve","data":{"request_id":"'; DROP TABLE session; --"}}"#,
        r#"{"type":"approve","data":{"request_id":{"$ne":null}}}"#,
        r#"{"type":"edit","data":{"request_id":"x","edited_args":7}}"#,
        r#"{"type":"execute","data":{"command":["x"]}}"#,
        r#"{"type":"execute","data":{"command":"\ud800"}}"#,
        r#"{"type":"execute","data":{"command":"x","plan":"y"}}"#,
        r#"{"type":"\u0000","data":{}}"#,
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([
        format!(r#"{{"type":"approve","data":{{"request_id":"{id}"}}}}"#),
        format!(r#"{{"type":"edit","data":{{"request_id":"{id}","edited_args":{{}}}}}}"#),
        format!(r#"{{"type":"{}","data":{{}}}}"#, "x".repeat(10_000)),
        format!("{{\"type\":\"execute\",\"data\":{}{}}}", "[".repeat(5_000), "]".repeat(5_000)),
    ]);
    for input in inputs {
        page.say(input.as_str());
        let message = hear(&mut page, "error")["message"].as_str().unwrap().to_owned();
        assert!((1..=100).contains(&message.len()) && !message.contains('\n'), "{input}: {message}");
        let lower = message.to_lowercase();
        for word in ["pydantic", "sql", "serde", "column", "expected", "rust", "panic", "traceback", "validation error"]
        {
            assert!(!lower.contains(word), "{input}: {message}");
        }
    }
    assert_eq!(log(&house), []);
    execute(&mut page, "it still listens");
}

#[test]
fn y10_a_ping_is_an_error_by_default_and_a_pong_where_it_is_asked_for() {
    let house = house();
    let mut client = page(&house, S);
    assert_eq!(ask(&mut client, "ping", json!({}), "error")["message"], "Unknown message type: ping");
    let house = serve(1, "[agents]\npong = true");
    made(&house, S);
    assert_eq!(ask(&mut page(&house, S), "ping", json!({}), "pong"), json!({}));
}

#[test]
fn y11_a_token_may_stand_in_the_url_in_a_header_or_in_a_subprotocol() {
    let house = serve(1, &token_mode("cookie = 'session'"));
    session_of(&house, Some("ann"));
    let token = token("ann", &[("session:*", ALL)]);
    let bare = format!("/api/v1/ws/?session_id={S}");
    let protocol = format!("bearer.{token}");
    let (bearer, good, bad) = (format!("Bearer {token}"), format!("{bare}&token={token}"), format!("{bare}&token=x"));
    let none: &[(&'static str, &str)] = &[];
    for (path, headers) in [
        (&good, none),
        (&bare, &[("authorization", &*bearer)][..]),
        (&bare, &[("sec-websocket-protocol", &*protocol)][..]),
    ] {
        let mut client = dial(house.address, path, headers).unwrap_or_else(|answer| panic!("{headers:?}: {answer:?}"));
        assert_eq!(hear(&mut client, "connected")["user_id"], "ann", "{headers:?}");
    }
    let wrong: &[(&'static str, &str)] = &[("authorization", "Bearer x")];
    for (path, headers) in [(&bad, none), (&bare, wrong), (&bare, none)] {
        assert_eq!(refused(house.address, path, headers), (401, "token".to_owned()), "{headers:?}");
    }
    let off = serve(1, &token_mode("query_token = false"));
    session_of(&off, Some("ann"));
    assert_eq!(refused(off.address, &good, &[]), (401, "query_token".to_owned()));
    assert!(dial(off.address, &bare, &[("authorization", &bearer)]).is_ok());
}

/// What the program says while sockets come and go, good ones and bad.
#[test]
fn y11_y12_a_connection_prints_nothing_and_no_log_holds_a_token() {
    let data = tempfile::tempdir().unwrap();
    let config = data.path().join("commitcast.toml");
    std::fs::write(&config, token_mode("")).unwrap();
    let (reading, writing) = std::io::pipe().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_commitcast"));
    command
        .args(["--listen", "127.0.0.1:0", "--log-level", "info,commitcast::reactor::outgoing=debug"])
        .arg("--config")
        .arg(&config);
    command.arg("--data").arg(data.path().join("store")).stdin(Stdio::null());
    let mut child = command.stdout(writing.try_clone().unwrap()).stderr(writing).spawn().unwrap();
    // The parent's ends of the pipe go with the command, so that the reader sees the end of the program.
    drop(command);
    let mut reading = BufReader::new(reading);
    let mut start = String::new();
    let address: SocketAddr = loop {
        let mut line = String::new();
        assert!(reading.read_line(&mut line).unwrap() > 0, "it ended:\n{start}");
        start.push_str(&line);
        if let Some((_, rest)) = line.split_once("listening on http://") {
            break rest.split_whitespace().next().unwrap().parse().unwrap();
        }
    };
    let made = raw(
        address,
        &format!(
            "POST /v1/sessions HTTP/1.1\r\nHost: test\r\nX-API-Key: {KEY}\r\nConnection: close\r\nContent-Length: 45\r\n\r\n{}",
            json!({"id": S})
        ),
    );
    assert_eq!(made.status, 201, "{made:?}");
    let token = token("ann", &[("session:*", ALL)]);
    for _ in 0..20 {
        greeted(stage::connect(address, &format!("/api/v1/ws/?session_id={S}&token={token}"))).leave();
    }
    let bad = format!("/api/v1/ws/?session_id={S}&token=a-token-that-is-wrong");
    assert_eq!(refused(address, &bad, &[]).0, 401);
    let unknown = format!("/api/v1/ws/?session_id={}&token={token}", request(1));
    assert_eq!(refused(address, &unknown, &[]).0, 403);
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let mut rest = String::new();
    reading.read_to_string(&mut rest).unwrap();
    child.wait().unwrap();
    assert!(rest.contains("unknown_session"), "a refusal is worth a line:\n{rest}");
    for secret in [token.as_str(), token.split('.').nth(2).unwrap(), "a-token-that-is-wrong", KEY, SECRET] {
        assert!(!start.contains(secret) && !rest.contains(secret), "{secret} in\n{start}{rest}");
    }
    // The log's own lines, one for a coming and one for a going, and none of them at `info`; the original printed besides.
    for line in rest.lines().filter(|line| !line.starts_with("memory: ")) {
        let level =
            [" INFO  commitcast", " DEBUG commitcast::reactor::outgoing"].iter().position(|level| line.contains(level));
        let level = level.unwrap_or_else(|| panic!("a print: {line}"));
        assert_eq!(level == 1, line.contains(": accepted ") || line.contains(": closed "), "{line}");
        assert!(!line.contains(S), "whose session it is, is nobody's business: {line}");
    }
    let about_sockets = rest.lines().filter(|line| line.contains("target=/api/v1/ws") || line.contains(": closed "));
    assert_eq!(about_sockets.count(), 2 * 20 + 2, "{rest}");
}

#[test]
fn y13_connected_says_the_session_as_it_was_given_and_it_is_one_session() {
    let house = house();
    let spellings = [S.to_owned(), S.to_uppercase(), S.replace('-', ""), format!("%7B{S}%7D"), format!("urn:uuid:{S}")];
    let mut clients: Vec<Client> = spellings
        .iter()
        .map(|given| {
            let mut client = house.connect(&format!("/api/v1/ws?session_id={given}"));
            let text = given.replace("%7B", "{").replace("%7D", "}");
            assert_eq!(hear(&mut client, "connected")["session_id"], text);
            client
        })
        .collect();
    for at in 0..clients.len() {
        say(&mut clients[at], "execute", json!({"command": at.to_string()}));
        for client in &mut clients {
            let thinking = hear(client, "thinking");
            assert_eq!((&thinking["session_id"], &thinking["command"]), (&json!(S), &json!(at.to_string())));
        }
    }
}

#[test]
fn y14_an_unknown_session_is_refused_unless_debug_mode_makes_it() {
    let house = house();
    let unknown = request(1);
    for (id, reason) in [(unknown.as_str(), "unknown_session"), ("test", "session"), ("", "session")] {
        assert_eq!(refused(house.address, &format!("/ws?session_id={id}"), &[]), (403, reason.to_owned()), "{id}");
    }
    assert_eq!(house.http("GET", "/api/v1/agent/sessions", "").json()["total"], 1, "none was made");
    let auto = serve(1, "[agents]\nauto_create_sessions = true");
    for id in [unknown.as_str(), "test", "a_b.c-d"] {
        execute(&mut page(&auto, id), "pay");
        assert_eq!(auto.http("GET", &format!("/api/v1/agent/sessions/{id}"), "").status, 200);
    }
    for id in ["a%20b", "a%2Fb", "..%2Fx", "a:b", &"a".repeat(200)] {
        assert_eq!(refused(auto.address, &format!("/ws?session_id={id}"), &[]), (403, "session".to_owned()), "{id}");
    }
    // Never outside of it.
    let data = tempfile::tempdir().unwrap();
    let strict = token_mode("[agents]\nauto_create_sessions = true");
    let error = support::settings(&strict, data.path(), 1).expect_err("for debug mode only").to_string();
    assert!(error.contains("auto_create_sessions"), "{error}");
}

// ---- one decision each --------------------------------------------------------------------------------------------------

/// What somebody says to decide a request, and what he hears of it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Socket(&'static str),
    Rest(&'static str),
    Native(&'static str),
    Backend(&'static str),
    /// The run that it is in is cancelled.
    Run,
    /// Its time is up.
    Expiry,
}

const WAYS: [Way; 10] = [
    Way::Socket("approve"),
    Way::Socket("reject"),
    Way::Socket("edit"),
    Way::Rest("approve"),
    Way::Rest("reject"),
    Way::Rest("edit"),
    Way::Native("approve"),
    Way::Native("cancel"),
    Way::Backend("edit"),
    Way::Backend("cancel"),
];

fn past(verb: &str) -> &'static str {
    match verb {
        "approve" => "approved",
        "reject" => "rejected",
        "edit" => "edited",
        _ => "cancelled",
    }
}

/// G7 over every pair: the first decision stands, the second is told it, one event, one task.
#[test]
fn g7_the_first_decision_stands_and_whoever_is_late_is_told_it() {
    let house = house();
    let mut worker = Worked::on(&house, &["decision"]);
    let mut watcher = page(&house, S);
    let mut n = 0;
    let (mut clerk, joined) = native(&house, &[]);
    assert_eq!(joined["op"], "joined");
    for first in WAYS.into_iter().chain([Way::Run, Way::Expiry]) {
        n += 1;
        let mut more = json!({});
        let mut run = String::new();
        match first {
            Way::Run => {
                run = execute(&mut watcher, "pay");
                more = json!({"execution_id": run});
            }
            Way::Expiry => more = json!({"expires_in": 0.05}),
            _ => {}
        }
        let asked = worker.want(n, more);
        hear(&mut watcher, "approval_required");
        let digest = asked["digest"].as_str().unwrap();
        let decision = match first {
            Way::Run => {
                say(&mut watcher, "cancel", json!({"execution_id": run}));
                hear(&mut watcher, "cancelled");
                "cancelled"
            }
            Way::Expiry => "expired",
            Way::Socket(verb) => {
                decide(&house, &mut clerk, first, n, digest);
                past(verb)
            }
            Way::Rest(verb) | Way::Native(verb) | Way::Backend(verb) => {
                assert_eq!(decide(&house, &mut clerk, first, n, digest), None, "{first:?}");
                past(verb)
            }
        };
        let kind = match decision {
            "approved" => "approved",
            "edited" => "edit_approved",
            _ => "rejected",
        };
        let told = hear(&mut watcher, kind);
        assert_eq!((&told["request_id"], &told["decision"]), (&json!(request(n)), &json!(decision)), "{first:?}");
        if first == Way::Run {
            hear(&mut watcher, "error");
        }
        let task = worker.task("decision");
        assert_eq!((&task["data"]["request_id"], &task["data"]["decision"]), (&json!(request(n)), &json!(decision)));
        worker.done(&task);
        let by = task["data"]["by"].as_str().unwrap();
        let mut at = None;
        for second in WAYS {
            let late = decide(&house, &mut clerk, second, n, digest);
            let (what, who, when) = late.unwrap_or_else(|| panic!("{second:?} decided after {first:?}"));
            assert_eq!((what.as_str(), who.as_str()), (decision, by), "{second:?} after {first:?}");
            assert_eq!(at.get_or_insert_with(|| when.clone()), &when, "{second:?} after {first:?}");
        }
        quiet(&mut watcher, "of the late ones nobody hears");
    }
    assert_eq!(open_tasks(&house, "decision"), [] as [Value; 0]);
    let decided: Vec<String> = log(&house)
        .into_iter()
        .filter(|(_, data)| data.get("decision").is_some())
        .map(|(_, data)| data["request_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(decided, (1..=n).map(request).collect::<Vec<_>>(), "one each");
}

/// Decides; gives (what, who, when) of the decision that was there.
fn decide(house: &House, clerk: &mut Client, way: Way, n: u32, digest: &str) -> Option<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{way:?}: {value}")).to_owned();
    let id = request(n);
    match way {
        Way::Socket(verb) => {
            let mut socket = page(house, S);
            say(&mut socket, verb, json!({"request_id": id, "edited_args": {}}));
            let frame = socket.json();
            if frame["type"] != "error" {
                assert_eq!(frame["data"]["request_id"], id);
                return None;
            }
            let data = &frame["data"];
            assert_eq!((&data["message"], &data["request_id"]), (&json!(GONE), &json!(id)), "{data}");
            Some((text(&data["decision"]), text(&data["decided_by"]), text(&data["decided_at"])))
        }
        Way::Rest(verb) => {
            let answer = house.http("POST", &format!("/api/v1/approvals/{id}/{verb}"), r#"{"edited_args":{}}"#);
            let body = answer.json();
            if answer.status == 200 {
                return None;
            }
            assert_eq!((answer.status, &body["error"]), (400, &json!("400: Approval request already processed")));
            Some((text(&body["decision"]), text(&body["decided_by"]), text(&body["decided_at"])))
        }
        Way::Native(verb) => {
            let op = format!("{verb} {n}");
            let message = json!({"op": "decide", "room": room(), "id": op, "approval": id, "decision": verb,
                "edited_args": {}, "seen": digest});
            clerk.say(message.to_string());
            // Events of the room come in between.
            let answer = loop {
                let frame = clerk.json();
                if frame["op"] != "event" {
                    break frame;
                }
            };
            // The same operation sent again is the same operation: its first answer.
            if answer["op"] == "ok" && answer.get("dup").is_none() {
                return None;
            }
            if answer["op"] == "ok" {
                let stored = house.http("GET", &format!("/v1/approvals/{id}"), "").json();
                return Some((text(&stored["decision"]), text(&stored["decided_by"]), text(&stored["decided_at"])));
            }
            assert_eq!((&answer["op"], &answer["code"]), (&json!("refused"), &json!("already_decided")), "{answer}");
            assert!(answer["seq"].as_u64().is_some_and(|seq| seq > 0), "{answer}");
            Some((text(&answer["decision"]), text(&answer["by"]), text(&answer["at"])))
        }
        Way::Backend(verb) => {
            let body = json!({"decision": verb, "edited_args": {}, "by": "the boss"}).to_string();
            let answer = house.http("POST", &format!("/v1/approvals/{id}/decide"), &body);
            let body = answer.json();
            if answer.status == 200 {
                return None;
            }
            assert_eq!((answer.status, &body["code"]), (409, &json!("already_decided")), "{body}");
            let first = &body["decision"];
            Some((text(&first["decision"]), text(&first["by"]), text(&first["at"])))
        }
        Way::Run | Way::Expiry => unreachable!("no second decision"),
    }
}

#[test]
fn g7_who_has_seen_something_else_is_shown_what_is_to_be_decided() {
    let house = house();
    let mut worker = Worked::on(&house, &[]);
    let asked = worker.want(1, json!({"tool_args": {"to": "eve"}, "amount": "5.00", "currency": "USD"}));
    let (mut clerk, joined) = native(&house, &[]);
    // Whoever joins is shown what waits, with what it takes to decide it.
    let waiting = &joined["snapshot"]["approvals"][0];
    assert_eq!((&waiting["request_id"], &waiting["digest"]), (&json!(request(1)), &asked["digest"]), "{joined}");
    let mut decide = |seen: Value, id: &str| {
        let message = json!({"op": "decide", "room": room(), "id": id, "approval": request(1), "decision": "approve",
            "seen": seen});
        clerk.say(message.to_string());
        clerk.json()
    };
    let other = "0".repeat(40);
    for (at, seen) in [json!(other), json!(""), json!(&asked["digest"].as_str().unwrap()[..39])].into_iter().enumerate()
    {
        let stale = decide(seen, &format!("stale {at}"));
        assert_eq!((&stale["op"], &stale["code"]), (&json!("refused"), &json!("stale")), "{stale}");
        let shown = &stale["approval"];
        assert_eq!((&shown["digest"], &shown["tool_name"]), (&asked["digest"], &json!("pay")), "{stale}");
        assert_eq!(shown["tool_args"], json!({"to": "eve"}), "{stale}");
        assert_eq!(shown["decision"], "pending", "{stale}");
    }
    let none = decide(Value::Null, "none");
    assert_eq!((&none["op"], &none["code"]), (&json!("refused"), &json!("bad_message")), "{none}");
    assert_eq!(log(&house).len(), 1, "nothing was decided");
    assert_eq!(decide(asked["digest"].clone(), "seen")["op"], "ok");
}

/// The digest is of the amount too, so whoever is shown "the new content" must be shown the amount.
#[test]
fn g7_the_new_content_has_the_amount_that_is_to_be_approved() {
    let house = house();
    let mut worker = Worked::on(&house, &[]);
    let asked = worker.want(1, json!({"amount": "5.00", "currency": "USD", "reason": "over the limit"}));
    let (mut clerk, joined) = native(&house, &[]);
    let decide = json!({"op": "decide", "room": room(), "id": "1", "approval": request(1), "decision": "approve",
        "seen": "another"});
    clerk.say(decide.to_string());
    let stale = clerk.json();
    assert_eq!(stale["code"], "stale", "{stale}");
    let backend = house.http("GET", &format!("/v1/approvals/{}", request(1)), "").json();
    for shown in [&joined["snapshot"]["approvals"][0], &stale["approval"], &backend] {
        assert_eq!(shown["digest"], asked["digest"], "{shown}");
        assert_eq!((&shown["amount"], &shown["currency"]), (&json!("5.00"), &json!("USD")), "{shown}");
        assert_eq!(shown["reason"], "over the limit", "{shown}");
    }
}

/// Ten deciders at the same moment, a hundred times: one winner, whom all the others name.
#[test]
fn g7_ten_deciders_a_hundred_times_have_one_winner_each() {
    const TIMES: u32 = 100;
    const DECIDERS: usize = 10;
    let house = serve(2, &token_mode(""));
    session_of(&house, None);
    let mut worker = Worked::on(&house, &["decision"]);
    // Each says when its round is over: a barrier would wait for ever for a decider that has failed.
    let (over, overs) = mpsc::channel();
    // (who won by his own account, what the losers were told, the event as each watcher saw it), by round.
    type Account = (bool, Option<(String, String, String)>, Option<String>);
    let part = |at: usize, over: mpsc::Sender<()>| -> Vec<Account> {
        let name = format!("user-{at}");
        let token = token(&name, &[("session:*", ALL)]);
        let verb = ["approve", "reject", "edit"][at % 3];
        let mut socket = page_of(&house, &token);
        let bearer = format!("Bearer {token}");
        let mut clerk = (at == 9).then(|| native(&house, &[("authorization", &bearer)]).0);
        let mut accounts = Vec::new();
        over.send(()).unwrap();
        for round in 1..=TIMES {
            let id = request(round);
            let asked = hear(&mut socket, "approval_required");
            assert_eq!(asked["request_id"], id);
            accounts.push(if at < 7 {
                let socket = &mut socket;
                say(socket, verb, json!({"request_id": id, "edited_args": {"by": name}}));
                // What is stored is answered in the order in which it was asked: behind this answer, none is to come.
                say(socket, "cancel", json!({"execution_id": request(0)}));
                let (mut event, mut loss, mut answered) = (None, None, false);
                while event.is_none() || !answered {
                    let text = socket.text();
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    let data = &frame["data"];
                    if frame["type"] == "cancelled" {
                        answered = true;
                    } else if frame["type"] != "error" {
                        assert_eq!(data["request_id"], id, "{text}");
                        assert!(event.replace(text).is_none(), "a second decision");
                    } else {
                        assert_eq!((&data["message"], &data["request_id"]), (&json!(GONE), &json!(id)), "{text}");
                        assert!(loss.replace(told(data, "decision", "decided_by", "decided_at")).is_none(), "{text}");
                    }
                }
                (loss.is_none(), loss, event)
            } else if let Some(clerk) = &mut clerk {
                let asked = clerk.json();
                assert_eq!(asked["type"], "approval_required", "{asked}");
                let message = json!({"op": "decide", "room": room(), "id": id, "approval": id, "decision": "cancel",
                    "seen": asked["data"]["digest"]});
                clerk.say(message.to_string());
                let (mut event, mut answer) = (false, None);
                while !event || answer.is_none() {
                    let frame = clerk.json();
                    if frame["op"] == "event" {
                        assert!(!event && frame["data"]["request_id"] == id, "{frame}");
                        event = true;
                    } else {
                        assert!(answer.replace(frame).is_none());
                    }
                }
                let answer = answer.unwrap();
                match answer["op"] == "ok" {
                    true => (true, None, None),
                    false => (false, Some(told(&answer, "decision", "by", "at")), None),
                }
            } else {
                let body = r#"{"edited_args":{}}"#;
                let answer = with_token(&house, "POST", &format!("/api/v1/approvals/{id}/{verb}"), &token, body);
                match answer.status {
                    200 => (true, None, None),
                    400 => (false, Some(told(&answer.json(), "decision", "decided_by", "decided_at")), None),
                    _ => panic!("{answer:?}"),
                }
            });
            if at >= 7 {
                let event = socket.text();
                assert!(event.contains(&id) && !event.contains("\"error\""), "{event}");
                accounts.last_mut().unwrap().2 = Some(event);
            }
            over.send(()).unwrap();
        }
        quiet(&mut socket, "after the last round");
        accounts
    };
    let asks = &mut worker;
    let conductor = move || -> Vec<Account> {
        for round in 0..=TIMES {
            for _ in 0..DECIDERS {
                overs.recv_timeout(support::DEADLINE).unwrap_or_else(|why| panic!("round {round}: {why}"));
            }
            if round < TIMES {
                asks.want(round + 1, json!({}));
            }
        }
        Vec::new()
    };
    let mut parts: Vec<Box<dyn FnOnce() -> Vec<Account> + Send + '_>> = vec![Box::new(conductor)];
    let part = &part;
    for at in 0..DECIDERS {
        let over = over.clone();
        parts.push(Box::new(move || part(at, over)));
    }
    let mut accounts = side_by_side(parts);
    let accounts = accounts.split_off(1);
    let mut wins = BTreeMap::<usize, u32>::new();
    for round in 0..TIMES as usize {
        let of_round: Vec<&Account> = accounts.iter().map(|own| &own[round]).collect();
        let winners: Vec<usize> = (0..DECIDERS).filter(|at| of_round[*at].0).collect();
        let [winner] = winners[..] else { panic!("round {round}: {winners:?} won: {of_round:?}") };
        *wins.entry(winner).or_default() += 1;
        let losses: BTreeSet<_> = of_round.iter().filter_map(|account| account.1.clone()).collect();
        assert_eq!(losses.len(), 1, "round {round}: the losers were told different things: {losses:?}");
        let (what, who, _) = losses.into_iter().next().unwrap();
        let verb = if winner == 9 { "cancel" } else { ["approve", "reject", "edit"][winner % 3] };
        assert_eq!((what.as_str(), who), (past(verb), format!("user-{winner}")), "round {round}");
        let events: BTreeSet<_> = of_round.iter().filter_map(|account| account.2.clone()).collect();
        assert_eq!(events.len(), 1, "round {round}: {events:?}");
        assert!(events.first().unwrap().contains(&format!("\"decision\": \"{what}\"")), "round {round}: {events:?}");
    }
    println!("winners by decider: {wins:?}");
    // And the executor is given each of them, once.
    let mut given = BTreeSet::new();
    for _ in 0..TIMES {
        let task = worker.task("decision");
        assert!(given.insert(task["data"]["request_id"].as_str().unwrap().to_owned()), "twice: {task}");
        worker.done(&task);
    }
    let left = worker.ask(json!({"op": "status"}));
    assert_eq!(left["tasks"]["decision"]["open"], 0, "{left}");
    assert!(worker.given.is_empty(), "{:?}", worker.given);
}

fn told(of: &Value, what: &str, who: &str, when: &str) -> (String, String, String) {
    let text = |name: &str| of[name].as_str().unwrap_or_else(|| panic!("no {name} in {of}")).to_owned();
    (text(what), text(who), text(when))
}

// ---- what survives --------------------------------------------------------------------------------------------------------

#[test]
fn an_execute_waits_for_a_backend_also_over_a_restart() {
    let house = house();
    let run = execute(&mut page(&house, S), "pay");
    let house = house.stop().serve();
    let mut worker = Worked::on(&house, &["execute"]);
    let task = worker.task("execute");
    assert_eq!((&task["attempt"], &task["data"]["execution_id"]), (&json!(1), &json!(run)));
    // Whoever held it is gone with the server; the next holder's fence is above.
    let house = house.stop().serve();
    let mut worker = Worked::on(&house, &["execute"]);
    let again = worker.task("execute");
    assert_eq!((&again["task"], &again["attempt"]), (&task["task"], &json!(2)));
    assert!(again["fence"].as_u64() > task["fence"].as_u64(), "{again}");
    let mut page = page(&house, S);
    assert_eq!(worker.publish("complete", json!({"execution_id": run, "result": {}}))["op"], "ok");
    assert_eq!(hear(&mut page, "complete")["execution_id"], run);
    worker.done(&again);
    let house = house.stop().serve();
    assert_eq!(open_tasks(&house, "execute"), [] as [Value; 0]);
}

#[test]
fn g7_a_restart_between_request_and_decision_and_again_before_its_delivery() {
    let house = house();
    let mut worker = Worked::on(&house, &["execute"]);
    let run = execute(&mut page(&house, S), "pay");
    let task = worker.task("execute");
    let asked = worker.want(1, json!({"execution_id": run}));
    worker.done(&task);
    let house = house.stop().serve();
    // Asked again by a backend that does not know whether it has asked: the same request.
    let mut worker = Worked::on(&house, &[]);
    let message = json!({"op": "approval", "session": S, "id": request(1), "tool_name": "pay", "execution_id": run});
    let again = worker.ask(message);
    assert_eq!((&again["seq"], &again["digest"]), (&asked["seq"], &asked["digest"]), "{again}");
    let mut page = page(&house, S);
    ask(&mut page, "approve", json!({"request_id": request(1)}), "approved");
    let house = house.stop().serve();
    let late = house.http("POST", &format!("/api/v1/approvals/{}/reject", request(1)), "{}");
    assert_eq!((late.status, &late.json()["decision"]), (400, &json!("approved")), "{late:?}");
    let mut worker = Worked::on(&house, &["decision"]);
    let decision = worker.task("decision");
    assert_eq!((&decision["data"]["request_id"], &decision["attempt"]), (&json!(request(1)), &json!(1)));
    // Its holder is cut off; the next one is given it with a higher fence, and the first one's is worth nothing.
    drop(worker);
    let mut next = Worked::on(&house, &["decision"]);
    let again = next.task("decision");
    assert_eq!((&again["task"], &again["attempt"]), (&decision["task"], &json!(2)));
    let stale = next.ask(json!({"op": "done", "task": decision["task"], "fence": decision["fence"]}));
    assert_eq!((&stale["op"], &stale["code"]), (&json!("refused"), &json!("stale_fence")), "{stale}");
    assert_eq!(next.publish("complete", json!({"execution_id": run}))["op"], "ok");
    next.done(&again);
    let types: Vec<String> = log(&house).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(types, ["thinking", "approval_required", "approved", "complete"]);
}

#[test]
fn g7_a_deadline_is_kept_and_survives_a_restart() {
    let house = house();
    let mut worker = Worked::on(&house, &[]);
    let mut page = page(&house, S);
    worker.want(1, json!({"expires_in": 0.05}));
    worker.want(2, json!({"expires_in": 0.3}));
    worker.want(3, json!({"expires_in": 3600}));
    worker.want(4, json!({}));
    for n in 1..=4 {
        let asked = hear(&mut page, "approval_required");
        assert_eq!((&asked["request_id"], asked["expires_at"].is_string()), (&json!(request(n)), n < 4), "{asked}");
    }
    let expired = json!({"request_id": request(1), "decision": "expired", "edited_args": null});
    assert_eq!(hear(&mut page, "rejected"), expired);
    let seq = log(&house).len() as u64 + 1;
    let house = house.stop().serve();
    // From the log or live, whichever it is by now.
    let mut clerk = dial(house.address, "/v1/connect", &[]).unwrap();
    clerk.json();
    let epoch = house.http("GET", &format!("/v1/rooms/{}/events?limit=1", room()), "").json()["epoch"].clone();
    clerk.say(json!({"op": "join", "room": room(), "since": {"epoch": epoch, "seq": seq}}).to_string());
    assert_eq!(clerk.json()["op"], "joined");
    let event = clerk.json();
    assert_eq!((&event["type"], &event["by"]), (&json!("rejected"), &json!("server")), "{event}");
    assert_eq!(event["data"], json!({"request_id": request(2), "decision": "expired", "edited_args": null}));
    let late = house.http("POST", &format!("/api/v1/approvals/{}/approve", request(2)), "");
    let body = late.json();
    assert_eq!((late.status, &body["decision"], &body["decided_by"]), (400, &json!("expired"), &json!("server")));
    let tasks = open_tasks(&house, "decision");
    let of: Vec<&Value> = tasks.iter().map(|task| &task["data"]["request_id"]).collect();
    assert_eq!(of, [&json!(request(1)), &json!(request(2))], "one task each");
    // The others still wait.
    let pending = house.http("GET", "/api/v1/approvals/pending", "").json();
    assert_eq!(pending["total"], 2, "{pending}");
    assert_eq!(house.http("POST", &format!("/api/v1/approvals/{}/approve", request(3)), "").status, 200);
}

#[test]
fn the_guard_holds_for_native_clients_and_batches_and_writes_nothing() {
    let house = house();
    let (mut clerk, _) = native(&house, &[]);
    let mut tell = |id: &str, kind: &str, data: Value| {
        let message = json!({"op": "publish", "room": room(), "id": id, "type": kind, "data": data});
        clerk.say(message.to_string());
        let mut answer = clerk.json();
        while answer["op"] == "event" {
            answer = clerk.json();
        }
        answer["code"].as_str().unwrap_or("ok").to_owned()
    };
    assert_eq!(tell("1", "thinking", json!({})), "no_execution");
    assert_eq!(tell("2", "execute", json!({"command": "x"})), "ok");
    assert_eq!(tell("3", "tool_result", json!({"tool_id": "a"})), "no_tool_call");
    // A refused operation's id is free for the corrected one.
    assert_eq!(tell("3", "tool_call", json!({"tool_id": "a", "tool_name": "t"})), "ok");
    assert_eq!(tell("4", "approved", json!({"request_id": request(1)})), "bad_type");
    assert_eq!(tell("5", "note", json!({})), "bad_type");
    let line = |kind: &str, data: Value| json!({"room": room(), "type": kind, "data": data}).to_string();
    let lines = [
        line("tool_result", json!({"tool_id": "a"})),
        line("tool_result", json!({"tool_id": "a"})),
        line("complete", json!({})),
        line("thinking", json!({})),
    ];
    let answer = house.http("POST", "/v1/batch", &lines.join("\n"));
    let codes: Vec<String> = chunks(&answer.body).iter().map(|line| line["error"]["code"].to_string()).collect();
    assert_eq!(codes, ["null", "\"no_tool_call\"", "null", "\"no_execution\""], "{}", answer.body);
    assert_eq!(tell("6", "cancel", json!({})), "no_execution");
    let types: Vec<String> = log(&house).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(types, ["thinking", "tool_call", "tool_result", "complete"]);
    assert_eq!(open_tasks(&house, "cancel"), [] as [Value; 0]);
}

/// The JSON lines of a body, whether it came in chunks or not.
fn chunks(body: &str) -> Vec<Value> {
    body.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_listener_of_its_own_answers_as_the_application_did() {
    let data = tempfile::tempdir().unwrap();
    let flags = Flags {
        config: Some("test.toml".into()),
        listen: vec!["127.0.0.1:0=agents".to_owned()],
        data: Some(data.path().to_owned()),
        reactors: Some(1),
        ..Flags::default()
    };
    let settings =
        Settings::build(&flags, std::iter::empty(), |_| Ok("[agents]\nauto_create_sessions = true".to_owned()));
    let server = Server::start(&settings.unwrap()).unwrap();
    let at = server.addresses[0];
    let get = |path: &str| stage::http(at, "GET", path, "");
    assert_eq!(get("/health").body, r#"{"status":"healthy","version":"0.1.0","environment":"development"}"#);
    let root = r#"{"name":"Paygent","version":"0.1.0","docs":"/docs","redoc":"/redoc","openapi":"/openapi.json"}"#;
    assert_eq!(get("/").body, root);
    // `/ws` is the agents' here, whatever its query says.
    assert_eq!(refused(at, "/ws", &[]), (403, "session".to_owned()));
    greeted(stage::connect(at, "/ws?session_id=test"));
    assert_eq!(get("/api/v1/metrics").header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for path in ["/api/prompts/all", "/tickets/create", "/v1/rooms", "/api/v1/ws/stats"] {
        assert_eq!(get(path).status, 404, "{path}");
    }
    server.stop(Duration::ZERO, Duration::ZERO, || true);
}

#[test]
fn the_metrics_count_what_came_and_what_was_sent() {
    let house = house();
    let (mut page, mut other) = (page(&house, S), page(&house, S));
    say(&mut page, "ping", json!({}));
    hear(&mut page, "error");
    execute(&mut page, "pay");
    hear(&mut other, "thinking");
    ask(&mut page, "approve", json!({"request_id": request(1)}), "error");
    let metrics = house.http("GET", "/api/v1/metrics", "").body;
    for (name, expected) in [("connections", 2), ("messages_received", 3), ("messages_sent", 6)] {
        let line = format!("paygent_websocket_{name}_total {expected}");
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
}

// ---- a clock that jumps ---------------------------------------------------------------------------------------------------

/// The writer over a store in memory, with a clock whose two hands are moved by the test.
struct Writer {
    worker: Worker<MemoryStore, Delivery>,
    jobs: Mailbox<Job>,
    heard: Inbox<Delivery>,
    disk: Faults,
    time: Arc<(AtomicU64, AtomicU64)>,
    backlog: Arc<Backlog>,
}

const NOON: i64 = 1_766_621_137_000_000;
const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

impl Writer {
    fn new() -> Writer {
        let store = MemoryStore::new(1, 1);
        let disk = store.faults();
        let (jobs, inbox) = mailbox::channel(64);
        let (reactor, heard) = mailbox::channel(64);
        let time = Arc::new((AtomicU64::new(1), AtomicU64::new(NOON as u64)));
        let backlog = Arc::new(Backlog::new(1 << 28));
        let wiring = Wiring {
            inbox,
            reactors: vec![reactor],
            files: None,
            directory: Arc::new(Directory::default()),
            env: Arc::new(Env::default()),
            clock: Clock::Manual(time.clone()),
            metrics: Arc::<Metrics>::default(),
            pulse: Arc::default(),
            backlog: backlog.clone(),
            retention: Arc::new(ArcSwap::from_pointee(Retention::default())),
        };
        let mut writer = Writer { worker: Worker::new(store, wiring), jobs, heard, disk, time, backlog };
        writer.backend(json!({"op": "session", "id": S}));
        writer
    }

    fn turns(&mut self) {
        for _ in 0..4 {
            self.worker.turn();
        }
    }

    fn post(&mut self, intent: Intent) -> String {
        let Intent::Write(write) = intent else { panic!("{intent:?} is no write") };
        self.carry_out(write)
    }

    fn carry_out(&mut self, write: Box<Write>) -> String {
        let to = ConnId { reactor: 0, slot: 1, generation: 1 };
        let asker = Asker { actor: "ada".into(), origin: to.pack(), verified: false };
        let charged = write.weight();
        assert!(self.backlog.admit(charged));
        self.jobs.post(Job { to: Some(to), asker, write, charged }).unwrap();
        self.turns();
        let mut said = String::new();
        while let Some(delivery) = self.heard.take() {
            let Delivery::Batch { answers, .. } = delivery else { continue };
            for answer in answers {
                if let Reply::Frame(frame) = answer.reply {
                    said.push_str(&String::from_utf8_lossy(&frame));
                }
            }
        }
        said
    }

    fn backend(&mut self, message: Value) {
        let key = commitcast::auth::ApiKey { name: "w".into(), key: "k".repeat(32), rights: vec!["*".into()] };
        let said = self.post(backend::Session::new(Arc::new(key)).on_text(&message.to_string()));
        assert!(said.contains(r#""op":"ok""#), "{message}: {said}");
    }

    fn page(&mut self, kind: &str, data: Value) -> String {
        let mut session = dialect::Session::Agents(agents::Session { id: S.into(), pong: false });
        let now = Clock::Manual(self.time.clone()).wall();
        self.post(session.on_text(&json!({"type": kind, "data": data}).to_string(), now))
    }

    fn want(&mut self, n: u32, seconds: f64) {
        let id = request(n);
        self.backend(json!({"op": "approval", "session": S, "id": id, "tool_name": "pay", "expires_in": seconds}));
    }

    /// Lets time pass: by one hand, by the other.
    fn pass(&mut self, mono: Duration, wall: i64) {
        self.time.0.fetch_add(mono.as_nanos() as u64, Ordering::Relaxed);
        self.time.1.fetch_add(wall as u64, Ordering::Relaxed);
        self.turns();
    }

    /// (request, decision) as the log has them.
    fn decided(&self) -> Vec<(String, String)> {
        let data =
            self.disk.log(&room()).into_iter().map(|event| serde_json::from_slice::<Value>(&event.body).unwrap());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        data.filter(|data| data.get("decision").is_some())
            .map(|data| (text(&data["request_id"]), text(&data["decision"])))
            .collect()
    }
}

/// L9: the deadline is a time of day. A clock that jumps makes it early or late, never twice and never lost.
#[test]
fn l9_a_clock_that_jumps_expires_nothing_twice_and_loses_nothing() {
    let second = Duration::from_secs(1);
    let expired = |n: u32| (request(n), "expired".to_owned());
    let mut writer = Writer::new();
    writer.want(1, 60.0);
    writer.pass(59 * second, 59 * SECOND);
    assert_eq!(writer.decided(), []);
    writer.pass(2 * second, 2 * SECOND);
    assert_eq!(writer.decided(), [expired(1)]);

    // A day forward, at once: what was to expire within the day has, and once.
    writer.want(2, 3600.0);
    writer.want(3, 2.0 * 86_400.0);
    writer.pass(second, DAY);
    assert_eq!(writer.decided(), [expired(1), expired(2)]);
    // And two days back: no second time, and who comes now is told what it was told then.
    writer.pass(second, -2 * DAY);
    let late = writer.page("approve", json!({"request_id": request(2)}));
    assert!(late.contains(r#""decision": "expired""#) && late.contains(r#""decided_by": "server""#), "{late}");
    writer.pass(3600 * second, 3600 * SECOND);
    assert_eq!(writer.decided(), [expired(1), expired(2)]);
    // The one that a jump back left waiting is not lost: it expires when its time of day comes.
    writer.pass(second, 4 * DAY);
    assert_eq!(writer.decided(), [expired(1), expired(2), expired(3)]);

    // Set back, a request can still be decided, once.
    writer.want(4, 60.0);
    writer.pass(second, -DAY);
    writer.page("approve", json!({"request_id": request(4)}));
    writer.pass(second, 2 * DAY);
    let mut all = vec![expired(1), expired(2), expired(3), (request(4), "approved".to_owned())];
    assert_eq!(writer.decided(), all);

    // Decided too late, while the clock's own decision is still to come: it counts as expired, for everybody and for good,
    // also when the clock is set back before the room was told.
    writer.want(5, 60.0);
    writer.time.1.fetch_add((61 * SECOND) as u64, Ordering::Relaxed);
    let late = writer.page("approve", json!({"request_id": request(5)}));
    assert!(late.contains(r#""decision": "expired""#), "{late}");
    writer.pass(second, -DAY);
    writer.pass(second, SECOND);
    let late = writer.page("approve", json!({"request_id": request(5)}));
    assert!(late.contains(r#""decision": "expired""#), "{late}");
    all.push(expired(5));
    assert_eq!(writer.decided(), all);
}
