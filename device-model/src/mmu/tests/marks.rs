// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Accessed and dirty bits against a model of who accessed what.

use ersatz_abi::mmu::PageTableEntry;

use super::*;

const PAGES: u64 = 6;

#[derive(Clone, Copy, Debug)]
enum Act {
    Access {
        engine: u8,
        page: u64,
        access: AccessKind,
    },
    /// The driver takes the marks of a page back, and invalidates it.
    Clear {
        page: u64,
    },
    /// What an engine has cached gives way to something else.
    Evict {
        engine: u8,
    },
}

fn any_act() -> impl Strategy<Value = Act> {
    let access = prop::sample::select(AccessKind::ALL);
    prop_oneof![
        6 => (0..ENGINES, 0..PAGES, access).prop_map(|(engine, page, access)| Act::Access { engine, page, access }),
        2 => (0..PAGES).prop_map(|page| Act::Clear { page }),
        1 => (0..ENGINES).prop_map(|engine| Act::Evict { engine }),
    ]
}

/// Pages 0 and 1 are of 4 KiB, 2 and 3 of 64 KiB, 4 and 5 of 2 MiB; the odd ones cannot be written.
fn page(number: u64) -> (u64, Page) {
    let size = PageSize::ALL[number as usize / 2];
    let write = number % 2 == 0;
    ((number + 1) << 21, Page { location: Location::vram(number << 21), size, write, atomic: write })
}

proptest! {
    /// An entry is accessed if it was since it was cleared, and dirty if it was written through, never otherwise.
    #[test]
    fn marks_say_what_happened(acts in prop::collection::vec(any_act(), 1..100)) {
        let mut bench = Bench::new(AddressSpaceControl(0).with_track(true));
        let mut marks = [(false, false); PAGES as usize];
        for number in 0..PAGES {
            let (address, page) = page(number);
            bench.map(1, address, page);
        }
        for act in acts {
            match act {
                Act::Access { engine, page: number, access } => {
                    let (address, page) = page(number);
                    // All through the first entry, if there are sixteen.
                    let result = bench.translate(engine, 1, address + 0x10, access);
                    let writes = matches!(access, AccessKind::Write | AccessKind::Atomic);
                    prop_assert_eq!(result.is_ok(), page.write || !writes);
                    if result.is_ok() {
                        marks[number as usize] = (true, marks[number as usize].1 || writes);
                    }
                }
                Act::Clear { page: number } => {
                    let (address, page) = page(number);
                    bench.map(1, address, page);
                    bench.mmu.request(Invalidation::Range { asid: 1, address, length: 1 }, None);
                    bench.serve();
                    marks[number as usize] = (false, false);
                }
                Act::Evict { engine } => {
                    bench.mmu.tlbs[usize::from(engine)].with(|tlb| tlb.forget(&Invalidation::All));
                }
            }
            for number in 0..PAGES {
                let (address, page) = page(number);
                let entries = bench.tables[1].entries(address, page.size);
                let mut entries = entries.into_iter().map(|at| PageTableEntry(bench.memory.load_u64(at).unwrap()));
                let first = entries.next().unwrap();
                prop_assert_eq!((first.accessed(), first.dirty()), marks[number as usize], "page {}", number);
                prop_assert!(entries.all(|entry| entry == PageTableEntry::page(page)), "marks where nobody was");
            }
        }
    }
}

/// The first write through what was cached for reading looks at the entry again.
#[test]
fn a_dirty_bit_is_set_in_the_entry_that_is_there() {
    let mut bench = Bench::new(AddressSpaceControl(0).with_track(true));
    let write = |bench: &Bench| bench.translate(0, 1, 0x5000, AccessKind::Write).map(|found| found.location.address);
    let read = |bench: &Bench| bench.translate(0, 1, 0x5000, AccessKind::Read).map(|found| found.location.address);
    bench.map(1, 0x5000, system_page(0x9000, true));
    assert_eq!(read(&bench), Ok(0x9000));
    bench.map(1, 0x5000, system_page(0xa000, true));
    assert_eq!((read(&bench), write(&bench), read(&bench)), (Ok(0x9000), Ok(0xa000), Ok(0xa000)));
    bench.map(1, 0x5000, system_page(0xb000, true));
    assert_eq!(write(&bench), Ok(0xa000), "dirty already");
    bench.mmu.request(Invalidation::All, None);
    bench.serve();
    assert_eq!(read(&bench), Ok(0xb000));
    bench.unmap(1, 0x5000, PageSize::Small);
    assert_eq!(write(&bench), Err(fault(AccessKind::Write, FaultKind::NotPresent)));
    assert_eq!(read(&bench), Err(fault(AccessKind::Read, FaultKind::NotPresent)), "the walk found out that it is gone");
}
