//! A document as the text of a Markdown file, both ways. Pure.
//!
//! ```text
//! ---
//! description: A greeting            front matter: keys sorted, block style;
//! tags:                              left out when there is nothing to say
//! - a
//! ---
//!
//! content
//! ```
//!
//! **What the file form cannot say.** Readers of such files (the originals' too) strip outer blank space from the content,
//! since every editor adds a line end of its own; and no description and an empty one look alike. So `parse(render(d))`
//! is `d` but for these two. The store keeps every byte: an import that differs in nothing else is no edit, and our own
//! files are known by their digest.
//!
//! **What would be misread.** Content that starts with `---` (or a byte order mark) gets an empty front matter, `---` twice,
//! since it would itself be taken for one.
//!
//! **What is not ours.** Other keys and comments are kept as they are and put back by [`render_with`]. Front matter that
//! this reader does not understand is content: nothing is ever lost, and a warning says so.
//!
//! A YAML library would be a dependency with anchors, tags and billion-laughs for the sake of two keys; this reads the
//! block scalars, quotes, folds and lists that people and PyYAML write for them.

use crate::model::Document;

const FENCE: &str = "---";
const BYTE_ORDER_MARK: char = '\u{feff}';

/// A file's text, understood as far as it can be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// Without outer blank space.
    pub content: String,
    pub description: Option<String>,
    pub tags: Vec<String>,
    /// Front matter lines that are not ours, each with its line end; for [`render_with`].
    pub others: String,
    /// Sentences for the log.
    pub warnings: Vec<String>,
}

pub fn parse(text: &str) -> Parsed {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let whole = |warnings| Parsed { content: text.trim().to_owned(), warnings, ..Parsed::default() };
    match split(text) {
        Split::None => whole(Vec::new()),
        Split::Unclosed => whole(vec!["the front matter is not closed; it was taken for content".to_owned()]),
        Split::Front(front, content) => match front_matter(front) {
            Ok(parsed) => Parsed { content: content.trim().to_owned(), ..parsed },
            Err(why) => whole(vec![format!("the front matter was taken for content: {why}")]),
        },
    }
}

pub fn render(document: &Document) -> String {
    render_with(document, "")
}

/// With the front matter lines that [`parse`] found and did not understand to be ours.
pub fn render_with(document: &Document, others: &str) -> String {
    let mut front = String::new();
    if let Some(description) = document.description.as_deref().filter(|text| !text.is_empty()) {
        front.push_str(&format!("description: {}\n", scalar_text(description)));
    }
    if !document.tags.is_empty() {
        front.push_str("tags:\n");
        for tag in &document.tags {
            front.push_str(&format!("- {}\n", scalar_text(tag)));
        }
    }
    front.push_str(others);
    let start = document.content.trim_start();
    if front.is_empty() && !start.starts_with(FENCE) && !start.starts_with(BYTE_ORDER_MARK) {
        return document.content.clone();
    }
    format!("{FENCE}\n{front}{FENCE}\n\n{}", document.content)
}

enum Split<'t> {
    None,
    Unclosed,
    Front(&'t str, &'t str),
}

/// Front matter is between a first line `---` and the next one.
fn split(text: &str) -> Split<'_> {
    let mut lines = text.split_inclusive('\n');
    let Some(first) = lines.next().filter(|line| line.trim_end() == FENCE) else {
        return Split::None;
    };
    let start = first.len();
    let mut end = start;
    for line in lines {
        if line.trim_end() == FENCE {
            let front = text.get(start..end).unwrap_or_default();
            return Split::Front(front, text.get(end + line.len()..).unwrap_or_default());
        }
        end += line.len();
    }
    Split::Unclosed
}

