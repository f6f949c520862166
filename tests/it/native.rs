//! The native protocol's promises over real sockets: who may do what, order, and rooms shared with old pages.

use std::time::{Duration, Instant};

use commitcast::auth::rights::Rights;
use commitcast::auth::token::{Mint, mint};
use commitcast::clock::Clock;
use serde_json::{Value, json};
use tungstenite::Message;

use crate::stage::{self, Client, Heard, House, serve};
use crate::support::{SECRET, token};

/// Token mode, as a file has it. `more` are further lines, under `[auth]` first.
fn token_mode(more: &str) -> String {
    format!("[auth]\nmode = 'token'\nhs256_secret = '{SECRET}'\n{more}")
}

fn say(client: &mut Client, message: Value) {
    client.say(message.to_string());
}

/// Says it and reads the next frame.
fn ask(client: &mut Client, message: Value) -> Value {
    say(client, message);
    client.json()
}

/// A socket that was greeted: debug and open mode, or a credential at the door.
fn connect(house: &House) -> Client {
    let mut client = house.connect("/v1/connect");
    assert_eq!(client.json()["op"], "hello");
    client
}

/// A socket that has shown this token in its first message.
fn connect_as(house: &House, token: &str) -> Client {
    let mut client = house.connect("/v1/connect");
    let hello = ask(&mut client, json!({"op": "auth", "token": token}));
    assert_eq!(hello["op"], "hello", "{hello}");
    client
}

fn join(client: &mut Client, room: &str) -> Value {
    let joined = ask(client, json!({"op": "join", "room": room}));
    assert_eq!((&joined["op"], &joined["room"]), (&json!("joined"), &json!(room)), "{joined}");
    joined
}

fn publish(room: &str, id: &str, data: Value) -> Value {
    json!({"op": "publish", "room": room, "id": id, "type": "note", "data": data})
}

fn code(refused: &Value) -> &str {
    assert_eq!(refused["op"], "refused", "{refused}");
    refused["code"].as_str().unwrap()
}

/// Nothing is on its way: what is asked now is answered next. With one reactor, what others were shown by then is too.
fn nothing_more(client: &mut Client, what: &str) {
    let next = ask(client, json!({"op": "ping"}));
    assert_eq!(next, json!({"op": "pong"}), "{what}");
}

/// What a client has heard up to its close, with the close.
fn until_close(client: &mut Client) -> (Vec<Value>, (u16, String)) {
    let mut heard = Vec::new();
    loop {
        match client.hear() {
            Heard::Text(text) => heard.push(serde_json::from_str(&text).unwrap()),
            Heard::Close(code, reason) => return (heard, (code, reason)),
            other => panic!("{other:?} after {heard:?}"),
        }
    }
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap_or_else(|| panic!("{list} is no list")).iter().map(|name| name.as_str().unwrap()).collect()
}

// ---- who it is ----------------------------------------------------------------------------------------------------------

#[test]
fn before_auth_nothing_works_and_nothing_is_done() {
    let house = serve(1, &token_mode(""));
    let mut stranger = house.connect("/v1/connect");
    for message in [
        json!({"op": "join", "room": "game:1"}),
        json!({"op": "leave", "room": "game:1"}),
        publish("game:1", "1", json!("never")),
        json!({"op": "signal", "room": "game:1", "data": 1}),
        json!({"op": "presence", "room": "game:1"}),
        json!({"op": "decide", "room": "session:x", "id": "2", "approval": "a", "decision": "approve", "seen": "d"}),
        json!({"op": "fly"}),
    ] {
        let refused = ask(&mut stranger, message.clone());
        assert_eq!(code(&refused), "unauthenticated", "{message}: {refused}");
    }
    nothing_more(&mut stranger, "no greeting for nobody");
    // A wrong token is said to be one, and leaves it nobody.
    for wrong in ["", "a.b.c", &token("ann", &[])[1..]] {
        let mut guesser = house.connect("/v1/connect");
        say(&mut guesser, json!({"op": "auth", "token": wrong}));
        let (heard, (close, _)) = until_close(&mut guesser);
        assert_eq!(close, 4401, "`{wrong}`: {heard:?}");
        assert!(heard.iter().all(|frame| frame["op"] != "hello"), "`{wrong}`: {heard:?}");
    }
    // A good one lets it in, under its name; what it said before was not kept for later.
    let hello = ask(&mut stranger, json!({"op": "auth", "token": token("ann", &[("*", &["read", "write"])])}));
    assert_eq!((&hello["op"], &hello["user"]), (&json!("hello"), &json!("ann")), "{hello}");
    assert_eq!(join(&mut stranger, "game:1")["head"], 0, "nothing was published before");
}

#[test]
fn who_never_shows_a_credential_is_closed_with_4401() {
    let house = serve(1, &token_mode("[limits]\nhandshake = '300ms'\n"));
    let begun = Instant::now();
    let mut silent = house.connect("/v1/connect");
    let mut busy = house.connect("/v1/connect");
    // Being lively is no credential.
    say(&mut busy, json!({"op": "ping"}));
    let mut known = connect_as(&house, &token("ann", &[("*", &["read"])]));
    for client in [&mut silent, &mut busy] {
        let (heard, (close, _)) = until_close(client);
        assert_eq!(close, 4401, "{heard:?}");
        assert_eq!(heard.last().map(|frame| &frame["op"]), Some(&json!("bye")), "{heard:?}");
        assert_eq!(heard.last().unwrap()["code"], 4401, "{heard:?}");
    }
    assert!(begun.elapsed() >= Duration::from_millis(300), "it was closed early: {:?}", begun.elapsed());
    nothing_more(&mut known, "whoever is known stays");
}

