//! Revocations: tokens that are not to be believed any more although they are good, ordered by a backend that has the
//! right `revocations`, kept in the store, and held in memory by [`crate::auth::revoked`].
//!
//! Each is about one token (its `jti`) or about a user, of whom it hits what was issued before a moment, so that he may log
//! in anew. Said again it is the same one, and only ever reaches further: later tokens, a longer time. Only a backend takes
//! one back; what it is about may be forgotten after `until`, where that was said, because all of it has expired by then.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::answers::{Asked, Way};
use super::fault::Fault;
use super::wire::{self, Facts};
use crate::auth::revoked::{Ruling, Subject};
use crate::clock::Wall;
use crate::dialect::{Applied, Asker, Env, time};
use crate::http::Response;
use crate::ids::RoomName;
use crate::limits::{REVOCATION_KEPT, REVOCATIONS_DUE_MAX, REVOCATIONS_MAX};
use crate::model::{Record, Rows, RowsError, Shelf, Transaction};

/// How many are read at a time when the server starts.
const PAGE: usize = 1000;

/// What a revocation is about.
#[derive(Clone, Debug, PartialEq)]
pub enum About {
    /// By its `jti`.
    Token(String),
    User(String),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub about: About,
    /// Unix seconds; of a user, absent: now.
    pub before: Option<i64>,
    /// Unix seconds after which nothing that it is about is valid any more.
    pub until: Option<i64>,
}

/// All of them take their turns in one order.
pub fn room() -> RoomName {
    RoomName::new("revocations")
}

impl About {
    fn parts(&self) -> (&'static str, &str) {
        match self {
            About::Token(jti) => (TOKEN, jti),
            About::User(user) => (USER, user),
        }
    }
}

const TOKEN: &str = "token";
const USER: &str = "user";

/// A revocation as it is stored: what it is about stands in the record's own columns, to be found by.
#[derive(Debug)]
struct Stored {
    record: Record,
    terms: Terms,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Terms {
    before: Option<i64>,
    until: Option<i64>,
    by: String,
}

impl Stored {
    fn new(about: &About, by: &str, rows: &mut dyn Transaction) -> Stored {
        let (kind, name) = about.parts();
        let record = Record {
            shelf: Shelf::Revocation,
            id: format!("{:032x}", rows.random()),
            parent: name.to_owned(),
            state: kind.to_owned(),
            due: None,
            created_at: rows.at(),
            updated_at: rows.at(),
            body: Bytes::new(),
        };
        Stored { record, terms: Terms { by: by.to_owned(), ..Terms::default() } }
    }

    /// What cannot be read must not be passed over: that would make good again what was revoked.
    fn of(record: Record) -> Result<Stored, RowsError> {
        let broken = |why: String| RowsError::Broken(format!("the revocation {}: {why}", record.id));
        let terms: Terms = serde_json::from_slice(&record.body).map_err(|error| broken(error.to_string()))?;
        match (record.state.as_str(), terms.before) {
            (TOKEN, _) | (USER, Some(_)) => Ok(Stored { record, terms }),
            _ => Err(broken("it is about neither a token nor a user".to_owned())),
        }
    }

    fn find(about: &About, rows: &mut dyn Rows) -> Result<Option<Stored>, RowsError> {
        let (kind, name) = about.parts();
        let found = rows.records(Shelf::Revocation, Some(name), Some(kind), 0, 1)?;
        found.into_iter().next().map(Stored::of).transpose()
    }

    fn subject(&self) -> Subject {
        let name = Arc::from(self.record.parent.as_str());
        match self.terms.before {
            Some(before) if self.record.state == USER => Subject::User(name, before),
            _ => Subject::Token(name),
        }
    }

    fn put(&mut self, rows: &mut dyn Transaction) -> Result<(), RowsError> {
        self.record.due = self.terms.until.map(kept_until);
        self.record.updated_at = rows.at();
        self.record.body = Bytes::from(serde_json::to_vec(&self.terms).unwrap_or_default());
        rows.put_record(&self.record)
    }

