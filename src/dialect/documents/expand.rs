//! Inclusions: `[[name]]` in a document's text stands for another document's stored text, recursively.
//!
//! Pure over a lookup. Two inclusions a level double the text per level, so the depth alone bounds nothing (the
//! originals' flaw): lookups and bytes are bounded too, and at a bound the marker stays as text and a warning says so.

use std::collections::BTreeSet;

use crate::limits::{EXPAND_BYTES_MAX, EXPAND_DEPTH_MAX, EXPAND_LOOKUPS_MAX};

const TOO_DEEP: &str = "Maximum inclusion depth reached, stopping recursion";
const TOO_MANY: &str = "Maximum number of inclusions reached, stopping expansion";
const TOO_BIG: &str = "Maximum expansion size reached, stopping expansion";

/// Directories named in one ambiguity warning; a name found in thousands would make a page of each marker.
pub const AMBIGUOUS_LISTED_MAX: usize = 10;

/// What an expansion came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expansion {
    pub text: String,
    /// Every name mentioned, as written, found or not; the originals' order was chance, ours is the alphabet's.
    pub dependencies: BTreeSet<String>,
    pub warnings: Vec<String>,
}

/// A document that a name stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Inclusion {
    pub id: String,
    pub directory: String,
    pub content: String,
    /// All directories that hold the name, when it stood for the first of several.
    pub ambiguous: Vec<String>,
}

/// Takes a name and the including document's directory.
pub type Lookup<'l, E> = dyn FnMut(&str, &str) -> Result<Option<Inclusion>, E> + 'l;

/// Expands `text`, which stands in the document `id` (if it is one) in `directory`.
pub fn expand<E>(text: &str, id: Option<&str>, directory: &str, lookup: &mut Lookup<'_, E>) -> Result<Expansion, E> {
    let mut run = Run {
        lookup,
        out: Expansion::default(),
        warned: BTreeSet::new(),
        chain: id.map(str::to_owned).into_iter().collect(),
        lookups: 0,
        bytes: 0,
        stopped: false,
    };
    run.level(text, directory, 0)?;
    Ok(run.out)
}

/// The markers of a text, as `\[\[([^\]]+)\]\]` finds them, in linear time: a `]` that does not close a marker rules
/// out every `[[` before it at once.
pub fn markers(text: &str) -> impl Iterator<Item = Marker<'_>> {
    let mut from = 0;
    std::iter::from_fn(move || {
        loop {
            let open = from + text.get(from..)?.find("[[")?;
            let close = open + 2 + text.get(open + 2..)?.find(']')?;
            if close == open + 2 {
                from = open + 1;
                continue;
            }
            if !text.get(close..)?.starts_with("]]") {
                from = close + 1;
                continue;
            }
            from = close + 2;
            let written = text.get(open + 2..close)?.trim();
            let name = written.strip_suffix(".md").unwrap_or(written);
            // `[[ ]]` names nothing and stays as text, like `[[]]`.
            if !name.is_empty() {
                return Some(Marker { start: open, end: close + 2, name });
            }
        }
    })
}

/// Where a marker stands, and the name in it without `.md`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Marker<'t> {
    pub start: usize,
    pub end: usize,
    pub name: &'t str,
}

struct Run<'l, E> {
    lookup: &'l mut Lookup<'l, E>,
    out: Expansion,
    warned: BTreeSet<String>,
    /// Canonical ids from the text's own document down to the one being expanded.
    chain: Vec<String>,
    lookups: usize,
    /// Bytes of every document looked up, included or not: what was read is work too.
    bytes: usize,
    stopped: bool,
}

