//! Request heads. Whatever the bytes: a verdict; the same at each length from which on there is one, so that it cannot
//! depend on how the network cut them; a head is taken exactly when a second reading of the rules, written from the
//! RFCs and README's table, takes it, and says the same of it; and what asks for a WebSocket is let in exactly when RFC
//! 6455, 4.2.1 is met.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use commitcast::http::{self, Head, Method, Reason, Reject, upgrade};
use commitcast::limits::{HEAD_BYTES_MAX, HEADER_LINE_BYTES_MAX, HEADERS_MAX, TARGET_BYTES_MAX};

use crate::input::{Input, lengths};

type Verdict<'b> = Result<Option<(Head<'b>, usize)>, Reject>;

pub fn head(data: &[u8]) {
    let mut input = Input::new(data);
    let key = input.byte();
    let bytes = input.rest();
    let whole = http::head::parse(bytes);
    splits_say_the_same(key, bytes, &whole);
    let second = section_end(bytes).and_then(|used| Reading::of(&bytes[..used]));
    match (&whole, &second) {
        (Ok(Some((head, used))), Some(reading)) => {
            assert_eq!(*used, section_end(bytes).unwrap_or(0), "it ends where its empty line does");
            reading.compare(head);
            use_of(head);
        }
        (Ok(Some((head, _))), None) => panic!("taken, although a rule is broken: {head:?}"),
        (Err(reject), Some(_)) => panic!("refused, although no rule is broken: {reject:?}"),
        (Ok(None), Some(_)) => panic!("the head is there, and more is waited for"),
        (Ok(None), None) => assert!(bytes.len() < HEAD_BYTES_MAX, "more is waited for than a head may have"),
        (Err(_), None) => {}
    }
}

/// From the first length on at which there is a verdict, it is the verdict.
fn splits_say_the_same(key: u8, bytes: &[u8], whole: &Verdict<'_>) {
    // Parsing begins anew each time: as many steps as keep it within the square of a short head.
    let lengths = lengths(if bytes.len() > 600 { key | 128 } else { key }, bytes.len());
    let mut length = 0;
    for step in lengths {
        length += step;
        match (http::head::parse(&bytes[..length]), whole) {
            (Ok(None), _) => {}
            (Ok(Some((head, used))), Ok(Some((whole, whole_used)))) => {
                assert_eq!(used, *whole_used);
                assert_eq!(facts(&head), facts(whole));
                return;
            }
            (Err(reject), Err(whole)) => {
                assert_eq!((reject.reason, &reject.detail), (whole.reason, &whole.detail), "after {length} bytes");
                return;
            }
            (early, whole) => panic!("after {length} bytes {early:?}, and of all {whole:?}"),
        }
    }
    assert!(matches!(whole, Ok(None)) || bytes.is_empty(), "no verdict piece by piece, and of all {whole:?}");
}

type Facts<'b> = (Method, &'b str, &'b str, Option<u64>, bool, Vec<(&'b str, &'b str)>);

fn facts<'b>(head: &Head<'b>) -> Facts<'b> {
    (head.method, head.target, head.host, head.content_length, head.keep_alive, head.headers().collect())
}

/// Behind the first empty line that ends a head within its bound; leading empty lines are none.
fn section_end(bytes: &[u8]) -> Option<usize> {
    let window = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    let lead = leading(window);
    window[lead..].windows(4).position(|four| four == b"\r\n\r\n").map(|at| lead + at + 4)
}

fn leading(bytes: &[u8]) -> usize {
    bytes.chunks(2).take(2).take_while(|two| two == b"\r\n").count() * 2
}

/// A head as somebody else would read it: whole, line by line.
struct Reading<'b> {
    method: &'b str,
    target: &'b str,
    fields: Vec<(&'b str, &'b str)>,
}

