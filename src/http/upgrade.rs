//! The WebSocket opening handshake (RFC 6455, 4.2): a [`Head`] in, the accept key or the reason why not out.
//!
//! Nothing is taken on trust from a proxy: nginx passes on a POST, a body and a missing key, and tunnels raw bytes from
//! the moment it sees our 101. Never here: origin, token, path; those are asked for only after this.

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, PAD, STANDARD};
use sha1::{Digest, Sha1};

use super::head::is_tchar;
use super::{Head, Method, Reason, Reject};

/// Subprotocols looked at; ours are one of them and a client offers one or two. What a head can hold beyond that is not
/// worth remembering (threat row 17).
pub const PROTOCOLS_MAX: usize = 16;

/// Bytes of the accept key: SHA-1 in base64.
pub const ACCEPT_BYTES: usize = 28;

const KEY_BYTES: usize = 16;
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Takes keys whose last character has bits that no byte needs: hand-written clients draw 22 random characters, and the
/// servers we stand in for never minded.
const KEY_ENGINE: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, PAD.with_decode_allow_trailing_bits(true));

/// A correct handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade<'b> {
    /// The value of `Sec-WebSocket-Accept`.
    pub accept: [u8; ACCEPT_BYTES],
    /// Offered subprotocols in the client's order. May hold a token (`bearer.…`): never to be logged.
    pub protocols: Vec<&'b str>,
}

/// The handshake's own rules, cheapest to explain first. A body comes before the upgrade itself, because whoever sends
/// both is smuggling and should read so in the log.
pub fn check<'b>(head: &Head<'b>) -> Result<Upgrade<'b>, Reject> {
    if head.method != Method::Get {
        return Err(Reject::new(Reason::Method, "an upgrade is a GET"));
    }
    if head.content_length.is_some_and(|length| length != 0) {
        return Err(Reject::new(Reason::UpgradeBody, "an upgrade has a body"));
    }
    if !head.wants_upgrade() {
        return Err(Reject::new(Reason::NotAnUpgrade, "the Upgrade header does not name websocket"));
    }
    if !head.has_token("connection", "upgrade") {
        return Err(Reject::new(Reason::NotAnUpgrade, "the Connection header does not name upgrade"));
    }
    if head.header_once("sec-websocket-version") != Some("13") {
        return Err(Reject::new(Reason::WebSocketVersion, "Sec-WebSocket-Version is not 13, or not sent once"));
    }
    let key = head.header_once("sec-websocket-key").filter(|key| is_key(key)).ok_or_else(|| {
        Reject::new(Reason::WebSocketKey, "Sec-WebSocket-Key is not 16 bytes in base64, or not sent once")
    })?;
    Ok(Upgrade {
        accept: accept(key),
        protocols: head
            .tokens("sec-websocket-protocol")
            .filter(|protocol| protocol.bytes().all(is_tchar))
            .take(PROTOCOLS_MAX)
            .collect(),
    })
}

fn is_key(text: &str) -> bool {
    // The decoder wants room for whole groups of three.
    let mut key = [0; KEY_BYTES.next_multiple_of(3)];
    KEY_ENGINE.decode_slice(text, &mut key) == Ok(KEY_BYTES)
}

