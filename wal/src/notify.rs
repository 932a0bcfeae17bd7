//! Wakers: how a task learns that the log has reached a position, with no thread that waits for it.
//!
//! # No wake-up is lost
//!
//! A waker is owed a call once one of three things is so: the durable position has reached what it waits for, the
//! log has failed, or it was shut down. Each of them becomes so in a step under the state's mutex
//! ([`crate::group::Ledger::sync_done`], [`crate::group::Ledger::fail`], [`Wakers::end`]), none is ever taken back,
//! and the same hold of the mutex goes on to move every waker that this concerns from `waiting` to `due`.
//! [`Shared::notify`] looks at all three and keeps the waker under one hold as well. So, whichever of the two
//! holds comes first: either the waker was kept before the step, and the step found it; or the step came before, and
//! `notify` saw it and kept nothing. A waker in `due` is called: whoever moves one there goes on to
//! [`Shared::call_or_ring`], and a ring reaches the thread that calls even if it is busy just then, since the bell
//! remembers it; should that thread have been stopped meanwhile, `shutdown` calls what is left once it has ended.
//!
//! # Who calls
//!
//! A waker is code of the user's and what it does may be much: the last handle to the database may be dropped with
//! it. It is therefore never called, cloned or dropped under a lock of the log, and where the log has threads,
//! one of them does nothing but call wakers, so that it never happens in the midst of a commit or a checkpoint.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;
use std::time::Duration;

use bedstone_io::sync::Ordering;

use crate::config::Background;
use crate::error::WalError;
use crate::shared::Shared;

/// The wakers that the log knows of; part of what its mutex guards.
#[derive(Debug, Default)]
pub(crate) struct Wakers {
    /// By the position waited for; the second number only tells wakers of one position apart.
    waiting: BTreeMap<(u64, u64), Waker>,
    next: u64,
    /// To be called.
    due: Vec<Waker>,
    /// The log was shut down.
    ended: bool,
}

impl Wakers {
    /// Keeps a waker, or gives it back if the same is there already for this position.
    fn keep(&mut self, upto: u64, waker: Waker) -> Option<Waker> {
        if self.waiting.range((upto, 0)..=(upto, u64::MAX)).any(|(_, known)| known.will_wake(&waker)) {
            return Some(waker);
        }
        self.waiting.insert((upto, self.next), waker);
        self.next += 1;
        None
    }

    /// The durable position has come to `durable`. Returns how many of the positions waited for were reached.
    pub(crate) fn reached(&mut self, durable: u64) -> u64 {
        let (mut positions, mut last) = (0, None);
        while let Some(first) = self.waiting.first_entry()
            && first.key().0 <= durable
        {
            let ((upto, _), waker) = first.remove_entry();
            positions += u64::from(last.replace(upto) != Some(upto));
            self.due.push(waker);
        }
        positions
    }

    /// Nothing will be reached any more.
    pub(crate) fn all_due(&mut self) {
        self.due.extend(std::mem::take(&mut self.waiting).into_values());
    }

    /// The log is shut down.
    fn end(&mut self) {
        self.ended = true;
        self.all_due();
    }

    pub(crate) fn any_due(&self) -> bool {
        !self.due.is_empty()
    }
}

impl Shared {
    /// [`crate::Wal::notify_durable`], for a position that does not lie beyond the tail.
    pub(crate) fn notify(&self, upto: u64, waker: &Waker) -> Result<bool, WalError> {
        if self.durable.load(Ordering::Acquire) >= upto {
            return Ok(true);
        }
        // Made before the lock is taken and, if it was not needed, dropped after: both run code of the user's.
        let waker = waker.clone();
        let not_needed = {
            let mut state = self.state.lock();
            if state.ledger.durable() >= upto {
                return Ok(true);
            }
            if state.ledger.failed() {
                return Err(self.failure());
            }
            if state.wakers.ended {
                return Err(WalError::ShutDown);
            }
            state.wakers.keep(upto, waker)
        };
        drop(not_needed);
        Ok(false)
    }

    /// Sees to it that the wakers that are due are called. Without a lock of the state.
    pub(crate) fn call_or_ring(&self) {
        match self.cfg.background {
            Background::Threads => self.wake_bell.ring(Duration::ZERO),
            Background::Manual => self.call_wakers(),
        }
    }

    /// Calls the wakers that are due.
    pub(crate) fn call_wakers(&self) {
        let due = std::mem::take(&mut self.state.lock().wakers.due);
        for waker in due {
            // One that panics must neither keep the others asleep nor fail the log.
            if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
                tracing::error!("a waker panicked when the log called it");
            }
        }
    }

    /// After the log's threads have ended: calls every waker and keeps none any more.
    pub(crate) fn end_wakers(&self) {
        self.state.lock().wakers.end();
        self.call_wakers();
    }

    /// Has the background make everything appended so far durable, at once.
    pub(crate) fn sync_soon(&self) {
        if self.durable.load(Ordering::Acquire) >= self.tail.load(Ordering::Acquire) {
            return;
        }
        // Both exchanges, not stores: whoever reads this mark must see what earlier callers appended, too.
        self.relaxed.swap(true, Ordering::AcqRel);
        // If it was asked already, the flush that was asked for has not begun yet, for `asked` is cleared first then:
        // it will find our mark and read a tail that covers us.
        if !self.asked.swap(true, Ordering::AcqRel) && self.cfg.background == Background::Threads {
            self.flush_bell.ring(Duration::ZERO);
        }
    }
}
