//! Snapshots that are held while other operations go on: whatever is read through one must be as it was.

use bedstone::{Entry, Error, Range, Result, Snapshot, SnapshotRange, Table, Value};

use super::{Run, Step, Stop, bounds_of, broken};
use crate::model::{Map, show};
use crate::simulation::ops::{Look, TABLES};
use crate::view;

/// Snapshots that are kept at the same time.
const KEPT: usize = 3;

/// A snapshot, and what was there when it was taken.
pub(super) struct Moment {
    snapshot: Snapshot,
    /// The tables of that moment: they may have been renamed or dropped since.
    tables: Vec<(Table, Map)>,
}

/// The entries of a range, whoever reads it.
pub(super) trait Entries<'t>: DoubleEndedIterator<Item = Result<Entry<'t>>> {
    fn front_ref(&mut self) -> Result<Option<(&[u8], &[u8])>>;
    fn back_ref(&mut self) -> Result<Option<(&[u8], &[u8])>>;

    /// All that are left, in one call where there is one.
    fn each(&mut self, f: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        while let Some((key, value)) = self.front_ref()? {
            f(key, value);
        }
        Ok(())
    }
}

impl<'t> Entries<'t> for Range<'t> {
    fn front_ref(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.next_ref()
    }

    fn back_ref(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.next_back_ref()
    }

    fn each(&mut self, f: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        self.for_each_ref(|key, value| {
            f(key, value);
            true
        })
    }
}

impl<'t> Entries<'t> for SnapshotRange<'t> {
    fn front_ref(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.next_ref()
    }

    fn back_ref(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.next_back_ref()
    }
}

/// What a snapshot and a transaction have in common.
pub(super) trait Reads {
    fn get<'t>(&'t self, table: &'t Table, key: &[u8]) -> Result<Option<Value<'t>>>;
    fn contains(&self, table: &Table, key: &[u8]) -> Result<bool>;
    fn multi_get<'t>(&'t self, table: &'t Table, keys: &[Vec<u8>]) -> Result<Vec<Option<Value<'t>>>>;
    fn range<'t>(
        &'t self,
        table: &'t Table,
        bounds: (std::ops::Bound<&[u8]>, std::ops::Bound<&[u8]>),
    ) -> Result<SnapshotRange<'t>>;
    fn prefix<'t>(&'t self, table: &'t Table, prefix: &[u8]) -> Result<SnapshotRange<'t>>;
    fn ends<'t>(&'t self, table: &'t Table) -> Result<[Option<Entry<'t>>; 2]>;
}

macro_rules! reads {
    ($of:ty) => {
        impl Reads for $of {
            fn get<'t>(&'t self, table: &'t Table, key: &[u8]) -> Result<Option<Value<'t>>> {
                <$of>::get(self, table, key)
            }
            fn contains(&self, table: &Table, key: &[u8]) -> Result<bool> {
                <$of>::contains(self, table, key)
            }
            fn multi_get<'t>(&'t self, table: &'t Table, keys: &[Vec<u8>]) -> Result<Vec<Option<Value<'t>>>> {
                <$of>::multi_get(self, table, keys)
            }
            fn range<'t>(
                &'t self,
                table: &'t Table,
                bounds: (std::ops::Bound<&[u8]>, std::ops::Bound<&[u8]>),
            ) -> Result<SnapshotRange<'t>> {
                <$of>::range::<&[u8]>(self, table, bounds_of(bounds))
            }
            fn prefix<'t>(&'t self, table: &'t Table, prefix: &[u8]) -> Result<SnapshotRange<'t>> {
                <$of>::prefix(self, table, prefix)
            }
            fn ends<'t>(&'t self, table: &'t Table) -> Result<[Option<Entry<'t>>; 2]> {
                Ok([<$of>::first(self, table)?, <$of>::last(self, table)?])
            }
        }
    };
}
reads!(Snapshot);
reads!(bedstone::Transaction);

impl Run {
    pub(super) fn begin_read(&mut self) -> Step {
        if self.moments.len() == KEPT {
            return Ok(());
        }
        let db = self.db()?;
        let snapshot = self.read("begin_read", db.begin_read())?;
        let mut tables = Vec::new();
        for (name, map) in &self.oracle.now().tables {
            match self.read("open_table", db.open_table(name))? {
                Some(table) => tables.push((table, map.clone())),
                None => return broken(format!("table {name} is not there")),
            }
        }
        self.moments.push(Moment { snapshot, tables });
        let listed = db.snapshots();
        let ids: Vec<u64> = listed.iter().map(|info| info.id).collect();
        let kept: Vec<u64> = self.moments.iter().map(|moment| moment.snapshot.id()).collect();
        if ids != kept {
            return broken(format!("snapshots {kept:?} are live, and snapshots() tells of {ids:?}"));
        }
        Ok(())
    }

    pub(super) fn read_old(&mut self, which: u64, table: usize, look: &Look) -> Step {
        if self.moments.is_empty() {
            return Ok(());
        }
        self.report.old_reads += 1;
        let now = self.table(table)?;
        let moment = &self.moments[which as usize % self.moments.len()];
        // By the handle of today, which may be of a table that was not there, or had another name.
        let empty = Map::new();
        let then = moment.tables.iter().find(|(table, _)| table.id() == now.id());
        let map = then.map_or(&empty, |(_, map)| map);
        self.look(&moment.snapshot, &now, map, look)?;
        // And by a handle of that time.
        match moment.tables.get(which as usize / 8 % moment.tables.len().max(1)) {
            Some((table, map)) if self.is_alive(table)? => self.look(&moment.snapshot, table, map, look),
            Some((table, _)) => match moment.snapshot.get(table, b"") {
                Err(Error::TableDropped { .. }) => Ok(()),
                other => broken(format!("a dropped table, read through a snapshot, gave {other:?}")),
            },
            None => Ok(()),
        }
    }

