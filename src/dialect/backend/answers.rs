//! One outcome, three shapes: a frame of the socket, a response, a line of a batch.

use std::sync::Arc;

use super::fault::Fault;
use super::wire::{self, Facts};
use crate::dialect::publish::Refusal;
use crate::dialect::{Failure, Reply};
use crate::http::Response;
use crate::ws;

/// Who waits for the answer, and so its shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub via: Via,
    /// What the asker called it; given back.
    pub id: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Socket,
    Http,
    /// Of a batch; counted from 1.
    Line(usize),
}

/// How a good answer came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Made,
    /// It was there, or nothing was made.
    Found,
    /// The first answer to this id, again.
    Replayed,
}

/// A second is what `Retry-After` says.
const RETRY_MS: u32 = 1000;

impl Asked {
    pub fn well(&self, way: Way, facts: Facts<'_>) -> Reply {
        let dup = way == Way::Replayed;
        match self.via {
            Via::Socket => {
                let facts = Facts { id: self.id.as_deref(), dup: dup.then_some(true), ..facts };
                Reply::Frame(ws::frame::text(&wire::said("ok", &facts)))
            }
            Via::Http => {
                let status = if way == Way::Found { 200 } else { 201 };
                // A replay's body is the first answer's, byte for byte; that it is one stands in a header.
                let response = wire::body(status, &Facts { id: self.id.as_deref(), ..facts });
                Reply::Response(Box::new(match dup {
                    true => response.with_header("Idempotent-Replayed", "true"),
                    false => response,
                }))
            }
            Via::Line(line) => {
                let facts = Facts { id: self.id.as_deref(), dup: dup.then_some(true), ..facts };
                Reply::Frame(wire::line(line, &facts))
            }
        }
    }

    pub fn ill(&self, fault: &Fault, facts: Facts<'_>) -> Reply {
        let facts = Facts { id: self.id.as_deref(), ..facts };
        match self.via {
            Via::Socket => Reply::Frame(ws::frame::text(&wire::refused(fault, &facts, None))),
            // A problem is about the request; its id is known to whoever sent it.
            Via::Http => Reply::Response(Box::new(wire::problem(fault, &Facts { id: None, ..facts }))),
            Via::Line(line) => Reply::Frame(wire::bad_line(line, fault, &facts)),
        }
    }

    pub fn refused(&self, refusal: &Refusal) -> Reply {
        let Refusal::Conflict { rev, snapshot } = refusal else {
            return self.ill(&Fault::from(refusal), Facts::default());
        };
        let facts = Facts { rev: Some(*rev), snapshot: snapshot.as_deref().map(wire::raw), ..Facts::default() };
        match self.via {
            Via::Socket => {
                let facts = Facts { id: self.id.as_deref(), ..facts };
                Reply::Frame(ws::frame::text(&wire::said("conflict", &facts)))
            }
            // A snapshot for every line would make a small batch a large answer.
            Via::Line(_) => self.ill(&Fault::from(refusal), Facts { snapshot: None, ..facts }),
            Via::Http => self.ill(&Fault::from(refusal), facts),
        }
    }

    pub fn failed(&self, failure: Failure, facts: Facts<'_>) -> Reply {
        let reject = failure.reject();
        let code = match failure {
            Failure::Busy => "overloaded",
            other => other.reason().row().name,
        };
        let fault = Fault::new(reject.row().status, code, reject.detail.clone());
        match self.via {
            Via::Socket => {
                let facts = Facts { id: self.id.as_deref(), ..facts };
                Reply::Frame(ws::frame::text(&match failure {
                    // The one thing that must not be told as a refusal (G3).
                    Failure::Unknown => wire::said("unknown", &facts),
                    Failure::Busy => wire::refused(&fault, &facts, Some(RETRY_MS)),
                    Failure::Full | Failure::Broken | Failure::Forbidden => wire::refused(&fault, &facts, None),
                }))
            }
            Via::Http => Reply::Response(Box::new(Response::reject(&reject))),
            Via::Line(_) => self.ill(&fault, facts),
        }
    }
}
