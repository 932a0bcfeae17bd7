//! What every adapter must do before it is measured: a small examination of all its methods.

use std::path::Path;

use crate::data::{DataSet, KeyOrder};
use crate::engine::{Engine, Reader, Result, Settings};

/// Entries stored in bulk.
const ENTRIES: u64 = 500;

/// Opens an engine in the empty directory `dir`, goes through every method, closes and reopens. Fails with what was
/// found wrong.
pub fn conform<E: Engine>(dir: &Path, settings: &Settings, keeps_data: bool) -> Result<()> {
    let data = DataSet::new(11, KeyOrder::Random, 150);
    let ascending = DataSet::new(11, KeyOrder::Ascending, 150);
    let dir = &dir.join("filled");
    std::fs::create_dir(dir)?;
    let engine = E::open(dir, settings)?;
    engine.effective()?;
    engine.put_batch(&data.batch(0..ENTRIES))?;
    check(get(&engine, &data.key(3))? == value(&data, 3), "a stored value comes back")?;
    check(get(&engine, b"not there")?.is_none(), "a key that was never stored is not found")?;

    engine.put(b"one", b"first")?;
    engine.put(b"one", b"second")?;
    check(get(&engine, b"one")?.as_deref() == Some(b"second"), "the newer value replaces the older")?;
    engine.delete(b"one")?;
    engine.delete(b"never stored")?;
    check(get(&engine, b"one")?.is_none(), "a deleted key is not found")?;

    let keys = [data.key(1), [0xff; 24], data.key(2), data.key(1)];
    let slices: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    let mut found = vec![None; keys.len()];
    engine
        .read(|reader| reader.multi_get(&slices, |position, value| found[position] = Some(value.to_vec())))?;
    check(
        found == [value(&data, 1), None, value(&data, 2), value(&data, 1)],
        "multi_get answers key by key",
    )?;

    let mut sorted: Vec<_> = (0..ENTRIES).map(|index| data.key(index)).collect();
    sorted.sort_unstable();
    check(scan(&engine)? == sorted, "a scan gives all keys in order")?;
    let from = usize::try_from(ENTRIES / 2)?;
    check(seek(&engine, &sorted[from], 10)? == sorted[from..from + 10], "a seek begins at its key")?;
    let mut between = sorted[from];
    between[23] ^= 1;
    let expected: Vec<_> = sorted.iter().filter(|&&key| key >= between).take(3).copied().collect();
    check(seek(&engine, &between, 3)? == expected, "a seek begins at the next key if its own is not there")?;
    let last = &sorted[sorted.len() - 2..];
    check(seek(&engine, &last[0], 10)? == last, "a seek ends where the data ends")?;
    check(seek(&engine, &[0xff; 24], 10)?.is_empty(), "a seek beyond the data finds nothing")?;

    engine.settle()?;
    check(scan(&engine)? == sorted, "nothing changes when the store comes to rest")?;
    engine.close()?;
    if keeps_data {
        let engine = E::open(dir, settings)?;
        check(scan(&engine)? == sorted, "all is there after reopening")?;
        engine.close()?;
        check(E::disk_bytes(dir)? > 0, "a store with entries occupies space")?;
    }

    let appended = dir.with_file_name("appended");
    std::fs::create_dir(&appended)?;
    let engine = E::open(&appended, settings)?;
    engine.append_batch(&ascending.batch(0..100))?;
    engine.append_batch(&ascending.batch(100..200))?;
    let expected: Vec<_> = (0..200).map(|index| ascending.key(index)).collect();
    check(scan(&engine)? == expected, "appended entries are there, in order")?;
    engine.close()
}

fn check(holds: bool, what: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(format!("does not hold: {what}").into()) }
}

fn value(data: &DataSet, index: u64) -> Option<Vec<u8>> {
    let mut value = Vec::new();
    data.push_value(index, &mut value);
    Some(value)
}

fn get<E: Engine>(engine: &E, key: &[u8]) -> Result<Option<Vec<u8>>> {
    engine.read(|reader| reader.get(key, <[u8]>::to_vec))
}

fn scan<E: Engine>(engine: &E) -> Result<Vec<Vec<u8>>> {
    let mut keys = Vec::new();
    engine.read(|reader| reader.scan(|key, _| keys.push(key.to_vec())))?;
    Ok(keys)
}

fn seek<E: Engine>(engine: &E, from: &[u8], limit: usize) -> Result<Vec<Vec<u8>>> {
    let mut keys = Vec::new();
    engine.read(|reader| reader.seek_scan(from, limit, |key, _| keys.push(key.to_vec())))?;
    Ok(keys)
}
