//! What the server says, read back as strictly as RFC 6455 and RFC 9112 have it.

/// The frame at the front: its first byte, its payload, and how many bytes it takes. None when it is not all there.
/// A frame of a server is never masked, and its length is written as short as can be.
pub fn frame(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (&first, rest) = bytes.split_first()?;
    let (&short, rest) = rest.split_first()?;
    assert!(short & 0x80 == 0, "a server masks nothing");
    let (length, head) = match short {
        126 => {
            let length = usize::from(u16::from_be_bytes(*rest.first_chunk()?));
            assert!(length >= 126, "{length} was written in two bytes");
            (length, 4)
        }
        127 => {
            let length = u64::from_be_bytes(*rest.first_chunk()?);
            assert!(length > 0xffff, "{length} was written in eight bytes");
            (usize::try_from(length).expect("no frame of ours is longer than the memory"), 10)
        }
        short => (usize::from(short), 2),
    };
    Some((first, bytes.get(head..head + length)?, head + length))
}

/// The payloads of whole text frames, which are all there is.
pub fn texts(mut frames: &[u8]) -> Vec<&str> {
    let mut found = Vec::new();
    while !frames.is_empty() {
        let Some((0x81, payload, used)) = frame(frames) else { panic!("no whole text frame: {frames:?}") };
        found.push(std::str::from_utf8(payload).expect("a text frame of ours is UTF-8"));
        frames = &frames[used..];
    }
    found
}

/// A response.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Bytes that all of it takes.
    pub used: usize,
}

impl Response {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// The response at the front; None when it is not all there.
pub fn response(bytes: &[u8]) -> Option<Response> {
    let mut raw = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Response::new(&mut raw);
    let httparse::Status::Complete(head) = parsed.parse(bytes).expect("a response of ours is HTTP") else {
        return None;
    };
    assert!(!bytes[..head].windows(2).any(|two| two[1] == b'\n' && two[0] != b'\r'), "a line without CR");
    let fields: Vec<(String, String)> = parsed
        .headers
        .iter()
        .map(|field| (field.name.to_owned(), String::from_utf8(field.value.to_vec()).expect("our fields are ASCII")))
        .collect();
    let status = parsed.code.expect("a response has a status");
    let mut response = Response { status, fields, body: Vec::new(), used: head };
    if matches!(status, 100..=199 | 204 | 304) {
        assert!(response.field("content-length").is_none(), "{status} has no length");
        return Some(response);
    }
    if response.field("transfer-encoding").is_some() {
        assert!(response.field("content-length").is_none(), "two lengths");
        let (body, used) = chunked(&bytes[head..])?;
        response.body = body;
        response.used += used;
    } else {
        let length: usize =
            response.field("content-length").expect("a response says its length").parse().expect("a number");
        response.body = bytes.get(head..head + length)?.to_vec();
        response.used += length;
    }
    Some(response)
}

fn chunked(mut bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let whole = bytes.len();
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[..end]).expect("a chunk's size is ASCII");
        let size = usize::from_str_radix(size, 16).expect("a chunk's size is a number");
        let chunk = bytes.get(end + 2..end + 2 + size + 2)?;
        assert!(chunk.ends_with(b"\r\n"), "a chunk ends with its line");
        body.extend_from_slice(&chunk[..size]);
        bytes = &bytes[end + 2 + size + 2..];
        if size == 0 {
            return Some((body, whole - bytes.len()));
        }
    }
}
