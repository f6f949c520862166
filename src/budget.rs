//! How much memory the server may come to need: every bound of `limits.rs`, multiplied out and added up (PROMISES.md I2).
//!
//! ```text
//! bound = program + store + operations + responses + outboxes + unfinished + rooms + names + buffers + tables
//!       + a part of all that for the allocator's holes
//!       + connections × (what a connection is, with its texts and its room + what the kernel holds of its socket)
//! ```
//!
//! It is printed at start. Where `limits.memory` says what there is, a configuration whose bound is larger is refused with
//! these numbers and with what to change, instead of being killed by the kernel on the day of the attack. The bound is meant
//! to be held, not to be reached: a room full of clients at rest needs a few hundred bytes each.
//!
//! Not in it, because it is gone before the next turn: what one thread has posted and the other not taken yet, and an answer
//! that is longer than its share (one alone always fits).

use std::fmt;

use crate::auth::Mode;
use crate::clock::Mono;
use crate::config::Settings;
use crate::dialect::Name;
use crate::ids::RoomName;
use crate::limits::{
    ADDRESSES_REMEMBERED, ALLOCATOR_PART, BATCH_BYTES_MAX, HUB_RECENT_BYTES_MAX, HUB_WINDOW_BYTES_MAX,
    PACKED_BYTES_MAX, PROGRAM_BYTES, REACTOR_MAILBOX, READER_CACHE_BYTES, RECEIVE_BUFFER_BYTES, ROOM_BYTES,
    ROOM_NAME_BYTES_MAX, SCRATCH_BYTES, SEND_BUFFER_BYTES, SOCKET_BYTES, STANDS_MAX, STORE_CACHE_BYTES, STORE_MAILBOX,
    TARGET_BYTES_MAX, TOKEN_BYTES_MAX,
};
use crate::reactor::{CONNECTION_BYTES, INBOUND_BYTES};
use crate::room::{Member, MemberKey, Room, RoomKey};
use crate::store::{Job, Question};

/// A name in a table: itself, its text and the table's own place for it, of which a half may be empty.
const NAME_BYTES: usize = ROOM_NAME_BYTES_MAX + 2 * size_of::<(RoomName, u64)>();
/// A token's rights are its patterns as texts of their own; short patterns take several times what they took in the token.
const IDENTITY_BYTES: usize = 4 * TOKEN_BYTES_MAX;

// The hub's table, the directory's and that of presence know a room by its name; the text is shared.
const _: () = assert!(
    2 * size_of::<Room>() + 4 * size_of::<Member>() + NAME_BYTES + 512 <= ROOM_BYTES,
    "a room with its first member"
);

/// The sum, with its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// What does not depend on how many are connected: what it is, and its bytes.
    fixed: Vec<(&'static str, usize)>,
    connections: usize,
    /// For each of them, of ours.
    own: usize,
    /// For each of them, of the kernel's.
    kernel: usize,
    /// What there is; 0 when nobody said.
    memory: usize,
    reactors: usize,
}

/// The configuration may come to need more than there is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("limits.memory is {}, but {budget}.\nSet {advice}", Bytes(budget.memory))]
pub struct TooLarge {
    budget: Box<Budget>,
    advice: String,
}

impl Budget {
    /// Of a server of these settings with so many connections at most.
    pub fn of(settings: &Settings, connections: usize) -> Budget {
        Budget::with_memory(settings, connections, settings.live.limits.memory)
    }

