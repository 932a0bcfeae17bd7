//! One-entry transactions, each durable when it returns, from one thread and from several.

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use bedstone_benches::{DataSet, Durability, Engine, KeyOrder};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn commits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("durable commit");
    group.sample_size(20);
    group.throughput(Throughput::Elements(1));
    for threads in [1, 8] {
        group.bench_with_input(BenchmarkId::new("threads", threads), &threads, |bencher, &threads| {
            let (engine, dir) = common::open(Durability::Durable);
            let data = DataSet::new(1, KeyOrder::Random, 150);
            let index = AtomicU64::new(0);
            bencher.iter_custom(|commits| {
                let left = AtomicU64::new(commits);
                let begin = Instant::now();
                thread::scope(|scope| {
                    for _ in 0..threads {
                        scope.spawn(|| {
                            let mut value = Vec::new();
                            let take = |left: u64| left.checked_sub(1);
                            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                                let index = index.fetch_add(1, Ordering::Relaxed);
                                value.clear();
                                data.push_value(index, &mut value);
                                engine.put(&data.key(index), &value).expect("the commit succeeds");
                            }
                        });
                    }
                });
                begin.elapsed()
            });
            engine.close().expect("the store closes");
            drop(dir);
        });
    }
    group.finish();
}

criterion_group!(benches, commits);
criterion_main!(benches);
