//! The pool itself: what it is made of, how it is opened, and what it says of itself.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::thread::JoinHandle;

use bedstone_io::sync::{AtomicBool, AtomicU64, Ordering};
use bedstone_io::{AlignedBuf, DirectFile, Disk, OpenMode};
use crossbeam::channel::{Sender, bounded};
use crossbeam::queue::{ArrayQueue, SegQueue};
use parking_lot::{Condvar, Mutex};

use crate::arena::{Arena, Array};
use crate::checkpoint_epoch::CheckpointEpoch;
use crate::epoch::Epochs;
use crate::error::{PoolError, Result};
use crate::evict::{Event, Evictor, EvictorLock};
use crate::frame::{Frame, FrameId};
use crate::free::FIRST_PAGES;
use crate::header::{PageHeader, PageId};
use crate::map::{self, Entry};
use crate::policy;
use crate::preserved::Preserved;
use crate::reserve::Parts;
use crate::space::{Space, location_of};
use crate::superblock::{self, Superblock};
use crate::table::{Location, Place, Table};
use crate::threads::Slots;
use crate::units::Units;

/// Fewest frames a pool works with.
pub const FRAMES_MIN: usize = 64;
/// Smallest and largest page, in bytes; every power of two between is a page size.
pub const PAGE_SIZE_MIN: usize = 4 << 10;
/// See [`PAGE_SIZE_MIN`].
pub const PAGE_SIZE_MAX: usize = 64 << 10;

/// Reference byte of a page that just came in: the touch of the operation that brought it does not count.
pub(crate) const FRESH: u8 = 2;
/// Shards of those who wait for a page that is being read.
const LOAD_SHARDS: usize = 64;
/// Threads that bring pages in ahead of scans.
const READ_AHEAD_THREADS: usize = 2;
/// Reserves kept for the next writer.
const STASH: usize = 16;

/// Who does the work behind the callers' backs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Background {
    /// Threads of the pool's own.
    #[default]
    Threads,
    /// Nobody: everything happens inside the callers' own calls, so that a single thread's run is deterministic.
    Manual,
}

/// Which pages to give up when frames run short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PolicyKind {
    /// S3-FIFO (Yang et al., SOSP 2023): a small and a main queue, and a ghost list.
    #[default]
    S3Fifo,
    /// InnoDB's midpoint LRU: a young and an old list.
    Midpoint,
}

/// How a page is come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// For its own sake: the page gets warmer.
    Point,
    /// In passing, by a scan: it does not.
    Scan,
}

/// Checks the body of a page that was just read; its envelope and checksum have been verified.
pub trait VerifyPage: Send + Sync {
    /// What is wrong with the body, if anything. Must not panic on any bytes.
    ///
    /// # Errors
    /// What is wrong and where in the page.
    fn verify(&self, header: &PageHeader, page: &[u8]) -> std::result::Result<(), String>;
}

/// How a pool is opened.
#[derive(Clone)]
pub struct PoolConfig {
    /// Bytes of all frames together, a hard limit; rounded down to whole pages.
    pub pool_bytes: usize,
    /// Replacement policy.
    pub policy: PolicyKind,
    /// Ask the kernel for huge pages.
    pub huge_pages: bool,
    /// Who does background work.
    pub background: Background,
    /// Checks page bodies as they are read.
    pub verify: Arc<dyn VerifyPage>,
}

/// What a new data file is made with.
#[derive(Debug, Clone)]
pub struct FormatParams {
    /// Bytes of a page: a power of two from [`PAGE_SIZE_MIN`] to [`PAGE_SIZE_MAX`].
    pub page_size: usize,
    /// The database's own number.
    pub database_id: [u8; 16],
    /// Where its log begins.
    pub start_lsn: u64,
}

/// Counters since the pool was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) page_reads: AtomicU64,
    pub(crate) read_batches: AtomicU64,
    pub(crate) page_writes: AtomicU64,
    pub(crate) write_batches: AtomicU64,
    pub(crate) evictions: AtomicU64,
    pub(crate) copies: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) syncs: AtomicU64,
}

