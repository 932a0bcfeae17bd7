//! `bedstone load`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bedstone::{Database, Error, Table, WriteBatch};
use clap::Args;

use crate::bytes::count;
use crate::cli::Global;
use crate::failure::{Answer, Failure};
use crate::out::Out;
use crate::progress::{self, Progress};
use crate::records::{self, Format, Item, Records, Skipped};
use crate::store;

/// A batch is committed when it has this many bytes even if records are few.
const BATCH_BYTES: u64 = 8 << 20;
/// So many skipped records are described one by one.
const SKIPPED_SHOWN: u64 = 20;

/// Load a file of records into a table
///
/// Makes the database and the table if they are not there. The value of each entry is the record as JSON: for csv and
/// tsv an object of strings with the columns in the file's order, for jsonl the line as it stands. The key is what
/// the record has in the column --key; without --key it is the number of the record in the file, counted from 1, as
/// 12 decimal digits with leading zeros, so that keys are in the order of the file. A record whose key is there
/// already replaces what is there.
///
/// Records are committed in batches; each is on the medium before the next begins, and whatever happens a batch is
/// there as a whole or not at all. Records that cannot be loaded (no key, no JSON, wrong number of fields, too long a
/// key) are skipped: the first of them are reported with line and reason, all of them are counted, and the command
/// exits with 1.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    bedstone load places.bed airports airports.csv --key icao\n  \
    gunzip -c cities.jsonl.gz | bedstone load places.bed cities - --format jsonl")]
pub(crate) struct Load {
    /// Directory of the database
    db: PathBuf,
    /// Name of the table
    table: String,
    /// The file; `-` is standard input
    file: PathBuf,
    /// Layout of the file; by default as its name ends
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Column, or member of a JSON object, that holds the key
    #[arg(long, value_name = "COLUMN")]
    key: Option<String>,
    /// Records in a batch
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    batch: u64,
    /// Bytes of a page, if the database is made: 4096, 8192, 16384, 32768 or 65536
    #[arg(long, value_name = "BYTES")]
    page_size: Option<usize>,
    /// Print the number of the last record of each batch on a line of standard output once it is durable
    #[arg(long)]
    acks: bool,
}

/// What loading came to.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Records committed.
    pub(crate) records: u64,
    /// Bytes of their keys and values.
    pub(crate) bytes: u64,
    /// How many were skipped, by reason.
    pub(crate) skipped: BTreeMap<&'static str, u64>,
}

impl Loaded {
    fn skipped_in_all(&self) -> u64 {
        self.skipped.values().sum()
    }
}

impl Load {
    pub(crate) fn run(&self, global: &Global) -> Result<Answer, Failure> {
        let stdin = self.file == Path::new("-");
        let format = match self.format {
            Some(format) => format,
            None if stdin => {
                return Err(Failure::Usage("say --format csv, tsv or jsonl with standard input".into()));
            }
            None => records::format_of(&self.file)?,
        };
        let input_failure = |source| Failure::Input { path: self.file.clone(), source };
        let (input, length): (Box<dyn Read>, Option<u64>) = if stdin {
            (Box::new(io::stdin().lock()), None)
        } else {
            let file = File::open(&self.file).map_err(input_failure)?;
            let meta = file.metadata().map_err(input_failure)?;
            let length = meta.is_file().then_some(meta.len());
            (Box::new(file), length)
        };
        let mut builder = store::builder(global)?;
        if let Some(bytes) = self.page_size
            && !self.db.join("data").exists()
        {
            builder = builder.page_size(bytes);
        }
        let progress = Progress::over_bytes(length);
        // The header is read before the database is touched: a wrong --key leaves nothing behind.
        let mut records = records::open(progress.watch(input), &self.file, format, self.key.as_deref())?;
        let db = builder.open_or_create(&self.db)?;
        let mut acks = self.acks.then(Out::new);
        let mut on_batch = |last: u64| match &mut acks {
            Some(out) => out.line(last).and_then(|()| out.flush()),
            None => Ok(()),
        };
        let loaded = db
            .table(&self.table)
            .map_err(Failure::from)
            .and_then(|table| load(&db, &table, records.as_mut(), self.batch, &progress, &mut on_batch));
        progress.finish();
        let loaded = store::close(db, loaded)?;
        self.report(&loaded, &progress);
        Ok(if loaded.skipped.is_empty() { Answer::Yes } else { Answer::No })
    }

