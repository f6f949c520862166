//! The `agents` dialect as it is written down: a session's sockets, and REST around sessions and decisions.

use super::schema::{
    Schema, any, count, exact, flag, is, list, map, naive, null, nullable, number, one_of, open, refer, text, uuid,
    within, zulu,
};
use super::table::{Channel, Endpoint, Message, delete, get, message, post};

pub fn channels() -> Vec<Channel> {
    vec![
        Channel::new(
            "agents.session",
            ["/api/v1/ws", "/api/v1/ws/", "/api/v1/ws/ws", "/ws"],
            "One session's sockets: any number, each hears everything. JSON is written with spaces and in ASCII, times are UTC \
             without saying so. `/ws` leads here when it names a session.",
        )
        .needs("session_id", text(), "The session's UUID; in debug mode also a plain name, where sessions are made on connect.")
        .says(asked())
        .says(answered())
        .says(events()),
    ]
}

/// What a client says.
fn said(kind: &str, data: Schema) -> Schema {
    open([("type", is(kind)), ("data", data)])
}

fn asked() -> [Message; 6] {
    let request = || open([("request_id", any_uuid())]);
    [
        message(
            "agents.client.execute",
            "Begins a run: `thinking` for all, a task for a backend.",
            said("execute", open([("command", text()), ("plan?", nullable(list(map())))])),
        ),
        message("agents.client.approve", "Decides a request.", said("approve", request())),
        message(
            "agents.client.reject",
            "Decides a request.",
            said("reject", open([("request_id", any_uuid()), ("reason?", nullable(text()))])),
        ),
        message(
            "agents.client.edit",
            "Decides a request: yes, with other arguments.",
            said("edit", open([("request_id", any_uuid()), ("edited_args", map())])),
        ),
        message("agents.client.cancel", "Ends a run.", said("cancel", open([("execution_id", any_uuid())]))),
        message(
            "agents.client.ping",
            "Refused like any other type, unless the server is configured to answer `pong`.",
            said("ping", map()),
        ),
    ]
}

/// Upper case, without hyphens, in braces and as a URN will do.
fn any_uuid() -> Schema {
    super::schema::matching("^(urn:uuid:)?[{]?[0-9A-Fa-f-]{32,40}[}]?$")
}

/// What the server says: these three members and no other.
fn envelope(kind: &str, data: Schema) -> Schema {
    exact([("type", is(kind)), ("data", data), ("timestamp", naive())])
}

fn answered() -> [Message; 4] {
    [
        message(
            "agents.server.connected",
            "The first frame; the session's id as it was given.",
            envelope("connected", exact([("session_id", text()), ("user_id", text())])),
        ),
        message(
            "agents.server.cancelled",
            "To the sender of a `cancel`, whether or not anything ran.",
            envelope(
                "cancelled",
                exact([
                    ("execution_id", text()),
                    ("session_id", text()),
                    ("message", is("Cancellation request received")),
                ]),
            ),
        ),
        message("agents.server.pong", "Where it is configured.", envelope("pong", exact([]))),
        message(
            "agents.server.error",
            "To the sender alone: what it said was not understood or not carried out. To all: a run broke, was cancelled, or \
             the session is gone. Without a time when there was no store to ask for it.",
            exact([("type", is("error")), ("data", failure()), ("timestamp?", naive())]),
        ),
    ]
}

fn failure() -> Schema {
    open([
        ("message", text()),
        ("session_id?", text()),
        ("execution_id?", nullable(text())),
        ("request_id?", nullable(text())),
        ("timestamp?", any()),
        ("error_type?", nullable(text())),
        ("details?", any()),
        ("terminal?", flag()),
        ("decision?", decision()),
        ("decided_by?", text()),
        ("decided_at?", zulu()),
    ])
}

