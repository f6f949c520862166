//! The backend's connection: connects, hears, sends, and comes back when the server was away.
//!
//! One thread owns the socket. It reads until the next thing is due, which is what a backend of one connection needs.

use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message};

use super::player::{Player, TASKS_MAX};
use super::show::{Act, DOCUMENT, Show};
use super::task::{KINDS, short};
use super::{Plan, say};
use crate::connect::{self, Failure, Outcome, Socket, is_timeout, reach, shake_hands};
use crate::http;

const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// A server that is silent for so long is gone, whatever TCP thinks: it is asked for a word well before.
const SILENCE_MAX: Duration = Duration::from_secs(45);
const PING_AFTER: Duration = Duration::from_secs(15);
/// The longest read, so that an order from the other thread is not waited for.
const READ_MAX: Duration = Duration::from_millis(50);
const _: () = assert!(PING_AFTER.as_secs() * 2 < SILENCE_MAX.as_secs(), "a ping may get lost on the way");

/// What the thread that plays the users tells the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Play one round of the show.
    Play,
    Stop,
}

/// The thread that plays the users, as the backend knows it.
#[derive(Debug)]
pub struct Director {
    pub orders: Receiver<Order>,
    /// Told once, when the session and the document are there.
    pub ready: Sender<()>,
}

#[derive(Debug)]
pub struct Backend<'p> {
    plan: &'p Plan,
    /// None: alone, for as many rounds as asked for.
    director: Option<Director>,
    begun: Instant,
    player: Player,
    show: Option<Show>,
    /// Of the publishes of the show.
    published: u64,
    /// It was connected before, so a refusal now is the server's restart and not our mistake.
    was_connected: bool,
    is_ready: bool,
    /// This connection has said hello.
    is_greeted: bool,
    /// Every round that was asked for has been played.
    is_over: bool,
    /// What was complained of last, so that it is not repeated with every beat.
    complaint: String,
}

/// How a connection ended.
enum End {
    Finished,
    /// Connect again.
    Lost(String),
}

