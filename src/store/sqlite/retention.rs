//! Retention: which events, recorded answers, finished tasks and marks may go, found outside a transaction and removed in one of bounded size.

use std::collections::HashSet;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::columns::{SEQ_MAX, place, text};
use super::tables::Tables;
use super::writer::SqliteStore;
use crate::clock::Wall;
use crate::ids::RoomName;
use crate::limits;
use crate::limits::{MARKS_MAX, TASK_SPAN, TRIM_MARKS, TRIM_TASKS};
use crate::model::RowsError;
use crate::store::seam::{CommitError, Keep, Retention, Store as _};

impl SqliteStore {
    /// Rooms whose floor rose are added to `trimmed`.
    pub(super) fn trim(
        &mut self,
        now: Wall,
        retention: &Retention,
        trimmed: &mut Vec<RoomName>,
    ) -> Result<(), RowsError> {
        let planned = self.plan(now, retention);
        let plan = self.tables.check(planned)?;
        if plan.is_empty() {
            return Ok(());
        }
        let carried_out = self.carry_out(now, &plan);
        match carried_out {
            Ok(()) => trimmed.extend(plan.floors.into_iter().map(|floor| floor.name)),
            Err(_) => self.trim.grown.extend(plan.floors.iter().map(|floor| floor.room)),
        }
        carried_out
    }

    fn carry_out(&mut self, now: Wall, plan: &Plan) -> Result<(), RowsError> {
        self.begin(now)?;
        let carried_out = self.tables.carry_out(plan);
        if let Err(error) = self.tables.check(carried_out) {
            self.rollback();
            return Err(error);
        }
        self.commit().map_err(|error| match error {
            CommitError::Refused(error) => error,
            CommitError::Unknown(why) => RowsError::Broken(why),
        })
    }

    /// What is to go, found without a transaction: nobody else writes.
    fn plan(&mut self, now: Wall, retention: &Retention) -> rusqlite::Result<Plan> {
        self.trim.more = false;
        let mut plan = Plan::default();
        if !retention.rules.is_empty() {
            self.plan_events(now, retention, &mut plan)?;
        }
        self.plan_operations(now, &mut plan)?;
        self.plan_tasks(now, &mut plan)?;
        self.plan_marks(&mut plan)?;
        Ok(plan)
    }

    fn plan_operations(&mut self, now: Wall, plan: &mut Plan) -> rusqlite::Result<()> {
        let cutoff = before(now, limits::OPERATION_SPAN);
        let mut page = Rotation::new(limits::TRIM_OPERATIONS);
        let mut statement = self.tables.conn.prepare_cached(
            "SELECT o.id, o.at, r.operations - o.number FROM operation o JOIN room r ON r.id = o.room
             WHERE o.id > ?1 ORDER BY o.id LIMIT ?2 + 0",
        )?;
        let mut found = statement.query(params![self.trim.operation, limits::TRIM_OPERATIONS as i64])?;
        while let Some(row) = found.next()? {
            if row.get::<_, i64>(1)? >= cutoff {
                break;
            }
            page.reach(row.get(0)?);
            if row.get::<_, i64>(2)? >= limits::OPERATIONS_KEPT as i64 {
                plan.operations.push(page.reached);
            }
        }
        self.trim.operation = page.next();
        self.trim.more |= page.full() && !plan.operations.is_empty();
        Ok(())
    }

    /// None is done before it was made: from the first that is too young on, all are.
    fn plan_tasks(&mut self, now: Wall, plan: &mut Plan) -> rusqlite::Result<()> {
        let cutoff = before(now, TASK_SPAN);
        let mut page = Rotation::new(TRIM_TASKS);
        let mut statement = self
            .tables
            .conn
            .prepare_cached("SELECT id, created_at, done_at FROM task WHERE id > ?1 ORDER BY id LIMIT ?2 + 0")?;
        let mut found = statement.query(params![self.trim.task, TRIM_TASKS as i64])?;
        while let Some(row) = found.next()? {
            if row.get::<_, i64>(1)? >= cutoff {
                break;
            }
            page.reach(row.get(0)?);
            if row.get::<_, Option<i64>>(2)?.is_some_and(|done_at| done_at < cutoff) {
                plan.tasks.push(page.reached);
            }
        }
        self.trim.task = page.next();
        self.trim.more |= page.full() && !plan.tasks.is_empty();
        Ok(())
    }

