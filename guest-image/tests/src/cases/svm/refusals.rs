// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a process cannot do, the device cannot do for it.

use std::sync::atomic::Ordering;

use ersatz_abi::counter::Counter;
use ersatz_uapi::{FaultAccess, KernelKind, Launch};
use nix::errno::Errno;
use nix::sys::mman::ProtFlags;

use super::{WORDS, check_counting};
use crate::compute::{Compute, LaunchError};
use crate::pattern::Pattern;
use crate::process::Child;
use crate::region::{READ_WRITE, Region};
use crate::suite::test_list;

test_list! { "svm":
    holes_are_reported;
    addresses_that_cannot_be_are_reported;
    read_only_memory_is_not_written;
    inaccessible_memory_is_not_read;
    an_error_leaves_the_file_usable;
    operands_are_checked;
    what_is_not_bound_is_refused;
    a_bound_file_serves_its_process_alone;
}

fn holes_are_reported() {
    let (compute, region) = (Compute::bind(), Region::filled(10, Pattern::new(1)));
    region.unmap(6..7);
    let hole = region.page(6).address;
    assert_eq!(compute.try_read(region.span()), Err(LaunchError::Fault(hole, FaultAccess::Read)));
    assert_eq!(compute.try_write(region.span(), 0), Err(LaunchError::Fault(hole, FaultAccess::Write)));
    assert_eq!(compute.try_atomic_add(region.page(6), 1), Err(LaunchError::Fault(hole, FaultAccess::Atomic)));
    for (index, word) in region.atomics(0, 6 * WORDS).iter().enumerate() {
        assert_eq!(word.load(Ordering::Relaxed), index as u64, "word {index}, before the hole");
    }
    region.check_part(7..10, Pattern::new(1));
}

fn addresses_that_cannot_be_are_reported() {
    let (compute, result) = (Compute::bind(), Region::new(1));
    for address in [0, 8, 0x7fff_ffff_f000, 0x8000_0000_0000, 0xffff_8000_0000_0000] {
        let outcome = compute.try_chase(address, 1, result.span().address);
        assert_eq!(outcome, Err(LaunchError::Fault(address, FaultAccess::Read)), "{address:#x}");
    }
}

fn read_only_memory_is_not_written() {
    let (compute, region) = (Compute::bind(), Region::filled(8, Pattern::new(1)));
    compute.try_read(region.span()).expect("memory to read");
    region.protect(0..8, ProtFlags::PROT_READ);
    let first = region.span().address;
    assert_eq!(compute.try_write(region.span(), 0), Err(LaunchError::Fault(first, FaultAccess::Write)));
    assert_eq!(compute.try_atomic_add(region.span(), 1), Err(LaunchError::Fault(first, FaultAccess::Atomic)));
    compute.try_read(region.span()).expect("memory to read");
    region.check(Pattern::new(1));
}

fn inaccessible_memory_is_not_read() {
    let (compute, region) = (Compute::bind(), Region::filled(8, Pattern::new(1)));
    compute.try_read(region.span()).expect("memory to read");
    region.protect(3..5, ProtFlags::PROT_NONE);
    let third = region.page(3).address;
    assert_eq!(compute.try_read(region.span()), Err(LaunchError::Fault(third, FaultAccess::Read)));
    region.protect(3..5, READ_WRITE);
    compute.try_read(region.span()).expect("memory to read");
    region.check(Pattern::new(1));
}

fn an_error_leaves_the_file_usable() {
    let (compute, region, gone) = (Compute::bind(), Region::new(4), Region::new(1));
    gone.unmap(0..1);
    for round in 0..20 {
        let hole = gone.span().address;
        assert_eq!(compute.try_read(gone.span()), Err(LaunchError::Fault(hole, FaultAccess::Read)));
        compute.write(region.span(), round);
        check_counting(&region, round);
    }
}

fn operands_are_checked() {
    let (compute, region) = (Compute::bind(), Region::new(2));
    let Launch { first, count, .. } = Launch { first: region.span().address, count: 64, ..Launch::default() };
    let write = Launch { kernel: KernelKind::Write as u32, first, count, ..Launch::default() };
    let watch = compute.device().watch();
    for wrong in [
        Launch { kernel: 99, ..write },
        Launch { flags: 1, ..write },
        Launch { reserved: 1, ..write },
        Launch { first: first + 4, ..write },
        Launch { count: 0, ..write },
        Launch { count: 12, ..write },
        Launch { count: 1 << 41, ..write },
        Launch { first: u64::MAX - 7, ..write },
        Launch { result: first, ..write },
        Launch { second: 1, ..write },
        // The operands of a copy overlap, or the second one is not aligned.
        Launch { kernel: KernelKind::Copy as u32, second: first + 56, ..write },
        Launch { kernel: KernelKind::Copy as u32, second: first + 68, ..write },
    ] {
        assert_eq!(compute.try_launch(wrong), Err(LaunchError::Other(Errno::EINVAL)), "{wrong:x?}");
    }
    assert_eq!(watch.count(Counter::Commands) + watch.count(Counter::ChannelErrors), 0);
    compute.try_launch(write).expect("operands that are valid");
}

fn what_is_not_bound_is_refused() {
    let (compute, region) = (Compute::unbound(), Region::new(2));
    assert_eq!(compute.try_read(region.span()), Err(LaunchError::Other(Errno::EINVAL)));
    assert!(compute.try_bind().expect("ERSATZ_IOC_BIND") > 0, "address space 0 is nobody's");
    assert_eq!(compute.try_bind(), Err(Errno::EBUSY));
    compute.write(region.span(), 1);
    check_counting(&region, 1);
}

fn a_bound_file_serves_its_process_alone() {
    let (compute, region) = (Compute::bind(), Region::filled(4, Pattern::new(1)));
    Child::spawn(|| {
        assert_eq!(compute.try_read(region.span()), Err(LaunchError::Other(Errno::EPERM)));
        let own = Compute::bind();
        own.write(region.span(), 3);
        check_counting(&region, 3);
    })
    .succeed();
    region.check(Pattern::new(1));
    compute.write(region.span(), 4);
    check_counting(&region, 4);
}