    fn is_alive(&self, table: &Table) -> Step<bool> {
        let tables = self.read("tables", self.db()?.tables())?;
        Ok(tables.iter().any(|info| info.id == table.id()))
    }

    pub(super) fn close_read(&mut self, which: u64) -> Step {
        if self.moments.is_empty() {
            return Ok(());
        }
        let moment = self.moments.remove(which as usize % self.moments.len());
        self.compare_moment(&moment)
    }

    pub(super) fn compare_moments(&mut self) -> Step {
        let moments = std::mem::take(&mut self.moments);
        let compared = moments.iter().try_for_each(|moment| self.compare_moment(moment));
        if compared.is_ok() {
            self.moments = moments;
        }
        compared
    }

    /// Everything is as it was.
    fn compare_moment(&mut self, moment: &Moment) -> Step {
        self.report.old_reads += 1;
        let everything = std::ops::Bound::Unbounded;
        for (table, map) in &moment.tables {
            if !self.is_alive(table)? {
                continue;
            }
            for walk in [crate::simulation::ops::Walk::ForwardRef, crate::simulation::ops::Walk::Backward] {
                let look = Look::Range(everything.clone(), everything.clone(), walk);
                self.look(&moment.snapshot, table, map, &look)?;
            }
            let every = map.len() / 50 + 1;
            let keys = map.keys().step_by(every).cloned().collect();
            self.look(&moment.snapshot, table, map, &Look::Gets(keys))?;
        }
        Ok(())
    }

    /// Reads a table through a snapshot or in a transaction, and compares with what it must see.
    pub(super) fn look(&self, through: &dyn Reads, table: &Table, map: &Map, look: &Look) -> Step {
        match look {
            Look::Gets(keys) => {
                for key in keys {
                    let got = self.read("get", through.get(table, key))?;
                    let want = map.get(key).map(|value| &value[..]);
                    if got.as_deref() != want {
                        return broken(format!(
                            "get of {} in {}, {} gave {:?}",
                            show(key),
                            table.name(),
                            place(),
                            got.as_deref().map(show)
                        ));
                    }
                    if self.read("contains", through.contains(table, key))? != want.is_some() {
                        return broken(format!("contains of {}, {}, is wrong", show(key), place()));
                    }
                }
                Ok(())
            }
            Look::MultiGet(keys) => {
                let got = self.read("multi_get", through.multi_get(table, keys))?;
                let want = keys.iter().map(|key| map.get(key).map(|value| &value[..]));
                if got.len() != keys.len() || !got.iter().map(|got| got.as_deref()).eq(want) {
                    return broken(format!("multi_get of {} keys, {}, is wrong", keys.len(), place()));
                }
                Ok(())
            }
            Look::Range(low, high, walk) => {
                let expected: Vec<_> = view::between(map, low, high).collect();
                let bounds = (low.as_ref().map(|key| &key[..]), high.as_ref().map(|key| &key[..]));
                let range = self.read("range", through.range(table, bounds))?;
                self.walk(range, &expected, *walk)
            }
            Look::Prefix(prefix, walk) => {
                let expected: Vec<_> = map.iter().filter(|(key, _)| key.starts_with(prefix)).collect();
                let range = self.read("prefix", through.prefix(table, prefix))?;
                self.walk(range, &expected, *walk)
            }
            Look::Ends => {
                let got = self.read("first and last", through.ends(table))?;
                for (got, want) in got.iter().zip([map.first_key_value(), map.last_key_value()]) {
                    let got = got.as_ref().map(|entry| (entry.key(), &entry.value()[..]));
                    if got != want.map(|(key, value)| (&key[..], &value[..])) {
                        let (got, want) = (got.map(|e| show(e.0)), want.map(|e| show(e.0)));
                        return broken(format!("an end, {}, gave {got:?} instead of {want:?}", place()));
                    }
                }
                Ok(())
            }
        }
    }

    /// Tables for a transaction, made if the model has none either: one for each of [`TABLES`].
    pub(super) fn all_tables(&mut self) -> Step<Vec<Table>> {
        (0..TABLES.len()).map(|index| self.table(index)).collect()
    }

    pub(super) fn swap(
        &mut self,
        table: usize,
        key: &[u8],
        value: Option<&crate::model::Bytes>,
        right: bool,
    ) -> Step {
        let table = self.table(table)?;
        let is = self.oracle.now().table(&table.name()).get(key).cloned();
        let expected = match (right, &is) {
            (true, is) => is.as_deref().map(<[u8]>::to_vec),
            (false, Some(is)) => Some([&is[..], b"?"].concat()),
            (false, None) => Some(b"not there".to_vec()),
        };
        let done = table.compare_and_swap(key, expected.as_deref(), value.map(|value| &value[..]));
        if right && is.is_none() && value.is_none() {
            // Nothing to write, so nothing is made durable.
            return match self.read("compare_and_swap", done)? {
                true => Ok(()),
                false => {
                    broken(format!("compare_and_swap of {}, which is absent, says it is not", show(key)))
                }
            };
        }
        let change = super::transact::change(&table.name(), key, value);
        if !right {
            return match self.read("compare_and_swap", done)? {
                false => Ok(()),
                true => broken(format!("compare_and_swap of {} says it had another value", show(key))),
            };
        }
        match self.commit(vec![change], bedstone::Durability::Sync, done)? {
            Some(true) => Ok(()),
            other => Err(Stop::Broken(format!("compare_and_swap of {} gave {other:?}", show(key)))),
        }
    }
}

/// For messages.
fn place() -> &'static str {
    "through a snapshot or in a transaction"
}