/// A token at the door or in the first message: the same.
#[test]
fn a_credential_at_the_door_is_greeted_at_once_and_a_wrong_one_is_refused_there() {
    let house = serve(1, &token_mode(""));
    let good = format!("Bearer {}", token("ann", &[("*", &["read"])]));
    let mut client = stage::dial(house.address, "/v1/connect", &[("authorization", &good)]).unwrap();
    assert_eq!(client.json()["user"], "ann");
    join(&mut client, "game:1");
    let refused = stage::dial(house.address, "/v1/connect", &[("authorization", "Bearer a.b.c")]).unwrap_err();
    assert_eq!((refused.status, refused.header("x-ws-reject")), (401, Some("token")), "{refused:?}");
}

/// PROMISES.md S4.
#[test]
fn s4_a_refresh_narrows_rights_at_once_and_leaves_what_is_not_granted_any_more() {
    let house = serve(1, &token_mode(""));
    let mut ann = connect_as(&house, &token("ann", &[("*", &["read", "write", "signal", "presence"])]));
    let mut bob = connect_as(&house, &token("bob", &[("*", &["read", "write", "signal"])]));
    for room in ["game:1", "game:2", "doc-like"] {
        join(&mut ann, room);
        join(&mut bob, room);
    }
    say(&mut ann, json!({"op": "auth", "token": token("ann", &[("game:1", &["read"])])}));
    // Hello again, and word of the rooms that are lost.
    let mut heard = Vec::new();
    say(&mut ann, json!({"op": "ping"}));
    loop {
        let frame = ann.json();
        if frame["op"] == "pong" {
            break;
        }
        heard.push(frame);
    }
    assert_eq!((&heard[0]["op"], &heard[0]["user"]), (&json!("hello"), &json!("ann")), "{heard:?}");
    let mut lost: Vec<&str> = heard[1..].iter().map(|frame| frame["room"].as_str().unwrap_or("(no room)")).collect();
    lost.sort_unstable();
    assert_eq!(lost, ["doc-like", "game:2"], "she is told which: {heard:?}");
    // What is written there now is not shown to her any more; what is still hers is.
    for room in ["game:2", "doc-like", "game:1"] {
        assert_eq!(ask(&mut bob, publish(room, room, json!(room)))["op"], "ok");
        assert_eq!(bob.json()["op"], "event");
    }
    let event = ann.json();
    assert_eq!((&event["op"], &event["room"]), (&json!("event"), &json!("game:1")), "{event}");
    say(&mut bob, json!({"op": "signal", "room": "game:2", "data": "psst"}));
    nothing_more(&mut bob, "a signal is not answered");
    nothing_more(&mut ann, "a room that is not hers any more");
    assert_eq!(code(&ask(&mut ann, publish("game:1", "w", json!(1)))), "forbidden");
    assert_eq!(code(&ask(&mut ann, json!({"op": "join", "room": "game:2"}))), "no_such_room");
    // And wider again.
    say(&mut ann, json!({"op": "auth", "token": token("ann", &[("game:*", &["read", "write"])])}));
    assert_eq!(ann.json()["op"], "hello");
    join(&mut ann, "game:2");
}

/// DESIGN.md 6: in debug mode a good token names its user; a client that shows it in its first message is the same client.
#[test]
fn in_debug_mode_a_token_in_the_first_message_names_its_user() {
    let house = serve(1, &format!("[auth]\nhs256_secret = '{SECRET}'\n"));
    let mut client = connect(&house);
    let hello = ask(&mut client, json!({"op": "auth", "token": token("ann", &[])}));
    assert_eq!((&hello["op"], &hello["user"]), (&json!("hello"), &json!("ann")), "{hello}");
    // And a missing or bad one is nobody's, as at the door.
    let mut client = connect(&house);
    let hello = ask(&mut client, json!({"op": "auth", "token": "a.b.c"}));
    assert_eq!((&hello["op"], &hello["user"]), (&json!("hello"), &json!("test-user-123")), "{hello}");
}

#[test]
fn s4_another_user_s_token_is_no_refresh() {
    let house = serve(1, &token_mode(""));
    let mut ann = connect_as(&house, &token("ann", &[("game:1", &["read", "write"])]));
    join(&mut ann, "game:1");
    say(&mut ann, json!({"op": "auth", "token": token("bob", &[("*", &["read", "write"])])}));
    // Whether it is told so or closed: it never becomes bob, and never gets his rights.
    say(&mut ann, publish("game:1", "as-whom", json!(1)));
    say(&mut ann, publish("other", "with-whose-rights", json!(1)));
    let mut heard = Vec::new();
    let close = loop {
        match ann.hear() {
            Heard::Text(text) => {
                let frame: Value = serde_json::from_str(&text).unwrap();
                let done = frame["id"] == "with-whose-rights" && frame["op"] != "event";
                heard.push(frame);
                if done {
                    break None;
                }
            }
            Heard::Close(code, reason) => break Some((code, reason)),
            other => panic!("{other:?} after {heard:?}"),
        }
    };
    for frame in &heard {
        assert!(frame["user"] != "bob" && frame["by"] != "bob", "{heard:?}");
        assert!(frame["id"] != "with-whose-rights" || frame["op"] == "refused", "{heard:?}");
    }
    assert!(
        close.as_ref().is_some_and(|(code, _)| *code == 4401 || *code == 4403)
            || heard.iter().any(|frame| frame["op"] == "refused" && frame["id"].is_null()),
        "it is told: {heard:?}, {close:?}"
    );
    let mut other = connect_as(&house, &token("eve", &[("*", &["read"])]));
    assert_eq!(join(&mut other, "other")["head"], 0, "nothing was written with another's rights");
}

