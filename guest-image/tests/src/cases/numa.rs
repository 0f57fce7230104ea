// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Nodes of memory: what leaves the device goes to the one that its process wants it on, also when nobody knows whose it is.

use ersatz_uapi::PageState;

use super::fixture::send;
use crate::device::Device;
use crate::numa::{Policy, pages_by_node, set_policy};
use crate::pattern::Pattern;
use crate::region::Region;
use crate::suite::{Need, test_list};

test_list! { "numa":
    evicted_pages_go_where_they_came_from.needs(&[Need::ManyNodes]);
    evicted_huge_pages_go_where_they_came_from.needs(&[Need::ManyNodes, Need::HugePages, Need::VramPages(1024)]);
    filled_holes_are_evicted_by_the_policy.needs(&[Need::ManyNodes]);
    migration_to_the_system_follows_the_policy.needs(&[Need::ManyNodes]);
}

const PAGES: usize = 96;

/// Policies, and how many of `pages` pages they have on the first two nodes.
fn policies(pages: usize) -> [(Policy, &'static [usize], [usize; 2]); 4] {
    [
        (Policy::Bind, &[0], [pages, 0]),
        (Policy::Bind, &[1], [0, pages]),
        (Policy::Preferred, &[1], [0, pages]),
        (Policy::Interleave, &[0, 1], [pages / 2, pages / 2]),
    ]
}

/// Moves all of a region off the device by eviction.
fn evict(device: &Device, region: &Region) {
    let mut attempts = 0;
    while device.on_device(region.span()) > 0 {
        device.evict();
        attempts += 1;
        assert!(attempts < 1000, "pages do not leave the device");
    }
    device.assert_all(region.span(), PageState::System);
}

fn evicted_pages_go_where_they_came_from() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    for (policy, nodes, expected) in policies(PAGES) {
        let region = Region::new(PAGES);
        set_policy(&region, policy, nodes);
        region.fill(pattern);
        assert_eq!(pages_by_node(&region)[..2], expected, "before, {policy:?} {nodes:?}");
        send(&device, &region);
        evict(&device, &region);
        region.check(pattern);
        assert_eq!(pages_by_node(&region)[..2], expected, "{policy:?} {nodes:?}");
    }
}

fn evicted_huge_pages_go_where_they_came_from() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    for (policy, nodes, expected) in policies(512).into_iter().take(3) {
        let region = Region::huge(1);
        set_policy(&region, policy, nodes);
        region.fill(pattern);
        assert_eq!(pages_by_node(&region)[..2], expected, "before, {policy:?} {nodes:?}");
        device.to_device(region.span());
        evict(&device, &region);
        region.check(pattern);
        assert_eq!(pages_by_node(&region)[..2], expected, "{policy:?} {nodes:?}");
    }
}

fn filled_holes_are_evicted_by_the_policy() {
    let device = Device::open();
    for (policy, nodes, expected) in policies(PAGES) {
        let region = Region::new(PAGES);
        set_policy(&region, policy, nodes);
        device.to_device(region.span());
        assert_eq!(device.on_device(region.span()), PAGES, "holes that were filled on the device");
        evict(&device, &region);
        region.check_zero(0..PAGES);
        assert_eq!(pages_by_node(&region)[..2], expected, "{policy:?} {nodes:?}");
    }
}

fn migration_to_the_system_follows_the_policy() {
    let (device, pattern) = (Device::open(), Pattern::new(1));
    for (policy, nodes, expected) in policies(PAGES) {
        let region = Region::filled(PAGES, pattern);
        send(&device, &region);
        // The policy of now, wherever the pages came from.
        set_policy(&region, policy, nodes);
        device.to_system(region.span());
        region.check(pattern);
        assert_eq!(pages_by_node(&region)[..2], expected, "{policy:?} {nodes:?}");
    }
}
