//! Tokens that are not believed any more although they are good: one by its own id, or all of a user's that were issued
//! before a moment.
//!
//! One table for the process, behind a lock that is taken once a handshake and once a walk over the connections, never per
//! message. It holds what the store holds: a ruling is taken over after its commit and before its answer, so that whoever
//! was told that a token is revoked has no handshake with it let in afterwards. (A copy for each change, exchanged as the
//! configuration is, would copy up to `REVOCATIONS_MAX` entries in the writer's turn for each one that is added.)
//!
//! Nothing is forgotten by the clock here: a clock that was set forward for a moment would make good again what was
//! revoked. The store removes a revocation long after it has become pointless, and says so.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::RwLock;

use super::Proof;

/// What a revocation is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The token with this `jti`.
    Token(Arc<str>),
    /// The tokens that name this user, in `sub` or `user_id`, and were issued before this second (or do not say when).
    User(Arc<str>, i64),
}

/// A change of what is revoked, on its way from its commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    Revoked(Subject),
    Restored(Subject),
}

#[derive(Debug, Default)]
pub struct Revocations {
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    tokens: HashSet<Arc<str>, foldhash::quality::RandomState>,
    /// The second before which.
    users: HashMap<Arc<str>, i64, foldhash::quality::RandomState>,
}

impl Revocations {
    pub fn apply(&self, ruling: Ruling) {
        let mut table = self.table.write();
        match ruling {
            Ruling::Revoked(Subject::Token(jti)) => {
                table.tokens.insert(jti);
            }
            Ruling::Revoked(Subject::User(user, before)) => {
                table.users.insert(user, before);
            }
            Ruling::Restored(Subject::Token(jti)) => {
                table.tokens.remove(&jti);
            }
            Ruling::Restored(Subject::User(user, _)) => {
                table.users.remove(&user);
            }
        }
    }

    /// Is what was proven for this user revoked?
    pub fn holds(&self, user: &str, proof: &Proof) -> bool {
        let table = self.table.read();
        // Mostly there are none, and then nothing is hashed.
        let by_id = |jti: &Arc<str>| !table.tokens.is_empty() && table.tokens.contains(jti);
        let by_name = |name: &str| {
            let before = if table.users.is_empty() { None } else { table.users.get(name) };
            before.is_some_and(|before| proof.issued_at.is_none_or(|at| at < *before))
        };
        proof.jti.as_ref().is_some_and(by_id) || by_name(user) || proof.other_name.as_deref().is_some_and(by_name)
    }

    pub fn len(&self) -> usize {
        let table = self.table.read();
        table.tokens.len() + table.users.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof(jti: Option<&str>, other_name: Option<&str>, issued_at: Option<i64>) -> Proof {
        let (jti, other_name) = (jti.map(Arc::from), other_name.map(Arc::from));
        Proof { jti, other_name, issued_at, ..Proof::default() }
    }

    #[test]
    fn a_token_is_revoked_by_its_id_and_a_user_by_the_time() {
        let revoked = Revocations::default();
        assert!(revoked.is_empty() && !revoked.holds("ann", &proof(Some("t"), None, None)));
        revoked.apply(Ruling::Revoked(Subject::Token("t".into())));
        revoked.apply(Ruling::Revoked(Subject::User("bob".into(), 100)));
        assert_eq!(revoked.len(), 2);
        for (user, jti, other, issued_at, expected) in [
            ("ann", Some("t"), None, None, true),
            ("ann", Some("t"), None, Some(1_000), true),
            ("ann", Some("T"), None, None, false),
            ("ann", None, None, None, false),
            // A user's name is no token's id, and the other way round.
            ("t", None, None, None, false),
            ("ann", Some("bob"), None, None, false),
            ("bob", None, None, Some(99), true),
            ("bob", Some("u"), None, Some(99), true),
            ("bob", None, None, None, true),
            ("bob", None, None, Some(100), false),
            ("bob", Some("t"), None, Some(100), true),
            ("bobby", None, None, None, false),
            // By whichever claim the dialect calls him.
            ("account-7", None, Some("bob"), Some(99), true),
            ("account-7", None, Some("bob"), Some(100), false),
        ] {
            assert_eq!(revoked.holds(user, &proof(jti, other, issued_at)), expected, "{user} {jti:?} {issued_at:?}");
        }
        revoked.apply(Ruling::Restored(Subject::Token("t".into())));
        revoked.apply(Ruling::Restored(Subject::User("bob".into(), 100)));
        assert!(revoked.is_empty() && !revoked.holds("bob", &proof(Some("t"), None, None)));
    }
}
