//! Questions to one snapshot, and their answers. Runs on a reader's thread.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::expand::{self, Expansion, Inclusion};
use super::granted::Granted;
use super::views::{self, Dependency, Prompt};
use super::{Env, Session, lookup, paths, wire};
use crate::auth::rights::Rights;
use crate::dialect::{self, Entrance, Failure, Query, Reply, Start};
use crate::http::{Reason, Reject, Response};
use crate::ids::{RoomName, Seq};
use crate::limits::EXPAND_LOOKUPS_MAX;
use crate::model::{Document, Rows, RowsError};
use crate::ws;

/// As many as the original suggested.
const SUGGESTIONS_MAX: usize = 50;

#[derive(Clone, Debug, PartialEq)]
pub enum Read {
    /// Before the 101: which document does the path's text name?
    Resolve {
        text: String,
    },
    /// After the join: the first frame, and where in the log it is true.
    Welcome {
        id: Arc<str>,
    },
    Details {
        id: Arc<str>,
    },
    /// Without a content, the stored one.
    Expand {
        id: Arc<str>,
        content: Option<String>,
    },
    Rest(Ask),
}

/// A REST request that changes nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    All,
    One { text: String, directory: Option<String> },
    Expand { prompt: Option<String>, content: Option<String>, directory: Option<String> },
    ReferencedBy { text: String },
    Search { query: String, exclude: Option<String> },
    Exists { text: String },
    Directories,
}

pub fn read(read: &Read, rows: &mut dyn Rows, env: &Env, rights: Option<&Rights>) -> Result<Reply, RowsError> {
    match rights {
        Some(rights) => read_all(read, &mut Granted { rows, rights }, env),
        None => read_all(read, rows, env),
    }
}

fn read_all(read: &Read, rows: &mut dyn Rows, env: &Env) -> Result<Reply, RowsError> {
    match read {
        Read::Resolve { text } => resolve(text, rows),
        Read::Welcome { id } => welcome(id, rows),
        Read::Details { id } => Ok(match rows.document(id)? {
            Some(document) => {
                let (dependencies, warnings) = direct_dependencies(&document, rows)?;
                frame(wire::details(&document, &dependencies, &warnings))
            }
            None => frame(wire::error(&views::missing(id))),
        }),
        Read::Expand { id, content } => expand_for_socket(id, content.as_deref(), rows),
        Read::Rest(ask) => Ok(Reply::Response(Box::new(answer(ask, rows, env)?))),
    }
}

/// The store's words stay in the log; a client hears ours.
pub fn read_failed(read: &Read, failure: Failure) -> Reply {
    match read {
        Read::Resolve { .. } | Read::Welcome { .. } => Reply::Reject(failure.reject()),
        Read::Details { .. } | Read::Expand { .. } => {
            frame(wire::error("the store could not be read; try again in a moment"))
        }
        Read::Rest(_) => Reply::Response(Box::new(Response::reject(&failure.reject()))),
    }
}

/// What members are shown whose place in the log is no longer there: the state, in the frames they know. Several frames
/// in one run of bytes.
pub fn snapshot(room: &RoomName, rows: &mut dyn Rows) -> Result<Option<Bytes>, RowsError> {
    let Some(id) = paths::id_of_room(room.as_str()) else {
        return Ok(None);
    };
    let Some(document) = rows.document(id)? else {
        return Ok(None);
    };
    let bodies = [
        ("update", wire::update_body(&document.content)),
        ("update_metadata", wire::metadata_body(document.description.as_deref(), Some(&document.tags))),
    ];
    let mut frames = Vec::new();
    for payload in bodies.iter().filter_map(|(action, body)| wire::event(action, body, document.updated_at)) {
        frames.extend_from_slice(&ws::frame::text(&payload));
    }
    Ok(Some(Bytes::from(frames)))
}

