//! `Sec-WebSocket-Extensions`: what a client offers of permessage-deflate (RFC 7692), and what we agree to.
//!
//! Messages are compressed each for itself, in both directions: `server_no_context_takeover` lets one compressed message be
//! shared by a whole room, `client_no_context_takeover` leaves no window to keep for each client (threat row 57). Both are
//! always in the answer; a client that cannot do the second fails the handshake by itself.
//!
//! An offer with a parameter that is unknown, doubled or out of its range is declined (threat row 56), the next one is
//! looked at, and without any the connection goes on uncompressed: an extension is never a reason to turn somebody away.

use super::head::is_tchar;

const NAME: &str = "permessage-deflate";

/// How far back a compressed message of ours may refer. A client asks for any of eight sizes; it is answered with the next
/// of these that is not above, so that a message of a room is compressed three times at most, not eight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Window {
    Small,
    Middle,
    Full,
}

impl Window {
    pub const ALL: [Window; 3] = [Window::Small, Window::Middle, Window::Full];

    /// The base-2 logarithm of its bytes.
    pub const fn bits(self) -> u8 {
        match self {
            Window::Small => 9,
            Window::Middle => 12,
            Window::Full => 15,
        }
    }

    /// `None` below all of them: with 8 bits no zlib can compress without a header.
    fn within(bits: u8) -> Option<Window> {
        Window::ALL.into_iter().rev().find(|window| window.bits() <= bits)
    }
}

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deflate {
    pub window: Window,
    /// The client asked for a bound of the window, and must be told what it is.
    bounded: bool,
}

impl Deflate {
    /// The value of the response's header.
    pub fn answer(self) -> &'static str {
        match (self.bounded, self.window) {
            (false, _) => "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            (true, Window::Small) => {
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9"
            }
            (true, Window::Middle) => {
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12"
            }
            (true, Window::Full) => {
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15"
            }
        }
    }
}

/// The first offer of permessage-deflate that can be agreed to, over all lines of the header. Reads each byte once.
pub fn agree<'b>(lines: impl Iterator<Item = &'b str>) -> Option<Deflate> {
    lines.flat_map(|line| Offers { rest: Some(line) }).find_map(|offer| offer.ok().flatten())
}

/// The elements of one line. What is no deflate is `Ok(None)`, what is no offer is an error.
struct Offers<'b> {
    /// `None` behind the last.
    rest: Option<&'b str>,
}

/// It is no extension, or one with parameters that we cannot agree to.
struct Declined;

impl Iterator for Offers<'_> {
    type Item = Result<Option<Deflate>, Declined>;

    fn next(&mut self) -> Option<Self::Item> {
        let (element, rest) = split_at_mark(self.rest?, b',');
        self.rest = rest;
        Some(offer(element))
    }
}

fn offer(element: &str) -> Result<Option<Deflate>, Declined> {
    let (name, mut rest) = split_at_mark(element, b';');
    if trim(name) != NAME {
        return Ok(None);
    }
    let mut seen = Seen::default();
    while let Some(parameters) = rest {
        let (parameter, behind) = split_at_mark(parameters, b';');
        rest = behind;
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (trim(name), Some(unquoted(trim(value)).ok_or(Declined)?)),
            None => (trim(parameter), None),
        };
        seen.take(name, value)?;
    }
    let window = match seen.server_bits {
        Some(bits) => Window::within(bits).ok_or(Declined)?,
        None => Window::Full,
    };
    Ok(Some(Deflate { window, bounded: seen.server_bits.is_some() }))
}

/// The parameters of one offer.
#[derive(Default)]
struct Seen {
    server_alone: bool,
    client_alone: bool,
    server_bits: Option<u8>,
    client_bits: bool,
}

impl Seen {
    fn take(&mut self, name: &str, value: Option<&str>) -> Result<(), Declined> {
        let is_new = match (name, value) {
            ("server_no_context_takeover", None) => !std::mem::replace(&mut self.server_alone, true),
            ("client_no_context_takeover", None) => !std::mem::replace(&mut self.client_alone, true),
            ("server_max_window_bits", Some(value)) => {
                let bits = window_bits(value).ok_or(Declined)?;
                self.server_bits.replace(bits).is_none()
            }
            // What it says of its own window need not be answered: ours to read with is the largest there is.
            ("client_max_window_bits", value) => {
                if value.is_some_and(|value| window_bits(value).is_none()) {
                    return Err(Declined);
                }
                !std::mem::replace(&mut self.client_bits, true)
            }
            _ => false,
        };
        if is_new { Ok(()) } else { Err(Declined) }
    }
}

/// 8 to 15, without zeros before it (RFC 7692, 7.1.2).
fn window_bits(value: &str) -> Option<u8> {
    let bits = value.parse().ok().filter(|bits| (8..=15).contains(bits))?;
    (!value.starts_with(['0', '+'])).then_some(bits)
}

/// A value without its quotation marks, which must be a token as one without them (RFC 6455, 9.1).
fn unquoted(value: &str) -> Option<&str> {
    let bare = match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"')?,
        None => value,
    };
    (!bare.is_empty() && bare.bytes().all(is_tchar)).then_some(bare)
}

