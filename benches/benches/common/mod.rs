//! What the benchmarks of Bedstone alone share.

use bedstone_benches::bedstone::Bedstone;
use bedstone_benches::{Durability, Engine, Reads, Settings};
use tempfile::TempDir;

/// Whether each benchmark is to run just once, to see that it works (`cargo bench -- --test`).
pub(crate) fn is_smoke_test() -> bool {
    std::env::args().any(|argument| argument == "--test")
}

/// Settings for data that fits into the pool.
pub(crate) fn settings(durability: Durability) -> Settings {
    Settings {
        durability,
        reads: Reads::PerCall,
        cache_bytes: if is_smoke_test() { 64 << 20 } else { 2 << 30 },
        max_bytes: 64 << 30,
        threads: 8,
        random_reads_from_disk: false,
        require_io: None,
    }
}

/// A new store in a directory of its own: under the target directory, because the system's temporary directory is
/// often in memory. The store is dropped before its directory when both are dropped as one.
pub(crate) fn open(durability: Durability) -> (Bedstone, TempDir) {
    let parent = env!("CARGO_TARGET_TMPDIR");
    let dir = tempfile::Builder::new()
        .prefix("bedstone-bench-")
        .tempdir_in(parent)
        .expect("a directory for the store");
    let engine = Bedstone::open(dir.path(), &settings(durability)).expect("the store opens");
    (engine, dir)
}
