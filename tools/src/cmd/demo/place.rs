//! Where the demonstration makes its database.

use std::env;
use std::path::{Path, PathBuf};

use bedstone::{Error, IoReport};
use tempfile::TempDir;

use crate::cli::Global;
use crate::failure::Failure;
use crate::store;

/// A directory with a new, closed database in it.
pub(crate) enum Place {
    /// Named by the user, who keeps it.
    Given(PathBuf),
    /// Removed when this is dropped.
    Temporary(TempDir),
}

/// Files there bypass the page cache. On tmpfs direct I/O is accepted by newer kernels, but the page cache is where
/// its files live.
pub(crate) fn past_cache(io: &IoReport) -> bool {
    io.direct && io.file_system != "tmpfs"
}

impl Place {
    /// Makes a database in `given`, or in the first of the usual temporary directories and the current one whose
    /// files bypass the page cache; failing that in one where a database can be made at all.
    pub(crate) fn find(given: Option<&Path>, global: &Global) -> Result<Self, Failure> {
        if let Some(path) = given {
            create(path, global)?;
            return Ok(Self::Given(path.into()));
        }
        let mut second_best = None;
        let mut refused = None;
        for base in [env::temp_dir(), "/var/tmp".into(), ".".into()] {
            let Ok(dir) = tempfile::Builder::new().prefix("bedstone-demo-").tempdir_in(&base) else {
                continue;
            };
            match create(dir.path(), global) {
                Ok(io) if past_cache(&io) => return Ok(Self::Temporary(dir)),
                Ok(_) => second_best = second_best.or(Some(Self::Temporary(dir))),
                Err(e) => refused = refused.or(Some(e)),
            }
        }
        match (second_best, refused) {
            (Some(place), _) => Ok(place),
            (None, Some(Failure::Engine(Error::Io(e)))) if e.is_direct_refused() => {
                Err(Failure::Cannot(format!(
                    "no temporary directory accepts direct I/O ({e}); name a directory on a disk: bedstone demo DIR"
                )))
            }
            (None, Some(e)) => Err(e),
            (None, None) => Err(Failure::Cannot(
                "no temporary directory can be made here; name a directory: bedstone demo DIR".into(),
            )),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Given(path) => path,
            Self::Temporary(dir) => dir.path(),
        }
    }
}

fn create(path: &Path, global: &Global) -> Result<IoReport, Failure> {
    let db = store::builder(global)?.create(path)?;
    let io = db.io_report();
    db.close()?;
    Ok(io)
}
