//! A workload with its sizes, its operations drawn beforehand, and the checksum an honest engine arrives at.

use std::time::Duration;

use crate::data::{DataSet, KeyOrder, Rng};
use crate::engine::Result;
use crate::stand::Store;
use crate::zipf::Zipf;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Single gets of keys chosen evenly, all present, all data in memory.
    Get,
    /// The same with Zipf-distributed keys.
    GetZipf,
    /// Many keys a call, chosen evenly.
    MultiGet,
    /// All entries from the first to the last.
    Scan,
    /// A seek to a key, then a short scan.
    SeekScan,
    /// Batches of random keys into an empty store.
    InsertRandom,
    /// Batches of ascending keys into an empty store.
    InsertAscending,
    /// One-entry transactions, each durable when it returns.
    CommitDurable,
    /// Single gets of keys chosen evenly from much more data than there is cache.
    LargerThanMemory,
}

impl Workload {
    /// Every workload.
    pub const ALL: [Self; 9] = [
        Self::Get,
        Self::GetZipf,
        Self::MultiGet,
        Self::Scan,
        Self::SeekScan,
        Self::InsertRandom,
        Self::InsertAscending,
        Self::CommitDurable,
        Self::LargerThanMemory,
    ];

    /// Its name on the command line and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::GetZipf => "get-zipf",
            Self::MultiGet => "multi-get",
            Self::Scan => "scan",
            Self::SeekScan => "seek-scan",
            Self::InsertRandom => "insert-random-batch",
            Self::InsertAscending => "insert-ascending",
            Self::CommitDurable => "commit-durable",
            Self::LargerThanMemory => "larger-than-memory",
        }
    }

    /// What is counted as one operation.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Get | Self::GetZipf | Self::LargerThanMemory => "get",
            Self::MultiGet => "key",
            Self::Scan => "entry",
            Self::SeekScan => "seek",
            Self::InsertRandom | Self::InsertAscending => "entry",
            Self::CommitDurable => "commit",
        }
    }

    /// In which state it finds the store.
    pub fn store(self) -> Store {
        match self {
            Self::Get | Self::GetZipf | Self::MultiGet | Self::Scan | Self::SeekScan => Store::Loaded,
            Self::CommitDurable => Store::LoadedForCommits,
            Self::InsertRandom | Self::InsertAscending => Store::FreshEachRound,
            Self::LargerThanMemory => Store::ReopenedEachRound,
        }
    }

    /// Whether a round is run first that does not count, so that caches and branch predictors are warm.
    pub fn wants_warm_up(self) -> bool {
        self.store() == Store::Loaded
    }

    fn order(self) -> KeyOrder {
        if self == Self::InsertAscending { KeyOrder::Ascending } else { KeyOrder::Random }
    }
}

/// How large everything is.
#[derive(Debug, Clone)]
pub struct Sizes {
    /// Entries in the store.
    pub entries: u64,
    /// Operations a round, all threads together; ignored by scans and inserts (all entries) and commits (by time).
    pub ops: u64,
    /// Unmeasured gets after reopening, all threads together, for workloads that reopen.
    pub warm_ops: u64,
    /// Threads at work.
    pub threads: usize,
    /// Entries a transaction; 0 puts all into one.
    pub batch: u64,
    /// Keys of one `multi_get`.
    pub keys_per_call: usize,
    /// Entries read after a seek.
    pub scan_len: usize,
    /// How long commits are made each round.
    pub commit_for: Duration,
    /// Length of each value in bytes.
    pub value_len: usize,
    /// Everything random comes from it.
    pub seed: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            entries: 1_000_000,
            ops: 1_000_000,
            warm_ops: 0,
            threads: 1,
            batch: 1_000,
            keys_per_call: 32,
            scan_len: 100,
            commit_for: Duration::from_secs(2),
            value_len: 150,
            seed: 1,
        }
    }
}

/// A workload ready to run.
#[derive(Debug)]
pub struct Plan {
    /// What is done.
    pub workload: Workload,
    /// How much of it.
    pub sizes: Sizes,
    /// Where keys and values come from.
    pub data: DataSet,
    /// Indexes of the keys asked for, one part for each thread.
    pub chosen: Vec<Vec<u32>>,
    /// The same for unmeasured warming up.
    pub warm: Vec<Vec<u32>>,
    /// Sum of the checksums of all threads, see [`crate::measure`]; `None` where the amount of work is not fixed and
    /// the store is examined afterwards instead.
    pub expected: Option<u64>,
}

