//! Work for the application's own programs: tasks, their kinds, and which kinds somebody takes.
//!
//! A task is written in the transaction of the event that caused it, so none is lost and none invented. Delivery is at
//! least once; the fence tells the last holder from those before it.

use std::sync::atomic::{AtomicU16, Ordering};

use bytes::Bytes;

use crate::clock::Wall;
use crate::ids::RoomName;

/// Names a task for ever; rises with time. On the wire its decimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct TaskId(pub u64);

#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    pub id: TaskId,
    pub kind: TaskKind,
    /// The room of the event that caused it.
    pub room: RoomName,
    /// A JSON object as text.
    pub body: Bytes,
    pub created_at: Wall,
    /// How often it was handed out.
    pub attempt: u32,
    /// Of the last hand-out; above every fence given before, of any task. 0 before the first.
    pub fence: u64,
    /// The socket that has it, as `ConnId::pack` of this process; 0 for none (nobody has it, or an HTTP client).
    pub holder: u64,
    /// It may be handed out (again) from then on.
    pub ready_at: Wall,
    pub done: bool,
}

/// The number is stored and the index of its bit: never give one a new meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TaskKind {
    Execute = 0,
    Cancel = 1,
    Decision = 2,
    Control = 3,
    Ticket = 4,
    Webhook = 5,
    Response = 6,
    Chat = 7,
}

impl TaskKind {
    pub const ALL: [TaskKind; 8] = [
        TaskKind::Execute,
        TaskKind::Cancel,
        TaskKind::Decision,
        TaskKind::Control,
        TaskKind::Ticket,
        TaskKind::Webhook,
        TaskKind::Response,
        TaskKind::Chat,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            TaskKind::Execute => "execute",
            TaskKind::Cancel => "cancel",
            TaskKind::Decision => "decision",
            TaskKind::Control => "control",
            TaskKind::Ticket => "ticket",
            TaskKind::Webhook => "webhook",
            TaskKind::Response => "response",
            TaskKind::Chat => "chat",
        }
    }

    pub fn parse(text: &str) -> Option<TaskKind> {
        TaskKind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    pub fn of(number: u8) -> Option<TaskKind> {
        TaskKind::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// A set of kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct Tasks(u16);

impl Tasks {
    pub fn only(kind: TaskKind) -> Tasks {
        Tasks(1 << kind as u8)
    }

    pub fn with(self, kind: TaskKind) -> Tasks {
        Tasks(self.0 | 1 << kind as u8)
    }

    pub fn has(self, kind: TaskKind) -> bool {
        self.0 & 1 << kind as u8 != 0
    }

    pub fn or(self, other: Tasks) -> Tasks {
        Tasks(self.0 | other.0)
    }

    pub fn and(self, other: Tasks) -> Tasks {
        Tasks(self.0 & other.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = TaskKind> {
        TaskKind::ALL.into_iter().filter(move |kind| self.has(*kind))
    }
}

impl FromIterator<TaskKind> for Tasks {
    fn from_iter<I: IntoIterator<Item = TaskKind>>(kinds: I) -> Tasks {
        kinds.into_iter().fold(Tasks::default(), Tasks::with)
    }
}

/// The kinds that somebody takes now (a socket that said `take`, or a poll not long ago): some dialects answer otherwise
/// when no backend is there. Written by the writer, read by anybody; a moment old is good enough.
#[derive(Debug, Default)]
pub struct Attached(AtomicU16);

impl Attached {
    pub fn has(&self, kind: TaskKind) -> bool {
        Tasks(self.0.load(Ordering::Acquire)).has(kind)
    }

    pub fn set(&self, kinds: Tasks) {
        self.0.store(kinds.0, Ordering::Release);
    }
}
