//! What a checkpoint and a power cut after it leave of operations in progress: no page that nothing refers
//! to, no reference to a missing page.

use super::harness::*;
use crate::btree::{BuildGate, NewValue, PreparedOverflow, Stamp, Tree, Write};
use bedstone_bufpool::{Background, CheckpointParams, Pool};
use bedstone_io::Disk;
use bedstone_io::sim::{CutMode, SimDisk};
use std::sync::Arc;

const PAGE: usize = 4096;
const FRAMES: usize = 256;

/// A checkpoint now, and what is found after a power cut.
fn after_checkpoint(sim: &SimDisk, pool: &Pool, mode: CutMode, seed: u64) -> Pool {
    checkpoint(pool, 1);
    let disk: Arc<dyn Disk> = sim.fork_cut(mode, seed);
    open_pool(&disk, PAGE, FRAMES, Background::Manual)
}

/// A long value, checkpointed before it is begun, when it is referred to, and when it is gone; by the gate
/// there can be no checkpoint in between.
#[test]
fn long_values_are_there_wholly_or_not_at_all() {
    for early in [false, true] {
        let (sim, pool, tree) = fresh(1, PAGE, FRAMES, Background::Manual);
        let gate = BuildGate::new(FRAMES);
        let value = Rng(1).bytes(if early { 400_000 } else { 12_000 });
        let len = value.len() as u64;
        assert_eq!(gate.needs_pass(PAGE, len), early);
        let pass = early.then(|| gate.enter());
        let built = PreparedOverflow::build(&pool, TABLE, len, &mut &value[..], pass.as_ref()).unwrap();
        drop(pass);
        if early {
            assert!(gate.try_close().is_none(), "a checkpoint would find pages of nobody");
        } else {
            assert_same(TREE, &after_checkpoint(&sim, &pool, CutMode::Drop, 1), &Model::new());
        }
        let mut write = Write::Put(NewValue::Overflow(built));
        let mut reserve = pool.reserve(4).unwrap();
        tree.write(&pool, &mut reserve, b"key", &mut write, &mut || Stamp::Lsn(2), &mut Vec::new()).unwrap();
        drop((write, reserve));
        assert!(gate.try_close().is_some());
        let mut model = Model::from([(b"key".to_vec(), value)]);
        assert_same(TREE, &after_checkpoint(&sim, &pool, CutMode::Drop, 2), &model);
        // Replaced by a short one, then deleted; somebody still reads the long one.
        let found = tree.get(&pool, b"key").unwrap();
        put(tree, &pool, &gate, b"key", b"short", 3).unwrap();
        model.insert(b"key".to_vec(), b"short".to_vec());
        assert_same(TREE, &after_checkpoint(&sim, &pool, CutMode::Drop, 3), &model);
        drop(found);
        assert_same(TREE, &after_checkpoint(&sim, &pool, CutMode::Drop, 4), &model);
        assert_same(tree, &pool, &model);
    }
}

/// Pages of a freed value that somebody still reads are pushed out of the pool before the checkpoint that
/// says they are free.
#[test]
fn freed_pages_that_are_evicted_stay_freed() {
    let (sim, pool, tree) = fresh(1, PAGE, 64, Background::Manual);
    let gate = BuildGate::new(64);
    let mut model = Model::new();
    for round in 0..4u64 {
        let value = Rng(round).bytes(60_000);
        put(tree, &pool, &gate, b"long", &value, 10 + round).unwrap();
        if round % 2 == 0 {
            checkpoint(&pool, 1);
        }
        let found = tree.get(&pool, b"long").unwrap();
        assert!(delete(tree, &pool, b"long", 20 + round).unwrap());
        for n in 0..600u64 {
            let (key, value) = ((round * 1000 + n).to_be_bytes().to_vec(), vec![n as u8; 200]);
            put(tree, &pool, &gate, &key, &value, 100).unwrap();
            model.insert(key, value);
        }
        assert_same(TREE, &after_checkpoint(&sim, &pool, CutMode::Random, round), &model);
        drop(found);
        assert_same(TREE, &after_checkpoint(&sim, &pool, CutMode::Random, round), &model);
    }
    assert_same(tree, &pool, &model);
}

