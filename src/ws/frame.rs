//! Frames as a server sends them: whole, never masked, with the shortest length that fits.

use bytes::Bytes;

use super::close::{self, Close};
use super::{Control, Data, OpCode};

/// First byte, length byte, eight bytes of length.
pub const HEADER_BYTES_MAX: usize = 10;
/// Payload of a control frame (RFC 6455 section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;
/// Reason of a close frame: a control payload less the code.
pub const REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

/// One text frame in an allocation of its exact size, so that sharing it costs nothing more.
pub fn text(payload: &[u8]) -> Bytes {
    let header = Header::new(OpCode::Data(Data::Text), payload.len());
    let mut out = Vec::with_capacity(header.bytes().len() + payload.len());
    out.extend_from_slice(header.bytes());
    out.extend_from_slice(payload);
    Bytes::from(out)
}

/// One text frame whose payload `write` appends: the header goes into space kept free before it, so nothing is copied.
/// `capacity` is a guess at the payload's length.
pub fn text_with(capacity: usize, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::with_capacity(HEADER_BYTES_MAX + capacity);
    out.resize(HEADER_BYTES_MAX, 0);
    write(&mut out);
    assert!(out.len() >= HEADER_BYTES_MAX, "the writer only appends");
    let header = Header::new(OpCode::Data(Data::Text), out.len() - HEADER_BYTES_MAX);
    out[header.start..HEADER_BYTES_MAX].copy_from_slice(header.bytes());
    Bytes::from(out).slice(header.start..)
}

pub fn put_text(out: &mut Vec<u8>, payload: &[u8]) {
    put(out, OpCode::Data(Data::Text), payload);
}

pub fn put_binary(out: &mut Vec<u8>, payload: &[u8]) {
    put(out, OpCode::Data(Data::Binary), payload);
}

pub fn put_ping(out: &mut Vec<u8>, payload: &[u8]) {
    put_control(out, Control::Ping, payload);
}

pub fn put_pong(out: &mut Vec<u8>, payload: &[u8]) {
    put_control(out, Control::Pong, payload);
}

/// `None` is the empty close frame, the answer to an empty one.
pub fn put_close(out: &mut Vec<u8>, close: Option<&Close>) {
    let Some(close) = close else {
        return put_control(out, Control::Close, &[]);
    };
    let reason = close::head(&close.reason, REASON_BYTES_MAX).as_bytes();
    let header = Header::new(OpCode::Control(Control::Close), 2 + reason.len());
    out.extend_from_slice(header.bytes());
    out.extend_from_slice(&close.code.to_be_bytes());
    out.extend_from_slice(reason);
}

fn put_control(out: &mut Vec<u8>, kind: Control, payload: &[u8]) {
    // The decoder hands out no longer ping, so a longer payload is ours.
    assert!(payload.len() <= CONTROL_BYTES_MAX, "a control frame of ours is too long");
    put(out, OpCode::Control(kind), payload);
}

fn put(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    if payload.len() <= CONTROL_BYTES_MAX {
        // Most replies: two bytes of header, written where they are to stand.
        out.reserve(2 + payload.len());
        out.extend_from_slice(&[FIN | u8::from(opcode), payload.len() as u8]);
        out.extend_from_slice(payload);
        return;
    }
    put_with(out, FIN | u8::from(opcode), payload);
}

/// A frame whose first byte is given, for one that no opcode alone says: a compressed one.
pub(super) fn put_with(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    let header = Header::beginning(first, payload.len());
    out.reserve(header.bytes().len() + payload.len());
    out.extend_from_slice(header.bytes());
    out.extend_from_slice(payload);
}

/// The bit of a frame that is whole.
const FIN: u8 = 0x80;

/// The header of a whole unmasked frame, flush with the end of its space so that it can stand before a payload.
///
/// Not tungstenite's `FrameHeader::format`: that writes to an `io::Write` and returns errors that cannot happen here.
/// The tests compare the two.
struct Header {
    space: [u8; HEADER_BYTES_MAX],
    start: usize,
}

impl Header {
    fn new(opcode: OpCode, length: usize) -> Header {
        Header::beginning(FIN | u8::from(opcode), length)
    }

    fn beginning(first: u8, length: usize) -> Header {
        let mut space = [0; HEADER_BYTES_MAX];
        let start = match length {
            0..=125 => {
                space[8..].copy_from_slice(&[first, length as u8]);
                8
            }
            126..=0xffff => {
                space[6..8].copy_from_slice(&[first, 126]);
                space[8..].copy_from_slice(&(length as u16).to_be_bytes());
                6
            }
            _ => {
                space[..2].copy_from_slice(&[first, 127]);
                space[2..].copy_from_slice(&(length as u64).to_be_bytes());
                0
            }
        };
        Header { space, start }
    }

    fn bytes(&self) -> &[u8] {
        &self.space[self.start..]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::ws::FrameHeader;

    /// The frame as tungstenite would write it.
    fn expected(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        FrameHeader { opcode, ..FrameHeader::default() }.format(payload.len() as u64, &mut out).unwrap();
        out.extend_from_slice(payload);
        out
    }

    #[test]
    fn frames_are_those_tungstenite_writes() {
        for length in [0, 1, 124, 125, 126, 127, 128, 65_535, 65_536, 65_537] {
            let payload = vec![b'x'; length];
            let frame = expected(OpCode::Data(Data::Text), &payload);
            assert_eq!(text(&payload), frame, "{length}");
            for capacity in [0, length, 2 * length] {
                assert_eq!(text_with(capacity, |out| out.extend_from_slice(&payload)), frame, "{length}");
            }
            let mut out = b"before".to_vec();
            put_text(&mut out, &payload);
            put_binary(&mut out, &payload);
            let mut both = b"before".to_vec();
            both.extend(frame);
            both.extend(expected(OpCode::Data(Data::Binary), &payload));
            assert!(out == both, "{length}");
        }
    }

    #[test]
    fn control_frames_are_those_tungstenite_writes() {
        for length in [0, 1, 4, 125] {
            let payload = vec![7; length];
            let mut out = Vec::new();
            put_ping(&mut out, &payload);
            put_pong(&mut out, &payload);
            let mut both = expected(OpCode::Control(Control::Ping), &payload);
            both.extend(expected(OpCode::Control(Control::Pong), &payload));
            assert_eq!(out, both);
        }
    }

    #[test]
    fn a_close_frame_is_empty_or_a_code_and_what_fits_of_a_reason() {
        let long = "ä".repeat(80);
        for (close, expected) in [
            (None, b"\x88\x00".to_vec()),
            (Some(Close { code: 1000, reason: "".into() }), b"\x88\x02\x03\xe8".to_vec()),
            (Some(Close { code: 4008, reason: "slow".into() }), b"\x88\x06\x0f\xa8slow".to_vec()),
            (
                Some(Close { code: 1000, reason: long.clone().into() }),
                [&[0x88, 124, 0x03, 0xe8][..], &long.as_bytes()[..122]].concat(),
            ),
        ] {
            let mut out = Vec::new();
            put_close(&mut out, close.as_ref());
            assert_eq!(out, expected);
        }
    }
}
