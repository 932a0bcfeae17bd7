//! Free frames: where they come from.
//!
//! The policy proposes victims; a clean one that nobody has is evicted at once (its word says again where its image
//! lies), dirty ones are written out together and evicted afterwards. A background writer keeps a stock of free
//! frames so that readers seldom do this themselves; whoever finds the stock empty helps.

use std::time::Duration;

use bedstone_io::sync::Ordering;
use parking_lot::Mutex;

use crate::error::{PoolError, Result};
use crate::frame::FrameId;
use crate::header::PageId;
use crate::policy::Policy;
use crate::pool::{Access, Retired, Shared};
use crate::table::Place;

/// How long a reader waits for a frame when nothing can be evicted just now.
const PATIENCE: Duration = Duration::from_millis(10);
/// How many such waits before it gives up.
const PATIENCE_ROUNDS: u32 = 500;
/// Rounds in which each search for a victim goes twice as far as the one before.
const SEARCH_ROUNDS: u32 = 8;

/// Events that may pile up before somebody who takes a frame looks through them.
const EVENTS_MAX: usize = 4096;

/// What happened to a page since the evictor last looked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    Admitted(PageId, Access),
    Removed(PageId),
}

/// The replacement policy and what only the evictor needs.
pub(crate) struct Evictor {
    pub(crate) policy: Box<dyn Policy>,
}

/// What a pass achieved.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Pass {
    pub(crate) evicted: usize,
    pub(crate) written: usize,
    /// Victims that turned out to have left before: the policy knows better now.
    pub(crate) gone: usize,
}

impl Pass {
    /// Another pass may achieve more.
    fn got_anywhere(self) -> bool {
        self.evicted + self.written + self.gone > 0
    }
}

impl Shared {
    /// Tells the policy that a page came in.
    pub(crate) fn admit(&self, page: PageId, access: Access) {
        self.events.push(Event::Admitted(page, access));
    }

    /// One frame, waiting for eviction if need be.
    pub(crate) fn take_frame(&self) -> Result<FrameId> {
        let mut frames = Vec::with_capacity(1);
        self.take_frames(1, &mut frames)?;
        Ok(frames.pop().expect("one frame was taken"))
    }

    /// One frame if there is one without waiting.
    pub(crate) fn take_frame_now(&self) -> Option<FrameId> {
        self.free.lock().pop()
    }

    /// Fills `out` up to `want` frames. On an error the frames taken so far are given back.
    pub(crate) fn take_frames(&self, want: usize, out: &mut Vec<FrameId>) -> Result<()> {
        // Every event but a page's own end goes with a frame that somebody took: so there are not many more of them than
        // this, even if nothing is ever evicted.
        if self.events.len() > EVENTS_MAX
            && let Some(mut evictor) = self.evictor.try_lock()
        {
            self.drain_events(&mut evictor);
        }
        let had = out.len();
        let mut idle = 0;
        loop {
            let low = {
                let mut free = self.free.lock();
                while out.len() < want {
                    let Some(frame) = free.pop() else { break };
                    out.push(frame);
                }
                free.len() < self.free_low
            };
            if low {
                self.wake_writer();
            }
            if out.len() >= want {
                return Ok(());
            }
            // What could not be evicted went to the back of the queue; the more rounds in vain, the further down it.
            let ask = (want - out.len()).max(self.free_low / 4).max(1) << idle.min(SEARCH_ROUNDS);
            let outcome = self.make_frames(ask);
            if outcome.as_ref().is_ok_and(|pass| pass.got_anywhere()) || self.dissolve_stash() {
                idle = 0;
                continue;
            }
            idle += 1;
            // What is kept here while it waits, another thread that waits may be waiting for.
            let wanted = want - had;
            self.free_frames(&out.split_off(had));
            // Frames come back when pins are dropped and other threads' writes end; without other threads, never. Writes
            // that fail are not waited for.
            let in_vain = idle > SEARCH_ROUNDS && (self.manual || outcome.is_err());
            if in_vain || idle > PATIENCE_ROUNDS {
                outcome?;
                let pinned = self.frames.iter().filter(|frame| frame.pins() > 0).count();
                return Err(PoolError::Exhausted { frames: self.arena.frames(), pinned });
            }
            if !self.manual && outcome.is_ok() {
                let mut free = self.free.lock();
                if free.len() < wanted {
                    self.frames_freed.wait_for(&mut free, PATIENCE);
                }
            }
        }
    }

