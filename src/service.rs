//! The server's own endpoints: is it alive, is it ready, what does it count.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::admission::Service;
use crate::clock::{Mono, Wall};
use crate::http::Response;
use crate::limits::COMMIT_SLOW;
use crate::metrics::Metrics;
use crate::store::Pulse;

/// What all threads know of the process as a whole.
#[derive(Debug)]
pub struct Status {
    pub metrics: Arc<Metrics>,
    pub pulse: Arc<Pulse>,
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
            Service::Health => self.health(now),
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

    /// A superset of what the four applications answered.
    fn health(&self, now: (Mono, Wall)) -> Response {
        let (status, database) = match self.unready(now.0) {
            None => ("healthy", "connected"),
            Some("draining") => ("draining", "connected"),
            Some(_) => ("unhealthy", "failed"),
        };
        let timestamp = jiff::Timestamp::from_microsecond(now.1.0).map(|at| at.to_string()).unwrap_or_default();
        let body = format!(
            "{{\"status\":\"{status}\",\"service\":\"commitcast\",\"version\":\"{}\",\"timestamp\":\"{timestamp}\",\
             \"database\":\"{database}\",\"environment\":\"{}\",\"durability\":\"{}\"}}",
            env!("CARGO_PKG_VERSION"),
            self.environment,
            self.durability,
        );
        Response::json(if status == "unhealthy" { 503 } else { 200 }, body)
    }
}
