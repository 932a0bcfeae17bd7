//! Creating a log, and opening one for appending after it was read.
//!
//! Opening must leave a medium on which a later recovery finds exactly the records that this one found, followed by
//! what is appended from now on. Four things stand in the way, and each is removed before `open` returns:
//! - *Bytes that were read may not be durable.* They may lie in the cache of the device only, so every segment read
//!   from is synced. They may lie in the page cache only: those cannot have been read where reading goes past it;
//!   where it does not, everything since the replay LSN is written again. The tail segment is always written again,
//!   so that nothing depends on whether the kernel takes its pages for clean after a failed `fsync`.
//! - *Records behind the end*, left behind a hole by the crash or by a cut of a damaged log, could one day continue
//!   the log by chance, if a record of this opening ended where one of them begins. Blocks of the tail segment with
//!   such records are overwritten with zeros.
//! - *The end of the last segment*: while fewer bytes than a record header are left of the tail's segment, the next
//!   one stays a segment, cleaned as the tail is. A log without it would look as if a segment had been lost.
//! - *Later segments* were prepared or even written; what they hold is no part of the log. They lose their names as
//!   segments after the tail was cleaned, the last one first, each step durable: a gap in the row of segments would
//!   look like damage, and so would a record that goes on in a segment that is not there.
//!
//! All of it can be repeated: a crash in between changes nothing that was read.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bedstone_io::defect::{self, Defect};
use bedstone_io::sync::{AtomicBool, AtomicU64};
use bedstone_io::{Disk, LogFile, OpenMode};
use parking_lot::Mutex;

use crate::background::Bell;
use crate::buffer::{LogBuffer, WRITE_ALIGN, pad_to_page};
use crate::config::WalConfig;
use crate::error::WalError;
use crate::group::Ledger;
use crate::lsn::Lsn;
use crate::notify::Wakers;
use crate::reader::LogEnd;
use crate::record::{RECORD_HEADER_BYTES, crc_seed};
use crate::segment::{Catalogue, SEGMENT_HEADER_BYTES, SegmentInfo, spare_path};
use crate::shared::{Counters, Shared, State};
use crate::space::{Fill, NotMade, Segment, Spare, make_segment, remove_own_positions};
use crate::stream::Stream;
use crate::supply::Supply;

/// Most spare segments kept at opening.
const SPARES_KEPT: usize = 2;

/// See [`crate::Wal::create`].
pub(crate) fn create(disk: &dyn Disk, cfg: &WalConfig, start: Lsn) -> Result<(), WalError> {
    cfg.check()?;
    if !start.is_aligned() || start.0 > u64::MAX / 2 {
        return Err(WalError::Config { what: format!("a log cannot begin at {start}") });
    }
    disk.create_dir_all(&cfg.dir)?;
    remove_leftovers(disk, &cfg.dir)?;
    // Two: with fewer a log cannot go on before the disk has more room, see `supply`.
    for start in [start.0, start.0 + cfg.segment_bytes] {
        make_segment(disk, cfg, start, None, Fill::Allocated).map_err(|error| match error {
            NotMade::NoSpace(source) => WalError::NoSpace {
                dir: cfg.dir.clone(),
                needed: 2 * cfg.segment_bytes,
                free: 0,
                segment_bytes: cfg.segment_bytes,
                source,
            },
            NotMade::Refused(error) => error,
            NotMade::SyncFailed(error) => error.into(),
        })?;
    }
    let parent = cfg.dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok(disk.sync_dir(parent.unwrap_or(Path::new(".")))?)
}

/// Removes what a creation that was interrupted has left. A segment in which a record begins is never removed.
fn remove_leftovers(disk: &dyn Disk, dir: &Path) -> Result<(), WalError> {
    let mut leftovers = Vec::new();
    for name in disk.list(dir)? {
        let path = dir.join(name);
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("log") => {
                let file = disk.open_log(&path, OpenMode::Read)?;
                let mut first = [0; RECORD_HEADER_BYTES];
                file.read_at(&mut first, SEGMENT_HEADER_BYTES)?;
                if first != [0; RECORD_HEADER_BYTES] {
                    return Err(WalError::AlreadyExists { file: path });
                }
                leftovers.push(path);
            }
            Some("new" | "spare") => leftovers.push(path),
            _ => {}
        }
    }
    for path in leftovers {
        disk.remove(&path)?;
    }
    Ok(())
}

