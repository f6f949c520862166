//! The names of things: connections, rooms, positions in a log, operations.
//!
//! Nothing here owns a resource. An id may outlive what it names; the owner of the thing checks (generation, epoch)
//! before it believes the id.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Names one connection of this process. Travels between threads instead of the connection.
///
/// `generation` differs between two tenants of one slot, so a stale id reaches nobody (STYLE.md I2). It is 32 bits
/// wide because a narrow one wraps while an answer is still under way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    pub reactor: u8,
    /// Index in the reactor's table; below 2^24.
    pub slot: u32,
    pub generation: u32,
}

impl ConnId {
    /// Packs into 64 bits: 8 reactor, 24 slot, 32 generation.
    pub fn pack(self) -> u64 {
        (u64::from(self.reactor) << 56) | (u64::from(self.slot & 0x00ff_ffff) << 32) | u64::from(self.generation)
    }

    pub fn unpack(packed: u64) -> ConnId {
        ConnId { reactor: (packed >> 56) as u8, slot: ((packed >> 32) & 0x00ff_ffff) as u32, generation: packed as u32 }
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}.{}.{}", self.reactor, self.slot, self.generation)
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The canonical name of a room, such as `doc:prompts/readme`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomName(Arc<str>);

impl RoomName {
    pub fn new(name: &str) -> RoomName {
        RoomName(Arc::from(name))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Which of `shards` workers speaks for this room.
    pub fn shard(&self, shards: usize) -> usize {
        (fnv(FNV_START, self.0.as_bytes()) % shards.max(1) as u64) as usize
    }
}

/// Where [`fnv`] begins.
pub const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a: the same in every process and version, which the standard hashers do not promise. Not against an attacker.
pub fn fnv(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

impl Borrow<str> for RoomName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number of an event in its room: 1, 2, 3 … with no hole. 0 means "before the first".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Seq(pub u64);

impl Seq {
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

/// Which history of a room a seq belongs to. Changes only when history was erased or rewound.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Where somebody stands in a room's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Position {
    pub epoch: Epoch,
    pub seq: Seq,
}

/// A client's own name for an operation, at most `limits::OP_ID_BYTES_MAX` bytes; makes it idempotent.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct OpId(pub Arc<str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conn_id_survives_packing() {
        for id in [
            ConnId { reactor: 0, slot: 0, generation: 0 },
            ConnId { reactor: 255, slot: 0x00ff_ffff, generation: u32::MAX },
            ConnId { reactor: 3, slot: 17, generation: 9 },
        ] {
            assert_eq!(ConnId::unpack(id.pack()), id);
        }
    }

    #[test]
    fn a_room_always_goes_to_the_same_shard_in_every_process() {
        assert_eq!(RoomName::new("doc:readme").shard(1), 0);
        assert_eq!(RoomName::new("doc:readme").shard(16), 15);
    }
}
