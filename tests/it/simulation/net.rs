//! The scripted network: byte streams that split, stall, lie about readiness and break, all from one seed.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hasher as _};
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use commitcast::conn::Wants;
use commitcast::reactor::poller::{Poller, Ready, Transport};

use super::dice::Dice;

/// One number for all that was said in a run, in its order, in both directions: equal seeds leave equal ones.
#[derive(Clone, Debug, Default)]
pub struct Trace(Arc<AtomicU64>);

impl Trace {
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn add(&self, direction: u8, bytes: &[u8]) {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.value());
        hasher.write_u8(direction);
        hasher.write(bytes);
        self.0.store(hasher.finish(), Ordering::Relaxed);
    }
}

const TO_SERVER: u8 = 1;
const TO_CLIENT: u8 = 2;

/// One connection, seen from both ends.
#[derive(Debug)]
pub struct Wire {
    pub to_server: VecDeque<u8>,
    pub to_client: VecDeque<u8>,
    /// What the kernel would still take for the client.
    pub window: usize,
    pub client_gone: bool,
    pub reset: bool,
    pub server_shut: bool,
    pub server_gone: bool,
    wants: Option<Wants>,
    readable: bool,
    writable: bool,
    dice: Dice,
    calm: bool,
    trace: Trace,
}

pub type Shared = Arc<Mutex<Wire>>;

pub fn lock(wire: &Shared) -> MutexGuard<'_, Wire> {
    wire.lock().unwrap()
}

pub fn wire(seed: u64, trace: Trace) -> Shared {
    Arc::new(Mutex::new(Wire {
        to_server: VecDeque::new(),
        to_client: VecDeque::new(),
        window: 4096,
        client_gone: false,
        reset: false,
        server_shut: false,
        server_gone: false,
        wants: None,
        readable: false,
        writable: false,
        dice: Dice(seed),
        calm: false,
        trace,
    }))
}

impl Wire {
    /// For what is decided once for a connection.
    pub fn coin(&mut self) -> bool {
        self.dice.chance(50)
    }

    pub fn client_sends(&mut self, bytes: &[u8]) {
        self.trace.add(TO_SERVER, bytes);
        self.to_server.extend(bytes);
        self.readable = true;
    }

    /// Up to `most` bytes; the server may write as many more.
    pub fn client_reads(&mut self, most: usize) -> Vec<u8> {
        let taken: Vec<u8> = self.to_client.drain(..most.min(self.to_client.len())).collect();
        if !taken.is_empty() {
            self.window += taken.len();
            self.writable = true;
        }
        taken
    }

    pub fn client_leaves(&mut self, reset: bool) {
        self.client_gone = true;
        self.reset = reset;
        self.readable = true;
        self.writable = true;
    }

    /// No more pranks: the run is to come to its end. Not through a window of a few hundred bytes, either, or a snapshot on
    /// its way would look like rest.
    pub fn calm(&mut self) {
        if !std::mem::replace(&mut self.calm, true) {
            self.window += 1 << 20;
        }
        self.readable = true;
        self.writable = true;
    }
}

#[derive(Debug)]
pub struct SimSocket(pub Shared);

impl Drop for SimSocket {
    fn drop(&mut self) {
        lock(&self.0).server_gone = true;
    }
}

impl Transport for SimSocket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut wire = lock(&self.0);
        if wire.reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let waiting = wire.to_server.len().min(into.len());
        if waiting == 0 {
            return if wire.client_gone { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let calm = wire.calm;
        if !calm && wire.dice.chance(10) {
            // As if the segment had not arrived yet: its edge comes with it.
            wire.readable = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = if calm || wire.dice.chance(50) { waiting } else { 1 + wire.dice.below(waiting) };
        for (slot, byte) in into.iter_mut().zip(wire.to_server.drain(..taken)) {
            *slot = byte;
        }
        if !wire.to_server.is_empty() {
            wire.readable = true;
        }
        Ok(taken)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut wire = lock(&self.0);
        if wire.reset {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if wire.client_gone {
            // The kernel takes it; the reset comes later.
            wire.to_client.extend(bytes);
            return Ok(bytes.len());
        }
        let room = wire.window.min(bytes.len());
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let calm = wire.calm;
        let taken = if calm || wire.dice.chance(70) { room } else { 1 + wire.dice.below(room) };
        wire.trace.add(TO_CLIENT, &bytes[..taken]);
        wire.to_client.extend(&bytes[..taken]);
        wire.window -= taken;
        if taken < bytes.len() && wire.window > 0 {
            wire.writable = true;
        }
        Ok(taken)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let slices: Vec<&[u8]> = slices.iter().map(|slice| &**slice).collect();
        self.write(&slices.concat())
    }

    fn shut(&mut self) {
        lock(&self.0).server_shut = true;
    }
}

/// Tells edges late, in any order, and some that are false.
#[derive(Debug)]
pub struct SimPoller {
    wires: BTreeMap<u64, Shared>,
    dice: Dice,
    calm: bool,
}

impl SimPoller {
    pub fn new(seed: u64) -> SimPoller {
        SimPoller { wires: BTreeMap::new(), dice: Dice(seed), calm: false }
    }
}

impl Poller for SimPoller {
    type Socket = SimSocket;

    fn wait(&mut self, _patience: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        let mut tokens: Vec<u64> = self.wires.keys().copied().collect();
        for place in (1..tokens.len()).rev() {
            let other = self.dice.below(place + 1);
            tokens.swap(place, other);
        }
        for token in tokens {
            let mut wire = lock(&self.wires[&token]);
            let Some(wants) = wire.wants else { continue };
            let calm = self.calm || wire.calm;
            if !calm && self.dice.chance(20) {
                continue;
            }
            let lie = !calm && self.dice.chance(3);
            let readable = wants.read && (wire.readable || lie);
            let writable = wants.write && (wire.writable || lie);
            if !readable && !writable {
                continue;
            }
            wire.readable &= !readable;
            wire.writable &= !writable;
            ready.push(Ready { token, readable, writable, ended: wire.client_gone });
        }
        Ok(())
    }

    fn arm(&mut self, socket: &mut SimSocket, token: u64, _was: Option<Wants>, wants: Option<Wants>) -> io::Result<()> {
        let mut wire = lock(&socket.0);
        wire.wants = wants;
        // As with epoll, a change of interest tells again what is ready.
        wire.readable |= !wire.to_server.is_empty() || wire.client_gone;
        wire.writable |= wire.window > 0 || wire.client_gone;
        drop(wire);
        match wants {
            Some(_) => self.wires.insert(token, socket.0.clone()),
            None => self.wires.remove(&token),
        };
        Ok(())
    }
}
