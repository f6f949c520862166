//! Players that ask and are answered on the same connection: pings, echoes, joining and leaving.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use super::pattern::{Match, Pattern};
use super::schedule::{Pace, Schedule};
use super::window::{Latencies, latencies};
use super::{Clock, Nanos, Player, foreign, say};
use crate::vocabulary::{Aside, Vocabulary};

/// Answers that one connection may owe in an open loop before the server counts as fallen behind for good.
const OWED_MAX: usize = 100_000;

#[derive(Debug)]
pub struct Exchange<'v> {
    vocabulary: &'v dyn Vocabulary,
    pace: Pace,
    /// The request as often as the window is wide, so that any number of them is one slice.
    requests: Vec<u8>,
    request_bytes: usize,
    /// What each answer of one exchange looks like, as soon as the first has come.
    answers: Vec<Option<Pattern>>,
    seats: Vec<Seat>,
    schedule: Option<Schedule>,
    stopped: bool,
    /// The link that was just read.
    touched: Option<usize>,
    pub done: u64,
    asked: u64,
    pub latencies: Latencies,
}

#[derive(Clone, Debug, Default)]
struct Seat {
    /// Which answer of an exchange comes next.
    place: usize,
    /// When each exchange under way was, or was meant to be, begun.
    begun: VecDeque<Nanos>,
}

impl<'v> Exchange<'v> {
    pub fn new(vocabulary: &'v dyn Vocabulary, connections: usize, pace: Pace) -> io::Result<Exchange<'v>> {
        let (request, answers) = vocabulary.exchange()?;
        let window = match pace {
            Pace::Closed { window } => window.max(1),
            Pace::Open { .. } => 1,
        };
        let seat = Seat { place: 0, begun: VecDeque::with_capacity(window) };
        Ok(Exchange {
            vocabulary,
            pace,
            requests: request.repeat(window),
            request_bytes: request.len(),
            answers: vec![None; answers],
            seats: vec![seat; connections],
            schedule: None,
            stopped: true,
            touched: None,
            done: 0,
            asked: 0,
            latencies: latencies()?,
        })
    }

    pub fn schedule(&self) -> Option<&Schedule> {
        self.schedule.as_ref()
    }

    /// Brings the link's exchanges under way up to the window, in one send.
    fn fill(&mut self, link: usize, window: usize, clock: &Clock, links: &[OwnedFd]) -> io::Result<()> {
        let seat = &mut self.seats[link];
        let lacking = window.saturating_sub(seat.begun.len());
        if lacking == 0 {
            return Ok(());
        }
        let now = clock.now();
        seat.begun.extend(std::iter::repeat_n(now, lacking));
        self.asked += lacking as u64;
        say(&links[link], &self.requests[..lacking * self.request_bytes])
    }
}

impl Player for Exchange<'_> {
    fn hear(&mut self, link: usize, message: &[u8], now: Nanos, links: &[OwnedFd]) -> io::Result<()> {
        self.touched = Some(link);
        let seat = &mut self.seats[link];
        let fits = match &self.answers[seat.place] {
            Some(pattern) => pattern.read(message) != Match::No,
            None => false,
        };
        if !fits {
            match self.vocabulary.aside(message) {
                Aside::Ignore => return Ok(()),
                Aside::Reply(frame) => return say(&links[link], &frame),
                Aside::Foreign if self.answers[seat.place].is_some() => return Err(foreign(link, message)),
                Aside::Foreign => self.answers[seat.place] = Some(self.vocabulary.answer(seat.place, message)?),
            }
        }
        seat.place += 1;
        if seat.place < self.answers.len() {
            return Ok(());
        }
        seat.place = 0;
        let Some(begun) = seat.begun.pop_front() else { return Err(foreign(link, message)) };
        self.done += 1;
        self.latencies.saturating_record(now.saturating_sub(begun));
        Ok(())
    }

    fn refill(&mut self, clock: &Clock, links: &[OwnedFd]) -> io::Result<()> {
        match (self.touched.take(), self.pace) {
            (Some(link), Pace::Closed { window }) if !self.stopped => self.fill(link, window, clock, links),
            _ => Ok(()),
        }
    }

    fn due(&mut self, now: Nanos, links: &[OwnedFd]) -> io::Result<Option<Nanos>> {
        let Some(schedule) = self.schedule.as_mut().filter(|_| !self.stopped) else { return Ok(None) };
        while let Some((number, intended)) = schedule.take(now) {
            let link = (number % links.len() as u64) as usize;
            let seat = &mut self.seats[link];
            if seat.begun.len() >= OWED_MAX {
                return Err(io::Error::other("the server fell behind for good at this rate"));
            }
            seat.begun.push_back(intended);
            self.asked += 1;
            say(&links[link], &self.requests)?;
        }
        Ok(Some(schedule.next_at()))
    }

    fn begin(&mut self, clock: &Clock, links: &[OwnedFd]) -> io::Result<()> {
        (self.done, self.asked, self.stopped) = (0, 0, false);
        self.latencies.reset();
        match self.pace {
            Pace::Open { rate } => self.schedule = Some(Schedule::new(clock.now(), rate)),
            Pace::Closed { window } => {
                for link in 0..links.len() {
                    self.fill(link, window, clock, links)?;
                }
            }
        }
        Ok(())
    }

    fn stop(&mut self) {
        self.stopped = true;
    }

    fn missing(&self) -> u64 {
        self.asked - self.done
    }
}
