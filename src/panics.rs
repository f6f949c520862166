//! What a panic comes to: one that met a single connection alone closes that connection, any other ends the process.
//!
//! Erlang's supervisors draw the same line: a fault is confined to what it touched, and faults that come too often are no
//! accident any more. What a panic left half changed must be seen by nobody. A connection's own machine goes with its
//! connection; whatever threads share cannot be taken back, so there the process ends inside the hook, before a single
//! frame is unwound and a lock let go. The clients see their sockets end and resume with the next process, and the store
//! knows what became of everything.

use std::any::Any;
use std::borrow::Cow;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use crate::clock::Mono;
use crate::limits::{PANICS_MAX, PANICS_SPAN};

/// A fault of our own; a supervisor should start the process again.
pub const EXIT_FAULT: i32 = 70;

thread_local! {
    /// This thread runs code that touches one connection alone. The hook knows nothing but its thread.
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Marks code that touches one connection alone, inside [`contain`]. Per message, so it is two stores and nothing else.
pub fn alone<T>(work: impl FnOnce() -> T) -> T {
    ALONE.set(true);
    let done = work();
    ALONE.set(false);
    done
}

/// Once for everything that one read brought. `None` when what was [`alone`] panicked: whatever it may have changed by then
/// is not to be used again, the caller drops it with the connection, or makes it anew. Any other panic goes on.
pub fn contain<T>(work: impl FnOnce() -> T) -> Option<T> {
    match panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => Some(done),
        Err(_) if ALONE.replace(false) => None,
        Err(payload) => panic::resume_unwind(payload),
    }
}

/// From now on a panic in what is not [`alone`] ends the process. For the program: in a test it would end all tests.
pub fn end_the_process() {
    panic::set_hook(Box::new(|info| {
        let (what, place) = (message(info.payload()), place(info));
        if ALONE.get() {
            log::error!(
                "a handler panicked at {place}: {what}; only its connection is closed. Please report this line"
            );
            return;
        }
        let thread = thread::current();
        let name = thread.name().unwrap_or("a nameless");
        end(&format!("the {name} thread panicked at {place}: {what}"));
    }));
}

/// Ends the process for a fault of our own.
fn end(why: &str) -> ! {
    log::error!(
        "{why}; the process ends, because nothing that threads share can be trusted now. Start it again: the store \
         recovers by itself and clients resume. Please report this line"
    );
    std::process::exit(EXIT_FAULT)
}

/// A literal, or what the standard library says of numbers alone. Any other text was put together at run time, and may
/// quote what a client sent (as the panic of a bad slice of a `str` does): it is in no log.
fn message(payload: &(dyn Any + Send)) -> Cow<'static, str> {
    const OF_NUMBERS: [&str; 4] =
        ["index out of bounds: ", "range start index ", "range end index ", "slice index starts at "];
    match (payload.downcast_ref::<&'static str>(), payload.downcast_ref::<String>()) {
        (Some(literal), _) => Cow::Borrowed(literal),
        (None, Some(text)) if OF_NUMBERS.iter().any(|start| text.starts_with(start)) => Cow::Owned(text.clone()),
        _ => Cow::Borrowed("(its message is withheld: it may quote a client)"),
    }
}

fn place(info: &PanicHookInfo<'_>) -> String {
    info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string)
}

/// When handlers panicked last, on all reactors.
#[derive(Debug, Default)]
pub struct Panics {
    count: AtomicUsize,
    /// The last ones' times, plus one; 0 for none.
    times: [AtomicU64; PANICS_MAX],
}

impl Panics {
    /// One more was contained. Too many in a short time are no accident: whoever causes them at will, or whatever broke, is
    /// not to be lived with.
    pub fn note(&self, now: Mono) {
        if self.is_one_too_many(now) {
            end(&format!("more than {PANICS_MAX} handlers panicked within {PANICS_SPAN:?}"));
        }
    }

    fn is_one_too_many(&self, now: Mono) -> bool {
        let turn = self.count.fetch_add(1, Ordering::Relaxed) % PANICS_MAX;
        let Some(place) = self.times.get(turn) else { return true };
        // Its place was that of the one so many before it.
        match place.swap(now.0 + 1, Ordering::Relaxed) {
            0 => false,
            before => now.since(Mono(before - 1)) < PANICS_SPAN,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn what_panics_is_contained_and_the_rest_is_returned() {
        assert_eq!(contain(|| alone(|| 7)), Some(7));
        assert!(!ALONE.get());
        let fails = || assert!(std::hint::black_box(false), "on purpose");
        assert_eq!(contain(|| alone(fails)), None);
        assert!(!ALONE.get(), "code behind a contained panic would be taken for a handler's");
        // What is not alone is not contained, whatever ran before it.
        let shared = || {
            contain(|| {
                alone(|| ());
                fails();
            })
        };
        assert!(panic::catch_unwind(shared).is_err());
    }

    #[test]
    fn the_fourth_within_five_seconds_is_one_too_many() {
        let at = |panics: &Panics, millis: u64| panics.is_one_too_many(Mono(millis * 1_000_000));
        let panics = Panics::default();
        assert_eq!([0, 1000, 4998, 4999].map(|millis| at(&panics, millis)), [false, false, false, true]);
        // A slow stream of them never is.
        let panics = Panics::default();
        assert!((0..100).all(|n| !at(&panics, n * 1700)));
    }

    #[test]
    fn a_message_that_may_quote_a_client_is_withheld() {
        let said = |work: fn()| {
            let payload = panic::catch_unwind(work).expect_err("it panics");
            message(&*payload).into_owned()
        };
        assert_eq!(said(|| panic!("a literal")), "a literal");
        for quoting in [
            (|| panic!("{}", std::hint::black_box("a secret"))) as fn(),
            || {
                let _ = &std::hint::black_box("a secret é")[..10];
            },
            || {
                let _ = std::hint::black_box("secret").parse::<u8>().map_err(|_| "a secret".to_owned()).unwrap();
            },
        ] {
            let told = said(quoting);
            assert!(told.contains("withheld") && !told.contains("secret"), "{told}");
        }
        let told = said(|| {
            let _ = std::hint::black_box([1, 2, 3].as_slice())[std::hint::black_box(7)];
        });
        assert_eq!(told, "index out of bounds: the len is 3 but the index is 7");
    }
}
