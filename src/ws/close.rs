//! Why a connection ends, in both directions: what peers do wrong, what we say, what they may say.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use super::CloseCode;
use super::utf8::Checker;
use crate::http::Reject;

/// Every way a peer can break the protocol, by the precise misdeed. [`Fault::close`] says what it hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    Unmasked,
    ReservedBits,
    ReservedOpcode,
    LengthTopBit,
    LengthNotMinimal,
    TooBig,
    TooManyFragments,
    ControlTooLong,
    ControlFragmented,
    Interleaved,
    ContinuationWithoutStart,
    BadUtf8,
    BadClosePayload,
    BadCloseCode,
    /// A compressed message that is none, or is not whole.
    BadDeflate,
    /// A compressed message that grows out of all proportion.
    InflatesTooFar,
}

const _: () = assert!(size_of::<Fault>() <= 16, "every call of the decoder returns one or a step");

impl Fault {
    pub const ALL: [Fault; 16] = [
        Fault::Unmasked,
        Fault::ReservedBits,
        Fault::ReservedOpcode,
        Fault::LengthTopBit,
        Fault::LengthNotMinimal,
        Fault::TooBig,
        Fault::TooManyFragments,
        Fault::ControlTooLong,
        Fault::ControlFragmented,
        Fault::Interleaved,
        Fault::ContinuationWithoutStart,
        Fault::BadUtf8,
        Fault::BadClosePayload,
        Fault::BadCloseCode,
        Fault::BadDeflate,
        Fault::InflatesTooFar,
    ];

    /// The one total answer to a fault.
    pub fn close(self) -> Close {
        let (code, name) = self.row();
        Close { code, reason: Cow::Borrowed(name) }
    }

