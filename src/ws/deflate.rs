//! permessage-deflate (RFC 7692): what was compressed is inflated within bounds, and frames of ours are given their
//! compressed form.
//!
//! ```text
//! Message::Deflated ─▶ Inflater ─▶ the payload, or a Fault      checked while it grows
//! whole frames      ─▶ Deflater ─▶ the same frames, compressed where that makes them shorter
//! ```
//!
//! Each message is compressed for itself (http/extensions.rs), so one of each serves all connections of a reactor: both
//! begin anew with every message, and a connection owns nothing of them. The state of zlib is made with the first message
//! and not before.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::close::Fault;
use super::decoder::{self, Message};
use super::{Data, OpCode, frame};
use crate::http::Window;
use crate::limits::{DEFLATE_FLOOR_BYTES, DEFLATE_RATIO_MAX, SCRATCH_BYTES};

/// The first byte's bit that marks a compressed message.
pub const COMPRESSED: u8 = 0x40;

/// The end of a block that sender and receiver leave out (RFC 7692, 7.2.1).
const BLOCK_END: [u8; 4] = [0, 0, 0xff, 0xff];
/// What the receiver puts in its place, and an empty last block behind it: only if a message was whole does zlib find the
/// end there, and nowhere else. Without it, the front half of a message would pass for a message.
const MESSAGE_END: [u8; 9] = [0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff];

/// The receiving half.
#[derive(Debug, Default)]
pub struct Inflater {
    zlib: Option<Decompress>,
    /// As long as it ever had to be since the last release; only its front is of the last message.
    buffer: Vec<u8>,
    inflated: usize,
}

impl Inflater {
    /// The message that `compressed` stands for. A text is judged when all of it is there.
    pub fn message(&mut self, kind: Data, compressed: &[u8], most: usize) -> Result<Message<'_>, Fault> {
        let payload = self.inflate(compressed, most)?;
        match kind {
            Data::Text => decoder::text(payload),
            _ => Ok(Message::Binary(payload)),
        }
    }

    /// The payload that `compressed` stands for. It is never longer than `most` bytes, nor than what its compressed form
    /// may grow to (threat row 55): at the first byte more, nothing further is inflated.
    fn inflate(&mut self, compressed: &[u8], most: usize) -> Result<&[u8], Fault> {
        let grown = DEFLATE_FLOOR_BYTES.max(compressed.len().saturating_mul(DEFLATE_RATIO_MAX));
        let (most, fault) = if grown < most { (grown, Fault::InflatesTooFar) } else { (most, Fault::TooBig) };
        let result = if compressed.is_empty() { Ok(0) } else { self.run(compressed, most, fault) };
        let length = result?;
        Ok(self.buffer.get(..length).unwrap_or_default())
    }

    /// Bytes inflated since the last call, also of what was refused.
    pub fn take_inflated(&mut self) -> usize {
        std::mem::take(&mut self.inflated)
    }

    /// The payload was used: what a large one needed is not kept.
    pub fn release(&mut self) {
        if self.buffer.len() > SCRATCH_BYTES {
            self.buffer = Vec::new();
        }
    }

    fn run(&mut self, compressed: &[u8], most: usize, too_long: Fault) -> Result<usize, Fault> {
        let zlib = match &mut self.zlib {
            Some(zlib) => {
                zlib.reset(false);
                zlib
            }
            None => self.zlib.insert(Decompress::new(false)),
        };
        let mut written = 0;
        let mut rest = compressed;
        let mut behind: &[u8] = &MESSAGE_END;
        loop {
            if written == self.buffer.len() {
                let longer = self.buffer.len().max(compressed.len()).saturating_mul(2).min(most + 1);
                self.buffer.resize(longer.max(written + 1), 0);
            }
            let end = self.buffer.len().min(most + 1);
            let Some(free) = self.buffer.get_mut(written..end).filter(|free| !free.is_empty()) else {
                return Err(too_long);
            };
            let before = (zlib.total_in(), zlib.total_out());
            let input = if rest.is_empty() { &mut behind } else { &mut rest };
            let status = zlib.decompress(input, free, FlushDecompress::None).map_err(|_| Fault::BadDeflate)?;
            let (taken, given) = ((zlib.total_in() - before.0) as usize, (zlib.total_out() - before.1) as usize);
            *input = input.get(taken..).unwrap_or_default();
            written += given;
            self.inflated += given;
            if written > most {
                return Err(too_long);
            }
            match status {
                Status::StreamEnd if is_end(rest, behind) => return Ok(written),
                Status::StreamEnd => return Err(Fault::BadDeflate),
                Status::Ok | Status::BufError if taken == 0 && given == 0 => return Err(Fault::BadDeflate),
                Status::Ok | Status::BufError => {}
            }
        }
    }
}

