//! Publishing into a document's room: a native client's or a backend's edit, carried out exactly as a socket's.
//!
//! Nothing is written here: the change is [`super::writes`]' own, asked for by nobody, so that old pages see the same
//! events whoever wrote, the debug sockets hear of it, and the Markdown file follows. What this file adds is the room's
//! revision (the document's) and the reasons to refuse.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

use super::rest::NEW_ID_BYTES_MAX;
use super::wire::json;
use super::writes::{self, Asked, Change, Metadata};
use super::{lookup, paths};
use crate::dialect::publish::{Outcome, Publish, Published, Refusal};
use crate::dialect::{self, Asker, Write, time};
use crate::ids::{OpId, RoomName, Seq};
use crate::model::{Document, Rows, RowsError, Transaction};

/// As of a prompt made over REST: a file system's 255 less the suffix and a temporary file's decoration.
const NAME_BYTES_MAX: usize = 200;

pub fn publish(
    publish: &Publish,
    asker: &Asker,
    op: Option<&OpId>,
    rows: &mut dyn Transaction,
    env: &dialect::Env,
) -> Result<Outcome, RowsError> {
    // The room of all documents' news has no log.
    let Some(id) = paths::id_of_room(publish.room.as_str()) else {
        return Ok(Err(Refusal::NoSuchRoom));
    };
    let document = lookup::exact(rows, id)?.filter(|document| document.id == id || is_creation(&publish.kind));
    let judged = judge(publish, id, document.as_ref(), &env.documents);
    let (change, rev) = match judged {
        Ok(judged) => judged,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let before = rows.room(publish.room.as_str())?.map_or(Seq(0), |row| row.head);
    let write =
        Write { room: publish.room.clone(), op: op.cloned(), change: dialect::Change::Documents(change.clone()) };
    let applied = writes::apply(&change, &write, asker, rows, &env.documents)?;
    Ok(Ok(Published { seq: before.next(), rev, signals: applied.signals, files: applied.files }))
}

/// The revision and the state of a document's room; `None` when there is no such document.
pub fn state(room: &RoomName, rows: &mut dyn Rows) -> Result<Option<(u64, Bytes)>, RowsError> {
    let Some(id) = paths::id_of_room(room.as_str()) else {
        return Ok(None);
    };
    Ok(rows.document(id)?.map(|document| (document.rev, snapshot(&document))))
}

/// The change that is asked for and the revision that it makes, or why not.
fn judge(
    publish: &Publish,
    id: &str,
    document: Option<&Document>,
    env: &super::Env,
) -> Result<(Change, Option<u64>), Refusal> {
    if !matches!(&*publish.kind, "update" | "update_metadata" | "create" | "created" | "delete" | "deleted") {
        let why = "a document's room takes update, update_metadata, create and delete";
        return Err(Refusal::bad("bad_type", why));
    }
    if document.is_none() && !is_creation(&publish.kind) {
        return Err(Refusal::NoSuchRoom);
    }
    let rev = document.map_or(0, |document| document.rev);
    if publish.if_rev.is_some_and(|expected| expected != rev) {
        return Err(Refusal::Conflict { rev, snapshot: document.map(snapshot) });
    }
    let asked = Asked::Nobody;
    match &*publish.kind {
        "delete" | "deleted" => Ok((Change::Delete { id: id.to_owned(), asked }, None)),
        "create" | "created" if document.is_some() => Err(Refusal::bad("exists", "a document of this id exists")),
        "create" | "created" => Ok((creation(id, &fields(&publish.data)?, env)?, Some(1))),
        kind => {
            let fields = fields(&publish.data)?;
            let (content, metadata) = (text(&fields, "content")?, metadata(&fields)?);
            let (content, metadata) = match (kind, content) {
                ("update", None) => return Err(Refusal::bad("bad_data", "content is missing")),
                ("update", content) => (content, metadata),
                // As on a socket, where an update of nothing is told to everybody too.
                _ => (None, Some(metadata.unwrap_or_default())),
            };
            Ok((Change::Update { id: id.to_owned(), content, metadata, asked }, Some(rev + 1)))
        }
    }
}

fn is_creation(kind: &str) -> bool {
    matches!(kind, "create" | "created")
}

/// The same bounds as REST's, found before anything is written; but a room's name is taken as it is or not at all.
fn creation(id: &str, fields: &Map<String, Value>, env: &super::Env) -> Result<Change, Refusal> {
    let (directory, name) = id.rsplit_once('/').unwrap_or(("", id));
    let well_formed = paths::clean_id(name).is_ok_and(|clean| clean == name)
        && paths::clean_directory(directory).is_some_and(|clean| clean == directory)
        && !name.starts_with('.')
        && name.len() <= NAME_BYTES_MAX
        && id.len() <= NEW_ID_BYTES_MAX;
    if !well_formed {
        return Err(Refusal::bad("bad_room", "no document can have this id"));
    }
    if !env.admits(directory) {
        return Err(Refusal::bad("bad_room", "the directory is not one of the configured roots"));
    }
    Ok(Change::Create {
        directory: directory.to_owned(),
        name: name.to_owned(),
        content: text(fields, "content")?.unwrap_or_default(),
        description: text(fields, "description")?,
        tags: tags(fields)?.unwrap_or_default(),
        sanitized: None,
        asked: Asked::Nobody,
    })
}

fn fields(data: &[u8]) -> Result<Map<String, Value>, Refusal> {
    match std::str::from_utf8(data).ok().and_then(dialect::json::parse) {
        Some(Value::Object(fields)) => Ok(fields),
        _ => Err(Refusal::bad("bad_data", "data must be a JSON object of at most 32 levels")),
    }
}

/// None when it is absent or null: no original tells the two apart.
fn text(fields: &Map<String, Value>, name: &'static str) -> Result<Option<String>, Refusal> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Refusal::bad("bad_data", format!("{name} must be a string or null"))),
    }
}