/// What a pool says of itself.
#[derive(Debug, Clone, Default)]
pub struct PoolStats {
    /// Frames in all.
    pub frames: u64,
    /// Frames free now.
    pub free_frames: u64,
    /// Frames whose content differs from what is on disk.
    pub dirty_frames: u64,
    /// Bytes of a page.
    pub page_size: u64,
    /// Pages in use.
    pub live_pages: u64,
    /// Bytes of the data file.
    pub file_bytes: u64,
    /// Bytes of it that hold nothing.
    pub free_bytes: u64,
    /// Bytes kept only for readers of freed values.
    pub held_bytes: u64,
    /// Pages read since the pool was opened, and the batches with more than one read in flight.
    pub page_reads: u64,
    /// See `page_reads`.
    pub read_batches: u64,
    /// Page images written since the pool was opened, and the batches they went in.
    pub page_writes: u64,
    /// See `page_writes`.
    pub write_batches: u64,
    /// Pages evicted.
    pub evictions: u64,
    /// Pages copied because a reader or a checkpoint needed them as they were.
    pub copies: u64,
    /// Checkpoints completed.
    pub checkpoints: u64,
    /// `fdatasync` calls on the data file.
    pub syncs: u64,
    /// Replaced inner nodes waiting for readers to leave.
    pub retired: u64,
    /// 4 KiB pages of the data file in the operating system's cache (0 with direct I/O), where it can be asked.
    pub os_cached_pages: Option<u64>,
}

/// What was handed to the reader epochs.
#[derive(Debug)]
pub(crate) enum Retired {
    Frame(FrameId),
    Id(PageId),
}

/// What the pool's owner, its guards and its threads share.
pub(crate) struct Shared {
    pub(crate) file: Arc<dyn DirectFile>,
    pub(crate) page_size: usize,
    /// Units of one page image.
    pub(crate) page_units: u64,
    pub(crate) arena: Arena,
    pub(crate) frames: Array<Frame>,
    pub(crate) table: Table,
    pub(crate) slots: Slots,
    pub(crate) epochs: Epochs<Retired>,
    pub(crate) epoch: CheckpointEpoch,
    pub(crate) space: Mutex<Space>,
    /// Signalled with `space` when writes of images end.
    pub(crate) images_done: Condvar,
    pub(crate) superblock: Mutex<Superblock>,
    /// The superblock slot written first, always: when the file was opened it was the one that could be spared.
    first_slot: usize,
    /// Retired frames whose content the checkpoint being closed still needs.
    pub(crate) preserved: Preserved,
    /// One checkpoint at a time.
    pub(crate) checkpointing: Mutex<()>,
    pub(crate) free: Mutex<Vec<FrameId>>,
    pub(crate) frames_freed: Condvar,
    pub(crate) free_low: usize,
    pub(crate) free_high: usize,
    pub(crate) retired_max: usize,
    pub(crate) stash: ArrayQueue<Parts>,
    pub(crate) stash_frames_max: usize,
    /// Page images that must still be written or may have to be.
    pub(crate) promised: AtomicI64,
    pub(crate) growing: Mutex<()>,
    pub(crate) evictor: EvictorLock,
    pub(crate) events: SegQueue<Event>,
    pub(crate) staging: ArrayQueue<AlignedBuf>,
    pub(crate) verify: Arc<dyn VerifyPage>,
    pub(crate) kept_per_thread: u64,
    pub(crate) kept_common_max: u64,
    pub(crate) kept_common: AtomicU64,
    load_shards: Box<[(Mutex<()>, Condvar)]>,
    pub(crate) read_ahead: Option<Sender<Vec<PageId>>>,
    pub(crate) writer_wanted: Mutex<bool>,
    pub(crate) writer_wakeup: Condvar,
    pub(crate) stopping: AtomicBool,
    pub(crate) manual: bool,
    failure: Mutex<Option<Arc<PoolError>>>,
    has_failed: AtomicBool,
    pub(crate) stats: Counters,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("file", &self.file.path())
            .field("frames", &self.arena.frames())
            .finish_non_exhaustive()
    }
}

