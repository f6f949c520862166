//! The backend protocol as it is written down: its socket, and the same over HTTP.

use super::agents::{decision, digest};
use super::native::{approval, bye, epoch, kind, operation, room};
use super::schema::{
    Schema, always, any, count, either, exact, flag, is, list, map, map_of, matching, noted, nullable, number, one_of,
    open, refer, text, text_of, uuid, within, zulu,
};
use super::table::{Channel, Endpoint, Guard, Message, NDJSON, PROBLEM, delete, get, message, post};
use crate::auth::token::{JTI_BYTES_MAX, TIME_MAX};
use crate::dialect::Name;
use crate::limits::{PAGE_EVENTS_MAX, ROOM_NAME_BYTES_MAX};
use crate::model::TaskKind;

/// Tasks that are held at a time, milliseconds of a lease and of a rest, seconds of a poll. The dialect's own constants are
/// not shown outside; that these are the same is tested.
const TASKS_MAX: u64 = 1000;
const LEASE_MS: (u64, u64) = (1_000, 3_600_000);
const RETRY_MS_MAX: u64 = 86_400_000;
const WAIT_SECONDS_MAX: u64 = 60;

pub fn channels() -> Vec<Channel> {
    vec![
        Channel::new(
            "backend.socket",
            ["/v1/backend"],
            "A program that publishes and takes tasks. Whatever it sends renews the leases that it holds; its end releases them.",
        )
        .of(Guard::Backend)
        .says(asked())
        .says(answered())
        .says(tasks()),
    ]
}

fn asked() -> [Message; 8] {
    [
        message(
            "backend.client.take",
            "Takes up to `max` tasks of these kinds at a time, from now on; without `kinds`, all that the key may take.",
            open([
                ("op", is("take")),
                ("kinds?", nullable(list(task_kind()))),
                ("max?", nullable(within(1, TASKS_MAX))),
                ("lease_ms?", nullable(lease())),
            ]),
        ),
        message(
            "backend.client.done",
            "The task is finished.",
            open([("op", is("done")), ("task", task_id()), ("fence", count()), ("result?", any())]),
        ),
        message(
            "backend.client.fail",
            "The task could not be done: it is handed out again, after so long.",
            open([("op", is("fail")), ("task", task_id()), ("fence", count()), ("retry_ms?", nullable(retry()))]),
        ),
        message(
            "backend.client.publish",
            "Stores an event. With `task` and `fence` only while the task is held so.",
            {
                let mut publish = publishing();
                tag(&mut publish, "publish");
                publish
            },
        ),
        message("backend.client.session", "Makes a session, or finds it.", {
            let mut session = new_session();
            tag(&mut session, "session");
            session
        }),
        message("backend.client.approval", "Asks for a human's decision.", {
            let mut approval = wanted();
            tag(&mut approval, "approval");
            approval
        }),
        message("backend.client.status", "Asks how many tasks wait.", open([("op", is("status"))])),
        message("backend.client.ping", "Answered with `pong`.", open([("op", is("ping"))])),
    ]
}

/// The fields of a request's body as a message of the socket.
fn tag(body: &mut Schema, op: &str) {
    if let Some(properties) = body.get_mut("properties") {
        super::schema::put(properties, "op", is(op));
    }
    if let Some(Some(required)) = body.get_mut("required").map(Schema::as_array_mut) {
        required.push("op".into());
    }
}

