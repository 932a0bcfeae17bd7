//! The store that is damaged.

use std::path::{Path, PathBuf};

use bedstone::{Database, Durability, Table};
use bedstone_io::sim::{SimDisk, Snapshot};

use super::needed::Needed;
use crate::model::Model;
use crate::rng::Rng;
use crate::setup::{Config, DIR, smallest_pool};
use crate::view;

/// Where the superblocks begin.
pub(super) const SUPERBLOCKS: [u64; 2] = [0, 64 << 10];
/// The unit of space in the data file, and the first one of pages.
pub(super) const UNIT: u64 = 4096;
pub(super) const FIRST_UNIT: u64 = 32;
/// Bytes of a segment before the log, of the header in them, and of the header of a record.
pub(super) const LOG_BEGINS: u64 = 4096;
pub(super) const SEGMENT_HEADER: u64 = 64;
pub(super) const RECORD_HEADER: u64 = 40;

/// How the store's only life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Killed with much log behind the last checkpoint, the last commit being one put.
    KilledAfterPuts,
    /// The same, the last commit being a transaction that went to the log in fragments.
    KilledAfterTransaction,
    /// Killed right after a checkpoint.
    KilledAfterCheckpoint,
    /// Closed.
    Closed,
}

/// A store with tables of several levels, long values, freed and reused space.
pub(super) struct Victim {
    pub(super) config: Config,
    /// The medium as the store left it.
    pub(super) now: Snapshot,
    /// The medium some checkpoints earlier.
    pub(super) earlier: Snapshot,
    /// What the store holds, and what it held before its last commit, the last two, and three, if nothing but the log
    /// itself tells that those had become durable.
    pub(super) holds: Vec<Model>,
    /// What of the medium is in use.
    pub(super) needed: Needed,
    /// Where the last record of the log begins: which segment, and the offset in it.
    tail: (PathBuf, u64),
    /// What kind of store it is, in words.
    pub(super) shape: String,
}

impl Victim {
    /// Makes the store that the seed wants.
    pub(super) fn draw(seed: u64) -> bedstone::Result<Self> {
        let mut rng = Rng::of(&[seed, 21]);
        // The first seeds have one store of each end, and the smallest pages.
        let ends =
            [End::KilledAfterPuts, End::KilledAfterTransaction, End::Closed, End::KilledAfterCheckpoint];
        let end = ends[(seed.wrapping_sub(1) % 4) as usize];
        let page_size = if seed <= 1 { 4096 } else { *rng.pick(&[4096, 8192, 16384]) };
        let config = Config {
            page_size,
            pool_bytes: smallest_pool(page_size),
            transaction_memory: 2 << 10,
            ..Config::small()
        };
        let shape = format!("seed {seed}, pages of {page_size} bytes, {end:?}");
        let disk = SimDisk::new(seed);
        let db = config.builder(&disk).create(DIR)?;
        let tables = [db.table("one")?, db.table("two")?, db.table("three")?];
        let mut earlier = disk.snapshot();
        for round in 0..5 {
            fill(&db, &tables, round, &mut rng)?;
            db.checkpoint()?;
            if round == 1 {
                earlier = disk.snapshot();
            }
        }
        let before = behind_the_checkpoint(&db, &tables, end, &mut rng)?;
        let after = view::dump(&db)?;
        drop(tables);
        let disk = match end {
            End::Closed => {
                db.close()?;
                disk.reopen()
            }
            _ => {
                let next = disk.reopen();
                drop(db);
                next
            }
        };
        let holds = std::iter::once(after).chain(before.into_iter().rev()).collect();
        let needed = Needed::of(&disk)?;
        let mut victim =
            Self { config, now: disk.snapshot(), earlier, holds, needed, tail: (PathBuf::new(), 0), shape };
        for log in victim.logs() {
            if let Some(last) = records(&log, &victim.bytes(&log)).last() {
                victim.tail = (log, *last);
            }
        }
        Ok(victim)
    }

