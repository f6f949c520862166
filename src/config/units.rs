//! Values with a unit or a syntax of their own: sizes, spans of time, addresses, networks, dialects.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::suggest::nearest;
use crate::dialect::Name;

/// Bytes: an integer, or text such as `64KiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Size {
    pub fn parse(text: &str) -> Result<Size, String> {
        let text = text.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor = match unit.trim() {
            "" => Some(1),
            unit => SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor),
        };
        let size = number.parse::<u64>().ok().zip(factor);
        match size.and_then(|(number, factor)| number.checked_mul(factor)) {
            Some(bytes) => Ok(Size(bytes)),
            None => Err(format!(
                "`{text}` is not a size: write a whole number of bytes, or one with KiB, MiB or GiB such as \"64KiB\""
            )),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let largest = SIZE_UNITS.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        match largest {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"64KiB\"")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Size, E> {
                u64::try_from(number).map(Size).map_err(|_| E::custom("must not be negative"))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
                Size::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// A count: a whole number, not negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole(pub u64);

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Whole, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Whole, E> {
                Ok(Whole(number))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Whole, E> {
                u64::try_from(number).map(Whole).map_err(|_| E::custom("must not be negative"))
            }
        }
        deserializer.deserialize_u64(Reader)
    }
}

impl Serialize for Whole {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

/// A span of time as people write it: `20s`, `1h 30m`, `30d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl Span {
    pub fn parse(text: &str) -> Result<Span, String> {
        // The library's own words ("time unit needed, for example 15sec or 15ms") speak of more units than we want to
        // teach.
        humantime::parse_duration(text).map(Span).map_err(|_| {
            format!("`{text}` is not a span of time: write a number with ms, s, m, h or d, such as \"20s\"")
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// The address of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

impl Address {
    pub fn parse(text: &str) -> Result<Address, String> {
        // No name lookup: `localhost` may be one address or two, and the safety rule must know which.
        match text.parse() {
            Ok(address) => Ok(Address(address)),
            Err(_) => {
                Err(format!("`{text}` is not an address: write IP:port, such as \"127.0.0.1:8080\" or \"[::1]:8080\""))
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A range of addresses; a bare address is a range of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(pub IpNet);

impl Network {
    pub fn parse(text: &str) -> Result<Network, String> {
        text.parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map(|network| Network(network.trunc()))
            .map_err(|_| format!("`{text}` is not a network: write one such as \"10.0.0.0/8\" or \"::1/128\""))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a dialect that this build has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect(pub Name);

impl Dialect {
    pub fn parse(text: &str) -> Result<Dialect, String> {
        if let Some(name) = Name::parse(text) {
            return Ok(Dialect(name));
        }
        let names = Name::ALL.map(Name::as_str);
        let meant = match nearest(text, names) {
            Some(meant) => format!("; did you mean `{meant}`?"),
            None => String::new(),
        };
        Err(format!("`{text}` is not a dialect ({}){meant}", names.join(", ")))
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// One text or a list of texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Words(pub Vec<String>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Words, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Words, E> {
                Ok(Words(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Words, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = items.next_element()? {
                    words.push(word);
                }
                Ok(Words(words))
            }
        }
        deserializer.deserialize_seq(Reader)
    }
}

/// Reads and writes a unit as the text its `parse` and `Display` speak.
macro_rules! as_text {
    ($($unit:ident),*) => {$(
        impl<'de> Deserialize<'de> for $unit {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$unit, D::Error> {
                $unit::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
            }
        }
    )*};
}

macro_rules! shown_as_text {
    ($($unit:ident),*) => {$(
        impl Serialize for $unit {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}

as_text!(Span, Address, Network, Dialect);
shown_as_text!(Size, Span, Address, Network, Dialect);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes, shown) in [
            ("0", 0, "0B"),
            ("1", 1, "1B"),
            ("1023", 1023, "1023B"),
            ("65536", 65536, "64KiB"),
            ("64KiB", 65536, "64KiB"),
            (" 64 kib ", 65536, "64KiB"),
            ("1MiB", 1 << 20, "1MiB"),
            ("3GiB", 3 << 30, "3GiB"),
            ("7B", 7, "7B"),
        ] {
            assert_eq!(Size::parse(text), Ok(Size(bytes)), "{text}");
            assert_eq!(Size(bytes).to_string(), shown);
            assert_eq!(Size::parse(shown), Ok(Size(bytes)));
        }
        for text in ["", "KiB", "1KB", "1.5MiB", "-1", "1 2", "99999999999999999999", "18446744073709551615KiB", "1é"]
        {
            assert!(Size::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn networks_take_bare_addresses_and_forget_host_bits() {
        for (text, shown) in [("10.1.2.3/8", "10.0.0.0/8"), ("127.0.0.1", "127.0.0.1/32"), ("::1", "::1/128")] {
            assert_eq!(Network::parse(text).map(|network| network.to_string()), Ok(shown.to_owned()));
        }
        for text in ["", "10.0.0.0/33", "example.com", "10.0.0"] {
            assert!(Network::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_are_numbers() {
        for text in ["127.0.0.1:8080", "[::1]:80", "0.0.0.0:0"] {
            assert_eq!(Address::parse(text).map(|address| address.to_string()), Ok(text.to_owned()));
        }
        for text in ["localhost:8080", "127.0.0.1", ":8080", "8080", "127.0.0.1:65536", ""] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }
}