fn front_matter(front: &str) -> Result<Parsed, &'static str> {
    let lines: Vec<&str> = front.lines().collect();
    let mut parsed = Parsed::default();
    let mut seen: Vec<&str> = Vec::new();
    let mut rest = lines.as_slice();
    while let [line, after @ ..] = rest {
        rest = after;
        if line.trim().is_empty() {
            continue;
        }
        if line.starts_with('#') {
            keep(&mut parsed.others, line);
            continue;
        }
        let (key, value) = key_and_value(line).ok_or("a line is not `key: value`")?;
        let more = after.iter().take_while(|line| belongs_to_key_above(line)).count();
        let (block, others) = after.split_at(more);
        rest = others;
        if seen.contains(&key) {
            return Err("a key is there twice");
        }
        seen.push(key);
        match key {
            "description" => parsed.description = scalar(value, block)?.filter(|text| !text.is_empty()),
            "tags" => parsed.tags = list(value, block)?,
            _ => {
                parsed.warnings.push(format!("the front matter's key '{key}' has no meaning here"));
                keep(&mut parsed.others, line);
                block.iter().for_each(|line| keep(&mut parsed.others, line));
            }
        }
    }
    Ok(parsed)
}

fn keep(others: &mut String, line: &str) {
    others.push_str(line);
    others.push('\n');
}

fn key_and_value(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(':')?;
    let unquoted = |quote| key.strip_prefix(quote)?.strip_suffix(quote);
    let key = unquoted('"').or_else(|| unquoted('\'')).unwrap_or(key);
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let spaced = value.is_empty() || value.starts_with([' ', '\t']);
    (!key.is_empty() && key.chars().all(plain) && !key.starts_with('-') && spaced).then(|| (key, value.trim()))
}

/// Indented, blank, or an item: PyYAML does not indent the items of a key's list. Nor do people the end of an inline one.
fn belongs_to_key_above(line: &str) -> bool {
    line.trim().is_empty() || line.starts_with([' ', '\t', ']']) || is_item(line)
}

fn is_item(line: &str) -> bool {
    line == "-" || line.starts_with("- ")
}

/// One text, or None for YAML's null. `first` is what stands behind the key, trimmed.
fn scalar(first: &str, block: &[&str]) -> Result<Option<String>, &'static str> {
    match first.chars().next() {
        Some('|' | '>') => block_scalar(first, block).map(Some),
        Some('"' | '\'') => {
            let text = std::iter::once(&first).chain(block).copied().collect::<Vec<_>>().join("\n");
            let (value, rest) = quoted(&text)?;
            if is_blank_or_comment(rest) { Ok(Some(value)) } else { Err("there is text behind a closing quote") }
        }
        Some('[' | '{' | '&' | '*' | '!' | '%' | '@' | '`') => Err("a value is neither a text nor a list of texts"),
        _ => plain(first, block),
    }
}

/// An unquoted text, folded over its lines.
fn plain(first: &str, block: &[&str]) -> Result<Option<String>, &'static str> {
    let first = without_comment(first);
    let mut value = first.to_owned();
    let mut blanks = 0;
    for line in block.iter().map(|line| without_comment(line.trim())) {
        if line.is_empty() {
            blanks += 1;
            continue;
        }
        if value.is_empty() && (is_item(line) || key_and_value(line).is_some()) {
            return Err("a value is neither a text nor a list of texts");
        }
        if !value.is_empty() {
            value.push_str(&if blanks == 0 { " ".to_owned() } else { "\n".repeat(blanks) });
        }
        blanks = 0;
        value.push_str(line);
    }
    Ok(Some(value).filter(|value| !matches!(&**value, "" | "~" | "null" | "Null" | "NULL")))
}

fn without_comment(line: &str) -> &str {
    if line.starts_with('#') {
        return "";
    }
    line.find(" #").and_then(|at| line.get(..at)).unwrap_or(line).trim_end()
}

fn is_blank_or_comment(text: &str) -> bool {
    text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
}

