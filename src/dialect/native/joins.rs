//! Joining: from where a member is shown a room's log, and the state it starts from.

use bytes::Bytes;

use super::message::Since;
use super::wire::{self, About, Standing};
use crate::auth::rights::{Rights, Verb};
use crate::dialect::agents::sessions;
use crate::dialect::{Asker, Env, Failure, Reply, Start, documents};
use crate::directory::{Directory, Stand};
use crate::ids::{RoomName, Seq};
use crate::model::{RoomRow, Rows, RowsError};
use crate::mutant::{Canary, Mutant};
use crate::ws;

#[derive(Clone, Debug, PartialEq)]
pub enum Read {
    Join { room: RoomName, since: Option<Since> },
}

/// Position and state come from one snapshot: an event is either in the state or after the position.
pub fn read(
    read: &Read,
    asker: &Asker,
    rows: &mut dyn Rows,
    env: &Env,
    rights: Option<&Rights>,
) -> Result<Reply, RowsError> {
    let Read::Join { room, since } = read;
    if rights.is_some_and(|rights| !rights.allows(room.as_str(), Verb::Read)) || !is_open(room, asker, rows)? {
        return Ok(no_such_room(room));
    }
    let row = rows.room(room.as_str())?;
    let Some(kept) = kept(room, rows)? else { return Ok(no_such_room(room)) };
    // What nobody owns moves by its events alone; a document or a session may go, or change hands, without one.
    let is_free = !documents::owns(room.as_str()) && sessions::id_of_room(room.as_str()).is_none();
    let stand = is_free.then(|| Stand {
        epoch: row.map(|row| row.epoch),
        head: row.map_or(Seq(0), |row| row.head),
        floor: row.map_or(Seq(0), |row| row.floor),
        rev: kept.rev,
    });
    let standing = standing(row, kept);
    let head = standing.head;
    let (frame, after) = match since.as_ref().map(|since| (since, missing(since, row))) {
        None => (ws::frame::text(&wire::joined(room, &standing, false, true)), head),
        Some((since, Ok(()))) => {
            let after = resumed_at(since.seq, head, env.canary);
            (ws::frame::text(&wire::joined(room, &standing, true, false)), after)
        }
        Some((since, Err("epoch"))) if env.canary.is(Mutant::WrongEpochAccepted) => {
            (ws::frame::text(&wire::joined(room, &standing, true, false)), since.seq.min(head))
        }
        Some((_, Err("trimmed"))) if env.canary.is(Mutant::PartialFill) => {
            let floor = row.map_or(Seq(0), |row| row.floor);
            (ws::frame::text(&wire::joined(room, &standing, true, false)), floor)
        }
        Some((_, Err(reason))) => {
            let mut frames = Vec::new();
            ws::frame::put_text(&mut frames, &wire::joined(room, &standing, false, false));
            ws::frame::put_text(&mut frames, &wire::reset(room, reason, &standing));
            (Bytes::from(frames), head)
        }
    };
    Ok(Reply::Welcome { frame, starts: vec![Start { room: room.clone(), after, head }], stand })
}

/// Where it stood, unless this core is a mutant.
fn resumed_at(seq: Seq, head: Seq, canary: Canary) -> Seq {
    if canary.is(Mutant::ResumeSkipsOne) {
        seq.next().min(head)
    } else if canary.is(Mutant::ResumeRepeatsOne) {
        Seq(seq.0.saturating_sub(1))
    } else {
        seq
    }
}

/// The welcome of a member that can be given all it missed, when it is known where the room stands.
pub fn welcome_back(read: &Read, directory: &Directory) -> Option<Reply> {
    let Read::Join { room, since } = read;
    let since = since.as_ref()?;
    let Stand { epoch, head, floor, rev } = directory.stand(room)?;
    missing(since, epoch.map(|epoch| RoomRow { epoch, head, floor })).ok()?;
    let epoch = epoch.map_or_else(String::new, |epoch| epoch.to_string());
    let standing = Standing { epoch, head, rev, snapshot: None };
    let frame = ws::frame::text(&wire::joined(room, &standing, true, false));
    Some(Reply::Welcome { frame, starts: vec![Start { room: room.clone(), after: since.seq, head }], stand: None })
}

