// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! PID 1's other life: in the outer machine of `--accel nested`, where it makes KVM ready and runs the VMM.
//!
//! The host side is the VMM crate's `accel::nested`; what passes between the two is in `ersatz_guest_image::outer`. The
//! console of the outer machine carries the kernel's log alone. All else, failures of PID 1 included, goes by the
//! [`port`].

mod collect;
mod job;
mod port;
mod relay;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ersatz_guest_image::error_chain::chain;
use ersatz_guest_image::kernel_module::{ModuleError, load_order};
use ersatz_guest_image::outer::channel::Message;
use ersatz_guest_image::outer::{JOB_PATH, Job, KVM_MODULES, MODULES_FOLDER, SHARE_MODULES, Share, VFIO_MODULES};
use ersatz_init::driver;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use thiserror::Error;

use self::port::Port;

/// How long the host may take to end the machine once the job is reported as done.
const FAREWELL: Duration = Duration::from_secs(30);

/// Why the job could not be done.
#[derive(Debug, Error)]
pub enum OuterError {
    /// The port to the host could not be found or opened.
    #[error(transparent)]
    Port(#[from] port::PortError),
    /// The file with the job cannot be used.
    #[error("cannot use {JOB_PATH}")]
    Job(#[source] io::Error),
    /// A module is missing or malformed.
    #[error(transparent)]
    Module(#[from] ModuleError<io::Error>),
    /// The kernel refused a module.
    #[error(transparent)]
    Load(#[from] driver::ModuleError),
    /// The modules are loaded, but KVM cannot be opened.
    #[error("cannot open /dev/kvm in the outer machine, whose processor has no usable SVM")]
    Kvm(#[source] io::Error),
    /// A folder of the host could not be mounted.
    #[error("cannot mount the host's folder '{tag}' on {target}")]
    Share {
        /// The mount tag.
        tag: String,
        /// The mount point.
        target: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A device could not be bound to vfio-pci.
    #[error("cannot bind PCI device {address} to vfio-pci in the outer machine")]
    Bind {
        /// Its address.
        address: String,
        /// The system's error.
        source: io::Error,
    },
    /// The command could not be started or waited for.
    #[error(transparent)]
    Command(#[from] job::CommandError),
}

/// Whether this is the outer machine.
pub fn requested() -> bool {
    Path::new(JOB_PATH).exists()
}

/// Does the job and reports to the host. Returns only if the host does not end the machine by itself.
///
/// # Errors
///
/// Fails if the port to the host cannot be used. All other failures are reported to the host.
pub fn run() -> Result<u8, OuterError> {
    let port = Port::open()?;
    port.send(&Message::Heartbeat);
    port::beat(&port);
    let status = work(&port).unwrap_or_else(|error| {
        port.send(&Message::Failed(chain(&error).to_string()));
        crate::STATUS_FAILED
    });
    port.send(&Message::Ended(status));
    std::thread::sleep(FAREWELL);
    Ok(status)
}

/// Everything from the modules to the files sent home; the command's exit status.
fn work(port: &Port) -> Result<u8, OuterError> {
    let text = std::fs::read(JOB_PATH).map_err(OuterError::Job)?;
    let job: Job = serde_json::from_slice(&text).map_err(|error| OuterError::Job(error.into()))?;
    port.send(&Message::Stage("loading KVM".to_owned()));
    load_modules(KVM_MODULES)?;
    File::options().read(true).write(true).open("/dev/kvm").map_err(OuterError::Kvm)?;
    if !job.shares.is_empty() {
        port.send(&Message::Stage("mounting the host's folders".to_owned()));
        load_modules(SHARE_MODULES)?;
        job.shares.iter().try_for_each(mount_share)?;
    }
    if !job.passed_through.is_empty() {
        port.send(&Message::Stage("binding devices to vfio-pci".to_owned()));
        load_modules(VFIO_MODULES)?;
        job.passed_through.iter().try_for_each(|address| bind(address))?;
    }
    let status = job::run(&job, port)?;
    collect::send_all(&job.collect, port);
    Ok(status)
}

/// Loads modules with all they depend on. Those that are loaded already are fine.
fn load_modules(names: &[&str]) -> Result<(), OuterError> {
    let path = |name: &str| Path::new(MODULES_FOLDER).join(format!("{name}.ko"));
    for (name, _) in load_order(names, |name| std::fs::read(path(name)))? {
        match driver::load(&path(&name), "") {
            Ok(()) | Err(driver::ModuleError::Refused { source: Errno::EEXIST, .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn mount_share(share: &Share) -> Result<(), OuterError> {
    // Files of the host do not change while the machine runs, so all caching is safe; msize is what one request carries.
    const OPTIONS: &str = "trans=virtio,version=9p2000.L,msize=512000,cache=loose";
    let Share { tag, target } = share;
    std::fs::create_dir_all(target)
        .and_then(|()| Ok(mount(Some(tag.as_str()), target, Some("9p"), MsFlags::MS_RDONLY, Some(OPTIONS))?))
        .map_err(|source| OuterError::Share { tag: tag.clone(), target: target.clone(), source })
}

/// Binds a PCI device, which has no driver, to vfio-pci.
fn bind(address: &str) -> Result<(), OuterError> {
    let folder = Path::new("/sys/bus/pci");
    std::fs::write(folder.join("devices").join(address).join("driver_override"), "vfio-pci")
        .and_then(|()| std::fs::write(folder.join("drivers_probe"), address))
        .map_err(|source| OuterError::Bind { address: address.to_owned(), source })
}
