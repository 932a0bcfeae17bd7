//! One engine with its directory, and what the runner sees of it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::data::{DataSet, KeyOrder};
use crate::engine::{Durability, Effective, Engine, Result, Settings};
use crate::measure;
use crate::plan::{Plan, Sizes};
use crate::runner::Sample;

/// In which state a workload finds the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// Loaded, at rest, open from round to round.
    Loaded,
    /// The same, opened with durable commits.
    LoadedForCommits,
    /// Empty and new in each round.
    FreshEachRound,
    /// Loaded, and opened anew in each round, with none of its files in the page cache.
    ReopenedEachRound,
}

/// Something that can be measured in rounds.
pub trait Contender {
    /// Its name in tables.
    fn name(&self) -> &str;

    /// Makes ready for workloads that find the store in state `store`.
    fn prepare(&mut self, store: Store, sizes: &Sizes) -> Result<()>;

    /// Does the work of one round.
    fn sample(&mut self, plan: &Plan, round: usize) -> Result<Sample>;

    /// What was in effect when it was last open; `None` for what is no engine.
    fn effective(&self) -> Option<&Effective>;

    /// Bytes occupied on disk once loaded.
    fn disk_bytes(&self) -> Option<u64>;

    /// Closes what is open and removes what was stored.
    fn finish(&mut self) -> Result<()>;
}

/// An engine, its settings and its directory.
#[derive(Debug)]
pub struct Stand<E> {
    name: String,
    dir: PathBuf,
    settings: Settings,
    forget: fn(&Path) -> Result<()>,
    open: Option<E>,
    effective: Option<Effective>,
    disk_bytes: Option<u64>,
}

impl<E: Engine> Stand<E> {
    /// A stand called [`Engine::NAME`] followed by `suffix`, whose files lie under `parent`. `forget` makes the
    /// system drop the files of a directory from the page cache.
    pub fn new(suffix: &str, parent: &Path, settings: Settings, forget: fn(&Path) -> Result<()>) -> Self {
        let name = format!("{}{suffix}", E::NAME);
        let dir = parent.join(&name);
        Self { name, dir, settings, forget, open: None, effective: None, disk_bytes: None }
    }

    fn open(&mut self, dir: &Path) -> Result<E> {
        fs::create_dir_all(dir)?;
        let engine = E::open(dir, &self.settings)?;
        self.effective = Some(engine.effective()?);
        Ok(engine)
    }

    fn store_dir(&self) -> PathBuf {
        self.dir.join("store")
    }
}

impl<E: Engine> Contender for Stand<E> {
    fn name(&self) -> &str {
        &self.name
    }

    fn prepare(&mut self, store: Store, sizes: &Sizes) -> Result<()> {
        self.finish()?;
        if store == Store::LoadedForCommits {
            self.settings.durability = Durability::Durable;
        }
        if store == Store::FreshEachRound {
            // Opened once for nothing but the report.
            let dir = self.store_dir();
            return self.open(&dir)?.close();
        }
        let dir = self.store_dir();
        let engine = self.open(&dir)?;
        let data = DataSet::new(sizes.seed, KeyOrder::Random, sizes.value_len);
        match store {
            Store::ReopenedEachRound => measure::load_in_order(&engine, &data, sizes.entries)?,
            _ => measure::load(&engine, &data, sizes.entries)?,
        }
        engine.settle()?;
        self.disk_bytes = Some(E::disk_bytes(&dir)?);
        if store == Store::ReopenedEachRound {
            engine.close()?;
        } else {
            self.open = Some(engine);
        }
        Ok(())
    }

    fn sample(&mut self, plan: &Plan, round: usize) -> Result<Sample> {
        match plan.workload.store() {
            Store::Loaded => measure::reads(self.open.as_ref().ok_or("not prepared")?, plan),
            Store::LoadedForCommits => {
                measure::commits(self.open.as_ref().ok_or("not prepared")?, plan, round)
            }
            Store::FreshEachRound => {
                let dir = self.dir.join(format!("round-{round}"));
                let engine = self.open(&dir)?;
                let sample = measure::inserts(&engine, plan)?;
                self.disk_bytes = Some(E::disk_bytes(&dir)?);
                engine.close()?;
                fs::remove_dir_all(&dir)?;
                Ok(sample)
            }
            Store::ReopenedEachRound => {
                let dir = self.store_dir();
                (self.forget)(&dir)?;
                let engine = self.open(&dir)?;
                measure::warm(&engine, plan)?;
                let sample = measure::reads(&engine, plan)?;
                engine.close()?;
                (self.forget)(&dir)?;
                Ok(sample)
            }
        }
    }

    fn effective(&self) -> Option<&Effective> {
        self.effective.as_ref()
    }

    fn disk_bytes(&self) -> Option<u64> {
        self.disk_bytes
    }

    fn finish(&mut self) -> Result<()> {
        if let Some(engine) = self.open.take() {
            engine.close()?;
        }
        if self.dir.exists() {
            fs::remove_dir_all(&self.dir)?;
        }
        Ok(())
    }
}
