// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Maps that come and go, against a flat model of memory; and what hostile clients request.

use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, VolatileMemory, VolatileSlice};

use super::*;
use crate::dma::DmaError;
use crate::sync::Mutex;

const PAGE: u64 = MAP_ALIGNMENT;

fn file(length: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(length).unwrap();
    file
}

fn map(space: &MappedSpace, address: u64, length: u64, access: MapAccess) -> Result<(), MapError> {
    space.map_file(address, length, file(length), 0, access)
}

fn read(space: &MappedSpace, address: u64, length: usize) -> Result<Vec<u8>, DmaError> {
    let mut data = vec![0; length];
    space.open().read(address, &VolatileSlice::from(&mut data[..])).map(|()| data)
}

fn write(space: &MappedSpace, address: u64, data: &[u8]) -> Result<(), DmaError> {
    space.open().write(address, &VolatileSlice::from(&mut data.to_vec()[..]))
}

#[test]
fn a_transfer_crosses_maps_that_touch() {
    let space = MappedSpace::new();
    map(&space, PAGE, PAGE, MapAccess::ReadWrite).unwrap();
    map(&space, 2 * PAGE, PAGE, MapAccess::ReadWrite).unwrap();
    let data: Vec<u8> = (0..=255).cycle().take(PAGE as usize).collect();
    write(&space, PAGE + 100, &data).unwrap();
    assert_eq!(read(&space, PAGE + 100, data.len()).unwrap(), data);
    assert_eq!(read(&space, 2 * PAGE, 4).unwrap(), data[PAGE as usize - 100..][..4]);
}

#[test]
fn an_error_names_the_first_address_that_was_refused() {
    let space = MappedSpace::new();
    map(&space, PAGE, PAGE, MapAccess::ReadWrite).unwrap();
    map(&space, 2 * PAGE, PAGE, MapAccess::ReadOnly).unwrap();
    assert_eq!(read(&space, PAGE - 8, 16), Err(DmaError::Unmapped(PAGE - 8)));
    assert_eq!(read(&space, 3 * PAGE - 8, 16), Err(DmaError::Unmapped(3 * PAGE)));
    assert_eq!(write(&space, 2 * PAGE - 8, &[1; 16]), Err(DmaError::ReadOnly(2 * PAGE)));
    assert_eq!(read(&space, 2 * PAGE - 8, 16).unwrap(), [[1; 8], [0; 8]].concat(), "up to there it was done");
}

#[test]
fn words_are_atomic_and_aligned() {
    let space = MappedSpace::new();
    map(&space, PAGE, PAGE, MapAccess::ReadWrite).unwrap();
    map(&space, 2 * PAGE, PAGE, MapAccess::ReadOnly).unwrap();
    space.open().store_u64(PAGE + 8, 0x1122_3344_5566_7788).unwrap();
    assert_eq!(space.open().load_u64(PAGE + 8), Ok(0x1122_3344_5566_7788));
    assert_eq!(
        space.open().compare_exchange_u64(PAGE + 8, 1, 2),
        Ok(Err(0x1122_3344_5566_7788)),
        "not what was expected"
    );
    assert_eq!(space.open().compare_exchange_u64(PAGE + 8, 0x1122_3344_5566_7788, 2), Ok(Ok(0x1122_3344_5566_7788)));
    assert_eq!(space.open().compare_exchange_u64(PAGE + 8, 2, 0x1122_3344_5566_7788), Ok(Ok(2)));
    assert_eq!(space.open().compare_exchange_u64(PAGE + 4, 0, 0), Err(DmaError::Unaligned(PAGE + 4)));
    assert_eq!(space.open().load_u64(PAGE + 1), Err(DmaError::Unaligned(PAGE + 1)));
    assert_eq!(space.open().load_u32(PAGE + 12), Ok(0x1122_3344));
    space.open().store_u32(PAGE + 12, 7).unwrap();
    assert_eq!(read(&space, PAGE + 8, 8).unwrap(), 0x7_5566_7788_u64.to_le_bytes());
    assert_eq!(space.open().load_u32(PAGE + 2), Err(DmaError::Unaligned(PAGE + 2)));
    assert_eq!(space.open().store_u64(PAGE + 4, 0), Err(DmaError::Unaligned(PAGE + 4)));
    assert_eq!(space.open().store_u32(2 * PAGE, 0), Err(DmaError::ReadOnly(2 * PAGE)));
    assert_eq!(space.open().load_u32(0), Err(DmaError::Unmapped(0)));
}

