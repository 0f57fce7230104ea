// SPDX-License-Identifier: GPL-2.0
//! What the `kernel` crate's PCI device does not offer.

use super::raw::device_ptr;
use crate::bindings;
use kernel::{
    device::{Bound, Core, Device},
    devres,
    dma::{Device as _, DmaMask},
    pci,
    prelude::*,
    sync::aref::ARef,
};

/// Returns the device's PCI segment (domain).
pub(crate) fn segment(pdev: &pci::Device<Bound>) -> u16 {
    let dev: &Device<Bound> = pdev.as_ref();
    // SAFETY: `dev` is the device inside a PCI device.
    let segment = unsafe { bindings::ersatz_pci_domain_nr(device_ptr(dev)) };
    u16::try_from(segment).unwrap_or(u16::MAX)
}

/// Enables the memory BARs of a device that can address all memory by DMA, until it is unbound. To be called first of all.
///
/// # Errors
///
/// `ENOMEM`; `EINVAL` if a BAR has no address; `EIO` if the machine has no DMA for it; what the firmware
/// says if it refuses to power the device up.
pub(crate) fn enable(pdev: &pci::Device<Core<'_>>) -> Result {
    let dev: &Device<Bound> = pdev.as_ref();
    // SAFETY: No DMA memory is allocated or mapped meanwhile: only the thread that binds the driver has a `Core` device before a probe has
    // ended, and nothing of this module does so for a device that is not enabled.
    unsafe { pdev.dma_set_mask_and_coherent(DmaMask::new::<64>())? };
    pdev.enable_device_mem()?;
    devres::register(dev, DisableOnUnbind { dev: dev.into() }, GFP_KERNEL)
}

/// Gives back an enabling of the device, which the PCI core counts.
struct DisableOnUnbind {
    dev: ARef<Device>,
}

impl Drop for DisableOnUnbind {
    fn drop(&mut self) {
        // SAFETY: `dev` is the device inside a PCI device, which was enabled once for this value.
        unsafe { bindings::ersatz_pci_disable_device(device_ptr(&self.dev)) };
    }
}

/// Whether a PCI device may master the bus, which is: do DMA and send message signalled interrupts.
pub(crate) struct BusMaster {
    dev: ARef<Device>,
}

impl BusMaster {
    /// Controls bus mastering of `pdev`, and leaves it as it is.
    pub(crate) fn new(pdev: &pci::Device<Bound>) -> Self {
        let dev: &Device<Bound> = pdev.as_ref();
        Self { dev: dev.into() }
    }

    /// Permits DMA and interrupts.
    pub(crate) fn permit(&self) {
        // SAFETY: `dev` is the device inside a PCI device.
        unsafe { bindings::ersatz_pci_set_master(device_ptr(&self.dev)) };
    }

    /// Forbids DMA and interrupts.
    pub(crate) fn forbid(&self) {
        // SAFETY: As in `permit`.
        unsafe { bindings::ersatz_pci_clear_master(device_ptr(&self.dev)) };
    }
}
