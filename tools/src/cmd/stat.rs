//! `bedstone stat`.

use std::path::PathBuf;

use bedstone::{Database, IoMode, IoReport, TableStats};
use clap::Args;
use serde_json::{Value as Json, json};

use crate::cli::Global;
use crate::failure::{Answer, Failure};
use crate::out::Out;
use crate::{bytes, store};

/// Print figures about a database and how its I/O is done
///
/// Opens the database (replaying the log if the last process did not close it) and prints its limits, its tables, what
/// recovery did, which way I/O goes and why, and the counters of buffer pool and log, which begin with this opening.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    bedstone stat places.bed --walk\n  \
    bedstone stat places.bed --json | jq .io.mode")]
pub(crate) struct Stat {
    /// Directory of the database
    db: PathBuf,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// Walk every table and tell its entries, pages, height and fill; reads the whole database
    #[arg(long)]
    walk: bool,
}

impl Stat {
    pub(crate) fn run(&self, global: &Global) -> Result<Answer, Failure> {
        let db = store::open(global, &self.db)?;
        let done = self.print(&db);
        store::close(db, done.map(|()| Answer::Yes))
    }

    fn print(&self, db: &Database) -> Result<(), Failure> {
        let mut tables = Vec::new();
        for info in db.tables()? {
            let shape = match self.walk {
                true => Some(store::table(db, &info.name)?.stats()?),
                false => None,
            };
            tables.push((info, shape));
        }
        let (stats, io, recovery, limits) = (db.stats(), db.io_report(), db.recovery(), db.limits());
        let mut out = Out::new();
        if self.json {
            let tables: Vec<_> = tables
                .iter()
                .map(|(info, shape)| {
                    json!({
                        "name": info.name, "id": info.id, "root_page": info.root_page,
                        "shape": shape.as_ref().map(shape_json),
                    })
                })
                .collect();
            let figures: Json = serde_json::from_str(&stats.to_json())
                .map_err(|e| Failure::Cannot(format!("the figures are no JSON: {e}; please report it")))?;
            out.json(&json!({
                "path": db.path().display().to_string(),
                "page_size": db.page_size(),
                "limits": {
                    "max_key_bytes": limits.max_key_bytes,
                    "max_value_bytes": limits.max_value_bytes,
                    "max_inline_bytes": limits.max_inline_bytes,
                    "max_batch_bytes": limits.max_batch_bytes,
                    "max_table_name_bytes": limits.max_table_name_bytes,
                    "max_tables": limits.max_tables,
                },
                "io": io_json(&io),
                "recovery": {
                    "clean": recovery.clean,
                    "commits": recovery.commits,
                    "records": recovery.records,
                    "from_lsn": recovery.from_lsn,
                    "end_lsn": recovery.end_lsn,
                    "end": recovery.end,
                    "opening": recovery.opening,
                },
                "tables": tables,
                "stats": figures,
            }))?;
            return out.finish();
        }
        out.line(format_args!(
            "database  {}, pages of {}",
            db.path().display(),
            bytes::size(db.page_size() as u64)
        ))?;
        out.line(format_args!("I/O       {}", io_text(&io)))?;
        out.line(format_args!(
            "recovery  {} commits replayed; {}",
            bytes::count(recovery.commits),
            recovery.end
        ))?;
        out.line(format_args!(
            "limits    keys {} bytes, values {}, batches {}",
            bytes::count(limits.max_key_bytes as u64),
            bytes::size(limits.max_value_bytes),
            bytes::size(limits.max_batch_bytes)
        ))?;
        for (info, shape) in &tables {
            out.line(format_args!("table     {} (id {})", bytes::text(info.name.as_bytes()), info.id))?;
            if let Some(shape) = shape {
                out.line(format_args!("          {}", shape_text(shape)))?;
            }
        }
        out.bytes(stats.to_string().as_bytes())?;
        out.finish()
    }
}

/// The name of an I/O mode, as BEDSTONE_IO takes it.
fn mode(io: &IoReport) -> &'static str {
    match io.mode {
        IoMode::Uring => "uring",
        IoMode::Pread => "pread",
        IoMode::Simulated => "simulated",
    }
}

/// The effective I/O mode for people.
pub(crate) fn io_text(io: &IoReport) -> String {
    format!(
        "{}, {} ({}), {} file system, alignment {} bytes",
        mode(io),
        if io.direct { "direct (O_DIRECT)" } else { "BUFFERED: through the page cache" },
        io.reason,
        if io.file_system.is_empty() { "unknown" } else { &io.file_system },
        io.offset_align,
    )
}

fn io_json(io: &IoReport) -> Json {
    json!({
        "mode": mode(io),
        "direct": io.direct,
        "reason": io.reason,
        "file_system": io.file_system,
        "mem_align": io.mem_align,
        "offset_align": io.offset_align,
    })
}

fn shape_json(shape: &TableStats) -> Json {
    json!({
        "height": shape.height,
        "entries": shape.entries,
        "leaf_pages": shape.leaf_pages,
        "inner_pages": shape.inner_pages,
        "overflow_pages": shape.overflow_pages,
        "key_bytes": shape.key_bytes,
        "value_bytes": shape.value_bytes,
        "leaf_fill": shape.leaf_fill,
    })
}

/// The shape of a table for people.
pub(crate) fn shape_text(shape: &TableStats) -> String {
    format!(
        "{} entries, {} of keys, {} of values; height {}, {} leaves {:.0} % full, {} inner nodes, {} overflow pages",
        bytes::count(shape.entries),
        bytes::size(shape.key_bytes),
        bytes::size(shape.value_bytes),
        shape.height,
        bytes::count(shape.leaf_pages),
        shape.leaf_fill * 100.0,
        bytes::count(shape.inner_pages),
        bytes::count(shape.overflow_pages),
    )
}
