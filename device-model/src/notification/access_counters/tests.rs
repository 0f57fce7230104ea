// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is counted where, and who is told.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// 64 KiB, three sectors make a region hot.
const CONTROL: AccessCounterControl =
    AccessCounterControl(0).with_enable(true).with_region_order(REGION_ORDER_MIN).with_threshold(3);
const REGION: u64 = 1 << REGION_ORDER_MIN;

fn access(address: u64, length: u64) -> Access {
    Access { channel: 4, engine: 1, asid: 7, address, length, aperture: Aperture::System }
}

fn counting(control: AccessCounterControl) -> AccessCounters {
    let counters = AccessCounters::default();
    assert!(counters.set_control(control) && counters.is_enabled());
    counters
}

/// The regions that an access made hot, with their counts.
fn hot(counters: &AccessCounters, access: &Access) -> Vec<(u64, u64)> {
    counters.add(access).iter().map(|record| (record.region, record.count)).collect()
}

#[test]
fn nothing_is_counted_unless_asked_for() {
    let counters = AccessCounters::default();
    assert!(!counters.is_enabled());
    assert_eq!(hot(&counters, &access(0, 1 << 20)), []);
    let off = CONTROL.with_enable(false);
    assert!(counters.set_control(off));
    assert_eq!((counters.is_enabled(), counters.control()), (false, off));
    assert_eq!(hot(&counters, &access(0, 1 << 20)), []);
}

#[test]
fn a_control_that_cannot_work_is_refused() {
    let counters = counting(CONTROL);
    for control in [
        CONTROL.with_region_order(REGION_ORDER_MIN - 1),
        CONTROL.with_region_order(REGION_ORDER_MAX + 1),
        CONTROL.with_region_order(0),
        CONTROL.with_threshold(0),
        AccessCounterControl(CONTROL.0 | 4),
    ] {
        assert!(!counters.set_control(control), "{control:?}");
        assert_eq!(counters.control(), CONTROL, "refused writes change nothing");
    }
    for control in [AccessCounterControl(0), CONTROL.with_region_order(REGION_ORDER_MAX).with_local(true)] {
        assert!(counters.set_control(control), "{control:?}");
    }
}

#[test]
fn an_access_counts_by_begun_sectors_in_each_region() {
    let counters = counting(CONTROL);
    assert_eq!(hot(&counters, &access(REGION - 8, 8)), []);
    assert_eq!(hot(&counters, &access(REGION - 1, 130)), [], "one byte there, 129 in the next: two each now");
    assert_eq!(hot(&counters, &access(0, 0)), [], "nothing is nothing");
    assert_eq!(hot(&counters, &access(0, 1)), [(0, 3)]);
    assert_eq!(hot(&counters, &access(0, 8)), [], "once is enough");
    assert_eq!(hot(&counters, &access(REGION, 128 * 4)), [(REGION, 6)]);
    let large = hot(&counters, &access(8 * REGION, 2 * REGION));
    assert_eq!(large, [(8 * REGION, REGION / 128), (9 * REGION, REGION / 128)]);
    let last = u64::MAX - REGION + 1;
    assert_eq!(hot(&counters, &access(last, REGION - 1)), [(last, REGION / 128)], "at the end of all addresses");
    assert_eq!(hot(&counters, &access(u64::MAX - 7, 100)).len(), 0, "a length that wraps is survived");
}

#[test]
fn the_devices_own_memory_counts_if_asked_for() {
    let counters = counting(CONTROL);
    let own = Access { aperture: Aperture::Vram, ..access(0, 1000) };
    let peers = Access { aperture: Aperture::Peer, ..access(REGION, 1000) };
    assert_eq!((hot(&counters, &own), hot(&counters, &peers)), (vec![], vec![(REGION, 8)]));
    assert!(counters.set_control(CONTROL.with_local(true)));
    assert_eq!(hot(&counters, &own), [(0, 8)]);
    assert_eq!(hot(&counters, &peers), [(REGION, 8)], "a write of the control forgets what was counted");
}

#[test]
fn a_cleared_region_is_counted_anew() {
    let counters = counting(CONTROL);
    let all = |asid| Access { asid, ..access(0, 1000) };
    assert_eq!(hot(&counters, &all(7)).len() + hot(&counters, &all(8)).len(), 2, "address spaces are apart");
    assert!(counters.clear(0x8000_0000 | 7) && counters.clear((REGION - 0x1_0000) | 7));
    assert_eq!((hot(&counters, &all(7)).len(), hot(&counters, &all(8)).len()), (1, 0));
    assert!(counters.clear(CLEAR_ALL_REGIONS));
    assert_eq!(hot(&counters, &all(7)).len() + hot(&counters, &all(8)).len(), 2);
    assert!(!counters.clear(256), "there is no such address space");
    assert!(!counters.clear(CLEAR_ALL_REGIONS - 1));
    assert!(counting(CONTROL.with_region_order(30)).clear(0x1234_0000 | 7), "any address inside");
}

#[test]
fn a_record_says_who_did_it() {
    let counters = counting(CONTROL);
    let records = counters.add(&Access { aperture: Aperture::Peer, ..access(3 * REGION + 100, 1000) });
    let expected = AccessRecord {
        region: 3 * REGION,
        asid: 7,
        channel: 4,
        engine: 1,
        aperture: Aperture::Peer,
        timestamp: 0,
        count: 8,
    };
    assert_eq!(records, [expected]);
}

#[test]
fn a_reset_forgets_everything() {
    let counters = counting(CONTROL);
    counters.add(&access(0, 1000));
    counters.reset();
    assert_eq!((counters.is_enabled(), counters.control()), (false, AccessCounterControl(0)));
    assert!(counters.set_control(CONTROL));
    assert_eq!(hot(&counters, &access(0, 1000)).len(), 1);
}

proptest! {
    /// The same as counting each sector by itself in a map.
    #[test]
    fn counts_are_those_of_a_plain_map(
        order in REGION_ORDER_MIN..=20,
        threshold in 1_u32..200,
        accesses in prop::collection::vec((0_u64..1 << 21, 1_u64..1 << 19, 0_u8..2), 0..40),
    ) {
        let counters = counting(CONTROL.with_region_order(order).with_threshold(threshold));
        let mut model: HashMap<(u8, u64), u64> = HashMap::new();
        for (address, length, asid) in accesses {
            let mut expected = Vec::new();
            for region in (address >> order)..=((address + length - 1) >> order) {
                let (first, end) = (region << order, (region + 1) << order);
                let bytes = (address + length).min(end) - address.max(first);
                let count = model.entry((asid, first)).or_default();
                let before = *count;
                *count += bytes.div_ceil(ACCESS_SECTOR_BYTES);
                if before < threshold.into() && *count >= threshold.into() {
                    expected.push((first, *count));
                }
            }
            prop_assert_eq!(hot(&counters, &Access { asid, ..access(address, length) }), expected);
        }
    }
}
