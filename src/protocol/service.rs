//! The server's own endpoints as they are written down.

use super::schema::{Schema, either, exact, is, list, map, naive, one_of, open, text, zulu};
use super::table::{Endpoint, Guard, PLAIN, get};
use crate::dialect::Name;

const HEALTH: &str = "On a listener that serves one dialect only, what its application answered.";

pub fn endpoints() -> Vec<Endpoint> {
    let endpoints = vec![
        get("/", "What answers here.").json(
            200,
            "On a listener that serves tickets or agents only, what their application answered.",
            either([
                open([
                    ("name", is("commitcast")),
                    ("version", text()),
                    ("dialects", list(one_of(Name::ALL.map(Name::as_str)))),
                    ("health", text()),
                    ("ready", text()),
                    ("metrics", text()),
                ]),
                open([("status", is("ok")), ("service", text()), ("note", text())]),
                open([("name", text()), ("version", text()), ("docs", text()), ("redoc", text()), ("openapi", text())]),
            ]),
        ),
        get("/health", "Is it well, and what is it?").json(200, HEALTH, health()).json(503, HEALTH, health()),
        get("/healthz", "Is it alive?").says(200, "", PLAIN, is("ok\n")),
        get("/readyz", "Is it ready?").says(200, "", PLAIN, is("ready\n")).says(503, "Why not.", PLAIN, text()),
        get("/metrics", "What it counts.").says(
            200,
            "OpenMetrics.",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            text(),
        ),
        get("/api/v1/metrics", "The agents' counters under the names of their application.").says(
            200,
            "Prometheus' older text form.",
            "text/plain; version=0.0.4; charset=utf-8",
            text(),
        ),
        get("/openapi.json", "This document.").json(200, "OpenAPI 3.1.", map()),
        get("/asyncapi.json", "Every socket and message.").json(200, "AsyncAPI 3.0.", map()),
    ];
    endpoints.into_iter().map(|endpoint| endpoint.of(Guard::Everybody)).collect()
}

fn health() -> Schema {
    let status = || one_of(["healthy", "draining", "unhealthy"]);
    let database = || one_of(["connected", "failed"]);
    either([
        exact([
            ("status", status()),
            ("service", is("commitcast")),
            ("version", text()),
            ("timestamp", zulu()),
            ("database", database()),
            ("environment", text()),
            ("durability", one_of(["full", "normal"])),
        ]),
        exact([("status", status()), ("version", text()), ("timestamp", naive()), ("database", database())]),
        exact([("status", one_of(["ok", "draining", "unhealthy"])), ("service", text())]),
        exact([("status", status()), ("version", text()), ("environment", text())]),
    ])
}
