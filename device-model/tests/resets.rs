// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Resets of every kind, in the middle of work: DMA has ended when they are over, and the device works again after.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ersatz_abi::channel::ChannelState;
use ersatz_abi::command::{Command, ListEntry, MAX_ENTRY_BYTES, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::regs::{self, Status};
use ersatz_device_model::bus::{Effect, PciFunction};

use ersatz_device_testing::held::Holding;
use ersatz_device_testing::{COMMAND, DATA, Host, LISTS, MEMORY_AND_MASTER, command, entry, reg, system, vram};

/// PCI Express device control: the byte with the FLR bit, and PM control and status.
const FLR_BYTE: u16 = 0x69;
const POWER_CONTROL: u16 = 0x44;

const PAGE: u32 = MAX_ENTRY_BYTES;

/// A long command: 65,536 entries of 2 MiB from the same place to the same place, minutes of copying.
fn long(host: &Host) -> Operation {
    let entries: Vec<ListEntry> = vec![entry(system(DATA), vram(0), PAGE); 65_536];
    Operation::Copy(host.list(LISTS, &entries))
}

fn busy() -> Host {
    let mut host = Host::new();
    host.enable(0, 1);
    let operation = long(&host);
    host.submit(Command { fence: Some(1), interrupt: true, ..command(operation) });
    host.wait_until("copying", |host| host.counter(Counter::CopyEntries) > 0);
    host
}

fn works_again(host: &mut Host) {
    host.put[0] = 0;
    host.start();
    host.enable(0, 1);
    let list = host.list(LISTS, &[entry(system(DATA), vram(0), 4096)]);
    host.execute(Operation::Copy(list), 1);
}

#[test]
fn a_channel_reset_drops_the_command_under_way() {
    let mut host = busy();
    host.write32(reg(0, regs::CHANNEL_CONTROL), 2);
    host.wait_until("reset", |host| host.read32(reg(0, regs::CHANNEL_CONTROL)) == 0);
    assert_eq!(host.status(0).state(), Some(ChannelState::Disabled));
    assert_eq!(host.read32(reg(0, regs::GET)), 0);
    assert_eq!(host.read64(reg(0, regs::RING_BASE)), ersatz_device_testing::RING, "the setup stays");
    let copied = host.counter(Counter::CopyEntries);
    assert!(copied < 65_536 && host.fence() == 0 && host.interrupts.seen().is_empty());
    works_again(&mut host);
    assert_eq!(host.counter(Counter::CopyEntries), copied + 1, "nothing went on in between");
}

#[test]
fn a_device_reset_forgets_the_setup_and_keeps_the_counters() {
    let mut host = busy();
    host.write32(0x3000, 0);
    assert!(Status(host.read32(regs::STATUS.offset)).bad_access());
    host.write32(regs::CONTROL.offset, 1);
    host.wait_until("reset", |host| host.read32(regs::CONTROL.offset) == 0);
    assert_eq!(host.read32(regs::STATUS.offset), 0);
    assert_eq!(host.read64(reg(0, regs::RING_BASE)), 0);
    assert!(host.counter(Counter::CopyEntries) > 0);
    works_again(&mut host);
}

#[test]
fn flr_and_conventional_reset_start_from_nothing() {
    for flr in [true, false] {
        let mut host = busy();
        let effects = if flr { host.gpu.config_write(FLR_BYTE, &[0x80]) } else { host.gpu.reset() };
        assert_eq!(effects, [Effect::Reset]);
        assert_eq!(host.gpu.counter(Counter::CopyEntries), 0);
        assert_eq!(host.read32(regs::ID.offset), u32::MAX, "no decoding");
        assert!(host.gpu.msix_message(0).is_none());
        works_again(&mut host);
        assert_eq!(host.counter(Counter::CopyEntries), 1);
        // An engine that looks at its channel anyway finds the command before it sees the doorbell.
        host.wait_until("the doorbell is counted", |host| host.counter(Counter::Doorbells) > 0);
        assert_eq!(host.counter(Counter::Doorbells), 1);
    }
}

/// As the manual says. The engine finds both commands because the channel was enabled, not because of the doorbell.
#[test]
fn a_doorbell_may_be_counted_after_its_command_has_ended() {
    let (mut host, space) = Host::held_at(DATA);
    host.push_words(Command { interrupt: true, ..command(Operation::Nop) }.encode());
    let list = host.list(LISTS, &[entry(system(DATA), vram(0), 4096)]);
    host.push_words(command(Operation::Copy(list)).encode());
    host.enable_pushed(0, 1);
    host.interrupts.wait_for(1);
    space.wait_until_held();
    host.ring_doorbell(0);
    assert_eq!((host.counter(Counter::Commands), host.counter(Counter::Doorbells)), (1, 0));
    space.release();
    host.wait_until("the doorbell is counted", |host| host.counter(Counter::Doorbells) == 1);
}

/// The error is told once messages may go out again.
#[test]
fn mastership_lost_in_a_copy_is_an_error() {
    for sleep in [false, true] {
        let host = busy();
        if sleep {
            let effects = host.gpu.config_write(POWER_CONTROL, &[3]);
            assert_eq!(ersatz_device_testing::moves(&effects), [(0, None), (2, None), (4, None)]);
        } else {
            host.gpu.config_write(COMMAND, &[0b010]);
        }
        host.wait_until("the error", |host| host.gpu.counter(Counter::ChannelErrors) == 1);
        let effects = if sleep {
            host.gpu.config_write(POWER_CONTROL, &[0])
        } else {
            host.gpu.config_write(COMMAND, &MEMORY_AND_MASTER.to_le_bytes())
        };
        assert!(effects.contains(&Effect::MsixSend { vector: 1 }), "{effects:?}");
        assert!(host.interrupts.seen().is_empty(), "the bus sends it, nobody else did");
        assert_eq!(host.status(0).error(), Some(ErrorCode::NotMaster));
        assert_eq!(host.fence(), 0);
    }
}

/// A reset of the function takes back what is pending.
#[test]
fn a_message_that_is_held_back_does_not_outlive_a_reset() {
    for flr in [true, false] {
        let host = busy();
        host.gpu.config_write(COMMAND, &[0b010]);
        host.wait_until("the message", |host| host.pending_vectors() == 1 << 1);
        if flr {
            host.gpu.config_write(FLR_BYTE, &[0x80]);
        } else {
            host.gpu.reset();
        }
        // Memory decoding alone: what were pending still would be held back.
        host.gpu.config_write(COMMAND, &[0b010]);
        assert_eq!((host.pending_vectors(), host.interrupts.seen()), (0, vec![]));
    }
}

#[test]
fn a_disabled_channel_stops_behind_the_command_under_way() {
    let mut host = Host::new();
    host.enable(0, 1);
    let list = host.list(LISTS, &[entry(system(DATA), vram(0), PAGE); 200]);
    for fence in 1..=60 {
        host.push_words(Command { fence: Some(fence), ..command(Operation::Copy(list)) }.encode());
    }
    host.ring_doorbell(0);
    host.wait_until("copying", |host| host.counter(Counter::CopyEntries) > 0);
    host.write32(reg(0, regs::CHANNEL_CONTROL), 0);
    host.wait_until("disabled", |host| host.status(0).state() == Some(ChannelState::Disabled));
    let get = host.read32(reg(0, regs::GET));
    assert!((1..60).contains(&get), "GET {get}");
    assert_eq!((host.get(), host.fence()), (get, get.into()));
    assert_eq!(host.counter(Counter::CopyEntries), u64::from(get) * 200, "whole commands");
    host.write32(reg(0, regs::CHANNEL_CONTROL), 1);
    host.wait_until("the rest", |host| host.fence() == 60);
}

#[test]
fn dropping_the_device_in_a_copy_ends_its_threads() {
    let host = busy();
    let space = host.space.clone();
    drop(host.gpu);
    assert_eq!(Arc::strong_count(&space), 2, "nobody holds guest memory but the test");
}

/// A host whose engine is stuck in the middle of a DMA read.
fn stuck() -> (Host, Holding) {
    let (mut host, space) = Host::held_at(DATA);
    host.enable(0, 1);
    // Long, so that it cannot be done before a reset that begins late.
    let operation = long(&host);
    host.submit(Command { fence: Some(1), interrupt: true, ..command(operation) });
    space.wait_until_held();
    (host, space)
}

#[test]
fn register_writes_do_not_wait_for_a_stuck_engine() {
    let (host, space) = stuck();
    host.ring_doorbell(0);
    host.write64(regs::MARK.offset, 1);
    assert_eq!(host.status(0).state(), Some(ChannelState::Busy));
    host.write32(reg(0, regs::CHANNEL_CONTROL), 2);
    assert_eq!(host.read32(reg(0, regs::CHANNEL_CONTROL)), 2, "the engine has not let go");
    host.write32(regs::CONTROL.offset, 1);
    assert!(Status(host.read32(regs::STATUS.offset)).resetting());
    assert_eq!(host.read32(regs::CONTROL.offset), 1);
    let before = host.counter(Counter::BadAccesses);
    host.write32(reg(0, regs::VECTOR), 3);
    assert_eq!(host.counter(Counter::BadAccesses), before + 1, "no writes while resetting");
    host.ring_doorbell(0);
    assert_eq!(host.counter(Counter::BadAccesses), before + 1, "but doorbells are no registers");
    space.release();
    host.wait_until("reset", |host| host.read32(regs::CONTROL.offset) == 0);
    assert_eq!(host.status(0).state(), Some(ChannelState::Disabled));
    assert_eq!(host.counter(Counter::CopyEntries), 0);
}

#[test]
fn while_a_channel_is_reset_its_control_takes_nothing_else() {
    let (host, space) = stuck();
    // With both bits: reset, and not enabled.
    host.write32(reg(0, regs::CHANNEL_CONTROL), 3);
    assert_eq!((host.read32(reg(0, regs::CHANNEL_CONTROL)), host.counter(Counter::BadAccesses)), (2, 0));
    for value in [0, 1] {
        host.write32(reg(0, regs::CHANNEL_CONTROL), value);
    }
    host.write32(reg(0, regs::VECTOR), 3);
    assert_eq!((host.read32(reg(0, regs::CHANNEL_CONTROL)), host.counter(Counter::BadAccesses)), (2, 3));
    host.write32(reg(0, regs::CHANNEL_CONTROL), 2);
    assert_eq!(host.counter(Counter::BadAccesses), 3, "again is no error");
    space.release();
    host.wait_until("reset", |host| host.read32(reg(0, regs::CHANNEL_CONTROL)) == 0);
    assert_eq!(host.status(0).state(), Some(ChannelState::Disabled));
    assert_eq!(host.read32(reg(0, regs::VECTOR)), 1, "the setup is as it was");
}

/// A reset of the function waits for the one access under way; after it there is none.
#[test]
fn no_access_follows_a_function_reset() {
    let (host, space) = stuck();
    let returned = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            host.gpu.reset();
            returned.store(true, Ordering::SeqCst);
            let accesses = space.accesses.load(Ordering::SeqCst);
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert_eq!(space.accesses.load(Ordering::SeqCst), accesses);
        });
        host.wait_until("the reset begins", |host| host.read32(regs::ID.offset) == u32::MAX);
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!returned.load(Ordering::SeqCst), "an access is under way");
        space.release();
    });
    assert!(returned.load(Ordering::SeqCst));
    assert!(host.interrupts.seen().is_empty());
}

#[test]
fn resets_race_with_work_and_with_each_other() {
    let mut host = Host::new();
    for round in 0..200_u32 {
        host.put[0] = 0;
        host.start();
        host.enable(0, 1);
        let list = host.list(LISTS, &[entry(system(DATA), vram(0), 65_536); 8]);
        host.submit(Command { fence: Some(1), interrupt: true, ..command(Operation::Copy(list)) });
        if round % 3 == 0 {
            host.write32(reg(0, regs::CHANNEL_CONTROL), 2);
        }
        if round % 2 == 0 {
            host.write32(regs::CONTROL.offset, 1);
        }
        if round % 5 != 0 {
            host.gpu.reset();
        } else {
            host.wait_until("quiet", |host| {
                let state = host.status(0).state();
                host.read32(regs::CONTROL.offset) == 0
                    && matches!(state, Some(ChannelState::Disabled | ChannelState::Idle))
                    && host.read32(reg(0, regs::CHANNEL_CONTROL)) & 2 == 0
            });
            host.gpu.reset();
        }
    }
    works_again(&mut host);
}
