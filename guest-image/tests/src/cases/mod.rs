// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The tests, a file a topic. Each asserts by the device's own counters that the device did the work, or that it had none.

mod bring_up;
mod chunks;
mod counters;
mod cpu;
mod demands;
mod devices;
mod direct;
mod errors;
mod eviction;
mod exclusive;
mod fixture;
mod folio;
mod folios;
mod fork;
mod hold;
mod holes;
mod huge;
mod injection;
mod ksm;
pub mod leaks;
mod limbo;
mod limited;
mod lost;
mod module;
mod museum;
mod numa;
mod observability;
mod orders;
mod page_map;
mod parts;
mod pin;
mod pinned;
mod poison;
mod pressure;
mod proc_view;
mod processes;
mod protection;
mod races;
mod random;
mod refused;
mod remap;
mod resize;
mod room;
mod roundtrip;
mod second_user;
mod setting;
mod signals;
mod splits;
mod stay;
mod stress;
mod stress_memory;
mod svm;
mod swap;
mod syscalls;
mod threads;
mod unbind;
mod userfault;
mod userfaultfd;
mod vma;
mod waiting;

use crate::suite::Test;

/// All tests, in the order they run.
pub fn all() -> impl Iterator<Item = &'static Test> {
    TOPICS.iter().flat_map(|topic| topic.iter())
}

/// The topics in the order they run: what others stand on comes first, what takes the driver away late, and what looks
/// at the kernel that they all leave behind last.
const TOPICS: &[&[Test]] = &[
    roundtrip::TESTS,
    counters::TESTS,
    errors::TESTS,
    parts::TESTS,
    holes::TESTS,
    protection::TESTS,
    stay::TESTS,
    vma::TESTS,
    huge::TESTS,
    injection::TESTS,
    folios::TESTS,
    splits::TESTS,
    orders::TESTS,
    chunks::TESTS,
    fork::TESTS,
    processes::TESTS,
    threads::TESTS,
    syscalls::TESTS,
    signals::TESTS,
    proc_view::TESTS,
    pressure::TESTS,
    eviction::TESTS,
    numa::TESTS,
    observability::TESTS,
    ksm::TESTS,
    userfaultfd::TESTS,
    refused::TESTS,
    races::TESTS,
    pinned::TESTS,
    limbo::TESTS,
    lost::TESTS,
    swap::TESTS,
    svm::kernels::TESTS,
    svm::refusals::TESTS,
    svm::changes::TESTS,
    svm::migration::TESTS,
    svm::concurrency::TESTS,
    svm::life_cycle::TESTS,
    svm::placement::TESTS,
    svm::placement_mappings::TESTS,
    svm::hazards::TESTS,
    exclusive::TESTS,
    museum::TESTS,
    hold::TESTS,
    random::TESTS,
    devices::TESTS,
    second_user::TESTS,
    poison::TESTS,
    demands::TESTS,
    unbind::TESTS,
    waiting::TESTS,
    bring_up::TESTS,
    direct::registers::TESTS,
    direct::copies::TESTS,
    direct::kernels::TESTS,
    direct::faults::TESTS,
    direct::unserved_faults::TESTS,
    direct::translations::TESTS,
    direct::races::TESTS,
    direct::migration::TESTS,
    direct::access_counters::TESTS,
    direct::channels::TESTS,
    direct::errors::TESTS,
    direct::interrupts::TESTS,
    direct::resets::TESTS,
    direct::peers::TESTS,
    resize::TESTS,
    module::TESTS,
    room::TESTS,
    stress::TESTS,
    leaks::TESTS,
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use ersatz_uapi::{Info, MemoryType};

    use super::*;
    use crate::suite::Need;

    #[test]
    fn names_are_unique_and_say_their_topic() {
        let mut seen = HashSet::new();
        for test in all() {
            assert!(seen.insert(test.name), "{} is there twice", test.name);
            assert_eq!(test.name.split('.').count(), 2, "{}", test.name);
        }
    }

    #[test]
    fn many_tests_apply_to_each_memory_type() {
        for memory_type in [MemoryType::Private, MemoryType::Coherent] {
            let info = Info { memory_type: memory_type as u32, vram_bytes: 64 << 20, ..Info::default() };
            let applicable = all()
                .filter(|test| test.needs.iter().all(|&need| need == Need::HugePages || need.unmet(&info).is_none()));
            assert!(applicable.count() >= 40, "{memory_type:?}");
        }
    }
}
