//! What a reader of the tables must know of the machine.

use std::path::Path;

use bedstone_benches::proc::{machine_memory, memory_limit};
use rustix::fs::statfs;

use crate::cli::Args;

/// The machine, the file system under `dir`, and the command that was given.
pub fn describe(dir: &Path, args: &Args) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory =
        machine_memory().map_or("memory unknown".into(), |bytes| format!("{} MiB of memory", bytes >> 20));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let limit = match memory_limit() {
        Some(bytes) => format!("limited to {} MiB", bytes >> 20),
        None => "not limited".into(),
    };
    let smoke = if args.smoke { "\nA smoke test: the figures mean nothing.\n" } else { "" };
    format!(
        "{cores} cores, {memory} ({limit}), Linux {}, data on {}, {} rounds, seed {}.\n{smoke}",
        kernel.trim(),
        file_system(dir),
        args.rounds,
        args.seed,
    )
}

/// How fair the comparison is to those who keep no data in the page cache.
pub fn describe_page_cache(pool_bytes: usize) -> String {
    let pool = pool_bytes >> 20;
    match memory_limit() {
        Some(limit) => format!(
            "Memory of this process, page cache included, is limited to {} MiB; each engine's own cache has {pool} MiB. \
             Every store is closed, dropped from the page cache, reopened and warmed up in each round.\n",
            limit >> 20
        ),
        None => format!(
            "**Nothing limits the page cache.** Each engine's own cache has {pool} MiB, but engines that read through \
             the page cache may keep all their data there, Bedstone may not: the column of bytes read from the device \
             tells who did. Run under a memory limit (see README.md) for a comparison at equal memory. Every store is \
             closed, dropped from the page cache, reopened and warmed up in each round.\n"
        ),
    }
}

/// Name of the file system `dir` lies on, by its magic number (see statfs(2)).
fn file_system(dir: &Path) -> String {
    match statfs(dir).map(|stat| stat.f_type) {
        Ok(0xef53) => "ext4".into(),
        Ok(0x5846_5342) => "XFS".into(),
        Ok(0x9123_683e) => "btrfs".into(),
        Ok(0x794c_7630) => "overlayfs".into(),
        Ok(0x0102_1994) => "tmpfs, in memory: nothing durable is measured".into(),
        Ok(other) => format!("file system {other:#x}"),
        Err(error) => format!("an unknown file system ({error})"),
    }
}