/// PROMISES.md S4: told before, closed soon after, unless it has shown a fresh one.
#[test]
fn s4_an_expired_token_ends_the_connection_unless_it_was_refreshed() {
    let house = serve(1, &token_mode(""));
    // Believed for two seconds and the leeway of five. Its end is looked for every five, and told of by then.
    let then = Clock::system().wall();
    let rights = Rights::parse([("*", ["read"])]).unwrap();
    let wanted = Mint { sub: "ann", ttl: Some(Duration::from_secs(2)), rooms: Some(&rights), ..Mint::default() };
    let short = mint(SECRET.as_bytes(), &wanted, then).unwrap();
    let mut careless = connect_as(&house, &short);
    let mut careful = connect_as(&house, &short);
    let warned = careful.json();
    assert_eq!(warned["op"], "expiring", "{warned}");
    assert!(warned["in_ms"].as_u64().is_some_and(|left| left <= 10_000), "{warned}");
    let fresh = ask(&mut careful, json!({"op": "auth", "token": token("ann", &[("*", &["read"])])}));
    assert_eq!(fresh["op"], "hello", "{fresh}");
    assert!(fresh["expires_in_ms"].as_u64().is_some_and(|left| left > 3_000_000), "{fresh}");

    let (heard, (close, _)) = until_close(&mut careless);
    assert_eq!(close, 4401, "{heard:?}");
    let ops: Vec<&Value> = heard.iter().map(|frame| &frame["op"]).collect();
    assert_eq!(ops, ["expiring", "bye"], "{heard:?}");
    assert_eq!(heard[1]["code"], 4401);
    let late = Clock::system().wall().0 - (then.0 + 2_000_000);
    assert!(late <= 10_000_000, "closed {late} µs after its end");
    nothing_more(&mut careful, "who refreshed stays");
    join(&mut careful, "game:1");
}

// ---- what it may --------------------------------------------------------------------------------------------------------

/// PROMISES.md S5: per room and per verb, for each message; nothing without a grant.
#[test]
fn s5_each_verb_grants_its_message_and_no_other() {
    let house = serve(1, &token_mode(""));
    const VERBS: [&str; 4] = ["read", "write", "signal", "presence"];
    let mut root = connect_as(&house, &token("root", &[("*", &VERBS)]));
    join(&mut root, "game:1");
    // Signals and presence are for those who are in the room, so `read` goes with them here.
    for granted in 0..16_u32 {
        let verbs: Vec<&str> =
            VERBS.iter().enumerate().filter(|(bit, _)| granted & 1 << bit != 0).map(|(_, verb)| *verb).collect();
        let mut client = connect_as(&house, &token("ann", &[("game:1", &verbs)]));
        let has = |verb: &str| verbs.contains(&verb);

        let joined = ask(&mut client, json!({"op": "join", "room": "game:1"}));
        let expected = if has("read") { "joined" } else { "refused" };
        assert_eq!(joined["op"], expected, "{verbs:?}: {joined}");
        if !has("read") {
            assert_eq!(code(&joined), "no_such_room", "{verbs:?}");
        }

        let id = format!("op-{granted}");
        let published = ask(&mut client, publish("game:1", &id, json!(granted)));
        assert_eq!(published["op"], if has("write") { "ok" } else { "refused" }, "{verbs:?}: {published}");
        if has("write") {
            assert_eq!((&root.json()["data"], &published["id"]), (&json!(granted), &json!(id)), "{verbs:?}");
            if has("read") {
                assert_eq!(client.json()["data"], granted, "its own event, {verbs:?}");
            }
        }

        say(&mut client, json!({"op": "signal", "room": "game:1", "data": {"typing": granted}}));
        if has("signal") && has("read") {
            nothing_more(&mut client, "a signal is not answered");
            let signal = root.json();
            assert_eq!(
                signal,
                json!({"op": "signal", "room": "game:1", "by": "ann", "data": {"typing": granted}}),
                "{verbs:?}"
            );
        } else {
            assert_eq!(code(&client.json()), "forbidden", "signal, {verbs:?}");
        }

        let presence = ask(&mut client, json!({"op": "presence", "room": "game:1"}));
        if has("presence") && has("read") {
            assert_eq!(names(&presence["joined"]), ["ann", "root"], "{verbs:?}: {presence}");
        } else {
            code(&presence);
        }
        nothing_more(&mut root, &format!("nothing else came of {verbs:?}"));
        let other = ask(&mut client, json!({"op": "join", "room": "game:10"}));
        assert_eq!(code(&other), "no_such_room", "the pattern has no star, {verbs:?}");
        client.leave();
    }
}

