// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The MMU as a driver sees it: its registers.

use ersatz_abi::counter::Counter;
use ersatz_abi::mmu::{
    ADDRESS_SPACES, AddressSpaceControl, InvalidateScope, InvalidateTarget, Invalidation, MAX_PEERS,
};
use ersatz_abi::regs::{self, MmuConfiguration, Register, Status};
use ersatz_device_model::bus::PciFunction;

use ersatz_device_testing::Host;

fn space(asid: u32, register: Register) -> u32 {
    regs::address_space_register(asid, register).unwrap()
}

/// The accesses that were bad since `work` began.
fn bad_accesses(host: &Host, work: impl FnOnce()) -> u64 {
    let before = host.counter(Counter::BadAccesses);
    work();
    host.counter(Counter::BadAccesses) - before
}

/// Starts an invalidation by register, as the manual says; returns its number.
fn invalidate(host: &Host, invalidation: Invalidation) -> u64 {
    let (target, address, length) = invalidation.encode();
    host.write64(regs::INVALIDATE_ADDRESS.offset, address);
    host.write64(regs::INVALIDATE_LENGTH.offset, length);
    host.write32(regs::INVALIDATE.offset, target.0.try_into().unwrap());
    host.read64(regs::INVALIDATE_REQUESTED.offset)
}

fn acknowledged(host: &Host) -> u64 {
    host.read64(regs::INVALIDATE_ACKNOWLEDGED.offset)
}

#[test]
fn says_what_it_has() {
    let host = Host::new();
    let configuration = MmuConfiguration(host.read32(regs::MMU_CONFIGURATION.offset));
    assert_eq!(configuration.address_spaces(), ADDRESS_SPACES);
    assert_eq!(configuration.peers(), u32::from(MAX_PEERS));
}

#[test]
fn each_address_space_has_its_own_registers() {
    let host = Host::new();
    for asid in 0..ADDRESS_SPACES {
        host.write64(space(asid, regs::ADDRESS_SPACE_ROOT), u64::from(asid) << 12 | 1);
        host.write32(space(asid, regs::ADDRESS_SPACE_CONTROL), asid % 16);
    }
    for asid in 0..ADDRESS_SPACES {
        assert_eq!(host.read64(space(asid, regs::ADDRESS_SPACE_ROOT)), u64::from(asid) << 12 | 1);
        assert_eq!(host.read32(space(asid, regs::ADDRESS_SPACE_CONTROL)), asid % 16);
    }
    let beyond = space(ADDRESS_SPACES - 1, regs::ADDRESS_SPACE_ROOT) + regs::ADDRESS_SPACE_STRIDE;
    assert_eq!(bad_accesses(&host, || host.write64(beyond, 1)), 1);
}

#[test]
fn an_enabled_address_space_can_only_be_disabled() {
    let host = Host::new();
    let (root, control) = (space(7, regs::ADDRESS_SPACE_ROOT), space(7, regs::ADDRESS_SPACE_CONTROL));
    host.write32(root, 0x1003);
    host.write32(root + 4, 0x5);
    assert_eq!(host.read64(root), 0x5_0000_1003);
    let enabled = AddressSpaceControl(0).with_enable(true).with_replayable(true);
    host.write32(control, enabled.0);
    let refused = bad_accesses(&host, || {
        host.write64(root, 0);
        host.write32(root, 0);
        host.write32(control, enabled.with_track(true).0);
        host.write32(control, enabled.0 | 1 << 4);
    });
    assert_eq!(refused, 4);
    assert_eq!((host.read64(root), host.read32(control)), (0x5_0000_1003, enabled.0));
    host.write32(control, 0);
    host.write64(root, 0);
    assert_eq!((host.read64(root), host.read32(control)), (0, 0));
}

