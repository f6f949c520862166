//! permessage-deflate. An offer is agreed to within its own bounds, and the answer says so; whatever is inflated stays
//! within the bounds, is what zlib makes of it at one go, and leaves nothing behind for the next message; and what we
//! compress a client can read.

use commitcast::http::{Window, extensions};
use commitcast::limits::{DEFLATE_FLOOR_BYTES, DEFLATE_RATIO_MAX};
use commitcast::ws::deflate::COMPRESSED;
use commitcast::ws::{Data, Deflater, Fault, Inflater, Message, frame};
use flate2::{Decompress, FlushDecompress, Status};

use crate::input::Input;

pub fn deflate(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 3 {
        0 => offers(input.rest()),
        1 => inflate(input),
        _ => pack(input),
    }
}

// ---- offers ---------------------------------------------------------------------------------------------------------

fn offers(bytes: &[u8]) {
    let text: String = bytes.iter().map(|byte| char::from(byte & 0x7f)).filter(|it| !it.is_control()).collect();
    let lines: Vec<&str> = text.split('~').collect();
    let agreed = extensions::agree(lines.iter().copied());
    // Quotation marks may hide commas and semicolons; the second reading knows none of that.
    if !text.contains('"') {
        let expected = lines.iter().flat_map(|line| line.split(',')).find_map(second_reading);
        assert_eq!(agreed.map(|it| (it.window, it.answer().contains("max_window_bits"))), expected, "{text}");
    }
    if let Some(agreed) = agreed {
        let answer = agreed.answer();
        let wanted = ["permessage-deflate", "server_no_context_takeover", "client_no_context_takeover"];
        assert!(wanted.iter().all(|word| answer.contains(word)) && text.contains("permessage-deflate"), "{text}");
    }
}

/// The window, and whether the client asked for a bound of it.
fn second_reading(offer: &str) -> Option<(Window, bool)> {
    let space = [' ', '\t'];
    let mut parts = offer.split(';').map(|part| part.trim_matches(space));
    if parts.next() != Some("permessage-deflate") {
        return None;
    }
    let mut parameters: Vec<(&str, Option<&str>)> = Vec::new();
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim_matches(space), Some(value.trim_matches(space))),
            None => (part, None),
        };
        let bits: Vec<String> = (8..=15).map(|bits| bits.to_string()).collect();
        let is_bits = |value: &str| bits.iter().any(|bits| bits == value);
        let is_good = match (name, value) {
            ("server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits", None) => true,
            ("server_max_window_bits" | "client_max_window_bits", Some(value)) => is_bits(value),
            _ => false,
        };
        if !is_good || parameters.iter().any(|(known, _)| *known == name) {
            return None;
        }
        parameters.push((name, value));
    }
    let bound = parameters.iter().find(|(name, _)| *name == "server_max_window_bits").and_then(|(_, value)| *value);
    let window = match bound {
        None | Some("15") => Window::Full,
        Some("12" | "13" | "14") => Window::Middle,
        Some("9" | "10" | "11") => Window::Small,
        Some(_) => return None,
    };
    Some((window, bound.is_some()))
}

// ---- what comes in --------------------------------------------------------------------------------------------------

fn inflate(mut input: Input<'_>) {
    let most = input.pick(&[0, 100, 4096, 300_000]);
    let kind = input.pick(&[Data::Text, Data::Binary]);
    let times = 1 + input.below(3);
    let compressed = input.rest().repeat(times);
    let mut inflater = Inflater::default();
    let bound = most.min(DEFLATE_FLOOR_BYTES.max(compressed.len() * DEFLATE_RATIO_MAX));
    let expected = at_one_go(&compressed, bound);
    for round in 0..2 {
        let found = inflater.message(kind, &compressed, most).map(|message| match message {
            Message::Text(text) => text.as_bytes().to_vec(),
            Message::Binary(bytes) => bytes.to_vec(),
            other => panic!("{other:?}"),
        });
        match (&found, &expected) {
            (Ok(payload), Some(expected)) => assert_eq!(payload, expected),
            (Ok(_), None) => panic!("taken, although zlib finds no whole message within {bound}"),
            (Err(Fault::BadUtf8), Some(expected)) => {
                assert!(kind == Data::Text && std::str::from_utf8(expected).is_err());
            }
            (Err(Fault::BadDeflate | Fault::TooBig | Fault::InflatesTooFar), None) => {}
            (Err(fault), expected) => panic!("{fault}, and zlib says {expected:?}"),
        }
        assert!(inflater.take_inflated() <= bound + 1, "more was inflated than it takes to refuse it");
        inflater.release();
        // And what came before is forgotten.
        let known = [0x4a, 0x4c, 0x4a, 0x06, 0x00];
        assert_eq!(inflater.message(Data::Text, &known, 100), Ok(Message::Text("abc")), "in round {round}");
        inflater.take_inflated();
    }
}

