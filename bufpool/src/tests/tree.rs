//! Threads on small trees: an inner node, two leaves below it, an overflow page for each leaf. Writers change leaves,
//! replace them by others, and replace the node; readers descend as a B+-tree does, and read the overflow page with
//! nothing but a ticket. Checkpoints go on all the while, and some are given up or fail.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::crash::Random;
use super::*;

const LEAVES: usize = 2;

/// Words of a page's body: what they mean, then the value repeated, so that a mixture of two versions shows.
fn put(page: &mut [u8], words: &[u64], value: u64) {
    for (at, bytes) in page[32..].chunks_exact_mut(8).enumerate() {
        bytes.copy_from_slice(&words.get(at).copied().unwrap_or(value).to_le_bytes());
    }
}

fn word(page: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(page[32 + at * 8..40 + at * 8].try_into().unwrap())
}

/// Checks that all words from `from` on are the same, and returns that value.
fn value_from(page: &[u8], from: usize) -> u64 {
    let value = word(page, from);
    for at in from..(page.len() - 32) / 8 {
        assert_eq!(word(page, at), value, "a torn page");
    }
    value
}

/// A leaf: its tree, which of the leaves it is, its overflow page; the value fills the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Leaf {
    tree: u64,
    slot: u64,
    overflow: PageId,
    value: u64,
}

impl Leaf {
    fn write(&self, page: &mut [u8]) {
        put(page, &[self.tree, self.slot, u64::from(self.overflow.0)], self.value);
    }
    fn read(page: &[u8]) -> Self {
        let [tree, slot, overflow] = [0, 1, 2].map(|at| word(page, at));
        Self { tree, slot, overflow: PageId(overflow as u32), value: value_from(page, 3) }
    }
}

struct Trees<'p> {
    pool: &'p Pool,
    nodes: Vec<PageId>,
    /// Values that were seen or written: no reader that comes later may find a smaller one.
    floors: Vec<[AtomicU64; LEAVES]>,
}

/// A retry costs the other threads nothing.
fn again() {
    std::thread::yield_now();
}

/// What a background write that failed makes of reads and reservations: try again.
fn is_passing(error: &PoolError) -> bool {
    matches!(error, PoolError::WriteOut(_))
}

fn patiently<T>(mut attempt: impl FnMut() -> Result<T>) -> T {
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) if is_passing(&error) => again(),
            Err(error) => panic!("{error}"),
        }
    }
}

impl<'p> Trees<'p> {
    fn new(pool: &'p Pool, count: u64) -> Self {
        let nodes = (0..count)
            .map(|tree| {
                let mut reserve = pool.reserve(1 + 2 * LEAVES).unwrap();
                let mut node = pool.new_page(&mut reserve, PageKind::Inner, 1, 1);
                let leaves: Vec<u64> = (0..LEAVES as u64)
                    .map(|slot| {
                        let mut data = pool.new_page(&mut reserve, PageKind::OverflowData, 0, 1);
                        let mut leaf = pool.new_page(&mut reserve, PageKind::Leaf, 0, 1);
                        let (overflow, id) = (data.page_id(), leaf.page_id());
                        put(&mut data, &[], 0);
                        Leaf { tree, slot, overflow, value: 0 }.write(&mut leaf);
                        let operation = pool.announce();
                        data.publish(&operation);
                        leaf.publish(&operation);
                        u64::from(id.0)
                    })
                    .collect();
                let id = node.page_id();
                put(&mut node, &leaves, tree);
                node.publish(&pool.announce());
                id
            })
            .collect();
        Self { pool, nodes, floors: (0..count).map(|_| Default::default()).collect() }
    }

    fn fault(&self, page: PageId) {
        match self.pool.fault(page, Access::Point) {
            Ok(()) | Err(PoolError::Free(_)) => {}
            Err(error) if is_passing(&error) => again(),
            Err(error) => panic!("{error}"),
        }
    }

    /// Descends to a leaf and does something with its word while the path is known to be right.
    fn descend<T>(
        &self,
        tree: usize,
        slot: usize,
        mut arrive: impl FnMut(&crate::Guard<'p>, PageId, crate::Word<'_>) -> Option<T>,
    ) -> T {
        let root = self.nodes[tree];
        loop {
            let guard = self.pool.guard();
            let above = guard.word(root);
            let Some(node) = guard.inner(above) else {
                drop(guard);
                self.fault(root);
                continue;
            };
            assert_eq!(value_from(node, LEAVES), tree as u64);
            let leaf = PageId(word(node, slot) as u32);
            let below = guard.word(leaf);
            if below.state() == PageState::Absent {
                drop(guard);
                self.fault(leaf);
                continue;
            }
            if let Some(arrived) = arrive(&guard, leaf, below)
                && guard.word(root).same(above)
            {
                return arrived;
            }
            drop(guard);
            again();
        }
    }

