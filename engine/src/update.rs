//! Transactions that are run again when they meet a conflict, and single keys that are read, changed and written as one.

use std::hash::{BuildHasher, RandomState};
use std::ops::RangeBounds;
use std::time::Duration;

use crate::db::Database;
use crate::error::{Error, Result};
use crate::options::Durability;
use crate::table::Table;
use crate::transaction::Transaction;

/// How [`Database::update_with`] goes about it.
#[derive(Debug, Clone)]
pub struct UpdateOptions {
    attempts: u32,
    serializable: bool,
    durability: Option<Durability>,
}

impl Default for UpdateOptions {
    fn default() -> Self {
        Self { attempts: 100, serializable: false, durability: None }
    }
}

impl UpdateOptions {
    /// 100 attempts, snapshot isolation, the database's durability.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many times the transaction is run at most, at least once.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Runs serializable transactions.
    #[must_use]
    pub fn serializable(mut self) -> Self {
        self.serializable = true;
        self
    }

    /// How durable the commit is when the call returns.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }
}

/// Longest wait between two attempts.
const WAIT_MAX: Duration = Duration::from_millis(5);

/// The value that a key had and the one that it has got; `None`: not there.
type OldAndNew = (Option<Vec<u8>>, Option<Vec<u8>>);

/// Waits before attempt `n`, longer each time and not the same for all who wait.
fn back_off(n: u32) {
    if n < 3 {
        return std::thread::yield_now();
    }
    let longest = Duration::from_micros(20).saturating_mul(1 << n.min(10)).min(WAIT_MAX);
    let part = RandomState::new().hash_one(n) % 1024;
    std::thread::sleep(longest * part as u32 / 1024);
}

impl Database {
    /// Runs `f` in a write transaction and commits it. After a conflict with another transaction it is run again, in a
    /// new transaction, up to 100 times, with growing waits in between; `f` must do nothing that may not be repeated.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), bedstone::Error> {
    /// # let db = bedstone::Database::open_or_create("accounts.bed")?;
    /// let accounts = db.table("accounts")?;
    /// db.update(|tx| {
    ///     let from = tx.get(&accounts, "alice")?.map_or(0, |v| v.len());
    ///     tx.put(&accounts, "bob", vec![b'*'; from])
    /// })?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// What `f` returns (the transaction is rolled back then), what [`Transaction::commit`] gives, and
    /// [`Error::Conflict`] if the last attempt met one too.
    pub fn update<T>(&self, f: impl FnMut(&mut Transaction) -> Result<T>) -> Result<T> {
        self.update_with(UpdateOptions::new(), f)
    }

    /// [`Database::update`] with options.
    ///
    /// # Errors
    /// As [`Database::update`].
    pub fn update_with<T>(
        &self,
        options: UpdateOptions,
        mut f: impl FnMut(&mut Transaction) -> Result<T>,
    ) -> Result<T> {
        let durability = options.durability.unwrap_or(self.shared().durability);
        for attempt in 1.. {
            let mut tx = self.begin_write()?;
            if options.serializable {
                tx = tx.serializable();
            }
            let outcome = f(&mut tx).and_then(|answer| tx.commit_with(durability).map(|_| answer));
            match outcome {
                Err(e) if e.is_retryable() && attempt < options.attempts => back_off(attempt),
                outcome => return outcome,
            }
        }
        Err(Error::Internal("an update without an attempt".into()))
    }
}

impl Table {
    /// Sets `key` to `new`, or removes it if that is `None`, if its value is `expected` now (`None`: it is not there).
    /// Tells whether it was. One commit, durable as the database's default says; nothing is written if it was not.
    ///
    /// # Errors
    /// As [`Table::put`]; with a value too long for a leaf ([`crate::Limits::max_inline_bytes`]) it is a transaction and
    /// may give what [`Database::update`] gives.
    pub fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<bool> {
        self.shared().write_if(self, key.as_ref(), expected, new)
    }

    /// Sets `key` to what `f` makes of its value; `None` stands for "not there" on both sides. Gives the new value. `f`
    /// may be called more than once, when others change the key meanwhile, and with no lock held.
    ///
    /// # Errors
    /// As [`Table::compare_and_swap`].
    pub fn update(
        &self,
        key: impl AsRef<[u8]>,
        mut f: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>> {
        self.try_update(key.as_ref(), |old| Ok(f(old))).map(|(_, new)| new)
    }

    fn try_update(
        &self,
        key: &[u8],
        mut f: impl FnMut(Option<&[u8]>) -> Result<Option<Vec<u8>>>,
    ) -> Result<OldAndNew> {
        loop {
            let old = self.get(key)?.map(|value| value.to_vec());
            let new = f(old.as_deref())?;
            if old == new || self.compare_and_swap(key, old.as_deref(), new.as_deref())? {
                return Ok((old, new));
            }
        }
    }

    /// Sets `key` to `value` if it is not there; tells whether it was not.
    ///
    /// # Errors
    /// As [`Table::put`].
    pub fn insert_if_absent(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        Ok(!self.contains(key)? && self.compare_and_swap(key, None, Some(value.as_ref()))?)
    }

    /// Removes `key` and gives its value.
    ///
    /// # Errors
    /// As [`Table::delete`].
    pub fn take(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.try_update(key.as_ref(), |_| Ok(None)).map(|(old, _)| old)
    }

    /// Adds `n` to the counter under `key` and gives its new value. A counter is an `i64` of 8 bytes, little-endian; a
    /// key that is not there counts as 0.
    ///
    /// # Errors
    /// [`Error::NotACounter`] if the value is none, or would not fit any more; nothing is changed. As [`Table::put`].
    pub fn add(&self, key: impl AsRef<[u8]>, n: i64) -> Result<i64> {
        let mut sum = 0;
        self.try_update(key.as_ref(), |old| {
            let not = |detail| Error::NotACounter { table: self.name(), detail };
            let now = match old {
                None => 0,
                Some(bytes) => {
                    i64::from_le_bytes(bytes.try_into().map_err(|_| not("its value has not 8 bytes"))?)
                }
            };
            sum = now.checked_add(n).ok_or_else(|| not("the sum is beyond 64 bits"))?;
            Ok(Some(sum.to_le_bytes().to_vec()))
        })?;
        Ok(sum)
    }

    /// Removes all keys in `range`, all or none, and tells how many were there. Its memory is bounded however many they
    /// are. It is run again after a conflict, as [`Database::update`] does.
    ///
    /// # Errors
    /// As [`Database::update`].
    pub fn delete_range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<u64> {
        let bound = |bound: std::ops::Bound<&K>| bound.map(|key| key.as_ref().to_vec());
        let range = (bound(range.start_bound()), bound(range.end_bound()));
        self.database().update(|tx| tx.delete_range(self, range.clone()))
    }
}
