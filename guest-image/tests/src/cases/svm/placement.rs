// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory moves to where the process wants it, when the device faults at it or has accessed it often.

use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ersatz_abi::access_counter::REGION_ORDER_MIN;
use ersatz_abi::counter::Counter;
use ersatz_uapi::{Advice, Advise, Direction, PageState};
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise};
use nix::unistd::{Whence, lseek};
use serde_json::json;

use super::super::fixture::send;
use super::{WORDS, check_counting, sum_by_cpu, sum_by_device};
use crate::compute::Compute;
use crate::device::Device;
use crate::device_rules::DeviceRules;
use crate::direct::patience::wait_until;
use crate::pattern::{PAGE, Pattern};
use crate::process::Child;
use crate::region::{Region, Span};
use crate::suite::{Need, test_list};

test_list! { "placement":
    without_advice_memory_stays;
    preferred_memory_moves_at_a_fault;
    holes_that_are_preferred_are_filled_there;
    only_the_range_moves;
    huge_pages_move_whole.needs(&[Need::HugePages, Need::VramPages(2048)]);
    memory_preferred_in_the_system_comes_back;
    advice_can_be_taken_back;
    the_middle_of_a_range_has_other_advice;
    advice_is_for_addresses;
    a_shared_mapping_is_used_where_it_is;
    memory_accessed_once_stays;
    memory_accessed_often_moves;
    only_what_is_accessed_often_moves;
    random_accesses_count;
    what_cannot_move_is_used_where_it_is;
    a_page_taken_back_each_time_is_left_to_the_cpu.needs(&[Need::Private]).patience(2);
    reports_of_hot_memory_get_lost.needs(&[Need::ControlWindow]);
    what_others_access_often_is_not_in_the_way;
    more_than_all_vram.needs(&[Need::FillableVram(65_536)]).patience(4);
    a_child_has_no_advice;
    senseless_advice_is_refused;
    too_many_ranges_are_refused;
}

/// Pages whose accesses are counted as one.
const COUNTED: usize = 1 << REGION_ORDER_MIN >> 12;

/// A filled region whose first page is the first that is counted as one with those behind it.
fn aligned(pieces: usize) -> (Region, usize) {
    let region = Region::filled((pieces + 1) * COUNTED, Pattern::new(1));
    let first = (region.span().address as usize).next_multiple_of(COUNTED * PAGE);
    let offset = (first - region.span().address as usize) / PAGE;
    (region, offset)
}

fn read(compute: &Compute, span: Span) {
    assert_eq!(compute.try_read(span), Ok(()));
}

fn without_advice_memory_stays() {
    let (compute, region) = (Compute::bind(), Region::filled(COUNTED * 2, Pattern::new(1)));
    for _ in 0..6 {
        read(&compute, region.span());
    }
    compute.device().assert_all(region.span(), PageState::System);
    send(compute.device(), &region);
    read(&compute, region.span());
    compute.device().assert_all(region.span(), PageState::Device);
}

fn preferred_memory_moves_at_a_fault() {
    let (compute, region) = (Compute::bind(), Region::filled(40, Pattern::new(1)));
    let expected = sum_by_cpu(&region);
    let watch = compute.device().watch();
    compute.advise(region.span(), Advice::PreferDevice);
    compute.device().assert_all(region.span(), PageState::System);
    assert_eq!(sum_by_device(&compute, &region), expected);
    compute.device().assert_all(region.span(), PageState::Device);
    watch.assert_pages(Counter::BytesDeviceFault, 40);
    // All of it is mapped at its first fault, and if it lies in two blocks of 2 MiB, at its second one; the result's page has one, too. Each may
    // be reported for several accesses that are under way.
    assert!(watch.count(Counter::Faults) < 12, "{} faults", watch.count(Counter::Faults));
    region.check(Pattern::new(1));
}

fn holes_that_are_preferred_are_filled_there() {
    let (compute, region) = (Compute::bind(), Region::new(24));
    compute.advise(region.span(), Advice::PreferDevice);
    compute.write(region.span(), 5);
    compute.device().assert_all(region.span(), PageState::Device);
    check_counting(&region, 5);
}

