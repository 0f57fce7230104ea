// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! BAR0 as a driver sees it: every register of the map, and every way of getting an access wrong.

use std::collections::HashSet;

use ersatz_abi::channel::ChannelState;
use ersatz_abi::command::Operation;
use ersatz_abi::counter::Counter;
use ersatz_abi::mmu::ADDRESS_SPACES;
use ersatz_abi::pci::{BAR_REGISTERS, BAR_VRAM, REGISTERS_BAR_SIZE};
use ersatz_abi::regs::{self, Access, Configuration, Register, Status};
use ersatz_device_model::GpuConfig;
use ersatz_device_model::bus::PciFunction;
use proptest::prelude::*;

use ersatz_device_testing::{Host, Interrupts, reg};

/// Offset, width and access of every register of a device with this many channels.
fn map(channels: u32) -> Vec<(u32, u8, Access)> {
    let row = |base: u32, register: &Register| (base + register.offset, register.width, register.access);
    let mut map: Vec<_> = regs::DEVICE_REGISTERS.iter().map(|register| row(0, register)).collect();
    for channel in 0..channels {
        let base = regs::CHANNEL_BASE + channel * regs::CHANNEL_STRIDE;
        map.extend(regs::CHANNEL_REGISTERS.iter().map(|register| row(base, register)));
        map.push((regs::doorbell(channel).unwrap(), 4, Access::WriteOnly));
    }
    for base in [regs::FAULT_RING_BASE, regs::ACCESS_RING_BASE] {
        map.extend(regs::NOTIFICATION_REGISTERS.iter().map(|register| row(base, register)));
    }
    for asid in 0..ADDRESS_SPACES {
        let base = regs::ADDRESS_SPACE_BASE + asid * regs::ADDRESS_SPACE_STRIDE;
        map.extend(regs::ADDRESS_SPACE_REGISTERS.iter().map(|register| row(base, register)));
    }
    map.extend(Counter::ALL.iter().map(|counter| (regs::COUNTER_BASE + 8 * *counter as u32, 8, Access::ReadOnly)));
    map
}

fn bad_accesses(host: &Host) -> u64 {
    host.gpu.counter(Counter::BadAccesses)
}

#[test]
fn identity() {
    let mut config = GpuConfig::new(1 << 40);
    config.channels = 5;
    config.copy_engines = 2;
    let host = Host::with(config, Interrupts::default());
    assert_eq!(&host.read32(regs::ID.offset).to_le_bytes(), b"ERSZ");
    assert_eq!(host.read32(regs::VERSION.offset), ersatz_abi::ABI_VERSION);
    assert_eq!(host.read64(regs::VRAM_SIZE.offset), 1 << 40);
    let configuration = Configuration(host.read32(regs::CONFIGURATION.offset));
    assert_eq!((configuration.channels(), configuration.copy_engines(), configuration.vectors()), (5, 2, 32));
    assert_eq!(host.read32(regs::STATUS.offset), 0);
    let first = host.read64(regs::TIMESTAMP.offset);
    assert!(host.read64(regs::TIMESTAMP.offset) >= first);
}

#[test]
fn registers_do_not_overlap_and_fit_the_bar() {
    let mut taken = HashSet::new();
    for (offset, width, _) in map(regs::MAX_CHANNELS) {
        assert_eq!(offset % u32::from(width), 0, "{offset:#x} is aligned");
        for byte in offset..offset + u32::from(width) {
            assert!(u64::from(byte) < REGISTERS_BAR_SIZE && taken.insert(byte), "{byte:#x}");
        }
    }
}

#[test]
fn setup_reads_back_whole_and_by_halves() {
    let host = Host::new();
    let base = reg(0, regs::RING_BASE);
    host.write64(base, 0x1122_3344_5566_7000);
    assert_eq!((host.read32(base), host.read32(base + 4)), (0x5566_7000, 0x1122_3344));
    host.write32(base, 0x9000);
    host.write32(base + 4, 0x1);
    assert_eq!(host.read64(base), 0x1_0000_9000);
    host.write32(reg(0, regs::VECTOR), 31);
    assert_eq!(host.read32(reg(0, regs::VECTOR)), 31);
    assert_eq!(bad_accesses(&host), 0);
}

#[test]
fn setup_is_for_disabled_channels() {
    let host = Host::new();
    host.enable(0, 1);
    for (register, wide) in [
        (regs::RING_BASE, true),
        (regs::CONTROL_BLOCK, true),
        (regs::RING_ORDER, false),
        (regs::VECTOR, false),
        (regs::ENGINE, false),
        (regs::ASID, false),
        (regs::PRIORITY, false),
    ] {
        let (before, bad) = (host.read32(reg(0, register)), bad_accesses(&host));
        if wide {
            host.write64(reg(0, register), u64::from(before) ^ 0x1000);
        } else {
            host.write32(reg(0, register), before ^ 1);
        }
        assert_eq!(host.read32(reg(0, register)), before, "{}", register.name);
        assert_eq!(bad_accesses(&host), bad + 1, "{}", register.name);
    }
}

/// A counter's halves belong together however it moves between the two reads.
#[test]
fn the_high_half_is_as_of_the_low_one() {
    let host = Host::new();
    let time = regs::TIMESTAMP.offset;
    let low = host.read32(time);
    let between = host.read64(time);
    let high = host.read32(time + 4);
    assert!(u64::from(low) | u64::from(high) << 32 <= between);
}

#[test]
fn reserved_control_bits_are_refused() {
    let host = Host::new();
    for (offset, value) in [(regs::CONTROL.offset, 2), (reg(0, regs::CHANNEL_CONTROL), 4)] {
        let bad = bad_accesses(&host);
        host.write32(offset, value);
        assert_eq!((host.read32(offset), bad_accesses(&host)), (0, bad + 1));
    }
}

