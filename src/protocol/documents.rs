//! The `documents` dialect as it is written down: the prompt editor's sockets and REST API.

use super::schema::{
    Schema, always, any, count, either, exact, flag, is, list, map_of, naive, nullable, one_of, open, refer, text,
    text_of, utc, within, zulu,
};
use super::table::{Channel, Endpoint, Message, delete, get, message, plain, post, put};
use crate::limits::OP_ID_BYTES_MAX;

pub fn channels() -> Vec<Channel> {
    vec![
        Channel::new(
            "documents.prompt",
            [
                "/ws/prompts/{prompt_id}",
                "/ws/prompts/fragments/{prompt_id}",
                "/api/prompts/ws/{prompt_id}",
                "/api/prompts/ws/fragments/{prompt_id}",
                "/api/ws/prompts/{prompt_id}",
                "/api/ws/prompts/fragments/{prompt_id}",
            ],
            "One prompt's editors. The first frame is `initial`; whoever writes is told `update_status` once it is saved, the \
             others are shown the change. An unknown action is answered with silence.",
        )
        .says(asked())
        .says(answered()),
        Channel::new(
            "documents.echo",
            ["/api/ws/test", "/api/debug/api/ws/test"],
            "Echoes what it is sent, and hears of every prompt that comes, changes or goes.",
        )
        .says([
            any_text(),
            plain("documents.server.greeting", "The first frame.", is("WebSocket test connection successful")),
            echo(),
            error(),
        ])
        .says(announcements()),
        Channel::new(
            "documents.one_shot",
            ["/api/debug/ws/test"],
            "Answers one message and closes with code 1000.",
        )
        .says([
            any_text(),
            plain("documents.server.greeting.one_shot", "The first frame.", is("WebSocket connection successful")),
            echo(),
            error(),
        ]),
    ]
}

fn asked() -> [Message; 5] {
    [
        message(
            "documents.client.update",
            "Replaces the content. Without a content it is ignored.",
            open([("action", is("update")), ("content", text()), ("id?", operation())]),
        ),
        message(
            "documents.client.update_metadata",
            "Replaces description, tags, or both; what is absent or null is left alone.",
            open([
                ("action", is("update_metadata")),
                ("description?", nullable(text())),
                ("tags?", nullable(list(text()))),
                ("id?", operation()),
            ]),
        ),
        message(
            "documents.client.expand",
            "Asks for a content with its inclusions put in. Nothing is saved.",
            open([("action", is("expand")), ("content", text()), ("prompt_id?", any())]),
        ),
        message(
            "documents.client.expand_prompt",
            "The same; without a content it takes the stored one.",
            open([("action", is("expand_prompt")), ("content?", nullable(text()))]),
        ),
        message(
            "documents.client.get_details",
            "Asks for everything about the prompt.",
            open([("action", is("get_details"))]),
        ),
    ]
}

fn answered() -> [Message; 7] {
    [
        message(
            "documents.server.initial",
            "The first frame: the prompt as it is saved.",
            exact([
                ("action", is("initial")),
                ("content", text()),
                ("description", nullable(text())),
                ("tags", list(text())),
                ("is_composite", flag()),
                ("prompt_type", prompt_type()),
                ("updated_at", utc()),
            ]),
        ),
        message(
            "documents.server.update",
            "Somebody else's change, saved. With description and tags when the prompt was made anew.",
            exact([
                ("action", is("update")),
                ("content", text()),
                ("description?", nullable(text())),
                ("tags?", list(text())),
                ("timestamp", utc()),
            ]),
        ),
        message(
            "documents.server.update_metadata",
            "Somebody else's change, saved: what was asked for, null for what was left alone.",
            exact([
                ("action", is("update_metadata")),
                ("description", nullable(text())),
                ("tags", nullable(list(text()))),
                ("timestamp", utc()),
            ]),
        ),
        message(
            "documents.server.update_status",
            "What became of the sender's own change; `id`, `seq` and `dup` when it named it.",
            either([
                exact([
                    ("action", is("update_status")),
                    ("success", always(true)),
                    ("timestamp", utc()),
                    ("id?", text_of(OP_ID_BYTES_MAX)),
                    ("seq?", count()),
                    ("dup?", always(true)),
                ]),
                exact([
                    ("action", is("update_status")),
                    ("success", always(false)),
                    ("error", text()),
                    ("id?", text_of(OP_ID_BYTES_MAX)),
                ]),
            ]),
        ),
        message(
            "documents.server.expanded",
            "The answer to an expansion.",
            exact([
                ("action", is("expanded")),
                ("content", text()),
                ("expanded", text()),
                ("dependencies", list(text())),
                ("warnings", list(text())),
            ]),
        ),
        message(
            "documents.server.details",
            "The answer to `get_details`.",
            exact([
                ("action", is("details")),
                ("id", text()),
                ("name", text()),
                ("directory", text()),
                ("content", text()),
                ("description", nullable(text())),
                ("tags", list(text())),
                ("is_composite", flag()),
                ("prompt_type", prompt_type()),
                ("created_at", utc()),
                ("updated_at", utc()),
                ("unique_id", text()),
                ("dependencies", list(dependency())),
                ("warnings", list(text())),
            ]),
        ),
        error(),
    ]
}

