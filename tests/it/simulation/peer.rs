//! The client's end of a scripted connection: dials a path, says texts, and takes what comes back apart.

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::Dice;
use super::net::{Shared, lock};
use crate::support::COMPRESSED;

#[derive(Debug)]
pub struct Peer {
    pub wire: Shared,
    /// Nothing more is to be expected of it.
    pub ended: bool,
    /// The handshake was answered, but not with a socket.
    pub refused: bool,
    /// The code and the reason of the server's close frame.
    pub close: Option<(u16, String)>,
    /// It reads seldom, and little.
    pub is_lazy: bool,
    upgraded: bool,
    /// It offers to compress, and does so with every other message.
    compresses: bool,
    said: usize,
    buffer: Vec<u8>,
}

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";

impl Peer {
    pub fn dial(wire: Shared, path: &str) -> Peer {
        let compresses = lock(&wire).coin();
        let offer = if compresses { OFFER } else { "" };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{offer}\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        lock(&wire).client_sends(request.as_bytes());
        Peer { upgraded: false, compresses, ..Peer::plain(wire) }
    }

    /// A connection for requests.
    pub fn plain(wire: Shared) -> Peer {
        Peer {
            wire,
            ended: false,
            refused: false,
            close: None,
            is_lazy: false,
            upgraded: true,
            compresses: false,
            said: 0,
            buffer: Vec::new(),
        }
    }

    /// A frame has begun to come and will not end.
    pub fn is_cut(&self) -> bool {
        !self.buffer.is_empty()
    }

    pub fn is_open(&self) -> bool {
        self.upgraded && !self.ended
    }

    /// Whether it can be taken away: both ends know that it is over.
    pub fn is_gone(&self) -> bool {
        let wire = lock(&self.wire);
        self.ended && (wire.client_gone || wire.server_shut || wire.server_gone || self.refused)
    }

    pub fn say(&mut self, text: &str) {
        self.said += 1;
        match self.compresses && self.said.is_multiple_of(2) {
            true => {
                let payload = ZLIB.with_borrow_mut(|zlib| zlib.deflate(text.as_bytes()));
                self.frame(0x81 | COMPRESSED, &payload);
            }
            false => self.frame(0x81, text.as_bytes()),
        }
    }

    pub fn post(&mut self, path: &str, body: &str) {
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: s\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        lock(&self.wire).client_sends(request.as_bytes());
    }

    pub fn leave(&mut self, dice: &mut Dice) {
        lock(&self.wire).client_leaves(dice.chance(50));
        self.ended = true;
    }

    /// Reads some bytes and gives the texts that are complete with them.
    pub fn read(&mut self, most: usize) -> Result<Vec<Vec<u8>>, String> {
        let bytes = lock(&self.wire).client_reads(most);
        self.buffer.extend(bytes);
        if !self.upgraded {
            let Some(end) = self.head_end() else {
                self.notice_the_end();
                return Ok(Vec::new());
            };
            let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
            if !head.starts_with("HTTP/1.1 101") {
                // Refused because the store is broken, full or busy, or because we dawdled; never as something unknown.
                self.refused = true;
                self.ended = true;
                return if ["50", "408"].iter().any(|code| head[9..].starts_with(code)) {
                    Ok(Vec::new())
                } else {
                    Err(format!("handshake: {head}"))
                };
            }
            self.upgraded = true;
            self.buffer.drain(..end + 4);
        }
        let mut texts = Vec::new();
        let mut taken = 0;
        while let Some((opcode, payload)) = frame_at(&self.buffer[taken..]) {
            let range = taken + payload.start..taken + payload.end;
            taken = range.end;
            match opcode {
                1 => texts.push(self.buffer[range].to_vec()),
                COMPRESSED_TEXT if self.compresses => {
                    texts.push(ZLIB.with_borrow_mut(|zlib| zlib.inflate(&self.buffer[range])));
                }
                8 => {
                    self.ended = true;
                    self.close = close_of(&self.buffer[range]);
                }
                9 => {
                    let payload = self.buffer[range].to_vec();
                    self.frame(0x8a, &payload);
                }
                other => return Err(format!("opcode {other}")),
            }
        }
        self.buffer.drain(..taken);
        self.notice_the_end();
        Ok(texts)
    }

