//! The demonstration.

use crate::support::{Store, run};

#[test]
fn the_demonstration_holds_what_it_claims() {
    let store = Store::new();
    let path = store.db().to_str().unwrap();
    let text = run(["demo", path]).exits(0).text();
    for words in [
        "28,298 of 28,298",
        "died of SIGKILL",
        "every one of the",
        "What was shown",
        "checksum",
        "through the snapshot",
        "10 + 5 + 5 + 1 = 21",
    ] {
        assert!(text.contains(words), "{words:?} is not in: {text}");
    }
    assert!(!text.contains("FAILED"), "{text}");
    // The database stays, closed and whole.
    assert!(store.run("scan", &["airports", "--prefix", "LSZH"]).exits(0).text().contains("Zurich"));
    store.run("check", &[]).exits(0);
    run(["demo", path]).exits(2).says("already");
}

#[test]
fn a_temporary_database_is_removed() {
    let place = tempfile::tempdir().unwrap();
    let output = crate::support::bedstone().arg("demo").env("TMPDIR", place.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}