impl<'p> Backend<'p> {
    pub fn new(plan: &'p Plan, director: Option<Director>) -> Backend<'p> {
        let show = director.is_none().then(|| Show::new(plan.name.clone(), plan.pace, true, Duration::ZERO));
        Backend {
            plan,
            director,
            begun: Instant::now(),
            player: Player::new(plan.session.clone(), plan.pace),
            show,
            published: 0,
            was_connected: false,
            is_ready: false,
            is_greeted: false,
            is_over: false,
            complaint: String::new(),
        }
    }

    pub fn run(mut self) -> Result<(), Failure> {
        let mut backoff = BACKOFF_FIRST;
        loop {
            let why = match self.connect() {
                Ok(socket) => {
                    backoff = BACKOFF_FIRST;
                    self.was_connected = true;
                    match self.converse(socket)? {
                        End::Finished => return Ok(()),
                        End::Lost(why) => why,
                    }
                }
                Err(failure) if self.is_final(&failure) => return Err(explained(failure, self.plan)),
                Err(failure) => explained(failure, self.plan).what,
            };
            self.player.forget();
            self.is_greeted = false;
            if self.director.is_some() {
                return Err(Failure::new(Outcome::Closed, why));
            }
            eprintln!("cast: {why}\n  trying again in {} s", backoff.as_secs_f32());
            std::thread::sleep(backoff);
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Whatever another try would not change. A server that starts up, drains or is not there yet may be another one in a
    /// moment.
    fn is_final(&self, failure: &Failure) -> bool {
        let status = failure.details.get("status").and_then(Value::as_u64);
        match failure.outcome {
            Outcome::Refused => !matches!(status, Some(429 | 500..)),
            Outcome::Usage => true,
            _ => self.director.is_some(),
        }
    }

    fn connect(&self) -> Result<Socket, Failure> {
        let address = self.plan.at("/v1/backend");
        let request =
            connect::request(&address, &self.plan.key_header()).map_err(|what| Failure::new(Outcome::Usage, what))?;
        let (socket, _) = shake_hands(request, reach(&address, self.plan.timeout)?)?;
        Ok(socket)
    }

    fn converse(&mut self, mut socket: Socket) -> Result<End, Failure> {
        let (mut heard, mut pinged) = (Instant::now(), Instant::now());
        loop {
            if self.obey() {
                return Ok(leave(socket));
            }
            let mut frames = self.turn();
            if heard.elapsed() > SILENCE_MAX {
                return Ok(End::Lost("the server has not said a word for too long".to_owned()));
            }
            if heard.elapsed().min(pinged.elapsed()) > PING_AFTER {
                pinged = Instant::now();
                frames.push(json!({"op": "ping"}).to_string());
            }
            for frame in frames {
                if let Err(error) = socket.send(Message::text(frame)) {
                    return Ok(End::Lost(format!("the connection broke: {error}")));
                }
            }
            if self.is_over && self.player.is_idle() {
                return Ok(leave(socket));
            }
            // A socket whose timeout cannot be set is one that is gone; its next read says so.
            let _ = socket.get_ref().set_read_timeout(Some(self.wait()));
            match socket.read() {
                Ok(Message::Text(text)) => {
                    heard = Instant::now();
                    if let Some(end) = self.hear(&text, &mut socket)? {
                        return Ok(end);
                    }
                }
                Ok(Message::Close(frame)) => {
                    let _ = socket.flush();
                    let said = frame.map(|frame| format!(" ({} {})", u16::from(frame.code), frame.reason));
                    return Ok(End::Lost(format!("the server closed the connection{}", said.unwrap_or_default())));
                }
                Ok(_) => heard = Instant::now(),
                Err(Error::Io(error)) if is_timeout(&error) => {}
                Err(error) => return Ok(End::Lost(format!("the connection broke: {error}"))),
            }
        }
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn wait(&self) -> Duration {
        let show = self.show.as_ref().filter(|_| self.is_ready && self.is_greeted).map(Show::due);
        let due = [self.player.due(), show].into_iter().flatten().min();
        let wait = due.map_or(READ_MAX, |due| due.saturating_sub(self.now()).min(READ_MAX));
        // A timeout of zero would mean none at all.
        wait.max(Duration::from_millis(1))
    }

    /// True when it is to end.
    fn obey(&mut self) -> bool {
        let Some(director) = &self.director else { return false };
        match director.orders.try_recv() {
            Ok(Order::Play) => {
                self.show = Some(Show::new(self.plan.name.clone(), self.plan.pace, false, self.now()));
                false
            }
            Err(TryRecvError::Empty) => false,
            Ok(Order::Stop) | Err(TryRecvError::Disconnected) => true,
        }
    }

    /// What is due, as frames.
    fn turn(&mut self) -> Vec<String> {
        let now = self.now();
        self.player.turn(now);
        let acts = match &mut self.show {
            Some(show) if self.is_ready && self.is_greeted && !self.is_over => show.turn(now),
            _ => Vec::new(),
        };
        let mut frames = self.player.take_frames();
        for act in acts {
            frames.extend(self.act(act));
        }
        for line in self.player.take_lines() {
            say(self.plan, &line);
        }
        frames
    }

    fn act(&mut self, act: Act) -> Option<String> {
        match act {
            Act::Publish { room, kind, data } => return Some(self.publish(&room, kind, data)),
            Act::Use { round } => {
                self.make_ticket(round);
                return self.command(round);
            }
            Act::Say(line) => say(self.plan, &line),
            Act::RoundOver { round } => {
                if self.director.is_some() {
                    self.show = None;
                } else if self.plan.rounds.is_some_and(|rounds| round >= rounds) {
                    self.is_over = true;
                }
            }
        }
        None
    }

    fn publish(&mut self, room: &str, kind: &str, data: Value) -> String {
        self.published += 1;
        let id = format!("show:{}:{}", self.plan.name, self.published);
        json!({"op": "publish", "room": room, "id": id, "type": kind, "data": data}).to_string()
    }

    /// Gives the agent something to do, unless it still waits for somebody's decision.
    fn command(&mut self, round: u32) -> Option<String> {
        if self.player.is_undecided(self.now()) {
            return None;
        }
        let data = json!({"command": format!("Buy a lamp for round {round}")});
        Some(self.publish(&format!("session:{}", self.plan.session), "execute", data))
    }

    fn make_ticket(&mut self, round: u32) {
        let body =
            json!({"ticket_name": format!("Demo: the door of round {round}"), "description": "Made by cast demo"});
        match http::post(&self.plan.at("/tickets/create"), &self.plan.token_header(), &body, self.plan.timeout) {
            Ok(answer) if answer.is_well() => {}
            Ok(answer) => {
                self.complain(&format!("no ticket was made: {}{}", answer.reason(), self.plan.token_hint(&answer)))
            }
            Err(failure) => self.complain(&format!("no ticket was made: {}", failure.what)),
        }
    }

    fn hear(&mut self, text: &str, socket: &mut Socket) -> Result<Option<End>, Failure> {
        let Ok(frame) = serde_json::from_str::<Value>(text) else {
            return Ok(Some(End::Lost("the server said something that is not JSON".to_owned())));
        };
        let op = frame.get("op").and_then(Value::as_str).unwrap_or_default();
        if op == "hello" {
            return self.introduce(&frame, socket);
        }
        if self.player.hear(&frame, self.now()) {
            return Ok(None);
        }
        let is_of_session = frame.get("id").and_then(Value::as_str) == Some(&self.plan.session);
        match op {
            "ok" if is_of_session => self.begin(),
            "refused" if is_of_session => {
                self.complain(&format!("no session was made: {}", refusal(&frame)));
                self.begin();
            }
            "refused" => self.complain(&format!("refused: {}", refusal(&frame))),
            "bye" => say(self.plan, "the server says good-bye"),
            _ => {}
        }
        Ok(None)
    }

    /// The key was good. Takes what it may, and makes sure of what the show needs.
    fn introduce(&mut self, hello: &Value, socket: &mut Socket) -> Result<Option<End>, Failure> {
        let granted: Vec<&str> =
            hello.get("kinds").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let kinds: Vec<&str> = KINDS.into_iter().filter(|kind| granted.contains(kind)).collect();
        let named = hello.get("name").and_then(Value::as_str).unwrap_or_default();
        say(
            self.plan,
            &format!("connected to {} as backend `{}`, takes {}", self.plan.url, short(named), kinds.join(", ")),
        );
        let missing: Vec<&str> = KINDS.into_iter().filter(|kind| !granted.contains(kind)).collect();
        if !missing.is_empty() {
            let what =
                format!("the key may not take {}: give it the right tasks:* in auth.api_keys", missing.join(", "));
            if self.director.is_some() {
                return Err(Failure::new(Outcome::Refused, what));
            }
            self.complain(&what);
        }
        self.is_greeted = true;
        self.ensure_document();
        let mut frames = vec![json!({"op": "session", "id": self.plan.session}).to_string()];
        if !kinds.is_empty() {
            frames.insert(0, json!({"op": "take", "kinds": kinds, "max": TASKS_MAX}).to_string());
        }
        for frame in frames {
            if let Err(error) = socket.send(Message::text(frame)) {
                return Ok(Some(End::Lost(format!("the connection broke: {error}"))));
            }
        }
        Ok(None)
    }

    /// Makes the document that the show edits. That it is there already is as good.
    fn ensure_document(&mut self) {
        let (directory, name) = DOCUMENT.rsplit_once('/').unwrap_or(("", DOCUMENT));
        let body = json!({"name": name, "directory": directory, "content": "# A video in five stages\n",
            "description": "Edited by cast demo", "tags": ["demo"]});
        match http::post(&self.plan.at("/api/prompts/"), &self.plan.token_header(), &body, self.plan.timeout) {
            Ok(answer) if answer.is_well() => say(self.plan, &format!("document: made {DOCUMENT}")),
            Ok(answer) if answer.status == 400 || answer.status == 409 => {}
            Ok(answer) => {
                self.complain(&format!(
                    "{DOCUMENT} was not made: {}{}",
                    answer.reason(),
                    self.plan.token_hint(&answer)
                ));
            }
            Err(failure) => self.complain(&format!("{DOCUMENT} was not made: {}", failure.what)),
        }
    }

    /// Everything that the show needs is there, as far as it could be had.
    fn begin(&mut self) {
        if std::mem::replace(&mut self.is_ready, true) {
            return;
        }
        for line in self.plan.places() {
            say(self.plan, &line);
        }
        if let Some(director) = &self.director {
            // Nobody listens any more: the next look at the orders ends it.
            let _ = director.ready.send(());
        }
    }

    fn complain(&mut self, what: &str) {
        if self.complaint != what {
            self.complaint = what.to_owned();
            eprintln!("cast: {what}");
        }
    }
}

/// The verdict stands, and what is held goes back when the connection ends: a server that is gone changes nothing.
fn leave(mut socket: Socket) -> End {
    let frame = tungstenite::protocol::CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let _ = socket.close(Some(frame));
    let _ = socket.get_ref().set_read_timeout(Some(Duration::from_secs(1)));
    while socket.read().is_ok() {}
    End::Finished
}

/// A refusal's word and sentence.
fn refusal(frame: &Value) -> String {
    let text = |name: &str| frame.get(name).and_then(Value::as_str).unwrap_or_default();
    format!("{}: {}", text("code"), text("detail"))
}

/// Whose fault it is that there is no connection, and what to do about it.
fn explained(failure: Failure, plan: &Plan) -> Failure {
    let status = failure.details.get("status").and_then(Value::as_u64);
    let advice = match (failure.outcome, status, &plan.key) {
        (Outcome::Unreachable, ..) => "is the server running there? `commitcast` starts one on 127.0.0.1:8080",
        (Outcome::Refused, Some(401 | 403), None) => {
            "the server wants an API key: give one of its auth.api_keys with --key"
        }
        (Outcome::Refused, Some(401 | 403), Some(_)) => {
            "the server does not take this --key: compare it with its auth.api_keys"
        }
        (Outcome::Refused, None | Some(404), _) => {
            "nothing there speaks the backend protocol: is it commitcast, and does it serve `native`?"
        }
        _ => return failure,
    };
    Failure { what: format!("{}\n  {advice}", failure.what), ..failure }
}
