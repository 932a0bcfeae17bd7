//! Runs the workloads of `bedstone-benches` on Bedstone and its peers, interleaved, and prints markdown tables.

mod cli;
mod engines;
mod page_cache;
mod raw;
mod roster;
mod system;

use std::path::Path;
use std::process::ExitCode;

use bedstone_benches::{
    Contender, Durability, Plan, Reads, Result, Settings, Sizes, Store, Workload, report, run_rounds,
};
use clap::Parser;

use cli::Args;

fn main() -> ExitCode {
    match run(&Args::parse().shrunk()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let workloads = args.workloads()?;
    std::fs::create_dir_all(&args.dir)?;
    let dir = tempfile::Builder::new().prefix("bedstone-peers-").tempdir_in(&args.dir)?;
    println!("{}", system::describe(dir.path(), args));
    println!("{}", roster::versions(&args.engines)?);

    // Workloads that find the store in the same state share one loading.
    let mut rest = &workloads[..];
    while let Some(&first) = rest.first() {
        let store = first.store();
        let shared = match store {
            Store::Loaded => rest.iter().take_while(|workload| workload.store() == store).count(),
            _ => 1,
        };
        let (now, later) = rest.split_at(shared);
        rest = later;
        run_on_one_store(args, now, store, dir.path())?;
    }
    dir.close()?;
    Ok(())
}

fn run_on_one_store(args: &Args, workloads: &[Workload], store: Store, dir: &Path) -> Result<()> {
    let sizes = sizes(args, store);
    let threads = args.threads(store);
    let settings = Settings {
        durability: if store == Store::FreshEachRound { args.durability.into() } else { Durability::Relaxed },
        reads: Reads::Long,
        cache_bytes: args.cache_bytes(store),
        max_bytes: (sizes.entries as usize * (24 + sizes.value_len) * 8).max(64 << 30),
        threads: threads.iter().copied().max().unwrap_or(1),
        random_reads_from_disk: store == Store::ReopenedEachRound,
        require_io: args.require_io.clone(),
    };
    let mut contenders = roster::contenders(&args.engines, dir, &settings, store, args)?;
    for contender in &mut contenders {
        eprintln!("preparing {}", contender.name());
        let prepared = contender.prepare(store, &sizes);
        prepared.map_err(|error| format!("{} while loading: {error}", contender.name()))?;
    }
    if store == Store::ReopenedEachRound {
        println!("{}", system::describe_page_cache(settings.cache_bytes));
    }
    println!("{}", report::settings(&contenders));
    for &workload in workloads {
        for &threads in &threads {
            eprintln!("measuring {} on {threads} thread(s)", workload.name());
            let plan = Plan::new(workload, &Sizes { threads, ..sizes.clone() })?;
            let outcomes = run_rounds(&mut contenders, &plan, args.rounds)?;
            println!("{}", report::outcomes(&plan, &outcomes, &args.baseline));
        }
    }
    for contender in &mut contenders {
        contender.finish()?;
    }
    Ok(())
}

fn sizes(args: &Args, store: Store) -> Sizes {
    let mut sizes = Sizes {
        entries: args.entries,
        ops: args.ops,
        warm_ops: 0,
        threads: 1,
        batch: args.batch,
        keys_per_call: args.keys_per_call,
        scan_len: args.scan_len,
        commit_for: args.commit_for(),
        value_len: args.value_len,
        seed: args.seed,
    };
    if store == Store::ReopenedEachRound {
        if !args.smoke {
            let bytes = (args.pool_mib as u64) << 20;
            sizes.entries = bytes * args.times_pool / (24 + args.value_len as u64);
        }
        // Enough gets to fill the pool once over, with pages of 16 KiB, before anything counts.
        sizes.warm_ops = if args.smoke { 500 } else { (args.pool_mib as u64) * 64 * 2 };
    }
    sizes
}

/// A [`Contender`] behind a pointer, as the roster hands them out.
type Boxed = Box<dyn Contender>;
