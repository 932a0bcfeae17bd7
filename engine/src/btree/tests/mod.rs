//! Tests of the tree over the real pool, most of them on the simulated disk.

mod crash;
mod harness;
mod model;
mod overflow;
mod scans;
mod stress;
mod structure;
