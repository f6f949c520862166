//! The users' sockets: opened together, read together, each with what it has heard.
//!
//! One thread and no blocking reads, because a page that nobody looks at must go on answering the server's pings.

use std::io;
use std::time::{Duration, Instant};

use serde_json::Value;
use tungstenite::{Error, Message};

use super::Plan;
use super::task::short;
use crate::connect::{self, Failure, Outcome, Socket, is_timeout, reach, shake_hands};
use crate::http::Answer;

/// Between two looks at sockets that had nothing to say.
const LOOK_EVERY: Duration = Duration::from_millis(2);
const LEAVE_WITHIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Pages<'p> {
    plan: &'p Plan,
    pages: Vec<Page>,
    /// How long one thing is waited for.
    patience: Duration,
}

/// Names a page among its pages.
#[derive(Clone, Copy, Debug)]
pub struct PageId(usize);

#[derive(Debug)]
struct Page {
    name: String,
    socket: Socket,
    heard: Vec<Value>,
    /// How much of it was looked at.
    seen: usize,
    closed: Option<String>,
}

impl<'p> Pages<'p> {
    pub fn new(plan: &'p Plan, patience: Duration) -> Pages<'p> {
        Pages { plan, pages: Vec::new(), patience }
    }

    pub fn open(&mut self, name: &str, path: &str) -> Result<PageId, Failure> {
        let address = self.plan.at(path);
        let about = |failure: Failure| {
            let status = failure.details.get("status").and_then(Value::as_u64).unwrap_or_default() as u16;
            let hint = self.plan.token_hint(&Answer { status, body: Value::Null });
            Failure { what: format!("{name} ({path}): {}{hint}", failure.what), ..failure }
        };
        let request =
            connect::request(&address, &self.plan.token_header()).map_err(|what| Failure::new(Outcome::Usage, what))?;
        let stream = reach(&address, self.plan.timeout).map_err(about)?;
        let (socket, _) = shake_hands(request, stream).map_err(about)?;
        socket.get_ref().set_nonblocking(true).map_err(|error| about(broken(&error)))?;
        self.pages.push(Page { name: name.to_owned(), socket, heard: Vec::new(), seen: 0, closed: None });
        Ok(PageId(self.pages.len() - 1))
    }

    pub fn say(&mut self, page: PageId, message: &Value) -> Result<(), Failure> {
        let Some(page) = self.pages.get_mut(page.0) else { return Err(gone()) };
        page.socket
            .send(Message::text(message.to_string()))
            .map_err(|error| Failure::new(Outcome::Closed, format!("{}: cannot send: {error}", page.name)))
    }

    /// Waits for a frame that passes, passing over others; looks only at what came after the last one that was found.
    pub fn expect(&mut self, page: PageId, what: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value, Failure> {
        let found = self.wait(page, what, |page| {
            let at = page.heard.iter().skip(page.seen).position(&is_it)?;
            page.seen += at + 1;
            page.heard.get(page.seen - 1).cloned()
        })?;
        Ok(found)
    }

    /// Waits until a frame that passes was heard, whenever it was.
    pub fn expect_at_any_time(
        &mut self,
        page: PageId,
        what: &str,
        is_it: impl Fn(&Value) -> bool,
    ) -> Result<(), Failure> {
        self.wait(page, what, |page| page.heard.iter().any(&is_it).then_some(Value::Null)).map(|_| ())
    }

    pub fn heard(&self, page: PageId) -> &[Value] {
        self.pages.get(page.0).map(|page| &*page.heard).unwrap_or_default()
    }

    /// Closes them all as a browser does; the verdict stands whatever becomes of it.
    pub fn leave(mut self) {
        for page in &mut self.pages {
            let _ = page.socket.close(None);
        }
        let begun = Instant::now();
        while self.pages.iter().any(|page| page.closed.is_none()) && begun.elapsed() < LEAVE_WITHIN {
            if !self.look() {
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }

    fn wait(
        &mut self,
        id: PageId,
        what: &str,
        mut find: impl FnMut(&mut Page) -> Option<Value>,
    ) -> Result<Value, Failure> {
        let begun = Instant::now();
        loop {
            let was_busy = self.look();
            let Some(page) = self.pages.get_mut(id.0) else { return Err(gone()) };
            if let Some(found) = find(page) {
                return Ok(found);
            }
            if let Some(closed) = &page.closed {
                return Err(Failure::new(Outcome::Closed, format!("{}: {closed}, before {what}", page.name)));
            }
            if begun.elapsed() > self.patience {
                let last = page.heard.last().map_or("nothing".to_owned(), |last| short(&last.to_string()));
                let waited = self.patience.as_secs();
                let what = format!("{}: not seen within {waited} s: {what}\n  seen last: {last}", page.name);
                return Err(Failure::new(Outcome::NotMet, what));
            }
            if !was_busy {
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }

    /// Reads whatever is there. True when there was something.
    fn look(&mut self) -> bool {
        let mut was_busy = false;
        for page in &mut self.pages {
            while page.closed.is_none() {
                match page.socket.read() {
                    Ok(Message::Text(text)) => {
                        // What is no JSON is nothing that is waited for.
                        page.heard.push(serde_json::from_str(&text).unwrap_or_default());
                        was_busy = true;
                    }
                    Ok(Message::Close(frame)) => {
                        let code = frame.map(|frame| format!(" with {}", u16::from(frame.code)));
                        page.closed = Some(format!("the server closed it{}", code.unwrap_or_default()));
                    }
                    Ok(_) => {}
                    Err(Error::Io(error)) if is_timeout(&error) => break,
                    Err(error) => page.closed = Some(format!("it broke ({error})")),
                }
            }
        }
        was_busy
    }
}

fn broken(error: &io::Error) -> Failure {
    Failure::new(Outcome::Closed, format!("the connection broke: {error}"))
}

/// A page of other pages: a mistake of ours.
fn gone() -> Failure {
    Failure::new(Outcome::Closed, "there is no such page")
}
