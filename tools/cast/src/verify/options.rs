//! What may be asked for on the command line, and the command that asks for the same again.

use std::path::PathBuf;

use clap::{Args, ValueEnum as _};

use super::scene::Dialect;
use super::server::Durability;

const EXAMPLES: &str = "\
Examples:
  cast verify                            about a minute on a server of its own, which it kills again and again
  cast verify --rounds 500               half an hour's worth of kills
  cast verify --seed 7                   the plan of an earlier run
  cast verify --url ws://127.0.0.1:8080 --no-kill --token \"$TOKEN\" --api-key \"$KEY\"
                                         a deployment, in rooms of its own; nothing is killed

Exit codes:
  0  no promise was broken
  1  one was: what, and where the evidence is, is printed
  2  it could not be run, or nothing could be checked";

#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Kills of the server
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rounds: u32,
    /// End after so many seconds of traffic, whatever --rounds says [default: with --no-kill 20]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: Option<u32>,
    /// Writers in each room and vocabulary
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub writers: u32,
    /// Observers of each room, native and old pages each
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub observers: u32,
    /// Rooms of each dialect (tickets has one)
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub rooms: u32,
    /// What is spoken [default: all five; with --url: native,documents]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub dialects: Vec<Dialect>,
    /// Fixes the plan of everybody and the moments of the kills; the interleaving is the machine's [default: a new one]
    #[arg(long)]
    pub seed: Option<u64>,
    /// How safely the server is to store
    #[arg(long, value_enum, default_value = "full")]
    pub durability: Durability,
    /// Where the data and a transcript are kept when a promise was broken [default: the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// The server's program [default: the one beside cast, else the one in PATH]
    #[arg(long, value_name = "PATH", conflicts_with = "url")]
    pub server: Option<PathBuf>,

    /// A server that runs already
    #[arg(long, requires = "no_kill")]
    pub url: Option<String>,
    /// Kill nothing: what --url needs
    #[arg(long, requires = "url")]
    pub no_kill: bool,
    /// Show this token on sockets and over HTTP
    #[arg(long, requires = "url")]
    pub token: Option<String>,
    /// Read the logs, and be a backend, with this key
    #[arg(long, requires = "url")]
    pub api_key: Option<String>,
}

impl Options {
    pub fn speaks(&self) -> Vec<Dialect> {
        let all = Dialect::value_variants();
        match (self.dialects.is_empty(), self.no_kill) {
            (false, _) => all.iter().copied().filter(|dialect| self.dialects.contains(dialect)).collect(),
            (true, true) => vec![Dialect::Native, Dialect::Documents],
            (true, false) => all.to_vec(),
        }
    }

    /// The command that plays the same again, without what must not stand in a log.
    pub fn again(&self, seed: u64) -> String {
        let mut command = format!("cast verify --seed {seed}");
        let mut say = |name: &str, value: String| command.push_str(&format!(" --{name} {value}"));
        if !self.no_kill {
            say("rounds", self.rounds.to_string());
        }
        if let Some(seconds) = self.seconds {
            say("seconds", seconds.to_string());
        }
        for (name, value) in [("writers", self.writers), ("observers", self.observers), ("rooms", self.rooms)] {
            if value != 2 {
                say(name, value.to_string());
            }
        }
        if !self.dialects.is_empty() {
            let names: Vec<String> =
                self.speaks().iter().filter_map(|it| Some(it.to_possible_value()?.get_name().to_owned())).collect();
            say("dialects", names.join(","));
        }
        if self.durability == Durability::Normal {
            say("durability", "normal".to_owned());
        }
        if let Some(server) = &self.server {
            say("server", server.display().to_string());
        }
        if let Some(url) = &self.url {
            command.push_str(&format!(" --url {url} --no-kill"));
        }
        for (name, secret) in [("token", &self.token), ("api-key", &self.api_key)] {
            if secret.is_some() {
                command.push_str(&format!(" --{name} …"));
            }
        }
        command
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Arguments {
        #[command(flatten)]
        options: Options,
    }

    fn parsed(line: &str) -> Option<Options> {
        Some(Arguments::try_parse_from(line.split(' ')).ok()?.options)
    }

    #[test]
    fn the_command_that_replays_says_what_was_asked_for_and_no_secret() {
        for (line, again) in [
            ("verify", "cast verify --seed 7 --rounds 40"),
            (
                "verify --rounds 3 --rooms 1 --dialects tickets,native",
                "cast verify --seed 7 --rounds 3 --rooms 1 --dialects native,tickets",
            ),
            (
                "verify --url ws://h:1 --no-kill --token abc --seconds 2",
                "cast verify --seed 7 --seconds 2 --url ws://h:1 --no-kill --token …",
            ),
        ] {
            assert_eq!(parsed(line).unwrap().again(7), again);
        }
    }

    #[test]
    fn a_deployment_is_never_killed_and_not_disturbed_unasked() {
        assert!(parsed("verify --url ws://h:1").is_none());
        assert!(parsed("verify --no-kill").is_none());
        assert!(parsed("verify --rounds 0").is_none());
        let options = parsed("verify --url ws://h:1 --no-kill").unwrap();
        assert_eq!(options.speaks(), [Dialect::Native, Dialect::Documents]);
        assert_eq!(parsed("verify").unwrap().speaks().len(), 5);
    }
}
