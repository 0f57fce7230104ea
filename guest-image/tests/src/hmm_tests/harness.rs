// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the kernel's test harness (`tools/testing/selftests/kselftest_harness.h`) prints about one test.

use ersatz_guest_image::test_mark::End;

use crate::ktap::{Failure, Verdict};

/// The beginnings of lines that are about the course of the run and not about the test.
const COURSE: &[&str] = &[
    "TAP version ",
    "1..",
    "# Starting ",
    "# [INFO] ",
    "#      SKIP ",
    "#  RUN ",
    "#            OK ",
    "#          FAIL ",
    "# PASSED: ",
    "# FAILED: ",
    "# Totals: ",
];

/// The end of a line that advises on tests that were skipped.
const ADVICE: &str = "Consider enabling relevant config options to improve coverage.";

/// The most lines that are shown of what a test says first, and of what it says last: some say the same of each word of their memory.
const SHOWN: usize = 20;

/// Part of the line about a test that the harness ended, because it was not done at the limit that is compiled in.
const TIMED_OUT: &str = "Test terminated by timeout";
/// Part of the line about a test that a signal ended.
const KILLED: &str = "Test terminated unexpectedly by signal";

/// Reads the output of the program, which ran one test. `ended` is how the program ended. What is left to show is returned beside the
/// verdict.
pub fn read(name: &str, ended: Verdict, output: String) -> (Verdict, String) {
    let result = output.lines().find_map(|line| result(line, name));
    let words = || {
        let lines = output.lines().filter(|line| !is_of_course(line, name));
        shown(&lines.map(|line| line.strip_prefix("# ").unwrap_or(line)).collect::<Vec<_>>())
    };
    match (result, ended) {
        (_, ended @ Verdict::Fail(Failure { end: End::TimedOut, .. })) | (None, ended @ Verdict::Fail(_)) => {
            (ended, words())
        }
        (None, _) => {
            let reason = format!("the program ended without a result of {name}");
            (Verdict::Fail(Failure::of_check(reason)), words())
        }
        (Some(Verdict::Fail(_)), _) => (Verdict::Fail(failure(words())), String::new()),
        (Some(verdict), _) => (verdict, words()),
    }
}

fn shown(lines: &[&str]) -> String {
    let Some(dropped) = lines.len().checked_sub(2 * SHOWN + 1) else { return lines.join("\n") };
    let dropped = format!("({} lines are left out)", dropped + 1);
    [&lines[..SHOWN], &[dropped.as_str()], &lines[lines.len() - SHOWN..]].concat().join("\n")
}

fn failure(words: String) -> Failure {
    let end = if words.contains(TIMED_OUT) {
        End::TimedOut
    } else if words.contains(KILLED) {
        End::Killed
    } else {
        End::Failed
    };
    let reason = if words.is_empty() { "the harness gives no reason".to_owned() } else { words };
    Failure { end, reason }
}

/// Returns what a line says of the test, if it is its result. A failure that is expected counts as a pass, as it does for the harness.
fn result(line: &str, name: &str) -> Option<Verdict> {
    let (passed, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok ")?),
    };
    let (_, description) = rest.split_once(' ')?;
    let (of, directive) = description.split_once(" # ").unwrap_or((description, ""));
    if of.trim() != name {
        return None;
    }
    Some(match directive.strip_prefix("SKIP") {
        Some(reason) => Verdict::Skip(reason.trim().to_owned()),
        None if passed => Verdict::Pass,
        None => Verdict::Fail(Failure::of_check("")),
    })
}

fn is_of_course(line: &str, name: &str) -> bool {
    line.trim().is_empty()
        || line.ends_with(ADVICE)
        || COURSE.iter().any(|start| line.starts_with(start))
        || result(line, name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "hmm.hmm_device_private.anon_read";

    fn output(lines: &str, result: &str) -> String {
        format!(
            "TAP version 13\n1..1\n# Starting 1 tests from 1 test cases.\n#  RUN           {NAME} ...\n{lines}\
             #            OK  {NAME}\n{result}\n# PASSED: 1 / 1 tests passed.\n# Totals: pass:1 fail:0 xfail:0 xpass:0 skip:0 error:0\n"
        )
    }

    #[test]
    fn a_pass_has_nothing_to_show() {
        let passed = read(NAME, Verdict::Pass, output("", &format!("ok 1 {NAME}")));
        assert_eq!(passed, (Verdict::Pass, String::new()));
    }

    #[test]
    fn a_failure_has_the_words_of_the_harness() {
        let words =
            "# hmm-tests.c:352:anon_read:Expected ret (-14) == 0 (0)\n# anon_read: Test terminated by assertion\n";
        let ended = Verdict::Fail(Failure::of_check("ended with status 1"));
        let (verdict, rest) = read(NAME, ended, output(words, &format!("not ok 1 {NAME}")));
        let Verdict::Fail(failure) = verdict else { panic!("{verdict:?}") };
        assert_eq!(failure.end, End::Failed);
        assert_eq!(
            failure.reason,
            "hmm-tests.c:352:anon_read:Expected ret (-14) == 0 (0)\nanon_read: Test terminated by assertion"
        );
        assert_eq!(rest, "");
    }

    #[test]
    fn ends_by_limits_and_signals_are_told_apart() {
        let end = |words: &str| {
            let output = output(&format!("# anon_read: {words}\n"), &format!("not ok 1 {NAME}"));
            match read(NAME, Verdict::Pass, output).0 {
                Verdict::Fail(failure) => failure.end,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(end("Test terminated by timeout"), End::TimedOut);
        assert_eq!(end("Test terminated unexpectedly by signal 7"), End::Killed);
    }

    #[test]
    fn a_test_that_says_much_is_cut_short() {
        let lines: Vec<String> = (0..45).map(|number| number.to_string()).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!(shown(&lines[..40]).lines().count(), 40);
        let cut = shown(&lines);
        assert_eq!(cut.lines().count(), 41);
        assert!(cut.contains("\n19\n(5 lines are left out)\n25\n"), "{cut}");
    }

    #[test]
    fn a_skip_has_its_reason_and_a_broken_run_is_a_failure() {
        let skipped = read(NAME, Verdict::Pass, output("", &format!("ok 1 {NAME} # SKIP Not enough huge pages")));
        assert_eq!(skipped.0, Verdict::Skip("Not enough huge pages".to_owned()));
        let (verdict, rest) = read(NAME, Verdict::Pass, format!("#  RUN           {NAME} ...\nlast words\n"));
        assert!(matches!(verdict, Verdict::Fail(failure) if failure.reason.contains(NAME)));
        assert_eq!(rest, "last words");
    }
}
