//! What is wrong with a configuration, and where it was written.

use std::fmt;
use std::sync::Arc;

/// Everything that is wrong, in the order in which it was written; never empty.
///
/// Several at once, because a start that fails five times for five slips is four starts too many.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    pub problems: Vec<Problem>,
}

impl ConfigError {
    pub(super) fn new(mut problems: Vec<Problem>) -> ConfigError {
        problems.sort_by(|a, b| a.place.cmp(&b.place));
        // What is wrong for two dialects is written once.
        let mut once: Vec<Problem> = Vec::new();
        for problem in problems {
            if !once.contains(&problem) {
                once.push(problem);
            }
        }
        ConfigError { problems: once }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// One thing that is wrong. Names keys and kinds of values, never a value that could be a secret: it is printed and
/// logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub place: Place,
    pub message: String,
}

impl Problem {
    pub(super) fn new(place: Place, message: impl Into<String>) -> Problem {
        Problem { place, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Default => f.write_str(&self.message),
            place => write!(f, "{place}: {}", self.message),
        }
    }
}

/// Where a value was written. Ordered as a reader looks: the file from the top, the environment, the command line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Nowhere: it is a default, or it is missing.
    Default,
    File {
        path: Arc<str>,
        line: usize,
    },
    /// The name of the environment variable.
    Variable(Arc<str>),
    /// The command line's flag.
    Flag(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Default => f.write_str("default"),
            Place::File { path, line } => write!(f, "{path}:{line}"),
            Place::Variable(name) => f.write_str(name),
            Place::Flag(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_told_in_the_order_of_the_file_and_once() {
        let line = |line| Place::File { path: Arc::from("c.toml"), line };
        let error = ConfigError::new(vec![
            Problem::new(Place::Flag("--listen"), "d"),
            Problem::new(line(10), "b"),
            Problem::new(line(9), "a"),
            Problem::new(Place::Variable(Arc::from("COMMITCAST_X")), "c"),
            Problem::new(line(9), "a"),
        ]);
        assert_eq!(error.to_string(), "c.toml:9: a\nc.toml:10: b\nCOMMITCAST_X: c\n--listen: d");
    }
}
