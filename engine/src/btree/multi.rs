//! Reading many keys at once.
//!
//! A single get waits for memory two or three times, one wait after the other. Here a group of keys goes down
//! level by level: what all of them need next is asked for before any of it is touched, so that the waits of
//! the whole group overlap. It is the same with pages that are not in memory: those of the whole group are
//! read with one batch of requests.

use super::descend::{Obstacle, Place, Retry, Step, Target};
use super::node::Leaf;
use super::read::{Found, LookUp, take};
use super::{Result, Tree};
use bedstone_bufpool::{Access, PageId, PagePin, Pool, prefetch};

/// Keys that go down together.
const GROUP: usize = 32;

impl Tree {
    /// Looks up every key and calls `found` for each, with the key's index and what [`Tree::get`] would have
    /// given, in no particular order. A group's values are handed over with no page of the group being waited
    /// for any more.
    ///
    /// # Errors
    /// As [`Tree::get`]; `found` may have been called for some keys then.
    pub(crate) fn multi_get<'p, K: AsRef<[u8]>>(
        &self,
        pool: &'p Pool,
        keys: &[K],
        mut found: impl FnMut(usize, Option<Found<'p>>),
    ) -> Result<()> {
        for (group, keys) in keys.chunks(GROUP).enumerate() {
            self.get_group(pool, keys, |i, value| found(group * GROUP + i, value))?;
        }
        Ok(())
    }

    fn get_group<'p, K: AsRef<[u8]>>(
        &self,
        pool: &'p Pool,
        keys: &[K],
        mut found: impl FnMut(usize, Option<Found<'p>>),
    ) -> Result<()> {
        let mut retry = Retry::default();
        // Which keys of the group have no answer yet.
        let mut open = [0; GROUP];
        let mut count = keys.len();
        for (i, key) in open[..count].iter_mut().enumerate() {
            *key = i;
        }
        let mut absent: Vec<PageId> = Vec::new();
        let mut rounds = 0;
        while count > 0 {
            rounds += 1;
            if rounds > 8 {
                // Pages of the group push each other out of a pool that is too small for it.
                for &i in &open[..count] {
                    found(i, self.get(pool, keys[i].as_ref())?);
                }
                return Ok(());
            }
            let mut pins: [Option<PagePin<'p>>; GROUP] = [const { None }; GROUP];
            self.pin_leaves(pool, keys, &open[..count], &mut pins, &retry, &mut absent)?;
            // The slots are on their way or there; the cells are asked for before the first of them is
            // touched.
            let mut cells = [NONE; GROUP];
            for ((&i, pin), cell) in open[..count].iter().zip(&pins).zip(&mut cells) {
                if let Some(pin) = pin {
                    let leaf = self.leaf(pin.page_id(), pin)?;
                    if let Some(at) = leaf.candidate(keys[i].as_ref()) {
                        prefetch(leaf.cell_bytes(at));
                        *cell = at;
                    }
                }
            }
            let mut left = 0;
            for at in 0..count {
                let i = open[at];
                if let Some(pin) = pins[at].take() {
                    let key = keys[i].as_ref();
                    let looked = match holds(Leaf::new(&pin), cells[at], key) {
                        true => take(pool, pin, cells[at]),
                        false => self.look_up(pool, pin, key)?,
                    };
                    match looked {
                        LookUp::Found(value) => {
                            found(i, Some(value));
                            continue;
                        }
                        LookUp::NotThere => {
                            found(i, None);
                            continue;
                        }
                        LookUp::Changed => {}
                    }
                }
                open[left] = i;
                left += 1;
            }
            count = left;
            if !absent.is_empty() {
                pool.fault_many(&absent, Access::Point)?;
                absent.clear();
            } else if count > 0 {
                retry.again(pool)?;
            }
        }
        Ok(())
    }

    /// Goes down with the keys `open` and pins their leaves; what is not in memory is noted in `absent`. A
    /// key whose way was disturbed gets no pin.
    fn pin_leaves<'p, K: AsRef<[u8]>>(
        &self,
        pool: &'p Pool,
        keys: &[K],
        open: &[usize],
        pins: &mut [Option<PagePin<'p>>; GROUP],
        retry: &Retry,
        absent: &mut Vec<PageId>,
    ) -> Result<()> {
        let guard = pool.guard();
        let mut places: [Option<Place<'_>>; GROUP] = [None; GROUP];
        for (&i, place) in open.iter().zip(&mut places) {
            match self.descend(&guard, Target::Key(keys[i].as_ref()), 0)? {
                Step::At(at) => *place = Some(at),
                step => {
                    if let Obstacle::Absent(page) = retry.obstacle(&guard, &step)? {
                        absent.push(page);
                    }
                }
            }
        }
        for (place, pin) in places[..open.len()].iter().zip(pins) {
            if let Some(place) = place
                && let Some(taken) = guard.pin(place.page, place.word, Access::Point)
                && place.parent_unchanged(&guard)
            {
                *pin = Some(taken);
            }
        }
        Ok(())
    }
}

/// No cell.
const NONE: usize = usize::MAX;

/// The cell at `at` is that of `key`.
#[inline]
fn holds(leaf: Leaf<'_>, at: usize, key: &[u8]) -> bool {
    at != NONE && key.get(leaf.prefix_len()..).is_some_and(|suffix| suffix == leaf.suffix(at))
}
