//! Every bound of the server, with its unit and its derivation; const assertions relate neighbours.
//!
//! A bound that users may set is a field of [`Limits`] and its default stands here; a bound that protects an invariant is
//! a constant.

use std::time::Duration;

/// Bytes of one HTTP request head, request line included (PROMISES.md 5.1: 8 KiB; re-parsing cost grows with its square).
pub const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Bytes of one header line.
pub const HEADER_LINE_BYTES_MAX: usize = 4 * 1024;
/// Bytes of the request target.
pub const TARGET_BYTES_MAX: usize = 2 * 1024;
/// Header lines of one request, repeated names counted each time.
pub const HEADERS_MAX: usize = 64;
/// Reads that may go by without a complete head when they bring less than `HEAD_DRIBBLE_BYTES` each on average.
pub const HEAD_READS_MAX: u32 = 64;
pub const HEAD_DRIBBLE_BYTES: usize = 128;
/// Bytes a client may send behind its handshake before it is answered (threat row 15).
pub const EARLY_BYTES_MAX: usize = 4 * 1024;
/// Bytes of an HTTP request body.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a token.
pub const TOKEN_BYTES_MAX: usize = 4 * 1024;
/// Bytes of an operation id.
pub const OP_ID_BYTES_MAX: usize = 64;
/// Bytes of a room's name.
pub const ROOM_NAME_BYTES_MAX: usize = 256;
/// Bytes of a prompt id in a path, decoded; longer than any path component sum we would create, below a target's bound.
pub const PROMPT_ID_BYTES_MAX: usize = 1024;

/// The one receive buffer of a reactor, in bytes: one read takes at most this much.
pub const SCRATCH_BYTES: usize = 64 * 1024;
/// Bytes one connection may read in one turn before it goes on the carry-over list (PROMISES.md I3).
pub const READ_BUDGET_BYTES: usize = 256 * 1024;
/// Bytes that reading comes to in one turn, over all connections: read, gathered into messages, inflated, answered. Whoever is
/// behind that is first in the next turn. Twenty clients that each end a megabyte of JSON at once kept a reactor for 200 ms;
/// one such message takes it up to 10 (PROMISES.md I3).
pub const TURN_BUDGET_BYTES: usize = 512 * 1024;
/// Sockets, deliveries and controls taken from the inbox in one turn.
pub const INBOX_BUDGET: usize = 1024;
/// Events asked of the kernel in one wait.
pub const READY_MAX: usize = 1024;
/// Slices handed to one vectored write. Linux takes 1,024; beyond 64 the copy into the kernel dominates anyway.
pub const WRITE_SLICES_MAX: usize = 64;
/// Bytes one connection may be given to write in one turn.
pub const WRITE_BUDGET_BYTES: usize = 256 * 1024;
/// Connections of one reactor; `ConnId` has 24 bits for them.
pub const SLOTS_MAX: usize = 1 << 24;
/// Reactors of one process; `ConnId` has 8 bits for them and the directory a 64-bit mask.
pub const REACTORS_MAX: usize = 64;

