//! Several transactions and snapshots at a time against a model that knows what each of them reads and which commits
//! meet a conflict. One thread, decided by the seed alone.
//!
//! `BEDSTONE_INTERLEAVED=from..to` runs other seeds than the usual ones.

use super::*;
use crate::snapshot::SnapshotRange;
use crate::{Durability, Error, Result, Savepoint, Snapshot, Table, Transaction, WriteBatch};
use bedstone_io::sim::CutMode;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::rc::Rc;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;
/// The contents of all tables, by name; no name is used twice.
type State = BTreeMap<String, Rc<Map>>;
type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);
/// A key of a table.
type Place = (String, Vec<u8>);
/// What a transaction has written.
type Writes = BTreeMap<Place, Option<Vec<u8>>>;
type Options = Box<dyn Fn(&Arc<SimDisk>) -> Builder>;

/// A generator for tests (SplitMix64).
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }
}

/// The power was cut.
struct Cut;
type Step<T = ()> = std::result::Result<T, Cut>;

struct Tx {
    tx: Transaction,
    /// Commits made before it began.
    start: u64,
    base: State,
    writes: Writes,
    /// Tables written to, whatever was rolled back since.
    touched: BTreeSet<String>,
    savepoints: Vec<(Savepoint, Writes)>,
    serializable: bool,
    keys: BTreeSet<Place>,
    ranges: Vec<(String, Bounds)>,
}

impl Tx {
    fn map(&self, table: &str) -> Map {
        let mut map = self.base.get(table).map(|map| (**map).clone()).unwrap_or_default();
        for ((name, key), value) in &self.writes {
            if name == table {
                match value {
                    Some(value) => drop(map.insert(key.clone(), value.clone())),
                    None => drop(map.remove(key)),
                }
            }
        }
        map
    }

    fn get(&self, table: &str, key: &[u8]) -> Option<Vec<u8>> {
        match self.writes.get(&(table.to_owned(), key.to_vec())) {
            Some(written) => written.clone(),
            None => self.base.get(table)?.get(key).cloned(),
        }
    }

    fn note(&mut self, table: &str, key: &[u8]) {
        let place = (table.to_owned(), key.to_vec());
        if self.serializable && !self.writes.contains_key(&place) {
            self.keys.insert(place);
        }
    }

    fn note_range(&mut self, table: &str, bounds: &Bounds) {
        if self.serializable {
            self.ranges.push((table.to_owned(), bounds.clone()));
        }
    }
}

struct Snap {
    snapshot: Snapshot,
    base: State,
}

struct Run {
    rng: Rng,
    disk: Arc<SimDisk>,
    options: Options,
    db: Database,
    tables: Vec<Table>,
    now: State,
    /// Commits made.
    seq: u64,
    /// The last commit that wrote each key.
    changed: BTreeMap<Place, u64>,
    dropped: BTreeMap<String, u64>,
    /// Commits that may have set a mark, and from which key on.
    marks: Vec<(u64, String, Vec<u8>)>,
    /// What may be found after a power cut: since the last durable commit.
    survivors: Vec<State>,
    txs: Vec<Tx>,
    snaps: Vec<Snap>,
    names: u64,
    loads: u64,
    context: String,
    conflicts: u64,
    commits: u64,
}

fn lies_in(key: &[u8], (lower, upper): &Bounds) -> bool {
    let above = match lower {
        Bound::Unbounded => true,
        Bound::Included(bound) => key >= &bound[..],
        Bound::Excluded(bound) => key > &bound[..],
    };
    above
        && match upper {
            Bound::Unbounded => true,
            Bound::Included(bound) => key <= &bound[..],
            Bound::Excluded(bound) => key < &bound[..],
        }
}

