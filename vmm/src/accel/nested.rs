// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `--accel nested`: this VMM on real KVM, without virtualization hardware.
//!
//! QEMU TCG emulates an *outer machine* with SVM ([`machine`]), in which the stock kernel's kvm-amd works. PID 1 there runs this
//! same VMM, linked statically, on KVM ([`inside`]). What the guest is made of goes in with the outer machine's initramfs
//! ([`image`]): measured against virtio-blk and 9p that is fastest, and needs no module. Console, exit status and trace files
//! come out over one virtio-serial port ([`session`]). Most runs do not boot at all but start from a snapshot of the outer
//! machine with a booted guest in it ([`restore`], [`await_run`]).
//!
//! With `--via vfio` the GPUs are in this process, which serves them to QEMU; the outer machine has an IOMMU, and the VMM in it hands
//! the GPUs to the guest as it would hand out hardware ([`vfio`](crate::vfio)).
//!
//! Failures are told apart by what stops. PID 1 of the outer machine sends heartbeats: without them the outer machine hangs. With
//! heartbeats but a VMM that overruns the guest's time limit, which it enforces itself, the VMM hangs. All else is the guest's
//! own and comes out as its [`Outcome`].

pub mod await_run;
mod error;
mod image;
pub mod inside;
mod machine;
mod paths;
mod received;
mod restore;
mod session;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ersatz_guest_image::error_chain::chain;
use ersatz_guest_image::manifest::Manifest;

pub use self::error::NestedError;
pub use self::image::{OuterJob, Source};
pub use self::session::Console;

use self::machine::{OuterMachine, Start};
use self::session::Session;
use crate::outcome::Outcome;
use crate::qemu::Qemu;
use crate::spec::GuestSpec;
use crate::supervisor::Event;

/// How much longer than its guest's time limit the VMM may take to end, and PID 1 to report that: the VMM stops the guest
/// and writes the trace out, all of it emulated.
const GRACE: Duration = Duration::from_secs(60);

/// Most VRAM that outer memory is set aside for, whatever the size of the BAR; touching more of it, with all guest memory
/// in use, runs the outer machine out of memory.
const VRAM_ALLOWANCE: u64 = 4 << 30;

/// VRAM in bytes up to which the outer machine is the same for all runs.
const LITTLE_VRAM: u64 = 1 << 30;

/// What the outer machine needs besides the guest: its kernel, the initramfs twice while it unpacks, the VMM.
const OUTER_OVERHEAD: u64 = 640 << 20;

/// The files that nested runs need besides the guest's own, and how the guest has its GPUs.
#[derive(Clone, Debug)]
pub struct Artifacts {
    /// The QEMU to run the outer machine.
    pub qemu: Qemu,
    /// The outer machine's kernel, an ELF file: decompressing a bzImage takes an emulated processor seconds.
    pub kernel: PathBuf,
    /// The initramfs of the outer machine.
    pub initramfs: PathBuf,
    /// The statically linked VMM.
    pub vmm: PathBuf,
    /// Whether the GPUs are handed to the guest by pass-through.
    pub via_vfio: bool,
}

impl Artifacts {
    /// The built files, with the QEMU that was chosen.
    pub fn new(manifest: &Manifest, qemu: Qemu) -> Self {
        Self {
            qemu,
            kernel: manifest.outer_vmlinux.clone(),
            initramfs: manifest.outer_initramfs.clone(),
            vmm: manifest.static_ersatz.clone(),
            via_vfio: false,
        }
    }
}

/// Returns the memory of the outer machine, in bytes, for a guest with `guest` bytes of memory and `vram` bytes of VRAM.
pub fn outer_memory(guest: u64, vram: u64) -> u64 {
    let sum = guest.saturating_add(vram.min(VRAM_ALLOWANCE)).saturating_add(OUTER_OVERHEAD);
    sum.checked_next_multiple_of(2 << 20).unwrap_or(u64::MAX)
}

