//! The writes of a transaction: against a model, in memory and moved out of it.

use super::*;
use crate::shared::Shared;
use crate::txn::write_set::{SavepointId, Side, UnknownSavepoint, WriteSet};
use bedstone_io::sim::CutMode;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

type Keys = BTreeMap<(u32, Vec<u8>), Option<Vec<u8>>>;
type Entries = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Layers as they are meant to be: one for each savepoint, over one at the bottom.
#[derive(Default)]
struct Model {
    base: Keys,
    savepoints: Vec<(SavepointId, Keys)>,
}

impl Model {
    fn put(&mut self, table: u32, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.savepoints.last_mut().map_or(&mut self.base, |(_, keys)| keys).insert((table, key), value);
    }

    fn flat(&self) -> Keys {
        let mut flat = self.base.clone();
        for (_, keys) in &self.savepoints {
            flat.extend(keys.clone());
        }
        flat
    }

    fn range(flat: &Keys, table: u32, lower: &Bound<Vec<u8>>, upper: &Bound<Vec<u8>>) -> Entries {
        let within = |key: &Vec<u8>| {
            let low = match lower {
                Bound::Unbounded => true,
                Bound::Included(b) => key >= b,
                Bound::Excluded(b) => key > b,
            };
            let high = match upper {
                Bound::Unbounded => true,
                Bound::Included(b) => key <= b,
                Bound::Excluded(b) => key < b,
            };
            low && high
        };
        let of = |((t, key), value): (&(u32, Vec<u8>), &Option<Vec<u8>>)| {
            (*t == table && within(key)).then(|| (key.clone(), value.clone()))
        };
        flat.iter().filter_map(of).collect()
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }

    fn key(&mut self, keys: u64) -> Vec<u8> {
        match self.below(20) {
            0 => vec![],
            1 => vec![0; self.below(12) as usize],
            2 => [key(self.below(keys)), vec![b'x'; 300]].concat(),
            3..=5 => self.below(keys).to_be_bytes()[5..].to_vec(),
            _ => key(self.below(keys)),
        }
    }

    fn value(&mut self, longest: u64) -> Option<Vec<u8>> {
        let len = match self.below(20) {
            0..=3 => return None,
            4 => 0,
            5 => longest,
            6 => 900 + self.below(400),
            _ => self.below(60),
        };
        Some((0..len.min(longest)).map(|i| (i * 7 + len) as u8).collect())
    }

    fn bound(&mut self, keys: u64) -> Bound<Vec<u8>> {
        match self.below(4) {
            0 => Bound::Unbounded,
            1 => Bound::Excluded(self.key(keys)),
            _ => Bound::Included(self.key(keys)),
        }
    }
}

fn owned((key, value): (&[u8], Option<&[u8]>)) -> (Vec<u8>, Option<Vec<u8>>) {
    (key.to_vec(), value.map(<[u8]>::to_vec))
}

fn all(shared: &Shared, set: &WriteSet) -> Keys {
    let mut found = Keys::new();
    for table in set.tables() {
        let mut scan = set.scan(shared, table, Bound::Unbounded, Bound::Unbounded);
        while scan.advance(Side::Front).unwrap() {
            let (key, value) = owned(scan.current(Side::Front));
            assert!(found.insert((table, key), value).is_none(), "a key twice");
        }
    }
    found
}

/// Compares everything that the set says with the model.
fn compare(shared: &Shared, set: &WriteSet, model: &Model, random: &mut Random, keys: u64, what: &str) {
    let flat = model.flat();
    assert_eq!(set.is_empty(), flat.is_empty(), "{what}");
    assert!(set.len() >= flat.len(), "{what}");
    let tables: BTreeSet<u32> = flat.keys().map(|(table, _)| *table).collect();
    assert_eq!(set.tables(), tables.iter().copied().collect::<Vec<_>>(), "{what}");
    for _ in 0..20 {
        let (table, key) = (1 + random.below(4) as u32, random.key(keys));
        let found = set.get(shared, table, &key).unwrap().map(|v| v.map(|v| v.into_owned()));
        assert_eq!(found.as_ref(), flat.get(&(table, key)), "{what}");
    }
    for table in 1..=4 {
        let (lower, upper) = (random.bound(keys), random.bound(keys));
        let expected = Model::range(&flat, table, &lower, &upper);
        let bounds = (lower.as_ref().map(Vec::as_slice), upper.as_ref().map(Vec::as_slice));
        // Both ends go all the way, each for itself, in turns that chance decides.
        let mut scan = set.scan(shared, table, bounds.0, bounds.1);
        let (mut front, mut back) = (Entries::new(), Entries::new());
        let mut left = vec![Side::Front, Side::Back];
        while !left.is_empty() {
            let at = random.below(left.len() as u64) as usize;
            let side = left[at];
            for _ in 0..random.below(6) {
                if !scan.advance(side).unwrap() {
                    assert!(!scan.advance(side).unwrap());
                    left.remove(at);
                    break;
                }
                let entry = owned(scan.current(side));
                if side == Side::Front { front.push(entry) } else { back.push(entry) }
            }
        }
        back.reverse();
        assert_eq!(front, expected, "{what}: table {table}, {lower:?} to {upper:?}");
        assert_eq!(back, expected, "{what}: table {table}, {lower:?} to {upper:?}, from the back");
    }
}

