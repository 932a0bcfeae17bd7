//! Loads a file of records (one JSON object a line) with a child process that is killed by SIGKILL on the way, several
//! times, and shows that every acknowledged batch is there, the one in flight whole or absent, and every record the same
//! byte for byte.
//!
//! `cargo run --release -p bedstone-tests --bin cities -- cities.jsonl /path/on/the/disk`
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::Command;

use clap::Parser;

#[derive(Parser)]
struct Args {
    /// The records, one a line.
    file: PathBuf,
    /// Where to put the database (a new folder in there, removed at the end).
    dir: PathBuf,
    /// How often the loader is killed.
    #[arg(long, default_value_t = 5)]
    kills: u32,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args_os().collect();
    if let [_, word, dir, file, from] = &arguments[..]
        && word == "load"
    {
        let from = from.to_str().and_then(|n| n.parse().ok()).ok_or("the first record is a number")?;
        bedstone_tests::cities::load(dir.as_ref(), file.as_ref(), from, &mut std::io::stdout())?;
        return Ok(());
    }
    let args = Args::parse();
    let dir = tempfile::Builder::new().prefix("bedstone-cities-").tempdir_in(&args.dir)?;
    let program = std::env::current_exe()?;
    let loader = || {
        let mut command = Command::new(&program);
        command.arg("load");
        command
    };
    let seen = bedstone_tests::cities::run(&loader, &dir.path().join("db"), &args.file, args.kills)?;
    println!(
        "{} records; loader killed {} times; {} batches acknowledged before the kills, all there; {} more in flight were there, whole",
        seen.records, seen.kills, seen.acknowledged, seen.extra
    );
    println!(
        "last part loaded in {:.2?}; all records read back byte for byte in {:.2?}; check clean",
        seen.load, seen.read_back
    );
    Ok(())
}