#[test]
fn the_last_page_of_the_address_space_can_be_mapped() {
    let space = MappedSpace::new();
    let last = PAGE.wrapping_neg();
    map(&space, last, PAGE, MapAccess::ReadWrite).unwrap();
    assert_eq!(space.open().store_u64(u64::MAX - 7, 5), Ok(()));
    assert_eq!(read(&space, u64::MAX - 7, 8).unwrap(), 5_u64.to_le_bytes());
    assert_eq!(read(&space, u64::MAX - 7, 9), Err(DmaError::Unmapped(u64::MAX)));
    assert_eq!(space.unmap(last, PAGE).unwrap(), 1);
}

#[test]
fn maps_that_make_no_sense_are_refused() {
    let space = MappedSpace::new();
    let refused = |address, length, offset| {
        space.map_file(address, length, file(16 * PAGE), offset, MapAccess::ReadWrite).unwrap_err()
    };
    assert!(matches!(refused(PAGE, 0, 0), MapError::Empty(_)));
    assert!(matches!(refused(PAGE + 1, PAGE, 0), MapError::Unaligned { .. }));
    assert!(matches!(refused(PAGE, PAGE + 1, 0), MapError::Unaligned { .. }));
    assert!(matches!(refused(PAGE, PAGE, 1), MapError::Unaligned { .. }));
    assert!(matches!(refused(2 * PAGE, PAGE.wrapping_neg(), 0), MapError::TooLarge { .. }));
    assert!(matches!(refused(0, PAGE.wrapping_neg(), 0), MapError::TooLarge { .. }));
    assert!(matches!(refused(0, PAGE, PAGE.wrapping_neg()), MapError::TooLarge { .. }));
    assert!(matches!(refused(0, 17 * PAGE, 0), MapError::BeyondFile { needed, size } if needed > size));
    assert!(matches!(refused(0, PAGE, 16 * PAGE), MapError::BeyondFile { .. }));
    assert!(matches!(refused(0, 1 << 62, 0), MapError::BeyondFile { .. }));
    let folder = File::open("/").unwrap();
    assert!(matches!(space.map_file(0, PAGE, folder, 0, MapAccess::ReadOnly), Err(MapError::NotAFile(0))));
    assert!(space.is_empty());
}

#[test]
fn a_read_only_file_is_no_memory_to_write() {
    let path = tempfile::NamedTempFile::new().unwrap();
    path.as_file().set_len(PAGE).unwrap();
    let open = || File::open(path.path()).unwrap();
    let space = MappedSpace::new();
    assert!(matches!(space.map_file(0, PAGE, open(), 0, MapAccess::ReadWrite), Err(MapError::Mmap { .. })));
    space.map_file(0, PAGE, open(), 0, MapAccess::ReadOnly).unwrap();
}

#[test]
fn overlaps_are_refused() {
    let space = MappedSpace::new();
    map(&space, 4 * PAGE, 4 * PAGE, MapAccess::ReadWrite).unwrap();
    for (address, length) in [(4, 4), (4, 1), (7, 1), (3, 2), (7, 8), (2, 16), (5, 2)] {
        let result = map(&space, address * PAGE, length * PAGE, MapAccess::ReadWrite);
        assert!(matches!(result, Err(MapError::Overlap { other, .. }) if other == 4 * PAGE), "{address} {length}");
    }
    map(&space, 3 * PAGE, PAGE, MapAccess::ReadWrite).unwrap();
    map(&space, 8 * PAGE, PAGE, MapAccess::ReadWrite).unwrap();
    assert_eq!(space.len(), 3);
}

