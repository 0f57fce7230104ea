// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The options that describe a guest, the same for `run` and `test` and for every accelerator, and the [`GuestSpec`] that they
//! result in.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::ArgPredicate;
use clap::{Args, ValueEnum};
use ersatz_guest_image::initramfs::ArchiveError;
use ersatz_guest_image::kernel_command_line::words;
use ersatz_guest_image::manifest::Manifest;
use ersatz_guest_image::run::request_archive;
use thiserror::Error;

use super::artifacts::{self, ArtifactError, KernelChoice};
use super::limit::{self, Limit};
use super::report;
use crate::accel::accelerator::{Accelerator, AcceleratorError, AcceleratorOption};
use crate::spec::{BarError, GpuSpec, GuestSpec, MachineSpec, PciAddress, ReadPath, Resources, RunSpec, WrittenPath};

/// How the driver registers VRAM with the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// MEMORY_DEVICE_PRIVATE: the CPU cannot touch device pages; a touch brings them back.
    Private,
    /// MEMORY_DEVICE_COHERENT: the CPU reads and writes device pages in place.
    Coherent,
}

impl Mode {
    /// The name, as the driver's parameter and the command line spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Coherent => "coherent",
        }
    }

    /// Returns the path of a file that exists once for each mode: `a.trace` becomes `a-private.trace`.
    pub fn beside(self, path: &WrittenPath) -> WrittenPath {
        path.with_suffix(self.name())
    }
}

/// How a guest has its GPUs, other than on the bus of the VMM that has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// As devices that are bound to vfio-pci.
    Vfio,
}

/// The kernel of a guest, for commands that run all their guests with one.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Guest")]
pub struct KernelOption {
    /// Kernel: a series that was built (7.2), the debug kernel (debug), a bzImage or ELF file, or the folder of a kernel tree that is built (docs/own-kernel.md) [default: the first series in guest-image/kernels.toml]
    #[arg(long, value_name = "SERIES|debug|FILE|TREE", value_parser = artifacts::parse_kernel)]
    pub kernel: Option<KernelChoice>,
}

/// The options of a guest, apart from its kernel.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Guest")]
pub struct GuestOptions {
    /// What the guest runs on
    #[arg(long, value_name = "ACCEL", value_enum, default_value = "auto")]
    pub accel: AcceleratorOption,
    /// Initramfs to boot instead of the built one, with driver and programs of its own; implies --cold
    #[arg(long, value_name = "FILE")]
    pub initramfs: Option<ReadPath>,
    /// Boot, instead of starting from a snapshot of a booted guest (tcg and nested; kvm always boots)
    #[arg(long)]
    pub cold: bool,
    /// Processors and memory.
    #[command(flatten)]
    pub resources: Resources,
    /// Words to add to the kernel's command line (ersatz.NAME=VALUE goes to the driver)
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    pub kernel_args: Option<String>,
    /// How long the guest may run: 90, 5m, none
    #[arg(long, value_name = "TIME", value_parser = limit::parse)]
    pub timeout: Option<Limit>,
    /// What each GPU is like.
    #[command(flatten)]
    pub gpu: GpuSpec,
    /// Number of GPUs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=8), default_value = "1",
        default_value_if("vfio", ArgPredicate::IsPresent, "0"), help_heading = "Device")]
    pub devices: u8,
    /// Hand the PCI device at BDF, which is bound to vfio-pci, to the guest; may be given several times (kvm; see
    /// docs/pass-through.md)
    #[arg(long, value_name = "BDF", value_parser = PciAddress::from_str, help_heading = "Device")]
    pub vfio: Vec<PciAddress>,
    /// Hand the GPUs to the guest by pass-through, through an IOMMU of the outer machine; the guest boots (nested)
    #[arg(long, value_name = "WAY", value_enum, help_heading = "Device")]
    pub via: Option<Via>,
    /// Have `ersatz ctl PATH` reach the GPUs while the guest runs, by a socket of this user's (kvm and tcg; see docs/injection.md)
    #[arg(long, value_name = "PATH", help_heading = "Device")]
    pub control: Option<PathBuf>,
    /// Say at the end how often the guest's vCPUs exited to the VMM, by cause (kvm and nested)
    #[arg(long)]
    pub exit_counts: bool,
    /// QEMU for tcg and nested, instead of the toolchain root's
    #[arg(long, value_name = "PATH")]
    pub qemu: Option<PathBuf>,
}