    fn plan_marks(&mut self, plan: &mut Plan) -> rusqlite::Result<()> {
        let conn = &self.tables.conn;
        let marks: i64 =
            conn.prepare_cached("SELECT count(*) FROM record WHERE shelf = 7")?.query_row([], |row| row.get(0))?;
        let surplus = usize::try_from(marks).unwrap_or(0).saturating_sub(MARKS_MAX);
        if surplus == 0 {
            return Ok(());
        }
        let mut statement = conn.prepare_cached(
            "SELECT row_id FROM record INDEXED BY record_mark WHERE shelf + 0 = 7 ORDER BY updated_at, row_id LIMIT ?1 + 0",
        )?;
        let oldest = statement.query_map([surplus.min(TRIM_MARKS) as i64], |row| row.get(0))?;
        plan.marks = oldest.collect::<rusqlite::Result<_>>()?;
        self.trim.more |= surplus > TRIM_MARKS;
        Ok(())
    }

    fn plan_events(&mut self, now: Wall, retention: &Retention, plan: &mut Plan) -> rusqlite::Result<()> {
        let conn = &self.tables.conn;
        let mut budget = limits::TRIM_EVENTS;
        let mut rooms = Vec::new();
        for id in self.trim.grown.drain() {
            let mut statement = conn.prepare_cached("SELECT id, name, head_seq, floor_seq FROM room WHERE id = ?1")?;
            rooms.extend(statement.query_row([id], Candidate::read).optional()?);
        }
        let mut statement = conn
            .prepare_cached("SELECT id, name, head_seq, floor_seq FROM room WHERE id > ?1 ORDER BY id LIMIT ?2 + 0")?;
        let grown = rooms.len();
        for room in statement.query_map(params![self.trim.room, limits::TRIM_ROOMS as i64], Candidate::read)? {
            rooms.push(room?);
        }
        let rotated = rooms.len() - grown;
        self.trim.room = if rotated == limits::TRIM_ROOMS { rooms.last().map_or(0, |room| room.id) } else { 0 };

        let mut planned = HashSet::new();
        for room in rooms {
            let Some(keep) = retention.rule(&room.name) else {
                continue;
            };
            if !planned.insert(room.id) {
                continue;
            }
            let wanted = wanted_floor(conn, &room, keep, now, budget)?;
            let floor = wanted.min(room.floor + budget);
            budget -= floor - room.floor;
            if floor > room.floor {
                plan.floors.push(Floor { room: room.id, name: RoomName::new(&room.name), from: room.floor, to: floor });
            }
            // Out of budget: this room may have more to give, and the next call asks it first.
            if budget == 0 {
                self.trim.more = true;
                self.trim.grown.insert(room.id);
            }
        }
        Ok(())
    }
}

impl Tables {
    fn carry_out(&mut self, plan: &Plan) -> rusqlite::Result<()> {
        for floor in &plan.floors {
            let (from, to) = (place(floor.room, floor.from)?, place(floor.room, floor.to)?);
            self.execute("DELETE FROM event WHERE place > ?1 AND place <= ?2", params![from, to])?;
            self.execute("UPDATE room SET floor_seq = ?2 WHERE id = ?1", params![floor.room, floor.to as i64])?;
        }
        for id in &plan.operations {
            self.execute("DELETE FROM operation WHERE id = ?1", params![id])?;
        }
        for id in &plan.tasks {
            self.execute("DELETE FROM task WHERE id = ?1", params![id])?;
        }
        for id in &plan.marks {
            self.execute("DELETE FROM record WHERE row_id = ?1", params![id])?;
        }
        Ok(())
    }
}

