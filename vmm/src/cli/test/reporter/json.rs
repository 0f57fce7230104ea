// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Results as JSON Lines: `{"kind": "result", …}` per test as it ends, `{"kind": "summary", …}` per memory type.

use std::io::{self, Write};

use serde::Serialize;

use super::{Reporter, Summary};
use crate::cli::guest::Mode;
use crate::cli::test::result::{TestResult, Verdict};

/// The reporter.
pub struct Json {
    out: Box<dyn Write + Send>,
    kernel: Option<String>,
}

impl Json {
    /// Returns one that writes to `out`.
    pub fn new(out: Box<dyn Write + Send>, kernel: Option<String>) -> Self {
        Self { out, kernel }
    }

    fn line(&mut self, object: &Object<'_>) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, object)?;
        writeln!(self.out)?;
        self.out.flush()
    }
}

/// One line.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Object<'a> {
    Begin {
        mode: &'a str,
        planned: usize,
        /// Of a kernel that the user built.
        #[serde(skip_serializing_if = "Option::is_none")]
        kernel: Option<&'a str>,
    },
    Result {
        name: &'a str,
        mode: &'a str,
        /// `passed`, `skipped` or `failed`.
        verdict: &'a str,
        /// Of a failure: what kind it was.
        #[serde(skip_serializing_if = "Option::is_none")]
        cause: Option<&'a str>,
        /// Of a skipped test.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        seconds: Option<f64>,
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        details: &'a [String],
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        console: &'a [String],
        #[serde(skip_serializing_if = "Option::is_none")]
        rerun: Option<&'a str>,
    },
    Summary {
        mode: &'a str,
        status: u8,
        planned: usize,
        passed: usize,
        failed: usize,
        skipped: usize,
        not_run: &'a [String],
        seconds: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        ending: Option<&'a str>,
    },
}

impl Reporter for Json {
    fn begin(&mut self, mode: Mode, planned: usize) -> io::Result<()> {
        let kernel = self.kernel.clone();
        self.line(&Object::Begin { mode: mode.name(), planned, kernel: kernel.as_deref() })
    }

    fn other(&mut self, _: &str) -> io::Result<()> {
        // Messages are part of the result of the test that they came with.
        Ok(())
    }

    fn result(&mut self, result: &TestResult) -> io::Result<()> {
        let (verdict, reason) = match &result.verdict {
            Verdict::Passed => ("passed", None),
            Verdict::Skipped(reason) => ("skipped", Some(reason.as_str())),
            Verdict::Failed(_) => ("failed", None),
        };
        self.line(&Object::Result {
            name: &result.name,
            mode: result.mode.name(),
            verdict,
            cause: result.cause().map(|cause| cause.name()),
            reason,
            seconds: result.duration.map(|duration| duration.as_secs_f64()),
            details: &result.details,
            console: &result.console,
            rerun: result.rerun.as_deref(),
        })
    }

    fn end(&mut self, summary: &Summary<'_>) -> io::Result<()> {
        self.line(&Object::Summary {
            mode: summary.mode.name(),
            status: summary.status,
            planned: summary.counts.planned,
            passed: summary.counts.passed,
            failed: summary.counts.failed,
            skipped: summary.counts.skipped,
            not_run: summary.not_run,
            seconds: summary.duration.as_secs_f64(),
            ending: summary.ending,
        })
    }

    fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::cli::test::reporter::{Format, testing};

    #[test]
    fn every_line_is_an_object() {
        let text = testing::shown(Format::Json, 1);
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 6);
        assert_eq!(lines[0], json!({"kind": "begin", "mode": "private", "planned": 5}));
        assert_eq!(
            lines[1],
            json!({"kind": "result", "name": "a.one", "mode": "private", "verdict": "passed", "seconds": 0.012})
        );
        assert_eq!(lines[2]["reason"], "no <huge> pages");
        assert_eq!(lines[4]["cause"], "guest-panicked");
        assert_eq!(lines[5]["not_run"], json!(["b.five"]));
        assert_eq!(lines[5]["status"], 121);
    }
}
