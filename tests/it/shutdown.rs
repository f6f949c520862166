//! How a server ends, and what it takes on while it runs: draining, the second signal, SIGHUP.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::Instant;

use commitcast::server::End;
use serde_json::{Value, json};

use crate::stage::{self, Client, Heard, Process, serve_files, side_by_side};
use crate::support::DEADLINE;

fn join(address: SocketAddr, path: &str) -> Client {
    let mut client = stage::connect(address, path);
    client.expect("initial");
    client
}

/// An HTTP connection that stays.
struct Kept(TcpStream);

impl Kept {
    fn open(address: SocketAddr) -> Kept {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Kept(stream)
    }

    /// `None` when the server has ended it.
    fn get(&mut self, path: &str) -> Option<stage::Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        self.0.write_all(request.as_bytes()).ok()?;
        let mut bytes = Vec::new();
        loop {
            if let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                let answer = stage::parse(&bytes);
                let length: usize = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
                if bytes.len() >= head + 4 + length {
                    return Some(answer);
                }
            }
            let mut piece = [0; 4096];
            match self.0.read(&mut piece) {
                Ok(0) => return None,
                Ok(read) => bytes.extend_from_slice(&piece[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{path}: {error}"),
            }
        }
    }
}

/// The end's first visible step: behind it nothing new is taken on.
fn wait_for_the_listener_to_close(address: SocketAddr) {
    let deadline = Instant::now() + DEADLINE;
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < deadline, "it goes on accepting");
        std::thread::yield_now();
    }
}

#[test]
fn draining_answers_what_was_taken_on_and_closes_with_1012() {
    const WRITERS: usize = 8;
    const EACH: usize = 150;
    let house = serve_files(2, "", &[("one.md", "born"), ("two.md", "born")]);
    let mut idle =
        vec![join(house.address, "/ws/prompts/one"), house.connect("/api/ws/test"), house.connect("/v1/echo")];
    idle[1].text();
    let mut writers: Vec<Client> =
        (0..WRITERS).map(|place| join(house.address, ["/ws/prompts/one", "/ws/prompts/two"][place % 2])).collect();
    for number in 0..EACH {
        for (place, writer) in writers.iter_mut().enumerate() {
            let id = format!("{place}.{number}");
            writer.say(json!({"action": "update", "content": id, "id": id}).to_string());
        }
    }
    // Everybody stays until the server says goodbye.
    let stay = |mut client: Client| {
        let mut answered = BTreeSet::new();
        loop {
            match client.hear() {
                Heard::Text(text) if text.starts_with(r#"{"action":"update_status""#) => {
                    let status: Value = serde_json::from_str(&text).unwrap();
                    assert_eq!(status["success"], true, "{status}");
                    answered.insert(status["id"].as_str().unwrap().to_owned());
                }
                Heard::Text(_) => {}
                Heard::Close(code, reason) => {
                    assert_eq!(code, 1012);
                    let pause: u64 = reason
                        .strip_prefix("restart retry_after_ms=")
                        .unwrap_or_else(|| panic!("{reason}"))
                        .parse()
                        .unwrap();
                    assert!((250..4250).contains(&pause), "{pause}");
                    // Reading on sends our side of the goodbye.
                    assert!(matches!(client.hear(), Heard::End(_)));
                    return answered;
                }
                other => panic!("{other:?}"),
            }
        }
    };
    let remains = Mutex::new(None);
    let mut parts: Vec<Box<dyn FnOnce() -> BTreeSet<String> + Send + '_>> = vec![Box::new(|| {
        *remains.lock().unwrap() = Some(house.stop());
        BTreeSet::new()
    })];
    for client in writers.into_iter().chain(idle) {
        parts.push(Box::new(move || stay(client)));
    }
    let answered: BTreeSet<String> = side_by_side(parts).into_iter().flatten().collect();
    let remains = remains.into_inner().unwrap().unwrap();
    assert_eq!(remains.end, End::Drained, "a client that answers the close is not waited for in vain");

    // An operation that is sent again says whether it was stored: exactly the answered ones were.
    let house = remains.serve();
    for place in 0..WRITERS {
        let mut client = join(house.address, ["/ws/prompts/one", "/ws/prompts/two"][place % 2]);
        for number in 0..EACH {
            let id = format!("{place}.{number}");
            client.say(json!({"action": "update", "content": id, "id": id}).to_string());
            let status = loop {
                let value = client.json();
                if value["action"] == "update_status" {
                    break value;
                }
            };
            let stored = status["dup"] == true;
            assert_eq!(stored, answered.contains(&id), "{id} was stored: {stored}, answered: {}", !stored);
        }
    }
}