fn any_text() -> Message {
    plain("documents.client.echo", "Any text.", text())
}

fn echo() -> Message {
    message(
        "documents.server.echo",
        "What was sent; the time is the server's own, without a zone.",
        exact([
            ("received", text()),
            ("counter", within(1, u64::MAX)),
            ("timestamp", naive()),
            ("message", is("WebSocket echo test")),
        ]),
    )
}

fn error() -> Message {
    message(
        "documents.server.error",
        "The message made no sense, or could not be carried out.",
        exact([("action", is("error")), ("message", text())]),
    )
}

fn announcements() -> [Message; 3] {
    let said = |word| exact([("type", is(word)), ("id", text()), ("timestamp", utc())]);
    [
        message("documents.server.prompt_created", "A prompt was made.", said("prompt_created")),
        message("documents.server.prompt_updated", "A prompt was changed.", said("prompt_updated")),
        message("documents.server.prompt_deleted", "A prompt is gone.", said("prompt_deleted")),
    ]
}

/// The client's own name for a write, which makes sending it again harmless.
fn operation() -> Schema {
    nullable(text_of(OP_ID_BYTES_MAX))
}

fn prompt_type() -> Schema {
    one_of(["standard", "composite"])
}

fn dependency() -> Schema {
    exact([("id", text()), ("is_missing", flag())])
}

// ---- REST -------------------------------------------------------------------------------------------------------------

pub fn schemas() -> Vec<(&'static str, Schema)> {
    vec![("Prompt", prompt())]
}

