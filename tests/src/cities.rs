//! Real records, one a line, loaded by a process that is killed on the way, and read back byte for byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bedstone::{Database, WriteBatch};

/// Records of one batch.
pub const BATCH: u64 = 500;
const TABLE: &str = "cities";

/// What happened.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Lines of the file.
    pub records: u64,
    /// How often the loader was killed.
    pub kills: u32,
    /// Batches acknowledged before the kills, all found.
    pub acknowledged: u64,
    /// Batches found beyond those (in flight when the kill came), each whole.
    pub extra: u64,
    /// Time of the last, undisturbed load, checkpoint included.
    pub load: Duration,
    /// Time to read every record back.
    pub read_back: Duration,
}

fn key(record: u64) -> [u8; 8] {
    record.to_be_bytes()
}

/// Loads lines from record `from` on, in batches of [`BATCH`], and reports the number of every batch acknowledged.
///
/// # Errors
/// Whatever the database or the file answers.
pub fn load(
    dir: &Path,
    file: &Path,
    from: u64,
    report: &mut dyn Write,
) -> Result<u64, Box<dyn std::error::Error>> {
    let db = Database::open_or_create(dir)?;
    let table = db.table(TABLE)?;
    let lines = BufReader::new(std::fs::File::open(file)?).split(b'\n');
    let mut batch = WriteBatch::new();
    let mut next = from;
    for (record, line) in lines.enumerate().skip(from as usize) {
        batch.put(&table, key(record as u64), line?)?;
        next = record as u64 + 1;
        if next.is_multiple_of(BATCH) {
            db.write(std::mem::take(&mut batch))?;
            writeln!(report, "{}", next / BATCH)?;
            report.flush()?;
        }
    }
    db.write(batch)?;
    db.close()?;
    Ok(next)
}

/// Kills the loader `kills` times (the command line `loader` followed by directory, file and first record starts one), looks
/// each time at what survived, lets the last one finish, and reads every record back.
///
/// # Errors
/// Whatever the database or the file answers.
///
/// # Panics
/// If the promise was broken.
pub fn run(
    loader: &dyn Fn() -> Command,
    dir: &Path,
    file: &Path,
    kills: u32,
) -> Result<Outcome, Box<dyn std::error::Error>> {
    let mut lines = Vec::new();
    std::fs::File::open(file)?.read_to_end(&mut lines)?;
    let lines: Vec<&[u8]> =
        lines.strip_suffix(b"\n").unwrap_or(&lines).split(|&byte| byte == b'\n').collect();
    let batches = lines.len() as u64 / BATCH;
    let (mut acknowledged, mut extra, mut from) = (0, 0, 0);
    for kill in 0..kills {
        let mut child = loader().arg(dir).arg(file).arg(from.to_string()).stdout(Stdio::piped()).spawn()?;
        let mut reports = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        // Somewhere in what is left, by count: no clock decides.
        let stop_after = from / BATCH + (batches - from / BATCH) / u64::from(kills - kill + 1);
        let mut last = from / BATCH;
        while last < stop_after
            && let Some(line) = reports.next()
        {
            last = line?.parse()?;
        }
        child.kill()?;
        // Reports that were in the pipe when the kill came are acknowledgements too.
        for line in reports {
            if let Ok(number) = line?.parse() {
                last = number;
            }
        }
        child.wait()?;
        let db = Database::open(dir)?;
        let table = db.table(TABLE)?;
        let mut found = 0_u64;
        let mut range = table.iter()?;
        while let Some((k, v)) = range.next_ref()? {
            assert_eq!(k, key(found), "records must be there from the first on, without a gap");
            assert_eq!(v, lines[found as usize], "record {found}");
            found += 1;
        }
        drop(range);
        assert!(found >= last * BATCH, "{last} batches were acknowledged, {found} records are there");
        assert!(found.is_multiple_of(BATCH), "{found} records: half a batch");
        assert!(db.check()?.is_clean());
        acknowledged += last - from / BATCH;
        extra += found / BATCH - last;
        from = found;
        db.close()?;
    }
    let started = Instant::now();
    let status = loader().arg(dir).arg(file).arg(from.to_string()).stdout(Stdio::null()).status()?;
    assert!(status.success());
    let load = started.elapsed();
    let db = Database::open(dir)?;
    assert!(db.check()?.is_clean());
    let table = db.table(TABLE)?;
    let started = Instant::now();
    for (record, &line) in lines.iter().enumerate() {
        let found = table.get(key(record as u64))?.ok_or("a record is missing")?;
        assert_eq!(&*found, line, "record {record}");
    }
    let read_back = started.elapsed();
    assert_eq!(table.iter()?.count(), lines.len());
    db.close()?;
    Ok(Outcome { records: lines.len() as u64, kills, acknowledged, extra, load, read_back })
}
