//! Reading one key.

use super::chaos::point;
use super::descend::{Obstacle, Retry, Step, Target};
use super::node::{CellValue, Leaf, OverflowRef};
use super::{Result, Tree};
use bedstone_bufpool::{Access, PagePin, Pool, Ticket, max_lsn};
use std::ops::Range;

/// A value found.
pub(crate) enum Found<'p> {
    /// The value lies at `range` of the pinned leaf.
    Inline { pin: PagePin<'p>, range: Range<usize> },
    /// The value lies in overflow pages, which stay readable while the ticket is held.
    Overflow { value: OverflowRef, ticket: Ticket<'p> },
}

impl Tree {
    /// The newest value of `key`. Allocates nothing and copies nothing. For a value in overflow pages see
    /// [`super::OverflowReader`].
    ///
    /// # Errors
    /// Those of reading pages; [`bedstone_bufpool::PoolError::Free`] when the tree was dropped.
    #[inline]
    pub(crate) fn get<'p>(&self, pool: &'p Pool, key: &[u8]) -> Result<Option<Found<'p>>> {
        self.get_noting(pool, key, |_| ())
    }

    /// As [`Tree::get`]; `note` sees the leaf before it is searched, each time that is tried.
    #[inline]
    fn get_noting<'p>(
        &self,
        pool: &'p Pool,
        key: &[u8],
        mut note: impl FnMut(&PagePin<'p>),
    ) -> Result<Option<Found<'p>>> {
        let mut retry = Retry::default();
        loop {
            let obstacle = {
                let guard = pool.guard();
                match self.descend(&guard, Target::Key(key), 0)? {
                    Step::At(place) => {
                        if let Some(pin) = guard.pin(place.page, place.word, Access::Point)
                            && place.parent_unchanged(&guard)
                        {
                            drop(guard);
                            note(&pin);
                            match self.look_up(pool, pin, key)? {
                                LookUp::Found(found) => return Ok(Some(found)),
                                LookUp::NotThere => return Ok(None),
                                LookUp::Changed => {}
                            }
                        }
                        Obstacle::Busy
                    }
                    step => retry.obstacle(&guard, &step)?,
                }
            };
            retry.after(pool, obstacle, Access::Point)?;
        }
    }

    /// As [`Tree::get`], with the highest LSN applied to the leaf at that moment.
    ///
    /// # Errors
    /// As [`Tree::get`].
    pub(crate) fn get_stamped<'p>(&self, pool: &'p Pool, key: &[u8]) -> Result<(Option<Found<'p>>, u64)> {
        let mut lsn = 0;
        let found = self.get_noting(pool, key, |pin| lsn = max_lsn(pin))?;
        Ok((found, lsn))
    }

    /// Looks for `key` in the leaf that was reached for it.
    #[inline]
    pub(super) fn look_up<'p>(&self, pool: &'p Pool, pin: PagePin<'p>, key: &[u8]) -> Result<LookUp<'p>> {
        let leaf = self.leaf(pin.page_id(), &pin)?;
        match leaf.search(key) {
            Ok(at) => Ok(take(pool, pin, at)),
            // Whether the leaf covers the key at all is asked only here: the fences lie in lines that a get
            // which finds its key need not touch, and a missing key is where a mistake would go unnoticed.
            Err(_) if leaf.covers(key) => Ok(LookUp::NotThere),
            Err(_) => Err(self.not_covered(pin.page_id(), key)),
        }
    }
}

/// The value at `at` of a leaf.
#[inline]
pub(super) fn take<'p>(pool: &'p Pool, pin: PagePin<'p>, at: usize) -> LookUp<'p> {
    let leaf = Leaf::new(&pin);
    match leaf.value(at) {
        CellValue::Inline(_) => {
            let range = leaf.value_range(at);
            LookUp::Found(Found::Inline { pin, range })
        }
        CellValue::Overflow(value) => {
            // Pages freed before the ticket was taken are not held back by it. If the leaf is still the
            // newest version after that, the value had not been replaced yet.
            point();
            let ticket = pool.ticket();
            if pin.is_current() { LookUp::Found(Found::Overflow { value, ticket }) } else { LookUp::Changed }
        }
    }
}

/// What a look into a leaf gave.
pub(super) enum LookUp<'p> {
    Found(Found<'p>),
    NotThere,
    /// The value lies in overflow pages, and the leaf was changed before they could be held: start again.
    Changed,
}
