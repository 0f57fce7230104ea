// SPDX-License-Identifier: GPL-2.0
//! PCI ids of vendors that the kernel has no name for.

use crate::bindings;
use kernel::pci;

/// Matches a device by vendor and device id.
///
/// `pci::DeviceId::from_id` takes only vendors listed in `linux/pci_ids.h`.
pub(crate) const fn device_id(vendor: u16, device: u16) -> pci::DeviceId {
    let id = bindings::pci_device_id {
        vendor: vendor as u32,
        device: device as u32,
        subvendor: !0, // PCI_ANY_ID
        subdevice: !0,
        class: 0,
        class_mask: 0,
        driver_data: 0,
        override_only: 0,
    };
    // SAFETY: `pci::DeviceId` is a transparent wrapper of `struct pci_device_id` without further invariants.
    unsafe { core::mem::transmute::<bindings::pci_device_id, pci::DeviceId>(id) }
}
