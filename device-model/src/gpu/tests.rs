// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a reset of the function finds under way is not counted after it.

use std::thread;
use std::time::Duration;

use super::*;
use crate::clock::HostClock;
use crate::dma::MappedSpace;
use crate::eventfd::drain;

struct NoInterrupts;

impl InterruptSink for NoInterrupts {
    fn signal(&self, vector: u16) {
        panic!("vector {vector} was signalled");
    }
}

fn gpu() -> Gpu {
    let space = Arc::new(MappedSpace::new());
    Gpu::new(GpuConfig::new(abi::VRAM_MIN), space, Arc::new(NoInterrupts), Arc::new(HostClock::new())).unwrap()
}

fn counted(gpu: &Gpu) -> Vec<(&'static str, u64)> {
    let all = Counter::ALL.iter().map(|counter| (counter.name(), gpu.counter(*counter)));
    all.filter(|(_, count)| *count != 0).collect()
}

/// An engine takes the rings of a doorbell back and counts them in one step for a reset, which closes the gate.
#[test]
fn a_ring_is_counted_before_a_reset_or_taken_back_by_it() {
    let gpu = gpu();
    let device = &gpu.device;
    device.gate.close(false, || {
        device.ring(0);
        thread::sleep(Duration::from_millis(50));
        assert_eq!((counted(&gpu), drain(&device.channels[0].doorbell)), (vec![], 1), "the engine waits");
    });
    thread::sleep(Duration::from_millis(10));
    assert_eq!(counted(&gpu), []);
}

/// Accesses that were accepted before the reset, on another CPU, and are carried out after it.
#[test]
fn an_access_that_a_reset_overtakes_counts_nothing() {
    let gpu = gpu();
    let memory = 0b010;
    gpu.config_write(0x04, &[memory]);
    gpu.reset();
    let channel_control = regs::channel_register(0, regs::CHANNEL_CONTROL).unwrap();
    let mut data = [0; 4];
    gpu.registers.read(&gpu.device, 0x2ffc, &mut data);
    for (offset, value) in
        [(0x2ffc, 1_u32), (channel_control, 1), (regs::FAULT_REPLAY.offset, 1), (regs::INVALIDATE.offset, 0)]
    {
        gpu.registers.write(&gpu.device, offset.into(), &value.to_le_bytes());
    }
    thread::sleep(Duration::from_millis(10));
    assert_eq!(counted(&gpu), []);
    assert!(!gpu.device.had_bad_access());
}
