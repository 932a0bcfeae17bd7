//! Overflow pages: values too long for a leaf.
//!
//! A value is cut into data pages, each filled up but the last. Their ids stand, in order, in index pages; if
//! one index page does not hold them all, a root index page holds the ids of the index pages. Two levels are
//! enough for the longest value on the smallest pages: 1 GiB is 264,469 data pages of 4 KiB, and 1,014 ids
//! fit into an index page. FORMAT.md has the tables.

use super::limits::MAX_VALUE_BYTES;
use bedstone_bufpool::{HEADER_BYTES, PageId};
#[cfg(test)]
use bedstone_io::layout::{Layout, Tail};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Highest level of an index page.
pub(super) const MAX_INDEX_LEVEL: u8 = 1;

/// What an index page has before its ids.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct IndexHeader {
    /// How many ids follow.
    count: U32,
    /// 0 = the ids are of data pages, 1 = of index pages of level 0.
    level: u8,
    reserved: [u8; 3],
}

/// What a data page has before its bytes.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DataHeader {
    /// How many bytes of the value follow.
    len: U32,
}

const IDS_START: usize = HEADER_BYTES + size_of::<IndexHeader>();
const DATA_START: usize = HEADER_BYTES + size_of::<DataHeader>();

#[cfg(test)]
pub(crate) const LAYOUTS: &[Layout] = &[
    bedstone_io::layout!(
        "Overflow index page",
        IndexHeader { count => "count", level => "level", reserved => "reserved" }
    )
    .at(HEADER_BYTES)
    .then(&[Tail::each("page ids", size_of::<U32>())]),
    bedstone_io::layout!("Overflow data page", DataHeader { len => "length" })
        .at(HEADER_BYTES)
        .then(&[Tail::any("bytes")]),
];

/// How a value is laid out in overflow pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OverflowShape {
    /// Bytes of the value in a full data page.
    pub(crate) data_bytes: usize,
    /// Ids in a full index page.
    pub(crate) index_ids: usize,
    /// Data pages.
    pub(crate) data_pages: usize,
    /// Index pages of level 0; if there is more than one, there is a root of level 1 as well.
    pub(crate) index_pages: usize,
}

impl OverflowShape {
    /// Level of the root index page.
    pub(crate) fn root_level(&self) -> u8 {
        u8::from(self.index_pages > 1)
    }

    /// All pages of the value, index pages included.
    pub(crate) fn pages(&self) -> usize {
        self.data_pages + self.index_pages + usize::from(self.root_level())
    }
}

/// The layout of a value of `len` bytes in pages of `page_size` bytes; `None` if it is empty or longer than
/// [`MAX_VALUE_BYTES`].
pub(crate) fn overflow_shape(page_size: usize, len: u64) -> Option<OverflowShape> {
    if len == 0 || len > MAX_VALUE_BYTES {
        return None;
    }
    let data_bytes = page_size - DATA_START;
    let index_ids = (page_size - IDS_START) / 4;
    let data_pages = usize::try_from(len).ok()?.div_ceil(data_bytes);
    Some(OverflowShape { data_bytes, index_ids, data_pages, index_pages: data_pages.div_ceil(index_ids) })
}

/// Writes an index page into `page`, whose envelope is already there. Panics when `ids` are none or too many.
pub(crate) fn build_overflow_index(page: &mut [u8], level: u8, ids: &[PageId]) {
    assert!(level <= MAX_INDEX_LEVEL, "index pages of level {level}");
    assert!(!ids.is_empty() && IDS_START + ids.len() * 4 <= page.len(), "{} ids in an index page", ids.len());
    let count = U32::new(u32::try_from(ids.len()).expect("fewer ids than bytes in a page"));
    let header = IndexHeader { count, level, reserved: [0; 3] };
    page[HEADER_BYTES..IDS_START].copy_from_slice(header.as_bytes());
    for (to, id) in page[IDS_START..].as_chunks_mut::<4>().0.iter_mut().zip(ids) {
        *to = id.0.to_le_bytes();
    }
}

/// Writes a data page into `page`, whose envelope is already there. Panics when `bytes` are none or too many.
pub(crate) fn build_overflow_data(page: &mut [u8], bytes: &[u8]) {
    assert!(
        !bytes.is_empty() && bytes.len() <= page.len() - DATA_START,
        "{} bytes in a data page",
        bytes.len()
    );
    let len = U32::new(u32::try_from(bytes.len()).expect("a page is shorter than 4 GiB"));
    page[HEADER_BYTES..DATA_START].copy_from_slice(DataHeader { len }.as_bytes());
    page[DATA_START..DATA_START + bytes.len()].copy_from_slice(bytes);
}

/// An index page of a value.
#[derive(Clone, Copy)]
pub(crate) struct OverflowIndex<'a> {
    level: u8,
    ids: &'a [U32],
}

impl<'a> OverflowIndex<'a> {
    /// The index page in `page`; built here or checked by [`super::verify()`], else this may panic.
    pub(crate) fn new(page: &'a [u8]) -> Self {
        Self::parse(page).expect("a verified index page")
    }

