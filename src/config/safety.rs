//! The one safety rule of starting: nobody listens beyond this machine without having said who may come in.

use super::Listen;
use super::raw::Mode as Written;
use crate::auth::Mode;
use crate::dialect::Name;

/// Why a mode may not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsafe {
    /// None was written, and a listener is not on a loopback address.
    NotWritten,
    /// `debug` lets everybody in, and a listener is not on a loopback address.
    DebugExposed,
}

/// The mode of one dialect. `exposed`: some listener, whatever it serves, is not on a loopback address. That is stricter
/// than need be, so that no mistake about who serves what can open a door.
pub fn mode(written: Option<Written>, served: bool, exposed: bool) -> Result<Mode, Unsafe> {
    match written {
        Some(Written::Token) => Ok(Mode::Token),
        Some(Written::Open) => Ok(Mode::Open),
        Some(Written::Debug) if exposed => Err(Unsafe::DebugExposed),
        Some(Written::Debug) => Ok(Mode::Debug),
        // Nobody can reach it; should that change under us, it lets nobody in.
        None if !served => Ok(Mode::Token),
        None if exposed => Err(Unsafe::NotWritten),
        None => Ok(Mode::Debug),
    }
}

/// A listener that is not on a loopback address.
pub fn exposed(listeners: &[Listen]) -> Option<&Listen> {
    // Canonical, because ::ffff:127.0.0.1 is loopback, and ::ffff:0.0.0.0 is everywhere.
    listeners.iter().find(|listen| !listen.address.ip().to_canonical().is_loopback())
}

/// A listener beyond loopback while some dialect is in debug mode.
pub fn debug_exposed(listeners: &[Listen], mode: impl Fn(Name) -> Mode) -> Option<&Listen> {
    let debug = Name::ALL.into_iter().any(|name| mode(name) == Mode::Debug);
    exposed(listeners).filter(|_| debug)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_listens_beyond_loopback_by_accident() {
        for (written, served, exposed, expected) in [
            (None, true, false, Ok(Mode::Debug)),
            (None, true, true, Err(Unsafe::NotWritten)),
            (None, false, false, Ok(Mode::Token)),
            (None, false, true, Ok(Mode::Token)),
            (Some(Written::Debug), true, false, Ok(Mode::Debug)),
            (Some(Written::Debug), true, true, Err(Unsafe::DebugExposed)),
            (Some(Written::Debug), false, true, Err(Unsafe::DebugExposed)),
            (Some(Written::Token), true, true, Ok(Mode::Token)),
            (Some(Written::Open), true, true, Ok(Mode::Open)),
        ] {
            assert_eq!(mode(written, served, exposed), expected, "{written:?} {served} {exposed}");
        }
    }

    #[test]
    fn loopback_is_known_in_every_spelling() {
        for (address, loopback) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("[::ffff:0.0.0.0]:1", false),
            ("10.0.0.1:1", false),
            ("128.0.0.1:1", false),
            ("[fe80::1]:1", false),
        ] {
            let Ok(socket) = address.parse() else {
                panic!("{address} is not an address");
            };
            let listeners = [Listen { address: socket, dialects: Vec::new() }];
            assert_eq!(exposed(&listeners).is_none(), loopback, "{address}");
        }
    }
}
