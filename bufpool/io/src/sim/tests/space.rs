//! Space, time and counters.

use std::time::Duration;

use super::*;

#[test]
fn a_full_medium_takes_what_fits_and_gives_room_back() {
    let (disk, file) = with_log(1);
    disk.set_capacity(Some(3 * 4096));
    file.write_at(&[1; 4096], 0).unwrap();
    assert!(file.write_at(&[2; 3 * 4096], 4096).unwrap_err().is_no_space());
    assert_eq!(file.len().unwrap(), 3 * 4096);
    file.write_at(&[3; 3 * 4096], 0).unwrap();
    assert!(file.allocate_zeroed(5 * 4096).unwrap_err().is_no_space());

    let other = disk.open_direct(path("/db/other"), OpenMode::CreateNew).unwrap();
    assert!(other.allocate(4096).unwrap_err().is_no_space());
    assert!(other.write_at(pages(1, 1).as_aligned(), 0).unwrap_err().is_no_space());
    assert_eq!(other.len().unwrap(), 0);
    open_direct(&disk).truncate(4096).unwrap();
    other.allocate(4096).unwrap();
    assert_eq!(disk.used(), 8192);
    disk.set_capacity(None);
    other.allocate(1 << 30).unwrap();
    disk.set_capacity(Some(0));
    other.write_at(pages(1, 1).as_aligned(), 1 << 20).unwrap();
}

#[test]
fn growing_a_log_file_ends_where_the_room_does() {
    let (disk, file) = with_log(1);
    disk.set_capacity(Some(10_000));
    assert!(file.allocate_zeroed(20_000).unwrap_err().is_no_space());
    assert_eq!(file.len().unwrap(), 8192);
    file.allocate_zeroed(100).unwrap();
    assert_eq!(file.len().unwrap(), 8192);
    disk.remove(path(FILE)).unwrap();
    drop(file);
    disk.open_log(path(FILE), OpenMode::CreateNew).unwrap().allocate_zeroed(8192).unwrap();
}

#[test]
fn time_moves_by_operations_and_on_order() {
    let (disk, file) = with_log(1);
    let (begin, begin_ms) = (disk.now(), disk.unix_ms());
    file.sync_data().unwrap();
    assert!(disk.now() > begin);
    disk.advance(Duration::from_secs(2));
    assert!(disk.now() >= begin + Duration::from_secs(2) && disk.unix_ms() >= begin_ms + 2000);
}

#[test]
fn everything_is_counted() {
    let (disk, file) = with_log(1);
    let (ops, before) = (disk.ops(), disk.stats());
    file.write_at(&[0; 100], 0).unwrap();
    read_log(&*file, 50, 100);
    file.sync_data().unwrap();
    let stats = disk.stats();
    assert_eq!(disk.ops() - ops, 2);
    assert_eq!(stats.writes - before.writes, 1);
    assert_eq!(stats.reads - before.reads, 1);
    assert_eq!(stats.syncs - before.syncs, 1);
    assert_eq!(stats.bytes_written - before.bytes_written, 100);
    assert_eq!(stats.bytes_read - before.bytes_read, 50);
    assert!(stats.latency > before.latency);
    assert_eq!(file.cached_pages(), Some(1));
    disk.drop_cache(path(FILE)).unwrap();
    assert_eq!(file.cached_pages(), Some(0));
}
