//! What the tables of this folder list: sockets with their messages, endpoints with their answers.

use super::schema::{Schema, text, uuid};

/// A place where sockets are let in, under each of its addresses.
#[derive(Clone, Debug)]
pub struct Channel {
    /// `{dialect}.{place}`
    pub name: &'static str,
    pub addresses: Vec<&'static str>,
    pub summary: &'static str,
    pub query: Vec<Parameter>,
    pub messages: Vec<Message>,
    pub guard: Guard,
}

/// What one side says to the other.
#[derive(Clone, Debug)]
pub struct Message {
    /// `{dialect}.{client or server}.{type}`, and behind it which, where one type has several shapes.
    pub name: &'static str,
    pub summary: &'static str,
    pub payload: Schema,
    /// The frame is plain text, not JSON.
    pub is_plain: bool,
}

#[derive(Clone, Debug)]
pub struct Parameter {
    pub name: &'static str,
    pub place: Place,
    pub summary: &'static str,
    pub schema: Schema,
    pub required: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Path,
    Query,
    Header,
}

#[derive(Clone, Debug)]
pub struct Endpoint {
    pub method: &'static str,
    pub path: &'static str,
    pub summary: &'static str,
    pub parameters: Vec<Parameter>,
    pub body: Option<Body>,
    pub answers: Vec<Answer>,
    pub guard: Guard,
}

#[derive(Clone, Debug)]
pub struct Body {
    pub media: &'static str,
    pub schema: Schema,
    pub required: bool,
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub summary: &'static str,
    /// Media type and schema; none without a body.
    pub content: Option<(&'static str, Schema)>,
    pub headers: Vec<(&'static str, &'static str)>,
}

/// Who is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    Everybody,
    /// By a token in token mode.
    User,
    /// The same, or by its first message.
    Native,
    /// By an API key, where keys are configured.
    Backend,
}

pub const JSON: &str = "application/json";
pub const PROBLEM: &str = "application/problem+json";
pub const NDJSON: &str = "application/x-ndjson";
pub const PLAIN: &str = "text/plain; charset=utf-8";

pub fn message(name: &'static str, summary: &'static str, payload: Schema) -> Message {
    Message { name, summary, payload, is_plain: false }
}

pub fn plain(name: &'static str, summary: &'static str, payload: Schema) -> Message {
    Message { name, summary, payload, is_plain: true }
}

impl Channel {
    pub fn new<const N: usize>(name: &'static str, addresses: [&'static str; N], summary: &'static str) -> Channel {
        let (addresses, guard) = (addresses.into(), Guard::User);
        Channel { name, addresses, summary, query: Vec::new(), messages: Vec::new(), guard }
    }

    pub fn of(self, guard: Guard) -> Channel {
        Channel { guard, ..self }
    }

    pub fn query(mut self, name: &'static str, schema: Schema, summary: &'static str) -> Channel {
        self.query.push(Parameter { name, place: Place::Query, summary, schema, required: false });
        self
    }

    pub fn needs(mut self, name: &'static str, schema: Schema, summary: &'static str) -> Channel {
        self.query.push(Parameter { name, place: Place::Query, summary, schema, required: true });
        self
    }

    pub fn says(mut self, messages: impl IntoIterator<Item = Message>) -> Channel {
        self.messages.extend(messages);
        self
    }
}

pub fn get(path: &'static str, summary: &'static str) -> Endpoint {
    Endpoint::new("get", path, summary)
}

pub fn post(path: &'static str, summary: &'static str) -> Endpoint {
    Endpoint::new("post", path, summary)
}

pub fn put(path: &'static str, summary: &'static str) -> Endpoint {
    Endpoint::new("put", path, summary)
}

pub fn delete(path: &'static str, summary: &'static str) -> Endpoint {
    Endpoint::new("delete", path, summary)
}