fn resolve(text: &str, rows: &mut dyn Rows) -> Result<Reply, RowsError> {
    let Some(document) = lookup::find_socket(rows, text)? else {
        return Ok(unknown(text));
    };
    let room = paths::room_of(&document.id);
    let id: Arc<str> = Arc::from(document.id);
    Ok(Reply::Found(Box::new(Entrance {
        session: dialect::Session::Documents(Session::Prompt { room: room.clone() }),
        rooms: vec![room],
        ask: Query::Read(Box::new(dialect::Read::Documents(Read::Welcome { id }))),
    })))
}

/// Document and position come from one snapshot: an event is either in the text or after the position, never both and
/// never neither.
fn welcome(id: &Arc<str>, rows: &mut dyn Rows) -> Result<Reply, RowsError> {
    let Some(document) = rows.document(id)? else {
        return Ok(unknown(id));
    };
    let room = paths::room_of(id);
    let head = rows.room(room.as_str())?.map_or(Seq(0), |row| row.head);
    Ok(Reply::Welcome {
        frame: ws::frame::text(&wire::initial(&document)),
        starts: vec![Start::live(room, head)],
        stand: None,
    })
}

fn unknown(text: &str) -> Reply {
    Reply::Reject(Reject::new(Reason::UnknownPrompt, views::missing(text)))
}

fn frame(payload: Bytes) -> Reply {
    Reply::Frame(ws::frame::text(&payload))
}

fn expand_for_socket(id: &str, content: Option<&str>, rows: &mut dyn Rows) -> Result<Reply, RowsError> {
    let stored = match content {
        Some(_) => None,
        None => match rows.document(id)? {
            Some(document) => Some(document.content),
            None => return Ok(frame(wire::error(&views::missing(id)))),
        },
    };
    let content = content.or(stored.as_deref()).unwrap_or_default();
    let expansion = expanded(content, Some(id), paths::directory_of(id), rows)?;
    Ok(frame(wire::expanded(content, &expansion)))
}

fn expanded(content: &str, id: Option<&str>, directory: &str, rows: &mut dyn Rows) -> Result<Expansion, RowsError> {
    let mut bearers = lookup::Bearers::default();
    expand::expand(content, id, directory, &mut |name, directory| {
        let Some(resolved) = bearers.resolve(rows, name, directory)? else {
            return Ok(None);
        };
        let document = rows.document(&resolved.id)?;
        Ok(document.map(|Document { id, directory, content, .. }| Inclusion {
            id,
            directory,
            content,
            ambiguous: resolved.ambiguous,
        }))
    })
}

fn answer(ask: &Ask, rows: &mut dyn Rows, env: &Env) -> Result<Response, RowsError> {
    match ask {
        Ask::All => all(rows),
        Ask::One { text, directory } => one(text, directory.as_deref(), rows),
        Ask::Expand { prompt, content, directory } => {
            expand_over_rest(prompt.as_deref(), content.as_deref(), directory.as_deref(), rows)
        }
        Ask::ReferencedBy { text } => referenced_by(text, rows),
        Ask::Search { query, exclude } => search(query, exclude.as_deref(), rows),
        Ask::Exists { text } => exists(text, rows),
        Ask::Directories => directories(rows, env),
    }
}

fn all(rows: &mut dyn Rows) -> Result<Response, RowsError> {
    let mut documents = Vec::new();
    rows.each_document(&mut |document| {
        documents.push(document);
        true
    })?;
    let mut bearers: HashMap<&str, usize> = HashMap::new();
    for document in &documents {
        *bearers.entry(&document.name).or_default() += 1;
    }
    let prompts: Vec<Prompt<'_>> = documents
        .iter()
        .map(|document| Prompt {
            display_name: Some(views::display_name(document, bearers.get(&*document.name).copied().unwrap_or(1))),
            ..Prompt::with_directory_name(document)
        })
        .collect();
    Ok(Response::json(200, wire::json(&prompts)))
}

