//! Reading values that lie in pages of their own.

use super::node::{OverflowData, OverflowRef, overflow_shape};
use super::overflow::{IndexWalk, pin_page};
use super::{Result, Tree, inconsistent};
use bedstone_bufpool::{Access, PageId, PageKind, PagePin, Pool, Ticket};
use bedstone_io::crc32c;
use std::io::Read;

/// Data pages brought in at once.
const WINDOW: usize = 64;
/// A value of more pages than this is read as a scan is: it would push everything else out of the pool.
const SCAN_PAGES: usize = 16;
/// Bytes of memory that a value may have on the word of its length alone.
const BELIEVED_BYTES: u64 = 16 << 20;

/// Reads a value piece by piece, many pages at a time. It sees the value as it was when the leaf was read,
/// whatever is written meanwhile. The checksum of the whole value is compared at its end.
#[derive(Debug)]
pub(crate) struct OverflowReader<'p> {
    pool: &'p Pool,
    table: u32,
    value: OverflowRef,
    /// Keeps the pages from being freed.
    _ticket: Ticket<'p>,
    walk: IndexWalk<'p>,
    /// Data pages of the present index page, and how many of them are done and brought in.
    ids: Vec<PageId>,
    next: usize,
    ready: usize,
    /// The page being read, and how much of it is done.
    current: Option<(PagePin<'p>, usize)>,
    crc: u32,
    left: u64,
    data_bytes: usize,
    access: Access,
}

impl<'p> OverflowReader<'p> {
    /// A reader of `value`, which a leaf of `tree` held when `ticket` protected it (see [`super::Found`]).
    pub(crate) fn new(tree: Tree, pool: &'p Pool, value: OverflowRef, ticket: Ticket<'p>) -> Result<Self> {
        let walk = IndexWalk::new(pool, tree.table, value)?;
        let shape = overflow_shape(pool.page_size(), value.len);
        let many = shape.is_some_and(|shape| shape.data_pages > SCAN_PAGES);
        Ok(Self {
            pool,
            table: tree.table,
            value,
            _ticket: ticket,
            walk,
            ids: Vec::new(),
            next: 0,
            ready: 0,
            current: None,
            crc: 0,
            left: value.len,
            data_bytes: shape.map_or(0, |shape| shape.data_bytes),
            access: if many { Access::Scan } else { Access::Point },
        })
    }

    /// Length of the whole value in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.value.len
    }

    /// What is left of the value, in one piece.
    pub(crate) fn read_all(&mut self) -> Result<Vec<u8>> {
        // The length came from the medium; pages that are there prove it, so memory for more than these comes with them.
        let mut out = Vec::with_capacity(self.left.min(BELIEVED_BYTES) as usize);
        while let Some(bytes) = self.rest_of_page()? {
            out.extend_from_slice(bytes);
            let len = bytes.len();
            self.consume(len);
        }
        Ok(out)
    }

    /// The bytes of the present page that were not consumed yet; `None` at the end of the value.
    fn rest_of_page(&mut self) -> Result<Option<&[u8]>> {
        if self.left == 0 {
            return Ok(None);
        }
        let finished = match &self.current {
            None => true,
            Some((pin, done)) => *done == OverflowData::new(pin).bytes().len(),
        };
        if finished {
            self.current = None;
            self.current = Some((self.next_page()?, 0));
        }
        Ok(self.current.as_ref().map(|(pin, done)| &OverflowData::new(pin).bytes()[*done..]))
    }

    fn consume(&mut self, bytes: usize) {
        if let Some((_, done)) = &mut self.current {
            *done += bytes;
            self.left -= bytes as u64;
        }
        if self.left == 0 {
            self.current = None;
        }
    }

    fn next_page(&mut self) -> Result<PagePin<'p>> {
        if self.next == self.ids.len() {
            let missing = || inconsistent(self.value.index, "overflow value", "it has too few pages".into());
            self.ids = self.walk.next_part()?.ok_or_else(missing)?;
            (self.next, self.ready) = (0, 0);
        }
        if self.next == self.ready {
            let end = (self.ready + WINDOW).min(self.ids.len());
            if end - self.ready > 1 {
                self.pool.fault_many(&self.ids[self.ready..end], self.access)?;
            }
            self.ready = end;
        }
        let page = self.ids[self.next];
        self.next += 1;
        let pin = pin_page(self.pool, self.table, page, PageKind::OverflowData, self.access)?;
        let bytes = OverflowData::new(&pin).bytes();
        // Every page is full but the last one, so the lengths add up.
        let expected = self.left.min(self.data_bytes as u64);
        if bytes.len() as u64 != expected {
            let detail = format!("expected {expected} bytes of the value, found {}", bytes.len());
            return Err(inconsistent(page, "overflow page", detail));
        }
        self.crc = crc32c(self.crc, bytes);
        if bytes.len() as u64 == self.left && self.crc != self.value.crc {
            let detail =
                format!("checksum of the value: expected {:08x}, found {:08x}", self.value.crc, self.crc);
            return Err(inconsistent(self.value.index, "overflow value", detail));
        }
        Ok(pin)
    }
}

impl Read for OverflowReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        let Some(bytes) = self.rest_of_page().map_err(std::io::Error::other)? else { return Ok(0) };
        let len = bytes.len().min(out.len());
        out[..len].copy_from_slice(&bytes[..len]);
        self.consume(len);
        Ok(len)
    }
}
