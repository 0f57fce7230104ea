// SPDX-License-Identifier: GPL-2.0
//! A device of the faux bus, which has devices that no hardware stands behind.
//!
//! The `kernel` crate's `faux::Registration` does not say in Linux 7.2 that its device is bound.

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    device::{Bound, Device},
    prelude::*,
};

/// A device of the faux bus.
///
/// # Invariants
///
/// The device is registered, and bound to its bus's driver, from construction to drop.
pub(crate) struct FauxDevice(NonNull<bindings::faux_device>);

// SAFETY: A faux device may be destroyed by any thread.
unsafe impl Send for FauxDevice {}
// SAFETY: Of a shared reference there is only the device, which may be used by any thread.
unsafe impl Sync for FauxDevice {}

impl FauxDevice {
    /// Registers a device.
    ///
    /// # Errors
    ///
    /// `ENODEV` if that fails.
    pub(crate) fn new(name: &CStr) -> Result<Self> {
        // SAFETY: The name is copied; a device needs neither a parent nor operations.
        let device =
            unsafe { bindings::faux_device_create(name.as_char_ptr(), core::ptr::null_mut(), core::ptr::null()) };
        // INVARIANT: The function returns a device that is bound, or none; user space cannot unbind it.
        NonNull::new(device).map(Self).ok_or(ENODEV)
    }

    /// The device.
    pub(crate) fn dev(&self) -> &Device<Bound> {
        // SAFETY: By the type invariants the device is valid.
        let dev = unsafe { &raw const (*self.0.as_ptr()).dev };
        // SAFETY: By the type invariants the device is valid and bound while `self` is borrowed; `Device` is a transparent wrapper.
        unsafe { &*dev.cast() }
    }
}

impl Drop for FauxDevice {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the device is registered; it is destroyed once.
        unsafe { bindings::faux_device_destroy(self.0.as_ptr()) };
    }
}