/// A guest to run, and the built artifacts it came from, unless everything was given by hand.
#[derive(Debug)]
pub struct Guest {
    /// What to run.
    pub spec: GuestSpec,
    /// The built artifacts; `None` if they were neither found nor needed.
    pub manifest: Option<Manifest>,
}

/// Why options do not describe a guest.
#[derive(Debug, Error)]
pub enum GuestError {
    /// Something to boot is missing.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The command cannot be passed to the guest.
    #[error(transparent)]
    Command(#[from] ArchiveError),
    /// The BAR is larger than VRAM.
    #[error(transparent)]
    Bar(#[from] BarError),
}

impl GuestOptions {
    /// Resolves what the guest runs on; prints the choice if it is left to this program.
    ///
    /// # Errors
    ///
    /// As [`Accelerator::resolve`].
    pub fn accelerator(&self, manifest: Option<&Manifest>) -> Result<Accelerator, AcceleratorError> {
        let resolved = Accelerator::resolve(self.accel, self.qemu.clone(), self.is_cold(), manifest, &mut report::say)?;
        match self.via {
            Some(Via::Vfio) => resolved.via_vfio(),
            None => Ok(resolved),
        }
    }

    /// Returns the guest that these options describe, with a command to run in it, or a shell.
    ///
    /// `kernel` is the kernel, or `None` for the default one. `modes` are the memory types of the GPUs in order, the last for all that follow. `limit` is the time limit unless
    /// `--timeout` is given.
    ///
    /// # Errors
    ///
    /// Fails if something to boot is missing, or the options contradict each other.
    pub fn guest(
        &self,
        kernel: Option<&KernelChoice>,
        modes: &[Mode],
        command: Option<&[String]>,
        limit: Option<Duration>,
    ) -> Result<Guest, GuestError> {
        let devices = self.gpu.repeat(self.devices)?;
        let manifest = artifacts::find(kernel, self.initramfs.is_some())?;
        let built =
            |path: fn(&Manifest) -> &PathBuf| ReadPath::from(manifest.as_ref().map(path).cloned().unwrap_or_default());
        // The VMM starts the ELF file as it is; a bzImage spends the first second, or several of an emulated processor, on
        // decompressing itself.
        let compressed = self.accel == AcceleratorOption::Tcg;
        let image: fn(&Manifest) -> &PathBuf = if compressed { |m| &m.bz_image } else { |m| &m.vmlinux };
        let kernel = match kernel {
            Some(KernelChoice::File(file)) => file.clone().into(),
            Some(KernelChoice::Tree(tree)) => if compressed { tree.bz_image() } else { tree.vmlinux() }.into(),
            Some(KernelChoice::Series(_)) | None => built(image),
        };
        let initramfs = self.initramfs.clone().unwrap_or_else(|| built(|m| &m.initramfs));
        const REBUILD: &str = "give another, or run `cargo xtask build` again";
        artifacts::readable("kernel", &kernel, REBUILD)?;
        artifacts::readable("initramfs", &initramfs, REBUILD)?;
        let (kernel_words, driver_words) = split_words(self.kernel_args.as_deref().unwrap_or_default());
        let request = request_archive(command, &self.driver_parameters(modes, &driver_words))?;
        let command_line = command_line(&kernel_words);
        let machine = MachineSpec { kernel, initramfs, command_line, resources: self.resources };
        let run = RunSpec {
            // An initramfs given by hand has its own driver and programs.
            archives: if self.initramfs.is_some() { Vec::new() } else { vec![built(|m| &m.programs)] },
            request,
            devices,
            vfio: self.vfio.clone(),
            exit_counts: self.exit_counts,
            streams: false,
            timeout: self.timeout.map_or(limit, |limit| limit.0),
            silence: None,
        };
        Ok(Guest { spec: GuestSpec { machine, run }, manifest })
    }

    /// Returns the archives that the guest is made of, unless a run brings more: its initramfs, and the built programs if that is the
    /// built one.
    pub fn archives(&self, manifest: Option<&Manifest>) -> Vec<ReadPath> {
        match (&self.initramfs, manifest) {
            (Some(own), _) => vec![own.clone()],
            (None, Some(manifest)) => vec![manifest.initramfs.clone().into(), manifest.programs.clone().into()],
            (None, None) => Vec::new(),
        }
    }

    /// Whether the guest boots though it could start from a snapshot. PID 1 of an initramfs given by hand may not support
    /// snapshots, and devices that are handed through are there from the start on.
    pub fn is_cold(&self) -> bool {
        self.cold || self.initramfs.is_some() || self.via.is_some()
    }

    /// The driver's parameters: the memory types, and what `--kernel-args` has for the driver.
    fn driver_parameters(&self, modes: &[Mode], words: &[&str]) -> String {
        let last = modes.last().copied().unwrap_or(Mode::Private);
        // Devices that are handed to the guest may be GPUs of this kind, too.
        let count = (usize::from(self.devices) + self.vfio.len()).max(1);
        let modes: Vec<&str> = (0..count).map(|index| modes.get(index).copied().unwrap_or(last).name()).collect();
        let memory = format!("memory={}", modes.join(","));
        [&[memory.as_str()], words].concat().join(" ")
    }
}

/// The kernel's command line: a console from the first line on, warnings always, a panic ends the run after a backtrace of
/// every CPU, and an NMI, by which a hanging kernel is asked where it is, is a panic.
fn command_line(words: &[&str]) -> String {
    const LINE: &str = "console=ttyS0 loglevel=5 panic=-1 panic_sys_info=all_bt unknown_nmi_panic";
    [&[LINE], words].concat().join(" ")
}

/// Separates words for the kernel from parameters of the driver (`ersatz.NAME=VALUE`, without the prefix), which are not part of
/// what a guest boots with.
fn split_words(text: &str) -> (Vec<&str>, Vec<&str>) {
    let mut kernel = Vec::new();
    let mut driver = Vec::new();
    for word in words(text) {
        match word.strip_prefix("ersatz.").filter(|parameter| !parameter.is_empty()) {
            Some(parameter) => driver.push(parameter),
            None => kernel.push(word),
        }
    }
    (kernel, driver)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: GuestOptions,
    }

    fn options(words: &[&str]) -> GuestOptions {
        Line::try_parse_from(std::iter::once(&"ersatz").chain(words)).expect("good options").options
    }

    #[test]
    fn each_gpu_gets_its_mode() {
        let parameters = options(&["--devices", "3"]).driver_parameters(&[Mode::Coherent, Mode::Private], &["a=1"]);
        assert_eq!(parameters, "memory=coherent,private,private a=1");
    }

    #[test]
    fn a_guest_with_a_device_of_this_machine_has_no_modelled_gpu_unless_it_is_to() {
        let passed = options(&["--vfio", "0000:01:00.0", "--vfio", "02:00.0"]);
        assert_eq!((passed.devices, passed.vfio.len()), (0, 2));
        assert_eq!(passed.driver_parameters(&[Mode::Coherent], &[]), "memory=coherent,coherent");
        assert_eq!(options(&["--vfio", "01:00.0", "--devices", "1"]).devices, 1);
        assert_eq!(options(&["--devices", "0"]).driver_parameters(&[Mode::Private], &[]), "memory=private");
    }

    #[test]
    fn words_for_the_driver_are_told_from_those_for_the_kernel() {
        let (kernel, driver) = split_words("quiet ersatz.region=bar loglevel=7  ersatz.name=\"a b\" ersatz.");
        assert_eq!(driver, ["region=bar", "name=\"a b\""]);
        assert!(command_line(&kernel).ends_with(" quiet loglevel=7 ersatz."), "{kernel:?}");
    }

    #[test]
    fn an_initramfs_of_ones_own_boots() {
        assert!(!options(&[]).is_cold());
        assert!(options(&["--cold"]).is_cold() && options(&["--initramfs", "x"]).is_cold());
    }
}
