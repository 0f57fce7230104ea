// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bad DMA, as config space reports it: PCI status, Device Status, advanced error reporting.

use ersatz_abi::channel::ChannelState;
use ersatz_abi::command::{ListEntry, Operation};
use ersatz_abi::error::ErrorCode;
use ersatz_device_model::GpuConfig;
use ersatz_device_model::bus::PciFunction;
use ersatz_device_model::dma::MapAccess;

use ersatz_device_testing::{Host, Interrupts, LISTS, RAM, command, entry, system, vram};

const STATUS: u16 = 0x06;
const MASTER_ABORT: u16 = 1 << 13;
const TARGET_ABORT: u16 = 1 << 12;
const DEVICE_STATUS: u16 = 0x6a;
const FLR_BYTE: u16 = 0x69;
const AER_STATUS: u16 = 0x104;
const AER_MASK: u16 = 0x108;
const AER_CONTROL: u16 = 0x118;
const AER_HEADER: u16 = 0x11c;
const INTERNAL: u32 = 1 << 22;
/// 00:03.0.
const REQUESTER: u16 = 3 << 3;

/// Where the tests map memory that is read-only.
const READ_ONLY: u64 = 0x1_0000_0000;

fn word(host: &Host, at: u16) -> u16 {
    let mut data = [0; 2];
    host.gpu.config_read(at, &mut data);
    u16::from_le_bytes(data)
}

fn dword(host: &Host, at: u16) -> u32 {
    let mut data = [0; 4];
    host.gpu.config_read(at, &mut data);
    u32::from_le_bytes(data)
}

fn header(host: &Host) -> [u32; 4] {
    [0, 4, 8, 12].map(|at| dword(host, AER_HEADER + at))
}

/// A host whose driver wants errors logged.
fn logging() -> Host {
    let mut config = GpuConfig::new(64 << 20);
    config.requester_id = REQUESTER;
    let host = Host::with(config, Interrupts::default());
    host.gpu.config_write(AER_MASK, &[0; 4]);
    host.map(READ_ONLY, 4096, MapAccess::ReadOnly);
    host
}

/// Copies, which fails in this way.
fn fail(host: &mut Host, entry: ListEntry, error: ErrorCode) {
    host.put[0] = 0;
    host.enable(0, 1);
    let list = host.list(LISTS, &[entry]);
    host.submit(command(Operation::Copy(list)));
    host.wait_until("the error", |host| host.status(0).state() == Some(ChannelState::Error));
    assert_eq!(host.status(0).error(), Some(error));
}

#[test]
fn a_read_where_nothing_is() {
    let mut host = logging();
    // The last page of RAM, and on beyond.
    fail(&mut host, entry(system(RAM - 4096), vram(0), 65_536), ErrorCode::DmaRead);
    assert_eq!(word(&host, STATUS) & 0xf000, MASTER_ABORT);
    assert_eq!(word(&host, DEVICE_STATUS), 1 << 2, "fatal, since the driver left it at that");
    assert_eq!((dword(&host, AER_STATUS), dword(&host, AER_CONTROL)), (INTERNAL, 22));
    // A read of 512 bytes, at the first address that was refused.
    assert_eq!(header(&host), [0x0000_0080, u32::from(REQUESTER) << 16 | 0xff, RAM as u32, 0]);
}

#[test]
fn a_write_where_none_is_permitted() {
    let mut host = logging();
    fail(&mut host, entry(vram(0), system(READ_ONLY + 0x20), 64), ErrorCode::DmaWrite);
    assert_eq!(word(&host, STATUS) & 0xf000, TARGET_ABORT);
    assert_eq!(header(&host), [0x6000_0010, u32::from(REQUESTER) << 16 | 0xff, 1, 0x20]);
}

#[test]
fn good_dma_leaves_no_record() {
    let mut host = logging();
    host.enable(0, 1);
    let list = host.list(
        LISTS,
        &[entry(system(READ_ONLY), vram(0), 4096), entry(vram(0), system(ersatz_device_testing::DATA), 4096)],
    );
    host.execute(Operation::Copy(list), 1);
    assert_eq!((word(&host, STATUS) & 0xf000, word(&host, DEVICE_STATUS), dword(&host, AER_STATUS)), (0, 0, 0));
}

#[test]
fn a_driver_reads_the_record_clears_it_and_gets_the_next() {
    let mut host = logging();
    fail(&mut host, entry(system(RAM), vram(0), 64), ErrorCode::DmaRead);
    host.gpu.config_write(AER_STATUS, &INTERNAL.to_le_bytes());
    host.gpu.config_write(STATUS, &MASTER_ABORT.to_le_bytes());
    host.gpu.config_write(DEVICE_STATUS, &[0xf]);
    assert_eq!((word(&host, STATUS) & 0xf000, word(&host, DEVICE_STATUS), dword(&host, AER_STATUS)), (0, 0, 0));
    host.write32(ersatz_device_testing::reg(0, ersatz_abi::regs::CHANNEL_CONTROL), 2);
    host.wait_until("reset", |host| host.status(0).state() == Some(ChannelState::Disabled));
    fail(&mut host, entry(vram(0), system(RAM + 0x1000), 64), ErrorCode::DmaWrite);
    assert_eq!(header(&host)[0], 0x4000_0010);
}

#[test]
fn the_log_survives_flr_and_not_a_conventional_reset() {
    let mut host = logging();
    fail(&mut host, entry(system(RAM), vram(0), 64), ErrorCode::DmaRead);
    host.gpu.config_write(FLR_BYTE, &[0x80]);
    assert_eq!((word(&host, STATUS) & 0xf000, word(&host, DEVICE_STATUS)), (0, 0));
    assert_eq!((dword(&host, AER_STATUS), dword(&host, AER_MASK), header(&host)[2]), (INTERNAL, 0, RAM as u32));
    host.gpu.reset();
    assert_eq!((dword(&host, AER_STATUS), dword(&host, AER_MASK), header(&host)), (0, INTERNAL, [0; 4]));
}
