//! What tests of concurrency change about the tree, so that rare things happen often: threads are held up
//! between any two steps of the protocol and not only where the scheduler happens to switch, and the inner
//! nodes of one table hold only a few children. Outside tests there is nothing here.

#[cfg(test)]
use std::cell::Cell;

#[cfg(test)]
thread_local! {
    /// State of the thread's generator; 0 = the thread is never held up.
    static STATE: Cell<u64> = const { Cell::new(0) };
}

/// From now on the calling thread is held up now and again, as `seed` decides.
#[cfg(test)]
pub(super) fn disturb_this_thread(seed: u64) {
    STATE.set(seed | 1);
}

/// Between two steps of a protocol.
#[inline(always)]
pub(super) fn point() {
    #[cfg(test)]
    {
        let mut state = STATE.get();
        if state != 0 {
            // Marsaglia, "Xorshift RNGs" (2003).
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            STATE.set(state);
            match state >> 54 {
                0..8 => std::thread::yield_now(),
                8 => (0..20).for_each(|_| std::thread::yield_now()),
                9..60 => (0..200).for_each(|_| std::hint::spin_loop()),
                _ => {}
            }
        }
    }
}

/// The table whose inner nodes are small.
#[cfg(test)]
pub(super) const SMALL_NODES: u32 = 9;

/// Most separators of an inner node of this table, beside what the page has room for.
#[inline(always)]
pub(super) fn separators_max(table: u32) -> usize {
    #[cfg(test)]
    if table == SMALL_NODES {
        return 5;
    }
    let _ = table;
    usize::MAX
}
