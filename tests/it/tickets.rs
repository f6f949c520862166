//! Each row of the tickets dialect's keep-or-fix table (B1 … B11), over real sockets and HTTP and by its name.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tungstenite::Message;

use crate::stage::{self, Client, Heard, Process, serve};
use crate::support::{self, Wire};
use crate::workflows::{BACKEND, Backed, Listening, ask, publish, wait_for};

/// Nothing stands before the pong.
fn pongs(client: &mut Client) {
    client.say(r#"{"type":"ping"}"#);
    assert_eq!(client.text(), r#"{"type":"pong"}"#);
}

fn answer(client: &mut Client, session: &str, response: &str) {
    client.say(json!({"type": "user_response", "session_id": session, "response": response}).to_string());
    assert_eq!(client.text(), format!(r#"{{"type":"ack","session_id":"{session}","status":"received"}}"#));
}

fn create(address: SocketAddr, name: &str) -> Value {
    let answer = stage::http(address, "POST", "/tickets/create", &json!({"ticket_name": name}).to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// How many sockets the server counts on `/ws`.
fn clients(address: SocketAddr) -> u64 {
    stage::http(address, "GET", "/api/stats", "").json()["clients"].as_u64().unwrap()
}

/// Takes up to ten tasks of a kind and finishes them: their data, in order.
fn take(address: SocketAddr, kind: &str) -> Vec<Value> {
    let answer = ask(address, "GET", &format!("/v1/tasks?kinds={kind}&max=10&wait=0"), "");
    assert_eq!(answer.status, 200, "{answer:?}");
    let tasks = answer.json()["tasks"].as_array().unwrap().clone();
    for task in &tasks {
        let done = format!("/v1/tasks/{}/done", task["task"].as_str().unwrap());
        let answer = ask(address, "POST", &done, &json!({"fence": task["fence"]}).to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    tasks.into_iter().map(|mut task| task["data"].take()).collect()
}

// ---- B1 … B3: what one socket hears -------------------------------------------------------------------------------------

#[test]
fn b1_connecting_is_silent_whatever_was_said_before() {
    let server = Backed::serve();
    create(server.address, "before");
    publish(server.address, "logs", "status_change", r#"{"ticket_id":"t","status":"s"}"#);
    for path in ["/ws", "/ws?session=x&since=", "/ws/logs"] {
        let mut client = server.connect(path);
        pongs(&mut client);
    }
    // The first frame is the answer, also when the question came with the handshake.
    let mut wire = Wire::dial(server.address);
    wire.send([support::handshake("/ws", "").into_bytes(), support::text(r#"{"type":"ping"}"#)].concat());
    wire.expect_101();
    assert_eq!(wire.json(), json!({"type": "pong"}));
}

#[test]
fn b1_what_was_missed_is_shown_to_whoever_asks_for_it() {
    let server = Backed::serve();
    let names = ["one", "two", "three"];
    let tickets: Vec<Value> = names.iter().map(|name| create(server.address, name)).collect();
    let mut on_connecting = server.connect("/ws?since=1");
    let mut in_band = server.connect("/ws");
    pongs(&mut in_band);
    in_band.say(r#"{"type":"resume","since":1}"#);
    for client in [&mut on_connecting, &mut in_band] {
        assert_eq!(client.text(), r#"{"type":"resumed","after":1,"head":3}"#);
        for ticket in &tickets[1..] {
            assert_eq!(client.json()["ticket_id"], ticket["ticket_id"]);
        }
    }
    let last = create(server.address, "four");
    for client in [&mut on_connecting, &mut in_band] {
        assert_eq!(client.json()["ticket_id"], last["ticket_id"], "and then what is new");
    }
}

#[test]
fn b2_incomplete_answers_and_unknown_types_are_silence_and_nothing_is_stored() {
    let server = Backed::serve();
    let mut client = server.connect("/ws");
    for message in [
        r#"{"type":"user_response"}"#,
        r#"{"type":"user_response","session_id":"s"}"#,
        r#"{"type":"user_response","session_id":"s","response":""}"#,
        r#"{"type":"user_response","session_id":"s","response":null}"#,
        r#"{"type":"user_response","session_id":0,"response":"r"}"#,
        r#"{"type":"user_response","session_id":"","response":"r"}"#,
        r#"{"type":"zz","session_id":"s","response":"r"}"#,
        r#"{"session_id":"s","response":"r"}"#,
        "{}",
    ] {
        client.say(message);
    }
    pongs(&mut client);
    assert_eq!(take(server.address, "response"), [] as [Value; 0]);
}

#[test]
fn b3_malformed_messages_leave_the_socket_open_and_in_its_room() {
    let server = Backed::serve();
    let mut client = server.connect("/ws");
    for nonsense in
        [Message::text("not json"), Message::text("[]"), Message::text("\"ping\""), Message::binary(&b"\x00\xff"[..])]
    {
        client.send(nonsense.clone());
        assert_eq!(client.json()["type"], "error", "{nonsense:?}: the page's switch ignores it");
    }
    pongs(&mut client);
    assert_eq!(clients(server.address), 1);
    let ticket = create(server.address, "n");
    assert_eq!(client.json()["ticket_id"], ticket["ticket_id"]);
}

// ---- B4, B5: who is there -----------------------------------------------------------------------------------------------

#[test]
fn b4_counts_are_true_after_nonsense_and_cut_connections() {
    let server = Backed::on(tempfile::tempdir().unwrap(), 2);
    let mut all: Vec<Client> = (0..6).map(|_| server.connect("/ws")).collect();
    for client in &mut all {
        client.say("not json");
        assert_eq!(client.json()["type"], "error");
    }
    assert_eq!(clients(server.address), 6);
    // Cut in the middle, without a close frame: in the originals they were counted for ever.
    all.truncate(2);
    wait_for(|| clients(server.address), |count| *count == 2);
    create(server.address, "two are here");
    drop(all);
    wait_for(|| clients(server.address), |count| *count == 0);
    create(server.address, "nobody is here");
    // The gate of a run is the count that its task tells.
    let told: Vec<Value> = take(server.address, "ticket").into_iter().map(|task| task["clients"].clone()).collect();
    assert_eq!(told, [2, 0]);
    let logs = server.connect("/ws/logs");
    let stats = stage::http(server.address, "GET", "/api/stats", "").json();
    assert_eq!((&stats["clients"], &stats["log_clients"]), (&json!(0), &json!(1)), "the dashboard is no page");
    drop(logs);
}

#[test]
fn b5_nobody_is_skipped_when_others_leave_in_the_middle() {
    let server = Backed::on(tempfile::tempdir().unwrap(), 2);
    let mut staying: Vec<Client> = (0..5).map(|_| server.connect("/ws")).collect();
    let mut leaving: Vec<Client> = (0..30).map(|_| server.connect("/ws")).collect();
    let tickets: Vec<Value> = (0..30)
        .map(|n| {
            drop(leaving.pop());
            create(server.address, &format!("n{n}"))["ticket_id"].clone()
        })
        .collect();
    for client in &mut staying {
        let heard: Vec<Value> = (0..30).map(|_| client.json()["ticket_id"].clone()).collect();
        assert_eq!(heard, tickets, "all of them, once, in order");
    }
}

// ---- B6, B7: everybody --------------------------------------------------------------------------------------------------

#[test]
fn b6_a_ticket_is_told_to_every_socket_before_the_reply() {
    let server = Backed::serve();
    let mut three: Vec<Client> = (0..3).map(|_| server.connect("/ws")).collect();
    // All three have been told when the reply is there: nothing that is asked now can be answered first.
    let ticket = create(server.address, "Né \"x\"");
    let job = ticket["job_id"].as_str().unwrap();
    assert!(job.len() == 12 && job.starts_with("job-"), "{ticket}");
    assert_eq!((&ticket["ticket_name"], &ticket["status"]), (&json!("Né \"x\""), &json!("queued")));
    for client in &mut three {
        client.say(r#"{"type":"ping"}"#);
        let told = client.json();
        assert_eq!((&told["type"], &told["ticket_id"]), (&json!("ticket_created"), &ticket["ticket_id"]));
        assert!(told["timestamp"].as_str().unwrap().ends_with("+00:00"), "{told}");
        assert_eq!(client.text(), r#"{"type":"pong"}"#);
    }
    let task = take(server.address, "ticket").remove(0);
    for field in ["ticket_id", "ticket_name", "job_id"] {
        assert_eq!(task[field], ticket[field], "{task}");
    }
    assert_eq!(task["clients"], 3);
}

#[test]
fn b6_everybody_sees_everything_but_answers() {
    let server = Backed::serve();
    let (mut asker, mut other) = (server.connect("/ws"), server.connect("/ws"));
    publish(
        server.address,
        "tickets",
        "agent_message",
        r#"{"session_id":"s1","content":"?","message_type":"question"}"#,
    );
    for client in [&mut asker, &mut other] {
        assert_eq!(client.json()["session_id"], "s1");
    }
    answer(&mut asker, "s1", "secret");
    pongs(&mut other);
}

#[test]
fn b7_anybody_answers_any_session_the_last_answer_wins_and_it_is_known_whose_it_is() {
    let secret = support::SECRET;
    let toml = format!(
        "[auth]\nmode = \"token\"\nhs256_secret = \"{secret}\"\n\
         api_keys = [{{ name = \"backend\", key = \"a-key-for-the-tests-backend\", rights = [\"*\"] }}]\n"
    );
    let house = support::House::open(&toml);
    for (user, response) in [("ann", "no"), ("bob", "yes")] {
        let token = support::bearer(&support::token(user, &[("tickets", &["read", "write"])]));
        let mut wire = Wire::upgrade(house.address, "/ws", &token);
        // Whoever says that he is somebody else is not believed.
        wire.send_json(&json!({"type": "user_response", "session_id": "s1", "response": response, "by": "eve"}));
        assert_eq!(wire.json(), json!({"type": "ack", "session_id": "s1", "status": "received"}));
    }
    let given = take(house.address, "response");
    let last = given.last().unwrap();
    assert_eq!((&last["session_id"], &last["response"], &last["by"]), (&json!("s1"), &json!("yes"), &json!("bob")));
    assert_eq!(given.len(), 2, "each was somebody's word: {given:?}");
    assert_eq!(house.ask("GET", "/ws", &support::upgrade_fields(), "").status, 401);
}

// ---- B8: the mailbox ----------------------------------------------------------------------------------------------------

#[test]
fn b8_an_answer_waits_for_a_backend_through_a_restart() {
    let server = Backed::serve();
    let mut page = server.connect("/ws");
    answer(&mut page, "s1", "first, é");
    page.say(r#"{"type":"user_response","session_id":7,"response":{"a":[1]}}"#);
    assert_eq!(page.text(), r#"{"type":"ack","session_id":7,"status":"received"}"#);
    let server = server.again();
    let given = take(server.address, "response");
    let told: Vec<(&Value, &Value)> = given.iter().map(|task| (&task["session_id"], &task["response"])).collect();
    assert_eq!(told, [(&json!("s1"), &json!("first, é")), (&json!(7), &json!({"a": [1]}))]);
    let server = server.again();
    assert_eq!(take(server.address, "response"), [] as [Value; 0], "what was done stays done");
}

#[test]
fn b8_what_was_acknowledged_survives_a_kill() {
    let mut process = Process::start(BACKEND, &[]);
    let mut page = stage::connect(process.address, "/ws");
    answer(&mut page, "s1", "yes");
    let ticket = create(process.address, "n");
    process.signal("KILL");
    assert_eq!(process.exit_code(), None, "killed");
    let data = tempfile::tempdir().unwrap();
    std::fs::rename(process.data.path().join("store"), data.path().join("store")).unwrap();
    let server = Backed::on(data, 1);
    let given = take(server.address, "response");
    assert_eq!((given.len(), &given[0]["response"]), (1, &json!("yes")), "{given:?}");
    let given = take(server.address, "ticket");
    assert_eq!((given.len(), &given[0]["ticket_id"]), (1, &ticket["ticket_id"]), "{given:?}");
}

// ---- B9 … B11: HTTP, jobs -----------------------------------------------------------------------------------------------

#[test]
fn b9_pages_of_the_listed_origins_may_ask_and_others_may_not() {
    let server = serve(1, "[origins]\nallow = [\"http://localhost:5173\", \"http://localhost:3000\"]\n");
    let body = r#"{"ticket_name":"n"}"#;
    let post = |origin: &str| {
        let head = format!("POST /tickets/create HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", server.address);
        let head = head + &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        stage::raw(server.address, &format!("{head}{origin}\r\n{body}"))
    };
    for origin in ["http://localhost:5173", "http://localhost:3000"] {
        let answer = post(&format!("Origin: {origin}\r\n"));
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some(origin)), "{answer:?}");
        let preflight = stage::raw(
            server.address,
            &format!(
                "OPTIONS /tickets/create HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nOrigin: {origin}\r\n\
                 Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n\r\n",
                server.address
            ),
        );
        assert!(matches!(preflight.status, 200 | 204), "{preflight:?}");
        assert_eq!(preflight.header("access-control-allow-origin"), Some(origin), "{preflight:?}");
        let methods = preflight.header("access-control-allow-methods").unwrap_or_default();
        assert!(methods.contains("POST"), "{preflight:?}");
    }
    let strange = post("Origin: http://evil.example\r\n");
    assert_eq!((strange.status, strange.header("access-control-allow-origin")), (403, None), "{strange:?}");
    assert_eq!(post("").status, 200, "a program has no origin");
    let refused = stage::dial(server.address, "/ws", &[("Origin", "http://evil.example")]).expect_err("a stranger");
    assert_eq!(refused.status, 403);
}

#[test]
fn b10_a_job_runs_until_a_backend_says_otherwise() {
    let server = Backed::serve();
    let state = |job: &str| {
        let answer = stage::http(server.address, "GET", &format!("/jobs/{job}"), "");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    };
    let running = |job: &str| format!(r#"{{"job_id":"{job}","status":"running"}}"#);
    assert_eq!(state("job-123"), running("job-123"), "also one of which nobody has heard");
    let job = create(server.address, "n")["job_id"].as_str().unwrap().to_owned();
    assert_eq!(state(&job), running(&job));
    publish(server.address, "tickets", "job", &json!({"job_id": job, "status": "paused"}).to_string());
    assert_eq!(state(&job), format!(r#"{{"job_id":"{job}","status":"paused"}}"#));
    publish(server.address, "tickets", "agent_error", &json!({"job_id": job, "error": "e"}).to_string());
    assert_eq!(state(&job), format!(r#"{{"job_id":"{job}","status":"error"}}"#));
}

#[test]
fn b11_a_failed_run_completes_too_without_session_or_time() {
    let server = Backed::serve();
    let mut page = server.connect("/ws");
    for status in ["completed", "error"] {
        let data = format!(r#"{{"job_id":"job-1","ticket_id":"t","status":"{status}"}}"#);
        assert_eq!(publish(server.address, "tickets", "agent_complete", &data).status, 201);
        let expected = format!(r#"{{"type":"agent_complete","job_id":"job-1","ticket_id":"t","status":"{status}"}}"#);
        assert_eq!(page.text(), expected);
        let job = stage::http(server.address, "GET", "/jobs/job-1", "");
        assert_eq!(job.json()["status"], status);
    }
}

// ---- paths --------------------------------------------------------------------------------------------------------------

#[test]
fn ws_is_the_tickets_without_a_session_and_the_agents_with_one() {
    let server = Backed::serve();
    let mut here: Vec<Client> =
        ["/ws", "/ws?token=x", "/ws?session=x"].into_iter().map(|path| server.connect(path)).collect();
    for client in &mut here {
        client.send(Message::Ping(b"1"[..].into()));
        assert_eq!(client.hear(), Heard::Pong(b"1".to_vec()), "silent");
        pongs(client);
    }
    assert_eq!(clients(server.address), 3);
    // No such session: a question of the agents', who refuse it in their own words.
    let refused = stage::dial(server.address, "/ws?session_id=3f2b8c1e-0000-4000-8000-000000000000", &[])
        .expect_err("there is no such session");
    assert!(matches!(refused.status, 403 | 404), "{refused:?}");
    assert_ne!(refused.header("x-ws-reject"), Some("unknown_path"), "{refused:?}");
    assert_eq!(clients(server.address), 3, "and is no ticket page");
}

#[test]
fn a_listener_of_tickets_alone_serves_nothing_else() {
    let listener = Listening::to("tickets");
    let health = stage::http(listener.address, "GET", "/health", "");
    assert_eq!((health.status, &*health.body), (200, r#"{"status":"ok","service":"agent-sdk-webhook-server"}"#));
    let root = stage::http(listener.address, "GET", "/", "");
    let expected = r#"{"status":"ok","service":"agent-sdk-webhook-server","note":"Frontend not found"}"#;
    assert_eq!((root.status, &*root.body), (200, expected));
    for path in ["/ws/workflow/x", "/ws/coordinator", "/ws/prompts/x", "/api/v1/ws?session_id=x", "/v1/connect"] {
        let refused = stage::dial(listener.address, path, &[]).expect_err(path);
        assert_eq!((refused.status, refused.header("x-ws-reject")), (404, Some("unknown_path")), "{path}: {refused:?}");
    }
    for path in ["/api/v1/ws/stats", "/ws/stats", "/api/prompts/all"] {
        assert_eq!(stage::http(listener.address, "GET", path, "").status, 404, "{path}");
    }
    // Any query is ignored where the agents are not served.
    pongs(&mut stage::connect(listener.address, "/ws?session_id=x"));
    pongs(&mut stage::connect(listener.address, "/ws/logs"));
}