fn accept(key: &str) -> [u8; ACCEPT_BYTES] {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [0; ACCEPT_BYTES];
    let written = STANDARD.encode_slice(digest, &mut accept);
    debug_assert_eq!(written, Ok(ACCEPT_BYTES));
    accept
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::http::head;
    use proptest::prelude::*;

    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
    const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\n";

    fn bytes(method: &str, fields: &[&str]) -> Vec<u8> {
        format!("{method} /ws HTTP/1.1\r\nHost: a\r\n{}\r\n", fields.concat()).into_bytes()
    }

    fn reason(bytes: &[u8]) -> Option<Reason> {
        let (head, _) = head::parse(bytes).unwrap().unwrap();
        check(&head).err().map(|reject| reject.reason)
    }

    #[test]
    fn the_example_of_the_rfc() {
        let bytes = bytes("GET", &[UPGRADE, KEY, VERSION, "Sec-WebSocket-Protocol: chat, superchat\r\n"]);
        let (head, _) = head::parse(&bytes).unwrap().unwrap();
        let upgrade = check(&head).unwrap();
        assert_eq!(&upgrade.accept, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(upgrade.protocols, ["chat", "superchat"]);
    }

    #[test]
    fn each_broken_rule_has_its_own_reason() {
        let key = |text: &str| format!("Sec-WebSocket-Key: {text}\r\n");
        for (method, fields, expected) in [
            ("GET", vec![UPGRADE, KEY, VERSION], None),
            ("GET", vec![UPGRADE, KEY, VERSION, "Content-Length: 0\r\n"], None),
            ("GET", vec!["upgrade: WebSocket\r\nCONNECTION: keep-alive, uPGRADE\r\n", KEY, VERSION], None),
            ("GET", vec!["Upgrade: websocket, foo\r\nConnection: a\r\nConnection: upgrade\r\n", KEY, VERSION], None),
            ("GET", vec![UPGRADE, VERSION, &key("AAAAAAAAAAAAAAAAAAAAAB==")], None),
            ("POST", vec![UPGRADE, KEY, VERSION], Some(Reason::Method)),
            ("POST", vec![UPGRADE, KEY, VERSION, "Content-Length: 5\r\n"], Some(Reason::Method)),
            ("HEAD", vec![UPGRADE, KEY, VERSION], Some(Reason::Method)),
            ("TRACE", vec![UPGRADE, KEY, VERSION], Some(Reason::Method)),
            ("GET", vec![UPGRADE, KEY, VERSION, "Content-Length: 5\r\n"], Some(Reason::UpgradeBody)),
            ("GET", vec!["Content-Length: 5\r\n"], Some(Reason::UpgradeBody)),
            ("GET", vec![KEY, VERSION], Some(Reason::NotAnUpgrade)),
            ("GET", vec!["Upgrade: websocket\r\n", KEY, VERSION], Some(Reason::NotAnUpgrade)),
            ("GET", vec!["Connection: upgrade\r\n", KEY, VERSION], Some(Reason::NotAnUpgrade)),
            ("GET", vec!["Upgrade: websocket\r\nConnection: close\r\n", KEY, VERSION], Some(Reason::NotAnUpgrade)),
            ("GET", vec!["Upgrade: h2c\r\nConnection: Upgrade\r\n", KEY, VERSION], Some(Reason::NotAnUpgrade)),
            ("GET", vec![UPGRADE, KEY], Some(Reason::WebSocketVersion)),
            ("GET", vec![UPGRADE, KEY, VERSION, VERSION], Some(Reason::WebSocketVersion)),
            ("GET", vec![UPGRADE, KEY, "Sec-WebSocket-Version: 8\r\n"], Some(Reason::WebSocketVersion)),
            ("GET", vec![UPGRADE, KEY, "Sec-WebSocket-Version: 13, 8\r\n"], Some(Reason::WebSocketVersion)),
            ("GET", vec![UPGRADE, KEY, "Sec-WebSocket-Version: 013\r\n"], Some(Reason::WebSocketVersion)),
            ("GET", vec![UPGRADE, VERSION], Some(Reason::WebSocketKey)),
            ("GET", vec![UPGRADE, VERSION, KEY, KEY], Some(Reason::WebSocketKey)),
            ("GET", vec![UPGRADE, VERSION, &key("")], Some(Reason::WebSocketKey)),
            ("GET", vec![UPGRADE, VERSION, &key("dGhlIHNhbXBsZSBub25j")], Some(Reason::WebSocketKey)),
            ("GET", vec![UPGRADE, VERSION, &key("dGhlIHNhbXBsZSBub25jZQ")], Some(Reason::WebSocketKey)),
            ("GET", vec![UPGRADE, VERSION, &key("dGhlIHNhbXBsZSBub25jZWE=")], Some(Reason::WebSocketKey)),
            ("GET", vec![UPGRADE, VERSION, &key("dGhlIHNhbXBsZSBub25jZWVl")], Some(Reason::WebSocketKey)),
            ("GET", vec![UPGRADE, VERSION, &key("dGhlIHNhbXBsZSBub25j-_==")], Some(Reason::WebSocketKey)),
            ("GET", vec![UPGRADE, VERSION, &key("dGhlIHNhbXBsZSBub25jZQ==AAAA")], Some(Reason::WebSocketKey)),
        ] {
            assert_eq!(reason(&bytes(method, &fields)), expected, "{method} {fields:?}");
        }
    }

    #[test]
    fn a_head_full_of_offers_costs_no_more_than_its_bound() {
        let offers = format!("Sec-WebSocket-Protocol: {}a\r\n", "a,".repeat(2000));
        let bytes = bytes("GET", &[UPGRADE, KEY, VERSION, &offers, "Sec-WebSocket-Extensions: a; b; c, d\r\n"]);
        let (head, _) = head::parse(&bytes).unwrap().unwrap();
        assert_eq!(check(&head).unwrap().protocols, ["a"; PROTOCOLS_MAX]);
    }

    #[test]
    fn offers_that_are_not_tokens_are_passed_over() {
        for (offers, protocols) in [
            ("Sec-WebSocket-Protocol: bearer.a-b_c.d, v1\r\n", vec!["bearer.a-b_c.d", "v1"]),
            ("Sec-WebSocket-Protocol: a b, \"c\", d/e,, f\r\nsec-websocket-protocol: g\r\n", vec!["f", "g"]),
            ("", vec![]),
        ] {
            let bytes = bytes("GET", &[UPGRADE, KEY, VERSION, offers]);
            let (head, _) = head::parse(&bytes).unwrap().unwrap();
            assert_eq!(check(&head).unwrap().protocols, protocols, "{offers}");
        }
    }

    proptest! {
        #[test]
        fn every_key_of_16_bytes_is_taken_and_no_other_length(nonce in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(is_key(&STANDARD.encode(&nonce)), nonce.len() == KEY_BYTES);
        }

        #[test]
        fn any_text_is_a_key_or_is_not(text in "[ -~]{0,40}") {
            prop_assert!(!is_key(&text) || (text.len() == 24 && text.ends_with("==")));
        }
    }
}
