//! The pool as a whole, on the simulated disk, without a tree: pages found by their ids.

mod crash;
mod laws;
mod stress;
mod tree;

use std::path::Path;
use std::sync::Arc;

use bedstone_io::Disk;
use bedstone_io::sim::{Fault, OpKind, Repeat, SimDisk};

use crate::table::Place;
use crate::{
    Access, Background, CheckpointParams, FormatParams, PageHeader, PageId, PageKind, PagePin, PageState,
    PolicyKind, Pool, PoolConfig, PoolError, Result, VerifyPage,
};

pub(super) const FILE: &str = "/db/data";

struct Anything;

impl VerifyPage for Anything {
    fn verify(&self, _: &PageHeader, _: &[u8]) -> std::result::Result<(), String> {
        Ok(())
    }
}

pub(super) fn config(
    frames: usize,
    page_size: usize,
    background: Background,
    policy: PolicyKind,
) -> PoolConfig {
    PoolConfig {
        pool_bytes: frames * page_size,
        policy,
        huge_pages: false,
        background,
        verify: Arc::new(Anything),
    }
}

/// A disk with an empty, durable store.
pub(super) fn formatted(seed: u64, page_size: usize) -> Arc<SimDisk> {
    let disk = SimDisk::new(seed);
    disk.create_dir_all(Path::new("/db")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let params = FormatParams { page_size, database_id: [7; 16], start_lsn: 0 };
    Pool::format(&*disk, Path::new(FILE), &params).unwrap();
    disk.sync_dir(Path::new("/db")).unwrap();
    disk
}

pub(super) fn open(disk: &Arc<SimDisk>, config: &PoolConfig) -> Result<Pool> {
    let disk: Arc<dyn Disk> = disk.clone();
    Pool::open(&disk, Path::new(FILE), config)
}

/// Fills a page so that a mixture of two versions shows.
pub(super) fn fill(page: &mut [u8], id: PageId, value: u64) {
    for (at, word) in page[32..].chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&(value ^ (u64::from(id.0) << 32) ^ at as u64).to_le_bytes());
    }
}

/// The value a page was filled with.
pub(super) fn value_of(page: &[u8], id: PageId) -> u64 {
    assert_eq!(PageHeader::read(page).page, id);
    let word = |at: usize| u64::from_le_bytes(page[32 + at * 8..40 + at * 8].try_into().unwrap());
    let value = word(0) ^ (u64::from(id.0) << 32);
    for at in 0..(page.len() - 32) / 8 {
        assert_eq!(word(at) ^ (u64::from(id.0) << 32) ^ at as u64, value, "word {at} of {id}: a torn page");
    }
    value
}

/// Pins a page, bringing it in if need be.
pub(super) fn pin(pool: &Pool, id: PageId) -> Result<PagePin<'_>> {
    loop {
        {
            let guard = pool.guard();
            let word = guard.word(id);
            match word.state() {
                PageState::Free => return Err(PoolError::Free(id)),
                PageState::Absent => {}
                _ => match guard.pin(id, word, Access::Point) {
                    Some(pin) => return Ok(pin),
                    None => continue,
                },
            }
        }
        pool.fault(id, Access::Point)?;
    }
}

pub(super) fn create(pool: &Pool, value: u64) -> Result<PageId> {
    let mut reserve = pool.reserve(1)?;
    let mut page = pool.new_page(&mut reserve, PageKind::Leaf, 0, 1);
    let id = page.page_id();
    fill(&mut page, id, value);
    page.publish(&pool.announce());
    Ok(id)
}

/// Changes a page; returns what it held.
pub(super) fn change(pool: &Pool, id: PageId, value: u64) -> Result<u64> {
    let mut reserve = pool.reserve(1)?;
    loop {
        {
            let guard = pool.guard();
            let word = guard.word(id);
            match word.state() {
                PageState::Free => return Err(PoolError::Free(id)),
                PageState::Absent => {}
                _ => match guard.latch(id, word) {
                    Some(latch) => {
                        let before = value_of(latch.page(), id);
                        let operation = pool.announce();
                        let mut page = latch.modify(&operation, &mut reserve);
                        fill(&mut page, id, value);
                        page.finish();
                        return Ok(before);
                    }
                    None => {
                        std::thread::yield_now();
                        continue;
                    }
                },
            }
        }
        pool.fault(id, Access::Point)?;
    }
}

/// Frees a leaf; returns what it held.
pub(super) fn free(pool: &Pool, id: PageId) -> Result<u64> {
    loop {
        {
            let guard = pool.guard();
            let word = guard.word(id);
            match word.state() {
                PageState::Free => return Err(PoolError::Free(id)),
                PageState::Absent => {}
                _ => match guard.latch(id, word) {
                    Some(latch) => {
                        let before = value_of(latch.page(), id);
                        latch.free(&pool.announce());
                        return Ok(before);
                    }
                    None => {
                        std::thread::yield_now();
                        continue;
                    }
                },
            }
        }
        pool.fault(id, Access::Point)?;
    }
}

/// With nobody at work: no unit is used twice or lost.
pub(super) fn assert_sound(pool: &Pool, seed: u64) {
    let report = pool.check_space();
    assert!(
        report.problems.is_empty(),
        "seed {seed}: {:?}",
        &report.problems[..report.problems.len().min(5)]
    );
}

/// With nobody at work, all pins dropped and a checkpoint just ended: besides, every frame is free or named by one
/// translation word, nothing is pinned, latched or dirty, and no promise of room is outstanding.
pub(super) fn assert_settled(pool: &Pool, seed: u64) {
    assert_sound(pool, seed);
    let shared = pool.shared();
    pool.shutdown();
    shared.reap_deferred();
    shared.dissolve_stash();
    shared.collect_retired();
    assert!(pool.failed().is_none(), "seed {seed}");
    let stats = pool.stats();
    assert_eq!((stats.dirty_frames, stats.retired), (0, 0), "seed {seed}");
    let mut named = std::collections::HashSet::new();
    let next_id = shared.space.lock().next_id;
    for id in (1..next_id).map(PageId) {
        if let Place::Leaf(frame) | Place::Inner(frame) = shared.table.place(id) {
            assert!(named.insert(frame), "seed {seed}: {frame:?} is named twice");
            assert_eq!(shared.frame(frame).page(), id, "seed {seed}");
            assert_eq!(shared.frame(frame).pins(), 0, "seed {seed}: {id} is still pinned");
        }
    }
    assert_eq!(named.len() as u64 + stats.free_frames, stats.frames, "seed {seed}: frames leak");
    assert_eq!(shared.promised.load(std::sync::atomic::Ordering::SeqCst), 0, "seed {seed}: promises leak");
    assert!(shared.preserved.take().is_empty(), "seed {seed}");
}

pub(super) fn checkpoint(pool: &Pool) -> Result<()> {
    let mut checkpoint = pool.begin_checkpoint()?;
    checkpoint.write_pages()?;
    checkpoint.finish(CheckpointParams { replay_lsn: 0, log_end: 0 })
}
