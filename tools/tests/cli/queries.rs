//! put, get, delete, scan, tables, stat, check.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;

use crate::support::{Store, run, wait};

#[test]
fn what_is_put_can_be_got_and_deleted() {
    let store = Store::new();
    store.run("put", &["t", "key", "a value"]).exits(0);
    store.run("put", &["t", "key", "another\n"]).exits(0);
    assert_eq!(store.run("get", &["t", "key"]).exits(0).out, b"another\n");
    assert_eq!(store.run("get", &["t", "ke"]).exits(1).out, b"");
    store.run("delete", &["t", "key"]).exits(0);
    assert!(store.run("delete", &["t", "key"]).exits(1).err.is_empty());
    store.run("get", &["t", "key"]).exits(1);
}

#[test]
fn keys_and_values_are_any_bytes() {
    let store = Store::new();
    store.run("put", &["t", "", ""]).exits(0);
    store.run("put", &["t", "0x00ff", "0xCAFE", "--hex-keys", "--hex-value"]).exits(0);
    store.run("put", &["t", "--", "-k", "-v"]).exits(0);
    let raw = OsStr::from_bytes(b"\xfe");
    run([OsStr::new("put"), store.db().as_os_str(), OsStr::new("t"), raw, raw]).exits(0);
    let expected: Vec<(Vec<u8>, Vec<u8>)> = vec![
        (vec![], vec![]),
        (vec![0, 0xff], vec![0xca, 0xfe]),
        (b"-k".to_vec(), b"-v".to_vec()),
        (vec![0xfe], vec![0xfe]),
    ];
    assert_eq!(store.entries("t"), expected);
    assert_eq!(store.run("get", &["t", "00FF", "--hex-keys"]).exits(0).out, [0xca, 0xfe]);
    assert_eq!(store.run("get", &["t", ""]).exits(0).out, b"");
    store.run("delete", &["t", "0x", "--hex-keys"]).exits(0);
    store.run("get", &["t", ""]).exits(1);
}

#[test]
fn long_values_come_from_files_and_go_to_pipes() {
    let store = Store::new();
    let value: Vec<u8> =
        (0..3_000_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let file = store.file("value", &value);
    store.run("put", &["t", "long", "--file", file.to_str().unwrap()]).exits(0);
    assert!(store.run("get", &["t", "long"]).exits(0).out == value);
    assert_eq!(store.run("stat", &["--json", "--walk"]).exits(0).json()["tables"][0]["shape"]["entries"], 1);
    store.run("put", &["t", "none", "--file", "/no/such/file"]).exits(2).says("/no/such/file");

    let mut child = store.start("put", &["t", "piped", "--file", "-"]);
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"from a pipe").unwrap();
    wait(child).exits(0);
    assert_eq!(store.run("get", &["t", "piped"]).exits(0).out, b"from a pipe");
    store.run("check", &[]).exits(0);
}

#[test]
fn scans_in_both_directions() {
    let store = Store::with(&[("a", "1"), ("ab", "2"), ("abc", "3"), ("b", "4"), ("ü", "5")]);
    let keys = |options: &[&str]| -> Vec<String> {
        let done = store.run("scan", &[&["t"], options].concat()).exits(0);
        done.text().lines().map(|line| line.split_once('\t').unwrap().0.to_owned()).collect()
    };
    assert_eq!(keys(&[]), ["a", "ab", "abc", "b", "ü"]);
    assert_eq!(keys(&["--reverse"]), ["ü", "b", "abc", "ab", "a"]);
    assert_eq!(keys(&["--prefix", "ab"]), ["ab", "abc"]);
    assert_eq!(keys(&["--prefix", "ab", "--reverse", "--limit", "1"]), ["abc"]);
    assert_eq!(keys(&["--prefix", "0x6162", "--hex-keys"]), ["ab", "abc"]);
    assert_eq!(keys(&["--from", "ab", "--to", "b"]), ["ab", "abc"]);
    assert_eq!(keys(&["--from", "aa", "--limit", "2"]), ["ab", "abc"]);
    assert_eq!(keys(&["--to", "ab"]), ["a"]);
    assert!(keys(&["--prefix", "zz"]).is_empty());
    assert!(keys(&["--from", "b", "--to", "b"]).is_empty());
    assert!(keys(&["--limit", "0"]).is_empty());
}

