//! Everything that may happen to the files of a store.

use std::path::{Path, PathBuf};

use super::damage::Damage;
use super::victim::{
    FIRST_UNIT, LOG_BEGINS, RECORD_HEADER, SEGMENT_HEADER, SUPERBLOCKS, UNIT, Victim, records, start,
};
use super::{Case, Theme};
use crate::rng::Rng;
use crate::setup::DIR;

/// Bytes of the header of a page, with that of a node behind it.
const PAGE_HEADER: u64 = 32;
const NODE_HEADER: u64 = 32;
/// Fields of a superblock.
const SUPERBLOCK_FIELDS: u64 = 104;
const SECTOR: u64 = 512;

/// Every damage of this store.
pub(super) fn all(victim: &Victim, seed: u64) -> Vec<Case> {
    let mut list = List { victim, rng: Rng::of(&[seed, 23]), cases: Vec::new(), theme: Theme::Superblocks };
    for theme in Theme::ALL {
        list.theme = theme;
        match theme {
            Theme::Superblocks => list.superblocks(),
            Theme::Blocks => list.blocks(),
            Theme::Replaced => list.replaced(),
            Theme::Log => list.log(),
            Theme::Cuts => list.cuts(),
            Theme::Files => list.files(),
            Theme::WhileOpen => list.while_open(),
        }
    }
    list.cases
}

struct List<'v> {
    victim: &'v Victim,
    rng: Rng,
    cases: Vec<Case>,
    theme: Theme,
}

