//! The machine of one client: what each phase accepts, waits for and gives up on, and that no order of events breaks it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::*;
use crate::auth::Credential;
use crate::dialect::documents;
use crate::ids::RoomName;

const NOW: (Mono, Wall) = (Mono(1_000_000_000), Wall(1_700_000_000_000_000));

fn principal(expires_at: Option<i64>) -> Principal {
    let proof = expires_at.map(|_| Arc::new(Proof { expires_at, ..Proof::default() }));
    Principal { user: "ada".into(), rights: Arc::new(Rights::all()), proof, via: Credential::None }
}

fn prompt() -> Session {
    Session::Documents(documents::Session::Prompt { room: RoomName::new("doc:p") })
}

fn open(metered: bool) -> Connection {
    let mut conn = Connection::new(NOW.0);
    conn.upgrade(prompt(), &principal(None), false, metered, NOW.0);
    conn
}

fn asked() -> Asked {
    Asked::request(Framing::default(), "ada".into(), false)
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first, 0x80 | payload.len() as u8, 1, 2, 3, 4];
    frame.extend(payload.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

fn later(wait: Duration) -> (Mono, Wall) {
    (NOW.0.after(wait), Wall(NOW.1.0 + wait.as_micros() as i64))
}

#[test]
fn each_phase_has_its_own_deadline() {
    let limits = Limits::default();
    let lapse = |conn: &Connection| conn.lapse(NOW, &limits).map(|(at, lapse)| (at.since(NOW.0), lapse));
    let mut conn = Connection::new(NOW.0);
    assert_eq!(lapse(&conn), Some((limits.handshake, Lapse::Handshake)));
    conn.ask(asked(), NOW.0);
    assert_eq!(lapse(&conn), Some((limits.answer, Lapse::Answer)));
    conn.again(NOW.0);
    assert_eq!(lapse(&conn), Some((limits.keep_alive, Lapse::Idle)));
    let mut conn = open(false);
    assert_eq!(lapse(&conn), Some((limits.ping, Lapse::Ping)));
    conn.pinged(NOW.0);
    assert_eq!(lapse(&conn), Some((limits.pong, Lapse::Pong)));
    conn.block(false, NOW.0);
    assert_eq!(lapse(&conn), Some((limits.stall, Lapse::Stall)), "who takes no ping is not asked for its pong");
    conn.unblock();
    conn.asked(true, NOW.0);
    assert_eq!(lapse(&conn), Some((limits.answer, Lapse::Answer)), "nor who is not read");
    conn.close(NOW.0);
    assert_eq!(lapse(&conn), Some((limits.close, Lapse::Close)));
    conn.die();
    assert_eq!(lapse(&conn), None);
}

#[test]
fn after_a_pong_the_next_ping_is_not_late() {
    let limits = Limits { ping: Duration::from_secs(1), ..Limits::default() };
    let mut conn = open(false);
    conn.pinged(NOW.0);
    let at = |conn: &Connection, now| conn.look_again(now, &limits).map(|at| at.since(NOW.0));
    assert_eq!(at(&conn, NOW), Some(limits.ping), "it may have been answered by then");
    assert_eq!(at(&conn, later(limits.ping)), Some(limits.pong), "it was not");
}

#[test]
fn a_credential_ends_with_the_wall_clock_whatever_the_monotonic_one_says() {
    let expires = NOW.1.unix_seconds() + 3600;
    let mut conn = Connection::new(NOW.0);
    conn.upgrade(prompt(), &principal(Some(expires)), false, false, NOW.0);
    let (at, lapse) = conn.lapse(NOW, &Limits::default()).unwrap();
    assert_eq!((at.since(NOW.0), lapse), (CREDENTIAL_CHECK, Lapse::Credential), "looked at again and again");
    assert!(!conn.has_expired(NOW.1));
    assert!(!conn.has_expired(Wall((expires + 4) * 1_000_000)), "believed as long as at the door");
    assert!(conn.has_expired(Wall((expires + 5) * 1_000_000)));
}

#[test]
fn a_client_waits_for_its_answers_and_its_bytes_wait_with_it() {
    let limits = Limits::default();
    let mut conn = open(false);
    assert!(conn.accepts(&limits));
    for _ in 0..INFLIGHT_WRITES_MAX {
        assert!(conn.may_write());
        conn.asked(false, NOW.0);
    }
    assert!(!conn.may_write() && !conn.accepts(&limits));
    for _ in 0..INFLIGHT_WRITES_MAX {
        conn.answered(NOW.0);
    }
    conn.asked(true, NOW.0);
    assert!(!conn.may_reply() && !conn.may_write() && !conn.accepts(&limits), "a read goes alone");
    conn.answered(NOW.0);
    conn.outbox.push(vec![0; limits.outbox + 1].into());
    assert!(!conn.accepts(&limits), "who takes no answers asks no more questions");
    assert!(conn.wants().read, "but its end is still noticed");
}

#[test]
fn a_message_begun_must_be_finished() {
    let limits = Limits::default();
    let mut conn = open(false);
    let mut half = masked(0x01, b"{\"action\":");
    let (used, step) = conn.next(&mut half, &limits, NOW, &mut Inflater::default(), &mut Vec::new());
    assert!(used > 0 && matches!(step, Step::More), "{step:?}");
    let far = later(limits.message_time);
    conn.heard(far.0);
    assert_eq!(conn.lapse(far, &limits).map(|(_, lapse)| lapse), Some(Lapse::Message));
    let mut rest = masked(0x80, b"1}");
    let (_, step) = conn.next(&mut rest, &limits, far, &mut Inflater::default(), &mut Vec::new());
    assert!(matches!(step, Step::Intent(Intent::Ignore)), "{step:?}");
    assert_eq!(conn.lapse(far, &limits).map(|(_, lapse)| lapse), Some(Lapse::Ping));
}

#[test]
fn dribbling_a_head_is_refused_and_a_slow_body_is_not() {
    let limits = Limits::default();
    let mut conn = Connection::new(NOW.0);
    let head = b"POST /api/prompts/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
    let mut seen = Vec::new();
    for byte in head.iter().take(HEAD_READS_MAX as usize) {
        seen.push(*byte);
        conn.heard(NOW.0);
        let mut bytes = seen.clone();
        let (_, step) = conn.next(&mut bytes, &limits, NOW, &mut Inflater::default(), &mut Vec::new());
        let is_whole = seen.len() == head.len();
        assert!(
            matches!((&step, is_whole), (Step::More, false) | (Step::Announced { .. }, true)),
            "after {} bytes: {step:?}",
            seen.len()
        );
        // It is told once, however many pieces its body comes in.
        let (used, again) = conn.next(&mut bytes, &limits, NOW, &mut Inflater::default(), &mut Vec::new());
        assert!(matches!(again, Step::More) && used == 0, "{again:?}");
    }
    let mut conn = Connection::new(NOW.0);
    let mut junk = vec![b'G'; 1];
    for _ in 0..=HEAD_READS_MAX {
        conn.heard(NOW.0);
    }
    let (_, step) = conn.next(&mut junk, &limits, NOW, &mut Inflater::default(), &mut Vec::new());
    assert!(matches!(&step, Step::Reject(reject) if reject.reason == Reason::Dribble), "{step:?}");
}

#[test]
fn rates_slow_down_first_and_close_only_who_keeps_at_it() {
    let limits = Limits { messages_per_second: 10, bytes_per_second: 0, ..Limits::default() };
    let mut conn = open(true);
    for _ in 0..20 {
        conn.charge(Spent::Message, 10, &limits, NOW.0).unwrap();
        assert!(conn.accepts(&limits));
    }
    conn.charge(Spent::Message, 10, &limits, NOW.0).unwrap();
    assert!(!conn.accepts(&limits), "over its rate it is not read");
    let (at, lapse) = conn.lapse(NOW, &limits).unwrap();
    assert_eq!((at.since(NOW.0), lapse), (Duration::from_millis(100), Lapse::Slowed));
    // It goes on at twice the rate for as long as it is let.
    let mut now = NOW.0;
    let closed = (0..400).find_map(|_| {
        now = now.after(Duration::from_millis(50));
        conn.speed_up();
        conn.charge(Spent::Message, 10, &limits, now).err()
    });
    assert_eq!(closed, Some(Close::RATE));
    assert!(now.since(NOW.0) > RATE_PATIENCE);
    // One that rests in between is forgiven.
    let mut conn = open(true);
    let mut now = NOW.0;
    for _ in 0..20 {
        for _ in 0..25 {
            conn.charge(Spent::Message, 10, &limits, now).unwrap();
            conn.speed_up();
        }
        now = now.after(Duration::from_secs(5));
    }
    assert!(open(false).charge(Spent::Message, usize::MAX, &limits, NOW.0).is_ok(), "who is not metered owes nothing");
}

#[derive(Clone, Debug)]
enum Act {
    Bytes(Vec<u8>),
    Frame(u8, Vec<u8>),
    Asked(bool),
    Answered,
    Park,
    Unpark,
    Block(bool),
    Unblock,
    Write(usize),
    Wait(u64),
    Ask,
    Upgrade,
    Again,
    Close,
    Die,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..200).prop_map(Act::Bytes),
        1 => Just(Act::Bytes(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec())),
        6 => (prop::sample::select(vec![0x81u8, 0x01, 0x80, 0x82, 0x88, 0x89, 0x8a, 0xff]), prop::collection::vec(b' '..b'~', 0..100))
            .prop_map(|(first, payload)| Act::Frame(first, payload)),
        2 => any::<bool>().prop_map(Act::Asked),
        3 => Just(Act::Answered),
        1 => Just(Act::Park),
        2 => Just(Act::Unpark),
        1 => any::<bool>().prop_map(Act::Block),
        1 => Just(Act::Unblock),
        2 => (0usize..3000).prop_map(Act::Write),
        2 => (0u64..40).prop_map(Act::Wait),
        1 => Just(Act::Ask),
        2 => Just(Act::Upgrade),
        1 => Just(Act::Again),
        1 => Just(Act::Close),
        1 => Just(Act::Die),
    ]
}

