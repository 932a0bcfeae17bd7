//! Models of the protocols between threads, checked by `loom`: it runs every interleaving of a few threads (up to a
//! number of preemptions) and lets every relaxed load return every value that the memory model allows, so weak
//! processors are covered too.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p bedstone-bufpool --lib --release model
//! ```
//!
//! What runs here is the code of `frame`, `dirty`, `preserved`, `table`, `epoch`, `checkpoint_epoch` and `threads` as
//! it is. The steps that join them (in the pool proper they stand between I/O) are repeated in [`World`], each under
//! the name of the function that it mirrors. The bytes of a frame are a cell that reports every access not ordered
//! against a write.
//!
//! Beside each model stand *controls*: the same scenario with one step left out or turned round. They must fail, or
//! the model proves nothing.
//!
//! Preemptions are bounded per model; the environment variable `LOOM_MAX_PREEMPTIONS` overrides it.

mod checkpoint;
mod epochs;
mod pages;
mod tree;

use bedstone_io::sync::{Arc, Mutex, Ordering, yield_now};
use loom::cell::UnsafeCell;
use loom::thread;

use crate::frame::{Frame, FrameId, Released};
use crate::header::PageId;
use crate::table::{Location, Place, Table};

/// Runs `model` in all interleavings with at most so many preemptions.
fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 20_000;
    builder.check(model);
}

/// How often an operation starts again before it gives up. More rounds add interleavings, and no new situations.
const ROUNDS: usize = 2;

/// The page that most models are about, and another one.
const PAGE: PageId = PageId(1);
const OTHER: PageId = PageId(2);

/// What a page holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Content {
    page: PageId,
    value: u64,
}

/// Plain memory whose every access loom compares with all others: one that is not ordered against a write ends the
/// model with "Causality violation".
struct Watched<T>(UnsafeCell<T>);

impl<T: Copy> Watched<T> {
    fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }
    fn get(&self) -> T {
        // SAFETY: loom runs one thread at a time, and nothing of the pointer outlives the call.
        self.0.with(|at| unsafe { *at })
    }
    fn set(&self, value: T) {
        // SAFETY: as above.
        self.0.with_mut(|at| unsafe { *at = value });
    }
}

/// Frames, their bytes, translation words, free list, and a disk that holds one image per location.
struct World {
    frames: Vec<Frame>,
    bytes: Vec<Watched<Content>>,
    table: Table,
    free: Mutex<Vec<FrameId>>,
    disk: Mutex<Vec<Content>>,
}

impl World {
    /// So many free frames, an empty table, and images at locations 1, 2, ...
    fn new(frames: usize, images: &[Content]) -> Self {
        let nothing = Content { page: PageId::NONE, value: 0 };
        let world = Self {
            frames: (0..frames).map(|_| Frame::default()).collect(),
            bytes: (0..frames).map(|_| Watched::new(nothing)).collect(),
            table: Table::new(4).expect("no memory is mapped here"),
            free: Mutex::new((0..frames as u32).rev().map(FrameId).collect()),
            disk: Mutex::new([&[nothing], images].concat()),
        };
        world.frames.iter().for_each(Frame::init_free);
        world
    }

    /// One page resident with `value`, clean, and so many frames in all.
    fn with_page(frames: usize, value: u64) -> Self {
        let content = Content { page: PAGE, value };
        let world = Self::new(frames, &[content]);
        let frame = world.take().expect("a frame");
        world.write(frame, content);
        world.frame(frame).assign(PAGE);
        world.frame(frame).dirty.loaded(Location(1));
        world.publish(frame, PAGE);
        world
    }

    fn frame(&self, frame: FrameId) -> &Frame {
        &self.frames[frame.0 as usize]
    }

    fn take(&self) -> Option<FrameId> {
        self.free.lock().pop()
    }

    fn free_frame(&self, frame: FrameId) {
        let mut free = self.free.lock();
        assert!(!free.contains(&frame), "a frame freed twice");
        free.push(frame);
    }

    fn released(&self, frame: FrameId, released: Released) {
        if released == Released::Free {
            self.free_frame(frame);
        }
    }

    fn read(&self, frame: FrameId) -> Content {
        self.bytes[frame.0 as usize].get()
    }

    fn write(&self, frame: FrameId, content: Content) {
        self.bytes[frame.0 as usize].set(content);
    }

    fn set_word(&self, page: PageId, place: Place) {
        self.table.word(page).store(place.word(), Ordering::Release);
    }

    /// `Shared::publish` for leaves.
    fn publish(&self, frame: FrameId, page: PageId) {
        self.frame(frame).open_latched();
        self.set_word(page, Place::Leaf(frame));
        self.frame(frame).unlatch();
    }

