// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The names of a device's threads, by which tools tell the GPUs of a machine apart.

use std::fs;
use std::sync::Arc;

use ersatz_device_model::GpuConfig;
use ersatz_device_model::control_window::ControlHandler;

use ersatz_device_testing::{Host, Interrupts};

/// Answers nothing.
#[derive(Debug)]
struct Deaf;

impl ControlHandler for Deaf {
    fn carry_out(&self, _: &[u8], _: usize, _: &dyn Fn() -> bool) -> Vec<u8> {
        Vec::new()
    }
}

#[test]
fn threads_are_named_after_their_gpu() {
    let mut config = GpuConfig::new(64 << 20);
    config.number = 3;
    config.control = Some(Arc::new(Deaf));
    let host = Host::with(config, Interrupts::default());
    let wanted =
        ["gpu3-copy-0", "gpu3-copy-1", "gpu3-compute-2", "gpu3-mmu", "gpu3-inject", "gpu3-control", "gpu3-trace"];
    // A thread names itself when it starts.
    host.wait_until("the names", |_| {
        let tasks = fs::read_dir("/proc/self/task").expect("this process has threads");
        let names: Vec<String> =
            tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok()).collect();
        wanted.iter().all(|wanted| names.iter().any(|name| name.trim() == *wanted))
    });
}