#[test]
fn s5_a_token_without_rooms_has_the_configured_rights_and_by_default_none() {
    for (more, allowed) in [("", false), ("default_rights = { \"game:*\" = [\"read\"] }\n", true)] {
        let house = serve(1, &token_mode(more));
        let bare = mint(
            SECRET.as_bytes(),
            &Mint { sub: "ann", ttl: Some(Duration::from_secs(60)), ..Mint::default() },
            Clock::system().wall(),
        );
        let mut client = connect_as(&house, &bare.unwrap());
        // It ends within a minute, which it is told.
        let first = ask(&mut client, json!({"op": "join", "room": "game:1"}));
        let answer = if first["op"] == "expiring" { client.json() } else { first };
        assert_eq!(answer["op"], if allowed { "joined" } else { "refused" }, "{more:?}: {answer}");
        assert_eq!(code(&ask(&mut client, publish("game:1", "1", json!(1)))), "forbidden");
        assert_eq!(code(&ask(&mut client, json!({"op": "join", "room": "doc:one"}))), "no_such_room");
    }
}

/// PROMISES.md S5: what is not there and what is not theirs are told with the same bytes, whatever is asked of it.
#[test]
fn s5_no_such_room_and_not_yours_look_alike() {
    let house = serve(1, &token_mode("[auth.documents]\nmode = 'open'\n"));
    house.create("theirs", "a secret");
    let mut ann = connect_as(&house, &token("ann", &[("doc:mine*", &["read", "write", "signal", "presence"])]));
    // There and not granted; neither there nor granted; granted and not there.
    for op in ["join", "publish", "signal", "presence"] {
        let mut answers: Vec<String> = Vec::new();
        for room in ["doc:theirs", "doc:absent", "doc:mineee"] {
            let message = json!({"op": op, "room": room, "id": "1", "type": "update", "data": {"content": "x"}});
            let refused = ask(&mut ann, message);
            code(&refused);
            answers.push(refused.to_string().replace(room, "R"));
        }
        assert_eq!(answers[0], answers[1], "{op}: there and not there");
        if op == "join" {
            assert_eq!(answers[0], answers[2], "{op}: granted and not there");
        }
        assert!(!answers.concat().contains("secret"));
    }
    // With a right to read everything, the document is found: it was there all along.
    let mut root = connect_as(&house, &token("root", &[("*", &["read"])]));
    assert_eq!(join(&mut root, "doc:theirs")["snapshot"]["content"], "a secret");
}

#[test]
fn actors_come_from_the_token_and_never_from_a_message() {
    let house = serve(1, &token_mode(""));
    let mut ann = connect_as(&house, &token("ann", &[("*", &["read", "write", "signal"])]));
    let mut bob = connect_as(&house, &token("bob", &[("*", &["read"])]));
    join(&mut ann, "game:1");
    join(&mut bob, "game:1");
    let lie = json!({"op": "publish", "room": "game:1", "id": "1", "type": "note", "data": {"by": "bob"},
                     "by": "bob", "user": "bob", "actor": "bob", "at": "2001-01-01T00:00:00Z", "seq": 9});
    assert_eq!(ask(&mut ann, lie)["seq"], 1);
    let event = bob.json();
    assert_eq!((&event["by"], &event["seq"]), (&json!("ann"), &json!(1)), "{event}");
    assert!(!event["at"].as_str().unwrap().starts_with("2001"), "{event}");
    say(&mut ann, json!({"op": "signal", "room": "game:1", "by": "bob", "data": 1}));
    assert_eq!(bob.json()["by"], "ann");
}

// ---- rooms --------------------------------------------------------------------------------------------------------------

#[test]
fn a_connection_is_in_128_rooms_and_no_more() {
    let house = serve(1, "");
    let mut client = connect(&house);
    for number in 0..128 {
        join(&mut client, &format!("room:{number}"));
    }
    let full = ask(&mut client, json!({"op": "join", "room": "room:128"}));
    assert_eq!(code(&full), "too_many_rooms");
    // In a room that it is in it can start afresh; one that it leaves makes place; watching is not being in another.
    join(&mut client, "room:5");
    assert_eq!(ask(&mut client, json!({"op": "presence", "room": "room:5"}))["op"], "presence");
    assert_eq!(code(&ask(&mut client, json!({"op": "join", "room": "room:128"}))), "too_many_rooms");
    assert_eq!(ask(&mut client, json!({"op": "leave", "room": "room:7"})), json!({"op": "left", "room": "room:7"}));
    join(&mut client, "room:128");
    assert_eq!(code(&ask(&mut client, json!({"op": "join", "room": "room:7"}))), "too_many_rooms");
    // It still hears all of them, and not the one that it left.
    let mut writer = connect(&house);
    for room in ["room:7", "room:0", "room:127", "room:128"] {
        assert_eq!(ask(&mut writer, publish(room, "1", json!(room)))["op"], "ok");
        if room != "room:7" {
            assert_eq!(client.json()["room"], room);
        }
    }
    // Its bound is its own.
    join(&mut writer, "room:7");
}

