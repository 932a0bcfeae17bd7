//! The token of an announced page operation (see [`crate::checkpoint_epoch`]).

use std::marker::PhantomData;

use bedstone_io::sync::Ordering;

use crate::pool::{Pool, Shared};

/// An announced page operation. Everything published or changed under it belongs to one checkpoint epoch. Latches
/// are taken before; nothing that waits, reads pages in or allocates happens while it is held. One per thread.
#[derive(Debug)]
pub struct Announcement<'p> {
    shared: &'p Shared,
    pub(crate) epoch: u64,
    not_send: PhantomData<*mut ()>,
}

impl Pool {
    /// Announces a page operation.
    pub fn announce(&self) -> Announcement<'_> {
        let shared = self.shared();
        Announcement { shared, epoch: shared.epoch.announce(shared.slots.mine()), not_send: PhantomData }
    }
}

impl Drop for Announcement<'_> {
    fn drop(&mut self) {
        self.shared.slots.mine().announced.store(0, Ordering::Release);
    }
}
