//! A disk that writes down what is done to another one, so that tests can assert orders.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::buf::{AlignedSlice, AlignedSliceMut};
use crate::error::{IoError, Op};
use crate::traits::{DirectFile, Disk, IoReport, LockFile, LogFile, OpenMode, ReadOp, WriteOp};

/// One mutating operation that has returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceEvent {
    /// What was done.
    pub op: Op,
    /// To which file (for a rename: the old name).
    pub path: PathBuf,
    /// The new name, for a rename.
    pub to: Option<PathBuf>,
    /// Where, in bytes; 0 if that has no meaning.
    pub offset: u64,
    /// How many bytes, or the length asked for; 0 if that has no meaning.
    pub len: u64,
    /// Through a handle for direct I/O.
    pub direct: bool,
    /// When it began, on a counter that each beginning and each end moves on by one.
    pub begin: u64,
    /// When it ended, on the same counter.
    pub end: u64,
    /// Whether it succeeded.
    pub ok: bool,
}

impl TraceEvent {
    /// Whether this operation had returned before the other one began.
    pub fn before(&self, other: &TraceEvent) -> bool {
        self.end < other.begin
    }

    /// Whether its path ends with `suffix`.
    pub fn is_on(&self, suffix: &str) -> bool {
        self.path.to_string_lossy().ends_with(suffix)
    }
}

/// From which side of an operation a hook is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It is about to begin; `end` is 0 and `ok` false.
    Before,
    /// It has returned.
    After,
}

type Hook = Arc<dyn Fn(Phase, &TraceEvent) + Send + Sync>;

#[derive(Default)]
struct Recorder {
    log: Mutex<Log>,
    hook: Mutex<Option<Hook>>,
}

#[derive(Default)]
struct Log {
    events: Vec<TraceEvent>,
    tick: u64,
}

impl Recorder {
    fn tick(&self) -> u64 {
        let mut log = self.log.lock();
        log.tick += 1;
        log.tick
    }

    fn call_hook(&self, phase: Phase, event: &TraceEvent) {
        // Called without the lock, so that a hook may use the disk and look at the trace.
        let hook = self.hook.lock().clone();
        if let Some(hook) = hook {
            hook(phase, event);
        }
    }

    fn begin(&self, op: Op, path: &Path) -> TraceEvent {
        TraceEvent {
            op,
            path: path.to_path_buf(),
            to: None,
            offset: 0,
            len: 0,
            direct: false,
            begin: self.tick(),
            end: 0,
            ok: false,
        }
    }

    fn end(&self, mut event: TraceEvent, ok: bool) {
        event.ok = ok;
        {
            let mut log = self.log.lock();
            log.tick += 1;
            event.end = log.tick;
            log.events.push(event.clone());
        }
        self.call_hook(Phase::After, &event);
    }

    fn record<T>(
        &self,
        op: Op,
        path: &Path,
        fill: impl FnOnce(&mut TraceEvent),
        work: impl FnOnce() -> Result<T, IoError>,
    ) -> Result<T, IoError> {
        let mut event = self.begin(op, path);
        fill(&mut event);
        self.call_hook(Phase::Before, &event);
        let result = work();
        self.end(event, result.is_ok());
        result
    }
}

/// Passes everything on to another disk, and records its mutating operations in the order in which they return.
pub struct TraceDisk {
    inner: Arc<dyn Disk>,
    recorder: Arc<Recorder>,
}

impl TraceDisk {
    /// A trace of what is done through it to `inner`.
    pub fn new(inner: Arc<dyn Disk>) -> Arc<Self> {
        Arc::new(Self { inner, recorder: Arc::default() })
    }

    /// What has been recorded so far.
    pub fn events(&self) -> Vec<TraceEvent> {
        self.recorder.log.lock().events.clone()
    }

    /// What has been recorded so far, which is then forgotten.
    pub fn take_events(&self) -> Vec<TraceEvent> {
        std::mem::take(&mut self.recorder.log.lock().events)
    }

    /// From now on calls `hook` before and after every mutating operation, in the thread that does it and without
    /// any lock held: it may use the disk, fork the medium below, or let other threads run.
    pub fn on_op(&self, hook: impl Fn(Phase, &TraceEvent) + Send + Sync + 'static) {
        *self.recorder.hook.lock() = Some(Arc::new(hook));
    }

    /// Takes the hook back.
    pub fn clear_hook(&self) {
        *self.recorder.hook.lock() = None;
    }

    fn open_op(mode: OpenMode) -> Option<Op> {
        (mode == OpenMode::CreateNew).then_some(Op::Create)
    }
}

