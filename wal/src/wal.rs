//! The log, open for appending: the face of this crate.

use std::sync::Arc;
use std::task::Waker;
use std::thread::JoinHandle;

use bedstone_io::Disk;
use bedstone_io::sync::Ordering;
use parking_lot::Mutex;

use crate::background;
use crate::config::{Background, Durability, WalConfig};
use crate::error::WalError;
use crate::group::Need;
use crate::lsn::Lsn;
use crate::open;
use crate::reader::LogEnd;
use crate::record::{RecordHeader, payload_crc, record_bytes, worst_case};
use crate::segment::SegmentInfo;
use crate::shared::Shared;
use crate::stats::WalStats;
use crate::supply::Claim;

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its position.
    pub lsn: Lsn,
    /// The position after it: what to wait for.
    pub end: Lsn,
}

/// The right to append into prepared space. What is left of it is given back when it is dropped.
#[derive(Debug)]
pub struct SpaceCredit<'a> {
    shared: &'a Shared,
    left: u64,
}

impl SpaceCredit<'_> {
    /// Bytes of log left, headers and padding included.
    pub fn left(&self) -> u64 {
        self.left
    }
}

impl Drop for SpaceCredit<'_> {
    fn drop(&mut self) {
        self.shared.credit(self.left);
    }
}

/// The log, open for appending. All methods may be called from many threads at once.
///
/// Dropping it stops its threads and makes nothing durable.
#[derive(Debug)]
pub struct Wal {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Wal {
    /// Makes the first two segments of a log that begins at `start` (a multiple of 8), durable with their names, the
    /// directory and the directory's name, and starts nothing. What an interrupted creation left is removed first.
    ///
    /// [`WalError::AlreadyExists`] if the directory holds a log with records; [`WalError::NoSpace`];
    /// [`WalError::Config`]; [`WalError::Io`].
    pub fn create(disk: &dyn Disk, cfg: &WalConfig, start: Lsn) -> Result<(), WalError> {
        open::create(disk, cfg, start)
    }

    /// Opens the log for appending at `end`, to which a [`crate::LogReader`] has read it. What was read is durable
    /// when this returns, and nothing behind the end can be taken for a record any more. `cfg.opening` must be larger
    /// than that of every record in the log.
    ///
    /// [`WalError::OpeningNotNewer`]; [`WalError::MissingSegment`] if the log has changed since it was read;
    /// [`WalError::WrongDatabase`]; [`WalError::Config`]; [`WalError::Io`].
    pub fn open(disk: Arc<dyn Disk>, cfg: WalConfig, end: &LogEnd) -> Result<Wal, WalError> {
        let shared = open::open(disk, cfg, end)?;
        let threads = match shared.cfg.background {
            Background::Threads => background::start(&shared)?,
            Background::Manual => Vec::new(),
        };
        shared.ask_for_segment();
        Ok(Wal { shared, threads: Mutex::new(threads) })
    }

    /// Promises prepared space for `records` records with `payload_bytes` of payload together. Takes no lock while
    /// enough is prepared; else makes segments.
    ///
    /// [`WalError::NoSpace`] if the medium is full: nothing has happened, and it may be tried again.
    /// [`WalError::Failed`]; [`WalError::Io`] if a segment could not be made for another reason.
    pub fn reserve(&self, payload_bytes: u64, records: u64) -> Result<SpaceCredit<'_>, WalError> {
        self.credit(payload_bytes, records, Claim::Ordinary)
    }

