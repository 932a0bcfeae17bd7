//! Commits per second by number of threads, each commit one record of 220 bytes that waits for its sync.
//!
//! `cargo run --release -p bedstone-wal --example group_commit -- <directory> [seconds] [syncs in flight]`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bedstone_io::{Disk, IoChoice, RealDisk};
use bedstone_wal::{Durability, LogReader, Lsn, Wal, WalConfig};

const RECORD: [u8; 180] = [7; 180];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let parent = PathBuf::from(args.next().ok_or("which directory?")?);
    let time = Duration::from_secs(args.next().map_or(Ok(3), |seconds| seconds.parse())?);
    let syncs_in_flight = args.next().map_or(Ok(2), |syncs| syncs.parse())?;
    let disk: Arc<dyn Disk> = RealDisk::new(IoChoice::from_env()?, true)?;
    println!("threads  commits/s  commits per sync");
    for threads in [1, 2, 4, 8, 16, 32, 64] {
        let dir = parent.join(format!("group-commit-{}-{threads}", std::process::id()));
        let cfg = WalConfig { syncs_in_flight, ..WalConfig::new(&dir, [1; 16], 1) };
        Wal::create(&*disk, &cfg, Lsn::ZERO)?;
        let mut reader = LogReader::open(Arc::clone(&disk), &dir, cfg.database_id, Lsn::ZERO)?;
        while reader.next()?.is_some() {}
        let end = reader.end().ok_or("the log has no end")?.clone();
        let wal = Wal::open(Arc::clone(&disk), cfg, &end)?;
        let began = disk.now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while disk.now() - began < time {
                        let mut credit = wal.reserve(RECORD.len() as u64, 1).expect("reserve");
                        let appended = wal.append(&mut credit, 1, &[&RECORD], &mut |_| ()).expect("append");
                        wal.wait(appended.end, Durability::Sync).expect("wait");
                        if appended.lsn.0 % (8 << 20) < 220 {
                            wal.recycle_below(appended.lsn).expect("recycle");
                        }
                    }
                });
            }
        });
        let took = disk.now() - began;
        let stats = wal.stats();
        let (rate, group) = (
            stats.records as f64 / took.as_secs_f64(),
            stats.synced_commits as f64 / stats.syncs.max(1) as f64,
        );
        println!("{threads:7}  {rate:9.0}  {group:16.1}");
        wal.close()?;
        for name in disk.list(&dir)? {
            disk.remove(&dir.join(name))?;
        }
    }
    Ok(())
}
