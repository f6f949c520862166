//! Memory of connections at rest: resident memory with some of them, with many, and what one costs between the two.

use std::io;
use std::time::Duration;

use crate::engine::dial::{Dialer, Opened, cut};
use crate::figures::Figures;
use crate::measure::Subject;
use crate::observe::rss_bytes;
use crate::vocabulary::{Role, Seat, Vocabulary};

/// Before memory is looked at.
const REST: Duration = Duration::from_millis(1_500);

pub fn run(
    subject: &Subject,
    vocabulary: &dyn Vocabulary,
    some: usize,
    many: usize,
    rooms: usize,
) -> io::Result<Figures> {
    let pid = subject.pid.ok_or_else(|| io::Error::other("memory can be seen of a process of this machine only"))?;
    let seats: Vec<Seat> = (0..many).map(|number| Seat { room: number % rooms, role: Role::Member }).collect();
    let empty = rss_bytes(pid)?;
    let (few_seats, more_seats) = seats.split_at(some.min(many));
    let dialer = Dialer::new(subject.address, vocabulary);
    let mut links = dialer.open(few_seats)?;
    std::thread::sleep(REST);
    let with_some = rss_bytes(pid)?;
    links.extend(dialer.open(more_seats)?);
    std::thread::sleep(REST);
    let with_many = rss_bytes(pid)?;
    cut_all(links)?;
    let slope = (with_many as f64 - with_some as f64) / more_seats.len().max(1) as f64;
    let from_empty = (with_many as f64 - empty as f64) / many.max(1) as f64;
    Ok(Figures {
        server: subject.name.clone(),
        unit: "connection",
        rss_bytes: Some(with_many),
        extra: [("bytes", slope), ("bytes_from_empty", from_empty)].into(),
        ..Figures::default()
    })
}

fn cut_all(links: Vec<Opened>) -> io::Result<()> {
    links.into_iter().try_for_each(|(link, _)| cut(link))
}
