//! FORMAT.md is compared with the code: each table of offsets, sizes and numbers in it with what the code reads and
//! writes through, in both directions.

use std::collections::BTreeMap;

use bedstone_io::layout::{Layout, Measure, Numbers};

use crate::btree::node::{NODE_LAYOUTS, OVERFLOW_LAYOUTS, REFERENCE_LAYOUT};
use crate::txn::record;
use crate::{btree, catalog, create};

const FORMAT: &str = include_str!("../../docs/FORMAT.md");

const ENGINE_NUMBERS: &[Numbers] = &[
    Numbers {
        name: "Constants of the engine",
        entries: &[
            ("LSN where every log begins", create::START_LSN),
            ("number of the catalog's table", catalog::CATALOG_TABLE as u64),
            ("largest number of a table", catalog::TABLE_MAX as u64),
            ("longest value, bytes", btree::MAX_VALUE_BYTES),
        ],
    },
    Numbers {
        name: "Longest keys",
        entries: &[
            ("4096", btree::limits(4096).max_key as u64),
            ("8192", btree::limits(8192).max_key as u64),
            ("16384", btree::limits(16384).max_key as u64),
            ("32768", btree::limits(32768).max_key as u64),
            ("65536", btree::limits(65536).max_key as u64),
        ],
    },
    Numbers {
        name: "Longest cells",
        entries: &[
            ("4096", btree::limits(4096).max_inline_cell as u64),
            ("8192", btree::limits(8192).max_inline_cell as u64),
            ("16384", btree::limits(16384).max_inline_cell as u64),
            ("32768", btree::limits(32768).max_inline_cell as u64),
            ("65536", btree::limits(65536).max_inline_cell as u64),
        ],
    },
    catalog::STATES,
];

fn layouts() -> Vec<Layout> {
    let engine = [NODE_LAYOUTS, OVERFLOW_LAYOUTS, record::LAYOUTS].concat();
    let alone = vec![REFERENCE_LAYOUT, catalog::LAYOUT];
    [bedstone_bufpool::format::LAYOUTS.to_vec(), bedstone_wal::format::LAYOUTS.to_vec(), engine, alone]
        .concat()
}

fn numbers() -> Vec<Numbers> {
    [bedstone_bufpool::format::NUMBERS, bedstone_wal::format::NUMBERS, ENGINE_NUMBERS, record::NUMBERS]
        .concat()
}

/// Name of a table's section, first column of its heading, and the cells of its first columns: three in a table of a
/// layout, two in one of numbers.
type Tables = BTreeMap<(String, String), Vec<Vec<String>>>;

fn cells(line: &str) -> Vec<String> {
    line.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// The tables of a document that are to be compared, each under the heading before it.
fn documented(text: &str) -> Result<Tables, String> {
    let mut tables = Tables::new();
    let mut heading = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with('#') {
            heading = line.trim_start_matches('#').trim().to_owned();
        }
        let columns = cells(line);
        let width = match columns[0].as_str() {
            "offset" | "bit" => 3,
            "number" => 2,
            _ => continue,
        };
        if !line.starts_with('|') || !lines.next().is_some_and(|rule| rule.starts_with("|---")) {
            return Err(format!("{heading}: {line} begins no table"));
        }
        let mut rows = Vec::new();
        while let Some(row) = lines.next_if(|line| line.starts_with('|')) {
            let mut row = cells(row);
            if row.len() != columns.len() {
                return Err(format!("{heading}: a row of {} columns: {row:?}", row.len()));
            }
            row.truncate(width);
            rows.push(row);
        }
        let name = (heading.clone(), columns[0].clone());
        if tables.insert(name, rows).is_some() {
            return Err(format!("{heading} has two tables"));
        }
    }
    Ok(tables)
}

/// What the code says, as the document should say it.
fn coded() -> Tables {
    let mut tables = Tables::new();
    for layout in layouts() {
        let column = if layout.measure == Measure::Bits { "bit" } else { "offset" };
        let rows = layout.rows().into_iter().map(Vec::from).collect();
        let before = tables.insert((layout.name.to_owned(), column.to_owned()), rows);
        assert!(before.is_none(), "two layouts have the name {}", layout.name);
    }
    for numbers in numbers() {
        let rows = numbers.entries.iter().map(|(name, number)| vec![number.to_string(), (*name).to_owned()]);
        let before = tables.insert((numbers.name.to_owned(), "number".to_owned()), rows.collect());
        assert!(before.is_none(), "two lists of numbers have the name {}", numbers.name);
    }
    tables
}

fn as_text(rows: &[Vec<String>]) -> String {
    rows.iter().map(|row| format!("    | {} |\n", row.join(" | "))).collect()
}

/// Everything in which the document and the code differ.
fn differences(document: &Tables, code: &Tables) -> Vec<String> {
    let mut found = Vec::new();
    for ((name, column), rows) in code {
        match document.get(&(name.clone(), column.clone())) {
            None => found
                .push(format!("{name}: no table ({column}) in FORMAT.md; the code says\n{}", as_text(rows))),
            Some(written) if written != rows => found.push(format!(
                "{name}: FORMAT.md says\n{}  the code says\n{}",
                as_text(written),
                as_text(rows)
            )),
            Some(_) => {}
        }
    }
    let only_written = document.keys().filter(|&key| !code.contains_key(key));
    found.extend(
        only_written
            .map(|(name, column)| format!("{name}: a table ({column}) in FORMAT.md, nothing in the code")),
    );
    found
}

#[test]
fn format_md_says_what_the_code_does() {
    let found = differences(&documented(FORMAT).unwrap(), &coded());
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn layouts_have_neither_gaps_nor_overlaps() {
    let gaps: Vec<String> = layouts().iter().filter_map(Layout::gap).collect();
    assert!(gaps.is_empty(), "{gaps:#?}");
}

#[test]
fn every_kind_of_difference_is_found() {
    let code = coded();
    let count = |text: &str| differences(&documented(text).unwrap(), &code).len();
    assert_eq!(count(FORMAT), 0);
    for (from, to) in [
        ("| 16 | 8 | max LSN |", "| 16 | 4 | max LSN |"),
        ("| 16 | 8 | max LSN |", "| 17 | 8 | max LSN |"),
        ("| 16 | 8 | max LSN |", "| 16 | 8 | LSN |"),
        ("| 40 | 8 | units |", "| 40 | 9 | units |"),
        ("| 2 | inner node |", "| 7 | inner node |"),
    ] {
        assert!(FORMAT.contains(from), "{from}");
        assert_eq!(count(&FORMAT.replacen(from, to, 1)), 1, "{to}");
    }
    let without = FORMAT.replacen("### Page envelope", "### Some envelope", 1);
    assert_eq!(count(&without), 2, "a table too many and one too few");
    let short: Vec<&str> = FORMAT.lines().filter(|line| !line.starts_with("| 24 | 8 | history")).collect();
    assert_eq!(count(&short.join("\n")), 1);
}