fn one(text: &str, directory: Option<&str>, rows: &mut dyn Rows) -> Result<Response, RowsError> {
    let Some(document) = lookup::find_in(rows, text, directory)? else {
        return Ok(views::not_found(text));
    };
    let bearers = rows.documents_named(&document.name)?.len();
    let (dependencies, warnings) = direct_dependencies(&document, rows)?;
    let prompt = Prompt {
        display_name: Some(views::display_name(&document, bearers)),
        dependencies: Some(&dependencies),
        warnings: Some(&warnings),
        ..Prompt::with_directory_info(&document)
    };
    Ok(Response::json(200, wire::json(&prompt)))
}

/// The names a document includes itself, in the alphabet's order, with a warning for each ambiguous one. No content is
/// read for it.
fn direct_dependencies(document: &Document, rows: &mut dyn Rows) -> Result<(Vec<Dependency>, Vec<String>), RowsError> {
    let names: BTreeSet<&str> = expand::markers(&document.content).map(|marker| marker.name).collect();
    let (mut dependencies, mut warnings) = (Vec::new(), Vec::new());
    let mut bearers = lookup::Bearers::default();
    for name in names.into_iter().take(EXPAND_LOOKUPS_MAX) {
        let (id, is_missing) = match bearers.resolve(rows, name, &document.directory)? {
            Some(resolved) => {
                if !resolved.ambiguous.is_empty() {
                    warnings.push(expand::ambiguity(name, &resolved.ambiguous));
                }
                (resolved.id, false)
            }
            None => (name.to_owned(), true),
        };
        dependencies.push(Dependency { id, is_missing });
    }
    Ok((dependencies, warnings))
}

/// The older clients send the content, with or without the prompt it belongs to; the newer ones only the prompt.
fn expand_over_rest(
    prompt: Option<&str>,
    content: Option<&str>,
    directory: Option<&str>,
    rows: &mut dyn Rows,
) -> Result<Response, RowsError> {
    let document = match prompt {
        Some(text) => lookup::find_in(rows, text, directory)?,
        None => None,
    };
    let (content, document) = match (content, &document) {
        (Some(content), document) => (content, document.as_ref()),
        (None, Some(document)) => (&*document.content, Some(document)),
        (None, None) => return Ok(views::not_found(prompt.unwrap_or_default())),
    };
    let own = document.map(|document| document.directory.as_str());
    let directory = directory.and_then(paths::clean_directory).or_else(|| own.map(str::to_owned)).unwrap_or_default();
    let id = document.map(|document| document.id.as_str());
    let expansion = expanded(content, id, &directory, rows)?;
    Ok(Response::json(200, views::expansion(prompt, content, &expansion)))
}

fn referenced_by(text: &str, rows: &mut dyn Rows) -> Result<Response, RowsError> {
    #[derive(Serialize)]
    struct Reference {
        id: String,
        description: Option<String>,
        directory: String,
    }
    let mut references = Vec::new();
    if let Some(target) = lookup::find(rows, text)? {
        let bearers = rows.documents_named(&target.name)?;
        let spelled = target.id.strip_prefix('/').unwrap_or(&target.id);
        rows.each_document(&mut |document| {
            // Each spelling that can mean the target is resolved once, however often a text holds it: there are three.
            let names: BTreeSet<&str> = expand::markers(&document.content)
                .map(|marker| marker.name)
                .filter(|name| *name == target.name || name.strip_prefix('/').unwrap_or(name) == spelled)
                .collect();
            let refers = names.into_iter().any(|name| {
                lookup::resolve_among(&bearers, name, &document.directory)
                    .is_some_and(|resolved| resolved.id == target.id)
            });
            if refers {
                let Document { id, description, directory, .. } = document;
                references.push(Reference { id, description, directory });
            }
            true
        })?;
    }
    Ok(Response::json(200, wire::json(&references)))
}

