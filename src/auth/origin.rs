//! Which web pages may connect: the `Origin` header against a list of exact tuples.
//!
//! A browser sends its user's cookies along with any page's WebSocket handshake and asks nobody (cross-site WebSocket
//! hijacking); this check is all that stands in between. So both sides are parsed into (scheme, host, port) and the tuples
//! compared. Text is never compared by prefix or suffix: `https://app.example.com.evil.net` has the right prefix and
//! `https://notapp.example.com` the right suffix.

use std::net::Ipv6Addr;

use crate::http::{Reason, Reject};

/// Bytes of a foreign origin that a refusal repeats.
const SEEN_BYTES_MAX: usize = 200;
/// Bytes of a host name (RFC 1035).
const HOST_BYTES_MAX: usize = 253;

/// What a request without `Origin` gets. Programs send none; a browser always does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    Allow,
    Deny,
}

/// The list of allowed pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origins {
    rules: Vec<Rule>,
    absent: Absent,
}

/// An entry of the list that was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("origin {entry:?}: {why}")]
pub struct OriginRuleError {
    pub entry: String,
    pub why: &'static str,
}

/// An origin that passed: the only text that may be echoed in `Access-Control-Allow-Origin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed<'a>(&'a str);

impl<'a> Allowed<'a> {
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

impl Origins {
    /// Entries are `https://app.example.com[:port]`, `https://*.example.com[:port]` (any number of labels below, not the
    /// name itself), `null`, or `*` for every page.
    pub fn parse(allow: &[String], absent: Absent) -> Result<Origins, OriginRuleError> {
        let rules =
            allow.iter().map(|entry| parse_rule(entry).map_err(|why| OriginRuleError { entry: entry.clone(), why }));
        Ok(Origins { rules: rules.collect::<Result<_, _>>()?, absent })
    }

    /// True when the list holds `*`: then a cookie is no credential worth having, which is the configuration's to say.
    pub fn allows_all(&self) -> bool {
        self.rules.contains(&Rule::All)
    }

    /// Decides over all `Origin` lines of a request. `cookie_credential`: the request's only credential is a cookie.
    pub fn check<'a>(
        &self,
        mut origins: impl Iterator<Item = &'a str>,
        cookie_credential: bool,
    ) -> Result<Option<Allowed<'a>>, Reject> {
        let Some(seen) = origins.next() else {
            return self.check_absent(cookie_credential).map(|()| None);
        };
        // Proxies forward both lines (PROMISES.md F11); whoever picks one picks the attacker's half of the time.
        if origins.next().is_some() {
            return Err(refuse("there is more than one Origin header"));
        }
        let page = parse_page(seen).map_err(|why| refuse(format!("origin \"{}\": {why}", shown(seen))))?;
        if self.rules.iter().any(|rule| rule.fits(&page)) {
            Ok(Some(Allowed(seen)))
        } else {
            Err(refuse(format!("origin \"{}\" is not in origins.allow", shown(seen))))
        }
    }

    fn check_absent(&self, cookie_credential: bool) -> Result<(), Reject> {
        // A program has no cookie jar that somebody else's page can spend; what shows a cookie is a browser, and a
        // browser without Origin is one that was made to hide it.
        if cookie_credential {
            return Err(refuse("there is no Origin header, and a cookie is believed only from an allowed page"));
        }
        match self.absent {
            Absent::Allow => Ok(()),
            Absent::Deny => Err(refuse("there is no Origin header, and origins.absent is \"deny\"")),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    All,
    Exactly(Page),
    /// The host is the part behind `*`, leading dot included, so that the label boundary is part of what is compared.
    Below(Tuple),
}

impl Rule {
    fn fits(&self, page: &Page) -> bool {
        match (self, page) {
            (Rule::All, _) => true,
            (Rule::Exactly(allowed), page) => allowed == page,
            (Rule::Below(parent), Page::At(tuple)) => {
                tuple.scheme == parent.scheme
                    && tuple.port == parent.port
                    && tuple.host.len() > parent.host.len()
                    && tuple.host.ends_with(&parent.host)
            }
            (Rule::Below(_), Page::Opaque) => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Page {
    /// `null`: sandboxed frames, `data:` documents, redirects across origins.
    Opaque,
    At(Tuple),
}

/// Lower case; `port` is `None` where the scheme has no default and none was written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tuple {
    scheme: String,
    host: String,
    port: Option<u16>,
}

fn parse_rule(entry: &str) -> Result<Rule, &'static str> {
    if entry == "*" {
        return Ok(Rule::All);
    }
    let Some((scheme, parent)) = entry.split_once("://*") else {
        return parse_page(entry).map(Rule::Exactly);
    };
    let Some(parent) = parent.strip_prefix('.') else {
        return Err("a * stands for whole labels: write scheme://*.example.com, or * alone for every page");
    };
    let mut tuple = parse_tuple(&format!("{scheme}://{parent}"))?;
    if tuple.host.starts_with('[') || tuple.host.is_empty() {
        return Err("a * goes in front of a host name only");
    }
    tuple.host.insert(0, '.');
    Ok(Rule::Below(tuple))
}

fn parse_page(text: &str) -> Result<Page, &'static str> {
    if text == "null" {
        return Ok(Page::Opaque);
    }
    parse_tuple(text).map(Page::At)
}

fn parse_tuple(text: &str) -> Result<Tuple, &'static str> {
    let (scheme, authority) = text.split_once("://").ok_or("it is not scheme://host[:port]")?;
    let scheme = parse_scheme(scheme)?;
    if authority.contains('@') {
        return Err("it has a user name");
    }
    if authority.contains(['/', '?', '#', '\\']) {
        return Err("it has a path, query or fragment; an origin ends behind host and port");
    }
    let (host, port) = split_port(authority)?;
    let port = match port {
        Some(digits) => Some(parse_port(digits)?),
        None => default_port(&scheme),
    };
    let host = parse_host(&scheme, host)?;
    Ok(Tuple { scheme, host, port })
}