/// Where the housekeeping stands.
#[derive(Debug, Default)]
pub(super) struct Trim {
    pub(super) at: Option<Wall>,
    /// The last trim ran out of its budget: the next call goes on without waiting.
    pub(super) more: bool,
    /// Rooms appended to since: nearly always the only ones with anything to trim.
    grown: HashSet<i64, foldhash::fast::RandomState>,
    /// The rotation over all rooms, for spans that pass without a write, over the operations and over the tasks.
    room: i64,
    operation: i64,
    task: i64,
}

impl Trim {
    pub(super) fn note_grown(&mut self, tables: &Tables) {
        for head in tables.heads.values().filter(|head| head.changed) {
            if self.grown.len() < limits::TRIM_GROWN_MAX {
                self.grown.insert(head.id);
            }
        }
    }
}

#[derive(Debug, Default)]
struct Plan {
    floors: Vec<Floor>,
    /// Ids, as those of tasks and marks.
    operations: Vec<i64>,
    tasks: Vec<i64>,
    marks: Vec<i64>,
}

impl Plan {
    fn is_empty(&self) -> bool {
        let Plan { floors, operations, tasks, marks } = self;
        floors.is_empty() && operations.is_empty() && tasks.is_empty() && marks.is_empty()
    }
}

/// One page of a table whose rowid rises with time: the next call goes on behind it, or begins anew after the last.
#[derive(Debug)]
struct Rotation {
    size: usize,
    rows: usize,
    reached: i64,
}

impl Rotation {
    fn new(size: usize) -> Rotation {
        Rotation { size, rows: 0, reached: 0 }
    }

    fn reach(&mut self, id: i64) {
        self.rows += 1;
        self.reached = id;
    }

    fn full(&self) -> bool {
        self.rows == self.size
    }

    fn next(&self) -> i64 {
        if self.full() { self.reached } else { 0 }
    }
}

#[derive(Debug)]
struct Floor {
    room: i64,
    name: RoomName,
    from: u64,
    to: u64,
}

#[derive(Debug)]
struct Candidate {
    id: i64,
    name: String,
    head: u64,
    floor: u64,
}

impl Candidate {
    fn read(row: &Row<'_>) -> rusqlite::Result<Candidate> {
        let seq = |column| row.get::<_, i64>(column).map(|seq| seq as u64);
        Ok(Candidate { id: row.get(0)?, name: text(row, 1)?, head: seq(2)?, floor: seq(3)? })
    }
}

/// The last seq that need not be kept; looks at no more than `budget` events.
fn wanted_floor(conn: &Connection, room: &Candidate, keep: &Keep, now: Wall, budget: u64) -> rusqlite::Result<u64> {
    let mut floor = room.floor;
    if let Some(events) = keep.events {
        floor = floor.max(room.head.saturating_sub(events));
    }
    if let Some(span) = keep.span {
        let cutoff = before(now, span);
        let mut statement = conn.prepare_cached(
            "SELECT place, at FROM event WHERE place > ?1 AND place <= ?2 ORDER BY place LIMIT ?3 + 0",
        )?;
        let range = params![place(room.id, room.floor)?, place(room.id, SEQ_MAX)?, budget as i64];
        let mut rows = statement.query(range)?;
        while let Some(row) = rows.next()? {
            if row.get::<_, i64>(1)? >= cutoff {
                break;
            }
            floor = floor.max(row.get::<_, i64>(0)? as u64 & SEQ_MAX);
        }
    }
    Ok(floor)
}

pub(in crate::store) fn before(now: Wall, span: Duration) -> i64 {
    now.0.saturating_sub(i64::try_from(span.as_micros()).unwrap_or(i64::MAX))
}

/// Whether `every` has passed since; a wall clock that was set back starts anew, or nothing would be due for as long.
pub(in crate::store) fn due(last: Option<Wall>, now: Wall, every: Duration) -> bool {
    last.is_none_or(|last| now < last || before(now, every) >= last.0)
}
