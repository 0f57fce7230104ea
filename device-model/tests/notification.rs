// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The registers of the notification rings and of the access counters, as a driver uses and misuses them.

use ersatz_abi::access_counter::{AccessCounterControl, CLEAR_ALL_REGIONS, REGION_ORDER_MAX, REGION_ORDER_MIN};
use ersatz_abi::counter::Counter;
use ersatz_abi::notification::{NOTIFICATION_ORDER_MAX, NotificationStatus};
use ersatz_abi::pci::VECTOR_ERROR;
use ersatz_abi::regs::{self, ACCESS_RING_BASE, Control, FAULT_RING_BASE, NOTIFICATION_REGISTERS, Register};
use ersatz_device_model::bus::PciFunction;
use ersatz_device_testing::Host;

/// PCI Express device control: the byte with the FLR bit.
const FLR_BYTE: u16 = 0x69;
const RINGS: [u32; 2] = [FAULT_RING_BASE, ACCESS_RING_BASE];

fn at(ring: u32, register: Register) -> u32 {
    ring + register.offset
}

fn enable(host: &Host, ring: u32) {
    host.write64(at(ring, regs::NOTIFICATION_BASE), 0x20_0000);
    host.write32(at(ring, regs::NOTIFICATION_ORDER), 5);
    host.write32(at(ring, regs::NOTIFICATION_VECTOR), 9);
    host.write32(at(ring, regs::NOTIFICATION_CONTROL), 1);
}

/// What all registers of a ring read as.
fn read_all(host: &Host, ring: u32) -> Vec<u64> {
    let read = |register: &Register| match register.width {
        8 => host.read64(at(ring, *register)),
        _ => host.read32(at(ring, *register)).into(),
    };
    NOTIFICATION_REGISTERS.iter().map(read).collect()
}

/// How many bad accesses this makes.
fn bad(host: &Host, accesses: impl FnOnce()) -> u64 {
    let before = host.counter(Counter::BadAccesses);
    accesses();
    host.counter(Counter::BadAccesses) - before
}

#[test]
fn each_ring_has_its_own_setup() {
    let host = Host::new();
    enable(&host, FAULT_RING_BASE);
    assert_eq!(read_all(&host, FAULT_RING_BASE), [0x20_0000, 5, 9, 1, 0, 0, 0]);
    assert_eq!(read_all(&host, ACCESS_RING_BASE), [0; 7]);
    host.write32(at(ACCESS_RING_BASE, regs::NOTIFICATION_BASE), 0x1000);
    host.write32(at(ACCESS_RING_BASE, regs::NOTIFICATION_BASE) + 4, 0x12);
    assert_eq!(host.read64(at(ACCESS_RING_BASE, regs::NOTIFICATION_BASE)), 0x12_0000_1000, "by halves");
    assert_eq!(host.counter(Counter::BadAccesses), 0);
    assert!(host.interrupts.seen().is_empty());
}

#[test]
fn the_setup_is_not_changed_under_the_device() {
    let host = Host::new();
    for ring in RINGS {
        enable(&host, ring);
        let before = read_all(&host, ring);
        let refused = bad(&host, || {
            host.write64(at(ring, regs::NOTIFICATION_BASE), 0x30_0000);
            host.write32(at(ring, regs::NOTIFICATION_ORDER), 6);
            host.write32(at(ring, regs::NOTIFICATION_VECTOR), 7);
        });
        assert_eq!((refused, read_all(&host, ring)), (3, before));
        host.write32(at(ring, regs::NOTIFICATION_CONTROL), 0);
        assert_eq!(bad(&host, || host.write32(at(ring, regs::NOTIFICATION_ORDER), 6)), 0);
    }
    assert_eq!(host.interrupts.seen(), [VECTOR_ERROR], "the first bad access");
}

