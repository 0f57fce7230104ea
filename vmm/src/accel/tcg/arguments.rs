// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine that QEMU emulates, as its arguments, and what its monitor prints about it.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use ersatz_device_model::fabric::FABRIC_PORTS;
use ersatz_guest_image::ports::{EXIT_PORT, READY_PORT};
use ersatz_guest_image::run::WAIT_FOR_RUN;
use ersatz_guest_image::share::tag;
use serde_json::{Value, json};

use super::KIND;
use crate::accel::served_gpus::gpu;
use crate::attachments::Attachments;
use crate::guest_port::GuestPort;
use crate::qemu::{PROCESSOR, Qemu, timestamp};
use crate::snapshot::key::{Key, KeyBuilder, KeyError};
use crate::spec::MachineSpec;

/// Words for the kernel that emulation needs: on a busy host the emulated timers are late, which a kernel that checks them
/// against each other takes for broken hardware, and panics ("IO-APIC + timer doesn't work!").
const TIMERS: &str = "no_timer_check tsc=reliable";

/// Windows of each root port: the largest BAR2 of a GPU, and the other BARs. They are fixed at boot, before anything is plugged
/// in. All are of one size, which aligns each for a BAR of that size: the firmware places one behind the other and does not align
/// them.
const PORT_WINDOWS: &str = "pref64-reserve=1T,mem-reserve=2M";

/// The root port that the mailbox is plugged into.
pub(super) const MAILBOX_PORT: &str = "mailbox-port";

/// The descriptors by which QEMU is connected. QEMU inherits them under these numbers.
#[derive(Clone, Debug)]
pub(super) struct GuestDescriptors<'a> {
    /// Guest memory, shared with the devices.
    pub(super) memory: RawFd,
    /// What the serial port reads and writes.
    pub(super) console: RawFd,
    /// Receives what the guest writes to [`EXIT_PORT`].
    pub(super) status: RawFd,
    /// Receives what the guest writes to [`READY_PORT`].
    pub(super) ready: RawFd,
    /// The monitor.
    pub(super) monitor: RawFd,
    /// The shared folders of `attachments`.
    pub(super) shares: Vec<RawFd>,
    /// What else the guest is connected with.
    pub(super) attachments: &'a Attachments,
}

/// How a machine starts.
#[derive(Debug)]
pub(super) enum Start<'a> {
    /// It boots, with this initramfs, and GPUs behind the sockets that these descriptors lead to.
    Boot {
        /// The file.
        initramfs: &'a Path,
        /// In PCI order.
        gpus: &'a [RawFd],
    },
    /// It waits for the state of one that has booted.
    Restore {
        /// The initramfs that one booted with, of which QEMU keeps a copy.
        initramfs: &'a Path,
    },
}

/// QEMU's arguments.
pub(super) fn arguments(machine: &MachineSpec, descriptors: &GuestDescriptors<'_>, start: &Start<'_>) -> Vec<OsString> {
    let mut arguments = hardware(machine, descriptors);
    arguments.extend(backends(descriptors).into_iter().map(OsString::from));
    let initramfs = match start {
        Start::Boot { initramfs, gpus } => {
            for (&socket, port) in gpus.iter().zip(0..) {
                arguments.extend(["-device".into(), gpu(socket, port, &gpu_port(port)).to_string().into()]);
            }
            for device in attached_devices(descriptors.attachments, None) {
                arguments.extend(["-device".into(), device.to_string().into()]);
            }
            let clock = timestamp::kernel_argument();
            let line = format!("{TIMERS} {clock} {WAIT_FOR_RUN} {}", machine.command_line);
            arguments.extend(["-append".into(), line.into()]);
            initramfs
        }
        Start::Restore { initramfs } => {
            arguments.extend(["-incoming".into(), "defer".into()]);
            initramfs
        }
    };
    arguments.extend(["-kernel".into(), PathBuf::from(machine.kernel.clone()).into()]);
    arguments.extend(["-initrd".into(), (*initramfs).into()]);
    arguments
}

/// The machine without its GPUs: what must be the same where a state is saved and where it is loaded.
fn hardware(machine: &MachineSpec, descriptors: &GuestDescriptors<'_>) -> Vec<OsString> {
    let mebibytes = machine.resources.memory.div_ceil(1 << 20);
    let GuestDescriptors { memory, console, status, ready, monitor, .. } = descriptors;
    let mut words = vec![
        "-accel tcg,thread=multi -display none -nodefaults -no-user-config -no-reboot".to_owned(),
        format!("-cpu {PROCESSOR} -smp {}", machine.resources.vcpus),
        format!("-object memory-backend-file,id=ram,size={mebibytes}M,mem-path=/proc/self/fd/{memory},share=on"),
        format!("-machine q35,memory-backend=ram -m {mebibytes}M"),
        // Makes the kernel of a restored guest reseed its random numbers, which other guests have, too.
        "-device vmgenid,guid=auto".to_owned(),
        format!("-chardev socket,id=console,fd={console} -serial chardev:console"),
        format!("-chardev socket,id=status,fd={status}"),
        format!("-device isa-debugcon,iobase={EXIT_PORT:#x},chardev=status"),
        format!("-chardev socket,id=ready,fd={ready}"),
        format!("-device isa-debugcon,iobase={READY_PORT:#x},chardev=ready"),
        format!("-chardev socket,id=monitor,fd={monitor} -qmp chardev:monitor"),
    ];
    let port = |name: &str, slot: u8, windows: &str| {
        format!("-device pcie-root-port,id={name},chassis={},slot={slot},{windows},io-reserve=0", slot + 1)
    };
    words.extend((0..FABRIC_PORTS).map(|slot| port(&gpu_port(slot), slot, PORT_WINDOWS)));
    words.push(port(MAILBOX_PORT, FABRIC_PORTS, PORT_WINDOWS));
    words.iter().flat_map(|text| text.split(' ')).map(OsString::from).collect()
}

