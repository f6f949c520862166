//! One store's worth of play: makes the rooms, lets everybody in, sees that all comes to an end.

use std::collections::BTreeSet;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

use super::actors::backend::Backend;
use super::actors::observer::{Decides, Observer};
use super::actors::page::Page;
use super::actors::speaker::Speaker;
use super::actors::writer::Writer;
use super::dice::Dice;
use super::history::Speaks;
use super::judge::{Rule, Tally};
use super::log::{self, text};
use super::options::Options;
use super::scene::{Book, Dialect, Phase, Place, Scene};

/// Once nothing breaks any more, all has to be answered, and everybody at the head, within this. The promise is five
/// seconds and each client's own pause; the rest is for a machine that does something else besides.
const FINISH: Duration = Duration::from_secs(20);
const SETTLE: Duration = Duration::from_secs(15);
const BACKENDS: usize = 2;
/// How often a log is looked at while something is waited for.
const LOOK: Duration = Duration::from_millis(50);

/// The rooms, and what could not be had and so is not checked.
#[derive(Debug, Default)]
pub struct Stage {
    pub places: Vec<Place>,
    pub unchecked: Vec<String>,
}

impl Stage {
    pub fn build(scene: &Scene, options: &Options) -> Stage {
        let mut stage = Stage::default();
        for dialect in options.speaks() {
            let rooms = if dialect == Dialect::Tickets { 1 } else { options.rooms };
            for number in 0..rooms {
                match place(scene, dialect, number) {
                    Ok(place) => stage.places.push(place),
                    Err(why) => stage.unchecked.push(format!("{dialect:?}, room {number}: {why}")),
                }
            }
        }
        stage
    }

    /// Takes away what can be taken away: the prompts. Rooms have no end but their retention.
    pub fn strike(&self, scene: &Scene) {
        for place in self.places.iter().filter(|place| place.dialect == Dialect::Documents) {
            // The verdict stands; a server that does not answer any more changes nothing about it.
            let _ = scene.door.ask("DELETE", &format!("/api/prompts/{}", place.name), None, false);
        }
    }
}

fn place(scene: &Scene, dialect: Dialect, number: u32) -> Result<Place, String> {
    let own = format!("verify-{}-{number}", scene.label);
    let made = |method: &str, path: &str, body: &Value, as_backend: bool| {
        let answer = scene.door.ask(method, path, Some(body), as_backend).map_err(|failure| failure.what)?;
        if answer.is_well() { Ok(answer.body) } else { Err(format!("{method} {path}: {}", answer.reason())) }
    };
    let (room, name) = match dialect {
        Dialect::Native => (format!("verify:{}:{number}", scene.label), String::new()),
        Dialect::Documents => {
            let body = json!({"name": own, "content": format!("before {own}"), "description": "Made by cast verify"});
            let prompt = made("POST", "/api/prompts/", &body, false)?;
            let id = text(&prompt, "id").to_owned();
            (format!("doc:{id}"), id)
        }
        Dialect::Workflows => (format!("workflow:{own}"), own),
        Dialect::Tickets => ("tickets".to_owned(), String::new()),
        Dialect::Agents => {
            let id = uuid(scene, &own);
            made("POST", "/v1/sessions", &json!({"id": id}), true)?;
            (format!("session:{id}"), id)
        }
    };
    Ok(Place { dialect, room, name })
}

/// Of this name, in the form of a random one.
fn uuid(scene: &Scene, name: &str) -> String {
    let mut dice = scene.dice(name);
    let (high, low) = (dice.next(), dice.next());
    let variant = 0x8000 | (low >> 48 & 0x3fff);
    format!(
        "{:08x}-{:04x}-4{:03x}-{variant:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low & 0xffff_ffff_ffff
    )
}

