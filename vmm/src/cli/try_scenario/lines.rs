// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The lines of a guest's console, put together from pieces.
//!
//! A program's output waits in the serial port's buffer while the kernel, when it has something to say, writes to the port at once:
//! whole lines of the kernel may stand in the middle of a program's line. [`Lines`] puts the halves of such a line together again, for
//! lines that begin as a report does.

use ersatz_scenario::report::PREFIX;

use crate::console::log::{clean, kernel_text};

/// Longest line in bytes; the rest of a longer one is dropped.
const LINE_BYTES: usize = 256 << 10;

/// One line of a console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A line of a report, without [`PREFIX`].
    Report(String),
    /// Any other line.
    Other(String),
}

/// Puts lines together.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
    /// The first half of a report's line that the kernel's messages interrupt.
    broken: String,
}

impl Lines {
    /// Takes the next output of the console, and passes on the lines that are complete.
    pub fn push(&mut self, bytes: &[u8], pass_on: &mut dyn FnMut(Line)) {
        for &byte in bytes {
            if byte == b'\n' {
                let line = clean(&std::mem::take(&mut self.partial));
                self.end_line(line, pass_on);
            } else if self.partial.len() < LINE_BYTES {
                self.partial.push(byte);
            }
        }
    }

    fn end_line(&mut self, line: String, pass_on: &mut dyn FnMut(Line)) {
        if !kernel_text(&line).is_empty() {
            return pass_on(Line::Other(line));
        }
        let whole = std::mem::take(&mut self.broken) + &line;
        if !begins_as_a_report(&whole) {
            return pass_on(Line::Other(whole));
        }
        match interruption(&whole) {
            // A message that is quoted in a report is not an interruption: the line is whole.
            Some(at) if !whole.ends_with('}') || whole.len() < PREFIX.len() => {
                let (head, message) = whole.split_at(at);
                self.broken = head.to_owned();
                pass_on(Line::Other(message.to_owned()));
            }
            _ => match whole.strip_prefix(PREFIX) {
                Some(report) => pass_on(Line::Report(report.to_owned())),
                None => pass_on(Line::Other(whole)),
            },
        }
    }
}

/// Whether a line is the beginning of a report's line, or of one that breaks off in its first word.
fn begins_as_a_report(line: &str) -> bool {
    let cut = interruption(line).unwrap_or(line.len()).min(PREFIX.len());
    line.starts_with(PREFIX) || (cut > 0 && line.get(..cut).is_some_and(|head| PREFIX.starts_with(head)))
}

/// Where the last message of the kernel begins in a line that does not begin with it.
fn interruption(line: &str) -> Option<usize> {
    let mut places = line.rmatch_indices('[').map(|(at, _)| at).filter(|at| *at > 0);
    places.find(|at| is_stamped(&line[*at..]))
}

/// Whether a text begins with a time as the kernel writes it: `[   12.345678] `.
fn is_stamped(text: &str) -> bool {
    let Some((inside, _)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) else { return false };
    inside.trim_start().split_once('.').is_some_and(|(seconds, fraction)| {
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        digits(seconds) && fraction.len() == 6 && digits(fraction)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(text: &str) -> Vec<Line> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        text.as_bytes().chunks(7).for_each(|piece| lines.push(piece, &mut |line| found.push(line)));
        found
    }

    fn report(text: &str) -> Line {
        Line::Report(text.to_owned())
    }

    fn other(text: &str) -> Line {
        Line::Other(text.to_owned())
    }

    #[test]
    fn a_report_is_found_among_other_lines() {
        let text = "[    1.000000] hello\r\nersatz-scenario: {\"a\":1}\r\nx ersatz-scenario: {}\r\n";
        assert_eq!(lines(text), [other("[    1.000000] hello"), report("{\"a\":1}"), other("x ersatz-scenario: {}")]);
    }

    #[test]
    fn a_line_that_the_kernel_interrupts_is_put_together() {
        for cut in 1.."ersatz-scenario: {\"a\":1}".len() {
            let (head, rest) = "ersatz-scenario: {\"a\":1}".split_at(cut);
            let text = format!("{head}[   12.345678] WARNING: x\r\n[   12.345679] more\r\n{rest}\r\n");
            assert_eq!(
                lines(&text),
                [other("[   12.345678] WARNING: x"), other("[   12.345679] more"), report("{\"a\":1}")],
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_message_that_a_report_quotes_is_left_where_it_is() {
        let text = "ersatz-scenario: {\"text\":\"[   12.345678] WARNING: x\"}\n";
        assert_eq!(lines(text), [report("{\"text\":\"[   12.345678] WARNING: x\"}")]);
    }

    #[test]
    fn lines_of_programs_are_left_alone() {
        assert_eq!(lines("eat [   12.345678] x\nnext\n"), [other("eat [   12.345678] x"), other("next")]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(pieces: Vec<Vec<u8>>) {
            let mut lines = Lines::default();
            pieces.iter().for_each(|piece| lines.push(piece, &mut |_| {}));
            lines.push(b"ersatz-scenario: [   12.345678]\n\n", &mut |_| {});
        }
    }
}