fn search(query: &str, exclude: Option<&str>, rows: &mut dyn Rows) -> Result<Response, RowsError> {
    #[derive(Serialize)]
    struct Suggestion<'a> {
        id: &'a str,
        display_name: &'a str,
    }
    let wanted = query.trim().to_lowercase();
    let mut found = Vec::new();
    rows.each_document(&mut |document| {
        if exclude != Some(&*document.id) && document.id.to_lowercase().contains(&wanted) {
            found.push(Document { content: String::new(), ..document });
        }
        found.len() < SUGGESTIONS_MAX
    })?;
    let mut suggestions = Vec::new();
    for document in &found {
        let bearers = rows.documents_named(&document.name)?.len();
        suggestions.push(Suggestion { id: &document.id, display_name: views::display_name(document, bearers) });
    }
    Ok(Response::json(200, wire::json(&suggestions)))
}

fn exists(text: &str, rows: &mut dyn Rows) -> Result<Response, RowsError> {
    #[derive(Serialize)]
    struct Exists<'a> {
        exists: bool,
        id: &'a str,
    }
    let exists = lookup::find(rows, text)?.is_some();
    Ok(Response::json(200, wire::json(&Exists { exists, id: text })))
}

/// The configured roots; without any, the directories that documents are labelled with.
fn directories(rows: &mut dyn Rows, env: &Env) -> Result<Response, RowsError> {
    #[derive(Serialize)]
    struct Directory<'a> {
        path: &'a str,
        name: &'a str,
        description: &'static str,
        enabled: bool,
    }
    let mut labels: BTreeSet<String> = BTreeSet::new();
    if env.roots.is_empty() {
        rows.each_document(&mut |document| {
            labels.insert(document.directory);
            true
        })?;
    }
    let listed: Vec<Directory<'_>> = env
        .roots
        .iter()
        .chain(&labels)
        .map(|path| Directory { path, name: views::directory_name(path), description: "", enabled: true })
        .collect();
    Ok(Response::json(200, wire::json(&listed)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::clock::Wall;
    use crate::dialect::fake::Fake;
    use crate::ids::Seq;
    use crate::model::{Draft, Transaction};
    use serde_json::{Value, json};

    fn rest(rows: &mut Fake, ask: Ask, env: &Env) -> (u16, Value) {
        let Reply::Response(response) = read(&Read::Rest(ask), rows, env, None).unwrap() else {
            panic!("REST answers with a response");
        };
        (response.status, serde_json::from_slice(&response.body).unwrap())
    }

    fn get(rows: &mut Fake, ask: Ask) -> Value {
        let (status, value) = rest(rows, ask, &Env::default());
        assert_eq!(status, 200);
        value
    }

    /// The payload of the one frame in a reply, whatever the length of its header.
    fn payload(reply: Reply) -> String {
        let Reply::Frame(frame) = reply else { panic!("{reply:?}") };
        let text = String::from_utf8_lossy(&frame).into_owned();
        text.get(text.find("{\"").unwrap()..).unwrap().to_owned()
    }

    #[test]
    fn p12_two_spellings_of_one_prompt_lead_to_one_room() {
        let mut rows = Fake::with(&["a/x/foo"]);
        let mut rooms = BTreeSet::new();
        for text in ["a/x/foo", "foo", "a_x_foo", "fragments/foo", "fragments/a/x/foo"] {
            let found = read(&Read::Resolve { text: text.into() }, &mut rows, &Env::default(), None).unwrap();
            let Reply::Found(entrance) = found else { panic!("{text}") };
            let Entrance { session, rooms: found, ask } = *entrance;
            let room = found.first().cloned().unwrap();
            let id: Arc<str> = "a/x/foo".into();
            let prompt = Session::Prompt { room: room.clone() };
            assert_eq!(session, dialect::Session::Documents(prompt));
            assert_eq!(ask, Query::Read(Box::new(dialect::Read::Documents(Read::Welcome { id }))));
            rooms.insert(room);
        }
        assert_eq!(rooms.into_iter().collect::<Vec<_>>(), [RoomName::new("doc:a/x/foo")]);
    }

    #[test]
    fn p3_an_unknown_prompt_is_a_refusal_that_names_it() {
        let mut rows = Fake::with(&[]);
        let reject = Reply::Reject(Reject::new(Reason::UnknownPrompt, "Prompt 'nö/pe' not found"));
        let ask = Read::Resolve { text: "nö/pe".into() };
        assert_eq!(read(&ask, &mut rows, &Env::default(), None).unwrap(), reject);
        let ask = Read::Welcome { id: "nö/pe".into() };
        assert_eq!(read(&ask, &mut rows, &Env::default(), None).unwrap(), reject);
    }

    #[test]
    fn the_first_frame_is_true_at_its_position() {
        let mut rows = Fake::with(&["a"]);
        let ask = Read::Welcome { id: "a".into() };
        let Reply::Welcome { starts, .. } = read(&ask, &mut rows, &Env::default(), None).unwrap() else { panic!() };
        assert_eq!(starts, [Start::live(RoomName::new("doc:a"), Seq(0))]);
        let draft = Draft { room: paths::room_of("a"), kind: "update".into(), body: Bytes::from_static(b"{}") };
        rows.append(draft, &"x".into(), None, 0).unwrap();
        let Reply::Welcome { frame, starts, .. } = read(&ask, &mut rows, &Env::default(), None).unwrap() else {
            panic!()
        };
        assert_eq!(starts, [Start::live(RoomName::new("doc:a"), Seq(1))]);
        assert_eq!(frame, ws::frame::text(&wire::initial(&rows.documents["a"])));
    }

    #[test]
    fn a_snapshot_is_two_frames_of_the_current_state() {
        let mut rows = Fake::with(&["a"]);
        rows.documents.get_mut("a").unwrap().updated_at = Wall(0);
        let expected = [
            r#"{"action":"update","content":"text of a","timestamp":"1970-01-01T00:00:00+00:00"}"#,
            r#"{"action":"update_metadata","description":null,"tags":[],"timestamp":"1970-01-01T00:00:00+00:00"}"#,
        ]
        .map(|payload| ws::frame::text(payload.as_bytes()))
        .concat();
        assert_eq!(snapshot(&RoomName::new("doc:a"), &mut rows).unwrap().unwrap(), expected);
        assert_eq!(snapshot(&RoomName::new("doc:b"), &mut rows).unwrap(), None);
        assert_eq!(snapshot(&RoomName::new("debug"), &mut rows).unwrap(), None);
    }

    #[test]
    fn sockets_expand_what_they_send_or_what_is_stored() {
        let mut rows = Fake::with(&["d/deep"]);
        rows.add("d/main", "[[inc]]");
        rows.add("d/inc", "<[[deep.md]]>");
        rows.add("e/inc", "wrong one");
        let mut told = |content: Option<&str>, id: &str| {
            let ask = Read::Expand { id: id.into(), content: content.map(str::to_owned) };
            payload(read(&ask, &mut rows, &Env::default(), None).unwrap())
        };
        assert_eq!(
            told(Some("x[[inc]]"), "d/main"),
            r#"{"action":"expanded","content":"x[[inc]]","expanded":"x<text of d/deep>","dependencies":["deep","inc"],"warnings":[]}"#
        );
        assert_eq!(
            told(None, "d/main"),
            r#"{"action":"expanded","content":"[[inc]]","expanded":"<text of d/deep>","dependencies":["deep","inc"],"warnings":[]}"#
        );
        assert_eq!(
            told(Some("[[inc]]"), "z"),
            r#"{"action":"expanded","content":"[[inc]]","expanded":"<text of d/deep>","dependencies":["deep","inc"],"warnings":["Ambiguous inclusion 'inc' found in multiple directories: ['d', 'e']. Using first match."]}"#
        );
        assert_eq!(
            told(Some("[[main]]"), "d/main"),
            r#"{"action":"expanded","content":"[[main]]","expanded":"[[CIRCULAR DEPENDENCY: main]]","dependencies":["main"],"warnings":["Circular dependency detected: 'main' has already been included in this expansion chain"]}"#
        );
        assert_eq!(told(None, "gone"), r#"{"action":"error","message":"Prompt 'gone' not found"}"#);
    }

    #[test]
    fn p14_dependencies_come_sorted() {
        let mut rows = Fake::with(&[]);
        rows.add("m", "[[c]] [[a]] [[b]] [[a]]");
        let value = get(&mut rows, Ask::Expand { prompt: Some("m".into()), content: None, directory: None });
        assert_eq!(value["dependencies"], json!(["a", "b", "c"]));
        let value = get(&mut rows, Ask::One { text: "m".into(), directory: None });
        let missing = |id: &str| json!({"id": id, "is_missing": true});
        assert_eq!(value["dependencies"], json!([missing("a"), missing("b"), missing("c")]));
    }

    #[test]
    fn details_answer_the_command_line_tool() {
        let mut rows = Fake::with(&["d/inc"]);
        rows.add("d/main", "[[inc]][[no]]");
        let ask = Read::Details { id: "d/main".into() };
        let value: Value =
            serde_json::from_str(&payload(read(&ask, &mut rows, &Env::default(), None).unwrap())).unwrap();
        assert_eq!(
            value,
            json!({
                "action": "details", "id": "d/main", "name": "main", "directory": "d", "content": "[[inc]][[no]]",
                "description": null, "tags": [], "is_composite": true, "prompt_type": "composite",
                "created_at": "2023-11-14T22:13:20+00:00", "updated_at": "2023-11-14T22:13:20.500000+00:00",
                "unique_id": "d_main", "warnings": [],
                "dependencies": [{"id": "d/inc", "is_missing": false}, {"id": "no", "is_missing": true}],
            })
        );
    }

    #[test]
    fn a_prompt_over_rest_has_every_field_that_clients_read() {
        let mut rows = Fake::with(&["top/d/inc", "top/d/main"]);
        let value = get(&mut rows, Ask::One { text: "main".into(), directory: None });
        assert_eq!(
            value,
            json!({
                "id": "top/d/main", "name": "main", "filename": "main.md", "directory": "top/d",
                "content": "text of top/d/main", "description": null, "tags": [],
                "created_at": "2023-11-14T22:13:20Z", "updated_at": "2023-11-14T22:13:20.500000Z",
                "unique_id": "top_d_main", "display_name": "main",
                "directory_info": {"name": "d", "path": "top/d"}, "dependencies": [], "warnings": [],
            })
        );
        let ask = Ask::One { text: "nope".into(), directory: None };
        assert_eq!(rest(&mut rows, ask, &Env::default()), (404, json!({"detail": "Prompt 'nope' not found"})));

        let all = get(&mut rows, Ask::All);
        assert_eq!(all.as_array().unwrap().len(), 2);
        assert_eq!(all[1]["display_name"], "main");
        assert_eq!(all[1]["directory_name"], "d");
        assert_eq!(all[1]["content"], "text of top/d/main");
        rows.add("other/main", "");
        assert_eq!(get(&mut rows, Ask::All)[0]["display_name"], "other/main");
    }

    #[test]
    fn listings() {
        let mut rows = Fake::with(&["a/one", "b/two"]);
        rows.add("a/uses", "[[one]] [[b/two.md]]");
        rows.add("b/one", "[[one]]");
        let ids = |value: &Value| -> Vec<String> {
            value.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
        };
        let referenced = |rows: &mut Fake, text: &str| get(rows, Ask::ReferencedBy { text: text.into() });
        let by = referenced(&mut rows, "a/one");
        assert_eq!(by, json!([{"id": "a/uses", "description": null, "directory": "a"}]));
        assert_eq!(ids(&referenced(&mut rows, "b/one")), ["b/one"], "itself, and not the one beside a/one");
        assert_eq!(ids(&referenced(&mut rows, "two")), ["a/uses"]);
        assert_eq!(referenced(&mut rows, "nope"), json!([]));

        let search = |rows: &mut Fake, query: &str, exclude: Option<&str>| {
            get(rows, Ask::Search { query: query.into(), exclude: exclude.map(str::to_owned) })
        };
        assert_eq!(search(&mut rows, "TWO", None), json!([{"id": "b/two", "display_name": "two"}]));
        assert_eq!(ids(&search(&mut rows, "", Some("a/one"))), ["a/uses", "b/one", "b/two"]);
        assert_eq!(search(&mut rows, "one", Some("a/one")), json!([{"id": "b/one", "display_name": "b/one"}]));
        for n in 0..100 {
            rows.add(&format!("many/{n:03}"), "");
        }
        assert_eq!(ids(&search(&mut rows, "many", None)).len(), 50);

        assert_eq!(get(&mut rows, Ask::Exists { text: "a/one".into() }), json!({"exists": true, "id": "a/one"}));
        assert_eq!(get(&mut rows, Ask::Exists { text: "x".into() }), json!({"exists": false, "id": "x"}));

        let entry = |path: &str, name: &str| json!({"path": path, "name": name, "description": "", "enabled": true});
        let labels = get(&mut rows, Ask::Directories);
        assert_eq!(labels, json!([entry("a", "a"), entry("b", "b"), entry("many", "many")]));
        let env = Env { roots: vec!["/srv/prompts".to_owned()] };
        let (_, roots) = rest(&mut rows, Ask::Directories, &env);
        assert_eq!(roots, json!([entry("/srv/prompts", "prompts")]));
    }

    #[test]
    fn expansion_over_rest_fits_both_generations() {
        let mut rows = Fake::with(&["d/inc"]);
        rows.add("d/main", "[[inc]]");
        let expand = |prompt: Option<&str>, content: Option<&str>| Ask::Expand {
            prompt: prompt.map(str::to_owned),
            content: content.map(str::to_owned),
            directory: None,
        };
        let value = get(&mut rows, expand(Some("d/main"), None));
        assert_eq!(
            value,
            json!({
                "prompt_id": "d/main", "original_content": "[[inc]]", "expanded_content": "text of d/inc",
                "content": "[[inc]]", "expanded": "text of d/inc", "dependencies": ["inc"], "warnings": [],
            })
        );
        let value = get(&mut rows, expand(None, Some("a [[inc]]")));
        assert_eq!((&value["content"], &value["expanded"]), (&json!("a [[inc]]"), &json!("a text of d/inc")));
        let value = get(&mut rows, expand(Some("unknown"), Some("x")));
        assert_eq!(value["expanded"], "x");
        let (status, value) = rest(&mut rows, expand(Some("unknown"), None), &Env::default());
        assert_eq!((status, value), (404, json!({"detail": "Prompt 'unknown' not found"})));
    }

    #[test]
    fn a_read_that_fails_is_answered_where_it_was_asked() {
        let failed = |ask| read_failed(&ask, Failure::Busy);
        let reject = Reply::Reject(Failure::Busy.reject());
        assert_eq!(failed(Read::Resolve { text: "a".into() }), reject);
        assert_eq!(failed(Read::Welcome { id: "a".into() }), reject);
        for ask in [Read::Details { id: "a".into() }, Read::Expand { id: "a".into(), content: None }] {
            assert!(payload(failed(ask)).starts_with(r#"{"action":"error","#));
        }
        let Reply::Response(response) = failed(Read::Rest(Ask::All)) else { panic!() };
        assert_eq!(response.status, 503);
    }
}
