// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which machine QEMU is to emulate, and what its monitor says of it.

use std::ffi::OsString;
use std::os::fd::RawFd;

use serde_json::json;

use crate::qemu::timestamp;
use crate::spec::GuestSpec;

/// The processor: all that TCG can do, but without five-level paging, which makes every page walk of the emulator longer.
/// 46 physical address bits make room for a BAR of 1 TiB.
const PROCESSOR: &str = "max,la57=off,phys-bits=46";

/// The I/O port where PID 1 reports an exit status. A debug console there passes all eight bits on; `isa-debug-exit` would
/// make QEMU end with twice the status plus one, of which an exit status has room for half.
const EXIT_PORT: u16 = 0xf4;

/// Words for the kernel that emulation needs: on a busy host the emulated timers are late, which a kernel that checks them
/// against each other takes for broken hardware, and panics ("IO-APIC + timer doesn't work!").
const TIMERS: &str = "no_timer_check tsc=reliable";

/// How long QEMU waits for a reply of the device, in milliseconds; afterwards the link is dead.
const MESSAGE_TIMEOUT: u32 = 60_000;

/// What QEMU is connected to.
pub(super) struct Connections {
    /// Inherited descriptor of the initramfs.
    pub(super) initramfs: RawFd,
    /// Inherited descriptor that the serial port reads and writes.
    pub(super) console: RawFd,
    /// Inherited descriptor that gets what the guest writes to [`EXIT_PORT`].
    pub(super) status: RawFd,
    /// Inherited descriptor for the monitor.
    pub(super) monitor: RawFd,
    /// Inherited descriptors that lead to the devices' sockets, in PCI order.
    pub(super) devices: Vec<RawFd>,
}

/// QEMU's arguments.
pub(super) fn arguments(spec: &GuestSpec, connections: &Connections) -> Vec<OsString> {
    let mebibytes = spec.memory.div_ceil(1 << 20);
    let Connections { initramfs, console, status, monitor, devices } = connections;
    let words = [
        "-accel tcg,thread=multi -display none -nodefaults -no-user-config -no-reboot".to_owned(),
        format!("-cpu {PROCESSOR} -smp {}", spec.vcpus),
        format!("-object memory-backend-memfd,id=ram,size={mebibytes}M,share=on"),
        format!("-machine q35,memory-backend=ram -m {mebibytes}M"),
        format!("-chardev socket,id=console,fd={console} -serial chardev:console"),
        format!("-chardev socket,id=status,fd={status}"),
        format!("-device isa-debugcon,iobase={EXIT_PORT:#x},chardev=status"),
        format!("-chardev socket,id=monitor,fd={monitor} -qmp chardev:monitor"),
        format!("-initrd /proc/self/fd/{initramfs}"),
    ];
    let mut arguments: Vec<OsString> = words.iter().flat_map(|text| text.split(' ')).map(OsString::from).collect();
    for socket in devices {
        let device = json!({
            "driver": "vfio-user-pci",
            "socket": { "type": "unix", "path": format!("/proc/self/fd/{socket}") },
            "x-msg-timeout": MESSAGE_TIMEOUT,
        });
        arguments.extend(["-device".into(), device.to_string().into()]);
    }
    arguments.extend(["-kernel".into(), spec.kernel.clone().into()]);
    arguments
        .extend(["-append".into(), format!("{TIMERS} {} {}", timestamp::kernel_argument(), spec.command_line).into()]);
    arguments
}

/// A line a vCPU out of what the monitor prints of their registers.
pub(super) fn summarize_registers(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut vcpu = "vCPU ?".to_owned();
    for line in text.lines() {
        if let Some(number) = line.trim().strip_prefix("CPU#") {
            vcpu = format!("vCPU {number}");
        }
        let register = |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name));
        if let Some(rip) = register("RIP=") {
            let privilege = register("CPL=").map_or("", |level| if level == "0" { " (kernel)" } else { " (user)" });
            let halted = if register("HLT=") == Some("1") { ", halted" } else { "" };
            lines.push(format!("{vcpu}: rip 0x{rip}{privilege}{halted}"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::GpuSpec;

    #[test]
    fn every_device_has_its_socket_and_memory_is_shared() {
        let gpu = GpuSpec::new(1 << 30);
        let spec = GuestSpec {
            kernel: "/my kernel".into(),
            initramfs: "/i".into(),
            initramfs_tail: Vec::new(),
            command_line: "console=ttyS0 panic=-1".to_owned(),
            vcpus: 2,
            memory: 1 << 30,
            devices: vec![gpu.clone(), gpu],
            exit_counts: false,
            timeout: None,
        };
        let devices = vec![7, 8];
        let arguments = arguments(&spec, &Connections { initramfs: 3, console: 4, status: 5, monitor: 6, devices });
        let text: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
        assert!(text.contains(&"memory-backend-memfd,id=ram,size=1024M,share=on"), "{text:?}");
        assert!(text.contains(&"/my kernel"), "{text:?}");
        assert!(text.iter().any(|word| word.ends_with(" console=ttyS0 panic=-1")), "{text:?}");
        let sockets = text.iter().filter(|word| word.contains("vfio-user-pci") && word.contains("/proc/self/fd/"));
        assert_eq!(sockets.count(), 2);
    }

    #[test]
    fn registers_become_a_line_a_vcpu() {
        let text = "\nCPU#0\r\nRAX=0 RBX=1\nRIP=ffffffff81000010 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\n\
                    CPU#1\nRIP=0000000000401000 RFL=00000202 [-------] CPL=3 II=0 A20=1 SMM=0 HLT=0\n";
        assert_eq!(
            summarize_registers(text),
            ["vCPU 0: rip 0xffffffff81000010 (kernel), halted", "vCPU 1: rip 0x0000000000401000 (user)"]
        );
        assert!(summarize_registers("").is_empty());
    }
}
