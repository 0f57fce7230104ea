// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The options that describe a guest, the same for `run` and `test` and for every accelerator, and the
//! [`GuestSpec`] they amount to.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use ersatz_abi::pci::{VRAM_MAX, VRAM_MIN};
use ersatz_guest_image::initramfs::ArchiveError;
use ersatz_guest_image::kernel_command_line::words;
use ersatz_guest_image::manifest::Manifest;
use ersatz_guest_image::run::request_archive;
use thiserror::Error;

use super::artifacts::{self, ArtifactError, DEFAULT_SERIES, KernelChoice};
use super::limit::{self, Limit};
use super::{report, size};
use crate::launch::{Carrier, LaunchError, Wanted};
use crate::spec::{GpuSpec, GuestSpec, MachineSpec, RunSpec};

/// Smallest guest memory: below it a stock kernel cannot unpack itself and its initramfs.
const MEMORY_MIN: u64 = 128 << 20;
/// Largest guest memory: what the machine's address map has room for below the BAR windows.
const MEMORY_MAX: u64 = 256 << 30;

/// Guest memory, unless `--memory` says otherwise.
const MEMORY: u64 = 1 << 30;
/// The same for the debug kernel: KASAN takes an eighth for its shadow, and makes every object larger.
const DEBUG_MEMORY: u64 = 3 << 30;

/// What carries the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Accel {
    /// kvm if it works here, else nested; says which and why.
    Auto,
    /// Our VMM on this machine's KVM.
    Kvm,
    /// Our VMM on the KVM of an outer machine that QEMU emulates, SVM included.
    Nested,
    /// The device under QEMU's emulation, over vfio-user.
    Tcg,
}

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

    /// The path of a file of which there is one for each mode: `a.trace` becomes `a-private.trace`.
    pub fn beside(self, path: &Path) -> PathBuf {
        with_suffix(path, self.name())
    }
}

/// The options of a guest.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Guest")]
pub struct GuestOptions {
    /// What carries the guest
    #[arg(long, value_name = "ACCEL", value_enum, default_value = "auto")]
    pub accel: Accel,
    /// Kernel: a series that was built (7.2), the debug kernel (debug), or a bzImage or ELF file
    #[arg(long, value_name = "SERIES|debug|FILE", value_parser = artifacts::parse_kernel, default_value = DEFAULT_SERIES)]
    pub kernel: KernelChoice,
    /// Initramfs to boot instead of the built one, with driver and programs of its own; implies --cold
    #[arg(long, value_name = "FILE")]
    pub initramfs: Option<PathBuf>,
    /// Boot, instead of starting from a snapshot of a booted guest (tcg and nested; kvm always boots)
    #[arg(long)]
    pub cold: bool,
    /// Guest memory [default: 1G; for the debug kernel 3G]
    #[arg(long, value_name = "SIZE", value_parser = memory_size)]
    pub memory: Option<u64>,
    /// Number of vCPUs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64), default_value = "2")]
    pub cpus: u8,
    /// Words to add to the kernel's command line (ersatz.NAME=VALUE goes to the driver)
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    pub kernel_args: Option<String>,
    /// How long the guest may run: 90, 5m, none
    #[arg(long, value_name = "TIME", value_parser = limit::parse)]
    pub timeout: Option<Limit>,
    /// VRAM of each GPU: a power of two from 2M to 1T, of which only what is touched takes memory [default: 1G; for tests
    /// 256M]
    #[arg(long, value_name = "SIZE", value_parser = vram_size, help_heading = "Device")]
    pub vram: Option<u64>,
    /// VRAM that BAR2 of each GPU shows until the guest resizes it: a power of two from 2M on [default: all]
    #[arg(long, value_name = "SIZE", value_parser = vram_size, help_heading = "Device")]
    pub bar: Option<u64>,
    /// Number of GPUs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8), default_value = "1", help_heading = "Device")]
    pub devices: u8,
    /// Write what the device sees to FILE (or to gpu0.trace, gpu1.trace... in the folder DIR)
    #[arg(long, value_name = "FILE|DIR", help_heading = "Device")]
    pub trace: Option<PathBuf>,
    /// Say at the end how often the guest's processors exited to the VMM, by cause (kvm and nested)
    #[arg(long)]
    pub exit_counts: bool,
    /// QEMU for tcg and nested, instead of the toolchain root's
    #[arg(long, value_name = "PATH")]
    pub qemu: Option<PathBuf>,
}

/// What holds for options that were not given, and differs from command to command.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// How long the guest may run.
    pub limit: Option<Duration>,
    /// VRAM of each GPU in bytes.
    pub vram: u64,
}

