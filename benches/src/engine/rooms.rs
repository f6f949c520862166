//! Players in rooms: one publisher per room, members who must hear every message of it, in order, once.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use super::pattern::{Match, Pattern};
use super::schedule::{Pace, Schedule};
use super::window::{Latencies, latencies};
use super::{Clock, Nanos, Player, foreign, say};
use crate::vocabulary::{Aside, Role, Seat, Vocabulary};
use crate::wire::{FIRST_SERIAL, Stamped};

/// When a publisher says its next message in a closed loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// When every member has one more.
    Heard,
    /// When the server has confirmed one more.
    Confirmed,
    /// When both is so.
    Both,
}

/// Messages of a room that may be under way in an open loop before the server counts as fallen behind for good.
const BEHIND_MAX: usize = 100_000;

#[derive(Debug)]
pub struct Rooms<'v> {
    vocabulary: &'v dyn Vocabulary,
    pace: Pace,
    next: Next,
    seats: Vec<Seat>,
    /// Of each link, the next serial it has to hear.
    expected: Vec<u64>,
    rooms: Vec<Room>,
    schedule: Option<Schedule>,
    stopped: bool,
    /// Rooms in which something came since the last refill.
    touched: Vec<usize>,
    out: Vec<u8>,
    /// Messages that every member has, and the confirmations and deliveries that came.
    pub done: u64,
    pub confirmed: u64,
    pub delivered: u64,
    /// From when a message was, or was meant to be, sent until its last member had it.
    pub latencies: Latencies,
    /// The same until its confirmation.
    pub confirmations: Latencies,
}

#[derive(Debug)]
struct Room {
    publisher: usize,
    members: u32,
    saying: Stamped,
    heard: Option<Pattern>,
    confirmation: Option<Pattern>,
    /// Serial of the next message.
    next: u64,
    /// Messages that every member has, and messages confirmed, since the room began.
    done: u64,
    confirmed: u64,
    /// Of the messages that are not over: how many members have them not yet, and when they were sent.
    under_way: VecDeque<(u32, Nanos)>,
    /// When the messages were sent whose confirmation has not come.
    unconfirmed: VecDeque<Nanos>,
}

impl Room {
    fn sent(&self) -> u64 {
        self.next - FIRST_SERIAL
    }
}

