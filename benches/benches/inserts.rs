//! Batches into a store that grows, without waiting for the disk.

mod common;

use std::time::{Duration, Instant};

use bedstone_benches::{DataSet, Durability, Engine, KeyOrder};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Entries after which a new store is begun.
const LARGEST: u64 = 2_000_000;

fn inserts(criterion: &mut Criterion) {
    for (name, order) in [("insert random", KeyOrder::Random), ("insert ascending", KeyOrder::Ascending)] {
        let mut group = criterion.benchmark_group(name);
        group.sample_size(20);
        for len in [100, 1_000, 10_000] {
            group.throughput(Throughput::Elements(len));
            group.bench_with_input(BenchmarkId::from_parameter(len), &len, |bencher, &len| {
                let data = DataSet::new(1, order, 150);
                let mut store = common::open(Durability::Relaxed);
                let mut at = 0;
                bencher.iter_custom(|batches| {
                    let mut took = Duration::ZERO;
                    for _ in 0..batches {
                        if at + len > LARGEST {
                            store = common::open(Durability::Relaxed);
                            at = 0;
                        }
                        let batch = data.batch(at..at + len);
                        at += len;
                        let begin = Instant::now();
                        match order {
                            KeyOrder::Random => store.0.put_batch(&batch),
                            KeyOrder::Ascending => store.0.append_batch(&batch),
                        }
                        .expect("the batch is stored");
                        took += begin.elapsed();
                    }
                    took
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, inserts);
criterion_main!(benches);