/// `|` keeps line ends, `>` folds them; `-` drops the last one, `+` keeps them all.
fn block_scalar(header: &str, block: &[&str]) -> Result<String, &'static str> {
    let indicators = without_comment(header);
    let folds = indicators.starts_with('>');
    let (mut strips, mut keeps, mut indent) = (false, false, None);
    for indicator in indicators.chars().skip(1) {
        match indicator {
            '-' => strips = true,
            '+' => keeps = true,
            '1'..='9' => indent = indicator.to_digit(10).map(|digit| digit as usize),
            _ => return Err("a block text's first line is not understood"),
        }
    }
    let leading = |line: &&&str| line.len() - line.trim_start_matches(' ').len();
    let indent = indent.or_else(|| block.iter().find(|line| !line.trim().is_empty()).map(|line| leading(&line)));
    let indent = indent.unwrap_or(0);
    let mut lines = Vec::new();
    for line in block {
        match line.get(indent..) {
            Some(text) if leading(&line) >= indent => lines.push(text),
            _ if line.trim().is_empty() => lines.push(""),
            _ => return Err("a block text's lines are indented unevenly"),
        }
    }
    let used = lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
    let (text, trailing) = lines.split_at(used);
    let mut value = if folds { folded(text) } else { text.join("\n") };
    if keeps {
        value.push_str(&"\n".repeat(trailing.len() + usize::from(used > 0)));
    } else if !strips && used > 0 {
        value.push('\n');
    }
    Ok(value)
}

/// Neighbouring lines become one; blank lines and more indented ones keep their ends.
fn folded(lines: &[&str]) -> String {
    let is_more_indented = |line: &str| line.starts_with([' ', '\t']);
    let mut value = String::new();
    let mut blanks = 0;
    let mut before: Option<&str> = None;
    for line in lines {
        if line.is_empty() {
            blanks += 1;
            continue;
        }
        if let Some(before) = before {
            let kept = is_more_indented(before) || is_more_indented(line);
            value.push_str(&match blanks + usize::from(kept) {
                0 => " ".to_owned(),
                ends => "\n".repeat(ends),
            });
        } else {
            value.push_str(&"\n".repeat(blanks));
        }
        blanks = 0;
        before = Some(line);
        value.push_str(line);
    }
    value
}

/// A text that starts with its quote; hands back what stands behind the closing one.
fn quoted(text: &str) -> Result<(String, &str), &'static str> {
    const OPEN: &str = "a quote is not closed";
    let mut chars = text.chars();
    let quote = chars.next().ok_or(OPEN)?;
    let mut value = String::new();
    // Up to here the value was escaped: a fold must not trim it.
    let mut kept = 0;
    loop {
        match chars.next().ok_or(OPEN)? {
            '\'' if quote == '\'' && chars.as_str().starts_with('\'') => {
                chars.next();
                value.push('\'');
            }
            end if end == quote => return Ok((value, chars.as_str())),
            '\\' if quote == '"' => {
                if let Some(rest) = chars.as_str().strip_prefix('\n') {
                    chars = rest.trim_start_matches([' ', '\t']).chars();
                } else {
                    value.push(escaped(&mut chars)?);
                }
                kept = value.len();
            }
            '\n' => {
                let plain = value.get(kept..).unwrap_or_default();
                value.truncate(kept + plain.trim_end_matches([' ', '\t']).len());
                let rest = chars.as_str();
                let next = rest.trim_start_matches([' ', '\t', '\n']);
                let blank = rest.get(..rest.len() - next.len()).unwrap_or_default();
                let ends = blank.matches('\n').count();
                value.push_str(&if ends == 0 { " ".to_owned() } else { "\n".repeat(ends) });
                kept = value.len();
                chars = next.chars();
            }
            other => value.push(other),
        }
    }
}

