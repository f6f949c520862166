//! The `workflows` dialect as it is written down: the progress pages' sockets, topics, chats, and the HTTP around them.

use super::schema::{
    Schema, any, count, either, exact, is, list, map, map_of, naive, none_of, null, nullable, number, one_of, open,
    put, refer, text, text_of,
};
use super::table::{Channel, Endpoint, Message, get, message, post};

/// The types whose shape is written down here. Whatever else is published or broadcast is shown as it came.
pub const TYPES: [&str; 15] = [
    "info",
    "pong",
    "heartbeat",
    "error",
    "control_response",
    "status",
    "progress",
    "warning",
    "complete",
    "agent_status",
    "coordinator_metrics",
    "compilation_progress",
    "segment_progress",
    "chunk",
    "done",
];

pub fn channels() -> Vec<Channel> {
    let client_id = "The client's own name for itself, under which it is shown what it missed.";
    vec![
        Channel::new(
            "workflows.workflow",
            ["/ws/workflow/{workflow_id}"],
            "One workflow's progress. A returning `client_id` is shown up to 50 messages that it missed, once; without one, \
             those that nobody has seen. An unknown type is answered with silence.",
        )
        .query("client_id", text(), client_id)
        .says([ping(), control(), welcome(), pong(), heartbeat(), failure(), control_response(), status(), progress()])
        .says([room_error(), topic_status(), topic_warning(), topic_complete(), other()]),
        Channel::new(
            "workflows.agent",
            ["/ws/agent/{agent_name}"],
            "One agent's status. What is not understood is answered with silence.",
        )
        .query("client_id", text(), client_id)
        .says([ping(), welcome(), pong(), heartbeat(), failure(), agent(), agent_status(), room_error(), other()]),
        Channel::new(
            "workflows.coordinator",
            ["/ws/coordinator"],
            "The coordinator's numbers and the agents' cards. What is not understood is answered with silence.",
        )
        .query("client_id", text(), client_id)
        .says([ping(), get_metrics(), welcome(), pong(), heartbeat(), failure(), metrics(), room_error(), other()]),
        Channel::new(
            "workflows.topics",
            ["/api/v1/ws/connect"],
            "Topics by subscription; a subscriber is shown a topic's last 100 messages first.",
        )
        .query("client_id", text(), client_id)
        .says(topics_asked())
        .says([welcome(), info(), heartbeat(), failure()])
        .says([topic_progress(), topic_status(), topic_error(), topic_warning(), topic_complete(), other()]),
        Channel::new(
            "workflows.chat",
            ["/api/v1/chat/ws/{thread_id}"],
            "A chat that a backend answers. Nothing is said first, and there is no heartbeat; what is no JSON object ends it.",
        )
        .says(chat()),
    ]
}

// ---- what pages say -----------------------------------------------------------------------------------------------------

fn ping() -> Message {
    message("workflows.client.ping", "Answered with `pong`.", open([("type", is("ping"))]))
}

fn control() -> Message {
    message(
        "workflows.client.control",
        "For whoever runs the workflow. Without a backend the answer is an error.",
        open([("type", is("control")), ("action", one_of(["cancel", "pause", "resume"])), ("workflow_id?", any())]),
    )
}

fn get_metrics() -> Message {
    message(
        "workflows.client.get_metrics",
        "Asks for the newest numbers; silence when nobody knows any.",
        open([("type", is("get_metrics"))]),
    )
}

fn topics_asked() -> [Message; 3] {
    [
        message(
            "workflows.client.subscribe",
            "Joins a topic.",
            open([("action", is("subscribe")), ("topic", text_of(256))]),
        ),
        message(
            "workflows.client.unsubscribe",
            "Leaves a topic; good also when it was never joined.",
            open([("action", is("unsubscribe")), ("topic", text_of(256))]),
        ),
        message("workflows.client.ping.topics", "Answered with the info `pong`.", open([("action", is("ping"))])),
    ]
}

// ---- what the server says in its own name ---------------------------------------------------------------------------------

fn welcome() -> Message {
    message(
        "workflows.server.info",
        "The first frame. `room` is null where rooms are subscribed to.",
        exact([
            ("type", is("info")),
            ("message", is("Connected to ViMax WebSocket server")),
            ("timestamp", naive()),
            ("client_id", text()),
            ("room", nullable(text())),
        ]),
    )
}

fn info() -> Message {
    message(
        "workflows.server.info.topics",
        "Subscribed, unsubscribed, how much of the past follows, or the answer to a ping.",
        exact([("type", is("info")), ("message", text()), ("timestamp?", naive())]),
    )
}