fn parse_scheme(scheme: &str) -> Result<String, &'static str> {
    let valid = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if valid { Ok(scheme.to_ascii_lowercase()) } else { Err("its scheme is malformed") }
}

/// Host with an IPv6 literal's brackets, and the digits behind the colon.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), &'static str> {
    let host_end = match authority.strip_prefix('[') {
        Some(inside) => inside.find(']').ok_or("its IPv6 address is malformed")? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, behind) = authority.split_at(host_end);
    match behind.strip_prefix(':') {
        Some(digits) => Ok((host, Some(digits))),
        None if behind.is_empty() => Ok((host, None)),
        None => Err("its IPv6 address is malformed"),
    }
}

/// As browsers write it: digits, no leading zero.
fn parse_port(digits: &str) -> Result<u16, &'static str> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|_| plain).ok_or("its port is malformed")
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

fn parse_host(scheme: &str, host: &str) -> Result<String, &'static str> {
    if let Some(literal) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = literal.parse().map_err(|_| "its IPv6 address is malformed")?;
        return Ok(format!("[{address}]"));
    }
    // Browsers write `file://` for local files, the one scheme of theirs without a host.
    if host.is_empty() && scheme == "file" {
        return Ok(String::new());
    }
    if !host.is_ascii() {
        return Err("its host is not ASCII; browsers send the xn-- form");
    }
    if host.contains('*') {
        return Err("a * stands for whole labels at the front: write scheme://*.example.com");
    }
    if host.ends_with('.') {
        return Err("its host ends with a dot");
    }
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if host.len() > HOST_BYTES_MAX || !host.split('.').all(label) {
        return Err("its host is malformed");
    }
    Ok(host.to_ascii_lowercase())
}

fn refuse(detail: impl Into<std::borrow::Cow<'static, str>>) -> Reject {
    Reject::new(Reason::Origin, detail)
}

