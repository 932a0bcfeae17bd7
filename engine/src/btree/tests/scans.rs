//! Ranges from both ends while the tree changes, and read-ahead.

use super::harness::*;
use crate::btree::BuildGate;
use crate::btree::chaos::disturb_this_thread;
use bedstone_bufpool::Background;
use bedstone_io::Disk;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn load(tree: crate::btree::Tree, pool: &bedstone_bufpool::Pool, numbers: impl Iterator<Item = u64>) {
    let batch: BTreeMap<Vec<u8>, Option<Vec<u8>>> =
        numbers.map(|n| (n.to_be_bytes().to_vec(), Some(vec![n as u8; 100]))).collect();
    apply(tree, pool, &BuildGate::new(256), &batch, 2).unwrap();
}

/// Lets the writers end.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Every key that is there all the time is given exactly once, by one end or the other, while splits and
/// merges go on.
#[test]
fn both_ends_meet_while_others_write() {
    let (_sim, pool, tree) = fresh_with_small_nodes(1, 1024);
    load(tree, &pool, (0..2000).map(|n| n * 16));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also when an assertion fails.
        let _stop = StopAtEnd(&stop);
        for thread in 1..3 {
            let (pool, stop) = (&pool, &stop);
            scope.spawn(move || {
                disturb_this_thread(thread);
                let gate = BuildGate::new(1024);
                let mut rng = Rng(thread);
                while !stop.load(Ordering::Relaxed) {
                    let at = rng.below(1900) * 16;
                    for n in (at..at + 800).filter(|n| n % 16 == thread) {
                        put(tree, pool, &gate, &n.to_be_bytes(), &[1; 200], 3).unwrap();
                    }
                    for n in (at..at + 800).filter(|n| n % 16 == thread) {
                        delete(tree, pool, &n.to_be_bytes(), 4).unwrap();
                    }
                }
            });
        }
        disturb_this_thread(99);
        let mut rng = Rng(7);
        for round in 0..15 {
            let mut scan = tree.scan(&pool, Unbounded, Unbounded);
            let (mut front, mut back) = (Vec::new(), Vec::new());
            let share = round % 5;
            loop {
                let from_back = rng.below(4) < share;
                let entry = if from_back { scan.next_back() } else { scan.next() };
                let Some(entry) = entry.unwrap() else { break };
                let n = u64::from_be_bytes(entry.key.try_into().unwrap());
                if from_back { back.push(n) } else { front.push(n) }
            }
            back.reverse();
            front.extend(back);
            assert!(front.is_sorted_by(|a, b| a < b), "strictly ascending over both ends, round {round}");
            let kept: Vec<u64> = front.into_iter().filter(|n| n % 16 == 0).collect();
            assert!(kept == (0..2000).map(|n| n * 16).collect::<Vec<_>>(), "round {round}");
        }
    });
}

/// A thread that has written a key finds it by a scan that begins before it, in whatever state the splits of
/// other threads are: a leaf in the middle of its split still has the old state of what became the right
/// half.
#[test]
fn scans_see_what_their_thread_wrote() {
    let (_sim, pool, tree) = fresh_with_small_nodes(2, 1024);
    load(tree, &pool, (0..400).map(|n| n * 64));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        for thread in 1..3 {
            let (pool, stop) = (&pool, &stop);
            scope.spawn(move || {
                disturb_this_thread(thread);
                let gate = BuildGate::new(1024);
                let mut rng = Rng(thread);
                while !stop.load(Ordering::Relaxed) {
                    let at = rng.below(390) * 64;
                    for n in (at..at + 200).filter(|n| n % 8 == thread) {
                        put(tree, pool, &gate, &n.to_be_bytes(), &[1; 300], 3).unwrap();
                    }
                    for n in (at..at + 200).filter(|n| n % 8 == thread) {
                        delete(tree, pool, &n.to_be_bytes(), 4).unwrap();
                    }
                }
            });
        }
        disturb_this_thread(98);
        let gate = BuildGate::new(1024);
        let mut rng = Rng(8);
        for round in 0..1500u64 {
            let key = rng.below(400) * 64;
            put(tree, &pool, &gate, &key.to_be_bytes(), &round.to_be_bytes(), 5).unwrap();
            let far = key.saturating_sub(rng.below(200)).to_be_bytes();
            let until = (key + 1).to_be_bytes();
            let mut scan = tree.scan(&pool, Excluded(&far), Excluded(&until));
            let entry = if round % 2 == 0 {
                let mut last = None;
                while let Some(entry) = scan.next().unwrap() {
                    last = Some((entry.key.to_vec(), entry.value.value_len()));
                }
                last
            } else {
                scan.next_back().unwrap().map(|entry| (entry.key.to_vec(), entry.value.value_len()))
            };
            if far != key.to_be_bytes() {
                assert_eq!(entry, Some((key.to_be_bytes().to_vec(), 8)), "round {round}");
                assert_eq!(get(tree, &pool, &key.to_be_bytes()).unwrap().unwrap(), round.to_be_bytes());
            }
        }
    });
}

/// A scan of pages on disk reads many at a time, forward and backward, and no more than there are.
#[test]
fn scans_read_ahead() {
    let (sim, pool, tree) = fresh(1, 4096, 1024, Background::Manual);
    load(tree, &pool, 0..10_000);
    checkpoint(&pool, 2);
    let leaves = tree.stats(&pool).unwrap().leaf_pages;
    assert!(leaves > 250);
    drop(pool);
    for forward in [true, false] {
        let disk: Arc<dyn Disk> = sim.reopen();
        let pool = open_pool(&disk, 4096, 1024, Background::Manual);
        let mut scan = tree.scan(&pool, Unbounded, Unbounded);
        let mut count = 0;
        while if forward { scan.next() } else { scan.next_back() }.unwrap().is_some() {
            count += 1;
        }
        assert_eq!(count, 10_000);
        let stats = pool.stats();
        assert!(stats.page_reads <= leaves + 10, "{} reads of {leaves} leaves", stats.page_reads);
        assert!(stats.read_batches * 8 < leaves, "{} batches for {leaves} leaves", stats.read_batches);
    }
    // A few entries at the beginning of a range are no reason to read ahead.
    let disk: Arc<dyn Disk> = sim.reopen();
    let pool = open_pool(&disk, 4096, 1024, Background::Manual);
    let from = 5000u64.to_be_bytes();
    let mut scan = tree.scan(&pool, Excluded(&from), Unbounded);
    for n in 5001u64..5003 {
        assert_eq!(scan.next().unwrap().unwrap().key, n.to_be_bytes());
    }
    assert!(pool.stats().page_reads <= 4);
}

/// An entry's pin outlives the scan and later changes of its leaf.
#[test]
fn pins_of_entries_stay() {
    let (_sim, pool, tree) = fresh(1, 4096, 256, Background::Manual);
    load(tree, &pool, 0..100);
    let mut kept = Vec::new();
    let mut scan = tree.scan(&pool, Unbounded, Unbounded);
    while let Some(entry) = scan.next().unwrap() {
        let n = u64::from_be_bytes(entry.key.try_into().unwrap());
        let (pin, range) = scan.front_pin().unwrap();
        kept.push((n, pin.clone(), range));
    }
    drop(scan);
    for n in 0..100u64 {
        delete(tree, &pool, &n.to_be_bytes(), 3).unwrap();
    }
    for (n, pin, range) in kept {
        assert_eq!(pin[range], vec![n as u8; 100]);
    }
}