fn pong() -> Message {
    message("workflows.server.pong", "The answer to a ping.", exact([("type", is("pong"))]))
}

fn heartbeat() -> Message {
    message(
        "workflows.server.heartbeat",
        "Every 30 seconds.",
        exact([("type", is("heartbeat")), ("timestamp", naive())]),
    )
}

fn failure() -> Message {
    message(
        "workflows.server.error",
        "To the sender: what it said was not understood or not carried out.",
        exact([("type", is("error")), ("message", text())]),
    )
}

fn control_response() -> Message {
    message(
        "workflows.server.control_response",
        "What becomes of a control action.",
        exact([
            ("type", is("control_response")),
            ("action", one_of(["cancel", "pause", "resume"])),
            ("status", one_of(["success", "not_implemented"])),
            ("message", text()),
        ]),
    )
}

fn status() -> Message {
    message(
        "workflows.server.status",
        "On connect, when something is known of the workflow or somebody would know.",
        exact([
            ("type", is("status")),
            ("workflow_id", text()),
            (
                "status",
                either([
                    exact([("state", is("pending")), ("message", text())]),
                    exact([
                        ("workflow_id", text()),
                        ("state", any()),
                        ("progress", any()),
                        ("started_at", any()),
                        ("completed_at", any()),
                        ("duration", any()),
                        ("task_states", any()),
                        ("completed_tasks", any()),
                        ("failed_tasks", any()),
                        ("errors", any()),
                    ]),
                ]),
            ),
        ]),
    )
}

fn agent() -> Message {
    message(
        "workflows.server.agent_status.connect",
        "On connect, when the agent is known; here `status` is an object.",
        exact([
            ("type", is("agent_status")),
            ("agent_name", text()),
            ("status", exact([("name", text()), ("status", any()), ("registered_at", any()), ("metrics", any())])),
        ]),
    )
}

// ---- what is published; a publisher's own fields win over the defaults, and more may stand behind them ----------------------

fn progress() -> Message {
    message(
        "workflows.server.progress",
        "How far the workflow is; `progress` from 0 to 1.",
        open([
            ("type", is("progress")),
            ("workflow_id", text()),
            ("timestamp", text()),
            ("state", text()),
            ("progress", number()),
            ("stage", either([text(), number(), null()])),
            ("message", nullable(text())),
            ("details", nullable(map())),
        ]),
    )
}

fn room_error() -> Message {
    message(
        "workflows.server.error.room",
        "Something went wrong in what the room is about.",
        open([
            ("type", is("error")),
            ("target_type", one_of(["workflow", "agent", "coordinator"])),
            ("target_id", text()),
            ("message", text()),
            ("error_type", text()),
            ("retryable", super::schema::flag()),
            ("details", nullable(map())),
            ("timestamp", text()),
        ]),
    )
}

fn agent_status() -> Message {
    message(
        "workflows.server.agent_status",
        "What the agent is at; here `status` is a word.",
        open([
            ("type", is("agent_status")),
            ("agent_name", text()),
            ("timestamp", text()),
            ("status", text()),
            ("metrics", nullable(map())),
        ]),
    )
}

fn metrics() -> Message {
    let mut payload = open([
        ("type", is("coordinator_metrics")),
        ("timestamp?", text()),
        ("total_messages", any()),
        ("total_workflows", any()),
        ("registered_agents", any()),
        ("healthy_agents", any()),
        ("active_workflows", any()),
        ("queue_size", any()),
        ("dead_letters", any()),
        (
            "metrics",
            open([
                ("total_agents", any()),
                ("active_workflows", any()),
                ("completed_workflows", any()),
                ("failed_workflows", any()),
                ("agents", list(card())),
            ]),
        ),
    ]);
    put(
        &mut payload,
        "description",
        "Flat as its program counts, and nested as the page reads; no time on connect.".into(),
    );
    message(
        "workflows.server.coordinator_metrics",
        "The newest numbers: on connect, when asked, and when they change.",
        payload,
    )
}

fn card() -> Schema {
    open([
        ("status", text()),
        ("capabilities", list(any())),
        (
            "metrics",
            open([
                ("tasks_completed", any()),
                ("tasks_failed", any()),
                ("avg_response_time", any()),
                ("uptime", any()),
            ]),
        ),
    ])
}

/// A program that publishes over the backend protocol is given the fields that it leaves out; what is posted to a topic is
/// shown as it is, with a time.
fn topic_progress() -> Message {
    message(
        "workflows.server.progress.topic",
        "Of a topic; `percentage` from 0 to 1.",
        open([
            ("type", is("progress")),
            ("percentage?", number()),
            ("message?", nullable(text())),
            ("details?", nullable(map())),
            ("timestamp", text()),
        ]),
    )
}