impl List<'_> {
    fn add(&mut self, file: &Path, damage: Damage) {
        self.cases.push(Case { theme: self.theme, file: file.to_path_buf(), damage });
    }

    fn every_bit(&mut self, file: &Path, bytes: impl IntoIterator<Item = u64>) {
        for offset in bytes {
            (0..8).for_each(|bit| self.add(file, Damage::Flip { offset, bit }));
        }
    }

    fn some_bit(&mut self, file: &Path, offset: u64) {
        let bit = self.rng.below(8) as u32;
        self.add(file, Damage::Flip { offset, bit });
    }

    fn units(&self) -> u64 {
        self.victim.bytes(&self.victim.data()).len() as u64 / UNIT
    }

    fn superblocks(&mut self) {
        let data = self.victim.data();
        for slot in SUPERBLOCKS {
            self.every_bit(&data, (0..SUPERBLOCK_FIELDS + 4).chain(4092..4096).map(|byte| slot + byte));
            for _ in 0..40 {
                let byte = self.rng.between(SUPERBLOCK_FIELDS, 4091);
                self.some_bit(&data, slot + byte);
            }
        }
        for offset in (0..SUPERBLOCK_FIELDS).chain(4092..4096) {
            let bit = self.rng.below(8) as u32;
            self.add(&data, Damage::FlipBoth { offset, bit });
        }
    }

    /// A page larger than a unit has a header in its first unit only; all units are treated as if they had one. Of those
    /// that nothing uses a few bits do.
    fn blocks(&mut self) {
        let data = self.victim.data();
        for unit in FIRST_UNIT..self.units() {
            let at = unit * UNIT;
            if self.victim.needed.image(&data, at).is_none() {
                (0..8).for_each(|_| {
                    let byte = self.rng.below(UNIT);
                    self.some_bit(&data, at + byte);
                });
                continue;
            }
            self.every_bit(&data, at..at + PAGE_HEADER);
            for byte in PAGE_HEADER..PAGE_HEADER + NODE_HEADER {
                self.some_bit(&data, at + byte);
            }
            for _ in 0..24 {
                let byte = self.rng.below(UNIT);
                self.some_bit(&data, at + byte);
            }
        }
    }

    fn replaced(&mut self) {
        let data = self.victim.data();
        let past = self.victim.earlier.copy_out(&data).unwrap_or_default();
        let now = self.victim.bytes(&data);
        let units = self.units();
        for unit in FIRST_UNIT..units {
            let at = unit * UNIT;
            self.add(&data, Damage::Zeros { offset: at, len: UNIT });
            self.add(&data, Damage::Garbage { offset: at, len: UNIT });
            for sector in 0..UNIT / SECTOR {
                self.add(&data, Damage::Zeros { offset: at + sector * SECTOR, len: SECTOR });
                self.add(&data, Damage::Garbage { offset: at + sector * SECTOR, len: SECTOR });
            }
            let range = at as usize..(at + UNIT) as usize;
            if past.get(range.clone()).is_some_and(|past| past != &now[range]) {
                self.add(&data, Damage::Past { offset: at, len: UNIT });
                let sector = at + self.rng.below(UNIT / SECTOR) * SECTOR;
                self.add(&data, Damage::Past { offset: sector, len: SECTOR });
            }
            for _ in 0..3 {
                let other = self.rng.between(FIRST_UNIT, units - 1);
                self.add(&data, Damage::Swap { a: at, b: other * UNIT, len: UNIT });
            }
        }
    }

    fn log(&mut self) {
        for log in self.victim.logs() {
            let len = self.victim.bytes(&log).len() as u64;
            self.every_bit(&log, 0..SEGMENT_HEADER.min(len));
            for _ in 0..20 {
                let byte = self.rng.between(SEGMENT_HEADER, LOG_BEGINS - 1);
                self.some_bit(&log, byte);
            }
            let records = records(&log, &self.victim.bytes(&log));
            for (i, at) in records.iter().enumerate() {
                if i == 0 || i + 2 >= records.len() || i % 50 == 25 {
                    self.every_bit(&log, *at..at + RECORD_HEADER);
                }
                for _ in 0..8 {
                    let byte = self.rng.below(RECORD_HEADER);
                    self.some_bit(&log, at + byte);
                }
                let end = records.get(i + 1).map_or(at + RECORD_HEADER + 8, |next| *next).min(len);
                for _ in 0..2 {
                    let byte = self.rng.between(*at, end - 1);
                    self.some_bit(&log, byte);
                }
            }
            for sector in (LOG_BEGINS..len).step_by(SECTOR as usize) {
                self.add(&log, Damage::Zeros { offset: sector, len: SECTOR });
                self.add(&log, Damage::Garbage { offset: sector, len: SECTOR });
                let other = LOG_BEGINS + self.rng.below((len - LOG_BEGINS) / SECTOR) * SECTOR;
                self.add(&log, Damage::Swap { a: sector, b: other, len: SECTOR });
            }
        }
    }

    fn cuts(&mut self) {
        for file in self.victim.files() {
            let bytes = self.victim.bytes(&file);
            let len = bytes.len() as u64;
            let mut lens: Vec<u64> = vec![0, 1, 7, 8, 511, 512, 4095, 4096, 4097];
            lens.extend([1, 8, 512, 4096].map(|short| len.saturating_sub(short)));
            lens.extend((0..40).map(|_| self.rng.below(len)));
            if file == self.victim.data() {
                lens.extend((0..len).step_by(UNIT as usize));
            } else {
                lens.extend(0..SEGMENT_HEADER + 8);
                let records = records(&file, &bytes);
                for at in &records {
                    lens.extend([at - 1, *at, at + 1, at + RECORD_HEADER - 1, at + RECORD_HEADER]);
                }
                // The last record, byte by byte.
                if let Some(last) = records.last() {
                    lens.extend(*last..last + 400);
                }
            }
            lens.retain(|cut| *cut < len);
            lens.sort_unstable();
            lens.dedup();
            lens.into_iter().for_each(|len| self.add(&file, Damage::Cut { len }));
        }
    }

    fn files(&mut self) {
        let foreign: [&[u8]; 3] = [b"", b"{\"this\": \"is some other file\"}\n", &[0xa5; 200_000]];
        let there_then = self.victim.earlier.files();
        for file in self.victim.files() {
            self.add(&file, Damage::Remove);
            if there_then.contains(&file) {
                self.add(&file, Damage::Earlier);
            }
            for bytes in foreign {
                self.add(&file, Damage::Foreign { bytes: bytes.to_vec() });
            }
            for other in self.victim.files().into_iter().filter(|other| *other != file) {
                self.add(&file, Damage::CopyOf { other });
            }
        }
        let logs = self.victim.logs();
        for (i, log) in logs.iter().enumerate() {
            for other in &logs[i + 1..] {
                self.add(log, Damage::SwapNames { other: other.clone() });
            }
        }
        for extra in self.extra_names() {
            for bytes in foreign {
                self.add(&extra, Damage::Foreign { bytes: bytes.to_vec() });
            }
            if let Some(other) = logs.first() {
                self.add(&extra, Damage::CopyOf { other: other.clone() });
            }
        }
    }

    /// Names that were not there, some of them such as the store gives.
    fn extra_names(&self) -> Vec<PathBuf> {
        let dir = Path::new(DIR);
        let redo = dir.join("redo");
        let mut names = vec![dir.join("notes.txt"), dir.join("data.new"), redo.join("notes.txt")];
        names.push(redo.join("not-a-number.log"));
        let last = self.victim.logs().last().and_then(|log| start(log)).unwrap_or_default();
        for lsn in [0, last + 8, last + (64 << 10), last + (1 << 40)] {
            for extension in ["log", "new", "spare"] {
                names.push(redo.join(format!("{lsn:020}.{extension}")));
            }
        }
        names.retain(|name| !self.victim.files().contains(name));
        names
    }

    fn while_open(&mut self) {
        let data = self.victim.data();
        for _ in 0..200 {
            let seed = self.rng.next();
            self.add(&data, Damage::WhileOpen { seed });
        }
    }
}
