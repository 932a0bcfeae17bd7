//! The bytes of a file in copy-on-write pages, so that the three views of a file, snapshots of a whole medium and
//! the data of unsynced writes share their memory.

use std::sync::Arc;

/// Bytes in one shared piece of a file.
pub(super) const PAGE: usize = 4096;

type Page = [u8; PAGE];

/// One view of the bytes of a file. Its length is kept elsewhere; everything never written reads as zeros, so a
/// file of any length costs memory only for what was written.
#[derive(Debug, Clone, Default)]
pub(super) struct Image {
    pages: Vec<Option<Arc<Page>>>,
}

/// Splits `offset .. offset + len` at the borders of pages: (page index, offset in the page, length).
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let mut at = offset;
    let end = offset + len as u64;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let inside = (at % PAGE as u64) as usize;
        let take = ((end - at) as usize).min(PAGE - inside);
        let piece = ((at / PAGE as u64) as usize, inside, take);
        at += take as u64;
        Some(piece)
    })
}

impl Image {
    /// Fills `buf` from `offset`.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) {
        let mut done = 0;
        for (index, inside, take) in pieces(offset, buf.len()) {
            let target = &mut buf[done..done + take];
            match self.pages.get(index).and_then(Option::as_ref) {
                Some(page) => target.copy_from_slice(&page[inside..inside + take]),
                None => target.fill(0),
            }
            done += take;
        }
    }

    /// `len` bytes from `offset`.
    pub(super) fn to_vec(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.read(offset, &mut bytes);
        bytes
    }

    /// Puts `bytes` at `offset`.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut done = 0;
        for (index, inside, take) in pieces(offset, bytes.len()) {
            let page = self.slot(index).get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[inside..inside + take].copy_from_slice(&bytes[done..done + take]);
            done += take;
        }
    }

    /// Makes everything from `len` on zeros.
    pub(super) fn zero_from(&mut self, len: u64) {
        let whole = len.div_ceil(PAGE as u64);
        if (self.pages.len() as u64) > whole {
            self.pages.truncate(whole as usize);
        }
        let inside = (len % PAGE as u64) as usize;
        if inside != 0
            && let Some(Some(page)) = self.pages.get_mut((len / PAGE as u64) as usize)
        {
            Arc::make_mut(page)[inside..].fill(0);
        }
    }

    fn slot(&mut self, index: usize) -> &mut Option<Arc<Page>> {
        if self.pages.len() <= index {
            self.pages.resize(index + 1, None);
        }
        &mut self.pages[index]
    }
}

/// The bytes of one write. Whole pages are shared with every image the write reaches.
#[derive(Debug, Clone)]
pub(super) enum Data {
    /// A write that begins and ends at borders of pages.
    Pages(Vec<Arc<Page>>),
    /// Any other write.
    Bytes(Arc<[u8]>),
}

impl Data {
    /// A copy of `bytes`, to be written at `offset`.
    pub(super) fn new(offset: u64, bytes: &[u8]) -> Self {
        let (pages, rest) = bytes.as_chunks::<PAGE>();
        if offset.is_multiple_of(PAGE as u64) && rest.is_empty() {
            Data::Pages(pages.iter().map(|page| Arc::new(*page)).collect())
        } else {
            Data::Bytes(bytes.into())
        }
    }

    /// Length in bytes.
    pub(super) fn len(&self) -> u64 {
        match self {
            Data::Pages(pages) => (pages.len() * PAGE) as u64,
            Data::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Puts all of it at `offset` of `image`.
    pub(super) fn apply(&self, offset: u64, image: &mut Image) {
        match self {
            Data::Pages(pages) => {
                let first = (offset / PAGE as u64) as usize;
                for (i, page) in pages.iter().enumerate() {
                    *image.slot(first + i) = Some(Arc::clone(page));
                }
            }
            Data::Bytes(bytes) => image.write(offset, bytes),
        }
    }

    /// Puts only its bytes `start..end` (counted from its own beginning) into `image`, where the whole would lie
    /// at `offset`.
    pub(super) fn apply_part(&self, offset: u64, start: u64, end: u64, image: &mut Image) {
        match self {
            Data::Pages(pages) => {
                let mut at = start;
                for (index, inside, take) in pieces(start, (end - start) as usize) {
                    image.write(offset + at, &pages[index][inside..inside + take]);
                    at += take as u64;
                }
            }
            Data::Bytes(bytes) => image.write(offset + start, &bytes[start as usize..end as usize]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unwritten_bytes_are_zeros_and_clones_do_not_change() {
        let mut image = Image::default();
        image.write(5000, &[7; 6000]);
        let before = image.clone();
        image.write(4096, &[9; 10]);
        assert_eq!(before.to_vec(4096, 10), [0; 10]);
        assert_eq!(image.to_vec(4096, 10), [9; 10]);
        assert_eq!(image.to_vec(10_999, 3), [7, 0, 0]);
        assert_eq!(image.to_vec(1 << 40, 2), [0, 0]);
    }

    #[test]
    fn cutting_off_leaves_zeros_behind() {
        let mut image = Image::default();
        image.write(0, &[1; 3 * PAGE]);
        image.zero_from(PAGE as u64 + 10);
        assert_eq!(image.to_vec(PAGE as u64 + 9, 3), [1, 0, 0]);
        assert_eq!(image.to_vec(2 * PAGE as u64, 2), [0, 0]);
    }

    #[test]
    fn a_part_of_aligned_and_of_odd_data_lands_where_the_whole_would() {
        let bytes: Vec<u8> = (0..2 * PAGE).map(|i| (i / 64) as u8).collect();
        for offset in [PAGE as u64, 100] {
            let data = Data::new(offset, &bytes);
            assert_eq!(data.len(), bytes.len() as u64);
            let mut image = Image::default();
            data.apply_part(offset, 4000, 4200, &mut image);
            assert_eq!(image.to_vec(offset + 4000, 200), bytes[4000..4200]);
            assert_eq!(image.to_vec(offset, 4000), vec![0; 4000]);
            data.apply(offset, &mut image);
            assert_eq!(image.to_vec(offset, bytes.len()), bytes);
        }
    }
}
