//! A small database whose files were changed: whatever is done with it then gives answers or errors.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bedstone::inspect::Inspector;
use bedstone::{Builder, Database, Durability, Error, Result, fuzz as engine};
use bedstone_io::fuzz::Input;
use bedstone_io::sim::SimDisk;
use bedstone_io::{Disk, OpenMode};

use crate::model::Model;
use crate::rng::Rng;
use crate::setup::{Config, DIR};
use crate::view;

const UNIT: usize = 4096;
/// Bytes before the log in a segment file.
const SEGMENT_HEADER: usize = 4096;

/// The database before anything is done to it.
pub(super) struct Base {
    pub(super) disk: Arc<SimDisk>,
    id: [u8; 16],
    /// Its files, by path.
    pub(super) files: Vec<PathBuf>,
    /// What it held at the last checkpoint, and after each commit since.
    states: Vec<Model>,
}

fn options() -> Config {
    Config { pool_bytes: Config::small().pool_bytes * 2, ..Config::small() }
}

fn builder(disk: &Arc<SimDisk>) -> Builder {
    options().builder(disk)
}

/// A database with tables that are made, dropped and renamed, trees of more than two levels, long values, and commits
/// after its last checkpoint: single ones, a batch, one in fragments.
fn make() -> Result<Base> {
    let disk = SimDisk::new(1);
    let db = builder(&disk).create(DIR)?;
    let mut rng = Rng::new(7);
    for name in ["alpha", "beta", "gone"] {
        let table = db.table(name)?;
        for key in 0..180_u32 {
            let len = if key % 60 == 7 { 9000 } else { 40 + rng.index(60) };
            table.put_with(key_of(key), rng.bytes(len), Durability::Relaxed)?;
        }
    }
    db.drop_table("gone")?;
    db.rename_table("beta", "gamma")?;
    db.checkpoint()?;
    let mut states = vec![view::dump(&db)?];
    let table = db.table("alpha")?;
    for key in 0..6_u32 {
        match key {
            3 => table.put(key_of(3), rng.bytes(6000))?,
            4 => drop(table.delete(key_of(40))?),
            5 => {
                let mut batch = bedstone::WriteBatch::new();
                for key in 60..130 {
                    batch.put(&table, key_of(key), rng.bytes(300))?;
                }
                db.write(batch)?;
            }
            _ => table.put(key_of(key * 9), rng.bytes(50))?,
        }
        states.push(view::dump(&db)?);
    }
    db.table("late")?;
    states.push(view::dump(&db)?);
    // As after a kill: the log has to be replayed.
    let left = disk.reopen();
    drop((table, db));
    for path in left.files() {
        let _ = left.drop_cache(&path);
    }
    let id = Inspector::open_on(left.clone(), DIR)?.database_id();
    Ok(Base { files: left.files(), disk: left, id, states })
}

fn key_of(number: u32) -> Vec<u8> {
    format!("key of some length {number:05}").into_bytes()
}

pub(super) fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| make().expect("a database on a sound disk"))
}

/// Changes to the files of a small database, after which it is opened, read, checked, looked at by the tools' way in,
/// and written to. Input: 1 if all checksums are to be made right afterwards, then changes.
///
/// # Panics
/// If any answer is wrong where no checksum was right by forgery, if an error says that the program is wrong.
pub fn data_file(data: &[u8]) {
    let base = base();
    let mut input = Input::new(data);
    let forged = input.u8() & 1 == 1;
    let disk = base.disk.fork(1);
    let mut files: Vec<Option<Vec<u8>>> =
        base.files.iter().map(|path| base.disk.copy_out(path).ok()).collect();
    for _ in 0..24 {
        if input.is_empty() {
            break;
        }
        change(&mut files, &mut input);
    }
    let (mut trusted, mut sound) = (!forged, true);
    for (path, file) in base.files.iter().zip(&mut files) {
        let old = base.disk.copy_out(path).expect("the base has the file");
        match file {
            None => {
                sound = false;
                disk.remove_file(path).expect("the fork has the file");
            }
            Some(bytes) if *bytes != old => {
                sound = false;
                if forged {
                    mend(base, path, bytes);
                } else {
                    trusted &= looks_changed(path, &old, bytes);
                }
                disk.copy_in(path, bytes).expect("the simulated disk has room");
            }
            Some(_) => {}
        }
    }
    for result in [inspect(&disk), open(&disk, trusted.then_some(&base.states[..]))] {
        match result {
            Err(error @ Error::Internal(_)) => panic!("{error}"),
            Err(error) if sound => panic!("a database that was not changed: {error}"),
            Err(_) | Ok(()) => {}
        }
    }
}

