//! Resuming a native session (PROMISES.md G6): from wherever it was cut, exactly what was missed, or an explicit reset.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use serde_json::{Value, json};

use crate::dice::Dice;
use crate::stage::{Client, House, serve, side_by_side};
use crate::support::{DEADLINE, handshake, text};

const ROOM: &str = "game:1";
/// Events of the session that is cut.
const EVENTS: u64 = 200;

// ---- a stream as bytes --------------------------------------------------------------------------------------------------

/// A native socket that keeps every byte behind its 101, frames and all.
#[derive(Debug)]
struct Stream {
    socket: TcpStream,
    bytes: Vec<u8>,
    what: String,
}

impl Stream {
    fn open(address: SocketAddr, what: &str) -> Stream {
        let socket = TcpStream::connect_timeout(&address, DEADLINE).unwrap_or_else(|error| panic!("{what}: {error}"));
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
        let mut stream = Stream { socket, bytes: Vec::new(), what: what.to_owned() };
        stream.send(handshake("/v1/connect", ""));
        let end = loop {
            match stream.bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => stream.more(),
            }
        };
        assert!(stream.bytes.starts_with(b"HTTP/1.1 101 "), "{what}: {}", stream.bytes.escape_ascii());
        stream.bytes.drain(..end);
        stream
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", self.what));
    }

    fn say(&mut self, message: &Value) {
        self.send(text(&message.to_string()));
    }

    fn more(&mut self) {
        let mut piece = [0; 16 * 1024];
        let read = loop {
            match self.socket.read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        match read {
            Ok(0) => panic!("{}: the stream ended after {}", self.what, self.bytes.escape_ascii()),
            Ok(read) => self.bytes.extend_from_slice(&piece[..read]),
            Err(error) => panic!("{}: {error} after {}", self.what, self.bytes.escape_ascii()),
        }
    }

    fn hold(&mut self, length: usize) {
        while self.bytes.len() < length {
            self.more();
        }
    }

    /// The next frame, taken from the front.
    fn json(&mut self) -> Value {
        loop {
            if let Some((payload, end)) = whole_frame(&self.bytes) {
                let value = parse(payload);
                self.bytes.drain(..end);
                return value;
            }
            self.more();
        }
    }
}

/// The payload of the text frame at the front and where it ends, if it is all there.
fn whole_frame(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let [first, length, ..] = *bytes else { return None };
    assert_eq!(first, 0x81, "only whole text frames are sent here");
    let (start, length) = match length {
        126 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        127 => panic!("no frame here is that long"),
        length => (2, usize::from(length)),
    };
    Some((bytes.get(start..start + length)?, start + length))
}

fn parse(payload: &[u8]) -> Value {
    serde_json::from_slice(payload).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(payload)))
}

/// Where a client stands that has heard these bytes: what its last whole frame of the room told it, and where that ends.
#[derive(Debug)]
struct Place {
    epoch: String,
    seq: u64,
    end: usize,
}

/// `None`: it has not even heard that it is in the room.
fn place(heard: &[u8]) -> Option<Place> {
    let mut place: Option<Place> = None;
    let mut at = 0;
    while let Some((payload, length)) = whole_frame(&heard[at..]) {
        at += length;
        let value = parse(payload);
        match (value["op"].as_str(), &mut place) {
            (Some("joined"), _) => {
                let (epoch, head) = (value["epoch"].as_str().unwrap(), value["head"].as_u64().unwrap());
                place = Some(Place { epoch: epoch.to_owned(), seq: head, end: at });
            }
            (Some("event"), Some(place)) => {
                place.seq = value["seq"].as_u64().unwrap();
                place.end = at;
            }
            other => panic!("{other:?} was not expected in this session: {value}"),
        }
    }
    place
}

// ---- publishing ---------------------------------------------------------------------------------------------------------

fn connect(house: &House) -> Client {
    let mut client = house.connect("/v1/connect");
    assert_eq!(client.json()["op"], "hello");
    client
}

