//! `bedstone page-dump`.

use std::path::PathBuf;
use std::str::FromStr;

use bedstone::inspect::{CellValueDump, Inspector, PageBody, PageDump as Page, SuperblockDump};
use clap::Args;
use serde_json::{Map, Value as Json, json};

use crate::bytes;
use crate::failure::{Answer, Failure};
use crate::out::Out;

/// Characters of a key or value that the text form shows.
const SHOWN: usize = 100;

/// Print pages as they lie in the data file
///
/// Reads the images of the last checkpoint without opening the database: nothing is recovered, written or locked, so
/// what only the log holds is not to be seen. In a database that is open elsewhere a page may be replaced while it is
/// looked at and then be reported as damaged; close it first.
///
/// Without PAGE: the superblocks, the tables and one line for each page. With PAGE: header, fences, slots, keys and
/// values of that page, with its checksum as stored and as computed; long keys and values are cut after 100 characters,
/// but not with --json. Exits with 1 when something is wrong with what was printed.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    bedstone page-dump places.bed                   all pages, one line each\n  \
    bedstone page-dump places.bed 7                 page 7 taken apart\n  \
    bedstone page-dump places.bed 1..10 --json      pages 1 to 9, a JSON object each\n  \
    bedstone page-dump places.bed 7 --hex           its bytes")]
pub(crate) struct PageDump {
    /// Directory of the database
    db: PathBuf,
    /// A page id; or FROM..TO, without TO; or FROM..=TO, with it; either end may be left out
    #[arg(value_name = "PAGE|FROM..TO")]
    pages: Option<Pages>,
    /// A JSON object a line: for each page, or without PAGE for superblocks, tables and then each page
    #[arg(long, conflicts_with = "hex")]
    json: bool,
    /// The bytes of the pages, 16 a line with their offset in the page
    #[arg(long, requires = "pages")]
    hex: bool,
}

/// A range of page ids, both ends part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pages {
    first: u32,
    last: u32,
    /// One page was named, so it must be there.
    single: bool,
}

impl FromStr for Pages {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u32>().map_err(|_| format!("{text:?} is no page id"));
        let Some((from, to)) = text.split_once("..") else {
            let page = number(text)?;
            return Ok(Self { first: page, last: page, single: true });
        };
        let first = if from.is_empty() { 0 } else { number(from)? };
        let last = match to.strip_prefix('=') {
            Some(to) => number(to)?,
            None if to.is_empty() => u32::MAX,
            None => number(to)?.checked_sub(1).ok_or("there are no pages before 0")?,
        };
        if first > last {
            return Err("there are no pages between these two".into());
        }
        Ok(Self { first, last, single: false })
    }
}

impl PageDump {
    pub(crate) fn run(&self) -> Result<Answer, Failure> {
        let inspector = Inspector::open(&self.db)?;
        let mut out = Out::new();
        let mut clean = true;
        if self.pages.is_none() {
            clean &= self.overview(&inspector, &mut out)?;
        }
        let ids = match self.pages {
            Some(Pages { first, single: true, .. }) => vec![first],
            Some(Pages { first, last, .. }) => {
                inspector.page_ids().into_iter().filter(|id| (first..=last).contains(id)).collect()
            }
            None => inspector.page_ids(),
        };
        for id in ids {
            clean &= self.page(&inspector, id, &mut out)?;
        }
        out.finish()?;
        Ok(if clean { Answer::Yes } else { Answer::No })
    }

