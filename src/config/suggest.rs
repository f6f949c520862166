//! The known word that somebody probably meant.

/// The candidate nearest to `word`, when it is near enough to be a slip of the fingers: one edit in three letters.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.to_lowercase().chars().take(WORD_CHARS_MAX).collect();
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, candidate), candidate))
        .filter(|(edits, candidate)| *edits <= candidate.chars().count().div_ceil(3))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// No key is nearly as long, and the table below grows with the word.
const WORD_CHARS_MAX: usize = 64;

/// Insertions, deletions, replacements and swaps of neighbours between the two (optimal string alignment). Swaps count
/// as one because they are what fingers do most.
fn distance(word: &[char], candidate: &str) -> usize {
    let candidate: Vec<char> = candidate.chars().collect();
    let width = candidate.len() + 1;
    let mut before_last = vec![0; width];
    let mut last: Vec<usize> = (0..width).collect();
    for (row, &a) in word.iter().enumerate() {
        let mut current = vec![row + 1; width];
        for (column, &b) in candidate.iter().enumerate() {
            let mut edits = (last[column] + usize::from(a != b)).min(last[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && a == candidate[column - 1] && word[row - 1] == b {
                edits = edits.min(before_last[column - 1] + 1);
            }
            current[column + 1] = edits;
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last[width - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_found_and_a_stranger_is_not() {
        let known = ["mode", "hs256_secret", "keys", "api_keys", "cookie"];
        for (word, expected) in [
            ("mod", Some("mode")),
            ("MODE", Some("mode")),
            ("moed", Some("mode")),
            ("hs256secret", Some("hs256_secret")),
            ("hs265_secret", Some("hs256_secret")),
            ("api-keys", Some("api_keys")),
            ("kee", Some("keys")),
            ("password", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
        assert_eq!(nearest("mode", []), None);
    }

    #[test]
    fn distances_are_the_fewest_edits() {
        for (a, b, edits) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "abc", 0),
            ("abc", "acb", 1),
            ("abc", "ab", 1),
            ("abc", "xbc", 1),
            ("kitten", "sitting", 3),
        ] {
            let word: Vec<char> = a.chars().collect();
            assert_eq!(distance(&word, b), edits, "{a} {b}");
        }
    }
}