/// Whether a message ends where zlib found a last block's end: in ours, at the end of all; in one of the peer's, whose end it
/// left out; or behind one that it did not leave out, with at most the byte that begins the empty one after it (RFC 7692,
/// 7.2.3.4).
fn is_end(rest: &[u8], behind: &[u8]) -> bool {
    const AFTER_BLOCK_END: usize = MESSAGE_END.len() - BLOCK_END.len();
    match behind.len() {
        0 | AFTER_BLOCK_END => true,
        length => length == MESSAGE_END.len() && matches!(rest, [] | [0]),
    }
}

/// The sending half.
#[derive(Debug)]
pub struct Deflater {
    level: u8,
    /// One for each window, made when it is first needed.
    zlibs: [Option<Compress>; Window::ALL.len()],
    spare: Vec<u8>,
    deflated: u64,
}

impl Deflater {
    /// `level` is from 1, fast, to 9, thorough.
    pub fn new(level: u8) -> Deflater {
        Deflater { level, zlibs: Default::default(), spare: Vec::new(), deflated: 0 }
    }

    pub fn level(&self) -> u8 {
        self.level
    }

    /// Messages compressed since the last call.
    pub fn take_deflated(&mut self) -> u64 {
        std::mem::take(&mut self.deflated)
    }

    /// The window that a message of this length needs of those that a client takes. A smaller one serves every client, so
    /// most messages of a room of different clients are compressed only once.
    pub fn window_for(length: usize, window: Window) -> Window {
        // zlib refers to nothing that is less than this away from leaving its window.
        const LOOKAHEAD: usize = 262;
        let fits = |window: &Window| length + LOOKAHEAD <= 1 << window.bits();
        Window::ALL.into_iter().find(fits).unwrap_or(Window::Full).min(window)
    }

    /// Whole frames of ours, with each data message from `threshold` bytes on in its compressed form where that is shorter.
    /// `None` when there is no such message: then what there is goes to everybody.
    pub fn pack(&mut self, frames: &[u8], threshold: usize, window: Window) -> Option<Vec<u8>> {
        let mut out: Option<Vec<u8>> = None;
        let mut rest = frames;
        while !rest.is_empty() {
            let used = frames.len() - rest.len();
            let Some((first, payload, behind)) = split_frame(rest) else {
                debug_assert!(false, "our frames are whole");
                break;
            };
            let whole = rest.get(..rest.len() - behind.len()).unwrap_or(rest);
            rest = behind;
            let shorter = is_message(first) && payload.len() >= threshold && self.deflate(payload, window);
            if shorter {
                let out = out.get_or_insert_with(|| frames.get(..used).unwrap_or_default().to_vec());
                frame::put_with(out, first | COMPRESSED, &self.spare);
            } else if let Some(out) = &mut out {
                out.extend_from_slice(whole);
            }
        }
        if self.spare.capacity() > SCRATCH_BYTES {
            self.spare = Vec::new();
        }
        out
    }