impl Disk for TraceDisk {
    fn open_direct(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DirectFile>, IoError> {
        let open = || self.inner.open_direct(path, mode);
        let file = match Self::open_op(mode) {
            Some(op) => self.recorder.record(op, path, |event| event.direct = true, open),
            None => open(),
        }?;
        Ok(Arc::new(Traced { file, recorder: Arc::clone(&self.recorder) }))
    }

    fn open_log(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn LogFile>, IoError> {
        let open = || self.inner.open_log(path, mode);
        let file = match Self::open_op(mode) {
            Some(op) => self.recorder.record(op, path, |_| {}, open),
            None => open(),
        }?;
        Ok(Arc::new(Traced { file, recorder: Arc::clone(&self.recorder) }))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn LockFile>, IoError> {
        self.recorder.record(Op::Lock, path, |_| {}, || self.inner.lock(path))
    }

    fn create_dir_all(&self, path: &Path) -> Result<(), IoError> {
        self.recorder.record(Op::CreateDir, path, |_| {}, || self.inner.create_dir_all(path))
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, IoError> {
        self.inner.list(dir)
    }

    fn exists(&self, path: &Path) -> Result<bool, IoError> {
        self.inner.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        let fill = |event: &mut TraceEvent| event.to = Some(to.to_path_buf());
        self.recorder.record(Op::Rename, from, fill, || self.inner.rename(from, to))
    }

    fn remove(&self, path: &Path) -> Result<(), IoError> {
        self.recorder.record(Op::Remove, path, |_| {}, || self.inner.remove(path))
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), IoError> {
        self.recorder.record(Op::SyncDir, dir, |_| {}, || self.inner.sync_dir(dir))
    }

    fn now(&self) -> Duration {
        self.inner.now()
    }

    fn unix_ms(&self) -> u64 {
        self.inner.unix_ms()
    }

    fn report(&self, dir: &Path) -> IoReport {
        self.inner.report(dir)
    }
}

/// A file of the disk below, whose mutating operations are recorded.
struct Traced<F: ?Sized> {
    file: Arc<F>,
    recorder: Arc<Recorder>,
}

impl DirectFile for Traced<dyn DirectFile> {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn read_at(&self, buf: AlignedSliceMut<'_>, offset: u64) -> Result<(), IoError> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, buf: AlignedSlice<'_>, offset: u64) -> Result<(), IoError> {
        let len = buf.len() as u64;
        let fill = |event: &mut TraceEvent| (event.offset, event.len, event.direct) = (offset, len, true);
        self.recorder.record(Op::Write, self.path(), fill, || self.file.write_at(buf, offset))
    }

    fn read_batch(&self, ops: &mut [ReadOp<'_>]) {
        self.file.read_batch(ops);
    }

    fn write_batch(&self, ops: &mut [WriteOp<'_>]) {
        let events: Vec<TraceEvent> = ops
            .iter()
            .map(|op| {
                let mut event = self.recorder.begin(Op::Write, self.path());
                (event.offset, event.len, event.direct) = (op.offset, op.buf.len() as u64, true);
                self.recorder.call_hook(Phase::Before, &event);
                event
            })
            .collect();
        self.file.write_batch(ops);
        for (event, op) in events.into_iter().zip(ops) {
            self.recorder.end(event, op.result.is_ok());
        }
    }

    fn sync_data(&self) -> Result<(), IoError> {
        self.recorder.record(Op::Sync, self.path(), |event| event.direct = true, || self.file.sync_data())
    }

    fn len(&self) -> Result<u64, IoError> {
        self.file.len()
    }

    fn allocate(&self, len: u64) -> Result<(), IoError> {
        let fill = |event: &mut TraceEvent| (event.len, event.direct) = (len, true);
        self.recorder.record(Op::Allocate, self.path(), fill, || self.file.allocate(len))
    }

    fn truncate(&self, len: u64) -> Result<(), IoError> {
        let fill = |event: &mut TraceEvent| (event.len, event.direct) = (len, true);
        self.recorder.record(Op::Truncate, self.path(), fill, || self.file.truncate(len))
    }

    fn cached_pages(&self) -> Option<u64> {
        self.file.cached_pages()
    }
}

impl LogFile for Traced<dyn LogFile> {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, IoError> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), IoError> {
        let fill = |event: &mut TraceEvent| (event.offset, event.len) = (offset, buf.len() as u64);
        self.recorder.record(Op::Write, self.path(), fill, || self.file.write_at(buf, offset))
    }

    fn sync_data(&self) -> Result<(), IoError> {
        self.recorder.record(Op::Sync, self.path(), |_| {}, || self.file.sync_data())
    }

    fn sync_all(&self) -> Result<(), IoError> {
        self.recorder.record(Op::Sync, self.path(), |_| {}, || self.file.sync_all())
    }

    fn len(&self) -> Result<u64, IoError> {
        self.file.len()
    }

    fn allocate_zeroed(&self, len: u64) -> Result<(), IoError> {
        let fill = |event: &mut TraceEvent| event.len = len;
        self.recorder.record(Op::Allocate, self.path(), fill, || self.file.allocate_zeroed(len))
    }

    fn allocate(&self, len: u64) -> Result<(), IoError> {
        let fill = |event: &mut TraceEvent| event.len = len;
        self.recorder.record(Op::Allocate, self.path(), fill, || self.file.allocate(len))
    }

    fn cached_pages(&self) -> Option<u64> {
        self.file.cached_pages()
    }
}

impl<F: fmt::Debug + ?Sized> fmt::Debug for Traced<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traced").field("file", &self.file).finish_non_exhaustive()
    }
}

impl fmt::Debug for TraceDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceDisk").field("inner", &self.inner).finish_non_exhaustive()
    }
}
