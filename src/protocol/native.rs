//! The native protocol as it is written down. A client ignores what it does not know, so every object may hold more.

use super::agents::{decision, digest};
use super::schema::{
    Schema, always, any, count, either, flag, is, list, map, matching, none_of, noted, null, nullable, one_of, open,
    text, text_of, uuid, within, zulu,
};
use super::table::{Channel, Guard, Message, message, plain};
use crate::limits::{OP_ID_BYTES_MAX, ROOM_NAME_BYTES_MAX};

pub fn channels() -> Vec<Channel> {
    vec![
        Channel::new(
            "native.connect",
            ["/v1/connect"],
            "Any room, by name: `doc:`, `workflow:`, `agent:`, `coordinator`, `topic:`, `chat:`, `compilation:`, `segment:`, \
             `segments`, `workflows`, `tickets`, `logs`, `session:` as their dialects know them, and any other for the asking. \
             In token mode the token may come with the first message. Operations of one socket on one room are stored in the \
             order in which they were sent.",
        )
        .of(Guard::Native)
        .says(asked())
        .says(about_the_socket())
        .says(about_rooms())
        .says(about_operations()),
        Channel::new("native.echo", ["/v1/echo"], "Echoes text and binary frames as they are; in debug mode only.")
            .of(Guard::Native)
            .says([
                plain("native.client.echo", "Any text.", text()),
                plain("native.server.echo", "The same.", text()),
            ]),
    ]
}

pub fn room() -> Schema {
    let mut room = matching("^[A-Za-z0-9_.:/-]+$");
    super::schema::put(&mut room, "maxLength", ROOM_NAME_BYTES_MAX.into());
    room
}

pub fn kind() -> Schema {
    matching("^[A-Za-z0-9_.:-]{1,64}$")
}

pub fn operation() -> Schema {
    text_of(OP_ID_BYTES_MAX)
}

fn asked() -> [Message; 9] {
    [
        message(
            "native.client.auth",
            "The first credential, or a fresh one. Answered with `hello`.",
            open([("op", is("auth")), ("token", text())]),
        ),
        message(
            "native.client.join",
            "Joins a room; with `since`, from where it stood. Joining again starts afresh.",
            open([
                ("op", is("join")),
                ("room", room()),
                ("since?", nullable(open([("epoch", text()), ("seq", count())]))),
            ]),
        ),
        message("native.client.leave", "Leaves a room.", open([("op", is("leave")), ("room", room())])),
        message(
            "native.client.publish",
            "Stores an event. `id` makes sending it again harmless; `if_rev` stores it only when the room's revision is still \
             that, 0 where there is none yet.",
            open([
                ("op", is("publish")),
                ("room", room()),
                ("id", operation()),
                ("type?", nullable(kind())),
                ("data", any()),
                ("if_rev?", nullable(count())),
            ]),
        ),
        message(
            "native.client.signal",
            "To the other members of the room, stored nowhere.",
            open([("op", is("signal")), ("room", room()), ("data", any())]),
        ),
        message(
            "native.client.presence",
            "Asks who is in the room, and who comes and goes from now on.",
            open([("op", is("presence")), ("room", room())]),
        ),
        message(
            "native.client.decide",
            "Decides a request; `seen` is the digest of what its decider was shown.",
            open([
                ("op", is("decide")),
                ("room", room()),
                ("id", operation()),
                ("approval", text()),
                ("decision", one_of(["approve", "reject", "cancel"])),
                ("reason?", nullable(text())),
                ("seen", text()),
            ]),
        ),
        message(
            "native.client.decide.edit",
            "The same: yes, with other arguments.",
            open([
                ("op", is("decide")),
                ("room", room()),
                ("id", operation()),
                ("approval", text()),
                ("decision", is("edit")),
                ("edited_args", map()),
                ("seen", text()),
            ]),
        ),
        message("native.client.ping", "Answered with `pong`.", open([("op", is("ping"))])),
    ]
}

fn about_the_socket() -> [Message; 4] {
    [
        message(
            "native.server.hello",
            "Who you are, and as which connection; after each `auth` too.",
            open([
                ("op", is("hello")),
                ("conn", text()),
                ("user", text()),
                ("durability", one_of(["full", "normal"])),
                ("ping_ms", count()),
                ("version", text()),
                ("expires_in_ms?", count()),
            ]),
        ),
        message("native.server.pong", "The answer to a ping.", open([("op", is("pong"))])),
        message(
            "native.server.expiring",
            "The credential ends: show a fresh one.",
            open([("op", is("expiring")), ("in_ms", count())]),
        ),
        bye("native.server.bye"),
    ]
}

