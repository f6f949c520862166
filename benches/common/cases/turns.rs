//! Whole turns of a reactor: what the server spends on a message or a delivery, the kernel apart.

use std::collections::VecDeque;
use std::rc::Rc;

use commitcast::auth::token::{self, Mint};
use commitcast::clock::Wall;
use commitcast::dialect::Name;
use commitcast::ids::ConnId;
use commitcast::store::{Delivery, Job};

use super::{Case, Run, case, consuming};
use crate::common::house::{DOCUMENTS, House, NOW, SECRET};
use crate::common::script::{Edges, Script, Socket, Wire};
use crate::common::{talk, texts};

pub const CASES: &[Case] = &[
    // For ever would be long enough to be pinged, and to be closed for not answering.
    consuming("turn/idle", 1, 1000, |_| idle()),
    case("turn/ping", 100, 100, || pings(100, 1)),
    case("turn/ping_x16", 1600, 20, || pings(100, 16)),
    case("turn/signal", 1000, 20, || signals(1000, 1)),
    case("turn/signal_x64", 64_000, 4, || signals(1000, 64)),
    consuming("turn/event", 1000, 20, |runs| events(1000, 1, runs)),
    consuming("turn/event_x64", 64_000, 4, |runs| events(1000, 64, runs)),
    consuming("turn/update", DOCUMENTS as u64, 20, updates),
    case("turn/upgrade", 100, 20, || upgrades(100)),
    case("script/read_write", 100, 100, || script(100)),
];

/// Nothing is ready and nothing is due.
fn idle() -> Run {
    let mut house = House::new();
    house.dial("/ws", 100, &[]);
    Box::new(move || house.turn())
}

/// One turn: so many `tickets` clients have each sent so many pings in one piece.
fn pings(connections: usize, pipelined: usize) -> Run {
    let mut house = House::new();
    let wires = house.dial("/ws", connections, &[]);
    let frame = texts::leak(texts::text_frame(talk::PING).repeat(pipelined));
    let mut run = turn_of(house, wires.clone(), frame);
    let pong = 2 + r#"{"type":"pong"}"#.len();
    let before = taken(&wires);
    run();
    assert_eq!(taken(&wires) - before, connections * pipelined * pong, "not every ping has its pong");
    run
}

/// One turn: somebody says something that is not state, so many times in one piece, to so many other members of a room.
fn signals(members: usize, pipelined: usize) -> Run {
    let mut house = House::new();
    let wires = house.dial("/v1/connect", members, &[talk::JOIN]);
    let speaker = house.dial("/v1/connect", 1, &[talk::JOIN]);
    let frame = texts::leak(texts::text_frame(talk::SIGNAL).repeat(pipelined));
    let mut run = turn_of(house, speaker, frame);
    let before = taken(&wires);
    run();
    assert_each(taken(&wires) - before, members * pipelined);
    run
}

/// One turn: a commit of so many edits of one document has come, and so many members are shown them.
fn events(members: usize, edits: usize, runs: u64) -> Run {
    let mut house = House::new();
    let wires = house.dial("/ws/prompts/d/p0", members, &[]);
    let update = talk::update(0);
    // One more run than is asked for is checked.
    let mut deliveries: VecDeque<Delivery> = (0..=runs)
        .flat_map(|_| house.writer.commit((0..edits).map(|_| talk::job(Name::Documents, &update, 0, None)).collect()))
        .collect();
    assert_eq!(deliveries.len() as u64, runs + 1, "each commit is one delivery");
    let mut run: Run = Box::new(move || {
        if let Some(delivery) = deliveries.pop_front() {
            house.deliver(delivery);
        }
        house.turn();
    });
    let before = taken(&wires);
    run();
    assert_each(taken(&wires) - before, members * edits);
    run
}