/// Shown to every socket of the session. Whoever runs it may say more than what is listed.
fn events() -> [Message; 10] {
    [
        message(
            "agents.server.thinking",
            "A run has begun, or goes on.",
            envelope(
                "thinking",
                open([
                    ("session_id", text()),
                    ("command", any()),
                    ("timestamp", any()),
                    ("step?", nullable(number())),
                    ("total_steps?", nullable(number())),
                    ("thought_process?", nullable(text())),
                    ("execution_id", uuid()),
                ]),
            ),
        ),
        message(
            "agents.server.tool_call",
            "A tool is used.",
            envelope(
                "tool_call",
                open([
                    ("session_id", text()),
                    ("tool_name", text()),
                    ("tool_args", any()),
                    ("timestamp", any()),
                    ("tool_id?", nullable(text())),
                    ("execution_id", uuid()),
                ]),
            ),
        ),
        message(
            "agents.server.tool_result",
            "What came of a tool's use.",
            envelope(
                "tool_result",
                open([
                    ("session_id", text()),
                    ("tool_id?", nullable(text())),
                    ("result?", any()),
                    ("success?", nullable(flag())),
                    ("error?", any()),
                    ("execution_id", uuid()),
                ]),
            ),
        ),
        message(
            "agents.server.approval_required",
            "Somebody must decide. `digest` is of exactly what is to be approved.",
            envelope(
                "approval_required",
                exact([
                    ("session_id", text()),
                    ("execution_id", nullable(uuid())),
                    ("request_id", uuid()),
                    ("tool_name", text()),
                    ("tool_args", map()),
                    ("reason", nullable(text())),
                    ("amount", nullable(text())),
                    ("currency", nullable(text())),
                    ("estimated_cost", any()),
                    ("digest", digest()),
                    ("expires_at", nullable(zulu())),
                ]),
            ),
        ),
        message(
            "agents.server.approved",
            "Decided: yes.",
            envelope(
                "approved",
                exact([("request_id", uuid()), ("decision", is("approved")), ("edited_args", null())]),
            ),
        ),
        message(
            "agents.server.rejected",
            "Decided: no; or the run was cancelled, or the time was up.",
            envelope(
                "rejected",
                exact([
                    ("request_id", uuid()),
                    ("decision", one_of(["rejected", "cancelled", "expired"])),
                    ("edited_args", null()),
                    ("reason?", text()),
                ]),
            ),
        ),
        message(
            "agents.server.edit_approved",
            "Decided: yes, with other arguments.",
            envelope(
                "edit_approved",
                exact([("request_id", uuid()), ("decision", is("edited")), ("edited_args", map())]),
            ),
        ),
        message(
            "agents.server.complete",
            "The run is over.",
            envelope(
                "complete",
                open([
                    ("session_id", text()),
                    ("execution_id", uuid()),
                    ("result?", any()),
                    ("success", flag()),
                    ("total_cost?", any()),
                    ("duration_ms?", any()),
                    ("tool_calls?", any()),
                ]),
            ),
        ),
        message(
            "agents.server.subagent_start",
            "Another agent helps.",
            envelope(
                "subagent_start",
                open([
                    ("session_id", text()),
                    ("subagent_id?", any()),
                    ("subagent_type?", any()),
                    ("task?", any()),
                    ("parent_agent?", any()),
                    ("execution_id", uuid()),
                ]),
            ),
        ),
        message(
            "agents.server.subagent_end",
            "It is done.",
            envelope(
                "subagent_end",
                open([
                    ("session_id", text()),
                    ("subagent_id?", any()),
                    ("result?", any()),
                    ("success?", any()),
                    ("duration_ms?", any()),
                    ("error?", any()),
                    ("execution_id", uuid()),
                ]),
            ),
        ),
    ]
}

pub fn decision() -> Schema {
    one_of(["approved", "rejected", "edited", "expired", "cancelled"])
}

pub fn digest() -> Schema {
    super::schema::matching("^[0-9a-f]{40}$")
}

// ---- REST -------------------------------------------------------------------------------------------------------------

