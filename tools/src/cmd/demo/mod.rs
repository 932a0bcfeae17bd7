//! `bedstone demo`: shows on real data what the engine does, and checks every claim it makes.

mod crash;
mod moments;
mod page;
mod place;
mod reads;
mod report;
mod writer;

use std::path::PathBuf;

use bedstone::{Database, IoReport};
use clap::Args;

use self::place::Place;
use self::report::Report;
use crate::bytes::{count, size};
use crate::cli::Global;
use crate::failure::{Answer, Failure};
use crate::progress::{Progress, rate};
use crate::records::{Delimited, Item, Record, Records};
use crate::{cmd, store};

pub(crate) use self::writer::{WRITER, Writer};

/// The airports, from the folder `data` of this crate, where their origin and licence are told.
const AIRPORTS: &[u8] = include_bytes!("../../../data/airports.csv");
const AIRPORTS_TABLE: &str = "airports";
/// Smaller than the data, so that pages have to come and go.
const POOL_MIB: usize = 4;

/// Show what Bedstone does, on 28,298 airports
///
/// Makes a database, loads the airports, reads some of them, reads all of them through a snapshot while they are changed,
/// runs a transaction again that met a conflict, starts a process that commits writes and reports each one
/// acknowledged, kills it with SIGKILL, opens the database again and looks for every acknowledged write; prints how I/O
/// is done and what the operating system caches of the files, prints a page, and checks the whole database. Takes some
/// seconds. Exits with 1 if anything was not as it should be.
#[derive(Args)]
#[command(after_help = "Examples:\n  bedstone demo\n  bedstone demo /data/airports.bed\n\n\
    The airports are from the package airportsdata 20260905 (MIT licence, copyright Mike Borsetti and mwgg).")]
pub(crate) struct Demo {
    /// Directory to make the database in and leave it in; by default a temporary one that is removed again
    dir: Option<PathBuf>,
}

impl Demo {
    pub(crate) fn run(&self, global: &Global) -> Result<Answer, Failure> {
        let watch = Progress::hidden();
        let global = Global { pool_mib: POOL_MIB, ..global.clone() };
        let mut report = Report::new();
        let records = airports()?;

        let place = Place::find(self.dir.as_deref(), &global)?;
        let path = place.path();
        report.title("A database is made")?;
        report.line(format_args!("{}", path.display()))?;
        let db = store::open(&global, path)?;
        let io = db.io_report();
        report.line(format_args!("I/O: {}", cmd::stat::io_text(&io)))?;
        report.line(format_args!(
            "pages of {}, buffer pool of {}: less than the data, so that pages have to come and go",
            size(db.page_size() as u64),
            size((POOL_MIB as u64) << 20)
        ))?;
        let first_use = load(&db, &records, &mut report)
            .and_then(|()| reads::show(&db, &records, &mut report))
            .and_then(|()| moments::show(&db, &records, &mut report))
            .and_then(|()| caches(&db, &io, &mut report));
        store::close(db, first_use)?;

        let db = crash::show(&global, path, &records, &mut report)?;
        let second_use = statistics(&db, &io, &mut report).and_then(|()| check(&db, &mut report));
        store::close(db, second_use)?;
        page::show(path, &mut report)?;

        conclude(&place, &io, &watch, report)
    }
}

/// All airports, in the order of the file.
fn airports() -> Result<Vec<Record>, Failure> {
    let mut file = Delimited::csv(AIRPORTS, "airports.csv".as_ref(), Some("icao"))?;
    let mut records = Vec::new();
    while let Some(item) = file.next_item()? {
        match item {
            Item::Record(record) => records.push(record),
            Item::Skipped(s) => {
                return Err(Failure::Cannot(format!(
                    "airports.csv, line {}: {} {}",
                    s.line, s.reason, s.detail
                )));
            }
        }
    }
    Ok(records)
}

