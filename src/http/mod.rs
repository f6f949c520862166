//! HTTP/1.1 as a server of WebSockets needs it: heads, bodies, the upgrade, replies.
//!
//! ```text
//! bytes ─▶ head::parse ─▶ Head ─▶ upgrade::check ─▶ Upgrade ─▶ reply::switching (101)
//!                          │            └──────────▶ Reject ──┐
//!                          └─▶ a dialect's endpoint ─▶ Response ─▶ reply::encode ─▶ bytes
//! ```
//!
//! Everything here is pure: bytes in, values out. `httparse` is used as a tokenizer; the policy (PROMISES.md threat rows
//! 1–20) is our own layer over it. Never here: a socket, a clock, a room, a token's meaning.

pub mod cors;
pub mod extensions;
pub mod head;
pub mod reject;
pub mod reply;
pub mod upgrade;

pub use extensions::{Deflate, Window};
pub use head::{Head, Method, decode_path, query_param};
pub use reject::{Reason, Reject};
pub use reply::Response;
pub use upgrade::Upgrade;
