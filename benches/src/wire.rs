//! The bytes on the wire: the handshake, masked frames made before the measuring starts, and the walk over a server's frames.

use std::io;

/// Any mask without a zero byte: the server must really unmask.
pub const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Opcodes of RFC 6455.
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;

/// Serials start here, so that every one has the same number of digits and a stamped frame never changes its length.
pub const FIRST_SERIAL: u64 = 1_000_000_000;
pub const SERIAL_DIGITS: usize = 10;
/// What stands in a message where its serial goes.
pub const SERIAL_PLACE: &str = "1000000000";

/// The request of a handshake. The key is the RFC's own example: nothing is secret here, and the accept header is the
/// conformance suite's to judge.
pub fn handshake(host: &str, path: &str, headers: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
    )
    .into_bytes()
}

/// The answer to [`handshake`], as the floor gives it.
pub const ACCEPTED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Where the frames begin behind the head of an answer; `None` while the head is not complete.
pub fn behind_head(answer: &[u8]) -> io::Result<Option<usize>> {
    let Some(at) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    if answer.starts_with(b"HTTP/1.1 101") {
        return Ok(Some(at + 4));
    }
    let said = String::from_utf8_lossy(answer.get(..answer.len().min(400)).unwrap_or_default()).into_owned();
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("the upgrade was refused: {said}")))
}

/// A frame of a server.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub opcode: u8,
    pub fin: bool,
    pub payload: &'a [u8],
    /// Header included.
    pub len: usize,
}

/// The first frame of a server; `None` when it is not all there. A server masks nothing and negotiated no extension:
/// anything else is no frame of ours, and whoever measured it would measure nonsense.
pub fn first_frame(bytes: &[u8]) -> io::Result<Option<Frame<'_>>> {
    let (Some(first), Some(second)) = (bytes.first(), bytes.get(1)) else { return Ok(None) };
    if first & 0x70 != 0 || second & 0x80 != 0 {
        return Err(io::Error::other(format!("no frame of a server: it starts with {first:02x} {second:02x}")));
    }
    let (head, payload) = match second {
        126 => match bytes.get(2..4) {
            Some(&[high, low]) => (4, u64::from(u16::from_be_bytes([high, low]))),
            _ => return Ok(None),
        },
        127 => match bytes.get(2..10).map(<[u8; 8]>::try_from) {
            Some(Ok(length)) => (10, u64::from_be_bytes(length)),
            _ => return Ok(None),
        },
        short => (2, u64::from(*short)),
    };
    let Some(len) = usize::try_from(payload).ok().and_then(|payload| payload.checked_add(head)) else {
        return Err(io::Error::other(format!("a frame of {payload} bytes")));
    };
    Ok(bytes.get(head..len).map(|payload| Frame { opcode: first & 0x0f, fin: first & 0x80 != 0, payload, len }))
}

/// What a close frame says.
pub fn closed(payload: &[u8]) -> io::Error {
    let said = match payload {
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            format!("the server closed a connection with {code} {}", String::from_utf8_lossy(reason))
        }
        _ => "the server closed a connection without a code".to_owned(),
    };
    io::Error::new(io::ErrorKind::ConnectionAborted, said.trim_end().to_owned())
}

/// A frame as a client sends it.
pub fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
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
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

pub fn text(payload: &str) -> Vec<u8> {
    masked(TEXT, payload.as_bytes())
}

/// The answer to a ping.
pub fn pong(payload: &[u8]) -> Vec<u8> {
    masked(0xa, payload)
}

/// A masked frame with a place for a serial in it, written anew for each message without building the frame again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamped {
    frame: Vec<u8>,
    /// Where the serials stand in the frame, and the mask over the first digit of each.
    places: Vec<(usize, usize)>,
}

impl Stamped {
    /// `payload` holds [`SERIAL_PLACE`] once or more, or never.
    pub fn new(opcode: u8, payload: &str) -> Stamped {
        let frame = masked(opcode, payload.as_bytes());
        let head = frame.len() - payload.len();
        let places = payload.match_indices(SERIAL_PLACE).map(|(at, _)| (head + at, at % 4)).collect();
        Stamped { frame, places }
    }

    pub fn len(&self) -> usize {
        self.frame.len()
    }

    pub fn is_empty(&self) -> bool {
        self.frame.is_empty()
    }

    /// Where in the frame the first serial stands.
    pub fn place(&self) -> Option<usize> {
        self.places.first().map(|(at, _)| *at)
    }

