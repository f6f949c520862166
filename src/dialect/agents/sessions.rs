//! Agent sessions: made by a backend, by REST, or by connecting in debug mode; used by their owner, or by anybody with the
//! rights where they have none; deleted for good.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::publish::Refusal;
use super::super::{Asker, time};
use super::{append, approvals, runs, wire};
use crate::clock::Wall;
use crate::ids::RoomName;
use crate::model::{Record, Rows, RowsError, Shelf, Transaction};

const ROOM_PREFIX: &str = "session:";
/// Bytes of an id that is no UUID; its room's name must be one that can be joined.
const NAME_BYTES_MAX: usize = 128;
/// Runs told to whoever joins, the newest.
const RUNS_SHOWN: usize = 100;

pub const ACTIVE: &str = "active";
const DELETED: &str = "deleted";

/// What a session is made with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct New {
    /// Canonical; made when absent.
    pub id: Option<String>,
    /// Who may use it in token mode; without an owner anybody with the rights.
    pub owner: Option<String>,
    pub wallet_address: Option<String>,
    pub config: Option<Value>,
}

impl New {
    /// One that in token mode belongs to whoever asks for it.
    pub fn of(asker: &Asker) -> New {
        New { owner: asker.verified.then(|| asker.actor.to_string()), ..New::default() }
    }
}

/// What its record's body holds.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Facts {
    pub user_id: String,
    pub wallet_address: Option<String>,
    pub config: Option<Value>,
}

impl Facts {
    pub fn of(session: &Record) -> Facts {
        // Ours, so it is what we wrote.
        serde_json::from_slice(&session.body).unwrap_or_default()
    }
}

/// `session:{canonical id}`
pub fn room_of(id: &str) -> RoomName {
    RoomName::new(&format!("{ROOM_PREFIX}{id}"))
}

/// The canonical spelling of a session id: lower-case for a UUID in any spelling, otherwise none.
///
/// The spellings are those that the original's check let pass: upper case, without hyphens, in braces, as a URN. It kept
/// each as a session of its own.
pub fn canonical(text: &str) -> Option<String> {
    // No spelling is longer, and a text of a megabyte is not worth copying.
    if text.len() > 64 {
        return None;
    }
    let text = text.strip_prefix("urn:uuid:").unwrap_or(text);
    let text = text.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or(text);
    let digits: String = text.chars().filter(|digit| *digit != '-').collect();
    let is_uuid = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if is_uuid { u128::from_str_radix(&digits, 16).ok().map(spelled) } else { None }
}

/// A UUID of version 7: those made one after the other stand beside each other in an index, so that a commit writes one page
/// of it where random ones touch a page each (PERF.md). 74 bits of it are still anybody's guess.
pub fn uuid_at(at: Wall, random: u128) -> String {
    let millis = (at.0.max(0) as u128 / 1000) << 80;
    let low = random & ((1 << 80) - 1) & !(0xf << 76 | 0x3 << 62);
    spelled(millis | low | 0x7 << 76 | 0x2 << 62)
}

fn spelled(uuid: u128) -> String {
    let [a, b, c, d] = [uuid >> 96, uuid >> 80 & 0xffff, uuid >> 64 & 0xffff, uuid >> 48 & 0xffff];
    format!("{a:08x}-{b:04x}-{c:04x}-{d:04x}-{:012x}", uuid & 0xffff_ffff_ffff)
}

/// What a text names: a UUID's canonical spelling, or a plain name as it is (`test`, in debug mode).
pub fn key(text: &str) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let is_name = (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain);
    canonical(text).or_else(|| is_name.then(|| text.to_owned()))
}

/// The id of a session's room.
pub fn id_of_room(room: &str) -> Option<&str> {
    room.strip_prefix(ROOM_PREFIX)
}

