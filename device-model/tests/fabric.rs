// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! GPUs on a fabric: who reaches whose VRAM, and when not.

mod host;

use ersatz_abi::channel::ChannelState;
use ersatz_abi::command::Operation;
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::kernel::Kernel;
use ersatz_abi::list::Location;
use ersatz_abi::mmu::{AddressSpaceControl, PageSize};
use ersatz_abi::regs;
use ersatz_device_model::bus::PciFunction;
use ersatz_device_model::fabric::{Fabric, FabricError};
use ersatz_device_model::{GpuConfig, GpuError};
use vm_memory::Bytes;

use host::tables::{Space, page};
use host::{DATA, Host, Interrupts, LISTS, command, entry, reg};

const POWER_CONTROL: u16 = 0x44;
const FLR_BYTE: u16 = 0x69;

fn plugged(fabric: &Fabric, number: u8) -> Host {
    let mut config = GpuConfig::new(4 << 20);
    config.fabric = Some(fabric.port(number).unwrap());
    Host::with(config, Interrupts::default())
}

#[test]
fn a_gpu_reaches_the_other_ones_vram() {
    let fabric = Fabric::new();
    let (zero, one) = (plugged(&fabric, 0), plugged(&fabric, 1));
    assert_eq!((zero.gpu.peers(), one.gpu.peers()), (0b10, 0b01));
    let told = [&zero, &one, &Host::new()].map(|host| host.read32(regs::PEERS.offset));
    assert_eq!(told, [0x1002, 0x1101, 0], "peers, own number, plugged");
    let peer = zero.gpu.peer(1).unwrap();
    assert_eq!(peer.size(), 4 << 20);
    peer.enter().unwrap().slice(0x1000, 4).unwrap().write_obj(77_u32, 0).unwrap();
    let mut data = [0; 4];
    one.gpu.bar_read(2, 0x1000, &mut data);
    assert_eq!(u32::from_le_bytes(data), 77);
    assert!(zero.gpu.peer(0).is_none() && zero.gpu.peer(2).is_none());
}

#[test]
fn a_sleeping_gpu_is_not_reached_and_one_that_is_reset_is_again() {
    let fabric = Fabric::new();
    let (zero, one) = (plugged(&fabric, 0), plugged(&fabric, 1));
    let peer = zero.gpu.peer(1).unwrap();
    one.gpu.config_write(POWER_CONTROL, &[3]);
    assert!(peer.enter().is_none());
    one.gpu.config_write(POWER_CONTROL, &[0]);
    assert!(peer.enter().is_some());
    one.gpu.config_write(POWER_CONTROL, &[3]);
    one.gpu.config_write(FLR_BYTE, &[0x80]);
    assert!(peer.enter().is_some(), "a reset wakes up");
    one.gpu.reset();
    assert!(peer.enter().is_some(), "the link needs no driver");
}

#[test]
fn a_reset_waits_for_the_access_under_way() {
    let fabric = Fabric::new();
    let (zero, one) = (plugged(&fabric, 0), plugged(&fabric, 1));
    let peer = zero.gpu.peer(1).unwrap();
    let pass = peer.enter().unwrap();
    std::thread::scope(|scope| {
        let reset = scope.spawn(|| one.gpu.reset());
        // From the moment that it waits nobody else gets in.
        zero.wait_until("the reset waits", |_| peer.enter().is_none());
        assert!(!reset.is_finished());
        drop(pass);
        reset.join().unwrap();
    });
    assert!(peer.enter().is_some());
}

#[test]
fn a_gpu_that_is_gone_is_no_peer() {
    let fabric = Fabric::new();
    let (zero, one) = (plugged(&fabric, 0), plugged(&fabric, 1));
    let peer = zero.gpu.peer(1).unwrap();
    drop(one);
    assert!(peer.enter().is_none() && zero.gpu.peer(1).is_none());
    assert_eq!(zero.gpu.peers(), 0);
    let successor = plugged(&fabric, 1);
    assert!(peer.enter().is_none(), "the memory that is held is not the successor's");
    assert_eq!((zero.gpu.peers(), successor.gpu.peers()), (0b10, 0b01));
}

