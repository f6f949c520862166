//! Which path leads where, and what an id, a name and a directory may look like.
//!
//! ```text
//! /ws/prompts/{id}   /api/prompts/ws/{id}   /api/ws/prompts/{id}   each with fragments/{id} too   → a prompt's socket
//! /api/ws/test   /api/debug/api/ws/test                                                           → the echo
//! /api/debug/ws/test                                                                              → one message
//! /api/prompts…   /api/debug/websocket-check                                                      → REST
//! ```
//!
//! `/ws/{id}`, which one of the originals served for a day, stays out: it would swallow other dialects' paths.

use crate::dialect::{Name, Route};
use crate::http::decode_path;
use crate::http::{Reason, Reject};
use crate::ids::RoomName;
use crate::limits::PROMPT_ID_BYTES_MAX;

pub const REST: &str = "/api/prompts";
pub const CHECK: &str = "/api/debug/websocket-check";

const ROOM_PREFIX: &str = "doc:";
const SOCKETS: [&str; 3] = ["/ws/prompts/", "/api/prompts/ws/", "/api/ws/prompts/"];

/// Where a socket of this dialect wants to go.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// `text` is an id in one of its three generations' spellings, decoded, its separators single.
    Prompt {
        text: String,
    },
    Echo,
    OneShot,
}

/// `path` is as sent, still percent-encoded. Fixed names are matched before decoding, so that `ws%2Fx` still reaches a
/// prompt in a directory called `ws` over REST.
pub fn route(path: &str) -> Result<Option<Route>, Reject> {
    let target = match path {
        "/api/ws/test" | "/api/debug/api/ws/test" => Target::Echo,
        "/api/debug/ws/test" => Target::OneShot,
        CHECK | REST => return Ok(Some(Route::Endpoint(Name::Documents))),
        _ => match SOCKETS.iter().find_map(|prefix| path.strip_prefix(prefix)) {
            Some(rest) => Target::Prompt { text: decode_id(rest)? },
            None if path.strip_prefix(REST).is_some_and(|rest| rest.starts_with('/')) => {
                return Ok(Some(Route::Endpoint(Name::Documents)));
            }
            None => return Ok(None),
        },
    };
    Ok(Some(Route::Socket(crate::dialect::Target::Documents(target))))
}

/// The id in a raw path: decoded once, then [`clean_id`].
pub fn decode_id(raw: &str) -> Result<String, Reject> {
    let text = decode_path(raw).map_err(|reject| Reject::new(Reason::BadPromptId, reject.detail))?;
    clean_id(&text)
}

/// One spelling for `a/b`, `a//b` and `/a/b/`: proxies merge slashes, so the difference cannot mean anything.
pub fn clean_id(text: &str) -> Result<String, Reject> {
    let bad = |why| Err(Reject::new(Reason::BadPromptId, why));
    if text.chars().any(char::is_control) {
        return bad("the id holds a control character");
    }
    let segments: Vec<&str> = text.split('/').filter(|segment| !segment.is_empty()).collect();
    if segments.iter().any(|segment| is_dots(segment)) {
        return bad("the id holds a dot segment");
    }
    let id = segments.join("/");
    match id.len() {
        0 => bad("the id is empty"),
        length if length > PROMPT_ID_BYTES_MAX => bad("the id is too long"),
        _ => Ok(id),
    }
}

/// The older path of a fragment, `fragments/{id}`, names the prompt `{id}`.
pub fn without_fragments(text: &str) -> Option<&str> {
    text.strip_prefix("fragments/")
}

pub fn room_of(id: &str) -> RoomName {
    RoomName::new(&format!("{ROOM_PREFIX}{id}"))
}

pub fn id_of_room(room: &str) -> Option<&str> {
    room.strip_prefix(ROOM_PREFIX)
}

