//! The engine as a store to be checked: on a simulated disk, in two tables, with values of all kinds of length, and
//! with everything else that a transaction can do mixed in where it must not show.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bedstone::{Background, Database, Error, Snapshot, Table, Transaction};
use bedstone_io::sim::{CutMode, SimDisk};

use super::check::{Level, Options, Report};
use super::history::{Element, History, Key};
use super::run::{Ask, Plan, interleaved, judge, threaded};
use super::store::{Begin, Stop, Store, Tx};
use bedstone_crashtest::rng::{Rng, mix};
use bedstone_crashtest::setup::{Config, DIR, check_clean, smallest_pool};

const TABLES: u64 = 2;
/// An element that nobody appends.
const NOT_TO_BE_SEEN: Element = u64::MAX;

/// A database on a simulated disk.
pub struct Engine {
    disk: Arc<SimDisk>,
    config: Config,
    background: Background,
    open: Option<(Database, Vec<Table>)>,
    begun: AtomicU64,
}

/// A transaction of it, or a snapshot where only reads come.
pub struct EngineTx<'a> {
    engine: &'a Engine,
    kind: Kind,
    number: u64,
    puts: u64,
}

enum Kind {
    Read(Snapshot),
    Write(Box<Transaction>),
}

impl Engine {
    /// A new database. With [`Background::Manual`] all that it does is decided by the seed and by its calls.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub fn new(seed: u64, background: Background) -> Result<Self, String> {
        let mut rng = Rng::of(&[seed, 45]);
        let least = smallest_pool(4096);
        let config = Config {
            // Several clients hold pages at once.
            pool_bytes: least * *rng.pick(&[2, 3, 6]),
            checkpoint_bytes: *rng.pick(&[16 << 10, 64 << 10, 1 << 20]),
            ..Config::small()
        };
        let disk = SimDisk::new(seed);
        let mut engine = Self { disk, config, background, open: None, begun: AtomicU64::new(0) };
        engine.open()?;
        Ok(engine)
    }

    fn open(&mut self) -> Result<(), String> {
        let fail = |error: Error| format!("{error} ({error:?})");
        let db =
            self.config.builder(&self.disk).background(self.background).open_or_create(DIR).map_err(fail)?;
        let tables =
            (0..TABLES).map(|at| db.table(&format!("lists {at}"))).collect::<Result<_, _>>().map_err(fail)?;
        self.open = Some((db, tables));
        Ok(())
    }

    fn db(&self) -> Result<&(Database, Vec<Table>), Stop> {
        self.open.as_ref().ok_or(Stop::Down)
    }

    fn table(&self, key: Key) -> Result<&Table, Stop> {
        Ok(&self.db()?.1[(key % TABLES) as usize])
    }

    fn stop(&self, what: &str, error: &Error) -> Stop {
        match error {
            Error::Conflict { .. } => Stop::Refused,
            _ if !self.disk.is_powered() => Stop::Down,
            // Nothing was done.
            Error::PoolExhausted { .. } => Stop::Refused,
            Error::IteratorFailed(inner) => self.stop(what, inner),
            error => Stop::Broken(format!("{what}: {error} ({error:?})")),
        }
    }

    /// Everything is in order, says the database's own check.
    ///
    /// # Errors
    /// What is not.
    pub fn check(&self) -> Result<(), String> {
        match &self.open {
            Some((db, _)) => check_clean(db),
            None => Ok(()),
        }
    }
}

fn encode_key(key: Key) -> [u8; 8] {
    key.to_be_bytes()
}

/// How many, which, and filler by key: short values, values that leave room for one or two in a leaf, and long ones.
fn encode(key: Key, list: &[Element]) -> Vec<u8> {
    let mut value = (list.len() as u64).to_le_bytes().to_vec();
    list.iter().for_each(|element| value.extend(element.to_le_bytes()));
    let filler = [0, 0, 20, 400, 1300, 9000][(mix(key) % 6) as usize];
    value.resize(value.len() + filler, key as u8);
    value
}

fn decode(key: Key, value: &[u8]) -> Result<Vec<Element>, Stop> {
    let bad =
        || Stop::Broken(format!("the value of key {key} is not as it was written: {} bytes", value.len()));
    let mut words = value.chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_le_bytes));
    let count = words.next().ok_or_else(bad)?;
    let list: Vec<Element> = words.take(count as usize).collect();
    if encode(key, &list) == value { Ok(list) } else { Err(bad()) }
}

impl Store for Engine {
    type Tx<'a> = EngineTx<'a>;

    fn begin(&self, kind: Begin) -> Result<EngineTx<'_>, Stop> {
        let (db, _) = self.db()?;
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let kind = if kind.reads_only && number.is_multiple_of(2) {
            Kind::Read(db.begin_read().map_err(|error| self.stop("begin_read", &error))?)
        } else {
            let tx = db.begin_write().map_err(|error| self.stop("begin_write", &error))?;
            Kind::Write(Box::new(if kind.serializable { tx.serializable() } else { tx }))
        };
        Ok(EngineTx { engine: self, kind, number, puts: 0 })
    }

    fn append_at_once(&self, key: Key, element: Element) -> Result<Vec<Element>, Stop> {
        let table = self.table(key)?;
        let mut before = Err(Stop::Broken("an update without a look at the value".into()));
        let outcome = table.update(encode_key(key), |value| {
            before = value.map_or(Ok(Vec::new()), |value| decode(key, value));
            let mut list = before.clone().unwrap_or_default();
            list.push(element);
            Some(encode(key, &list))
        });
        outcome.map_err(|error| self.stop("update", &error))?;
        before
    }

    fn idle(&self) -> Result<(), Stop> {
        let (db, _) = self.db()?;
        if self.background == Background::Manual {
            db.step().map_err(|error| self.stop("step", &error))?;
        } else {
            db.checkpoint().map_err(|error| self.stop("checkpoint", &error))?;
        }
        Ok(())
    }

    fn crash(&self, after: u64, seed: u64) {
        if !self.disk.is_powered() {
            return;
        }
        let mode = *Rng::new(seed).pick(&[CutMode::Drop, CutMode::Random, CutMode::Keep]);
        if after == 0 {
            self.disk.power_cut(mode);
        } else {
            self.disk.set_cut_after(after, mode);
        }
    }

    fn reopen(&mut self) -> Result<(), String> {
        self.open = None;
        self.disk = self.disk.reopen();
        self.open()?;
        self.check()
    }
}

