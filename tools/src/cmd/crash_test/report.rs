//! What a crash test tells: how far it has come, and what came of it.

use std::time::{Duration, Instant};

use bedstone_crashtest::{Again, Failure as Unkept, Kept, Progress, Verdict};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value as Json, json};

use super::CrashTest;
use super::modes::Mode;
use crate::bytes::count;
use crate::cli::Global;
use crate::failure::{Answer, Failure};
use crate::out::Out;

/// Collects verdicts; prints each as it comes, or all as JSON at the end.
pub(super) struct Report<'a> {
    asked: &'a CrashTest,
    seed: u64,
    allow_buffered: bool,
    bar: ProgressBar,
    began: Instant,
    modes: Vec<Json>,
    kept: u64,
    broken: bool,
    could_not_run: bool,
    /// Whoever read standard output has gone away: the verdict is the exit code then.
    unheard: bool,
}

impl<'a> Report<'a> {
    pub(super) fn new(asked: &'a CrashTest, seed: u64, global: &Global) -> Self {
        // Drawn on standard error, and only if that is a terminal.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(4));
        let style = ProgressStyle::with_template("{spinner} {prefix}: {msg}, {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Self {
            asked,
            seed,
            allow_buffered: global.allow_buffered,
            bar,
            began: Instant::now(),
            modes: Vec::new(),
            kept: 0,
            broken: false,
            could_not_run: false,
            unheard: false,
        }
    }

    /// A mode begins.
    pub(super) fn begins(&self, mode: Mode) {
        self.bar.reset_elapsed();
        self.bar.set_prefix(mode.name());
        self.bar.set_message("begins");
    }

    /// To be told of progress.
    pub(super) fn watch(&self) -> impl Fn(&Progress) + Sync + use<> {
        let bar = self.bar.clone();
        move |progress| {
            let of = progress.of.map_or(String::new(), |of| format!(" of {}", count(of)));
            bar.set_message(format!("{}{of} {}", count(progress.done), progress.what));
            bar.tick();
        }
    }

    /// A mode has ended.
    pub(super) fn ended(&mut self, mode: Mode, verdict: Verdict, left_out: bool) -> Result<(), Failure> {
        let name = mode.name();
        let (lines, document) = match verdict {
            Ok(kept) => {
                self.kept += 1;
                (kept_lines(name, &kept), kept_json(name, &kept))
            }
            Err(Unkept::Broken { what, again }) => {
                self.broken = true;
                let again = self.again(mode, again);
                let lines = vec![
                    format!("{name:9} BROKEN  {}", what.trim_end()),
                    format!("{:9} again:  {again}", ""),
                ];
                (lines, json!({"mode": name, "verdict": "broken", "what": what, "again": again}))
            }
            Err(Unkept::CannotRun(what)) => {
                self.could_not_run |= !left_out;
                let word = if left_out { "left out" } else { "could not run" };
                (
                    vec![format!("{name:9} {word}: {what}")],
                    json!({"mode": name, "verdict": word, "what": what}),
                )
            }
        };
        self.modes.push(document);
        if !self.asked.json {
            let written = self.bar.suspend(|| {
                let mut out = Out::new();
                lines.into_iter().try_for_each(|line| out.line(line))?;
                out.finish()
            });
            self.heard(written)?;
        }
        Ok(())
    }

    /// Goes on where nobody reads any more: a broken promise must still be in the exit code.
    fn heard(&mut self, written: Result<(), Failure>) -> Result<(), Failure> {
        match written {
            Err(Failure::BrokenPipe) => {
                self.unheard = true;
                Ok(())
            }
            other => other,
        }
    }

    /// The command that does it again.
    fn again(&self, mode: Mode, again: Option<Again>) -> String {
        let buffered = if self.allow_buffered { "--allow-buffered " } else { "" };
        let dir = quoted(&self.asked.dir.to_string_lossy());
        let mut text = format!("bedstone {buffered}crash-test {dir} --mode {}", mode.name());
        text.push_str(&match again {
            Some(Again { seed, round }) => format!(" --seed {seed} --only {round}"),
            None => format!(" --seed {}{}", self.seed, self.asked.extent()),
        });
        text.push_str(&self.asked.typed());
        text
    }

    /// The verdict over all.
    pub(super) fn finish(mut self) -> Result<Answer, Failure> {
        self.bar.finish_and_clear();
        let verdict = match (self.broken, self.could_not_run || self.kept == 0) {
            (true, _) => "broken",
            (false, true) => "could not run",
            (false, false) => "kept",
        };
        if !self.unheard {
            let written = self.tell(verdict);
            self.heard(written)?;
        }
        match verdict {
            "kept" => Ok(Answer::Yes),
            "broken" => Ok(Answer::No),
            _ => Err(Failure::Cannot("a mode of the crash test could not run; the report says why".into())),
        }
    }

    fn tell(&self, verdict: &str) -> Result<(), Failure> {
        let mut out = Out::new();
        if self.asked.json {
            out.json(&json!({
                "verdict": verdict,
                "seed": self.seed,
                "seconds": seconds(self.began.elapsed()),
                "modes": self.modes,
            }))?;
        } else {
            let seed = self.seed;
            out.line(match verdict {
                "broken" => {
                    format!("A PROMISE WAS BROKEN (seed {seed}). Please report what stands above, with whatever it says was left.")
                }
                "kept" => format!("Every promise was kept (seed {seed})."),
                _ if self.kept == 0 => format!("Nothing could be run (seed {seed})."),
                _ => format!("Not everything could be run (seed {seed}); what did run was kept."),
            })?;
        }
        out.finish()
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:,@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

/// So many in so much time, as a rate a minute.
fn a_minute(done: u64, took: Duration) -> String {
    count((done as f64 * 60.0 / took.as_secs_f64().max(1e-3)).round() as u64)
}

fn kept_lines(name: &str, kept: &Kept) -> Vec<String> {
    let mut counts = kept.counts.iter();
    let first = counts.next().map_or(String::new(), |(what, number)| {
        format!(
            "{} {what} in {:.1} s ({} a minute)",
            count(*number),
            kept.took.as_secs_f64(),
            a_minute(*number, kept.took)
        )
    });
    let others: Vec<String> = counts.map(|(what, number)| format!("{} {what}", count(*number))).collect();
    let mut lines = vec![format!("{name:9} kept    {first}")];
    if !others.is_empty() {
        lines.push(format!("{:17} {}", "", others.join(", ")));
    }
    lines.extend(kept.notes.iter().map(|note| format!("{:17} {note}", "")));
    lines
}

fn kept_json(name: &str, kept: &Kept) -> Json {
    let counts: serde_json::Map<String, Json> =
        kept.counts.iter().map(|(what, number)| (what.replace(' ', "_"), json!(number))).collect();
    json!({
        "mode": name,
        "verdict": "kept",
        "seconds": seconds(kept.took),
        "counts": counts,
        "notes": kept.notes,
    })
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_for_a_shell() {
        assert_eq!(quoted("/mnt/disk-1"), "/mnt/disk-1");
        assert_eq!(quoted("/a b/$HOME"), "'/a b/$HOME'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