    /// A frame that is nobody's any more.
    pub(crate) fn free_frame(&self, frame: FrameId) {
        self.free_frames(&[frame]);
    }

    pub(crate) fn free_frames(&self, frames: &[FrameId]) {
        if frames.is_empty() {
            return;
        }
        debug_assert!(frames.iter().all(|&frame| self.frame(frame).dirty.is_clean()));
        self.free.lock().extend_from_slice(frames);
        self.frames_freed.notify_all();
    }

    #[inline]
    pub(crate) fn released(&self, frame: FrameId, released: crate::frame::Released) {
        if released == crate::frame::Released::Free {
            self.free_frame(frame);
        }
    }

    /// A replaced or freed inner node's frame: free once no reader can be looking at it.
    pub(crate) fn retire_by_epoch(&self, frame: FrameId) {
        self.epochs.retire(Retired::Frame(frame));
        if self.epochs.waiting() > self.retired_max {
            self.collect_retired();
        }
    }

    pub(crate) fn collect_retired(&self) -> usize {
        let (mut frames, mut ids) = (Vec::new(), Vec::new());
        for retired in self.epochs.collect(&self.slots) {
            match retired {
                Retired::Frame(frame) => frames.push(frame),
                Retired::Id(id) => ids.push(id),
            }
        }
        self.free_frames(&frames);
        if !ids.is_empty() {
            self.space.lock().return_ids(ids);
        }
        frames.len()
    }

    /// Tries to make about `want` frames free: replaced inner nodes first, then victims of the policy, writing dirty
    /// ones out.
    pub(crate) fn make_frames(&self, want: usize) -> Result<Pass> {
        let mut pass = Pass { evicted: self.collect_retired() + self.reap_deferred(), ..Pass::default() };
        if pass.evicted >= want {
            return Ok(pass);
        }
        let mut victims = Vec::new();
        let mut dirty = Vec::new();
        {
            let mut evictor = self.evictor.lock();
            self.drain_events(&mut evictor);
            let mut touched = |page| self.take_touch(page);
            evictor.policy.victims(want - pass.evicted, &mut touched, &mut victims);
            for &page in &victims {
                match self.try_evict(page) {
                    // It stays on offer until it has been written out.
                    Eviction::Dirty(frame) => dirty.push((page, frame)),
                    outcome => settle(&mut *evictor.policy, page, outcome, &mut pass),
                }
            }
        }
        if dirty.is_empty() {
            return Ok(pass);
        }
        // Neighbours by id were made together and are often neighbours by key.
        dirty.sort_unstable();
        let mut captured = Vec::new();
        let outcome = self.write_out(&dirty, &mut captured);
        pass.written = captured.len();
        {
            let mut evictor = self.evictor.lock();
            for &(page, _) in &dirty {
                settle(&mut *evictor.policy, page, self.try_evict(page), &mut pass);
            }
        }
        match outcome {
            Err(error) if pass.evicted == 0 => Err(error),
            // The pages stay dirty, and the next checkpoint meets the error. Whoever only wants to read can go on as
            // long as clean pages come free.
            Err(error) => {
                tracing::warn!(%error, "dirty pages could not be written out");
                Ok(pass)
            }
            Ok(()) => Ok(pass),
        }
    }

    fn write_out(&self, dirty: &[(PageId, FrameId)], captured: &mut Vec<PageId>) -> Result<()> {
        let mut batch = self.new_batch();
        for &(page, frame) in dirty {
            if self.is_full(&batch) {
                self.write_batch(std::mem::replace(&mut batch, self.new_batch()))?;
            }
            if self.capture(&mut batch, frame, u64::MAX) {
                captured.push(page);
            }
        }
        self.write_batch(batch)
    }

    fn drain_events(&self, evictor: &mut Evictor) {
        while let Some(event) = self.events.pop() {
            match event {
                Event::Admitted(page, access) => evictor.policy.admitted(page, access),
                Event::Removed(page) => evictor.policy.removed(page),
            }
        }
    }

    /// Reads and clears the page's reference bit.
    fn take_touch(&self, page: PageId) -> bool {
        match self.table.place(page) {
            Place::Leaf(frame) | Place::Inner(frame) => {
                self.frame(frame).touched.swap(0, Ordering::Relaxed) != 0
            }
            _ => false,
        }
    }

