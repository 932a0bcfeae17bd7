//! Writing values that are too long for a leaf.
//!
//! A value's pages are built before the leaf that refers to them is latched, and nothing may be lost on the
//! way: neither a leaf that refers to missing pages nor pages that nothing refers to may ever be in a
//! checkpoint.
//!
//! * **A few pages** ([`UNPUBLISHED_PAGES`], less in small pools) stay unpublished in frames of a reserve,
//!   and are published under the announcement of the change that makes the leaf refer to them. A checkpoint
//!   holds whole operations, so it has all of them or none. Given up, they vanish without a trace.
//! * **A longer value** may be longer than the pool, so its pages are published as they are filled, may be
//!   written out and evicted, and for a while belong to nobody. That while must not contain the end of a
//!   checkpoint epoch, or the image would hold pages that no recovery could ever find: replay builds the
//!   value anew, in other pages. So the builder holds a [`BuildPass`] from before its first page until the
//!   leaf refers to the value (or the pages were freed again), and the checkpointer
//!   [closes](BuildGate::close) the gate for the instant in which it ends the epoch. Every epoch then
//!   contains the building and the reference, or the building and the freeing, as a whole.
//!
//! **Waiting.** The checkpointer waits for builders; builders wait for the checkpointer only in
//! [`BuildGate::enter`]. So whoever enters must hold nothing that another builder may want: the gate comes
//! before the locks of keys. A builder waits for frames and for its own I/O, for which the pool's writer
//! suffices, and when the data file is full it gets an error; it never waits for a checkpoint. The source of
//! the value should be at hand: a slow one keeps checkpoints waiting.

use super::Result;
use super::descend::Retry;
use super::inconsistent;
use super::node::{
    MAX_VALUE_BYTES, OverflowIndex, OverflowRef, OverflowShape, build_overflow_data, build_overflow_index,
    overflow_shape,
};
use bedstone_bufpool::{
    Access, Announcement, NewPage, PageHeader, PageId, PageKind, PagePin, PageState, Pool, PoolError, Reserve,
};
use bedstone_io::crc32c;
use parking_lot::{Condvar, Mutex};
use std::io::Read;

/// Most pages of a value that stay unpublished while it is built; fewer in small pools.
const UNPUBLISHED_PAGES: usize = 64;
/// Pages freed under one announcement when a value is given up.
const FREE_AT_ONCE: usize = 1024;

/// Keeps checkpoints from ending their epoch while a long value is built, and the other way round.
#[derive(Debug)]
pub(crate) struct BuildGate {
    state: Mutex<GateState>,
    changed: Condvar,
    unpublished_pages: usize,
}

#[derive(Debug, Default)]
struct GateState {
    builders: usize,
    closed: bool,
}

/// Leave to build long values; checkpoints wait until it is dropped. Clones are further leaves under the same
/// roof: they never wait.
#[derive(Debug)]
pub(crate) struct BuildPass<'p> {
    gate: &'p BuildGate,
}

/// No long value is being built while this lives.
#[derive(Debug)]
pub(crate) struct Closed<'p> {
    gate: &'p BuildGate,
}

impl BuildGate {
    /// A gate for a pool of so many frames.
    pub(crate) fn new(frames: usize) -> Self {
        let unpublished_pages = UNPUBLISHED_PAGES.min(frames / 16).max(3);
        Self { state: Mutex::default(), changed: Condvar::new(), unpublished_pages }
    }

    /// Most pages of a value that stay unpublished while it is built.
    #[cfg(test)]
    pub(crate) fn unpublished_pages(&self) -> usize {
        self.unpublished_pages
    }

    /// Whether building a value of `len` bytes takes a pass.
    pub(crate) fn needs_pass(&self, page_size: usize, len: u64) -> bool {
        overflow_shape(page_size, len).is_some_and(|shape| pages_of(&shape) > self.unpublished_pages)
    }

