//! The trace of a disk.

use std::sync::Mutex;

use super::*;
use crate::sim::{Fault, OpKind, Phase, Repeat, TraceDisk};
use crate::{Op, WriteOp};

#[test]
fn orders_and_results_are_recorded() {
    let sim = disk(1);
    let disk = TraceDisk::new(sim.clone());
    let data = disk.open_direct(path("/db/data"), OpenMode::CreateNew).unwrap();
    let log = disk.open_log(path("/db/1.log"), OpenMode::CreateNew).unwrap();
    let buf = pages(1, 1);
    let mut ops: Vec<WriteOp<'_>> =
        (1..4).map(|i| WriteOp { buf: buf.as_aligned(), offset: i * 4096, result: Ok(()) }).collect();
    data.write_batch(&mut ops);
    data.sync_data().unwrap();
    data.write_at(buf.as_aligned(), 0).unwrap();
    log.write_at(b"record", 7).unwrap();
    disk.rename(path("/db/1.log"), path("/db/2.log")).unwrap();
    sim.fail_nth(OpKind::SyncDir, 1, Fault::Eio, Repeat::Once);
    disk.sync_dir(path("/db")).unwrap_err();

    let events = disk.take_events();
    let ops: Vec<Op> = events.iter().map(|event| event.op).collect();
    use Op::{Create, Rename, Sync, SyncDir, Write};
    assert_eq!(ops, [Create, Create, Write, Write, Write, Sync, Write, Write, Rename, SyncDir]);
    let sync = &events[5];
    assert!(events[2..5].iter().all(|write| write.before(sync) && write.is_on("data") && write.direct));
    assert!(!events[2].before(&events[3]), "the writes of a batch are in flight together");
    assert!(sync.before(&events[6]));
    assert_eq!((events[7].offset, events[7].len, events[7].direct), (7, 6, false));
    assert_eq!(events[8].to.as_deref(), Some(path("/db/2.log")));
    assert!(!events[9].ok && events[..9].iter().all(|event| event.ok));
    assert_eq!(disk.events(), []);
}

#[test]
fn a_hook_sees_every_moment_and_may_fork_the_medium() {
    let sim = disk(1);
    let disk = TraceDisk::new(sim.clone());
    let lengths = Arc::new(Mutex::new(Vec::new()));
    let (seen, below) = (Arc::clone(&lengths), sim.clone());
    disk.on_op(move |phase, event| {
        let cut = below.fork_cut(CutMode::Keep, event.begin);
        let length = cut.copy_out(path(FILE)).map(|bytes| bytes.len()).ok();
        seen.lock().unwrap().push((phase, length));
    });
    let file = disk.open_log(path(FILE), OpenMode::CreateNew).unwrap();
    file.write_at(b"abc", 0).unwrap();
    disk.clear_hook();
    file.sync_all().unwrap();
    let seen = lengths.lock().unwrap().clone();
    assert_eq!(
        seen,
        [(Phase::Before, None), (Phase::After, Some(0)), (Phase::Before, Some(0)), (Phase::After, Some(3))]
    );
}
