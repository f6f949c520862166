//! Panics on demand, for the tests of what a panic comes to (`panics.rs`). Only in builds with the feature `canary`.
//!
//! A client of the native protocol arms one with `{"op":"panic","type":SITE}`; whoever passes that site next panics.

use std::sync::atomic::{AtomicU8, Ordering};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Site {
    /// A connection's message is being read.
    Handler = 1,
    /// An HTTP request is being read by its dialect.
    Request,
    /// A reactor takes an intent on, in the middle of everybody's rooms.
    Reactor,
    /// The writer has carried out an operation and not committed it.
    Uncommitted,
    /// The writer has committed, and nobody has been told.
    Committed,
    /// A reader reads for somebody.
    Reader,
    /// The listener takes a connection.
    Listener,
}

static ARMED: AtomicU8 = AtomicU8::new(0);

/// A name that is no site's arms nothing.
pub fn arm(name: &str) {
    let site = match name {
        "handler" => Site::Handler,
        "request" => Site::Request,
        "reactor" => Site::Reactor,
        "uncommitted" => Site::Uncommitted,
        "committed" => Site::Committed,
        "reader" => Site::Reader,
        "listener" => Site::Listener,
        _ => return,
    };
    ARMED.store(site as u8, Ordering::SeqCst);
}

pub fn pass(site: Site) {
    if ARMED.compare_exchange(site as u8, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
        panic!("a failpoint was passed");
    }
}
