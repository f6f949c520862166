//! Fan-out: a publisher in each room, members who all have to hear it; volatile, stored, or documents' updates.

use std::io;

use super::crowd;
use crate::engine::rooms::{Next, Rooms};
use crate::engine::schedule::Pace;
use crate::figures::{Figures, Percentiles};
use crate::measure::{Plan, Subject, behind, measure};
use crate::vocabulary::{Role, Seat, Vocabulary};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Each message to each member.
    Delivery,
    /// Each message that all members have and, where there are confirmations, that is confirmed.
    Update,
}

#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub rooms: usize,
    /// Of each room, beside its publisher.
    pub members: usize,
}

impl Size {
    /// Rooms one after the other, its publisher first in each.
    pub fn seats(self) -> Vec<Seat> {
        let room = |room| {
            let role = |place| if place == 0 { Role::Publisher } else { Role::Member };
            (0..=self.members).map(move |place| Seat { room, role: role(place) })
        };
        (0..self.rooms).flat_map(room).collect()
    }
}

pub fn run(
    subject: &Subject,
    vocabulary: &dyn Vocabulary,
    size: Size,
    pace: Pace,
    next: Next,
    unit: Unit,
    plan: &Plan,
) -> io::Result<Figures> {
    let seats = size.seats();
    let mut crowd = crowd(subject, vocabulary, &seats)?;
    let mut player = Rooms::new(vocabulary, seats, pace, next)?;
    let (name, count): (_, fn(&Rooms<'_>) -> u64) = match unit {
        Unit::Delivery => ("delivery", |player| player.delivered),
        Unit::Update => ("update", |player| player.done),
    };
    measure(subject, plan, &mut crowd, &mut player, name, count, |player, figures| {
        figures.latency = Percentiles::of(&player.latencies);
        figures.warning = behind(player.schedule()).or(figures.warning.take());
        if let Some(confirmed) = Percentiles::of(&player.confirmations) {
            figures.extra.insert("confirmed_p50_micros", confirmed.p50 as f64 / 1e3);
            figures.extra.insert("confirmed_p99_micros", confirmed.p99 as f64 / 1e3);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_room_has_one_publisher() {
        let seats = Size { rooms: 2, members: 2 }.seats();
        let roles: Vec<(usize, Role)> = seats.iter().map(|seat| (seat.room, seat.role)).collect();
        let room = |room| [(room, Role::Publisher), (room, Role::Member), (room, Role::Member)];
        assert_eq!(roles, [room(0), room(1)].concat());
    }
}
