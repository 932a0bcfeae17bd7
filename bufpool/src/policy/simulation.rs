//! Hit rates of the policies on synthetic traces, the evictor working in batches with reference bits as in the pool.

use std::collections::HashMap;

use lru::LruCache;

use super::{Midpoint, Policy, S3Fifo};
use crate::Access;
use crate::header::PageId;

const PAGES: u32 = 20_000;
const BATCH: usize = 16;
const SEED: u64 = 0x5eed_0001;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Cumulated probabilities of ranks under Zipf's law with exponent 0.99.
fn zipf() -> Vec<f64> {
    let mut sum = 0.0;
    let mut cumulated: Vec<f64> = Vec::new();
    for rank in 1..=PAGES {
        sum += 1.0 / f64::from(rank).powf(0.99);
        cumulated.push(sum);
    }
    cumulated.iter().map(|part| part / sum).collect()
}

/// Look-ups by Zipf's law; if `scans`, a fifth of all accesses are ranges of 500 to 4,000 pages in order.
fn trace(accesses: usize, scans: bool) -> Vec<(PageId, Access)> {
    let mut random = Random(SEED);
    let cumulated = zipf();
    let mut trace = Vec::new();
    while trace.len() < accesses {
        if scans && random.below(9_000) == 0 {
            let start = random.below(u64::from(PAGES));
            let length = 500 + random.below(3_500);
            let page = |step| PageId(((start + step) % u64::from(PAGES)) as u32 + 1);
            trace.extend((0..length).map(|step| (page(step), Access::Scan)));
        }
        let draw = random.unit();
        let rank = cumulated.partition_point(|&part| part < draw) as u64;
        // An odd factor scatters the ranks over the pages: neighbours in a scan are not equally hot.
        let page = (rank * 7_919) % u64::from(PAGES) + 1;
        trace.push((PageId(page as u32), Access::Point));
    }
    trace
}

/// Share of the look-ups (not of the scans' accesses) that find their page resident, the first quarter left out.
fn hit_rate(policy: &mut dyn Policy, frames: usize, trace: &[(PageId, Access)]) -> f64 {
    let mut bits: HashMap<PageId, bool> = HashMap::new();
    let (mut hits, mut lookups) = (0_u64, 0_u64);
    for (number, &(page, access)) in trace.iter().enumerate() {
        let counted = number >= trace.len() / 4 && access == Access::Point;
        lookups += u64::from(counted);
        if let Some(bit) = bits.get_mut(&page) {
            *bit |= access == Access::Point;
            hits += u64::from(counted);
            continue;
        }
        if bits.len() >= frames {
            let mut victims = Vec::new();
            let mut take = |page: PageId| bits.get_mut(&page).is_some_and(std::mem::take);
            policy.victims(BATCH, &mut take, &mut victims);
            for victim in victims {
                bits.remove(&victim);
                policy.evicted(victim);
            }
        }
        bits.insert(page, false);
        policy.admitted(page, access);
        assert!(bits.len() <= frames);
    }
    hits as f64 / lookups as f64
}

fn lru_hit_rate(frames: usize, trace: &[(PageId, Access)]) -> f64 {
    let mut cache = LruCache::unbounded();
    let (mut hits, mut lookups) = (0_u64, 0_u64);
    for (number, &(page, access)) in trace.iter().enumerate() {
        let counted = number >= trace.len() / 4 && access == Access::Point;
        lookups += u64::from(counted);
        hits += u64::from(cache.put(page, ()).is_some() && counted);
        if cache.len() > frames {
            cache.pop_lru();
        }
    }
    hits as f64 / lookups as f64
}

#[test]
fn both_policies_resist_scans() {
    for scans in [false, true] {
        let trace = trace(400_000, scans);
        for percent in [10, 30] {
            let frames = PAGES as usize * percent / 100;
            let lru = lru_hit_rate(frames, &trace);
            let midpoint = hit_rate(&mut Midpoint::new(frames), frames, &trace);
            let s3fifo = hit_rate(&mut S3Fifo::new(frames), frames, &trace);
            println!(
                "zipf 0.99, scans: {scans}, pool {percent} %: LRU {:.1}, midpoint {:.1}, S3-FIFO {:.1} % (seed {SEED:#x})",
                lru * 100.0,
                midpoint * 100.0,
                s3fifo * 100.0
            );
            assert!(s3fifo >= lru, "S3-FIFO {s3fifo} is worse than LRU {lru}, seed {SEED:#x}");
            if scans {
                assert!(midpoint >= lru, "midpoint {midpoint} is worse than LRU {lru}, seed {SEED:#x}");
            }
        }
    }
}
