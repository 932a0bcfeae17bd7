//! load: formats, keys, what is skipped, and being killed.

use std::io::{BufRead, BufReader, Write};

use crate::support::{Store, wait};

fn text(entries: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<(String, String)> {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    entries.into_iter().map(|(key, value)| (text(key), text(value))).collect()
}

#[test]
fn a_csv_file_with_everything_wrong_in_it() {
    let store = Store::new();
    let long = "k".repeat(5000);
    let file = store.file(
        "places.csv",
        format!("id,name\nzrh,\"Zürich, CH\"\n,nameless\nbsl\ngva,Genève\n{long},long\nzrh,again\n"),
    );
    let done = store.run("load", &["places", file.to_str().unwrap(), "--key", "id"]).exits(1);
    assert!(done.out.is_empty());
    let done = done
        .says("line 3: skipped, no key: column \"id\" is empty")
        .says("line 4: skipped, wrong number of fields: 1 fields, the header has 2")
        .says("line 6: skipped, key too long")
        .says("loaded 3 records")
        .says("keys are column \"id\"")
        .says("skipped 3 records (key too long: 1, no key: 1, wrong number of fields: 1)");
    assert_eq!(done.err.lines().count(), 5, "{}", done.err);
    assert_eq!(
        text(store.entries("places")),
        [
            ("gva".into(), r#"{"id":"gva","name":"Genève"}"#.into()),
            ("zrh".into(), r#"{"id":"zrh","name":"again"}"#.to_owned()),
        ]
    );
}

#[test]
fn without_a_key_column_records_are_numbered() {
    let store = Store::new();
    let lines = "{\"a\": 1.50}\n\n  [2]\nnonsense\n\"three\"\n";
    store
        .load("t", lines, &["--format", "jsonl"])
        .exits(1)
        .says("line 4: skipped, not JSON")
        .says("record numbers of 12 decimal digits");
    assert_eq!(
        text(store.entries("t")),
        [
            ("000000000001".into(), "{\"a\": 1.50}".into()),
            ("000000000002".into(), "[2]".into()),
            ("000000000004".into(), "\"three\"".to_owned()),
        ]
    );
}

#[test]
fn every_format() {
    let store = Store::new();
    let tsv = store.file("t.tsv", "k\tv\n1\t\"x\" y\n");
    store.run("load", &["tsv", tsv.to_str().unwrap(), "--key", "k"]).exits(0);
    assert_eq!(text(store.entries("tsv")), [("1".into(), r#"{"k":"1","v":"\"x\" y"}"#.to_owned())]);
    let jsonl = store.file("t.jsonl", "{\"k\":7}\n{\"k\":\"x\"}");
    store.run("load", &["jsonl", jsonl.to_str().unwrap(), "--key", "k"]).exits(0).says("loaded 2 records");
    assert_eq!(store.entries("jsonl").len(), 2);
    store.load("csv", "k\n1\n2\n3\n", &["--format", "csv", "--batch", "2", "--acks"]).exits(0);
    assert_eq!(store.entries("csv").len(), 3);
    store.load("empty", "", &["--format", "csv"]).exits(0).says("loaded 0 records");
    assert!(store.entries("empty").is_empty());
    store.run("check", &[]).exits(0);
}

#[test]
fn a_long_list_of_skipped_records_is_cut() {
    let store = Store::new();
    let done = store.load("t", "x\n".repeat(1000), &["--format", "jsonl"]).exits(1);
    assert_eq!(done.err.matches("skipped, not JSON").count(), 20);
    done.says("more records are skipped").says("skipped 1,000 records (not JSON: 1,000)");
}

#[test]
fn acknowledged_batches_are_numbered() {
    let store = Store::new();
    let done = store.load("t", "1\nx\n3\n4\n5\n", &["--format", "jsonl", "--batch", "2", "--acks"]).exits(1);
    assert_eq!(done.text(), "3\n5\n");
}

#[test]
fn a_wrong_column_leaves_nothing_behind() {
    let store = Store::new();
    store.load("t", "a,b\n1,2\n", &["--format", "csv", "--key", "c"]).exits(3).says("its columns are a, b");
    assert!(!store.db().exists());
    store.run("load", &["t", "/no/such/file.csv"]).exits(2).says("/no/such/file.csv");
    assert!(!store.db().exists());
}

#[test]
fn the_page_size_is_chosen_when_the_database_is_made() {
    let store = Store::new();
    store.load("t", "1\n", &["--format", "jsonl", "--page-size", "4096"]).exits(0);
    assert_eq!(store.run("stat", &["--json"]).exits(0).json()["page_size"], 4096);
    store.load("t", "2\n", &["--format", "jsonl", "--page-size", "8192"]).exits(0);
    assert_eq!(store.run("stat", &["--json"]).exits(0).json()["page_size"], 4096);
    Store::new().load("t", "1\n", &["--format", "jsonl", "--page-size", "5000"]).exits(2).says("page_size");
}

/// Feeds records for ever, kills the command with SIGKILL once some batches were acknowledged, and looks for them.
#[test]
fn acknowledged_batches_survive_a_kill_and_the_last_one_is_whole_or_absent() {
    const BATCH: usize = 50;
    let store = Store::new();
    let mut child =
        store.start("load", &["t", "-", "--format", "jsonl", "--batch", &BATCH.to_string(), "--acks"]);
    let mut stdin = child.stdin.take().unwrap();
    let record = |number: usize| format!("{{\"number\":{number},\"padding\":\"{number:0200}\"}}");
    let feeder = std::thread::spawn(move || {
        // Ends when the pipe breaks.
        for number in 1.. {
            if writeln!(stdin, "{}", record(number)).is_err() {
                return;
            }
        }
    });
    let mut acks = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = 0;
    for _ in 0..20 {
        acknowledged = acks.next().unwrap().unwrap().parse().unwrap();
    }
    child.kill().unwrap();
    for ack in acks {
        // What is cut short by the kill is no acknowledgement, and its number is no greater than the true one.
        acknowledged = acknowledged.max(ack.unwrap().parse().unwrap_or(0));
    }
    child.wait().unwrap();
    feeder.join().unwrap();

    let entries = text(store.entries("t"));
    assert!(entries.len() >= acknowledged, "{} of {acknowledged} acknowledged records", entries.len());
    assert_eq!(entries.len() % BATCH, 0, "a batch is there in part");
    for (i, (key, value)) in entries.iter().enumerate() {
        assert_eq!((key, value), (&format!("{:012}", i + 1), &record(i + 1)));
    }
    store.run("check", &[]).exits(0);
}

#[test]
fn a_database_in_use_names_its_holder() {
    let store = Store::new();
    let mut child = store.start("load", &["t", "-", "--format", "jsonl", "--batch", "1", "--acks"]);
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "1").unwrap();
    let mut ack = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut ack).unwrap();
    store.run("get", &["t", "k"]).exits(2).says("open elsewhere").says(&child.id().to_string());
    drop(stdin);
    wait(child).exits(0);
    store.run("get", &["t", "000000000001"]).exits(0);
}
