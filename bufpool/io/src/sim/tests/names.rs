//! Names: directories, renames, removals, locks, and what becomes of them at cuts.

use std::collections::BTreeSet;

use super::*;
use crate::sim::{Fault, OpKind, Repeat};

fn put(disk: &SimDisk, name: &str, bytes: &[u8]) {
    let file = disk.open_log(path(name), OpenMode::CreateNew).unwrap();
    file.write_at(bytes, 0).unwrap();
    file.sync_all().unwrap();
}

fn get(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
    disk.copy_out(path(name)).ok()
}

#[test]
fn opening_and_creating() {
    let disk = disk(1);
    let open = |mode| disk.open_log(path(FILE), mode).map(|_| ());
    assert!(open(OpenMode::Read).unwrap_err().is_not_found());
    open(OpenMode::CreateNew).unwrap();
    let error = open(OpenMode::CreateNew).unwrap_err();
    assert_eq!(error.source.kind(), std::io::ErrorKind::AlreadyExists);
    open(OpenMode::ReadWrite).unwrap();
    assert!(disk.open_direct(path("/db"), OpenMode::Read).is_err());
    assert!(disk.open_direct(path("/none/file"), OpenMode::CreateNew).unwrap_err().is_not_found());
    assert!(disk.open_direct(path("/db/file/below"), OpenMode::CreateNew).is_err());
    assert!(disk.exists(path("/db/../db/./file")).unwrap() && !disk.exists(path("/db/other")).unwrap());
    disk.create_dir_all(path("/db/a/b")).unwrap();
    disk.create_dir_all(path("/db/a/b")).unwrap();
    let mut names = disk.list(path("/db")).unwrap();
    names.sort();
    assert_eq!(names, ["a", "file"]);
    assert!(disk.list(path("/none")).unwrap_err().is_not_found());
}

#[test]
fn a_synced_file_without_a_synced_name_is_gone() {
    let disk = disk(1);
    put(&disk, FILE, b"bytes");
    assert_eq!(disk.unsynced_names(), 1);
    assert_eq!(get(&disk.fork_cut(CutMode::Drop, 0), FILE), None);
    let kept: BTreeSet<bool> =
        (0..50).map(|seed| get(&disk.fork_cut(CutMode::Random, seed), FILE).is_some()).collect();
    assert_eq!(kept.len(), 2);
    disk.sync_dir(path("/db")).unwrap();
    assert_eq!(get(&after(&disk, CutMode::Drop), FILE).unwrap(), b"bytes");
}

#[test]
fn a_new_directory_is_a_name_in_its_parent() {
    let disk = SimDisk::new(1);
    disk.create_dir_all(path("/db")).unwrap();
    put(&disk, FILE, b"bytes");
    disk.sync_dir(path("/db")).unwrap();
    assert_eq!(disk.fork_cut(CutMode::Drop, 0).files().len(), 0);
    disk.sync_dir(path("/")).unwrap();
    assert_eq!(get(&after(&disk, CutMode::Drop), FILE).unwrap(), b"bytes");
}

#[test]
fn a_rename_is_atomic_and_volatile() {
    let disk = disk(1);
    put(&disk, "/db/a", b"old");
    put(&disk, "/db/b", b"new");
    disk.sync_dir(path("/db")).unwrap();
    disk.rename(path("/db/b"), path("/db/a")).unwrap();
    assert_eq!((get(&disk, "/db/a").unwrap(), get(&disk, "/db/b")), (b"new".to_vec(), None));
    let outcomes: BTreeSet<_> = (0..50)
        .map(|seed| {
            let disk = disk.fork_cut(CutMode::Random, seed);
            (get(&disk, "/db/a"), get(&disk, "/db/b"))
        })
        .collect();
    let (old, new) = (Some(b"old".to_vec()), Some(b"new".to_vec()));
    assert_eq!(outcomes, BTreeSet::from([(old, new.clone()), (new, None)]));
    disk.sync_dir(path("/db")).unwrap();
    assert_eq!(after(&disk, CutMode::Drop).files(), [path("/db/a")]);
}

#[test]
fn no_file_has_two_names_or_none_after_a_chain_of_renames() {
    let disk = disk(1);
    put(&disk, "/db/a", b"first");
    disk.sync_dir(path("/db")).unwrap();
    disk.rename(path("/db/a"), path("/db/b")).unwrap();
    disk.rename(path("/db/b"), path("/db/c")).unwrap();
    put(&disk, "/db/a", b"second");
    put(&disk, "/db/b", b"third");
    let mut seen = BTreeSet::new();
    for seed in 0..300 {
        let disk = disk.fork_cut(CutMode::Random, seed);
        let files: Vec<_> =
            disk.files().iter().map(|name| get(&disk, name.to_str().unwrap()).unwrap()).collect();
        let firsts = files.iter().filter(|bytes| *bytes == b"first").count();
        assert_eq!(firsts, 1, "seed {seed}: {:?}", disk.files());
        seen.insert(disk.files());
    }
    assert!(seen.len() >= 5, "{seen:?}");
}

