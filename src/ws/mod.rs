//! WebSocket framing (RFC 6455), server side, strict: bytes in, messages or a fault out.
//!
//! ```text
//! bytes ─▶ decoder::Decoder ─┬─▶ Message   borrowed from the bytes, or from what the decoder gathered
//!            │ mask, utf8    ├─▶ Message::Deflated ─▶ deflate::Inflater ─▶ Message
//!                            └─▶ Fault ──▶ close::Close ─┐
//! a payload ─────────────────────────────────────────────┴─▶ frame::… ─▶ bytes of one server frame
//!                                                                          └─▶ deflate::Deflater ─▶ the same, compressed
//! ```
//!
//! Everything here is pure. The decoder judges each byte as it arrives: a header is refused at its first wrong byte, a
//! length before its payload, a text at its first byte that cannot be UTF-8. What is refused, and with which close
//! code, stands in one table, [`Fault`]. The words are tungstenite's; the decoder is ours, because it must neither copy
//! a whole frame nor reserve what a header merely declares. tungstenite judges it in the tests.
//!
//! Never here: a socket, a clock, a room, JSON. Not here either: answering a ping, ignoring what follows a close frame,
//! the time a message may take, how many control frames are too many; those are the connection's. The one extension there
//! is, permessage-deflate, is agreed on in `http`; without it a reserved bit is always a fault.

pub mod close;
pub mod decoder;
pub mod deflate;
pub mod frame;
pub mod mask;
pub mod utf8;

pub use close::{Close, Fault};
pub use decoder::{Bounds, Decoder, Message, Step};
pub use deflate::{Deflater, Inflater};
pub use tungstenite::protocol::frame::FrameHeader;
pub use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
