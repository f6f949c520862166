//! The table of cases.

use std::rc::Rc;

use super::house::House;
use super::script::Wire;
use super::texts;

/// Something to be measured.
pub struct Case {
    pub name: &'static str,
    /// What one run does so many of; the figures are for one.
    pub units: u64,
    /// How often it is run to count instructions; 0 for what is only timed.
    pub counted_runs: u64,
    /// Makes what is run, good for at least so many runs.
    pub prepare: fn(runs: u64) -> Run,
}

pub type Run = Box<dyn FnMut()>;

pub const CASES: &[Case] = &[
    Case { name: "turn/ping", units: 100, counted_runs: 100, prepare: |_| pings(100, 1) },
    Case { name: "turn/ping_x16", units: 1600, counted_runs: 20, prepare: |_| pings(100, 16) },
    Case { name: "turn/signal", units: 1000, counted_runs: 20, prepare: |_| signals(1000, 1) },
    Case { name: "turn/signal_x64", units: 64_000, counted_runs: 4, prepare: |_| signals(1000, 64) },
];

// ---- whole turns of a reactor -----------------------------------------------------------------------------------------

/// One turn: so many `tickets` clients have each sent so many pings in one piece.
fn pings(connections: usize, pipelined: usize) -> Run {
    let mut house = House::new();
    let wires = house.dial("/ws", connections, &[]);
    let frame = texts::leak(texts::text_frame(r#"{"type":"ping"}"#).repeat(pipelined));
    let pong = 2 + r#"{"type":"pong"}"#.len();
    let mut run = turn_of(house, wires.clone(), frame);
    let before = taken(&wires);
    run();
    assert_eq!(taken(&wires) - before, connections * pipelined * pong, "not every ping has its pong");
    run
}

/// One turn: somebody says something that is not state, so many times in one piece, to so many other members of a room.
fn signals(members: usize, pipelined: usize) -> Run {
    let mut house = House::new();
    let wires = house.dial("/v1/connect", members, &[JOIN]);
    let speaker = house.dial("/v1/connect", 1, &[JOIN]);
    let frame = texts::leak(texts::text_frame(SIGNAL).repeat(pipelined));
    let mut run = turn_of(house, speaker, frame);
    let before = taken(&wires);
    run();
    let heard = taken(&wires) - before;
    assert!(heard > 0 && heard.is_multiple_of(members * pipelined), "not every member heard every signal");
    run
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

const JOIN: &str = r#"{"op":"join","room":"free"}"#;
const SIGNAL: &str = r#"{"op":"signal","room":"free","data":{"typing":true,"at":1700000000}}"#;