fn steps(db: &Database, seed: u64, budget: usize, count: u64) {
    let shared = db.shared();
    let what = |n: u64| format!("seed {seed}, budget {budget}, step {n}");
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let keys = [30, 2000][seed as usize % 2];
    let longest = [2000, 30_000][seed as usize / 2 % 2];
    let (mut set, mut model) = (WriteSet::new(budget), Model::default());
    let mut gone = Vec::new();
    for n in 0..count {
        match random.below(40) {
            0..=1 if model.savepoints.len() < 7 => model.savepoints.push((set.savepoint(), Keys::new())),
            2 if !model.savepoints.is_empty() => {
                let at = random.below(model.savepoints.len() as u64) as usize;
                set.rollback_to(shared, model.savepoints[at].0).unwrap();
                gone.extend(model.savepoints.drain(at + 1..).map(|(id, _)| id));
                model.savepoints[at].1.clear();
            }
            3..=4 if !model.savepoints.is_empty() => {
                let at = random.below(model.savepoints.len() as u64) as usize;
                set.release(model.savepoints[at].0).unwrap();
                let later: Vec<_> = model.savepoints.drain(at..).collect();
                for (id, keys) in later {
                    model.savepoints.last_mut().map_or(&mut model.base, |(_, below)| below).extend(keys);
                    gone.push(id);
                }
            }
            5 if let Some(id) = gone.last() => {
                assert_eq!(set.rollback_to(shared, *id), Err(UnknownSavepoint));
                assert_eq!(set.release(*id), Err(UnknownSavepoint));
            }
            6 => compare(shared, &set, &model, &mut random, keys, &what(n)),
            7 if random.below(8) == 0 => drop(db.checkpoint().unwrap()),
            8 => {
                let from = random.below(keys);
                for i in from..from + random.below(40) {
                    set.put(shared, 1, &key(i), Some(&value(n, 30))).unwrap();
                    model.put(1, key(i), Some(value(n, 30)));
                }
            }
            _ => {
                let (table, key, value) =
                    (1 + random.below(3) as u32, random.key(keys), random.value(longest));
                set.put(shared, table, &key, value.as_deref()).unwrap();
                model.put(table, key, value);
            }
        }
        if budget > 1 << 20 {
            assert!(!set.is_spilled());
            if model.savepoints.is_empty() {
                let bytes = model.base.iter().map(|((_, k), v)| k.len() + v.as_ref().map_or(0, Vec::len));
                assert!(set.memory() >= bytes.sum::<usize>());
                assert_eq!(set.len(), model.base.len(), "{}", what(n));
            }
        } else if budget == 0 {
            assert_eq!(set.memory(), 0);
        }
    }
    compare(shared, &set, &model, &mut random, keys, &what(count));
    assert_clean(db);
    let flat = model.flat();
    set.release_all();
    assert_eq!(all(shared, &set), flat);
    if !set.is_spilled() {
        let found: Keys =
            set.in_memory().unwrap().map(|(t, k, v)| ((t, k.to_vec()), v.map(<[u8]>::to_vec))).collect();
        assert_eq!(found, flat);
    } else {
        assert!(set.in_memory().is_none());
    }
    set.clear(shared);
    assert!(set.is_empty() && !set.is_spilled() && set.memory() == 0 && set.tables().is_empty());
}

#[test]
fn a_set_is_what_the_model_says() {
    const BUDGETS: [usize; 6] = [0, 100, 4 << 10, 40 << 10, 400 << 10, 1 << 40];
    let disk = SimDisk::new(5);
    let db = create(&disk);
    let pages = db.check().unwrap().pages;
    for seed in 0..72 {
        let budget = BUDGETS[seed as usize % BUDGETS.len()];
        steps(&db, seed, budget, if budget == 0 { 300 } else { 600 });
        db.checkpoint().unwrap();
        let report = db.check().unwrap();
        assert_eq!(report.pages, pages, "seed {seed}: everything was given back");
    }
}

