//! Every workload runs, small, on an engine that is right, and is refused on one that is not.

use std::path::Path;
use std::time::Duration;

use bedstone_benches::bedstone::Bedstone;
use bedstone_benches::btreemap::{StdMap, StdReader};
use bedstone_benches::data::Batch;
use bedstone_benches::{
    Contender, Durability, Effective, Engine, Plan, Reads, Result, Settings, Sizes, Stand, Workload, conform,
    report, run_rounds,
};

fn settings() -> Settings {
    Settings {
        durability: Durability::Relaxed,
        reads: Reads::Long,
        cache_bytes: 16 << 20,
        max_bytes: 1 << 30,
        threads: 2,
        random_reads_from_disk: false,
        require_io: None,
    }
}

fn sizes() -> Sizes {
    Sizes {
        entries: 3_000,
        ops: 2_000,
        warm_ops: 200,
        threads: 2,
        batch: 700,
        commit_for: Duration::from_millis(5),
        ..Sizes::default()
    }
}

fn run<E: Engine>(workload: Workload) -> Result<String> {
    let dir = tempfile::tempdir()?;
    let mut contender: Box<dyn Contender> = Box::new(Stand::<E>::new("", dir.path(), settings(), |_| Ok(())));
    // What a map without a disk holds is gone when it is closed.
    if workload == Workload::LargerThanMemory && E::NAME == StdMap::NAME {
        return Ok(String::new());
    }
    contender.prepare(workload.store(), &sizes())?;
    let plan = Plan::new(workload, &sizes())?;
    let mut contenders = vec![contender];
    let outcomes = run_rounds(&mut contenders, &plan, 2)?;
    contenders[0].finish()?;
    Ok(report::outcomes(&plan, &outcomes, E::NAME))
}

/// Figures are of the way of I/O that was meant: a benchmark that requires another than the one in effect does not
/// run, and each report says which it was.
#[test]
fn figures_are_of_the_mode_of_io_that_was_required() {
    let open = |required: &str| {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { require_io: Some(required.into()), ..settings() };
        Bedstone::open(dir.path(), &settings).and_then(|engine| engine.effective())
    };
    let error = open("no such mode").unwrap_err().to_string();
    assert!(error.contains("the I/O mode is") && error.contains("no such mode"), "{error}");
    // One of the two is in effect, and the other one is refused.
    let (uring, pread) = (open("Uring,"), open("Pread,"));
    assert_eq!(uring.is_ok() as u32 + pread.is_ok() as u32, 1, "{uring:?}, {pread:?}");
    let name = if uring.is_ok() { "Uring" } else { "Pread" };
    let effective = format!("{:?}", uring.or(pread).unwrap());
    assert!(effective.contains(name), "{effective}");
}

#[test]
fn a_map_answers_rightly_in_every_workload() {
    for workload in Workload::ALL {
        let table = run::<StdMap>(workload).unwrap_or_else(|error| panic!("{}: {error}", workload.name()));
        assert!(workload == Workload::LargerThanMemory || table.contains("| btreemap |"), "{table}");
    }
}

#[test]
fn bedstone_answers_rightly_in_every_workload() {
    for workload in Workload::ALL {
        let table = run::<Bedstone>(workload).unwrap_or_else(|error| panic!("{}: {error}", workload.name()));
        assert!(table.contains("| bedstone |"), "{table}");
    }
}

#[test]
fn bedstone_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conform::conform::<Bedstone>(dir.path(), &settings(), true).unwrap();
}

/// Loses the first entry of every batch.
struct Lossy(StdMap);

impl Engine for Lossy {
    const NAME: &'static str = "lossy";
    type Reader<'a> = StdReader<'a>;

    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        StdMap::open(dir, settings).map(Self)
    }
    fn read<R>(&self, body: impl FnOnce(&mut StdReader<'_>) -> Result<R>) -> Result<R> {
        self.0.read(body)
    }
    fn put(&self, _key: &[u8], _value: &[u8]) -> Result<()> {
        Ok(())
    }
    fn put_batch(&self, batch: &Batch) -> Result<()> {
        batch.iter().skip(1).try_for_each(|(key, value)| self.0.put(key, value))
    }
    fn delete(&self, key: &[u8]) -> Result<()> {
        self.0.delete(key)
    }
    fn settle(&self) -> Result<()> {
        self.0.settle()
    }
    fn effective(&self) -> Result<Effective> {
        self.0.effective()
    }
    fn close(self) -> Result<()> {
        self.0.close()
    }
}

#[test]
fn lost_entries_are_noticed() {
    // Other workloads may happen not to ask for the key that is lost.
    for workload in
        [Workload::Scan, Workload::InsertRandom, Workload::InsertAscending, Workload::CommitDurable]
    {
        assert!(run::<Lossy>(workload).is_err(), "{} did not notice", workload.name());
    }
}

#[test]
fn a_map_conforms_and_a_lossy_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    conform::conform::<StdMap>(dir.path(), &settings(), false).unwrap();
    let dir = tempfile::tempdir().unwrap();
    assert!(conform::conform::<Lossy>(dir.path(), &settings(), false).is_err());
}
