// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tiny guests on the host's KVM: how a machine ends, what exits it counts, looking into it while it runs.
//!
//! They are made of instructions that even a KVM in software runs, so they run wherever `/dev/kvm` can be opened, and
//! fail where it cannot.

mod machine_code;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use ersatz::machine::{Console, End, ExitKind, Machine, MachineConfig, MachineError, Payload, VcpuError};
use machine_code::Code;

/// A sink that sends each byte to whoever waits for it.
struct Bytes(Sender<u8>);

impl io::Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            self.0.send(*byte).map_err(io::Error::other)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn machine(code: Code) -> Machine {
    machine_with(code, Console { output: Box::new(io::sink()), input: None })
}

fn machine_with(code: Code, console: Console) -> Machine {
    Machine::new(&config(code), Vec::new(), console).expect("these tests need /dev/kvm")
}

fn config(code: Code) -> MachineConfig {
    let payload = Payload::Code { code: code.bytes(), mapped: 4 << 30 };
    MachineConfig { vcpus: 1, memory: 4 << 20, payload }
}

/// Runs code that ends by itself.
fn end_of(code: Code) -> End {
    machine(code).run().expect("the guest runs to its end")
}

#[test]
fn the_exit_port_gives_the_status() {
    assert_eq!(end_of(Code::new().out8(0xf4, 42)), End::Exited(42));
}

#[test]
fn sleep_control_powers_off_only_with_the_enable_bit() {
    assert_eq!(end_of(Code::new().out8(0x600, 5 << 2).out8(0x600, 5 << 2 | 1 << 5)), End::PoweredOff);
}

#[test]
fn the_reset_register_and_the_keyboard_controller_reset() {
    assert_eq!(end_of(Code::new().out8(0x602, 0).out8(0x602, 1)), End::Reset);
    assert_eq!(end_of(Code::new().out8(0x64, 0xfe)), End::Reset);
}

#[test]
fn what_is_not_there_reads_as_ones() {
    assert_eq!(end_of(Code::new().in8(0x1234).exit_with_al()), End::Exited(0xff));
    assert_eq!(end_of(Code::new().load32(0xd000_0000).exit_with_al()), End::Exited(0xff));
}

#[test]
fn exits_are_counted_by_kind() {
    // Config space of 00:00.0 by ECAM, twice, and by its ports, once; nothing at 0xd0000000; the serial port; two other ports.
    let code = Code::new().load32(0xe000_0000).store32(0xe000_0004, 0).in8(0xcfc).load32(0xd000_0000);
    let code = code.out8(0x3f8, 0).out8(0x80, 0).out8(0xf4, 0);
    let machine = machine(code);
    let handle = machine.handle();
    assert_eq!(machine.run().unwrap(), End::Exited(0));
    let exits = handle.exits();
    let of = |kind| exits.of(kind);
    assert_eq!((of(ExitKind::ConfigSpace), of(ExitKind::Unclaimed), of(ExitKind::Port)), (3, 1, 2), "{exits}");
    assert_eq!(of(ExitKind::Serial), 1, "{exits}");
    assert_eq!((of(ExitKind::Bar), of(ExitKind::MappedBar)), (0, 0), "{exits}");
}

#[test]
fn the_host_bridge_is_there_by_ecam_and_by_ports() {
    assert_eq!(end_of(Code::new().load32(0xe000_0000).exit_with_al()), End::Exited(0x34));
    let by_ports = Code::new().out32(0xcf8, 0x8000_0000).in32(0xcfc).exit_with_al();
    assert_eq!(end_of(by_ports), End::Exited(0x34));
    // Devices 1 to 8 are root ports, and the next is not there.
    assert_eq!(end_of(Code::new().load32(0xe004_0000).exit_with_al()), End::Exited(0x34));
    assert_eq!(end_of(Code::new().load32(0xe004_8000).exit_with_al()), End::Exited(0xff));
}

#[test]
fn a_running_guest_says_where_it_is_and_can_be_stopped() {
    let (sender, receiver) = channel();
    let console = Console { output: Box::new(Bytes(sender)), input: None };
    let code = Code::new().out8(0x3f8, b'!').spin();
    let machine = machine_with(code, console);
    let handle = machine.handle();
    let runner = thread::spawn(move || machine.run());
    assert_eq!(receiver.recv().unwrap(), b'!');
    let states = handle.vcpus();
    assert_eq!(states.len(), 1, "the vCPU answers");
    assert!((0x10_0000..0x10_1000).contains(&states[0].rip), "{}", states[0]);
    assert_eq!(states[0].cpl, 0);
    handle.stop();
    assert_eq!(runner.join().unwrap().unwrap(), End::Stopped);
    assert!(handle.vcpus().is_empty(), "a machine that has ended has no vCPUs");
}

#[test]
fn console_input_reaches_the_guest() {
    let (mut writer, reader) = UnixStream::pair().unwrap();
    io::Write::write_all(&mut writer, b"*").unwrap();
    // Asks for interrupts for received data, without which input waits; waits for the data-ready bit of the line status register;
    // ends with the byte.
    let code = Code::new().out8(0x3f9, 1).wait_port(0x3fd, 1).in8(0x3f8).exit_with_al();
    let console = Console { output: Box::new(io::sink()), input: Some(File::from(OwnedFd::from(reader))) };
    assert_eq!(machine_with(code, console).run().unwrap(), End::Exited(b'*'));
}

#[test]
fn stopping_twice_or_before_the_run_is_fine() {
    let machine = machine(Code::new().spin());
    let handle = machine.handle();
    handle.stop();
    handle.stop();
    assert_eq!(machine.run().unwrap(), End::Stopped);
}

#[test]
fn a_triple_fault_says_where() {
    // There is no interrupt descriptor table.
    match machine(Code::new().invalid_instruction()).run() {
        Err(MachineError::Vcpu { vcpu: 0, source: VcpuError::TripleFault(state) }) => {
            assert_eq!(state.rip, 0x10_0000);
        }
        // A KVM in software may give up one step earlier.
        Err(MachineError::Vcpu { vcpu: 0, source: error @ VcpuError::Emulation { .. } }) => {
            assert!(error.to_string().contains("rip 0x0000000000100000"), "{error}");
        }
        other => panic!("the guest must not get on: {other:?}"),
    }
}

#[test]
fn numbers_that_cannot_be_are_refused() {
    let console = || Console { output: Box::new(io::sink()), input: None };
    let with = |change: fn(&mut MachineConfig)| {
        let mut config = config(Code::new());
        change(&mut config);
        Machine::new(&config, Vec::new(), console()).err().expect("it must be refused")
    };
    assert!(matches!(with(|config| config.vcpus = 0), MachineError::Vcpus { asked: 0, .. }));
    assert!(matches!(with(|config| config.memory = 12345), MachineError::Layout(_)));
    assert!(matches!(with(|config| config.memory = 1 << 60), MachineError::Layout(_)));
    let huge = |config: &mut MachineConfig| {
        config.payload = Payload::Code { code: vec![0; 4 << 20], mapped: 0 };
    };
    assert!(matches!(with(huge), MachineError::Image { .. }));
}

#[test]
fn an_endless_guest_is_stopped_by_another_thread() {
    let machine = machine(Code::new().spin());
    let handle = machine.handle();
    let stopper = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        handle.stop();
    });
    assert_eq!(machine.run().unwrap(), End::Stopped);
    stopper.join().unwrap();
}