#[test]
fn the_bound_on_rooms_is_settable() {
    let house = serve(1, "[limits]\nrooms = 2\n");
    let mut client = connect(&house);
    join(&mut client, "a");
    join(&mut client, "b");
    assert_eq!(code(&ask(&mut client, json!({"op": "join", "room": "c"}))), "too_many_rooms");
    // A join that found nothing takes no place.
    ask(&mut client, json!({"op": "leave", "room": "b"}));
    assert_eq!(code(&ask(&mut client, json!({"op": "join", "room": "doc:none"}))), "no_such_room");
    join(&mut client, "c");
}

#[test]
fn who_is_there_is_told_by_user_and_not_by_connection() {
    let house = serve(2, &token_mode(""));
    let enter = |user: &str| {
        let mut client = connect_as(&house, &token(user, &[("*", &["read", "presence"])]));
        join(&mut client, "game:1");
        client
    };
    let mut watcher = enter("ann");
    let first = ask(&mut watcher, json!({"op": "presence", "room": "game:1"}));
    assert_eq!(first, json!({"op": "presence", "room": "game:1", "joined": ["ann"], "left": []}));
    // Two connections of one user are one arrival, and only the last one's end is a departure.
    let (one, two) = (enter("bob"), enter("bob"));
    assert_eq!(watcher.json(), json!({"op": "presence", "room": "game:1", "joined": ["bob"], "left": []}));
    one.leave();
    let carol = enter("carol");
    assert_eq!(watcher.json(), json!({"op": "presence", "room": "game:1", "joined": ["carol"], "left": []}));
    two.leave();
    assert_eq!(watcher.json(), json!({"op": "presence", "room": "game:1", "joined": [], "left": ["bob"]}));
    drop(carol);
    assert_eq!(watcher.json(), json!({"op": "presence", "room": "game:1", "joined": [], "left": ["carol"]}));
}

// ---- order --------------------------------------------------------------------------------------------------------------

/// DESIGN.md 7: operations of one socket on one room are stored in the order in which they were sent.
#[test]
fn g4_pipelined_publishes_are_stored_in_their_order() {
    const MANY: u64 = 600;
    let house = serve(2, "");
    let mut reader = connect(&house);
    join(&mut reader, "game:1");
    let mut writer = connect(&house);
    join(&mut writer, "game:1");
    for number in 1..=MANY {
        say(&mut writer, publish("game:1", &format!("op-{number}"), json!(number)));
        // Another room between them must not make them overtake.
        if number % 3 == 0 {
            say(&mut writer, publish("game:2", &format!("op-{number}"), json!(number)));
        }
    }
    let (mut oks, mut events, mut others) = (Vec::new(), Vec::new(), Vec::new());
    while oks.len() + events.len() + others.len() < 2 * MANY as usize + MANY as usize / 3 {
        let frame = writer.json();
        match (frame["op"].as_str(), frame["room"].as_str()) {
            (Some("ok"), Some("game:1")) => oks.push(frame),
            (Some("ok"), Some("game:2")) => others.push(frame),
            (Some("event"), Some("game:1")) => events.push(frame),
            _ => panic!("{frame}"),
        }
    }
    for (index, (ok, event)) in oks.iter().zip(&events).enumerate() {
        let number = index as u64 + 1;
        let id = json!(format!("op-{number}"));
        assert_eq!((&ok["id"], &ok["seq"]), (&id, &json!(number)), "{ok}");
        assert_eq!((&event["id"], &event["seq"], &event["data"]), (&id, &json!(number), &json!(number)), "{event}");
        assert_eq!(&reader.json(), event, "others see what the writer sees");
    }
    let seqs: Vec<&Value> = others.iter().map(|ok| &ok["seq"]).collect();
    assert_eq!(seqs, (1..=MANY / 3).collect::<Vec<_>>(), "and in the other room");
}

/// Everybody who writes and reads one room from wherever sees one order.
#[test]
fn g4_all_members_see_one_order_whoever_writes() {
    const WRITERS: usize = 4;
    const EACH: usize = 100;
    let house = serve(2, "");
    let house = &house;
    let parts: Vec<Box<dyn FnOnce() -> Vec<Value> + Send + '_>> = (0..WRITERS)
        .map(|writer| {
            // All are members before the first writes.
            let mut client = connect(house);
            join(&mut client, "game:1");
            let run = move || {
                for number in 0..EACH {
                    say(&mut client, publish("game:1", &format!("{writer}-{number}"), json!({"n": number})));
                }
                let (mut events, mut oks) = (Vec::new(), 0);
                while events.len() < WRITERS * EACH || oks < EACH {
                    let frame = client.json();
                    match frame["op"].as_str() {
                        Some("event") => events.push(frame),
                        Some("ok") => oks += 1,
                        _ => panic!("{frame}"),
                    }
                }
                events
            };
            Box::new(run) as Box<dyn FnOnce() -> Vec<Value> + Send + '_>
        })
        .collect();
    let heard = stage::side_by_side(parts);
    for (member, events) in heard.iter().enumerate() {
        assert_eq!(events, &heard[0], "member {member}");
    }
    for (index, event) in heard[0].iter().enumerate() {
        assert_eq!(event["seq"], index as u64 + 1);
    }
}