#[test]
fn the_first_bad_access_interrupts() {
    let host = Host::new();
    host.read32(0x2ffc);
    host.read32(0x2ffc);
    assert_eq!(host.interrupts.seen(), [0]);
    assert!(Status(host.read32(regs::STATUS.offset)).bad_access());
}

#[test]
fn doorbells_count_whichever_way_they_come() {
    let mut host = Host::new();
    host.enable(0, 1);
    host.execute(Operation::Nop, 1);
    let doorbells = host.gpu.doorbells();
    assert_eq!(doorbells.len(), 16);
    assert_eq!((doorbells[0].bar, doorbells[0].offset, doorbells[0].width), (BAR_REGISTERS, 0x1_0000, 4));
    host.push_words(ersatz_device_testing::command(Operation::Nop).encode());
    doorbells[0].event.write(1).unwrap();
    host.wait_until("two commands", |host| host.counter(Counter::Commands) == 2);
    host.wait_until("both are counted", |host| host.counter(Counter::Doorbells) >= 2);
    assert_eq!(host.counter(Counter::Doorbells), 2);
}

#[test]
fn a_channel_that_is_not_there_has_no_registers() {
    let host = Host::new();
    let bad = bad_accesses(&host);
    assert_eq!(host.read32(reg(16, regs::RING_ORDER)), 0);
    host.write32(regs::doorbell(16).unwrap(), 1);
    assert_eq!(bad_accesses(&host), bad + 2);
}

#[test]
fn channels_work_side_by_side() {
    use ersatz_abi::channel::CONTROL_BLOCK_PUT;
    use vm_memory::{Bytes, GuestAddress};

    let mut config = GpuConfig::new(2 << 20);
    config.channels = 6;
    config.copy_engines = 2;
    let host = Host::with(config, Interrupts::default());
    for channel in 0..6 {
        host.write32(reg(channel, regs::ENGINE), channel % 2);
        host.enable(channel, 10 + channel);
        let away = u64::from(channel) * ersatz_device_testing::CHANNEL_MEMORY;
        let mut nop = ersatz_device_testing::command(Operation::Nop);
        nop.interrupt = true;
        for (number, word) in (0..).zip(nop.encode()) {
            host.memory.write_obj(word, GuestAddress(ersatz_device_testing::RING + away + number * 8)).unwrap();
        }
        host.memory.write_obj(1_u32, GuestAddress(ersatz_device_testing::BLOCK + away + CONTROL_BLOCK_PUT)).unwrap();
        host.ring_doorbell(channel);
    }
    let mut seen = host.interrupts.wait_for(6);
    seen.sort_unstable();
    assert_eq!(seen, [10, 11, 12, 13, 14, 15]);
    host.write32(reg(3, regs::CHANNEL_CONTROL), 2);
    host.wait_until("reset", |host| host.status(3).state() == Some(ChannelState::Disabled));
    host.wait_until("idle", |host| host.status(4).state() == Some(ChannelState::Idle));
}

#[test]
fn vram_can_be_reached_by_messages_too() {
    let host = Host::new();
    let end = (64 << 20) - 8;
    assert_eq!(host.gpu.bar_write(BAR_VRAM, end, &[1, 2, 3, 4, 5, 6, 7, 8]), []);
    let mut data = [0; 4];
    host.gpu.bar_read(BAR_VRAM, end + 4, &mut data);
    assert_eq!(data, [5, 6, 7, 8]);
    host.gpu.bar_read(BAR_VRAM, end + 6, &mut data);
    assert_eq!(data, [0xff; 4], "not all inside");
    host.gpu.bar_read(5, 0, &mut data);
    assert_eq!(data, [0xff; 4]);
    host.gpu.clear_vram().unwrap();
    host.gpu.bar_read(BAR_VRAM, end + 4, &mut data);
    assert_eq!(data, [0; 4]);
}

#[test]
fn without_decoding_there_is_nobody() {
    let host = Host::new();
    host.gpu.config_write(ersatz_device_testing::COMMAND, &[0, 0]);
    assert_eq!(host.read32(regs::ID.offset), u32::MAX);
    host.write32(reg(0, regs::RING_ORDER), 5);
    host.gpu.config_write(ersatz_device_testing::COMMAND, &[0b110, 0]);
    assert_eq!(host.read32(reg(0, regs::RING_ORDER)), 0);
    assert_eq!(bad_accesses(&host), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Any read of any width anywhere: bad exactly if the map has no such register.
    #[test]
    fn reads_follow_the_map(offset in prop_oneof![0..0x100_u64, 0x1000..0x1100_u64, 0x4000..0x4200_u64, 0x8000..0x8080_u64, 0x9f00..0xa010_u64, 0x1_0000..0x1_0010_u64, any::<u64>()], length in 0_usize..20) {
        thread_local!(static HOST: Host = Host::new());
        HOST.with(|host| {
            let before = bad_accesses(host);
            let mut data = vec![0xaa; length];
            host.gpu.bar_read(BAR_REGISTERS, offset, &mut data);
            let good = map(16).into_iter().any(|(at, width, _)| {
                let (at, width, length) = (u64::from(at), u64::from(width), length as u64);
                (offset == at && length == width)
                    || (width == 8 && length == 4 && (offset == at || offset == at + 4))
            });
            prop_assert_eq!(bad_accesses(host) - before, u64::from(!good));
            if !good {
                prop_assert!(data.iter().all(|byte| *byte == 0));
            }
            Ok(())
        })?;
    }
}
