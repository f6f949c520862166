//! Who may do what in which room: patterns of room names with verbs, default deny.

use crate::limits::ROOM_NAME_BYTES_MAX;

/// What can be asked of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Verb {
    Read = 0,
    Write = 1,
    Signal = 2,
    Presence = 3,
    Approve = 4,
}

impl Verb {
    pub const ALL: [Verb; 5] = [Verb::Read, Verb::Write, Verb::Signal, Verb::Presence, Verb::Approve];

    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Read => "read",
            Verb::Write => "write",
            Verb::Signal => "signal",
            Verb::Presence => "presence",
            Verb::Approve => "approve",
        }
    }

    pub fn parse(text: &str) -> Option<Verb> {
        Verb::ALL.into_iter().find(|verb| verb.as_str() == text)
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of grants. The empty one, which is the default, allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    grants: Vec<Grant>,
}

/// Why a set of grants was not understood. A typing error must be heard of, not become a silent denial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RightsError {
    #[error("a room pattern is empty or longer than 256 bytes")]
    PatternLength,
    #[error("a room pattern has a * before its end")]
    PatternStar,
    #[error("a room pattern is there twice")]
    PatternRepeated,
    #[error("a verb is none of read, write, signal, presence, approve")]
    Verb,
}

impl Rights {
    /// Every verb in every room.
    pub fn all() -> Rights {
        Rights { grants: vec![Grant { pattern: Box::from("*"), verbs: u8::MAX }] }
    }

    /// Grants as the claim `rooms` and `auth.default_rights` write them: `{"doc:*": ["read", "write"]}`.
    pub fn parse<'a, V>(grants: impl IntoIterator<Item = (&'a str, V)>) -> Result<Rights, RightsError>
    where
        V: IntoIterator<Item = &'a str>,
    {
        let mut rights = Rights::default();
        for (pattern, verbs) in grants {
            check_pattern(pattern)?;
            // JSON parsers disagree about which of two equal keys holds; issuer and server must not.
            if rights.grants.iter().any(|grant| &*grant.pattern == pattern) {
                return Err(RightsError::PatternRepeated);
            }
            let mut bits = 0;
            for verb in verbs {
                bits |= Verb::parse(verb).ok_or(RightsError::Verb)?.bit();
            }
            rights.grants.push(Grant { pattern: Box::from(pattern), verbs: bits });
        }
        Ok(rights)
    }

    pub fn allows(&self, room: &str, verb: Verb) -> bool {
        self.grants.iter().any(|grant| grant.verbs & verb.bit() != 0 && fits(&grant.pattern, room))
    }

    /// The grants again, for whoever writes them down.
    pub fn grants(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = Verb>)> {
        self.grants.iter().map(|grant| {
            let verbs = Verb::ALL.into_iter().filter(|verb| grant.verbs & verb.bit() != 0);
            (&*grant.pattern, verbs)
        })
    }
}

/// True when `name` is what `pattern` says; a `*` at the pattern's end stands for any rest, also an empty one.
///
/// No other wildcard on purpose: a prefix test cannot backtrack, and nobody misreads it.
pub fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Grant {
    pattern: Box<str>,
    /// A union of [`Verb::bit`].
    verbs: u8,
}