/// How many times longer than its compressed form a message may be (threat row 55, PROMISES.md 5.1); a bomb is a thousand.
pub const DEFLATE_RATIO_MAX: usize = 25;
/// Bytes that any compressed message may grow to, whatever the ratio: what is short and repeats itself (a line of dashes, an
/// empty table) is no bomb. The HTML page among Autobahn's texts has pieces of 32 KiB that shrink to a twenty-ninth, and none
/// of 64 KiB that passes the ratio. Inflating this much takes a tenth of a millisecond, and is charged to the client's rate.
pub const DEFLATE_FLOOR_BYTES: usize = 64 * 1024;
/// Bytes of messages, plain and compressed, that a reactor remembers so as not to compress them again for the next member.
pub const PACKED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Items in a reactor's mailbox. Sockets and batches of deliveries, never single events.
pub const REACTOR_MAILBOX: usize = 16 * 1024;
/// Jobs waiting for one store worker. At the bound the asking client is no longer read.
pub const STORE_MAILBOX: usize = 4 * 1024;
/// Bytes of operations waiting for the store, over all clients; past it a client's operation waits with the client.
pub const STORE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of HTTP responses waiting for slow readers, over all clients; past it a further one is refused. Forty readers of a
/// whole listing who never took it were measured at 1.2 GiB.
pub const RESPONSE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of replies and of half-sent frames waiting in the outboxes of all connections; past it those that hold most are
/// closed (4008). Each may hold a megabyte by itself, and eighteen thousand of them do not fit any machine.
pub const OUTBOXES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of what all clients have begun and not finished: heads, bodies, messages in pieces, operations that wait for the
/// store; past it those that hold most are closed (1013).
pub const UNFINISHED_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Rooms with a member, beyond one a connection, over all reactors; past it nobody joins one that nobody is in. A room is
/// whatever a client calls one, and each connection may be in `Limits::rooms` that nobody else is in.
pub const ROOMS_MAX: usize = 256 * 1024;
/// Bytes of a room: itself, its first member, its name and its places in the hub, the directory and the registry of presence.
/// (budget.rs holds it against the sizes; `bounds_suite.py` against the process.)
pub const ROOM_BYTES: usize = 2 * 1024;
/// The part of `Limits::memory` that each of the shares above may take.
pub const SHARE_OF_MEMORY: usize = 16;
/// The part of a share that is made free when it is passed, so that looking for those who hold most happens rarely.
pub const SHARE_FREED: usize = 16;
/// Operations in one commit. 512 rows cost a few milliseconds, one fsync a fraction of one: more buys little.
pub const BATCH_OPS_MAX: usize = 512;
/// Operations of one room in one commit, so that a hot room cannot fill it (PROMISES.md I4).
pub const BATCH_ROOM_OPS_MAX: usize = 128;
/// Bytes of content in one commit.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Writes of one connection between dispatch and answer.
pub const INFLIGHT_WRITES_MAX: u16 = 64;
/// The same of a backend's socket, through which all users' runs go: with 64 it waited for commits that had room for more,
/// and a page's first event behind it (PERF.md).
pub const INFLIGHT_BACKEND_MAX: u16 = 1024;

/// How long somebody outside (a shell, a backup) may hold the database before the batch is told `Busy`. The worker tries
/// again; a longer wait in the store would hide from it that time passes.
pub const STORE_BUSY_WAIT: Duration = Duration::from_millis(100);
/// Bytes of pages kept by the store's writer. A full batch and its index pages fit four times, so no transaction spills
/// into the log before its commit.
pub const STORE_CACHE_BYTES: usize = 4 * BATCH_BYTES_MAX;
/// Bytes written between two looks at the log's size; a look costs microseconds, a batch of one a hundred.
pub const WAL_LOOK_BYTES: u64 = 1024 * 1024;
/// Bytes of unsaved log that make a checkpoint worth its two fsyncs.
pub const WAL_CHECKPOINT_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes of log from which on we wait for readers to leave, so that it starts again at its front.
pub const WAL_RESTART_BYTES: u64 = 16 * 1024 * 1024;
/// For so long: some of our own reads (a listing of everything), well below `Limits::answer`, since writes wait too.
pub const WAL_RESTART_WAIT: Duration = Duration::from_secs(1);
/// Bytes of log from which on somebody must be told: a reader outside never ends (PROMISES.md row 75).
pub const WAL_ALARM_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes released when the disk is full, because with a full disk not even a DELETE can be logged. A trim of `TRIM_EVENTS`
/// rows, each on a page of its own (4 KiB), fits nearly twice. Unit tests open many stores, and need it to be there only.
pub const BALLAST_BYTES: u64 = if cfg!(test) { 64 * 1024 } else { 16 * 1024 * 1024 };
/// Between two attempts to take the ballast again.
pub const BALLAST_RETRY: Duration = Duration::from_secs(30);

