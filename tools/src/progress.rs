//! Progress of long work: a bar with rate and time left on a terminal, nothing elsewhere, and the time it took.

use std::io::{self, Read, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressBarIter, ProgressStyle};

use crate::bytes;

/// How far some work has come.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Work over as many bytes of input; of unknown length with `None`. Drawn on standard error if that is a
    /// terminal.
    pub(crate) fn over_bytes(total: Option<u64>) -> Self {
        let (bar, template) = match total {
            Some(total) => (ProgressBar::new(total), "{bar:30} {bytes}/{total_bytes}, {msg}, {eta} left"),
            None => (ProgressBar::no_length(), "{spinner} {bytes}, {msg}, {elapsed}"),
        };
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.set_message("0 records");
        Self { bar }
    }

    /// Work that is only timed.
    pub(crate) fn hidden() -> Self {
        Self { bar: ProgressBar::hidden() }
    }

    /// The input, counted as it is read.
    pub(crate) fn watch<R: Read>(&self, input: R) -> ProgressBarIter<R> {
        self.bar.wrap_read(input)
    }

    /// So many records are done.
    pub(crate) fn records(&self, done: u64) {
        if !self.bar.is_hidden() {
            let rate = rate(done, self.elapsed());
            self.bar.set_message(format!("{} records, {rate}/s", bytes::count(done)));
        }
    }

    /// Says a line above the bar, or on standard error where there is none.
    pub(crate) fn say(&self, line: &str) {
        // With standard error gone there is nobody left to tell.
        self.bar.suspend(|| drop(writeln!(io::stderr(), "{line}")));
    }

    /// Time since it began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.bar.elapsed()
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// How many a second, for people.
pub(crate) fn rate(done: u64, took: Duration) -> String {
    bytes::count((done as f64 / took.as_secs_f64().max(1e-6)) as u64)
}