/// What stands before the first `mark` outside quotation marks, and what stands behind it.
fn split_at_mark(text: &str, mark: u8) -> (&str, Option<&str>) {
    let mut quoted = false;
    let mut escaped = false;
    let at = text.bytes().position(|byte| {
        let plain = !quoted;
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        plain && byte == mark
    });
    // Both marks are ASCII, so each side of one is text.
    match at.and_then(|at| text.split_at_checked(at)) {
        Some((before, behind)) => (before, behind.get(1..)),
        None => (text, None),
    }
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    fn agreed(lines: &[&str]) -> Option<Deflate> {
        agree(lines.iter().copied())
    }

    fn full() -> Option<Deflate> {
        Some(Deflate { window: Window::Full, bounded: false })
    }

    fn bounded(window: Window) -> Option<Deflate> {
        Some(Deflate { window, bounded: true })
    }

    #[test]
    fn what_clients_offer_is_agreed_to() {
        for (who, lines, expected) in [
            ("nobody", &[][..], None),
            ("an empty header", &[""], None),
            ("the least", &["permessage-deflate"], full()),
            ("a browser", &["permessage-deflate; client_max_window_bits"], full()),
            (
                "somebody who is short of memory",
                &["permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"],
                bounded(Window::Middle),
            ),
            ("Autobahn 13.2", &["permessage-deflate; client_no_context_takeover; client_max_window_bits"], full()),
            (
                "everything",
                &[
                    "permessage-deflate;server_no_context_takeover;client_no_context_takeover;server_max_window_bits=15;client_max_window_bits=8",
                ],
                bounded(Window::Full),
            ),
            ("white space", &["\t permessage-deflate \t; \tserver_max_window_bits =\t10 "], bounded(Window::Small)),
            ("quotation marks", &["permessage-deflate; server_max_window_bits=\"10\""], bounded(Window::Small)),
            ("others before and behind", &["x-webkit-deflate-frame, permessage-deflate, foo; a=b"], full()),
            ("several lines", &["foo; a=\"x, permessage-deflate\"", "bar", "permessage-deflate"], full()),
        ] {
            assert_eq!(agreed(lines), expected, "{who}");
        }
    }

    /// Threat row 56.
    #[test]
    fn what_cannot_be_agreed_to_is_declined_and_the_next_one_looked_at() {
        let bad = [
            "; server_max_window_bits",
            "; server_max_window_bits=",
            "; server_max_window_bits=8",
            "; server_max_window_bits=7",
            "; server_max_window_bits=16",
            "; server_max_window_bits=010",
            "; server_max_window_bits=+10",
            "; server_max_window_bits=-10",
            "; server_max_window_bits=1000000000000000000000",
            "; server_max_window_bits=ten",
            "; server_max_window_bits=\"10",
            "; server_max_window_bits=10\"",
            "; server_max_window_bits=\"\"",
            "; server_max_window_bits=\"1 0\"",
            "; server_max_window_bits=\"1\\0\"",
            "; server_max_window_bits=10; server_max_window_bits=10",
            "; server_max_window_bits=10=10",
            "; client_max_window_bits=",
            "; client_max_window_bits=7",
            "; client_max_window_bits=16",
            "; client_max_window_bits=09",
            "; client_max_window_bits; client_max_window_bits=10",
            "; server_no_context_takeover; server_no_context_takeover",
            "; client_no_context_takeover; server_no_context_takeover; client_no_context_takeover",
            "; server_no_context_takeover=true",
            "; client_no_context_takeover=\"\"",
            "; foo",
            "; foo=bar",
            "; Server_No_Context_Takeover",
            ";",
            "; ;server_no_context_takeover",
            "; =10",
            " server_no_context_takeover",
        ];
        for parameters in bad {
            let offer = format!("permessage-deflate{parameters}");
            assert_eq!(agreed(&[&offer]), None, "{offer}");
            assert_eq!(agreed(&[&offer, "permessage-deflate"]), full(), "{offer}");
            // An open quotation mark takes in what is behind it on its line.
            if parameters.matches('"').count().is_multiple_of(2) {
                assert_eq!(agreed(&[&format!("{offer}, permessage-deflate")]), full(), "{offer}");
            }
        }
        // A client that would rather have a smaller window than none offers both.
        let both = "permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=11";
        assert_eq!(agreed(&[both]), bounded(Window::Small));
    }

    #[test]
    fn no_window_is_larger_than_what_was_asked_for_and_the_answer_names_it() {
        for bits in 9..=15u8 {
            let offer = format!("permessage-deflate; server_max_window_bits={bits}");
            let deflate = agreed(&[&offer]).unwrap();
            assert!(deflate.window.bits() <= bits);
            let named = format!("; server_max_window_bits={}", deflate.window.bits());
            assert!(deflate.answer().ends_with(&named), "{}", deflate.answer());
        }
        let unbounded = agreed(&["permessage-deflate"]).unwrap();
        assert!(!unbounded.answer().contains("bits"));
        for deflate in [unbounded, agreed(&["permessage-deflate; server_max_window_bits=15"]).unwrap()] {
            assert!(deflate.answer().contains("; server_no_context_takeover; client_no_context_takeover"));
        }
    }

    #[test]
    fn a_line_of_marks_costs_no_more_than_its_bytes() {
        for piece in ["permessage-deflate,", "permessage-deflate;foo,", ";", ",", "\"", "\\\"", "a=\"\\\","] {
            assert!(agreed(&[&piece.repeat(100_000)]).is_none_or(|deflate| Some(deflate) == full()));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_agreed_to_or_declined(text in "[a-z_=;, \"\\\\0-9é-]{0,80}") {
            let _ = agreed(&[&text]);
            let behind = agreed(&[&text, "permessage-deflate; server_max_window_bits=9"]);
            prop_assert!(behind.is_some());
        }
    }
}