    fn with_memory(settings: &Settings, connections: usize, memory: usize) -> Budget {
        let live = &settings.live;
        let limits = crate::limits::Limits { memory, ..live.limits.clone() };
        let shares = limits.shares();
        let reactors = settings.reactors;
        // A batch is held as operations and, for as long as its commit takes, as the frames of every dialect.
        let commit = BATCH_BYTES_MAX * (1 + Name::ALL.len());
        let deflate = if live.deflate.enabled { PACKED_BYTES_MAX + 2 * limits.message } else { 0 };
        let tables = ADDRESSES_REMEMBERED * 2 * size_of::<[Mono; 16]>()
            + STANDS_MAX * NAME_BYTES
            + STORE_MAILBOX * (size_of::<Job>() + size_of::<Question>());
        let inbox = REACTOR_MAILBOX * INBOUND_BYTES;
        let fixed = vec![
            ("program", PROGRAM_BYTES),
            ("store", STORE_CACHE_BYTES + settings.store.readers * READER_CACHE_BYTES + commit),
            ("operations", shares.operations),
            ("responses", shares.responses),
            ("outboxes", shares.outboxes),
            ("unfinished", shares.unfinished),
            ("rooms", reactors * (HUB_RECENT_BYTES_MAX + HUB_WINDOW_BYTES_MAX)),
            ("names", 2 * shares.rooms * ROOM_BYTES),
            ("buffers", reactors * (2 * SCRATCH_BYTES + inbox + deflate)),
            ("tables", tables),
        ];
        let verified = Name::ALL.into_iter().any(|name| live.policy(name).mode == Mode::Token);
        // Each of its rooms may be watched too, and a table of members doubles when it is full.
        let memberships = 2 * limits.rooms * 2 * (size_of::<Member>() + size_of::<(RoomKey, MemberKey)>());
        let identity = if verified { IDENTITY_BYTES } else { 0 };
        Budget {
            fixed,
            connections,
            own: with_holes(CONNECTION_BYTES + TARGET_BYTES_MAX + ROOM_BYTES + identity + memberships),
            kernel: 2 * SEND_BUFFER_BYTES + 2 * RECEIVE_BUFFER_BYTES + SOCKET_BYTES,
            memory,
            reactors,
        }
    }

    /// Bytes of the process and its sockets.
    pub fn bytes(&self) -> usize {
        self.fixed_bytes().saturating_add(self.connections.saturating_mul(self.own + self.kernel))
    }

    /// Bytes of the process alone, which is what its resident size is held against.
    pub fn process_bytes(&self) -> usize {
        self.fixed_bytes().saturating_add(self.connections.saturating_mul(self.own))
    }

    fn fixed_bytes(&self) -> usize {
        with_holes(self.fixed.iter().map(|(_, bytes)| bytes).sum())
    }

    fn fits(&self) -> bool {
        self.memory == 0 || self.bytes() <= self.memory
    }

    /// Refuses what does not fit, and says what would.
    pub fn check(self, settings: &Settings) -> Result<Budget, TooLarge> {
        if self.fits() {
            return Ok(self);
        }
        let mut ways = Vec::new();
        let room = self.memory.saturating_sub(self.fixed_bytes()) / (self.own + self.kernel);
        if room > 0 {
            ways.push(format!("limits.connections to at most {room}"));
        }
        let enough = least_memory(settings, self.connections);
        ways.push(format!("limits.memory to at least {}", Bytes(enough)));
        if self.reactors > 1 {
            ways.push("fewer `reactors`".to_owned());
        }
        Err(TooLarge { budget: Box::new(self), advice: ways.join(", or ") })
    }
}