/// See [`crate::Wal::open`].
pub(crate) fn open(disk: Arc<dyn Disk>, cfg: WalConfig, end: &LogEnd) -> Result<Arc<Shared>, WalError> {
    cfg.check()?;
    let catalogue = Arc::new(Catalogue::scan(&*disk, &cfg.dir, cfg.database_id)?);
    check_opening(&catalogue, cfg.opening, end)?;
    let tail = end.lsn.0;
    let Some(first) = catalogue.ending_at(tail) else {
        return Err(WalError::MissingSegment { lsn: end.lsn, file: end.segment.clone() });
    };
    // One segment, or two where the next record's header would reach into the next.
    let header_end = tail + RECORD_HEADER_BYTES as u64 - 1;
    let last = catalogue.holding(header_end).unwrap_or(first);
    let (before, rest) = catalogue.segments.split_at(first);
    let (live, later) = rest.split_at(last + 1 - first);

    let mut segments = VecDeque::new();
    for info in live {
        let segment =
            Segment::open(&*disk, info.path.clone(), info.start.0, info.bytes, cfg.syncs_in_flight)?;
        if info.present() < info.bytes
            && let Some(file) = segment.files.first()
        {
            // A log that was cut and is salvaged up to the cut: the segment gets its length back.
            file.allocate_zeroed(SEGMENT_HEADER_BYTES + info.bytes)?;
        }
        segments.push_back(Arc::new(segment));
    }
    make_durable(&disk, &cfg, &catalogue, before, &segments, end)?;
    // After the tail was cleaned: the header of a torn record there may reach into a later segment.
    let spares = retire(&*disk, &cfg, &catalogue, later)?;
    let (last_start, prepared_end) =
        segments.back().map_or((tail, tail), |segment| (segment.start, segment.end()));

    let shared = Shared {
        seed: crc_seed(&cfg.database_id),
        state: Mutex::new(State {
            buffer: LogBuffer::new(cfg.buffer_bytes, tail),
            ledger: Ledger::new(tail, cfg.syncs_in_flight),
            prepare_beyond: last_start,
            segments,
            old: before.to_vec(),
            counters: Counters::default(),
            wakers: Wakers::default(),
        }),
        supply: Mutex::new(Supply { spares, in_advance_failed: false, last_made: Some(disk.now()) }),
        free: AtomicU64::new(prepared_end - tail),
        tail: AtomicU64::new(tail),
        written: AtomicU64::new(tail),
        durable: AtomicU64::new(tail),
        failure: OnceLock::new(),
        relaxed: AtomicBool::new(false),
        asked: AtomicBool::new(false),
        flush_bell: Bell::default(),
        wake_bell: Bell::default(),
        supply_bell: Bell::default(),
        disk,
        cfg,
    };
    shared.prepare_for_opening()?;
    Ok(Arc::new(shared))
}

/// Records of an opening must differ from all older ones; a segment prepared by an opening that crashed before it
/// appended anything may carry the same number.
fn check_opening(catalogue: &Catalogue, given: u32, end: &LogEnd) -> Result<(), WalError> {
    let prepared = catalogue.segments.iter().map(|segment| segment.opening).max().unwrap_or(0);
    if given <= end.opening || given < prepared {
        return Err(WalError::OpeningNotNewer { given, found: end.opening.max(prepared) });
    }
    Ok(())
}