    /// What the pages hang on. Tells whether all is well with it.
    fn overview(&self, inspector: &Inspector, out: &mut Out) -> Result<bool, Failure> {
        let superblocks = inspector.superblocks();
        let tables = inspector.tables();
        let map_problems = inspector.map_problems();
        let clean =
            tables.is_ok() && map_problems.is_empty() && superblocks.iter().all(|s| s.problem.is_none());
        let id = bytes::hex(&inspector.database_id());
        if self.json {
            let superblocks: Vec<_> = superblocks.iter().map(superblock_json).collect();
            let (tables, tables_problem) = match &tables {
                Ok(tables) => {
                    let one = |t: &bedstone::TableInfo| json!({"name": t.name, "id": t.id, "root_page": t.root_page});
                    (tables.iter().map(one).collect::<Vec<_>>(), None)
                }
                Err(e) => (Vec::new(), Some(e.to_string())),
            };
            out.json(&json!({
                "database": id,
                "page_size": inspector.page_size(),
                "superblocks": superblocks,
                "page_map_problems": map_problems,
                "tables": tables,
                "tables_problem": tables_problem,
            }))?;
            return Ok(clean);
        }
        out.line(format_args!("database {id}, pages of {} bytes", inspector.page_size()))?;
        for s in &superblocks {
            let state = s.problem.as_ref().map_or_else(
                || {
                    format!(
                        "checkpoint {}, opening {}, replay from lsn {}, log end {}, next page id {}",
                        s.checkpoint, s.opening, s.replay_lsn, s.log_end, s.next_page_id
                    )
                },
                |problem| format!("DAMAGE: {problem}"),
            );
            out.line(format_args!("superblock at offset {}: {state}", s.offset))?;
        }
        for problem in &map_problems {
            out.line(format_args!("DAMAGE: page map: {problem}"))?;
        }
        match &tables {
            Ok(tables) => {
                for t in tables {
                    let name = bytes::text(t.name.as_bytes());
                    out.line(format_args!("table {name}: id {}, root page {}", t.id, t.root_page))?;
                }
            }
            Err(e) => out.line(format_args!("DAMAGE: the tables cannot be read: {e}"))?,
        }
        out.line("")?;
        out.line(format_args!(
            "{:>8} {:>12} {:>6} {:<14} {:>5} {:>6} {:>6} {:>6} {:>12} {:<10}",
            "page", "offset", "bytes", "kind", "level", "table", "items", "free", "max lsn", "checksum"
        ))?;
        Ok(clean)
    }

    /// Prints one page. Tells whether all is well with it.
    fn page(&self, inspector: &Inspector, id: u32, out: &mut Out) -> Result<bool, Failure> {
        if self.hex {
            return self.page_hex(inspector, id, out);
        }
        let page = match inspector.page(id) {
            Ok(page) => page,
            // One page that cannot be read must not hide the others.
            Err(e) if !self.pages.is_some_and(|pages| pages.single) => {
                if self.json {
                    out.json(&json!({"page": id, "findings": [e.to_string()]}))?;
                } else {
                    out.line(format_args!("{id:>8} DAMAGE: {e}"))?;
                }
                return Ok(false);
            }
            Err(e) => return Err(e.into()),
        };
        match (self.json, self.pages) {
            (true, _) => out.json(&page_json(&page))?,
            (false, None) => out.line(summary(&page))?,
            (false, Some(_)) => print_page(&page, usize::MAX, out)?,
        }
        Ok(page.findings.is_empty())
    }

    fn page_hex(&self, inspector: &Inspector, id: u32, out: &mut Out) -> Result<bool, Failure> {
        let image = inspector.page_bytes(id)?;
        // The bytes are printed whatever is wrong with them; whether anything is decides the exit code.
        let clean = match inspector.page(id) {
            Ok(page) => {
                out.line(format_args!("page {id} at offset {} of the data file", page.offset))?;
                for finding in &page.findings {
                    out.line(format_args!("DAMAGE: {finding}"))?;
                }
                page.findings.is_empty()
            }
            Err(e) => {
                out.line(format_args!("page {id}: DAMAGE: {e}"))?;
                false
            }
        };
        let mut repeated = false;
        for (i, row) in image.chunks(16).enumerate() {
            let same = i > 0 && row == &image[16 * (i - 1)..16 * i] && 16 * i + row.len() < image.len();
            if same {
                // As hexdump does: a star stands for rows like the one above.
                if !repeated {
                    out.line("*")?;
                }
                repeated = true;
                continue;
            }
            repeated = false;
            out.line(hex_row(16 * i, row))?;
        }
        Ok(clean)
    }
}

/// Offset, bytes and printable characters of up to 16 bytes.
fn hex_row(offset: usize, row: &[u8]) -> String {
    let mut text = format!("{offset:06x} ");
    for i in 0..16 {
        if i == 8 {
            text.push(' ');
        }
        match row.get(i) {
            Some(byte) => text.push_str(&format!(" {byte:02x}")),
            None => text.push_str("   "),
        }
    }
    text.push_str("  |");
    text.extend(row.iter().map(|&b| if (0x20..0x7f).contains(&b) { b as char } else { '.' }));
    text.push('|');
    text
}

