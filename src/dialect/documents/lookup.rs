//! Which document a text names: in a path, in a request's body, or in an inclusion.

use std::collections::HashMap;

use super::{expand, paths};
use crate::model::{Document, Rows, RowsError};

/// The document that `text` names in a path or a body, by three generations' rules: the exact id (with and without a
/// first slash), then the name when the text has no slash, then the unique id. The first match wins.
pub fn find(rows: &mut dyn Rows, text: &str) -> Result<Option<Document>, RowsError> {
    let Ok(text) = paths::clean_id(text) else {
        return Ok(None);
    };
    if let Some(document) = exact(rows, &text)? {
        return Ok(Some(document));
    }
    if !text.contains('/')
        && let Some(id) = rows.documents_named(&text)?.first()
    {
        return rows.document(id);
    }
    match rows.documents_with_unique_id(&text)?.first() {
        Some(id) => rows.document(id),
        None => Ok(None),
    }
}

/// As [`find`], and then as the fragment of that name: a prompt in a directory called `fragments` comes first, so that
/// it can be reached at all.
pub fn find_socket(rows: &mut dyn Rows, text: &str) -> Result<Option<Document>, RowsError> {
    match (find(rows, text)?, paths::without_fragments(text)) {
        (None, Some(rest)) => find(rows, rest),
        (found, _) => Ok(found),
    }
}

/// As [`find`], but the prompt of that name in `directory` comes first.
pub fn find_in(rows: &mut dyn Rows, text: &str, directory: Option<&str>) -> Result<Option<Document>, RowsError> {
    if let Some(directory) = directory.and_then(paths::clean_directory)
        && let Ok(name) = paths::clean_id(text)
        && let Some(document) = exact(rows, &Document::id_of(&directory, &name))?
    {
        return Ok(Some(document));
    }
    find(rows, text)
}

/// The document with this id, whether or not a proxy swallowed its first slash.
pub fn exact(rows: &mut dyn Rows, id: &str) -> Result<Option<Document>, RowsError> {
    if let Some(document) = rows.document(id)? {
        return Ok(Some(document));
    }
    match id.strip_prefix('/') {
        Some(rest) => rows.document(rest),
        None => rows.document(&format!("/{id}")),
    }
}

/// What a name in an inclusion stands for, without its content.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    pub id: String,
    /// Every directory that holds the name, when the first of several was taken.
    pub ambiguous: Vec<String>,
}

/// Who bears which name, read once for one request: a text may hold thousands of markers with a name that thousands of
/// documents bear.
#[derive(Debug, Default)]
pub struct Bearers {
    known: HashMap<String, Vec<String>>,
}

impl Bearers {
    /// A name with a slash is an id; a bare one means the including document's own directory first, then anywhere.
    pub fn resolve(&mut self, rows: &mut dyn Rows, name: &str, directory: &str) -> Result<Option<Resolved>, RowsError> {
        let last = name.rsplit('/').next().unwrap_or(name);
        if last.is_empty() || name.len() > crate::limits::PROMPT_ID_BYTES_MAX {
            return Ok(None);
        }
        if !self.known.contains_key(last) {
            self.known.insert(last.to_owned(), rows.documents_named(last)?);
        }
        Ok(self.known.get(last).and_then(|ids| resolve_among(ids, name, directory)))
    }
}

/// The same, given the ids of all documents that bear the name's last part.
pub fn resolve_among(ids: &[String], name: &str, directory: &str) -> Option<Resolved> {
    let certain = |id: &String| Resolved { id: id.clone(), ambiguous: Vec::new() };
    if name.contains('/') {
        let bare = name.strip_prefix('/').unwrap_or(name);
        let same = |id: &&String| id.strip_prefix('/').unwrap_or(id) == bare;
        return ids.iter().find(|id| *id == name).or_else(|| ids.iter().find(same)).map(certain);
    }
    let beside = Document::id_of(directory, name);
    if let Some(id) = ids.iter().find(|id| **id == beside) {
        return Some(certain(id));
    }
    let first = ids.first()?;
    let ambiguous = match ids {
        [_] => Vec::new(),
        // One more than is ever named: thousands may bear the name, and each marker would copy them all.
        several => {
            let directories = several.iter().map(|id| paths::directory_of(id).to_owned());
            directories.take(expand::AMBIGUOUS_LISTED_MAX + 1).collect()
        }
    };
    Some(Resolved { id: first.clone(), ambiguous })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::dialect::fake::Fake;

    #[test]
    fn p12_every_spelling_of_an_id_names_one_document() {
        let mut rows = Fake::with(&["readme", "a/x/foo", "b/foo", "/abs/dir/bar", "fragments/frag", "plain"]);
        for (text, expected) in [
            ("readme", Some("readme")),
            ("a/x/foo", Some("a/x/foo")),
            ("/a/x/foo", Some("a/x/foo")),
            ("foo", Some("a/x/foo")),
            ("a_x_foo", Some("a/x/foo")),
            ("b_foo", Some("b/foo")),
            ("abs/dir/bar", Some("/abs/dir/bar")),
            ("//abs/dir/bar", Some("/abs/dir/bar")),
            ("x/foo", None),
            ("readme.md", None),
            ("", None),
            ("../readme", None),
        ] {
            assert_eq!(find(&mut rows, text).unwrap().map(|found| found.id).as_deref(), expected, "{text}");
        }
        for (text, expected) in [("fragments/frag", "fragments/frag"), ("fragments/plain", "plain")] {
            assert_eq!(find_socket(&mut rows, text).unwrap().unwrap().id, expected);
        }
        assert_eq!(find(&mut rows, "fragments/plain").unwrap(), None);
        assert_eq!(find_in(&mut rows, "foo", Some("b")).unwrap().unwrap().id, "b/foo");
        assert_eq!(find_in(&mut rows, "foo", Some("zzz")).unwrap().unwrap().id, "a/x/foo");
    }

    #[test]
    fn a_name_that_thousands_bear_is_not_copied_for_each_marker() {
        let ids: Vec<String> = (0..5_000).map(|n| format!("d{n:04}/x")).collect();
        let found = resolve_among(&ids, "x", "elsewhere").unwrap();
        assert_eq!((found.id.as_str(), found.ambiguous.len()), ("d0000/x", expand::AMBIGUOUS_LISTED_MAX + 1));
    }

    #[test]
    fn inclusions_resolve_beside_their_document_first() {
        let ids = ["a/foo".to_owned(), "b/foo".to_owned(), "/c/foo".to_owned()];
        for (name, directory, expected, ambiguous) in [
            ("foo", "b", Some("b/foo"), 0),
            ("foo", "", Some("a/foo"), 3),
            ("b/foo", "a", Some("b/foo"), 0),
            ("c/foo", "a", Some("/c/foo"), 0),
            ("/a/foo", "", Some("a/foo"), 0),
            ("z/foo", "a", None, 0),
        ] {
            let resolved = resolve_among(&ids, name, directory);
            assert_eq!(resolved.as_ref().map(|one| one.id.as_str()), expected, "{name} in {directory}");
            assert_eq!(resolved.map_or(0, |one| one.ambiguous.len()), ambiguous, "{name} in {directory}");
        }
    }
}
