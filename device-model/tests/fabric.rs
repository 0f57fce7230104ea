// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! GPUs on a fabric: which GPU reaches the VRAM of which, and when not.

use ersatz_abi::regs;
use ersatz_device_model::bus::PciFunction;
use ersatz_device_model::fabric::{Fabric, FabricError};
use ersatz_device_model::{GpuConfig, GpuError};
use vm_memory::Bytes;

use ersatz_device_testing::{Host, Interrupts};

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
fn resets_and_sleep_wait_for_the_access_under_way() {
    type Step = fn(&Host);
    let steps: [(Step, bool); 3] = [
        (|host| drop(host.gpu.reset()), true),
        (|host| drop(host.gpu.config_write(FLR_BYTE, &[0x80])), true),
        (|host| drop(host.gpu.config_write(POWER_CONTROL, &[3])), false),
    ];
    for (step, is_reached_after) in steps {
        let fabric = Fabric::new();
        let (zero, one) = (plugged(&fabric, 0), plugged(&fabric, 1));
        let peer = zero.gpu.peer(1).unwrap();
        let pass = peer.enter().unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| step(&one));
            // From the moment that it waits no further pass is given out.
            zero.wait_until("it to wait", |_| peer.enter().is_none());
            assert!(!waits.is_finished());
            drop(pass);
            waits.join().unwrap();
        });
        assert_eq!(peer.enter().is_some(), is_reached_after);
    }
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
