//! Markdown tables.

use std::fmt::Write;

use crate::plan::{Plan, Workload};
use crate::runner::{Outcome, Spread};
use crate::stand::Contender;

/// A table of what was in effect for each engine.
pub fn settings(contenders: &[Box<dyn Contender>]) -> String {
    let mut out = String::from("| engine | data I/O | commit | cache | other |\n|---|---|---|---|---|\n");
    for contender in contenders {
        if let Some(e) = contender.effective() {
            let name = contender.name();
            let _ = writeln!(out, "| {name} | {} | {} | {} | {} |", e.io, e.durability, e.cache, e.other);
        }
    }
    out
}

/// A table of the outcomes of one plan. Ratios are to the outcome called `baseline`, else to the first one.
pub fn outcomes(plan: &Plan, outcomes: &[Outcome], baseline: &str) -> String {
    let Some(base) = outcomes.iter().find(|outcome| outcome.name == baseline).or(outcomes.first()) else {
        return String::new();
    };
    let sizes = &plan.sizes;
    let mut out = format!("### {}, {}, {}\n\n", plan.workload.name(), threads(sizes.threads), details(plan));
    let with_settled =
        outcomes.iter().any(|outcome| outcome.samples.iter().any(|sample| sample.settled.is_some()));
    let with_device = plan.workload == Workload::LargerThanMemory;
    let unit = plan.workload.unit();
    let _ = write!(
        out,
        "| engine | {unit}/s, median | min | max | time per {unit} | {} is, times | MiB on disk |",
        base.name
    );
    if with_settled {
        let _ = write!(out, " {unit}/s until at rest |");
    }
    if with_device {
        let _ = write!(out, " KiB read from the device per {unit} |");
    }
    out.push_str("\n|---|---|---|---|---|---|---|");
    out.push_str(&"---|".repeat(usize::from(with_settled) + usize::from(with_device)));
    out.push('\n');
    for outcome in outcomes {
        let Some(rate) = outcome.rate() else { continue };
        let (median, min, max) = (number(rate.median), number(rate.min), number(rate.max));
        let _ = write!(out, "| {} | {median} | {min} | {max} | {} ", outcome.name, time(1.0 / rate.median));
        let ratio = outcome
            .ratio_of(base)
            .map_or(String::new(), |r| format!("{:.2} ({:.2} to {:.2})", r.median, r.min, r.max));
        let mib = outcome.disk_bytes.map_or(String::new(), |bytes| (bytes >> 20).to_string());
        let _ = write!(out, "| {ratio} | {mib} |");
        if with_settled {
            let rates = outcome
                .samples
                .iter()
                .filter_map(|sample| Some(sample.ops as f64 / sample.settled?.as_secs_f64()));
            let _ = write!(out, " {} |", Spread::of(rates).map_or(String::new(), |rate| number(rate.median)));
        }
        if with_device {
            let kib =
                outcome.samples.iter().filter_map(|s| Some(s.device_bytes? as f64 / 1024.0 / s.ops as f64));
            let _ = write!(
                out,
                " {} |",
                Spread::of(kib).map_or(String::new(), |kib| format!("{:.2}", kib.median))
            );
        }
        out.push('\n');
    }
    out
}

fn details(plan: &Plan) -> String {
    let sizes = &plan.sizes;
    let mut text = format!("{} entries of 24 + {} bytes", sizes.entries, sizes.value_len);
    let _ = match plan.workload {
        Workload::MultiGet => write!(text, ", {} keys a call", sizes.keys_per_call),
        Workload::SeekScan => write!(text, ", {} entries a seek", sizes.scan_len),
        Workload::InsertRandom | Workload::InsertAscending if sizes.batch == 0 => {
            write!(text, ", one transaction")
        }
        Workload::InsertRandom | Workload::InsertAscending => write!(text, ", {} a transaction", sizes.batch),
        Workload::CommitDurable => write!(text, " loaded before, {:?} a round", sizes.commit_for),
        Workload::LargerThanMemory => {
            write!(text, ", {} gets a round after {} to warm up", plan.ops(), sizes.warm_ops)
        }
        _ => Ok(()),
    };
    text
}

fn threads(count: usize) -> String {
    if count == 1 { "1 thread".into() } else { format!("{count} threads") }
}

/// A figure with three significant digits and a unit prefix.
fn number(figure: f64) -> String {
    for (prefix, factor) in [("G", 1e9), ("M", 1e6), ("k", 1e3)] {
        if figure >= factor {
            return format!("{} {prefix}", digits(figure / factor));
        }
    }
    digits(figure)
}

/// Seconds, in the unit that suits.
fn time(seconds: f64) -> String {
    for (unit, factor) in [("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)] {
        if seconds >= factor {
            return format!("{} {unit}", digits(seconds / factor));
        }
    }
    format!("{} ns", digits(seconds / 1e-9))
}

fn digits(figure: f64) -> String {
    if figure >= 100.0 {
        format!("{figure:.0}")
    } else if figure >= 10.0 {
        format!("{figure:.1}")
    } else {
        format!("{figure:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(number(1_234_567.0), "1.23 M");
        assert_eq!(number(48_210.0), "48.2 k");
        assert_eq!(number(358.4), "358");
        assert_eq!(time(412e-9), "412 ns");
        assert_eq!(time(0.0015), "1.50 ms");
    }
}