    /// Waits while a checkpoint ends its epoch. No lock that a builder may want, and no latch, may be held.
    pub(crate) fn enter(&self) -> BuildPass<'_> {
        let mut state = self.state.lock();
        while state.closed {
            self.changed.wait(&mut state);
        }
        state.builders += 1;
        BuildPass { gate: self }
    }

    /// Lets nobody in any more and waits until all builders have left.
    pub(crate) fn close(&self) -> Closed<'_> {
        let mut state = self.state.lock();
        while state.closed {
            self.changed.wait(&mut state);
        }
        state.closed = true;
        while state.builders > 0 {
            self.changed.wait(&mut state);
        }
        Closed { gate: self }
    }

    /// As [`Self::close`] if nobody is inside now.
    #[cfg(test)]
    pub(crate) fn try_close(&self) -> Option<Closed<'_>> {
        let mut state = self.state.lock();
        if state.closed || state.builders > 0 {
            return None;
        }
        state.closed = true;
        Some(Closed { gate: self })
    }
}

impl Clone for BuildPass<'_> {
    fn clone(&self) -> Self {
        self.gate.state.lock().builders += 1;
        Self { gate: self.gate }
    }
}

impl Drop for BuildPass<'_> {
    fn drop(&mut self) {
        self.gate.state.lock().builders -= 1;
        self.gate.changed.notify_all();
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.gate.state.lock().closed = false;
        self.gate.changed.notify_all();
    }
}

/// What can go wrong while a value is built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// The pool.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The reader that the value comes from, after so many bytes.
    #[error("the source of the value failed after {read} bytes: {source}")]
    Source {
        /// Bytes taken from it.
        read: u64,
        /// Its error.
        source: std::io::Error,
    },
}

/// A value in pages that nothing refers to yet. Dropped without having been written into a tree, it gives its
/// pages back; no announcement may be held then.
#[derive(Debug)]
pub(crate) struct PreparedOverflow<'p> {
    pool: &'p Pool,
    reference: OverflowRef,
    /// Pages nobody can see.
    unpublished: Vec<NewPage<'p>>,
    /// Pages published already, to be freed if the value is given up.
    published: Vec<PageId>,
    /// Held until the value is referred to or given up.
    _pass: Option<BuildPass<'p>>,
}

/// Pages that a value takes. One that fits into a single data page has no index page.
pub(super) fn pages_of(shape: &OverflowShape) -> usize {
    if shape.data_pages == 1 { 1 } else { shape.pages() }
}

impl<'p> PreparedOverflow<'p> {
    /// Builds the value of `len` bytes (1 to [`MAX_VALUE_BYTES`]) that `source` gives, for the table `table`.
    /// `pass` must be given if [`BuildGate::needs_pass`].
    ///
    /// # Errors
    /// Those of [`Pool::reserve`], and the source's own; nothing is left behind then.
    ///
    /// # Panics
    /// If the length is out of bounds, or a pass is needed and not given.
    pub(crate) fn build(
        pool: &'p Pool,
        table: u32,
        len: u64,
        source: &mut dyn Read,
        pass: Option<&BuildPass<'p>>,
    ) -> std::result::Result<Self, SourceError> {
        let mut reserve = pool.reserve(0)?;
        Self::build_from(pool, table, len, source, pass, &mut reserve)
    }

    /// As [`PreparedOverflow::build`], with frames and room in the file from a reserve: for what may draw on room
    /// that others leave alone.
    ///
    /// # Errors
    /// As [`PreparedOverflow::build`].
    ///
    /// # Panics
    /// As [`PreparedOverflow::build`].
    pub(crate) fn build_from(
        pool: &'p Pool,
        table: u32,
        len: u64,
        source: &mut dyn Read,
        pass: Option<&BuildPass<'p>>,
        reserve: &mut Reserve<'p>,
    ) -> std::result::Result<Self, SourceError> {
        let shape =
            overflow_shape(pool.page_size(), len).expect("the length of a value is checked by the caller");
        let total = pages_of(&shape);
        let keep = pass.map_or(UNPUBLISHED_PAGES, |pass| pass.gate.unpublished_pages);
        let publish = total > keep;
        assert!(!publish || pass.is_some(), "a value of {total} pages is built only under a pass");
        let reference = OverflowRef { len, index: PageId::NONE, crc: 0 };
        let mut value =
            Self { pool, reference, unpublished: Vec::new(), published: Vec::new(), _pass: pass.cloned() };
        reserve.refill(total.min(keep))?;
        let mut builder = Builder { value: &mut value, reserve, table, keep, publish, left: total };
        let ids = builder.data_pages(&shape, source)?;
        builder.index_pages(&shape, ids)?;
        Ok(value)
    }

