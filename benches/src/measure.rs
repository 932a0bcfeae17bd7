//! Carrying a plan out on one engine. Readers are opened and batches made outside the measured time.

use std::thread;
use std::time::{Duration, Instant};

use crate::data::{DataSet, Key};
use crate::engine::{Engine, Error, Reader, Result};
use crate::plan::{Plan, Workload, fold_in_order, touch, weigh};
use crate::proc;
use crate::runner::Sample;

/// Entries a transaction when a store is loaded.
const LOAD_BATCH: u64 = 10_000;

/// Stores the first `entries` entries of `data`.
pub fn load<E: Engine>(engine: &E, data: &DataSet, entries: u64) -> Result<()> {
    let mut at = 0;
    while at < entries {
        let end = entries.min(at + LOAD_BATCH);
        engine.put_batch(&data.batch(at..end))?;
        at = end;
    }
    Ok(())
}

/// As [`load`], in the order of the keys: where the data is larger than memory, and only reading it is measured.
pub fn load_in_order<E: Engine>(engine: &E, data: &DataSet, entries: u64) -> Result<()> {
    let mut order: Vec<(Key, u64)> = (0..entries).map(|index| (data.key(index), index)).collect();
    order.sort_unstable();
    for chunk in order.chunks(LOAD_BATCH as usize) {
        engine.put_batch(&data.batch(chunk.iter().map(|&(_, index)| index)))?;
    }
    Ok(())
}

/// Runs a workload that only reads.
pub fn reads<E: Engine>(engine: &E, plan: &Plan) -> Result<Sample> {
    let none = Vec::new();
    let before = proc::device_bytes_read();
    let spans = on_threads(plan.sizes.threads, |thread| {
        let chosen = plan.chosen.get(thread).unwrap_or(&none);
        engine.read(|reader| {
            let begin = Instant::now();
            let sum = match plan.workload {
                Workload::MultiGet => multi_gets(reader, plan, chosen)?,
                Workload::Scan => scan(reader)?.1,
                Workload::SeekScan => seeks(reader, plan, chosen)?,
                _ => gets(reader, &plan.data, chosen)?,
            };
            Ok((begin, Instant::now(), sum))
        })
    })?;
    let device_bytes =
        proc::device_bytes_read().zip(before).map(|(after, before)| after.saturating_sub(before));
    let sum = spans.iter().fold(0u64, |sum, span| sum.wrapping_add(span.2));
    let elapsed = elapsed(spans.iter().map(|span| (span.0, span.1)));
    Ok(Sample { ops: plan.ops(), elapsed, checksum: Some(sum), settled: None, device_bytes })
}

/// The plan's unmeasured gets.
pub fn warm<E: Engine>(engine: &E, plan: &Plan) -> Result<()> {
    on_threads(plan.warm.len(), |thread| engine.read(|reader| gets(reader, &plan.data, &plan.warm[thread])))?;
    Ok(())
}

/// Inserts all entries batch by batch into an empty store; the checksum comes from a scan afterwards.
pub fn inserts<E: Engine>(engine: &E, plan: &Plan) -> Result<Sample> {
    let entries = plan.sizes.entries;
    let batch_len = if plan.sizes.batch == 0 { entries } else { plan.sizes.batch };
    let mut took = Duration::ZERO;
    let mut at = 0;
    while at < entries {
        let end = entries.min(at + batch_len);
        let batch = plan.data.batch(at..end);
        let begin = Instant::now();
        if plan.workload == Workload::InsertAscending {
            engine.append_batch(&batch)?;
        } else {
            engine.put_batch(&batch)?;
        }
        took += begin.elapsed();
        at = end;
    }
    let begin = Instant::now();
    engine.settle()?;
    let settled = took + begin.elapsed();
    let (count, sum) = engine.read(|reader| scan(reader))?;
    if count != entries {
        return Err(format!("{count} entries are there after {entries} were inserted").into());
    }
    Ok(Sample {
        ops: entries,
        elapsed: took,
        checksum: Some(sum),
        settled: Some(settled),
        device_bytes: None,
    })
}

