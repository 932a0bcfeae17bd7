//! Rot: the files of a small store are damaged, one damage at a time (`bedstone_crashtest::rot`). Each damage is answered
//! by an error that names the place, or is provably harmless; wrong data is never served, nothing is lost in silence,
//! nothing panics. Samples are spread evenly over all damages; `BEDSTONE_LONG=1` tries everything.

use bedstone_crashtest::rot::{Theme, replay, run, run_theme};
use bedstone_crashtest::{Kept, Plan, seeds, unwatched};

/// A sample of so many damages of a theme of the store of this seed.
fn sample(theme: Theme, seed: u64, usually: u64) -> Kept {
    let rounds = if std::env::var_os("BEDSTONE_LONG").is_some() { u64::MAX } else { usually };
    let plan = Plan { threads: seeds::cores(), ..Plan::rounds(seed, rounds) };
    let kept = run_theme(&plan, theme, &unwatched).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{theme:?}, seed {seed}: {:?} in {:?}", kept.counts, kept.took);
    kept
}

#[test]
fn without_damage_all_is_well() {
    // Drawing the store reads it in every way.
    for seed in 1..=6 {
        assert_eq!(replay(&Plan::rounds(seed, 1), 0), Ok(()), "seed {seed}");
    }
    assert!(replay(&Plan::rounds(1, 1), u64::MAX).is_err());
}

#[test]
fn bits_of_the_superblocks() {
    let kept = sample(Theme::Superblocks, 1, 500);
    assert!(kept.count("refused at open") > 0, "no pair of damaged superblocks was tried: {kept:?}");
}

#[test]
fn bits_of_every_block_of_the_data_file() {
    for seed in [1, 3] {
        let kept = sample(Theme::Blocks, seed, 800);
        assert!(kept.count("read errors") > 0, "no damage was met: {kept:?}");
    }
}

#[test]
fn blocks_zeroed_swapped_replaced_by_garbage_or_by_their_own_past() {
    for seed in [1, 4] {
        let kept = sample(Theme::Replaced, seed, 500);
        assert!(kept.count("read errors") > 0, "no damage was met: {kept:?}");
    }
}

#[test]
fn bits_of_the_log() {
    for seed in [1, 2] {
        let kept = sample(Theme::Log, seed, 500);
        assert!(kept.count("refused at open") > 0, "no damage was met: {kept:?}");
    }
}

#[test]
fn files_cut_short() {
    for seed in [1, 2, 3] {
        let kept = sample(Theme::Cuts, seed, 300);
        assert!(kept.count("refused at open") > 0, "no damage was met: {kept:?}");
    }
}

#[test]
fn files_removed_or_brought_back_from_the_past() {
    for seed in [1, 2, 3] {
        let kept = sample(Theme::Files, seed, u64::MAX);
        assert!(kept.count("refused at open") > 0, "no damage was met: {kept:?}");
    }
}

/// Damage that happens while the store is open is noticed when the page is read again.
#[test]
fn rot_while_the_store_is_open() {
    let kept = sample(Theme::WhileOpen, 1, 30);
    assert!(kept.count("read errors") > 5, "{kept:?}");
}

/// A sample of all that the command `crash-test rot` tries.
#[test]
fn rot_of_every_kind() {
    let plan = Plan { threads: seeds::cores(), ..Plan::rounds(6, 300) };
    let kept = run(&plan, &unwatched).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(kept.count("refused at open") > 0 && kept.count("read errors") > 0, "{kept:?}");
}
