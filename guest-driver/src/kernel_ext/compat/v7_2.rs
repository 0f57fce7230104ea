// SPDX-License-Identifier: GPL-2.0
//! Linux 7.2.

use crate::bindings;
use kernel::{
    device::{Bound, Device},
    devres::Devres,
    dma::{Coherent, DmaAddress},
    faux,
    pci::Bar,
    prelude::*,
};

/// A mapped BAR that is revoked when its device is unbound.
pub(crate) type DevresBar<const SIZE: usize> = Devres<Bar<'static, SIZE>>;

/// What `pci::Driver::probe` is given of the table entry that matched.
pub(crate) type ProbeInfo<'bound, T> = &'bound T;

/// What an interrupt handler returns once it has handled its interrupt.
pub(crate) const IRQ_HANDLED: bindings::irqreturn_t = bindings::irqreturn_IRQ_HANDLED;
/// What it returns if its thread is to handle the rest.
pub(crate) const IRQ_WAKE_THREAD: bindings::irqreturn_t = bindings::irqreturn_IRQ_WAKE_THREAD;

/// The device of a faux registration, which is bound while that lives.
pub(crate) fn bound_device(registration: &faux::Registration) -> &Device<Bound> {
    // SAFETY: The faux bus binds a device before its registration returns, and it stays bound until that is dropped.
    unsafe { registration.as_ref().as_bound() }
}

/// Defines a driver's table of PCI ids.
macro_rules! pci_device_table {
    ($table:ident, $info:ty, $ids:tt) => {
        kernel::pci_device_table!($table, MODULE_PCI_TABLE, $info, $ids);
    };
}
pub(crate) use pci_device_table;

/// Returns the address by which a device reaches coherent memory.
pub(crate) fn coherent_address(memory: &Coherent<[u64]>) -> DmaAddress {
    memory.dma_handle()
}

/// Reads one word of coherent memory, in one access.
///
/// # Errors
///
/// `ERANGE` or `EINVAL` if there is no such word.
pub(crate) fn coherent_read(memory: &Coherent<[u64]>, index: usize) -> Result<u64> {
    Ok(kernel::dma_read!(memory, [try: index]))
}

/// Writes one word of coherent memory, in one access.
///
/// # Errors
///
/// `ERANGE` or `EINVAL` if there is no such word.
pub(crate) fn coherent_write(memory: &Coherent<[u64]>, index: usize, value: u64) -> Result {
    kernel::dma_write!(memory, [try: index], value);
    Ok(())
}