/// Makes one-entry commits on all threads for the plan's time, then reads back every one that was acknowledged.
pub fn commits<E: Engine>(engine: &E, plan: &Plan, round: usize) -> Result<Sample> {
    let spans = on_threads(plan.sizes.threads, |thread| {
        let mut value = Vec::new();
        let begin = Instant::now();
        let mut number = 0;
        loop {
            let index = plan.commit_index(round, thread, number);
            value.clear();
            plan.data.push_value(index, &mut value);
            engine.put(&plan.data.key(index), &value)?;
            number += 1;
            let now = Instant::now();
            if now - begin >= plan.sizes.commit_for {
                return Ok((begin, now, number));
            }
        }
    })?;
    engine.read(|reader| {
        for (thread, span) in spans.iter().enumerate() {
            for index in (0..span.2).map(|number| plan.commit_index(round, thread, number)) {
                let first = reader.get(&plan.data.key(index), |value| value.first().copied())?;
                if first.flatten() != Some(plan.data.first_byte(index)) {
                    return Err(Error::from(format!(
                        "acknowledged entry {index:#x} is not there: {first:?}"
                    )));
                }
            }
        }
        Ok(())
    })?;
    let ops = spans.iter().map(|span| span.2).sum();
    let elapsed = elapsed(spans.iter().map(|span| (span.0, span.1)));
    Ok(Sample { ops, elapsed, checksum: None, settled: None, device_bytes: None })
}

fn gets(reader: &mut impl Reader, data: &DataSet, chosen: &[u32]) -> Result<u64> {
    let mut sum = 0u64;
    for (position, &index) in chosen.iter().enumerate() {
        let key = data.key(u64::from(index));
        let touched = reader.get(&key, touch)?.ok_or_else(|| missing(index))?;
        sum = sum.wrapping_add(weigh(position, touched));
    }
    Ok(sum)
}

fn multi_gets(reader: &mut impl Reader, plan: &Plan, chosen: &[u32]) -> Result<u64> {
    let mut sum = 0u64;
    let mut keys: Vec<Key> = Vec::with_capacity(plan.sizes.keys_per_call);
    let mut found = 0;
    for call in chosen.chunks(plan.sizes.keys_per_call) {
        keys.clear();
        keys.extend(call.iter().map(|&index| plan.data.key(u64::from(index))));
        let slices: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        reader.multi_get(&slices, |position, value| {
            sum = sum.wrapping_add(weigh(position, touch(value)));
            found += 1;
        })?;
    }
    if found == chosen.len() {
        Ok(sum)
    } else {
        Err(format!("{found} of {} keys found", chosen.len()).into())
    }
}

fn seeks(reader: &mut impl Reader, plan: &Plan, chosen: &[u32]) -> Result<u64> {
    let mut sum = 0;
    for &index in chosen {
        let from = plan.data.key(u64::from(index));
        reader.seek_scan(&from, plan.sizes.scan_len, |_, value| sum = fold_in_order(sum, touch(value)))?;
    }
    Ok(sum)
}

/// Number of entries and their checksum.
fn scan(reader: &mut impl Reader) -> Result<(u64, u64)> {
    let mut count = 0;
    let mut sum = 0;
    reader.scan(|_, value| {
        count += 1;
        sum = fold_in_order(sum, touch(value));
    })?;
    Ok((count, sum))
}

fn missing(index: u32) -> Error {
    format!("entry {index} was stored but is not found").into()
}

fn elapsed(spans: impl Iterator<Item = (Instant, Instant)> + Clone) -> Duration {
    let begin = spans.clone().map(|span| span.0).min();
    let end = spans.map(|span| span.1).max();
    begin.zip(end).map_or(Duration::ZERO, |(begin, end)| end - begin)
}

/// Runs `body` on `threads` threads at once and collects what they return.
fn on_threads<T: Send>(threads: usize, body: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let body = &body;
    thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|thread| scope.spawn(move || body(thread))).collect();
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap_or_else(|_| Err("a thread panicked".into())))
            .collect()
    })
}
