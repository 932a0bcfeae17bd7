//! Reads from a store whose data lies in the pool.

mod common;

use std::hint::black_box;

use bedstone_benches::bedstone::Bedstone;
use bedstone_benches::data::Rng;
use bedstone_benches::plan::{fold_in_order, touch};
use bedstone_benches::zipf::Zipf;
use bedstone_benches::{DataSet, Durability, Engine, KeyOrder, Reader, measure};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const SEED: u64 = 1;
/// Keys drawn beforehand; the benchmark goes round and round them.
const DRAWN: usize = 1 << 16;

struct Loaded {
    engine: Bedstone,
    data: DataSet,
    entries: u64,
    _dir: tempfile::TempDir,
}

fn loaded() -> Loaded {
    let entries = if common::is_smoke_test() { 5_000 } else { 1_000_000 };
    let (engine, dir) = common::open(Durability::Relaxed);
    let data = DataSet::new(SEED, KeyOrder::Random, 150);
    measure::load(&engine, &data, entries).expect("the entries are stored");
    engine.settle().expect("the checkpoint is made");
    Loaded { engine, data, entries, _dir: dir }
}

fn drawn(mut draw: impl FnMut() -> u64) -> impl FnMut() -> u64 {
    let indexes: Vec<u64> = (0..DRAWN).map(|_| draw()).collect();
    let mut at = 0;
    move || {
        at = (at + 1) % DRAWN;
        indexes[at]
    }
}

fn reads(criterion: &mut Criterion) {
    let Loaded { engine, data, entries, _dir } = loaded();
    let mut rng = Rng::new(SEED);

    let mut group = criterion.benchmark_group("get");
    group.throughput(Throughput::Elements(1));
    let mut evenly = drawn(|| rng.below(entries));
    group.bench_function("evenly", |bencher| get(bencher, &engine, &data, &mut evenly));
    let zipf = Zipf::new(entries, Zipf::THETA);
    let mut rng = Rng::new(SEED);
    let mut skewed = drawn(|| zipf.item(&mut rng));
    group.bench_function("zipf", |bencher| get(bencher, &engine, &data, &mut skewed));
    let mut absent = drawn({
        let mut index = entries;
        move || {
            index += 1;
            index
        }
    });
    group.bench_function("absent", |bencher| {
        let found = engine.read(|reader| {
            bencher.iter(|| reader.get(&data.key(absent()), touch).expect("the read succeeds"));
            Ok(())
        });
        found.expect("the reader opens");
    });
    group.finish();

    let mut group = criterion.benchmark_group("multi_get");
    for len in [8, 32, 128] {
        group.throughput(Throughput::Elements(len));
        group.bench_with_input(BenchmarkId::from_parameter(len), &len, |bencher, &len| {
            let read = engine.read(|reader| {
                bencher.iter(|| {
                    let keys: Vec<_> = (0..len).map(|_| data.key(evenly())).collect();
                    let slices: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
                    let mut sum = 0;
                    reader.multi_get(&slices, |_, value| sum += touch(value)).expect("the read succeeds");
                    sum
                });
                Ok(())
            });
            read.expect("the reader opens");
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("scan");
    group.throughput(Throughput::Elements(entries));
    group.sample_size(20);
    group.bench_function("all", |bencher| {
        let read = engine.read(|reader| {
            bencher.iter(|| {
                let mut sum = 0;
                reader.scan(|_, value| sum = fold_in_order(sum, touch(value))).expect("the scan succeeds");
                sum
            });
            Ok(())
        });
        read.expect("the reader opens");
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("seek, then 100", |bencher| {
        let read = engine.read(|reader| {
            bencher.iter(|| {
                let mut sum = 0;
                let from = data.key(evenly());
                reader
                    .seek_scan(&from, 100, |_, value| sum = fold_in_order(sum, touch(value)))
                    .expect("it succeeds");
                sum
            });
            Ok(())
        });
        read.expect("the reader opens");
    });
    group.finish();
    engine.close().expect("the store closes");
}

fn get(
    bencher: &mut criterion::Bencher<'_>,
    engine: &Bedstone,
    data: &DataSet,
    next: &mut impl FnMut() -> u64,
) {
    let read = engine.read(|reader| {
        bencher.iter(|| {
            let found = reader.get(&data.key(next()), touch).expect("the read succeeds");
            black_box(found.expect("the key is there"))
        });
        Ok(())
    });
    read.expect("the reader opens");
}

criterion_group!(benches, reads);
criterion_main!(benches);
