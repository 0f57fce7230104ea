// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The outer machine: which machine QEMU emulates, and what it is connected to.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use ersatz_guest_image::outer::PORT_NAME;
use ersatz_guest_image::ports::READY_PORT;

use super::image::assemble;
use super::{Artifacts, NestedError, OuterJob, utf8};
use crate::accel::served_gpus::{Devices, gpu};
use crate::gpu::registry::GpuRegistry;
use crate::qemu::migration::{self, MigrationError};
use crate::qemu::{Monitor, PROCESSOR, QemuProcess, QmpError, mailbox, timestamp};
use crate::snapshot::key::KeyBuilder;
use crate::snapshot::ram::new_memory;

/// The outer kernel's command line. The outer machine is a means, not the thing under test, so it spares what costs
/// boot time without protecting anything here: mitigations, checks of timers (which are late on a busy host) and of its own
/// mappings. A panic resets, which ends QEMU.
const COMMAND_LINE: &str = "console=ttyS0 loglevel=5 panic=-1 oops=panic mitigations=off tsc=reliable no_timer_check \
                            nokaslr rodata=off random.trust_cpu=on";

/// Words for the outer kernel of a machine with an IOMMU. Its own devices are not behind it.
const IOMMU_WORDS: &str = "intel_iommu=on iommu=pt";

/// How many lines of each output to show when the machine failed.
const LAST_LINES: usize = 15;

/// The root port that the mailbox is plugged into.
const MAILBOX_PORT_NAME: &str = "mailbox-port";
/// It, and what it has room for.
const MAILBOX_PORT: &str =
    "pcie-root-port,id=mailbox-port,chassis=1,slot=1,pref64-reserve=2G,mem-reserve=2M,io-reserve=0";

