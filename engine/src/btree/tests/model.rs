//! Random operations against a `BTreeMap`: all page sizes, pools so small that pages come and go, checkpoints
//! in between, and after some of them a look at what a power cut would leave.

use super::harness::*;
use crate::btree::BuildGate;
use crate::btree::node::{CellValue, limits};
use bedstone_bufpool::{Background, CheckpointParams};
use bedstone_io::Disk;
use bedstone_io::sim::CutMode;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// How keys and values of a run look.
struct Shape {
    keys: u64,
    long_keys: bool,
    max_value: u64,
    overflow: bool,
}

fn key(rng: &mut Rng, shape: &Shape, max_key: usize) -> Vec<u8> {
    let n = rng.below(shape.keys);
    let mut key = match n % 4 {
        0 => format!("{n:08}").into_bytes(),
        1 => [&b"a common beginning of some length/"[..], &n.to_be_bytes()].concat(),
        2 => vec![(n % 256) as u8; (n % 24) as usize],
        _ => [&[0xff, 0, 0xff][..], &n.to_be_bytes()[4..]].concat(),
    };
    if shape.long_keys && n.is_multiple_of(3) {
        let mut filler = Rng(n);
        let len = filler.below(max_key as u64) as usize;
        key.extend(filler.bytes(len));
    }
    key.truncate(max_key);
    key
}

fn value(rng: &mut Rng, shape: &Shape, page_size: usize) -> Vec<u8> {
    let max = if shape.overflow && rng.below(12) == 0 {
        // Now and then one that is longer than the unpublished pages of a small pool.
        page_size as u64 * if rng.below(6) == 0 { 12 } else { 3 }
    } else {
        shape.max_value
    };
    let len = rng.below(max + 1) as usize;
    rng.bytes(len)
}

fn run(seed: u64, page_size: usize, frames: usize, steps: usize, shape: &Shape) {
    println!("seed {seed}, pages of {page_size}, {frames} frames");
    let mut rng = Rng(seed);
    let (sim, pool, tree) = fresh(seed, page_size, frames, Background::Manual);
    let gate = BuildGate::new(frames);
    let max_key = limits(page_size).max_key;
    let mut model = Model::new();
    // A checkpoint under way: what the tree held when it began.
    let mut under_way = None;
    for step in 0..steps {
        let lsn = step as u64 + 2;
        match rng.below(100) {
            0..50 => {
                let (key, value) = (key(&mut rng, shape, max_key), value(&mut rng, shape, page_size));
                let existed = put(tree, &pool, &gate, &key, &value, lsn).unwrap();
                assert_eq!(existed, model.insert(key, value).is_some());
            }
            50..75 => {
                let key = key(&mut rng, shape, max_key);
                assert_eq!(delete(tree, &pool, &key, lsn).unwrap(), model.remove(&key).is_some());
            }
            75..85 => {
                let key = key(&mut rng, shape, max_key);
                assert_eq!(get(tree, &pool, &key).unwrap().as_ref(), model.get(&key));
            }
            85..90 => {
                let keys: Vec<_> = (0..rng.below(70)).map(|_| key(&mut rng, shape, max_key)).collect();
                let mut answers = vec![None; keys.len()];
                tree.multi_get(&pool, &keys, |i, found| {
                    assert!(answers[i].is_none(), "one answer a key");
                    answers[i] = Some(found.map(|found| bytes_of(tree, &pool, found).unwrap()));
                })
                .unwrap();
                for (key, answer) in keys.iter().zip(answers) {
                    assert_eq!(answer.expect("an answer for every key").as_ref(), model.get(key));
                }
            }
            90..94 => {
                let mut batch = BTreeMap::new();
                for _ in 0..rng.below(40) {
                    let value = (rng.below(3) > 0).then(|| rng.bytes(30));
                    batch.insert(key(&mut rng, shape, max_key), value);
                }
                apply(tree, &pool, &gate, &batch, lsn).unwrap();
                for (key, value) in batch {
                    match value {
                        Some(value) => drop(model.insert(key, value)),
                        None => drop(model.remove(&key)),
                    }
                }
            }
            94..97 => scan(&mut rng, tree, &pool, &model, |rng| key(rng, shape, max_key)),
            _ => match under_way.take() {
                None => {
                    let closed = gate.try_close().expect("nobody builds");
                    under_way = Some((pool.begin_checkpoint().unwrap(), model.clone(), lsn));
                    drop(closed);
                }
                Some((mut checkpoint, then, lsn)) => {
                    checkpoint.write_pages().unwrap();
                    checkpoint.finish(CheckpointParams { replay_lsn: lsn, log_end: lsn }).unwrap();
                    if rng.below(4) == 0 {
                        let after: Arc<dyn Disk> = sim.fork_cut(CutMode::Random, rng.next());
                        let pool = open_pool(&after, page_size, frames, Background::Manual);
                        assert_same(TREE, &pool, &then);
                    }
                }
            },
        }
    }
    drop(under_way);
    assert_same(tree, &pool, &model);
    // Emptied again, the tree is small again.
    for (i, key) in model.keys().enumerate() {
        assert!(delete(tree, &pool, key, (steps + i) as u64).unwrap());
    }
    assert_same(tree, &pool, &Model::new());
    assert!(pool.live_pages().len() <= 2 + model.len() / 16, "{} pages are left", pool.live_pages().len());
}

