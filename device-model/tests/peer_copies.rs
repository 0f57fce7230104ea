// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Copies between two GPUs over the fabric, and what becomes of them when the other one cannot be reached.

use ersatz_abi::channel::ChannelState;
use ersatz_abi::command::{Command, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::kernel::Kernel;
use ersatz_abi::list::{ListEntry, Location};
use ersatz_abi::mmu::{AddressSpaceControl, PageSize};
use ersatz_abi::regs;
use ersatz_device_model::GpuConfig;
use ersatz_device_model::bus::PciFunction;
use ersatz_device_model::fabric::Fabric;
use vm_memory::{Bytes, GuestAddress};

use ersatz_device_testing::tables::{Space, page};
use ersatz_device_testing::{DATA, Host, Interrupts, LISTS, command, entry, reg, system, vram};

const VRAM: u64 = 4 << 20;
const POWER_CONTROL: u16 = 0x44;

fn plugged(fabric: &Fabric, number: u8) -> Host {
    let mut config = GpuConfig::new(VRAM);
    config.fabric = Some(fabric.port(number).unwrap());
    Host::with(config, Interrupts::default())
}

/// GPUs 0 and 1, with channel 0 of each enabled.
fn two() -> (Host, Host) {
    let fabric = Fabric::new();
    let hosts = (plugged(&fabric, 0), plugged(&fabric, 1));
    hosts.0.enable(0, 1);
    hosts.1.enable(0, 1);
    hosts
}

fn copy(host: &mut Host, entries: &[ListEntry], fence: u64) {
    let list = host.list(LISTS, entries);
    host.execute(Operation::Copy(list), fence);
}

/// Submits a copy that fails in this way.
fn fail(host: &mut Host, entry: ListEntry, error: ErrorCode) {
    host.put[0] = 0;
    host.start();
    host.enable(0, 1);
    let list = host.list(LISTS, &[entry]);
    host.submit(command(Operation::Copy(list)));
    host.wait_until("the error", |host| host.status(0).state() == Some(ChannelState::Error));
    assert_eq!(host.status(0).error(), Some(error));
    host.gpu.reset();
}

#[test]
fn content_travels_through_the_peer_and_back() {
    let (mut zero, one) = two();
    let content: Vec<u8> = (0..8192_u32).map(|byte| (byte * 7 % 251) as u8).collect();
    zero.memory.write_slice(&content, GuestAddress(DATA)).unwrap();
    let away = Location::peer(1, 0x3000);
    copy(
        &mut zero,
        &[
            entry(system(DATA), vram(0x8000), 8192),
            entry(vram(0x8000), away, 8192),
            // From here on it is only in the peer.
            entry(system(DATA + 0x10_0000), vram(0x8000), 8192),
            entry(away, system(DATA + 0x20_0000), 8192),
            entry(away, vram(0x20_0000), 8192),
            entry(vram(0x20_0000), system(DATA + 0x30_0000), 8192),
            // Without a stop in between.
            entry(away, Location::peer(1, 0x10_0000), 8192),
            entry(Location::peer(1, 0x10_0000), system(DATA + 0x40_0000), 8192),
            entry(system(DATA + 0x40_0000), Location::peer(1, 0x3000), 8192),
        ],
        1,
    );
    for offset in [0x20_0000, 0x30_0000, 0x40_0000] {
        let mut back = vec![0; content.len()];
        zero.memory.read_slice(&mut back, GuestAddress(DATA + offset)).unwrap();
        assert!(back == content, "{offset:#x}");
    }
    let mut there = vec![0; content.len()];
    one.gpu.bar_read(2, 0x3000, &mut there);
    assert!(there == content);
    assert_eq!((zero.counter(Counter::BytesToPeer), zero.counter(Counter::BytesFromPeer)), (2 * 8192, 4 * 8192));
    assert_eq!(one.counter(Counter::CopyEntries), 0, "the peer's engines have no part in it");
}

#[test]
fn what_cannot_be_reached_is_an_error_of_the_channel() {
    let (mut zero, one) = two();
    for number in [0, 2, 7] {
        fail(&mut zero, entry(vram(0), Location::peer(number, 0), 4096), ErrorCode::PeerUnavailable);
    }
    fail(&mut zero, entry(Location::peer(1, 0), Location::peer(1, 8), 16), ErrorCode::Overlap);
    fail(&mut zero, entry(Location::peer(1, VRAM - 4096), vram(0), 8192), ErrorCode::PeerRange);
    one.gpu.config_write(POWER_CONTROL, &[3]);
    fail(&mut zero, entry(Location::peer(1, 0), vram(0), 4096), ErrorCode::PeerUnavailable);
    one.gpu.config_write(POWER_CONTROL, &[0]);
    zero.put[0] = 0;
    zero.start();
    zero.enable(0, 1);
    copy(&mut zero, &[entry(Location::peer(1, 0), vram(0), 4096)], 1);
    zero.gpu.reset();
    drop(one);
    fail(&mut zero, entry(Location::peer(1, 0), vram(0), 4096), ErrorCode::PeerUnavailable);
}

#[test]
fn pages_may_be_a_peers() {
    let fabric = Fabric::new();
    let (mut zero, one) = (plugged(&fabric, 0), plugged(&fabric, 1));
    let mut space = Space::new(&zero, 1, AddressSpaceControl(0), Location::vram(2 << 20));
    space.map(&zero, 0, page(Location::peer(1, 0x4000), PageSize::Small));
    zero.write32(reg(0, regs::ENGINE), 2);
    zero.write32(reg(0, regs::ASID), 1);
    zero.enable(0, 1);
    zero.execute(Operation::Kernel(Kernel::AtomicAdd { target: 8, length: 16, addend: 5 }), 1);
    zero.execute(Operation::Kernel(Kernel::AtomicAdd { target: 8, length: 8, addend: 5 }), 2);
    assert_eq!([0x4000, 0x4008, 0x4010].map(|at| one.load(Location::vram(at))), [0, 10, 5]);
}

/// Each GPU's engine is in the other's VRAM when both are reset. None of the four waits for another for good.
#[test]
fn gpus_that_copy_from_each_other_can_be_reset_at_once() {
    let (mut zero, mut one) = two();
    for round in 0..100_u64 {
        for (host, peer) in [(&mut zero, 1), (&mut one, 0)] {
            host.put[0] = 0;
            host.start();
            host.enable(0, 1);
            let entries =
                [entry(Location::peer(peer, 0), vram(0), 1 << 20), entry(vram(0), Location::peer(peer, 0), 1 << 20)];
            let list = host.list(LISTS, &entries.repeat(64));
            host.submit(Command { fence: Some(1), ..command(Operation::Copy(list)) });
        }
        if round % 2 == 0 {
            // So that some rounds find both in the middle of it, and others at the very beginning.
            zero.wait_until("copying", |host| host.counter(Counter::CopyEntries) > 0);
        }
        std::thread::scope(|scope| {
            scope.spawn(|| zero.gpu.reset());
            scope.spawn(|| one.gpu.reset());
        });
    }
    for (host, peer) in [(&mut zero, 1), (&mut one, 0)] {
        host.put[0] = 0;
        host.start();
        host.enable(0, 1);
        copy(host, &[entry(Location::peer(peer, 0), vram(0), 4096)], 1);
    }
}
