//! One file of the simulated medium: its three views and the changes that no sync has covered yet.

use super::cut::{CutMode, Keep, torn};
use super::image::{Data, Image};
use super::rng::Rng;

/// What one unsynced change does.
#[derive(Debug, Clone)]
enum Change {
    /// Bytes at an offset.
    Write { offset: u64, data: Data },
    /// The file was shortened to `size_after`.
    Shrink,
    /// The length changed without bytes: the file was grown, or the bytes of a write are lost.
    Resize,
}

#[derive(Debug, Clone)]
struct Pending {
    change: Change,
    /// Length of the file once the change was made.
    size_after: u64,
}

/// A file. Three views of its bytes differ only in the changes they have seen:
/// `cache` (what buffered reads see) has all of them, `device` (what direct reads see) those handed to the device,
/// `durable` (what a cut leaves at least) those covered by a sync that succeeded.
#[derive(Debug, Clone, Default)]
pub(super) struct FileNode {
    size: u64,
    durable_size: u64,
    cache: Image,
    device: Image,
    durable: Image,
    pending: Vec<Pending>,
    /// Of `pending`, how many the device has already; the rest is only in the page cache.
    on_device: usize,
    /// Open handles: a file without a name lives as long as somebody has it open.
    pub(super) handles: u32,
    /// The page cache holds its pages.
    pub(super) cached: bool,
}

impl FileNode {
    /// Length in bytes, as every open handle sees it.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// How many changes no sync has covered.
    pub(super) fn unsynced(&self) -> usize {
        self.pending.len()
    }

    /// Fills `buf`; `direct` reads see what the device has, after what is dirty in the page cache was handed to it.
    pub(super) fn read(&mut self, offset: u64, buf: &mut [u8], direct: bool) {
        if direct {
            self.write_back();
            self.device.read(offset, buf);
        } else {
            self.cache.read(offset, buf);
        }
    }