/// Makes it, with the event `session_created`. Making it again with the same id gives the one that is there, unless its
/// owner is another.
pub fn create(new: &New, asker: &Asker, rows: &mut dyn Transaction) -> Result<Result<Record, Refusal>, RowsError> {
    #[derive(Serialize)]
    struct Created<'a> {
        session_id: &'a str,
        user_id: &'a str,
    }
    let id = match &new.id {
        Some(id) => match key(id) {
            Some(id) => id,
            None => return Ok(Err(Refusal::bad("bad_id", "a session's id is a UUID"))),
        },
        None => uuid_at(rows.at(), rows.random()),
    };
    if let Some(known) = rows.record(Shelf::Session, &id)? {
        let same_owner = new.owner.as_ref().is_none_or(|owner| *owner == known.parent);
        return Ok(match same_owner && may_use(&known, asker) {
            true => Ok(known),
            // A deleted one's id does not come back either: its log would be the new one's.
            false => Err(Refusal::NoSuchRoom),
        });
    }
    let owner = new.owner.clone().unwrap_or_default();
    let user_id = if owner.is_empty() { asker.actor.to_string() } else { owner.clone() };
    let body = wire::json(&Created { session_id: &id, user_id: &user_id });
    append(&id, "session_created", body, asker, None, rows)?;
    let facts = Facts { user_id, wallet_address: new.wallet_address.clone(), config: new.config.clone() };
    let at = rows.at();
    let record = Record {
        shelf: Shelf::Session,
        id,
        parent: owner,
        state: ACTIVE.to_owned(),
        due: None,
        created_at: at,
        updated_at: at,
        body: wire::json(&facts).into(),
    };
    rows.put_record(&record)?;
    Ok(Ok(record))
}

/// The session, when it is there and this asker may use it: not deleted, and in token mode (`Asker::verified`) not
/// another user's. `id` is canonical.
pub fn find(id: &str, asker: &Asker, rows: &mut dyn Rows) -> Result<Option<Record>, RowsError> {
    Ok(rows.record(Shelf::Session, id)?.filter(|session| may_use(session, asker)))
}

fn may_use(session: &Record, asker: &Asker) -> bool {
    let is_own = session.parent.is_empty() || session.parent == *asker.actor;
    session.state == ACTIVE && (is_own || !asker.verified)
}

/// One page of those that the asker may use, and how many there are: in token mode the asker's own, then those of nobody.
pub fn list(
    offset: usize,
    limit: usize,
    asker: &Asker,
    rows: &mut dyn Rows,
) -> Result<(Vec<Record>, usize), RowsError> {
    let own: &str = &asker.actor;
    let parents: &[Option<&str>] = if asker.verified { &[Some(own), Some("")] } else { &[None] };
    let (mut page, mut total, mut skip) = (Vec::new(), 0, offset);
    for parent in parents {
        let count = rows.count_records(Shelf::Session, *parent, Some(ACTIVE))?;
        let left = limit.saturating_sub(page.len());
        if skip < count && left > 0 {
            page.extend(rows.records(Shelf::Session, *parent, Some(ACTIVE), skip, left)?);
        }
        skip = skip.saturating_sub(count);
        total += count;
    }
    Ok((page, total))
}

/// Notes that it was used, to the minute: a busy session would otherwise write its row with every run.
pub fn touch(session: &Record, rows: &mut dyn Transaction) -> Result<(), RowsError> {
    const COARSE_MICROS: i64 = 60_000_000;
    if (rows.at().0 - session.updated_at.0).abs() < COARSE_MICROS {
        return Ok(());
    }
    rows.put_record(&Record { updated_at: rows.at(), ..session.clone() })
}

/// Marks it deleted and says so in its room. Its runs end with it, and what waits for a decision is cancelled.
pub fn delete(id: &str, asker: &Asker, rows: &mut dyn Transaction) -> Result<bool, RowsError> {
    let Some(session) = find(id, asker, rows)? else { return Ok(false) };
    approvals::cancel_all(id, None, asker, rows)?;
    runs::end_all(id, asker, rows)?;
    let gone =
        wire::Error { session_id: Some(id), error_type: Some("session_deleted"), ..wire::Error::of("Session deleted") };
    append(id, "error", wire::json(&gone), asker, None, rows)?;
    rows.put_record(&Record { state: DELETED.to_owned(), updated_at: rows.at(), ..session })?;
    Ok(true)
}

