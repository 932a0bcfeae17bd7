//! Writing pages out.
//!
//! An image is *captured* (copied into a staging buffer while the frame is pinned, or, for an inner node, while a reader
//! epoch protects it), sealed with its checksum there, written to a fresh place in the data file, and *filed* in the
//! delta of the epoch that the content belongs to. Bytes in a frame never change under the I/O, readers never wait
//! for it, and a writer copies a page on account of it only if it comes within the microsecond of the capture.
//!
//! [`Dirty`] keeps the books of each frame. Captures are entered and completions carried out under the lock of the
//! [`Space`], one at a time, which lets the larger capture number win.
//!
//! [`Dirty`]: crate::dirty::Dirty
//! [`Space`]: crate::space::Space

use std::sync::Arc;

use bedstone_io::sync::Ordering;
use bedstone_io::{AlignedBuf, WriteOp};

use crate::error::{PoolError, Result};
use crate::frame::FrameId;
use crate::header::PageId;
use crate::map::Entry;
use crate::page_file::seal_image;
use crate::pool::Shared;
use crate::space::location_of;
use crate::table::Place;

/// Bytes of a staging buffer, and with it of the largest batch of images.
const STAGING: usize = 1 << 20;
/// Largest single write: adjacent images are merged up to this many bytes.
const WRITE_MAX: usize = 256 << 10;

/// An image in the staging buffer.
struct Image {
    page: PageId,
    frame: FrameId,
    epoch: u64,
    capture: u64,
    unit: u64,
    check: u16,
}

/// Images to be written together.
pub(crate) struct Batch {
    staging: AlignedBuf,
    images: Vec<Image>,
}

impl Shared {
    pub(crate) fn new_batch(&self) -> Batch {
        let staging = self.staging.pop().unwrap_or_else(|| AlignedBuf::zeroed(STAGING));
        Batch { staging, images: Vec::new() }
    }

    fn batch_max(&self) -> usize {
        STAGING / self.page_size
    }

    /// Captures the page in `frame` if it is dirty (with an epoch of at most `epoch_max`), not captured, and can be had
    /// now. Returns whether it was added.
    pub(crate) fn capture(&self, batch: &mut Batch, frame: FrameId, epoch_max: u64) -> bool {
        let descriptor = self.frame(frame);
        if descriptor.dirty.owed().is_none_or(|epoch| epoch > epoch_max) {
            return false;
        }
        let page = descriptor.page();
        match Place::of(self.word_of(page)) {
            Place::Leaf(current) if current == frame => {
                if let Err(released) = descriptor.pin(page) {
                    self.released(frame, released);
                    return false;
                }
                let added = self.capture_held(batch, frame, page, || descriptor.is_current());
                let released = descriptor.unpin();
                self.released(frame, released);
                added
            }
            Place::Inner(current) if current == frame => {
                let slot = self.slots.mine();
                self.epochs.enter(slot);
                // Seen again inside the epoch: from here on the frame stays what it is.
                let current = || Place::of(self.word_of(page)) == Place::Inner(frame);
                let added = current() && self.capture_held(batch, frame, page, current);
                self.epochs.leave(slot);
                added
            }
            _ => false,
        }
    }

    /// Captures a preserved image: the frame was retired with a pin of the checkpoint's own (leaf), or is kept from
    /// the reader epochs (inner node), and its content is the page's last one of its epoch.
    pub(crate) fn capture_preserved(&self, batch: &mut Batch, frame: FrameId, page: PageId) {
        self.capture_held(batch, frame, page, || true);
    }

    /// The frame cannot change or go while this runs.
    fn capture_held(
        &self,
        batch: &mut Batch,
        frame: FrameId,
        page: PageId,
        is_current: impl Fn() -> bool,
    ) -> bool {
        let descriptor = self.frame(frame);
        let Some(epoch) = descriptor.dirty.owed() else { return false };
        let capture = {
            let mut space = self.space.lock();
            let capture = space.next_capture();
            // In this order: a version that replaces this one from here on draws a larger number.
            if !is_current() || !descriptor.dirty.capture(epoch, capture) {
                return false;
            }
            space.begin_image(epoch);
            capture
        };
        let at = batch.images.len() * self.page_size;
        let staged = &mut batch.staging[at..at + self.page_size];
        // SAFETY: the frame is pinned, preserved, or protected by the reader epoch entered by the caller: nobody writes
        // it while this runs.
        staged.copy_from_slice(unsafe { self.arena.bytes(frame) });
        let checksum = seal_image(staged);
        batch.images.push(Image { page, frame, epoch, capture, unit: 0, check: checksum as u16 });
        self.promise(-1);
        true
    }