    fn try_evict(&self, page: PageId) -> Eviction {
        let word = self.table.word(page).load(Ordering::Acquire);
        match Place::of(word) {
            Place::Leaf(frame) => {
                let descriptor = self.frame(frame);
                if !descriptor.dirty.is_clean() {
                    return Eviction::Dirty(frame);
                }
                if !descriptor.try_claim(page) {
                    return Eviction::Busy;
                }
                if !descriptor.dirty.is_clean() {
                    descriptor.unlatch();
                    return Eviction::Dirty(frame);
                }
                // Claimed, hence the newest version of the page, which its word names: nobody else can change that word.
                // And clean: its image lies at the location stored before it became so.
                let location = descriptor.dirty.location();
                self.table.word(page).store(Place::Disk(location).word(), Ordering::Release);
                let released = descriptor.retire(false);
                self.stats.evictions.fetch_add(1, Ordering::Relaxed);
                self.released(frame, released);
                Eviction::Done
            }
            Place::Inner(_) => {
                // Inside a reader epoch the frame cannot be given back and come to the same page again meanwhile.
                let slot = self.slots.mine();
                self.epochs.enter(slot);
                let outcome = self.try_evict_inner(page);
                self.epochs.leave(slot);
                outcome
            }
            Place::Loading => Eviction::Busy,
            Place::Disk(_) | Place::Free => Eviction::Gone,
        }
    }

    fn try_evict_inner(&self, page: PageId) -> Eviction {
        let word = self.table.word(page);
        let Place::Inner(frame) = Place::of(word.load(Ordering::Acquire)) else { return Eviction::Busy };
        let descriptor = self.frame(frame);
        if !descriptor.dirty.is_clean() {
            return Eviction::Dirty(frame);
        }
        // An inner node never changes, so clean means clean for as long as the word names this frame. A word with the
        // lock bit differs from the one expected here and is left alone.
        let location = descriptor.dirty.location();
        let (open, disk) = (Place::Inner(frame).word(), Place::Disk(location).word());
        if word.compare_exchange(open, disk, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return Eviction::Busy;
        }
        self.stats.evictions.fetch_add(1, Ordering::Relaxed);
        self.epochs.retire(Retired::Frame(frame));
        Eviction::Done
    }

    /// The background writer: keeps the stock of free frames above its mark.
    pub(crate) fn run_writer(&self) {
        loop {
            {
                let mut wanted = self.writer_wanted.lock();
                while !*wanted && !self.stopping.load(Ordering::Acquire) {
                    self.writer_wakeup.wait(&mut wanted);
                }
                *wanted = false;
            }
            if self.stopping.load(Ordering::Acquire) || self.has_failed() {
                return;
            }
            self.fill_stock();
        }
    }

    /// Writes out and evicts until the stock of free frames is above its mark, or nothing is to be had.
    pub(crate) fn fill_stock(&self) {
        loop {
            let free = self.free.lock().len();
            if free >= self.free_high || self.stopping.load(Ordering::Acquire) {
                break;
            }
            match self.make_frames((self.free_high - free).min(64)) {
                Ok(pass) if pass.got_anywhere() => {}
                Ok(_) => break,
                Err(error) => {
                    // The pages stay dirty; whoever needs frames or checkpoints meets the error itself.
                    tracing::warn!(%error, "the background writer could not write pages out");
                    break;
                }
            }
        }
    }

    pub(crate) fn wake_writer(&self) {
        if self.manual {
            return;
        }
        let mut wanted = self.writer_wanted.lock();
        if !*wanted {
            *wanted = true;
            self.writer_wakeup.notify_one();
        }
    }
}

enum Eviction {
    Done,
    /// Not resident any more.
    Gone,
    /// Pinned, latched, locked or being read.
    Busy,
    Dirty(FrameId),
}

/// Tells the policy, and counts, what became of a page that it had offered.
fn settle(policy: &mut dyn Policy, page: PageId, outcome: Eviction, pass: &mut Pass) {
    match outcome {
        Eviction::Done => {
            policy.evicted(page);
            pass.evicted += 1;
        }
        Eviction::Gone => {
            policy.removed(page);
            pass.gone += 1;
        }
        Eviction::Busy | Eviction::Dirty(_) => policy.kept(page),
    }
}

/// The evictor's lock; taken with no latch held, and never across I/O.
pub(crate) type EvictorLock = Mutex<Evictor>;
