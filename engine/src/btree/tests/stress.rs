//! Several threads on one tree. Every value begins with its key; every thread knows exactly what its own keys
//! hold, some keys are there all the time, and a checkpointer looks now and again at what a power cut would
//! leave.

use super::harness::*;
use crate::btree::chaos::disturb_this_thread;
use crate::btree::node::CellValue;
use crate::btree::{BuildGate, Tree};
use bedstone_bufpool::{Background, CheckpointParams, Pool, PoolError};
use bedstone_io::Disk;
use bedstone_io::sim::{CutMode, SimDisk};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

struct World {
    pool: Pool,
    gate: BuildGate,
    tree: Tree,
    sim: Arc<SimDisk>,
    page_size: usize,
    frames: usize,
    lsn: AtomicU64,
    stop: AtomicBool,
    keys: u64,
    /// Longest value, in bytes; above the limit of a leaf it goes to overflow pages.
    max_value: u64,
}

/// Keys whose number is divisible by this are put at the beginning and never deleted.
const PERMANENT: u64 = 8;

fn key(n: u64) -> Vec<u8> {
    match n % 3 {
        0 => format!("permanent and other keys/{n:06}").into_bytes(),
        1 => (n as u32).to_be_bytes().to_vec(),
        _ => [&[0x80; 12][..], &(n as u32).to_be_bytes()].concat(),
    }
}

fn value(key: &[u8], rng: &mut Rng, max: u64) -> Vec<u8> {
    let len = if rng.below(16) == 0 { rng.below(max + 1) } else { rng.below(100) };
    let mut value = key.to_vec();
    value.resize(key.len() + len as usize, rng.next() as u8);
    value
}

impl World {
    fn lsn(&self) -> u64 {
        self.lsn.fetch_add(1, Ordering::Relaxed)
    }

    fn work(&self, thread: u64, threads: u64, seed: u64, steps: usize, mine: &Model) -> Model {
        let mut rng = Rng(seed ^ thread << 32);
        disturb_this_thread(seed * 1000 + thread + 1);
        let mut mine = mine.clone();
        let own = |rng: &mut Rng| rng.below(self.keys / threads) * threads + thread;
        for step in 0..steps {
            let n = own(&mut rng);
            let key = key(n);
            match rng.below(20) {
                0..8 => {
                    let value = value(&key, &mut rng, self.max_value);
                    let existed = put(self.tree, &self.pool, &self.gate, &key, &value, self.lsn()).unwrap();
                    assert_eq!(existed, mine.insert(key, value).is_some(), "key {n}, step {step}");
                }
                8..13 => {
                    if n % PERMANENT != 0 {
                        let existed = delete(self.tree, &self.pool, &key, self.lsn()).unwrap();
                        assert_eq!(existed, mine.remove(&key).is_some(), "key {n}, step {step}");
                    }
                }
                13..16 => {
                    let found = get(self.tree, &self.pool, &key).unwrap();
                    assert_eq!(found.as_ref(), mine.get(&key), "key {n}, step {step}");
                }
                16 => {
                    let keys: Vec<_> = (0..40).map(|_| self::key(rng.below(self.keys))).collect();
                    self.tree
                        .multi_get(&self.pool, &keys, |i, found| {
                            if let Some(found) = found {
                                let value = bytes_of(self.tree, &self.pool, found).unwrap();
                                assert!(value.starts_with(&keys[i]));
                            }
                        })
                        .unwrap();
                }
                17 => {
                    let mut batch = BTreeMap::new();
                    let from = own(&mut rng);
                    for i in 0..rng.below(30) {
                        let n =
                            if rng.below(2) == 0 { (from + i * threads) % self.keys } else { own(&mut rng) };
                        if n % threads != thread {
                            continue;
                        }
                        let key = self::key(n);
                        let keep = n % PERMANENT == 0 || rng.below(3) > 0;
                        batch.insert(key.clone(), keep.then(|| [&key[..], b" from a batch"].concat()));
                    }
                    apply(self.tree, &self.pool, &self.gate, &batch, self.lsn()).unwrap();
                    for (key, value) in batch {
                        match value {
                            Some(value) => drop(mine.insert(key, value)),
                            None => drop(mine.remove(&key)),
                        }
                    }
                }
                _ => self.scan(&mut rng, &mine, threads, thread),
            }
        }
        mine
    }

    /// A scan over some hundred keys, forward or backward: own keys are as they are known, permanent ones are
    /// all there.
    fn scan(&self, rng: &mut Rng, mine: &Model, threads: u64, thread: u64) {
        let (a, b) = (key(rng.below(self.keys)), key(rng.below(self.keys)));
        let (lower, upper) = if a <= b { (a, b) } else { (b, a) };
        let forward = rng.below(2) == 0;
        let mut scan = self.tree.scan(&self.pool, Bound::Included(&lower), Bound::Excluded(&upper));
        let mut seen = Vec::new();
        while let Some(entry) = if forward { scan.next().unwrap() } else { scan.next_back().unwrap() } {
            let key = entry.key.to_vec();
            let value = match entry.value {
                CellValue::Inline(bytes) => bytes.to_vec(),
                CellValue::Overflow(value) => {
                    let reader = if forward { scan.front_reader(value) } else { scan.back_reader(value) };
                    reader.unwrap().read_all().unwrap()
                }
            };
            assert!(value.starts_with(&key));
            seen.push((key, value));
        }
        if !forward {
            seen.reverse();
        }
        assert!(seen.is_sorted_by(|a, b| a.0 < b.0), "keys ascend strictly");
        assert!(seen.iter().all(|(key, _)| *key >= lower && *key < upper));
        let seen: Model = seen.into_iter().collect();
        for key in (0..self.keys).step_by(PERMANENT as usize).map(key) {
            if key >= lower && key < upper {
                assert!(seen.contains_key(&key), "a key that is there all the time");
            }
        }
        for key in (0..self.keys).filter(|n| n % threads == thread).map(key) {
            if key >= lower && key < upper {
                assert_eq!(seen.get(&key), mine.get(&key), "an own key");
            }
        }
    }