/// DESIGN.md 5: whoever does not read is neither waited for nor dropped; it catches up from the log.
#[test]
fn a_slow_client_catches_up_from_the_log_and_holds_up_nobody() {
    const MANY: u64 = 3000;
    let house = serve(2, "[limits]\nstall = '60s'\n");
    let mut slow = connect(&house);
    join(&mut slow, "game:1");
    let mut quick = connect(&house);
    join(&mut quick, "game:1");
    let mut writer = connect(&house);
    // Far more than sockets and queues hold; the slow one reads nothing of it until all is written.
    let text = "x".repeat(4000);
    for from in (1..=MANY).step_by(50) {
        for number in from..from + 50 {
            say(&mut writer, publish("game:1", &format!("op-{number}"), json!({"n": number, "text": text})));
        }
        for number in from..from + 50 {
            assert_eq!(writer.json()["seq"], number);
            let event = quick.json();
            assert_eq!((&event["seq"], &event["data"]["n"]), (&json!(number), &json!(number)));
        }
    }
    for number in 1..=MANY {
        let event = slow.json();
        assert_eq!((&event["op"], &event["seq"]), (&json!("event"), &json!(number)), "{number}");
        assert_eq!((&event["data"]["n"], &event["data"]["text"]), (&json!(number), &json!(text)), "{number}");
    }
    // And it is live again.
    assert_eq!(ask(&mut writer, publish("game:1", "last", json!("last")))["seq"], MANY + 1);
    assert_eq!(slow.json()["data"], "last");
    nothing_more(&mut slow, "each once");
}

// ---- an old page beside it ----------------------------------------------------------------------------------------------

fn page(house: &House, id: &str) -> Client {
    let mut page = house.connect(&format!("/ws/prompts/{id}"));
    page.expect("initial");
    page
}

/// DESIGN.md 1: an old page and a new client of one room see the same edits in the same order.
#[test]
fn an_old_page_and_a_native_client_see_the_same_edits_in_the_same_order() {
    const EACH: usize = 60;
    let house = serve(2, "");
    house.create("readme", "born");
    let mut old = page(&house, "readme");
    let mut watching = page(&house, "readme");
    let mut new = connect(&house);
    assert_eq!(join(&mut new, "doc:readme")["snapshot"]["content"], "born");
    let parts: Vec<Box<dyn FnOnce() -> Client + Send + '_>> = vec![
        Box::new(move || {
            for number in 0..EACH {
                old.update(&format!("old {number}"));
            }
            let mut saved = 0;
            while saved < EACH {
                saved += usize::from(old.json()["action"] == "update_status");
            }
            old
        }),
        {
            let mut writer = connect(&house);
            Box::new(move || {
                for number in 0..EACH {
                    let message = json!({"op": "publish", "room": "doc:readme", "id": format!("new-{number}"),
                                         "type": "update", "data": {"content": format!("new {number}")}});
                    say(&mut writer, message);
                }
                for number in 0..EACH {
                    assert_eq!(writer.json()["id"], format!("new-{number}"));
                }
                writer
            })
        },
    ];
    let mut writers = stage::side_by_side(parts);
    let content = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no content: {value}")).to_owned();
    let on_page: Vec<String> = (0..2 * EACH).map(|_| content(&watching.expect("update")["content"])).collect();
    let on_native: Vec<String> = (0..2 * EACH)
        .map(|_| {
            let event = new.json();
            assert_eq!((&event["op"], &event["type"]), (&json!("event"), &json!("update")), "{event}");
            content(&event["data"]["content"])
        })
        .collect();
    assert_eq!(on_page, on_native);
    assert!(on_page.iter().any(|text| text.starts_with("old")) && on_page.iter().any(|text| text.starts_with("new")));
    let stored = house.http("GET", "/api/prompts/readme", "").json();
    assert_eq!(stored["content"], on_page[2 * EACH - 1].as_str(), "the last edit is the document");
    drop(writers.pop());
}

#[test]
fn a_native_edit_is_an_edit_and_if_rev_guards_it() {
    let house = serve(1, "");
    house.create("one", "born");
    let mut old = page(&house, "one");
    let mut new = connect(&house);
    let joined = join(&mut new, "doc:one");
    let rev = joined["rev"].as_u64().unwrap();
    let edit = |id: &str, content: &str, rev: u64| {
        json!({"op": "publish", "room": "doc:one", "id": id, "type": "update",
               "data": {"content": content}, "if_rev": rev})
    };
    let ok = ask(&mut new, edit("1", "first", rev));
    assert_eq!((&ok["op"], &ok["rev"]), (&json!("ok"), &json!(rev + 1)), "{ok}");
    assert_eq!(new.json()["data"]["content"], "first");
    assert_eq!(old.expect("update")["content"], "first");
    // The page edits meanwhile; the native client's next edit was made for an older text.
    old.update("second");
    old.expect("update_status");
    assert_eq!(new.json()["data"]["content"], "second");
    let conflict = ask(&mut new, edit("2", "lost?", rev + 1));
    assert_eq!((&conflict["op"], &conflict["rev"]), (&json!("conflict"), &json!(rev + 2)), "{conflict}");
    assert_eq!(conflict["snapshot"]["content"], "second", "{conflict}");
    nothing_more(&mut new, "a conflict is no event");
    old.expect_silence();
    // The refused operation's id is free: sent again for the right revision, it is carried out.
    let ok = ask(&mut new, edit("2", "third", rev + 2));
    assert_eq!((&ok["op"], &ok["rev"], &ok["dup"]), (&json!("ok"), &json!(rev + 3), &Value::Null), "{ok}");
    assert_eq!(old.expect("update")["content"], "third");
    // And a duplicate of an edit that has long been overwritten is answered as it was, and not carried out again.
    assert_eq!(new.json()["data"]["content"], "third");
    let dup = ask(&mut new, edit("1", "first", rev));
    assert_eq!((&dup["op"], &dup["rev"], &dup["dup"]), (&json!("ok"), &json!(rev + 1), &json!(true)), "{dup}");
    old.expect_silence();
    nothing_more(&mut new, "a duplicate is no event");
}

