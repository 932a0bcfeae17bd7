//! Small stores on the simulated disk: one that keeps the rules survives every cut; those that leave out a sync are
//! caught; and the same seed tells the same story.

use std::collections::BTreeSet;

use super::*;
use crate::IoError;
use crate::sim::OpKind;

/// Which steps of replacing a file a store takes.
#[derive(Clone, Copy)]
struct Steps {
    sync_file: bool,
    sync_dir: bool,
}

const ALL: Steps = Steps { sync_file: true, sync_dir: true };

fn contents(version: u8) -> Vec<u8> {
    vec![version; 3000 + usize::from(version)]
}

/// Replaces the file by its next version: write a new file, sync it, rename it over the old one, sync the name.
fn replace(disk: &dyn Disk, version: u8, steps: Steps) -> Result<(), IoError> {
    let (new, name) = (path("/db/new"), path(FILE));
    if disk.exists(new)? {
        disk.remove(new)?;
    }
    let file = disk.open_log(new, OpenMode::CreateNew)?;
    file.write_at(&contents(version), 0)?;
    if steps.sync_file {
        file.sync_data()?;
    }
    disk.rename(new, name)?;
    if steps.sync_dir {
        disk.sync_dir(path("/db"))?;
    }
    Ok(())
}

/// Replaces versions 1 to 3 with a cut at operation `cut`; whether the store then breaks its promise: the last
/// acknowledged version or the one under way, whole.
fn breaks(seed: u64, cut: u64, mode: CutMode, steps: Steps) -> bool {
    let disk = disk(seed);
    disk.set_cut_after(cut, mode);
    let mut acknowledged = 0;
    for version in 1..=3 {
        if replace(&*disk, version, steps).is_err() {
            break;
        }
        acknowledged = version;
    }
    disk.power_cut(mode);
    assert!(disk.stats().cuts == 1 && !disk.is_powered());
    let found = disk.reopen().copy_out(path(FILE)).ok();
    let may_be = |version: u8| match (version, &found) {
        (0, found) => found.is_none(),
        (_, Some(found)) => *found == contents(version),
        (_, None) => false,
    };
    !may_be(acknowledged) && !may_be(acknowledged + 1)
}

fn broken(steps: Steps, mode: CutMode) -> usize {
    (1..=20)
        .flat_map(|cut| (0..30).map(move |seed| (seed, cut)))
        .filter(|(seed, cut)| breaks(*seed, *cut, mode, steps))
        .count()
}

#[test]
fn a_store_that_syncs_survives_every_cut() {
    for mode in [CutMode::Keep, CutMode::Drop, CutMode::Random] {
        assert_eq!(broken(ALL, mode), 0, "{mode:?}");
    }
}

#[test]
fn canary_a_store_without_a_sync_of_the_file_is_caught() {
    let steps = Steps { sync_file: false, ..ALL };
    assert!(broken(steps, CutMode::Drop) > 0);
    assert!(broken(steps, CutMode::Random) > 20);
    assert_eq!(broken(steps, CutMode::Keep), broken(ALL, CutMode::Keep));
}

#[test]
fn canary_a_store_without_a_sync_of_the_name_is_caught() {
    let steps = Steps { sync_dir: false, ..ALL };
    assert!(broken(steps, CutMode::Drop) > 0);
    assert!(broken(steps, CutMode::Random) > 20);
}

#[test]
fn planned_cuts_strike_before_during_and_after_their_operation() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..100 {
        let (disk, file) = with_log(seed);
        disk.set_cut_after(2, CutMode::Keep);
        file.allocate_zeroed(4096).unwrap();
        assert!(is_eio(&file.write_at(&[1; 4096], 0).unwrap_err()), "seed {seed}");
        assert!(is_eio(&file.sync_data().unwrap_err()) && is_eio(&file.len().unwrap_err()));
        assert!(is_eio(&disk.exists(path(FILE)).unwrap_err()));
        let ones = disk.copy_out(path(FILE)).unwrap().iter().filter(|byte| **byte == 1).count();
        outcomes.insert(match ones {
            0 => "none",
            4096 => "all",
            _ => "some",
        });
    }
    assert_eq!(outcomes.len(), 3);
}