    /// As [`Wal::reserve`], but may draw on an eighth of a segment that is kept back from other callers: for what
    /// leads to free space in the end, as deleting does, so that it still works when a full disk has stopped
    /// everything else.
    ///
    /// Errors as [`Wal::reserve`]. After [`WalError::NoSpace`] a checkpoint and [`Wal::recycle_below`] make room.
    pub fn reserve_urgent(&self, payload_bytes: u64, records: u64) -> Result<SpaceCredit<'_>, WalError> {
        self.credit(payload_bytes, records, Claim::Urgent)
    }

    fn credit(&self, payload_bytes: u64, records: u64, claim: Claim) -> Result<SpaceCredit<'_>, WalError> {
        let left = worst_case(payload_bytes, records);
        self.shared.debit_or_prepare(left, claim)?;
        Ok(SpaceCredit { shared: &self.shared, left })
    }

    /// Appends one record of `kind` whose payload is the concatenation of `parts`. `on_lsn` is called with its
    /// position before the tail moves, under the log's mutex: it must be short and must not call the log. If the
    /// buffer is full this writes it or waits until it is written.
    ///
    /// [`WalError::RecordTooLarge`]; [`WalError::CreditTooSmall`]; [`WalError::Failed`]. After an error nothing was
    /// appended and `on_lsn` was not called.
    pub fn append(
        &self,
        credit: &mut SpaceCredit<'_>,
        kind: u8,
        parts: &[&[u8]],
        on_lsn: &mut dyn FnMut(Lsn),
    ) -> Result<Appended, WalError> {
        let record = self.measure(credit, kind, parts)?;
        loop {
            if let Some(appended) = self.push(credit, &record, parts, on_lsn)? {
                return Ok(appended);
            }
            self.shared.empty_buffer()?;
        }
    }

    /// As [`Wal::append`], but never waits for I/O: `Ok(None)`, with nothing done, if the buffer has no room now. The
    /// caller lets go of what others may need, calls [`Wal::make_room`] and tries again.
    ///
    /// Errors as [`Wal::append`].
    pub fn try_append(
        &self,
        credit: &mut SpaceCredit<'_>,
        kind: u8,
        parts: &[&[u8]],
        on_lsn: &mut dyn FnMut(Lsn),
    ) -> Result<Option<Appended>, WalError> {
        let record = self.measure(credit, kind, parts)?;
        self.push(credit, &record, parts, on_lsn)
    }

    /// Returns once the buffer had room for the largest record: writes it, or waits until it is written.
    ///
    /// [`WalError::Failed`].
    pub fn make_room(&self) -> Result<(), WalError> {
        let largest = record_bytes(self.max_payload());
        while !self.shared.state.lock().buffer.has_room(largest) {
            self.shared.empty_buffer()?;
        }
        Ok(())
    }

    /// Waits until the log has reached `upto` (the end of a record) in the sense of `durability`.
    ///
    /// [`WalError::Failed`] if the log failed before that: the record is not known to be durable, and may be found
    /// when the database is opened again. [`WalError::Config`] if `upto` lies beyond the tail.
    pub fn wait(&self, upto: Lsn, durability: Durability) -> Result<(), WalError> {
        self.not_beyond_tail(upto)?;
        match durability {
            Durability::Sync if self.durable_lsn() >= upto => Ok(()),
            Durability::Buffered if self.written_lsn() >= upto => Ok(()),
            Durability::Sync => self.shared.reach(Need::Durable, upto.0),
            Durability::Buffered => self.shared.reach(Need::Written, upto.0),
            Durability::Relaxed => self.shared.sync_later(upto.0),
        }
    }

    /// Tells whether the log is durable up to `upto` (the end of a record); if not, `waker` is kept and called once
    /// it is, or the log has failed, or it was shut down: then this is to be called again. It asks for nothing to be
    /// made durable, see [`Wal::request_sync`].
    ///
    /// No wake-up is lost, whatever the other threads do; one that is not wanted any more comes all the same. A waker
    /// that [will wake](Waker::will_wake) the same task as one kept for this position is not kept twice. Wakers are
    /// called by a thread of the log's own, or, with [`Background::Manual`], by the thread that makes the log
    /// durable; they must not wait for the log there.
    ///
    /// [`WalError::Failed`] as for [`Wal::wait`]; [`WalError::ShutDown`] after [`Wal::shutdown`] if the position was
    /// not reached; [`WalError::Config`] if `upto` lies beyond the tail.
    pub fn notify_durable(&self, upto: Lsn, waker: &Waker) -> Result<bool, WalError> {
        self.not_beyond_tail(upto)?;
        self.shared.notify(upto.0, waker)
    }

    /// Asks the log's thread to make everything appended so far durable now, and does not wait for it. With
    /// [`Background::Manual`] the next [`Wal::step`] does it; any [`Wal::sync`] or [`Wal::wait`] that covers it does
    /// as well. A failure shows in [`Wal::failed`] and to those who wait.
    pub fn request_sync(&self) {
        self.shared.sync_soon();
    }

    /// Makes everything appended so far durable and returns the durable LSN.
    ///
    /// [`WalError::Failed`].
    pub fn sync(&self) -> Result<Lsn, WalError> {
        self.shared.reach(Need::Durable, self.tail().0)?;
        Ok(self.durable_lsn())
    }

    /// End of what was appended: the position of the next record. Every `on_lsn` of an earlier record has returned.
    pub fn tail(&self) -> Lsn {
        Lsn(self.shared.tail.load(Ordering::Acquire))
    }

    /// End of what was handed to the kernel.
    pub fn written_lsn(&self) -> Lsn {
        Lsn(self.shared.written.load(Ordering::Acquire))
    }

    /// End of what is on the medium for certain.
    pub fn durable_lsn(&self) -> Lsn {
        Lsn(self.shared.durable.load(Ordering::Acquire))
    }

    /// Puts the segments out of use that lie wholly below `lsn`: called when a durable checkpoint no longer needs
    /// them. Some are used again, the others removed.
    ///
    /// [`WalError::Failed`]; [`WalError::Io`] if a file could not be removed (it is found again at the next opening).
    pub fn recycle_below(&self, lsn: Lsn) -> Result<(), WalError> {
        self.shared.recycle(lsn.0)
    }

    /// Why the log has failed, if it has. Once set this stays until the database is opened again.
    pub fn failed(&self) -> Option<Arc<WalError>> {
        self.shared.failure.get().cloned()
    }

    /// Counters since the opening, and where the log stands.
    pub fn stats(&self) -> WalStats {
        self.shared.stats()
    }

    /// The segments in use, ascending, the prepared ones included.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.shared.all_segments()
    }

    /// The largest payload of one record, in bytes.
    pub fn max_payload(&self) -> usize {
        self.shared.cfg.max_payload()
    }

    /// Does what the threads would do, if something is to be done: prepares a segment in advance, makes relaxed
    /// commits durable (whatever their time). For [`Background::Manual`]; allowed always. A failure shows in
    /// [`Wal::failed`].
    pub fn step(&self) {
        self.prepare_segment();
        self.flush_relaxed();
    }

    /// The part of [`Wal::step`] that prepares a segment in advance.
    pub fn prepare_segment(&self) {
        self.shared.prepare_ahead();
    }

    /// The part of [`Wal::step`] that makes relaxed commits durable.
    pub fn flush_relaxed(&self) {
        self.shared.flush_relaxed();
    }

    /// Makes relaxed commits durable and stops the threads. Other records that nobody waited for are not written.
    ///
    /// [`WalError::Failed`] if the log has failed, now or earlier.
    pub fn close(self) -> Result<(), WalError> {
        self.stop_threads();
        self.shared.flush_relaxed();
        self.shared.check()
    }

    /// Stops the threads and returns once they have ended; they finish what they are doing. Nothing is made
    /// durable. The log stays readable and, without what its threads do, writable. All wakers are called, and none is
    /// kept any more.
    pub fn shutdown(&self) {
        self.stop_threads();
        self.shared.end_wakers();
    }

    fn stop_threads(&self) {
        // Not locked while they are waited for: what a waker does on one of them may come here, too.
        let threads = std::mem::take(&mut *self.threads.lock());
        background::stop(&self.shared, threads);
    }

    fn not_beyond_tail(&self, upto: Lsn) -> Result<(), WalError> {
        match self.tail() {
            tail if upto > tail => {
                Err(WalError::Config { what: format!("{upto} lies beyond the log's end, {tail}") })
            }
            _ => Ok(()),
        }
    }

    /// What of a record can be known before its position is: the work that grows with its length is done here.
    fn measure(&self, credit: &SpaceCredit<'_>, kind: u8, parts: &[&[u8]]) -> Result<Measured, WalError> {
        if !std::ptr::eq(credit.shared, &*self.shared) {
            return Err(WalError::Config { what: "the credit is of another log".to_owned() });
        }
        let len = parts.iter().map(|part| part.len()).sum();
        let max = self.max_payload();
        if len > max {
            return Err(WalError::RecordTooLarge { len, max });
        }
        let needed = record_bytes(len);
        if needed > credit.left {
            return Err(WalError::CreditTooSmall { needed, left: credit.left });
        }
        Ok(Measured { kind, len, bytes: needed, payload_crc: payload_crc(parts, len) })
    }

    fn push(
        &self,
        credit: &mut SpaceCredit<'_>,
        record: &Measured,
        parts: &[&[u8]],
        on_lsn: &mut dyn FnMut(Lsn),
    ) -> Result<Option<Appended>, WalError> {
        let shared = &*self.shared;
        let mut state = shared.state.lock();
        if state.ledger.failed() {
            drop(state);
            return Err(shared.failure());
        }
        if !state.buffer.has_room(record.bytes) {
            state.counters.buffer_full += 1;
            return Ok(None);
        }
        let lsn = Lsn(state.buffer.tail());
        let durable = Lsn(state.ledger.durable());
        // Nothing has changed yet, so that nothing is left behind should the caller's function unwind.
        on_lsn(lsn);
        let len = record.len as u32;
        let header = RecordHeader::new(
            shared.seed,
            lsn,
            durable,
            shared.cfg.opening,
            record.kind,
            len,
            record.payload_crc,
        );
        state.buffer.push(&header, parts, record.len);
        state.counters.records += 1;
        state.counters.appended_bytes += record.bytes;
        credit.left -= record.bytes;
        let end = lsn.plus(record.bytes);
        shared.tail.store(end.0, Ordering::Release);
        let ask = end.0 >= state.prepare_beyond;
        if ask {
            state.prepare_beyond = u64::MAX;
        }
        drop(state);
        if ask {
            shared.ask_for_segment();
        }
        Ok(Some(Appended { lsn, end }))
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.shutdown();
    }
}

