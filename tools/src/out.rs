//! Standard output: buffered, and silent about readers that have gone away.

use std::io::{self, BufWriter, StdoutLock, Write};

use serde_json::Value as Json;

use crate::failure::Failure;

/// Standard output, buffered. What is written appears after [`Out::finish`] at the latest; a failure found by then
/// is not lost, unlike one found while dropping.
pub(crate) struct Out(BufWriter<StdoutLock<'static>>);

impl Out {
    /// Takes standard output for a command.
    pub(crate) fn new() -> Self {
        Self(BufWriter::with_capacity(64 << 10, io::stdout().lock()))
    }

    /// Writes one line.
    pub(crate) fn line(&mut self, text: impl std::fmt::Display) -> Result<(), Failure> {
        writeln!(self.0, "{text}")?;
        Ok(())
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.0.write_all(bytes)?;
        Ok(())
    }

    /// Writes one JSON document on a line of its own.
    pub(crate) fn json(&mut self, value: &Json) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.0, value).map_err(io::Error::from)?;
        self.bytes(b"\n")
    }

    /// Lets the reader see what was written so far.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.0.flush()?;
        Ok(())
    }

    /// Ends the output.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.flush()
    }
}