pub fn endpoints() -> Vec<Endpoint> {
    let moved = "The same under its newer path.";
    let fragment = |endpoint: Endpoint| endpoint.empty(307, moved).with("Location", "The newer path.");
    vec![
        get("/api/debug/websocket-check", "What this server knows of the request: asked when a socket fails.").json(
            200,
            "Credentials are hidden.",
            exact([
                ("server_supports_websocket", always(true)),
                ("server_version", text()),
                ("client_headers", map_of(text())),
                ("client_appears_to_support_websocket", flag()),
                ("cors_mode", text()),
                ("remote_addr", text()),
                ("base_url", text()),
            ]),
        ),
        get("/api/prompts/all", "All prompts.").json(
            200,
            "With `display_name` and `directory_name`.",
            list(refer("Prompt")),
        ),
        post("/api/prompts", "The same with a slash at the end.").empty(307, moved).with("Location", "`/api/prompts/`"),
        post("/api/prompts/", "Makes a prompt, by name (201) or, as the older clients do, by id (200).")
            .body(either([
                open([
                    ("name", text()),
                    ("directory?", nullable(text())),
                    ("content?", nullable(text())),
                    ("description?", nullable(text())),
                    ("tags?", nullable(list(text()))),
                ]),
                open([
                    ("id", text()),
                    ("directory?", nullable(text())),
                    ("content?", nullable(text())),
                    ("description?", nullable(text())),
                    ("tags?", nullable(list(text()))),
                ]),
            ]))
            .json(200, "Made, by id.", refer("Prompt"))
            .json(201, "Made, by name; spaces in it became underscores.", refer("Prompt"))
            .json(400, "There is one already, or the directory is none of the configured ones.", refer("Detail"))
            .json(422, "What is wrong, and where.", refer("Validation")),
        post("/api/prompts/expand", "A prompt's content, or the one that is sent, with its inclusions put in.")
            .body(either([
                open([("content", text()), ("prompt_id?", nullable(text())), ("directory?", nullable(text()))]),
                open([("prompt_id", text()), ("directory?", nullable(text()))]),
            ]))
            .json(
                200,
                "In the words of both generations.",
                exact([
                    ("prompt_id", nullable(text())),
                    ("original_content", text()),
                    ("expanded_content", text()),
                    ("content", text()),
                    ("expanded", text()),
                    ("dependencies", list(text())),
                    ("warnings", list(text())),
                ]),
            )
            .json(404, "No such prompt.", refer("Detail"))
            .json(422, "What is wrong, and where.", refer("Validation")),
        post("/api/prompts/rename", "Gives a prompt another name, and with it another id.")
            .body(either([
                open([
                    ("old_id", text()),
                    ("new_name", text()),
                    ("content?", nullable(text())),
                    ("description?", nullable(text())),
                    ("tags?", nullable(list(text()))),
                ]),
                open([("old_id", text()), ("new_id", text())]),
            ]))
            .json(
                200,
                "The prompt; to the older clients, which send `new_id`, the two ids.",
                either([
                    refer("Prompt"),
                    exact([("success", always(true)), ("old_id", text()), ("new_id", text()), ("message", text())]),
                ]),
            )
            .json(400, "The directory is none of the configured ones.", refer("Detail"))
            .json(404, "No such prompt.", refer("Detail"))
            .json(409, "The new id is taken.", refer("Detail"))
            .json(422, "What is wrong, and where.", refer("Validation")),
        post("/api/prompts/reload", "Reads the document directories again.").json(
            200,
            "How many prompts there are.",
            exact([("message", text()), ("count", count())]),
        ),
        get("/api/prompts/search_suggestions", "Prompts whose id holds a text, at most 50.")
            .query("query", text(), "Upper and lower case are the same.")
            .query("exclude", text(), "An id to leave out.")
            .json(200, "", list(exact([("id", text()), ("display_name", text())]))),
        get("/api/prompts/directories/all", "The document directories.").json(
            200,
            "The configured ones; without any, those that prompts are labelled with.",
            list(exact([("path", text()), ("name", text()), ("description", text()), ("enabled", flag())])),
        ),
        get("/api/prompts/check_exists/{prompt_id}", "Is there such a prompt?").json(
            200,
            "",
            exact([("exists", flag()), ("id", text())]),
        ),
        get("/api/prompts/{prompt_id}/referenced_by", "The prompts that include this one.").json(
            200,
            "None for an unknown prompt.",
            list(exact([("id", text()), ("description", nullable(text())), ("directory", text())])),
        ),
        get("/api/prompts/{prompt_id}", "One prompt.")
            .query("directory", text(), "Which one, where several have the name.")
            .json(200, "With what it includes.", refer("Prompt"))
            .json(404, "No such prompt.", refer("Detail")),
        put("/api/prompts/{prompt_id}", "Replaces content, description, tags, or any of them.")
            .body(open([
                ("content?", nullable(text())),
                ("description?", nullable(text())),
                ("tags?", nullable(list(text()))),
            ]))
            .json(200, "Saved, and shown to its sockets.", refer("Prompt"))
            .json(404, "No such prompt.", refer("Detail"))
            .json(422, "What is wrong, and where.", refer("Validation")),
        delete("/api/prompts/{prompt_id}", "Deletes a prompt.")
            .json(200, "", exact([("message", text()), ("success", always(true)), ("id", text())]))
            .json(404, "No such prompt.", refer("Detail")),
        fragment(post("/api/prompts/fragments", "The older name of `/api/prompts/`.")),
        fragment(get("/api/prompts/fragments/{prompt_id}", "Fragments are prompts.")),
        fragment(put("/api/prompts/fragments/{prompt_id}", "Fragments are prompts.")),
        fragment(post("/api/prompts/fragments/{prompt_id}", "Fragments are prompts.")),
        fragment(delete("/api/prompts/fragments/{prompt_id}", "Fragments are prompts.")),
    ]
}

fn prompt() -> Schema {
    exact([
        ("id", text()),
        ("name", text()),
        ("filename", text()),
        ("directory", text()),
        ("content", text()),
        ("description", nullable(text())),
        ("tags", list(text())),
        ("created_at", zulu()),
        ("updated_at", zulu()),
        ("unique_id", text()),
        ("display_name?", text()),
        ("directory_info?", exact([("name", text()), ("path", text())])),
        ("dependencies?", list(dependency())),
        ("warnings?", list(text())),
        ("directory_name?", text()),
        ("sanitized_message?", text()),
    ])
}
