//! The bare disk, measured in the same rounds as the engines: what no engine can beat without help from memory.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use bedstone_benches::data::Rng;
use bedstone_benches::proc::{device_bytes_read, files_under};
use bedstone_benches::{Contender, Effective, Error, Plan, Result, Sample, Sizes, Store};
use rustix::fs::OFlags;

/// Bytes of the file that [`RawSyncs`] writes round and round.
const LOG_BYTES: u64 = 64 << 20;
/// Bytes of each of its writes: about what a log record of one small entry takes.
const RECORD_BYTES: u64 = 220;
/// Alignment of memory and offsets of direct reads.
const ALIGN: usize = 4096;

/// One thread that appends small records to a file written before, each followed by fdatasync.
pub struct RawSyncs {
    path: PathBuf,
    file: Option<File>,
}

impl RawSyncs {
    /// With its file in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { path: dir.join("raw.log"), file: None }
    }
}

impl Contender for RawSyncs {
    fn name(&self) -> &str {
        "bare pwrite + fdatasync, 1 thread"
    }

    fn prepare(&mut self, _store: Store, _sizes: &Sizes) -> Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&self.path)?;
        let zeros = vec![0; 1 << 20];
        for at in (0..LOG_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, at)?;
        }
        file.sync_all()?;
        self.file = Some(file);
        Ok(())
    }

    fn sample(&mut self, plan: &Plan, _round: usize) -> Result<Sample> {
        let file = self.file.as_ref().ok_or("not prepared")?;
        let mut record = vec![1; RECORD_BYTES as usize];
        let begin = Instant::now();
        let mut ops = 0u64;
        loop {
            record[..8].copy_from_slice(&ops.to_le_bytes());
            file.write_all_at(&record, ops * RECORD_BYTES % (LOG_BYTES - RECORD_BYTES))?;
            file.sync_data()?;
            ops += 1;
            let elapsed = begin.elapsed();
            if elapsed >= plan.sizes.commit_for {
                return Ok(Sample { ops, elapsed, checksum: None, settled: None, device_bytes: None });
            }
        }
    }

    fn effective(&self) -> Option<&Effective> {
        None
    }

    fn disk_bytes(&self) -> Option<u64> {
        None
    }

    fn finish(&mut self) -> Result<()> {
        self.file = None;
        if self.path.exists() {
            std::fs::remove_file(&self.path)?;
        }
        Ok(())
    }
}

/// Threads that read random aligned blocks past the page cache, from the largest file of Bedstone's store or, without
/// it, of any store.
pub struct RawReads {
    dir: PathBuf,
    block: usize,
    name: String,
}

impl RawReads {
    /// Of blocks of `block` bytes, a multiple of 4096, from a file somewhere under `dir`.
    pub fn new(dir: &Path, block: usize) -> Result<Self> {
        if block == 0 || !block.is_multiple_of(ALIGN) {
            return Err(format!("a raw read of {block} bytes: not a multiple of {ALIGN}").into());
        }
        Ok(Self {
            dir: dir.to_path_buf(),
            block,
            name: format!("bare O_DIRECT pread of {} KiB", block >> 10),
        })
    }

    fn largest_file(&self) -> Result<PathBuf> {
        let preferred = self.dir.join("bedstone");
        let dir = if preferred.exists() { &preferred } else { &self.dir };
        let mut sized = Vec::new();
        for path in files_under(dir)? {
            sized.push((std::fs::metadata(&path)?.blocks(), path));
        }
        sized.into_iter().max().map(|(_, path)| path).ok_or_else(|| Error::from("no store to read from"))
    }

    fn read_blocks(&self, file: &File, blocks: u64, count: u64, seed: u64) -> Result<(Instant, Instant)> {
        let mut memory = vec![0; self.block + ALIGN];
        let skip = memory.as_ptr().align_offset(ALIGN);
        let buffer = memory.get_mut(skip..skip + self.block).ok_or("no aligned part in the buffer")?;
        let mut rng = Rng::new(seed);
        let begin = Instant::now();
        for _ in 0..count {
            file.read_exact_at(buffer, rng.below(blocks) * self.block as u64)?;
        }
        Ok((begin, Instant::now()))
    }
}

impl Contender for RawReads {
    fn name(&self) -> &str {
        &self.name
    }

    fn prepare(&mut self, _store: Store, _sizes: &Sizes) -> Result<()> {
        Ok(())
    }

    fn sample(&mut self, plan: &Plan, round: usize) -> Result<Sample> {
        let path = self.largest_file()?;
        let direct = i32::try_from(OFlags::DIRECT.bits())?;
        let file = OpenOptions::new().read(true).custom_flags(direct).open(&path)?;
        let blocks = file.metadata()?.len() / self.block as u64;
        if blocks == 0 {
            return Err(format!("{} is shorter than a block", path.display()).into());
        }
        let threads = plan.sizes.threads as u64;
        let each = plan.ops() / threads;
        let before = device_bytes_read();
        let spans = thread::scope(|scope| {
            let (file, raw) = (&file, &*self);
            let read = move |thread| raw.read_blocks(file, blocks, each, ((round as u64) << 32) | thread);
            let handles: Vec<_> = (0..threads).map(|thread| scope.spawn(move || read(thread))).collect();
            let joined = handles
                .into_iter()
                .map(|handle| handle.join().unwrap_or_else(|_| Err("a thread panicked".into())));
            joined.collect::<Result<Vec<_>>>()
        })?;
        let begin = spans.iter().map(|span| span.0).min();
        let end = spans.iter().map(|span| span.1).max();
        let elapsed = begin.zip(end).map_or(Duration::ZERO, |(begin, end)| end - begin);
        let device_bytes =
            device_bytes_read().zip(before).map(|(after, before)| after.saturating_sub(before));
        Ok(Sample { ops: each * threads, elapsed, checksum: None, settled: None, device_bytes })
    }

    fn effective(&self) -> Option<&Effective> {
        None
    }

    fn disk_bytes(&self) -> Option<u64> {
        None
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}