/// Publishes all of it, pipelined, and reads the answers.
fn publish(client: &mut Client, room: &str, from: u64, to: u64) {
    for number in from..=to {
        // Of many lengths, with letters of one to four bytes and what must be escaped.
        let data = json!({"n": number, "text": "ä€\u{0}\u{1d11e}\"".repeat((number % 5) as usize)});
        let message =
            json!({"op": "publish", "room": room, "id": format!("op-{number}"), "type": "note", "data": data});
        client.say(message.to_string());
    }
    for number in from..=to {
        let ok = client.json();
        assert_eq!((&ok["op"], &ok["id"]), (&json!("ok"), &json!(format!("op-{number}"))), "{ok}");
    }
}

fn join(client: &mut Client, room: &str, epoch: &str, seq: u64) -> Value {
    client.say(json!({"op": "join", "room": room, "since": {"epoch": epoch, "seq": seq}}).to_string());
    client.json()
}

/// The log as the backend protocol shows it, page by page.
fn log(house: &House, room: &str) -> Vec<Value> {
    let mut log: Vec<Value> = Vec::new();
    loop {
        let after = log.last().map_or(0, |event| event["seq"].as_u64().unwrap());
        let page = house.http("GET", &format!("/v1/rooms/{room}/events?after={after}&limit=500"), "").json();
        let events = page["events"].as_array().unwrap_or_else(|| panic!("no events in {page}"));
        if events.is_empty() {
            assert_eq!(page["head"], after, "the log ends at its head");
            return log;
        }
        log.extend(events.iter().cloned());
    }
}

/// A frame and a row of the log say the same thing.
fn same(frame: &Value, row: &Value) -> bool {
    ["seq", "type", "by", "at", "id", "data"].iter().all(|key| frame[*key] == row[*key])
}

