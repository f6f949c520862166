//! What members of a room are shown: every event once, in one order, however late they come and however slowly they read.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::stage::{self, Client, House, serve, side_by_side};

fn join(address: SocketAddr, path: &str) -> Client {
    let mut client = stage::connect(address, path);
    client.expect("initial");
    client
}

/// The number that a content starts with.
fn number(value: &serde_json::Value) -> usize {
    let content = value["content"].as_str().unwrap_or_else(|| panic!("no content in {value}"));
    let digits = content.split(' ').next().unwrap();
    digits.parse().unwrap_or_else(|_| panic!("no number in {value:.80}"))
}

/// Writes the contents `numbers`, at most 32 ahead of their answers.
fn write_all(client: &mut Client, numbers: impl Iterator<Item = usize>, padding: &str) {
    let mut ahead = 0;
    for number in numbers {
        client.update(&format!("{number} {padding}"));
        ahead += 1;
        if ahead == 32 {
            assert_eq!(client.expect("update_status")["success"], true);
            ahead -= 1;
        }
    }
    for _ in 0..ahead {
        assert_eq!(client.expect("update_status")["success"], true);
    }
}

fn expect_numbers(client: &mut Client, numbers: impl Iterator<Item = usize>, who: &str) {
    for expected in numbers {
        let shown = number(&client.expect("update"));
        assert_eq!(shown, expected, "{who} was to be shown {expected}");
    }
}

/// A member that takes little before it has to be waited for.
fn join_slow(house: &House, path: &str) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // Before connecting, or the window is already large.
    socket.set_recv_buffer_size(2048).unwrap();
    socket.connect(&house.address.into()).unwrap();
    let mut client =
        stage::dial_over(TcpStream::from(socket), path, &[]).unwrap_or_else(|refused| panic!("{refused:?}"));
    client.expect("initial");
    client
}

#[test]
fn whoever_joins_while_a_writer_writes_starts_at_a_state_and_misses_nothing() {
    const JOINS: usize = 200;
    /// Of each: enough that what was under way during the join has passed.
    const FOLLOWED: usize = 12;
    let house = serve(2, "");
    house.create("one", "0 ");
    let (begun, done, failed) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let mut first = join(house.address, "/ws/prompts/one");
    let mut writer = join(house.address, "/ws/prompts/one");

    let write = || {
        // Bounded, so that a joiner that fails does not leave it writing for ever.
        let mut written = 0;
        while done.load(Ordering::SeqCst) < JOINS && !failed.load(Ordering::SeqCst) && written < 200_000 {
            write_all(&mut writer, written + 1..written + 65, "");
            written += 64;
        }
        written
    };
    let joiner = || {
        /// Ends the writer when a joiner's assertion fails.
        struct Tell<'a>(&'a AtomicBool);
        impl Drop for Tell<'_> {
            fn drop(&mut self) {
                self.0.fetch_or(std::thread::panicking(), Ordering::SeqCst);
            }
        }
        let _tell = Tell(&failed);
        while begun.fetch_add(1, Ordering::SeqCst) < JOINS {
            let mut client = house.connect("/ws/prompts/one");
            let start = number(&client.expect("initial"));
            expect_numbers(&mut client, start + 1..=start + FOLLOWED, &format!("a client that joined at {start}"));
            done.fetch_add(1, Ordering::SeqCst);
        }
        0
    };
    let written = side_by_side(vec![Box::new(write), Box::new(joiner), Box::new(joiner), Box::new(joiner)])[0];
    expect_numbers(&mut first, 1..=written, "the one who was there before");
    first.expect_silence();
}

#[test]
fn whoever_joins_during_the_last_writes_is_shown_the_last_one() {
    // Behind a hole the next event would send a member to the log. Here none comes: what was committed between its
    // snapshot and its place in the directory would be missing for ever.
    const ROUNDS: usize = 60;
    const JOINERS: usize = 7;
    // As many reactors as there are connections, so that each joiner is the first of the room on its own.
    let house = serve(JOINERS + 1, "");
    for round in 0..ROUNDS {
        let path = format!("/ws/prompts/r{round}");
        house.create(&format!("r{round}"), "0 ");
        let mut writer = join(house.address, &path);
        let mut parts: Vec<Box<dyn FnOnce() + Send + '_>> = Vec::new();
        for _ in 0..JOINERS {
            let (house, path) = (&house, &path);
            parts.push(Box::new(move || {
                let mut client = house.connect(path);
                let start = number(&client.expect("initial"));
                expect_numbers(&mut client, start + 1..=1, &format!("round {round}: whoever joined at {start}"));
            }));
        }
        // One commit, in the midst of the joins.
        parts.insert(JOINERS / 2, Box::new(|| write_all(&mut writer, 1..=1, "")));
        side_by_side(parts);
    }
}