/// The page store: a data file and the pool of frames through which all its pages are seen.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Pool {
    /// Writes a new, empty data file at `path`, which must not exist, and makes its content durable (its name is
    /// the caller's to make durable).
    ///
    /// # Errors
    /// [`PoolError::Config`] for a page size that is none, [`PoolError::NoSpace`] if there is no room for the first pages, or
    /// an I/O error.
    pub fn format(disk: &dyn Disk, path: &Path, params: &FormatParams) -> Result<()> {
        check_page_size(params.page_size)?;
        let file = disk.open_direct(path, OpenMode::CreateNew)?;
        let file_units = superblock::DATA_START_UNIT + (FIRST_PAGES * params.page_size / crate::UNIT) as u64;
        let bytes = file_units * crate::UNIT as u64;
        file.allocate(bytes).map_err(|error| no_space(error, path, bytes))?;
        let superblock = Superblock {
            database_id: params.database_id,
            page_size: params.page_size as u32,
            checkpoint: 0,
            opening: 0,
            next_page_id: 2,
            replay_lsn: params.start_lsn,
            log_end: params.start_lsn,
            map_root: map::Root::EMPTY,
            file_units,
            live_pages: 0,
            map_blocks: 0,
            created_unix_ms: disk.unix_ms(),
        };
        superblock.write_both(&*file, 0)?;
        Ok(())
    }

    /// Opens the data file at `path`: newest valid superblock, page map, free space. Nothing is written.
    ///
    /// # Errors
    /// What is wrong with the file or the options, typed; see [`PoolError`].
    pub fn open(disk: &Arc<dyn Disk>, path: &Path, config: &PoolConfig) -> Result<Pool> {
        let file = disk.open_direct(path, OpenMode::ReadWrite)?;
        let slots = superblock::read_both(&*file);
        let superblock = slots.best(path)?;
        for (offset, fault) in slots.faults() {
            tracing::warn!(file = %path.display(), offset, fault, "a superblock is damaged; the other one is used");
        }
        let page_size = superblock.page_size as usize;
        check_page_size(page_size)?;
        let frames = config.pool_bytes / page_size;
        if frames < FRAMES_MIN {
            return Err(PoolError::TooSmall {
                given: config.pool_bytes as u64,
                min: (FRAMES_MIN * page_size) as u64,
                page_size: superblock.page_size,
            });
        }
        let mut units = Units::new(file.len()? / crate::UNIT as u64);
        let stable = map::load(&*file, &superblock, &mut units)?;
        let table = map_table()?;
        for (page, entry) in stable.iter() {
            if page.0 as usize >= table.capacity() {
                return Err(PoolError::OutOfMemory {
                    what: "the translation table",
                    bytes: u64::from(page.0) * 8,
                });
            }
            table.word(page).store(Place::Disk(location_of(entry)).word(), Ordering::Relaxed);
        }
        let arena = Arena::new(frames, page_size, config.huge_pages)?;
        let descriptors = Array::new(frames, config.huge_pages)
            .map_err(|error| PoolError::Memory { bytes: (frames * 64) as u64, error })?;
        descriptors.iter().for_each(Frame::init_free);
        let page_units = (page_size / crate::UNIT) as u64;
        let next_id = superblock.next_page_id.max(u32::try_from(stable.id_bound()).unwrap_or(u32::MAX));
        let id_max = u32::try_from(table.capacity() - 1).unwrap_or(u32::MAX);
        let (sender, receiver) = bounded::<Vec<PageId>>(16);
        let manual = config.background == Background::Manual;
        let shared = Arc::new(Shared {
            page_size,
            page_units,
            space: Mutex::new(Space::new(units, stable, page_units, next_id, id_max)),
            images_done: Condvar::new(),
            superblock: Mutex::new(superblock),
            first_slot: slots.expendable(),
            free: Mutex::new((0..frames as u32).rev().map(FrameId).collect()),
            free_low: (frames / 64).clamp(4, 256),
            free_high: (frames / 32).clamp(8, 512),
            retired_max: (frames / 64).clamp(4, 256),
            stash: ArrayQueue::new(STASH.min(frames / 64).max(1)),
            stash_frames_max: (frames / 64).clamp(8, 32),
            promised: AtomicI64::new(0),
            evictor: Mutex::new(Evictor { policy: policy::new(config.policy, frames) }),
            verify: config.verify.clone(),
            kept_per_thread: (frames as u64 / 64).min(8),
            kept_common_max: frames as u64 / 8,
            load_shards: (0..LOAD_SHARDS).map(|_| Default::default()).collect(),
            read_ahead: (!manual).then_some(sender),
            manual,
            arena,
            frames: descriptors,
            table,
            file,
            slots: Slots::new(),
            epochs: Epochs::new(),
            epoch: CheckpointEpoch::new(),
            preserved: Preserved::new(),
            checkpointing: Mutex::default(),
            frames_freed: Condvar::new(),
            growing: Mutex::default(),
            events: SegQueue::new(),
            staging: ArrayQueue::new(4),
            kept_common: AtomicU64::new(0),
            writer_wanted: Mutex::default(),
            writer_wakeup: Condvar::new(),
            stopping: AtomicBool::new(false),
            failure: Mutex::default(),
            has_failed: AtomicBool::new(false),
            stats: Counters::default(),
        });
        let pool = Pool { shared, threads: Mutex::default() };
        if !manual {
            pool.spawn("bedstone-writer", |shared| shared.run_writer())?;
            for _ in 0..READ_AHEAD_THREADS {
                let receiver = receiver.clone();
                pool.spawn("bedstone-read-ahead", move |shared| {
                    for pages in receiver {
                        if shared.stopping.load(Ordering::Acquire) {
                            return;
                        }
                        // An error stays with the page: the reader that comes for it meets it itself.
                        drop(shared.fault_batch(&pages, Access::Scan));
                    }
                })?;
            }
        }
        Ok(pool)
    }

    fn spawn(&self, name: &str, work: impl FnOnce(&Shared) + Send + 'static) -> Result<()> {
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || work(&shared))
            .map_err(|error| PoolError::Config(format!("cannot start a background thread: {error}")))?;
        self.threads.lock().push(thread);
        Ok(())
    }

    #[inline]
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn shared_owned(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// Raises the opening number durably and returns it: before the first append to the log, so that records of an
    /// earlier timeline can be told apart.
    ///
    /// # Errors
    /// An I/O error; the store has failed then. [`PoolError::Corrupt`] if a number can grow no more, which no store
    /// comes to by being used.
    pub fn begin_opening(&self) -> Result<u32> {
        let mut superblock = self.shared.superblock.lock();
        // What was read may lie in the device's volatile cache only, if the last process was killed between a superblock
        // write and its sync: it must be on the medium before the other slot is overwritten.
        self.shared.sync_file()?;
        let next = superblock.next_opening(self.shared.file.path())?;
        self.shared.write_superblock(&next)?;
        *superblock = next;
        Ok(superblock.opening)
    }

    /// The superblock as last made durable.
    pub fn superblock(&self) -> Superblock {
        self.shared.superblock.lock().clone()
    }

    /// Bytes of a page.
    pub fn page_size(&self) -> usize {
        self.shared.page_size
    }

    /// Turns the store read-only for good: every later reservation and checkpoint gives `why`.
    pub fn fail(&self, why: PoolError) {
        self.shared.fail(Arc::new(why));
    }

    /// Why the store takes no more writes, if it does not.
    pub fn failed(&self) -> Option<Arc<PoolError>> {
        self.shared.failure.lock().clone()
    }

    /// Counters and sizes. Dirty frames are counted by looking at all of them.
    pub fn stats(&self) -> PoolStats {
        let shared = &*self.shared;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let dirty = shared.frames.iter().filter(|frame| !frame.dirty.is_clean()).count();
        let free_frames = shared.free.lock().len() as u64;
        let (file_units, free_units, held_units, next_id) = {
            let space = shared.space.lock();
            (space.units.total(), space.units.free_units(), space.held_units(), space.next_id)
        };
        let live = (1..next_id).filter(|&page| shared.table.place(PageId(page)) != Place::Free).count();
        PoolStats {
            frames: shared.arena.frames() as u64,
            free_frames,
            dirty_frames: dirty as u64,
            page_size: shared.page_size as u64,
            live_pages: live as u64,
            file_bytes: file_units * crate::UNIT as u64,
            free_bytes: free_units * crate::UNIT as u64,
            held_bytes: held_units * crate::UNIT as u64,
            page_reads: of(&shared.stats.page_reads),
            read_batches: of(&shared.stats.read_batches),
            page_writes: of(&shared.stats.page_writes),
            write_batches: of(&shared.stats.write_batches),
            evictions: of(&shared.stats.evictions),
            copies: of(&shared.stats.copies),
            checkpoints: of(&shared.stats.checkpoints),
            syncs: of(&shared.stats.syncs),
            retired: shared.epochs.waiting() as u64,
            os_cached_pages: shared.file.cached_pages(),
        }
    }
}

