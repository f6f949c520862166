//! The `tickets` dialect as it is written down: the supervision hub's two sockets and its endpoints.

use super::schema::{
    Schema, any, count, exact, flag, is, list, map, none_of, nullable, number, open, refer, text, text_of, utc, uuid,
};
use super::table::{Channel, Endpoint, Message, get, message, post};

/// The types whose shape is written down here; any other passes through as it is.
pub const TYPES: [&str; 13] = [
    "pong",
    "ack",
    "error",
    "resumed",
    "ticket_created",
    "agent_started",
    "agent_message",
    "tool_execution",
    "agent_question",
    "tool_call",
    "agent_complete",
    "agent_error",
    "status_change",
];

pub fn channels() -> Vec<Channel> {
    let since = "From where it wants to be shown what it missed; without it nothing is said until it speaks.";
    let silent =
        "Nothing is said on connect. An unknown type, and an incomplete `user_response`, are answered with silence.";
    vec![
        Channel::new("tickets.tickets", ["/ws"], silent)
            .query("since", count(), since)
            .says(asked())
            .says(answered())
            .says(events()),
        Channel::new("tickets.logs", ["/ws/logs"], silent)
            .query("since", count(), since)
            .says(asked())
            .says(answered())
            .says(events()),
    ]
}

fn asked() -> [Message; 3] {
    [
        message("tickets.client.ping", "Answered with `pong`.", open([("type", is("ping"))])),
        message(
            "tickets.client.user_response",
            "A user's answer to an agent's session; the last one counts. Neither value may be empty, zero, false or null.",
            open([("type", is("user_response")), ("session_id", truthy()), ("response", truthy())]),
        ),
        message(
            "tickets.client.resume",
            "Asks for what came after a position.",
            open([("type", is("resume")), ("since", count())]),
        ),
    ]
}

/// Anything that is something.
fn truthy() -> Schema {
    serde_json::json!({"not": {"enum": [null, false, 0, "", [], {}]}})
}

fn answered() -> [Message; 4] {
    [
        message("tickets.server.pong", "The answer to a ping.", exact([("type", is("pong"))])),
        message(
            "tickets.server.ack",
            "The response is stored, and a backend will be given it.",
            exact([("type", is("ack")), ("session_id", any()), ("status", is("received"))]),
        ),
        message(
            "tickets.server.error",
            "To the sender: what it said was not understood or not stored.",
            exact([("type", is("error")), ("message", text())]),
        ),
        message(
            "tickets.server.resumed",
            "What comes next is everything after `after`, up to `head` from the past.",
            exact([("type", is("resumed")), ("after", count()), ("head", count())]),
        ),
    ]
}

/// What backends publish, with a time put behind where the type has one. They may say more.
fn events() -> [Message; 10] {
    [
        message(
            "tickets.server.ticket_created",
            "A ticket exists.",
            open([
                ("type", is("ticket_created")),
                ("ticket_id", text()),
                ("ticket_name", text()),
                ("timestamp", text()),
            ]),
        ),
        message(
            "tickets.server.agent_started",
            "An agent has begun with a ticket.",
            open([
                ("type", is("agent_started")),
                ("ticket_id", text()),
                ("ticket_name", text()),
                ("session_id", text()),
                ("timestamp", text()),
            ]),
        ),
        message(
            "tickets.server.agent_message",
            "An agent says or asks something.",
            open([
                ("type", is("agent_message")),
                ("session_id", text()),
                ("ticket_id?", nullable(text())),
                ("content", text()),
                ("timestamp", text()),
                ("turn?", number()),
                ("message_type?", text()),
            ]),
        ),
        message(
            "tickets.server.tool_execution",
            "An agent has used a tool.",
            open([
                ("type", is("tool_execution")),
                ("session_id", text()),
                ("ticket_id?", nullable(text())),
                ("tool_name", text()),
                ("tool_description?", text()),
                ("tool_input?", map()),
                ("tool_output?", text()),
                ("timestamp", text()),
                ("turn?", number()),
            ]),
        ),
        message(
            "tickets.server.agent_question",
            "The older name of an agent's question.",
            open([
                ("type", is("agent_question")),
                ("content", text()),
                ("session_id?", text()),
                ("ticket_id?", nullable(text())),
                ("timestamp", text()),
            ]),
        ),
        message(
            "tickets.server.tool_call",
            "The older name of a tool's use.",
            open([
                ("type", is("tool_call")),
                ("tool_name", text()),
                ("title?", text()),
                ("content?", text()),
                ("output_type?", text()),
                ("session_id?", text()),
                ("timestamp", text()),
            ]),
        ),
        message(
            "tickets.server.agent_complete",
            "A run is over, well or not.",
            open([
                ("type", is("agent_complete")),
                ("job_id", text()),
                ("ticket_id?", nullable(text())),
                ("status?", text()),
            ]),
        ),
        message(
            "tickets.server.agent_error",
            "A run broke.",
            open([("type", is("agent_error")), ("job_id", text()), ("error", text())]),
        ),
        message(
            "tickets.server.status_change",
            "A ticket's state was set; on `/ws/logs`, with the server's own time.",
            open([("type", is("status_change")), ("ticket_id", text()), ("status", text()), ("timestamp", text())]),
        ),
        message(
            "tickets.server.any",
            "Whatever else a backend publishes, as it came.",
            open([("type", none_of(&TYPES))]),
        ),
    ]
}

