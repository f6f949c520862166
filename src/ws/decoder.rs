//! The receiving half of RFC 6455: bytes as they come from the socket in, at most one message a call out.
//!
//! Nearly every frame of nearly every client is small, final and whole in one read: it is unmasked where it lies and
//! lent to the caller. Everything else (a frame cut by a read, a message in fragments, a control frame between
//! fragments) goes through `Partial`, which exists only while something is unfinished.
//!
//! Faults are found in the order of the bytes, so the verdict does not depend on where reads cut the stream.

use super::close::{self, Fault};
use super::deflate::{COMPRESSED, compressed_bytes_max};
use super::mask::unmask;
use super::utf8::Checker;
use super::{CloseCode, Control, Data, OpCode};

/// What one message may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of one message, over all of its fragments.
    pub message: usize,
    /// Frames of one message, empty ones included; control frames between them are not counted.
    pub fragments: u32,
    /// Messages may be compressed (permessage-deflate was agreed on).
    pub deflate: bool,
}

impl Bounds {
    /// Bytes that a message may have on the wire. Compressing what cannot be compressed adds to it, and a message as long as
    /// it may be is not to be refused for that.
    fn received(&self, compressed: bool) -> usize {
        if compressed { compressed_bytes_max(self.message) } else { self.message }
    }
}

/// A complete message, lent from the input or from the decoder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Message<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    Close(Option<(CloseCode, &'a str)>),
    /// A text or binary message as it was compressed: [`super::Inflater`] has the rest of the bound, and of the judging.
    Deflated(Data, &'a [u8]),
}

/// What one call made of its input.
#[derive(Debug, PartialEq)]
pub struct Step<'a> {
    /// Bytes taken from the front of the input: all of them when there is no message.
    pub consumed: usize,
    pub message: Option<Message<'a>>,
}

/// The receiving state of one connection: a null pointer between messages.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
}

const _: () = assert!(size_of::<Decoder>() <= 24, "idle connections pay for this");

impl Decoder {
    /// Takes bytes from the front of `input` up to the end of the first message in it.
    ///
    /// Call [`Decoder::release`] when the message was used, or each call frees what the one before lent. A fault ends the stream: read no more, drop the decoder. What
    /// follows a close frame is the caller's to ignore.
    #[inline]
    pub fn next<'a>(&'a mut self, input: &'a mut [u8], bounds: Bounds) -> Result<Step<'a>, Fault> {
        self.release();
        if self.partial.is_none() {
            if input.is_empty() {
                return Ok(Step { consumed: 0, message: None });
            }
            if let Some(header) = Header::parse(input, None, bounds)?
                && header.is_final
                && header.end() <= input.len()
            {
                let consumed = header.end();
                let payload = input.get_mut(header.bytes..consumed).unwrap_or_default();
                unmask(payload, header.key, 0);
                return Ok(Step { consumed, message: Some(message(header.opcode, header.compressed, payload)?) });
            }
        }
        self.partial.get_or_insert_default().advance(input, bounds)
    }

    /// True while a frame or a fragmented message has begun and is not complete.
    pub fn mid_message(&self) -> bool {
        self.partial.as_ref().is_some_and(|partial| partial.is_open())
    }

    /// Bytes of memory held for what is unfinished or still lent.
    pub fn buffered(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.buffered())
    }

    /// Frees what the last call lent, so that an idle decoder owns nothing.
    #[inline]
    pub fn release(&mut self) {
        if let Some(partial) = &mut self.partial {
            partial.lent = Vec::new();
            if !partial.is_open() {
                self.partial = None;
            }
        }
    }
}

/// What has begun and is not complete.
#[derive(Debug, Default)]
struct Partial {
    /// A header cut by the end of a read.
    head: Head,
    /// The frame whose payload is coming.
    frame: Option<Frame>,
    /// The data message whose final frame is not complete; while no frame is open, a fragmented one.
    message: Option<Assembly>,
    /// The payload so far of a control frame cut by the end of a read.
    control: Vec<u8>,
    /// The gathered payload that the last call lent out.
    lent: Vec<u8>,
}

impl Partial {
    fn advance<'a>(&'a mut self, input: &'a mut [u8], bounds: Bounds) -> Result<Step<'a>, Fault> {
        let available = input.len();
        let mut rest = input;
        while let Some(mut frame) = self.take_frame(&mut rest, bounds)? {
            let payload = frame.take_payload(&mut rest);
            let opcode = frame.header.opcode;
            let consumed = available - rest.len();
            if let OpCode::Control(kind) = opcode {
                if payload.len() == frame.header.length {
                    return Ok(Step { consumed, message: Some(message(opcode, false, payload)?) });
                }
                self.control.extend_from_slice(payload);
                if kind == Control::Close {
                    close::check_head(&self.control)?;
                }
                if frame.is_complete() {
                    self.lent = std::mem::take(&mut self.control);
                    return Ok(Step { consumed, message: Some(message(opcode, false, &self.lent)?) });
                }
            } else if let Some(assembly) = &mut self.message {
                assembly.grow(payload.len(), &frame, bounds);
                assembly.bytes.extend_from_slice(payload);
                if frame.is_complete() && frame.header.is_final {
                    let (opcode, compressed) = (OpCode::Data(assembly.kind), assembly.compressed);
                    self.lent = std::mem::take(&mut assembly.bytes);
                    self.message = None;
                    return Ok(Step { consumed, message: Some(message(opcode, compressed, &self.lent)?) });
                }
                if assembly.kind == Data::Text && !assembly.compressed {
                    assembly.checker.feed(payload)?;
                }
            }
            if !frame.is_complete() {
                self.frame = Some(frame);
                break;
            }
        }
        Ok(Step { consumed: available, message: None })
    }

    /// The frame whose payload comes next in `rest`; `None` when its header is not complete yet.
    fn take_frame(&mut self, rest: &mut &mut [u8], bounds: Bounds) -> Result<Option<Frame>, Fault> {
        if let Some(frame) = self.frame.take() {
            return Ok(Some(frame));
        }
        let Some(header) = self.take_header(rest, bounds)? else {
            return Ok(None);
        };
        match (header.opcode, &mut self.message) {
            (OpCode::Data(Data::Continue), Some(message)) => {
                message.fragments = message.fragments.saturating_add(1);
            }
            (OpCode::Data(kind), message) => *message = Some(Assembly::new(kind, header.compressed)),
            (OpCode::Control(_), _) => {}
        }
        Ok(Some(Frame { header, owed: header.length }))
    }