#[test]
fn fifty_members_are_shown_one_order() {
    const MEMBERS: usize = 50;
    const WRITERS: usize = 5;
    const EACH: usize = 40;
    let house = serve(2, "");
    house.create("one", "born");
    let members: Vec<Client> = (0..MEMBERS).map(|_| join(house.address, "/ws/prompts/one")).collect();
    let parts = members.into_iter().enumerate().map(|(place, mut client)| {
        let own = if place < WRITERS { EACH } else { 0 };
        Box::new(move || {
            let (mut sent, mut answered, mut shown) = (0, 0, Vec::new());
            while answered < own || shown.len() < WRITERS * EACH - own {
                // Two at a time, so that the writers' edits interleave.
                while sent < own && sent < answered + 2 {
                    client.update(&format!("{place}.{sent}"));
                    sent += 1;
                }
                let value = client.json();
                match value["action"].as_str() {
                    Some("update_status") => {
                        assert_eq!(value["success"], true, "writer {place}: {value}");
                        answered += 1;
                    }
                    Some("update") => shown.push(value["content"].as_str().unwrap().to_owned()),
                    _ => panic!("member {place}: {value}"),
                }
            }
            client.expect_silence();
            shown
        }) as Box<dyn FnOnce() -> Vec<String> + Send>
    });
    let views = side_by_side(parts.collect());
    let order = &views[MEMBERS - 1];
    let mut counted: BTreeMap<&str, usize> = BTreeMap::new();
    for content in order {
        *counted.entry(content).or_default() += 1;
    }
    assert_eq!((order.len(), counted.len()), (WRITERS * EACH, WRITERS * EACH), "each edit once");
    for (place, view) in views.iter().enumerate() {
        let own = format!("{place}.");
        let expected: Vec<&String> =
            order.iter().filter(|content| place >= WRITERS || !content.starts_with(&own)).collect();
        assert_eq!(view.iter().collect::<Vec<_>>(), expected, "member {place} and the last one disagree");
    }
    let switches = order.windows(2).filter(|pair| pair[0].split('.').next() != pair[1].split('.').next()).count();
    assert!(switches > WRITERS, "the writers did not interleave, so this has shown nothing: {order:?}");
}

#[test]
fn a_member_that_stops_reading_delays_nobody_and_gets_everything_later() {
    const UPDATES: usize = 3_000;
    let padding = "x".repeat(2_000);
    let house = serve(1, "[limits]\nstall = \"10m\"\n");
    house.create("one", "0 ");
    let mut slow = join_slow(&house, "/ws/prompts/one");
    let mut others: Vec<Client> = (0..3).map(|_| join(house.address, "/ws/prompts/one")).collect();
    let mut writer = join(house.address, "/ws/prompts/one");
    let mut parts: Vec<Box<dyn FnOnce() + Send>> = vec![Box::new(|| write_all(&mut writer, 1..=UPDATES, &padding))];
    for (place, other) in others.iter_mut().enumerate() {
        parts.push(Box::new(move || expect_numbers(other, 1..=UPDATES, &format!("member {place}"))));
    }
    // With the slow one's socket full, these come to their end only if nobody waits for it.
    side_by_side(parts);
    let metrics = house.http("GET", "/metrics", "").body;
    let queued: usize = metrics
        .lines()
        .find_map(|line| line.strip_prefix("commitcast_outbox_bytes ")?.parse().ok())
        .unwrap_or_else(|| panic!("no outbox bytes in {metrics}"));
    assert!(queued < 64 * 1024, "{queued} bytes are queued for a member that should be a cursor");
    expect_numbers(&mut slow, 1..=UPDATES, "the slow one");
    slow.expect_silence();
    // And it is live again.
    write_all(&mut writer, UPDATES + 1..=UPDATES + 1, "");
    expect_numbers(&mut slow, UPDATES + 1..=UPDATES + 1, "the slow one, live");
}

#[test]
fn laggards_at_many_places_of_the_log_are_each_served_from_theirs() {
    // More places than a room keeps pages for, each far behind what it keeps in memory.
    const LAGGARDS: usize = 7;
    const BETWEEN: usize = 150;
    let padding = "y".repeat(2_000);
    let house = serve(2, "[limits]\nstall = \"10m\"\n");
    house.create("one", "0 ");
    let mut writer = join(house.address, "/ws/prompts/one");
    let mut laggards = Vec::new();
    for place in 0..LAGGARDS {
        let written = place * BETWEEN;
        laggards.push((written, join_slow(&house, "/ws/prompts/one")));
        write_all(&mut writer, written + 1..=written + BETWEEN, &padding);
    }
    let last = LAGGARDS * BETWEEN;
    let parts = laggards.into_iter().map(|(start, mut client)| {
        Box::new(move || {
            expect_numbers(&mut client, start + 1..=last, &format!("the one who joined at {start}"));
            client.expect_silence();
        }) as Box<dyn FnOnce() + Send>
    });
    side_by_side(parts.collect());
}