impl Endpoint {
    fn new(method: &'static str, path: &'static str, summary: &'static str) -> Endpoint {
        let parameters = names_in(path).map(path_parameter).collect();
        Endpoint { method, path, summary, parameters, body: None, answers: Vec::new(), guard: Guard::User }
    }

    pub fn of(self, guard: Guard) -> Endpoint {
        Endpoint { guard, ..self }
    }

    pub fn query(self, name: &'static str, schema: Schema, summary: &'static str) -> Endpoint {
        self.parameter(Parameter { name, place: Place::Query, summary, schema, required: false })
    }

    pub fn needs(self, name: &'static str, schema: Schema, summary: &'static str) -> Endpoint {
        self.parameter(Parameter { name, place: Place::Query, summary, schema, required: true })
    }

    pub fn header(self, name: &'static str, schema: Schema, summary: &'static str) -> Endpoint {
        self.parameter(Parameter { name, place: Place::Header, summary, schema, required: false })
    }

    fn parameter(mut self, parameter: Parameter) -> Endpoint {
        self.parameters.push(parameter);
        self
    }

    pub fn body(self, schema: Schema) -> Endpoint {
        Endpoint { body: Some(Body { media: JSON, schema, required: true }), ..self }
    }

    /// One that need not be sent.
    pub fn body_if_any(self, schema: Schema) -> Endpoint {
        Endpoint { body: Some(Body { media: JSON, schema, required: false }), ..self }
    }

    pub fn lines(self, schema: Schema) -> Endpoint {
        Endpoint { body: Some(Body { media: NDJSON, schema, required: false }), ..self }
    }

    pub fn json(self, status: u16, summary: &'static str, schema: Schema) -> Endpoint {
        self.answer(status, summary, Some((JSON, schema)))
    }

    pub fn says(self, status: u16, summary: &'static str, media: &'static str, schema: Schema) -> Endpoint {
        self.answer(status, summary, Some((media, schema)))
    }

    pub fn empty(self, status: u16, summary: &'static str) -> Endpoint {
        self.answer(status, summary, None)
    }

    fn answer(mut self, status: u16, summary: &'static str, content: Option<(&'static str, Schema)>) -> Endpoint {
        self.answers.push(Answer { status, summary, content, headers: Vec::new() });
        self
    }

    /// A header of the answer that was named last.
    pub fn with(mut self, name: &'static str, summary: &'static str) -> Endpoint {
        if let Some(answer) = self.answers.last_mut() {
            answer.headers.push((name, summary));
        }
        self
    }
}

/// The names in braces of an address or a path.
pub fn names_in(path: &'static str) -> impl Iterator<Item = &'static str> {
    path.split('{').skip(1).filter_map(|rest| rest.split_once('}').map(|(name, _)| name))
}

fn path_parameter(name: &'static str) -> Parameter {
    let (summary, schema) = about(name);
    Parameter { name, place: Place::Path, summary, schema, required: true }
}

/// What a name in a path stands for, in all dialects alike.
pub fn about(name: &str) -> (&'static str, Schema) {
    match name {
        "prompt_id" => (
            "A prompt's id, which is a path: its slashes may be sent as they are. Its name, or directories and name joined by \
             underscores, will do where they say which one is meant.",
            text(),
        ),
        "workflow_id" => ("Free text; `pending` before there is an id.", text()),
        "agent_name" => ("Free text.", text()),
        "thread_id" => ("Free text.", text()),
        "client_id" => ("As the client named itself, or as it was told on connect.", text()),
        "topic" => ("Free text; its slashes may be sent as they are.", text()),
        "request_id" => ("An approval's UUID.", uuid()),
        "session_id" => ("A session's UUID.", text()),
        "room" => ("A room's name; its slashes may be sent as they are.", text()),
        "task" => ("A task's id: digits.", super::schema::matching("^[0-9]+$")),
        "connection" => {
            ("A connection as it was shown, `c0.4.1`.", super::schema::matching("^c[0-9]+[.][0-9]+[.][0-9]+$"))
        }
        _ => ("As it was told.", text()),
    }
}
