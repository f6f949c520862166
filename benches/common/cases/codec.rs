//! Bytes in: request heads, tokens, frames, and the machine of one connection.

use std::hint::black_box;
use std::sync::Arc;

use commitcast::auth;
use commitcast::auth::token::{self, Algorithm, KeyRing, Mint, Rules};
use commitcast::clock::{Mono, Wall};
use commitcast::conn::{Asked, Connection, Framing, Step};
use commitcast::dialect::{Intent, Name};
use commitcast::http::{head, upgrade};
use commitcast::limits::Limits;
use commitcast::ws::Inflater;
use commitcast::ws::decoder::{Bounds, Decoder};
use commitcast::ws::frame;
use commitcast::ws::mask::unmask;
use commitcast::ws::utf8::Checker;

use super::{Case, Run, case};
use crate::common::house::{NOW, SECRET};
use crate::common::{talk, texts};

pub const CASES: &[Case] = &[
    case("http/upgrade", 1, 200, || upgrade()),
    case("auth/hs256", 1, 100, || hs256()),
    case("ws/decode_16", 1, 1000, || decode(16, 1)),
    case("ws/decode_256", 1, 1000, || decode(256, 1)),
    case("ws/decode_4k", 1, 200, || decode(4 << 10, 1)),
    case("ws/decode_64k", 1, 20, || decode(64 << 10, 1)),
    case("ws/decode_256_split", 1, 200, || decode(256, 2)),
    case("ws/decode_4k_split", 1, 200, || decode(4 << 10, 2)),
    case("ws/decode_64k_split", 1, 20, || decode(64 << 10, 45)),
    case("ws/unmask_4k", 1, 200, || mask(4 << 10)),
    case("ws/utf8_64", 1, 1000, || utf8(64)),
    case("ws/utf8_4k", 1, 200, || utf8(4 << 10)),
    case("ws/encode_256", 1, 1000, || encode(256)),
    case("conn/ping", 1, 1000, || ping()),
    case("copy/4k", 1, 1000, || copy(4 << 10)),
];

/// A browser's handshake, read and checked.
fn upgrade() -> Run {
    let request = texts::browser_upgrade("/api/v1/ws?session_id=00000000-0000-4000-9000-000000000001").into_bytes();
    Box::new(move || {
        let (head, _) = head::parse(black_box(&request)).unwrap().unwrap();
        black_box(upgrade::check(&head).unwrap());
    })
}

fn hs256() -> Run {
    let mut ring = KeyRing::new(Rules::default());
    ring.add(None, Algorithm::Hs256, SECRET.as_bytes()).unwrap();
    let token = token::mint(SECRET.as_bytes(), &Mint { sub: "ada", ..Mint::default() }, Wall(NOW)).unwrap();
    Box::new(move || {
        black_box(ring.verify(black_box(&token), Wall(NOW)).unwrap());
    })
}

/// A text frame of so many bytes that comes in so many reads.
fn decode(bytes: usize, reads: usize) -> Run {
    let frame = texts::text_frame(&texts::prose(bytes));
    let piece = frame.len().div_ceil(reads);
    let mut decoder = Decoder::default();
    let mut scratch = vec![0; frame.len()];
    let bounds = Bounds { message: 1 << 20, fragments: 64, deflate: false };
    Box::new(move || {
        let mut messages = 0;
        for (from, into) in frame.chunks(piece).zip(scratch.chunks_mut(piece)) {
            into.copy_from_slice(from);
            let step = decoder.next(into, bounds).unwrap();
            messages += usize::from(black_box(step.message).is_some());
        }
        decoder.release();
        assert_eq!(messages, 1);
    })
}

fn mask(bytes: usize) -> Run {
    let mut payload = texts::prose(bytes).into_bytes();
    Box::new(move || unmask(black_box(&mut payload), [0x37, 0xfa, 0x21, 0x3d], 0))
}

fn utf8(bytes: usize) -> Run {
    let text = texts::prose(bytes);
    Box::new(move || {
        let mut checker = Checker::default();
        checker.feed(black_box(text.as_bytes())).unwrap();
        checker.finish().unwrap();
    })
}

fn encode(bytes: usize) -> Run {
    let text = texts::prose(bytes);
    Box::new(move || {
        black_box(frame::text(black_box(text.as_bytes())));
    })
}

/// One `tickets` ping through the machine of its connection, to the bytes of its reply.
fn ping() -> Run {
    let frame = texts::text_frame(talk::PING);
    let (limits, now) = (Limits::default(), (Mono(1), Wall(NOW)));
    let mut conn = Connection::new(now.0);
    let nobody = auth::nobody();
    conn.ask(Asked::request(Framing::default(), Arc::clone(&nobody.user), false), now.0);
    conn.upgrade(talk::session(Name::Tickets, 0), &nobody, false, false, now.0);
    let mut scratch = vec![0; frame.len()];
    let mut out = Vec::with_capacity(1024);
    let mut inflater = Inflater::default();
    Box::new(move || {
        out.clear();
        scratch.copy_from_slice(&frame);
        let (used, step) = conn.next(&mut scratch, &limits, now, &mut inflater, &mut out);
        let Step::Intent(Intent::Reply(payload)) = step else { panic!("a ping is answered with a reply") };
        frame::put_text(&mut out, &payload);
        assert_eq!(used, frame.len());
        black_box(&out);
    })
}

/// What laying out so many bytes takes of a decode.
fn copy(bytes: usize) -> Run {
    let frame = texts::text_frame(&texts::prose(bytes));
    let mut scratch = vec![0; frame.len()];
    Box::new(move || {
        scratch.copy_from_slice(black_box(&frame));
        black_box(&mut scratch);
    })
}