#[test]
fn a_rename_between_directories_is_settled_by_the_new_one() {
    let disk = disk(1);
    disk.create_dir_all(path("/db/old")).unwrap();
    disk.create_dir_all(path("/db/new")).unwrap();
    put(&disk, "/db/old/x", b"x");
    for dir in ["/db", "/db/old"] {
        disk.sync_dir(path(dir)).unwrap();
    }
    disk.rename(path("/db/old/x"), path("/db/new/x")).unwrap();
    disk.sync_dir(path("/db/old")).unwrap();
    assert_eq!(disk.fork_cut(CutMode::Drop, 0).files(), [path("/db/old/x")]);
    // The old name is used anew and made durable: then the rename must be durable too.
    put(&disk, "/db/old/x", b"y");
    let fork = disk.fork(0);
    fork.sync_dir(path("/db/old")).unwrap();
    assert_eq!(after(&fork, CutMode::Drop).files(), [path("/db/new/x"), path("/db/old/x")]);
    disk.sync_dir(path("/db/new")).unwrap();
    assert_eq!(after(&disk, CutMode::Drop).files(), [path("/db/new/x")]);
}

#[test]
fn a_directory_can_be_renamed_whole() {
    let disk = disk(1);
    put(&disk, FILE, b"bytes");
    disk.sync_dir(path("/db")).unwrap();
    assert!(disk.rename(path("/db"), path("/db/below")).is_err());
    disk.rename(path("/db"), path("/moved")).unwrap();
    disk.sync_dir(path("/")).unwrap();
    assert_eq!(after(&disk, CutMode::Drop).files(), [path("/moved/file")]);
}

#[test]
fn a_removed_file_lives_while_open_and_may_come_back_at_a_cut() {
    let (disk, file) = with_log(1);
    file.write_at(&[1; 4096], 0).unwrap();
    file.sync_all().unwrap();
    disk.remove(path(FILE)).unwrap();
    assert!(disk.remove(path(FILE)).unwrap_err().is_not_found());
    assert_eq!(read_log(&*file, 0, 3), [1; 3]);
    assert_eq!(disk.fork_cut(CutMode::Drop, 0).files(), [path(FILE)]);
    assert_eq!(disk.fork_cut(CutMode::Keep, 0).files().len(), 0);
    disk.sync_dir(path("/db")).unwrap();
    assert_eq!(disk.used(), 4096);
    drop(file);
    assert_eq!(disk.used(), 0);
}

#[test]
fn after_a_failed_sync_of_a_directory_no_later_one_helps() {
    let disk = disk(1);
    put(&disk, FILE, b"bytes");
    disk.fail_nth(OpKind::SyncDir, 1, Fault::Eio, Repeat::Once);
    assert!(is_eio(&disk.sync_dir(path("/db")).unwrap_err()));
    disk.sync_dir(path("/db")).unwrap();
    assert_eq!(get(&disk, FILE).unwrap(), b"bytes");
    assert_eq!(get(&after(&disk, CutMode::Keep), FILE), None);
}

#[test]
fn one_holder_of_a_lock() {
    let disk = disk(1);
    let name = path("/db/LOCK");
    let held = disk.lock(name).unwrap();
    let error = disk.lock(name).unwrap_err();
    assert!(error.is_locked() && error.to_string().contains(&std::process::id().to_string()));
    assert_eq!(disk.copy_out(name).unwrap(), format!("{}\n", std::process::id()).into_bytes());
    drop(held);
    let held = disk.lock(name).unwrap();
    let next = disk.reopen();
    let held_again = next.lock(name).unwrap();
    // A lock of an earlier life frees nothing in this one.
    drop(held);
    assert!(next.lock(name).unwrap_err().is_locked());
    drop(held_again);
    next.lock(name).unwrap();
}

#[test]
fn a_new_life_without_a_cut_is_the_end_of_a_process() {
    let (disk, file) = with_log(1);
    file.write_at(b"unsynced", 0).unwrap();
    let next = disk.reopen();
    assert!(is_eio(&file.write_at(b"ghost", 0).unwrap_err()));
    assert!(is_eio(&disk.open_log(path(FILE), OpenMode::Read).unwrap_err()));
    assert!(is_eio(&disk.remove(path(FILE)).unwrap_err()));
    assert_eq!(read_log(&*open_log(&next), 0, 100), b"unsynced");
    assert_eq!(next.fork_cut(CutMode::Drop, 0).copy_out(path(FILE)).unwrap(), b"");
    open_log(&next).sync_data().unwrap();
    assert_eq!(after(&next, CutMode::Drop).copy_out(path(FILE)).unwrap(), b"unsynced");
}
