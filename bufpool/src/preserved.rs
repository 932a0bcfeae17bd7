//! Retired frames whose content the checkpoint being closed still needs.

use bedstone_io::sync::Mutex;

use crate::checkpoint_epoch::CheckpointEpoch;
use crate::dirty::Dirty;
use crate::frame::FrameId;
use crate::header::PageId;

/// The list of them. A leaf's frame on it carries a pin of the checkpoint's own; an inner node's frame has not been
/// handed to the reader epochs yet.
#[derive(Debug)]
pub(crate) struct Preserved {
    list: Mutex<Vec<(PageId, FrameId)>>,
}

impl Preserved {
    pub(crate) fn new() -> Self {
        Self { list: Mutex::new(Vec::new()) }
    }

    /// A writer of `epoch` takes a frame that no translation word names any more away from its page. If the checkpoint
    /// needs the content, `retire` is run and the frame put on the list. `false`: it does not; nothing happened.
    ///
    /// The decision is made under the lock of the list, because a checkpoint that is given up first takes back the
    /// number of the epoch it was closing and then empties the list: a frame put there afterwards would stay until the
    /// next checkpoint and be taken for the page's newest content of *that* epoch.
    pub(crate) fn keep(
        &self,
        page: PageId,
        frame: FrameId,
        dirty: &Dirty,
        epoch: u64,
        checkpoint: &CheckpointEpoch,
        retire: impl FnOnce(),
    ) -> bool {
        if !dirty.needed(epoch, checkpoint.closing()) {
            return false;
        }
        let mut list = self.list.lock();
        if !dirty.needed(epoch, checkpoint.closing()) {
            return false;
        }
        retire();
        list.push((page, frame));
        true
    }

    /// Takes everything off the list.
    pub(crate) fn take(&self) -> Vec<(PageId, FrameId)> {
        std::mem::take(&mut *self.list.lock())
    }

    /// Puts back what was taken and not dealt with.
    pub(crate) fn put_back(&self, rest: impl IntoIterator<Item = (PageId, FrameId)>) {
        self.list.lock().extend(rest);
    }
}