impl<E> Run<'_, E> {
    fn level(&mut self, text: &str, directory: &str, depth: usize) -> Result<(), E> {
        let mut copied = 0;
        for marker in markers(text) {
            self.out.dependencies.insert(marker.name.to_owned());
            self.out.text.push_str(text.get(copied..marker.start).unwrap_or_default());
            copied = marker.end;
            if !self.include(marker.name, directory, depth)? {
                self.out.text.push_str(text.get(marker.start..marker.end).unwrap_or_default());
            }
        }
        self.out.text.push_str(text.get(copied..).unwrap_or_default());
        Ok(())
    }

    /// Writes what stands for the name; false leaves the marker as it is.
    fn include(&mut self, name: &str, directory: &str, depth: usize) -> Result<bool, E> {
        if self.stopped {
            return Ok(false);
        }
        if depth >= EXPAND_DEPTH_MAX {
            self.warn(TOO_DEEP.to_owned());
            return Ok(false);
        }
        if self.lookups == EXPAND_LOOKUPS_MAX {
            return Ok(self.stop(TOO_MANY));
        }
        self.lookups += 1;
        let Some(found) = (self.lookup)(name, directory)? else {
            self.warn(format!("Prompt '{name}' not found"));
            self.out.text.push_str(&format!("[[PROMPT NOT FOUND: {name}]]"));
            return Ok(true);
        };
        if found.content.len() > EXPAND_BYTES_MAX - self.bytes {
            return Ok(self.stop(TOO_BIG));
        }
        self.bytes += found.content.len();
        if !found.ambiguous.is_empty() {
            self.warn(ambiguity(name, &found.ambiguous));
        }
        if self.chain.contains(&found.id) {
            self.warn(format!(
                "Circular dependency detected: '{name}' has already been included in this expansion chain"
            ));
            self.out.text.push_str(&format!("[[CIRCULAR DEPENDENCY: {name}]]"));
            return Ok(true);
        }
        self.chain.push(found.id);
        self.level(&found.content, &found.directory, depth + 1)?;
        self.chain.pop();
        Ok(true)
    }

    fn stop(&mut self, warning: &str) -> bool {
        self.stopped = true;
        self.warn(warning.to_owned());
        false
    }

    fn warn(&mut self, warning: String) {
        if self.warned.insert(warning.clone()) {
            self.out.warnings.push(warning);
        }
    }
}

