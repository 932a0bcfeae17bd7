//! Who takes part.

use std::fmt::Write;
use std::path::Path;

use bedstone_benches::bedstone::Bedstone;
use bedstone_benches::btreemap::StdMap;
use bedstone_benches::{Engine, Reads, Result, Settings, Stand, Store};

use crate::Boxed;
use crate::cli::Args;
use crate::engines::{
    canopydb::Canopydb, fjall::Fjall, lmdb::Lmdb, redb::Redb, rocksdb::Rocksdb, sled::Sled, sqlite::Sqlite,
};
use crate::page_cache;
use crate::raw::{RawReads, RawSyncs};

/// What follows an engine's name if it begins a read transaction for each call.
const PER_CALL: &str = "-per-call";

/// The engines of these names and, where one belongs to the workload, the bare disk, with all files under `dir`.
pub fn contenders(
    names: &[String],
    dir: &Path,
    settings: &Settings,
    store: Store,
    args: &Args,
) -> Result<Vec<Boxed>> {
    let mut all = Vec::new();
    for name in names {
        if name == StdMap::NAME && store == Store::ReopenedEachRound {
            eprintln!("{name} keeps nothing on disk and cannot be reopened: left out");
            continue;
        }
        all.push(contender(name, dir, settings)?);
    }
    match store {
        Store::LoadedForCommits => all.push(Box::new(RawSyncs::new(dir))),
        Store::ReopenedEachRound => all.push(Box::new(RawReads::new(dir, args.block)?)),
        Store::Loaded | Store::FreshEachRound => {}
    }
    Ok(all)
}

fn contender(name: &str, dir: &Path, settings: &Settings) -> Result<Boxed> {
    let (engine, reads) = match name.strip_suffix(PER_CALL) {
        Some(engine) => (engine, Reads::PerCall),
        None => (name, Reads::Long),
    };
    if reads == Reads::PerCall && !["lmdb", "redb", "canopydb", "sqlite"].contains(&engine) {
        return Err(format!("{engine} holds no read transactions: {name:?} says nothing new").into());
    }
    let settings = Settings { reads, ..settings.clone() };
    Ok(match engine {
        Bedstone::NAME => stand::<Bedstone>(reads, dir, settings),
        StdMap::NAME => stand::<StdMap>(reads, dir, settings),
        Lmdb::NAME => stand::<Lmdb>(reads, dir, settings),
        Redb::NAME => stand::<Redb>(reads, dir, settings),
        Canopydb::NAME => stand::<Canopydb>(reads, dir, settings),
        Rocksdb::NAME => stand::<Rocksdb>(reads, dir, settings),
        Fjall::NAME => stand::<Fjall>(reads, dir, settings),
        Sled::<true>::NAME => stand::<Sled<true>>(reads, dir, settings),
        Sled::<false>::NAME => stand::<Sled<false>>(reads, dir, settings),
        Sqlite::NAME => stand::<Sqlite>(reads, dir, settings),
        _ => return Err(format!("there is no engine {name:?}").into()),
    })
}

fn stand<E: Engine>(reads: Reads, dir: &Path, settings: Settings) -> Boxed {
    let suffix = if reads == Reads::PerCall { PER_CALL } else { "" };
    Box::new(Stand::<E>::new(suffix, dir, settings, page_cache::forget))
}

/// The version of each engine, from the lock file this program was built with.
pub fn versions(names: &[String]) -> Result<String> {
    let lock = include_str!("../Cargo.lock");
    let mut out = String::from("Versions:");
    let mut engines: Vec<&str> =
        names.iter().map(|name| name.strip_suffix(PER_CALL).unwrap_or(name)).collect();
    engines.dedup();
    for engine in engines {
        let package = match engine {
            Lmdb::NAME => "heed",
            Sqlite::NAME => "rusqlite",
            Sled::<false>::NAME => "sled",
            StdMap::NAME => continue,
            other => other,
        };
        let entry = format!("\nname = \"{package}\"\nversion = \"");
        let version = lock.split_once(&entry).and_then(|(_, rest)| rest.split('"').next());
        let version = version.ok_or_else(|| format!("there is no engine {engine:?}"))?;
        let _ = write!(out, " {engine} ({package} {version}),");
    }
    out.pop();
    out.push('\n');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bedstone_benches::Durability;
    use bedstone_benches::conform::conform;

    fn conforms<E: Engine>() {
        for durability in [Durability::Durable, Durability::Relaxed] {
            for reads in [Reads::Long, Reads::PerCall] {
                let dir = tempfile::tempdir().unwrap();
                let settings = Settings {
                    durability,
                    reads,
                    cache_bytes: 16 << 20,
                    max_bytes: 1 << 30,
                    threads: 1,
                    random_reads_from_disk: reads == Reads::PerCall,
                    require_io: None,
                };
                let result = conform::<E>(dir.path(), &settings, true);
                result.unwrap_or_else(|error| panic!("{} {durability:?} {reads:?}: {error}", E::NAME));
            }
        }
    }

    #[test]
    fn peers_conform() {
        conforms::<Lmdb>();
        conforms::<Redb>();
        conforms::<Canopydb>();
        conforms::<Rocksdb>();
        conforms::<Fjall>();
        conforms::<Sled<true>>();
        conforms::<Sled<false>>();
        conforms::<Sqlite>();
    }

    #[test]
    fn bedstone_conforms() {
        conforms::<Bedstone>();
    }

    #[test]
    fn every_engine_has_a_version() {
        let names = ["bedstone", "lmdb-per-call", "redb", "canopydb", "rocksdb", "fjall", "sled", "sqlite"];
        let text = versions(&names.map(String::from)).unwrap();
        assert!(text.contains("lmdb (heed 0."), "{text}");
    }
}
