//! The B+-tree over the buffer pool: point reads, writes, batches, cursors, values in pages of their own.
//!
//! # Shape
//!
//! A [`Tree`] is a root page id and a table id. The root keeps its id for ever and is always an inner node,
//! so an empty tree is a root and one empty leaf. Keys lie in leaves (level 0); inner nodes (level 1 and
//! above) hold separators: child `i` is responsible for the keys from separator `i - 1` (inclusive) to
//! separator `i` (exclusive). Every node carries its own two fences. There are no parent pointers and no
//! sibling links.
//!
//! # Words and versions
//!
//! The pool has one translation word per page id; it changes whenever another version of the page is
//! published. Inner nodes never change once published: every change is a new version, and old ones stay
//! readable while a guard that could have seen them lives. Hence: *two equal words read under one guard mean
//! the same bytes.* Leaves change in place, but only under a writer latch and while nobody has them pinned.
//!
//! # The way down
//!
//! Under a guard, at every inner node `P` (whose word `w` was read before its bytes): find the child `c`,
//! load the word of `c`, then load the word of `P` again; if it is not `w` any more, start again from the
//! root. At the leaf the pin (or the latch) takes the place of the child's load. A missing page is brought in
//! with no guard held, and the descent starts again.
//!
//! **Why a leaf reached so is the right one.** The responsibility of a page id changes only by splits and
//! merges, and each of them replaces the version of the parent as well. Let the recheck of `P` happen at the
//! moment `t`. At `t`, `P` is the version whose bytes were read, so at `t` the page `c` was a child of `P`
//! for the keys that `P` says, *provided* that no structural change of `c` made after `P`'s key range was
//! taken away from it can be seen while `P`'s word still is `w`. That proviso is what the orders of
//! publication below are for; each keeps the rule
//!
//! > **(R)** As long as a version of an inner node can pass the recheck, none of its children changes its
//! > responsibility other than by the operation that holds this very node's structure lock.
//!
//! A child's responsibility is changed only by holders of the structure lock of its parent, and a child has
//! one parent, so (R) can break only where a child is handed from one parent to another: when an inner node
//! splits, merges, or is absorbed by the root.
//!
//! * **Leaf split** (lock of the parent, latch of the leaf): publish the right half (nobody can know its id),
//!   replace the parent, replace the leaf by its left half, release the latch. A reader that comes through
//!   the old parent and pins the old leaf rechecks the parent: if that passes, no writer can have reached the
//!   right half yet, and the old leaf is exact. One that comes through the old parent and pins the
//!   *shortened* leaf must see the new parent, which was stored before. One that comes through the new parent
//!   and still finds the old leaf has a key of the left half, in which nothing can have changed, because the
//!   latch is held. (A cursor looks at the whole leaf and not at one key; it therefore also compares the
//!   leaf's fences with the parent's separators, and starts again when it meets a leaf in the middle of its
//!   split.)
//! * **Leaf merge** (lock of the parent, latches of left and right, in that order, all tried and never waited
//!   for): replace left by the merged leaf and keep that latched, replace the parent, free right, release the
//!   latch. Until the latch is released nobody can change the keys that came from right; whoever pinned right
//!   rechecks the parent.
//! * **Inner split** (locks of grandparent and node): publish the right half, replace the node by its left
//!   half, replace the grandparent. Between the last two steps the keys of the right half cannot be reached:
//!   the old grandparent leads to the left half, which ends before them. A descent notices that, because
//!   whenever it would take the *last* child of a node it compares with the node's upper fence, and starts
//!   again. The right half's children can be reached through the right half only after the grandparent was
//!   replaced, and by then every recheck of the undivided node fails: (R) holds. (In the order right,
//!   grandparent, left it would not: a reader inside the undivided node could pass its recheck after a writer
//!   that came through the right half had split the very leaf it is going to.)
//! * **Inner merge** (locks of grandparent, left, right): free right, replace left by the merged node,
//!   replace the grandparent. Once right is free nobody passes its recheck, and its children can be reached
//!   again only through the merged node: (R) holds. Until the grandparent is replaced, a descent for a key of
//!   right finds right free and starts again.
//! * **The root grows** (lock of the root): publish two nodes with its children, then replace it by a node
//!   one level higher. Before that step nobody knows the two; after it no recheck of the old root passes.
//! * **The root shrinks** (locks of the root and of its only child): free the child, then replace the root by
//!   a node with the child's content. As with merges, the descents in between start again.
//! * The lower fence of a page id never changes while the page lives, so only upper fences need the
//!   comparison above.
//!
//! A page id that was freed is not used again before the checkpoint that contains the freeing is durable and
//! every guard of that time is gone, so a word can never belong to another page than the one a descent came
//! for.
//!
//! # Locks and deadlocks
//!
//! Structure locks are taken top-down and left to right, leaf latches after them. All of them are *tried*:
//! whoever does not get one releases what it has and starts again, so nobody waits for a lock while holding
//! one. Frames and page ids for an operation are set aside in a [`Reserve`] while nothing is held. Under a
//! latch or lock there is no I/O, no waiting, no allocation of frames. A page operation takes its latches
//! first, then announces itself to the checkpoint epochs, then (for the writes of a commit) takes its place
//! in the log by the caller's *stamp*, and then publishes; from a successful stamp on nothing can fail.
//!
//! # Files
//!
//! `descend` the way down (`chaos` disturbs it in tests); `read` single gets; `multi` many gets interleaved;
//! `write` one change; `apply` sorted batches of changes; `split`, `merge` changes of structure; `cursor`
//! ranges; `overflow`, `overflow_read` long values; `free` giving a whole tree back; `walk` checking and
//! measuring a tree; `warm` bringing the leaves of a batch in before it is committed; `node` the bytes of
//! pages.