    fn parse(page: &'a [u8]) -> Result<Self, String> {
        let (header, rest) = IndexHeader::ref_from_prefix(page.get(HEADER_BYTES..).unwrap_or_default())
            .map_err(|_| "the page is too short".to_string())?;
        let (count, level) = (header.count.get() as usize, header.level);
        if count == 0 || count > rest.len() / 4 {
            return Err(format!("{count} page ids in an index page that holds 1 to {}", rest.len() / 4));
        }
        if level > MAX_INDEX_LEVEL {
            return Err(format!("level {level} of an index page, the highest is {MAX_INDEX_LEVEL}"));
        }
        if header.reserved != [0; 3] {
            return Err("reserved bytes of an index page are not zero".into());
        }
        let (ids, _) =
            <[U32]>::ref_from_prefix_with_elems(rest, count).map_err(|_| "too many ids".to_string())?;
        Ok(Self { level, ids })
    }

    /// 0 if the ids are of data pages, 1 if they are of index pages.
    pub(crate) fn level(&self) -> u8 {
        self.level
    }

    /// The page ids, in the order of the value.
    pub(crate) fn ids(&self) -> impl DoubleEndedIterator<Item = PageId> + ExactSizeIterator + use<'a> {
        self.ids.iter().map(|id| PageId(id.get()))
    }

    /// Checks an untrusted page.
    pub(super) fn verify(page: &[u8]) -> Result<(), String> {
        let index = OverflowIndex::parse(page)?;
        match index.ids().position(|id| id == PageId::NONE) {
            Some(at) => Err(format!("id {at} of an index page is 0")),
            None => Ok(()),
        }
    }
}

/// A data page of a value.
#[derive(Clone, Copy)]
pub(crate) struct OverflowData<'a> {
    bytes: &'a [u8],
}

impl<'a> OverflowData<'a> {
    /// The data page in `page`; built here or checked by [`super::verify()`], else this may panic.
    pub(crate) fn new(page: &'a [u8]) -> Self {
        Self::parse(page).expect("a verified data page")
    }

    fn parse(page: &'a [u8]) -> Result<Self, String> {
        let (header, rest) = DataHeader::ref_from_prefix(page.get(HEADER_BYTES..).unwrap_or_default())
            .map_err(|_| "the page is too short".to_string())?;
        let len = header.len.get() as usize;
        if len == 0 || len > rest.len() {
            return Err(format!("{len} bytes in a data page that holds 1 to {}", rest.len()));
        }
        Ok(Self { bytes: &rest[..len] })
    }

    /// The page's part of the value.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Checks an untrusted page.
    pub(super) fn verify(page: &[u8]) -> Result<(), String> {
        OverflowData::parse(page).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btree::node::testing::page;
    use bedstone_bufpool::PageKind;

    #[test]
    fn two_levels_reach_the_longest_value() {
        for size in [4096, 8192, 16384, 32768, 65536] {
            let shape = overflow_shape(size, MAX_VALUE_BYTES).unwrap();
            assert!(shape.index_pages <= shape.index_ids, "{shape:?}");
            assert_eq!(overflow_shape(size, 0), None);
            assert_eq!(overflow_shape(size, MAX_VALUE_BYTES + 1), None);
            for (len, data_pages, pages) in [
                (1, 1, 2),
                (shape.data_bytes, 1, 2),
                (shape.data_bytes + 1, 2, 3),
                (shape.data_bytes * shape.index_ids, shape.index_ids, shape.index_ids + 1),
                (shape.data_bytes * shape.index_ids + 1, shape.index_ids + 1, shape.index_ids + 4),
            ] {
                let shape = overflow_shape(size, len as u64).unwrap();
                assert_eq!((shape.data_pages, shape.pages()), (data_pages, pages), "{size} {len}");
            }
        }
        assert_eq!(overflow_shape(4096, MAX_VALUE_BYTES).unwrap().data_pages, 264_469);
    }

    #[test]
    fn full_pages_survive() {
        for size in [4096, 65536] {
            let shape = overflow_shape(size, 1).unwrap();
            let ids: Vec<_> = (1..=shape.index_ids as u32).map(PageId).collect();
            let mut index = page(size, PageKind::OverflowIndex, 0);
            build_overflow_index(&mut index, 1, &ids);
            assert_eq!(OverflowIndex::verify(&index), Ok(()));
            assert_eq!(OverflowIndex::new(&index).ids().collect::<Vec<_>>(), ids);
            assert_eq!(OverflowIndex::new(&index).level(), 1);
            let bytes = vec![0xa5; shape.data_bytes];
            let mut data = page(size, PageKind::OverflowData, 0);
            build_overflow_data(&mut data, &bytes);
            assert_eq!(OverflowData::verify(&data), Ok(()));
            assert_eq!(OverflowData::new(&data).bytes(), bytes);
        }
    }

    #[test]
    fn damage_is_refused() {
        let shape = overflow_shape(4096, 1).unwrap();
        let mut index = page(4096, PageKind::OverflowIndex, 0);
        for count in [0, shape.index_ids as u32 + 1, u32::MAX] {
            build_overflow_index(&mut index, 0, &[PageId(1)]);
            index[32..36].copy_from_slice(&count.to_le_bytes());
            assert!(OverflowIndex::verify(&index).is_err(), "{count}");
        }
        build_overflow_index(&mut index, 0, &[PageId(1), PageId(0)]);
        assert!(OverflowIndex::verify(&index).is_err());
        build_overflow_index(&mut index, 0, &[PageId(1)]);
        index[36] = 2;
        assert!(OverflowIndex::verify(&index).is_err());
        let mut data = page(4096, PageKind::OverflowData, 0);
        for len in [0, shape.data_bytes as u32 + 1, u32::MAX] {
            data[32..36].copy_from_slice(&len.to_le_bytes());
            assert!(OverflowData::verify(&data).is_err(), "{len}");
        }
    }
}