#[test]
fn a_cut_during_a_sync_leaves_some_of_what_it_covers() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..200 {
        let (disk, file) = with_log(seed);
        file.allocate_zeroed(8192).unwrap();
        file.sync_data().unwrap();
        file.write_at(&[1; 4096], 0).unwrap();
        file.write_at(&[1; 4096], 4096).unwrap();
        disk.set_cut_after(1, CutMode::Drop);
        assert!(is_eio(&file.sync_data().unwrap_err()));
        let bytes = disk.reopen().copy_out(path(FILE)).unwrap();
        outcomes.insert((bytes[..4096] == [1; 4096], bytes[4096..] == [1; 4096]));
    }
    assert_eq!(outcomes.len(), 4);
}

#[test]
fn the_next_life_after_a_cut_can_be_cut_again() {
    let (disk, file) = with_log(1);
    file.write_at(b"one", 0).unwrap();
    file.sync_data().unwrap();
    let second = after(&disk, CutMode::Drop);
    let file = open_log(&second);
    second.set_cut_after(1, CutMode::Drop);
    file.write_at(b"two", 0).unwrap_err();
    let third = second.reopen();
    assert_eq!(read_log(&*open_log(&third), 0, 10), b"one");
    third.set_cut_after(1, CutMode::Drop);
    third.cancel_cut();
    open_log(&third).write_at(b"three", 0).unwrap();
}

/// Runs a store with many unsynced operations and cuts it; everything that is left.
fn story(seed: u64) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let disk = disk(seed);
    disk.set_cut_after(40, CutMode::Random);
    for i in 0..20u64 {
        let name = format!("/db/{}", i % 5);
        let mode =
            if disk.exists(path(&name)).unwrap_or(true) { OpenMode::ReadWrite } else { OpenMode::CreateNew };
        let Ok(file) = disk.open_log(path(&name), mode) else { break };
        let _ = file.write_at(&vec![i as u8; 700 * i as usize], i * 300);
        if i % 7 == 0 {
            let _ = file.sync_data();
            let _ = disk.sync_dir(path("/db"));
        }
    }
    disk.power_cut(CutMode::Random);
    let disk = disk.reopen();
    disk.files().into_iter().map(|name| (name.clone(), disk.copy_out(&name).unwrap())).collect()
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for seed in 0..20 {
        assert_eq!(story(seed), story(seed), "seed {seed}");
    }
    assert_ne!(story(1), story(2));
}

#[test]
fn a_fork_is_independent_and_a_restored_medium_can_be_cut_many_ways() {
    let (disk, file) = with_log(1);
    file.write_at(&[1; 20_000], 0).unwrap();
    let fork = disk.fork(7);
    open_log(&fork).write_at(b"fork", 0).unwrap();
    assert_eq!(read_log(&*file, 0, 4), [1; 4]);

    let snapshot = disk.snapshot();
    let survivors: BTreeSet<Vec<u8>> = (0..100)
        .map(|seed| {
            disk.restore(&snapshot);
            disk.reseed(seed);
            disk.power_cut(CutMode::Random);
            disk.reopen().copy_out(path(FILE)).unwrap()
        })
        .collect();
    assert!(survivors.len() > 5);
}

#[test]
fn threads_share_a_medium() {
    let disk = disk(1);
    std::thread::scope(|scope| {
        for i in 0..4u8 {
            let disk = &disk;
            scope.spawn(move || {
                let name = format!("/db/{i}");
                let file = disk.open_direct(path(&name), OpenMode::CreateNew).unwrap();
                for page in 0..50 {
                    file.write_at(pages(i, 1).as_aligned(), page * 4096).unwrap();
                }
                file.sync_data().unwrap();
                disk.sync_dir(path("/db")).unwrap();
            });
        }
    });
    let disk = after(&disk, CutMode::Drop);
    for i in 0..4u8 {
        assert_eq!(disk.copy_out(path(&format!("/db/{i}"))).unwrap(), vec![i; 50 * 4096]);
    }
}

#[test]
fn a_cut_strikes_at_the_operation_of_its_kind_and_file() {
    let disk = disk(9);
    let [one, other] =
        ["/db/one", "/db/other"].map(|name| disk.open_log(path(name), OpenMode::CreateNew).unwrap());
    disk.set_cut_at("/one", OpKind::Sync, 2, CutMode::Keep);
    for _ in 0..3 {
        other.write_at(b"x", 0).unwrap();
        other.sync_data().unwrap();
    }
    one.sync_data().unwrap();
    one.write_at(b"x", 0).unwrap();
    assert!(one.sync_data().is_err() && !disk.is_powered());
    assert!(disk.reopen().exists(path("/db")).unwrap());
}
