//! The only place that reads time: a monotonic instant for deadlines, a wall clock for what people read.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Nanoseconds since the clock was made; never goes back, knows nothing of dates.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Mono(pub u64);

impl Mono {
    pub fn after(self, wait: Duration) -> Mono {
        // In 64 bits: this is on the path of every message, and 584 years are enough.
        let nanos = wait.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(wait.subsec_nanos()));
        Mono(self.0.saturating_add(nanos))
    }

    /// Zero when `earlier` is later.
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// An instant or none, in eight bytes where an `Option<Mono>` takes sixteen: a connection at rest holds several.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MaybeMono(Option<NonZeroU64>);

impl MaybeMono {
    pub const NONE: MaybeMono = MaybeMono(None);

    pub fn get(self) -> Option<Mono> {
        self.0.map(|above| Mono(above.get() - 1))
    }

    pub fn is_some(self) -> bool {
        self.0.is_some()
    }
}

impl From<Mono> for MaybeMono {
    fn from(at: Mono) -> MaybeMono {
        // One above, so that the clock's first instant is one, too; its last one is 584 years away.
        MaybeMono(NonZeroU64::new(at.0.saturating_add(1)))
    }
}

/// Microseconds since 1970-01-01T00:00:00Z; follows whoever sets the machine's clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Wall(pub i64);

impl Wall {
    pub fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }
}

/// Reads both. `Manual` is for the simulation: time moves only when the test says so.
#[derive(Clone, Debug)]
pub enum Clock {
    System(Instant),
    /// (monotonic nanoseconds, wall microseconds)
    Manual(Arc<(AtomicU64, AtomicU64)>),
}

impl Clock {
    pub fn system() -> Clock {
        Clock::System(Instant::now())
    }

    pub fn manual(mono: Mono, wall: Wall) -> Clock {
        Clock::Manual(Arc::new((AtomicU64::new(mono.0), AtomicU64::new(wall.0 as u64))))
    }

    pub fn mono(&self) -> Mono {
        match self {
            Clock::System(start) => Mono(start.elapsed().as_nanos() as u64),
            Clock::Manual(time) => Mono(time.0.load(Ordering::Relaxed)),
        }
    }

    pub fn wall(&self) -> Wall {
        match self {
            Clock::System(_) => match SystemTime::now().duration_since(UNIX_EPOCH) {
                Ok(since) => Wall(since.as_micros() as i64),
                Err(before) => Wall(-(before.duration().as_micros() as i64)),
            },
            Clock::Manual(time) => Wall(time.1.load(Ordering::Relaxed) as i64),
        }
    }

    /// Moves a manual clock on; the system's own clock takes no orders.
    pub fn advance(&self, by: Duration) {
        if let Clock::Manual(time) = self {
            time.0.fetch_add(by.as_nanos() as u64, Ordering::Relaxed);
            time.1.fetch_add(by.as_micros() as u64, Ordering::Relaxed);
        }
    }
}