    /// The short name: the close frame's reason, the metric's label, the log's word.
    pub const fn name(self) -> &'static str {
        self.row().1
    }

    const fn row(self) -> (u16, &'static str) {
        match self {
            Fault::Unmasked => (1002, "mask"),
            Fault::ReservedBits => (1002, "reserved_bits"),
            Fault::ReservedOpcode => (1002, "reserved_opcode"),
            Fault::LengthTopBit => (1002, "length_top_bit"),
            Fault::LengthNotMinimal => (1002, "length_not_minimal"),
            Fault::TooBig => (1009, "message_too_big"),
            Fault::TooManyFragments => (1009, "too_many_fragments"),
            Fault::ControlTooLong => (1002, "control_too_long"),
            Fault::ControlFragmented => (1002, "control_fragmented"),
            Fault::Interleaved => (1002, "interleaved_message"),
            Fault::ContinuationWithoutStart => (1002, "continuation_without_start"),
            Fault::BadUtf8 => (1007, "utf8"),
            Fault::BadClosePayload => (1002, "close_payload"),
            Fault::BadCloseCode => (1002, "close_code"),
            Fault::BadDeflate => (1007, "deflate"),
            Fault::InflatesTooFar => (1009, "deflate_ratio"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for Fault {}

impl From<super::utf8::BadUtf8> for Fault {
    fn from(_: super::utf8::BadUtf8) -> Fault {
        Fault::BadUtf8
    }
}

/// What a close frame of ours says. The reason is for people and for logs, `key=value` or a short word; it is sent to
/// the peer, so it never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    pub code: u16,
    pub reason: Cow<'static, str>,
}

/// Bytes of a reason that we write ourselves; RFC 6455 would allow 123.
pub const OUR_REASON_BYTES_MAX: usize = 100;

const _: () = assert!(OUR_REASON_BYTES_MAX <= super::frame::REASON_BYTES_MAX);

impl Close {
    pub const DONE: Close = Close::fixed(1000, "done");
    pub const GOING_AWAY: Close = Close::fixed(1001, "going_away");
    pub const PROTOCOL: Close = Close::fixed(1002, "protocol");
    pub const UNSUPPORTED: Close = Close::fixed(1003, "unsupported");
    pub const BAD_TEXT: Close = Close::fixed(1007, "utf8");
    pub const POLICY: Close = Close::fixed(1008, "policy");
    pub const MESSAGE_TIMEOUT: Close = Close::fixed(1008, "message_timeout");
    pub const TOO_BIG: Close = Close::fixed(1009, "message_too_big");
    pub const INTERNAL: Close = Close::fixed(1011, "internal");
    pub const RESTART: Close = Close::fixed(1012, "restart");
    pub const OVERLOADED: Close = Close::fixed(1013, "overloaded");
    pub const NO_PONG: Close = Close::fixed(4000, "no_pong");
    pub const UNKNOWN_PROMPT: Close = Close::fixed(4004, "unknown_prompt");
    pub const TOO_SLOW: Close = Close::fixed(4008, "slow");
    pub const POSITION_LOST: Close = Close::fixed(4010, "position_lost");
    pub const RATE: Close = Close::fixed(4029, "rate");
    pub const TOKEN: Close = Close::fixed(4401, "token");
    pub const TOKEN_EXPIRED: Close = Close::fixed(4401, "token_expired");
    pub const FORBIDDEN: Close = Close::fixed(4403, "forbidden");
    pub const UNKNOWN_PATH: Close = Close::fixed(4404, "unknown_path");

    /// A close whose reason was made at run time; what passes the bound is cut off between characters.
    pub fn new(code: u16, reason: impl Into<Cow<'static, str>>) -> Close {
        let reason = match reason.into() {
            Cow::Borrowed(reason) => Cow::Borrowed(head(reason, OUR_REASON_BYTES_MAX)),
            Cow::Owned(mut reason) => {
                reason.truncate(head(&reason, OUR_REASON_BYTES_MAX).len());
                Cow::Owned(reason)
            }
        };
        Close { code, reason }
    }

    /// What a refused request hears once its handshake was accepted: the words of the refusal, as the originals close
    /// (`Prompt 'x' not found`), since a browser shows nothing else of it.
    pub fn refusing(reject: &Reject) -> Close {
        Close::new(reject.row().close, reject.detail.clone())
    }

    /// The same code with more to say.
    pub fn because(self, reason: impl Into<Cow<'static, str>>) -> Close {
        Close::new(self.code, reason)
    }

    /// The same with the pause after which to come back: those who are told to go together are not to come back together
    /// (threat row 70).
    pub fn come_back_in(self, pause: Duration) -> Close {
        let reason = format!("{} retry_after_ms={}", self.reason, pause.as_millis());
        self.because(reason)
    }

    /// The answer to a close frame: the same code and reason, as the originals answer; to an empty one, an empty one.
    pub fn echo(received: Option<(CloseCode, &str)>) -> Option<Close> {
        received.map(|(code, reason)| Close { code: code.into(), reason: Cow::Owned(reason.to_owned()) })
    }

    const fn fixed(code: u16, reason: &'static str) -> Close {
        Close { code, reason: Cow::Borrowed(reason) }
    }
}

/// Every close code this server sends of its own accord, with what a client is to make of it. The README prints these
/// rows.
pub const TABLE: &[(u16, &str)] = &[
    (1000, "The conversation is over; do not reconnect."),
    (1001, "The server is going away; reconnect."),
    (1002, "The client broke the WebSocket protocol; the reason names the rule."),
    (1003, "A kind of message this path does not take, such as a binary one."),
    (1007, "A text message or a close reason was not UTF-8, or a compressed message was damaged."),
    (1008, "The client broke a policy: its origin, a flood, or a message begun and not completed in time."),
    (1009, "A message had more bytes or fragments than the limits allow, or grew too much when it was inflated."),
    (1011, "The server is at fault; the log says why."),
    (1012, "The server restarts; reconnect after a random pause, or after the reason's `retry_after_ms`."),
    (1013, "The server is overloaded; reconnect later."),
    (4000, "No pong came in time; reconnect."),
    (4004, "The prompt does not exist; create it first."),
    (4008, "The client took what it was sent too slowly; reconnect and resume."),
    (4010, "The client's place in the room's log was lost; reconnect and resume."),
    (4029, "Too many messages for too long; reconnect and slow down."),
    (4401, "The token is missing, wrong, expired or revoked; get a new one, then reconnect."),
    (4403, "The token does not grant this; do not reconnect with it."),
    (4404, "There is nothing at this path; do not reconnect."),
];

/// Whether a peer may put `code` in a close frame (RFC 6455 section 7.4 and the IANA registry up to 1014).
///
/// Not tungstenite's `CloseCode::is_allowed`: that refuses 1014 (bad gateway), which is registered.
pub fn may_be_received(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// The payload of a whole close frame.
pub fn parse(payload: &[u8]) -> Result<Option<(CloseCode, &str)>, Fault> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(None) } else { Err(Fault::BadClosePayload) };
    };
    let code = check_code(*code)?;
    let reason = std::str::from_utf8(reason).map_err(|_| Fault::BadUtf8)?;
    Ok(Some((code, reason)))
}

/// The first bytes of a close frame's payload: a fault as soon as nothing that follows could mend them.
pub fn check_head(payload: &[u8]) -> Result<(), Fault> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return Ok(());
    };
    check_code(*code)?;
    Ok(Checker::default().feed(reason)?)
}