fn nothing_more(client: &mut Client) {
    client.say(r#"{"op":"ping"}"#);
    let next = client.json();
    assert_eq!(next, json!({"op": "pong"}), "nothing more was to come");
}

// ---- every byte offset --------------------------------------------------------------------------------------------------

/// Every offset in a release build and where `RESUME_ALL` is set; every 23rd otherwise, so that the suite stays quick.
fn stride() -> usize {
    let all = !cfg!(debug_assertions) || std::env::var_os("RESUME_ALL").is_some_and(|value| value == "1");
    if all { 1 } else { 23 }
}

#[test]
fn g6_a_session_cut_at_every_byte_is_resumed_without_gap_or_duplicate() {
    let house = serve(2, "");
    let mut writer = connect(&house);
    publish(&mut writer, ROOM, 1, 1);

    // The session: joined, and then every event as it happens.
    let mut whole = Stream::open(house.address, "the session that is cut");
    assert_eq!(whole.json()["op"], "hello");
    whole.say(&json!({"op": "join", "room": ROOM}));
    while whole_frame(&whole.bytes).is_none() {
        whole.more();
    }
    publish(&mut writer, ROOM, 2, EVENTS + 1);
    while place(&whole.bytes).is_none_or(|place| place.seq <= EVENTS) {
        whole.more();
    }
    let session = whole.bytes;
    let last = place(&session).unwrap();
    assert_eq!((last.seq, last.end), (EVENTS + 1, session.len()), "the session is whole frames");
    // What it was told is what the log holds; from here on its bytes stand for the log.
    let mut at = whole_frame(&session).unwrap().1;
    for row in &log(&house, ROOM)[1..] {
        let (payload, length) = whole_frame(&session[at..]).unwrap();
        assert!(same(&parse(payload), row), "{} is not {row}", String::from_utf8_lossy(payload));
        at += length;
    }
    assert_eq!(at, session.len(), "one event each");

    let offsets: Vec<usize> = (0..=session.len()).step_by(stride()).collect();
    let begun = Instant::now();
    let (address, session, offsets) = (house.address, &session, &offsets);
    let lanes: Vec<Box<dyn FnOnce() -> usize + Send + '_>> = (0..4)
        .map(|lane| {
            let resume = move || {
                let mine: Vec<usize> = offsets.iter().copied().skip(lane).step_by(4).collect();
                mine.iter().for_each(|cut| resume_at(address, session, *cut));
                mine.len()
            };
            Box::new(resume) as Box<dyn FnOnce() -> usize + Send + '_>
        })
        .collect();
    let resumed: usize = side_by_side(lanes).into_iter().sum();
    assert_eq!(resumed, offsets.len());
    eprintln!(
        "resumed {resumed} times, at every {} of {} byte offsets, in {:?}",
        stride(),
        session.len() + 1,
        begun.elapsed()
    );
}

/// The connection broke when these many bytes had come: a new one must bring what is missing, byte for byte, and no more.
fn resume_at(address: SocketAddr, session: &[u8], cut: usize) {
    let mut stream = Stream::open(address, &format!("cut at {cut}"));
    assert_eq!(stream.json()["op"], "hello", "cut at {cut}");
    let missed = match place(&session[..cut]) {
        None => {
            stream.say(&json!({"op": "join", "room": ROOM}));
            let joined = stream.json();
            assert_eq!((&joined["head"], &joined["recovered"]), (&json!(EVENTS + 1), &json!(false)), "cut at {cut}");
            &[][..]
        }
        Some(place) => {
            stream.say(&json!({"op": "join", "room": ROOM, "since": {"epoch": place.epoch, "seq": place.seq}}));
            let joined = stream.json();
            assert_eq!(joined["recovered"], true, "cut at {cut}: {joined}");
            assert_eq!((&joined["epoch"], &joined["head"]), (&json!(place.epoch), &json!(EVENTS + 1)), "cut at {cut}");
            &session[place.end..]
        }
    };
    stream.hold(missed.len());
    assert!(stream.bytes == missed, "cut at {cut}: not what was missed, but {}", stream.bytes.escape_ascii());
    stream.bytes.clear();
    stream.say(&json!({"op": "ping"}));
    assert_eq!(stream.json(), json!({"op": "pong"}), "cut at {cut}: more came than was missed");
}

/// Who joins a room before its first event is told no epoch, and events carry none: it stands in the first history.
#[test]
fn g6_who_joined_before_the_first_event_resumes_at_every_event() {
    let house = serve(2, "");
    let mut early = connect(&house);
    early.say(json!({"op": "join", "room": ROOM}).to_string());
    let joined = early.json();
    assert_eq!(joined["head"], 0, "{joined}");
    let epoch = joined["epoch"].as_str().unwrap().to_owned();
    publish(&mut connect(&house), ROOM, 1, 30);
    let told: Vec<Value> = (0..30).map(|_| early.json()).collect();
    for seen in 0..=30 {
        let mut client = connect(&house);
        let joined = join(&mut client, ROOM, &epoch, seen);
        assert_eq!((&joined["recovered"], &joined["head"]), (&json!(true), &json!(30)), "after {seen}: {joined}");
        for event in &told[seen as usize..] {
            assert_eq!(&client.json(), event, "after {seen}");
        }
        nothing_more(&mut client);
    }
}

// ---- while it goes on ---------------------------------------------------------------------------------------------------

fn seed() -> u64 {
    std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261)
}

