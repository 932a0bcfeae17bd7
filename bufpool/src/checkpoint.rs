//! Checkpoints: the pages as they were at the end of an epoch, made the durable state of the data file.
//!
//! 1. The caller computes the replay LSN C: every commit below it is applied wholly.
//! 2. [`Pool::begin_checkpoint`] closes epoch e: later page operations belong to e + 1; it waits for those of e. From
//!    here on the content of a page that is dirty in e cannot change before its image is taken: a writer of e + 1 moves
//!    to a copy and leaves the old frame on the list of preserved ones.
//! 3. The caller notes the log's end L and sees to it that the log is durable to L: no image contains anything the log
//!    could still lose.
//! 4. [`Checkpoint::write_pages`] writes every page dirty in e or before, and waits for the evictor's writes of such
//!    pages too.
//! 5. [`Checkpoint::finish`] writes the changed parts of the map to new blocks, syncs the file, writes one
//!    superblock, syncs, writes the other, syncs, and only then frees what the old checkpoint held.
//!
//! An error before the superblock write gives the checkpoint up: what it would have said goes to the next one, the old
//! one still holds, nothing was freed. From the superblock write on, and after any failed sync, nobody knows what the
//! medium holds: the store fails and frees nothing.

use std::marker::PhantomData;
use std::sync::Arc;

use bedstone_io::defect::{self, Defect};
use bedstone_io::sync::{Ordering, yield_now};
use bedstone_io::{AlignedBuf, WriteOp};
use parking_lot::MutexGuard;

use crate::error::{PoolError, Result};
use crate::frame::FrameId;
use crate::header::PageId;
use crate::map::{Entry, MapUpdate};
use crate::pool::{Pool, Retired, Shared};
use crate::superblock::Superblock;
use crate::table::Place;

/// What the superblock is to say.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointParams {
    /// Where replay begins: every commit below it is wholly in the pages.
    pub replay_lsn: u64,
    /// The log's end when the epoch was closed; the log is durable to here.
    pub log_end: u64,
}

/// Where [`Checkpoint::write_pages_pausing`] and [`Checkpoint::finish_pausing`] pause. No lock is held there, but for the one
/// that keeps other checkpoints away, so the thread may use the pool meanwhile as any other thread may at any time. It must
/// not unwind there: the superblocks may be ahead of the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// Some of the pages are on the medium.
    SomePagesWritten,
    /// The new parts of the map are on the medium, not yet durable.
    MapWritten,
    /// Pages and map are durable; the superblocks know nothing of them.
    DataSynced,
    /// The superblocks are durable; nothing has been freed.
    SuperblocksWritten,
}

/// The map as it will be, and its blocks to be written.
struct Prepared {
    update: MapUpdate,
    blocks: Vec<(u64, AlignedBuf)>,
    live_pages: u64,
    map_blocks: u64,
}

/// A checkpoint under way. Dropped unfinished, it is given up.
#[derive(Debug)]
pub struct Checkpoint<'p> {
    shared: &'p Shared,
    epoch: u64,
    /// All images are on the medium.
    written: bool,
    done: bool,
    _one: MutexGuard<'p, ()>,
    not_send: PhantomData<*mut ()>,
}

impl Pool {
    /// Closes the epoch and waits for the page operations announced in it. Waits also for another checkpoint to end.
    /// No guard, latch or announcement may be held.
    ///
    /// # Errors
    /// [`PoolError::Failed`] if the store takes no more writes.
    pub fn begin_checkpoint(&self) -> Result<Checkpoint<'_>> {
        let shared = self.shared();
        let one = shared.checkpointing.lock();
        shared.check_failed()?;
        let epoch = {
            // The delta switches with the epoch: an image of epoch e filed from here on finds it under `closing`. Images
            // of e + 1 cannot be captured before the epoch has moved.
            let mut space = shared.space.lock();
            let epoch = space.open.epoch;
            space.close_epoch(epoch);
            epoch
        };
        let closed = shared.epoch.close(&shared.slots);
        debug_assert_eq!(closed, epoch);
        Ok(Checkpoint { shared, epoch, written: false, done: false, _one: one, not_send: PhantomData })
    }
}

