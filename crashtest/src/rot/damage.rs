//! Ways in which files are damaged.

use std::path::{Path, PathBuf};

use bedstone_io::IoError;
use bedstone_io::sim::SimDisk;

use super::victim::{SUPERBLOCKS, Victim};
use crate::rng::Rng;

/// One damage of one file, or of its surroundings. Offsets and lengths are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Damage {
    /// A bit turns.
    Flip { offset: u64, bit: u32 },
    /// The same bit turns in both superblocks.
    FlipBoth { offset: u64, bit: u32 },
    /// Zeros in place of what was written.
    Zeros { offset: u64, len: u64 },
    /// Anything in place of what was written.
    Garbage { offset: u64, len: u64 },
    /// What was there some checkpoints earlier: the writes since were lost.
    Past { offset: u64, len: u64 },
    /// Two stretches changed places.
    Swap { a: u64, b: u64, len: u64 },
    /// The file ends early.
    Cut { len: u64 },
    /// The file is gone.
    Remove,
    /// The file as it was some checkpoints earlier.
    Earlier,
    /// Another file of that name; also where there was none.
    Foreign { bytes: Vec<u8> },
    /// A copy of another file of that name; also where there was none.
    CopyOf { other: PathBuf },
    /// Two files with each other's names.
    SwapNames { other: PathBuf },
    /// Bits turn while the store is open.
    WhileOpen { seed: u64 },
}

impl Damage {
    /// Where it is, if it is one stretch of the file.
    pub(super) fn offset(&self) -> Option<u64> {
        match self {
            Damage::Flip { offset, .. }
            | Damage::Zeros { offset, .. }
            | Damage::Garbage { offset, .. }
            | Damage::Past { offset, .. } => Some(*offset),
            _ => None,
        }
    }

    /// It is done to whole files.
    pub(super) fn is_whole(&self) -> bool {
        matches!(
            self,
            Damage::Cut { .. }
                | Damage::Remove
                | Damage::Earlier
                | Damage::Foreign { .. }
                | Damage::CopyOf { .. }
                | Damage::SwapNames { .. }
        )
    }

    /// How many of the last commits may be gone without an error.
    pub(super) fn may_lose(&self, victim: &Victim, file: &Path) -> usize {
        match self {
            Damage::Zeros { offset, len } | Damage::Garbage { offset, len } => {
                victim.unproven(file, *offset, *len)
            }
            Damage::Swap { a, b, len } => {
                victim.unproven(file, *a, *len).max(victim.unproven(file, *b, *len))
            }
            _ => victim.unproven(file, 0, 0),
        }
    }

    /// Does it to `file`.
    pub(super) fn strike(&self, disk: &SimDisk, victim: &Victim, file: &Path) -> Result<(), IoError> {
        match self {
            Damage::Flip { offset, bit } => disk.flip_bit(file, *offset, *bit),
            Damage::FlipBoth { offset, bit } => {
                SUPERBLOCKS.iter().try_for_each(|slot| disk.flip_bit(file, slot + offset, *bit))
            }
            Damage::Zeros { offset, len } => disk.overwrite(file, *offset, &vec![0; *len as usize]),
            Damage::Garbage { offset, len } => {
                disk.overwrite(file, *offset, &Rng::of(&[*offset, *len]).bytes(*len as usize))
            }
            Damage::Past { offset, len } => {
                let past = victim.earlier.copy_out(file)?;
                disk.overwrite(file, *offset, &past[*offset as usize..(offset + len) as usize])
            }
            Damage::Swap { a, b, len } => disk.swap(file, *a, *b, *len),
            Damage::Cut { len } => disk.truncate_file(file, *len),
            Damage::Remove => disk.remove_file(file),
            Damage::Earlier => disk.restore_file(&victim.earlier, file),
            Damage::Foreign { bytes } => disk.copy_in(file, bytes),
            Damage::CopyOf { other } => disk.copy_in(file, &disk.copy_out(other)?),
            Damage::SwapNames { other } => {
                let (a, b) = (disk.copy_out(file)?, disk.copy_out(other)?);
                disk.copy_in(file, &b)?;
                disk.copy_in(other, &a)
            }
            // The victim itself does that.
            Damage::WhileOpen { .. } => Ok(()),
        }
    }
}