/// Runs a guest in an outer machine. With `cold` that boots; without, it starts from a snapshot ([`restore`]), which is made if
/// there is none.
///
/// `progress` is called with each step. When `stop` happens the VMM is told to end the guest.
/// If the outer machine fails before the VMM ran, it is started once more.
///
/// # Errors
///
/// Fails if the VMM could not be run, or it or the outer machine failed. How the guest ended is an [`Outcome`].
pub fn run(
    spec: &GuestSpec,
    artifacts: &Artifacts,
    cold: bool,
    console: &mut Console,
    stop: &Event,
    progress: &mut dyn FnMut(&str),
) -> Result<Outcome, NestedError> {
    let devices = if artifacts.via_vfio { &[][..] } else { &spec.run.devices };
    let vram = devices.iter().fold(0, |sum: u64, gpu| sum.saturating_add(gpu.vram));
    if !cold {
        // Runs with little VRAM start from one and the same snapshot.
        let memory = outer_memory(spec.machine.resources.memory, vram.max(LITTLE_VRAM));
        if let Some(outcome) = restore::run(spec, artifacts, memory, console, stop, progress)? {
            return Ok(outcome);
        }
    }
    let outcome = tempfile::NamedTempFile::new().map_err(NestedError::Scratch)?;
    let (job, targets) = inside::job(spec, artifacts, console)?;
    let targets = std::iter::once(outcome.path().to_owned()).chain(targets).map(Some).collect();
    let memory = outer_memory(spec.machine.resources.memory, vram);
    let limit = spec.run.timeout.map(|limit| limit.saturating_add(GRACE));
    match run_job(&job, targets, artifacts, memory, limit, console, stop, progress)? {
        None => Ok(Outcome::Interrupted),
        Some(status) => inside::outcome(outcome.path(), status),
    }
}

/// Runs any job in an outer machine, and puts the files that it leaves in their places; returns the exit status of its command,
/// or `None` if it was stopped before it ended.
///
/// # Errors
///
/// As [`run`]; the command's exit status is not an error.
#[expect(clippy::too_many_arguments, reason = "they have nothing in common but this call")]
pub fn run_job(
    job: &OuterJob,
    targets: Vec<Option<PathBuf>>,
    artifacts: &Artifacts,
    memory: u64,
    limit: Option<Duration>,
    console: &mut Console,
    stop: &Event,
    progress: &mut dyn FnMut(&str),
) -> Result<Option<u8>, NestedError> {
    let mut attempt = |progress: &mut dyn FnMut(&str)| {
        progress("starting the outer machine (QEMU without hardware acceleration, with emulated SVM)");
        let machine = OuterMachine::start(artifacts, Start::Boot(job), memory, &[])?;
        Session::new(machine, targets.clone(), limit)?.run(console, stop, progress)
    };
    match attempt(progress) {
        Err(error) if error.is_before_the_vmm() => {
            progress(&format!("trying once more, since the VMM did not run yet: {}", chain(&error)));
            attempt(progress)
        }
        result => result,
    }
}

/// Returns a path as text, as PID 1 of the outer machine needs it.
fn utf8(path: &Path) -> Result<&str, NestedError> {
    path.to_str().ok_or_else(|| NestedError::Path(path.to_owned()))
}

/// Where output for the user goes; what cannot be written is lost, as on a terminal that is closed.
type Sink = Box<dyn Write + Send>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outer_memory_covers_guest_and_vram_up_to_the_allowance() {
        assert_eq!(outer_memory(1 << 30, 1 << 30), (2 << 30) + OUTER_OVERHEAD);
        assert_eq!(outer_memory(1 << 30, 1 << 40), (1 << 30) + VRAM_ALLOWANCE + OUTER_OVERHEAD);
        assert_eq!(outer_memory(u64::MAX, u64::MAX), u64::MAX);
    }
}