impl Tx for EngineTx<'_> {
    fn get(&mut self, key: Key) -> Result<Vec<Element>, Stop> {
        let table = self.engine.table(key)?;
        let found = match &self.kind {
            Kind::Read(snapshot) => snapshot.get(table, encode_key(key)),
            Kind::Write(tx) => tx.get(table, encode_key(key)),
        };
        match found {
            Ok(Some(value)) => decode(key, &value),
            Ok(None) => Ok(Vec::new()),
            Err(error) => Err(self.engine.stop("get", &error)),
        }
    }

    fn range(&mut self, keys: Range<Key>) -> Result<BTreeMap<Key, Vec<Element>>, Stop> {
        let engine = self.engine;
        let (_, tables) = engine.db()?;
        let (low, high) = (encode_key(keys.start), encode_key(keys.end));
        let mut found = BTreeMap::new();
        let backwards = self.number.is_multiple_of(3);
        for table in tables {
            let mut take = |entry: Result<bedstone::Entry<'_>, Error>| -> Result<(), Stop> {
                let entry = entry.map_err(|error| engine.stop("range", &error))?;
                let key = entry.key().try_into().map(u64::from_be_bytes);
                let key = key.map_err(|_| Stop::Broken("a key is not of eight bytes".into()))?;
                let list = decode(key, entry.value())?;
                match found.insert(key, list) {
                    None => Ok(()),
                    Some(_) => Err(Stop::Broken(format!("a range gave key {key} twice"))),
                }
            };
            macro_rules! take_all {
                ($range:expr) => {{
                    let range = $range.map_err(|error| engine.stop("range", &error))?;
                    if backwards {
                        range.rev().try_for_each(&mut take)?;
                    } else {
                        for entry in range {
                            take(entry)?;
                        }
                    }
                }};
            }
            match &self.kind {
                Kind::Read(snapshot) => take_all!(snapshot.range(table, &low[..]..&high[..])),
                Kind::Write(tx) => take_all!(tx.range(table, &low[..]..&high[..])),
            }
        }
        Ok(found)
    }

    fn put(&mut self, key: Key, list: &[Element]) -> Result<(), Stop> {
        let engine = self.engine;
        let table = engine.table(key)?;
        let Kind::Write(tx) = &mut self.kind else {
            return Err(Stop::Broken("a put where only reads should come".into()));
        };
        let (bytes, value) = (encode_key(key), encode(key, list));
        self.puts += 1;
        let detour = mix(self.number * 31 + self.puts) % 6;
        let outcome = (|| -> Result<(), Error> {
            match detour {
                0 => {
                    // What a savepoint takes back nobody may ever see.
                    let savepoint = tx.savepoint();
                    tx.put(table, bytes, encode(key, &[NOT_TO_BE_SEEN]))?;
                    tx.rollback_to(&savepoint)?;
                }
                1 => {
                    tx.delete(table, bytes)?;
                }
                2 => {
                    let savepoint = tx.savepoint();
                    tx.delete(table, bytes)?;
                    tx.put(table, bytes, encode(key, &[NOT_TO_BE_SEEN]))?;
                    tx.release(savepoint)?;
                }
                _ => {}
            }
            tx.put(table, bytes, value)
        })();
        outcome.map_err(|error| engine.stop("put", &error))
    }

    fn commit(self) -> Result<(), Stop> {
        match self.kind {
            Kind::Read(snapshot) => {
                snapshot.close();
                Ok(())
            }
            Kind::Write(tx) => tx.commit().map(drop).map_err(|error| self.engine.stop("commit", &error)),
        }
    }

    fn rollback(self) -> Result<(), Stop> {
        match self.kind {
            Kind::Read(snapshot) => snapshot.close(),
            Kind::Write(tx) => tx.rollback(),
        }
        Ok(())
    }
}

/// The run of one seed: on one thread or with a thread for each client, with no crash, one or two.
///
/// # Errors
/// What was forbidden, or broken.
pub fn run_one(seed: u64, ask: Ask, level: Level) -> Result<(History, Report), String> {
    let mut rng = Rng::of(&[seed, 46]);
    let plan = Plan { crashes: *rng.pick(&[0, 0, 1, 2]), ..Plan::draw(seed, ask) };
    let alone = rng.chance(1, 2);
    let background = if alone { Background::Manual } else { Background::Threads };
    let context = |what: String| format!("{plan:?}, {background:?}: {what}");
    let mut engine = Engine::new(seed, background).map_err(context)?;
    let run = if alone { interleaved } else { threaded };
    let history = run(&plan, &mut engine).map_err(context)?;
    engine.check().map_err(context)?;
    let report = judge("engine", &plan, &history, &Options::new(level))?;
    Ok((history, report))
}