/// Of several who write for the same revision, one wins; the others are told what it wrote.
#[test]
fn if_rev_lets_one_of_many_win() {
    const RIVALS: usize = 6;
    const ROUNDS: u64 = 25;
    let house = serve(2, "");
    let house = &house;
    let run = move |rival: usize| {
        let mut client = connect(house);
        let mut won = 0_u64;
        for round in 0..ROUNDS {
            let mine = json!({"round": round, "by": rival});
            let message = json!({"op": "publish", "room": "game:1", "id": format!("{rival}-{round}"), "data": mine,
                                 "if_rev": round});
            let mut answer = ask(&mut client, message.clone());
            // Too early: the round before has no winner yet.
            while answer["op"] == "conflict" && answer["rev"].as_u64().unwrap() < round {
                answer = ask(&mut client, message.clone());
            }
            match answer["op"].as_str() {
                Some("ok") => {
                    assert_eq!(answer["rev"], round + 1, "{answer}");
                    won += 1;
                }
                Some("conflict") => assert!(answer["rev"].as_u64().unwrap() > round, "{answer}"),
                _ => panic!("{answer}"),
            }
        }
        won
    };
    let parts: Vec<Box<dyn FnOnce() -> u64 + Send + '_>> =
        (0..RIVALS).map(|rival| Box::new(move || run(rival)) as Box<dyn FnOnce() -> u64 + Send + '_>).collect();
    let won: u64 = stage::side_by_side(parts).into_iter().sum();
    assert_eq!(won, ROUNDS, "one winner a round");
    let mut late = connect(house);
    let joined = join(&mut late, "game:1");
    assert_eq!((&joined["rev"], &joined["head"]), (&json!(ROUNDS), &json!(ROUNDS)), "{joined}");
}

fn store_reads(house: &House) -> u64 {
    let metrics = house.http("GET", "/metrics", "").body;
    let line = metrics.lines().find_map(|line| line.strip_prefix("commitcast_store_reads_total "));
    line.unwrap_or_else(|| panic!("{metrics}")).parse().unwrap()
}

/// After a break of the network everybody comes back at once: none of them costs a look into the store, and none misses what
/// is published between.
#[test]
fn l8_who_comes_back_to_where_a_room_stands_is_welcomed_without_the_store() {
    let house = serve(1, "");
    let mut writer = connect(&house);
    join(&mut writer, "game:1");
    for n in 1..=3 {
        assert_eq!(ask(&mut writer, publish("game:1", &format!("w{n}"), json!(n)))["seq"], n);
        assert_eq!(writer.json()["seq"], n);
    }
    let stand = ask(&mut connect(&house), json!({"op": "join", "room": "game:1"}));
    let reads = store_reads(&house);
    let since = |seq: u64| json!({"op": "join", "room": "game:1", "since": {"epoch": stand["epoch"], "seq": seq}});
    let mut back = connect(&house);
    let joined = ask(&mut back, since(3));
    assert_eq!((&joined["recovered"], &joined["head"], &joined["epoch"]), (&json!(true), &json!(3), &stand["epoch"]));
    assert_eq!(store_reads(&house), reads, "at the head");
    let mut further = connect(&house);
    assert_eq!(ask(&mut further, since(1))["recovered"], true);
    assert_eq!((further.json()["seq"].as_u64(), further.json()["seq"].as_u64()), (Some(2), Some(3)));
    // What comes next reaches them, and moves the room: the next one is told so by the store.
    ask(&mut writer, publish("game:1", "w4", json!(4)));
    for client in [&mut back, &mut further] {
        assert_eq!(client.json()["seq"], 4);
    }
    let mut late = connect(&house);
    let joined = ask(&mut late, since(3));
    assert_eq!((&joined["recovered"], &joined["head"]), (&json!(true), &json!(4)));
    assert_eq!(late.json()["seq"], 4);
    // A place that is none is refused in the same way, known stand or not.
    for (place, reason) in
        [(json!({"epoch": stand["epoch"], "seq": 5}), "future"), (json!({"epoch": "00", "seq": 4}), "epoch")]
    {
        let mut lost = connect(&house);
        let joined = ask(&mut lost, json!({"op": "join", "room": "game:1", "since": place}));
        assert_eq!((&joined["recovered"], &lost.json()["reason"]), (&json!(false), &json!(reason)));
    }
}

// ---- names and nonsense -------------------------------------------------------------------------------------------------

#[test]
fn room_names_are_what_the_protocol_says_and_nothing_else() {
    let house = serve(1, "");
    let mut client = connect(&house);
    let longest = "r".repeat(256);
    for good in ["a", "A-z_0.9:/", "x//y", "-", longest.as_str()] {
        join(&mut client, good);
    }
    let longer = "r".repeat(257);
    for bad in ["", " ", "a b", "ä", "a\u{0}", "a*", "a?b", "a#b", "a%2Fb", longer.as_str()] {
        for op in ["join", "leave", "publish", "signal", "presence"] {
            let refused = ask(&mut client, json!({"op": op, "room": bad, "id": "1", "data": 1}));
            assert_eq!(code(&refused), "bad_room", "{op} {bad:?}");
        }
    }
}

#[test]
fn an_id_is_one_to_64_bytes_and_stands_for_one_operation() {
    let house = serve(1, "");
    let mut client = connect(&house);
    for bad in [json!(""), json!("i".repeat(65)), json!(7), json!(null), json!(["1"])] {
        let refused = ask(&mut client, json!({"op": "publish", "room": "game:1", "id": bad, "data": 1}));
        assert_eq!(code(&refused), "bad_id", "{bad}");
    }
    assert_eq!(code(&ask(&mut client, json!({"op": "publish", "room": "game:1", "data": 1}))), "bad_id");
    let long = "i".repeat(64);
    assert_eq!(ask(&mut client, publish("game:1", &long, json!(1)))["seq"], 1);
    // The same id in another room is another operation; with other data it is nobody's.
    assert_eq!(ask(&mut client, publish("game:2", &long, json!(1)))["seq"], 1);
    assert_eq!(ask(&mut client, publish("game:1", &long, json!(1)))["dup"], true);
    let taken = ask(&mut client, publish("game:1", &long, json!(2)));
    assert_eq!(code(&taken), "id_taken", "{taken}");
}

/// An id is its user's own: another's operation of the same name is another one.
#[test]
fn g5_ids_are_told_apart_by_user() {
    let house = serve(1, &token_mode(""));
    let mut ann = connect_as(&house, &token("ann", &[("*", &["read", "write"])]));
    let mut bob = connect_as(&house, &token("bob", &[("*", &["read", "write"])]));
    assert_eq!(ask(&mut ann, publish("game:1", "1", json!("ann's")))["seq"], 1);
    let ok = ask(&mut bob, publish("game:1", "1", json!("bob's")));
    assert_eq!((&ok["op"], &ok["seq"], &ok["dup"]), (&json!("ok"), &json!(2), &Value::Null), "{ok}");
    let again =
        ask(&mut connect_as(&house, &token("ann", &[("*", &["write"])])), publish("game:1", "1", json!("ann's")));
    assert_eq!((&again["seq"], &again["dup"]), (&json!(1), &json!(true)), "{again}");
}

#[test]
fn row_58_nonsense_is_told_so_and_much_of_it_ends_the_connection() {
    let house = serve(1, &token_mode(""));
    let mut client = connect_as(&house, &token("ann", &[("*", &["read", "write"])]));
    let deep = format!("{{\"op\":\"ping\",\"x\":{}{}}}", "[".repeat(32), "]".repeat(32));
    let nonsense = [
        "{not json",
        "[]",
        "7",
        "\"ping\"",
        "",
        "{\"op\":7}",
        "{}",
        "{\"op\":\"ping\",\"op\":\"ping\"}",
        "{\"op\":\"publish\",\"room\":\"a\",\"id\":\"1\",\"data\":1e999}",
        &deep,
    ];
    for text in nonsense {
        client.say(text);
        assert_eq!(code(&client.json()), "bad_message", "{text}");
    }
    // An op of tomorrow is not nonsense.
    for _ in 0..20 {
        assert_eq!(code(&ask(&mut client, json!({"op": "fly", "id": "1"}))), "unknown_op");
    }
    nothing_more(&mut client, "ten are borne");
    client.say("the eleventh");
    let (heard, (close, _)) = until_close(&mut client);
    assert_eq!(close, 1008, "{heard:?}");
}

#[test]
fn a_binary_frame_is_refused_with_1003() {
    let house = serve(1, "");
    let mut client = connect(&house);
    client.send(Message::binary(vec![0, 255]));
    let (heard, (close, _)) = until_close(&mut client);
    assert_eq!(close, 1003);
    assert_eq!(heard, [json!({"op": "bye", "code": 1003, "retry_after_ms": 0})]);
}

/// The server's end: a `bye` that says when to come back, not the same for all.
#[test]
fn a_stop_says_bye_with_a_spread_hint_and_1012() {
    let house = serve(2, "");
    let mut clients: Vec<Client> = (0..8).map(|_| connect(&house)).collect();
    house.stop();
    let mut hints = std::collections::BTreeSet::new();
    for client in &mut clients {
        let (heard, (close, _)) = until_close(client);
        assert_eq!(close, 1012, "{heard:?}");
        let bye = heard.last().unwrap_or_else(|| panic!("no bye before the close"));
        assert_eq!((&bye["op"], &bye["code"]), (&json!("bye"), &json!(1012)), "{bye}");
        hints.insert(bye["retry_after_ms"].as_u64().unwrap());
    }
    assert!(hints.len() > 4, "eight clients were told to come back after {hints:?} ms");
    assert!(hints.iter().all(|hint| (1..=60_000).contains(hint)), "{hints:?}");
}