/// A recorded answer stays at least this long (PROMISES.md G5) …
pub const OPERATION_SPAN: Duration = Duration::from_secs(24 * 60 * 60);
/// … and as long as it is among this many newest of its room.
pub const OPERATIONS_KEPT: u64 = 100_000;
/// How often retention is looked at. It is a bound on disk, not a deadline.
pub const TRIM_EVERY: Duration = Duration::from_secs(5);
/// Rooms looked at in one trim, beside those that grew.
pub const TRIM_ROOMS: usize = 256;
/// Events removed in one trim; more than a batch writes, so that trimming keeps up when it runs after each.
pub const TRIM_EVENTS: u64 = 2048;
/// Recorded answers looked at in one trim; more than a batch writes, for the same reason.
pub const TRIM_OPERATIONS: usize = 1024;
/// Rooms remembered as grown since the last trim; the rotation finds the rest.
pub const TRIM_GROWN_MAX: usize = 4096;

/// A finished task is remembered this long, so that a repeated `done` is told so.
pub const TASK_SPAN: Duration = Duration::from_secs(24 * 60 * 60);
/// Finished and other tasks looked at in one trim; more than a batch writes, so that trimming keeps up.
pub const TRIM_TASKS: usize = 1024;
/// Marks of clients kept, over all rooms; past it the one that was written longest ago goes. A client makes a mark by
/// naming itself, so nothing else bounds them. Unit tests look at the bound, not at its size.
pub const MARKS_MAX: usize = if cfg!(test) { 64 } else { 100_000 };
/// Marks removed in one trim.
pub const TRIM_MARKS: usize = if cfg!(test) { 16 } else { 1024 };

/// Revocations that hold at a time. Each takes some 200 bytes of memory; past it a further one is refused, because making
/// room would make a revoked token good again. Unit tests look at the bound, not at its size.
pub const REVOCATIONS_MAX: usize = if cfg!(test) { 64 } else { 100_000 };
/// How long after its `until` a revocation is removed. The clock may stand a day ahead for a moment (PROMISES.md L9), and a
/// token that was revoked must not be good again when it is set back.
pub const REVOCATION_KEPT: Duration = Duration::from_secs(24 * 60 * 60 + 60);
/// Revocations removed in one transaction.
pub const REVOCATIONS_DUE_MAX: usize = 512;
/// Connections whose credential is looked at again in one turn, when something was revoked: about a tenth of a millisecond,
/// and ten more where all of them are closed.
pub const RECHECKS_PER_TURN: usize = 512;

/// How long the list of a reactor's connections is waited for.
pub const CENSUS_WAIT: Duration = Duration::from_secs(2);

/// Events of one page read from the log (PROMISES.md 5.1: at most 500).
pub const PAGE_EVENTS_MAX: usize = 500;
/// Bytes of one page; passed by at most one event, since a page holds at least one.
pub const PAGE_BYTES_MAX: usize = 256 * 1024;
/// Events a room keeps in memory on each reactor for members a little behind.
pub const RECENT_EVENTS_MAX: usize = 64;
/// Bytes of those events.
pub const RECENT_BYTES_MAX: usize = 256 * 1024;
/// Bytes of recent events over all rooms of one reactor; past it a room keeps none once its members were served. Ten
/// thousand busy rooms would otherwise be allowed 2.5 GiB.
pub const HUB_RECENT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Rooms whose stand is remembered for whoever joins at their head; past it all are forgotten and looked up anew. About
/// 100 bytes each.
pub const STANDS_MAX: usize = 64 * 1024;
/// Bytes of signals that a room gathers in a turn before they are handed out in one piece; a member's kernel buffer takes
/// several times as much.
pub const SIGNAL_BYTES_MAX: usize = 16 * 1024;
/// Bytes of pages that SQLite keeps for one reader, where nothing else is asked for.
pub const READER_CACHE_BYTES: usize = 2000 * 1024;
/// The program itself, its threads' stacks, SQLite's and the allocator's own: what it has before anybody connects.
pub const PROGRAM_BYTES: usize = 48 * 1024 * 1024;
/// The part of what is allocated that the allocator may hold on to besides, in holes.
pub const ALLOCATOR_PART: usize = 4;
/// Pages a room keeps in memory for members far behind, who drift apart as they read: a hundred of them over ten thousand
/// events read each page of the log ten times with four of them, and once with these.
pub const WINDOWS_MAX: usize = 32;
/// Bytes of such pages over all rooms of one reactor; past it a room keeps `WINDOWS_FEW`, and reads more often.
pub const HUB_WINDOW_BYTES_MAX: usize = 64 * 1024 * 1024;
pub const WINDOWS_FEW: usize = 4;