    /// What the leaf will store.
    pub(crate) fn reference(&self) -> OverflowRef {
        self.reference
    }

    /// Publishes what is not published yet, so that no frames are held for it. The value must have been built
    /// under a pass: its pages belong to nobody until a leaf refers to them.
    ///
    /// # Panics
    /// If there is no pass.
    pub(crate) fn publish_early(&mut self) {
        assert!(self._pass.is_some(), "pages that belong to nobody are published only under a pass");
        if self.unpublished.is_empty() {
            return;
        }
        let operation = self.pool.announce();
        for page in self.unpublished.drain(..) {
            self.published.push(page.page_id());
            page.publish(&operation);
        }
    }

    /// Publishes what is not published yet; from here on the pages are the leaf's.
    pub(super) fn publish(&mut self, operation: &Announcement<'_>) {
        for page in self.unpublished.drain(..) {
            page.publish(operation);
        }
        self.published.clear();
    }
}

impl Drop for PreparedOverflow<'_> {
    fn drop(&mut self) {
        for pages in self.published.chunks(FREE_AT_ONCE) {
            let operation = self.pool.announce();
            for &page in pages {
                self.pool.free_page(page, &operation);
            }
        }
    }
}

/// Fills pages one after the other.
struct Builder<'b, 'p> {
    value: &'b mut PreparedOverflow<'p>,
    reserve: &'b mut Reserve<'p>,
    table: u32,
    /// Pages in hand before they are published.
    keep: usize,
    publish: bool,
    /// Pages still to come.
    left: usize,
}

impl Builder<'_, '_> {
    fn data_pages(
        &mut self,
        shape: &OverflowShape,
        source: &mut dyn Read,
    ) -> std::result::Result<Vec<PageId>, SourceError> {
        let mut ids = Vec::with_capacity(shape.data_pages);
        let len = self.value.reference.len;
        let mut buffer = vec![0; shape.data_bytes.min(usize::try_from(len).unwrap_or(usize::MAX))];
        let mut read = 0u64;
        let mut crc = 0;
        while read < len {
            let step = (len - read).min(shape.data_bytes as u64);
            let bytes = &mut buffer[..step as usize];
            source.read_exact(bytes).map_err(|source| SourceError::Source { read, source })?;
            crc = crc32c(crc, bytes);
            ids.push(self.add(PageKind::OverflowData, |page| build_overflow_data(page, bytes))?);
            read += step;
        }
        self.value.reference.crc = crc;
        Ok(ids)
    }

    fn index_pages(&mut self, shape: &OverflowShape, data: Vec<PageId>) -> Result<()> {
        let mut level = 0;
        let mut ids = data;
        while ids.len() > 1 {
            let mut above = Vec::with_capacity(ids.len().div_ceil(shape.index_ids));
            for part in ids.chunks(shape.index_ids) {
                above
                    .push(self.add(PageKind::OverflowIndex, |page| build_overflow_index(page, level, part))?);
            }
            ids = above;
            level += 1;
        }
        self.value.reference.index = ids[0];
        self.flush();
        Ok(())
    }

    fn add(&mut self, kind: PageKind, fill: impl FnOnce(&mut [u8])) -> Result<PageId> {
        if self.reserve.is_empty() {
            self.flush();
            self.reserve.refill(self.left.min(self.keep))?;
        }
        let mut page = self.value.pool.new_page(self.reserve, kind, 0, self.table);
        fill(&mut page);
        let id = page.page_id();
        self.value.unpublished.push(page);
        self.left -= 1;
        Ok(id)
    }

    /// Publishes the pages in hand, if this value is one whose pages are published early.
    fn flush(&mut self) {
        if !self.publish || self.value.unpublished.is_empty() {
            return;
        }
        let operation = self.value.pool.announce();
        for page in self.value.unpublished.drain(..) {
            self.value.published.push(page.page_id());
            page.publish(&operation);
        }
    }
}