#[test]
fn two_gpus_cannot_share_a_port() {
    let fabric = Fabric::new();
    let _first = plugged(&fabric, 5);
    let mut config = GpuConfig::new(4 << 20);
    config.fabric = Some(fabric.port(5).unwrap());
    let host = Host::new();
    let result = ersatz_device_model::Gpu::new(
        config,
        host.space.clone(),
        host.interrupts.clone(),
        std::sync::Arc::new(ersatz_device_model::clock::HostClock::new()),
    );
    assert!(matches!(result, Err(GpuError::Fabric(FabricError::Taken(5)))));
}

#[test]
fn a_copy_engine_copies_from_and_to_a_peer() {
    let fabric = Fabric::new();
    let (mut zero, three) = (plugged(&fabric, 0), plugged(&fabric, 3));
    zero.enable(0, 1);
    three.store(Location::vram(0x3000), 0x1234);
    zero.store(Location::system(DATA), 0x5678);
    let list = zero.list(
        LISTS,
        &[
            entry(Location::peer(3, 0x3000), Location::vram(0), 4096),
            entry(Location::vram(0), Location::peer(3, 0x10_0000), 4096),
            entry(Location::system(DATA), Location::peer(3, 0), 8),
            entry(Location::peer(3, 0x3000), Location::peer(3, 0x5000), 4096),
        ],
    );
    zero.execute(Operation::Copy(list), 1);
    assert_eq!(zero.load(Location::vram(0)), 0x1234);
    let found = [0x10_0000, 0, 0x5000].map(|at| three.load(Location::vram(at)));
    assert_eq!(found, [0x1234, 0x5678, 0x1234]);
    assert_eq!((zero.counter(Counter::BytesFromPeer), zero.counter(Counter::BytesToPeer)), (8192, 4104));
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

#[test]
fn what_is_wrong_with_a_peer_is_told() {
    let fabric = Fabric::new();
    let one = plugged(&fabric, 1);
    let beyond = entry(Location::peer(1, (4 << 20) - 8), Location::vram(0), 16);
    let asleep = entry(Location::peer(1, 64), Location::vram(0), 16);
    let nobody = entry(Location::vram(0), Location::peer(5, 128), 16);
    let overlap = entry(Location::peer(1, 0), Location::peer(1, 8), 16);
    let cases = [
        (beyond, ErrorCode::PeerRange, (4 << 20) - 8),
        (overlap, ErrorCode::Overlap, 8),
        (nobody, ErrorCode::PeerUnavailable, 128),
        (asleep, ErrorCode::PeerUnavailable, 64),
    ];
    for (number, (entry, code, address)) in cases.into_iter().enumerate() {
        if number == 3 {
            one.gpu.config_write(POWER_CONTROL, &[3]);
        }
        let mut zero = plugged(&fabric, 0);
        zero.enable(0, 1);
        let list = zero.list(LISTS, &[entry]);
        zero.submit(command(Operation::Copy(list)));
        zero.wait_until(code.name(), |host| host.status(0).state() == Some(ChannelState::Error));
        assert_eq!((zero.status(0).error(), zero.read64(reg(0, regs::ERROR_ADDRESS))), (Some(code), address));
    }
}

/// Each copies from the other while both are reset again and again: nobody hangs, and afterwards both work.
#[test]
fn crossed_copies_survive_resets_of_both() {
    let fabric = Fabric::new();
    let mut hosts = [plugged(&fabric, 0), plugged(&fabric, 1)];
    for round in 0..20 {
        for (number, host) in hosts.iter_mut().enumerate() {
            host.put[0] = 0;
            host.enable(0, 1);
            let from = Location::peer(1 - number as u8, 0);
            let entries: Vec<_> = (0..64).map(|_| entry(from, Location::vram(2 << 20), 2 << 20)).collect();
            let list = host.list(LISTS, &entries);
            host.submit(command(Operation::Copy(list)));
        }
        for host in if round % 2 == 0 { [&hosts[0], &hosts[1]] } else { [&hosts[1], &hosts[0]] } {
            host.gpu.reset();
            host.start();
        }
    }
    for host in &mut hosts {
        host.put[0] = 0;
        host.enable(0, 1);
        let before = host.interrupts.seen().len();
        host.submit(ersatz_abi::command::Command { interrupt: true, ..command(Operation::Nop) });
        host.interrupts.wait_for(before + 1);
    }
}