    fn read(&self, tree: usize, slot: usize, held: &mut Vec<(PagePin<'p>, Leaf)>) {
        let floor = self.floors[tree][slot].load(Ordering::SeqCst);
        let (mut pin, leaf, ticket) = loop {
            let pin = self.descend(tree, slot, |guard, id, below| guard.pin(id, below, Access::Point));
            let leaf = Leaf::read(&pin);
            let ticket = self.pool.ticket();
            if pin.is_current() {
                break (pin, leaf, ticket);
            }
        };
        assert_eq!((leaf.tree, leaf.slot), (tree as u64, slot as u64), "another leaf");
        assert!(leaf.value >= floor, "leaf {slot} of tree {tree} went back from {floor} to {}", leaf.value);
        self.floors[tree][slot].fetch_max(leaf.value, Ordering::SeqCst);
        if !pin.should_copy() {
            let clone = pin.clone();
            held.push((clone, leaf));
        }
        drop(pin);
        let data = patiently(|| super::pin(self.pool, leaf.overflow));
        assert_eq!(value_from(&data, 0), leaf.value, "the overflow page of another value");
        drop(ticket);
        if held.len() > 3 {
            let (pin, leaf) = held.remove(0);
            assert_eq!(Leaf::read(&pin), leaf, "a pinned page changed");
        }
    }

    /// A leaf gets a new value, in place or in a copy or (with `rebuild`) in a version of its own.
    fn change(&self, tree: usize, slot: usize, rebuild: bool) {
        let mut reserve = patiently(|| self.pool.reserve(3));
        let mut data = self.pool.new_page(&mut reserve, PageKind::OverflowData, 0, 1);
        let latch = self.descend(tree, slot, |guard, id, below| guard.latch(id, below));
        let before = Leaf::read(latch.page());
        let after = Leaf { overflow: data.page_id(), value: before.value + 1, ..before };
        put(&mut data, &[], after.value);
        let operation = self.pool.announce();
        data.publish(&operation);
        if rebuild {
            let mut new = latch.new_version(&mut reserve);
            after.write(&mut new);
            drop(latch.replace(new, &operation));
        } else {
            let mut page = latch.modify(&operation, &mut reserve);
            after.write(&mut page);
            page.finish();
        }
        self.pool.free_page(before.overflow, &operation);
        drop(operation);
        self.floors[tree][slot].fetch_max(after.value, Ordering::SeqCst);
    }

    /// A leaf moves to another page, and the node gets a new version that says so.
    fn relocate(&self, tree: usize, slot: usize) {
        let root = self.nodes[tree];
        let mut reserve = patiently(|| self.pool.reserve(3));
        loop {
            let guard = self.pool.guard();
            let above = guard.word(root);
            if above.state() == PageState::Absent {
                drop(guard);
                self.fault(root);
                continue;
            }
            let Some(lock) = guard.lock_inner(root, above) else {
                drop(guard);
                again();
                continue;
            };
            let mut leaves: Vec<u64> = (0..LEAVES).map(|at| word(lock.page(), at)).collect();
            let old = PageId(leaves[slot] as u32);
            let Some(latch) = guard.latch(old, guard.word(old)) else {
                drop((lock, guard));
                self.fault(old);
                continue;
            };
            drop(guard);
            let mut leaf = self.pool.new_page(&mut reserve, PageKind::Leaf, 0, 1);
            leaf[32..].copy_from_slice(&latch.page()[32..]);
            leaves[slot] = u64::from(leaf.page_id().0);
            let mut node = lock.new_version(&mut reserve, 1);
            put(&mut node, &leaves, tree as u64);
            let operation = self.pool.announce();
            leaf.publish(&operation);
            lock.replace(node, &operation);
            latch.free(&operation);
            return;
        }
    }

    /// What every leaf holds, checked against its overflow page.
    fn content(&self) -> Vec<Leaf> {
        let all =
            self.nodes.iter().enumerate().flat_map(|(tree, _)| (0..LEAVES).map(move |slot| (tree, slot)));
        all.map(|(tree, slot)| {
            let pin = self.descend(tree, slot, |guard, id, below| guard.pin(id, below, Access::Point));
            let leaf = Leaf::read(&pin);
            drop(pin);
            assert_eq!((leaf.tree, leaf.slot), (tree as u64, slot as u64));
            let data = super::pin(self.pool, leaf.overflow).unwrap();
            assert_eq!(value_from(&data, 0), leaf.value);
            leaf
        })
        .collect()
    }
}

/// A checkpoint that may be given up at any step, or meet a write that fails.
fn some_checkpoint(pool: &Pool, disk: &SimDisk, random: &mut Random, faults: bool) -> bool {
    let mut checkpoint = pool.begin_checkpoint().unwrap();
    let fate = if faults { random.below(8) } else { 8 };
    if fate == 0 {
        return false;
    }
    if fate <= 3 {
        disk.fail_nth(OpKind::Write, 1 + random.below(4), Fault::Eio, Repeat::Once);
    }
    let outcome = checkpoint.write_pages();
    disk.clear_faults();
    match outcome {
        Ok(()) if fate == 4 => false,
        Ok(()) => {
            checkpoint.finish(CheckpointParams { replay_lsn: 0, log_end: 0 }).unwrap();
            true
        }
        Err(error) if is_passing(&error) => false,
        Err(error) => panic!("{error}"),
    }
}

fn stress(frames: usize, count: u64, policy: PolicyKind, seed: u64, rounds: u64, faults: bool) {
    let disk = formatted(seed, 4096);
    let config = config(frames, 4096, Background::Threads, policy);
    let pool = open(&disk, &config).unwrap();
    let trees = Trees::new(&pool, count);
    let writing = AtomicUsize::new(2);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (pool, disk, trees, writing, stop) = (&pool, &disk, &trees, &writing, &stop);
        // A failed assertion must end the other threads too.
        struct End<'s>(&'s AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.store(true, Ordering::Relaxed);
                }
            }
        }
        for thread in 0..2_u64 {
            scope.spawn(move || {
                let _end = End(stop);
                let mut random = Random(seed * 100 + thread);
                for _ in 0..rounds {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let (tree, slot) = (random.below(count) as usize, random.below(LEAVES as u64) as usize);
                    match random.below(10) {
                        0..=1 => trees.relocate(tree, slot),
                        kind => trees.change(tree, slot, kind == 2),
                    }
                }
                writing.fetch_sub(1, Ordering::SeqCst);
            });
        }
        for thread in 0..2_u64 {
            scope.spawn(move || {
                let _end = End(stop);
                let mut random = Random(seed * 1000 + thread);
                let mut held = Vec::new();
                while writing.load(Ordering::SeqCst) > 0 && !stop.load(Ordering::Relaxed) {
                    let (tree, slot) = (random.below(count) as usize, random.below(LEAVES as u64) as usize);
                    trees.read(tree, slot, &mut held);
                }
            });
        }
        scope.spawn(move || {
            let _end = End(stop);
            let mut random = Random(seed * 10_000);
            while writing.load(Ordering::SeqCst) > 0 && !stop.load(Ordering::Relaxed) {
                some_checkpoint(pool, disk, &mut random, faults);
                again();
            }
        });
    });
    let content = trees.content();
    for leaf in &content {
        let floor = trees.floors[leaf.tree as usize][leaf.slot as usize].load(Ordering::SeqCst);
        assert_eq!(leaf.value, floor, "seed {seed}");
    }
    checkpoint(&pool).unwrap();
    assert_settled(&pool, seed);
    let nodes = trees.nodes.clone();
    drop(pool);
    let pool = open(&disk.reopen(), &config).unwrap();
    let trees = Trees { pool: &pool, nodes, floors: Vec::new() };
    assert_eq!(trees.content(), content, "seed {seed}: after opening again");
    assert_eq!(pool.live_pages().len(), count as usize * (1 + 2 * LEAVES), "seed {seed}");
}

/// Longer runs: the environment variable multiplies the rounds.
fn rounds(rounds: u64) -> u64 {
    rounds * std::env::var("BEDSTONE_STRESS").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

#[test]
fn small_trees_in_memory() {
    stress(512, 6, PolicyKind::S3Fifo, 11, rounds(5_000), false);
}

#[test]
fn small_trees_with_checkpoints_that_fail() {
    stress(512, 6, PolicyKind::Midpoint, 12, rounds(5_000), true);
}

#[test]
fn more_small_trees_than_frames_with_checkpoints_that_fail() {
    stress(96, 60, PolicyKind::S3Fifo, 13, rounds(5_000), true);
}
