//! `bedstone check`.

use std::path::{Path, PathBuf};

use bedstone::CheckReport;
use bedstone::inspect::Inspector;
use clap::Args;
use serde_json::{Value as Json, json};

use crate::cli::Global;
use crate::failure::{Answer, Failure};
use crate::out::Out;
use crate::{bytes, store};

/// Check a whole database for damage
///
/// Opens it (replaying the log if the last process did not close it), then walks every table: the order of keys and
/// the fences of every page, the levels, the chains of long values, every checksum; compares the pages in use with the
/// page map and the space with its owners, and names leaked and doubly used ones. If it cannot even be opened because
/// of damage, the images of its pages are checked one by one.
#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 clean, 1 damage found, 2 it could not be checked, 3 called wrongly.\n\n\
    Example:\n  bedstone check places.bed && echo all well"
)]
pub(crate) struct Check {
    /// Directory of the database
    db: PathBuf,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(crate) fn run(&self, global: &Global) -> Result<Answer, Failure> {
        let db = match store::open(global, &self.db) {
            Ok(db) => db,
            Err(Failure::Engine(e)) if e.is_corruption() => return self.check_pages(&e),
            Err(e) => return Err(e),
        };
        match db.check() {
            Ok(report) => {
                // Damage may keep the database from closing well; the report is what was asked for.
                let closed = db.close();
                let answer = self.print(&report)?;
                if answer == Answer::Yes {
                    closed?;
                }
                Ok(answer)
            }
            Err(e) if e.is_corruption() => {
                drop(db);
                self.check_pages(&e)
            }
            Err(e) => Err(e.into()),
        }
    }

    fn print(&self, report: &CheckReport) -> Result<Answer, Failure> {
        let mut out = Out::new();
        if self.json {
            let problems: Vec<_> = report
                .problems
                .iter()
                .map(|p| json!({"table": p.table, "page": p.page, "what": p.what}))
                .collect();
            let tables: Vec<_> = report
                .tables
                .iter()
                .map(|t| json!({"name": t.name, "id": t.id, "entries": t.stats.entries, "height": t.stats.height}))
                .collect();
            out.json(&json!({
                "clean": report.is_clean(),
                "problems": problems,
                "tables": tables,
                "pages": report.pages,
                "file_bytes": report.file_bytes,
                "free_bytes": report.free_bytes,
            }))?;
        } else {
            for table in &report.tables {
                let name = bytes::text(table.name.as_bytes());
                out.line(format_args!("table {name}: {}", super::stat::shape_text(&table.stats)))?;
            }
            out.line(format_args!(
                "{} pages in use, data file of {}, {} of it free",
                bytes::count(report.pages),
                bytes::size(report.file_bytes),
                bytes::size(report.free_bytes)
            ))?;
            for problem in &report.problems {
                let place = match (&problem.table, problem.page) {
                    (Some(table), Some(page)) => format!("table {:?}, page {page}: ", table),
                    (Some(table), None) => format!("table {:?}: ", table),
                    (None, Some(page)) => format!("page {page}: "),
                    (None, None) => String::new(),
                };
                out.line(format_args!("DAMAGE  {place}{}", problem.what))?;
            }
            if report.is_clean() {
                out.line("clean: nothing is wrong")?;
            } else {
                out.line(format_args!("{} problems", bytes::count(report.problems.len() as u64)))?;
            }
        }
        out.finish()?;
        Ok(if report.is_clean() { Answer::Yes } else { Answer::No })
    }

    /// What can be said of a database that does not open.
    fn check_pages(&self, why: &bedstone::Error) -> Result<Answer, Failure> {
        let mut problems = vec![json!({"table": null, "page": null, "what": why.to_string()})];
        let mut pages = 0;
        match Inspector::open(&self.db) {
            Ok(inspector) => pages = damaged_pages(&inspector, &self.db, &mut problems),
            Err(e) => problems.push(json!({"table": null, "page": null, "what": e.to_string()})),
        }
        let mut out = Out::new();
        if self.json {
            out.json(&json!({"clean": false, "opened": false, "problems": problems, "pages": pages}))?;
        } else {
            out.line(format_args!(
                "the database cannot be opened; checked the images of {} pages of its last checkpoint",
                bytes::count(pages)
            ))?;
            for problem in &problems {
                out.line(format_args!("DAMAGE  {}", problem["what"].as_str().unwrap_or_default()))?;
            }
        }
        out.finish()?;
        Ok(Answer::No)
    }
}

/// Adds what is wrong with the pages of the last checkpoint; returns how many were looked at.
fn damaged_pages(inspector: &Inspector, db: &Path, problems: &mut Vec<Json>) -> u64 {
    let mut add = |page: Option<u32>, what: String| {
        problems.push(json!({"table": null, "page": page, "what": what}));
    };
    for superblock in inspector.superblocks() {
        if let Some(problem) = superblock.problem {
            add(None, format!("{}: superblock at offset {}: {problem}", db.display(), superblock.offset));
        }
    }
    let pages = inspector.page_ids();
    for &page in &pages {
        match inspector.page(page) {
            Ok(dump) => {
                for finding in dump.findings {
                    add(Some(page), format!("page {page} at offset {}: {finding}", dump.offset));
                }
            }
            Err(e) => add(Some(page), e.to_string()),
        }
    }
    pages.len() as u64
}