struct Measured {
    kind: u8,
    len: usize,
    /// Bytes of log.
    bytes: u64,
    payload_crc: u32,
}

impl Shared {
    /// Has what fills the buffer written: by this thread, or, while another one writes, after that.
    fn empty_buffer(&self) -> Result<(), WalError> {
        let upto = {
            let state = self.state.lock();
            // While somebody writes the other half, this one can be taken out only after that write. Then the caller
            // looks again; it may have been emptied and filled by others meanwhile.
            if state.ledger.writing() { state.buffer.start() } else { state.buffer.tail() }
        };
        self.reach(Need::Written, upto)
    }

    /// Leaves it to the background to make `upto` durable.
    fn sync_later(&self, upto: u64) -> Result<(), WalError> {
        if self.durable.load(Ordering::Acquire) >= upto {
            return Ok(());
        }
        self.check()?;
        if !self.relaxed.swap(true, Ordering::AcqRel) && self.cfg.background == Background::Threads {
            self.flush_bell.ring(self.disk.now().saturating_add(self.cfg.relaxed_delay));
        }
        Ok(())
    }

    fn stats(&self) -> WalStats {
        let (mut stats, files) = {
            let state = self.state.lock();
            let counters = &state.counters;
            let stats = WalStats {
                records: counters.records,
                appended_bytes: counters.appended_bytes,
                writes: counters.writes,
                written_bytes: counters.written_bytes,
                syncs: counters.syncs,
                synced_commits: counters.synced_commits,
                commits_per_sync: counters.commits_per_sync,
                buffer_full: counters.buffer_full,
                segments_created: counters.segments_created,
                segments_recycled: counters.segments_recycled,
                segments_removed: counters.segments_removed,
                segments: (state.old.len() + state.segments.len()) as u64,
                free_bytes: self.free.load(Ordering::Acquire).saturating_sub(self.kept_back(Claim::Ordinary)),
                tail: Lsn(state.buffer.tail()),
                written: Lsn(state.ledger.written()),
                durable: Lsn(state.ledger.durable()),
                cached_bytes: None,
                failed: state.ledger.failed(),
            };
            let files: Vec<_> =
                state.segments.iter().filter_map(|segment| segment.files.first().cloned()).collect();
            (stats, files)
        };
        stats.cached_bytes =
            files.iter().map(|file| file.cached_pages()).sum::<Option<u64>>().map(|pages| pages * 4096);
        stats
    }
}