fn answered() -> [Message; 10] {
    let about_task = || [("op", is("ok")), ("task", task_id())];
    [
        message(
            "backend.server.hello",
            "The key's name, and the kinds of task that it may take.",
            open([
                ("op", is("hello")),
                ("conn", text()),
                ("name", text()),
                ("kinds", list(task_kind())),
                ("durability", one_of(["full", "normal"])),
                ("ping_ms", count()),
                ("version", text()),
            ]),
        ),
        message("backend.server.ok", "The task is finished, or given back.", open(about_task())),
        message(
            "backend.server.ok.publish",
            "Stored. `dup`: it was, before.",
            open([
                ("op", is("ok")),
                ("room", room()),
                ("epoch", epoch()),
                ("seq", count()),
                ("id?", operation()),
                ("rev?", count()),
                ("dup?", always(true)),
            ]),
        ),
        message("backend.server.ok.session", "The session is there.", {
            let mut session = session_facts();
            tag(&mut session, "ok");
            session
        }),
        message("backend.server.ok.approval", "The request is there, decided or not.", {
            let mut approval = approval_facts();
            tag(&mut approval, "ok");
            approval
        }),
        message(
            "backend.server.refused",
            "Certain not to be done; `detail` is for people.",
            open([
                ("op", is("refused")),
                ("task?", text()),
                ("id?", operation()),
                ("code", noted(text(), "a fixed word")),
                ("detail", text()),
                ("retry_after_ms?", count()),
            ]),
        ),
        message(
            "backend.server.conflict",
            "The revision is another one: this is the state.",
            open([("op", is("conflict")), ("id?", operation()), ("rev", count()), ("snapshot?", any())]),
        ),
        message(
            "backend.server.unknown",
            "Nobody knows whether it was stored: send it again.",
            open([("op", is("unknown")), ("id?", operation()), ("task?", task_id())]),
        ),
        message(
            "backend.server.status",
            "By kind: tasks that are not finished, those of them that a socket has, and whether somebody takes the kind.",
            open([
                ("op", is("status")),
                ("tasks", map_of(open([("open", count()), ("held", count()), ("taken", flag())]))),
                ("rooms", count()),
            ]),
        ),
        bye("backend.server.bye"),
    ]
}

/// One for each kind, and the answer to a ping.
fn tasks() -> Vec<Message> {
    let mut messages: Vec<Message> = TaskKind::ALL
        .into_iter()
        .map(|kind| {
            let (name, summary, data) = task(kind);
            let mut payload = task_view(kind, data);
            tag(&mut payload, "task");
            message(name, summary, payload)
        })
        .collect();
    messages.push(message("backend.server.pong", "The answer to a ping.", open([("op", is("pong"))])));
    messages
}

/// A match, so that a new kind is not forgotten.
fn task(kind: TaskKind) -> (&'static str, &'static str, Schema) {
    match kind {
        TaskKind::Execute => (
            "backend.server.task.execute",
            "Run this command.",
            open([
                ("execution_id", uuid()),
                ("session_id", text()),
                ("command", text()),
                ("plan", nullable(list(map()))),
                ("user_id", text()),
                ("budget_limit_usd?", number()),
            ]),
        ),
        TaskKind::Cancel => (
            "backend.server.task.cancel",
            "Stop this run.",
            open([("execution_id", uuid()), ("session_id", text()), ("by", text())]),
        ),
        TaskKind::Decision => (
            "backend.server.task.decision",
            "This was decided.",
            open([
                ("request_id", uuid()),
                ("execution_id", nullable(uuid())),
                ("session_id", text()),
                ("decision", decision()),
                ("tool_name", text()),
                ("tool_args", map()),
                ("edited_args", nullable(map())),
                ("reason", nullable(text())),
                ("by", text()),
                ("seq", count()),
            ]),
        ),
        TaskKind::Control => (
            "backend.server.task.control",
            "A page wants a workflow controlled.",
            open([
                ("workflow_id", text()),
                ("action", one_of(["cancel", "pause", "resume"])),
                ("client_id", nullable(text())),
            ]),
        ),
        TaskKind::Ticket => (
            "backend.server.task.ticket",
            "A ticket was made. `clients`: who sits at the pages.",
            open([
                ("ticket_id", uuid()),
                ("ticket_name", text()),
                ("description", nullable(text())),
                ("job_id", text()),
                ("clients", count()),
            ]),
        ),
        TaskKind::Webhook => (
            "backend.server.task.webhook",
            "A page in Notion has changed.",
            open([
                ("page_id", text()),
                ("database_id", text()),
                ("event_type", text()),
                ("job_id", text()),
                ("clients", count()),
            ]),
        ),
        TaskKind::Response => (
            "backend.server.task.response",
            "A user has answered a session.",
            open([("session_id", any()), ("response", any()), ("by", text())]),
        ),
        TaskKind::Chat => (
            "backend.server.task.chat",
            "Answer this in the chat's room: `chunk`, …, `done`.",
            open([("thread_id", text()), ("message", text()), ("temperature", number())]),
        ),
    }
}

