//! A small real file system, filled up.

use std::path::{Path, PathBuf};

use bedstone::{Database, Durability};

use super::store::Store;
use super::workload::Op;
use crate::cases::Tally;
use crate::oracle::Ending;
use crate::plan::Plan;
use crate::power_fs::mounts::{command, mounts_of_our_own};
use crate::rng::Rng;
use crate::verdict::Failure;

const BYTES: u64 = 32 << 20;

/// A file system mounted in a directory of its own below the scratch directory; gone with this value.
struct Mounted {
    place: PathBuf,
    /// What kind it is.
    kind: &'static str,
    _dir: tempfile::TempDir,
}

impl Mounted {
    /// ext4 in a file if there is such a thing here, else tmpfs.
    fn below(scratch: &Path) -> Result<Self, String> {
        let dir = tempfile::TempDir::with_prefix_in("bedstone-full-", scratch)
            .map_err(|error| format!("{}: {error}", scratch.display()))?;
        let place = dir.path().join("mounted");
        std::fs::create_dir(&place).map_err(|error| error.to_string())?;
        let image = dir.path().join("image");
        let made = std::fs::File::create(&image).and_then(|file| file.set_len(BYTES));
        made.map_err(|error| error.to_string())?;
        let (image, at) = (image.to_string_lossy(), place.to_string_lossy());
        let ext4 = command("mkfs.ext4", "e2fsprogs", &["-q", "-F", "-m", "0", &image])
            .and_then(|_| command("mount", "mount", &["-o", "loop", &image, &at]));
        let kind = if ext4.is_ok() { "ext4" } else { "tmpfs" };
        if let Err(first) = ext4 {
            command("mount", "mount", &["-t", "tmpfs", "-o", "size=32m", "none", &at])
                .map_err(|second| format!("no small file system can be mounted: {first}; {second}"))?;
        }
        drop((image, at));
        Ok(Self { place, kind, _dir: dir })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: the kernel lets go of the files of an io_uring a little after they are closed.
        drop(command("umount", "mount", &["-l", &self.place.to_string_lossy()]));
    }
}

fn builder(plan: &Plan) -> bedstone::Builder {
    Database::builder()
        .allow_buffered(true)
        .page_size(4096)
        .pool_bytes(1 << 20)
        .huge_pages(false)
        .log_segment_bytes(1 << 20)
        .log_buffer_bytes(64 << 10)
        .checkpoint_log_bytes(4 << 20)
        .transaction_memory(64 << 10)
        .durability(plan.durability.unwrap_or_default())
}

/// What was counted, and what kind of file system it was.
type Filled = (Vec<(&'static str, u64)>, &'static str);

/// Fills a file system below `scratch` several times. The counts, or why none can be had.
pub(super) fn run(plan: &Plan, scratch: &Path) -> Result<Filled, Failure> {
    // In a thread with mounts of its own: they go with it, even if the process is killed.
    std::thread::scope(|scope| match scope.spawn(|| run_mounted(plan, scratch)).join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn run_mounted(plan: &Plan, scratch: &Path) -> Result<Filled, Failure> {
    mounts_of_our_own().map_err(Failure::CannotRun)?;
    let mounted = Mounted::below(scratch).map_err(Failure::CannotRun)?;
    let mut tally = Tally::default();
    fill(&mounted.place, plan, &mut tally).map_err(|what| {
        Failure::broken(format!("on a real {} of 32 MiB, seed {}: {what}", mounted.kind, plan.seed))
    })?;
    Ok((tally.counts().to_vec(), mounted.kind))
}

/// Until the store is full, then until the file system is, which is where it is opened again; then deletes and resumes.
fn fill(place: &Path, plan: &Plan, tally: &mut Tally) -> Result<(), String> {
    let mut rng = Rng::of(&[plan.seed, 41]);
    let dir = place.join("store");
    let filler = place.join("filler");
    let db = builder(plan).create(&dir).map_err(|error| format!("create: {error} ({error:?})"))?;
    let mut store = Store::new(db, plan.durability);
    for round in 0..3u64 {
        let refused = loop {
            let key = format!("key {:06}", rng.below(4000)).into_bytes();
            let len = *rng.pick(&[100, 1000, 9000]);
            let write = ("real".to_owned(), key, rng.bytes(len).into());
            let op = Op::Put(write, *rng.pick(&[Durability::Sync, Durability::Relaxed]));
            if !store.perform(&op)? {
                break op;
            }
        };
        tally.add("times full", 1);
        tally.add("refused commits", 1);
        // The rest goes to somebody else, to the last byte.
        let rest = std::fs::File::create(&filler).and_then(|mut file| {
            let zeros = vec![0; 64 << 10];
            while std::io::Write::write(&mut file, &zeros)? > 0 {}
            Ok(())
        });
        drop(rest);
        let db = store.db.take().ok_or("there is no store")?;
        match round {
            0 => db.close().map_err(|error| format!("close on a full disk: {error} ({error:?})"))?,
            _ => drop(db),
        }
        let db = builder(plan).open(&dir);
        let db = db.map_err(|error| format!("opening on the full disk: {error} ({error:?})"))?;
        tally.add("openings while full", 1);
        store.reopened(db, Ending::Killed)?;
        store.deletes_some(tally)?;
        std::fs::remove_file(&filler).map_err(|error| error.to_string())?;
        store.deletes_some(tally)?;
        store.resumes(&refused)?;
        tally.add("resumptions", 1);
    }
    store.end_well()
}