#[test]
fn g6_readers_that_come_and_go_while_others_write_miss_nothing() {
    const LAST: u64 = 1500;
    let seed = seed();
    eprintln!("SEED={seed}");
    let house = serve(2, "");
    let mut writer = connect(&house);
    publish(&mut writer, ROOM, 1, 1);
    let address = house.address;
    let epoch = join(&mut connect(&house), ROOM, "", 1)["epoch"].as_str().unwrap().to_owned();
    let epoch = epoch.as_str();
    let read = move |reader: u64| {
        let mut dice = Dice(seed ^ (reader << 32));
        let mut told: Vec<Value> = Vec::new();
        let mut resumes = 0;
        while told.len() as u64 + 1 < LAST {
            let seen = told.last().map_or(1, |event| event["seq"].as_u64().unwrap());
            let what = format!("reader {reader} after {seen} of SEED={seed}");
            let mut stream = Stream::open(address, &what);
            assert_eq!(stream.json()["op"], "hello", "{what}");
            stream.say(&json!({"op": "join", "room": ROOM, "since": {"epoch": epoch, "seq": seen}}));
            let joined = stream.json();
            assert_eq!(joined["recovered"], true, "{what}: {joined}");
            let head = joined["head"].as_u64().unwrap();
            // Sometimes it goes before it was given what its welcome speaks of, sometimes in the middle of what is new.
            let wanted = (dice.roll() % (head - seen + 40)).max(1);
            for next in seen + 1..=(seen + wanted).min(LAST) {
                let event = stream.json();
                assert_eq!((&event["op"], &event["seq"]), (&json!("event"), &json!(next)), "{what}: {event}");
                told.push(event);
            }
            resumes += 1;
        }
        (resumes, told)
    };
    type Part<'p> = Box<dyn FnOnce() -> (usize, Vec<Value>) + Send + 'p>;
    let mut parts: Vec<Part<'_>> = Vec::new();
    for reader in 0..4 {
        parts.push(Box::new(move || read(reader)));
    }
    parts.push(Box::new(move || {
        for from in (2..=LAST).step_by(20) {
            publish(&mut writer, ROOM, from, (from + 19).min(LAST));
        }
        (0, Vec::new())
    }));
    let mut heard = side_by_side(parts);
    heard.pop();
    let log = log(&house, ROOM);
    assert_eq!(log.len() as u64, LAST);
    for (reader, (resumes, told)) in heard.iter().enumerate() {
        assert!(*resumes > 3, "reader {reader} resumed only {resumes} times: nothing was tried");
        assert_eq!(told.len(), log.len() - 1, "reader {reader} of SEED={seed}");
        for (event, row) in told.iter().zip(&log[1..]) {
            assert!(same(event, row), "reader {reader} of SEED={seed} was told {event}, the log holds {row}");
        }
    }
}

// ---- resets -------------------------------------------------------------------------------------------------------------

/// `joined` that recovers nothing, then `reset` with where the room stands and its state; behind it only what is new.
fn expect_reset(house: &House, room: &str, since: (&str, u64), reason: &str, head: u64, snapshot: &Value) {
    let what = format!("{room} since {since:?}");
    let mut client = connect(house);
    let joined = join(&mut client, room, since.0, since.1);
    assert_eq!((&joined["op"], &joined["recovered"]), (&json!("joined"), &json!(false)), "{what}: {joined}");
    let reset = client.json();
    assert_eq!(
        (&reset["op"], &reset["room"], &reset["reason"], &reset["seq"], &reset["snapshot"]),
        (&json!("reset"), &json!(room), &json!(reason), &json!(head), snapshot),
        "{what}: {reset}"
    );
    assert_eq!((&reset["epoch"], &joined["head"]), (&joined["epoch"], &json!(head)), "{what}: {reset}");
    nothing_more(&mut client);
}

fn stand(house: &House, room: &str) -> (String, u64) {
    let mut client = connect(house);
    client.say(json!({"op": "join", "room": room}).to_string());
    let joined = client.json();
    (joined["epoch"].as_str().unwrap().to_owned(), joined["head"].as_u64().unwrap())
}

