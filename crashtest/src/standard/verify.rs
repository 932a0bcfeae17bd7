//! What must be there when so many commits of each stream are.

use std::collections::BTreeMap;

use bedstone::Database;

use super::commits::{COUNTERS, Kind, SHARED, commit_of, counter_key, own_table, table_change};
use super::number_at;
use crate::model::{Model, show};
use crate::view;
use crate::workload::Numbers;

/// What the streams have written up to some number each. Asked for ever higher numbers it only goes on.
#[derive(Debug, Default)]
pub(super) struct Expected {
    streams: BTreeMap<u64, (u64, Model)>,
}

impl Expected {
    /// The state of a stream after its `number`-th commit, without its counter.
    fn after(&mut self, seed: u64, stream: u64, number: u64) -> &Model {
        let (at, model) = self.streams.entry(stream).or_default();
        if *at > number {
            (*at, *model) = (0, Model::default());
        }
        if *at == 0 {
            SHARED.iter().for_each(|name| drop(model.tables.insert((*name).to_owned(), Default::default())));
        }
        while *at < number {
            *at += 1;
            model.apply(&commit_of(seed, stream, *at).changes);
        }
        model
    }

    /// As [`crate::Workload::verify`].
    pub(super) fn verify(
        &mut self,
        db: &Database,
        seed: u64,
        streams: u64,
        promised: &Numbers,
    ) -> Result<Numbers, String> {
        let found = view::dump(db).map_err(|error| format!("reading all: {error} ({error:?})"))?;
        let numbers = numbers_in(&found, seed, streams)?;
        for (stream, promise) in promised {
            let last = numbers.get(stream).copied().unwrap_or_default();
            if last < *promise {
                return Err(format!(
                    "commit {promise} of thread {stream} was acknowledged, the last one found is {last}"
                ));
            }
        }
        let mut expected = Model::default();
        for (stream, number) in &numbers {
            let own = own_table(*stream);
            for (name, map) in &self.after(seed, *stream, *number).tables {
                let table = expected.tables.entry(name.clone()).or_default();
                table.extend(map.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
            // The next commit may have been under way: its table comes or goes before its number is there.
            match table_change(number + 1) {
                Some(Kind::Create) if found.tables.contains_key(&own) => {
                    expected.tables.entry(own).or_default();
                }
                Some(Kind::Drop) if !found.tables.contains_key(&own) => {
                    expected.tables.remove(&own);
                }
                _ => {}
            }
        }
        if numbers.values().all(|number| *number == 0) {
            // Creating the tables may be as far as it came.
            expected.tables.retain(|name, _| found.tables.contains_key(name));
        }
        match found.tables.get(COUNTERS) {
            Some(counters) => expected.tables.insert(COUNTERS.to_owned(), counters.clone()),
            None => None,
        };
        match expected.difference(&found) {
            None => Ok(numbers),
            Some(difference) => {
                Err(format!("not the state after commits {numbers:?} of the threads: {difference}"))
            }
        }
    }
}

/// The number of each stream's last commit. What a commit had seen of the others must be there.
fn numbers_in(found: &Model, seed: u64, streams: u64) -> Result<Numbers, String> {
    let counters = found.table(COUNTERS);
    if let Some(odd) = counters.keys().find(|key| !(0..streams).any(|stream| **key == counter_key(stream))) {
        return Err(format!("{COUNTERS:?}: key {} should not be there", show(odd)));
    }
    let value = |stream| counters.get(&counter_key(stream)).map_or(&[][..], |value| &value[..]);
    let numbers: Numbers = (0..streams).map(|stream| (stream, number_at(value(stream), stream))).collect();
    for (stream, number) in numbers.iter().filter(|(_, number)| **number > 0) {
        let filler = commit_of(seed, *stream, *number).filler;
        if value(*stream).get(streams as usize * 8..) != Some(&filler) {
            return Err(format!("the counter of thread {stream} is not what commit {number} wrote"));
        }
        for (other, last) in &numbers {
            let saw = number_at(value(*stream), *other);
            if saw > *last {
                return Err(format!(
                    "commit {number} of thread {stream} survived and had seen commit {saw} of thread {other}, of which \
                     only {last} survived"
                ));
            }
        }
    }
    Ok(numbers)
}