impl<'b> Reading<'b> {
    /// None where a rule is broken.
    fn of(section: &'b [u8]) -> Option<Reading<'b>> {
        let text = std::str::from_utf8(&section[leading(section)..]).ok().filter(|text| text.is_ascii())?;
        let mut lines = text.strip_suffix("\r\n\r\n")?.split("\r\n");
        let words: Vec<&str> = lines.next()?.split(' ').collect();
        let [method, target, "HTTP/1.1"] = words[..] else { return None };
        let upper = |byte: u8| is_token_byte(byte) && !byte.is_ascii_lowercase();
        let is_method = !method.is_empty() && method.len() <= 32 && method.bytes().all(upper) && method != "PRI";
        let graphic = |byte: u8| (0x21..=0x7e).contains(&byte) && byte != b'#';
        let is_target = target.starts_with('/') && target.len() <= TARGET_BYTES_MAX && target.bytes().all(graphic);
        let lines: Vec<&str> = lines.collect();
        let fits = lines.len() <= HEADERS_MAX && lines.iter().all(|line| line.len() <= HEADER_LINE_BYTES_MAX);
        if !is_method || !is_target || !fits || climbs(target.split('?').next().unwrap_or(target)) {
            return None;
        }
        let fields = lines.into_iter().map(field).collect::<Option<Vec<_>>>()?;
        Some(Reading { method, target, fields }).filter(Reading::is_sound)
    }

    fn all(&self, name: &str) -> Vec<&'b str> {
        self.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value).collect()
    }

    fn is_sound(&self) -> bool {
        let lengths = self.all("content-length");
        let is_length = |text: &&str| {
            text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse().is_ok_and(|it: u64| it <= 1 << 53)
        };
        matches!(self.all("host")[..], [host] if is_authority(host))
            && lengths.len() <= 1
            && lengths.iter().all(is_length)
            && self.all("transfer-encoding").is_empty()
            && self.all("expect").is_empty()
    }

    fn tokens(&self, name: &str) -> Vec<String> {
        let all = self.all(name).join(",");
        all.split(',')
            .map(|one| one.trim_matches([' ', '\t']).to_ascii_lowercase())
            .filter(|one| !one.is_empty())
            .collect()
    }

    fn compare(&self, head: &Head<'_>) {
        let method = match self.method {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "DELETE" => Method::Delete,
            "OPTIONS" => Method::Options,
            "PATCH" => Method::Patch,
            _ => Method::Other,
        };
        let length = self.all("content-length").first().and_then(|text| text.parse().ok());
        let keep_alive = !self.tokens("connection").contains(&"close".to_owned());
        let host = self.all("host")[0];
        assert_eq!(facts(head), (method, self.target, host, length, keep_alive, self.fields.clone()));
        assert_eq!(head.query, self.target.split_once('?').map(|(_, query)| query));
        let expected = self.upgrade(method, length);
        match upgrade::check(head) {
            Ok(upgrade) => {
                assert!(expected, "let in, although RFC 6455 is not met: {:?}", self.fields);
                assert!(STANDARD.decode(upgrade.accept).is_ok_and(|digest| digest.len() == 20));
                assert!(upgrade.protocols.iter().all(|protocol| protocol.bytes().all(is_token_byte)));
            }
            Err(reject) => assert!(!expected, "{reject:?}, although RFC 6455 is met: {:?}", self.fields),
        }
    }

    fn upgrade(&self, method: Method, length: Option<u64>) -> bool {
        let has = |name: &str, token: &str| self.tokens(name).contains(&token.to_owned());
        method == Method::Get
            && length.is_none_or(|length| length == 0)
            && has("upgrade", "websocket")
            && has("connection", "upgrade")
            && self.all("sec-websocket-version") == ["13"]
            && matches!(self.all("sec-websocket-key")[..], [key] if is_key(key))
    }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn field(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(':')?;
    let is_value = value.bytes().all(|byte| byte == b'\t' || (0x20..=0x7e).contains(&byte));
    let is_name = !name.is_empty() && name.bytes().all(is_token_byte);
    (is_name && is_value).then(|| (name, value.trim_matches([' ', '\t'])))
}

/// A segment of the decoded path is `.` or `..`.
fn climbs(path: &str) -> bool {
    let mut decoded = Vec::new();
    let bytes = path.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let hex =
            path.get(at + 1..at + 3).filter(|hex| bytes[at] == b'%' && hex.bytes().all(|it| it.is_ascii_hexdigit()));
        decoded.push(hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).unwrap_or(bytes[at]));
        at += if hex.is_some() { 3 } else { 1 };
    }
    decoded.split(|byte| *byte == b'/').any(|segment| segment == b"." || segment == b"..")
}

fn is_authority(host: &str) -> bool {
    let (name, port) = match host.rfind(':').filter(|at| !host[*at..].contains(']')) {
        Some(at) => (&host[..at], Some(&host[at + 1..])),
        None => (host, None),
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let is_name = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
                && name.bytes().any(|byte| byte.is_ascii_alphanumeric())
        }
    };
    is_name && port.is_none_or(is_port)
}

/// 16 bytes: 22 characters of base64 and two marks. Bits of the last character that no byte needs do not matter.
fn is_key(key: &str) -> bool {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    key.len() == 24 && key.ends_with("==") && key.bytes().take(22).all(is_base64)
}

/// What is made of a head later.
fn use_of(head: &Head<'_>) {
    match http::decode_path(head.path) {
        Ok(path) => assert!(!path.chars().any(char::is_control)),
        Err(reject) => assert_eq!(reject.reason, Reason::BadTarget),
    }
    for name in ["token", "session_id", ""] {
        let _ = http::query_param(head.query, name);
    }
    assert!(!format!("{head:?}").contains('\r'));
}
