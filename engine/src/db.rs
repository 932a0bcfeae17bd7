//! The database handle: opening, closing, and the ways to tables and batches.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bedstone_bufpool::{PageHeader, Pool, PoolConfig, VerifyPage};
use bedstone_io::{Disk, IoReport};
use bedstone_wal::{Wal, WalConfig};
use parking_lot::Mutex;

use crate::batch::WriteBatch;
use crate::btree::{self, BuildGate};
use crate::catalog::{self, Catalog};
use crate::check::CheckReport;
use crate::checkpoint::Checkpoints;
use crate::create;
use crate::error::{Error, Result};
use crate::options::{Background, Builder, Durability, Limits, real_disk};
use crate::recovery::{self, Recovered};
use crate::shared::{Shared, State};
use crate::snapshot::{Snapshot, SnapshotInfo, SnapshotOptions};
use crate::stats::{CheckpointInfo, Counters, RecoveryReport, Stats};
use crate::table::Table;
use crate::transaction::Transaction;
use crate::txn::slots::Slots;
use crate::txn::stripes::Stripes;
use crate::txn::versions::{Live, Versions, View};

/// Which of the three ways to start was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Open,
    Create,
    OpenOrCreate,
}

/// A commit that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommitInfo {
    /// Its position in the log, which is also its place in the order of commits. 0 for a commit that wrote
    /// nothing.
    pub lsn: u64,
}

/// A table as the catalog has it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableInfo {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u32,
    /// Page id of its root.
    pub root_page: u32,
}

/// An open database. Clones are handles to the same one; it is closed by [`Database::close`], or as well as
/// may be when the last handle is dropped, which tells nobody whether that succeeded: what was only relaxed is durable
/// after [`Database::sync`] or `close`. Nothing that was acknowledged as durable depends on closing.
///
/// An open database does not cross `fork(2)`: a child must not use it, because its threads are not there and its files
/// are the parent's. Closing and dropping it there do nothing to them.
#[derive(Clone)]
pub struct Database {
    handle: Arc<Handle>,
}

/// What the last handle takes with it.
struct Handle {
    shared: Arc<Shared>,
    /// The process that opened the database. In a forked child there is nothing to close: see [`Database`].
    process: u32,
    background: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("path", &self.path()).finish_non_exhaustive()
    }
}

/// Checks page bodies as they come from the medium.
struct VerifyNodes;

impl VerifyPage for VerifyNodes {
    fn verify(&self, header: &PageHeader, page: &[u8]) -> std::result::Result<(), String> {
        btree::node::verify(header, page)
    }
}

/// The largest batch: what the offsets of a [`WriteBatch`] and a reasonable memory hold.
const MAX_BATCH_BYTES: u64 = 16 << 30;

impl Limits {
    fn new(page_size: usize) -> Self {
        let nodes = btree::limits(page_size);
        Self {
            max_key_bytes: nodes.max_key,
            max_value_bytes: btree::MAX_VALUE_BYTES,
            max_inline_bytes: nodes.max_inline_cell,
            max_batch_bytes: MAX_BATCH_BYTES,
            max_table_name_bytes: catalog::NAME_MAX,
            max_tables: catalog::TABLE_MAX,
        }
    }
}