    fn checkpoints(&self, seed: u64) -> usize {
        let mut rng = Rng(seed);
        let mut done = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let checkpoint = {
                let _closed = self.gate.close();
                self.pool.begin_checkpoint()
            };
            let mut checkpoint = checkpoint.unwrap();
            checkpoint.write_pages().unwrap();
            checkpoint.finish(CheckpointParams { replay_lsn: 1, log_end: 1 }).unwrap();
            done += 1;
            if rng.below(3) == 0 {
                let after: Arc<dyn Disk> = self.sim.fork_cut(CutMode::Random, rng.next());
                let pool = open_pool(&after, self.page_size, self.frames, Background::Manual);
                let model = contents(self.tree, &pool).unwrap();
                for (key, value) in &model {
                    assert!(value.starts_with(key));
                }
                assert_same(self.tree, &pool, &model);
            }
        }
        done
    }
}

fn run(seed: u64, page_size: usize, frames: usize, keys: u64, max_value: u64, steps: usize) {
    let (sim, pool, tree) = fresh(seed, page_size, frames, Background::Threads);
    run_on(sim, pool, tree, seed, frames, keys, max_value, steps);
}

#[expect(clippy::too_many_arguments, reason = "they are what differs between the tests")]
fn run_on(
    sim: Arc<SimDisk>,
    pool: Pool,
    tree: Tree,
    seed: u64,
    frames: usize,
    keys: u64,
    max_value: u64,
    steps: usize,
) {
    let page_size = pool.page_size();
    println!("seed {seed}, pages of {page_size}, {frames} frames");
    let world = World {
        pool,
        gate: BuildGate::new(frames),
        tree,
        sim,
        page_size,
        frames,
        lsn: AtomicU64::new(2),
        stop: AtomicBool::new(false),
        keys,
        max_value,
    };
    const THREADS: u64 = 4;
    let mut planted = vec![Model::new(); THREADS as usize];
    for n in (0..keys).step_by(PERMANENT as usize) {
        let key = key(n);
        put(tree, &world.pool, &world.gate, &key, &key, world.lsn()).unwrap();
        planted[(n % THREADS) as usize].insert(key.clone(), key);
    }
    let mut model = Model::new();
    std::thread::scope(|scope| {
        let world = &world;
        let workers: Vec<_> = planted
            .iter()
            .enumerate()
            .map(|(t, mine)| scope.spawn(move || world.work(t as u64, THREADS, seed, steps, mine)))
            .collect();
        let checkpointer = scope.spawn(move || world.checkpoints(seed));
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        world.stop.store(true, Ordering::Relaxed);
        let done = checkpointer.join().expect("the checkpointer ends well");
        assert!(done > 0);
        for result in results {
            model.extend(result.expect("a worker ends well"));
        }
    });
    assert_same(tree, &world.pool, &model);
    assert!(world.pool.failed().is_none());
}

#[test]
fn many_threads_small_values() {
    run(1, 4096, 256, 6000, 100, 1200);
    run(2, 4096, 1024, 20_000, 200, 1000);
}

#[test]
fn many_threads_on_few_leaves() {
    run(3, 4096, 256, 200, 300, 2000);
    run(4, 65536, 128, 2000, 300, 800);
}

/// Many levels, so that inner nodes split and merge all the time.
#[test]
fn many_threads_on_small_nodes() {
    for seed in 7..9 {
        let (sim, pool, tree) = fresh_with_small_nodes(seed, 1024);
        run_on(sim, pool, tree, seed, 1024, 3000, 1000, 800);
    }
}

#[test]
fn many_threads_long_values() {
    run(5, 4096, 1024, 600, 40_000, 500);
}

/// A tree that is dropped while others read it: they get an answer or are told that the root is free.
#[test]
fn readers_of_a_dropped_tree() {
    let (_sim, pool, tree) = fresh(6, 4096, 512, Background::Threads);
    let gate = BuildGate::new(512);
    let keys = 3000;
    for n in 0..keys {
        put(tree, &pool, &gate, &key(n), &key(n), n + 2).unwrap();
    }
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|t| {
                let pool = &pool;
                scope.spawn(move || {
                    disturb_this_thread(t + 1);
                    let mut rng = Rng(t);
                    loop {
                        match tree.get(pool, &key(rng.below(keys))) {
                            Ok(_) => {}
                            Err(PoolError::Free(page)) => {
                                assert_eq!(page, tree.root);
                                return;
                            }
                            // While the tree is being taken down its pages contradict each other.
                            Err(PoolError::Corrupt { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                })
            })
            .collect();
        let mut reserve = pool.reserve(4).unwrap();
        assert!(tree.free_all(&pool, &mut reserve, &mut || true).unwrap());
        for reader in readers {
            reader.join().expect("a reader ends well");
        }
    });
    assert_eq!(pool.live_pages(), []);
}
