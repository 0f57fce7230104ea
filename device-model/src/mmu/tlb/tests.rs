// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! TLBs: what they hold, what they drop, and that they are never wrong about either.

use ersatz_abi::list::Location;
use ersatz_abi::mmu::Page;
use proptest::prelude::*;

use super::*;

fn walked(size: PageSize, address: u64) -> Walked {
    let page = Page { location: Location::system(address), size, write: true, atomic: false };
    Walked { page, clean: false }
}

#[test]
fn every_byte_of_a_page_is_found() {
    for &size in PageSize::ALL {
        let mut tlb = Tlb::new();
        let (start, bytes) = (6 << 21, size.bytes());
        tlb.insert(3, start + 0x678, walked(size, 0x4000_0000));
        for address in [start, start + 1, start + 0x678, start + bytes - 1] {
            assert_eq!(tlb.find(3, address), Some(walked(size, 0x4000_0000)), "{size:?} {address:#x}");
            assert_eq!(tlb.find(2, address), None, "another address space");
        }
        assert_eq!((tlb.find(3, start - 1), tlb.find(3, start + bytes)), (None, None), "{size:?}");
        tlb.remove(3, start + bytes - 1);
        assert_eq!(tlb.find(3, start), None);
    }
}

#[test]
fn a_set_holds_as_many_as_it_has_ways_and_drops_the_oldest() {
    for &size in PageSize::ALL {
        let mut tlb = Tlb::new();
        let page = |number: u64| number * sets(size) as u64 * size.bytes();
        for number in 0..WAYS as u64 + 2 {
            tlb.insert(0, page(number), walked(size, number << 21));
        }
        for number in 0..2 {
            assert_eq!(tlb.find(0, page(number)), None, "{size:?} {number}");
        }
        for number in 2..WAYS as u64 + 2 {
            assert_eq!(tlb.find(0, page(number)), Some(walked(size, number << 21)), "{size:?} {number}");
        }
    }
}

/// As many neighbouring pages as there are places are all held, for one address space as for four.
#[test]
fn neighbours_fill_all_sets() {
    for &size in PageSize::ALL {
        let mut tlb = Tlb::new();
        let count = sets(size) as u64;
        for asid in 0..WAYS as u8 {
            (0..count).for_each(|number| tlb.insert(asid, number * size.bytes(), walked(size, 0)));
        }
        for asid in 0..WAYS as u8 {
            assert!((0..count).all(|number| tlb.find(asid, number * size.bytes()).is_some()), "{size:?} {asid}");
        }
    }
}

#[test]
fn a_range_means_every_page_with_a_byte_in_it() {
    for &size in PageSize::ALL {
        let bytes = size.bytes();
        let held = |address, length| {
            let mut tlb = Tlb::new();
            (8..12).for_each(|number| tlb.insert(1, number * bytes, walked(size, 0)));
            tlb.insert(2, 9 * bytes, walked(size, 0));
            tlb.forget(&Invalidation::Range { asid: 1, address, length });
            assert!(tlb.find(2, 9 * bytes).is_some(), "of another address space");
            (8..12).filter(|number| tlb.find(1, number * bytes).is_some()).collect::<Vec<u64>>()
        };
        assert_eq!(held(9 * bytes, bytes), [8, 10, 11], "{size:?}");
        assert_eq!(held(9 * bytes - 1, 1), [9, 10, 11]);
        assert_eq!(held(9 * bytes - 1, 2), [10, 11]);
        assert_eq!(held(9 * bytes + 5, 1), [8, 10, 11]);
        assert_eq!(held(10 * bytes + 5, u64::MAX - 11 * bytes), [8, 9]);
        assert_eq!(held(0, 8 * bytes), [8, 9, 10, 11]);
        assert!(held(0, u64::MAX).is_empty());
        assert_eq!(held(u64::MAX, 1), [8, 9, 10, 11]);
    }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Insert(u8, u64, PageSize),
    Remove(u8, u64),
    Forget(Invalidation),
}

/// Pages that share sets, and neighbours.
fn address(far: u64, near: u64) -> u64 {
    (far * sets(PageSize::Small) as u64 + near) * PageSize::Small.bytes()
}

fn any_act() -> impl Strategy<Value = Act> {
    let asid = || 0_u8..3;
    let address = || (0_u64..6, 0_u64..3).prop_map(|(far, near)| address(far, near));
    let range = (asid(), address(), 1_u64..1 << 23);
    prop_oneof![
        8 => (asid(), address(), prop::sample::select(PageSize::ALL)).prop_map(|(a, at, size)| Act::Insert(a, at, size)),
        2 => (asid(), address()).prop_map(|(asid, address)| Act::Remove(asid, address)),
        1 => Just(Act::Forget(Invalidation::All)),
        1 => asid().prop_map(|asid| Act::Forget(Invalidation::AddressSpace(asid))),
        4 => range.prop_map(|(asid, address, length)| Act::Forget(Invalidation::Range { asid, address, length })),
    ]
}

type Model = Vec<(u8, u64, Walked)>;

fn remove(model: &mut Model, asid: u8, address: u64) {
    model.retain(|(held, start, walked)| {
        let start_of_page = address - address % walked.page.size.bytes();
        (*held, *start) != (asid, start_of_page)
    });
}

proptest! {
    /// Against a list without an end: what is found was put there for that page and not dropped since; what was put there last
    /// is found.
    #[test]
    fn holds_only_what_it_was_given(acts in prop::collection::vec(any_act(), 1..200)) {
        let mut tlb = Tlb::new();
        let mut model = Model::new();
        for (number, act) in (0..).zip(acts) {
            match act {
                Act::Insert(asid, address, size) => {
                    let walked = walked(size, number << 21);
                    tlb.remove(asid, address);
                    remove(&mut model, asid, address);
                    tlb.insert(asid, address, walked);
                    model.push((asid, address - address % size.bytes(), walked));
                    prop_assert_eq!(tlb.find(asid, address), Some(walked));
                }
                Act::Remove(asid, address) => {
                    tlb.remove(asid, address);
                    remove(&mut model, asid, address);
                }
                Act::Forget(invalidation) => {
                    tlb.forget(&invalidation);
                    model.retain(|(held, start, page)| match invalidation {
                        Invalidation::All => false,
                        Invalidation::AddressSpace(asid) => *held != asid,
                        Invalidation::Range { asid, address, length } => {
                            *held != asid || *start >= address + length || start + page.page.size.bytes() <= address
                        }
                    });
                }
            }
            for (asid, page) in (0..3).flat_map(|asid| (0..18).map(move |page| (asid, page))) {
                let address = address(page / 3, page % 3) + 8;
                if let Some(found) = tlb.find(asid, address) {
                    let start = address - address % found.page.size.bytes();
                    prop_assert!(model.contains(&(asid, start, found)), "{} {:#x} {:?}", asid, address, found);
                }
            }
        }
    }
}