    fn facts(&self) -> Facts<'_> {
        let name = Some(self.record.parent.as_str());
        let is_user = self.record.state == USER;
        Facts {
            revocation: Some(&self.record.id),
            jti: name.filter(|_| !is_user),
            user: name.filter(|_| is_user),
            before: self.terms.before,
            until: self.terms.until,
            by: Some(&self.terms.by),
            created_at: Some(time::zulu(self.record.created_at)),
            ..Facts::default()
        }
    }
}

fn kept_until(until: i64) -> Wall {
    let kept = until.saturating_add_unsigned(REVOCATION_KEPT.as_secs());
    Wall(kept.saturating_mul(1_000_000))
}

pub fn revoke(
    wanted: &Wanted,
    asked: &Asked,
    asker: &Asker,
    rows: &mut dyn Transaction,
    env: &Env,
) -> Result<Applied, RowsError> {
    let found = Stored::find(&wanted.about, rows)?;
    let was_there = found.is_some();
    // Of what this very transaction adds nothing is counted: a batch more than the bound does no harm.
    if !was_there && env.revoked.len() >= REVOCATIONS_MAX {
        return Ok(Applied::only(asked.ill(&Fault::too_many_revocations(), Facts::default())));
    }
    let mut stored = match found {
        Some(stored) => stored,
        None => Stored::new(&wanted.about, &asker.actor, rows),
    };
    if matches!(wanted.about, About::User(_)) {
        // Times of issue are whole seconds. This second's tokens are older than this order, or cannot be told from such.
        let before = wanted.before.unwrap_or(rows.at().unix_seconds().saturating_add(1));
        stored.terms.before = stored.terms.before.max(Some(before));
    }
    stored.terms.until = match (was_there, stored.terms.until, wanted.until) {
        (false, _, until) => until,
        (true, Some(old), Some(new)) => Some(old.max(new)),
        // For ever is the longest.
        (true, _, _) => None,
    };
    stored.put(rows)?;
    let reply = asked.well(if was_there { Way::Found } else { Way::Made }, stored.facts());
    Ok(Applied { rulings: vec![Ruling::Revoked(stored.subject())], ..Applied::only(reply) })
}

pub fn restore(id: &str, asked: &Asked, rows: &mut dyn Transaction) -> Result<Applied, RowsError> {
    let Some(record) = rows.record(Shelf::Revocation, id)? else {
        return Ok(Applied::only(asked.ill(&Fault::no_such_revocation(), Facts::default())));
    };
    let stored = Stored::of(record)?;
    rows.delete_record(Shelf::Revocation, id)?;
    let reply = asked.well(Way::Found, stored.facts());
    Ok(Applied { rulings: vec![Ruling::Restored(stored.subject())], ..Applied::only(reply) })
}

/// Removes what nobody needs any more.
pub fn due(rows: &mut dyn Transaction) -> Result<Vec<Ruling>, RowsError> {
    let mut rulings = Vec::new();
    let at = rows.at();
    for record in rows.due(at, REVOCATIONS_DUE_MAX)?.into_iter().filter(|record| record.shelf == Shelf::Revocation) {
        let stored = Stored::of(record)?;
        rows.delete_record(Shelf::Revocation, &stored.record.id)?;
        rulings.push(Ruling::Restored(stored.subject()));
    }
    Ok(rulings)
}

/// What is revoked, out of the store.
pub fn remember(rows: &mut dyn Rows, env: &Env) -> Result<usize, RowsError> {
    let mut count = 0;
    loop {
        let page = rows.records(Shelf::Revocation, None, None, count, PAGE)?;
        if page.is_empty() {
            return Ok(count);
        }
        count += page.len();
        for record in page {
            env.revoked.apply(Ruling::Revoked(Stored::of(record)?.subject()));
        }
    }
}

