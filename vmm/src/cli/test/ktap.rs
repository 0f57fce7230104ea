// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reading KTAP off a console, where it is mixed with what the kernel says.

/// One line of a console, as a KTAP reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// The line that begins a report.
    Version,
    /// How many results to expect.
    Plan(usize),
    /// How a test ended.
    Result {
        /// Its name.
        name: &'a str,
        /// How it ended.
        outcome: Outcome<'a>,
    },
    /// None of the tests that remain can be run, for this reason.
    BailOut(&'a str),
    /// A line that explains the next result; without its mark.
    Diagnostic(&'a str),
    /// Anything else: the kernel, programs.
    Other(&'a str),
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
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
        if let Some(reason) = line.strip_prefix("Bail out!") {
            return Some(Self::BailOut(reason.trim()));
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
        let outcome = match directive.strip_prefix("SKIP") {
            Some(reason) => Outcome::Skipped(reason.trim()),
            None if passed => Outcome::Passed,
            None => Outcome::Failed,
        };
        Some(Self::Result { name: name.trim_start_matches("- ").trim(), outcome })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_report_is_read_among_other_lines() {
        let text = "[    1.0] booting\nKTAP version 1\n1..3\nok 1 a.one\n# because\nnot ok 2 a.two\n[ 2.0] ok 9 no\n\
                    ok 3 - a.three # SKIP no huge pages\nBail out! no device\n";
        let lines: Vec<Line<'_>> = text.lines().map(Line::parse).collect();
        assert_eq!(lines[3], Line::Result { name: "a.one", outcome: Outcome::Passed });
        assert_eq!(lines[4], Line::Diagnostic("because"));
        assert_eq!(lines[6], Line::Other("[ 2.0] ok 9 no"));
        assert_eq!(lines[7], Line::Result { name: "a.three", outcome: Outcome::Skipped("no huge pages") });
        assert_eq!(lines[8], Line::BailOut("no device"));
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