pub fn bye(name: &'static str) -> Message {
    message(
        name,
        "A close with this code follows: come back after so long.",
        open([("op", is("bye")), ("code", within(1000, 4999)), ("retry_after_ms", count())]),
    )
}

fn about_rooms() -> [Message; 6] {
    [
        message(
            "native.server.joined",
            "Where the room stands. `recovered`: what was missed follows, and nothing is missing.",
            open([
                ("op", is("joined")),
                ("room", room()),
                ("epoch", epoch()),
                ("head", count()),
                ("rev?", count()),
                ("snapshot?", any()),
                ("recovered", flag()),
            ]),
        ),
        message("native.server.left", "You are out.", open([("op", is("left")), ("room", room())])),
        message(
            "native.server.event",
            "Something was stored in the room; `id` is its writer's name for it. What `data` holds is the room's business: in \
             the dialects' rooms it is what their sockets are shown.",
            open([
                ("op", is("event")),
                ("room", room()),
                ("seq", within(1, u64::MAX)),
                ("type", text()),
                ("by", text()),
                ("at", zulu()),
                ("id?", operation()),
                ("data", any()),
            ]),
        ),
        message(
            "native.server.signal",
            "A member says something that is stored nowhere.",
            open([("op", is("signal")), ("room", room()), ("by", text()), ("data", any())]),
        ),
        message(
            "native.server.presence",
            "Who came and who left, by user; at first, who is there.",
            open([("op", is("presence")), ("room", room()), ("joined", list(text())), ("left", list(text()))]),
        ),
        message(
            "native.server.reset",
            "Forget what you have of the room: it is as in `snapshot`, and goes on after `seq`.",
            open([
                ("op", is("reset")),
                ("room", room()),
                ("reason", one_of(["epoch", "future", "trimmed"])),
                ("epoch", epoch()),
                ("seq", count()),
                ("rev?", count()),
                ("snapshot?", any()),
            ]),
        ),
    ]
}

fn about_operations() -> [Message; 6] {
    [
        message(
            "native.server.ok",
            "Stored. `dup`: it was, before.",
            open([
                ("op", is("ok")),
                ("id", operation()),
                ("room", room()),
                ("seq", count()),
                ("rev?", count()),
                ("dup?", always(true)),
            ]),
        ),
        message("native.server.refused", "Certain never to be stored; `detail` is for people.", refused()),
        message(
            "native.server.refused.already_decided",
            "Somebody else was first.",
            open([
                ("op", is("refused")),
                ("id", operation()),
                ("code", is("already_decided")),
                ("detail", text()),
                ("room", room()),
                ("by", text()),
                ("at", zulu()),
                ("decision", decision()),
                ("seq", count()),
            ]),
        ),
        message(
            "native.server.refused.stale",
            "What is to be decided is not what was seen: this is what it is.",
            open([
                ("op", is("refused")),
                ("id", operation()),
                ("code", is("stale")),
                ("detail", text()),
                ("room", room()),
                ("approval", approval()),
            ]),
        ),
        message(
            "native.server.unknown",
            "Nobody knows whether it was stored: send it again with the same id.",
            open([("op", is("unknown")), ("id", operation()), ("room", room())]),
        ),
        message(
            "native.server.conflict",
            "The revision is another one: this is the state.",
            open([
                ("op", is("conflict")),
                ("id", operation()),
                ("room", room()),
                ("rev", count()),
                ("snapshot", any()),
            ]),
        ),
    ]
}

/// With the two codes left out that have more to say.
fn refused() -> Schema {
    open([
        ("op", is("refused")),
        ("id", either([operation(), null()])),
        ("code", noted(none_of(&["already_decided", "stale"]), "a fixed word")),
        ("detail", text()),
        ("room?", room()),
        ("retry_after_ms?", count()),
    ])
}

/// Empty for a room without an event.
pub fn epoch() -> Schema {
    matching("^([0-9a-f]{16})?$")
}

/// An approval as native clients and backends see it.
pub fn approval() -> Schema {
    open([
        ("request_id", uuid()),
        ("session_id", text()),
        ("execution_id", nullable(uuid())),
        ("tool_name", text()),
        ("tool_args", map()),
        ("reason?", text()),
        ("amount?", text()),
        ("currency?", text()),
        ("digest", digest()),
        ("created_at", zulu()),
        ("expires_at", nullable(zulu())),
        ("seq", count()),
        ("decision", one_of(["pending", "approved", "rejected", "edited", "expired", "cancelled"])),
        ("decided_by?", text()),
        ("decided_at?", zulu()),
    ])
}