impl Pool {
    /// One turn of the background writer: fills the stock of free frames, writing pages out for it. For
    /// [`Background::Manual`]; allowed always. What fails is tried again by whoever needs a frame.
    pub fn write_ahead(&self) {
        if !self.shared.has_failed() {
            self.shared.fill_stock();
        }
    }

    /// Stops the background threads; afterwards the pool itself writes nothing any more unless a caller makes it. May be
    /// called twice.
    pub fn shutdown(&self) {
        let mut threads = self.threads.lock();
        self.shared.stopping.store(true, Ordering::Release);
        drop(self.shared.writer_wanted.lock());
        self.shared.writer_wakeup.notify_all();
        if let Some(queue) = &self.shared.read_ahead {
            for _ in 0..READ_AHEAD_THREADS {
                // Wakes a thread that waits; one that works sees the flag when its batch is done. A full queue holds
                // enough to wake them all.
                drop(queue.try_send(Vec::new()));
            }
        }
        for thread in threads.drain(..) {
            drop(thread.join());
        }
    }
}

impl Drop for Pool {
    /// As [`Pool::shutdown`]. Nothing is written: durability is the log's and the checkpoints' business.
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl Shared {
    #[inline]
    pub(crate) fn frame(&self, frame: FrameId) -> &Frame {
        &self.frames[frame.0 as usize]
    }

    /// Notes that somebody used the page, for the evictor. Writes the shared line only when that changes it.
    #[inline]
    pub(crate) fn touch(&self, frame: FrameId) {
        let touched = &self.frame(frame).touched;
        match touched.load(Ordering::Relaxed) {
            1 => {}
            FRESH => touched.store(0, Ordering::Relaxed),
            _ => touched.store(1, Ordering::Relaxed),
        }
    }

    #[inline]
    pub(crate) fn prefetch_frame(&self, frame: FrameId) {
        crate::arena::prefetch_value(self.frame(frame));
        self.arena.prefetch(frame, 8);
    }

    pub(crate) fn load_shard(&self, page: PageId) -> &(Mutex<()>, Condvar) {
        &self.load_shards[page.0 as usize % LOAD_SHARDS]
    }

    pub(crate) fn entry_at(&self, location: Location) -> Entry {
        Entry::new(location.unit(), self.page_units, location.check())
    }

    pub(crate) fn check_failed(&self) -> Result<()> {
        if !self.has_failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        match &*self.failure.lock() {
            Some(why) => Err(PoolError::Failed(why.clone())),
            None => Ok(()),
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    pub(crate) fn fail(&self, why: Arc<PoolError>) {
        let mut failure = self.failure.lock();
        if failure.is_none() {
            tracing::error!(error = %why, "the page store takes no more writes");
            *failure = Some(why);
            self.has_failed.store(true, Ordering::Release);
        }
    }

    pub(crate) fn fail_with(&self, what: &str) {
        self.fail(Arc::new(PoolError::Config(what.into())));
    }

    /// Makes all finished writes durable. After an error nobody knows what the medium holds: the store has failed.
    pub(crate) fn sync_file(&self) -> Result<()> {
        self.stats.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync_data().map_err(|error| {
            let why = Arc::new(PoolError::Io(error));
            self.fail(why.clone());
            PoolError::Failed(why)
        })
    }

    /// Writes both superblocks. After an error nobody knows which of them took: the store has failed.
    pub(crate) fn write_superblock(&self, superblock: &Superblock) -> Result<()> {
        self.check_failed()?;
        self.stats.syncs.fetch_add(2, Ordering::Relaxed);
        superblock.write_both(&*self.file, self.first_slot).map_err(|error| {
            let why = Arc::new(PoolError::Io(error));
            self.fail(why.clone());
            PoolError::Failed(why)
        })
    }
}

fn check_page_size(page_size: usize) -> Result<()> {
    if page_size.is_power_of_two() && (PAGE_SIZE_MIN..=PAGE_SIZE_MAX).contains(&page_size) {
        return Ok(());
    }
    Err(PoolError::Config(format!(
        "a page size of {page_size} bytes is not possible: choose a power of two from {PAGE_SIZE_MIN} to {PAGE_SIZE_MAX}"
    )))
}

fn no_space(error: bedstone_io::IoError, path: &Path, wanted: u64) -> PoolError {
    if error.is_no_space() { PoolError::NoSpace { file: path.to_path_buf(), wanted } } else { error.into() }
}

/// The translation table, for as many page ids as the process may have address space for: all 2^32 of them (32 GiB of
/// addresses, no memory) if it can be had.
fn map_table() -> Result<Table> {
    let mut bits = 32;
    loop {
        match Table::new(1 << bits) {
            Ok(table) => return Ok(table),
            Err(_) if bits > 20 => bits -= 3,
            Err(error) => return Err(PoolError::Memory { bytes: 8 << bits, error }),
        }
    }
}
