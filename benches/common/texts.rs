//! What clients send, as bytes.

/// A handshake without a token.
pub fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost:8080\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// The same as a browser sends it.
pub fn browser_upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost:8080\r\nConnection: Upgrade\r\nPragma: no-cache\r\n\
         Cache-Control: no-cache\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
         Chrome/140.0.0.0 Safari/537.36\r\nUpgrade: websocket\r\nOrigin: http://localhost:5173\r\n\
         Sec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate, br\r\nAccept-Language: en-GB,en;q=0.9\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
    )
}

/// A masked text frame, as a client must send it.
pub fn text_frame(text: &str) -> Vec<u8> {
    masked(0x81, text.as_bytes())
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match payload.len() {
        short @ ..126 => frame.push(0x80 | short as u8),
        middle @ ..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend((middle as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend(KEY);
    frame.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// So many bytes of prose, with something outside of ASCII in each of its sentences.
pub fn prose(bytes: usize) -> String {
    const SENTENCE: &str = "Two quick foxes jump over the lazy dog's café, and nobody saw it but the cat. ";
    let mut text: String = SENTENCE.repeat(bytes / SENTENCE.len() + 1);
    while !text.is_char_boundary(bytes) {
        text.insert(0, 'x');
    }
    text.truncate(bytes);
    text
}

/// Lives as long as the process: the script lends it to the reactor.
pub fn leak(bytes: Vec<u8>) -> &'static [u8] {
    bytes.leak()
}
