//! The pool's part of the structure check: does every unit of the data file belong to exactly one thing?

use crate::header::PageId;
use crate::pool::Pool;
use crate::superblock::DATA_START_UNIT;
use crate::table::Place;
use crate::units::Units;

/// What became of the units of the data file.
#[derive(Debug, Clone, Default)]
pub struct SpaceReport {
    /// Units used twice, used but not named, named but not used; one line each.
    pub problems: Vec<String>,
    /// Units of the data file (4 KiB each).
    pub file_units: u64,
    /// Units in use.
    pub used_units: u64,
    /// Units free.
    pub free_units: u64,
}

impl Pool {
    /// Page ids in use now, ascending. Stable only while nobody writes.
    pub fn live_pages(&self) -> Vec<PageId> {
        let shared = self.shared();
        let space = shared.space.lock();
        (1..space.next_id)
            .map(PageId)
            .filter(|&page| shared.table.place(page) != Place::Free && !space.is_deferred(page))
            .collect()
    }

    /// Compares the free units with everything that names units: the superblocks, the stable map, its own blocks, and
    /// the images written since. Only while nobody writes; waits for the checkpoint and for the background writes under
    /// way, whose units nothing names yet.
    pub fn check_space(&self) -> SpaceReport {
        let shared = self.shared();
        let _no_checkpoint = shared.checkpointing.lock();
        let mut space = shared.space.lock();
        while space.open.in_flight > 0 {
            shared.images_done.wait(&mut space);
        }
        let mut seen = Units::new(space.units.total());
        let mut problems = Vec::new();
        let mut claim = |start: u64, units: u64, what: String| {
            if let Err(error) = seen.mark_used(start, units) {
                problems.push(format!("{what} at unit {start} ({units} units): {error}"));
            }
        };
        claim(0, DATA_START_UNIT, "superblocks".into());
        for block in space.stable.blocks() {
            claim(
                block.entry.unit(),
                block.entry.units(),
                format!("map block {} of level {}", block.number, block.level),
            );
        }
        for (page, entry) in space.stable.iter() {
            // Only where that is a defect on purpose, which a crash is to show, and not the books.
            if space.early.contains(&entry.unit()) {
                continue;
            }
            claim(entry.unit(), entry.units(), page.to_string());
        }
        for entry in space.unstable_entries() {
            claim(entry.unit(), entry.units(), "an image of the open epoch".into());
        }
        for unit in 0..space.units.total() {
            match (space.units.is_used(unit), seen.is_used(unit)) {
                (true, false) => {
                    problems.push(format!("unit {unit} is in use but nothing names it (leaked)"))
                }
                (false, true) => problems.push(format!("unit {unit} is named but counts as free")),
                _ => {}
            }
        }
        SpaceReport {
            problems,
            file_units: space.units.total(),
            used_units: space.units.used_units(),
            free_units: space.units.free_units(),
        }
    }
}