#[test]
fn unmapping_takes_whole_maps() {
    let space = MappedSpace::new();
    for page in [2, 4, 8] {
        map(&space, page * PAGE, 2 * PAGE, MapAccess::ReadWrite).unwrap();
    }
    for (address, length) in [(3, 1), (2, 1), (0, 3), (5, 10), (3, 100)] {
        let result = space.unmap(address * PAGE, length * PAGE);
        assert!(matches!(result, Err(MapError::Partial { .. })), "{address} {length}");
    }
    assert_eq!(space.len(), 3);
    assert_eq!(space.unmap(6 * PAGE, 2 * PAGE).unwrap(), 0);
    assert_eq!(space.unmap(0, 0).unwrap(), 0);
    assert!(matches!(space.unmap(PAGE, u64::MAX), Err(MapError::TooLarge { .. })));
    assert_eq!(space.unmap(PAGE, 5 * PAGE).unwrap(), 2);
    assert_eq!(space.unmap(0, u64::MAX).unwrap(), 1);
    assert!(space.is_empty());
}

#[test]
fn a_guests_memory_is_there_at_once() {
    let ranges = [(GuestAddress(0), 1 << 16), (GuestAddress(1 << 32), 1 << 16)];
    let memory = GuestMemoryMmap::from_ranges(&ranges).unwrap();
    let space = MappedSpace::from_memory(&memory).unwrap();
    space.open().store_u32((1 << 32) + 16, 42).unwrap();
    assert_eq!(memory.read_obj::<u32>(GuestAddress((1 << 32) + 16)).unwrap(), 42);
    space.clear();
    assert_eq!(space.open().load_u32(16), Err(DmaError::Unmapped(16)));
}

