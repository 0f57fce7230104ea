// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Work that takes as long as on a link and an engine of a given speed.

use std::sync::Arc;

use ersatz_abi::channel::Priority;
use ersatz_abi::command::{Command, Operation};
use ersatz_device_model::clock::ManualClock;
use ersatz_device_model::inject::Timing;

use ersatz_device_testing::faults::{COPY, bind};
use ersatz_device_testing::{DATA, Host, LISTS, command, entry, system, vram};

/// A copy of 1 MiB over a link of 1 MiB per second, in four pieces; the other channels of its engine work meanwhile.
#[test]
fn a_copy_takes_as_long_as_its_link() {
    let clock = Arc::new(ManualClock::new());
    let mut host = Host::with_clock(clock.clone());
    for channel in [0, 1] {
        bind(&host, channel, COPY, Priority::Low);
    }
    let timing = Timing { link_bytes_per_second: 1 << 20, link_latency_ns: 5, ..Timing::default() };
    host.gpu.inject().set_timing(timing);
    let list = host.list(LISTS, &[entry(system(DATA), vram(0), 1 << 20)]);
    host.submit(Command { fence: Some(1), ..command(Operation::Copy(list)) });
    for (piece, fence) in (1..=4).zip(1..) {
        // The engine is woken at each of its times, which it sets from the time at which the piece was begun.
        host.submit_to(1, Command { fence: Some(fence), ..command(Operation::Nop) });
        host.wait_until("another channel", |host| host.fence_of(1) == fence);
        assert_eq!(host.fence(), 0, "piece {piece}");
        clock.advance_to(piece * 250_000_000 + 5);
    }
    host.wait_until("the end", |host| {
        clock.advance(std::time::Duration::from_millis(1));
        host.fence() == 1
    });
    host.gpu.inject().set_timing(Timing::default());
    host.submit(Command { fence: Some(2), ..command(Operation::Copy(list)) });
    host.wait_until("as fast as the host", |host| host.fence() == 2);
}
