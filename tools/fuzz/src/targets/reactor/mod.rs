//! The whole of it: bytes × time × disk on the real reactor, worker, reader and store in memory, over the simulation's
//! scripted network. The input is a script: who comes, what is said in which pieces, who reads and who leaves, when the
//! clock moves, whose turn it is, and how the next commits fail.
//!
//! Held after each turn: the reactor's own invariants, and the bounds of what waits. At the end the faults heal and
//! everybody reads: each stream is HTTP and then whole frames, nothing behind a close, and each text a message of its
//! channel. Then all leave, and nothing is left of them.

mod client;
mod house;

use self::client::{Client, DOORS};
use self::house::House;
use crate::input::Input;

/// Steps of one script, so that none takes long.
const STEPS_MAX: usize = 300;
const CLIENTS_MAX: usize = 8;

pub fn reactor(data: &[u8]) {
    let mut input = Input::new(data);
    let options = input.byte();
    let mut house = House::new(options & 1 != 0);
    let mut clients: Vec<Client> = Vec::new();
    for step in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        if !act(&mut input, step, &mut house, &mut clients) {
            // The store is broken, and so is the process: the next one begins with its disk.
            clients.iter_mut().for_each(Client::crash);
            house.restart();
        }
    }
    house.heal();
    let rests = house.rest(&mut clients);
    if !rests {
        clients.iter_mut().for_each(Client::crash);
    }
    clients.iter().for_each(|client| client.judge(house.may_give_up()));
    if rests {
        house.empty(&mut clients);
    }
}

/// One step of the script. False when the store gave up.
fn act(input: &mut Input<'_>, step: usize, house: &mut House, clients: &mut Vec<Client>) -> bool {
    let what = input.byte();
    if clients.is_empty() && what < 0xc0 {
        let door = usize::from(what) % DOORS.len();
        return dial(input, step, door, house, clients);
    }
    let who = input.byte();
    let place = usize::from(who) % clients.len().max(1);
    let mut client = clients.get_mut(place);
    match what % 16 {
        0 | 1 => return dial(input, step, usize::from(who) % DOORS.len(), house, clients),
        2..=4 => {
            let phrase = input.byte();
            client.iter_mut().for_each(|client| client.say_phrase(usize::from(phrase)));
        }
        5 => {
            let length = usize::from(input.byte());
            let text = input.take(length);
            client.iter_mut().for_each(|client| client.say(0x81, text));
        }
        6 => {
            let length = usize::from(input.byte());
            let bytes = input.take(length);
            client.iter_mut().for_each(|client| client.send(bytes));
        }
        7 => {
            let (first, length) = (input.byte(), usize::from(input.byte()));
            let payload = input.take(length);
            client.iter_mut().for_each(|client| client.say(first, payload));
        }
        8 => {
            let most = usize::from(input.byte()) * 17;
            client.iter_mut().for_each(|client| client.read(most));
        }
        9 if input.byte() > 128 => client.iter_mut().for_each(|client| client.leave(who > 128)),
        9 | 10 => {
            for _ in 0..=who % 4 {
                house.turn();
            }
        }
        11 => return house.write(),
        12 => house.read(),
        13 => house.wait(who),
        14 if who > 160 => house.fault(who),
        _ => return house.all(),
    }
    true
}

fn dial(input: &mut Input<'_>, step: usize, door: usize, house: &mut House, clients: &mut Vec<Client>) -> bool {
    let choice = input.byte();
    if clients.len() < CLIENTS_MAX {
        let client = Client::dial(door, choice, step as u64);
        house.welcome(&client);
        clients.push(client);
    }
    true
}
