//! The part of the demonstration that reads.

use bedstone::{Database, Table};
use serde_json::Value as Json;

use super::AIRPORTS_TABLE;
use super::report::Report;
use crate::bytes::{count, short_text, text};
use crate::failure::Failure;
use crate::progress::{Progress, rate};
use crate::records::Record;
use crate::store;

/// Keys that one call of `multi_get` asks for.
const AT_ONCE: usize = 32;

/// Reads by key, by prefix, in reverse order and everything.
pub(crate) fn show(db: &Database, records: &[Record], report: &mut Report) -> Result<(), Failure> {
    let table = store::table(db, AIRPORTS_TABLE)?;
    report.title("Some are read by key")?;
    for (key, name) in
        [("LSZH", "Zurich Airport"), ("RJTT", "Tokyo International Airport"), ("SAEZ", "Ministro Pistarini")]
    {
        let value = table.get(key)?;
        let found = value.as_deref().map(airport_name).unwrap_or_default();
        report.line(format_args!("{key} = {}", short_text(value.as_deref().unwrap_or_default(), 90)))?;
        report.check(found.starts_with(name), format_args!("{key} is {found}"))?;
    }
    report.check(table.get("ZZZZZ")?.is_none(), "ZZZZZ is absent")?;

    report.title("By prefix, and from the end")?;
    let expected = records.iter().filter(|r| r.key.starts_with(b"LSZ")).count();
    let mut found = 0;
    for entry in table.prefix("LSZ")? {
        let entry = entry?;
        if found < 5 {
            report.line(format_args!("{} {}", text(entry.key()), airport_name(entry.value())))?;
        }
        found += 1;
    }
    report.check(found == expected, format_args!("{found} keys begin with LSZ, as in the file"))?;
    let mut last = None;
    for entry in table.iter()?.rev().take(3) {
        let entry = entry?;
        report.line(format_args!("{} {}", text(entry.key()), airport_name(entry.value())))?;
        last = last.or(Some(entry.key().to_vec()));
    }
    report.check(
        last.as_ref() == records.iter().map(|r| &r.key).max(),
        "the last key comes first in reverse",
    )?;

    report.title("Every one is read back and compared byte for byte")?;
    compare_all(&table, records, report)
}

/// Reads every record by key and compares it with the file.
pub(crate) fn compare_all(table: &Table, records: &[Record], report: &mut Report) -> Result<(), Failure> {
    let watch = Progress::hidden();
    let mut equal = 0;
    for records in records.chunks(AT_ONCE) {
        let keys: Vec<_> = records.iter().map(|record| &record.key).collect();
        let values = table.multi_get(&keys)?;
        equal += records.iter().zip(&values).filter(|(r, v)| v.as_deref() == Some(&r.value[..])).count();
    }
    let took = watch.elapsed();
    report.check(
        equal == records.len(),
        format_args!(
            "{} of {} records are as in the file ({:.2} s, {} gets/s, {AT_ONCE} at once)",
            count(equal as u64),
            count(records.len() as u64),
            took.as_secs_f64(),
            rate(records.len() as u64, took)
        ),
    )
}

/// The name in a record.
fn airport_name(record: &[u8]) -> String {
    let record: Json = serde_json::from_slice(record).unwrap_or_default();
    record["name"].as_str().unwrap_or_default().to_owned()
}
