// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The tests, a file a topic. Each asserts by the device's own counters that the device did the work, or that it had none.

mod bring_up;
mod counters;
mod cpu;
mod devices;
mod direct;
mod errors;
mod eviction;
mod fixture;
mod folio;
mod folios;
mod fork;
mod holes;
mod huge;
mod ksm;
pub mod leaks;
mod limbo;
mod limited;
mod module;
mod museum;
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
mod setting;
mod splits;
mod stay;
mod stress;
mod stress_memory;
mod swap;
mod syscalls;
mod threads;
mod unbind;
mod userfault;
mod userfaultfd;
mod vma;
mod waiting;

use crate::suite::Test;

/// The topics in the order they run: what others stand on comes first, what takes the driver away late,
/// and what looks at the kernel that they all leave behind last.
pub const TOPICS: &[&[Test]] = &[
    roundtrip::TESTS,
    counters::TESTS,
    errors::TESTS,
    parts::TESTS,
    holes::TESTS,
    protection::TESTS,
    stay::TESTS,
    vma::TESTS,
    huge::TESTS,
    folios::TESTS,
    splits::TESTS,
    orders::TESTS,
    fork::TESTS,
    processes::TESTS,
    threads::TESTS,
    syscalls::TESTS,
    proc_view::TESTS,
    pressure::TESTS,
    eviction::TESTS,
    ksm::TESTS,
    userfaultfd::TESTS,
    refused::TESTS,
    races::TESTS,
    pinned::TESTS,
    limbo::TESTS,
    swap::TESTS,
    museum::TESTS,
    random::TESTS,
    devices::TESTS,
    poison::TESTS,
    unbind::TESTS,
    waiting::TESTS,
    bring_up::TESTS,
    direct::registers::TESTS,
    direct::copies::TESTS,
    direct::kernels::TESTS,
    direct::faults::TESTS,
    direct::unserved_faults::TESTS,
    direct::translations::TESTS,
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
