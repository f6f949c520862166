//! WebSocket frames of a client. However the stream is cut, the decoder finds the same messages and ends at the same
//! fault, holds no more memory than it was given bytes, and says what tungstenite says as a server of the same bytes;
//! where the two are meant to differ, [`Difference`] says why.

use std::io::{self, Cursor, Read, Write};

use commitcast::ws::{Bounds, Decoder, Fault, Message, OpCode};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, WebSocket};

use crate::input::{Input, lengths};

/// A message that owns its payload.
#[derive(Clone, Debug, PartialEq)]
enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
    Deflated(u8, Vec<u8>),
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// More may come.
    Open {
        mid_message: bool,
    },
    Closed,
    Fault(Fault),
}

pub fn frames(data: &[u8]) {
    let mut input = Input::new(data);
    let options = input.byte();
    let bounds = Bounds {
        message: [16, 125, 1024, 70_000][usize::from(options & 3)],
        fragments: [3, 256][usize::from(options >> 2 & 1)],
        deflate: options >> 3 & 1 == 1,
    };
    let key = input.byte();
    let bytes = if options >> 4 & 1 == 1 { composed(input) } else { input.rest().to_vec() };
    let whole = decode(&bytes, &[bytes.len()], bounds);
    let pieces = decode(&bytes, &lengths(key, bytes.len()), bounds);
    assert_eq!(whole, pieces, "the stream was cut otherwise");
    if !bounds.deflate {
        compare(&whole, &bytes, bounds);
    }
}

/// Frames whose lengths are right more often than not: of each a first byte, a choice, and its payload.
fn composed(mut input: Input<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !input.is_empty() {
        let first = input.byte();
        let choice = input.byte();
        let length = usize::from(input.byte()) * if choice & 0x40 == 0 { 1 } else { 33 };
        let payload = input.take(length);
        let key = if choice & 0x20 == 0 { [0; 4] } else { [first, choice, 0x5a, 0xff] };
        bytes.push(first);
        match choice & 7 {
            // Longer than it need be, and longer than what comes.
            0 => bytes.extend([0x80 | 126, 0, payload.len() as u8]),
            1 => {
                bytes.push(0x80 | 127);
                bytes.extend((payload.len() as u64 + u64::from(choice >> 7)).to_be_bytes());
            }
            _ if payload.len() < 126 => bytes.push(0x80 | payload.len() as u8),
            _ => {
                bytes.push(0x80 | 126);
                bytes.extend((payload.len() as u16).to_be_bytes());
            }
        }
        bytes.extend(key);
        bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    }
    bytes
}

fn decode(bytes: &[u8], lengths: &[usize], bounds: Bounds) -> (Vec<Heard>, End) {
    let mut decoder = Decoder::default();
    let mut heard = Vec::new();
    let mut rest = bytes;
    for length in lengths {
        let mut piece = rest[..*length].to_vec();
        rest = &rest[*length..];
        let mut piece = &mut piece[..];
        while !piece.is_empty() {
            let step = match decoder.next(piece, bounds) {
                Ok(step) => step,
                Err(fault) => return (heard, End::Fault(fault)),
            };
            let (consumed, message) = (step.consumed, step.message.map(owned));
            assert!(consumed <= piece.len());
            assert!(message.is_some() || consumed == piece.len(), "bytes are left, and no message was found");
            assert!(message.is_none() || consumed > 0, "a message of no bytes");
            piece = &mut piece[consumed..];
            let is_close = matches!(message, Some(Heard::Close(_)));
            heard.extend(message);
            // Doubling: at most twice what came, and the header of a frame.
            let given = bytes.len() - rest.len();
            assert!(decoder.buffered() <= 2 * given + 140, "{} bytes for {given}", decoder.buffered());
            if is_close {
                return (heard, End::Closed);
            }
        }
    }
    decoder.release();
    (heard, End::Open { mid_message: decoder.mid_message() })
}

fn owned(message: Message<'_>) -> Heard {
    match message {
        Message::Text(text) => Heard::Text(text.to_owned()),
        Message::Binary(bytes) => Heard::Binary(bytes.to_vec()),
        Message::Ping(bytes) => Heard::Ping(bytes.to_vec()),
        Message::Pong(bytes) => Heard::Pong(bytes.to_vec()),
        Message::Close(close) => Heard::Close(close.map(|(code, reason)| (code.into(), reason.to_owned()))),
        Message::Deflated(kind, bytes) => Heard::Deflated(OpCode::Data(kind).into(), bytes.to_vec()),
    }
}

// ---- against tungstenite --------------------------------------------------------------------------------------------

/// What tungstenite made of the stream's end: nothing yet, or the close code that its error stands for.
type Theirs = Option<u16>;