    /// Compresses one message into `spare`. False when that makes it no shorter.
    fn deflate(&mut self, payload: &[u8], window: Window) -> bool {
        let window = Deflater::window_for(payload.len(), window);
        let slot = &mut self.zlibs[window as usize];
        let zlib = match slot {
            Some(zlib) => {
                zlib.reset();
                zlib
            }
            None => {
                let level = Compression::new(u32::from(self.level));
                slot.insert(Compress::new_with_window_bits(level, false, window.bits()))
            }
        };
        self.deflated += 1;
        self.spare.clear();
        // Room for the worst there is, although only what is shorter is of use: zlib-rs 0.6 does not forget how far it had
        // come with writing when it is reset, and panics some messages later if it could not write everything.
        self.spare.reserve_exact(compressed_bytes_max(payload.len()));
        let done = zlib.compress_vec(payload, &mut self.spare, FlushCompress::Sync);
        // Room left over is zlib's own sign that it has written everything.
        let whole = done.is_ok() && self.spare.len() < self.spare.capacity();
        if !whole {
            *slot = None;
        }
        let length = self.spare.len().saturating_sub(BLOCK_END.len());
        let ended = whole && self.spare.ends_with(&BLOCK_END);
        self.spare.truncate(length);
        ended && length < payload.len()
    }
}

/// The most bytes that a message may be compressed to, and one more: at its fastest zlib spends nine bits on a byte that it
/// cannot compress.
pub(super) const fn compressed_bytes_max(length: usize) -> usize {
    length.saturating_add(length / 8 + 64)
}

/// A text or binary message in one frame, which is how we send them.
fn is_message(first: u8) -> bool {
    let opcode = OpCode::from(first & 0x0f);
    first & 0xf0 == 0x80 && matches!(opcode, OpCode::Data(Data::Text | Data::Binary))
}