    /// A write, volatile until a sync covers it.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8], direct: bool) {
        if bytes.is_empty() {
            return;
        }
        let data = Data::new(offset, bytes);
        data.apply(offset, &mut self.cache);
        if direct {
            self.write_back();
            data.apply(offset, &mut self.device);
        }
        self.size = self.size.max(offset + data.len());
        self.pending.push(Pending { change: Change::Write { offset, data }, size_after: self.size });
        if direct {
            self.on_device = self.pending.len();
        }
    }

    /// Grows the file to `len` bytes, zeros from its end on.
    pub(super) fn grow(&mut self, len: u64) {
        if len > self.size {
            self.size = len;
            self.pending.push(Pending { change: Change::Resize, size_after: len });
        }
    }

    /// Shortens the file to `len` bytes.
    pub(super) fn shrink(&mut self, len: u64) {
        if len < self.size {
            self.write_back();
            self.size = len;
            self.cache.zero_from(len);
            self.device.zero_from(len);
            self.pending.push(Pending { change: Change::Shrink, size_after: len });
            self.on_device = self.pending.len();
        }
    }

    /// Hands what is dirty in the page cache to the device, as the kernel does before direct I/O on the file.
    fn write_back(&mut self) {
        for pending in &self.pending[self.on_device..] {
            if let Change::Write { offset, data } = &pending.change {
                data.apply(*offset, &mut self.device);
            }
        }
        self.on_device = self.pending.len();
    }

    /// Empties the page cache of the file: what is dirty goes to the device first, what a failed sync marked clean
    /// is forgotten, so buffered reads no longer see it.
    pub(super) fn drop_cache(&mut self) {
        self.write_back();
        self.cache = self.device.clone();
        self.cached = false;
    }

    /// Makes every unsynced change durable, and the length with them.
    pub(super) fn sync(&mut self) {
        self.write_back();
        for pending in std::mem::take(&mut self.pending) {
            match pending.change {
                Change::Write { offset, data } => data.apply(offset, &mut self.durable),
                Change::Shrink => self.durable.zero_from(pending.size_after),
                Change::Resize => {}
            }
        }
        self.durable_size = self.size;
        self.on_device = 0;
    }

    /// What a failed sync leaves: the unsynced bytes count as clean, so no later sync writes them. Lengths are
    /// metadata, which the file system still holds and may write.
    pub(super) fn fail_sync(&mut self) {
        for pending in &mut self.pending {
            if matches!(pending.change, Change::Write { .. }) {
                pending.change = Change::Resize;
            }
        }
        self.on_device = self.pending.len();
    }

    /// A sync that the power cut interrupted: the medium has some of the changes it covers, and the rest is lost
    /// or kept by the cut that follows.
    pub(super) fn half_sync(&mut self, sector: u64, rng: &mut Rng) {
        let mut half = self.clone();
        half.cut(CutMode::Random, sector, rng);
        // The length must not hide bytes that the following cut may still keep.
        self.durable = half.durable;
        self.durable_size = half.durable_size;
    }

    /// Loses what a power cut loses. Afterwards all views are what is on the medium.
    pub(super) fn cut(&mut self, mode: CutMode, sector: u64, rng: &mut Rng) {
        match mode {
            CutMode::Keep => self.sync(),
            CutMode::Drop => {}
            CutMode::Random => self.cut_random(sector, rng),
        }
        self.pending.clear();
        self.on_device = 0;
        self.size = self.durable_size;
        self.cache = self.durable.clone();
        self.device = self.durable.clone();
        self.handles = 0;
        self.cached = false;
    }

    fn cut_random(&mut self, sector: u64, rng: &mut Rng) {
        if self.pending.is_empty() {
            return;
        }
        let keep = Keep::draw(rng);
        // File systems keep changes of length in order (they are journalled), so the length that survives is the one
        // of some moment; the bytes know nothing of that order.
        let all = self.pending.len();
        let moment = if rng.chance(1, 2) { all } else { rng.below(all as u64 + 1) as usize };
        for (i, pending) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            match pending.change {
                Change::Write { offset, data } if keep.survives(rng) => {
                    if rng.chance(1, 4) {
                        for (start, end) in torn(offset, data.len(), sector, rng) {
                            data.apply_part(offset, start, end, &mut self.durable);
                        }
                    } else {
                        data.apply(offset, &mut self.durable);
                    }
                }
                Change::Shrink if i < moment => self.durable.zero_from(pending.size_after),
                _ => {}
            }
            if i < moment {
                self.durable_size = pending.size_after;
            }
        }
        self.durable.zero_from(self.durable_size);
    }

    /// All bytes as buffered reads see them.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.cache.to_vec(0, self.size as usize)
    }

    /// All bytes that a cut which drops everything unsynced would leave.
    pub(super) fn durable_bytes(&self) -> Vec<u8> {
        self.durable.to_vec(0, self.durable_size as usize)
    }

    /// Changes bytes behind everybody's back, in all views.
    pub(super) fn damage(&mut self, offset: u64, bytes: &[u8]) {
        self.write_back();
        for image in [&mut self.cache, &mut self.device, &mut self.durable] {
            image.write(offset, bytes);
        }
        self.durable.zero_from(self.durable_size);
    }

    /// Shortens or lengthens the file behind everybody's back; unsynced changes are lost.
    pub(super) fn damage_size(&mut self, len: u64) {
        self.write_back();
        self.pending.clear();
        self.on_device = 0;
        for image in [&mut self.cache, &mut self.device, &mut self.durable] {
            image.zero_from(len);
        }
        self.size = len;
        self.durable_size = len;
    }

    /// Takes the contents of `other` as if nothing had been written since, in all views.
    pub(super) fn become_copy_of(&mut self, other: &FileNode) {
        self.size = other.size;
        self.durable_size = other.size;
        self.cache = other.cache.clone();
        self.device = other.cache.clone();
        self.durable = other.cache.clone();
        self.pending.clear();
        self.on_device = 0;
    }
}
