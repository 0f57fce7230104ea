// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The tests, a file a topic. Each asserts by the device's own counters that the device did the work, or that it had none.

mod bring_up;
mod counters;
mod devices;
mod direct;
mod errors;
mod eviction;
mod fixture;
mod fork;
mod holes;
mod huge;
mod module;
mod parts;
mod pressure;
mod proc_view;
mod processes;
mod protection;
mod random;
mod resize;
mod roundtrip;
mod stay;
mod syscalls;
mod threads;
mod unbind;
mod vma;

use crate::suite::Test;

/// The topics in the order they run: what others stand on comes first, what takes the driver away last.
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
    fork::TESTS,
    processes::TESTS,
    threads::TESTS,
    syscalls::TESTS,
    proc_view::TESTS,
    pressure::TESTS,
    eviction::TESTS,
    random::TESTS,
    devices::TESTS,
    unbind::TESTS,
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
];
