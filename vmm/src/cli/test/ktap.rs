// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reading KTAP off a console, where it is mixed with what the kernel says.

/// One line of a console, as a KTAP reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// The line that begins a report.
    Version,
    /// How many results to expect.
    Plan(usize),
    /// What became of a test.
    Result {
        /// Its name.
        name: &'a str,
        /// What became of it.
        verdict: Verdict<'a>,
    },
    /// A line that explains the next result; without its mark.
    Diagnostic(&'a str),
    /// Anything else: the kernel, programs.
    Other(&'a str),
}

/// What became of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// It was not run, for this reason.
    Skipped(&'a str),
}

impl<'a> Line<'a> {
    /// Reads a line without its end.
    pub fn parse(line: &'a str) -> Self {
        Self::known(line).unwrap_or(Self::Other(line))
    }

    fn known(line: &'a str) -> Option<Self> {
        if line == "KTAP version 1" {
            return Some(Self::Version);
        }
        if let Some(count) = line.strip_prefix("1..") {
            return Some(Self::Plan(count.trim_end().parse().ok()?));
        }
        if let Some(text) = line.strip_prefix('#') {
            return Some(Self::Diagnostic(text.strip_prefix(' ').unwrap_or(text)));
        }
        let (passed, rest) = match line.strip_prefix("not ok ") {
            Some(rest) => (false, rest),
            None => (true, line.strip_prefix("ok ")?),
        };
        let (number, description) = rest.split_once(' ')?;
        number.parse::<u32>().ok()?;
        let (name, directive) = description.split_once(" # ").unwrap_or((description, ""));
        let verdict = match directive.strip_prefix("SKIP") {
            Some(reason) => Verdict::Skipped(reason.trim()),
            None if passed => Verdict::Passed,
            None => Verdict::Failed,
        };
        Some(Self::Result { name: name.trim_start_matches("- ").trim(), verdict })
    }
}

/// Counts of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Results to expect; `None` before the plan has come.
    pub planned: Option<usize>,
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
    /// Tests that were not run.
    pub skipped: usize,
}

impl Counts {
    /// Takes a line into account.
    pub fn take(&mut self, line: &Line<'_>) {
        match line {
            Line::Plan(count) => self.planned = Some(*count),
            Line::Result { verdict: Verdict::Passed, .. } => self.passed += 1,
            Line::Result { verdict: Verdict::Failed, .. } => self.failed += 1,
            Line::Result { verdict: Verdict::Skipped(_), .. } => self.skipped += 1,
            Line::Version | Line::Diagnostic(_) | Line::Other(_) => {}
        }
    }

    /// Number of results.
    pub fn results(&self) -> usize {
        self.passed + self.failed + self.skipped
    }

    /// Whether every planned test has a result.
    pub fn is_complete(&self) -> bool {
        self.planned == Some(self.results())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_report_is_read_among_other_lines() {
        let text = "[    1.0] booting\nKTAP version 1\n1..3\nok 1 a.one\n# because\nnot ok 2 a.two\n[ 2.0] ok 9 no\n\
                    ok 3 - a.three # SKIP no huge pages\n";
        let mut counts = Counts::default();
        let lines: Vec<Line<'_>> = text.lines().map(Line::parse).collect();
        lines.iter().for_each(|line| counts.take(line));
        assert_eq!(lines[3], Line::Result { name: "a.one", verdict: Verdict::Passed });
        assert_eq!(lines[4], Line::Diagnostic("because"));
        assert_eq!(lines[6], Line::Other("[ 2.0] ok 9 no"));
        assert_eq!(lines[7], Line::Result { name: "a.three", verdict: Verdict::Skipped("no huge pages") });
        assert_eq!(counts, Counts { planned: Some(3), passed: 1, failed: 1, skipped: 1 });
        assert!(counts.is_complete());
    }

    #[test]
    fn a_report_that_breaks_off_is_incomplete() {
        let mut counts = Counts::default();
        assert!(!counts.is_complete());
        ["1..2", "ok 1 a"].map(Line::parse).iter().for_each(|line| counts.take(line));
        assert!(!counts.is_complete());
    }

    #[test]
    fn near_misses_are_other_lines() {
        for line in ["ok", "ok 1", "ok x y", "not ok", "1..x", "KTAP version 2", "okay 1 x", ""] {
            assert_eq!(Line::parse(line), Line::Other(line), "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            Line::parse(&text);
        }
    }
}
