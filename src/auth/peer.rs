//! Who is at the other end when proxies stand in between: one address per connection, never one the client chose.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Bytes of the longest element believed: a bracketed IPv6 address with an interface's name and a port.
const ELEMENT_BYTES_MAX: usize = 80;

/// The client's address.
///
/// That is `peer`, unless `peer` is a proxy of ours. Then the elements of all `X-Forwarded-For` lines, taken as one list,
/// are walked from the right to the first that is not a proxy of ours. The left end is what the client itself wrote: nginx
/// appends to it, HAProxy adds a second line (PROMISES.md F11), so neither the first element nor the first line means
/// anything. Where every hop is ours the left-most is the client. An element on the walk that is no address makes the
/// whole list worthless: the answer is `peer`.
pub fn client_address<'a>(
    peer: IpAddr,
    forwarded_for_lines: impl Iterator<Item = &'a str>,
    trusted: &[IpNet],
) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let lines: Vec<&str> = forwarded_for_lines.collect();
    let elements = lines.iter().rev().flat_map(|line| line.rsplit(','));
    let mut client = peer;
    for element in elements {
        let element = element.trim_matches([' ', '\t']);
        // RFC 9110 section 5.6.1: a recipient ignores empty elements of a list.
        if element.is_empty() {
            continue;
        }
        match parse_element(element) {
            Some(address) if is_trusted(address, trusted) => client = address,
            Some(address) => return address,
            None => return peer,
        }
    }
    client
}

/// True for an address of a configured proxy. `::ffff:a.b.c.d`, as a dual-stack listener reports it, is `a.b.c.d`.
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|net| net.contains(&address))
}

/// `1.2.3.4`, `1.2.3.4:5`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:5`; IPv6 also with a zone, which is dropped:
/// it names an interface of another machine.
fn parse_element(element: &str) -> Option<IpAddr> {
    if element.len() > ELEMENT_BYTES_MAX {
        return None;
    }
    let address = if let Some(bracketed) = element.strip_prefix('[') {
        let (inside, behind) = bracketed.split_once(']')?;
        if !behind.is_empty() && !is_port(behind.strip_prefix(':')?) {
            return None;
        }
        IpAddr::V6(parse_v6(inside)?)
    } else if element.contains('.') && !element.contains("::") && element.matches(':').count() <= 1 {
        match element.split_once(':') {
            Some((_, port)) if !is_port(port) => return None,
            Some((address, _)) => IpAddr::V4(address.parse::<Ipv4Addr>().ok()?),
            None => IpAddr::V4(element.parse::<Ipv4Addr>().ok()?),
        }
    } else {
        IpAddr::V6(parse_v6(element)?)
    };
    Some(address.to_canonical())
}

fn parse_v6(text: &str) -> Option<Ipv6Addr> {
    let address = match text.split_once('%') {
        Some((address, zone)) if is_zone(zone) => address,
        Some(_) => return None,
        None => text,
    };
    address.parse().ok()
}