/// What stands behind a backslash in double quotes.
fn escaped(chars: &mut std::str::Chars<'_>) -> Result<char, &'static str> {
    const UNKNOWN: &str = "an escape is not understood";
    let digits = match chars.next().ok_or(UNKNOWN)? {
        '0' => return Ok('\0'),
        'a' => return Ok('\u{7}'),
        'b' => return Ok('\u{8}'),
        't' | '\t' => return Ok('\t'),
        'n' => return Ok('\n'),
        'v' => return Ok('\u{b}'),
        'f' => return Ok('\u{c}'),
        'r' => return Ok('\r'),
        'e' => return Ok('\u{1b}'),
        'N' => return Ok('\u{85}'),
        '_' => return Ok('\u{a0}'),
        'L' => return Ok('\u{2028}'),
        'P' => return Ok('\u{2029}'),
        same @ (' ' | '"' | '/' | '\\') => return Ok(same),
        'x' => 2,
        'u' => 4,
        'U' => 8,
        _ => return Err(UNKNOWN),
    };
    let mut code = 0;
    for _ in 0..digits {
        let digit = chars.next().and_then(|c| c.to_digit(16)).ok_or(UNKNOWN)?;
        code = code << 4 | digit;
    }
    char::from_u32(code).ok_or(UNKNOWN)
}

/// A list of texts: inline, in a block, or a single text that stands for a list of one.
fn list(first: &str, block: &[&str]) -> Result<Vec<String>, &'static str> {
    if first.starts_with('[') {
        let text = std::iter::once(&first).chain(block).copied().collect::<Vec<_>>().join("\n");
        return inline_list(&text);
    }
    if !without_comment(first).is_empty() {
        return Ok(scalar(first, block)?.into_iter().collect());
    }
    let mut texts = Vec::new();
    let mut rest = block;
    while let [line, after @ ..] = rest {
        rest = after;
        let item = line.trim_start();
        if is_blank_or_comment(item) {
            continue;
        }
        let indent = line.len() - item.len();
        let value = item.strip_prefix('-').filter(|_| is_item(item)).ok_or("a list holds a line that is no item")?;
        let value = value.trim();
        if is_item(value) {
            return Err("a list holds a list");
        }
        let deeper = |line: &&&str| line.trim().is_empty() || line.len() - line.trim_start().len() > indent;
        let (more, others) = after.split_at(after.iter().take_while(deeper).count());
        rest = others;
        texts.extend(scalar(value, more)?);
    }
    Ok(texts)
}

/// `[a, "b, c"]`
fn inline_list(text: &str) -> Result<Vec<String>, &'static str> {
    const OPEN: &str = "a list is not closed";
    let mut texts = Vec::new();
    let mut rest = text.strip_prefix('[').ok_or(OPEN)?;
    loop {
        rest = rest.trim_start();
        match rest.chars().next().ok_or(OPEN)? {
            ']' => break,
            '"' | '\'' => {
                let (value, after) = quoted(rest)?;
                texts.push(value);
                rest = after;
            }
            '[' | '{' | '&' | '*' | '!' | '#' | '|' | '>' | '%' | '@' | '`' => {
                return Err("a list holds what is not a text");
            }
            _ => {
                let end = rest.find([',', ']', '[', '{', '}']).ok_or(OPEN)?;
                let (value, after) = rest.split_at(end);
                let lines: Vec<&str> = value.lines().collect();
                if let [first, more @ ..] = lines.as_slice() {
                    texts.extend(plain(first.trim(), more)?);
                }
                rest = after;
            }
        }
        rest = rest.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.starts_with(']') => {}
            None => return Err("a list's items are not separated by commas"),
        }
    }
    if is_blank_or_comment(rest.get(1..).unwrap_or_default()) { Ok(texts) } else { Err("there is text behind a list") }
}

