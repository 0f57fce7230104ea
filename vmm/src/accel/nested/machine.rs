// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The outer machine: which machine QEMU emulates, and what it is connected to.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use ersatz_guest_image::outer::PORT_NAME;

use super::image::assemble;
use super::{Ground, NestedError, OuterJob, utf8};
use crate::qemu::{QemuProcess, timestamp};

/// The processor: all that TCG can do, with SVM, but without five-level paging, which makes every page walk of the
/// emulator longer. 46 physical address bits make room for a BAR of 1 TiB; the guest's processor has as many.
const PROCESSOR: &str = "max,+svm,vmx=off,la57=off,phys-bits=46";

/// The outer kernel's command line. The outer machine is a means, not the thing under test, so it spares what costs
/// boot time and protects nobody here: mitigations, checks of timers (which are late on a busy host) and of its own
/// mappings. A panic resets, which ends QEMU.
const COMMAND_LINE: &str = "console=ttyS0 loglevel=5 panic=-1 oops=panic mitigations=off tsc=reliable no_timer_check \
                            nokaslr rodata=off random.trust_cpu=on";

/// How many lines of each of its voices to show when the machine failed.
const LAST_LINES: usize = 15;

/// A running outer machine.
#[derive(Debug)]
pub(super) struct OuterMachine {
    /// QEMU. Its standard output is the outer kernel's console.
    pub(super) process: QemuProcess,
    /// The host's end of the virtio-serial port.
    pub(super) port: UnixStream,
}

impl OuterMachine {
    /// Starts one.
    pub(super) fn start(ground: &Ground, job: &OuterJob, memory: u64) -> Result<Self, NestedError> {
        let initramfs = assemble(&ground.initramfs, job)?;
        let (port, qemu_port) = UnixStream::pair().map_err(NestedError::Socket)?;
        let qemu_port = OwnedFd::from(qemu_port);
        let mut command = ground.qemu.command();
        command.args(arguments(&ground.kernel, &initramfs, &qemu_port, memory)?);
        for (index, (folder, _)) in job.folders.iter().enumerate() {
            command.args(share(&OuterJob::tag(index), folder)?);
        }
        let process = QemuProcess::start(&ground.qemu, command, vec![initramfs, qemu_port], &[])?;
        Ok(Self { process, port })
    }

    /// The end of what QEMU and the outer kernel said.
    pub(super) fn last_words(&self) -> String {
        let mut lines = self.process.errors.last_lines(LAST_LINES);
        lines.extend(self.process.output.last_lines(LAST_LINES));
        if lines.is_empty() {
            return "  (nothing)".to_owned();
        }
        lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
    }
}

/// QEMU's arguments, without shares. One processor: with two, about one guest in twelve loses a vCPU's timer.
fn arguments(kernel: &Path, initramfs: &OwnedFd, port: &OwnedFd, memory: u64) -> Result<Vec<OsString>, NestedError> {
    let words = [
        "-machine q35 -accel tcg -smp 1 -display none -nodefaults -no-user-config -no-reboot".to_owned(),
        format!("-cpu {PROCESSOR}"),
        format!("-m {}", memory.div_ceil(1 << 20)),
        "-chardev stdio,id=log,signal=off -serial chardev:log".to_owned(),
        "-device virtio-serial-pci".to_owned(),
        format!("-chardev socket,id=port,fd={}", port.as_raw_fd()),
        format!("-device virtserialport,chardev=port,name={PORT_NAME}"),
        format!("-initrd /proc/self/fd/{}", initramfs.as_raw_fd()),
    ];
    let mut arguments: Vec<OsString> = words.iter().flat_map(|text| text.split(' ')).map(OsString::from).collect();
    let command_line = format!("{COMMAND_LINE} {}", timestamp::kernel_argument());
    arguments.extend(["-kernel".into(), utf8(kernel)?.into(), "-append".into(), command_line.into()]);
    Ok(arguments)
}

/// The arguments for one shared folder.
fn share(tag: &str, folder: &Path) -> Result<[String; 2], NestedError> {
    // In QEMU's option syntax a comma ends a value, and two are one.
    let folder = utf8(folder)?.replace(',', ",,");
    Ok(["-virtfs".to_owned(), format!("local,path={folder},mount_tag={tag},security_model=none,readonly=on")])
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_comma_in_a_shared_folder_is_doubled() {
        let [_, value] = share("t", Path::new("/a,b")).unwrap();
        assert!(value.contains("path=/a,,b,mount_tag=t"), "{value}");
    }

    #[test]
    fn blanks_in_the_kernels_path_stay_in_one_word() {
        let null = || OwnedFd::from(File::open("/dev/null").unwrap());
        let arguments = arguments(Path::new("/my kernel"), &null(), &null(), 1 << 30).unwrap();
        assert!(arguments.contains(&OsString::from("/my kernel")));
        assert!(arguments.contains(&OsString::from("1024")));
    }
}
