//! Threads that write and read at once with small pools: gets, multi-gets, ranges both ways, batches, deletes, long
//! values. Longer: `cargo run -p bedstone-tests --bin threads -- --seconds 60`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bedstone_tests::threads::{Plan, run};

#[test]
fn readers_and_writers_on_small_pools_see_whole_values_in_order() {
    for (seed, page_size) in [(1, 4096), (2, 16384), (3, 65536)] {
        let plan = Plan { seed, time: Duration::from_secs(3), writers: 4, readers: 4, page_size };
        let report = run(&plan).unwrap_or_else(|what| panic!("{plan:?}: {what}"));
        assert!(
            report.commits.load(Ordering::Relaxed) > 0 && report.reads.load(Ordering::Relaxed) > 0,
            "{report:?}"
        );
        println!("{report:?}");
    }
}