/// A foreign text as a log line and a refusal may hold it.
fn shown(seen: &str) -> String {
    let mut text = String::new();
    for character in seen.chars().filter(|character| !character.is_control()) {
        if text.len() + character.len_utf8() > SEEN_BYTES_MAX {
            break;
        }
        text.push(character);
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use proptest::prelude::*;

    fn origins(allow: &[&str]) -> Origins {
        let allow: Vec<String> = allow.iter().map(|entry| entry.to_string()).collect();
        Origins::parse(&allow, Absent::Allow).unwrap()
    }

    fn passes(origins: &Origins, seen: &str) -> bool {
        match origins.check([seen].into_iter(), false) {
            Ok(Some(allowed)) => {
                assert_eq!(allowed.as_str(), seen);
                true
            }
            Ok(None) => panic!("{seen}: taken for absent"),
            Err(reject) => {
                assert_eq!(reject.reason, Reason::Origin);
                false
            }
        }
    }

    #[test]
    fn exact_tuples() {
        let list = origins(&[
            "https://app.example.com",
            "http://localhost:5173",
            "http://[::1]:3000",
            "https://xn--bcher-kva.example",
            "chrome-extension://abcdefghijklmnop",
            "HTTPS://Shop.Example.com:443",
        ]);
        for (seen, expected) in [
            ("https://app.example.com", true),
            ("https://app.example.com:443", true),
            ("HTTPS://app.example.com", true),
            ("https://APP.example.COM", true),
            ("http://localhost:5173", true),
            ("http://[::1]:3000", true),
            ("http://[0:0:0:0:0:0:0:1]:3000", true),
            ("https://xn--bcher-kva.example", true),
            ("https://XN--bcher-kva.example", true),
            ("chrome-extension://abcdefghijklmnop", true),
            ("https://shop.example.com", true),
            // Look-alikes by suffix and prefix.
            ("https://app.example.com.evil.net", false),
            ("https://notapp.example.com", false),
            ("https://evil-app.example.com", false),
            ("https://app.example.comevil.net", false),
            ("https://app.example.co", false),
            ("https://x.app.example.com", false),
            ("https://example.com", false),
            // Port and scheme.
            ("https://app.example.com:8443", false),
            ("https://app.example.com:80", false),
            ("http://app.example.com", false),
            ("http://app.example.com:443", false),
            ("wss://app.example.com", false),
            ("http://localhost", false),
            ("http://localhost:51730", false),
            ("http://127.0.0.1:5173", false),
            ("http://[::1]", false),
            ("http://[::2]:3000", false),
            ("chrome-extension://abcdefghijklmnoq", false),
            // Malformed, however close.
            ("https://app.example.com.", false),
            ("https://app.example.com@evil.net", false),
            ("https://evil.net@app.example.com", false),
            ("https://user:pass@app.example.com", false),
            ("https://app.example.com/", false),
            ("https://app.example.com/path", false),
            ("https://app.example.com?q", false),
            ("https://app.example.com#f", false),
            ("https://app.example.com\\.evil.net", false),
            ("https://evil.net\\@app.example.com", false),
            ("https://app.example.com:", false),
            ("https://app.example.com:0443", false),
            ("https://app.example.com:+443", false),
            ("https://app.example.com:443:443", false),
            ("https://app.example.com:65979", false),
            ("https://app.example.com:443x", false),
            ("https://app..example.com", false),
            ("https://app.example.com https://evil.net", false),
            ("https://app.example.com, https://app.example.com", false),
            (" https://app.example.com", false),
            ("https://app.example.com\u{0}", false),
            ("https://app.example.com%00", false),
            ("https://%61pp.example.com", false),
            ("https:/app.example.com", false),
            ("https:app.example.com", false),
            ("//app.example.com", false),
            ("app.example.com", false),
            ("://app.example.com", false),
            ("https://", false),
            ("http://[::1:3000", false),
            ("http://[::1]x:3000", false),
            ("http://::1:3000", false),
            ("http://[::1%25lo]:3000", false),
            ("", false),
            // The Unicode spelling, and a Cyrillic look-alike with its true punycode.
            ("https://bücher.example", false),
            ("https://аpp.example.com", false),
            ("https://xn--pp-6kc.example.com", false),
            ("null", false),
            ("NULL", false),
            ("file://", false),
            ("*", false),
            ("https://*", false),
        ] {
            assert_eq!(passes(&list, seen), expected, "{seen:?}");
        }
    }

    #[test]
    fn subdomain_patterns_end_at_a_label() {
        let list = origins(&["https://*.example.com", "http://*.dev.test:8080"]);
        for (seen, expected) in [
            ("https://app.example.com", true),
            ("https://a.b.example.com", true),
            ("https://APP.Example.com", true),
            ("https://app.example.com:443", true),
            ("http://a.dev.test:8080", true),
            ("https://example.com", false),
            ("https://.example.com", false),
            ("https://evilexample.com", false),
            ("https://app.example.com.evil.net", false),
            ("https://app.example.com:8443", false),
            ("http://app.example.com", false),
            ("http://a.dev.test", false),
            ("https://*.example.com", false),
            ("https://app.example.com.", false),
            ("https://evil.net/.example.com", false),
            ("https://evil.net#.example.com", false),
            ("https://evil.net\\.example.com", false),
            ("https://evil@app.example.com", false),
            ("null", false),
        ] {
            assert_eq!(passes(&list, seen), expected, "{seen:?}");
        }
    }

    #[test]
    fn a_star_allows_every_page_and_still_no_malformed_one() {
        let all = origins(&["*"]);
        assert!(all.allows_all());
        for seen in ["https://evil.net", "http://localhost:3000", "null", "file://", "chrome-extension://a"] {
            assert!(passes(&all, seen), "{seen}");
        }
        for seen in ["", "https://a@b", "https://a/", "https://a\r\nX: y", "nullx"] {
            assert!(!passes(&all, seen), "{seen}");
        }
        assert!(!origins(&["https://*.example.com", "null"]).allows_all());
    }

    #[test]
    fn null_and_files_pass_when_listed() {
        assert!(passes(&origins(&["null"]), "null"));
        assert!(!passes(&origins(&["null"]), "file://"));
        assert!(passes(&origins(&["file://"]), "file://"));
        assert!(!passes(&origins(&["file://"]), "null"));
        assert!(!passes(&origins(&[]), "https://app.example.com"));
    }

    #[test]
    fn a_repeated_header_is_refused_even_when_equal_and_allowed() {
        for list in [origins(&["*"]), origins(&["https://a.example"])] {
            for lines in [
                ["https://a.example", "https://a.example"],
                ["https://a.example", "https://evil.net"],
                ["https://evil.net", "https://a.example"],
                ["https://a.example", ""],
            ] {
                assert_eq!(list.check(lines.into_iter(), false).unwrap_err().reason, Reason::Origin);
            }
        }
    }

    #[test]
    fn absence_is_decided_by_setting_and_credential() {
        for (absent, cookie, expected) in [
            (Absent::Allow, false, true),
            (Absent::Allow, true, false),
            (Absent::Deny, false, false),
            (Absent::Deny, true, false),
        ] {
            let list = Origins::parse(&["*".to_string()], absent).unwrap();
            let verdict = list.check(std::iter::empty(), cookie);
            assert_eq!(verdict == Ok(None), expected, "{absent:?} {cookie}");
        }
        // A listed page may use the cookie.
        let list = origins(&["https://a.example"]);
        assert!(list.check(["https://a.example"].into_iter(), true).is_ok());
    }

    #[test]
    fn a_bad_entry_is_named_with_its_fault() {
        for (entry, why) in [
            ("https://app.example.com/", "path"),
            ("app.example.com", "scheme://host"),
            ("https://*example.com", "whole labels"),
            ("https://*", "whole labels"),
            ("https://a.*.example.com", "whole labels"),
            ("https://*.*.example.com", "whole labels"),
            ("https://*.", "malformed"),
            ("https://*.[::1]", "host name only"),
            ("file://*.", "host name only"),
            ("https://u@a.example", "user name"),
            ("https://a.example:0", "port"),
            ("https://bücher.example", "xn--"),
            ("https://a.example.", "dot"),
            ("*.example.com", "scheme://host"),
            ("", "scheme://host"),
        ] {
            let error = Origins::parse(&["*".to_string(), entry.to_string()], Absent::Allow).unwrap_err();
            assert_eq!(error.entry, entry);
            assert!(error.to_string().contains(why), "{entry}: {error}");
        }
    }

    #[test]
    fn a_refusal_repeats_little_and_nothing_that_moves_a_terminal() {
        let list = origins(&[]);
        let seen = format!("https://evil.net\u{1b}[2J\r\n\u{9b}é{}", "é".repeat(500));
        let reject = list.check([seen.as_str()].into_iter(), false).unwrap_err();
        assert!(!reject.detail.contains(char::is_control), "{}", reject.detail);
        assert!(reject.detail.contains("https://evil.net[2Jé"), "{}", reject.detail);
        assert!(shown(&seen).len() <= SEEN_BYTES_MAX && shown(&seen).len() > SEEN_BYTES_MAX - 2);
        let plain = list.check(["https://evil.net"].into_iter(), false).unwrap_err();
        assert_eq!(plain.detail, "origin \"https://evil.net\" is not in origins.allow");
    }

    proptest! {
        #[test]
        fn only_the_listed_host_and_its_children_pass(host in "[a-c.-]{0,6}(example|exampl)?\\.?(com|co)?(\\.evil\\.net)?") {
            let exact = origins(&["https://a.example.com"]);
            let below = origins(&["https://*.example.com"]);
            let seen = format!("https://{host}");
            prop_assert_eq!(passes(&exact, &seen), host == "a.example.com");
            let labels: Vec<&str> = host.split('.').collect();
            let child = labels.len() > 2
                && labels.ends_with(&["example", "com"])
                && labels.iter().all(|label| !label.is_empty());
            prop_assert_eq!(passes(&below, &seen), child);
        }

        #[test]
        fn hostile_bytes_yield_a_verdict(seen in "\\PC{0,40}|[\\x00-\\x7f]{0,40}|https?://[\\[\\]:@/.*0-9a-z]{0,20}") {
            let strict = origins(&["https://a.example.com", "https://*.example.org"]);
            prop_assert!(!passes(&strict, &seen));
            let _ = passes(&origins(&["*"]), &seen);
            let _ = Origins::parse(std::slice::from_ref(&seen), Absent::Deny);
        }
    }
}