/// The name of a GPU's root port, behind which it is as on a real board.
pub(super) fn gpu_port(number: u8) -> String {
    format!("port{number}")
}

/// The name of a shared folder, for QEMU.
fn share(number: usize) -> String {
    format!("share{number}")
}

/// What the attached devices are connected with, as arguments: descriptors that QEMU has inherited.
///
/// A guest has the rights in a shared folder that QEMU has; who owns a file is changed if QEMU may do that.
fn backends(descriptors: &GuestDescriptors<'_>) -> Vec<String> {
    let Attachments { ports, shares } = descriptors.attachments;
    let ports = ports.iter().flat_map(|GuestPort { name, end }| {
        ["-chardev".to_owned(), format!("socket,id={name},fd={}", end.as_raw_fd())]
    });
    let shares = shares.iter().zip(&descriptors.shares).enumerate().flat_map(|(number, (folder, fd))| {
        let access = if folder.read_only { "on" } else { "off" };
        let share = share(number);
        let path = format!("path=/proc/self/fd/{fd}");
        let words = format!("local,id={share},{path},security_model=none,multidevs=remap,readonly={access}");
        ["-fsdev".to_owned(), words]
    });
    ports.chain(shares).collect()
}

/// The function of the mailbox's slot that the ports are; shared folders are behind it.
const PORTS_FUNCTION: usize = 1;

/// The devices of what a guest is attached to, as QEMU takes them on the command line and by `device_add`: a virtio-serial bus, its
/// ports, a 9p device for each shared folder. Each is connected with the back end of its name.
///
/// A machine that runs has them in `port`, as further functions of the device that is plugged in there afterwards: PCI makes
/// functions known together with function 0. With no `port` they are on the root bus.
pub(super) fn attached_devices(attachments: &Attachments, port: Option<&str>) -> Vec<Value> {
    let placed = |mut device: Value, function: usize| {
        if let Some(port) = port {
            device["bus"] = port.into();
            device["addr"] = format!("0.{function}").into();
        }
        device
    };
    let shares = (0..attachments.shares.len()).map(|number| {
        let device = json!({
            "driver": "virtio-9p-pci",
            "id": share(number),
            "fsdev": share(number),
            "mount_tag": tag(number),
        });
        placed(device, PORTS_FUNCTION + 1 + number)
    });
    let ports = port_devices(&attachments.ports);
    ports
        .into_iter()
        .enumerate()
        .map(|(index, device)| if index == 0 { placed(device, PORTS_FUNCTION) } else { device })
        .chain(shares)
        .collect()
}

/// A virtio-serial bus and its ports, if there are some.
fn port_devices(ports: &[GuestPort]) -> Vec<Value> {
    const BUS: &str = "ports";
    if ports.is_empty() {
        return Vec::new();
    }
    let bus = json!({ "driver": "virtio-serial-pci", "id": BUS, "max_ports": ports.len() + 1 });
    let ports = ports.iter().enumerate().map(|(number, GuestPort { name, .. })| {
        json!({
            "driver": "virtserialport",
            "id": format!("{BUS}{number}"),
            "bus": format!("{BUS}.0"),
            "chardev": name,
            "name": name,
        })
    });
    std::iter::once(bus).chain(ports).collect()
}

/// The key of the snapshot that a guest may start from.
///
/// # Errors
///
/// Fails if a file that the guest boots with is not there.
pub(super) fn snapshot_key(machine: &MachineSpec, qemu: &Qemu) -> Result<Key, KeyError> {
    let mut key = KeyBuilder::new(KIND);
    // All of QEMU's arguments except the numbers of descriptors and the measured frequency of the clock.
    let (shares, attachments) = (Vec::new(), &Attachments::default());
    let nowhere = GuestDescriptors { memory: 0, console: 0, status: 0, ready: 0, monitor: 0, shares, attachments };
    hardware(machine, &nowhere).iter().for_each(|word| key.text(&word.to_string_lossy()));
    key.text(TIMERS);
    key.text(&machine.command_line);
    key.file(&qemu.program())?;
    key.file(&machine.kernel)?;
    key.file(&machine.initramfs)?;
    Ok(key.finish())
}

