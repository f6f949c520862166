//! Seeded mutations of a corpus, for the run without coverage: so they know more of the structure than libFuzzer has
//! to. Words are cut out of the corpus itself (tokens of JSON, of HTTP, of TOML), and exchanged, doubled and dropped as
//! wholes.

use crate::dice::Dice;

/// What is wrong with numbers, lengths, quotes and marks.
const AWKWARD: [&[u8]; 24] = [
    b"0",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"1.5",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"\"\"",
    b"\\ud800",
    b"\\u0000",
    b"\xff",
    b"\xf0\x9f\x92\xa9",
    b"\0",
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b"\"",
    b"\\",
    b"%2f",
    b"..",
    b"*",
    b",",
];

/// One of the corpus, changed in a few places.
pub fn mutate(corpus: &[Vec<u8>], words: &[Vec<u8>], most: usize, dice: &mut Dice) -> Vec<u8> {
    let mut data = corpus[dice.below(corpus.len())].clone();
    for _ in 0..=dice.below(5) {
        change(&mut data, corpus, words, dice);
    }
    data.truncate(most);
    data
}

fn change(data: &mut Vec<u8>, corpus: &[Vec<u8>], words: &[Vec<u8>], dice: &mut Dice) {
    let at = dice.below(data.len() + 1);
    let (from, to) = piece(data, dice);
    match dice.below(12) {
        0 if at < data.len() => data[at] ^= 1 << dice.below(8),
        1 if at < data.len() => data[at] = dice.roll() as u8,
        2 => drop(data.drain(from..to)),
        3 => drop(data.splice(at..at, [dice.roll() as u8])),
        4 => insert(data, at, AWKWARD[dice.below(AWKWARD.len())]),
        5 => drop(data.splice(from..to, AWKWARD[dice.below(AWKWARD.len())].iter().copied())),
        6 if !words.is_empty() => insert(data, at, &words[dice.below(words.len())]),
        7 | 8 if !words.is_empty() => drop(data.splice(from..to, words[dice.below(words.len())].iter().copied())),
        9 => {
            // A piece again, somewhere.
            let copy = data[from..to].to_vec();
            insert(data, at, &copy);
        }
        10 => {
            // The front of one and the back of another.
            let other = &corpus[dice.below(corpus.len())];
            data.truncate(at);
            data.extend_from_slice(&other[dice.below(other.len() + 1)..]);
        }
        _ => data.truncate(at),
    }
}

/// A word, more often than not, or any short piece.
fn piece(data: &[u8], dice: &mut Dice) -> (usize, usize) {
    let at = dice.below(data.len() + 1);
    if dice.below(3) == 0 {
        return (at, (at + 1 + dice.below(16)).min(data.len()));
    }
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'.';
    let from = at - data[..at].iter().rev().take_while(|byte| is_word(byte)).count();
    let to = at + data[at..].iter().take_while(|byte| is_word(byte)).count();
    if from == to { (at, (at + 1).min(data.len())) } else { (from, to) }
}

fn insert(data: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    data.splice(at..at, bytes.iter().copied());
}

/// The words of a corpus, each once: runs of letters and digits, and whole quoted texts.
pub fn words(corpus: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut words: Vec<Vec<u8>> = Vec::new();
    for data in corpus {
        let runs = data.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_');
        let quoted = data.split(|byte| *byte == b'"').skip(1).step_by(2).map(|text| [b"\"", text, b"\""].concat());
        words.extend(runs.map(<[u8]>::to_vec).chain(quoted).filter(|word| (2..=64).contains(&word.len())));
    }
    words.sort_unstable();
    words.dedup();
    words
}
