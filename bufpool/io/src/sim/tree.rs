//! Names: directories, and the changes of names that no sync of a directory has covered yet.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

use super::cut::{CutMode, Keep};
use super::node::FileNode;
use super::rng::Rng;

/// Number of a file or directory; never used again.
pub(super) type Ino = u64;

const ROOT: Ino = 0;

/// A directory: its names as every caller sees them, and as a cut leaves them at least.
#[derive(Debug, Clone, Default)]
struct DirNode {
    live: BTreeMap<OsString, Ino>,
    durable: BTreeMap<OsString, Ino>,
}

#[derive(Debug, Clone)]
enum Node {
    File(Box<FileNode>),
    Dir(DirNode),
}

/// One unsynced change of names; it survives a cut whole or not at all.
#[derive(Debug, Clone)]
enum NameOp {
    Link { dir: Ino, name: OsString, ino: Ino },
    Unlink { dir: Ino, name: OsString, ino: Ino },
    Rename { from: (Ino, OsString), to: (Ino, OsString), ino: Ino },
}

impl NameOp {
    /// The directory whose sync makes it durable: for a rename that of the new name.
    fn settled_by(&self) -> Ino {
        match self {
            NameOp::Link { dir, .. } | NameOp::Unlink { dir, .. } => *dir,
            NameOp::Rename { to, .. } => to.0,
        }
    }

    /// The name that it gives to a file.
    fn taken(&self) -> Option<(Ino, OsString)> {
        match self {
            NameOp::Link { dir, name, .. } => Some((*dir, name.clone())),
            NameOp::Unlink { .. } => None,
            NameOp::Rename { to, .. } => Some(to.clone()),
        }
    }
}

/// All files and directories of a medium, with everything about them that is still volatile. A clone is cheap and is
/// a snapshot.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    nodes: BTreeMap<Ino, Node>,
    unsynced: Vec<NameOp>,
    next: Ino,
}

/// Where a name lies: its directory, and the last part of its path.
struct Place {
    dir: Ino,
    name: OsString,
}