    fn take_header(&mut self, rest: &mut &mut [u8], bounds: Bounds) -> Result<Option<Header>, Fault> {
        let message = self.message.as_ref();
        if self.head.length == 0
            && let Some(header) = Header::parse(rest, message, bounds)?
            && rest.split_off_mut(..header.bytes).is_some()
        {
            return Ok(Some(header));
        }
        while let Some(byte) = rest.split_off_first_mut() {
            self.head.push(*byte);
            if let Some(header) = Header::parse(self.head.as_slice(), message, bounds)? {
                self.head = Head::default();
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    fn is_open(&self) -> bool {
        self.head.length > 0 || self.frame.is_some() || self.message.is_some()
    }

    fn buffered(&self) -> usize {
        let message = self.message.as_ref().map_or(0, |message| message.bytes.capacity());
        usize::from(self.head.length) + message + self.control.capacity() + self.lent.capacity()
    }
}

/// A data message that did not come whole in one read: one contiguous buffer, whatever the number of its fragments.
#[derive(Debug)]
struct Assembly {
    kind: Data,
    compressed: bool,
    fragments: u32,
    bytes: Vec<u8>,
    checker: Checker,
}

impl Assembly {
    fn new(kind: Data, compressed: bool) -> Assembly {
        Assembly { kind, compressed, fragments: 1, bytes: Vec::new(), checker: Checker::default() }
    }

    /// Makes room for `more` bytes of `frame`, which have been received.
    ///
    /// Doubling keeps the copying in proportion to the bytes however small the reads. A length that is merely declared
    /// reserves nothing (RUSTSEC-2022-0035), it only stops the doubling where no more can come.
    fn grow(&mut self, more: usize, frame: &Frame, bounds: Bounds) {
        let needed = self.bytes.len() + more;
        if needed > self.bytes.capacity() {
            let most = if frame.header.is_final { needed + frame.owed } else { bounds.received(self.compressed) };
            let target = self.bytes.capacity().saturating_mul(2).min(most).max(needed);
            self.bytes.reserve_exact(target - self.bytes.len());
        }
    }
}

/// A frame whose header is known and whose payload is coming.
#[derive(Clone, Copy, Debug)]
struct Frame {
    header: Header,
    /// Payload bytes to come.
    owed: usize,
}

impl Frame {
    /// Splits what belongs to this frame off the front of `rest`, unmasked.
    fn take_payload<'a>(&mut self, rest: &mut &'a mut [u8]) -> &'a mut [u8] {
        let length = self.owed.min(rest.len());
        let payload = rest.split_off_mut(..length).unwrap_or_default();
        unmask(payload, self.header.key, self.header.length - self.owed);
        self.owed -= length;
        payload
    }

    fn is_complete(&self) -> bool {
        self.owed == 0
    }
}

/// The header of a frame that is allowed where it stands.
///
/// Not tungstenite's `FrameHeader`: that can hold what was refused (reserved bits, no mask), and this cannot.
#[derive(Clone, Copy, Debug)]
struct Header {
    is_final: bool,
    /// It begins a compressed message.
    compressed: bool,
    opcode: OpCode,
    key: [u8; 4],
    /// Bytes of the payload.
    length: usize,
    /// Bytes of the header itself.
    bytes: usize,
}

impl Header {
    /// Reads the header that `bytes` begin with, after the fragments of `message`; `None` when more bytes are needed.
    /// Refuses at the first byte that is wrong, before those behind it have come.
    #[inline]
    fn parse(bytes: &[u8], message: Option<&Assembly>, bounds: Bounds) -> Result<Option<Header>, Fault> {
        let Some((&first, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        let (is_final, compressed, opcode) = check_first(first, message, bounds)?;
        let Some((&second, rest)) = rest.split_first() else {
            return Ok(None);
        };
        if second & 0x80 == 0 {
            return Err(Fault::Unmasked);
        }
        let short = second & 0x7f;
        let is_data = matches!(opcode, OpCode::Data(_));
        if !is_data && short > 125 {
            return Err(Fault::ControlTooLong);
        }
        let Some((length, rest)) = length(short, rest)? else {
            return Ok(None);
        };
        let (compressed_so_far, before) = message.map_or((compressed, 0), |it| (it.compressed, it.bytes.len()));
        let room = bounds.received(compressed_so_far).saturating_sub(before);
        let length = usize::try_from(length).map_err(|_| Fault::TooBig)?;
        if is_data && length > room {
            return Err(Fault::TooBig);
        }
        Ok(rest.split_first_chunk::<4>().map(|(key, rest)| Header {
            is_final,
            compressed,
            opcode,
            key: *key,
            length,
            bytes: bytes.len() - rest.len(),
        }))
    }

    /// Where the payload ends, counted from the header's first byte.
    fn end(&self) -> usize {
        self.bytes.saturating_add(self.length)
    }
}

/// What a frame's first byte says, if it may say so here: whether it is a message's last, whether it begins a compressed one,
/// and what it is.
#[inline]
fn check_first(first: u8, message: Option<&Assembly>, bounds: Bounds) -> Result<(bool, bool, OpCode), Fault> {
    let is_final = first & 0x80 != 0;
    let opcode = OpCode::from(first & 0x0f);
    let compressed = first & 0x70 == COMPRESSED;
    // The bit stands on the frame that begins a message, and on no other (RFC 7692, 6.1).
    let may_be = bounds.deflate && matches!(opcode, OpCode::Data(Data::Text | Data::Binary));
    if first & 0x70 != 0 && !(compressed && may_be) {
        return Err(Fault::ReservedBits);
    }
    match (opcode, message) {
        (OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)), _) => Err(Fault::ReservedOpcode),
        (OpCode::Control(_), _) if !is_final => Err(Fault::ControlFragmented),
        (OpCode::Data(Data::Continue), None) => Err(Fault::ContinuationWithoutStart),
        (OpCode::Data(Data::Continue), Some(message)) if message.fragments >= bounds.fragments => {
            Err(Fault::TooManyFragments)
        }
        (OpCode::Data(Data::Text | Data::Binary), Some(_)) => Err(Fault::Interleaved),
        _ => Ok((is_final, compressed, opcode)),
    }
}

/// The payload's length and what follows it; `None` when its field is not complete.
#[inline]
fn length(short: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>, Fault> {
    match short {
        126 => {
            let Some((field, rest)) = rest.split_first_chunk::<2>() else {
                return Ok(None);
            };
            let length = u16::from_be_bytes(*field);
            if length < 126 {
                return Err(Fault::LengthNotMinimal);
            }
            Ok(Some((u64::from(length), rest)))
        }
        127 => {
            if rest.first().is_some_and(|byte| byte & 0x80 != 0) {
                return Err(Fault::LengthTopBit);
            }
            let Some((field, rest)) = rest.split_first_chunk::<8>() else {
                return Ok(None);
            };
            let length = u64::from_be_bytes(*field);
            if length <= 0xffff {
                return Err(Fault::LengthNotMinimal);
            }
            Ok(Some((length, rest)))
        }
        length => Ok(Some((u64::from(length), rest))),
    }
}

/// A header that is not complete.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    bytes: [u8; HEADER_BYTES_MAX],
    length: u8,
}

/// Two bytes, eight of length, four of key.
const HEADER_BYTES_MAX: usize = 14;

impl Head {
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(usize::from(self.length)) {
            *slot = byte;
            self.length += 1;
        }
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

/// The message that a whole unmasked payload is.
#[inline]
fn message(opcode: OpCode, compressed: bool, payload: &[u8]) -> Result<Message<'_>, Fault> {
    match opcode {
        OpCode::Data(kind @ (Data::Text | Data::Binary)) if compressed => Ok(Message::Deflated(kind, payload)),
        OpCode::Data(Data::Text) => text(payload),
        OpCode::Data(Data::Binary) => Ok(Message::Binary(payload)),
        OpCode::Control(Control::Ping) => Ok(Message::Ping(payload)),
        OpCode::Control(Control::Pong) => Ok(Message::Pong(payload)),
        OpCode::Control(Control::Close) => close::parse(payload).map(Message::Close),
        // A header with these was refused, and an assembly is never of these kinds.
        OpCode::Data(Data::Continue | Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
            Err(Fault::ReservedOpcode)
        }
    }
}

/// The text message that a payload is.
#[inline]
pub(super) fn text(payload: &[u8]) -> Result<Message<'_>, Fault> {
    match simdutf8::basic::from_utf8(payload) {
        Ok(text) => Ok(Message::Text(text)),
        Err(_) => Err(Fault::BadUtf8),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;
    use std::io::{Cursor, Read, Write};
    use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};

