//! `Origin` and `X-Forwarded-For`. A page is let in exactly when its tuple, read a second way, is in the list; the
//! client's address is never one that the client could choose: whatever it writes to the left of what our proxies wrote
//! changes nothing.

use std::net::IpAddr;

use commitcast::auth::origin::{Absent, Origins};
use commitcast::auth::peer::{client_address, is_trusted};
use ipnet::IpNet;

use crate::input::Input;

const ALLOWED: [&str; 4] =
    ["https://app.example.com", "https://*.example.org:8443", "http://localhost:5173", "http://[::1]:80"];

pub fn origin_xff(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.byte();
    let text = String::from_utf8_lossy(input.rest()).into_owned();
    match choice % 3 {
        0 => origin(&text),
        1 => rule(&text),
        _ => forwarded(&text, choice),
    }
}

fn origin(text: &str) {
    let allow = ALLOWED.map(str::to_owned);
    let origins = Origins::parse(&allow, Absent::Deny).expect("a good list");
    let lines: Vec<&str> = text.split('\n').collect();
    let expected = lines.len() == 1 && is_listed(text);
    for cookie in [false, true] {
        match origins.check(lines.iter().copied(), cookie) {
            Ok(Some(page)) => assert!(expected && page.as_str() == text, "{text:?} was let in"),
            Ok(None) => panic!("no page, and there was one"),
            Err(reject) => {
                assert!(!expected, "{text:?} was not let in: {reject:?}");
                assert!(!reject.detail.chars().any(char::is_control) && reject.detail.len() < 400);
            }
        }
    }
    let all = Origins::parse(&["*".to_owned()], Absent::Allow).expect("a good list");
    assert!(all.check(lines.iter().copied(), true).is_err() || lines.len() == 1);
}

/// Lower case, the default port written out, and then by letter.
fn is_listed(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let default = match scheme {
        "http" => "80",
        "https" => "443",
        _ => return false,
    };
    let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
        Some((host, port)) => (host, port),
        None => (authority, default),
    };
    let below = |parent: &str| {
        let label = |label: &str| {
            !label.is_empty() && label.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-' || it == b'_')
        };
        host.strip_suffix(parent).is_some_and(|front| front.split('.').all(label)) && host.len() <= 253
    };
    let is_local = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).and_then(|host| host.parse().ok());
    match (scheme, port) {
        ("https", "443") => host == "app.example.com",
        ("https", "8443") => below(".example.org"),
        ("http", "5173") => host == "localhost",
        ("http", "80") => is_local == Some(std::net::Ipv6Addr::LOCALHOST),
        _ => false,
    }
}

/// An entry of the list: an error, or a rule that lets in what it says.
fn rule(text: &str) {
    let Ok(origins) = Origins::parse(&[text.to_owned()], Absent::Deny) else { return };
    let page = text.replacen("*.", "a.b.", 1);
    let is_page = text != "*" && (text.matches("*.").count() == 1 || !text.contains('*'));
    assert!(origins.allows_all() == (text == "*"));
    if is_page && page.len() < 253 {
        assert!(origins.check([page.as_str()].into_iter(), false).is_ok(), "{text:?} does not let in {page:?}");
    }
    if text != "*" && !text.to_ascii_lowercase().contains("invalid") {
        assert!(origins.check(["https://evil.invalid"].into_iter(), false).is_err(), "{text:?} lets in everybody");
    }
}

fn forwarded(text: &str, choice: u8) {
    let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8", "::ffff:0:0/96"][..usize::from(choice >> 2) % 3 + 1]
        .iter()
        .map(|net| net.parse().expect("a good net"))
        .collect();
    let peers = ["10.1.2.3", "192.0.2.1", "::ffff:10.9.9.9", "fd00::1"];
    let peer: IpAddr = peers[usize::from(choice >> 4) % peers.len()].parse().expect("a good address");
    let lines: Vec<&str> = text.split('\n').collect();
    let client = client_address(peer, lines.iter().copied(), &trusted);
    assert_eq!(client, client.to_canonical());
    if !is_trusted(peer, &trusted) {
        assert_eq!(client, peer.to_canonical(), "a stranger's word was believed");
        return;
    }
    // What our proxy adds on the right is what counts, on a line of its own or behind a comma.
    let known: IpAddr = "203.0.113.9".parse().expect("a good address");
    let joined = format!("{text}, 203.0.113.9");
    for lines in [[lines.clone(), vec!["203.0.113.9"]].concat(), joined.split('\n').collect()] {
        let seen = client_address(peer, lines.into_iter(), &trusted);
        assert_eq!(seen, known, "the client chose its address: {text:?}");
    }
    // And what the client adds on the left counts only as long as everything behind it is ours.
    let spoofed = client_address(peer, ["203.0.113.9"].into_iter().chain(lines.iter().copied()), &trusted);
    if !is_trusted(client, &trusted) || client == peer.to_canonical() {
        assert!(spoofed == client || spoofed == known, "{client} became {spoofed}");
        assert!(is_trusted(client, &trusted) || spoofed == client, "the client chose its address: {text:?}");
    }
}