/// Readers hammer a map that another thread takes away again and again: each access either succeeds as a whole or is
/// refused, and none touches memory that is gone (which would end the test with SIGSEGV).
#[test]
fn unmapping_waits_for_accesses_under_way() {
    let space = MappedSpace::new();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    match read(&space, PAGE, 16 * PAGE as usize) {
                        Ok(data) => assert!(data.iter().all(|byte| *byte == 0)),
                        Err(error) => assert_eq!(error, DmaError::Unmapped(PAGE)),
                    }
                }
            });
        }
        for _ in 0..200 {
            map(&space, PAGE, 16 * PAGE, MapAccess::ReadWrite).unwrap();
            std::thread::yield_now();
            assert_eq!(space.unmap(PAGE, 16 * PAGE).unwrap(), 1);
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// What the model knows of one page: nothing mapped, or its content and whether it may be written.
type ModelPage = Option<(Vec<u8>, MapAccess)>;

#[derive(Clone, Debug)]
enum Step {
    Map { page: u64, pages: u64, access: MapAccess },
    Unmap { page: u64, pages: u64 },
    Write { address: u64, length: usize, value: u8 },
    Read { address: u64, length: usize },
}

const MODEL_PAGES: u64 = 8;

fn step() -> impl Strategy<Value = Step> {
    let access = prop_oneof![Just(MapAccess::ReadOnly), Just(MapAccess::ReadWrite), Just(MapAccess::ReadWrite)];
    let address = 0..MODEL_PAGES * PAGE;
    prop_oneof![
        (0..MODEL_PAGES, 1..4_u64, access).prop_map(|(page, pages, access)| Step::Map { page, pages, access }),
        (0..MODEL_PAGES, 1..5_u64).prop_map(|(page, pages)| Step::Unmap { page, pages }),
        (address.clone(), 1..9000_usize, 1..=u8::MAX).prop_map(|(address, length, value)| Step::Write {
            address,
            length,
            value
        }),
        (address, 1..9000_usize).prop_map(|(address, length)| Step::Read { address, length }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn it_behaves_like_flat_memory_with_holes(steps in proptest::collection::vec(step(), 1..40)) {
        let space = MappedSpace::new();
        let mut pages: Vec<ModelPage> = vec![None; 2 * MODEL_PAGES as usize];
        let mut maps: BTreeMap<u64, u64> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Map { page, pages: count, access } => {
                    let range = page as usize..(page + count) as usize;
                    let free = pages[range.clone()].iter().all(Option::is_none);
                    prop_assert_eq!(map(&space, page * PAGE, count * PAGE, access).is_ok(), free);
                    if free {
                        pages[range].fill(Some((vec![0; PAGE as usize], access)));
                        maps.insert(page, count);
                    }
                }
                Step::Unmap { page, pages: count } => {
                    let end = page + count;
                    let touched = |&(&start, &size): &(&u64, &u64)| start < end && start + size > page;
                    let whole = |(&start, &size): (&u64, &u64)| start >= page && start + size <= end;
                    let result = space.unmap(page * PAGE, count * PAGE).ok();
                    if maps.iter().filter(touched).all(whole) {
                        let gone: Vec<u64> = maps.iter().filter(touched).map(|(start, _)| *start).collect();
                        prop_assert_eq!(result, Some(gone.len()));
                        for start in gone {
                            let size = maps.remove(&start).unwrap_or(0);
                            pages[start as usize..(start + size) as usize].fill(None);
                        }
                    } else {
                        prop_assert_eq!(result, None);
                    }
                }
                Step::Write { address, length, value } => {
                    let mut expected = Ok(());
                    for at in address..address + length as u64 {
                        match &mut pages[(at / PAGE) as usize] {
                            Some((bytes, MapAccess::ReadWrite)) => bytes[(at % PAGE) as usize] = value,
                            Some(_) => expected = Err(DmaError::ReadOnly(at)),
                            None => expected = Err(DmaError::Unmapped(at)),
                        }
                        if expected.is_err() {
                            break;
                        }
                    }
                    prop_assert_eq!(write(&space, address, &vec![value; length]), expected);
                }
                Step::Read { address, length } => {
                    let byte = |at: u64| match &pages[(at / PAGE) as usize] {
                        Some((bytes, _)) => Ok(bytes[(at % PAGE) as usize]),
                        None => Err(DmaError::Unmapped(at)),
                    };
                    let expected: Result<Vec<u8>, _> = (address..address + length as u64).map(byte).collect();
                    prop_assert_eq!(read(&space, address, length), expected);
                }
            }
            prop_assert_eq!(space.len(), maps.len());
        }
    }
}

/// A file that any process can truncate, mapped at `PAGE`.
fn truncatable(space: &MappedSpace, pages: u64) -> File {
    let file = file(pages * PAGE);
    space.map_file(PAGE, pages * PAGE, file.try_clone().unwrap(), 0, MapAccess::ReadWrite).unwrap();
    file
}

#[test]
fn a_file_that_shrinks_is_like_no_map_and_ends_nobody() {
    let space = MappedSpace::new();
    let file = truncatable(&space, 4);
    map(&space, 5 * PAGE, PAGE, MapAccess::ReadWrite).unwrap();
    write(&space, PAGE, &[1; 64]).unwrap();
    file.set_len(PAGE).unwrap();
    assert_eq!(read(&space, PAGE, 4), Ok(vec![1; 4]), "what is left can be used until the rest is touched");
    assert_eq!(write(&space, 2 * PAGE, &[2; 8]), Err(DmaError::Unmapped(2 * PAGE)));
    assert_eq!(read(&space, PAGE, 4), Err(DmaError::Unmapped(PAGE)), "all of the map is lost");
    file.set_len(4 * PAGE).unwrap();
    assert_eq!(read(&space, 2 * PAGE, 4), Err(DmaError::Unmapped(2 * PAGE)), "for good");
    assert_eq!(write(&space, 5 * PAGE, &[3; 8]), Ok(()), "and of no other");
    assert_eq!(space.unmap(PAGE, 4 * PAGE).unwrap(), 1);
    map(&space, PAGE, PAGE, MapAccess::ReadWrite).unwrap();
    assert_eq!(read(&space, PAGE, 4), Ok(vec![0; 4]), "until there is another one");
}

#[test]
fn words_of_a_file_that_shrank_are_not_there() {
    let space = MappedSpace::new();
    truncatable(&space, 1).set_len(0).unwrap();
    assert_eq!(space.open().load_u32(PAGE), Err(DmaError::Unmapped(PAGE)));
    assert_eq!(space.open().store_u64(PAGE, 1), Err(DmaError::Unmapped(PAGE)));
}

#[test]
fn a_file_may_shrink_while_several_threads_use_it() {
    for _ in 0..20 {
        let space = MappedSpace::new();
        let file = truncatable(&space, 64);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| while write(&space, PAGE, &[7; 64 * PAGE as usize]).is_ok() {});
            }
            file.set_len(0).unwrap();
        });
        assert_eq!(read(&space, PAGE, 1), Err(DmaError::Unmapped(PAGE)));
    }
}

