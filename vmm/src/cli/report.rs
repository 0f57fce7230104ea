// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Messages about a run on standard error: what was chosen, and how the run ended unless it succeeded.

use std::io::{self, Write};

use ersatz_guest_image::manifest::Manifest;

use crate::console::log::ConsoleLog;
use crate::outcome::Outcome;

/// Lines of the console to show with a bad end.
const LAST_LINES: usize = 30;

/// Whether the user has seen the guest's console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// It went to standard output.
    Already,
    /// Not all of it, so the end must be shown.
    Not,
}

/// Prints a message.
pub fn say(text: &str) {
    // The run goes on without standard error.
    let _ = writeln!(io::stderr(), "ersatz: {text}");
}

/// Returns which kernel a guest has if the user built it, so that the release alone does not say which build it is.
pub fn kernel(manifest: Option<&Manifest>) -> Option<String> {
    let manifest = manifest?;
    let tree = manifest.tree.as_ref()?;
    Some(format!("{}, {}", manifest.release, tree.describe()))
}

/// Prints that.
pub fn say_kernel(manifest: Option<&Manifest>) {
    if let Some(text) = kernel(manifest) {
        say(&format!("kernel {text}"));
    }
}

/// Prints how a run ended, unless its exit status is the guest command's.
pub fn ending(outcome: &Outcome, log: &ConsoleLog, shown: Shown) {
    let Some(text) = text(outcome, log) else { return };
    if shown == Shown::Not {
        last_lines(log);
    }
    say(&text);
}

/// Prints the last lines of the console.
pub fn last_lines(log: &ConsoleLog) {
    for line in log.last(LAST_LINES) {
        let _ = writeln!(io::stderr(), "  {line}");
    }
}

/// Returns how a run ended, in words, unless its exit status is the guest command's.
pub fn text(outcome: &Outcome, log: &ConsoleLog) -> Option<String> {
    Some(match outcome {
        Outcome::Exited(_) => return None,
        Outcome::Stopped => "the guest ended without reporting how its command ended".to_owned(),
        Outcome::Panicked => match log.panic() {
            Some(line) => format!("the guest kernel panicked: {line}"),
            None => "the guest kernel panicked".to_owned(),
        },
        Outcome::Splat(line) => format!("the command succeeded, but the guest kernel complained: {line}"),
        Outcome::TimedOut(lines) => with_places("the time limit was reached", lines),
        Outcome::Silent(lines) => with_places("the guest has not said anything for long", lines),
        Outcome::Interrupted => "interrupted".to_owned(),
    })
}

fn with_places(what: &str, lines: &[String]) -> String {
    let heading = format!("{what}; the guest was here:");
    std::iter::once(&heading).chain(lines).map(String::as_str).collect::<Vec<_>>().join("\n  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_end_needs_no_words() {
        assert_eq!(text(&Outcome::Exited(0), &ConsoleLog::new()), None);
        assert_eq!(text(&Outcome::Exited(1), &ConsoleLog::new()), None);
    }

    #[test]
    fn a_bad_end_says_what_and_where() {
        let log = ConsoleLog::new();
        log.push(b"[ 1.0] Kernel panic - not syncing: why\n");
        assert!(text(&Outcome::Panicked, &log).unwrap().ends_with("not syncing: why"));
        let lines = vec!["vCPU 0: rip 0x1".to_owned()];
        assert!(text(&Outcome::TimedOut(lines), &log).unwrap().contains("\n  vCPU 0: rip 0x1"));
    }
}