// ---- HTTP -------------------------------------------------------------------------------------------------------------

pub fn endpoints() -> Vec<Endpoint> {
    vec![
        post("/tickets/create", "Makes a ticket: announced to everybody, and a task for a backend.")
            .body(open([("ticket_name", text()), ("description?", nullable(text()))]))
            .json(
                200,
                "Stored and announced.",
                exact([("ticket_id", uuid()), ("ticket_name", text()), ("job_id", job()), ("status", is("queued"))]),
            )
            .json(400, "The body could not be read.", refer("Detail"))
            .json(422, "What is wrong, and where.", refer("Validation")),
        post("/webhook/notion", "A page has changed: a task for a backend.")
            .body(open([("page_id", text()), ("database_id", text()), ("event_type", text())]))
            .json(200, "Stored.", exact([("job_id", job()), ("status", is("queued")), ("ticket_id", text())]))
            .json(400, "The body could not be read.", refer("Detail"))
            .json(422, "What is wrong, and where.", refer("Validation")),
        get("/jobs/{job_id}", "A job's state; `running` until a backend says otherwise.").json(
            200,
            "",
            exact([("job_id", text()), ("status", text())]),
        ),
        get("/api/tickets", "Tickets, the oldest first.")
            .query("status", text(), "Only these.")
            .query("skip", count(), "")
            .query("limit", count(), "At most 500.")
            .json(200, "`total` counts them all.", exact([("tickets", list(ticket())), ("total", count())])),
        get("/api/stats", "Tickets by state, and who sits there now.").json(
            200,
            "",
            exact([
                ("total", count()),
                ("pending", count()),
                ("running", count()),
                ("completed", count()),
                ("error", count()),
                ("other", count()),
                ("clients", count()),
                ("log_clients", count()),
            ]),
        ),
        get("/api/tickets/{ticket_id}/conversation", "What was said about a ticket.")
            .json(
                200,
                "`truncated`: more was said than is looked through.",
                exact([("ticket_id", text()), ("messages", list(map())), ("truncated", flag())]),
            )
            .json(404, "No such ticket.", refer("Detail")),
        post("/api/tickets/{ticket_id}/status", "Sets a ticket's state, and says so on `/ws/logs`.")
            .needs("status", text_of(64), "The state, in the backend's own word.")
            .json(
                200,
                "Stored.",
                exact([("success", super::schema::always(true)), ("ticket_id", text()), ("status", text())]),
            )
            .json(404, "No such ticket.", refer("Detail"))
            .json(422, "What is wrong, and where.", refer("Validation")),
    ]
}

fn job() -> Schema {
    super::schema::matching("^job-[0-9a-f]{8}$")
}

fn ticket() -> Schema {
    open([
        ("ticket_id", text()),
        ("ticket_name", text()),
        ("description", nullable(text())),
        ("job_id?", nullable(text())),
        ("status", text()),
        ("created_at", utc()),
        ("updated_at", utc()),
    ])
}