#[test]
fn memory_stays_within_the_budget() {
    let disk = SimDisk::new(6);
    let db = create(&disk);
    let shared = db.shared();
    for budget in [16 << 10, 100 << 10, 1 << 20] {
        let mut set = WriteSet::new(budget);
        let mut most = 0;
        for i in 0..20_000u64 {
            set.put(shared, 1, &key(i * 7919 % 20_000), Some(&value(i, 40))).unwrap();
            most = most.max(set.memory());
        }
        assert!(set.is_spilled());
        // The last block may stand out.
        assert!(most <= budget * 2 + (8 << 10), "{most} bytes for a budget of {budget}");
        assert_eq!(all(shared, &set).len(), 20_000);
        set.clear(shared);
    }
    // Overwriting the same keys again and again takes no more and more.
    let mut set = WriteSet::new(usize::MAX);
    for i in 0..50_000 {
        set.put(shared, 1, &key(i % 10), Some(&value(i, (i % 300) as usize))).unwrap();
    }
    assert!(set.memory() < 400 << 10, "{} bytes for ten keys", set.memory());
    assert_eq!(set.len(), 10);
    db.step().unwrap();
    assert_clean(&db);
}

#[test]
fn ascending_descending_and_shuffled_keys_of_many_chunks() {
    let disk = SimDisk::new(7);
    let db = create(&disk);
    let shared = db.shared();
    let orders: [fn(u64) -> u64; 3] = [|i| i, |i| 4999 - i, |i| i * 3001 % 5000];
    for order in orders {
        let mut set = WriteSet::new(usize::MAX);
        let first = set.savepoint();
        for i in 0..5000 {
            set.put(shared, 1 + (i % 2) as u32, &key(order(i)), Some(&value(order(i), 10))).unwrap();
        }
        let second = set.savepoint();
        for i in 0..5000 {
            set.put(shared, 2, &key(order(i)), None).unwrap();
        }
        let expected = all(shared, &set);
        assert_eq!(expected.iter().filter(|(_, v)| v.is_none()).count(), 5000);
        set.release(second).unwrap();
        assert_eq!(all(shared, &set), expected);
        set.release(first).unwrap();
        assert_eq!(all(shared, &set), expected);
        assert_eq!(set.in_memory().unwrap().count(), expected.len());
        assert_eq!(set.len(), expected.len());
    }
}

#[test]
fn savepoints_without_writes_cost_no_layer_and_can_be_rolled_back_to_again() {
    let disk = SimDisk::new(8);
    let db = create(&disk);
    let shared = db.shared();
    for budget in [0, 1 << 20] {
        let mut set = WriteSet::new(budget);
        let a = set.savepoint();
        let b = set.savepoint();
        set.put(shared, 1, b"k", Some(b"1")).unwrap();
        let c = set.savepoint();
        let d = set.savepoint();
        set.put(shared, 1, b"k", None).unwrap();
        set.rollback_to(shared, d).unwrap();
        assert_eq!(set.get(shared, 1, b"k").unwrap().unwrap().unwrap(), &b"1"[..]);
        set.put(shared, 1, b"k", Some(b"2")).unwrap();
        set.rollback_to(shared, c).unwrap();
        assert_eq!(set.rollback_to(shared, d), Err(UnknownSavepoint));
        assert_eq!(set.get(shared, 1, b"k").unwrap().unwrap().unwrap(), &b"1"[..]);
        set.rollback_to(shared, b).unwrap();
        assert!(set.is_empty());
        set.put(shared, 1, b"k", Some(b"3")).unwrap();
        set.rollback_to(shared, a).unwrap();
        assert!(set.is_empty() && set.get(shared, 1, b"k").unwrap().is_none());
        set.put(shared, 1, b"k", Some(b"4")).unwrap();
        set.release(a).unwrap();
        assert_eq!(set.release(a), Err(UnknownSavepoint));
        assert_eq!(all(shared, &set).len(), 1);
        set.clear(shared);
    }
}

/// A set with moved writes of every kind.
fn spilled(shared: &Shared) -> WriteSet {
    let mut set = WriteSet::new(8 << 10);
    for i in 0..400 {
        set.put(shared, 1 + (i % 3) as u32, &key(i), Some(&value(i, [20, 700, 9000][i as usize / 7 % 3])))
            .unwrap();
        if i % 100 == 50 {
            set.savepoint();
        }
    }
    assert!(set.is_spilled());
    set
}