/// How much of a rate may be used at once: bursts of twice a second's share.
pub const RATE_BURST: Duration = Duration::from_secs(2);
/// A client that has been over its rate for this long, slowed down all the while, is closed with 4029.
pub const RATE_PATIENCE: Duration = Duration::from_secs(10);
/// Pings, pongs and such per second and connection, bursts of five seconds' share (threat rows 53 and 54).
pub const CONTROL_FRAMES_PER_SECOND: f64 = 20.0;
pub const CONTROL_BURST: Duration = Duration::from_secs(5);
/// Messages without sense per minute and connection (threat row 58).
pub const BAD_MESSAGES_PER_MINUTE: f64 = 10.0;
pub const BAD_MESSAGE_BURST: Duration = Duration::from_secs(60);
/// Handshakes that one address may make at once.
pub const ADDRESS_HANDSHAKE_BURST: f64 = 50.0;
/// Wrong tokens per minute from one address, before it is barred (threat row 39).
pub const ADDRESS_FAILURES_PER_MINUTE: f64 = 10.0;
pub const ADDRESS_FAILURE_BURST: Duration = Duration::from_secs(60);
pub const ADDRESS_FAILURE_PAUSE: Duration = Duration::from_secs(60);
/// Addresses with an account; past it those that owe nothing are forgotten.
pub const ADDRESSES_REMEMBERED: usize = 16 * 1024;

/// Lines of refusals a second and reactor, bursts of ten seconds' share; the metrics count them all. A flood of bad
/// requests must not become a flood of log lines (threat row 20).
pub const REFUSAL_LINES_PER_SECOND: f64 = 50.0;
pub const REFUSAL_LINES_BURST: Duration = Duration::from_secs(10);
/// A peer that acknowledges nothing for this long is gone (threat row 66).
pub const USER_TIMEOUT: Duration = Duration::from_secs(20);

/// A commit that takes longer turns readiness red; one that takes `COMMIT_HANG` ends the process (threat row 81).
pub const COMMIT_SLOW: Duration = Duration::from_secs(5);
pub const COMMIT_HANG: Duration = Duration::from_secs(30);

/// Panics that each met one connection alone and cost only that; one more within the span ends the process (PROMISES.md
/// I5). Erlang's supervisors give up after one in five seconds, but theirs are whole subsystems and these single clients.
pub const PANICS_MAX: usize = 3;
pub const PANICS_SPAN: Duration = Duration::from_secs(5);

/// How long somebody who has just connected may still ask while the server drains: his first packet may be under way, and an
/// end without a word looks like a refused connection.
pub const DRAIN_GRACE: Duration = Duration::from_millis(300);
/// While the store changes hands nobody is served, so a hand-over waits this long for a client's close frame, and this long
/// for all clients together. Who is cut off resumes, and resends what was not answered.
pub const HANDOVER_CLOSE: Duration = Duration::from_millis(250);
pub const HANDOVER_DRAIN: Duration = Duration::from_secs(1);
/// What a successor may take until it needs the store, and then until it accepts: it may have a database to check.
pub const SUCCESSOR_READY: Duration = Duration::from_secs(30);
pub const SUCCESSOR_SERVING: Duration = Duration::from_secs(120);

/// Nested inclusions of one expansion (the originals' early bound).
pub const EXPAND_DEPTH_MAX: usize = 10;
/// Bytes one expansion may produce.
pub const EXPAND_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Inclusions one expansion may resolve; two a level double per level, so depth alone bounds nothing.
pub const EXPAND_LOOKUPS_MAX: usize = 4096;