#[test]
fn a_client_that_asks_again_with_every_answer_is_told_to_go_too() {
    // There is hardly a moment at which none of its operations is under way.
    const AHEAD: usize = 32;
    let house = serve_files(2, "", &[("one.md", "born")]);
    let mut client = join(house.address, "/ws/prompts/one");
    let mut sent = 0;
    let mut ask = |client: &mut Client| {
        sent += 1;
        client.say(json!({"action": "update", "content": sent.to_string(), "id": sent.to_string()}).to_string());
    };
    (0..AHEAD).for_each(|_| ask(&mut client));
    let remains = Mutex::new(None);
    let asks = || {
        loop {
            match client.hear() {
                Heard::Text(text) if text.starts_with(r#"{"action":"update_status""#) => ask(&mut client),
                Heard::Text(_) => {}
                Heard::Close(code, _) => return assert_eq!(code, 1012),
                other => panic!("{other:?}"),
            }
        }
    };
    side_by_side(vec![Box::new(|| *remains.lock().unwrap() = Some(house.stop())), Box::new(asks)]);
    let remains = remains.into_inner().unwrap().unwrap();
    assert_eq!(remains.end, End::Drained, "it was not told to go, but cut off");
}

#[test]
fn draining_closes_over_the_window_and_is_not_ready_meanwhile() {
    // Long enough that most clients are still to be told when it is looked at; nobody waits for its end.
    let mut process = Process::start("[drain]\nwindow = \"10m\"\ntimeout = \"10m\"\n", &[]);
    let mut kept: Vec<Kept> = (0..24).map(|_| Kept::open(process.address)).collect();
    for connection in &mut kept {
        let answer = connection.get("/readyz").expect("an answer");
        assert_eq!((answer.status, &*answer.body), (200, "ready\n"));
    }
    let mut sockets: Vec<Client> = (0..4).map(|_| stage::connect(process.address, "/v1/echo")).collect();
    process.signal("TERM");
    wait_for_the_listener_to_close(process.address);
    let mut unready = 0;
    for connection in &mut kept {
        // Its turn to go may have come.
        let Some(answer) = connection.get("/readyz") else { continue };
        assert_eq!((answer.status, &*answer.body), (503, "draining\n"));
        unready += 1;
    }
    assert!(unready > 0, "every connection was gone before it could be asked");
    // Sockets whose turn has not come are served as ever.
    let mut served = 0;
    for socket in &mut sockets {
        socket.say("still?");
        match socket.hear() {
            Heard::Text(text) => served += usize::from(text == "still?"),
            Heard::Close(code, _) => assert_eq!(code, 1012),
            other => panic!("{other:?}"),
        }
    }
    assert!(served > 0, "all were told to go at once, in a window of ten minutes");

    // The second signal does not wait for the window.
    process.signal("TERM");
    assert_eq!(process.exit_code(), Some(0), "with the store in order");
}

#[test]
fn draining_takes_on_nothing_new() {
    let mut process = Process::start("[drain]\nwindow = \"10m\"\ntimeout = \"10m\"\n", &[]);
    let mut kept: Vec<Kept> = (0..24).map(|_| Kept::open(process.address)).collect();
    for connection in &mut kept {
        connection.get("/healthz").expect("an answer");
    }
    process.signal("TERM");
    wait_for_the_listener_to_close(process.address);
    let mut refused = 0;
    for connection in &mut kept {
        // The reactors hear of it right behind the listener; until then they serve. A connection whose turn to go has come
        // is ended.
        let answer = (0..10_000)
            .map(|_| connection.get("/api/prompts/all"))
            .find(|answer| answer.as_ref().is_none_or(|answer| answer.status != 200));
        match answer {
            Some(Some(answer)) => {
                assert_eq!((answer.status, answer.header("x-ws-reject")), (503, Some("draining")), "{answer:?}");
                assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
                refused += 1;
            }
            Some(None) => {}
            None => panic!("it goes on serving"),
        }
    }
    assert!(refused > 0, "nobody was refused");
    process.signal("TERM");
    assert_eq!(process.exit_code(), Some(0));
}

#[test]
fn an_interrupt_with_nobody_connected_ends_at_once_and_well() {
    for signal in ["TERM", "INT"] {
        let mut process = Process::start("[drain]\nwindow = \"10m\"\ntimeout = \"10m\"\n", &[]);
        process.signal(signal);
        assert_eq!(process.exit_code(), Some(0), "{signal}");
    }
}

#[test]
fn a_client_that_never_goes_is_left_behind_after_the_timeout() {
    let mut process = Process::start("[drain]\nwindow = \"0s\"\ntimeout = \"1s\"\n[limits]\nclose = \"5m\"\n", &[]);
    // Told to go, and does not answer.
    let deaf = stage::connect(process.address, "/v1/echo");
    process.signal("TERM");
    assert_eq!(process.exit_code(), Some(5), "the code that says so");
    drop(deaf);
}

#[test]
fn sighup_rereads_origins_and_a_faulty_file_changes_nothing() {
    let allow = |origin: &str| format!("[origins]\nallow = [\"{origin}\"]\n");
    let mut process = Process::start(&allow("https://one.example"), &[]);
    stage::create(process.address, "doc", "born");
    let judged = |process: &Process, origin: &str| match stage::dial(
        process.address,
        "/ws/prompts/doc",
        &[("origin", origin)],
    ) {
        Ok(_) => "let in".to_owned(),
        Err(refused) => refused.header("x-ws-reject").unwrap_or("no reason").to_owned(),
    };
    let verdicts = |process: &Process| [judged(process, "https://one.example"), judged(process, "https://two.example")];
    assert_eq!(verdicts(&process), ["let in", "origin"]);
    let mut stays = stage::dial(process.address, "/ws/prompts/doc", &[("origin", "https://one.example")]).unwrap();
    stays.expect("initial");

    std::fs::write(process.config(), allow("https://two.example")).unwrap();
    assert_eq!(verdicts(&process), ["let in", "origin"], "a file alone changes nothing");
    process.signal("HUP");
    process.wait_for("the configuration was read again");
    assert_eq!(verdicts(&process), ["origin", "let in"]);

    for faulty in ["[origins]\nallow = [\"no origin\"]\n", "[origins\n", "[orgins]\nallow = [\"*\"]\n"] {
        std::fs::write(process.config(), faulty).unwrap();
        process.signal("HUP");
        process.wait_for("the configuration was not changed");
        assert_eq!(verdicts(&process), ["origin", "let in"], "{faulty}");
    }

    // What needs a restart is named, the rest is taken.
    std::fs::write(process.config(), format!("reactors = 7\n{}", allow("https://one.example"))).unwrap();
    process.signal("HUP");
    process.wait_for("reactors has changed and needs a restart");
    assert_eq!(verdicts(&process), ["let in", "origin"]);

    // Whoever was let in by the old list stays.
    stays.update("still here");
    assert_eq!(stays.expect("update_status")["success"], true);
}