pub fn schemas() -> Vec<(&'static str, Schema)> {
    vec![
        (
            "Request",
            exact([
                ("id", uuid()),
                ("session_id", text()),
                ("tool_name", text()),
                ("tool_args", map()),
                ("decision", one_of(["pending", "approved", "rejected", "edited", "expired", "cancelled"])),
                ("edited_args", nullable(map())),
                ("created_at", naive()),
                ("decision_made_at", nullable(naive())),
            ]),
        ),
        (
            "AgentSession",
            exact([
                ("id", text()),
                ("user_id", text()),
                ("wallet_address", nullable(text())),
                ("config", nullable(map())),
                ("created_at", naive()),
                ("last_active", naive()),
                ("status", text()),
            ]),
        ),
        ("ErrorDetail", exact([("error", text()), ("detail", text())])),
    ]
}

pub fn endpoints() -> Vec<Endpoint> {
    let decided = |word| exact([("request_id", uuid()), ("decision", is(word)), ("message", text())]);
    let decides = |endpoint: Endpoint, word| {
        endpoint
            .json(200, "Decided, and shown to the session's sockets.", decided(word))
            .json(400, "It was decided before: by whom, when, and what.", already())
            .json(404, "No such request.", refer("ErrorDetail"))
            .json(422, "What is wrong, and where.", refer("Validation"))
    };
    vec![
        post("/api/v1/agent/execute", "Begins a run; without a session in one that is made for it.")
            .body(open([
                ("command", text()),
                ("session_id?", nullable(text())),
                ("budget_limit_usd?", nullable(number())),
            ]))
            .json(
                200,
                "Stored: a backend will be given it, and the session's sockets hear of it.",
                exact([
                    ("session_id", text()),
                    ("status", is("queued")),
                    ("result", map()),
                    ("total_cost_usd", number()),
                    ("execution_id", uuid()),
                ]),
            )
            .json(404, "No such session.", refer("ErrorDetail"))
            .json(422, "What is wrong, and where.", refer("Validation")),
        get("/api/v1/agent/sessions", "The sessions that the user may use.")
            .query("offset", count(), "")
            .query("limit", within(0, 1000), "")
            .json(
                200,
                "",
                exact([
                    ("sessions", list(refer("AgentSession"))),
                    ("total", count()),
                    ("offset", count()),
                    ("limit", count()),
                ]),
            )
            .json(422, "What is wrong, and where.", refer("Validation")),
        post("/api/v1/agent/sessions", "Makes a session.")
            .body_if_any(open([
                ("id?", nullable(any_uuid())),
                ("wallet_address?", nullable(text())),
                ("config?", nullable(map())),
            ]))
            .json(201, "Made, or there already.", refer("AgentSession"))
            .json(404, "The id is another's.", refer("ErrorDetail"))
            .json(422, "What is wrong, and where.", refer("Validation")),
        get("/api/v1/agent/sessions/{session_id}", "One session.").json(200, "", refer("AgentSession")).json(
            404,
            "No such session.",
            refer("ErrorDetail"),
        ),
        delete("/api/v1/agent/sessions/{session_id}", "Deletes a session: its runs end, what waits is cancelled.")
            .json(200, "", exact([("message", text()), ("session_id", text())]))
            .json(404, "No such session.", refer("ErrorDetail")),
        get("/api/v1/approvals/pending", "What waits for a decision, the oldest first.")
            .query("session_id", text(), "Only of this session.")
            .json(200, "`total` counts them all.", exact([("requests", list(refer("Request"))), ("total", count())])),
        get("/api/v1/approvals/{request_id}", "One request.")
            .json(200, "", refer("Request"))
            .json(404, "No such request.", refer("ErrorDetail"))
            .json(422, "What is wrong, and where.", refer("Validation")),
        decides(post("/api/v1/approvals/{request_id}/approve", "Decides: yes."), "approved"),
        decides(
            post("/api/v1/approvals/{request_id}/reject", "Decides: no.")
                .body_if_any(open([("reason?", nullable(text()))])),
            "rejected",
        ),
        decides(
            post("/api/v1/approvals/{request_id}/edit", "Decides: yes, with other arguments.")
                .body(open([("edited_args", map())])),
            "edited",
        ),
    ]
}

fn already() -> Schema {
    exact([
        ("error", text()),
        ("detail", text()),
        ("decision", decision()),
        ("decided_by", text()),
        ("decided_at", zulu()),
    ])
}
