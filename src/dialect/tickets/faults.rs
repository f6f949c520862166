//! What is wrong with a request, exactly as FastAPI words it: all of it at once, each with the value that was sent.

use serde::Serialize;
use serde_json::value::RawValue;

use super::wire::written;
use crate::http::Response;

/// One thing that is wrong.
#[derive(Debug, Serialize)]
pub struct Fault<'a> {
    pub r#type: &'static str,
    pub loc: Vec<Step>,
    pub msg: &'static str,
    /// As sent; null where nothing was.
    pub input: Option<&'a RawValue>,
}

/// One step to the place where it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Step {
    Name(&'static str),
    Index(usize),
}

impl<'a> Fault<'a> {
    pub fn missing(loc: Vec<Step>, input: Option<&'a str>) -> Fault<'a> {
        Fault { r#type: "missing", loc, msg: "Field required", input: input.and_then(raw) }
    }

    pub fn string_type(loc: Vec<Step>, input: &'a str) -> Fault<'a> {
        Fault { r#type: "string_type", loc, msg: "Input should be a valid string", input: raw(input) }
    }

    /// The body is something else than an object.
    pub fn no_object(input: &'a str) -> Fault<'a> {
        let msg = "Input should be a valid dictionary or object to extract fields from";
        Fault { r#type: "model_attributes_type", loc: vec![Step::Name("body")], msg, input: raw(input) }
    }
}

/// A text that was found to be JSON before.
fn raw(json: &str) -> Option<&RawValue> {
    serde_json::from_str(json).ok()
}

pub fn unprocessable(faults: &[Fault<'_>]) -> Response {
    #[derive(Serialize)]
    struct Faults<'a> {
        detail: &'a [Fault<'a>],
    }
    Response::json(422, written(&Faults { detail: faults }))
}

/// The body is no JSON from this character on. A fixed text where the original had its parser's.
pub fn json_invalid(position: usize) -> Response {
    #[derive(Serialize)]
    struct Invalid {
        detail: [Detail; 1],
    }
    #[derive(Serialize)]
    struct Detail {
        r#type: &'static str,
        loc: [Step; 2],
        msg: &'static str,
        input: Empty,
        ctx: Context,
    }
    #[derive(Serialize)]
    struct Empty {}
    #[derive(Serialize)]
    struct Context {
        error: &'static str,
    }
    let detail = Detail {
        r#type: "json_invalid",
        loc: [Step::Name("body"), Step::Index(position)],
        msg: "JSON decode error",
        input: Empty {},
        ctx: Context { error: "Expecting value" },
    };
    Response::json(422, written(&Invalid { detail: [detail] }))
}

pub fn too_long(loc: Vec<Step>, input: &str) -> Response {
    #[derive(Serialize)]
    struct TooLong<'a> {
        detail: [Detail<'a>; 1],
    }
    #[derive(Serialize)]
    struct Detail<'a> {
        r#type: &'static str,
        loc: Vec<Step>,
        msg: &'static str,
        input: &'a str,
        ctx: Context,
    }
    #[derive(Serialize)]
    struct Context {
        max_length: usize,
    }
    let ctx = Context { max_length: super::ledger::STATUS_BYTES_MAX };
    let msg = "String should have at most 64 characters";
    Response::json(422, written(&TooLong { detail: [Detail { r#type: "string_too_long", loc, msg, input, ctx }] }))
}

/// An error as FastAPI's `HTTPException` spells it.
pub fn detail(status: u16, detail: &str) -> Response {
    #[derive(Serialize)]
    struct Words<'a> {
        detail: &'a str,
    }
    Response::json(status, written(&Words { detail }))
}

const _: () = assert!(super::ledger::STATUS_BYTES_MAX == 64, "the sentence names the bound");
