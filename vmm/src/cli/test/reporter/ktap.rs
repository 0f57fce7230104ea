// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Results as KTAP version 1, the kernel's test format. With several memory types each is a subtest.

use std::io::{self, Write};

use super::{Reporter, Summary, in_words};
use crate::cli::guest::Mode;
use crate::cli::test::result::{TestResult, Verdict};
use crate::cli::test::{PASS, SKIP};

/// The reporter.
pub struct Ktap {
    out: Box<dyn Write + Send>,
    modes: usize,
    mode_number: usize,
    number: usize,
}

impl Ktap {
    /// Returns one that writes to `out` about so many memory types.
    pub fn new(out: Box<dyn Write + Send>, modes: usize) -> Self {
        Self { out, modes, mode_number: 0, number: 0 }
    }

    fn indent(&self) -> &'static str {
        if self.modes > 1 { "  " } else { "" }
    }
}

impl Reporter for Ktap {
    fn begin(&mut self, _: Mode, planned: usize) -> io::Result<()> {
        if self.modes > 1 && self.mode_number == 0 {
            writeln!(self.out, "KTAP version 1\n1..{}", self.modes)?;
        }
        self.mode_number += 1;
        self.number = 0;
        let indent = self.indent();
        writeln!(self.out, "{indent}KTAP version 1\n{indent}1..{planned}")?;
        self.out.flush()
    }

    fn other(&mut self, text: &str) -> io::Result<()> {
        // What the kernel or a program says in between must not be taken for a result.
        writeln!(self.out, "{}# {text}", self.indent())
    }

    fn result(&mut self, result: &TestResult) -> io::Result<()> {
        let indent = self.indent();
        self.number += 1;
        for line in &result.details {
            writeln!(self.out, "{indent}# {line}")?;
        }
        if let Some(rerun) = &result.rerun {
            writeln!(self.out, "{indent}# run it again: {rerun}")?;
        }
        if let Some(cause) = result.cause() {
            writeln!(self.out, "{indent}# {}: {}", result.name, cause.text())?;
        }
        if let Some(duration) = result.duration {
            writeln!(self.out, "{indent}# {}: {}", result.name, in_words(duration))?;
        }
        let (word, note) = match &result.verdict {
            Verdict::Passed => ("ok", String::new()),
            Verdict::Skipped(reason) => ("ok", format!(" # SKIP {reason}")),
            Verdict::Failed(_) => ("not ok", String::new()),
        };
        writeln!(self.out, "{indent}{word} {} {}{note}", self.number, result.name)?;
        self.out.flush()
    }

    fn end(&mut self, summary: &Summary<'_>) -> io::Result<()> {
        let indent = self.indent();
        let counts = summary.counts;
        for name in summary.not_run {
            writeln!(self.out, "{indent}# not run: {name}")?;
        }
        writeln!(self.out, "{indent}# Totals: pass:{} fail:{} skip:{}", counts.passed, counts.failed, counts.skipped)?;
        if self.modes > 1 {
            let (word, note) = match summary.status {
                PASS => ("ok", ""),
                SKIP => ("ok", " # SKIP all tests were skipped"),
                _ => ("not ok", ""),
            };
            writeln!(self.out, "{word} {} {}{note}", self.mode_number, summary.mode.name())?;
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::test::reporter::{Format, testing};

    #[test]
    fn machines_see_ktap_and_nothing_else() {
        let text = testing::shown(Format::Ktap, 2);
        assert!(text.starts_with("KTAP version 1\n1..2\n  KTAP version 1\n  1..5\n"), "{text}");
        let results: Vec<&str> = text.lines().filter(|line| !line.trim().starts_with('#')).skip(4).collect();
        let expected = [
            "  ok 1 a.one",
            "  ok 2 a.two # SKIP no <huge> pages",
            "  not ok 3 b.three",
            "  not ok 4 b.four",
            "not ok 1 private",
        ];
        assert_eq!(results, expected);
        assert!(text.contains("  # not run: b.five\n"), "{text}");
        assert!(testing::shown(Format::Ktap, 1).starts_with("KTAP version 1\n1..5\n# a.one: 12 ms\nok 1 a.one\n"));
    }
}