impl Plan {
    /// Draws the operations and works out the checksum. Fails if there are no entries or more than `u32::MAX`.
    pub fn new(workload: Workload, sizes: &Sizes) -> Result<Self> {
        let mut sizes = sizes.clone();
        sizes.threads = sizes.threads.max(1);
        sizes.keys_per_call = sizes.keys_per_call.max(1);
        let entries = u32::try_from(sizes.entries).ok().filter(|&entries| entries > 0);
        let entries =
            entries.ok_or_else(|| format!("{} entries: 1 to {} are possible", sizes.entries, u32::MAX))?;
        if workload == Workload::InsertRandom || workload == Workload::InsertAscending {
            sizes.threads = 1;
        }
        let data = DataSet::new(sizes.seed, workload.order(), sizes.value_len);
        let mut plan = Self {
            workload,
            data,
            chosen: Vec::new(),
            warm: Vec::new(),
            expected: None,
            sizes: sizes.clone(),
        };

        let zipf = (workload == Workload::GetZipf).then(|| Zipf::new(sizes.entries, Zipf::THETA));
        let draw = |count: u64, stream: u64| {
            let mut parts = vec![Vec::new(); sizes.threads];
            for (thread, part) in parts.iter_mut().enumerate() {
                let mut rng = Rng::new(sizes.seed ^ (stream << 32) ^ (thread as u64));
                part.extend((0..count / sizes.threads as u64).map(|_| match &zipf {
                    Some(zipf) => (zipf.item(&mut rng) % u64::from(entries)) as u32,
                    None => rng.below(u64::from(entries)) as u32,
                }));
            }
            parts
        };
        match workload {
            Workload::Get | Workload::GetZipf | Workload::MultiGet | Workload::LargerThanMemory => {
                plan.chosen = draw(sizes.ops.max(sizes.threads as u64), 1);
                plan.warm = draw(sizes.warm_ops, 2);
                let sums = plan.chosen.iter().map(|part| plan.expected_of_gets(part));
                plan.expected = Some(sums.fold(0, u64::wrapping_add));
            }
            Workload::SeekScan => {
                plan.chosen = draw(sizes.ops.max(sizes.threads as u64), 1);
                plan.expected = Some(plan.expected_of_seeks(entries));
            }
            Workload::Scan | Workload::InsertRandom | Workload::InsertAscending => {
                let one = plan
                    .sorted(entries)
                    .into_iter()
                    .fold(0, |sum, index| fold_in_order(sum, plan.touched(index)));
                plan.expected = Some(one.wrapping_mul(sizes.threads as u64));
            }
            Workload::CommitDurable => {}
        }
        Ok(plan)
    }

    /// Operations of one round as [`Workload::unit`] counts them; 0 if time decides.
    pub fn ops(&self) -> u64 {
        match self.workload {
            Workload::Scan => self.sizes.entries * self.sizes.threads as u64,
            Workload::InsertRandom | Workload::InsertAscending => self.sizes.entries,
            Workload::CommitDurable => 0,
            _ => self.chosen.iter().map(|part| part.len() as u64).sum(),
        }
    }

    /// Index of the `number`-th entry that thread `thread` commits in round `round`: unlike any that was loaded and
    /// any of another thread, round or plan with another number of threads (up to 4095 of each, and 2^28 entries).
    pub fn commit_index(&self, round: usize, thread: usize, number: u64) -> u64 {
        debug_assert!(number < 1 << 28);
        let (round, threads, thread) = (round as u64 + 1, self.sizes.threads as u64, thread as u64);
        (round << 52) | (threads << 40) | (thread << 28) | number
    }

    fn touched(&self, index: u32) -> u64 {
        u64::from(self.data.first_byte(u64::from(index))) + self.data.value_len() as u64
    }

    fn expected_of_gets(&self, part: &[u32]) -> u64 {
        let call =
            if self.workload == Workload::MultiGet { self.sizes.keys_per_call } else { part.len().max(1) };
        let calls = part.chunks(call);
        let terms =
            calls.flat_map(|keys| keys.iter().enumerate()).map(|(at, &index)| weigh(at, self.touched(index)));
        terms.fold(0, u64::wrapping_add)
    }

    fn expected_of_seeks(&self, entries: u32) -> u64 {
        let sorted = self.sorted(entries);
        let mut rank = vec![0u32; sorted.len()];
        let mut touched = Vec::with_capacity(sorted.len());
        for (position, &index) in (0u32..).zip(&sorted) {
            rank[index as usize] = position;
            touched.push(self.touched(index));
        }
        let mut total = 0u64;
        for part in &self.chosen {
            let mut sum = 0;
            for &index in part {
                let from = rank[index as usize] as usize;
                let to = touched.len().min(from + self.sizes.scan_len);
                sum = touched[from..to].iter().fold(sum, |sum, &value| fold_in_order(sum, value));
            }
            total = total.wrapping_add(sum);
        }
        total
    }

    /// Indexes of all entries in the order of their keys.
    fn sorted(&self, entries: u32) -> Vec<u32> {
        let mut keyed: Vec<_> = (0..entries).map(|index| (self.data.key(u64::from(index)), index)).collect();
        keyed.sort_unstable();
        keyed.into_iter().map(|(_, index)| index).collect()
    }
}

/// What a workload makes of a value: its first byte, so that the value's memory has to be there, and its length.
#[inline]
pub fn touch(value: &[u8]) -> u64 {
    u64::from(value.first().copied().unwrap_or(0)) + value.len() as u64
}

/// Adds to a checksum a value that answers the `position`-th question, whatever the order of the answers.
#[inline]
pub fn weigh(position: usize, touched: u64) -> u64 {
    touched.wrapping_mul((position & 0xff) as u64 + 1)
}

/// Adds a value to a checksum that depends on the order.
#[inline]
pub fn fold_in_order(sum: u64, touched: u64) -> u64 {
    sum.rotate_left(7).wrapping_add(touched)
}
