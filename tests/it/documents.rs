//! Each row of the documents dialect's keep-or-fix table (P1 … P17), over real sockets and by its name.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use commitcast::backlog::Backlog;
use commitcast::clock::{Clock, Wall};
use commitcast::config::{Flags, Settings};
use commitcast::dialect::{Env, Name, documents};
use commitcast::directory::Directory;
use commitcast::files;
use commitcast::guests::Guests;
use commitcast::listener::{Doors, Listener};
use commitcast::mailbox::{self, Mailbox};
use commitcast::metrics::Metrics;
use commitcast::reactor::poller::MioPoller;
use commitcast::reactor::{self, Control, Inbound, Reactor};
use commitcast::service::Status;
use commitcast::store::memory::{Faults, MemoryStore, Outcome};
use commitcast::store::reader::Reader;
use commitcast::store::worker::{self, Worker};
use commitcast::store::{Pulse, Retention};
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use mio::net::TcpStream;
use serde_json::json;
use tungstenite::Message;

use crate::stage::{self, Client, Heard, Process, serve, serve_files};
use crate::support::DEADLINE;

/// A prompt's client whose first frame was read.
fn join(address: SocketAddr, path: &str) -> Client {
    let mut client = stage::connect(address, path);
    client.expect("initial");
    client
}

/// What a new client is shown as the prompt's text.
fn initial(address: SocketAddr, path: &str) -> String {
    let first = stage::connect(address, path).expect("initial");
    first["content"].as_str().unwrap().to_owned()
}

// ---- P1, P2: saves that fail ----------------------------------------------------------------------------------------

#[test]
fn p1_a_failed_save_is_told_to_its_sender_and_shown_to_nobody() {
    let house = Faulty::serve();
    let mut writer = join(house.address, "/ws/prompts/one");
    let mut other = join(house.address, "/ws/prompts/one");
    for message in [
        json!({"action": "update", "content": "never"}),
        json!({"action": "update_metadata", "description": "never", "tags": ["never"]}),
    ] {
        house.disk.next_commit(Outcome::Full);
        writer.say(message.to_string());
        let status = writer.text();
        let expected = r#"{"action":"update_status","success":false,"error":"no space left; nothing was saved"}"#;
        assert_eq!(status, expected, "for {message}");
        other.expect_silence();
        writer.expect_silence();
    }
    // Space again: the same sockets go on, and the failure has left no hole.
    writer.update("after");
    writer.expect("update_status");
    let shown = other.expect("update");
    assert_eq!(shown["content"], "after");
    assert_eq!(house.disk.log("doc:one").len(), 2, "born and edited once");
}