#[test]
fn any_other_bus_error_still_ends_the_process() {
    let space = MappedSpace::new();
    map(&space, PAGE, PAGE, MapAccess::ReadWrite).unwrap();
    let other = file(PAGE);
    let region = MmapRegion::<()>::from_file(FileOffset::new(other.try_clone().unwrap(), 0), PAGE as usize).unwrap();
    other.set_len(0).unwrap();
    // SAFETY: the child reads one byte and ends; it takes no lock and allocates nothing.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: the address is mapped, though there is nothing behind it, which is the point.
        unsafe { region.as_ptr().read_volatile() };
        // SAFETY: ends the process without running anything that belongs to the parent.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: the system writes one integer, to where there is one.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFSIGNALED(status), "{status:#x}");
    assert_eq!(libc::WTERMSIG(status), libc::SIGBUS);
}

/// What an observer was told.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    /// Address, length, access, and offset in a file.
    Mapped(u64, u64, MapAccess, Option<u64>),
    /// Address, length, and the addresses of the regions there.
    Unmapped(u64, u64, Vec<u64>),
}

#[derive(Default)]
struct Listener(Mutex<Vec<Told>>);

impl MapObserver for Listener {
    fn mapped(&self, region: &MappedRegion<'_>) {
        let offset = region.file().map(|file| file.start());
        self.0.lock().push(Told::Mapped(region.address, region.length(), region.access, offset));
    }

    fn unmapped(&self, address: u64, length: u64, regions: &[MappedRegion<'_>]) {
        // The memory is still there: another IOMMU may have it pinned until now.
        regions.iter().for_each(|region| assert!(region.memory.get_slice(0, 8).is_ok()));
        self.0.lock().push(Told::Unmapped(address, length, regions.iter().map(|region| region.address).collect()));
    }
}

#[test]
fn observers_see_every_region_come_and_go() {
    let space = MappedSpace::new();
    map(&space, PAGE, PAGE, MapAccess::ReadOnly).unwrap();
    let [early, late] = [(); 2].map(|()| Arc::new(Listener::default()));
    let observe = |listener: &Arc<Listener>| {
        let observer: Arc<dyn MapObserver> = listener.clone();
        space.observe_maps(Arc::downgrade(&observer));
    };
    observe(&early);
    space.map_file(4 * PAGE, 2 * PAGE, file(8 * PAGE), 3 * PAGE, MapAccess::ReadWrite).unwrap();
    assert!(map(&space, 5 * PAGE, PAGE, MapAccess::ReadWrite).is_err(), "a refused map is not reported");
    observe(&late);
    let memory = Arc::new(MmapRegion::new(PAGE as usize).unwrap());
    space.map_region(8 * PAGE, memory, MapAccess::ReadWrite).unwrap();
    assert_eq!(space.unmap(0, PAGE).unwrap(), 0, "nothing was there, and nothing is reported");
    assert_eq!(space.unmap(0, 7 * PAGE).unwrap(), 2);
    let first = Told::Mapped(PAGE, PAGE, MapAccess::ReadOnly, Some(0));
    let second = Told::Mapped(4 * PAGE, 2 * PAGE, MapAccess::ReadWrite, Some(3 * PAGE));
    let third = Told::Mapped(8 * PAGE, PAGE, MapAccess::ReadWrite, None);
    let expected = [first, second, third, Told::Unmapped(0, 7 * PAGE, vec![PAGE, 4 * PAGE])];
    assert_eq!(*early.0.lock(), expected);
    assert_eq!(*late.0.lock(), expected, "the one that was added later was told of what was there");
    drop(late);
    space.clear();
    space.clear();
    assert_eq!(early.0.lock()[4..], [Told::Unmapped(0, u64::MAX, vec![8 * PAGE])]);
    assert_eq!(space.observers.read().len(), 1, "one that is gone is forgotten");
}
