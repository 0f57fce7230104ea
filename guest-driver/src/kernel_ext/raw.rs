// SPDX-License-Identifier: GPL-2.0
//! Raw pointers that the `kernel` crate keeps to itself.

use crate::bindings;
use kernel::device::{Device, DeviceContext};

/// The C side of a device. The pointer is valid while the reference is.
pub(crate) fn device_ptr<C: DeviceContext>(dev: &Device<C>) -> *mut bindings::device {
    // `Device` is a transparent wrapper of `struct device`.
    core::ptr::from_ref(dev).cast_mut().cast()
}
