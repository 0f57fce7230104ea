// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What has arrived of the files of a guest, and what has not.

use crate::console::log::clean;

/// Most lines that are kept; the others are counted.
const MAX_LINES: usize = 20;
/// Most bytes of a line.
const LINE_BYTES: usize = 1000;

/// The result of collecting files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    lines: Vec<String>,
    more: usize,
    has_failed: bool,
}

impl Report {
    /// Something has not arrived.
    pub(super) fn fail(&mut self, line: &str) {
        self.has_failed = true;
        self.note(line);
    }

    /// Something was left out as documented.
    pub(super) fn note(&mut self, line: &str) {
        // The guest's words may be in it.
        let mut line = clean(line.as_bytes());
        if line.len() > LINE_BYTES {
            let end = (0..=LINE_BYTES).rev().find(|&at| line.is_char_boundary(at)).unwrap_or(0);
            line.truncate(end);
            line.push_str(" ...");
        }
        if self.lines.len() < MAX_LINES { self.lines.push(line) } else { self.more += 1 }
    }

    /// Whether something has not arrived.
    pub fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Returns what to tell the user, a line each.
    pub fn lines(&self) -> Vec<String> {
        let more = (self.more > 0).then(|| format!("... and {} more of what was not collected", self.more));
        self.lines.iter().cloned().chain(more).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_guest_are_bounded_and_have_no_control_characters() {
        let mut report = Report::default();
        report.note("\x1b[2Jx\ny");
        assert!(!report.has_failed());
        for _ in 0..1000 {
            report.fail(&"\u{e9}".repeat(5000));
        }
        assert!(report.has_failed());
        let lines = report.lines();
        assert_eq!((lines[0].as_str(), lines.len()), ("xy", MAX_LINES + 1));
        assert!(lines.iter().all(|line| line.len() < LINE_BYTES + 10));
        assert!(lines[MAX_LINES].contains("981"), "{:?}", lines[MAX_LINES]);
    }
}