#[test]
fn small_events_beyond_a_page_reach_a_laggard() {
    // Pages end by count here (500 events), not by bytes as above; the socket's own buffers hold far less.
    const UPDATES: usize = 4_000;
    let house = serve(1, "[limits]\nstall = \"10m\"\n");
    house.create("one", "0 ");
    let mut slow = join_slow(&house, "/ws/prompts/one");
    let mut writer = join(house.address, "/ws/prompts/one");
    write_all(&mut writer, 1..=UPDATES, "z");
    expect_numbers(&mut slow, 1..=UPDATES, "the slow one");
    slow.expect_silence();
}

#[test]
fn a_writer_that_reads_no_answers_for_a_while_gets_each_later_in_order() {
    const UPDATES: usize = 1_000;
    let house = serve(2, "");
    house.create("one", "0 ");
    let mut reader = join(house.address, "/ws/prompts/one");
    let mut writer = join(house.address, "/ws/prompts/one");
    for number in 1..=UPDATES {
        writer.say(json!({"action": "update", "content": format!("{number} "), "id": number.to_string()}).to_string());
    }
    expect_numbers(&mut reader, 1..=UPDATES, "the reader");
    for number in 1..=UPDATES {
        let status = writer.expect("update_status");
        assert_eq!(status["id"], number.to_string(), "{status}");
        assert_eq!(status["seq"], number as u64 + 1, "born with 1: {status}");
    }
    writer.expect_silence();
}

#[test]
fn rooms_hear_nothing_of_each_other() {
    const ROOMS: usize = 3;
    const UPDATES: usize = 100;
    let house = serve(2, "");
    // Names that a careless comparison would take for each other.
    let ids: [&str; ROOMS] = ["a/one", "a/one/one", "b/a/one"];
    for id in ids {
        house.create(id, "0 ");
    }
    let mut parts: Vec<Box<dyn FnOnce() + Send + '_>> = Vec::new();
    for id in ids {
        for _ in 0..3 {
            let mut member = join(house.address, &format!("/ws/prompts/{id}"));
            parts.push(Box::new(move || {
                for expected in 1..=UPDATES {
                    let content = member.expect("update")["content"].as_str().unwrap().to_owned();
                    assert_eq!(content, format!("{expected} {id}"), "a member of {id}");
                }
                member.expect_silence();
            }));
        }
        let mut writer = join(house.address, &format!("/ws/prompts/{id}"));
        parts.push(Box::new(move || write_all(&mut writer, 1..=UPDATES, id)));
    }
    side_by_side(parts);
}

#[test]
fn aliases_meet_in_one_room_on_both_reactors() {
    let house = serve(2, "");
    house.create("lib/sub/one", "0 ");
    let aliases = ["lib/sub/one", "one", "lib_sub_one", "lib%2Fsub//one", "fragments/one", "fragments/lib/sub/one"];
    // Connections are dealt out in turn: of two with one spelling, one is on each reactor.
    let mut members: Vec<(&str, Client)> = aliases
        .iter()
        .flat_map(|alias| [*alias, alias])
        .map(|alias| (alias, join(house.address, &format!("/ws/prompts/{alias}"))))
        .collect();
    for sender in 0..members.len() {
        write_all(&mut members[sender].1, sender..=sender, "");
        for (place, (alias, member)) in members.iter_mut().enumerate() {
            if place != sender {
                expect_numbers(member, sender..=sender, alias);
            }
        }
    }
    let answer = house.http("PUT", "/api/prompts/one", r#"{"content":"77 over REST"}"#);
    assert_eq!(answer.status, 200, "{answer:?}");
    for (alias, member) in &mut members {
        expect_numbers(member, 77..=77, alias);
    }
}

#[test]
fn a_room_that_everybody_left_starts_again_where_it_was() {
    let house = serve(2, "");
    house.create("one", "0 ");
    for round in 1..=20 {
        let mut pair = [join(house.address, "/ws/prompts/one"), join(house.address, "/ws/prompts/one")];
        let content = house.connect("/ws/prompts/one").expect("initial");
        assert_eq!(number(&content), (round - 1) * 2);
        write_all(&mut pair[0], round * 2 - 1..=round * 2, "");
        expect_numbers(&mut pair[1], round * 2 - 1..=round * 2, &format!("round {round}"));
        let [first, second] = pair;
        first.leave();
        second.leave();
    }
}