impl<'v> Rooms<'v> {
    /// `seats` say who sits where; every room has exactly one publisher.
    pub fn new(vocabulary: &'v dyn Vocabulary, seats: Vec<Seat>, pace: Pace, next: Next) -> io::Result<Rooms<'v>> {
        let count = seats.iter().map(|seat| seat.room + 1).max().unwrap_or(0);
        let mut publishers = vec![None; count];
        let mut members = vec![0; count];
        for (link, seat) in seats.iter().enumerate() {
            match seat.role {
                Role::Publisher => publishers[seat.room] = Some(link),
                Role::Member => members[seat.room] += 1,
            }
        }
        let rooms = publishers.into_iter().zip(members).enumerate().map(|(room, (publisher, members))| {
            Ok(Room {
                publisher: publisher.ok_or_else(|| io::Error::other(format!("room {room} has no publisher")))?,
                members,
                saying: vocabulary.saying(room)?,
                heard: None,
                confirmation: None,
                next: FIRST_SERIAL,
                done: 0,
                confirmed: 0,
                under_way: VecDeque::with_capacity(64),
                unconfirmed: VecDeque::with_capacity(64),
            })
        });
        let rooms = rooms.collect::<io::Result<Vec<_>>>()?;
        Ok(Rooms {
            vocabulary,
            pace,
            next,
            expected: vec![FIRST_SERIAL; seats.len()],
            seats,
            rooms,
            schedule: None,
            stopped: true,
            touched: Vec::new(),
            out: Vec::new(),
            done: 0,
            confirmed: 0,
            delivered: 0,
            latencies: latencies()?,
            confirmations: latencies()?,
        })
    }

    pub fn schedule(&self) -> Option<&Schedule> {
        self.schedule.as_ref()
    }

    fn hear_member(&mut self, link: usize, message: &[u8], now: Nanos, links: &[OwnedFd]) -> io::Result<()> {
        let index = self.seats[link].room;
        let room = &mut self.rooms[index];
        let mut read = room.heard.as_ref().map_or(Match::No, |pattern| pattern.read(message));
        if read == Match::No {
            match self.vocabulary.aside(message) {
                Aside::Ignore => return Ok(()),
                Aside::Reply(frame) => return say(&links[link], &frame),
                Aside::Foreign if room.heard.is_some() => return Err(foreign(link, message)),
                Aside::Foreign => {
                    let pattern = self.vocabulary.heard(index, message)?;
                    read = pattern.read(message);
                    room.heard = Some(pattern);
                }
            }
        }
        if read != Match::Serial(self.expected[link]) {
            let expected = self.expected[link];
            return Err(io::Error::other(format!(
                "connection {link} was to hear message {expected} of room {index} and heard {read:?}: one was lost, \
                 repeated or out of order"
            )));
        }
        let oldest = FIRST_SERIAL + room.done;
        let place = (self.expected[link] - oldest) as usize;
        self.expected[link] += 1;
        self.delivered += 1;
        let Some((missing, sent)) = room.under_way.get_mut(place) else { return Err(foreign(link, message)) };
        *missing -= 1;
        // Each member hears in order, so the oldest message is over first.
        if *missing == 0 {
            self.latencies.saturating_record(now.saturating_sub(*sent));
            room.under_way.pop_front();
            room.done += 1;
            self.done += 1;
            self.touched.push(index);
        }
        Ok(())
    }

    fn hear_publisher(&mut self, link: usize, message: &[u8], now: Nanos, links: &[OwnedFd]) -> io::Result<()> {
        let index = self.seats[link].room;
        let room = &mut self.rooms[index];
        let fits = room.confirmation.as_ref().is_some_and(|pattern| pattern.read(message) != Match::No);
        if !fits {
            match self.vocabulary.aside(message) {
                Aside::Ignore => return Ok(()),
                Aside::Reply(frame) => return say(&links[link], &frame),
                Aside::Foreign if room.confirmation.is_some() => return Err(foreign(link, message)),
                Aside::Foreign => room.confirmation = Some(self.vocabulary.confirmation(message)?),
            }
        }
        let Some(sent) = room.unconfirmed.pop_front() else { return Err(foreign(link, message)) };
        self.confirmations.saturating_record(now.saturating_sub(sent));
        room.confirmed += 1;
        self.confirmed += 1;
        self.touched.push(index);
        Ok(())
    }

    /// Brings the room's messages under way up to the window, in one send.
    fn fill(&mut self, index: usize, window: u64, clock: &Clock, links: &[OwnedFd]) -> io::Result<()> {
        let room = &self.rooms[index];
        let over = match self.next {
            Next::Heard => room.done,
            Next::Confirmed => room.confirmed,
            Next::Both => room.done.min(room.confirmed),
        };
        let lacking = (over + window).saturating_sub(room.sent());
        if lacking == 0 {
            return Ok(());
        }
        let now = clock.now();
        self.send(index, std::iter::repeat_n(now, lacking as usize), links)
    }

    fn send(&mut self, index: usize, times: impl Iterator<Item = Nanos>, links: &[OwnedFd]) -> io::Result<()> {
        let room = &mut self.rooms[index];
        self.out.clear();
        for time in times {
            room.saying.put(room.next, &mut self.out);
            room.next += 1;
            room.under_way.push_back((room.members, time));
            if self.vocabulary.confirms() {
                room.unconfirmed.push_back(time);
            }
        }
        say(&links[room.publisher], &self.out)
    }
}

impl Player for Rooms<'_> {
    fn hear(&mut self, link: usize, message: &[u8], now: Nanos, links: &[OwnedFd]) -> io::Result<()> {
        match self.seats[link].role {
            Role::Member => self.hear_member(link, message, now, links),
            Role::Publisher => self.hear_publisher(link, message, now, links),
        }
    }

    fn refill(&mut self, clock: &Clock, links: &[OwnedFd]) -> io::Result<()> {
        match self.pace {
            Pace::Closed { window } if !self.stopped => {
                while let Some(room) = self.touched.pop() {
                    self.fill(room, window as u64, clock, links)?;
                }
            }
            _ => self.touched.clear(),
        }
        Ok(())
    }

    fn due(&mut self, now: Nanos, links: &[OwnedFd]) -> io::Result<Option<Nanos>> {
        let rooms = self.rooms.len() as u64;
        loop {
            let Some(schedule) = self.schedule.as_mut().filter(|_| !self.stopped) else { return Ok(None) };
            let Some((number, intended)) = schedule.take(now) else { return Ok(Some(schedule.next_at())) };
            let room = (number % rooms) as usize;
            if self.rooms[room].under_way.len() >= BEHIND_MAX {
                return Err(io::Error::other("the server fell behind for good at this rate"));
            }
            self.send(room, std::iter::once(intended), links)?;
        }
    }

    fn begin(&mut self, clock: &Clock, links: &[OwnedFd]) -> io::Result<()> {
        (self.done, self.confirmed, self.delivered, self.stopped) = (0, 0, 0, false);
        self.latencies.reset();
        self.confirmations.reset();
        match self.pace {
            Pace::Open { rate } => self.schedule = Some(Schedule::new(clock.now(), rate)),
            Pace::Closed { window } => {
                for room in 0..self.rooms.len() {
                    self.fill(room, window as u64, clock, links)?;
                }
            }
        }
        Ok(())
    }

    fn stop(&mut self) {
        self.stopped = true;
    }

    fn missing(&self) -> u64 {
        self.rooms.iter().map(|room| (room.under_way.len() + room.unconfirmed.len()) as u64).sum()
    }
}
