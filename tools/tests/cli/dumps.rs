//! page-dump and log-dump.

use serde_json::Value as Json;

use crate::support::Store;

/// A database with enough in it for a tree of two levels.
fn store() -> Store {
    let store = Store::new();
    let lines: String = (0..2000).map(|i| format!("{{\"k\":\"key{i:05}\",\"v\":\"{i:0100}\"}}\n")).collect();
    store.load("t", lines, &["--format", "jsonl", "--key", "k", "--page-size", "4096"]).exits(0);
    store
}

fn pages(store: &Store) -> Vec<Json> {
    let mut all = store.run("page-dump", &["--json"]).exits(0).json_lines();
    let overview = all.remove(0);
    assert_eq!(overview["page_size"], 4096);
    assert_eq!(overview["superblocks"].as_array().unwrap().len(), 2);
    assert_eq!(overview["tables"][0]["name"], "t");
    all
}

#[test]
fn the_pages_hold_what_was_put() {
    let store = store();
    let pages = pages(&store);
    let id = store.run("tables", &["--json"]).exits(0).json()["id"].clone();
    let mine: Vec<&Json> = pages.iter().filter(|p| p["table"] == id).collect();
    let keys: usize =
        mine.iter().filter(|p| p["kind"] == "leaf").map(|p| p["cells"].as_array().unwrap().len()).sum();
    assert_eq!(keys, 2000);
    let children: usize =
        mine.iter().filter(|p| p["kind"] == "inner").map(|p| p["children"].as_array().unwrap().len()).sum();
    assert_eq!(children, mine.len() - 1, "every page but the root is the child of one");
    for page in &pages {
        assert_eq!(page["checksum_found"], page["checksum_expected"]);
        assert_eq!(page["findings"], serde_json::json!([]));
    }
}

#[test]
fn pages_in_every_form() {
    let store = store();
    let pages = pages(&store);
    let overview = store.run("page-dump", &[]).exits(0).text();
    assert_eq!(overview.matches(" leaf ").count(), pages.iter().filter(|p| p["kind"] == "leaf").count());
    assert!(overview.contains("superblock at offset 65536: checkpoint"));

    let leaf =
        pages.iter().find(|p| p["kind"] == "leaf" && p["cells"].as_array().unwrap().len() > 3).unwrap();
    let (id, key) = (leaf["page"].to_string(), leaf["cells"][1]["key"].as_str().unwrap());
    let text = store.run("page-dump", &[&id]).exits(0).text();
    assert!(text.contains(key) && text.contains("they agree") && text.contains("fences"), "{text}");
    let hex = store.run("page-dump", &[&id, "--hex"]).exits(0).text();
    assert!(hex.contains("\n000000  ") && hex.contains("\n000ff0  "), "{hex}");
    let one = store.run("page-dump", &[&id, "--json"]).exits(0).json();
    assert_eq!(&one, leaf);

    let first = pages[0]["page"].as_u64().unwrap();
    let range = format!("{first}..={}", pages[2]["page"]);
    assert_eq!(store.run("page-dump", &[&range, "--json"]).exits(0).json_lines(), pages[..3]);
    let range = format!("{first}..{}", pages[2]["page"]);
    assert_eq!(store.run("page-dump", &[&range, "--json"]).exits(0).json_lines(), pages[..2]);
    store.run("page-dump", &["4000000000"]).exits(2);
}

#[test]
fn the_log_tells_what_was_done() {
    let store = Store::new();
    store.run("put", &["t", "a", "1"]).exits(0);
    store.run("put", &["t", "b", "2"]).exits(0);
    store.run("delete", &["t", "a"]).exits(0);
    let log = store.run("log-dump", &["--from", "4096", "--json"]).exits(0).json_lines();
    let kinds: Vec<_> = log.iter().filter_map(|r| r["kind"].as_str()).collect();
    assert_eq!(kinds, ["create-table", "writes", "writes", "writes"]);
    assert_eq!(log[0]["name"], "t");
    assert_eq!(log[2]["ops"][0]["key"], "b");
    assert_eq!(log[3]["ops"], serde_json::json!([{"op": "delete", "table": log[0]["table"], "key": "a"}]));
    assert!(log[4]["damage"].is_null() && log[4]["reason"].is_string());
    assert_eq!(log[4]["end"], log[3]["next_lsn"]);

    let text = store.run("log-dump", &["--from", "4096"]).exits(0).text();
    assert!(text.contains("b = 2") && text.contains("the log ends at lsn"), "{text}");
    let text = store.run("log-dump", &["--from", "4096", "--limit", "1"]).exits(0).text();
    assert_eq!(text.lines().count(), 1);
    // After an orderly end there is nothing to replay.
    assert!(store.run("log-dump", &[]).exits(0).text().starts_with("the log ends at lsn"));
    store.run("log-dump", &["--from", "4097"]).exits(2);
}