proptest! {
    /// Any order of events leaves a sound machine that never panics, and a dead one stays dead.
    #[test]
    fn no_order_of_events_breaks_it(acts in prop::collection::vec(act(), 1..80)) {
        let limits = Limits { outbox: 2000, ..Limits::default() };
        let mut conn = Connection::new(NOW.0);
        let mut now = NOW;
        let mut out = Vec::new();
        for act in acts {
            let was_dead = conn.is_dead();
            match act {
                Act::Bytes(_) | Act::Frame(..) => {
                    let mut bytes = conn.take_tail();
                    match act {
                        Act::Bytes(more) => bytes.extend(more),
                        Act::Frame(first, payload) => bytes.extend(masked(first, &payload)),
                        _ => {}
                    }
                    conn.heard(now.0);
                    let mut used = 0;
                    let mut inflater = Inflater::default();
                    while used < bytes.len() && conn.accepts(&limits) {
                        let (step_used, step) = conn.next(&mut bytes[used..], &limits, now, &mut inflater, &mut out);
                        let end = matches!(step, Step::More);
                        let over = matches!(step, Step::Reject(_) | Step::Fault(_) | Step::Intent(Intent::Farewell { .. }));
                        used += step_used;
                        prop_assert!(used <= bytes.len());
                        if over {
                            conn.close(now.0);
                        }
                        if end {
                            break;
                        }
                    }
                    conn.keep_tail(bytes.split_off(used.min(bytes.len())));
                }
                Act::Asked(exclusive) if conn.is_open() && conn.may_write() && (!exclusive || conn.may_reply()) => conn.asked(exclusive, now.0),
                Act::Answered => conn.answered(now.0),
                Act::Park if conn.is_open() && conn.accepts(&limits) => conn.park(Intent::Ignore, now.0),
                Act::Unpark => drop(conn.unpark()),
                Act::Block(progressed) if !conn.is_dead() => conn.block(progressed, now.0),
                Act::Unblock => conn.unblock(),
                Act::Write(bytes) if !conn.is_dead() => conn.outbox.push(vec![0; bytes].into()),
                Act::Wait(seconds) => now = (now.0.after(Duration::from_secs(seconds)), Wall(now.1.0 + seconds as i64 * 1_000_000)),
                Act::Ask if matches!(conn.phase(), Phase::Head { .. }) => conn.ask(asked(), now.0),
                Act::Upgrade if matches!(conn.phase(), Phase::Asked(_)) => conn.upgrade(prompt(), &principal(None), false, true, now.0),
                Act::Again if matches!(conn.phase(), Phase::Asked(_)) => conn.again(now.0),
                Act::Close => conn.close(now.0),
                Act::Die => conn.die(),
                _ => {}
            }
            conn.check_invariants();
            let lapse = conn.lapse(now, &limits);
            prop_assert_eq!(lapse.is_none(), conn.is_dead(), "everybody but the dead has a deadline");
            prop_assert!(!was_dead || conn.is_dead());
        }
    }
}

/// Ten thousand of them rest in a process: whoever adds a field should see what it costs.
#[test]
fn a_connection_stays_small() {
    assert!(
        size_of::<Connection>() <= 200,
        "{} bytes, open {} session {}",
        size_of::<Connection>(),
        size_of::<Open>(),
        size_of::<Session>()
    );
}