/// A text as any YAML reader takes it: plain where that is certain, in double quotes and on one line otherwise.
fn scalar_text(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            ' '..='~' => out.push(c),
            // Not printable by YAML's rules, or a line end by some reader's.
            c if c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | BYTE_ORDER_MARK)
                || (c as u32) & 0xfffe == 0xfffe =>
            {
                out.push_str(&format!("\\U{:08x}", c as u32));
            }
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Certainly a text to every reader: starts with a letter, holds no character with a meaning, is no word with one.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 9] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    text.starts_with(char::is_alphabetic)
        && !text.ends_with(' ')
        && text.chars().all(|c| c.is_alphanumeric() || " _-./()+,;!?'".contains(c))
        && !WORDS.iter().any(|word| word.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use proptest::prelude::*;

    fn document(content: &str, description: Option<&str>, tags: &[&str]) -> Document {
        Document {
            content: content.to_owned(),
            description: description.map(str::to_owned),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            ..Document::default()
        }
    }

    #[test]
    fn files_look_as_the_originals_wrote_them() {
        for (content, description, tags, expected) in [
            ("Hello", None, &[][..], "Hello"),
            ("Hello\n", None, &[], "Hello\n"),
            ("C", Some("D"), &["x", "y z"], "---\ndescription: D\ntags:\n- x\n- y z\n---\n\nC"),
            ("C", Some(""), &[], "C"),
            ("C", None, &["on", "1", "a: b", ""], "---\ntags:\n- \"on\"\n- \"1\"\n- \"a: b\"\n- \"\"\n---\n\nC"),
            ("C", Some("two\nlines"), &[], "---\ndescription: \"two\\nlines\"\n---\n\nC"),
            ("---\nfoo: bar\n---\n", None, &[], "---\n---\n\n---\nfoo: bar\n---\n"),
            ("\n---", None, &[], "---\n---\n\n\n---"),
        ] {
            assert_eq!(render(&document(content, description, tags)), expected);
        }
        let kept = render_with(&document("C", Some("D"), &[]), "author: me\n");
        assert_eq!(kept, "---\ndescription: D\nauthor: me\n---\n\nC");
    }

    #[test]
    fn what_people_and_other_programs_write_is_read() {
        for (front, description, tags) in [
            ("", None, &[][..]),
            ("description: A plain text", Some("A plain text"), &[]),
            ("description: a: b # why", Some("a: b"), &[]),
            ("description: C#", Some("C#"), &[]),
            ("description: 'it''s'", Some("it's"), &[]),
            ("description: \"a\\tb \\u00fc \\U0001F600 \\x41\"  # c", Some("a\tb ü 😀 A"), &[]),
            ("description: long\n  and folded\n\n  twice", Some("long and folded\ntwice"), &[]),
            ("description: \"one \\\n  \\ two\n  three\n\n  four\"", Some("one  two three\nfour"), &[]),
            ("description: 'a\n\n  b'", Some("a\nb"), &[]),
            ("description: |\n  a\n   b\n\n  c\n", Some("a\n b\n\nc\n"), &[]),
            ("description: |-\n  a\n  b", Some("a\nb"), &[]),
            ("description: >\n  a\n  b\n\n  c", Some("a b\nc\n"), &[]),
            ("description: >-\n  a\n    b\n  c", Some("a\n  b\nc"), &[]),
            ("description: |+\n  a\n\n", Some("a\n\n\n"), &[]),
            ("description:\n  below", Some("below"), &[]),
            ("description: null", None, &[]),
            ("description: ~\ntags: ~", None, &[]),
            ("description:\ntags:", None, &[]),
            ("description: 12", Some("12"), &[]),
            ("tags: [a, \"b, c\", 'd', e f]", None, &["a", "b, c", "d", "e f"]),
            ("\"description\": D\n'tags': [a]", Some("D"), &["a"]),
            ("tags: [a,\n  b,\n]  # c", None, &["a", "b"]),
            ("tags: []", None, &[]),
            ("tags:\n- a\n- 'b'\n\n# c\n", None, &["a", "b"]),
            ("tags:\n  - a\n  # c\n  - b # d\n  - long\n    tag", None, &["a", "b", "long tag"]),
            ("tags: one", None, &["one"]),
            ("tags:\n- a\ndescription: D", Some("D"), &["a"]),
        ] {
            let parsed = parse(&format!("---\n{front}\n---\n\nC\n"));
            assert_eq!(parsed.warnings, [""; 0], "{front}");
            assert_eq!((parsed.description.as_deref(), parsed.content.as_str()), (description, "C"), "{front}");
            assert_eq!(parsed.tags, tags, "{front}");
        }
        let windows = parse("\u{feff}---\r\ndescription: D\r\ntags:\r\n- a\r\n---\r\n\r\nC\r\n");
        assert_eq!((windows.description.as_deref(), windows.tags.as_slice()), (Some("D"), &["a".to_owned()][..]));
        assert_eq!(windows.content, "C");
    }

    #[test]
    fn what_is_not_understood_is_content_and_said_so() {
        for text in [
            "---\nHello world\n---\nrest",
            "---\nnever closed",
            "---",
            "---\ndescription: {a: b}\n---\n",
            "---\ndescription: \"open\n---\n",
            "---\ndescription: \"x\" y\n---\n",
            "---\ndescription:\n- a\n---\n",
            "---\ndescription: a\ndescription: b\n---\n",
            "---\ntags:\n- - a\n---\n",
            "---\ntags: [a, [b]]\n---\n",
            "---\ntags: [a\n---\n",
            "---\ntags:\n  a: b\n---\n",
            "---\n  indented: x\n---\n",
            "---\ndescription: \"\\q\"\n---\n",
            "---\ndescription: \"\\ud800\"\n---\n",
        ] {
            let parsed = parse(text);
            assert_eq!(parsed.content, text.trim(), "{text}");
            assert_eq!(parsed.warnings.len(), 1, "{text}");
            assert_eq!((parsed.description, parsed.tags.len()), (None, 0), "{text}");
        }
        for text in ["", "plain", "--- \nx: y", "----\na: b\n----", "a\n---\nb: c\n---\n", "- --"] {
            let parsed = parse(text);
            assert_eq!(parsed.content, text.trim(), "{text}");
        }
    }

    #[test]
    fn keys_that_are_not_ours_survive_a_write_back() {
        let text = "---\n# kept\nauthor: me\ndescription: D\nlinks:\n- a\n  - b\n\ntags: [x]\n---\n\nC";
        let parsed = parse(text);
        assert_eq!(parsed.others, "# kept\nauthor: me\nlinks:\n- a\n  - b\n\n");
        assert_eq!(parsed.warnings.len(), 2);
        let written = render_with(&document("C2", Some("D2"), &[]), &parsed.others);
        let again = parse(&written);
        assert_eq!(
            (again.others, again.content, again.description.as_deref()),
            (parsed.others, "C2".into(), Some("D2"))
        );
    }

    fn check_round_trip(content: String, description: Option<String>, tags: Vec<String>) -> Result<(), TestCaseError> {
        let document = Document { content, description, tags, ..Document::default() };
        let parsed = parse(&render(&document));
        prop_assert_eq!(&parsed.warnings, &Vec::<String>::new());
        prop_assert_eq!(parsed.content, document.content.trim());
        prop_assert_eq!(parsed.description, document.description.filter(|text| !text.is_empty()));
        prop_assert_eq!(parsed.tags, document.tags);
        Ok(())
    }

    proptest! {
        #[test]
        fn what_is_rendered_is_read_back(
            content in any::<String>(),
            description in proptest::option::of(any::<String>()),
            tags in proptest::collection::vec(any::<String>(), 0..4),
        ) {
            check_round_trip(content, description, tags)?;
        }

        /// The same over the characters that mean something.
        #[test]
        fn what_is_rendered_is_read_back_in_the_thick_of_it(
            content in "[-a:#'\"\\[\\]\\n\\r\\t \\u{feff}]{0,16}",
            description in proptest::option::of("[-a:#'\"\\\\|>\\[\\]\\{&*!%@`~,\\n\\r\\t \\u{85}\\u{2028}\\u{feff}]{0,12}"),
            tags in proptest::collection::vec("[-a:#'\"\\\\\\[\\],\\n ~]{0,6}|null|true|no|12", 0..4),
        ) {
            check_round_trip(content, description, tags)?;
        }

        #[test]
        fn no_file_makes_the_reader_panic_or_lose_its_text(
            front in "((description|tags|x):[ a\"'|>\\[\\],#\\\\u0-9-]{0,10}\n|[ -~]{0,12}\n|[- ]{1,3}a\n){0,6}",
            content in "[a-z\n-]{0,10}",
        ) {
            let parsed = parse(&format!("---\n{front}---\n{content}"));
            prop_assert!(parsed.content.ends_with(content.trim()) || content.contains(FENCE));
        }
    }
}
