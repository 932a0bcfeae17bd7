//! A file system that goes away under the database, and tools beside an open one, through the real kernel. The file
//! systems are made for the purpose in a file, and mounted in a mount name space of their own, which takes them along
//! when it ends. Without the rights for that the tests say that they were left out.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bedstone::inspect::Inspector;
use bedstone::{Builder, Error, IoChoice};
use bedstone_crashtest::setup::{check_clean, real_builder, temp_dir};
use bedstone_io::{Disk, OpenMode, RealDisk, testing};

const SCENARIO: &str = "BEDSTONE_FILE_SYSTEMS_SCENARIO";
const PLACE: &str = "BEDSTONE_FILE_SYSTEMS_PLACE";

fn small() -> Builder {
    real_builder()
        .page_size(4096)
        .pool_bytes(2 << 20)
        .huge_pages(false)
        .log_segment_bytes(256 << 10)
        .log_buffer_bytes(64 << 10)
        .checkpoint_log_bytes(512 << 10)
}

/// Runs [`child`] with a file system of this kind mounted at `PLACE/mnt`; none where that cannot be done.
fn on_file_system(kind: &str, megabytes: u32, scenario: &str) -> Option<Output> {
    let left_out = |why: &str| {
        drop(std::io::stderr().write_all(format!("left out, {scenario} on {kind}: {why}\n").as_bytes()));
    };
    let dir = temp_dir();
    let place = dir.path();
    std::fs::create_dir(place.join("mnt")).unwrap();
    std::fs::File::create(place.join("image")).unwrap().set_len(u64::from(megabytes) << 20).unwrap();
    let made = Command::new(format!("mkfs.{kind}")).arg("-q").arg(place.join("image")).output();
    if !made.as_ref().is_ok_and(|output| output.status.success()) {
        left_out(&format!("it cannot be made: {made:?}"));
        return None;
    }
    let mount = format!("cd '{}' && mount -o loop image mnt", place.display());
    let unshare = |then: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &format!("{mount} && {then}")]);
        command
    };
    let allowed = unshare("umount mnt").output();
    if !allowed.as_ref().is_ok_and(|output| output.status.success()) {
        left_out(&format!("it cannot be mounted: {allowed:?}"));
        return None;
    }
    let output = unshare(r#"exec "$0" "$@""#)
        .arg(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(SCENARIO, scenario)
        .env(PLACE, place)
        .output()
        .unwrap();
    Some(output)
}

fn passed(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{output:#?}");
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
}

fn value(i: u64) -> Vec<u8> {
    (0..700).map(|j| (i * 31 + j) as u8).collect()
}

#[test]
fn child() {
    let (Ok(scenario), Ok(place)) = (std::env::var(SCENARIO), std::env::var(PLACE)) else { return };
    let place = PathBuf::from(place);
    let mnt = place.join("mnt");
    let mount = || {
        let run = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).current_dir(&place).output().unwrap();
            assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
        };
        run("umount", &["mnt"]);
        run("mount", &["-o", "loop", "image", "mnt"]);
    };
    let end = |mnt: &Path| match scenario.as_str() {
        "shut down" => testing::shut_down_file_system(mnt).unwrap(),
        "error" => {
            // ext4 answers an error in its own structures by turning read-only, if mounted so.
            let source = Command::new("findmnt").args(["-no", "SOURCE"]).arg(mnt).output().unwrap();
            let device = String::from_utf8(source.stdout).unwrap();
            let device = device.trim().rsplit('/').next().unwrap();
            let remounted = Command::new("mount").args(["-o", "remount,errors=remount-ro"]).arg(mnt).status();
            assert!(remounted.unwrap().success());
            std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1").unwrap();
        }
        other => panic!("no such scenario: {other}"),
    };
    let mut acknowledged = 0;
    for round in 0..4_u64 {
        let dir = mnt.join("store");
        let db = small().open_or_create(&dir).unwrap();
        let table = db.table("t").unwrap();
        assert_eq!(table.iter().unwrap().count() as u64, acknowledged, "round {round}");
        for i in 0..acknowledged {
            let found = table.get(i.to_be_bytes()).unwrap();
            assert_eq!(found.as_deref(), Some(&value(i)[..]), "round {round}, key {i}");
        }
        check_clean(&db).unwrap();
        for _ in 0..200 + 150 * round {
            table.put(acknowledged.to_be_bytes(), value(acknowledged)).unwrap();
            acknowledged += 1;
        }
        end(&mnt);
        // Nothing is acknowledged from now on: not by the log, not by a checkpoint, not by closing.
        let error = table.put(b"too late", b"1").unwrap_err();
        assert!(!matches!(error, Error::Internal(_)), "{error:?}");
        drop(db.checkpoint().unwrap_err());
        assert!(table.put(b"too late", b"1").unwrap_err().is_read_only());
        let last = (acknowledged - 1).to_be_bytes();
        assert!(table.get(last).unwrap().is_some(), "what is in memory can be read");
        drop(table);
        drop(db.close().unwrap_err());
        // Not to be opened, and not to be taken for damaged or absent, while it lasts.
        let error = small().open_or_create(&dir).unwrap_err();
        assert!(matches!(error, Error::Io(_)), "{error:?}");
        mount();
        let db = small().open(&dir).unwrap();
        let table = db.table("t").unwrap();
        // The commit that got an error may be there or not.
        table.delete(b"too late").unwrap();
        drop(table);
        if round % 2 == 0 {
            db.close().unwrap();
        }
    }
    println!("{acknowledged} commits kept on a file system that went away four times");
}

#[test]
fn a_file_system_is_shut_down_under_the_database() {
    for (kind, megabytes) in [("ext4", 64), ("xfs", 320)] {
        if let Some(output) = on_file_system(kind, megabytes, "shut down") {
            passed(&output);
        }
    }
}

#[test]
fn a_file_system_meets_an_error_and_turns_read_only() {
    if let Some(output) = on_file_system("ext4", 64, "error") {
        passed(&output);
    }
}

/// Bytes in the page cache beside direct writes would be slow, and stale where the kernel fails to drop them: the dump of
/// a database that is open reads its data file as the database itself does.
#[test]
fn dumping_an_open_database_leaves_its_data_file_out_of_the_page_cache() {
    let dir = temp_dir();
    let db = small().create(dir.path()).unwrap();
    let table = db.table("t").unwrap();
    for i in 0..1000u64 {
        table.put_with(i.to_be_bytes(), value(i), bedstone::Durability::Relaxed).unwrap();
    }
    db.checkpoint().unwrap();
    let disk = RealDisk::new(IoChoice::Pread, true).unwrap();
    let file = disk.open_direct(&dir.path().join("data"), OpenMode::Read).unwrap();
    if !db.io_report().direct || file.cached_pages().is_none() {
        return eprintln!("left out: no direct I/O here, or no way to see what is cached");
    }
    for round in 0..3u64 {
        let inspector = Inspector::open(dir.path()).unwrap();
        let pages = inspector.page_ids();
        assert!(pages.len() > 100, "{} pages", pages.len());
        for page in pages {
            drop(inspector.page(page));
        }
        assert_eq!(file.cached_pages(), Some(0), "round {round}");
        for i in 0..1000u64 {
            table.put_with(i.to_be_bytes(), value(i + round), bedstone::Durability::Relaxed).unwrap();
        }
        db.checkpoint().unwrap();
        assert_eq!(file.cached_pages(), Some(0), "round {round}");
    }
    check_clean(&db).unwrap();
}
