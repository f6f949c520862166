//! The bytes on the wire: a handshake, one fixed message and its echo, and as much of RFC 6455 as a client at rest needs.

use std::io::{self, Read, Write};
use std::net::TcpStream;

/// Payload of the ping-pong message.
pub const PAYLOAD_BYTES: usize = 64;
/// Header, mask and payload, as a client sends it.
pub const REQUEST_BYTES: usize = 2 + 4 + PAYLOAD_BYTES;
/// Header and payload, as a server sends it.
pub const REPLY_BYTES: usize = 2 + PAYLOAD_BYTES;

const PAYLOAD: [u8; PAYLOAD_BYTES] = *b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// Any mask without a zero byte: the server must really unmask.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// One masked text frame.
pub const REQUEST: [u8; REQUEST_BYTES] = {
    let mut frame = [0; REQUEST_BYTES];
    frame[0] = 0x81;
    frame[1] = 0x80 | PAYLOAD_BYTES as u8;
    let mut at = 0;
    while at < 4 {
        frame[2 + at] = MASK[at];
        at += 1;
    }
    at = 0;
    while at < PAYLOAD_BYTES {
        frame[6 + at] = PAYLOAD[at] ^ MASK[at % 4];
        at += 1;
    }
    frame
};

/// The same payload in an unmasked text frame.
pub const REPLY: [u8; REPLY_BYTES] = {
    let mut frame = [0; REPLY_BYTES];
    frame[0] = 0x81;
    frame[1] = PAYLOAD_BYTES as u8;
    let mut at = 0;
    while at < PAYLOAD_BYTES {
        frame[2 + at] = PAYLOAD[at];
        at += 1;
    }
    frame
};

/// Upgrades a connection; returns what came behind the answer's head.
pub fn shake_hands(stream: &mut TcpStream, path: &str) -> io::Result<Vec<u8>> {
    // The key is the RFC's own example: nothing is secret here, and the accept header is the conformance suite's to judge.
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let head = loop {
        read_some(stream, &mut answer)?;
        if let Some(at) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
    };
    if !answer.starts_with(b"HTTP/1.1 101 ") {
        return Err(io::Error::other(format!("refused: {}", String::from_utf8_lossy(&answer))));
    }
    Ok(answer.split_off(head))
}

/// Reads until `bytes` holds a whole frame, and drops it.
pub fn skip_frame(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    loop {
        if let Some(frame) = first_frame(bytes) {
            let len = frame.len;
            bytes.drain(..len);
            return Ok(());
        }
        read_some(stream, bytes)?;
    }
}

fn read_some(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    match stream.read(&mut buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        n => {
            bytes.extend(buffer.iter().take(n));
            Ok(())
        }
    }
}

/// A whole frame at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub opcode: u8,
    pub payload: &'a [u8],
    /// Header included.
    pub len: usize,
}

/// The first frame of a server, which masks nothing; `None` when it is not all there.
pub fn first_frame(bytes: &[u8]) -> Option<Frame<'_>> {
    let opcode = bytes.first()? & 0x0f;
    let (head, payload) = match bytes.get(1)? & 0x7f {
        126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        short => (2, u64::from(short)),
    };
    let len = usize::try_from(payload).ok()?.checked_add(head)?;
    Some(Frame { opcode, payload: bytes.get(head..len)?, len })
}

/// A text frame as a client sends it, masked with zeros.
pub fn text(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        middle @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((middle as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// The answer to a ping, masked with zeros. Control frames carry at most 125 bytes, so one byte of length is enough.
pub fn pong(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x8a, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reply_is_the_request_unmasked() {
        let unmasked: Vec<u8> = REQUEST[6..].iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        assert_eq!(unmasked, REPLY[2..]);
    }

    #[test]
    fn frames_are_found_when_they_are_whole() {
        let long = [&[0x82, 126, 1, 0][..], &[7; 256][..], &[0x89][..]].concat();
        for (bytes, found) in [
            (&[][..], None),
            (&[0x81][..], None),
            (&[0x81, 2, b'a'][..], None),
            (&[0x81, 2, b'a', b'b', 0x89][..], Some((1, 2, 4))),
            (&[0x89, 0][..], Some((9, 0, 2))),
            (&long[..259], None),
            (&long[..], Some((2, 256, 260))),
            (&[0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..], None),
        ] {
            assert_eq!(
                first_frame(bytes).map(|frame| (frame.opcode, frame.payload.len(), frame.len)),
                found,
                "{bytes:?}"
            );
        }
    }
}