/// A guest to run, and the built artifacts it came from, unless everything was given by hand.
#[derive(Debug)]
pub struct Guest {
    /// What to run.
    pub spec: GuestSpec,
    /// The built artifacts; `None` if they were neither found nor needed.
    pub manifest: Option<Manifest>,
}

/// Why options do not amount to a guest.
#[derive(Debug, Error)]
pub enum GuestError {
    /// Something to boot is missing.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The command cannot be passed to the guest.
    #[error(transparent)]
    Command(#[from] ArchiveError),
    /// The BAR makes no sense.
    #[error(transparent)]
    Bar(#[from] BarError),
}

/// `--bar` is more than there is to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a BAR of {} cannot show {} of VRAM; give less with --bar, or more with --vram", size::format(*.bar), size::format(*.vram))]
pub struct BarError {
    /// The BAR's size in bytes.
    pub bar: u64,
    /// VRAM in bytes.
    pub vram: u64,
}

impl From<Accel> for Wanted {
    fn from(accel: Accel) -> Self {
        match accel {
            Accel::Auto => Self::Auto,
            Accel::Kvm => Self::Kvm,
            Accel::Nested => Self::Nested,
            Accel::Tcg => Self::Tcg,
        }
    }
}

impl GuestOptions {
    /// What carries the guest; says so if it had to choose.
    ///
    /// # Errors
    ///
    /// If what it needs is not there.
    pub fn carrier(&self, manifest: Option<&Manifest>) -> Result<Carrier, LaunchError> {
        Carrier::choose(self.accel.into(), self.qemu.clone(), manifest, &mut report::say)
    }

    /// What these options amount to, with a command to run in the guest, or a shell.
    ///
    /// `modes` are the memory types of the GPUs in order, the last for all that follow.
    ///
    /// # Errors
    ///
    /// If something to boot is missing, or the options contradict each other.
    pub fn guest(&self, modes: &[Mode], command: Option<&[String]>, defaults: Defaults) -> Result<Guest, GuestError> {
        let vram = self.vram.unwrap_or(defaults.vram);
        let bar = bar_of(vram, self.bar)?;
        let (series, file) = match &self.kernel {
            KernelChoice::Series(series) => (series.as_str(), None),
            KernelChoice::File(file) => (DEFAULT_SERIES, Some(file.clone())),
        };
        let manifest = match artifacts::manifest(series) {
            Ok(manifest) => Some(manifest),
            // All that a manifest is needed for was given by hand.
            Err(_) if file.is_some() && self.initramfs.is_some() => None,
            Err(error) => return Err(error.into()),
        };
        let built = |path: fn(&Manifest) -> &PathBuf| manifest.as_ref().map(path).cloned().unwrap_or_default();
        // Our machine starts the ELF file as it is; a bzImage spends the first second, or several of an emulated
        // processor, on decompressing itself.
        let image: fn(&Manifest) -> &PathBuf = if self.accel == Accel::Tcg { |m| &m.bz_image } else { |m| &m.vmlinux };
        let kernel = file.unwrap_or_else(|| built(image));
        let initramfs = self.initramfs.clone().unwrap_or_else(|| built(|m| &m.initramfs));
        const REBUILD: &str = "give another, or run `cargo xtask build` again";
        artifacts::readable("kernel", &kernel, REBUILD)?;
        artifacts::readable("initramfs", &initramfs, REBUILD)?;
        let (kernel_words, driver_words) = split_words(self.kernel_args.as_deref().unwrap_or_default());
        let request = request_archive(command, &self.driver_parameters(modes, &driver_words))?;
        let machine = MachineSpec {
            kernel,
            initramfs,
            command_line: command_line(&kernel_words),
            vcpus: self.cpus,
            memory: self.memory.unwrap_or(if self.kernel.is_debug() { DEBUG_MEMORY } else { MEMORY }),
        };
        let run = RunSpec {
            // An initramfs given by hand has its own driver and programs.
            archives: if self.initramfs.is_some() { Vec::new() } else { vec![built(|m| &m.programs)] },
            request,
            devices: (0..self.devices)
                .map(|index| {
                    let trace = self.trace.as_deref().map(|path| trace_path(path, index, self.devices.into()));
                    GpuSpec { vram, bar, trace }
                })
                .collect(),
            exit_counts: self.exit_counts,
            timeout: self.timeout.map_or(defaults.limit, |limit| limit.0),
        };
        Ok(Guest { spec: GuestSpec { machine, run }, manifest })
    }

    /// Whether the guest boots though it could start from a snapshot. PID 1 of an initramfs given by hand may know nothing of
    /// those.
    pub fn is_cold(&self) -> bool {
        self.cold || self.initramfs.is_some()
    }

    /// The driver's parameters: the memory types, and what `--kernel-args` has for the driver.
    fn driver_parameters(&self, modes: &[Mode], words: &[&str]) -> String {
        let last = modes.last().copied().unwrap_or(Mode::Private);
        let modes: Vec<&str> =
            (0..usize::from(self.devices)).map(|index| modes.get(index).copied().unwrap_or(last).name()).collect();
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

/// Tells words for the kernel from parameters of the driver (`ersatz.NAME=VALUE`, without the prefix), which are not part of what
/// a guest boots with.
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

/// Where the trace of one GPU of so many goes: into a folder by number; beside a file by number unless it is the only one.
pub fn trace_path(path: &Path, index: u8, devices: usize) -> PathBuf {
    if path.is_dir() {
        return path.join(format!("gpu{index}.trace"));
    }
    if devices == 1 {
        return path.to_owned();
    }
    with_suffix(path, &index.to_string())
}

/// The size of BAR2 for so much VRAM: what `--bar` says, else all of it.
///
/// # Errors
///
/// If that is more than there is.
pub fn bar_of(vram: u64, bar: Option<u64>) -> Result<u64, BarError> {
    match bar {
        Some(bar) if bar > vram => Err(BarError { bar, vram }),
        bar => Ok(bar.unwrap_or(vram)),
    }
}

/// A path with `-suffix` in front of its extension.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{suffix}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// Reads `--vram` and `--bar`.
///
/// # Errors
///
/// If it is not a size, not a power of two, or out of range.
pub fn vram_size(text: &str) -> Result<u64, String> {
    let bytes = size::parse(text).map_err(|error| error.to_string())?;
    if !(VRAM_MIN..=VRAM_MAX).contains(&bytes) {
        return Err(format!("VRAM may have {} to {}", size::format(VRAM_MIN), size::format(VRAM_MAX)));
    }
    if !bytes.is_power_of_two() {
        let below = 1 << bytes.ilog2();
        return Err(format!(
            "VRAM fills a BAR, so it is a power of two; type {} or {}",
            size::format(below),
            size::format(below * 2)
        ));
    }
    Ok(bytes)
}

/// Reads `--memory`.
fn memory_size(text: &str) -> Result<u64, String> {
    let bytes = size::parse(text).map_err(|error| error.to_string())?;
    if !(MEMORY_MIN..=MEMORY_MAX).contains(&bytes) {
        return Err(format!("a guest may have {} to {}", size::format(MEMORY_MIN), size::format(MEMORY_MAX)));
    }
    if bytes % (2 << 20) != 0 {
        return Err("memory comes in pieces of 2M; type for example 512M or 2G".to_owned());
    }
    Ok(bytes)
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
    fn vram_has_limits() {
        assert_eq!(vram_size("2M"), Ok(2 << 20));
        assert_eq!(vram_size("1T"), Ok(1 << 40));
        assert!(vram_size("1M").is_err());
        assert!(vram_size("2T").is_err());
        assert!(vram_size("3G").unwrap_err().contains("2G or 4G"));
    }

    #[test]
    fn each_gpu_gets_its_mode() {
        let parameters = options(&["--devices", "3"]).driver_parameters(&[Mode::Coherent, Mode::Private], &["a=1"]);
        assert_eq!(parameters, "memory=coherent,private,private a=1");
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

    #[test]
    fn each_gpu_gets_its_trace() {
        assert_eq!(trace_path(Path::new("a/b.trace"), 0, 1), Path::new("a/b.trace"));
        assert_eq!(trace_path(Path::new("a/b.trace"), 1, 2), Path::new("a/b-1.trace"));
        assert_eq!(trace_path(Path::new("b"), 0, 2), Path::new("b-0"));
        assert_eq!(trace_path(Path::new("/"), 1, 2), Path::new("/gpu1.trace"));
    }

    #[test]
    fn a_bar_shows_all_of_vram_or_less() {
        assert_eq!(bar_of(1 << 30, None), Ok(1 << 30));
        assert_eq!(bar_of(1 << 30, options(&["--bar", "2M"]).bar), Ok(2 << 20));
        let error = bar_of(1 << 30, Some(2 << 30)).unwrap_err();
        assert!(error.to_string().contains("2G cannot show 1G"), "{error}");
    }
}
