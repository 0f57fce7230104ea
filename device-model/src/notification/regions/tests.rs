// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The table against a plain map, and its bound.

use proptest::prelude::*;

use super::*;

fn region(number: u64) -> Region {
    Region { asid: (number % 3) as u8, address: number << 16 }
}

#[test]
fn the_least_recently_accessed_region_makes_room() {
    let mut regions = Regions::default();
    let most = MAX_COUNTED_REGIONS as u64;
    for number in 0..most {
        assert_eq!(regions.add(region(number), 5, 10), None);
    }
    assert_eq!(regions.add(region(0), 1, 10), None, "now the second one is the oldest");
    assert_eq!(regions.add(region(most), 1, 10), None);
    assert_eq!(regions.counts.len(), MAX_COUNTED_REGIONS);
    assert_eq!(regions.add(region(0), 4, 10), Some(10), "still counted");
    assert_eq!(regions.add(region(1), 9, 10), None, "begun anew");
    assert_eq!((regions.counts.len(), regions.by_use.len()), (MAX_COUNTED_REGIONS, MAX_COUNTED_REGIONS));
}

#[test]
fn counts_do_not_wrap() {
    let mut regions = Regions::default();
    assert_eq!(regions.add(region(0), u64::MAX, 1), Some(u64::MAX));
    assert_eq!(regions.add(region(0), 2, 1), None);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Add(u64, u64),
    Clear(u64),
    ClearAll,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (0_u64..12, 0_u64..4).prop_map(|(number, amount)| Step::Add(number, amount)),
        3 => (0_u64..12).prop_map(Step::Clear),
        1 => Just(Step::ClearAll),
    ]
}

proptest! {
    /// As long as there is room, a region is hot once, when the sum of its accesses since it was cleared reaches the threshold.
    #[test]
    fn a_region_is_hot_once_until_it_is_cleared(
        steps in prop::collection::vec(step(), 0..300),
        threshold in 1_u64..10,
    ) {
        let mut regions = Regions::default();
        let mut model: HashMap<Region, u64> = HashMap::new();
        for step in steps {
            match step {
                Step::Add(number, amount) => {
                    let sum = model.entry(region(number)).or_default();
                    let before = *sum;
                    *sum += amount;
                    let expected = (before < threshold && *sum >= threshold).then_some(*sum);
                    prop_assert_eq!(regions.add(region(number), amount, threshold), expected);
                }
                Step::Clear(number) => {
                    regions.clear(region(number));
                    model.remove(&region(number));
                }
                Step::ClearAll => {
                    regions.clear_all();
                    model.clear();
                }
            }
            prop_assert_eq!(regions.counts.len(), model.len());
            prop_assert_eq!(regions.by_use.len(), model.len());
        }
    }
}
