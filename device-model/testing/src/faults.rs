// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The lines of driver that deal with faults: a fault buffer, channels whose accesses fault, and the reading of records.

use ersatz_abi::channel::{ChannelState, Priority};
use ersatz_abi::command::{Command, Operation};
use ersatz_abi::fault::FaultRecord;
use ersatz_abi::kernel::Kernel;
use ersatz_abi::list::Location;
use ersatz_abi::mmu::AddressSpaceControl;
use ersatz_abi::notification::RECORD_BYTES;
use ersatz_abi::regs;
use vm_memory::{Address, Bytes, GuestAddress};

use super::tables::Space;
use super::{Host, command, reg};

/// A copy engine.
pub const COPY: u32 = 0;
/// The compute engine: behind two copy engines.
pub const COMPUTE: u32 = 2;
/// The address space of these tests.
pub const ASID: u8 = 3;
/// Where they access it.
pub const BASE: u64 = 0x5000_0000;
/// Where the fault buffer is: 16 records.
pub const BUFFER: u64 = 0x2_0000;
/// The vector that announces faults; a channel has ten and its number.
pub const FAULT_VECTOR: u16 = 20;

/// Returns the control of an address space whose faults are replayable.
pub fn replayable() -> AddressSpaceControl {
    AddressSpaceControl(0).with_replayable(true)
}

/// Returns the offset of a register of the fault buffer.
pub fn ring(register: regs::Register) -> u32 {
    regs::FAULT_RING_BASE + register.offset
}

/// A GPU with a fault buffer, and an address space with its tables in system memory; no channel is enabled.
pub fn with_buffer(control: AddressSpaceControl) -> (Host, Space) {
    given_buffer(Host::new(), control)
}

/// Gives a host a fault buffer and an address space, as [`with_buffer`] does.
pub fn given_buffer(host: Host, control: AddressSpaceControl) -> (Host, Space) {
    enable_buffer(&host);
    let space = Space::new(&host, ASID, control, Location::system(0x300_0000));
    (host, space)
}

/// Sets the fault buffer up and enables it.
pub fn enable_buffer(host: &Host) {
    host.write64(ring(regs::NOTIFICATION_BASE), BUFFER);
    host.write32(ring(regs::NOTIFICATION_ORDER), 4);
    host.write32(ring(regs::NOTIFICATION_VECTOR), FAULT_VECTOR.into());
    host.write32(ring(regs::NOTIFICATION_CONTROL), 1);
}

/// Sets a channel up on an engine, in [`ASID`], and enables it.
pub fn bind(host: &Host, channel: u32, engine: u32, priority: Priority) {
    host.write32(reg(channel, regs::ENGINE), engine);
    host.write32(reg(channel, regs::ASID), ASID.into());
    host.write32(reg(channel, regs::PRIORITY), priority as u32);
    host.enable(channel, 10 + channel);
}

/// Returns a command that runs a kernel, with a fence and an interrupt.
pub fn kernel(kernel: Kernel) -> Command {
    Command { fence: Some(1), interrupt: true, ..command(Operation::Kernel(kernel)) }
}

/// Returns a command that sets words at a virtual address.
pub fn set(at: u64, length: u64, pattern: u64) -> Command {
    kernel(Kernel::Set { destination: at, length, pattern })
}

/// Whether a channel waits at a fault.
pub fn is_faulted(host: &Host, channel: u32) -> bool {
    host.status(channel).state() == Some(ChannelState::Faulted)
}

/// Takes all records there are, as a driver does: waits for the valid bit, clears it, moves GET.
pub fn records(host: &Host) -> Vec<FaultRecord> {
    let (mut get, put) = (host.read32(ring(regs::NOTIFICATION_GET)), host.read32(ring(regs::NOTIFICATION_PUT)));
    let mut records = Vec::new();
    while get != put {
        let at = GuestAddress(BUFFER + u64::from(get % 16) * RECORD_BYTES);
        let mut words = [0_u64; 4];
        host.wait_until("the valid bit", |host| host.memory.read_obj::<u64>(at.unchecked_add(8)).unwrap() >> 63 != 0);
        for (number, word) in (0..).zip(&mut words) {
            *word = host.memory.read_obj(at.unchecked_add(number * 8)).unwrap();
        }
        host.memory.write_obj(0_u64, at.unchecked_add(8)).unwrap();
        records.push(FaultRecord::decode(&words).expect("a record"));
        get = get.wrapping_add(1);
    }
    host.write32(ring(regs::NOTIFICATION_GET), get);
    records
}
