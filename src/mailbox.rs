//! A bounded queue whose reader sleeps in a poller: posting owes a wake, ringing pays it, once per turn.
//!
//! ```text
//! turn of a poster:   post post post … ring          reader:  (woken) ─ open() ─ take take take …
//!                     └ owes ┘└ owes ┘ └ pays one ┘            └ lowers the flag *before* it looks
//! ```
//!
//! Why no wake is lost: the poster sends, then raises the flag; the reader lowers the flag, then looks. If the poster
//! finds the flag raised already, a wake is under way whose reader has yet to lower it, and by the read-modify-write order
//! of the flag that reader will see the item. If it finds it lowered, it wakes the reader itself.
//!
//! A full queue gives the item back (`Full`): a reactor must never block on a worker. A worker may block on a reactor
//! (`post_or_wait`), because the reactor never waits for anybody; one side of a pair of bounded queues has to be
//! non-blocking, or both can fill and stand still for ever (PROMISES.md I6).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, TrySendError, bounded};

/// The plain end of a one-off answer between threads, without a bell.
pub use crossbeam_channel::Sender;

/// The queue was full; here is the item again.
#[derive(Debug)]
#[must_use = "the item was not sent: keep it or tell its owner"]
pub struct Full<T>(pub T);

#[derive(Debug)]
enum Bell {
    /// The reader sleeps in a mio poller.
    Poller(mio::Waker),
    /// The reader sleeps on the channel itself, or is driven by a simulation.
    Channel,
}

#[derive(Debug)]
struct Flag {
    raised: AtomicBool,
    bell: Bell,
}

/// The sending end. Each posting thread has a clone of its own, for each remembers its own debt.
#[derive(Debug)]
pub struct Mailbox<T> {
    sender: Sender<T>,
    flag: Arc<Flag>,
    owes: bool,
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Mailbox<T> {
        Mailbox { sender: self.sender.clone(), flag: self.flag.clone(), owes: false }
    }
}

impl<T> Mailbox<T> {
    /// Never blocks.
    pub fn post(&mut self, item: T) -> Result<(), Full<T>> {
        match self.sender.try_send(item) {
            Ok(()) => {
                self.owes = true;
                Ok(())
            }
            Err(TrySendError::Full(item)) => {
                // Whoever could make room may be asleep with our earlier items.
                self.ring();
                Err(Full(item))
            }
            // The reader's thread has ended: the server is stopping, and nobody is left to be answered.
            Err(TrySendError::Disconnected(_)) => Ok(()),
        }
    }

    /// Blocks while the queue is full. Only for threads that no reader of this mailbox ever waits for.
    pub fn post_or_wait(&mut self, item: T) {
        if let Err(Full(item)) = self.post(item) {
            if self.sender.send(item).is_ok() {
                self.owes = true;
            }
            self.ring();
        }
    }

    /// Pays the wake that earlier posts owe, if any.
    pub fn ring(&mut self) {
        if !std::mem::take(&mut self.owes) {
            return;
        }
        if let Bell::Poller(waker) = &self.flag.bell
            && !self.flag.raised.swap(true, Ordering::AcqRel)
            && let Err(error) = waker.wake()
        {
            log::error!("a reactor could not be woken: {error}");
        }
    }

    pub fn has_room(&self) -> bool {
        !self.sender.is_full()
    }

    pub fn len(&self) -> usize {
        self.sender.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sender.is_empty()
    }
}

/// A channel for one-off answers between threads: no bell, at most `bound` of them.
pub fn plain<T>(bound: usize) -> (Sender<T>, Receiver<T>) {
    bounded(bound)
}

/// The reading end. Clones share one queue (the readers' pool).
#[derive(Debug)]
pub struct Inbox<T> {
    receiver: Receiver<T>,
    flag: Arc<Flag>,
}

impl<T> Clone for Inbox<T> {
    fn clone(&self) -> Inbox<T> {
        Inbox { receiver: self.receiver.clone(), flag: self.flag.clone() }
    }
}

impl<T> Inbox<T> {
    /// To be called once per turn before the first `take`.
    pub fn open(&self) {
        self.flag.raised.swap(false, Ordering::AcqRel);
    }

    pub fn take(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    /// Waits for an item; `None` after `patience`, `Err` when every sender is gone.
    pub fn wait(&self, patience: Duration) -> Result<Option<T>, Closed> {
        match self.receiver.recv_timeout(patience) {
            Ok(item) => Ok(Some(item)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Closed),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }
}

/// Nobody is left who could post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// A queue whose reader sleeps in the poller that made `waker`.
pub fn with_waker<T>(bound: usize, waker: mio::Waker) -> (Mailbox<T>, Inbox<T>) {
    build(bound, Bell::Poller(waker))
}

/// A queue whose reader sleeps in `Inbox::wait`.
pub fn channel<T>(bound: usize) -> (Mailbox<T>, Inbox<T>) {
    build(bound, Bell::Channel)
}

fn build<T>(bound: usize, bell: Bell) -> (Mailbox<T>, Inbox<T>) {
    let (sender, receiver) = bounded(bound);
    let flag = Arc::new(Flag { raised: AtomicBool::new(false), bell });
    (Mailbox { sender, flag: flag.clone(), owes: false }, Inbox { receiver, flag })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_full_queue_gives_the_item_back() {
        let (mut mailbox, inbox) = channel(1);
        mailbox.post(1).unwrap();
        assert_eq!(mailbox.post(2).unwrap_err().0, 2);
        assert_eq!(inbox.take(), Some(1));
        mailbox.post(3).unwrap();
        assert_eq!(inbox.take(), Some(3));
        assert_eq!(inbox.take(), None);
    }

    #[test]
    fn many_posts_are_one_wake_and_none_is_lost() {
        let mut poll = mio::Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
        let (mailbox, inbox) = with_waker::<u32>(1024, waker);
        let posters: Vec<_> = (0..4)
            .map(|poster: u32| {
                let mut mailbox = mailbox.clone();
                std::thread::spawn(move || {
                    for turn in 0..200 {
                        for item in 0..5 {
                            mailbox.post_or_wait(poster * 1000 + turn * 5 + item);
                        }
                        mailbox.ring();
                    }
                })
            })
            .collect();
        let mut taken = 0;
        let mut events = mio::Events::with_capacity(8);
        while taken < 4000 {
            poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
            assert!(!events.is_empty(), "a wake was lost after {taken} items");
            inbox.open();
            while inbox.take().is_some() {
                taken += 1;
            }
        }
        for poster in posters {
            poster.join().unwrap();
        }
        assert_eq!(taken, 4000);
    }
}
