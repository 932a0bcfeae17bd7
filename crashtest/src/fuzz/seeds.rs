//! The inputs that fuzzing begins with: real structures of a small database, in the form that each target takes them.
//! They are the same whenever they are made.

use std::collections::BTreeMap;
use std::path::Path;

use bedstone::inspect::{Inspector, PageBody, SpaceUse};
use bedstone::typed::{Key, Place};
use bedstone::{Error, Result};

use super::data_file::{Base, base};
use crate::rng::Rng;
use crate::setup::DIR;

/// Inputs of one kind that are kept, the shortest ones.
const OF_EACH_KIND: usize = 3;

/// Target, name and bytes of every seed.
///
/// # Errors
/// The database that they come from could not be made or read.
pub fn seeds() -> Result<Vec<(&'static str, String, Vec<u8>)>> {
    let base = base();
    let mut seeds = Vec::new();
    pages(base, &mut seeds)?;
    blocks(base, &mut seeds)?;
    log(base, &mut seeds)?;
    typed(&mut seeds);
    composed(&mut seeds);
    Ok(seeds)
}

type Seeds = Vec<(&'static str, String, Vec<u8>)>;

/// Without the zeros at the end, which targets fill up.
fn trimmed(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
    &bytes[..end]
}

/// The longest run of zeros in a page, where an input leaves it out.
fn gap(page: &[u8]) -> std::ops::Range<usize> {
    let (mut best, mut start) = (0..0, 0);
    for (at, &byte) in page.iter().enumerate() {
        if byte != 0 {
            start = at + 1;
        } else if at + 1 - start > best.len() {
            best = start..at + 1;
        }
    }
    best
}

fn pages(base: &Base, seeds: &mut Seeds) -> Result<()> {
    let inspector = Inspector::open_on(base.disk.clone(), DIR)?;
    let mut by_kind: BTreeMap<&str, Vec<Vec<u8>>> = BTreeMap::new();
    let (mut records, mut envelopes) = (Vec::new(), 0);
    for id in inspector.page_ids() {
        let (dump, bytes) = (inspector.page(id)?, inspector.page_bytes(id)?);
        let kind = match &dump.body {
            PageBody::Leaf { cells, .. } if dump.table == 0 => {
                for cell in cells {
                    if let bedstone::inspect::CellValueDump::Inline(value) = &cell.value {
                        records.push([&cell.key[..], value].concat());
                    }
                }
                "catalog leaf"
            }
            PageBody::Leaf { cells, .. } if cells.len() < 30 => "small leaf",
            PageBody::Leaf { .. } => "leaf",
            PageBody::Inner { .. } => "inner",
            PageBody::OverflowIndex { .. } => "index",
            PageBody::OverflowData { .. } => "data",
            _ => continue,
        };
        let gap = gap(&bytes);
        let mut input = vec![0, 0, 3, 40, 2, 0x61, 0x30, 0x31];
        input.extend_from_slice(&(gap.start as u16).to_le_bytes());
        input.extend_from_slice(&bytes[..gap.start]);
        input.extend_from_slice(&bytes[gap.end..]);
        by_kind.entry(kind).or_default().push(input);
        if envelopes < OF_EACH_KIND {
            envelopes += 1;
            let envelope = [&[1][..], &id.to_le_bytes(), &bytes[..32]].concat();
            seeds.push(("page_envelope", format!("page-{id}"), envelope));
        }
    }
    for (kind, mut inputs) in by_kind {
        inputs.sort_by_key(Vec::len);
        for (i, input) in inputs.into_iter().take(OF_EACH_KIND).enumerate() {
            seeds.push(("page", format!("{}-{i}", kind.replace(' ', "-")), input));
        }
    }
    for (i, record) in records.into_iter().enumerate() {
        seeds.push(("catalog_record", format!("record-{i}"), record));
    }
    Ok(())
}

fn blocks(base: &Base, seeds: &mut Seeds) -> Result<()> {
    let inspector = Inspector::open_on(base.disk.clone(), DIR)?;
    let data = base.disk.copy_out(&Path::new(DIR).join("data")).map_err(Error::Io)?;
    for (i, (offset, bytes, _)) in
        inspector.space().into_iter().filter(|(_, _, owner)| *owner == SpaceUse::PageMap).enumerate()
    {
        let block = &data[offset as usize..(offset + bytes) as usize];
        seeds.push(("map_block", format!("block-{i}"), [&[1, 255], trimmed(block)].concat()));
    }
    for slot in inspector.superblocks() {
        let bytes = &data[slot.offset as usize..][..4092];
        seeds.push(("superblock", format!("slot-{}", slot.offset), [&[1], trimmed(bytes)].concat()));
    }
    Ok(())
}

fn log(base: &Base, seeds: &mut Seeds) -> Result<()> {
    let inspector = Inspector::open_on(base.disk.clone(), DIR)?;
    let segment = base.files.iter().find(|path| path.extension().is_some_and(|name| name == "log"));
    let Some(segment) = segment else { return Ok(()) };
    let bytes = base.disk.copy_out(segment).map_err(Error::Io)?;
    seeds.push(("segment_header", "first".into(), [&[1], trimmed(&bytes[..60])].concat()));
    let mut log = inspector.log(None)?;
    let mut records = Vec::new();
    while let Some(entry) = log.next_entry()? {
        let at = 4096 + entry.lsn as usize + 40;
        let Some(payload) = bytes.get(at..at + entry.payload_bytes as usize) else { continue };
        records.push([&[entry.kind], payload].concat());
    }
    records.push([&[2][..], &0_u64.to_le_bytes(), b"a piece"].concat());
    records.push([&[3][..], &[9; 8], &[2, 0, 0, 0], &[7; 8], &[1; 8]].concat());
    records.push([&[5][..], &[1; 8], &[4, 0, 0, 0]].concat());
    records.push([&[6][..], &[1; 8], &[4, 0, 0, 0], b"another name"].concat());
    records.sort_by_key(Vec::len);
    for (i, record) in records.into_iter().take(8).enumerate() {
        seeds.push(("log_record", format!("record-{i}"), record));
    }
    Ok(())
}

fn typed(seeds: &mut Seeds) {
    fn key<K: Key>(kind: u8, key: K, seeds: &mut Seeds) {
        let mut code = vec![kind];
        K::encode(key.to_ref(), Place::Last, &mut code);
        seeds.push(("typed_key", format!("type-{kind}"), code));
    }
    key(4, -0.5_f32, seeds);
    key(7, 'ü', seeds);
    key(8, "a string".to_owned(), seeds);
    key(11, Some("inside".to_owned()), seeds);
    key(12, ("station\0one".to_owned(), 17_u32), seeds);
    key(13, (Some(-3_i8), vec![0, 1, 0, 255], true), seeds);
    key(14, (vec![1, 0], Some(('x', "y".to_owned())), 1_u8, -1_i64, "z".to_owned(), vec![0]), seeds);
    key(15, (f64::NAN, None::<f32>, "end".to_owned()), seeds);
    for (kind, bytes) in [(0, &[1, 2, 3, 4][..]), (3, &[1]), (4, &[0x61, 0, 0, 0]), (6, "wörter".as_bytes())]
    {
        seeds.push(("typed_value", format!("type-{kind}"), [&[kind], bytes].concat()));
    }
    let version = |csn: u8, kind: u8, bytes: &[u8]| {
        [&[csn, 0, 0, 0, 0, 0, 0, 0, kind, bytes.len() as u8, 0, 0, 0][..], bytes].concat()
    };
    let list = [version(3, 0, b""), version(9, 1, b"an old value"), version(12, 2, &[5; 16])].concat();
    seeds.push(("history_record", "list".into(), list));
    seeds.push(("history_record", "written".into(), b"\x01a value".to_vec()));
}

/// Inputs of targets that take structures apart into choices.
fn composed(seeds: &mut Seeds) {
    // Three records, the last one of a later opening, over one segment; then the same over three, with a hole.
    let record = |flags: u8, len: u16, bytes: &[u8]| [&[flags][..], &len.to_le_bytes(), bytes].concat();
    let records = [vec![3], record(8, 5, b"hello"), record(16, 0, b""), record(9, 3, b"end")].concat();
    seeds.push(("log_directory", "one-segment".into(), [&records[..], &[0, 0, 3, 0, 0, 0]].concat()));
    let long = [vec![2], record(8, 9000, &[7; 64]), record(9, 5000, &[8; 64])].concat();
    seeds.push((
        "log_directory",
        "three-segments".into(),
        [&long[..], &[2, 0, 0, 0, 1, 0, 9, 0, 0]].concat(),
    ));
    seeds.push(("log_directory", "cut".into(), [&long[..], &[1, 0, 0, 4, 2, 0, 3, 0]].concat()));
    // A chunk of two pages, and a directory over it.
    let chunk = [&[0, 0, 0, 0, 0, 2][..], &[0x11, 1, 0, 40], &[0x11, 2, 0, 41]].concat();
    let one = [&[100, 0, 0, 0, 2, 0, 1, 0][..], &chunk].concat();
    seeds.push(("page_map", "chunk".into(), one));
    let two = [&[100, 0, 0, 0, 0, 0, 2, 1][..], &chunk, &[1, 0, 0, 0, 0, 1, 2, 0, 0]].concat();
    seeds.push(("page_map", "directory".into(), two));
    // Changes of each kind, mended and not: file, block, place.
    let mut rng = Rng::new(5);
    for file in 0..4_u8 {
        for mended in 0..2 {
            let mut input = vec![mended];
            for _ in 0..3 {
                let block = 32 + rng.below(120) as u16;
                input.extend_from_slice(&[0x10 * rng.below(16) as u8 + rng.below(13) as u8, file]);
                input.extend_from_slice(&block.to_le_bytes());
                input.extend_from_slice(&(rng.below(700) as u16).to_le_bytes());
                input.extend_from_slice(&rng.bytes(6));
            }
            seeds.push(("data_file", format!("changes-{file}-{mended}"), input));
        }
    }
    for (i, len) in [20, 60, 150, 300, 600, 900].into_iter().enumerate() {
        seeds.push(("operations", format!("choices-{i}"), Rng::new(i as u64).bytes(len)));
    }
}
