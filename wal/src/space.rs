//! Space for the log: making segments, using them again, and giving them back.
//!
//! Zeros are worth writing where commits wait for single syncs (no metadata is touched then); where the log is filled
//! faster than a segment every few seconds, writing everything twice costs more than it saves, so the blocks are only
//! allocated ([`Fill::Allocated`]).
//!
//! A segment may be written to only after its whole length, its header and its name are durable; then no later write
//! can meet a full disk and no sync needs to touch metadata. The order of steps, for a new file: create as `.new`,
//! zeros over the whole length (or allocated blocks), header, `fsync`, rename to `.log`, `fsync` of the directory. For a file used again:
//! remove what could pass for a record of its new place, header, `fsync`, rename, `fsync` of the directory. A crash
//! between any two leaves a file that the next opening removes or takes as a spare.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bedstone_io::defect::{self, Defect};
use bedstone_io::{AlignedBuf, AlignedSliceMut, Disk, IoError, LogFile, OpenMode};

use crate::buffer::WRITE_ALIGN;
use crate::config::WalConfig;
use crate::damage::own_positions;
use crate::error::WalError;
use crate::segment::{SEGMENT_HEADER_BYTES, encode_header, segment_path, unfinished_path};

/// A segment that this opening writes to, may still sync, or keeps.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) start: u64,
    pub(crate) bytes: u64,
    /// One open file for each sync that may be in flight; the first is the one written to. None for a segment that
    /// was complete before this opening.
    pub(crate) files: Vec<Arc<dyn LogFile>>,
}

impl Segment {
    pub(crate) fn end(&self) -> u64 {
        self.start + self.bytes
    }

    /// Opens the files of the segment at `path`.
    pub(crate) fn open(
        disk: &dyn Disk,
        path: PathBuf,
        start: u64,
        bytes: u64,
        slots: usize,
    ) -> Result<Self, IoError> {
        let files =
            (0..slots).map(|_| disk.open_log(&path, OpenMode::ReadWrite)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { path, start, bytes, files })
    }
}

/// A segment file out of use.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) path: PathBuf,
    /// All records in it have positions below the log's tail, so none can pass for a record of a later place.
    pub(crate) old: bool,
}

/// How the bytes of a new segment are prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Written once with zeros: later syncs touch no metadata.
    Zeros,
    /// Blocks allocated, not written: made at once.
    Allocated,
}

/// Why a segment could not be made.
#[derive(Debug)]
pub(crate) enum NotMade {
    /// There is no room. Nothing is left behind.
    NoSpace(IoError),
    /// Something else, before anything relied on the file. Nothing is left behind, as far as could be done.
    Refused(WalError),
    /// A sync failed: what is durable is unknown, the log must not go on.
    SyncFailed(IoError),
}

impl From<IoError> for NotMade {
    fn from(error: IoError) -> Self {
        if error.is_no_space() { NotMade::NoSpace(error) } else { NotMade::Refused(error.into()) }
    }
}

/// Makes the segment that begins at `start` with `cfg.segment_bytes`, out of `spare` if there is one, and makes it
/// durable. On failure the spare is lost.
pub(crate) fn make_segment(
    disk: &dyn Disk,
    cfg: &WalConfig,
    start: u64,
    spare: Option<Spare>,
    fill: Fill,
) -> Result<Segment, NotMade> {
    let file_len = SEGMENT_HEADER_BYTES + cfg.segment_bytes;
    let header = encode_header(cfg.database_id, cfg.opening, start, cfg.segment_bytes);
    let (from, filled) = match spare {
        Some(spare) => {
            let filled = refill(disk, &spare, start, file_len, &header);
            (spare.path, filled)
        }
        None => {
            let path = unfinished_path(&cfg.dir, start);
            (path.clone(), fill_new(disk, &path, file_len, &header, fill))
        }
    };
    let path = segment_path(&cfg.dir, start);
    let named = filled.and_then(|()| Ok(disk.rename(&from, &path)?));
    if let Err(error) = named {
        // The file is worth nothing; that it may stay until the next opening is no reason for another error.
        let _ = disk.remove(&from);
        return Err(error);
    }
    // The rule: a segment is written to only after its name is durable.
    if !defect::is(Defect::SkipSegmentDirSync) {
        disk.sync_dir(&cfg.dir).map_err(NotMade::SyncFailed)?;
    }
    Ok(Segment::open(disk, path, start, cfg.segment_bytes, cfg.syncs_in_flight)?)
}

