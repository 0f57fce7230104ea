// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver, loaded so that it has only little VRAM.

use std::fs;
use std::thread;

use crate::bus::{load, unload, wait_for_device};
use crate::device::Device;
use crate::pattern::PAGE;

/// Where a run's parameters of the driver are.
const PARAMETERS: &str = "/ersatz/driver-parameters";

/// The driver with a limit. Dropped, it is loaded again without; the device must not be open then.
#[derive(Debug)]
pub struct Limited {
    before: Option<String>,
}

impl Limited {
    /// Loads the driver anew, for it to use no more than so many pages of VRAM.
    ///
    /// # Panics
    ///
    /// If the driver is in use, cannot be loaded, or has another number of pages afterwards.
    pub fn to(pages: usize) -> Self {
        let before = fs::read_to_string(PARAMETERS).ok();
        let parameters = format!("{} vram_limit={}", before.as_deref().unwrap_or("").trim(), pages * PAGE);
        fs::write(PARAMETERS, parameters.trim()).unwrap_or_else(|error| panic!("cannot write {PARAMETERS}: {error}"));
        let limited = Self { before };
        unload().expect("unloading the driver");
        wait_for_device(false);
        load();
        assert_eq!(Device::open().info().vram_bytes, (pages * PAGE) as u64, "bytes of VRAM");
        limited
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let _ = match &self.before {
            Some(before) => fs::write(PARAMETERS, before),
            None => fs::remove_file(PARAMETERS),
        };
        let unloaded = unload();
        // A test that fails is to say why, not that this failed as well.
        if !thread::panicking() {
            unloaded.expect("unloading the driver");
        }
        load();
    }
}
