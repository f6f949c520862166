//! What is fuzzed: one function each, which reads its choices off the front of the input and panics when a property
//! does not hold. The properties stand at the head of each file.
//!
//! ```text
//! bytes      head  frames  deflate  token  origin_xff  config      one parser each, most against a second reading
//! messages   documents  workflows  tickets  agents  native  backend dialects, on a stage with rows
//! requests   rest                                                  the HTTP side of the dialects, on the same stage
//! all of it  reactor                                               reactor, worker, reader on a scripted network
//! ```

mod config;
mod deflate;
mod dialects;
mod frames;
mod head;
mod origin_xff;
mod reactor;
mod rest;
mod stage;
mod token;
mod vocabulary;

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Bytes of the longest input that is of use.
    pub len_max: usize,
    /// How often the short run calls it: as often as fits about a second of an unoptimised build.
    pub short_runs: u32,
}

pub const TARGETS: [Target; 14] = [
    Target { name: "head", run: head::head, len_max: 16 * 1024, short_runs: 3000 },
    Target { name: "frames", run: frames::frames, len_max: 16 * 1024, short_runs: 3000 },
    Target { name: "deflate", run: deflate::deflate, len_max: 8 * 1024, short_runs: 1000 },
    Target { name: "token", run: token::token, len_max: 6 * 1024, short_runs: 3000 },
    Target { name: "origin_xff", run: origin_xff::origin_xff, len_max: 2 * 1024, short_runs: 5000 },
    Target { name: "config", run: config::config, len_max: 8 * 1024, short_runs: 1000 },
    Target { name: "documents", run: dialects::documents, len_max: 8 * 1024, short_runs: 400 },
    Target { name: "workflows", run: dialects::workflows, len_max: 8 * 1024, short_runs: 400 },
    Target { name: "tickets", run: dialects::tickets, len_max: 8 * 1024, short_runs: 400 },
    Target { name: "agents", run: dialects::agents, len_max: 8 * 1024, short_runs: 400 },
    Target { name: "native", run: dialects::native, len_max: 8 * 1024, short_runs: 400 },
    Target { name: "backend", run: dialects::backend, len_max: 8 * 1024, short_runs: 400 },
    Target { name: "rest", run: rest::rest, len_max: 8 * 1024, short_runs: 400 },
    Target { name: "reactor", run: reactor::reactor, len_max: 4 * 1024, short_runs: 200 },
];