    /// `Guard::pin`, once.
    fn try_pin(&self, page: PageId) -> Option<FrameId> {
        let Place::Leaf(frame) = self.table.place(page) else { return None };
        match self.frame(frame).pin(page) {
            Ok(()) => Some(frame),
            Err(released) => {
                self.released(frame, released);
                None
            }
        }
    }

    fn unpin(&self, frame: FrameId) {
        let released = self.frame(frame).unpin();
        self.released(frame, released);
    }

    /// Pins the page, reads it twice, lets it go: the value. The law of the pool: both times it is the same page.
    fn get(&self, page: PageId) -> Option<u64> {
        for _ in 0..ROUNDS {
            if let Some(frame) = self.try_pin(page) {
                let content = self.read(frame);
                assert_eq!(content.page, page, "another page");
                yield_now();
                assert_eq!(self.read(frame), content, "a pinned page changed");
                self.unpin(frame);
                return Some(content.value);
            }
            yield_now();
        }
        None
    }

    /// `Guard::latch`, once.
    fn try_latch(&self, page: PageId) -> Option<FrameId> {
        let Place::Leaf(frame) = self.table.place(page) else { return None };
        self.frame(frame).latch(page).then_some(frame)
    }

    /// `LeafLatch::modify` and `PageMut::finish` of a page that no checkpoint needs: whether it was done.
    fn change(&self, page: PageId, change: impl Fn(u64) -> u64) -> bool {
        for _ in 0..ROUNDS {
            if let Some(frame) = self.try_latch(page) {
                if self.frame(frame).try_exclusive() {
                    self.frame(frame).dirty.change(1);
                    let before = self.read(frame);
                    self.write(frame, Content { value: change(before.value), ..before });
                    self.frame(frame).unlatch();
                    return true;
                }
                let Some(copy) = self.take() else {
                    self.frame(frame).unlatch();
                    return false;
                };
                let before = self.read(frame);
                self.write(copy, Content { value: change(before.value), ..before });
                self.frame(copy).assign(page);
                self.frame(copy).dirty.change(1);
                self.frame(copy).open_latched();
                self.set_word(page, Place::Leaf(copy));
                self.frame(frame).dirty.forget();
                let released = self.frame(frame).retire(false);
                self.released(frame, released);
                self.frame(copy).unlatch();
                return true;
            }
            yield_now();
        }
        false
    }

    /// `NewPage` and its `publish`, in any free frame.
    fn create(&self, page: PageId, value: u64) {
        let Some(frame) = self.take() else { return };
        self.write(frame, Content { page, value });
        self.frame(frame).assign(page);
        self.frame(frame).dirty.change(1);
        self.publish(frame, page);
    }

    /// `Shared::try_evict` of a leaf.
    fn evict(&self, page: PageId) -> bool {
        let Place::Leaf(frame) = self.table.place(page) else { return false };
        let descriptor = self.frame(frame);
        if !descriptor.dirty.is_clean() || !descriptor.try_claim(page) {
            return false;
        }
        if !descriptor.dirty.is_clean() {
            descriptor.unlatch();
            return false;
        }
        self.set_word(page, Place::Disk(descriptor.dirty.location()));
        let released = descriptor.retire(false);
        self.released(frame, released);
        true
    }

    /// `Shared::fault` of a leaf: whether this call brought it in.
    fn load(&self, page: PageId, publish: impl Fn(&Self, FrameId, PageId)) -> bool {
        let word = self.table.word(page);
        let now = word.load(Ordering::Acquire);
        let Place::Disk(location) = Place::of(now) else { return false };
        let Some(frame) = self.take() else { return false };
        if word.compare_exchange(now, Place::Loading.word(), Ordering::AcqRel, Ordering::Relaxed).is_err() {
            self.free_frame(frame);
            return false;
        }
        let image = self.disk.lock()[location.0 as usize];
        self.write(frame, image);
        self.frame(frame).assign(page);
        self.frame(frame).dirty.loaded(location);
        publish(self, frame, page);
        true
    }

    /// With all threads at rest: the word of a resident page names a frame that holds the page, is open and not free.
    fn assert_whole(&self, page: PageId) {
        if let Place::Leaf(frame) = self.table.place(page) {
            assert!(!self.free.lock().contains(&frame), "the word names a free frame");
            assert!(self.frame(frame).pin(page).is_ok(), "the word names a frame of another page");
            assert_eq!(self.frame(frame).pins(), 1, "a pin was not given back");
            self.unpin(frame);
        }
    }

    /// With all threads at rest: how many frames are free.
    fn free_frames(&self) -> usize {
        self.free.lock().len()
    }
}

/// Starts a thread of the model on the shared `world`.
fn spawn<W: 'static, T: 'static>(
    world: &Arc<W>,
    work: impl FnOnce(&W) -> T + 'static,
) -> thread::JoinHandle<T> {
    let world = world.clone();
    thread::spawn(move || work(&world))
}
