// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Many scenarios in one guest: a cell of a matrix, an order of steps each.
//!
//! Scenarios are the attempts of one report, numbered in the order of their files' names. The first one in which something hangs, or
//! the kernel complains, is the last: what comes after it belongs into a fresh guest.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Options, Reporter, Runner, STATUS_EXPECTED, STATUS_FOUND, STATUS_INVALID, STATUS_UNAVAILABLE, read};

/// Where the kernel is told when a CPU that does not schedule is a soft lockup, in half of the seconds, and that it is to panic then.
const WATCHDOG: &str = "/proc/sys/kernel/watchdog_thresh";
const PANIC: &str = "/proc/sys/kernel/softlockup_panic";
/// Half of the seconds that a CPU may go without scheduling, on top of a hold.
const LOCKUP_SECONDS: u64 = 3;

/// Tries the scenarios of a folder, each once, and returns the exit status.
pub fn run_batch(folder: &Path, only_plain: bool) -> u8 {
    let scenarios = files(folder).map_err(|error| format!("cannot read {}: {error}", folder.display()));
    let scenarios = scenarios.and_then(|files| files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>());
    let scenarios = match scenarios {
        Ok(scenarios) => scenarios,
        Err(error) => {
            eprintln!("ersatz-guest-tests: {error}");
            return STATUS_INVALID;
        }
    };
    if !only_plain {
        let longest = scenarios.iter().map(|scenario| scenario.hold_limit.as_secs()).max().unwrap_or_default();
        // Best effort: without it a guest whose kernel spins ends by its time limit.
        let _ = fs::write(WATCHDOG, (LOCKUP_SECONDS + longest).to_string());
        let _ = fs::write(PANIC, "1");
    }
    let mut runner = Runner::new(Reporter::brief(), Options { attempts: 1, only_plain });
    let mut worst = STATUS_EXPECTED;
    for (scenario, number) in scenarios.iter().zip(0..) {
        match runner.try_scenario(scenario, number..number + 1) {
            STATUS_UNAVAILABLE => return STATUS_UNAVAILABLE,
            status => worst = worst.max(status),
        }
        if runner.tainted {
            return STATUS_FOUND;
        }
    }
    worst
}

/// The files of a folder, in the order of their names.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}
