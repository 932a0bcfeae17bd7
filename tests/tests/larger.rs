//! Data several times larger than the pool, on a real disk: every answer right, memory within bounds, nothing cached
//! twice. The long run is `--bin larger`.
//!
//! The only test of its binary, because it looks at the memory of the whole process.

use bedstone_tests::larger::{Larger, run};

#[test]
fn sixty_four_mebibytes_through_a_pool_of_eight() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Larger { data_bytes: 64 << 20, pool_bytes: 8 << 20, ops: 20_000, threads: 4, seed: 1 };
    let seen = run(&plan, &dir.path().join("db"), &mut |_| {}).unwrap();
    println!("{seen:?}");
    if seen.io.contains("past the page cache") {
        assert_eq!(seen.data_cached_pages, 0, "the data file is cached by the operating system too");
    } else {
        println!("direct I/O is not to be had here ({}): the page cache is not looked at", seen.io);
    }
    assert!(seen.resident_peak <= (8 + 64) << 20, "{} bytes were resident", seen.resident_peak);
}