    /// Reads some bytes of the response to the one request that is under way: its status and its body.
    pub fn read_response(&mut self, most: usize) -> Result<Option<(u16, Vec<u8>)>, String> {
        let bytes = lock(&self.wire).client_reads(most);
        self.buffer.extend(bytes);
        let response = self.response()?;
        self.notice_the_end();
        Ok(response)
    }

    fn response(&mut self) -> Result<Option<(u16, Vec<u8>)>, String> {
        let Some(end) = self.head_end() else { return Ok(None) };
        let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.and_then(|text| text.trim().parse().ok()).ok_or(format!("no length: {head}"))?;
        let status = head.get(9..12).and_then(|text| text.parse().ok()).ok_or(format!("no status: {head}"))?;
        if self.buffer.len() < end + 4 + length {
            return Ok(None);
        }
        self.ended |= head.contains("connection: close");
        let body = self.buffer[end + 4..end + 4 + length].to_vec();
        self.buffer.drain(..end + 4 + length);
        Ok(Some((status, body)))
    }

    fn head_end(&self) -> Option<usize> {
        self.buffer.windows(4).position(|four| four == b"\r\n\r\n")
    }

    fn notice_the_end(&mut self) {
        let wire = lock(&self.wire);
        self.ended |= (wire.server_gone || wire.server_shut) && wire.to_client.is_empty();
    }

    fn frame(&mut self, first: u8, payload: &[u8]) {
        let mut frame = vec![first];
        match payload.len() {
            short @ 0..=125 => frame.push(0x80 | short as u8),
            long => {
                frame.push(0x80 | 126);
                frame.extend((long as u16).to_be_bytes());
            }
        }
        let key = [7, 77, 177, 17];
        frame.extend(key);
        frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        lock(&self.wire).client_sends(&frame);
    }
}

/// Both directions, begun anew with each message. Kept, because making one costs more than the messages do.
struct Zlib {
    deflater: Compress,
    inflater: Decompress,
}

thread_local! {
    static ZLIB: RefCell<Zlib> = RefCell::new(Zlib {
        deflater: Compress::new(Compression::fast(), false),
        inflater: Decompress::new(false),
    });
}

impl Zlib {
    fn deflate(&mut self, payload: &[u8]) -> Vec<u8> {
        self.deflater.reset();
        let mut out = Vec::with_capacity(payload.len() + payload.len() / 8 + 64);
        self.deflater.compress_vec(payload, &mut out, FlushCompress::Sync).expect("zlib compresses anything");
        out.truncate(out.len() - 4);
        out
    }

    fn inflate(&mut self, payload: &[u8]) -> Vec<u8> {
        self.inflater.reset(false);
        let whole = [payload, b"\0\0\xff\xff"].concat();
        let mut out = Vec::with_capacity(4 * whole.len() + 256);
        loop {
            let left = &whole[self.inflater.total_in() as usize..];
            self.inflater.decompress_vec(left, &mut out, FlushDecompress::Sync).expect("the server's is sound");
            if out.len() < out.capacity() {
                assert_eq!(self.inflater.total_in(), whole.len() as u64);
                return out;
            }
            out.reserve(4 * out.len());
        }
    }
}

fn close_of(payload: &[u8]) -> Option<(u16, String)> {
    let code = u16::from_be_bytes(payload.get(..2)?.try_into().ok()?);
    Some((code, String::from_utf8_lossy(&payload[2..]).into_owned()))
}

const COMPRESSED_TEXT: u8 = COMPRESSED | 1;

/// The opcode, with the bit of a compressed one, and the payload's place, if the frame is there as a whole.
fn frame_at(bytes: &[u8]) -> Option<(u8, std::ops::Range<usize>)> {
    let (header, len) = match *bytes.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        short => (2, usize::from(short)),
    };
    (bytes.len() >= header + len).then_some((bytes[0] & 0x7f, header..header + len))
}