    pub(crate) fn is_full(&self, batch: &Batch) -> bool {
        batch.images.len() == self.batch_max()
    }

    /// Writes the captured images out and files them. On an error the images that failed are dirty again.
    pub(crate) fn write_batch(&self, mut batch: Batch) -> Result<()> {
        let outcome = if batch.images.is_empty() { Ok(()) } else { self.write_images(&mut batch) };
        drop(self.staging.push(batch.staging));
        outcome
    }

    fn write_images(&self, batch: &mut Batch) -> Result<()> {
        // One run of units if possible, so that the images lie side by side in the order of the batch.
        let placed = self.place_images(&mut batch.images);
        let placed_count = match placed {
            Ok(()) => batch.images.len(),
            Err(ref failure) => failure.0,
        };
        let mut ops = Vec::new();
        let mut spans = Vec::new();
        let mut first = 0;
        while first < placed_count {
            let units = self.page_units;
            let mut end = first + 1;
            while end < placed_count
                && batch.images[end].unit == batch.images[end - 1].unit + units
                && (end + 1 - first) * self.page_size <= WRITE_MAX
            {
                end += 1;
            }
            let bytes = first * self.page_size..end * self.page_size;
            let buf = batch.staging.as_aligned().slice(bytes);
            ops.push(WriteOp { buf, offset: batch.images[first].unit * crate::UNIT as u64, result: Ok(()) });
            spans.push(first..end);
            first = end;
        }
        self.stats.page_writes.fetch_add(placed_count as u64, Ordering::Relaxed);
        self.stats.write_batches.fetch_add(1, Ordering::Relaxed);
        self.file.write_batch(&mut ops);
        let mut error: Option<Arc<PoolError>> = None;
        let mut failures: Vec<(usize, Arc<PoolError>)> = Vec::new();
        let mut space = self.space.lock();
        for (op, span) in ops.into_iter().zip(spans) {
            match op.result {
                Ok(()) => {
                    for image in &batch.images[span] {
                        let entry = Entry::new(image.unit, self.page_units, image.check);
                        space.file_image(image.page, image.epoch, image.capture, entry);
                        self.frame(image.frame).dirty.written(image.epoch, image.capture, location_of(entry));
                    }
                }
                Err(failed) => {
                    let failed = Arc::new(PoolError::from(failed));
                    failures.extend(span.map(|at| (at, failed.clone())));
                }
            }
        }
        if let Err((count, no_space)) = placed {
            let failed = Arc::new(no_space);
            failures.extend((count..batch.images.len()).map(|at| (at, failed.clone())));
        }
        for (at, failed) in failures {
            let image = &batch.images[at];
            if image.unit != 0 {
                space.free_units(image.unit, self.page_units);
            }
            space.abandon_image(image.epoch, Some(failed.clone()));
            // The promise of room comes back with the debt.
            if self.frame(image.frame).dirty.unwritten(image.epoch, image.capture) {
                self.promise(1);
            }
            error = Some(failed);
        }
        drop(space);
        self.images_done.notify_all();
        match error {
            None => Ok(()),
            Some(error) => Err(PoolError::WriteOut(error)),
        }
    }

    /// Gives every image a place; on a full disk, says how many got one.
    fn place_images(&self, images: &mut [Image]) -> std::result::Result<(), (usize, PoolError)> {
        let units = self.page_units;
        let mut placed = 0;
        while placed < images.len() {
            let run = self.space.lock().units.alloc_many(units, (images.len() - placed) as u64);
            match run {
                Some((start, count)) => {
                    for (index, image) in images[placed..placed + count as usize].iter_mut().enumerate() {
                        image.unit = start + index as u64 * units;
                    }
                    placed += count as usize;
                }
                None => self.grow((images.len() - placed) as u64).map_err(|error| (placed, error))?,
            }
        }
        Ok(())
    }
}