fn load(db: &Database, records: &[Record], report: &mut Report) -> Result<(), Failure> {
    report.title("The airports are loaded")?;
    let watch = Progress::hidden();
    let table = db.table(AIRPORTS_TABLE)?;
    let mut file = Delimited::csv(AIRPORTS, "airports.csv".as_ref(), Some("icao"))?;
    let mut batches = 0;
    let loaded = cmd::load::load(db, &table, &mut file, 1000, &watch, &mut |_| {
        batches += 1;
        Ok(())
    })?;
    report.line(format_args!(
        "{} records, {}, in {batches} atomic batches, each on the medium before the next: {:.2} s, {} records/s",
        count(loaded.records),
        size(loaded.bytes),
        watch.elapsed().as_secs_f64(),
        rate(loaded.records, watch.elapsed())
    ))?;
    report.check(loaded.records == records.len() as u64 && loaded.skipped.is_empty(), "no record was skipped")
}

/// The proof that no page of data is in memory twice.
fn caches(db: &Database, io: &IoReport, report: &mut Report) -> Result<(), Failure> {
    report.title("What the operating system caches of the files")?;
    let stats = db.stats();
    let say = |cached: Option<u64>| cached.map_or("unknown".into(), size);
    let data = stats.pool.os_cached_pages.map(|pages| pages * 4096);
    report.line(format_args!(
        "data file: {} in all, {} of it cached",
        size(stats.pool.file_bytes),
        say(data)
    ))?;
    report.line(format_args!(
        "redo log:  {} written, {} of its segments cached",
        size(stats.wal.written_bytes),
        say(stats.wal.cached_bytes)
    ))?;
    if place::past_cache(io) {
        report.check(
            data == Some(0),
            "no page of the data file is in the page cache (os_cached_pages 0): the pool alone holds data",
        )?;
        report.check(
            stats.wal.cached_bytes > Some(0),
            "the log is in the page cache, through which it is appended",
        )
    } else {
        report.line("on this file system data cannot go past the page cache, so nothing is proved here")
    }
}

fn statistics(db: &Database, io: &IoReport, report: &mut Report) -> Result<(), Failure> {
    report.title("Figures of this opening")?;
    report.line(format_args!("I/O: {}", cmd::stat::io_text(&db.io_report())))?;
    let stats = db.stats();
    report.figures(&stats.to_string())?;
    report.check(
        stats.pool.page_reads > stats.pool.frames,
        "more pages were read from the disk than the pool can hold at once",
    )?;
    if place::past_cache(io) {
        report.check(
            stats.pool.os_cached_pages == Some(0),
            "still no page of the data file is in the page cache",
        )?;
    }
    Ok(())
}

fn check(db: &Database, report: &mut Report) -> Result<(), Failure> {
    report.title("The whole database is checked")?;
    let found = db.check()?;
    for table in &found.tables {
        report.line(format_args!("table {}: {}", table.name, cmd::stat::shape_text(&table.stats)))?;
    }
    for problem in &found.problems {
        report.line(&problem.what)?;
    }
    report.check(
        found.is_clean(),
        "order, fences, levels, checksums and the owners of all space are as they should be",
    )
}

fn conclude(place: &Place, io: &IoReport, watch: &Progress, mut report: Report) -> Result<Answer, Failure> {
    report.title("What was shown")?;
    if report.failed().is_empty() {
        report.line("The database took real data that is larger than its memory and gave every byte of it back, by key,")?;
        report.line("by prefix and in reverse order. A snapshot saw one moment of it to the end while everything was changed,")?;
        report.line("and no update was lost to another one. A process was killed in the middle of its commits: everything that it")?;
        report.line("had been told is safe was there afterwards, and no commit was there in part.")?;
        if place::past_cache(io) {
            report.line("Data went past the page cache, the log through it: nothing is cached twice.")?;
        }
    } else {
        report.line("Not everything was as it should be:")?;
        for what in report.failed().to_vec() {
            report.line(format_args!("FAILED: {what}"))?;
        }
    }
    match place {
        Place::Given(path) => report.line(format_args!(
            "The database stays in {0}; try: bedstone scan {0} {AIRPORTS_TABLE} --prefix LSZ",
            path.display()
        ))?,
        Place::Temporary(_) => {
            report.line("The database is removed again; name a directory to keep it: bedstone demo DIR")?;
        }
    }
    report.line(format_args!("{:.1} s in all", watch.elapsed().as_secs_f64()))?;
    let answer = if report.failed().is_empty() { Answer::Yes } else { Answer::No };
    report.finish()?;
    Ok(answer)
}