/// Lets everybody play while `chaos` lasts, then brings all to an end. What did not come to one is in the tally or, of
/// clients, in the history. An error of `chaos` ends the play at once.
pub fn play(
    scene: &Scene,
    stage: &Stage,
    options: &Options,
    chaos: impl FnOnce() -> Result<(), String>,
) -> Result<Tally, String> {
    let books: Vec<[Book; 2]> = stage.places.iter().map(|_| Default::default()).collect();
    let mut tally = Tally::default();
    thread::scope(|scope| {
        let cast = Cast { scene, options, scope };
        let (mut writers, mut watchers, mut backends) = (Vec::new(), Vec::new(), Vec::new());
        let mut pages = 0;
        for (place, books) in stage.places.iter().zip(&books) {
            writers.extend(cast.writers(place, books));
            watchers.extend(cast.observers(place));
            let own = cast.pages(place);
            pages += own.len();
            watchers.extend(own);
        }
        let with_tasks = |place: &&Place| matches!(place.dialect, Dialect::Agents | Dialect::Tickets);
        if stage.places.iter().any(|place| with_tasks(&place)) {
            backends.extend((0..BACKENDS).map(|number| cast.backend(number)));
        }

        let played = chaos();
        if played.is_ok() {
            scene.enter(Phase::Finish, FINISH);
            join(writers);
            wait_until(scene, || scene.attached() >= pages);
            for place in stage.places.iter().filter(|place| place.dialect == Dialect::Agents) {
                let mut open = String::new();
                let ended = wait_until(scene, || {
                    open = open_runs(scene, place);
                    open.is_empty()
                });
                tally.check(Rule::Liveness, ended, || format!("{}: {open}", place.room));
            }
            scene.enter(Phase::Settle, SETTLE);
            let said = say_last_words(scene, &stage.places);
            tally.check(Rule::Liveness, said, || "the last events were not taken".to_owned());
            join(watchers);
        }
        scene.enter(Phase::Over, Duration::ZERO);
        join(backends);
        played
    })?;
    Ok(tally)
}

/// A thread that panicked has shown its message already, and its part of the history is kept.
fn join(threads: Vec<ScopedJoinHandle<'_, ()>>) {
    for thread in threads {
        let _ = thread.join();
    }
}

fn wait_until(scene: &Scene, mut is_so: impl FnMut() -> bool) -> bool {
    loop {
        if is_so() {
            return true;
        }
        if scene.is_late() {
            return false;
        }
        thread::sleep(LOOK);
    }
}

/// Runs that a command began and no `complete` ended.
fn open_runs(scene: &Scene, place: &Place) -> String {
    let log = match log::read(&scene.door, &place.room) {
        Ok(log) => log,
        Err(why) => return why,
    };
    let of = |kind: &str| -> BTreeSet<&str> {
        let events = log.events.iter().filter(|event| event.kind == kind);
        events.map(|event| text(&event.data, "execution_id")).collect()
    };
    let open: Vec<&str> = of("thinking").difference(&of("complete")).copied().collect();
    if open.is_empty() { String::new() } else { format!("runs without an end: {}", open.join(", ")) }
}

/// One event more in each room, by which everybody knows that this is the end.
fn say_last_words(scene: &Scene, places: &[Place]) -> bool {
    let mut dice = scene.dice("last words");
    let mut open: BTreeSet<usize> = (0..places.len()).collect();
    while !open.is_empty() && !scene.is_late() {
        let Some(mut link) = scene.visit("last words", Speaks::Native, "", "/v1/connect", &mut dice) else { continue };
        for (number, place) in places.iter().enumerate().filter(|(number, _)| open.contains(number)) {
            let id = format!("last-{}-{number}", scene.label);
            if link.say(&place.publish(&id, &scene.last_words())).is_err() {
                break;
            }
        }
        while let Ok(Some(frame)) = link.hear(Duration::from_secs(2)) {
            if text(&frame, "op") == "ok"
                && let Some(number) = text(&frame, "id").rsplit('-').next().and_then(|number| number.parse().ok())
            {
                open.remove(&number);
            }
            if open.is_empty() {
                break;
            }
        }
    }
    open.is_empty()
}

