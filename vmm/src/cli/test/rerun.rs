// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command line that runs one test again as it was run: the user's own options, apart from those that select or report.

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use crate::cli::guest::Mode;

/// Options that belong to the whole run, not to one test: which tests, how often, in which order, how results are reported, where
/// files are written. Mode, whole name and seed are given anew.
const OF_THE_RUN: &[&str] = &[
    "filters",
    "exact",
    "exclude",
    "shard",
    "repeat",
    "shuffle",
    "fail_fast",
    "seed",
    "list",
    "isolated",
    "jobs",
    "format",
    "output",
    "mode",
    "trace",
    "control",
];

/// The part of the command line that is the same for all tests.
#[derive(Clone, Debug, Default)]
pub struct Rerun {
    options: String,
}

impl Rerun {
    /// Keeps what the user gave of the options of `command`.
    pub fn of(command: &Command, matches: &ArgMatches) -> Self {
        let mut options = String::new();
        for argument in command.get_arguments() {
            let id = argument.get_id().as_str();
            let is_given = matches.try_contains_id(id).is_ok()
                && matches.value_source(id) == Some(ValueSource::CommandLine)
                && !OF_THE_RUN.contains(&id);
            let Some(long) = argument.get_long().filter(|_| is_given) else { continue };
            if !argument.get_action().takes_values() {
                options.push_str(&format!(" --{long}"));
                continue;
            }
            let values = matches.get_raw(id).into_iter().flatten().map(|value| quoted(&value.to_string_lossy()));
            match argument.get_value_delimiter() {
                Some(delimiter) => {
                    let values: Vec<String> = values.collect();
                    options.push_str(&format!(" --{long} {}", values.join(&delimiter.to_string())));
                }
                None => values.for_each(|value| options.push_str(&format!(" --{long} {value}"))),
            }
        }
        Self { options }
    }

    /// Returns the command line for one test.
    pub fn line(&self, name: &str, mode: Mode, seed: Option<&str>) -> String {
        let seed = seed.map(|seed| format!(" --seed {seed}")).unwrap_or_default();
        format!("ersatz test{} --mode {}{seed} --exact {}", self.options, mode.name(), quoted(name))
    }
}

/// Returns a word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use clap::Args;

    use super::*;
    use crate::cli::test::TestOptions;

    #[test]
    fn the_machine_is_the_same_and_the_test_is_one() {
        let command = TestOptions::augment_args(Command::new("test"));
        let words =
            "test fork --fail-fast --accel tcg --mode private,coherent --repeat 3 --devices 2 --cold --kernel-args";
        let words = words.split(' ').chain(["a 'b'"]);
        let matches = command.clone().try_get_matches_from(words).unwrap();
        let line = Rerun::of(&command, &matches).line("fork.exec", Mode::Coherent, Some("0x1"));
        assert!(
            line.starts_with("ersatz test ") && line.ends_with(" --mode coherent --seed 0x1 --exact fork.exec"),
            "{line}"
        );
        for part in [" --accel tcg", " --devices 2", " --cold", " --kernel-args 'a '\\''b'\\'''"] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert!(!line.contains("repeat") && !line.contains("fail-fast"), "{line}");
    }
}
