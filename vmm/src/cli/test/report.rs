// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Showing the results of a guest's tests while they come.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Format;
use super::ktap::{Counts, Line, Verdict};
use crate::console::log::clean;

/// Longest line that is looked at; the rest of a longer one is dropped.
const LINE_BYTES: usize = 4096;

/// The report of one guest. Clones share it: one is the console's sink, another is asked for the counts.
#[derive(Clone)]
pub struct Report(Arc<Mutex<State>>);

struct State {
    out: Box<dyn Write + Send>,
    style: Style,
    partial: Vec<u8>,
    counts: Counts,
    /// Diagnostics that belong to the next result.
    pending: Vec<String>,
}

/// How lines are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A line a test, explained if it did not pass.
    Human,
    /// KTAP, indented as a subtest if there are several reports.
    Ktap {
        /// Whether it is one of several.
        nested: bool,
    },
    /// A line that is not a message of the kernel, unchanged.
    Names,
}

impl Style {
    /// The style for a format.
    pub fn of(format: Format, list: bool, nested: bool) -> Self {
        match format {
            _ if list => Self::Names,
            Format::Human => Self::Human,
            Format::Ktap => Self::Ktap { nested },
        }
    }
}

impl Report {
    /// A report that is shown on `out`.
    pub fn new(out: Box<dyn Write + Send>, style: Style) -> Self {
        Self(Arc::new(Mutex::new(State {
            out,
            style,
            partial: Vec::new(),
            counts: Counts::default(),
            pending: Vec::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }
}

impl Write for Report {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state();
        for &byte in bytes {
            if byte == b'\n' {
                let line = clean(&std::mem::take(&mut state.partial));
                state.show(&line)?;
            } else if state.partial.len() < LINE_BYTES {
                state.partial.push(byte);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.state().out.flush()
    }
}

impl State {
    fn show(&mut self, text: &str) -> io::Result<()> {
        let line = Line::parse(text);
        self.counts.take(&line);
        match self.style {
            Style::Human => self.show_human(&line),
            Style::Ktap { nested } => {
                let indent = if nested { "  " } else { "" };
                match line {
                    // What the kernel or a program says in between must not be taken for a result.
                    Line::Other(text) if !text.is_empty() => writeln!(self.out, "{indent}# {text}"),
                    Line::Other(_) => Ok(()),
                    _ => writeln!(self.out, "{indent}{text}"),
                }
            }
            Style::Names => match line {
                Line::Other(text) if !text.starts_with('[') => writeln!(self.out, "{text}"),
                _ => Ok(()),
            },
        }
    }

    fn show_human(&mut self, line: &Line<'_>) -> io::Result<()> {
        match line {
            Line::Version | Line::Plan(_) => Ok(()),
            Line::Diagnostic(text) => {
                self.pending.push((*text).to_owned());
                Ok(())
            }
            Line::Other("") => Ok(()),
            // What a kernel says while it boots is noise; should it matter, the end shows it.
            Line::Other(text) if self.counts.planned.is_none() && text.starts_with('[') => Ok(()),
            Line::Other(text) => writeln!(self.out, "      | {text}"),
            Line::Result { name, verdict } => {
                let pending = std::mem::take(&mut self.pending);
                match verdict {
                    Verdict::Passed => writeln!(self.out, "pass  {name}"),
                    Verdict::Skipped(reason) => writeln!(self.out, "skip  {name}: {reason}"),
                    Verdict::Failed => {
                        writeln!(self.out, "FAIL  {name}")?;
                        pending.iter().try_for_each(|text| writeln!(self.out, "      {text}"))
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::recorder::Recorder;

    fn shown(style: Style) -> (String, Counts) {
        let out = Recorder::default();
        let mut report = Report::new(Box::new(out.clone()), style);
        let console = b"[  1.0] hello\r\nKTAP version 1\r\n1..2\r\nok 1 a\r\n[  2.0] x\r\n# why\r\nnot ok 2 b\r\n";
        console.chunks(5).for_each(|piece| report.write_all(piece).unwrap());
        (out.text(), report.counts())
    }

    #[test]
    fn people_see_why_a_test_failed() {
        let (text, counts) = shown(Style::Human);
        assert_eq!(text, "pass  a\n      | [  2.0] x\nFAIL  b\n      why\n");
        assert_eq!(counts, Counts { planned: Some(2), passed: 1, failed: 1, skipped: 0 });
    }

    #[test]
    fn machines_see_ktap_and_nothing_else() {
        let (text, _) = shown(Style::Ktap { nested: true });
        assert_eq!(
            text,
            "  # [  1.0] hello\n  KTAP version 1\n  1..2\n  ok 1 a\n  # [  2.0] x\n  # why\n  not ok 2 b\n"
        );
    }
}