/// The store's words stay in the log; a client hears ours. Any answer but a welcome undoes the join.
pub fn read_failed(read: &Read, failure: Failure) -> Reply {
    let Read::Join { room, .. } = read;
    let about = About { id: None, room: Some(room.as_str()) };
    let payload = match failure {
        Failure::Busy | Failure::Unknown => wire::overloaded(about, "the store is behind; join again in a moment"),
        Failure::Full => wire::refused(about, "store_full", "no space left"),
        Failure::Broken => wire::refused(about, "store_broken", "the store has stopped"),
        Failure::Forbidden => return no_such_room(room),
    };
    Reply::Frame(ws::frame::text(&payload))
}

/// `reset` for members whose place in the log was trimmed away while they were slow; framed.
pub fn snapshot(room: &RoomName, rows: &mut dyn Rows) -> Result<Option<Bytes>, RowsError> {
    let row = rows.room(room.as_str())?;
    let standing = standing(row, kept(room, rows)?.unwrap_or_default());
    Ok(Some(ws::frame::text(&wire::reset(room, "trimmed", &standing))))
}

fn no_such_room(room: &RoomName) -> Reply {
    let about = About { id: None, room: Some(room.as_str()) };
    Reply::Frame(ws::frame::text(&wire::refused(about, "no_such_room", "no such room, or not yours")))
}

/// A session has an owner, to everybody else it is not there.
fn is_open(room: &RoomName, asker: &Asker, rows: &mut dyn Rows) -> Result<bool, RowsError> {
    match sessions::id_of_room(room.as_str()) {
        // Another spelling of the id would be another room, in which nothing ever happens.
        Some(id) => Ok(sessions::find(id, asker, rows)?.is_some_and(|session| session.id == id)),
        None => Ok(true),
    }
}

/// What is kept of a room beside its log.
#[derive(Debug, Default)]
struct Kept {
    rev: Option<u64>,
    snapshot: Option<Bytes>,
}

/// `None` for a room that is gone, or never was: a document's room is there as long as the document. Rooms that belong to
/// nothing are there for the asking.
fn kept(room: &RoomName, rows: &mut dyn Rows) -> Result<Option<Kept>, RowsError> {
    let name = room.as_str();
    if documents::owns(name) && name != documents::DEBUG_ROOM {
        let state = documents::state(room, rows)?;
        return Ok(state.map(|(rev, snapshot)| Kept { rev: Some(rev), snapshot: Some(snapshot) }));
    }
    if let Some(id) = sessions::id_of_room(name) {
        return Ok(Some(Kept { rev: None, snapshot: sessions::state(id, rows)? }));
    }
    let state = rows.state(name)?;
    Ok(Some(state.map_or_else(Kept::default, |state| Kept { rev: Some(state.rev), snapshot: Some(state.body) })))
}

fn standing(row: Option<RoomRow>, kept: Kept) -> Standing {
    let (epoch, head) = row.map_or((String::new(), Seq(0)), |row| (row.epoch.to_string(), row.head));
    Standing { epoch, head, rev: kept.rev, snapshot: kept.snapshot }
}

