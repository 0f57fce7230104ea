// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Checks of the workspace on this machine: format, clippy, the links of the documentation, the tests that need no guest.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::{Tally, failures};
use crate::cargo;
use crate::log::{Log, tail};
use crate::progress::Progress;

/// What cargo is asked, and how its answer is counted.
struct Check {
    title: &'static str,
    name: &'static str,
    arguments: &'static [&'static str],
    counts: fn(&str) -> Tally,
}

const CHECKS: &[Check] = &[
    Check { title: "format", name: "format", arguments: &["fmt", "--all", "--check"], counts: |_| Tally::default() },
    Check {
        title: "clippy",
        name: "clippy",
        arguments: &["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"],
        counts: |_| Tally::default(),
    },
    Check {
        title: "documentation",
        name: "documentation",
        arguments: &["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"],
        counts: |_| Tally::default(),
    },
    Check {
        title: "tests on this machine",
        name: "host-tests",
        arguments: &["test", "--locked", "--workspace", "--no-fail-fast"],
        counts: Tally::of_cargo,
    },
];

/// Runs all checks, whatever the earlier ones found. Logs go to the folder given.
pub fn check(clone: &Path, progress: &Progress, logs: impl Fn(&str) -> std::path::PathBuf) -> Result<Tally> {
    let mut sum = Tally::default();
    for Check { title, name, arguments, counts } in CHECKS {
        let stage = progress.stage(title);
        let log = Log::start(&logs(name))?;
        let end = log.run("cargo", cargo::command(clone).args(*arguments));
        let output = fs::read_to_string(log.path()).unwrap_or_default();
        let counted = counts(&output);
        // A check without tests is one test.
        let tally = if counted == Tally::default() { Tally::check(end.is_ok()) } else { counted.with_end(end.is_ok()) };
        stage.say(&tally.to_string());
        if let Err(error) = end {
            failures::of_cargo(&output).lines().for_each(|line| stage.say(line));
            stage.say(&format!(
                "FAILED: {error:#}; the end of its log, {}:\n{}",
                log.path().display(),
                tail(log.path())
            ));
        }
        sum += tally;
    }
    Ok(sum)
}
