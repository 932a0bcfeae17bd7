//! One thread, every page size: random page operations, checkpoints, failures and power cuts. After each cut the store
//! must hold exactly what the last completed checkpoint held (or, if the cut hit a checkpoint, the one under way).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use bedstone_io::Op;
use bedstone_io::sim::{CutMode, Phase, SimDisk, TraceDisk};

use super::*;

/// A small generator: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

type Model = BTreeMap<PageId, u64>;

fn content(pool: &Pool) -> Model {
    pool.live_pages().into_iter().map(|id| (id, value_of(&pin(pool, id).unwrap(), id))).collect()
}

fn life(seed: u64) {
    let mut random = Random(seed);
    let page_size = 4096 << random.below(5);
    let policy = if random.below(2) == 0 { PolicyKind::S3Fifo } else { PolicyKind::Midpoint };
    let config = config(64 + random.below(64) as usize, page_size, Background::Manual, policy);
    let mut disk = formatted(seed, page_size);
    let mut durable = Model::new();
    for _ in 0..3 {
        let pool = open(&disk, &config).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(content(&pool), durable, "seed {seed}: after opening");
        assert_sound(&pool, seed);
        let mut now = durable.clone();
        // What a checkpoint that the cut interrupted may have made durable.
        let mut perhaps = None;
        let cut = random.below(3) > 0;
        if cut {
            disk.set_cut_after(1 + random.below(400), CutMode::Random);
        }
        let mut result = Ok(());
        for _ in 0..300 + random.below(300) {
            let some = |random: &mut Random| {
                let at = random.below(now.len().max(1) as u64) as usize;
                now.keys().nth(at).copied()
            };
            result = match random.below(20) {
                0..=6 => {
                    let value = random.next() >> 40;
                    create(&pool, value).map(|id| {
                        assert!(now.insert(id, value).is_none(), "seed {seed}: {id} given out twice");
                    })
                }
                7..=14 => some(&mut random).map_or(Ok(()), |id| {
                    let value = random.next() >> 40;
                    change(&pool, id, value).map(|before| {
                        assert_eq!(now.insert(id, value), Some(before), "seed {seed}: {id}");
                    })
                }),
                15..=16 => some(&mut random).map_or(Ok(()), |id| {
                    pin(&pool, id).map(|pin| assert_eq!(value_of(&pin, id), now[&id], "seed {seed}: {id}"))
                }),
                17 => some(&mut random).map_or(Ok(()), |id| {
                    free(&pool, id)
                        .map(|before| assert_eq!(now.remove(&id), Some(before), "seed {seed}: {id}"))
                }),
                18 if random.below(4) == 0 => {
                    // A write that fails once: the checkpoint is given up, nothing is lost.
                    disk.fail_nth(OpKind::Write, 1 + random.below(3), Fault::Eio, Repeat::Once);
                    let outcome = checkpoint(&pool);
                    disk.clear_faults();
                    match outcome {
                        Ok(()) => durable = now.clone(),
                        Err(_) if disk.is_powered() && pool.failed().is_none() => {}
                        Err(error) => {
                            perhaps = Some(now.clone());
                            result = Err(error);
                            break;
                        }
                    }
                    Ok(())
                }
                _ => match checkpoint(&pool) {
                    Ok(()) => {
                        durable = now.clone();
                        Ok(())
                    }
                    Err(error) => {
                        perhaps = Some(now.clone());
                        Err(error)
                    }
                },
            };
            if result.is_err() {
                break;
            }
        }
        if let Err(error) = &result
            && disk.is_powered()
            && pool.failed().is_none()
        {
            panic!("seed {seed}: {error}");
        }
        disk.cancel_cut();
        if result.is_ok() {
            assert_eq!(content(&pool), now, "seed {seed}: before the end");
            assert_sound(&pool, seed);
            if checkpoint(&pool).is_ok() {
                assert_settled(&pool, seed);
                durable = now;
            }
        }
        drop(pool);
        if disk.is_powered() {
            disk.power_cut(CutMode::Random);
        }
        disk = disk.reopen();
        if let Some(perhaps) = perhaps {
            let pool = open(&disk, &config).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            let found = content(&pool);
            assert!(
                found == durable || found == perhaps,
                "seed {seed}: neither the old nor the new checkpoint"
            );
            durable = found;
        }
    }
}

#[test]
fn a_power_cut_leaves_the_last_checkpoint() {
    for seed in 0..150 {
        life(seed);
    }
}

/// Every single cut point of a fixed run that creates, changes, checkpoints.
#[test]
fn every_cut_point_of_a_checkpoint() {
    let config = config(64, 4096, Background::Manual, PolicyKind::S3Fifo);
    let run = |disk: &Arc<SimDisk>| -> Result<(Model, Model)> {
        let pool = open(disk, &config)?;
        let mut first = Model::new();
        for value in 0..100 {
            first.insert(create(&pool, value)?, value);
        }
        checkpoint(&pool)?;
        let mut second = first.clone();
        for (&id, value) in second.iter_mut().step_by(3) {
            *value += 1000;
            change(&pool, id, *value)?;
        }
        let gone: Vec<PageId> = first.keys().copied().skip(1).step_by(7).collect();
        for id in gone {
            free(&pool, id)?;
            second.remove(&id);
        }
        checkpoint(&pool)?;
        Ok((first, second))
    };
    let disk = formatted(1, 4096);
    let before = disk.ops();
    let (first, second) = run(&disk).unwrap();
    let ops = disk.ops() - before;
    for cut in 1..=ops {
        let disk = formatted(cut, 4096);
        disk.set_cut_after(cut, CutMode::Random);
        drop(run(&disk));
        let disk = disk.reopen();
        let pool = open(&disk, &config).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        let found = content(&pool);
        assert!(found.is_empty() || found == first || found == second, "cut at {cut}");
        assert_sound(&pool, cut);
        checkpoint(&pool).unwrap();
    }
}

/// A superblock named a length of the file that no sync had covered: another thread made room in the file between the
/// checkpoint's sync and its superblock. With the superblock on the medium and the length not, the store did not open
/// any more.
#[test]
fn a_superblock_counts_on_no_room_made_after_the_sync_before_it() {
    let config = config(64, 4096, Background::Manual, PolicyKind::S3Fifo);
    for seed in 0..40 {
        let disk = formatted(seed, 4096);
        let traced = TraceDisk::new(disk.clone());
        let pool = Pool::open(&(traced.clone() as Arc<dyn Disk>), Path::new(FILE), &config).unwrap();
        let pool = Arc::new(pool);
        let pages: Vec<_> = (0..20).map(|value| (create(&pool, value).unwrap(), value)).collect();
        let (grown, cut) = (AtomicBool::new(false), disk.clone());
        let grows = Arc::downgrade(&pool);
        traced.on_op(move |phase, event| {
            let first = |done: &AtomicBool| !done.swap(true, Ordering::Relaxed);
            if phase == Phase::After && event.op == Op::Sync && event.is_on("data") && first(&grown) {
                grows.upgrade().unwrap().shared().grow(1).unwrap();
            } else if phase == Phase::Before && event.op == Op::Sync && grown.load(Ordering::Relaxed) {
                // A superblock is written, and its sync is about to begin.
                cut.power_cut(CutMode::Random);
            }
        });
        checkpoint(&pool).unwrap_err();
        drop(pool);
        let pool = open(&disk.reopen(), &config).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let found = content(&pool);
        assert!(found.is_empty() || found.into_iter().eq(pages), "seed {seed}");
    }
}
