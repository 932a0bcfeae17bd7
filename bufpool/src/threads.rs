//! A small number for every living thread, so that per-thread state can be an array that others scan.

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::OnceLock;

use bedstone_io::sync::{AtomicU64, AtomicUsize, Ordering};
use crossbeam::utils::CachePadded;
use parking_lot::Mutex;

/// Slots per chunk, and chunks: room for 65,536 threads that use Bedstone at the same time (twice the usual
/// limit of a Linux machine). The model checker keeps track of every atomic and gets by with fewer; its threads are
/// addressed by explicit numbers.
const CHUNK: usize = if cfg!(loom) { 2 } else { 256 };
const CHUNKS: usize = if cfg!(loom) { 2 } else { 256 };

struct Numbers {
    free: BinaryHeap<Reverse<usize>>,
    next: usize,
}

static NUMBERS: Mutex<Numbers> = Mutex::new(Numbers { free: BinaryHeap::new(), next: 0 });

/// Returns its number when the thread ends.
struct Number(usize);

impl Drop for Number {
    fn drop(&mut self) {
        NUMBERS.lock().free.push(Reverse(self.0));
    }
}

thread_local! {
    static NUMBER: OnceCell<Number> = const { OnceCell::new() };
}

fn take_number() -> Number {
    let mut numbers = NUMBERS.lock();
    let number = numbers.free.pop().map_or_else(
        || {
            numbers.next += 1;
            numbers.next - 1
        },
        |Reverse(number)| number,
    );
    assert!(number < CHUNK * CHUNKS, "more than {} threads use Bedstone at once", CHUNK * CHUNKS);
    Number(number)
}

#[inline]
pub(crate) fn number() -> usize {
    NUMBER.with(|cell| cell.get_or_init(take_number).0)
}

/// What a pool knows of one thread. Written by that thread only (but for `kept`), scanned by others.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// Reader epoch entered, 0 when outside (see [`crate::epoch`]).
    pub(crate) reader: AtomicU64,
    /// Entries beyond the first that are still to be left. Read and written by the thread alone.
    pub(crate) nested: AtomicU64,
    /// Checkpoint epoch announced, 0 when none (see [`crate::checkpoint_epoch`]).
    pub(crate) announced: AtomicU64,
    /// Pins handed to the user by this thread and not yet given back, by whichever thread.
    pub(crate) kept: AtomicU64,
}

/// The slots of a pool, one per thread number, made as threads come.
#[derive(Debug)]
pub(crate) struct Slots {
    chunks: [OnceLock<Box<[CachePadded<Slot>]>>; CHUNKS],
    /// One more than the highest number seen.
    seen: AtomicUsize,
}

impl Slots {
    pub(crate) fn new() -> Self {
        Self { chunks: [const { OnceLock::new() }; CHUNKS], seen: AtomicUsize::new(0) }
    }

    #[inline]
    pub(crate) fn slot(&self, number: usize) -> &Slot {
        match self.chunks[number / CHUNK].get() {
            Some(chunk) if number < self.seen.load(Ordering::Relaxed) => &chunk[number % CHUNK],
            _ => self.grow(number),
        }
    }

    /// The calling thread's slot.
    #[inline]
    pub(crate) fn mine(&self) -> &Slot {
        self.slot(number())
    }

    #[cold]
    fn grow(&self, number: usize) -> &Slot {
        let chunk =
            self.chunks[number / CHUNK].get_or_init(|| (0..CHUNK).map(|_| CachePadded::default()).collect());
        // Before the thread stores anything into its slot: a scan that comes later sees the slot too. SeqCst joins
        // this with the fences by which epochs and announcements order slots against the global epochs.
        self.seen.fetch_max(number + 1, Ordering::SeqCst);
        &chunk[number % CHUNK]
    }

    /// The slots of all threads seen so far.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot> {
        let seen = self.seen.load(Ordering::SeqCst);
        let chunks = self.chunks[..seen.div_ceil(CHUNK)].iter().filter_map(OnceLock::get);
        // A chunk that is still being made has no thread inside yet; leaving it out lets `take` only go further.
        chunks.flat_map(|chunk| chunk.iter().map(|slot| &**slot)).take(seen)
    }
}
