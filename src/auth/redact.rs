//! What a log line may show of a request target: the path, never the query.

use std::borrow::Cow;

/// The target with its query shown as `?…`.
///
/// The whole query goes, not only `token=`: a list of secret names would have to know every client's spelling
/// (`access_token`, `jwt`, `%74oken`), and the first one it misses is in the log for ever.
pub fn redact_target(target: &str) -> Cow<'_, str> {
    match target.split_once('?') {
        Some((path, _)) => Cow::Owned(format!("{path}?…")),
        None => Cow::Borrowed(target),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_never_shows() {
        for (target, expected) in [
            ("/ws", "/ws"),
            ("/ws?", "/ws?…"),
            ("/ws?token=canary", "/ws?…"),
            ("/ws?a=1&token=canary", "/ws?…"),
            ("/ws?%74oken=canary", "/ws?…"),
            ("/ws?a=1?token=canary", "/ws?…"),
            ("?canary", "?…"),
            ("", ""),
        ] {
            assert_eq!(redact_target(target), expected, "{target}");
        }
    }

    #[test]
    fn a_target_without_a_query_is_not_copied() {
        assert!(matches!(redact_target("/ws/prompts/a"), Cow::Borrowed(_)));
    }
}