    const FIN: u8 = 0x80;
    const RSV1: u8 = 0x40;
    const CONTINUE: u8 = 0;
    const TEXT: u8 = 1;
    const BINARY: u8 = 2;
    const CLOSE: u8 = 8;
    const PING: u8 = 9;
    const PONG: u8 = 10;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    const BOUNDS: Bounds = Bounds { message: 70_000, fragments: 4, deflate: false };

    /// A message that outlives the call.
    #[derive(Clone, Debug, PartialEq)]
    enum Owned {
        Text(String),
        Binary(Vec<u8>),
        Ping(Vec<u8>),
        Pong(Vec<u8>),
        Close(Option<(u16, String)>),
        /// As it was compressed.
        Deflated(Data, Vec<u8>),
    }

    impl From<Message<'_>> for Owned {
        fn from(message: Message<'_>) -> Owned {
            match message {
                Message::Text(text) => Owned::Text(text.to_owned()),
                Message::Binary(bytes) => Owned::Binary(bytes.to_vec()),
                Message::Ping(bytes) => Owned::Ping(bytes.to_vec()),
                Message::Pong(bytes) => Owned::Pong(bytes.to_vec()),
                Message::Close(close) => Owned::Close(close.map(|(code, reason)| (code.into(), reason.to_owned()))),
                Message::Deflated(kind, bytes) => Owned::Deflated(kind, bytes.to_vec()),
            }
        }
    }

    /// The messages up to the first close, and how it ended.
    type Outcome = (Vec<Owned>, Option<Fault>);

    /// A client's header; `length` is as declared, in the shortest form that holds it.
    fn head(first: u8, length: u64, key: [u8; 4]) -> Vec<u8> {
        let mut out = vec![first];
        match length {
            0..=125 => out.push(FIN | length as u8),
            126..=0xffff => {
                out.push(FIN | 126);
                out.extend((length as u16).to_be_bytes());
            }
            _ => {
                out.push(FIN | 127);
                out.extend(length.to_be_bytes());
            }
        }
        out.extend(key);
        out
    }

    fn masked(payload: &[u8], key: [u8; 4]) -> impl Iterator<Item = u8> {
        payload.iter().zip(key.into_iter().cycle()).map(|(byte, key)| byte ^ key)
    }

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = head(first, payload.len() as u64, KEY);
        out.extend(masked(payload, KEY));
        out
    }

    fn frames(frames: &[(u8, &[u8])]) -> Vec<u8> {
        frames.iter().flat_map(|(first, payload)| frame(*first, payload)).collect()
    }

    fn decode(pieces: &[&[u8]], bounds: Bounds) -> Outcome {
        let mut decoder = Decoder::default();
        let mut messages = Vec::new();
        for piece in pieces {
            let mut piece = piece.to_vec();
            let mut at = 0;
            loop {
                let step = match decoder.next(&mut piece[at..], bounds) {
                    Ok(step) => step,
                    Err(fault) => return (messages, Some(fault)),
                };
                at += step.consumed;
                let Some(message) = step.message else {
                    assert_eq!(at, piece.len(), "no message takes all of the input");
                    break;
                };
                messages.push(Owned::from(message));
                if let Some(Owned::Close(_)) = messages.last() {
                    return (messages, None);
                }
            }
        }
        (messages, None)
    }

    fn whole(stream: &[u8]) -> Outcome {
        decode(&[stream], BOUNDS)
    }

    fn byte_by_byte(stream: &[u8], bounds: Bounds) -> Outcome {
        decode(&stream.chunks(1).collect::<Vec<_>>(), bounds)
    }

    /// The index of the byte at which a stream that comes byte by byte is refused.
    fn refused_at(stream: &[u8]) -> Option<usize> {
        let mut decoder = Decoder::default();
        stream.iter().position(|&byte| decoder.next(&mut [byte], BOUNDS).is_err())
    }

    /// Asserts the outcome for the whole stream, for bytes one by one, and for each cut in two. Of long streams the
    /// cuts near their ends are tried: what lies between is the inside of one payload.
    fn assert_outcome(stream: &[u8], expected: &Outcome) {
        assert!(whole(stream) == *expected, "whole {:x?}", &stream[..stream.len().min(200)]);
        assert!(byte_by_byte(stream, BOUNDS) == *expected, "byte by byte {:x?}", &stream[..stream.len().min(200)]);
        let cuts = (0..=stream.len()).filter(|&cut| cut < 300 || cut + 20 > stream.len());
        for cut in cuts {
            let (first, second) = stream.split_at(cut);
            assert!(
                decode(&[first, second], BOUNDS) == *expected,
                "cut at {cut} {:x?}",
                &stream[..stream.len().min(200)]
            );
        }
    }

    fn text(text: &str) -> Owned {
        Owned::Text(text.to_owned())
    }

    /// Autobahn 1.*, 2.*, 5.*, 7.1.*.
    #[test]
    fn what_is_allowed_arrives_whole_wherever_it_is_cut() {
        let ping = |bytes: &[u8]| Owned::Ping(bytes.to_vec());
        let pong = |bytes: &[u8]| Owned::Pong(bytes.to_vec());
        let vectors: Vec<(Vec<u8>, Vec<Owned>)> = vec![
            (vec![], vec![]),
            (frame(FIN | TEXT, b""), vec![text("")]),
            (frame(FIN | TEXT, b"Hello"), vec![text("Hello")]),
            (frame(FIN | BINARY, b"\x00\xff"), vec![Owned::Binary(vec![0, 0xff])]),
            (frame(FIN | PING, b""), vec![ping(b"")]),
            (frame(FIN | PING, &[0xfe; 125]), vec![ping(&[0xfe; 125])]),
            (frame(FIN | PONG, b"unsolicited"), vec![pong(b"unsolicited")]),
            (
                frames(&[(FIN | PONG, b"a"), (FIN | PING, b"b"), (FIN | TEXT, b"c"), (FIN | PING, b"")]),
                vec![pong(b"a"), ping(b"b"), text("c"), ping(b"")],
            ),
            // 5.3: fragments.
            (frames(&[(TEXT, b"frag"), (FIN | CONTINUE, b"ment")]), vec![text("fragment")]),
            (
                frames(&[(BINARY, b"\xff"), (CONTINUE, b"\xfe"), (FIN | CONTINUE, b"\xfd")]),
                vec![Owned::Binary(vec![0xff, 0xfe, 0xfd])],
            ),
            // 6.1: empty fragments.
            (frames(&[(TEXT, b""), (CONTINUE, b""), (FIN | CONTINUE, b"")]), vec![text("")]),
            (frames(&[(TEXT, b""), (CONTINUE, b"x"), (FIN | CONTINUE, b"")]), vec![text("x")]),
            // 5.6: control frames between fragments.
            (
                frames(&[
                    (TEXT, b"a"),
                    (FIN | PING, b"p"),
                    (FIN | PONG, b""),
                    (CONTINUE, b"b"),
                    (FIN | PING, b"q"),
                    (FIN | CONTINUE, b"c"),
                    (FIN | TEXT, b"d"),
                ]),
                vec![ping(b"p"), pong(b""), ping(b"q"), text("abc"), text("d")],
            ),
            (
                frames(&[(TEXT, b"never complete"), (FIN | CLOSE, b"\x03\xe8")]),
                vec![Owned::Close(Some((1000, String::new())))],
            ),
            // 6.2: a character over fragments.
            (
                frames(&[
                    (TEXT, b"\xce\xba\xe1\xbd"),
                    (FIN | PING, b""),
                    (CONTINUE, b"\xb9\xcf"),
                    (FIN | CONTINUE, b"\x83"),
                ]),
                vec![ping(b""), text("κ\u{1f79}σ")],
            ),
            // 7.1: close, and what follows it.
            (frame(FIN | CLOSE, b""), vec![Owned::Close(None)]),
            (frame(FIN | CLOSE, b"\x03\xe8\xe2\x82\xac"), vec![Owned::Close(Some((1000, "€".to_owned())))]),
            (
                frame(FIN | CLOSE, &[&[0x0f, 0xa0][..], &[b'*'; 123]].concat()),
                vec![Owned::Close(Some((4000, "*".repeat(123))))],
            ),
            (frames(&[(FIN | CLOSE, b""), (FIN | TEXT, b"too late")]), vec![Owned::Close(None)]),
        ];
        for (stream, messages) in vectors {
            assert_outcome(&stream, &(messages, None));
        }
    }

    #[test]
    fn payloads_at_the_edges_of_the_length_forms() {
        for length in [0, 1, 124, 125, 126, 127, 128, 65_535, 65_536, 70_000] {
            let payload = "*".repeat(length);
            let once = frame(FIN | TEXT, payload.as_bytes());
            let stream = [once.clone(), frame(FIN | PING, b"!"), once].concat();
            let messages = vec![text(&payload), Owned::Ping(b"!".to_vec()), text(&payload)];
            if length <= 128 {
                assert_outcome(&stream, &(messages, None));
            } else {
                for size in [1, 7, 1000, 65_536, stream.len()] {
                    let pieces: Vec<&[u8]> = stream.chunks(size).collect();
                    assert!(decode(&pieces, BOUNDS) == (messages.clone(), None), "{length} by {size}");
                }
            }
        }
    }

    /// Each fault, and the byte at which it is known: a peer cannot make us wait for bytes that change nothing.
    /// Autobahn 2.5, 3.*, 4.*, 5.*, 7.3, 7.5; PROMISES.md threat rows 40 to 51.
    #[test]
    fn what_is_not_allowed_is_refused_at_the_byte_that_shows_it() {
        let unmasked = |first: u8, payload: &[u8]| [&[first, payload.len() as u8][..], payload].concat();
        let declared = |first: u8, length: &[u8]| [&[first][..], length].concat();
        let mut vectors: Vec<(Vec<u8>, usize, Fault)> = vec![
            (unmasked(FIN | TEXT, b"Hello"), 1, Fault::Unmasked),
            (unmasked(FIN | PING, b""), 1, Fault::Unmasked),
            (unmasked(FIN | CLOSE, b"\x03\xe8"), 1, Fault::Unmasked),
            (declared(FIN | BINARY, b"\xff\x80\0\0\0\0\0\0\0"), 2, Fault::LengthTopBit),
            (declared(FIN | BINARY, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff"), 2, Fault::LengthTopBit),
            (declared(FIN | BINARY, b"\xff\x7f\xff\xff\xff\xff\xff\xff\xff"), 9, Fault::TooBig),
            (declared(FIN | BINARY, b"\xff\0\0\0\0\0\x01\x11\x71"), 9, Fault::TooBig),
            (declared(FIN | BINARY, b"\xff\0\0\0\0\0\0\xff\xff"), 9, Fault::LengthNotMinimal),
            (declared(FIN | BINARY, b"\xff\0\0\0\0\0\0\0\0"), 9, Fault::LengthNotMinimal),
            (declared(FIN | BINARY, b"\xfe\0\x7d"), 3, Fault::LengthNotMinimal),
            (declared(FIN | TEXT, b"\xfe\0\0"), 3, Fault::LengthNotMinimal),
            (frame(FIN | PING, &[0; 126]), 1, Fault::ControlTooLong),
            (frame(FIN | CLOSE, &[0; 126]), 1, Fault::ControlTooLong),
            (frame(FIN | PONG, &[0; 65_536]), 1, Fault::ControlTooLong),
            (frame(PING, b""), 0, Fault::ControlFragmented),
            (frame(PONG, b""), 0, Fault::ControlFragmented),
            (frame(CLOSE, b""), 0, Fault::ControlFragmented),
            (frame(FIN | CONTINUE, b""), 0, Fault::ContinuationWithoutStart),
            (frame(CONTINUE, b"x"), 0, Fault::ContinuationWithoutStart),
            (frames(&[(TEXT, b""), (FIN | TEXT, b"")]), 6, Fault::Interleaved),
            (frames(&[(TEXT, b""), (BINARY, b"")]), 6, Fault::Interleaved),
            (frames(&[(BINARY, b"x"), (FIN | PING, b""), (FIN | TEXT, b"")]), 13, Fault::Interleaved),
            (frames(&[(TEXT, b"a"), (FIN | PING, b"b"), (0x40, b"")]), 14, Fault::ReservedBits),
            (
                frames(&[(TEXT, b""), (CONTINUE, b""), (CONTINUE, b""), (CONTINUE, b""), (FIN | CONTINUE, b"")]),
                24,
                Fault::TooManyFragments,
            ),
            (frame(FIN | CLOSE, b"\x03"), 6, Fault::BadClosePayload),
            (frame(FIN | CLOSE, b"\x03\xe8\xff rest"), 8, Fault::BadUtf8),
            (frame(FIN | CLOSE, b"\x03\xe8\xce\xba\xe1\xbd"), 11, Fault::BadUtf8),
            (frame(FIN | CLOSE, b"\x03\xedbecause"), 7, Fault::BadCloseCode),
            (frame(FIN | CLOSE, b"\0\0"), 7, Fault::BadCloseCode),
        ];
        for bits in [0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70] {
            for opcode in [TEXT, BINARY, CLOSE, PING, PONG] {
                vectors.push((frame(FIN | bits | opcode, b"x"), 0, Fault::ReservedBits));
            }
        }
        for opcode in (3..8).chain(11..16) {
            vectors.push((frame(FIN | opcode, b""), 0, Fault::ReservedOpcode));
            vectors.push((frame(opcode, b"x"), 0, Fault::ReservedOpcode));
        }
        // Two fragments that pass the bound together: known from the second one's header.
        let half = [0; 35_000];
        let mut halves = frame(BINARY, &half);
        let known = halves.len() + 3;
        halves.extend(head(FIN | CONTINUE, 35_001, KEY));
        vectors.push((halves, known, Fault::TooBig));

        let mut seen: Vec<Fault> = Vec::new();
        for (stream, at, fault) in vectors {
            let pings = whole(&stream).0;
            assert!(pings.iter().all(|message| matches!(message, Owned::Ping(_))));
            assert_outcome(&stream, &(pings, Some(fault)));
            assert_eq!(refused_at(&stream), Some(at), "{fault} {:x?}", &stream[..stream.len().min(40)]);
            // What came before is unharmed.
            let stream = [frame(FIN | TEXT, b"before"), stream].concat();
            let (messages, verdict) = whole(&stream);
            assert_eq!((messages.first(), verdict), (Some(&text("before")), Some(fault)));
            seen.push(fault);
        }
        // What is wrong inside a compressed message is found by whoever inflates it.
        let elsewhere = [Fault::BadDeflate, Fault::InflatesTooFar];
        for fault in Fault::ALL.into_iter().filter(|fault| !elsewhere.contains(fault)) {
            assert!(seen.contains(&fault), "{fault} has no vector");
        }
    }

    /// Where compressing was agreed on, its bit is allowed on the frame that begins a message, and nowhere else: threat row 41
    /// for such connections. What a compressed text is made of is nobody's business here, not even its UTF-8.
    #[test]
    fn the_bit_of_compressed_messages_has_its_place() {
        let agreed = Bounds { deflate: true, ..BOUNDS };
        let deflated = |kind, bytes: &[u8]| Owned::Deflated(kind, bytes.to_vec());
        let ok = |messages: Vec<Owned>| (messages, None);
        let fault = |messages: Vec<Owned>, fault| (messages, Some(fault));
        for (stream, expected) in [
            (frame(FIN | RSV1 | TEXT, b"\xff\xfe"), ok(vec![deflated(Data::Text, b"\xff\xfe")])),
            (frame(FIN | RSV1 | BINARY, b""), ok(vec![deflated(Data::Binary, b"")])),
            (frame(FIN | TEXT, b"plain"), ok(vec![text("plain")])),
            (frame(FIN | TEXT, b"\xff\xfe"), fault(vec![], Fault::BadUtf8)),
            (
                frames(&[(RSV1 | TEXT, b"\xff"), (FIN | PING, b"p"), (CONTINUE, b""), (FIN | CONTINUE, b"\xfe")]),
                ok(vec![Owned::Ping(b"p".to_vec()), deflated(Data::Text, b"\xff\xfe")]),
            ),
            (
                frames(&[
                    (RSV1 | BINARY, b"\xff"),
                    (FIN | CONTINUE, b""),
                    (FIN | TEXT, b"plain"),
                    (FIN | RSV1 | TEXT, b"x"),
                ]),
                ok(vec![deflated(Data::Binary, b"\xff"), text("plain"), deflated(Data::Text, b"x")]),
            ),
            // Not on a later fragment, of either kind of message; nor on what is no message; nor with other bits.
            (frames(&[(RSV1 | TEXT, b"a"), (FIN | RSV1 | CONTINUE, b"b")]), fault(vec![], Fault::ReservedBits)),
            (frames(&[(TEXT, b"a"), (RSV1 | CONTINUE, b"b")]), fault(vec![], Fault::ReservedBits)),
            (frame(FIN | RSV1 | CONTINUE, b""), fault(vec![], Fault::ReservedBits)),
            (frame(FIN | RSV1 | PING, b""), fault(vec![], Fault::ReservedBits)),
            (frame(FIN | RSV1 | CLOSE, b"\x03\xe8"), fault(vec![], Fault::ReservedBits)),
            (frame(FIN | RSV1 | 3, b""), fault(vec![], Fault::ReservedBits)),
            (frame(FIN | RSV1 | 0x20 | TEXT, b""), fault(vec![], Fault::ReservedBits)),
            (frame(FIN | 0x20 | TEXT, b""), fault(vec![], Fault::ReservedBits)),
            (frame(FIN | 0x10 | BINARY, b""), fault(vec![], Fault::ReservedBits)),
            (frames(&[(RSV1 | TEXT, b"a"), (FIN | RSV1 | TEXT, b"b")]), fault(vec![], Fault::Interleaved)),
        ] {
            for cut in 0..=stream.len() {
                let (first, second) = stream.split_at(cut);
                assert_eq!(decode(&[first, second], agreed), expected, "cut at {cut} {stream:x?}");
            }
            assert_eq!(byte_by_byte(&stream, agreed), expected, "{stream:x?}");
            // Without the agreement the first such bit ends it, whatever it is on.
            let (messages, verdict) = whole(&stream);
            let refused = matches!(verdict, Some(Fault::ReservedBits | Fault::BadUtf8));
            assert!(refused || messages == [text("plain")], "{stream:x?}");
        }
        // Compressed bytes have the bound of a message and what compressing may add to it.
        let bounds = Bounds { message: 2048, fragments: 9, deflate: true };
        let most = 2048 + 256 + 64;
        for (length, fits) in [(2048, true), (most, true), (most + 1, false)] {
            let payload = vec![7; length];
            let halves = frames(&[(RSV1 | BINARY, &payload[..1000]), (FIN | CONTINUE, &payload[1000..])]);
            for stream in [frame(FIN | RSV1 | BINARY, &payload), halves] {
                let expected = match fits {
                    true => ok(vec![deflated(Data::Binary, &payload)]),
                    false => fault(vec![], Fault::TooBig),
                };
                assert_eq!(decode(&[&stream], bounds), expected, "{length}");
                assert_eq!(byte_by_byte(&stream, bounds), expected, "{length}");
            }
        }
        assert_eq!(decode(&[&frame(FIN | BINARY, &[7; 2049])], bounds), fault(vec![], Fault::TooBig));
    }

    /// Autobahn 6.*: text is judged byte by byte, over fragments, and at its end.
    #[test]
    fn text_is_refused_at_its_first_bad_byte() {
        for (payload, at) in [
            (&b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited"[..], 12),
            (b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited", 12),
            (b"\xf4\x90\x80\x80", 1),
            (b"\xf5\x80\x80\x80", 0),
            (b"\xf8\x88\x80\x80\x80", 0),
            (b"\xfc\x84\x80\x80\x80\x80", 0),
            (b"\xe0\x80\xaf", 1),
            (b"\xf0\x80\x80\xaf", 1),
            (b"\xc0\xaf", 0),
            (b"\xc1\xbf", 0),
            (b"\xed\xbf\xbf", 1),
            (b"\xed\xad\xbf\xed\xb0\x80", 1),
            (b"\x80", 0),
            (b"Hello-\xc2\xb5@\xc3\x9f\xc3\xb6\xc3\xa4\xc3\xbc\xc3\xa0\xc3\xa1-UTF-8!!\xff", 29),
            (b"\xe2\x82", 1),
            (b"ab\xf0\x9f\x98", 4),
        ] {
            let one = frame(FIN | TEXT, payload);
            assert_outcome(&one, &(vec![], Some(Fault::BadUtf8)));
            assert_eq!(refused_at(&one), Some(6 + at), "{payload:x?}");

            // The same, cut into fragments at each place: the header of the second is six bytes.
            for cut in 0..=payload.len() {
                let (first, second) = payload.split_at(cut);
                let two = frames(&[(TEXT, first), (FIN | CONTINUE, second)]);
                assert_eq!(whole(&two), (vec![], Some(Fault::BadUtf8)));
                // What is only short is known at the end of the last header when nothing follows it.
                let expected = match at {
                    at if second.is_empty() && std::str::from_utf8(first).unwrap_err().error_len().is_none() => at + 12,
                    at if at < cut => at + 6,
                    at => at + 12,
                };
                assert_eq!(refused_at(&two), Some(expected), "{payload:x?} cut at {cut}");
            }

            // The bad byte is known though its frame is far from complete.
            if std::str::from_utf8(payload).unwrap_err().error_len().is_some() {
                let mut begun = head(FIN | TEXT, 60_000, KEY);
                begun.extend(masked(payload, KEY));
                assert_outcome(&begun, &(vec![], Some(Fault::BadUtf8)));
                assert_eq!(refused_at(&begun), Some(8 + at), "{payload:x?}");
            }
        }
        for good in [
            "\0",
            "\u{7f}",
            "\u{80}",
            "\u{7ff}",
            "\u{800}",
            "\u{d7ff}",
            "\u{e000}",
            "\u{fffd}",
            "\u{ffff}",
            "\u{10000}",
            "\u{10ffff}",
        ] {
            assert_outcome(&frame(FIN | TEXT, good.as_bytes()), &(vec![text(good)], None));
        }
        // Binary is nobody's text.
        assert_outcome(&frame(FIN | BINARY, b"\xff\xfe"), &(vec![Owned::Binary(vec![0xff, 0xfe])], None));
    }

    #[test]
    fn bounds_hold_to_the_byte_and_to_the_fragment() {
        let bounds = Bounds { message: 10, fragments: 3, deflate: false };
        let ok = |text: &str| (vec![Owned::Text(text.to_owned())], None);
        let fault = |fault: Fault| (vec![], Some(fault));
        for (stream, expected) in [
            (frame(FIN | TEXT, b"0123456789"), ok("0123456789")),
            (frame(FIN | TEXT, b"0123456789a"), fault(Fault::TooBig)),
            (frames(&[(TEXT, b"01234"), (FIN | CONTINUE, b"56789")]), ok("0123456789")),
            (frames(&[(TEXT, b"01234"), (FIN | CONTINUE, b"56789a")]), fault(Fault::TooBig)),
            (frames(&[(TEXT, b"0123456789"), (FIN | CONTINUE, b"")]), ok("0123456789")),
            (frames(&[(TEXT, b"a"), (CONTINUE, b"b"), (FIN | CONTINUE, b"c")]), ok("abc")),
            (frames(&[(TEXT, b""), (CONTINUE, b""), (CONTINUE, b""), (CONTINUE, b"")]), fault(Fault::TooManyFragments)),
        ] {
            assert_eq!(decode(&[&stream], bounds), expected);
            assert_eq!(byte_by_byte(&stream, bounds), expected);
        }
        // A control frame has a bound of its own, and is no fragment.
        let ping = frame(FIN | PING, &[1; 125]);
        let pings = [&frame(TEXT, b"a")[..], &ping, &ping, &ping, &ping, &frame(FIN | CONTINUE, b"b")].concat();
        let (messages, verdict) = decode(&[&pings], bounds);
        assert_eq!((messages.len(), messages.last(), verdict), (5, Some(&text("ab")), None));
    }

    /// Threat rows 44 and 46.
    #[test]
    fn memory_follows_what_was_received_and_never_passes_the_bound() {
        let bounds = Bounds { message: 16 << 20, fragments: u32::MAX, deflate: false };
        let mut decoder = Decoder::default();
        let mut header = head(FIN | BINARY, 16 << 20, KEY);
        assert_eq!(decoder.next(&mut header, bounds).unwrap().message, None);
        assert!(decoder.mid_message());
        assert_eq!(decoder.buffered(), 0);
        for received in 1..100_000usize {
            assert_eq!(decoder.next(&mut [0], bounds).unwrap().message, None);
            assert!(received <= decoder.buffered() && decoder.buffered() <= 2 * received);
        }

        let bounds = Bounds { message: 10_000, fragments: u32::MAX, deflate: false };
        let mut decoder = Decoder::default();
        assert_eq!(decoder.next(&mut frame(BINARY, b""), bounds).unwrap().message, None);
        for _ in 0..10_000 {
            assert_eq!(decoder.next(&mut frame(CONTINUE, b"x"), bounds).unwrap().message, None);
            assert!(decoder.buffered() <= bounds.message);
        }
        let mut last = frame(FIN | CONTINUE, b"");
        let step = decoder.next(&mut last, bounds).unwrap();
        assert_eq!(step.message, Some(Message::Binary(&[b'x'; 10_000])));
    }

    #[test]
    fn an_idle_decoder_owns_nothing() {
        for stream in [
            frame(FIN | TEXT, b"Hello"),
            frame(FIN | PING, b"Hello"),
            frame(FIN | BINARY, &[0; 300]),
            frames(&[(TEXT, b"a"), (CONTINUE, b""), (FIN | CONTINUE, b"b")]),
        ] {
            let mut decoder = Decoder::default();
            for (index, &byte) in stream.iter().enumerate() {
                let is_last = index + 1 == stream.len();
                assert_eq!(decoder.next(&mut [byte], BOUNDS).unwrap().message.is_some(), is_last);
                assert_eq!(decoder.mid_message(), !is_last, "byte {index}");
            }
            assert!(decoder.buffered() > 0, "the message is lent");
            assert_eq!(decoder.next(&mut [], BOUNDS), Ok(Step { consumed: 0, message: None }));
            assert!(decoder.partial.is_none());
            assert_eq!((decoder.buffered(), decoder.mid_message()), (0, false));
        }
    }

    #[test]
    fn a_message_stays_open_through_a_split_control_frame() {
        let mut decoder = Decoder::default();
        let stream = frames(&[(TEXT, b"a"), (FIN | PING, b"ping"), (FIN | CONTINUE, b"b")]);
        let (before, after) = stream.split_at(15);
        assert_eq!(decoder.next(&mut before.to_vec(), BOUNDS).unwrap().message, None);
        let mut after = after.to_vec();
        let step = decoder.next(&mut after, BOUNDS).unwrap();
        assert_eq!(step, Step { consumed: 2, message: Some(Message::Ping(b"ping")) });
        assert!(decoder.mid_message());
        assert_eq!(decoder.next(&mut [], BOUNDS).unwrap().message, None);
        assert_eq!(decoder.buffered(), 1, "the ping is freed, the text is kept");
        let step = decoder.next(&mut after[2..], BOUNDS).unwrap();
        assert_eq!(step.message, Some(Message::Text("ab")));
    }

    #[test]
    fn a_whole_frame_is_lent_from_the_input() {
        let mut stream = frame(FIN | TEXT, b"Hello");
        let lies = stream[6..].as_ptr();
        let mut decoder = Decoder::default();
        let step = decoder.next(&mut stream, BOUNDS).unwrap();
        let Some(Message::Text(text)) = step.message else {
            panic!("{step:?}");
        };
        assert_eq!(text.as_ptr(), lies);
        assert!(decoder.partial.is_none());
    }

    /// One message of a script: how it is cut into fragments, and what is said between them.
    #[derive(Clone, Debug)]
    enum Line {
        Data { message: Owned, cuts: Vec<Index>, pings: Vec<Vec<u8>> },
        Control(Owned),
    }

    fn line() -> impl Strategy<Value = Line> {
        let short = || vec(any::<u8>(), 0..126);
        let message = prop_oneof![
            "\\PC{0,80}".prop_map(Owned::Text),
            "\\PC{0,400}".prop_map(Owned::Text),
            vec(any::<u8>(), 0..300).prop_map(Owned::Binary),
            vec(any::<u8>(), 0..300).prop_map(|bytes| Owned::Deflated(Data::Text, bytes)),
            vec(any::<u8>(), 0..300).prop_map(|bytes| Owned::Deflated(Data::Binary, bytes)),
        ];
        prop_oneof![
            4 => (message, vec(any::<Index>(), 0..4), vec(short(), 0..3))
                .prop_map(|(message, cuts, pings)| Line::Data { message, cuts, pings }),
            1 => short().prop_map(|bytes| Line::Control(Owned::Ping(bytes))),
            1 => short().prop_map(|bytes| Line::Control(Owned::Pong(bytes))),
        ]
    }

    /// Writes a line as a client would; adds to `expected` what is to arrive, in order.
    fn write(line: &Line, key: [u8; 4], out: &mut Vec<u8>, expected: &mut Vec<Owned>) {
        let mut put = |first: u8, payload: &[u8]| {
            out.extend(head(first, payload.len() as u64, key));
            out.extend(masked(payload, key));
        };
        let (message, cuts, pings) = match line {
            Line::Data { message, cuts, pings } => (message, cuts.as_slice(), pings.as_slice()),
            Line::Control(message) => (message, [].as_slice(), [].as_slice()),
        };
        let (opcode, payload) = match message {
            Owned::Text(text) => (TEXT, text.as_bytes()),
            Owned::Binary(bytes) => (BINARY, bytes.as_slice()),
            Owned::Ping(bytes) => (PING, bytes.as_slice()),
            Owned::Pong(bytes) => (PONG, bytes.as_slice()),
            Owned::Deflated(Data::Text, bytes) => (RSV1 | TEXT, bytes.as_slice()),
            Owned::Deflated(_, bytes) => (RSV1 | BINARY, bytes.as_slice()),
            Owned::Close(_) => unreachable!(),
        };
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
        ends.sort_unstable();
        let mut start = 0;
        for (index, &end) in ends.iter().enumerate() {
            put(if index == 0 { opcode } else { CONTINUE }, &payload[start..end]);
            start = end;
            if let Some(ping) = pings.get(index) {
                put(FIN | PING, ping);
                expected.push(Owned::Ping(ping.clone()));
            }
        }
        put(FIN | if ends.is_empty() { opcode } else { CONTINUE }, &payload[start..]);
        expected.push(message.clone());
    }

    /// Cuts a stream into pieces of the given sizes, over and over.
    fn pieces<'a>(stream: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
        let mut rest = stream;
        let mut sizes = sizes.iter().cycle();
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces
    }

    fn sizes() -> impl Strategy<Value = Vec<usize>> {
        vec(prop_oneof![Just(1usize), 1usize..20, 1usize..2000], 1..10)
    }

    proptest! {
        #[test]
        fn what_a_client_sends_is_what_arrives(
            script in vec((line(), any::<[u8; 4]>()), 0..12),
            sizes in sizes(),
        ) {
            let (mut stream, mut expected) = (Vec::new(), Vec::new());
            for (line, key) in &script {
                write(line, *key, &mut stream, &mut expected);
            }
            let agreed = Bounds { deflate: true, ..BOUNDS };
            prop_assert_eq!(decode(&pieces(&stream, &sizes), agreed), (expected, None));
        }

        #[test]
        fn noise_never_panics_and_the_verdict_does_not_depend_on_the_cuts(
            stream in vec(any::<u8>(), 0..400),
            sizes in sizes(),
        ) {
            for bounds in [BOUNDS, Bounds { deflate: true, ..BOUNDS }] {
                prop_assert_eq!(decode(&pieces(&stream, &sizes), bounds), decode(&[&stream], bounds));
            }
        }
    }

    /// Reads from a fixed stream; what is written is nobody's business.
    #[derive(Debug)]
    struct Tape(Cursor<Vec<u8>>);

    impl Read for Tape {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(out)
        }
    }

    impl Write for Tape {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    const PEER_BOUNDS: Bounds = Bounds { message: 2000, fragments: u32::MAX, deflate: false };

    /// What tungstenite makes of the stream: its messages up to the first close, and whether it refused.
    fn peer(stream: &[u8]) -> (Vec<Owned>, bool) {
        use tungstenite::error::{Error, ProtocolError};
        let config = WebSocketConfig::default()
            .max_message_size(Some(PEER_BOUNDS.message))
            .max_frame_size(Some(PEER_BOUNDS.message))
            .read_buffer_size(4096);
        let tape = Tape(Cursor::new(stream.to_vec()));
        let mut socket = WebSocket::from_raw_socket(tape, Role::Server, Some(config));
        let mut messages = Vec::new();
        loop {
            messages.push(match socket.read() {
                Ok(tungstenite::Message::Text(text)) => Owned::Text(text.as_str().to_owned()),
                Ok(tungstenite::Message::Binary(bytes)) => Owned::Binary(bytes.to_vec()),
                Ok(tungstenite::Message::Ping(bytes)) => Owned::Ping(bytes.to_vec()),
                Ok(tungstenite::Message::Pong(bytes)) => Owned::Pong(bytes.to_vec()),
                // Its way to refuse a close code is to say so itself.
                Ok(tungstenite::Message::Close(Some(frame))) if frame.reason.as_str() == "Protocol violation" => {
                    return (messages, true);
                }
                Ok(tungstenite::Message::Close(frame)) => {
                    messages
                        .push(Owned::Close(frame.map(|frame| (frame.code.into(), frame.reason.as_str().to_owned()))));
                    return (messages, false);
                }
                Ok(tungstenite::Message::Frame(_)) => unreachable!(),
                Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
                    return (messages, false);
                }
                Err(_) => return (messages, true),
            });
        }
    }

    /// A frame that may be wrong in any way.
    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        let first = prop_oneof![
            6 => prop::sample::select(vec![FIN | TEXT, FIN | BINARY, FIN | PING, FIN | PONG]),
            6 => prop::sample::select(vec![TEXT, BINARY, CONTINUE, FIN | CONTINUE]),
            1 => Just(FIN | CLOSE),
            1 => any::<u8>(),
        ];
        let payload = prop_oneof![
            6 => "\\PC{0,40}".prop_map(String::into_bytes),
            2 => vec(any::<u8>(), 0..200),
            1 => vec(Just(b'x'), 500..2100),
            1 => (990u16..5010, "\\PC{0,20}")
                .prop_map(|(code, reason)| [&code.to_be_bytes()[..], reason.as_bytes()].concat()),
        ];
        let key = prop_oneof![20 => any::<[u8; 4]>().prop_map(Some), 1 => Just(None)];
        (first, payload, key, vec((any::<Index>(), any::<u8>()), 0..2), 0..20u8).prop_map(
            |(first, payload, key, edits, dice)| {
                let mut out = head(first, payload.len() as u64, key.unwrap_or_default());
                match key {
                    Some(key) => out.extend(masked(&payload, key)),
                    None => {
                        out[1] &= 0x7f;
                        out.truncate(out.len() - 4);
                        out.extend(payload);
                    }
                }
                for (at, byte) in edits {
                    if dice == 0 {
                        let at = at.index(out.len());
                        out[at] = byte;
                    }
                }
                out
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// The same messages and the same verdict as tungstenite, but for what it judges otherwise on purpose: it takes
        /// lengths that are not minimal and refuses the registered close code 1014. It looks at a frame when all of it
        /// has come, so where we refuse and it still waits, the stream is filled up until its frame is complete.
        #[test]
        fn tungstenite_agrees(
            stream in vec(any_frame(), 1..12),
            sizes in sizes(),
            cut in any::<Index>(),
            cut_off in 0..4,
        ) {
            let mut stream = stream.concat();
            if cut_off == 0 {
                stream.truncate(cut.index(stream.len() + 1));
            }
            let (messages, verdict) = decode(&pieces(&stream, &sizes), PEER_BOUNDS);
            // Whatever bears no such bit is to a connection that has agreed on compressing what it is to any other.
            if verdict != Some(Fault::ReservedBits) {
                let agreed = Bounds { deflate: true, ..PEER_BOUNDS };
                prop_assert_eq!(decode(&pieces(&stream, &sizes), agreed), (messages.clone(), verdict));
            }
            let (mut theirs, mut refused) = peer(&stream);
            // A control frame that announces a longer length field is too long at once; tungstenite reads on, and may find a
            // length there that is not minimal.
            if matches!(verdict, Some(Fault::LengthNotMinimal | Fault::ControlTooLong)) {
                prop_assert!(theirs.starts_with(&messages));
                return Ok(());
            }
            if let Some((Owned::Close(Some((1014, _))), before)) = messages.split_last() {
                prop_assert_eq!((before, true), (theirs.as_slice(), refused));
                return Ok(());
            }
            if verdict.is_some() && !refused {
                let closed = matches!(theirs.last(), Some(Owned::Close(_)));
                prop_assert!(!closed, "{:?} refused, taken by tungstenite", verdict);
                stream.resize(stream.len() + PEER_BOUNDS.message + HEADER_BYTES_MAX, 1);
                (theirs, refused) = peer(&stream);
            }
            prop_assert_eq!(&messages, &theirs);
            prop_assert_eq!(verdict.is_some(), refused, "{:?}", verdict);
        }
    }
}
