//! The table of cases.

mod batches;
mod codec;
mod dialects;
mod rooms;
mod turns;

/// Something to be measured.
pub struct Case {
    pub name: &'static str,
    /// What one run does so many of; the figures are for one.
    pub units: u64,
    /// How often it is run to count its instructions.
    pub counted: Counted,
    pub prepare: Prepare,
}

pub type Run = Box<dyn FnMut()>;

/// Makes what is run.
#[derive(Clone, Copy)]
pub enum Prepare {
    Endless(fn() -> Run),
    /// Its input is used up: good for so many runs.
    For(fn(u64) -> Run),
}

impl Case {
    pub fn prepare(&self, runs: u64) -> Run {
        match self.prepare {
            Prepare::Endless(prepare) => prepare(),
            Prepare::For(prepare) => prepare(runs),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// So many runs, and twice as many.
    Runs(u64),
    /// It is the kernel that takes its time.
    OnlyTimed,
}

pub fn all() -> impl Iterator<Item = &'static Case> {
    [turns::CASES, codec::CASES, dialects::CASES, rooms::CASES, batches::CASES].into_iter().flatten()
}

const fn case(name: &'static str, units: u64, counted: u64, prepare: fn() -> Run) -> Case {
    Case { name, units, counted: Counted::Runs(counted), prepare: Prepare::Endless(prepare) }
}

const fn consuming(name: &'static str, units: u64, counted: u64, prepare: fn(u64) -> Run) -> Case {
    Case { name, units, counted: Counted::Runs(counted), prepare: Prepare::For(prepare) }
}

const fn timed(name: &'static str, units: u64, prepare: fn() -> Run) -> Case {
    Case { name, units, counted: Counted::OnlyTimed, prepare: Prepare::Endless(prepare) }
}