/// Starts the players, each in a thread of the scope.
struct Cast<'s, 'e> {
    scene: &'e Scene,
    options: &'e Options,
    scope: &'s thread::Scope<'s, 'e>,
}

type Handle<'s> = ScopedJoinHandle<'s, ()>;

impl<'s, 'e> Cast<'s, 'e> {
    fn writers(&self, place: &'e Place, books: &'e [Book; 2]) -> Vec<Handle<'s>> {
        let speaks: &[(Speaks, &'e Book)] = match place.dialect {
            Dialect::Agents => &[],
            Dialect::Documents => &[(Speaks::Document, &books[0]), (Speaks::Native, &books[1])],
            Dialect::Native | Dialect::Workflows | Dialect::Tickets => &[(Speaks::Native, &books[0])],
        };
        let mut started = Vec::new();
        for number in 0..self.options.writers {
            for (speaks, book) in speaks {
                let (name, dice) = self.named("writer", place, &format!("{}{number}", *speaks as u8));
                let scene = self.scene;
                let writer = Writer { scene, place, book, speaks: *speaks, name, dice, made: 0 };
                started.push(self.scope.spawn(move || writer.run()));
            }
            if matches!(place.dialect, Dialect::Agents | Dialect::Tickets) {
                let (name, dice) = self.named("speaker", place, &number.to_string());
                let speaker = Speaker { scene: self.scene, place, name, dice, made: 0 };
                started.push(self.scope.spawn(move || speaker.run()));
            }
        }
        started
    }

    fn observers(&self, place: &'e Place) -> Vec<Handle<'s>> {
        let mut started = Vec::new();
        for number in 0..self.options.observers {
            let decides = match (place.dialect, number) {
                (Dialect::Agents, 0) => Decides::Natively,
                (Dialect::Agents, 1) => Decides::OverRest,
                _ => Decides::Never,
            };
            let (name, dice) = self.named("observer", place, &number.to_string());
            let (book, decided) = (Book::default(), BTreeSet::new());
            let observer = Observer { scene: self.scene, place, name, dice, decides, book, decided, since: None };
            started.push(self.scope.spawn(move || observer.run()));
        }
        started
    }

    fn pages(&self, place: &'e Place) -> Vec<Handle<'s>> {
        if place.page("", None).is_none() {
            return Vec::new();
        }
        let start = |number| {
            let (name, dice) = self.named("page", place, &format!("{number}"));
            let page = Page { scene: self.scene, place, name, dice, decides: true, head: 0, is_attached: false };
            self.scope.spawn(move || page.run())
        };
        (0..self.options.observers).map(start).collect()
    }

    fn backend(&self, number: usize) -> Handle<'s> {
        let name = format!("backend-{}-{number}", self.scene.label);
        let dice = self.scene.dice(&name);
        let backend = Backend { scene: self.scene, name, dice, asked: Default::default() };
        self.scope.spawn(move || backend.run())
    }

    /// Names are in ids of operations and in paths: short, and of letters that need no escape.
    fn named(&self, role: &str, place: &Place, which: &str) -> (String, Dice) {
        let end: String = place.room.chars().rev().take(4).filter(char::is_ascii_alphanumeric).collect();
        let dialect: String = format!("{:?}", place.dialect).chars().take(3).collect();
        let name = format!("{role}-{which}-{dialect}{end}-{}", self.scene.label);
        let dice = self.scene.dice(&name);
        (name, dice)
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::Door;
    use super::*;
    use crate::target::Address;

    #[test]
    fn sessions_get_uuids_of_version_4() {
        let server = Address { host: "h".to_owned(), port: 1, path: "/".to_owned() };
        let door = Door { server, token: None, api_key: None };
        let id = uuid(&Scene::new(door, 7, "x".to_owned(), Duration::ZERO), "a");
        let parts: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12], "{id}");
        assert!(id.chars().nth(14) == Some('4') && id.chars().nth(19).is_some_and(|c| "89ab".contains(c)), "{id}");
    }
}
