//! A store's worker in this thread: it is given jobs, and what it has for the reactor is taken from it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use commitcast::backlog::Backlog;
use commitcast::clock::Clock;
use commitcast::dialect::Env;
use commitcast::directory::Directory;
use commitcast::mailbox::{self, Inbox, Mailbox};
use commitcast::store::worker::{Turn, Wiring, Worker};
use commitcast::store::{Delivery, Job, Retention, Store};

pub struct Writer<S> {
    worker: Worker<S, Delivery>,
    pub jobs: Mailbox<Job>,
    queue: Inbox<Job>,
    told: Inbox<Delivery>,
    pub backlog: Arc<Backlog>,
}

impl<S: Store> Writer<S> {
    pub fn new(store: S, env: Arc<Env>, directory: Arc<Directory>, clock: Clock) -> Writer<S> {
        let (jobs, queue) = mailbox::channel(4096);
        let (reactor, told) = mailbox::channel(4096);
        let backlog = Arc::new(Backlog::new(1 << 28));
        let wiring = Wiring {
            inbox: queue.clone(),
            reactors: vec![reactor],
            files: None,
            directory,
            env,
            clock,
            metrics: Arc::default(),
            pulse: Arc::default(),
            backlog: backlog.clone(),
            retention: Arc::new(ArcSwap::from_pointee(Retention::default())),
        };
        Writer { worker: Worker::new(store, wiring), jobs, queue, told, backlog }
    }

    /// Whether it had something to do.
    pub fn turn(&mut self) -> bool {
        self.worker.turn() == Turn::Worked
    }

    pub fn told(&mut self) -> Option<Delivery> {
        self.told.take()
    }

    /// Carries them out and says what the reactor is to be told.
    pub fn commit(&mut self, jobs: Vec<Job>) -> Vec<Delivery> {
        for job in jobs {
            assert!(self.backlog.admit(job.charged));
            assert!(self.jobs.post(job).is_ok(), "so many jobs do not fit the queue");
        }
        while self.turn() {}
        std::iter::from_fn(|| self.told.take()).collect()
    }

    /// Throws away what the reactor has asked for, as if it were carried out; says how much it was.
    pub fn forget_jobs(&mut self) -> usize {
        let mut count = 0;
        while let Some(job) = self.queue.take() {
            self.backlog.release(job.charged);
            count += 1;
        }
        count
    }
}
