//! The token of an announced page operation (see [`crate::checkpoint_epoch`]).

use std::marker::PhantomData;

use crate::pool::{Pool, Shared};

/// An announced page operation. Everything published or changed under it belongs to one checkpoint epoch. Latches
/// are taken before; nothing that waits, reads pages in or allocates happens while it is held. One per thread.
#[derive(Debug)]
pub struct Announcement<'p> {
    shared: &'p Shared,
    epoch: u64,
    not_send: PhantomData<*mut ()>,
}

impl Pool {
    /// Announces a page operation.
    pub fn announce(&self) -> Announcement<'_> {
        let shared = self.shared();
        Announcement { shared, epoch: shared.epoch.announce(shared.slots.mine()), not_send: PhantomData }
    }
}

impl Announcement<'_> {
    /// The checkpoint epoch of the operation.
    ///
    /// # Panics
    /// If it was announced to another pool.
    pub(crate) fn epoch(&self, shared: &Shared) -> u64 {
        assert!(std::ptr::eq(self.shared, shared), "an operation announced to another pool");
        self.epoch
    }
}

impl Drop for Announcement<'_> {
    fn drop(&mut self) {
        self.shared.epoch.end(self.shared.slots.mine());
    }
}