/// The ids of all pages of a value: data pages and index pages. The caller makes sure that they are not freed
/// meanwhile, by a ticket or because nobody else can change the tree.
pub(super) fn page_ids(pool: &Pool, table: u32, value: OverflowRef) -> Result<Vec<PageId>> {
    let mut all = vec![value.index];
    let mut walk = IndexWalk::new(pool, table, value)?;
    all.extend(walk.index_pages.iter().copied());
    while let Some(ids) = walk.next_part()? {
        if ids != [value.index] {
            all.extend(ids);
        }
    }
    Ok(all)
}

/// The data pages of a value, the ones of one index page at a time.
#[derive(Debug)]
pub(super) struct IndexWalk<'p> {
    pool: &'p Pool,
    table: u32,
    value: OverflowRef,
    /// Data pages that come first: those of the root, or the single one.
    first: Option<Vec<PageId>>,
    /// Index pages below the root.
    index_pages: Vec<PageId>,
    next: usize,
    /// Data pages given out.
    given: usize,
    data_pages: usize,
}

impl<'p> IndexWalk<'p> {
    pub(super) fn new(pool: &'p Pool, table: u32, value: OverflowRef) -> Result<Self> {
        let Some(shape) = overflow_shape(pool.page_size(), value.len) else {
            let detail = format!("a value of {} bytes, the limit is {MAX_VALUE_BYTES}", value.len);
            return Err(inconsistent(value.index, "overflow value", detail));
        };
        let mut walk = Self {
            pool,
            table,
            value,
            first: None,
            index_pages: Vec::new(),
            next: 0,
            given: 0,
            data_pages: shape.data_pages,
        };
        if shape.data_pages == 1 {
            walk.first = Some(vec![value.index]);
        } else {
            let (level, ids) = walk.read_index(value.index)?;
            if level != shape.root_level() {
                let detail = format!("expected a root of level {}, found {level}", shape.root_level());
                return Err(inconsistent(value.index, "overflow index", detail));
            }
            if level == 0 { walk.first = Some(ids) } else { walk.index_pages = ids }
        }
        Ok(walk)
    }

    fn read_index(&self, page: PageId) -> Result<(u8, Vec<PageId>)> {
        let pin = pin_page(self.pool, self.table, page, PageKind::OverflowIndex, Access::Point)?;
        let index = OverflowIndex::new(&pin);
        Ok((index.level(), index.ids().collect()))
    }

    /// The next data pages, in the order of the value; `None` after the last.
    pub(super) fn next_part(&mut self) -> Result<Option<Vec<PageId>>> {
        let part = if let Some(first) = self.first.take() {
            first
        } else if let Some(&page) = self.index_pages.get(self.next) {
            self.next += 1;
            let (level, ids) = self.read_index(page)?;
            if level != 0 {
                return Err(inconsistent(page, "overflow index", format!("expected level 0, found {level}")));
            }
            ids
        } else if self.given == self.data_pages {
            return Ok(None);
        } else {
            let detail = format!("expected {} data pages, found {}", self.data_pages, self.given);
            return Err(inconsistent(self.value.index, "overflow index", detail));
        };
        self.given += part.len();
        if self.given > self.data_pages {
            let detail = format!("expected {} data pages, found more", self.data_pages);
            return Err(inconsistent(self.value.index, "overflow index", detail));
        }
        Ok(Some(part))
    }
}

/// Pins an overflow page, bringing it in if need be. The caller makes sure that it is not freed meanwhile.
pub(super) fn pin_page<'p>(
    pool: &'p Pool,
    table: u32,
    page: PageId,
    kind: PageKind,
    access: Access,
) -> Result<PagePin<'p>> {
    let mut retry = Retry::default();
    loop {
        let state = {
            let guard = pool.guard();
            let word = guard.word(page);
            if let Some(pin) = guard.pin(page, word, access) {
                drop(guard);
                let header = PageHeader::read(&pin);
                if header.kind != kind as u8 || header.table != table {
                    let (found, other) = (header.kind, header.table);
                    let detail =
                        format!("expected kind {} of table {table}, found {found} of {other}", kind as u8);
                    return Err(inconsistent(page, "overflow page", detail));
                }
                return Ok(pin);
            }
            word.state()
        };
        match state {
            PageState::Absent => pool.fault(page, access)?,
            PageState::Pinnable => retry.again(pool)?,
            PageState::Free | PageState::Inner => {
                return Err(inconsistent(page, "overflow page", "it is free or an inner node".into()));
            }
        }
    }
}
