//! What a tool shows of a node.

use super::cell::CellValue;
#[cfg(test)]
use super::inner::Inner;
use super::leaf::Leaf;
use bedstone_bufpool::PageId;

/// The figures of a leaf or inner node.
#[cfg(test)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeInfo {
    /// Keys of a leaf, separators of an inner node.
    pub(crate) count: usize,
    /// Lower fence, inclusive.
    pub(crate) lower: Vec<u8>,
    /// Upper fence, exclusive; `None` is the end of all keys.
    pub(crate) upper: Option<Vec<u8>>,
    /// Bytes cut from every key.
    pub(crate) prefix_len: usize,
    /// Offset of the first byte of the heap.
    pub(crate) heap_start: usize,
    /// Bytes of the heap that nothing refers to.
    pub(crate) garbage: usize,
    /// Bytes in use, and how many there could be.
    pub(crate) live_bytes: usize,
    /// Bytes that could be in use.
    pub(crate) capacity: usize,
    /// Cells whose value lies in overflow pages.
    pub(crate) overflow_cells: usize,
}

/// One key of a leaf or one child of an inner node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CellInfo<'a> {
    /// The four-byte head (of a leaf's key, or of the separator before a child).
    pub(crate) head: u32,
    /// Offset of the cell or separator in the page.
    pub(crate) offset: usize,
    /// The whole key, or the child's lower bound.
    pub(crate) key: Vec<u8>,
    /// The value, in a leaf.
    pub(crate) value: Option<CellValue<'a>>,
    /// The child, in an inner node.
    pub(crate) child: Option<PageId>,
}

impl<'a> Leaf<'a> {
    /// The leaf's figures.
    #[cfg(test)]
    pub(crate) fn info(&self) -> NodeInfo {
        NodeInfo {
            count: self.count(),
            lower: self.lower().to_vec(),
            upper: self.upper().map(<[u8]>::to_vec),
            prefix_len: self.prefix_len(),
            heap_start: self.header.heap_start(self.page.len()),
            garbage: usize::from(self.header.garbage.get()),
            live_bytes: self.live_bytes(),
            capacity: self.capacity(),
            overflow_cells: usize::from(self.header.overflow_cells.get()),
        }
    }

    /// All keys with their values, in order.
    pub(crate) fn cells(self) -> impl Iterator<Item = CellInfo<'a>> {
        (0..self.count()).map(move |i| CellInfo {
            head: self.slots[i].head.get(),
            offset: usize::from(self.slots[i].off.get()),
            key: self.key_parts(i).to_vec(),
            value: Some(self.value(i)),
            child: None,
        })
    }
}

#[cfg(test)]
impl<'a> Inner<'a> {
    /// The node's figures.
    pub(crate) fn info(&self) -> NodeInfo {
        NodeInfo {
            count: self.count(),
            lower: self.lower().to_vec(),
            upper: self.upper().map(<[u8]>::to_vec),
            prefix_len: self.prefix_len(),
            heap_start: self.header.heap_start(self.page.len()),
            garbage: usize::from(self.header.garbage.get()),
            live_bytes: self.live_bytes(),
            capacity: self.capacity(),
            overflow_cells: 0,
        }
    }

    /// All children with their lower bounds, in order. The first has no separator of its own, so its head and
    /// offset are 0.
    pub(crate) fn cells(self) -> impl Iterator<Item = CellInfo<'a>> {
        (0..=self.count()).map(move |i| CellInfo {
            head: i.checked_sub(1).map_or(0, |i| self.heads[i].get()),
            offset: i.checked_sub(1).map_or(0, |i| usize::from(self.slots[i].off.get())),
            key: self.child_lower(i),
            value: None,
            child: Some(self.child(i)),
        })
    }
}