fn superblock_json(s: &SuperblockDump) -> Json {
    json!({
        "offset": s.offset,
        "problem": s.problem,
        "checkpoint": s.checkpoint,
        "opening": s.opening,
        "replay_lsn": s.replay_lsn,
        "log_end": s.log_end,
        "next_page_id": s.next_page_id,
        "page_size": s.page_size,
    })
}

/// What a page is, in a word.
fn kind(body: &PageBody) -> &'static str {
    match body {
        PageBody::Leaf { .. } => "leaf",
        PageBody::Inner { .. } => "inner",
        PageBody::OverflowIndex { .. } => "overflow-index",
        PageBody::OverflowData { .. } => "overflow-data",
        _ => "unreadable",
    }
}

/// A page on one line.
fn summary(page: &Page) -> String {
    let (items, free) = match &page.body {
        PageBody::Leaf { cells, free_bytes, .. } => (cells.len().to_string(), free_bytes.to_string()),
        PageBody::Inner { children, .. } => (children.len().to_string(), "-".into()),
        PageBody::OverflowIndex { pages, .. } => (pages.len().to_string(), "-".into()),
        PageBody::OverflowData { bytes } => (bytes.len().to_string(), "-".into()),
        _ => ("-".into(), "-".into()),
    };
    let mut line = format!(
        "{:>8} {:>12} {:>6} {:<14} {:>5} {:>6} {items:>6} {free:>6} {:>12} {:#010x}",
        page.page,
        page.offset,
        page.bytes,
        kind(&page.body),
        page.level,
        page.table,
        page.max_lsn,
        page.checksum
    );
    for finding in &page.findings {
        line.push_str(&format!("\n         DAMAGE: {finding}"));
    }
    line
}

/// Prints a page for people, with at most so many of its entries or children.
pub(crate) fn print_page(page: &Page, items: usize, out: &mut Out) -> Result<(), Failure> {
    out.line(format_args!(
        "page {}: {} of table {}, level {}, {} bytes at offset {} of the data file",
        page.page,
        kind(&page.body),
        page.table,
        page.level,
        page.bytes,
        page.offset
    ))?;
    out.line(format_args!("  max lsn   {}", page.max_lsn))?;
    let verdict = if page.checksum == page.computed_checksum { "they agree" } else { "THEY DIFFER" };
    out.line(format_args!(
        "  checksum  {:#010x} found, {:#010x} expected from its bytes: {verdict}",
        page.checksum, page.computed_checksum
    ))?;
    for finding in &page.findings {
        out.line(format_args!("  DAMAGE    {finding}"))?;
    }
    let fences = |out: &mut Out, lower: &[u8], upper: &Option<Vec<u8>>| {
        let upper = match upper {
            Some(upper) => format!("before \"{}\"", bytes::short_text(upper, SHOWN)),
            None => "no end".into(),
        };
        out.line(format_args!("  fences    from \"{}\", {upper}", bytes::short_text(lower, SHOWN)))
    };
    let more = |out: &mut Out, all: usize| match all.saturating_sub(items) {
        0 => Ok(()),
        left => out.line(format_args!("         and {left} more")),
    };
    match &page.body {
        PageBody::Leaf { lower, upper, prefix, free_bytes, cells } => {
            fences(out, lower, upper)?;
            out.line(format_args!("  prefix    \"{}\"", bytes::short_text(prefix, SHOWN)))?;
            out.line(format_args!("  {} slots, {free_bytes} bytes free", cells.len()))?;
            for (slot, cell) in cells.iter().enumerate().take(items) {
                let value = match &cell.value {
                    CellValueDump::Inline(value) => bytes::short_text(value, SHOWN),
                    CellValueDump::Overflow { len, index_page } => {
                        format!("[{} in pages below index page {index_page}]", bytes::size(*len))
                    }
                    _ => "[?]".into(),
                };
                out.line(format_args!("  {slot:>5}  {} = {value}", bytes::short_text(&cell.key, SHOWN)))?;
            }
            more(out, cells.len())?;
        }
        PageBody::Inner { lower, upper, children } => {
            fences(out, lower, upper)?;
            out.line(format_args!("  {} children", children.len()))?;
            for (slot, (separator, child)) in children.iter().enumerate().take(items) {
                let from = if slot == 0 {
                    "from the lower fence".into()
                } else {
                    format!("from \"{}\"", bytes::short_text(separator, SHOWN))
                };
                out.line(format_args!("  {slot:>5}  page {child:>8}  {from}"))?;
            }
            more(out, children.len())?;
        }
        PageBody::OverflowIndex { pages, level } => {
            let below = if *level == 0 { "data" } else { "index" };
            out.line(format_args!("  {} {below} pages: {pages:?}", pages.len()))?;
        }
        PageBody::OverflowData { bytes: value } => {
            out.line(format_args!("  {} bytes: {}", value.len(), bytes::short_text(value, SHOWN)))?;
        }
        _ => out.line("  the content cannot be trusted; --hex shows the bytes")?,
    }
    Ok(())
}

