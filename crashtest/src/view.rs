//! Reading a whole database, in every way there is, and comparing.

use std::ops::Bound;

use bedstone::{Database, Error, Result, Table};

use crate::model::{Map, Model, show};
use crate::rng::Rng;

/// Everything the database holds, read by one forward scan of each table.
///
/// # Errors
/// Those of the scans.
pub fn dump(db: &Database) -> Result<Model> {
    let mut model = Model::default();
    for info in db.tables()? {
        let Some(table) = db.open_table(&info.name)? else {
            return Err(Error::TableNotFound { name: info.name });
        };
        model.tables.insert(info.name, dump_table(&table)?);
    }
    Ok(model)
}

/// The contents of one table, read by a forward scan.
///
/// # Errors
/// Those of the scan.
pub fn dump_table(table: &Table) -> Result<Map> {
    let mut map = Map::new();
    let mut scan = table.iter()?;
    while let Some((key, value)) = scan.next_ref()? {
        map.insert(key.to_vec(), value.into());
    }
    Ok(map)
}

/// Compares a database with a model in all ways of reading: forward and backward scans, gets and multi-gets of all
/// keys (of a sample where there are many), and of keys that are not there.
///
/// # Errors
/// Says what differs, or which call failed.
pub fn compare(db: &Database, model: &Model, rng: &mut Rng) -> std::result::Result<(), String> {
    let found = dump(db).map_err(|error| format!("a forward scan failed: {error}"))?;
    if let Some(difference) = model.difference(&found) {
        return Err(format!("forward scan: {difference}"));
    }
    for (name, map) in &model.tables {
        let table = db
            .open_table(name)
            .map_err(|error| format!("opening table {name:?}: {error}"))?
            .ok_or_else(|| format!("table {name:?} is listed and cannot be opened"))?;
        compare_backward(&table, map)?;
        compare_gets(&table, map, rng)?;
    }
    Ok(())
}

fn compare_backward(table: &Table, map: &Map) -> std::result::Result<(), String> {
    let name = table.name();
    let fail = |error: Error| format!("{name:?}: a backward scan failed: {error}");
    let mut scan = table.iter().map_err(fail)?;
    let mut expected = map.iter().rev();
    loop {
        match (scan.next_back_ref().map_err(fail)?, expected.next()) {
            (None, None) => return Ok(()),
            (Some((key, value)), Some((want_key, want))) if key == want_key && value == &want[..] => {}
            (got, want) => {
                return Err(format!(
                    "{name:?}: backward scan gave {:?} instead of {:?}",
                    got.map(|(key, _)| show(key)),
                    want.map(|(key, _)| show(key))
                ));
            }
        }
    }
}

fn compare_gets(table: &Table, map: &Map, rng: &mut Rng) -> std::result::Result<(), String> {
    let name = table.name();
    let fail = |error: Error| format!("{name:?}: a get failed: {error}");
    let every = map.len() / 200 + 1;
    let offset = rng.index(every);
    let mut keys: Vec<Vec<u8>> = map.keys().skip(offset).step_by(every).cloned().collect();
    for _ in 0..4 {
        keys.push(rng.bytes(5));
    }
    for key in &keys {
        let got = table.get(key).map_err(fail)?;
        if got.as_deref() != map.get(key).map(|value| &value[..]) {
            return Err(format!("{name:?}: get of {} gave {:?}", show(key), got.as_deref().map(show)));
        }
    }
    for group in keys.chunks(16) {
        let values = table.multi_get(group).map_err(fail)?;
        for (key, got) in group.iter().zip(&values) {
            if got.as_deref() != map.get(key).map(|value| &value[..]) {
                return Err(format!(
                    "{name:?}: multi_get of {} gave {:?}",
                    show(key),
                    got.as_deref().map(show)
                ));
            }
        }
    }
    Ok(())
}

/// The entries of `map` between two bounds, in order. Unlike `BTreeMap::range`, bounds in the wrong order give nothing.
pub fn between<'m>(
    map: &'m Map,
    low: &'m Bound<Vec<u8>>,
    high: &'m Bound<Vec<u8>>,
) -> impl DoubleEndedIterator<Item = (&'m Vec<u8>, &'m crate::model::Bytes)> {
    map.iter().filter(move |(key, _)| {
        let above = match low {
            Bound::Included(low) => *key >= low,
            Bound::Excluded(low) => *key > low,
            Bound::Unbounded => true,
        };
        let below = match high {
            Bound::Included(high) => *key <= high,
            Bound::Excluded(high) => *key < high,
            Bound::Unbounded => true,
        };
        above && below
    })
}

/// Where what begins with `prefix` ends.
pub fn end_of_prefix(prefix: &[u8]) -> Bound<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Bound::Excluded(end);
        }
    }
    Bound::Unbounded
}
