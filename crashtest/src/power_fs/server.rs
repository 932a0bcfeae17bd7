//! Disks as files of a FUSE file system, each the backing of a loop device: they live in memory, record what they are
//! told, and can be exchanged.
//!
//! The server's threads touch nothing but memory: a thread that waited for a file system on one of its own disks would
//! wait for itself.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, Session, WriteFlags,
};

use super::image::Image;
use super::record::{History, Record};

/// Threads that serve.
const THREADS: usize = 2;
/// How long the kernel may remember names and lengths: they never change.
const TTL: Duration = Duration::from_secs(3600);
/// The largest write that comes in one piece.
const MOST_BYTES: u32 = 1 << 20;

/// A disk.
pub(super) struct Disk {
    len: u64,
    state: Mutex<State>,
}

struct State {
    image: Image,
    record: Option<Record>,
    /// Tells the records of a disk apart.
    records: u64,
    /// The first block was read since the image was put in.
    read: bool,
}

/// A write or flush that is recorded and not answered yet.
#[derive(Clone, Copy)]
struct Pending {
    record: u64,
    number: usize,
}

impl Disk {
    fn new(len: u64) -> Arc<Self> {
        let state = State { image: Image::new(len), record: None, records: 0, read: false };
        Arc::new(Self { len, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Exchanges the content. Nobody may have the disk mounted.
    pub(super) fn put(&self, image: Image) {
        assert_eq!(image.len(), self.len, "an image of another disk");
        let mut state = self.state();
        state.image = image;
        state.record = None;
        state.read = false;
    }

    /// Whether the first block was read since [`Self::put`]. If it was not and the disk is mounted, then the kernel
    /// mounted what it remembered of another content.
    pub(super) fn was_read(&self) -> bool {
        self.state().read
    }

    /// Begins a record. What is on the disk now counts as safe.
    pub(super) fn record(&self) {
        let mut state = self.state();
        state.records += 1;
        state.record = Some(Record::new(state.image.clone()));
    }

    /// Events recorded so far, and bytes written in them.
    pub(super) fn position(&self) -> (u64, u64) {
        self.state().record.as_ref().map_or((0, 0), |record| (record.position(), record.bytes()))
    }

    /// Ends the record.
    pub(super) fn recorded(&self) -> Option<History> {
        let record = self.state().record.take();
        record.map(Record::end)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Option<Pending> {
        let mut state = self.state();
        state.image.write(offset, bytes);
        let records = state.records;
        let number = state.record.as_mut()?.write_comes(offset, bytes);
        Some(Pending { record: records, number })
    }

    fn write_answered(&self, pending: Pending) {
        self.of(pending, Record::write_answered);
    }

    fn flush(&self) -> Option<Pending> {
        let mut state = self.state();
        let records = state.records;
        let number = state.record.as_mut()?.flush_comes();
        Some(Pending { record: records, number })
    }

    fn flush_answered(&self, pending: Pending) {
        self.of(pending, Record::flush_answered);
    }

    /// The record may have ended since, and another one begun.
    fn of(&self, pending: Pending, note: fn(&mut Record, usize)) {
        let mut state = self.state();
        let same = state.records == pending.record;
        if let Some(record) = state.record.as_mut().filter(|_| same) {
            note(record, pending.number);
        }
    }

    fn inside(&self, offset: u64, len: u64) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len)
    }
}

/// Answers that are on their way: a write that was recorded is answered by another thread than the one that took it, so
/// that a flush can come in between, as on a real disk.
struct Answer {
    disk: Arc<Disk>,
    pending: Pending,
    len: u32,
    reply: ReplyWrite,
}

struct Server {
    disks: Vec<Arc<Disk>>,
    answers: Sender<Answer>,
}

impl Server {
    /// Inode 1 is the directory, the disks follow.
    fn disk(&self, inode: INodeNo) -> Option<&Arc<Disk>> {
        self.disks.get(usize::try_from(inode.0).ok()?.checked_sub(2)?)
    }

    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let (size, kind) = match self.disk(inode) {
            Some(disk) => (disk.len, FileType::RegularFile),
            None if inode == INodeNo::ROOT => (0, FileType::Directory),
            None => return None,
        };
        Some(FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

/// Discards are refused, by not being known: the loop device then offers none.
impl Filesystem for Server {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Both make it faster only; a kernel without them gets along.
        let _ = config.set_max_write(MOST_BYTES);
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        Ok(())
    }

    fn lookup(&self, _request: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let inode = name.to_str().and_then(|name| name.parse::<u64>().ok()).map(|disk| INodeNo(disk + 2));
        match inode.and_then(|inode| self.attributes(inode)) {
            Some(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _request: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _request: &Request, _inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // No page cache between the loop device and here, and writes at the same time.
        let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(disk) = self.disk(inode) else { return reply.error(Errno::ENOENT) };
        let len = u64::from(size).min(disk.len.saturating_sub(offset));
        let mut bytes = vec![0; len as usize];
        let mut state = disk.state();
        state.read |= offset < 4096;
        state.image.read(offset, &mut bytes);
        drop(state);
        reply.data(&bytes);
    }

    fn write(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        bytes: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let Some(disk) = self.disk(inode) else { return reply.error(Errno::ENOENT) };
        if !disk.inside(offset, bytes.len() as u64) {
            return reply.error(Errno::ENOSPC);
        }
        let len = bytes.len() as u32;
        match disk.write(offset, bytes) {
            None => reply.written(len),
            Some(pending) => {
                let answer = Answer { disk: disk.clone(), pending, len, reply };
                if let Err(unsent) = self.answers.send(answer) {
                    unsent.0.reply.error(Errno::EIO);
                }
            }
        }
    }

    fn fsync(&self, _request: &Request, inode: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let Some(disk) = self.disk(inode) else { return reply.error(Errno::ENOENT) };
        if let Some(pending) = disk.flush() {
            disk.flush_answered(pending);
        }
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}

/// The file system with the disks, mounted until it is dropped.
pub(super) struct Disks {
    session: Option<BackgroundSession>,
    dir: PathBuf,
    disks: Vec<Arc<Disk>>,
}

impl Disks {
    /// Mounts a file system at `dir` with so many disks of `len` bytes each.
    ///
    /// # Errors
    /// If it cannot be mounted.
    pub(super) fn serve(dir: &Path, count: usize, len: u64) -> std::io::Result<Self> {
        let disks: Vec<_> = (0..count).map(|_| Disk::new(len)).collect();
        let (answers, queue) = channel::<Answer>();
        std::thread::Builder::new().name("disk-answers".into()).spawn(move || {
            for answer in queue {
                answer.disk.write_answered(answer.pending);
                answer.reply.written(answer.len);
            }
        })?;
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("bedstone-power-fs".into())];
        config.n_threads = Some(THREADS);
        let session = Session::new(Server { disks: disks.clone(), answers }, dir, &config)?.spawn()?;
        Ok(Self { session: Some(session), dir: dir.into(), disks })
    }

    pub(super) fn disk(&self, number: usize) -> &Arc<Disk> {
        &self.disks[number]
    }

    /// The file that is this disk.
    pub(super) fn path(&self, number: usize) -> PathBuf {
        self.dir.join(number.to_string())
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        // Lazily, so that it goes even where something still holds one of the disks.
        let gone = nix::mount::umount2(&self.dir, nix::mount::MntFlags::MNT_DETACH);
        if gone.is_ok() {
            // The server ends with the last holder of a disk; to wait for it here could be for ever.
            drop(self.session.take());
        }
    }
}