    /// Appends the frame with this serial.
    pub fn put(&self, serial: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.frame);
        for (at, phase) in &self.places {
            let mut left = serial;
            for digit in (0..SERIAL_DIGITS).rev() {
                if let Some(byte) = out.get_mut(start + at + digit) {
                    *byte = (b'0' + (left % 10) as u8) ^ MASK[(phase + digit) % 4];
                }
                left /= 10;
            }
        }
    }
}

/// The serial that some digits are; `None` when they are none.
pub fn serial(digits: &[u8]) -> Option<u64> {
    if digits.len() != SERIAL_DIGITS {
        return None;
    }
    digits.iter().try_fold(0, |number: u64, byte| match byte {
        b'0'..=b'9' => Some(number * 10 + u64::from(byte - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn unmasked(frame: &[u8], head: usize) -> String {
        let payload = frame[head + 4..].iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        String::from_utf8(payload).unwrap()
    }

    #[test]
    fn a_stamped_frame_is_the_frame_of_its_text() {
        for text in ["1000000000", "{\"n\":1000000000}", "ab1000000000cd1000000000", "nothing"] {
            let mut out = b"before".to_vec();
            Stamped::new(TEXT, text).put(1_234_567_890, &mut out);
            assert_eq!(out[6..], masked(TEXT, text.replace(SERIAL_PLACE, "1234567890").as_bytes()), "{text}");
        }
        assert_eq!(unmasked(&masked(TEXT, "ä".repeat(100).as_bytes()), 4), "ä".repeat(100));
        assert_eq!(Stamped::new(TEXT, "ab1000000000").place(), Some(8));
    }

    #[test]
    fn a_frames_length_stands_in_as_few_bytes_as_it_takes() {
        for (length, head) in [(0, 6), (125, 6), (126, 8), (65_535, 8), (65_536, 14)] {
            let frame = masked(TEXT, &vec![b'x'; length]);
            assert_eq!((frame.len(), frame.first()), (head + length, Some(&0x81)), "{length}");
        }
    }

    #[test]
    fn frames_are_found_when_they_are_whole() {
        let long = [&[0x82, 126, 1, 0][..], &[7; 256][..], &[0x89][..]].concat();
        for (bytes, found) in [
            (&[][..], None),
            (&[0x81][..], None),
            (&[0x81, 2, b'a'][..], None),
            (&[0x81, 2, b'a', b'b', 0x89][..], Some((1, true, 2, 4))),
            (&[0x01, 0][..], Some((1, false, 0, 2))),
            (&[0x89, 0][..], Some((9, true, 0, 2))),
            (&[0x82, 126, 1][..], None),
            (&long[..259], None),
            (&long[..], Some((2, true, 256, 260))),
            (&[0x82, 127, 0, 0, 0, 0, 0, 0, 0][..], None),
        ] {
            let frame = first_frame(bytes).unwrap();
            assert_eq!(
                frame.map(|frame| (frame.opcode, frame.fin, frame.payload.len(), frame.len)),
                found,
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn what_no_server_sends_is_an_error() {
        for bytes in [
            &[0xc1, 0][..],
            &[0x81, 0x80, 1, 2, 3, 4][..],
            &[0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..],
        ] {
            assert!(first_frame(bytes).is_err(), "{bytes:02x?}");
        }
        assert_eq!(closed(&[0x0f, 0xa8, b'x']).to_string(), "the server closed a connection with 4008 x");
        assert!(closed(&[]).to_string().contains("without a code"));
    }

    #[test]
    fn a_handshake_is_over_with_its_head() {
        assert_eq!(behind_head(b"HTTP/1.1 101 x\r\n").unwrap(), None);
        assert_eq!(behind_head(ACCEPTED).unwrap(), Some(ACCEPTED.len()));
        assert_eq!(behind_head(&[ACCEPTED, b"\x81\x00"].concat()).unwrap(), Some(ACCEPTED.len()));
        assert!(behind_head(b"HTTP/1.1 403 Forbidden\r\n\r\n{}").unwrap_err().to_string().contains("403"));
    }

    #[test]
    fn a_serial_is_ten_digits() {
        assert_eq!(serial(b"1000000000"), Some(FIRST_SERIAL));
        assert_eq!((serial(b"100000000"), serial(b"100000000x"), serial(b"")), (None, None, None));
    }
}
