// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The log of a test's GPU. Whatever the test is about: once the GPU is gone, the oracle finds its life in good order.

use std::path::PathBuf;
use std::sync::Arc;

use ersatz_device_model::GpuConfig;
use ersatz_device_model::clock::Clock;
use ersatz_device_model::trace::check::Checker;
use ersatz_device_model::trace::{Identity, TraceFile, TraceOptions, Tracer};

/// More than any test writes.
const CAPACITY: u64 = 1 << 20;

/// A log that is checked when this is dropped, after its GPU; or none.
#[derive(Default)]
pub struct Log(Option<tempfile::TempDir>);

impl Log {
    /// Makes a GPU of this configuration write a log, unless it has one that the test looks at itself.
    pub fn of(config: &mut GpuConfig, clock: Arc<dyn Clock>) -> Self {
        if config.tracer.enabled() {
            return Self(None);
        }
        let log = Self(Some(tempfile::tempdir().unwrap()));
        let GpuConfig { number: device, vram_size: vram, channels, copy_engines, .. } = *config;
        let identity = Identity { device, vram, channels: channels.into(), copy_engines: copy_engines.into() };
        let options = TraceOptions { identity, capacity: CAPACITY };
        config.tracer = Tracer::create(&log.path().unwrap(), &options, clock).unwrap();
        log
    }

    fn path(&self) -> Option<PathBuf> {
        self.0.as_ref().map(|folder| folder.path().join("gpu.trace"))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let Some(path) = self.path().filter(|_| !std::thread::panicking()) else { return };
        let verdict = Checker::check(&TraceFile::open(&path).unwrap()).unwrap();
        assert!(verdict.closed, "the device is gone, and its log with it");
        assert_eq!(verdict.findings, [], "what the oracle says");
    }
}