/// One change. Places are those where something lies: units of the data file, words of the log.
fn change(files: &mut [Option<Vec<u8>>], input: &mut Input<'_>) {
    let (what, which) = (input.u8(), usize::from(input.u8()));
    let count = files.len();
    let slot = &mut files[which % count];
    let Some(bytes) = slot else { return };
    if bytes.is_empty() {
        return;
    }
    let len = bytes.len();
    let at = (usize::from(input.u16()) * UNIT + usize::from(input.u16()) % UNIT) % len;
    match what % 16 {
        14 => *slot = None,
        15 => bytes.truncate(at),
        12 | 13 => {
            // A unit over another one.
            let from = usize::from(input.u16()) * UNIT % len;
            let unit = bytes[from..len.min(from + UNIT)].to_vec();
            let at = at / UNIT * UNIT;
            let end = len.min(at + unit.len());
            bytes[at..end].copy_from_slice(&unit[..end - at]);
        }
        10 | 11 => bytes[at] ^= 1 << (what >> 4 & 7),
        _ => {
            let new = input.bytes(usize::from(what >> 4) + 1);
            let end = len.min(at + new.len());
            bytes[at..end].copy_from_slice(&new[..end - at]);
        }
    }
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log")
}

/// Makes the checksums of a changed file right.
fn mend(base: &Base, path: &Path, bytes: &mut [u8]) {
    if is_log(path) {
        if let Some((_, log)) = bytes.split_at_mut_checked(SEGMENT_HEADER) {
            let start = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok()).unwrap_or(0);
            engine::mend_records(log, start, &base.id);
        }
    } else if let Ok(whole) = base.disk.open_direct(path, OpenMode::Read) {
        engine::mend_data_file(bytes, &*whole);
    }
}

/// Whether all that was changed can be noticed: no changed unit of the data file carries a checksum that is right.
fn looks_changed(path: &Path, old: &[u8], new: &[u8]) -> bool {
    if is_log(path) {
        // A forged record has a right checksum over the whole of it.
        let mut mended = new.to_vec();
        if let Some((_, log)) = mended.split_at_mut_checked(SEGMENT_HEADER) {
            let start = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok()).unwrap_or(0);
            engine::mend_records(log, start, &base().id);
        }
        return mended != new || old.get(..SEGMENT_HEADER) != new.get(..SEGMENT_HEADER);
    }
    let units = new.chunks(UNIT).zip(old.chunks(UNIT));
    units.filter(|(new, old)| new != old).all(|(new, _)| !engine::is_sealed(new))
}

/// Opens, reads everything, checks, writes, closes. What is read must be one of `states`, if there are any: damage to
/// the log's last part cannot be told from what a crash leaves.
fn open(disk: &Arc<SimDisk>, states: Option<&[Model]>) -> Result<()> {
    let db = builder(disk).open(DIR)?;
    let clean = db.check()?.is_clean();
    let found = view::dump(&db);
    if let (Some(states), Ok(found)) = (states, &found) {
        assert!(states.contains(found), "a damaged database gave wrong data");
    }
    if clean && let Ok(found) = &found {
        let compared = view::compare(&db, found, &mut Rng::new(1));
        assert!(compared.is_ok() || states.is_none(), "{compared:?}");
    }
    // The rest does what it can: an error in one table says nothing of the others.
    let mut last = found.map(drop);
    for info in db.tables()? {
        last = last.and(write(&db, &info.name));
    }
    last = last.and(db.checkpoint()).and(db.check().map(drop));
    for info in db.tables()?.iter().take(1) {
        last = last.and(db.drop_table(&info.name).map(drop));
    }
    last.and(db.step().map(drop)).and(db.close())
}

fn write(db: &Database, name: &str) -> Result<()> {
    let Some(table) = db.open_table(name)? else { return Ok(()) };
    let mut last = table.stats().map(drop);
    let mut rng = Rng::new(3);
    for number in [0, 39, 41, 67, 100, 179, 500] {
        let key = key_of(number);
        last = last.and(table.get(&key).map(drop));
        let len = *rng.pick(&[0, 30, 900, 5000]);
        last = last.and(table.put(&key, rng.bytes(len)));
    }
    for number in 20..60 {
        last = last.and(table.delete(key_of(number)).map(drop));
    }
    let tx = db.begin_write();
    last.and(tx.and_then(|mut tx| {
        tx.delete_range::<&[u8]>(&table, ..)?;
        tx.commit().map(drop)
    }))
}

/// Everything that the tools show.
fn inspect(disk: &Arc<SimDisk>) -> Result<()> {
    let inspector = Inspector::open_on(disk.clone(), DIR)?;
    let _ = (inspector.superblocks(), inspector.map_problems(), inspector.space());
    let mut last = inspector.tables().map(drop);
    for page in inspector.page_ids() {
        last = last.and(inspector.page(page).map(drop));
        last = last.and(inspector.page_bytes(page).map(drop));
    }
    let mut log = inspector.log(None)?;
    while log.next_entry()?.is_some() {}
    log.end()?;
    last
}