/// Two turns: in each of many rooms of two, one member sends an edit; then all of them are committed, the writers are
/// answered and the others shown the edit. The reactor's share of it.
fn updates(runs: u64) -> Run {
    let mut house = House::new();
    let (mut writers, mut readers, mut jobs) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..DOCUMENTS {
        let path = format!("/ws/prompts/d/p{number}");
        let conn = house.next_id();
        writers.extend(house.dial(&path, 1, &[]));
        readers.extend(house.dial(&path, 1, &[]));
        jobs.push((number, conn));
    }
    let batch = |jobs: &[(usize, ConnId)]| -> Vec<Job> {
        let job = |&(number, conn)| talk::job(Name::Documents, &talk::update(number), number, Some(conn));
        jobs.iter().map(job).collect()
    };
    let mut deliveries: VecDeque<Delivery> = (0..=runs).flat_map(|_| house.writer.commit(batch(&jobs))).collect();
    assert_eq!(deliveries.len() as u64, runs + 1, "each commit is one delivery");
    let frames: Vec<&'static [u8]> =
        (0..DOCUMENTS).map(|number| texts::leak(texts::text_frame(&talk::update(number)))).collect();
    let all: Vec<Rc<Wire>> = writers.iter().chain(&readers).cloned().collect();
    let mut run: Run = Box::new(move || {
        for (wire, frame) in writers.iter().zip(&frames) {
            house.edges.send(wire, frame);
        }
        house.turn();
        assert_eq!(house.writer.forget_jobs(), DOCUMENTS);
        if let Some(delivery) = deliveries.pop_front() {
            house.deliver(delivery);
        }
        house.turn();
    });
    let before: Vec<usize> = all.iter().map(|wire| wire.taken()).collect();
    run();
    assert_each_heard(&all, before);
    run
}

/// So many sockets come with a token, are let in and greeted, and go.
fn upgrades(count: usize) -> Run {
    let mut house = House::new();
    let token = token::mint(SECRET.as_bytes(), &Mint { sub: "ada", ..Mint::default() }, Wall(NOW)).unwrap();
    let request = texts::leak(texts::upgrade(&format!("/v1/connect?token={token}")).into_bytes());
    let wires: Vec<Rc<Wire>> = (0..count).map(|_| Wire::silent()).collect();
    let checked = wires.clone();
    let mut run: Run = Box::new(move || {
        for wire in &wires {
            wire.send_unregistered(request);
            house.welcome(wire);
        }
        house.turn();
        house.turn();
        for wire in &wires {
            house.edges.end(wire);
        }
        house.turn();
    });
    for _ in 0..2 {
        let before: Vec<usize> = checked.iter().map(|wire| wire.taken()).collect();
        run();
        assert_each_heard(&checked, before);
    }
    run
}

/// What the script itself takes of a ping's turn.
fn script(connections: usize) -> Run {
    use commitcast::reactor::poller::{Poller as _, Transport as _};
    let edges = Rc::new(Edges::default());
    let wires: Vec<Rc<Wire>> = (0..connections).map(|_| Wire::silent()).collect();
    let mut sockets: Vec<Socket> = wires.iter().cloned().map(Socket).collect();
    let mut script = Script(edges.clone());
    let frame = texts::leak(texts::text_frame(talk::PING));
    let (mut ready, mut scratch) = (Vec::new(), vec![0; 1024]);
    Box::new(move || {
        for wire in &wires {
            edges.send(wire, frame);
        }
        ready.clear();
        script.wait(None, &mut ready).unwrap();
        for socket in &mut sockets {
            let read = socket.read(&mut scratch).unwrap();
            socket.write(&scratch[..read]).unwrap();
        }
    })
}

/// Each of `speakers` sends `frame`, then the reactor takes its turn.
fn turn_of(mut house: House, speakers: Vec<Rc<Wire>>, frame: &'static [u8]) -> Run {
    Box::new(move || {
        for wire in &speakers {
            house.edges.send(wire, frame);
        }
        house.turn();
    })
}

fn taken(wires: &[Rc<Wire>]) -> usize {
    wires.iter().map(|wire| wire.taken()).sum()
}

/// All were sent the same, and something.
fn assert_each(bytes: usize, deliveries: usize) {
    assert!(bytes > 0 && bytes.is_multiple_of(deliveries), "{bytes} bytes for {deliveries} deliveries");
}

fn assert_each_heard(wires: &[Rc<Wire>], before: Vec<usize>) {
    assert!(wires.iter().zip(before).all(|(wire, before)| wire.taken() > before), "somebody heard nothing");
}
