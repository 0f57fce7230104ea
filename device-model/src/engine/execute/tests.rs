// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is left of a command that a reset drops.

use ersatz_abi::pci::VRAM_MIN;

use super::*;
use crate::bus_requests::ReportedSpace;
use crate::channel::{Found, ResetScope};
use crate::clock::HostClock;
use crate::counters::Counters;
use crate::device::Units;
use crate::dma::MappedSpace;
use crate::fabric::Link;
use crate::inject::Injector;
use crate::interrupt::InterruptSink;
use crate::pci::aer::ErrorLog;
use crate::ports::Ports;
use crate::trace::Tracer;
use crate::vram::Vram;

struct NoInterrupts;

impl InterruptSink for NoInterrupts {
    fn signal(&self, vector: u16) {
        panic!("vector {vector} was signalled");
    }
}

fn device() -> Device {
    let (errors, counters) = (Arc::new(ErrorLog::new(0)), Arc::new(Counters::new()));
    let ports = Ports {
        dma: ReportedSpace::new(Arc::new(MappedSpace::new()), errors.clone(), counters.clone()),
        interrupts: Arc::new(NoInterrupts),
        clock: Arc::new(HostClock::new()),
        tracer: Tracer::disabled(),
        injector: Injector::idle(),
    };
    let vram = Arc::new(Vram::new(VRAM_MIN).unwrap());
    let link = Link::new(vram.clone(), None).unwrap();
    let units = Units { channels: 1, copy_engines: 1, compute_engines: 0 };
    Device::new(0, ports, vram, link, errors, counters, units).unwrap()
}

/// The reset forgets what was asked for, and numbers count from 1 again: a command from before it must not add to them.
#[test]
fn a_command_that_a_reset_overtakes_asks_for_no_invalidation() {
    let device = device();
    let channel = &device.channels[0];
    assert!(channel.set_up(|setup| (setup.control_block, setup.ring_order) = (4096, 4)));
    channel.switch(true, 1, |_| ());
    let Found::Turn(turn, _) = channel.take_up(0, |_| false) else { panic!("the channel is enabled") };
    let context = Context { device: &device, channel, turn, number: 0, engine: 0 };
    assert_eq!(
        invalidate(&context, Invalidation::All, &mut None),
        Err(Stop::Wait(Wait::Acknowledgement(1))),
        "asked for"
    );
    device.gate.close(false, || {
        channel.reset(ResetScope::Device);
        device.mmu.reset();
    });
    assert_eq!(invalidate(&context, Invalidation::All, &mut None), Err(Stop::Reset));
    assert_eq!(device.mmu.request(Invalidation::All, None), 1, "nothing was asked for since the reset");
}