fn topic_status() -> Message {
    message(
        "workflows.server.status.topic",
        "Of a topic or a workflow.",
        open([
            ("type", is("status")),
            ("status?", text()),
            ("message?", nullable(text())),
            ("details?", nullable(map())),
            ("timestamp", text()),
        ]),
    )
}

fn topic_error() -> Message {
    message(
        "workflows.server.error.topic",
        "Of a topic.",
        open([
            ("type", is("error")),
            ("message?", nullable(text())),
            ("details?", nullable(map())),
            ("timestamp", text()),
        ]),
    )
}

fn topic_warning() -> Message {
    message(
        "workflows.server.warning",
        "Of a topic or a workflow.",
        open([
            ("type", is("warning")),
            ("message?", nullable(text())),
            ("details?", nullable(map())),
            ("timestamp", text()),
        ]),
    )
}

fn topic_complete() -> Message {
    message(
        "workflows.server.complete",
        "Of a topic or a workflow.",
        open([("type", is("complete")), ("message?", nullable(text())), ("result?", any()), ("timestamp", text())]),
    )
}

fn other() -> Message {
    message(
        "workflows.server.any",
        "Whatever else is published, and every broadcast, as it came. A broadcast that borrows one of the types above is its \
         sender's own business.",
        open([("type?", either([none_of(&TYPES), number(), map(), list(any()), null()]))]),
    )
}

fn chat() -> [Message; 4] {
    [
        message(
            "workflows.client.message",
            "For whoever answers chats. Without a message it is ignored.",
            open([
                ("message", super::schema::text_of(crate::limits::MESSAGE_BYTES_CEILING)),
                ("temperature?", number()),
            ]),
        ),
        message("workflows.server.chunk", "A piece of the answer.", open([("type", is("chunk")), ("content", text())])),
        message("workflows.server.done", "The answer is complete.", open([("type", is("done"))])),
        message("workflows.server.error.chat", "There is no answer.", open([("type", is("error")), ("error", text())])),
    ]
}

// ---- HTTP -------------------------------------------------------------------------------------------------------------

pub fn schemas() -> Vec<(&'static str, Schema)> {
    vec![(
        "Stats",
        exact([
            ("total_connections", count()),
            ("total_rooms", count()),
            ("total_subscriptions", count()),
            ("rooms", list(text())),
            ("room_client_count", map_of(count())),
            ("topics", list(text())),
            ("topic_subscriber_count", map_of(count())),
        ]),
    )]
}

pub fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/api/v1/ws/stats", "Who is connected, by room and topic.").json(200, "", refer("Stats")),
        get("/ws/stats", "The same, and how many messages wait for pages that are away.").json(
            200,
            "",
            exact([
                ("websocket", refer("Stats")),
                (
                    "broadcaster",
                    exact([
                        ("workflow_subscriptions", count()),
                        ("agent_subscriptions", count()),
                        ("total_agent_rooms", count()),
                        ("buffered_rooms", count()),
                        ("total_buffered_messages", count()),
                        ("workflows", list(text())),
                        ("agents", list(text())),
                    ]),
                ),
            ]),
        ),
        get("/ws/client/{client_id}", "One client.")
            .json(
                200,
                "It is connected.",
                exact([
                    ("client_id", text()),
                    ("connected", super::schema::always(true)),
                    ("rooms", list(text())),
                    ("subscriptions", list(text())),
                    (
                        "metadata",
                        exact([
                            ("type", one_of(["workflow", "agent", "coordinator", "topics"])),
                            ("workflow_id?", text()),
                            ("agent_name?", text()),
                            ("connected_at", naive()),
                        ]),
                    ),
                ]),
            )
            .json(404, "It is not.", refer("Detail")),
        post("/api/v1/ws/broadcast", "Shows an object to everybody, as it is.")
            .body(map())
            .json(200, "Stored, and on its way.", exact([("message", is("Broadcast sent")), ("recipients", count())]))
            .json(422, "What is wrong, and where.", refer("Validation")),
        post(
            "/api/v1/ws/publish/{topic}",
            "Shows an object to a topic's subscribers, and keeps it for those who come.",
        )
        .body(map())
        .json(
            200,
            "Stored, and on its way.",
            exact([("message", is("Message published")), ("topic", text()), ("subscribers", count())]),
        )
        .json(422, "What is wrong, and where.", refer("Validation")),
    ]
}
