// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz bench`: measurements of the VMM beside QEMU's, and of the driver beside the kernel's own test driver.

mod migrate;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ersatz_guest_image::manifest::Manifest;

use super::artifacts;
use super::report::say;
use super::{CommandError, size};
use crate::accel::nested::{Artifacts, Console, OuterJob, Source, outer_memory, run_job};
use crate::accel::probe::probe;
use crate::bench::boot::{Places, plan};
use crate::bench::{initramfs, read_plan, run as carry_out};
use crate::outcome::STATUS_INTERRUPTED;
use crate::qemu::Qemu;
use crate::supervisor::Event;

/// Where things are in the outer machine.
const INSIDE: &str = "/ersatz";
const PLAN: &str = "/ersatz/plan.json";
/// Where the toolchain root is in the outer machine.
const ROOT_INSIDE: &str = "/host";
/// Memory that QEMU and the pages of its libraries take in the outer machine.
const QEMU_ROOM: u64 = 512 << 20;

/// Measure the VMM, or the driver
#[derive(Debug, Args)]
pub struct BenchOptions {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Boot(BootOptions),
    Migrate(Box<migrate::MigrateOptions>),
    /// Carry out a plan on this machine's KVM; what `bench boot` runs in an outer machine
    #[command(hide = true)]
    CarryOut {
        /// The plan, as JSON
        plan: PathBuf,
    },
}

/// Boot time and memory, next to those of QEMU q35
///
/// Boots the stock kernel with an init that does nothing, by turns with this VMM and with the toolchain root's QEMU, and
/// prints for each the time from exec to init and the memory besides the guest's and VRAM. Where KVM does not work, all of it
/// is done inside one outer machine: the ratios count then, not the seconds.
#[derive(Debug, Args)]
struct BootOptions {
    /// Boots of each kind that count; one more does not
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), default_value = "5")]
    rounds: u32,
    /// Guest memory
    #[arg(long, value_name = "SIZE", value_parser = memory, default_value = "512M")]
    memory: u64,
    /// Kernel series that was built [default: the first in guest-image/kernels.toml]
    #[arg(long, value_name = "SERIES")]
    kernel: Option<String>,
}

/// Measures; returns the exit status.
///
/// # Errors
///
/// Fails if something did not boot.
pub fn run(options: &BenchOptions) -> Result<u8, CommandError> {
    match &options.what {
        What::CarryOut { plan } => {
            println!("{}", carry_out(&read_plan(plan)?, &mut say)?);
            Ok(0)
        }
        What::Migrate(options) => migrate::run(options),
        What::Boot(options) => {
            let manifest = artifacts::manifest(options.kernel.as_deref())?;
            let verdict = probe();
            if verdict.works() {
                say(&format!("measuring on this machine, since {verdict}"));
                on_this_machine(options, &manifest)
            } else {
                say(&format!("measuring inside an outer machine, since {verdict}"));
                in_an_outer_machine(options, &manifest)
            }
        }
    }
}

fn on_this_machine(options: &BootOptions, manifest: &Manifest) -> Result<u8, CommandError> {
    let scratch = tempfile::tempdir()?;
    let places = Places {
        vmm: std::env::current_exe()?,
        elf: manifest.vmlinux.clone(),
        bz_image: manifest.bz_image.clone(),
        initramfs: scratch.path().join("initramfs"),
        scratch: scratch.path().to_owned(),
    };
    fs::write(&places.initramfs, initramfs()?)?;
    let qemu = Qemu::InRoot(manifest.toolchain_root.clone());
    let (plan, files) = plan(&places, &qemu, options.memory, options.rounds).ok_or(NOT_UTF8)?;
    for (path, content) in files {
        fs::write(path, content)?;
    }
    println!("{}", carry_out(&plan, &mut say)?);
    Ok(0)
}

fn in_an_outer_machine(options: &BootOptions, manifest: &Manifest) -> Result<u8, CommandError> {
    let inside = |name: &str| Path::new(INSIDE).join(name);
    let places = Places {
        vmm: inside("vmm"),
        elf: inside("vmlinux"),
        bz_image: inside("bzImage"),
        initramfs: inside("initramfs"),
        scratch: INSIDE.into(),
    };
    let root = Qemu::InRoot(ROOT_INSIDE.into());
    let (plan, files) = plan(&places, &root, options.memory, options.rounds).ok_or(NOT_UTF8)?;
    let text = |path: &Path| path.to_str().map(str::to_owned).ok_or(NOT_UTF8);
    let mut sources = vec![
        (text(&places.vmm)?, Source::File(manifest.static_ersatz.clone())),
        (text(&places.elf)?, Source::File(manifest.vmlinux.clone())),
        (text(&places.bz_image)?, Source::File(manifest.bz_image.clone())),
        (text(&places.initramfs)?, Source::Bytes(initramfs()?)),
        (PLAN.to_owned(), Source::Bytes(serde_json::to_vec(&plan)?)),
    ];
    for (path, content) in files {
        sources.push((text(&path)?, Source::Bytes(content)));
    }
    let job = OuterJob {
        command: [&text(&places.vmm)?, "bench", "carry-out", PLAN].map(str::to_owned).to_vec(),
        files: sources,
        folders: vec![(manifest.toolchain_root.clone(), ROOT_INSIDE.into())],
        collect: Vec::new(),
        gpus: Vec::new(),
    };
    let artifacts = Artifacts::new(manifest, Qemu::InRoot(manifest.toolchain_root.clone()));
    let memory = outer_memory(options.memory.saturating_add(QEMU_ROOM), 0);
    let mut console = Console { input: None, output: Box::new(io::stdout()), errors: Box::new(io::stderr()) };
    let stop = Event::new()?;
    let status = run_job(&job, Vec::new(), &artifacts, memory, None, &mut console, &stop, &mut say)?;
    Ok(status.unwrap_or(STATUS_INTERRUPTED))
}

/// The error of a path that cannot be in a plan.
const NOT_UTF8: &str = "a path of the built guest is not UTF-8; build it in another folder";

/// Reads `--memory`.
fn memory(text: &str) -> Result<u64, String> {
    let bytes = size::parse(text).map_err(|error| error.to_string())?;
    let range = 256 << 20..=16 << 30;
    if range.contains(&bytes) && bytes % (2 << 20) == 0 {
        return Ok(bytes);
    }
    Err("a guest of the benchmark may have 256M to 16G, in pieces of 2M".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_limits() {
        assert_eq!(memory("512M"), Ok(512 << 20));
        assert!(memory("1M").is_err());
        assert!(memory("513M").is_err());
        assert!(memory("17G").is_err());
    }
}
