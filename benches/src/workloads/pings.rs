//! Ping-pong: every connection asks and is answered, one at a time, pipelined, or at a fixed rate.

use std::io;

use super::crowd;
use crate::engine::exchange::Exchange;
use crate::engine::schedule::Pace;
use crate::figures::{Figures, Percentiles};
use crate::measure::{Plan, Subject, behind, measure};
use crate::servers::ANYWHERE;
use crate::vocabulary::Vocabulary;

pub fn run(
    subject: &Subject,
    vocabulary: &dyn Vocabulary,
    connections: usize,
    pace: Pace,
    plan: &Plan,
) -> io::Result<Figures> {
    let mut crowd = crowd(subject, vocabulary, &vec![ANYWHERE; connections])?;
    let mut player = Exchange::new(vocabulary, connections, pace)?;
    measure(
        subject,
        plan,
        &mut crowd,
        &mut player,
        "message",
        |player| player.done,
        |player, figures| {
            figures.latency = Percentiles::of(&player.latencies);
            figures.warning = behind(player.schedule()).or(figures.warning.take());
        },
    )
}
