//! Helper threads that carry out a batch together with the thread that asked for it. They are kept alive
//! between batches, because making a thread costs as much as a read.
//!
//! Work is borrowed from the caller's stack, so this module must take its lifetime away: [`Crew::run`] ends,
//! also by a panic, only after the last helper has let go of it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Helpers at most, of all batches together. Measured with 16 KiB direct reads: 32 threads in `pread` reach
/// 40,900 reads a second, at or above 32 rings; more threads than the device has queue depth only wait.
const MAX_HELPERS: usize = 31;

/// A helper without work leaves after so long.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// The threads of one disk. Dropping it tells them to leave; they own nothing of anybody's.
#[derive(Debug)]
pub(super) struct Crew {
    shared: Arc<Shared>,
    /// The process that made it: a forked child inherits the memory but not the threads.
    process: u32,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// A task wants helpers, or the crew is dismissed.
    wanted: Condvar,
    /// A helper has let go of a task.
    released: Condvar,
}

#[derive(Debug, Default)]
struct State {
    tasks: VecDeque<Task>,
    next_id: u64,
    threads: usize,
    idle: usize,
    dismissed: bool,
}

/// Work that somebody waits in `run` for.
#[derive(Debug)]
struct Task {
    id: u64,
    work: Work,
    /// Helpers that may still join.
    places: usize,
    /// Helpers that are at it.
    active: usize,
    panicked: bool,
}

/// Work whose lifetime is no longer in its type.
#[derive(Clone, Copy)]
struct Work(*const (dyn Fn() + Sync));

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Work")
    }
}

// SAFETY: what is pointed to is `Sync`, so it may be called from any thread; that it still lives when it is
// called is argued at the call.
unsafe impl Send for Work {}

impl Crew {
    pub(super) fn new() -> Self {
        Self { shared: Arc::default(), process: std::process::id() }
    }

    /// Calls `work` on this thread and, at the same time, on up to `helpers` others (none if no thread is to
    /// be had, or in a forked child). Returns when every call has returned. `work` must therefore share out
    /// its parts itself and be complete when one call of it returns.
    ///
    /// # Panics
    /// If a call panicked.
    pub(super) fn run(&self, helpers: usize, work: &(dyn Fn() + Sync)) {
        if helpers == 0 || self.process != std::process::id() {
            return work();
        }
        let work_pointer: *const (dyn Fn() + Sync + '_) = work;
        // SAFETY: only the lifetime in the type changes. `Release` below is dropped before this function ends
        // in any way; it takes the task out, so that no helper can begin, and waits for those that have
        // begun.
        let erased = Work(unsafe {
            std::mem::transmute::<*const (dyn Fn() + Sync + '_), *const (dyn Fn() + Sync + 'static)>(
                work_pointer,
            )
        });
        let id = self.shared.post(erased, helpers);
        let mut release = Release { shared: &self.shared, id, helper_panicked: false };
        work();
        release.now();
        let helper_panicked = release.helper_panicked;
        drop(release);
        assert!(!helper_panicked, "a helper thread panicked in a batch");
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        if self.process == std::process::id() {
            self.shared.state.lock().dismissed = true;
            self.shared.wanted.notify_all();
        }
    }
}

/// Ends a task when dropped: nobody begins any more, and all who began have finished.
struct Release<'a> {
    shared: &'a Shared,
    id: u64,
    helper_panicked: bool,
}

impl Release<'_> {
    fn now(&mut self) {
        let mut state = self.shared.state.lock();
        while let Some(at) = state.tasks.iter().position(|task| task.id == self.id) {
            let task = &mut state.tasks[at];
            task.places = 0;
            if task.active == 0 {
                self.helper_panicked = task.panicked;
                state.tasks.remove(at);
                return;
            }
            self.shared.released.wait(&mut state);
        }
    }
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.now();
    }
}

impl Shared {
    /// Makes a task known and sees to it that threads are there for it.
    fn post(self: &Arc<Self>, work: Work, helpers: usize) -> u64 {
        let mut state = self.state.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.tasks.push_back(Task { id, work, places: helpers, active: 0, panicked: false });
        let missing = helpers.saturating_sub(state.idle).min(MAX_HELPERS - state.threads);
        for _ in 0..missing {
            let shared = Arc::clone(self);
            let made = std::thread::Builder::new().name("bedstone-io".into()).spawn(move || shared.help());
            if let Err(error) = made {
                tracing::debug!(%error, "no more helper threads");
                break;
            }
            state.threads += 1;
        }
        drop(state);
        for _ in 0..helpers {
            self.wanted.notify_one();
        }
        id
    }

    /// The life of a helper.
    fn help(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(task) = state.tasks.iter_mut().find(|task| task.places > 0) {
                task.places -= 1;
                task.active += 1;
                let (id, work) = (task.id, task.work);
                drop(state);
                // SAFETY: the task was in the list with a place left, so its `run` has not ended, and it
                // cannot end before `active`, raised under the same lock, is lowered again below.
                let outcome = catch_unwind(AssertUnwindSafe(|| unsafe { (*work.0)() }));
                state = self.state.lock();
                let task = state.tasks.iter_mut().find(|task| task.id == id);
                let task = task.expect("a task stays in the list while a helper is at it");
                task.active -= 1;
                task.panicked |= outcome.is_err();
                self.released.notify_all();
            } else if state.dismissed {
                break;
            } else {
                state.idle += 1;
                let waited = self.wanted.wait_for(&mut state, IDLE_LIMIT);
                state.idle -= 1;
                if waited.timed_out() && state.tasks.iter().all(|task| task.places == 0) {
                    break;
                }
            }
        }
        state.threads -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn parts_are_shared_out_and_all_done() {
        let crew = Crew::new();
        for round in 0..50 {
            let mut parts = vec![0_u32; 100];
            let queue = Mutex::new(parts.iter_mut());
            crew.run(8, &|| {
                while let Some(part) = { queue.lock().next() } {
                    *part += round;
                }
            });
            assert!(parts.iter().all(|&part| part == round));
        }
    }

    #[test]
    fn helpers_work_at_the_same_time() {
        let crew = Crew::new();
        let meeting = Barrier::new(4);
        let calls = AtomicUsize::new(0);
        crew.run(3, &|| {
            meeting.wait();
            calls.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(calls.into_inner(), 4);
    }

    #[test]
    fn several_callers_share_one_crew() {
        let crew = Crew::new();
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let left = AtomicUsize::new(20);
                        let take =
                            || left.try_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
                        crew.run(10, &|| while take().is_ok() {});
                        assert_eq!(left.into_inner(), 0);
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_crew_survives() {
        let crew = Crew::new();
        let caller = std::thread::current().id();
        let meeting = Barrier::new(2);
        let helper_panics = catch_unwind(AssertUnwindSafe(|| {
            crew.run(1, &|| {
                meeting.wait();
                assert_eq!(std::thread::current().id(), caller, "wanted by the test");
            });
        }));
        assert!(helper_panics.is_err());
        let caller_panics = catch_unwind(AssertUnwindSafe(|| {
            crew.run(1, &|| {
                meeting.wait();
                assert_ne!(std::thread::current().id(), caller, "wanted by the test");
            });
        }));
        assert!(caller_panics.is_err());
        let calls = AtomicUsize::new(0);
        crew.run(1, &|| {
            meeting.wait();
            calls.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(calls.into_inner(), 2);
    }
}