#[test]
fn what_makes_no_sense_is_a_bad_access() {
    let host = Host::new();
    for ring in RINGS {
        enable(&host, ring);
        let refused = bad(&host, || {
            host.write32(at(ring, regs::NOTIFICATION_CONTROL), 2);
            host.write32(at(ring, regs::NOTIFICATION_STATUS), 8);
            host.write32(at(ring, regs::NOTIFICATION_GET), 1);
            host.write32(at(ring, regs::NOTIFICATION_GET), u32::MAX - 32);
            host.write32(at(ring, regs::NOTIFICATION_PUT), 0);
            host.write64(at(ring, regs::NOTIFICATION_ORDER), 0);
            host.read64(at(ring, regs::NOTIFICATION_GET));
        });
        assert_eq!(refused, 7);
        assert_eq!(bad(&host, || host.write32(at(ring, regs::NOTIFICATION_GET), 0)), 0);
        host.write32(at(ring, regs::NOTIFICATION_CONTROL), 0);
        assert_eq!(bad(&host, || host.write32(at(ring, regs::NOTIFICATION_GET), 0)), 1, "not while disabled");
    }
}

#[test]
fn a_setup_that_cannot_work_is_told_and_cleared() {
    let host = Host::new();
    for ring in RINGS {
        let status = at(ring, regs::NOTIFICATION_STATUS);
        enable(&host, ring);
        host.write32(at(ring, regs::NOTIFICATION_CONTROL), 0);
        host.write32(at(ring, regs::NOTIFICATION_ORDER), NOTIFICATION_ORDER_MAX + 1);
        host.write32(at(ring, regs::NOTIFICATION_CONTROL), 1);
        assert_eq!(host.read32(at(ring, regs::NOTIFICATION_CONTROL)), 0);
        assert!(NotificationStatus(host.read32(status)).bad_setup());
        host.write32(status, NotificationStatus(0).with_overflow(true).0);
        assert!(NotificationStatus(host.read32(status)).bad_setup(), "another bit");
        host.write32(status, host.read32(status));
        assert_eq!(host.read32(status), 0);
    }
    assert_eq!(host.counter(Counter::BadAccesses), 0);
}

#[test]
fn access_counters_take_what_can_work() {
    let host = Host::new();
    let (control, clear) = (regs::ACCESS_COUNTER_CONTROL.offset, regs::ACCESS_COUNTER_CLEAR.offset);
    let good = AccessCounterControl(0).with_enable(true).with_region_order(REGION_ORDER_MIN).with_threshold(1);
    host.write32(control, good.0);
    let refused = bad(&host, || {
        host.write32(control, good.with_threshold(0).0);
        host.write32(control, good.with_region_order(REGION_ORDER_MAX + 1).0);
        host.write32(control, good.0 | 1 << 14);
        host.write64(clear, 0x100);
        host.write32(clear, 0xffff);
        host.write32(clear + 4, 0xffff_fffe);
    });
    assert_eq!((refused, host.read32(control)), (5, good.0), "the low half alone does nothing");
    let refused = bad(&host, || {
        host.write64(clear, CLEAR_ALL_REGIONS);
        host.write64(clear, 0x12_3400_00ff);
        host.write32(clear, u32::MAX);
        host.write32(clear + 4, u32::MAX);
        host.write32(control, 0);
    });
    assert_eq!((refused, host.read64(clear)), (0, 0), "reads as zero");
}

#[test]
fn every_reset_puts_all_back() {
    let host = Host::new();
    let initial = RINGS.map(|ring| read_all(&host, ring));
    let flr = |host: &Host| drop(host.gpu.config_write(FLR_BYTE, &[0x80]));
    let by_register = |host: &Host| {
        host.write32(regs::CONTROL.offset, Control(0).with_reset(true).0);
        host.wait_until("the reset", |host| host.read32(regs::CONTROL.offset) == 0);
    };
    let conventional = |host: &Host| drop(host.gpu.reset());
    let resets: [&dyn Fn(&Host); 3] = [&flr, &by_register, &conventional];
    for reset in resets {
        RINGS.iter().for_each(|ring| enable(&host, *ring));
        let counting = AccessCounterControl(0).with_enable(true).with_region_order(REGION_ORDER_MIN).with_threshold(1);
        host.write32(regs::ACCESS_COUNTER_CONTROL.offset, counting.0);
        assert_eq!(host.read32(regs::ACCESS_COUNTER_CONTROL.offset), counting.0);
        reset(&host);
        host.start();
        assert_eq!(RINGS.map(|ring| read_all(&host, ring)), initial);
        assert_eq!(host.read32(regs::ACCESS_COUNTER_CONTROL.offset), 0);
    }
}