/// Bytes of a Markdown file that is read; as large as the largest message, so that whatever can be edited can be kept.
pub const FILE_BYTES_MAX: usize = MESSAGE_BYTES_CEILING;
/// Nested directories that are walked.
pub const FILE_DEPTH_MAX: usize = 32;
/// Documents waiting to be written back.
pub const FILES_MAILBOX: usize = 4 * 1024;

/// The kernel's send buffer in bytes as set; Linux doubles it. A client that never reads pins 117 KiB instead of 3.9 MiB
/// (PROMISES.md F6).
pub const SEND_BUFFER_BYTES: usize = 32 * 1024;
/// The kernel's receive buffer, likewise doubled, which is where it begins by itself; without this it grows to 6 MiB for a
/// client that was read fast before it was slowed down. A window of 64 KiB carries 640 KiB/s over a line of 100 ms.
pub const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;
/// What else the kernel holds of an open socket: the socket, its file and its place in the poller.
pub const SOCKET_BYTES: usize = 4 * 1024;
/// Bytes of one segment: the send buffer holds four. On loopback, where the proxy is, the kernel would make segments as
/// large as the buffer, and a receiver acknowledges a single one only after 40 ms: half a megabyte took 260 ms.
pub const SEGMENT_BYTES_MAX: u32 = 16 * 1024;
/// Connections waiting in the kernel to be accepted.
pub const BACKLOG: i32 = 4096;
/// Descriptors held back for store files, logs and the reserve.
pub const DESCRIPTORS_RESERVED: u64 = 64;
/// Pause after `accept` failed for want of descriptors; mio is edge-triggered, so nobody wakes us (PROMISES.md F5).
pub const ACCEPT_RETRY_MIN: Duration = Duration::from_millis(50);
/// The longest: behind it come, a few at a time, all who have waited in the backlog, and the last of them is to be accepted
/// within a second of the first free descriptor (PROMISES.md L4).
pub const ACCEPT_RETRY_MAX: Duration = Duration::from_millis(250);
const _: () = assert!(ACCEPT_RETRY_MAX.as_millis() <= 250, "a second holds several tries");

const _: () =
    assert!(2 * SEND_BUFFER_BYTES >= 4 * SEGMENT_BYTES_MAX as usize, "a receiver acknowledges every other segment");
const _: () = assert!(READ_BUDGET_BYTES < TURN_BUDGET_BYTES, "one connection does not use up a turn");
const _: () = assert!(HEAD_BYTES_MAX <= SCRATCH_BYTES, "a whole head fits one read");
const _: () = assert!(TARGET_BYTES_MAX < HEADER_LINE_BYTES_MAX && HEADER_LINE_BYTES_MAX < HEAD_BYTES_MAX);
const _: () = assert!(BATCH_ROOM_OPS_MAX < BATCH_OPS_MAX, "several rooms share a commit");
const _: () = assert!(INFLIGHT_WRITES_MAX < INFLIGHT_BACKEND_MAX && INFLIGHT_BACKEND_MAX as usize <= STORE_MAILBOX);
const _: () = assert!(WAL_LOOK_BYTES < WAL_CHECKPOINT_BYTES, "a checkpoint is not noticed late");
const _: () = assert!(WAL_CHECKPOINT_BYTES < WAL_RESTART_BYTES && WAL_RESTART_BYTES < WAL_ALARM_BYTES);
const _: () = assert!(TRIM_EVENTS as usize > BATCH_OPS_MAX && TRIM_OPERATIONS > BATCH_OPS_MAX);
const _: () = assert!(SIGNAL_BYTES_MAX < SEND_BUFFER_BYTES, "a run of signals fits the buffer of whoever reads");
const _: () = assert!(RECENT_EVENTS_MAX <= PAGE_EVENTS_MAX);
const _: () =
    assert!(DEFLATE_FLOOR_BYTES <= SCRATCH_BYTES, "what any message may grow to needs no more memory than a read");