/// A page in full, for programs.
fn page_json(page: &Page) -> Json {
    let mut object = Map::new();
    let mut put = |name: &str, value: Json| object.insert(name.into(), value);
    put("page", page.page.into());
    put("offset", page.offset.into());
    put("bytes", page.bytes.into());
    put("kind", kind(&page.body).into());
    put("kind_byte", page.kind.into());
    put("level", page.level.into());
    put("table", page.table.into());
    put("max_lsn", page.max_lsn.into());
    put("checksum_found", format!("{:#010x}", page.checksum).into());
    put("checksum_expected", format!("{:#010x}", page.computed_checksum).into());
    put("findings", json!(page.findings));
    let fences = |object: &mut Map<String, Json>, lower: &[u8], upper: &Option<Vec<u8>>| {
        bytes::put_json(object, "lower_fence", lower);
        match upper {
            Some(upper) => bytes::put_json(object, "upper_fence", upper),
            None => drop(object.insert("upper_fence".into(), Json::Null)),
        }
    };
    match &page.body {
        PageBody::Leaf { lower, upper, prefix, free_bytes, cells } => {
            fences(&mut object, lower, upper);
            bytes::put_json(&mut object, "prefix", prefix);
            object.insert("free_bytes".into(), json!(free_bytes));
            let cells = cells.iter().map(|cell| {
                let mut object = Map::new();
                bytes::put_json(&mut object, "key", &cell.key);
                match &cell.value {
                    CellValueDump::Inline(value) => bytes::put_json(&mut object, "value", value),
                    CellValueDump::Overflow { len, index_page } => {
                        object.insert("overflow".into(), json!({"bytes": len, "index_page": index_page}));
                    }
                    _ => {}
                }
                Json::Object(object)
            });
            object.insert("cells".into(), cells.collect());
        }
        PageBody::Inner { lower, upper, children } => {
            fences(&mut object, lower, upper);
            let children = children.iter().enumerate().map(|(slot, (separator, child))| {
                let mut object = Map::new();
                if slot > 0 {
                    bytes::put_json(&mut object, "separator", separator);
                }
                object.insert("page".into(), json!(child));
                Json::Object(object)
            });
            object.insert("children".into(), children.collect());
        }
        PageBody::OverflowIndex { pages, level } => {
            object.insert("index_level".into(), json!(level));
            object.insert("pages".into(), json!(pages));
        }
        PageBody::OverflowData { bytes: value } => bytes::put_json(&mut object, "data", value),
        _ => {}
    }
    Json::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_pages() {
        let pages = |text: &str| text.parse::<Pages>().map(|p| (p.first, p.last, p.single));
        assert_eq!(pages("7"), Ok((7, 7, true)));
        assert_eq!(pages("1..10"), Ok((1, 9, false)));
        assert_eq!(pages("1..=10"), Ok((1, 10, false)));
        assert_eq!(pages("5.."), Ok((5, u32::MAX, false)));
        assert_eq!(pages("..5"), Ok((0, 4, false)));
        assert_eq!(pages(".."), Ok((0, u32::MAX, false)));
        for wrong in ["", "x", "-1", "3..3", "..0", "4..2", "1..=", "4294967296"] {
            assert!(pages(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn rows_of_bytes_line_up() {
        let whole = hex_row(0x20, b"0123456789abcdef");
        assert_eq!(whole, "000020  30 31 32 33 34 35 36 37  38 39 61 62 63 64 65 66  |0123456789abcdef|");
        assert_eq!(hex_row(0, b"\0").find('|'), whole.find('|'));
    }
}