impl Checkpoint<'_> {
    /// Writes every page that was dirty when the epoch was closed, and waits until all such images are on the medium
    /// (not yet durable).
    ///
    /// # Errors
    /// The first failed write; the checkpoint is given up when it is dropped then.
    pub fn write_pages(&mut self) -> Result<()> {
        self.write_pages_pausing(&mut |_| {})
    }

    /// The same, with a pause after each batch.
    ///
    /// # Errors
    /// As [`Checkpoint::write_pages`].
    pub fn write_pages_pausing(&mut self, pause: &mut dyn FnMut(Pause)) -> Result<()> {
        let shared = self.shared;
        loop {
            let mut batch = shared.new_batch();
            let mut left = 0;
            for (page, frame) in self.dirty_frames() {
                left += 1;
                if shared.is_full(&batch) {
                    shared.write_batch(std::mem::replace(&mut batch, shared.new_batch()))?;
                    pause(Pause::SomePagesWritten);
                }
                if self.is_preserved(page, frame) {
                    continue;
                }
                shared.capture(&mut batch, frame, self.epoch);
            }
            let mut unwritten = shared.preserved.take().into_iter();
            let mut outcome = Ok(());
            for (page, frame) in unwritten.by_ref() {
                left += 1;
                if shared.is_full(&batch) {
                    outcome = shared.write_batch(std::mem::replace(&mut batch, shared.new_batch()));
                }
                shared.capture_preserved(&mut batch, frame, page);
                shared.release_preserved(frame);
                if outcome.is_err() {
                    break;
                }
            }
            shared.preserved.put_back(unwritten);
            // What was captured is written even if something before it failed: every capture is accounted for.
            let rest = shared.write_batch(batch);
            outcome?;
            rest?;
            self.wait_for_images()?;
            if left == 0 {
                self.written = true;
                return Ok(());
            }
            pause(Pause::SomePagesWritten);
            // A writer that failed half-way may have left a page that never becomes fit to be captured.
            shared.check_failed()?;
            // A page latched or moved just now comes up again.
            yield_now();
        }
    }

    /// Frames with content of this epoch or before and no image on its way, by page id: pages made together lie
    /// together on disk.
    fn dirty_frames(&self) -> Vec<(PageId, FrameId)> {
        let mut dirty: Vec<_> = self
            .shared
            .frames
            .iter()
            .enumerate()
            .filter(|(_, frame)| frame.dirty.owed().is_some_and(|epoch| epoch <= self.epoch))
            .map(|(index, frame)| (frame.page(), FrameId(index as u32)))
            .collect();
        dirty.sort_unstable();
        dirty
    }

    /// The frame is not its page's newest version any more: it is, or is about to be, on the list of preserved ones.
    fn is_preserved(&self, page: PageId, frame: FrameId) -> bool {
        !matches!(Place::of(self.shared.word_of(page)), Place::Leaf(now) | Place::Inner(now) if now == frame)
    }

    /// Waits for the writes of images of this epoch, whoever does them.
    fn wait_for_images(&self) -> Result<()> {
        let mut space = self.shared.space.lock();
        loop {
            let closing = space.closing.as_ref().expect("the delta stays until the checkpoint ends");
            if let Some(error) = &closing.failed {
                return Err(PoolError::WriteOut(error.clone()));
            }
            if closing.in_flight == 0 {
                return Ok(());
            }
            self.shared.images_done.wait(&mut space);
        }
    }

    /// Makes the checkpoint the durable state and frees what the one before held. The log must be durable to
    /// `params.log_end` before.
    ///
    /// # Errors
    /// As the module says: either given up with everything as before, or the store has failed.
    ///
    /// # Panics
    /// If [`Checkpoint::write_pages`] has not ended well before.
    pub fn finish(self, params: CheckpointParams) -> Result<()> {
        self.finish_pausing(params, &mut |_| {})
    }

    /// The same, with pauses between its steps.
    ///
    /// # Errors
    /// As [`Checkpoint::finish`].
    ///
    /// # Panics
    /// As [`Checkpoint::finish`].
    pub fn finish_pausing(mut self, params: CheckpointParams, pause: &mut dyn FnMut(Pause)) -> Result<()> {
        assert!(self.written, "the pages of a checkpoint are written before it is finished");
        let shared = self.shared;
        let number = shared.superblock.lock().checkpoint + 1;
        let Prepared { update, blocks, live_pages, map_blocks } = self.prepare_map(number)?;
        if let Err(error) = self.write_map(blocks) {
            self.give_back_blocks(&update);
            return Err(error);
        }
        pause(Pause::MapWritten);
        // Before the sync: others go on making room in the file, and a superblock must not count on a length that is not
        // on the medium.
        let file_units = shared.space.lock().units.total();
        // The rule: what the superblock will name is durable before the superblock is written.
        if !defect::is(Defect::SkipDataSync) {
            shared.sync_file()?;
        }
        pause(Pause::DataSynced);
        {
            let mut superblock = shared.superblock.lock();
            let next_id = shared.space.lock().next_id;
            let next = Superblock {
                checkpoint: number,
                next_page_id: next_id,
                replay_lsn: params.replay_lsn,
                log_end: params.log_end,
                map_root: update.root(),
                file_units,
                live_pages,
                map_blocks,
                ..superblock.clone()
            };
            shared.write_superblock(&next)?;
            *superblock = next;
        }
        pause(Pause::SuperblocksWritten);
        let ids = shared.space.lock().finish_closing(update);
        for id in ids {
            shared.epochs.retire(Retired::Id(id));
        }
        shared.epoch.set_closing(0);
        shared.stats.checkpoints.fetch_add(1, Ordering::Relaxed);
        self.done = true;
        // Their freeing is durable now. The evictor does this too, but a pool with room enough never needs it.
        shared.reap_all_deferred();
        shared.collect_retired();
        Ok(())
    }

    fn prepare_map(&self, number: u64) -> Result<Prepared> {
        let shared = self.shared;
        shared.ensure_space(0, true)?;
        let mut space = shared.space.lock();
        let space = &mut *space;
        let closing = space.closing.as_ref().expect("the delta stays until the checkpoint ends");
        let delta: Vec<(PageId, Entry)> =
            closing.entries().map(|(page, entry)| (page, entry.unwrap_or(Entry::FREE))).collect();
        let old = |page: PageId| space.stable.get(page);
        let live = |entry: Entry| u64::from(!entry.is_free());
        let gained: u64 = delta.iter().map(|&(_, entry)| live(entry)).sum();
        let lost: u64 = delta.iter().map(|&(page, _)| live(old(page))).sum();
        let replaced: u64 =
            delta.iter().filter(|&&(page, entry)| old(page) != entry).map(|&(page, _)| live(old(page))).sum();
        let mut blocks = Vec::new();
        let (units, page_units) = (&mut space.units, space.page_units);
        let file = shared.file.path();
        let mut alloc = || {
            units.alloc_run(page_units).ok_or_else(|| PoolError::NoSpace {
                file: file.to_path_buf(),
                wanted: shared.page_size as u64,
            })
        };
        let mut sink = |unit, image| {
            blocks.push((unit, image));
            Ok(())
        };
        match space.stable.prepare(&delta, number, &mut alloc, &mut sink) {
            Ok(update) => Ok(Prepared {
                live_pages: space.stable.live_pages() + gained - lost,
                // What is released are the images of replaced pages, and old map blocks.
                map_blocks: space.stable.map_blocks() + update.new_blocks().len() as u64 + replaced
                    - update.released().len() as u64,
                update,
                blocks,
            }),
            Err(abandoned) => {
                for (unit, count) in abandoned.new_blocks {
                    space.free_units(unit, count);
                }
                Err(abandoned.error)
            }
        }
    }

    fn write_map(&self, blocks: Vec<(u64, AlignedBuf)>) -> Result<()> {
        let mut ops: Vec<WriteOp<'_>> = blocks
            .iter()
            .map(|(unit, image)| WriteOp {
                buf: image.as_aligned(),
                offset: unit * crate::UNIT as u64,
                result: Ok(()),
            })
            .collect();
        self.shared.file.write_batch(&mut ops);
        ops.into_iter()
            .try_for_each(|op| op.result)
            .map_err(|error| PoolError::WriteOut(Arc::new(error.into())))
    }

    fn give_back_blocks(&self, update: &MapUpdate) {
        let mut space = self.shared.space.lock();
        for &(unit, count) in update.new_blocks() {
            space.free_units(unit, count);
        }
    }
}

impl Drop for Checkpoint<'_> {
    /// Gives an unfinished checkpoint up.
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let shared = self.shared;
        // From here on no writer preserves anything for this epoch; what is preserved already is not needed: a newer
        // version of each such page is dirty and belongs to the next checkpoint. The list is emptied below, after this:
        // nothing may be left on it that a later checkpoint would take for its own.
        shared.epoch.set_closing(0);
        {
            let mut space = shared.space.lock();
            while space.closing.as_ref().is_some_and(|closing| closing.in_flight > 0) {
                shared.images_done.wait(&mut space);
            }
            if !shared.has_failed() {
                space.reopen_epoch();
            }
        }
        for (_, frame) in shared.preserved.take() {
            shared.release_preserved(frame);
        }
    }
}

impl Shared {
    /// The checkpoint needs the preserved frame no more: the pin it owned goes (leaf), or the frame goes to the reader
    /// epochs (inner node, which nobody ever pins).
    fn release_preserved(&self, frame: FrameId) {
        self.forget_dirty(frame);
        if self.frame(frame).pins() > 0 {
            let released = self.frame(frame).unpin();
            self.released(frame, released);
        } else {
            self.retire_by_epoch(frame);
        }
    }
}
