// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz doctor`: what this machine has of what guests need.

use std::fmt;
use std::thread::available_parallelism;

use clap::Args;
use ersatz_guest_image::error_chain::chain;
use ersatz_guest_image::manifest::Manifest;

use super::artifacts::{self, all_manifests};
use super::{CommandError, size};
use crate::accel::probe::probe;
use crate::outcome::STATUS_FAILED;
use crate::qemu::{MAILBOX, Qemu, VFIO_USER, check_devices};
use crate::snapshot::SnapshotStore;

/// Say what this machine has of what guests need, and what --accel auto would choose
///
/// Probes KVM with a tiny guest and asks QEMU for its devices. The exit status is 0 if a guest can be run.
#[derive(Debug, Args)]
pub struct DoctorOptions {}

/// How it is with something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// As it should be.
    Good,
    /// Something is lacking that others make up for.
    Limited,
    /// No guest can be run so.
    Bad,
}

/// A line of the report.
#[derive(Debug)]
struct Finding {
    about: &'static str,
    state: State,
    text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Good => "ok",
            State::Limited => "-",
            State::Bad => "BAD",
        };
        write!(f, "{state:<4} {:<10} {}", self.about, self.text)
    }
}

/// Reports; returns the exit status.
///
/// # Errors
///
/// None: what cannot be found out is a finding.
pub fn run(_: &DoctorOptions) -> Result<u8, CommandError> {
    let findings = [kvm(), kernels(&all_manifests()), qemu(), snapshots(), machine()];
    findings.iter().for_each(|finding| println!("{finding}"));
    let is_bad = findings.iter().any(|finding| finding.state == State::Bad);
    Ok(if is_bad { STATUS_FAILED } else { 0 })
}

fn kvm() -> Finding {
    let verdict = probe();
    let (state, choice) = if verdict.works() { (State::Good, "kvm") } else { (State::Limited, "nested") };
    Finding { about: "kvm", state, text: format!("{verdict}; --accel auto is {choice}") }
}

fn kernels(built: &[Manifest]) -> Finding {
    let about = "kernels";
    let mut releases: Vec<&str> = built.iter().map(|manifest| manifest.release.as_str()).collect();
    releases.sort_unstable();
    releases.dedup();
    match artifacts::manifest(None) {
        Ok(default) => {
            let text = format!("{}; without --kernel {}", releases.join(", "), default.release);
            Finding { about, state: State::Good, text }
        }
        Err(error) if releases.is_empty() => Finding { about, state: State::Bad, text: chain(&error).to_string() },
        Err(error) => {
            let text = format!("{}, but not the default one: {}", releases.join(", "), chain(&error));
            Finding { about, state: State::Limited, text }
        }
    }
}

fn qemu() -> Finding {
    let about = "qemu";
    let Some(manifest) = artifacts::manifest(None).ok().or_else(|| all_manifests().into_iter().next()) else {
        let text = "comes with `cargo xtask build`; --accel kvm does without".to_owned();
        return Finding { about, state: State::Limited, text };
    };
    let qemu = Qemu::choose(None, &manifest.toolchain_root);
    match check_devices(&qemu, &[VFIO_USER, MAILBOX]) {
        Ok(()) => Finding { about, state: State::Good, text: qemu.program().display().to_string() },
        Err(error) => Finding { about, state: State::Bad, text: chain(&error).to_string() },
    }
}

fn snapshots() -> Finding {
    let about = "snapshots";
    let usage = SnapshotStore::open().and_then(|store| Ok((store.usage()?, store.folder().display().to_string())));
    match usage {
        Ok(((count, bytes), folder)) => {
            Finding { about, state: State::Good, text: format!("{count}, {} MiB, in {folder}", bytes >> 20) }
        }
        Err(error) => {
            let text = format!("{}; add --cold to boot each guest", chain(&error));
            Finding { about, state: State::Limited, text }
        }
    }
}

fn machine() -> Finding {
    let cpus = available_parallelism().map_or(1, usize::from);
    let text = match memory_available() {
        Some(bytes) => format!("{cpus} CPUs, {} of memory available", size::format(bytes >> 20 << 20)),
        None => format!("{cpus} CPUs"),
    };
    Finding { about: "machine", state: State::Good, text }
}

/// What /proc/meminfo says is available, in bytes.
fn memory_available() -> Option<u64> {
    parse_available(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_from_its_line() {
        assert_eq!(parse_available("MemTotal: 5 kB\nMemAvailable:      2048 kB\n"), Some(2 << 20));
        assert_eq!(parse_available("MemTotal: 5 kB\n"), None);
        assert_eq!(parse_available("MemAvailable: 99999999999999999999 kB\n"), None);
    }

    #[test]
    fn a_finding_is_a_line() {
        let finding = Finding { about: "kvm", state: State::Limited, text: "not present".to_owned() };
        assert_eq!(finding.to_string(), "-    kvm        not present");
    }
}
