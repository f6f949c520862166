//! How a value lies in a column: places, texts, tags and origins.

use bytes::Bytes;
use rusqlite::{Row, ffi};

use super::error::failure;
use crate::limits;

const _: () = assert!(limits::REACTORS_MAX <= 128, "the top bit of a packed ConnId is free, see OriginKey");

pub(super) fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    str_of(row, column).map(str::to_owned)
}

pub(super) fn str_of<'r>(row: &'r Row<'_>, column: usize) -> rusqlite::Result<&'r str> {
    Ok(std::str::from_utf8(row.get_ref(column)?.as_bytes()?)?)
}

pub(super) fn bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<Bytes> {
    Ok(Bytes::copy_from_slice(row.get_ref(column)?.as_bytes()?))
}

/// A count for LIMIT or OFFSET: more than there can be rows is all of them.
pub(super) fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Bits of a place that hold the seq: 137 thousand million events a room, and 134 million rooms, which are never removed.
pub(super) const SEQ_BITS: u32 = 37;
pub(super) const SEQ_MAX: u64 = (1 << SEQ_BITS) - 1;

/// The high rooms are negative as SQLite sees them; within a room places rise with seqs all the same, and nobody asks
/// for an order between rooms.
pub(super) fn place(room: i64, seq: u64) -> rusqlite::Result<i64> {
    match u64::try_from(room) {
        Ok(room) if room < 1 << (64 - SEQ_BITS) && seq <= SEQ_MAX => Ok(((room << SEQ_BITS) | seq) as i64),
        _ => Err(failure(ffi::SQLITE_FULL, "the numbers of rooms or events are used up")),
    }
}

/// Each tag as `length:tag`, for tags may contain anything a separator could be.
pub(super) fn write_tags(tags: &[String]) -> Vec<u8> {
    tags.iter().flat_map(|tag| format!("{}:{tag}", tag.len()).into_bytes()).collect()
}

pub(super) fn read_tags(mut text: &str) -> Option<Vec<String>> {
    let mut tags = Vec::new();
    while !text.is_empty() {
        let (length, rest) = text.split_once(':')?;
        let (tag, rest) = rest.split_at_checked(length.parse().ok()?)?;
        tags.push(tag.to_owned());
        text = rest;
    }
    Some(tags)
}

/// Hides events' origins from later runs of the process.
///
/// An origin is a `ConnId` of the run that wrote it. A later run numbers its connections the same way, so the event would
/// seem to come from a stranger's connection, which would then not be sent it. XORed with a key that every run draws
/// anew, a foreign origin reads as a random number; the seqs and the column stay as small as they were, and no run needs
/// to know which runs were before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OriginKey(pub(super) u64);

impl OriginKey {
    /// The top bit is set, and no packed `ConnId` has it: so no origin but 0 is ever stored as 0.
    pub(super) fn random() -> Result<OriginKey, String> {
        getrandom::u64()
            .map(|random| OriginKey(random | 1 << 63))
            .map_err(|error| format!("no random numbers: {error}"))
    }

    pub(super) fn seal(self, origin: u64) -> i64 {
        (if origin == 0 { 0 } else { origin ^ self.0 }) as i64
    }

    pub(super) fn unseal(self, stored: i64) -> u64 {
        if stored == 0 { 0 } else { stored as u64 ^ self.0 }
    }
}
