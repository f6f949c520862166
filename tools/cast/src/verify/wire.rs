//! A connection that records every frame, and that can be cut at any byte.

use std::io::Write as _;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use benches::engine::dial::cut as reset;
use benches::wire as frame;
use serde_json::Value;
use tungstenite::{Error, Message};

use super::dice::Dice;
use super::history::{Connection, Ending, Frame, History, Speaks, Way};
use crate::connect::{self, Failure, Socket, is_timeout, reach, shake_hands};
use crate::http;
use crate::target::Address;

/// How long a handshake, or an answer over HTTP, may take.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Whom to reach, and what to show there.
#[derive(Clone, Debug)]
pub struct Door {
    /// Its path is not looked at.
    pub server: Address,
    pub token: Option<String>,
    pub api_key: Option<String>,
}

impl Door {
    pub fn at(&self, path: &str) -> Address {
        Address { path: path.to_owned(), ..self.server.clone() }
    }

    fn token_header(&self) -> Vec<(&'static str, String)> {
        self.token.iter().map(|token| ("Authorization", format!("Bearer {token}"))).collect()
    }

    /// As a client, or, where a key is needed and there is one, as a backend.
    pub fn headers(&self, as_backend: bool) -> Vec<(&'static str, String)> {
        match &self.api_key {
            Some(key) if as_backend => vec![("X-API-Key", key.clone())],
            _ => self.token_header(),
        }
    }

    pub fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        as_backend: bool,
    ) -> Result<http::Answer, Failure> {
        http::ask(&self.at(path), method, &self.headers(as_backend), body, PATIENCE)
    }
}

/// The connection is over: why is in its record.
#[derive(Debug)]
pub struct Gone;

/// How we end a connection in the middle of things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// A reset: what is on its way in either direction is lost.
    Reset,
    /// The same behind the first bytes of a frame.
    Torn,
    /// The first bytes of a frame, then the end of the stream, in order.
    TornClose,
    /// Reads nothing for a while, and leaves with frames unread.
    Unread,
}

pub const CUTS: [Cut; 4] = [Cut::Reset, Cut::Torn, Cut::TornClose, Cut::Unread];

#[derive(Debug)]
pub struct Link<'h> {
    history: &'h History,
    /// None once it was cut.
    socket: Option<Socket>,
    record: Option<Connection>,
}

impl<'h> Link<'h> {
    pub fn open(
        history: &'h History,
        door: &Door,
        name: &str,
        speaks: Speaks,
        room: &str,
        path: &str,
    ) -> Result<Link<'h>, Failure> {
        let opened = history.tick();
        let address = door.at(path);
        let headers = door.headers(speaks == Speaks::Backend);
        let request =
            connect::request(&address, &headers).map_err(|what| Failure::new(connect::Outcome::Usage, what))?;
        let (socket, _) = shake_hands(request, reach(&address, PATIENCE)?)?;
        let (name, room) = (name.to_owned(), room.to_owned());
        let record = Connection { name, speaks, room, opened, frames: Vec::new(), ending: Ending::Left };
        Ok(Link { history, socket: Some(socket), record: Some(record) })
    }

    pub fn say(&mut self, frame: &Value) -> Result<(), Gone> {
        let text = frame.to_string();
        self.note(Way::Out, text.clone());
        let Some(socket) = &mut self.socket else { return Err(Gone) };
        match socket.send(Message::text(text)) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.gone(error.to_string())),
        }
    }

    /// The next frame that comes within `wait`.
    pub fn hear(&mut self, wait: Duration) -> Result<Option<Value>, Gone> {
        let until = Instant::now() + wait;
        loop {
            let Some(socket) = &mut self.socket else { return Err(Gone) };
            // A timeout of zero would mean none at all.
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let _ = socket.get_ref().set_read_timeout(Some(left));
            match socket.read() {
                Ok(Message::Text(text)) => {
                    let said = serde_json::from_str(&text).unwrap_or(Value::Null);
                    self.note(Way::In, text.to_string());
                    return Ok(Some(said));
                }
                Ok(Message::Close(frame)) => {
                    let said = frame.map_or_else(String::new, |frame| format!(" {}", u16::from(frame.code)));
                    let _ = socket.flush();
                    return Err(self.gone(format!("closed{said}")));
                }
                Ok(_) => {}
                Err(Error::Io(error)) if is_timeout(&error) => return Ok(None),
                Err(error) => return Err(self.gone(error.to_string())),
            }
            if Instant::now() >= until {
                return Ok(None);
            }
        }
    }

    /// Ends the connection so that neither side can say anything more. `torn`: the frame of which a part goes out.
    pub fn cut(mut self, how: Cut, torn: &Value, dice: &mut Dice) {
        let Some(mut socket) = self.socket.take() else { return };
        self.end(Ending::Cut);
        if matches!(how, Cut::Torn | Cut::TornClose) {
            let text = torn.to_string();
            let whole = frame::text(&text);
            let length = dice.between(1, whole.len() as u64 - 1) as usize;
            self.note(Way::Torn, text);
            // The connection is given up: that its other end was faster is as good.
            let _ = socket.get_mut().write_all(whole.get(..length).unwrap_or_default());
        }
        match how {
            Cut::TornClose => {
                let _ = socket.get_ref().shutdown(Shutdown::Both);
            }
            // The kernel answers whatever is unread at a close with a reset.
            Cut::Unread => std::thread::sleep(Duration::from_millis(dice.between(5, 60))),
            Cut::Reset | Cut::Torn => {
                if let Ok(stream) = socket.get_ref().try_clone() {
                    let _ = reset(OwnedFd::from(stream));
                }
            }
        }
    }

    /// How it ends when nobody cuts it.
    pub fn end(&mut self, ending: Ending) {
        if let Some(record) = &mut self.record {
            record.ending = ending;
        }
    }

    fn gone(&mut self, why: String) -> Gone {
        self.end(Ending::Gone(why));
        Gone
    }

    fn note(&mut self, way: Way, text: String) {
        let tick = self.history.tick();
        if let Some(record) = &mut self.record {
            record.frames.push(Frame { tick, way, text });
        }
    }
}

impl Drop for Link<'_> {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            self.history.keep(record);
        }
    }
}

/// One request whose answer the judge is shown; none where no whole answer came.
pub fn ask(history: &History, door: &Door, name: &str, method: &str, path: &str, body: &Value) -> Option<http::Answer> {
    let opened = history.tick();
    let asked = serde_json::json!({"method": method, "path": path, "body": body}).to_string();
    let mut frames = vec![Frame { tick: opened, way: Way::Out, text: asked }];
    let answer = door.ask(method, path, Some(body), false).ok().filter(|answer| !answer.body.is_null());
    if let Some(answer) = &answer {
        let text = serde_json::json!({"status": answer.status, "body": answer.body}).to_string();
        frames.push(Frame { tick: history.tick(), way: Way::In, text });
    }
    let (name, room) = (name.to_owned(), String::new());
    history.keep(Connection { name, speaks: Speaks::Http, room, opened, frames, ending: Ending::Left });
    answer
}