#[test]
fn scans_in_every_format() {
    let store = Store::new();
    store.run("put", &["t", "a\tb", "line\nline"]).exits(0);
    store.run("put", &["t", "0xff", "0x00", "--hex-keys", "--hex-value"]).exits(0);
    let scan = |format: &str| store.run("scan", &["t", "--format", format]).exits(0);
    assert_eq!(scan("utf8").text(), "a\\tb\tline\\nline\n\\xff\t\\x00\n");
    assert_eq!(scan("hex").text(), "0x610962\t0x6c696e650a6c696e65\n0xff\t0x00\n");
    let json = scan("json").json_lines();
    assert_eq!(json[0], serde_json::json!({"key": "a\tb", "value": "line\nline"}));
    assert_eq!(json[1], serde_json::json!({"key_hex": "0xff", "value": "\0"}));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let store = Store::new();
    let lines: String =
        (0..20_000).map(|i| format!("{{\"number\":{i},\"padding\":\"{i:0100}\"}}\n")).collect();
    store.load("t", lines, &["--format", "jsonl"]).exits(0);
    for command in [&["scan", "t"][..], &["page-dump", "--json"], &["log-dump", "--from", "4096"]] {
        let mut child = store.start(command[0], &command[1..]);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert!(!line.is_empty());
        drop(out);
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""), "{command:?}");
    }
    store.run("check", &[]).exits(0);
}

#[test]
fn tables_are_listed() {
    let store = Store::with(&[("k", "v")]);
    store.run("put", &["zürich", "k", "v"]).exits(0);
    assert_eq!(store.run("tables", &[]).exits(0).text(), "t\nzürich\n");
    let json = store.run("tables", &["--json"]).exits(0).json_lines();
    assert_eq!(json.iter().map(|t| t["name"].as_str().unwrap()).collect::<Vec<_>>(), ["t", "zürich"]);
    assert!(json.iter().all(|t| t["id"].as_u64() > Some(0) && t["root_page"].as_u64() > Some(0)));
}

#[test]
fn figures_for_people_and_programs() {
    let store = Store::with(&[("a", "1"), ("b", "2")]);
    let text = store.run("stat", &["--walk"]).exits(0).text();
    for words in ["I/O ", "recovery ", "2 entries", "pool.os_cached_pages = ", "log.durable = "] {
        assert!(text.contains(words), "{words:?} is not in: {text}");
    }
    let json = store.run("stat", &["--json"]).exits(0).json();
    assert_eq!(json["page_size"], 16384);
    assert_eq!(json["tables"][0]["name"], "t");
    assert!(json["tables"][0]["shape"].is_null());
    assert!(json["limits"]["max_key_bytes"].as_u64() > Some(1000));
    assert_eq!(json["recovery"]["clean"], true);
    assert!(json["stats"]["pool"]["frames"].as_u64() > Some(0));
    if json["io"]["direct"] == true && json["io"]["file_system"] != "tmpfs" {
        assert_eq!(json["stats"]["pool"]["os_cached_pages"], 0);
    }
}

#[test]
fn the_environment_chooses_the_way_of_io() {
    let store = Store::with(&[("a", "1")]);
    let stat = |choice: &str| {
        let output = crate::support::bedstone()
            .args([OsStr::new("stat"), store.db().as_os_str(), OsStr::new("--json")])
            .env("BEDSTONE_IO", choice)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, out, _) = stat("pread");
    assert_eq!(code, Some(0));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap()["io"]["mode"], "pread");
    let (code, _, err) = stat("carrier pigeon");
    assert_eq!(code, Some(2));
    assert!(err.contains("carrier pigeon"), "{err}");
}

#[test]
fn a_sound_database_is_clean() {
    let store = Store::with(&[("a", "1"), ("b", "2")]);
    assert!(store.run("check", &[]).exits(0).text().contains("clean"));
    let json = store.run("check", &["--json"]).exits(0).json();
    assert_eq!((&json["clean"], &json["problems"]), (&true.into(), &serde_json::json!([])));
    assert_eq!(json["tables"][0]["entries"], 2);
}
