// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which tests failed, and what they said, out of what cargo's test programs print: the end of a long log does not have it.

use std::fmt::Write;

/// Lines shown of what a test printed.
const LINES: usize = 12;

/// The tests that failed, each with the first lines of its output; empty if none did.
pub fn of_cargo(output: &str) -> String {
    let mut text = String::new();
    let mut lines = output.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("---- ").and_then(|line| line.strip_suffix(" stdout ----")) else {
            continue;
        };
        let _ = writeln!(text, "FAILED: {name}");
        // A backtrace is of no use without the sources at hand; the list of names ends the last test's output.
        let said = lines.clone().take_while(|line| {
            !line.starts_with("---- ") && !line.starts_with("stack backtrace:") && *line != "failures:"
        });
        for line in said.filter(|line| !line.trim().is_empty()).take(LINES) {
            let _ = writeln!(text, "    {line}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_reasons_are_found() {
        let output = "running 3 tests\ntest good ... ok\ntest one ... FAILED\ntest two ... FAILED\n\nfailures:\n\n\
            ---- one stdout ----\n\nthread 'one' panicked at a.rs:1:2:\nnever came\nstack backtrace:\n   0: rust\n\n\
            ---- two stdout ----\nError: \"why\"\n\n\nfailures:\n    one\n    two\n\ntest result: FAILED. 1 passed\n";
        let wanted =
            "FAILED: one\n    thread 'one' panicked at a.rs:1:2:\n    never came\nFAILED: two\n    Error: \"why\"\n";
        assert_eq!(of_cargo(output), wanted);
        assert_eq!(of_cargo("test result: ok. 3 passed; 0 failed\n"), "");
    }

    #[test]
    fn long_output_is_cut() {
        let output = format!("---- one stdout ----\n{}", "x\n".repeat(100));
        assert_eq!(of_cargo(&output).lines().count(), LINES + 1);
    }
}