fn only_the_range_moves() {
    let (compute, region) = (Compute::bind(), Region::filled(30, Pattern::new(1)));
    compute.advise(region.part(10..20), Advice::PreferDevice);
    read(&compute, region.span());
    let states = compute.device().residency(region.span());
    let expected = |page| if (10..20).contains(&page) { PageState::Device } else { PageState::System };
    assert!((0..30).all(|page| states[page] == expected(page)), "{states:?}");
}

fn huge_pages_move_whole() {
    let (compute, region) = (Compute::bind(), Region::huge(2));
    region.fill(Pattern::new(1));
    compute.advise(region.span(), Advice::PreferDevice);
    let (watch, expected) = (compute.device().watch(), sum_by_cpu(&region));
    assert_eq!(sum_by_device(&compute, &region), expected);
    read(&compute, region.span());
    compute.device().assert_all(region.span(), PageState::Device);
    watch.assert_pages(Counter::BytesDeviceFault, region.pages());
}

fn memory_preferred_in_the_system_comes_back() {
    let (compute, region) = (Compute::bind(), Region::filled(20, Pattern::new(1)));
    send(compute.device(), &region);
    compute.advise(region.span(), Advice::PreferSystem);
    compute.atomic_add(region.span(), 0);
    compute.device().assert_all(region.span(), PageState::System);
    region.check(Pattern::new(1));
}

fn advice_can_be_taken_back() {
    let (compute, region) = (Compute::bind(), Region::filled(20, Pattern::new(1)));
    compute.advise(region.span(), Advice::PreferDevice);
    compute.advise(region.span(), Advice::None);
    read(&compute, region.span());
    compute.device().assert_all(region.span(), PageState::System);
}

fn the_middle_of_a_range_has_other_advice() {
    let (compute, region) = (Compute::bind(), Region::filled(30, Pattern::new(1)));
    compute.advise(region.span(), Advice::PreferDevice);
    compute.advise(region.part(12..18), Advice::PreferSystem);
    // As one again, and around what is there.
    compute.advise(region.part(0..12), Advice::PreferDevice);
    read(&compute, region.span());
    let states = compute.device().residency(region.span());
    let expected = |page| if (12..18).contains(&page) { PageState::System } else { PageState::Device };
    assert!((0..30).all(|page| states[page] == expected(page)), "{states:?}");
}

fn advice_is_for_addresses() {
    let (compute, region) = (Compute::bind(), Region::new(16));
    compute.advise(region.span(), Advice::PreferDevice);
    compute.write(region.span(), 1);
    region.advise(0..16, MmapAdvise::MADV_DONTNEED).expect("MADV_DONTNEED");
    region.fill(Pattern::new(2));
    // Long enough that it does not count as taken back at once.
    sleep(Duration::from_millis(200));
    // The memory that was there did not come back.
    read(&compute, region.span());
    assert_eq!(compute.device().on_device(region.span()), 16);
    region.check(Pattern::new(2));
}

fn a_shared_mapping_is_used_where_it_is() {
    let (compute, region) = (Compute::bind(), Region::shared(COUNTED * 2));
    for advice in [Advice::PreferDevice, Advice::ByAccess] {
        compute.advise(region.span(), advice);
        for _ in 0..6 {
            compute.write(region.span(), 9);
            check_counting(&region, 9);
        }
        compute.device().assert_all(region.span(), PageState::System);
    }
}

fn memory_accessed_once_stays() {
    let (compute, (region, first)) = (Compute::bind(), aligned(3));
    let span = region.part(first..first + 3 * COUNTED);
    compute.advise(region.span(), Advice::ByAccess);
    read(&compute, span);
    compute.device().assert_all(region.span(), PageState::System);
}

fn memory_accessed_often_moves() {
    let (compute, (region, first)) = (Compute::bind(), aligned(3));
    let span = region.part(first..first + 3 * COUNTED);
    compute.advise(region.span(), Advice::ByAccess);
    let watch = compute.device().watch();
    for _ in 0..4 {
        read(&compute, span);
    }
    compute.device().assert_all(span, PageState::Device);
    watch.assert_pages(Counter::BytesHotMemory, 3 * COUNTED);
    watch.assert_pages(Counter::BytesDeviceFault, 0);
    region.check(Pattern::new(1));
    // The same again: what was reported once is reported again.
    compute.device().to_system(region.span());
    sleep(Duration::from_millis(200));
    for _ in 0..4 {
        read(&compute, span);
    }
    compute.device().assert_all(span, PageState::Device);
}