fn is_port(text: &str) -> bool {
    // `parse` alone would take `+80`.
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

fn is_zone(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !text.is_empty() && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use proptest::prelude::*;

    fn ours() -> Vec<IpNet> {
        ["127.0.0.1/32", "10.0.0.0/8", "::1/128", "fd00::/8", "fe80::/10"]
            .iter()
            .map(|net| net.parse().unwrap())
            .collect()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn thirty_and_more_vectors() {
        for (peer, lines, expected) in [
            // A peer that is no proxy of ours speaks for itself only.
            ("203.0.113.9", &[][..], "203.0.113.9"),
            ("203.0.113.9", &["198.51.100.1"], "203.0.113.9"),
            ("203.0.113.9", &["127.0.0.1"], "203.0.113.9"),
            ("2001:db8::9", &["198.51.100.1"], "2001:db8::9"),
            // One proxy.
            ("127.0.0.1", &[], "127.0.0.1"),
            ("127.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("127.0.0.1", &["  198.51.100.1\t"], "198.51.100.1"),
            ("::1", &["2001:db8::1"], "2001:db8::1"),
            ("::ffff:127.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("::ffff:203.0.113.9", &["198.51.100.1"], "203.0.113.9"),
            // Spoofed on the left, in one line or in a line of its own.
            ("127.0.0.1", &["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
            ("127.0.0.1", &["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
            ("127.0.0.1", &["198.51.100.1", "1.1.1.1, 198.51.100.2"], "198.51.100.2"),
            ("127.0.0.1", &["garbage, 198.51.100.1"], "198.51.100.1"),
            ("127.0.0.1", &["127.0.0.1, 198.51.100.1"], "198.51.100.1"),
            ("127.0.0.1", &["10.0.0.1", "198.51.100.1"], "198.51.100.1"),
            // Several proxies of ours.
            ("127.0.0.1", &["198.51.100.1, 10.0.0.7"], "198.51.100.1"),
            ("127.0.0.1", &["1.1.1.1, 198.51.100.1, 10.0.0.7, 10.0.0.8"], "198.51.100.1"),
            ("127.0.0.1", &["198.51.100.1", "10.0.0.7"], "198.51.100.1"),
            ("127.0.0.1", &["198.51.100.1, [fd00::5]:444"], "198.51.100.1"),
            ("127.0.0.1", &["10.0.0.9, 10.0.0.8"], "10.0.0.9"),
            ("127.0.0.1", &["198.51.100.1, ::ffff:10.0.0.7"], "198.51.100.1"),
            // Spellings of an address.
            ("127.0.0.1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("127.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("127.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("127.0.0.1", &["2001:DB8:0:0:0:0:0:1"], "2001:db8::1"),
            ("127.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            ("127.0.0.1", &["64:ff9b::198.51.100.1"], "64:ff9b::c633:6401"),
            ("127.0.0.1", &["0:0:0:0:0:ffff:198.51.100.1"], "198.51.100.1"),
            ("127.0.0.1", &["2001:db8::1%eth0"], "2001:db8::1"),
            ("127.0.0.1", &["198.51.100.1, [fe80::1%en-0.1]:80"], "198.51.100.1"),
            ("127.0.0.1", &["198.51.100.1, , ", ""], "198.51.100.1"),
            ("127.0.0.1", &["", ","], "127.0.0.1"),
            // What is no address.
            ("127.0.0.1", &["unknown"], "127.0.0.1"),
            ("127.0.0.1", &["_hidden"], "127.0.0.1"),
            ("127.0.0.1", &["\"198.51.100.1\""], "127.0.0.1"),
            ("127.0.0.1", &["198.51.100.1, for=10.0.0.1"], "127.0.0.1"),
            ("10.0.0.3", &["198.51.100.1, garbage, 10.0.0.7"], "10.0.0.3"),
            ("127.0.0.1", &["198.51.100.1", "garbage"], "127.0.0.1"),
            ("127.0.0.1", &["198.51.100.256"], "127.0.0.1"),
            ("127.0.0.1", &["198.51.100.01"], "127.0.0.1"),
            ("127.0.0.1", &["198.51.100"], "127.0.0.1"),
            ("127.0.0.1", &["0x7f000001"], "127.0.0.1"),
            ("127.0.0.1", &["198.51.100.1:"], "127.0.0.1"),
            ("127.0.0.1", &["198.51.100.1:+80"], "127.0.0.1"),
            ("127.0.0.1", &["198.51.100.1:65536"], "127.0.0.1"),
            ("127.0.0.1", &["198.51.100.1:80:80"], "127.0.0.1"),
            ("127.0.0.1", &["198.51.100.1%eth0"], "127.0.0.1"),
            ("127.0.0.1", &["198.51.100.1 198.51.100.2"], "127.0.0.1"),
            ("127.0.0.1", &["198.51.100.1;198.51.100.2"], "127.0.0.1"),
            ("127.0.0.1", &["[198.51.100.1]"], "127.0.0.1"),
            ("127.0.0.1", &["[2001:db8::1"], "127.0.0.1"),
            ("127.0.0.1", &["2001:db8::1]"], "127.0.0.1"),
            ("127.0.0.1", &["[2001:db8::1]80"], "127.0.0.1"),
            ("127.0.0.1", &["[2001:db8::1]:"], "127.0.0.1"),
            ("127.0.0.1", &["[]"], "127.0.0.1"),
            ("127.0.0.1", &["2001:db8::1%"], "127.0.0.1"),
            ("127.0.0.1", &["2001:db8::1%a%b"], "127.0.0.1"),
            ("127.0.0.1", &["2001:db8:::1"], "127.0.0.1"),
            ("127.0.0.1", &["１９８.51.100.1"], "127.0.0.1"),
        ] {
            let client = client_address(address(peer), lines.iter().copied(), &ours());
            assert_eq!(client, address(expected), "{peer} {lines:?}");
        }
    }

    #[test]
    fn a_proxy_is_known_in_both_spellings_of_its_address() {
        for (peer, expected) in [
            ("10.0.0.7", true),
            ("::ffff:10.0.0.7", true),
            ("fd00::7", true),
            ("11.0.0.7", false),
            ("::ffff:11.0.0.7", false),
            ("::10.0.0.7", false),
        ] {
            assert_eq!(is_trusted(address(peer), &ours()), expected, "{peer}");
        }
    }

    #[test]
    fn without_configured_proxies_nobody_is_believed() {
        let client = client_address(address("127.0.0.1"), ["198.51.100.1"].into_iter(), &[]);
        assert_eq!(client, address("127.0.0.1"));
    }

    #[test]
    fn ten_kilobytes_are_survived() {
        let hops = "10.0.0.1,".repeat(1_200);
        let client = |line: &str| client_address(address("127.0.0.1"), [line].into_iter(), &ours());
        assert_eq!(client(&format!("198.51.100.1,{hops}")), address("198.51.100.1"));
        assert_eq!(client(&"9".repeat(10_240)), address("127.0.0.1"));
        assert_eq!(client(&",".repeat(10_240)), address("127.0.0.1"));
        assert_eq!(client(&"[".repeat(10_240)), address("127.0.0.1"));
        let zone = format!("2001:db8::1%{}", "z".repeat(ELEMENT_BYTES_MAX));
        assert_eq!(client(&zone), address("127.0.0.1"));
    }

    proptest! {
        #[test]
        fn what_a_client_prepends_changes_nothing(forged in "[0-9a-f:.,%\\[\\] \"x]{0,60}") {
            let line = format!("{forged},198.51.100.1, 10.0.0.7");
            let lines = [forged.as_str(), line.as_str()];
            let client = client_address(address("127.0.0.1"), lines.into_iter(), &ours());
            prop_assert_eq!(client, address("198.51.100.1"));
        }

        #[test]
        fn the_answer_is_the_peer_or_was_in_the_list(line in "[0-9a-f:.,%\\[\\] ]{0,60}") {
            let peer = address("127.0.0.1");
            let client = client_address(peer, [line.as_str()].into_iter(), &ours());
            let listed = line.split(',').any(|element| parse_element(element.trim()) == Some(client));
            prop_assert!(client == peer || listed);
        }

        #[test]
        fn every_address_is_read_in_every_spelling(v4: [u8; 4], v6: [u16; 8], port: u16) {
            let v4 = Ipv4Addr::from(v4);
            let v6 = Ipv6Addr::from(v6);
            prop_assert_eq!(parse_element(&v4.to_string()), Some(IpAddr::V4(v4)));
            prop_assert_eq!(parse_element(&format!("{v4}:{port}")), Some(IpAddr::V4(v4)));
            let canonical = IpAddr::V6(v6).to_canonical();
            prop_assert_eq!(parse_element(&v6.to_string()), Some(canonical));
            prop_assert_eq!(parse_element(&format!("[{v6}]:{port}")), Some(canonical));
            prop_assert_eq!(parse_element(&format!("[{v6}%eth0]")), Some(canonical));
        }
    }
}
