// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A command that waits at a fault, and what its driver may do meanwhile to its channel, its address space, the fault
//! buffer and the function.

use ersatz_abi::channel::{ChannelState, Priority};
use ersatz_abi::command::{Command, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::kernel::Kernel;
use ersatz_abi::list::Location;
use ersatz_abi::mmu::{AddressSpaceControl, Invalidation, PageSize};
use ersatz_abi::regs;
use ersatz_device_model::bus::{Effect, PciFunction};

use ersatz_device_testing::faults::{
    ASID, BASE, COMPUTE, COPY, bind, enable_buffer, is_faulted, kernel, records, replayable, ring, set, with_buffer,
};
use ersatz_device_testing::tables::{Space, page};
use ersatz_device_testing::{COMMAND, Host, LISTS, MEMORY_AND_MASTER, command, entry, reg};

const POWER_CONTROL: u16 = 0x44;
const FLR_BYTE: u16 = 0x69;

/// Channel 0 waits at its write to [`BASE`].
fn waiting() -> (Host, Space) {
    let (mut host, space) = with_buffer(replayable());
    bind(&host, 0, COMPUTE, Priority::Low);
    host.submit(set(BASE, 8, 77));
    host.wait_until("the fault", |host| is_faulted(host, 0));
    (host, space)
}

fn replay(host: &Host) {
    host.write32(regs::FAULT_REPLAY.offset, 1);
}

/// Resets the channel. An engine may have it for a moment after it was seen to wait.
fn reset(host: &Host) {
    host.write32(reg(0, regs::CHANNEL_CONTROL), 2);
    host.wait_until("the reset", |host| host.read32(reg(0, regs::CHANNEL_CONTROL)) == 0);
    assert_eq!(host.status(0).state(), Some(ChannelState::Disabled));
}

fn control(host: &Host, value: AddressSpaceControl) {
    host.write32(regs::address_space_register(ASID.into(), regs::ADDRESS_SPACE_CONTROL).unwrap(), value.0);
}

fn expect_error(host: &Host, code: ErrorCode, address: u64) {
    host.wait_until(code.name(), |host| host.status(0).error() == Some(code));
    assert_eq!(host.read64(reg(0, regs::ERROR_ADDRESS)), address);
    assert_eq!(host.read64(regs::FAULTED_CHANNELS.offset), 0);
}

fn serve(host: &Host, space: &mut Space) {
    space.map(host, BASE, page(Location::vram(4096), PageSize::Small));
    replay(host);
    host.wait_until("its end", |host| host.fence() >= 1);
    assert_eq!(host.load(Location::vram(4096)), 77);
}

#[test]
fn its_address_space_is_disabled() {
    let (host, _space) = waiting();
    control(&host, AddressSpaceControl(0));
    assert!(is_faulted(&host, 0), "nobody looks before the replay");
    replay(&host);
    expect_error(&host, ErrorCode::AddressSpace, BASE);
    assert_eq!(records(&host).len(), 1, "an error is no fault");
}

#[test]
fn its_address_space_is_not_replayable_any_more() {
    let (host, _space) = waiting();
    control(&host, AddressSpaceControl(0));
    control(&host, AddressSpaceControl(0).with_enable(true));
    replay(&host);
    expect_error(&host, ErrorCode::MmuFault, BASE);
    assert_eq!(records(&host).len(), 1);
}

#[test]
fn its_address_space_gets_other_tables() {
    let (host, _space) = waiting();
    control(&host, AddressSpaceControl(0));
    let mut other = Space::new(&host, ASID, replayable(), Location::vram(32 << 20));
    serve(&host, &mut other);
}

#[test]
fn its_channel_is_disabled_and_enabled_again() {
    let (mut host, mut space) = waiting();
    host.submit(Command { fence: Some(2), ..command(Operation::Nop) });
    host.write32(reg(0, regs::CHANNEL_CONTROL), 0);
    assert!(is_faulted(&host, 0));
    host.write32(reg(0, regs::ASID), 9);
    assert_eq!(host.counter(Counter::BadAccesses), 1, "its setup stands until the command has ended");
    host.write32(reg(0, regs::CHANNEL_CONTROL), 1);
    assert!(is_faulted(&host, 0));
    serve(&host, &mut space);
    host.wait_until("the next command", |host| host.fence() == 2);
}

#[test]
fn its_channel_is_reset_and_belongs_to_another_engine_and_address_space() {
    let (mut host, mut space) = waiting();
    reset(&host);
    space.map(&host, BASE, page(Location::vram(4096), PageSize::Small));
    host.put[0] = 0;
    bind(&host, 0, COPY, Priority::High);
    replay(&host);
    host.write32(regs::FAULT_CANCEL.offset, 0);
    let list = host.list(LISTS, &[entry(Location::vram(0), Location::virtual_address(BASE + 64), 8)]);
    host.submit(Command { fence: Some(1), ..command(Operation::Fill(list, 5)) });
    host.wait_until("new work", |host| host.fence() == 1);
    assert_eq!([0, 64].map(|at| host.load(Location::vram(4096 + at))), [0, 5], "the old command is gone");
    assert_eq!(host.counter(Counter::FaultsCancelled), 0);
}

#[test]
fn it_was_cancelled_and_then_replayed_and_reset() {
    let (mut host, mut space) = waiting();
    host.write32(regs::FAULT_CANCEL.offset, 0);
    expect_error(&host, ErrorCode::FaultCancelled, BASE);
    space.map(&host, BASE, page(Location::vram(4096), PageSize::Small));
    replay(&host);
    reset(&host);
    host.put[0] = 0;
    bind(&host, 0, COMPUTE, Priority::Low);
    host.submit(Command { fence: Some(3), ..kernel(Kernel::Read { source: BASE, length: 8 }) });
    host.wait_until("new work", |host| host.fence() == 3);
    assert_eq!(host.load(Location::vram(4096)), 0, "the write was cancelled");
}

#[test]
fn the_fault_buffer_begins_anew() {
    let (host, mut space) = waiting();
    host.write32(ring(regs::NOTIFICATION_CONTROL), 0);
    enable_buffer(&host);
    assert_eq!((host.read32(ring(regs::NOTIFICATION_PUT)), records(&host)), (0, vec![]));
    assert!(is_faulted(&host, 0), "records are forgotten, channels are not");
    replay(&host);
    host.wait_until("the record", |host| host.counter(Counter::Faults) == 2);
    host.wait_until("the fault", |host| is_faulted(host, 0));
    let found = records(&host);
    assert_eq!((found.len(), found[0].number, found[0].address), (1, 2, BASE), "numbers go on");
    serve(&host, &mut space);
}

#[test]
fn there_was_no_fault_buffer_when_it_faulted() {
    let (mut host, mut space) = with_buffer(replayable());
    host.write32(ring(regs::NOTIFICATION_CONTROL), 0);
    bind(&host, 0, COMPUTE, Priority::Low);
    host.submit(set(BASE, 8, 77));
    host.wait_until("the fault", |host| is_faulted(host, 0));
    assert_eq!((host.counter(Counter::Faults), host.counter(Counter::FaultsDropped)), (0, 1));
    assert_eq!(host.read32(ring(regs::NOTIFICATION_STATUS)), 0, "a buffer that is off says nothing");
    enable_buffer(&host);
    replay(&host);
    host.wait_until("the record", |host| host.counter(Counter::Faults) == 1);
    host.wait_until("the fault", |host| is_faulted(host, 0));
    assert_eq!(records(&host)[0].number, 2, "the gap says how many are missing");
    serve(&host, &mut space);
}

#[test]
fn invalidations_do_not_wait_for_it() {
    let (host, mut space) = waiting();
    host.invalidate(Invalidation::All);
    host.invalidate(Invalidation::Range { asid: ASID, address: BASE, length: 1 });
    serve(&host, &mut space);
}

/// Its error is told to the driver once messages may go out again.
#[test]
fn bus_mastering_is_taken_away() {
    let (host, _space) = waiting();
    let before = host.interrupts.seen().len();
    host.gpu.config_write(COMMAND, &[0b010]);
    assert!(is_faulted(&host, 0), "it wants nothing of the bus now");
    replay(&host);
    expect_error(&host, ErrorCode::NotMaster, BASE);
    host.wait_until("the message", |host| host.pending_vectors() == 1 << 10);
    assert_eq!(host.interrupts.seen().len(), before, "not master");
    let effects = host.gpu.config_write(COMMAND, &MEMORY_AND_MASTER.to_le_bytes());
    assert!(effects.contains(&Effect::MsixSend { vector: 10 }), "{effects:?}");
}

#[test]
fn the_function_sleeps_and_wakes() {
    let (host, mut space) = waiting();
    host.gpu.config_write(POWER_CONTROL, &[3]);
    assert_eq!(host.read32(regs::ID.offset), u32::MAX);
    host.gpu.bar_write(0, regs::FAULT_REPLAY.offset.into(), &1_u32.to_le_bytes());
    host.gpu.config_write(POWER_CONTROL, &[0]);
    assert!(is_faulted(&host, 0), "who sleeps hears of no replay");
    assert_eq!(host.counter(Counter::Replays), 0);
    serve(&host, &mut space);
}

#[test]
fn the_device_or_the_function_is_reset() {
    for how in ["device", "function", "bus"] {
        let (mut host, _space) = waiting();
        match how {
            "device" => host.write32(regs::CONTROL.offset, 1),
            "function" => drop(host.gpu.config_write(FLR_BYTE, &[0x80])),
            _ => drop(host.gpu.reset()),
        }
        host.start();
        host.wait_until(how, |host| host.read32(regs::CONTROL.offset) == 0);
        assert_eq!(host.read64(regs::FAULTED_CHANNELS.offset), 0);
        assert_eq!(host.status(0).state(), Some(ChannelState::Disabled));
        // The same again finds nothing of the old life, and numbers from one.
        enable_buffer(&host);
        let mut space = Space::new(&host, ASID, replayable(), Location::vram(48 << 20));
        host.put[0] = 0;
        bind(&host, 0, COMPUTE, Priority::Low);
        host.submit(set(BASE, 8, 77));
        host.wait_until("the fault", |host| is_faulted(host, 0));
        let numbers: Vec<_> = records(&host).iter().map(|record| record.number).collect();
        assert_eq!(numbers, [1], "{how}");
        serve(&host, &mut space);
    }
}