mod apply;
mod chaos;
mod cursor;
mod descend;
mod free;
mod merge;
mod multi;
pub(crate) mod node;
mod overflow;
mod overflow_read;
mod read;
mod split;
#[cfg(test)]
mod tests;
mod walk;
mod warm;
mod write;

pub(crate) use apply::Op;
pub(crate) use cursor::Scan;
pub(crate) use node::{MAX_VALUE_BYTES, OverflowRef, limits};
pub(crate) use overflow::{BuildGate, BuildPass, PreparedOverflow, SourceError};
pub(crate) use overflow_read::OverflowReader;
pub(crate) use read::Found;
pub(crate) use walk::TreeStats;
pub(crate) use write::{NewValue, Outcome, Stamp, Write};

use bedstone_bufpool::{NewPage, PageId, PageKind, Pool, PoolError, Reserve};
use std::path::PathBuf;

/// What tree operations return.
pub(crate) type Result<T> = std::result::Result<T, PoolError>;

/// Pages that one page operation may take from a reserve at most: a split takes three (right half, left half,
/// parent), the growth of the root three, a change of a leaf one.
pub(crate) const OPERATION_PAGES: usize = 4;

/// A B+-tree: where its root is, and which table's number its pages carry. All of its state is in the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tree {
    /// The root's page id; it never changes.
    pub(crate) root: PageId,
    /// The number in the envelope of every page of the tree.
    pub(crate) table: u32,
}

/// Pages of a tree that is not reachable yet: its root and its one, empty leaf. They are published together
/// with the catalog entry that names the root.
pub(crate) type TreePages<'p> = [NewPage<'p>; 2];

impl Tree {
    /// Builds an empty tree out of `reserve` (two pages). Dropping the pages unpublished gives everything
    /// back.
    pub(crate) fn create<'p>(pool: &'p Pool, reserve: &mut Reserve<'p>, table: u32) -> (Tree, TreePages<'p>) {
        let root = pool.new_page(reserve, PageKind::Inner, 1, table);
        Self::build(pool, reserve, table, root)
    }

    /// As [`Tree::create`] with a given root page id: the catalog of an empty database.
    pub(crate) fn create_at<'p>(
        pool: &'p Pool,
        reserve: &mut Reserve<'p>,
        table: u32,
        root: PageId,
    ) -> (Tree, TreePages<'p>) {
        let root = pool.new_page_with_id(reserve, root, PageKind::Inner, 1, table);
        Self::build(pool, reserve, table, root)
    }

    fn build<'p>(
        pool: &'p Pool,
        reserve: &mut Reserve<'p>,
        table: u32,
        mut root: NewPage<'p>,
    ) -> (Tree, TreePages<'p>) {
        let mut leaf = pool.new_page(reserve, PageKind::Leaf, 0, table);
        node::LeafMut::init(&mut leaf, &[], None);
        node::build_root_with_child(&mut root, leaf.page_id());
        let tree = Tree { root: root.page_id(), table };
        // The leaf first, so that whoever publishes in this order never makes a root with a missing child
        // reachable.
        (tree, [leaf, root])
    }
}

/// A contradiction between pages that are well-formed each for itself.
#[cold]
fn inconsistent(page: PageId, what: &'static str, detail: String) -> PoolError {
    PoolError::Corrupt { file: PathBuf::from("data"), offset: 0, page: Some(page), what, detail }
}
