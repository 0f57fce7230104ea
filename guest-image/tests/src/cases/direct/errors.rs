// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What stops a channel, what configuration space tells of it, and that nobody else is stopped.

use ersatz_abi::command::{List, ListEntry, Location, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::regs;

use crate::config_space::{COMMAND, COMMAND_MASTER, COMMAND_SERR, STATUS, capability};
use crate::direct::channel::{Channel, Failure, Setup, copy_entry};
use crate::direct::gpu::{Gpu, NOWHERE};
use crate::suite::test_list;

test_list! { "direct_errors":
    an_error_stops_its_channel_alone.direct();
    a_bad_bus_address_is_reported_by_aer.direct();
    without_bus_mastering_there_is_no_dma.direct();
    bad_register_accesses_are_counted.direct();
}

fn an_error_stops_its_channel_alone() {
    let gpu = Gpu::claim();
    let (bad, good) = (Channel::open(&gpu, Setup::new(0, 0)), Channel::open(&gpu, Setup::new(1, 0)));
    let (source, destination) = (gpu.system().take(8192), gpu.vram().take(8192));
    source.fill(|index| index + 1);
    let entry = |page: u64| {
        copy_entry(source.part(page * 4096..(page + 1) * 4096), destination.part(page * 4096..(page + 1) * 4096))
    };
    bad.run(Operation::Nop);
    let vram = gpu.registers().read64(regs::VRAM_SIZE);
    let beyond = ListEntry { destination: Location::vram(vram - 8), ..entry(1) };
    gpu.expect_count(Counter::ChannelErrors, 1, || {
        let counted = gpu.count([Counter::CopyEntries], || {
            bad.submit_list(&[entry(0), beyond, entry(1)], Operation::Copy);
            let failure = Failure { error: ErrorCode::VramRange, position: 1, entry: 1, address: vram - 8 };
            assert_eq!(bad.wait_for_failure(), failure);
        });
        assert_eq!(counted, [1]);
    });
    assert!(gpu.status().channel_error());
    // What comes before it was done, what comes after it was not.
    destination.check(|index| if index < 512 { index + 1 } else { 0 });
    assert_eq!((bad.fence(), bad.get()), (1, 1));
    good.copy(&[entry(1)]);
    destination.check_same(&source);
    bad.reset();
    assert!(!gpu.status().channel_error());
    bad.submit(Operation::Copy(List { address: source.address(), count: 0 }));
    assert_eq!(bad.wait_for_failure().error, ErrorCode::BadCount);
    bad.reset();
    bad.copy(&[entry(0)]);
}

/// Where the manual says that the capability of advanced error reporting is, and what is in it.
mod aer {
    pub const STATUS: u16 = 0x104;
    pub const MASK: u16 = 0x108;
    pub const CONTROL: u16 = 0x118;
    pub const HEADER: u16 = 0x11c;
    /// Uncorrectable Internal Error.
    pub const INTERNAL: u32 = 1 << 22;
}

fn a_bad_bus_address_is_reported_by_aer() {
    const MASTER_ABORT: u16 = 1 << 13;
    const SIGNALED: u16 = 1 << 14;
    let gpu = Gpu::claim();
    let config = gpu.config();
    let device_status = config.capability(capability::EXPRESS) + 10;
    let channel = Channel::open(&gpu, Setup::new(0, 0));
    let page = gpu.system().take(4096);
    let nowhere = ListEntry { source: Location::system(NOWHERE), ..copy_entry(page, gpu.vram().take(4096)) };
    let fail = |entry: ListEntry, error| {
        let counted = gpu.count([Counter::DmaErrors], || {
            channel.submit_list(&[entry], Operation::Copy);
            assert_eq!(channel.wait_for_failure(), Failure { error, position: 0, entry: 0, address: NOWHERE });
        });
        assert_eq!(counted, [1]);
        channel.reset();
    };
    let bits = || (config.read16(STATUS) & (MASTER_ABORT | SIGNALED), config.read16(device_status) & 0b1111);
    let first_error = || config.read32(aer::CONTROL) & 0x1f;
    let forget = || {
        config.write16(STATUS, MASTER_ABORT | SIGNALED);
        config.write16(device_status, 0b1111);
        config.write32(aer::STATUS, aer::INTERNAL);
        assert_eq!((bits(), config.read32(aer::STATUS)), ((0, 0), 0));
    };
    forget();
    // Masked, as at power-on.
    assert_eq!(config.read32(aer::MASK) & aer::INTERNAL, aer::INTERNAL);
    fail(nowhere, ErrorCode::DmaRead);
    assert_eq!((bits(), config.read32(aer::STATUS)), ((MASTER_ABORT, 0b0100), aer::INTERNAL));
    assert_eq!(first_error(), 0, "the log holds nothing of an error that is masked");
    forget();
    config.write32(aer::MASK, 0);
    config.write16(COMMAND, config.read16(COMMAND) | COMMAND_SERR);
    let back = ListEntry { source: nowhere.destination, destination: nowhere.source, ..nowhere };
    fail(back, ErrorCode::DmaWrite);
    assert_eq!((bits(), config.read32(aer::STATUS)), ((MASTER_ABORT | SIGNALED, 0b0100), aer::INTERNAL));
    assert_eq!(first_error(), aer::INTERNAL.ilog2());
    // A write with data; its address, above 4 GiB, fills the third dword and the fourth.
    assert_eq!(config.read32(aer::HEADER) >> 24, 0b011_00000);
    let address = [8, 12].map(|offset| u64::from(config.read32(aer::HEADER + offset)));
    assert_eq!(address[0] << 32 | address[1], NOWHERE);
    forget();
    assert_eq!(first_error(), 0, "the log holds nothing any more");
    config.write32(aer::MASK, aer::INTERNAL);
}

fn without_bus_mastering_there_is_no_dma() {
    let gpu = Gpu::claim();
    let channel = Channel::open(&gpu, Setup::new(0, 0));
    channel.run(Operation::Nop);
    let command = gpu.config().read16(COMMAND);
    gpu.config().write16(COMMAND, command & !COMMAND_MASTER);
    channel.submit(Operation::Nop);
    assert_eq!(channel.wait_for_failure().error, ErrorCode::NotMaster);
    assert_eq!(channel.fence(), 1);
    gpu.config().write16(COMMAND, command);
    channel.reset();
    channel.run(Operation::Nop);
}

fn bad_register_accesses_are_counted() {
    let gpu = Gpu::claim();
    let registers = gpu.registers();
    let channel = Channel::open(&gpu, Setup::new(0, 0));
    let vector = regs::channel_register(0, regs::VECTOR).expect("channel 0");
    assert!(!gpu.status().bad_access());
    let counted = gpu.count([Counter::BadAccesses], || {
        assert_eq!(registers.read32_at(regs::DEVICE_REGISTERS.last().expect("registers").offset + 0x10), 0);
        registers.write32(regs::ID, 0);
        // Of a channel that is not disabled.
        registers.write32_at(vector, 1);
        registers.write32(regs::FAULT_REPLAY, 2);
        registers.write32(regs::ACCESS_COUNTER_CONTROL, 1);
    });
    assert_eq!(counted, [5]);
    assert!(gpu.status().bad_access());
    assert_eq!((registers.read32(regs::ID), registers.read32_at(vector)), (regs::DEVICE_MAGIC, 0));
    channel.run(Operation::Nop);
    gpu.reset();
    assert!(!gpu.status().bad_access());
}
