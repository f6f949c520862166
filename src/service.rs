//! The server's own endpoints: what is it, is it alive, is it ready, what does it count.
//!
//! On a listener restricted to one dialect `/health` and `/` are what the application answered that the dialect stands in
//! for, key by key, its version included: scripts that wait for it compare bodies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::tz::TimeZone;

use crate::admission::{Served, Service};
use crate::clock::{Mono, Wall};
use crate::dialect::{Name, time};
use crate::http::Response;
use crate::limits::COMMIT_SLOW;
use crate::metrics::Metrics;
use crate::panics::Panics;
use crate::protocol;
use crate::store::Pulse;

/// What all threads know of the process as a whole.
#[derive(Debug)]
pub struct Status {
    pub metrics: Arc<Metrics>,
    pub pulse: Arc<Pulse>,
    pub panics: Panics,
    /// `full` or `normal`: an explicit choice that is admitted to.
    pub durability: &'static str,
    /// `debug`, `open` or `production`.
    pub environment: &'static str,
    draining: AtomicBool,
    store_broken: AtomicBool,
}

impl Status {
    pub fn new(
        metrics: Arc<Metrics>,
        pulse: Arc<Pulse>,
        durability: &'static str,
        environment: &'static str,
    ) -> Status {
        Status {
            metrics,
            pulse,
            panics: Panics::default(),
            durability,
            environment,
            draining: AtomicBool::new(false),
            store_broken: AtomicBool::new(false),
        }
    }

    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub fn store_broke(&self) {
        self.store_broken.store(true, Ordering::Release);
    }

    pub fn store_is_broken(&self) -> bool {
        self.store_broken.load(Ordering::Acquire)
    }

    pub fn answer(&self, service: Service, now: (Mono, Wall)) -> Response {
        match service {
            Service::Live => Response::text(200, "ok\n"),
            Service::Ready => match self.unready(now.0) {
                None => Response::text(200, "ready\n"),
                Some(why) => Response::text(503, format!("{why}\n")),
            },
            Service::Root(served) => root(served),
            Service::Health(served) => self.health(served, now),
            Service::AgentsMetrics => self.agents_metrics(),
            Service::OpenApi => Response::json(200, protocol::openapi()),
            Service::AsyncApi => Response::json(200, protocol::asyncapi()),
            Service::Metrics => {
                let mut response = Response::text(200, self.metrics.text());
                response.content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                response
            }
        }
    }

    fn unready(&self, now: Mono) -> Option<&'static str> {
        if self.store_is_broken() {
            Some("the store has failed")
        } else if self.pulse.age(now) > COMMIT_SLOW {
            Some("a commit takes too long")
        } else if self.is_draining() {
            Some("draining")
        } else {
            None
        }
    }

    /// A superset of what the four applications answered, or on a listener of one of them its own.
    fn health(&self, served: Served, now: (Mono, Wall)) -> Response {
        let (status, database) = match self.unready(now.0) {
            None => ("healthy", "connected"),
            Some("draining") => ("draining", "connected"),
            Some(_) => ("unhealthy", "failed"),
        };
        let body = match served.only() {
            Some(Name::Workflows) => {
                let timestamp = time::naive(now.1, &TimeZone::system());
                format!(
                    "{{\"status\":\"{status}\",\"version\":\"3.0.0\",\"timestamp\":\"{timestamp}\",\
                     \"database\":\"{database}\"}}"
                )
            }
            Some(Name::Tickets) => {
                let status = if status == "healthy" { "ok" } else { status };
                format!("{{\"status\":\"{status}\",\"service\":\"{TICKETS_SERVICE}\"}}")
            }
            Some(Name::Agents) => {
                let environment = if self.environment == "production" { "production" } else { "development" };
                format!("{{\"status\":\"{status}\",\"version\":\"0.1.0\",\"environment\":\"{environment}\"}}")
            }
            Some(Name::Documents | Name::Native) | None => {
                let timestamp = jiff::Timestamp::from_microsecond(now.1.0).map(|at| at.to_string()).unwrap_or_default();
                format!(
                    "{{\"status\":\"{status}\",\"service\":\"commitcast\",\"version\":\"{}\",\
                     \"timestamp\":\"{timestamp}\",\"database\":\"{database}\",\"environment\":\"{}\",\
                     \"durability\":\"{}\"}}",
                    env!("CARGO_PKG_VERSION"),
                    self.environment,
                    self.durability,
                )
            }
        };
        Response::json(if status == "unhealthy" { 503 } else { 200 }, body)
    }

    /// In Prometheus' older text form, which the application spoke.
    fn agents_metrics(&self) -> Response {
        let counts = &self.metrics.agents;
        let mut text = String::new();
        for (name, what, counter) in [
            ("connections", "WebSocket connections opened", &counts.sockets),
            ("messages_received", "WebSocket messages received", &counts.messages_in),
            ("messages_sent", "WebSocket messages sent", &counts.messages_out),
        ] {
            let name = format!("paygent_websocket_{name}_total");
            text.push_str(&format!("# HELP {name} {what}\n# TYPE {name} counter\n{name} {}\n", counter.get()));
        }
        let mut response = Response::text(200, text);
        response.content_type = "text/plain; version=0.0.4; charset=utf-8";
        response
    }
}

/// What the tickets' application called itself.
const TICKETS_SERVICE: &str = "agent-sdk-webhook-server";