/// Returns a line per vCPU, from what the monitor prints of their registers.
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
    use ersatz_guest_image::run::STREAM_PORTS;

    use super::*;
    use crate::share::SharedFolder;
    use crate::spec::Resources;

    fn machine() -> MachineSpec {
        MachineSpec {
            kernel: "/proc/self/exe".into(),
            initramfs: "/proc/self/exe".into(),
            command_line: "console=ttyS0 panic=-1".to_owned(),
            resources: Resources { vcpus: 2, memory: 1 << 30 },
        }
    }

    fn text(start: &Start<'_>, attachments: &Attachments) -> Vec<String> {
        let shares = vec![21; attachments.shares.len()];
        let descriptors =
            GuestDescriptors { memory: 3, console: 5, status: 6, ready: 7, monitor: 8, shares, attachments };
        let machine = MachineSpec { kernel: "/my kernel".into(), ..machine() };
        let arguments = arguments(&machine, &descriptors, start);
        arguments.into_iter().map(|argument| argument.into_string().unwrap()).collect()
    }

    #[test]
    fn every_device_has_its_socket_and_memory_is_shared() {
        let port = |name| GuestPort { name, end: std::os::unix::net::UnixStream::pair().unwrap().0 };
        let ports = vec![port(STREAM_PORTS[0]), port(STREAM_PORTS[1]), port("another")];
        let shares = vec![SharedFolder::parse("/:/x,ro").unwrap(), SharedFolder::parse("/:/y").unwrap()];
        let attachments = Attachments { ports, shares };
        let text = text(&Start::Boot { initramfs: Path::new("/i"), gpus: &[17, 18] }, &attachments);
        assert!(
            text.contains(&"memory-backend-file,id=ram,size=1024M,mem-path=/proc/self/fd/3,share=on".to_owned()),
            "{text:?}"
        );
        assert!(text.contains(&"/my kernel".to_owned()), "{text:?}");
        assert!(text.iter().any(|word| word.ends_with(" console=ttyS0 panic=-1")), "{text:?}");
        let sockets = text.iter().filter(|word| word.contains("vfio-user-pci") && word.contains("/proc/self/fd/1"));
        assert_eq!(sockets.count(), 2);
        for GuestPort { name: port, end } in &attachments.ports {
            let fd = end.as_raw_fd();
            let named = format!("\"name\":\"{port}\"");
            assert_eq!(text.iter().filter(|word| word.contains(&named)).count(), 1, "{port}: {text:?}");
            assert!(text.contains(&format!("socket,id={port},fd={fd}")), "{port}: {text:?}");
        }
        let shares: Vec<&String> = text.iter().filter(|word| word.starts_with("local,id=share")).collect();
        assert!(shares[0].contains("path=/proc/self/fd/21,") && shares[0].ends_with("readonly=on"), "{shares:?}");
        assert!(shares.len() == 2 && shares[1].ends_with("readonly=off"), "{shares:?}");
        let functions = attached_devices(&attachments, Some("p"));
        let functions: Vec<&str> = functions.iter().filter_map(|device| device["addr"].as_str()).collect();
        assert_eq!(functions, ["0.1", "0.2", "0.3"]);
    }

    #[test]
    fn a_restored_machine_differs_only_in_how_it_starts() {
        let booted = text(&Start::Boot { initramfs: Path::new("/i"), gpus: &[] }, &Attachments::default());
        let restored = text(&Start::Restore { initramfs: Path::new("/i") }, &Attachments::default());
        let differing = |word: &&String| !booted.contains(word);
        assert_eq!(restored.iter().filter(differing).collect::<Vec<_>>(), ["-incoming", "defer"]);
    }

    #[test]
    fn a_key_is_for_one_machine() {
        let qemu = Qemu::Host("/proc/self/exe".into());
        let key = |machine: &MachineSpec| snapshot_key(machine, &qemu).unwrap();
        let first = key(&machine());
        assert_eq!(first, key(&machine()));
        for other in [
            MachineSpec { resources: Resources { vcpus: 1, ..machine().resources }, ..machine() },
            MachineSpec { resources: Resources { memory: 2 << 30, ..machine().resources }, ..machine() },
            MachineSpec { command_line: "quiet".to_owned(), ..machine() },
            MachineSpec { kernel: "/bin/sh".into(), ..machine() },
            MachineSpec { initramfs: "/bin/sh".into(), ..machine() },
        ] {
            assert_ne!(first, key(&other), "{other:?}");
        }
        assert!(snapshot_key(&MachineSpec { kernel: "/nowhere".into(), ..machine() }, &qemu).is_err());
    }

    #[test]
    fn registers_become_a_line_per_vcpu() {
        let text = "\nCPU#0\r\nRAX=0 RBX=1\nRIP=ffffffff81000010 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\n\
                    CPU#1\nRIP=0000000000401000 RFL=00000202 [-------] CPL=3 II=0 A20=1 SMM=0 HLT=0\n";
        assert_eq!(
            summarize_registers(text),
            ["vCPU 0: rip 0xffffffff81000010 (kernel), halted", "vCPU 1: rip 0x0000000000401000 (user)"]
        );
        assert!(summarize_registers("").is_empty());
    }
}