/// Takes the names of the segments behind the tail segment away and returns those that can be used again, with the
/// spares of earlier openings. Removes what cannot be used.
fn retire(
    disk: &dyn Disk,
    cfg: &WalConfig,
    catalogue: &Catalogue,
    later: &[SegmentInfo],
) -> Result<Vec<Spare>, WalError> {
    let file_len = SEGMENT_HEADER_BYTES + cfg.segment_bytes;
    let mut spares: Vec<PathBuf> = Vec::new();
    for segment in later.iter().rev() {
        if segment.file_len == file_len && spares.len() < SPARES_KEPT {
            let spare = spare_path(&cfg.dir, segment.start.0);
            disk.rename(&segment.path, &spare)?;
            spares.push(spare);
        } else {
            disk.remove(&segment.path)?;
        }
        disk.sync_dir(&cfg.dir)?;
    }
    let mut removed = false;
    for path in catalogue.unfinished.iter().chain(&catalogue.spares) {
        if spares.contains(path) {
            continue;
        }
        let usable = path.extension().is_some_and(|extension| extension == "spare")
            && spares.len() < SPARES_KEPT
            && disk.open_log(path, OpenMode::Read)?.len()? == file_len;
        if usable {
            spares.push(path.clone());
        } else {
            match disk.remove(path) {
                // A leftover stands in nobody's way; the next opening tries again.
                Err(error) if path.extension().is_some_and(|extension| extension == "log") => {
                    tracing::warn!(%error, "a leftover of recycling cannot be removed");
                }
                done => done?,
            }
            removed = true;
        }
    }
    if removed {
        // A leftover that came back could stand where another segment is by then.
        disk.sync_dir(&cfg.dir)?;
    }
    Ok(spares.into_iter().map(|path| Spare { path, old: false }).collect())
}

/// Makes the log from the replay LSN to its end durable, and the segments that go on free of other records behind the end.
fn make_durable(
    disk: &Arc<dyn Disk>,
    cfg: &WalConfig,
    catalogue: &Arc<Catalogue>,
    before: &[SegmentInfo],
    live: &VecDeque<Arc<Segment>>,
    end: &LogEnd,
) -> Result<(), WalError> {
    let direct = disk.report(&cfg.dir).direct;
    // The rule: what was read may have been in a cache only, so all of it is synced, and the tail written again.
    let trust = defect::is(Defect::TrustPageCache);
    let mut stream = Stream::new(Arc::clone(disk), Arc::clone(catalogue));
    for segment in before.iter().filter(|segment| segment.end() > end.from && !trust) {
        let file = disk.open_log(&segment.path, OpenMode::ReadWrite)?;
        if !direct {
            let from = segment.start.max(end.from).0;
            write_again(&mut stream, &*file, segment.start.0, from, segment.end().0)?;
        }
        file.sync_data()?;
    }
    for segment in live {
        let Some(file) = segment.files.first() else {
            return Err(WalError::Internal { what: "the tail segment has no open file" });
        };
        let mut padded = segment.start;
        if segment.start < end.lsn.0 {
            let from = segment.start.max(end.from.0);
            padded = write_again(&mut stream, &**file, segment.start, from, end.lsn.0)?;
        }
        if padded < segment.end() {
            remove_own_positions(&**disk, &**file, segment.start, padded, segment.end())?;
        }
        // The length too: nothing is known about what the opening before made durable.
        if !trust {
            file.sync_all()?;
        }
    }
    Ok(disk.sync_dir(&cfg.dir)?)
}

/// Writes what the log holds between two positions of one segment again, from the beginning of the page that holds
/// the first, and zeros up to the end of the page that holds the last. Returns the position after that page.
fn write_again(
    stream: &mut Stream,
    file: &dyn LogFile,
    start: u64,
    from: u64,
    to: u64,
) -> Result<u64, WalError> {
    let page = WRITE_ALIGN as u64;
    let mut lsn = start + (from - start) / page * page;
    let mut bytes = Vec::new();
    while lsn < to {
        bytes.resize((to - lsn).min(1 << 20) as usize, 0);
        if let Some(gap) = stream.read(lsn, &mut bytes)? {
            return Err(WalError::Damaged {
                file: file.path().to_path_buf(),
                offset: SEGMENT_HEADER_BYTES + (lsn - start),
                lsn: Lsn(lsn),
                reason: format!(
                    "the log was readable up to {} a moment ago and is no more: {gap:?}",
                    Lsn(to)
                ),
            });
        }
        let next = lsn + bytes.len() as u64;
        if next == to {
            pad_to_page(&mut bytes, lsn - start);
        }
        if !defect::is(Defect::TrustPageCache) {
            file.write_at(&bytes, SEGMENT_HEADER_BYTES + (lsn - start))?;
        }
        lsn = next;
    }
    Ok(start + (to - start).next_multiple_of(page))
}