impl Database {
    /// Options other than the default ones.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Opens the database in directory `path` with the default options.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().open(path)
    }

    /// Creates a database in directory `path` with the default options.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().create(path)
    }

    /// Opens the database in directory `path`, or creates it, with the default options.
    pub fn open_or_create(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().open_or_create(path)
    }

    pub(crate) fn start(options: Builder, path: &Path, start: Start) -> Result<Self> {
        options.check()?;
        let disk: Arc<dyn Disk> = match &options.disk {
            Some(disk) => disk.clone(),
            None => real_disk(options.io, options.allow_buffered)?,
        };
        let data = create::data_path(path);
        // Looked at before the lock, so that opening what is not there leaves no trace.
        if start == Start::Open && !disk.exists(&data)? {
            return Err(Error::NotFound { path: path.to_path_buf() });
        }
        create::make_directory(&*disk, path)?;
        let lock_path = path.join(create::LOCK);
        let lock = disk.lock(&lock_path).map_err(|e| {
            if e.is_locked() {
                Error::Locked { path: path.to_path_buf(), holder: e.source.to_string() }
            } else {
                e.into()
            }
        })?;
        let mut wal_config = WalConfig {
            dir: create::redo_path(path),
            database_id: [0; 16],
            opening: 0,
            segment_bytes: options.log_segment_bytes,
            buffer_bytes: options.log_buffer_bytes,
            relaxed_delay: options.relaxed_delay,
            syncs_in_flight: options.syncs_in_flight,
            background: options.background.wal(),
        };
        match (disk.exists(&data)?, start) {
            (true, Start::Create) => return Err(Error::AlreadyExists { path: path.to_path_buf() }),
            (false, Start::Open) => return Err(Error::NotFound { path: path.to_path_buf() }),
            (true, _) => {}
            (false, _) => {
                let page_size = options.page_size.unwrap_or(create::DEFAULT_PAGE_SIZE);
                wal_config.database_id = create::new_database_id(&*disk, path, options.disk.is_some());
                create::create_files(&*disk, path, page_size, &wal_config)?;
            }
        }

        let pool_config = PoolConfig {
            pool_bytes: options.pool_bytes,
            policy: options.policy.kind(),
            huge_pages: options.huge_pages,
            background: options.background.pool(),
            verify: Arc::new(VerifyNodes),
        };
        let pool = Pool::open(&disk, &data, &pool_config)?;
        let page_size = pool.page_size();
        if let Some(asked) = options.page_size
            && asked != page_size
        {
            let detail = format!("the database has pages of {page_size} bytes, {asked} were asked for");
            return Err(Error::BadOption { option: "page_size", detail });
        }
        let frames = options.pool_bytes / page_size;
        let limits = Limits::new(page_size);
        let gate = BuildGate::new(frames);
        let opening = pool.begin_opening()?;
        let superblock = pool.superblock();
        let Recovered { tables, changes, end, report } = recovery::recover(
            &recovery::Place {
                disk: &disk,
                redo: &wal_config.dir,
                pool: &pool,
                gate: &gate,
                limits,
                progress: options.on_recovery_progress.as_deref(),
            },
            opening,
        )?;
        (wal_config.database_id, wal_config.opening) = (superblock.database_id, opening);
        let wal = Wal::open(disk.clone(), wal_config, &end)?;
        tracing::info!(
            path = %path.display(),
            opening,
            records = report.records,
            io = io_line(&disk.report(path)),
            "database opened"
        );
        let replayed = !report.clean;
        let leftovers = !changes.tombstones.is_empty();
        let shared = Arc::new(Shared {
            path: path.to_path_buf(),
            stripes: Stripes::new(),
            slots: Slots::new(superblock.replay_lsn),
            versions: Versions::new(),
            gate,
            catalog: Catalog::new(tables, changes),
            checkpoints: Checkpoints::new(superblock.replay_lsn, disk.now()),
            counters: Counters::default(),
            limits,
            pool_frames: frames,
            durability: options.durability,
            transaction_memory: options.transaction_memory,
            background: options.background,
            checkpoint_log_bytes: options.checkpoint_log_bytes,
            recovery: report,
            state: State::default(),
            pool,
            wal,
            disk,
            lock: Mutex::new(Some(lock)),
        });
        let handle = Arc::new(Handle { shared, process: std::process::id(), background: Mutex::new(None) });
        if options.background == Background::Threads {
            let shared = handle.shared.clone();
            let interval = options.checkpoint_interval;
            let thread = std::thread::Builder::new()
                .name("bedstone-checkpointer".into())
                .spawn(move || shared.background_loop(interval))
                .map_err(|e| Error::BadOption { option: "background", detail: format!("no thread: {e}") })?;
            *handle.background.lock() = Some(thread);
        }
        let db = Self { handle };
        // What was replayed is written out soon, so that the next recovery need not do it again.
        match options.background {
            Background::Threads if replayed => db.shared().checkpoints.want(),
            Background::Threads if leftovers => db.shared().checkpoints.want_upkeep(),
            Background::Manual if leftovers => db.shared().upkeep(),
            _ => {}
        }
        Ok(db)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    pub(crate) fn is_same(&self, other: &Database) -> bool {
        Arc::ptr_eq(&self.handle, &other.handle)
    }

    fn handle_of(&self, state: Arc<catalog::TableState>) -> Table {
        Table::new(self.clone(), state)
    }

    /// The table of this name, made if it is not there.
    pub fn table(&self, name: &str) -> Result<Table> {
        self.shared().find_or_create(name).map(|t| self.handle_of(t))
    }

    /// The table of this name if there is one.
    pub fn open_table(&self, name: &str) -> Result<Option<Table>> {
        self.shared().readable()?;
        Ok(self.shared().catalog.find(name).map(|t| self.handle_of(t)))
    }

    /// Makes a table; an error if there is one of this name.
    pub fn create_table(&self, name: &str) -> Result<Table> {
        self.shared().create_table(name).map(|t| self.handle_of(t))
    }

    /// Drops a table; tells whether there was one. Its pages are given back in the background.
    pub fn drop_table(&self, name: &str) -> Result<bool> {
        self.shared().drop_table(name)
    }

    /// Gives a table another name; handles to it stay good.
    pub fn rename_table(&self, from: &str, to: &str) -> Result<()> {
        self.shared().rename_table(from, to)
    }

    /// All tables, by name.
    pub fn tables(&self) -> Result<Vec<TableInfo>> {
        self.shared().readable()?;
        let info = |t: &Arc<catalog::TableState>| TableInfo {
            name: t.name.read().clone(),
            id: t.id,
            root_page: t.tree.root.0,
        };
        Ok(self.shared().catalog.all().iter().map(info).collect())
    }

    /// Commits a batch, durable as the database's default says.
    pub fn write(&self, batch: WriteBatch) -> Result<()> {
        self.write_with(batch, self.shared().durability).map(drop)
    }

    /// Commits a batch with the durability given.
    pub fn write_with(&self, batch: WriteBatch, durability: Durability) -> Result<CommitInfo> {
        batch.belongs_to(self)?;
        self.shared().write_batch(batch, durability)
    }

    /// Takes a snapshot: everything read through it is as it is at this moment. Cheap enough to take one for a single
    /// look.
    ///
    /// # Errors
    /// The database is closed; or it failed in the middle of applying a commit, so that there is no moment to see.
    pub fn begin_read(&self) -> Result<Snapshot> {
        Snapshot::new(self, SnapshotOptions::new())
    }

    /// Begins a write transaction. Any number may be open at a time.
    ///
    /// # Errors
    /// The database is closed or read-only.
    pub fn begin_write(&self) -> Result<Transaction> {
        Transaction::new(self, SnapshotOptions::new())
    }

    /// Begins a write transaction with a name for [`Database::snapshots`], or a deadline after which it can neither
    /// read nor commit any more. Errors as [`Database::begin_write`].
    pub fn begin_write_with(&self, options: SnapshotOptions) -> Result<Transaction> {
        Transaction::new(self, options)
    }

    /// Takes a snapshot with a name or a deadline. Errors as [`Database::begin_read`].
    pub fn begin_read_with(&self, options: SnapshotOptions) -> Result<Snapshot> {
        Snapshot::new(self, options)
    }

    /// The live snapshots, the oldest first: who holds what.
    pub fn snapshots(&self) -> Vec<SnapshotInfo> {
        let shared = self.shared();
        let now = shared.disk.now();
        let tables = shared.catalog.all();
        let info = |(live, view): (Arc<Live>, Arc<View>)| SnapshotInfo {
            id: live.id,
            name: live.label.name.clone(),
            writes: live.label.writes,
            age: now.saturating_sub(live.label.begun),
            left: live.label.deadline.map(|deadline| deadline.saturating_sub(now)),
            lsn: view.lsn(),
            held_bytes: tables.iter().map(|table| table.history.bytes_for(&view)).sum(),
        };
        shared.versions.live().into_iter().map(info).collect()
    }

    /// Makes every commit so far durable.
    pub fn sync(&self) -> Result<()> {
        let shared = self.shared();
        shared.writable()?;
        shared.wal.sync().map(drop).map_err(|e| shared.wal_error(e))
    }

    /// Makes a checkpoint now: recovery will begin at its moment.
    pub fn checkpoint(&self) -> Result<CheckpointInfo> {
        let shared = self.shared();
        shared.writable()?;
        let info = shared.run_checkpoint(false)?;
        shared.upkeep();
        Ok(info)
    }

    /// Figures since the database was opened.
    pub fn stats(&self) -> Stats {
        let shared = self.shared();
        let history = shared.checkpoints.history();
        let of = Counters::of;
        Stats {
            puts: of(&shared.counters.puts),
            deletes: of(&shared.counters.deletes),
            batches: of(&shared.counters.batches),
            batch_writes: of(&shared.counters.batch_writes),
            tables: shared.catalog.all().len() as u64,
            visible_lsn: shared.slots.visible_below(|| shared.wal.tail().0),
            replay_lsn: shared.checkpoints.replay_lsn(),
            last_checkpoint: history.last,
            checkpoint_failures: history.failures,
            last_checkpoint_failure: history.last_failure,
            // What failed in the background is told before any call has met it.
            read_only_because: (shared.state.cause().map(ToString::to_string))
                .or_else(|| shared.wal.failed().map(|error| error.to_string()))
                .or_else(|| shared.pool.failed().map(|error| error.to_string())),
            pool: shared.pool.stats(),
            wal: shared.wal.stats(),
            io: io_line(&self.io_report()),
        }
    }

    /// Checks everything: order and fences of every page, chains of long values, leaked and doubly used pages
    /// and space. Writers are held off meanwhile.
    pub fn check(&self) -> Result<CheckReport> {
        self.shared().check()
    }

    /// What recovery did when this database was opened.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.shared().recovery
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.shared().path
    }

    /// Bytes of a page.
    pub fn page_size(&self) -> usize {
        self.shared().pool.page_size()
    }

    /// Every limit.
    pub fn limits(&self) -> Limits {
        self.shared().limits
    }

    /// How I/O is done, and why so.
    pub fn io_report(&self) -> IoReport {
        self.shared().disk.report(self.path())
    }

    /// Stops the background work, makes a checkpoint and closes the files; reports what went wrong. The other
    /// handles and tables still there only give errors afterwards.
    pub fn close(self) -> Result<()> {
        self.shared().refuse_inside("close")?;
        self.handle.close()
    }
}