/// Where we are meant to be stricter, or earlier.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Difference {
    /// It takes a length that is longer written than need be, or has its top bit set and is none (RFC 6455, 5.2 forbids
    /// both), and frames without number (threat row 46).
    TheyTakeIt,
    /// A byte is refused before what stands behind it, a length or a reason, which it looks at first.
    WeLookEarlier,
    /// It answers a close code that may not be sent with a close of its own, and calls that no error.
    TheyAnswer,
}

fn compare((ours, end): &(Vec<Heard>, End), bytes: &[u8], bounds: Bounds) {
    match end {
        End::Open { .. } | End::Closed => {
            let (mut theirs, code) = theirs(bytes, bounds, &[]);
            // The one code that we take and it does not: 1014 is registered (ws/close.rs).
            if let (Some(ours @ Heard::Close(Some((1014, _)))), Some(theirs)) = (ours.last(), theirs.last_mut()) {
                *theirs = ours.clone();
            }
            assert_eq!((&theirs, code), (ours, None), "we took it");
        }
        End::Fault(fault) => {
            // It judges a frame when all of it is there, so what is cut off is made up for.
            let padding = vec![0; frame_bytes_max(bounds) + 16];
            let (theirs, code) = theirs(bytes, bounds, &padding);
            let Some(first) = theirs.get(..ours.len()) else { panic!("{ours:?} {fault}, and they heard {theirs:?}") };
            assert_eq!(first, &ours[..], "before {fault}");
            let agreed = theirs.len() == ours.len() && code == Some(fault.close().code);
            assert!(
                agreed || difference(*fault, &theirs[ours.len()..], code).is_some(),
                "we say {fault}, they say {code:?} after {theirs:?}"
            );
        }
    }
}

fn difference(fault: Fault, more: &[Heard], code: Theirs) -> Option<Difference> {
    match fault {
        Fault::LengthNotMinimal | Fault::LengthTopBit | Fault::TooManyFragments => Some(Difference::TheyTakeIt),
        // A control frame whose length takes two bytes to write: it looks at the number only, and then at the payload.
        Fault::ControlTooLong => Some(Difference::TheyTakeIt),
        // A reason behind it that is no text, which it finds first.
        Fault::BadCloseCode if code == Some(1007) && more.is_empty() => Some(Difference::WeLookEarlier),
        Fault::BadCloseCode if matches!(more, [Heard::Close(Some((1002, _)))]) => Some(Difference::TheyAnswer),
        // A refusal of ours that is due to a frame's front, and its length was beyond the bound.
        fault if fault.close().code == 1002 && code == Some(1009) && more.is_empty() => Some(Difference::WeLookEarlier),
        _ => None,
    }
}

/// Control frames have a bound of their own.
fn frame_bytes_max(bounds: Bounds) -> usize {
    bounds.message.max(125)
}

/// The stream and what is said on it, which nobody reads.
struct Stream<'b> {
    bytes: io::Chain<Cursor<&'b [u8]>, Cursor<&'b [u8]>>,
}

impl Read for Stream<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.bytes.read(into)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn theirs(bytes: &[u8], bounds: Bounds, padding: &[u8]) -> (Vec<Heard>, Theirs) {
    let config =
        WebSocketConfig::default().max_message_size(Some(bounds.message)).max_frame_size(Some(frame_bytes_max(bounds)));
    let stream = Stream { bytes: Cursor::new(bytes).chain(Cursor::new(padding)) };
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, Some(config));
    let mut heard = Vec::new();
    loop {
        let message = match socket.read() {
            Ok(message) => message,
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return (heard, None),
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => return (heard, None),
            Err(Error::Capacity(_)) => return (heard, Some(1009)),
            Err(Error::Utf8(_)) => return (heard, Some(1007)),
            Err(Error::Protocol(_)) => return (heard, Some(1002)),
            Err(other) => panic!("{other}"),
        };
        heard.push(match message {
            tungstenite::Message::Text(text) => Heard::Text(text.as_str().to_owned()),
            tungstenite::Message::Binary(bytes) => Heard::Binary(bytes.to_vec()),
            tungstenite::Message::Ping(bytes) => Heard::Ping(bytes.to_vec()),
            tungstenite::Message::Pong(bytes) => Heard::Pong(bytes.to_vec()),
            tungstenite::Message::Close(close) => {
                Heard::Close(close.map(|close| (close.code.into(), close.reason.as_str().to_owned())))
            }
            tungstenite::Message::Frame(_) => panic!("a frame is no message"),
        });
        if matches!(heard.last(), Some(Heard::Close(_))) {
            return (heard, None);
        }
    }
}
