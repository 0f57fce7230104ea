// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages that lie in another GPU's VRAM, and what becomes of a kernel on them when that one sleeps, is reset, or goes away.

use ersatz_abi::channel::Priority;
use ersatz_abi::command::{Command, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::fault::FaultKind;
use ersatz_abi::kernel::Kernel;
use ersatz_abi::list::Location;
use ersatz_abi::mmu::PageSize;
use ersatz_abi::regs;
use ersatz_device_model::GpuConfig;
use ersatz_device_model::bus::PciFunction;
use ersatz_device_model::fabric::Fabric;

use ersatz_device_testing::faults::{ASID, BASE, COMPUTE, bind, enable_buffer, is_faulted, records, replayable, set};
use ersatz_device_testing::tables::{Space, page};
use ersatz_device_testing::{Host, Interrupts, command, reg};

const VRAM: u64 = 4 << 20;
const POWER_CONTROL: u16 = 0x44;
const FLR_BYTE: u16 = 0x69;
/// Where in the peer's VRAM the page is.
const THERE: u64 = 0x8000;

fn plugged(fabric: &Fabric, number: u8) -> Host {
    let mut config = GpuConfig::new(VRAM);
    config.fabric = Some(fabric.port(number).unwrap());
    Host::with(config, Interrupts::default())
}

/// Two GPUs; a kernel of the first waits at a write to [`BASE`], for which there is a page now: one of the second's.
fn waiting() -> (Host, Host) {
    let fabric = Fabric::new();
    let (mut zero, one) = (plugged(&fabric, 0), plugged(&fabric, 1));
    let mut space = Space::new(&zero, ASID, replayable(), Location::vram(2 << 20));
    enable_buffer(&zero);
    bind(&zero, 0, COMPUTE, Priority::Low);
    zero.submit(set(BASE + 16, 8, 7));
    zero.wait_until("the fault", |host| is_faulted(host, 0));
    assert_eq!(records(&zero).len(), 1);
    space.map(&zero, BASE, page(Location::peer(1, THERE), PageSize::Small));
    (zero, one)
}

fn replay(host: &Host) {
    host.write32(regs::FAULT_REPLAY.offset, 1);
}

fn expect_unavailable(host: &Host, address: u64) {
    host.wait_until("the error", |host| host.status(0).error() == Some(ErrorCode::PeerUnavailable));
    assert_eq!(host.read64(reg(0, regs::ERROR_ADDRESS)), address);
}

#[test]
fn a_reset_of_the_peer_is_no_matter() {
    for reset in ["register", "function", "bus"] {
        let (zero, one) = waiting();
        match reset {
            "register" => one.write32(regs::CONTROL.offset, 1),
            "function" => drop(one.gpu.config_write(FLR_BYTE, &[0x80])),
            _ => drop(one.gpu.reset()),
        }
        replay(&zero);
        zero.wait_until("its end", |host| host.fence() == 1);
        one.start();
        assert_eq!(one.load(Location::vram(THERE + 16)), 7, "{reset}");
    }
}

#[test]
fn a_peer_that_sleeps_is_an_error_of_the_access() {
    let (zero, one) = waiting();
    one.gpu.config_write(POWER_CONTROL, &[3]);
    replay(&zero);
    expect_unavailable(&zero, THERE + 16);
    one.gpu.config_write(POWER_CONTROL, &[0]);
    assert_eq!(one.load(Location::vram(THERE + 16)), 0);
    assert_eq!(zero.counter(Counter::KernelBytesWritten), 0);
}

/// A peer that is gone is found out by the walk, as a fault; unless the translation is cached, for then there is no walk.
#[test]
fn a_peer_that_is_gone_is_a_fault_of_the_walk() {
    let (zero, one) = waiting();
    drop(one);
    replay(&zero);
    zero.wait_until("the record", |host| host.counter(Counter::Faults) == 2);
    assert_eq!(records(&zero)[0].kind, FaultKind::BadAperture);
    let (mut zero, one) = waiting();
    replay(&zero);
    zero.wait_until("its end", |host| host.fence() == 1);
    drop(one);
    let read = Kernel::Read { source: BASE + 24, length: 8 };
    zero.submit(Command { fence: Some(2), ..command(Operation::Kernel(read)) });
    expect_unavailable(&zero, THERE + 24);
}

#[test]
fn a_page_beyond_the_peers_vram_is_an_error_of_the_access() {
    let fabric = Fabric::new();
    let (mut zero, _one) = (plugged(&fabric, 0), plugged(&fabric, 1));
    let mut space = Space::new(&zero, ASID, replayable(), Location::vram(2 << 20));
    space.map(&zero, BASE, page(Location::peer(1, VRAM), PageSize::Small));
    bind(&zero, 0, COMPUTE, Priority::Low);
    let add = Kernel::AtomicAdd { target: BASE + 8, length: 8, addend: 1 };
    zero.submit(command(Operation::Kernel(add)));
    zero.wait_until("the error", |host| host.status(0).error() == Some(ErrorCode::PeerRange));
    assert_eq!(zero.read64(reg(0, regs::ERROR_ADDRESS)), VRAM + 8);
}
