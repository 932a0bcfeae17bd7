//! The part of the demonstration that shows snapshots and transactions.

use bedstone::{Database, Error, Table};

use super::AIRPORTS_TABLE;
use super::report::Report;
use crate::bytes::count;
use crate::failure::Failure;
use crate::records::Record;
use crate::store;

/// Times that the writer changes every airport.
const PASSES: u64 = 3;
/// What is written instead of an airport.
const CHANGED: &[u8] = b"changed while the snapshot was open";
const COUNTERS_TABLE: &str = "counters";

/// Reads the past beside a writer, and runs a transaction again that met a conflict. Everything is as before afterwards.
pub(crate) fn show(db: &Database, records: &[Record], report: &mut Report) -> Result<(), Failure> {
    let table = store::table(db, AIRPORTS_TABLE)?;
    snapshot(db, &table, records, report)?;
    conflict(db, report)
}

fn snapshot(db: &Database, table: &Table, records: &[Record], report: &mut Report) -> Result<(), Failure> {
    report.title("A snapshot sees one moment while a writer goes on")?;
    let snapshot = db.begin_read_with(bedstone::SnapshotOptions::new().name("demonstration"))?;
    let (mut equal, mut ordered) = (0, true);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| change_all(db, table, records));
        let read = read_all(&snapshot, table, records);
        (writer.join(), read)
    });
    match written {
        (Ok(written), read) => {
            written?;
            (equal, ordered) = read?;
        }
        (Err(_), _) => report.check(false, "the thread that writes has panicked")?,
    }
    report.line(format_args!(
        "a thread changed all {} airports {PASSES} times, one transaction of 500 after the other",
        count(records.len() as u64)
    ))?;
    report.check(
        equal == records.len() && ordered,
        "read meanwhile through the snapshot, every airport was as in the file",
    )?;
    let now = table.iter()?.filter(|entry| entry.as_ref().is_ok_and(|e| e.value().starts_with(CHANGED)));
    let now = now.count();
    report.check(now == records.len(), "read without it, every one is changed")?;
    let (equal, ordered) = read_all(&snapshot, table, records)?;
    report.check(
        equal == records.len() && ordered,
        "through the snapshot, every one still is as in the file, now that the writer has ended",
    )?;
    for held in db.snapshots() {
        report.line(format_args!(
            "it is listed as {:?}, open for {:.2} s, and holds {} of old values",
            held.name,
            held.age.as_secs_f64(),
            crate::bytes::size(held.held_bytes)
        ))?;
    }
    snapshot.close();

    // As before, for what comes next.
    for some in records.chunks(500) {
        db.update(|tx| some.iter().try_for_each(|record| tx.put(table, &record.key, &record.value)))?;
    }
    report.check(
        db.snapshots().is_empty(),
        "the snapshot is closed and listed no more; every airport is put back",
    )
}

fn change_all(db: &Database, table: &Table, records: &[Record]) -> Result<(), Error> {
    for pass in 1..=PASSES {
        for some in records.chunks(500) {
            let mut tx = db.begin_write()?;
            for record in some {
                tx.put(table, &record.key, [CHANGED, format!(", pass {pass}").as_bytes()].concat())?;
            }
            tx.commit_with(bedstone::Durability::Relaxed)?;
        }
    }
    Ok(())
}

/// How many records a scan of the snapshot gives as they are in the file, and whether it gives nothing else and in order.
fn read_all(
    snapshot: &bedstone::Snapshot,
    table: &Table,
    records: &[Record],
) -> Result<(usize, bool), Error> {
    let mut sorted: Vec<&Record> = records.iter().collect();
    sorted.sort_by(|a, b| a.key.cmp(&b.key));
    let (mut equal, mut all) = (0, 0);
    let mut range = snapshot.iter(table)?;
    while let Some((key, value)) = range.next_ref()? {
        let want = sorted.get(all);
        equal += usize::from(want.is_some_and(|want| want.key == key && want.value == value));
        all += 1;
    }
    Ok((equal, all == records.len()))
}

fn conflict(db: &Database, report: &mut Report) -> Result<(), Failure> {
    report.title("Of two transactions that collide, one is run again")?;
    let counters = db.table(COUNTERS_TABLE)?;
    let number =
        |value: Option<&[u8]>| value.and_then(|bytes| bytes.try_into().ok()).map_or(0, i64::from_le_bytes);
    counters.put("visitors", 10_i64.to_le_bytes())?;

    let mut slow = db.begin_write()?;
    let seen = number(slow.get(&counters, "visitors")?.as_deref());
    db.update(|quick| {
        let seen = number(quick.get(&counters, "visitors")?.as_deref());
        quick.put(&counters, "visitors", (seen + 5).to_le_bytes())
    })?;
    slow.put(&counters, "visitors", (seen + 1).to_le_bytes())?;
    match slow.commit() {
        Err(e) if e.is_retryable() => {
            report.line(format_args!("the commit says: {e}"))?;
            report.check(
                true,
                "both read 10; the first one made it 15, the second one was not let overwrite that",
            )?;
        }
        other => {
            report.check(false, format_args!("a lost update was prevented (the commit gave {other:?})"))?
        }
    }

    let mut runs = 0;
    db.update(|tx| {
        runs += 1;
        let seen = number(tx.get(&counters, "visitors")?.as_deref());
        if runs == 1 {
            // Somebody else is quicker, once.
            counters.add("visitors", 5)?;
        }
        tx.put(&counters, "visitors", (seen + 1).to_le_bytes())
    })?;
    let visitors = number(counters.get("visitors")?.as_deref());
    report.check(runs == 2, "the same with Database::update, which ran it again by itself")?;
    report.check(visitors == 21, format_args!("nothing was lost: 10 + 5 + 5 + 1 = {visitors}"))
}