fn tags(fields: &Map<String, Value>) -> Result<Option<Vec<String>>, Refusal> {
    let wrong = || Refusal::bad("bad_data", "tags must be a list of strings or null");
    match fields.get("tags") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect::<Result<_, _>>()
            .map(Some),
        Some(_) => Err(wrong()),
    }
}

fn metadata(fields: &Map<String, Value>) -> Result<Option<Metadata>, Refusal> {
    let (description, tags) = (text(fields, "description")?, tags(fields)?);
    Ok((description.is_some() || tags.is_some()).then_some(Metadata { description, tags }))
}

/// A document as whoever joins its room by the native protocol is shown it.
fn snapshot(document: &Document) -> Bytes {
    #[derive(Serialize)]
    struct Snapshot<'a> {
        id: &'a str,
        name: &'a str,
        directory: &'a str,
        content: &'a str,
        description: Option<&'a str>,
        tags: &'a [String],
        created_at: String,
        updated_at: String,
    }
    json(&Snapshot {
        id: &document.id,
        name: &document.name,
        directory: &document.directory,
        content: &document.content,
        description: document.description.as_deref(),
        tags: &document.tags,
        created_at: time::utc(document.created_at),
        updated_at: time::utc(document.updated_at),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::dialect::FileTask;
    use crate::dialect::fake::Fake;

    fn publish_as(rows: &mut Fake, room: &str, kind: &str, data: &str, if_rev: Option<u64>) -> Outcome {
        let env =
            dialect::Env { documents: super::super::Env { roots: vec!["d".to_owned()] }, ..dialect::Env::default() };
        let asker = Asker { actor: "ann".into(), origin: 9, verified: false };
        let wanted = Publish {
            room: RoomName::new(room),
            kind: kind.to_owned(),
            data: Bytes::copy_from_slice(data.as_bytes()),
            if_rev,
        };
        publish(&wanted, &asker, Some(&OpId("op".into())), rows, &env).unwrap()
    }

    fn code(outcome: Outcome) -> String {
        match outcome {
            Err(Refusal::NoSuchRoom) => "no_such_room".to_owned(),
            Err(Refusal::Conflict { rev, .. }) => format!("conflict {rev}"),
            Err(Refusal::Bad { code, detail }) => format!("{code}: {detail}"),
            Ok(published) => format!("ok {} {:?}", published.seq.0, published.rev),
        }
    }

    #[test]
    fn an_edit_is_a_socket_s_edit() {
        let mut rows = Fake::with(&["d/a"]);
        let published = publish_as(&mut rows, "doc:d/a", "update", r#"{"content":"x"}"#, Some(1)).unwrap();
        assert_eq!((published.seq, published.rev), (Seq(1), Some(2)));
        assert_eq!(published.files, [FileTask::Write { id: "d/a".into() }]);
        assert_eq!(published.signals.len(), 1, "the debug sockets hear of it");
        assert_eq!(rows.told("doc:d/a"), [r#"update {"content":"x"}"#]);
        let event = &rows.log["doc:d/a"][0];
        assert_eq!((&*event.actor, event.origin, event.op.as_ref().unwrap().0.as_ref()), ("ann", 9, "op"));

        let both = r#"{"content":"y","description":"D","tags":["t"],"more":1}"#;
        assert_eq!(code(publish_as(&mut rows, "doc:d/a", "update", both, None)), "ok 2 Some(3)");
        assert_eq!(code(publish_as(&mut rows, "doc:d/a", "update_metadata", r#"{"tags":[]}"#, None)), "ok 4 Some(4)");
        assert_eq!(
            rows.told("doc:d/a")[1..],
            [
                r#"update {"content":"y"}"#,
                r#"update_metadata {"description":"D","tags":["t"]}"#,
                r#"update_metadata {"description":null,"tags":[]}"#,
            ]
        );
    }

    #[test]
    fn documents_come_and_go() {
        let mut rows = Fake::with(&["/d/old"]);
        let create = |rows: &mut Fake, room: &str, if_rev| code(publish_as(rows, room, "create", "{}", if_rev));
        assert_eq!(create(&mut rows, "doc:d/new", Some(0)), "ok 1 Some(1)");
        assert_eq!(rows.told("doc:d/new"), [r#"created {"content":"","description":null,"tags":[]}"#]);
        assert_eq!(create(&mut rows, "doc:d/new", Some(0)), "conflict 1");
        assert_eq!(create(&mut rows, "doc:d/new", None), "exists: a document of this id exists");
        assert_eq!(create(&mut rows, "doc:d/old", None), "exists: a document of this id exists", "but for its slash");
        for room in ["doc:d/.hidden", "doc:d//x", "doc:d/", "doc:d/../x", "doc:", "doc:../x"] {
            assert_eq!(create(&mut rows, room, None), "bad_room: no document can have this id", "{room}");
        }
        let elsewhere = "bad_room: the directory is not one of the configured roots";
        assert_eq!(create(&mut rows, "doc:elsewhere/x", None), elsewhere);

        let published = publish_as(&mut rows, "doc:d/new", "delete", "{}", None).unwrap();
        assert_eq!((published.seq, published.rev), (Seq(2), None));
        assert_eq!(published.files, [FileTask::Remove { id: "d/new".into() }]);
        assert_eq!(create(&mut rows, "doc:d/new", None), "ok 3 Some(1)");
    }

    #[test]
    fn refusals_have_written_nothing() {
        let mut rows = Fake::with(&["d/a"]);
        let before = format!("{:?}", (&rows.documents, &rows.log));
        let bad_type = "bad_type: a document's room takes update, update_metadata, create and delete";
        let not_an_object = "bad_data: data must be a JSON object of at most 32 levels";
        for (room, kind, data, if_rev, expected) in [
            ("debug", "update", r#"{"content":"x"}"#, None, "no_such_room"),
            ("doc:none", "update", r#"{"content":"x"}"#, Some(4), "no_such_room"),
            ("doc:a", "update", r#"{"content":"x"}"#, None, "no_such_room"),
            ("doc:none", "delete", "{}", None, "no_such_room"),
            ("doc:none", "note", "{}", None, bad_type),
            ("doc:d/a", "note", "{}", None, bad_type),
            ("doc:d/a", "update", r#"{"content":"x"}"#, Some(2), "conflict 1"),
            ("doc:d/a", "delete", "{}", Some(0), "conflict 1"),
            ("doc:d/a", "update", "[]", None, not_an_object),
            ("doc:d/a", "update", "{", None, not_an_object),
            ("doc:d/a", "update", "{}", None, "bad_data: content is missing"),
            ("doc:d/a", "update", r#"{"content":1}"#, None, "bad_data: content must be a string or null"),
            ("doc:d/a", "update_metadata", r#"{"tags":"x"}"#, None, "bad_data: tags must be a list of strings or null"),
            ("doc:d/a", "update_metadata", r#"{"tags":[1]}"#, None, "bad_data: tags must be a list of strings or null"),
            ("doc:d/new", "create", r#"{"description":[]}"#, None, "bad_data: description must be a string or null"),
        ] {
            assert_eq!(code(publish_as(&mut rows, room, kind, data, if_rev)), expected, "{room} {kind} {data}");
        }
        assert_eq!(format!("{:?}", (&rows.documents, &rows.log)), before);
    }

    #[test]
    fn the_state_and_a_conflict_show_the_document() {
        let mut rows = Fake::with(&["d/a"]);
        let shown = concat!(
            r#"{"id":"d/a","name":"a","directory":"d","content":"text of d/a","description":null,"tags":[],"#,
            r#""created_at":"2023-11-14T22:13:20+00:00","updated_at":"2023-11-14T22:13:20.500000+00:00"}"#
        );
        let shown = Bytes::from_static(shown.as_bytes());
        assert_eq!(state(&RoomName::new("doc:d/a"), &mut rows).unwrap(), Some((1, shown.clone())));
        assert_eq!(state(&RoomName::new("doc:none"), &mut rows).unwrap(), None);
        assert_eq!(state(&RoomName::new("debug"), &mut rows).unwrap(), None);
        let conflict = publish_as(&mut rows, "doc:d/a", "update", r#"{"content":"x"}"#, Some(9));
        assert_eq!(conflict, Err(Refusal::Conflict { rev: 1, snapshot: Some(shown) }));
    }
}