fn io_line(report: &IoReport) -> String {
    let way = if report.direct { "past the page cache" } else { "through the page cache" };
    format!("{:?}, {way} on {} ({})", report.mode, report.file_system, report.reason)
}

impl Builder {
    /// What can be checked without looking at any file.
    fn check(&self) -> Result<()> {
        let bad = |option, detail: &str| Err(Error::BadOption { option, detail: detail.into() });
        if let Some(size) = self.page_size
            && !(size.is_power_of_two() && (4096..=65536).contains(&size))
        {
            return bad("page_size", "4096, 8192, 16384, 32768 or 65536 bytes are possible");
        }
        if self.checkpoint_log_bytes == 0 {
            return bad("checkpoint_log_bytes", "0 would mean a checkpoint after every commit and before it");
        }
        if self.checkpoint_interval == Some(Duration::ZERO) {
            return bad("checkpoint_interval", "0 would mean to do nothing else");
        }
        Ok(())
    }
}

impl Handle {
    /// Closes; the second time nothing happens.
    fn close(&self) -> Result<()> {
        let shared = &self.shared;
        if self.process != std::process::id() {
            // The threads that would have to end are not here, and the files are the parent's. Nothing of it is
            // dropped, since that would wait for them.
            std::mem::forget(Arc::clone(shared));
            return Err(Error::Closed { path: shared.path.clone() });
        }
        shared.checkpoints.stop();
        if let Some(thread) = self.background.lock().take() {
            // A thread that panicked has said so; what it left undone is done below.
            drop(thread.join());
        }
        let failure = shared.state.cause().cloned();
        if !shared.state.close() {
            return Ok(());
        }
        // Whoever gets past the state has an apply slot, or works on what dropped tables left.
        drop(shared.catalog.upkeep.lock());
        shared.slots.drain();
        let outcome = match failure {
            Some(cause) => Err(Error::ReadOnlyFailed(cause)),
            None => shared.run_checkpoint(true).map(drop),
        };
        // For relaxed commits, if the checkpoint was given up; and once all of the log is durable, nobody who still waits
        // for a commit of his writes to files that belong to the next process.
        let outcome = match (outcome, shared.wal.sync()) {
            // Worse than a checkpoint that was given up: what was handed to the kernel may be lost.
            (outcome, Err(log)) if !outcome.as_ref().is_err_and(Error::is_read_only) => {
                Err(shared.wal_error(log))
            }
            (outcome, _) => outcome,
        };
        shared.checkpoints.end();
        shared.pool.shutdown();
        shared.wal.shutdown();
        *shared.lock.lock() = None;
        outcome
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let outcome = self.close();
        // In a forked child there was nothing to close.
        if let Err(e) = outcome
            && self.process == std::process::id()
        {
            tracing::error!(path = %self.shared.path.display(), error = %e, "closing the database failed");
        }
    }
}
