// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest-side tests, with both memory types and under every accelerator that runs on any machine; and the protocol
//! oracle over what the device saw of them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow};

use super::Tally;
use crate::log::tail;
use crate::progress::Progress;
use crate::store::Store;

/// Accelerators that need nothing of the machine.
const ACCELERATORS: &[&str] = &["nested", "tcg"];
/// The accelerator whose logs the protocol oracle looks at: of the two, the one that writes them straight to a file.
const TRACED: &str = "tcg";
/// VRAM of the guests: enough for every test, and soon filled by those that fill it, even where a processor is emulated twice.
const VRAM: &str = "16M";
/// Memory types.
const MODES: &[&str] = &["private", "coherent"];

/// Runs the suite in every combination. `ersatz` is the program to run it with.
///
/// The accelerators go side by side: each guest sits on few cores, and waits much.
pub fn check(ersatz: &Path, series: &str, store: &Store, progress: &Progress) -> Result<Tally> {
    let with = |accelerator: &str| -> Result<Tally> {
        let mut sum = Tally::default();
        for mode in MODES {
            sum += suite(ersatz, (series, accelerator, mode), store, progress)?;
        }
        Ok(sum)
    };
    thread::scope(|scope| {
        let running: Vec<_> = ACCELERATORS.iter().map(|accelerator| scope.spawn(|| with(accelerator))).collect();
        let mut sum = Tally::default();
        for suites in running {
            sum += suites.join().map_err(|_| anyhow!("the thread that runs a guest panicked"))??;
        }
        Ok(sum)
    })
}

/// One boot: the report is shown as it comes, by name of the test, and kept.
fn suite(
    ersatz: &Path,
    (series, accelerator, mode): (&str, &str, &str),
    store: &Store,
    progress: &Progress,
) -> Result<Tally> {
    let stage = progress.stage(&format!("guest tests, {mode}, {accelerator}"));
    let report = store.log(&format!("guest-{accelerator}-{mode}"));
    let messages = store.log(&format!("guest-{accelerator}-{mode}.messages"));
    let mut kept = File::create(&report).with_context(|| format!("cannot write {}", report.display()))?;
    let trace = (accelerator == TRACED).then(|| report.with_extension("trace"));
    let mut child = Command::new(ersatz)
        .args(["test", "--format", "ktap", "--kernel", series, "--accel", accelerator, "--mode", mode])
        .args(["--vram", VRAM])
        .args(trace.iter().flat_map(|trace| [OsStr::new("--trace"), trace.as_os_str()]))
        .env("ERSATZ_GUEST", store.root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(&messages)?)
        .spawn()
        .with_context(|| format!("cannot start {}", ersatz.display()))?;
    let output = child.stdout.take().context("the child has no standard output")?;
    let mut explanation = Vec::new();
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        writeln!(kept, "{line}")?;
        if line.starts_with('#') {
            explanation.push(line);
            continue;
        }
        if line.starts_with("not ok ") {
            explanation.drain(..).for_each(|line| stage.say(&line));
            stage.say(&line);
        } else if line.starts_with("ok ") {
            explanation.clear();
            stage.glance(&line);
        }
    }
    let status = child.wait()?;
    let tally = Tally::of_ktap(&fs::read_to_string(&report)?).with_end(status.success());
    stage.say(&tally.to_string());
    if !tally.is_good() {
        let (messages_tail, report) = (tail(&messages), report.display());
        stage.say(&format!(
            "FAILED: ersatz ended with {status}; its report is in {report}, its messages:\n{messages_tail}"
        ));
    }
    let mut sum = tally.with_end(tally.is_good());
    if let Some(trace) = trace {
        let oracle = Command::new(ersatz).args(["trace", "check"]).arg(&trace).output()?;
        for text in [&oracle.stdout, &oracle.stderr] {
            String::from_utf8_lossy(text).lines().for_each(|line| stage.say(line));
        }
        sum += Tally::check(oracle.status.success());
    }
    Ok(sum)
}
