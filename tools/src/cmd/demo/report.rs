//! What the demonstration prints, and which of its claims did not hold.

use std::fmt::Display;

use crate::failure::Failure;
use crate::out::Out;

/// Characters of a row of figures.
const FIGURES_WIDTH: usize = 100;

/// The demonstration's text. It appears section by section.
pub(crate) struct Report {
    out: Out,
    sections: u32,
    failed: Vec<String>,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self { out: Out::new(), sections: 0, failed: Vec::new() }
    }

    /// Begins a section.
    pub(crate) fn title(&mut self, title: &str) -> Result<(), Failure> {
        if self.sections > 0 {
            self.out.line("")?;
        }
        self.sections += 1;
        self.out.line(format_args!("{}. {title}", self.sections))?;
        self.out.flush()
    }

    /// Says something.
    pub(crate) fn line(&mut self, text: impl Display) -> Result<(), Failure> {
        self.out.line(format_args!("   {text}"))
    }

    /// Prints figures that stand one on a line, as `part.name = value`, side by side with their parts in front.
    pub(crate) fn figures(&mut self, figures: &str) -> Result<(), Failure> {
        let mut row = String::new();
        let mut part = "";
        for figure in figures.lines() {
            let (new_part, figure) = figure.split_once('.').unwrap_or(("", figure));
            if new_part != part || row.len() + figure.len() > FIGURES_WIDTH {
                self.figures_row(&row)?;
                row = if new_part == part { " ".repeat(12) } else { format!("{new_part:<12}") };
                part = new_part;
            } else {
                row.push_str(", ");
            }
            row.push_str(figure);
        }
        self.figures_row(&row)
    }

    fn figures_row(&mut self, row: &str) -> Result<(), Failure> {
        if row.is_empty() { Ok(()) } else { self.line(row) }
    }

    /// Says that something must hold, and whether it does.
    pub(crate) fn check(&mut self, holds: bool, what: impl Display) -> Result<(), Failure> {
        if !holds {
            self.failed.push(what.to_string());
        }
        self.out.line(format_args!("   {} {what}", if holds { "ok:" } else { "FAILED:" }))?;
        self.out.flush()
    }

    /// The claims that did not hold.
    pub(crate) fn failed(&self) -> &[String] {
        &self.failed
    }

    /// Where the sections are written, for output of other commands.
    pub(crate) fn out(&mut self) -> &mut Out {
        &mut self.out
    }

    /// Ends the text.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        self.out.finish()
    }
}