fn check_code(code: [u8; 2]) -> Result<CloseCode, Fault> {
    let code = u16::from_be_bytes(code);
    if may_be_received(code) { Ok(CloseCode::from(code)) } else { Err(Fault::BadCloseCode) }
}

/// As much of `text` as fits in `bytes`, cut between characters.
pub(super) fn head(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::http::Reason;
    use std::collections::BTreeSet;

    fn fixed() -> [Close; 20] {
        [
            Close::DONE,
            Close::GOING_AWAY,
            Close::PROTOCOL,
            Close::UNSUPPORTED,
            Close::BAD_TEXT,
            Close::POLICY,
            Close::MESSAGE_TIMEOUT,
            Close::TOO_BIG,
            Close::INTERNAL,
            Close::RESTART,
            Close::OVERLOADED,
            Close::NO_PONG,
            Close::UNKNOWN_PROMPT,
            Close::TOO_SLOW,
            Close::POSITION_LOST,
            Close::RATE,
            Close::TOKEN,
            Close::TOKEN_EXPIRED,
            Close::FORBIDDEN,
            Close::UNKNOWN_PATH,
        ]
    }

    #[test]
    fn the_table_lists_each_code_once_and_in_order_and_exactly_those_we_send() {
        let listed: Vec<u16> = TABLE.iter().map(|row| row.0).collect();
        assert!(listed.is_sorted_by(|a, b| a < b));
        let sent: BTreeSet<u16> = fixed().iter().map(|close| close.code).collect();
        assert!(sent.iter().eq(&listed));
        assert!(Fault::ALL.iter().all(|fault| sent.contains(&fault.close().code)));
        assert!(Reason::ALL.iter().all(|reason| sent.contains(&reason.row().close)));
        assert!(sent.into_iter().all(may_be_received));
    }

    #[test]
    fn reasons_are_short_words_and_faults_have_names_of_their_own() {
        let faults = Fault::ALL.map(Fault::close);
        for close in fixed().iter().chain(&faults) {
            assert!(!close.reason.is_empty() && close.reason.len() <= OUR_REASON_BYTES_MAX);
            assert!(close.reason.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')), "{close:?}");
        }
        assert_eq!(BTreeSet::from_iter(Fault::ALL.map(Fault::name)).len(), Fault::ALL.len());
    }

    #[test]
    fn a_reason_made_at_run_time_is_cut_between_characters() {
        for (reason, expected) in
            [("x".repeat(100), 100), ("x".repeat(101), 100), ("é".repeat(60), 100), ("€".repeat(40), 99)]
        {
            assert_eq!(Close::RATE.because(reason.clone()).reason, &reason[..expected]);
        }
    }

    #[test]
    fn close_payloads() {
        let ok = |code: u16, reason: &'static str| Ok(Some((CloseCode::from(code), reason)));
        for (payload, expected) in [
            (&b""[..], Ok(None)),
            (b"\x03", Err(Fault::BadClosePayload)),
            (b"\x03\xe8", ok(1000, "")),
            (b"\x03\xe8bye", ok(1000, "bye")),
            (b"\x0f\xa4gone", ok(4004, "gone")),
            (b"\x03\xe8\xff", Err(Fault::BadUtf8)),
            (b"\x03\xe8\xe2\x82", Err(Fault::BadUtf8)),
            (b"\x03\xed\xff", Err(Fault::BadCloseCode)),
        ] {
            assert_eq!(parse(payload), expected, "{payload:x?}");
        }
    }

    /// Autobahn 7.7 and 7.9.
    #[test]
    fn close_codes() {
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
            assert_eq!(parse(&u16::to_be_bytes(code)), Ok(Some((CloseCode::from(code), ""))), "{code}");
        }
        for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
            assert_eq!(parse(&u16::to_be_bytes(code)), Err(Fault::BadCloseCode), "{code}");
        }
    }

    #[test]
    fn a_refusal_closes_with_its_code_and_its_words() {
        let reject = Reject::new(Reason::UnknownPrompt, "Prompt 'x' not found");
        let expected = Close { code: 4004, reason: "Prompt 'x' not found".into() };
        assert_eq!(Close::refusing(&reject), expected);
    }

    #[test]
    fn a_close_is_answered_in_kind() {
        assert_eq!(Close::echo(None), None);
        for (code, reason) in [(1000, ""), (1014, "gateway"), (4999, "x")] {
            let received = Some((CloseCode::from(code), reason));
            assert_eq!(Close::echo(received), Some(Close { code, reason: reason.to_owned().into() }));
        }
    }
}
