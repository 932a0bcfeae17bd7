//! The content of a disk, in memory, cheap to copy.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

/// Bytes of a block, the unit that copies share.
const BLOCK: usize = 4096;
/// Blocks of a chunk, the unit of a copy's table.
const CHUNK: usize = 256;
const CHUNK_BYTES: usize = BLOCK * CHUNK;

type Block = [u8; BLOCK];
type Chunk = [Option<Arc<Block>>; CHUNK];

const EMPTY: Option<Arc<Block>> = None;
const ZEROS: Block = [0; BLOCK];

/// The bytes of a disk. What was never written reads as zeros and takes no memory; a copy shares every block with its
/// original until one of the two writes to it.
#[derive(Clone)]
pub(super) struct Image {
    len: u64,
    chunks: Vec<Option<Arc<Chunk>>>,
}

impl Image {
    /// A disk of so many bytes, all zero.
    pub(super) fn new(len: u64) -> Self {
        let chunks = len.div_ceil(CHUNK_BYTES as u64) as usize;
        Self { len, chunks: vec![None; chunks] }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `into` with what is at `offset`, which lies on the disk with all of it.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) {
        for (chunk, block, within, range) in pieces(offset, into.len()) {
            let piece = &mut into[range];
            match self.chunks[chunk].as_ref().and_then(|chunk| chunk[block].as_ref()) {
                Some(bytes) => piece.copy_from_slice(&bytes[within..within + piece.len()]),
                None => piece.fill(0),
            }
        }
    }

    /// Puts `bytes` at `offset`, which lie on the disk with all of them.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (chunk, block, within, range) in pieces(offset, bytes.len()) {
            let piece = &bytes[range];
            if self.chunks[chunk].as_ref().is_none_or(|chunk| chunk[block].is_none())
                && piece == &ZEROS[..piece.len()]
            {
                continue;
            }
            let chunk = self.chunks[chunk].get_or_insert_with(|| Arc::new([EMPTY; CHUNK]));
            let block = Arc::make_mut(chunk)[block].get_or_insert_with(|| Arc::new(ZEROS));
            Arc::make_mut(block)[within..within + piece.len()].copy_from_slice(piece);
        }
    }

    /// Writes the disk to a sparse file.
    pub(super) fn save(&self, path: &Path) -> std::io::Result<()> {
        let mut file = File::create(path)?;
        file.set_len(self.len)?;
        for (number, chunk) in self.chunks.iter().enumerate() {
            for (block, bytes) in chunk.iter().flat_map(|chunk| chunk.iter()).enumerate() {
                if let Some(bytes) = bytes {
                    file.seek(SeekFrom::Start((number * CHUNK_BYTES + block * BLOCK) as u64))?;
                    file.write_all(&bytes[..])?;
                }
            }
        }
        Ok(())
    }
}

/// The blocks that a stretch touches: chunk, block in it, first byte in that, and which bytes of the stretch they are.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (usize, usize, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % BLOCK as u64) as usize;
        let begin = done;
        done = len.min(begin + BLOCK - within);
        let block = (at / BLOCK as u64) as usize;
        (begin < len).then_some((block / CHUNK, block % CHUNK, within, begin..done))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn an_image_is_its_bytes_and_a_copy_stays_as_it_was() {
        let len = 3 * CHUNK_BYTES;
        let mut rng = Rng::new(1);
        let (mut image, mut bytes) = (Image::new(len as u64), vec![0; len]);
        let mut copy = None;
        for step in 0..200 {
            let offset = rng.index(len / 512) * 512;
            let piece = match rng.below(3) {
                0 => vec![0; 512 * (1 + rng.index(40))],
                _ => {
                    let sectors = 1 + rng.index(40);
                    rng.bytes(512 * sectors)
                }
            };
            let piece = &piece[..piece.len().min(len - offset)];
            image.write(offset as u64, piece);
            bytes[offset..offset + piece.len()].copy_from_slice(piece);
            if step == 100 {
                copy = Some((image.clone(), bytes.clone()));
            }
        }
        let (copy, copied) = copy.unwrap();
        for (image, bytes) in [(&image, &bytes), (&copy, &copied)] {
            let mut read = vec![1; len];
            image.read(0, &mut read);
            assert!(read == *bytes);
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        copy.save(file.path()).unwrap();
        assert!(std::fs::read(file.path()).unwrap() == copied);
    }
}
