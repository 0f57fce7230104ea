// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Commands whose output goes to a log file, and the end of that file for when they fail.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Lines of the log to show when a step fails.
const TAIL_LINES: usize = 20;
/// Bytes of the log to look for those lines in.
const TAIL_BYTES: u64 = 16 << 10;

/// The log of one step.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
}

impl Log {
    /// Starts a log, over an older one.
    pub fn start(path: &Path) -> Result<Self> {
        File::create(path).with_context(|| format!("cannot write the log {}", path.display()))?;
        Ok(Self { path: path.to_owned() })
    }

    /// The log's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn append(&self) -> Result<File> {
        let file = OpenOptions::new().append(true).open(&self.path);
        file.with_context(|| format!("cannot write the log {}", self.path.display()))
    }

    /// Runs a command to its end, with its output in the log. `what` names it in errors.
    pub fn run(&self, what: &str, command: &mut Command) -> Result<()> {
        let mut log = self.append()?;
        writeln!(log, "+ {what}")?;
        let (output, errors) = (log.try_clone()?, log);
        let status = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .status()
            .with_context(|| format!("cannot start {what} ({})", command.get_program().to_string_lossy()))?;
        if !status.success() {
            bail!("{what} ended with {status}");
        }
        Ok(())
    }

    /// Runs a command to its end and returns its standard output; the rest goes to the log.
    pub fn output(&self, what: &str, command: &mut Command) -> Result<String> {
        let mut log = self.append()?;
        writeln!(log, "+ {what}")?;
        let output = command
            .stdin(Stdio::null())
            .stderr(log)
            .output()
            .with_context(|| format!("cannot start {what} ({})", command.get_program().to_string_lossy()))?;
        if !output.status.success() {
            bail!("{what} ended with {}", output.status);
        }
        String::from_utf8(output.stdout).with_context(|| format!("{what} printed something that is not text"))
    }
}

/// The last lines of a log, indented; empty if it has none.
pub fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = fs::metadata(path)?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    shown.iter().map(|line| format!("    {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_kept_and_failures_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::start(&folder.path().join("a.log")).unwrap();
        log.run("the shell", Command::new("sh").args(["-c", "echo out; echo err >&2"])).unwrap();
        let text = fs::read_to_string(log.path()).unwrap();
        assert!(text.ends_with("out\nerr\n"), "{text}");
        let error = log.run("the shell", Command::new("sh").args(["-c", "exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "the shell ended with exit status: 3");
        let error = log.run("nothing", &mut Command::new("/nonexistent/program")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/program"), "{error}");
        assert_eq!(log.output("echo", Command::new("echo").arg("x")).unwrap(), "x\n");
        assert!(log.output("false", &mut Command::new("false")).is_err());
    }

    #[test]
    fn the_tail_is_the_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let text: String = (0..5000).map(|n| format!("line {n}\n")).collect();
        fs::write(&path, text).unwrap();
        let tail = tail(&path);
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert!(tail.ends_with("    line 4999\n"), "{tail}");
        assert_eq!(super::tail(Path::new("/nonexistent")), "");
    }
}
