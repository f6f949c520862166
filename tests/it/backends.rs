//! The backend protocol over real sockets and HTTP: rights, tasks and their fences, idempotency, and what a key may see.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::dice::Dice;
use crate::stage::{self, Answer, Client, Heard, House, serve, side_by_side};
use crate::support::{SECRET, Wire, request, token};

fn ask(client: &mut Client, message: Value) -> Value {
    client.say(message.to_string());
    client.json()
}

/// A backend's socket that was greeted; debug mode, where everybody is the backend.
fn backend(house: &House) -> Client {
    let mut client = house.connect("/v1/backend");
    assert_eq!(client.json()["op"], "hello");
    client
}

/// One request with these whole header lines.
fn http(address: SocketAddr, method: &str, path: &str, fields: &str, body: &str) -> Answer {
    let mut answer = stage::raw(address, &request(method, path, &format!("Connection: close\r\n{fields}"), body));
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = unchunked(&answer.body);
    }
    answer
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    loop {
        let (length, rest) = body.split_once("\r\n").unwrap_or_else(|| panic!("no chunk in {body:?}"));
        let length = usize::from_str_radix(length, 16).unwrap_or_else(|error| panic!("{error}: {length:?}"));
        if length == 0 {
            assert_eq!(rest, "\r\n", "something behind the last chunk");
            return whole;
        }
        whole.push_str(&rest[..length]);
        body = rest[length..].strip_prefix("\r\n").unwrap_or_else(|| panic!("a chunk has no end: {rest:?}"));
    }
}

fn post(house: &House, path: &str, body: &Value) -> Answer {
    http(house.address, "POST", path, "", &body.to_string())
}

fn get(house: &House, path: &str) -> Answer {
    http(house.address, "GET", path, "", "")
}

/// A problem document (RFC 9457) of this status and code.
fn assert_problem(answer: &Answer, status: u16, code: &str, what: &str) {
    assert_eq!(answer.status, status, "{what}: {answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}: {answer:?}");
    let problem = answer.json();
    assert_eq!((&problem["status"], &problem["code"]), (&json!(status), &json!(code)), "{what}: {problem}");
    for told in ["type", "title", "detail"] {
        assert!(problem[told].as_str().is_some_and(|text| !text.is_empty()), "{what} has no {told}: {problem}");
    }
}

