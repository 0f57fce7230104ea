// SPDX-License-Identifier: GPL-2.0
//! What the `kernel` crate's PCI device does not offer.

use super::raw::device_ptr;
use crate::bindings;
use kernel::{device, pci, sync::aref::ARef};

/// The device's PCI segment (domain).
pub(crate) fn segment(pdev: &pci::Device<device::Bound>) -> u16 {
    let dev: &device::Device<device::Bound> = pdev.as_ref();
    // SAFETY: `dev` is the device inside a PCI device.
    let segment = unsafe { bindings::ersatz_pci_domain_nr(device_ptr(dev)) };
    u16::try_from(segment).unwrap_or(u16::MAX)
}

/// Can keep a PCI device from doing DMA.
pub(crate) struct BusMaster {
    pdev: ARef<pci::Device>,
}

impl BusMaster {
    /// For `pdev`, whose bus mastering is on.
    pub(crate) fn new(pdev: &pci::Device<device::Bound>) -> Self {
        let pdev: &pci::Device = pdev;
        Self { pdev: pdev.into() }
    }

    /// Forbids the device all DMA, its message signalled interrupts included.
    pub(crate) fn forbid(&self) {
        let dev: &device::Device = self.pdev.as_ref();
        // SAFETY: `dev` is the device inside a PCI device.
        unsafe { bindings::ersatz_pci_clear_master(device_ptr(dev)) };
    }
}