#[test]
fn invalidations_by_register_are_acknowledged() {
    let host = Host::new();
    assert_eq!((host.read64(regs::INVALIDATE_REQUESTED.offset), acknowledged(&host)), (0, 0));
    let range = Invalidation::Range { asid: 3, address: 0x7fff_0000_0000, length: 0x20_0000 };
    for (number, invalidation) in (1..).zip([range, Invalidation::AddressSpace(3), Invalidation::All]) {
        assert_eq!(invalidate(&host, invalidation), number);
        host.wait_until("the acknowledgement", |host| acknowledged(host) >= number);
    }
    assert_eq!(host.counter(Counter::Invalidations), 3);
}

#[test]
fn address_and_length_are_for_ranges_and_stay() {
    let host = Host::new();
    host.write64(regs::INVALIDATE_ADDRESS.offset, 0x1234_5678_9abc_def0);
    host.write32(regs::INVALIDATE_LENGTH.offset, 7);
    host.write32(regs::INVALIDATE_LENGTH.offset + 4, 1);
    let scope = |scope| InvalidateTarget(0).with_raw_scope(scope as u64).0.try_into().unwrap();
    host.write32(regs::INVALIDATE.offset, scope(InvalidateScope::All));
    host.write32(regs::INVALIDATE.offset, scope(InvalidateScope::Range));
    host.wait_until("the acknowledgement", |host| acknowledged(host) == 2);
    assert_eq!(host.read64(regs::INVALIDATE_ADDRESS.offset), 0x1234_5678_9abc_def0);
    assert_eq!(host.read64(regs::INVALIDATE_LENGTH.offset), 0x1_0000_0007);
    assert_eq!(host.read32(regs::INVALIDATE.offset), 0, "can only be written");
}

#[test]
fn what_is_no_invalidation_is_a_bad_access() {
    let host = Host::new();
    let scope = |scope| InvalidateTarget(0).with_raw_scope(scope as u64).0 as u32;
    let refused = bad_accesses(&host, || {
        // A range of no bytes.
        host.write32(regs::INVALIDATE.offset, scope(InvalidateScope::Range));
        host.write32(regs::INVALIDATE.offset, scope(InvalidateScope::Range) + (1 << 16));
        host.write32(regs::INVALIDATE.offset, 1);
        host.write32(regs::INVALIDATE.offset, 1 << 31);
        host.write64(regs::INVALIDATE.offset, 0);
        host.write64(regs::INVALIDATE_REQUESTED.offset, 1);
        host.write64(regs::INVALIDATE_ACKNOWLEDGED.offset, 1);
        host.write32(regs::MMU_CONFIGURATION.offset, 1);
    });
    assert_eq!(refused, 8);
    assert_eq!((host.read64(regs::INVALIDATE_REQUESTED.offset), acknowledged(&host)), (0, 0));
}

fn set_up(host: &Host) {
    host.write64(space(9, regs::ADDRESS_SPACE_ROOT), 0x3001);
    host.write32(space(9, regs::ADDRESS_SPACE_CONTROL), 1);
    let number = invalidate(host, Invalidation::Range { asid: 9, address: 0, length: 1 });
    host.wait_until("the acknowledgement", |host| acknowledged(host) >= number);
}

fn check_reset(host: &Host) {
    assert_eq!(host.read64(space(9, regs::ADDRESS_SPACE_ROOT)), 0);
    assert_eq!(host.read32(space(9, regs::ADDRESS_SPACE_CONTROL)), 0);
    for register in
        [regs::INVALIDATE_ADDRESS, regs::INVALIDATE_LENGTH, regs::INVALIDATE_REQUESTED, regs::INVALIDATE_ACKNOWLEDGED]
    {
        assert_eq!(host.read64(register.offset), 0, "{}", register.name);
    }
    set_up(host);
    assert_eq!(acknowledged(host), 1);
}

#[test]
fn a_reset_of_the_function_disables_address_spaces_and_counts_anew() {
    let host = Host::new();
    set_up(&host);
    host.gpu.reset();
    host.start();
    check_reset(&host);
}

#[test]
fn a_reset_of_the_device_does_so_too() {
    let host = Host::new();
    set_up(&host);
    host.write32(regs::CONTROL.offset, 1);
    host.wait_until("the reset", |host| !Status(host.read32(regs::STATUS.offset)).resetting());
    check_reset(&host);
}
