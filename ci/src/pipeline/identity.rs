// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether guests that are restored from one snapshot are guests of their own: two at once, looked at from within.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};

use super::Tally;
use crate::progress::Progress;
use crate::store::Store;

/// Prints what no two guests share, a line each, and then the time.
const SCRIPT: &str = "cat /proc/sys/kernel/random/boot_id /etc/machine-id; \
                      cat /proc/sys/kernel/random/uuid; head -c 16 /dev/urandom | od -An -tx1 | tr -d ' '; date +%s";
/// Number of lines that no two guests share.
const IDENTITIES: usize = 4;
/// How far a guest's clock may be from the host's: printing it takes a guest some time.
const TOLERANCE: Duration = Duration::from_secs(60);

/// Looks at two guests of an accelerator.
pub fn check(ersatz: &Path, series: &str, accelerator: &str, store: &Store, progress: &Progress) -> Tally {
    let stage = progress.stage(&format!("identity of restored guests, {accelerator}"));
    let result = compare(ersatz, series, accelerator, store);
    if let Err(error) = &result {
        stage.say(&format!("FAILED: {error:#}"));
    }
    stage.done();
    Tally::check(result.is_ok())
}

fn compare(ersatz: &Path, series: &str, accelerator: &str, store: &Store) -> Result<()> {
    let start = || {
        Command::new(ersatz)
            .args(["run", "--kernel", series, "--accel", accelerator, "--vram", "16M", "--timeout", "300"])
            .args(["--", "sh", "-c", SCRIPT])
            .env("ERSATZ_GUEST", store.root())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", ersatz.display()))
    };
    let guests = [start()?, start()?];
    let mut seen = BTreeSet::new();
    for guest in guests {
        let output = guest.wait_with_output()?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "a guest ended with {}: {}", output.status, complaint.trim());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // What the kernel says has blanks.
        let lines: Vec<&str> =
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.contains(' ')).collect();
        let [identities @ .., time] = &lines[..] else { bail!("a guest printed nothing") };
        ensure!(identities.len() == IDENTITIES, "a guest printed {lines:?}");
        for identity in identities {
            ensure!(seen.insert((*identity).to_owned()), "two guests have {identity} in common");
        }
        let time =
            SystemTime::UNIX_EPOCH + Duration::from_secs(time.parse().context("a guest's time is not a number")?);
        let now = SystemTime::now();
        let off = now.duration_since(time).or_else(|_| time.duration_since(now))?;
        ensure!(off < TOLERANCE, "a guest's clock is off by {off:?}");
    }
    Ok(())
}