/// How an outer machine starts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start<'a> {
    /// It boots and does a job.
    Boot(&'a OuterJob),
    /// It waits for the state of one that has booted, whose memory is at the beginning of this file. Its writes do not go to the
    /// file.
    Restore(&'a File),
}

/// A running outer machine.
#[derive(Debug)]
pub(super) struct OuterMachine {
    /// QEMU. Its standard output is the outer kernel's console.
    pub(super) process: QemuProcess,
    /// The host's end of the virtio-serial port.
    pub(super) port: UnixStream,
    /// Becomes readable when the guest in the outer machine is ready for its run.
    pub(super) ready: UnixStream,
    /// QEMU's monitor.
    pub(super) monitor: Monitor,
    /// The machine's memory; that of a restored one is what it started from.
    pub(super) memory: File,
    /// The GPUs that this process serves. They end after QEMU.
    _gpus: Devices,
}

/// The descriptors by which QEMU is connected. QEMU inherits them under these numbers.
#[derive(Clone, Copy, Debug)]
struct OuterDescriptors {
    memory: RawFd,
    port: RawFd,
    ready: RawFd,
    monitor: RawFd,
}

impl OuterMachine {
    /// Starts a machine with `memory` bytes of memory. QEMU inherits `shared`: files to save a state to or to load one from, and
    /// for devices to be plugged in.
    pub(super) fn start(
        artifacts: &Artifacts,
        start: Start<'_>,
        memory: u64,
        shared: &[&File],
    ) -> Result<Self, NestedError> {
        let size = memory;
        let new;
        let (ram, is_shared) = match start {
            Start::Boot(_) => {
                new = new_memory("ersatz-outer", size).map_err(NestedError::Scratch)?;
                (&new, true)
            }
            Start::Restore(file) => (file, false),
        };
        let pair = || UnixStream::pair().map_err(NestedError::Socket);
        let ((port, qemu_port), (ready, qemu_ready), (monitor, qemu_monitor)) = (pair()?, pair()?, pair()?);
        let mut given = Vec::from([qemu_port, qemu_ready, qemu_monitor].map(OwnedFd::from));
        let descriptors = OuterDescriptors {
            memory: ram.as_raw_fd(),
            port: given[0].as_raw_fd(),
            ready: given[1].as_raw_fd(),
            monitor: given[2].as_raw_fd(),
        };
        let gpus = match start {
            Start::Boot(job) => Devices::start(&job.gpus, &GpuRegistry::default())?,
            Start::Restore(_) => Devices::start(&[], &GpuRegistry::default())?,
        };
        let sockets = gpus.sockets().map_err(NestedError::Socket)?;
        let has_iommu = !sockets.is_empty();
        let mut command = artifacts.qemu.command();
        command
            .args(hardware(&descriptors, size, is_shared, has_iommu))
            .args((0..).zip(&sockets).flat_map(|(number, socket)| gpu_arguments(number, socket.as_raw_fd())))
            .arg("-kernel")
            .arg(utf8(&artifacts.kernel)?)
            .arg("-initrd");
        match start {
            Start::Boot(job) => {
                let initramfs = assemble(&artifacts.initramfs, job)?;
                command.arg(format!("/proc/self/fd/{}", initramfs.as_raw_fd()));
                let iommu = if has_iommu { IOMMU_WORDS } else { "" };
                command.args(["-append", &format!("{COMMAND_LINE} {iommu} {}", timestamp::kernel_argument())]);
                for (index, (folder, _)) in job.folders.iter().enumerate() {
                    command.args(share(&OuterJob::tag(index), folder)?);
                }
                given.push(initramfs);
            }
            Start::Restore(_) => {
                command.arg(utf8(&artifacts.initramfs)?).args(["-incoming", "defer"]);
            }
        }
        given.extend(sockets);
        let files = [&[ram], shared].concat();
        let process = QemuProcess::start(&artifacts.qemu, command, given, &files)?;
        let monitor = Monitor::new(monitor).map_err(NestedError::Socket)?;
        let memory = ram.try_clone().map_err(NestedError::Scratch)?;
        Ok(Self { process, port, ready, monitor, memory, _gpus: gpus })
    }

    /// Loads a state, which is one of the files that QEMU has inherited. The machine stays stopped.
    pub(super) fn load(&mut self, state: &File) -> Result<(), NestedError> {
        migration::load(&mut self.monitor, state).map_err(|error| match self.process.try_wait() {
            // QEMU ends when it rejects a state.
            Ok(Some(_)) | Err(_) if !matches!(error, MigrationError::Failed { .. }) => {
                NestedError::Migration(MigrationError::Failed { what: "load", reason: self.last_words() })
            }
            _ => NestedError::Migration(error),
        })
    }

    /// Plugs in the mailbox. Its memory is one of the files that QEMU has inherited.
    pub(super) fn plug_mailbox(&mut self, memory: &File) -> Result<(), QmpError> {
        for (command, arguments) in mailbox::commands(memory.as_raw_fd(), MAILBOX_PORT_NAME) {
            self.monitor.execute(command, &arguments)?;
        }
        Ok(())
    }

    /// Returns the end of the messages of QEMU and of the outer kernel.
    pub(super) fn last_words(&self) -> String {
        let mut lines = self.process.errors.last_lines(LAST_LINES);
        lines.extend(self.process.output.last_lines(LAST_LINES));
        if lines.is_empty() {
            return "  (nothing)".to_owned();
        }
        lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
    }
}

/// The machine: what must be the same where a state is saved and where it is loaded. One processor: with two, about one guest in
/// twelve loses a vCPU's timer.
fn hardware(descriptors: &OuterDescriptors, memory: u64, is_shared: bool, has_iommu: bool) -> Vec<OsString> {
    let OuterDescriptors { memory: ram, port, ready, monitor } = descriptors;
    let mebibytes = memory.div_ceil(1 << 20);
    // Memory that is saved must be shared, or QEMU would save it itself; memory of a snapshot must not be written to.
    let share = if is_shared { "on" } else { "off" };
    // It remaps interrupts, without which the kernel hands out no devices, and QEMU wants to see each change of its maps. It comes
    // before all devices that are behind it.
    let (irqchip, iommu) =
        if has_iommu { (",kernel-irqchip=split", "-device intel-iommu,intremap=on,caching-mode=on") } else { ("", "") };
    let words = [
        "-accel tcg -smp 1 -display none -nodefaults -no-user-config -no-reboot".to_owned(),
        format!("-cpu {PROCESSOR},vmx=off,svm=on"),
        format!("-object memory-backend-file,id=ram,size={mebibytes}M,mem-path=/proc/self/fd/{ram},share={share}"),
        format!("-machine q35,memory-backend=ram{irqchip} -m {mebibytes}M"),
        iommu.to_owned(),
        "-chardev stdio,id=log,signal=off -serial chardev:log".to_owned(),
        "-device virtio-serial-pci".to_owned(),
        format!("-chardev socket,id=port,fd={port}"),
        format!("-device virtserialport,chardev=port,name={PORT_NAME}"),
        format!("-chardev socket,id=ready,fd={ready}"),
        format!("-device isa-debugcon,iobase={READY_PORT:#x},chardev=ready"),
        format!("-chardev socket,id=monitor,fd={monitor} -qmp chardev:monitor"),
        format!("-device {MAILBOX_PORT}"),
    ];
    words.iter().flat_map(|text| text.split_whitespace()).map(OsString::from).collect()
}

/// A GPU that this process serves, behind a root port of its own.
fn gpu_arguments(number: u8, socket: RawFd) -> [OsString; 4] {
    let (bus, slot) = (format!("gpu-port{number}"), number + 2);
    let port = format!("pcie-root-port,id={bus},chassis={slot},slot={slot},io-reserve=0");
    ["-device".into(), port.into(), "-device".into(), gpu(socket, number, &bus).to_string().into()]
}

/// Adds to a key all of QEMU's arguments that describe the machine, except the numbers of descriptors and the measured frequency
/// of the clock.
pub(super) fn add_to_key(key: &mut KeyBuilder, memory: u64) {
    let nowhere = OuterDescriptors { memory: 0, port: 0, ready: 0, monitor: 0 };
    hardware(&nowhere, memory, true, false).iter().for_each(|word| key.text(&word.to_string_lossy()));
    key.text(COMMAND_LINE);
}

/// The arguments for one shared folder.
fn share(tag: &str, folder: &Path) -> Result<[String; 2], NestedError> {
    // In QEMU's option syntax a comma ends a value, and two are one.
    let folder = utf8(folder)?.replace(',', ",,");
    Ok(["-virtfs".to_owned(), format!("local,path={folder},mount_tag={tag},security_model=none,readonly=on")])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_a_shared_folder_is_doubled() {
        let [_, value] = share("t", Path::new("/a,b")).unwrap();
        assert!(value.contains("path=/a,,b,mount_tag=t"), "{value}");
    }

    #[test]
    fn memory_is_a_file_of_ours() {
        let words = hardware(&OuterDescriptors { memory: 7, port: 8, ready: 9, monitor: 10 }, 1 << 30, true, false);
        let memory = "memory-backend-file,id=ram,size=1024M,mem-path=/proc/self/fd/7,share=on";
        assert!(words.contains(&OsString::from(memory)), "{words:?}");
        assert!(words.contains(&OsString::from("socket,id=port,fd=8")), "{words:?}");
    }
}