/// The least budget, in whole MiB, that a configuration fits into. Shares grow with the budget, but by less than it does.
fn least_memory(settings: &Settings, connections: usize) -> usize {
    const MIB: usize = 1 << 20;
    let fits = |mib: usize| Budget::with_memory(settings, connections, mib * MIB).fits();
    let (mut low, mut high) = (1, 1);
    while !fits(high) {
        (low, high) = (high, high * 2);
    }
    while low < high {
        let middle = low.midpoint(high);
        match fits(middle) {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    high * MIB
}

fn with_holes(bytes: usize) -> usize {
    bytes + bytes / ALLOCATOR_PART
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this configuration may come to need {} = (", Bytes(self.bytes()))?;
        for (place, (name, bytes)) in self.fixed.iter().enumerate() {
            let plus = if place == 0 { "" } else { " + " };
            write!(f, "{plus}{name} {}", Bytes(*bytes))?;
        }
        let (own, kernel) = (Bytes(self.own), Bytes(self.kernel));
        write!(f, ") × 1.25 + {} connections × ({own} here + {kernel} in the kernel)", self.connections)
    }
}

const _: () = assert!(ALLOCATOR_PART == 4, "the factor that is printed");

/// Bytes for people: rounded up, so that what is advised suffices.
struct Bytes(usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..1024 => write!(f, "{} B", self.0),
            1024..1_048_576 => write!(f, "{} KiB", self.0.div_ceil(1024)),
            _ => write!(f, "{} MiB", self.0.div_ceil(1024 * 1024)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Flags;

    const MIB: usize = 1 << 20;

    fn settings(config: &str) -> Settings {
        let flags = Flags { config: Some("c".into()), reactors: Some(2), ..Flags::default() };
        Settings::build(&flags, std::iter::empty(), |_| Ok(config.to_owned())).unwrap()
    }

    fn budget(config: &str, connections: usize) -> Budget {
        Budget::of(&settings(config), connections)
    }

    #[test]
    fn what_is_printed_adds_up() {
        let budget = budget("", 1000);
        let fixed: usize = budget.fixed.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(budget.bytes(), fixed + fixed / 4 + 1000 * (budget.own + budget.kernel));
        assert_eq!(budget.bytes() - budget.process_bytes(), 1000 * budget.kernel);
        let text = budget.to_string();
        for (name, bytes) in &budget.fixed {
            assert!(text.contains(&format!("{name} {}", Bytes(*bytes))), "{name}: {text}");
        }
        assert!(text.contains("1000 connections"), "{text}");
    }

    #[test]
    fn every_bound_that_can_be_set_counts() {
        let plain = budget("", 1000).bytes();
        for config in
            ["[limits]\nmemory = '1GiB'", "[limits]\nrooms = 9", "[store]\nreaders = 5", "[deflate]\nenabled = true"]
        {
            assert_ne!(budget(config, 1000).bytes(), plain, "{config}");
        }
        let token = "[auth]\nmode = 'token'\nhs256_secret = '0123456789abcdef0123456789abcdef'";
        assert!(budget(token, 1000).bytes() > plain, "tokens have rights");
        assert!(budget("", 1001).bytes() > plain);
    }

    #[test]
    fn a_budget_bounds_the_shares_and_the_exact_one_fits() {
        let shares = settings("[limits]\nmemory = '512MiB'").live.limits.shares();
        assert_eq!([shares.operations, shares.responses, shares.outboxes, shares.unfinished], [32 * MIB; 4]);
        assert_eq!(2 * shares.rooms * ROOM_BYTES, 32 * MIB);
        let none = settings("");
        let least = least_memory(&none, 500);
        assert!(Budget::with_memory(&none, 500, least).fits());
        assert!(!Budget::with_memory(&none, 500, least - MIB).fits());
    }

    #[test]
    fn what_does_not_fit_is_told_what_would() {
        let small = settings("[limits]\nmemory = '1GiB'");
        let refused = Budget::of(&small, 18_000).check(&small).unwrap_err().to_string();
        let asked = |before: &str, after: char| -> usize {
            let (_, rest) = refused.split_once(before).unwrap_or_else(|| panic!("{before}: {refused}"));
            rest[..rest.find(after).unwrap_or(rest.len())].trim().parse().unwrap()
        };
        let connections = asked("limits.connections to at most ", ',');
        assert!(Budget::of(&small, connections).check(&small).is_ok(), "{refused}");
        assert!(Budget::of(&small, connections + 1).check(&small).is_err(), "{refused}");
        let memory = asked("limits.memory to at least ", 'M');
        let large = settings(&format!("[limits]\nmemory = '{memory}MiB'"));
        assert!(Budget::of(&large, 18_000).check(&large).is_ok(), "{refused}");
        let tiny = settings("[limits]\nmemory = '64MiB'");
        let refused = Budget::of(&tiny, 1).check(&tiny).unwrap_err().to_string();
        assert!(!refused.contains("limits.connections"), "no number of connections fits: {refused}");
        assert!(Budget::of(&settings(""), usize::MAX / 2).check(&settings("")).is_ok(), "no budget, no refusal");
    }
}
