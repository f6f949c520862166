//! Why something was not done: a status, a fixed word, and a sentence. Sockets, HTTP and batches say it each in their shape.

use std::borrow::Cow;

use crate::dialect::publish::Refusal;

#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What it is over HTTP.
    pub status: u16,
    pub code: &'static str,
    pub detail: Cow<'static, str>,
}

const BAD_MESSAGE: &str = "bad_message";
pub const CONFLICT: &str = "conflict";

impl Fault {
    pub fn new(status: u16, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Fault {
        Fault { status, code, detail: detail.into() }
    }

    /// It could not be read. Too many of those end a socket.
    pub fn nonsense(detail: impl Into<Cow<'static, str>>) -> Fault {
        Fault::new(400, BAD_MESSAGE, detail)
    }

    pub fn is_nonsense(&self) -> bool {
        self.code == BAD_MESSAGE
    }

    pub fn forbidden(detail: &'static str) -> Fault {
        Fault::new(403, "forbidden", detail)
    }

    pub fn no_such_room() -> Fault {
        Fault::new(404, "no_such_room", "there is no such room")
    }

    pub fn no_such_session() -> Fault {
        Fault::new(404, "no_such_session", "there is no such session")
    }

    pub fn no_such_approval() -> Fault {
        Fault::new(404, "no_such_approval", "there is no such approval")
    }

    pub fn unknown_task() -> Fault {
        Fault::new(404, "unknown_task", "there is no such task")
    }

    /// Another holder has the task, or it is finished: whoever asks was deposed and must not change anything more.
    pub fn stale_fence() -> Fault {
        Fault::new(409, "stale_fence", "the task is no longer held with this fence")
    }

    pub fn already_decided() -> Fault {
        Fault::new(409, "already_decided", "this approval was decided before")
    }

    pub fn stale() -> Fault {
        Fault::new(409, "stale", "what is to be decided is not what was seen")
    }

    pub fn id_taken() -> Fault {
        Fault::new(422, "id_taken", "this id was given to another publish; nothing was saved")
    }

    pub fn unknown_path() -> Fault {
        Fault::new(404, "unknown_path", "there is no such endpoint")
    }
}

impl From<&Refusal> for Fault {
    fn from(refusal: &Refusal) -> Fault {
        match refusal {
            Refusal::NoSuchRoom => Fault::no_such_room(),
            Refusal::Conflict { .. } => Fault::new(409, CONFLICT, "the revision is another one"),
            Refusal::Bad { code, detail } => Fault::new(409, code, detail.clone()),
        }
    }
}

/// What RFC 9457 wants beside `about:blank`: the status in words.
pub fn title(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        _ => "Refused",
    }
}