    fn report(&self, loaded: &Loaded, progress: &Progress) {
        let took = progress.elapsed();
        progress.say(&format!(
            "{}: loaded {} records ({}) into table {:?} in {:.1} s, {} records/s; keys are {}",
            self.file.display(),
            count(loaded.records),
            crate::bytes::size(loaded.bytes),
            self.table,
            took.as_secs_f64(),
            progress::rate(loaded.records, took),
            match &self.key {
                Some(column) => format!("column {column:?}"),
                None => "record numbers of 12 decimal digits".into(),
            },
        ));
        if !loaded.skipped.is_empty() {
            let reasons: Vec<_> =
                loaded.skipped.iter().map(|(reason, n)| format!("{reason}: {}", count(*n))).collect();
            progress.say(&format!(
                "skipped {} records ({})",
                count(loaded.skipped_in_all()),
                reasons.join(", ")
            ));
        }
    }
}

/// Loads records in batches, calling `on_batch` with the number of each batch's last record when it is durable.
pub(crate) fn load(
    db: &Database,
    table: &Table,
    records: &mut dyn Records,
    batch_records: u64,
    progress: &Progress,
    on_batch: &mut dyn FnMut(u64) -> Result<(), Failure>,
) -> Result<Loaded, Failure> {
    let mut loaded = Loaded::default();
    let mut batch = Pending::default();
    while let Some(item) = records.next_item()? {
        let record = match item {
            Item::Record(record) => record,
            Item::Skipped(skipped) => {
                skip(&mut loaded, skipped, progress);
                continue;
            }
        };
        match batch.writes.put(table, &record.key, &record.value) {
            Ok(()) => {}
            Err(e @ (Error::KeyTooLong { .. } | Error::ValueTooLarge { .. })) => {
                let reason =
                    if let Error::KeyTooLong { .. } = e { "key too long" } else { "value too large" };
                skip(&mut loaded, Skipped { line: record.line, reason, detail: e.to_string() }, progress);
                continue;
            }
            Err(e) => return Err(e.into()),
        }
        batch.records += 1;
        batch.bytes += (record.key.len() + record.value.len()) as u64;
        batch.last = record.number;
        if batch.records >= batch_records || batch.bytes >= BATCH_BYTES {
            batch.commit(db, &mut loaded, progress, on_batch)?;
        }
    }
    batch.commit(db, &mut loaded, progress, on_batch)?;
    Ok(loaded)
}

/// Records that wait for their commit.
#[derive(Default)]
struct Pending {
    writes: WriteBatch,
    records: u64,
    bytes: u64,
    /// Number of the last one.
    last: u64,
}

impl Pending {
    fn commit(
        &mut self,
        db: &Database,
        loaded: &mut Loaded,
        progress: &Progress,
        on_batch: &mut dyn FnMut(u64) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let batch = std::mem::take(self);
        if batch.records == 0 {
            return Ok(());
        }
        db.write(batch.writes)?;
        loaded.records += batch.records;
        loaded.bytes += batch.bytes;
        progress.records(loaded.records);
        on_batch(batch.last)
    }
}

fn skip(loaded: &mut Loaded, skipped: Skipped, progress: &Progress) {
    *loaded.skipped.entry(skipped.reason).or_default() += 1;
    let before = loaded.skipped_in_all();
    if before <= SKIPPED_SHOWN {
        let colon = if skipped.detail.is_empty() { "" } else { ": " };
        progress.say(&format!("line {}: skipped, {}{colon}{}", skipped.line, skipped.reason, skipped.detail));
    } else if before == SKIPPED_SHOWN + 1 {
        progress.say("more records are skipped; they are counted at the end");
    }
}