/// A random range, walked from both ends in a random pattern.
fn scan(
    rng: &mut Rng,
    tree: crate::btree::Tree,
    pool: &bedstone_bufpool::Pool,
    model: &Model,
    mut key: impl FnMut(&mut Rng) -> Vec<u8>,
) {
    let mut bound = |rng: &mut Rng| match rng.below(3) {
        0 => Bound::Unbounded,
        1 => Bound::Included(key(rng)),
        _ => Bound::Excluded(key(rng)),
    };
    let (lower, upper) = (bound(rng), bound(rng));
    let expected: Vec<_> = model
        .iter()
        .filter(|(key, _)| match &lower {
            Bound::Unbounded => true,
            Bound::Included(from) => *key >= from,
            Bound::Excluded(from) => *key > from,
        })
        .filter(|(key, _)| match &upper {
            Bound::Unbounded => true,
            Bound::Included(to) => *key <= to,
            Bound::Excluded(to) => *key < to,
        })
        .collect();
    let mut scan = tree.scan(pool, lower.as_ref().map(Vec::as_slice), upper.as_ref().map(Vec::as_slice));
    let (mut front, mut back) = (0, expected.len());
    let backward = rng.below(4);
    loop {
        let from_back = rng.below(3) < backward;
        let entry = if from_back { scan.next_back().unwrap() } else { scan.next().unwrap() };
        let Some(entry) = entry else { break };
        let (expected_key, expected_value) = if from_back {
            back -= 1;
            expected[back]
        } else {
            front += 1;
            expected[front - 1]
        };
        assert_eq!(entry.key, expected_key);
        let value = match entry.value {
            CellValue::Inline(bytes) => bytes.to_vec(),
            CellValue::Overflow(value) => {
                let reader = if from_back { scan.back_reader(value) } else { scan.front_reader(value) };
                reader.unwrap().read_all().unwrap_or_else(|error| panic!("{error}: {:?}", pool.stats()))
            }
        };
        assert_eq!(&value, expected_value);
        assert!(front <= back);
    }
    assert_eq!(front, back, "every entry of {lower:?} to {upper:?} was given once");
    for from_back in [false, true, false] {
        let more = if from_back { scan.next_back().unwrap() } else { scan.next().unwrap() };
        assert!(
            more.is_none(),
            "{:?} after the end of {lower:?} to {upper:?}",
            more.map(|entry| entry.key.to_vec())
        );
    }
}

#[test]
fn short_keys_and_values() {
    let shape = Shape { keys: 3000, long_keys: false, max_value: 60, overflow: false };
    for (seed, page_size) in [(1, 4096), (2, 8192), (3, 16384)] {
        run(seed, page_size, 64, 12_000, &shape);
    }
}

#[test]
fn keys_and_values_of_all_lengths() {
    for (seed, page_size) in [(11, 4096), (12, 8192), (13, 16384), (14, 32768), (15, 65536)] {
        let max_value = limits(page_size).max_inline_cell as u64;
        let shape = Shape { keys: 800, long_keys: true, max_value, overflow: false };
        // A batch may prepare a page for each of its values.
        run(seed, page_size, 192, 2_500, &shape);
    }
}

#[test]
fn values_in_overflow_pages() {
    for (seed, page_size) in [(21, 4096), (22, 16384)] {
        let shape = Shape { keys: 400, long_keys: true, max_value: 500, overflow: true };
        run(seed, page_size, 128, 4_000, &shape);
    }
}

#[test]
fn the_longest_keys() {
    // Nodes with two or three separators: every split is at the limit.
    for seed in 31..34 {
        let shape = Shape { keys: 3 * 90, long_keys: true, max_value: 16, overflow: false };
        let page_size = 4096;
        println!("seed {seed}");
        let mut rng = Rng(seed);
        let (_, pool, tree) = fresh(seed, page_size, 96, Background::Manual);
        let gate = BuildGate::new(96);
        let max_key = limits(page_size).max_key;
        let mut model = Model::new();
        for step in 0..1500u64 {
            let mut key = key(&mut rng, &shape, 8);
            let mut filler = Rng(key.iter().map(|&b| u64::from(b)).sum());
            let len = if rng.below(4) == 0 { filler.below(max_key as u64) as usize } else { max_key };
            // Long common beginnings, so that separators are as long as keys.
            let mut long = vec![b'x'; len.saturating_sub(key.len())];
            long.append(&mut key);
            if rng.below(3) > 0 {
                let value = rng.bytes(16);
                put(tree, &pool, &gate, &long, &value, step + 2).unwrap();
                model.insert(long, value);
            } else {
                assert_eq!(delete(tree, &pool, &long, step + 2).unwrap(), model.remove(&long).is_some());
            }
        }
        assert_same(tree, &pool, &model);
    }
}

/// Many more seeds than the others: run by hand, with `--ignored`.
#[test]
#[ignore = "takes minutes"]
fn soak() {
    for seed in 1000..1200 {
        let mut rng = Rng(seed);
        let page_size = 4096 << rng.below(5);
        let shape = Shape {
            keys: 100 << rng.below(7),
            long_keys: rng.below(2) == 0,
            max_value: limits(page_size).max_inline_cell as u64 >> rng.below(8),
            overflow: rng.below(3) == 0,
        };
        run(
            seed,
            page_size,
            160 + rng.below(3) as usize * 100,
            3_000 + 4_000 * rng.below(6) as usize,
            &shape,
        );
    }
}