/// The parts of a path, absolute and relative ones alike counted from the root of the medium.
fn parts(path: &Path) -> Vec<&OsStr> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => parts.push(name),
            Component::ParentDir => {
                parts.pop();
            }
            _ => {}
        }
    }
    parts
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl Tree {
    /// A medium with nothing but its root directory.
    pub(super) fn new() -> Self {
        Self { nodes: BTreeMap::from([(ROOT, Node::Dir(DirNode::default()))]), unsynced: Vec::new(), next: 1 }
    }

    fn dir(&self, ino: Ino) -> io::Result<&DirNode> {
        match self.nodes.get(&ino) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(errno(libc::ENOTDIR)),
            None => Err(errno(libc::ENOENT)),
        }
    }

    fn dir_mut(&mut self, ino: Ino) -> io::Result<&mut DirNode> {
        match self.nodes.get_mut(&ino) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(errno(libc::ENOTDIR)),
            None => Err(errno(libc::ENOENT)),
        }
    }

    fn walk(&self, parts: &[&OsStr]) -> io::Result<Ino> {
        let mut ino = ROOT;
        for part in parts {
            ino = *self.dir(ino)?.live.get(*part).ok_or_else(|| errno(libc::ENOENT))?;
        }
        Ok(ino)
    }

    fn place(&self, path: &Path) -> io::Result<Place> {
        let parts = parts(path);
        let Some((name, parents)) = parts.split_last() else { return Err(errno(libc::EISDIR)) };
        let dir = self.walk(parents)?;
        self.dir(dir)?;
        Ok(Place { dir, name: (*name).to_os_string() })
    }

    /// Whether something exists under this name.
    pub(super) fn exists(&self, path: &Path) -> bool {
        self.walk(&parts(path)).is_ok()
    }

    /// The file under this name.
    pub(super) fn find_file(&self, path: &Path) -> io::Result<Ino> {
        let ino = self.walk(&parts(path))?;
        match self.nodes.get(&ino) {
            Some(Node::File(_)) => Ok(ino),
            Some(Node::Dir(_)) => Err(errno(libc::EISDIR)),
            None => Err(errno(libc::ENOENT)),
        }
    }

    /// The file with this number.
    pub(super) fn file(&mut self, ino: Ino) -> io::Result<&mut FileNode> {
        match self.nodes.get_mut(&ino) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(errno(libc::EIO)),
        }
    }

    /// Like [`Tree::file`], by name.
    pub(super) fn file_at(&mut self, path: &Path) -> io::Result<&mut FileNode> {
        let ino = self.find_file(path)?;
        self.file(ino)
    }

    /// Bytes of space in use, in whole blocks of 4 KiB, by files that have a name or are open.
    pub(super) fn used(&self) -> u64 {
        let mut named: BTreeSet<Ino> = BTreeSet::new();
        for node in self.nodes.values() {
            if let Node::Dir(dir) = node {
                named.extend(dir.live.values());
            }
        }
        self.nodes
            .iter()
            .map(|(ino, node)| match node {
                Node::File(file) if file.handles > 0 || named.contains(ino) => {
                    file.size().next_multiple_of(4096)
                }
                _ => 0,
            })
            .sum()
    }

    fn link(&mut self, place: Place, node: Node) -> io::Result<Ino> {
        let ino = self.next;
        let Place { dir, name } = place;
        if self.dir(dir)?.live.contains_key(&name) {
            return Err(errno(libc::EEXIST));
        }
        self.dir_mut(dir)?.live.insert(name.clone(), ino);
        self.next += 1;
        self.nodes.insert(ino, node);
        self.unsynced.push(NameOp::Link { dir, name, ino });
        Ok(ino)
    }

    /// A new, empty file.
    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<Ino> {
        self.link(self.place(path)?, Node::File(Box::default()))
    }

    /// A directory and its missing parents.
    pub(super) fn create_dirs(&mut self, path: &Path) -> io::Result<()> {
        let mut dir = ROOT;
        for part in parts(path) {
            dir = match self.dir(dir)?.live.get(part) {
                Some(&ino) => ino,
                None => {
                    let place = Place { dir, name: part.to_os_string() };
                    self.link(place, Node::Dir(DirNode::default()))?
                }
            };
        }
        self.dir(dir).map(|_| ())
    }

    /// Names in a directory.
    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let dir = self.dir(self.walk(&parts(path))?)?;
        Ok(dir.live.keys().map(|name| name.to_string_lossy().into_owned()).collect())
    }

    /// Renames a file (replacing a file) or a directory (the new name must be free).
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let ino = self.walk(&parts(from))?;
        let (from, to) = (self.place(from)?, self.place(to)?);
        let is_dir = matches!(self.nodes.get(&ino), Some(Node::Dir(_)));
        if let Some(target) = self.dir(to.dir)?.live.get(&to.name) {
            if *target == ino {
                return Ok(());
            }
            if is_dir || matches!(self.nodes.get(target), Some(Node::Dir(_))) {
                return Err(errno(libc::EEXIST));
            }
        }
        if is_dir && self.is_inside(to.dir, ino) {
            return Err(errno(libc::EINVAL));
        }
        self.dir_mut(from.dir)?.live.remove(&from.name);
        self.dir_mut(to.dir)?.live.insert(to.name.clone(), ino);
        self.unsynced.push(NameOp::Rename { from: (from.dir, from.name), to: (to.dir, to.name), ino });
        self.collect();
        Ok(())
    }

    /// Whether `dir` is `top` or lies below it.
    fn is_inside(&self, dir: Ino, top: Ino) -> bool {
        dir == top
            || self.dir(top).is_ok_and(|node| node.live.values().any(|&child| self.is_inside(dir, child)))
    }

    /// Takes a file's name away; open handles keep the file.
    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let ino = self.find_file(path)?;
        let Place { dir, name } = self.place(path)?;
        self.dir_mut(dir)?.live.remove(&name);
        self.unsynced.push(NameOp::Unlink { dir, name, ino });
        self.collect();
        Ok(())
    }

    /// Takes a file's name away from the medium itself, as if it had never been there.
    pub(super) fn lose_file(&mut self, path: &Path) -> io::Result<()> {
        let ino = self.find_file(path)?;
        for node in self.nodes.values_mut() {
            if let Node::Dir(dir) = node {
                dir.live.retain(|_, child| *child != ino);
                dir.durable.retain(|_, child| *child != ino);
            }
        }
        self.unsynced.retain(|op| match op {
            NameOp::Link { ino: other, .. } | NameOp::Unlink { ino: other, .. } => *other != ino,
            NameOp::Rename { ino: other, .. } => *other != ino,
        });
        self.collect();
        Ok(())
    }

    /// Makes the unsynced changes of names in a directory durable.
    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.walk(&parts(path))?;
        self.dir(dir)?;
        let chosen = self.unsynced.iter().map(|op| op.settled_by() == dir).collect();
        self.settle(chosen);
        self.collect();
        Ok(())
    }

    /// Makes durable at once all names that lead to `path`, for contents put there by the test itself.
    pub(super) fn settle_names(&mut self, path: &Path) {
        for parent in path.ancestors().skip(1) {
            // A parent that is not there has no names to settle.
            let _ = self.sync_dir(parent);
        }
    }

    /// What a failed sync of a directory leaves: the changes stay visible, but no later sync makes them durable.
    pub(super) fn fail_sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.walk(&parts(path))?;
        self.dir(dir)?;
        self.unsynced.retain(|op| op.settled_by() != dir);
        Ok(())
    }

    /// How many changes of names no sync has covered.
    pub(super) fn unsynced_names(&self) -> usize {
        self.unsynced.len()
    }

    fn durable_mut(&mut self, dir: Ino) -> Option<&mut BTreeMap<OsString, Ino>> {
        match self.nodes.get_mut(&dir) {
            Some(Node::Dir(dir)) => Some(&mut dir.durable),
            _ => None,
        }
    }

    /// Makes the chosen ones of the unsynced changes durable, in their order; the others stay unsynced. A name that a
    /// file was renamed away from is not given to another file before that renaming is durable too: else
    /// the first file would have neither its old name nor its new one.
    fn settle(&mut self, mut chosen: Vec<bool>) {
        let ops = std::mem::take(&mut self.unsynced);
        let taken: Vec<_> = ops.iter().map(NameOp::taken).collect();
        for i in (0..ops.len()).rev() {
            if let (true, Some(name)) = (chosen[i], &taken[i]) {
                for j in 0..i {
                    chosen[j] |= matches!(&ops[j], NameOp::Rename { from, .. } if from == name);
                }
            }
        }
        for (op, chosen) in ops.into_iter().zip(chosen) {
            if chosen {
                self.apply(op);
            } else {
                self.unsynced.push(op);
            }
        }
    }

    /// Applies a change to the durable names. Earlier changes may be missing there, so a name is taken away only from
    /// the file that had it, and a renamed file keeps no other name.
    fn apply(&mut self, op: NameOp) {
        match op {
            NameOp::Link { dir, name, ino } => {
                if let Some(names) = self.durable_mut(dir) {
                    names.insert(name, ino);
                }
            }
            NameOp::Unlink { dir, name, ino } => {
                if let Some(names) = self.durable_mut(dir)
                    && names.get(&name) == Some(&ino)
                {
                    names.remove(&name);
                }
            }
            NameOp::Rename { to: (dir, name), ino, .. } => {
                for node in self.nodes.values_mut() {
                    if let Node::Dir(dir) = node {
                        dir.durable.retain(|_, child| *child != ino);
                    }
                }
                if let Some(names) = self.durable_mut(dir) {
                    names.insert(name, ino);
                }
            }
        }
    }

    /// Loses what a power cut loses, of names and of bytes.
    pub(super) fn cut(&mut self, mode: CutMode, sector: u64, rng: &mut Rng) {
        let keep = Keep::draw(rng);
        let chosen = self
            .unsynced
            .iter()
            .map(|_| match mode {
                CutMode::Keep => true,
                CutMode::Drop => false,
                CutMode::Random => keep.survives(rng),
            })
            .collect();
        self.settle(chosen);
        self.unsynced.clear();
        for node in self.nodes.values_mut() {
            match node {
                Node::Dir(dir) => dir.live = dir.durable.clone(),
                Node::File(file) => file.cut(mode, sector, rng),
            }
        }
        self.collect();
    }

    /// Every open handle is gone.
    pub(super) fn close_all(&mut self) {
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.handles = 0;
            }
        }
        self.collect();
    }

    /// Forgets files and directories that nothing leads to any more.
    pub(super) fn collect(&mut self) {
        loop {
            let mut reached = BTreeSet::from([ROOT]);
            for node in self.nodes.values() {
                if let Node::Dir(dir) = node {
                    reached.extend(dir.live.values().chain(dir.durable.values()));
                }
            }
            for op in &self.unsynced {
                match op {
                    NameOp::Link { ino, .. } | NameOp::Unlink { ino, .. } | NameOp::Rename { ino, .. } => {
                        reached.insert(*ino);
                    }
                }
            }
            let before = self.nodes.len();
            self.nodes.retain(|ino, node| {
                reached.contains(ino) || matches!(node, Node::File(file) if file.handles > 0)
            });
            if self.nodes.len() == before {
                return;
            }
        }
    }

    /// Every file with a name, in order of names.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        self.collect_files(ROOT, Path::new("/"), &mut found);
        found
    }

    fn collect_files(&self, dir: Ino, path: &Path, found: &mut Vec<PathBuf>) {
        let Ok(node) = self.dir(dir) else { return };
        for (name, ino) in &node.live {
            let path = path.join(name);
            match self.nodes.get(ino) {
                Some(Node::File(_)) => found.push(path),
                Some(Node::Dir(_)) => self.collect_files(*ino, &path, found),
                None => {}
            }
        }
    }
}