fn only_what_is_accessed_often_moves() {
    let (compute, (region, first)) = (Compute::bind(), aligned(4));
    let piece = |number: usize| region.part(first + number * COUNTED..first + (number + 1) * COUNTED);
    compute.advise(region.span(), Advice::ByAccess);
    for _ in 0..4 {
        read(&compute, piece(2));
    }
    read(&compute, region.span());
    for number in [0, 1, 3] {
        compute.device().assert_all(piece(number), PageState::System);
    }
    compute.device().assert_all(piece(2), PageState::Device);
    // Half of a piece has other advice.
    compute.advise(region.part(first..first + COUNTED / 2), Advice::None);
    for _ in 0..4 {
        read(&compute, piece(0));
    }
    assert_eq!(compute.device().on_device(piece(0)), COUNTED / 2);
    compute.device().assert_all(region.part(first..first + COUNTED / 2), PageState::System);
}

fn random_accesses_count() {
    let (compute, (region, first)) = (Compute::bind(), aligned(1));
    let table = region.part(first..first + COUNTED);
    compute.advise(table, Advice::ByAccess);
    let before = sum_by_cpu(&region);
    // Twice the same updates: by exclusive or, so all is as before.
    compute.random_update(table, 3, 3000);
    compute.random_update(table, 3, 3000);
    compute.device().assert_all(table, PageState::Device);
    assert_eq!(sum_by_cpu(&region), before);
}

fn what_cannot_move_is_used_where_it_is() {
    let file = tempfile();
    let region = Region::of_file(&file, COUNTED * 2, MapFlags::MAP_PRIVATE);
    let compute = Compute::bind();
    compute.advise(region.span(), Advice::ByAccess);
    let watch = compute.device().watch();
    for _ in 0..8 {
        read(&compute, region.span());
    }
    assert!(watch.count(Counter::AccessNotifications) > 0);
    watch.assert_pages(Counter::BytesHotMemory, 0);
    compute.device().assert_all(region.span(), PageState::System);
}

fn tempfile() -> std::fs::File {
    let name = c"ersatz";
    let descriptor = nix::sys::memfd::memfd_create(name, nix::sys::memfd::MFdFlags::empty()).expect("memfd_create");
    let file = std::fs::File::from(descriptor);
    file.set_len((COUNTED * 2 * PAGE) as u64).expect("ftruncate");
    lseek(&file, 0, Whence::SeekSet).expect("lseek");
    file
}

fn a_page_taken_back_each_time_is_left_to_the_cpu() {
    const ROUNDS: u64 = 60;
    let (compute, region) = (Compute::bind(), Region::new(4));
    compute.advise(region.span(), Advice::PreferDevice);
    compute.write(region.span(), 0);
    let (start, mut moves) = (Instant::now(), 0);
    for round in 1..=ROUNDS {
        check_counting(&region, 2 * (round - 1));
        for word in region.atomics(0, 4 * WORDS) {
            word.fetch_add(1, Ordering::Relaxed);
        }
        compute.atomic_add(region.span(), 1);
        moves += u64::from(compute.device().on_device(region.span()) > 0);
    }
    check_counting(&region, 2 * ROUNDS);
    // A move is followed by a while without one: 50 ms at least.
    let most = 2 + start.elapsed().as_millis() as u64 / 50;
    assert!(moves <= most, "{moves} of {ROUNDS} times, at most {most} were expected");
}

fn reports_of_hot_memory_get_lost() {
    let on = json!({ "event": { "kinds": ["access-notification"] }, "occurrence": { "nth": 1 } });
    for (action, moves) in [
        (json!({ "kind": "drop" }), false),
        (json!({ "kind": "overflow" }), true),
        (json!({ "kind": "double" }), true),
        (json!({ "kind": "delay", "ns": 500_000 }), true),
    ] {
        println!("{action}");
        let (compute, (region, first)) = (Compute::bind(), aligned(1));
        let span = region.part(first..first + COUNTED);
        compute.advise(span, Advice::ByAccess);
        let rules = DeviceRules::of(compute.device());
        rules.add("report", &on, &action);
        for _ in 0..4 {
            read(&compute, span);
        }
        assert_eq!(rules.fired("report"), 1);
        if moves {
            // A report that is late, or comes again, is taken by a later kernel.
            wait_until("move to the device", || {
                read(&compute, span);
                compute.device().on_device(span) == COUNTED
            });
        } else {
            compute.device().assert_all(span, PageState::System);
        }
        region.check(Pattern::new(1));
    }
}

