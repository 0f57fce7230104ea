// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The line at the bottom of a terminal that says which test is under way, for how long, and how many are left.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::reporter::in_words;

/// Erases the line that the cursor is in.
const ERASE: &str = "\r\x1b[2K";
/// Columns used: a longer line would wrap, and not be erased.
const COLUMNS: usize = 79;

/// The line. Without a terminal it is never shown.
#[derive(Debug)]
pub struct StatusLine {
    is_terminal: bool,
    is_drawn: bool,
    planned: usize,
    done: usize,
    begun: Instant,
    running: Vec<(String, Instant)>,
}

impl StatusLine {
    /// Returns one for so many tests. It is shown if results for people go to the terminal.
    pub fn new(for_people: bool) -> Self {
        Self {
            is_terminal: for_people && io::stdout().is_terminal() && io::stderr().is_terminal(),
            is_drawn: false,
            planned: 0,
            done: 0,
            begun: Instant::now(),
            running: Vec::new(),
        }
    }

    /// Whether the line is shown at all.
    pub fn is_shown(&self) -> bool {
        self.is_terminal
    }

    /// So many tests begin.
    pub fn begin(&mut self, planned: usize) {
        (self.planned, self.done, self.begun) = (planned, 0, Instant::now());
        self.running.clear();
    }

    /// A test begins.
    pub fn started(&mut self, name: &str) {
        self.running.push((name.to_owned(), Instant::now()));
    }

    /// A test has ended.
    pub fn ended(&mut self, name: &str) {
        self.done += 1;
        self.running.retain(|(running, _)| running != name);
    }

    /// Removes the line, so that others can be printed.
    pub fn erase(&mut self) {
        if self.is_drawn {
            // Without a terminal the tests go on.
            let _ = write!(io::stderr(), "{ERASE}");
            self.is_drawn = false;
        }
    }

    /// Draws the line anew.
    pub fn draw(&mut self) {
        if self.is_terminal && self.planned > 0 {
            let text = self.text(Instant::now());
            let _ = write!(io::stderr(), "{ERASE}{text}");
            self.is_drawn = true;
        }
    }

    fn text(&self, now: Instant) -> String {
        let running: Vec<String> = self
            .running
            .iter()
            .map(|(name, since)| format!("{name} {} s", now.duration_since(*since).as_secs()))
            .collect();
        let what = if running.is_empty() { "waiting for the guest".to_owned() } else { running.join(", ") };
        let left = self.planned.saturating_sub(self.done);
        let mut text = format!("[{}/{}] {left} left{} | {what}", self.done, self.planned, self.remaining(now));
        if let Some((end, _)) = text.char_indices().nth(COLUMNS) {
            text.truncate(end);
        }
        text
    }

    /// What the tests so far say about the rest, which is a guess: the rest may be slower.
    fn remaining(&self, now: Instant) -> String {
        let left = self.planned.saturating_sub(self.done);
        match u32::try_from(self.done) {
            Ok(done @ 3..) if left > 0 => {
                let each = now.duration_since(self.begun) / done;
                let rest = each.saturating_mul(u32::try_from(left).unwrap_or(u32::MAX));
                format!(", about {}", in_words(Duration::from_secs(rest.as_secs().max(1))))
            }
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_is_under_way_and_what_is_left() {
        let mut line = StatusLine::new(true);
        line.begin(10);
        assert_eq!(line.text(line.begun), "[0/10] 10 left | waiting for the guest");
        for name in ["a.b", "a.c", "a.d", "a.e"] {
            line.started(name);
            line.ended(name);
        }
        line.started("fork.exec");
        let text = line.text(line.begun + Duration::from_secs(8));
        assert!(text.starts_with("[4/10] 6 left, about 12.0 s | fork.exec "), "{text}");
        line.started(&"x".repeat(200));
        assert_eq!(line.text(Instant::now()).chars().count(), COLUMNS);
    }
}
