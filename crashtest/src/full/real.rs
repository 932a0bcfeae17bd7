//! A small real file system, filled up.

use std::path::{Path, PathBuf};
use std::process::Command;

use bedstone::{Database, Durability};

use super::store::Store;
use super::workload::Op;
use crate::cases::Tally;
use crate::oracle::Ending;
use crate::rng::Rng;
use crate::verdict::Failure;

const BYTES: u64 = 32 << 20;

/// A file system mounted in a directory of its own below the scratch directory; gone with this value.
struct Mounted {
    place: PathBuf,
    _dir: tempfile::TempDir,
}

fn command(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
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
        let ext4 = command("mkfs.ext4", &["-q", "-F", "-m", "0", &image])
            .and_then(|()| command("mount", &["-o", "loop", &image, &at]));
        if let Err(first) = ext4 {
            command("mount", &["-t", "tmpfs", "-o", "size=32m", "none", &at])
                .map_err(|second| format!("no small file system can be mounted: {first}; {second}"))?;
        }
        drop((image, at));
        Ok(Self { place, _dir: dir })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(command("umount", &[&self.place.to_string_lossy()]));
    }
}

fn builder() -> bedstone::Builder {
    Database::builder()
        .allow_buffered(true)
        .page_size(4096)
        .pool_bytes(1 << 20)
        .huge_pages(false)
        .log_segment_bytes(1 << 20)
        .log_buffer_bytes(64 << 10)
        .checkpoint_log_bytes(4 << 20)
        .transaction_memory(64 << 10)
}

/// Fills a file system below `scratch` several times. The counts, or why none can be had.
pub(super) fn run(seed: u64, scratch: &Path) -> Result<Vec<(&'static str, u64)>, Failure> {
    let mounted = Mounted::below(scratch).map_err(Failure::CannotRun)?;
    let mut tally = Tally::default();
    fill(&mounted.place, seed, &mut tally)
        .map_err(|what| Failure::broken(format!("on a real file system of 32 MiB, seed {seed}: {what}")))?;
    Ok(tally.counts().to_vec())
}

/// Until the store is full, then until the file system is, which is where it is opened again; then deletes and resumes.
fn fill(place: &Path, seed: u64, tally: &mut Tally) -> Result<(), String> {
    let mut rng = Rng::of(&[seed, 41]);
    let dir = place.join("store");
    let filler = place.join("filler");
    let db = builder().create(&dir).map_err(|error| format!("create: {error} ({error:?})"))?;
    let mut store = Store::new(db);
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
        let db = builder().open(&dir);
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