#[test]
fn p1_a_failed_rest_save_is_an_error_and_shown_to_nobody() {
    let house = Faulty::serve();
    let mut member = join(house.address, "/ws/prompts/one");
    for (method, path, body) in [
        ("PUT", "/api/prompts/one", r#"{"content":"never"}"#),
        ("POST", "/api/prompts/", r#"{"name":"never"}"#),
        ("DELETE", "/api/prompts/one", ""),
        ("POST", "/api/prompts/rename", r#"{"old_id":"one","new_name":"never"}"#),
    ] {
        house.disk.next_commit(Outcome::Full);
        let answer = stage::http(house.address, method, path, body);
        assert_eq!((answer.status, answer.header("x-ws-reject")), (507, Some("store_full")), "{method}: {answer:?}");
    }
    member.expect_silence();
    let listed = stage::http(house.address, "GET", "/api/prompts/all", "").json();
    let ids: Vec<&str> = listed.as_array().unwrap().iter().map(|prompt| prompt["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["one"], "nothing came and nothing went");
}

#[test]
fn p2_after_a_failed_save_everybody_is_shown_the_text_of_before() {
    let house = Faulty::serve();
    let mut writer = join(house.address, "/ws/prompts/one");
    house.disk.next_commit(Outcome::Full);
    writer.update("never");
    assert_eq!(writer.expect("update_status")["success"], false);
    assert_eq!(initial(house.address, "/ws/prompts/one"), "born", "a new client");
    writer.say(r#"{"action":"get_details"}"#);
    assert_eq!(writer.expect("details")["content"], "born", "the client itself");
    assert_eq!(stage::http(house.address, "GET", "/api/prompts/one", "").json()["content"], "born", "over REST");
}

#[test]
fn p1_p2_where_nobody_knows_whether_it_was_saved_nobody_is_told_or_shown_anything() {
    for stored in [true, false] {
        let house = Faulty::serve();
        let mut writer = join(house.address, "/ws/prompts/one");
        let mut other = join(house.address, "/ws/prompts/one");
        house.disk.next_commit(Outcome::LostAnswer { stored });
        writer.update("perhaps");
        assert_eq!(writer.expect_close().0, 1012, "neither saved nor refused would be known to be true");
        assert_eq!(other.expect_close().0, 1012, "it was shown no update first");
        // Until the process has ended somebody may still come: he is shown what is certain, and nothing is written.
        match stage::dial(house.address, "/ws/prompts/one", &[]) {
            Err(refused) => assert_eq!(refused.status, 503, "{refused:?}"),
            Ok(mut late) => {
                assert_eq!(late.expect("initial")["content"], "born");
                late.update("never");
                assert_eq!(late.expect("update_status")["success"], false);
            }
        }
    }
}

// ---- P3 … P5: which paths lead to a prompt --------------------------------------------------------------------------

#[test]
fn p3_an_unknown_prompt_is_403_with_its_reason_or_by_choice_a_close_with_4004() {
    let house = serve(1, "");
    let refused = stage::dial(house.address, "/ws/prompts/none", &[]).expect_err("there is no such prompt");
    assert_eq!((refused.status, refused.header("x-ws-reject")), (403, Some("unknown_prompt")), "{refused:?}");
    assert_eq!(refused.header("x-websocket-reject-reason"), Some("unknown_prompt"));
    let body = refused.json();
    assert_eq!((&body["code"], &body["detail"]), (&json!("unknown_prompt"), &json!("Prompt 'none' not found")));
    assert!(body["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{body}");

    for toml in ["[refuse]\nstyle = \"close\"", "[refuse.documents]\nstyle = \"close\""] {
        let house = serve(1, toml);
        let mut client = house.connect("/ws/prompts/none");
        assert_eq!(client.expect_close(), (4004, "Prompt 'none' not found".to_owned()), "{toml}");
    }
}

#[test]
fn p4_ids_of_any_depth_are_reached_raw_and_encoded() {
    let house = serve(1, "");
    house.create("a/x/foo", "deep");
    house.create("ä b/c%2F", "odd");
    for path in [
        "/ws/prompts/a/x/foo",
        "/ws/prompts/a%2Fx%2ffoo",
        "/ws/prompts//a/x/foo",
        "/ws/prompts/a//x///foo/",
        "/ws/prompts/%2Fa%2Fx/foo",
    ] {
        assert_eq!(initial(house.address, path), "deep", "{path}");
    }
    for path in ["/ws/prompts/%C3%A4%20b/c%252F", "/ws/prompts/%c3%a4%20b%2Fc%252f"] {
        let dialled = stage::dial(house.address, path, &[]);
        // %252f decodes once, to the name's own `%2f`: another name than `%2F`.
        match dialled {
            Ok(mut client) => {
                assert_eq!((path.ends_with('F'), &client.expect("initial")["content"]), (true, &json!("odd")))
            }
            Err(refused) => assert_eq!((path.ends_with('f'), refused.status), (true, 403), "{path}: {refused:?}"),
        }
    }
}

#[test]
fn p5_every_path_that_a_client_ever_dialled_serves() {
    let house = serve(1, "");
    house.create("lib/one", "text");
    for path in [
        "/ws/prompts/lib/one",
        "/ws/prompts/one",
        "/ws/prompts/lib_one",
        "/ws/prompts/fragments/one",
        "/ws/prompts/fragments/lib/one",
        "/api/prompts/ws/one",
        "/api/prompts/ws/lib/one",
        "/api/prompts/ws/fragments/one",
        "/api/ws/prompts/lib/one",
        "/api/ws/prompts/fragments/one",
    ] {
        assert_eq!(initial(house.address, path), "text", "{path}");
    }
    for path in ["/api/ws/test", "/api/debug/api/ws/test", "/api/debug/ws/test"] {
        assert!(house.connect(path).text().ends_with("connection successful"), "{path}");
    }
}

// ---- P6 … P10: what messages get --------------------------------------------------------------------------------------

#[test]
fn p6_malformed_input_is_answered_and_the_socket_lives_on() {
    let house = serve(1, "");
    house.create("one", "born");
    let mut client = join(house.address, "/ws/prompts/one");
    let bad = [
        Message::text("not json"),
        Message::text("[1,2]"),
        Message::text("\"update\""),
        Message::text("{\"action\":\"update\",\"content\":\"cut"),
        Message::binary(br#"{"action":"update","content":"x"}"#.to_vec()),
        Message::binary(vec![0xff; 3]),
    ];
    for (number, message) in bad.into_iter().enumerate() {
        client.send(message.clone());
        let error = client.expect("error");
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{message:?}: {error}");
        client.update(&format!("alive {number}"));
        assert_eq!(client.expect("update_status")["success"], true, "after {message:?}");
    }
}

#[test]
fn p7_content_that_is_no_string_is_refused_and_poisons_nothing() {
    let house = serve(1, "");
    house.create("one", "born");
    let mut client = join(house.address, "/ws/prompts/one");
    let mut other = join(house.address, "/ws/prompts/one");
    for content in [json!(123), json!(1.5), json!(true), json!(["x"]), json!({"x": 1})] {
        client.say(json!({"action": "update", "content": content}).to_string());
        assert_eq!(client.expect("update_status")["success"], false, "{content}");
        other.expect_silence();
        assert_eq!(initial(house.address, "/ws/prompts/one"), "born", "after {content}");
    }
}

#[test]
fn p8_an_unknown_action_is_met_with_silence() {
    let house = serve(1, "");
    house.create("one", "born");
    let mut client = join(house.address, "/ws/prompts/one");
    let mut other = join(house.address, "/ws/prompts/one");
    for message in [r#"{"action":"invalid_action"}"#, r#"{"action":""}"#, r#"{"type":"ping"}"#, "{}"] {
        client.say(message);
        client.expect_silence();
    }
    other.expect_silence();
}

#[test]
fn p9_an_update_without_content_is_silently_ignored() {
    let house = serve(1, "");
    house.create("one", "born");
    let mut client = join(house.address, "/ws/prompts/one");
    let mut other = join(house.address, "/ws/prompts/one");
    for message in [r#"{"action":"update"}"#, r#"{"action":"update","content":null}"#] {
        client.say(message);
        client.expect_silence();
    }
    other.expect_silence();
    assert_eq!(initial(house.address, "/ws/prompts/one"), "born");
}

#[test]
fn p10_metadata_is_broadcast_as_asked_for_with_nulls() {
    let house = serve(1, "");
    house.create("one", "born");
    let mut client = join(house.address, "/ws/prompts/one");
    let mut other = join(house.address, "/ws/prompts/one");
    for (asked, description, tags) in [
        (json!({"action": "update_metadata", "description": "D"}), json!("D"), json!(null)),
        (json!({"action": "update_metadata", "tags": ["x", "y"]}), json!(null), json!(["x", "y"])),
        (json!({"action": "update_metadata"}), json!(null), json!(null)),
    ] {
        client.say(asked.to_string());
        let status = client.expect("update_status");
        let shown = other.expect("update_metadata");
        assert_eq!((&shown["description"], &shown["tags"]), (&description, &tags), "{asked}");
        assert!(shown.get("description").is_some() && shown.get("tags").is_some(), "null, not absent: {shown}");
        assert_eq!(shown["timestamp"], status["timestamp"]);
    }
    let first = stage::connect(house.address, "/ws/prompts/one").expect("initial");
    assert_eq!((&first["description"], &first["tags"]), (&json!("D"), &json!(["x", "y"])), "what was not asked stays");
}

#[test]
fn p11_the_sender_gets_no_echo() {
    let house = serve(2, "");
    house.create("one", "born");
    let mut clients: Vec<Client> = (0..4).map(|_| join(house.address, "/ws/prompts/one")).collect();
    for round in 0..12 {
        let sender = round % clients.len();
        let content = format!("round {round}");
        clients[sender].update(&content);
        assert_eq!(clients[sender].expect("update_status")["success"], true);
        for (place, client) in clients.iter_mut().enumerate().filter(|(place, _)| *place != sender) {
            assert_eq!(client.expect("update")["content"], *content, "client {place}");
        }
        // Its next frame is the next round's; an echo would have stood before it.
        clients[sender].expect_silence();
    }
}

// ---- P12, P13: rooms and lives ----------------------------------------------------------------------------------------

#[test]
fn p12_all_spellings_of_a_prompt_meet_in_one_room() {
    let house = serve(1, "");
    house.create("a/x/foo", "born");
    let spellings = [
        "/ws/prompts/a/x/foo",
        "/ws/prompts/foo",
        "/ws/prompts/a_x_foo",
        "/ws/prompts/a%2Fx%2Ffoo",
        "/ws/prompts//a//x/foo",
        "/ws/prompts/fragments/foo",
        "/api/prompts/ws/foo",
        "/api/ws/prompts/a/x/foo",
    ];
    let mut clients: Vec<Client> = spellings.iter().map(|path| join(house.address, path)).collect();
    for sender in 0..clients.len() {
        clients[sender].update(spellings[sender]);
        clients[sender].expect("update_status");
        for (place, client) in clients.iter_mut().enumerate().filter(|(place, _)| *place != sender) {
            let shown = client.expect("update");
            assert_eq!(shown["content"], spellings[sender], "{} is shown it", spellings[place]);
        }
    }
}

#[test]
fn p13_a_late_update_brings_no_deleted_prompt_back() {
    let house = serve_files(1, "", &[("one.md", "born")]);
    let mut client = join(house.address, "/ws/prompts/one");
    assert_eq!(house.http("DELETE", "/api/prompts/one", "").status, 200);
    for message in [json!({"action": "update", "content": "late"}), json!({"action": "update_metadata", "tags": ["l"]})]
    {
        client.say(message.to_string());
        assert_eq!(client.expect("update_status")["success"], false, "{message}");
    }
    assert_eq!(house.http("GET", "/api/prompts/one", "").status, 404);
    assert!(stage::dial(house.address, "/ws/prompts/one", &[]).is_err(), "it can be dialled");
    client.leave();
    let remains = house.stop();
    assert!(!remains.files().join("one.md").exists(), "its file is there again");
}

// ---- P14 … P17 ----------------------------------------------------------------------------------------------------------

#[test]
fn p14_dependencies_are_sorted_and_complete() {
    let house = serve(1, "");
    house.create("b", "[[d]]");
    house.create("one", "born");
    let mut client = join(house.address, "/ws/prompts/one");
    for _ in 0..3 {
        client.say(r#"{"action":"expand","content":"[[z]] [[b.md]] [[a]] [[z]] [[one]]"}"#);
        let expanded = client.expect("expanded");
        assert_eq!(expanded["dependencies"], json!(["a", "b", "d", "one", "z"]), "{expanded}");
    }
}

#[test]
fn p15_the_debug_echo_greets_in_text_then_speaks_json_in_local_time() {
    // A zone that no machine is in by default, so that UTC cannot pass for local time.
    let process = Process::start("", &[("TZ", "Asia/Kathmandu")]);
    let mut client = stage::connect(process.address, "/api/ws/test");
    assert_eq!(client.text(), "WebSocket test connection successful");
    for counter in 1..=3 {
        client.say("hällo");
        let echo = client.json();
        assert_eq!(echo["received"], "hällo");
        assert_eq!(echo["counter"], counter);
        assert_eq!(echo["message"], "WebSocket echo test");
        let stamp = echo["timestamp"].as_str().unwrap();
        let civil: DateTime = stamp.parse().unwrap_or_else(|error| panic!("{stamp} is not naive: {error}"));
        let zone = TimeZone::fixed(Offset::from_seconds(5 * 3600 + 45 * 60).unwrap());
        let apart = civil.to_zoned(zone).unwrap().timestamp().duration_since(jiff::Timestamp::now()).abs();
        assert!(apart.as_secs() < 60, "{stamp} is not Kathmandu's time");
    }
    let mut second = stage::connect(process.address, "/api/ws/test");
    second.text();
    second.say("x");
    assert_eq!(second.json()["counter"], 1, "the counter is each connection's own");
}

#[test]
fn p16_repeated_handshake_headers_are_refused() {
    let house = serve(1, "");
    house.create("one", "born");
    let lines = [
        "Host: a",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Origin: http://localhost:5173",
    ];
    let ask = |lines: &[&str]| {
        let request = format!("GET /ws/prompts/one HTTP/1.1\r\n{}\r\n\r\n", lines.join("\r\n"));
        let mut client = std::net::TcpStream::connect(house.address).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        std::io::Write::write_all(&mut client, request.as_bytes()).unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && std::io::Read::read(&mut client, &mut byte).unwrap() > 0 {
            head.push(byte[0]);
        }
        let answer = stage::parse(&head);
        (answer.status, answer.header("x-ws-reject").unwrap_or_default().to_owned())
    };
    assert_eq!(ask(&lines), (101, String::new()), "each header once");
    for (line, status, reason) in [
        ("Sec-WebSocket-Version: 13", 426, "version"),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", 400, "key"),
        ("Host: a", 400, "host"),
        ("Origin: http://localhost:5173", 403, "origin"),
    ] {
        let mut twice = lines.to_vec();
        twice.push(line);
        assert_eq!(ask(&twice), (status, reason.to_owned()), "{line}, twice");
    }
}

#[test]
fn p17_prompts_are_created_below_the_configured_roots_only() {
    let house = serve_files(1, "", &[("one.md", "born")]);
    let root = house.root();
    let outside = tempfile::tempdir().unwrap();
    let outside_path = outside.path().to_str().unwrap();
    for directory in [
        outside_path.to_owned(),
        format!("{outside_path}/new"),
        format!("{root}x"),
        format!("{root}/../evil"),
        format!("{root}/.hidden"),
        "relative".to_owned(),
        "/".to_owned(),
    ] {
        for body in [
            json!({"name": "evil", "directory": directory, "content": "x"}),
            json!({"id": format!("{directory}/evil"), "content": "x"}),
        ] {
            let answer = house.http("POST", "/api/prompts/", &body.to_string());
            assert_eq!(answer.status, 400, "{body}: {answer:?}");
        }
        let rename = json!({"old_id": "one", "new_id": format!("{directory}/evil")});
        let answer = house.http("POST", "/api/prompts/rename", &rename.to_string());
        assert_eq!(answer.status, 400, "{rename}: {answer:?}");
    }
    let inside = json!({"name": "good", "directory": format!("{root}/sub"), "content": "x"});
    assert_eq!(house.http("POST", "/api/prompts/", &inside.to_string()).status, 201);
    let remains = house.stop();
    let files = remains.files();
    let listed = |path: &std::path::Path| {
        let mut names: Vec<String> =
            std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(listed(outside.path()), [""; 0], "outside");
    assert_eq!(listed(files), ["one.md", "sub"], "inside");
    assert!(!std::path::Path::new(&format!("{root}x")).exists());
    assert!(!files.parent().unwrap().join("evil").exists());
    assert_eq!(std::fs::read_to_string(files.join("sub/good.md")).unwrap(), "x");
}

// ---- a house whose disk fails when told to --------------------------------------------------------------------------

type Post = Inbound<TcpStream>;

/// The server's own parts over the store in memory, on real sockets. It holds the prompt `one`, with the text `born`.
struct Faulty {
    address: SocketAddr,
    disk: Faults,
    stop: Arc<AtomicBool>,
    reactors: Vec<Mailbox<Post>>,
    threads: Vec<JoinHandle<()>>,
}

impl Faulty {
    fn serve() -> Faulty {
        let flags = Flags { listen: vec!["127.0.0.1:0".to_owned()], debug: true, ..Flags::default() };
        let settings =
            Settings::build(&flags, std::iter::empty(), |_| Err(std::io::ErrorKind::NotFound.into())).unwrap();
        let env = Arc::new(Env::default());
        let clock = Clock::system();
        let mut store = MemoryStore::new(1, 7);
        let disk = store.faults();
        let one = documents::Import {
            directory: String::new(),
            name: "one".to_owned(),
            content: "born".to_owned(),
            description: None,
            tags: Vec::new(),
            created_at: Some(Wall(1)),
            updated_at: Some(Wall(1)),
            digest: [0; 20],
        };
        files::load(&mut store, vec![one], &env, clock.wall()).unwrap();

        let directory = Arc::new(Directory::default());
        let (metrics, pulse) = (Arc::new(Metrics::default()), Arc::new(Pulse::default()));
        let backlog = Arc::new(Backlog::new(1 << 28));
        let status = Arc::new(Status::new(metrics.clone(), pulse.clone(), "full", "debug"));
        let (jobs, jobs_inbox) = mailbox::channel(64);
        let (questions, questions_inbox) = mailbox::channel(64);
        let poller = MioPoller::new().unwrap();
        let (mailbox, inbox) = mailbox::with_waker::<Post>(1024, poller.waker().unwrap());
        let reactors = vec![mailbox];
        let reader = Reader::new(store.snapshots(), questions_inbox, reactors.clone(), env.clone());
        let worker = Worker::new(
            store,
            worker::Wiring {
                inbox: jobs_inbox,
                reactors: reactors.clone(),
                files: None,
                directory: directory.clone(),
                env: env.clone(),
                clock: clock.clone(),
                metrics: metrics.clone(),
                pulse,
                backlog: backlog.clone(),
                retention: Arc::new(ArcSwap::from_pointee(Retention::default())),
            },
        );
        let reactor = Reactor::new(
            poller,
            reactor::Wiring {
                index: 0,
                inbox,
                writers: vec![jobs],
                readers: questions,
                files: None,
                directory,
                presence: Arc::default(),
                peers: reactors.clone(),
                backlog: backlog.clone(),
                responses: backlog.clone(),
                guests: Arc::new(Guests::default()),
                env,
                clock,
                status,
                live: Arc::new(ArcSwap::new(settings.live())),
                listeners: vec![Name::ALL.to_vec()],
            },
        );
        let socket = Doors::new(vec!["127.0.0.1:0".parse().unwrap()]).open().unwrap().remove(0);
        let address = socket.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let listener = Listener::new(
            vec![socket],
            reactors.clone(),
            1000,
            std::time::Duration::from_secs(10),
            metrics,
            stop.clone(),
        )
        .unwrap();
        let threads = vec![
            std::thread::spawn(move || listener.run().unwrap()),
            std::thread::spawn(move || reactor.run().unwrap()),
            std::thread::spawn(move || reader.run()),
            std::thread::spawn(move || {
                worker.run();
            }),
        ];
        Faulty { address, disk, stop, reactors, threads }
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for reactor in &mut self.reactors {
            reactor.post_or_wait(Inbound::Control(Control::Stop));
            reactor.ring();
        }
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a thread of the house panicked");
        }
    }
}

#[test]
fn a_close_is_what_a_client_hears_of_it() {
    // The stage's own words are judged once: silence is not mistaken for an end, nor an end for a frame.
    let house = serve(1, "");
    house.create("one", "born");
    let mut client = join(house.address, "/ws/prompts/one");
    client.send(Message::Close(None));
    assert_eq!(client.hear(), Heard::Close(0, String::new()));
    assert!(matches!(client.hear(), Heard::End(_)));
}