/// A checkpoint between any two steps of taking a tree down: the next opening goes on with it.
#[test]
fn taking_a_tree_down_goes_on_after_a_crash() {
    let (mut sim, mut pool, _) = fresh(1, PAGE, FRAMES, Background::Manual);
    let gate = BuildGate::new(FRAMES);
    let mut reserve = pool.reserve(8).unwrap();
    let (tree, pages) = Tree::create(&pool, &mut reserve, TABLE);
    let mut write = Write::Put(NewValue::Inline(b"root"));
    TREE.write(&pool, &mut reserve, b"table", &mut write, &mut || Stamp::Lsn(2), &mut Vec::from(pages))
        .unwrap();
    drop((write, reserve));
    let mut rng = Rng(9);
    for lsn in 3..700 {
        let key = [&rng.next().to_be_bytes()[..], &[b'k'; 400]].concat();
        let len = if rng.below(20) == 0 { 9000 } else { 100 };
        put(tree, &pool, &gate, &key, &rng.bytes(len), lsn).unwrap();
    }
    let mut crashes = 0;
    loop {
        let mut reserve = pool.reserve(8).unwrap();
        let mut steps = rng.below(4);
        let mut between = || {
            steps = steps.wrapping_sub(1);
            steps != u64::MAX
        };
        let done = tree.free_all(&pool, &mut reserve, &mut between).unwrap();
        drop(reserve);
        if done {
            break;
        }
        checkpoint(&pool, 1);
        // Steps after the checkpoint are lost with the power.
        let mut reserve = pool.reserve(8).unwrap();
        let mut steps = rng.below(3);
        let mut between = || {
            steps = steps.wrapping_sub(1);
            steps != u64::MAX
        };
        tree.free_all(&pool, &mut reserve, &mut between).unwrap();
        drop(reserve);
        let next = sim.fork_cut(CutMode::Random, rng.next());
        let disk: Arc<dyn Disk> = next.clone();
        pool = open_pool(&disk, PAGE, FRAMES, Background::Manual);
        sim = next;
        crashes += 1;
        assert!(crashes < 2000);
    }
    assert!(crashes > 10);
    let model = Model::from([(b"table".to_vec(), b"root".to_vec())]);
    assert_same(TREE, &after_checkpoint(&sim, &pool, CutMode::Random, 1), &model);
}

/// Operations of one epoch are in its checkpoint wholly, those of the next one not at all, with pages coming
/// and going.
#[test]
fn checkpoints_cut_between_operations() {
    for seed in 0..4 {
        let (sim, pool, tree) = fresh(seed, PAGE, 128, Background::Manual);
        let gate = BuildGate::new(128);
        let mut rng = Rng(seed);
        let mut model = Model::new();
        for round in 0..12 {
            let mut step = |model: &mut Model| {
                let key = (rng.below(3000) * 7919).to_be_bytes().to_vec();
                let value = vec![rng.next() as u8; rng.below(400) as usize];
                if rng.below(4) > 0 {
                    put(tree, &pool, &gate, &key, &value, 5).unwrap();
                    model.insert(key, value);
                } else {
                    assert_eq!(delete(tree, &pool, &key, 5).unwrap(), model.remove(&key).is_some());
                }
            };
            (0..200).for_each(|_| step(&mut model));
            let then = model.clone();
            let mut checkpoint = pool.begin_checkpoint().unwrap();
            (0..20).for_each(|_| step(&mut model));
            checkpoint.write_pages().unwrap();
            (0..20).for_each(|_| step(&mut model));
            checkpoint.finish(CheckpointParams { replay_lsn: 1, log_end: 1 }).unwrap();
            let disk: Arc<dyn Disk> = sim.fork_cut(CutMode::Drop, round);
            assert_same(TREE, &open_pool(&disk, PAGE, 128, Background::Manual), &then);
        }
        assert_same(tree, &pool, &model);
    }
}