impl Run {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        let mut rng = Rng(seed);
        let page_size = *rng.of(&[4096, 4096, 4096, 8192, 16384, 65536]);
        let frames = *rng.of(&[128, 192, 256, 400]);
        let small_memory = rng.one_in(3);
        let memory = if small_memory { *rng.of(&[0, 300, 2000, 9000]) } else { 1 << 20 };
        let options = Box::new(move |disk: &Arc<SimDisk>| {
            small(disk).page_size(page_size).pool_bytes(frames * page_size).transaction_memory(memory)
        });
        let db = options(&disk).create(DIR).unwrap();
        let mut run = Self {
            rng,
            disk,
            options,
            db,
            tables: Vec::new(),
            now: State::new(),
            seq: 0,
            changed: BTreeMap::new(),
            dropped: BTreeMap::new(),
            marks: Vec::new(),
            survivors: vec![State::new()],
            txs: Vec::new(),
            snaps: Vec::new(),
            names: 0,
            loads: 0,
            context: String::new(),
            conflicts: 0,
            commits: 0,
        };
        let _ = run.make_table();
        run
    }

    /// What an operation gave, or that the power was cut.
    #[track_caller]
    fn ok<T>(&self, outcome: Result<T>) -> Step<T> {
        match outcome {
            Ok(value) => Ok(value),
            Err(_) if !self.disk.is_powered() => Err(Cut),
            Err(e) => panic!("{}: {e:?}", self.context),
        }
    }

    fn key(&mut self) -> Vec<u8> {
        match self.rng.below(40) {
            0 => Vec::new(),
            n => key(n),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        let lens = [0, 4, 30, 200, 200, 900, 900, 3000, 20_000];
        let most = if self.rng.one_in(4) { lens.len() } else { 6 } as u64;
        value(self.rng.below(1 << 30), lens[self.rng.below(most) as usize])
    }

    fn bounds(&mut self) -> Bounds {
        let mut bound = || match self.rng.below(4) {
            0 => Bound::Unbounded,
            1 => Bound::Excluded(self.key()),
            _ => Bound::Included(self.key()),
        };
        (bound(), bound())
    }

    fn durability(&mut self) -> Durability {
        *self.rng.of(&[Durability::Sync, Durability::Relaxed, Durability::Relaxed, Durability::Buffered])
    }

    fn table(&mut self) -> Option<Table> {
        if self.tables.is_empty() { None } else { Some(self.rng.of(&self.tables).clone()) }
    }

    /// Makes a commit whose outcome is `next`.
    #[track_caller]
    fn commit<T>(
        &mut self,
        next: State,
        changed: impl IntoIterator<Item = Place>,
        durable: bool,
        outcome: Result<T>,
    ) -> Step<T> {
        if outcome.is_err() && !self.disk.is_powered() {
            // It may have been made or not.
            self.survivors.push(next);
            return Err(Cut);
        }
        let value = self.ok(outcome)?;
        self.seq += 1;
        let seq = self.seq;
        self.changed.extend(changed.into_iter().map(|place| (place, seq)));
        if durable {
            self.survivors.clear();
        }
        self.survivors.push(next.clone());
        self.now = next;
        Ok(value)
    }

    fn make_table(&mut self) -> Step {
        if self.tables.len() == 3 {
            return Ok(());
        }
        self.names += 1;
        let name = format!("t{}", self.names);
        let mut next = self.now.clone();
        next.insert(name.clone(), Rc::default());
        let outcome = self.db.create_table(&name);
        let table = self.commit(next, [], true, outcome)?;
        self.tables.push(table);
        Ok(())
    }

    fn drop_table(&mut self) -> Step {
        if self.tables.len() < 2 {
            return Ok(());
        }
        let at = self.rng.below(self.tables.len() as u64) as usize;
        let table = self.tables.swap_remove(at);
        let mut next = self.now.clone();
        next.remove(&table.name());
        let outcome = self.db.drop_table(&table.name());
        assert!(self.commit(next, [], true, outcome)?, "{}", self.context);
        self.dropped.insert(table.name(), self.seq);
        // Handles that others still use.
        for snap in &self.snaps {
            let e = snap.snapshot.get(&table, "x").unwrap_err();
            assert!(matches!(e, Error::TableDropped { .. }), "{}: {e}", self.context);
        }
        Ok(())
    }

    fn autocommit(&mut self) -> Step {
        let Some(table) = self.table() else { return Ok(()) };
        let name = table.name();
        let (key, value) = (self.key(), self.value());
        let place = (name.clone(), key.clone());
        let mut next = self.now.clone();
        let durability = self.durability();
        let sync = durability == Durability::Sync;
        let map = Rc::make_mut(next.get_mut(&name).unwrap());
        match self.rng.below(9) {
            0..4 => {
                map.insert(key.clone(), value.clone());
                let outcome = table.put_with(&key, &value, durability);
                self.commit(next, [place], sync, outcome)?;
            }
            4..6 => {
                let there = map.remove(&key).is_some();
                let outcome = table.delete_with(&key, durability);
                let found = match there {
                    true => self.commit(next, [place], sync, outcome)?,
                    false => self.ok(outcome)?,
                };
                assert_eq!(found, there, "{}", self.context);
            }
            6 => {
                let current = map.get(&key).cloned();
                let right = !self.rng.one_in(3);
                let expected = if right { current.clone() } else { Some(b"something else".to_vec()) };
                let new = (!self.rng.one_in(4)).then_some(value);
                match &new {
                    Some(new) => drop(map.insert(key.clone(), new.clone())),
                    None => drop(map.remove(&key)),
                }
                let outcome = table.compare_and_swap(&key, expected.as_deref(), new.as_deref());
                let swapped = match right && (current.is_some() || new.is_some()) {
                    true => self.commit(next, [place], true, outcome)?,
                    false => self.ok(outcome)?,
                };
                assert_eq!(swapped, right, "{}", self.context);
            }
            _ => self.batch()?,
        }
        Ok(())
    }

    fn batch(&mut self) -> Step {
        let mut batch = WriteBatch::new();
        let mut next = self.now.clone();
        let mut changed = Vec::new();
        for _ in 0..1 + self.rng.below(12) {
            let Some(table) = self.table() else { return Ok(()) };
            let (key, value) = (self.key(), self.value());
            let map = Rc::make_mut(next.get_mut(&table.name()).unwrap());
            changed.push((table.name(), key.clone()));
            if self.rng.one_in(3) {
                batch.delete(&table, &key).unwrap();
                map.remove(&key);
            } else {
                batch.put(&table, &key, &value).unwrap();
                map.insert(key, value);
            }
        }
        let durability = self.durability();
        let outcome = self.db.write_with(batch, durability);
        self.commit(next, changed, durability == Durability::Sync, outcome).map(drop)
    }

    /// Keys behind the last one of a table, more than a batch may have that leaves out history.
    fn load_keys(&mut self) -> Vec<Vec<u8>> {
        self.loads += 1;
        let first = self.loads * 10_000;
        (first..first + 1025 + self.rng.below(200)).map(key).collect()
    }

    fn load(&mut self) -> Step {
        let Some(table) = self.table() else { return Ok(()) };
        if self.loads >= 2 {
            return Ok(());
        }
        let mut keys = self.load_keys();
        if self.rng.one_in(2) {
            // Not behind the last key any more.
            keys.insert(0, self.key());
        }
        let name = table.name();
        if let Some(first) = self.is_behind(&name, keys.first().cloned()) {
            self.marks.push((self.seq + 1, name.clone(), first));
        }
        let mut next = self.now.clone();
        let map = Rc::make_mut(next.get_mut(&name).unwrap());
        let mut batch = WriteBatch::new();
        for key in &keys {
            batch.put(&table, key, b"loaded").unwrap();
            map.insert(key.clone(), b"loaded".to_vec());
        }
        let durability = self.durability();
        let outcome = self.db.write_with(batch, durability);
        let changed = keys.into_iter().map(|key| (name.clone(), key));
        self.commit(next, changed, durability == Durability::Sync, outcome).map(drop)
    }

    /// The first key of a commit if it lies behind all of the table.
    fn is_behind(&self, name: &str, first: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let first = first?;
        let last = self.now.get(name).and_then(|map| map.last_key_value());
        last.is_none_or(|(last, _)| *last < first).then_some(first)
    }

    fn begin(&mut self) -> Step {
        if self.rng.one_in(3) {
            if self.snaps.len() < 6 {
                let outcome = self.db.begin_read();
                let snapshot = self.ok(outcome)?;
                self.snaps.push(Snap { snapshot, base: self.now.clone() });
            }
            return Ok(());
        }
        if self.txs.len() == 6 {
            return Ok(());
        }
        let outcome = self.db.begin_write();
        let tx = self.ok(outcome)?;
        let serializable = self.rng.one_in(2);
        self.txs.push(Tx {
            tx: if serializable { tx.serializable() } else { tx },
            start: self.seq,
            base: self.now.clone(),
            writes: BTreeMap::new(),
            touched: BTreeSet::new(),
            savepoints: Vec::new(),
            serializable,
            keys: BTreeSet::new(),
            ranges: Vec::new(),
        });
        Ok(())
    }

    /// Reads through a snapshot.
    fn read_snapshot(&mut self) -> Step {
        if self.snaps.is_empty() {
            return Ok(());
        }
        let at = self.rng.below(self.snaps.len() as u64) as usize;
        let snap = self.snaps.swap_remove(at);
        if self.rng.one_in(6) {
            return Ok(());
        }
        let Some(table) = self.table() else { return Ok(()) };
        let empty = Rc::default();
        let map = snap.base.get(&table.name()).unwrap_or(&empty);
        for _ in 0..6 {
            let key = self.key();
            let found = self.ok(snap.snapshot.get(&table, &key))?.map(|v| v.to_vec());
            assert_eq!(found.as_ref(), map.get(&key), "{}: snapshot get {key:?}", self.context);
        }
        let keys: Vec<Vec<u8>> = (0..9).map(|_| self.key()).collect();
        let found = self.ok(snap.snapshot.multi_get(&table, &keys))?;
        for (key, value) in keys.iter().zip(&found) {
            assert_eq!(value.as_deref(), map.get(key).map(|v| &v[..]), "{}: multi_get {key:?}", self.context);
        }
        drop(found);
        let bounds = self.bounds();
        let range = snap.snapshot.range::<Vec<u8>>(&table, bounds.clone());
        let range = self.ok(range)?;
        self.walk(range, map, &bounds)?;
        self.snaps.push(snap);
        Ok(())
    }

    /// Walks through a range from both ends, while others write.
    fn walk(&mut self, mut range: SnapshotRange<'_>, map: &Map, bounds: &Bounds) -> Step {
        let expected: Vec<(&Vec<u8>, &Vec<u8>)> = map.iter().filter(|(k, _)| lies_in(k, bounds)).collect();
        let (mut lo, mut hi) = (0, expected.len());
        let (forward, backward) = (self.rng.below(4), self.rng.below(4) + 1);
        let busy = 2 + self.rng.below(30);
        let stop = self.rng.one_in(3).then(|| self.rng.below(60));
        for n in 0.. {
            if stop == Some(n) {
                return Ok(());
            }
            if self.rng.one_in(busy) && n < 40 {
                self.autocommit()?;
            }
            let front = self.rng.below(forward + backward) < forward;
            let found = if self.rng.one_in(2) {
                let next = if front { range.next() } else { range.next_back() };
                self.ok(next.transpose())?.map(|e| (e.key().to_vec(), e.value().to_vec()))
            } else {
                let next = if front { range.next_ref() } else { range.next_back_ref() };
                let next = next.map(|e| e.map(|(key, value)| (key.to_vec(), value.to_vec())));
                self.ok(next)?
            };
            let wanted = match (lo < hi, front) {
                (false, _) => None,
                (true, true) => {
                    lo += 1;
                    Some(expected[lo - 1])
                }
                (true, false) => {
                    hi -= 1;
                    Some(expected[hi])
                }
            };
            let found = found.as_ref().map(|(key, value)| (key, value));
            let side = if front { "front" } else { "back" };
            if found != wanted {
                let short = |e: Option<(&Vec<u8>, &Vec<u8>)>| {
                    e.map(|(k, v)| format!("{} = {} bytes", String::from_utf8_lossy(k), v.len()))
                };
                let (found, wanted) = (short(found), short(wanted));
                panic!("{}: {side} of {bounds:?}: {found:?}, not {wanted:?}", self.context);
            }
            if wanted.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn work_on_transaction(&mut self) -> Step {
        if self.txs.is_empty() {
            return Ok(());
        }
        let at = self.rng.below(self.txs.len() as u64) as usize;
        let mut tx = self.txs.swap_remove(at);
        for _ in 0..1 + self.rng.below(5) {
            let Some(table) = self.table() else { break };
            let name = table.name();
            match self.rng.below(16) {
                0..3 => {
                    let key = self.key();
                    let found = self.ok(tx.tx.get(&table, &key))?.map(|v| v.to_vec());
                    assert_eq!(found, tx.get(&name, &key), "{}: get {key:?}", self.context);
                    tx.note(&name, &key);
                }
                3 => {
                    let keys: Vec<Vec<u8>> = (0..5).map(|_| self.key()).collect();
                    let found = self.ok(tx.tx.multi_get(&table, &keys))?;
                    let values: Vec<_> = found.iter().map(|v| v.as_ref().map(|v| v.to_vec())).collect();
                    drop(found);
                    for (key, value) in keys.iter().zip(values) {
                        assert_eq!(value, tx.get(&name, key), "{}: multi_get {key:?}", self.context);
                        tx.note(&name, key);
                    }
                }
                4 => {
                    let bounds = self.bounds();
                    tx.note_range(&name, &bounds);
                    let map = tx.map(&name);
                    let range = tx.tx.range::<Vec<u8>>(&table, bounds.clone());
                    let range = self.ok(range)?;
                    self.walk(range, &map, &bounds)?;
                }
                5..10 => {
                    let (key, value) = (self.key(), self.value());
                    let outcome = tx.tx.put(&table, &key, &value);
                    self.ok(outcome)?;
                    tx.touched.insert(name.clone());
                    tx.writes.insert((name, key), Some(value));
                }
                10..12 => {
                    let key = self.key();
                    let there = tx.get(&name, &key).is_some();
                    tx.note(&name, &key);
                    let outcome = tx.tx.delete(&table, &key);
                    assert_eq!(self.ok(outcome)?, there, "{}: delete {key:?}", self.context);
                    if there {
                        tx.touched.insert(name.clone());
                        tx.writes.insert((name, key), None);
                    }
                }
                12 => {
                    let bounds = self.bounds();
                    tx.note_range(&name, &bounds);
                    let map = tx.map(&name);
                    let gone: Vec<_> = map.keys().filter(|key| lies_in(key, &bounds)).collect();
                    let outcome = tx.tx.delete_range::<Vec<u8>>(&table, bounds.clone());
                    assert_eq!(self.ok(outcome)?, gone.len() as u64, "{}: delete_range", self.context);
                    for key in gone {
                        tx.touched.insert(name.clone());
                        tx.writes.insert((name.clone(), key.clone()), None);
                    }
                }
                13 => tx.savepoints.push((tx.tx.savepoint(), tx.writes.clone())),
                14 if !tx.savepoints.is_empty() => {
                    let at = self.rng.below(tx.savepoints.len() as u64) as usize;
                    if self.rng.one_in(2) {
                        tx.savepoints.truncate(at + 1);
                        tx.writes = tx.savepoints[at].1.clone();
                        tx.tx.rollback_to(&tx.savepoints[at].0).unwrap();
                    } else {
                        let (savepoint, _) = tx.savepoints.drain(at..).next().unwrap();
                        tx.tx.release(savepoint).unwrap();
                    }
                }
                15 if self.loads < 2 && self.rng.one_in(6) => {
                    for key in self.load_keys() {
                        let outcome = tx.tx.put(&table, &key, b"loaded");
                        self.ok(outcome)?;
                        tx.touched.insert(name.clone());
                        tx.writes.insert((name.clone(), key), Some(b"loaded".to_vec()));
                    }
                }
                _ => {}
            }
        }
        self.txs.push(tx);
        Ok(())
    }

    fn end_transaction(&mut self) -> Step {
        if self.txs.is_empty() {
            return Ok(());
        }
        let at = self.rng.below(self.txs.len() as u64) as usize;
        let tx = self.txs.swap_remove(at);
        match self.rng.below(8) {
            0 => {
                tx.tx.rollback();
                return Ok(());
            }
            1 => return Ok(()),
            _ => {}
        }
        let durability = self.durability();
        let is_dropped = |name: &String| self.dropped.contains_key(name);
        let gone = tx.writes.keys().any(|(name, _)| is_dropped(name));
        // A table of which nothing is left in the transaction may count or not.
        let may_be_gone = tx.touched.iter().any(is_dropped);
        let read_gone =
            (tx.keys.iter().map(|(n, _)| n)).chain(tx.ranges.iter().map(|(n, _)| n)).any(is_dropped);
        let changed = |place: &Place| self.changed.get(place).is_some_and(|&seq| seq > tx.start);
        let in_range = |place: &Place| {
            tx.ranges.iter().any(|(name, bounds)| *name == place.0 && lies_in(&place.1, bounds))
        };
        let is_read = |place: &Place| tx.keys.contains(place) || in_range(place);
        let conflict = tx.writes.keys().any(changed)
            || tx.keys.iter().any(changed)
            || (!tx.ranges.is_empty() && self.changed.keys().any(|place| changed(place) && in_range(place)));
        let marked = |place: &Place| {
            let mut marks = self.marks.iter();
            marks.any(|(seq, name, from)| *seq > tx.start && *name == place.0 && place.1 >= *from)
        };
        let mut marks = self.marks.iter().filter(|(seq, ..)| *seq > tx.start);
        let may_conflict = conflict
            || tx.writes.keys().any(marked)
            || tx.keys.iter().any(marked)
            || marks.any(|(_, name, _)| tx.ranges.iter().any(|(table, _)| table == name));
        let mut next = self.now.clone();
        for ((name, key), value) in &tx.writes {
            let Some(map) = next.get_mut(name) else { continue };
            match value {
                Some(value) => drop(Rc::make_mut(map).insert(key.clone(), value.clone())),
                None => drop(Rc::make_mut(map).remove(key)),
            }
        }
        // Where it would set marks.
        let mut set_marks = Vec::new();
        for name in &tx.touched {
            let mut keys = tx.writes.keys().filter(|place| place.0 == *name);
            let first = keys.next().map(|place| place.1.clone());
            if keys.count() > 1000
                && let Some(first) = self.is_behind(name, first)
            {
                set_marks.push((self.seq + 1, name.clone(), first));
            }
        }
        let context = format!("{}, transaction from {}", self.context, tx.start);
        let places: Vec<Place> = tx.writes.keys().cloned().collect();
        let empty = tx.writes.is_empty();
        let outcome = tx.tx.commit_with(durability);
        let mut met_conflict = false;
        match &outcome {
            Err(_) if !self.disk.is_powered() => {}
            Err(Error::TableDropped { .. }) => {
                assert!(may_be_gone || read_gone, "{context}: no table was dropped");
                return Ok(());
            }
            Err(Error::Conflict { table, key }) => {
                met_conflict = true;
                if !may_conflict {
                    let place = (table.clone(), key.clone().unwrap_or_default());
                    panic!(
                        "{context}: a conflict that is none: {place:?}, last changed by {:?}; written: {}, read: {}, marks: {:?}",
                        self.changed.get(&place),
                        tx.writes.contains_key(&place),
                        is_read(&place),
                        self.marks
                    );
                }
                assert!(!empty, "{context}");
                if let Some(key) = key {
                    let place = (table.clone(), key.clone());
                    let mine = tx.writes.contains_key(&place) || is_read(&place);
                    assert!(mine && (changed(&place) || marked(&place)), "{context}: conflict at {place:?}");
                }
            }
            Err(e) => panic!("{context}: {e:?}"),
            Ok(info) if empty => {
                assert_eq!(info.lsn, 0, "{context}");
                return Ok(());
            }
            Ok(_) => {
                assert!(!gone, "{context}: it wrote to a dropped table");
                assert!(!read_gone, "{context}: it has read a table that was dropped");
                assert!(!conflict, "{context}: a conflict was missed");
            }
        }
        self.commits += 1;
        if met_conflict {
            self.conflicts += 1;
            return Ok(());
        }
        self.marks.extend(set_marks);
        self.commit(next, places, durability == Durability::Sync, outcome).map(drop)
    }

    fn compare_all(&mut self) -> Step {
        for table in self.tables.clone() {
            let mut found = Map::new();
            let range = table.iter();
            for entry in self.ok(range)? {
                let (key, value) = self.ok(entry)?.into_parts();
                found.insert(key.to_vec(), value.to_vec());
            }
            assert!(found == *self.now[&table.name()], "{}: table {}", self.context, table.name());
        }
        Ok(())
    }

    fn step(&mut self) -> Step {
        match self.rng.below(48) {
            0..8 => self.autocommit(),
            8..14 => self.begin(),
            14..20 => self.read_snapshot(),
            20..34 => self.work_on_transaction(),
            34..40 => self.end_transaction(),
            40 => {
                let outcome = self.db.checkpoint();
                self.ok(outcome)?;
                self.survivors.drain(..self.survivors.len() - 1);
                Ok(())
            }
            41 | 42 => {
                let outcome = self.db.step();
                self.ok(outcome)
            }
            43 => self.load(),
            44 if self.rng.one_in(2) => self.make_table(),
            45 if self.rng.one_in(3) => self.drop_table(),
            46 => self.compare_all(),
            47 if self.rng.one_in(12) => {
                let mode = *self.rng.of(&[CutMode::Random, CutMode::Drop, CutMode::Keep]);
                match self.rng.one_in(2) {
                    true => self.disk.power_cut(mode),
                    false => self.disk.set_cut_after(self.rng.below(60), mode),
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Opens again after a power cut: what is found is what some prefix of the commits has left.
    fn recover(&mut self) {
        self.txs.clear();
        self.snaps.clear();
        self.tables.clear();
        // The handle that is closed belongs to the dead machine.
        let disk = self.disk.reopen();
        let db = (self.options)(&disk).open(DIR).unwrap();
        (self.db, self.disk) = (db, disk);
        let mut found = State::new();
        for info in self.db.tables().unwrap() {
            let table = self.db.open_table(&info.name).unwrap().unwrap();
            let entries = table.iter().unwrap().map(|e| e.unwrap().into_parts());
            let map: Map = entries.map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
            found.insert(info.name, Rc::new(map));
            self.tables.push(table);
        }
        let survivors = &self.survivors;
        assert!(survivors.contains(&found), "{}: none of {} states", self.context, survivors.len());
        self.changed.clear();
        self.marks.clear();
        self.dropped.clear();
        self.survivors = vec![found.clone()];
        self.now = found;
    }
}

fn run(seed: u64) -> (u64, u64) {
    let mut run = Run::new(seed);
    for step in 0..160 {
        run.context = format!("seed {seed}, step {step}");
        if run.step().is_err() {
            run.recover();
        }
    }
    run.context = format!("seed {seed}, at the end");
    run.disk.cancel_cut();
    if !run.disk.is_powered() {
        run.recover();
    }
    let half = run.txs.len() / 2;
    run.txs.truncate(half);
    assert_clean(&run.db);
    run.txs.clear();
    run.snaps.clear();
    let _ = run.compare_all();
    run.db.step().unwrap();
    assert_clean(&run.db);
    for table in &run.tables {
        assert!(table.state().history.is_empty() || table.state().history.bytes() < 4 << 20);
    }
    (run.commits, run.conflicts)
}

#[test]
fn interleaved_transactions_against_a_model() {
    let seeds = match std::env::var("BEDSTONE_INTERLEAVED") {
        Ok(range) => {
            let (from, to) = range.split_once("..").expect("from..to");
            from.parse().unwrap()..to.parse().unwrap()
        }
        Err(_) => 0..300,
    };
    let (mut commits, mut conflicts) = (0, 0);
    for seed in seeds.clone() {
        let (a, b) = run(seed);
        (commits, conflicts) = (commits + a, conflicts + b);
    }
    if seeds.end - seeds.start >= 100 {
        assert!(conflicts * 5 > commits && conflicts * 2 < commits, "{conflicts} of {commits}");
    }
}
