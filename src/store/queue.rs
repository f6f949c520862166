//! Jobs waiting for a commit, by room: a batch takes one job from each room in turn, so that a hot room cannot starve the
//! others (PROMISES.md I4). Within a room the order of arrival holds.

use std::collections::{HashMap, VecDeque};

use super::Job;
use crate::ids::RoomName;
use crate::limits::{BATCH_BYTES_MAX, BATCH_OPS_MAX, BATCH_ROOM_OPS_MAX};

#[derive(Debug, Default)]
pub struct Queue {
    rooms: HashMap<RoomName, VecDeque<Job>, foldhash::fast::RandomState>,
    /// Every room with a job waiting, once, in the order of its turn.
    turns: VecDeque<RoomName>,
    jobs: usize,
}

impl Queue {
    pub fn push(&mut self, job: Job) {
        let room = job.write.room.clone();
        let waiting = self.rooms.entry(room.clone()).or_default();
        if waiting.is_empty() {
            self.turns.push_back(room);
        }
        waiting.push_back(job);
        self.jobs += 1;
    }

    pub fn len(&self) -> usize {
        self.jobs
    }

    pub fn is_empty(&self) -> bool {
        self.jobs == 0
    }

    /// The next batch; empty only when nothing waits.
    pub fn take_batch(&mut self) -> Vec<Job> {
        let mut batch = Vec::with_capacity(self.jobs.min(BATCH_OPS_MAX));
        let (mut bytes, mut operations) = (0, 0);
        let mut rounds = 0;
        let mut left_in_round = self.turns.len();
        while operations < BATCH_OPS_MAX && bytes < BATCH_BYTES_MAX {
            if left_in_round == 0 {
                rounds += 1;
                left_in_round = self.turns.len();
            }
            if rounds >= BATCH_ROOM_OPS_MAX {
                break;
            }
            let Some(room) = self.turns.pop_front() else { break };
            left_in_round -= 1;
            if let Some(waiting) = self.rooms.get_mut(&room) {
                if let Some(job) = waiting.pop_front() {
                    bytes += job.write.weight();
                    operations += job.write.operations();
                    batch.push(job);
                    self.jobs -= 1;
                }
                if waiting.is_empty() {
                    self.rooms.remove(&room);
                } else {
                    self.turns.push_back(room);
                }
            }
        }
        batch
    }

    /// Everything that waits, when nothing will be written any more.
    pub fn drain(&mut self) -> Vec<Job> {
        let mut all = Vec::with_capacity(self.jobs);
        while !self.is_empty() {
            all.append(&mut self.take_batch());
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{Asker, Change, Write, documents};

    fn job(room: &str, number: usize) -> Job {
        Job {
            to: None,
            asker: Asker { actor: "a".into(), origin: number as u64, verified: false },
            write: Box::new(Write {
                room: RoomName::new(room),
                op: None,
                change: Change::Documents(documents::Change::Removed { id: "a".to_owned() }),
            }),
            charged: 0,
        }
    }

    #[test]
    fn a_hot_room_takes_turns_with_a_quiet_one() {
        let mut queue = Queue::default();
        for number in 0..1000 {
            queue.push(job("hot", number));
        }
        queue.push(job("quiet", 7));
        let batch = queue.take_batch();
        assert_eq!(batch[1].write.room.as_str(), "quiet", "the second place is the quiet room's");
        assert!(batch.len() <= BATCH_ROOM_OPS_MAX + 1);
        assert!(batch.iter().filter(|job| job.write.room.as_str() == "hot").map(|job| job.asker.origin).is_sorted());
        assert_eq!(queue.len(), 1001 - batch.len());
        assert_eq!(queue.drain().len(), 1001 - batch.len());
        assert!(queue.is_empty());
    }
}