#[test]
fn a_crash_leaves_nothing_of_a_set() {
    for mode in [CutMode::Random, CutMode::Drop, CutMode::Keep] {
        for checkpoint in [false, true] {
            let what = format!("{mode:?}, checkpoint {checkpoint}");
            let disk = SimDisk::new(9);
            let db = create(&disk);
            let table = db.table("t").unwrap();
            table.put(b"k", b"v").unwrap();
            let pages = db.check().unwrap().pages;
            let set = spilled(db.shared());
            if checkpoint {
                db.checkpoint().unwrap();
            }
            table.put(b"k", b"w").unwrap();
            assert_clean(&db);
            let cut = disk.fork_cut(mode, 9);
            let opened = reopen(&cut);
            let report = opened.check().unwrap();
            assert!(report.is_clean(), "{what}: {:#?}", report.problems);
            assert_eq!(report.pages, pages, "{what}");
            assert_eq!(opened.table("t").unwrap().get(b"k").unwrap().unwrap(), b"w", "{what}");
            for _ in 0..3 {
                opened.table("t").unwrap().put(b"k", b"x").unwrap();
                opened.checkpoint().unwrap();
            }
            let report = opened.check().unwrap();
            assert!(report.is_clean(), "{what}: {:#?}", report.problems);
            assert!(opened.shared().catalog.change().tombstones.is_empty(), "{what}");
            opened.close().unwrap();
            assert_clean(&reopen(&cut));
            drop(set);
        }
    }
}

/// A transaction that spills between commits and checkpoints, up to the first error.
fn busy(disk: &Arc<SimDisk>) -> crate::Result<()> {
    let db = small(disk).open_or_create(DIR)?;
    let table = db.table("t")?;
    for round in 0..3 {
        let mut set = WriteSet::new(2 << 10);
        for i in 0..150 {
            let value = value(i, [20, 700, 9000][i as usize / 5 % 3]);
            set.put(db.shared(), 1 + (i % 2) as u32, &key(i), Some(&value))?;
            if i % 40 == 10 {
                set.savepoint();
                table.put(key(0), key(i))?;
            }
            if i == 20 + 50 * round {
                db.checkpoint()?;
            }
        }
        if round == 1 {
            set.clear(db.shared());
            db.step()?;
        }
    }
    db.close()
}

#[test]
fn a_cut_at_any_operation_leaves_nothing_of_a_set() {
    for mode in [CutMode::Random, CutMode::Drop, CutMode::Keep] {
        let mut cuts = 0;
        for cut in 30.. {
            let what = format!("{mode:?}, cut at operation {cut}");
            let disk = SimDisk::new(cut);
            disk.set_cut_after(cut, mode);
            if busy(&disk).is_ok() && disk.is_powered() {
                break;
            }
            cuts += 1;
            let disk = disk.reopen();
            let db = small(&disk).open_or_create(DIR).unwrap();
            let report = db.check().unwrap();
            assert!(report.is_clean(), "{what}: {:#?}", report.problems);
            // The catalog and the table have two pages each.
            assert_eq!(report.pages, 2 + 2 * report.tables.len() as u64, "{what}");
            db.table("after").unwrap();
            db.close().unwrap();
            assert_clean(&reopen(&disk));
        }
        assert!(cuts > 50, "the script has too few operations: {cuts} cuts");
    }
}

#[test]
fn a_set_that_is_just_dropped_is_given_back_by_the_next_upkeep() {
    let disk = SimDisk::new(10);
    let db = create(&disk);
    let pages = db.check().unwrap().pages;
    drop(spilled(db.shared()));
    assert!(db.check().unwrap().pages > pages);
    db.step().unwrap();
    let report = db.check().unwrap();
    assert_eq!((report.pages, report.is_clean()), (pages, true));
}

#[test]
fn a_full_disk_leaves_a_set_as_it_was() {
    let disk = SimDisk::new(11);
    let db = create(&disk);
    let shared = db.shared();
    let (mut set, mut model) = (WriteSet::new(64 << 10), Keys::new());
    disk.set_capacity(Some(disk.used() + (1 << 20)));
    let mut failures = 0;
    let savepoint = set.savepoint();
    for i in 0..3000 {
        let (k, v) = (key(i * 17 % 3000), value(i, [30, 1500, 6000][i as usize % 3]));
        match set.put(shared, 1, &k, Some(&v)) {
            Ok(()) => drop(model.insert((1, k), Some(v))),
            Err(e) if e.is_no_space() => failures += 1,
            Err(e) => panic!("{e}"),
        }
        if failures > 5 {
            break;
        }
    }
    assert!(failures > 0, "the disk was meant to be too small");
    assert_eq!(all(shared, &set), model);
    set.rollback_to(shared, savepoint).unwrap();
    db.checkpoint().unwrap();
    disk.set_capacity(None);
    assert_clean(&db);
    set.put(shared, 1, b"k", Some(b"v")).unwrap();
    assert_eq!(all(shared, &set).len(), 1);
}
