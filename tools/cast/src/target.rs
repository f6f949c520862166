//! From what a person calls a socket (`prompt readme`) to the path it lives at.

use clap::ValueEnum;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What a name on the command line is the name of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A prompt, by id, bare name or unique_id
    Prompt,
    /// A fragment, by id
    Fragment,
    /// The progress of a workflow
    Workflow,
    /// The state of a named agent
    Agent,
    /// An agent session, by its UUID
    Session,
    /// Any path, taken as it is
    Path,
}

impl Kind {
    /// Path and query of the socket that `name` names.
    pub fn path(self, name: &str) -> String {
        match self {
            Kind::Prompt => format!("/ws/prompts/{}", encoded(name, PATH)),
            Kind::Fragment => format!("/ws/prompts/fragments/{}", encoded(name, PATH)),
            Kind::Workflow => format!("/ws/workflow/{}", encoded(name, SEGMENT)),
            Kind::Agent => format!("/ws/agent/{}", encoded(name, SEGMENT)),
            Kind::Session => format!("/api/v1/ws?session_id={}", encoded(name, SEGMENT)),
            // Taken as it is, so that a path no sane client would send can be tried as well.
            Kind::Path if name.starts_with('/') => name.to_owned(),
            Kind::Path => format!("/{name}"),
        }
    }
}

/// A server and one of its sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// As `connect` takes it: an IPv6 address without brackets.
    pub host: String,
    pub port: u16,
    /// Path and query.
    pub path: String,
}

impl Address {
    /// Reads `ws://host[:port][/path]`. `http://` is taken too: people paste what their browser shows.
    pub fn parse(url: &str) -> Result<Address, String> {
        let rest = match url.split_once("://") {
            Some(("ws" | "http", rest)) => rest,
            Some(("wss" | "https", _)) => {
                return Err("TLS is not spoken: probe the server behind the proxy".to_owned());
            }
            Some((scheme, _)) => return Err(format!("unknown scheme {scheme}://, use ws://")),
            None => return Err("a URL begins with ws://".to_owned()),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (host, port) = host_and_port(authority)?;
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Address { host, port, path })
    }

    pub fn with_query(mut self, name: &str, value: &str) -> Address {
        let separator = if self.path.contains('?') { '&' } else { '?' };
        self.path = format!("{}{separator}{name}={}", self.path, encoded(value, SEGMENT));
        self
    }

    /// The value of the Host header; an IPv6 address gets its brackets back.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    pub fn url(&self) -> String {
        format!("ws://{}{}", self.authority(), self.path)
    }
}

fn host_and_port(authority: &str) -> Result<(String, u16), String> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or("an IPv6 address ends with ]")?;
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err(format!("unexpected {rest} after ]")),
            }
        }
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if host.is_empty() {
        return Err("the URL names no host".to_owned());
    }
    let port = match port {
        Some(port) => port.parse().map_err(|_| format!("{port} is not a port"))?,
        None => 80,
    };
    Ok((host.to_owned(), port))
}

/// What may stand unescaped in one segment of a path: RFC 3986's unreserved characters.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Ids of prompts are paths themselves, so their slashes stay.
const PATH: &AsciiSet = &SEGMENT.remove(b'/');

fn encoded(name: &str, keep: &'static AsciiSet) -> String {
    utf8_percent_encode(name, keep).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn names_lead_to_the_paths_of_the_contract() {
        for (kind, name, path) in [
            (Kind::Prompt, "readme", "/ws/prompts/readme"),
            (Kind::Prompt, "a/x/foo", "/ws/prompts/a/x/foo"),
            (Kind::Prompt, "ä b?c#d%", "/ws/prompts/%C3%A4%20b%3Fc%23d%25"),
            (Kind::Fragment, "intro", "/ws/prompts/fragments/intro"),
            (Kind::Workflow, "w/1", "/ws/workflow/w%2F1"),
            (Kind::Agent, "script writer", "/ws/agent/script%20writer"),
            (Kind::Session, "6f9619ff-8b86", "/api/v1/ws?session_id=6f9619ff-8b86"),
            (Kind::Session, "a&b=c", "/api/v1/ws?session_id=a%26b%3Dc"),
            (Kind::Path, "/api/ws/test?x=%2e", "/api/ws/test?x=%2e"),
            (Kind::Path, "v1/echo", "/v1/echo"),
        ] {
            assert_eq!(kind.path(name), path, "{kind:?} {name}");
        }
    }

    #[test]
    fn urls_are_taken_apart_and_put_together_again() {
        for (url, host, port, path, again) in [
            ("ws://127.0.0.1:8080", "127.0.0.1", 8080, "/", "ws://127.0.0.1:8080/"),
            ("ws://localhost/v1/echo", "localhost", 80, "/v1/echo", "ws://localhost:80/v1/echo"),
            ("http://h:1/p?q=/", "h", 1, "/p?q=/", "ws://h:1/p?q=/"),
            ("ws://h:1?q", "h", 1, "/?q", "ws://h:1/?q"),
            ("ws://[::1]:99/x", "::1", 99, "/x", "ws://[::1]:99/x"),
            ("ws://[::1]", "::1", 80, "/", "ws://[::1]:80/"),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!((address.host.as_str(), address.port, address.path.as_str()), (host, port, path), "{url}");
            assert_eq!(address.url(), again);
        }
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for url in [
            "",
            "localhost:8080",
            "wss://h/",
            "ftp://h/",
            "ws://",
            "ws://:80/",
            "ws://h:port/",
            "ws://h:70000/",
            "ws://[::1/",
            "ws://[::1]x/",
        ] {
            assert!(Address::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_query_is_added_behind_another() {
        let address = Address::parse("ws://h:1/p").unwrap().with_query("token", "a+b/c=");
        assert_eq!(address.path, "/p?token=a%2Bb%2Fc%3D");
        assert_eq!(address.with_query("x", "1").path, "/p?token=a%2Bb%2Fc%3D&x=1");
    }
}
