// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Results as JUnit XML: one `testsuite` per memory type, one `testcase` per test with its topic as class.
//!
//! There is no one schema. What is written is valid in those of Apache Ant and of the Jenkins xUnit plugin: the order of elements and the
//! attributes are what both accept. A check that failed is a `failure`; a test that something else ended (its time limit, a
//! signal, the kernel, the end of the guest) is an `error`, and `type` says which. A test that was planned and not run is `skipped`.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Reporter, Summary};
use crate::cli::guest::Mode;
use crate::cli::test::result::{TestResult, Verdict};

/// The reporter.
pub struct Junit {
    out: Box<dyn Write + Send>,
    started: SystemTime,
    cases: String,
    suites: Vec<String>,
    errors: usize,
    kernel: Option<String>,
}

impl Junit {
    /// Returns one that writes to `out`; `kernel` becomes a property of each suite.
    pub fn new(out: Box<dyn Write + Send>, kernel: Option<String>) -> Self {
        Self { out, started: UNIX_EPOCH, cases: String::new(), suites: Vec::new(), errors: 0, kernel }
    }

    fn properties(&self) -> String {
        self.kernel.as_ref().map_or_else(
            || "<properties/>".to_owned(),
            |kernel| {
                let value = escaped(kernel);
                format!("<properties><property name=\"kernel\" value=\"{value}\"/></properties>")
            },
        )
    }

    /// Adds a `testcase` with `content`, which is XML.
    fn case(&mut self, mode: Mode, (topic, name): (&str, &str), duration: Duration, content: &str) {
        let (mode, topic, name, seconds) = (mode.name(), escaped(topic), escaped(name), seconds(duration));
        let _ = write!(self.cases, "    <testcase name=\"{name}\" classname=\"{mode}.{topic}\" time=\"{seconds}\"");
        self.cases.push_str(&if content.is_empty() {
            "/>\n".to_owned()
        } else {
            format!(">\n      {content}\n    </testcase>\n")
        });
    }
}

impl Reporter for Junit {
    fn begin(&mut self, _: Mode, _: usize) -> io::Result<()> {
        self.started = SystemTime::now();
        self.cases.clear();
        self.errors = 0;
        Ok(())
    }

    fn other(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn result(&mut self, result: &TestResult) -> io::Result<()> {
        let content = match &result.verdict {
            Verdict::Passed => String::new(),
            Verdict::Skipped(reason) => skipped(reason),
            Verdict::Failed(cause) => {
                let element = if cause.is_finding() { "failure" } else { "error" };
                self.errors += usize::from(!cause.is_finding());
                let mut lines = result.details.clone();
                if !result.console.is_empty() {
                    lines.push("messages on the console meanwhile:".to_owned());
                    lines.extend(result.console.iter().cloned());
                }
                lines.extend(result.rerun.as_ref().map(|rerun| format!("run it again: {rerun}")));
                let (text, kind) = (escaped(&lines.join("\n")), cause.name());
                let message = escaped(result.details.first().map_or(cause.text(), String::as_str));
                format!("<{element} message=\"{message}\" type=\"{kind}\">{text}</{element}>")
            }
        };
        self.case(result.mode, result.parts(), result.duration.unwrap_or_default(), &content);
        Ok(())
    }

    fn end(&mut self, summary: &Summary<'_>) -> io::Result<()> {
        let counts = summary.counts;
        let mut tests = counts.results() + summary.not_run.len();
        let mut errors = self.errors;
        for name in summary.not_run {
            let parts = name.split_once('.').unwrap_or(("tests", name));
            let reason = summary.ending.unwrap_or("the run ended before");
            self.case(summary.mode, parts, Duration::ZERO, &skipped(&format!("not run: {reason}")));
        }
        // Otherwise a bad end that no test stands for would look like success.
        if let Some(ending) = summary.ending.filter(|_| counts.failed == 0) {
            let text = escaped(ending);
            let error = format!("<error message=\"{text}\" type=\"guest-ended\">{text}</error>");
            self.case(summary.mode, ("guest", "end"), Duration::ZERO, &error);
            tests += 1;
            errors += 1;
        }
        let (id, name) = (self.suites.len(), summary.mode.name());
        let failures = counts.failed - self.errors;
        let skipped = counts.skipped + summary.not_run.len();
        self.suites.push(format!(
            "  <testsuite id=\"{id}\" package=\"ersatz\" name=\"{name}\" timestamp=\"{}\" hostname=\"guest\" tests=\"{tests}\" \
             failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\" time=\"{}\">\n    {}\n{}    \
             <system-out/>\n    <system-err/>\n  </testsuite>\n",
            timestamp(self.started),
            seconds(summary.duration),
            self.properties(),
            self.cases
        ));
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        write!(
            self.out,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n{}</testsuites>\n",
            self.suites.concat()
        )?;
        self.out.flush()
    }
}

fn skipped(reason: &str) -> String {
    format!("<skipped message=\"{}\"/>", escaped(reason))
}

fn seconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64())
}

/// Returns a text for XML: markup as references, line ends as they are, what XML 1.0 cannot have as the replacement character.
fn escaped(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => result.push_str("&amp;"),
            '<' => result.push_str("&lt;"),
            '>' => result.push_str("&gt;"),
            '"' => result.push_str("&quot;"),
            '\n' | '\t' => result.push(character),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => result.push('\u{fffd}'),
            other => result.push(other),
        }
    }
    result
}

/// Returns a time in UTC as `2026-11-27T01:02:03`, without a zone: Ant's schema has no place for one.
fn timestamp(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (mut days, of_day) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    let leap = |year: u64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::test::reporter::{Format, testing};

    #[test]
    fn a_suite_has_what_the_schemas_ask_for() {
        let text = testing::shown(Format::Junit, 1);
        for part in [
            "<testsuites>\n  <testsuite id=\"0\" package=\"ersatz\" name=\"private\" timestamp=\"",
            "tests=\"5\" failures=\"1\" errors=\"1\" skipped=\"2\" time=\"2.500\">\n    <properties/>\n",
            "<testcase name=\"one\" classname=\"private.a\" time=\"0.012\"/>",
            "<skipped message=\"no &lt;huge&gt; pages\"/>",
            "<failure message=\"b.three: left &amp; right\u{fffd} differ\" type=\"failed\">",
            "run it again: ersatz test --mode private --exact b.three</failure>",
            "<error message=\"Kernel panic - not syncing: why\" type=\"guest-panicked\">",
            "<testcase name=\"five\" classname=\"private.b\" time=\"0.000\">\n      <skipped message=\"not run: the guest",
            "    <system-out/>\n    <system-err/>\n  </testsuite>\n</testsuites>\n",
        ] {
            assert!(text.contains(part), "{part}\nis not in\n{text}");
        }
    }

    #[test]
    fn every_element_is_closed() {
        let text = testing::shown(Format::Junit, 1);
        let mut open = Vec::new();
        for tag in text.split('<').skip(1).map(|rest| rest.split_once('>').expect("a tag has an end").0) {
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !tag.starts_with('?') && !tag.ends_with('/') {
                open.push(tag.split(' ').next().unwrap());
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn times_are_dates() {
        let at = |seconds| timestamp(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00");
        assert_eq!(at(1_735_689_599), "2024-12-31T23:59:59");
    }
}