/// A ticket makes a task; any page may ask for one.
fn ticket(house: &House, name: &str) {
    let answer = post(house, "/tickets/create", &json!({"ticket_name": name, "description": null}));
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// The next task of this socket.
fn task(client: &mut Client) -> Value {
    let task = client.json();
    assert_eq!(task["op"], "task", "{task}");
    task
}

fn take(client: &mut Client, max: u64) {
    client.say(json!({"op": "take", "kinds": ["ticket"], "max": max}).to_string());
}

fn poll(house: &House, query: &str) -> Vec<Value> {
    let answer = get(house, &format!("/v1/tasks?kinds=ticket{query}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["tasks"].as_array().unwrap_or_else(|| panic!("no tasks in {answer:?}")).clone()
}

fn nothing_more(client: &mut Client, what: &str) {
    assert_eq!(ask(client, json!({"op": "ping"})), json!({"op": "pong"}), "{what}");
}

fn fence(task: &Value) -> u64 {
    task["fence"].as_u64().unwrap_or_else(|| panic!("no fence in {task}"))
}

/// What a task says of its ticket.
fn is_of(task: &Value, name: &str) -> bool {
    task["data"].to_string().contains(&format!("\"{name}\""))
}

// ---- keys and rights ----------------------------------------------------------------------------------------------------

/// One key for each right, and one for all; token mode.
const RIGHTS: [(&str, &str); 8] = [
    ("all", "*"),
    ("publisher", "publish:game:*"),
    ("reader", "read:game:*"),
    ("worker", "tasks:ticket"),
    ("host", "sessions"),
    ("judge", "approvals"),
    ("warden", "connections"),
    ("nobody", "publish:nothing"),
];

fn key(name: &str) -> String {
    format!("{name}-{}", "k".repeat(32))
}

fn keyed() -> House {
    let keys: Vec<String> = RIGHTS
        .iter()
        .map(|(name, right)| format!("{{ name = \"{name}\", key = \"{}\", rights = [\"{right}\"] }}", key(name)))
        .collect();
    serve(2, &format!("[auth]\nmode = 'token'\nhs256_secret = '{SECRET}'\napi_keys = [{}]\n", keys.join(", ")))
}

fn bearing(name: &str) -> String {
    format!("Authorization: Bearer {}\r\n", key(name))
}

fn socket(house: &House, name: &str) -> Client {
    let bearer = format!("Bearer {}", key(name));
    let mut client = stage::dial(house.address, "/v1/backend", &[("authorization", &bearer)])
        .unwrap_or_else(|refused| panic!("{name}: {refused:?}"));
    let hello = client.json();
    assert_eq!((&hello["op"], &hello["name"]), (&json!("hello"), &json!(name)), "{hello}");
    client
}

#[test]
fn without_a_good_key_there_is_no_backend() {
    let house = keyed();
    let user = format!("Authorization: Bearer {}\r\n", token("ann", &[("*", &["read", "write"])]));
    let almost = format!("Authorization: Bearer {}x\r\n", key("all"));
    let cut = format!("X-API-Key: {}\r\n", &key("all")[..20]);
    let two = format!("X-API-Key: {0}\r\nX-API-Key: {0}\r\n", key("all"));
    for fields in ["", "X-API-Key: \r\n", &user, &almost, &cut, &two] {
        for (method, path) in [("GET", "/v1/tasks"), ("POST", "/v1/publish"), ("GET", "/v1/connections")] {
            let answer = http(house.address, method, path, fields, if method == "POST" { "{}" } else { "" });
            assert_eq!((answer.status, answer.header("x-ws-reject")), (401, Some("token")), "{fields:?} {path}");
            assert!(!answer.body.contains("kkkk"), "{answer:?}");
        }
        let mut wire = Wire::dial(house.address);
        wire.send(crate::support::handshake("/v1/backend", fields));
        assert_eq!(wire.reply().status, 401, "{fields:?}");
    }
    // Either header, and not the query, which stands in every proxy's log.
    let own = format!("X-API-Key: {}\r\n", key("all"));
    assert_eq!(http(house.address, "GET", "/v1/rooms", &own, "").status, 200);
    assert_eq!(http(house.address, "GET", "/v1/rooms", &bearing("all"), "").status, 200);
    let query = format!("/v1/rooms?token={0}&key={0}&api_key={0}", key("all"));
    assert_eq!(http(house.address, "GET", &query, "", "").status, 401);
    // A key is nobody's user: it opens no page.
    let bearer = format!("Bearer {}", key("all"));
    assert!(stage::dial(house.address, "/v1/connect", &[("authorization", &bearer)]).is_err());
}

const SESSION: &str = "0b0e7a6e-5d0c-4a4e-9d0a-6a6f8f1f2a3b";

#[test]
fn each_right_grants_its_own_over_http_and_nothing_else() {
    let house = keyed();
    let publish = json!({"room": "game:1", "type": "note", "data": 1}).to_string();
    assert_eq!(http(house.address, "POST", "/v1/publish", &bearing("all"), &publish).status, 201);
    let elsewhere = json!({"room": "other:1", "type": "note", "data": 1}).to_string();
    let session = json!({"id": SESSION}).to_string();
    let approval = json!({"session": SESSION, "tool_name": "t", "tool_args": {}}).to_string();
    let decide = json!({"decision": "approve"}).to_string();
    let fence = json!({"fence": 1}).to_string();
    let approvals = format!("/v1/approvals/{SESSION}");
    let decisions = format!("{approvals}/decide");
    let of_session = format!("/v1/sessions/{SESSION}");
    // What is asked, and who may; the key for all may all.
    let asked: [(&str, &str, &str, &str); 18] = [
        ("POST", "/v1/publish", &publish, "publisher"),
        ("POST", "/v1/publish", &elsewhere, ""),
        ("GET", "/v1/rooms", "", "reader"),
        ("GET", "/v1/rooms/game:1/events", "", "reader"),
        ("GET", "/v1/rooms/other:1/events", "", ""),
        ("GET", "/v1/tasks", "", "worker"),
        ("GET", "/v1/tasks?kinds=ticket", "", "worker"),
        ("GET", "/v1/tasks?kinds=ticket,execute", "", ""),
        ("POST", "/v1/tasks/7/done", &fence, "worker"),
        ("POST", "/v1/tasks/7/fail", &fence, "worker"),
        ("POST", "/v1/tasks/7/renew", &fence, "worker"),
        ("POST", "/v1/sessions", &session, "host"),
        ("GET", &of_session, "", "host"),
        ("POST", "/v1/approvals", &approval, "judge"),
        ("GET", &approvals, "", "judge"),
        ("POST", &decisions, &decide, "judge"),
        ("GET", "/v1/connections", "", "warden"),
        ("POST", "/v1/connections/c0.999.1/close", "", "warden"),
    ];
    for (method, path, body, who) in asked {
        for (name, _) in RIGHTS {
            let answer = http(house.address, method, path, &bearing(name), body);
            let what = format!("{name}: {method} {path} {body}");
            if name == who || name == "all" {
                assert_ne!(answer.status, 403, "{what}: {answer:?}");
                assert_ne!(answer.status, 401, "{what}: {answer:?}");
            } else {
                assert_problem(&answer, 403, "forbidden", &what);
            }
        }
    }
    // Nothing came of what was refused.
    let log = http(house.address, "GET", "/v1/rooms/other:1/events", &bearing("all"), "").json();
    assert_eq!(log["head"], 1, "only the key for all may write there: {log}");
    let rooms = http(house.address, "GET", "/v1/rooms", &bearing("reader"), "").json();
    let shown: Vec<&str> =
        rooms["rooms"].as_array().unwrap().iter().map(|room| room["room"].as_str().unwrap()).collect();
    assert_eq!(shown, ["game:1"], "a list leaves out what is not granted");
}

#[test]
fn each_right_grants_its_own_on_the_socket_and_nothing_else() {
    let house = keyed();
    let asked = [
        (json!({"op": "publish", "room": "game:1", "type": "note", "data": 1}), "publisher"),
        (json!({"op": "publish", "room": "other:1", "type": "note", "data": 1}), ""),
        (json!({"op": "done", "task": "7", "fence": 1}), "worker"),
        (json!({"op": "fail", "task": "7", "fence": 1}), "worker"),
        (json!({"op": "take", "kinds": ["ticket", "execute"]}), ""),
        (json!({"op": "session", "id": SESSION}), "host"),
        (json!({"op": "approval", "session": SESSION, "tool_name": "t", "tool_args": {}}), "judge"),
    ];
    for (name, _) in RIGHTS {
        let mut client = socket(&house, name);
        for (message, who) in &asked {
            let what = format!("{name}: {message}");
            // Taking is answered with tasks; there are none.
            if message["op"] == "take" && name == "all" {
                client.say(message.to_string());
                nothing_more(&mut client, &what);
                continue;
            }
            let answer = ask(&mut client, message.clone());
            if name == *who || name == "all" {
                assert_ne!(answer["code"], "forbidden", "{what}: {answer}");
            } else {
                assert_eq!((&answer["op"], &answer["code"]), (&json!("refused"), &json!("forbidden")), "{what}");
            }
        }
        assert_eq!(ask(&mut client, json!({"op": "status"}))["op"], "status", "{name}");
    }
    let log = http(house.address, "GET", "/v1/rooms/other:1/events", &bearing("all"), "").json();
    assert_eq!(log["head"], 1, "only the key for all may write there: {log}");
}

/// A key cannot find out what there is of kinds that are not its own.
#[test]
fn a_task_of_another_kind_is_not_there() {
    let house = keyed();
    let mut all = socket(&house, "all");
    let webhook = json!({"page_id": "p", "database_id": "d", "event_type": "e"}).to_string();
    // The tickets' endpoints want a user.
    let user = format!("Authorization: Bearer {}\r\n", token("ann", &[("*", &["read", "write"])]));
    assert_eq!(http(house.address, "POST", "/webhook/notion", &user, &webhook).status, 200);
    all.say(json!({"op": "take", "kinds": ["webhook"]}).to_string());
    let task = task(&mut all);
    let held = json!({"fence": fence(&task)}).to_string();
    let path = format!("/v1/tasks/{}/done", task["task"].as_str().unwrap());
    let theirs = http(house.address, "POST", &path, &bearing("worker"), &held);
    assert_problem(&theirs, 404, "unknown_task", "another kind's");
    let none = http(house.address, "POST", "/v1/tasks/999999/done", &bearing("worker"), &held);
    let theirs = theirs.body.replace(&format!("{:?}", task["task"].as_str().unwrap()), "\"999999\"");
    assert_eq!(theirs, none.body, "the same bytes as for one that is not there");
    assert_eq!(http(house.address, "POST", &path, &bearing("all"), &held).status, 200, "it is still held");
}

// ---- tasks --------------------------------------------------------------------------------------------------------------

#[test]
fn a_task_waits_in_the_store_and_is_given_once() {
    let house = serve(2, "");
    for name in ["one", "two", "three"] {
        ticket(&house, name);
    }
    let (mut a, mut b) = (backend(&house), backend(&house));
    take(&mut a, 2);
    let (one, two) = (task(&mut a), task(&mut a));
    assert!(is_of(&one, "one") && is_of(&two, "two"), "the oldest first: {one} {two}");
    assert_eq!((&one["attempt"], &one["kind"], &one["room"]), (&json!(1), &json!("ticket"), &json!("tickets")));
    take(&mut b, 2);
    let three = task(&mut b);
    assert!(is_of(&three, "three"), "{three}");
    nothing_more(&mut a, "its window is two");
    // Who is done with one is given the next, as it comes.
    ticket(&house, "four");
    assert!(is_of(&task(&mut b), "four"), "the one with room");
    ticket(&house, "five");
    let done = ask(&mut a, json!({"op": "done", "task": one["task"], "fence": one["fence"], "result": {"any": 1}}));
    assert_eq!(done, json!({"op": "ok", "task": one["task"]}));
    assert!(is_of(&task(&mut a), "five"));
    // Said again it is as good as said once; nobody is given it again.
    let again = ask(&mut a, json!({"op": "done", "task": one["task"], "fence": one["fence"]}));
    assert_eq!(again, json!({"op": "ok", "task": one["task"]}));
    assert!(poll(&house, "&max=10").is_empty(), "all are held or done");
}

/// Its end is the end of its leases; the fence tells the next holder from the last.
#[test]
fn what_a_lost_backend_held_goes_to_another_with_a_higher_fence() {
    let house = serve(2, "");
    ticket(&house, "one");
    let mut first = backend(&house);
    take(&mut first, 1);
    let before = task(&mut first);
    let mut second = backend(&house);
    take(&mut second, 1);
    drop(first);
    let after = task(&mut second);
    assert_eq!((&after["task"], &after["attempt"]), (&before["task"], &json!(2)), "{after}");
    assert!(fence(&after) > fence(&before), "{before} {after}");

    // The deposed holder comes back on another connection: it can neither finish, nor fail, nor publish.
    let mut back = backend(&house);
    let held = |op: &str| json!({"op": op, "task": before["task"], "fence": before["fence"]});
    let mut publish = held("publish");
    publish["room"] = json!("game:1");
    publish["type"] = json!("note");
    publish["data"] = json!("stale");
    for message in [held("done"), held("fail"), publish.clone()] {
        let refused = ask(&mut back, message.clone());
        let told = (&refused["op"], &refused["code"], &refused["task"]);
        assert_eq!(told, (&json!("refused"), &json!("stale_fence"), &before["task"]), "{message}: {refused}");
    }
    let id = before["task"].as_str().unwrap();
    for step in ["done", "fail", "renew"] {
        let stale = post(&house, &format!("/v1/tasks/{id}/{step}"), &json!({"fence": before["fence"]}));
        assert_problem(&stale, 409, "stale_fence", step);
        let unknown = post(&house, &format!("/v1/tasks/999999/{step}"), &json!({"fence": 1}));
        assert_problem(&unknown, 404, "unknown_task", step);
    }
    assert_problem(&get(&house, "/v1/rooms/game:1/events"), 404, "no_such_room", "nothing was published");
    // A fence that nobody was given is nobody's.
    let forged = ask(&mut back, json!({"op": "done", "task": id, "fence": fence(&after) + 1}));
    assert_eq!(forged["code"], "stale_fence", "{forged}");
    // The holder publishes and finishes, from wherever.
    publish["fence"] = after["fence"].clone();
    publish["data"] = json!("fresh");
    assert_eq!(ask(&mut second, publish)["seq"], 1);
    assert_eq!(post(&house, &format!("/v1/tasks/{id}/done"), &json!({"fence": after["fence"]})).status, 200);
    drop(second);
    assert!(poll(&house, "").is_empty(), "it is done");
}

#[test]
fn a_failed_task_rests_and_comes_again() {
    let house = serve(1, "");
    ticket(&house, "one");
    let mut client = backend(&house);
    take(&mut client, 1);
    let first = task(&mut client);
    let fail = json!({"op": "fail", "task": first["task"], "fence": first["fence"], "retry_ms": 0});
    assert_eq!(ask(&mut client, fail.clone()), json!({"op": "ok", "task": first["task"]}));
    let second = task(&mut client);
    assert_eq!((&second["task"], &second["attempt"]), (&first["task"], &json!(2)), "{second}");
    assert!(fence(&second) > fence(&first));
    assert_eq!(ask(&mut client, fail)["code"], "stale_fence", "it was handed out again since");
    // Rested for so long, nobody has it before then.
    let begun = Instant::now();
    let fail = json!({"op": "fail", "task": second["task"], "fence": second["fence"], "retry_ms": 400});
    assert_eq!(ask(&mut client, fail)["op"], "ok");
    let third = task(&mut client);
    assert_eq!(third["attempt"], 3, "{third}");
    assert!(begun.elapsed() >= Duration::from_millis(390), "it rested only {:?}", begun.elapsed());
}

#[test]
fn a_lease_over_http_ends_by_itself_unless_it_is_renewed() {
    let house = serve(2, "");
    ticket(&house, "kept");
    ticket(&house, "lost");
    let given = poll(&house, "&max=2&lease_ms=1000");
    assert_eq!(given.len(), 2, "{given:?}");
    let kept = given.iter().find(|task| is_of(task, "kept")).unwrap();
    let renew = json!({"fence": kept["fence"], "lease_ms": 60_000});
    let answer = post(&house, &format!("/v1/tasks/{}/renew", kept["task"].as_str().unwrap()), &renew);
    assert_eq!(answer.status, 200, "{answer:?}");
    let again = poll(&house, "&max=2&wait=10");
    assert_eq!(again.len(), 1, "{again:?}");
    assert!(is_of(&again[0], "lost") && again[0]["attempt"] == 2, "{again:?}");
    assert!(given.iter().all(|task| fence(task) < fence(&again[0])), "{given:?} {again:?}");
}

#[test]
fn a_silent_backend_loses_its_lease_and_a_lively_one_keeps_it() {
    let house = serve(2, "");
    ticket(&house, "one");
    // A raw socket that answers no ping: it holds the task and says nothing.
    let mut silent = Wire::upgrade(house.address, "/v1/backend", "");
    assert_eq!(silent.json()["op"], "hello");
    silent.send_json(&json!({"op": "take", "kinds": ["ticket"], "max": 1, "lease_ms": 1000}));
    assert_eq!(silent.json()["attempt"], 1);
    let taken = poll(&house, "&wait=10");
    assert_eq!((taken.len(), &taken[0]["attempt"]), (1, &json!(2)), "{taken:?}");
    let done = post(
        &house,
        &format!("/v1/tasks/{}/done", taken[0]["task"].as_str().unwrap()),
        &json!({"fence": taken[0]["fence"]}),
    );
    assert_eq!(done.status, 200);

    // One that answers the pings (its library does) is not taken from, though it says nothing for two leases.
    ticket(&house, "two");
    let mut lively = backend(&house);
    lively.say(json!({"op": "take", "kinds": ["ticket"], "max": 1, "lease_ms": 1000}).to_string());
    let held = task(&mut lively);
    let house = &house;
    let parts: Vec<Box<dyn FnOnce() -> Vec<Value> + Send + '_>> = vec![
        Box::new(move || poll(house, "&wait=2")),
        // Reading answers pings; what ends the wait is a second task for it.
        Box::new(move || vec![task(&mut lively)]),
        Box::new(move || {
            // The wait of the first part is over when it has its answer; only then is there something to read.
            let waited = get(house, "/v1/tasks?kinds=webhook&wait=3");
            let done = json!({"fence": held["fence"]});
            let path = format!("/v1/tasks/{}/done", held["task"].as_str().unwrap());
            assert_eq!(post(house, &path, &done).status, 200, "it was taken away: {waited:?}");
            ticket(house, "three");
            Vec::new()
        }),
    ];
    let found = side_by_side(parts);
    assert!(found[0].is_empty(), "somebody was given what a lively backend holds: {found:?}");
    assert!(is_of(&found[1][0], "three"), "{found:?}");
}

#[test]
fn a_long_poll_waits_for_a_task_and_no_longer() {
    let house = serve(2, "");
    assert!(poll(&house, "").is_empty());
    let begun = Instant::now();
    assert!(poll(&house, "&wait=1").is_empty());
    assert!(begun.elapsed() >= Duration::from_millis(950), "{:?}", begun.elapsed());
    let house = &house;
    let begun = Instant::now();
    let parts: Vec<Box<dyn FnOnce() -> Vec<Value> + Send + '_>> = vec![
        Box::new(move || poll(house, "&wait=15&max=5")),
        Box::new(move || {
            // The other one is waiting by then, or finds it there: either way it is given it.
            poll(house, "&wait=0");
            ticket(house, "one");
            Vec::new()
        }),
    ];
    let found = side_by_side(parts);
    assert!(begun.elapsed() < Duration::from_secs(10), "it was told late: {:?}", begun.elapsed());
    assert_eq!(found[0].len(), 1, "{found:?}");
    for bad in ["&wait=61", "&wait=-1", "&max=0", "&max=1001", "&lease_ms=999", "&max=x"] {
        assert_eq!(get(house, &format!("/v1/tasks?kinds=ticket{bad}")).status, 400, "{bad}");
    }
    assert_eq!(get(house, "/v1/tasks?kinds=dance").status, 400);
}

/// What it would be given would lie there until its lease ran out.
#[test]
fn a_poll_whose_client_is_gone_is_given_nothing() {
    let asked = request("GET", "/v1/tasks?kinds=ticket&wait=15", "", "");
    // With one reactor, whatever came before this was dealt with.
    let barrier = |house: &House| assert_eq!(get(house, "/healthz").status, 200);
    for together in [false, true] {
        let house = serve(1, "");
        let mut gone = Wire::dial(house.address);
        gone.send(&asked);
        if !together {
            barrier(&house);
        }
        drop(gone);
        barrier(&house);
        ticket(&house, "one");
        let given = poll(&house, "&wait=2");
        assert_eq!(given.len(), 1, "somebody else has it (asked and ended together: {together})");
        assert_eq!(given[0]["attempt"], 1, "asked and ended together: {together}");
    }
}

/// Of many who poll and take, each task has one holder.
#[test]
fn each_task_is_held_by_one() {
    const TASKS: usize = 60;
    let house = serve(2, "");
    let house = &house;
    let mut parts: Vec<Box<dyn FnOnce() -> Vec<String> + Send + '_>> = Vec::new();
    let found = &AtomicUsize::new(0);
    for worker in 0..4 {
        parts.push(Box::new(move || {
            let mut mine = Vec::new();
            while found.load(Ordering::Acquire) < TASKS {
                let tasks = poll(house, &format!("&wait=1&max={}", worker + 1));
                found.fetch_add(tasks.len(), Ordering::AcqRel);
                mine.extend(tasks.iter().map(|task| {
                    assert_eq!(task["attempt"], 1, "{task}");
                    task["task"].as_str().unwrap().to_owned()
                }));
            }
            mine
        }));
    }
    parts.push(Box::new(move || {
        (0..TASKS).for_each(|number| ticket(house, &format!("t{number}")));
        Vec::new()
    }));
    let held: Vec<String> = side_by_side(parts).concat();
    let distinct: BTreeSet<&String> = held.iter().collect();
    assert_eq!((held.len(), distinct.len()), (TASKS, TASKS), "{held:?}");
}

#[test]
fn tasks_and_fences_outlive_a_restart() {
    let house = serve(1, "");
    ticket(&house, "done");
    ticket(&house, "held");
    let given = poll(&house, "&max=2&lease_ms=3600000");
    let done = given.iter().find(|task| is_of(task, "done")).unwrap();
    let path = format!("/v1/tasks/{}/done", done["task"].as_str().unwrap());
    assert_eq!(post(&house, &path, &json!({"fence": done["fence"]})).status, 200);
    ticket(&house, "waiting");
    let mut client = backend(&house);
    take(&mut client, 1);
    let socket = task(&mut client);
    assert!(is_of(&socket, "waiting"));

    let house = house.stop().serve();
    let again = poll(&house, "&max=5&wait=5");
    // What a socket held is free, its socket being gone; what was leased over HTTP is leased still; what is done is done.
    assert_eq!(again.len(), 1, "{again:?}");
    assert_eq!((&again[0]["task"], &again[0]["attempt"]), (&socket["task"], &json!(2)), "{again:?}");
    assert!(fence(&again[0]) > fence(&socket), "{again:?} {socket}");
    let held = given.iter().find(|task| is_of(task, "held")).unwrap();
    let path = format!("/v1/tasks/{}/done", held["task"].as_str().unwrap());
    assert_eq!(post(&house, &path, &json!({"fence": held["fence"]})).status, 200, "its holder is still its holder");
    let path = format!("/v1/tasks/{}/done", socket["task"].as_str().unwrap());
    assert_problem(&post(&house, &path, &json!({"fence": socket["fence"]})), 409, "stale_fence", "the old holder");
}

// ---- publishing ---------------------------------------------------------------------------------------------------------

#[test]
fn an_idempotency_key_stands_for_one_request() {
    let house = serve(1, "");
    let send = |fields: &str, body: &Value| http(house.address, "POST", "/v1/publish", fields, &body.to_string());
    let body = json!({"room": "game:1", "type": "note", "data": {"n": 1}});
    let first = send("Idempotency-Key: k-1\r\n", &body);
    assert_eq!((first.status, first.header("idempotent-replayed")), (201, None), "{first:?}");
    let told = first.json();
    assert_eq!((&told["room"], &told["seq"], &told["id"]), (&json!("game:1"), &json!(1), &json!("k-1")), "{told}");
    assert!(told["epoch"].as_str().is_some_and(|epoch| !epoch.is_empty()), "{told}");

    // The same again: the first answer, and that it is one. Bare, quoted, or in the body.
    let in_body = json!({"room": "game:1", "type": "note", "data": {"n": 1}, "id": "k-1"});
    for (fields, body) in [("Idempotency-Key: k-1\r\n", &body), ("Idempotency-Key: \"k-1\"\r\n", &body), ("", &in_body)]
    {
        let again = send(fields, body);
        assert_eq!((again.status, &again.body), (201, &first.body), "{fields:?} {again:?}");
        assert_eq!(again.header("idempotent-replayed"), Some("true"), "{fields:?} {again:?}");
    }
    let both = send("Idempotency-Key: k-1\r\n", &in_body);
    assert_eq!((both.status, &both.body), (201, &first.body));
    // Another body under the same key is a mistake, not a second event.
    for other in [
        json!({"room": "game:1", "type": "note", "data": {"n": 2}}),
        json!({"room": "game:1", "type": "other", "data": {"n": 1}}),
        json!({"room": "game:1", "type": "note", "data": {"n": 1}, "if_rev": 0}),
    ] {
        assert_problem(&send("Idempotency-Key: k-1\r\n", &other), 422, "id_taken", &other.to_string());
    }
    let two = send("Idempotency-Key: k-1\r\nIdempotency-Key: k-2\r\n", &body);
    assert_problem(&two, 400, "bad_id", "two keys");
    assert_problem(
        &send("Idempotency-Key: k-2\r\n", &in_body),
        400,
        "bad_id",
        "the header says one id, the body another",
    );
    assert_problem(&send(&format!("Idempotency-Key: {}\r\n", "k".repeat(65)), &body), 400, "bad_id", "65 bytes");
    assert_problem(&send("Idempotency-Key: \r\n", &body), 400, "bad_id", "none");
    let page = get(&house, "/v1/rooms/game:1/events").json();
    assert_eq!((&page["head"], page["events"].as_array().unwrap().len()), (&json!(1), 1), "one event: {page}");
    // The socket's twin gives the same answer, and says that it is one given before.
    let mut client = backend(&house);
    let dup =
        ask(&mut client, json!({"op": "publish", "room": "game:1", "type": "note", "data": {"n": 1}, "id": "k-1"}));
    assert_eq!((&dup["op"], &dup["seq"], &dup["dup"]), (&json!("ok"), &json!(1), &json!(true)), "{dup}");
}

#[test]
fn each_line_of_a_batch_is_for_itself() {
    let house = serve(1, "");
    let lines = [
        r#"{"room":"game:1","type":"note","data":1,"id":"a"}"#,
        "{not json",
        r#"{"room":"game 1","type":"note","data":1}"#,
        "",
        r#"{"room":"game:1","type":"note","data":1,"id":"a"}"#,
        r#"{"room":"game:1","type":"note","data":2,"id":"a"}"#,
        r#"{"room":"game:2","type":"note","data":2,"if_rev":5}"#,
        r#"{"room":"doc:none","type":"update","data":{"content":"x"}}"#,
        r#"  {"room":"game:1","type":"note","data":3}  "#,
    ];
    let answer = http(house.address, "POST", "/v1/batch", "", &lines.join("\r\n"));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-ndjson")), "{answer:?}");
    let results: Vec<Value> = answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let shown: Vec<Value> = results
        .iter()
        .map(|result| json!([result["line"], result["seq"], result["dup"], result["error"]["code"]]))
        .collect();
    let none = Value::Null;
    assert_eq!(
        shown,
        [
            json!([1, 1, none, none]),
            json!([2, none, none, "bad_message"]),
            json!([3, none, none, "bad_room"]),
            json!([5, 1, true, none]),
            json!([6, none, none, "id_taken"]),
            json!([7, none, none, "conflict"]),
            json!([8, none, none, "no_such_room"]),
            json!([9, 2, none, none]),
        ],
        "{}",
        answer.body
    );
    assert_eq!(get(&house, "/v1/rooms/game:1/events").json()["head"], 2);
    assert_eq!(http(house.address, "POST", "/v1/batch", "", "\n").status, 200, "no line in, no line out");
    // A long one, streamed: one result a line, in their order.
    let many: Vec<String> = (0..3000).map(|n| format!(r#"{{"room":"big:{}","type":"n","data":{n}}}"#, n % 7)).collect();
    let answer = http(house.address, "POST", "/v1/batch", "", &many.join("\n"));
    let results: Vec<Value> = answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(results.len(), 3000);
    for (index, result) in results.iter().enumerate() {
        assert_eq!((&result["line"], &result["seq"]), (&json!(index + 1), &json!(index / 7 + 1)), "{result}");
    }
}

#[test]
fn the_log_is_read_page_by_page() {
    let house = serve(1, "");
    let lines: Vec<String> =
        (1..=25).map(|n| format!(r#"{{"room":"game/x:1","type":"n","data":{n},"id":"i{n}"}}"#)).collect();
    assert_eq!(http(house.address, "POST", "/v1/batch", "", &lines.join("\n")).status, 200);
    // A room's name may hold slashes, raw and encoded.
    for room in ["game/x:1", "game%2Fx%3A1"] {
        let mut seen = Vec::new();
        loop {
            let after = seen.len();
            let page = get(&house, &format!("/v1/rooms/{room}/events?after={after}&limit=10")).json();
            assert_eq!((&page["room"], &page["head"]), (&json!("game/x:1"), &json!(25)), "{page}");
            let events = page["events"].as_array().unwrap();
            if events.is_empty() {
                break;
            }
            seen.extend(events.iter().map(|event| event["data"].as_u64().unwrap()));
        }
        assert_eq!(seen, (1..=25).collect::<Vec<u64>>());
    }
    assert_problem(&get(&house, "/v1/rooms/none/events"), 404, "no_such_room", "no such room");
    for bad in ["after=-1", "after=x", "limit=0", "limit=501"] {
        assert_eq!(get(&house, &format!("/v1/rooms/game:1/events?{bad}")).status, 400, "{bad}");
    }
    let beyond = get(&house, "/v1/rooms/game/x:1/events?after=18446744073709551615").json();
    assert_eq!(beyond["events"], json!([]), "{beyond}");
}

// ---- connections --------------------------------------------------------------------------------------------------------

#[test]
fn connections_are_listed_and_closed() {
    let house = keyed();
    let mut ann = house.connect("/v1/connect");
    let hello = ask(&mut ann, json!({"op": "auth", "token": token("ann", &[("*", &["read"])])}));
    assert_eq!(ask(&mut ann, json!({"op": "join", "room": "game:1"}))["op"], "joined");
    let worker = socket(&house, "worker");
    let list = || http(house.address, "GET", "/v1/connections", &bearing("warden"), "").json();
    let listed = list();
    let connections = listed["connections"].as_array().unwrap();
    let find = |field: &str, value: &Value| connections.iter().find(|each| each[field] == *value).cloned();
    let of_ann = find("id", &hello["conn"]).unwrap_or_else(|| panic!("{hello} is not in {listed}"));
    assert_eq!((&of_ann["user"], &of_ann["dialect"]), (&json!("ann"), &json!("native")), "{of_ann}");
    assert_eq!(of_ann["rooms"], json!(["game:1"]), "{of_ann}");
    assert!(find("dialect", &json!("backend")).is_some_and(|each| each["user"] == "worker"), "{listed}");

    let path = format!("/v1/connections/{}/close", hello["conn"].as_str().unwrap());
    let close = |path: &str, body: &str| http(house.address, "POST", path, &bearing("warden"), body);
    assert_eq!(close(&path, r#"{"reason":7}"#).status, 400, "nobody is closed by a mistake");
    let closed = close(&path, r#"{"reason":"go home"}"#);
    assert_eq!((closed.status, closed.json()), (200, json!({"closed": true})));
    assert_eq!(ann.json()["op"], "bye");
    assert_eq!(ann.hear(), Heard::Close(4403, "go home".to_owned()));
    assert!(matches!(ann.hear(), Heard::End(_)));
    // The slot's next tenant has another id.
    assert_problem(&close(&path, ""), 404, "no_such_connection", "it is gone");
    for bad in ["c0.0", "c9.0.1", "x", "c0.0.01"] {
        assert_eq!(close(&format!("/v1/connections/{bad}/close"), "").status, 404, "{bad}");
    }
    drop(worker);
}

#[test]
fn a_wrong_method_and_an_unknown_path_are_told_apart() {
    let house = serve(1, "");
    for (method, path, allow) in [
        ("GET", "/v1/publish", "POST"),
        ("GET", "/v1/batch", "POST"),
        ("POST", "/v1/tasks", "GET"),
        ("DELETE", "/v1/rooms", "GET, HEAD"),
        ("PUT", "/v1/sessions", "POST"),
    ] {
        let answer = http(house.address, method, path, "", "");
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{method} {path}: {answer:?}");
    }
    for path in ["/v1/nothing", "/v1/tasks/1", "/v1/tasks/1/undo", "/v1/rooms/"] {
        assert_eq!(get(&house, path).status, 404, "{path}");
    }
    for body in ["", "{", "[]", "7", "\u{0}"] {
        assert_problem(&http(house.address, "POST", "/v1/publish", "", body), 400, "bad_message", body);
    }
}

// ---- G5: ten thousand operations ----------------------------------------------------------------------------------------

const OPERATIONS: usize = 10_000;
const ROOMS: usize = 12;
/// Messages that a socket has under way; the server takes 64 of one connection at a time.
const UNDER_WAY: usize = 32;

/// How a copy travels. Operations belong to users: a native client's are told apart from a backend's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Native,
    Socket,
    Http,
}

/// Three connections of each way.
const LANES: [Way; 9] =
    [Way::Native, Way::Native, Way::Native, Way::Socket, Way::Socket, Way::Socket, Way::Http, Way::Http, Way::Http];

fn is_native(operation: usize) -> bool {
    operation.is_multiple_of(2)
}

fn body(operation: usize) -> Value {
    let room = format!("game:{}", operation % ROOMS);
    json!({"room": room, "id": format!("op-{operation}"), "type": "note", "data": {"n": operation}})
}

/// What one copy was told.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Told {
    operation: usize,
    seq: u64,
    dup: bool,
}

/// Sends these copies over one connection; returns those that got no answer, the server having gone.
fn run_lane(
    address: SocketAddr,
    way: Way,
    copies: &[usize],
    told: &Mutex<Vec<Told>>,
    count: &AtomicUsize,
) -> Vec<usize> {
    let note = |operation, seq, dup| {
        told.lock().unwrap().push(Told { operation, seq, dup });
        count.fetch_add(1, Ordering::AcqRel);
    };
    if way == Way::Http {
        return http_lane(address, copies, note);
    }
    let path = if way == Way::Native { "/v1/connect" } else { "/v1/backend" };
    let Ok(mut wire) = Wire::try_dial(address) else { return copies.to_vec() };
    if wire.try_send(crate::support::handshake(path, "")).is_err() || wire.try_reply().map_or(0, |it| it.status) != 101
    {
        return copies.to_vec();
    }
    for (index, chunk) in copies.chunks(UNDER_WAY).enumerate() {
        let frames: Vec<u8> = chunk
            .iter()
            .flat_map(|operation| {
                let mut message = body(*operation);
                message["op"] = json!("publish");
                crate::support::text(&message.to_string())
            })
            .collect();
        let mut open: Vec<usize> = chunk.to_vec();
        let unanswered = |mut open: Vec<usize>| {
            open.extend_from_slice(&copies[(index * UNDER_WAY + chunk.len()).min(copies.len())..]);
            open
        };
        if wire.try_send(frames).is_err() {
            return unanswered(open);
        }
        while !open.is_empty() {
            let Ok(frame) = wire.try_frame() else { return unanswered(open) };
            if frame.first != crate::support::TEXT {
                // A ping, or the close of a server that stops.
                continue;
            }
            let said: Value = serde_json::from_slice(&frame.payload).unwrap();
            match said["op"].as_str() {
                Some("hello" | "bye") => {}
                Some("ok") => {
                    let operation: usize = said["id"].as_str().unwrap()[3..].parse().unwrap();
                    let at = open.iter().position(|each| *each == operation);
                    open.remove(at.unwrap_or_else(|| panic!("nobody asked for this: {said}")));
                    note(operation, said["seq"].as_u64().unwrap(), said["dup"] == true);
                }
                // It stays open, to be sent again.
                Some("unknown") => return unanswered(open),
                _ => panic!("{way:?}: {said}"),
            }
        }
    }
    Vec::new()
}

fn http_lane(address: SocketAddr, copies: &[usize], note: impl Fn(usize, u64, bool)) -> Vec<usize> {
    let mut wire: Option<Wire> = None;
    for (index, operation) in copies.iter().enumerate() {
        let unanswered = || copies[index..].to_vec();
        let mut connected = match wire.take().map_or_else(|| Wire::try_dial(address), Ok) {
            Ok(wire) => wire,
            Err(_) => return unanswered(),
        };
        let mut message = body(*operation);
        let key = message["id"].take();
        message.as_object_mut().unwrap().remove("id");
        let fields = format!("Idempotency-Key: {}\r\n", key.as_str().unwrap());
        if connected.try_send(request("POST", "/v1/publish", &fields, &message.to_string())).is_err() {
            return unanswered();
        }
        let Ok(reply) = connected.try_reply() else { return unanswered() };
        match reply.status {
            201 => {
                let told = reply.json();
                assert_eq!(told["id"], key, "{reply}");
                note(*operation, told["seq"].as_u64().unwrap(), reply.header("idempotent-replayed") == Some("true"));
            }
            // It stops, and what became of the copy nobody says.
            503 => return unanswered(),
            _ => panic!("HTTP: {reply}"),
        }
        wire = (!reply.says_close()).then_some(connected);
    }
    Vec::new()
}

/// PROMISES.md G5: each operation is sent one to five times, over different connections of three kinds, some copies while
/// the first is under way, some after a restart. One event each, and every copy told of that one.
#[test]
fn g5_ten_thousand_operations_sent_again_and_again_are_ten_thousand_events() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_262);
    eprintln!("SEED={seed}");
    let mut dice = Dice(seed);
    let mut lanes: Vec<Vec<(usize, usize)>> = vec![Vec::new(); LANES.len()];
    let mut sent = 0;
    for operation in 0..OPERATIONS {
        for _ in 0..=dice.below(5) {
            let lane = loop {
                // HTTP has one under way at a time, so it is given fewer.
                let choice = if dice.below(4) == 0 { LANES.len() } else { 6 };
                let lane = dice.below(choice);
                if (LANES[lane] == Way::Native) == is_native(operation) {
                    break lane;
                }
            };
            // Most copies are near their first, to meet it under way; some come much later, after a restart.
            let late = if dice.below(8) == 0 { dice.below(OPERATIONS) } else { dice.below(100) };
            lanes[lane].push((operation + late, operation));
            sent += 1;
        }
    }
    let mut left: Vec<Vec<usize>> = lanes
        .into_iter()
        .map(|mut lane| {
            lane.sort_unstable();
            lane.into_iter().map(|(_, operation)| operation).collect()
        })
        .collect();
    let told = Mutex::new(Vec::<Told>::new());
    let count = AtomicUsize::new(0);
    let mut house = serve(2, "");
    let mut restarts = 0;
    let house = loop {
        let address = house.address;
        // Twice it is stopped in the middle of it all.
        let stop_at = (restarts < 2).then_some(sent * (restarts + 1) / 3);
        let (told, count) = (&told, &count);
        let rest: Mutex<Vec<(usize, Vec<usize>)>> = Mutex::new(Vec::new());
        let mut open = Some(house);
        let remains = std::thread::scope(|scope| {
            let running: Vec<_> = left
                .iter()
                .enumerate()
                .map(|(lane, copies)| {
                    let rest = &rest;
                    scope.spawn(move || {
                        let open = run_lane(address, LANES[lane], copies, told, count);
                        rest.lock().unwrap().push((lane, open));
                    })
                })
                .collect();
            match stop_at {
                Some(stop_at) => {
                    while count.load(Ordering::Acquire) < stop_at && !running.iter().all(|lane| lane.is_finished()) {
                        std::thread::yield_now();
                    }
                    open.take().map(House::stop)
                }
                None => {
                    for lane in running {
                        lane.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                    }
                    None
                }
            }
        });
        left = vec![Vec::new(); LANES.len()];
        for (lane, unanswered) in rest.into_inner().unwrap() {
            left[lane] = unanswered;
        }
        let Some(remains) = remains else { break open };
        house = remains.serve();
        restarts += 1;
        assert!(left.iter().any(|lane| !lane.is_empty()), "SEED={seed}: restart {restarts} came too late");
    }
    .expect("the last server was not stopped");
    assert!(left.iter().all(Vec::is_empty), "SEED={seed}: copies without an answer: {left:?}");

    // Every copy was told the same; at most one (none, where the stop took its answer away) was told to be the first.
    let told = told.into_inner().unwrap();
    assert_eq!(told.len(), sent, "SEED={seed}: one answer for each copy");
    let mut answers: BTreeMap<usize, (u64, usize)> = BTreeMap::new();
    for copy in &told {
        let (seq, firsts) = answers.entry(copy.operation).or_insert((copy.seq, 0));
        assert_eq!(*seq, copy.seq, "SEED={seed}: operation {} was told two places", copy.operation);
        *firsts += usize::from(!copy.dup);
        assert!(*firsts <= 1, "SEED={seed}: operation {} was the first twice", copy.operation);
    }
    assert_eq!(answers.len(), OPERATIONS);
    let silent = answers.values().filter(|(_, firsts)| *firsts == 0).count();
    assert!(silent <= 2 * LANES.len() * UNDER_WAY, "SEED={seed}: {silent} operations were first in no answer");

    // And that is what the logs hold.
    let mut events = 0;
    for room in (0..ROOMS).map(|room| format!("game:{room}")) {
        let mut last = 0;
        loop {
            let page = get(&house, &format!("/v1/rooms/{room}/events?after={last}&limit=500")).json();
            let page = page["events"].as_array().unwrap_or_else(|| panic!("{room}: {page}")).clone();
            if page.is_empty() {
                break;
            }
            for event in page {
                last += 1;
                let operation: usize = event["id"].as_str().unwrap()[3..].parse().unwrap();
                assert_eq!((&event["seq"], &event["data"]["n"]), (&json!(last), &json!(operation)), "{room}: {event}");
                assert_eq!(body(operation)["room"], room, "{event}");
                assert_eq!(answers[&operation].0, last, "SEED={seed}: {event} and what its sender was told");
                events += 1;
            }
        }
    }
    assert_eq!(events, OPERATIONS, "SEED={seed}");
    eprintln!("{sent} copies of {OPERATIONS} operations, {restarts} restarts, {silent} answers lost with a server");
}
