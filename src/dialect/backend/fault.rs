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

    pub fn no_such_revocation() -> Fault {
        Fault::new(404, "no_such_revocation", "there is no such revocation")
    }

    pub fn too_many_revocations() -> Fault {
        let detail = "no more revocations are kept: take some back, give them an `until`, or change the tokens' key";
        Fault::new(409, "too_many_revocations", detail)
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
            Refusal::Bad { code, detail } => Fault::new(status_of(code), code, detail.clone()),
        }
    }
}

/// The dialects name their reasons alike: `bad_…` is about what was sent, the others about what is there.
fn status_of(code: &str) -> u16 {
    match code {
        "id_taken" => 422,
        code if code.starts_with("bad_") => 400,
        _ => 409,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_s_status_says_whose_matter_it_is() {
        for (refusal, status, code) in [
            (Refusal::NoSuchRoom, 404, "no_such_room"),
            (Refusal::Conflict { rev: 1, snapshot: None }, 409, "conflict"),
            (Refusal::bad("bad_data", "x"), 400, "bad_data"),
            (Refusal::bad("execution_over", "x"), 409, "execution_over"),
            (Refusal::bad("id_taken", "x"), 422, "id_taken"),
        ] {
            let fault = Fault::from(&refusal);
            assert_eq!((fault.status, fault.code), (status, code));
            assert_ne!(title(status), "Refused");
        }
    }
}