#[test]
fn g6_a_wrong_epoch_and_a_future_seq_are_a_reset_with_the_state() {
    let house = serve(2, "");
    let mut writer = connect(&house);
    publish(&mut writer, ROOM, 1, 5);
    writer.say(json!({"op": "publish", "room": ROOM, "id": "state", "data": {"n": 7}, "if_rev": 0}).to_string());
    assert_eq!(writer.json()["rev"], 1);
    let (epoch, head) = stand(&house, ROOM);
    assert_eq!(head, 6);
    let state = json!({"n": 7});
    expect_reset(&house, ROOM, ("0000000000000001", 3), "epoch", 6, &state);
    expect_reset(&house, ROOM, ("no epoch of ours", 6), "epoch", 6, &state);
    expect_reset(&house, ROOM, (&epoch, 7), "future", 6, &state);
    expect_reset(&house, ROOM, (&epoch, u64::MAX), "future", 6, &state);

    // A document's state is the document.
    house.create("one", "text");
    let (epoch, head) = stand(&house, "doc:one");
    let mut plain = connect(&house);
    plain.say(json!({"op": "join", "room": "doc:one"}).to_string());
    let document = plain.json()["snapshot"].clone();
    assert_eq!(document["content"], "text");
    expect_reset(&house, "doc:one", ("0000000000000001", 0), "epoch", head, &document);
    expect_reset(&house, "doc:one", (&epoch, head + 1), "future", head, &document);
}

/// An epoch is a history: it is the same after a restart, and so is what a client missed.
#[test]
fn g6_a_position_outlives_a_restart() {
    let house = serve(2, "");
    publish(&mut connect(&house), ROOM, 1, 20);
    let (epoch, head) = stand(&house, ROOM);
    assert_eq!(head, 20);
    let before = log(&house, ROOM);
    let house = house.stop().serve();
    let mut client = connect(&house);
    assert_eq!(join(&mut client, ROOM, &epoch, 5)["recovered"], true);
    for row in &before[5..] {
        let event = client.json();
        assert!(same(&event, row), "{event} is not {row}");
    }
    // Live behind it, under the next number.
    publish(&mut connect(&house), ROOM, 21, 21);
    assert_eq!(client.json()["seq"], 21);
}

#[test]
fn g6_trimmed_history_is_a_reset_and_what_is_kept_is_given() {
    let house = serve(2, "[rooms]\nkeep = [{ room = \"game:*\", events = 10 }]");
    publish(&mut connect(&house), ROOM, 1, 60);
    let (epoch, _) = stand(&house, ROOM);
    // Trimming follows the writes; asked for until it has.
    let deadline = Instant::now() + DEADLINE;
    let floor = loop {
        let page = house.http("GET", &format!("/v1/rooms/{ROOM}/events?after=0&limit=1"), "").json();
        let floor = page["floor"].as_u64().unwrap();
        if floor >= 50 {
            break floor;
        }
        assert!(Instant::now() < deadline, "nothing is trimmed: {page}");
        std::thread::yield_now();
    };
    assert_eq!(floor, 50, "ten of sixty are kept");
    for seq in [0, 1, 48, 49] {
        expect_reset(&house, ROOM, (&epoch, seq), "trimmed", 60, &Value::Null);
    }
    let kept = log(&house, ROOM);
    for seq in [50, 55, 60] {
        let mut client = connect(&house);
        assert_eq!(join(&mut client, ROOM, &epoch, seq)["recovered"], true, "after {seq}");
        for row in kept.iter().filter(|row| row["seq"].as_u64().unwrap() > seq) {
            let event = client.json();
            assert!(same(&event, row), "{event} is not {row}");
        }
        nothing_more(&mut client);
    }
    // A bad place to resume from is no reason to be left out of what comes.
    let mut client = connect(&house);
    join(&mut client, ROOM, &epoch, 1);
    assert_eq!(client.json()["op"], "reset");
    publish(&mut connect(&house), ROOM, 61, 61);
    assert_eq!(client.json()["seq"], 61);
}

#[test]
fn a_since_that_is_none_is_refused_and_joins_nothing() {
    let house = serve(1, "");
    let mut client = connect(&house);
    for since in [json!(7), json!([]), json!({"epoch": "x"}), json!({"seq": 1}), json!({"epoch": "x", "seq": -1})] {
        client.say(json!({"op": "join", "room": ROOM, "since": since}).to_string());
        let refused = client.json();
        assert_eq!((&refused["op"], &refused["code"]), (&json!("refused"), &json!("bad_message")), "{refused}");
    }
    publish(&mut connect(&house), ROOM, 1, 1);
    nothing_more(&mut client);
}