/// The same with room for everything, and all of the input in one piece. None: it is no whole message, or too long.
fn at_one_go(compressed: &[u8], bound: usize) -> Option<Vec<u8>> {
    if compressed.is_empty() {
        return Some(Vec::new());
    }
    let whole = [compressed, &[0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff]].concat();
    let mut zlib = Decompress::new(false);
    let mut out = Vec::with_capacity(bound + 1);
    while out.len() < out.capacity() {
        let before = (zlib.total_in(), zlib.total_out());
        match zlib.decompress_vec(&whole[before.0 as usize..], &mut out, FlushDecompress::None).ok()? {
            Status::StreamEnd => {
                let used = zlib.total_in() as usize;
                // A last block of the peer's own ends where its message does, or a byte before.
                let is_end = used == whole.len()
                    || used == compressed.len() + 4
                    || used == compressed.len()
                    || (used + 1 == compressed.len() && compressed[used] == 0);
                return Some(out).filter(|out| is_end && out.len() <= bound);
            }
            _ if (zlib.total_in(), zlib.total_out()) == before => return None,
            _ => {}
        }
    }
    None
}

// ---- what goes out --------------------------------------------------------------------------------------------------

fn pack(mut input: Input<'_>) {
    let window = input.pick(&Window::ALL);
    let threshold = input.pick(&[0, 10, 200]);
    let mut deflater = Deflater::new(1 + input.below(9) as u8);
    let mut frames = Vec::new();
    while !input.is_empty() {
        let kind = input.byte();
        let times = 1 + input.below(40);
        let payload = input.take(usize::from(kind >> 2)).repeat(times);
        match kind & 3 {
            0 => frame::put_binary(&mut frames, &payload),
            1 => frame::put_ping(&mut frames, &payload[..payload.len().min(frame::CONTROL_BYTES_MAX)]),
            _ => frame::put_text(&mut frames, String::from_utf8_lossy(&payload).as_bytes()),
        }
    }
    let Some(packed) = deflater.pack(&frames, threshold, window) else { return };
    assert!(packed.len() < frames.len(), "packed to be shorter");
    let mut inflater = Inflater::default();
    let (mut plain, mut rest) = (&frames[..], &packed[..]);
    while let Some((first, payload)) = next(&mut plain) {
        let Some((packed_first, packed_payload)) = next(&mut rest) else { panic!("a frame is gone") };
        assert_eq!(packed_first & !COMPRESSED, first);
        if packed_first & COMPRESSED == 0 {
            assert_eq!(packed_payload, payload);
            continue;
        }
        assert!(payload.len() >= threshold && packed_payload.len() < payload.len());
        // As a client has it: without bounds of proportion.
        assert_eq!(at_one_go(packed_payload, payload.len()).as_deref(), Some(payload));
        if payload.len() <= packed_payload.len() * DEFLATE_RATIO_MAX {
            assert_eq!(inflater.message(Data::Binary, packed_payload, payload.len()), Ok(Message::Binary(payload)));
        }
    }
    assert!(rest.is_empty());
}

/// The first byte and the payload of the frame at the front, which is ours.
fn next<'f>(frames: &mut &'f [u8]) -> Option<(u8, &'f [u8])> {
    let (first, payload, used) = crate::served::frame(frames)?;
    *frames = &frames[used..];
    Some((first, payload))
}