fn check_pattern(pattern: &str) -> Result<(), RightsError> {
    if pattern.is_empty() || pattern.len() > ROOM_NAME_BYTES_MAX {
        return Err(RightsError::PatternLength);
    }
    match pattern.find('*') {
        Some(at) if at + 1 != pattern.len() => Err(RightsError::PatternStar),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use proptest::prelude::*;

    fn rights(grants: &[(&str, &[&str])]) -> Result<Rights, RightsError> {
        Rights::parse(grants.iter().map(|(pattern, verbs)| (*pattern, verbs.iter().copied())))
    }

    #[test]
    fn a_grant_reaches_exactly_its_rooms_and_verbs() {
        let rights = rights(&[
            ("doc:*", &["read", "write"]),
            ("doc:secret", &["approve"]),
            ("logs", &["read"]),
            ("mute:*", &[]),
        ])
        .unwrap();
        for (room, verb, expected) in [
            ("doc:readme", Verb::Read, true),
            ("doc:readme", Verb::Write, true),
            ("doc:readme", Verb::Approve, false),
            ("doc:secret", Verb::Approve, true),
            ("doc:secret", Verb::Write, true),
            ("doc:secret2", Verb::Approve, false),
            ("doc:", Verb::Read, true),
            ("doc", Verb::Read, false),
            ("DOC:readme", Verb::Read, false),
            ("xdoc:readme", Verb::Read, false),
            ("logs", Verb::Read, true),
            ("logs", Verb::Signal, false),
            ("logs2", Verb::Read, false),
            ("log", Verb::Read, false),
            ("mute:a", Verb::Read, false),
            ("", Verb::Read, false),
        ] {
            assert_eq!(rights.allows(room, verb), expected, "{room} {verb:?}");
        }
    }

    #[test]
    fn nothing_is_allowed_by_default_and_everything_by_all() {
        for verb in Verb::ALL {
            assert!(!Rights::default().allows("doc:readme", verb));
            assert!(Rights::all().allows("doc:readme", verb));
            assert!(Rights::all().allows("", verb));
        }
    }

    #[test]
    fn a_typing_error_is_named() {
        let long = "a".repeat(ROOM_NAME_BYTES_MAX + 1);
        for (pattern, verbs, expected) in [
            ("", &["read"][..], RightsError::PatternLength),
            (&long, &["read"], RightsError::PatternLength),
            ("doc:*:x", &["read"], RightsError::PatternStar),
            ("**", &["read"], RightsError::PatternStar),
            ("doc:*", &["Read"], RightsError::Verb),
            ("doc:*", &["read", "delete"], RightsError::Verb),
            ("doc:*", &["*"], RightsError::Verb),
        ] {
            assert_eq!(rights(&[(pattern, verbs)]), Err(expected), "{pattern} {verbs:?}");
        }
        assert_eq!(rights(&[("a", &["read"]), ("a", &["write"])]), Err(RightsError::PatternRepeated));
    }

    #[test]
    fn grants_are_read_back_as_written() {
        let rights = rights(&[("doc:*", &["read", "approve"]), ("logs", &["signal"])]).unwrap();
        let written: Vec<(&str, Vec<&str>)> =
            rights.grants().map(|(pattern, verbs)| (pattern, verbs.map(Verb::as_str).collect())).collect();
        assert_eq!(written, [("doc:*", vec!["read", "approve"]), ("logs", vec!["signal"])]);
    }

    /// The decider without cleverness: character by character, verb names compared as text.
    fn reference(grants: &[(String, Vec<&'static str>)], room: &str, verb: &str) -> bool {
        for (pattern, verbs) in grants {
            let mut wanted = pattern.chars();
            let mut given = room.chars();
            let matches = loop {
                match (wanted.next(), given.next()) {
                    (Some('*'), _) => break true,
                    (None, None) => break true,
                    (Some(a), Some(b)) if a == b => {}
                    _ => break false,
                }
            };
            if matches && verbs.contains(&verb) {
                return true;
            }
        }
        false
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn the_decision_equals_the_references(
            grants in proptest::collection::btree_map(
                "[ab:é]{1,3}\\*?|\\*",
                proptest::collection::vec(
                    proptest::sample::select(vec!["read", "write", "signal", "presence", "approve"]), 0..3),
                0..4),
            room in "[ab:é*]{0,4}",
        ) {
            let grants: Vec<(String, Vec<&'static str>)> = grants.into_iter().collect();
            let rights = Rights::parse(
                grants.iter().map(|(pattern, verbs)| (pattern.as_str(), verbs.iter().copied()))).unwrap();
            for verb in Verb::ALL {
                prop_assert_eq!(rights.allows(&room, verb), reference(&grants, &room, verb.as_str()));
            }
        }
    }
}