/// The directory part of a canonical id.
pub fn directory_of(id: &str) -> &str {
    id.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// A directory's one spelling: single separators, none at the end, an absolute one keeps its first. `None` for dot
/// segments and control characters, which could lead outside or lie in a listing.
pub fn clean_directory(text: &str) -> Option<String> {
    let segments: Vec<&str> = text.split('/').filter(|segment| !segment.is_empty()).collect();
    if text.chars().any(char::is_control) || segments.iter().any(|segment| is_dots(segment)) {
        return None;
    }
    let start = if text.starts_with('/') { "/" } else { "" };
    Some(format!("{start}{}", segments.join("/")))
}

/// Is `directory` the root or below it? Below it hidden folders do not count: `.git/hooks` holds no prompts.
pub fn is_within(root: &str, directory: &str) -> bool {
    let (Some(root), Some(directory)) = (clean_directory(root), clean_directory(directory)) else {
        return false;
    };
    let below = match directory.strip_prefix(&*root) {
        Some("") => return true,
        Some(rest) if root.ends_with('/') => rest,
        Some(rest) if root.is_empty() && !rest.starts_with('/') => rest,
        Some(rest) => match rest.strip_prefix('/') {
            Some(below) if !root.is_empty() => below,
            _ => return false,
        },
        None => return false,
    };
    below.split('/').all(|segment| !segment.starts_with('.'))
}

fn is_dots(segment: &str) -> bool {
    segment == "." || segment == ".."
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use proptest::prelude::*;

    fn prompt(text: &str) -> Option<Route> {
        let target = Target::Prompt { text: text.to_owned() };
        Some(Route::Socket(crate::dialect::Target::Documents(target)))
    }

    #[test]
    fn p4_p5_every_path_that_a_client_ever_dialled_is_served() {
        let other = |target| Some(Route::Socket(crate::dialect::Target::Documents(target)));
        let rest = Some(Route::Endpoint(Name::Documents));
        for (path, expected) in [
            ("/ws/prompts/readme", prompt("readme")),
            ("/ws/prompts/a/x/foo", prompt("a/x/foo")),
            ("/ws/prompts/a%2Fx%2ffoo", prompt("a/x/foo")),
            ("/ws/prompts//a//x/foo/", prompt("a/x/foo")),
            ("/ws/prompts/a%252Fb", prompt("a%2Fb")),
            ("/ws/prompts/gr%C3%BC%C3%9Fe", prompt("grüße")),
            ("/ws/prompts/fragments/x", prompt("fragments/x")),
            ("/api/prompts/ws/readme", prompt("readme")),
            ("/api/prompts/ws/fragments/a/b", prompt("fragments/a/b")),
            ("/api/ws/prompts/a/b", prompt("a/b")),
            ("/api/ws/prompts/fragments/b", prompt("fragments/b")),
            ("/api/ws/test", other(Target::Echo)),
            ("/api/debug/api/ws/test", other(Target::Echo)),
            ("/api/debug/ws/test", other(Target::OneShot)),
            ("/api/debug/websocket-check", rest.clone()),
            ("/api/prompts", rest.clone()),
            ("/api/prompts/", rest.clone()),
            ("/api/prompts/ws%2Fx", rest.clone()),
            ("/api/prompts/fragments/x", rest),
            ("/ws/readme", None),
            ("/ws", None),
            ("/ws/prompts", None),
            ("/ws/promptsx/y", None),
            ("/api/promptsx", None),
            ("/api/ws/test/", None),
            ("/ws%2Fprompts/x", None),
        ] {
            assert_eq!(route(path).unwrap(), expected, "{path}");
        }
    }

    #[test]
    fn bad_ids_are_told_apart_from_unknown_paths() {
        let long = format!("/ws/prompts/{}", "x".repeat(PROMPT_ID_BYTES_MAX + 1));
        for path in [
            "/ws/prompts/",
            "/ws/prompts///",
            "/ws/prompts/%2F",
            "/ws/prompts/a/../b",
            "/ws/prompts/a/%2e%2E/b",
            "/ws/prompts/.",
            "/ws/prompts/a%00b",
            "/ws/prompts/a%0d%0ab",
            "/ws/prompts/%C2%85",
            "/ws/prompts/%ff",
            "/api/prompts/ws/",
            &long,
        ] {
            let reject = route(path).unwrap_err();
            assert_eq!(reject.reason, Reason::BadPromptId, "{path}");
        }
        assert!(route(&format!("/ws/prompts/{}", "x".repeat(PROMPT_ID_BYTES_MAX))).is_ok());
    }

    #[test]
    fn directories() {
        for (text, expected) in [
            ("a/b", Some("a/b")),
            ("/a//b/", Some("/a/b")),
            ("", Some("")),
            ("/", Some("/")),
            ("a/../b", None),
            ("./a", None),
            ("a\nb", None),
        ] {
            assert_eq!(clean_directory(text).as_deref(), expected, "{text}");
        }
        for (root, directory, expected) in [
            ("", "", true),
            ("", "a/b", true),
            ("", "/a", false),
            ("/", "/a", true),
            ("a", "a/b", true),
            ("a", "ab", false),
            (".hidden", ".hidden/x", true),
            ("a", "a/.x", false),
        ] {
            assert_eq!(is_within(root, directory), expected, "{root} {directory}");
        }
        assert_eq!(directory_of("a/b/c"), "a/b");
        assert_eq!(directory_of("c"), "");
    }

    proptest! {
        #[test]
        fn an_accepted_id_is_its_own_spelling_and_climbs_nowhere(path in "/ws/prompts/[ -~]{0,40}") {
            if let Ok(Some(Route::Socket(crate::dialect::Target::Documents(Target::Prompt { text })))) = route(&path) {
                prop_assert_eq!(clean_id(&text).unwrap(), text.clone());
                prop_assert!(text.split('/').all(|segment| !segment.is_empty() && !is_dots(segment)));
            }
        }
    }
}
