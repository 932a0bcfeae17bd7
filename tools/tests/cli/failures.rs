//! What is no database, or a damaged one.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::support::Store;

fn flip(file: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    byte[0] ^= 0x10;
    file.write_all_at(&byte, offset).unwrap();
}

/// Everything but load and put, which would make a database.
const READING: [&[&str]; 7] = [
    &["get", "t", "k"],
    &["delete", "t", "k"],
    &["scan", "t"],
    &["tables"],
    &["stat"],
    &["check"],
    &["page-dump"],
];

#[test]
fn no_database() {
    let store = Store::new();
    for command in READING.iter().chain([&["log-dump"][..]].iter()) {
        store.run(command[0], &command[1..]).exits(2).says("t.bed");
        assert!(!store.db().exists(), "{command:?} made something");
    }
    fs::create_dir(store.db()).unwrap();
    for command in READING {
        store.run(command[0], &command[1..]).exits(2).says("t.bed");
        assert_eq!(
            fs::read_dir(store.db()).unwrap().filter(|e| e.as_ref().unwrap().file_name() != "LOCK").count(),
            0
        );
    }
}

#[test]
fn something_else_than_a_database() {
    let store = Store::new();
    fs::create_dir(store.db()).unwrap();
    fs::write(store.db().join("data"), "words that mean nothing. ".repeat(10_000)).unwrap();
    for command in READING.iter().filter(|command| command[0] != "check") {
        store.run(command[0], &command[1..]).exits(2).says("data");
    }
    store.load("t", "1\n", &["--format", "jsonl"]).exits(2).says("data");
}

#[test]
fn no_such_table() {
    let store = Store::with(&[("k", "v")]);
    store.run("get", &["other", "k"]).exits(2).says("no table \"other\"; there are \"t\"");
    store.run("scan", &["other"]).exits(2).says("no table \"other\"");
}

#[test]
fn too_small_a_pool_says_what_to_raise() {
    let store = Store::with(&[("k", "v")]);
    crate::support::run(["stat", store.db().to_str().unwrap(), "--pool-mib", "0"])
        .exits(2)
        .says("--pool-mib");
}

#[test]
fn a_damaged_page_is_found_and_named_and_the_others_are_readable() {
    let store = Store::new();
    let lines: String = (0..500).map(|i| format!("{{\"k\":\"key{i:05}\",\"v\":\"{i:0100}\"}}\n")).collect();
    store.load("t", lines, &["--format", "jsonl", "--key", "k", "--page-size", "4096"]).exits(0);
    let pages = store.run("page-dump", &["--json"]).exits(0).json_lines();
    let leaf = pages.iter().find(|p| p["cells"][0]["key"] == "key00000").unwrap();
    flip(&store.db().join("data"), leaf["offset"].as_u64().unwrap() + 2000);
    let id = leaf["page"].to_string();

    let dump = store.run("page-dump", &[&id]).exits(1).text();
    assert!(dump.contains("THEY DIFFER") && dump.contains("DAMAGE"), "{dump}");
    let found = store.run("page-dump", &[&id, "--json"]).exits(1).json();
    assert_ne!(found["checksum_found"], found["checksum_expected"]);
    store.run("page-dump", &[&id, "--hex"]).exits(1);
    let all = store.run("page-dump", &["--json"]).exits(1).json_lines();
    assert_eq!(all.len(), pages.len());
    assert_eq!(
        all.iter().filter(|p| p["findings"] != serde_json::json!([]) && p["page"].is_u64()).count(),
        1
    );

    store.run("get", &["t", "key00499"]).exits(0);
    store.run("get", &["t", "key00000"]).exits(2).says("checksum").says("data");
    store.run("scan", &["t"]).exits(2).says("checksum");
    let report = store.run("check", &["--json"]).exits(1).json();
    assert_eq!(report["clean"], false);
    assert!(report["problems"].as_array().unwrap().iter().any(|p| p["page"] == leaf["page"]), "{report}");
    assert!(store.run("check", &[]).exits(1).text().contains("DAMAGE"));
}

#[test]
fn damaged_superblocks() {
    let store = Store::with(&[("k", "v")]);
    let data = store.db().join("data");
    flip(&data, 100);
    store.run("page-dump", &[]).exits(1);
    assert_eq!(store.run("get", &["t", "k"]).exits(0).out, br#"{"k":"k","v":"v"}"#, "the other copy serves");
    let store = Store::with(&[("k", "v")]);
    let data = store.db().join("data");
    flip(&data, 100);
    flip(&data, 65536 + 100);
    store.run("get", &["t", "k"]).exits(2).says("superblock");
    store.run("check", &[]).exits(1);
    store.run("page-dump", &[]).exits(2).says("superblock");
}

#[test]
fn a_missing_log_segment() {
    let store = Store::with(&[("k", "v")]);
    for segment in fs::read_dir(store.db().join("redo")).unwrap() {
        fs::remove_file(segment.unwrap().path()).unwrap();
    }
    store.run("get", &["t", "k"]).exits(2).says("redo");
    store.run("check", &[]).exits(1);
    store.run("page-dump", &[]).exits(0);
}
