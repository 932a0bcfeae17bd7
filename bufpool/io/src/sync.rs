//! One shim for the primitives of concurrency: `std` and `parking_lot` in production, `loom` under
//! `--cfg loom`, so that the protocols of pool and log can be model-checked as they are.

#[cfg(not(loom))]
pub use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};

#[cfg(loom)]
pub use self::model::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize};
#[cfg(loom)]
pub use loom::sync::{
    Arc,
    atomic::{Ordering, fence},
};

/// `loom`'s atomics, each access of which first takes a turn.
///
/// loom (0.7.2) runs another interleaving where it sees that two accesses of one atomic compete, and remembers the last
/// access of each atomic for that. A thread that loads and then stores, as every loop around a compare-and-swap does,
/// so hides that its store competes with what another thread loaded before: the interleavings in which the store
/// comes first are never run. Turns are stores to a second atomic, which all compete with one another. Nobody loads
/// them, so they order nothing.
#[cfg(loom)]
mod model {
    use loom::sync::atomic::{self, Ordering};

    macro_rules! atomics {
        ($($name:ident($value:ty): $($method:ident)*;)*) => {$(
            /// As the one of the standard library.
            #[derive(Debug, Default)]
            pub struct $name {
                value: atomic::$name,
                turn: atomic::AtomicUsize,
            }

            #[allow(missing_docs)]
            impl $name {
                pub fn new(value: $value) -> Self {
                    Self { value: atomic::$name::new(value), turn: atomic::AtomicUsize::new(0) }
                }
                fn turn(&self) -> &atomic::$name {
                    self.turn.store(0, Ordering::Relaxed);
                    &self.value
                }
                #[track_caller]
                pub fn load(&self, order: Ordering) -> $value {
                    self.turn().load(order)
                }
                #[track_caller]
                pub fn store(&self, value: $value, order: Ordering) {
                    self.turn().store(value, order);
                }
                #[track_caller]
                pub fn compare_exchange(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    self.turn().compare_exchange(current, new, success, failure)
                }
                #[track_caller]
                pub fn compare_exchange_weak(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    self.turn().compare_exchange_weak(current, new, success, failure)
                }
                $(#[track_caller]
                pub fn $method(&self, value: $value, order: Ordering) -> $value {
                    self.turn().$method(value, order)
                })*
            }
        )*};
    }

    atomics! {
        AtomicBool(bool): swap fetch_and fetch_or;
        AtomicU8(u8): swap fetch_add fetch_sub fetch_and fetch_or fetch_max fetch_min;
        AtomicU32(u32): swap fetch_add fetch_sub fetch_and fetch_or fetch_max fetch_min;
        AtomicU64(u64): swap fetch_add fetch_sub fetch_and fetch_or fetch_max fetch_min;
        AtomicUsize(usize): swap fetch_add fetch_sub fetch_and fetch_or fetch_max fetch_min;
    }
}

/// A mutex without poisoning: `parking_lot` in production, `loom`'s under the model checker (a lock that loom does not
/// know could not be waited for by its threads).
#[cfg(not(loom))]
pub use parking_lot::Mutex;

/// See the production version.
#[cfg(loom)]
#[derive(Debug)]
pub struct Mutex<T>(loom::sync::Mutex<T>);

#[cfg(loom)]
impl<T> Mutex<T> {
    /// An unlocked mutex.
    pub fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Tells the processor that the caller spins (a scheduling point under loom).
#[inline]
pub fn spin_loop() {
    #[cfg(not(loom))]
    std::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}

/// Gives the processor to another thread.
#[inline]
pub fn yield_now() {
    #[cfg(not(loom))]
    std::thread::yield_now();
    #[cfg(loom)]
    loom::thread::yield_now();
}
