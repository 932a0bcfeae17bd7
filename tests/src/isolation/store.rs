//! What a store has to offer to be run and judged.

use std::collections::BTreeMap;
use std::ops::Range;

use super::history::{Element, Key};

/// Why an operation was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The transaction was refused for a conflict, and is over.
    Refused,
    /// The store is down. A commit that says so may have happened.
    Down,
    /// Something that must not be.
    Broken(String),
}

/// A store under test.
pub trait Store: Sync {
    /// Its transactions.
    type Tx<'a>: Tx
    where
        Self: 'a;

    /// Begins a transaction.
    ///
    /// # Errors
    /// [`Stop`].
    fn begin(&self, kind: Begin) -> Result<Self::Tx<'_>, Stop>;

    /// Appends to a key in one call, which is a transaction of its own. Returns the list before.
    ///
    /// # Errors
    /// [`Stop`]; if the store went down, it may have happened.
    fn append_at_once(&self, key: Key, element: Element) -> Result<Vec<Element>, Stop> {
        let mut tx = self.begin(Begin { serializable: false, reads_only: false })?;
        let before = tx.get(key)?;
        let mut list = before.clone();
        list.push(element);
        tx.put(key, &list)?;
        tx.commit()?;
        Ok(before)
    }

    /// Does work that is due besides transactions, if there is any. Called now and then.
    ///
    /// # Errors
    /// [`Stop`]; never [`Stop::Refused`].
    fn idle(&self) -> Result<(), Stop> {
        Ok(())
    }

    /// Lets the power fail after so many more operations of the medium; 0 is at once. `seed` decides what survives of
    /// what was not durable.
    fn crash(&self, after: u64, seed: u64);

    /// Opens the store anew after a crash.
    ///
    /// # Errors
    /// Why that cannot be.
    fn reopen(&mut self) -> Result<(), String>;
}

/// What a transaction will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// It asks to be serializable.
    pub serializable: bool,
    /// It will not write.
    pub reads_only: bool,
}

/// A transaction of it.
pub trait Tx {
    /// The list of a key; empty if absent.
    ///
    /// # Errors
    /// [`Stop`].
    fn get(&mut self, key: Key) -> Result<Vec<Element>, Stop>;
    /// The keys that are there, with their lists.
    ///
    /// # Errors
    /// [`Stop`].
    fn range(&mut self, keys: Range<Key>) -> Result<BTreeMap<Key, Vec<Element>>, Stop>;
    /// Replaces the list of a key.
    ///
    /// # Errors
    /// [`Stop`].
    fn put(&mut self, key: Key, list: &[Element]) -> Result<(), Stop>;
    /// Ends it well, and durably.
    ///
    /// # Errors
    /// [`Stop`].
    fn commit(self) -> Result<(), Stop>;
    /// Gives it up.
    ///
    /// # Errors
    /// [`Stop`].
    fn rollback(self) -> Result<(), Stop>;
}