fn task_view(kind: TaskKind, data: Schema) -> Schema {
    open([
        ("task", task_id()),
        ("kind", is(kind.as_str())),
        ("room", room()),
        ("attempt", within(1, u32::MAX.into())),
        ("fence", within(1, u64::MAX)),
        ("at", zulu()),
        ("data", data),
    ])
}

fn task_kind() -> Schema {
    one_of(TaskKind::ALL.map(TaskKind::as_str))
}

fn task_id() -> Schema {
    matching("^[0-9]+$")
}

fn lease() -> Schema {
    within(LEASE_MS.0, LEASE_MS.1)
}

fn retry() -> Schema {
    within(0, RETRY_MS_MAX)
}

// ---- what is asked, whichever way -----------------------------------------------------------------------------------------

fn publishing() -> Schema {
    open([
        ("room", room()),
        ("type", kind()),
        ("data", any()),
        ("id?", nullable(operation())),
        ("if_rev?", nullable(count())),
        ("task?", noted(task_id(), "with its fence: only while the task is held so")),
        ("fence?", count()),
    ])
}

fn new_session() -> Schema {
    open([
        ("id?", nullable(uuid())),
        ("user_id?", nullable(text())),
        ("wallet_address?", nullable(text())),
        ("config?", nullable(map())),
    ])
}

fn wanted() -> Schema {
    open([
        ("session", text()),
        ("id?", nullable(uuid())),
        ("execution_id?", nullable(text())),
        ("tool_name", text()),
        ("tool_args?", nullable(map())),
        ("reason?", nullable(text())),
        ("amount?", either([text(), number(), super::schema::null()])),
        ("currency?", nullable(text())),
        ("estimated_cost?", any()),
        (
            "expires_in?",
            nullable(noted(number(), "seconds, above 0 and at most a year; without them it waits for ever")),
        ),
    ])
}

fn deciding() -> Schema {
    let rest = || [("seen?", nullable(text())), ("by?", nullable(text_of(128)))];
    let [seen, by] = rest();
    let [seen_too, by_too] = rest();
    either([
        open([("decision", one_of(["approve", "reject", "cancel"])), ("reason?", nullable(text())), seen, by]),
        open([("decision", is("edit")), ("edited_args", map()), seen_too, by_too]),
    ])
}

// ---- what is answered, whichever way --------------------------------------------------------------------------------------

fn session_facts() -> Schema {
    open([("session", text()), ("id?", text()), ("user_id?", text()), ("created_at", zulu()), ("state", text())])
}

fn approval_facts() -> Schema {
    open([
        ("session", text()),
        ("request_id", uuid()),
        ("id?", text()),
        ("seq", count()),
        ("digest", digest()),
        ("state", one_of(["pending", "approved", "rejected", "edited", "expired", "cancelled"])),
        ("decision?", decided()),
    ])
}

fn decided() -> Schema {
    open([
        ("decision", decision()),
        ("by", text()),
        ("at", zulu()),
        ("seq", count()),
        ("edited_args?", map()),
        ("reason?", text()),
    ])
}

fn publish_facts() -> Schema {
    exact([("room", room()), ("epoch", epoch()), ("seq", count()), ("id?", operation()), ("rev?", count())])
}

/// About one token, or about a user.
fn revoking() -> Schema {
    let until =
        || ("until?", nullable(noted(unix_seconds(), "when all of it has expired and need not be kept; never")));
    either([
        open([("jti", text_of(JTI_BYTES_MAX)), until()]),
        open([
            ("user", text_of(256)),
            ("before?", nullable(noted(unix_seconds(), "what was issued before; the end of this second"))),
            until(),
        ]),
    ])
}

fn revocation() -> Schema {
    exact([
        ("revocation", matching("^[0-9a-f]{32}$")),
        ("jti?", text()),
        ("user?", text()),
        ("before?", unix_seconds()),
        ("until?", unix_seconds()),
        ("by", text()),
        ("created_at", zulu()),
    ])
}

fn unix_seconds() -> Schema {
    within(0, TIME_MAX as u64)
}