/// The warning for a name that several directories hold; spelled as Python prints a list.
pub fn ambiguity(name: &str, directories: &[String]) -> String {
    let listed: Vec<String> = directories.iter().take(AMBIGUOUS_LISTED_MAX).map(|one| format!("'{one}'")).collect();
    let more = if directories.len() > AMBIGUOUS_LISTED_MAX { ", …" } else { "" };
    format!(
        "Ambiguous inclusion '{name}' found in multiple directories: [{}{more}]. Using first match.",
        listed.join(", ")
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn run(text: &str, id: Option<&str>, documents: &[(&str, &str)]) -> Expansion {
        let mut lookup = |name: &str, _: &str| {
            Ok::<_, Infallible>(documents.iter().find(|(id, _)| *id == name).map(|(id, content)| Inclusion {
                id: (*id).to_owned(),
                directory: String::new(),
                content: (*content).to_owned(),
                ambiguous: Vec::new(),
            }))
        };
        expand(text, id, "", &mut lookup).unwrap()
    }

    #[test]
    fn markers_are_those_of_the_originals_pattern() {
        for (text, expected) in [
            ("[[a]]", vec!["a"]),
            ("x[[a]][[b.md]]y", vec!["a", "b"]),
            ("[[]]", vec![]),
            ("[[]][[a]]", vec!["a"]),
            ("[[]a]] [[b]]", vec!["b"]),
            ("[[a] [[b]]", vec!["b"]),
            ("[[[a]]", vec!["[a"]),
            ("[[a/b c]]", vec!["a/b c"]),
            ("[[ a ]]", vec!["a"]),
            ("[[ ]][[.md]]", vec![]),
            ("[[a", vec![]),
            ("[[a]", vec![]),
            ("[", vec![]),
            ("[[ä\nö]]", vec!["ä\nö"]),
            ("[[a]]]", vec!["a"]),
        ] {
            let names: Vec<&str> = markers(text).map(|marker| marker.name).collect();
            assert_eq!(names, expected, "{text}");
        }
    }

    #[test]
    fn inclusions_are_replaced_depth_first() {
        let documents = [("inc", "<[[deep]]>"), ("deep", "D"), ("loop", "l[[loop]]"), ("a", "[[b]]"), ("b", "[[a]]")];
        let circular = "Circular dependency detected: 'loop' has already been included in this expansion chain";
        for (text, id, expected, dependencies, warnings) in [
            ("plain", None, "plain", vec![], vec![]),
            ("1[[inc]]2[[deep.md]]", None, "1<D>2D", vec!["deep", "inc"], vec![]),
            ("[[no]]", None, "[[PROMPT NOT FOUND: no]]", vec!["no"], vec!["Prompt 'no' not found"]),
            (
                "[[no]][[no]]",
                None,
                "[[PROMPT NOT FOUND: no]][[PROMPT NOT FOUND: no]]",
                vec!["no"],
                vec!["Prompt 'no' not found"],
            ),
            ("[[loop]]", None, "l[[CIRCULAR DEPENDENCY: loop]]", vec!["loop"], vec![circular]),
            ("[[loop]]", Some("loop"), "[[CIRCULAR DEPENDENCY: loop]]", vec!["loop"], vec![circular]),
            ("[[]]", None, "[[]]", vec![], vec![]),
        ] {
            let expansion = run(text, id, &documents);
            assert_eq!(expansion.text, expected, "{text}");
            assert_eq!(expansion.dependencies.iter().collect::<Vec<_>>(), dependencies, "{text}");
            assert_eq!(expansion.warnings, warnings, "{text}");
        }
        assert_eq!(run("[[a]]", None, &documents).text, "[[CIRCULAR DEPENDENCY: a]]");
    }

    #[test]
    fn the_bounds_leave_markers_as_text_and_say_so_once() {
        let names: Vec<(String, String)> =
            (0..=12).map(|n| (format!("d{n}"), format!("[[d{}]][[d{}]]", n + 1, n + 1))).collect();
        let chain: Vec<(&str, &str)> = names.iter().map(|(id, content)| (id.as_str(), content.as_str())).collect();
        let deep = run("[[d0]]", None, &chain);
        assert_eq!(deep.warnings, [TOO_DEEP]);
        assert_eq!(deep.text.matches("[[d10]]").count(), 1024);

        let many = run(&"[[x]]".repeat(EXPAND_LOOKUPS_MAX + 5), None, &[("x", "y")]);
        assert_eq!(many.warnings, [TOO_MANY]);
        assert_eq!(many.text.matches('y').count(), EXPAND_LOOKUPS_MAX);

        let mega = "m".repeat(1024 * 1024);
        let big = run(&"[[x]]".repeat(6), None, &[("x", &mega)]);
        assert_eq!(big.warnings, [TOO_BIG]);
        assert_eq!(big.text.matches('m').count(), EXPAND_BYTES_MAX);
    }

    #[test]
    fn a_text_full_of_opening_brackets_takes_one_pass() {
        // A quadratic scan would not come to an end in anybody's patience.
        let hostile = "[".repeat(4_000_000) + &"[[x]".repeat(250_000);
        assert_eq!(markers(&hostile).count(), 0);
    }

    #[test]
    fn ambiguity_lists_a_bounded_number() {
        assert_eq!(
            ambiguity("x", &["a".to_owned(), "b".to_owned()]),
            "Ambiguous inclusion 'x' found in multiple directories: ['a', 'b']. Using first match."
        );
        let many: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        assert!(ambiguity("x", &many).len() < 200);
    }

    proptest! {
        #[test]
        fn whatever_includes_whatever_stays_within_the_bounds(
            contents in proptest::collection::vec("([a-f \\[\\]]|\\[\\[[a-h]\\]\\]){0,40}", 6),
            top in "(\\[\\[[a-h]\\]\\]|[a-h]|\\[|\\]){0,60}",
        ) {
            let ids = ["a", "b", "c", "d", "e", "f"];
            let documents: Vec<(&str, &str)> = ids.into_iter().zip(contents.iter().map(String::as_str)).collect();
            let expansion = run(&top, Some("a"), &documents);
            prop_assert!(expansion.text.len() <= top.len() + EXPAND_BYTES_MAX + EXPAND_LOOKUPS_MAX * 32);
            prop_assert!(expansion.warnings.len() <= 2 * expansion.dependencies.len() + 3);
            let mentioned: BTreeSet<String> = markers(&top).map(|marker| marker.name.to_owned()).collect();
            prop_assert!(mentioned.is_subset(&expansion.dependencies));
            prop_assert_eq!(run(&top, Some("a"), &documents), expansion);
        }

        #[test]
        fn markers_never_overlap_and_stand_where_they_say(text in "[\\[\\]a.mdü ]{0,80}") {
            let mut last = 0;
            for marker in markers(&text) {
                prop_assert!(marker.start >= last);
                let whole = &text[marker.start..marker.end];
                prop_assert!(whole.starts_with("[[") && whole.ends_with("]]") && whole.contains(marker.name));
                last = marker.end;
            }
        }
    }
}