pub fn list(about: Option<&About>, skip: usize, limit: usize, rows: &mut dyn Rows) -> Result<Response, RowsError> {
    let (kind, name) = about.map(About::parts).unzip();
    let records = rows.records(Shelf::Revocation, name, kind, skip, limit)?;
    let stored = records.into_iter().map(Stored::of).collect::<Result<Vec<Stored>, RowsError>>()?;
    let views: Vec<Facts<'_>> = stored.iter().map(Stored::facts).collect();
    Ok(wire::revocations(&views))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::super::answers::Via;
    use super::super::testing::{asker, response, said};
    use super::*;
    use crate::dialect::fake::Fake;

    const NOW: i64 = 1_747_101_540;

    fn rows() -> Fake {
        Fake { at: Wall(NOW * 1_000_000 + 400_000), ..Fake::default() }
    }

    fn token(jti: &str) -> About {
        About::Token(jti.to_owned())
    }

    fn user(name: &str) -> About {
        About::User(name.to_owned())
    }

    fn asked() -> Asked {
        Asked { via: Via::Http, id: None }
    }

    /// The answer without the id, which is random, and what is ruled.
    fn order(about: About, before: Option<i64>, until: Option<i64>, rows: &mut Fake) -> (String, Vec<Ruling>) {
        let wanted = Wanted { about, before, until };
        let applied = revoke(&wanted, &asked(), &asker(), rows, &Env::default()).unwrap();
        let told = said(&applied.reply);
        let (start, rest) = told.split_once(r#""revocation":""#).unwrap();
        (start.to_owned() + rest.split_once("\",").unwrap().1, applied.rulings)
    }

    #[test]
    fn a_revocation_is_answered_with_what_holds_and_only_ever_reaches_further() {
        let mut rows = rows();
        let revoked = |subject| vec![Ruling::Revoked(subject)];
        let by = r#""by":"worker","created_at":"2025-05-13T01:59:00.400000Z"}"#;
        let the_token = revoked(Subject::Token("t".into()));
        let of_ann = |before| revoked(Subject::User("ann".into(), before));
        for (about, before, until, answer, rulings) in [
            (token("t"), None, Some(7), format!(r#"201 {{"jti":"t","until":7,{by}"#), &the_token),
            (token("t"), None, Some(5), format!(r#"200 {{"jti":"t","until":7,{by}"#), &the_token),
            (token("t"), None, Some(9), format!(r#"200 {{"jti":"t","until":9,{by}"#), &the_token),
            (token("t"), None, None, format!(r#"200 {{"jti":"t",{by}"#), &the_token),
            (token("t"), None, Some(9), format!(r#"200 {{"jti":"t",{by}"#), &the_token),
            // This second's tokens too.
            (user("ann"), None, None, format!(r#"201 {{"user":"ann","before":{},{by}"#, NOW + 1), &of_ann(NOW + 1)),
            (user("ann"), Some(5), None, format!(r#"200 {{"user":"ann","before":{},{by}"#, NOW + 1), &of_ann(NOW + 1)),
            (
                user("ann"),
                Some(NOW + 9),
                None,
                format!(r#"200 {{"user":"ann","before":{},{by}"#, NOW + 9),
                &of_ann(NOW + 9),
            ),
        ] {
            let told = order(about.clone(), before, until, &mut rows);
            assert_eq!(told, (answer, rulings.clone()), "{about:?} {before:?} {until:?}");
        }
        assert_eq!(rows.records.len(), 2);
    }

    #[test]
    fn what_is_stored_is_remembered_at_the_next_start_and_listed() {
        let mut rows = rows();
        order(token("t"), None, None, &mut rows);
        order(user("t"), Some(100), None, &mut rows);
        order(user("ann"), Some(200), None, &mut rows);
        let env = Env::default();
        assert_eq!(remember(&mut rows, &env).unwrap(), 3);
        assert_eq!(env.revoked.len(), 3);
        let mut names = |about: Option<About>, skip, limit| {
            let answer = response(&list(about.as_ref(), skip, limit, &mut rows).unwrap());
            let body: serde_json::Value = serde_json::from_str(answer.strip_prefix("200 ").unwrap()).unwrap();
            let views = body["revocations"].as_array().unwrap().clone();
            views.iter().map(|view| format!("{} {}", view["jti"], view["user"])).collect::<Vec<_>>()
        };
        let (t, of_t, of_ann) = (r#""t" null"#, r#"null "t""#, r#"null "ann""#);
        assert_eq!(names(None, 0, 9), [t, of_t, of_ann]);
        assert_eq!(names(None, 1, 1), [of_t]);
        assert_eq!(names(Some(token("t")), 0, 9), [t]);
        assert_eq!(names(Some(user("t")), 0, 9), [of_t]);
        assert_eq!(names(Some(user("nobody")), 0, 9), [""; 0]);
    }

    /// A line that cannot be read stops the start: passing it over would make good again what was revoked.
    #[test]
    fn an_unreadable_revocation_is_no_small_matter() {
        for (state, body) in [("token", "nonsense"), ("user", r#"{"by":"worker"}"#), ("other", r#"{"by":"worker"}"#)] {
            let mut rows = rows();
            order(token("t"), None, None, &mut rows);
            let record = Record { state: state.to_owned(), body: Bytes::from(body), ..rows.records[0].clone() };
            rows.put_record(&record).unwrap();
            let told = remember(&mut rows, &Env::default());
            assert!(matches!(told, Err(RowsError::Broken(_))), "{state} {body}: {told:?}");
        }
    }

    #[test]
    fn at_the_bound_a_further_one_is_refused_and_none_is_dropped() {
        let mut rows = rows();
        let env = Env::default();
        for number in 0..REVOCATIONS_MAX {
            env.revoked.apply(Ruling::Revoked(Subject::Token(number.to_string().into())));
        }
        order(token("known"), None, None, &mut rows);
        let ask = |about, rows: &mut Fake| {
            revoke(&Wanted { about, before: None, until: None }, &asked(), &asker(), rows, &env).unwrap()
        };
        let refused = ask(token("new"), &mut rows);
        assert!(said(&refused.reply).starts_with("409 problem+json"), "{:?}", refused.reply);
        assert!(refused.rulings.is_empty() && rows.records.len() == 1);
        // What is there already may be said again.
        assert!(said(&ask(token("known"), &mut rows).reply).starts_with("200 "));
    }

    #[test]
    fn l9_a_revocation_outlives_its_last_token_by_a_day_of_any_clock() {
        let mut rows = rows();
        order(token("t"), None, Some(NOW), &mut rows);
        order(token("for ever"), None, None, &mut rows);
        let day = 24 * 60 * 60;
        for (second, left) in
            [(NOW, 2), (NOW + day, 2), (NOW + day + 59, 2), (NOW + day + 61, 1), (i64::MAX / 2_000_000, 1)]
        {
            rows.at = Wall(second * 1_000_000);
            let rulings = due(&mut rows).unwrap();
            assert_eq!(rows.records.len(), left, "at {second}");
            let forgotten = Ruling::Restored(Subject::Token("t".into()));
            assert!(rulings.iter().all(|ruling| *ruling == forgotten), "{rulings:?}");
        }
    }

    #[test]
    fn a_revocation_is_taken_back_by_its_id() {
        let mut rows = rows();
        order(user("ann"), Some(5), None, &mut rows);
        let id = rows.records[0].id.clone();
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        let applied = restore(&id, &asked(), &mut rows).unwrap();
        assert!(said(&applied.reply).starts_with("200 "), "{:?}", applied.reply);
        assert_eq!(applied.rulings, [Ruling::Restored(Subject::User("ann".into(), 5))]);
        let again = restore(&id, &asked(), &mut rows).unwrap();
        let told = said(&again.reply);
        assert!(told.starts_with("404 problem+json") && told.contains("no_such_revocation"), "{told}");
        assert!(again.rulings.is_empty());
    }
}