fn event() -> Schema {
    exact([
        ("seq", within(1, u64::MAX)),
        ("type", text()),
        ("by", text()),
        ("at", zulu()),
        ("id?", operation()),
        ("data", any()),
    ])
}

// ---- HTTP -------------------------------------------------------------------------------------------------------------

pub fn schemas() -> Vec<(&'static str, Schema)> {
    vec![
        ("Publish", publishing()),
        ("Published", publish_facts()),
        ("Session", session_facts()),
        ("Asked", approval_facts()),
        ("Approval", approval()),
        ("Revocation", revocation()),
        ("Task", serde_json::json!({"anyOf": TaskKind::ALL.map(|kind| task_view(kind, task(kind).2))})),
        ("BackendProblem", problem()),
    ]
}

/// RFC 9457, with what is to be known about the refusal behind it.
fn problem() -> Schema {
    open([
        ("type", is("about:blank")),
        ("title", text()),
        ("status", within(400, 599)),
        ("detail", text()),
        ("code", text()),
    ])
}

pub fn endpoints() -> Vec<Endpoint> {
    let limit = within(1, PAGE_EVENTS_MAX as u64);
    let endpoints = vec![
        told(
            post("/v1/publish", "Stores an event.")
                .header(
                    "Idempotency-Key",
                    operation(),
                    "Makes sending it again harmless; the same as `id` in the body.",
                )
                .body(refer("Publish"))
                .json(201, "Stored; or it was, before, and this is the first answer again.", refer("Published"))
                .with("Idempotent-Replayed", "`true` when it is the first answer again."),
            &[400, 403, 404, 409, 422],
        ),
        post("/v1/batch", "A publish on each line in, a result on each line out, in their order and each for itself.")
            .lines(refer("Publish"))
            .says(
                200,
                "A line for each line.",
                NDJSON,
                either([
                    open([
                        ("line", within(1, u64::MAX)),
                        ("room", room()),
                        ("epoch", epoch()),
                        ("seq", count()),
                        ("id?", operation()),
                        ("rev?", count()),
                        ("dup?", always(true)),
                    ]),
                    open([
                        ("line", within(1, u64::MAX)),
                        ("id?", operation()),
                        ("error", exact([("code", text()), ("detail", text())])),
                    ]),
                ]),
            )
            .says(413, "More than 32768 lines.", PROBLEM, refer("BackendProblem")),
        told(
            get("/v1/tasks", "Takes tasks, once; waits for the first.")
                .query("kinds", text(), "With commas between; without it, all that the key may take.")
                .query("max", within(1, TASKS_MAX), "How many at most; 1 without it.")
                .query("lease_ms", lease(), "How long they are held; 30000 without it.")
                .query("wait", within(0, WAIT_SECONDS_MAX), "Seconds; 0 without it.")
                .json(200, "None when there was none in time.", exact([("tasks", list(refer("Task")))]))
                .with("Cache-Control", "`no-store`"),
            &[400, 403],
        ),
        told(
            of_task(post("/v1/tasks/{task}/done", "The task is finished."), ("result?", any())),
            &[400, 403, 404, 409],
        ),
        told(
            of_task(
                post("/v1/tasks/{task}/fail", "It could not be done: it is handed out again."),
                ("retry_ms?", nullable(retry())),
            ),
            &[400, 403, 404, 409],
        ),
        told(
            of_task(post("/v1/tasks/{task}/renew", "Holds it for longer."), ("lease_ms?", nullable(lease()))),
            &[400, 403, 404, 409],
        ),
        told(
            post("/v1/sessions", "Makes a session.")
                .body(new_session())
                .json(200, "It was there.", refer("Session"))
                .json(201, "Made.", refer("Session")),
            &[400, 403, 404, 409],
        ),
        told(get("/v1/sessions/{session}", "One session.").json(200, "", refer("Session")), &[400, 403, 404]),
        told(
            post("/v1/approvals", "Asks for a human's decision.")
                .body(wanted())
                .json(200, "It was asked for before, with the same id.", refer("Asked"))
                .json(201, "Asked for.", refer("Asked")),
            &[400, 403, 404, 409, 422],
        ),
        told(get("/v1/approvals/{approval}", "One request.").json(200, "", refer("Approval")), &[400, 403, 404]),
        told(
            post("/v1/approvals/{approval}/decide", "Decides a request; `by` is whom the backend decides for.")
                .body(deciding())
                .json(200, "Decided.", refer("Asked")),
            &[400, 403, 404, 409],
        ),
        told(
            get("/v1/rooms", "Rooms that the key may read, by name.")
                .query("prefix", text(), "Only those whose name begins so.")
                .query("after", text(), "Only those behind this one: `next` of the page before.")
                .query("limit", limit.clone(), "100 without it.")
                .json(
                    200,
                    "",
                    exact([
                        (
                            "rooms",
                            list(exact([
                                ("room", text_of(ROOM_NAME_BYTES_MAX)),
                                ("epoch", epoch()),
                                ("head", count()),
                                ("floor", count()),
                                ("members", count()),
                            ])),
                        ),
                        ("next?", text()),
                    ]),
                ),
            &[400, 403],
        ),
        told(
            get("/v1/rooms/{room}/events", "A room's events.")
                .query("after", count(), "Only those behind this position.")
                .query("limit", limit, "100 without it.")
                .json(
                    200,
                    "What is up to `floor` is gone.",
                    exact([
                        ("room", text()),
                        ("epoch", epoch()),
                        ("head", count()),
                        ("floor", count()),
                        ("events", list(event())),
                    ]),
                ),
            &[400, 403, 404],
        ),
        told(
            get("/v1/connections", "Who is connected.").json(
                200,
                "",
                exact([(
                    "connections",
                    list(exact([
                        ("id", matching("^c[0-9]+[.][0-9]+[.][0-9]+$")),
                        ("dialect", one_of(Name::ALL.map(Name::as_str).into_iter().chain(["backend"]))),
                        ("user", text()),
                        ("client", text()),
                        ("connected_at", zulu()),
                        ("rooms", list(text())),
                    ])),
                )]),
            ),
            &[403],
        ),
        told(
            post("/v1/connections/{connection}/close", "Closes a connection, with code 4403 and the reason.")
                .body_if_any(open([("reason?", nullable(reason()))]))
                .json(200, "It is being closed.", exact([("closed", always(true))])),
            &[400, 403, 404],
        ),
        told(
            post(
                "/v1/revocations",
                "Revokes a token, or a user's tokens of before a moment. Sockets that were opened with them are closed with 4401.",
            )
            .body(revoking())
            .json(200, "It was there, and now reaches as far as both.", refer("Revocation"))
            .json(201, "Revoked.", refer("Revocation")),
            &[400, 403, 409],
        ),
        told(
            get("/v1/revocations", "What is revoked, in the order in which it was.")
                .query("user", text(), "Only the one about this user.")
                .query("jti", text(), "Only the one about this token.")
                .query("skip", count(), "Not the first so many.")
                .query("limit", within(1, PAGE_EVENTS_MAX as u64), "100 without it.")
                .json(200, "", exact([("revocations", list(refer("Revocation")))])),
            &[400, 403],
        ),
        told(
            delete("/v1/revocations/{revocation}", "Takes a revocation back.").json(
                200,
                "It no longer holds.",
                refer("Revocation"),
            ),
            &[400, 403, 404],
        ),
    ];
    endpoints.into_iter().map(|endpoint| endpoint.of(Guard::Backend)).collect()
}

fn of_task(endpoint: Endpoint, more: (&'static str, Schema)) -> Endpoint {
    endpoint.body(open([("fence", count()), more])).json(200, "", exact([("task", task_id())]))
}

/// As a close frame has room for it.
fn reason() -> Schema {
    let mut reason = text();
    super::schema::put(&mut reason, "maxLength", 100.into());
    reason
}

/// The refusals of the protocol; those of the door stand under `default`.
fn told(endpoint: Endpoint, refusals: &[u16]) -> Endpoint {
    refusals.iter().fold(endpoint, |endpoint, status| {
        let summary = match status {
            400 => "The request makes no sense.",
            403 => "The key does not grant it.",
            404 => "It is not there.",
            409 => "It is not as the request would have it.",
            _ => "The id was given to another one.",
        };
        endpoint.says(*status, summary, PROBLEM, refer("BackendProblem"))
    })
}