    /// How many of the last commits may be gone without an error after `len` bytes at `offset` of a file were damaged: none
    /// by damage of the data file.
    /// What proves that a record was durable is the record behind it. So that of the last commit is missing; and where
    /// one damage takes the last record together with the ones before it, theirs is, too.
    pub(super) fn unproven(&self, file: &Path, offset: u64, len: u64) -> usize {
        if file == self.data() {
            return 0;
        }
        let (segment, last) = &self.tail;
        let with_the_last = file == segment && offset + len > *last && len > 1;
        let most = if with_the_last { 3 } else { 1 };
        most.min(self.holds.len() - 1)
    }

    /// Every file.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.now.files()
    }

    /// The data file.
    pub(super) fn data(&self) -> PathBuf {
        Path::new(DIR).join("data")
    }

    /// The segments of the log, in order.
    pub(super) fn logs(&self) -> Vec<PathBuf> {
        self.files().into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "log")).collect()
    }

    /// The bytes of a file; none if there is no such file.
    pub(super) fn bytes(&self, file: &Path) -> Vec<u8> {
        self.now.copy_out(file).unwrap_or_default()
    }
}

/// Commits of every kind, over keys that earlier rounds have written too.
fn fill(db: &Database, tables: &[Table; 3], round: u64, rng: &mut Rng) -> bedstone::Result<()> {
    for i in 0..160 {
        let number = i + round * 7;
        let key = format!("a common part/{:04}", number % 160);
        let len = if i % 50 == 0 { 9000 } else { 60 + i as usize };
        let durability = if i % 50 == 0 { Durability::Sync } else { Durability::Relaxed };
        tables[(number % 2) as usize].put_with(key, rng.bytes(len), durability)?;
    }
    if round % 2 == 1 {
        tables[1].delete_range("a common part/0040".."a common part/0070")?;
    }
    in_fragments(db, tables, round, rng)
}

/// A transaction that does not fit into its memory.
fn in_fragments(db: &Database, tables: &[Table; 3], round: u64, rng: &mut Rng) -> bedstone::Result<()> {
    let mut tx = db.begin_write()?;
    for i in 0..40 {
        tx.put(&tables[2], format!("row {:03}", i * 17 % 40), rng.bytes(100 + i * 3))?;
    }
    tx.put(&tables[0], "round", round.to_be_bytes())?;
    tx.commit().map(drop)
}

/// The log behind the last checkpoint. Gives what was there before each of the last commits, if those are the log's end.
fn behind_the_checkpoint(
    db: &Database,
    tables: &[Table; 3],
    end: End,
    rng: &mut Rng,
) -> bedstone::Result<Vec<Model>> {
    match end {
        End::KilledAfterCheckpoint => return Ok(Vec::new()),
        End::Closed => {
            tables[1].put("last", "one")?;
            return Ok(Vec::new());
        }
        End::KilledAfterPuts | End::KilledAfterTransaction => {}
    }
    let mut before = Vec::new();
    for i in 0..250 {
        if i >= 248 {
            before.push(view::dump(db)?);
        }
        tables[1].put(format!("logged {i:03}"), rng.bytes(40 + i))?;
    }
    before.push(view::dump(db)?);
    match end {
        End::KilledAfterTransaction => in_fragments(db, tables, 9, rng)?,
        _ => tables[1].put("last", rng.bytes(300))?,
    }
    Ok(before)
}

/// The position in the log at which a segment begins, by its name.
pub(super) fn start(log: &Path) -> Option<u64> {
    log.file_stem()?.to_str()?.parse().ok()
}

/// Offsets of the records of a segment: a record's header has its own position 8 bytes from its beginning.
pub(super) fn records(log: &Path, bytes: &[u8]) -> Vec<u64> {
    let Some(start) = start(log) else { return Vec::new() };
    let places = (LOG_BEGINS..(bytes.len() as u64).saturating_sub(RECORD_HEADER)).step_by(8);
    places
        .filter(|at| {
            let field = &bytes[*at as usize + 8..*at as usize + 16];
            field == (start + at - LOG_BEGINS).to_le_bytes()
        })
        .collect()
}
