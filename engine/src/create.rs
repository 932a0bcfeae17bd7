//! Making a new database so that a cut at any moment leaves either none or one that opens.
//!
//! The name `data` decides whether there is a database. It appears by one rename, and only when everything
//! behind it is durable: under the lock the data file is written as `data.new` and synced, the first two log
//! segments are written and synced with their names in `redo/`, those names and that of `redo` itself are synced,
//! and only then `data.new` becomes `data` and the directory is synced again. The directories made on the way
//! are synced in their parents.
//!
//! So without `data` whatever lies there under our names is debris of a creation that was cut: `data.new` and
//! the segments in `redo/` are removed and creation starts again. With `data` nothing is ever created or
//! removed. A rename that was made but not yet synced when the power went may turn up either way; both are
//! covered.

use std::path::{Path, PathBuf};

use bedstone_bufpool::{FormatParams, Pool};
use bedstone_io::Disk;
use bedstone_io::defect::{self, Defect};
use bedstone_wal::{Lsn, Wal, WalConfig};

use crate::error::{Error, Result};

/// The data file.
pub(crate) const DATA: &str = "data";
/// The data file while it is being made.
const DATA_NEW: &str = "data.new";
/// The directory of the log.
pub(crate) const REDO: &str = "redo";
/// The lock file.
pub(crate) const LOCK: &str = "LOCK";

/// Where the log of every database begins. Not 0: that stands for "no commit" in pages and for "this very
/// record" in fragments.
pub(crate) const START_LSN: u64 = 4096;

/// Page size of a database whose creator named none.
pub(crate) const DEFAULT_PAGE_SIZE: usize = 16384;

/// Makes the directory of a database durably, with all its missing parents. Called at every opening: the names that are
/// there already may have been made by a creation that died before it could sync them, so every name on the path, and
/// the names in the directory itself, are made durable, up to the root or to the first directory that may not be synced.
pub(crate) fn make_directory(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let mut made = Vec::new();
    for path in dir.ancestors().filter(|path| !path.as_os_str().is_empty()) {
        if !disk.exists(path)? {
            made.push(path);
        }
    }
    disk.create_dir_all(dir)?;
    disk.sync_dir(dir)?;
    for path in dir.ancestors().filter(|path| !path.as_os_str().is_empty() && path.file_name().is_some()) {
        if let Err(error) = disk.sync_dir(parent_of(path)) {
            // A directory of somebody else's, in which we made nothing, need not let us.
            if !made.contains(&path) && is_denied(&error) {
                break;
            }
            return Err(error.into());
        }
    }
    Ok(())
}

fn is_denied(error: &bedstone_io::IoError) -> bool {
    matches!(
        error.source.kind(),
        std::io::ErrorKind::PermissionDenied
            | std::io::ErrorKind::ReadOnlyFilesystem
            | std::io::ErrorKind::InvalidInput
    )
}

/// The directory a path's name stands in.
fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Creates the files of a new database in `dir`, which exists, is locked by the caller, and holds no `data`.
pub(crate) fn create_files(disk: &dyn Disk, dir: &Path, page_size: usize, cfg: &WalConfig) -> Result<()> {
    remove_debris(disk, dir)?;
    let new = dir.join(DATA_NEW);
    let params = FormatParams { page_size, database_id: cfg.database_id, start_lsn: START_LSN };
    Pool::format(disk, &new, &params)?;
    disk.create_dir_all(&cfg.dir)?;
    Wal::create(disk, cfg, Lsn(START_LSN))?;
    disk.sync_dir(&cfg.dir)?;
    disk.sync_dir(dir)?;
    disk.rename(&new, &dir.join(DATA))?;
    // The rule: nothing is acknowledged by a database whose name is not durable.
    if !defect::is(Defect::SkipDirSync) {
        disk.sync_dir(dir)?;
    }
    disk.sync_dir(parent_of(dir))?;
    Ok(())
}

/// Removes what a creation that was cut left behind. Only called while there is no `data`.
fn remove_debris(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let new = dir.join(DATA_NEW);
    if disk.exists(&new)? {
        disk.remove(&new)?;
    }
    let redo = dir.join(REDO);
    if disk.exists(&redo)? {
        for name in disk.list(&redo)? {
            // Segments, and segments while they are made.
            if Path::new(&name).extension().is_some_and(|e| e == "log" || e == "new") {
                disk.remove(&redo.join(name))?;
            } else {
                return Err(Error::NotADatabase {
                    path: redo.join(&name),
                    detail: "there is no data file, and this file is not one of a log".into(),
                });
            }
        }
        disk.sync_dir(&redo)?;
    }
    disk.sync_dir(dir)?;
    Ok(())
}

/// A number for a new database, different for every one. On a simulated disk it follows from the disk's
/// clock, so that a run can be repeated exactly.
pub(crate) fn new_database_id(disk: &dyn Disk, dir: &Path, simulated: bool) -> [u8; 16] {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut halves = [0u64; 2];
    for (i, half) in halves.iter_mut().enumerate() {
        let time = [disk.unix_ms(), disk.now().as_nanos() as u64, i as u64 + 1];
        *half = if simulated {
            time.iter().fold(0x9e37_79b9_7f4a_7c15, |h, n| {
                (h ^ n).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(29)
            })
        } else {
            // The standard library seeds its hash maps from the system's random numbers.
            let mut hasher = RandomState::new().build_hasher();
            time.iter().for_each(|n| hasher.write_u64(*n));
            hasher.write_u32(std::process::id());
            hasher.write(dir.as_os_str().as_encoded_bytes());
            hasher.finish()
        };
    }
    let mut id = [0; 16];
    id[..8].copy_from_slice(&halves[0].to_le_bytes());
    id[8..].copy_from_slice(&halves[1].to_le_bytes());
    id
}

/// Names of a database's files.
pub(crate) fn data_path(dir: &Path) -> PathBuf {
    dir.join(DATA)
}

/// The directory of its log.
pub(crate) fn redo_path(dir: &Path) -> PathBuf {
    dir.join(REDO)
}