/// Can a member that stands there be given exactly what it missed? Otherwise why not. All or nothing: a partial fill
/// would look like the whole (PROMISES.md G6).
fn missing(since: &Since, row: Option<RoomRow>) -> Result<(), &'static str> {
    // Who joined before the first event was told no epoch, and stands in the room's first history. A room's epoch never
    // changes in this store; one in which it can must keep which was the first.
    let is_first = since.epoch.is_empty();
    let Some(row) = row else {
        return if is_first && since.seq == Seq(0) { Ok(()) } else { Err("epoch") };
    };
    if !is_first && *since.epoch != *row.epoch.to_string() {
        Err("epoch")
    } else if since.seq > row.head {
        Err("future")
    } else if since.seq < row.floor {
        Err("trimmed")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::dialect::fake::Fake;
    use crate::ids::Epoch;
    use crate::model::{Draft, State, Transaction};

    fn since(epoch: &str, seq: u64) -> Option<Since> {
        Some(Since { epoch: epoch.into(), seq: Seq(seq) })
    }

    /// The payloads of a run of short and middling frames.
    fn payloads(mut frames: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        while let [0x81, length, rest @ ..] = frames {
            let (length, rest) = match (*length, rest) {
                (126, [high, low, rest @ ..]) => (usize::from(*high) << 8 | usize::from(*low), rest),
                (length, rest) => (usize::from(length), rest),
            };
            found.push(String::from_utf8(rest[..length].to_vec()).unwrap());
            frames = &rest[length..];
        }
        assert!(frames.is_empty());
        found
    }

    fn joined(rows: &mut Fake, room: &str, since: Option<Since>, rights: Option<&Rights>) -> (Vec<String>, Vec<Start>) {
        let asker = Asker { actor: "ann".into(), origin: 7, verified: true };
        let ask = Read::Join { room: RoomName::new(room), since };
        match read(&ask, &asker, rows, &Env::default(), rights).unwrap() {
            Reply::Welcome { frame, starts, .. } => (payloads(&frame), starts),
            Reply::Frame(frame) => (payloads(&frame), Vec::new()),
            other => panic!("{other:?}"),
        }
    }

    fn with_events(room: &str, count: usize) -> Fake {
        let mut rows = Fake::default();
        for _ in 0..count {
            let draft = Draft { room: RoomName::new(room), kind: "note".into(), body: Bytes::from_static(b"{}") };
            rows.append(draft, &"ann".into(), None, 0).unwrap();
        }
        rows
    }

    fn start(room: &str, after: u64, head: u64) -> Vec<Start> {
        vec![Start { room: RoomName::new(room), after: Seq(after), head: Seq(head) }]
    }

    #[test]
    fn who_joins_a_room_is_told_where_it_stands_and_its_state() {
        let mut rows = with_events("game:1", 3);
        assert_eq!(
            joined(&mut rows, "game:1", None, None),
            (
                vec![
                    r#"{"op":"joined","room":"game:1","epoch":"0000000000000007","head":3,"recovered":false}"#
                        .to_owned()
                ],
                start("game:1", 3, 3)
            )
        );
        let state = State { rev: 2, seq: Seq(3), body: Bytes::from_static(b"{\"n\":1}") };
        rows.put_state(&RoomName::new("game:1"), &state).unwrap();
        assert_eq!(
            joined(&mut rows, "game:1", None, None).0,
            [
                r#"{"op":"joined","room":"game:1","epoch":"0000000000000007","head":3,"rev":2,"snapshot":{"n":1},"recovered":false}"#
            ]
        );
        assert_eq!(
            joined(&mut rows, "nothing:yet", None, None),
            (
                vec![r#"{"op":"joined","room":"nothing:yet","epoch":"","head":0,"recovered":false}"#.to_owned()],
                start("nothing:yet", 0, 0)
            )
        );
    }

    #[test]
    fn g6_a_resume_is_all_of_it_or_a_reset() {
        let mut rows = with_events("game:1", 3);
        let state = State { rev: 2, seq: Seq(3), body: Bytes::from_static(b"{\"n\":1}") };
        rows.put_state(&RoomName::new("game:1"), &state).unwrap();
        let recovered = |rev: &str| {
            vec![format!(
                r#"{{"op":"joined","room":"game:1","epoch":"0000000000000007","head":3,{rev}"recovered":true}}"#
            )]
        };
        for seq in 0..=3 {
            assert_eq!(
                joined(&mut rows, "game:1", since("0000000000000007", seq), None),
                (recovered("\"rev\":2,"), start("game:1", seq, 3))
            );
        }
        for (epoch, seq, reason) in
            [("0000000000000007", 4, "future"), ("0000000000000008", 3, "epoch"), ("?", 0, "epoch")]
        {
            let reset = format!(
                r#"{{"op":"reset","room":"game:1","reason":"{reason}","epoch":"0000000000000007","seq":3,"rev":2,"snapshot":{{"n":1}}}}"#
            );
            let first =
                r#"{"op":"joined","room":"game:1","epoch":"0000000000000007","head":3,"rev":2,"recovered":false}"#;
            assert_eq!(
                joined(&mut rows, "game:1", since(epoch, seq), None),
                (vec![first.to_owned(), reset], start("game:1", 3, 3)),
                "{epoch} {seq}"
            );
        }
    }

    #[test]
    fn g6_a_client_who_joined_before_the_first_event_misses_none() {
        let mut rows = with_events("game:1", 2);
        assert_eq!(joined(&mut rows, "game:1", since("", 0), None).1, start("game:1", 0, 2));
        assert_eq!(
            joined(&mut rows, "game:1", since("", 1), None).1,
            start("game:1", 1, 2),
            "it saw the first one live"
        );
        let (told, starts) = joined(&mut rows, "game:2", since("", 0), None);
        assert_eq!(told, [r#"{"op":"joined","room":"game:2","epoch":"","head":0,"recovered":true}"#]);
        assert_eq!(starts, start("game:2", 0, 0));
        let (told, _) = joined(&mut rows, "game:2", since("0000000000000007", 2), None);
        assert_eq!(told[1], r#"{"op":"reset","room":"game:2","reason":"epoch","epoch":"","seq":0}"#);
    }

    #[test]
    fn g6_what_was_trimmed_cannot_be_given() {
        let row = RoomRow { epoch: Epoch(7), head: Seq(9), floor: Seq(4) };
        for (epoch, seq, expected) in [
            ("0000000000000007", 3, Err("trimmed")),
            ("0000000000000007", 4, Ok(())),
            ("0000000000000007", 9, Ok(())),
            ("0000000000000007", 10, Err("future")),
            ("0000000000000007", u64::MAX, Err("future")),
            ("", 0, Err("trimmed")),
            ("7", 5, Err("epoch")),
        ] {
            assert_eq!(missing(&since(epoch, seq).unwrap(), Some(row)), expected, "{epoch} {seq}");
        }
    }

    #[test]
    fn a_document_s_room_is_there_as_long_as_the_document() {
        let mut rows = Fake::with(&["a/b"]);
        let (told, starts) = joined(&mut rows, "doc:a/b", None, None);
        let value: serde_json::Value = serde_json::from_str(&told[0]).unwrap();
        assert_eq!((&value["rev"], &value["snapshot"]["content"]), (&1.into(), &"text of a/b".into()));
        assert_eq!(starts, start("doc:a/b", 0, 0));
        for room in ["doc:a/c", "doc:", "session:11111111-1111-4111-8111-111111111111", "session:"] {
            let refusal = format!(
                r#"{{"op":"refused","id":null,"code":"no_such_room","detail":"no such room, or not yours","room":"{room}"}}"#
            );
            assert_eq!(joined(&mut rows, room, None, None), (vec![refusal], Vec::new()), "{room}");
        }
        assert_eq!(joined(&mut rows, "debug", None, None).1, start("debug", 0, 0));
    }

    /// PROMISES.md S5: the same bytes for what is not there and for what is not theirs.
    #[test]
    fn s5_a_room_without_the_right_to_it_is_not_there() {
        let mut rows = Fake::with(&["mine", "theirs"]);
        let rights = Rights::parse([("doc:m*", ["read"])]).unwrap();
        assert_eq!(joined(&mut rows, "doc:mine", None, Some(&rights)).1.len(), 1);
        let theirs = joined(&mut rows, "doc:theirs", None, Some(&rights));
        let none = joined(&mut rows, "doc:mxxxxx", None, Some(&rights));
        assert_eq!(theirs.0[0].replace("theirs", ""), none.0[0].replace("mxxxxx", ""));
    }

    #[test]
    fn a_slow_member_whose_place_was_trimmed_is_told_the_state() {
        let mut rows = with_events("game:1", 2);
        let state = State { rev: 1, seq: Seq(2), body: Bytes::from_static(b"[1]") };
        rows.put_state(&RoomName::new("game:1"), &state).unwrap();
        let frame = snapshot(&RoomName::new("game:1"), &mut rows).unwrap().unwrap();
        assert_eq!(
            payloads(&frame),
            [
                r#"{"op":"reset","room":"game:1","reason":"trimmed","epoch":"0000000000000007","seq":2,"rev":1,"snapshot":[1]}"#
            ]
        );
        let frame = snapshot(&RoomName::new("doc:gone"), &mut rows).unwrap().unwrap();
        assert_eq!(payloads(&frame), [r#"{"op":"reset","room":"doc:gone","reason":"trimmed","epoch":"","seq":0}"#]);
    }

    #[test]
    fn a_join_that_could_not_be_looked_up_is_told_so() {
        let ask = Read::Join { room: RoomName::new("game:1"), since: None };
        for (failure, expected) in [
            (
                Failure::Busy,
                r#"{"op":"refused","id":null,"code":"overloaded","detail":"the store is behind; join again in a moment","room":"game:1","retry_after_ms":1000}"#,
            ),
            (
                Failure::Broken,
                r#"{"op":"refused","id":null,"code":"store_broken","detail":"the store has stopped","room":"game:1"}"#,
            ),
            (
                Failure::Forbidden,
                r#"{"op":"refused","id":null,"code":"no_such_room","detail":"no such room, or not yours","room":"game:1"}"#,
            ),
        ] {
            let Reply::Frame(frame) = read_failed(&ask, failure) else { panic!("{failure:?}") };
            assert_eq!(payloads(&frame), [expected]);
        }
    }
}