fn fill_new(disk: &dyn Disk, path: &Path, file_len: u64, header: &[u8], fill: Fill) -> Result<(), NotMade> {
    if disk.exists(path)? {
        disk.remove(path)?;
    }
    let file = disk.open_log(path, OpenMode::CreateNew)?;
    match fill {
        Fill::Zeros => file.allocate_zeroed(file_len)?,
        Fill::Allocated => file.allocate(file_len)?,
    }
    file.write_at(header, 0)?;
    sync_all(&*file)
}

fn refill(disk: &dyn Disk, spare: &Spare, start: u64, file_len: u64, header: &[u8]) -> Result<(), NotMade> {
    let file = disk.open_log(&spare.path, OpenMode::ReadWrite)?;
    let len = file.len()?;
    if len != file_len {
        return Err(NotMade::Refused(WalError::Internal { what: "a spare segment has another length" }));
    }
    if !spare.old {
        remove_own_positions(disk, &*file, start, start, start + (file_len - SEGMENT_HEADER_BYTES))
            .map_err(NotMade::Refused)?;
    }
    file.write_at(header, 0)?;
    sync_all(&*file)
}

fn sync_all(file: &dyn LogFile) -> Result<(), NotMade> {
    // A file system that allocates late may find out only now that it is full; the file is given up then, and no
    // other one is affected.
    file.sync_all().map_err(|error| {
        if error.is_no_space() { NotMade::NoSpace(error) } else { NotMade::SyncFailed(error) }
    })
}

/// Overwrites with zeros every block between the positions `from` and `to` of a segment that begins at `start` in
/// which a record header gives its own position: left by a life of the database that recovery cut off. Both bounds
/// lie at multiples of the block size from `start`. Reads past the page cache; not durable before a sync of `file`.
pub(crate) fn remove_own_positions(
    disk: &dyn Disk,
    file: &dyn LogFile,
    start: u64,
    from: u64,
    to: u64,
) -> Result<(), WalError> {
    let zero = &mut |offset| Ok(file.write_at(&[0; WRITE_ALIGN], offset)?);
    own_blocks(disk, file.path(), start, from, to, zero)
}

/// Calls `found` with the file offset of every block between the positions `from` and `to` in which a record header gives
/// its own position. The segment in file `path` begins at `start`; both bounds lie at multiples of the block size from it.
/// Reads past the page cache.
pub(crate) fn own_blocks(
    disk: &dyn Disk,
    path: &Path,
    start: u64,
    from: u64,
    to: u64,
    found: &mut dyn FnMut(u64) -> Result<(), WalError>,
) -> Result<(), WalError> {
    let direct = disk.open_direct(path, OpenMode::Read)?;
    let mut buf = AlignedBuf::zeroed((to - from).min(1 << 20) as usize);
    let mut positions = Vec::new();
    let mut lsn = from;
    while lsn < to {
        let len = (to - lsn).min(buf.len() as u64) as usize;
        let offset = SEGMENT_HEADER_BYTES + (lsn - start);
        let Some(target) = buf.get_mut(..len).and_then(AlignedSliceMut::new) else {
            return Err(WalError::Internal { what: "a stretch of the log is not aligned" });
        };
        direct.read_at(target, offset)?;
        for (index, block) in buf.get(..len).unwrap_or_default().chunks(WRITE_ALIGN).enumerate() {
            let at = (index * WRITE_ALIGN) as u64;
            positions.clear();
            own_positions(block, lsn + at, &mut positions);
            if !positions.is_empty() && block.iter().any(|&byte| byte != 0) {
                found(offset + at)?;
            }
        }
        lsn += len as u64;
    }
    Ok(())
}
