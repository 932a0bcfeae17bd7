//! The part of the demonstration that shows a page.

use std::path::Path;

use bedstone::inspect::{Inspector, PageBody};

use super::AIRPORTS_TABLE;
use super::report::Report;
use crate::cmd::page_dump::print_page;
use crate::failure::Failure;

/// Entries of a page that are shown; the others are counted.
const SHOWN: usize = 6;

/// Prints the airports' root and the pages from there to the first leaf, shortened.
pub(crate) fn show(path: &Path, report: &mut Report) -> Result<(), Failure> {
    report.title("Pages, as they lie in the data file")?;
    let inspector = Inspector::open(path)?;
    let tables = inspector.tables()?;
    let Some(table) = tables.iter().find(|table| table.name == AIRPORTS_TABLE) else {
        return report.check(false, "the last checkpoint knows the table of airports");
    };
    let mut id = table.root_page;
    loop {
        let page = inspector.page(id)?;
        print_page(&page, SHOWN, report.out())?;
        report.check(
            page.checksum == page.computed_checksum && page.findings.is_empty(),
            format_args!("page {id} is as it was written; `bedstone page-dump DB {id}` prints all of it"),
        )?;
        let next = match &page.body {
            PageBody::Inner { children, .. } => children.first().map(|(_, child)| *child),
            _ => None,
        };
        match next {
            Some(child) => id = child,
            None => return Ok(()),
        }
    }
}