/// What somebody who joins the room is shown: what runs, and what waits for a decision.
pub fn state(session_id: &str, rows: &mut dyn Rows) -> Result<Option<Bytes>, RowsError> {
    #[derive(Serialize)]
    struct State<'a> {
        session_id: &'a str,
        status: &'a str,
        user_id: &'a str,
        executions: Vec<Execution<'a>>,
        approvals: Vec<approvals::View<'a>>,
    }
    #[derive(Serialize)]
    struct Execution<'a> {
        execution_id: &'a str,
        status: &'a str,
        command: String,
        created_at: String,
    }
    let Some(session) = rows.record(Shelf::Session, session_id)?.filter(|session| session.state == ACTIVE) else {
        return Ok(None);
    };
    let running = runs::newest(session_id, RUNS_SHOWN, rows)?;
    let pending = approvals::pending(session_id, rows)?;
    Ok(Some(Bytes::from(wire::json(&State {
        session_id,
        status: &session.state,
        user_id: &Facts::of(&session).user_id,
        executions: running
            .iter()
            .map(|run| Execution {
                execution_id: &run.id,
                status: &run.state,
                command: runs::command_of(run),
                created_at: time::zulu(run.created_at),
            })
            .collect(),
        approvals: pending.iter().map(approvals::Stored::view).collect(),
    }))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::super::testing::{AT, FIRST, ROOM, S, asker, execute, rows, running, user};
    use super::*;
    use crate::clock::Wall;
    use crate::dialect::fake::Fake;
    use crate::model::TaskKind;
    use crate::mutant::Canary;
    use proptest::prelude::*;

    #[test]
    fn y13_one_session_has_one_key() {
        for text in [
            S,
            "0AF0BD5C-0000-4000-8000-00000000000A",
            "0af0bd5c00004000800000000000000a",
            "{0af0bd5c-0000-4000-8000-00000000000a}",
            "urn:uuid:0af0bd5c-0000-4000-8000-00000000000a",
        ] {
            assert_eq!(canonical(text).as_deref(), Some(S), "{text}");
            assert_eq!(key(text).as_deref(), Some(S), "{text}");
        }
        for (text, named) in [
            ("test", Some("test")),
            ("0af0bd5c-0000-4000-8000-00000000000", Some("0af0bd5c-0000-4000-8000-00000000000")),
            ("+af0bd5c00004000800000000000000a", None),
            ("0af0bd5c-0000-4000-8000-00000000000ä", None),
            ("", None),
            ("a b", None),
            ("a/b", None),
            ("a:b", None),
        ] {
            assert_eq!(canonical(text), None, "{text}");
            assert_eq!(key(text).as_deref(), named, "{text}");
        }
        assert_eq!(key(&"a".repeat(129)), None);
        assert_eq!(id_of_room(room_of(S).as_str()), Some(S));
    }

    #[test]
    fn made_ids_are_random_uuids() {
        assert_eq!(uuid_at(AT, 0), "019b52d3-48e3-7000-8000-000000000000");
        assert_eq!(uuid_at(AT, u128::MAX), "019b52d3-48e3-7fff-bfff-ffffffffffff");
        assert_eq!(uuid_at(AT, 1), FIRST);
        assert!(uuid_at(Wall(AT.0 + 1000), 0) > uuid_at(AT, u128::MAX), "in the order of time");
    }

    #[test]
    fn y4_an_owner_s_session_is_nobody_else_s_in_token_mode() {
        let mut rows = Fake { at: AT, ..Fake::default() };
        let owned = New { id: Some(S.into()), owner: Some("ann".into()), ..New::default() };
        let made = create(&owned, &asker("backend"), &mut rows).unwrap().unwrap();
        assert_eq!((made.parent.as_str(), Facts::of(&made).user_id.as_str()), ("ann", "ann"));
        for (who, expected) in [(user("ann"), true), (user("bob"), false), (asker("bob"), true)] {
            assert_eq!(find(S, &who, &mut rows).unwrap().is_some(), expected, "{who:?}");
        }
        let again = |owner: Option<&str>, who: &Asker, rows: &mut Fake| {
            let new = New { id: Some(S.to_uppercase()), owner: owner.map(str::to_owned), ..New::default() };
            create(&new, who, rows).unwrap().is_ok()
        };
        for (owner, who, expected) in [
            (Some("ann"), asker("backend"), true),
            (None, asker("backend"), true),
            (Some("bob"), asker("backend"), false),
            (Some("bob"), user("bob"), false),
            (None, user("bob"), false),
        ] {
            assert_eq!(again(owner, &who, &mut rows), expected, "{owner:?} {who:?}");
        }
        let told = rows.told(ROOM);
        assert_eq!(told, [format!(r#"session_created {{"session_id":"{S}","user_id":"ann"}}"#)], "made once");
        let unowned = create(&New::default(), &asker("backend"), &mut rows).unwrap().unwrap();
        assert!(find(&unowned.id, &user("bob"), &mut rows).unwrap().is_some());
        let (page, total) = list(0, 10, &user("bob"), &mut rows).unwrap();
        assert_eq!((page, total), (vec![unowned.clone()], 1));
        assert_eq!(list(0, 10, &asker("bob"), &mut rows).unwrap().1, 2);
        let (page, total) = list(1, 1, &user("ann"), &mut rows).unwrap();
        assert_eq!((page, total), (vec![unowned], 2), "her own come first");
        assert!(create(&New { id: Some("a/b".into()), ..New::default() }, &asker("x"), &mut rows).unwrap().is_err());
    }

    #[test]
    fn a_deleted_session_takes_its_runs_along_and_stays_gone() {
        let mut rows = running();
        execute("more", &mut rows);
        rows.log.clear();
        rows.tasks.clear();
        let wanted = approvals::Wanted {
            session: S.into(),
            id: None,
            execution_id: None,
            tool_name: "t".into(),
            tool_args: serde_json::json!({}),
            reason: None,
            amount: None,
            currency: None,
            estimated_cost: None,
            expires_in: Some(std::time::Duration::from_secs(1)),
        };
        approvals::request(&wanted, &asker("worker"), &mut rows).unwrap().unwrap();
        assert!(delete(S, &asker("ann"), &mut rows).unwrap());
        let kinds: Vec<TaskKind> = rows.tasks.iter().map(|task| task.kind).collect();
        assert_eq!(kinds, [TaskKind::Decision, TaskKind::Cancel, TaskKind::Cancel]);
        let told = rows.told(ROOM);
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[1].starts_with("rejected ") && told[1].contains(r#""decision":"cancelled""#));
        let gone =
            format!(r#"error {{"message":"Session deleted","session_id":"{S}","error_type":"session_deleted"}}"#);
        assert_eq!(told[2], gone);
        assert_eq!(find(S, &asker("ann"), &mut rows).unwrap(), None);
        assert!(!delete(S, &asker("ann"), &mut rows).unwrap());
        assert!(create(&New { id: Some(S.into()), ..New::default() }, &asker("ann"), &mut rows).unwrap().is_err());
        assert_eq!(state(S, &mut rows).unwrap(), None);
        rows.at = Wall(AT.0 + 10_000_000);
        approvals::due(&mut rows, Canary::default()).unwrap();
        assert_eq!(rows.told(ROOM).len(), 3, "nothing is due any more");
    }

    #[test]
    fn whoever_joins_sees_what_runs_and_what_waits() {
        let mut rows = running();
        super::super::testing::publish("approval_required", r#"{"tool_name":"pay","amount":5}"#, &mut rows).unwrap();
        let state: Value = serde_json::from_slice(&state(S, &mut rows).unwrap().unwrap()).unwrap();
        assert_eq!(state["session_id"], S);
        assert_eq!(state["status"], "active");
        assert_eq!(state["user_id"], "maker");
        assert_eq!(state["executions"][0]["execution_id"], FIRST);
        assert_eq!(state["executions"][0]["command"], "pay");
        assert_eq!(state["approvals"][0]["tool_name"], "pay");
        assert_eq!(state["approvals"][0]["amount"], "5");
        assert_eq!(state["approvals"][0]["decision"], "pending");
        let none = rows_without_runs();
        assert_eq!(none["executions"], serde_json::json!([]));
    }

    fn rows_without_runs() -> Value {
        serde_json::from_slice(&state(S, &mut rows()).unwrap().unwrap()).unwrap()
    }

    proptest! {
        #[test]
        fn every_spelling_has_one_canonical_form(number in any::<u128>(), upper in any::<bool>(), plain in any::<bool>()) {
            let id = spelled(number);
            let mut spelled = if plain { id.replace('-', "") } else { id.clone() };
            if upper {
                spelled = spelled.to_uppercase();
            }
            prop_assert_eq!(canonical(&spelled), Some(id.clone()));
            prop_assert_eq!(canonical(&id), Some(id));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,80}") {
            if let Some(key) = key(&text) {
                prop_assert!(room_of(&key).as_str().len() <= crate::limits::ROOM_NAME_BYTES_MAX);
            }
        }
    }
}