/// Bounds that the configuration may set.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Bytes of one message; 1 KiB to 16 MiB.
    pub message: usize,
    /// Fragments of one message.
    pub fragments: u32,
    /// Bytes of replies queued for one connection before it is no longer read.
    pub outbox: usize,
    /// Rooms that one native connection may be in; 1 to `ROOMS_CEILING`.
    pub rooms: usize,
    /// From accept to a complete request head.
    pub handshake: Duration,
    /// Silence after which a ping is sent.
    pub ping: Duration,
    /// How long a pong may take.
    pub pong: Duration,
    /// A client with bytes waiting that takes none for this long is closed with 4008.
    pub stall: Duration,
    /// How long the answer to our close frame may take.
    pub close: Duration,
    /// How long an HTTP connection may rest between requests.
    pub keep_alive: Duration,
    /// A started message must be complete within this.
    pub message_time: Duration,
    /// How long the store may take to answer before the operation is answered `unknown`.
    pub answer: Duration,
    /// Connections of the process; 0 takes what the descriptor limit allows.
    pub connections: usize,
    /// Messages per second and connection, bursts of twice that; 0 is unlimited.
    pub messages_per_second: u32,
    /// Bytes per second and connection, bursts of twice that; 0 is unlimited.
    pub bytes_per_second: u32,
    /// Connections open from one address, in token mode and not for loopback; 0 is unlimited.
    pub address_connections: usize,
    /// Handshakes per second from one address, bursts of `ADDRESS_HANDSHAKE_BURST`; 0 is unlimited.
    pub address_handshakes_per_second: u32,
    /// Requests over HTTP per second from one address, bursts of twice that; 0 is unlimited.
    pub address_requests_per_second: u32,
    /// Bytes that the process and its sockets may come to need (budget.rs); 0 is no budget.
    pub memory: usize,
}

/// What all connections together may take of the kinds that one connection alone has a bound for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Bytes: `STORE_BYTES_MAX` …
    pub operations: usize,
    pub responses: usize,
    pub outboxes: usize,
    pub unfinished: usize,
    /// … and the number of rooms with a member, beyond one a connection.
    pub rooms: usize,
}

impl Shares {
    /// What one of so many reactors has of those that reactors keep the books of.
    pub fn part(self, reactors: usize) -> Shares {
        let reactors = reactors.max(1);
        Shares {
            outboxes: self.outboxes / reactors,
            unfinished: self.unfinished / reactors,
            rooms: self.rooms / reactors,
            ..self
        }
    }
}

impl Limits {
    pub fn shares(&self) -> Shares {
        let most = if self.memory == 0 { usize::MAX } else { self.memory / SHARE_OF_MEMORY };
        Shares {
            operations: most.min(STORE_BYTES_MAX),
            responses: most.min(RESPONSE_BYTES_MAX),
            outboxes: most.min(OUTBOXES_BYTES_MAX),
            unfinished: most.min(UNFINISHED_BYTES_MAX),
            // Watching a room's presence is a room of our making.
            rooms: ROOMS_MAX.min(most / (2 * ROOM_BYTES)),
        }
    }
}

/// The largest settable message; the originals' own bound.
pub const MESSAGE_BYTES_CEILING: usize = 16 * 1024 * 1024;

/// The most rooms of one connection that can be set: a membership is found by walking them all.
pub const ROOMS_CEILING: usize = 4096;

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            message: 1024 * 1024,
            fragments: 256,
            outbox: 1024 * 1024,
            rooms: 128,
            handshake: Duration::from_secs(10),
            ping: Duration::from_secs(25),
            pong: Duration::from_secs(10),
            stall: Duration::from_secs(10),
            close: Duration::from_secs(2),
            keep_alive: Duration::from_secs(75),
            message_time: Duration::from_secs(30),
            answer: Duration::from_secs(5),
            connections: 0,
            messages_per_second: 200,
            bytes_per_second: 4 * 1024 * 1024,
            address_connections: 64,
            address_handshakes_per_second: 20,
            address_requests_per_second: 100,
            memory: 0,
        }
    }
}
