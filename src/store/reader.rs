//! A reader: answers questions over one snapshot each, off the reactors' threads.
//!
//! Reading and encoding a page or a listing takes as long as it takes; here it stalls nobody. Several readers share one
//! queue.

use std::sync::Arc;
use std::time::Duration;

use super::{Answer, Committed, Delivery, Page, Question, Reset, Snapshots};
use crate::dialect::{self, ConnView, Env, Failure, Frames, Name};
#[cfg(feature = "canary")]
use crate::failpoints::{self, Site};
use crate::ids::{RoomName, Seq};
use crate::limits::{CENSUS_WAIT, PAGE_BYTES_MAX, PAGE_EVENTS_MAX};
use crate::mailbox::{self, Inbox, Mailbox};
use crate::model::{Rows, RowsError};

#[derive(Debug)]
pub struct Reader<R, I> {
    store: R,
    inbox: Inbox<Question>,
    reactors: Vec<Mailbox<I>>,
    env: Arc<Env>,
}

impl<R: Snapshots, I: From<Delivery> + Send> Reader<R, I> {
    pub fn new(store: R, inbox: Inbox<Question>, reactors: Vec<Mailbox<I>>, env: Arc<Env>) -> Reader<R, I> {
        Reader { store, inbox, reactors, env }
    }

    /// Answers until every sender is gone.
    pub fn run(mut self) {
        while let Ok(question) = self.inbox.wait(Duration::from_secs(3600)) {
            if let Some(question) = question {
                self.answer(question);
            }
        }
    }

    /// Answers one waiting question. Never waits.
    pub fn turn(&mut self) -> bool {
        match self.inbox.take() {
            Some(question) => {
                self.answer(question);
                true
            }
            None => false,
        }
    }

    fn answer(&mut self, question: Question) {
        let (reactor, delivery) = match question {
            Question::Ask { to, asker, read, rights } => {
                let env = self.env.clone();
                let ask = |rows: &mut dyn Rows| dialect::read(&read, &asker, rows, &env, rights.as_deref());
                let commits = env.directory.commits();
                let reply = match self.over_snapshot(ask) {
                    Ok(reply) => reply,
                    Err(error) => dialect::read_failed(&read, failure_of(&error)),
                };
                if let dialect::Reply::Welcome { starts, stand: Some(stand), .. } = &reply
                    && let [start] = starts.as_slice()
                {
                    env.directory.remember(&start.room, *stand, commits);
                }
                (to.reactor, Delivery::Answer(Answer { to, reply }))
            }
            Question::Census { to, read } => {
                let views = self.everybody();
                let env = self.env.clone();
                let reply = match self.over_snapshot(|rows| dialect::census(&read, &views, rows, &env)) {
                    Ok(reply) => reply,
                    Err(error) => dialect::read_failed(&read, failure_of(&error)),
                };
                (to.reactor, Delivery::Answer(Answer { to, reply }))
            }
            Question::Page { reactor, room, after, listeners } => {
                let page = match self.over_snapshot(|rows| read_page(rows, &room, after, listeners)) {
                    Ok(page) => page,
                    Err(error) => {
                        log::warn!("a page of {room} could not be read: {error}");
                        Page { room, after, listeners, events: Vec::new(), reset: None, failed: true }
                    }
                };
                (reactor, Delivery::Page(page))
            }
        };
        if let Some(mailbox) = self.reactors.get_mut(usize::from(reactor)) {
            mailbox.post_or_wait(I::from(delivery));
            mailbox.ring();
        }
    }

    /// Asks every reactor who is connected. One that does not say so in time is left out: a reader must not hang on a
    /// reactor that is ending.
    fn everybody(&mut self) -> Vec<ConnView> {
        let (sender, lists) = mailbox::plain(self.reactors.len());
        for reactor in &mut self.reactors {
            reactor.post_or_wait(I::from(Delivery::Census(sender.clone())));
            reactor.ring();
        }
        drop(sender);
        let mut views = Vec::new();
        for _ in 0..self.reactors.len() {
            match lists.recv_timeout(CENSUS_WAIT) {
                Ok(mut list) => views.append(&mut list),
                Err(_) => break,
            }
        }
        views.sort_by_key(|view| view.id);
        views
    }

    fn over_snapshot<T>(&mut self, ask: impl FnOnce(&mut dyn Rows) -> Result<T, RowsError>) -> Result<T, RowsError> {
        #[cfg(feature = "canary")]
        failpoints::pass(Site::Reader);
        self.store.begin()?;
        let answer = ask(self.store.rows());
        self.store.end();
        answer
    }
}

fn failure_of(error: &RowsError) -> Failure {
    match error {
        RowsError::Busy => Failure::Busy,
        RowsError::Full => Failure::Full,
        RowsError::Broken(why) => {
            log::error!("a read failed: {why}");
            Failure::Broken
        }
    }
}

/// A run of at least one event, or a reset where the log does not reach back to `after`, or nothing at the head.
fn read_page(rows: &mut dyn Rows, room: &RoomName, after: Seq, listeners: u8) -> Result<Page, RowsError> {
    let empty = |reset| Page { room: room.clone(), after, listeners, events: Vec::new(), reset, failed: false };
    let Some(row) = rows.room(room.as_str())? else {
        return Ok(empty(None));
    };
    if after < row.floor || after > row.head {
        let mut frames = Frames::default();
        for name in Name::ALL.into_iter().filter(|name| listeners & name.bit() != 0) {
            let snapshot = dialect::snapshot(name, room, rows)?;
            frames.set(name, snapshot.of(name).clone());
        }
        return Ok(empty(Some(Reset { epoch: row.epoch, seq: row.head, frames })));
    }
    let events = rows.events(room.as_str(), after, PAGE_EVENTS_MAX, PAGE_BYTES_MAX)?;
    let events = events.iter().map(|event| Committed::seal(room, event, listeners)).collect();
    Ok(Page { room: room.clone(), after, listeners, events, reset: None, failed: false })
}
