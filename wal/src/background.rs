//! The log's own threads: one prepares segments, one syncs relaxed commits, one calls wakers.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bedstone_io::Disk;
use bedstone_io::sync::Ordering;
use parking_lot::{Condvar, Mutex};

use crate::error::WalError;
use crate::group::Need;
use crate::shared::{OnUnwind, Shared};

/// Wakes a thread when there is work for it, now or at some moment.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    order: Mutex<Order>,
    rung: Condvar,
}

#[derive(Debug, Default)]
struct Order {
    /// When the work is due, on the disk's clock.
    due: Option<Duration>,
    stop: bool,
}

impl Bell {
    /// Work is due at `at`, or earlier if that was said before.
    pub(crate) fn ring(&self, at: Duration) {
        let mut order = self.order.lock();
        order.due = Some(order.due.map_or(at, |due| due.min(at)));
        self.rung.notify_one();
    }

    fn stop(&self) {
        self.order.lock().stop = true;
        self.rung.notify_one();
    }

    /// Waits until work is due; `false` if the thread is to end.
    fn wait(&self, disk: &dyn Disk) -> bool {
        let mut order = self.order.lock();
        loop {
            if order.stop {
                return false;
            }
            let Some(due) = order.due else {
                self.rung.wait(&mut order);
                continue;
            };
            let left = due.saturating_sub(disk.now());
            // A disk whose clock stands still must not hold the work up for ever: a full wait counts as well.
            if left.is_zero() || self.rung.wait_for(&mut order, left).timed_out() {
                order.due = None;
                return !order.stop;
            }
        }
    }
}

/// Starts the threads.
pub(crate) fn start(shared: &Arc<Shared>) -> Result<Vec<JoinHandle<()>>, WalError> {
    type Work = fn(&Shared);
    let spawn = |name: &str, shared: Arc<Shared>, work: Work| {
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _guard = OnUnwind { shared: &shared };
                work(&shared);
            })
            .map_err(|error: io::Error| WalError::Config {
                what: format!("the log's thread {name} cannot be started: {error}"),
            })
    };
    let works: [(&str, Work); 3] = [
        ("wal-segments", |shared| {
            while shared.supply_bell.wait(&*shared.disk) {
                shared.prepare_ahead();
            }
        }),
        ("wal-relaxed", |shared| {
            while shared.flush_bell.wait(&*shared.disk) {
                shared.flush_relaxed();
            }
        }),
        ("wal-wakers", |shared| {
            while shared.wake_bell.wait(&*shared.disk) {
                shared.call_wakers();
            }
        }),
    ];
    let mut threads = Vec::new();
    for (name, work) in works {
        match spawn(name, Arc::clone(shared), work) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                stop(shared, threads);
                return Err(error);
            }
        }
    }
    Ok(threads)
}

/// Ends the threads and waits for them; what they are doing is finished first.
pub(crate) fn stop(shared: &Shared, threads: Vec<JoinHandle<()>>) {
    shared.flush_bell.stop();
    shared.supply_bell.stop();
    shared.wake_bell.stop();
    for thread in threads {
        // The thread that calls wakers gets here itself if one of them drops what keeps the log open. It ends when it
        // comes back to its bell.
        if thread.thread().id() == thread::current().id() {
            continue;
        }
        // A thread that panicked has failed the log already.
        let _ = thread.join();
    }
}

impl Shared {
    /// Makes relaxed commits durable, if there are any. An error is kept as the log's failure.
    pub(crate) fn flush_relaxed(&self) {
        // Before the mark itself: who finds it still set finds the other one read after that.
        self.asked.swap(false, Ordering::AcqRel);
        // Cleared before the tail is read: a commit that finds the mark still set was appended before this read, one
        // that finds it cleared sets it again.
        if self.relaxed.swap(false, Ordering::AcqRel) {
            let tail = self.tail.load(Ordering::Acquire);
            if let Err(error) = self.reach(Need::Durable, tail) {
                tracing::warn!(%error, "relaxed commits were not made durable");
            }
        }
    }
}