/// Whoever opens the bare address learns what this is and where to go on.
fn root(served: Served) -> Response {
    let body = match served.only() {
        // The application's page is not ours to serve; this is what it answered without one.
        Some(Name::Tickets) => {
            format!("{{\"status\":\"ok\",\"service\":\"{TICKETS_SERVICE}\",\"note\":\"Frontend not found\"}}")
        }
        Some(Name::Agents) => "{\"name\":\"Paygent\",\"version\":\"0.1.0\",\"docs\":\"/docs\",\"redoc\":\"/redoc\",\
             \"openapi\":\"/openapi.json\"}"
            .to_owned(),
        _ => {
            let names: Vec<String> = served.names().map(|name| format!("\"{}\"", name.as_str())).collect();
            let native = match served.has(Name::Native) {
                true => ",\"connect\":\"/v1/connect\",\"backend\":\"/v1/backend\"",
                false => "",
            };
            format!(
                "{{\"name\":\"commitcast\",\"version\":\"{}\",\"dialects\":[{}],\"health\":\"/health\",\
                 \"ready\":\"/readyz\",\"metrics\":\"/metrics\",\"openapi\":\"/openapi.json\",\
                 \"asyncapi\":\"/asyncapi.json\"{native}}}",
                env!("CARGO_PKG_VERSION"),
                names.join(",")
            )
        }
    };
    Response::json(200, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: (Mono, Wall) = (Mono(0), Wall(1_747_101_540_123_456));

    fn status(environment: &'static str) -> Status {
        Status::new(Arc::default(), Arc::default(), "full", environment)
    }

    fn answer(status: &Status, service: Service) -> (u16, String) {
        let response = status.answer(service, NOW);
        (response.status, String::from_utf8_lossy(&response.body).into_owned())
    }

    #[test]
    fn health_is_the_shape_of_the_one_dialect_that_is_served() {
        let local = time::naive(NOW.1, &TimeZone::system());
        let workflows =
            format!(r#"{{"status":"healthy","version":"3.0.0","timestamp":"{local}","database":"connected"}}"#);
        let all = format!(
            r#"{{"status":"healthy","service":"commitcast","version":"{}","timestamp":"2025-05-13T01:59:00.123456Z","database":"connected","environment":"debug","durability":"full"}}"#,
            env!("CARGO_PKG_VERSION")
        );
        for (dialects, expected) in [
            (&[Name::Workflows][..], &*workflows),
            (&[Name::Tickets], r#"{"status":"ok","service":"agent-sdk-webhook-server"}"#),
            (&[Name::Agents], r#"{"status":"healthy","version":"0.1.0","environment":"development"}"#),
            (&[Name::Documents], &all),
            (&[Name::Native], &all),
            (&[Name::Tickets, Name::Agents], &all),
            (&Name::ALL, &all),
        ] {
            let shown = answer(&status("debug"), Service::Health(Served::of(dialects)));
            assert_eq!(shown, (200, expected.to_owned()), "{dialects:?}");
        }
        let (_, agents) = answer(&status("production"), Service::Health(Served::of(&[Name::Agents])));
        assert!(agents.ends_with(r#""environment":"production"}"#), "{agents}");
    }

    #[test]
    fn a_failed_store_is_unhealthy_in_every_shape() {
        let status = status("debug");
        let health = |status: &Status, name: Name| answer(status, Service::Health(Served::of(&[name])));
        status.drain();
        for name in Name::ALL {
            let (code, body) = health(&status, name);
            assert!(code == 200 && body.starts_with(r#"{"status":"draining","#), "{body}");
        }
        assert_eq!(answer(&status, Service::Ready).0, 503);
        status.store_broke();
        for name in Name::ALL {
            let (code, body) = health(&status, name);
            assert!(code == 503 && body.starts_with(r#"{"status":"unhealthy","#), "{body}");
        }
        assert_eq!(answer(&status, Service::Ready), (503, "the store has failed\n".to_owned()));
        assert_eq!(answer(&status, Service::Live).0, 200);
    }

    #[test]
    fn the_bare_address_says_what_answers_there() {
        let version = env!("CARGO_PKG_VERSION");
        let ours = |dialects: &str, native: &str| {
            format!(
                r#"{{"name":"commitcast","version":"{version}","dialects":[{dialects}],"health":"/health","ready":"/readyz","metrics":"/metrics","openapi":"/openapi.json","asyncapi":"/asyncapi.json"{native}}}"#
            )
        };
        let native = r#","connect":"/v1/connect","backend":"/v1/backend""#;
        for (dialects, expected) in [
            (
                &[Name::Tickets][..],
                r#"{"status":"ok","service":"agent-sdk-webhook-server","note":"Frontend not found"}"#.to_owned(),
            ),
            (
                &[Name::Agents],
                r#"{"name":"Paygent","version":"0.1.0","docs":"/docs","redoc":"/redoc","openapi":"/openapi.json"}"#
                    .to_owned(),
            ),
            (&[Name::Documents], ours(r#""documents""#, "")),
            (&[Name::Native], ours(r#""native""#, native)),
            (&Name::ALL, ours(r#""documents","workflows","tickets","agents","native""#, native)),
        ] {
            let shown = answer(&status("debug"), Service::Root(Served::of(dialects)));
            assert_eq!(shown, (200, expected), "{dialects:?}");
        }
    }

    #[test]
    fn the_agents_metrics_have_the_names_their_dashboards_ask_for() {
        let status = status("debug");
        status.metrics.agents.sockets.inc_by(3);
        status.metrics.agents.messages_out.inc_by(7);
        let (_, text) = answer(&status, Service::AgentsMetrics);
        let values: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            values,
            [
                "paygent_websocket_connections_total 3",
                "paygent_websocket_messages_received_total 0",
                "paygent_websocket_messages_sent_total 7",
            ]
        );
        assert_eq!(text.lines().filter(|line| line.starts_with("# TYPE") && line.ends_with(" counter")).count(), 3);
    }
}
