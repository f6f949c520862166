//! The tables as an OpenAPI 3.1 document.

use serde_json::{Map, Value, json};

use super::schema::{any, exact, list, number, one_of, open, put, refer, text};
use super::table::{Answer, Endpoint, Guard, JSON, PROBLEM, Parameter, Place};
use super::{TAGS, agents, backend, documents, workflows};
use crate::http::Reason;
use crate::limits::BODY_BYTES_MAX;

pub fn document() -> Value {
    let mut paths = Map::new();
    for (tag, endpoints) in super::endpoints() {
        for endpoint in endpoints {
            let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
            put(path, endpoint.method, operation(tag, &endpoint));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "commitcast",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "A realtime room server: nobody is ever shown a change that is not already saved.",
            "description": format!(
                "Every endpoint. A listener may serve some of the dialects only; the paths of the others are 404 there. \
                 Wherever GET is answered, HEAD is too, except for `/v1/tasks`. A request body is at most {BODY_BYTES_MAX} \
                 bytes and bears a Content-Length. Sockets are described in `/asyncapi.json`."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "This server."}],
        "tags": TAGS
            .iter()
            .filter(|(name, _)| *name != "native")
            .map(|(name, about)| json!({"name": name, "description": about}))
            .collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "responses": {"Problem": {
                "description": "Refused at the door, or not stored. `X-WS-Reject` says the code too.",
                "headers": {"X-WS-Reject": {"schema": text()}, "X-WebSocket-Reject-Reason": {"schema": text()}},
                "content": {PROBLEM: {"schema": refer("Problem")}, JSON: {"schema": refer("Detail")}},
            }},
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "A user's token. Needed in token mode; a configured cookie will do as well.",
                },
                "query_token": {
                    "type": "apiKey",
                    "in": "query",
                    "name": "token",
                    "description": "The same, unless the configuration forbids it.",
                },
                "key": {"type": "http", "scheme": "bearer", "description": "A backend's API key."},
                "key_header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same."},
            },
        },
        "externalDocs": {"url": "/asyncapi.json", "description": "Every socket and message."},
    })
}

fn schemas() -> Map<String, Value> {
    let own = [("Problem", problem()), ("Detail", exact([("detail", text())])), ("Validation", validation())];
    [documents::schemas(), workflows::schemas(), agents::schemas(), backend::schemas(), own.into()]
        .concat()
        .into_iter()
        .map(|(name, schema)| (name.to_owned(), schema))
        .collect()
}

/// RFC 9457; the codes are those of the one table of refusals.
fn problem() -> Value {
    exact([
        ("type", super::schema::is("about:blank")),
        ("title", text()),
        ("status", super::schema::within(400, 599)),
        ("code", one_of(Reason::ALL.map(|reason| reason.row().name))),
        ("detail", text()),
        ("hint", text()),
    ])
}

/// As FastAPI words it.
fn validation() -> Value {
    exact([(
        "detail",
        list(open([
            ("type", text()),
            ("loc", list(json!({"anyOf": [text(), number()]}))),
            ("msg", text()),
            ("input?", any()),
            ("ctx?", any()),
        ])),
    )])
}

fn operation(tag: &str, endpoint: &Endpoint) -> Value {
    let mut responses: Map<String, Value> =
        endpoint.answers.iter().map(|answer| (answer.status.to_string(), response(answer))).collect();
    if endpoint.guard != Guard::Everybody {
        responses.insert("default".to_owned(), json!({"$ref": "#/components/responses/Problem"}));
    }
    let mut operation = json!({
        "operationId": operation_id(tag, endpoint),
        "tags": [tag],
        "summary": endpoint.summary,
        "responses": responses,
        "security": security(endpoint.guard),
    });
    if !endpoint.parameters.is_empty() {
        put(&mut operation, "parameters", endpoint.parameters.iter().map(parameter).collect());
    }
    if let Some(body) = &endpoint.body {
        let body = json!({"required": body.required, "content": {body.media: {"schema": body.schema}}});
        put(&mut operation, "requestBody", body);
    }
    operation
}

/// `documents_get_api_prompts_by_prompt_id`
fn operation_id(tag: &str, endpoint: &Endpoint) -> String {
    let words = endpoint.path.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '{');
    let path: Vec<String> = words.filter(|word| !word.is_empty()).map(|word| word.replace('{', "by_")).collect();
    let end = if endpoint.path.len() > 1 && endpoint.path.ends_with('/') { "_" } else { "" };
    format!("{tag}_{}_{}{end}", endpoint.method, path.join("_"))
}

fn parameter(parameter: &Parameter) -> Value {
    let place = match parameter.place {
        Place::Path => "path",
        Place::Query => "query",
        Place::Header => "header",
    };
    let mut written = json!({
        "name": parameter.name,
        "in": place,
        "required": parameter.required,
        "schema": parameter.schema,
    });
    if !parameter.summary.is_empty() {
        put(&mut written, "description", parameter.summary.into());
    }
    written
}

fn response(answer: &Answer) -> Value {
    let summary = if answer.summary.is_empty() { "As asked." } else { answer.summary };
    let mut written = json!({"description": summary});
    if let Some((media, schema)) = &answer.content {
        put(&mut written, "content", json!({*media: {"schema": schema}}));
    }
    if !answer.headers.is_empty() {
        let headers: Map<String, Value> = answer
            .headers
            .iter()
            .map(|(name, about)| ((*name).to_owned(), json!({"description": about, "schema": text()})))
            .collect();
        put(&mut written, "headers", Value::Object(headers));
    }
    written
}

/// The empty one: in debug and open mode nobody is asked.
fn security(guard: Guard) -> Value {
    match guard {
        Guard::Everybody => json!([]),
        Guard::User | Guard::Native => json!([{"token": []}, {"query_token": []}, {}]),
        Guard::Backend => json!([{"key": []}, {"key_header": []}, {}]),
    }
}