/// The first byte of the first frame of ours, its payload, and what is behind it.
fn split_frame(frames: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&first, rest) = frames.split_first()?;
    let (&short, rest) = rest.split_first()?;
    let (length, rest) = match short {
        126 => rest.split_first_chunk::<2>().map(|(bytes, rest)| (u64::from(u16::from_be_bytes(*bytes)), rest))?,
        127 => rest.split_first_chunk::<8>().map(|(bytes, rest)| (u64::from_be_bytes(*bytes), rest))?,
        short => (u64::from(short), rest),
    };
    let (payload, behind) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    Some((first, payload, behind))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const MESSAGE: usize = 1 << 20;

    /// A peer's compressed form of one message: zlib by itself, with another level, window and flush each time.
    fn peer_deflates(payload: &[u8], level: u32, window_bits: u8) -> Vec<u8> {
        let mut zlib = Compress::new_with_window_bits(Compression::new(level), false, window_bits);
        let mut out = Vec::with_capacity(payload.len() + payload.len() / 8 + 64);
        zlib.compress_vec(payload, &mut out, FlushCompress::Sync).unwrap();
        assert_eq!(zlib.total_in(), payload.len() as u64);
        assert!(out.len() < out.capacity());
        out.truncate(out.len() - BLOCK_END.len());
        out
    }

    /// What a peer with this window makes of a compressed message of ours.
    fn peer_inflates(compressed: &[u8], window_bits: u8) -> Vec<u8> {
        let mut zlib = Decompress::new_with_window_bits(false, window_bits);
        let mut out = Vec::with_capacity(1 << 22);
        let whole = [compressed, &BLOCK_END].concat();
        zlib.decompress_vec(&whole, &mut out, FlushDecompress::Sync).unwrap();
        assert_eq!(zlib.total_in(), whole.len() as u64);
        out
    }

    fn inflate(compressed: &[u8], most: usize) -> Result<Vec<u8>, Fault> {
        Inflater::default().inflate(compressed, most).map(<[u8]>::to_vec)
    }

    fn json(rows: usize) -> String {
        (0..rows).map(|row| format!(r#"{{"seq":{row},"type":"progress","by":"user-{}"}}"#, row * 7919 % 97)).collect()
    }

    /// Bytes that no zlib makes shorter.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..length).map(|_| next()).collect()
    }

    /// RFC 7692, 7.2.3.
    #[test]
    fn the_examples_of_the_rfc() {
        for (what, compressed) in [
            ("one block", &b"\xf2\x48\xcd\xc9\xc9\x07\x00"[..]),
            ("no compression", b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00"),
            ("a last block", b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00"),
            ("a last block and nothing", b"\xf3\x48\xcd\xc9\xc9\x07\x00"),
            ("two blocks", b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"),
            ("an end that says it is the last", b"\xf2\x48\xcd\xc9\xc9\x07\x00\x00\x00\xff\xff\x01"),
        ] {
            assert_eq!(inflate(compressed, MESSAGE).as_deref(), Ok(&b"Hello"[..]), "{what}");
            assert_eq!(inflate(compressed, 5).as_deref(), Ok(&b"Hello"[..]), "{what}");
            assert_eq!(inflate(compressed, 4), Err(Fault::TooBig), "{what}");
        }
        assert_eq!(inflate(b"\x00", MESSAGE).as_deref(), Ok(&b""[..]));
        assert_eq!(inflate(b"", MESSAGE).as_deref(), Ok(&b""[..]), "some say nothing for nothing");
    }

    #[test]
    fn what_is_not_whole_or_goes_on_behind_its_end_is_damaged() {
        let whole = peer_deflates(json(40).as_bytes(), 6, 15);
        for cut in 1..whole.len() {
            assert_eq!(inflate(&whole[..cut], MESSAGE), Err(Fault::BadDeflate), "cut at {cut} of {}", whole.len());
        }
        for (what, compressed) in [
            ("no deflate", &b"\xff\xff\xff\xff"[..]),
            ("a reserved kind of block", b"\x06"),
            ("a length that does not agree with itself", b"\x00\x05\x00\x05\x00Hello"),
            ("a distance before the beginning", b"\x4b\x04\x62\x00"),
            ("bytes behind the last block", b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00\x00"),
            ("a message behind the last block", b"\xf3\x48\xcd\xc9\xc9\x07\x00\xf2\x48\xcd\xc9\xc9\x07\x00"),
        ] {
            assert_eq!(inflate(compressed, MESSAGE), Err(Fault::BadDeflate), "{what}");
        }
    }

    /// Threat row 55.
    #[test]
    fn a_bomb_is_put_out_at_the_first_byte_too_many() {
        let zeros = |length: usize| peer_deflates(&vec![0; length], 9, 15);
        let mut inflater = Inflater::default();
        // Its compressed form is a thousandth.
        let bomb = zeros(16 << 20);
        assert!(bomb.len() < 20_000);
        assert_eq!(inflater.inflate(&bomb, 16 << 20), Err(Fault::InflatesTooFar));
        let allowed = bomb.len() * DEFLATE_RATIO_MAX;
        assert_eq!(inflater.take_inflated(), allowed + 1, "and nothing further");
        assert!(inflater.buffer.len() <= allowed + 1);
        // Where a message's own bound is the nearer one, that is what it passes.
        assert_eq!(inflater.inflate(&bomb, 10_000), Err(Fault::TooBig));
        assert_eq!(inflater.take_inflated(), 10_001);
        // What is short may repeat itself as much as it likes.
        for length in [1, 4096, DEFLATE_FLOOR_BYTES] {
            assert_eq!(inflater.inflate(&zeros(length), MESSAGE), Ok(&vec![0; length][..]), "{length}");
        }
        assert_eq!(inflater.inflate(&zeros(DEFLATE_FLOOR_BYTES + 1), MESSAGE), Err(Fault::InflatesTooFar));
        // To the byte, by whichever bound.
        let text = json(2000);
        let compressed = peer_deflates(text.as_bytes(), 6, 15);
        assert_eq!(inflater.inflate(&compressed, text.len()), Ok(text.as_bytes()));
        assert_eq!(inflater.inflate(&compressed, text.len() - 1), Err(Fault::TooBig));
        // After each of them the next message is as if it were the first.
        assert_eq!(inflater.inflate(b"\xf2\x48\xcd\xc9\xc9\x07\x00", MESSAGE), Ok(&b"Hello"[..]));
        inflater.release();
        assert!(inflater.buffer.len() <= SCRATCH_BYTES);
    }

    #[test]
    fn a_message_that_cannot_be_compressed_may_have_its_full_length() {
        for length in [MESSAGE, 16 << 20] {
            let payload = noise(length);
            for level in [1, 6, 9] {
                let compressed = peer_deflates(&payload, level, 15);
                assert!(compressed.len() > length && compressed.len() < compressed_bytes_max(length));
                assert!(inflate(&compressed, length) == Ok(payload.clone()), "{length} at level {level}");
            }
        }
    }

    #[test]
    fn a_text_is_judged_as_it_was_meant() {
        let mut inflater = Inflater::default();
        let good = peer_deflates("κόσμε".as_bytes(), 6, 15);
        assert_eq!(inflater.message(Data::Text, &good, MESSAGE), Ok(Message::Text("κόσμε")));
        let bad = peer_deflates(b"ab\xff", 6, 15);
        assert_eq!(inflater.message(Data::Text, &bad, MESSAGE), Err(Fault::BadUtf8));
        assert_eq!(inflater.message(Data::Binary, &bad, MESSAGE), Ok(Message::Binary(b"ab\xff")));
    }

    /// The messages in frames of ours, whichever form each has, and whether any is compressed.
    fn read(mut frames: &[u8], window_bits: u8) -> (Vec<(u8, Vec<u8>)>, usize) {
        let (mut messages, mut compressed) = (Vec::new(), 0);
        while let Some((first, payload, behind)) = split_frame(frames) {
            let payload = match first & COMPRESSED {
                0 => payload.to_vec(),
                _ => {
                    compressed += 1;
                    let inflated = peer_inflates(payload, window_bits);
                    assert!(payload.len() < inflated.len());
                    inflated
                }
            };
            messages.push((first & !COMPRESSED, payload));
            frames = behind;
        }
        assert!(frames.is_empty());
        (messages, compressed)
    }

    #[test]
    fn messages_are_compressed_where_that_helps_and_control_frames_never() {
        let text = json(30);
        let mut frames = Vec::new();
        frame::put_text(&mut frames, b"short");
        frame::put_text(&mut frames, text.as_bytes());
        frame::put_ping(&mut frames, &[b'x'; 125]);
        frame::put_binary(&mut frames, &noise(2000));
        frame::put_binary(&mut frames, &[0; 70_000]);
        frame::put_close(&mut frames, None);
        for window in Window::ALL {
            let mut deflater = Deflater::new(1);
            let packed = deflater.pack(&frames, 100, window).unwrap();
            let (messages, compressed) = read(&packed, window.bits());
            assert_eq!(messages, read(&frames, 15).0);
            assert_eq!((compressed, deflater.take_deflated()), (2, 3), "the noise was tried");
            assert!(packed.len() < 2000 + text.len());
            assert_eq!(deflater.pack(&packed, 100, window), None, "what is compressed stays as it is");
            assert_eq!(deflater.pack(&frames, 70_001, window), None);
        }
        for nothing in [frame::text(b""), frame::text(b"x"), frame::text(&noise(300)), bytes::Bytes::new()] {
            assert_eq!(Deflater::new(9).pack(&nothing, 0, Window::Full), None);
        }
    }

    /// A message that grew used to be cut off where it was no shorter, and some messages later zlib panicked.
    #[test]
    fn messages_that_cannot_be_compressed_harm_no_later_one() {
        for window in Window::ALL {
            for level in 1..=9 {
                let mut deflater = Deflater::new(level);
                for length in [70_000, 300, 1, 5000, 100_000, 64, 65_536, 2000].repeat(3) {
                    assert_eq!(deflater.pack(&frame::text(&noise(length)), 0, window), None);
                }
                assert!(deflater.pack(&frame::text(json(3000).as_bytes()), 0, window).is_some());
            }
        }
    }

    /// Threat row 57: nothing of one message is in the next, so each can be read by whoever has read none before.
    #[test]
    fn each_message_is_compressed_for_itself() {
        let frame = frame::text(json(30).as_bytes());
        let mut deflater = Deflater::new(6);
        let first = deflater.pack(&frame, 0, Window::Full);
        assert!(first.is_some());
        for _ in 0..5 {
            deflater.pack(&frame::text(&noise(500)), 0, Window::Full);
            assert_eq!(deflater.pack(&frame, 0, Window::Full), first);
        }
    }

    #[test]
    fn a_window_is_no_larger_than_a_client_takes_nor_than_a_message_needs() {
        for (length, window, expected) in [
            (100, Window::Full, Window::Small),
            (250, Window::Full, Window::Small),
            (251, Window::Full, Window::Middle),
            (1000, Window::Middle, Window::Middle),
            (1000, Window::Small, Window::Small),
            (3834, Window::Full, Window::Middle),
            (3835, Window::Full, Window::Full),
            (1 << 20, Window::Full, Window::Full),
            (1 << 20, Window::Small, Window::Small),
        ] {
            assert_eq!(Deflater::window_for(length, window), expected, "{length}");
        }
    }

    fn payload() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            vec(any::<u8>(), 0..2000),
            "[a-c]{0,3000}".prop_map(String::into_bytes),
            (0usize..400).prop_map(|rows| json(rows).into_bytes()),
            (any::<u8>(), 0usize..100_000).prop_map(|(byte, length)| vec![byte; length]),
            (vec(any::<u8>(), 1..600), 1usize..200).prop_map(|(piece, times)| piece.repeat(times)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// zlib itself judges: with the very window that was agreed on, a fresh one for each message.
        #[test]
        fn what_we_compress_a_peer_reads(
            messages in vec((any::<bool>(), payload()), 0..6),
            level in 1u8..=9,
            window in prop::sample::select(&Window::ALL[..]),
            threshold in 0usize..600,
        ) {
            let mut frames = Vec::new();
            for (is_text, payload) in &messages {
                if *is_text { frame::put_text(&mut frames, payload) } else { frame::put_binary(&mut frames, payload) }
            }
            let mut deflater = Deflater::new(level);
            for _ in 0..2 {
                if let Some(packed) = deflater.pack(&frames, threshold, window) {
                    prop_assert!(packed.len() < frames.len());
                    prop_assert_eq!(read(&packed, window.bits()).0, read(&frames, 15).0);
                }
            }
        }

        /// And what it compresses, we read, one inflater for all; or it passes the bound, and is refused for that alone.
        #[test]
        fn what_a_peer_compresses_we_read(
            messages in vec((payload(), 1u32..=9, 9u8..=15), 1..8),
            most in prop_oneof![Just(MESSAGE), 0usize..5000],
        ) {
            let mut inflater = Inflater::default();
            for (payload, level, window_bits) in messages {
                let compressed = peer_deflates(&payload, level, window_bits);
                let allowed = DEFLATE_FLOOR_BYTES.max(compressed.len() * DEFLATE_RATIO_MAX);
                let expected = match payload.len() {
                    length if length > most.min(allowed) => {
                        Err(if allowed < most { Fault::InflatesTooFar } else { Fault::TooBig })
                    }
                    _ => Ok(payload.as_slice()),
                };
                prop_assert_eq!(inflater.inflate(&compressed, most), expected);
                inflater.release();
            }
        }

        #[test]
        fn noise_never_panics_and_stays_within_its_bounds(noise in vec(any::<u8>(), 0..300), most in 0usize..40_000) {
            if let Ok(payload) = inflate(&noise, most) {
                prop_assert!(payload.len() <= most.min(DEFLATE_FLOOR_BYTES.max(noise.len() * DEFLATE_RATIO_MAX)));
            }
        }
    }
}
