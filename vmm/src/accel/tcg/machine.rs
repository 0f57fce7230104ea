// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A machine that QEMU emulates: the process, and its connections to this one.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ersatz_guest_image::mailbox;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::TcgError;
use super::arguments::{self, GuestDescriptors, Start};
use super::controls::QemuControls;
use crate::attachments::Attachments;
use crate::qemu::{Qemu, QemuProcess};
use crate::snapshot::ram::new_memory;
use crate::spec::MachineSpec;

/// What a machine is started for.
#[derive(Debug)]
pub(super) enum Role {
    /// To boot with its own initramfs, up to where a state is saved.
    Prepare,
    /// To boot with another initramfs.
    Boot(File),
    /// To have a state loaded. Its memory must be there before.
    Restore,
}

/// A started machine. Dropping it kills QEMU.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) process: QemuProcess,
    pub(super) controls: Arc<QemuControls>,
    /// The serial port; does not block.
    pub(super) console: UnixStream,
    /// Brings the exit status.
    pub(super) status: UnixStream,
    /// Becomes readable when the guest is ready for its run.
    pub(super) ready: UnixStream,
    /// Guest memory.
    pub(super) memory: File,
    /// The memory of the mailbox.
    pub(super) mailbox: File,
}

impl Machine {
    /// Starts QEMU. Guest memory is all zeros. QEMU inherits `gpus`, the way to the GPUs' sockets; a machine that boots has them
    /// from the beginning. `state` is a file to save the machine's state to, or to load it from. A machine that boots has
    /// `attachments` from the beginning, too.
    pub(super) fn start(
        spec: &MachineSpec,
        qemu: &Qemu,
        role: &Role,
        gpus: Vec<OwnedFd>,
        state: Option<&File>,
        attachments: Attachments,
    ) -> Result<Self, TcgError> {
        let memory = new_memory("ersatz-guest", spec.resources.memory)?;
        let mailbox = new_memory("ersatz-mailbox", mailbox::SIZE)?;
        let (console, qemu_console) = UnixStream::pair()?;
        let (status, qemu_status) = UnixStream::pair()?;
        let (ready, qemu_ready) = UnixStream::pair()?;
        let (monitor, qemu_monitor) = UnixStream::pair()?;
        let folders = attachments.shares.iter().map(|share| open_folder(&share.host));
        let folders = folders.collect::<Result<Vec<File>, _>>()?;
        let descriptors = GuestDescriptors {
            memory: memory.as_raw_fd(),
            console: qemu_console.as_raw_fd(),
            status: qemu_status.as_raw_fd(),
            ready: qemu_ready.as_raw_fd(),
            monitor: qemu_monitor.as_raw_fd(),
            shares: folders.iter().map(AsRawFd::as_raw_fd).collect(),
            attachments: &attachments,
        };
        let sockets: Vec<RawFd> = gpus.iter().map(AsRawFd::as_raw_fd).collect();
        let initramfs = match role {
            Role::Boot(file) => PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())),
            Role::Prepare | Role::Restore => spec.initramfs.to_path_buf(),
        };
        let start = match role {
            Role::Prepare | Role::Boot(_) => Start::Boot { initramfs: &initramfs, gpus: &sockets },
            Role::Restore => Start::Restore { initramfs: &initramfs },
        };
        let mut command = qemu.command();
        command.args(arguments::arguments(spec, &descriptors, &start));
        let mut given = gpus;
        given.extend(folders.into_iter().map(OwnedFd::from));
        given.extend(attachments.ports.into_iter().map(|port| port.end.into()));
        given.extend([qemu_console, qemu_status, qemu_ready, qemu_monitor].map(OwnedFd::from));
        let mut shared = vec![&memory, &mailbox];
        shared.extend(state);
        if let Role::Boot(file) = role {
            shared.push(file);
        }
        let process = QemuProcess::start(qemu, command, given, &shared)?;
        console.set_nonblocking(true)?;
        let controls = Arc::new(QemuControls::new(monitor)?);
        Ok(Self { process, controls, console, status, ready, memory, mailbox })
    }
}

/// Opens a folder so that QEMU, which has its number, reaches it by that.
fn open_folder(path: &Path) -> Result<File, TcgError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    let failed = |error: Errno| TcgError::Share { path: path.to_owned(), source: error.into() };
    opened.map(File::from).map_err(failed)
}
