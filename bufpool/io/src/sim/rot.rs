//! Looking at the medium and damaging it behind the store's back: rot, misplaced blocks, files cut short or lost,
//! and old states brought back. Paths that do not exist and places beyond the end of a file are errors; a missing
//! power is not.

use std::io;
use std::path::{Path, PathBuf};

use super::disk::SimDisk;
use super::node::FileNode;
use super::state::{MAX_FILE, State, errno};
use super::tree::Tree;
use crate::error::{IoError, Op};

/// A medium at one moment, with everything that was unsynced then. It shares its bytes with the medium.
#[derive(Debug, Clone)]
pub struct Snapshot {
    tree: Tree,
}

impl Snapshot {
    /// All bytes a file had, as buffered reads saw them.
    pub fn copy_out(&self, path: &Path) -> Result<Vec<u8>, IoError> {
        copy_out(&mut self.tree.clone(), path)
    }

    /// Paths of all its files, in order.
    pub fn files(&self) -> Vec<PathBuf> {
        self.tree.files()
    }
}

fn copy_out(tree: &mut Tree, path: &Path) -> Result<Vec<u8>, IoError> {
    tree.file_at(path).map(|file| file.bytes()).map_err(|source| IoError::new(Op::Read, path, source))
}

fn check_inside(file: &FileNode, offset: u64, len: u64) -> io::Result<()> {
    if offset.checked_add(len).is_some_and(|end| end <= file.size()) {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends before these bytes"))
    }
}

impl SimDisk {
    fn touch<T>(
        &self,
        op: Op,
        path: &Path,
        work: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> Result<T, IoError> {
        work(&mut self.medium.state()).map_err(|source| IoError::new(op, path, source))
    }

    /// Turns one bit (0 to 7) of the byte at `offset`, in the caches and on the medium. A write that was unsynced at
    /// that moment still brings its own bytes to the medium when it is synced.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u32) -> Result<(), IoError> {
        self.touch(Op::Write, path, |state| {
            let file = state.tree.file_at(path)?;
            check_inside(file, offset, 1)?;
            let mut byte = [0];
            file.read(offset, &mut byte, false);
            file.damage(offset, &[byte[0] ^ (1 << (bit % 8))]);
            Ok(())
        })
    }

    /// Puts other bytes there; else as [`SimDisk::flip_bit`].
    pub fn overwrite(&self, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), IoError> {
        self.touch(Op::Write, path, |state| {
            let file = state.tree.file_at(path)?;
            check_inside(file, offset, bytes.len() as u64)?;
            file.damage(offset, bytes);
            Ok(())
        })
    }

    /// Swaps the `len` bytes at `a` with those at `b`; else as [`SimDisk::flip_bit`].
    pub fn swap(&self, path: &Path, a: u64, b: u64, len: u64) -> Result<(), IoError> {
        self.touch(Op::Write, path, |state| {
            let file = state.tree.file_at(path)?;
            check_inside(file, a, len)?;
            check_inside(file, b, len)?;
            let (mut at_a, mut at_b) = (vec![0; len as usize], vec![0; len as usize]);
            file.read(a, &mut at_a, false);
            file.read(b, &mut at_b, false);
            file.damage(a, &at_b);
            file.damage(b, &at_a);
            Ok(())
        })
    }

    /// Cuts the file off at `len` bytes, or lengthens it with zeros; writes to it that were unsynced are lost.
    pub fn truncate_file(&self, path: &Path, len: u64) -> Result<(), IoError> {
        self.touch(Op::Truncate, path, |state| {
            if len > MAX_FILE {
                return Err(errno(libc::EFBIG));
            }
            state.tree.file_at(path)?.damage_size(len);
            Ok(())
        })
    }

    /// Makes the file vanish from the medium at once. Open handles keep it.
    pub fn remove_file(&self, path: &Path) -> Result<(), IoError> {
        self.touch(Op::Remove, path, |state| state.tree.lose_file(path))
    }

    /// Puts a file with these bytes on the medium at once, replacing what has that name, with its directories;
    /// other unsynced changes of names in those directories become durable with it.
    pub fn copy_in(&self, path: &Path, bytes: &[u8]) -> Result<(), IoError> {
        self.touch(Op::Create, path, |state| {
            if state.tree.exists(path) {
                state.tree.lose_file(path)?;
            }
            if let Some(parent) = path.parent() {
                state.tree.create_dirs(parent)?;
            }
            let ino = state.tree.create_file(path)?;
            let file = state.tree.file(ino)?;
            file.write(0, bytes, false);
            file.sync();
            state.tree.settle_names(path);
            Ok(())
        })
    }

    /// All bytes of a file, as buffered reads see them.
    pub fn copy_out(&self, path: &Path) -> Result<Vec<u8>, IoError> {
        copy_out(&mut self.medium.state().tree, path)
    }

    /// All bytes of a file that a cut would leave which drops everything unsynced.
    pub fn copy_out_durable(&self, path: &Path) -> Result<Vec<u8>, IoError> {
        self.touch(Op::Read, path, |state| Ok(state.tree.file_at(path)?.durable_bytes()))
    }

    /// Paths of all files, in order.
    pub fn files(&self) -> Vec<PathBuf> {
        self.medium.state().tree.files()
    }

    /// How many changes of a file (writes, changes of length) no sync has covered.
    pub fn unsynced(&self, path: &Path) -> Result<usize, IoError> {
        self.touch(Op::Stat, path, |state| Ok(state.tree.file_at(path)?.unsynced()))
    }

    /// How many changes of names no sync of a directory has covered.
    pub fn unsynced_names(&self) -> usize {
        self.medium.state().tree.unsynced_names()
    }

    /// Empties the page cache of a file, as the kernel may at any time: what is dirty goes to the device (where it is
    /// still volatile), and what a failed sync had marked clean is seen no more.
    pub fn drop_cache(&self, path: &Path) -> Result<(), IoError> {
        self.touch(Op::Stat, path, |state| {
            state.tree.file_at(path)?.drop_cache();
            Ok(())
        })
    }

    /// The whole medium as it is now. Cheap.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { tree: self.medium.state().tree.clone() }
    }

    /// Brings a whole medium back, unsynced changes included; every disk and handle is dead until
    /// [`SimDisk::reopen`] gives a new one.
    pub fn restore(&self, snapshot: &Snapshot) {
        let mut state = self.medium.state();
        state.tree = snapshot.tree.clone();
        state.next_life();
    }

    /// Gives one file the contents it had in the snapshot, as if every write since were lost without notice; it
    /// must exist in both. Open handles stay usable and see the old contents.
    pub fn restore_file(&self, snapshot: &Snapshot, path: &Path) -> Result<(), IoError> {
        self.touch(Op::Write, path, |state| {
            let mut old = snapshot.tree.clone();
            let old = old.file_at(path)?;
            state.tree.file_at(path)?.become_copy_of(old);
            Ok(())
        })
    }
}
