//! A thread that waits to be told its turn: one park and one unpark, of exactly the thread concerned.

use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};

use crate::group::Turn;

/// One wait of one thread.
#[derive(Debug)]
pub(crate) struct Waiter {
    thread: Thread,
    turn: OnceLock<Turn>,
}

impl Waiter {
    /// A wait of the calling thread.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { thread: thread::current(), turn: OnceLock::new() })
    }

    /// Tells the waiting thread its turn. Once only.
    pub(crate) fn tell(&self, turn: Turn) {
        let _ = self.turn.set(turn);
        self.thread.unpark();
    }

    /// Blocks the calling thread, which made this wait, until it is told. A left-over unpark from elsewhere only
    /// makes it look again.
    pub(crate) fn wait(&self) -> Turn {
        loop {
            if let Some(&turn) = self.turn.get() {
                return turn;
            }
            thread::park();
        }
    }
}
