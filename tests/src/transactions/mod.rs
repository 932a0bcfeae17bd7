//! Long runs of snapshots and transactions on a real disk: transactions larger than memory, their processes killed; a
//! snapshot held open while all keys change many times; and what a live snapshot costs the writers.

pub mod figures;
pub mod held;
pub mod large;