fn what_others_access_often_is_not_in_the_way() {
    let (compute, (region, first)) = (Compute::bind(), aligned(1));
    let span = region.part(first..first + COUNTED);
    compute.advise(span, Advice::ByAccess);
    // Without advice, more pieces than reports are kept for.
    let (other, much) = (Compute::bind(), Region::filled(100 * COUNTED, Pattern::new(2)));
    for _ in 0..4 {
        read(&other, much.span());
    }
    for _ in 0..4 {
        read(&compute, span);
    }
    compute.device().assert_all(span, PageState::Device);
    compute.device().assert_all(much.span(), PageState::System);
}

fn more_than_all_vram() {
    const PAGES: usize = 3000;
    let compute = Compute::bind();
    let device = compute.device();
    // Others have all of it at first.
    let others = Region::filled(device.free_pages() as usize, Pattern::new(1));
    device.migrate(others.span(), Direction::ToDevice);
    let (region, watch) = (Region::new(PAGES), device.watch());
    compute.advise(region.span(), Advice::PreferDevice);
    compute.write(region.span(), 3);
    compute.atomic_add(region.span(), 1);
    assert!(watch.pages(Counter::BytesEvicted) as usize >= PAGES / 2);
    check_counting(&region, 4);
    others.check(Pattern::new(1));
}

fn a_child_has_no_advice() {
    let (compute, region) = (Compute::bind(), Region::filled(12, Pattern::new(1)));
    compute.advise(region.span(), Advice::PreferDevice);
    Child::spawn(|| {
        let compute = Compute::bind();
        read(&compute, region.span());
        compute.device().assert_all(region.span(), PageState::System);
    })
    .succeed();
}

fn senseless_advice_is_refused() {
    let (compute, region) = (Compute::bind(), Region::new(4));
    let Span { address, length } = region.span();
    let good = Advise { address, length, advice: Advice::PreferDevice as u32, flags: 0 };
    assert_eq!(compute.try_advise(good), Ok(()));
    assert_eq!(Compute::unbound().try_advise(good), Err(Errno::EINVAL));
    for (bad, error) in [
        (Advise { advice: 6, ..good }, Errno::EINVAL),
        (Advise { flags: 1, ..good }, Errno::EINVAL),
        (Advise { address: address + 8, ..good }, Errno::EINVAL),
        (Advise { length: 100, ..good }, Errno::EINVAL),
        (Advise { length: 0, ..good }, Errno::EINVAL),
        (Advise { address: 0u64.wrapping_sub(PAGE as u64), length: 2 * PAGE as u64, ..good }, Errno::EINVAL),
        (Advise { address: 1 << 47, ..good }, Errno::EFAULT),
    ] {
        assert_eq!(compute.try_advise(bad), Err(error), "{bad:?}");
    }
    let stranger = Child::spawn(|| assert_eq!(compute.try_advise(good), Err(Errno::EPERM)));
    stranger.succeed();
}

fn too_many_ranges_are_refused() {
    let (compute, region) = (Compute::bind(), Region::new(2100));
    let advise = |page: usize, advice| {
        let Span { address, length } = region.page(page);
        compute.try_advise(Advise { address, length, advice: advice as u32, flags: 0 })
    };
    for page in 0..1024 {
        assert_eq!(advise(2 * page, Advice::PreferDevice), Ok(()), "page {page}");
    }
    assert_eq!(advise(2050, Advice::PreferDevice), Err(Errno::ENOSPC));
    assert_eq!(advise(2 * 100, Advice::None), Ok(()));
    assert_eq!(advise(2050, Advice::PreferDevice), Ok(()));
    // What joins two takes none.
    assert_eq!(advise(1, Advice::PreferDevice), Ok(()));
    assert_eq!(Device::open().on_device(region.span()), 0);
}
